//! Situations that concern autopilot.

use std::collections::BTreeSet;

use crate::{
    autopilot::{BY_ITSELF, dead_after, settings},
    history::{Fact, History, MembershipChange, ServerNumber},
    invariants::autopilot::down,
};

/// Servers that it removed.
pub(super) fn removed(history: &History) -> impl Iterator<Item = &MembershipChange> {
    history
        .memberships
        .iter()
        .filter(|change| change.answer == BY_ITSELF)
}

/// A voter was down for long, the settings are to remove such servers, and it stayed.
pub(super) fn left(history: &History) -> u64 {
    let truth = history.truth();
    let servers = history.servers();
    let spans = servers.iter().flat_map(|server| {
        let spans = down(history, *server).into_iter();
        spans.map(move |(from, until)| (*server, from, until))
    });
    let stayed = spans.filter(|(server, from, until)| {
        let state = truth.state(truth.applied_until(*from));
        let Some(settings) = settings(&state).filter(|settings| settings.cleanup_dead_servers) else {
            return false;
        };
        let gone = removed(history).any(|change| change.server == *server);
        until.since(*from) > dead_after(&settings) * 2 && !gone
    });
    stayed.count() as u64
}

pub(super) fn came_back(history: &History) -> u64 {
    let back = |change: &&MembershipChange| {
        history.observations.iter().any(|seen| {
            seen.server == change.server
                && seen.at > change.returned
                && matches!(seen.what, Fact::Started | Fact::Resumed)
        })
    };
    removed(history).filter(back).count() as u64
}

/// A server got its vote though its join had ended without it before.
pub(super) fn promoted(history: &History) -> u64 {
    let votes = |server: ServerNumber, voters: &[BTreeSet<crate::history::Disk>]| {
        voters
            .last()
            .is_some_and(|voters| voters.iter().any(|disk| disk.server == server))
    };
    let promoted = |change: &&MembershipChange| {
        let mut since = history
            .observations
            .iter()
            .filter(|seen| seen.at > change.returned);
        let unknown = change.joins && change.done.is_none();
        unknown
            && since.any(|seen| match &seen.what {
                Fact::Configured { voters, .. } => votes(change.server, voters),
                _ => false,
            })
    };
    history.memberships.iter().filter(promoted).count() as u64
}
