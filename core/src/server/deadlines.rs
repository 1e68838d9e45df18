//! What a leader keeps in memory about time: when a check or a session expires, when a lock can be taken again, when an
//! instance that stays critical is deregistered, and which outputs are held back. Pure: the clock is passed in.
//!
//! The table belongs to one term of this server's leadership. It is filled when the term begins, with the full time for
//! everything that expires, and dropped with it. Its clock leaves out pauses of the process: see [`Deadlines::observe`].

use std::{collections::BTreeMap, time::Duration};

use super::countdown::{Clock, Countdown, Due, IN_FLIGHT, Queue, Resolution};
use crate::{
    limits,
    registry::{
        Check, CheckKey, CheckStatus, Event, Expiry, Key, LockDelayEnd, Registry, SessionExpiry, SessionId,
    },
    runtime::Instant,
};

/// The times of a leader. See the module's page.
#[derive(Debug, Default)]
pub(super) struct Deadlines {
    /// The term that this server leads in, as far as the table knows.
    term: Option<u64>,
    clock: Clock,
    /// TTL checks that are not critical.
    checks: Countdown<CheckKey>,
    /// Sessions with a TTL.
    sessions: Countdown<SessionId>,
    /// Locks that nobody can take for a while.
    lock_delays: Countdown<Key>,
    /// Critical checks that take their instance away, by when they do.
    reaps: Queue<CheckKey, Duration>,
    /// Reaps proposed and not resolved, with their attempt.
    reaping: BTreeMap<CheckKey, u64>,
    /// Outputs held back, by when they are written.
    held: Queue<CheckKey, String>,
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
        let mut running = Vec::new();
        for check in registry.checks() {
            match running_ttl(check) {
                Some(ttl) => running.push((check.key(), ttl)),
                None => self.watch(check.key(), check, now, News::Registered),
            }
        }
        self.checks.start_all(now, running);
        for session in registry.sessions() {
            self.start_session(&session.id, registry, now);
        }
        for key in registry.lock_delays() {
            self.start_lock_delay(key, registry, now);
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
        self.checks.renewed(check, now);
    }

    /// A renewal of a session was received.
    pub(super) fn session_renewed(&mut self, id: &SessionId, now: Instant) {
        let now = self.observe(now);
        self.sessions.renewed(id, now);
    }

    /// Whether an expiry of this check may be in the log and not yet applied: a renewal of it must be written too.
    pub(super) fn is_contested(&self, check: &CheckKey) -> bool {
        self.checks.is_contested(check)
    }

    /// The same for a session.
    pub(super) fn is_session_contested(&self, id: &SessionId) -> bool {
        self.sessions.is_contested(id)
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
                Event::SessionCreated(id) | Event::SessionRenewed(id) => {
                    self.sessions.counted(id);
                    self.start_session(id, registry, now);
                    continue;
                }
                Event::SessionDestroyed(id) => {
                    self.sessions.forget(id);
                    continue;
                }
                Event::LockDelayBegan(key) => {
                    self.lock_delays.counted(key);
                    self.start_lock_delay(key, registry, now);
                    continue;
                }
                Event::LockDelayEnded(key) => {
                    self.lock_delays.forget(key);
                    continue;
                }
                _ => continue,
            };
            // What was held back is older than this.
            self.held.remove(key);
            if news != News::Other {
                // The registry counted it as a renewal: an expiry that was decided before will be refused.
                self.checks.counted(key);
            }
            match registry.check(key) {
                Some(check) => self.watch(key.clone(), check, now, news),
                None => self.forget(key),
            }
        }
    }

    /// Sets the times of a check as it is now.
    fn watch(&mut self, key: CheckKey, check: &Check, now: Instant, news: News) {
        match running_ttl(check) {
            Some(ttl) => {
                if news != News::Other || !self.checks.runs(&key) {
                    self.checks.start(key.clone(), now, ttl);
                }
            }
            None => self.checks.forget(&key),
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
        self.checks.forget(key);
        self.reaps.remove(key);
        self.reaping.remove(key);
    }

    /// Gives a session its full time, if it has a TTL.
    fn start_session(&mut self, id: &SessionId, registry: &Registry, now: Instant) {
        if let Some(ttl) = registry.session(id).and_then(|session| session.ttl) {
            self.sessions
                .start(id.clone(), now, ttl * limits::SESSION_TTL_FACTOR);
        }
    }

    /// Gives a lock's delay its full time.
    fn start_lock_delay(&mut self, key: &Key, registry: &Registry, now: Instant) {
        if let Some((delay, _)) = registry.lock_delay(key) {
            self.lock_delays.start(key.clone(), now, delay);
        }
    }

    /// Checks whose time is over, at most `max`; each is in flight until it is resolved.
    pub(super) fn due_expiries(&mut self, registry: &Registry, now: Instant, max: usize) -> Due<Expiry> {
        let (now, attempt) = (self.observe(now), self.next_attempt());
        self.checks.due(now, max, attempt, |key| {
            let check = registry.check(key)?;
            (check.status != CheckStatus::Critical).then(|| seen(check))
        })
    }

    /// Expiries of one decision were resolved; what is still due is due at once.
    pub(super) fn resolve_expiries(&mut self, due: &Due<Expiry>, how: Resolution, now: Instant) {
        let now = self.observe(now);
        let keys = due.items.iter().map(|expiry| &expiry.check);
        self.checks.resolve(keys, due.attempt, how, now);
    }

    /// Sessions whose time is over, at most `max`; each is in flight until it is resolved.
    pub(super) fn due_sessions(
        &mut self,
        registry: &Registry,
        now: Instant,
        max: usize,
    ) -> Due<SessionExpiry> {
        let (now, attempt) = (self.observe(now), self.next_attempt());
        self.sessions.due(now, max, attempt, |id| {
            let session = registry.session(id)?;
            Some(SessionExpiry {
                session: id.clone(),
                renewals_seen: session.renewals,
            })
        })
    }

    /// As [`Deadlines::resolve_expiries`].
    pub(super) fn resolve_sessions(&mut self, due: &Due<SessionExpiry>, how: Resolution, now: Instant) {
        let now = self.observe(now);
        let ids = due.items.iter().map(|expiry| &expiry.session);
        self.sessions.resolve(ids, due.attempt, how, now);
    }

    /// Locks whose delay is over, at most `max`; each is in flight until it is resolved.
    pub(super) fn due_lock_delays(
        &mut self,
        registry: &Registry,
        now: Instant,
        max: usize,
    ) -> Due<LockDelayEnd> {
        let (now, attempt) = (self.observe(now), self.next_attempt());
        self.lock_delays.due(now, max, attempt, |key| {
            let (_, since_seen) = registry.lock_delay(key)?;
            let key = key.clone();
            Some(LockDelayEnd { key, since_seen })
        })
    }

    /// As [`Deadlines::resolve_expiries`].
    pub(super) fn resolve_lock_delays(&mut self, due: &Due<LockDelayEnd>, how: Resolution, now: Instant) {
        let now = self.observe(now);
        let keys = due.items.iter().map(|end| &end.key);
        self.lock_delays.resolve(keys, due.attempt, how, now);
    }

    fn next_attempt(&mut self) -> u64 {
        self.attempts += 1;
        self.attempts
    }

    /// Critical checks whose instances' time is over, at most `max`; each is in flight until it is resolved.
    pub(super) fn due_reaps(&mut self, registry: &Registry, now: Instant, max: usize) -> Due<Expiry> {
        let now = self.observe(now);
        let attempt = self.next_attempt();
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
        let next = [
            self.checks.next(),
            self.sessions.next(),
            self.lock_delays.next(),
            self.reaps.next(),
            self.held.next(),
        ];
        let next = next.into_iter().flatten().min()?;
        (next != IN_FLIGHT).then(|| next + self.clock.paused)
    }
}

/// The TTL of a check whose time runs: a critical one does not expire again, and takes its instance away at most.
fn running_ttl(check: &Check) -> Option<Duration> {
    let ttl = check.definition.ttl()?;
    (check.status != CheckStatus::Critical).then_some(ttl)
}

/// A check as the leader saw it when it decided.
fn seen(check: &Check) -> Expiry {
    Expiry {
        check: check.key(),
        renewals_seen: check.renewals,
        create_index_seen: check.create_index,
    }
}
