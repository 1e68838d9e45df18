//! What a configuration says of the node itself: its id, its meta, and checks that stand by themselves.

use std::time::Duration;

use serde_json::{Value, json};

use super::harness::{NODE, World, check_key};
use crate::{
    agent::{ConfigFile, ConfiguredCheck, ConfiguredService, bind_checks},
    limits::AGENT_SYNC_INTERVAL,
    registry::{Command, Keeps, Node, NodeName, Registration},
    runtime::ProbeOutcome,
};

const SECOND: Duration = Duration::from_secs(1);
const ID: &str = "40e4a748-2192-161a-0510-9bf59fe950b5";

fn own_node(world: &World) -> Node {
    let name = NodeName::parse(NODE).expect("a valid name");
    let node = world.look(|registry| registry.node(&name).cloned());
    node.expect("it is registered")
}

fn read(content: &Value) -> Result<(Vec<ConfiguredService>, Vec<ConfiguredCheck>), String> {
    let file = ConfigFile::parse(content).map_err(|error| error.to_string())?;
    let node = NodeName::parse(NODE).expect("a valid name");
    let text = |error: crate::agent::ConfigError| error.to_string();
    let mut services = file.services(&node, "10.0.0.1").map_err(text)?;
    let checks = file.checks(&node, "10.0.0.1").map_err(text)?;
    let checks = bind_checks(&mut services, checks).map_err(text)?;
    Ok((services, checks))
}

#[test]
fn a_node_has_the_id_and_the_meta_that_were_configured_and_gets_them_back() {
    let world = World::new();
    let agent = world.start(json!({"node_id": ID.to_uppercase(), "node_meta": {"rack": "r1"}}));
    let node = own_node(&world);
    assert_eq!((&*node.id, &*node.meta["rack"]), (ID, "r1"));
    let told = world.get(&agent, "/v1/agent/self").json;
    assert_eq!(told["Config"]["NodeID"], ID);
    assert_eq!(told["Meta"], json!({"rack": "r1"}));

    for (id, rack) in [("", "r1"), (ID, "other")] {
        let mut changed = own_node(&world);
        id.clone_into(&mut changed.id);
        changed.meta.insert("rack".into(), rack.into());
        world.apply(&Command::Register(vec![Registration {
            node: changed,
            keeps: Keeps::Nothing,
            instance: None,
            checks: Vec::new(),
            replace_checks: false,
        }]));
        world.advance(AGENT_SYNC_INTERVAL * 2);
        let node = own_node(&world);
        assert_eq!((&*node.id, &*node.meta["rack"]), (ID, "r1"));
    }
}

#[test]
fn checks_of_a_configuration_are_the_nodes_or_a_services() {
    let world = World::new();
    let agent = world.start(json!({
        "service": {"name": "web", "id": "web-1"},
        "check": {"id": "disk", "name": "Disk", "type": "ttl", "ttl": "30s", "notes": "of the host"},
        "checks": [
            {"name": "port", "tcp": "10.0.0.1:80", "interval": "1s", "service_id": "web-1"},
            {"id": "load", "name": "Load", "args": ["load"], "interval": "1s", "output_max_size": 3},
        ],
    }));
    world.find("10.0.0.1:80", ProbeOutcome::Connected);
    world.find(
        "load",
        ProbeOutcome::Exited {
            code: 1,
            output: "so so".into(),
        },
    );
    world.advance(SECOND * 5);
    let shown = world.get(&agent, "/v1/agent/checks").json;
    assert_eq!(shown["port"]["ServiceID"], "web-1");
    assert_eq!(
        (&shown["disk"]["ServiceID"], &shown["disk"]["Notes"]),
        (&json!(""), &json!("of the host"))
    );
    assert_eq!(world.check("port").map(|(status, _)| status), Some("passing"));
    assert_eq!(world.check("load"), Some(("warning", "so ".into())));
    // The agent renews it for the host.
    world.advance(SECOND * 60);
    assert_eq!(world.status("disk"), "passing");

    let told = world.get(&agent, "/v1/agent/health/service/id/web-1");
    assert_eq!(told.status, 429, "checks of the node count");
}

#[test]
fn what_the_configuration_says_of_the_node_counts_when_it_is_read_again() {
    let world = World::new();
    let before = json!({"checks": [
        {"id": "old", "name": "old", "ttl": "30s"},
        {"id": "both", "name": "both", "ttl": "30s"},
    ]});
    let agent = world.start(before);
    for id in ["own", "new"] {
        let body = json!({"ID": id, "Name": id, "TTL": "30s"});
        assert_eq!(world.put(&agent, "/v1/agent/check/register", body).status, 200);
    }
    let after = json!({"checks": [
        {"id": "both", "name": "both", "ttl": "20s"},
        {"id": "new", "name": "configured", "ttl": "30s"},
    ]});
    let (services, checks) = read(&after).expect("a valid configuration");
    assert_eq!(world.platform.run(agent.reload(services, checks)), Ok(()));
    world.advance(SECOND);
    let checks = ["old", "both", "own", "new"].map(|id| world.check(id).is_some());
    assert_eq!(checks, [false, true, true, true]);
    let shown = world.get(&agent, "/v1/agent/checks").json;
    assert_eq!(shown["new"]["Name"], "configured");

    // A restart finds the same, and the record of what the configuration took over is gone.
    let world = world.restarted();
    let agent = world.start(after);
    let shown = world.get(&agent, "/v1/agent/checks").json;
    assert_eq!(shown["new"]["Name"], "configured");
    assert_eq!(shown.as_object().map(serde_json::Map::len), Some(3));

    // An id that a service of the API's has.
    let body = json!({"Name": "web", "ID": "web-1", "Check": {"CheckID": "taken", "TTL": "30s"}});
    assert_eq!(world.put(&agent, "/v1/agent/service/register", body).status, 200);
    let foreign = json!({"check": {"id": "taken", "name": "x", "ttl": "30s"}});
    let (services, checks) = read(&foreign).expect("a valid configuration");
    assert_eq!(world.platform.run(agent.reload(services, checks)), Ok(()));
    let shown = world.get(&agent, "/v1/agent/checks").json;
    assert_eq!(shown["taken"]["ServiceID"], "");
    assert_eq!(shown["taken"]["Name"], "x");
    world.advance(SECOND);
    let held = world.look(|registry| registry.check(&check_key("taken")).cloned());
    assert!(held.is_some_and(|check| check.instance.is_none()));
}

#[test]
fn what_can_not_be_said_of_a_node_is_refused_in_one_line() {
    let check = |id: &str| json!({"id": id, "name": "c", "ttl": "30s"});
    for (content, named) in [
        (json!({"node_id": "7"}), "node_id: expected a UUID"),
        (json!({"node_meta": {"": "x"}}), "Key cannot be blank"),
        (
            json!({"checks": [check("a"), {"ttl": "30s"}]}),
            "checks[1]: Missing check name",
        ),
        (json!({"check": {"name": "x"}}), "checks[0]: Invalid check"),
        (
            json!({"checks": [check("a"), check("a")]}),
            "check id \"a\" is configured twice",
        ),
        (
            json!({"check": {"name": "x", "ttl": "30s", "service_id": "no"}}),
            "no service of the id \"no\"",
        ),
        (
            json!({"service": {"name": "s", "check": {"id": "a", "ttl": "30s"}}, "check": check("a")}),
            "check id \"a\" is configured twice",
        ),
    ] {
        let error = read(&content).expect_err("it is refused");
        assert!(error.contains(named) && !error.contains('\n'), "{error}");
    }
}
