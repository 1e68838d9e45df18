//! Servers that have applied the same entries are in the same state: equal digests and equal registry indexes at an equal
//! log index, whether they came there by the log, by a restart or by a snapshot (SPEC §8; Raft, §5.4.3). A digest that says so
//! must tell states apart: an entry that raises the index leaves another one than there was.

use std::collections::BTreeMap;

use super::Violation;
use crate::history::{Fact, History, ServerNumber};

/// Its name.
pub const NAME: &str = "digest";

/// See the module's page.
///
/// # Errors
/// Two servers, or two lives of one, differ at a log index, or a change leaves the digest as it was.
pub fn check(history: &History) -> Result<(), Violation> {
    let mut states: BTreeMap<u64, (u128, u64, ServerNumber)> = BTreeMap::new();
    for seen in &history.observations {
        let (log_index, digest, index, how) = match &seen.what {
            Fact::Applied(entry) => (entry.log_index, entry.digest, entry.index, "after"),
            Fact::SnapshotInstalled {
                log_index,
                index,
                digest,
            } => (*log_index, *digest, *index, "from a snapshot of"),
            _ => continue,
        };
        let (first_digest, first_index, by) =
            *states.entry(log_index).or_insert((digest, index, seen.server));
        if first_digest != digest {
            let what = format!(
                "{}'s state {how} entry {log_index} is not the one that {by} had",
                seen.server
            );
            return Err(Violation::new(NAME, seen.at, what));
        }
        if first_index != index {
            let what = format!(
                "{}'s index {how} entry {log_index} is {index}, {by}'s was {first_index}",
                seen.server
            );
            return Err(Violation::new(NAME, seen.at, what));
        }
    }
    let blind = states
        .iter()
        .zip(states.iter().skip(1))
        .find(|((at, before), (next, after))| {
            **next == **at + 1 && after.1 > before.1 && after.0 == before.0
        });
    match blind {
        None => Ok(()),
        Some((_, (log_index, (_, index, by)))) => {
            let what =
                format!("entry {log_index} raises the index to {index}, and {by}'s digest stays as it was");
            Err(Violation::new(NAME, history.ended, what))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::story::Story, *};

    fn story() -> Story {
        let mut story = Story::new();
        story.register("web-1", 1);
        story.register("web-2", 2);
        story
    }

    #[test]
    fn equal_states_are_fine() {
        let mut story = story();
        story.restart(3);
        story.replay(3);
        assert_eq!(check(&story.finish()), Ok(()));
    }

    #[test]
    fn a_state_of_its_own_is_not() {
        let mut story = story();
        story.change_last_applied(3, |entry| entry.digest += 1);
        assert!(
            check(&story.finish())
                .expect_err("another state")
                .what
                .contains("s3's state after entry 2")
        );
    }

    #[test]
    fn a_digest_that_sees_no_change_is_not() {
        let mut story = story();
        (1..=3).for_each(|server| story.change_last_applied(server, |entry| entry.digest = 1));
        let violation = check(&story.finish()).expect_err("blind");
        assert!(
            violation.what.contains("entry 2 raises the index"),
            "{violation:?}"
        );
    }

    #[test]
    fn an_index_of_its_own_is_not() {
        let mut story = story();
        story.change_last_applied(2, |entry| entry.index += 1);
        assert!(
            check(&story.finish())
                .expect_err("another index")
                .what
                .contains("s2's index after entry 2")
        );
    }

    #[test]
    fn a_snapshot_with_another_state_is_not() {
        let mut story = story();
        story.observe(
            3,
            Fact::SnapshotInstalled {
                log_index: 1,
                index: 2,
                digest: 99,
            },
        );
        assert!(
            check(&story.finish())
                .expect_err("another state")
                .what
                .contains("from a snapshot of entry 1")
        );
    }
}
