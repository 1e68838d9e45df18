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
    run: u64,
    sent: AtomicU64,
}

impl Stamps {
    /// `run` is a number drawn for this start of the server.
    pub(super) fn new(run: u64) -> Self {
        Stamps {
            run,
            sent: AtomicU64::new(0),
        }
    }

    /// The stamp of the next message.
    pub(super) fn next(&self, from: ServerId) -> Stamp {
        Stamp {
            from,
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
