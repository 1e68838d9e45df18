//! The search for a smaller schedule: which candidates are tried in which order.

use std::{
    ops::RangeInclusive,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::{
    Effort, Shrunk,
    candidates::{self, Part},
};
use crate::schedule::Schedule;

/// So many other seeds are tried for each chunk that can't go with its own.
const OTHER_SEEDS: u64 = 3;
/// So many runs may go to a last try to take single events away.
const LAST_TRIES: u64 = 200;

/// See the module's page.
pub(super) struct Search<F, P> {
    best: Schedule,
    runs: usize,
    effort: Effort,
    still_fails: F,
    progress: P,
}

impl<F, P> Search<F, P>
where
    F: Fn(&Schedule) -> bool + Sync,
    P: FnMut(&Schedule, usize),
{
    pub(super) fn new(schedule: &Schedule, effort: Effort, still_fails: F, progress: P) -> Self {
        Search {
            best: schedule.clone(),
            runs: 0,
            effort,
            still_fails,
            progress,
        }
    }

    pub(super) fn end(self) -> Shrunk {
        Shrunk {
            schedule: self.best,
            runs: self.runs,
            violation: None,
        }
    }

    /// Large parts of what happens, then smaller ones, until no single event can go.
    pub(super) fn take_parts_away(&mut self) {
        self.take_first(&candidates::without_agent(&self.best));
        let most = |schedule: &Schedule| Part::ALL.map(|part| part.count(schedule)).into_iter().max();
        let mut chunk = most(&self.best).unwrap_or(0).max(1);
        loop {
            let mut shrunk = false;
            for seeds in [0..=0, 1..=OTHER_SEEDS] {
                for part in Part::ALL {
                    shrunk |= self.take_chunks_away(part, chunk, seeds.clone());
                }
            }
            if self.is_over() || (chunk == 1 && !shrunk) {
                return;
            }
            let most = most(&self.best).unwrap_or(0).max(1);
            chunk = (chunk / 2).clamp(1, most);
        }
    }

    /// Takes away each chunk of so many that is not needed, with a seed that is so far from the one that it has.
    fn take_chunks_away(&mut self, part: Part, chunk: usize, seeds: RangeInclusive<u64>) -> bool {
        let mut shrunk = false;
        let mut start = 0;
        while start < part.count(&self.best) && !self.is_over() {
            let starts = (start..part.count(&self.best)).step_by(chunk);
            let tried: Vec<(usize, u64)> = starts
                .flat_map(|start| seeds.clone().map(move |seed| (start, seed)))
                .collect();
            let candidate = |&(start, seed): &(usize, u64)| {
                with_other_seed(&part.without(&self.best, start, chunk), seed)
            };
            let candidates: Vec<Schedule> = tried.iter().map(candidate).collect();
            let Some(place) = self.take_first(&candidates) else {
                return shrunk;
            };
            shrunk = true;
            start = tried[place].0;
        }
        shrunk
    }

    /// Single events once more, the fewer there are the more seeds. True if one went.
    pub(super) fn take_events_away_with_other_seeds(&mut self) -> bool {
        let singles = candidates::without_one_event(&self.best);
        let seeds = LAST_TRIES / singles.len().max(1) as u64;
        let lucky =
            (1..=seeds).flat_map(|seed| singles.iter().map(move |single| with_other_seed(single, seed)));
        self.take_first(&lucky.collect::<Vec<_>>()).is_some()
    }

    /// Makes what is left plainer, shorter, and closer together.
    pub(super) fn simplify(&mut self) {
        type Simpler = fn(&Schedule) -> Vec<Schedule>;
        let ways: [Simpler; 7] = [
            candidates::with_less_of_agents,
            candidates::with_fewer_servers,
            candidates::plainer,
            candidates::with_shorter_faults,
            candidates::with_less_in_requests,
            candidates::closer_together,
            candidates::ending_earlier,
        ];
        for way in ways {
            while !self.is_over() && self.take_first(&way(&self.best)).is_some() {}
        }
    }

    fn is_over(&self) -> bool {
        self.runs >= self.effort.runs_max
    }

    /// Takes the first candidate that still fails, and gives its place. Runs that were begun for later ones do not count,
    /// so that the number of jobs changes nothing.
    fn take_first(&mut self, candidates: &[Schedule]) -> Option<usize> {
        let allowed = candidates.len().min(self.effort.runs_max - self.runs);
        // One that makes no sense could fail for that alone.
        let still_fails = |it: &Schedule| it.validate().is_ok() && (self.still_fails)(it);
        let found = first_of(&candidates[..allowed], self.effort.jobs, &still_fails);
        self.runs += found.map_or(allowed, |place| place + 1);
        let place = found?;
        self.best = candidates[place].clone();
        (self.progress)(&self.best, self.runs);
        Some(place)
    }
}

fn with_other_seed(schedule: &Schedule, offset: u64) -> Schedule {
    Schedule {
        seed: schedule.seed.wrapping_add(offset),
        ..schedule.clone()
    }
}

/// The first one that fails, by their order. Begins none behind one that failed.
pub fn first_of(
    candidates: &[Schedule],
    jobs: usize,
    still_fails: &(impl Fn(&Schedule) -> bool + Sync),
) -> Option<usize> {
    let next = AtomicUsize::new(0);
    let first = Mutex::new(candidates.len());
    let lock = || first.lock().unwrap_or_else(PoisonError::into_inner);
    let work = || {
        loop {
            let place = next.fetch_add(1, Ordering::Relaxed);
            if place >= *lock() {
                return;
            }
            if still_fails(&candidates[place]) {
                let mut first = lock();
                *first = place.min(*first);
                return;
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..jobs.clamp(1, candidates.len().max(1)) {
            scope.spawn(work);
        }
    });
    let first = first.into_inner().unwrap_or_else(PoisonError::into_inner);
    (first < candidates.len()).then_some(first)
}
