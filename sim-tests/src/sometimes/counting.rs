//! How what the rows tell of is counted in a run's history.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use sider_core::registry::{Command, Refusal, Reply};

use crate::{
    history::{Disk, Fact, FaultSpan, History, MembershipChange, Observed, Operation, Outcome, ServerNumber},
    invariants::availability::is_refused_for_writes,
    operation::{Freshness, Op, Target},
    time::Time,
    truth::Entry,
};

pub(super) fn each(h: &History, counts: impl Fn(&Observed) -> bool) -> u64 {
    h.observations.iter().filter(|seen| counts(seen)).count() as u64
}

pub(super) fn count(h: &History, counts: impl Fn(&Operation) -> bool) -> u64 {
    h.operations.iter().filter(|op| counts(op)).count() as u64
}

pub(super) fn changes(h: &History, counts: impl Fn(&MembershipChange) -> bool) -> u64 {
    h.memberships.iter().filter(|it| counts(it)).count() as u64
}

pub(super) fn commands(h: &History, counts: impl Fn(&Command, &Entry) -> bool) -> u64 {
    let of_command = |entry: &&Entry| {
        entry
            .command
            .as_ref()
            .is_some_and(|(command, _)| counts(command, entry))
    };
    h.truth().entries.iter().filter(of_command).count() as u64
}

pub(super) fn each_reply(h: &History, counts: impl Fn(&Command, &Result<(), Refusal>) -> bool) -> u64 {
    let replies = h
        .truth()
        .entries
        .iter()
        .filter_map(|entry| entry.command.as_ref());
    replies
        .map(|(command, effect)| match &effect.reply {
            Ok(Reply::Each(each)) => each.iter().filter(|reply| counts(command, reply)).count() as u64,
            _ => 0,
        })
        .sum()
}

/// How often a server does one thing, and another one next within so long.
pub(super) fn pairs(
    h: &History,
    within: Duration,
    first: impl Fn(&Fact) -> bool,
    second: impl Fn(&Fact) -> bool,
) -> u64 {
    let mut since: BTreeMap<ServerNumber, Time> = BTreeMap::new();
    let mut found = 0;
    for seen in &h.observations {
        if second(&seen.what) {
            let began = since.remove(&seen.server);
            found += u64::from(began.is_some_and(|at| seen.at.since(at) <= within));
        } else if first(&seen.what) {
            since.insert(seen.server, seen.at);
        }
    }
    found
}

pub(super) fn is_stop(what: &Fact) -> bool {
    matches!(what, Fact::Stopped { .. })
}

pub(super) fn stops(h: &History) -> impl Iterator<Item = &Observed> {
    h.observations.iter().filter(|seen| is_stop(&seen.what))
}

pub(super) fn installs(h: &History) -> impl Iterator<Item = &Observed> {
    let installs = |seen: &&Observed| matches!(seen.what, Fact::SnapshotInstalled { .. });
    h.observations.iter().filter(installs)
}

pub(super) fn near(one: Time, other: Time, ms: u64) -> bool {
    one.max(other).since(one.min(other)) <= Duration::from_millis(ms)
}

/// Who led each term, and when that showed first, in order.
pub(super) fn leaderships(h: &History) -> Vec<(ServerNumber, Time)> {
    h.truth().leaders.iter().map(|it| (it.server, it.from)).collect()
}

/// Who led the newest term.
pub(super) fn leader_at(h: &History, at: Time) -> Option<ServerNumber> {
    let leaders = &h.truth().leaders;
    leaders
        .iter()
        .filter(|it| it.from <= at)
        .max_by_key(|it| it.term)
        .map(|it| it.server)
}

pub(super) fn elected_within(h: &History, fault: &FaultSpan, ms: u64) -> bool {
    leaderships(h)
        .iter()
        .any(|(_, at)| *at >= fault.from && at.since(fault.from) <= Duration::from_millis(ms))
}

pub(super) fn under(h: &History, at: Time, words: &[&str]) -> bool {
    h.faults.iter().any(|fault| {
        fault.from <= at && at <= fault.until && words.iter().any(|word| fault.what.contains(word))
    })
}

pub(super) fn split_votes(h: &History) -> u64 {
    let mut candidates: BTreeMap<u64, BTreeSet<ServerNumber>> = BTreeMap::new();
    for seen in &h.observations {
        if let Fact::VoteSaved {
            term,
            voted_for,
            committed: false,
        } = &seen.what
            && Disk::parse(voted_for).is_some_and(|disk| disk.server == seen.server)
        {
            candidates.entry(*term).or_default().insert(seen.server);
        }
    }
    candidates.values().filter(|servers| servers.len() > 1).count() as u64
}

pub(super) fn two_leaders(h: &History) -> u64 {
    let mut leads: BTreeMap<ServerNumber, bool> = BTreeMap::new();
    let mut found = 0;
    for seen in &h.observations {
        match seen.what {
            Fact::BecameLeader { .. } => {
                found += u64::from(
                    leads
                        .iter()
                        .any(|(server, leads)| *leads && *server != seen.server),
                );
                leads.insert(seen.server, true);
            }
            Fact::LostLeadership { .. } | Fact::Stopped { .. } => {
                leads.insert(seen.server, false);
            }
            _ => {}
        }
    }
    found
}

pub(super) fn leader_paused_out(h: &History) -> u64 {
    let pauses = h.truth().pauses.iter().filter(|(server, from, until)| {
        leader_at(h, *from) == Some(*server)
            && leaderships(h)
                .iter()
                .any(|(other, at)| other != server && at > from && at <= until)
    });
    pauses.count() as u64
}

/// Entries of an earlier term that were first applied after a new leader's first entry was there.
pub(super) fn inherited(h: &History) -> u64 {
    let leaders = &h.truth().leaders;
    let inherited = |entry: &&Entry| {
        entry.command.is_some()
            && leaders
                .iter()
                .any(|it| it.term > entry.term && it.from < entry.applied)
    };
    h.truth().entries.iter().filter(inherited).count() as u64
}

pub(super) fn taken_back(h: &History) -> u64 {
    let mut ends: BTreeMap<ServerNumber, u64> = BTreeMap::new();
    let mut found = 0;
    for seen in &h.observations {
        match seen.what {
            Fact::Appended { index, .. } => {
                ends.insert(seen.server, index);
            }
            Fact::Truncated { after } => {
                found += u64::from(ends.insert(seen.server, after).is_some_and(|end| end > after));
            }
            _ => {}
        }
    }
    found
}

pub(super) fn interrupted_checkpoints(h: &History) -> u64 {
    let mut under_way: BTreeMap<ServerNumber, bool> = BTreeMap::new();
    let mut found = 0;
    for seen in &h.observations {
        match seen.what {
            Fact::CheckpointBegun { .. } => {
                under_way.insert(seen.server, true);
            }
            Fact::Checkpointed { .. } => {
                under_way.insert(seen.server, false);
            }
            Fact::Stopped { .. } => {
                found += u64::from(under_way.insert(seen.server, false) == Some(true));
            }
            _ => {}
        }
    }
    found
}

/// Servers to which entries that they had are brought again after they were down.
pub(super) fn lost_tails(h: &History) -> u64 {
    let mut lives: BTreeMap<ServerNumber, (Option<u64>, bool)> = BTreeMap::new();
    let mut found = 0;
    for seen in &h.observations {
        let (end, restarted) = lives.entry(seen.server).or_default();
        match seen.what {
            Fact::Started => *restarted = true,
            Fact::Wiped => *end = None,
            Fact::Truncated { after } => *end = Some(after),
            Fact::Appended { index, .. } => {
                found += u64::from(*restarted && end.is_some_and(|end| index <= end));
                (*end, *restarted) = (Some(index), false);
            }
            _ => {}
        }
    }
    found
}

pub(super) fn all_down(h: &History) -> u64 {
    let mut up: BTreeMap<ServerNumber, bool> = BTreeMap::new();
    let mut found = 0;
    for seen in &h.observations {
        match seen.what {
            Fact::Started => {
                up.insert(seen.server, true);
            }
            Fact::Stopped { .. } => {
                up.insert(seen.server, false);
                found += u64::from(up.len() > 2 && up.values().all(|up| !up));
            }
            _ => {}
        }
    }
    found
}

pub(super) fn waiting_at<'a>(h: &'a History, seen: &'a Observed) -> impl Iterator<Item = &'a Operation> {
    waits(h).filter(|op| op.server == seen.server && op.invoked < seen.at && seen.at < op.returned)
}

pub(super) fn waits(h: &History) -> impl Iterator<Item = &Operation> {
    let waits = |op: &&Operation| op.streamed.is_none() && matches!(op.op, Op::Wait { index: 1.., .. });
    h.operations.iter().filter(waits)
}

pub(super) fn index(op: &Operation) -> Option<u64> {
    op.answer()?.index
}

/// Whether a blocking query was answered with something newer.
pub(super) fn woken(op: &Operation) -> bool {
    matches!((&op.op, index(op)), (Op::Wait { index: carried, .. }, Some(got)) if got > *carried)
}

pub(super) fn is_fresh_read(op: &Operation) -> bool {
    op.op
        .asked()
        .is_some_and(|(_, freshness)| freshness.linearizable())
}

/// Whether the client bounds how old the answer may be, and got one.
pub(super) fn is_bounded(op: &Operation) -> bool {
    let asked = op.op.asked();
    op.is_done() && asked.is_some_and(|(_, freshness)| matches!(freshness, Freshness::MaxStale(_)))
}

pub(super) fn contact_ago(op: &Operation) -> Duration {
    let told = op.answer().and_then(|answer| answer.told.as_ref());
    told.map_or(Duration::ZERO, |told| told.last_contact)
}

pub(super) fn is_stale(op: &Operation) -> bool {
    op.op
        .asked()
        .is_some_and(|(_, freshness)| freshness == Freshness::Stale)
}

pub(super) fn is_empty(op: &Operation) -> bool {
    use crate::content::Content;
    matches!(
        op.answer().and_then(|it| it.content.as_ref()),
        Some(Content::Instances(instances)) if instances.is_empty()
    )
}

pub(super) fn unknown_writes(h: &History) -> impl Iterator<Item = &Operation> {
    let unknown = |op: &&Operation| {
        op.op.is_write()
            && !matches!(op.op, Op::Report { .. })
            && matches!(op.outcome, Outcome::Unknown(_))
            && op.returned < h.ended
    };
    h.operations.iter().filter(unknown)
}

/// Renewals that are acknowledged while writes are refused because others wait for long.
pub(super) fn renewed_among_refusals(h: &History) -> u64 {
    let refused: Vec<Time> = h
        .operations
        .iter()
        .filter(|op| is_refused_for_writes(h, &op.outcome))
        .map(|op| op.returned)
        .collect();
    count(h, |op| {
        let meanwhile = |at: &Time| op.invoked <= *at && *at <= op.returned;
        op.op.is_renewal() && op.is_done() && refused.iter().any(meanwhile)
    })
}

pub(super) fn entry_of<'a>(h: &'a History, op: &Operation) -> Option<&'a Entry> {
    h.truth().entries.get(h.truth().entry_of(op.id)?)
}

pub(super) fn in_log(h: &History, op: &Operation) -> bool {
    entry_of(h, op).is_some()
}

pub(super) fn changed(entry: &Entry) -> bool {
    entry.expected.as_ref().is_some_and(|(_, changed)| *changed)
}

pub(super) fn leader_changes_during(h: &History, op: &Operation) -> bool {
    let leaders = h.truth().leaders.iter().skip(1);
    leaders
        .map(|it| it.from)
        .any(|at| op.invoked < at && at < op.returned)
}

pub(super) fn replacements(h: &History) -> u64 {
    let truth = h.truth();
    let replaces = |(at, entry): &(usize, &Entry)| {
        let Some((Command::Register(all), _)) = &entry.command else {
            return false;
        };
        let before = truth.state(*at);
        let known = |it: &sider_core::registry::Registration| {
            it.instance
                .as_ref()
                .is_some_and(|it| before.instance(&it.key()).is_some())
        };
        changed(entry) && all.iter().any(known)
    };
    truth.entries.iter().enumerate().filter(replaces).count() as u64
}

pub(super) fn moves(h: &History) -> u64 {
    let truth = h.truth();
    let moves = |(at, entry): &(usize, &Entry)| {
        let Some((Command::Register(all), _)) = &entry.command else {
            return false;
        };
        let before = truth.state(*at);
        all.iter().filter_map(|it| it.instance.as_ref()).any(|new| {
            before
                .instance(&new.key())
                .is_some_and(|old| old.service != new.service)
        })
    };
    truth.entries.iter().enumerate().filter(moves).count() as u64
}

pub(super) fn overlapping_writes(h: &History) -> u64 {
    let about = |op: &Operation| match &op.op {
        Op::Register { services, .. } => services.first().map(|it| it.id.clone()),
        Op::Deregister { id, .. } => Some(id.clone()),
        _ => None,
    };
    let mut last: BTreeMap<String, Time> = BTreeMap::new();
    let mut found = 0;
    for op in &h.operations {
        let Some(id) = about(op) else { continue };
        let until = last.entry(id).or_default();
        found += u64::from(op.invoked < *until);
        *until = op.returned.max(*until);
    }
    found
}

/// Entries that turn a check critical for want of a renewal.
pub(super) fn expiries(h: &History) -> impl Iterator<Item = &Entry> {
    let expires =
        |entry: &&Entry| matches!(entry.command, Some((Command::ExpireChecks(_), _))) && changed(entry);
    h.truth().entries.iter().filter(expires)
}

/// Expiries that a leader could have decided earlier, had there been one: the one before led more than the TTL ago.
pub(super) fn expiry_during_election(h: &History) -> u64 {
    let during = |entry: &&Entry| {
        let Some((Command::ExpireChecks(all), _)) = &entry.command else {
            return false;
        };
        let Some(leader) = h.truth().leaders.iter().find(|it| it.term == entry.term) else {
            return false;
        };
        all.iter().any(|expiry| {
            let ttl = entry
                .state
                .check(&expiry.check)
                .and_then(|check| check.definition.ttl())
                .unwrap_or_default();
            let renewed = renewals(h)
                .filter(|op| {
                    op.is_done() && op.returned < entry.applied && reports_on(op, expiry.check.id.as_str())
                })
                .map(|op| op.returned)
                .max();
            renewed.is_some_and(|at| at < leader.from && entry.applied.since(leader.from) < ttl * 2)
        })
    };
    expiries(h).filter(during).count() as u64
}

pub(super) fn reports_on(op: &Operation, check: &str) -> bool {
    matches!(&op.op, Op::Report { reports, .. } if reports.iter().any(|it| match &it.target {
        Target::Check(id) => id == check,
        Target::Instance(id) => check.contains(id.as_str()),
    }))
}

pub(super) fn renewals(h: &History) -> impl Iterator<Item = &Operation> {
    h.operations
        .iter()
        .filter(|op| matches!(op.op, Op::Report { .. }))
}

pub(super) fn any_entry_during(h: &History, op: &Operation) -> bool {
    let entries = &h.truth().entries;
    let first = entries.partition_point(|entry| entry.applied < op.invoked);
    entries[first..]
        .iter()
        .take_while(|entry| entry.applied <= op.returned)
        .next()
        .is_some()
}

/// Renewals that a leader acknowledged within two seconds of its election, after another one had.
pub(super) fn renewal_by_new_leader(h: &History) -> u64 {
    let elections = leaderships(h);
    renewals(h)
        .filter(|op| {
            op.is_done()
                && elections
                    .iter()
                    .skip(1)
                    .any(|(_, at)| *at < op.invoked && op.returned.since(*at) < Duration::from_secs(2))
        })
        .count() as u64
}

pub(super) fn passes_again(h: &History) -> u64 {
    let truth = h.truth();
    let again = |(at, entry): &(usize, &Entry)| {
        let Some((Command::UpdateChecks(updates), _)) = &entry.command else {
            return false;
        };
        let before = truth.state(*at);
        updates.iter().any(|update| match &update.target {
            sider_core::registry::CheckTarget::Check(key) => {
                let expired = before
                    .check(key)
                    .is_some_and(|it| it.output.starts_with("TTL expired"));
                expired && update.status == Some(sider_core::registry::CheckStatus::Passing)
            }
            _ => false,
        })
    };
    truth.entries.iter().enumerate().filter(again).count() as u64
}

pub(super) fn several_checks(h: &History, instance: &str) -> bool {
    h.operations.iter().any(|op| {
        matches!(&op.op, Op::Register { services, .. } if
            services.iter().any(|it| it.id == instance && it.checks.len() > 1))
    })
}

pub(super) fn stale_behind(h: &History) -> u64 {
    let truth = h.truth();
    let behind = |op: &Operation| {
        let (Some((ask, Freshness::Stale)), Some(index)) = (op.op.asked(), index(op)) else {
            return false;
        };
        index < truth.index_at(&ask.topic(), truth.applied_before(op.invoked))
    };
    count(h, behind)
}

/// Changes of what is asked between the index that was carried and the one that was given.
pub(super) fn steps_given(h: &History, op: &Operation) -> usize {
    let (
        Op::Wait {
            ask, index: carried, ..
        },
        Some(got),
    ) = (&op.op, index(op))
    else {
        return 0;
    };
    let steps = h.truth().steps(&ask.topic());
    steps
        .iter()
        .filter(|step| step.index > *carried && step.index <= got)
        .count()
}

pub(super) fn moves_on(h: &History) -> u64 {
    let mut last: BTreeMap<(u32, &crate::operation::Ask), (ServerNumber, u64)> = BTreeMap::new();
    let mut found = 0;
    for op in waits(h) {
        let (
            Op::Wait {
                ask, index: carried, ..
            },
            Some(got),
        ) = (&op.op, index(op))
        else {
            continue;
        };
        let before = last.insert((op.client, ask), (op.server, got));
        let moved = before.is_some_and(|(server, index)| server != op.server && index == *carried);
        found += u64::from(moved && got > *carried);
    }
    found
}

pub(super) fn shared_wakes(h: &History) -> u64 {
    let mut woken_by: BTreeMap<(String, u64), u64> = BTreeMap::new();
    for op in waits(h).filter(|op| woken(op)) {
        if let (Some((ask, _)), Some(index)) = (op.op.asked(), index(op)) {
            *woken_by.entry((ask.to_string(), index)).or_default() += 1;
        }
    }
    woken_by.values().filter(|count| **count > 1).count() as u64
}

/// Waits with a filter that lasted to their end though the topic rose: what changed was not asked for.
pub(super) fn unfiltered(h: &History) -> u64 {
    use crate::operation::Ask;
    let filters = |ask: &Ask| match ask {
        Ask::Health { tags, .. } | Ask::CatalogService { tags, .. } => !tags.is_empty(),
        _ => false,
    };
    let lasted = |op: &&Operation| {
        let Op::Wait { ask, wait_ms, .. } = &op.op else {
            return false;
        };
        filters(ask) && woken(op) && op.returned.since(op.invoked) >= Duration::from_millis(*wait_ms)
    };
    waits(h).filter(lasted).count() as u64
}

pub(super) fn agent_entries<'a>(h: &'a History, node: &'a str) -> impl Iterator<Item = &'a Entry> {
    h.truth().entries.iter().filter(move |entry| {
        matches!(&entry.command, Some((Command::Register(all), _)) if all.iter().any(|it| it.node.name.as_str() == node))
    })
}
