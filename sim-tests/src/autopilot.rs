//! What clients ask of autopilot, and what it does by itself.

use std::{collections::BTreeSet, fmt, time::Duration};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sider_core::{
    registry::{Command, Operation},
    server::AutopilotSettings,
};

use crate::{
    history::{Disk, Fact, MembershipChange, Record, ServerNumber},
    model::State,
    promised::SERVER_SILENCE_MAX,
    time::Time,
};

/// Settings that are stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AutopilotOp {
    /// Whether dead servers are removed.
    pub cleans_up: bool,
    /// `LastContactThreshold`, in milliseconds.
    pub contact_ms: u64,
    /// `MinQuorum`.
    pub min_quorum: u32,
    /// `ServerStabilizationTime`, in milliseconds.
    pub stable_ms: u64,
}

impl AutopilotOp {
    /// The body of the request.
    pub fn body(&self) -> Value {
        json!({
            "CleanupDeadServers": self.cleans_up,
            "LastContactThreshold": format!("{}ms", self.contact_ms),
            "MinQuorum": self.min_quorum,
            "ServerStabilizationTime": format!("{}ms", self.stable_ms),
        })
    }

    /// What is stored for it.
    pub fn settings(&self) -> AutopilotSettings {
        AutopilotSettings {
            cleanup_dead_servers: self.cleans_up,
            last_contact_threshold_nanos: self.contact_ms * 1_000_000,
            min_quorum: self.min_quorum.into(),
            server_stabilization_time_nanos: self.stable_ms * 1_000_000,
            ..AutopilotSettings::default()
        }
    }

    /// Whether this asked for exactly this command.
    pub fn asks_for(&self, command: &Command) -> bool {
        let Command::Transact(operations) = command else {
            return false;
        };
        matches!(operations.as_slice(), [Operation::SetKey(write)]
            if write.key == AutopilotSettings::key()
                && serde_json::from_slice(&write.value).ok() == Some(self.settings()))
    }
}

impl fmt::Display for AutopilotOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cleans_up = if self.cleans_up { "removes" } else { "leaves" };
        write!(
            f,
            "autopilot {cleans_up} dead servers, silent for {} ms, at least {} stay; learners are stable after {} ms",
            self.contact_ms, self.min_quorum, self.stable_ms
        )
    }
}

/// The settings that a state holds; `None` while none were stored.
pub fn settings(state: &State) -> Option<AutopilotSettings> {
    serde_json::from_slice(&state.key(&AutopilotSettings::key())?.value).ok()
}

/// How long a server must be silent to be dead, by these settings.
pub fn dead_after(settings: &AutopilotSettings) -> Duration {
    let threshold = Duration::from_nanos(settings.last_contact_threshold_nanos);
    threshold.max(SERVER_SILENCE_MAX)
}

/// The answer of a change that nobody asked for.
pub const BY_ITSELF: &str = "autopilot did it";

/// A membership in which a server has its last vote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removal {
    /// When it was appended to a log for the first time.
    pub at: Time,
    /// Who appended it then: the leader.
    pub leader: ServerNumber,
    /// Who is removed.
    pub server: ServerNumber,
    /// The voters before.
    pub before: BTreeSet<Disk>,
    /// The voters after it.
    pub after: BTreeSet<Disk>,
    /// When the change was complete; `None` if it never was.
    pub completed: Option<Time>,
}

/// Removals of voters that no operator asked for, in order, each once.
pub fn removals_by_itself(record: &Record) -> Vec<Removal> {
    let mut removals: Vec<Removal> = Vec::new();
    // A server that replays its log, or starts on an empty disk, tells of old changes anew: the first sight counts.
    let mut seen: BTreeSet<(u64, &[BTreeSet<Disk>])> = BTreeSet::new();
    for observed in &record.observations {
        let Fact::Configured { log_index, voters } = &observed.what else {
            continue;
        };
        if !seen.insert((*log_index, voters)) {
            continue;
        }
        match voters.as_slice() {
            [before, after] => {
                let name = |disk: &Disk| disk.server;
                let stay: BTreeSet<ServerNumber> = after.iter().map(name).collect();
                let gone = before.iter().map(name).filter(|server| !stay.contains(server));
                let by_itself = gone.filter(|server| !is_asked_for(record, *server, observed.at));
                removals.extend(by_itself.map(|server| Removal {
                    at: observed.at,
                    leader: observed.server,
                    server,
                    before: before.clone(),
                    after: after.clone(),
                    completed: None,
                }));
            }
            [only] => {
                let done = removals.iter_mut().filter(|removal| removal.after == *only);
                done.for_each(|removal| {
                    removal.completed.get_or_insert(observed.at);
                });
            }
            _ => {}
        }
    }
    removals
}

/// Whether an operator had asked for a server's removal by then, and it was not added again since.
fn is_asked_for(record: &Record, server: ServerNumber, at: Time) -> bool {
    let of_server = |change: &&MembershipChange| {
        change.server == server && change.answer != BY_ITSELF && change.invoked <= at
    };
    let changes = || record.memberships.iter().filter(of_server);
    let added_again = |since: Time| {
        changes().any(|it| it.joins && it.done == Some(true) && it.invoked >= since && it.returned <= at)
    };
    let mut removals = changes().filter(|it| !it.joins && it.done != Some(false));
    removals.any(|it| !added_again(it.returned))
}

/// The same as changes of the membership. Until one is complete nobody knows what comes of it.
pub fn removals(record: &Record) -> Vec<MembershipChange> {
    let change = |removal: Removal| MembershipChange {
        invoked: removal.at,
        returned: removal.completed.unwrap_or(removal.at + Duration::from_millis(1)),
        server: removal.server,
        joins: false,
        done: removal.completed.map(|_| true),
        answer: BY_ITSELF.to_owned(),
    };
    removals_by_itself(record).into_iter().map(change).collect()
}
