//! The checkpoint: the registry's rows at one log index, on disk.
//!
//! It is moved on by writing only the rows that changed, in one batch with its log index, membership and digest
//! ([`Record`]). A snapshot from the leader replaces it: its rows are laid down beside the old ones under a generation
//! of their own, and one batch makes them the checkpoint. So at every moment, whatever fails, exactly one whole
//! checkpoint is there.
//!
//! Rows are in [`Keyspace::State`] under their generation (8 bytes, big-endian) and their own key; the record is in
//! [`Keyspace::Meta`].

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
};

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::future::join;
use openraft::Snapshot;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use super::{
    codec::{self, StoreError},
    journal::Journal,
    log::{put_meta, read_meta},
    snapshot::ReceivedSnapshot,
    state::StateSnapshot,
    types::{LogId, SnapshotMeta, StoredMembership},
};
use crate::{
    limits,
    observe::{Observation, SharedObserver},
    registry::{Registry, RestoredRows, Retention, RowError},
    runtime::{Change, Disk, DiskView, Keyspace, Runtime},
};

const CHECKPOINT: &str = "checkpoint";

/// What the checkpoint is of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Under which its rows are.
    pub(crate) generation: u64,
    /// The last entry in it.
    pub(crate) log_id: Option<LogId>,
    /// The membership as of that entry.
    pub(crate) membership: StoredMembership,
    /// The registry's index.
    pub(crate) index: u64,
    /// The registry's digest.
    pub(crate) digest: u128,
}

/// What a checkpoint is made of.
pub(crate) struct Cut {
    /// The generation that `changed_rows` are changes of.
    pub(crate) generation: u64,
    pub(crate) log_id: Option<LogId>,
    pub(crate) membership: StoredMembership,
    pub(crate) index: u64,
    pub(crate) digest: u128,
    pub(crate) changed_rows: BTreeMap<Bytes, Option<Bytes>>,
}

/// What openraft passes around as a snapshot's data.
pub(crate) enum SnapshotData<D: Disk> {
    /// A checkpoint of this server.
    Stored(StoredSnapshot<D>),
    /// A snapshot from the leader, complete and verified.
    Received(Box<ReceivedSnapshot>),
}

/// A checkpoint of this server as it was at one moment.
pub(crate) struct StoredSnapshot<D: Disk> {
    pub(crate) view: D::View,
    pub(crate) record: Record,
}

/// The checkpoint of one server.
pub(crate) struct Checkpoints<R: Runtime> {
    disk: R::Disk,
    journal: Journal,
    observer: SharedObserver,
    /// Of the last checkpoint. Locked while the next is being written: a snapshot from the leader and a checkpoint of
    /// our own must not mix.
    current: Mutex<Option<Record>>,
    /// The current generation; 0 before the first.
    generation: AtomicU64,
    retention: Retention,
}

impl<R: Runtime> Checkpoints<R> {
    /// Loads the checkpoint, with the registry in it, and clears away what an interrupted installation left.
    ///
    /// # Errors
    /// The disk fails, or what it holds is corrupt or of a newer version.
    pub(crate) async fn load(
        disk: R::Disk,
        journal: Journal,
        observer: SharedObserver,
        retention: Retention,
    ) -> Result<(Self, Registry, Option<Record>), StoreError> {
        let record: Option<Record> = read_meta(&disk, CHECKPOINT).await?;
        let registry = match &record {
            Some(record) => load_registry(&view(&disk).await?, record).await?,
            None => Registry::default(),
        };
        let generation = record.as_ref().map_or(0, |record| record.generation);
        let mut leftovers = vec![
            Change::DeleteRange(Keyspace::State, prefix(0), prefix(generation)),
            Change::DeleteRange(Keyspace::State, prefix(generation + 1), state_end()),
        ];
        leftovers.extend(clear_incoming());
        journal.later(leftovers).await?;
        let checkpoints = Checkpoints {
            disk,
            journal,
            observer,
            current: Mutex::new(record.clone()),
            generation: AtomicU64::new(generation),
            retention,
        };
        Ok((checkpoints, registry.keeping(retention), record))
    }

    /// The generation that changes belong to now.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// The current checkpoint, if there is one.
    ///
    /// # Errors
    /// The disk fails.
    pub(crate) async fn current(&self) -> Result<Option<StateSnapshot<R>>, StoreError> {
        let current = self.current.lock().await;
        match current.as_ref() {
            Some(record) => Ok(Some(self.snapshot(record).await?)),
            None => Ok(None),
        }
    }

    /// Moves the checkpoint on to `cut`, and gives the one that is current then: a newer one, if a snapshot from the
    /// leader has replaced the state since.
    ///
    /// # Errors
    /// The disk fails.
    pub(crate) async fn advance(&self, cut: Cut) -> Result<StateSnapshot<R>, StoreError> {
        let mut current = self.current.lock().await;
        let outdated = cut.generation != self.generation();
        let record = match current.as_ref() {
            Some(newer) if outdated => newer.clone(),
            _ => {
                let record = self.write(cut).await?;
                *current = Some(record.clone());
                record
            }
        };
        self.snapshot(&record).await
    }

    async fn write(&self, cut: Cut) -> Result<Record, StoreError> {
        let record = Record {
            generation: cut.generation,
            log_id: cut.log_id,
            membership: cut.membership,
            index: cut.index,
            digest: cut.digest,
        };
        let changes = cut
            .changed_rows
            .into_iter()
            .map(|(key, value)| {
                let key = row_key(record.generation, &key);
                match value {
                    Some(value) => Change::Put(Keyspace::State, key, value),
                    None => Change::Delete(Keyspace::State, key),
                }
            })
            .chain([put_meta(CHECKPOINT, &record)])
            .collect();
        let log_index = record.log_id.map_or(0, |log_id| log_id.index);
        self.observer.observe(Observation::CheckpointBegun { log_index });
        self.journal.commit(changes).await?;
        self.observer.observe(Observation::Checkpointed { log_index });
        Ok(record)
    }

    /// Makes a snapshot the checkpoint, and gives the registry in it.
    ///
    /// # Errors
    /// The disk fails, or the snapshot is not what its meta says.
    pub(crate) async fn install(
        &self,
        meta: &SnapshotMeta,
        snapshot: SnapshotData<R::Disk>,
    ) -> Result<Registry, StoreError> {
        let mut current = self.current.lock().await;
        let old = self.generation();
        let generation = old + 1;
        self.journal
            .write(vec![Change::DeleteRange(
                Keyspace::State,
                prefix(generation),
                prefix(generation + 1),
            )])
            .await?;
        let registry = match snapshot {
            SnapshotData::Received(received) => {
                let view = view(&self.disk).await?;
                self.copy(RowPages::incoming(&view), generation).await?;
                // Whoever sends the next snapshot may overwrite the incoming rows from here on.
                received.into_registry()
            }
            SnapshotData::Stored(stored) => {
                self.copy(RowPages::of(&stored.view, stored.record.generation), generation)
                    .await?;
                load_registry(&stored.view, &stored.record).await?
            }
        };
        let record = Record {
            generation,
            log_id: meta.last_log_id,
            membership: meta.last_membership.clone(),
            index: registry.index(),
            digest: registry.digest(),
        };
        self.journal.commit(vec![put_meta(CHECKPOINT, &record)]).await?;
        self.generation.store(generation, Ordering::Release);
        *current = Some(record);
        // Not waited for: should it be lost, the next start does it.
        let outdated = Change::DeleteRange(Keyspace::State, prefix(old), prefix(generation));
        self.journal.later(vec![outdated]).await?;
        Ok(registry.keeping(self.retention))
    }

    /// Lays rows down under a generation that nothing points to yet.
    async fn copy<V: DiskView>(&self, mut pages: RowPages<'_, V>, generation: u64) -> Result<(), StoreError> {
        loop {
            let rows = pages.next().await?;
            if rows.is_empty() {
                return Ok(());
            }
            let changes = rows
                .into_iter()
                .map(|(key, value)| Change::Put(Keyspace::State, row_key(generation, &key), value))
                .collect();
            self.journal.write(changes).await?;
        }
    }

    async fn snapshot(&self, record: &Record) -> Result<StateSnapshot<R>, StoreError> {
        Ok(Snapshot {
            meta: SnapshotMeta {
                last_log_id: record.log_id,
                last_membership: record.membership.clone(),
            },
            snapshot: SnapshotData::Stored(StoredSnapshot {
                view: view(&self.disk).await?,
                record: record.clone(),
            }),
        })
    }
}

/// The rows of a checkpoint or of an incoming snapshot, a bounded number at a time, in key order.
pub(crate) struct RowPages<'a, V> {
    view: &'a V,
    keyspace: Keyspace,
    prefix_bytes: usize,
    next: Bytes,
    end: Option<Bytes>,
}

impl<'a, V: DiskView> RowPages<'a, V> {
    /// The rows of a checkpoint.
    pub(crate) fn of(view: &'a V, generation: u64) -> Self {
        let next = prefix(generation);
        RowPages {
            view,
            keyspace: Keyspace::State,
            prefix_bytes: next.len(),
            next,
            end: Some(prefix(generation + 1)),
        }
    }

    /// The rows of the incoming snapshot.
    pub(crate) fn incoming(view: &'a V) -> Self {
        RowPages {
            view,
            keyspace: Keyspace::Incoming,
            prefix_bytes: 0,
            next: Bytes::new(),
            end: None,
        }
    }

    /// The next rows, under the registry's own keys; none at the end.
    ///
    /// # Errors
    /// The disk fails.
    pub(crate) async fn next(&mut self) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        let mut rows = self
            .view
            .range(
                self.keyspace,
                &self.next,
                self.end.as_deref(),
                limits::SNAPSHOT_ROWS_PER_READ,
            )
            .await
            .map_err(StoreError::disk("reading a checkpoint"))?;
        if let Some((last, _)) = rows.last() {
            let mut next = BytesMut::from(last.as_ref());
            next.put_u8(0);
            self.next = next.freeze();
        }
        for (key, _) in &mut rows {
            *key = key.slice(self.prefix_bytes..);
        }
        Ok(rows)
    }

    /// The registry that all rows are of.
    ///
    /// # Errors
    /// The disk fails, or a row is corrupt or of a newer version.
    pub(crate) async fn into_registry(mut self) -> Result<Registry, StoreError> {
        let keyspace = self.keyspace;
        let failed = |error| row_error(keyspace, error);
        let mut restored = RestoredRows::default();
        let mut rows = self.next().await?;
        while !rows.is_empty() {
            // The disk reads the next ones meanwhile: a start takes the longer of the two, not both.
            let taking_in = async {
                let mut rows = rows.into_iter();
                rows.try_for_each(|(key, value)| restored.take_in(key, &value).map_err(failed))
            };
            let (next, taken) = join(self.next(), taking_in).await;
            taken?;
            rows = next?;
        }
        restored.finish().map_err(failed)
    }
}

/// The log index, registry's index and digest of the checkpoint on a disk, if there is one.
///
/// # Errors
/// The disk fails, or the record is corrupt or of a newer version.
pub(crate) async fn stored_checkpoint<D: Disk>(disk: &D) -> Result<Option<(u64, u64, u128)>, StoreError> {
    let record: Option<Record> = read_meta(disk, CHECKPOINT).await?;
    let told = |record: Record| {
        (
            record.log_id.map_or(0, |log_id| log_id.index),
            record.index,
            record.digest,
        )
    };
    Ok(record.map(told))
}

/// A consistent view of `disk`.
///
/// # Errors
/// The disk fails.
pub(crate) async fn view<D: Disk>(disk: &D) -> Result<D::View, StoreError> {
    disk.view().await.map_err(StoreError::disk("opening a read view"))
}

/// The changes that remove an incoming snapshot.
pub(crate) fn clear_incoming() -> Vec<Change> {
    // Row keys are shorter than this is long, and never begin with so many of its bytes.
    vec![Change::DeleteRange(
        Keyspace::Incoming,
        Bytes::new(),
        Bytes::from_static(&[u8::MAX; 64]),
    )]
}

async fn load_registry<V: DiskView>(view: &V, record: &Record) -> Result<Registry, StoreError> {
    let registry = RowPages::of(view, record.generation).into_registry().await?;
    if (registry.index(), registry.digest()) == (record.index, record.digest) {
        return Ok(registry);
    }
    let reason = format!(
        "its rows have index {} and digest {:032x}, but were written with index {} and digest {:032x}",
        registry.index(),
        registry.digest(),
        record.index,
        record.digest
    );
    Err(StoreError::corrupt(Keyspace::Meta, CHECKPOINT.as_bytes(), reason))
}

fn row_error(keyspace: Keyspace, error: RowError) -> StoreError {
    match error {
        RowError::UnknownVersion { key, found, known } => StoreError::UnknownVersion {
            keyspace,
            key,
            found,
            known,
        },
        RowError::Corrupt { key, reason } => StoreError::Corrupt {
            keyspace,
            key,
            reason,
        },
    }
}

fn prefix(generation: u64) -> Bytes {
    Bytes::copy_from_slice(&generation.to_be_bytes())
}

fn state_end() -> Bytes {
    codec::log_end()
}

fn row_key(generation: u64, key: &[u8]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(8 + key.len());
    bytes.put_u64(generation);
    bytes.put_slice(key);
    bytes.freeze()
}
