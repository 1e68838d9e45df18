//! The state itself.

use bytes::Bytes;

use super::{
    Applied, Check, CheckKey, Command, Instance, InstanceKey, Namespace, Node, NodeName, Query, Topic,
    TopicVersion, View,
};

/// The replicated state. See the module's page.
#[derive(Clone, Debug, Default)]
pub struct Registry {}

/// A stored row that can't be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RowError {
    /// It was written by a newer version.
    #[error("row {key} has format version {found}; this server reads up to {known}")]
    UnknownVersion {
        /// Its key, in hex.
        key: String,
        /// Its version.
        found: u8,
        /// The newest version known here.
        known: u8,
    },
    /// Its bytes make no sense.
    #[error("row {key} is corrupt: {reason}")]
    Corrupt {
        /// Its key, in hex.
        key: String,
        /// What is wrong.
        reason: String,
    },
}

impl Registry {
    /// Carries out a command. Total: what can't be done is a refusal in the reply, and changes nothing.
    pub fn apply(&mut self, _command: &Command) -> Applied {
        unimplemented!()
    }
    /// The index of the last change; 0 while nothing was ever written.
    pub fn index(&self) -> u64 {
        unimplemented!()
    }
    /// An order-free sum of the hashes of all rows: equal states have equal digests. O(1).
    pub fn digest(&self) -> u128 {
        unimplemented!()
    }
    /// How new a topic is. Never goes back, not even when what it names is gone.
    pub fn version(&self, _topic: &Topic) -> TopicVersion {
        unimplemented!()
    }
    /// Answers a query.
    pub fn query(&self, _query: &Query) -> View {
        unimplemented!()
    }
    /// A check.
    pub fn check(&self, _key: &CheckKey) -> Option<&Check> {
        unimplemented!()
    }
    /// An instance.
    pub fn instance(&self, _key: &InstanceKey) -> Option<&Instance> {
        unimplemented!()
    }
    /// A node.
    pub fn node(&self, _name: &NodeName) -> Option<&Node> {
        unimplemented!()
    }
    /// A node's instances in a namespace, by id.
    pub fn instances_of_node<'a>(
        &'a self,
        _namespace: &'a Namespace,
        _node: &'a NodeName,
    ) -> impl Iterator<Item = &'a Instance> + 'a {
        std::iter::empty()
    }
    /// The checks of an instance, by id.
    pub fn checks_of_instance<'a>(&'a self, _key: &'a InstanceKey) -> impl Iterator<Item = &'a Check> + 'a {
        std::iter::empty()
    }
    /// All checks of a namespace on a node (the node's own and its instances'), by id.
    pub fn checks_of_node<'a>(
        &'a self,
        _namespace: &'a Namespace,
        _node: &'a NodeName,
    ) -> impl Iterator<Item = &'a Check> + 'a {
        std::iter::empty()
    }
    /// Every check, by key. For a leader that has just been elected, and for metrics; O(all).
    pub fn checks(&self) -> impl Iterator<Item = &Check> {
        std::iter::empty()
    }
    /// Every instance, by key. For metrics; O(all).
    pub fn instances(&self) -> impl Iterator<Item = &Instance> {
        std::iter::empty()
    }
    /// Every stored row in key order: the registry's complete state, index and topic indexes included.
    pub fn rows(&self) -> impl Iterator<Item = (Bytes, Bytes)> + '_ {
        std::iter::empty()
    }
    /// The registry that [`Registry::rows`] came from, digest included.
    ///
    /// # Errors
    /// A row is corrupt, or newer than this server.
    pub fn from_rows(_rows: impl IntoIterator<Item = (Bytes, Bytes)>) -> Result<Registry, RowError> {
        unimplemented!()
    }
}

impl Query {
    /// The topic whose index is this query's index.
    pub fn topic(&self) -> Topic {
        unimplemented!()
    }
}

impl Command {
    /// Its bytes in the log: a version byte, then postcard.
    pub fn encode(&self) -> Bytes {
        unimplemented!()
    }
    /// The command that [`Command::encode`] gave.
    ///
    /// # Errors
    /// The bytes are corrupt, or of a newer version (the error names it).
    pub fn decode(_bytes: &[u8]) -> Result<Command, RowError> {
        unimplemented!()
    }
}
