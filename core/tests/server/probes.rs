//! Checks that the servers run themselves: by the leader alone, told like reports, and left alone by reports.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::future::{BoxFuture, FutureExt as _};
use serde_json::{Value, json};
use sider_core::{
    api::http::requests::{Place, parse_service, plain_node},
    limits,
    observe::NoObserver,
    registry::{CheckId, CheckKey, CheckStatus, CheckTarget, Command, Namespace, NodeName, Refusal},
    runtime::{Probe, ProbeOutcome, ProbeTls},
    server::{
        Renewal, Server, ServerConfig, ServerProber,
        standin::{self, Standin, TestPlatform},
    },
};

use crate::clients::*;

/// Answers by a script, and counts the runs of each target.
#[derive(Clone, Debug, Default)]
struct Script(Arc<Mutex<BTreeMap<String, Target>>>);

#[derive(Debug, Default)]
struct Target {
    status: Option<u16>,
    runs: usize,
    last: Option<Probe>,
}

impl Script {
    /// From now on `url` answers so; without a status nobody is there.
    fn set(&self, url: &str, status: Option<u16>) {
        self.0.lock().unwrap().entry(url.to_owned()).or_default().status = status;
    }

    fn runs(&self, url: &str) -> usize {
        self.0.lock().unwrap().get(url).map_or(0, |target| target.runs)
    }
}

impl ServerProber for Script {
    fn probe(&self, probe: Probe, _: Duration) -> BoxFuture<'static, ProbeOutcome> {
        let Probe::Http { url, .. } = &probe else {
            panic!("only URLs are probed here: {probe:?}")
        };
        let mut targets = self.0.lock().unwrap();
        let target = targets.entry(url.clone()).or_default();
        target.runs += 1;
        target.last = Some(probe);
        let outcome = match target.status {
            Some(status) => ProbeOutcome::HttpStatus {
                status,
                output: format!("it says {status}"),
            },
            None => ProbeOutcome::Failed {
                output: "nobody is there".to_owned(),
            },
        };
        async move { outcome }.boxed()
    }
}

const URL: &str = "http://10.0.0.1/health";
const INTERVAL: Duration = secs(10);
/// A first run is this late at most, and any other by the interval.
const FIRST: Duration = limits::FIRST_RUN_SPREAD_MAX;
const NODE: &str = "sider";

fn prober() -> (Script, ServerConfig) {
    let script = Script::default();
    let config = ServerConfig {
        prober: Some(Arc::new(script.clone())),
        ..ServerConfig::default()
    };
    (script, config)
}

fn alone() -> (Script, Server, Arc<Standin>, Arc<TestPlatform>) {
    let (script, config) = prober();
    let platform = TestPlatform::new();
    let (server, standin) = standin::member_of(config, "server-1", &platform, Arc::new(NoObserver), false);
    standin.lead(1);
    (script, server, standin, platform)
}

fn web(node: &str, check: &Value) -> Command {
    let place = Place {
        node: plain_node(NodeName::parse(node).unwrap(), "10.0.0.1"),
        namespace: None,
        scripts: true,
    };
    let body = json!({ "Name": "web", "ID": "web-1", "Check": check });
    Command::Register(vec![parse_service(&body, &place).unwrap()])
}

fn http() -> Value {
    json!({ "HTTP": URL, "Interval": "10s" })
}

fn key(node: &str) -> CheckKey {
    CheckKey {
        namespace: Namespace::default(),
        node: NodeName::parse(node).unwrap(),
        id: CheckId::parse("service:web-1").unwrap(),
    }
}

fn shown(platform: &TestPlatform, server: &Server, node: &str) -> (CheckStatus, String) {
    let look = server.inspect(true, |registry| {
        let check = registry.check(&key(node)).expect("it is registered");
        (check.status, check.output.clone())
    });
    platform.run(look).unwrap()
}

#[test]
fn a_check_is_judged_by_its_form_whatever_its_id() {
    let short = json!({ "type": "http", "http": URL, "interval": "10s" });
    let with_id = |check: &Value, id: &str| {
        let mut check = check.clone();
        check["CheckID"] = id.into();
        check
    };
    for (check, id, expected) in [
        (short.clone(), "chk:web-1:0", CheckStatus::Warning),
        (with_id(&short, "named"), "named", CheckStatus::Warning),
        (http(), "service:web-1", CheckStatus::Critical),
        (with_id(&http(), "chk:mine"), "chk:mine", CheckStatus::Critical),
    ] {
        let (script, server, standin, platform) = alone();
        script.set(URL, Some(404));
        standin.apply(&web(NODE, &check));
        platform.advance(FIRST);
        let key = CheckKey {
            id: CheckId::parse(id).unwrap(),
            ..key(NODE)
        };
        let look = server.inspect(true, |registry| {
            let check = registry.check(&key).expect("it is registered");
            (check.status, check.definition.said_interval())
        });
        assert_eq!(platform.run(look).unwrap(), (expected, INTERVAL), "{id}");
    }
}

#[test]
fn a_check_follows_its_target_and_writes_only_what_is_news() {
    let (script, server, standin, platform) = alone();
    script.set(URL, Some(200));
    standin.apply(&web(NODE, &http()));
    assert_eq!(shown(&platform, &server, NODE).0, CheckStatus::Critical);
    platform.advance(FIRST);
    let passing = (
        CheckStatus::Passing,
        format!("HTTP GET {URL}: 200 OK Output: it says 200"),
    );
    assert_eq!(shown(&platform, &server, NODE), passing);
    let index = platform
        .run(server.inspect(true, |registry| registry.index()))
        .unwrap();
    platform.advance(INTERVAL * 10);
    assert!((10..=11).contains(&script.runs(URL)), "{}", script.runs(URL));
    let now = platform
        .run(server.inspect(true, |registry| registry.index()))
        .unwrap();
    assert_eq!(now, index, "nothing was news");
    script.set(URL, None);
    platform.advance(INTERVAL);
    assert_eq!(
        shown(&platform, &server, NODE),
        (CheckStatus::Critical, "nobody is there".to_owned())
    );
}

#[test]
fn the_first_result_counts_at_once_and_later_ones_by_their_row() {
    let (script, server, standin, platform) = alone();
    script.set(URL, Some(200));
    let patient = json!({ "HTTP": URL, "Interval": "10s", "SuccessBeforePassing": 3 });
    standin.apply(&web(NODE, &patient));
    platform.advance(FIRST);
    assert_eq!(shown(&platform, &server, NODE).0, CheckStatus::Passing);
    script.set(URL, Some(500));
    platform.advance(INTERVAL);
    assert_eq!(shown(&platform, &server, NODE).0, CheckStatus::Critical);
    script.set(URL, Some(200));
    platform.advance(INTERVAL * 2);
    assert_eq!(shown(&platform, &server, NODE).0, CheckStatus::Critical);
    platform.advance(INTERVAL);
    assert_eq!(shown(&platform, &server, NODE).0, CheckStatus::Passing);
}

#[test]
fn results_in_a_row_count_and_a_new_definition_counts_anew() {
    let (script, server, standin, platform) = alone();
    script.set(URL, Some(200));
    let patient = json!({ "HTTP": URL, "Interval": "10s", "FailuresBeforeCritical": 3, "Status": "passing" });
    standin.apply(&web(NODE, &patient));
    platform.advance(FIRST);
    script.set(URL, Some(500));
    platform.advance(INTERVAL * 2);
    assert_eq!(shown(&platform, &server, NODE).0, CheckStatus::Passing);
    let more_patient =
        json!({ "HTTP": URL, "Interval": "10s", "FailuresBeforeCritical": 4, "Status": "passing" });
    standin.apply(&web(NODE, &more_patient));
    platform.advance(FIRST + INTERVAL * 2);
    assert_eq!(shown(&platform, &server, NODE).0, CheckStatus::Passing);
    platform.advance(INTERVAL);
    assert_eq!(shown(&platform, &server, NODE).0, CheckStatus::Critical);
}

#[test]
fn what_is_gone_is_not_probed_any_more_and_neither_are_checks_of_agents() {
    let (script, server, standin, platform) = alone();
    script.set(URL, Some(200));
    standin.apply(&web("node-1", &http()));
    platform.advance(INTERVAL * 2);
    assert_eq!(script.runs(URL), 0, "that check is run by the agent of its node");
    assert_eq!(shown(&platform, &server, "node-1").0, CheckStatus::Critical);
    standin.apply(&web(NODE, &http()));
    platform.advance(FIRST);
    assert_eq!(script.runs(URL), 1);
    standin.apply(&Command::Deregister(sider_core::registry::Deregister::Check(
        key(NODE),
    )));
    platform.advance(INTERVAL * 2);
    assert_eq!(script.runs(URL), 1);
}

#[test]
fn the_leader_runs_them_and_a_new_one_carries_on() {
    let platform = TestPlatform::new();
    let members: Vec<_> = ["server-1", "server-2"]
        .iter()
        .map(|id| {
            let (script, config) = prober();
            let (server, standin) = standin::member_of(config, id, &platform, Arc::new(NoObserver), false);
            (script, server, standin)
        })
        .collect();
    let [(first, _, one), (second, server, two)] = &members[..] else {
        panic!("there are two")
    };
    one.connect(two);
    one.lead(1);
    two.follow(1, Some(one));
    one.replicate_to(two);
    for script in [first, second] {
        script.set(URL, Some(200));
    }
    one.apply(&web(NODE, &http()));
    platform.advance(FIRST + INTERVAL);
    assert_eq!((first.runs(URL), second.runs(URL)), (2, 0));
    assert_eq!(shown(&platform, server, NODE).0, CheckStatus::Passing);
    one.follow(2, Some(two));
    two.lead(2);
    platform.advance(FIRST);
    assert_eq!(second.runs(URL), 1);
    let before = first.runs(URL);
    second.set(URL, Some(503));
    platform.advance(INTERVAL);
    assert_eq!(shown(&platform, server, NODE).0, CheckStatus::Critical);
    platform.advance(INTERVAL * 3);
    assert_eq!(first.runs(URL), before, "it leads no more");
}

#[test]
fn what_a_check_says_of_tls_redirects_and_outputs_is_heeded() {
    let (script, server, standin, platform) = alone();
    script.set(URL, Some(200));
    let mut check = http();
    for (name, value) in [
        ("TLSSkipVerify", json!(true)),
        ("TLSServerName", json!("web.internal")),
        ("DisableRedirects", json!(true)),
        ("OutputMaxSize", json!(2)),
    ] {
        check[name] = value;
    }
    standin.apply(&web(NODE, &check));
    platform.advance(FIRST);
    let passing = (CheckStatus::Passing, format!("HTTP GET {URL}: 200 OK Output: it"));
    assert_eq!(shown(&platform, &server, NODE), passing);
    let said = ProbeTls {
        server_name: "web.internal".into(),
        skip_verify: true,
    };
    let probed = script.0.lock().unwrap()[URL].last.clone();
    assert!(
        matches!(&probed, Some(Probe::Http { tls, follows_redirects: false, .. }) if *tls == said),
        "{probed:?}"
    );

    // What a service says of itself is cut where it arrives.
    let ttl = json!({ "TTL": "60s", "OutputMaxSize": 5 });
    standin.apply(&web(NODE, &ttl));
    let report = Renewal {
        target: CheckTarget::Check(key(NODE)),
        status: CheckStatus::Warning,
        output: Some("so and so".to_owned()),
    };
    let renewed = platform.run(server.renew(vec![report])).unwrap();
    assert_eq!(renewed.outcomes, [Ok(())]);
    let warning = (CheckStatus::Warning, "so an".to_owned());
    assert_eq!(shown(&platform, &server, NODE), warning);
    // An agent has cut what it met, and puts it into words.
    standin.apply(&web("node-1", &check));
    let words = format!("HTTP GET {URL}: 200 OK Output: it");
    let report = Renewal {
        target: CheckTarget::Check(key("node-1")),
        status: CheckStatus::Passing,
        output: Some(words.clone()),
    };
    platform.run(server.renew(vec![report])).unwrap();
    assert_eq!(shown(&platform, &server, "node-1"), (CheckStatus::Passing, words));
}

#[test]
fn a_report_on_a_check_that_servers_run_is_refused() {
    let (script, server, standin, platform) = alone();
    script.set(URL, Some(200));
    standin.apply(&web(NODE, &http()));
    let report = |node: &str| Renewal {
        target: CheckTarget::Check(key(node)),
        status: CheckStatus::Warning,
        output: None,
    };
    let renewed = platform.run(server.renew(vec![report(NODE)])).unwrap();
    assert_eq!(renewed.outcomes, [Err(Refusal::NotTtl("service:web-1".into()))]);
    // Of an agent's node it is taken: that is how agents tell what they found.
    standin.apply(&web("node-1", &http()));
    let renewed = platform.run(server.renew(vec![report("node-1")])).unwrap();
    assert_eq!(renewed.outcomes, [Ok(())]);
}

#[test]
fn an_alias_follows_at_once_what_it_stands_for() {
    let (_script, server, standin, platform) = alone();
    standin.apply(&web(NODE, &json!({ "TTL": "1h", "Status": "passing" })));
    let place = Place {
        node: plain_node(NodeName::parse(NODE).unwrap(), "10.0.0.1"),
        namespace: None,
        scripts: true,
    };
    let alias = json!({ "Name": "also", "Check": { "AliasService": "web-1" } });
    standin.apply(&Command::Register(vec![parse_service(&alias, &place).unwrap()]));
    let status = || {
        let look = server.inspect(true, |registry| {
            let of = CheckKey {
                id: CheckId::parse("service:also").unwrap(),
                ..key(NODE)
            };
            registry.check(&of).expect("it is registered").status
        });
        platform.run(look).unwrap()
    };
    platform.advance(limits::ALIAS_INTERVAL / 2);
    assert_eq!(status(), CheckStatus::Passing);
    let renewal = Renewal {
        target: CheckTarget::Check(key(NODE)),
        status: CheckStatus::Critical,
        output: None,
    };
    platform.run(server.renew(vec![renewal])).unwrap();
    platform.advance(limits::ALIAS_PAUSE * 2);
    assert_eq!(status(), CheckStatus::Critical);
}
