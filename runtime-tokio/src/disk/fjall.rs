//! A disk on files, by fjall.
//!
//! One thread writes and syncs, so that neither ever holds up the reactor, and the syncs that wait while one is
//! running are answered by the next one together. Reads go past it: fjall answers them without its journal's lock.
//!
//! A data directory holds `LOCK` (held by the process that uses it), `store/` (fjall's own) and `synced` (see
//! [`super::mark`]). A key is stored behind a byte 1; the single byte 0 is the key of the keyspace's stamp.

use std::{
    collections::BTreeMap,
    fs::{File, TryLockError},
    io,
    ops::Bound,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{Arc, OnceLock, PoisonError, RwLock},
    time::Duration,
};

use bytes::Bytes;
use fjall::{Database, KeyspaceCreateOptions, PersistMode, Readable};
use sider_core::{
    limits,
    runtime::{Change, Disk, DiskView, Keyspace},
};
use tokio::sync::{mpsc, oneshot};

use super::mark::{Mark, Stamps};
use crate::telemetry::without_panic_messages;

const LOCK_FILE: &str = "LOCK";
const MARK_FILE: &str = "synced";
const STORE_FOLDER: &str = "store";
/// What `store` is renamed to before it is removed, so that a crash while removing leaves no half of it in place.
const REMOVED_FOLDER: &str = "store.removed";
const STAMP_KEY: [u8; 1] = [0];
const KEY_PREFIX: u8 = 1;
/// Bytes of a key on this disk, the limit of fjall less the prefix.
const KEY_BYTES_MAX: usize = u16::MAX as usize - 1;
/// Bytes of fjall's journals; at more, it flushes what keeps the oldest one alive.
const JOURNALS_BYTES_MAX: u64 = 128 * 1024 * 1024;
/// Bytes of one keyspace in memory before it is flushed to a table.
const MEMTABLE_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// How long `wipe` waits for the last reader of the old store.
const WIPE_PATIENCE: Duration = Duration::from_secs(5);

/// A disk on files in a data directory. Its clones share it.
///
/// After a failed write or sync every further call fails: what is on disk is not known any more, and a later success
/// would say nothing about it.
#[derive(Clone, Debug)]
pub struct FjallDisk {
    shared: Arc<Shared>,
    /// Counts wipes; a handle from before one is dead.
    epoch: u64,
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
    /// The open store with its epoch; `None` once closed.
    store: RwLock<Option<(u64, Arc<Store>)>>,
    /// Why the disk can't be used any more.
    failure: OnceLock<String>,
}

enum Request {
    /// From a handle of this epoch.
    Write(u64, Vec<Change>, oneshot::Sender<io::Result<()>>),
    /// From a handle of this epoch.
    Sync(u64, oneshot::Sender<io::Result<()>>),
    Wipe(oneshot::Sender<io::Result<u64>>),
    Close(oneshot::Sender<()>),
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
        std::thread::Builder::new()
            .name("sider-disk".into())
            .spawn(move || match Writer::open(&path) {
                Ok(writer) => {
                    let shared = Arc::new(Shared {
                        path,
                        queue,
                        state: writer.state.clone(),
                    });
                    if opened.send(Ok(FjallDisk { shared, epoch: 0 })).is_ok() {
                        writer.run(requests);
                    }
                }
                // The receiver is gone only if the opening was given up.
                Err(error) => drop(opened.send(Err(error))),
            })?;
        result
            .await
            .map_err(|_| io::Error::other("the disk's thread died"))?
    }

    /// The data directory.
    pub fn path(&self) -> &Path {
        &self.shared.path
    }

    /// As [`super::LocalDisk::wipe`].
    pub(super) async fn wipe(self) -> io::Result<FjallDisk> {
        let epoch = self.ask(Request::Wipe).await??;
        Ok(FjallDisk {
            shared: self.shared,
            epoch,
        })
    }

    /// As [`super::LocalDisk::close`].
    pub async fn close(&self) {
        // An error means that the thread has ended, and closed the files before.
        let _ = self.ask(Request::Close).await;
    }

    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> io::Result<T> {
        let gone = || io::Error::other(format!("data directory {} is closed", self.shared.path.display()));
        let (answer, result) = oneshot::channel();
        self.shared
            .queue
            .send(request(answer))
            .await
            .map_err(|_| gone())?;
        result.await.map_err(|_| gone())
    }

    fn store(&self) -> io::Result<Arc<Store>> {
        self.shared.state.check()?;
        let store = self
            .shared
            .state
            .store
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        match &*store {
            Some((epoch, store)) if *epoch == self.epoch => Ok(store.clone()),
            _ => Err(io::Error::other(format!(
                "data directory {} was closed or wiped",
                self.shared.path.display()
            ))),
        }
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
        let store = self.store()?;
        store.contain(|| store.get(keyspace, key, None))
    }

    async fn range(
        &self,
        keyspace: Keyspace,
        from: &[u8],
        to: Option<&[u8]>,
        limit: usize,
    ) -> io::Result<Vec<(Bytes, Bytes)>> {
        let store = self.store()?;
        let snapshot = store.database.snapshot();
        read_range(store, snapshot, keyspace, from, to, limit).await
    }

    async fn last(&self, keyspace: Keyspace) -> io::Result<Option<(Bytes, Bytes)>> {
        let store = self.store()?;
        store.contain(|| {
            let all = (Bound::Included([KEY_PREFIX]), Bound::Excluded([KEY_PREFIX + 1]));
            let last = store.keyspace(keyspace).range::<[u8; 1], _>(all).next_back();
            last.map(pair).transpose()
        })
    }

    async fn write(&self, batch: Vec<Change>) -> io::Result<()> {
        self.store()?;
        self.ask(|answer| Request::Write(self.epoch, batch, answer))
            .await?
    }

    async fn sync(&self) -> io::Result<()> {
        self.store()?;
        self.ask(|answer| Request::Sync(self.epoch, answer)).await?
    }

    async fn view(&self) -> io::Result<FjallView> {
        let store = self.store()?;
        let snapshot = store.database.snapshot();
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
        self.store
            .contain(|| self.store.get(keyspace, key, Some(&self.snapshot)))
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
    let to = Bound::Excluded(to.map_or_else(|| vec![KEY_PREFIX + 1], stored_key));
    let path = store.path.clone();
    let read = move || {
        store.contain(|| {
            snapshot
                .range(store.keyspace(keyspace), (from, to))
                .take(limit)
                .map(pair)
                .collect()
        })
    };
    if limit <= limits::DISK_READ_INLINE_MAX {
        return read();
    }
    tokio::task::spawn_blocking(read).await.unwrap_or_else(|error| {
        Err(io::Error::other(format!(
            "data directory {}: {error}",
            path.display()
        )))
    })
}

fn stored_key(key: &[u8]) -> Vec<u8> {
    let mut stored = Vec::with_capacity(key.len() + 1);
    stored.push(KEY_PREFIX);
    stored.extend_from_slice(key);
    stored
}

fn pair(guard: fjall::Guard) -> fjall::Result<(Bytes, Bytes)> {
    let (key, value) = guard.into_inner()?;
    Ok((Bytes::copy_from_slice(&key[1..]), Bytes::copy_from_slice(&value)))
}

/// An open fjall database.
struct Store {
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
    fn open(path: &Path) -> io::Result<Store> {
        let open = || -> fjall::Result<Store> {
            let database = Database::builder(path.join(STORE_FOLDER))
                .max_journaling_size(JOURNALS_BYTES_MAX)
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

    fn get(
        &self,
        keyspace: Keyspace,
        key: &[u8],
        snapshot: Option<&fjall::Snapshot>,
    ) -> fjall::Result<Option<Bytes>> {
        if key.len() > KEY_BYTES_MAX {
            return Ok(None);
        }
        let key = stored_key(key);
        let value = match snapshot {
            Some(snapshot) => snapshot.get(self.keyspace(keyspace), key)?,
            None => self.keyspace(keyspace).get(key)?,
        };
        Ok(value.map(|value| Bytes::copy_from_slice(&value)))
    }

    fn stamps(&self) -> io::Result<Stamps> {
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
    fn fold(&self, batch: Vec<Change>) -> fjall::Result<BTreeMap<(Keyspace, Vec<u8>), Option<Bytes>>> {
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

/// What the disk's thread owns.
struct Writer {
    state: Arc<State>,
    path: PathBuf,
    store: Option<Arc<Store>>,
    mark: Mark,
    /// Of the last batch written.
    stamps: Stamps,
    epoch: u64,
    // Declared last: the directory is free for others only after the store is closed.
    _lock: File,
}

impl Writer {
    fn open(path: &Path) -> io::Result<Writer> {
        let lock = lock(path)?;
        let (store, mark, stamps) = open_store(path)?;
        Ok(Writer {
            state: Arc::new(State {
                store: RwLock::new(Some((0, store.clone()))),
                failure: OnceLock::new(),
            }),
            path: path.to_owned(),
            store: Some(store),
            mark,
            stamps,
            epoch: 0,
            _lock: lock,
        })
    }

    /// Serves until every handle is gone, or the disk is closed.
    fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        let mut syncs = Vec::new();
        while let Some(request) = requests.blocking_recv() {
            let mut next = Some(request);
            let mut taken = 0;
            while let Some(request) = next.take() {
                match request {
                    // Nobody needs an answer whose receiver is gone; the request itself was carried out.
                    Request::Write(epoch, batch, answer) => drop(answer.send(self.write(epoch, batch))),
                    Request::Sync(epoch, answer) if epoch == self.epoch => syncs.push(answer),
                    Request::Sync(_, answer) => drop(answer.send(Err(self.closed()))),
                    Request::Wipe(answer) => drop(answer.send(self.wipe())),
                    Request::Close(answer) => {
                        self.close();
                        // The directory is free for others when the caller hears of it.
                        drop(self);
                        let _ = answer.send(());
                        return;
                    }
                }
                taken += 1;
                // A sync must not wait for ever behind writers that never pause.
                if taken < limits::DISK_QUEUE_MAX {
                    next = requests.try_recv().ok();
                }
            }
            if !syncs.is_empty() {
                let result = self.sync();
                for answer in syncs.drain(..) {
                    drop(answer.send(match &result {
                        Ok(()) => Ok(()),
                        Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
                    }));
                }
            }
        }
        self.close();
    }

    fn closed(&self) -> io::Error {
        io::Error::other(format!(
            "data directory {} was closed or wiped",
            self.path.display()
        ))
    }

    fn store(&self) -> io::Result<Arc<Store>> {
        self.state.check()?;
        self.store.clone().ok_or_else(|| self.closed())
    }

    fn write(&mut self, epoch: u64, batch: Vec<Change>) -> io::Result<()> {
        let store = self.store()?;
        if epoch != self.epoch {
            return Err(self.closed());
        }
        check_keys(&batch)?;
        let mut stamps = self.stamps;
        let number = stamps.iter().max().expect("there are keyspaces") + 1;
        let commit = || -> fjall::Result<Stamps> {
            let folded = store.fold(batch)?;
            let mut commit = fjall::OwnedWriteBatch::with_capacity(
                store.database.clone(),
                folded.len() + Keyspace::ALL.len(),
            );
            for ((keyspace, key), value) in folded {
                stamps[keyspace as usize] = number;
                match value {
                    Some(value) => commit.insert(store.keyspace(keyspace), key, &value[..]),
                    None => commit.remove(store.keyspace(keyspace), key),
                }
            }
            for (keyspace, stamp) in store.keyspaces.iter().zip(&stamps) {
                if *stamp == number {
                    commit.insert(keyspace, STAMP_KEY, stamp.to_be_bytes());
                }
            }
            commit.commit()?;
            Ok(stamps)
        };
        match store.contain(commit) {
            Ok(stamps) => {
                self.stamps = stamps;
                Ok(())
            }
            Err(error) => Err(self.fail("write", &error)),
        }
    }

    fn sync(&mut self) -> io::Result<()> {
        let store = self.store()?;
        let synced = store.contain(|| {
            store.database.persist(PersistMode::SyncData)?;
            Ok(self.mark.write(&self.stamps)?)
        });
        synced.map_err(|error| self.fail("sync", &error))
    }

    /// Ends the use of this disk for good.
    fn fail(&self, what: &str, error: &io::Error) -> io::Error {
        let failure = self
            .state
            .failure
            .get_or_init(|| format!("a {what} failed, so this disk is not used any more: {error}"));
        tracing::error!(data = %self.path.display(), "{failure}");
        io::Error::new(error.kind(), failure.clone())
    }

    /// Takes the store away from every handle and waits for the reads under way.
    fn take_store(&mut self) -> io::Result<()> {
        *self.state.store.write().unwrap_or_else(PoisonError::into_inner) = None;
        let Some(mut store) = self.store.take() else {
            return Ok(());
        };
        let patience = std::time::Instant::now() + WIPE_PATIENCE;
        loop {
            match Arc::try_unwrap(store) {
                Ok(store) => {
                    drop(store);
                    return Ok(());
                }
                Err(shared) if std::time::Instant::now() < patience => {
                    store = shared;
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err(_) => {
                    return Err(io::Error::other(format!(
                        "data directory {} is still being read",
                        self.path.display()
                    )));
                }
            }
        }
    }

    fn close(&mut self) {
        if let Err(error) = self.take_store() {
            tracing::debug!(%error, "closed the disk under a reader");
        }
    }

    fn wipe(&mut self) -> io::Result<u64> {
        self.state.check()?;
        self.take_store()?;
        let wiped = remove_store(&self.path).and_then(|()| open_store(&self.path));
        let (store, mark, stamps) = wiped.map_err(|error| self.fail("wipe", &error))?;
        self.epoch += 1;
        self.mark = mark;
        self.stamps = stamps;
        self.store = Some(store.clone());
        *self.state.store.write().unwrap_or_else(PoisonError::into_inner) = Some((self.epoch, store));
        Ok(self.epoch)
    }
}

fn check_keys(batch: &[Change]) -> io::Result<()> {
    batch.iter().try_for_each(|change| match change {
        Change::Put(_, key, _) | Change::Delete(_, key) => check_key(key),
        Change::DeleteRange(_, from, to) => check_key(from).and(check_key(to)),
    })
}

fn check_key(key: &[u8]) -> io::Result<()> {
    if key.len() <= KEY_BYTES_MAX {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::InvalidInput,
        format!("a key of {} bytes is longer than {KEY_BYTES_MAX}", key.len()),
    ))
}

/// Creates the data directory and locks it.
fn lock(path: &Path) -> io::Result<File> {
    let unusable = |error: io::Error| {
        io::Error::new(
            error.kind(),
            format!(
                "data directory {} can't be written: {error}; make it writable or choose another one",
                path.display()
            ),
        )
    };
    std::fs::create_dir_all(path).map_err(unusable)?;
    let file = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .open(path.join(LOCK_FILE))
        .map_err(unusable)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(io::Error::new(
            io::ErrorKind::WouldBlock,
            format!(
                "data directory {} is in use by another process; stop that one or choose another directory",
                path.display()
            ),
        )),
        Err(TryLockError::Error(error)) => Err(unusable(error)),
    }
}

fn open_store(path: &Path) -> io::Result<(Arc<Store>, Mark, Stamps)> {
    let at = |error: io::Error| explain(path, fjall::Error::Io(error));
    let removed = path.join(REMOVED_FOLDER);
    if removed.try_exists().map_err(at)? {
        std::fs::remove_dir_all(&removed).map_err(at)?;
    }
    let mark_path = path.join(MARK_FILE);
    let (mark, synced) = Mark::open(&mark_path).map_err(|error| match error.kind() {
        io::ErrorKind::InvalidData => corrupt(path, &format!("{}: {error}", mark_path.display())),
        _ => at(error),
    })?;
    if synced != Stamps::default() && !path.join(STORE_FOLDER).try_exists().map_err(at)? {
        return Err(corrupt(path, "its store is missing"));
    }
    let store = Arc::new(Store::open(path)?);
    let stamps = store.stamps()?;
    for (keyspace, (found, synced)) in Keyspace::ALL.iter().zip(stamps.iter().zip(&synced)) {
        if found < synced {
            let lost = format!("{keyspace:?} holds batch {found}, and {synced} was synced");
            return Err(corrupt(path, &lost));
        }
    }
    sync_folder(path).map_err(at)?;
    Ok((store, mark, stamps))
}

/// Removes the store so that a crash at any point leaves either all of it in place, or none.
fn remove_store(path: &Path) -> io::Result<()> {
    // The mark goes first: without a mark nothing is claimed about the store.
    std::fs::remove_file(path.join(MARK_FILE))?;
    sync_folder(path)?;
    std::fs::rename(path.join(STORE_FOLDER), path.join(REMOVED_FOLDER))?;
    sync_folder(path)?;
    std::fs::remove_dir_all(path.join(REMOVED_FOLDER))
}

fn sync_folder(path: &Path) -> io::Result<()> {
    if cfg!(unix) {
        File::open(path)?.sync_all()?;
    }
    Ok(())
}

/// One line that says what is wrong with the data directory and what to do.
fn explain(path: &Path, error: fjall::Error) -> io::Error {
    use fjall::LsmError;
    let error = match error {
        fjall::Error::Io(error) | fjall::Error::Storage(LsmError::Io(error)) => error,
        fjall::Error::Locked => {
            return io::Error::new(
                io::ErrorKind::WouldBlock,
                format!("data directory {} is in use by another process", path.display()),
            );
        }
        fjall::Error::Poisoned => io::Error::other("the store stopped after an earlier error"),
        // Everything else that opening, reading and writing can give is about the content of a file.
        error => return corrupt(path, &format!("{error:?}")),
    };
    let way_out = match error.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData => {
            return corrupt(path, &error.to_string());
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "; free some space, then start again",
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            "; make it writable or choose another one"
        }
        _ => "",
    };
    io::Error::new(
        error.kind(),
        format!("data directory {}: {error}{way_out}", path.display()),
    )
}

fn corrupt(path: &Path, what: &str) -> io::Error {
    // The texts of others may hold line breaks; an error is one line.
    let what = what.split_whitespace().collect::<Vec<_>>().join(" ");
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!(
            "data directory {} is corrupt: {what}; restore it from a backup, or move it away and join this server \
             to its cluster again under a new id",
            path.display()
        ),
    )
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    if let Some(text) = panic.downcast_ref::<String>() {
        text.clone()
    } else if let Some(text) = panic.downcast_ref::<&str>() {
        (*text).to_owned()
    } else {
        "the store panicked".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(key: &'static str, value: &'static str) -> Vec<Change> {
        vec![Change::Put(Keyspace::Log, key.into(), value.into())]
    }

    /// A disk whose next sync will fail, and no later one: its mark can't be written.
    fn failing(path: &Path) -> FjallDisk {
        let mut writer = Writer::open(path).unwrap();
        writer.mark = Mark::read_only(&path.join(MARK_FILE)).unwrap();
        let (queue, requests) = mpsc::channel(8);
        let state = writer.state.clone();
        std::thread::spawn(move || writer.run(requests));
        let shared = Arc::new(Shared {
            path: path.to_owned(),
            queue,
            state,
        });
        FjallDisk { shared, epoch: 0 }
    }

    #[tokio::test]
    async fn a_failed_sync_ends_the_disk_for_good() {
        let folder = tempfile::tempdir().unwrap();
        let disk = failing(folder.path());
        disk.write(put("a", "1")).await.unwrap();
        let error = disk.sync().await.unwrap_err().to_string();
        assert!(
            error.contains("a sync failed, so this disk is not used any more"),
            "{error}"
        );
        assert!(error.contains(&folder.path().display().to_string()), "{error}");
        for result in [
            disk.sync().await,
            disk.write(put("b", "2")).await,
            disk.get(Keyspace::Log, b"a").await.map(drop),
            disk.range(Keyspace::Log, b"", None, 1).await.map(drop),
            disk.last(Keyspace::Log).await.map(drop),
            disk.view().await.map(drop),
            disk.clone().wipe().await.map(drop),
        ] {
            assert_eq!(result.unwrap_err().to_string(), error);
        }
    }
}
