//! `cargo sim shrink`: what of a failing schedule is needed to fail.

use std::path::PathBuf;

use clap::Args;
use sider_sim_tests::{schedule::Schedule, shrink::shrink};

use crate::schedules::{load, save};

/// Takes away what a failing schedule does not need to fail, and prints the rest.
#[derive(Args)]
pub(crate) struct Arguments {
    /// A seed, or a file with a saved schedule.
    schedule: String,
    /// Runs that it may take.
    #[arg(long, default_value_t = 400)]
    runs: usize,
    /// Where to save it.
    #[arg(long)]
    save: Option<PathBuf>,
}

impl Arguments {
    pub(crate) fn carry_out(self) -> Result<bool, String> {
        let schedule = load(&self.schedule)?;
        let progress = |it: &Schedule| {
            eprintln!(
                "  still fails with {} faults, {} operations",
                it.faults.len(),
                it.operations()
            );
        };
        let Some((small, runs)) = shrink(&schedule, self.runs, progress) else {
            return Err("this schedule does not fail".into());
        };
        println!("after {runs} runs:\n{small}");
        if let Some(file) = self.save {
            save(&small, &file)?;
        }
        Ok(true)
    }
}
