//! Request bodies as typed values: registrations in the short form, in Consul's agent form and in its catalog form.
//!
//! A server's handlers and an agent's local API parse with the same functions, so that a body means the same at both.
//! Parsing refuses whatever breaks a bound of [`crate::limits`]; what passes is valid.

mod catalog;
mod check;
mod extras;
mod renewal;
mod service;
mod session;
#[cfg(test)]
mod tests;
mod txn;

use std::collections::BTreeMap;

pub use super::autopilot::parse_autopilot_settings;
pub use catalog::{
    encode_registration, parse_catalog_deregistration, parse_catalog_registration, parse_node_id,
    parse_own_meta,
};
pub(super) use check::cut_output;
pub use check::{parse_check, parse_check_update, parse_status};
pub use renewal::parse_renewal;
use serde_json::Value;
pub use service::{InstanceReference, parse_deregistration, parse_heartbeat, parse_service};
pub use session::parse_session;
pub use txn::{ParsedTransaction, parse_transaction};

use super::{
    body::Fields,
    error::{ApiError, echo},
};
use crate::{
    limits::{ADDRESS_BYTES_MAX, META_KEY_CHARS_MAX, META_PAIRS_MAX, META_VALUE_CHARS_MAX},
    registry::{Key, Namespace, Node, NodeName},
};

/// Where a registration through an agent's API goes: what its body does not say.
#[derive(Clone, Debug)]
pub struct Place {
    /// The node that its instances and checks belong to.
    pub node: Node,
    /// The namespace that the request names outside of its body (`?ns=`).
    pub namespace: Option<Namespace>,
    /// Whether checks may run programs.
    pub scripts: bool,
}

impl Place {
    /// The namespace of a body: what the request names, or the body, or the default.
    ///
    /// # Errors
    /// The body's namespace is no name, or another than the request's.
    pub fn namespace(&self, fields: &Fields<'_>) -> Result<Namespace, ApiError> {
        body_namespace(self.namespace.as_ref(), fields)
    }
}

/// A node with nothing but a name and an address, tagged as Consul tags them.
pub fn plain_node(name: NodeName, address: &str) -> Node {
    Node::plain(name, address)
}

/// The items of a body that is a list, or an object with a list by this name.
///
/// # Errors
/// It is neither.
pub fn items<'a>(body: &'a Value, name: &str) -> Result<&'a [Value], ApiError> {
    match body {
        Value::Array(items) => Ok(items),
        Value::Object(_) => {
            let fields = Fields::of(body)?;
            if !fields.has(name)? {
                return Err(fields.error(name, "missing: expected a list"));
            }
            fields.list(name)
        }
        _ => Err(super::body::decode_error(format!(
            "expected a list, or an object with a list named {name}"
        ))),
    }
}

/// A key that a client names.
///
/// # Errors
/// It is too long, or one of the servers' own.
pub fn client_key(bytes: impl Into<bytes::Bytes>) -> Result<Key, ApiError> {
    let key = Key::parse(bytes).map_err(|error| ApiError::bad_request(error.to_string()))?;
    match key.is_reserved() {
        true => Err(ApiError::bad_request(
            "Invalid key: expected one that does not begin with a zero byte",
        )),
        false => Ok(key),
    }
}

/// The namespace that request and body name together.
fn body_namespace(request: Option<&Namespace>, fields: &Fields<'_>) -> Result<Namespace, ApiError> {
    let body = fields
        .first_text(&["Namespace", "NS"])?
        .map(Namespace::parse)
        .transpose()?;
    match (request, body) {
        (Some(request), Some(body)) if *request != body => Err(ApiError::bad_request(format!(
            "the request names the namespace {:?}, its body {:?}: expected one",
            request.as_str(),
            body.as_str()
        ))),
        (Some(request), _) => Ok(request.clone()),
        (None, body) => Ok(body.unwrap_or_default()),
    }
}

/// Whether a text can be a host name or an IP address: it is not too long, and nothing parts it.
pub fn is_address(text: &str) -> bool {
    text.len() <= ADDRESS_BYTES_MAX && !text.contains(|c: char| c.is_control() || c.is_whitespace())
}

/// A host name or IP address; empty when it is absent.
fn address(fields: &Fields<'_>, name: &str) -> Result<String, ApiError> {
    let address = fields.bounded_text(name, ADDRESS_BYTES_MAX)?;
    if !is_address(&address) {
        return Err(fields.error(
            name,
            format!("expected a host name or an IP address, got {:?}", echo(&address)),
        ));
    }
    Ok(address)
}

/// A port; 0 when it is absent.
fn port(fields: &Fields<'_>, name: &str) -> Result<u16, ApiError> {
    // In the words of Go's decoder: clients that send text here look for them.
    let wrong = match fields.get(name)? {
        Some(Value::String(_)) => Some("string".to_owned()),
        Some(Value::Number(number)) if number.is_f64() => Some(format!("number {number}")),
        _ => None,
    };
    if let Some(wrong) = wrong {
        return Err(super::body::decode_error(format!(
            "json: cannot unmarshal {wrong} into Go struct field .Alias.{name} of type int"
        )));
    }
    let port = fields.number(name, 0..=u32::from(u16::MAX))?.unwrap_or_default();
    Ok(u16::try_from(port).expect("the range was checked"))
}

/// Meta of a node or a service, within its limits, with Consul's words where it breaks them.
fn meta(fields: &Fields<'_>, name: &str, of: &str) -> Result<BTreeMap<String, String>, ApiError> {
    let meta = fields.text_map(name)?;
    if meta.len() > META_PAIRS_MAX {
        return Err(ApiError::bad_request(format!(
            "Invalid {of} Meta: {of} metadata cannot contain more than {META_PAIRS_MAX} key/value pairs"
        )));
    }
    for (key, value) in &meta {
        let reason = if key.is_empty() {
            "Key cannot be blank".to_owned()
        } else if key.chars().count() > META_KEY_CHARS_MAX {
            format!("Key is too long (limit: {META_KEY_CHARS_MAX} characters)")
        } else if !key
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        {
            "Key contains invalid characters: expected A-Z, a-z, 0-9, - and _".to_owned()
        } else if value.chars().count() > META_VALUE_CHARS_MAX {
            format!("Value is too long (limit: {META_VALUE_CHARS_MAX} characters)")
        } else {
            continue;
        };
        return Err(ApiError::bad_request(format!(
            "Invalid {of} Meta: Couldn't load metadata pair ('{}', '{}'): {reason}",
            echo(key),
            echo(value)
        )));
    }
    Ok(meta)
}
