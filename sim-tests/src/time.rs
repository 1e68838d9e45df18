//! Virtual time, as the simulation's one global clock counts it. Servers and clients never see it: their own clocks
//! drift and jump.

use std::{fmt, ops, time::Duration};

use serde::{Deserialize, Serialize};

use crate::promised::CLOCK_DRIFT_PPM_MAX;

/// Nanoseconds since the simulation began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Time(pub u64);

impl Time {
    /// The end of time.
    pub const MAX: Time = Time(u64::MAX);

    /// So many milliseconds after the beginning.
    pub const fn ms(ms: u64) -> Time {
        Time(ms * 1_000_000)
    }

    /// What passed since `earlier`; zero if it is later.
    pub fn since(self, earlier: Time) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl ops::Add<Duration> for Time {
    type Output = Time;
    fn add(self, duration: Duration) -> Time {
        Time(self.0.saturating_add(nanos(duration)))
    }
}

impl ops::Sub<Duration> for Time {
    type Output = Time;
    fn sub(self, duration: Duration) -> Time {
        Time(self.0.saturating_sub(nanos(duration)))
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!("{}.{:06}s", self.0 / 1_000_000_000, self.0 / 1_000 % 1_000_000);
        f.pad(&text)
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// The shortest that a span may take in truth which a server counts with [`CLOCK_DRIFT_PPM_MAX`] to spare, on a clock that may
/// misjudge it by up to `ppm`: within the promised bound nothing of it is lost.
pub fn least(span: Duration, ppm: u32) -> Duration {
    span.saturating_sub(drift_of(span, ppm.saturating_sub(CLOCK_DRIFT_PPM_MAX)))
}

/// A span by which a clock that runs up to `ppm` too fast or too slow may misjudge `span`.
pub fn drift_of(span: Duration, ppm: u32) -> Duration {
    Duration::from_nanos(nanos(span) / 1_000_000 * u64::from(ppm) + u64::from(ppm))
}
