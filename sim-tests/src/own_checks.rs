//! Checks that are registered by themselves at a server, for an instance of the servers' shared node that is there already.

use std::{fmt, time::Duration};

use bytes::Bytes;
use http::{Method, Request};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sider_core::registry::{CheckStatus, Command, Keeps, Registration};

use crate::{aliases, matching::is_shared_check, probes};

/// `/v1/agent/check/register`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OwnCheck {
    /// Its id, and its name.
    pub id: String,
    /// The instance that it is of; all is refused if that is not there.
    pub of: String,
    /// Its TTL in milliseconds; 0 if it is not a TTL check.
    pub ttl_ms: u64,
    /// The status that it starts with.
    pub status: Option<CheckStatus>,
    /// Its notes.
    pub notes: String,
    /// Critical for so many milliseconds, it takes its instance away; 0 is never.
    pub deregister_after_ms: u64,
    /// The machine that servers probe for it, and how often; then it is no TTL check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probed: Option<Probed>,
    /// What it is an alias of; then it is no TTL check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alias: Option<Alias>,
}

/// Whose status a check takes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Alias {
    /// That of a node; empty for the check's own.
    pub node: String,
    /// And of an instance on it; empty for none.
    pub instance: String,
}

/// How a machine is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum By {
    /// By a request.
    #[default]
    Http,
    /// By a connection.
    Tcp,
    /// By a datagram.
    Udp,
    /// By gRPC's health protocol.
    Grpc,
    /// By a ping of HTTP/2.
    H2ping,
    /// By a program in a container.
    Docker,
    /// Whether the machine's own system says that it runs.
    OsService,
}

impl By {
    /// All of them.
    pub const ALL: [By; 7] = [
        By::Http,
        By::Tcp,
        By::Udp,
        By::Grpc,
        By::H2ping,
        By::Docker,
        By::OsService,
    ];
}

/// How servers probe for a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Probed {
    /// Which machine.
    pub machine: u8,
    /// Between two runs, in milliseconds.
    pub interval_ms: u64,
    /// How.
    #[serde(default, skip_serializing_if = "is_usual")]
    pub by: By,
}

fn is_usual(by: &By) -> bool {
    *by == By::default()
}

impl OwnCheck {
    /// Whether it is found in a way that the first programs do not know.
    pub fn is_of_a_newer_kind(&self) -> bool {
        let known = [By::Http, By::Tcp];
        self.alias.is_some() || self.probed.is_some_and(|probed| !known.contains(&probed.by))
    }

    /// The request.
    pub fn request(&self) -> Request<Bytes> {
        let ms = |ms: u64| format!("{ms}ms");
        let mut body = json!({ "Name": self.id, "ServiceID": self.of, "Notes": self.notes });
        match (self.probed, &self.alias, self.ttl_ms) {
            (Some(probed), ..) => {
                for (name, value) in probes::asked(probed.by, probed.machine) {
                    body[name] = value;
                }
                body["Interval"] = json!(ms(probed.interval_ms));
            }
            (None, Some(Alias { node, instance }), _) => {
                let named = [("AliasNode", node), ("AliasService", instance)];
                for (name, value) in named.into_iter().filter(|(_, value)| !value.is_empty()) {
                    body[name] = json!(value);
                }
            }
            (None, None, 0) => {
                body["TCP"] = json!("10.9.8.7:80");
                body["Interval"] = json!("10s");
            }
            (None, None, ttl_ms) => body["TTL"] = json!(ms(ttl_ms)),
        }
        if let Some(status) = self.status {
            body["Status"] = json!(status.as_str());
        }
        if self.deregister_after_ms > 0 {
            body["DeregisterCriticalServiceAfter"] = json!(ms(self.deregister_after_ms));
        }
        Request::builder()
            .method(Method::PUT)
            .uri("/v1/agent/check/register")
            .body(Bytes::from(body.to_string()))
            .expect("a valid path")
    }

    /// Whether an answer names the check.
    pub fn is_told_by(&self, body: &[u8]) -> bool {
        serde_json::from_slice::<Value>(body).is_ok_and(|told| told["CheckIDs"] == json!([self.id]))
    }

    /// Whether this asked for exactly this command.
    pub fn asks_for(&self, command: &Command) -> bool {
        match command {
            Command::Register(registrations) => {
                matches!(registrations.as_slice(), [registration] if self.is_made_by(registration))
            }
            _ => false,
        }
    }

    fn is_made_by(&self, registration: &Registration) -> bool {
        let [check] = registration.checks.as_slice() else {
            return false;
        };
        let ttl = (self.ttl_ms > 0).then(|| Duration::from_millis(self.ttl_ms));
        let after = check.definition.deregister_critical_service_after;
        registration.instance.is_none()
            && registration.keeps != Keeps::Nothing
            && !registration.replace_checks
            && is_shared_check(&check.key(), &self.id)
            && check.name == self.id
            && check.instance.as_ref().is_some_and(|it| it.as_str() == self.of)
            && check.definition.ttl() == ttl
            && after == Duration::from_millis(self.deregister_after_ms)
            && self
                .probed
                .is_none_or(|it| probes::is_probed_so(&check.definition, it))
            && self
                .alias
                .as_ref()
                .is_none_or(|it| aliases::is_alias_of(&check.definition, it))
            && check.status == self.status
            && check.output.is_empty()
            && check.notes == self.notes
    }
}

impl fmt::Display for OwnCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "register check {} of {} ttl={}ms",
            self.id, self.of, self.ttl_ms
        )?;
        if let Some(probed) = self.probed {
            write!(
                f,
                " probes machine {} by {:?} every {}ms",
                probed.machine, probed.by, probed.interval_ms
            )?;
        }
        if let Some(Alias { node, instance }) = &self.alias {
            write!(f, " as node {node:?} instance {instance:?}")?;
        }
        self.status
            .iter()
            .try_for_each(|status| write!(f, ":{}", status.as_str()))?;
        match self.notes.as_str() {
            "" => Ok(()),
            notes => write!(f, " “{notes}”"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_in_the_request() {
        let check = OwnCheck {
            id: "alone-1".into(),
            of: "txn-0".into(),
            ttl_ms: 1_500,
            status: Some(CheckStatus::Passing),
            notes: "notes".into(),
            deregister_after_ms: 0,
            probed: None,
            alias: None,
        };
        let body: Value = serde_json::from_slice(check.request().body()).expect("JSON");
        assert_eq!(
            body,
            json!({ "Name": "alone-1", "ServiceID": "txn-0", "Notes": "notes", "TTL": "1500ms", "Status": "passing" })
        );
        assert!(check.is_told_by(br#"{"Index": 3, "CheckIDs": ["alone-1"]}"#));
        assert!(!check.is_told_by(br#"{"Index": 3, "CheckIDs": []}"#));
        assert_eq!(
            check.to_string(),
            "register check alone-1 of txn-0 ttl=1500ms:passing “notes”"
        );
    }
}
