//! The platform that the server's own code runs on in a simulation.

use std::{
    cell::Cell,
    future::{Future, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    task::{Context, Poll},
};

use madsim::task::JoinHandle;
use sider_core::runtime::{Instant, Runtime, TaskFailed};

use crate::{
    chance,
    clock::{self, SimSleep},
    disk::SimDisk,
    network::SimNetwork,
    panics,
    prober::SimProber,
};

/// So many steps in so little virtual time mean that some task is woken again and again without waiting for anything.
const SPIN_STEPS: u64 = 2_000_000;
const SPIN_VIRTUAL_NS: u64 = 500_000_000;

thread_local! {
    /// Steps since, and virtual time at, the last look.
    static STEPS: Cell<(u64, u64)> = const { Cell::new((0, 0)) };
}

/// Clock, tasks, chance, disk and network of the host whose task asks.
#[derive(Clone, Copy, Debug)]
pub struct SimRuntime;

impl Runtime for SimRuntime {
    type Sleep = SimSleep;
    type Task<T: Send + 'static> = SimTask<T>;
    type Disk = SimDisk;
    type Network = SimNetwork;
    type Prober = SimProber;

    fn now() -> Instant {
        clock::now()
    }

    fn wall_ms() -> u64 {
        clock::wall_ms()
    }

    fn sleep_until(deadline: Instant) -> SimSleep {
        SimSleep::until(deadline)
    }

    fn spawn<F>(future: F) -> SimTask<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        SimTask(madsim::task::spawn(contained(future)))
    }

    fn random_u64() -> u64 {
        chance::draw()
    }
}

/// A task of a simulated host. Dropping the handle detaches the task.
#[derive(Debug)]
pub struct SimTask<T>(pub(crate) JoinHandle<Result<T, TaskFailed>>);

impl<T> SimTask<T> {
    /// Drops the task's future as soon as the executor comes to it.
    pub fn abort(&self) {
        self.0.abort();
    }

    /// Whether the task has ended, by itself or not.
    pub fn is_finished(&self) -> bool {
        self.0.is_finished()
    }
}

impl<T> Future for SimTask<T> {
    type Output = Result<T, TaskFailed>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context).map(|ended| match ended {
            Ok(output) => output,
            Err(_) => Err(TaskFailed("ended with its process".to_owned())),
        })
    }
}

/// Runs `future`, turning a panic into an error. The panic hook has noted it already: the run fails in any case.
pub(crate) async fn contained<F: Future>(future: F) -> Result<F::Output, TaskFailed> {
    let mut future = pin!(future);
    poll_fn(|context| {
        count_step();
        match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
            Ok(poll) => poll.map(Ok),
            Err(payload) => Poll::Ready(Err(TaskFailed(panics::message(payload.as_ref())))),
        }
    })
    .await
}

/// Counts a step of a task.
///
/// # Panics
/// If virtual time has hardly advanced over very many steps: the run would never end.
pub(crate) fn count_step() {
    STEPS.with(|cell| {
        let (steps, since) = cell.get();
        if steps < SPIN_STEPS {
            cell.set((steps + 1, since));
            return;
        }
        let now = clock::virtual_ns();
        cell.set((0, now));
        assert!(
            now.saturating_sub(since) > SPIN_VIRTUAL_NS,
            "some task spins: {SPIN_STEPS} steps in {} ms of virtual time",
            now.saturating_sub(since) / 1_000_000
        );
    });
}

/// Forgets the steps of earlier runs on this thread.
pub(crate) fn reset_steps() {
    STEPS.set((0, 0));
}
