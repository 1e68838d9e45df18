//! What a configuration says of the node itself: its id, its meta, and checks that stand by themselves.

use std::time::Duration;

use serde_json::{Value, json};

use super::harness::{Link, NODE, World, check_key};
use crate::{
    agent::{AgentConfig, ConfigFile, ConfiguredCheck, ConfiguredService, bind_checks},
    limits::{AGENT_NODE_TTL, AGENT_SYNC_INTERVAL, EXPIRY_BOUND},
    registry::{
        CheckDefinition, CheckDefinitionUpdate, CheckStatus, Command, Deregister, Instance, InstanceId,
        Keeps, Namespace, Node, NodeName, Registration, ServiceName,
    },
    runtime::ProbeOutcome,
};

const SECOND: Duration = Duration::from_secs(1);
const ID: &str = "40e4a748-2192-161a-0510-9bf59fe950b5";

fn own_node(world: &World) -> Node {
    let node = world.look(|registry| registry.node(&own_node_name()).cloned());
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
fn servers_know_whether_a_host_is_alive() {
    let services = json!([{"name": "web", "id": "web-1"}]);
    let start = |world: &World| {
        let config = AgentConfig {
            node_ttl: Some(AGENT_NODE_TTL),
            ..world.config(services.clone())
        };
        world.start_with(config).expect("the agent starts")
    };
    let world = World::new();
    let agent = start(&world);
    world.advance(SECOND);
    let alive = ("passing", "Agent alive and reachable".to_owned());
    assert_eq!(world.check("serfHealth"), Some(alive.clone()));
    // It is the servers' to show, and the agent's alone to renew.
    assert_eq!(world.get(&agent, "/v1/agent/checks").json, json!({}));
    let health = world.get(&agent, "/v1/agent/health/service/id/web-1").json;
    assert_eq!(health["Checks"], json!([]));
    for path in ["check/pass", "check/fail", "check/deregister"] {
        let path = format!("/v1/agent/{path}/serfHealth");
        assert_eq!(world.put(&agent, &path, json!({})).status, 404, "{path}");
    }
    let own = json!({"ID": "serfHealth", "Name": "x", "TTL": "1h"});
    let refused = world.put(&agent, "/v1/agent/check/register", own.clone());
    assert_eq!(refused.status, 400, "{}", refused.text);
    let of_service = json!({"Name": "db", "Check": {"CheckID": "serfHealth", "TTL": "1h"}});
    let refused = world.put(&agent, "/v1/agent/service/register", of_service);
    assert_eq!(refused.status, 400, "{}", refused.text);

    // Reading the configuration again, a removal by others, and a server that is silent for a while change nothing.
    let (configured, checks) = read(&services).expect("a valid configuration");
    assert_eq!(world.platform.run(agent.reload(configured, checks)), Ok(()));
    world.apply(&Command::Deregister(Deregister::Check(check_key("serfHealth"))));
    world.advance(AGENT_NODE_TTL / 2);
    assert_eq!(world.check("serfHealth"), Some(alive.clone()));
    for second in 0..60 {
        let silent = second % 20 < 6;
        world.link(0, if silent { Link::Silent } else { Link::Up });
        world.advance(SECOND);
        assert_eq!(world.status("serfHealth"), "passing");
    }

    let world = world.restarted();
    world.advance(AGENT_NODE_TTL + EXPIRY_BOUND);
    assert_eq!(world.status("serfHealth"), "critical");
    start(&world);
    world.advance(SECOND);
    assert_eq!(world.check("serfHealth"), Some(alive));
}

#[test]
fn a_server_on_the_same_node_keeps_it_alive() {
    let world = World::new();
    let config = AgentConfig {
        node_ttl: Some(AGENT_NODE_TTL),
        ..world.config(json!([{"name": "web", "id": "web-1"}]))
    };
    world.start_with(config).expect("the agent starts");
    world.advance(SECOND);
    let registered = |check: CheckDefinitionUpdate, instance: Option<Instance>| {
        let command = Command::Register(vec![Registration {
            node: own_node(&world),
            keeps: Keeps::Nothing,
            instance,
            checks: vec![check],
            replace_checks: false,
        }]);
        world.apply(&command);
    };
    // As a leader enters its servers.
    let alive =
        CheckDefinitionUpdate::aliveness(own_node_name(), CheckDefinition::default(), CheckStatus::Passing);
    let mut server = world.look(|registry| {
        let (namespace, node) = (Namespace::default(), own_node_name());
        let mut instances = registry.instances_of_node(&namespace, &node);
        instances.next().cloned().expect("one is there")
    });
    server.id = InstanceId::parse("consul").expect("a valid id");
    server.service = ServiceName::parse("consul").expect("a valid name");
    registered(alive, Some(server));
    world.advance(AGENT_SYNC_INTERVAL * 2);
    let check = world.look(|registry| registry.check(&check_key("serfHealth")).cloned());
    let check = check.expect("it is there");
    assert_eq!(
        (check.definition.ttl(), check.status),
        (None, CheckStatus::Passing)
    );
    let services = world.look(|registry| {
        let (namespace, node) = (Namespace::default(), own_node_name());
        let instances = registry.instances_of_node(&namespace, &node);
        instances
            .map(|instance| instance.id.to_string())
            .collect::<Vec<_>>()
    });
    assert_eq!(services, ["consul", "web-1"]);
}

#[test]
fn a_configured_check_does_not_take_the_place_of_the_hosts() {
    let world = World::new();
    let taken = json!([{"name": "web", "checks": [{"type": "ttl", "ttl": "30s", "id": "serfHealth"}]}]);
    let config = AgentConfig {
        node_ttl: Some(AGENT_NODE_TTL),
        ..world.config(taken)
    };
    let error = world.start_with(config).expect_err("it is refused").to_string();
    assert!(
        error.contains("serfHealth") && error.contains("agent's own"),
        "{error}"
    );
}

fn own_node_name() -> NodeName {
    NodeName::parse(NODE).expect("a valid name")
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
