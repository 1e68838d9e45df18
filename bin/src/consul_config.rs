//! Consul's keys in a config file of `sds-server` or `sds-agent`, as the flags that they come to.

mod known;

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use self::known::Useless;

/// Keys by which a file is known to be Consul's.
const MARKS: [&str; 9] = [
    "addresses",
    "bind_addr",
    "bootstrap",
    "bootstrap_expect",
    "client_addr",
    "data_dir",
    "node_name",
    "ports",
    "server",
];

/// Where Consul serves its API.
const HTTP_PORT: u64 = 8500;
/// Where Consul's members find each other.
const JOIN_PORT: u64 = 8301;

/// What a file of Consul's comes to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Translated {
    /// Values of flags, by name.
    pub(crate) flags: BTreeMap<&'static str, String>,
    /// Meta of the node.
    pub(crate) node_meta: BTreeMap<String, String>,
    /// Keys that were passed over.
    pub(crate) ignored: Vec<String>,
    /// Keys beneath others that nobody knows; those at the top are left in the file.
    pub(crate) unknown: Vec<String>,
}

/// Which program reads the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Program {
    /// `sds-server`.
    Server,
    /// `sds-agent`.
    Agent,
}

/// Whether a file is one of Consul's. Two of the marks are keys of `sds-agent`'s own, too.
pub(crate) fn is_consuls(keys: &Map<String, Value>, program: Program) -> bool {
    let is_mark = |mark: &&str| match (program, *mark) {
        (Program::Agent, "data_dir") => false,
        (Program::Agent, "server") => keys.get("server").is_some_and(Value::is_boolean),
        (_, mark) => keys.contains_key(mark),
    };
    MARKS.iter().any(is_mark)
}

/// Takes Consul's keys out of a file, if it is one of Consul's; what is left of it are keys of Sider's own.
///
/// # Errors
/// One line that names the key.
pub(crate) fn translate(keys: &mut Map<String, Value>, program: Program) -> Result<Translated, String> {
    let mut translated = Translated::default();
    if !is_consuls(keys, program) {
        return Ok(translated);
    }
    match (program, take_bool(keys, "server")?) {
        (Program::Server, Some(false)) => {
            return Err(
                "server: false: sds-server is a server; on a host of services run sds-agent".to_owned(),
            );
        }
        (Program::Agent, Some(true)) => {
            return Err("server: true: sds-agent is no server; run sds-server".to_owned());
        }
        _ => {}
    }
    let flags = &mut translated.flags;
    let (name, id) = (take_text(keys, "node_name")?, take_text(keys, "node_id")?);
    flags.extend(name.clone().map(|name| ("node", name)));
    flags.extend(id.clone().map(|id| ("node_id", id)));
    flags.extend(id.or(name).map(|id| ("raft_id", id)));
    flags.extend(take_text(keys, "data_dir")?.map(|folder| ("raft_dir", folder)));
    let mut ports = take_section(keys, "ports")?;
    let mut addresses = take_section(keys, "addresses")?;
    let mut useless = Useless::default();
    // All addresses of this host; the others are told the one by which it reaches them.
    let bind = take_host(keys, "bind_addr")?.unwrap_or_else(|| "0.0.0.0".to_owned());
    let client = take_host(keys, "client_addr")?.unwrap_or_else(|| "127.0.0.1".to_owned());
    let http = take_text(&mut addresses, "http")?.unwrap_or_else(|| client.clone());
    let https = take_text(&mut addresses, "https")?.unwrap_or(client);
    let https = optional_port(&mut ports, "https")?.map(|port| listed(&https, port));
    let secured = translate_tls(keys, flags, &mut useless)?;
    let https = match (https, secured) {
        (Some(https), true) => Some(https),
        // Consul listens there, too, and can't serve anybody.
        (Some(_), false) => {
            useless.ignored.push("ports.https without cert_file".to_owned());
            None
        }
        (None, _) => None,
    };
    let is_served = program == Program::Agent || https.is_some();
    insert_addresses(
        flags,
        ("http", "http_more"),
        http_addresses(&mut ports, &http, is_served)?,
    );
    insert_addresses(flags, ("https", "https_more"), https.unwrap_or_default());
    let gossip = match ports.contains_key("serf_lan") {
        true => optional_port(&mut ports, "serf_lan")?,
        false => (program == Program::Server).then_some(JOIN_PORT),
    };
    if let Some(port) = gossip {
        flags.insert("join_bind", join(&bind, port));
    }
    let server_port = port(&mut ports, "server", 8300)?;
    flags.insert("raft_bind", join(&bind, server_port));
    if let Some(host) = take_host(keys, "advertise_addr")? {
        flags.insert("raft_advertise", join(&host, server_port));
    }
    translate_bootstrap(keys, flags)?;
    let mut join = Vec::new();
    for key in ["retry_join", "start_join"] {
        match keys.remove(key) {
            None | Some(Value::Null) => {}
            Some(Value::Array(entries)) => {
                for entry in entries {
                    let Value::String(entry) = entry else {
                        return Err(format!("{key}: expected a list of addresses"));
                    };
                    if entry.contains("provider=") {
                        return Err(format!(
                            "{key}: {entry:?}: servers are not looked for at a provider: write their addresses"
                        ));
                    }
                    // A server is joined where Consul's gossip is; an agent speaks to the API.
                    let port = match program {
                        Program::Server => JOIN_PORT,
                        Program::Agent => HTTP_PORT,
                    };
                    join.push(match entry.contains(':') {
                        true => entry,
                        false => self::join(&entry, port),
                    });
                }
            }
            Some(_) => return Err(format!("{key}: expected a list of addresses")),
        }
    }
    let expected: Option<usize> = flags
        .get("bootstrap_expect")
        .and_then(|servers| servers.parse().ok());
    if let Some(expected) = expected
        && program == Program::Server
        && join.len() + 1 < expected
    {
        return Err(format!(
            "bootstrap_expect: {expected}: retry_join must name all of the others, as many as {}: nobody hears of servers \
             from others here",
            expected - 1
        ));
    }
    if !join.is_empty() {
        flags.insert("join", join.join(","));
    }
    translate_raft(keys, program, &mut useless);
    if take_bool(keys, "log_json")? == Some(true) {
        flags.insert("log_format", "json".to_owned());
    }
    if let Some(scripts) = take_bool(keys, "enable_script_checks")? {
        flags.insert("enable_script_checks", scripts.to_string());
    }
    if let Some(level) = take_text(keys, "log_level")? {
        let level = level.to_ascii_lowercase();
        flags.insert(
            "log_level",
            if level == "err" { "error".to_owned() } else { level },
        );
    }
    if program == Program::Agent {
        for key in ["leave_on_terminate", "skip_leave_on_interrupt"] {
            let value = take_bool(keys, key)?;
            flags.extend(value.map(|value| (key, value.to_string())));
        }
    }
    for (key, value) in take_section(keys, "node_meta")? {
        let Value::String(text) = value else {
            return Err(format!("node_meta.{key}: expected text, found {value}"));
        };
        translated.node_meta.insert(key, text);
    }
    translate_limits(keys, program, flags, &mut useless)?;
    useless.take_ignored(keys);
    useless.rest_of("ports", &ports);
    useless.rest_of("addresses", &addresses);
    (translated.ignored, translated.unknown) = (useless.ignored, useless.unknown);
    Ok(translated)
}

/// Whether a cluster is begun: alone, or with as many others as make up a number of servers.
fn translate_bootstrap(
    keys: &mut Map<String, Value>,
    flags: &mut BTreeMap<&'static str, String>,
) -> Result<(), String> {
    let bootstrap = take_bool(keys, "bootstrap")?;
    let expect = match keys.remove("bootstrap_expect") {
        None | Some(Value::Null) => 0,
        Some(value) => value
            .as_u64()
            .ok_or_else(|| format!("bootstrap_expect: expected a number of servers, found {value}"))?,
    };
    match (bootstrap, expect) {
        (Some(true), 2..) => Err(
            "bootstrap: a server that begins alone can't expect others: leave out either bootstrap or bootstrap_expect"
                .to_owned(),
        ),
        (Some(true), _) | (_, 1) => {
            flags.insert("raft_bootstrap", "true".to_owned());
            Ok(())
        }
        (Some(false), 0) => {
            flags.insert("raft_bootstrap", "false".to_owned());
            Ok(())
        }
        (None, 0) => Ok(()),
        (_, servers) => {
            flags.insert("bootstrap_expect", servers.to_string());
            Ok(())
        }
    }
}

/// Settings of Raft that a server has under other names, at the top of its file, too. 0 is the default.
fn translate_raft(keys: &mut Map<String, Value>, program: Program, useless: &mut Useless) {
    for (of_consul, own) in [
        ("raft_snapshot_interval", "snapshot_interval"),
        ("raft_snapshot_threshold", "snapshot_threshold"),
        ("raft_trailing_logs", "snapshot_log_keep"),
    ] {
        let value = keys.remove(of_consul);
        match (value, program) {
            (None, _) => {}
            (Some(_), Program::Agent) => useless.ignored.push(of_consul.to_owned()),
            (Some(value), Program::Server) if value == 0 => {}
            (Some(value), Program::Server) => {
                keys.entry(own).or_insert(value);
            }
        }
    }
}

/// Limits of requests and of sessions, and how patient Raft is. Longest transactions are as long as the longest values unless
/// they have a limit of their own.
fn translate_limits(
    keys: &mut Map<String, Value>,
    program: Program,
    flags: &mut BTreeMap<&'static str, String>,
    useless: &mut Useless,
) -> Result<(), String> {
    let (mut limits, mut performance) = (take_section(keys, "limits")?, take_section(keys, "performance")?);
    if program == Program::Server {
        let value = take_number(&mut limits, "limits", "kv_max_value_size")?;
        let transaction = take_number(&mut limits, "limits", "txn_max_req_len")?.or(value);
        flags.extend(value.map(|bytes| ("kv_max_value_size", bytes.to_string())));
        flags.extend(transaction.map(|bytes| ("txn_max_req_len", bytes.to_string())));
        let times = take_number(&mut performance, "performance", "raft_multiplier")?;
        flags.extend(
            times
                .filter(|times| *times > 0)
                .map(|times| ("raft_multiplier", times.to_string())),
        );
        flags.extend(take_text(keys, "session_ttl_min")?.map(|ttl| ("session_ttl_min", ttl)));
    }
    useless.rest_of("limits", &limits);
    useless.rest_of("performance", &performance);
    Ok(())
}

/// Certificates: at the top as they were written for long, or beneath `tls.defaults` and `tls.https`. Whether there are any.
fn translate_tls(
    keys: &mut Map<String, Value>,
    flags: &mut BTreeMap<&'static str, String>,
    useless: &mut Useless,
) -> Result<bool, String> {
    let mut tls = take_section(keys, "tls")?;
    let (mut defaults, mut https) = (
        take_section(&mut tls, "defaults")?,
        take_section(&mut tls, "https")?,
    );
    for (flag, key) in [
        ("tls_cert", "cert_file"),
        ("tls_key", "key_file"),
        ("tls_ca", "ca_file"),
    ] {
        let of_all = (
            take_text(&mut https, key)?,
            take_text(&mut defaults, key)?,
            take_text(keys, key)?,
        );
        let chosen = of_all.0.or(of_all.1).or(of_all.2);
        flags.extend(chosen.map(|path| (flag, path)));
    }
    let verify = [
        take_bool(&mut https, "verify_incoming")?,
        take_bool(keys, "verify_incoming_https")?,
        take_bool(&mut defaults, "verify_incoming")?,
        take_bool(keys, "verify_incoming")?,
    ];
    // In the old form either of the two is enough.
    let verify = match (verify[0], verify[2]) {
        (Some(verify), _) => verify,
        (None, Some(verify)) => verify,
        (None, None) => verify[1] == Some(true) || verify[3] == Some(true),
    };
    flags.insert("tls_verify", verify.to_string());
    useless.rest_of("tls.defaults", &defaults);
    useless.rest_of("tls.https", &https);
    useless.rest_of("tls", &tls);
    Ok(flags.contains_key("tls_cert"))
}

/// Where HTTP is served at this host, or `off`, which a server can't be without unless it serves HTTPS.
fn http_addresses(
    ports: &mut Map<String, Value>,
    hosts: &str,
    can_be_off: bool,
) -> Result<Vec<String>, String> {
    if can_be_off && matches!(ports.get("http").and_then(Value::as_i64), Some(-1 | 0)) {
        ports.remove("http");
        return Ok(vec!["off".to_owned()]);
    }
    Ok(listed(hosts, port(ports, "http", HTTP_PORT)?))
}

/// Hosts with spaces between them, each with a port unless it is a socket of Unix.
fn listed(hosts: &str, port: u64) -> Vec<String> {
    let hosts = hosts.split_whitespace();
    hosts
        .map(|host| match host.starts_with("unix://") {
            true => host.to_owned(),
            false => join(host, port),
        })
        .collect()
}

/// The first address is what others are told; the rest are listened at as well.
fn insert_addresses(
    flags: &mut BTreeMap<&'static str, String>,
    (first, more): (&'static str, &'static str),
    addresses: Vec<String>,
) {
    let mut addresses = addresses.into_iter();
    flags.extend(addresses.next().map(|address| (first, address)));
    let rest: Vec<String> = addresses.collect();
    if !rest.is_empty() {
        flags.insert(more, rest.join(","));
    }
}

/// A port that is not there unless it is named; 0 and -1 are none.
fn optional_port(ports: &mut Map<String, Value>, key: &str) -> Result<Option<u64>, String> {
    match ports.get(key).and_then(Value::as_i64) {
        Some(0 | -1) => {
            ports.remove(key);
            Ok(None)
        }
        Some(_) => port(ports, key, 0).map(Some),
        None if ports.contains_key(key) => port(ports, key, 0).map(Some),
        None => Ok(None),
    }
}

fn join(host: &str, port: u64) -> String {
    match host.contains(':') && !host.starts_with('[') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    }
}

fn port(ports: &mut Map<String, Value>, key: &str, default: u64) -> Result<u64, String> {
    match ports.remove(key) {
        None => Ok(default),
        Some(value) => value
            .as_u64()
            .filter(|port| (1..=65535).contains(port))
            .ok_or_else(|| format!("ports.{key}: expected a port, found {value}")),
    }
}

fn take_text(keys: &mut Map<String, Value>, key: &str) -> Result<Option<String>, String> {
    match keys.remove(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.is_empty() => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(other) => Err(format!("{key}: expected text, found {other}")),
    }
}

/// An address without a port.
fn take_host(keys: &mut Map<String, Value>, key: &str) -> Result<Option<String>, String> {
    match take_text(keys, key)? {
        Some(text) if text.contains("{{") => Err(format!(
            "{key}: {text:?}: templates are not filled in here: write an address"
        )),
        host => Ok(host),
    }
}

fn take_bool(keys: &mut Map<String, Value>, key: &str) -> Result<Option<bool>, String> {
    match keys.remove(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Bool(value)) => Ok(Some(value)),
        Some(other) => Err(format!("{key}: expected true or false, found {other}")),
    }
}

fn take_number(keys: &mut Map<String, Value>, section: &str, key: &str) -> Result<Option<u64>, String> {
    match keys.remove(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => value
            .as_u64()
            .map(Some)
            .ok_or_else(|| format!("{section}.{key}: expected a number that is not negative, found {value}")),
    }
}

fn take_section(keys: &mut Map<String, Value>, key: &str) -> Result<Map<String, Value>, String> {
    match keys.remove(key) {
        None | Some(Value::Null) => Ok(Map::new()),
        Some(Value::Object(section)) => Ok(section),
        Some(other) => Err(format!("{key}: expected keys with values, found {other}")),
    }
}

#[cfg(test)]
mod tests {
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
            "retry_join": ["a", "b:1"], "log_level": "ERR", "connect": {"enabled": true}, "datacenter": "dc2",
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
                "join=a:8301,b:1",
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
        assert_eq!(translated.ignored, ["connect", "ports.dns"]);
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
        let expecting =
            flags(json!({"bootstrap_expect": 3, "retry_join": join, "bootstrap": false})).unwrap();
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
        let (translated, rest) = translated(json!({"http": ":1", "limits": 5})).unwrap();
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
}
