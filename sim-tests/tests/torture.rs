//! A short run with real processes: `kill -9`, power cuts, `SIGSTOP`, cut links, a full disk, and the judges of the simulator.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use serde_json::Value;
use sider_sim_tests::torture::{Options, judge, programs_beside, run};

#[test]
fn real_servers_keep_what_they_promise() {
    let own = env::current_exe().expect("a test has a program");
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("torture-{}", std::process::id()));
    let options = Options {
        seed: 1,
        length: Duration::from_secs(12),
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
        done > 100 && done * 4 > asked,
        "only {done} of {asked} operations succeeded"
    );
    assert!(outcome.entries > 50, "only {} entries", outcome.entries);
    assert!(!outcome.faults.is_empty(), "nothing was done to the servers");

    // The judges are awake: a write that was acknowledged, and is in no log any more, is missed.
    forget_a_registration(&folder);
    let (violations, _) = judge(&folder).expect("the evidence can be read");
    assert!(!violations.is_empty(), "nobody missed an acknowledged write");
    fs::remove_dir_all(&folder).expect("it was made by the run");
}

/// Makes the entry of a registration that was acknowledged a blank one, in every log.
fn forget_a_registration(folder: &Path) {
    let file = folder.join("evidence.json");
    let text = fs::read_to_string(&file).expect("it was kept");
    let mut evidence: Value = serde_json::from_str(&text).expect("it was written by the run");
    let logs = |evidence: &Value| -> Vec<String> {
        let logs = evidence["logs"].as_array().expect("the servers' logs");
        let text = |log: &Value| log.as_str().expect("lines of text").to_owned();
        logs.iter().map(text).collect()
    };
    // Most registrations bear a version of their own; some repeat an earlier one with one thing changed.
    let in_log = |log: &String, version: &str| {
        let lines = log
            .lines()
            .map(|line| serde_json::from_str(line).expect("JSON lines"));
        let bears = |line: &Value| line["command"].as_str().is_some_and(|it| it.contains(version));
        lines.filter(bears).count()
    };
    let version = evidence["operations"]
        .as_array()
        .expect("what clients did")
        .iter()
        .filter(|operation| operation["raw"]["Answer"]["status"] == 200)
        .filter_map(|operation| operation["op"]["Register"]["services"][0]["version"].as_u64())
        .map(|version| format!("\"version\": \"{version}\""))
        .find(|version| logs(&evidence).iter().all(|log| in_log(log, version) == 1))
        .expect("a registration was acknowledged that none repeats");
    let mut forgotten = 0;
    for log in evidence["logs"].as_array_mut().expect("the servers' logs") {
        let lines = log.as_str().expect("lines of text").lines().map(|line| {
            let mut line: Value = serde_json::from_str(line).expect("JSON lines");
            if line["command"].as_str().is_some_and(|it| it.contains(&version)) {
                line["bytes"] = Value::Null;
                forgotten += 1;
            }
            line.to_string()
        });
        let changed = lines.collect::<Vec<_>>().join("\n");
        *log = Value::String(changed);
    }
    assert_eq!(forgotten, 3, "it is in every log, and once");
    fs::write(&file, evidence.to_string()).expect("the folder is the run's");
}

/// The programs, built in the profile of this test.
fn built(own: &Path) -> PathBuf {
    let mut command = Command::new(env!("CARGO"));
    command.args(["build", "--quiet", "--package", "sider", "--bins"]);
    if own.components().any(|part| part.as_os_str() == "release") {
        command.arg("--release");
    }
    let status = command.status().expect("cargo runs this test");
    assert!(status.success(), "the programs can't be built");
    programs_beside(own).expect("they were just built")
}
