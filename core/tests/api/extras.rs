//! What few services say of themselves, proxies of a service mesh, hashes of content, names in other letters.

use std::time::Duration;

use http::StatusCode;
use serde_json::{Value, json};

use crate::support::{Api, answer, request};

const REGISTER: &str = "/v1/agent/service/register";

/// A proxy for `web`, and `web` itself in another spelling.
fn with_proxy() -> Api {
    let api = Api::new();
    api.put(REGISTER, &json!({"Name": "Web", "ID": "web-1", "Port": 80}));
    let proxy = json!({
        "Name": "web-proxy", "ID": "px", "Kind": "connect-proxy", "Port": 21_000, "Tags": ["edge"],
        "Proxy": {"DestinationServiceName": "web", "LocalServicePort": 80, "Mode": "", "Expose": {"Checks": true}},
    });
    api.put(REGISTER, &proxy);
    api
}

fn ids(answer: &Value, path: &str) -> Vec<String> {
    let items = answer.as_array().expect("a list").iter();
    items
        .map(|item| item.pointer(path).and_then(Value::as_str).expect(path).to_owned())
        .collect()
}

#[test]
fn extras_are_shown_wherever_the_service_is() {
    let api = Api::new();
    let extras = json!({
        "Locality": {"Region": "us-west-1", "Zone": "us-west-1a"},
        "Ports": [{"Name": "http", "Port": 80, "Default": true}, {"Name": "metrics", "Port": 9090, "Default": false}],
        "SocketPath": "/run/web.sock",
    });
    let mut body = json!({"Name": "web", "Connect": {"Native": true}});
    for (name, value) in extras.as_object().expect("an object") {
        body[name] = value.clone();
    }
    api.put(REGISTER, &body);
    let shown = [
        ("/v1/agent/service/web", "", ""),
        ("/v1/agent/services", "/web", ""),
        ("/v1/agent/health/service/id/web", "/Service", ""),
        ("/v1/health/service/web", "/0/Service", ""),
        ("/v1/catalog/node/sider", "/Services/web", ""),
        ("/v1/catalog/node-services/sider", "/Services/0", ""),
        ("/v1/catalog/service/web", "/0", "Service"),
    ];
    for (path, place, prefix) in shown {
        let answer = api.get(path).json();
        let service = answer
            .pointer(place)
            .unwrap_or_else(|| panic!("{path}: {answer}"));
        for (name, value) in extras.as_object().expect("an object") {
            assert_eq!(service[format!("{prefix}{name}")], *value, "{path}: {name}");
        }
        assert_eq!(
            service[format!("{prefix}Connect")],
            json!({"Native": true}),
            "{path}"
        );
    }
}

#[test]
fn a_service_is_reached_through_its_proxies() {
    let api = with_proxy();
    let proxies = api.get("/v1/health/connect/web").json();
    assert_eq!(ids(&proxies, "/Service/ID"), ["px"]);
    let service = &proxies[0]["Service"];
    assert_eq!(service["Kind"], "connect-proxy");
    assert_eq!(
        service["Proxy"],
        json!({"DestinationServiceName": "web", "LocalServicePort": 80, "Mode": "", "MeshGateway": {},
            "Expose": {"Checks": true}})
    );
    let address = json!({"consul-virtual": {"Address": "240.0.0.1", "Port": 21_000}});
    assert_eq!(service["TaggedAddresses"], address);
    let listed = api.get("/v1/catalog/connect/web?tag=edge").json();
    assert_eq!(ids(&listed, "/ServiceID"), ["px"]);
    assert_eq!(listed[0]["ServiceKind"], "connect-proxy");
    assert_eq!(api.get("/v1/catalog/connect/web?tag=other").body, "[]");
    assert_eq!(api.get("/v1/health/connect/web-proxy").body, "[]");
    let filtered =
        api.get("/v1/health/connect/web?filter=Service.Proxy.DestinationServiceName%20%3D%3D%20web");
    assert_eq!(ids(&filtered.json(), "/Service/ID"), ["px"]);
    let elsewhere = api.get("/v1/health/connect/web?ns=blue");
    assert_eq!(elsewhere.status, StatusCode::BAD_REQUEST, "{}", elsewhere.body);
}

#[test]
fn who_waits_for_proxies_hears_of_their_health() {
    let api = with_proxy();
    let index = api.get("/v1/health/connect/web").index();
    let path = format!("GET /v1/health/connect/web?index={index}&wait=30s");
    let waiting = api.platform.start(answer(api.router.clone(), request(&path, "")));
    api.platform.advance(Duration::from_secs(1));
    assert!(waiting.take().is_none(), "nothing has changed");
    let check = json!({"Name": "mem", "TTL": "30s"});
    api.put("/v1/agent/check/register", &check);
    api.platform.advance(Duration::from_secs(1));
    let woken = waiting.take().expect("a check of its node counts");
    assert_eq!(woken.json()[0]["Checks"][0]["CheckID"], "mem");
}

#[test]
fn services_are_looked_up_in_any_letters() {
    let api = with_proxy();
    api.put(
        REGISTER,
        &json!({"Name": "web", "ID": "web-2", "Check": {"TTL": "30s"}}),
    );
    for name in ["web", "Web", "WEB"] {
        let found = api.get(&format!("/v1/health/service/{name}")).json();
        assert_eq!(ids(&found, "/Service/ID"), ["web-1", "web-2"], "{name}");
        let found = api.get(&format!("/v1/catalog/service/{name}")).json();
        assert_eq!(ids(&found, "/ServiceName"), ["Web", "web"], "{name}");
        let checks = api.get(&format!("/v1/health/checks/{name}")).json();
        assert_eq!(ids(&checks, "/ServiceName"), ["web"], "{name}");
    }
    // Their list has each as it was registered.
    let listed = api.get("/v1/catalog/services").json();
    assert!(
        listed.get("Web").is_some() && listed.get("web").is_some(),
        "{listed}"
    );
}

#[test]
fn who_waits_in_other_letters_is_woken_and_no_index_goes_back() {
    let api = with_proxy();
    let index = api.get("/v1/health/service/WEB").index();
    let path = format!("GET /v1/health/service/WEB?index={index}&wait=30s");
    let waiting = api.platform.start(answer(api.router.clone(), request(&path, "")));
    api.put(REGISTER, &json!({"Name": "other"}));
    api.platform.advance(Duration::from_secs(1));
    assert!(waiting.take().is_none(), "another service's change wakes nobody");
    api.put(REGISTER, &json!({"Name": "web", "ID": "web-2"}));
    api.platform.advance(Duration::from_secs(1));
    let newer = waiting.take().expect("woken").index();
    assert!(newer > index);
    for id in ["web-1", "web-2"] {
        api.request(&format!("PUT /v1/agent/service/deregister/{id}"), "");
    }
    let gone = api.get("/v1/health/service/WEB");
    assert_eq!(gone.body, "[]");
    assert!(gone.index() > newer);
}

#[test]
fn who_has_a_hash_waits_for_another_content() {
    let api = Api::new();
    api.put(REGISTER, &json!({"Name": "redis"}));
    let first = api.get("/v1/agent/service/redis");
    let hash = first.header("x-consul-contenthash").to_owned();
    assert_eq!(hash, "e2f27ec034bf8c3c", "Consul's own");
    assert_eq!(first.json()["ContentHash"], hash);
    let path = format!("GET /v1/agent/service/redis?hash={hash}&wait=10s");
    let start = || api.platform.start(answer(api.router.clone(), request(&path, "")));

    let waiting = start();
    // What is not shown of it, and what is another's, ends nothing.
    api.put(REGISTER, &json!({"Name": "other"}));
    api.put(
        "/v1/agent/check/register",
        &json!({"Name": "c", "ServiceID": "redis", "TTL": "30s"}),
    );
    api.platform.advance(Duration::from_secs(5));
    assert!(waiting.take().is_none(), "its content is as it was");
    api.platform.advance(Duration::from_secs(7));
    let same = waiting.take().expect("its time is over");
    assert_eq!(same.header("x-consul-contenthash"), hash);

    let waiting = start();
    api.put(REGISTER, &json!({"Name": "redis", "Port": 6379}));
    api.platform.advance(Duration::from_secs(1));
    let changed = waiting.take().expect("woken");
    assert_ne!(changed.header("x-consul-contenthash"), hash);
    assert_eq!(changed.json()["Port"], 6379);
    // An old hash is answered at once.
    let at_once = start();
    api.platform.advance(Duration::from_millis(10));
    assert!(at_once.take().is_some());

    let hash = changed.header("x-consul-contenthash").to_owned();
    let path = format!("GET /v1/agent/service/redis?hash={hash}&wait=10s");
    let waiting = api.platform.start(answer(api.router.clone(), request(&path, "")));
    api.request("PUT /v1/agent/service/deregister/redis", "");
    api.platform.advance(Duration::from_secs(1));
    let gone = waiting.take().expect("woken");
    assert_eq!(gone.status, StatusCode::NOT_FOUND);
}

#[test]
fn an_answer_that_somebody_had_before_is_a_hit() {
    let api = with_proxy();
    let cache = || {
        api.get("/v1/catalog/service/web?cached")
            .header("x-cache")
            .to_owned()
    };
    assert_eq!(cache(), "MISS");
    assert_eq!(cache(), "HIT");
    api.put(REGISTER, &json!({"Name": "web", "ID": "web-2"}));
    assert_eq!(cache(), "MISS");
}

#[test]
fn nothing_is_of_a_peer() {
    let api = with_proxy();
    for path in [
        "/v1/health/service/web",
        "/v1/catalog/service/web",
        "/v1/catalog/nodes",
        "/v1/health/state/any",
    ] {
        assert_eq!(api.get(&format!("{path}?peer=x")).body, "[]", "{path}");
    }
}

#[test]
fn what_nobody_runs_is_kept_as_it_was_registered() {
    let api = Api::new();
    let checks = json!([
        {"CheckID": "udp", "UDP": "10.0.0.1:53", "Interval": "10s"},
        {"CheckID": "grpc", "GRPC": "10.0.0.1:9/web", "GRPCUseTLS": true, "Interval": "10s"},
        {"CheckID": "h2ping", "H2PING": "10.0.0.1:9", "Interval": "10s"},
        {"CheckID": "os_service", "OSService": "web", "Interval": "10s"},
        {"CheckID": "alias", "AliasService": "db"},
    ]);
    api.put(REGISTER, &json!({"Name": "web", "Checks": checks}));
    let shown = api.get("/v1/agent/checks").json();
    for kind in ["udp", "grpc", "h2ping", "os_service", "alias"] {
        assert_eq!(shown[kind]["Type"], kind);
        assert_eq!(shown[kind]["Status"], "critical", "{kind}");
        api.put(&format!("/v1/agent/check/pass/{kind}"), &json!({}));
    }
    let passing = api.get("/v1/health/service/web?passing").json();
    assert_eq!(ids(&passing, "/Service/ID"), ["web"]);
}
