//! Which version of commands the cluster writes.
//!
//! It is part of the replicated state, so every server decides alike, and it only rises. The leader asks every member
//! what it reads; when all of them have answered, and read something newer than what is written, it proposes the newest
//! version that all of them read. So while servers are restarted one by one as a newer program, the log stays readable for
//! those that are not yet; and a member that comes back as the older program before the last one was exchanged is
//! served as before.
//!
//! What the leader knows may be old by the time that its proposal is committed: a member may have been replaced by an older
//! one meanwhile. That one then stops at the entry, before it applies it, and says which version is needed; nothing is
//! lost, and the others go on.
//!
//! What an older version can't say ([`Command::least_version`]: keys, sessions, transactions, restores) is refused by the
//! leader until then, after a moment in which a cluster that has just begun finds out: an older member is never made to
//! stop by a request. What it can nearly say is said so ([`Command::in_version`]). While nothing was ever written there is nothing that an older member could keep, so those that do
//! not answer are not waited for: else a new cluster would have no keys before its last server is up.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use futures_util::future::{FutureExt as _, join_all};

use super::{
    ServerError,
    peer::{self, Failure, PeerRequest, PeerResponse},
    wiring::{Inner, Shared},
};
use crate::{
    limits,
    raft::{RaftStatus, Role, ServerAddress, ServerId},
    registry::Command,
    runtime::Instant,
};

/// What a server that does not know the question reads.
const FIRST_VERSION: u8 = 1;

/// Why it is not known what a server reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotTold {
    /// It did not answer.
    Silent,
    /// It can't answer yet or any more, or it does not know the question.
    Unavailable,
}

/// Begins to look for newer versions; it ends with the server.
pub(super) fn begin(inner: &Arc<Inner>) {
    let work = run(inner.shared.clone(), Arc::downgrade(inner));
    inner.platform().spawn(work.boxed());
}

async fn run(shared: Arc<Shared>, inner: Weak<Inner>) {
    while shared.finish().is_none() {
        let seen = shared.leadership.version();
        let Some(inner) = inner.upgrade() else {
            return;
        };
        inner.raise_version().await;
        drop(inner);
        let next = shared.platform.now() + limits::UPGRADE_TICK;
        // Soon after a change of leadership or membership, and else from time to time.
        shared
            .platform
            .until(next, shared.leadership.changed_since(seen))
            .await;
    }
}

impl Inner {
    async fn raise_version(&self) {
        let status = self.consensus.status();
        let (written, is_new) = {
            let registry = self.registry();
            (registry.command_version(), registry.index() == 0)
        };
        if status.role != Role::Leader
            || self.shared.halted().is_some()
            || written >= self.consensus.command_version()
        {
            return;
        }
        let Some(version) = self.version_of_all(&status, is_new).await else {
            return;
        };
        // Asked again by the next look if somebody came or went meanwhile.
        let now = self.consensus.status();
        let members = |status: &RaftStatus| {
            let RaftStatus {
                voters,
                learners,
                disks,
                ..
            } = status.clone();
            (voters, learners, disks)
        };
        let same_members = members(&now) == members(&status);
        if version <= written || !same_members || now.term != status.term {
            return;
        }
        let raise = self
            .consensus
            .propose_in_term(status.term, Command::RaiseVersion(version));
        let deadline = self.platform().now() + self.shared.config.write_timeout;
        match self.platform().until(deadline, raise).await {
            Some(Ok(_)) => tracing::info!(version, "every member reads a newer version of commands"),
            // The next look finds out what came of it: to raise it twice is to raise it.
            Some(Err(error)) => tracing::debug!(%error, "the version of commands stays"),
            None => {}
        }
    }

    /// The newest version that every member reads; `None` while one of them does not answer, if that counts.
    async fn version_of_all(&self, status: &RaftStatus, silence_is_consent: bool) -> Option<u8> {
        let members = status.voters.iter().chain(&status.learners);
        let others = members.filter(|(id, _)| **id != status.id);
        let versions = join_all(others.map(|(_, address)| self.ask_command_version(address))).await;
        let own = Ok(self.consensus.command_version());
        let least = |least: u8, version: Result<u8, NotTold>| match version {
            Ok(version) => Some(least.min(version)),
            Err(NotTold::Silent) if silence_is_consent => Some(least),
            Err(_) => None,
        };
        versions.into_iter().chain([own]).try_fold(u8::MAX, least)
    }

    /// The command as the cluster can say it: see [`Command::in_version`]. What this server has applied may be far behind, so
    /// before it says less than was asked for it hears of everything that is committed.
    ///
    /// # Errors
    /// No leader, stopped.
    pub(super) async fn in_written_version(
        self: &Arc<Self>,
        command: Command,
        limit: Duration,
    ) -> Result<Command, ServerError> {
        let written = self.registry().command_version();
        if written >= Command::NEWEST_VERSION || written >= command.least_version() {
            return Ok(command);
        }
        self.linearize(limit).await?;
        Ok(command.in_version(self.registry().command_version()))
    }

    /// At the leader: whether every member reads this command. What this server has applied says so, and never goes back.
    pub(super) async fn ensure_all_read(&self, command: &Command, deadline: Instant) -> Result<(), Failure> {
        let needed = command.least_version();
        if needed <= FIRST_VERSION {
            return Ok(());
        }
        let deadline = deadline.min(self.platform().now() + limits::NEWER_COMMAND_WAIT);
        while self.registry().command_version() < needed {
            if self.platform().now() >= deadline {
                return Err(Failure::OlderMember(needed));
            }
            self.platform().sleep(limits::LEADER_RETRY_PAUSE).await;
        }
        Ok(())
    }

    /// The newest version of commands that a server reads.
    pub(super) async fn ask_command_version(&self, address: &ServerAddress) -> Result<u8, NotTold> {
        let question = peer::encode(&PeerRequest::CommandVersion);
        let answer = self
            .consensus
            .call_peer(&address.raft, question, limits::PEER_STATUS_TIMEOUT)
            .await;
        match answer.map(|bytes| peer::decode(&bytes)) {
            Ok(Ok(PeerResponse::CommandVersion(version))) => Ok(version),
            Ok(_) => Err(NotTold::Unavailable),
            Err(_) => Err(NotTold::Silent),
        }
    }

    /// At the leader: refuses a new member that could not read the log.
    pub(super) async fn ensure_reads_commands(
        &self,
        id: &ServerId,
        address: &ServerAddress,
    ) -> Result<(), Failure> {
        let written = self.registry().command_version();
        let read = match self.ask_command_version(address).await {
            Ok(read) => read,
            // It has just said that it is ready, so it is the question that it does not know.
            Err(NotTold::Unavailable) => FIRST_VERSION,
            // If it is too old it stops by itself.
            Err(NotTold::Silent) => return Ok(()),
        };
        match read < written {
            true => Err(Failure::Refused(format!(
                "server {id} at {} is of an older version: it reads commands up to version {read}, and this cluster \
                 writes version {written}",
                address.raft
            ))),
            false => Ok(()),
        }
    }
}
