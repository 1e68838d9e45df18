//! A check that servers run follows what is probed (`server::probes`): while all is calm its status is that of its machine
//! within two intervals and a bound, whoever leads, and it is never given a status that its machine did not have lately.

use std::{sync::Arc, time::Duration};

use sider_core::registry::{Check, CheckStatus, CheckTarget, CheckUpdate, Command};

use super::Violation;
use crate::{
    history::History,
    probes::{TAKES, is_probed, machine_of},
    promised::WRITE_TIMEOUT,
    time::{Time, drift_of},
    truth::{Entry, Point},
};

/// Its name.
pub const NAME: &str = "probes";

/// From the answer of a machine to the log while all is calm, beyond the messages that it takes.
const TOLD: Duration = Duration::from_millis(600);

/// See the module's page.
///
/// # Errors
/// A status came from nowhere, or was not there in time.
pub fn check(history: &History) -> Result<(), Violation> {
    if history.turns.is_empty() {
        return Ok(());
    }
    let entries = &history.truth().entries;
    for (position, entry) in entries.iter().enumerate() {
        let Some((Command::UpdateChecks(updates), _)) = &entry.command else {
            continue;
        };
        for update in updates {
            is_true(history, position, entry, update)?;
        }
    }
    follows(history)
}

/// How a machine was from some time on: its turns until then, the last of them first.
fn turns_until(history: &History, machine: u8, at: Time) -> impl Iterator<Item = &(Time, u8, bool)> {
    let turns = history.turns.iter().rev();
    turns.filter(move |(turned, whose, _)| *whose == machine && *turned <= at)
}

fn status_of(well: bool) -> CheckStatus {
    match well {
        true => CheckStatus::Passing,
        false => CheckStatus::Critical,
    }
}

/// Judges a status that was written: the machine had it not long before.
fn is_true(history: &History, position: Point, entry: &Entry, update: &CheckUpdate) -> Result<(), Violation> {
    let (CheckTarget::Check(key), Some(status)) = (&update.target, update.status) else {
        return Ok(());
    };
    let before = history.truth().state(position);
    let machine = before.check(key).and_then(|check| machine_of(&check.definition));
    let Some(machine) = machine.filter(|_| is_probed(key)) else {
        return Ok(());
    };
    let soon = TAKES + TOLD + history.bounds.latency * 12;
    let since = found_since(history, entry, soon);
    let mut had = Vec::new();
    for (turned, _, well) in turns_until(history, machine, entry.appended) {
        had.push(status_of(*well));
        if *turned < since {
            break;
        }
    }
    // Nobody is there before its first turn.
    let first = history.turns.iter().find(|(_, whose, _)| *whose == machine);
    if first.is_none_or(|(turned, _, _)| *turned >= since) {
        had.push(CheckStatus::Critical);
    }
    if had.contains(&status) {
        return Ok(());
    }
    let what = format!(
        "entry {} sets {} {}, which its machine was not since {since}",
        entry.log_index,
        key.id,
        status.as_str()
    );
    Err(Violation::new(NAME, entry.applied, what))
}

/// Not before this moment can have been found what an entry says, if that is told so soon while all is calm.
pub(super) fn found_since(history: &History, entry: &Entry, soon: Duration) -> Time {
    let since = entry.appended - soon;
    match history.truth().calm_between(since, entry.appended) {
        true => since,
        // It may have had to wait for a quorum.
        false => since - WRITE_TIMEOUT - drift_of(WRITE_TIMEOUT, history.bounds.drift_ppm),
    }
}

/// A check as it is in the end, if it is the same registration all along from one point to another, and nobody touches it.
pub(super) fn left_alone(
    history: &History,
    check: &Check,
    (first, last): (Point, Point),
) -> Option<Arc<Check>> {
    let truth = history.truth();
    let key = check.key();
    let at = |point: Point| {
        let same =
            |it: &&Arc<Check>| it.create_index == check.create_index && it.definition == check.definition;
        truth.state(point).check(&key).filter(same).cloned()
    };
    let touched =
        || truth.registers(&key, first..last) || truth.restored().any(|it| (first..=last).contains(&it));
    let (_, now) = (at(first)?, at(last)?);
    (!touched()).then_some(now)
}

/// While all is calm, each check is as its machine is.
fn follows(history: &History) -> Result<(), Violation> {
    let truth = history.truth();
    for (from, until) in &truth.calm {
        let first = truth.applied_until(*from);
        let registered = (first..truth.applied_until(*until)).map(|position| truth.entries[position].applied);
        let turned = history.turns.iter().map(|(at, _, _)| *at);
        let begins: Vec<Time> = registered.chain(turned).chain([*from]).collect();
        let mut seen: Vec<(u64, Time)> = Vec::new();
        for check in truth.state(truth.applied_until(*until)).checks.iter() {
            let Some(machine) = machine_of(&check.definition).filter(|_| is_probed(&check.key())) else {
                continue;
            };
            let patience = patience(history, check);
            for begin in begins
                .iter()
                .filter(|it| *from <= **it && **it + patience < *until)
            {
                if !seen.contains(&(check.create_index, *begin)) {
                    seen.push((check.create_index, *begin));
                    is_in_step(history, check, machine, *begin, *begin + patience)?;
                }
            }
        }
    }
    Ok(())
}

/// How long a check may differ from its machine: a run that has just begun, the next one, and the way to the log.
fn patience(history: &History, check: &Check) -> Duration {
    let interval = check.definition.interval;
    let runs = interval * 2 + TAKES * 2;
    runs + drift_of(runs, history.bounds.drift_ppm) + TOLD + history.bounds.latency * 12
}

/// If neither the check nor its machine changed for so long, they are in step.
fn is_in_step(history: &History, check: &Check, machine: u8, from: Time, due: Time) -> Result<(), Violation> {
    let truth = history.truth();
    let (first, last) = (truth.applied_until(from), truth.applied_until(due));
    let Some(now) = left_alone(history, check, (first, last)) else {
        return Ok(());
    };
    let turns: Vec<_> = turns_until(history, machine, due).collect();
    if turns.first().is_some_and(|(turned, _, _)| *turned > from) {
        return Ok(());
    }
    let wanted = turns
        .first()
        .map_or(CheckStatus::Critical, |(_, _, well)| status_of(*well));
    if now.status == wanted {
        return Ok(());
    }
    let what = format!(
        "{} is {} at {due}, and its machine has been {} since before {from}",
        check.id,
        now.status.as_str(),
        wanted.as_str()
    );
    Err(Violation::new(NAME, due, what))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{super::story::Story, *};
    use crate::probes::url;

    /// It is calm, and a check of a machine that has been well for long is registered.
    fn story() -> Story {
        let mut story = Story::new();
        story.wait_ms(4_000);
        turn(&mut story, true);
        story.wait_ms(10);
        register(&mut story, "500ms");
        story
    }

    fn register(story: &mut Story, interval: &str) {
        story.register_probed(json!({ "CheckID": "probed-0", "HTTP": url(0), "Interval": interval }));
    }

    fn turn(story: &mut Story, well: bool) {
        let now = story.now();
        story.record().turns.push((now, 0, well));
    }

    fn find(story: &mut Story, status: CheckStatus) {
        story.find("probed-0", status, "");
    }

    fn violation(story: Story) -> Option<String> {
        check(&story.finish()).err().map(|violation| violation.what)
    }

    #[test]
    fn a_check_that_follows_its_machine_is_good() {
        let mut story = story();
        story.wait_ms(600);
        find(&mut story, CheckStatus::Passing);
        story.wait_ms(5_000);
        turn(&mut story, false);
        story.wait_ms(700);
        find(&mut story, CheckStatus::Critical);
        story.wait_ms(5_000);
        assert_eq!(violation(story), None);
    }

    #[test]
    fn a_check_that_stays_behind_is_found() {
        let mut story = story();
        story.wait_ms(600);
        find(&mut story, CheckStatus::Passing);
        turn(&mut story, false);
        story.wait_ms(6_000);
        let found = violation(story).expect("it stays behind");
        assert!(
            found.contains("is passing") && found.contains("critical since"),
            "{found}"
        );
    }

    #[test]
    fn a_check_that_is_never_run_is_found() {
        let mut story = story();
        story.wait_ms(6_000);
        assert!(violation(story).expect("nobody runs it").contains("is critical"));
    }

    #[test]
    fn a_status_from_nowhere_is_found() {
        let mut story = story();
        story.wait_ms(2_000);
        find(&mut story, CheckStatus::Critical);
        assert!(
            violation(story)
                .expect("it is well")
                .contains("which its machine was not")
        );
    }

    #[test]
    fn what_is_registered_anew_has_its_time() {
        let mut story = story();
        story.wait_ms(600);
        find(&mut story, CheckStatus::Passing);
        story.wait_ms(3_000);
        turn(&mut story, false);
        story.wait_ms(400);
        register(&mut story, "2s");
        story.wait_ms(2_000);
        find(&mut story, CheckStatus::Critical);
        story.wait_ms(3_000);
        assert_eq!(violation(story), None);
    }
}
