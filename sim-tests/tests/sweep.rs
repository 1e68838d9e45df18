//! Thousands of schedules, each judged by every invariant. `SIDER_SIM_SEEDS` names others: `5000` are the first 5,000 (for
//! `cargo sim run --seeds` it would be that one alone), `2000..9000` are from the first to before the last. With
//! `SIDER_SIM_NIGHTLY` every situation of the table must have occurred, the rare ones too.

use std::{io::Write as _, num::NonZero, ops::Range, thread};

use sider_sim_tests::{
    generate::generate,
    run::run,
    sweep::{Orders, Sweep, sweep, sweep_by},
};

const SCHEDULES: u64 = 5_000;

fn seeds() -> Range<u64> {
    let Ok(text) = std::env::var("SIDER_SIM_SEEDS") else {
        return 0..SCHEDULES;
    };
    let number = |text: &str| -> u64 { text.parse().expect("SIDER_SIM_SEEDS is a number or a range") };
    let seeds = match text.split_once("..") {
        Some((from, to)) => number(from)..number(to),
        None => 0..number(&text),
    };
    assert!(!seeds.is_empty(), "SIDER_SIM_SEEDS={text} are no seeds");
    seeds
}

/// Past the test harness, which shows what a test prints only when it fails.
fn tell(text: &str) {
    writeln!(std::io::stderr(), "{text}").expect("somebody listens");
}

#[test]
fn no_schedule_violates_an_invariant() {
    let seeds = seeds();
    let asked = seeds.end - seeds.start;
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    #[expect(
        clippy::disallowed_types,
        reason = "how long the sweep takes is no part of any run"
    )]
    let began = std::time::Instant::now();
    let done = sweep(seeds, threads, 5, |seed, violations| {
        tell(&Sweep::describe(seed, violations))
    });
    let took = began.elapsed().as_secs_f64();
    tell(&format!(
        "swept {} schedules in {took:.0} s on {threads} threads: {:.1} schedules/s, {:.0} simulated seconds/s; {} \
         operations, {} committed entries, {} faults",
        done.schedules,
        done.schedules as f64 / took,
        done.simulated.as_secs_f64() / took,
        done.operations,
        done.entries,
        done.faults,
    ));
    if let Some((seed, violations)) = done.failures.first() {
        panic!("{}", Sweep::describe(*seed, violations));
    }
    assert_eq!(done.schedules, asked, "every schedule ran");
    // A sweep that does little proves little.
    assert!(
        done.operations >= asked * 100,
        "only {} operations",
        done.operations
    );
    assert!(
        done.entries >= asked * 30,
        "only {} entries were committed",
        done.entries
    );
    assert!(done.faults >= asked * 2, "only {} faults", done.faults);
    let nightly = std::env::var("SIDER_SIM_NIGHTLY").is_ok();
    if nightly || asked >= SCHEDULES {
        let missing = done.situations.missing(nightly);
        assert!(
            missing.is_empty(),
            "never seen: {missing:#?}\n{}",
            done.situations
        );
    }
}

#[test]
fn a_schedule_does_the_same_in_a_sweep_and_alone() {
    let swept = sweep_by(&Orders {
        seeds: 700..724,
        jobs: 3,
        hashes: true,
        failed: &|_, _| {},
        goes_on: &|_| true,
    });
    assert_eq!(swept.hashes.len(), 24);
    for (seed, hash) in swept.hashes.into_iter().step_by(3) {
        assert_eq!(run(&generate(seed)).trace_hash, hash, "seed {seed}");
    }
}
