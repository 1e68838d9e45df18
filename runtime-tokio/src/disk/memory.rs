//! A disk that is none, for `-dev`: it keeps the contract for as long as the process lives.

use std::{
    collections::BTreeMap,
    io,
    ops::Bound,
    sync::{Arc, PoisonError, RwLock},
};

use bytes::Bytes;
use sider_core::runtime::{Change, Disk, DiskView, Keyspace};

type Rows = BTreeMap<Bytes, Bytes>;

/// A disk in memory. Its clones share the content.
#[derive(Clone, Debug, Default)]
pub struct MemoryDisk {
    // A keyspace is copied on the first write after a view was taken, so views cost nothing until then.
    keyspaces: Arc<RwLock<[Arc<Rows>; Keyspace::ALL.len()]>>,
}

impl MemoryDisk {
    fn rows(&self, keyspace: Keyspace) -> Arc<Rows> {
        // A panic can't leave a map half-changed in a way that matters: nothing below panics between two changes.
        self.keyspaces.read().unwrap_or_else(PoisonError::into_inner)[keyspace as usize].clone()
    }
}

impl Disk for MemoryDisk {
    type View = MemoryView;

    async fn get(&self, keyspace: Keyspace, key: &[u8]) -> io::Result<Option<Bytes>> {
        Ok(self.rows(keyspace).get(key).cloned())
    }

    async fn range(
        &self,
        keyspace: Keyspace,
        from: &[u8],
        to: Option<&[u8]>,
        limit: usize,
    ) -> io::Result<Vec<(Bytes, Bytes)>> {
        Ok(range(&self.rows(keyspace), from, to, limit))
    }

    async fn last(&self, keyspace: Keyspace) -> io::Result<Option<(Bytes, Bytes)>> {
        let rows = self.rows(keyspace);
        Ok(rows
            .last_key_value()
            .map(|(key, value)| (key.clone(), value.clone())))
    }

    async fn write(&self, batch: Vec<Change>) -> io::Result<()> {
        let mut keyspaces = self.keyspaces.write().unwrap_or_else(PoisonError::into_inner);
        for change in batch {
            match change {
                Change::Put(keyspace, key, value) => {
                    Arc::make_mut(&mut keyspaces[keyspace as usize]).insert(key, value);
                }
                Change::Delete(keyspace, key) => {
                    Arc::make_mut(&mut keyspaces[keyspace as usize]).remove(&key);
                }
                Change::DeleteRange(keyspace, from, to) => {
                    let rows = Arc::make_mut(&mut keyspaces[keyspace as usize]);
                    let mut rest = rows.split_off(&from);
                    if from <= to {
                        rows.append(&mut rest.split_off(&to));
                    } else {
                        rows.append(&mut rest);
                    }
                }
            }
        }
        Ok(())
    }

    async fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    async fn view(&self) -> io::Result<MemoryView> {
        let keyspaces = self.keyspaces.read().unwrap_or_else(PoisonError::into_inner);
        Ok(MemoryView {
            keyspaces: keyspaces.clone(),
        })
    }
}

/// A read view of a [`MemoryDisk`].
#[derive(Debug)]
pub struct MemoryView {
    keyspaces: [Arc<Rows>; Keyspace::ALL.len()],
}

impl DiskView for MemoryView {
    async fn get(&self, keyspace: Keyspace, key: &[u8]) -> io::Result<Option<Bytes>> {
        Ok(self.keyspaces[keyspace as usize].get(key).cloned())
    }

    async fn range(
        &self,
        keyspace: Keyspace,
        from: &[u8],
        to: Option<&[u8]>,
        limit: usize,
    ) -> io::Result<Vec<(Bytes, Bytes)>> {
        Ok(range(&self.keyspaces[keyspace as usize], from, to, limit))
    }
}

fn range(rows: &Rows, from: &[u8], to: Option<&[u8]>, limit: usize) -> Vec<(Bytes, Bytes)> {
    if to.is_some_and(|to| to <= from) {
        return Vec::new();
    }
    let end = to.map_or(Bound::Unbounded, Bound::Excluded);
    rows.range::<[u8], _>((Bound::Included(from), end))
        .take(limit)
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}
