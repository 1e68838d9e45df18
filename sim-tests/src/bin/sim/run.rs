//! `cargo sim run`: sweeps many seeds.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, IsTerminal as _, Write as _},
    num::NonZero,
    ops::Range,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use sider_sim_tests::{
    generate::generate,
    invariants::Violation,
    page::page,
    run::run_and_keep,
    sweep::{Orders, Sweep, sweep_by},
    timeline::timeline,
};

use crate::{
    print, replay,
    schedules::{jobs, parse_seeds, save},
};

/// Where failures go unless told otherwise.
const FAILURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/sim");
/// How often progress is shown, to a terminal and to a file.
const PROGRESS: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// Runs the schedules of many seeds, and saves what fails.
#[derive(Args)]
pub(crate) struct Arguments {
    /// From the first to before the last, as `0..2000`; or from the first on, as `5000..`; or only one: `3` is seed 3 alone,
    /// while `SIDER_SIM_SEEDS=3`, which the tests heed, is the first three.
    #[arg(long, value_parser = parse_seeds)]
    seeds: Option<Range<u64>>,
    /// Goes on for so many minutes.
    #[arg(long, value_parser = parse_minutes)]
    minutes: Option<Duration>,
    /// How many run side by side; as many as there are processors by default.
    #[arg(long, alias = "threads")]
    jobs: Option<NonZero<usize>>,
    /// Fail, too, if any situation of the table never occurred.
    #[arg(long)]
    nightly: bool,
    /// Failures after which it ends.
    #[arg(long, default_value_t = 20, conflicts_with = "go_on")]
    stop_after: u64,
    /// Goes on however many fail.
    #[arg(long)]
    go_on: bool,
    /// Where each failure is saved: its schedule, a report, its trace, and a page that shows it. `target/sim` by default.
    #[arg(long, value_name = "DIR")]
    save: Option<PathBuf>,
    /// Where the trace hash of every seed is written, one a line: equal files say that equal things happened.
    #[arg(long, value_name = "FILE")]
    hashes: Option<PathBuf>,
    /// `json` prints an object for each failure and one for the whole, one a line.
    #[arg(long, value_enum, default_value_t = Format::Words)]
    format: Format,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Words,
    Json,
}

impl Arguments {
    pub(crate) fn carry_out(self) -> Result<bool, String> {
        if let Some(file) = &self.hashes {
            must_be_writable(file)?;
        }
        let orderly = match self.minutes {
            Some(_) => 0..u64::MAX,
            None => 0..2_000,
        };
        let clock = clock();
        let progress = Progress::new(clock);
        let stop_after = if self.go_on { u64::MAX } else { self.stop_after };
        let directory = self.save.clone().unwrap_or_else(|| FAILURES.into());
        let problems = Mutex::new(Vec::new());
        let failed = |seed: u64, violations: &[Violation]| {
            let saved = save_failure(&directory, seed);
            progress.clear();
            self.tell_failure(seed, violations, &directory);
            if let Err(problem) = saved {
                problems
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(problem);
            }
        };
        let goes_on = |so_far: &Sweep| {
            progress.show(so_far);
            so_far.failed < stop_after && self.minutes.is_none_or(|limit| clock() < limit)
        };
        let done = sweep_by(&Orders {
            seeds: self.seeds.clone().unwrap_or(orderly),
            jobs: jobs(self.jobs),
            hashes: self.hashes.is_some(),
            failed: &failed,
            goes_on: &goes_on,
        });
        progress.clear();
        self.tell_all(&done, clock());
        if let Some(file) = &self.hashes {
            let line = |(seed, hash): &(u64, u64)| format!("{seed} {hash:016x}\n");
            let lines: String = done.hashes.iter().map(line).collect();
            fs::write(file, lines).map_err(|error| format!("{}: {error}", file.display()))?;
        }
        match problems
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner)
            .first()
        {
            Some(problem) => Err(format!("a failure could not be saved: {problem}")),
            None => Ok(done.failed == 0 && self.nothing_is_missing(&done)),
        }
    }

    /// Whether every situation occurred that must; asked of a nightly sweep alone.
    fn nothing_is_missing(&self, done: &Sweep) -> bool {
        let missing = if self.nightly {
            done.situations.missing(true)
        } else {
            vec![]
        };
        for situation in &missing {
            eprintln!("never seen: {situation}");
        }
        missing.is_empty()
    }

    fn tell_failure(&self, seed: u64, violations: &[Violation], directory: &Path) {
        let directory = failure_directory(directory, seed);
        match self.format {
            Format::Words => print(&format!(
                "{}\n  or look at {}\n",
                Sweep::describe(seed, violations),
                directory.join("page.html").display()
            )),
            Format::Json => {
                let violation = |it: &Violation| json!({ "invariant": it.invariant, "at_ns": it.at.0, "what": it.what, "operations": it.operations });
                let violations: Vec<_> = violations.iter().map(violation).collect();
                print(&format!(
                    "{}\n",
                    json!({ "seed": seed, "violations": violations, "saved": directory })
                ));
            }
        }
    }

    fn tell_all(&self, done: &Sweep, took: Duration) {
        let jobs = jobs(self.jobs);
        match self.format {
            Format::Words => print(&format!(
                "{}{} on {jobs} threads; {} operations, {} entries, {} faults\n",
                done.situations,
                summary(done, took),
                done.operations,
                done.entries,
                done.faults
            )),
            Format::Json => print(&format!("{}\n", as_json(done, jobs, took))),
        }
    }
}

/// What came of a sweep, for programs.
fn as_json(done: &Sweep, jobs: usize, took: Duration) -> Value {
    json!({
        "schedules": done.schedules, "failed": done.failed, "jobs": jobs,
        "took_s": took.as_secs_f64(), "simulated_s": done.simulated.as_secs_f64(),
        "operations": done.operations, "entries": done.entries, "faults": done.faults,
        "situations": done.situations.hits().collect::<BTreeMap<_, _>>(),
    })
}

/// Finds out before a sweep of hours whether a file can be written after it; what is in it stays.
fn must_be_writable(file: &Path) -> Result<(), String> {
    let opened = fs::OpenOptions::new().append(true).create(true).open(file);
    opened.map_err(|error| format!("{}: {error}", file.display()))?;
    Ok(())
}

fn summary(done: &Sweep, took: Duration) -> String {
    let took = took.as_secs_f64().max(0.001);
    let fail = if done.failed == 1 {
        "seed fails"
    } else {
        "seeds fail"
    };
    format!(
        "{} schedules in {took:.1} s: {:.1} schedules/s, {:.0} simulated seconds/s; {} {fail}{}",
        done.schedules,
        done.schedules as f64 / took,
        done.simulated.as_secs_f64() / took,
        done.failed,
        situations(done),
    )
}

/// What the progress line says of the situations that were seen.
fn situations(done: &Sweep) -> String {
    format!("; {} situations seen", done.situations.seen())
}

fn failure_directory(directory: &Path, seed: u64) -> PathBuf {
    directory.join(format!("seed-{seed}"))
}

/// Runs a seed once more, and keeps all that is needed to look at it.
fn save_failure(directory: &Path, seed: u64) -> Result<(), String> {
    let directory = failure_directory(directory, seed);
    fs::create_dir_all(&directory).map_err(|error| format!("{}: {error}", directory.display()))?;
    let write = |name: &str, text: &str| {
        let file = directory.join(name);
        fs::write(&file, text).map_err(|error| format!("{}: {error}", file.display()))
    };
    let schedule = generate(seed);
    let report = run_and_keep(&schedule, true);
    save(&schedule, &directory.join("schedule.json"))?;
    let told = timeline(&report.history, &report.violations, false);
    write(
        "report.txt",
        &format!("{schedule}\n\n{told}{}", replay::verdict(&report)),
    )?;
    write("trace.txt", &replay::trace(&report))?;
    write("page.html", &page(&format!("seed {seed}"), &report))
}

/// One line that is written over, or a line now and then where nobody watches.
struct Progress<C> {
    clock: C,
    terminal: bool,
    shown: Mutex<Duration>,
}

impl<C: Fn() -> Duration> Progress<C> {
    fn new(clock: C) -> Self {
        Progress {
            clock,
            terminal: io::stderr().is_terminal(),
            shown: Mutex::new(Duration::ZERO),
        }
    }

    fn show(&self, so_far: &Sweep) {
        let now = (self.clock)();
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let pause = if self.terminal { PROGRESS.0 } else { PROGRESS.1 };
        if now < *shown + pause {
            return;
        }
        *shown = now;
        let line = summary(so_far, now);
        // Nobody may be listening.
        let _ = if self.terminal {
            write!(io::stderr(), "\r\x1b[2K{line}")
        } else {
            writeln!(io::stderr(), "{line}")
        };
    }

    fn clear(&self) {
        if self.terminal {
            let _ = write!(io::stderr(), "\r\x1b[2K");
        }
    }
}

/// How much time has passed since now.
#[expect(
    clippy::disallowed_types,
    reason = "how long a sweep takes is no part of any run"
)]
fn clock() -> impl Fn() -> Duration + Copy + Sync {
    let began = std::time::Instant::now();
    move || began.elapsed()
}

fn parse_minutes(text: &str) -> Result<Duration, String> {
    let minutes: f64 = text.parse().map_err(|error| format!("{text:?}: {error}"))?;
    Duration::try_from_secs_f64(minutes * 60.0).map_err(|error| format!("{text:?}: {error}"))
}

#[cfg(test)]
mod tests {
    use sider_sim_tests::sometimes::TABLE;

    use super::*;

    #[test]
    fn every_situation_is_told_to_programs() {
        let told = as_json(&Sweep::default(), 1, Duration::ZERO);
        let situations = told["situations"].as_object().expect("hits by name");
        assert_eq!(situations.len(), TABLE.len());
        assert_eq!(situations[TABLE[0].name], 0);
    }

    #[test]
    fn a_file_that_cannot_be_written_is_noticed_and_any_other_stays() {
        let file = std::env::temp_dir().join(format!("sider-sim-hashes-{}", std::process::id()));
        let refused = must_be_writable(&file.join("hashes")).expect_err("there is no such directory");
        assert!(refused.contains("hashes"), "{refused}");
        fs::write(&file, "7 1\n").expect("it can be written");
        assert_eq!(must_be_writable(&file), Ok(()));
        assert_eq!(fs::read_to_string(&file).expect("it is there"), "7 1\n");
        fs::remove_file(&file).expect("it can be removed");
    }
}
