//! A check that asks for it takes its instance away when it was critical for so long: not earlier, counted from when it turned
//! so or from its leader's election, and while it is calm not later than the stated bound (SPEC §4).

use std::time::Duration;

use sider_core::registry::{Check, CheckKey, CheckStatus, Command};

use super::Violation;
use crate::{
    history::History,
    promised::EXPIRY_BOUND,
    time::{Time, drift_of},
    truth::Point,
};

/// Its name.
pub const NAME: &str = "reaping";

/// See the module's page.
///
/// # Errors
/// An instance was taken away early, or not in time.
pub fn check(history: &History) -> Result<(), Violation> {
    let truth = history.truth();
    for position in 0..truth.entries.len() {
        let Some((Command::DeregisterCritical(expiries), _)) = &truth.entries[position].command else {
            continue;
        };
        let (before, after) = (truth.state(position), truth.state(position + 1));
        let gone = |key: &CheckKey| before.check(key).filter(|_| after.check(key).is_none());
        for check in expiries.iter().filter_map(|expiry| gone(&expiry.check)) {
            not_early(history, position, check)?;
        }
    }
    for (from, until) in &truth.calm {
        not_late(history, *from, *until)?;
    }
    Ok(())
}

fn not_early(history: &History, position: usize, check: &Check) -> Result<(), Violation> {
    let truth = history.truth();
    let entry = &truth.entries[position];
    let after = check.definition.deregister_critical_service_after;
    let critical = critical_since(history, position, &check.key());
    let leader = truth.leaders.iter().find(|leader| leader.term == entry.term);
    let since = leader.map_or(critical, |leader| critical.max(leader.from));
    let paused = truth.leader_paused(entry.term, since, entry.applied);
    let least = after.saturating_sub(drift_of(after, history.bounds.drift_ppm)) + paused;
    if entry.applied < since + least {
        let what = format!(
            "{} takes its instance away by entry {} only {:?} after {since}, when it was critical under this leader; \
             it asks for {after:?}, and its leader stood still for {paused:?}",
            check.id,
            entry.log_index,
            entry.applied.since(since),
        );
        return Err(Violation::new(NAME, entry.applied, what));
    }
    Ok(())
}

/// When a check that is critical at a point turned so, or was registered, be it again and otherwise.
fn critical_since(history: &History, point: Point, key: &CheckKey) -> Time {
    let truth = history.truth();
    let same = |at: &Point| {
        let state = truth.state(*at);
        let now = truth.state(point);
        match (state.check(key), now.check(key)) {
            (Some(then), Some(now)) => {
                (then.create_index, then.status) == (now.create_index, now.status)
                    && is_registered_alike(then, now)
            }
            (then, now) => then.is_none() && now.is_none(),
        }
    };
    let first = (0..=point).rev().take_while(same).last().unwrap_or(point);
    first.checked_sub(1).map_or(Time(0), |at| {
        truth.entries[at].appended.min(truth.entries[at].earliest)
    })
}

/// Whether what a registration says of a check is the same in both: only another one begins its time anew.
fn is_registered_alike(one: &Check, other: &Check) -> bool {
    (&one.name, &one.notes, &one.definition, &one.instance)
        == (&other.name, &other.notes, &other.definition, &other.instance)
}

/// Looks at every check that asks for it, in a span in which all is calm.
fn not_late(history: &History, from: Time, until: Time) -> Result<(), Violation> {
    let truth = history.truth();
    let (first, last) = (truth.applied_until(from), truth.applied_until(until));
    for point in first..=last {
        let since = if point == first {
            from
        } else {
            truth.entries[point - 1].applied
        };
        let state = truth.state(point);
        let asking = state.checks.iter().filter(|check| {
            check.status == CheckStatus::Critical
                && check.instance.is_some()
                && !check.definition.deregister_critical_service_after.is_zero()
        });
        for check in asking {
            let after = check.definition.deregister_critical_service_after;
            let slack = history.bounds.latency * 6 + Duration::from_millis(100);
            let due = since + after + drift_of(after, history.bounds.drift_ppm) + EXPIRY_BOUND + slack;
            if due >= until {
                continue;
            }
            let kept = |check: &Check| (check.create_index, check.status);
            let (key, last) = (check.key(), truth.applied_until(due));
            let lasts = (point..=last).all(|at| {
                let state = truth.state(at);
                state.check(&key).is_some_and(|it| kept(it) == kept(check))
            });
            // A registration starts the time anew; that it is reported again does not.
            if lasts && !truth.registers(&key, point..last) {
                let what = format!(
                    "{} is critical since {since}, and asks for {after:?}; it is there at {due}",
                    check.id
                );
                return Err(Violation::new(NAME, due, what));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{super::story::Story, *};

    const CHECK: &str = "chk:web-1:0";
    const AFTER_MS: u64 = 1_000;

    /// An instance that is to go when it is critical for a second; it is, from the start.
    fn story() -> Story {
        let mut story = Story::new();
        story.wait_ms(5_000);
        story.register_reaped("web-1", 1, AFTER_MS);
        story
    }

    #[test]
    fn staying_is_not_fine_on_any_node() {
        let mut story = Story::new();
        story.wait_ms(5_000);
        let mut command = Story::registration("web-1", 1);
        if let Command::Register(registrations) = &mut command {
            let definition = &mut registrations[0].checks[0].definition;
            definition.deregister_critical_service_after = Duration::from_millis(AFTER_MS);
        }
        story.commit(Story::on_node("n1", command));
        story.wait_ms(20_000);
        assert!(complaint(story).contains("asks for"));
    }

    fn complaint(story: Story) -> String {
        check(&story.finish()).expect_err("not in time").what
    }

    #[test]
    fn going_in_time_is_fine() {
        let mut story = story();
        story.wait_ms(AFTER_MS + 100);
        story.reap(CHECK);
        story.wait_ms(10_000);
        assert_eq!(check(&story.finish()), Ok(()));
    }

    #[test]
    fn going_early_is_not() {
        let mut story = story();
        story.wait_ms(AFTER_MS - 100);
        story.reap(CHECK);
        assert!(complaint(story).contains("takes its instance away by entry 2 only"));
    }

    #[test]
    fn counting_from_before_it_turned_critical_is_not() {
        let mut story = story();
        story.report(CHECK, CheckStatus::Passing);
        story.wait_ms(900);
        story.report(CHECK, CheckStatus::Critical);
        story.wait_ms(500);
        story.reap(CHECK);
        assert!(complaint(story).contains("takes its instance away"));
    }

    #[test]
    fn counting_from_before_it_was_registered_otherwise_is_not() {
        let mut story = story();
        story.wait_ms(900);
        story.register_reaped("web-1", 2, AFTER_MS + 1);
        story.wait_ms(500);
        story.reap(CHECK);
        assert!(complaint(story).contains("takes its instance away"));
    }

    #[test]
    fn going_soon_after_an_election_is_not() {
        let mut story = story();
        story.wait_ms(900);
        story.elect(2, 2);
        story.wait_ms(500);
        story.reap(CHECK);
        assert!(complaint(story).contains("under this leader"));
    }

    #[test]
    fn staying_is_not() {
        let mut story = story();
        story.wait_ms(10_000);
        assert!(complaint(story).contains("it is there at"));
    }

    #[test]
    fn staying_while_it_is_not_critical_is_fine() {
        let mut story = story();
        story.wait_ms(500);
        story.report(CHECK, CheckStatus::Passing);
        story.wait_ms(10_000);
        assert_eq!(check(&story.finish()), Ok(()));
    }
}
