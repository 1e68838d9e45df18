//! What a leader keeps in memory about time: when a check expires, when an instance that stays critical is
//! deregistered, and which outputs are held back. Pure: the clock is passed in.
//!
//! The table belongs to one term of this server's leadership. It is filled when the term begins, with a full TTL for
//! every check, and dropped with it. Its clock leaves out pauses of the process: see [`Deadlines::observe`].

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::{
    limits,
    registry::{Check, CheckKey, CheckStatus, Event, Expiry, Registry},
    runtime::Instant,
};

/// The times of a leader. See the module's page.
#[derive(Debug, Default)]
pub(super) struct Deadlines {
    /// The term that this server leads in, as far as the table knows.
    term: Option<u64>,
    clock: Clock,
    /// TTL checks that are not critical, by when they turn so.
    expiries: Queue<Duration>,
    /// Expiries proposed and not resolved, with their attempt.
    in_flight: BTreeMap<CheckKey, u64>,
    /// Checks with an expiry of which nobody knows whether it will be applied.
    doubtful: BTreeSet<CheckKey>,
    /// Critical checks that take their instance away, by when they do.
    reaps: Queue<Duration>,
    /// Reaps proposed and not resolved, with their attempt.
    reaping: BTreeMap<CheckKey, u64>,
    /// Outputs held back, by when they are written.
    held: Queue<String>,
    /// Outputs proposed and not resolved.
    flushing: BTreeMap<CheckKey, String>,
    attempts: u64,
}

/// What happened to a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum News {
    Registered,
    Renewed,
    Other,
}

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
pub(super) struct Due<T> {
    /// Names the decision, when it is resolved.
    pub(super) attempt: u64,
    /// What to propose.
    pub(super) items: Vec<T>,
}

impl Deadlines {
    /// The term that this table was filled for.
    pub(super) fn term(&self) -> Option<u64> {
        self.term
    }

    /// Makes this the table of `term`: every check gets its full time. O(all checks), once for each term.
    pub(super) fn lead(&mut self, term: u64, registry: &Registry, now: Instant) {
        if self.term.is_some_and(|known| known >= term) {
            return;
        }
        *self = Deadlines {
            term: Some(term),
            // A number never names two decisions, not even across terms.
            attempts: self.attempts,
            ..Deadlines::default()
        };
        let now = self.observe(now);
        for check in registry.checks() {
            self.watch(check.key(), check, now, News::Registered);
        }
    }

    /// Drops the table: another server may be counting now.
    pub(super) fn follow(&mut self) {
        if self.term.is_some() {
            *self = Deadlines {
                attempts: self.attempts,
                ..Deadlines::default()
            };
        }
    }

    /// Takes note of the time and gives it back without the pauses of this process. A leader looks here every
    /// [`limits::EXPIRY_TICK`]; when nobody looked for [`limits::PAUSE_MIN`], the process stood still: renewals that
    /// were sent meanwhile still wait to be received, so the whole gap is added to every deadline. O(1).
    pub(super) fn observe(&mut self, now: Instant) -> Instant {
        self.clock.observe(now)
    }

    /// A report about a check was received.
    pub(super) fn renewed(&mut self, check: &CheckKey, now: Instant) {
        let now = self.observe(now);
        if let Some((at, ttl)) = self.expiries.get(check) {
            let (at, ttl) = (at, *ttl);
            self.expiries.set(check.clone(), at.max(now + ttl), ttl);
        }
    }

    /// Whether an expiry of this check may be in the log and not yet applied: a renewal of it must be written too.
    pub(super) fn is_contested(&self, check: &CheckKey) -> bool {
        self.in_flight.contains_key(check) || self.doubtful.contains(check)
    }

    /// Follows what happened to the registry, which is locked.
    pub(super) fn applied(&mut self, registry: &Registry, events: &[Event], now: Instant) {
        if self.term.is_none() {
            return;
        }
        let now = self.observe(now);
        for event in events {
            let (key, news) = match event {
                Event::CheckRegistered(key) => (key, News::Registered),
                Event::CheckRenewed(key) => (key, News::Renewed),
                Event::CheckStatusChanged { check, .. } => (check, News::Other),
                Event::CheckExpired(key) | Event::CheckDeregistered(key) => (key, News::Other),
                _ => continue,
            };
            // What was held back is older than this.
            self.held.remove(key);
            if news != News::Other {
                // The registry counted it as a renewal: an expiry that was decided before will be refused.
                self.in_flight.remove(key);
                self.doubtful.remove(key);
            }
            match registry.check(key) {
                Some(check) => self.watch(key.clone(), check, now, news),
                None => self.forget(key),
            }
        }
    }

    /// Sets the times of a check as it is now.
    fn watch(&mut self, key: CheckKey, check: &Check, now: Instant, news: News) {
        match check.definition.ttl() {
            Some(ttl) if check.status != CheckStatus::Critical => {
                if news != News::Other || self.expiries.get(&key).is_none() {
                    let ttl = stretched(ttl);
                    self.expiries.set(key.clone(), now + ttl, ttl);
                }
            }
            _ => {
                self.expiries.remove(&key);
                self.in_flight.remove(&key);
                self.doubtful.remove(&key);
            }
        }
        let after = check.definition.deregister_critical_service_after;
        let reaped = check.status == CheckStatus::Critical && !after.is_zero() && check.instance.is_some();
        match self.reaps.get(&key) {
            // Still critical: the time goes on, however often that is reported. A registration starts it anew.
            Some((_, known)) if reaped && *known == after && news != News::Registered => {}
            _ if reaped => self.reaps.set(key, now + after, after),
            _ => {
                self.reaps.remove(&key);
                self.reaping.remove(&key);
            }
        }
    }

    fn forget(&mut self, key: &CheckKey) {
        self.expiries.remove(key);
        self.in_flight.remove(key);
        self.doubtful.remove(key);
        self.reaps.remove(key);
        self.reaping.remove(key);
    }

    /// Checks whose time is over, at most `max`; each is in flight until it is resolved.
    pub(super) fn due_expiries(&mut self, registry: &Registry, now: Instant, max: usize) -> Due<Expiry> {
        let now = self.observe(now);
        self.attempts += 1;
        let attempt = self.attempts;
        let mut items = Vec::new();
        while items.len() < max
            && let Some(key) = self.expiries.due(now)
        {
            match registry.check(&key) {
                Some(check) if check.status != CheckStatus::Critical => {
                    items.push(seen(check));
                    self.in_flight.insert(key.clone(), attempt);
                    self.expiries.postpone(&key, IN_FLIGHT);
                }
                _ => self.forget(&key),
            }
        }
        Due { attempt, items }
    }

    /// Expiries of one decision were resolved; what is still due is due at once.
    pub(super) fn resolve_expiries(&mut self, due: &Due<Expiry>, how: Resolution, now: Instant) {
        let now = self.observe(now);
        for Expiry { check: key, .. } in &due.items {
            if self.in_flight.get(key) != Some(&due.attempt) {
                continue;
            }
            self.in_flight.remove(key);
            if how == Resolution::Unknown {
                self.doubtful.insert(key.clone());
            }
            if self.expiries.get(key).is_some_and(|(at, _)| at == IN_FLIGHT) {
                self.expiries.postpone(key, now);
            }
        }
    }

    /// Critical checks whose instances' time is over, at most `max`; each is in flight until it is resolved.
    pub(super) fn due_reaps(&mut self, registry: &Registry, now: Instant, max: usize) -> Due<Expiry> {
        let now = self.observe(now);
        self.attempts += 1;
        let attempt = self.attempts;
        let mut items = Vec::new();
        while items.len() < max
            && let Some(key) = self.reaps.due(now)
        {
            match registry.check(&key) {
                Some(check) if check.status == CheckStatus::Critical => {
                    items.push(seen(check));
                    self.reaping.insert(key.clone(), attempt);
                    self.reaps.postpone(&key, IN_FLIGHT);
                }
                _ => self.forget(&key),
            }
        }
        Due { attempt, items }
    }

    /// As [`Deadlines::resolve_expiries`].
    pub(super) fn resolve_reaps(&mut self, due: &Due<Expiry>, now: Instant) {
        let now = self.observe(now);
        for Expiry { check: key, .. } in &due.items {
            if self.reaping.get(key) != Some(&due.attempt) {
                continue;
            }
            self.reaping.remove(key);
            if let Some((_, after)) = self.reaps.get(key) {
                // It was refused because the check changed meanwhile: if it is critical, it is so anew.
                let after = *after;
                self.reaps.set(key.clone(), now + after, after);
            }
        }
    }

    /// Holds back an output that differs from `current`, the one in the state. False when too many are held.
    pub(super) fn hold_output(&mut self, key: &CheckKey, current: &str, output: &str, now: Instant) -> bool {
        let now = self.observe(now);
        let written = self.flushing.get(key).map_or(current, String::as_str);
        if written == output {
            self.held.remove(key);
        } else if let Some((at, _)) = self.held.get(key) {
            self.held.set(key.clone(), at, output.to_owned());
        } else if self.held.len() >= limits::HELD_OUTPUTS_MAX {
            return false;
        } else {
            self.held
                .set(key.clone(), now + limits::OUTPUT_HOLD, output.to_owned());
        }
        true
    }

    /// Takes back what is held for a check: a write about it carries it, or a newer output.
    pub(super) fn take_output(&mut self, key: &CheckKey) -> Option<String> {
        self.held.remove(key)
    }

    /// Outputs that were held back for long enough, at most `max`.
    pub(super) fn due_outputs(&mut self, now: Instant, max: usize) -> Vec<(CheckKey, String)> {
        let now = self.observe(now);
        let mut due = Vec::new();
        while due.len() < max
            && let Some(key) = self.held.due(now)
        {
            if let Some(output) = self.held.remove(&key) {
                self.flushing.insert(key.clone(), output.clone());
                due.push((key, output));
            }
        }
        due
    }

    /// Outputs were written, or were not and are dropped: the next renewal brings them again.
    pub(super) fn resolve_outputs<'a>(&mut self, outputs: impl IntoIterator<Item = &'a (CheckKey, String)>) {
        for (key, output) in outputs {
            if self.flushing.get(key) == Some(output) {
                self.flushing.remove(key);
            }
        }
    }

    /// How many outputs are held back, and how many are being written.
    pub(super) fn outputs(&self) -> (usize, usize) {
        (self.held.len(), self.flushing.len())
    }

    /// When something is due next, on the clock of `now`.
    pub(super) fn next(&self) -> Option<Instant> {
        let next = [self.expiries.next(), self.reaps.next(), self.held.next()];
        let next = next.into_iter().flatten().min()?;
        (next != IN_FLIGHT).then(|| next + self.clock.paused)
    }
}

/// A check as the leader saw it when it decided.
fn seen(check: &Check) -> Expiry {
    Expiry {
        check: check.key(),
        renewals_seen: check.renewals,
        create_index_seen: check.create_index,
    }
}

/// A TTL on a clock that may run fast by [`limits::CLOCK_DRIFT_PPM_MAX`]: this much on it is at least the TTL in truth.
fn stretched(ttl: Duration) -> Duration {
    let extra = ttl.as_nanos() * u128::from(limits::CLOCK_DRIFT_PPM_MAX) / 1_000_000 + 1;
    ttl + Duration::from_nanos(u64::try_from(extra).unwrap_or(u64::MAX))
}

/// The time of what is proposed already: later than any.
const IN_FLIGHT: Instant = Instant(u64::MAX);

/// A clock without the pauses of its process.
#[derive(Debug, Default)]
struct Clock {
    seen: Option<Instant>,
    paused: Duration,
}

impl Clock {
    fn observe(&mut self, now: Instant) -> Instant {
        let seen = self.seen.unwrap_or(now);
        let gap = now.saturating_since(seen);
        if gap > limits::PAUSE_MIN {
            self.paused += gap;
        }
        self.seen = Some(seen.max(now));
        now - self.paused
    }
}

/// Checks by time.
#[derive(Debug)]
struct Queue<V> {
    by_key: BTreeMap<CheckKey, (Instant, V)>,
    by_time: BTreeSet<(Instant, CheckKey)>,
}

impl<V> Default for Queue<V> {
    fn default() -> Self {
        Queue {
            by_key: BTreeMap::new(),
            by_time: BTreeSet::new(),
        }
    }
}

impl<V> Queue<V> {
    fn len(&self) -> usize {
        self.by_key.len()
    }

    fn get(&self, key: &CheckKey) -> Option<(Instant, &V)> {
        self.by_key.get(key).map(|(at, value)| (*at, value))
    }

    fn set(&mut self, key: CheckKey, at: Instant, value: V) {
        self.remove(&key);
        self.by_time.insert((at, key.clone()));
        self.by_key.insert(key, (at, value));
    }

    fn postpone(&mut self, key: &CheckKey, at: Instant) {
        if let Some(value) = self.remove(key) {
            self.set(key.clone(), at, value);
        }
    }

    fn remove(&mut self, key: &CheckKey) -> Option<V> {
        let (key, (at, value)) = self.by_key.remove_entry(key)?;
        self.by_time.remove(&(at, key));
        Some(value)
    }

    fn next(&self) -> Option<Instant> {
        self.by_time.first().map(|(at, _)| *at)
    }

    /// The first one, if its time has come. It stays.
    fn due(&self, now: Instant) -> Option<CheckKey> {
        let (at, key) = self.by_time.first()?;
        (*at <= now).then(|| key.clone())
    }
}
