//! A disk on files, by fjall.
//!
//! One thread writes and syncs ([`writer`]), so that neither ever holds up the reactor, and the syncs that wait while
//! one is running are answered by the next one together. Reads go past it: fjall answers them without its journal's
//! lock ([`store`]).
//!
//! A data directory holds `LOCK` (held by the process that uses it), `store/` (fjall's own) and `synced` ([`mark`]).

mod errors;
mod mark;
mod store;
mod writer;

use std::{
    io,
    ops::Bound,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock, PoisonError, RwLock},
};

use bytes::Bytes;
use sider_core::{
    limits,
    runtime::{Change, Disk, DiskView, Keyspace},
};
use tokio::sync::{mpsc, oneshot};

use self::{
    store::{Store, check_key, end_of_keys, stored_key},
    writer::{Request, Writer},
};

/// A disk on files in a data directory. Its clones share it.
///
/// After a failed write or sync every further call fails: what is on disk is not known any more, and a later success
/// would say nothing about it.
#[derive(Clone, Debug)]
pub struct FjallDisk {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    queue: mpsc::Sender<Request>,
    state: Arc<State>,
}

/// What the handles and the disk's thread share.
#[derive(Debug)]
struct State {
    /// The open store; `None` once closed.
    store: RwLock<Option<Arc<Store>>>,
    /// Why the disk can't be used any more.
    failure: OnceLock<String>,
}

impl FjallDisk {
    /// Opens the data directory at `path`, creating it if need be, and locks it against every other process.
    ///
    /// # Errors
    /// One line that names the path and the way out: the directory is in use by another process (`WouldBlock`), it
    /// can't be written, or its content is corrupt (`InvalidData`).
    pub async fn open(path: &Path) -> io::Result<FjallDisk> {
        let (queue, requests) = mpsc::channel(limits::DISK_QUEUE_MAX);
        let (opened, result) = oneshot::channel();
        let path = path.to_owned();
        let thread = std::thread::Builder::new().name("sider-disk".into());
        thread.spawn(move || match Writer::open(&path) {
            Ok(writer) => {
                let state = writer.state();
                let shared = Arc::new(Shared { path, queue, state });
                if opened.send(Ok(FjallDisk { shared })).is_ok() {
                    writer.run(requests);
                }
            }
            // The receiver is gone only if the opening was given up.
            Err(error) => drop(opened.send(Err(error))),
        })?;
        let died = |_| io::Error::other("the disk's thread died");
        result.await.map_err(died)?
    }

    /// The data directory.
    pub fn path(&self) -> &Path {
        &self.shared.path
    }

    /// As [`super::LocalDisk::close`].
    pub async fn close(&self) {
        // An error means that the thread has ended, and closed the files before.
        let _ = self.ask(Request::Close).await;
    }

    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> io::Result<T> {
        let (answer, result) = oneshot::channel();
        let sent = self.shared.queue.send(request(answer)).await;
        sent.map_err(|_| self.closed())?;
        result.await.map_err(|_| self.closed())
    }

    fn closed(&self) -> io::Error {
        io::Error::other(format!("data directory {} is closed", self.shared.path.display()))
    }

    fn store(&self) -> io::Result<Arc<Store>> {
        let state = &self.shared.state;
        state.check()?;
        let store = state.store.read().unwrap_or_else(PoisonError::into_inner);
        store.clone().ok_or_else(|| self.closed())
    }
}

impl State {
    fn check(&self) -> io::Result<()> {
        match self.failure.get() {
            Some(failure) => Err(io::Error::other(failure.clone())),
            None => Ok(()),
        }
    }
}

impl Disk for FjallDisk {
    type View = FjallView;

    async fn get(&self, keyspace: Keyspace, key: &[u8]) -> io::Result<Option<Bytes>> {
        self.store()?.get(keyspace, key, None)
    }

    async fn range(
        &self,
        keyspace: Keyspace,
        from: &[u8],
        to: Option<&[u8]>,
        limit: usize,
    ) -> io::Result<Vec<(Bytes, Bytes)>> {
        let store = self.store()?;
        let snapshot = store.snapshot();
        read_range(store, snapshot, keyspace, from, to, limit).await
    }

    async fn last(&self, keyspace: Keyspace) -> io::Result<Option<(Bytes, Bytes)>> {
        self.store()?.last(keyspace)
    }

    async fn write(&self, batch: Vec<Change>) -> io::Result<()> {
        self.store()?;
        self.ask(|answer| Request::Write(batch, answer)).await?
    }

    async fn sync(&self) -> io::Result<()> {
        self.store()?;
        self.ask(Request::Sync).await?
    }

    async fn view(&self) -> io::Result<FjallView> {
        let store = self.store()?;
        let snapshot = store.snapshot();
        Ok(FjallView { store, snapshot })
    }
}

/// A read view of a [`FjallDisk`].
pub struct FjallView {
    store: Arc<Store>,
    snapshot: fjall::Snapshot,
}

impl std::fmt::Debug for FjallView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FjallView")
            .field("store", &self.store)
            .finish_non_exhaustive()
    }
}

impl DiskView for FjallView {
    async fn get(&self, keyspace: Keyspace, key: &[u8]) -> io::Result<Option<Bytes>> {
        self.store.get(keyspace, key, Some(&self.snapshot))
    }

    async fn range(
        &self,
        keyspace: Keyspace,
        from: &[u8],
        to: Option<&[u8]>,
        limit: usize,
    ) -> io::Result<Vec<(Bytes, Bytes)>> {
        read_range(
            self.store.clone(),
            self.snapshot.clone(),
            keyspace,
            from,
            to,
            limit,
        )
        .await
    }
}

/// Reads a range: at once when it is short, on another thread when it may take long.
async fn read_range(
    store: Arc<Store>,
    snapshot: fjall::Snapshot,
    keyspace: Keyspace,
    from: &[u8],
    to: Option<&[u8]>,
    limit: usize,
) -> io::Result<Vec<(Bytes, Bytes)>> {
    if to.is_some_and(|to| to <= from) {
        return Ok(Vec::new());
    }
    check_key(from)?;
    check_key(to.unwrap_or_default())?;
    let from = Bound::Included(stored_key(from));
    let to = Bound::Excluded(to.map_or_else(end_of_keys, stored_key));
    let read = move || store.range(&snapshot, keyspace, (from, to), limit);
    if limit <= limits::DISK_READ_INLINE_MAX {
        return read();
    }
    // It does not panic; so the only error is that the program is ending.
    let stopped = |_| Err(io::Error::other("the program is ending"));
    tokio::task::spawn_blocking(read).await.unwrap_or_else(stopped)
}
