//! What Consul's agents have beside registrations: maintenance, filters, waits for another content, metrics, and
//! configuration files that are read again.

use std::time::Duration;

use serde_json::{Value, json};

use super::harness::{Link, NODE, World};
use crate::{agent::ConfigFile, limits::AGENT_SERVICES_MAX, registry::NodeName, server::Platform as _};

const SECOND: Duration = Duration::from_secs(1);

fn keys(object: &Value) -> Vec<String> {
    object
        .as_object()
        .map(|object| object.keys().cloned().collect())
        .unwrap_or_default()
}

#[test]
fn maintenance_takes_a_service_out_of_use_until_it_ends() {
    let world = World::new();
    let agent = world.start(json!([{"name": "web", "id": "web-1"}]));
    let path = "/v1/agent/service/maintenance/web-1";
    let told = world.put(&agent, &format!("{path}?enable=true&reason=broken"), json!(null));
    assert_eq!((told.status, told.text.as_str()), (200, ""));
    assert_eq!(world.status("_service_maintenance:web-1"), "critical");
    let shown = world.get(&agent, "/v1/agent/checks").json;
    let check = &shown["_service_maintenance:web-1"];
    assert_eq!(
        (&check["Notes"], &check["Type"]),
        (&json!("broken"), &json!("maintenance"))
    );
    assert_eq!(world.get(&agent, "/v1/agent/health/service/id/web-1").status, 503);

    // It survives the agent, and servers that forget it.
    let world = world.restarted();
    world.lose_everything();
    let agent = world.start(json!([{"name": "web", "id": "web-1"}]));
    assert_eq!(world.status("_service_maintenance:web-1"), "critical");

    for _ in 0..2 {
        let told = world.put(&agent, &format!("{path}?enable=false"), json!(null));
        assert_eq!(told.status, 200, "{told:?}");
        assert_eq!(world.check("_service_maintenance:web-1"), None);
    }
    let world = world.restarted();
    let agent = world.start(json!([{"name": "web", "id": "web-1"}]));
    assert_eq!(world.get(&agent, "/v1/agent/checks").json, json!({}));
    for (path, status) in [
        ("/v1/agent/service/maintenance/nobody?enable=true", 404),
        ("/v1/agent/service/maintenance/web-1", 400),
        ("/v1/agent/service/maintenance/web-1?enable=perhaps", 400),
    ] {
        assert_eq!(world.put(&agent, path, json!(null)).status, status, "{path}");
    }
}

#[test]
fn maintenance_of_the_host_counts_for_all_that_is_on_it() {
    let world = World::new();
    let agent = world.start(json!([{"name": "web", "id": "web-1"}]));
    // While no server can be told, too.
    world.link(0, Link::Refuses);
    let told = world.put(&agent, "/v1/agent/maintenance?enable=true", json!(null));
    assert_eq!(told.status, 200, "{told:?}");
    world.link(0, Link::Up);
    world.advance(SECOND * 10);
    assert_eq!(world.status("_node_maintenance"), "critical");
    assert_eq!(world.get(&agent, "/v1/agent/health/service/id/web-1").status, 503);
    let told = world.put(&agent, "/v1/agent/maintenance?enable=false", json!(null));
    assert_eq!(told.status, 200, "{told:?}");
    assert_eq!(world.check("_node_maintenance"), None);
    assert_eq!(world.get(&agent, "/v1/agent/health/service/id/web-1").status, 200);
}

#[test]
fn lists_are_narrowed_by_a_filter() {
    let world = World::new();
    let agent = world.start(json!([
        {"name": "web", "id": "web-1", "tags": ["blue"], "checks": [{"type": "ttl", "ttl": "30s"}]},
        {"name": "db", "id": "db-1"},
    ]));
    let narrowed = |path: &str| keys(&world.get(&agent, path).json);
    assert_eq!(narrowed("/v1/agent/services?filter=Service==db"), ["db-1"]);
    assert_eq!(narrowed("/v1/agent/services?filter=blue+in+Tags"), ["web-1"]);
    assert_eq!(
        narrowed("/v1/agent/checks?filter=Status==critical"),
        Vec::<String>::new()
    );
    assert_eq!(narrowed("/v1/agent/checks?filter=ServiceName==web").len(), 1);
    let told = world.get(&agent, "/v1/agent/services?filter=Nothing==db");
    assert_eq!(told.status, 500, "{told:?}");
}

#[test]
fn who_knows_the_hash_waits_for_another_one() {
    let world = World::new();
    let agent = world.start(json!([]));
    let register = |port: u16| {
        let body = json!({"Name": "web", "ID": "web-1", "Port": port});
        assert_eq!(world.put(&agent, "/v1/agent/service/register", body).status, 200);
    };
    register(80);
    let first = world.get(&agent, "/v1/agent/service/web-1");
    let hash = first.headers["x-consul-contenthash"].to_str().unwrap_or_default();
    assert_eq!(first.json["ContentHash"], hash);
    let path = format!("/v1/agent/service/web-1?hash={hash}&wait=3s");
    let before = world.platform.now();
    let same = world.get(&agent, &path);
    assert_eq!(world.platform.now().saturating_since(before), SECOND * 3);
    assert_eq!(same.json, first.json);

    let waiting = world.begin(&agent, &path);
    register(80);
    world.advance(SECOND);
    assert!(
        waiting.lock().expect("nobody panics").is_none(),
        "nothing is another"
    );
    register(81);
    let told = waiting.lock().expect("nobody panics").take();
    assert_eq!(told.expect("it was woken").json["Port"], 81);
    let other = world.get(&agent, &path);
    assert_eq!(other.json["Port"], 81, "it was another one already");

    let hash = other.json["ContentHash"].as_str().unwrap_or_default().to_owned();
    let waiting = world.begin(&agent, &format!("/v1/agent/service/web-1?hash={hash}"));
    world.put(&agent, "/v1/agent/service/deregister/web-1", json!(null));
    let told = waiting.lock().expect("nobody panics").take();
    assert_eq!(told.expect("it was woken").status, 404);
}

#[test]
fn the_agent_counts_what_it_has() {
    let world = World::new();
    let agent =
        world.start(json!([{"name": "web", "id": "web-1", "checks": [{"type": "ttl", "ttl": "30s"}]}]));
    let told = world.get(&agent, "/v1/agent/metrics?format=prometheus");
    assert!(told.text.contains("\nsider_agent_services 1\n"), "{}", told.text);
    assert_eq!(told.text, world.get(&agent, "/metrics").text);
    let told = world.get(&agent, "/v1/agent/metrics").json;
    let gauges = told["Gauges"].as_array().cloned().unwrap_or_default();
    assert!(
        gauges
            .iter()
            .any(|gauge| gauge["Name"] == "sider_agent_checks_passing" && gauge["Value"] == 1.0),
        "{told}"
    );
    // There is no process around it that could be asked.
    for path in ["/v1/agent/host", "/v1/agent/monitor"] {
        assert_eq!(world.get(&agent, path).status, 501, "{path}");
    }
    assert_eq!(world.put(&agent, "/v1/agent/reload", json!(null)).status, 501);
}

#[test]
fn a_configuration_that_is_read_again_counts() {
    let world = World::new();
    let read = |services: Value| {
        let file = ConfigFile::parse(&services).expect("a valid configuration");
        let node = NodeName::parse(NODE).expect("a valid name");
        file.services(&node, "10.0.0.1").expect("valid services")
    };
    let check = |id: &str| json!({"type": "ttl", "ttl": "30s", "id": id});
    let agent = world.start(json!([
        {"name": "web", "id": "web-1", "port": 80, "checks": [check("old"), check("both")]},
        {"name": "gone", "id": "gone-1"},
    ]));
    for body in [
        json!({"Name": "own", "ID": "own-1"}),
        json!({"Name": "api", "ID": "api-1"}),
    ] {
        assert_eq!(world.put(&agent, "/v1/agent/service/register", body).status, 200);
    }
    let extra = json!({"Name": "extra", "ServiceID": "web-1", "TTL": "60s"});
    assert_eq!(world.put(&agent, "/v1/agent/check/register", extra).status, 200);

    let again = json!([
        {"name": "web", "id": "web-1", "port": 81, "checks": [check("both"), check("new")]},
        {"name": "api", "id": "api-1", "port": 82},
    ]);
    let reloaded = world.platform.run(agent.reload(read(again.clone()), Vec::new()));
    assert_eq!(reloaded, Ok(()));
    world.advance(SECOND);
    let services = world.get(&agent, "/v1/agent/services").json;
    assert_eq!(keys(&services), ["api-1", "own-1", "web-1"]);
    assert_eq!(
        (&services["web-1"]["Port"], &services["api-1"]["Port"]),
        (&json!(81), &json!(82))
    );
    assert_eq!(
        keys(&world.get(&agent, "/v1/agent/checks").json),
        ["both", "extra", "new"]
    );
    assert!(!world.has("gone-1") && world.has("own-1"));
    assert_eq!((world.check("old"), world.status("new")), (None, "passing"));

    // What can't be taken on changes nothing.
    let many = (0..AGENT_SERVICES_MAX).map(|number| json!({"name": format!("s{number}")}));
    let crowd = Value::Array(many.collect());
    let refused = world.platform.run(agent.reload(read(crowd), Vec::new()));
    assert!(refused.is_err_and(|reason| reason.contains("too many services")));
    assert_eq!(keys(&world.get(&agent, "/v1/agent/services").json).len(), 3);

    // A restart finds the same.
    let world = world.restarted();
    let agent = world.start(again);
    let services = world.get(&agent, "/v1/agent/services").json;
    assert_eq!(keys(&services), ["api-1", "own-1", "web-1"]);
    assert_eq!(services["api-1"]["Port"], 82);
    assert_eq!(
        keys(&world.get(&agent, "/v1/agent/checks").json),
        ["both", "extra", "new"]
    );
}

#[test]
fn an_alias_has_the_status_of_what_it_stands_for() {
    let world = World::new();
    let agent = world.start(json!([
        {"name": "web", "id": "web-1", "checks": [{"type": "ttl", "ttl": "60s", "id": "alive"}]},
        {"name": "proxy", "id": "proxy-1", "check": {"AliasService": "web-1", "CheckID": "follows"}},
        {"name": "lone", "id": "lone-1", "check": {"AliasNode": NODE, "CheckID": "host"}},
        {"name": "far", "id": "far-1", "check": {"AliasNode": "elsewhere", "CheckID": "other"}},
    ]));
    world.advance(SECOND * 2);
    let statuses = || ["follows", "host", "other"].map(|id| world.status(id));
    assert_eq!(statuses(), ["passing", "passing", "critical"]);
    world.put(&agent, "/v1/agent/check/warn/alive?note=hm", json!(null));
    world.advance(SECOND * 2);
    assert_eq!(statuses(), ["warning", "passing", "critical"]);
    let follows = world.check("follows");
    assert_eq!(
        follows,
        Some((
            "warning",
            "Aliased check \"Service 'web' check\" failing: hm".into()
        ))
    );
    world.put(&agent, "/v1/agent/maintenance?enable=true", json!(null));
    world.advance(SECOND * 2);
    assert_eq!(statuses(), ["critical", "critical", "critical"]);
    world.put(&agent, "/v1/agent/maintenance?enable=false", json!(null));
    world.put(&agent, "/v1/agent/check/pass/alive", json!(null));
    world.advance(SECOND * 2);
    assert_eq!(statuses(), ["passing", "passing", "critical"]);
}

#[test]
fn what_cannot_be_understood_is_refused_before_anything_is_kept_or_waited_for() {
    let world = World::new();
    let agent = world.start(json!([{"name": "web", "id": "web-1"}]));
    for (path, status) in [
        ("/v1/agent/service/web-1?hash=x&wait=banana", 400),
        ("/v1/health/service/web?cached&wait=banana", 400),
        ("/v1/health/service/web?cached&index=abc", 400),
        ("/v1/health/service/web?cached&stale&consistent", 400),
        ("/v1/agent/service/", 404),
        ("/v1/agent/health/service/name/", 400),
    ] {
        assert_eq!(world.get(&agent, path).status, status, "{path}");
    }
    let told = world.put(&agent, "/v1/agent/service/register", json!({"Name": "own"}));
    assert_eq!(told.status, 200, "{told:?}");
    let told = world.put(&agent, "/v1/agent/service/deregister/own", json!(null));
    assert_eq!(
        told.json["Index"],
        json!(world.look(crate::registry::Registry::index))
    );
}
