//! Servers that applied the same entries must hold the same state. The leader compares digests at one log index; a
//! server that differs from most of the voters stops serving, says so, and leaves the cluster's work to the others.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Weak},
};

use futures_util::future::{FutureExt as _, join_all};

use super::{
    peer::{self, PeerRequest, PeerResponse},
    wiring::{Inner, Shared},
};
use crate::{
    limits,
    raft::{Role, ServerAddress, ServerId},
};

/// The digests of the last states, by log index.
#[derive(Debug, Default)]
pub(super) struct DigestRing {
    ring: VecDeque<(u64, u128)>,
}

impl DigestRing {
    /// How many digests are kept.
    pub(super) fn len(&self) -> usize {
        self.ring.len()
    }

    /// The digest after the entry of this log index was applied.
    pub(super) fn push(&mut self, log_index: u64, digest: u128) {
        if self.ring.len() >= limits::DIGESTS_KEPT {
            self.ring.pop_front();
        }
        self.ring.push_back((log_index, digest));
    }

    /// The state was replaced by one of this log index.
    pub(super) fn restart(&mut self, log_index: u64, digest: u128) {
        self.ring.clear();
        self.push(log_index, digest);
    }

    /// The newest one.
    pub(super) fn newest(&self) -> (u64, u128) {
        self.ring.back().copied().unwrap_or_default()
    }

    /// The digest right after a command's entry; `None` when it is forgotten or not applied.
    pub(super) fn at(&self, log_index: u64) -> Option<u128> {
        let place = self.ring.binary_search_by_key(&log_index, |(index, _)| *index);
        place.ok().map(|place| self.ring[place].1)
    }
}

/// Begins comparing; it ends with the server.
pub(super) fn begin(inner: &Arc<Inner>) {
    let work = run(inner.shared.clone(), Arc::downgrade(inner));
    inner.platform().spawn(work.boxed());
}

async fn run(shared: Arc<Shared>, inner: Weak<Inner>) {
    while shared.finish().is_none() {
        shared.platform.sleep(limits::DIGEST_INTERVAL).await;
        let Some(inner) = inner.upgrade() else {
            return;
        };
        inner.compare_digests().await;
    }
}

impl Inner {
    async fn compare_digests(&self) {
        let status = self.consensus.status();
        if status.role != Role::Leader || self.shared.halted().is_some() {
            return;
        }
        let (log_index, own) = self.shared.digests().newest();
        let others = status.voters.iter().filter(|(id, _)| **id != status.id);
        let digests = join_all(others.map(|(id, address)| self.ask_digest(id, address, log_index))).await;
        let mut votes: BTreeMap<u128, usize> = BTreeMap::from([(own, 1)]);
        for (_, _, digest) in &digests {
            if let Some(digest) = digest {
                *votes.entry(*digest).or_default() += 1;
            }
        }
        if votes.len() == 1 {
            return;
        }
        let majority = votes.iter().find(|(_, count)| **count * 2 > status.voters.len());
        let Some((&digest, _)) = majority else {
            tracing::error!(
                log_index,
                ?votes,
                "servers hold different states, and none is that of a majority"
            );
            return;
        };
        for (id, address, other) in digests {
            if other.is_some_and(|other| other != digest) {
                tracing::error!(server = %id, log_index, "a server's state differs from the majority's");
                let message = peer::encode(&PeerRequest::Diverged { log_index, digest });
                let told = self
                    .consensus
                    .call_peer(&address.raft, message, limits::PEER_STATUS_TIMEOUT);
                // If it can't be told now it is told at the next comparison.
                let _ = told.await;
            }
        }
        self.compare_with_majority(log_index, digest).await;
    }

    async fn ask_digest<'a>(
        &self,
        id: &'a ServerId,
        address: &'a ServerAddress,
        log_index: u64,
    ) -> (&'a ServerId, &'a ServerAddress, Option<u128>) {
        let message = peer::encode(&PeerRequest::Digest(log_index));
        let answer = self
            .consensus
            .call_peer(&address.raft, message, limits::PEER_STATUS_TIMEOUT)
            .await;
        let digest = match answer.map(|bytes| peer::decode(&bytes)) {
            Ok(Ok(PeerResponse::Digest(digest))) => digest,
            _ => None,
        };
        (id, address, digest)
    }

    /// This server's digest at a log index, as soon as it has got there.
    pub(super) async fn digest_at(&self, log_index: u64) -> Option<u128> {
        let deadline = self.platform().now() + limits::PEER_STATUS_TIMEOUT / 2;
        let applied = self.consensus.wait_applied(log_index);
        self.platform().until(deadline, applied).await?.ok()?;
        self.shared.digests().at(log_index)
    }

    /// Stops this server if its state differs from that of most.
    pub(super) async fn compare_with_majority(&self, log_index: u64, digest: u128) {
        let own = self.shared.digests().at(log_index);
        if own.is_none_or(|own| own == digest) {
            return;
        }
        let reason = format!(
            "the state differs from the majority's at log index {log_index}: \
             stop this server, delete its data directory and let it join anew"
        );
        tracing::error!("{reason}");
        self.shared.halt(&reason);
        // A member with a wrong state must neither lead nor send snapshots of it.
        self.consensus.shutdown().await;
    }
}
