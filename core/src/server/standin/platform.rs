//! A clock that a test moves and an executor that runs tasks in the order in which they became ready.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    future::Future,
    pin::{Pin, pin},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use futures_util::future::{BoxFuture, FutureExt as _};

use crate::{runtime::Instant, server::Platform};

/// See the module's page. Not for production: its clock stands still while anything is ready to run.
#[derive(Default)]
pub struct TestPlatform {
    shared: Arc<Shared>,
    random: AtomicU64,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    now: Instant,
    next: u64,
    /// Tasks that are not being polled.
    tasks: BTreeMap<u64, BoxFuture<'static, ()>>,
    ready: VecDeque<u64>,
    queued: BTreeSet<u64>,
    timers: BTreeMap<(Instant, u64), Waker>,
}

/// The future given to [`TestPlatform::run`].
const MAIN: u64 = 0;

/// A task begun by [`TestPlatform::start`]. Dropping it cancels the task.
pub struct Started<T> {
    output: Arc<Mutex<Option<T>>>,
    task: u64,
    shared: Arc<Shared>,
}

impl TestPlatform {
    /// A new one, an hour into its life.
    pub fn new() -> Arc<Self> {
        let platform = TestPlatform::default();
        platform.shared.state().now = Instant::default() + Duration::from_secs(3600);
        Arc::new(platform)
    }

    /// Runs a future to its end, and everything else beside it. When nothing is ready the clock moves to the next
    /// timer.
    ///
    /// # Panics
    /// Nothing is ready and nothing sleeps: the future would wait for ever.
    pub fn run<F: Future>(&self, future: F) -> F::Output {
        let mut future = pin!(future);
        let waker = self.shared.waker(MAIN);
        self.shared.make_ready(MAIN);
        loop {
            match self.shared.next_ready() {
                Some(MAIN) => {
                    if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
                        return output;
                    }
                }
                Some(task) => self.shared.poll(task),
                None => assert!(
                    self.shared.fire_next_timers(None),
                    "nothing is ready and nothing sleeps: the future waits for ever"
                ),
            }
        }
    }

    /// Begins a task, and runs everything that is ready.
    pub fn start<T: Send + 'static>(&self, future: impl Future<Output = T> + Send + 'static) -> Started<T> {
        let output = Arc::new(Mutex::new(None));
        let slot = output.clone();
        let task = self.shared.spawn(
            async move {
                let output = future.await;
                *slot.lock().expect("no holder of this lock panics") = Some(output);
            }
            .boxed(),
        );
        self.settle();
        Started {
            output,
            task,
            shared: self.shared.clone(),
        }
    }

    /// Runs everything that is ready; the clock stands still.
    pub fn settle(&self) {
        while let Some(task) = self.shared.next_ready() {
            self.shared.poll(task);
        }
    }

    /// Lets time pass, timer by timer.
    pub fn advance(&self, duration: Duration) {
        let until = self.now() + duration;
        self.settle();
        while self.shared.fire_next_timers(Some(until)) {
            self.settle();
        }
        self.shared.state().now = until;
    }

    /// Lets time pass while nothing runs, as when the process is paused; then everything that is due runs at once.
    pub fn pause(&self, duration: Duration) {
        let until = self.now() + duration;
        self.shared.state().now = until;
        self.advance(Duration::ZERO);
    }
}

impl Platform for TestPlatform {
    fn now(&self) -> Instant {
        self.shared.state().now
    }

    fn sleep_until(&self, deadline: Instant) -> BoxFuture<'static, ()> {
        Sleep {
            shared: self.shared.clone(),
            deadline,
            timer: None,
        }
        .boxed()
    }

    fn spawn(&self, future: BoxFuture<'static, ()>) {
        self.shared.spawn(future);
    }

    fn random_u64(&self) -> u64 {
        // A sequence, always the same: a multiplicative generator's.
        let last = self.random.load(Ordering::Relaxed);
        let next = last.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        self.random.store(next, Ordering::Relaxed);
        next
    }
}

impl<T> Started<T> {
    /// Its output, once, when it has ended.
    pub fn take(&self) -> Option<T> {
        self.output.lock().expect("no holder of this lock panics").take()
    }
}

impl<T> Drop for Started<T> {
    fn drop(&mut self) {
        let task = self.shared.state().tasks.remove(&self.task);
        // Dropped without the lock: what it holds may wake others.
        drop(task);
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock panics")
    }

    fn spawn(&self, future: BoxFuture<'static, ()>) -> u64 {
        let task = {
            let mut state = self.state();
            state.next += 1;
            let task = state.next;
            state.tasks.insert(task, future);
            task
        };
        self.make_ready(task);
        task
    }

    fn make_ready(&self, task: u64) {
        let mut state = self.state();
        if state.queued.insert(task) {
            state.ready.push_back(task);
        }
    }

    fn next_ready(&self) -> Option<u64> {
        let mut state = self.state();
        let task = state.ready.pop_front()?;
        state.queued.remove(&task);
        Some(task)
    }

    fn poll(self: &Arc<Self>, task: u64) {
        let Some(mut future) = self.state().tasks.remove(&task) else {
            return;
        };
        let waker = self.waker(task);
        if future.poll_unpin(&mut Context::from_waker(&waker)).is_pending() {
            self.state().tasks.insert(task, future);
        }
    }

    /// Moves the clock to the next timers, if there are any up to `until`, and wakes all of that moment.
    fn fire_next_timers(&self, until: Option<Instant>) -> bool {
        let mut wakers = Vec::new();
        {
            let mut state = self.state();
            let next = state.timers.first_key_value().map(|((at, _), _)| *at);
            let Some(at) = next.filter(|at| until.is_none_or(|until| *at <= until)) else {
                return false;
            };
            state.now = state.now.max(at);
            while let Some(timer) = state.timers.first_entry()
                && timer.key().0 == at
            {
                wakers.push(timer.remove());
            }
        }
        wakers.into_iter().for_each(Waker::wake);
        true
    }

    fn waker(self: &Arc<Self>, task: u64) -> Waker {
        Waker::from(Arc::new(TaskWaker {
            task,
            shared: Arc::downgrade(self),
        }))
    }
}

struct TaskWaker {
    task: u64,
    shared: std::sync::Weak<Shared>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        if let Some(shared) = self.shared.upgrade() {
            shared.make_ready(self.task);
        }
    }
}

struct Sleep {
    shared: Arc<Shared>,
    deadline: Instant,
    timer: Option<(Instant, u64)>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        let mut state = this.shared.state.lock().expect("no holder of this lock panics");
        if state.now >= this.deadline {
            return Poll::Ready(());
        }
        let timer = *this.timer.get_or_insert_with(|| {
            state.next += 1;
            (this.deadline, state.next)
        });
        state.timers.insert(timer, context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(timer) = self.timer {
            self.shared.state().timers.remove(&timer);
        }
    }
}
