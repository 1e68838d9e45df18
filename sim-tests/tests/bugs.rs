//! The planted bugs fit the code, and the alarm works: a sweep in which something must fail does fail.
//!
//! `cargo sim bugs` builds each of them and sees that it is caught.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    sync::atomic::{AtomicU64, Ordering},
};

use sider_sim_tests::{
    bugs::{Bug, applies, of_table, patches, working_tree},
    generate::generate,
    invariants::{ALL, durability, quorum},
    schedule::{Fault, Trouble, Who},
    sweep::{Orders, Sweep, sweep_through},
};

/// Schedules in which the alarm has to go off.
const ALARM_SCHEDULES: u64 = 150;
/// Who has to see that disks keep nothing.
const ALARMED: [&str; 2] = [durability::NAME, quorum::NAME];

#[test]
fn every_patch_applies() {
    let bugs = Bug::load_all(&patches()).expect("all heads are good");
    assert!(bugs.len() >= 40, "only {} bugs", bugs.len());
    for bug in &bugs {
        if let Err(reason) = applies(working_tree(), bug) {
            panic!(
                "{} does not apply any more: bring it up to date\n{reason}",
                bug.name
            );
        }
    }
}

#[test]
fn numbers_are_used_once_and_shipped_code_is_patched() {
    let mut numbers = BTreeMap::new();
    for bug in Bug::load_all(&patches()).expect("all heads are good") {
        let number = bug.name.split('-').next().unwrap_or_default().to_owned();
        assert!(number.len() == 3 && number.parse::<u16>().is_ok(), "{}", bug.name);
        let files = bug.files().expect("it was read before");
        let ships = |file: &String| {
            ["core/src/", "runtime-tokio/src/", "bin/src/"]
                .iter()
                .any(|it| file.starts_with(it))
        };
        assert!(
            files.iter().all(ships),
            "{}: a bug is in code that ships",
            bug.name
        );
        if let Some(other) = numbers.insert(number, bug.name.clone()) {
            panic!("{other} and {} have one number", bug.name);
        }
    }
}

/// A bug without a row was never hunted, and a row without a bug tells of nothing.
#[test]
fn each_bug_has_its_row() {
    let bugs = Bug::load_all(&patches()).expect("all heads are good");
    let bugs: BTreeSet<String> = bugs.into_iter().map(|bug| bug.name).collect();
    let page = fs::read_to_string(working_tree().join("docs/PLANTED_BUGS.md")).expect("the page is there");
    let cells = of_table(&page)
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.split(" | ").next());
    let rows: BTreeSet<String> = cells
        .filter(|name| name.starts_with(|first: char| first.is_ascii_digit()))
        .map(str::to_owned)
        .collect();
    assert_eq!(rows, bugs);
}

#[test]
fn every_invariant_has_two_bugs_that_it_is_meant_to_catch() {
    let bugs = Bug::load_all(&patches()).expect("all heads are good");
    for (invariant, _) in ALL {
        let meant = bugs
            .iter()
            .filter(|bug| bug.invariants.iter().any(|it| it == invariant));
        assert!(meant.count() >= 2, "{invariant} is meant to catch too few bugs");
    }
}

/// The alarm itself: a sweep on disks that make nothing durable, of which every server is told that they do. If it passes, no
/// green sweep means anything. (A sweep with a bug in the code itself is what `.ci/run` does with some of the planted ones.)
#[test]
fn the_alarm_goes_off() {
    let lying = |seed| {
        let mut schedule = generate(seed);
        schedule.faults.insert(
            0,
            Fault {
                at_ms: 0,
                for_ms: schedule.heal_ms,
                what: Trouble::LyingSync(Who::All),
                lasts: false,
            },
        );
        schedule
    };
    let told = AtomicU64::new(0);
    let orders = Orders {
        seeds: 0..ALARM_SCHEDULES,
        jobs: 2,
        hashes: false,
        failed: &|_, _| {
            told.fetch_add(1, Ordering::Relaxed);
        },
        goes_on: &|so_far| !ALARMED.iter().all(|judge| fired(so_far, judge)),
    };
    let swept = sweep_through(&orders, &lying);
    for judge in ALARMED {
        assert!(
            fired(&swept, judge),
            "{} schedules on disks that keep nothing: {judge} is blind",
            swept.schedules
        );
    }
    assert_eq!(told.into_inner(), swept.failed, "each failure is told at once");
    assert_eq!(swept.failures.len() as u64, swept.failed, "and kept");
}

fn fired(sweep: &Sweep, judge: &str) -> bool {
    let mut violations = sweep.failures.iter().flat_map(|(_, violations)| violations);
    violations.any(|violation| violation.invariant == judge)
}
