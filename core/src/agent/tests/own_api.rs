//! The agent's own API: what it takes, refuses, keeps and shows.

use std::time::Duration;

use serde_json::{Value, json};

use super::harness::{Link, World};
use crate::{
    limits::{AGENT_ANSWER_TIMEOUT, AGENT_BACKOFF_MAX, AGENT_SYNC_INTERVAL, EXPIRY_BOUND},
    runtime::ProbeOutcome,
    server::Platform as _,
};

const SECOND: Duration = Duration::from_secs(1);

fn web() -> Value {
    json!({"Name": "web", "ID": "web-1", "Port": 80, "Checks": [{"type": "ttl", "ttl": "3s"}]})
}

#[test]
fn a_service_registers_renews_and_deregisters() {
    let world = World::new();
    let agent = world.start(json!([]));
    let told = world.put(&agent, "/v1/agent/service/register", web());
    assert_eq!(told.status, 200, "{told:?}");
    assert_eq!(told.json["CheckIDs"], json!(["chk:web-1:0"]));
    assert_eq!(
        told.json["Index"],
        json!(world.look(crate::registry::Registry::index))
    );
    assert_eq!(world.status("chk:web-1:0"), "critical", "until it is renewed");

    assert_eq!(
        world
            .put(&agent, "/v1/agent/check/pass/chk:web-1:0?note=fine", json!(null))
            .status,
        200
    );
    assert_eq!(world.check("chk:web-1:0"), Some(("passing", "fine".into())));
    for _ in 0..5 {
        world.advance(SECOND * 2);
        assert_eq!(
            world
                .put(&agent, "/v1/agent/service/heartbeat/web-1", json!(null))
                .status,
            200
        );
        assert_eq!(world.status("chk:web-1:0"), "passing");
    }
    // The agent does not renew for the service.
    world.advance(SECOND * 3 + EXPIRY_BOUND);
    assert_eq!(world.status("chk:web-1:0"), "critical");

    let told = world.put(&agent, "/v1/agent/service/deregister/web-1", json!(null));
    assert_eq!(told.status, 200, "{told:?}");
    assert!(!world.has("web-1"));
    let told = world.put(&agent, "/v1/agent/service/deregister/web-1", json!(null));
    assert_eq!(told.status, 404, "{told:?}");
}

#[test]
fn reports_reach_the_servers_word_for_word() {
    let world = World::new();
    let agent = world.start(json!([]));
    world.put(&agent, "/v1/agent/service/register", web());
    for (path, body, status, output) in [
        ("warn/chk:web-1:0?note=hm", Value::Null, "warning", "hm"),
        ("fail/chk:web-1:0?note=no", Value::Null, "critical", "no"),
        ("pass/chk:web-1:0", Value::Null, "passing", ""),
        (
            "update/chk:web-1:0",
            json!({"Status": "warning", "Output": "so so"}),
            "warning",
            "so so",
        ),
    ] {
        let told = world.put(&agent, &format!("/v1/agent/check/{path}"), body);
        assert_eq!(told.status, 200, "{told:?}");
        assert_eq!(
            world.check("chk:web-1:0"),
            Some((status, output.to_owned())),
            "{path}"
        );
    }
    let told = world.put(
        &agent,
        "/v1/agent/service/heartbeat",
        json!({"service": "web", "address": "10.0.0.1", "port": 80}),
    );
    assert_eq!(told.status, 200, "{told:?}");
    assert_eq!(world.status("chk:web-1:0"), "passing");
}

#[test]
fn what_was_critical_for_too_long_goes_at_once_and_its_checks_stay_away() {
    let world = World::new();
    let agent = world.start(json!([]));
    let web = json!({"Name": "web", "ID": "web-1", "Check": {"CheckID": "probe", "TCP": "10.0.0.1:80",
        "Interval": "1s", "DeregisterCriticalServiceAfter": "2s"}});
    let more = json!({"Name": "more", "ID": "more", "ServiceID": "web-1", "TTL": "60s"});
    assert_eq!(
        world
            .put(&agent, "/v1/agent/service/register", web.clone())
            .status,
        200
    );
    assert_eq!(world.put(&agent, "/v1/agent/check/register", more).status, 200);
    world.advance(SECOND * 4);
    assert!(SECOND * 4 < AGENT_SYNC_INTERVAL && !world.has("web-1"));
    assert_eq!(world.put(&agent, "/v1/agent/service/register", web).status, 200);
    let again = world.restarted();
    let _agent = again.start(json!([]));
    assert!(again.has("web-1"));
    assert_eq!(again.check("more"), None);
}

#[test]
fn registrations_survive_a_restart_and_keep_their_status() {
    let world = World::new();
    let agent = world.start(json!([]));
    world.put(&agent, "/v1/agent/service/register", web());
    world.put(
        &agent,
        "/v1/agent/service/register?ns=team",
        json!({"Name": "other", "Check": {"TTL": "60s", "Status": "passing"}}),
    );
    world.put(
        &agent,
        "/v1/agent/check/register",
        json!({"Name": "extra", "ServiceID": "web-1", "TTL": "60s", "Status": "warning"}),
    );
    world.put(
        &agent,
        "/v1/agent/check/register",
        json!({"Name": "disk", "TTL": "60s", "Status": "passing"}),
    );
    world.put(&agent, "/v1/agent/check/pass/chk:web-1:0", json!(null));
    world.put(&agent, "/v1/agent/service/register", json!({"Name": "gone"}));
    world.put(&agent, "/v1/agent/service/deregister/gone", json!(null));

    let again = world.restarted();
    let agent = again.start(json!([]));
    again.advance(SECOND);
    assert!(again.has("web-1") && !again.has("gone"));
    assert_eq!(
        again.status("chk:web-1:0"),
        "passing",
        "a restart of the agent is none of the service"
    );
    assert_eq!(
        (again.status("extra"), again.status("disk")),
        ("warning", "passing")
    );
    let told = again.get(&agent, "/v1/agent/services?ns=team");
    assert_eq!(told.json["other"]["Service"], json!("other"));
    // It is not renewed by the restart either.
    again.advance(SECOND * 2 + EXPIRY_BOUND);
    assert_eq!(again.status("chk:web-1:0"), "critical");
}

#[test]
fn a_check_that_was_replaced_does_not_come_back_with_a_restart() {
    let world = World::new();
    let agent = world.start(json!([]));
    world.put(&agent, "/v1/agent/service/register", web());
    let extra = json!({"Name": "extra", "ServiceID": "web-1", "TTL": "60s"});
    world.put(&agent, "/v1/agent/check/register", extra);
    let path = "/v1/agent/service/register?replace-existing-checks=true";
    assert_eq!(world.put(&agent, path, web()).status, 200);
    let again = world.restarted();
    let agent = again.start(json!([]));
    let checks = again.get(&agent, "/v1/agent/checks").json;
    let ids: Vec<_> = checks.as_object().expect("an object").keys().collect();
    assert_eq!(ids, ["chk:web-1:0"]);
}

#[test]
fn the_configuration_has_precedence_after_a_restart() {
    let world = World::new();
    let agent = world.start(json!([]));
    world.put(&agent, "/v1/agent/service/register", web());
    let again = world.restarted();
    let agent = again.start(json!([{"name": "web", "id": "web-1", "port": 81}]));
    assert_eq!(
        again.get(&agent, "/v1/agent/service/web-1").json["Port"],
        json!(81)
    );
    again.put(&agent, "/v1/agent/service/deregister/web-1", json!(null));
    let third = again.restarted();
    let agent = third.start(json!([]));
    assert_eq!(
        third.get(&agent, "/v1/agent/service/web-1").status,
        404,
        "its record is gone"
    );
}

#[test]
fn a_comparison_does_not_prolong_a_ttl() {
    let world = World::new();
    let agent = world.start(json!([]));
    let mut slow = web();
    slow["Checks"][0]["ttl"] = json!("40s");
    world.put(&agent, "/v1/agent/service/register", slow.clone());
    world.put(&agent, "/v1/agent/check/pass/chk:web-1:0", json!(null));
    world.advance(SECOND * 20);
    // The same registration again, and whatever comparisons fall into this time, renew nothing.
    world.put(&agent, "/v1/agent/service/register", slow);
    world.advance(SECOND * 20 + EXPIRY_BOUND);
    assert_eq!(world.status("chk:web-1:0"), "critical");
}

#[test]
fn a_renewal_of_what_the_servers_lost_brings_it_back() {
    let world = World::new();
    let agent = world.start(json!([]));
    world.put(&agent, "/v1/agent/service/register", web());
    world.lose_everything();
    let told = world.put(&agent, "/v1/agent/check/pass/chk:web-1:0?note=here", json!(null));
    assert_eq!(told.status, 200, "{told:?}");
    assert_eq!(world.check("chk:web-1:0"), Some(("passing", "here".into())));
    // That counts as the renewal that it was.
    world.advance(SECOND * 2);
    assert_eq!(world.status("chk:web-1:0"), "passing");
}

#[test]
fn without_servers_registrations_stand_and_renewals_fail() {
    let world = World::new();
    let agent = world.start(json!([]));
    world.link(0, Link::Refuses);
    let told = world.put(&agent, "/v1/agent/service/register", web());
    assert_eq!(
        (told.status, &told.json["Index"]),
        (200, &Value::Null),
        "{told:?}"
    );
    let told = world.put(&agent, "/v1/agent/check/pass/chk:web-1:0", json!(null));
    assert_eq!(
        told.status, 500,
        "an unheard renewal is not acknowledged: {told:?}"
    );
    assert!(told.text.contains("no server could be told"), "{told:?}");
    world.link(0, Link::Up);
    world.advance(AGENT_BACKOFF_MAX);
    assert!(world.has("web-1"));
}

#[test]
fn nobody_waits_for_servers_that_can_not_be_reached() {
    for link in [Link::Refuses, Link::Silent] {
        let world = World::with_servers(2);
        let agent = world.start(json!([]));
        world.link(0, link);
        world.link(1, link);
        // The first one that finds it out may take its time.
        world.put(&agent, "/v1/agent/service/register", json!({"Name": "db"}));
        world.advance(SECOND * 2);
        let began = world.platform.now();
        for _ in 0..3 {
            let told = world.put(&agent, "/v1/agent/service/register", web());
            assert_eq!((told.status, &told.json["Index"]), (200, &Value::Null));
            let told = world.put(&agent, "/v1/agent/check/pass/chk:web-1:0?note=here", json!(null));
            assert_eq!(told.status, 500, "{told:?}");
            assert!(told.text.starts_with("no server could be told: "), "{told:?}");
            let told = world.put(&agent, "/v1/agent/maintenance?enable=true", json!(null));
            assert_eq!(told.status, 200, "{told:?}");
            let told = world.put(&agent, "/v1/agent/service/deregister/db", json!(null));
            assert!([200, 404].contains(&told.status), "{told:?}");
        }
        assert_eq!(world.platform.now(), began, "{link:?}");
        // Their time comes, and who comes then is heard.
        world.link(0, Link::Up);
        world.link(1, Link::Up);
        world.advance(AGENT_ANSWER_TIMEOUT * 2 + AGENT_BACKOFF_MAX);
        assert!((0..2).any(|at| world.nodes(at).contains(&"host-1".to_owned())));
        let told = world.put(&agent, "/v1/agent/service/register", web());
        assert!(told.json["Index"].is_u64(), "{told:?}");
        let told = world.put(&agent, "/v1/agent/check/pass/chk:web-1:0", json!(null));
        assert_eq!(told.status, 200, "{told:?}");
    }
}

#[test]
fn servers_that_answer_are_waited_for() {
    let world = World::new();
    let agent = world.start(json!([]));
    world.be_without_leader(true);
    let (reports, register) = ("/v1/agent/check/pass/x", "/v1/agent/service/register");
    let began = world.platform.now();
    let told = world.put(
        &agent,
        register,
        json!({"Name": "x", "Check": {"CheckID": "x", "TTL": "60s"}}),
    );
    assert_eq!((told.status, &told.json["Index"]), (200, &Value::Null));
    assert_eq!(world.put(&agent, reports, json!(null)).status, 500);
    let waited = world.platform.now().saturating_since(began);
    assert!(waited >= AGENT_ANSWER_TIMEOUT * 2, "{waited:?}");
}

#[test]
fn a_removal_is_made_up_for_when_the_servers_are_back() {
    let world = World::new();
    let agent = world.start(json!([]));
    world.put(&agent, "/v1/agent/service/register", web());
    world.link(0, Link::Silent);
    let told = world.put(&agent, "/v1/agent/service/deregister/web-1", json!(null));
    assert_eq!(
        (told.status, &told.json["Index"]),
        (200, &Value::Null),
        "{told:?}"
    );
    world.link(0, Link::Up);
    world.advance(AGENT_ANSWER_TIMEOUT + AGENT_BACKOFF_MAX);
    assert!(!world.has("web-1"));
}

#[test]
fn checks_of_the_node_and_of_services_come_and_go() {
    let world = World::new();
    world.find("10.0.0.1:22", ProbeOutcome::Connected);
    let agent = world.start(json!([{"name": "api"}]));
    let node_check = json!({"Name": "ssh", "TCP": "10.0.0.1:22", "Interval": "1s"});
    assert_eq!(
        world.put(&agent, "/v1/agent/check/register", node_check).status,
        200
    );
    let of_service = json!({"Name": "beat", "ServiceID": "api", "TTL": "60s"});
    assert_eq!(
        world.put(&agent, "/v1/agent/check/register", of_service).status,
        200
    );
    world.advance(SECOND);
    assert_eq!(
        (world.status("ssh"), world.status("beat")),
        ("passing", "critical")
    );
    let told = world.get(&agent, "/v1/agent/health/service/id/api");
    assert_eq!(
        (told.status, &told.json["AggregatedStatus"]),
        (503, &json!("critical")),
        "{told:?}"
    );
    world.put(&agent, "/v1/agent/check/pass/beat", json!(null));
    let told = world.get(&agent, "/v1/agent/health/service/name/api?format=text");
    assert_eq!((told.status, told.text.as_str()), (200, "passing"));
    assert_eq!(
        world.get(&agent, "/v1/agent/checks").json["ssh"]["Status"],
        json!("passing")
    );
    for id in ["ssh", "beat"] {
        let told = world.put(&agent, &format!("/v1/agent/check/deregister/{id}"), json!(null));
        assert_eq!(told.status, 200, "{told:?}");
        assert_eq!(world.status(id), "");
    }
    world.advance(AGENT_SYNC_INTERVAL * 2);
    assert_eq!((world.status("ssh"), world.status("beat")), ("", ""));
}

#[test]
fn a_new_registration_replaces_the_old_one_with_its_checks() {
    let world = World::new();
    let agent = world.start(json!([]));
    world.put(&agent, "/v1/agent/service/register", web());
    let path = "/v1/agent/service/register?replace-existing-checks=true";
    let told = world.put(
        &agent,
        path,
        json!({"Name": "web", "ID": "web-1", "Port": 81,
        "Check": {"CheckID": "new", "TTL": "60s"}}),
    );
    assert_eq!(told.json["CheckIDs"], json!(["new"]));
    assert_eq!(
        (world.status("chk:web-1:0"), world.status("new")),
        ("", "critical")
    );
    assert_eq!(
        world.get(&agent, "/v1/agent/service/web-1").json["Port"],
        json!(81)
    );
    let told = world.put(&agent, "/v1/agent/check/pass/chk:web-1:0", json!(null));
    assert_eq!(told.status, 404);
}

#[test]
fn what_is_wrong_is_refused_and_changes_nothing() {
    let world = World::new();
    let agent = world.start(json!([{"name": "api", "checks": [
        {"type": "tcp", "tcp": "10.0.0.1:80", "id": "tcp"},
    ]}]));
    world.writes();
    let script = json!({"Name": "x", "Check": {"Args": ["/bin/true"], "Interval": "1s"}});
    for (path, body, status, part) in [
        (
            "service/register",
            json!({"Port": 1}),
            400,
            "Missing service name",
        ),
        (
            "service/register",
            json!({"Name": "x", "Port": 70000}),
            400,
            "Port",
        ),
        ("service/register", script, 500, "enable_script_checks"),
        ("service/register", json!([]), 400, "expected an object"),
        (
            "check/register",
            json!({"Name": "c", "ServiceID": "no", "TTL": "1s"}),
            404,
            "ServiceID \"no\" does not exist",
        ),
        (
            "check/pass/no",
            json!(null),
            404,
            "Unknown check ID \"no\". Ensure that the check ID is passed, not the check name.",
        ),
        (
            "check/pass/tcp",
            json!(null),
            500,
            "CheckID \"tcp\" does not have associated TTL",
        ),
        ("check/deregister/no", json!(null), 404, "no"),
        ("service/heartbeat/no", json!(null), 404, "no"),
        (
            "service/heartbeat",
            json!({"service": "api", "address": "1.1.1.1"}),
            404,
            "api",
        ),
        (
            "service/deregister",
            json!({"service": "other", "id": "api"}),
            409,
            "belongs to service \"api\"",
        ),
        ("nothing", json!(null), 404, "endpoint"),
    ] {
        let told = world.put(&agent, &format!("/v1/agent/{path}"), body);
        assert_eq!(told.status, status, "{path}: {told:?}");
        assert!(told.text.contains(part), "{path}: {told:?}");
    }
    assert_eq!(world.get(&agent, "/v1/agent/service/register").status, 405);
    let writes = world.writes();
    assert!(
        writes.iter().all(|(path, _)| path == "/v1/batch/renew"),
        "{writes:?}"
    );
    assert_eq!(
        world
            .get(&agent, "/v1/agent/services")
            .json
            .as_object()
            .map(|s| s.len()),
        Some(1)
    );
}

#[test]
fn script_checks_can_be_allowed() {
    let world = World::new();
    let mut config = world.config(json!([]));
    config.enable_script_checks = true;
    let agent = world.start_with(config).expect("it starts");
    let exit = ProbeOutcome::Exited {
        code: 1,
        output: "half full".into(),
    };
    world.find("/bin/disk", exit);
    let body = json!({"Name": "x", "Check": {"CheckID": "disk", "Args": ["/bin/disk"], "Interval": "1s"}});
    assert_eq!(world.put(&agent, "/v1/agent/service/register", body).status, 200);
    world.advance(SECOND);
    assert_eq!(
        world.check("disk"),
        Some(("warning", "half full".into())),
        "Consul's form"
    );
}

#[test]
fn a_disk_that_fails_refuses_registrations() {
    let world = World::new();
    let agent = world.start(json!([]));
    world.break_disk();
    for _ in 0..2 {
        let told = world.put(&agent, "/v1/agent/service/register", web());
        assert_eq!(told.status, 500, "{told:?}");
        assert!(told.text.contains("can't be kept"), "{told:?}");
    }
    assert_eq!(world.get(&agent, "/v1/agent/service/web-1").status, 404);
    world.advance(AGENT_SYNC_INTERVAL);
    assert!(!world.has("web-1"));
}

#[test]
fn records_that_cannot_be_read_stop_the_start() {
    for (from, to, named) in [
        (
            "\"version\":1",
            "\"version\":2",
            "version 2; this agent reads up to 1",
        ),
        ("\"version\":1", "\"version\"", "can't be read"),
    ] {
        let world = World::new();
        let agent = world.start(json!([]));
        world.put(&agent, "/v1/agent/service/register", web());
        world.tamper(from, to);
        let again = world.restarted();
        let error = again
            .start_with(again.config(json!([])))
            .expect_err("it must not start");
        assert!(error.to_string().contains(named), "{error}");
    }
}

#[test]
fn a_record_that_is_not_valid_any_more_is_dropped() {
    let world = World::new();
    let mut config = world.config(json!([]));
    config.enable_script_checks = true;
    let agent = world.start_with(config).expect("it starts");
    let script = json!({"Name": "x", "Check": {"Args": ["/bin/true"], "Interval": "1s"}});
    assert_eq!(
        world.put(&agent, "/v1/agent/service/register", script).status,
        200
    );
    assert_eq!(world.put(&agent, "/v1/agent/service/register", web()).status, 200);
    // Scripts are not allowed any more: the rest is taken on all the same.
    let again = world.restarted();
    let agent = again.start(json!([]));
    assert_eq!(again.get(&agent, "/v1/agent/service/x").status, 404);
    assert_eq!(again.get(&agent, "/v1/agent/service/web-1").status, 200);
    again.advance(SECOND);
    assert!(!again.has("x") && again.has("web-1"));
}

#[test]
fn a_stopping_agent_takes_nothing_on() {
    let world = World::new();
    let agent = world.start(json!([]));
    world.platform.run(agent.shutdown()).expect("it deregisters");
    let told = world.put(&agent, "/v1/agent/service/register", web());
    assert_eq!(told.status, 503, "{told:?}");
    assert!(world.nodes(0).is_empty());
}

#[test]
fn the_agent_tells_about_itself() {
    let world = World::new();
    let agent = world.start(json!([{"name": "api"}]));
    let told = world.get(&agent, "/v1/agent/self");
    assert_eq!(told.json["Config"]["NodeName"], json!("host-1"));
    let stats = &told.json["Stats"]["agent"];
    assert_eq!(
        (&stats["services"], &stats["servers"]),
        (&json!("1"), &json!("a:1"))
    );
    assert_eq!(told.json["Config"]["Server"], json!(false));
    assert_eq!(told.json["Member"]["Status"], json!(1));
    // Consul's clients decode it as objects in an object.
    let sections = told.json.as_object().expect("an object");
    let names: Vec<&String> = sections.keys().collect();
    assert_eq!(
        names,
        ["Config", "Coord", "DebugConfig", "Member", "Meta", "Stats"]
    );
    assert!(sections.values().all(serde_json::Value::is_object));
    assert_eq!(world.get(&agent, "/livez").status, 200);
    let told = world.get(&agent, "/v1/agent/services?pretty");
    assert!(told.text.starts_with("{\n    \"api\": {\n"), "{told:?}");
}

#[test]
fn a_node_may_have_more_checks_than_a_registration() {
    let world = World::new();
    let checks: Vec<Value> = (0..150)
        .map(|number| json!({"id": format!("c{number}"), "name": "c", "ttl": "60s", "status": "passing"}))
        .collect();
    let agent = world.start(json!({"checks": checks}));
    assert_eq!(world.passing_at(0), 150);
    let told = world.put(
        &agent,
        "/v1/agent/check/register",
        json!({"ID": "d", "Name": "d", "TTL": "60s"}),
    );
    assert!(told.json["Index"].is_u64(), "{told:?}");
    assert_eq!(world.status("d"), "critical");
}

#[test]
fn answers_have_the_headers_of_consuls() {
    let world = World::new();
    let agent = world.start(json!([]));
    for path in ["/v1/agent/services", "/v1/catalog/nodes", "/v1/agent/nothing"] {
        let told = world.get(&agent, path);
        assert_eq!(told.headers["vary"], "Accept-Encoding", "{path}");
        assert_eq!(told.headers["x-consul-default-acl-policy"], "allow", "{path}");
    }
}

#[test]
fn a_ttl_that_ended_is_told_with_what_was_said_last() {
    let world = World::new();
    let agent = world.start(json!([]));
    world.put(&agent, "/v1/agent/service/register", web());
    let path = "/v1/agent/check/pass/chk:web-1:0";
    for (note, said) in [
        ("", "TTL expired"),
        (
            "?note=hello",
            "TTL expired (last output before timeout follows): hello",
        ),
    ] {
        world.put(&agent, &format!("{path}{note}"), json!(null));
        world.advance(SECOND * 4);
        let shown = world.get(&agent, "/v1/agent/checks").json;
        assert_eq!(shown["chk:web-1:0"]["Output"], said);
        assert_eq!(shown["chk:web-1:0"]["Status"], "critical");
    }
}
