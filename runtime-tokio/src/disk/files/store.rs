//! The open fjall database: reads, and the form of keys and batches in it.
//!
//! A key is stored behind a byte 1; the single byte 0 is the key of the keyspace's stamp, the number of the last batch
//! that touched it.

use std::{
    collections::BTreeMap,
    io,
    ops::Bound,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

use bytes::Bytes;
use fjall::{Database, KeyspaceCreateOptions, PersistMode, Readable};
use sider_core::runtime::{Change, Keyspace};

use super::{
    errors::{corrupt, explain, panic_text},
    mark::Stamps,
};
use crate::telemetry::without_panic_messages;

/// Name of the database's folder in the data directory.
pub(super) const STORE_FOLDER: &str = "store";
const STAMP_KEY: [u8; 1] = [0];
const KEY_PREFIX: u8 = 1;
/// Bytes of a key on this disk: fjall's limit less the prefix.
const KEY_BYTES_MAX: usize = u16::MAX as usize - 1;
/// Bytes of fjall's full journals; at more, it flushes what keeps the oldest one alive. They are read at a start.
const JOURNALS_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Bytes of tables' blocks kept in memory. What is read again and again is in the server's own memory.
const CACHE_BYTES: u64 = 8 * 1024 * 1024;
/// Bytes of one keyspace in memory before it is flushed to a table.
const MEMTABLE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// What becomes of each stored key: its value, or `None` when it is removed.
type Folded = BTreeMap<(Keyspace, Vec<u8>), Option<Bytes>>;

/// An open fjall database.
pub(super) struct Store {
    /// The data directory.
    path: PathBuf,
    database: Database,
    keyspaces: [fjall::Keyspace; Keyspace::ALL.len()],
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl Store {
    /// Opens or creates the database of the data directory at `path`.
    pub(super) fn open(path: &Path) -> io::Result<Store> {
        let open = || -> fjall::Result<Store> {
            let database = Database::builder(path.join(STORE_FOLDER))
                .max_journaling_size(JOURNALS_BYTES_MAX)
                .cache_size(CACHE_BYTES)
                // Only a persist makes durable, and one follows every write that matters.
                .manual_journal_persist(true)
                .open()?;
            let keyspace = |keyspace: Keyspace| {
                let name = match keyspace {
                    Keyspace::Log => "log",
                    Keyspace::Meta => "meta",
                    Keyspace::State => "state",
                    Keyspace::Incoming => "incoming",
                };
                database.keyspace(name, || {
                    KeyspaceCreateOptions::default()
                        .manual_journal_persist(true)
                        .max_memtable_size(MEMTABLE_BYTES_MAX)
                })
            };
            let [log, meta, state, incoming] = Keyspace::ALL.map(keyspace);
            let keyspaces = [log?, meta?, state?, incoming?];
            Ok(Store {
                path: path.to_owned(),
                database,
                keyspaces,
            })
        };
        // fjall and its trees assert some of what they find in files.
        match without_panic_messages(|| catch_unwind(AssertUnwindSafe(open))) {
            Ok(opened) => opened.map_err(|error| explain(path, error)),
            Err(panic) => Err(corrupt(path, &panic_text(&*panic))),
        }
    }

    fn keyspace(&self, keyspace: Keyspace) -> &fjall::Keyspace {
        &self.keyspaces[keyspace as usize]
    }

    /// Runs a read and explains what goes wrong in it, panics about corrupt files included.
    fn contain<T>(&self, read: impl FnOnce() -> fjall::Result<T>) -> io::Result<T> {
        match without_panic_messages(|| catch_unwind(AssertUnwindSafe(read))) {
            Ok(result) => result.map_err(|error| explain(&self.path, error)),
            Err(panic) => Err(corrupt(&self.path, &panic_text(&*panic))),
        }
    }

    /// A read view of this moment.
    pub(super) fn snapshot(&self) -> fjall::Snapshot {
        self.database.snapshot()
    }

    /// The value of a key, now or in a view.
    pub(super) fn get(
        &self,
        keyspace: Keyspace,
        key: &[u8],
        snapshot: Option<&fjall::Snapshot>,
    ) -> io::Result<Option<Bytes>> {
        if key.len() > KEY_BYTES_MAX {
            return Ok(None);
        }
        let key = stored_key(key);
        let value = self.contain(|| match snapshot {
            Some(snapshot) => snapshot.get(self.keyspace(keyspace), key),
            None => self.keyspace(keyspace).get(key),
        });
        Ok(value?.map(|value| Bytes::copy_from_slice(&value)))
    }

    /// At most `limit` pairs between two stored keys, in a view.
    pub(super) fn range(
        &self,
        snapshot: &fjall::Snapshot,
        keyspace: Keyspace,
        range: (Bound<Vec<u8>>, Bound<Vec<u8>>),
        limit: usize,
    ) -> io::Result<Vec<(Bytes, Bytes)>> {
        self.contain(|| {
            let guards = snapshot.range(self.keyspace(keyspace), range);
            guards.take(limit).map(pair).collect()
        })
    }

    /// The pair with the greatest key.
    pub(super) fn last(&self, keyspace: Keyspace) -> io::Result<Option<(Bytes, Bytes)>> {
        self.contain(|| {
            let mut all = self.keyspace(keyspace).range(vec![KEY_PREFIX]..end_of_keys());
            all.next_back().map(pair).transpose()
        })
    }

    /// Applies a batch atomically, as the one of this number; gives the stamps after it.
    pub(super) fn write(&self, batch: Vec<Change>, mut stamps: Stamps) -> io::Result<Stamps> {
        let number = stamps.iter().max().expect("there are keyspaces") + 1;
        self.contain(|| {
            let folded = self.fold(batch)?;
            let capacity = folded.len() + Keyspace::ALL.len();
            let mut commit = fjall::OwnedWriteBatch::with_capacity(self.database.clone(), capacity);
            for ((keyspace, key), value) in folded {
                stamps[keyspace as usize] = number;
                match value {
                    Some(value) => commit.insert(self.keyspace(keyspace), key, &value[..]),
                    None => commit.remove(self.keyspace(keyspace), key),
                }
            }
            for (keyspace, stamp) in self.keyspaces.iter().zip(&stamps) {
                if *stamp == number {
                    commit.insert(keyspace, STAMP_KEY, stamp.to_be_bytes());
                }
            }
            commit.commit()?;
            Ok(stamps)
        })
    }

    /// Makes durable what was written.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.contain(|| self.database.persist(PersistMode::SyncData))
    }

    /// The stamps that are stored.
    pub(super) fn stamps(&self) -> io::Result<Stamps> {
        self.contain(|| {
            let mut stamps = Stamps::default();
            for (stamp, keyspace) in stamps.iter_mut().zip(&self.keyspaces) {
                if let Some(value) = keyspace.get(STAMP_KEY)? {
                    let bytes = value[..].try_into().map_err(|_| fjall::Error::InvalidTrailer)?;
                    *stamp = u64::from_be_bytes(bytes);
                }
            }
            Ok(stamps)
        })
    }

    /// The last change of each key. fjall gives all of a batch one sequence number, so that a key may be in it once.
    fn fold(&self, batch: Vec<Change>) -> fjall::Result<Folded> {
        let mut folded = BTreeMap::new();
        for change in batch {
            match change {
                Change::Put(keyspace, key, value) => {
                    folded.insert((keyspace, stored_key(&key)), Some(value));
                }
                Change::Delete(keyspace, key) => {
                    folded.insert((keyspace, stored_key(&key)), None);
                }
                Change::DeleteRange(keyspace, from, to) => {
                    let (from, to) = (stored_key(&from), stored_key(&to));
                    if from >= to {
                        continue;
                    }
                    let within = (keyspace, from.clone())..(keyspace, to.clone());
                    for (_, value) in folded.range_mut(within) {
                        *value = None;
                    }
                    for guard in self.keyspace(keyspace).range(from..to) {
                        folded.insert((keyspace, guard.key()?.to_vec()), None);
                    }
                }
            }
        }
        Ok(folded)
    }
}

/// What `key` is stored as.
pub(super) fn stored_key(key: &[u8]) -> Vec<u8> {
    let mut stored = Vec::with_capacity(key.len() + 1);
    stored.push(KEY_PREFIX);
    stored.extend_from_slice(key);
    stored
}

/// What no stored key reaches.
pub(super) fn end_of_keys() -> Vec<u8> {
    vec![KEY_PREFIX + 1]
}

fn pair(guard: fjall::Guard) -> fjall::Result<(Bytes, Bytes)> {
    let (key, value) = guard.into_inner()?;
    Ok((Bytes::copy_from_slice(&key[1..]), Bytes::copy_from_slice(&value)))
}

/// Refuses a batch with a key that is too long.
pub(super) fn check_keys(batch: &[Change]) -> io::Result<()> {
    batch.iter().try_for_each(|change| match change {
        Change::Put(_, key, _) | Change::Delete(_, key) => check_key(key),
        Change::DeleteRange(_, from, to) => check_key(from).and(check_key(to)),
    })
}

/// Refuses a key that is too long.
pub(super) fn check_key(key: &[u8]) -> io::Result<()> {
    if key.len() <= KEY_BYTES_MAX {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::InvalidInput,
        format!("a key of {} bytes is longer than {KEY_BYTES_MAX}", key.len()),
    ))
}
