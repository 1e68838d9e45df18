//! Replicates the registry's commands by Raft, on openraft; nothing outside this module names that library.
//!
//! The rest of the code sees [`Consensus`], which is object-safe, so that handlers are not generic and a unit test can
//! run the whole API on a single-member stand-in.

mod applied;
mod background;
mod checkpoint;
mod codec;
mod dump;
mod founding;
mod identity;
mod journal;
mod log;
mod member;
mod membership;
mod message;
mod network;
mod node;
mod peer;
mod reads;
mod rt;
mod snapshot;
mod state;
#[cfg(test)]
pub(crate) mod tests;
mod types;
mod watch;
pub(crate) mod words;

pub use codec::StoreError;
pub use dump::{StoreSummary, StoredContent, StoredEntry, dump, stored_entry};
pub use member::DiskId;
pub use node::{RaftNode, StartError};

use std::{collections::BTreeMap, fmt, sync::RwLock, time::Duration};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use crate::{
    limits,
    registry::{Applied, Command, Registry, Retention},
    runtime::NetworkError,
};

/// A Raft member's id, as given by `-raft-id`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ServerId(pub SmolStr);

impl fmt::Display for ServerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where a member is reached. It is cloned with every look at the membership: short texts cost no allocation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerAddress {
    /// `host:port` of its Raft transport.
    pub raft: SmolStr,
    /// `host:port` of its HTTP API; empty while unknown.
    pub http: SmolStr,
}

/// How a member runs.
#[derive(Clone, Debug)]
pub struct RaftConfig {
    /// This server.
    pub id: ServerId,
    /// Where others reach it.
    pub address: ServerAddress,
    /// Between two heartbeats of a leader.
    pub heartbeat: Duration,
    /// Shortest time without a heartbeat before a follower campaigns.
    pub election_min: Duration,
    /// Longest such time.
    pub election_max: Duration,
    /// Entries after a checkpoint before the next one.
    pub snapshot_threshold: u64,
    /// Time after a checkpoint before the next one, if anything was applied since.
    pub snapshot_interval: Duration,
    /// Applied entries kept in the log below the checkpoint, for followers that lag a little.
    pub log_keep: u64,
    /// The newest version of commands that this server reads and writes: [`Command::NEWEST_VERSION`], unless it plays
    /// an older program, before a rolling upgrade or in a test of one.
    pub command_version: u8,
    /// How much is done in one go.
    pub portions: Portions,
    /// How much is kept of what is gone; the same on all servers of a cluster.
    pub retention: Retention,
}

/// How much is done in one go. Only the speed depends on it, never an outcome; smaller ones than the defaults let more
/// happen between two of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Portions {
    /// Entries of one append request: see [`limits::ENTRIES_PER_APPEND_MAX`].
    pub append_entries: u64,
    /// Bytes of entries in one append request: see [`limits::APPEND_BYTES`].
    pub append_bytes: usize,
    /// Append requests under way to one follower, at least 1: see [`limits::APPENDS_IN_FLIGHT_MAX`].
    pub appends_in_flight: usize,
    /// Bytes of one chunk of a snapshot: see [`limits::SNAPSHOT_CHUNK_BYTES`].
    pub snapshot_chunk_bytes: usize,
    /// Writes waiting for the disk, at least 1: see [`limits::JOURNAL_WRITES_MAX`].
    pub journal_writes: usize,
    /// Recent log entries kept in memory: see [`limits::LOG_CACHE_ENTRIES_MAX`].
    pub log_cache_entries: usize,
    /// Log entries read from disk in one go, at least 1: see [`limits::LOG_READ_ENTRIES`].
    pub log_read_entries: usize,
}

impl Default for Portions {
    fn default() -> Self {
        Portions {
            append_entries: limits::ENTRIES_PER_APPEND_MAX,
            append_bytes: limits::APPEND_BYTES,
            appends_in_flight: limits::APPENDS_IN_FLIGHT_MAX,
            snapshot_chunk_bytes: limits::SNAPSHOT_CHUNK_BYTES,
            journal_writes: limits::JOURNAL_WRITES_MAX,
            log_cache_entries: limits::LOG_CACHE_ENTRIES_MAX,
            log_read_entries: limits::LOG_READ_ENTRIES,
        }
    }
}

impl RaftConfig {
    /// The defaults of a production server.
    pub fn new(id: ServerId, address: ServerAddress) -> Self {
        RaftConfig {
            id,
            address,
            heartbeat: Duration::from_millis(50),
            election_min: Duration::from_millis(150),
            election_max: Duration::from_millis(300),
            snapshot_threshold: 8192,
            snapshot_interval: Duration::from_secs(20),
            log_keep: 1024,
            command_version: Command::NEWEST_VERSION,
            portions: Portions::default(),
            retention: Retention::default(),
        }
    }
}

/// A command that was committed and applied.
#[derive(Clone, Debug)]
pub struct Committed {
    /// Log index of its entry.
    pub log_index: u64,
    /// What came of it.
    pub applied: Applied,
}

/// Why a proposal was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum ProposeError {
    /// This server does not lead. The command was not proposed: it may be sent to the leader.
    #[error("No cluster leader")]
    NotLeader {
        /// Who leads, as far as this server knows.
        leader: Option<(ServerId, ServerAddress)>,
    },
    /// Whether the command was or will be carried out is unknown.
    #[error("outcome unknown: {0}")]
    OutcomeUnknown(String),
    /// The server is stopping or broken; the command was not proposed.
    #[error("server stopped: {0}")]
    Stopped(String),
}

/// Why leadership could not be confirmed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum ReadIndexError {
    /// This server does not lead, or could not hear from a quorum.
    #[error("No cluster leader")]
    NotLeader {
        /// Who leads, as far as this server knows.
        leader: Option<(ServerId, ServerAddress)>,
    },
    /// The server is stopping or broken.
    #[error("server stopped: {0}")]
    Stopped(String),
}

/// Why the membership was not changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum MembershipError {
    /// This server does not lead.
    #[error("No cluster leader")]
    NotLeader {
        /// Who leads, as far as this server knows.
        leader: Option<(ServerId, ServerAddress)>,
    },
    /// It can't be done; nothing was changed (a 400 or 409).
    #[error("{0}")]
    Refused(String),
    /// It was begun and may complete.
    #[error("outcome unknown: {0}")]
    OutcomeUnknown(String),
}

/// A member's part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// Leads.
    Leader,
    /// Votes and follows.
    Follower,
    /// Campaigns.
    Candidate,
    /// Follows without a vote.
    Learner,
    /// Broken or stopped.
    Shutdown,
}

/// What a server knows about the cluster, at one moment and without asking anyone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RaftStatus {
    /// This server.
    pub id: ServerId,
    /// The disk that it has.
    pub disk: DiskId,
    /// Its part.
    pub role: Role,
    /// Its term.
    pub term: u64,
    /// The leader it follows or is.
    pub leader: Option<(ServerId, ServerAddress)>,
    /// Last entry of its log.
    pub last_log_index: u64,
    /// Last entry known to be committed.
    pub commit_index: u64,
    /// Last entry applied.
    pub applied_index: u64,
    /// Last entry in the checkpoint.
    pub snapshot_index: u64,
    /// Last entry that is in the checkpoint only.
    pub purged_index: u64,
    /// Voting members.
    pub voters: BTreeMap<ServerId, ServerAddress>,
    /// Members without a vote.
    pub learners: BTreeMap<ServerId, ServerAddress>,
    /// The disk by which each member is known. A server that has another one lost its data: it is no member any more,
    /// and has to be removed and added again.
    pub disks: BTreeMap<ServerId, DiskId>,
    /// At a leader: the last index known to be on each member's disk.
    pub matched: BTreeMap<ServerId, u64>,
    /// At a leader: how long ago each other member last acknowledged anything to it; without those that have not since it
    /// leads. Not told to other servers.
    #[serde(skip)]
    pub contacts_ms: BTreeMap<ServerId, u64>,
    /// Time since the leader was last heard of (at a leader: since a quorum last acknowledged); `None`: never.
    pub last_contact_ms: Option<u64>,
    /// Elections that this server started.
    pub elections: u64,
    /// Why it stopped by itself, if it did (a failed disk, a state that differs from the others').
    pub fatal: Option<String>,
}

impl RaftStatus {
    /// The leader, unless it was silent for [`limits::LEADER_SILENCE_MAX`], or was never heard of since this server runs:
    /// then nobody knows whether it still leads.
    pub fn known_leader(&self) -> Option<&(ServerId, ServerAddress)> {
        self.leader.as_ref().filter(|_| was_heard(self.last_contact_ms))
    }
}

fn was_heard(last_contact_ms: Option<u64>) -> bool {
    last_contact_ms.is_some_and(|contact| Duration::from_millis(contact) <= limits::LEADER_SILENCE_MAX)
}

/// What of [`RaftStatus`] single requests need.
#[derive(Clone, Copy, Debug)]
pub struct Standing {
    /// See [`RaftStatus::known_leader`].
    pub known_leader: bool,
    /// See [`RaftStatus::last_contact_ms`].
    pub last_contact: Option<Duration>,
    /// How many members there are, with and without a vote.
    pub members: usize,
}

impl Standing {
    pub(crate) fn new(led: bool, last_contact_ms: Option<u64>, members: usize) -> Self {
        Standing {
            known_leader: led && was_heard(last_contact_ms),
            last_contact: last_contact_ms.map(Duration::from_millis),
            members,
        }
    }
}

/// Is told of every change of the state, in order, while the state is locked: it must be quick and must not call back.
pub trait ApplyListener: Send + Sync + 'static {
    /// A command was applied.
    fn applied(&self, registry: &Registry, log_index: u64, command: &Command, applied: &Applied);
    /// The state was replaced: at the start from disk, or by a snapshot of the leader.
    fn replaced(&self, registry: &Registry, log_index: u64);
    /// Role, term, leader or membership changed; read [`Consensus::status`]. Called without the lock.
    fn leadership_changed(&self);
}

/// A replicated log that carries the registry's commands.
pub trait Consensus: Send + Sync + 'static {
    /// Proposes a command at the leader; ends when it is applied here. Pipelined: many may be under way. Has no time
    /// limit of its own.
    fn propose(&self, command: Command) -> BoxFuture<'_, Result<Committed, ProposeError>>;
    /// As [`Consensus::propose`], but only in this term of this server's leadership: what was decided from memory of one
    /// term must not be carried out in a later one. In any other term it is not proposed.
    fn propose_in_term(&self, term: u64, command: Command) -> BoxFuture<'_, Result<Committed, ProposeError>>;
    /// A log index such that a state with it applied holds every write acknowledged before this call. At the leader
    /// only; costs one round to a quorum begun after the call.
    fn read_index(&self) -> BoxFuture<'_, Result<u64, ReadIndexError>>;
    /// Ends when an entry is applied here; an error when the server stops.
    fn wait_applied(&self, log_index: u64) -> BoxFuture<'_, Result<(), ReadIndexError>>;
    /// The newest version of commands that this server reads.
    fn command_version(&self) -> u8;
    /// The state.
    fn registry(&self) -> &RwLock<Registry>;
    /// What is known now.
    fn status(&self) -> RaftStatus;
    /// The part of [`Self::status`] that single requests need.
    fn standing(&self) -> Standing;
    /// Sends a message to the [`PeerService`] of another server.
    fn call_peer<'a>(
        &'a self,
        address: &'a str,
        message: Bytes,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<Bytes, NetworkError>>;
    /// Starts a new cluster of these members, this server among them. Only on an empty disk, and if all of them answer
    /// and have empty disks, too: the cluster must know their disks. If not, it may be tried again.
    fn initialize(
        &self,
        members: BTreeMap<ServerId, ServerAddress>,
    ) -> BoxFuture<'_, Result<(), MembershipError>>;
    /// At the leader: adds a member, first without a vote until it has caught up, then with one. Idempotent.
    fn add_server(&self, id: ServerId, address: ServerAddress) -> BoxFuture<'_, Result<(), MembershipError>>;
    /// At the leader: removes a member (itself too: then it steps down).
    fn remove_server(&self, id: ServerId) -> BoxFuture<'_, Result<(), MembershipError>>;
    /// As [`Consensus::remove_server`], but refused if the member has acknowledged anything less than `silence` ago when
    /// the change is handed in, after any that is under way.
    fn remove_silent_server(
        &self,
        id: ServerId,
        silence: Duration,
    ) -> BoxFuture<'_, Result<(), MembershipError>>;
    /// At the leader: hands leadership to a voter (`None`: to the one that has most of the log).
    fn transfer_leader(&self, to: Option<ServerId>) -> BoxFuture<'_, Result<(), MembershipError>>;
    /// Makes a checkpoint now.
    fn checkpoint(&self) -> BoxFuture<'_, Result<(), MembershipError>>;
    /// Stops the member; what was acknowledged is on disk already.
    fn shutdown(&self) -> BoxFuture<'_, ()>;
}

/// Answers the messages of other servers that are not Raft's own.
pub trait PeerService: Send + Sync + 'static {
    /// Answers one.
    fn serve(&self, message: Bytes) -> BoxFuture<'static, Bytes>;
}
