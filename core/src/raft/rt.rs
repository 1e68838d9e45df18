//! openraft's runtime, on ours. Time, tasks and chance come from [`Runtime`]; channels and the mutex are Tokio's, whose
//! behaviour depends on nothing but the order of calls; the watch channel is our own.

use std::{
    convert::Infallible,
    fmt,
    future::Future,
    io,
    marker::PhantomData,
    ops::{Add, AddAssign, Sub, SubAssign},
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
    time::Duration,
};

use openraft_rt::{AsyncRuntime, OptionalSend};
use openraft_rt_tokio::{TokioMpsc, TokioMutex, TokioOneshot};

use super::watch::OrderedWatch;
use crate::runtime::{self, Runtime, TaskFailed};

/// A [`Runtime`] as openraft wants it.
pub(crate) struct RaftRuntime<R>(PhantomData<fn() -> R>);

impl<R> fmt::Debug for RaftRuntime<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RaftRuntime")
    }
}

impl<R: Runtime> AsyncRuntime for RaftRuntime<R> {
    type JoinError = TaskFailed;
    type JoinHandle<T: OptionalSend + 'static> = R::Task<T>;
    type Sleep = R::Sleep;
    type Instant = RaftInstant<R>;
    type TimeoutError = Elapsed;
    type Timeout<T, F: Future<Output = T> + OptionalSend> = Timeout<F, R::Sleep>;
    type ThreadLocalRng = RaftRng<R>;
    type Mpsc = TokioMpsc;
    type Watch = OrderedWatch;
    type Oneshot = TokioOneshot;
    type Mutex<T: OptionalSend + 'static> = TokioMutex<T>;

    fn spawn<F>(future: F) -> R::Task<F::Output>
    where
        F: Future + OptionalSend + 'static,
        F::Output: OptionalSend + 'static,
    {
        R::spawn(future)
    }

    fn sleep(duration: Duration) -> R::Sleep {
        R::sleep(duration)
    }

    fn sleep_until(deadline: RaftInstant<R>) -> R::Sleep {
        R::sleep_until(deadline.at)
    }

    fn timeout<T, F: Future<Output = T> + OptionalSend>(
        duration: Duration,
        future: F,
    ) -> Timeout<F, R::Sleep> {
        Timeout {
            future: Box::pin(future),
            sleep: Box::pin(R::sleep(duration)),
        }
    }

    fn timeout_at<T, F: Future<Output = T> + OptionalSend>(
        deadline: RaftInstant<R>,
        future: F,
    ) -> Timeout<F, R::Sleep> {
        Timeout {
            future: Box::pin(future),
            sleep: Box::pin(R::sleep_until(deadline.at)),
        }
    }

    fn is_panic(_: &TaskFailed) -> bool {
        // Our tasks are never cancelled but with their whole process: whoever is there to ask met a panic.
        true
    }

    fn thread_rng() -> RaftRng<R> {
        RaftRng(PhantomData)
    }

    fn new(_threads: usize) -> Self {
        RaftRuntime(PhantomData)
    }

    /// Drives `future` on the calling thread; what it spawns runs where [`Runtime::spawn`] puts it. Only openraft's
    /// storage test suite calls this.
    fn block_on<F, T>(&mut self, future: F) -> T
    where
        F: Future<Output = T>,
    {
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        let mut context = Context::from_waker(&waker);
        let mut future = pin!(future);
        loop {
            match future.as_mut().poll(&mut context) {
                Poll::Ready(output) => return output,
                Poll::Pending => thread::park(),
            }
        }
    }

    /// Runs `function` at once: threads of its own would not be deterministic, and nothing of ours blocks.
    async fn spawn_blocking<F, T>(function: F) -> Result<T, io::Error>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        Ok(function())
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// A future with a deadline. The future is polled first, always.
pub(crate) struct Timeout<F, S> {
    future: Pin<Box<F>>,
    sleep: Pin<Box<S>>,
}

impl<F: Future, S: Future<Output = ()>> Future for Timeout<F, S> {
    type Output = Result<F::Output, Elapsed>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let Poll::Ready(output) = self.future.as_mut().poll(context) {
            return Poll::Ready(Ok(output));
        }
        self.sleep.as_mut().poll(context).map(|()| Err(Elapsed))
    }
}

/// A deadline passed.
#[derive(Debug, thiserror::Error)]
#[error("timed out")]
pub(crate) struct Elapsed;

/// Chance, from the runtime.
pub(crate) struct RaftRng<R>(PhantomData<fn() -> R>);

impl<R: Runtime> rand::TryRng for RaftRng<R> {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        // The upper half: every bit of it is as random as those of the lower.
        Ok((R::random_u64() >> 32) as u32)
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(R::random_u64())
    }

    fn try_fill_bytes(&mut self, destination: &mut [u8]) -> Result<(), Infallible> {
        for chunk in destination.chunks_mut(8) {
            chunk.copy_from_slice(&R::random_u64().to_le_bytes()[..chunk.len()]);
        }
        Ok(())
    }
}

/// A point of the local monotonic clock.
pub(crate) struct RaftInstant<R> {
    pub(crate) at: runtime::Instant,
    runtime: PhantomData<fn() -> R>,
}

impl<R> RaftInstant<R> {
    fn new(at: runtime::Instant) -> Self {
        RaftInstant {
            at,
            runtime: PhantomData,
        }
    }
}

impl<R: Runtime> openraft_rt::Instant for RaftInstant<R> {
    fn now() -> Self {
        RaftInstant::new(R::now())
    }
}

// Derived ones would ask the same of `R`, of which no value ever exists.
impl<R> Copy for RaftInstant<R> {}

impl<R> Clone for RaftInstant<R> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<R> fmt::Debug for RaftInstant<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.at.fmt(f)
    }
}

impl<R> PartialEq for RaftInstant<R> {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
    }
}

impl<R> Eq for RaftInstant<R> {}

impl<R> PartialOrd for RaftInstant<R> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<R> Ord for RaftInstant<R> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.at.cmp(&other.at)
    }
}

impl<R> Add<Duration> for RaftInstant<R> {
    type Output = Self;
    fn add(self, duration: Duration) -> Self {
        RaftInstant::new(self.at + duration)
    }
}

impl<R> AddAssign<Duration> for RaftInstant<R> {
    fn add_assign(&mut self, duration: Duration) {
        self.at = self.at + duration;
    }
}

impl<R> Sub<Duration> for RaftInstant<R> {
    type Output = Self;
    fn sub(self, duration: Duration) -> Self {
        RaftInstant::new(self.at - duration)
    }
}

impl<R> SubAssign<Duration> for RaftInstant<R> {
    fn sub_assign(&mut self, duration: Duration) {
        self.at = self.at - duration;
    }
}

impl<R> Sub<Self> for RaftInstant<R> {
    type Output = Duration;
    fn sub(self, earlier: Self) -> Duration {
        self.at.saturating_since(earlier.at)
    }
}
