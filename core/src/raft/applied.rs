//! How far entries are applied, and who waits for it.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::oneshot;

/// The index of the last applied entry.
pub(crate) struct AppliedIndex(Mutex<Inner>);

struct Inner {
    /// `None` before the first.
    applied: Option<u64>,
    stopped: bool,
    tickets: u64,
    /// By index and ticket: who waits for less wakes first, then who came first.
    waiters: BTreeMap<(u64, u64), oneshot::Sender<()>>,
}

/// The server stopped before the entry was applied.
#[derive(Debug)]
pub(crate) struct Stopped;

impl AppliedIndex {
    pub(crate) fn new(applied: Option<u64>) -> Self {
        AppliedIndex(Mutex::new(Inner {
            applied,
            stopped: false,
            tickets: 0,
            waiters: BTreeMap::new(),
        }))
    }

    /// The index of the last applied entry; 0 also before the first.
    pub(crate) fn get(&self) -> u64 {
        self.lock().applied.unwrap_or(0)
    }

    /// Notes that everything up to `index` is applied.
    pub(crate) fn advance(&self, index: u64) {
        let woken = {
            let mut inner = self.lock();
            inner.applied = inner.applied.max(Some(index));
            match inner.waiters.first_key_value() {
                Some((&(first, _), _)) if first <= index => {
                    let still_waiting = inner.waiters.split_off(&(index + 1, 0));
                    std::mem::replace(&mut inner.waiters, still_waiting)
                }
                _ => return,
            }
        };
        for waiter in woken.into_values() {
            // It may have given up meanwhile.
            let _ = waiter.send(());
        }
    }

    /// Ends all waiting, for good.
    pub(crate) fn stop(&self) {
        let waiters = {
            let mut inner = self.lock();
            inner.stopped = true;
            std::mem::take(&mut inner.waiters)
        };
        drop(waiters);
    }

    /// Ends when the entry at `index` is applied.
    ///
    /// # Errors
    /// The server stopped before.
    pub(crate) async fn wait(&self, index: u64) -> Result<(), Stopped> {
        let (waiting, receiver) = {
            let mut inner = self.lock();
            if inner.applied >= Some(index) {
                return Ok(());
            }
            if inner.stopped {
                return Err(Stopped);
            }
            let (sender, receiver) = oneshot::channel();
            let key = (index, inner.tickets);
            inner.tickets += 1;
            inner.waiters.insert(key, sender);
            (Waiting { list: self, key }, receiver)
        };
        let result = receiver.await.map_err(|_| Stopped);
        drop(waiting);
        result
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes its waiter off the list when the wait ends, be it by being given up.
struct Waiting<'a> {
    list: &'a AppliedIndex,
    key: (u64, u64),
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.list.lock().waiters.remove(&self.key);
    }
}
