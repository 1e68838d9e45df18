//! Whatever an agent is given, by its configuration or by its own API, is refused with a reason, or taken on: then the
//! servers take it too, and a restart brings it back.

use std::{cell::RefCell, collections::BTreeMap};

use bytes::Bytes;
use http::{Request, Uri};
use proptest::{
    collection::vec,
    prelude::*,
    sample::{Index, select},
};
use serde_json::{Value, json};

use super::harness::{NODE, TestRuntime, World};
use crate::{
    agent::{Agent, ConfigFile},
    api::http::{
        body,
        requests::{encode_registration, parse_catalog_registration, plain_node},
    },
    limits::{
        ADDRESS_BYTES_MAX, AGENT_SYNC_INTERVAL, BODY_BYTES_MAX, CHECK_NAME_BYTES_MAX, CHECK_NOTES_BYTES_MAX,
        CHECKS_PER_INSTANCE_MAX, META_PAIRS_MAX, META_VALUE_CHARS_MAX, TAG_BYTES_MAX, TAGGED_ADDRESSES_MAX,
        TAGS_PER_INSTANCE_MAX, TTL_MAX, WEIGHT_MAX,
    },
    registry::{
        CheckDefinitionUpdate, Instance, Keeps, NodeName, Registration,
        strange::{self, Json},
    },
};

/// Services as they are registered, in both forms.
fn services() -> Vec<Value> {
    vec![
        json!({"Name": "web", "ID": "web", "Address": "10.0.0.1", "Port": 80, "Tags": ["a", "b"], "Meta": {"k": "v"},
            "Weights": {"Passing": 2, "Warning": 1}, "Checks": [{"type": "ttl", "ttl": "15s"},
            {"type": "http", "http": "http://h:1/", "interval": "5s", "timeout": "2s"}]}),
        json!({"ID": "web-2", "Name": "web", "TaggedAddresses": {"lan": {"Address": "10.0.0.1", "Port": 8000}},
            "EnableTagOverride": true, "Check": {"CheckID": "web-ttl", "TTL": "30s", "Status": "passing", "Notes": "n",
                "DeregisterCriticalServiceAfter": "90m", "SuccessBeforePassing": 1}}),
        json!({"Name": "h", "Check": {"HTTP": "http://h:1/x", "Header": {"A": ["b"]}, "Method": "GET", "Interval": "10s",
            "TLSServerName": "h", "TLSSkipVerify": true, "OutputMaxSize": 100}}),
        json!({"Name": "web-proxy", "ID": "px", "Kind": "connect-proxy", "Port": 21000,
            "Locality": {"Region": "r", "Zone": "z"}, "Proxy": {"DestinationServiceName": "web", "LocalServicePort": 80,
                "Config": {"a": [1, 1.5, null, {"b": true}]}, "Upstreams": [{"DestinationName": "db"}]}}),
        json!({"Name": "db", "SocketPath": "/run/x", "Connect": {"Native": true, "SidecarService": {}}, "NS": "blue",
            "Ports": [{"Name": "http", "Port": 80, "Default": true}, {"Name": "m", "Port": 81}],
            "Checks": [{"UDP": "h:1", "Interval": "1s"}, {"GRPC": "h:1/x", "Interval": "1s"}, {"AliasService": "px"},
                {"H2PING": "h:1", "Interval": "1s"}, {"OSService": "x", "Interval": "1s"}]}),
    ]
}

/// Checks as they are registered.
fn checks() -> Vec<Value> {
    vec![
        json!({"ID": "mem", "Name": "Memory", "TTL": "25s", "Notes": "n"}),
        json!({"Name": "port", "TCP": "h:1", "Interval": "10s", "Timeout": "1s", "ServiceID": "web"}),
        json!({"Name": "short", "type": "ttl", "ttl": "5s", "ServiceID": "db", "NS": "blue"}),
    ]
}

/// Other bodies that an agent's API takes.
fn others() -> Vec<Value> {
    vec![
        Value::Null,
        json!({"ns": "default", "service": "web", "id": "web", "address": "10.0.0.1", "port": 80}),
        json!({"Status": "critical", "Output": "o"}),
        json!({"Node": "host-1", "Address": "1.1.1.1", "Service": {"ID": "foreign", "Service": "web"}}),
        json!({"Node": "ext1", "Address": "1.1.1.1", "Check": {"CheckID": "c", "Name": "c", "Status": "warning"}}),
        json!({"Name": "q", "Service": {"Service": "web"}}),
        json!({"TTL": "10s", "Behavior": "delete"}),
        json!([{"KV": {"Verb": "set", "Key": "a", "Value": "AAAA"}}]),
    ]
}

fn node() -> NodeName {
    NodeName::parse(NODE).expect("a valid name")
}

fn assert_is_within_limits(instance: &Instance, checks: &[CheckDefinitionUpdate]) {
    assert!(instance.address.len() <= ADDRESS_BYTES_MAX);
    assert!(instance.tags.len() <= TAGS_PER_INSTANCE_MAX);
    assert!(instance.tags.iter().all(|tag| tag.len() <= TAG_BYTES_MAX));
    assert!(instance.meta.len() <= META_PAIRS_MAX);
    let value_fits = |value: &String| value.chars().count() <= META_VALUE_CHARS_MAX;
    assert!(instance.meta.values().all(value_fits));
    assert!(instance.tagged_addresses.len() <= TAGGED_ADDRESSES_MAX);
    assert!(instance.weights.passing <= WEIGHT_MAX && instance.weights.warning <= WEIGHT_MAX);
    assert!(checks.len() <= CHECKS_PER_INSTANCE_MAX);
    for check in checks {
        let definition = &check.definition;
        assert!(check.name.len() <= CHECK_NAME_BYTES_MAX && check.notes.len() <= CHECK_NOTES_BYTES_MAX);
        assert!(definition.interval <= TTL_MAX && definition.timeout <= TTL_MAX);
        assert!(
            definition
                .ttl()
                .is_none_or(|ttl| ttl <= TTL_MAX && !ttl.is_zero())
        );
    }
}

#[test]
fn a_service_of_the_configuration_is_refused_with_its_place_or_is_what_servers_take() {
    let taken = RefCell::new(0);
    strange::check(3_000, strange::changed(services()), |Json(service)| {
        let file = json!({ "services": [service] });
        let file = ConfigFile::parse(&file).expect("a list of anything");
        let services = match file.services(&node(), "10.0.0.9") {
            Ok(services) => services,
            Err(error) => {
                let error = error.to_string();
                return assert!(
                    error.starts_with("services[0]: ") && error.len() < 2_048,
                    "{error}"
                );
            }
        };
        *taken.borrow_mut() += 1;
        let spec = &services[0].0;
        let checks: Vec<_> = spec.checks.iter().map(|check| check.update.clone()).collect();
        assert_is_within_limits(&spec.instance, &checks);
        let registration = Registration {
            node: plain_node(node(), "10.0.0.9"),
            keeps: Keeps::Nothing,
            instance: Some(spec.instance.clone()),
            checks,
            replace_checks: true,
        };
        // As an agent sends it, among others.
        let sent = json!([encode_registration(&registration)]).to_string();
        assert!(sent.len() <= BODY_BYTES_MAX);
        let read = body::parse(sent.as_bytes()).expect("what an agent sends is JSON");
        let read = parse_catalog_registration(&read[0], None, "dc1").expect("servers take it");
        assert_eq!(read, registration);
    });
    assert!(*taken.borrow() > 1_000, "{taken:?} taken");
}

#[test]
fn a_service_that_servers_could_not_read_is_refused() {
    let tags = |count: usize| json!([{"Name": "web", "Tags": vec!["t".repeat(TAG_BYTES_MAX); count]}]);
    let services = |content| ConfigFile::parse(&content).map(|file| file.services(&node(), "a"));
    assert!(matches!(services(tags(200)), Ok(Ok(_))));
    let error = services(tags(TAGS_PER_INSTANCE_MAX))
        .expect("a list")
        .expect_err("too long");
    assert!(
        error.to_string().starts_with("services[0]: the registration has"),
        "{error}"
    );
}

#[test]
fn a_configuration_is_refused_with_a_reason_or_an_agent_begins_with_it() {
    let configuration = (
        vec(strange::changed(services()), 0..4),
        vec(strange::changed(checks()), 0..3),
    );
    strange::check(300, configuration, |(services, checks)| {
        let world = World::new();
        let all = |of: Vec<Json>| of.into_iter().map(|Json(value)| value).collect::<Vec<_>>();
        let content = json!({ "services": all(services), "checks": all(checks) });
        let file = ConfigFile::parse(&content).expect("lists of anything");
        let (Ok(mut services), Ok(checks)) = (file.services(&node(), "a"), file.checks(&node(), "a")) else {
            return;
        };
        let Ok(checks) = crate::agent::bind_checks(&mut services, checks) else {
            return;
        };
        let config = crate::agent::AgentConfig {
            services,
            checks,
            ..world.config(json!([]))
        };
        match world.start_with(config) {
            Ok(agent) => drop(assert_servers_agree(&world, &agent)),
            Err(error) => assert!(error.to_string().contains('"'), "{error} names what it is about"),
        }
    });
}

/// One request at an agent's API.
#[derive(Clone, Debug)]
struct Asked {
    method: &'static str,
    uri: String,
    body: String,
}

const PATHS: [&str; 44] = [
    "/v1/agent/service/deregister/web",
    "/v1/agent/service/deregister/db?ns=blue",
    "/v1/agent/service/deregister",
    "/v1/agent/service/deregister/",
    "/v1/agent/service/heartbeat/web",
    "/v1/agent/service/heartbeat",
    "/v1/agent/service/maintenance/web?enable=true&reason=r",
    "/v1/agent/service/maintenance/web?enable=false",
    "/v1/agent/service/web?hash=1&wait=1ms",
    "/v1/agent/service/web",
    "/v1/agent/services",
    "/v1/agent/services?filter=Service%20%3D%3D%20web",
    "/v1/agent/check/deregister/mem",
    "/v1/agent/check/pass/chk:web:0?note=n",
    "/v1/agent/check/warn/service:h",
    "/v1/agent/check/fail/mem",
    "/v1/agent/check/update/web-ttl",
    "/v1/agent/checks",
    "/v1/agent/health/service/id/web",
    "/v1/agent/health/service/name/web?format=text",
    "/v1/agent/maintenance?enable=true",
    "/v1/agent/maintenance?enable=false",
    "/v1/agent/self",
    "/v1/agent/host",
    "/v1/agent/metrics",
    "/v1/agent/reload",
    "/v1/agent/monitor?loglevel=debug",
    "/v1/agent/members",
    "/v1/agent/connect/ca/roots",
    "/v1/catalog/register",
    "/v1/catalog/deregister",
    "/v1/catalog/services?cached",
    "/v1/catalog/node/host-1",
    "/v1/catalog/node-services/host-1?index=1&wait=1ms",
    "/v1/health/service/web?passing&cached",
    "/v1/health/state/any?pretty",
    "/v1/kv/a/b?cas=1",
    "/v1/txn",
    "/v1/query",
    "/v1/session/create",
    "/v1/session/list",
    "/v1/status/leader",
    "/v1/watch/service/web",
    "/livez",
];

const QUERIES: [&str; 20] = [
    "ns=blue",
    "ns=",
    "ns=%00",
    "namespace=x",
    "dc=x",
    "dc=dc1",
    "index=5&wait=1ms",
    "index=99999999999999999999",
    "wait=-5s&index=1",
    "wait=1h1",
    "hash=x&wait=1ms",
    "stale",
    "cached&max-age=1",
    "cached&consistent",
    "pretty",
    "filter=x",
    "filter=not%20(Tags%20is%20empty)",
    "filter=ID%20matches%20%60(a*)*b%60",
    "replace-existing-checks=maybe",
    "%%%=&&&==&%FF=%FF",
];

fn uri() -> impl Strategy<Value = String> {
    let odd = select(
        &[
            "%00", "%FF", "%2F", "/", "..", "/../", "%C3%A9", "%", "x", "?", "{*id}",
        ][..],
    );
    let more = vec((any::<Index>(), odd), 0..2);
    let path = (select(&PATHS[..]), prop_oneof![3 => Just(Vec::new()), 1 => more]);
    let queries = vec(select(&QUERIES[..]), 0..3);
    (path, queries).prop_map(|((path, odd), queries)| {
        let mut uri = path.to_owned();
        for (place, what) in odd {
            uri.insert_str(1 + place.index(uri.len() - 1), what);
        }
        for query in queries {
            uri.push(if uri.contains('?') { '&' } else { '?' });
            uri.push_str(query);
        }
        uri
    })
}

fn asked() -> impl Strategy<Value = Asked> {
    let method = select(
        &[
            "PUT", "PUT", "PUT", "GET", "GET", "POST", "DELETE", "HEAD", "OPTIONS", "X",
        ][..],
    );
    let to = |path: &'static str, of: Vec<Value>| {
        let query = select(&["", "", "", "?ns=blue", "?replace-existing-checks", "?ns=default"][..]);
        (strange::changed(of), query, strange::faults()).prop_map(move |(Json(body), query, faults)| Asked {
            method: "PUT",
            uri: format!("{path}{query}"),
            body: strange::faulty(body.to_string(), &faults),
        })
    };
    let any = [services(), checks(), others()].concat();
    prop_oneof![
        4 => to("/v1/agent/service/register", services()),
        2 => to("/v1/agent/check/register", checks()),
        4 => (method, uri(), strange::changed(any)).prop_map(|(method, uri, Json(body))| {
            let body = if body.is_null() { String::new() } else { body.to_string() };
            Asked { method, uri, body }
        }),
    ]
}

/// What a client did wrong and Consul has a 500 for, or what a service of Consul's says when it is not well.
const CONSULS: [&str; 8] = [
    "Connect must be enabled",
    "No path to datacenter",
    "Failed to create boolean expression evaluator",
    "Scripts are disabled on this agent",
    "agent: No node found",
    "CheckID",
    "outcome unknown",
    "No known Consul servers",
];

fn assert_is_answered(world: &World, agent: &Agent<TestRuntime>, asked: &Asked) -> u16 {
    let Ok(uri) = asked.uri.parse::<Uri>() else {
        return 0;
    };
    let path = uri.path().to_owned();
    let request = Request::builder().method(asked.method).uri(uri);
    let body = Bytes::from(asked.body.clone());
    let told = world.send(agent, request.body(body).expect("a valid request"));
    let health = path.starts_with("/v1/agent/health/") && told.status == 503;
    let odd = path
        .split('/')
        .skip(1)
        .any(|part| matches!(part, "" | "." | ".."));
    // What is sent on is answered by a server, whose answers are tried in the same way.
    let sent_on = !path.starts_with("/v1/agent/");
    // Streams, and what only a process has.
    let known = asked.method == "HEAD"
        || sent_on
        || told.status == 501
        || CONSULS.iter().any(|words| told.text.starts_with(words));
    let fine = (200..300).contains(&told.status) || (400..500).contains(&told.status);
    assert!(
        fine || health || odd && told.status == 307 || known && told.status >= 500,
        "{asked:?}: {} {}",
        told.status,
        told.text
    );
    // An instance's health is told with its checks, and a miss of a key by its index alone.
    let says_more =
        path.starts_with("/v1/agent/health/") || path.starts_with("/v1/kv/") || path.starts_with("/v1/txn");
    if (400..500).contains(&told.status) && asked.method != "HEAD" && !says_more {
        let lines = told.text.trim_end_matches('\n').lines().count();
        assert!(lines == 1 && told.text.len() < 2_048, "{asked:?}: {}", told.text);
    }
    told.status
}

/// The agent's services by namespace and id, as it shows them.
fn shown(
    world: &World,
    agent: &Agent<TestRuntime>,
    namespaces: &[String],
) -> BTreeMap<(String, String), String> {
    let mut shown = BTreeMap::new();
    for namespace in namespaces {
        let request = Request::get("/v1/agent/services").header("x-consul-namespace", namespace);
        let told = world.send(agent, request.body(Bytes::new()).expect("a valid request"));
        for (id, service) in told.json.as_object().expect("services") {
            let name = service["Service"].as_str().expect("a name");
            shown.insert((namespace.clone(), id.clone()), name.to_owned());
        }
    }
    shown
}

/// After a while the servers hold what the agent shows, and nothing else of its node.
fn assert_servers_agree(world: &World, agent: &Agent<TestRuntime>) -> BTreeMap<(String, String), String> {
    world.advance(AGENT_SYNC_INTERVAL * 3);
    let held: BTreeMap<_, _> = world.look(|registry| {
        let own = registry.instances().filter(|instance| instance.node == node());
        let key = |it: &Instance| (it.namespace.to_string(), it.id.to_string());
        own.map(|it| (key(it), it.service.to_string())).collect()
    });
    let mut namespaces = vec!["default".to_owned(), "blue".to_owned()];
    namespaces.extend(held.keys().map(|(namespace, _)| namespace.clone()));
    namespaces
        .retain(|namespace| http::HeaderValue::from_str(namespace).is_ok_and(|value| value.to_str().is_ok()));
    let shown = shown(world, agent, &namespaces);
    let held: BTreeMap<_, _> = held
        .into_iter()
        .filter(|((namespace, _), _)| namespaces.contains(namespace))
        .collect();
    assert_eq!(shown, held);
    shown
}

#[test]
fn whatever_an_agent_is_asked_is_answered_and_what_it_takes_on_stays() {
    let statuses = RefCell::new(BTreeMap::new());
    strange::check(60, vec(asked(), 1..40), |script| {
        let world = World::new();
        let config = json!({"services": [{"name": "own", "port": 1}]});
        let agent = world.start(config.clone());
        for asked in &script {
            let status = assert_is_answered(&world, &agent, asked);
            *statuses.borrow_mut().entry(status).or_insert(0) += 1;
        }
        let before = assert_servers_agree(&world, &agent);
        let world = world.restarted();
        let agent = world.start(config);
        assert_eq!(assert_servers_agree(&world, &agent), before, "after a restart");
    });
    let statuses = statuses.into_inner();
    for status in [200, 400, 404] {
        assert!(
            statuses.get(&status).is_some_and(|count| *count > 50),
            "{statuses:?}"
        );
    }
}
