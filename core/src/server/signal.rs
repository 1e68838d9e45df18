//! A counter that tasks can wait for. Unlike `tokio::sync::watch` it wakes in a fixed order, so that a simulated run
//! stays a function of its seed.

use std::{
    collections::BTreeMap,
    future::Future,
    pin::Pin,
    sync::{Mutex, MutexGuard},
    task::{Context, Poll, Waker},
};

/// Counts changes and wakes, in the order of their arrival, those who wait for the next one.
#[derive(Debug, Default)]
pub(super) struct Signal {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    version: u64,
    next_waiter: u64,
    waiters: BTreeMap<u64, Waker>,
}

impl Signal {
    /// How many changes there were. Read it before what it guards, and wait with it after: then nothing is missed.
    pub(super) fn version(&self) -> u64 {
        self.lock().version
    }

    /// Notes a change.
    pub(super) fn bump(&self) {
        let waiters = {
            let mut state = self.lock();
            state.version += 1;
            std::mem::take(&mut state.waiters)
        };
        // Woken without the lock: a waker may run the task at once, and that task may ask for the version.
        for waker in waiters.into_values() {
            waker.wake();
        }
    }

    /// Ends when there was a change after `seen`.
    pub(super) fn changed_since(&self, seen: u64) -> Changed<'_> {
        Changed {
            signal: self,
            seen,
            waiter: None,
        }
    }

    /// How many wait.
    pub(super) fn waiting(&self) -> usize {
        self.lock().waiters.len()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock panics")
    }
}

/// See [`Signal::changed_since`]. Dropping it takes its waker away.
#[derive(Debug)]
pub(super) struct Changed<'a> {
    signal: &'a Signal,
    seen: u64,
    waiter: Option<u64>,
}

impl Future for Changed<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        let mut state = this.signal.lock();
        if state.version != this.seen {
            return Poll::Ready(());
        }
        let waiter = *this.waiter.get_or_insert_with(|| {
            state.next_waiter += 1;
            state.next_waiter
        });
        state.waiters.insert(waiter, context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Changed<'_> {
    fn drop(&mut self) {
        if let Some(waiter) = self.waiter {
            self.signal.lock().waiters.remove(&waiter);
        }
    }
}
