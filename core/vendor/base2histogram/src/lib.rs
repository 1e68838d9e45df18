//! Histograms that count nothing, in place of the crate of this name.
//!
//! openraft counts its batches with that crate also where its feature `runtime-stats` is off, so that nobody can read what
//! was counted. The first histogram of a process fills tables of 24 MB for all precisions that there are, of which one
//! is used: more than half of what an idle server held. Only what openraft names is here. With that feature on, this
//! must go: `[patch.crates-io]` of the workspace is where it is chosen.

use std::{fmt, marker::PhantomData};

/// Counts nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Histogram<T = ()>(PhantomData<T>);

impl<T> Histogram<T> {
    /// An empty one, which it stays.
    #[expect(clippy::new_without_default, reason = "openraft asks for no default")]
    pub fn new() -> Self {
        Histogram(PhantomData)
    }

    /// Does nothing.
    pub fn record(&mut self, _: u64) {}

    /// Does nothing.
    pub fn record_n(&mut self, _: u64, _: u64) {}

    /// Always 0.
    pub fn total(&self) -> u64 {
        0
    }

    /// All zero.
    pub fn percentile_stats(&self) -> PercentileStats {
        PercentileStats::default()
    }
}

/// What a histogram shows: here nothing but zeros.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PercentileStats {
    /// How many were counted.
    pub samples: u64,
    /// So many in a thousand are below it; the same for those that follow.
    pub p0_1: u64,
    /// 1 in 100.
    pub p1: u64,
    /// 5 in 100.
    pub p5: u64,
    /// 10 in 100.
    pub p10: u64,
    /// Half.
    pub p50: u64,
    /// 90 in 100.
    pub p90: u64,
    /// 99 in 100.
    pub p99: u64,
    /// 999 in 1,000.
    pub p99_9: u64,
}

impl fmt::Display for PercentileStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[not counted]")
    }
}

/// A drawing of histograms: here an empty one.
#[derive(Debug, Clone, Default)]
pub struct AsciiChart;

impl AsciiChart {
    /// An empty one.
    pub fn new() -> Self {
        AsciiChart
    }

    /// Adds nothing.
    #[must_use]
    pub fn add(self, _: &str, _: Histogram) -> Self {
        self
    }
}

impl fmt::Display for AsciiChart {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ok(())
    }
}
