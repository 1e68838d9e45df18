//! A simulated platform: the traits of `sider_core::runtime` on virtual time, with every fault a schedule may ask for.
//!
//! A run is decided by its seed alone: [`run`] gives the same trace hash for the same seed and body, on any thread and
//! after any other runs. Reading order:
//!
//! 1. `world` is the face for tests: [`run`], [`World`], [`Host`].
//! 2. `runtime` is [`SimRuntime`], which the server's own code runs on.
//! 3. `clock` gives every host its own clock, with drift and jumps, on the one virtual clock.
//! 4. `disk` is a disk that loses what was not synced, refuses, hangs, fills up and rots.
//! 5. `network` is connections over links that lose, delay, duplicate and part.
//! 6. `prober` answers health probes from a script.
//! 7. `trace` hashes all that happens, and keeps it as a timeline if asked.
//!
//! Absent on purpose: threads, real time, entropy of the operating system, and maps with a random order.

#[cfg(not(madsim))]
compile_error!(
    "the simulator needs `--cfg madsim`, which .cargo/config.toml of this workspace sets for rustc and rustdoc. A \
     RUSTFLAGS or RUSTDOCFLAGS variable (or a CARGO_ENCODED_ one) overrides that file: unset it, or add `--cfg madsim` \
     to it."
);

#[cfg(madsim)]
mod chance;
#[cfg(madsim)]
mod clock;
#[cfg(madsim)]
mod disk;
#[cfg(madsim)]
mod network;
#[cfg(madsim)]
mod panics;
#[cfg(madsim)]
mod prober;
#[cfg(madsim)]
mod runtime;
#[cfg(madsim)]
mod trace;
#[cfg(madsim)]
mod world;

#[cfg(madsim)]
pub use {
    clock::SimSleep,
    disk::{DiskStep, Edge, SimDisk, SimView, Survival, SyncFault},
    network::{Body, HttpHandler, Link, LinkState, NetworkControl, Piece, SimNetwork, StreamedAnswer},
    prober::SimProber,
    runtime::{SimRuntime, SimTask},
    trace::{Fate, Message, MessageKind, TraceLine, record, record_with},
    world::{Host, HostId, Options, Outcome, World, run, run_with},
};
