//! Sessions: what locks are held by, and what ends them.
//!
//! A session ends when a client destroys it, when it is not renewed for its TTL, when a check that it is bound to turns
//! critical or goes, or when its node goes. Its locks are released then, or their keys deleted.

mod table;

pub(super) use table::SessionTable;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{CheckId, CheckKey, Namespace, NodeName, SessionId};

/// What becomes of the keys that a session holds when it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum SessionBehavior {
    /// They stay, and nobody holds them.
    Release,
    /// They are deleted.
    Delete,
}

impl SessionBehavior {
    /// The word that the HTTP API uses.
    pub fn as_str(self) -> &'static str {
        match self {
            SessionBehavior::Release => "release",
            SessionBehavior::Delete => "delete",
        }
    }
}

/// What holds locks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// Its id.
    pub id: SessionId,
    /// Name for people; may be empty.
    pub name: String,
    /// The node that it lives and dies with.
    pub node: NodeName,
    /// After it ended, nobody takes the locks that it held for this long; zero is no delay.
    pub lock_delay: Duration,
    /// What becomes of the keys that it holds.
    pub behavior: SessionBehavior,
    /// Not renewed for this long, it ends.
    pub ttl: Option<Duration>,
    /// The TTL as it was written, which is how clients get it back.
    pub ttl_text: String,
    /// Checks of its node that it is bound to.
    pub node_checks: Vec<CheckId>,
    /// Checks of services on its node that it is bound to.
    pub service_checks: Vec<(Namespace, CheckId)>,
    /// How many renewals were written to the log: what an expiry compares with. No part of any answer.
    pub renewals: u64,
    /// The index that created it; set by `apply`.
    pub create_index: u64,
    /// The index that last changed it; set by `apply`.
    pub modify_index: u64,
}

impl Session {
    /// The name of the check that agents keep of their own node. Here servers know their nodes to be alive otherwise:
    /// a node without that check counts as alive.
    pub const NODE_ALIVE: &str = "serfHealth";

    /// The checks that it is bound to.
    pub(super) fn checks(&self) -> impl Iterator<Item = CheckKey> + '_ {
        let of_node = self.node_checks.iter().map(|id| (Namespace::default(), id));
        let of_services = self
            .service_checks
            .iter()
            .map(|(namespace, id)| (namespace.clone(), id));
        of_node.chain(of_services).map(|(namespace, id)| CheckKey {
            namespace,
            node: self.node.clone(),
            id: id.clone(),
        })
    }

    /// Whether nobody sees a difference between the two.
    pub fn looks_like(&self, other: &Session) -> bool {
        self == other
            || Session {
                renewals: other.renewals,
                ..self.clone()
            } == *other
    }
}
