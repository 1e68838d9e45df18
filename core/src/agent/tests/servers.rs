//! What the servers get to hear: registrations, renewals, statuses, and what is put right.

use std::time::Duration;

use serde_json::json;

use super::harness::{Link, NODE, World, instance_key};
use crate::{
    limits::{
        AGENT_AFTERMATH, AGENT_BACKOFF_MAX, AGENT_CALL_TIMEOUT, AGENT_SHUTDOWN_TIMEOUT, AGENT_SYNC_INTERVAL,
        EXPIRY_BOUND, FIRST_RUN_SPREAD_MAX, NEWER_COMMAND_WAIT,
    },
    registry::{Command, Deregister},
    runtime::ProbeOutcome,
};

const SECOND: Duration = Duration::from_secs(1);

fn answered(status: u16) -> ProbeOutcome {
    ProbeOutcome::HttpStatus {
        status,
        output: "body".into(),
    }
}

#[test]
fn configured_services_are_registered_and_their_ttl_checks_renewed() {
    let world = World::new();
    let _agent = world.start(json!([
        {"name": "api", "id": "api-1", "port": 80, "tags": ["v1"], "checks": [{"type": "ttl", "ttl": "3s"}]},
        {"name": "plain"},
    ]));
    assert!(world.has("api-1") && world.has("plain"));
    let registered = world.look(|registry| registry.instance(&instance_key("api-1")).cloned());
    let registered = registered.expect("it was registered");
    assert_eq!((registered.port, registered.tags), (80, vec!["v1".to_owned()]));
    assert_eq!(world.nodes(0), [NODE]);
    let index = world.look(crate::registry::Registry::index);
    for _ in 0..60 {
        world.advance(SECOND / 2);
        assert_eq!(world.status("chk:api-1:0"), "passing");
    }
    assert_eq!(
        world.look(crate::registry::Registry::index),
        index,
        "renewals change nothing"
    );
}

#[test]
fn a_ttl_check_expires_when_its_agent_is_gone_and_passes_when_it_is_back() {
    let world = World::new();
    let _agent = world.start(json!([
        {"name": "api", "checks": [{"type": "ttl", "ttl": "3s"}]},
    ]));
    world.link(0, Link::Refuses);
    world.advance(SECOND * 3 + EXPIRY_BOUND);
    assert_eq!(world.status("chk:api:0"), "critical");
    world.link(0, Link::Up);
    world.advance(AGENT_BACKOFF_MAX);
    assert_eq!(world.status("chk:api:0"), "passing");
}

#[test]
fn probes_are_reported_when_their_status_changes() {
    let world = World::new();
    world.find("http://10.0.0.1/health", answered(200));
    let _agent = world.start(json!([{"name": "api", "checks": [
        {"type": "http", "http": "http://10.0.0.1/health", "interval": "1s", "failures_before_critical": 2},
        {"type": "tcp", "tcp": "10.0.0.1:80", "interval": "1s"},
    ]}]));
    assert_eq!(world.status("chk:api:0"), "critical", "nothing is known yet");
    world.advance(SECOND);
    let passing = (
        "passing",
        "HTTP GET http://10.0.0.1/health: 200 OK Output: body".to_owned(),
    );
    assert_eq!(world.check("chk:api:0"), Some(passing));
    world.writes();
    world.advance(SECOND * 10);
    assert!(
        world.writes().is_empty(),
        "nothing changed, so nothing is written"
    );
    assert!(world.runs("http://10.0.0.1/health").len() >= 10);

    // One failure is not enough, two are.
    world.find("http://10.0.0.1/health", answered(500));
    let before = world.runs("http://10.0.0.1/health").len();
    while world.runs("http://10.0.0.1/health").len() == before {
        world.advance(SECOND / 10);
    }
    assert_eq!(world.status("chk:api:0"), "passing");
    world.advance(SECOND);
    assert_eq!(world.status("chk:api:0"), "critical");
    world.find("10.0.0.1:80", ProbeOutcome::Connected);
    world.advance(SECOND);
    let connected = ("passing", "TCP connect 10.0.0.1:80: Success".to_owned());
    assert_eq!(world.check("chk:api:1"), Some(connected));
}

#[test]
fn the_first_result_of_a_check_counts_at_once() {
    let world = World::new();
    for (target, found) in [("10.0.0.1:1", ProbeOutcome::Connected), ("10.0.0.1:2", refused())] {
        world.find(target, found);
    }
    let _agent = world.start(json!([{"name": "api", "checks": [
        {"type": "tcp", "tcp": "10.0.0.1:1", "interval": "10s", "success_before_passing": 3},
        {"type": "tcp", "tcp": "10.0.0.1:2", "interval": "10s", "failures_before_critical": 3, "status": "passing"},
    ]}]));
    let statuses = || [world.status("chk:api:0"), world.status("chk:api:1")];
    assert_eq!(statuses(), ["critical", "passing"]);
    world.advance(FIRST_RUN_SPREAD_MAX);
    assert_eq!(statuses(), ["passing", "critical"]);
    world.find("10.0.0.1:1", refused());
    world.find("10.0.0.1:2", ProbeOutcome::Connected);
    world.advance(SECOND * 10);
    assert_eq!(statuses(), ["critical", "passing"], "these ask for one result");
    world.find("10.0.0.1:1", ProbeOutcome::Connected);
    world.advance(SECOND * 20);
    assert_eq!(world.status("chk:api:0"), "critical", "two in a row");
    world.advance(SECOND * 10);
    assert_eq!(world.status("chk:api:0"), "passing");
}

fn refused() -> ProbeOutcome {
    let output = "refused".to_owned();
    ProbeOutcome::Failed { output }
}

#[test]
fn first_runs_are_spread_and_later_ones_keep_their_interval() {
    let world = World::new();
    let services: Vec<_> = (0..40)
        .map(|n| {
            let address = format!("10.0.0.1:{}", n + 1);
            json!({"name": format!("s{n}"), "checks": [{"type": "tcp", "tcp": address, "interval": "10s"}]})
        })
        .collect();
    let _agent = world.start(json!(services));
    let first = |n: usize| world.runs(&format!("10.0.0.1:{}", n + 1)).first().copied();
    world.advance(FIRST_RUN_SPREAD_MAX / 2);
    let started = (0..40).filter(|n| first(*n).is_some()).count();
    assert!((5..35).contains(&started), "{started} of 40 after half the time");
    world.advance(FIRST_RUN_SPREAD_MAX / 2);
    assert!((0..40).all(|n| first(n).is_some()));
    world.advance(SECOND * 20);
    let runs = world.runs("10.0.0.1:1");
    assert!(
        runs.windows(2)
            .all(|pair| pair[1].saturating_since(pair[0]) == SECOND * 10)
    );
}

#[test]
fn a_change_of_the_output_alone_waits_for_the_next_comparison() {
    let world = World::new();
    let said = |output: &str| ProbeOutcome::Exited {
        code: 0,
        output: output.into(),
    };
    world.find("/bin/check", said("one"));
    let _agent = world.start(json!([
        {"name": "api", "checks": [{"type": "cmd", "args": ["/bin/check"], "interval": "1s"}]},
    ]));
    world.advance(SECOND);
    assert_eq!(world.check("chk:api:0"), Some(("passing", "one".into())));
    let index = world.look(crate::registry::Registry::index);
    world.find("/bin/check", said("two"));
    world.advance(SECOND * 2);
    assert_eq!(world.check("chk:api:0"), Some(("passing", "one".into())));
    world.advance(AGENT_SYNC_INTERVAL * 2);
    assert_eq!(world.check("chk:api:0"), Some(("passing", "two".into())));
    assert_eq!(
        world.look(crate::registry::Registry::index),
        index,
        "it wakes nobody"
    );
}

#[test]
fn a_prober_that_panics_does_not_stop_its_check() {
    let world = World::new();
    let _agent = world.start(json!([
        {"name": "api", "checks": [{"type": "cmd", "args": ["panic"], "interval": "1s"}]},
    ]));
    world.advance(SECOND * 10);
    assert!(world.runs("panic").len() >= 5);
}

#[test]
fn what_the_servers_lost_is_registered_again() {
    let world = World::new();
    world.find("10.0.0.1:80", ProbeOutcome::Connected);
    let _agent = world.start(json!([
        {"name": "api", "checks": [{"type": "tcp", "tcp": "10.0.0.1:80", "interval": "1s"}]},
        {"name": "beat", "checks": [{"type": "ttl", "ttl": "3s"}]},
        {"name": "plain"},
    ]));
    world.advance(SECOND * 5);
    world.lose_everything();
    assert!(!world.has("api"));
    // The next heartbeat notices.
    world.advance(SECOND * 3);
    assert!(world.has("api") && world.has("beat") && world.has("plain"));
    assert_eq!(
        world.status("chk:api:0"),
        "passing",
        "its status comes back with it"
    );
    assert_eq!(world.status("chk:beat:0"), "passing");
}

#[test]
fn a_single_loss_or_difference_is_put_right_at_the_next_comparison() {
    let world = World::new();
    let _agent = world.start(json!([
        {"name": "gone"},
        {"name": "changed", "port": 80, "checks": [{"type": "ttl", "ttl": "60s", "id": "beat"}]},
    ]));
    world.apply(&Command::Deregister(Deregister::Instance {
        key: instance_key("gone"),
        service: None,
    }));
    let foreign = json!({"Node": NODE, "Address": "10.9.9.9", "ReplaceExistingChecks": true,
        "Service": {"ID": "changed", "Service": "changed", "Port": 81},
        "Checks": [{"CheckID": "other", "Name": "other", "ServiceID": "changed"}]});
    let foreign = crate::api::http::requests::parse_catalog_registration(&foreign, None, "dc1");
    world.apply(&Command::Register(vec![foreign.expect("valid")]));
    assert_eq!(world.status("beat"), "");
    world.advance(AGENT_SYNC_INTERVAL * 2);
    assert!(world.has("gone"));
    let changed = world.look(|registry| registry.instance(&instance_key("changed")).cloned());
    assert_eq!(changed.expect("it is there").port, 80);
    assert_eq!((world.status("beat"), world.status("other")), ("passing", ""));
    let node = instance_key("gone").node;
    let address = world.look(|registry| registry.node(&node).map(|node| node.address.clone()));
    assert_eq!(address.as_deref(), Some("10.0.0.1"));
}

#[test]
fn unknown_things_on_its_node_are_removed_and_nothing_elsewhere() {
    let world = World::new();
    let _agent = world.start(json!([{"name": "api"}]));
    for (node, service) in [(NODE, "stray"), ("host-2", "other")] {
        let body = json!({"Node": node, "Address": "10.0.0.2", "Service": {"Service": service},
            "Checks": [{"CheckID": format!("{node}-check"), "Name": "alive"}]});
        let registration = crate::api::http::requests::parse_catalog_registration(&body, None, "dc1");
        world.apply(&Command::Register(vec![registration.expect("valid")]));
    }
    assert!(world.has("stray"));
    world.advance(AGENT_SYNC_INTERVAL * 2);
    assert!(!world.has("stray") && world.has("api"));
    assert_eq!(world.status("host-1-check"), "");
    assert_eq!(world.nodes(0), [NODE, "host-2"]);
    let others = world.look(|registry| {
        registry
            .checks()
            .filter(|c| c.id.as_str() == "host-2-check")
            .count()
    });
    assert_eq!(others, 1);
}

#[test]
fn what_was_removed_from_the_configuration_goes_at_the_next_start() {
    let world = World::new();
    let services = json!([{"name": "old", "namespace": "team"}, {"name": "kept"}]);
    let _agent = world.start(services);
    let mut old = instance_key("old");
    old.namespace = crate::registry::Namespace::parse("team").expect("valid");
    assert!(world.look(|registry| registry.instance(&old).is_some()));
    // The first agent hears nothing of the servers any more: it is as if it had been killed.
    let again = world.restarted();
    let _again = again.start(json!([{"name": "kept"}]));
    again.advance(SECOND);
    assert!(again.has("kept"));
    assert!(!again.look(|registry| registry.instance(&old).is_some()));
    // From the next comparison on nobody looks there any more.
    assert!(again.reads().iter().any(|path| path.ends_with("ns=team")));
    again.advance(AGENT_SYNC_INTERVAL * 2);
    again.reads();
    again.advance(AGENT_SYNC_INTERVAL * 2);
    let reads = again.reads();
    assert!(
        !reads.is_empty() && !reads.iter().any(|path| path.ends_with("ns=team")),
        "{reads:?}"
    );
}

#[test]
fn a_silent_server_is_passed_over() {
    let world = World::with_servers(2);
    for silent in [0, 1] {
        world.link(silent, Link::Silent);
        let _agent = world
            .start_with(world.config(json!([{"name": "api"}])))
            .expect("it starts");
        world.advance(AGENT_CALL_TIMEOUT * 2);
        assert_eq!(world.nodes(1 - silent), [NODE]);
        world.link(silent, Link::Up);
    }
}

#[test]
fn it_never_gives_up() {
    let world = World::with_servers(2);
    world.link(0, Link::Refuses);
    world.link(1, Link::Silent);
    let _agent = world.start(json!([{"name": "api"}]));
    world.advance(Duration::from_secs(3600));
    let attempts = world.writes().len();
    assert!(attempts > 500, "{attempts} attempts in an hour");
    world.link(0, Link::Up);
    world.advance(AGENT_BACKOFF_MAX + AGENT_CALL_TIMEOUT * 2);
    assert!(world.has("api"));
}

#[test]
fn lost_answers_are_as_good_as_lost_requests() {
    let world = World::new();
    world.link(0, Link::LosesAnswers);
    let _agent = world.start(json!([{"name": "api", "checks": [{"type": "ttl", "ttl": "3s"}]}]));
    world.advance(AGENT_CALL_TIMEOUT * 4);
    assert!(world.has("api"));
    world.link(0, Link::Up);
    world.advance(AGENT_BACKOFF_MAX);
    let index = world.look(crate::registry::Registry::index);
    world.advance(SECOND * 30);
    assert_eq!(world.status("chk:api:0"), "passing");
    assert_eq!(world.look(crate::registry::Registry::index), index);
}

#[test]
fn a_report_that_arrives_late_is_put_right_soon() {
    let world = World::new();
    world.find("10.0.0.1:80", ProbeOutcome::Connected);
    let _agent = world.start(json!([
        {"name": "api", "checks": [{"type": "tcp", "tcp": "10.0.0.1:80", "interval": "1s"}]},
    ]));
    world.advance(AGENT_SYNC_INTERVAL * 2);
    assert_eq!(world.status("chk:api:0"), "passing");
    // "It failed" is on its way for long, and "it passes" overtakes it.
    world.link(0, Link::Late(6));
    let failed = ProbeOutcome::Failed {
        output: "refused".into(),
    };
    world.find("10.0.0.1:80", failed);
    world.advance(SECOND * 3 / 2);
    world.find("10.0.0.1:80", ProbeOutcome::Connected);
    world.link(0, Link::Up);
    world.advance(SECOND * 7 / 2);
    assert_eq!(world.status("chk:api:0"), "passing");
    let mut tenths = 0;
    while world.status("chk:api:0") == "passing" {
        tenths += 1;
        assert!(tenths < 30, "the late report never arrived");
        world.advance(SECOND / 10);
    }
    world.advance(AGENT_AFTERMATH);
    assert_eq!(world.status("chk:api:0"), "passing");
}

#[test]
fn one_refused_registration_does_not_keep_the_others_out() {
    let world = World::new();
    world.refuse(Some("\"cursed\""));
    let _agent = world.start(json!([{"name": "a"}, {"name": "cursed"}, {"name": "z"}]));
    assert!(world.has("a") && world.has("z") && !world.has("cursed"));
    world.refuse(None);
    world.advance(AGENT_SYNC_INTERVAL * 2);
    assert!(world.has("cursed"), "it is tried again");
}

#[test]
fn one_refused_renewal_does_not_keep_the_others_from_being_heard() {
    let world = World::new();
    let _agent = world.start(json!([
        {"name": "a", "checks": [{"type": "ttl", "ttl": "3s"}]},
        {"name": "b", "checks": [{"type": "ttl", "ttl": "3s", "id": "cursed"}]},
        {"name": "c", "checks": [{"type": "ttl", "ttl": "3s"}]},
    ]));
    world.refuse(Some("\"cursed\""));
    world.advance(SECOND * 30);
    assert_eq!(
        (world.status("chk:a:0"), world.status("chk:c:0")),
        ("passing", "passing")
    );
    assert_eq!(world.status("cursed"), "critical");
    world.refuse(None);
    world.advance(SECOND * 3);
    assert_eq!(world.status("cursed"), "passing");
}

#[test]
fn a_renewal_that_meets_silence_leaves_time_for_the_next_server() {
    let world = World::with_servers(2);
    let _agent = world.start(json!([{"name": "api", "checks": [{"type": "ttl", "ttl": "3s"}]}]));
    // Each server is a cluster of its own here: the one that has the check is asked second.
    let (has, other) = if world.has("api") { (0, 1) } else { (1, 0) };
    world.link(has, Link::Refuses);
    world.advance(SECOND * 4);
    world.link(has, Link::Up);
    world.link(other, Link::Silent);
    let asked = crate::server::Platform::now(&*world.platform);
    while world.passing_at(has) != 1 {
        world.advance(SECOND / 10);
    }
    let waited = crate::server::Platform::now(&*world.platform).saturating_since(asked);
    assert!(
        waited < SECOND * 3,
        "a heartbeat and the silence together took {waited:?}"
    );
}

#[test]
fn many_services_are_registered_in_bounded_calls() {
    let world = World::new();
    let services: Vec<_> = (0..1000)
        .map(|n| json!({"name": format!("s{n}"), "checks": [{"type": "ttl", "ttl": "30s"}]}))
        .collect();
    let _agent = world.start(json!(services));
    let count = world.look(|registry| registry.instances().count());
    assert_eq!(count, 1000);
    let writes = world.writes();
    assert!(
        writes.len() <= 10,
        "{} calls for 1000 registrations",
        writes.len()
    );
    let largest = writes.iter().map(|(_, body)| body.len()).max();
    assert!(largest.is_some_and(|bytes| bytes <= crate::limits::BODY_BYTES_MAX));
    world.advance(SECOND * 21);
    let renewals = world.writes();
    assert_eq!(renewals.len(), 1, "one call renews them all");
    assert!(renewals[0].0 == "/v1/batch/renew");
}

#[test]
fn a_service_that_stays_critical_is_deregistered() {
    let world = World::new();
    world.find("10.0.0.1:80", ProbeOutcome::Connected);
    let _agent = world.start(json!([{"name": "api", "checks": [{
        "type": "tcp", "tcp": "10.0.0.1:80", "interval": "1s", "deregister_critical_service_after": "5s",
    }]}]));
    world.advance(SECOND * 10);
    assert!(world.has("api"));
    let failed = ProbeOutcome::Failed {
        output: "refused".into(),
    };
    world.find("10.0.0.1:80", failed);
    world.advance(SECOND * 4);
    assert!(world.has("api"));
    world.advance(SECOND * 3);
    assert!(!world.has("api"));
    world.advance(AGENT_SYNC_INTERVAL * 2);
    assert!(!world.has("api"), "it does not come back");
}

#[test]
fn shutting_down_deregisters_everything() {
    let world = World::new();
    let agent = world.start(json!([{"name": "a", "checks": [{"type": "ttl", "ttl": "3s"}]}, {"name": "b"}]));
    assert_eq!(world.nodes(0), [NODE]);
    assert_eq!(world.platform.run(agent.shutdown()), Ok(()));
    assert!(world.nodes(0).is_empty() && !world.has("a"));
    world.advance(AGENT_SYNC_INTERVAL * 2);
    assert!(world.nodes(0).is_empty(), "and nothing brings it back");
}

#[test]
fn shutting_down_takes_a_bounded_time() {
    let world = World::new();
    let agent = world.start(json!([{"name": "a"}]));
    for link in [Link::Refuses, Link::Silent] {
        world.link(0, link);
        let before = crate::server::Platform::now(&*world.platform);
        let stopped = world.platform.run(agent.shutdown());
        assert!(stopped.is_err());
        let took = crate::server::Platform::now(&*world.platform).saturating_since(before);
        assert!(took <= AGENT_SHUTDOWN_TIMEOUT, "{took:?}");
    }
}

#[test]
fn a_registration_under_way_does_not_outlive_the_shutdown() {
    let world = World::new();
    let agent = world.start(json!([]));
    world.link(0, Link::LosesAnswers);
    let request = world.platform.start({
        let (agent, body) = (agent.clone(), json!({"Name": "late"}));
        async move {
            let request = http::Request::put("/v1/agent/service/register");
            let request = request.body(axum::body::Body::from(body.to_string()));
            tower::ServiceExt::oneshot(agent.router(), request.expect("valid")).await
        }
    });
    world.advance(SECOND / 10);
    world.link(0, Link::Up);
    assert_eq!(world.platform.run(agent.shutdown()), Ok(()));
    world.advance(AGENT_SYNC_INTERVAL);
    assert!(world.nodes(0).is_empty());
    drop(request);
}

#[test]
fn what_an_older_server_can_not_read_waits_for_it_and_holds_up_nothing_else() {
    let world = World::new();
    world.begin_with_older_member(3);
    let check = json!({"tcp": "10.0.0.1:443", "interval": "10s", "tcp_use_tls": true});
    let agent = world.start(json!([
        {"name": "secured", "check": check},
        {"name": "plain"},
    ]));
    world.advance(NEWER_COMMAND_WAIT * 4);
    assert!(world.has("plain") && !world.has("secured"));
    let body = json!({"Name": "own", "Check": check});
    let told = world.put(&agent, "/v1/agent/service/register", body);
    assert_eq!(told.status, 503);
    assert!(told.text.contains("commands of version 4"), "{}", told.text);

    world.exchange_member(Command::NEWEST_VERSION);
    world.advance(AGENT_SYNC_INTERVAL * 2);
    assert!(world.has("plain") && world.has("secured") && world.has("own"));
}
