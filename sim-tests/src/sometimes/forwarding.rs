//! Situations of what agents send on to servers, and of what they keep.

use std::collections::BTreeMap;

use crate::{
    history::{Fact, History, Kept, Operation, Outcome, ServerNumber},
    invariants::cached,
    keys::KeyOp,
    operation::{Ask, Freshness, Op},
};

fn through(h: &History) -> impl Iterator<Item = &Operation> {
    h.operations.iter().filter(|it| it.server.agent().is_some())
}

fn count(h: &History, counts: impl Fn(&Operation) -> bool) -> u64 {
    through(h).filter(|it| counts(it)).count() as u64
}

fn kept(operation: &Operation) -> Option<&Kept> {
    operation.answer()?.told.as_ref()?.kept.as_ref()
}

fn is_hit(operation: &Operation) -> bool {
    kept(operation).is_some_and(|kept| kept.hit)
}

fn is_woken(operation: &Operation) -> bool {
    let index = operation.answer().and_then(|answer| answer.index);
    matches!(&operation.op, Op::Wait { index: had, .. } if *had > 0 && index > Some(*had))
}

/// A read is answered.
pub(super) fn read(h: &History) -> u64 {
    count(h, |it| it.op.asked().is_some() && it.is_done())
}

/// A write is carried out.
pub(super) fn written(h: &History) -> u64 {
    count(h, |it| it.op.is_write() && it.is_done())
}

/// A session is created.
pub(super) fn session(h: &History) -> u64 {
    let creates =
        |op: &Op| matches!(op, Op::Keys(KeyOp::CreateSession(new)) if new.node.starts_with("agent"));
    count(h, |it| creates(&it.op) && it.is_done())
}

/// It failed, or its outcome is unknown.
pub(super) fn failed(h: &History) -> u64 {
    count(h, |it| {
        matches!(it.outcome, Outcome::Failed(_) | Outcome::Unknown(_))
    })
}

/// It is answered while some server is down.
pub(super) fn elsewhere(h: &History) -> u64 {
    let mut since = BTreeMap::new();
    let mut down = Vec::new();
    for seen in &h.observations {
        match seen.what {
            Fact::Stopped { .. } => drop(since.insert(seen.server, seen.at)),
            Fact::Started => down.extend(since.remove(&seen.server).map(|from| (from, seen.at))),
            _ => {}
        }
    }
    count(h, |it| {
        let during = |(from, until): &_| *from <= it.invoked && it.returned <= *until;
        it.is_done() && !is_hit(it) && down.iter().any(during)
    })
}

/// A wait is over because something differs.
pub(super) fn woken(h: &History) -> u64 {
    count(h, |it| is_woken(it) && kept(it).is_none())
}

/// A wait begins while another one for the same is under way.
pub(super) fn behind(h: &History) -> u64 {
    let waits: Vec<&Operation> = through(h)
        .filter(|it| matches!(it.op, Op::Wait { index, .. } if index > 0) && kept(it).is_none())
        .collect();
    let is_behind = |it: &Operation, other: &Operation| {
        let same = match (&it.op, &other.op) {
            (
                Op::Wait {
                    ask,
                    freshness,
                    index,
                    ..
                },
                Op::Wait {
                    ask: asked,
                    freshness: how,
                    index: had,
                    ..
                },
            ) => (ask, freshness, index) == (asked, how, had),
            _ => false,
        };
        same && it.server == other.server && other.invoked < it.invoked && it.invoked < other.returned
    };
    let begun = |it: &&&Operation| waits.iter().any(|other| is_behind(it, other));
    waits.iter().filter(begun).count() as u64
}

/// An answer was there already.
pub(super) fn hit(h: &History) -> u64 {
    count(h, is_hit)
}

/// The same, a while ago.
pub(super) fn aged(h: &History) -> u64 {
    count(h, |it| {
        kept(it).is_some_and(|kept| kept.hit && !kept.age.is_zero())
    })
}

/// A wait for news of what is kept is over because there are some.
pub(super) fn kept_woken(h: &History) -> u64 {
    count(h, |it| is_woken(it) && is_hit(it))
}

/// Two are woken at once by one answer.
pub(super) fn shared(h: &History) -> u64 {
    let mut woken: BTreeMap<(ServerNumber, &Ask, Option<u64>), Vec<&Operation>> = BTreeMap::new();
    for operation in through(h).filter(|it| is_woken(it) && is_hit(it)) {
        let index = operation.answer().and_then(|answer| answer.index);
        if let Some((ask, _)) = operation.op.asked() {
            woken
                .entry((operation.server, ask, index))
                .or_default()
                .push(operation);
        }
    }
    let several = |all: &&Vec<&Operation>| {
        let latest = all.iter().map(|it| it.invoked).max();
        let first = all.iter().map(|it| it.returned).min();
        all.len() > 1 && latest <= first
    };
    woken.values().filter(several).count() as u64
}

/// Something is fetched that was there already.
pub(super) fn anew(h: &History) -> u64 {
    let mut seen: Vec<(ServerNumber, &Ask)> = Vec::new();
    let mut found = 0;
    for operation in through(h).filter(|it| kept(it).is_some()) {
        let Some((ask, freshness)) = operation.op.asked() else {
            continue;
        };
        let known = seen.contains(&(operation.server, ask));
        found += u64::from(freshness == Freshness::CachedAnew && known);
        if !known {
            seen.push((operation.server, ask));
        }
    }
    found
}

/// A kept answer was judged by the way of news.
pub(super) fn judged(h: &History) -> u64 {
    count(h, |it| is_hit(it) && cached::is_judged_strictly(h, it))
}
