//! What servers did, as the judges keep it.

use std::collections::BTreeSet;

use sider_core::{
    observe::Observation,
    registry::{Command, Refusal, Reply, Topic},
};

use super::{Disk, ServerNumber};
use crate::time::Time;

/// Something that a server did.
#[derive(Clone, Debug, PartialEq)]
pub struct Observed {
    /// When.
    pub at: Time,
    /// Which server.
    pub server: ServerNumber,
    /// What.
    pub what: Fact,
}

/// [`Observation`] in owned form, with a server's starts and stops.
#[derive(Clone, Debug, PartialEq)]
pub enum Fact {
    /// Its process was started.
    Started,
    /// Its process ended.
    Stopped {
        /// Why it ended by itself, if it did.
        by_itself: Option<String>,
    },
    /// Its disk was emptied.
    Wiped,
    /// See [`Observation::Identified`].
    Identified {
        /// Its disk.
        disk: Disk,
    },
    /// It stands still from now on.
    Paused,
    /// It goes on.
    Resumed,
    /// See [`Observation::BecameLeader`].
    BecameLeader {
        /// Term.
        term: u64,
    },
    /// See [`Observation::LostLeadership`].
    LostLeadership {
        /// Term.
        term: u64,
    },
    /// See [`Observation::VoteSaved`].
    VoteSaved {
        /// Term.
        term: u64,
        /// For whom: a server on one of its disks.
        voted_for: String,
        /// Whether it says that a quorum granted it: then it takes note of a leader, and is no vote of its own.
        committed: bool,
    },
    /// See [`Observation::Appended`].
    Appended {
        /// Log index.
        index: u64,
        /// Term.
        term: u64,
        /// Hash.
        hash: u64,
    },
    /// See [`Observation::Configured`].
    Configured {
        /// Log index.
        log_index: u64,
        /// The voters: a majority of each set is needed.
        voters: Vec<BTreeSet<Disk>>,
    },
    /// Seen from outside, at the moment at which an entry was first applied anywhere: on whose disks it was safe from a
    /// loss of power.
    Held {
        /// Log index.
        log_index: u64,
        /// The disks.
        on: BTreeSet<Disk>,
    },
    /// Seen from outside: this server relied on something that a loss of power would have taken away.
    NotDurable {
        /// What.
        what: &'static str,
    },
    /// See [`Observation::Truncated`].
    Truncated {
        /// The last index that stays.
        after: u64,
    },
    /// See [`Observation::Purged`].
    Purged {
        /// The last index that went.
        upto: u64,
    },
    /// See [`Observation::Applied`].
    Applied(Box<AppliedEntry>),
    /// See [`Observation::CheckpointBegun`].
    CheckpointBegun {
        /// Log index.
        log_index: u64,
    },
    /// See [`Observation::Checkpointed`].
    Checkpointed {
        /// Log index.
        log_index: u64,
    },
    /// See [`Observation::Restored`].
    Restored {
        /// Log index.
        log_index: u64,
        /// The registry's index.
        index: u64,
        /// Digest.
        digest: u128,
    },
    /// See [`Observation::SnapshotInstalled`].
    SnapshotInstalled {
        /// Log index.
        log_index: u64,
        /// The registry's index.
        index: u64,
        /// Digest.
        digest: u128,
    },
}

/// An applied log entry.
#[derive(Clone, Debug, PartialEq)]
pub struct AppliedEntry {
    /// Log index.
    pub log_index: u64,
    /// Term.
    pub term: u64,
    /// Hash of the entry.
    pub hash: u64,
    /// The command and what came of it; `None` for blank and membership entries.
    pub command: Option<(Command, Effect)>,
    /// The registry's index after it.
    pub index: u64,
    /// Digest of the registry after it.
    pub digest: u128,
}

/// What came of a command, as far as the judges compare it.
#[derive(Clone, Debug, PartialEq)]
pub struct Effect {
    /// What the client is told.
    pub reply: Result<Reply, Refusal>,
    /// Whether it took an index.
    pub changed: bool,
    /// Topics whose index rose.
    pub topics: Vec<Topic>,
}

impl Fact {
    /// What the judges keep of an observation; `None` for what only metrics care about.
    pub fn of(observation: &Observation<'_>) -> Option<Fact> {
        Some(match observation {
            Observation::Identified { member } => Fact::Identified {
                disk: Disk::parse(member)?,
            },
            Observation::BecameLeader { term } => Fact::BecameLeader { term: *term },
            Observation::LostLeadership { term } => Fact::LostLeadership { term: *term },
            Observation::VoteSaved {
                term,
                voted_for,
                committed,
            } => Fact::VoteSaved {
                term: *term,
                voted_for: (*voted_for).to_owned(),
                committed: *committed,
            },
            Observation::Appended { index, term, hash } => Fact::Appended {
                index: *index,
                term: *term,
                hash: *hash,
            },
            Observation::Configured { log_index, voters } => Fact::Configured {
                log_index: *log_index,
                voters: voters
                    .iter()
                    .map(|ids| ids.iter().filter_map(|id| Disk::parse(id)).collect())
                    .collect(),
            },
            Observation::Truncated { after } => Fact::Truncated { after: *after },
            Observation::Purged { upto } => Fact::Purged { upto: *upto },
            Observation::Applied {
                log_index,
                term,
                hash,
                command,
                applied,
                index,
                digest,
            } => {
                let command = command.zip(*applied).map(|(command, applied)| {
                    let effect = Effect {
                        reply: applied.reply.clone(),
                        changed: applied.changed,
                        topics: applied.topics.clone(),
                    };
                    (command.clone(), effect)
                });
                Fact::Applied(Box::new(AppliedEntry {
                    log_index: *log_index,
                    term: *term,
                    hash: *hash,
                    command,
                    index: *index,
                    digest: *digest,
                }))
            }
            Observation::CheckpointBegun { log_index } => Fact::CheckpointBegun {
                log_index: *log_index,
            },
            Observation::Checkpointed { log_index } => Fact::Checkpointed {
                log_index: *log_index,
            },
            Observation::Restored {
                log_index,
                index,
                digest,
            } => Fact::Restored {
                log_index: *log_index,
                index: *index,
                digest: *digest,
            },
            Observation::SnapshotInstalled {
                log_index,
                index,
                digest,
            } => Fact::SnapshotInstalled {
                log_index: *log_index,
                index: *index,
                digest: *digest,
            },
            _ => return None,
        })
    }
}
