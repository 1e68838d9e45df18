//! What one step of a transaction does, what it gives, and why it can't be done.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{
    CheckDefinitionUpdate, CheckKey, Instance, InstanceKey, Key, KeyValue, ListedCheck, Node, NodeName,
    SessionId,
};

/// One step of a transaction. Each sees what those before it did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operation {
    /// Puts a value; who holds the key's lock goes on holding it.
    SetKey(KeyWrite),
    /// Puts a value if the key's modify index is this one; 0 if the key is not there.
    SetKeyIf(KeyWrite, u64),
    /// Puts a value and takes the key's lock.
    Lock(KeyWrite, Option<SessionId>),
    /// Puts a value and gives the key's lock back.
    Unlock(KeyWrite, Option<SessionId>),
    /// Deletes a key; none is no failure.
    DeleteKey(Key),
    /// Deletes a key if its modify index is this one; none is no failure.
    DeleteKeyIf(Key, u64),
    /// Deletes every key with a prefix.
    DeleteTree(Key),
    /// Gives what a key holds.
    GetKey(Key),
    /// The same; a key that is not there holds nothing.
    GetKeyOrEmpty(Key),
    /// Gives what every key with a prefix holds.
    GetTree(Key),
    /// Fails unless the key's modify index is this one.
    CheckIndex(Key, u64),
    /// Fails unless the session of this id holds the key's lock.
    CheckSession(Key, Option<SessionId>),
    /// Fails if the key is there.
    CheckNotExists(Key),
    /// Ends a session; none is no failure.
    DestroySession(SessionId),
    /// Gives a node.
    GetNode(NodeName),
    /// Registers a node.
    SetNode(Node),
    /// Registers a node if its modify index is this one; 0 if it is not there.
    SetNodeIf(Node, u64),
    /// Removes a node with all that is on it; none is no failure.
    DeleteNode(NodeName),
    /// Removes a node if its modify index is this one.
    DeleteNodeIf(NodeName, u64),
    /// Gives an instance.
    GetInstance(InstanceKey),
    /// Registers an instance on a node that is there.
    SetInstance(Instance),
    /// Registers an instance if its modify index is this one; 0 if it is not there.
    SetInstanceIf(Instance, u64),
    /// Removes an instance with its checks; none is no failure.
    DeleteInstance(InstanceKey),
    /// Removes an instance if its modify index is this one.
    DeleteInstanceIf(InstanceKey, u64),
    /// Gives a check.
    GetCheck(CheckKey),
    /// Registers a check on a node that is there.
    SetCheck(CheckDefinitionUpdate),
    /// Registers a check if its modify index is this one; 0 if it is not there.
    SetCheckIf(CheckDefinitionUpdate, u64),
    /// Removes a check; none is no failure.
    DeleteCheck(CheckKey),
    /// Removes a check if its modify index is this one.
    DeleteCheckIf(CheckKey, u64),
}

/// What to put under a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyWrite {
    /// The key.
    pub key: Key,
    /// Its value.
    pub value: Bytes,
    /// Its flags.
    pub flags: u64,
}

impl Operation {
    /// Whether it changes nothing, whatever the state: a transaction of nothing else needs no log.
    pub fn only_reads(&self) -> bool {
        matches!(
            self,
            Operation::GetKey(_)
                | Operation::GetKeyOrEmpty(_)
                | Operation::GetTree(_)
                | Operation::CheckIndex(..)
                | Operation::CheckSession(..)
                | Operation::CheckNotExists(_)
                | Operation::GetNode(_)
                | Operation::GetInstance(_)
                | Operation::GetCheck(_)
        )
    }
}

/// What an operation gives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OperationResult {
    /// A key with its value.
    Key(KeyValue),
    /// A key that was written or checked; its value is left out.
    KeyMeta(KeyValue),
    /// A node.
    Node(Node),
    /// An instance.
    Instance(Instance),
    /// A check with its service's name and tags.
    Check(ListedCheck),
}

/// An operation that can't be done, with its place in the transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperationError {
    /// Its place, from 0.
    pub place: u64,
    /// Why.
    pub refusal: OperationRefusal,
}

/// Why an operation can't be done, in the words that Consul's clients know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum OperationRefusal {
    /// The key is another one by now.
    #[error("failed to set key {0:?}, index is stale")]
    SetKeyStale(Key),
    /// The same, of a deletion.
    #[error("failed to delete key {0:?}, index is stale")]
    DeleteKeyStale(Key),
    /// Somebody else holds it.
    #[error("failed to lock key {0:?}, lock is already held")]
    LockHeld(Key),
    /// Its last holder's session ended, and may not know that yet.
    #[error("failed to lock key {0:?} due to lock delay")]
    LockDelayed(Key),
    /// It is not held by that session.
    #[error("failed to unlock key {0:?}, lock isn't held, or is held by another session")]
    NotHeld(Key),
    /// No session is named.
    #[error("missing session")]
    MissingSession,
    /// There is no such session.
    #[error("invalid session {:?}", .0.as_str())]
    InvalidSession(SessionId),
    /// There is no such key.
    #[error("key {0:?} doesn't exist")]
    NoKey(Key),
    /// There is such a key.
    #[error("key {0:?} exists")]
    KeyExists(Key),
    /// There is no such key, so it has no index.
    #[error("failed to check index, key {0:?} doesn't exist")]
    NoKeyToCheckIndex(Key),
    /// It has another index.
    #[error("failed index check for key {key:?}, current modify index {actual} != {expected}")]
    OtherIndex {
        /// The key.
        key: Key,
        /// Its modify index.
        actual: u64,
        /// The one that was expected.
        expected: u64,
    },
    /// There is no such key, so nobody holds it.
    #[error("failed to check session, key {0:?} doesn't exist")]
    NoKeyToCheckSession(Key),
    /// Somebody else holds it, or nobody does.
    #[error("failed session check for key {key:?}, current session {actual:?} != {expected:?}")]
    OtherSession {
        /// The key.
        key: Key,
        /// Who holds it; empty for nobody.
        actual: String,
        /// Who was expected.
        expected: String,
    },
    /// There is no such node.
    #[error("node {0:?} doesn't exist")]
    NoNode(String),
    /// There is no such instance.
    #[error("service {id:?} on node {node:?} doesn't exist")]
    NoInstance {
        /// Its node.
        node: String,
        /// Its id.
        id: String,
    },
    /// There is no such check.
    #[error("check {id:?} on node {node:?} doesn't exist")]
    NoCheck {
        /// Its node.
        node: String,
        /// Its id.
        id: String,
    },
    /// What is in the catalog is another one by now.
    #[error("failed to {verb} {what}, index is stale")]
    CatalogStale {
        /// `set` or `delete`.
        verb: String,
        /// Kind and name.
        what: String,
    },
    /// The registration contradicts the registry (its own words).
    #[error("{0}")]
    Invalid(String),
}
