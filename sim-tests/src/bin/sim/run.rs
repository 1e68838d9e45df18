//! `cargo sim run`: sweeps many seeds.

use std::ops::Range;

use clap::Args;
use sider_sim_tests::sweep::{Sweep, sweep};

use crate::schedules::{jobs, parse_seeds};

/// Runs the schedules of many seeds.
#[derive(Args)]
pub(crate) struct Arguments {
    /// From the first to before the last, as `0..2000`.
    #[arg(long, default_value = "0..2000", value_parser = parse_seeds)]
    seeds: Range<u64>,
    /// How many run side by side; as many as there are processors by default.
    #[arg(long, alias = "threads")]
    jobs: Option<usize>,
    /// Fail, too, if any situation of the table never occurred.
    #[arg(long)]
    nightly: bool,
    /// Failures after which it ends.
    #[arg(long, default_value_t = 20)]
    stop_after: usize,
}

impl Arguments {
    pub(crate) fn carry_out(self) -> Result<bool, String> {
        let jobs = jobs(self.jobs);
        #[expect(
            clippy::disallowed_types,
            reason = "how long a sweep takes is no part of any run"
        )]
        let began = std::time::Instant::now();
        let done = sweep(self.seeds, jobs, self.stop_after, |seed, violations| {
            println!("{}", Sweep::describe(seed, violations));
        });
        let took = began.elapsed().as_secs_f64();
        print!("{}", done.situations);
        println!(
            "{} schedules in {took:.1} s on {jobs} threads: {:.1} schedules/s, {:.0} simulated seconds/s; \
             {} operations, {} entries, {} faults; {} seeds fail",
            done.schedules,
            done.schedules as f64 / took,
            done.simulated.as_secs_f64() / took,
            done.operations,
            done.entries,
            done.faults,
            done.failures.len(),
        );
        let missing = if self.nightly {
            done.situations.missing(true)
        } else {
            vec![]
        };
        for situation in &missing {
            println!("never seen: {situation}");
        }
        Ok(done.failures.is_empty() && missing.is_empty())
    }
}
