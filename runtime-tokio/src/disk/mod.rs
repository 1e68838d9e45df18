//! A server's disk: files by fjall, or memory only for `-dev`.

mod files;
mod memory;

use std::io;

use bytes::Bytes;
use sider_core::runtime::{Change, Disk, DiskView, Keyspace};

pub use self::{
    files::{FjallDisk, FjallView},
    memory::{MemoryDisk, MemoryView},
};

/// The disk of one server, of either kind.
#[derive(Clone, Debug)]
pub enum LocalDisk {
    /// On files.
    Files(FjallDisk),
    /// In memory; gone with the process.
    Memory(MemoryDisk),
}

impl LocalDisk {
    /// Closes the files and frees the data directory for another process. Every handle fails from now on.
    pub async fn close(&self) {
        match self {
            LocalDisk::Files(disk) => disk.close().await,
            LocalDisk::Memory(_) => {}
        }
    }
}

impl Disk for LocalDisk {
    type View = LocalView;

    async fn get(&self, keyspace: Keyspace, key: &[u8]) -> io::Result<Option<Bytes>> {
        match self {
            LocalDisk::Files(disk) => disk.get(keyspace, key).await,
            LocalDisk::Memory(disk) => disk.get(keyspace, key).await,
        }
    }

    async fn range(
        &self,
        keyspace: Keyspace,
        from: &[u8],
        to: Option<&[u8]>,
        limit: usize,
    ) -> io::Result<Vec<(Bytes, Bytes)>> {
        match self {
            LocalDisk::Files(disk) => disk.range(keyspace, from, to, limit).await,
            LocalDisk::Memory(disk) => disk.range(keyspace, from, to, limit).await,
        }
    }

    async fn last(&self, keyspace: Keyspace) -> io::Result<Option<(Bytes, Bytes)>> {
        match self {
            LocalDisk::Files(disk) => disk.last(keyspace).await,
            LocalDisk::Memory(disk) => disk.last(keyspace).await,
        }
    }

    async fn write(&self, batch: Vec<Change>) -> io::Result<()> {
        match self {
            LocalDisk::Files(disk) => disk.write(batch).await,
            LocalDisk::Memory(disk) => disk.write(batch).await,
        }
    }

    async fn sync(&self) -> io::Result<()> {
        match self {
            LocalDisk::Files(disk) => disk.sync().await,
            LocalDisk::Memory(disk) => disk.sync().await,
        }
    }

    async fn view(&self) -> io::Result<Self::View> {
        match self {
            LocalDisk::Files(disk) => Ok(LocalView::Files(disk.view().await?)),
            LocalDisk::Memory(disk) => Ok(LocalView::Memory(disk.view().await?)),
        }
    }
}

/// A read view of either kind of disk.
#[derive(Debug)]
pub enum LocalView {
    /// Of files.
    Files(FjallView),
    /// Of memory.
    Memory(MemoryView),
}

impl DiskView for LocalView {
    async fn get(&self, keyspace: Keyspace, key: &[u8]) -> io::Result<Option<Bytes>> {
        match self {
            LocalView::Files(view) => view.get(keyspace, key).await,
            LocalView::Memory(view) => view.get(keyspace, key).await,
        }
    }

    async fn range(
        &self,
        keyspace: Keyspace,
        from: &[u8],
        to: Option<&[u8]>,
        limit: usize,
    ) -> io::Result<Vec<(Bytes, Bytes)>> {
        match self {
            LocalView::Files(view) => view.range(keyspace, from, to, limit).await,
            LocalView::Memory(view) => view.range(keyspace, from, to, limit).await,
        }
    }
}
