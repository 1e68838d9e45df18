//! Whatever is in an agent's config files, they are refused in one line that names the place, or mean something that is
//! within the limits and the same in every form.

use std::path::Path;

use serde_json::{Value, json};
use sider_core::limits::{META_PAIRS_MAX, META_VALUE_CHARS_MAX, TTL_MIN};

use super::*;
use crate::config_fuzz::Reader;

/// Files of real agents: in the short form, and in Consul's.
fn real() -> Vec<Value> {
    vec![
        json!({
            "server": "127.0.0.1:8500, b:1", "node": "host-1", "http": "off", "address": "10.0.0.1", "data_dir": "/d",
            "datacenter": "dc1", "enable_script_checks": true, "log_level": "info", "log_format": "json",
            "node_id": "40e4a748-2192-161a-0510-9bf59fe950b5", "node_meta": {"rack": "r1"},
            "node_ttl": "20s",
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

fn plan_of(path: &Path) -> Result<Plan, String> {
    plan(AgentFlags {
        config: vec![path.to_owned()],
        ..AgentFlags::default()
    })
}

fn meaning(mut plan: Plan) -> String {
    plan.config_paths.clear();
    format!("{plan:?}")
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
    assert!(
        agent
            .node_ttl
            .is_none_or(|ttl| (TTL_MIN..=TTL_MAX).contains(&ttl))
    );
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

fn reader() -> Reader<Plan> {
    Reader {
        real: real(),
        read: plan_of,
        meaning,
        places: &[
            "address: ",
            "check ",
            "datacenter: ",
            "invalid node name ",
            "log_format: ",
            "node_ttl: ",
            "-server: ",
            "service ",
            "servers: ",
        ],
        check: assert_is_within_limits,
        closed,
    }
}

#[test]
fn a_file_of_an_agent_is_refused_with_a_reason_or_means_the_same_in_every_form() {
    reader().try_in_every_form(800);
}

#[test]
fn a_text_that_is_no_file_of_an_agent_is_refused_with_a_reason() {
    reader().try_damaged(600);
}

#[test]
fn several_files_of_an_agent_are_refused_with_a_reason_or_mean_something_within_the_limits() {
    reader().try_several(300);
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
