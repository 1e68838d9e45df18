//! A write is carried out once, or never: an acknowledged one is in the committed log, applied before it was
//! acknowledged; one that certainly failed is not; none is there twice, and nothing is there that nobody asked for
//! (SPEC §3, DESIGN §7 rule 5).

use super::Violation;
use crate::{
    history::{History, Outcome},
    matching::Source,
    words,
};

/// Its name.
pub const NAME: &str = "exactly_once";

/// See the module's page.
///
/// # Errors
/// An entry has no operation, or an acknowledged write no entry.
pub fn check(history: &History) -> Result<(), Violation> {
    let truth = history.truth();
    for (entry, source) in truth.entries.iter().zip(&truth.sources) {
        if *source == Source::Nobody {
            let command = entry.command.as_ref().map(|(command, _)| words::command(command));
            let command = command.unwrap_or_else(|| "nothing that it can read".to_owned());
            let what = format!(
                "entry {} was applied twice, or though it had failed, or nobody asked for it: {command}",
                entry.log_index
            );
            return Err(Violation::new(NAME, entry.applied, what));
        }
    }
    for operation in &history.operations {
        let owed = operation.op.is_logged();
        if owed && matches!(operation.outcome, Outcome::Done(_)) && truth.entry_of(operation.id).is_none() {
            let what = format!(
                "{} was acknowledged, but no such entry was applied by then",
                operation.op
            );
            return Err(Violation::of(NAME, operation.returned, [operation.id], what));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{super::story::Story, *};

    fn complaint(story: Story) -> String {
        check(&story.finish()).expect_err("not once").what
    }

    #[test]
    fn once_or_unknown_or_failed_and_never_is_fine() {
        let mut story = Story::new();
        let first = story.register("web-1", 1);
        story.register("web-1", 1); // The same again: two entries.
        let lost = story.register("web-2", 2);
        story.set_outcome(lost, Outcome::Unknown("timed out".into()));
        story.ask_to_register("web-3", 3, Outcome::Unknown("timed out".into()));
        story.ask_to_register("web-4", 4, Outcome::Failed("No cluster leader".into()));
        story.deregister("web-1");
        assert_eq!(first, 0);
        assert_eq!(check(&story.finish()), Ok(()));
    }

    #[test]
    fn twice_is_not() {
        let mut story = Story::new();
        story.register("web-1", 1);
        story.deregister("web-1");
        story.commit(Story::registration("web-1", 1));
        assert!(complaint(story).contains("entry 3 was applied twice"));
    }

    #[test]
    fn failed_and_yet_applied_is_not() {
        let mut story = Story::new();
        let operation = story.register("web-1", 1);
        story.set_outcome(operation, Outcome::Failed("No cluster leader".into()));
        assert!(complaint(story).contains("entry 1 was applied"));
    }

    #[test]
    fn a_status_that_nobody_reported_is_not() {
        let mut story = Story::new();
        story.register("web-1", 1);
        story.commit(Story::status(
            "chk:web-1:0",
            sider_core::registry::CheckStatus::Passing,
        ));
        assert!(complaint(story).contains("nobody asked for it"));
    }

    #[test]
    fn a_status_that_is_written_twice_is_not() {
        use sider_core::registry::CheckStatus::{Critical, Passing};
        let mut story = Story::new();
        story.register("web-1", 1);
        story.report("chk:web-1:0", Passing);
        let failing = story.report("chk:web-1:0", Critical);
        story.report("chk:web-1:0", Passing);
        // Nobody knows what came of it, so it may come late, but not again.
        story.set_outcome(failing, Outcome::Unknown("timed out".into()));
        story.commit(Story::status("chk:web-1:0", Critical));
        assert!(complaint(story).contains("entry 5 was applied twice"));
    }

    #[test]
    fn a_status_that_is_written_after_its_report_was_acknowledged_is_not() {
        use sider_core::registry::CheckStatus::Passing;
        let mut story = Story::new();
        story.register("web-1", 1);
        story.acknowledge_report("chk:web-1:0", Passing);
        story.wait_ms(10);
        story.commit(Story::status("chk:web-1:0", Passing));
        assert!(complaint(story).contains("entry 2 was applied twice"));
    }

    #[test]
    fn acknowledged_and_nowhere_is_not() {
        let mut story = Story::new();
        story.acknowledge_registration("web-1", 1, 2);
        assert!(complaint(story).contains("was acknowledged, but no such entry"));
    }

    #[test]
    fn acknowledged_before_it_was_applied_is_not() {
        let mut story = Story::new();
        story.acknowledge_registration("web-1", 1, 2);
        story.commit(Story::registration("web-1", 1));
        assert!(check(&story.finish()).is_err());
    }

    #[test]
    fn another_index_than_that_of_its_entry_is_not() {
        let mut story = Story::new();
        let operation = story.register("web-1", 1);
        story.change_answer(operation, |answer| answer.index = Some(77));
        assert!(check(&story.finish()).is_err());
    }

    /// A heartbeat and a report about one check at the same time, each with an entry of its own: which one is whose can't be
    /// told, but both fit only if the first one is not given to the wrong one.
    fn heartbeat_and_report(heartbeat_returned_ms: u64, report_returned_ms: u64) -> Story {
        use sider_core::registry::{
            CheckStatus::{Critical, Passing},
            CheckTarget, Command, InstanceId, InstanceKey, Namespace, NodeName,
        };
        let mut story = Story::new();
        story.register("web-1", 1); // Entry 1.
        let heartbeat = story.acknowledge_report("web-1", Passing);
        if let crate::operation::Op::Report { form, reports } = &mut story.operation(heartbeat).op {
            *form = crate::operation::ReportForm::Heartbeat;
            reports[0].target = crate::operation::Target::Instance("web-1".into());
        }
        let report = story.report("chk:web-1:0", Passing); // Entry 2.
        let mut beat = Story::status("chk:web-1:0", Passing);
        if let Command::UpdateChecks(updates) = &mut beat {
            updates[0].target = CheckTarget::TtlChecksOf(InstanceKey {
                namespace: Namespace::default(),
                node: NodeName::parse(crate::matching::SHARED_NODE).expect("a valid name"),
                id: InstanceId::parse("web-1").expect("a valid id"),
            });
        }
        story.commit(beat); // Entry 3.
        let failing = story.report("chk:web-1:0", Critical); // Entry 4.
        for operation in [heartbeat, report, failing] {
            story.change_answer(operation, |answer| answer.index = None);
        }
        story.unseen(2, 20, 90);
        story.unseen(3, 60, 90);
        story.unseen(4, 61, 90);
        story.move_to(heartbeat, 10, heartbeat_returned_ms);
        story.move_to(report, 10, report_returned_ms);
        story.move_to(failing, 10, 95);
        story
    }

    #[test]
    fn entries_are_given_in_whatever_way_explains_all_of_them() {
        // Entry 3 can't be applied before 60 ms, so entry 2 is the report's, though the heartbeat fits both.
        assert_eq!(check(&heartbeat_and_report(70, 30).finish()), Ok(()));
        assert_eq!(check(&heartbeat_and_report(70, 80).finish()), Ok(()));
        // A heartbeat that was over by then has no part in entry 3, and a report of one check none at all.
        assert!(complaint(heartbeat_and_report(30, 80)).contains("entry 3 was applied twice"));
    }

    #[test]
    fn what_asks_for_the_same_shares_its_entries_by_time() {
        let story = |moments: [(u64, u64); 2], returned: [u64; 2]| {
            let mut story = Story::new();
            let key = || crate::keys::KeyOp::One(crate::keys::Step::Set("k".into(), "v".into()));
            let writes = [story.keys(key()), story.keys(key())];
            for (entry, (earliest, latest)) in (1..).zip(moments) {
                story.unseen(entry, earliest, latest);
            }
            for (write, returned) in writes.into_iter().zip(returned) {
                story.change_answer(write, |answer| answer.index = None);
                story.move_to(write, 10, returned);
            }
            story
        };
        assert_eq!(check(&story([(20, 90), (60, 90)], [70, 30]).finish()), Ok(()));
        assert_eq!(check(&story([(20, 90), (60, 90)], [30, 70]).finish()), Ok(()));
        // Both were acknowledged when only one can have been applied.
        assert!(complaint(story([(20, 90), (60, 90)], [30, 30])).contains("entry 2 was applied twice"));
    }

    #[test]
    fn a_change_of_a_prepared_query_that_was_in_vain_may_be_tried_anew_and_done_once() {
        use sider_core::registry::{Command, Key, KeyWrite, Operation as Step};

        use crate::{
            operation::Op,
            prepared::{PreparedOp, Wanted},
        };
        let key = || Key::reserved("query/q").expect("short");
        // A first definition, at index 2; and an update of it, tried on these indexes.
        let story = |tries: &[u64]| {
            let mut story = Story::new();
            let mut ask = |version: u32, conditions: Vec<Step>| {
                let unknown = Outcome::Unknown("timed out".into());
                let asked = story.ask_to_register("web-1", 1, unknown);
                let service = "web".into();
                let wanted = Wanted {
                    service,
                    version,
                    ..Wanted::default()
                };
                let write = KeyWrite {
                    key: key(),
                    value: wanted.stored("q").to_string().into(),
                    flags: 0,
                };
                let query = "q".into();
                story.operation(asked).op = Op::Prepared(PreparedOp::Update { query, wanted });
                for condition in conditions {
                    story.commit(Command::Transact(vec![condition, Step::SetKey(write.clone())]));
                }
            };
            ask(1, vec![Step::CheckNotExists(key())]);
            let on = |index: &u64| Step::CheckIndex(key(), *index);
            ask(2, tries.iter().map(on).collect());
            story
        };
        assert_eq!(check(&story(&[9, 2]).finish()), Ok(()));
        assert!(complaint(story(&[2, 3])).contains("applied twice"));
    }

    #[test]
    fn an_acknowledgement_before_the_earliest_moment_is_not() {
        let mut story = Story::new();
        let write = story.register("web-1", 1);
        story.unseen(1, 50, 90);
        story.move_to(write, 10, 49);
        assert!(complaint(story).contains("entry 1 was applied twice"));
    }
}
