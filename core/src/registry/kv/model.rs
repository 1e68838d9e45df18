//! A key, and what it holds.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{limits::KEY_BYTES_MAX, registry::SessionId};

/// Why a key was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Key is too long: at most {KEY_BYTES_MAX} bytes are expected, got {0}")]
pub struct InvalidKey(
    /// Its bytes.
    pub usize,
);

/// A key, or a prefix of keys: up to [`KEY_BYTES_MAX`] bytes. Slashes mean nothing, but watching what is beneath one
/// is cheap.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
// Decoded keys are checked too, so that no stored or received one is too long.
#[serde(try_from = "Bytes", into = "Bytes")]
pub struct Key(Bytes);

impl Key {
    /// Takes any bytes.
    ///
    /// # Errors
    /// There are too many.
    pub fn parse(bytes: impl Into<Bytes>) -> Result<Self, InvalidKey> {
        Key::try_from(bytes.into())
    }

    /// A key that no client can name, for what the servers keep of their own: it begins with a zero byte. The empty
    /// prefix leaves such keys out.
    ///
    /// # Errors
    /// It is too long.
    pub fn reserved(name: &str) -> Result<Self, InvalidKey> {
        Key::parse(format!("\0{name}"))
    }

    /// Whether it is one of the servers' own.
    pub fn is_reserved(&self) -> bool {
        self.0.first() == Some(&0)
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether this begins with `prefix`; every key begins with the empty one and with itself.
    pub fn starts_with(&self, prefix: &Key) -> bool {
        self.0.starts_with(&prefix.0)
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The place in the order of keys where those begin that are not below `bytes`. A few bytes longer than any key at
    /// most.
    pub(in crate::registry) fn beginning(bytes: &[u8]) -> Key {
        Key(Bytes::copy_from_slice(bytes))
    }

    /// The first `bytes` bytes, sharing their memory.
    pub(crate) fn cut(&self, bytes: usize) -> Key {
        Key(self.0.slice(..bytes))
    }

    /// How many bytes this and `other` have in common at their beginning.
    pub(crate) fn common_with(&self, other: &Key) -> usize {
        let pairs = self.0.iter().zip(other.0.iter());
        pairs.take_while(|(one, other)| one == other).count()
    }
}

impl TryFrom<Bytes> for Key {
    type Error = InvalidKey;

    fn try_from(bytes: Bytes) -> Result<Self, InvalidKey> {
        match bytes.len() {
            0..=KEY_BYTES_MAX => Ok(Key(bytes)),
            too_many => Err(InvalidKey(too_many)),
        }
    }
}

impl From<Key> for Bytes {
    fn from(key: Key) -> Bytes {
        key.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(&self.0))
    }
}

/// What a key holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyValue {
    /// The key.
    pub key: Key,
    /// Its value.
    pub value: Bytes,
    /// Whatever the client wants them to be.
    pub flags: u64,
    /// How often a lock on it was acquired afresh.
    pub lock_index: u64,
    /// Who holds the lock on it.
    pub session: Option<SessionId>,
    /// How often it was written since it was created, that included.
    pub version: u64,
    /// The revision that created it; set by `apply`.
    pub create_index: u64,
    /// The revision that last changed it; set by `apply`.
    pub modify_index: u64,
}

impl KeyValue {
    /// Whether both hold the same: equal but for their history.
    pub(in crate::registry) fn holds_the_same(&self, other: &KeyValue) -> bool {
        // Taken apart, so that a field that is added can't be forgotten here.
        let KeyValue {
            key,
            value,
            flags,
            lock_index,
            session,
            version: _,
            create_index: _,
            modify_index: _,
        } = self;
        *key == other.key
            && *value == other.value
            && *flags == other.flags
            && *lock_index == other.lock_index
            && *session == other.session
    }
}
