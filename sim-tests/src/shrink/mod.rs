//! Makes a failing schedule small: takes away what it does not need to fail in the same way, until nothing more can go.
//!
//! Large parts first, then smaller ones ("delta debugging"), then what is left is made simpler: a plainer cluster, shorter
//! faults, less time between events, requests with less in them. Since all chance of a run comes from one stream, taking
//! one thing away changes the rest of it: where a part can't go, it is tried again with other seeds.
//!
//! Candidates run side by side, and the first one in their order that still fails is taken: the result does not depend on
//! how many run at once, nor on which of them is ready first.

pub mod candidates;
pub mod search;

use std::collections::BTreeSet;

use self::search::Search;
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
}

/// The smallest schedule that was found, and the violation that all of it was about. `None` if it does not fail.
pub fn shrink(
    schedule: &Schedule,
    effort: Effort,
    progress: impl FnMut(&Schedule, usize),
) -> Option<(Shrunk, Violation)> {
    let violation = run(schedule).violations.into_iter().next()?;
    let shrunk = shrink_to(schedule, &violation, effort, progress);
    let last = run(&shrunk.schedule).violations;
    let shown = last.into_iter().find(|it| same_kind(it, &violation));
    Some((shrunk, shown.unwrap_or(violation)))
}

/// The smallest schedule that was found in which this violation, which `schedule` has, stays.
pub fn shrink_to(
    schedule: &Schedule,
    violation: &Violation,
    effort: Effort,
    progress: impl FnMut(&Schedule, usize),
) -> Shrunk {
    let still_fails = |candidate: &Schedule| {
        let violations = run(candidate).violations;
        violations.iter().any(|it| same_kind(it, violation))
    };
    // What comes after the violation can't have caused it; every run is shorter without it.
    let cut = candidates::ends_at(schedule, violation.at);
    let schedule = if still_fails(&cut) { &cut } else { schedule };
    shrink_while(schedule, effort, still_fails, progress)
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

/// Whether two violations are of one invariant, and say the same of other things: most of their words that are no names
/// or numbers are the same.
pub fn same_kind(one: &Violation, other: &Violation) -> bool {
    if one.invariant != other.invariant {
        return false;
    }
    let (one, other) = (words(&one.what), words(&other.what));
    let both = one.intersection(&other).count();
    2 * both >= one.len().max(other.len())
}

fn words(text: &str) -> BTreeSet<&str> {
    text.split(|it: char| it.is_whitespace() || ",;:()“”\"".contains(it))
        .filter(|word| !word.is_empty() && !word.contains(|it: char| it.is_ascii_digit() || it == '#'))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        generate::generate,
        operation::Op,
        schedule::{Doing, Trouble},
        time::Time,
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

    #[test]
    fn kinds_of_violations_are_told_apart_by_what_they_say_not_of_whom() {
        let violation = |what: &str| Violation::new("watches", Time(0), what);
        let late = violation("#7 of c1 at s2 is not woken in 120 ms, though entry 9 shows it web-1");
        let other_late = violation("#23 of c0 at s0 is not woken in 310 ms, though entry 41 shows it db-2");
        let idle = violation("#7 of c1 is answered with what was there before, by entry 9");
        assert!(same_kind(&late, &other_late));
        assert!(!same_kind(&late, &idle));
        let elsewhere = Violation {
            invariant: "ttl",
            ..late.clone()
        };
        assert!(!same_kind(&late, &elsewhere));
    }
}
