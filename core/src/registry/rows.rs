//! How the state is stored and digested.
//!
//! Every thing is one row. Its key is a kind byte and the thing's key, encoded so that rows sort as the things do; its
//! value is a version byte and postcard. A row's encoding is a function of what it holds, so equal states have equal
//! rows, and a row that is not what its content would be encoded to is corrupt. The digest of a state is the wrapping
//! sum of the hashes of its rows: order-free, so that a change costs only the rows that it touches.

use std::{collections::BTreeMap, fmt::Write as _, sync::Arc};

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

use super::{
    Check, CheckKey, Instance, InstanceKey, Key, KeyValue, Node, NodeName, RowChange, Session, SessionId,
    Topic, TopicKind, kv::LockDelay,
};

/// The version of rows that is written. A new one comes with every change of what a row holds.
const ROW_VERSION: u8 = 1;
/// The version of rows of the catalog with something in them that was not there in the first. The others are written as
/// they were, so that a row's bytes follow from what it holds, whatever program wrote it.
const NEWER_ROW_VERSION: u8 = 2;
/// The version of rows of checks with extras, which came later still.
const EXTRAS_ROW_VERSION: u8 = 3;

// Kinds of rows, in the order in which they are read back.
const INDEX: u8 = 0x01;
const FLOOR: u8 = 0x02;
const COMPACTED: u8 = 0x03;
const COMMAND_VERSION: u8 = 0x04;
const NODE: u8 = 0x10;
const INSTANCE: u8 = 0x11;
const CHECK: u8 = 0x12;
const VERSION: u8 = 0x13;
const SESSION: u8 = 0x14;
const LOCK_DELAY: u8 = 0x15;
const TOPIC: u8 = 0x20;
const STAGED: u8 = 0x30;

/// Bytes of a row, its key's length included, that are hashed in one piece.
const SMALL_ROW_BYTES: usize = 512;

/// Stored bytes that can't be read: a row, or a command of the log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RowError {
    /// It was written by a newer version.
    #[error("{key} has format version {found}; this server reads up to {known}")]
    UnknownVersion {
        /// `row` and its key in hex, or `command`.
        key: String,
        /// Its version.
        found: u8,
        /// The newest version known here.
        known: u8,
    },
    /// Its bytes make no sense.
    #[error("{key} is corrupt: {reason}")]
    Corrupt {
        /// `row` and its key in hex, or `command`.
        key: String,
        /// What is wrong.
        reason: String,
    },
}

/// A row's content.
#[derive(Clone, Debug)]
pub(super) enum Row {
    /// The registry's index.
    Index(u64),
    /// The index of every topic of a kind that has no row of its own, at least.
    Floor(TopicKind, u64),
    /// The version of commands that every member can read; there is none for the first.
    CommandVersion(u8),
    Node(Arc<Node>),
    Instance(Arc<Instance>),
    Check(Arc<Check>),
    /// The revision of the last compaction of keys.
    Compacted(u64),
    /// What a key held from a revision on; `None` is its deletion.
    Version(u64, Key, Option<Arc<KeyValue>>),
    Session(Arc<Session>),
    LockDelay(Key, LockDelay),
    /// The index of a topic.
    Topic(Topic, u64),
    /// A part of a restore: its place, which restore it is of, and its packed rows.
    Staged(u32, u64, Arc<Vec<u8>>),
}

impl Row {
    /// Its key and its value.
    pub(super) fn encode(&self) -> (Bytes, Bytes) {
        match self {
            Row::Index(index) => (index_key(), value(index)),
            Row::Floor(kind, index) => (floor_key(*kind), value(&(kind, index))),
            Row::CommandVersion(version) => (command_version_key(), value(version)),
            Row::Node(node) => (node_key(&node.name), node_value(node)),
            Row::Instance(instance) => (instance_key(&instance.key()), instance_value(instance)),
            Row::Check(check) => (check_key(&check.key()), check_value(check)),
            Row::Compacted(revision) => (compacted_key(), value(revision)),
            Row::Version(revision, key, content) => (version_key(*revision, key), value(content)),
            Row::Session(session) => (session_key(&session.id), value(session)),
            Row::LockDelay(key, delay) => (lock_delay_key(key), value(delay)),
            Row::Topic(topic, index) => (topic_key(topic), value(&(topic, index))),
            Row::Staged(part, restore, rows) => (staged_key(*part), value(&(part, restore, rows))),
        }
    }

    /// The row that [`Row::encode`] gave.
    pub(super) fn decode(key: &Bytes, value: &Bytes) -> Result<Row, RowError> {
        let name = || row_name(key);
        let row = match key.first() {
            Some(&INDEX) => Row::Index(decode(name, ROW_VERSION, value)?),
            Some(&FLOOR) => {
                let (kind, index) = decode(name, ROW_VERSION, value)?;
                Row::Floor(kind, index)
            }
            Some(&COMMAND_VERSION) => Row::CommandVersion(decode(name, ROW_VERSION, value)?),
            Some(&NODE) => Row::Node(decode(name, NEWER_ROW_VERSION, value)?),
            Some(&INSTANCE) => Row::Instance(decode(name, NEWER_ROW_VERSION, value)?),
            Some(&CHECK) => Row::Check(decode(name, EXTRAS_ROW_VERSION, value)?),
            Some(&COMPACTED) => Row::Compacted(decode(name, ROW_VERSION, value)?),
            Some(&VERSION) => {
                let (revision, version_of) = key[1..]
                    .split_at_checked(8)
                    .ok_or_else(|| corrupt_row(key, "its key is too short"))?;
                let revision = u64::from_be_bytes(revision.try_into().expect("it was cut to 8 bytes"));
                let content: Option<Arc<KeyValue>> = decode(name, ROW_VERSION, value)?;
                Row::Version(revision, parse_key(key, version_of)?, content)
            }
            Some(&SESSION) => Row::Session(decode(name, ROW_VERSION, value)?),
            Some(&LOCK_DELAY) => {
                let delay = decode(name, ROW_VERSION, value)?;
                Row::LockDelay(parse_key(key, &key[1..])?, delay)
            }
            Some(&TOPIC) => {
                let (topic, index) = decode(name, ROW_VERSION, value)?;
                Row::Topic(topic, index)
            }
            Some(&STAGED) => {
                let (part, restore, rows) = decode(name, ROW_VERSION, value)?;
                Row::Staged(part, restore, rows)
            }
            _ => return Err(corrupt_row(key, "its kind is unknown to this server")),
        };
        if !row.is_encoded_to(key, value) {
            return Err(corrupt_row(key, "it is not what its content is encoded to"));
        }
        Ok(row)
    }

    /// Whether [`Row::encode`] gives these. What there are many of is compared as it is encoded, and nothing is put
    /// together for it.
    fn is_encoded_to(&self, key: &Bytes, value: &Bytes) -> bool {
        match self {
            Row::Instance(instance) => {
                instance_key(&instance.key()) == key
                    && is_encoded(version_of(instance.least_version()), instance, value)
            }
            Row::Check(check) => {
                let version = version_of(check.definition.least_version());
                check_key(&check.key()) == key && is_encoded(version, check, value)
            }
            Row::Topic(topic, index) => {
                topic_key(topic) == key && is_encoded(ROW_VERSION, &(topic, index), value)
            }
            _ => self.encode() == (key.clone(), value.clone()),
        }
    }
}

pub(super) fn index_key() -> Bytes {
    Bytes::from_static(&[INDEX])
}

pub(super) fn floor_key(kind: TopicKind) -> Bytes {
    Bytes::copy_from_slice(&[FLOOR, kind as u8])
}

pub(super) fn command_version_key() -> Bytes {
    Bytes::from_static(&[COMMAND_VERSION])
}

pub(super) fn staged_key(part: u32) -> Bytes {
    let mut key = vec![STAGED];
    key.extend_from_slice(&part.to_be_bytes());
    Bytes::from(key)
}

pub(super) fn node_key(name: &NodeName) -> Bytes {
    KeyWriter::new(NODE).text(name.as_str()).finish()
}

pub(super) fn instance_key(key: &InstanceKey) -> Bytes {
    let writer = KeyWriter::new(INSTANCE).text(key.namespace.as_str());
    writer.text(key.node.as_str()).text(key.id.as_str()).finish()
}

pub(super) fn check_key(key: &CheckKey) -> Bytes {
    let writer = KeyWriter::new(CHECK).text(key.namespace.as_str());
    writer.text(key.node.as_str()).text(key.id.as_str()).finish()
}

pub(super) fn compacted_key() -> Bytes {
    Bytes::from_static(&[COMPACTED])
}

pub(super) fn version_key(revision: u64, key: &Key) -> Bytes {
    let writer = KeyWriter::new(VERSION).bytes(&revision.to_be_bytes());
    writer.bytes(key.as_bytes()).finish()
}

pub(super) fn session_key(id: &SessionId) -> Bytes {
    KeyWriter::new(SESSION).text(id.as_str()).finish()
}

pub(super) fn lock_delay_key(key: &Key) -> Bytes {
    KeyWriter::new(LOCK_DELAY).bytes(key.as_bytes()).finish()
}

/// The key that the end of a row's key names.
fn parse_key(row: &Bytes, bytes: &[u8]) -> Result<Key, RowError> {
    Key::parse(row.slice_ref(bytes)).map_err(|error| corrupt_row(row, error.to_string()))
}

pub(super) fn topic_key(topic: &Topic) -> Bytes {
    let writer = KeyWriter::new(TOPIC).byte(topic.kind() as u8);
    match topic {
        Topic::Service(namespace, service)
        | Topic::ServicePassing(namespace, service)
        | Topic::ServiceInstances(namespace, service)
        | Topic::ServiceChecks(namespace, service) => {
            writer.text(namespace.as_str()).text(service.as_str()).finish()
        }
        Topic::NodeServices(namespace, node) | Topic::NodeChecks(namespace, node) => {
            writer.text(namespace.as_str()).text(node.as_str()).finish()
        }
        Topic::Services(namespace) | Topic::Checks(namespace) | Topic::Namespace(namespace) => {
            writer.text(namespace.as_str()).finish()
        }
        Topic::ChecksInState(namespace, status) => {
            writer.text(namespace.as_str()).byte(*status as u8).finish()
        }
        Topic::Key(key) | Topic::KeyPrefix(key) => writer.bytes(key.as_bytes()).finish(),
        Topic::Session(id) => writer.text(id.as_str()).finish(),
        Topic::SessionsOfNode(node) => writer.text(node.as_str()).finish(),
        Topic::Nodes | Topic::Sessions => writer.finish(),
    }
}

/// A node's row's value.
pub(super) fn node_value(node: &Arc<Node>) -> Bytes {
    encode(version_of(node.least_version()), node)
}

/// An instance's row's value.
pub(super) fn instance_value(instance: &Arc<Instance>) -> Bytes {
    encode(version_of(instance.least_version()), instance)
}

/// A check's row's value.
pub(super) fn check_value(check: &Arc<Check>) -> Bytes {
    encode(version_of(check.definition.least_version()), check)
}

/// The version of a row whose content needs so new a version of commands.
fn version_of(least_command_version: u8) -> u8 {
    match least_command_version {
        0..=2 => ROW_VERSION,
        3 => NEWER_ROW_VERSION,
        4.. => EXTRAS_ROW_VERSION,
    }
}

/// The oldest version of commands that can bring a row with this value about.
pub(super) fn command_version_of(value: &[u8]) -> u8 {
    match value.first() {
        Some(&(EXTRAS_ROW_VERSION..)) => 4,
        Some(&NEWER_ROW_VERSION) => 3,
        _ => 1,
    }
}

/// A row's value: a version byte, then postcard.
pub(super) fn value(content: &impl Serialize) -> Bytes {
    encode(ROW_VERSION, content)
}

/// Says that a row is corrupt, and why.
pub(super) fn corrupt_row(key: &[u8], reason: impl Into<String>) -> RowError {
    RowError::Corrupt {
        key: row_name(key),
        reason: reason.into(),
    }
}

fn row_name(key: &[u8]) -> String {
    let mut name = String::from("row ");
    for byte in key {
        write!(name, "{byte:02x}").expect("writing to a string can't fail");
    }
    name
}

/// Room that most keys and most rows fit in, in bytes: they are copied from there into what is as long as they are.
const KEY_BYTES_USUAL: usize = 128;
const ROW_BYTES_USUAL: usize = 1024;

/// Writes keys that sort like the tuples of texts that they hold.
struct KeyWriter(Vec<u8>);

impl KeyWriter {
    fn new(kind: u8) -> Self {
        let mut bytes = Vec::with_capacity(KEY_BYTES_USUAL);
        bytes.push(kind);
        KeyWriter(bytes)
    }

    fn byte(mut self, byte: u8) -> Self {
        self.0.push(byte);
        self
    }

    /// Bytes of a length that is known, or those that end the key.
    fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// A zero byte ends a text, so that a text sorts before those that it begins. Names have no zero bytes.
    fn text(mut self, text: &str) -> Self {
        debug_assert!(!text.as_bytes().contains(&0), "names have no control characters");
        self.0.extend_from_slice(text.as_bytes());
        self.0.push(0);
        self
    }

    fn finish(self) -> Bytes {
        Bytes::copy_from_slice(&self.0)
    }
}

pub(super) fn encode(version: u8, content: &impl Serialize) -> Bytes {
    let mut room = Vec::with_capacity(ROW_BYTES_USUAL);
    room.push(version);
    let bytes = postcard::to_extend(content, room);
    Bytes::copy_from_slice(
        &bytes.expect("what the registry holds can be serialised, and memory does not refuse it"),
    )
}

/// Whether [`encode`] gives these bytes.
fn is_encoded(version: u8, content: &impl Serialize, bytes: &[u8]) -> bool {
    match bytes.split_first() {
        Some((found, rest)) if *found == version => {
            postcard::serialize_with_flavor(content, Compared(rest)).unwrap_or(false)
        }
        _ => false,
    }
}

/// Compares what is encoded with these bytes.
struct Compared<'a>(&'a [u8]);

impl postcard::ser_flavors::Flavor for Compared<'_> {
    type Output = bool;

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.try_extend(&[byte])
    }

    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        let rest = self.0.strip_prefix(bytes);
        self.0 = rest.ok_or(postcard::Error::SerializeBufferFull)?;
        Ok(())
    }

    fn finalize(self) -> postcard::Result<bool> {
        Ok(self.0.is_empty())
    }
}

pub(super) fn decode<T: DeserializeOwned>(
    name: impl Fn() -> String,
    known: u8,
    bytes: &[u8],
) -> Result<T, RowError> {
    let corrupt = |reason: String| RowError::Corrupt { key: name(), reason };
    let Some((&found, content)) = bytes.split_first() else {
        return Err(corrupt("it is empty".into()));
    };
    if found > known {
        return Err(RowError::UnknownVersion {
            key: name(),
            found,
            known,
        });
    }
    if found == 0 {
        return Err(corrupt("there is no format version 0".into()));
    }
    let (content, rest) = postcard::take_from_bytes(content).map_err(|error| corrupt(error.to_string()))?;
    if !rest.is_empty() {
        return Err(corrupt(format!("{} bytes follow its end", rest.len())));
    }
    Ok(content)
}

/// The hash of one row, as it counts in the digest.
pub(super) fn row_hash(key: &[u8], value: &[u8]) -> u128 {
    // The key's length comes first, so that no byte can move between key and value unnoticed.
    let length = (key.len() as u64).to_le_bytes();
    let size = length.len() + key.len() + value.len();
    if size <= SMALL_ROW_BYTES {
        // The same hash, and several times as fast.
        let mut row = [0; SMALL_ROW_BYTES];
        let (behind_length, behind_key) = (length.len(), length.len() + key.len());
        row[..behind_length].copy_from_slice(&length);
        row[behind_length..behind_key].copy_from_slice(key);
        row[behind_key..size].copy_from_slice(value);
        return xxh3_128(&row[..size]);
    }
    let mut hasher = Xxh3::new();
    hasher.update(&length);
    hasher.update(key);
    hasher.update(value);
    hasher.digest128()
}

/// The rows that a command changes, as they were and as they are.
#[derive(Default)]
pub(super) struct RowLog(BTreeMap<Bytes, (Option<Bytes>, Option<Bytes>)>);

impl RowLog {
    /// Takes note that a row changes; of a row that changes twice, the first value before counts.
    pub(super) fn set(&mut self, key: Bytes, before: Option<Bytes>, after: Option<Bytes>) {
        self.0
            .entry(key)
            .and_modify(|change| change.1 = after.clone())
            .or_insert((before, after));
    }

    /// Brings the digest up to date and gives the rows that differ.
    pub(super) fn finish(self, digest: &mut u128) -> Vec<RowChange> {
        let mut changes = Vec::with_capacity(self.0.len());
        for (key, (before, after)) in self.0 {
            if before == after {
                continue;
            }
            if let Some(before) = &before {
                *digest = digest.wrapping_sub(row_hash(&key, before));
            }
            if let Some(after) = &after {
                *digest = digest.wrapping_add(row_hash(&key, after));
            }
            changes.push(RowChange { key, value: after });
        }
        changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_row_has_the_hash_of_its_parts() {
        for size in [
            0,
            1,
            100,
            SMALL_ROW_BYTES - 10,
            SMALL_ROW_BYTES - 9,
            SMALL_ROW_BYTES,
        ] {
            let (key, value) = (b"k", vec![7; size]);
            let mut hasher = Xxh3::new();
            hasher.update(&1_u64.to_le_bytes());
            hasher.update(key);
            hasher.update(&value);
            assert_eq!(row_hash(key, &value), hasher.digest128(), "{size} bytes");
        }
    }

    #[test]
    fn a_value_that_differs_anywhere_is_not_what_is_encoded() {
        let value = encode(1, &("text", 300_u64));
        assert!(is_encoded(1, &("text", 300_u64), &value));
        assert!(!is_encoded(2, &("text", 300_u64), &value));
        assert!(!is_encoded(1, &("text", 300_u64), &value[..value.len() - 1]));
        assert!(!is_encoded(1, &("text", 300_u64), &[&value[..], &[0]].concat()));
        assert!(!is_encoded(1, &("text", 300_u64), &[]));
    }
}
