//! What a client is told of its writes to keys, of its sessions and of its transactions is what they did: all of a
//! transaction or none of it, at one moment (SPEC §2, §6).
//!
//! A write is in the log, so its answer must be the model's reply to its entry. What only reads must be what it gives
//! at some moment between request and answer.

use sider_core::registry::Operation as StepOperation;

use super::Violation;
use crate::{
    catalog_steps::Given,
    content::Content,
    history::{History, Operation, Outcome},
    keys::{KeyOp, SessionSeen, Step},
    model::State,
    operation::Op,
};

/// Its name.
pub const NAME: &str = "transactions";

/// See the module's page.
///
/// # Errors
/// An answer is not what was done.
pub fn check(history: &History) -> Result<(), Violation> {
    for operation in &history.operations {
        let Op::Keys(op) = &operation.op else { continue };
        let truthful = match op.is_logged() {
            true => written(history, operation, op),
            false => read(history, operation, op),
        };
        if let Err(what) = truthful {
            let what = format!("{op}: {what}");
            return Err(Violation::of(NAME, operation.returned, [operation.id], what));
        }
    }
    Ok(())
}

fn told(operation: &Operation) -> Option<&Content> {
    operation.answer()?.content.as_ref()
}

fn written(history: &History, operation: &Operation, op: &KeyOp) -> Result<(), String> {
    let truth = history.truth();
    let entry = truth.entry_of(operation.id).map(|at| &truth.entries[at]);
    let entry = entry.and_then(|entry| entry.command.as_ref().zip(entry.expected.as_ref()));
    let Some(((command, _), (reply, _))) = entry else {
        // That an acknowledged write has an entry is another judge's business.
        return Ok(());
    };
    op.is_told_truly(&operation.outcome, command, reply)
}

fn read(history: &History, operation: &Operation, op: &KeyOp) -> Result<(), String> {
    let truthful: Box<dyn Fn(&State) -> bool> = match (op, &operation.outcome) {
        (KeyOp::Transact(steps), Outcome::Done(_)) => {
            let Some(Content::Given(told)) = told(operation) else {
                return Err("the answer is no list of results".into());
            };
            let steps = operations(steps);
            Box::new(move |state| {
                let given = state.evaluate(&steps);
                given.is_ok_and(|given| Given::all_of(&given) == *told)
            })
        }
        (KeyOp::Transact(steps), Outcome::Refused { .. }) => {
            let steps = operations(steps);
            Box::new(move |state| state.evaluate(&steps).is_err())
        }
        (KeyOp::RenewSession { session }, Outcome::Done(_)) => {
            let Some(Content::Sessions(told)) = told(operation) else {
                return Err("the answer is no session".into());
            };
            Box::new(move |state| {
                let found = state.sessions.iter().find(|it| it.id.as_str() == session);
                found.is_some_and(|found| *told == [SessionSeen::of(found)])
            })
        }
        (KeyOp::RenewSession { session }, Outcome::Refused { .. }) => {
            Box::new(move |state| state.sessions.iter().all(|it| it.id.as_str() != session))
        }
        _ => return Ok(()),
    };
    let truth = history.truth();
    let from = truth.applied_before(operation.invoked);
    let until = truth.applied_until(operation.returned).max(from);
    match (from..=until).any(|point| truthful(&truth.state(point))) {
        true => Ok(()),
        false => Err(format!(
            "{:?} was true at no moment between request and answer",
            operation.outcome
        )),
    }
}

fn operations(steps: &[Step]) -> Vec<StepOperation> {
    steps.iter().map(Step::operation).collect()
}

#[cfg(test)]
mod tests {
    use super::{super::story::Story, *};
    use crate::catalog_steps::{CatalogStep, Thing, Verb};

    fn complaint(story: Story) -> String {
        check(&story.finish()).expect_err("not what was done").what
    }

    fn set(key: &str, value: &str) -> Step {
        Step::Set(key.into(), value.into())
    }

    #[test]
    fn what_was_done_and_what_was_there_is_fine() {
        let mut story = Story::new();
        story.keys(KeyOp::One(set("k", "one")));
        story.keys(KeyOp::One(Step::SetIf("k".into(), "two".into(), 9)));
        story.keys(KeyOp::Transact(vec![set("a", "1"), Step::Get("k".into())]));
        story.keys(KeyOp::Transact(vec![Step::Get("k".into())]));
        story.keys(KeyOp::Transact(vec![Step::CheckNotExists("k".into())]));
        assert_eq!(check(&story.finish()), Ok(()));
    }

    #[test]
    fn a_failure_that_is_told_as_success_is_not() {
        let mut story = Story::new();
        let cas = story.keys(KeyOp::One(Step::SetIf("k".into(), "two".into(), 9)));
        story.change_answer(cas, |answer| answer.content = Some(Content::Flag(true)));
        assert!(complaint(story).contains("should be Flag(false)"));
    }

    #[test]
    fn done_and_told_as_refused_is_not() {
        let mut story = Story::new();
        story.keys(KeyOp::One(set("a", "1")));
        let both = story.keys(KeyOp::Transact(vec![set("a", "1"), Step::Get("a".into())]));
        let status = 409;
        let reason = "stale".into();
        story.set_outcome(both, Outcome::Refused { status, reason });
        assert!(complaint(story).contains("but it was done"));
    }

    #[test]
    fn results_of_another_moment_are_not() {
        let mut story = Story::new();
        story.keys(KeyOp::One(set("k", "one")));
        let old = story.keys(KeyOp::Transact(vec![Step::Get("k".into())]));
        story.keys(KeyOp::One(set("k", "two")));
        let new = story.keys(KeyOp::Transact(vec![Step::Get("k".into())]));
        let stale = story.answer_of(old);
        story.set_outcome(new, Outcome::Done(stale));
        assert!(complaint(story).contains("at no moment between request and answer"));
    }

    #[test]
    fn half_of_a_transaction_is_not() {
        let mut story = Story::new();
        let both = story.keys(KeyOp::Transact(vec![set("a", "1"), set("b", "2")]));
        story.change_answer(both, |answer| {
            if let Some(Content::Given(seen)) = &mut answer.content {
                seen.pop();
            }
        });
        assert!(complaint(story).contains("the answer is"));
    }

    fn catalog(verb: Verb, thing: Thing) -> Step {
        Step::Catalog(CatalogStep { verb, thing })
    }

    fn node() -> Thing {
        Thing::Node {
            name: "host".into(),
            address: "10.0.0.1".into(),
        }
    }

    fn instance(port: u16) -> Thing {
        Thing::Instance {
            node: "host".into(),
            id: "db-1".into(),
            service: "db".into(),
            port,
        }
    }

    fn check_of_it() -> Thing {
        Thing::Check {
            node: "host".into(),
            id: "db-check".into(),
            instance: Some("db-1".into()),
            status: None,
            ttl_ms: 800,
        }
    }

    /// A node with an instance and its check, and a key.
    fn registration() -> KeyOp {
        KeyOp::Transact(vec![
            catalog(Verb::SetIf(0), node()),
            catalog(Verb::Set, instance(80)),
            catalog(Verb::Set, check_of_it()),
            set("k", "v"),
        ])
    }

    #[test]
    fn the_catalog_is_read_and_written_too() {
        let mut story = Story::new();
        story.keys(registration());
        let refused = story.keys(registration());
        assert!(matches!(story.outcome_of(refused), Outcome::Refused { .. }));
        story.keys(KeyOp::Transact(vec![catalog(Verb::Get, check_of_it())]));
        // A transaction that reads what it wrote, and takes away what stands on a node.
        let moved = story.keys(KeyOp::Transact(vec![
            catalog(Verb::Set, instance(81)),
            catalog(Verb::Get, instance(0)),
            catalog(Verb::DeleteIf(2), node()),
        ]));
        let Some(Content::Given(given)) = story.answer_of(moved).content else {
            panic!("it was done")
        };
        assert!(matches!(&given[..], [_, Given::Instance(it)] if it.port == 81));
        let gone = story.keys(KeyOp::Transact(vec![catalog(Verb::Get, check_of_it())]));
        assert!(matches!(story.outcome_of(gone), Outcome::Refused { .. }));
        assert_eq!(check(&story.finish()), Ok(()));
    }

    #[test]
    fn a_refusal_that_names_other_steps_is_not() {
        let mut story = Story::new();
        story.keys(registration());
        let refused = story.keys(registration());
        let reason = r#"{"Results":null,"Errors":[{"OpIndex":3,"What":""}]}"#.into();
        story.set_outcome(refused, Outcome::Refused { status: 409, reason });
        assert!(complaint(story).contains("should name steps [0]"));
    }

    #[test]
    fn an_instance_as_it_was_before_is_not() {
        let mut story = Story::new();
        story.keys(registration());
        let moved = story.keys(KeyOp::Transact(vec![catalog(Verb::Set, instance(81))]));
        story.change_answer(moved, |answer| {
            if let Some(Content::Given(given)) = &mut answer.content
                && let [Given::Instance(instance)] = &mut given[..]
            {
                instance.port = 80;
            }
        });
        assert!(complaint(story).contains("the answer is"));
    }

    #[test]
    fn a_renewal_of_nothing_is_not() {
        let mut story = Story::new();
        let session = story.session("s", 2_000, 0);
        let renewal = story.keys(KeyOp::RenewSession {
            session: session.clone(),
        });
        let alive = story.answer_of(renewal);
        story.keys(KeyOp::DestroySession {
            session: session.clone(),
        });
        let late = story.keys(KeyOp::RenewSession { session });
        story.set_outcome(late, Outcome::Done(alive));
        assert!(complaint(story).contains("at no moment between request and answer"));
    }

    #[test]
    fn of_two_that_ask_for_the_same_one_wins_whoever_returns_first() {
        let race = |told: [bool; 2], returned: [u64; 2]| {
            let mut story = Story::new();
            let writes = [(); 2].map(|()| story.keys(KeyOp::One(Step::SetIf("k".into(), "v".into(), 0))));
            for (write, told) in writes.into_iter().zip(told) {
                story.change_answer(write, |answer| {
                    answer.index = None;
                    answer.content = Some(Content::Flag(told));
                });
            }
            for (write, returned) in writes.into_iter().zip(returned) {
                story.move_to(write, 0, returned);
            }
            story
        };
        for (told, returned) in [
            ([true, false], [50, 60]),
            ([true, false], [60, 50]),
            ([false, true], [60, 50]),
        ] {
            assert_eq!(
                check(&race(told, returned).finish()),
                Ok(()),
                "{told:?} {returned:?}"
            );
        }
        assert!(complaint(race([true, true], [50, 60])).contains("should be Flag(false)"));
        assert!(complaint(race([false, false], [60, 50])).contains("should be Flag(true)"));
    }

    #[test]
    fn what_is_read_at_a_moment_that_nobody_saw_is_fine() {
        let read = |invoked: u64, returned: u64, old: bool| {
            let mut story = Story::new();
            let get = || KeyOp::Transact(vec![Step::Get("k".into())]);
            story.keys(KeyOp::One(set("k", "one")));
            let before = story.keys(get());
            story.keys(KeyOp::One(set("k", "two")));
            let after = story.keys(get());
            story.unseen(2, 50, 90);
            if old {
                story.copy_answer(before, after);
            }
            story.move_to(after, invoked, returned);
            check(&story.finish())
        };
        // Between the two moments either may be read; before it only the old value, behind it only the new one.
        for (invoked, returned, old, fine) in [
            (60, 70, true, true),
            (60, 70, false, true),
            (40, 49, true, true),
            (40, 49, false, false),
            (91, 99, true, false),
            (91, 99, false, true),
        ] {
            assert_eq!(
                read(invoked, returned, old).is_ok(),
                fine,
                "{invoked} {returned} {old}"
            );
        }
    }
}
