//! What servers tell: written into the trace, passed on to the witness, and held against what is safe on the disks.

use std::sync::{Arc, PoisonError, Weak, atomic::Ordering};

use bytes::Bytes;
use sider_core::{
    observe::{Observation, Observer},
    raft::stored_entry,
    runtime::Keyspace,
};
use sider_runtime_sim::{Host, World, record_with};

use super::{Cluster, Parts, Witness};
use crate::{
    history::{Disk, Fact},
    recorder::number,
    trap::Snare,
    words,
};

/// Passes on what one server observes, to the trace and to the witness. Does not hold the cluster, which holds the
/// server, which holds this.
pub(super) struct Reporter {
    pub(super) world: World,
    pub(super) witness: Arc<dyn Witness>,
    pub(super) cluster: Weak<Parts>,
    pub(super) number: usize,
    pub(super) host: Host,
    pub(super) incarnation: u64,
    pub(super) snare: Snare,
}

impl Observer for Reporter {
    fn observe(&self, observation: Observation<'_>) {
        // Its process has ended in a trap, in the middle of what the code around this still does until it next waits.
        if !self.host.is_up() || self.host.incarnation() != self.incarnation {
            return;
        }
        record_with("observe", &content(&observation), || {
            format!("s{} {}", self.number, words::observation(&observation))
        });
        self.witness.observed(self.world.now(), self.number, &observation);
        if let Some(cluster) = self.cluster.upgrade() {
            if let Observation::Identified { member } = observation {
                let disk = Disk::parse(member).unwrap_or_default().id;
                Cluster(cluster.clone()).lock()[self.number].disk = disk;
            }
            self.look_at_disks(&cluster, &observation);
        }
        self.snare.see(&observation);
    }
}

/// Where `core::raft` keeps the log's entries, the vote and the checkpoint's record on disk. Should that change, every run
/// says so at once: nothing is found to be durable.
fn log_key(log_index: u64) -> [u8; 8] {
    log_index.to_be_bytes()
}
const VOTE: &[u8] = b"vote";
const CHECKPOINT: &[u8] = b"checkpoint";

impl Reporter {
    /// Holds what a server says against what a loss of power would leave of it now.
    fn look_at_disks(&self, cluster: &Parts, observation: &Observation<'_>) {
        let disk = |number: usize| {
            cluster.members.lock().unwrap_or_else(PoisonError::into_inner)[number]
                .host
                .disk()
        };
        let note = |what| self.witness.noted(self.world.now(), self.number, what);
        let must_be_durable = |key, what| {
            if disk(self.number).durable(Keyspace::Meta, key).is_none() {
                note(Fact::NotDurable { what });
            }
        };
        match observation {
            Observation::VoteSaved { .. } => must_be_durable(VOTE, "its vote"),
            Observation::Checkpointed { .. } => must_be_durable(CHECKPOINT, "its checkpoint"),
            Observation::SnapshotInstalled { .. } => {
                must_be_durable(CHECKPOINT, "the snapshot that it installed")
            }
            Observation::Applied { log_index, hash, .. } => {
                if cluster.applied.fetch_max(*log_index + 1, Ordering::Relaxed) > *log_index {
                    return;
                }
                // A deposed leader may have another entry in its place, as safe as this one.
                let key = log_key(*log_index);
                let same = |value: &Bytes| stored_entry(&key, value).is_ok_and(|stored| stored.hash == *hash);
                let holders = held(cluster, &key).into_iter().filter(|(_, value)| same(value));
                note(Fact::Held {
                    log_index: *log_index,
                    on: holders.map(|(disk, _)| disk).collect(),
                });
            }
            _ => {}
        }
    }
}

/// What is safe under a key of the log, on each disk. What was lost since counts, too, with its disk or by a bit that flipped:
/// what was acknowledged when it was there was acknowledged rightly, and the answer may still have been under way.
fn held(cluster: &Parts, key: &[u8]) -> Vec<(Disk, Bytes)> {
    let members = cluster.members.lock().unwrap_or_else(PoisonError::into_inner);
    let mut held = Vec::new();
    for (nth, member) in members.iter().enumerate() {
        let server = number(nth);
        let now = member.host.disk().durable(Keyspace::Log, key);
        let unflipped = member.flipped.get(key).cloned();
        held.extend(now.into_iter().chain(unflipped).map(|value| {
            (
                Disk {
                    server,
                    id: member.disk,
                },
                value,
            )
        }));
        let lost = member.lost_disks.iter();
        let before = lost.filter_map(|(id, log)| Some((Disk { server, id: *id }, log.get(key)?.clone())));
        held.extend(before);
    }
    held
}

/// What the trace hashes of an observation: its numbers, and of a command the hash that its entry has.
fn content(observation: &Observation<'_>) -> [u8; 56] {
    let mut numbers = match observation {
        Observation::Identified { member } => vec![15, Disk::parse(member).unwrap_or_default().id],
        Observation::BecameLeader { term } => vec![1, *term],
        Observation::LostLeadership { term } => vec![2, *term],
        Observation::VoteSaved {
            term,
            voted_for,
            committed,
        } => {
            let candidate = voted_for
                .bytes()
                .fold(0, |sum: u64, byte| sum.wrapping_mul(31) + u64::from(byte));
            vec![3, *term, candidate, u64::from(*committed)]
        }
        Observation::Appended { index, term, hash } => vec![4, *index, *term, *hash],
        Observation::Truncated { after } => vec![5, *after],
        Observation::Purged { upto } => vec![6, *upto],
        Observation::Applied {
            log_index,
            term,
            hash,
            index,
            digest,
            ..
        } => {
            vec![
                7,
                *log_index,
                *term,
                *hash,
                *index,
                *digest as u64,
                (*digest >> 64) as u64,
            ]
        }
        Observation::CheckpointBegun { log_index } => vec![14, *log_index],
        Observation::Checkpointed { log_index } => vec![8, *log_index],
        Observation::SnapshotInstalled {
            log_index,
            index,
            digest,
        } => {
            vec![9, *log_index, *index, *digest as u64, (*digest >> 64) as u64]
        }
        Observation::Synced { entries, took } => vec![10, *entries as u64, took.as_nanos() as u64],
        Observation::ExpiryProposed { checks } => vec![11, *checks as u64],
        Observation::Configured { log_index, voters } => {
            let voters = voters.iter().flatten().map(|id| id.len() as u64);
            vec![12, *log_index, voters.sum()]
        }
        Observation::Restored {
            log_index,
            index,
            digest,
        } => {
            vec![13, *log_index, *index, *digest as u64, (*digest >> 64) as u64]
        }
        _ => vec![0],
    };
    numbers.resize(7, 0);
    let mut content = [0; 56];
    for (bytes, number) in content.chunks_exact_mut(8).zip(numbers) {
        bytes.copy_from_slice(&number.to_le_bytes());
    }
    content
}
