//! What expires unless it is renewed, whatever it is: TTL checks, sessions, delays of locks. Pure: the clock is passed
//! in.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use crate::{limits, runtime::Instant};

/// How a proposal ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Resolution {
    /// It was applied or certainly never will be.
    Settled,
    /// Nobody knows: it may be in the log, and may be applied later.
    Unknown,
}

/// What is due, to be proposed together.
#[derive(Debug)]
pub struct Due<T> {
    /// Names the decision, when it is resolved.
    pub(super) attempt: u64,
    /// What to propose.
    pub items: Vec<T>,
}

/// Things of one kind, by when they expire.
#[derive(Debug)]
pub struct Countdown<K> {
    times: Queue<K, Duration>,
    /// Expiries proposed and not resolved.
    in_flight: BTreeMap<K, Flight>,
    /// Those with an expiry of which nobody knows whether it will be applied.
    doubtful: BTreeSet<K>,
}

/// An expiry that was proposed and is not resolved.
#[derive(Debug)]
struct Flight {
    attempt: u64,
    /// The last renewal since: it counts if nothing comes of the expiry.
    renewed: Option<Instant>,
}

impl<K> Default for Countdown<K> {
    fn default() -> Self {
        Countdown {
            times: Queue::default(),
            in_flight: BTreeMap::new(),
            doubtful: BTreeSet::new(),
        }
    }
}

impl<K: Clone + Ord> Countdown<K> {
    /// Whether its time runs.
    pub(super) fn runs(&self, key: &K) -> bool {
        self.times.get(key).is_some()
    }

    /// Gives it the full time from `now`.
    pub fn start(&mut self, key: K, now: Instant, time: Duration) {
        let time = stretched(time);
        self.times.set(key, now + time, time);
    }

    /// Gives all of them the full time from `now`, where nothing runs yet: cheaper than one by one, most of all if they
    /// are in order.
    pub fn start_all(&mut self, now: Instant, times: Vec<(K, Duration)>) {
        let times = times.into_iter().map(|(key, time)| {
            let time = stretched(time);
            (key, (now + time, time))
        });
        self.times = Queue::laid_down(times.collect());
    }

    /// A renewal was received: moves its time if it runs, and never back.
    pub fn renewed(&mut self, key: &K, now: Instant) {
        if let Some(flight) = self.in_flight.get_mut(key) {
            flight.renewed = flight.renewed.max(Some(now));
        }
        if let Some((at, time)) = self.times.get(key) {
            let (at, time) = (at, *time);
            self.times.set(key.clone(), at.max(now + time), time);
        }
    }

    /// The registry counted a renewal: an expiry that was decided before will be refused.
    pub(super) fn counted(&mut self, key: &K) {
        self.in_flight.remove(key);
        self.doubtful.remove(key);
    }

    /// Whether an expiry of it may be in the log and not yet applied: a renewal of it must be written too.
    pub(super) fn is_contested(&self, key: &K) -> bool {
        self.in_flight.contains_key(key) || self.doubtful.contains(key)
    }

    /// It does not expire any more.
    pub fn forget(&mut self, key: &K) {
        self.times.remove(key);
        self.counted(key);
    }

    /// Those whose time is over, at most `max`, as the registry shows them now; each is in flight until it is resolved.
    /// One that `seen` does not know is forgotten.
    pub fn due<T>(
        &mut self,
        now: Instant,
        max: usize,
        attempt: u64,
        seen: impl Fn(&K) -> Option<T>,
    ) -> Due<T> {
        let mut items = Vec::new();
        while items.len() < max
            && let Some(key) = self.times.due(now)
        {
            match seen(&key) {
                Some(item) => {
                    items.push(item);
                    let renewed = None;
                    self.in_flight.insert(key.clone(), Flight { attempt, renewed });
                    self.times.postpone(&key, IN_FLIGHT);
                }
                None => self.forget(&key),
            }
        }
        Due { attempt, items }
    }

    /// Expiries of one decision were resolved; what is still due is due at once, unless it was renewed meanwhile.
    pub(super) fn resolve<'a>(
        &mut self,
        keys: impl IntoIterator<Item = &'a K>,
        attempt: u64,
        how: Resolution,
        now: Instant,
    ) where
        K: 'a,
    {
        for key in keys {
            let flight = self.in_flight.get(key).filter(|flight| flight.attempt == attempt);
            let Some(&Flight { renewed, .. }) = flight else {
                continue;
            };
            self.in_flight.remove(key);
            if how == Resolution::Unknown {
                self.doubtful.insert(key.clone());
            }
            if let Some((IN_FLIGHT, time)) = self.times.get(key) {
                let at = renewed.map_or(now, |renewed| renewed + *time);
                self.times.postpone(key, at);
            }
        }
    }

    /// When the first one expires.
    pub(super) fn next(&self) -> Option<Instant> {
        self.times.next()
    }
}

/// A TTL on a clock that may run fast by [`limits::CLOCK_DRIFT_PPM_MAX`]: this much on it is at least the TTL in truth.
fn stretched(ttl: Duration) -> Duration {
    let extra = ttl.as_nanos() * u128::from(limits::CLOCK_DRIFT_PPM_MAX) / 1_000_000 + 1;
    ttl + Duration::from_nanos(u64::try_from(extra).unwrap_or(u64::MAX))
}

/// The time of what is proposed already: later than any.
pub(super) const IN_FLIGHT: Instant = Instant(u64::MAX);

/// A clock without the pauses of its process.
#[derive(Debug, Default)]
pub(super) struct Clock {
    seen: Option<Instant>,
    pub(super) paused: Duration,
}

impl Clock {
    pub(super) fn observe(&mut self, now: Instant) -> Instant {
        let seen = self.seen.unwrap_or(now);
        let gap = now.saturating_since(seen);
        if gap > limits::PAUSE_MIN {
            self.paused += gap;
        }
        self.seen = Some(seen.max(now));
        now - self.paused
    }
}

/// Things by time. Keys are long: each is kept once.
#[derive(Debug)]
pub(super) struct Queue<K, V> {
    by_key: BTreeMap<Arc<K>, (Instant, V)>,
    by_time: BTreeSet<(Instant, Arc<K>)>,
}

impl<K, V> Default for Queue<K, V> {
    fn default() -> Self {
        Queue {
            by_key: BTreeMap::new(),
            by_time: BTreeSet::new(),
        }
    }
}

impl<K: Clone + Ord, V> Queue<K, V> {
    fn laid_down(things: Vec<(K, (Instant, V))>) -> Self {
        let by_key = things.into_iter().map(|(key, thing)| (Arc::new(key), thing));
        let by_key: BTreeMap<Arc<K>, (Instant, V)> = by_key.collect();
        let by_time = by_key
            .iter()
            .map(|(key, (at, _))| (*at, Arc::clone(key)))
            .collect();
        Queue { by_key, by_time }
    }

    pub(super) fn len(&self) -> usize {
        self.by_key.len()
    }

    pub(super) fn get(&self, key: &K) -> Option<(Instant, &V)> {
        self.by_key.get(key).map(|(at, value)| (*at, value))
    }

    pub(super) fn set(&mut self, key: K, at: Instant, value: V) {
        let key = match self.take(&key) {
            Some((known, _)) => known,
            None => Arc::new(key),
        };
        self.put(key, at, value);
    }

    pub(super) fn postpone(&mut self, key: &K, at: Instant) {
        if let Some((key, value)) = self.take(key) {
            self.put(key, at, value);
        }
    }

    pub(super) fn remove(&mut self, key: &K) -> Option<V> {
        self.take(key).map(|(_, value)| value)
    }

    fn put(&mut self, key: Arc<K>, at: Instant, value: V) {
        self.by_time.insert((at, Arc::clone(&key)));
        self.by_key.insert(key, (at, value));
    }

    fn take(&mut self, key: &K) -> Option<(Arc<K>, V)> {
        let (key, (at, value)) = self.by_key.remove_entry(key)?;
        let (_, key) = self.by_time.take(&(at, key))?;
        Some((key, value))
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.by_time.first().map(|(at, _)| *at)
    }

    /// The first one, if its time has come. It stays.
    pub(super) fn due(&self, now: Instant) -> Option<K> {
        let (at, key) = self.by_time.first()?;
        (*at <= now).then(|| K::clone(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(10);

    fn due(sessions: &mut Countdown<&str>, now: Instant, attempt: u64) -> Vec<&'static str> {
        sessions.due(now, 10, attempt, |_| Some("it")).items
    }

    #[test]
    fn a_renewal_during_an_expiry_that_came_to_nothing_counts() {
        let begin = Instant(0);
        let late = begin + TTL * 2;
        for renewed in [false, true] {
            for how in [Resolution::Settled, Resolution::Unknown] {
                let mut sessions = Countdown::default();
                sessions.start("a", begin, TTL);
                assert_eq!(due(&mut sessions, late, 1), ["it"]);
                if renewed {
                    sessions.renewed(&"a", late);
                }
                assert!(sessions.is_contested(&"a"));
                sessions.resolve([&"a"], 1, how, late);
                let is_due = !due(&mut sessions, late + TTL, 2).is_empty();
                assert_eq!(is_due, !renewed, "{how:?}");
                assert_eq!(
                    due(&mut sessions, late + TTL * 2, 3).is_empty(),
                    is_due,
                    "{how:?}"
                );
            }
        }
    }

    #[test]
    fn those_started_at_once_run_as_if_one_by_one() {
        let times = [("b", TTL), ("a", TTL * 2), ("c", TTL)];
        let (mut at_once, mut one_by_one) = (Countdown::default(), Countdown::default());
        at_once.start_all(Instant(5), times.to_vec());
        for (key, time) in times {
            one_by_one.start(key, Instant(5), time);
        }
        assert_eq!(format!("{at_once:?}"), format!("{one_by_one:?}"));
    }

    #[test]
    fn another_attempt_resolves_nothing() {
        let mut sessions = Countdown::default();
        sessions.start("a", Instant(0), TTL);
        assert_eq!(due(&mut sessions, Instant(0) + TTL * 2, 2), ["it"]);
        sessions.resolve([&"a"], 1, Resolution::Settled, Instant(0) + TTL * 2);
        assert!(sessions.is_contested(&"a"));
    }
}
