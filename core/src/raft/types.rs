//! What openraft is told about our types.

use std::{
    cmp::Ordering,
    fmt,
    marker::PhantomData,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use openraft::{
    EntryPayload, OptionalSend, RaftTypeConfig,
    impls::{BoxedErrorSource, InlineBatch, OneshotResponder},
    vote::leader_id_std,
};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::{ServerAddress, member::MemberId, rt::RaftRuntime};
use crate::{
    registry::{Applied, Command, RowError},
    runtime::Runtime,
};

/// openraft's type configuration.
pub(crate) struct Types<R>(PhantomData<fn() -> R>);

impl<R: Runtime> RaftTypeConfig for Types<R> {
    type D = Proposal;
    type R = Outcome;
    type NodeId = MemberId;
    type Node = ServerAddress;
    type Term = u64;
    type LeaderId = leader_id_std::LeaderId<u64, MemberId>;
    type Vote = Vote;
    type Payload = Payload;
    type Entry = Entry;
    type AsyncRuntime = RaftRuntime<R>;
    type Responder<T>
        = OneshotResponder<Self, T>
    where
        T: OptionalSend + 'static;
    type Batch<T>
        = InlineBatch<T>
    where
        T: OptionalSend + 'static;
    type ErrorSource = BoxedErrorSource;
}

/// One leader per term, as in the paper; so a term and an index are an entry's whole identity.
pub(crate) type CommittedLeaderId = leader_id_std::CommittedLeaderId<u64>;
pub(crate) type Vote = openraft::Vote<leader_id_std::LeaderId<u64, MemberId>>;
pub(crate) type LogId = openraft::LogId<CommittedLeaderId>;
pub(crate) type Payload = EntryPayload<Proposal, MemberId, ServerAddress>;
pub(crate) type Entry = openraft::Entry<CommittedLeaderId, Payload>;
pub(crate) type Membership = openraft::Membership<MemberId, ServerAddress>;
pub(crate) type StoredMembership = openraft::StoredMembership<CommittedLeaderId, MemberId, ServerAddress>;
pub(crate) type SnapshotMeta = openraft::SnapshotMeta<CommittedLeaderId, MemberId, ServerAddress>;

// Derived ones would ask the same of `R`, of which no value ever exists.
impl<R> Copy for Types<R> {}

impl<R> Clone for Types<R> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<R> Default for Types<R> {
    fn default() -> Self {
        Types(PhantomData)
    }
}

impl<R> fmt::Debug for Types<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Types")
    }
}

impl<R> PartialEq for Types<R> {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl<R> Eq for Types<R> {}

impl<R> PartialOrd for Types<R> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<R> Ord for Types<R> {
    fn cmp(&self, _: &Self) -> Ordering {
        Ordering::Equal
    }
}

/// A command on its way through the log: its bytes, and where it was proposed also the command itself.
///
/// The bytes are not decoded before they are applied. A server that does not know a command's version must stop when
/// it comes to it, and not take the leader's message for a malformed one.
#[derive(Clone)]
pub(crate) struct Proposal {
    bytes: Bytes,
    /// Until it is applied here. The log keeps thousands of entries in memory, and the command is larger than its bytes.
    command: Option<Arc<Mutex<Option<Command>>>>,
}

impl Proposal {
    /// A command as this version writes it, at this wall time.
    pub(crate) fn new(command: Command, version: u8, proposed_ms: u64) -> Self {
        Proposal {
            bytes: command.encode(version, proposed_ms),
            command: Some(Arc::new(Mutex::new(Some(command)))),
        }
    }

    pub(crate) fn from_bytes(bytes: Bytes) -> Self {
        Proposal { bytes, command: None }
    }

    pub(crate) fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The command, for a server that reads versions up to `known`. It is decoded unless this is the first time that it is
    /// taken where it was proposed.
    ///
    /// # Errors
    /// It is corrupt or of a newer version.
    pub(crate) fn take_command(&self, known: u8) -> Result<Command, RowError> {
        let kept = self.command.as_ref().and_then(|command| {
            let mut command = command.lock().unwrap_or_else(PoisonError::into_inner);
            command.take()
        });
        match kept {
            Some(command) => Ok(command),
            None => Command::decode(&self.bytes, known).map(|logged| logged.command),
        }
    }
}

impl PartialEq for Proposal {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl fmt::Debug for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "command of {} bytes", self.bytes.len())
    }
}

impl Serialize for Proposal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.bytes)
    }
}

impl<'de> Deserialize<'de> for Proposal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl de::Visitor<'_> for Visitor {
            type Value = Proposal;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes of a command")
            }

            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Proposal, E> {
                Ok(Proposal::from_bytes(Bytes::copy_from_slice(bytes)))
            }

            fn visit_byte_buf<E: de::Error>(self, bytes: Vec<u8>) -> Result<Proposal, E> {
                Ok(Proposal::from_bytes(Bytes::from(bytes)))
            }
        }

        deserializer.deserialize_bytes(Visitor)
    }
}

/// What applying an entry gave. It never travels: the leader answers from its own state machine, so what openraft may
/// serialise of it is nothing.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// `None` for blank and membership entries.
    #[serde(skip)]
    pub(crate) applied: Option<Applied>,
}
