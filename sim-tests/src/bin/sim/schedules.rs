//! `cargo sim show` and `cargo sim save`; and how all subcommands read and write schedules and seeds.

use std::{
    fs,
    num::NonZero,
    ops::Range,
    path::{Path, PathBuf},
    thread,
};

use clap::Args;
use sider_sim_tests::{generate::generate, schedule::Schedule};

/// Prints a schedule.
#[derive(Args)]
pub(crate) struct Show {
    /// A seed, or a file with a saved schedule.
    schedule: String,
}

impl Show {
    pub(crate) fn carry_out(self) -> Result<bool, String> {
        println!("{}", load(&self.schedule)?);
        Ok(true)
    }
}

/// Saves a seed's schedule, so that it can be run when seeds mean something else.
#[derive(Args)]
pub(crate) struct Save {
    /// The seed.
    seed: u64,
    /// Where to.
    file: PathBuf,
}

impl Save {
    pub(crate) fn carry_out(self) -> Result<bool, String> {
        save(&generate(self.seed), &self.file)?;
        Ok(true)
    }
}

/// A seed's schedule, or one that was saved.
pub(crate) fn load(schedule: &str) -> Result<Schedule, String> {
    if let Ok(seed) = schedule.parse() {
        return Ok(generate(seed));
    }
    let text = fs::read_to_string(schedule).map_err(|error| format!("{schedule}: {error}"))?;
    Schedule::parse(&text).map_err(|error| format!("{schedule} is no schedule: {error}"))
}

pub(crate) fn save(schedule: &Schedule, file: &Path) -> Result<(), String> {
    let text = serde_json::to_string_pretty(schedule).map_err(|error| error.to_string())?;
    fs::write(file, text + "\n").map_err(|error| format!("{}: {error}", file.display()))
}

/// `7` is one seed, `0..2000` are from the first to before the last, `5000..` from the first on. No seeds are an error: a
/// sweep of none would find nothing.
pub(crate) fn parse_seeds(text: &str) -> Result<Range<u64>, String> {
    let parse = |text: &str| text.parse::<u64>().map_err(|error| format!("{text:?}: {error}"));
    let seeds = match text.split_once("..") {
        Some((from, "")) => parse(from)?..u64::MAX,
        Some((from, to)) => parse(from)?..parse(to)?,
        None => parse(text).map(|seed| seed..seed.saturating_add(1))?,
    };
    if seeds.is_empty() {
        return Err(format!("there are no seeds in {text}"));
    }
    Ok(seeds)
}

/// As many threads as asked for, or as there are processors.
pub(crate) fn jobs(asked: Option<NonZero<usize>>) -> usize {
    let all = || thread::available_parallelism().map_or(1, NonZero::get);
    asked.map_or_else(all, NonZero::get)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_one_or_a_range() {
        assert_eq!(parse_seeds("7"), Ok(7..8));
        assert_eq!(parse_seeds("10..20"), Ok(10..20));
        assert_eq!(parse_seeds("5000.."), Ok(5_000..u64::MAX));
        assert!(parse_seeds("many").is_err());
        for none in ["5..5", "10..5", "18446744073709551615.."] {
            assert_eq!(parse_seeds(none), Err(format!("there are no seeds in {none}")));
        }
    }

    #[test]
    fn a_saved_schedule_is_read_only_if_it_makes_sense() {
        let file = std::env::temp_dir().join(format!("sider-sim-{}.json", std::process::id()));
        let name = file.to_str().expect("its name is text");
        let mut schedule = generate(7);
        save(&schedule, &file).expect("it can be written");
        assert_eq!(load(name), Ok(schedule.clone()));
        schedule.heal_ms = schedule.end_ms + 1;
        save(&schedule, &file).expect("it can be written");
        let refused = load(name).expect_err("it is healed after its end");
        assert!(refused.contains("is no schedule: heal_ms is"), "{refused}");
        fs::remove_file(&file).expect("it can be removed");
    }
}
