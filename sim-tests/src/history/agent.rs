//! What agents promised, and what befell them.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use sider_core::registry::{CheckStatus, Instance, Namespace};

use super::{Operation, ServerNumber};
use crate::time::Time;

/// An agent serves within this time of its start.
const STARTS: Duration = Duration::from_secs(1);
/// What befell an agent shows for no longer than this after it was over, but in calls that hang.
const SETTLES: Duration = Duration::from_secs(2);

/// What an agent wants to be in the registry.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AgentPromise {
    /// Its node.
    pub node: String,
    /// The servers whose addresses it has.
    pub servers: Vec<ServerNumber>,
    /// Its address.
    pub address: String,
    /// All of its instances, as they must be in the end.
    pub instances: Vec<AgentInstance>,
    /// The checks of its node, as they must be in the end.
    pub node_checks: Vec<AgentCheck>,
    /// Instances of which a check always fails: they leave by themselves.
    pub leaving: Vec<String>,
    /// Whether it compares seldom.
    pub seldom: bool,
    /// When it was started.
    pub started: Time,
    /// When something was last done to it, or to what it probes.
    pub settled: Time,
    /// When what it probes became another, and what it is since then.
    pub flips: Vec<(Time, CheckStatus)>,
    /// When it was otherwise for so short that one probe met it at most.
    pub blips: Vec<Time>,
    /// What befell it and its host.
    pub outages: Vec<Outage>,
    /// By how much its host's clock ever runs fast, in parts per million.
    pub fast_ppm: u32,
    /// When its host's wall clock was set to another time.
    pub jumps: Vec<Time>,
    /// What its services asked of it, and when that was carried out.
    pub orders: Vec<(String, Time, Time)>,
    /// Those of them that registered an instance (true) or deregistered it.
    pub placed: Vec<(String, Time, Time, bool)>,
    /// What its services reported.
    pub reports: Vec<Reported>,
    /// What it has told of itself.
    pub looks: Vec<Looked>,
}

/// What an agent told of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Looked {
    /// When it was asked.
    pub invoked: Time,
    /// When it was answered.
    pub returned: Time,
    /// What it said.
    pub seen: Seen,
}

/// The same in short.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// The ids of its instances.
    Services(BTreeSet<String>),
    /// The statuses of its checks, by id.
    Checks(BTreeMap<String, CheckStatus>),
    /// The instance's id, the status code, the status that it stands for, and those of the checks that count.
    Health(String, u16, CheckStatus, Vec<CheckStatus>),
    /// No answer, or none that can be understood: what there was instead.
    Nothing(String),
}

/// Something that befell an agent or its host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outage {
    /// When it began.
    pub from: Time,
    /// When it was over; none while it lasts.
    pub until: Option<Time>,
    /// What it was.
    pub kind: OutageKind,
    /// The same in words.
    pub what: String,
}

/// How much of an agent is left in an [`Outage`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutageKind {
    /// Its process has ended.
    Down,
    /// It was told to stop: when that was over, and whether the servers heard of it.
    Stopped(Option<(Time, bool)>),
    /// Its process stands still.
    Paused,
    /// No server hears of it.
    Unheard,
    /// Its disk failed.
    Disk,
    /// Something else that may slow it down.
    Other,
}

/// What a service reported to its agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reported {
    /// The check.
    pub check: String,
    /// How it is.
    pub status: CheckStatus,
    /// When it was sent.
    pub invoked: Time,
    /// When it was answered, or given up.
    pub returned: Time,
    /// The status code of the answer, if there was one.
    pub answer: Option<u16>,
}

/// What must be in the registry of an agent's instance in the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentInstance {
    /// Its namespace.
    pub namespace: Namespace,
    /// Its id.
    pub id: String,
    /// Its port.
    pub port: u16,
    /// How else it looks.
    pub looks: AgentLooks,
    /// Its service.
    pub service: String,
    /// Its checks, by id.
    pub checks: Vec<AgentCheck>,
}

/// What must be in the registry of an agent's check in the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentCheck {
    /// Its id.
    pub id: String,
    /// What it is called.
    pub name: String,
    /// Its status; none if that depends.
    pub status: Option<CheckStatus>,
    /// How its output ends, where the agent probes.
    pub output: Option<String>,
    /// Its TTL; `None` if it has none.
    pub ttl: Option<Duration>,
    /// Time between two runs; zero for what is not run.
    pub interval: Duration,
}

impl AgentPromise {
    /// Whether it ran from `from` to `until`, and nothing befell it or its host, nor shortly before.
    pub fn is_left_alone(&self, from: Time, until: Time) -> bool {
        let since = from - SETTLES;
        self.started + STARTS <= from && !self.outages.iter().any(|outage| outage.overlaps(since, until))
    }

    /// Whether anything had befallen it or its host by then.
    pub fn was_disturbed(&self, until: Time) -> bool {
        self.outages.iter().any(|outage| outage.overlaps(Time(0), until))
    }

    /// Whether its process has ended for sure since an operation was invoked, and was started again after that returned and
    /// before a moment: then what came of it is gone.
    pub fn has_ended_since(&self, operation: &Operation, before: Time) -> bool {
        let within = |outage: &Outage| {
            let again = outage.until.filter(|again| *again + SETTLES <= before);
            outage.from >= operation.invoked && again.is_some_and(|again| again >= operation.returned)
        };
        let mut down = self
            .outages
            .iter()
            .filter(|outage| outage.kind == OutageKind::Down);
        down.any(within)
    }

    /// Whether its process may have ended between the two moments, or have been started.
    pub fn may_have_ended(&self, from: Time, until: Time) -> bool {
        let ends = |outage: &&Outage| {
            matches!(
                outage.kind,
                OutageKind::Down | OutageKind::Stopped(_) | OutageKind::Disk
            )
        };
        let mut ended = self.outages.iter().filter(ends);
        ended.any(|outage| outage.overlaps(from - SETTLES, until))
    }
}

impl Outage {
    /// Whether it is the case at a time within these.
    pub fn overlaps(&self, from: Time, until: Time) -> bool {
        self.from <= until && self.until.is_none_or(|end| end >= from)
    }

    /// Whether servers hear nothing of the agent meanwhile.
    pub fn is_silent(&self) -> bool {
        !matches!(self.kind, OutageKind::Disk | OutageKind::Other)
    }
}

/// What an agent says of an instance beside its name and place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentLooks {
    /// Address.
    pub address: String,
    /// Tags.
    pub tags: Vec<String>,
    /// Meta.
    pub meta: BTreeMap<String, String>,
    /// Weights while it is passing, and while it is warning.
    pub weights: (u32, u32),
    /// Tagged addresses, with their ports.
    pub tagged_addresses: BTreeMap<String, (String, u16)>,
    /// Whether others may change its tags.
    pub tag_override: bool,
}

impl Default for AgentLooks {
    /// How an instance looks of which nothing is said.
    fn default() -> AgentLooks {
        AgentLooks {
            address: String::new(),
            tags: Vec::new(),
            meta: BTreeMap::new(),
            weights: (1, 1),
            tagged_addresses: BTreeMap::new(),
            tag_override: false,
        }
    }
}

impl AgentLooks {
    /// How an instance looks.
    pub fn of(instance: &Instance) -> AgentLooks {
        let tagged = instance.tagged_addresses.iter();
        AgentLooks {
            address: instance.address.clone(),
            tags: instance.tags.clone(),
            meta: instance.meta.clone(),
            weights: (instance.weights.passing, instance.weights.warning),
            tagged_addresses: tagged
                .map(|(tag, at)| (tag.clone(), (at.address.clone(), at.port)))
                .collect(),
            tag_override: instance.enable_tag_override,
        }
    }
}
