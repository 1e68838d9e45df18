//! The planted bugs fit the code, and the alarm works: a sweep in which something must fail does fail.
//!
//! `cargo sim bugs` builds each of them and sees that it is caught.

use std::collections::BTreeMap;

use sider_sim_tests::{
    bugs::{Bug, applies, patches, working_tree},
    generate::generate,
    invariants::durability,
    run::run,
    schedule::{Fault, Trouble, Who},
};

/// Schedules in which the alarm has to go off.
const ALARM_SCHEDULES: u64 = 150;

#[test]
fn every_patch_applies() {
    let bugs = Bug::load_all(&patches()).expect("all heads are good");
    assert!(bugs.len() >= 20, "only {} bugs", bugs.len());
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

/// The alarm itself: disks that make nothing durable, of which every server is told that they do. If no schedule fails
/// by that, no green sweep means anything.
#[test]
fn the_alarm_goes_off() {
    let fails = |seed: &u64| {
        let mut schedule = generate(*seed);
        schedule.faults.insert(
            0,
            Fault {
                at_ms: 0,
                for_ms: schedule.heal_ms,
                what: Trouble::LyingSync(Who::All),
                lasts: false,
            },
        );
        let violations = run(&schedule).violations;
        violations
            .iter()
            .any(|violation| violation.invariant == durability::NAME)
    };
    assert!(
        (0..ALARM_SCHEDULES).any(|seed| fails(&seed)),
        "{ALARM_SCHEDULES} schedules on disks that keep nothing lost nothing: the judges are blind"
    );
}
