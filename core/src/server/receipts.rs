//! Which errands of other servers were received before. A network may deliver a message twice; what it asks for is
//! done once.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use serde::{Deserialize, Serialize};

use crate::{limits, raft::ServerId};

/// What tells a message from every other one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stamp {
    /// Who sent it.
    pub(super) from: ServerId,
    /// A number drawn when that server started.
    pub(super) run: u64,
    /// Counts its messages.
    pub(super) number: u64,
}

/// Numbers what this server sends.
#[derive(Debug)]
pub(super) struct Stamps {
    from: ServerId,
    run: u64,
    sent: AtomicU64,
}

impl Stamps {
    /// `run` is a number drawn for this start of the server.
    pub(super) fn new(from: ServerId, run: u64) -> Self {
        Stamps {
            from,
            run,
            sent: AtomicU64::new(0),
        }
    }

    /// The stamp of the next message.
    pub(super) fn next(&self) -> Stamp {
        Stamp {
            from: self.from.clone(),
            run: self.run,
            number: self.sent.fetch_add(1, Ordering::Relaxed),
        }
    }
}

/// What this server received.
#[derive(Debug, Default)]
pub(super) struct Receipts {
    runs: Mutex<BTreeMap<(ServerId, u64), Run>>,
}

#[derive(Debug, Default)]
struct Run {
    /// Receipts so far, of all runs, when this run was last heard of.
    heard: u64,
    newest: u64,
    received: BTreeSet<u64>,
}

impl Receipts {
    /// How many starts of other servers are remembered.
    pub(super) fn runs(&self) -> usize {
        self.runs.lock().expect("no holder of this lock panics").len()
    }

    /// Takes note of a message; false if it was received before, or is so late that it may have been.
    pub(super) fn note(&self, stamp: &Stamp) -> bool {
        let mut runs = self.runs.lock().expect("no holder of this lock panics");
        let heard = 1 + runs.values().map(|run| run.heard).max().unwrap_or(0);
        let run = runs.entry((stamp.from.clone(), stamp.run)).or_default();
        run.heard = heard;
        run.newest = run.newest.max(stamp.number);
        let oldest = run.newest.saturating_sub(limits::RECEIPTS_PER_SERVER);
        if stamp.number < oldest || !run.received.insert(stamp.number) {
            return false;
        }
        while run.received.first().is_some_and(|number| *number < oldest) {
            run.received.pop_first();
        }
        while runs.len() > limits::RECEIPT_RUNS_MAX {
            let silent = runs.iter().min_by_key(|(_, run)| run.heard);
            let Some(key) = silent.map(|(key, _)| key.clone()) else {
                break;
            };
            runs.remove(&key);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(from: &str, run: u64, number: u64) -> Stamp {
        Stamp {
            from: ServerId(from.into()),
            run,
            number,
        }
    }

    #[test]
    fn a_message_is_new_once() {
        let receipts = Receipts::default();
        assert!(receipts.note(&stamp("a", 1, 7)));
        assert!(!receipts.note(&stamp("a", 1, 7)));
        assert!(receipts.note(&stamp("a", 1, 3)), "one overtook the other");
        assert!(!receipts.note(&stamp("a", 1, 3)));
        assert!(
            receipts.note(&stamp("a", 2, 7)),
            "another start of the same server"
        );
        assert!(receipts.note(&stamp("b", 1, 7)));
    }

    #[test]
    fn what_is_too_old_to_be_remembered_counts_as_received() {
        let receipts = Receipts::default();
        assert!(receipts.note(&stamp("a", 1, limits::RECEIPTS_PER_SERVER + 100)));
        assert!(receipts.note(&stamp("a", 1, 100)));
        assert!(!receipts.note(&stamp("a", 1, 99)));
    }

    #[test]
    fn memory_is_bounded() {
        let receipts = Receipts::default();
        for number in 0..3 * limits::RECEIPTS_PER_SERVER {
            assert!(receipts.note(&stamp("a", 1, number)));
        }
        for run in 0..2 * limits::RECEIPT_RUNS_MAX as u64 {
            assert!(receipts.note(&stamp("b", run, 0)));
            // This one is heard of all the time, and stays.
            assert!(!receipts.note(&stamp("a", 1, 3 * limits::RECEIPTS_PER_SERVER - 1)));
        }
        let runs = receipts.runs.lock().expect("no holder panics");
        assert_eq!(runs.len(), limits::RECEIPT_RUNS_MAX);
        let most = runs.values().map(|run| run.received.len()).max();
        assert!(most <= Some(limits::RECEIPTS_PER_SERVER as usize + 1), "{most:?}");
    }
}
