//! `cargo sim lease-map`: what clocks that run wrong break.

use std::{fs, num::NonZero, path::PathBuf};

use clap::Args;
use sider_sim_tests::lease_map::{DRIFTS_PPM, PAUSES_MS, lease_map, picture, table};

use crate::{print, schedules::jobs};

/// Runs schedules with clocks that are wrong by more and more, and shows what breaks where; fails if anything does within
/// the promised bound.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Draws the map into a file.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// How many schedules for each drift and pause.
    #[arg(long, default_value = "5")]
    runs: NonZero<u64>,
    /// How many run side by side; as many as there are processors by default.
    #[arg(long)]
    jobs: Option<NonZero<usize>>,
}

impl Arguments {
    pub(crate) fn carry_out(self) -> Result<bool, String> {
        let cells = lease_map(&DRIFTS_PPM, &PAUSES_MS, self.runs.get(), jobs(self.jobs));
        print(&table(&cells));
        if let Some(file) = &self.svg {
            fs::write(file, picture(&cells)).map_err(|error| format!("{}: {error}", file.display()))?;
        }
        let broken: Vec<_> = cells
            .iter()
            .filter(|it| it.is_promised() && !it.is_sound())
            .collect();
        for cell in &broken {
            let example = cell.example.as_deref().unwrap_or_default();
            print(&format!(
                "BROKEN within the promise, at a drift of {} ppm and a pause of {} ms: {example}\n",
                cell.drift_ppm, cell.pause_ms
            ));
        }
        let unlike =
            |cell: &&sider_sim_tests::lease_map::Cell| cell.stale + cell.other > 0 && !cell.is_promised();
        for cell in cells.iter().filter(unlike) {
            let example = cell.example.as_deref().unwrap_or_default();
            print(&format!(
                "at {} ppm and {} ms: {example}\n",
                cell.drift_ppm, cell.pause_ms
            ));
        }
        Ok(broken.is_empty())
    }
}
