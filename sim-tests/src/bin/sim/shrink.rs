//! `cargo sim shrink`: what of a failing schedule is needed to fail.

use std::{num::NonZero, path::PathBuf};

use clap::Args;
use sider_sim_tests::{
    run::run,
    schedule::Schedule,
    shrink::{Effort, events, shrink_to},
};

use crate::{
    choice::Choice,
    print,
    schedules::{jobs, load, save},
};

/// Takes away what a failing schedule does not need to fail in the same way, and prints the rest.
#[derive(Args)]
pub(crate) struct Arguments {
    /// A seed, or a file with a saved schedule.
    schedule: String,
    #[command(flatten)]
    choice: Choice,
    /// Runs that it may take.
    #[arg(long, default_value_t = 4_000)]
    runs: usize,
    /// Runs side by side; as many as there are processors by default. The result does not depend on it.
    #[arg(long)]
    jobs: Option<NonZero<usize>>,
    /// Where to save it: in `sim-tests/regressions/`, under the name of its cause, it becomes a test.
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
}

impl Arguments {
    pub(crate) fn carry_out(self) -> Result<bool, String> {
        let schedule = load(&self.schedule)?;
        let report = run(&schedule);
        let (violation, choice) = self.choice.of(&report.violations)?;
        print(&choice);
        let effort = Effort {
            runs_max: self.runs,
            jobs: jobs(self.jobs),
        };
        let mut before = usize::MAX;
        let progress = |it: &Schedule, runs: usize| {
            if events(it) < before {
                before = events(it);
                eprintln!(
                    "  after {runs} runs: {} faults, {} operations",
                    it.faults.len(),
                    it.operations()
                );
            }
        };
        let small = shrink_to(&schedule, violation, effort, progress);
        let violation = small.violation.as_ref().unwrap_or(violation);
        print(&format!(
            "{}\n{} of {} events are left, after {} runs\nVIOLATED: {violation}\n",
            small.schedule,
            events(&small.schedule),
            events(&schedule),
            small.runs
        ));
        if let Some(file) = self.save {
            save(&small.schedule, &file)?;
        }
        Ok(true)
    }
}
