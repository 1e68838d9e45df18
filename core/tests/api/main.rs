//! The HTTP API from request to answer, on a stand-in for Raft.

mod agent;
mod catalog;
mod clients;
mod cluster;
mod errors;
mod extras;
mod fuzz;
mod fuzz_inputs;
mod keys;
mod reads;
#[path = "../strange/mod.rs"]
mod strange;
mod support;
mod watch;
