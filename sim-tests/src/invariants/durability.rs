//! What was acknowledged survives: every server that is up in the end has applied it, none has lost it on the way, and
//! the last linearizable reads show a state with it (SPEC §3 and §8; Raft's leader completeness, §5.4).

use std::collections::BTreeMap;

use super::Violation;
use crate::history::{Fact, History, Operation, ServerNumber};

/// Its name.
pub const NAME: &str = "durability";

/// See the module's page.
///
/// # Errors
/// A server applies something else where an acknowledged write was, or ends without it.
pub fn check(history: &History) -> Result<(), Violation> {
    let truth = history.truth();
    let mut ends: BTreeMap<ServerNumber, u64> = BTreeMap::new();
    for seen in &history.observations {
        match &seen.what {
            Fact::Applied(entry) => {
                let position = truth.point_of(entry.log_index).saturating_sub(1);
                let first = &truth.entries[position];
                let acknowledged = |operation: &&Operation| {
                    operation.is_done()
                        && operation.returned < seen.at
                        && truth.entry_of(operation.id) == Some(position)
                };
                if first.hash != entry.hash
                    && let Some(lost) = history.operations.iter().find(acknowledged)
                {
                    let what = format!(
                        "{} was acknowledged as entry {}, where {} now applies something else",
                        lost.op, entry.log_index, seen.server
                    );
                    return Err(Violation::of(NAME, seen.at, [lost.id], what));
                }
                ends.insert(seen.server, entry.log_index);
            }
            Fact::SnapshotInstalled { log_index, .. } => {
                ends.insert(seen.server, *log_index);
            }
            _ => {}
        }
    }
    in_the_end(history, &ends)
}

/// Every member that is up in the end holds the last write that was acknowledged early enough to have reached it.
fn in_the_end(history: &History, ends: &BTreeMap<ServerNumber, u64>) -> Result<(), Violation> {
    if !history.panics.is_empty() {
        // The run broke off: nobody had the time to catch up.
        return Ok(());
    }
    let truth = history.truth();
    let reached_by = history.ended - history.bounds.recovery;
    for server in history.members_in_the_end() {
        let end = ends.get(&server).copied().unwrap_or(0);
        let missing = history.operations.iter().find_map(|operation| {
            let early = operation.is_done() && operation.returned < reached_by;
            let entry = early.then(|| truth.entry_of(operation.id)).flatten()?;
            (truth.entries[entry].log_index > end).then_some(operation)
        });
        if let Some(lost) = missing {
            let what = format!(
                "{} was acknowledged, but {server} ends without it, at entry {end}",
                lost.op
            );
            return Err(Violation::of(NAME, history.ended, [lost.id], what));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{super::story::Story, *};

    fn story() -> Story {
        let mut story = Story::new();
        story.register("web-1", 1);
        story.register("web-2", 2);
        story.configure(&[1, 2, 3]);
        story
    }

    #[test]
    fn what_everyone_has_in_the_end_is_fine() {
        let mut story = story();
        story.restart(2);
        story.replay(2);
        story.wait_ms(20_000);
        assert_eq!(check(&story.finish()), Ok(()));
    }

    #[test]
    fn something_else_in_its_place_is_not() {
        let mut story = story();
        story.wait_ms(10);
        story.restart(3);
        story.replay(3);
        story.change_last_applied(3, |entry| entry.hash += 1);
        assert!(
            check(&story.finish())
                .expect_err("a lost write")
                .what
                .contains("s3 now applies something else")
        );
    }

    #[test]
    fn a_server_that_ends_without_it_is_not() {
        let mut story = story();
        story.forget_applied(3, 2);
        story.wait_ms(20_000);
        assert!(
            check(&story.finish())
                .expect_err("a lost write")
                .what
                .contains("s3 ends without it")
        );
    }

    #[test]
    fn a_server_that_lags_a_moment_is_fine() {
        let mut story = story();
        story.forget_applied(3, 2);
        story.wait_ms(100);
        assert_eq!(check(&story.finish()), Ok(()));
    }
}
