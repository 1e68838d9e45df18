//! Maintenance of an instance, or of the servers' shared node, as clients ask for it.

use std::fmt;

use bytes::Bytes;
use http::{Method, Request};
use serde::{Deserialize, Serialize};
use sider_core::registry::{CheckStatus, Command, Deregister, Keeps, Registration};

use crate::matching::is_shared_check;

/// The id of the check of a node in maintenance.
pub const OF_NODE: &str = "_node_maintenance";

/// Takes an instance, or the node, out of use, or puts it back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Maintenance {
    /// The instance; none for the node.
    pub of: Option<String>,
    /// Whether it begins.
    pub begins: bool,
    /// Why, where that is said.
    pub reason: Option<String>,
}

/// The id of the check of an instance in maintenance.
pub fn check_of(instance: &str) -> String {
    format!("_service_maintenance:{instance}")
}

impl Maintenance {
    /// The check that makes it.
    pub fn check(&self) -> String {
        self.of.as_deref().map_or(OF_NODE.to_owned(), check_of)
    }

    /// The request.
    pub fn request(&self) -> Request<Bytes> {
        let path = match &self.of {
            None => "/v1/agent/maintenance".to_owned(),
            Some(instance) => format!("/v1/agent/service/maintenance/{instance}"),
        };
        let reason = self.reason.iter().map(|reason| format!("&reason={reason}"));
        let reason: String = reason.collect();
        Request::builder()
            .method(Method::PUT)
            .uri(format!("{path}?enable={}{reason}", self.begins))
            .body(Bytes::new())
            .expect("simulated names are valid in a path")
    }

    /// Whether this asked for exactly this command.
    pub fn asks_for(&self, command: &Command) -> bool {
        match command {
            Command::Register(registrations) if self.begins => {
                matches!(registrations.as_slice(), [registration] if self.is_begun_by(registration))
            }
            Command::Deregister(Deregister::Check(key)) => {
                !self.begins && is_shared_check(key, &self.check())
            }
            _ => false,
        }
    }

    fn is_begun_by(&self, registration: &Registration) -> bool {
        let [check] = registration.checks.as_slice() else {
            return false;
        };
        registration.instance.is_none()
            && registration.keeps != Keeps::Nothing
            && is_shared_check(&check.key(), &self.check())
            && check.instance.as_ref().map(ToString::to_string) == self.of
            // Nobody runs it, and nobody renews it.
            && check.definition == sider_core::registry::CheckDefinition::default()
            && check.status == Some(CheckStatus::Critical)
            && match &self.reason {
                Some(reason) => check.notes == *reason,
                None => check.notes.starts_with("Maintenance mode is enabled for this "),
            }
    }
}

impl fmt::Display for Maintenance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = self.of.as_deref().unwrap_or("the node");
        let begins = if self.begins { "begin" } else { "end" };
        write!(f, "{begins} maintenance of {what}")?;
        self.reason.iter().try_for_each(|reason| write!(f, " “{reason}”"))
    }
}
