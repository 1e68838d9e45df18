//! The server layer on a consensus without Raft, with a clock that the tests move. What Raft adds is tested in the
//! simulator.

#![expect(clippy::unwrap_used, reason = "a test that panics says where")]

mod blocking;
mod clients;
mod divergence;
mod expiry;
mod founding;
mod membership;
mod metrics;
mod probes;
mod reads;
mod renewals;
mod streams;
mod upgrades;
mod writes;
