//! An index never goes back (SPEC §3): not that of an answer for whoever carries it from server to server, not a server's
//! own while it lives, not that of writes, not along the log. And it is never 0 (SPEC §6).

use std::collections::BTreeMap;

use sider_core::registry::Topic;

use super::Violation;
use crate::{
    history::{Fact, History, Operation, ServerNumber},
    time::Time,
};

/// Its name.
pub const NAME: &str = "monotonic_index";

/// See the module's page.
///
/// # Errors
/// An index is lower than one that was there before.
pub fn check(history: &History) -> Result<(), Violation> {
    along_the_log(history)?;
    let mut linearizable: BTreeMap<Topic, Highest> = BTreeMap::new();
    let mut of_server: BTreeMap<(Topic, ServerNumber), Highest> = BTreeMap::new();
    let mut writes = Highest::default();
    for operation in &history.operations {
        let Some(index) = operation.answer().and_then(|answer| answer.index) else {
            continue;
        };
        if index == 0 {
            return Err(Violation::of(
                NAME,
                operation.returned,
                [operation.id],
                "the index is 0",
            ));
        }
        match operation.op.asked() {
            Some((ask, freshness)) if freshness.linearizable() => {
                linearizable
                    .entry(ask.topic())
                    .or_default()
                    .take(history, operation, index, false)?;
            }
            // An agent asks now this server, now that one.
            Some(_) if operation.server.agent().is_some() => {}
            Some((ask, _)) => {
                let highest = of_server.entry((ask.topic(), operation.server)).or_default();
                highest.take(history, operation, index, true)?;
            }
            None => writes.take(history, operation, index, false)?,
        }
    }
    Ok(())
}

/// An index that an operation gave.
struct Given {
    invoked: Time,
    returned: Time,
    index: u64,
    id: u32,
}

/// The highest index of the operations that have returned.
#[derive(Default)]
struct Highest {
    /// What each was, by when it was sent.
    returned: Vec<Given>,
}

impl Highest {
    /// Compares an index with those of all operations that had returned when this one was sent; within one life of the
    /// server only, if so told.
    fn take(
        &mut self,
        history: &History,
        operation: &Operation,
        index: u64,
        within_a_life: bool,
    ) -> Result<(), Violation> {
        let server = operation.server;
        // What was under way when the process started may be an answer of the one before.
        let counts = |given: &&Given| {
            given.returned < operation.invoked
                && !(within_a_life
                    && history
                        .truth()
                        .restarted_between(server, given.invoked, operation.returned))
        };
        let highest = self
            .returned
            .iter()
            .filter(counts)
            .max_by_key(|given| given.index);
        if let Some(Given {
            index: before, id, ..
        }) = highest
            && *before > index
        {
            let what = format!(
                "{} of {server} gives index {index}, {before} was given before",
                operation.op
            );
            return Err(Violation::of(NAME, operation.returned, [*id, operation.id], what));
        }
        self.returned.push(Given {
            invoked: operation.invoked,
            returned: operation.returned,
            index,
            id: operation.id,
        });
        Ok(())
    }
}

fn along_the_log(history: &History) -> Result<(), Violation> {
    let mut last: BTreeMap<ServerNumber, (u64, u64)> = BTreeMap::new();
    for seen in &history.observations {
        let (log_index, index) = match &seen.what {
            Fact::Applied(entry) => (entry.log_index, entry.index),
            Fact::SnapshotInstalled { log_index, index, .. } => (*log_index, *index),
            _ => continue,
        };
        // A restart replays the log: what counts is the order of the log, in all of a server's lives.
        if let Some((last_log_index, last_index)) = last.get(&seen.server)
            && log_index > *last_log_index
            && index < *last_index
        {
            let what = format!(
                "{}'s index goes from {last_index} back to {index} at entry {log_index}",
                seen.server
            );
            return Err(Violation::new(NAME, seen.at, what));
        }
        last.insert(seen.server, (log_index, index));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{super::story::Story, *};
    use crate::operation::{Ask, Freshness};

    fn complaint(story: Story) -> String {
        check(&story.finish()).expect_err("an index goes back").what
    }

    #[test]
    fn rising_is_fine() {
        let mut story = Story::new();
        story.read(1, Ask::Services, Freshness::Default);
        story.register("web-1", 1);
        story.read(2, Ask::Services, Freshness::Default);
        story.read(3, Ask::Services, Freshness::Stale);
        story.register("web-1", 1);
        assert_eq!(check(&story.finish()), Ok(()));
    }

    #[test]
    fn an_older_index_on_another_server_is_not() {
        let mut story = Story::new();
        let first = story.read(1, Ask::Services, Freshness::Default);
        story.register("web-1", 1);
        story.read(1, Ask::Services, Freshness::Default);
        story.answer_again(2, Ask::Services, Freshness::Consistent, first);
        assert!(complaint(story).contains("gives index 1, 2 was given before"));
    }

    #[test]
    fn an_older_stale_index_of_the_same_life_is_not() {
        let mut story = Story::new();
        let first = story.read(3, Ask::Services, Freshness::Stale);
        story.register("web-1", 1);
        story.read(3, Ask::Services, Freshness::Stale);
        story.answer_again(3, Ask::Services, Freshness::Stale, first);
        assert!(complaint(story).contains("of s3 gives index 1"));
    }

    #[test]
    fn an_older_stale_index_after_a_restart_is_fine() {
        let mut story = Story::new();
        let first = story.read(3, Ask::Services, Freshness::Stale);
        story.register("web-1", 1);
        story.read(3, Ask::Services, Freshness::Stale);
        story.restart(3);
        story.answer_again(3, Ask::Services, Freshness::Stale, first);
        assert_eq!(check(&story.finish()), Ok(()));
    }

    #[test]
    fn an_older_index_of_a_write_is_not() {
        let mut story = Story::new();
        story.register("web-1", 1);
        let second = story.register("web-2", 2);
        story.change_answer(second, |answer| answer.index = Some(1));
        assert!(complaint(story).contains("gives index 1, 2 was given before"));
    }

    #[test]
    fn zero_is_not() {
        let mut story = Story::new();
        let read = story.read(1, Ask::Nodes, Freshness::Default);
        story.change_answer(read, |answer| answer.index = Some(0));
        assert_eq!(complaint(story), "the index is 0");
    }

    #[test]
    fn going_back_along_the_log_is_not() {
        let mut story = Story::new();
        story.register("web-1", 1);
        story.register("web-2", 2);
        story.change_last_applied(2, |entry| entry.index = 1);
        assert!(complaint(story).contains("s2's index goes from 2 back to 1"));
    }
}
