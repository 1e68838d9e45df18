//! The replicated state machine: `Registry::apply(command) -> Applied`.
//!
//! Pure, total and deterministic: no clock, no entropy, no file, no socket. What a command needs of time or chance, the
//! leader has put into it. A command that can't be done is refused, equally on every server.
//!
//! Reading order: [`model`] (what is kept), [`command`] (what changes it), [`event`] (what came of it), [`query`]
//! (what can be asked), [`rows`] (how it is stored and digested), then the state itself.

mod command;
mod event;
mod model;
mod query;
mod state;

pub use command::{
    CheckDefinitionUpdate, CheckTarget, CheckUpdate, Command, Deregister, Expiry, Refusal, Registration,
    Reply,
};
pub use event::{Applied, Event, RowChange};
pub use model::{
    Check, CheckDefinition, CheckId, CheckKey, CheckKind, CheckStatus, Instance, InstanceId, InstanceKey,
    InvalidName, Namespace, Node, NodeName, Probe, ServiceAddress, ServiceName, Weights,
};
pub use query::{InstanceHealth, Query, Topic, TopicVersion, View};
pub use state::{Registry, RowError};
