//! Whatever is in an agent's config files, they are refused in one line that names the place, or mean something that is
//! within the limits and the same in every form.

use std::{cell::Cell, path::Path};

use proptest::{prelude::*, sample::select};
use serde_json::{Value, json};
use sider_core::limits::{META_PAIRS_MAX, META_VALUE_CHARS_MAX};

use super::*;
use crate::strange::{self, Json};

/// Files of real agents: in the short form, and in Consul's.
fn real() -> Vec<Value> {
    vec![
        json!({
            "server": "127.0.0.1:8500, b:1", "node": "host-1", "http": "off", "address": "10.0.0.1", "data_dir": "/d",
            "datacenter": "dc1", "enable_script_checks": true, "log_level": "info", "log_format": "json",
            "node_id": "40e4a748-2192-161a-0510-9bf59fe950b5", "node_meta": {"rack": "r1"},
            "services": [
                {"name": "api", "id": "api-1", "port": 80, "tags": ["v1"], "meta": {"team": "x"}, "ns": "blue",
                    "weights": {"passing": 10, "warning": 1}, "checks": [{"type": "ttl", "ttl": "15s"},
                    {"type": "http", "http": "http://h:1/x", "interval": "5s", "timeout": "2s"},
                    {"type": "cmd", "args": ["true"], "notes": "n", "failures_before_critical": 3}]},
                {"name": "db", "tagged_addresses": {"lan": {"address": "10.0.0.2", "port": 5432}}}],
            "checks": [{"name": "mem", "type": "cmd", "args": "free", "interval": "10s"},
                {"name": "of-db", "type": "tcp", "tcp": "h:1", "service_id": "db"}],
        }),
        json!([{"name": "c", "checks": [{"type": "ttl", "ttl": "15s"}]}, {"name": "d", "Port": 1}]),
        json!({"service": {"name": "one"}, "check": {"name": "c", "ttl": "10s"}, "servers": ["a:1", "http://b:2/"]}),
        json!({
            "node_name": "n", "datacenter": "dc2", "data_dir": "/d", "bind_addr": "10.0.0.5", "server": false,
            "client_addr": "0.0.0.0", "advertise_addr": "10.0.0.7", "ports": {"http": 9, "dns": -1, "https": 8501},
            "addresses": {"http": "127.0.0.1"}, "retry_join": ["a", "b:1"], "start_join": ["c"], "log_level": "ERR",
            "enable_script_checks": true, "log_json": true, "node_meta": {"rack": "r1"}, "telemetry": {"x": [1]},
            "limits": {"rpc_rate": 5}, "tls": {"defaults": {"ca_file": "a"}}, "encrypt": "k",
            "service": {"name": "web", "port": 80, "token": "t", "enable_tag_override": false,
                "check": {"id": "c", "args": ["true"], "interval": "5s", "deregister_critical_service_after": "90m"},
                "proxy": {"destination_service_name": "x", "config": {"a": [1]}}, "connect": {"native": true}},
            "services": [{"id": "red0", "name": "redis", "checks": [{"http": "http://h:1", "interval": "1s",
                "header": {"A": ["b"]}, "method": "GET"}, {"tcp": "h:1", "interval": "1s"}, {"ttl": "30s"},
                {"grpc": "h:1/x", "interval": "1s"}, {"alias_service": "web"}]}],
            "checks": [{"id": "mem", "name": "Memory", "args": ["true"], "interval": "5s", "status": "passing"}],
        }),
    ]
}

/// What is at this path comes to; nothing of the host's surroundings is in it.
fn plan_of(path: &Path) -> Result<Plan, String> {
    plan(AgentFlags {
        config: vec![path.to_owned()],
        ..AgentFlags::default()
    })
}

/// The same in words, without the names of files.
fn meaning(mut plan: Plan) -> String {
    plan.config_paths.clear();
    format!("{plan:?}")
}

/// The reason is one line that names the file, the setting, or the service or check.
fn assert_names_the_place(error: &str, path: &Path) {
    let places = [
        "address: ",
        "check ",
        "datacenter: ",
        "invalid node name ",
        "log_format: ",
        "-server: ",
        "service ",
        "servers: ",
    ];
    assert_eq!(error.lines().count(), 1, "{error}");
    assert!(
        error.contains(&path.display().to_string()) || places.iter().any(|place| error.starts_with(place)),
        "{error}"
    );
}

fn assert_is_within_limits(plan: &Plan) {
    let agent = &plan.agent;
    assert!(is_address(&agent.address), "{:?}", agent.address);
    assert!(!agent.servers.is_empty());
    for server in &agent.servers {
        let (host, _) = address::split(server).unwrap();
        assert!(!host.is_empty(), "{server}");
    }
    assert!(agent.node_meta.len() <= META_PAIRS_MAX);
    for value in agent.node_meta.values() {
        assert!(value.chars().count() <= META_VALUE_CHARS_MAX);
    }
    assert!(agent.node_id.is_empty() || agent.node_id.len() == 36);
    assert!(!plan.data_dir.as_os_str().is_empty());
}

/// The objects of a file whose keys are all known: the file itself, its services and its checks.
fn closed(file: &Value) -> Vec<String> {
    let mut places = Vec::new();
    let mut add = |place: String| match file.pointer(&place) {
        Some(Value::Object(_)) => places.push(place),
        Some(Value::Array(items)) => places.extend((0..items.len().min(3)).map(|at| format!("{place}/{at}"))),
        _ => {}
    };
    for list in ["/service", "/services", "/check", "/checks"] {
        add(list.to_owned());
    }
    if file.is_object() {
        places.push(String::new());
    }
    places.retain(|place| file.pointer(place).is_some_and(Value::is_object));
    places
}

#[test]
fn a_file_of_an_agent_is_refused_with_a_reason_or_means_the_same_in_every_form() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let (taken, refused, again) = (Cell::new(0), Cell::new(0), Cell::new(0));
    strange::check(800, strange::changed(real()), |Json(file)| {
        let path = write("a.json", &file.to_string());
        let plan = match plan_of(&path) {
            Ok(plan) => plan,
            Err(error) => {
                refused.set(refused.get() + 1);
                return assert_names_the_place(&error, &path);
            }
        };
        taken.set(taken.get() + 1);
        assert_is_within_limits(&plan);
        let expected = meaning(plan);
        // JSON is YAML, but for characters that YAML wants escaped; and TOML has no null.
        let yaml = plan_of(&write("a.yaml", &file.to_string()));
        let toml = toml::to_string(&file).map_err(|error| error.to_string());
        let toml = toml.and_then(|text| plan_of(&write("a.toml", &text)));
        for plan in [yaml, toml].into_iter().flatten() {
            again.set(again.get() + 1);
            strange::assert_same(&meaning(plan), &expected);
        }
        for place in closed(&file) {
            let mut file = file.clone();
            file.pointer_mut(&place).unwrap()["zz_unknown"] = json!(1);
            let error = plan_of(&write("b.json", &file.to_string())).unwrap_err();
            assert!(error.contains("zz_unknown"), "{place}: {error}");
        }
    });
    // The changes are no good if they never get through, or always.
    let (taken, refused) = (taken.get(), refused.get());
    assert!(again.get() > taken, "{} in other forms", again.get());
    assert!(taken > 100 && refused > 100, "{taken} taken, {refused} refused");
}

#[test]
fn a_text_that_is_no_file_of_an_agent_is_refused_with_a_reason() {
    let folder = tempfile::tempdir().unwrap();
    let as_yaml = |file: &Value| serde_saphyr::to_string(file).unwrap();
    let as_toml = |file: &Value| toml::to_string(file).unwrap_or_default();
    let texts: Vec<(&str, String)> = real()
        .iter()
        .flat_map(|file| {
            [
                ("json", file.to_string()),
                ("yaml", as_yaml(file)),
                ("toml", as_toml(file)),
            ]
        })
        .collect();
    let faulty = (select(texts), strange::faults())
        .prop_map(|((ending, text), faults)| (ending, strange::faulty(text, &faults)));
    let any = (select(&["json", "yaml", "toml"][..]), any::<String>());
    let taken = Cell::new(0);
    strange::check(600, prop_oneof![6 => faulty, 1 => any], |(ending, text)| {
        let path = folder.path().join(format!("a.{ending}"));
        std::fs::write(&path, text).unwrap();
        match plan_of(&path) {
            Ok(plan) => {
                taken.set(taken.get() + 1);
                assert_is_within_limits(&plan);
            }
            Err(error) => assert_names_the_place(&error, &path),
        }
    });
    assert!(taken.get() > 60, "{} taken", taken.get());
}

#[test]
fn several_files_of_an_agent_are_refused_with_a_reason_or_mean_something_within_the_limits() {
    let folder = tempfile::tempdir().unwrap();
    strange::check(
        300,
        [strange::changed(real()), strange::changed(real())],
        |files| {
            for (at, Json(file)) in files.iter().enumerate() {
                std::fs::write(folder.path().join(format!("{at}.json")), file.to_string()).unwrap();
            }
            match plan_of(folder.path()) {
                Ok(plan) => assert_is_within_limits(&plan),
                Err(error) => assert_names_the_place(&error, folder.path()),
            }
        },
    );
}

#[test]
fn what_is_nested_without_end_or_refers_to_itself_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let bomb: String = (1..40)
        .map(|n| format!("a{n}: &a{n} [*a{}, *a{}]\n", n - 1, n - 1))
        .collect();
    for (ending, text) in [
        ("json", "[".repeat(1_000_000)),
        ("json", "{\"services\":".repeat(100_000)),
        ("yaml", "[".repeat(100_000)),
        ("yaml", "- ".repeat(100_000)),
        ("yaml", "? ".repeat(100_000)),
        (
            "yaml",
            (0..2_000).map(|n| format!("{}a:\n", " ".repeat(n))).collect(),
        ),
        ("yaml", format!("a0: &a0 [x, x]\n{bomb}")),
        ("yaml", "services: &a [*a]\n".to_owned()),
        ("toml", format!("a = {}", "[".repeat(100_000))),
        ("toml", format!("a = {}", "{a = ".repeat(100_000))),
        ("toml", format!("a{} = 1", ".a".repeat(100_000))),
        ("toml", format!("[a{}]", ".a".repeat(100_000))),
    ] {
        let path = folder.path().join(format!("a.{ending}"));
        std::fs::write(&path, &text).unwrap();
        let error = plan_of(&path).unwrap_err();
        assert!(error.contains(&path.display().to_string()), "{error}");
    }
}
