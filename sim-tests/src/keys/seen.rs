//! Keys and sessions as answers show them.

use serde_json::Value;
use sider_core::registry::{CheckId, KeyValue, Namespace, Session, SessionBehavior};

use super::base64;
use crate::content::Content;

/// A key as a client sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeySeen {
    /// Key.
    pub key: String,
    /// Value in base64; empty where it is not shown.
    pub value: String,
    /// Flags.
    pub flags: u64,
    /// How often its lock was taken.
    pub lock_index: u64,
    /// Who holds its lock; empty for nobody.
    pub session: String,
    /// Create index.
    pub create_index: u64,
    /// Modify index.
    pub modify_index: u64,
}

/// A session as a client sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionSeen {
    /// Id.
    pub id: String,
    /// Name.
    pub name: String,
    /// Node.
    pub node: String,
    /// Delay of its locks, in nanoseconds.
    pub lock_delay: u64,
    /// What becomes of its keys.
    pub behavior: String,
    /// Its TTL as it was asked for.
    pub ttl: String,
    /// The checks of its node that it is bound to.
    pub node_checks: Vec<String>,
    /// The checks of services that it is bound to, each behind its namespace.
    pub service_checks: Vec<(String, String)>,
    /// Create index.
    pub create_index: u64,
    /// Modify index.
    pub modify_index: u64,
}

impl KeySeen {
    /// A key of the model.
    pub fn of(held: &KeyValue) -> KeySeen {
        KeySeen {
            key: held.key.to_string(),
            value: base64(&held.value),
            flags: held.flags,
            lock_index: held.lock_index,
            session: held.session.as_ref().map(ToString::to_string).unwrap_or_default(),
            create_index: held.create_index,
            modify_index: held.modify_index,
        }
    }

    /// A key as an answer shows it.
    ///
    /// # Errors
    /// Says what is missing.
    pub fn parse(value: &Value) -> Result<KeySeen, String> {
        let number = |name: &str| {
            value[name]
                .as_u64()
                .ok_or_else(|| format!("no {name} in {value}"))
        };
        let text = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
        Ok(KeySeen {
            key: value["Key"]
                .as_str()
                .ok_or_else(|| format!("no Key in {value}"))?
                .to_owned(),
            value: text("Value"),
            flags: number("Flags")?,
            lock_index: number("LockIndex")?,
            session: text("Session"),
            create_index: number("CreateIndex")?,
            modify_index: number("ModifyIndex")?,
        })
    }
}

impl SessionSeen {
    /// A session of the model.
    pub fn of(session: &Session) -> SessionSeen {
        SessionSeen {
            id: session.id.to_string(),
            name: session.name.clone(),
            node: session.node.to_string(),
            lock_delay: u64::try_from(session.lock_delay.as_nanos()).unwrap_or(u64::MAX),
            behavior: match session.behavior {
                SessionBehavior::Release => "release".to_owned(),
                SessionBehavior::Delete => "delete".to_owned(),
            },
            ttl: session.ttl_text.clone(),
            node_checks: session.node_checks.iter().map(ToString::to_string).collect(),
            service_checks: session.service_checks.iter().map(bound_to).collect(),
            create_index: session.create_index,
            modify_index: session.modify_index,
        }
    }

    fn parse(value: &Value) -> Result<SessionSeen, String> {
        let number = |name: &str| {
            value[name]
                .as_u64()
                .ok_or_else(|| format!("no {name} in {value}"))
        };
        let text = |name: &str| {
            let text = value[name]
                .as_str()
                .ok_or_else(|| format!("no {name} in {value}"));
            text.map(str::to_owned)
        };
        Ok(SessionSeen {
            id: text("ID")?,
            name: text("Name")?,
            node: text("Node")?,
            lock_delay: number("LockDelay")?,
            behavior: text("Behavior")?,
            ttl: text("TTL")?,
            node_checks: each(&value["NodeChecks"], told_text)?,
            service_checks: match &value["ServiceChecks"] {
                Value::Null => Vec::new(),
                checks => each(checks, |it| {
                    Ok((told_text(&it["Namespace"])?, told_text(&it["ID"])?))
                })?,
            },
            create_index: number("CreateIndex")?,
            modify_index: number("ModifyIndex")?,
        })
    }
}

/// A list of keys, or of sessions, or of names, as an answer shows them.
///
/// # Errors
/// Says what is wrong.
pub fn parse_keys(value: &Value) -> Result<Content, String> {
    Ok(Content::Keys(each(value, KeySeen::parse)?))
}

/// See [`parse_keys`].
///
/// # Errors
/// Says what is wrong.
pub fn parse_sessions(value: &Value) -> Result<Content, String> {
    Ok(Content::Sessions(each(value, SessionSeen::parse)?))
}

/// See [`parse_keys`].
///
/// # Errors
/// Says what is wrong.
pub fn parse_names(value: &Value) -> Result<Content, String> {
    Ok(Content::KeyNames(each(value, told_text)?))
}

fn told_text(value: &Value) -> Result<String, String> {
    let text = value.as_str().map(str::to_owned);
    text.ok_or_else(|| format!("{value} is no text"))
}

/// A check of a service as answers name it: they leave out the default namespace.
fn bound_to((namespace, id): &(Namespace, CheckId)) -> (String, String) {
    let namespace = Some(namespace).filter(|it| **it != Namespace::default());
    (
        namespace.map(ToString::to_string).unwrap_or_default(),
        id.to_string(),
    )
}

pub(super) fn each<T>(value: &Value, parse: impl Fn(&Value) -> Result<T, String>) -> Result<Vec<T>, String> {
    value.as_array().ok_or("not a list")?.iter().map(parse).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn another_delay_or_check_of_a_session_is_seen() {
        let told = json!({
            "ID": "id", "Name": "one", "Node": "host-a", "LockDelay": 300_000_000, "Behavior": "delete", "TTL": "1500ms",
            "NodeChecks": ["ping"], "ServiceChecks": [{ "ID": "db-check", "Namespace": "" }],
            "CreateIndex": 7, "ModifyIndex": 7,
        });
        let seen = SessionSeen::parse(&told).expect("a session");
        assert_eq!(seen.service_checks, [(String::new(), "db-check".to_owned())]);
        for (field, other) in [
            ("LockDelay", json!(300)),
            ("Behavior", json!("release")),
            ("TTL", json!("")),
            ("NodeChecks", json!([])),
            ("ServiceChecks", Value::Null),
        ] {
            let mut told = told.clone();
            told[field] = other;
            assert_ne!(SessionSeen::parse(&told).expect("a session"), seen, "{field}");
        }
    }
}
