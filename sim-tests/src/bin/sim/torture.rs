//! `cargo sim torture`: real processes, the same judges.

use std::{env, fs, num::NonZero, path::PathBuf, process::Command, time::Duration};

use clap::Args;
use sider_sim_tests::torture::{self, Options, judge, programs_beside};

/// Runs real servers on this machine, kills, stops, parts and starves them, and judges what clients saw
#[derive(Args)]
pub(crate) struct Arguments {
    /// Decides the workload and what is done to the servers.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many runs, each with the next seed.
    #[arg(long, default_value = "1")]
    runs: NonZero<u64>,
    /// How long clients work in each, in seconds.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Where `sds-server` and `sds` are; by default they are built, and found beside this program.
    #[arg(long)]
    programs: Option<PathBuf>,
    /// Where data, logs and evidence go; of runs that succeed nothing is kept there unless this is given.
    #[arg(long)]
    folder: Option<PathBuf>,
    /// Judges what an earlier run left in this folder.
    #[arg(long, conflicts_with_all = ["seed", "runs", "seconds", "programs", "folder"])]
    judge: Option<PathBuf>,
}

impl Arguments {
    pub(crate) fn carry_out(self) -> Result<bool, String> {
        if let Some(folder) = &self.judge {
            let (violations, entries) = judge(folder)?;
            violations.iter().for_each(|violation| println!("{violation}"));
            println!("{entries} entries, {} violations", violations.len());
            return Ok(violations.is_empty());
        }
        let programs = match &self.programs {
            Some(programs) => programs.clone(),
            None => build()?,
        };
        for seed in self.seed..self.seed.saturating_add(self.runs.get()) {
            if !self.run(seed, programs.clone())? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn run(&self, seed: u64, programs: PathBuf) -> Result<bool, String> {
        let kept = self.folder.is_some();
        let folder = self.folder.clone().unwrap_or_else(env::temp_dir);
        let folder = folder.join(format!("sider-torture-{seed}-{}", std::process::id()));
        let options = Options {
            seed,
            length: Duration::from_secs(self.seconds),
            programs,
            folder: folder.clone(),
        };
        let outcome = torture::run(&options).map_err(|error| format!("seed {seed}: {error}"))?;
        let (asked, done) = outcome.operations;
        println!(
            "seed {seed}: {asked} operations, {done} done, {} entries, {} faults, {} violations",
            outcome.entries,
            outcome.faults.len(),
            outcome.violations.len()
        );
        if outcome.violations.is_empty() {
            if !kept {
                fs::remove_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
            }
            return Ok(true);
        }
        outcome.faults.iter().for_each(|fault| println!("  {fault}"));
        outcome
            .violations
            .iter()
            .for_each(|violation| println!("  {violation}"));
        println!(
            "  judge it again with: cargo sim torture --judge {}",
            folder.display()
        );
        Ok(false)
    }
}

/// Builds the programs in the profile of this one; gives where they are.
fn build() -> Result<PathBuf, String> {
    let own = env::current_exe().map_err(|error| error.to_string())?;
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--quiet", "--package", "sider", "--bins"]);
    if own.parent().is_some_and(|folder| folder.ends_with("release")) {
        command.arg("--release");
    }
    let built = command.status().map_err(|error| format!("cargo: {error}"))?;
    if !built.success() {
        return Err("the programs can't be built".into());
    }
    programs_beside(&own).ok_or_else(|| format!("there is no sds-server near {}", own.display()))
}
