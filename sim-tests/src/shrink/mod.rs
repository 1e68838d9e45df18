//! Makes a failing schedule small: takes away what it does not need to fail in the same way, until nothing more can go.
//!
//! Large parts first, then smaller ones ("delta debugging"), then what is left is made simpler: a plainer cluster, shorter
//! faults, less time between events, requests with less in them. Since all chance of a run comes from one stream, taking
//! one thing away changes the rest of it: where a part can't go, it is tried again with other seeds.
//!
//! Candidates run side by side, and the first one in their order that still fails is taken: the result does not depend on
//! how many run at once, nor on which of them is ready first.

pub mod candidates;
pub mod kind;
pub mod search;

use self::{kind::Kind, search::Search};
use crate::{invariants::Violation, run::run, schedule::Schedule};

/// How much may be done.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Runs that count for the result.
    pub runs_max: usize,
    /// Runs at once.
    pub jobs: usize,
}

/// What is left of a schedule.
#[derive(Clone, Debug)]
pub struct Shrunk {
    /// The smallest schedule that was found.
    pub schedule: Schedule,
    /// How many runs it took.
    pub runs: usize,
    /// What is left of the violation that it was all about, if it was about one.
    pub violation: Option<Violation>,
}

/// The smallest schedule that was found in which this violation, which `schedule` has, stays.
pub fn shrink_to(
    schedule: &Schedule,
    violation: &Violation,
    effort: Effort,
    progress: impl FnMut(&Schedule, usize),
) -> Shrunk {
    let kind = Kind::of(violation, schedule, &run(schedule).history);
    let still_fails = |candidate: &Schedule| kind.shown_by(&run(candidate)).is_some();
    // What comes after the violation can't have caused it; every run is shorter without it.
    let cut = candidates::ends_at(schedule, violation.at);
    let schedule = if still_fails(&cut) { &cut } else { schedule };
    let shrunk = shrink_while(schedule, effort, still_fails, progress);
    let shown = kind.shown_by(&run(&shrunk.schedule)).cloned();
    Shrunk {
        violation: shown,
        ..shrunk
    }
}

/// The same for any way of failing.
pub fn shrink_while(
    schedule: &Schedule,
    effort: Effort,
    still_fails: impl Fn(&Schedule) -> bool + Sync,
    progress: impl FnMut(&Schedule, usize),
) -> Shrunk {
    let mut search = Search::new(schedule, effort, still_fails, progress);
    loop {
        search.take_parts_away();
        search.simplify();
        if !search.take_events_away_with_other_seeds() {
            return search.end();
        }
    }
}

/// How many things happen in it: faults, operations, and an agent.
pub fn events(schedule: &Schedule) -> usize {
    schedule.faults.len() + schedule.operations() + schedule.agents().count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        generate::generate,
        operation::Op,
        schedule::{Doing, Trouble},
    };

    const EFFORT: Effort = Effort {
        runs_max: 10_000,
        jobs: 1,
    };

    fn pauses(schedule: &Schedule) -> usize {
        let pauses = |what: &Trouble| matches!(what, Trouble::Pause(_));
        schedule.faults.iter().filter(|fault| pauses(&fault.what)).count()
    }

    fn reads(schedule: &Schedule) -> usize {
        let ops = schedule.actions.iter().flat_map(|action| match &action.what {
            Doing::Chain(ops) => ops.as_slice(),
            Doing::Follow { .. } | Doing::Stream { .. } => &[],
        });
        ops.filter(|(_, op)| matches!(op, Op::Read { .. })).count()
    }

    fn busy() -> Schedule {
        let schedule = (0..)
            .map(generate)
            .find(|it| pauses(it) > 1 && it.faults.len() > 3 && reads(it) > 5);
        schedule.expect("some seed pauses twice")
    }

    #[test]
    fn what_matters_stays_and_the_rest_goes() {
        let shrunk = shrink_while(&busy(), EFFORT, |it| pauses(it) >= 1 && reads(it) >= 2, |_, _| {});
        let small = &shrunk.schedule;
        assert_eq!((pauses(small), reads(small), events(small)), (1, 2, 3));
        assert_eq!(small.agent, None);
        assert_eq!(small.cluster.servers, 1, "no more is needed");
        assert!(small.faults[0].for_ms <= 1, "{}", small.faults[0].for_ms);
        assert!(small.end_ms < 1_000, "time goes, too: {}", small.end_ms);
        assert!(shrunk.runs < 2_000, "{} runs", shrunk.runs);
    }

    #[test]
    fn the_result_is_the_same_however_many_run_at_once() {
        let fails = |it: &Schedule| pauses(it) >= 1 && reads(it) >= 3 && it.operations() % 2 == 1;
        let effort = |jobs| Effort { jobs, ..EFFORT };
        let one = shrink_while(&busy(), effort(1), fails, |_, _| {});
        let four = shrink_while(&busy(), effort(4), fails, |_, _| {});
        assert_eq!((one.schedule, one.runs), (four.schedule, four.runs));
    }

    #[test]
    fn it_ends_when_it_is_told_to() {
        let effort = Effort {
            runs_max: 25,
            jobs: 2,
        };
        let shrunk = shrink_while(&generate(1), effort, |_| false, |_, _| {});
        assert_eq!((shrunk.runs, shrunk.schedule), (25, generate(1)));
    }

    #[test]
    fn another_seed_may_do_with_less() {
        let needs_luck = |it: &Schedule| pauses(it) >= 2 || (pauses(it) == 1 && it.seed % 4 == 3);
        let shrunk = shrink_while(&busy(), EFFORT, needs_luck, |_, _| {});
        assert_eq!(events(&shrunk.schedule), 1);
    }
}
