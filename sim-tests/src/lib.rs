//! The server's own code under simulated failures, and the judges of what it did.

pub mod cluster;
