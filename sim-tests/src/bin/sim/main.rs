//! `cargo sim`: sweeps seeds, and leads from one that fails to the cause.
//!
//! One module for each subcommand: its arguments, and what it does with them. The library does the work.

mod choice;
mod diff;
mod lease_map;
mod replay;
mod run;
mod schedules;
mod shrink;
mod torture;

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use clap::{Parser, Subcommand};
use sider_sim_tests::{bugs, invariants::ALL};

/// Runs Sider's own server code under simulated failures.
#[derive(Parser)]
#[command(name = "sim", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Run(run::Arguments),
    Replay(replay::Arguments),
    Shrink(shrink::Arguments),
    Diff(diff::Arguments),
    LeaseMap(lease_map::Arguments),
    Show(schedules::Show),
    Save(schedules::Save),
    Torture(torture::Arguments),
    Bugs(bugs::Arguments),
    #[command(hide = true)]
    Hunt(bugs::Hunt),
    /// Lists the invariants.
    Invariants,
}

impl Command {
    /// Gives whether all is well.
    fn carry_out(self) -> Result<bool, String> {
        match self {
            Command::Run(arguments) => arguments.carry_out(),
            Command::Replay(arguments) => arguments.carry_out(),
            Command::Shrink(arguments) => arguments.carry_out(),
            Command::Diff(arguments) => arguments.carry_out(),
            Command::LeaseMap(arguments) => arguments.carry_out(),
            Command::Show(arguments) => arguments.carry_out(),
            Command::Save(arguments) => arguments.carry_out(),
            Command::Torture(arguments) => arguments.carry_out(),
            Command::Bugs(arguments) => arguments.carry_out(),
            Command::Hunt(hunt) => hunt.carry_out(),
            Command::Invariants => {
                ALL.iter().for_each(|(name, _)| println!("{name}"));
                Ok(true)
            }
        }
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse_from(std::env::args().map(gnu_style));
    match arguments.command.carry_out() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(problem) => {
            eprintln!("sim: {problem}");
            ExitCode::from(2)
        }
    }
}

/// Prints; whoever reads may stop reading.
fn print(text: &str) {
    if let Err(error) = io::stdout().write_all(text.as_bytes())
        && error.kind() != io::ErrorKind::BrokenPipe
    {
        eprintln!("sim: {error}");
    }
}

/// `-seeds 0..9` is as good as `--seeds 0..9`.
fn gnu_style(argument: String) -> String {
    let is_long = argument.len() > 2
        && argument.starts_with('-')
        && argument[1..].starts_with(|first: char| first.is_ascii_alphabetic());
    if is_long { format!("-{argument}") } else { argument }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_to_do_is_no_success() {
        for words in [
            "run --seeds 5..5",
            "run --seeds 10..5",
            "run --jobs 0",
            "shrink 7 --jobs 0",
            "diff 7 --jobs 0",
            "lease-map --jobs 0",
            "lease-map --runs 0",
            "bugs --jobs 0",
            "bugs --seeds 0",
            "bugs --starts 0",
            "torture --runs 0",
        ] {
            let parsed = Arguments::try_parse_from(["sim"].into_iter().chain(words.split(' ')));
            assert!(parsed.is_err(), "{words}");
        }
        for words in [
            "run --seeds 5..6 --jobs 1",
            "lease-map --runs 1",
            "diff 7 8",
            "torture --runs 1",
        ] {
            let parsed = Arguments::try_parse_from(["sim"].into_iter().chain(words.split(' ')));
            assert!(parsed.is_ok(), "{words}");
        }
    }
}
