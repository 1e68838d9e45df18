//! Everything in Sider that decides. No socket, no file, no clock, no entropy: those come from a [`runtime::Runtime`].
//!
//! Reading order, bottom up; a module imports only from those above it in this list:
//!
//! 1. [`limits`] names every bound, with its unit.
//! 2. [`registry`] is the replicated state machine: pure, total, deterministic.
//! 3. [`runtime`] is what a platform must offer: clock, tasks, disk, network, probes.
//! 4. `probing` is when checks are run, and how what a probe meets becomes a status.
//! 5. [`observe`] is where the code tells what it does, to metrics in production and to the judges in the simulator.
//! 6. [`raft`] replicates the registry's commands, on openraft.
//! 7. [`server`] proposes, reads, watches, renews, expires and probes.
//! 8. [`api`] turns HTTP requests into commands and queries.
//! 9. [`agent`] runs on a service's host and keeps its registrations alive.

pub mod limits;
pub mod registry;

pub mod runtime;

mod probing;

pub mod observe;

pub mod raft;

pub mod server;

pub mod api;

pub mod agent;
