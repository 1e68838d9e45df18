//! The thread that writes and syncs.

use std::{
    fs::{File, TryLockError},
    io,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock, PoisonError, RwLock},
    time::{Duration, Instant},
};

use sider_core::{
    limits,
    runtime::{Change, Keyspace},
};
use tokio::sync::{mpsc, oneshot};

use super::{
    State,
    errors::{corrupt, explain},
    mark::{Mark, Stamps},
    store::{STORE_FOLDER, Store, check_keys},
};

const LOCK_FILE: &str = "LOCK";
const MARK_FILE: &str = "synced";
/// How long closing waits for the last reader.
const CLOSE_PATIENCE: Duration = Duration::from_secs(5);

/// What the thread is asked for.
#[derive(Debug)]
pub(super) enum Request {
    Write(Vec<Change>, oneshot::Sender<io::Result<()>>),
    Sync(oneshot::Sender<io::Result<()>>),
    Close(oneshot::Sender<()>),
}

/// What the thread owns.
pub(super) struct Writer {
    state: Arc<State>,
    path: PathBuf,
    store: Arc<Store>,
    mark: Mark,
    /// Of the last batch written.
    stamps: Stamps,
    /// The directory is free for others when it is dropped.
    lock: File,
}

impl Writer {
    /// Creates or opens the data directory at `path`.
    pub(super) fn open(path: &Path) -> io::Result<Writer> {
        let lock = lock(path)?;
        let (store, mark, stamps) = open_store(path)?;
        let store = Arc::new(store);
        Ok(Writer {
            state: Arc::new(State {
                store: RwLock::new(Some(store.clone())),
                failure: OnceLock::new(),
            }),
            path: path.to_owned(),
            store,
            mark,
            stamps,
            lock,
        })
    }

    /// What it shares with the handles.
    pub(super) fn state(&self) -> Arc<State> {
        self.state.clone()
    }

    /// Serves until every handle is gone, or the disk is closed.
    pub(super) fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        let mut syncs = Vec::new();
        while let Some(request) = requests.blocking_recv() {
            let mut next = Some(request);
            let mut taken = 0;
            while let Some(request) = next.take() {
                match request {
                    // Nobody needs an answer whose receiver is gone; the request itself was carried out.
                    Request::Write(batch, answer) => drop(answer.send(self.write(batch))),
                    Request::Sync(answer) => syncs.push(answer),
                    Request::Close(answer) => {
                        self.close();
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

    fn write(&mut self, batch: Vec<Change>) -> io::Result<()> {
        self.state.check()?;
        check_keys(&batch)?;
        let written = self.store.write(batch, self.stamps);
        self.stamps = written.map_err(|error| self.fail("write", &error))?;
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.state.check()?;
        let marked = |error| explain(&self.path, fjall::Error::Io(error));
        let synced = self
            .store
            .sync()
            .and_then(|()| self.mark.write(&self.stamps).map_err(marked));
        synced.map_err(|error| self.fail("sync", &error))
    }

    /// Ends the use of this disk for good.
    fn fail(&self, what: &str, error: &io::Error) -> io::Error {
        let failure = self.state.failure.get_or_init(|| error.to_string());
        tracing::error!("a {what} failed, so this disk is not used any more: {failure}");
        io::Error::new(error.kind(), failure.clone())
    }

    /// Takes the store away from every handle, waits for the reads under way, closes the files and frees the
    /// directory.
    fn close(self) {
        *self.state.store.write().unwrap_or_else(PoisonError::into_inner) = None;
        let patience = Instant::now() + CLOSE_PATIENCE;
        while Arc::strong_count(&self.store) > 1 && Instant::now() < patience {
            std::thread::sleep(Duration::from_millis(1));
        }
        drop(self.store);
        drop(self.lock);
    }
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

/// Opens the store and checks that nothing is missing from it that was synced.
fn open_store(path: &Path) -> io::Result<(Store, Mark, Stamps)> {
    let at = |error: io::Error| explain(path, fjall::Error::Io(error));
    let mark_path = path.join(MARK_FILE);
    let (mark, synced) = Mark::open(&mark_path).map_err(|error| match error.kind() {
        io::ErrorKind::InvalidData => corrupt(path, &format!("{}: {error}", mark_path.display())),
        _ => at(error),
    })?;
    if synced != Stamps::default() && !path.join(STORE_FOLDER).try_exists().map_err(at)? {
        return Err(corrupt(path, "its store is missing"));
    }
    let store = Store::open(path)?;
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

fn sync_folder(path: &Path) -> io::Result<()> {
    if cfg!(unix) {
        File::open(path)?.sync_all()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use sider_core::runtime::Disk;

    use super::{
        super::{FjallDisk, Shared},
        *,
    };

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
        FjallDisk { shared }
    }

    #[tokio::test]
    async fn a_failed_sync_ends_the_disk_for_good() {
        let folder = tempfile::tempdir().unwrap();
        let disk = failing(folder.path());
        disk.write(put("a", "1")).await.unwrap();
        let error = disk.sync().await.unwrap_err().to_string();
        let expected = format!("data directory {}: ", folder.path().display());
        assert!(error.starts_with(&expected), "{error}");
        for result in [
            disk.sync().await,
            disk.write(put("b", "2")).await,
            disk.get(Keyspace::Log, b"a").await.map(drop),
            disk.range(Keyspace::Log, b"", None, 1).await.map(drop),
            disk.last(Keyspace::Log).await.map(drop),
            disk.view().await.map(drop),
        ] {
            assert_eq!(result.unwrap_err().to_string(), error);
        }
    }
}
