//! A snapshot on its way from the leader to a follower, in chunks: bounded memory on both sides, a checksum and a
//! count over all of it, and nothing of the follower's own state touched before both agree.

use std::sync::{Arc, Mutex as StdMutex, PoisonError};

use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, OwnedMutexGuard};
use xxhash_rust::xxh3::Xxh3;

use super::{
    checkpoint::{self, RowPages, StoredSnapshot},
    codec::StoreError,
    journal::Journal,
    types::{SnapshotMeta, Vote},
};
use crate::{
    registry::{Registry, pack, packed_len, unpack},
    runtime::{Change, Disk, Keyspace, Runtime},
};

/// The head of a chunk; its rows follow it packed (see [`crate::registry::pack`]).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Chunk {
    /// The leader's vote.
    pub(crate) vote: Vote,
    /// Chosen at random for each transfer.
    pub(crate) transfer: u64,
    /// Counts the chunks of a transfer from 0.
    pub(crate) sequence: u64,
    /// What is being sent.
    pub(crate) header: Header,
    /// In the last chunk alone.
    pub(crate) end: Option<End>,
}

/// What a snapshot is of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Header {
    pub(crate) meta: SnapshotMeta,
    /// The registry's index.
    pub(crate) index: u64,
    /// The registry's digest.
    pub(crate) digest: u128,
}

/// By what a complete transfer is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct End {
    /// All rows.
    pub(crate) rows: u64,
    /// Over the packed rows of all chunks, in order.
    pub(crate) checksum: u64,
}

/// What a follower makes of a chunk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum ChunkAnswer {
    /// The next one, please.
    Accepted,
    /// The snapshot is installed, or was not needed.
    Installed(Vote),
    /// A newer leader is known.
    HigherVote(Vote),
    /// Another chunk is being worked on: try this one again.
    Busy,
    /// The transfer can't go on: start over.
    Restart(String),
}

/// Gives out a checkpoint chunk by chunk.
pub(crate) struct Outgoing<'a, D: Disk> {
    pages: RowPages<'a, D::View>,
    rows: std::vec::IntoIter<(Bytes, Bytes)>,
    held_back: Option<(Bytes, Bytes)>,
    count: u64,
    hasher: Xxh3,
    sequence: u64,
    finished: bool,
    chunk_bytes: usize,
}

impl<'a, D: Disk> Outgoing<'a, D> {
    /// Gives it out in chunks of about so many bytes; a larger row has one to itself.
    pub(crate) fn new(snapshot: &'a StoredSnapshot<D>, chunk_bytes: usize) -> Self {
        Outgoing {
            pages: RowPages::of(&snapshot.view, snapshot.record.generation),
            rows: Vec::new().into_iter(),
            held_back: None,
            count: 0,
            hasher: Xxh3::new(),
            sequence: 0,
            finished: false,
            chunk_bytes,
        }
    }

    /// The next chunk: its number, its packed rows, and the end if it is the last; `None` after the last.
    ///
    /// # Errors
    /// The disk fails.
    pub(crate) async fn next(&mut self) -> Result<Option<(u64, Bytes, Option<End>)>, StoreError> {
        if self.finished {
            return Ok(None);
        }
        let mut packed = BytesMut::new();
        loop {
            let Some((key, value)) = self.next_row().await? else {
                self.finished = true;
                break;
            };
            if !packed.is_empty() && packed.len() + packed_len(&key, &value) > self.chunk_bytes {
                self.held_back = Some((key, value));
                break;
            }
            pack(&mut packed, &key, &value);
            self.count += 1;
        }
        self.hasher.update(&packed);
        let sequence = self.sequence;
        self.sequence += 1;
        let end = self.finished.then(|| End {
            rows: self.count,
            checksum: self.hasher.digest(),
        });
        Ok(Some((sequence, packed.freeze(), end)))
    }

    async fn next_row(&mut self) -> Result<Option<(Bytes, Bytes)>, StoreError> {
        if let Some(row) = self.held_back.take() {
            return Ok(Some(row));
        }
        if self.rows.len() == 0 {
            self.rows = self.pages.next().await?.into_iter();
        }
        Ok(self.rows.next())
    }
}

/// Takes in snapshots at a follower.
pub(crate) struct Receiver<R: Runtime> {
    disk: R::Disk,
    journal: Journal,
    /// Locked while a chunk is being worked on, and from the last one until the snapshot is installed.
    incoming: Arc<Mutex<Incoming>>,
    /// The last transfer that was installed, for a leader that did not hear of it.
    installed: StdMutex<Option<u64>>,
}

/// What has come of the snapshot in [`Keyspace::Incoming`].
#[derive(Default)]
pub(crate) struct Incoming {
    transfer: Option<Transfer>,
}

struct Transfer {
    id: u64,
    header: Header,
    next: u64,
    rows: u64,
    hasher: Xxh3,
}

/// A complete snapshot in [`Keyspace::Incoming`], which stays as it is while this lives.
pub(crate) struct ReceivedSnapshot {
    registry: Registry,
    _incoming: OwnedMutexGuard<Incoming>,
}

impl ReceivedSnapshot {
    /// The registry in it.
    pub(crate) fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The registry in it; the incoming rows are free to go.
    pub(crate) fn into_registry(self) -> Registry {
        self.registry
    }
}

/// What a chunk led to.
pub(crate) enum Received {
    /// Tell the leader so.
    Answer(ChunkAnswer),
    /// The snapshot is complete: install it.
    Complete(Box<ReceivedSnapshot>),
}

impl<R: Runtime> Receiver<R> {
    pub(crate) fn new(disk: R::Disk, journal: Journal) -> Self {
        Receiver {
            disk,
            journal,
            incoming: Arc::default(),
            installed: StdMutex::new(None),
        }
    }

    /// Notes that a transfer is done.
    pub(crate) fn set_installed(&self, transfer: u64) {
        *self.installed.lock().unwrap_or_else(PoisonError::into_inner) = Some(transfer);
    }

    /// Whether a transfer was done.
    pub(crate) fn is_installed(&self, transfer: u64) -> bool {
        *self.installed.lock().unwrap_or_else(PoisonError::into_inner) == Some(transfer)
    }

    /// Takes in a chunk with its packed rows.
    ///
    /// # Errors
    /// The disk fails.
    pub(crate) async fn take(&self, chunk: &Chunk, packed: Bytes) -> Result<Received, StoreError> {
        let Ok(mut incoming) = self.incoming.clone().try_lock_owned() else {
            return Ok(Received::Answer(ChunkAnswer::Busy));
        };
        let mut changes = Vec::new();
        let known = incoming
            .transfer
            .as_ref()
            .is_some_and(|transfer| transfer.id == chunk.transfer);
        if !known && chunk.sequence == 0 {
            changes = checkpoint::clear_incoming();
            incoming.transfer = Some(Transfer {
                id: chunk.transfer,
                header: chunk.header.clone(),
                next: 0,
                rows: 0,
                hasher: Xxh3::new(),
            });
        }
        let restart = |reason: &str| Ok(Received::Answer(ChunkAnswer::Restart(reason.to_string())));
        let Some(transfer) = incoming
            .transfer
            .as_mut()
            .filter(|transfer| transfer.id == chunk.transfer)
        else {
            return restart("another transfer is under way");
        };
        if chunk.sequence < transfer.next {
            // It came once more, because our answer did not get through.
            return Ok(Received::Answer(ChunkAnswer::Accepted));
        }
        if chunk.sequence > transfer.next || transfer.header != chunk.header {
            incoming.transfer = None;
            return restart("a chunk is missing");
        }

        transfer.hasher.update(&packed);
        let Some(rows) = unpack(packed) else {
            incoming.transfer = None;
            return restart("a chunk is malformed");
        };
        transfer.rows += rows.len() as u64;
        transfer.next += 1;
        let came = End {
            rows: transfer.rows,
            checksum: transfer.hasher.digest(),
        };
        changes.extend(
            rows.into_iter()
                .map(|(key, value)| Change::Put(Keyspace::Incoming, key, value)),
        );
        self.journal.write(changes).await?;
        match chunk.end {
            None => Ok(Received::Answer(ChunkAnswer::Accepted)),
            Some(sent) if sent == came => self.complete(incoming, &chunk.header).await,
            Some(_) => {
                incoming.transfer = None;
                restart("its checksum does not match")
            }
        }
    }

    /// Builds the registry and sees that it is the one that was announced.
    async fn complete(
        &self,
        mut incoming: OwnedMutexGuard<Incoming>,
        header: &Header,
    ) -> Result<Received, StoreError> {
        incoming.transfer = None;
        let view = checkpoint::view(&self.disk).await?;
        let reason = match RowPages::incoming(&view).into_registry().await {
            Ok(registry) if (registry.index(), registry.digest()) == (header.index, header.digest) => {
                let received = ReceivedSnapshot {
                    registry,
                    _incoming: incoming,
                };
                return Ok(Received::Complete(Box::new(received)));
            }
            Ok(_) => "its digest does not match".to_string(),
            Err(error @ (StoreError::Corrupt { .. } | StoreError::UnknownVersion { .. })) => {
                error.to_string()
            }
            Err(error) => return Err(error),
        };
        Ok(Received::Answer(ChunkAnswer::Restart(reason)))
    }
}
