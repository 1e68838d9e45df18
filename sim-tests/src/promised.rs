//! What the judges hold servers and agents to, in numbers of their own: a judge that asked the program for them would move
//! along when the program forgets what it promised. SPEC §2 to §6 names most of them; the rest follow from what clients count on.

use std::time::Duration;

/// How wrong a clock may run that still counts as a good one.
pub const CLOCK_DRIFT_PPM_MAX: u32 = 1_000;
/// A leader that stood still for longer leaves that time out of everything that it counts.
pub const PAUSE_MIN: Duration = Duration::from_millis(500);
/// What has run out is carried out within this time.
pub const EXPIRY_BOUND: Duration = Duration::from_secs(1);
/// Output alone is written after this time.
pub const OUTPUT_HOLD: Duration = Duration::from_secs(5);
/// Changes within this time may wake a client once.
pub const COALESCE_WINDOW: Duration = Duration::from_millis(2);
/// A leader that was silent for longer is no known leader.
pub const LEADER_SILENCE_MAX: Duration = Duration::from_secs(1);
/// A server that was silent for longer has failed.
pub const SERVER_SILENCE_MAX: Duration = Duration::from_secs(4);
/// The leader looks after the servers' own registrations, and autopilot's work, this often.
pub const UPKEEP_INTERVAL: Duration = Duration::from_secs(1);
/// A read finds a leader within this time, or fails.
pub const READ_TIMEOUT: Duration = Duration::from_secs(3);
/// A write is committed within this time, or fails, or nobody knows.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// A question whether a server is ready is answered within this time.
pub const READY_TIMEOUT: Duration = Duration::from_secs(1);
/// A server that is asked how it is answers within this time, or counts as silent.
pub const PEER_STATUS_TIMEOUT: Duration = Duration::from_secs(1);
/// A client waits for a change this long at most.
pub const WAIT_MAX: Duration = Duration::from_secs(600);
/// A wait may end later than was asked for by this part of it.
pub const WAIT_SPREAD_DIVISOR: u32 = 16;
/// The leader looks at what aliases stand for this often.
pub const ALIAS_INTERVAL: Duration = Duration::from_secs(1);
/// An agent compares with the servers this often when nothing happens.
pub const AGENT_SYNC_INTERVAL: Duration = Duration::from_secs(30);
/// An agent that failed tries again within this time.
pub const AGENT_BACKOFF_MAX: Duration = Duration::from_secs(5);
/// So many events are kept.
pub const EVENTS_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use sider_core::limits;

    /// A promise is changed in both places, on purpose.
    #[test]
    fn the_program_counts_with_what_is_promised() {
        macro_rules! same {
            ($($name:ident)*) => { $(assert_eq!(super::$name, limits::$name, stringify!($name));)* };
        }
        same!(
            CLOCK_DRIFT_PPM_MAX PAUSE_MIN EXPIRY_BOUND OUTPUT_HOLD COALESCE_WINDOW LEADER_SILENCE_MAX
            SERVER_SILENCE_MAX UPKEEP_INTERVAL READ_TIMEOUT WRITE_TIMEOUT READY_TIMEOUT PEER_STATUS_TIMEOUT
            WAIT_MAX WAIT_SPREAD_DIVISOR ALIAS_INTERVAL AGENT_SYNC_INTERVAL AGENT_BACKOFF_MAX EVENTS_MAX
        );
    }
}
