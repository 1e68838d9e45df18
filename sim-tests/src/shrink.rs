//! Makes a failing schedule small: takes faults and operations away as long as the same invariant is violated.

use crate::{
    run::run,
    schedule::{Doing, Schedule},
};

/// The smallest schedule that was found within so many runs, and how many of them it took. `None` if it does not fail.
pub fn shrink(
    schedule: &Schedule,
    runs_max: usize,
    progress: impl Fn(&Schedule),
) -> Option<(Schedule, usize)> {
    let invariant = run(schedule).violations.first()?.invariant;
    let still_fails = |candidate: &Schedule| {
        run(candidate)
            .violations
            .iter()
            .any(|violation| violation.invariant == invariant)
    };
    Some(shrink_while(schedule, runs_max, still_fails, progress))
}

/// The same for any way of failing.
pub fn shrink_while(
    schedule: &Schedule,
    runs_max: usize,
    still_fails: impl Fn(&Schedule) -> bool,
    progress: impl Fn(&Schedule),
) -> (Schedule, usize) {
    let mut best = schedule.clone();
    let mut runs = 0;
    for without in [
        Schedule {
            agent: None,
            ..best.clone()
        },
        Schedule {
            other_agent: None,
            ..best.clone()
        },
        Schedule {
            agent: None,
            other_agent: None,
            ..best.clone()
        },
    ] {
        if without.agents().count() < best.agents().count() {
            runs += 1;
            if still_fails(&without) {
                best = without;
            }
        }
    }
    let mut chunk = best.faults.len().max(best.actions.len()).max(1);
    // Large parts first, then smaller ones; when single parts can't go, nothing more can.
    loop {
        let mut shrunk = false;
        for without in [without_faults, without_actions] {
            let mut start = 0;
            while runs < runs_max
                && let Some(candidate) = without(&best, start, chunk)
            {
                runs += 1;
                if still_fails(&candidate) {
                    best = candidate;
                    shrunk = true;
                    progress(&best);
                } else {
                    start += chunk;
                }
            }
        }
        if runs >= runs_max || (chunk == 1 && !shrunk) {
            return (best, runs);
        }
        if !shrunk || chunk > 1 {
            chunk = (chunk / 2).max(1);
        }
    }
}

fn without_faults(schedule: &Schedule, start: usize, count: usize) -> Option<Schedule> {
    let mut candidate = schedule.clone();
    let end = (start + count).min(candidate.faults.len());
    (start < end).then(|| {
        candidate.faults.drain(start..end);
        candidate
    })
}

/// Takes operations out of chains; a chain that is left empty goes.
fn without_actions(schedule: &Schedule, start: usize, count: usize) -> Option<Schedule> {
    let mut candidate = schedule.clone();
    let mut place = 0;
    let mut gone = false;
    for action in &mut candidate.actions {
        match &mut action.what {
            Doing::Chain(ops) => ops.retain(|_| {
                let goes = (start..start + count).contains(&place);
                place += 1;
                gone |= goes;
                !goes
            }),
            Doing::Follow { until_ms, .. } => {
                if (start..start + count).contains(&place) {
                    *until_ms = 0;
                    gone = true;
                }
                place += 1;
            }
        }
    }
    candidate.actions.retain(|action| match &action.what {
        Doing::Chain(ops) => !ops.is_empty(),
        Doing::Follow { until_ms, .. } => *until_ms > 0,
    });
    gone.then_some(candidate)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{generate::generate, operation::Op, schedule::Trouble};

    #[test]
    fn what_matters_stays_and_the_rest_goes() {
        let pauses = |it: &Schedule| {
            it.faults
                .iter()
                .filter(|fault| matches!(fault.what, Trouble::Pause(_)))
                .count()
        };
        let reads = |it: &Schedule| {
            let ops = it.actions.iter().flat_map(|action| match &action.what {
                Doing::Chain(ops) => ops.as_slice(),
                Doing::Follow { .. } => &[],
            });
            ops.filter(|(_, op)| matches!(op, Op::Read { .. })).count()
        };
        let schedule = (0..)
            .map(generate)
            .find(|it| pauses(it) > 1 && it.faults.len() > 3);
        let schedule = schedule.expect("some seed pauses twice");
        let (small, runs) = shrink_while(&schedule, 10_000, |it| pauses(it) >= 1 && reads(it) >= 2, |_| {});
        assert_eq!((small.faults.len(), small.operations()), (1, 2));
        assert_eq!(small.agent, None);
        assert_eq!((pauses(&small), reads(&small)), (1, 2));
        assert!(runs < 2_000, "{runs} runs");
    }

    #[test]
    fn it_ends_when_it_is_told_to() {
        let (_, runs) = shrink_while(&generate(1), 25, |_| false, |_| {});
        assert_eq!(runs, 25);
    }
}
