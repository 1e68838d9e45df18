//! Every host's own clocks, on the one virtual clock of the simulation.
//!
//! The monotonic clock of a host runs `1 + drift` times as fast as virtual time. When the drift changes, the clock is
//! re-based, so that it stays continuous and never goes back. The wall clock is the monotonic clock and an offset that
//! may jump. A task that belongs to no host (the body of the run) has a clock that is virtual time itself.

use std::{
    cell::RefCell,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use madsim::{task::NodeId, time::TimeHandle};
use sider_core::runtime::Instant;

use crate::world::HostId;

const MILLION: i64 = 1_000_000;
/// A list of sleepers is searched for dead ones when it has grown to this, and then again at twice what was left.
const SLEEPERS_SWEPT_AT: usize = 64;
/// Wall time of virtual time zero: the first second of 2025.
const WALL_MS_ORIGIN: i64 = 1_735_689_600_000;

thread_local! {
    static HOSTS: RefCell<Vec<HostTime>> = const { RefCell::new(Vec::new()) };
    /// The virtual clock of the run on this thread: it is read so often that finding it each time would show.
    static TIME: RefCell<Option<TimeHandle>> = const { RefCell::new(None) };
}

struct HostTime {
    node: NodeId,
    clock: HostClock,
    /// What sleeps by this clock, to be woken when its drift changes.
    sleepers: Vec<Weak<Alarm>>,
    sweep_at: usize,
}

/// `local = local_base + (virtual - virtual_base) * (1 + drift)`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct HostClock {
    virtual_base_ns: u64,
    local_base_ns: u64,
    drift_ppm: i64,
    wall_offset_ms: i64,
}

impl HostClock {
    fn local_ns(&self, virtual_ns: u64) -> u64 {
        let elapsed = i128::from(virtual_ns) - i128::from(self.virtual_base_ns);
        let local_ns = scaled(elapsed, MILLION + self.drift_ppm, MILLION);
        clamp(i128::from(self.local_base_ns) + local_ns)
    }

    /// The first virtual time at which the local clock shows `local_ns` or more.
    fn virtual_ns(&self, local_ns: u64) -> u64 {
        let rate = MILLION + self.drift_ppm;
        let ahead = (i128::from(local_ns) - i128::from(self.local_base_ns)).max(0);
        let floor = scaled(ahead, MILLION, rate);
        // The division may have cut off a part of a nanosecond, in which the clock does not show it yet.
        let cut_off = i128::from(floor * i128::from(rate) < ahead * i128::from(MILLION));
        clamp(i128::from(self.virtual_base_ns) + floor + cut_off)
    }

    fn rebase(&mut self, virtual_ns: u64, drift_ppm: i64) {
        self.local_base_ns = self.local_ns(virtual_ns);
        self.virtual_base_ns = virtual_ns;
        self.drift_ppm = drift_ppm;
    }
}

/// `ns * rate / of`, towards zero. Nearly always it fits into 64 bits, where a division costs a tenth.
fn scaled(ns: i128, rate: i64, of: i64) -> i128 {
    if rate == of {
        return ns;
    }
    match i64::try_from(ns).ok().and_then(|ns| ns.checked_mul(rate)) {
        Some(product) => i128::from(product / of),
        None => ns * i128::from(rate) / i128::from(of),
    }
}

fn clamp(ns: i128) -> u64 {
    u64::try_from(ns.max(0)).unwrap_or(u64::MAX)
}

/// Forgets all hosts: the start of a run.
pub(crate) fn reset() {
    HOSTS.with_borrow_mut(Vec::clear);
}

/// Adds the clock of the next host, which must have the id that follows the last one's.
pub(crate) fn add_host(node: NodeId, local_base_ns: u64, wall_offset_ms: i64) {
    let clock = HostClock {
        virtual_base_ns: virtual_ns(),
        local_base_ns,
        drift_ppm: 0,
        wall_offset_ms,
    };
    HOSTS.with_borrow_mut(|hosts| {
        hosts.push(HostTime {
            node,
            clock,
            sleepers: Vec::new(),
            sweep_at: SLEEPERS_SWEPT_AT,
        });
    });
}

/// The host whose task runs now; `None` in the body of the run.
pub(crate) fn current_host() -> Option<HostId> {
    let node = madsim::plugin::node();
    HOSTS
        .with_borrow(|hosts| hosts.iter().position(|host| host.node == node))
        .map(HostId::from_index)
}

/// While it is there, the clock of the run on this thread is at hand.
pub(crate) struct AtHand(());

impl AtHand {
    /// To be called within a run.
    pub(crate) fn begin() -> AtHand {
        TIME.set(Some(TimeHandle::current()));
        AtHand(())
    }
}

impl Drop for AtHand {
    fn drop(&mut self) {
        // What hangs on the last handle must end with the executor, and not with the thread.
        TIME.set(None);
    }
}

/// Virtual time since the start of the run, in nanoseconds.
pub(crate) fn virtual_ns() -> u64 {
    try_virtual_ns().expect("a run's clock is read within the run")
}

/// As [`virtual_ns`], or `None` outside of a run.
pub(crate) fn try_virtual_ns() -> Option<u64> {
    let elapsed = TIME.with_borrow(|time| time.as_ref().map(TimeHandle::elapsed));
    let elapsed = match elapsed {
        Some(elapsed) => elapsed,
        None => TimeHandle::try_current()?.elapsed(),
    };
    Some(elapsed.as_secs() * 1_000_000_000 + u64::from(elapsed.subsec_nanos()))
}

/// The monotonic clock of the running task's host.
pub(crate) fn now() -> Instant {
    Instant(current_clock().local_ns(virtual_ns()))
}

/// The wall clock of the running task's host, in milliseconds since the Unix epoch.
pub(crate) fn wall_ms() -> u64 {
    let clock = current_clock();
    let local_ms = i64::try_from(clock.local_ns(virtual_ns()) / 1_000_000).unwrap_or(i64::MAX);
    u64::try_from(
        WALL_MS_ORIGIN
            .saturating_add(local_ms)
            .saturating_add(clock.wall_offset_ms),
    )
    .unwrap_or(0)
}

/// Makes a host's clock run `ppm` millionths too fast from now on (too slow, if negative).
///
/// # Panics
/// If the clock would stand still or run backwards.
pub(crate) fn set_drift_ppm(host: HostId, ppm: i64) {
    assert!(
        ppm > -1_000_000,
        "a clock with a drift of {ppm} ppm does not advance"
    );
    let now = virtual_ns();
    let sleepers = HOSTS.with_borrow_mut(|hosts| {
        let host = &mut hosts[host.index()];
        host.clock.rebase(now, ppm);
        std::mem::take(&mut host.sleepers)
    });
    // Their alarms were set for the old rate: each one wakes, looks at the clock, and sets itself again.
    for alarm in sleepers.iter().filter_map(Weak::upgrade) {
        alarm.wake();
    }
}

/// Makes a host's wall clock jump by `ms`.
pub(crate) fn jump_wall_ms(host: HostId, ms: i64) {
    HOSTS.with_borrow_mut(|hosts| {
        let clock = &mut hosts[host.index()].clock;
        clock.wall_offset_ms = clock.wall_offset_ms.saturating_add(ms);
    });
}

fn current_clock() -> HostClock {
    let node = madsim::plugin::node();
    HOSTS.with_borrow(|hosts| {
        let host = hosts.iter().find(|host| host.node == node);
        host.map(|host| host.clock).unwrap_or_default()
    })
}

fn clock_of(host: HostId) -> HostClock {
    HOSTS.with_borrow(|hosts| hosts[host.index()].clock)
}

/// Ends when the local clock of the host that made it passes its deadline, whatever the drift does meanwhile.
#[derive(Debug)]
#[must_use = "a sleep does nothing unless it is awaited"]
pub struct SimSleep {
    /// `None`: virtual time itself.
    host: Option<HostId>,
    deadline: Instant,
    /// The alarm that is set, with the virtual time it rings at.
    alarm: Option<(u64, Arc<Alarm>)>,
}

impl SimSleep {
    /// Sleeps by the clock of the running task's host.
    pub(crate) fn until(deadline: Instant) -> Self {
        SimSleep {
            host: current_host(),
            deadline,
            alarm: None,
        }
    }

    /// Sleeps by virtual time.
    pub(crate) fn virtual_for(duration: Duration) -> Self {
        SimSleep {
            host: None,
            deadline: Instant(virtual_ns()) + duration,
            alarm: None,
        }
    }
}

impl Future for SimSleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        crate::runtime::count_step();
        let now = virtual_ns();
        let clock = self.host.map_or_else(HostClock::default, clock_of);
        if clock.local_ns(now) >= self.deadline.0 {
            return Poll::Ready(());
        }
        let due = clock.virtual_ns(self.deadline.0).max(now + 1);
        if let Some((set_for, alarm)) = &self.alarm
            && *set_for == due
            && alarm.rearm(context.waker())
        {
            return Poll::Pending;
        }
        let alarm = Alarm::set(due, context.waker().clone());
        if let Some(host) = self.host {
            remember_sleeper(host, &alarm);
        }
        self.alarm = Some((due, alarm));
        Poll::Pending
    }
}

impl Drop for SimSleep {
    fn drop(&mut self) {
        if let Some((_, alarm)) = &self.alarm {
            alarm.lock().waker = None;
        }
    }
}

fn remember_sleeper(host: HostId, alarm: &Arc<Alarm>) {
    HOSTS.with_borrow_mut(|hosts| {
        let host = &mut hosts[host.index()];
        host.sleepers.push(Arc::downgrade(alarm));
        if host.sleepers.len() >= host.sweep_at {
            host.sleepers.retain(is_awaited);
            host.sweep_at = (2 * host.sleepers.len()).max(SLEEPERS_SWEPT_AT);
        }
    });
}

/// How many tasks of a host sleep.
pub(crate) fn sleepers(host: HostId) -> usize {
    HOSTS.with_borrow(|hosts| {
        let sleepers = hosts[host.index()].sleepers.iter();
        sleepers.filter(|sleeper| is_awaited(sleeper)).count()
    })
}

/// Whether somebody waits for an alarm that has not rung: otherwise at most one of the two that hold it is left.
fn is_awaited(sleeper: &Weak<Alarm>) -> bool {
    sleeper.strong_count() > 1
}

/// A timer that wakes one task once. madsim's own `Sleep` adds another timer at each poll, can't forget one, and takes
/// at least a millisecond; so it is polled once, through this.
#[derive(Debug)]
struct Alarm(Mutex<AlarmState>);

#[derive(Debug)]
struct AlarmState {
    waker: Option<Waker>,
    rung: bool,
}

impl Alarm {
    fn set(due_virtual_ns: u64, waker: Waker) -> Arc<Alarm> {
        let alarm = Arc::new(Alarm(Mutex::new(AlarmState {
            waker: Some(waker),
            rung: false,
        })));
        wake_at(due_virtual_ns, &Waker::from(alarm.clone()));
        alarm
    }

    /// Puts another waker in place; false if the alarm has rung.
    fn rearm(&self, waker: &Waker) -> bool {
        let mut state = self.lock();
        if !state.rung && !state.waker.as_ref().is_some_and(|old| old.will_wake(waker)) {
            state.waker = Some(waker.clone());
        }
        !state.rung
    }

    fn lock(&self) -> MutexGuard<'_, AlarmState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        let waker = {
            let mut state = self.lock();
            state.rung = true;
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// Wakes `waker` at a point of virtual time. Can't be taken back.
pub(crate) fn wake_at(due_virtual_ns: u64, waker: &Waker) {
    let known = TIME.with_borrow(|time| time.as_ref().map(|time| set_timer(time, due_virtual_ns, waker)));
    if known.unwrap_or_else(|| set_timer(&TimeHandle::current(), due_virtual_ns, waker)) {
        waker.wake_by_ref();
    }
}

/// Says whether it is time already: then no timer is set.
fn set_timer(time: &TimeHandle, due_virtual_ns: u64, waker: &Waker) -> bool {
    let wait = Duration::from_nanos(due_virtual_ns).saturating_sub(time.elapsed());
    let mut sleep = time.sleep(Duration::ZERO);
    // A new `Sleep` is at least a millisecond long; `reset` has no such bound.
    Pin::new(&mut sleep).reset(time.now_instant() + wait);
    Pin::new(&mut sleep)
        .poll(&mut Context::from_waker(waker))
        .is_ready()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_stays_continuous_when_its_drift_changes() {
        let mut clock = HostClock {
            local_base_ns: 5_000,
            ..HostClock::default()
        };
        clock.rebase(1_000_000, 50_000);
        assert_eq!(clock.local_ns(1_000_000), 1_005_000);
        assert_eq!(clock.local_ns(2_000_000), 2_055_000, "5 % too fast");
        clock.rebase(2_000_000, -50_000);
        assert_eq!(clock.local_ns(2_000_000), 2_055_000);
        assert_eq!(clock.local_ns(3_000_000), 3_005_000, "5 % too slow");
    }

    #[test]
    fn the_virtual_time_of_a_local_time_is_the_first_that_shows_it() {
        for drift_ppm in [-900_000, -50_000, -7, 0, 3, 50_000, 900_000] {
            let mut clock = HostClock::default();
            clock.rebase(123_457, drift_ppm);
            for local in [clock.local_ns(123_457), 999_983, 1_000_003, 77_777_777] {
                let due = clock.virtual_ns(local);
                assert!(clock.local_ns(due) >= local, "{drift_ppm} {local}");
                assert!(
                    due == clock.virtual_base_ns || clock.local_ns(due - 1) < local,
                    "{drift_ppm} {local}"
                );
            }
        }
    }
}
