//! When each entry can have been applied, as far as that can be known from outside.
//!
//! Not before it was proposed, nor before any entry in front of it was: when that was, an entry says itself (since
//! version 2), in milliseconds of the wall clock. And not after the first answer that shows its index, or one behind it.
//! Between the two nobody saw it. What must have happened by a moment is judged by the latest possible one, what can
//! have happened by the earliest: so a run is called broken only if it is, whenever each entry was applied.
//!
//! No answer is given to an entry here because it would fit. Which write is whose entry is found out by `matching`, in
//! any way that explains all of them.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};

use super::log::Replayed;
use crate::{history::Record, time::Time};

/// How often both clocks are read to know them by each other. Between two readings this process may have to wait for the
/// processor, so the closest pair counts.
const READINGS: usize = 100;
/// What every answer about nothing bears.
const NO_INDEX: u64 = 1;

/// What the wall clock showed when the clients' clock began: at least and at most, in nanoseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Clock {
    least_ns: u64,
    most_ns: u64,
}

/// From when to when an entry can have been applied for the first time anywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Moments {
    pub(super) earliest: Time,
    pub(super) latest: Time,
}

impl Clock {
    /// Reads both clocks.
    pub(super) fn read(began: Instant) -> Clock {
        let nanos = |span: Duration| u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        let reading = |_| {
            let before = nanos(began.elapsed());
            let wall = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, nanos);
            let after = nanos(began.elapsed());
            Clock {
                least_ns: wall.saturating_sub(after),
                most_ns: wall.saturating_sub(before),
            }
        };
        (0..READINGS)
            .map(reading)
            .min_by_key(|clock| clock.most_ns - clock.least_ns)
            .expect("it is read more than once")
    }

    /// What both readings allow: the wall clock may have been set in between.
    pub(super) fn or(self, other: Clock) -> Clock {
        Clock {
            least_ns: self.least_ns.min(other.least_ns),
            most_ns: self.most_ns.max(other.most_ns),
        }
    }

    /// When the wall clock showed a millisecond: at the earliest and at the latest.
    pub(super) fn span_of_ms(self, wall_ms: u64) -> (Time, Time) {
        let (begins, ends) = (wall_ms * 1_000_000, (wall_ms + 1) * 1_000_000);
        (
            Time(begins.saturating_sub(self.most_ns)),
            Time(ends.saturating_sub(self.least_ns)),
        )
    }

    /// A clock that is exactly known.
    #[cfg(test)]
    pub(super) fn exact(began_ms: u64) -> Clock {
        Clock {
            least_ns: began_ms * 1_000_000,
            most_ns: began_ms * 1_000_000,
        }
    }
}

/// The moments of each entry, by its log index.
pub(super) fn of(log: &[Replayed], record: &Record, clock: Clock) -> BTreeMap<u64, Moments> {
    let mut shown: Vec<Time> = vec![record.ended; log.len()];
    for operation in &record.operations {
        let index = operation.answer().and_then(|answer| answer.index);
        let Some(index) = index.filter(|index| *index > NO_INDEX) else {
            continue;
        };
        // Whoever has this index has applied an entry that leads to it or beyond.
        let first = log.partition_point(|replayed| replayed.entry.index < index);
        if let Some(shown) = shown.get_mut(first) {
            *shown = operation.returned.min(*shown);
        }
    }
    let mut latest = record.ended;
    for shown in shown.iter_mut().rev() {
        latest = latest.min(*shown);
        *shown = latest;
    }
    let mut earliest = Time(0);
    let mut moments = BTreeMap::new();
    for (replayed, latest) in log.iter().zip(shown) {
        if let Some(proposed_ms) = replayed.proposed_ms {
            earliest = earliest.max(clock.span_of_ms(proposed_ms).0);
        }
        // An answer that comes before its time is for the judges to find.
        let moment = Moments {
            earliest: earliest.min(latest),
            latest,
        };
        moments.insert(replayed.entry.log_index, moment);
    }
    moments
}

/// When the leader of each term can have been elected at the earliest: it had all entries of earlier terms by then.
pub(super) fn elections(log: &[Replayed], moments: &BTreeMap<u64, Moments>) -> BTreeMap<u64, Time> {
    let mut elections = BTreeMap::new();
    let mut before = Time(0);
    for replayed in log {
        elections.entry(replayed.entry.term).or_insert(before);
        before = moments
            .get(&replayed.entry.log_index)
            .map_or(before, |it| it.earliest);
    }
    elections
}
