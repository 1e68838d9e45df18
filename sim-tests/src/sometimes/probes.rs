//! Situations of checks that servers run.

use sider_core::registry::{CheckStatus, CheckTarget, Command, Probe};

use crate::{history::History, invariants::aliases, probes, truth::Entry};

/// Entries in which a server tells that a check has another status, with the first of those statuses.
fn told(h: &History) -> impl Iterator<Item = (&Entry, CheckStatus)> {
    h.truth().entries.iter().filter_map(|entry| {
        let Some((Command::UpdateChecks(updates), _)) = &entry.command else {
            return None;
        };
        let mut own = updates
            .iter()
            .filter(|update| probes::is_of_servers(&update.target));
        own.find_map(|update| Some((entry, update.status?)))
    })
}

/// A server finds a machine in another state than before.
pub(super) fn turned(h: &History) -> u64 {
    told(h).count() as u64
}

/// A server finds a machine bad that was well.
pub(super) fn turned_bad(h: &History) -> u64 {
    told(h)
        .filter(|(_, status)| *status == CheckStatus::Critical)
        .count() as u64
}

/// A leader tells what it found of a check that was run by another one before.
pub(super) fn goes_on(h: &History) -> u64 {
    let terms: Vec<u64> = told(h).map(|(entry, _)| entry.term).collect();
    terms.windows(2).filter(|pair| pair[0] != pair[1]).count() as u64
}

/// An alias takes on another status.
pub(super) fn alias_follows(h: &History) -> u64 {
    aliases::taken_on(h).len() as u64
}

/// An alias of another node, or of an instance there, takes on another status.
pub(super) fn alias_of_a_node(h: &History) -> u64 {
    let taken = aliases::taken_on(h);
    let elsewhere = taken.iter().filter(|(_, alias)| !alias.node.is_empty());
    elsewhere.count() as u64
}

/// A machine is found in another state by another means than a request.
pub(super) fn by_other_means(h: &History) -> u64 {
    let truth = h.truth();
    let entries = truth.entries.iter().enumerate();
    let found = entries.map(|(position, entry)| {
        let Some((Command::UpdateChecks(updates), _)) = &entry.command else {
            return 0;
        };
        let before = truth.state(position);
        let other = |update: &&sider_core::registry::CheckUpdate| {
            let CheckTarget::Check(key) = &update.target else {
                return false;
            };
            let check = before.check(key).filter(|_| probes::is_probed(key));
            update.status.is_some()
                && check.is_some_and(|check| {
                    !matches!(check.definition.probe, Probe::Http { .. } | Probe::Alias { .. })
                })
        };
        updates.iter().filter(other).count() as u64
    });
    found.sum()
}
