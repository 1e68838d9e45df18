//! Situations of checks that servers run.

use sider_core::registry::{CheckStatus, Command};

use crate::{history::History, probes, truth::Entry};

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
