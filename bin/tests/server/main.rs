//! `sds-server` and `sds` as programs: real processes, real sockets, real disks.
//!
//! Waits are bounded generously and nothing is timed: what is asserted is what must happen on the slowest machine too.

#![expect(clippy::unwrap_used, reason = "a test that panics says where")]

mod cli;
mod cluster;
mod consul_config;
mod refusals;
mod single;
mod streams;
mod support;
