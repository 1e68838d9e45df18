//! What is answered about prepared queries is what they are at one moment between request and answer: definition and
//! instances together. A name is that of one query only, and a refusal of a change has its reason.
//!
//! That changes are carried out once, and lists of definitions are linearizable, is judged as of all writes and reads.

use super::Violation;
use crate::{
    content::Content,
    history::{History, Operation, Outcome},
    model::State,
    operation::Op,
    prepared::{self, PreparedOp, definitions},
};

/// Its name.
pub const NAME: &str = "prepared";

/// See the module's page.
///
/// # Errors
/// An answer that was true at no moment, a refusal without a reason, or two queries of one name.
pub fn check(history: &History) -> Result<(), Violation> {
    let mut any = false;
    for operation in &history.operations {
        let Op::Prepared(op) = &operation.op else { continue };
        any = true;
        let what = match &operation.outcome {
            Outcome::Done(answer) if op.is_logged() => created(history, operation, answer.content.as_ref()),
            Outcome::Done(answer) => {
                let told = answer.content.as_ref();
                some_moment(history, operation, |state| prepared::is_answer(state, op, told))
                    .then_some(())
                    .ok_or_else(|| format!("{told:?} was true at no moment between request and answer"))
            }
            Outcome::Refused { reason, .. } => {
                some_moment(history, operation, |state| is_refused(state, op, reason))
                    .then_some(())
                    .ok_or_else(|| format!("refused without a reason: {reason}"))
            }
            _ => Ok(()),
        };
        if let Err(what) = what {
            return Err(Violation::of(
                NAME,
                operation.returned,
                [operation.id],
                format!("{op}: {what}"),
            ));
        }
    }
    if any { names_are_unique(history) } else { Ok(()) }
}

/// Whether something was so at some moment between request and answer.
fn some_moment(history: &History, operation: &Operation, so: impl Fn(&State) -> bool) -> bool {
    let truth = history.truth();
    let from = truth.applied_before(operation.invoked);
    let until = truth.applied_until(operation.returned).max(from);
    (from..=until).any(|point| so(&truth.state(point)))
}

/// Whoever creates a query is told the id that it has.
fn created(history: &History, operation: &Operation, told: Option<&Content>) -> Result<(), String> {
    let truth = history.truth();
    let (Some(Content::Created(id)), Some(entry)) = (told, truth.entry_of(operation.id)) else {
        return Ok(());
    };
    let command = truth.entries[entry].command.as_ref();
    let written = command.and_then(|(command, _)| prepared::written(command));
    match written {
        Some((written, _)) if written == *id => Ok(()),
        other => Err(format!("the id is said to be {id}, and is that of {other:?}")),
    }
}

/// Whether a change can't be made in a state, for the reason that is given.
fn is_refused(state: &State, op: &PreparedOp, reason: &str) -> bool {
    let taken = |name: &str, but_by: Option<&str>| {
        definitions(state)
            .iter()
            .any(|it| it["Name"] == name && it["ID"].as_str() != but_by)
    };
    match op {
        PreparedOp::Create { wanted, .. } => taken(&wanted.name, None),
        // Others may come before it again and again.
        _ if reason.contains("others change this query") => true,
        PreparedOp::Update { query, wanted } if prepared::is_there(state, query) => {
            taken(&wanted.name, Some(query))
        }
        PreparedOp::Update { query, .. } | PreparedOp::Delete { query } => !prepared::is_there(state, query),
        PreparedOp::Execute { query, .. } | PreparedOp::Explain { query } => {
            prepared::is_template(state, query)
        }
        PreparedOp::Get { .. } => false,
    }
}

fn names_are_unique(history: &History) -> Result<(), Violation> {
    let truth = history.truth();
    for (position, entry) in truth.entries.iter().enumerate() {
        let changes = entry
            .command
            .as_ref()
            .is_some_and(|(command, _)| prepared::written(command).is_some());
        if !changes {
            continue;
        }
        let all = definitions(&truth.state(position + 1));
        let mut names: Vec<&str> = all.iter().filter_map(|it| it["Name"].as_str()).collect();
        names.retain(|name| !name.is_empty());
        names.sort_unstable();
        if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            let what = format!(
                "after entry {} two queries are called {}",
                entry.log_index, pair[0]
            );
            return Err(Violation::new(NAME, entry.applied, what));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use sider_core::registry::{Command, Key, KeyWrite, NodeName, Operation as KeyOperation};

    use super::{super::story::Story, *};
    use crate::{
        content::InstanceSeen,
        history::{Answer, ServerNumber},
        prepared::Wanted,
    };

    const ID: &str = "one-query";

    fn wanted(name: &str) -> Wanted {
        Wanted {
            name: name.into(),
            service: "web".into(),
            version: 1,
            ..Wanted::default()
        }
    }

    fn prepare(id: &str, wanted: &Wanted) -> Command {
        let key = |name: &str| Key::reserved(name).expect("short");
        let value = wanted.stored(id).to_string().into();
        Command::Transact(vec![KeyOperation::SetKey(KeyWrite {
            key: key(&format!("query/{id}")),
            value,
            flags: 0,
        })])
    }

    /// An instance that passes, and a query that finds it.
    fn story() -> Story {
        story_near("")
    }

    /// The same, with a node that comes first.
    fn story_near(node: &str) -> Story {
        let mut story = Story::new();
        story.register_passing("web-1", 1);
        let wanted = Wanted {
            near: node.into(),
            ..wanted("near")
        };
        story.commit(prepare(ID, &wanted));
        story
    }

    fn ask(story: &mut Story, op: PreparedOp, outcome: Outcome) {
        let invoked = story.now();
        story.wait_ms(1);
        let returned = story.now();
        let id = u32::try_from(story.record().operations.len()).expect("a short story");
        story.record().operations.push(Operation {
            id,
            client: 0,
            server: ServerNumber(1),
            op: Op::Prepared(op),
            impatient: false,
            invoked,
            returned,
            outcome,
            heard: None,
            streamed: None,
        });
        story.wait_ms(1);
    }

    fn told(content: Option<Content>) -> Outcome {
        Outcome::Done(Answer {
            index: None,
            told: None,
            content,
            refused: vec![],
        })
    }

    fn execute(query: &str) -> PreparedOp {
        PreparedOp::Execute {
            query: query.into(),
            limit: 0,
        }
    }

    /// What the query gives when the story has been told so far.
    fn now(story: &mut Story, op: &PreparedOp) -> Option<Content> {
        let truth = crate::truth::Truth::of(story.record());
        prepared::expected(&truth.state(truth.last()), op)
    }

    fn complaint(story: Story) -> String {
        check(&story.finish()).expect_err("not what it is").what
    }

    #[test]
    fn what_is_so_now_is_fine() {
        let mut story = story();
        for op in [
            execute(ID),
            execute("near"),
            execute("nobody"),
            PreparedOp::Get { query: ID.into() },
            PreparedOp::Explain { query: "near".into() },
        ] {
            let content = now(&mut story, &op);
            ask(&mut story, op, told(content));
        }
        assert_eq!(check(&story.finish()), Ok(()));
    }

    #[test]
    fn what_was_so_before_is_not() {
        let mut story = story();
        let before = now(&mut story, &execute("near"));
        assert!(matches!(&before, Some(Content::Executed { instances, .. }) if instances.len() == 1));
        story.deregister("web-1");
        story.wait_ms(5);
        ask(&mut story, execute("near"), told(before));
        assert!(complaint(story).contains("was true at no moment between request and answer"));
    }

    /// What is answered when the story has been told so far and three instances are there, changed as a test wants.
    fn of_three(limit: usize, change: impl FnOnce(&mut Vec<InstanceSeen>)) -> Result<(), Violation> {
        of_three_near("", limit, change)
    }

    /// The same, where the last one is on the node `yonder`.
    fn of_three_near(
        node: &str,
        limit: usize,
        change: impl FnOnce(&mut Vec<InstanceSeen>),
    ) -> Result<(), Violation> {
        let mut story = story_near(node);
        story.register_passing("web-2", 2);
        let mut last = Story::registration("web-3", 3);
        if let Command::Register(registrations) = &mut last {
            let other = NodeName::parse("yonder").expect("a name");
            registrations[0].node.name = other.clone();
            registrations[0]
                .instance
                .iter_mut()
                .for_each(|it| it.node = other.clone());
            registrations[0].checks.clear();
        }
        story.commit(last);
        story.wait_ms(5);
        let Some(Content::Executed {
            service,
            ttl,
            mut instances,
        }) = now(&mut story, &execute("near"))
        else {
            panic!("the query finds instances");
        };
        assert_eq!(instances.len(), 3);
        change(&mut instances);
        let op = PreparedOp::Execute {
            query: "near".into(),
            limit,
        };
        let content = Content::Executed {
            service,
            ttl,
            instances,
        };
        ask(&mut story, op, told(Some(content)));
        check(&story.finish())
    }

    #[test]
    fn any_order_is_fine_and_any_of_them_within_a_limit() {
        assert_eq!(of_three(0, |them| them.reverse()), Ok(()));
        assert_eq!(of_three(2, |them| drop(them.remove(0))), Ok(()));
        assert_eq!(of_three(9, |them| them.rotate_left(1)), Ok(()));
    }

    #[test]
    fn the_node_that_is_near_comes_first() {
        let last_first = |them: &mut Vec<InstanceSeen>| them.rotate_right(1);
        assert_eq!(of_three_near("yonder", 0, last_first), Ok(()));
        assert!(of_three_near("yonder", 0, |_| ()).is_err());
        assert_eq!(of_three_near("yonder", 1, |them| drop(them.drain(..2))), Ok(()));
        assert!(of_three_near("yonder", 1, |them| them.truncate(1)).is_err());
        assert_eq!(of_three_near("nobody", 1, |them| them.truncate(1)), Ok(()));
    }

    #[test]
    fn too_few_too_many_or_one_twice_are_not() {
        assert!(of_three(0, |them| drop(them.pop())).is_err());
        assert!(of_three(2, |_| ()).is_err());
        assert!(of_three(2, |them| them.truncate(1)).is_err());
        assert!(of_three(0, |them| them[0] = them[1].clone()).is_err());
        assert!(of_three(2, |them| *them = vec![them[0].clone(); 2]).is_err());
        assert!(
            of_three(1, |them| {
                them.truncate(1);
                them[0].tags.push("another".into());
            })
            .is_err()
        );
    }

    #[test]
    fn a_refusal_without_a_reason_is_not() {
        let refused = |reason: &str| Outcome::Refused {
            status: 500,
            reason: reason.into(),
        };
        let create = |name: &str| PreparedOp::Create {
            label: "other".into(),
            wanted: wanted(name),
        };
        let aliases = "raft apply failed: name 'near' aliases an existing query name";
        let mut fine = story();
        ask(&mut fine, create("near"), refused(aliases));
        let gone = PreparedOp::Delete {
            query: "nobody".into(),
        };
        ask(
            &mut fine,
            gone,
            refused("Cannot modify non-existent prepared query: 'nobody'"),
        );
        assert_eq!(check(&fine.finish()), Ok(()));
        let mut free = story();
        free.wait_ms(5);
        ask(&mut free, create("far"), refused(aliases));
        assert!(complaint(free).contains("refused without a reason"));
        let mut there = story();
        there.wait_ms(5);
        let delete = PreparedOp::Delete { query: ID.into() };
        ask(
            &mut there,
            delete,
            refused("Cannot modify non-existent prepared query"),
        );
        assert!(complaint(there).contains("refused without a reason"));
    }

    #[test]
    fn two_queries_of_one_name_are_not() {
        let mut story = story();
        story.commit(prepare("another", &wanted("near")));
        ask(&mut story, execute("nobody"), told(Some(prepared::not_there())));
        assert!(complaint(story).contains("two queries are called near"));
    }
}
