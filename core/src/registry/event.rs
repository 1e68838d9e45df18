//! What came of a command.

use bytes::Bytes;

use super::{CheckKey, CheckStatus, Refusal, Reply, Topic};

/// The complete outcome of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// What the client is told.
    pub reply: Result<Reply, Refusal>,
    /// The registry's index after the command; one higher than before if something changed (2 at first), else
    /// the same.
    pub index: u64,
    /// Whether the command took an index.
    pub changed: bool,
    /// What happened, from before the command to after it: first what is gone (checks, instances, nodes), then what
    /// there is (nodes, instances, checks), each by key; then what became of sessions and of delays of locks.
    pub events: Vec<Event>,
    /// Topics whose index rose to `index`, sorted, each once.
    pub topics: Vec<Topic>,
    /// Rows that were written or removed, by key, each once. Rows may change without an index: a check's output and
    /// count of renewals.
    pub rows: Vec<RowChange>,
}

/// A stored row that changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowChange {
    /// Its key.
    pub key: Bytes,
    /// Its new value; `None` when it is gone.
    pub value: Option<Bytes>,
}

/// Something that happened to one thing.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// An instance was registered or changed.
    InstanceRegistered(super::InstanceKey),
    /// An instance is gone.
    InstanceDeregistered(super::InstanceKey),
    /// A node was registered or changed.
    NodeRegistered(super::NodeName),
    /// A node is gone.
    NodeDeregistered(super::NodeName),
    /// A check was registered or its registration changed: its TTL starts anew.
    CheckRegistered(CheckKey),
    /// A check's status was written (even if it is the same): its TTL starts anew.
    CheckRenewed(CheckKey),
    /// A check's status changed.
    CheckStatusChanged {
        /// Which.
        check: CheckKey,
        /// Before.
        from: CheckStatus,
        /// After.
        to: CheckStatus,
    },
    /// A TTL check was not renewed in time.
    CheckExpired(CheckKey),
    /// A check is gone.
    CheckDeregistered(CheckKey),
    /// There is a new session: its TTL starts.
    SessionCreated(super::SessionId),
    /// A renewal of a session was written: its TTL starts anew.
    SessionRenewed(super::SessionId),
    /// A session ended.
    SessionDestroyed(super::SessionId),
    /// Nobody can take the lock on a key for a while.
    LockDelayBegan(super::Key),
    /// The lock on a key can be taken again.
    LockDelayEnded(super::Key),
}
