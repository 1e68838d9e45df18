//! `cargo sim`: sweeps seeds, replays one in plain words, prints, saves and shrinks its schedule.

use std::{fs, num::NonZero, path::PathBuf, process::ExitCode, thread};

use clap::{Parser, Subcommand};
use sider_sim_tests::{
    bugs,
    generate::generate,
    invariants::ALL,
    run::{Report, run_and_keep},
    schedule::Schedule,
    shrink::shrink,
    sweep::{Sweep, sweep},
    timeline::timeline,
};

/// Runs Sider's own server code under simulated failures.
#[derive(Parser)]
#[command(name = "sim", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs the schedules of many seeds.
    Run {
        /// From the first to before the last, as `0..2000`.
        #[arg(long, default_value = "0..2000", value_parser = parse_seeds)]
        seeds: std::ops::Range<u64>,
        /// How many run side by side; as many as there are processors by default.
        #[arg(long)]
        threads: Option<usize>,
        /// Failures after which it ends.
        #[arg(long, default_value_t = 20)]
        stop_after: usize,
    },
    /// Runs one schedule and prints its timeline in plain words; fails if an invariant is violated.
    Replay {
        /// A seed, or a file with a saved schedule.
        schedule: String,
        /// Also what every server appended and applied.
        #[arg(long)]
        all: bool,
        /// Also every event of the trace: messages, syncs, tasks.
        #[arg(long)]
        trace: bool,
    },
    /// Prints a seed's schedule.
    Show {
        /// A seed, or a file with a saved schedule.
        schedule: String,
    },
    /// Saves a seed's schedule, so that it can be run when seeds mean something else.
    Save {
        /// The seed.
        seed: u64,
        /// Where to.
        file: PathBuf,
    },
    /// Takes away what a failing schedule does not need to fail, and prints the rest.
    Shrink {
        /// A seed, or a file with a saved schedule.
        schedule: String,
        /// Runs that it may take.
        #[arg(long, default_value_t = 400)]
        runs: usize,
        /// Where to save it.
        #[arg(long)]
        save: Option<PathBuf>,
    },
    /// Plants bugs in a copy of the code, and sees that each is caught by the invariant that is meant to.
    Bugs(bugs::Arguments),
    /// Sweeps until one of these invariants fires; what `bugs` runs with a bug planted.
    #[command(hide = true)]
    Hunt(bugs::Hunt),
    /// Lists the invariants.
    Invariants,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse_from(std::env::args().map(gnu_style));
    match carry_out(arguments.command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(problem) => {
            eprintln!("sim: {problem}");
            ExitCode::from(2)
        }
    }
}

/// `-seeds 0..9` is as good as `--seeds 0..9`.
fn gnu_style(argument: String) -> String {
    let is_long = argument.len() > 2
        && argument.starts_with('-')
        && argument[1..].starts_with(|first: char| first.is_ascii_alphabetic());
    if is_long { format!("-{argument}") } else { argument }
}

/// Gives whether all is well.
fn carry_out(command: Command) -> Result<bool, String> {
    match command {
        Command::Run {
            seeds,
            threads,
            stop_after,
        } => Ok(sweep_and_tell(seeds, threads, stop_after)),
        Command::Replay { schedule, all, trace } => Ok(replay(&load(&schedule)?, all, trace)),
        Command::Show { schedule } => {
            println!("{}", load(&schedule)?);
            Ok(true)
        }
        Command::Save { seed, file } => {
            save(&generate(seed), &file)?;
            Ok(true)
        }
        Command::Shrink {
            schedule,
            runs,
            save: file,
        } => {
            let schedule = load(&schedule)?;
            let progress = |it: &Schedule| {
                eprintln!(
                    "  still fails with {} faults, {} operations",
                    it.faults.len(),
                    it.operations()
                );
            };
            let Some((small, runs)) = shrink(&schedule, runs, progress) else {
                return Err("this schedule does not fail".into());
            };
            println!("after {runs} runs:\n{small}");
            if let Some(file) = file {
                save(&small, &file)?;
            }
            Ok(true)
        }
        Command::Bugs(arguments) => bugs::carry_out(&arguments),
        Command::Hunt(hunt) => hunt.run().map(|()| true),
        Command::Invariants => {
            ALL.iter().for_each(|(name, _)| println!("{name}"));
            Ok(true)
        }
    }
}

fn sweep_and_tell(seeds: std::ops::Range<u64>, threads: Option<usize>, stop_after: usize) -> bool {
    let threads = threads.unwrap_or_else(|| thread::available_parallelism().map_or(1, NonZero::get));
    #[expect(
        clippy::disallowed_types,
        reason = "how long a sweep takes is no part of any run"
    )]
    let began = std::time::Instant::now();
    let done = sweep(seeds, threads, stop_after, |seed, violations| {
        println!("{}", Sweep::describe(seed, violations));
    });
    let took = began.elapsed().as_secs_f64();
    println!(
        "{} schedules in {took:.1} s on {threads} threads: {:.1} schedules/s, {:.0} simulated seconds/s; \
         {} operations, {} entries, {} faults; {} seeds fail",
        done.schedules,
        done.schedules as f64 / took,
        done.simulated.as_secs_f64() / took,
        done.operations,
        done.entries,
        done.faults,
        done.failures.len(),
    );
    done.failures.is_empty()
}

fn replay(schedule: &Schedule, all: bool, trace: bool) -> bool {
    let Report {
        history,
        violations,
        trace_hash,
        events,
        elapsed,
        lines,
    } = run_and_keep(schedule, trace);
    for line in lines {
        println!(
            "{:>12?} {} {}: {}",
            line.at,
            line.host.map_or("-".into(), |it| it.to_string()),
            line.kind,
            line.text
        );
    }
    print!("{}", timeline(&history, &violations, all));
    println!("trace hash {trace_hash:016x}, {events} events, {elapsed:?} simulated");
    for violation in &violations {
        println!("VIOLATED: {violation}");
    }
    if violations.is_empty() {
        println!("all invariants hold");
    }
    violations.is_empty()
}

/// A seed's schedule, or one that was saved.
fn load(schedule: &str) -> Result<Schedule, String> {
    if let Ok(seed) = schedule.parse() {
        return Ok(generate(seed));
    }
    let text = fs::read_to_string(schedule).map_err(|error| format!("{schedule}: {error}"))?;
    serde_json::from_str(&text).map_err(|error| format!("{schedule} is no schedule: {error}"))
}

fn save(schedule: &Schedule, file: &PathBuf) -> Result<(), String> {
    let text = serde_json::to_string_pretty(schedule).map_err(|error| error.to_string())?;
    fs::write(file, text + "\n").map_err(|error| format!("{}: {error}", file.display()))
}

fn parse_seeds(text: &str) -> Result<std::ops::Range<u64>, String> {
    let parse = |text: &str| text.parse::<u64>().map_err(|error| format!("{text:?}: {error}"));
    match text.split_once("..") {
        Some((from, to)) => Ok(parse(from)?..parse(to)?),
        None => parse(text).map(|seed| seed..seed + 1),
    }
}
