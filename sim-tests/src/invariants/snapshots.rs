//! A state from a snapshot and the log behind it is the state from the log (SPEC §8; Raft, §7): what a server loads from its
//! checkpoint when it starts, and what it installs from its leader, has the index and the digest of the state that the whole
//! log leads to; no checkpoint that was there is lost; the log goes on right behind it; and nothing is purged that no
//! checkpoint holds.
//!
//! The digest is one over all rows, indexes of topics among them; what else is built from them shows in what is read
//! (`linearizability`), which is why every server is asked about everything in the end.

use std::collections::BTreeMap;

use super::Violation;
use crate::history::{Fact, History, ServerNumber};

/// Its name.
pub const NAME: &str = "snapshots";

/// See the module's page.
///
/// # Errors
/// A checkpoint or a snapshot is not of the state it says it is of, or too much was purged.
pub fn check(history: &History) -> Result<(), Violation> {
    let digests = digests(history);
    let mut servers: BTreeMap<ServerNumber, Position> = BTreeMap::new();
    for seen in &history.observations {
        let position = servers.entry(seen.server).or_default();
        let state = match &seen.what {
            Fact::Restored {
                log_index,
                index,
                digest,
            }
            | Fact::SnapshotInstalled {
                log_index,
                index,
                digest,
            } => Some((*log_index, *index, *digest)),
            _ => None,
        };
        let sound = match state {
            Some(state) => is_that_of_the_log(history, &digests, state),
            None => Ok(()),
        };
        sound
            .and_then(|()| position.see(&seen.what))
            .map_err(|what| Violation::new(NAME, seen.at, format!("{}: {what}", seen.server)))?;
    }
    Ok(())
}

/// The digest after each entry, as the first one to apply it had it.
fn digests(history: &History) -> BTreeMap<u64, u128> {
    let mut digests = BTreeMap::new();
    for seen in &history.observations {
        if let Fact::Applied(entry) = &seen.what {
            digests.entry(entry.log_index).or_insert(entry.digest);
        }
    }
    digests
}

fn is_that_of_the_log(
    history: &History,
    digests: &BTreeMap<u64, u128>,
    (log_index, index, digest): (u64, u64, u128),
) -> Result<(), String> {
    let truth = history.truth();
    let expected = truth.state(truth.point_of(log_index)).index;
    if index != expected {
        return Err(format!(
            "the state loaded of entry {log_index} has index {index}, by the log it has {expected}"
        ));
    }
    match digests.get(&log_index) {
        Some(applied) if *applied != digest => Err(format!(
            "the state loaded of entry {log_index} is not the one that the log leads to"
        )),
        Some(_) => Ok(()),
        None => Err(format!(
            "a state of entry {log_index} is loaded, which nobody has applied"
        )),
    }
}

/// Where a server is.
#[derive(Default)]
struct Position {
    /// The last entry of its newest durable checkpoint.
    checkpoint: Option<u64>,
    /// The last entry in its state, in its present life.
    applied: Option<u64>,
}

impl Position {
    fn see(&mut self, what: &Fact) -> Result<(), String> {
        match what {
            Fact::Started => self.applied = None,
            Fact::Wiped => *self = Position::default(),
            Fact::Checkpointed { log_index } => {
                self.at_least(*log_index, "a checkpoint is made")?;
                self.checkpoint = Some(*log_index);
            }
            Fact::SnapshotInstalled { log_index, .. } => {
                self.checkpoint = Some(*log_index);
                self.applied = Some(*log_index);
            }
            Fact::Restored { log_index, .. } => {
                self.at_least(*log_index, "a start finds the checkpoint")?;
                // It may be newer than was told: told is what came back from a sync.
                self.checkpoint = Some(*log_index);
                self.applied = Some(*log_index);
            }
            Fact::Purged { upto } if self.checkpoint.is_none_or(|checkpoint| *upto > checkpoint) => {
                return Err(format!(
                    "the log is purged up to entry {upto}, but the checkpoint is of {:?}",
                    self.checkpoint
                ));
            }
            Fact::Applied(entry) => {
                if let (None, Some(checkpoint)) = (self.applied, self.checkpoint)
                    && entry.log_index != checkpoint + 1
                {
                    return Err(format!(
                        "it begins with entry {} without having loaded its checkpoint of entry {checkpoint}",
                        entry.log_index
                    ));
                }
                if self.applied.is_some_and(|last| entry.log_index != last + 1) {
                    return Err(format!(
                        "entry {} is applied behind entry {:?}",
                        entry.log_index, self.applied
                    ));
                }
                self.applied = Some(entry.log_index);
            }
            _ => {}
        }
        Ok(())
    }

    fn at_least(&self, log_index: u64, what: &str) -> Result<(), String> {
        match self.checkpoint {
            Some(known) if known > log_index => Err(format!(
                "{what} of entry {log_index}, but there was one of entry {known}"
            )),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::story::Story, *};

    /// Digests of a story are the log indexes, and each registration takes an index.
    fn story() -> Story {
        let mut story = Story::new();
        story.register("web-1", 1);
        story.register("web-2", 2);
        story.observe(2, Fact::Checkpointed { log_index: 2 });
        story.wait_ms(1);
        story
    }

    fn restored(log_index: u64, index: u64, digest: u128) -> Fact {
        Fact::Restored {
            log_index,
            index,
            digest,
        }
    }

    fn complaint(story: Story) -> String {
        check(&story.finish()).expect_err("not the log's state").what
    }

    #[test]
    fn a_checkpoint_of_what_the_log_leads_to_is_fine() {
        let mut story = story();
        story.observe(2, Fact::Purged { upto: 1 });
        story.restart(2);
        story.observe(2, restored(2, 3, 2));
        story.wait_ms(1);
        story.register("web-3", 3);
        assert_eq!(check(&story.finish()), Ok(()));
    }

    #[test]
    fn another_digest_is_not() {
        let mut story = story();
        story.restart(2);
        story.observe(2, restored(2, 3, 9));
        assert!(complaint(story).contains("s2: the state loaded of entry 2 is not the one"));
    }

    #[test]
    fn another_index_is_not() {
        let mut story = story();
        story.restart(2);
        story.observe(2, restored(2, 9, 2));
        assert!(complaint(story).contains("has index 9, by the log it has 3"));
    }

    #[test]
    fn a_snapshot_of_another_state_is_not() {
        let mut story = story();
        story.observe(
            3,
            Fact::SnapshotInstalled {
                log_index: 2,
                index: 3,
                digest: 9,
            },
        );
        assert!(complaint(story).contains("s3: the state loaded of entry 2"));
    }

    #[test]
    fn a_state_that_nobody_had_is_not() {
        let mut story = story();
        story.restart(3);
        story.observe(3, restored(9, 3, 9));
        assert!(complaint(story).contains("which nobody has applied"));
    }

    #[test]
    fn losing_a_checkpoint_is_not() {
        let mut story = story();
        story.restart(2);
        story.observe(2, restored(1, 2, 1));
        assert!(complaint(story).contains("but there was one of entry 2"));
    }

    #[test]
    fn beginning_without_the_checkpoint_is_not() {
        let mut story = story();
        story.restart(2);
        story.replay(2);
        assert!(complaint(story).contains("without having loaded its checkpoint"));
    }

    #[test]
    fn a_server_that_was_wiped_begins_anew() {
        let mut story = story();
        story.observe(2, Fact::Wiped);
        story.restart(2);
        story.replay(2);
        assert_eq!(check(&story.finish()), Ok(()));
    }

    #[test]
    fn going_on_elsewhere_is_not() {
        let mut story = story();
        story.restart(2);
        story.observe(2, restored(2, 3, 2));
        story.wait_ms(1);
        story.register("web-3", 3);
        story.register("web-4", 4);
        story.forget_applied(2, 3);
        assert!(complaint(story).contains("s2: entry 4 is applied behind entry Some(2)"));
    }

    #[test]
    fn purging_what_no_checkpoint_holds_is_not() {
        let mut story = story();
        story.observe(2, Fact::Purged { upto: 3 });
        assert!(complaint(story).contains("purged up to entry 3"));
    }
}
