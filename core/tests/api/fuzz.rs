//! Whatever a client sends, the answer is a 2xx or a 4xx: never a panic, never a 5xx, and an error is one line.

use axum::body::Body;
use http::{Method, Request, StatusCode, Uri};
use serde_json::{Value, json};

use crate::support::Api;

/// Requests per seed and seeds: some seconds in all.
const SEEDS: u64 = 200;
const REQUESTS: usize = 200;

/// Chance from a seed, the same on every machine.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).expect("below a usize")
    }

    fn pick<'a, T: ?Sized>(&mut self, of: &[&'a T]) -> &'a T {
        of[self.below(of.len())]
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

const PATHS: [&str; 55] = [
    "/v1/agent/service/web?hash=1&wait=1ms",
    "/v1/catalog/connect/web",
    "/v1/catalog/service/WEB",
    "/v1/health/connect/web?passing",
    "/v1/kv/a/b?flags=7",
    "/v1/kv/a?recurse&separator=/",
    "/v1/kv/?keys&separator=/",
    "/v1/kv/a/b?cas=1",
    "/v1/txn",
    "/v1/session/list",
    "/v1/session/renew/nobody",
    "/v1/agent/service/register",
    "/v1/agent/service/register?replace-existing-checks=1",
    "/v1/agent/service/deregister/web",
    "/v1/agent/service/deregister",
    "/v1/agent/service/deregister/",
    "/v1/agent/service/heartbeat/web",
    "/v1/agent/service/heartbeat",
    "/v1/agent/service/web",
    "/v1/agent/services",
    "/v1/agent/check/register",
    "/v1/agent/check/deregister/service:web",
    "/v1/agent/check/pass/chk:web:0?note=n",
    "/v1/agent/check/warn/service:web",
    "/v1/agent/check/fail/mem",
    "/v1/agent/check/update/mem",
    "/v1/agent/checks",
    "/v1/agent/health/service/id/web",
    "/v1/agent/health/service/name/web?format=text",
    "/v1/catalog/register",
    "/v1/catalog/deregister",
    "/v1/catalog/services",
    "/v1/catalog/service/web?tag=a&tag=b",
    "/v1/catalog/nodes?node-meta=a:b",
    "/v1/catalog/node/ext1",
    "/v1/catalog/node-services/ext1",
    "/v1/catalog/datacenters",
    "/v1/health/service/web?passing&index=1&wait=1ms",
    "/v1/health/service/web?stale&max_stale=1s",
    "/v1/health/node/ext1",
    "/v1/health/checks/web",
    "/v1/health/state/any?pretty",
    "/v1/health/state/critical",
    "/v1/raft/join",
    "/v1/raft/remove",
    "/v1/raft/stats",
    "/v1/raft/configuration",
    "/v1/cluster/status",
    "/v1/status/leader",
    "/v1/status/peers",
    "/v1/batch/register",
    "/v1/batch/renew",
    "/livez",
    "/readyz",
    "/metrics",
];

const QUERIES: [&str; 28] = [
    "peer=x",
    "peer=%22%60%5C",
    "cached",
    "filter=Service.Proxy.DestinationServiceName%20%3D%3D%20web%20or%20Service.Kind%20%3D%3D%20x",
    "ns=blue",
    "ns=",
    "ns=%00",
    "index=5",
    "index=zz",
    "index=99999999999999999999",
    "wait=1ms",
    "wait=-5s",
    "wait=1h1",
    "stale",
    "consistent",
    "passing=maybe",
    "tag=%FF",
    "node-meta=",
    "dc=dc1",
    "dc=x",
    "pretty",
    "max_stale=0",
    "filter=x",
    "filter=Service.Port%20%3D%3D%208000%20or%20a%20in%20Service.Tags",
    "filter=not%20(Tags%20is%20empty)",
    "filter=Checks.Status%20matches%20%60%5Ep%60",
    "filter=ServiceName%20%3D%3D%20web%20and%20NodeMeta.a%20!%3D%20b",
    "%%%=&&&==",
];

fn bodies() -> Vec<Value> {
    vec![
        json!({"Name": "web", "ID": "web", "Address": "10.0.0.1", "Port": 80, "Tags": ["a", "b"], "Meta": {"k": "v"},
            "Weights": {"Passing": 2, "Warning": 1}, "Checks": [{"type": "ttl", "ttl": "15s"}]}),
        json!({"ID": "web", "Name": "web", "TaggedAddresses": {"lan": {"Address": "10.0.0.1", "Port": 8000}},
            "EnableTagOverride": true, "Check": {"CheckID": "web-ttl", "TTL": "30s", "Status": "passing", "Notes": "n",
                "DeregisterCriticalServiceAfter": "90m", "SuccessBeforePassing": 1}}),
        json!({"Name": "h", "Check": {"HTTP": "http://h:1/x", "Header": {"A": ["b"]}, "Method": "GET", "Interval": "10s"}}),
        json!({"Name": "web-proxy", "ID": "px", "Kind": "connect-proxy", "Port": 21000, "Locality": {"Region": "r", "Zone": "z"},
            "Proxy": {"DestinationServiceName": "web", "LocalServicePort": 80, "Expose": {"Paths": [{"Path": "/m"}]},
                "Config": {"a": [1, 1.5, null, {"b": true}]}, "Upstreams": [{"DestinationName": "db", "LocalBindPort": 1}]}}),
        json!({"Name": "web", "SocketPath": "/run/x", "Connect": {"Native": true, "SidecarService": {}},
            "Ports": [{"Name": "http", "Port": 80, "Default": true}, {"Name": "m", "Port": 81}],
            "Checks": [{"UDP": "h:1", "Interval": "1s"}, {"GRPC": "h:1/x", "Interval": "1s"}, {"AliasService": "px"}]}),
        json!({"ID": "mem", "Name": "Memory", "TTL": "25s", "ServiceID": "web"}),
        json!({"Node": "ext1", "Address": "1.1.1.1", "NodeMeta": {"a": "b"}, "Service": {"ID": "r1", "Service": "web"},
            "Check": {"CheckID": "c", "Name": "c", "Status": "warning", "ServiceID": "r1", "Definition": {"TCP": "h:1"}}}),
        json!({"Node": "ext1", "ServiceID": "r1"}),
        json!({"ns": "default", "service": "web", "id": "web", "address": "10.0.0.1", "port": 80}),
        json!({"Status": "critical", "Output": "o"}),
        json!([{"Name": "a"}, {"Node": "n", "Address": "a", "Service": {"Service": "s"}}]),
        json!(["chk:web:0", {"CheckID": "c", "Node": "ext1", "Status": "passing"}, {"ServiceID": "web"}]),
    ]
}

/// Puts something else in the place of a value, or deeper inside of it.
fn mutate(value: &mut Value, chance: &mut Chance) {
    let strange = [
        json!(null),
        json!(true),
        json!(-1),
        json!(0),
        json!(70000),
        json!(80.5),
        json!(1e300),
        json!(u64::MAX),
        json!(""),
        json!("abc"),
        json!("0s"),
        json!("-1s"),
        json!("\u{0}\n\u{7f}"),
        json!("é".repeat(200)),
        json!([]),
        json!([[]]),
        json!({}),
        json!({"": {"": null}}),
        json!(["a", 1]),
        json!("1.5h"),
        json!("passing"),
        json!("default"),
    ];
    match value {
        Value::Object(map) if !map.is_empty() && !chance.one_in(6) => {
            let position = chance.below(map.len());
            let key = map.keys().nth(position).cloned().expect("within");
            match chance.below(6) {
                0 => {
                    map.remove(&key);
                }
                1 => {
                    let value = map.remove(&key).expect("it is there");
                    let key = if chance.one_in(2) {
                        key.to_uppercase()
                    } else {
                        format!("{key}_")
                    };
                    map.insert(key, value);
                }
                2 => {
                    let other = map[&key].clone();
                    map.insert(format!("_{key}"), other);
                }
                _ => mutate(&mut map[&key], chance),
            }
        }
        Value::Array(items) if !items.is_empty() && !chance.one_in(6) => {
            let position = chance.below(items.len());
            if chance.one_in(4) {
                let copy = items[position].clone();
                items.push(copy);
            } else {
                mutate(&mut items[position], chance);
            }
        }
        other => *other = strange[chance.below(strange.len())].clone(),
    }
}

fn body(chance: &mut Chance) -> Vec<u8> {
    let bodies = bodies();
    let mut value = bodies[chance.below(bodies.len())].clone();
    for _ in 0..chance.below(4) {
        mutate(&mut value, chance);
    }
    let mut bytes = value.to_string().into_bytes();
    if chance.one_in(5) && !bytes.is_empty() {
        let position = chance.below(bytes.len());
        match chance.below(3) {
            0 => bytes.truncate(position),
            1 => bytes[position] = chance.next().to_le_bytes()[0],
            _ => bytes.insert(position, chance.next().to_le_bytes()[0]),
        }
    }
    bytes
}

fn uri(chance: &mut Chance) -> String {
    let mut uri = chance.pick(&PATHS).to_owned();
    if chance.one_in(4) {
        let position = chance.below(uri.len() - 1) + 1;
        match chance.below(4) {
            0 => uri.truncate(position),
            1 => uri.insert(position, '/'),
            2 => uri.insert_str(
                position,
                chance.pick(&["%00", "%FF", "%2F", "%C3%A9", "..", "%", "{*id}"]),
            ),
            _ => uri.insert_str(position, &"x".repeat(200)),
        }
    }
    for _ in 0..chance.below(3) {
        uri.push(if uri.contains('?') { '&' } else { '?' });
        uri.push_str(chance.pick(&QUERIES));
    }
    uri
}

/// What a client did wrong and Consul has a 500 for, by the words that it begins with.
const CONSULS_500: [&str; 13] = [
    "No path to datacenter",
    "Failed to create boolean expression evaluator",
    "Failed to compile regular expression",
    "Scripts are disabled on this agent",
    "Must provide node",
    "Must provide address",
    "Must provide service name (Service.Service)",
    "Bad node ID",
    "Missing serviceID",
    "sameness groups are not supported",
    "Invalid prepared query",
    "Cannot modify non-existent prepared query",
    "agent: No node found",
];

#[test]
fn whatever_is_sent_is_answered_with_success_or_with_a_reason() {
    let mut seen = std::collections::BTreeMap::new();
    for seed in 0..SEEDS {
        let chance = &mut Chance(seed);
        let api = Api::new();
        for _ in 0..REQUESTS {
            let uri = uri(chance);
            let method = chance.pick(&[
                "GET", "PUT", "PUT", "POST", "PUT", "GET", "DELETE", "OPTIONS", "HEAD", "X",
            ]);
            let (method, body) = (method.parse::<Method>().expect("a method"), body(chance));
            let Ok(parsed) = uri.parse::<Uri>() else {
                continue;
            };
            let told = format!("seed {seed}: {method} {uri} {}", String::from_utf8_lossy(&body));
            let request = Request::builder()
                .method(&method)
                .uri(parsed)
                .body(Body::from(body));
            let answer = api.send(request.unwrap_or_else(|error| panic!("{told}: {error}")));
            *seen.entry(answer.status.as_u16()).or_insert(0) += 1;
            // The health of an instance is told by a status, 503 among them.
            let health =
                uri.starts_with("/v1/agent/health/") && answer.status == StatusCode::SERVICE_UNAVAILABLE;
            // Odd paths lead elsewhere, as in Consul. Keys are answered as Consul does: numbers that are none are a 500, and
            // a miss says no more than its index.
            let of_keys = uri.starts_with("/v1/kv/");
            let path = uri.split('?').next().unwrap_or_default();
            let is_odd = path
                .split('/')
                .skip(1)
                .any(|part| matches!(part, "" | "." | ".."))
                || answer.header("location").starts_with(&format!("{path}/"));
            let as_consul = of_keys && answer.body.starts_with("strconv.")
                || is_odd && answer.status.is_redirection()
                || answer.status == StatusCode::INTERNAL_SERVER_ERROR
                    && (method == Method::HEAD
                        || CONSULS_500.iter().any(|words| answer.body.starts_with(words)));
            let miss =
                of_keys && answer.status == StatusCode::NOT_FOUND && !answer.header("x-index").is_empty();
            if miss {
                continue;
            }
            assert!(
                answer.status.is_success() || answer.status.is_client_error() || health || as_consul,
                "{told}: {} {}",
                answer.status,
                answer.body
            );
            if answer.status.is_client_error()
                && method != Method::HEAD
                && answer.header("x-consul-reason").is_empty()
            {
                assert!(!answer.body.is_empty(), "{told}: no reason is given");
                assert!(
                    answer.body.trim_end_matches('\n').lines().count() == 1,
                    "{told}: {}",
                    answer.body
                );
                assert_eq!(
                    answer.header("content-type"),
                    "text/plain; charset=utf-8",
                    "{told}"
                );
            }
        }
    }
    // The mutations are no good if they never get through, or always.
    assert!(seen.get(&200).is_some_and(|count| *count > 1_000), "{seen:?}");
    assert!(seen.get(&400).is_some_and(|count| *count > 1_000), "{seen:?}");
}
