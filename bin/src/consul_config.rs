//! Consul's keys in a config file of `sds-server` or `sds-agent`, as the flags that they come to.

mod addresses;
mod known;
mod take;

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use self::{
    addresses::{has_port, join},
    known::Useless,
    take::{take_bool, take_number, take_section, take_text},
};

/// Keys by which a file is known to be Consul's, besides those that mean nothing here.
const MARKS: [&str; 25] = [
    "addresses",
    "advertise_addr",
    "autopilot",
    "bind_addr",
    "bootstrap",
    "bootstrap_expect",
    "ca_file",
    "cert_file",
    "client_addr",
    "data_dir",
    "key_file",
    "limits",
    "log_json",
    "node_name",
    "performance",
    "ports",
    "raft_snapshot_interval",
    "raft_snapshot_threshold",
    "raft_trailing_logs",
    "retry_join",
    "server",
    "start_join",
    "tls",
    "verify_incoming",
    "verify_incoming_https",
];

/// How the names of keys begin that keep others out in Consul, as those do that have `verify_` in them.
const PROTECTING: [&str; 9] = [
    "acl",
    "allow_write_http_from",
    "auto_encrypt",
    "encrypt",
    "serf_lan_allowed_cidrs",
    "serf_wan_allowed_cidrs",
    "tls.grpc",
    "tls.internal_rpc",
    "unix_sockets",
];

/// Where Consul serves its API.
const HTTP_PORT: u64 = 8500;
/// Where Consul's servers speak to each other.
const SERVER_PORT: u64 = 8300;
/// Where Consul's members find each other.
const JOIN_PORT: u64 = 8301;

/// What a file of Consul's comes to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Translated {
    /// Values of flags, by name.
    pub(crate) flags: BTreeMap<&'static str, String>,
    /// Meta of the node.
    pub(crate) node_meta: BTreeMap<String, String>,
    /// Autopilot's settings as long as none are stored, as Consul's API has them.
    pub(crate) autopilot: Option<Value>,
    /// Keys that were passed over.
    pub(crate) ignored: Vec<String>,
    /// Keys beneath others that nobody knows; those at the top are left in the file.
    pub(crate) unknown: Vec<String>,
}

/// Tells of keys that were passed over, and apart of those whose absence lets others in.
pub(crate) fn warn_of_ignored(ignored: &[String]) {
    let (protecting, other): (Vec<&String>, Vec<&String>) =
        ignored.iter().partition(|key| is_protecting(key));
    let listed = |keys: &[&String]| keys.iter().map(|key| key.as_str()).collect::<Vec<_>>().join(", ");
    if !other.is_empty() {
        tracing::warn!(
            "keys of the config files that mean nothing here: {}",
            listed(&other)
        );
    }
    if !protecting.is_empty() {
        tracing::warn!(
            "NOT PROTECTED: {} mean nothing here. What they keep out in Consul, they do not here: whoever reaches a port may \
             read and write, and servers do not encrypt what they say to each other",
            listed(&protecting)
        );
    }
}

fn is_protecting(key: &str) -> bool {
    let name = key.strip_prefix("http_config.").unwrap_or(key);
    PROTECTING.iter().any(|start| name.starts_with(start)) || name.contains("verify_")
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
    MARKS.iter().any(is_mark) || known::IGNORED.iter().any(|key| keys.contains_key(*key))
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
    // Consul's own is in small letters, whatever a file says.
    if let Some(Value::String(datacenter)) = keys.get_mut("datacenter") {
        datacenter.make_ascii_lowercase();
    }
    let mut useless = Useless::default();
    let flags = &mut translated.flags;
    flags.extend(take_text(keys, "data_dir")?.map(|folder| ("raft_dir", folder)));
    addresses::translate(keys, program, flags, &mut useless)?;
    translate_bootstrap(keys, flags)?;
    translate_join(keys, program, flags)?;
    translated.node_meta = translate_identity(keys, program, flags, &mut useless)?;
    translate_raft(keys, program, &mut useless);
    translated.autopilot = translate_autopilot(keys, program, &mut useless)?;
    translate_log(keys, flags)?;
    if let Some(scripts) = take_bool(keys, "enable_script_checks")? {
        flags.insert("enable_script_checks", scripts.to_string());
    }
    if program == Program::Agent {
        for key in ["leave_on_terminate", "skip_leave_on_interrupt"] {
            let value = take_bool(keys, key)?;
            flags.extend(value.map(|value| (key, value.to_string())));
        }
    }
    translate_limits(keys, program, flags, &mut useless)?;
    useless.take_ignored(keys);
    (translated.ignored, translated.unknown) = (useless.ignored, useless.unknown);
    Ok(translated)
}

/// What this node is called and what else is said of it, of which its meta is given back. A server among others has its id, or
/// else its name, with Raft and in the catalog only: what is registered at it belongs to the node that all of them share.
fn translate_identity(
    keys: &mut Map<String, Value>,
    program: Program,
    flags: &mut BTreeMap<&'static str, String>,
    useless: &mut Useless,
) -> Result<BTreeMap<String, String>, String> {
    let (name, id) = (take_text(keys, "node_name")?, take_text(keys, "node_id")?);
    let mut meta = BTreeMap::new();
    for (key, value) in take_section(keys, "node_meta")? {
        let Value::String(text) = value else {
            return Err(format!("node_meta.{key}: expected text, found {value}"));
        };
        meta.insert(key, text);
    }
    flags.extend(id.clone().or_else(|| name.clone()).map(|id| ("raft_id", id)));
    if program == Program::Server && names_others(flags) {
        if !meta.is_empty() {
            useless
                .ignored
                .push("node_meta of a server among others".to_owned());
        }
        return Ok(BTreeMap::new());
    }
    flags.extend(name.map(|name| ("node", name)));
    flags.extend(id.map(|id| ("node_id", id)));
    Ok(meta)
}

/// Whether a server's file tells of others. One that begins alone may name itself among those to join.
fn names_others(flags: &BTreeMap<&'static str, String>) -> bool {
    let begins_alone = flags
        .get("raft_bootstrap")
        .is_some_and(|bootstrap| bootstrap == "true");
    let to_join = flags.get("join").map_or(0, |join| join.split(',').count());
    flags.contains_key("bootstrap_expect") || to_join > usize::from(begins_alone)
}

/// The others that a server joins, or the servers of an agent.
fn translate_join(
    keys: &mut Map<String, Value>,
    program: Program,
    flags: &mut BTreeMap<&'static str, String>,
) -> Result<(), String> {
    // Where Consul's gossip is, servers answer servers and agents; an agent also looks where the API of one without that port is.
    let ports: &[u64] = match program {
        Program::Server => &[JOIN_PORT],
        Program::Agent => &[JOIN_PORT, HTTP_PORT],
    };
    let mut others = Vec::new();
    for key in ["retry_join", "start_join"] {
        let entries = match keys.remove(key) {
            None | Some(Value::Null) => continue,
            Some(Value::Array(entries)) => entries,
            Some(_) => return Err(format!("{key}: expected a list of addresses")),
        };
        for entry in entries {
            let Value::String(entry) = entry else {
                return Err(format!("{key}: expected a list of addresses"));
            };
            if entry.contains("provider=") {
                return Err(format!(
                    "{key}: {entry:?}: servers are not looked for at a provider: write their addresses"
                ));
            }
            match has_port(&entry) {
                true => others.push(entry),
                false => others.extend(ports.iter().map(|port| join(&entry, *port))),
            }
        }
    }
    let expected: Option<usize> = flags
        .get("bootstrap_expect")
        .and_then(|servers| servers.parse().ok());
    if let Some(expected) = expected
        && program == Program::Server
        && others.len() + 1 < expected
    {
        return Err(format!(
            "bootstrap_expect: {expected}: retry_join must name all of the others, as many as {}: nobody hears of servers \
             from others here",
            expected - 1
        ));
    }
    if !others.is_empty() {
        flags.insert("join", others.join(","));
    }
    Ok(())
}

/// Autopilot's settings, under the names that Consul's API has for them. Dead servers are removed only if the file says so: here
/// that is for good.
fn translate_autopilot(
    keys: &mut Map<String, Value>,
    program: Program,
    useless: &mut Useless,
) -> Result<Option<Value>, String> {
    if program == Program::Agent {
        useless
            .ignored
            .extend(keys.remove("autopilot").map(|_| "autopilot".to_owned()));
        return Ok(None);
    }
    let mut section = take_section(keys, "autopilot")?;
    if section.is_empty() {
        return Ok(None);
    }
    let mut settings = Map::new();
    for (of_file, of_api) in [
        ("cleanup_dead_servers", "CleanupDeadServers"),
        ("last_contact_threshold", "LastContactThreshold"),
        ("max_trailing_logs", "MaxTrailingLogs"),
        ("min_quorum", "MinQuorum"),
        ("server_stabilization_time", "ServerStabilizationTime"),
        ("redundancy_zone_tag", "RedundancyZoneTag"),
        ("disable_upgrade_migration", "DisableUpgradeMigration"),
        ("upgrade_version_tag", "UpgradeVersionTag"),
    ] {
        settings.extend(section.remove(of_file).map(|value| (of_api.to_owned(), value)));
    }
    useless.rest_of("autopilot", &section);
    Ok(Some(Value::Object(settings)))
}

fn translate_log(
    keys: &mut Map<String, Value>,
    flags: &mut BTreeMap<&'static str, String>,
) -> Result<(), String> {
    if take_bool(keys, "log_json")? == Some(true) {
        flags.insert("log_format", "json".to_owned());
    }
    if let Some(level) = take_text(keys, "log_level")? {
        let level = match level.to_ascii_lowercase().as_str() {
            "err" => "error".to_owned(),
            level => level.to_owned(),
        };
        flags.insert("log_level", level);
    }
    Ok(())
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

#[cfg(test)]
mod tests;
