//! Clock, tasks and chance.

use std::{
    future::Future,
    pin::Pin,
    sync::OnceLock,
    task::{Context, Poll},
    time::Duration,
};

use sider_core::runtime::{Instant, Runtime, TaskFailed};

use crate::{disk::LocalDisk, network::TcpNetwork, prober::ProcessProber};

/// The platform of production.
#[derive(Clone, Copy, Debug, Default)]
pub struct TokioRuntime;

impl Runtime for TokioRuntime {
    type Sleep = tokio::time::Sleep;
    type Task<T: Send + 'static> = Task<T>;
    type Disk = LocalDisk;
    type Network = TcpNetwork;
    type Prober = ProcessProber;

    fn now() -> Instant {
        // Nanoseconds since the first look at the clock: 64 bits of them last for five centuries of uptime.
        static ORIGIN: OnceLock<Duration> = OnceLock::new();
        let now = since_boot();
        let origin = *ORIGIN.get_or_init(|| now);
        Instant(u64::try_from(now.saturating_sub(origin).as_nanos()).unwrap_or(u64::MAX))
    }

    fn wall_ms() -> u64 {
        std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    fn sleep_until(deadline: Instant) -> Self::Sleep {
        tokio::time::sleep(deadline.saturating_since(Self::now()))
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        tokio::time::sleep(duration)
    }

    fn spawn<F>(future: F) -> Self::Task<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        Task(tokio::spawn(future))
    }

    fn random_u64() -> u64 {
        rand::random()
    }
}

/// Time since the host started. It goes on while the host sleeps, so that a server which was suspended sees a gap and
/// does not take it for silence of its clients.
#[cfg(target_os = "linux")]
fn since_boot() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::new(
        u64::try_from(now.tv_sec).unwrap_or(0),
        u32::try_from(now.tv_nsec).unwrap_or(0),
    )
}

/// Time since this process first asked.
#[cfg(not(target_os = "linux"))]
fn since_boot() -> Duration {
    static START: OnceLock<std::time::Instant> = OnceLock::new();
    START.get_or_init(std::time::Instant::now).elapsed()
}

/// A handle on a task; dropping it detaches the task.
#[derive(Debug)]
pub struct Task<T>(tokio::task::JoinHandle<T>);

impl<T> Future for Task<T> {
    type Output = Result<T, TaskFailed>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0)
            .poll(context)
            .map_err(|error| TaskFailed(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn clock_runs_and_sleep_does_not_end_early() {
        let start = TokioRuntime::now();
        let deadline = start + Duration::from_millis(20);
        TokioRuntime::sleep_until(deadline).await;
        assert!(TokioRuntime::now() >= deadline);
        assert!(TokioRuntime::now().saturating_since(start) < Duration::from_secs(60));
    }

    #[tokio::test]
    async fn sleeping_until_the_past_or_for_ever_is_fine() {
        TokioRuntime::sleep_until(Instant(0)).await;
        let for_ever = TokioRuntime::sleep_until(Instant(u64::MAX));
        let ended = TokioRuntime::timeout(Duration::from_millis(10), for_ever).await;
        assert_eq!(ended, None);
    }

    #[tokio::test]
    async fn a_panic_is_contained_and_reported() {
        let task = TokioRuntime::spawn(async { panic!("as the test wants it") });
        let failed: Result<(), TaskFailed> = task.await;
        assert!(failed.unwrap_err().0.contains("panic"));
        assert_eq!(TokioRuntime::spawn(async { 7 }).await, Ok(7));
    }

    #[test]
    fn chance_differs() {
        assert_ne!(TokioRuntime::random_u64(), TokioRuntime::random_u64());
    }
}
