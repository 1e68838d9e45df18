//! Keys taken out of a section of a file, with their kinds checked. Null and empty text are as if the key were not there.

use serde_json::{Map, Value};

pub(super) fn take_text(keys: &mut Map<String, Value>, key: &str) -> Result<Option<String>, String> {
    match keys.remove(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.is_empty() => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(other) => Err(format!("{key}: expected text, found {other}")),
    }
}

/// An address without a port.
pub(super) fn take_host(keys: &mut Map<String, Value>, key: &str) -> Result<Option<String>, String> {
    match take_text(keys, key)? {
        Some(text) if text.contains("{{") => Err(format!(
            "{key}: {text:?}: templates are not filled in here: write an address"
        )),
        host => Ok(host),
    }
}

pub(super) fn take_bool(keys: &mut Map<String, Value>, key: &str) -> Result<Option<bool>, String> {
    match keys.remove(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Bool(value)) => Ok(Some(value)),
        Some(other) => Err(format!("{key}: expected true or false, found {other}")),
    }
}

pub(super) fn take_number(
    keys: &mut Map<String, Value>,
    section: &str,
    key: &str,
) -> Result<Option<u64>, String> {
    match keys.remove(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => value
            .as_u64()
            .map(Some)
            .ok_or_else(|| format!("{section}.{key}: expected a number that is not negative, found {value}")),
    }
}

pub(super) fn take_section(keys: &mut Map<String, Value>, key: &str) -> Result<Map<String, Value>, String> {
    match keys.remove(key) {
        None | Some(Value::Null) => Ok(Map::new()),
        Some(Value::Object(section)) => Ok(section),
        Some(other) => Err(format!("{key}: expected keys with values, found {other}")),
    }
}
