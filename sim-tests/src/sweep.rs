//! Runs many schedules on several threads.

use std::{
    ops::Range,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::{generate::generate, invariants::Violation, run::run, sometimes::Tally};

/// What came of a sweep.
#[derive(Clone, Debug, Default)]
pub struct Sweep {
    /// How many schedules ran.
    pub schedules: u64,
    /// How many operations clients sent.
    pub operations: u64,
    /// How many entries were committed.
    pub entries: u64,
    /// How many faults there were.
    pub faults: u64,
    /// Virtual time that passed.
    pub simulated: Duration,
    /// Seeds that failed, with what was violated, by seed.
    pub failures: Vec<(u64, Vec<Violation>)>,
    /// How often each situation occurred that must occur.
    pub situations: Tally,
    /// Trace hashes, by seed.
    pub hashes: Vec<(u64, u64)>,
}

impl Sweep {
    /// What to tell people of a failure: what was violated, and how to see it again.
    pub fn describe(seed: u64, violations: &[Violation]) -> String {
        let list: String = violations
            .iter()
            .map(|violation| format!("\n  {violation}"))
            .collect();
        format!("seed {seed} fails:{list}\n  replay it with: cargo sim replay {seed}")
    }
}

/// Runs the schedules of these seeds on so many threads; `progress` is told of each failure at once. Ends early after
/// `stop_after` failures.
pub fn sweep(
    seeds: Range<u64>,
    threads: usize,
    stop_after: usize,
    progress: impl Fn(u64, &[Violation]) + Sync,
) -> Sweep {
    let next = AtomicU64::new(seeds.start);
    let total = Mutex::new(Sweep::default());
    let lock = || total.lock().unwrap_or_else(PoisonError::into_inner);
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end || lock().failures.len() >= stop_after {
                return;
            }
            let report = run(&generate(seed));
            if !report.violations.is_empty() {
                progress(seed, &report.violations);
            }
            let situations = Tally::of(&report.history);
            let mut total = lock();
            total.situations.add(&situations);
            total.schedules += 1;
            total.operations += report.history.operations.len() as u64;
            total.entries += report.history.truth().entries.len() as u64;
            total.faults += report.history.faults.len() as u64;
            total.simulated += report.elapsed;
            total.hashes.push((seed, report.trace_hash));
            if !report.violations.is_empty() {
                total.failures.push((seed, report.violations));
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(work);
        }
    });
    let mut sweep = total.into_inner().unwrap_or_else(PoisonError::into_inner);
    sweep.failures.sort_by_key(|(seed, _)| *seed);
    sweep.hashes.sort_unstable();
    sweep
}
