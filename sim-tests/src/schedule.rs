//! A schedule: everything that a run does, as a value. It can be printed, saved, changed and run again; nothing but it
//! decides the run.

mod agent;
mod telling;
mod validity;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use self::agent::{AgentPlan, AgentTrouble, Asked, Befall, Order, Question, Report, Sort, Subject, Way};
use crate::{
    operation::{Ask, Freshness, Op},
    trap::{Space, Step},
};

/// See the module's page. Times are in milliseconds since the start of the run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// Decides what no other field says: delays, clocks, elections.
    pub seed: u64,
    /// The cluster.
    pub cluster: Shape,
    /// What clients do, by time.
    pub actions: Vec<Action>,
    /// What is done to the cluster, by time.
    pub faults: Vec<Fault>,
    /// An agent that runs beside, on a host of its own.
    pub agent: Option<AgentPlan>,
    /// Another one, on a host of its own, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub other_agent: Option<AgentPlan>,
    /// What befalls the machines that servers probe, by time. Nobody is there before the first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub turns: Vec<Turn>,
    /// When everything is healed.
    pub heal_ms: u64,
    /// When the run ends.
    pub end_ms: u64,
}

/// How a cluster is made, and how its machines are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shape {
    /// Servers, 3 or 5.
    pub servers: u8,
    /// Whether the others join the first one, instead of being named in its first configuration.
    pub join: bool,
    /// Between two heartbeats.
    pub heartbeat_ms: u64,
    /// Shortest and longest time without a heartbeat before an election.
    pub election_ms: (u64, u64),
    /// Entries between two checkpoints.
    pub snapshot_threshold: u64,
    /// Applied entries kept below a checkpoint.
    pub log_keep: u64,
    /// How long a message takes, in microseconds.
    pub latency_us: (u64, u64),
    /// How long a sync takes, in microseconds.
    pub sync_us: (u64, u64),
    /// How much each server's clock runs wrong, in parts per million.
    pub drift_ppm: Vec<i32>,
    /// The version of commands that its servers know when they are first started. Schedules that were kept before
    /// there was a second one stay with the first.
    #[serde(default = "first_version")]
    pub command_version: u8,
    /// Limits of the servers that are smaller than in production, if any are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub squeeze: Option<Squeeze>,
    /// Whether the servers are in their own catalog.
    #[serde(default)]
    pub servers_listed: bool,
    /// Whether the servers run checks of their shared node themselves.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub probes: bool,
}

/// A machine that servers probe is another from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Turn {
    /// When.
    pub at_ms: u64,
    /// Which machine.
    pub machine: u8,
    /// Whether it is well; else it says that it is not.
    pub well: bool,
}

/// How much servers do in one go, and hold: so little that what happens in between happens often. 0 is as in production.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Squeeze {
    /// Entries of one append request.
    pub append_entries: u64,
    /// Bytes of one append request.
    pub append_bytes: usize,
    /// Append requests under way to one follower.
    pub appends_in_flight: usize,
    /// Bytes of one chunk of a snapshot.
    pub snapshot_chunk_bytes: usize,
    /// Writes in one sync.
    pub journal_writes: usize,
    /// Log entries kept in memory.
    pub log_cache_entries: usize,
    /// Log entries read from disk in one go.
    pub log_read_entries: usize,
    /// Answers kept to be given again.
    pub views: usize,
    /// Writes under way from one server to the leader.
    pub forwards_in_flight: usize,
    /// Decisions of the leader under way.
    pub decisions_in_flight: usize,
    /// Checks that expire with one command.
    pub expiries_per_command: usize,
    /// Indexes that are kept of each kind of things that are gone.
    #[serde(default)]
    pub tombstones: usize,
    /// Superseded versions of keys that are kept.
    #[serde(default)]
    pub key_versions: usize,
    /// Writes that a leader carries out at a time.
    #[serde(default)]
    pub writes_at_once: usize,
}

fn first_version() -> u8 {
    1
}

/// Something that a client does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Action {
    /// When.
    pub at_ms: u64,
    /// Which client.
    pub client: u8,
    /// Beyond what it lets the server wait, it waits this long for each answer.
    pub patience_ms: u64,
    /// What.
    pub what: Doing,
}

/// What a client does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Doing {
    /// Operations one after the other, each at a server, as soon as the one before is over.
    Chain(Vec<(u8, Op)>),
    /// A chain of blocking queries, each with the index of the answer before.
    Follow {
        /// What.
        ask: Ask,
        /// How fresh.
        freshness: Freshness,
        /// How long the server may wait.
        wait_ms: u64,
        /// When it ends.
        until_ms: u64,
        /// The servers that it asks, one after the other.
        servers: Vec<u8>,
    },
    /// A stream, and where it ends another one that goes on with the last id.
    Stream {
        /// What.
        ask: Ask,
        /// How fresh.
        freshness: Freshness,
        /// When nothing came for so long, not even that nothing differs, it hangs up.
        silence_ms: u64,
        /// How long it takes to come back for the next event; 0 is at once.
        slowness_ms: u64,
        /// When it ends.
        until_ms: u64,
        /// The servers that it asks, one after the other.
        servers: Vec<u8>,
    },
}

/// A fault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// When it begins.
    pub at_ms: u64,
    /// How long it lasts.
    pub for_ms: u64,
    /// What it is.
    pub what: Trouble,
    /// Whether it is never healed: then its servers may stay away, and the others must serve without them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub lasts: bool,
}

/// What is done to a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Trouble {
    /// Processes are killed, and started again in the end.
    Crash(Who),
    /// Machines lose their power and get it back in the end.
    PowerCut(Who, Kept),
    /// Processes stand still.
    Pause(Who),
    /// Servers are cut off from all other servers, but not from clients.
    CutOff(Who),
    /// The same, and from clients too.
    CutOffFromAll(Who),
    /// What servers send to other servers does not arrive.
    Mute(Who),
    /// What other servers send to them does not arrive.
    Deaf(Who),
    /// Connections to other servers stay up, but nothing passes.
    BlackHole(Who),
    /// Two groups of servers with one between them that reaches both.
    Bridge(Who),
    /// Messages between servers get lost.
    Loss {
        /// Of a million.
        ppm: u32,
    },
    /// Messages between servers take longer, each for itself, and may arrive twice.
    Delay {
        /// At most, in milliseconds.
        ms: u64,
        /// Of a million, so many arrive twice.
        twice_ppm: u32,
    },
    /// Syncs take so many milliseconds.
    SlowSync(Who, u64),
    /// Syncs do not end.
    HungSync(Who),
    /// Syncs say that they succeed and make nothing durable. Never drawn: no server can bear that.
    LyingSync(Who),
    /// The next sync fails.
    FailedSync(Who),
    /// The next write fails.
    FailedWrite(Who),
    /// Disks are full.
    FullDisk(Who),
    /// Clocks run wrong by so many millionths. Within what is promised, this excuses nothing.
    Drift(Who, i32),
    /// Wall clocks jump by so many milliseconds. This excuses nothing.
    WallJump(Who, i64),
    /// Leadership is handed on.
    Transfer {
        /// To whom, or to whoever has most of the log.
        to: Option<u8>,
    },
    /// A new server joins.
    Join,
    /// A server leaves.
    Remove(Who),
    /// A process is killed, or its machine loses power, at a chosen step of its work; it is started again a while later.
    Trap {
        /// Whose.
        who: Who,
        /// At which step.
        step: Step,
        /// At the how many-th of these, counted from 1.
        nth: u32,
        /// With a power cut: what it leaves.
        kept: Option<Kept>,
        /// How long it stays down.
        down_ms: u64,
        /// How many times in a row.
        times: u8,
    },
    /// A server loses its disk and comes back empty, under its id. It may take no part any more, until the operator has
    /// removed it and added it again.
    Wipe {
        /// Whose.
        who: Who,
        /// How long it runs until the operator begins.
        out_ms: u64,
    },
    /// Servers are killed, and started again as the newest program.
    Upgrade(Who),
    /// Servers are killed, and started again as a program that knows only the first version of commands. If the cluster
    /// has moved on, they stop and say so.
    Downgrade(Who),
    /// A server is removed, and another one joins for it.
    Replace(Who),
    /// A server that is down is to join.
    JoinDown,
    /// Servers are cut off from all other servers, again and again.
    Flap {
        /// Who.
        who: Who,
        /// How long they are reached, and then how long they are not.
        every_ms: u64,
    },
    /// Each server reaches only two others: those next to it in a ring.
    Ring,
    /// Connections to servers stay up, from clients too, but nothing passes.
    Swallow(Who),
    /// The links from one server to another, or to all others, are bad.
    BadLink {
        /// From whom.
        from: Who,
        /// To whom.
        to: Who,
        /// How bad.
        link: Quality,
    },
    /// Every sync fails.
    DeadSync(Who),
    /// One in ten reads of the disk takes so many milliseconds.
    SlowReads(Who, u64),
    /// A bit flips on the disk, which may be noticed at the next start or read; never may it be served.
    Rot {
        /// Whose disk.
        who: Who,
        /// What of it.
        space: Space,
        /// Whether the process is killed before, and started again on it in the end.
        restart: bool,
    },
}

/// How bad a link is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quality {
    /// Of a million messages, so many get lost.
    pub loss_ppm: u32,
    /// Of a million requests, so many arrive twice.
    pub twice_ppm: u32,
    /// Messages take up to so many milliseconds, each for itself.
    pub delay_ms: u64,
    /// Of a million messages, so many take up to ten times as long as that.
    pub tail_ppm: u32,
    /// Bytes that pass in a second; 0 is no limit. What does not fit into a small buffer waits with its sender.
    pub bytes_per_s: u64,
}

/// Whom a fault is about, found out when it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Who {
    /// This server.
    Server(u8),
    /// The leader; the first server if there is none.
    Leader,
    /// The server this far behind the leader, by number; nobody if there is only one server.
    Follower(u8),
    /// The smallest majority that has the leader in it.
    Majority,
    /// All of them.
    All,
}

/// What a power cut leaves of what was not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kept {
    /// Nothing.
    Nothing,
    /// A random part, the oldest first.
    Some,
    /// All of it.
    Everything,
}

impl Schedule {
    /// How many operations it asks for, not counting what those who follow something ask for by themselves.
    pub fn operations(&self) -> usize {
        let count = |action: &Action| match &action.what {
            Doing::Chain(ops) => ops.len(),
            Doing::Follow { .. } | Doing::Stream { .. } => 1,
        };
        self.actions.iter().map(count).sum()
    }

    /// The plans of its agents, each with the agent's number.
    pub fn agents(&self) -> impl Iterator<Item = (usize, &AgentPlan)> {
        let plans = [&self.agent, &self.other_agent].into_iter().enumerate();
        plans.filter_map(|(number, plan)| Some((number, plan.as_ref()?)))
    }

    /// By how much any server's clock ever runs wrong, in parts per million.
    pub fn drift_ppm_max(&self) -> u32 {
        let drifts = self.faults.iter().filter_map(|fault| match fault.what {
            Trouble::Drift(_, ppm) => Some(ppm),
            _ => None,
        });
        let drifts = drifts.chain(self.cluster.drift_ppm.iter().copied());
        drifts.map(i32::unsigned_abs).max().unwrap_or(0)
    }

    /// When a fault is over.
    pub fn ends(fault: &Fault) -> Duration {
        Duration::from_millis(fault.at_ms + fault.for_ms)
    }
}

impl Trouble {
    /// Whom it is about.
    pub fn who(&self) -> Option<Who> {
        match self {
            Trouble::Crash(who)
            | Trouble::PowerCut(who, _)
            | Trouble::Pause(who)
            | Trouble::CutOff(who)
            | Trouble::CutOffFromAll(who)
            | Trouble::Mute(who)
            | Trouble::Deaf(who)
            | Trouble::BlackHole(who)
            | Trouble::Bridge(who)
            | Trouble::SlowSync(who, _)
            | Trouble::HungSync(who)
            | Trouble::LyingSync(who)
            | Trouble::FailedSync(who)
            | Trouble::FailedWrite(who)
            | Trouble::FullDisk(who)
            | Trouble::Drift(who, _)
            | Trouble::WallJump(who, _)
            | Trouble::Remove(who)
            | Trouble::Trap { who, .. }
            | Trouble::Wipe { who, .. }
            | Trouble::Upgrade(who)
            | Trouble::Downgrade(who)
            | Trouble::Replace(who)
            | Trouble::Flap { who, .. }
            | Trouble::Swallow(who)
            | Trouble::BadLink { from: who, .. }
            | Trouble::DeadSync(who)
            | Trouble::SlowReads(who, _)
            | Trouble::Rot { who, .. } => Some(*who),
            Trouble::Loss { .. } | Trouble::Delay { .. } | Trouble::Ring => Some(Who::All),
            Trouble::Transfer { .. } | Trouble::Join | Trouble::JoinDown => None,
        }
    }

    /// Everyone that it names: whom it is about, and the other end of a link.
    fn about(&self) -> impl Iterator<Item = Who> {
        let other = match self {
            Trouble::BadLink { to, .. } => Some(*to),
            _ => None,
        };
        self.who().into_iter().chain(other)
    }

    /// Whether a correct cluster may show it: by slowness, elections or errors.
    pub fn disturbs(&self) -> bool {
        !matches!(self, Trouble::Drift(..) | Trouble::WallJump(..))
    }

    /// Whether it may make a server stop by itself.
    pub fn may_stop_servers(&self) -> bool {
        matches!(
            self,
            Trouble::FailedSync(_)
                | Trouble::FailedWrite(_)
                | Trouble::FullDisk(_)
                | Trouble::DeadSync(_)
                | Trouble::Rot { .. }
                | Trouble::Wipe { .. }
                | Trouble::Downgrade(_)
        )
    }
}
