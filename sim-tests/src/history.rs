//! What happened in one simulated run: what clients saw, what servers did, what was done to them.
//!
//! All times are of the global virtual clock. Two things at the same instant count as concurrent: the judges only lean
//! on an order that a client could have noticed.

mod agent;
mod fact;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    ops::Deref,
    sync::OnceLock,
    time::Duration,
};

pub use self::{
    agent::{
        AgentCheck, AgentInstance, AgentLooks, AgentPromise, Looked, Outage, OutageKind, Reported, Seen,
    },
    fact::{AppliedEntry, Effect, Fact, Observed},
};
use sider_core::limits::{TOMBSTONES_MAX, WRITES_AT_ONCE_MAX};

use crate::{content::Content, operation::Op, time::Time, truth::Truth};

/// A server, by its number; it is called `s<number>` for people. Or an agent in the place of one, which sends on what it is
/// asked.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
pub struct ServerNumber(pub u8);

/// A server on one of its disks, as members are known to each other: one that lost its disk comes back on another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Disk {
    /// The server.
    pub server: ServerNumber,
    /// The id of its disk.
    pub id: u64,
}

impl Disk {
    /// That of a member's name as servers tell it, `s<number>#<id in hex>`. In the judges' tests a server is named alone,
    /// and then has the disk 0.
    pub fn parse(member: &str) -> Option<Disk> {
        let (server, id) = member.split_once('#').unwrap_or((member, "0"));
        Some(Disk {
            server: ServerNumber::parse(server)?,
            id: u64::from_str_radix(id, 16).ok()?,
        })
    }
}

impl From<ServerNumber> for Disk {
    fn from(server: ServerNumber) -> Disk {
        Disk { server, id: 0 }
    }
}

impl fmt::Display for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.server.fmt(f)
    }
}

/// A finished run, with what follows from it computed once.
#[derive(Debug)]
pub struct History {
    record: Record,
    truth: OnceLock<Truth>,
}

/// The raw facts of a run.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// What the judges must know of the schedule.
    pub bounds: Bounds,
    /// Operations of clients, in the order of their invocation.
    pub operations: Vec<Operation>,
    /// What servers did, in order.
    pub observations: Vec<Observed>,
    /// Of real processes, where nobody sees an entry applied: when each, by its log index, can have been at the earliest.
    /// That it was applied is then observed at the latest possible moment, and of no server in particular. Empty where
    /// it was seen.
    pub earliest: BTreeMap<u64, Time>,
    /// What was done to the cluster.
    pub faults: Vec<FaultSpan>,
    /// Membership changes that were asked for.
    pub memberships: Vec<MembershipChange>,
    /// Leadership that was handed on, as far as that was acknowledged.
    pub transfers: Vec<Transferred>,
    /// Who the members are in the end, as each of them says.
    pub configurations: Vec<Configuration>,
    /// What servers held at moments of the run, each thing of which there may be several beside its limit.
    pub holdings: Vec<Holding>,
    /// What agents want to be in the registry.
    pub agents: Vec<AgentPromise>,
    /// When the machines that servers probe turned, and whether to well.
    pub turns: Vec<(Time, u8, bool)>,
    /// What broke inside: a panic in a server's task, or the run's own machinery.
    pub panics: Vec<(Time, String)>,
    /// When the last fault had ended and everything was started again.
    pub healed: Time,
    /// When the run ended.
    pub ended: Time,
}

/// What of a schedule decides how strictly its run is judged.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// By how much any server's clock runs wrong at most, in parts per million.
    pub drift_ppm: u32,
    /// Longest way of a message between two machines while nothing is wrong.
    pub latency: Duration,
    /// How long after a disturbance the cluster may take to find its feet.
    pub settle: Duration,
    /// How long after the last fault every server must serve again.
    pub recovery: Duration,
    /// The cluster's first voters.
    pub first_voters: Vec<ServerNumber>,
    /// Nodes of agents: what is registered there comes from them, not from a client's operation.
    pub agent_nodes: Vec<String>,
    /// A client's wait for an answer beyond what it allowed the server to wait.
    pub patience: Duration,
    /// Whether servers may be of an older program.
    pub older_programs: bool,
    /// Whether the servers are in their own catalog.
    pub servers_listed: bool,
    /// Indexes that are kept of each kind of things that are gone.
    pub tombstones: usize,
    /// Writes that a leader carries out at a time.
    pub writes_at_once: usize,
    /// How long the leader leaves the parts of a restore alone that lays down no more of them.
    pub restore_idle: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Bounds {
            drift_ppm: 0,
            latency: Duration::from_millis(10),
            settle: Duration::from_secs(2),
            recovery: Duration::from_secs(5),
            first_voters: Vec::new(),
            agent_nodes: Vec::new(),
            patience: Duration::from_secs(8),
            older_programs: false,
            servers_listed: false,
            tombstones: TOMBSTONES_MAX,
            writes_at_once: WRITES_AT_ONCE_MAX,
            restore_idle: Duration::from_secs(3),
        }
    }
}

/// One request of a client and what came of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Operation {
    /// Its number within the run.
    pub id: u32,
    /// The client.
    pub client: u32,
    /// The server that it was sent to.
    pub server: ServerNumber,
    /// What was asked.
    pub op: Op,
    /// Whether the client gives up sooner than a server may take.
    pub impatient: bool,
    /// When it was sent.
    pub invoked: Time,
    /// When the answer was there, or the client gave up.
    pub returned: Time,
    /// What came of it.
    pub outcome: Outcome,
    /// Up to then, when anything last came to its server from another one; `None` where that is not known.
    pub heard: Option<Heard>,
    /// Of a wait for the next event of a stream: which.
    pub streamed: Option<Streamed>,
}

/// The wait for an event of a stream. The stream's request begins the first one; each other begins when the server sent
/// the event before, for it goes on from there by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Streamed {
    /// Which event it is, counted from 0.
    pub nth: u32,
    /// The operation that waited for the event before.
    pub before: Option<u32>,
    /// When it reached the client's machine; a slow client takes it later.
    pub arrived: Time,
    /// From when on the client had room for it.
    pub room: Time,
    /// When the stream's request was sent.
    pub opened: Time,
    /// When the server last said anything on it before, be it only that nothing differs; at first, when it was opened.
    pub spoke: Time,
    /// When the server said that nothing differs: since when it can have found out, and when it arrived.
    pub unchanged: Vec<(Time, Time)>,
}

/// Why a wait for an event has no outcome when the client went by itself, or the server ended the stream in order.
pub const LEFT: &str = "the stream was left";

/// When a server last got anything from another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// It never did.
    Never,
    /// Then.
    At(Time),
}

/// What a client knows of an operation when it is over.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It was answered with success.
    Done(Answer),
    /// It was refused by a rule (a 4xx): nothing was changed by it.
    Refused {
        /// The status code.
        status: u16,
        /// The text.
        reason: String,
    },
    /// It was certainly not carried out.
    Failed(String),
    /// It may have been carried out, or may be later.
    Unknown(String),
    /// The answer makes no sense: no such answer is documented.
    Nonsense(String),
}

/// Why the outcome of an operation is unknown whose client was taken away at the end of the run.
pub const CUT_OFF: &str = "the run ended before it";

/// A success.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// `X-Index`, where there is one.
    pub index: Option<u64>,
    /// What it says of its freshness, where it is an answer to a read.
    pub told: Option<Told>,
    /// What was read.
    pub content: Option<Content>,
    /// For a batch: which of its parts were refused.
    pub refused: Vec<bool>,
}

/// What an answer's headers say of how fresh it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// `X-Consul-KnownLeader`.
    pub known_leader: bool,
    /// `X-Consul-LastContact`.
    pub last_contact: Duration,
    /// `X-Consul-Effective-Consistency`.
    pub consistency: String,
    /// What an agent says that answers from what it keeps.
    pub kept: Option<Kept>,
}

/// What the answer of an agent to `?cached` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Whether it had it already: `X-Cache`.
    pub hit: bool,
    /// How long ago a server confirmed it, in whole seconds: `Age`.
    pub age: Duration,
}

/// A fault and how long it lasted.
#[derive(Clone, Debug, PartialEq)]
pub struct FaultSpan {
    /// When it began.
    pub from: Time,
    /// When it was over.
    pub until: Time,
    /// The servers it was about.
    pub servers: Vec<ServerNumber>,
    /// What, in plain words.
    pub what: String,
    /// What it may excuse.
    pub kind: FaultKind,
}

/// What a fault may excuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// Slowness, elections and errors.
    Disturbing,
    /// The same; and it may make a server stop by itself.
    BrokenDisk,
    /// Nothing: a correct cluster does not notice.
    Harmless,
    /// That its servers take no part any more, from its beginning on. The others must do without them.
    Lasting,
}

/// An acknowledged transfer of leadership.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transferred {
    /// When it was asked for.
    pub invoked: Time,
    /// When the answer was there.
    pub returned: Time,
    /// To whom; `None` if any other server was as good.
    pub to: Option<ServerNumber>,
}

/// A membership change through the API.
#[derive(Clone, Debug, PartialEq)]
pub struct MembershipChange {
    /// When it was asked for.
    pub invoked: Time,
    /// When the answer was there.
    pub returned: Time,
    /// The server that joins or leaves.
    pub server: ServerNumber,
    /// Whether it joins.
    pub joins: bool,
    /// What was answered: done, certainly not done, or unknown (`None`).
    pub done: Option<bool>,
    /// The answer in words.
    pub answer: String,
}

/// How much of something a server held, in some part of the run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holding {
    /// The server.
    pub server: ServerNumber,
    /// What.
    pub what: String,
    /// Whether it is held for somebody who waits.
    pub passing: bool,
    /// How many there may be.
    pub limit: usize,
    /// The most that were seen, and when.
    pub most: (usize, Time),
    /// The least that were seen after all clients had gone; `None` if nobody looked.
    pub left: Option<usize>,
}

/// A member's view of the membership.
#[derive(Clone, Debug, PartialEq)]
pub struct Configuration {
    /// When it was asked.
    pub at: Time,
    /// Who was asked.
    pub server: ServerNumber,
    /// The last entry that it had applied: who has applied more knows better.
    pub applied: u64,
    /// Voters.
    pub voters: Vec<ServerNumber>,
    /// Learners.
    pub learners: Vec<ServerNumber>,
}

impl History {
    /// A history of these facts.
    pub fn new(mut record: Record) -> History {
        record
            .operations
            .sort_by_key(|operation| (operation.invoked, operation.id));
        History {
            record,
            truth: OnceLock::new(),
        }
    }

    /// What follows from the facts: the committed log, the states it leads through, when it was calm.
    pub fn truth(&self) -> &Truth {
        self.truth.get_or_init(|| Truth::of(&self.record))
    }

    /// What the agent promised that a request was sent to; `None` if it was sent to a server.
    pub fn agent_of(&self, operation: &Operation) -> Option<&AgentPromise> {
        let node = crate::agency::node(operation.server.agent()?);
        self.agents.iter().find(|agent| agent.node == node)
    }

    /// An operation by its number.
    pub fn operation(&self, id: u32) -> Option<&Operation> {
        self.record.operations.iter().find(|operation| operation.id == id)
    }
}

impl Deref for History {
    type Target = Record;
    fn deref(&self) -> &Record {
        &self.record
    }
}

impl Record {
    /// Every server that is heard of, in order.
    pub fn servers(&self) -> Vec<ServerNumber> {
        let seen: BTreeMap<ServerNumber, ()> =
            self.observations.iter().map(|seen| (seen.server, ())).collect();
        seen.into_keys().collect()
    }
}

impl Record {
    /// Whether a server is a voting member at a moment, by what the operator was told; `None` where that is unknown.
    pub fn is_member(&self, server: ServerNumber, at: Time) -> Option<bool> {
        if self.is_out(server, at) {
            return None;
        }
        let first = &self.bounds.first_voters;
        let mut changes: Vec<&MembershipChange> = self
            .memberships
            .iter()
            .filter(|change| change.server == server && change.invoked <= at)
            .collect();
        changes.sort_by_key(|change| change.invoked);
        let begins = Some(first.is_empty() || first.contains(&server));
        changes
            .into_iter()
            .fold(begins, |before, change| match change.done {
                _ if before == Some(change.joins) => before,
                Some(true) if change.returned <= at => Some(change.joins),
                Some(false) => before,
                _ => None,
            })
    }

    /// Whether a server has lost its disk and was not added again since: it is no member, though its name may be one's.
    pub fn is_out(&self, server: ServerNumber, at: Time) -> bool {
        let is_loss =
            |seen: &&Observed| matches!(seen.what, Fact::Wiped) && seen.server == server && seen.at <= at;
        let wiped = self.observations.iter().rfind(is_loss);
        wiped.is_some_and(|wiped| {
            !self.memberships.iter().any(|change| {
                change.server == server
                    && change.joins
                    && change.done == Some(true)
                    && change.returned >= wiped.at
                    && change.returned <= at
            })
        })
    }

    /// Whether a server is broken for good at a moment.
    pub fn is_broken(&self, server: ServerNumber, at: Time) -> bool {
        self.faults.iter().any(|fault| {
            fault.kind == FaultKind::Lasting && fault.from <= at && fault.servers.contains(&server)
        })
    }

    /// What the member that knows most told last of the membership.
    pub fn newest_configuration(&self) -> Option<&Configuration> {
        self.configurations
            .iter()
            .max_by_key(|told| (told.applied, told.at))
    }

    /// The voters of the last membership that was applied above a log index, of each of its sets; `None` if none was.
    fn voters_applied_after(&self, log_index: u64) -> Option<BTreeSet<ServerNumber>> {
        let mut appended = BTreeMap::new();
        let mut applied = BTreeMap::new();
        for seen in &self.observations {
            match &seen.what {
                Fact::Configured { log_index, voters } => {
                    appended.insert((seen.server, *log_index), voters);
                }
                Fact::Applied(entry) if entry.log_index > log_index => {
                    let voters = appended.get(&(seen.server, entry.log_index));
                    applied.extend(voters.map(|voters| (entry.log_index, *voters)));
                }
                _ => {}
            }
        }
        let (_, voters) = applied.pop_last()?;
        Some(voters.iter().flatten().map(|disk| disk.server).collect())
    }

    /// Members that are up in the end and not broken for good: those of the last configuration that anyone told, or that
    /// was applied since, or all if none was told. One that lost its disk is not among them if it was added again too late
    /// to have caught up.
    pub fn members_in_the_end(&self) -> Vec<ServerNumber> {
        let mut up: BTreeMap<ServerNumber, bool> = BTreeMap::new();
        for seen in &self.observations {
            match seen.what {
                Fact::Started => up.insert(seen.server, true),
                Fact::Stopped { .. } => up.insert(seen.server, false),
                _ => None,
            };
        }
        let configuration = self.newest_configuration();
        let later = self.voters_applied_after(configuration.map_or(0, |told| told.applied));
        let member = |server: &ServerNumber| {
            let votes = |told: &Configuration| match &later {
                Some(voters) => voters.contains(server),
                None => told.voters.contains(server),
            };
            !self.is_broken(*server, self.ended)
                && !self.is_out(*server, self.ended - self.bounds.recovery)
                && configuration.is_none_or(|told| votes(told) || told.learners.contains(server))
        };
        up.into_iter()
            .filter(|(server, up)| *up && member(server))
            .map(|(server, _)| server)
            .collect()
    }
}

impl Operation {
    /// The answer, if it succeeded.
    pub fn answer(&self) -> Option<&Answer> {
        match &self.outcome {
            Outcome::Done(answer) => Some(answer),
            _ => None,
        }
    }

    /// Whether it succeeded.
    pub fn is_done(&self) -> bool {
        self.answer().is_some()
    }

    /// When its answer had reached the client's machine: a slow client takes an event of a stream later.
    pub fn arrived(&self) -> Time {
        let streamed = self.streamed.as_ref();
        streamed.map_or(self.returned, |streamed| streamed.arrived)
    }

    /// Whether it may have changed something: it succeeded, or nobody knows.
    pub fn may_have_happened(&self) -> bool {
        matches!(
            self.outcome,
            Outcome::Done(_) | Outcome::Unknown(_) | Outcome::Nonsense(_)
        )
    }
}

impl ServerNumber {
    /// From this number on they stand for agents, which send requests on to servers.
    pub const AGENTS: u8 = 200;

    /// The number that stands for an agent.
    ///
    /// # Panics
    /// If there can't be so many.
    pub fn of_agent(agent: usize) -> ServerNumber {
        let agent = u8::try_from(agent).expect("there are few agents");
        ServerNumber(Self::AGENTS + agent)
    }

    /// The agent that it stands for.
    pub fn agent(self) -> Option<usize> {
        self.0.checked_sub(Self::AGENTS).map(usize::from)
    }

    /// The number of a server that is called `s<number>`.
    pub fn parse(id: &str) -> Option<ServerNumber> {
        id.strip_prefix('s')?.parse().ok().map(ServerNumber)
    }
}

impl fmt::Display for ServerNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.agent() {
            Some(agent) => f.write_str(&crate::agency::node(agent)),
            None => write!(f, "s{}", self.0),
        }
    }
}
