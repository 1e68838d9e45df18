//! How values are stored: each with a format version and a checksum, so that what another version wrote and what the
//! disk spoilt are told apart, and neither is ever taken for data.

use std::io;

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Serialize, de::DeserializeOwned};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::{
    ServerId,
    types::{CommittedLeaderId, Entry, LogId, Membership, Payload, Proposal},
};
use crate::{registry::RowError, runtime::Keyspace};

/// The version of everything that this module writes.
pub(crate) const FORMAT_VERSION: u8 = 1;

/// Bytes before a sealed value's body: version and checksum.
const SEAL_BYTES: usize = 1 + 8;

/// Bytes before an entry's payload: kind and term.
const ENTRY_HEAD_BYTES: usize = 1 + 8;

const KIND_BLANK: u8 = 0;
const KIND_COMMAND: u8 = 1;
const KIND_MEMBERSHIP: u8 = 2;

/// Why the store can't go on. It never does so after one of these.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk holds what another server has promised.
    #[error("the data is that of server {found}, not of {id}: start it as {found}, or on an empty directory")]
    OtherServer {
        /// Whose it is.
        found: ServerId,
        /// Who was started on it.
        id: ServerId,
    },
    /// The disk refused.
    #[error("{action} failed: {error}")]
    Disk {
        /// What was being done.
        action: &'static str,
        /// What the disk said.
        error: io::Error,
    },
    /// The store failed earlier, and nothing of it is trusted since.
    #[error("the store failed earlier: {0}")]
    Failed(String),
    /// A value was written by a newer version of the program.
    #[error(
        "{keyspace:?}/{key} has format version {found}, this server reads up to {known}: start a server of the \
         version that wrote it"
    )]
    UnknownVersion {
        /// Its keyspace.
        keyspace: Keyspace,
        /// Its key, in hex or as text.
        key: String,
        /// Its version.
        found: u8,
        /// The newest version known here.
        known: u8,
    },
    /// The state is of a cluster that writes commands which this server can't read.
    #[error(
        "the cluster writes version {needed} of its log's commands, this server reads up to {known}: start a server of \
         a version that knows it"
    )]
    NewerCluster {
        /// What it writes.
        needed: u8,
        /// What this server reads.
        known: u8,
    },
    /// A value makes no sense.
    #[error(
        "{keyspace:?}/{key} is corrupt: {reason}; remove this server from the cluster, delete its data directory and \
         add it again"
    )]
    Corrupt {
        /// Its keyspace.
        keyspace: Keyspace,
        /// Its key, in hex or as text.
        key: String,
        /// What is wrong.
        reason: String,
    },
    /// A command in the log can't be carried out by this version of the program, or is corrupt.
    #[error(
        "log entry {index} can't be applied: {error}; start a server of a version that knows it, or, if the log is \
         corrupt, remove this server, delete its data directory and add it again"
    )]
    Command {
        /// Index of its entry.
        index: u64,
        /// What is wrong with it.
        error: RowError,
    },
}

impl StoreError {
    pub(crate) fn disk(action: &'static str) -> impl FnOnce(io::Error) -> StoreError {
        move |error| StoreError::Disk { action, error }
    }

    pub(crate) fn corrupt(keyspace: Keyspace, key: &[u8], reason: impl ToString) -> StoreError {
        StoreError::Corrupt {
            keyspace,
            key: key_text(keyspace, key),
            reason: reason.to_string(),
        }
    }
}

impl From<StoreError> for io::Error {
    fn from(error: StoreError) -> Self {
        io::Error::other(error)
    }
}

/// A key for people: the names in `Meta` as they are, everything else in hex.
fn key_text(keyspace: Keyspace, key: &[u8]) -> String {
    match (keyspace, std::str::from_utf8(key)) {
        (Keyspace::Meta, Ok(name)) => name.to_string(),
        _ => key.iter().map(|byte| format!("{byte:02x}")).collect(),
    }
}

/// `body` with version and checksum. The checksum covers keyspace and key too: a value in another's place is corrupt.
pub(crate) fn seal(keyspace: Keyspace, key: &[u8], body: &[u8]) -> Bytes {
    let mut value = BytesMut::with_capacity(SEAL_BYTES + body.len());
    value.put_u8(FORMAT_VERSION);
    value.put_u64_le(checksum(keyspace, key, body));
    value.put_slice(body);
    value.freeze()
}

/// The body that [`seal`] was given.
///
/// # Errors
/// The value is corrupt or of a newer version.
pub(crate) fn open(keyspace: Keyspace, key: &[u8], value: &Bytes) -> Result<Bytes, StoreError> {
    let Some(&version) = value.first() else {
        return Err(StoreError::corrupt(keyspace, key, "it is empty"));
    };
    if version > FORMAT_VERSION {
        return Err(StoreError::UnknownVersion {
            keyspace,
            key: key_text(keyspace, key),
            found: version,
            known: FORMAT_VERSION,
        });
    }
    let stored = value
        .get(1..SEAL_BYTES)
        .and_then(|bytes| bytes.try_into().ok())
        .map(u64::from_le_bytes)
        .ok_or_else(|| StoreError::corrupt(keyspace, key, "it is cut off"))?;
    let body = value.slice(SEAL_BYTES..);
    if version == 0 || stored != checksum(keyspace, key, &body) {
        return Err(StoreError::corrupt(keyspace, key, "its checksum does not match"));
    }
    Ok(body)
}

fn checksum(keyspace: Keyspace, key: &[u8], body: &[u8]) -> u64 {
    let mut hasher = Xxh3::new();
    hasher.update(&[keyspace as u8, u8::try_from(key.len()).unwrap_or(u8::MAX)]);
    hasher.update(key);
    hasher.update(body);
    hasher.digest()
}

/// A sealed single value of [`Keyspace::Meta`].
pub(crate) fn seal_meta<T: Serialize>(name: &str, value: &T) -> Bytes {
    let body =
        postcard::to_stdvec(value).expect("our own types serialise, and memory does not run out quietly");
    seal(Keyspace::Meta, name.as_bytes(), &body)
}

/// The value that [`seal_meta`] was given.
///
/// # Errors
/// The value is corrupt or of a newer version.
pub(crate) fn open_meta<T: DeserializeOwned>(name: &str, value: &Bytes) -> Result<T, StoreError> {
    let body = open(Keyspace::Meta, name.as_bytes(), value)?;
    postcard::from_bytes(&body).map_err(|error| StoreError::corrupt(Keyspace::Meta, name.as_bytes(), error))
}

/// The key of a log entry: big-endian, so that key order is log order.
pub(crate) fn log_key(index: u64) -> Bytes {
    Bytes::copy_from_slice(&index.to_be_bytes())
}

/// A key behind all those of log entries.
pub(crate) fn log_end() -> Bytes {
    Bytes::from_static(&[u8::MAX; 9])
}

/// The index that [`log_key`] was given.
///
/// # Errors
/// The key is not one of a log entry.
pub(crate) fn log_index(key: &[u8]) -> Result<u64, StoreError> {
    let bytes = key
        .try_into()
        .map_err(|_| StoreError::corrupt(Keyspace::Log, key, "its key is not an index"))?;
    Ok(u64::from_be_bytes(bytes))
}

/// An entry's bytes without its index: equal for the same entry on every server.
pub(crate) fn encode_entry(entry: &Entry) -> Bytes {
    let membership;
    let (kind, payload): (u8, &[u8]) = match &entry.payload {
        Payload::Blank => (KIND_BLANK, &[]),
        Payload::Normal(proposal) => (KIND_COMMAND, proposal.bytes()),
        Payload::Membership(config) => {
            membership = postcard::to_stdvec(config).expect("a membership serialises");
            (KIND_MEMBERSHIP, &membership)
        }
    };
    let mut body = BytesMut::with_capacity(ENTRY_HEAD_BYTES + payload.len());
    body.put_u8(kind);
    body.put_u64(entry.log_id.leader_id.term);
    body.put_slice(payload);
    body.freeze()
}

/// The hash of an entry's bytes, by which observers compare logs.
pub(crate) fn entry_hash(encoded: &[u8]) -> u64 {
    xxh3_64(encoded)
}

/// The entry at a key of [`Keyspace::Log`].
///
/// # Errors
/// Key or value is corrupt, or the value of a newer version.
pub(crate) fn decode_entry(key: &[u8], value: &Bytes) -> Result<Entry, StoreError> {
    let index = log_index(key)?;
    let body = open(Keyspace::Log, key, value)?;
    let corrupt = |reason: &str| StoreError::corrupt(Keyspace::Log, key, reason);
    let (head, payload) = body
        .split_at_checked(ENTRY_HEAD_BYTES)
        .ok_or_else(|| corrupt("it is cut off"))?;
    let term = u64::from_be_bytes(head[1..].try_into().expect("the head is one byte and a term"));
    let payload = match head[0] {
        KIND_BLANK => Payload::Blank,
        KIND_COMMAND => Payload::Normal(Proposal::from_bytes(body.slice(ENTRY_HEAD_BYTES..))),
        KIND_MEMBERSHIP => {
            let membership: Membership =
                postcard::from_bytes(payload).map_err(|error| corrupt(&error.to_string()))?;
            Payload::Membership(membership)
        }
        _ => return Err(corrupt("it is of no known kind")),
    };
    Ok(Entry {
        log_id: LogId::new(CommittedLeaderId::new(term), index),
        payload,
    })
}
