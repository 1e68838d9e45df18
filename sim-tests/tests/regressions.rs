//! Schedules that once failed, kept whole: seeds mean something else when the generator changes. What each of them found
//! is told in `docs/SIMULATION.md` or beside the code that it mended.

use std::{fs, path::Path};

use sider_sim_tests::{run::run, schedule::Schedule};

#[test]
fn schedules_that_failed_once_fail_no_more() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("schedules");
    let mut files: Vec<_> = fs::read_dir(folder)
        .expect("the folder of schedules")
        .map(|entry| entry.expect("a file in it").path())
        .collect();
    files.sort();
    assert!(!files.is_empty(), "no schedule was found");
    for file in files {
        let text = fs::read_to_string(&file).expect("a readable schedule");
        let schedule: Schedule = serde_json::from_str(&text).expect("a saved schedule");
        let report = run(&schedule);
        assert!(
            report.violations.is_empty(),
            "{} fails: {:#?}\nreplay it with: cargo sim replay {}",
            file.display(),
            report.violations,
            file.display(),
        );
    }
}
