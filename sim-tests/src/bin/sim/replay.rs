//! `cargo sim replay`: one schedule, in plain words or as a picture.

use std::{fmt::Write as _, fs, path::PathBuf};

use clap::Args;
use sider_sim_tests::{
    page::page,
    run::{Report, run_and_keep},
    timeline::timeline,
    words,
};

use crate::{print, schedules::load};

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
    /// Writes a page that shows it all in a browser, instead of the timeline.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

impl Arguments {
    pub(crate) fn carry_out(self) -> Result<bool, String> {
        let keep = self.trace || self.html.is_some();
        let report = run_and_keep(&load(&self.schedule)?, keep);
        let mut text = String::new();
        if self.trace {
            text += &trace(&report);
        }
        match &self.html {
            None => text += &timeline(&report.history, &report.violations, self.all),
            Some(file) => {
                let title = match self.schedule.parse::<u64>() {
                    Ok(seed) => format!("seed {seed}"),
                    Err(_) => self.schedule.clone(),
                };
                fs::write(file, page(&title, &report))
                    .map_err(|error| format!("{}: {error}", file.display()))?;
                text += &format!("{} shows it in a browser\n", file.display());
            }
        }
        print(&(text + &verdict(&report)));
        Ok(report.violations.is_empty())
    }
}

/// How it ended.
pub(crate) fn verdict(report: &Report) -> String {
    let mut text = format!(
        "trace hash {:016x}, {} events, {} simulated\n",
        report.trace_hash,
        report.events,
        words::span(report.elapsed)
    );
    for violation in &report.violations {
        writeln!(text, "VIOLATED: {violation}").expect("writing to a String can't fail");
    }
    if report.violations.is_empty() {
        text += "all invariants hold\n";
    }
    text
}

/// Every event of the trace.
pub(crate) fn trace(report: &Report) -> String {
    report.lines.iter().fold(String::new(), |mut text, line| {
        writeln!(text, "{}", words::traced(line, &report.hosts)).expect("writing to a String can't fail");
        text
    })
}
