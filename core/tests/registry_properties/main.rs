//! What must hold for every command on every registry, on thousands of random ones.
//!
//! `generate` makes the commands, `naive` answers queries by looking at everything, `laws` compares. The seeds are
//! fixed: a failure names its seed and step, and happens again.

mod generate;
mod keys;
mod laws;
mod naive;

use generate::Generator;
use laws::Judge;

const SEEDS: u64 = 12;
const STEPS: usize = 1_000;

#[test]
fn every_command_keeps_the_laws() {
    for seed in 0..SEEDS {
        let mut generator = Generator::new(seed);
        let mut judge = Judge::default();
        for step in 0..STEPS {
            let command = generator.command(judge.registry());
            judge.apply(&format!("seed {seed}, step {step}"), &command);
        }
        judge.finish();
    }
}

/// The laws are only worth what the commands reach: each outcome must have been seen, and often.
#[test]
fn the_commands_reach_every_outcome() {
    let mut generator = Generator::new(7);
    let mut judge = Judge::default();
    for step in 0..5 * STEPS {
        let command = generator.command(judge.registry());
        judge.apply(&format!("step {step}"), &command);
    }
    let seen = judge.finish();
    for (outcome, count) in seen.counts() {
        assert!(count >= 20, "{outcome} was seen {count} times only: {seen:?}");
    }
}
