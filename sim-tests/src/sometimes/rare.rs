//! Situations that `generate/rare.rs` brings about: they hardly ever come of themselves.

use std::collections::BTreeMap;

use sider_core::registry::Command;

use super::counting::{installs, leader_at, stops, under};
use crate::{
    history::{Fact, History, MembershipChange, ServerNumber},
    promised::SERVER_SILENCE_MAX,
    time::Time,
};

/// Members that were cut off while another server joined, got a snapshot since, and are started again later.
pub(super) fn change_missed(h: &History) -> u64 {
    let missed = |server: ServerNumber, at: Time| {
        h.faults.iter().any(|fault| {
            let joins = |it: &&MembershipChange| it.joins && it.server != server;
            fault.servers.contains(&server)
                && fault.what.contains("cut off")
                && fault.from < at
                && h.memberships.iter().filter(joins).any(|it| {
                    it.done == Some(true) && fault.from < it.returned && it.returned < fault.until.min(at)
                })
        })
    };
    let restarts = |server, at| stops(h).any(|seen| seen.server == server && seen.at > at);
    installs(h)
        .filter(|seen| missed(seen.server, seen.at) && restarts(seen.server, seen.at))
        .count() as u64
}

/// Logs that are cut short, at either end, while they are read slowly.
pub(super) fn cut_while_read(h: &History) -> u64 {
    let cut = h.observations.iter().filter(|seen| {
        matches!(seen.what, Fact::Truncated { .. } | Fact::Purged { .. })
            && under(h, seen.at, &["reads takes"])
    });
    cut.count() as u64
}

/// Leaders that were left alone by all others, down or standing still, for longer than it takes to take those for failed.
pub(super) fn left_alone(h: &History) -> u64 {
    let away = away(h);
    let alone = |from: &Time| {
        let at = *from + SERVER_SILENCE_MAX;
        let mut servers = h.servers().into_iter();
        let leader = leader_at(h, at);
        servers.all(|server| {
            let is_away = away
                .iter()
                .any(|(whose, since, until)| *whose == server && *since <= *from && *until > at);
            is_away != (leader == Some(server))
        })
    };
    let mut begins: Vec<Time> = away.iter().map(|(_, from, _)| *from).collect();
    begins.sort_unstable();
    begins.dedup();
    begins.iter().filter(|from| alone(from)).count() as u64
}

/// Who was down or stood still, and from when to when.
fn away(h: &History) -> Vec<(ServerNumber, Time, Time)> {
    let mut away: Vec<(ServerNumber, Time, Time)> = h.truth().pauses.clone();
    let mut down: BTreeMap<ServerNumber, Time> = BTreeMap::new();
    for seen in &h.observations {
        match seen.what {
            Fact::Stopped { .. } => {
                down.entry(seen.server).or_insert(seen.at);
            }
            Fact::Started => away.extend(down.remove(&seen.server).map(|from| (seen.server, from, seen.at))),
            _ => {}
        }
    }
    away.extend(down.into_iter().map(|(server, from)| (server, from, h.ended)));
    away
}

/// Restores that come while a lock can't be taken.
pub(super) fn restored_in_a_delay(h: &History) -> u64 {
    let truth = h.truth();
    let in_a_delay = |position: &usize| !truth.state(*position).delays().is_empty();
    truth.restored().filter(in_a_delay).count() as u64
}

/// Locks that are taken after a restore though they could not be before it.
pub(super) fn taken_after_restore(h: &History) -> u64 {
    let truth = h.truth();
    let taken = truth.restored().filter(|position| {
        let before = truth.state(*position);
        before.delays().keys().any(|key| {
            let mut later = truth.entries.iter().enumerate().skip(position + 1);
            later.any(|(at, entry)| {
                matches!(&entry.command, Some((Command::Transact(_), _)))
                    && truth
                        .state(at + 1)
                        .key(key)
                        .is_some_and(|it| it.session.is_some())
            })
        })
    });
    taken.count() as u64
}
