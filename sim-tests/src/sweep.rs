//! Runs many schedules on several threads.

use std::{
    fmt,
    ops::Range,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::{generate::generate, invariants::Violation, run::run, schedule::Schedule, sometimes::Tally};

/// Violations are kept of so many seeds; of those after them, only how many there are: a sweep may run for days.
const FAILURES_KEPT: usize = 1_000;

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
    /// How many seeds failed.
    pub failed: u64,
    /// Seeds that failed, with what was violated, by seed; no more than the first ones to be ready.
    pub failures: Vec<(u64, Vec<Violation>)>,
    /// How often each situation occurred that must occur.
    pub situations: Tally,
    /// Trace hashes by seed, if they were asked for.
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

/// What to sweep and when to end.
pub struct Orders<'a> {
    /// The seeds.
    pub seeds: Range<u64>,
    /// How many schedules run side by side.
    pub jobs: usize,
    /// Whether the trace hash of every seed is kept: then the memory grows with the seeds.
    pub hashes: bool,
    /// Is told of each failure at once, on the thread that found it.
    pub failed: &'a (dyn Fn(u64, &[Violation]) + Sync),
    /// Is shown what came of it so far after each schedule; when it says no, no other one begins.
    pub goes_on: &'a (dyn Fn(&Sweep) -> bool + Sync),
}

impl fmt::Debug for Orders<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Orders")
            .field("seeds", &self.seeds)
            .field("jobs", &self.jobs)
            .finish_non_exhaustive()
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
    sweep_by(&Orders {
        seeds,
        jobs: threads,
        hashes: false,
        failed: &progress,
        goes_on: &|so_far| so_far.failed < stop_after as u64,
    })
}

/// A sweep by these orders.
pub fn sweep_by(orders: &Orders<'_>) -> Sweep {
    sweep_through(orders, &generate)
}

/// A sweep through other schedules than those that follow from the seeds.
pub fn sweep_through(orders: &Orders<'_>, schedule: &(dyn Fn(u64) -> Schedule + Sync)) -> Sweep {
    let next = AtomicU64::new(orders.seeds.start);
    let goes_on = AtomicBool::new(true);
    let total = Mutex::new(Sweep::default());
    let work = || {
        while goes_on.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= orders.seeds.end {
                return;
            }
            let report = run(&schedule(seed));
            if !report.violations.is_empty() {
                (orders.failed)(seed, &report.violations);
            }
            let situations = Tally::of(&report.history);
            let mut total = total.lock().unwrap_or_else(PoisonError::into_inner);
            total.situations.add(&situations);
            total.schedules += 1;
            total.operations += report.history.operations.len() as u64;
            total.entries += report.history.truth().entries.len() as u64;
            total.faults += report.history.faults.len() as u64;
            total.simulated += report.elapsed;
            if orders.hashes {
                total.hashes.push((seed, report.trace_hash));
            }
            if !report.violations.is_empty() {
                total.failed += 1;
                if total.failures.len() < FAILURES_KEPT {
                    total.failures.push((seed, report.violations));
                }
            }
            if !(orders.goes_on)(&total) {
                goes_on.store(false, Ordering::Relaxed);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..orders.jobs.max(1) {
            scope.spawn(work);
        }
    });
    let mut sweep = total.into_inner().unwrap_or_else(PoisonError::into_inner);
    sweep.failures.sort_by_key(|(seed, _)| *seed);
    sweep.hashes.sort_unstable();
    sweep
}
