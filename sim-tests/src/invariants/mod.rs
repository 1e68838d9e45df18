//! What must be true of every run, one file each. `docs/INVARIANTS.md` says where each comes from.
//!
//! An invariant reads a [`History`] and finds nothing, or says what is wrong, when, and in which operations. None of
//! them knows how the servers work; each has tests that show it a good history, and one broken history for every way
//! in which it can be broken.

pub mod agent_api;
pub mod agents;
pub mod aliases;
pub mod authority;
pub mod autopilot;
pub mod availability;
pub mod backups;
pub mod cached;
pub mod clients_view;
pub mod cluster_api;
pub mod digest;
pub mod durability;
pub mod election_safety;
pub mod exactly_once;
pub mod forwarded;
pub mod hashes;
pub mod leader_completeness;
pub mod leaks;
pub mod linearizability;
pub mod locks;
pub mod log_matching;
pub mod membership;
pub mod monotonic_index;
pub mod outputs;
pub mod prepared;
pub mod probes;
pub mod quorum;
pub mod reaping;
pub mod recovery;
pub mod renewals;
pub mod servers;
pub mod session_ttl;
pub mod sessions;
pub mod snapshots;
pub mod staleness;
pub mod state_machine;
pub mod transactions;
pub mod ttl;
pub mod watch_guarantees;
pub mod watches;

#[cfg(test)]
pub(crate) mod story;

use std::fmt;

use crate::{history::History, time::Time};

/// Something that must never happen, and did.
#[derive(Clone, Debug, PartialEq)]
pub struct Violation {
    /// Which invariant.
    pub invariant: &'static str,
    /// When it showed.
    pub at: Time,
    /// What is wrong.
    pub what: String,
    /// Numbers of the operations that show it.
    pub operations: Vec<u32>,
}

/// A check of a history.
pub type Check = fn(&History) -> Result<(), Violation>;

/// All of them. The first ones that fail explain those after them: a log that is not the same everywhere makes
/// nonsense of everything.
pub const ALL: [(&str, Check); 41] = [
    ("no_panic", no_panic),
    (election_safety::NAME, election_safety::check),
    (leader_completeness::NAME, leader_completeness::check),
    (quorum::NAME, quorum::check),
    (log_matching::NAME, log_matching::check),
    (digest::NAME, digest::check),
    (snapshots::NAME, snapshots::check),
    (state_machine::NAME, state_machine::check),
    (exactly_once::NAME, exactly_once::check),
    (durability::NAME, durability::check),
    (transactions::NAME, transactions::check),
    (prepared::NAME, prepared::check),
    (linearizability::NAME, linearizability::check),
    (agent_api::NAME, agent_api::check),
    (hashes::NAME, hashes::check),
    (clients_view::NAME, clients_view::check),
    (sessions::NAME, sessions::check),
    (staleness::NAME, staleness::check),
    (monotonic_index::NAME, monotonic_index::check),
    (backups::NAME, backups::check),
    (watches::NAME, watches::check),
    (watch_guarantees::NAME, watch_guarantees::check),
    (cached::NAME, cached::check),
    (forwarded::NAME, forwarded::check),
    (outputs::NAME, outputs::check),
    (renewals::NAME, renewals::check),
    (ttl::NAME, ttl::check),
    (session_ttl::NAME, session_ttl::check),
    (locks::NAME, locks::check),
    (reaping::NAME, reaping::check),
    (agents::NAME, agents::check),
    (probes::NAME, probes::check),
    (aliases::NAME, aliases::check),
    (membership::NAME, membership::check),
    (autopilot::NAME, autopilot::check),
    (servers::NAME, servers::check),
    (authority::NAME, authority::check),
    (leaks::NAME, leaks::check),
    (recovery::NAME, recovery::check),
    (cluster_api::NAME, cluster_api::check),
    (availability::NAME, availability::check),
];

/// Everything that is wrong with a history; at most one violation of each invariant.
pub fn judge(history: &History) -> Vec<Violation> {
    ALL.iter().filter_map(|(_, check)| check(history).err()).collect()
}

/// Nothing panics: a broken promise inside a server is an `assert!`, also in production.
pub(crate) fn no_panic(history: &History) -> Result<(), Violation> {
    match history.panics.first() {
        None => Ok(()),
        Some((at, what)) => Err(Violation::new("no_panic", *at, what.clone())),
    }
}

impl Violation {
    /// One that is not about operations.
    pub fn new(invariant: &'static str, at: Time, what: impl Into<String>) -> Violation {
        Violation {
            invariant,
            at,
            what: what.into(),
            operations: Vec::new(),
        }
    }

    /// One that is about these operations.
    pub fn of(
        invariant: &'static str,
        at: Time,
        operations: impl IntoIterator<Item = u32>,
        what: impl Into<String>,
    ) -> Violation {
        Violation {
            operations: operations.into_iter().collect(),
            ..Violation::new(invariant, at, what)
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}: {}", self.invariant, self.at, self.what)?;
        if !self.operations.is_empty() {
            write!(f, " (operations {:?})", self.operations)?;
        }
        Ok(())
    }
}
