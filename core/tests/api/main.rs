//! The HTTP API from request to answer, on a stand-in for Raft.

mod agent;
mod catalog;
mod clients;
mod cluster;
mod errors;
mod extras;
mod fuzz;
mod keys;
mod reads;
mod support;
mod watch;
