//! A renewal that changes nothing is not written to the log (SPEC §4, `core/src/server/renewals.rs`): while all is calm, each
//! status that is written is another one than was there, unless an expiry of the check was under way; and so is no renewal of
//! a session without one.
//!
//! Whether it is written, clients do not see. But a log that grows with every heartbeat is what makes large clusters slow.

use std::{ops::Range, time::Duration};

use sider_core::registry::{CheckKey, CheckStatus, CheckTarget, CheckUpdate, Command, Restore};

use super::Violation;
use crate::{
    history::History,
    model::State,
    truth::{Entry, Point},
};

/// Its name.
pub const NAME: &str = "renewals";

/// A report is compared with the state at most so long before it is written, while all is calm; what was so all the while
/// was so then.
const COMPARED_WITHIN: Duration = Duration::from_secs(2);
/// An expiry that was decided before a renewal came may stand behind it in the log, but not by more.
const UNDER_WAY: Duration = Duration::from_millis(500);

/// See the module's page.
///
/// # Errors
/// A renewal was written for nothing.
pub fn check(history: &History) -> Result<(), Violation> {
    for (position, entry) in history.truth().entries.iter().enumerate() {
        match &entry.command {
            Some((Command::UpdateChecks(updates), _)) => {
                for (nth, update) in updates.iter().enumerate() {
                    let others = updates.iter().enumerate().filter(|(other, _)| *other != nth);
                    // What stands behind another status of the same check shares its fate.
                    if others.clone().all(|(_, other)| !is_about_the_same(update, other)) {
                        needed(history, position, update)?;
                    }
                }
            }
            Some((Command::RenewSessions(ids), _)) => {
                let contested = |command: &Command| match command {
                    Command::ExpireSessions(expiries) => expiries.iter().any(|it| ids.contains(&it.session)),
                    command => replaces(command),
                };
                if quiet(history, entry).is_some_and(|near| !any(history, near, contested)) {
                    let what = format!(
                        "entry {} renews sessions, though no expiry of them was under way",
                        entry.log_index
                    );
                    return Err(Violation::new(NAME, entry.applied, what));
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// Judges one status that is written.
fn needed(history: &History, position: Point, update: &CheckUpdate) -> Result<(), Violation> {
    let truth = history.truth();
    let entry = &truth.entries[position];
    let (Some(status), Some(near)) = (update.status, quiet(history, entry)) else {
        return Ok(());
    };
    let before = truth.state(position);
    let keys = targets(&before, &update.target);
    let contested = |command: &Command| match command {
        Command::ExpireChecks(expiries) => expiries.iter().any(|it| keys.contains(&it.check)),
        command => replaces(command),
    };
    let was_there = |point: Point| {
        let state = truth.state(point);
        targets(&state, &update.target) == keys && keys.iter().all(|key| has(&state, key, status))
    };
    let needless =
        !keys.is_empty() && (near.start..=position).all(was_there) && !any(history, near, contested);
    match needless {
        false => Ok(()),
        true => {
            let what = format!(
                "entry {} writes that {} is {}, which it was, though no expiry was under way",
                entry.log_index,
                keys[0].id,
                status.as_str()
            );
            Err(Violation::new(NAME, entry.applied, what))
        }
    }
}

/// The entries that may have to do with one, by their positions, if all was calm around it.
fn quiet(history: &History, entry: &Entry) -> Option<Range<Point>> {
    let truth = history.truth();
    let from = entry.appended - COMPARED_WITHIN;
    let until = entry.applied + UNDER_WAY;
    truth
        .calm_between(from, until)
        .then(|| truth.applied_before(from)..truth.applied_until(until))
}

fn any(history: &History, near: Range<Point>, wanted: impl Fn(&Command) -> bool) -> bool {
    let mut entries = history.truth().entries[near].iter();
    entries.any(|entry| entry.command.as_ref().is_some_and(|(command, _)| wanted(command)))
}

/// Whether everything is another thing after a command.
fn replaces(command: &Command) -> bool {
    matches!(command, Command::Restore(Restore::Commit { .. }))
}

/// The checks that an update is about.
fn targets(state: &State, target: &CheckTarget) -> Vec<CheckKey> {
    match target {
        CheckTarget::Check(key) => state.check(key).map(|check| check.key()).into_iter().collect(),
        CheckTarget::TtlChecksOf(instance) => {
            let checks = state.checks.iter();
            let of_it = checks.filter(|check| {
                check.instance.as_ref() == Some(&instance.id)
                    && check.node == instance.node
                    && check.namespace == instance.namespace
                    && check.definition.ttl().is_some()
            });
            of_it.map(|check| check.key()).collect()
        }
    }
}

fn has(state: &State, key: &CheckKey, status: CheckStatus) -> bool {
    state.check(key).is_some_and(|check| check.status == status)
}

/// Whether two updates may be about one check: they are about the same node.
fn is_about_the_same(one: &CheckUpdate, other: &CheckUpdate) -> bool {
    let node = |update: &CheckUpdate| match &update.target {
        CheckTarget::Check(key) => key.node.clone(),
        CheckTarget::TtlChecksOf(key) => key.node.clone(),
    };
    match (&one.target, &other.target) {
        (CheckTarget::Check(one), CheckTarget::Check(other)) => one == other,
        _ => node(one) == node(other),
    }
}

#[cfg(test)]
mod tests {
    use sider_core::registry::{
        CheckStatus::{Critical, Passing},
        SessionExpiry, SessionId,
    };

    use super::{super::story::Story, *};

    const CHECK: &str = "chk:web-1:0";

    /// An instance that has been passing for long.
    fn story() -> Story {
        let mut story = Story::new();
        story.register("web-1", 1);
        story.report(CHECK, Passing);
        story.wait_ms(6_000);
        story
    }

    fn verdict(mut story: Story) -> Result<(), String> {
        story.wait_ms(2_000);
        check(&story.finish()).map_err(|violation| violation.what)
    }

    #[test]
    fn what_changes_something_is_written() {
        let mut story = story();
        story.commit(Story::status(CHECK, Critical));
        assert_eq!(verdict(story), Ok(()));
    }

    #[test]
    fn what_changes_nothing_is_not() {
        let mut story = story();
        story.commit(Story::status(CHECK, Passing));
        let complaint = verdict(story).expect_err("for nothing");
        assert!(complaint.contains("writes that chk:web-1:0 is passing, which it was"));
    }

    #[test]
    fn what_has_changed_a_moment_ago_may_be() {
        let mut story = story();
        story.commit(Story::status(CHECK, Critical));
        story.wait_ms(100);
        story.commit(Story::status(CHECK, Critical));
        assert_eq!(verdict(story), Ok(()));
    }

    #[test]
    fn what_meets_an_expiry_may_be() {
        let mut story = story();
        story.commit(Story::status(CHECK, Passing));
        story.expire(CHECK);
        assert_eq!(verdict(story), Ok(()));
    }

    #[test]
    fn sessions_are_renewed_in_the_log_only_where_they_expire() {
        let id = SessionId::parse("some-session").expect("a valid id");
        let renew = || Command::RenewSessions(vec![SessionId::parse("some-session").expect("a valid id")]);
        let mut story = story();
        story.commit(renew());
        let complaint = verdict(story).expect_err("for nothing");
        assert!(complaint.contains("renews sessions"));
        let mut story = self::story();
        story.commit(Command::ExpireSessions(vec![SessionExpiry {
            session: id,
            renewals_seen: 0,
        }]));
        story.commit(renew());
        assert_eq!(verdict(story), Ok(()));
    }
}
