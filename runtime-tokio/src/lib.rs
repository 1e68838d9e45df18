//! The platform of production: everything that [`sider_core::runtime`] asks for, on tokio, fjall, TCP and hyper.
//!
//! - [`TokioRuntime`] is the clock, the tasks and the chance.
//! - [`disk`] keeps the data: [`disk::FjallDisk`] on files, [`disk::MemoryDisk`] for `-dev`.
//! - [`network`] carries messages between servers, and plain HTTP towards them.
//! - [`prober`] runs the probes of health checks.
//! - [`http`] serves an `axum` router on hyper, over TCP, [`tls`] or a socket file.
//! - [`host`] tells what this host and this process look like.
//! - [`address`] binds listeners and finds out this host's own address.
//! - [`telemetry`] writes the logs; [`process`] sets what the operating system allows this process.
//!
//! Nothing in here decides anything about services: that is all in `sider-core`, which the simulator runs on another
//! platform.

pub mod disk;

pub mod network;

pub mod prober;

pub mod http;

pub mod tls;

pub mod host;

pub mod address;

pub mod telemetry;

pub mod process;

mod clock;

pub use clock::{Task, TokioRuntime};
