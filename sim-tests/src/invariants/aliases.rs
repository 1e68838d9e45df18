//! A check that is an alias follows what it is an alias of (`server::probes`): while all is calm its status is that of the other
//! within two looks and a bound, whoever leads; and it is never given a status, or a reason for it, that the other did not
//! have lately.

use std::time::Duration;

use sider_core::registry::{Check, CheckStatus, CheckTarget, CheckUpdate, Command};

use super::{
    Violation,
    probes::{found_since, left_alone},
};
use crate::{
    aliases::{alias_of, followed},
    history::History,
    own_checks::Alias,
    probes::is_probed,
    promised::ALIAS_INTERVAL,
    time::{Time, drift_of},
    truth::{Entry, Point},
};

/// Its name.
pub const NAME: &str = "aliases";

/// From a look at the other to the log while all is calm, beyond the messages that it takes.
const TOLD: Duration = Duration::from_millis(600);

/// See the module's page.
///
/// # Errors
/// A status came from nowhere, or was not there in time.
pub fn check(history: &History) -> Result<(), Violation> {
    let entries = &history.truth().entries;
    let is_alias = |check: &Check| is_probed(&check.key()) && alias_of(&check.definition).is_some();
    let last = |entry: &Entry| entry.state.checks.iter().any(|check| is_alias(check));
    if !entries.iter().any(last) {
        return Ok(());
    }
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

/// Judges a status that was written: the other had it not long before.
fn is_true(history: &History, position: Point, entry: &Entry, update: &CheckUpdate) -> Result<(), Violation> {
    let (CheckTarget::Check(key), Some(status)) = (&update.target, update.status) else {
        return Ok(());
    };
    let truth = history.truth();
    let before = truth.state(position);
    let Some((check, alias)) = before
        .check(key)
        .filter(|check| is_probed(&check.key()))
        .and_then(|check| Some((check, alias_of(&check.definition)?)))
    else {
        return Ok(());
    };
    let soon = TOLD + history.bounds.latency * 12;
    let since = found_since(history, entry, soon);
    let since = truth.applied_before(since).min(position);
    let had = (since..=position).any(|point| {
        let state = truth.state(point);
        // A look that was under way when the check was registered anew tells of what it was an alias of until then.
        let of_then = state.check(key).and_then(|check| alias_of(&check.definition));
        let (then, said) = followed(&state, check, of_then.as_ref().unwrap_or(&alias));
        let told = update.output.as_ref();
        then == status && told.is_none_or(|told| said.contains(told))
    });
    if had {
        return Ok(());
    }
    let what = format!(
        "entry {} sets {} {}, {:?}, which what it is an alias of was not lately: {:?}",
        entry.log_index,
        key.id,
        status.as_str(),
        update.output,
        followed(&before, check, &alias)
    );
    Err(Violation::new(NAME, entry.applied, what))
}

/// While all is calm, each alias is as the other is.
fn follows(history: &History) -> Result<(), Violation> {
    let truth = history.truth();
    let patience = patience(history);
    for (from, until) in &truth.calm {
        let (first, last) = (truth.applied_until(*from), truth.applied_until(*until));
        let changed = (first..last).map(|position| truth.entries[position].applied);
        let begins: Vec<Time> = changed.chain([*from]).collect();
        for check in truth.state(last).checks.iter().filter(|it| is_probed(&it.key())) {
            let Some(alias) = alias_of(&check.definition) else {
                continue;
            };
            for begin in begins
                .iter()
                .filter(|it| *from <= **it && **it + patience < *until)
            {
                is_in_step(history, check, &alias, *begin, *begin + patience)?;
            }
        }
    }
    Ok(())
}

/// How long an alias may differ from the other: a look that has just been taken, the next one, and the way to the log.
fn patience(history: &History) -> Duration {
    let looks = ALIAS_INTERVAL * 2;
    looks + drift_of(looks, history.bounds.drift_ppm) + TOLD + history.bounds.latency * 12
}

/// If neither the check nor the status of the other changed for so long, they are in step.
fn is_in_step(
    history: &History,
    check: &Check,
    alias: &Alias,
    from: Time,
    due: Time,
) -> Result<(), Violation> {
    let truth = history.truth();
    let (first, last) = (truth.applied_until(from), truth.applied_until(due));
    let Some(now) = left_alone(history, check, (first, last)) else {
        return Ok(());
    };
    let status = |point: Point| followed(&truth.state(point), check, alias).0;
    let wanted = status(first);
    if now.status == wanted || (first..=last).any(|point| status(point) != wanted) {
        return Ok(());
    }
    let what = format!(
        "{} is {} at {due}, and what it is an alias of has been {} since before {from}",
        check.id,
        now.status.as_str(),
        wanted.as_str()
    );
    Err(Violation::new(NAME, due, what))
}

/// Statuses that were written of aliases, each with what they follow as it was then.
pub(crate) fn taken_on(history: &History) -> Vec<(CheckStatus, Alias)> {
    let truth = history.truth();
    let mut taken = Vec::new();
    for (position, entry) in truth.entries.iter().enumerate() {
        let Some((Command::UpdateChecks(updates), _)) = &entry.command else {
            continue;
        };
        let before = truth.state(position);
        taken.extend(updates.iter().filter_map(|update| {
            let CheckTarget::Check(key) = &update.target else {
                return None;
            };
            let check = before.check(key).filter(|check| is_probed(&check.key()))?;
            Some((update.status?, alias_of(&check.definition)?))
        }));
    }
    taken
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{super::story::Story, *};

    /// It is calm, and there is an instance and a check that is an alias of it.
    fn story() -> Story {
        let mut story = Story::new();
        story.wait_ms(4_000);
        story.register("web-1", 1);
        story.register_probed(
            json!({ "CheckID": "probed-alias-0", "AliasService": "web-1", "Status": "critical" }),
        );
        story
    }

    fn find(story: &mut Story, status: CheckStatus, output: &str) {
        story.find("probed-alias-0", status, output);
    }

    fn violation(story: Story) -> Option<String> {
        check(&story.finish()).err().map(|violation| violation.what)
    }

    #[test]
    fn an_alias_that_follows_is_good() {
        let mut story = story();
        story.wait_ms(500);
        story.report("chk:web-1:0", CheckStatus::Passing);
        story.wait_ms(1_000);
        find(&mut story, CheckStatus::Passing, "All checks passing.");
        story.wait_ms(4_000);
        story.deregister("web-1");
        story.wait_ms(1_000);
        find(
            &mut story,
            CheckStatus::Critical,
            "Service web-1 could not be found on node sider",
        );
        story.wait_ms(4_000);
        assert_eq!(violation(story), None);
    }

    #[test]
    fn an_alias_that_stays_behind_is_found() {
        let mut story = story();
        story.report("chk:web-1:0", CheckStatus::Passing);
        story.wait_ms(6_000);
        let found = violation(story).expect("it stays behind");
        assert!(found.contains("is critical at"), "{found}");
    }

    #[test]
    fn a_status_or_a_reason_from_nowhere_is_found() {
        for (status, output) in [
            (CheckStatus::Warning, "All checks passing."),
            (CheckStatus::Passing, "No checks found."),
        ] {
            let mut story = story();
            story.report("chk:web-1:0", CheckStatus::Passing);
            story.wait_ms(2_000);
            find(&mut story, status, output);
            let found = violation(story).expect("nobody was so");
            assert!(found.contains("was not lately"), "{found}");
        }
    }
}
