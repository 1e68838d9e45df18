//! `cargo sim diff`: where two runs part.

use std::num::NonZero;

use clap::Args;
use sider_sim_tests::{
    diff::{Side, compare, same},
    run::{Report, run_and_keep},
    schedule::Schedule,
    shrink::{candidates::put_off_one_event, same_kind, search::first_of},
};

use crate::{
    print,
    schedules::{jobs, load},
};

/// Shows where two runs part, and what each did then. With one schedule: two runs of it, which must be the same; and if it
/// fails, it against itself with one fault or operation less, so that it passes.
#[derive(Args)]
pub(crate) struct Arguments {
    /// A seed, or a file with a saved schedule.
    schedule: String,
    /// Another one to compare it with.
    other: Option<String>,
    /// Runs side by side in the search for a schedule that passes.
    #[arg(long)]
    jobs: Option<NonZero<usize>>,
}

impl Arguments {
    pub(crate) fn carry_out(self) -> Result<bool, String> {
        let schedule = load(&self.schedule)?;
        let report = run_and_keep(&schedule, true);
        if let Some(other) = &self.other {
            let against = run_and_keep(&load(other)?, true);
            tell((&self.schedule, &report), (other, &against));
            return Ok(true);
        }
        let again = run_and_keep(&schedule, true);
        if !same(&report, &again) {
            tell(("the first run", &report), ("the second run", &again));
            return Ok(false);
        }
        print("Two runs of it are the same.\n");
        if report.violations.is_empty() {
            print("It passes: there is nothing to compare it with. Name another schedule for that.\n");
            return Ok(true);
        }
        let Some((less, what)) = passing(&schedule, &report, jobs(self.jobs)) else {
            print("It fails whatever single fault or operation is left out.\n");
            return Ok(true);
        };
        print(&format!("It passes without this:\n{what}\n"));
        tell(("as it is", &report), ("without it", &run_and_keep(&less, true)));
        Ok(true)
    }
}

fn tell(one: (&str, &Report), other: (&str, &Report)) {
    let side = |(name, report)| Side { name, report };
    print(&compare(side(one), side(other)));
}

/// The schedule with one event less that does not fail so, and that event.
fn passing(schedule: &Schedule, report: &Report, jobs: usize) -> Option<(Schedule, String)> {
    let violation = report.violations.first()?;
    let candidates = put_off_one_event(schedule);
    let passes = |candidate: &Schedule| {
        let violations = run_and_keep(candidate, false).violations;
        !violations.iter().any(|it| same_kind(it, violation))
    };
    let less = &candidates[first_of(&candidates, jobs, &passes)?];
    let before = schedule.to_string();
    let after: Vec<String> = less.to_string().lines().map(str::to_owned).collect();
    let gone = before
        .lines()
        .filter(|line| !line.ends_with("):") && !after.iter().any(|it| it == line));
    Some((less.clone(), gone.collect::<Vec<_>>().join("\n")))
}
