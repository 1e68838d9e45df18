//! What becomes of Consul's keys.

use serde_json::json;

use super::*;

fn translated(file: Value) -> Result<(Translated, Map<String, Value>), String> {
    let Value::Object(mut keys) = file else {
        panic!("the file of a test is an object")
    };
    Ok((translate(&mut keys, Program::Server)?, keys))
}

#[test]
fn consuls_keys_become_flags_and_the_rest_is_left_or_named() {
    let (translated, rest) = translated(json!({
        "node_name": "n1", "node_id": "40e4a748-2192-161a-0510-9bf59fe950b5", "data_dir": "/d",
        "bind_addr": "10.0.0.1", "ports": {"http": 1, "server": 2, "dns": 3}, "bootstrap": true, "server": true,
        "retry_join": ["a"], "log_level": "ERR", "connect": {"enabled": true}, "datacenter": "dc2",
    }))
    .unwrap();
    let flags: Vec<_> = translated
        .flags
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    assert_eq!(
        flags,
        [
            "http=127.0.0.1:1",
            "join=a:8301",
            "join_bind=10.0.0.1:8301",
            "log_level=error",
            "node=n1",
            "node_id=40e4a748-2192-161a-0510-9bf59fe950b5",
            "raft_bind=10.0.0.1:2",
            "raft_bootstrap=true",
            "raft_dir=/d",
            "raft_id=40e4a748-2192-161a-0510-9bf59fe950b5",
            "tls_verify=false",
        ]
    );
    assert_eq!(translated.ignored, ["ports.dns", "connect"]);
    assert_eq!(rest.keys().collect::<Vec<_>>(), ["datacenter"]);
}

#[test]
fn what_siders_servers_have_under_another_name_is_set_and_the_rest_is_named() {
    let (translated, rest) = translated(json!({
        "advertise_addr": "10.0.0.9", "ports": {"server": 2, "grpc": 8502}, "log_json": true,
        "raft_snapshot_threshold": 100, "raft_trailing_logs": 0, "raft_snapshot_interval": "30s",
        "limits": {"rpc_rate": 5, "foo": 1, "kv_max_value_size": 9}, "pid_file": "/p", "session_ttl_min": "5s",
        "performance": {"raft_multiplier": 2, "leave_drain_time": "5s"},
        "tls": {"internal_rpc": {}, "defaults": {"tls_min_version": "TLSv1_2", "bar": 1}},
    }))
    .unwrap();
    assert_eq!(translated.flags["raft_advertise"], "10.0.0.9:2");
    for (flag, value) in [
        ("log_format", "json"),
        ("kv_max_value_size", "9"),
        ("txn_max_req_len", "9"),
        ("session_ttl_min", "5s"),
        ("raft_multiplier", "2"),
    ] {
        assert_eq!(translated.flags[flag], value);
    }
    assert_eq!(
        Value::Object(rest),
        json!({"snapshot_interval": "30s", "snapshot_threshold": 100})
    );
    let mut ignored = translated.ignored;
    ignored.sort();
    assert_eq!(
        ignored,
        [
            "limits.rpc_rate",
            "performance.leave_drain_time",
            "pid_file",
            "ports.grpc",
            "tls.defaults.tls_min_version",
            "tls.internal_rpc"
        ]
    );
    assert_eq!(translated.unknown, ["tls.defaults.bar", "limits.foo"]);
}

#[test]
fn a_cluster_begins_alone_or_with_a_number_of_others() {
    let flags = |file: Value| translated(file).map(|(translated, _)| translated.flags);
    let join = json!(["a", "b", "c"]);
    let expecting = flags(json!({"bootstrap_expect": 3, "retry_join": join, "bootstrap": false})).unwrap();
    assert_eq!(expecting["bootstrap_expect"], "3");
    assert!(!expecting.contains_key("raft_bootstrap"));
    let alone = flags(json!({"bootstrap_expect": 1})).unwrap();
    assert_eq!(alone["raft_bootstrap"], "true");
    for (file, said) in [
        (
            json!({"bootstrap_expect": 3, "retry_join": ["a"]}),
            "retry_join must name all",
        ),
        (
            json!({"bootstrap_expect": 3, "retry_join": join, "bootstrap": true}),
            "leave out either",
        ),
        (json!({"bootstrap_expect": "3"}), "bootstrap_expect: expected"),
        (json!({"bind_addr": "{{ GetPrivateIP }}"}), "write an address"),
        (
            json!({"data_dir": "/d", "retry_join": ["provider=aws"]}),
            "write their addresses",
        ),
    ] {
        let error = flags(file).unwrap_err();
        assert!(error.contains(said), "{error}");
    }
}

#[test]
fn certificates_are_found_in_the_old_form_and_in_the_new() {
    let old = json!({
        "ports": {"http": -1, "https": 8501, "serf_lan": 8301}, "cert_file": "c", "key_file": "k", "ca_file": "a",
        "verify_incoming": true,
    });
    let new = json!({
        "ports": {"https": 8501, "serf_lan": 8301},
        "tls": {"defaults": {"cert_file": "c", "key_file": "k", "ca_file": "a", "verify_incoming": true}},
    });
    for mut file in [old, new] {
        file["ports"]["http"] = 8500.into();
        let (translated, rest) = translated(file).unwrap();
        for (flag, value) in [
            ("https", "127.0.0.1:8501"),
            ("join_bind", "0.0.0.0:8301"),
            ("tls_cert", "c"),
            ("tls_key", "k"),
            ("tls_ca", "a"),
            ("tls_verify", "true"),
        ] {
            assert_eq!(translated.flags[flag], value, "{flag}");
        }
        assert!(rest.is_empty() && translated.ignored.is_empty());
    }
    let without = json!({"ports": {"https": 8501, "serf_lan": -1}, "addresses": {"http": "unix:///x"}});
    let (translated, _) = translated(without).unwrap();
    assert!(!translated.flags.contains_key("https") && !translated.flags.contains_key("join_bind"));
    assert_eq!(translated.flags["http"], "unix:///x");
    assert_eq!(translated.ignored, ["ports.https without cert_file"]);
}

#[test]
fn a_server_is_found_as_one_of_consuls_is() {
    let (plain, _) = translated(json!({"node_name": "n"})).unwrap();
    for (flag, value) in [
        ("http", "127.0.0.1:8500"),
        ("raft_bind", "0.0.0.0:8300"),
        ("join_bind", "0.0.0.0:8301"),
    ] {
        assert_eq!(plain.flags[flag], value);
    }
    let (several, _) = translated(json!({
        "client_addr": "127.0.0.1 ::1", "addresses": {"https": "10.0.0.1 10.0.0.2"},
        "ports": {"https": 8501, "http": 1}, "cert_file": "c", "key_file": "k",
    }))
    .unwrap();
    for (flag, value) in [
        ("http", "127.0.0.1:1"),
        ("http_more", "[::1]:1"),
        ("https", "10.0.0.1:8501"),
        ("https_more", "10.0.0.2:8501"),
    ] {
        assert_eq!(several.flags[flag], value);
    }
    let blank = translated(json!({"client_addr": " ", "node_name": "n"})).unwrap_err();
    assert!(blank.starts_with("client_addr: "), "{blank}");
    let Value::Object(mut keys) = json!({"node_name": "n", "client_addr": "127.0.0.1 ::1"}) else {
        unreachable!("it is written above")
    };
    let of_agent = translate(&mut keys, Program::Agent).unwrap();
    assert_eq!(of_agent.flags["http"], "127.0.0.1:8500");
    assert_eq!(of_agent.ignored, ["client_addr beyond its first address"]);
    let secured = json!({"ports": {"http": -1, "https": 8501}, "cert_file": "c", "key_file": "k"});
    assert_eq!(translated(secured).unwrap().0.flags["http"], "off");
    let nowhere = translated(json!({"ports": {"http": -1}})).unwrap_err();
    assert!(nowhere.contains("ports.http"), "{nowhere}");
}

#[test]
fn each_program_takes_its_own_files() {
    let file = |server: bool| match json!({"node_name": "n", "server": server}) {
        Value::Object(keys) => keys,
        _ => unreachable!("it is written above"),
    };
    translate(&mut file(true), Program::Server).unwrap();
    translate(&mut file(false), Program::Agent).unwrap();
    assert!(
        translate(&mut file(false), Program::Server)
            .unwrap_err()
            .contains("sds-agent")
    );
    assert!(
        translate(&mut file(true), Program::Agent)
            .unwrap_err()
            .contains("sds-server")
    );
}

#[test]
fn a_file_of_siders_own_is_left_alone() {
    let (translated, rest) = translated(json!({"http": ":1", "timing": 5})).unwrap();
    assert_eq!(translated, Translated::default());
    assert_eq!(rest.len(), 2);
}

#[test]
fn what_can_not_be_is_an_error_that_names_its_key() {
    for (file, key) in [
        (json!({"server": false}), "server: false"),
        (json!({"node_name": 5}), "node_name: expected text"),
        (json!({"ports": {"http": 70000}}), "ports.http: expected a port"),
        (json!({"bootstrap": "yes"}), "bootstrap: expected true or false"),
        (json!({"ports": {"https": "x"}}), "ports.https: expected a port"),
        (
            json!({"data_dir": "/d", "retry_join": [1]}),
            "retry_join: expected a list",
        ),
    ] {
        let error = translated(file).unwrap_err();
        assert!(error.starts_with(key), "{error}");
    }
}

#[test]
fn servers_among_others_share_a_node_and_keep_their_names_for_themselves() {
    let one = json!({
        "node_name": "n1", "node_id": "40e4a748-2192-161a-0510-9bf59fe950b5", "node_meta": {"a": "b"}, "data_dir": "/d",
    });
    let with = |more: Value| {
        let (mut file, Value::Object(more)) = (one.clone(), more) else {
            panic!("what a test adds is an object")
        };
        file.as_object_mut().unwrap().extend(more);
        translated(file).unwrap().0
    };
    for alone in [
        json!({}),
        json!({"bootstrap": true}),
        json!({"bootstrap_expect": 1, "retry_join": ["127.0.0.1"]}),
    ] {
        let translated = with(alone);
        assert_eq!(
            translated.flags["raft_id"],
            "40e4a748-2192-161a-0510-9bf59fe950b5"
        );
        assert_eq!(translated.flags["node"], "n1");
        assert!(translated.flags.contains_key("node_id"));
        assert_eq!(translated.node_meta["a"], "b");
        assert!(translated.ignored.is_empty(), "{:?}", translated.ignored);
    }
    for among_others in [
        json!({"retry_join": ["a"]}),
        json!({"bootstrap_expect": 3, "retry_join": ["a", "b"]}),
        json!({"bootstrap": true, "retry_join": ["a", "b:1"]}),
    ] {
        let translated = with(among_others);
        assert_eq!(
            translated.flags["raft_id"],
            "40e4a748-2192-161a-0510-9bf59fe950b5"
        );
        assert!(!translated.flags.contains_key("node"));
        assert!(!translated.flags.contains_key("node_id"));
        assert!(translated.node_meta.is_empty());
        assert_eq!(translated.ignored, ["node_meta of a server among others"]);
    }
}

#[test]
fn any_key_that_only_consul_has_marks_its_files() {
    let of_consul = [
        "retry_join",
        "limits",
        "performance",
        "autopilot",
        "telemetry",
        "log_json",
        "tls",
        "server",
    ];
    let of_both_or_nobody = [
        "datacenter",
        "log_level",
        "enable_script_checks",
        "peers",
        "nobodys",
    ];
    let marked = of_consul.map(|key| (key, true));
    let unmarked = of_both_or_nobody.map(|key| (key, false));
    for (key, marks) in marked.into_iter().chain(unmarked) {
        let keys = [(key.to_owned(), Value::Null)].into_iter().collect();
        assert_eq!(is_consuls(&keys, Program::Server), marks, "{key}");
    }
}

#[test]
fn settings_of_autopilot_have_the_names_of_consuls_api() {
    let file = json!({ "autopilot": { "min_quorum": 3, "last_contact_threshold": "1s", "foo": 1 } });
    let (of_server, _) = translated(file.clone()).unwrap();
    let expected = json!({ "MinQuorum": 3, "LastContactThreshold": "1s" });
    assert_eq!(
        (of_server.autopilot, of_server.unknown),
        (Some(expected), vec!["autopilot.foo".to_owned()])
    );
    let Value::Object(mut keys) = file else {
        panic!("an object")
    };
    let of_agent = translate(&mut keys, Program::Agent).unwrap();
    assert_eq!(
        (of_agent.autopilot, of_agent.ignored),
        (None, vec!["autopilot".to_owned()])
    );
}

#[test]
fn what_keeps_others_out_in_consul_is_known() {
    let file = json!({
        "server": true, "acl": {"enabled": true}, "encrypt": "k", "pid_file": "p", "ui_config": {"enabled": true},
        "http_config": {"allow_write_http_from": ["127.0.0.0/8"], "response_headers": {}},
        "tls": {"internal_rpc": {"verify_incoming": true}}, "verify_outgoing": true, "domain": "c.",
    });
    let ignored = translated(file).expect("it can be read").0.ignored;
    let mut protecting: Vec<&str> = ignored
        .iter()
        .map(String::as_str)
        .filter(|key| is_protecting(key))
        .collect();
    protecting.sort_unstable();
    assert_eq!(
        protecting,
        [
            "acl",
            "encrypt",
            "http_config.allow_write_http_from",
            "tls.internal_rpc",
            "verify_outgoing"
        ]
    );
    assert!(
        ignored.iter().any(|key| key == "http_config.response_headers"),
        "{ignored:?}"
    );
}
