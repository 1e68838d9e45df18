//! One registry server, from a typed request to its typed answer: proposes, reads, watches, renews, expires.
//!
//! `Server` is a cheap, non-generic handle. It forwards to the leader what only the leader can do, reads linearizably
//! on any server, parks blocking queries, and shares each view's bytes among all who wait for it.

//!
//! Reading order: [`wiring`] (the parts and who holds whom), [`errands`] (what only a leader can do, from any server)
//! with [`admission`] (how much of it at a time),
//! [`reads`], [`blocking`] and [`streams`] (what any server can do), with [`hub`] and [`views`]; [`countdown`], [`deadlines`],
//! [`renewals`], [`session_renewals`] and [`expiry`] (time); [`probes`]; [`membership`], [`silence`], [`upkeep`], [`founding`], [`autopilot`], [`upgrade`],
//! [`snapshot`], [`divergence`], [`metrics`]; [`peer`] (messages), [`start`] (a server on a disk
//! and a network), [`standin`] (one without, for tests).

mod admission;
mod autopilot;
mod blocking;
mod countdown;
mod deadlines;
mod divergence;
mod errands;
mod events;
mod expiry;
mod founding;
mod host;
mod hub;
mod membership;
mod metrics;
mod occupancy;
mod peer;
mod platform;
mod probes;
mod reads;
mod receipts;
mod renewals;
mod session_renewals;
mod signal;
mod silence;
mod snapshot;
pub mod standin;
mod start;
mod streams;
mod upgrade;
mod upkeep;
mod views;
mod wiring;
mod words;

use std::{borrow::Borrow, collections::BTreeMap, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

pub(crate) use self::upkeep::split_address;
pub use self::{
    autopilot::AutopilotSettings,
    countdown::{Countdown, Due},
    events::UserEvent,
    founding::StoredAuthority,
    host::{Host, LogLevel},
    occupancy::Occupancy,
    platform::{Platform, RuntimePlatform},
    probes::ServerProber,
    snapshot::SnapshotStream,
    start::{Bootstrap, Introduction, Running, StartConfig, StartError, start, wipe},
    streams::{StreamEnd, StreamEvent, WatchStream},
    upkeep::{CONSUL_VERSION, SERVERS_INSTANCE},
    views::SharedView,
    wiring::{Finish, Wiring},
    words::{peer_answer, peer_request},
};
use self::{
    peer::{Errand, Outcome},
    wiring::Inner,
};
use crate::{
    limits,
    raft::{DiskId, MembershipError, RaftStatus, ServerAddress, ServerId},
    registry::{
        CheckStatus, CheckTarget, Command, NodeName, Query, Refusal, Registry, Reply, ServiceName, Session,
        SessionId, Snapshot,
    },
    runtime::Instant,
};

/// How fresh an answer must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Consistency {
    /// As of a moment between request and answer, on any server.
    #[default]
    Linearizable,
    /// What this server has, at once. With a bound, a linearizable read when the leader was not heard of for longer.
    Stale {
        /// `max_stale`.
        max_stale: Option<Duration>,
    },
}

/// How to read.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReadOptions {
    /// How fresh.
    pub consistency: Consistency,
    /// Wait until the answer's index is above this; `None` or 0 never waits.
    pub index: Option<u64>,
    /// Wait this long at most; already defaulted and cut, the random spread not yet added.
    pub wait: Duration,
}

/// An answer to a read.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The content.
    pub view: Arc<SharedView>,
    /// Index of what was asked; at least 1.
    pub index: u64,
    /// Whether this server knows a leader.
    pub known_leader: bool,
    /// How long ago the leader was heard of, for a stale read; 0 for a linearizable one.
    pub last_contact: Duration,
}

/// What a write gave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    /// The registry's index after it.
    pub index: u64,
    /// What the client is told.
    pub reply: Result<Reply, Refusal>,
}

/// Why a request failed. (A refusal by the registry is not among these: see [`Written`].)
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ServerError {
    /// No leader within the time limit, or this server is cut off. Nothing was done. (500)
    #[error("No cluster leader")]
    NoLeader,
    /// The write may or may not be carried out. (500)
    #[error("outcome unknown: {0}")]
    OutcomeUnknown(String),
    /// A limit was reached. (429)
    #[error("too many {what}: the limit is {limit}")]
    OverLimit {
        /// Of what.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
    /// The membership change can't be done. (400)
    #[error("{0}")]
    Refused(String),
    /// Not every member reads commands of this version yet. Nothing was done. (503)
    #[error(
        "this needs every server of the cluster to be up and to read commands of version {0}, and one does not yet: see \
         /v1/cluster/status"
    )]
    OlderMember(u8),
    /// The server is stopping or broken. (503)
    #[error("server stopped: {0}")]
    Stopped(String),
}

impl ServerError {
    /// How the text of [`ServerError::OlderMember`] begins: agents know by it that others of their writes are still taken.
    pub(crate) const NEEDS_ALL: &'static str = "this needs every server of the cluster";
}

/// How a server behaves beyond Raft.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// The logical node, shared by all servers, of instances registered through `/v1/agent/*`.
    pub agent_node: NodeName,
    /// Its address.
    pub agent_node_address: String,
    /// Its id: a UUID, the same at all servers.
    pub agent_node_id: String,
    /// Its meta, beside Consul's own.
    pub agent_node_meta: BTreeMap<String, String>,
    /// Name of the datacenter.
    pub datacenter: String,
    /// See [`crate::limits::WRITE_TIMEOUT`].
    pub write_timeout: Duration,
    /// See [`crate::limits::READ_TIMEOUT`].
    pub read_timeout: Duration,
    /// See [`crate::limits::VIEWS_MAX`].
    pub views: usize,
    /// See [`crate::limits::STREAM_KEEP_ALIVE`].
    pub stream_keep_alive: Duration,
    /// See [`crate::limits::STREAM_LIFE`].
    pub stream_life: Duration,
    /// At least 1: see [`crate::limits::FORWARDS_IN_FLIGHT_MAX`].
    pub forwards_in_flight: usize,
    /// At least 1: see [`crate::limits::WRITES_AT_ONCE_MAX`].
    pub writes_at_once: usize,
    /// At least 1: see [`crate::limits::DECISIONS_IN_FLIGHT_MAX`].
    pub decisions_in_flight: usize,
    /// At least 1: see [`crate::limits::EXPIRIES_PER_COMMAND_MAX`].
    pub expiries_per_command: usize,
    /// At most [`crate::limits::BODY_BYTES_MAX`]: see [`crate::limits::VALUE_BYTES_MAX`].
    pub value_bytes_max: usize,
    /// At most [`crate::limits::BODY_BYTES_MAX`]: see [`crate::limits::TRANSACTION_BYTES_MAX`].
    pub transaction_bytes_max: usize,
    /// Shortest TTL of a session: see [`crate::limits::SESSION_TTL_MIN`].
    pub session_ttl_min: Duration,
    /// Whether checks that run programs may be registered here.
    pub script_checks: bool,
    /// The service that the servers themselves are instances of; without it they are not in their catalog.
    pub servers_service: Option<ServiceName>,
    /// Makes a certificate authority for a trust domain, where something can.
    pub make_authority: Option<MakeAuthority>,
    /// Autopilot's settings as long as none are stored; without them Consul's, with which no dead server is removed.
    pub autopilot: Option<AutopilotSettings>,
    /// Runs checks of the node of registrations through `/v1/agent/…`; without it nobody does, and reports on them are taken.
    pub prober: Option<Arc<dyn ServerProber>>,
    /// The process around this server, where there is one.
    pub host: Option<Arc<dyn Host>>,
    /// See [`crate::limits::RESTORE_IDLE_MAX`].
    pub restore_idle: Duration,
    /// Longest time for one step of a restore: a part that is laid down, or the change of the state.
    pub restore_step: Duration,
}

impl Default for ServerConfig {
    fn default() -> Self {
        ServerConfig {
            agent_node: NodeName::parse("sider").expect("a valid constant"),
            agent_node_address: "127.0.0.1".into(),
            agent_node_id: node_id("sider"),
            agent_node_meta: BTreeMap::new(),
            datacenter: "dc1".into(),
            write_timeout: crate::limits::WRITE_TIMEOUT,
            read_timeout: crate::limits::READ_TIMEOUT,
            views: limits::VIEWS_MAX,
            stream_keep_alive: limits::STREAM_KEEP_ALIVE,
            stream_life: limits::STREAM_LIFE,
            forwards_in_flight: limits::FORWARDS_IN_FLIGHT_MAX,
            writes_at_once: limits::WRITES_AT_ONCE_MAX,
            decisions_in_flight: limits::DECISIONS_IN_FLIGHT_MAX,
            expiries_per_command: limits::EXPIRIES_PER_COMMAND_MAX,
            value_bytes_max: limits::VALUE_BYTES_MAX,
            transaction_bytes_max: limits::TRANSACTION_BYTES_MAX,
            session_ttl_min: crate::limits::SESSION_TTL_MIN,
            script_checks: false,
            servers_service: None,
            make_authority: None,
            autopilot: None,
            prober: None,
            host: None,
            restore_idle: limits::RESTORE_IDLE_MAX,
            restore_step: limits::RESTORE_STEP_TIMEOUT,
        }
    }
}

/// Makes a certificate authority for a trust domain; an error says why not.
pub type MakeAuthority = fn(trust_domain: &str) -> Result<Authority, String>;

/// A certificate authority.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Authority {
    /// Its certificate, in PEM.
    pub certificate: String,
    /// Its private key, in PEM. Never shown.
    pub private_key: String,
    /// The identifier of its public key: bytes in hex, with colons.
    pub key_id: String,
    /// From when on it is valid, as RFC 3339 writes it.
    pub not_before: String,
    /// Until when.
    pub not_after: String,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Authority({})", self.key_id)
    }
}

/// One server as another sees it.
#[derive(Clone, Debug)]
pub struct PeerReport {
    /// Its id.
    pub id: ServerId,
    /// Where it is.
    pub address: ServerAddress,
    /// Whether it votes.
    pub voter: bool,
    /// The disk by which it is a member.
    pub disk: DiskId,
    /// What it says of itself; `None` when it does not answer.
    pub status: Option<RaftStatus>,
    /// Digest of its state at its applied index; `None` when it does not answer.
    pub digest: Option<u128>,
    /// Its version of the program; empty when it does not answer.
    pub version: String,
    /// The newest version of the log's commands that it reads; `None` when it does not answer.
    pub command_version: Option<u8>,
}

impl PeerReport {
    /// Whether the server that answers has another disk than the one by which it is a member: it takes no part any more
    /// until it is removed and added again.
    pub fn lost_its_data(&self) -> bool {
        self.status
            .as_ref()
            .is_some_and(|status| status.disk != self.disk)
    }
}

/// A renewal or another report about a check, from a client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renewal {
    /// Which checks.
    pub target: CheckTarget,
    /// Their status.
    pub status: CheckStatus,
    /// Their output; `None` leaves it.
    pub output: Option<String>,
}

/// What renewals gave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renewed {
    /// The registry's index after them; that of the state they were compared with if nothing was written.
    pub index: u64,
    /// An outcome for each, in order.
    pub outcomes: Vec<Result<(), Refusal>>,
}

/// What the renewal of a session gave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRenewed {
    /// The registry's index after it.
    pub index: u64,
    /// The session; `None` if there is none.
    pub session: Option<Session>,
}

/// The handle.
#[derive(Clone)]
pub struct Server(Arc<Inner>);

impl Server {
    /// This server's settings.
    pub fn config(&self) -> &ServerConfig {
        &self.0.shared.config
    }
    /// Carries out a command through the leader, wherever it is. Never tried twice once it may have been proposed.
    ///
    /// # Errors
    /// No leader, outcome unknown, over a limit, stopped.
    pub async fn write(&self, command: Command) -> Result<Written, ServerError> {
        let limit = self.config().write_timeout;
        let deadline = self.now() + limit;
        let command = self.0.in_written_version(command, limit).await?;
        let left = deadline.saturating_since(self.now());
        match self.0.send_errand(Errand::Write(command), left).await? {
            Outcome::Written(written) => Ok(written),
            other => Err(unexpected(&other)),
        }
    }
    /// Answers a query; blocks if the options say so.
    ///
    /// # Errors
    /// No leader (also at the end of a wait), over a limit, stopped.
    pub async fn read(
        &self,
        query: impl Borrow<Query> + Send,
        options: ReadOptions,
    ) -> Result<Answer, ServerError> {
        self.0.read(query.borrow(), &options).await
    }
    /// Gives what a query answers now, unless the client has that, and then each time that it differs, for as long as
    /// the stream is kept. The options' index is that of what the client has; their wait means nothing here.
    ///
    /// # Errors
    /// No leader, over a limit, stopped. What fails later ends the stream.
    pub async fn watch(&self, query: Query, options: ReadOptions) -> Result<WatchStream, ServerError> {
        self.0.watch(query, options).await
    }
    /// Renews TTL checks and reports statuses through the leader, an outcome for each. What changes nothing is not
    /// written to the log; an acknowledged renewal holds.
    ///
    /// # Errors
    /// No leader, outcome unknown, over a limit, stopped.
    pub async fn renew(&self, renewals: Vec<Renewal>) -> Result<Renewed, ServerError> {
        if renewals.len() > limits::BATCH_RENEWALS_MAX {
            return Err(ServerError::OverLimit {
                what: "renewals in one call",
                limit: limits::BATCH_RENEWALS_MAX,
            });
        }
        let limit = self.config().write_timeout;
        match self.0.send_errand(Errand::Renew(renewals), limit).await? {
            Outcome::Renewed(renewed) => Ok(renewed),
            other => Err(unexpected(&other)),
        }
    }
    /// Renews a session through the leader. Nothing is written to the log, and an acknowledged renewal holds.
    ///
    /// # Errors
    /// No leader, outcome unknown, over a limit, stopped.
    pub async fn renew_session(&self, id: SessionId) -> Result<SessionRenewed, ServerError> {
        let limit = self.config().write_timeout;
        match self.0.send_errand(Errand::RenewSession(id), limit).await? {
            Outcome::SessionRenewed(renewed) => Ok(renewed),
            other => Err(unexpected(&other)),
        }
    }
    /// A new session's id: a random UUID.
    ///
    /// # Panics
    /// Never: a UUID is a name.
    pub fn new_session_id(&self) -> SessionId {
        SessionId::parse(&self.new_uuid()).expect("a UUID is a name")
    }
    /// Runs `look` on the state, linearizably unless `stale`; for answers that no [`Query`] covers. The state is
    /// locked meanwhile: `look` must be quick.
    ///
    /// # Errors
    /// As `read`.
    pub async fn inspect<T>(
        &self,
        stale: bool,
        look: impl FnOnce(&Registry) -> T + Send,
    ) -> Result<T, ServerError> {
        let consistency = match stale {
            true => Consistency::Stale { max_stale: None },
            false => Consistency::Linearizable,
        };
        self.0.settle(consistency).await?;
        Ok(look(&self.0.registry()))
    }
    /// Answers the query to which what `find` finds in the state leads, if it leads to any: both are of one moment. The state
    /// is locked meanwhile: `find` must be quick.
    ///
    /// # Errors
    /// As `read`.
    pub async fn read_found<T>(
        &self,
        consistency: Consistency,
        find: impl FnOnce(&Registry) -> (T, Option<Query>) + Send,
    ) -> Result<(T, Option<Answer>), ServerError> {
        let freshness = self.0.settle(consistency).await?;
        Ok(self.0.evaluate_found(find, freshness))
    }

    /// Puts a list in an order by chance, each as likely as any other.
    pub fn shuffle<T>(&self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let chance = u128::from(self.0.platform().random_u64());
            let chosen = (chance * (last as u128 + 1)) >> u64::BITS;
            items.swap(last, usize::try_from(chosen).unwrap_or(last));
        }
    }

    /// A new random UUID.
    pub fn new_uuid(&self) -> String {
        uuid([self.0.platform().random_u64(), self.0.platform().random_u64()])
    }

    /// This server's own addresses.
    pub fn address(&self) -> &ServerAddress {
        &self.0.shared.address
    }

    /// The id of the server at a Raft address; `None` if nobody answers there within a second.
    pub async fn name_of(&self, raft_address: &str) -> Option<ServerId> {
        self.0.name_of(raft_address).await
    }

    /// Fires a user event, and gives it as it is told to all servers.
    pub fn fire(&self, event: UserEvent) -> UserEvent {
        self.0.fire(event)
    }

    /// The user events that this server heard of, oldest first, all or those for the servers' shared node, of one name if it is
    /// given; with the index of the newest. With an index that is still that of the newest, waits for news first.
    pub async fn events(
        &self,
        all: bool,
        name: Option<&str>,
        index: Option<u64>,
        wait: Duration,
    ) -> (u64, Vec<UserEvent>) {
        let deadline = self.0.platform().now() + wait;
        self.0.events(all, name, index, deadline).await
    }

    /// What this server knows of the cluster, at once.
    pub fn status(&self) -> RaftStatus {
        self.0.status()
    }
    /// Digest of this server's state, with the log index it is of.
    pub fn digest(&self) -> (u64, u128) {
        self.0.shared.digests().newest()
    }
    /// What the leader knows of the cluster, asked within a second; `None` if there is none that answers.
    pub async fn leaders_status(&self) -> Option<RaftStatus> {
        self.0.leaders_status().await
    }
    /// Asks every member for its status, side by side, within a second.
    pub async fn cluster(&self) -> Vec<PeerReport> {
        self.0.cluster().await
    }
    /// The version of commands that the cluster writes, as far as this server has applied.
    pub fn command_version(&self) -> u8 {
        self.0.registry().command_version()
    }
    /// The state as of now (`stale`: as this server has it at once), in pieces of a snapshot file. They are made as
    /// they are taken.
    ///
    /// # Errors
    /// As `read`.
    pub async fn save_snapshot(&self, stale: bool) -> Result<SnapshotStream, ServerError> {
        let registry = self.inspect(stale, Registry::clone).await?;
        Ok(self.0.stream_snapshot(registry))
    }
    /// Replaces the state by that of a file, on all servers at one moment or not at all; gives the index after it.
    ///
    /// # Errors
    /// No leader, outcome unknown, refused (another restore is under way, or not every member knows what a restore
    /// is), over a limit, stopped.
    pub async fn restore_snapshot(&self, snapshot: &Snapshot) -> Result<Written, ServerError> {
        self.0.restore_snapshot(snapshot).await
    }
    /// Adds a member through the leader; an empty HTTP address is asked from the new member itself.
    ///
    /// # Errors
    /// No leader, refused, outcome unknown.
    pub async fn join(&self, id: ServerId, address: ServerAddress) -> Result<(), ServerError> {
        self.change_members(Errand::Join(id, address), limits::MEMBERSHIP_REQUEST_TIMEOUT)
            .await
    }
    /// Removes a member through the leader.
    ///
    /// # Errors
    /// No leader, refused, outcome unknown.
    pub async fn remove(&self, id: ServerId) -> Result<(), ServerError> {
        self.change_members(Errand::Remove(id), limits::MEMBERSHIP_REQUEST_TIMEOUT)
            .await
    }
    /// Hands leadership on, through the leader.
    ///
    /// # Errors
    /// No leader, refused, outcome unknown.
    pub async fn transfer(&self, to: Option<ServerId>) -> Result<(), ServerError> {
        self.change_members(Errand::Transfer(to), limits::TRANSFER_REQUEST_TIMEOUT)
            .await
    }
    async fn change_members(&self, errand: Errand, limit: Duration) -> Result<(), ServerError> {
        match self.0.send_errand(errand, limit).await? {
            Outcome::Done => Ok(()),
            other => Err(unexpected(&other)),
        }
    }
    /// Whether this server can serve linearizable reads: it knows a leader and has caught up.
    ///
    /// # Errors
    /// Why not.
    pub async fn ready(&self) -> Result<(), String> {
        self.0.ready().await
    }
    /// Blocking queries and streams parked now.
    pub fn watchers(&self) -> usize {
        self.0.shared.hub.len()
    }
    /// What this server holds for those who wait and what it keeps, each beside its limit.
    pub fn occupancy(&self) -> Vec<Occupancy> {
        self.0.occupancy()
    }
    /// Text of `/metrics`, in Prometheus' format.
    pub fn metrics_text(&self) -> String {
        self.0.metrics_text()
    }
    /// Takes note of an HTTP request that was answered. `method` is one of a few: clients must not be able to make up series.
    pub fn count_request(&self, route: &str, method: &'static str, status: u16, took: Duration) {
        self.0.shared.metrics.count_request(route, method, status, took);
    }
    /// The clock, for measuring requests.
    pub fn now(&self) -> Instant {
        self.0.platform().now()
    }
}

/// A UUID of version 4 from random bits.
fn uuid([high, low]: [u64; 2]) -> String {
    let high = high & !0xf000 | 0x4000;
    let low = low & !(0b11 << 62) | (0b10 << 62);
    format!(
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        high >> 32,
        high >> 16 & 0xffff,
        high & 0xffff,
        low >> 48,
        low & 0xffff_ffff_ffff
    )
}

/// A UUID that is a function of a node's name, for a node whose id nobody set.
pub fn node_id(name: &str) -> String {
    let hash = xxhash_rust::xxh3::xxh3_128(name.as_bytes());
    let (high, low) = ((hash >> 64) as u64, hash as u64);
    uuid([high, low])
}

fn unexpected(outcome: &Outcome) -> ServerError {
    ServerError::OutcomeUnknown(format!("an outcome of another kind: {outcome:?}"))
}

impl From<MembershipError> for ServerError {
    fn from(error: MembershipError) -> Self {
        match error {
            MembershipError::NotLeader { .. } => ServerError::NoLeader,
            MembershipError::Refused(reason) => ServerError::Refused(reason),
            MembershipError::OutcomeUnknown(reason) => ServerError::OutcomeUnknown(reason),
        }
    }
}
