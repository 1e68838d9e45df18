//! Members of the cluster: what they say of themselves, and how they come and go.
//!
//! A server that nobody told otherwise starts a cluster of one. When another cluster adds it, and nothing was ever
//! written to its own, it gives way: it stops, its disk is wiped, it starts again empty, and then it is added. So two
//! servers started alike become one cluster by one request. A server that has data of its own is never taken over.

use std::{sync::Arc, time::Duration};

use futures_util::future::{join, join_all};
use smol_str::SmolStr;

use super::{
    PeerReport,
    peer::{self, Failure, JoinAnswer, PeerRequest, PeerResponse},
    wiring::{Counted, Finish, Inner},
};
use crate::{
    limits,
    raft::{RaftStatus, Role, ServerAddress, ServerId},
    runtime::Instant,
};

impl Inner {
    /// What this server knows; why it does not serve goes before why its Raft member stopped.
    pub(super) fn status(&self) -> RaftStatus {
        let mut status = self.consensus.status();
        if let Some(reason) = self.shared.halted() {
            status.fatal = Some(reason);
        }
        status
    }

    /// Asks every member for its status, side by side.
    pub(super) async fn cluster(&self) -> Vec<PeerReport> {
        let status = self.status();
        let disks = &status.disks;
        let voters = status.voters.iter().map(|(id, address)| (id, address, true));
        let learners = status.learners.iter().map(|(id, address)| (id, address, false));
        join_all(voters.chain(learners).map(async |(id, address, voter)| {
            let (answer, command_version) = if *id == status.id {
                let digest = self.shared.digests().newest().1;
                let own = (status.clone(), digest, VERSION.to_owned());
                (Some(own), Some(self.consensus.command_version()))
            } else {
                let asked = join(self.ask_status(address), self.ask_command_version(address));
                let (status, version) = asked.await;
                (status, version.ok())
            };
            let (status, digest, version) = match answer {
                Some((status, digest, version)) => (Some(status), Some(digest), version),
                None => (None, None, String::new()),
            };
            PeerReport {
                id: id.clone(),
                address: address.clone(),
                voter,
                disk: disks.get(id).copied().unwrap_or_default(),
                status,
                digest,
                version,
                command_version,
            }
        }))
        .await
    }

    /// What the leader says of itself, which alone knows how far the others are; `None` if it can't be asked.
    pub(super) async fn leaders_status(&self) -> Option<RaftStatus> {
        let status = self.status();
        let (leader, address) = status.known_leader()?;
        if *leader == status.id {
            return Some(status);
        }
        let (told, ..) = self.ask_status(address).await?;
        Some(told)
    }

    /// The id of the server at a Raft address.
    pub(super) async fn name_of(&self, raft_address: &str) -> Option<ServerId> {
        let address = ServerAddress {
            raft: raft_address.into(),
            http: SmolStr::default(),
        };
        let (status, ..) = self.ask_status(&address).await?;
        Some(status.id)
    }

    async fn ask_status(&self, address: &ServerAddress) -> Option<(RaftStatus, u128, String)> {
        let message = peer::encode(&PeerRequest::Status);
        let answer = self
            .consensus
            .call_peer(&address.raft, message, limits::PEER_STATUS_TIMEOUT)
            .await;
        match peer::decode(&answer.ok()?) {
            Ok(PeerResponse::Status {
                status,
                digest,
                version,
            }) => Some((*status, digest, version)),
            _ => None,
        }
    }

    /// At the leader: adds a member that is ready for it.
    pub(super) async fn add_server(
        &self,
        id: ServerId,
        mut address: ServerAddress,
        deadline: Instant,
    ) -> Result<(), Failure> {
        // A cluster that is adding a server does not itself give way to another one.
        let _adopting = Counted::new(&self.adopting);
        self.serving()?;
        let status = self.consensus.status();
        if id != status.id {
            let http = self.prepare_peer(&id, &address, &status.id, deadline).await?;
            if address.http.is_empty() {
                address.http = http.into();
            }
            self.ensure_reads_commands(&id, &address).await?;
        } else if let Some(own) = status.voters.get(&id) {
            if address.raft != own.raft {
                let reason = format!("the leader itself is called {id}, at {}", own.raft);
                return Err(Failure::Refused(reason));
            }
            // A member already, unless its removal is under way: that is seen in turn with other changes.
            address = own.clone();
        }
        self.change_members(self.consensus.add_server(id, address), deadline)
            .await?;
        Ok(())
    }

    /// Waits until the leader that this server knows of says itself that it leads; it is `to` if that is given. What others
    /// tell may be of the past: a leader that was cut off hears from them of one that came and went meanwhile.
    pub(super) async fn hear_successor(
        &self,
        to: Option<ServerId>,
        deadline: Instant,
    ) -> Result<(), Failure> {
        let deadline = deadline.min(self.platform().now() + limits::TRANSFER_TIMEOUT);
        loop {
            let status = self.consensus.status();
            if let Some((leader, address)) = status.leader {
                if to.as_ref().is_some_and(|to| *to != leader) {
                    let reason = format!("leadership went on to {leader}");
                    return Err(Failure::OutcomeUnknown(reason));
                }
                let leads = |told: RaftStatus| told.id == leader && told.role == Role::Leader;
                let told = self.ask_status(&address);
                if leader == status.id || told.await.is_some_and(|(told, ..)| leads(told)) {
                    return Ok(());
                }
            }
            if self.platform().now() + limits::MEMBERSHIP_RETRY >= deadline {
                let reason = "leadership was handed on, and nobody says that it leads";
                return Err(Failure::OutcomeUnknown(reason.into()));
            }
            self.platform().sleep(limits::MEMBERSHIP_RETRY).await;
        }
    }

    /// Asks a server to make ready to be added; gives its HTTP address.
    async fn prepare_peer(
        &self,
        id: &ServerId,
        address: &ServerAddress,
        leader: &ServerId,
        deadline: Instant,
    ) -> Result<String, Failure> {
        let request = peer::encode(&PeerRequest::PrepareJoin {
            id: id.clone(),
            leader: leader.clone(),
        });
        let deadline = deadline.min(self.platform().now() + limits::JOIN_CONTACT_TIMEOUT);
        loop {
            let answer = self
                .consensus
                .call_peer(&address.raft, request.clone(), limits::PEER_CALL_TIMEOUT)
                .await;
            // Asking again is safe: to make ready twice is to make ready.
            let obstacle = match answer.map(|bytes| peer::decode(&bytes)) {
                Ok(Ok(PeerResponse::PrepareJoin(JoinAnswer::Ready { http }))) => return Ok(http),
                Ok(Ok(PeerResponse::PrepareJoin(JoinAnswer::Refused(reason)))) => {
                    return Err(Failure::Refused(reason));
                }
                Ok(Ok(PeerResponse::PrepareJoin(JoinAnswer::GivingWay))) => "it is restarting".to_owned(),
                Ok(Ok(PeerResponse::Unavailable(reason)) | Err(reason)) => reason,
                Ok(Ok(other)) => format!("an answer to another question: {other:?}"),
                Err(error) => error.to_string(),
            };
            if self.platform().now() + limits::JOIN_RETRY_MIN >= deadline {
                let reason = format!("server {id} at {} can't be added: {obstacle}", address.raft);
                return Err(Failure::Refused(reason));
            }
            self.platform().sleep(limits::JOIN_RETRY_MIN).await;
        }
    }

    /// Makes this server ready to be added to the cluster of `leader` as `id`.
    fn prepare_join(&self, id: &ServerId, leader: &ServerId) -> JoinAnswer {
        let status = self.consensus.status();
        let ready = JoinAnswer::Ready {
            http: self.shared.address.http.to_string(),
        };
        if self.shared.finish() == Some(Finish::GaveWay) {
            return JoinAnswer::GivingWay;
        }
        if *id != status.id {
            return JoinAnswer::Refused(format!(
                "the server at {} is called {}, not {id}",
                self.shared.address.raft, status.id
            ));
        }
        if *leader == *id {
            return JoinAnswer::Refused(format!("the leader is itself called {id}: ids must differ"));
        }
        let members: Vec<&ServerId> = status.voters.keys().chain(status.learners.keys()).collect();
        // Empty, or a member of that very cluster, which may be asked again.
        if members.is_empty() || members.contains(&leader) {
            return ready;
        }
        if self.implicit && members == [id] && self.give_way() {
            return JoinAnswer::GivingWay;
        }
        let names: Vec<String> = members.iter().map(ToString::to_string).collect();
        JoinAnswer::Refused(format!(
            "server {id} belongs to a cluster of its own ({}): to move it, stop it, delete its data directory and \
             start it again with -join",
            names.join(", ")
        ))
    }

    /// Whether this server, which leads, would give up its cluster for another one.
    pub(super) fn may_give_way(&self, status: &RaftStatus) -> bool {
        self.implicit && status.voters.len() + status.learners.len() <= 1 && self.unused()
    }

    /// Whether nobody ever wrote anything but this server itself.
    fn unused(&self) -> bool {
        let config = &self.shared.config;
        let registry = self.registry();
        registry.index() == 0
            || config
                .servers_service
                .as_ref()
                .is_some_and(|service| registry.holds_only(&config.agent_node, service))
    }

    /// Ends this server if nothing was or is being written to its cluster.
    fn give_way(&self) -> bool {
        let used = || self.is_busy() || !self.unused();
        if used() {
            return false;
        }
        // From here on writes are refused. One that was counted just before is seen by the second look.
        self.shared.halt("it gives way to another cluster");
        if used() {
            self.shared.resume();
            return false;
        }
        self.shared
            .end(Finish::GaveWay, "it gives way to another cluster");
        true
    }

    /// Answers another server.
    pub(super) async fn answer(self: Arc<Self>, request: PeerRequest) -> PeerResponse {
        match request {
            PeerRequest::ReadIndex => PeerResponse::ReadIndex(self.read_index_for_peer().await),
            PeerRequest::Errand {
                stamp,
                errand,
                limit_ms,
            } => {
                let limit = Duration::from_millis(limit_ms);
                PeerResponse::Errand(self.receive_errand(&stamp, errand, limit).await)
            }
            PeerRequest::Status => PeerResponse::Status {
                status: Box::new(self.status()),
                digest: self.shared.digests().newest().1,
                version: VERSION.to_owned(),
            },
            PeerRequest::PrepareJoin { id, leader } => {
                PeerResponse::PrepareJoin(self.prepare_join(&id, &leader))
            }
            PeerRequest::CommandVersion => PeerResponse::CommandVersion(self.consensus.command_version()),
            PeerRequest::Digest(log_index) => PeerResponse::Digest(self.digest_at(log_index).await),
            PeerRequest::Diverged { log_index, digest } => {
                self.compare_with_majority(log_index, digest).await;
                PeerResponse::Noted
            }
            PeerRequest::Event(event) => {
                self.hear(event);
                PeerResponse::Noted
            }
        }
    }
}

impl Inner {
    async fn read_index_for_peer(&self) -> Option<u64> {
        self.serving().ok()?;
        let deadline = self.platform().now() + self.shared.config.read_timeout;
        let read_index = self.consensus.read_index();
        self.platform().until(deadline, read_index).await?.ok()
    }
}

/// This program's version.
pub(super) const VERSION: &str = env!("CARGO_PKG_VERSION");
