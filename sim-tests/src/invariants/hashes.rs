//! What `/v1/agent/service/{id}` gives bears a hash of its content: equal contents have equal hashes, and others have others;
//! where an instance is does not count. Who names the hash that he has is answered when the content has another one or the
//! instance is gone, and that soon while all is calm; else only after his wait.

use std::collections::BTreeMap;

use super::{Violation, watches::lateness};
use crate::{
    agent_reads::{AgentAsk, AgentSeen},
    content::{Content, InstanceSeen},
    history::{History, Operation},
    operation::Op,
    time::{Time, drift_of},
};

/// Its name.
pub const NAME: &str = "hashes";

/// See the module's page.
///
/// # Errors
/// A hash says what is not so, or who waits for another one is answered too early or too late.
pub fn check(history: &History) -> Result<(), Violation> {
    let mut hashes = Hashes::default();
    // First all hashes: what one is of that a client names may be known from a later answer.
    for operation in &history.operations {
        hashes
            .take(operation)
            .map_err(|what| complaint(operation, what))?;
    }
    for operation in &history.operations {
        let Op::AgentRead(AgentAsk::Service { hash, .. }) = &operation.op else {
            continue;
        };
        let (Some(told), false) = (told(operation), hash.is_empty()) else {
            continue;
        };
        woken_for_something(history, operation, hash, told)
            .and_then(|()| match hashes.contents.get(hash) {
                Some(known) => woken_in_time(history, operation, known),
                None => Ok(()),
            })
            .map_err(|what| complaint(operation, what))?;
    }
    Ok(())
}

fn complaint(operation: &Operation, what: String) -> Violation {
    let what = format!("{} of {}: {what}", operation.op, operation.server);
    Violation::of(NAME, operation.returned, [operation.id], what)
}

/// What is told of an instance, if it is there.
fn told(operation: &Operation) -> Option<Option<(&str, &InstanceSeen)>> {
    match operation.answer()?.content.as_ref()? {
        Content::Agent(AgentSeen::Service(found)) => Some(
            found
                .as_ref()
                .map(|(hash, instance)| (hash.as_str(), &**instance)),
        ),
        _ => None,
    }
}

/// What of an instance its hash is of.
fn hashed(instance: &InstanceSeen) -> InstanceSeen {
    let mut hashed = instance.clone();
    hashed.extras.remove("Locality");
    hashed
}

/// The contents that hashes are of.
#[derive(Default)]
struct Hashes {
    contents: BTreeMap<String, InstanceSeen>,
}

impl Hashes {
    fn take(&mut self, operation: &Operation) -> Result<(), String> {
        let Some(Some((hash, instance))) = told(operation) else {
            return Ok(());
        };
        let content = hashed(instance);
        match self.contents.get(hash) {
            Some(other) if *other != content => {
                return Err(format!("hash {hash} is of this and of something else: {other:?}"));
            }
            Some(_) => return Ok(()),
            None => {}
        }
        if let Some((other, _)) = self.contents.iter().find(|(_, it)| **it == content) {
            return Err(format!("hash {hash} is of what had {other} before"));
        }
        self.contents.insert(hash.to_owned(), content);
        Ok(())
    }
}

fn woken_for_something(
    history: &History,
    operation: &Operation,
    known: &str,
    told: Option<(&str, &InstanceSeen)>,
) -> Result<(), String> {
    let Op::AgentRead(ask) = &operation.op else {
        return Ok(());
    };
    let wait = ask.wait();
    let ends = operation.invoked + wait.saturating_sub(drift_of(wait, history.bounds.drift_ppm));
    match told {
        Some((hash, _)) if hash == known && operation.returned < ends => {
            Err("woken early with the same hash".into())
        }
        _ => Ok(()),
    }
}

/// While all is calm, what has another hash is given soon.
fn woken_in_time(history: &History, operation: &Operation, known: &InstanceSeen) -> Result<(), String> {
    let (truth, Op::AgentRead(ask)) = (history.truth(), &operation.op) else {
        return Ok(());
    };
    let first = truth.applied_before(operation.invoked);
    let last = truth.applied_until(operation.returned).max(first);
    let differs = |point| match ask.answer(&truth.state(point)) {
        AgentSeen::Service(Some((_, instance))) => hashed(&instance) != *known,
        _ => true,
    };
    let lasting = (first..=last).rev().take_while(|point| differs(*point)).last();
    let Some(point) = lasting else {
        return Ok(());
    };
    let applied = |point: usize| truth.entries.get(point.checked_sub(1)?).map(|it| it.applied);
    let there: Time = match point == first {
        true => operation.invoked,
        false => applied(point).unwrap_or_default().max(operation.invoked),
    };
    let owed = there + lateness(&history.bounds);
    let well = truth.calm_between(there, owed)
        && history.is_member(operation.server, owed) == Some(true)
        && !history.is_broken(operation.server, owed);
    match operation.returned > owed && well {
        true => Err(format!(
            "answered only at {}; another content was there at {there}, it was owed by {owed}",
            operation.returned
        )),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::story::Story, *};

    fn ask(hash: &str, wait_ms: u64) -> AgentAsk {
        AgentAsk::Service {
            id: "web-1".into(),
            hash: hash.into(),
            wait_ms,
        }
    }

    /// It is calm, and there is an instance.
    fn story() -> Story {
        let mut story = Story::new();
        story.wait_ms(10_000);
        story.register("web-1", 1);
        story
    }

    /// A question that is answered with what is there, with this hash.
    fn asks(story: &mut Story, known: &str, wait_ms: u64, told: &str) -> u32 {
        let read = story.ask_agent(ask(known, wait_ms));
        story.change_answer(read, |answer| {
            if let Some(Content::Agent(AgentSeen::Service(Some((hash, _))))) = &mut answer.content {
                told.clone_into(hash);
            }
        });
        read
    }

    fn complaint(story: Story) -> Option<String> {
        check(&story.finish()).err().map(|it| it.what)
    }

    #[test]
    fn hashes_of_contents_are_fine() {
        let mut story = story();
        asks(&mut story, "", 0, "one");
        let same = asks(&mut story, "one", 500, "one");
        story.stretch(same, 0, 500);
        story.wait_ms(1_000);
        story.register("web-1", 2);
        asks(&mut story, "one", 500, "other");
        story.deregister("web-1");
        asks(&mut story, "other", 500, "");
        story.wait_ms(3_000);
        assert_eq!(complaint(story), None);
    }

    #[test]
    fn a_hash_of_two_contents_and_two_of_one_are_found() {
        let mut two = story();
        asks(&mut two, "", 0, "one");
        two.register("web-1", 2);
        asks(&mut two, "", 0, "one");
        assert!(complaint(two).expect("two contents").contains("something else"));
        let mut again = story();
        asks(&mut again, "", 0, "one");
        asks(&mut again, "", 0, "other");
        assert!(complaint(again).expect("two hashes").contains("of what had"));
    }

    #[test]
    fn who_is_woken_for_nothing_or_late_is_found() {
        let mut early = story();
        asks(&mut early, "", 0, "one");
        asks(&mut early, "one", 5_000, "one");
        early.wait_ms(3_000);
        assert!(complaint(early).expect("for nothing").contains("woken early"));
        let mut late = story();
        asks(&mut late, "", 0, "one");
        late.register("web-1", 2);
        late.wait_ms(4_000);
        let wait = asks(&mut late, "one", 9_000, "other");
        late.stretch(wait, 3_000, 0);
        late.wait_ms(3_000);
        assert!(complaint(late).expect("late").contains("was owed by"));
    }
}
