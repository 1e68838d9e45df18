//! `cargo sim diff`: where two runs part.

use std::num::NonZero;

use clap::Args;
use sider_sim_tests::{
    diff::{Side, compare, same},
    run::{Report, run, run_and_keep},
    schedule::Schedule,
    shrink::{candidates::put_off_one_event, kind::Kind, search::first_of},
};

use crate::{
    choice::Choice,
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
    #[arg(conflicts_with = "invariant")]
    other: Option<String>,
    #[command(flatten)]
    choice: Choice,
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
        if report.violations.is_empty() && self.choice.invariant.is_none() {
            print("It passes: there is nothing to compare it with. Name another schedule for that.\n");
            return Ok(true);
        }
        let (violation, choice) = self.choice.of(&report.violations)?;
        print(&choice);
        let kind = Kind::of(violation, &schedule, &report.history);
        let Some((less, what)) = passing(&schedule, &kind, jobs(self.jobs)) else {
            print("It fails so whatever single fault or operation is left out.\n");
            return Ok(true);
        };
        print(&format!("It does not fail so without this:\n{what}\n"));
        tell(("as it is", &report), ("without it", &run_and_keep(&less, true)));
        Ok(true)
    }
}

fn tell(one: (&str, &Report), other: (&str, &Report)) {
    let side = |(name, report)| Side { name, report };
    print(&compare(side(one), side(other)));
}

/// The schedule with one event less that does not fail so, and that event.
fn passing(schedule: &Schedule, kind: &Kind, jobs: usize) -> Option<(Schedule, String)> {
    let candidates = put_off_one_event(schedule);
    let passes = |candidate: &Schedule| kind.shown_by(&run(candidate)).is_none();
    let less = &candidates[first_of(&candidates, jobs, &passes)?];
    let before = schedule.to_string();
    let after: Vec<String> = less.to_string().lines().map(str::to_owned).collect();
    let gone = before
        .lines()
        .filter(|line| !line.ends_with("):") && !after.iter().any(|it| it == line));
    Some((less.clone(), gone.collect::<Vec<_>>().join("\n")))
}
