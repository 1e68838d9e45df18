//! A watch channel that wakes its receivers in the order of their subscription.
//!
//! Tokio's own picks the order at random, which no seed decides: a simulated run would not be reproducible.

use std::{
    collections::BTreeMap,
    future::poll_fn,
    ops::Deref,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard},
    task::{Poll, Waker},
};

use openraft_rt::{
    OptionalSend, OptionalSync,
    watch::{self, RecvError, SendError},
};

/// What openraft is given for its watch channels.
#[derive(Debug)]
pub(crate) struct OrderedWatch;

/// The sending half; cheap to clone.
pub(crate) struct Sender<T>(Arc<Channel<T>>);

/// The receiving half. A clone has seen what the original has seen, and waits behind all earlier ones.
pub(crate) struct Receiver<T> {
    channel: Arc<Channel<T>>,
    seen: u64,
    id: u64,
}

/// A borrowed value. Senders wait while it is held: drop it soon, and never hold it across an await.
pub(crate) struct Borrowed<'a, T>(RwLockReadGuard<'a, T>);

/// A new channel; its receiver has seen `initial`.
pub(crate) fn channel<T>(initial: T) -> (Sender<T>, Receiver<T>) {
    let channel = Arc::new(Channel {
        value: RwLock::new(initial),
        shared: Mutex::new(Shared {
            version: 0,
            senders: 1,
            receivers: 1,
            next_id: 1,
            wakers: BTreeMap::new(),
        }),
    });
    let receiver = Receiver {
        channel: channel.clone(),
        seen: 0,
        id: 0,
    };
    (Sender(channel), receiver)
}

struct Channel<T> {
    value: RwLock<T>,
    shared: Mutex<Shared>,
}

struct Shared {
    version: u64,
    senders: usize,
    receivers: usize,
    next_id: u64,
    /// By receiver, so that they wake in the order of their subscription.
    wakers: BTreeMap<u64, Waker>,
}

impl<T> Channel<T> {
    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn borrow(&self) -> Borrowed<'_, T> {
        Borrowed(self.value.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Makes the new value known. The value is set before the version rises: a receiver in between wakes once more
    /// than it needs to, never once less.
    fn publish(&self) {
        let wakers = {
            let mut shared = self.shared();
            shared.version += 1;
            std::mem::take(&mut shared.wakers)
        };
        wakers.into_values().for_each(Waker::wake);
    }
}

impl<T> Deref for Borrowed<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.0.shared().senders += 1;
        Sender(self.0.clone())
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let wakers = {
            let mut shared = self.0.shared();
            shared.senders -= 1;
            if shared.senders > 0 {
                return;
            }
            std::mem::take(&mut shared.wakers)
        };
        wakers.into_values().for_each(Waker::wake);
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        let mut shared = self.channel.shared();
        shared.receivers += 1;
        let id = shared.next_id;
        shared.next_id += 1;
        Receiver {
            channel: self.channel.clone(),
            seen: self.seen,
            id,
        }
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let mut shared = self.channel.shared();
        shared.receivers -= 1;
        shared.wakers.remove(&self.id);
    }
}

impl watch::Watch for OrderedWatch {
    type Sender<T: OptionalSend + OptionalSync> = Sender<T>;
    type Receiver<T: OptionalSend + OptionalSync> = Receiver<T>;
    type Ref<'a, T: OptionalSend + 'a> = Borrowed<'a, T>;

    fn channel<T: OptionalSend + OptionalSync>(init: T) -> (Sender<T>, Receiver<T>) {
        channel(init)
    }
}

impl<T: OptionalSend + OptionalSync> watch::WatchSender<OrderedWatch, T> for Sender<T> {
    fn send(&self, value: T) -> Result<(), SendError<T>> {
        if self.0.shared().receivers == 0 {
            return Err(SendError(value));
        }
        *self.0.value.write().unwrap_or_else(PoisonError::into_inner) = value;
        self.0.publish();
        Ok(())
    }

    fn send_if_modified<F: FnOnce(&mut T) -> bool>(&self, modify: F) -> bool {
        let modified = modify(&mut self.0.value.write().unwrap_or_else(PoisonError::into_inner));
        if modified {
            self.0.publish();
        }
        modified
    }

    fn borrow_watched(&self) -> Borrowed<'_, T> {
        self.0.borrow()
    }

    fn subscribe(&self) -> Receiver<T> {
        let mut shared = self.0.shared();
        shared.receivers += 1;
        let id = shared.next_id;
        shared.next_id += 1;
        Receiver {
            channel: self.0.clone(),
            seen: shared.version,
            id,
        }
    }
}

impl<T: OptionalSend + OptionalSync> watch::WatchReceiver<OrderedWatch, T> for Receiver<T> {
    async fn changed(&mut self) -> Result<(), RecvError> {
        poll_fn(|context| {
            let mut shared = self.channel.shared();
            if shared.version != self.seen {
                self.seen = shared.version;
                shared.wakers.remove(&self.id);
                return Poll::Ready(Ok(()));
            }
            if shared.senders == 0 {
                return Poll::Ready(Err(RecvError(())));
            }
            shared.wakers.insert(self.id, context.waker().clone());
            Poll::Pending
        })
        .await
    }

    fn borrow_watched(&self) -> Borrowed<'_, T> {
        self.channel.borrow()
    }

    fn borrow_and_update(&mut self) -> Borrowed<'_, T> {
        // The version first: a value set in between is then reported once more, not missed.
        self.seen = self.channel.shared().version;
        self.channel.borrow()
    }
}
