//! What clients of Consul's count on: namespaces that are not there, names of any length that they use, paths in any
//! spelling, prepared queries that spread load.

use std::collections::BTreeSet;

use http::StatusCode;
use serde_json::{Value, json};

use crate::support::Api;

const REGISTER: &str = "/v1/agent/service/register";

/// That a request is refused with a status and a text.
fn refused(api: &Api, line: &str, body: &str, status: StatusCode, text: &str) {
    let answer = api.request(line, body);
    assert_eq!(
        (answer.status, answer.body.as_str()),
        (status, text),
        "{line} {body}"
    );
}

fn bad(api: &Api, line: &str, body: &str, text: &str) {
    refused(api, line, body, StatusCode::BAD_REQUEST, text);
}

#[test]
fn keys_and_sessions_are_in_the_default_namespace_alone() {
    let api = Api::new();
    api.request("PUT /v1/kv/x", "here");
    let foreign = r#"keys and sessions have no namespaces: expected none, got "foo""#;
    for path in [
        "/v1/kv/x?",
        "/v1/kv/?recurse&",
        "/v1/kv/?keys&",
        "/v1/watch/kv/x?",
        "/v1/session/list?",
        "/v1/session/info/s?",
        "/v1/session/node/n?",
    ] {
        bad(&api, &format!("GET {path}ns=foo"), "", foreign);
        if !path.contains("watch") {
            let answer = api.get(&format!("{path}ns=default"));
            assert_ne!(answer.status, StatusCode::BAD_REQUEST, "{path}");
        }
    }
    for operation in [
        json!({"KV": {"Verb": "get", "Key": "x"}}),
        json!({"KV": {"Verb": "set", "Key": "x"}}),
        json!({"Session": {"Verb": "delete", "Session": {"ID": "s"}}}),
    ] {
        let body = json!([operation]).to_string();
        bad(&api, "PUT /v1/txn?ns=foo", &body, foreign);
        let mut named = operation.clone();
        for (_, fields) in named.as_object_mut().expect("an object") {
            match fields.get_mut("Session") {
                Some(session) => session["Namespace"] = json!("foo"),
                None => fields["Namespace"] = json!("foo"),
            }
        }
        bad(&api, "PUT /v1/txn", &json!([named]).to_string(), foreign);
    }
    assert_eq!(api.get("/v1/kv/x?raw").body, "here");
    // Services have namespaces: an operation says which.
    let service = json!([
        {"Node": {"Verb": "set", "Node": {"Node": "n", "Address": "10.0.0.1"}}},
        {"Service": {"Verb": "set", "Node": "n", "Service": {"Service": "web", "Namespace": "foo"}}},
    ]);
    api.put("/v1/txn", &service);
    assert_eq!(api.get("/v1/catalog/services").body, "{}");
    assert_eq!(api.get("/v1/catalog/services?ns=foo").body, r#"{"web":[]}"#);
}

#[test]
fn names_ids_and_tags_are_as_long_as_their_users_make_them() {
    let api = Api::new();
    let (id, name, tag) = ("i".repeat(512), "n".repeat(512), "t".repeat(8 * 1024));
    let body = json!({
        "ID": id, "Name": name, "Tags": [tag],
        "Checks": [{"type": "ttl", "ttl": "1m"}, {"type": "ttl", "ttl": "1m"}],
    });
    api.put(REGISTER, &body);
    api.put(
        REGISTER,
        &json!({"ID": id, "Name": name, "Checks": [{"TTL": "1m"}, {"TTL": "2m"}]}),
    );
    let on = format!("/v1/agent/service/maintenance/{id}?enable=true");
    assert_eq!(api.request(&format!("PUT {on}"), "").status, StatusCode::OK);
    let checks = api.get("/v1/agent/checks").json();
    let ids: Vec<&String> = checks.as_object().expect("an object").keys().collect();
    assert_eq!(ids.len(), 5);
    for id in ids {
        assert!(id.len() > 512);
        if !id.starts_with('_') {
            api.put(&format!("/v1/agent/check/pass/{id}"), &Value::Null);
        }
    }
    let tags: Vec<String> = (0..1_024).map(|number| format!("tag-{number}")).collect();
    api.put(REGISTER, &json!({"Name": "many", "Tags": tags}));
    let shown = api.get("/v1/catalog/service/many").json();
    assert_eq!(shown[0]["ServiceTags"].as_array().map(Vec::len), Some(1_024));
    let register = format!("PUT {REGISTER}");
    for (body, reason) in [
        (json!({"Name": "n".repeat(513)}), "it is longer than 512 bytes"),
        (
            json!({"Name": "x", "ID": "i".repeat(513)}),
            "it is longer than 512 bytes",
        ),
        (
            json!({"Name": "x", "Tags": ["t".repeat(8 * 1024 + 1)]}),
            "expected at most 8192 bytes",
        ),
        (
            json!({"Name": "x", "Tags": vec!["t"; 1_025]}),
            "expected at most 1024",
        ),
        (
            json!({"Name": "x", "Check": {"CheckID": "c".repeat(577), "TTL": "1m"}}),
            "it is longer than 576 bytes",
        ),
    ] {
        let answer = api.request(&register, &body.to_string());
        assert_eq!(answer.status, StatusCode::BAD_REQUEST);
        assert!(answer.body.contains(reason), "{}", answer.body);
    }
}

#[test]
fn an_agents_form_names_a_weight_or_says_nothing_of_weights() {
    let api = Api::new();
    let register = format!("PUT {REGISTER}");
    let reason = "Invalid Weights: Passing must be greater than 0";
    for weights in [
        json!({"Passing": 0}),
        json!({"Passing": -1}),
        json!({"Passing": 0, "Warning": 0}),
        json!({"Passing": 0, "Warning": 1}),
        json!({"Warning": 1}),
        json!({}),
    ] {
        let body = json!({"Name": "x", "Weights": weights}).to_string();
        bad(&api, &register, &body, reason);
    }
    for (weights, passing, warning) in [
        (json!(null), 1, 1),
        (json!({"Passing": 5}), 5, 0),
        (json!({"Passing": 2, "Warning": 3}), 2, 3),
    ] {
        api.put(REGISTER, &json!({"Name": "x", "Weights": weights}));
        let shown = api.get("/v1/agent/service/x").json();
        assert_eq!(shown["Weights"], json!({"Passing": passing, "Warning": warning}));
    }
    // Consul's Go client sends zeros to the catalog where nothing is said.
    let weights = json!({"Passing": 0, "Warning": 0});
    let service = json!({"Service": "y", "Weights": weights});
    api.put(
        "/v1/catalog/register",
        &json!({"Node": "n", "Address": "10.0.0.1", "Service": service}),
    );
}

#[test]
fn a_path_that_is_not_clean_is_sent_to_the_clean_one() {
    let api = Api::new();
    for (line, location) in [
        ("GET //v1/catalog/services?stale", "/v1/catalog/services?stale"),
        ("GET /v1//catalog/services", "/v1/catalog/services"),
        ("GET /v1/health/../catalog/./services", "/v1/catalog/services"),
        ("PUT /v1/agent//service/register", "/v1/agent/service/register"),
        ("GET /v1/kv//a", "/v1/kv/a"),
        ("GET /v1/nope//x", "/v1/nope/x"),
        ("GET /v1/kv?recurse", "/v1/kv/?recurse"),
        ("GET /v1/health/service", "/v1/health/service/"),
    ] {
        let answer = api.request(line, "");
        assert_eq!(answer.status, StatusCode::TEMPORARY_REDIRECT, "{line}");
        assert_eq!(answer.header("location"), location, "{line}");
    }
}

#[test]
fn a_session_is_bound_as_consul_binds_it() {
    let api = Api::new();
    let check = json!({"Name": "x", "CheckID": "x", "Status": "passing"});
    let alive = json!({"Name": "alive", "CheckID": "serfHealth", "Status": "passing"});
    let body = json!({"Node": "n", "Address": "10.0.0.1", "Checks": [check, alive]});
    assert_eq!(
        api.request("PUT /v1/catalog/register", &body.to_string()).status,
        200
    );
    for (body, bound) in [
        (json!({}), json!(["serfHealth"])),
        (json!({"Checks": ["x"]}), json!(["serfHealth", "x"])),
        (json!({"NodeChecks": ["x"]}), json!(["x"])),
        (
            json!({"NodeChecks": ["x"], "Checks": ["serfHealth"]}),
            json!(["x"]),
        ),
        (json!({"NodeChecks": ["serfHealth"], "Checks": []}), json!([])),
        (json!({"NodeChecks": [], "Checks": ["x"]}), json!([])),
        (json!({"NodeChecks": null}), json!([])),
        (json!({"Checks": null}), json!([])),
    ] {
        let mut body = body;
        body["Node"] = "n".into();
        let made = api.request("PUT /v1/session/create", &body.to_string());
        assert_eq!(made.status, 200, "{body}: {}", made.body);
        let id = made.json()["ID"].as_str().unwrap_or_default().to_owned();
        let told = api.get(&format!("/v1/session/info/{id}")).json();
        let checks = &told[0]["NodeChecks"];
        let none = checks.is_null() && bound == json!([]);
        assert!(none || *checks == bound, "{body}: {told}");
    }
}

#[test]
fn dead_servers_are_cleaned_up_unless_settings_say_otherwise() {
    let api = Api::new();
    let path = "/v1/operator/autopilot/configuration";
    for (body, cleans_up) in [
        (json!({"MinQuorum": 3}), true),
        (json!({"CleanupDeadServers": null}), true),
        (json!({"CleanupDeadServers": false}), false),
    ] {
        let stored = api.request(&format!("PUT {path}"), &body.to_string());
        assert_eq!(stored.body, "true", "{body}");
        assert_eq!(api.get(path).json()["CleanupDeadServers"], cleans_up, "{body}");
    }
}

#[test]
fn names_of_no_keys_are_a_list_and_a_tree_is_never_raw() {
    let api = Api::new();
    let names = api.get("/v1/kv/?keys");
    assert_eq!((names.status, names.body.as_str()), (StatusCode::OK, "[]"));
    assert_eq!(api.get("/v1/kv/k?keys").status, 404);
    assert_eq!(api.request("PUT /v1/kv/k/a", "v").status, 200);
    assert_eq!(api.get("/v1/kv/k/a?raw").body, "v");
    assert_eq!(api.get("/v1/kv/k?recurse&raw").json()[0]["Key"], "k/a");
}

#[test]
fn keys_are_text_without_control_characters() {
    let api = Api::new();
    let no_text = "Invalid key: expected UTF-8 behind its percent signs";
    for path in ["/v1/kv/%FF", "/v1/kv/a%80b", "/v1/watch/kv/%FE"] {
        bad(&api, &format!("GET {path}"), "", no_text);
    }
    bad(&api, "PUT /v1/kv/%FF", "x", no_text);
    for (path, letter) in [("%00", r"\0"), ("a%0Ab", r"\n"), ("%7F", r"\u{7f}")] {
        let reason = format!("Invalid key: expected no control characters, got '{letter}'");
        for method in ["GET", "PUT", "DELETE"] {
            bad(&api, &format!("{method} /v1/kv/{path}"), "", &reason);
        }
    }
    let umlaut = api.request("PUT /v1/kv/%C3%BC%20%25", "x");
    assert_eq!(umlaut.body, "true");
    assert_eq!(api.get("/v1/kv/?keys").json(), json!(["ü %"]));
}

#[test]
fn what_contradicts_itself_or_is_no_status_is_refused() {
    let api = Api::new();
    bad(
        &api,
        "GET /v1/health/service/web?cached&consistent",
        "",
        "Cannot specify ?cached with ?consistent, conflicting semantics.",
    );
    api.put("/v1/agent/check/register", &json!({"Name": "mem", "TTL": "1m"}));
    bad(
        &api,
        "PUT /v1/agent/check/update/mem",
        r#"{"Status": "unknown"}"#,
        "Invalid check status: 'unknown'",
    );
}

#[test]
fn operators_are_answered_by_a_leader_or_as_stale_as_they_ask_for() {
    let api = Api::new();
    let paths = [
        "/v1/operator/raft/configuration",
        "/v1/operator/autopilot/state",
        "/v1/operator/autopilot/health",
    ];
    for path in paths {
        assert_eq!(api.get(path).status, StatusCode::OK, "{path}");
    }
    api.standin.follow(2, None);
    for path in paths {
        refused(
            &api,
            &format!("GET {path}"),
            "",
            StatusCode::INTERNAL_SERVER_ERROR,
            "No cluster leader",
        );
        let stale = api.get(&format!("{path}?stale")).status;
        assert_ne!(stale, StatusCode::INTERNAL_SERVER_ERROR, "{path}");
    }
}

/// Ids of the instances that a query gives, in their order.
fn executed(api: &Api, path: &str) -> Vec<String> {
    let answer = api.get(path).json();
    let nodes = answer["Nodes"].as_array().expect("a list").clone();
    let id = |node: &Value| node["Service"]["ID"].as_str().map(str::to_owned);
    nodes.iter().filter_map(id).collect()
}

#[test]
fn a_query_gives_its_instances_in_any_order_and_any_of_them_within_a_limit() {
    let api = Api::new();
    for number in 0..4 {
        api.put(REGISTER, &json!({"Name": "web", "ID": format!("web-{number}")}));
    }
    let query = json!({"Name": "near", "Service": {"Service": "web"}}).to_string();
    assert_eq!(api.request("POST /v1/query", &query).status, StatusCode::OK);
    let (mut orders, mut firsts) = (BTreeSet::new(), BTreeSet::new());
    for _ in 0..50 {
        let mut all = executed(&api, "/v1/query/near/execute");
        orders.insert(all.clone());
        all.sort();
        assert_eq!(all, ["web-0", "web-1", "web-2", "web-3"]);
        let one = executed(&api, "/v1/query/near/execute?limit=1");
        assert_eq!(one.len(), 1);
        firsts.extend(one);
    }
    assert!(orders.len() > 4, "{orders:?}");
    assert_eq!(firsts.len(), 4, "{firsts:?}");
}

#[test]
fn a_name_that_means_something_to_the_reader_of_json_is_no_key() {
    let api = Api::new();
    let name = "$serde_json::private::RawValue";
    let node = json!({"Node": "n", "Address": "a", "TaggedAddresses": {"a": "1", name: "x"}});
    let query = json!({"Name": "q", "Service": {"Service": "web", "NodeMeta": {name: "x"}}});
    let steps = json!([{"Node": {"Verb": "set", "Node": node}}]);
    for (line, body) in [
        ("PUT /v1/catalog/register", &node),
        ("POST /v1/query", &query),
        ("PUT /v1/txn", &steps),
    ] {
        let answer = api.request(line, &body.to_string());
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{line}: {}", answer.body);
        assert!(answer.body.contains("can't be a key"), "{line}: {}", answer.body);
    }
}

#[test]
fn what_a_catalog_registration_lacks_is_a_servers_error_there_alone() {
    let api = Api::new();
    for (body, reason) in [
        (
            json!({"Node": "n"}),
            "Must provide address if SkipNodeUpdate is not set",
        ),
        (
            json!({"Node": "n", "Address": "a", "ID": "7"}),
            "Bad node ID: uuid string is wrong length",
        ),
        (
            json!({"Node": "n", "Address": "a", "Service": {"ID": "q"}}),
            "Must provide service name (Service.Service) when service ID is provided",
        ),
    ] {
        let line = "PUT /v1/catalog/register";
        refused(
            &api,
            line,
            &body.to_string(),
            StatusCode::INTERNAL_SERVER_ERROR,
            reason,
        );
        let answer = api.request("PUT /v1/batch/register", &json!([body]).to_string());
        assert_ne!(
            answer.status,
            StatusCode::INTERNAL_SERVER_ERROR,
            "{}",
            answer.body
        );
    }
}

#[test]
fn there_are_no_gateways_and_no_access_control() {
    let api = Api::new();
    for path in ["/v1/health/ingress/web", "/v1/catalog/gateway-services/gate"] {
        let answer = api.get(path);
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (StatusCode::OK, "[]"),
            "{path}"
        );
        assert!(!answer.header("x-consul-index").is_empty(), "{path}");
    }
    bad(&api, "GET /v1/health/ingress/", "", "Missing service name");
    bad(
        &api,
        "GET /v1/catalog/gateway-services/",
        "",
        "Missing gateway name",
    );
    let path = "GET /v1/acl/replication";
    refused(&api, path, "", StatusCode::UNAUTHORIZED, "ACL support disabled");
}

#[test]
fn a_query_gives_first_what_is_on_the_node_that_it_is_near_to() {
    let api = Api::new();
    for node in ["a", "b", "zz"] {
        let body = json!({"Node": node, "Address": "10.0.0.1", "Service": {"Service": "web", "ID": node}});
        api.put("/v1/catalog/register", &body);
    }
    api.put(REGISTER, &json!({"Name": "web", "ID": "own"}));
    let query = json!({"Name": "near", "Service": {"Service": "web", "Near": "_agent"}}).to_string();
    assert_eq!(api.request("POST /v1/query", &query).status, StatusCode::OK);
    for _ in 0..20 {
        assert_eq!(executed(&api, "/v1/query/near/execute?limit=1"), ["own"]);
        assert_eq!(executed(&api, "/v1/query/near/execute?near=b")[0], "b");
    }
}

#[test]
fn a_template_that_matches_nothing_gives_nothing() {
    let api = Api::new();
    let template = json!({
        "Name": "geo-",
        "Template": {"Type": "name_prefix_match", "Regexp": "^geo-([a-z]+)$"},
        "Service": {"Service": "${match(1)}"},
    });
    let created = api.request("POST /v1/query", &template.to_string());
    assert_eq!(created.status, StatusCode::OK, "{}", created.body);
    api.put(REGISTER, &json!({"Name": "web"}));
    assert_eq!(executed(&api, "/v1/query/geo-web/execute"), ["web"]);
    let nothing = api.get("/v1/query/geo-1/execute");
    assert_eq!(nothing.status, StatusCode::OK, "{}", nothing.body);
    assert_eq!(nothing.json()["Nodes"], json!([]));
    let bogus = json!({
        "Name": "bogus-",
        "Template": {"Type": "name_prefix_match"},
        "Service": {"Service": "${bogus}"},
    });
    let answer = api.request("POST /v1/query", &bogus.to_string());
    assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(answer.body.contains("unknown variable accessed: bogus"));
}

#[test]
fn checks_of_an_agent_show_their_times_and_keep_their_definition_to_themselves() {
    let api = Api::new();
    let check = |id: &str, definition: Value| json!({"CheckID": id, "Name": id, "ServiceID": "web", "Definition": definition});
    let body = json!({
        "Node": "host", "Address": "10.0.0.1", "Service": {"Service": "web"},
        "Checks": [
            check("a", json!({"HTTP": "http://h/", "Interval": "1s", "Timeout": "2s", "OfAgent": true})),
            check("b", json!({"TTL": "1m", "RegisteredAlone": true, "OfAgent": true})),
            check("c", json!({"TTL": "1m", "OfAgent": true})),
            check("d", json!({"HTTP": "http://h/", "Interval": "1s"})),
        ],
    });
    api.put("/v1/catalog/register", &body);
    let of = |path: &str| -> Vec<Value> {
        let checks = api.get(path).json();
        let checks = checks.as_array().expect("a list").iter();
        checks
            .map(|it| json!([it["Interval"], it["Timeout"], it["Definition"]]))
            .collect()
    };
    let expected = [
        json!(["1s", "2s", {}]),
        json!(["0s", "0s", {}]),
        json!(["", "", {}]),
        json!(["", "", {"HTTP": "http://h/", "Interval": "1s"}]),
    ];
    for path in ["/v1/health/checks/web", "/v1/health/node/host"] {
        assert_eq!(of(path), expected, "{path}");
    }
    let definitions = |path: &str| -> Vec<Value> {
        let shown = of(path).into_iter();
        shown.map(|it| it[2].clone()).collect()
    };
    let sent: Vec<Value> = body["Checks"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|it| it["Definition"].clone())
        .collect();
    let mut shown = definitions("/v1/health/node/host?as-registered");
    for (shown, sent) in shown.iter_mut().zip(&sent) {
        if sent.get("TTL").is_some() {
            assert_eq!(shown["TTL"], "1m0s");
            shown["TTL"] = json!("1m");
        }
    }
    assert_eq!(shown, sent);
    // Whoever asks after an agent sees no more than before.
    assert_eq!(of("/v1/health/node/host"), expected);
}
