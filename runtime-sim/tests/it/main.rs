//! The simulated platform keeps its promises, and every fault does what it says.

use std::time::Duration;

use sider_runtime_sim::{World, run};

mod clock;
mod determinism;
mod disk;
mod host;
mod network;
mod pieces;
mod trap;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Runs `body` under a few seeds, each of which must succeed.
fn on_seeds<F: Future<Output = ()>>(body: impl Fn(World) -> F + Send + Sync) {
    for seed in 0..20 {
        if let Err(message) = run(seed, &body).value {
            panic!("seed {seed}: {message}");
        }
    }
}
