//! What a record says, put in order: entries, topics, who had applied what, who led, when it was calm.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use sider_core::registry::Topic;

use super::{Entry, Leadership, Lives};
use crate::{
    history::{AppliedEntry, Fact, FaultKind, FaultSpan, Observed, Record, ServerNumber},
    matching::Source,
    model::State,
    time::Time,
};

fn applied_entries(record: &Record) -> impl Iterator<Item = (Time, ServerNumber, &AppliedEntry)> {
    record.observations.iter().filter_map(|seen| match &seen.what {
        Fact::Applied(entry) => Some((seen.at, seen.server, entry.as_ref())),
        _ => None,
    })
}

pub(super) fn committed(record: &Record) -> Vec<Entry> {
    let mut appended: BTreeMap<(u64, u64, u64), Time> = BTreeMap::new();
    for seen in &record.observations {
        if let Fact::Appended { index, term, hash } = seen.what {
            appended.entry((index, term, hash)).or_insert(seen.at);
        }
    }
    let mut first: BTreeMap<u64, (Time, &AppliedEntry)> = BTreeMap::new();
    for (at, _, entry) in applied_entries(record) {
        first.entry(entry.log_index).or_insert((at, entry));
    }
    let mut state = Arc::new(State::default());
    let mut entries = Vec::with_capacity(first.len());
    for (log_index, (applied, entry)) in first {
        let expected = entry.command.as_ref().map(|(command, _)| {
            let mut next = State::clone(&state);
            let (reply, changed) = next.apply(command);
            state = Arc::new(next);
            (reply, changed)
        });
        entries.push(Entry {
            log_index,
            term: entry.term,
            hash: entry.hash,
            command: entry.command.clone(),
            expected,
            raised: Vec::new(),
            appended: appended
                .get(&(log_index, entry.term, entry.hash))
                .copied()
                .unwrap_or(applied)
                .min(applied),
            applied,
            earliest: earliest(record, log_index, applied),
            state: Arc::clone(&state),
        });
    }
    entries
}

/// When an entry can have been applied at the earliest that was observed to be applied at a moment.
pub(super) fn earliest(record: &Record, log_index: u64, seen: Time) -> Time {
    let earliest = record.earliest.get(&log_index).copied();
    earliest.map_or(seen, |earliest| earliest.min(seen))
}

pub(super) fn caused(sources: &[Source]) -> BTreeMap<u32, usize> {
    let caused = |(position, source): (usize, &Source)| match source {
        Source::Operation(id) => Some((*id, position)),
        _ => None,
    };
    sources.iter().enumerate().filter_map(caused).collect()
}

/// Sets what each entry raises.
pub(super) fn raise_topics(entries: &mut [Entry]) {
    let mut shown = BTreeMap::new();
    for entry in entries {
        if entry.expected.as_ref().is_some_and(|(_, changed)| *changed) {
            let shows = entry.state.topics();
            entry.raised = changed_topics(&shown, &shows);
            shown = shows;
        }
    }
}

/// Topics that show something else than before, in order.
fn changed_topics(before: &BTreeMap<Topic, u64>, after: &BTreeMap<Topic, u64>) -> Vec<Topic> {
    let differ = |topic: &&Topic| before.get(*topic) != after.get(*topic);
    let mut topics: Vec<Topic> = before
        .keys()
        .chain(after.keys())
        .filter(differ)
        .cloned()
        .collect();
    topics.sort();
    topics.dedup();
    topics
}

/// What had been applied by when; `when` tells it of each entry that was observed.
pub(super) fn applied_anywhere(record: &Record, when: impl Fn(Time, u64) -> Time) -> Vec<(Time, u64)> {
    let mut steps: Vec<(Time, u64)> = Vec::new();
    for (at, _, entry) in applied_entries(record) {
        if steps.last().is_none_or(|(_, most)| *most < entry.log_index) {
            steps.push((when(at, entry.log_index), entry.log_index));
        }
    }
    steps
}

pub(super) fn applied_at(record: &Record, when: impl Fn(Time, u64) -> Time) -> BTreeMap<ServerNumber, Lives> {
    let mut lives: BTreeMap<ServerNumber, Lives> = BTreeMap::new();
    for seen in &record.observations {
        let (at, applied) = match &seen.what {
            Fact::Started | Fact::Stopped { .. } => (seen.at, None),
            Fact::Applied(entry) => (when(seen.at, entry.log_index), Some(entry.log_index)),
            Fact::SnapshotInstalled { log_index, .. } => (seen.at, Some(*log_index)),
            // What is purged is in the state. A server that crashed before it could tell of a snapshot shows it so.
            Fact::Purged { upto } => {
                let known = lives.get(&seen.server).and_then(|steps| steps.last()?.1);
                (seen.at, known.max(Some(*upto)))
            }
            _ => continue,
        };
        lives.entry(seen.server).or_default().push((at, applied));
    }
    // Where nobody saw it, the order of the possible moments is not that of the observations.
    lives
        .values_mut()
        .for_each(|steps| steps.sort_by_key(|(at, _)| *at));
    lives
}

pub(super) fn starts(record: &Record) -> BTreeMap<ServerNumber, Vec<Time>> {
    let mut starts: BTreeMap<ServerNumber, Vec<Time>> = BTreeMap::new();
    for seen in record
        .observations
        .iter()
        .filter(|seen| matches!(seen.what, Fact::Started))
    {
        starts.entry(seen.server).or_default().push(seen.at);
    }
    starts
}

pub(super) fn pauses(record: &Record) -> Vec<(ServerNumber, Time, Time)> {
    let mut pauses = Vec::new();
    let mut paused: BTreeMap<ServerNumber, Time> = BTreeMap::new();
    for seen in &record.observations {
        match seen.what {
            Fact::Paused => {
                paused.insert(seen.server, seen.at);
            }
            Fact::Resumed | Fact::Stopped { .. } => {
                if let Some(from) = paused.remove(&seen.server) {
                    pauses.push((seen.server, from, seen.at));
                }
            }
            _ => {}
        }
    }
    pauses.extend(
        paused
            .into_iter()
            .map(|(server, from)| (server, from, record.ended)),
    );
    pauses.sort_by_key(|(server, from, _)| (*from, *server));
    pauses
}

pub(super) fn leaders(record: &Record) -> Vec<Leadership> {
    let mut leaders: BTreeMap<u64, Leadership> = BTreeMap::new();
    for seen in &record.observations {
        // An entry of a term is proof that its leader leads, even before the leader says so.
        let (Fact::BecameLeader { term } | Fact::Appended { term, .. }) = seen.what else {
            continue;
        };
        leaders.entry(term).or_insert(Leadership {
            term,
            server: seen.server,
            from: seen.at,
        });
    }
    leaders.into_values().collect()
}

/// The complement of all disturbances, each of them prolonged by the time to settle.
pub(super) fn calm(record: &Record) -> Vec<(Time, Time)> {
    calm_but_for(record, None)
}

/// When it is calm, but that a server is down: that its process ends and starts, and what ended it, does not count.
pub fn calm_but_for(record: &Record, down: Option<ServerNumber>) -> Vec<(Time, Time)> {
    let settle = record.bounds.settle;
    let mut troubled: Vec<(Time, Time)> = vec![(Time(0), Time(0) + settle)];
    let of_its_process = |seen: &&Observed| {
        Some(seen.server) == down && matches!(seen.what, Fact::Started | Fact::Stopped { .. })
    };
    let ended: Vec<Time> = match down {
        None => Vec::new(),
        Some(_) => record
            .observations
            .iter()
            .filter(of_its_process)
            .map(|seen| seen.at)
            .collect(),
    };
    let ended_it = |fault: &FaultSpan| {
        down.is_some_and(|server| fault.servers == [server]) && ended.contains(&fault.from)
    };
    for fault in record
        .faults
        .iter()
        .filter(|fault| fault.kind != FaultKind::Harmless && !ended_it(fault))
    {
        troubled.push((fault.from, fault.until + settle));
    }
    for seen in record.observations.iter().filter(|seen| !of_its_process(seen)) {
        if matches!(
            seen.what,
            Fact::BecameLeader { .. } | Fact::LostLeadership { .. } | Fact::Started | Fact::Stopped { .. }
        ) {
            troubled.push((seen.at, seen.at + settle));
        }
    }
    for change in &record.memberships {
        troubled.push((change.invoked, change.returned + settle));
    }
    troubled.sort();
    let mut calm = Vec::new();
    let mut end = Time(0);
    for (from, until) in troubled {
        if from > end + Duration::from_millis(1) {
            calm.push((end, from - Duration::from_nanos(1)));
        }
        end = end.max(until);
    }
    if record.ended > end {
        calm.push((end, record.ended));
    }
    calm
}
