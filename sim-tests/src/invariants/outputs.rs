//! The output of a check is the newest that was reported (`renewals.rs`): one that the leader held back is not written over
//! a newer one or over the word of an expiry, none is written that nobody reported, and while all is calm an acknowledged one is
//! there when the time for which outputs are held back is over.
//!
//! Outputs change without an index and without an operation of their own in the log, so no other judge looks at their order.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use sider_core::registry::{Check, CheckKey, CheckStatus, CheckTarget, CheckUpdate, Command, InstanceId};

use super::Violation;
use crate::{
    history::{History, Operation, Outcome},
    matching::is_shared_check,
    operation::{Op, Target},
    promised::{EXPIRY_BOUND, OUTPUT_HOLD},
    time::drift_of,
    truth::Entry,
};

/// Its name.
pub const NAME: &str = "outputs";

/// What was decided before a newer report was received may still be on its way to the log for so long.
const UNDER_WAY: Duration = Duration::from_millis(500);

/// See the module's page.
///
/// # Errors
/// An output came from nowhere, came back, or never came.
pub fn check(history: &History) -> Result<(), Violation> {
    let told = told(history);
    let mut expired = BTreeMap::new();
    for (position, entry) in history.truth().entries.iter().enumerate() {
        match &entry.command {
            Some((Command::UpdateChecks(updates), _)) => updates
                .iter()
                .try_for_each(|update| held_back(history, &told, (position, entry), update, &expired))?,
            Some((Command::ExpireChecks(expiries), _)) => {
                let state = history.truth().state(position);
                let is_alive = |key| {
                    state
                        .check(key)
                        .is_some_and(|it| it.status != CheckStatus::Critical)
                };
                let keys = expiries.iter().map(|expiry| &expiry.check);
                expired.extend(keys.filter(|key| is_alive(key)).map(|key| (key, entry)));
            }
            _ => {}
        }
    }
    told.iter().try_for_each(|it| it.arrives(history, &told))
}

/// An output that an operation reported for a check, or for all TTL checks of an instance.
struct Reported<'a> {
    operation: &'a Operation,
    target: &'a Target,
    output: String,
}

/// Every output that may have been reported. Who gives none reports an empty one, in every form.
fn told(history: &History) -> Vec<Reported<'_>> {
    let mut told = Vec::new();
    for operation in &history.operations {
        let Op::Report { reports, .. } = &operation.op else {
            continue;
        };
        if matches!(operation.outcome, Outcome::Failed(_)) {
            continue;
        }
        told.extend(reports.iter().map(|report| Reported {
            operation,
            target: &report.target,
            output: report.output.clone().unwrap_or_default(),
        }));
    }
    told
}

/// Judges an output that was written by itself: it was held back. `expired` says what last told a check to expire.
fn held_back(
    history: &History,
    told: &[Reported<'_>],
    (position, entry): (usize, &Entry),
    update: &CheckUpdate,
    expired: &BTreeMap<&CheckKey, &Entry>,
) -> Result<(), Violation> {
    let (None, Some(output), CheckTarget::Check(key)) = (update.status, &update.output, &update.target)
    else {
        return Ok(());
    };
    if !is_of_clients(key) {
        return Ok(());
    }
    let owners = owners(history, key);
    let about = |it: &&Reported<'_>| it.is_about(key, &owners) && it.operation.invoked <= entry.appended;
    let from: Vec<&Reported<'_>> = told
        .iter()
        .filter(about)
        .filter(|it| it.output == *output)
        .collect();
    let Some(last) = from.iter().map(|it| it.operation.returned).max() else {
        let what = format!(
            "entry {} sets the output {output:?} of {}, which nobody reported",
            entry.log_index, key.id
        );
        return Err(Violation::new(NAME, entry.applied, what));
    };
    let is_expired =
        |check: &Check| check.status == CheckStatus::Critical && check.output.starts_with("TTL expired");
    if let Some(expiry) = expired.get(key)
        && history
            .truth()
            .state(position)
            .check(key)
            .is_some_and(|check| is_expired(check))
        && last < expiry.earliest
        && from.iter().all(|it| it.is_acknowledged())
        && expiry.applied + UNDER_WAY < entry.appended
        && history.truth().calm_between(expiry.earliest, entry.applied)
    {
        let what = format!(
            "entry {} sets the output of {} back to {output:?}, though it expired at {}",
            entry.log_index, key.id, expiry.applied
        );
        let operations = from.iter().map(|it| it.operation.id);
        return Err(Violation::of(NAME, entry.applied, operations, what));
    }
    let newer = told.iter().filter(about).find(|it| {
        it.is_acknowledged()
            && matches!(it.target, Target::Check(_))
            && it.output != *output
            && it.operation.invoked > last
            && it.operation.returned + UNDER_WAY < entry.appended
            && history.truth().calm_between(it.operation.invoked, entry.applied)
    });
    match newer {
        None => Ok(()),
        Some(newer) => {
            let what = format!(
                "entry {} sets the output of {} back to {output:?}, though {:?} was acknowledged at {}",
                entry.log_index, key.id, newer.output, newer.operation.returned
            );
            let operations = from.iter().map(|it| it.operation.id).chain([newer.operation.id]);
            Err(Violation::of(NAME, entry.applied, operations, what))
        }
    }
}

impl Reported<'_> {
    /// Whether it may be about a check of these owners.
    fn is_about(&self, key: &CheckKey, owners: &BTreeSet<InstanceId>) -> bool {
        match self.target {
            Target::Check(id) => is_shared_check(key, id),
            Target::Instance(id) => owners.iter().any(|owner| owner.as_str() == id),
        }
    }

    fn is_acknowledged(&self) -> bool {
        self.operation
            .answer()
            .is_some_and(|answer| !answer.refused.contains(&true))
    }

    /// Judges whether the output is there in time, if nothing else happens to the check.
    fn arrives(&self, history: &History, told: &[Reported<'_>]) -> Result<(), Violation> {
        let truth = history.truth();
        let hold = OUTPUT_HOLD + drift_of(OUTPUT_HOLD, history.bounds.drift_ppm);
        let due = self.operation.returned + hold + EXPIRY_BOUND + history.bounds.latency * 6;
        if !self.is_acknowledged() || !truth.calm_between(self.operation.invoked, due) {
            return Ok(());
        }
        let Target::Check(id) = self.target else {
            return Ok(());
        };
        let check_at = |point| {
            let state = truth.state(point);
            let found = state
                .checks
                .iter()
                .find(|check| is_shared_check(&check.key(), id));
            found.cloned()
        };
        let Some(key) = check_at(truth.applied_until(due)).map(|check| check.key()) else {
            return Ok(());
        };
        let owners = owners(history, &key);
        let is_other = |it: &&Reported<'_>| {
            !std::ptr::eq(*it, self)
                && it.operation.invoked <= due
                && it.operation.returned >= self.operation.invoked
                && it.is_about(&key, &owners)
        };
        // A registration sets the output, too, and may come after a report that overlaps it.
        if truth.registers(
            &key,
            truth.applied_until(self.operation.invoked)..truth.applied_until(due),
        ) {
            return Ok(());
        }
        // Reported again, it is still written in time, or what was reported since.
        let others: BTreeSet<&str> = told
            .iter()
            .filter(is_other)
            .map(|it| it.output.as_str())
            .collect();
        let points = truth.applied_until(self.operation.returned)..=truth.applied_until(due);
        let mut checks = points.map(check_at);
        let Some(Some(first)) = checks.next() else {
            return Ok(());
        };
        let kept = |check: &sider_core::registry::Check| {
            (check.create_index, check.renewals, check.status)
                == (first.create_index, first.renewals, first.status)
        };
        let stays = checks.all(|check| check.is_some_and(|check| kept(&check)));
        let last = check_at(truth.applied_until(due));
        match last {
            // What it was before may have been reported again, or is not known to have been put off.
            Some(check)
                if stays
                    && check.output != self.output
                    && !others.contains(check.output.as_str())
                    && !others.contains(first.output.as_str()) =>
            {
                let what = format!(
                    "the output {:?} of {} was acknowledged at {}; by {due} it is {:?}",
                    self.output, check.id, self.operation.returned, check.output
                );
                Err(Violation::of(NAME, due, [self.operation.id], what))
            }
            _ => Ok(()),
        }
    }
}

/// Every instance that ever had a check: a report of one may have been about it.
fn owners(history: &History, key: &CheckKey) -> BTreeSet<InstanceId> {
    let mut owners = BTreeSet::new();
    let mut last = None;
    for entry in &history.truth().entries {
        // Entries that change nothing share their state with the one before.
        if last.is_none_or(|last| !Arc::ptr_eq(last, &entry.state)) {
            owners.extend(entry.state.check(key).and_then(|check| check.instance.clone()));
        }
        last = Some(&entry.state);
    }
    owners
}

/// Whether only clients report on a check: an agent does on those of its own node.
fn is_of_clients(key: &CheckKey) -> bool {
    key.node.as_str() == crate::matching::SHARED_NODE && !crate::probes::is_probed(key)
}

#[cfg(test)]
mod tests {
    use super::{super::story::Story, *};

    const CHECK: &str = "chk:web-1:0";

    /// It is calm, and an instance passes.
    fn story() -> Story {
        let mut story = Story::new();
        story.wait_ms(5_000);
        story.register("web-1", 1);
        story.report(CHECK, CheckStatus::Passing);
        story
    }

    fn complaint(story: Story) -> String {
        check(&story.finish()).expect_err("not the newest").what
    }

    #[test]
    fn held_back_and_then_written_is_fine() {
        let mut story = story();
        story.report_output(CHECK, "one");
        story.wait_ms(4_000);
        story.write_output(CHECK, "one");
        story.report_output(CHECK, "two");
        story.wait_ms(5_000);
        story.write_output(CHECK, "two");
        story.wait_ms(10_000);
        assert_eq!(check(&story.finish()), Ok(()));
    }

    #[test]
    fn what_nobody_reported_is_not() {
        let mut story = story();
        story.report_output(CHECK, "one");
        story.write_output(CHECK, "other");
        assert!(complaint(story).contains("which nobody reported"));
    }

    #[test]
    fn an_older_one_after_a_newer_one_is_not() {
        let mut story = story();
        story.report_output(CHECK, "one");
        story.wait_ms(100);
        story.report_output(CHECK, "two");
        story.write_output(CHECK, "two");
        story.wait_ms(1_000);
        story.write_output(CHECK, "one");
        story.wait_ms(10_000);
        assert!(complaint(story).contains("back to \"one\""));
    }

    #[test]
    fn an_older_one_over_the_word_of_an_expiry_is_not() {
        let expired = |report_again: bool, after_ms: u64| {
            let mut story = story();
            story.report_output(CHECK, "one");
            story.wait_ms(2_000);
            story.expire(CHECK);
            story.wait_ms(10);
            if report_again {
                story.report_output(CHECK, "one");
            }
            story.wait_ms(after_ms);
            story.write_output(CHECK, "one");
            story.wait_ms(10_000);
            story
        };
        assert!(complaint(expired(false, 1_000)).contains("though it expired at"));
        assert_eq!(check(&expired(false, 300).finish()), Ok(()), "it was under way");
        assert_eq!(
            check(&expired(true, 1_000).finish()),
            Ok(()),
            "it was reported again"
        );
    }

    #[test]
    fn under_faults_the_order_is_not_judged() {
        let mut story = story();
        story.report_output(CHECK, "one");
        story.wait_ms(100);
        story.report_output(CHECK, "two");
        story.fault(crate::history::FaultKind::Disturbing, 2, 500);
        story.wait_ms(1_000);
        story.write_output(CHECK, "one");
        story.wait_ms(10_000);
        assert_eq!(check(&story.finish()), Ok(()));
    }

    #[test]
    fn one_that_never_comes_is_not() {
        let mut story = story();
        story.report_output(CHECK, "one");
        story.wait_ms(10_000);
        assert!(complaint(story).contains("\"one\" of chk:web-1:0 was acknowledged"));
    }

    #[test]
    fn one_that_a_registration_may_have_replaced_need_not_come() {
        let mut story = story();
        story.wait_ms(100);
        story.register("web-1", 2);
        let report = story.report_output(CHECK, "one");
        story.stretch(report, 50, 0);
        story.wait_ms(10_000);
        assert_eq!(check(&story.finish()), Ok(()));
    }

    #[test]
    fn one_that_is_overtaken_need_not_come() {
        let mut story = story();
        story.report_output(CHECK, "one");
        story.wait_ms(2_000);
        story.report_output(CHECK, "two");
        story.wait_ms(2_000);
        story.write_output(CHECK, "two");
        story.wait_ms(10_000);
        assert_eq!(check(&story.finish()), Ok(()));
    }
}
