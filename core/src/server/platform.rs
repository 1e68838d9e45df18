//! The clock, tasks and chance that a server needs, without naming its runtime.

use std::{
    future::{Future, poll_fn},
    marker::PhantomData,
    pin::pin,
    task::Poll,
    time::Duration,
};

use futures_util::future::{BoxFuture, FutureExt as _};

use crate::runtime::{Instant, Runtime};

/// What [`Runtime`] offers of time, tasks and chance, as an object: so handlers are not generic.
pub trait Platform: Send + Sync + 'static {
    /// As [`Runtime::now`].
    fn now(&self) -> Instant;
    /// As [`Runtime::sleep_until`].
    fn sleep_until(&self, deadline: Instant) -> BoxFuture<'static, ()>;
    /// As [`Runtime::spawn`], detached.
    fn spawn(&self, future: BoxFuture<'static, ()>);
    /// As [`Runtime::random_u64`].
    fn random_u64(&self) -> u64;
}

/// Any [`Runtime`] as a [`Platform`].
#[derive(Clone, Copy, Debug, Default)]
pub struct RuntimePlatform<R>(PhantomData<fn() -> R>);

impl<R: Runtime> RuntimePlatform<R> {
    /// The platform of this runtime.
    pub fn new() -> Self {
        RuntimePlatform(PhantomData)
    }
}

impl<R: Runtime> Platform for RuntimePlatform<R> {
    fn now(&self) -> Instant {
        R::now()
    }

    fn sleep_until(&self, deadline: Instant) -> BoxFuture<'static, ()> {
        R::sleep_until(deadline).boxed()
    }

    fn spawn(&self, future: BoxFuture<'static, ()>) {
        // Dropping the handle detaches the task.
        drop(R::spawn(future));
    }

    fn random_u64(&self) -> u64 {
        R::random_u64()
    }
}

impl dyn Platform {
    /// Ends with the output, or with `None` at the deadline. The future is polled first, always.
    pub(super) async fn until<F: Future>(&self, deadline: Instant, future: F) -> Option<F::Output> {
        let (mut future, mut sleep) = (pin!(future), None);
        // What is there at once needs no timer.
        poll_fn(|context| match future.as_mut().poll(context) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending => sleep
                .get_or_insert_with(|| self.sleep_until(deadline))
                .poll_unpin(context)
                .map(|()| None),
        })
        .await
    }

    /// Sleeps for `duration`.
    pub(super) async fn sleep(&self, duration: Duration) {
        self.sleep_until(self.now() + duration).await;
    }
}
