//! A session that is renewed lives, one that is not renewed ends; and its locks stay untaken for their delay (SPEC §6).
//!
//! As for checks: a session ends for want of a renewal not before twice its TTL since the last acknowledged renewal was
//! sent, since its creation, since a restore that brought it back, and since its leader's election. A lock can be taken again not
//! before its delay has passed since its holder's session ended, and since the leader's election. The time in which that
//! leader stood still does not count. While it is calm, neither comes later than by the
//! stated bound. All with what clocks may drift.

use std::{sync::Arc, time::Duration};

use sider_core::registry::{Command, Key, Session, SessionId};

use super::Violation;
use crate::{
    history::History,
    keys::{KeyOp, SESSION_TTLS},
    operation::Op,
    promised::EXPIRY_BOUND,
    time::{self, Time, drift_of},
    truth::{Entry, Point},
};

/// Its name.
pub const NAME: &str = "session_ttl";

/// See the module's page.
///
/// # Errors
/// A session ended early or not in time, or a lock's delay did.
pub fn check(history: &History) -> Result<(), Violation> {
    let truth = history.truth();
    for (position, entry) in truth.entries.iter().enumerate() {
        match &entry.command {
            Some((Command::ExpireSessions(expiries), _)) => {
                for expiry in expiries {
                    not_early(history, position, entry, &expiry.session)?;
                }
            }
            Some((Command::EndLockDelays(ends), _)) => {
                for end in ends {
                    delayed_enough(history, position, entry, &end.key)?;
                }
            }
            _ => {}
        }
    }
    for (from, until) in &truth.calm {
        not_late(history, *from, *until)?;
    }
    Ok(())
}

/// Whether an entry ends what takes a time too early after a moment: by the global clock, and without the time in which its
/// leader stood still.
fn is_early(history: &History, entry: &Entry, time: Duration, since: Time) -> bool {
    let paused = history.truth().leader_paused(entry.term, since, entry.applied);
    entry.applied < since + time::least(time, history.bounds.drift_ppm) + paused
}

fn too_early(entry: &Entry, what: &str, time: Duration, since: &str, at: Time) -> Violation {
    let after = entry.applied.since(at);
    let what = format!(
        "{what} ({time:?}) ended by entry {} only {after:?} after {since} at {at}",
        entry.log_index
    );
    Violation::new(NAME, entry.applied, what)
}

fn not_early(history: &History, position: Point, entry: &Entry, id: &SessionId) -> Result<(), Violation> {
    let truth = history.truth();
    let (before, after) = (truth.state(position), truth.state(position + 1));
    let Some(session) = before.session(id).filter(|_| after.session(id).is_none()) else {
        return Ok(());
    };
    let lasts = session.ttl.map_or(Duration::MAX, |ttl| ttl * SESSION_TTLS);
    let what = format!("session {}", session.name);
    let early = |since: &str, at: Time| match is_early(history, entry, lasts, at) {
        true => Err(too_early(entry, &what, lasts, since, at)),
        false => Ok(()),
    };
    early(
        "its creation",
        began(history, position, |state| state.session(id).is_some()),
    )?;
    if let Some(restored) = truth.restored().filter(|at| *at < position).last() {
        early("a restore", truth.entries[restored].earliest)?;
    }
    if let Some(leader) = truth.leaders.iter().find(|leader| leader.term == entry.term) {
        early("the election of its leader", leader.from)?;
    }
    // What was answered after a restore that brought the session back may have renewed it only then.
    let restored = truth.restored().find(|at| *at > position);
    let brought_back = restored.map(|at| truth.entries[at].earliest);
    let renewals = history.operations.iter().filter(|operation| {
        renews(&operation.op, id)
            && operation.is_done()
            && operation.invoked < entry.earliest
            && brought_back.is_none_or(|at| operation.returned < at)
    });
    match renewals.map(|operation| operation.invoked).max() {
        Some(renewed) => early("a renewal that was acknowledged", renewed),
        None => Ok(()),
    }
}

fn renews(op: &Op, id: &SessionId) -> bool {
    matches!(op, Op::Keys(KeyOp::RenewSession { session }) if session == id.as_str())
}

/// When the entry can have been applied at the earliest with which something began that holds at a point.
fn began(history: &History, point: Point, holds: impl Fn(&crate::model::State) -> bool) -> Time {
    let truth = history.truth();
    let mut first = point;
    while first > 0 && holds(&truth.state(first - 1)) {
        first -= 1;
    }
    match first.checked_sub(1) {
        Some(entry) => truth.entries[entry].earliest,
        None => Time(0),
    }
}

fn delayed_enough(history: &History, position: Point, entry: &Entry, key: &Key) -> Result<(), Violation> {
    let truth = history.truth();
    let (before, after) = (truth.state(position), truth.state(position + 1));
    let Some(delay) = before.delays().get(key).copied() else {
        return Ok(());
    };
    if after.delays().get(key) == Some(&delay) {
        return Ok(());
    }
    let what = format!("the delay of the lock on {key}");
    let early = |since: &str, at: Time| match is_early(history, entry, delay.0, at) {
        true => Err(too_early(entry, &what, delay.0, since, at)),
        false => Ok(()),
    };
    let same = |state: &crate::model::State| state.delays().get(key) == Some(&delay);
    early("the end of its holder's session", began(history, position, same))?;
    match truth.leaders.iter().find(|leader| leader.term == entry.term) {
        Some(leader) => early("the election of its leader", leader.from),
        None => Ok(()),
    }
}

/// The longest that something may outlive its time.
fn grace(history: &History, time: Duration) -> Duration {
    let slack = history.bounds.latency * 6 + Duration::from_millis(100);
    time + drift_of(time, history.bounds.drift_ppm) + EXPIRY_BOUND + slack
}

/// Looks at what lives or is delayed at any point of a span in which all is calm.
fn not_late(history: &History, from: Time, until: Time) -> Result<(), Violation> {
    let truth = history.truth();
    let mut seen: Vec<Arc<Session>> = Vec::new();
    let mut delays: Vec<(Key, Duration, u64)> = Vec::new();
    for point in truth.applied_until(from)..=truth.applied_until(until) {
        let state = truth.state(point);
        seen.extend(state.sessions.iter().cloned());
        seen.sort_by(|one, other| one.id.cmp(&other.id));
        seen.dedup_by(|one, other| one.id == other.id);
        let here = state.delays().iter();
        delays.extend(here.map(|(key, (delay, since))| (key.clone(), *delay, *since)));
        delays.sort();
        delays.dedup();
    }
    for session in seen {
        if let Some(lasts) = session.ttl.map(|ttl| ttl * SESSION_TTLS) {
            let alive = |state: &crate::model::State| state.session(&session.id).is_some();
            let signs = signs_of_life(history, &session.id, from, until);
            let what = format!("session {}", session.name);
            over_in_time(history, (from, until), lasts, signs, alive, &what)?;
        }
    }
    for (key, delay, since) in delays {
        let lasts = |state: &crate::model::State| state.delays().get(&key) == Some(&(delay, since));
        let what = format!("the delay of the lock on {key}");
        over_in_time(history, (from, until), delay, vec![], lasts, &what)?;
    }
    Ok(())
}

/// When a session may have been renewed: from when to when.
fn signs_of_life(history: &History, id: &SessionId, from: Time, until: Time) -> Vec<(Time, Time)> {
    let truth = history.truth();
    let restores = truth.restored().map(|at| truth.entries[at].applied);
    let mut signs: Vec<(Time, Time)> = history
        .operations
        .iter()
        .filter(|it| renews(&it.op, id) && it.returned >= from && it.invoked <= until)
        .map(|it| (it.invoked, if it.is_done() { it.returned } else { until }))
        .chain(restores.map(|at| (at, at)))
        .collect();
    signs.sort();
    signs
}

/// Nothing that holds goes on for longer than its time and the bound, since it began or showed a sign of life.
fn over_in_time(
    history: &History,
    (from, until): (Time, Time),
    time: Duration,
    signs: Vec<(Time, Time)>,
    holds: impl Fn(&crate::model::State) -> bool,
    what: &str,
) -> Result<(), Violation> {
    let truth = history.truth();
    let mut since: Option<Time> = None;
    let mut renewed = from;
    let mut signs = signs.into_iter().peekable();
    let (first, last) = (truth.applied_until(from), truth.applied_until(until));
    for point in first..=last {
        let begins = match point == first {
            true => from,
            false => truth.entries[point - 1].applied,
        };
        let ends = match point == last {
            true => until,
            false => truth.entries[point].applied,
        };
        since = match holds(&truth.state(point)) {
            true => since.or(Some(begins)),
            false => None,
        };
        while let Some((begun, over)) = signs.next_if(|(begun, _)| *begun <= ends) {
            // A gap before this sign is looked at first.
            if let Some(since) = since {
                late(history, since.max(renewed), begun, time, what)?;
            }
            renewed = renewed.max(over);
        }
        if let Some(since) = since {
            late(history, since.max(renewed), ends, time, what)?;
        }
    }
    Ok(())
}

fn late(history: &History, since: Time, until: Time, time: Duration, what: &str) -> Result<(), Violation> {
    match until > since + grace(history, time) {
        true => {
            let what = format!("{what} ({time:?}) goes on since {since}, untouched");
            Err(Violation::new(NAME, until, what))
        }
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::story::Story, *};
    use crate::keys::Step;

    const TTL: u64 = 1_000;
    const LASTS: u64 = 2_000;

    fn complaint(story: Story) -> String {
        check(&story.finish()).expect_err("not in time").what
    }

    fn renew(story: &mut Story, session: &str) {
        let session = session.to_owned();
        story.keys(KeyOp::RenewSession { session });
    }

    fn lock(story: &mut Story, session: &str) {
        let step = Step::Lock("k".into(), "mine".into(), session.to_owned());
        story.keys(KeyOp::One(step));
    }

    fn destroy(story: &mut Story, session: &str) {
        let session = session.to_owned();
        story.keys(KeyOp::DestroySession { session });
    }

    #[test]
    fn a_ttl_and_a_little_is_fine() {
        let mut story = Story::new();
        let session = story.session("s", TTL, 0);
        story.wait_ms(1_500);
        renew(&mut story, &session);
        story.wait_ms(LASTS + 100);
        story.expire_session(&session);
        story.wait_ms(5_000);
        assert_eq!(check(&story.finish()), Ok(()));
    }

    #[test]
    fn soon_after_its_creation_is_not() {
        let mut story = Story::new();
        let session = story.session("s", TTL, 0);
        story.wait_ms(LASTS - 100);
        story.expire_session(&session);
        assert!(complaint(story).contains("after its creation"));
    }

    #[test]
    fn soon_after_a_renewal_is_not() {
        let mut story = Story::new();
        let session = story.session("s", TTL, 0);
        story.wait_ms(1_500);
        renew(&mut story, &session);
        story.wait_ms(LASTS - 100);
        story.expire_session(&session);
        assert!(complaint(story).contains("after a renewal that was acknowledged"));
    }

    #[test]
    fn soon_after_an_election_is_not() {
        let mut story = Story::new();
        let session = story.session("s", TTL, 0);
        story.wait_ms(LASTS - 500);
        story.elect(2, 2);
        story.wait_ms(600);
        story.expire_session(&session);
        assert!(complaint(story).contains("after the election of its leader"));
    }

    #[test]
    fn living_on_unrenewed_is_not() {
        let mut story = Story::new();
        story.wait_ms(5_000);
        story.session("s", TTL, 0);
        story.wait_ms(LASTS + 5_000);
        assert!(complaint(story).contains("session s (2s) goes on"));
    }

    #[test]
    fn living_on_by_renewals_is_fine() {
        let mut story = Story::new();
        let session = story.session("s", TTL, 0);
        for _ in 0..8 {
            story.wait_ms(LASTS - 300);
            renew(&mut story, &session);
        }
        assert_eq!(check(&story.finish()), Ok(()));
    }

    #[test]
    fn a_whole_ttl_after_a_restore_is_fine() {
        let mut story = Story::new();
        story.wait_ms(5_000);
        let session = story.session("s", TTL, 0);
        let (_, file) = story.save();
        story.wait_ms(LASTS);
        story.restore(&file);
        story.wait_ms(LASTS + 100);
        story.expire_session(&session);
        assert_eq!(check(&story.finish()), Ok(()));
    }

    #[test]
    fn soon_after_a_restore_is_not() {
        let mut story = Story::new();
        let session = story.session("s", TTL, 0);
        let (_, file) = story.save();
        story.wait_ms(LASTS);
        story.restore(&file);
        story.wait_ms(LASTS - 100);
        story.expire_session(&session);
        assert!(complaint(story).contains("after a restore"));
    }

    #[test]
    fn a_renewal_that_a_restore_let_through_does_not_count_before() {
        let verdict = |brought_back: bool| {
            let mut story = Story::new();
            let session = story.session("s", TTL, 0);
            let (_, file) = story.save();
            story.wait_ms(LASTS + 100);
            let renewal = KeyOp::RenewSession {
                session: session.clone(),
            };
            if brought_back {
                story.expire_session(&session);
                story.restore(&file);
                let renewal = story.keys(renewal);
                story.stretch(renewal, 50, 0);
            } else {
                let renewal = story.keys(renewal);
                story.expire_session(&session);
                story.restore(&file);
                story.stretch(renewal, 0, 1);
            }
            check(&story.finish())
        };
        assert_eq!(verdict(true), Ok(()));
        let what = verdict(false).expect_err("it was renewed").what;
        assert!(what.contains("after a renewal that was acknowledged"));
    }

    #[test]
    fn a_renewal_long_after_its_end_is_fine() {
        let mut story = Story::new();
        let session = story.session("s", TTL, 0);
        story.wait_ms(LASTS + 100);
        story.expire_session(&session);
        story.wait_ms(5_000);
        renew(&mut story, &session);
        assert_eq!(check(&story.finish()), Ok(()));
    }

    #[test]
    fn a_delay_that_passes_is_fine() {
        let mut story = Story::new();
        let session = story.session("s", 0, 1_000);
        lock(&mut story, &session);
        destroy(&mut story, &session);
        story.wait_ms(1_100);
        story.end_lock_delay("k");
        story.wait_ms(5_000);
        assert_eq!(check(&story.finish()), Ok(()));
    }

    #[test]
    fn a_delay_cut_short_is_not() {
        let mut story = Story::new();
        let session = story.session("s", 0, 1_000);
        lock(&mut story, &session);
        destroy(&mut story, &session);
        story.wait_ms(900);
        story.end_lock_delay("k");
        assert!(complaint(story).contains("after the end of its holder's session"));
    }

    #[test]
    fn a_delay_cut_short_by_a_new_leader_is_not() {
        let mut story = Story::new();
        let session = story.session("s", 0, 1_000);
        lock(&mut story, &session);
        destroy(&mut story, &session);
        story.wait_ms(600);
        story.elect(2, 2);
        story.wait_ms(600);
        story.end_lock_delay("k");
        assert!(complaint(story).contains("after the election of its leader"));
    }

    #[test]
    fn a_delay_without_an_end_is_not() {
        let mut story = Story::new();
        let session = story.session("s", 0, 1_000);
        lock(&mut story, &session);
        destroy(&mut story, &session);
        story.wait_ms(9_000);
        assert!(complaint(story).contains("the delay of the lock on k (1s) goes on"));
    }
}
