//! Whatever is in a server's config files, Sider's or Consul's, they are refused in one line that names the file and the
//! key, or mean something that is within the limits and the same in every form.

use std::{
    cell::Cell,
    path::{Path, PathBuf},
    time::Duration,
};

use proptest::{prelude::*, sample::select};
use serde_json::{Value, json};
use sider_core::{
    limits::{META_PAIRS_MAX, META_VALUE_CHARS_MAX, NAME_BYTES_MAX, RAFT_TIME_MAX},
    raft::ServerAddress,
};
use sider_runtime_tokio::address;

use super::settings::Settings;
use crate::{
    flags::ServerFlags,
    strange::{self, Json},
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

/// The same in words, without the names of files.
fn meaning(mut settings: Settings) -> String {
    settings.config_paths.clear();
    format!("{settings:?}")
}

/// The reason is one line that names the file, or a key that is weighed against others.
fn assert_names_the_place(error: &str, path: &Path) {
    let keys = [
        "heartbeat_interval: ",
        "election_timeout_min: ",
        "election_timeout_max: ",
        "config files have ",
    ];
    assert_eq!(error.lines().count(), 1, "{error}");
    assert!(
        error.contains(&path.display().to_string()) || keys.iter().any(|key| error.starts_with(key)),
        "{error}"
    );
}

fn assert_is_within_limits(settings: &Settings) {
    let raft = settings.raft_config(ServerAddress::default());
    assert!(raft.heartbeat >= Duration::from_millis(1));
    assert!(raft.election_min >= raft.heartbeat * 2 && raft.election_max > raft.election_min);
    assert!(raft.election_max <= RAFT_TIME_MAX && raft.snapshot_interval <= RAFT_TIME_MAX);
    assert!(raft.snapshot_threshold > 0);
    let reached = |text: &str| address::split(text).is_ok_and(|(host, _)| !host.is_empty());
    assert!(settings.http.starts_with("unix:///") || address::split(&settings.http).is_ok());
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
fn closed(file: &Value) -> Vec<&'static str> {
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
    let marks = [
        "addresses",
        "bind_addr",
        "bootstrap",
        "client_addr",
        "data_dir",
        "node_name",
        "ports",
        "server",
    ];
    let is_consuls = marks.iter().any(|mark| file.get(mark).is_some());
    let places = all
        .into_iter()
        .chain(of_consul.into_iter().filter(|_| is_consuls));
    let is_object = |place: &&str| file.pointer(place).is_some_and(Value::is_object);
    places.filter(is_object).collect()
}

#[test]
fn a_file_of_a_server_is_refused_with_a_reason_or_means_the_same_in_every_form() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let (taken, refused, again) = (Cell::new(0), Cell::new(0), Cell::new(0));
    strange::check(1_000, strange::changed(real()), |Json(file)| {
        let path = write("a.json", &file.to_string());
        let settings = match settings_of(&path) {
            Ok(settings) => settings,
            Err(error) => {
                refused.set(refused.get() + 1);
                return assert_names_the_place(&error, &path);
            }
        };
        taken.set(taken.get() + 1);
        assert_is_within_limits(&settings);
        let expected = meaning(settings);
        // JSON is YAML, but for characters that YAML wants escaped; and TOML has no null.
        let yaml = settings_of(&write("a.yaml", &file.to_string()));
        let toml = toml::to_string(&file).map_err(|error| error.to_string());
        let toml = toml.and_then(|text| settings_of(&write("a.toml", &text)));
        for settings in [yaml, toml].into_iter().flatten() {
            again.set(again.get() + 1);
            strange::assert_same(&meaning(settings), &expected);
        }
        for place in closed(&file) {
            let mut file = file.clone();
            file.pointer_mut(place).unwrap()["zz_unknown"] = json!(1);
            let error = settings_of(&write("b.json", &file.to_string())).unwrap_err();
            assert!(error.contains("zz_unknown"), "{place}: {error}");
        }
    });
    // The changes are no good if they never get through, or always.
    let (taken, refused) = (taken.get(), refused.get());
    assert!(again.get() > taken, "{} in other forms", again.get());
    assert!(taken > 100 && refused > 100, "{taken} taken, {refused} refused");
}

#[test]
fn a_text_that_is_no_file_of_a_server_is_refused_with_a_reason() {
    let folder = tempfile::tempdir().unwrap();
    let as_yaml = |file: &Value| serde_saphyr::to_string(file).unwrap();
    let as_toml = |file: &Value| toml::to_string(file).unwrap();
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
    let taken = Cell::new(0);
    strange::check(600, faulty, |(ending, text)| {
        let path = folder.path().join(format!("a.{ending}"));
        std::fs::write(&path, text).unwrap();
        match settings_of(&path) {
            Ok(settings) => {
                taken.set(taken.get() + 1);
                assert_is_within_limits(&settings);
            }
            Err(error) => assert_names_the_place(&error, &path),
        }
    });
    assert!(taken.get() > 60, "{} taken", taken.get());
}

#[test]
fn several_files_of_a_server_are_refused_with_a_reason_or_mean_something_within_the_limits() {
    let folder = tempfile::tempdir().unwrap();
    strange::check(
        300,
        [strange::changed(real()), strange::changed(real())],
        |files| {
            for (at, Json(file)) in files.iter().enumerate() {
                std::fs::write(folder.path().join(format!("{at}.json")), file.to_string()).unwrap();
            }
            match settings_of(folder.path()) {
                Ok(settings) => assert_is_within_limits(&settings),
                Err(error) => assert_names_the_place(&error, folder.path()),
            }
        },
    );
}
