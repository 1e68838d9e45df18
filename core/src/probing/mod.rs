//! What agents and servers have in common where they run checks: when things are due, and how a probe's outcome becomes a
//! status. Pure: no clock, no network.

pub(crate) mod check;
pub(crate) mod schedule;
