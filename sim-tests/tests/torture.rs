//! A short run with real processes: `kill -9`, `SIGSTOP`, cut links, a full disk, and the judges of the simulator.

use std::{env, path::PathBuf, process::Command, time::Duration};

use sider_sim_tests::torture::{Options, programs_beside, run};

#[test]
fn real_servers_keep_what_they_promise() {
    let own = env::current_exe().expect("a test has a program");
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("torture-{}", std::process::id()));
    let options = Options {
        seed: 1,
        length: Duration::from_secs(20),
        programs: built(&own),
        folder: folder.clone(),
    };
    let outcome = run(&options).unwrap_or_else(|error| panic!("{error}"));
    assert!(
        outcome.violations.is_empty(),
        "{}\n{:#?}\njudge it again with: cargo sim torture --judge {}",
        outcome.violations[0],
        outcome.faults,
        folder.display()
    );
    let (asked, done) = outcome.operations;
    assert!(
        done > 100 && done * 3 > asked,
        "only {done} of {asked} operations succeeded"
    );
    assert!(outcome.entries > 50, "only {} entries", outcome.entries);
    std::fs::remove_dir_all(&folder).expect("it was made by the run");
}

/// The programs, built in the profile of this test.
fn built(own: &std::path::Path) -> PathBuf {
    let mut command = Command::new(env!("CARGO"));
    command.args(["build", "--quiet", "--package", "sider", "--bins"]);
    if own.components().any(|part| part.as_os_str() == "release") {
        command.arg("--release");
    }
    let status = command.status().expect("cargo runs this test");
    assert!(status.success(), "the programs can't be built");
    programs_beside(own).expect("they were just built")
}
