//! What bodies mean, and what is said about those that mean nothing.

use expect_test::{Expect, expect};
use http::StatusCode;
use serde_json::{Value, json};

use super::*;
use crate::{
    limits::{CHECK_OUTPUT_BYTES_MAX, TAG_BYTES_MAX},
    registry::{CheckStatus, CheckTarget, Keeps, Registration},
};

fn name(name: &str) -> NodeName {
    NodeName::parse(name).expect("a valid name")
}

fn place() -> Place {
    Place {
        node: plain_node(name("host"), "10.0.0.9"),
        namespace: None,
        scripts: false,
    }
}

/// One line for the instance and one for each check.
fn show(registration: &Registration) -> String {
    let mut lines = Vec::new();
    if let Some(instance) = &registration.instance {
        lines.push(format!(
            "{}/{}/{} of {} at {}:{} tags {:?} meta {:?} weights {}/{} tagged {:?}{}",
            instance.namespace,
            instance.node,
            instance.id,
            instance.service,
            instance.address,
            instance.port,
            instance.tags,
            instance.meta,
            instance.weights.passing,
            instance.weights.warning,
            instance
                .tagged_addresses
                .iter()
                .map(|(tag, tagged)| format!("{tag}={}:{}", tagged.address, tagged.port))
                .collect::<Vec<_>>(),
            if instance.enable_tag_override {
                " override"
            } else {
                ""
            },
        ));
    }
    for check in &registration.checks {
        let definition = &check.definition;
        lines.push(format!(
            "check {}/{} {:?} of {} {:?} every {:?} timeout {:?} after {}/{}/{} deregister {:?} status {} notes {:?}",
            check.namespace,
            check.id,
            check.name,
            check.instance.as_ref().map_or("its node", |id| id.as_str()),
            definition.probe,
            definition.said_interval(),
            definition.timeout,
            definition.success_before_passing,
            definition.failures_before_warning,
            definition.failures_before_critical,
            definition.deregister_critical_service_after,
            check.status.map_or("-", CheckStatus::as_str),
            check.notes,
        ));
    }
    lines.join("\n")
}

fn check_service(body: Value, expected: Expect) {
    let registration = parse_service(&body, &place()).unwrap_or_else(|error| panic!("{body}: {error:?}"));
    expected.assert_eq(&show(&registration));
}

fn check_refused<T: std::fmt::Debug>(result: Result<T, ApiError>, expected: Expect) {
    let error = result.expect_err("it must be refused");
    let status = match error.status {
        StatusCode::BAD_REQUEST => String::new(),
        status => format!("{} ", status.as_u16()),
    };
    expected.assert_eq(&format!("{status}{}", error.message));
}

#[test]
fn the_short_form() {
    check_service(
        json!({"Name": "api", "ID": "api-1", "Address": "127.0.0.1", "Port": 8080, "Tags": ["a"], "Meta": {"Ver_sion": "1"},
        "Weights": {"passing": 3, "warning": 2},
        "Checks": [
            {"type": "ttl", "ttl": "15s"},
            {"type": "http", "url": "http://127.0.0.1:8080/health", "interval": "5s", "timeout": "1s"},
            {"type": "tcp", "address": "127.0.0.1:8080", "id": "port"},
        ]}),
        expect![[r#"
            default/host/api-1 of api at 127.0.0.1:8080 tags ["a"] meta {"Ver_sion": "1"} weights 3/2 tagged []
            check default/chk:api-1:0 "Service 'api' check" of api-1 Ttl(15s) every 0ns timeout 0ns after 0/0/0 deregister 0ns status - notes ""
            check default/chk:api-1:1 "Service 'api' check" of api-1 Http { url: "http://127.0.0.1:8080/health", method: "", headers: [], body: "" } every 5s timeout 1s after 0/0/0 deregister 0ns status - notes ""
            check default/port "Service 'api' check" of api-1 Tcp("127.0.0.1:8080") every 10s timeout 0ns after 0/0/0 deregister 0ns status - notes """#]],
    );
}

#[test]
fn consuls_form() {
    check_service(
        json!({"ID": "web1", "Name": "web", "Kind": "", "Proxy": null, "Connect": {"Native": true},
        "TaggedAddresses": {"lan_x": {"Address": "10.0.0.1", "Port": 8000}}, "EnableTagOverride": true,
        "Checks": [
            {"CheckID": "web1-ttl", "Name": "web1 ttl", "Notes": "a note", "TTL": "30s", "Status": "passing",
                "DeregisterCriticalServiceAfter": "90m"},
            {"TTL": 1_500_000_000},
            {"HTTP": "https://h:1/x", "Method": "POST", "Header": {"X-A": ["b", "c"]}, "Body": "{}",
                "Interval": "10s", "Timeout": "1s", "TLSSkipVerify": true, "SuccessBeforePassing": 2,
                "FailuresBeforeWarning": 3, "FailuresBeforeCritical": 4},
        ]}),
        expect![[r#"
            default/host/web1 of web at :0 tags [] meta {} weights 1/1 tagged ["lan_x=10.0.0.1:8000"] override
            check default/web1-ttl "web1 ttl" of web1 Ttl(30s) every 0ns timeout 0ns after 0/0/0 deregister 5400s status passing notes "a note"
            check default/service:web1:2 "Service 'web' check" of web1 Ttl(1.5s) every 0ns timeout 0ns after 0/0/0 deregister 0ns status - notes ""
            check default/service:web1:3 "Service 'web' check" of web1 Http { url: "https://h:1/x", method: "POST", headers: [("X-A", "b"), ("X-A", "c")], body: "{}" } every 10s timeout 1s after 2/3/4 deregister 0ns status - notes """#]],
    );
    check_service(
        json!({"name": "low", "tagged_addresses": {"lan": {"address": "1.2.3.4", "port": 5}}, "enable_tag_override": true,
            "check": {"ttl": "10s", "deregister_critical_service_after": "2m"}, "checks": null}),
        expect![[r#"
            default/host/low of low at :0 tags [] meta {} weights 1/1 tagged ["lan=1.2.3.4:5"] override
            check default/service:low "Service 'low' check" of low Ttl(10s) every 0ns timeout 0ns after 0/0/0 deregister 120s status - notes """#]],
    );
    check_service(
        json!({"Name": "w", "Weights": {"Passing": 5}, "Check": {}}),
        expect![[r#"default/host/w of w at :0 tags [] meta {} weights 5/0 tagged []"#]],
    );
}

#[test]
fn namespaces_of_query_and_body_must_agree() {
    let mut place = place();
    place.namespace = Some(Namespace::parse("blue").expect("valid"));
    for body in [
        json!({"Name": "a"}),
        json!({"Name": "a", "ns": "blue"}),
        json!({"Name": "a", "Namespace": "blue"}),
    ] {
        let registration = parse_service(&body, &place).expect("valid");
        assert_eq!(registration.instance.map(|it| it.namespace), place.namespace);
    }
    check_refused(
        parse_service(&json!({"Name": "a", "Namespace": "red"}), &place),
        expect![[r#"the request names the namespace "blue", its body "red": expected one"#]],
    );
}

#[test]
fn bad_services_are_refused_with_a_reason() {
    let check = |body: Value, expected: Expect| check_refused(parse_service(&body, &place()), expected);
    check(
        json!([]),
        expect!["Request decode failed: the body: expected an object, got a list"],
    );
    check(json!(null), expect!["Missing service name"]);
    check(json!({"ID": "x"}), expect!["Missing service name"]);
    check(json!({"Name": ""}), expect!["Missing service name"]);
    check(
        json!({"Name": ["x"]}),
        expect!["Request decode failed: Name: expected a string, got a list"],
    );
    check(
        json!({"Name": "x".repeat(513)}),
        expect![[
            r#"invalid service name "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx": it is longer than 512 bytes"#
        ]],
    );
    check(
        json!({"Name": "x", "ID": "a\nb"}),
        expect![[r#"invalid instance id "a\nb": it has a control character"#]],
    );
    check(
        json!({"Name": "x", "Port": 70000}),
        expect!["Request decode failed: Port: expected a whole number from 0 to 65535, got 70000"],
    );
    check(
        json!({"Name": "x", "Port": -1}),
        expect!["Request decode failed: Port: expected a whole number from 0 to 65535, got -1"],
    );
    check(
        json!({"Name": "x", "Port": "8080"}),
        expect![
            "Request decode failed: json: cannot unmarshal string into Go struct field .Alias.Port of type int"
        ],
    );
    check(
        json!({"Name": "x", "Address": "0.0.0.0"}),
        expect!["Invalid service address"],
    );
    check(
        json!({"Name": "x", "Address": "a b"}),
        expect![[r#"Request decode failed: Address: expected a host name or an IP address, got "a b""#]],
    );
    check(
        json!({"Name": "x", "Tags": vec!["t"; 1_025]}),
        expect!["Request decode failed: Tags: expected at most 1024, got 1025"],
    );
    check(
        json!({"Name": "x", "Tags": ["t".repeat(TAG_BYTES_MAX + 1)]}),
        expect!["Request decode failed: Tags[0]: expected at most 8192 bytes, got 8193"],
    );
    check(
        json!({"Name": "x", "Meta": {"a b": "v"}}),
        expect![
            "Invalid Service Meta: Couldn't load metadata pair ('a b', 'v'): Key contains invalid characters: expected A-Z, a-z, 0-9, - and _"
        ],
    );
    check(
        json!({"Name": "x", "Meta": {"k".repeat(129): "v"}}),
        expect![
            "Invalid Service Meta: Couldn't load metadata pair ('kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk', 'v'): Key is too long (limit: 128 characters)"
        ],
    );
    check(
        json!({"Name": "x", "Meta": {"": "v"}}),
        expect!["Invalid Service Meta: Couldn't load metadata pair ('', 'v'): Key cannot be blank"],
    );
    check(
        json!({"Name": "x", "Meta": (0..65).map(|n| (n.to_string(), json!(""))).collect::<serde_json::Map<_, _>>()}),
        expect!["Invalid Service Meta: Service metadata cannot contain more than 64 key/value pairs"],
    );
    check(
        json!({"Name": "x", "Weights": {"Passing": -1, "Warning": 1}}),
        expect!["Invalid Weights: Passing must be greater than 0"],
    );
    check(
        json!({"Name": "x", "Weights": {"Passing": 70000}}),
        expect!["Request decode failed: Weights.Passing: expected a whole number from 0 to 65535, got 70000"],
    );
    check(
        json!({"Name": "x", "TaggedAddresses": {"lan": 5}}),
        expect!["Request decode failed: TaggedAddresses.lan: expected an object, got 5"],
    );
    check(
        json!({"Name": "x", "Proxy": 5}),
        expect!["Request decode failed: Proxy: expected an object, got 5"],
    );
    check(
        json!({"Name": "x", "SocketPath": 5}),
        expect!["Request decode failed: SocketPath: expected a string, got 5"],
    );
    check(
        json!({"Name": "x", "Checks": vec![json!({"TTL": "1s"}); 65]}),
        expect!["Request decode failed: Checks: expected at most 64, got 65"],
    );
    check(
        json!({"Name": "x", "Checks": [{"TTL": "1s", "CheckID": "a"}, {"TTL": "1s", "CheckID": "a"}]}),
        expect![[r#"Invalid check: two checks have the id "a": expected different ones"#]],
    );
}

#[test]
fn bad_checks_are_refused_with_a_reason() {
    let check = |body: Value, expected: Expect| {
        check_refused(
            parse_service(&json!({"Name": "x", "Check": body}), &place()),
            expected,
        );
    };
    check(
        json!(5),
        expect!["Request decode failed: Check: expected an object, got 5"],
    );
    check(
        json!({"Name": "empty"}),
        expect!["Invalid check: TTL must be > 0 for TTL checks"],
    );
    check(
        json!({"TTL": "0"}),
        expect!["Invalid check: TTL must be > 0 for TTL checks"],
    );
    check(
        json!({"TTL": "-5s"}),
        expect!["Invalid check: TTL must be > 0 for TTL checks"],
    );
    check(
        json!({"type": "ttl", "ttl": "0s"}),
        expect!["Invalid check: TTL must be > 0 for TTL checks"],
    );
    check(
        json!({"type": "ttl", "ttl": "abc"}),
        expect![[r#"Request decode failed: time: invalid duration "abc""#]],
    );
    check(
        json!({"TTL": "1ms"}),
        expect!["Request decode failed: Check.TTL: expected a duration from 100ms to 87600h0m0s"],
    );
    check(
        json!({"TTL": "87601h"}),
        expect!["Request decode failed: Check.TTL: expected a duration from 100ms to 87600h0m0s"],
    );
    check(
        json!({"TTL": "10s", "HTTP": "http://h:1/", "Interval": "10s"}),
        expect!["Invalid check: Interval and TTL cannot both be specified"],
    );
    check(
        json!({"TTL": "10s", "Interval": "10s"}),
        expect!["Invalid check: Interval and TTL cannot both be specified"],
    );
    check(
        json!({"HTTP": "http://h:1/"}),
        expect!["Invalid check: Interval must be > 0 for Script, HTTP, H2PING, TCP, UDP or OSService checks"],
    );
    check(
        json!({"HTTP": "http://h:1/", "TCP": "h:1", "Interval": "1s"}),
        expect![
            "Invalid check: expected one of TTL, HTTP, TCP, UDP, GRPC, H2PING, AliasService, OSService and Args, got HTTP and TCP"
        ],
    );
    check(
        json!({"HTTP": "ftp://h/", "Interval": "1s"}),
        expect![[
            r#"Request decode failed: Check.HTTP: expected a URL like "http://host:port/path", got "ftp://h/""#
        ]],
    );
    check(
        json!({"HTTP": "http://h/", "Header": {"X A": ["b"]}, "Interval": "1s"}),
        expect![[
            r#"Request decode failed: Check.Header: expected names of headers with lists of strings, not so "X A""#
        ]],
    );
    check(
        json!({"HTTP": "http://h/", "Body": "b".repeat(20_000), "Interval": "1s"}),
        expect!["Request decode failed: Check.HTTP: expected at most 16384 bytes in all, got 20009"],
    );
    check(
        json!({"TCP": "h", "Interval": "1s"}),
        expect![[r#"Request decode failed: Check.TCP: expected host:port, got "h""#]],
    );
    check(
        json!({"Args": ["/bin/true"], "Interval": "10s"}),
        expect![
            "500 Scripts are disabled on this agent from remote calls; to enable, configure 'enable_script_checks' to true"
        ],
    );
    check(
        json!({"GRPC": "h:1/x", "UDP": "h:2", "Interval": "10s"}),
        expect![
            "Invalid check: expected one of TTL, HTTP, TCP, UDP, GRPC, H2PING, AliasService, OSService and Args, got UDP and GRPC"
        ],
    );
    check(
        json!({"H2PING": "h:1"}),
        expect!["Invalid check: Interval must be > 0 for Script, HTTP, H2PING, TCP, UDP or OSService checks"],
    );
    check(
        json!({"AliasService": "web", "Interval": "10s"}),
        expect!["Invalid check: Interval cannot be set for Alias checks"],
    );
    check(
        json!({"AliasNode": "web", "TTL": "10s"}),
        expect!["Invalid check: TTL must be not be set for Alias checks"],
    );
    check(
        json!({"DockerContainerID": "f9", "Args": ["/bin/true"], "Interval": "10s"}),
        expect![
            "500 Scripts are disabled on this agent from remote calls; to enable, configure 'enable_script_checks' to true"
        ],
    );
    check(
        json!({"DockerContainerID": "f9", "Interval": "10s"}),
        expect!["Request decode failed: Check.Args: missing: expected what to run in the container"],
    );
    check(
        json!({"type": "grpc"}),
        expect!["Request decode failed: Check.grpc: missing: expected what to ask, by Consul's name of it"],
    );
    check(
        json!({"TTL": "10s", "Status": "fine"}),
        expect!["Status for checks must 'passing', 'warning', 'critical'"],
    );
    check(
        json!({"type": "ping"}),
        expect![[
            r#"Request decode failed: Check.type: unknown check type "ping": expected "ttl", "http", "tcp", "cmd", "udp", "grpc", "h2ping" or "alias""#
        ]],
    );
    check(
        json!({"TTL": "10s", "SuccessBeforePassing": -1}),
        expect![
            "Request decode failed: Check.SuccessBeforePassing: expected a whole number from 0 to 4294967295, got -1"
        ],
    );
    check(
        json!({"TTL": "10s", "TLSSkipVerify": "no"}),
        expect![[
            r#"Request decode failed: Check.TLSSkipVerify: expected true or false, got the string "no""#
        ]],
    );
    check(
        json!({"TTL": "10s", "TLSServerName": "no name"}),
        expect![[r#"Request decode failed: Check.TLSServerName: expected a host name, got "no name""#]],
    );
    check(
        json!({"TTL": "10s", "OutputMaxSize": -1}),
        expect![
            "Request decode failed: Check.OutputMaxSize: expected a whole number from 0 to 4294967295, got -1"
        ],
    );
}

#[test]
fn scripts_where_they_are_allowed() {
    let mut place = place();
    place.scripts = true;
    for (body, args) in [
        (
            json!({"type": "cmd", "args": ["/bin/true", "-x"]}),
            vec!["/bin/true", "-x"],
        ),
        (
            json!({"type": "cmd", "command": "true; true"}),
            vec!["/bin/sh", "-c", "true; true"],
        ),
        (json!({"Args": ["true"], "Interval": "5s"}), vec!["true"]),
    ] {
        let registration = parse_service(&json!({"Name": "x", "Checks": [body]}), &place).expect("valid");
        let args = args.into_iter().map(str::to_owned).collect();
        assert_eq!(
            registration.checks[0].definition.probe,
            crate::registry::Probe::Cmd(args)
        );
    }
}

#[test]
fn checks_by_themselves() {
    let parse = |body: Value| parse_check(&body, &place());
    let of_node = parse(json!({"ID": "mem", "Name": "Memory", "Notes": "n", "TTL": "25s"})).expect("valid");
    expect![[r#"check default/mem "Memory" of its node Ttl(25s) every 1ns timeout 0ns after 0/0/0 deregister 0ns status - notes "n""#]]
        .assert_eq(&show(&of_node));
    let of_instance =
        json!({"Name": "c", "ServiceID": "redis", "TTL": "25s", "Status": "critical", "ns": "blue"});
    expect![[r#"check blue/c "c" of redis Ttl(25s) every 1ns timeout 0ns after 0/0/0 deregister 0ns status critical notes """#]]
        .assert_eq(&show(&parse(of_instance).expect("valid")));
    check_refused(
        parse(json!({"ID": "x", "TTL": "25s"})),
        expect!["Missing check name"],
    );
    check_refused(
        parse(json!({"Name": "x"})),
        expect!["Invalid check: TTL must be > 0 for TTL checks"],
    );
    check_refused(
        parse(json!({"Name": "x", "TTL": "1 fortnight"})),
        expect![[r#"Request decode failed: time: unknown unit " fortnight" in duration "1 fortnight""#]],
    );
    check_refused(
        parse(json!({"Name": "x", "TTL": "5s", "ns": "blue"})),
        expect![[
            r#"Invalid check: a check without ServiceID is its node's own, and in the namespace "default""#
        ]],
    );
}

#[test]
fn catalog_registrations() {
    let parse = |body: Value| parse_catalog_registration(&body, None, "dc1");
    let body = json!({"Datacenter": "dc1", "ID": "40E4A748-2192-161a-0510-9bf59fe950b5", "Node": "ext1",
        "Address": "192.168.10.10", "TaggedAddresses": {"lan": "192.168.10.10"}, "NodeMeta": {"k": "v"},
        "Service": {"ID": "redis1", "Service": "redis", "Tags": ["primary"], "Address": "127.0.0.1", "Port": 8000,
            "Weights": {"Passing": 0, "Warning": 0}},
        "Check": {"Node": "ext1", "CheckID": "service:redis1", "Name": "Redis", "Notes": "n", "Status": "passing",
            "ServiceID": "redis1", "Definition": {"TCP": "localhost:8888", "Interval": "5s", "Timeout": "1s",
                "DeregisterCriticalServiceAfter": "30s"}},
        "Checks": [{"Name": "own", "Definition": {"Interval": "0s", "HTTP": "", "Header": null}}]});
    let registration = parse(body).expect("valid");
    assert_eq!(registration.node.id, "40e4a748-2192-161a-0510-9bf59fe950b5");
    assert_eq!(registration.node.meta["k"], "v");
    assert_eq!(registration.keeps, Keeps::Nothing);
    expect![[r#"
        default/ext1/redis1 of redis at 127.0.0.1:8000 tags ["primary"] meta {} weights 1/1 tagged []
        check default/service:redis1 "Redis" of redis1 Tcp("localhost:8888") every 5s timeout 1s after 0/0/0 deregister 30s status passing notes "n"
        check default/own "own" of its node External every 0ns timeout 0ns after 0/0/0 deregister 0ns status - notes """#]]
    .assert_eq(&show(&registration));

    check_refused(
        parse(json!({"Address": "1.1.1.1"})),
        expect!["500 Must provide node"],
    );
    check_refused(
        parse(json!({"Node": "n"})),
        expect!["Must provide address if SkipNodeUpdate is not set"],
    );
    check_refused(
        parse(json!({"Node": "n", "Address": "a", "ID": "not-a-uuid"})),
        expect!["Bad node ID: uuid string is wrong length"],
    );
    check_refused(
        parse(json!({"Node": "n", "Address": "a", "Datacenter": "nope"})),
        expect!["500 No path to datacenter"],
    );
    check_refused(
        parse(json!({"Node": "n", "Address": "a", "Service": {"ID": "q"}})),
        expect!["Must provide service name (Service.Service) when service ID is provided"],
    );
    check_refused(
        parse(json!({"Node": "n", "Address": "a", "Check": {"Status": "passing"}})),
        expect!["Request decode failed: Check.CheckID: missing: expected CheckID or Name"],
    );
    check_refused(
        parse(json!({"Node": "n", "Address": "a", "Check": {"Name": "c", "Node": "other"}})),
        expect![[r#"Request decode failed: Check.Node: expected the registration's node "n""#]],
    );
}

#[test]
fn what_an_agent_sends_is_what_a_server_reads() {
    let mut place = place();
    place.scripts = true;
    place.namespace = Some(Namespace::parse("blue").expect("valid"));
    let body = json!({"Name": "web", "ID": "web1", "Address": "10.0.0.1", "Port": 80, "Tags": ["b", "a"],
    "Meta": {"Ver_sion": "1"}, "Weights": {"Passing": 7, "Warning": 2}, "EnableTagOverride": true,
    "TaggedAddresses": {"lan": {"Address": "10.0.0.1", "Port": 81}},
    "Checks": [
        {"TTL": "1500ms", "Status": "passing", "Notes": "n"},
        {"HTTP": "http://h:1/x", "Method": "POST", "Header": {"b": ["2", "1"], "A": ["x"]}, "Body": "{}",
            "Interval": "10s", "Timeout": "1s", "SuccessBeforePassing": 2, "FailuresBeforeWarning": 3,
            "FailuresBeforeCritical": 4, "DeregisterCriticalServiceAfter": "1h"},
        {"TCP": "h:1", "Interval": "10s"},
        {"Args": ["/bin/true", "x"], "Interval": "10s"},
    ]});
    let mut registration = parse_service(&body, &place).expect("valid");
    registration.replace_checks = true;
    registration.keeps = Keeps::Node;
    registration.checks[0].output = "fine".into();
    let own = json!({"ID": "mem", "Name": "Memory", "TTL": "25s"});
    place.namespace = None;
    registration
        .checks
        .extend(parse_check(&own, &place).expect("valid").checks);
    let sent = encode_registration(&registration);
    let read = parse_catalog_registration(&sent, None, "dc1").expect("valid");
    assert_eq!(read, registration);

    let mut node_only = parse_check(&own, &place).expect("valid");
    node_only.keeps = Keeps::Node;
    let read = parse_catalog_registration(&encode_registration(&node_only), None, "dc1").expect("valid");
    assert_eq!(read, node_only);
}

#[test]
fn deregistrations_and_heartbeats() {
    let place = place();
    let deregister = parse_deregistration(&json!({"ns": "blue", "service": "web", "id": "web1"}), &place);
    expect![[r#"Ok(Instance { key: InstanceKey { namespace: Namespace("blue"), node: NodeName("host"), id: InstanceId("web1") }, service: Some(ServiceName("web")) })"#]]
        .assert_eq(&format!("{deregister:?}"));
    let by_service = parse_deregistration(&json!({"service": "web"}), &place);
    assert!(
        format!("{by_service:?}").contains(r#"InstanceId("web")"#),
        "{by_service:?}"
    );
    check_refused(
        parse_deregistration(&json!({"ns": "blue"}), &place),
        expect![[r#"Missing service ID: expected "id" or "service""#]],
    );
    let heartbeat = parse_heartbeat(
        &json!({"ns": "blue", "service": "web", "address": "::1", "port": 80}),
        &place,
    );
    expect![[
        r#"Ok(At { namespace: Namespace("blue"), service: ServiceName("web"), address: "::1", port: 80 })"#
    ]]
    .assert_eq(&format!("{heartbeat:?}"));
    check_refused(
        parse_heartbeat(&json!({"address": "a", "port": 1}), &place),
        expect![[r#"Missing service name: expected "service" with "address" and "port", or "id""#]],
    );
    check_refused(
        parse_heartbeat(&json!({"service": "web", "address": "a", "port": 70000}), &place),
        expect!["Request decode failed: Port: expected a whole number from 0 to 65535, got 70000"],
    );
    check_refused(
        parse_catalog_deregistration(&json!({}), None, "dc1"),
        expect!["500 Must provide node"],
    );
}

#[test]
fn reports() {
    let update = |body: Value| parse_check_update(&body);
    let long = json!({"Status": "warning", "Output": "ä".repeat(CHECK_OUTPUT_BYTES_MAX)});
    let (status, output) = update(long).expect("valid");
    assert_eq!(
        (status, output.len()),
        (CheckStatus::Warning, CHECK_OUTPUT_BYTES_MAX)
    );
    check_refused(
        update(json!({"Status": "odd"})),
        expect!["Invalid check status: 'odd'"],
    );
    check_refused(
        update(json!({"Output": "x"})),
        expect!["Invalid check status: ''"],
    );

    let renewal = |item: Value| parse_renewal(&item, 3, &place());
    let by_id = renewal(json!("chk:a:0")).expect("valid");
    assert_eq!(
        (by_id.status, by_id.output.as_deref()),
        (CheckStatus::Passing, Some(""))
    );
    let full = json!({"Node": "n", "Namespace": "blue", "CheckID": "c", "Status": "critical", "Output": "o"});
    expect![[r#"Ok(Renewal { target: Check(CheckKey { namespace: Namespace("blue"), node: NodeName("n"), id: CheckId("c") }), status: Critical, output: Some("o") })"#]]
        .assert_eq(&format!("{:?}", renewal(full)));
    let of_instance = renewal(json!({"service_id": "web1"})).expect("valid");
    assert!(matches!(of_instance.target, CheckTarget::TtlChecksOf(_)));
    check_refused(
        renewal(json!(5)),
        expect!["Request decode failed: [3]: expected an object, got 5"],
    );
    check_refused(
        renewal(json!({})),
        expect!["Request decode failed: [3].CheckID: missing: expected CheckID or ServiceID"],
    );
    check_refused(
        renewal(json!({"ID": "c", "Status": "odd"})),
        expect![[
            r#"Request decode failed: [3].Status: expected passing, warning, critical or unknown, got "odd""#
        ]],
    );
    check_refused(
        items(&json!({"x": 1}), "Renewals"),
        expect!["Request decode failed: Renewals: missing: expected a list"],
    );
    check_refused(
        items(&json!(5), "Renewals"),
        expect!["Request decode failed: expected a list, or an object with a list named Renewals"],
    );
}
