//! One Raft member: puts the parts together, and gives them to the server as [`Consensus`].

use std::{
    collections::BTreeMap,
    future::Future,
    io,
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{FutureExt, future::BoxFuture};
use openraft::{
    Config, Raft, RaftMetrics, ServerState, SnapshotPolicy, async_runtime::WatchReceiver,
    errors::ClientWriteError, impls::OneshotResponder,
};
use tokio::sync::oneshot;

use super::{
    ApplyListener, Committed, Consensus, MembershipError, PeerService, ProposeError, RaftConfig, RaftStatus,
    ReadIndexError, ServerAddress, ServerId, Standing,
    background::{checkpoint_regularly, role, watch_leadership},
    checkpoint::Checkpoints,
    codec::{FORMAT_VERSION, StoreError},
    identity::Identity,
    journal::Journal,
    log::{self, LogStore},
    member::MemberId,
    membership::Members,
    message::{self, Addressee, Answer, Envelope, PeerMessage},
    network::{HandedOn, Peers},
    peer::PeerServer,
    reads::ReadIndexes,
    snapshot::Receiver,
    state::{Progress, StateMachine, check_version},
    types::{CommittedLeaderId, Proposal, StoredMembership, Types},
};
use crate::{
    limits,
    observe::{Observation, SharedObserver},
    registry::{Command, Registry, Retention},
    runtime::{Disk as _, Instant, Keyspace, Network, NetworkError, Runtime},
};

const FORMAT: &str = "format";

/// A Raft member. Dropping it stops it.
pub struct RaftNode<R: Runtime> {
    me: Identity,
    network: R::Network,
    raft: Raft<Types<R>, StateMachine<R>>,
    state: StateMachine<R>,
    log: LogStore<R>,
    journal: Journal,
    /// Its only owner: the network's handler holds it weakly.
    peers: Arc<PeerServer<R>>,
    members: Arc<Members<R>>,
    /// Taken away at shutdown, which ends the task behind it.
    reads: Mutex<Option<Arc<ReadIndexes>>>,
    /// Dropped at shutdown, which ends the tasks that wake from time to time.
    timers: Mutex<Option<(oneshot::Sender<()>, oneshot::Sender<()>)>>,
}

/// Why a member does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// What is on disk can't be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The settings contradict each other.
    #[error("bad Raft settings: {0}")]
    Config(String),
    /// Its own address can't be listened on.
    #[error("can't listen on {address}: {error}")]
    Listen {
        /// The address.
        address: String,
        /// Why not.
        error: io::Error,
    },
    /// The Raft library refuses what is on disk.
    #[error("the Raft log can't be used: {0}")]
    Raft(String),
}

impl<R: Runtime> RaftNode<R> {
    /// Loads what `disk` holds and starts to take part, as far as other servers know this one. A new cluster begins
    /// with [`Consensus::initialize`].
    ///
    /// # Errors
    /// Says in one line what is wrong, and the way out.
    pub async fn start(
        config: RaftConfig,
        disk: R::Disk,
        network: R::Network,
        listener: Arc<dyn ApplyListener>,
        service: Arc<dyn PeerService>,
        observer: SharedObserver,
    ) -> Result<Self, StartError> {
        let settings = Arc::new(openraft_config(&config)?);
        let journal = Journal::start::<R>(disk.clone(), config.portions.journal_writes, observer.clone());
        // What a process that crashed had written and not synced can be read, and may yet be lost with the power. It is
        // made durable before anything is built on it: others are told of the log as if it were.
        let action = "syncing what an earlier process left";
        let synced = disk.sync().await;
        synced.map_err(|error| StoreError::Disk { action, error })?;
        check_format(&disk, &journal).await?;
        let log = LogStore::<R>::load(
            config.id.clone(),
            disk.clone(),
            journal.clone(),
            config.portions.clone(),
            observer.clone(),
        )
        .await?;
        let state = load_state(
            &disk,
            &journal,
            listener.clone(),
            &observer,
            config.command_version,
            config.retention,
        )
        .await?;
        let me = Identity::load::<R>(config.id.clone(), &disk, journal.clone(), log.is_initialized()).await?;
        observer.observe(Observation::Identified {
            member: &me.member().to_string(),
        });

        let handed_on = HandedOn::default();
        let peers = Peers::<R>::new(
            me.clone(),
            network.clone(),
            append_timeout(&config),
            config.election_max,
            config.portions.clone(),
            handed_on.clone(),
        );
        let raft = Raft::build(me.member().clone(), settings, peers, log.clone(), state.clone())
            .await
            .map_err(|error| start_error(&journal, &error.to_string()))?;
        let receiver = Receiver::new(disk, journal.clone());
        let peers = Arc::new(PeerServer::new(
            me.clone(),
            raft.clone(),
            log.clone(),
            receiver,
            service,
        ));
        listen::<R>(&network, &peers)
            .await
            .map_err(|error| StartError::Listen {
                address: config.address.raft.to_string(),
                error,
            })?;

        drop(R::spawn(watch_leadership::<R>(
            raft.metrics(),
            state.clone(),
            listener,
            observer,
        )));
        let (stop_timer, timer_stopped) = oneshot::channel();
        drop(R::spawn(checkpoint_regularly(
            raft.clone(),
            config.snapshot_interval,
            timer_stopped,
        )));
        let (stop_caretaker, caretaker_stopped) = oneshot::channel();
        let members = Arc::new(Members::new(me.clone(), network.clone(), raft.clone(), handed_on));
        drop(R::spawn(members.clone().finish_changes(caretaker_stopped)));
        raft.run();
        // Before its first step the library knows of no members, not even of those on disk: a server that was started
        // again would take itself for one that must join.
        raft.with_raft_state(|_| ())
            .await
            .map_err(|error| start_error(&journal, &error.to_string()))?;
        Ok(RaftNode {
            members,
            me,
            reads: Mutex::new(Some(Arc::new(ReadIndexes::start(raft.clone())))),
            timers: Mutex::new(Some((stop_timer, stop_caretaker))),
            network,
            raft,
            state,
            log,
            journal,
            peers,
        })
    }

    /// Whether this server has ever taken part in a cluster.
    pub fn is_initialized(&self) -> bool {
        self.log.is_initialized()
    }

    /// Messages from peers that made no sense and were dropped, so far.
    pub fn bad_messages(&self) -> u64 {
        self.peers.bad_messages()
    }

    /// Whether a membership change is half done.
    #[cfg(test)]
    pub(crate) fn is_joint(&self) -> bool {
        self.metrics().membership_config.get_joint_config().len() > 1
    }

    fn metrics(&self) -> RaftMetrics<Types<R>> {
        self.raft.metrics().borrow_watched().clone()
    }

    async fn checkpoint_now(&self) -> Result<(), MembershipError> {
        let applied = self.state.applied().get();
        let mut watched = self.raft.metrics();
        let made = async {
            loop {
                let metrics = watched.borrow_and_update().clone();
                if metrics.snapshot.map_or(0, |log_id| log_id.index) >= applied {
                    return Ok::<(), String>(());
                }
                // Asked for again after every change: while one is being made, a request is not taken.
                self.raft
                    .trigger()
                    .snapshot()
                    .await
                    .map_err(|error| error.to_string())?;
                watched.changed().await.map_err(|error| error.to_string())?;
            }
        };
        match R::timeout(limits::CHECKPOINT_TIMEOUT, made).await {
            Some(Ok(())) => Ok(()),
            Some(Err(error)) => Err(MembershipError::Refused(format!("server stopped: {error}"))),
            None => Err(MembershipError::OutcomeUnknown(
                "the checkpoint takes too long".to_string(),
            )),
        }
    }

    /// Proposes a command; with a term, only while this server leads in it.
    async fn propose_command(&self, command: Command, term: Option<u64>) -> Result<Committed, ProposeError> {
        let (needed, known) = (command.least_version(), self.state.command_version());
        if needed > known {
            return Err(ProposeError::Stopped(
                StoreError::NewerCluster { needed, known }.to_string(),
            ));
        }
        let (responder, outcome) = OneshotResponder::new_pair();
        let proposal = Proposal::new(command, self.written_version(), R::wall_ms());
        let write = self.raft.write(proposal).responder(responder);
        let write = match term {
            Some(term) => write.with_leader(CommittedLeaderId::new(term)),
            None => write,
        };
        write
            .await
            .map_err(|error| ProposeError::Stopped(self.stop_reason(&error.to_string())))?;
        match outcome.await {
            Ok(Ok(response)) => match response.data.applied {
                Some(applied) => Ok(Committed {
                    log_index: response.log_id.index,
                    applied,
                }),
                None => Err(ProposeError::OutcomeUnknown(
                    "it was applied without a result".to_string(),
                )),
            },
            Ok(Err(ClientWriteError::ForwardToLeader(forward))) => Err(ProposeError::NotLeader {
                leader: forward
                    .leader_id
                    .filter(|leader| leader != self.me.member())
                    .map(|leader| leader.server)
                    .zip(forward.leader_node),
            }),
            Ok(Err(error)) => Err(ProposeError::OutcomeUnknown(error.to_string())),
            Err(_) => Err(ProposeError::OutcomeUnknown(
                "the server stopped before the command was applied".to_string(),
            )),
        }
    }

    /// The version of commands that is written now: what every member can read, as far as this server has applied.
    /// One that has not got there yet writes an older version, which everybody reads too.
    fn written_version(&self) -> u8 {
        let registry = self
            .state
            .registry()
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        registry.command_version().min(self.state.command_version())
    }

    /// Why this server stopped: the disk's failure, if that is behind it.
    fn stop_reason(&self, error: &str) -> String {
        self.journal.failure().get().unwrap_or(error).to_string()
    }

    async fn call_service(
        &self,
        address: &str,
        message: Bytes,
        timeout: Duration,
    ) -> Result<Bytes, NetworkError> {
        let metrics = self.metrics();
        let there: Vec<&MemberId> = metrics
            .membership_config
            .nodes()
            .filter(|(_, node)| node.raft == address)
            .map(|(id, _)| id)
            .collect();
        let envelope = Envelope::<R> {
            from: self.me.member().clone(),
            // A stranger may belong to another cluster: whoever is about to add it talks to it before.
            cluster: self.me.cluster().filter(|_| !there.is_empty()),
            // Of two members at one address, one is gone: which, only that server knows.
            to: match there[..] {
                // Not by its disk: one that lost its data is asked how it is, and whether it may be added again.
                [member] => Addressee::Server(member.server.clone()),
                _ => Addressee::Anyone,
            },
            message: PeerMessage::Service,
        };
        let frame = message::encode(&envelope, &message);
        let answer = self.network.call(address, frame, timeout).await?;
        // An answer other than the service's own says that the service was not asked.
        let reason = match message::decode::<Answer<R>>(&answer) {
            Ok((Answer::Service, answer)) => return Ok(answer),
            Ok((Answer::WrongServer(actual), _)) => format!("the server there is {}", actual.server),
            Ok((Answer::WrongCluster, _)) => "it belongs to another cluster".to_string(),
            Ok((Answer::Stopped(reason), _)) => format!("it stopped: {reason}"),
            Ok(_) => "it does not understand this server".to_string(),
            Err(error) => error.to_string(),
        };
        Err(NetworkError::Unreachable {
            address: address.to_string(),
            reason,
        })
    }

    async fn stop(&self) {
        drop(take(&self.reads));
        drop(take(&self.timers));
        if let Err(error) = self.raft.shutdown().await {
            tracing::warn!(%error, "Raft ended with an error");
        }
        self.state.applied().stop();
        // What is queued behind the last sync may as well be durable: a restart then has less to do.
        if let Err(error) = self.journal.commit(Vec::new()).await {
            tracing::warn!(%error, "the last writes may be lost; nothing that was acknowledged is among them");
        }
    }
}

impl<R: Runtime> Consensus for RaftNode<R> {
    fn propose(&self, command: Command) -> BoxFuture<'_, Result<Committed, ProposeError>> {
        self.propose_command(command, None).boxed()
    }

    fn propose_in_term(&self, term: u64, command: Command) -> BoxFuture<'_, Result<Committed, ProposeError>> {
        self.propose_command(command, Some(term)).boxed()
    }

    fn read_index(&self) -> BoxFuture<'_, Result<u64, ReadIndexError>> {
        let reads = lock(&self.reads).clone();
        async move {
            match reads {
                Some(reads) => reads.get().await,
                None => Err(ReadIndexError::Stopped("it is shutting down".to_string())),
            }
        }
        .boxed()
    }

    fn wait_applied(&self, log_index: u64) -> BoxFuture<'_, Result<(), ReadIndexError>> {
        async move {
            let waited = self.state.applied().wait(log_index).await;
            waited.map_err(|_| ReadIndexError::Stopped(self.stop_reason("it is shutting down")))
        }
        .boxed()
    }

    fn command_version(&self) -> u8 {
        self.state.command_version()
    }

    fn registry(&self) -> &RwLock<Registry> {
        self.state.registry()
    }

    fn status(&self) -> RaftStatus {
        let watched = self.raft.metrics();
        let metrics = watched.borrow_watched();
        let membership = metrics.membership_config.membership();
        let (mut voters, mut learners) = (BTreeMap::new(), BTreeMap::new());
        let mut disks = BTreeMap::new();
        for (member, address) in membership.nodes() {
            let votes = membership
                .get_joint_config()
                .iter()
                .any(|ids| ids.contains(member));
            let side = if votes { &mut voters } else { &mut learners };
            side.insert(member.server.clone(), address.clone());
            disks.insert(member.server.clone(), member.disk);
        }
        let leader = metrics.current_leader.as_ref().map(|MemberId { server, .. }| {
            let address = voters.get(server).or_else(|| learners.get(server));
            (server.clone(), address.cloned().unwrap_or_default())
        });
        let matched = metrics.replication.iter().flatten();
        let failed = metrics.running_state.as_ref().err();
        let index = |log_id: &Option<super::types::LogId>| log_id.map_or(0, |log_id| log_id.index);
        RaftStatus {
            id: self.me.id().clone(),
            disk: self.me.member().disk,
            disks,
            role: role(metrics.state),
            term: metrics.current_term,
            leader,
            last_log_index: metrics.last_log_index.unwrap_or(0),
            commit_index: index(&metrics.local_committed),
            applied_index: self.state.applied().get(),
            snapshot_index: index(&metrics.snapshot),
            purged_index: index(&metrics.purged),
            matched: matched
                .map(|(member, log_id)| (member.server.clone(), index(log_id)))
                .collect(),
            contacts_ms: self.contacts(&metrics),
            last_contact_ms: self.last_contact(&metrics),
            elections: self.log.elections(),
            fatal: failed
                .filter(|error| !matches!(error, openraft::errors::Fatal::Stopped))
                .map(|error| self.stop_reason(&error.to_string()))
                .or_else(|| self.journal.failure().get().map(str::to_string)),
            voters,
            learners,
        }
    }

    fn standing(&self) -> Standing {
        let watched = self.raft.metrics();
        let metrics = watched.borrow_watched();
        let members = metrics.membership_config.membership().nodes().count();
        Standing::new(
            metrics.current_leader.is_some(),
            self.last_contact(&metrics),
            members,
        )
    }

    fn call_peer<'a>(
        &'a self,
        address: &'a str,
        message: Bytes,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<Bytes, NetworkError>> {
        self.call_service(address, message, timeout).boxed()
    }

    fn initialize(
        &self,
        members: BTreeMap<ServerId, ServerAddress>,
    ) -> BoxFuture<'_, Result<(), MembershipError>> {
        self.members.initialize(members).boxed()
    }

    fn add_server(&self, id: ServerId, address: ServerAddress) -> BoxFuture<'_, Result<(), MembershipError>> {
        self.members.add(id, address).boxed()
    }

    fn remove_server(&self, id: ServerId) -> BoxFuture<'_, Result<(), MembershipError>> {
        self.members.remove(id, None).boxed()
    }

    fn remove_silent_server(
        &self,
        id: ServerId,
        silence: Duration,
    ) -> BoxFuture<'_, Result<(), MembershipError>> {
        self.members.remove(id, Some(silence)).boxed()
    }

    fn transfer_leader(&self, to: Option<ServerId>) -> BoxFuture<'_, Result<(), MembershipError>> {
        self.members.transfer(to).boxed()
    }

    fn checkpoint(&self) -> BoxFuture<'_, Result<(), MembershipError>> {
        self.checkpoint_now().boxed()
    }

    fn shutdown(&self) -> BoxFuture<'_, ()> {
        self.stop().boxed()
    }
}

impl<R: Runtime> RaftNode<R> {
    fn last_contact(&self, metrics: &RaftMetrics<Types<R>>) -> Option<u64> {
        let at = if metrics.state == ServerState::Leader {
            let membership = metrics.membership_config.membership();
            let mut voters = membership.get_joint_config().iter().flatten();
            if voters.all(|voter| voter == self.me.member()) {
                return Some(0);
            }
            metrics.last_quorum_acked.map(|instant| instant.at)
        } else {
            self.peers.leader_heard()
        };
        Some(millis_since::<R>(at?))
    }

    /// See [`RaftStatus::contacts_ms`].
    fn contacts(&self, metrics: &RaftMetrics<Types<R>>) -> BTreeMap<ServerId, u64> {
        let heard = metrics.heartbeat.iter().flatten();
        heard
            .filter(|(member, _)| *member != self.me.member())
            .filter_map(|(member, at)| Some((member.server.clone(), millis_since::<R>(at.as_ref()?.at))))
            .collect()
    }
}

fn millis_since<R: Runtime>(at: Instant) -> u64 {
    u64::try_from(R::now().saturating_since(at).as_millis()).unwrap_or(u64::MAX)
}

fn openraft_config(config: &RaftConfig) -> Result<Config, StartError> {
    let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let election_max = millis(config.election_max);
    let heartbeat = millis(config.heartbeat).max(1);
    Config {
        cluster_name: "sider".to_string(),
        heartbeat_interval: millis(config.heartbeat),
        election_timeout_min: millis(config.election_min),
        election_timeout_max: election_max,
        install_snapshot_timeout: millis(limits::SNAPSHOT_INSTALL_TIMEOUT),
        max_payload_entries: config.portions.append_entries,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(config.snapshot_threshold),
        max_in_snapshot_log_to_keep: config.log_keep,
        replication_lag_threshold: limits::JOIN_LAG_MAX,
        enable_pre_vote: Some(true),
        // A restarted leader has to be elected again: its lease and its timers died with it.
        enable_leader_restore: Some(false),
        // A leader without a quorum falls silent for a while, so that a part of the cluster that could elect another
        // one does: without it, a server that both sides still hear keeps the old leader in office for ever.
        quorum_loss_probe_interval: Some(election_max.saturating_mul(2)),
        // From one heartbeat on, and never long: the library does not end a pause when the follower answers heartbeats again,
        // or has taken a snapshot.
        backoff: format!(
            "{heartbeat}ms ...{}ms",
            heartbeat * limits::REPLICATION_PAUSE_HEARTBEATS
        ),
        ..Config::default()
    }
    .validate()
    .map_err(|error| StartError::Config(error.to_string()))
}

/// How long an append request may take. Longer than a follower's disk usually takes to sync; so short that a lost
/// request delays its successors no longer than an election would.
fn append_timeout(config: &RaftConfig) -> Duration {
    config.election_max
}

async fn check_format<D: crate::runtime::Disk>(disk: &D, journal: &Journal) -> Result<(), StoreError> {
    match log::read_meta::<D, u8>(disk, FORMAT).await? {
        Some(found) if found > FORMAT_VERSION => Err(StoreError::UnknownVersion {
            keyspace: Keyspace::Meta,
            key: FORMAT.to_string(),
            found,
            known: FORMAT_VERSION,
        }),
        Some(_) => Ok(()),
        None => journal.commit(vec![log::put_meta(FORMAT, &FORMAT_VERSION)]).await,
    }
}

pub(crate) async fn load_state<R: Runtime>(
    disk: &R::Disk,
    journal: &Journal,
    listener: Arc<dyn ApplyListener>,
    observer: &SharedObserver,
    command_version: u8,
    retention: Retention,
) -> Result<StateMachine<R>, StoreError> {
    let (checkpoints, registry, record) =
        Checkpoints::load(disk.clone(), journal.clone(), observer.clone(), retention).await?;
    check_version(&registry, command_version)?;
    let progress = Progress {
        applied: record.as_ref().and_then(|record| record.log_id),
        membership: record.map_or_else(StoredMembership::default, |record| record.membership),
        changed_rows: BTreeMap::new(),
    };
    Ok(StateMachine::new(
        registry,
        progress,
        checkpoints,
        listener,
        observer.clone(),
        command_version,
    ))
}

fn start_error(journal: &Journal, error: &str) -> StartError {
    StartError::Raft(journal.failure().get().unwrap_or(error).to_string())
}

fn listen<R: Runtime>(
    network: &R::Network,
    peers: &Arc<PeerServer<R>>,
) -> impl Future<Output = io::Result<()>> {
    let weak = Arc::downgrade(peers);
    network.listen(Arc::new(move |frame| {
        let peers = weak.upgrade();
        async move {
            match peers {
                Some(peers) => peers.handle(frame).await,
                None => message::encode(&Answer::<R>::Stopped("it is shutting down".to_string()), &[]),
            }
        }
        .boxed()
    }))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn take<T>(mutex: &Mutex<Option<T>>) -> Option<T> {
    lock(mutex).take()
}
