//! `sds` against real servers.

use std::{
    process::{Command, Output},
    time::Duration,
};

use serde_json::Value;

use crate::support::{Place, Server};

/// Runs `sds` with these arguments against a server.
fn sds(server: &Server, args: &[&str]) -> Output {
    let output = Command::new(env!("CARGO_BIN_EXE_sds"))
        .args(["--server", &server.http])
        .args(args)
        .env_remove("SIDER_SERVER")
        .output();
    output.unwrap()
}

/// What it printed, having succeeded.
fn printed(server: &Server, args: &[&str]) -> String {
    let output = sds(server, args);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "sds {args:?}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

fn json(server: &Server, args: &[&str]) -> Value {
    serde_json::from_str(&printed(server, args)).unwrap()
}

#[tokio::test]
async fn instances_are_registered_shown_and_deregistered() {
    let folder = tempfile::tempdir().unwrap();
    let server = Place::new("node1", folder.path()).start(&[]).await;
    server.ready().await;
    let args = [
        "register", "api", "--id", "api-1", "--port", "8080", "--tag", "v1", "--ttl", "1h",
    ];
    let registered = printed(&server, &args);
    assert!(
        registered.contains("/v1/agent/check/pass/chk%3Aapi-1%3A0"),
        "{registered}"
    );

    let services = printed(&server, &["services"]);
    let row = services
        .lines()
        .find(|line| line.trim_start().starts_with("api"))
        .unwrap();
    assert_eq!(row.split_whitespace().collect::<Vec<_>>(), ["api", "v1", "1"]);
    let health = printed(&server, &["health", "api"]);
    assert!(
        health.contains("api-1") && health.contains("chk:api-1:0=critical"),
        "{health}"
    );
    // Go's style of flags, and JSON for scripts.
    let passing = json(&server, &["-json", "health", "api", "-passing"]);
    assert_eq!(passing, Value::Array(Vec::new()));

    printed(&server, &["deregister", "api-1"]);
    assert_eq!(
        json(&server, &["--json", "health", "api"]),
        Value::Array(Vec::new())
    );
    let refused = sds(&server, &["register", "api", "--ttl", "soon"]);
    assert!(!refused.status.success());
    let error = String::from_utf8(refused.stderr).unwrap();
    assert!(
        error.contains("answered 400") && error.trim_end().lines().count() == 1,
        "{error}"
    );
}

#[tokio::test]
async fn members_come_lead_and_go() {
    let folder = tempfile::tempdir().unwrap();
    let places = [
        Place::new("node1", folder.path()),
        Place::new("node2", folder.path()),
    ];
    let first = places[0].start(&["-raft-bootstrap"]).await;
    let second = places[1].start(&["-raft-bootstrap=false"]).await;
    first.ready().await;
    printed(&first, &["join", "node2", &places[1].raft]);
    second.ready().await;
    let members = printed(&second, &["members"]);
    assert!(
        members.contains("node1") && members.contains("node2"),
        "{members}"
    );

    printed(&first, &["transfer", "node2"]);
    second.has_voters(&["node1", "node2"]).await;
    assert_eq!(json(&second, &["stats", "--json"])["leader"], "node2");
    printed(&first, &["remove", "node1"]);
    second.has_voters(&["node2"]).await;
    assert_eq!(
        json(&second, &["version", "--json"])["server"],
        env!("CARGO_PKG_VERSION")
    );
}

#[tokio::test]
async fn a_state_moves_into_a_new_cluster_as_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let old = Place::new("old", folder.path()).start(&[]).await;
    let new = Place::new("new", folder.path()).start(&[]).await;
    old.ready().await;
    new.ready().await;
    // Each enters itself, and makes the cluster's authority, which take an index each.
    for server in [&old, &new] {
        server.get("/v1/agent/connect/ca/roots").await;
        while server.instances("consul").await.is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    for number in 0..300 {
        old.register("api", &format!("api-{number}")).await.unwrap();
    }
    new.register("late", "late-1").await.unwrap();
    let path = folder.path().join("backup.snap");
    let file = path.to_str().unwrap();

    let saved = printed(&old, &["snapshot", "save", file]);
    assert!(saved.contains("index 303"), "{saved}");
    assert!(printed(&old, &["snapshot", "verify", file]).starts_with("sound"));
    let inspected = json(&old, &["snapshot", "inspect", file, "--json"]);
    assert_eq!(inspected["Instances"], 301);
    assert_eq!(inspected["Services"][0]["Service"], "api");

    // What is damaged is refused by the program, and by a server that gets it all the same.
    let whole = std::fs::read(&path).unwrap();
    let cut = folder.path().join("cut.snap");
    std::fs::write(&cut, &whole[..whole.len() / 2]).unwrap();
    for command in ["verify", "restore", "inspect"] {
        let refused = sds(&new, &["snapshot", command, cut.to_str().unwrap()]);
        assert!(!refused.status.success(), "{command}");
        let error = String::from_utf8(refused.stderr).unwrap();
        assert!(error.contains("cut.snap: it is cut off"), "{error}");
    }
    let refused = new.try_send("PUT", "/v1/snapshot", "{}").await;
    assert!(
        format!("{refused:?}").contains("not a snapshot file"),
        "{refused:?}"
    );
    assert_eq!(new.instances("late").await, ["late-1"]);

    let restored = printed(&new, &["snapshot", "restore", file]);
    assert!(restored.contains("index 304"), "{restored}");
    assert_eq!(new.instances("late").await, Vec::<String>::new());
    assert_eq!(new.instances("api").await.len(), 300);
    assert!(printed(&new, &["members"]).contains("COMMANDS"));
}

#[tokio::test]
async fn load_is_driven_and_measured() {
    let folder = tempfile::tempdir().unwrap();
    let server = Place::new("node1", folder.path()).start(&["-dev"]).await;
    server.ready().await;
    for (kind, figure) in [
        ("register", "rate_per_s"),
        ("query", "p99_ms"),
        ("renew", "p50_ms"),
        ("watch", "last_wake_ms"),
    ] {
        let args = [
            "bench",
            kind,
            "-c",
            "2",
            "-d",
            "200ms",
            "-r",
            "1",
            "-n",
            "5",
            "--service",
            kind,
            "--json",
        ];
        let measured = json(&server, &args);
        assert_eq!(measured["errors"], 0, "{measured}");
        assert!(measured[figure]["median"].as_f64().unwrap() > 0.0, "{measured}");
    }
}

#[test]
fn a_server_that_is_not_there_is_one_line_of_error() {
    let output = Command::new(env!("CARGO_BIN_EXE_sds"))
        .args(["-server", "127.0.0.1:1", "services"])
        .output()
        .unwrap();
    assert!(!output.status.success());
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(
        error.trim_end(),
        "sds: no server answers at 127.0.0.1:1: connection refused"
    );
}
