//! What the three programs share, and what each of them is.

use tikv_jemallocator::Jemalloc;

pub mod flags;

pub mod config;
mod config_files;
#[cfg(test)]
mod config_fuzz;
mod config_text;
mod consul_config;
mod hcl_config;
mod host;

pub mod server;

pub mod agent;

pub mod bench;
pub mod cli;

#[cfg(test)]
#[path = "../../core/tests/strange/mod.rs"]
mod strange;

/// Many small, short-lived allocations on many threads, and memory given back after a burst: what it is made for.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;
