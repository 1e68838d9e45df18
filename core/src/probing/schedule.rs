//! When things are due, without a clock.

use std::{collections::BTreeMap, collections::BTreeSet, time::Duration};

use crate::{limits::FIRST_RUN_SPREAD_MAX, runtime::Instant};

/// A set of keys, each with the moment at which it is due. Everything is O(log n), removal too, so that a check that is
/// registered and removed a thousand times leaves nothing behind.
#[derive(Clone, Debug)]
pub(crate) struct Schedule<K> {
    queue: BTreeSet<(Instant, K)>,
    due: BTreeMap<K, Instant>,
}

impl<K> Default for Schedule<K> {
    fn default() -> Self {
        Schedule {
            queue: BTreeSet::new(),
            due: BTreeMap::new(),
        }
    }
}

impl<K: Ord + Clone> Schedule<K> {
    /// Makes `key` due at `at`, whatever it was before.
    pub(crate) fn set(&mut self, key: K, at: Instant) {
        if let Some(before) = self.due.insert(key.clone(), at) {
            self.queue.remove(&(before, key.clone()));
        }
        self.queue.insert((at, key));
    }

    /// Makes `key` due at `at` at the latest, if it is due at all; whether it is.
    pub(crate) fn bring_forward(&mut self, key: &K, at: Instant) -> bool {
        let Some(before) = self.due.get(key) else {
            return false;
        };
        if *before > at {
            self.set(key.clone(), at);
        }
        true
    }

    /// Forgets `key`.
    pub(crate) fn remove(&mut self, key: &K) {
        if let Some(at) = self.due.remove(key) {
            self.queue.remove(&(at, key.clone()));
        }
    }

    /// Takes out the key that is due for longest, if any is due at `now`. Equal moments go by key.
    pub(crate) fn pop(&mut self, now: Instant) -> Option<K> {
        let (at, key) = self.queue.first()?;
        if *at > now {
            return None;
        }
        let key = key.clone();
        self.remove(&key);
        Some(key)
    }

    /// The moment at which the next key is due.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.queue.first().map(|(at, _)| *at)
    }
}

/// How long the first run of a check waits: anything up to its interval, but no longer than
/// [`FIRST_RUN_SPREAD_MAX`], so that the checks of one file do not all run at one moment.
pub(crate) fn first_run_delay(interval: Duration, random: u64) -> Duration {
    part(interval.min(FIRST_RUN_SPREAD_MAX), random)
}

/// A share of `whole` chosen by `random`, from nothing to all but the last of it.
fn part(whole: Duration, random: u64) -> Duration {
    let nanos = u64::try_from(whole.as_nanos()).unwrap_or(u64::MAX);
    Duration::from_nanos(random.checked_rem(nanos).unwrap_or(0))
}

/// `duration` give or take an eighth, so that what many hosts do regularly spreads over time.
pub(crate) fn spread(duration: Duration, random: u64) -> Duration {
    duration - duration / 8 + part(duration / 4, random)
}

/// Growing waits between attempts that fail: doubled each time, the upper half of each left to chance.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    min: Duration,
    max: Duration,
    failures: u32,
}

impl Backoff {
    /// Waits from about `min` to `max`.
    pub(crate) fn new(min: Duration, max: Duration) -> Self {
        Backoff {
            min,
            max,
            failures: 0,
        }
    }

    /// Counts a failure and gives the time to wait before the next attempt.
    pub(crate) fn failed(&mut self, random: u64) -> Duration {
        let whole = self
            .min
            .saturating_mul(1u32 << self.failures.min(20))
            .min(self.max);
        self.failures = self.failures.saturating_add(1);
        whole / 2 + part(whole / 2, random)
    }

    /// Forgets the failures.
    pub(crate) fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// Failures in a row.
    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant(seconds * 1_000_000_000)
    }

    #[test]
    fn keys_come_out_when_they_are_due_and_only_then() {
        let mut schedule = Schedule::default();
        schedule.set("b", at(2));
        schedule.set("a", at(2));
        schedule.set("c", at(5));
        schedule.set("d", at(1));
        schedule.set("d", at(9));
        schedule.remove(&"c");
        assert_eq!(schedule.next(), Some(at(2)));
        assert_eq!(schedule.pop(at(1)), None);
        assert_eq!(schedule.pop(at(3)), Some("a"));
        assert_eq!(schedule.pop(at(3)), Some("b"));
        assert_eq!(schedule.pop(at(3)), None);
        assert_eq!(schedule.pop(at(9)), Some("d"));
        assert_eq!(schedule.next(), None);
        assert!(schedule.queue.is_empty() && schedule.due.is_empty());
    }

    #[test]
    fn first_runs_are_staggered_within_the_interval_and_a_bound() {
        let short = Duration::from_secs(1);
        let mut delays: Vec<Duration> = (0..1000)
            .map(|n: u64| first_run_delay(short, n.wrapping_mul(0x9E37_79B9_7F4A_7C15)))
            .collect();
        assert!(delays.iter().all(|delay| *delay < short));
        delays.sort();
        assert!(
            delays[100] < short / 5 && delays[900] > short * 4 / 5,
            "not spread out"
        );
        assert!(first_run_delay(Duration::from_secs(3600), u64::MAX) < FIRST_RUN_SPREAD_MAX);
        assert_eq!(first_run_delay(Duration::ZERO, 7), Duration::ZERO);
    }

    #[test]
    fn backoff_grows_to_its_bound_and_starts_again_after_success() {
        let (min, max) = (Duration::from_millis(100), Duration::from_secs(2));
        let mut backoff = Backoff::new(min, max);
        for expected in [100, 200, 400, 800, 1600, 2000, 2000] {
            let whole = Duration::from_millis(expected);
            let wait = backoff.failed(u64::MAX);
            assert!(wait >= whole / 2 && wait < whole, "{wait:?} for {whole:?}");
        }
        for _ in 0..100 {
            assert!(backoff.failed(u64::MAX) < max);
        }
        backoff.succeeded();
        assert!(backoff.failed(0) == min / 2);
    }

    #[test]
    fn spread_stays_within_an_eighth() {
        let whole = Duration::from_secs(80);
        for random in [0, 1, 1 << 40, u64::MAX] {
            let spread = spread(whole, random);
            assert!(spread >= Duration::from_secs(70) && spread < Duration::from_secs(90));
        }
    }
}
