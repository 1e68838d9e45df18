//! One registry server, from a typed request to its typed answer: proposes, reads, watches, renews, expires.
//!
//! `Server` is a cheap, non-generic handle. It forwards to the leader what only the leader can do, reads linearizably
//! on any server, parks blocking queries, and shares each view's bytes among all who wait for it.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::BoxFuture;

use crate::{
    raft::{MembershipError, RaftStatus, ServerAddress, ServerId},
    registry::{CheckStatus, CheckTarget, Command, NodeName, Query, Refusal, Registry, Reply, View},
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

/// A view, shared by all who asked the same at the same index.
#[derive(Debug)]
pub struct SharedView {
    /// The typed content.
    pub view: View,
    bytes: OnceLock<Bytes>,
}

impl SharedView {
    /// The content's bytes, encoded by `encode` once. All callers must encode alike.
    pub fn bytes(&self, encode: impl FnOnce(&View) -> Bytes) -> Bytes {
        self.bytes.get_or_init(|| encode(&self.view)).clone()
    }
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
#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// The server is stopping or broken. (503)
    #[error("server stopped: {0}")]
    Stopped(String),
}

/// The clock, tasks and chance that a server needs, without naming its runtime.
pub trait Platform: Send + Sync + 'static {
    /// As [`crate::runtime::Runtime::now`].
    fn now(&self) -> Instant;
    /// As [`crate::runtime::Runtime::sleep_until`].
    fn sleep_until(&self, deadline: Instant) -> BoxFuture<'static, ()>;
    /// As [`crate::runtime::Runtime::spawn`], detached.
    fn spawn(&self, future: BoxFuture<'static, ()>);
    /// As [`crate::runtime::Runtime::random_u64`].
    fn random_u64(&self) -> u64;
}

/// How a server behaves beyond Raft.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// The logical node, shared by all servers, of instances registered through `/v1/agent/*`.
    pub agent_node: NodeName,
    /// Its address.
    pub agent_node_address: String,
    /// Name of the datacenter.
    pub datacenter: String,
    /// See [`crate::limits::WRITE_TIMEOUT`].
    pub write_timeout: Duration,
    /// See [`crate::limits::READ_TIMEOUT`].
    pub read_timeout: Duration,
}

impl Default for ServerConfig {
    fn default() -> Self {
        ServerConfig {
            agent_node: NodeName::parse("sider").expect("a valid constant"),
            agent_node_address: "127.0.0.1".into(),
            datacenter: "dc1".into(),
            write_timeout: crate::limits::WRITE_TIMEOUT,
            read_timeout: crate::limits::READ_TIMEOUT,
        }
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
    /// What it says of itself; `None` when it does not answer.
    pub status: Option<RaftStatus>,
    /// Digest of its state at its applied index; `None` when it does not answer.
    pub digest: Option<u128>,
    /// Its version of the program; empty when it does not answer.
    pub version: String,
}

/// A renewal or another report about a check, from a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Renewal {
    /// Which checks.
    pub target: CheckTarget,
    /// Their status.
    pub status: CheckStatus,
    /// Their output; `None` leaves it.
    pub output: Option<String>,
}

/// The handle.
#[derive(Clone)]
pub struct Server(Arc<()>);

impl Server {
    /// This server's settings.
    pub fn config(&self) -> &ServerConfig {
        unimplemented!()
    }
    /// Carries out a command through the leader, wherever it is. Never tried twice once it may have been proposed.
    ///
    /// # Errors
    /// No leader, outcome unknown, over a limit, stopped.
    pub async fn write(&self, _command: Command) -> Result<Written, ServerError> {
        unimplemented!()
    }
    /// Answers a query; blocks if the options say so.
    ///
    /// # Errors
    /// No leader (also at the end of a wait), over a limit, stopped.
    pub async fn read(&self, _query: Query, _options: ReadOptions) -> Result<Answer, ServerError> {
        unimplemented!()
    }
    /// Renews TTL checks and reports statuses through the leader, an outcome for each. What changes nothing is not
    /// written to the log; an acknowledged renewal holds.
    ///
    /// # Errors
    /// No leader, outcome unknown, over a limit, stopped.
    pub async fn renew(&self, _renewals: Vec<Renewal>) -> Result<Vec<Result<(), Refusal>>, ServerError> {
        unimplemented!()
    }
    /// Runs `look` on the state, linearizably unless `stale`; for answers that no [`Query`] covers. Gives the
    /// registry's index with it.
    ///
    /// # Errors
    /// As `read`.
    pub async fn inspect<T>(
        &self,
        _stale: bool,
        _look: impl FnOnce(&Registry) -> T + Send,
    ) -> Result<T, ServerError> {
        unimplemented!()
    }
    /// What this server knows of the cluster, at once.
    pub fn status(&self) -> RaftStatus {
        unimplemented!()
    }
    /// Digest of this server's state, with the log index it is of.
    pub fn digest(&self) -> (u64, u128) {
        unimplemented!()
    }
    /// Asks every member for its status, side by side, within a second.
    pub async fn cluster(&self) -> Vec<PeerReport> {
        unimplemented!()
    }
    /// Adds a member through the leader; an empty HTTP address is asked from the new member itself.
    ///
    /// # Errors
    /// No leader, refused, outcome unknown.
    pub async fn join(&self, _id: ServerId, _address: ServerAddress) -> Result<(), ServerError> {
        unimplemented!()
    }
    /// Removes a member through the leader.
    ///
    /// # Errors
    /// No leader, refused, outcome unknown.
    pub async fn remove(&self, _id: ServerId) -> Result<(), ServerError> {
        unimplemented!()
    }
    /// Hands leadership on, through the leader.
    ///
    /// # Errors
    /// No leader, refused, outcome unknown.
    pub async fn transfer(&self, _to: Option<ServerId>) -> Result<(), ServerError> {
        unimplemented!()
    }
    /// Whether this server can serve linearizable reads: it knows a leader and has caught up.
    ///
    /// # Errors
    /// Why not.
    pub async fn ready(&self) -> Result<(), String> {
        unimplemented!()
    }
    /// Blocking queries parked now.
    pub fn watchers(&self) -> usize {
        unimplemented!()
    }
    /// Text of `/metrics`, in Prometheus' format.
    pub fn metrics_text(&self) -> String {
        unimplemented!()
    }
    /// Takes note of an HTTP request that was answered.
    pub fn count_request(&self, _route: &str, _method: &str, _status: u16, _took: Duration) {
        unimplemented!()
    }
    /// The clock, for measuring requests.
    pub fn now(&self) -> Instant {
        unimplemented!()
    }
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
