//! Aliases of what is on other nodes, which the agent asks the servers about.

use std::time::Duration;

use serde_json::{Value, json};

use super::harness::{Link, World};
use crate::limits::{AGENT_ALIAS_IDLE, AGENT_ALIAS_WAIT, AGENT_BACKOFF_MAX, AGENT_CALL_TIMEOUT};

const SECOND: Duration = Duration::from_secs(1);

fn far(status: &str, service: bool) -> Value {
    let host = json!({"CheckID": "host", "Name": "host", "Status": "passing"});
    let mut body = json!({"Node": "far", "Address": "10.0.0.7", "Checks": [host.clone()]});
    if service {
        body["Service"] = json!({"ID": "db-1", "Service": "db"});
        let db = json!({"CheckID": "db", "Name": "db", "Status": status, "ServiceID": "db-1",
            "Output": "it says so"});
        body["Checks"] = json!([host, db]);
    }
    body
}

#[test]
fn an_alias_follows_what_the_servers_hold_of_another_node() {
    let world = World::new();
    let agent = world.start(json!([
        {"name": "host", "check": {"AliasNode": "far", "CheckID": "of-host"}},
        {"name": "db", "check": {"AliasNode": "far", "AliasService": "db-1", "CheckID": "of-db"}},
        {"name": "db", "id": "db-2", "check": {"AliasNode": "far", "AliasService": "db-1", "CheckID": "of-db-2"}},
    ]));
    let put = |path: &str, body: Value| assert_eq!(world.put(&agent, path, body).status, 200);
    let said = |id| world.check(id).unwrap_or_default();
    world.advance(SECOND * 3);
    let shown = world.get(&agent, "/v1/agent/checks").json;
    let missing = "Service db-1 could not be found on node far";
    for (id, output) in [("of-host", "Node far could not be found"), ("of-db", missing)] {
        assert_eq!(shown[id]["Status"], "critical");
        assert_eq!(shown[id]["Output"], output);
    }

    put("/v1/catalog/register", far("passing", true));
    world.advance(SECOND * 3);
    let passing = ("passing", "All checks passing.".to_owned());
    for id in ["of-host", "of-db", "of-db-2"] {
        assert_eq!(said(id), passing);
    }
    put("/v1/catalog/register", far("warning", true));
    world.advance(SECOND * 3);
    let failing = ("warning", "Aliased check \"db\" failing: it says so".to_owned());
    assert_eq!((said("of-db"), said("of-host")), (failing, passing));

    // Nothing happens: one question waits for all three.
    world.reads();
    world.advance(AGENT_ALIAS_WAIT * 6);
    let asked = world
        .reads()
        .into_iter()
        .filter(|path| path.starts_with("/v1/health/node/far"));
    assert!((4..=7).contains(&asked.count()));

    put(
        "/v1/catalog/deregister",
        json!({"Node": "far", "ServiceID": "db-1"}),
    );
    world.advance(SECOND * 3);
    assert_eq!(said("of-db"), ("critical", missing.into()));
}

#[test]
fn servers_that_can_not_be_asked_are_a_failure_and_what_nobody_asks_is_not_followed() {
    let world = World::new();
    let agent = world.start(json!([]));
    let put = |path: &str, body: Value| assert_eq!(world.put(&agent, path, body).status, 200);
    put("/v1/catalog/register", far("passing", false));
    put(
        "/v1/agent/check/register",
        json!({"ID": "of-host", "Name": "x", "AliasNode": "far"}),
    );
    world.advance(SECOND * 3);
    let shown = || world.get(&agent, "/v1/agent/checks").json["of-host"].clone();
    assert_eq!(shown()["Status"], "passing");
    world.link(0, Link::Refuses);
    world.advance(AGENT_ALIAS_WAIT * 2 + AGENT_CALL_TIMEOUT * 2 + AGENT_BACKOFF_MAX);
    assert_eq!(shown()["Status"], "critical");
    let output = shown()["Output"].as_str().unwrap_or_default().to_owned();
    assert!(
        output.starts_with("Failure checking aliased node or service: "),
        "{output}"
    );
    world.link(0, Link::Up);
    world.advance(AGENT_BACKOFF_MAX * 2);
    assert_eq!(world.status("of-host"), "passing");

    put("/v1/agent/check/deregister/of-host", json!(null));
    world.advance(AGENT_ALIAS_WAIT * 2 + AGENT_ALIAS_IDLE);
    world.reads();
    world.advance(AGENT_ALIAS_WAIT * 3);
    let reads = world.reads();
    assert!(!reads.iter().any(|path| path.contains("/far")), "{reads:?}");
}
