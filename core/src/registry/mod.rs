//! The replicated state machine: `Registry::apply(command) -> Applied`.
//!
//! Pure, total and deterministic: no clock, no entropy, no file, no socket. What a command needs of time or chance, the
//! leader has put into it. A command that can't be done is refused, equally on every server.
//!
//! Reading order:
//!
//! 1. What there is: `model` (what is kept of the catalog, `extras` what few have of it, `definition` how checks are run), `kv` (keys), `session`, `operation` (steps of a
//!    transaction), `command` (what changes it), `event` (what came of it), `query`
//!    (what can be asked, and the topics that have an index each).
//! 2. What a command does: `tables` holds what is registered; `transaction` writes to it and can take everything
//!    back; `apply` has one file for each command. None of these knows of topics, events or rows.
//! 3. What follows from it: `difference` finds the topics whose answer changed by comparing before and after;
//!    `topics` keeps their indexes, of what is gone as many as `retention` says; `state` puts it all together.
//! 4. `answer` answers queries, those with a `filter` too; `rows` says how things are stored and digested, `restore` reads them back; `logged` says
//!    how commands are written to the log, `snapshot` how a state is written to a file.
//! 5. `replace` carries out what concerns the state as a whole: a restore from a file, a new version of commands.
//!
//! Four rules hold everywhere, and the tests beside this crate check them on random commands:
//!
//! - A topic's index rises if, and only if, the complete answer behind it changes by more than the output of checks.
//! - A command takes at most one index, and none if it changes nothing but outputs and counts of renewals.
//! - A refused command leaves no trace; a batch is done completely or not at all.
//! - The rows that a command reports are exactly those that changed, and the rows are the whole state.

mod answer;
mod apply;
mod command;
mod definition;
mod difference;
mod event;
mod extras;
mod filter;
mod kv;
mod logged;
mod model;
mod operation;
mod query;
mod replace;
mod restore;
mod retention;
mod rows;
mod session;
mod snapshot;
mod state;
#[cfg(test)]
#[path = "../../tests/strange/mod.rs"]
pub(crate) mod strange;
mod tables;
mod topics;
mod transaction;

pub use command::{
    CheckDefinitionUpdate, CheckTarget, CheckUpdate, Command, Deregister, Expiry, Keeps, LockDelayEnd,
    NewSession, Refusal, Registration, Reply, Restore, SessionExpiry,
};
pub use definition::{CheckDefinition, CheckExtras};
pub use event::{Applied, Event, RowChange};
pub use extras::{Extras, Locality, NamedPort, Proxy};
pub use filter::{Filter, FilterError, Record, Shape};
pub use kv::{Compacted, InvalidKey, Key, KeyValue};
pub use logged::LoggedCommand;
pub use model::{
    Check, CheckId, CheckKey, CheckKind, CheckStatus, Instance, InstanceId, InstanceKey, InvalidName,
    Namespace, Node, NodeName, Probe, ServiceAddress, ServiceName, SessionId, Weights,
};
pub use operation::{KeyWrite, Operation, OperationError, OperationRefusal, OperationResult};
pub use query::{InstanceHealth, ListedCheck, Query, Topic, TopicVersion, View};
pub(crate) use restore::RestoredRows;
pub use retention::Retention;
pub use rows::RowError;
pub use session::{Session, SessionBehavior};
pub use snapshot::{Snapshot, SnapshotError, SnapshotWriter};
pub(crate) use snapshot::{pack, packed_len, unpack};
pub use state::Registry;

use topics::TopicKind;
