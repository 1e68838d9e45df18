//! What is behind a simulated disk: the data, and how to undo what is not durable.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    io,
    ops::{Bound, Range},
    sync::Arc,
    task::Waker,
};

use bytes::Bytes;
use sider_core::runtime::{Change, Keyspace};

use super::{DiskStep, Edge, SLOW_ACCESS_PPM, SLOW_ACCESS_US, SyncFault, trap::Trap};
use crate::{chance, world::HostId};

type Space = BTreeMap<Bytes, Bytes>;

/// The data. A clone shares it until one of the two is changed.
#[derive(Clone, Debug, Default)]
pub(super) struct Image {
    spaces: [Arc<Space>; Keyspace::ALL.len()],
    rotten: Arc<BTreeSet<(Keyspace, Bytes)>>,
}

impl Image {
    pub(super) fn space(&self, keyspace: Keyspace) -> &Space {
        &self.spaces[keyspace as usize]
    }

    pub(super) fn space_mut(&mut self, keyspace: Keyspace) -> &mut Space {
        Arc::make_mut(&mut self.spaces[keyspace as usize])
    }

    pub(super) fn rot(&mut self, keyspace: Keyspace, key: &[u8]) {
        Arc::make_mut(&mut self.rotten).insert((keyspace, Bytes::copy_from_slice(key)));
    }

    /// A key that is written again reads well again.
    fn heal(&mut self, keyspace: Keyspace, key: &Bytes) {
        if !self.rotten.is_empty() {
            Arc::make_mut(&mut self.rotten).remove(&(keyspace, key.clone()));
        }
    }

    pub(super) fn get(&self, keyspace: Keyspace, key: &[u8]) -> io::Result<Option<Bytes>> {
        match self.space(keyspace).get_key_value(key) {
            Some((key, value)) => self.sound(keyspace, key).map(|()| Some(value.clone())),
            None => Ok(None),
        }
    }

    pub(super) fn range(
        &self,
        keyspace: Keyspace,
        from: &[u8],
        to: Option<&[u8]>,
        limit: usize,
    ) -> io::Result<Vec<(Bytes, Bytes)>> {
        if to.is_some_and(|to| to <= from) {
            return Ok(Vec::new());
        }
        let bounds = (
            Bound::Included(from),
            to.map_or(Bound::Unbounded, Bound::Excluded),
        );
        let pairs = self.space(keyspace).range::<[u8], _>(bounds).take(limit);
        pairs
            .map(|(key, value)| self.sound(keyspace, key).map(|()| (key.clone(), value.clone())))
            .collect()
    }

    pub(super) fn last(&self, keyspace: Keyspace) -> io::Result<Option<(Bytes, Bytes)>> {
        match self.space(keyspace).last_key_value() {
            Some((key, value)) => self
                .sound(keyspace, key)
                .map(|()| Some((key.clone(), value.clone()))),
            None => Ok(None),
        }
    }

    fn sound(&self, keyspace: Keyspace, key: &Bytes) -> io::Result<()> {
        if !self.rotten.is_empty() && self.rotten.contains(&(keyspace, key.clone())) {
            let text = format!("checksum mismatch in {keyspace:?} at {}", key.escape_ascii());
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        Ok(())
    }
}

/// What one change replaced: its key's earlier value.
type Replaced = (Keyspace, Bytes, Option<Bytes>);

#[derive(Debug)]
pub(super) struct Platter {
    pub(super) host: HostId,
    pub(super) image: Image,
    /// For each batch that is not durable, oldest first, what it replaced, oldest first.
    undo: VecDeque<Vec<Replaced>>,
    /// Batches ever written.
    pub(super) written: u64,
    pub(super) epoch: u64,
    /// A sync or write has failed: nothing becomes durable until the power was cut.
    pub(super) failed: bool,
    pub(super) full: bool,
    pub(super) write_fails: bool,
    pub(super) sync_fault: SyncFault,
    pub(super) sync_us: Range<u64>,
    /// Of a million accesses, so many take a while; how long, in microseconds.
    pub(super) access_ppm: u32,
    pub(super) access_us: Range<u64>,
    pub(super) trap: Option<Trap>,
    /// Syncs that hang.
    pub(super) hung: Vec<Waker>,
}

impl Platter {
    pub(super) fn new(host: HostId, sync_us: Range<u64>) -> Self {
        Platter {
            host,
            image: Image::default(),
            undo: VecDeque::new(),
            written: 0,
            epoch: 0,
            failed: false,
            full: false,
            write_fails: false,
            sync_fault: SyncFault::None,
            sync_us,
            access_ppm: SLOW_ACCESS_PPM,
            access_us: SLOW_ACCESS_US,
            trap: None,
            hung: Vec::new(),
        }
    }

    pub(super) fn unsynced(&self) -> u64 {
        self.undo.len() as u64
    }

    pub(super) fn write(&mut self, batch: Vec<Change>) -> io::Result<()> {
        if self.full {
            self.failed = true;
            return Err(io::Error::new(
                io::ErrorKind::StorageFull,
                "no space left on the device",
            ));
        }
        if std::mem::take(&mut self.write_fails) {
            self.failed = true;
            if chance::hits(500_000) {
                self.apply(batch);
            }
            return Err(io::Error::other("input/output error"));
        }
        self.apply(batch);
        Ok(())
    }

    fn apply(&mut self, batch: Vec<Change>) {
        let mut replaced = Vec::with_capacity(batch.len());
        for change in batch {
            match change {
                Change::Put(keyspace, key, value) => {
                    self.image.heal(keyspace, &key);
                    let old = self.image.space_mut(keyspace).insert(key.clone(), value);
                    replaced.push((keyspace, key, old));
                }
                Change::Delete(keyspace, key) => {
                    let old = self.image.space_mut(keyspace).remove(&key);
                    replaced.push((keyspace, key, old));
                }
                Change::DeleteRange(keyspace, from, to) if from < to => {
                    let space = self.image.space_mut(keyspace);
                    let keys: Vec<Bytes> = space.range(from..to).map(|(key, _)| key.clone()).collect();
                    for key in keys {
                        let old = space.remove(&key);
                        replaced.push((keyspace, key, old));
                    }
                }
                Change::DeleteRange(..) => {}
            }
        }
        self.undo.push_back(replaced);
        self.written += 1;
    }

    /// The value under a key, if a power cut could not take it away now.
    pub(super) fn durable(&self, keyspace: Keyspace, key: &[u8]) -> Option<&Bytes> {
        let touched = |(space, touched, _): &Replaced| *space == keyspace && touched == key;
        if self.undo.iter().flatten().any(touched) {
            return None;
        }
        self.image.space(keyspace).get(key)
    }

    /// Ends a sync that began after `upto` batches had been written.
    pub(super) fn sync(&mut self, upto: u64) -> io::Result<()> {
        if matches!(self.sync_fault, SyncFault::FailsOnce | SyncFault::Fails) {
            if self.sync_fault == SyncFault::FailsOnce {
                self.sync_fault = SyncFault::None;
            }
            self.failed = true;
            return Err(io::Error::other("sync failed: input/output error"));
        }
        if !self.failed && self.sync_fault != SyncFault::Lies {
            let durable = self.written - self.unsynced();
            for _ in durable..upto {
                self.undo.pop_front();
            }
        }
        Ok(())
    }

    /// Whether a trap is set at this side of a step.
    pub(super) fn trap_at(&self, edge: Edge, is_step: impl Fn(DiskStep) -> bool) -> bool {
        self.trap
            .as_ref()
            .is_some_and(|trap| trap.edge == edge && is_step(trap.step))
    }

    /// Counts a step; gives the trap if it is sprung.
    pub(super) fn sprung(&mut self, edge: Edge, is_step: impl Fn(DiskStep) -> bool) -> Option<Trap> {
        let trap = self.trap.as_mut()?;
        if trap.edge != edge || !is_step(trap.step) {
            return None;
        }
        trap.left -= 1;
        if trap.left == 0 { self.trap.take() } else { None }
    }

    /// Forgets all data.
    pub(super) fn lose_everything(&mut self) {
        self.image = Image::default();
        self.undo.clear();
        self.failed = false;
    }

    /// Keeps a random prefix of the unsynced batches.
    pub(super) fn keep_some(&mut self) {
        self.keep(chance::below(self.unsynced() + 1));
    }

    /// Keeps the first `count` unsynced batches, now durable, and undoes the others.
    pub(super) fn keep(&mut self, count: u64) {
        while self.unsynced() > count {
            let batch = self
                .undo
                .pop_back()
                .expect("there are more than `count`, so not none");
            for (keyspace, key, old) in batch.into_iter().rev() {
                let space = self.image.space_mut(keyspace);
                match old {
                    Some(value) => space.insert(key, value),
                    None => space.remove(&key),
                };
            }
            self.written -= 1;
        }
        self.undo.clear();
        self.failed = false;
    }
}
