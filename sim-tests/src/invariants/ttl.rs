//! A check that is renewed does not expire, one that is not renewed does (SPEC §4).
//!
//! Never early: not before its full TTL since the server can have received the last acknowledged renewal, or since its
//! registration, or since the leader's election; the time in which a leader was paused does not count. Not late: while it
//! is calm, an unrenewed check is critical within its TTL and the stated bound. Both with what clocks may drift.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use sider_core::registry::{Check, CheckKey, CheckStatus, CheckTarget, Command, InstanceId, Namespace};

use super::Violation;
use crate::{
    agency,
    history::{History, Operation, Outcome},
    matching::{SHARED_NODE, Source},
    model::State,
    operation::{Op, Target},
    promised::EXPIRY_BOUND,
    time::{Time, drift_of, least},
    truth::{Entry, Point},
};

/// Its name.
pub const NAME: &str = "ttl";

/// Longer TTLs have their remaining time replicated, and need not start anew with a new leader.
const FULL_TTL_AT_ELECTION_MAX: Duration = Duration::from_secs(60);

/// See the module's page.
///
/// # Errors
/// A check expired early, or not in time.
pub fn check(history: &History) -> Result<(), Violation> {
    let truth = history.truth();
    for position in 0..truth.entries.len() {
        for check in expired_by(history, position) {
            let expiry = Expiry {
                history,
                position,
                entry: &truth.entries[position],
                check,
            };
            expiry.not_before_renewal()?;
            expiry.not_before_registration()?;
            expiry.not_before_election()?;
        }
    }
    let lives = Lives::of(history);
    for (from, until) in &truth.calm {
        not_late(history, &lives, *from, *until)?;
    }
    Ok(())
}

/// The checks, as they were before, that an entry turns critical for want of a renewal.
fn expired_by(history: &History, position: usize) -> Vec<Arc<Check>> {
    let truth = history.truth();
    let Some((Command::ExpireChecks(expiries), _)) = &truth.entries[position].command else {
        return Vec::new();
    };
    let (before, after) = (truth.state(position), truth.state(position + 1));
    let critical = |check: &Check| check.status == CheckStatus::Critical;
    let turned = |key: &CheckKey| {
        let check = before.check(key).filter(|check| !critical(check))?;
        after
            .check(key)
            .is_some_and(|check| critical(check))
            .then(|| Arc::clone(check))
    };
    expiries
        .iter()
        .filter_map(|expiry| turned(&expiry.check))
        .collect()
}

struct Expiry<'a> {
    history: &'a History,
    position: usize,
    entry: &'a Entry,
    check: Arc<Check>,
}

impl Expiry<'_> {
    fn ttl(&self) -> Duration {
        self.check.definition.ttl().unwrap_or_default()
    }

    /// The shortest that a TTL may take by the global clock.
    fn least_ttl(&self) -> Duration {
        least(self.ttl(), self.history.bounds.drift_ppm)
    }

    fn violation(&self, since: &str, at: Time, operation: Option<u32>) -> Result<(), Violation> {
        let what = format!(
            "{} (TTL {:?}) expired by entry {} only {:?} after {since} at {at}",
            self.check.id,
            self.ttl(),
            self.entry.log_index,
            self.entry.applied.since(at),
        );
        Err(Violation::of(NAME, self.entry.applied, operation, what))
    }

    fn not_before_renewal(&self) -> Result<(), Violation> {
        for operation in &self.history.operations {
            let holds = renews(operation, &self.check)
                && operation.is_done()
                && operation.invoked < self.entry.earliest
                && self.entry.applied < operation.invoked + self.least_ttl();
            let is_undone = || self.undone_by(operation) || self.brought_back_under(operation);
            if holds && (operation.returned < self.entry.earliest || !is_undone()) {
                return self.violation(
                    "a renewal that was acknowledged",
                    operation.invoked,
                    Some(operation.id),
                );
            }
        }
        Ok(())
    }

    /// Whether a renewal that was under way meanwhile has its own entry after the expiry.
    fn undone_by(&self, operation: &Operation) -> bool {
        let later = self.history.truth().entries.iter().skip(self.position + 1);
        later
            .take_while(|entry| entry.earliest <= operation.returned)
            .any(|entry| match &entry.command {
                Some((Command::UpdateChecks(updates), _)) => {
                    updates.iter().any(|update| match &update.target {
                        CheckTarget::Check(key) => *key == self.check.key(),
                        CheckTarget::TtlChecksOf(key) => {
                            self.check.instance.as_ref() == Some(&key.id) && self.check.node == key.node
                        }
                    })
                }
                Some((Command::Register(_) | Command::Deregister(_) | Command::Transact(_), _)) => true,
                _ => false,
            })
    }

    /// Whether a restore brought the check back as it was while a renewal was under way, which had nothing to write then.
    fn brought_back_under(&self, operation: &Operation) -> bool {
        let truth = self.history.truth();
        let mut later = truth.restored().filter(|at| *at > self.position);
        later.any(|at| {
            truth.entries[at].earliest <= operation.returned
                && truth.state(at + 1).check(&self.check.key()).is_some()
        })
    }

    fn not_before_registration(&self) -> Result<(), Violation> {
        let truth = self.history.truth();
        let key = self.check.key();
        let written = |state: &State| state.check(&key).map(|it| (it.create_index, it.renewals));
        let now = written(&truth.state(self.position));
        let last_write = (0..self.position)
            .rev()
            .find(|at| written(&truth.state(*at)) != now);
        let Some(last_write) = last_write else {
            return Ok(());
        };
        let Source::Operation(id) = truth.sources[last_write] else {
            return Ok(());
        };
        match self.history.operation(id) {
            Some(operation) if self.entry.applied < operation.invoked + self.least_ttl() => {
                self.violation("it was registered so", operation.invoked, Some(id))
            }
            _ => Ok(()),
        }
    }

    fn not_before_election(&self) -> Result<(), Violation> {
        let truth = self.history.truth();
        let Some(leader) = truth.leaders.iter().find(|leader| leader.term == self.entry.term) else {
            return Ok(());
        };
        if self.ttl() > FULL_TTL_AT_ELECTION_MAX {
            return Ok(());
        }
        if self.entry.applied < leader.from + self.least_ttl() {
            return self.violation("the election of its leader", leader.from, None);
        }
        let renewals = self.history.operations.iter().filter(|operation| {
            renews(operation, &self.check) && operation.is_done() && operation.returned < self.entry.earliest
        });
        let renewed = renewals.map(|operation| operation.invoked).max();
        let since = renewed.map_or(leader.from, |at| at.max(leader.from));
        let paused = truth.leader_paused(leader.term, since, self.entry.applied);
        if self.entry.applied < since + self.least_ttl() + paused {
            return self.violation(
                &format!("its last start, {paused:?} of which its leader was paused,"),
                since,
                None,
            );
        }
        Ok(())
    }
}

/// Whether an operation reports that a check is not critical.
fn renews(operation: &Operation, check: &Check) -> bool {
    let Op::Report { reports, .. } = &operation.op else {
        return false;
    };
    let refused = |nth: usize| {
        operation
            .answer()
            .is_some_and(|it| it.refused.get(nth) == Some(&true))
    };
    reports.iter().enumerate().any(|(nth, report)| {
        report.status != CheckStatus::Critical && !refused(nth) && is_target(check, &report.target)
    })
}

fn is_target(check: &Check, target: &Target) -> bool {
    check.node.as_str() == SHARED_NODE
        && check.namespace == Namespace::default()
        && match target {
            Target::Check(id) => check.id.as_str() == id,
            Target::Instance(id) => check.instance.as_ref().is_some_and(|own| own.as_str() == id),
        }
}

/// What the log says of each check that can be renewed only by clients.
struct Lives(BTreeMap<CheckKey, Life>);

#[derive(Default)]
struct Life {
    /// When it was written, renewed or gone by an entry: from its being appended until it was applied.
    written: Vec<(Time, Time)>,
    /// Points from one to before the other at which it is there.
    there: Vec<(Point, Point)>,
    /// The instances that it belonged to at any time.
    owners: BTreeSet<InstanceId>,
}

impl Lives {
    fn of(history: &History) -> Lives {
        let truth = history.truth();
        let mut lives: BTreeMap<CheckKey, Life> = BTreeMap::new();
        let mut before = &State::default();
        for (position, entry) in truth.entries.iter().enumerate() {
            let (gone, come) = differing(before, &entry.state);
            let was: BTreeMap<CheckKey, &Check> = gone.iter().map(|check| (check.key(), *check)).collect();
            let is: BTreeMap<CheckKey, &Check> = come.iter().map(|check| (check.key(), *check)).collect();
            let written = |check: &&Check| (check.create_index, check.renewals, check.status);
            for key in was.keys().chain(is.keys().filter(|key| !was.contains_key(*key))) {
                let (was, is) = (was.get(key), is.get(key));
                let life = lives.entry(key.clone()).or_default();
                if was.map(written) != is.map(written) {
                    life.written.push((entry.appended, entry.applied));
                }
                if let (Some(_), false) = (was.filter(|it| counts(it)), is.is_some_and(|it| counts(it)))
                    && let Some(last) = life.there.last_mut()
                {
                    last.1 = position + 1;
                }
                if let (Some(_), false) = (is.filter(|it| counts(it)), was.is_some_and(|it| counts(it))) {
                    life.there.push((position + 1, Point::MAX));
                }
                life.owners.extend(is.and_then(|it| it.instance.clone()));
            }
            before = &entry.state;
        }
        Lives(lives)
    }

    /// The checks that are there at any of these points, with all that is known of them.
    fn between(&self, first: Point, last: Point) -> impl Iterator<Item = (&CheckKey, &Life)> {
        let there = move |life: &Life| life.there.iter().any(|(from, to)| *from <= last && *to > first);
        self.0.iter().filter(move |(_, life)| there(life))
    }
}

/// Whether a check can be renewed only by clients: agents renew theirs unseen.
fn counts(check: &Check) -> bool {
    check.definition.ttl().is_some() && !agency::is_node(check.node.as_str())
}

/// The checks of one state that the other one does not share, of both. What did not change is shared, mostly in its place.
fn differing<'a>(before: &'a State, after: &'a State) -> (Vec<&'a Check>, Vec<&'a Check>) {
    fn rest<'a>(mine: &'a [Arc<Check>], theirs: &[Arc<Check>]) -> Vec<&'a Check> {
        let same = mine
            .iter()
            .zip(theirs)
            .take_while(|(a, b)| Arc::ptr_eq(a, b))
            .count();
        let (mine, theirs) = (&mine[same..], &theirs[same..]);
        let shared = |check: &&Arc<Check>| theirs.iter().any(|other| Arc::ptr_eq(check, other));
        mine.iter()
            .filter(|check| !shared(check))
            .map(AsRef::as_ref)
            .collect()
    }
    (
        rest(&before.checks, &after.checks),
        rest(&after.checks, &before.checks),
    )
}

/// Looks at every check that can be renewed only by clients, in a span in which all is calm.
fn not_late(history: &History, lives: &Lives, from: Time, until: Time) -> Result<(), Violation> {
    let truth = history.truth();
    let (first, last) = (truth.applied_until(from), truth.applied_until(until));
    let mut checks = lives.between(first, last);
    checks.try_for_each(|(key, life)| not_late_for(history, key, life, from, until))
}

fn not_late_for(
    history: &History,
    key: &CheckKey,
    life: &Life,
    from: Time,
    until: Time,
) -> Result<(), Violation> {
    let truth = history.truth();
    let mut start = from;
    for (begins, ends) in signs_of_life(history, key, life, from, until)
        .into_iter()
        .chain([(until, until)])
    {
        let state = truth.state(truth.applied_until(start));
        let ttl = state.check(key).and_then(|check| check.definition.ttl());
        if let Some(ttl) = ttl {
            let due = start + ttl + drift_of(ttl, history.bounds.drift_ppm) + EXPIRY_BOUND + slack(history);
            let critical = || {
                let then = truth.state(truth.applied_until(due));
                let check = then.check(key);
                check.is_none_or(|check| check.status == CheckStatus::Critical)
            };
            if due < begins && !critical() {
                let what = format!(
                    "{} (TTL {ttl:?}) is not critical at {due}, unrenewed since {start}",
                    key.id
                );
                return Err(Violation::new(NAME, due, what));
            }
        }
        start = start.max(ends);
    }
    Ok(())
}

/// The spans in which a check may have been renewed or written, by their beginning.
fn signs_of_life(
    history: &History,
    key: &CheckKey,
    life: &Life,
    from: Time,
    until: Time,
) -> Vec<(Time, Time)> {
    let mut signs = life.written.clone();
    for operation in &history.operations {
        let renewed = matches!(&operation.op, Op::Report { reports, .. } if reports.iter().any(|report| {
            match &report.target {
                Target::Check(id) => key.id.as_str() == id,
                // Whose check it is may change: any report about an instance counts for its checks at any time.
                Target::Instance(id) => life.owners.iter().any(|own| own.as_str() == id),
            }
        }));
        match operation.outcome {
            Outcome::Failed(_) | Outcome::Refused { .. } => {}
            Outcome::Unknown(_) if renewed => {
                signs.push((operation.invoked, operation.returned + history.bounds.patience));
            }
            _ if renewed => signs.push((operation.invoked, operation.returned)),
            _ => {}
        }
    }
    signs.retain(|(begins, ends)| *ends >= from && *begins <= until);
    signs.sort();
    signs
}

/// A commit and its way to the server that is looked at.
fn slack(history: &History) -> Duration {
    history.bounds.latency * 6 + Duration::from_millis(100)
}

#[cfg(test)]
mod tests {
    use super::{
        super::story::{Story, TTL_MS},
        *,
    };
    use crate::history::{Fact, FaultKind};
    use CheckStatus::{Critical, Passing};

    const CHECK: &str = "chk:web-1:0";

    fn complaint(story: Story) -> String {
        check(&story.finish()).expect_err("not in time").what
    }

    /// A passing check, after it was calm for long.
    fn story() -> Story {
        let mut story = Story::new();
        story.wait_ms(5_000);
        story.register("web-1", 1);
        story.report(CHECK, Passing);
        story
    }

    #[test]
    fn expiring_after_the_ttl_is_fine() {
        let mut story = story();
        story.wait_ms(1_500);
        story.acknowledge_report(CHECK, Passing);
        story.wait_ms(TTL_MS + 500);
        story.expire(CHECK);
        story.wait_ms(20_000);
        assert_eq!(check(&story.finish()), Ok(()));
    }

    #[test]
    fn expiring_soon_after_an_acknowledged_renewal_is_not() {
        let mut story = story();
        story.wait_ms(1_500);
        story.acknowledge_report(CHECK, Passing);
        story.wait_ms(TTL_MS - 200);
        story.expire(CHECK);
        assert!(complaint(story).contains("after a renewal that was acknowledged"));
    }

    /// A check of a node that clients registered, which passes and is never renewed.
    fn passing_on(node: &str) -> Story {
        let mut story = Story::new();
        story.wait_ms(5_000);
        let mut command = Story::registration("web-1", 1);
        if let Command::Register(registrations) = &mut command {
            registrations[0].checks[0].status = Some(Passing);
        }
        story.commit(Story::on_node(node, command));
        story.wait_ms(TTL_MS + 20_000);
        story
    }

    #[test]
    fn what_is_not_renewed_expires_on_every_node_but_that_of_an_agent() {
        assert!(complaint(passing_on("n1")).contains("is not critical"));
        assert_eq!(check(&passing_on("agent-0").finish()), Ok(()));
    }

    #[test]
    fn drift_excuses_what_it_explains() {
        let mut story = story();
        story.record().bounds.drift_ppm = 1_000;
        story.wait_ms(TTL_MS - 3);
        story.expire(CHECK);
        assert_eq!(check(&story.finish()), Ok(()));
    }

    #[test]
    fn a_renewal_whose_outcome_is_unknown_promises_nothing() {
        let mut story = story();
        story.wait_ms(1_500);
        let renewal = story.acknowledge_report(CHECK, Passing);
        story.set_outcome(renewal, Outcome::Unknown("timed out".into()));
        story.wait_ms(1_000);
        story.expire(CHECK);
        assert_eq!(check(&story.finish()), Ok(()));
    }

    #[test]
    fn an_expiry_that_overtakes_a_renewal_is_not() {
        let mut story = story();
        story.wait_ms(TTL_MS + 100);
        let renewal = story.acknowledge_report(CHECK, Passing);
        story.expire(CHECK);
        story.stretch(renewal, 0, 50);
        assert!(complaint(story).contains("after a renewal that was acknowledged"));
    }

    #[test]
    fn a_renewal_that_undoes_an_expiry_is_fine() {
        let mut story = story();
        story.wait_ms(TTL_MS + 100);
        let invoked = story.now();
        story.expire(CHECK);
        let renewal = story.report(CHECK, Passing);
        story.operation(renewal).invoked = invoked;
        story.stretch(renewal, 20, 0);
        assert_eq!(check(&story.finish()), Ok(()));
    }

    #[test]
    fn a_renewal_that_finds_what_a_restore_brought_back_is_fine() {
        let verdict = |restores: bool| {
            let mut story = story();
            let (_, file) = story.save();
            story.wait_ms(TTL_MS + 100);
            let renewal = story.acknowledge_report(CHECK, Passing);
            story.expire(CHECK);
            if restores {
                story.restore(&file);
            }
            story.operation(renewal).returned = story.now();
            check(&story.finish())
        };
        assert_eq!(verdict(true), Ok(()));
        assert!(verdict(false).is_err());
    }

    #[test]
    fn expiring_soon_after_an_election_is_not() {
        let mut story = story();
        story.wait_ms(1_500);
        story.elect(2, 2);
        story.wait_ms(1_000);
        story.expire(CHECK);
        assert!(complaint(story).contains("after the election of its leader"));
    }

    #[test]
    fn a_hair_before_the_ttl_is_not_while_clocks_keep_their_promise() {
        for (drift_ppm, allowed) in [(1_000, false), (10_000, true)] {
            let mut story = story();
            story.wait_ms(1_500);
            story.acknowledge_report(CHECK, Passing);
            story.wait_ms(TTL_MS - 5);
            story.expire(CHECK);
            story.record().bounds.drift_ppm = drift_ppm;
            assert_eq!(check(&story.finish()).is_ok(), allowed, "{drift_ppm} ppm");
        }
    }

    #[test]
    fn counting_a_pause_is_not() {
        let mut story = story();
        story.wait_ms(500);
        story.fault(FaultKind::Disturbing, 1, 3_000);
        story.observe(1, Fact::Paused);
        story.wait_ms(3_000);
        story.observe(1, Fact::Resumed);
        story.wait_ms(100);
        story.expire(CHECK);
        assert!(complaint(story).contains("its leader was paused"));
    }

    #[test]
    fn expiring_soon_after_a_registration_that_passes_is_not() {
        let mut story = Story::new();
        story.wait_ms(5_000);
        story.register_passing("web-1", 1);
        story.wait_ms(500);
        story.expire(CHECK);
        assert!(complaint(story).contains("after it was registered so"));
    }

    #[test]
    fn not_expiring_is_not() {
        let mut story = story();
        story.wait_ms(10_000);
        assert!(complaint(story).contains("is not critical at"));
    }

    #[test]
    fn not_expiring_under_faults_is_fine() {
        let mut story = story();
        for _ in 0..5 {
            story.fault(FaultKind::Disturbing, 3, 100);
            story.wait_ms(2_000);
        }
        assert_eq!(check(&story.finish()), Ok(()));
    }

    #[test]
    fn not_expiring_while_it_is_renewed_is_fine() {
        let mut story = story();
        for _ in 0..5 {
            story.wait_ms(1_500);
            story.acknowledge_report(CHECK, Passing);
        }
        assert_eq!(check(&story.finish()), Ok(()));
    }

    #[test]
    fn a_critical_check_need_not_expire() {
        let mut story = story();
        story.report(CHECK, Critical);
        story.wait_ms(20_000);
        assert_eq!(check(&story.finish()), Ok(()));
    }
}
