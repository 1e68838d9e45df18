//! What an agent keeps as Consul's agents do: tags that others changed, the status of a check that is registered again, and
//! aliases that follow at once.

use std::time::Duration;

use serde_json::{Value, json};

use super::harness::{World, check_key, instance_key};
use crate::limits::AGENT_SYNC_INTERVAL;

const SECOND: Duration = Duration::from_secs(1);

fn tags(world: &World) -> Vec<String> {
    let held = world.look(|registry| registry.instance(&instance_key("web-1")).cloned());
    held.map(|instance| instance.tags.clone()).unwrap_or_default()
}

fn web(tags: &[&str], port: u16) -> Value {
    json!({"Name": "web", "ID": "web-1", "Tags": tags, "Port": port, "EnableTagOverride": true})
}

/// Somebody changes the tags in the catalog, through one of the servers.
fn retag(world: &World, agent: &crate::agent::Agent<super::harness::TestRuntime>, tags: &[&str], port: u16) {
    let body = json!({"Node": "host-1", "Address": "10.0.0.1", "SkipNodeUpdate": true, "Service":
        {"ID": "web-1", "Service": "web", "Tags": tags, "Port": port, "EnableTagOverride": true}});
    assert_eq!(world.put(agent, "/v1/catalog/register", body).status, 200);
}

#[test]
fn tags_that_others_changed_survive_the_agent() {
    for by_config in [false, true] {
        let world = World::new();
        let service =
            json!({"name": "web", "id": "web-1", "tags": ["old"], "port": 80, "enable_tag_override": true});
        let config = if by_config { json!([service]) } else { json!([]) };
        let agent = world.start(config.clone());
        if !by_config {
            let told = world.put(&agent, "/v1/agent/service/register", web(&["old"], 80));
            assert_eq!(told.status, 200, "{told:?}");
        }
        retag(&world, &agent, &["new"], 80);
        let world = world.restarted();
        world.writes();
        let agent = world.start(config);
        world.advance(AGENT_SYNC_INTERVAL * 2);
        assert_eq!(tags(&world), ["new"]);
        let shown = world.get(&agent, "/v1/agent/service/web-1").json;
        assert_eq!(shown["Tags"], json!(["new"]));
        let writes = world.writes();
        assert!(
            writes.iter().all(|(_, body)| !body.contains("\"old\"")),
            "{writes:?}"
        );

        // What is different beside the tags is put right, and they stay.
        retag(&world, &agent, &["newer"], 81);
        world.advance(AGENT_SYNC_INTERVAL * 2);
        assert_eq!(tags(&world), ["newer"]);
        let port = world.look(|registry| registry.instance(&instance_key("web-1")).map(|it| it.port));
        assert_eq!(port, Some(80));

        // Who registers it anew says what they are.
        world.put(&agent, "/v1/agent/service/register", web(&["own"], 80));
        assert_eq!(tags(&world), ["own"]);
        world.advance(AGENT_SYNC_INTERVAL * 2);
        assert_eq!(tags(&world), ["own"]);
    }
}

#[test]
fn what_is_new_waits_for_no_comparison_after_a_restart() {
    let world = World::new();
    let agent = world.start(json!([]));
    world.put(&agent, "/v1/agent/service/register", web(&["old"], 80));
    let world = world.restarted();
    let config = world.config(json!([]));
    let agent = world.start_with(config).expect("the agent starts");
    let told = world.put(&agent, "/v1/agent/service/register", web(&["own"], 82));
    assert!(told.json["Index"].is_u64(), "{told:?}");
    world.advance(AGENT_SYNC_INTERVAL * 2);
    assert_eq!(tags(&world), ["own"]);
    // Nor does a removal.
    let world = world.restarted();
    let config = world.config(json!([]));
    let agent = world.start_with(config).expect("the agent starts");
    let told = world.put(&agent, "/v1/agent/service/deregister/web-1", json!(null));
    assert_eq!(told.status, 200, "{told:?}");
    world.advance(SECOND);
    assert!(!world.has("web-1"));
}

#[test]
fn a_check_that_is_registered_again_keeps_its_status() {
    let world = World::new();
    let agent = world.start(json!([{"name": "web", "id": "web-1"}]));
    let put = |body: Value| {
        let told = world.put(&agent, "/v1/agent/check/register", body);
        assert_eq!(told.status, 200, "{told:?}");
    };
    let beat = |notes: &str, ttl: &str, status: &str| {
        put(
            json!({"ID": "beat", "Name": "beat", "ServiceID": "web-1", "TTL": ttl, "Notes": notes, "Status": status}),
        );
    };
    beat("", "30s", "warning");
    assert_eq!(world.status("beat"), "warning");
    world.put(&agent, "/v1/agent/check/pass/beat?note=fine", json!(null));
    for (notes, ttl) in [("more", "30s"), ("more", "40s")] {
        beat(notes, ttl, "critical");
        assert_eq!(world.check("beat"), Some(("passing", "fine".into())));
        let shown = world.get(&agent, "/v1/agent/checks").json;
        assert_eq!(shown["beat"]["Status"], "passing");
        assert_eq!(shown["beat"]["Output"], "fine");
        assert_eq!(shown["beat"]["Notes"], "more");
    }
    // Nobody renewed it.
    world.advance(SECOND * 41);
    assert_eq!(world.status("beat"), "critical");
    let shown = world.get(&agent, "/v1/agent/checks").json;
    assert_eq!(shown["beat"]["Status"], "critical");
    let notes = world.look(|registry| {
        registry
            .check(&check_key("beat"))
            .map(|check| check.notes.clone())
    });
    assert_eq!(notes.as_deref(), Some("more"));

    let probe = |interval: &str| {
        put(json!({"ID": "up", "Name": "up", "TCP": "h:1", "Interval": interval, "Status": "passing"}));
    };
    probe("60s");
    assert_eq!(world.status("up"), "passing");
    world.advance(SECOND * 5);
    let found = world.check("up");
    assert_eq!(world.status("up"), "critical", "nobody is there");
    probe("70s");
    assert_eq!(world.check("up"), found);
}

#[test]
fn an_alias_follows_at_once() {
    let world = World::new();
    let agent = world.start(json!([]));
    let put = |path: &str, body: Value| {
        let told = world.put(&agent, path, body);
        assert_eq!(told.status, 200, "{told:?}");
        // No time to speak of passes.
        world.advance(Duration::from_millis(10));
    };
    let alias = |of: &str, id: &str| json!({"Name": id, "ID": id, "Check": {"AliasService": of, "CheckID": format!("of-{of}")}});
    put(
        "/v1/agent/service/register",
        json!({"Name": "web", "ID": "web-1", "Check": {"TTL": "60s", "CheckID": "beat", "Status": "passing"}}),
    );
    put("/v1/agent/service/register", alias("web-1", "proxy-1"));
    put("/v1/agent/service/register", alias("proxy-1", "second-1"));
    let statuses = || ["of-web-1", "of-proxy-1"].map(|id| world.status(id));
    assert_eq!(statuses(), ["passing"; 2]);
    put("/v1/agent/check/warn/beat", json!(null));
    assert_eq!(statuses(), ["warning"; 2]);
    put("/v1/agent/maintenance?enable=true", json!(null));
    assert_eq!(statuses(), ["critical"; 2]);
    put("/v1/agent/maintenance?enable=false", json!(null));
    assert_eq!(statuses(), ["warning"; 2]);
    put("/v1/agent/service/deregister/web-1", json!(null));
    assert_eq!(statuses(), ["critical"; 2]);

    // A circle comes to an end.
    put("/v1/agent/service/register", alias("second-1", "web-1"));
    world.advance(SECOND * 3);
    assert_eq!(statuses()[0], statuses()[1]);
}

#[test]
fn a_check_of_two_services_is_the_last_ones() {
    let world = World::new();
    let agent = world.start(json!([]));
    let register = |world: &World, agent: &crate::agent::Agent<super::harness::TestRuntime>, id: &str| {
        let check = json!({"CheckID": "shared", "Name": "shared", "TTL": "60s"});
        let told = world.put(
            agent,
            "/v1/agent/service/register",
            json!({"Name": id, "ID": id, "Check": check}),
        );
        assert_eq!(told.status, 200, "{told:?}");
    };
    let owners = |world: &World, agent: &crate::agent::Agent<super::harness::TestRuntime>| {
        let held = world.look(|registry| registry.check(&check_key("shared")).cloned());
        let held = held.and_then(|check| check.instance.clone());
        let shown = world.get(agent, "/v1/agent/checks").json["shared"]["ServiceID"].clone();
        (held.map(|id| id.to_string()), shown)
    };
    let (mut world, mut agent) = (world, agent);
    // Whichever comes first by its name.
    for (first, last) in [("a", "b"), ("b", "a")] {
        register(&world, &agent, first);
        world.put(&agent, "/v1/agent/check/warn/shared?note=hm", json!(null));
        register(&world, &agent, last);
        let of_last = (Some(last.to_owned()), json!(last));
        assert_eq!(owners(&world, &agent), of_last);
        assert_eq!(world.check("shared"), Some(("warning", "hm".into())));
        world.advance(AGENT_SYNC_INTERVAL * 2);
        assert_eq!(owners(&world, &agent), of_last);
        world = world.restarted();
        agent = world.start(json!([]));
        assert_eq!(owners(&world, &agent), of_last);
    }
    // It may become the node's.
    let told = world.put(
        &agent,
        "/v1/agent/check/register",
        json!({"ID": "shared", "Name": "shared", "TTL": "60s"}),
    );
    assert_eq!(told.status, 200, "{told:?}");
    assert_eq!(owners(&world, &agent), (None, json!("")));
    world.put(&agent, "/v1/agent/check/deregister/shared", json!(null));
    register(&world, &agent, "a");
    world.advance(AGENT_SYNC_INTERVAL * 2);
    assert_eq!(owners(&world, &agent), (Some("a".to_owned()), json!("a")));
    // What the configuration says of it counts, from its next start on.
    let world = world.restarted();
    let check = json!({"type": "ttl", "ttl": "60s", "id": "shared"});
    let agent = world.start(json!([{"name": "c", "checks": [check]}, {"name": "d", "checks": [check]}]));
    assert_eq!(owners(&world, &agent), (Some("d".to_owned()), json!("d")));
    assert!(world.has("a") && world.has("c"));
}

#[test]
fn ttl_checks_of_the_configuration_in_consuls_form_are_their_services_to_renew() {
    let world = World::new();
    let with = |notes: &str| {
        json!([
            {"name": "own", "checks": [{"type": "ttl", "ttl": "3s", "id": "own", "notes": notes}]},
            {"name": "web", "checks": [
                {"CheckID": "beat", "TTL": "10s", "Notes": notes},
                {"CheckID": "begun", "TTL": "10s", "Status": "passing"},
            ]},
        ])
    };
    let agent = world.start(with(""));
    let statuses = || ["own", "beat", "begun"].map(|id| world.status(id));
    assert_eq!(statuses(), ["passing", "critical", "passing"]);
    world.put(&agent, "/v1/agent/check/warn/beat?note=hm", json!(null));
    world.put(&agent, "/v1/agent/check/warn/own?note=hm", json!(null));
    // It is read again, with and without a difference.
    for notes in ["", "more"] {
        let config = world.config(with(notes));
        world
            .platform
            .run(agent.reload(config.services, config.checks))
            .expect("it is taken on");
        world.advance(SECOND);
        assert_eq!(statuses(), ["warning", "warning", "passing"], "{notes}");
        assert_eq!(world.check("beat"), Some(("warning", "hm".into())));
    }
    world.advance(SECOND * 15);
    assert_eq!(statuses(), ["warning", "critical", "critical"]);
    let shown = world.get(&agent, "/v1/agent/checks").json;
    assert_eq!(shown["beat"]["Status"], "critical");
}

#[test]
fn what_services_reported_outlives_an_agent_that_is_stopped_and_no_ttl() {
    let world = World::new();
    let beating = json!([{"name": "web", "checks": [{"CheckID": "file", "TTL": "20s"}]}]);
    let agent = world.start(beating.clone());
    world.put(
        &agent,
        "/v1/agent/service/register",
        json!({"Name": "api", "Checks": [{"CheckID": "long", "TTL": "20s"}, {"CheckID": "short", "TTL": "2s"}]}),
    );
    for id in ["file", "long", "short"] {
        let told = world.put(&agent, &format!("/v1/agent/check/warn/{id}?note=hm"), json!(null));
        assert_eq!(told.status, 200, "{told:?}");
    }
    world.advance(SECOND);
    assert_eq!(world.platform.run(agent.shutdown()), Ok(()));
    assert!(!world.has("api"));
    let world = world.restarted();
    world.advance(SECOND * 4);
    let agent = world.start(beating.clone());
    for id in ["file", "long"] {
        assert_eq!(world.check(id), Some(("warning", "hm".into())));
    }
    assert_eq!(world.status("short"), "critical");
    // Who renews it in time is well.
    world.put(&agent, "/v1/agent/check/pass/file?note=fine", json!(null));
    world.advance(SECOND * 14);
    assert_eq!(world.status("long"), "warning");
    world.advance(SECOND * 2);
    let expired = "TTL expired (last output before timeout follows): hm";
    assert_eq!(world.check("long"), Some(("critical", expired.into())));
    let shown = world.get(&agent, "/v1/agent/checks").json;
    assert_eq!(shown["long"]["Output"], expired);
    assert_eq!(world.check("file"), Some(("passing", "fine".into())));

    // After a crash the servers know.
    let world = world.restarted();
    let agent = world.start(beating);
    assert_eq!(world.check("file"), Some(("passing", "fine".into())));
    world.advance(SECOND * 8);
    assert_eq!(world.status("file"), "critical", "no restart is a renewal");

    // One that does not leave takes nothing along.
    world.put(&agent, "/v1/agent/check/pass/file?note=fine", json!(null));
    world.platform.run(agent.stop());
    assert!(world.has("api"));
    assert_eq!(world.check("file"), Some(("passing", "fine".into())));
}
