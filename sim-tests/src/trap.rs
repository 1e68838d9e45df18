//! Traps: a server's process ends at a chosen step of its work, so that nothing it would have done next happens.
//!
//! A step is one of its disk (before anything of it is carried out, or when it is and nobody was told), or something that
//! the code tells its observer. There the process ends inside the call: what the code around it would still do until it
//! next waits reaches neither disk nor network nor observer.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use serde::{Deserialize, Serialize};
use sider_core::{observe::Observation, runtime::Keyspace};
use sider_runtime_sim::{DiskStep, Edge};

/// A step in a server's work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    /// Before the disk does something.
    Before(Work),
    /// When the disk has done something, before the code learns of it.
    After(Work),
    /// When the code tells of something.
    Upon(Sight),
}

/// Something that a disk does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Work {
    /// It takes a batch that sets keys.
    Put(Space),
    /// It takes a batch that removes keys.
    Delete(Space),
    /// It syncs.
    Sync,
}

/// [`Keyspace`], for schedules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Space {
    /// Log entries.
    Log,
    /// Votes and other single values.
    Meta,
    /// The checkpoint.
    State,
    /// A snapshot that is being received.
    Incoming,
}

/// A kind of [`Observation`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Sight {
    /// An entry is in the log, and not durable.
    Appended,
    /// Entries are durable, and nobody was told.
    Synced,
    /// An entry is applied, and its client has no answer.
    Applied,
    /// A vote is durable, and nobody was told.
    VoteSaved,
    /// A checkpoint is durable.
    Checkpointed,
    /// The log was purged.
    Purged,
    /// The end of the log was cut off.
    Truncated,
    /// A snapshot replaced the state.
    SnapshotInstalled,
    /// It leads.
    BecameLeader,
    /// It leads no more.
    LostLeadership,
    /// It has decided that checks expire.
    ExpiryProposed,
}

impl Space {
    /// What it stands for.
    pub fn keyspace(self) -> Keyspace {
        match self {
            Space::Log => Keyspace::Log,
            Space::Meta => Keyspace::Meta,
            Space::State => Keyspace::State,
            Space::Incoming => Keyspace::Incoming,
        }
    }
}

impl Work {
    pub(crate) fn disk_step(self) -> DiskStep {
        match self {
            Work::Put(space) => DiskStep::Put(space.keyspace()),
            Work::Delete(space) => DiskStep::Delete(space.keyspace()),
            Work::Sync => DiskStep::Sync,
        }
    }
}

impl Step {
    /// The step of the disk, if it is one.
    pub(crate) fn disk_step(self) -> Option<(DiskStep, Edge)> {
        match self {
            Step::Before(work) => Some((work.disk_step(), Edge::Before)),
            Step::After(work) => Some((work.disk_step(), Edge::After)),
            Step::Upon(_) => None,
        }
    }
}

impl Sight {
    fn is(self, observation: &Observation<'_>) -> bool {
        matches!(
            (self, observation),
            (Sight::Appended, Observation::Appended { .. })
                | (Sight::Synced, Observation::Synced { .. })
                | (Sight::Applied, Observation::Applied { .. })
                | (Sight::VoteSaved, Observation::VoteSaved { .. })
                | (Sight::Checkpointed, Observation::Checkpointed { .. })
                | (Sight::Purged, Observation::Purged { .. })
                | (Sight::Truncated, Observation::Truncated { .. })
                | (Sight::SnapshotInstalled, Observation::SnapshotInstalled { .. })
                | (Sight::BecameLeader, Observation::BecameLeader { .. })
                | (Sight::LostLeadership, Observation::LostLeadership { .. })
                | (Sight::ExpiryProposed, Observation::ExpiryProposed { .. })
        )
    }
}

/// A trap on what a server's code tells, if one is set. Clones are the same.
#[derive(Clone, Default)]
pub(crate) struct Snare(Arc<Mutex<Option<Set>>>);

struct Set {
    sight: Sight,
    left: u32,
    spring: Box<dyn FnOnce() + Send>,
}

impl Snare {
    /// Sets it: `spring` is called at the `nth` such observation from now on, counted from 1.
    pub(crate) fn set(&self, sight: Sight, nth: u32, spring: impl FnOnce() + Send + 'static) {
        let set = Set {
            sight,
            left: nth.max(1),
            spring: Box::new(spring),
        };
        let before = self.replace(Some(set));
        drop(before);
    }

    pub(crate) fn clear(&self) {
        let before = self.replace(None);
        drop(before);
    }

    /// Counts an observation, and springs the trap if it is the one.
    pub(crate) fn see(&self, observation: &Observation<'_>) {
        let sprung = {
            let mut set = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            match set.as_mut() {
                Some(trap) if trap.sight.is(observation) && trap.left > 1 => {
                    trap.left -= 1;
                    None
                }
                Some(trap) if trap.sight.is(observation) => set.take(),
                _ => None,
            }
        };
        if let Some(trap) = sprung {
            (trap.spring)();
        }
    }

    fn replace(&self, set: Option<Set>) -> Option<Set> {
        std::mem::replace(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner), set)
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Before(work) => write!(f, "before {work}"),
            Step::After(work) => write!(f, "after {work}"),
            Step::Upon(sight) => write!(f, "when {sight}"),
        }
    }
}

impl fmt::Display for Sight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Sight::Appended => "an entry is appended",
            Sight::Synced => "entries are durable",
            Sight::Applied => "an entry is applied",
            Sight::VoteSaved => "a vote is durable",
            Sight::Checkpointed => "a checkpoint is durable",
            Sight::Purged => "the log is purged",
            Sight::Truncated => "entries are taken back",
            Sight::SnapshotInstalled => "a snapshot is installed",
            Sight::BecameLeader => "it becomes leader",
            Sight::LostLeadership => "it leads no more",
            Sight::ExpiryProposed => "it proposes an expiry",
        })
    }
}

impl fmt::Display for Space {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Space::Log => "log",
            Space::Meta => "votes",
            Space::State => "checkpoint",
            Space::Incoming => "incoming snapshot",
        })
    }
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Work::Put(space) => write!(f, "a write to the {space}"),
            Work::Delete(space) => write!(f, "a deletion from the {space}"),
            Work::Sync => f.write_str("a sync"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[test]
    fn a_snare_counts_only_what_it_is_for_and_is_sprung_once() {
        let snare = Snare::default();
        let sprung = Arc::new(AtomicU32::new(0));
        let count = sprung.clone();
        snare.set(Sight::Purged, 2, move || {
            count.fetch_add(1, Ordering::Relaxed);
        });
        for (observation, expected) in [
            (Observation::Purged { upto: 1 }, 0),
            (Observation::Checkpointed { log_index: 1 }, 0),
            (Observation::Purged { upto: 2 }, 1),
            (Observation::Purged { upto: 3 }, 1),
        ] {
            snare.see(&observation);
            assert_eq!(sprung.load(Ordering::Relaxed), expected, "{observation:?}");
        }
    }

    #[test]
    fn a_snare_that_was_cleared_is_not_sprung() {
        let snare = Snare::default();
        snare.set(Sight::Purged, 1, || panic!("it was cleared"));
        snare.clear();
        snare.see(&Observation::Purged { upto: 1 });
    }
}
