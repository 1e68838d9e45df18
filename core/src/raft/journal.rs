//! All writes of one server, in one order, with one sync for as many of them as have gathered.
//!
//! Raft's promises rest on the order of writes (a term before the entries of that term) and on never trusting a disk
//! after it failed. Both hold because one task does every write and every sync: a sync can't succeed behind another's
//! failure, and after the first failure everything is refused.

use std::sync::{Arc, OnceLock};

use tokio::sync::{mpsc, oneshot};

use super::codec::StoreError;
use crate::{
    limits,
    observe::{Observation, SharedObserver},
    runtime::{Change, Disk, Runtime},
};

/// Where writes are handed in. Cheap to clone; the writing task ends when the last clone is gone.
pub(crate) struct Journal {
    queue: mpsc::Sender<Write>,
    failure: Failure,
}

/// Why the disk is not used any more, once it isn't.
#[derive(Clone, Default)]
pub(crate) struct Failure(Arc<OnceLock<String>>);

/// What is told of a write when it is done.
pub(crate) type Done = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

struct Write {
    changes: Vec<Change>,
    /// Log entries among the changes.
    entries: usize,
    /// Told once the write can be read back.
    written: Option<Box<dyn FnOnce() + Send>>,
    /// Told once the write is durable, or never will be. A write without it waits for no sync.
    durable: Option<Done>,
}

impl Clone for Journal {
    fn clone(&self) -> Self {
        Journal {
            queue: self.queue.clone(),
            failure: self.failure.clone(),
        }
    }
}

impl Failure {
    /// Why the disk failed, if it did.
    pub(crate) fn get(&self) -> Option<&str> {
        self.0.get().map(String::as_str)
    }

    fn set(&self, error: &StoreError) -> String {
        self.0.get_or_init(|| error.to_string()).clone()
    }

    fn error(&self) -> StoreError {
        StoreError::Failed(self.get().unwrap_or("its writer is gone").to_string())
    }
}

impl Journal {
    /// Starts the writing task; at most `writes_max` writes wait for it, and are in one sync.
    pub(crate) fn start<R: Runtime>(disk: R::Disk, writes_max: usize, observer: SharedObserver) -> Journal {
        let (queue, writes) = mpsc::channel(writes_max.max(1));
        let failure = Failure::default();
        let writer = Writer::<R> {
            disk,
            writes,
            writes_max,
            failure: failure.clone(),
            observer,
        };
        // Detached: it ends with the last sender.
        drop(R::spawn(writer.run()));
        Journal { queue, failure }
    }

    /// Why the disk is not used any more, once it isn't.
    pub(crate) fn failure(&self) -> &Failure {
        &self.failure
    }

    /// Hands in log entries. Returns when they are queued; `written` is called once they can be read back, and
    /// `durable` once they are synced or never will be. Calls to `durable` come in the order of the calls of this.
    ///
    /// # Errors
    /// The store failed earlier; neither is called then.
    pub(crate) async fn append(
        &self,
        changes: Vec<Change>,
        entries: usize,
        written: Box<dyn FnOnce() + Send>,
        durable: Done,
    ) -> Result<(), StoreError> {
        self.submit(Write {
            changes,
            entries,
            written: Some(written),
            durable: Some(durable),
        })
        .await
    }

    /// Writes `changes` and everything handed in before them, and waits until they are durable.
    ///
    /// # Errors
    /// The disk failed, now or earlier.
    pub(crate) async fn commit(&self, changes: Vec<Change>) -> Result<(), StoreError> {
        let (sender, receiver) = oneshot::channel();
        self.submit(Write {
            changes,
            entries: 0,
            written: None,
            durable: Some(Box::new(move |result| {
                // Whoever asked may have been dropped meanwhile.
                let _ = sender.send(result);
            })),
        })
        .await?;
        receiver.await.unwrap_or_else(|_| Err(self.failure.error()))
    }

    /// Writes `changes` and waits until they can be read back, without making them durable.
    ///
    /// # Errors
    /// The disk failed, now or earlier.
    pub(crate) async fn write(&self, changes: Vec<Change>) -> Result<(), StoreError> {
        let (sender, receiver) = oneshot::channel();
        self.submit(Write {
            changes,
            entries: 0,
            written: Some(Box::new(move || {
                // Whoever asked may have been dropped meanwhile.
                let _ = sender.send(());
            })),
            durable: None,
        })
        .await?;
        receiver.await.map_err(|_| self.failure.error())
    }

    /// Queues `changes`: they are written in their turn and become durable with a later sync.
    ///
    /// # Errors
    /// The store failed earlier.
    pub(crate) async fn later(&self, changes: Vec<Change>) -> Result<(), StoreError> {
        self.submit(Write {
            changes,
            entries: 0,
            written: None,
            durable: None,
        })
        .await
    }

    async fn submit(&self, write: Write) -> Result<(), StoreError> {
        if self.failure.get().is_some() {
            return Err(self.failure.error());
        }
        self.queue.send(write).await.map_err(|_| self.failure.error())
    }
}

struct Writer<R: Runtime> {
    disk: R::Disk,
    writes: mpsc::Receiver<Write>,
    writes_max: usize,
    failure: Failure,
    observer: SharedObserver,
}

impl<R: Runtime> Writer<R> {
    async fn run(mut self) {
        while let Some(first) = self.writes.recv().await {
            let group = self.gather(first);
            if let Err(reason) = self.carry_out(group).await {
                tracing::error!(
                    reason,
                    "the disk failed: nothing more is written, and this server must stop"
                );
                self.refuse_the_rest().await;
                return;
            }
        }
    }

    /// Takes what has come while the last group was being written, within bounds.
    fn gather(&mut self, first: Write) -> Vec<Write> {
        let mut bytes = first.bytes();
        let mut group = vec![first];
        while group.len() < self.writes_max && bytes < limits::JOURNAL_GROUP_BYTES {
            let Ok(next) = self.writes.try_recv() else {
                break;
            };
            bytes += next.bytes();
            group.push(next);
        }
        group
    }

    /// Writes and syncs a group, and tells everyone in it.
    async fn carry_out(&self, mut group: Vec<Write>) -> Result<(), String> {
        let changes: Vec<Change> = group
            .iter_mut()
            .flat_map(|write| std::mem::take(&mut write.changes))
            .collect();
        if !changes.is_empty()
            && let Err(error) = self.disk.write(changes).await
        {
            return Err(self.fail(
                StoreError::Disk {
                    action: "a write",
                    error,
                },
                group,
            ));
        }
        for write in &mut group {
            if let Some(written) = write.written.take() {
                written();
            }
        }

        if group.iter().all(|write| write.durable.is_none()) {
            return Ok(());
        }
        let began = R::now();
        if let Err(error) = self.disk.sync().await {
            return Err(self.fail(
                StoreError::Disk {
                    action: "a sync",
                    error,
                },
                group,
            ));
        }
        let entries = group.iter().map(|write| write.entries).sum();
        if entries > 0 {
            self.observer.observe(Observation::Synced {
                entries,
                took: R::now().saturating_since(began),
            });
        }
        for write in group {
            if let Some(durable) = write.durable {
                durable(Ok(()));
            }
        }
        Ok(())
    }

    /// Notes the failure before anyone hears of it, and gives its reason.
    fn fail(&self, error: StoreError, group: Vec<Write>) -> String {
        let reason = self.failure.set(&error);
        for write in group {
            if let Some(durable) = write.durable {
                durable(Err(StoreError::Failed(reason.clone())));
            }
        }
        reason
    }

    async fn refuse_the_rest(&mut self) {
        self.writes.close();
        while let Some(write) = self.writes.recv().await {
            if let Some(durable) = write.durable {
                durable(Err(self.failure.error()));
            }
        }
    }
}

impl Write {
    fn bytes(&self) -> usize {
        self.changes
            .iter()
            .map(|change| match change {
                Change::Put(_, key, value) => key.len() + value.len(),
                Change::Delete(_, key) => key.len(),
                Change::DeleteRange(_, from, to) => from.len() + to.len(),
            })
            .sum()
    }
}
