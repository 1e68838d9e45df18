//! The text of a config file as a value: JSON, HCL, YAML or TOML.

use std::{fmt, path::Path};

use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Number, Value};

use crate::hcl_config;

/// Reads the file at `path`: JSON, HCL, YAML or TOML by its ending.
///
/// # Errors
/// One line that names the file.
pub(crate) fn read_value(path: &Path) -> Result<Value, String> {
    let text = std::fs::read_to_string(path).map_err(|error| in_file(path, &error.to_string()))?;
    let ending = path
        .extension()
        .and_then(|ending| ending.to_str())
        .unwrap_or_default();
    parse(&text, ending).map_err(|error| in_file(path, &error))
}

/// An error about a config file, in one line.
pub(crate) fn in_file(path: &Path, error: &str) -> String {
    format!("config file {}: {}", path.display(), flat(error))
}

pub(crate) fn parse(text: &str, ending: &str) -> Result<Value, String> {
    match ending.to_ascii_lowercase().as_str() {
        // Consul takes an empty file, too.
        "json" if text.trim().is_empty() => Ok(Value::Null),
        "json" => serde_json::from_str(text)
            .map(|Strict(value)| value)
            .map_err(|error| error.to_string()),
        "yaml" | "yml" => {
            // Else `off`, `no` and `n` would be read as false, wherever text is meant.
            let options = serde_saphyr::options! { strict_booleans: true };
            serde_saphyr::from_str_with_options(text, options)
                .map(|Strict(value)| value)
                .map_err(|error| error.to_string())
        }
        "toml" => toml::from_str(text)
            .map(|Strict(value)| value)
            .map_err(|error| error.to_string()),
        "hcl" => hcl_config::parse(text),
        _ => Err("its name must end in .json, .hcl, .yaml, .yml or .toml".to_owned()),
    }
}

fn flat(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A value in which each key is there once, and numbers are numbers: of what is written twice one would be dropped, and
/// what is infinite would be taken for absent.
struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Strictly).map(Strict)
    }
}

struct Strictly;

impl<'de> Visitor<'de> for Strictly {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Value, E> {
        let finite = Number::from_f64(number).map(Value::Number);
        finite.ok_or_else(|| E::custom(format!("{number} is no number")))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(text.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(Strict(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(list.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            let Strict(value) = entries.next_value()?;
            if map.contains_key(&key) {
                return Err(A::Error::custom(format!("{key}: the key is there twice")));
            }
            map.insert(key, value);
        }
        Ok(map.into())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_form_says_the_same() {
        let expected = json!({"a": [1, -2, 0.5, true, "x"], "b": {"c": {}}});
        for (ending, text) in [
            ("json", r#"{"a": [1, -2, 0.5, true, "x"], "b": {"c": {}}}"#),
            ("yaml", "a: [1, -2, 0.5, true, x]\nb: {c: {}}\n"),
            ("toml", "a = [1, -2, 0.5, true, 'x']\nb = {c = {}}\n"),
        ] {
            assert_eq!(parse(text, ending), Ok(expected.clone()), "{ending}");
        }
        assert_eq!(parse("a: null\nb:\n", "yml"), Ok(json!({"a": null, "b": null})));
    }

    #[test]
    fn what_would_be_dropped_is_refused() {
        for (ending, text, complaint) in [
            ("json", r#"{"b": {"a": 1, "a": 2}}"#, "a: the key is there twice"),
            ("yaml", "a: 1\na: 2\n", "duplicate"),
            ("toml", "a = 1\na = 2\n", "duplicate"),
            ("yaml", "a: .inf", "non-finite"),
            ("yaml", "a: [.nan]", "non-finite"),
            ("toml", "a = -inf", "-inf is no number"),
            ("toml", "a = [nan]", "NaN is no number"),
            ("json", "{\"a\": 1e400}", "number out of range"),
        ] {
            let error = parse(text, ending).unwrap_err();
            assert!(error.contains(complaint), "{text}: {error}");
        }
    }
}
