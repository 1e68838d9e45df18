//! Where the code tells what it does. In production the observer is absent or counts metrics; in the simulator the
//! judges listen. An observer can't change anything.

use std::sync::Arc;

use crate::registry::{Applied, Command};

/// Something that happened on one server.
#[derive(Debug)]
#[non_exhaustive]
pub enum Observation<'a> {
    /// A starting server has read, or has just drawn, the id of its disk.
    Identified {
        /// Its name, `#`, and the disk's id in hex: who it is among the members.
        member: &'a str,
    },
    /// This server became the leader of a term.
    BecameLeader {
        /// The term.
        term: u64,
    },
    /// This server is not the leader any more.
    LostLeadership {
        /// The term that it now knows.
        term: u64,
    },
    /// A vote is durable.
    VoteSaved {
        /// Its term.
        term: u64,
        /// Whom it is for: a name and a disk, as in [`Observation::Identified`].
        voted_for: &'a str,
        /// Whether a quorum is known to have granted it.
        committed: bool,
    },
    /// An entry was appended to the log (not yet durable).
    Appended {
        /// Log index.
        index: u64,
        /// Term of the leader that created it.
        term: u64,
        /// Hash of its encoded bytes.
        hash: u64,
    },
    /// The entry that was just appended names the voters. It counts from now on, committed or not (Raft, §6).
    Configured {
        /// Log index.
        log_index: u64,
        /// Their names and disks, as in [`Observation::Identified`]: a majority of each list is needed, of two while one membership gives way to another.
        voters: &'a [Vec<String>],
    },
    /// Entries above this index were removed.
    Truncated {
        /// The last index that stays.
        after: u64,
    },
    /// Entries up to this index were purged, being in the checkpoint.
    Purged {
        /// The last index that went.
        upto: u64,
    },
    /// An entry was applied.
    Applied {
        /// Log index.
        log_index: u64,
        /// Its term.
        term: u64,
        /// Hash of its encoded bytes, as in `Appended`.
        hash: u64,
        /// Its command; `None` for blank and membership entries.
        command: Option<&'a Command>,
        /// What came of it.
        applied: Option<&'a Applied>,
        /// The registry's index after it.
        index: u64,
        /// Digest of the registry after it.
        digest: u128,
    },
    /// A checkpoint is being written.
    CheckpointBegun {
        /// Its log index.
        log_index: u64,
    },
    /// A checkpoint is durable.
    Checkpointed {
        /// Its log index.
        log_index: u64,
    },
    /// A starting server has loaded its checkpoint.
    Restored {
        /// Its log index.
        log_index: u64,
        /// The registry's index in it.
        index: u64,
        /// Digest of the registry in it.
        digest: u128,
    },
    /// A snapshot from the leader replaced the state.
    SnapshotInstalled {
        /// Its log index.
        log_index: u64,
        /// The registry's index in it.
        index: u64,
        /// Digest of the registry in it.
        digest: u128,
    },
    /// Appended entries became durable with one sync.
    Synced {
        /// How many entries.
        entries: usize,
        /// How long the sync took.
        took: std::time::Duration,
    },
    /// The leader decided to propose the expiry of checks.
    ExpiryProposed {
        /// How many.
        checks: usize,
    },
}

/// Listens to one server. Called inline: it must be quick and must not call back.
pub trait Observer: Send + Sync + 'static {
    /// Takes note.
    fn observe(&self, observation: Observation<'_>);
}

/// An observer shared by the parts of a server.
pub type SharedObserver = Arc<dyn Observer>;

/// Takes no note of anything.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoObserver;

impl Observer for NoObserver {
    fn observe(&self, _: Observation<'_>) {}
}
