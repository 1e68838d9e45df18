//! Whatever is in a server's config files, Sider's or Consul's, they are refused in one line that names the file and the
//! key, or mean something that is within the limits and the same in every form.

use std::{
    iter,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::{Value, json};
use sider_core::{
    limits::{META_PAIRS_MAX, META_VALUE_CHARS_MAX, NAME_BYTES_MAX, RAFT_TIME_MAX},
    raft::ServerAddress,
};
use sider_runtime_tokio::address;

use super::settings::{OFF, Settings};
use crate::{
    config_fuzz::Reader,
    consul_config::{self, Program},
    flags::ServerFlags,
};

/// Files of real servers, in each form.
fn real() -> Vec<Value> {
    vec![
        json!({
            "peers": [{"id": "node1", "raft_addr": "127.0.0.1:8501", "http_addr": "127.0.0.1:8500"},
                {"id": "node2", "raft_addr": "[::1]:9501", "grpc_addr": "h:2379"}, {"id": 3, "raft_addr": "c:1"}],
            "raft_id": "node1", "heartbeat_interval": "50ms", "election_timeout_min": 150, "election_timeout_max": "300ms",
            "snapshot_interval": "20s", "snapshot_threshold": 8192, "snapshot_log_keep": 100, "grpc": "off",
        }),
        json!({"raft": {"peers": [{"id": "a", "raft_addr": "a:1"}, {"id": "b", "raft_addr": "b:1"}],
            "heartbeat_timeout": "1s", "election_timeout": "1s", "snapshot_threshold": 9, "snapshot_interval": 5000},
            "raft_id": "a", "http": ":8500"}),
        json!({"cluster": {"nodes": [{"node_id": 1, "host": "10.0.0.1", "client_port": 8500, "raft_port": 8501},
            {"node_id": "two", "host": "fe80::1", "client_port": 8500, "raft_port": 8501}]}, "raft_id": 1,
            "raft": {"election_timeout_min": 150, "election_timeout_max": 300, "heartbeat_interval": 50}}),
        json!({"http": ":1", "raft_id": "x", "raft_bind": "127.0.0.1:2", "raft_advertise": "h:3", "raft_dir": "/d",
            "raft_bootstrap": true, "join": ["a:1", "http://b:2/"], "dev": false, "log_level": "info", "log_format": "json",
            "datacenter": "east", "node": "n", "register_servers": false, "https": ":4", "tls_cert": "c", "tls_key": "k",
            "tls_ca": "a", "tls_verify": true,
            "services": [{"name": "web", "port": 80, "checks": [{"type": "ttl", "ttl": "15s"}]}],
            "check": {"name": "mem", "ttl": "1m"}}),
        json!({
            "node_name": "n1", "node_id": "40e4a748-2192-161a-0510-9bf59fe950b5", "data_dir": "/d", "server": true,
            "bind_addr": "10.0.0.1", "client_addr": "0.0.0.0", "advertise_addr": "10.0.0.9", "datacenter": "dc2",
            "ports": {"http": 1, "server": 2, "dns": 3, "https": 8501, "serf_lan": 8301, "grpc": -1},
            "addresses": {"http": "127.0.0.1", "https": "10.0.0.1"}, "bootstrap_expect": 3, "retry_join": ["a", "b:1"],
            "start_join": ["c"], "log_level": "ERR", "log_json": true, "connect": {"enabled": true}, "encrypt": "k",
            "raft_snapshot_threshold": 100, "raft_trailing_logs": 0, "raft_snapshot_interval": "30s",
            "limits": {"rpc_rate": 5}, "performance": {"raft_multiplier": 1}, "node_meta": {"rack": "r1"},
            "cert_file": "c", "key_file": "k", "verify_incoming": false,
            "tls": {"defaults": {"ca_file": "a", "verify_incoming": true}, "https": {"cert_file": "d"}, "internal_rpc": {}},
            "enable_script_checks": true, "telemetry": {"prefix": "p"},
            "service": {"name": "web", "port": 80, "check": {"args": ["true"], "interval": "5s"}},
            "services": [{"name": "redis", "id": "r1", "checks": [{"tcp": "h:1", "interval": "10s"}]}],
        }),
    ]
}

fn settings_of(path: &Path) -> Result<Settings, String> {
    Settings::new(ServerFlags {
        config: vec![path.to_owned()],
        ..ServerFlags::default()
    })
}

fn meaning(mut settings: Settings) -> String {
    settings.config_paths.clear();
    format!("{settings:?}")
}

fn assert_is_within_limits(settings: &Settings) {
    let raft = settings.raft_config(ServerAddress::default());
    assert!(raft.heartbeat >= Duration::from_millis(1));
    assert!(raft.election_min >= raft.heartbeat * 2 && raft.election_max > raft.election_min);
    assert!(raft.election_max <= RAFT_TIME_MAX && raft.snapshot_interval <= RAFT_TIME_MAX);
    assert!(raft.snapshot_threshold > 0);
    let reached = |text: &str| address::split(text).is_ok_and(|(host, _)| !host.is_empty());
    assert!(settings.http != OFF || settings.https.is_some());
    let https = settings
        .https
        .iter()
        .map(|(address, _)| address)
        .chain(&settings.https_more);
    let http = iter::once(&settings.http).filter(|http| *http != OFF);
    for listener in http.chain(&settings.http_more).chain(https) {
        assert!(
            listener.starts_with("unix:///") || address::split(listener).is_ok(),
            "{listener}"
        );
    }
    assert!(address::split(&settings.raft).is_ok(), "{:?}", settings.raft);
    for peer in settings.peers.values() {
        assert!(
            reached(&peer.raft) && (peer.http.is_empty() || reached(&peer.http)),
            "{peer:?}"
        );
    }
    assert!(
        settings.join.iter().all(|server| reached(server)),
        "{:?}",
        settings.join
    );
    assert!(
        settings.join_bind.as_deref().is_none_or(reached),
        "{:?}",
        settings.join_bind
    );
    assert!((1..=NAME_BYTES_MAX).contains(&settings.id.0.len()));
    assert_ne!(settings.data, Some(PathBuf::new()));
    let server = &settings.server;
    assert_eq!(server.agent_node_id.len(), 36, "{:?}", server.agent_node_id);
    assert!(server.agent_node_meta.len() <= META_PAIRS_MAX);
    for value in server.agent_node_meta.values() {
        assert!(value.chars().count() <= META_VALUE_CHARS_MAX);
    }
}

/// The objects of a file whose keys are all known.
fn closed(file: &Value) -> Vec<String> {
    let all = [
        "",
        "/raft",
        "/cluster",
        "/cluster/nodes/0",
        "/peers/0",
        "/raft/peers/0",
        "/service",
        "/services/0",
        "/check",
    ];
    let of_consul = [
        "/ports",
        "/addresses",
        "/limits",
        "/performance",
        "/tls",
        "/tls/defaults",
        "/tls/https",
    ];
    let is_consuls = file
        .as_object()
        .is_some_and(|keys| consul_config::is_consuls(keys, Program::Server));
    let places = all
        .into_iter()
        .chain(of_consul.into_iter().filter(|_| is_consuls));
    let is_object = |place: &&str| file.pointer(place).is_some_and(Value::is_object);
    places.filter(is_object).map(str::to_owned).collect()
}

fn reader() -> Reader<Settings> {
    Reader {
        real: real(),
        read: settings_of,
        meaning,
        // Keys that are weighed against others.
        places: &[
            "heartbeat_interval: ",
            "election_timeout_min: ",
            "election_timeout_max: ",
            "config files have ",
        ],
        check: assert_is_within_limits,
        closed,
    }
}

#[test]
fn a_file_of_a_server_is_refused_with_a_reason_or_means_the_same_in_every_form() {
    reader().try_in_every_form(1_000);
}

#[test]
fn a_text_that_is_no_file_of_a_server_is_refused_with_a_reason() {
    reader().try_damaged(600);
}

#[test]
fn several_files_of_a_server_are_refused_with_a_reason_or_mean_something_within_the_limits() {
    reader().try_several(300);
}
