//! `cargo sim replay`: one schedule, in plain words.

use clap::Args;
use sider_sim_tests::{
    run::{Report, run_and_keep},
    timeline::timeline,
};

use crate::schedules::load;

/// Runs one schedule and prints its timeline in plain words; fails if an invariant is violated.
#[derive(Args)]
pub(crate) struct Arguments {
    /// A seed, or a file with a saved schedule.
    schedule: String,
    /// Also what every server appended and applied.
    #[arg(long)]
    all: bool,
    /// Also every event of the trace: messages, syncs, tasks.
    #[arg(long)]
    trace: bool,
}

impl Arguments {
    pub(crate) fn carry_out(self) -> Result<bool, String> {
        let Report {
            history,
            violations,
            trace_hash,
            events,
            elapsed,
            lines,
            ..
        } = run_and_keep(&load(&self.schedule)?, self.trace);
        for line in lines {
            println!(
                "{:>12?} {} {}: {}",
                line.at,
                line.host.map_or("-".into(), |it| it.to_string()),
                line.kind,
                line.text
            );
        }
        print!("{}", timeline(&history, &violations, self.all));
        println!("trace hash {trace_hash:016x}, {events} events, {elapsed:?} simulated");
        for violation in &violations {
            println!("VIOLATED: {violation}");
        }
        if violations.is_empty() {
            println!("all invariants hold");
        }
        Ok(violations.is_empty())
    }
}
