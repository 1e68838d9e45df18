//! Where a setting comes from, and what its text means.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::json;
use sider_core::{
    agent::ConfigError,
    api::http::{
        body::Fields,
        duration,
        requests::{parse_autopilot_settings, parse_node_id, parse_own_meta},
    },
    limits,
    raft::{RaftConfig, ServerAddress, ServerId},
    registry::{NodeName, ServiceName},
    server::{ServerConfig, node_id},
};
use sider_runtime_tokio::{address, telemetry::LogFormat, tls::TlsFiles};

use crate::{
    config::{ConfigFile, Peer, Timing},
    flags::ServerFlags,
    server::authority,
};

/// How much longer the times of Raft can be, as in Consul.
const RAFT_MULTIPLIER_MAX: u32 = 10;

/// A value with the name of where it came from.
pub(super) struct Picked {
    pub(super) text: String,
    origin: String,
}

impl Picked {
    pub(super) fn check<T>(&self, check: impl FnOnce(&str) -> Result<T, String>) -> Result<T, String> {
        check(&self.text).map_err(|error| format!("{}: {error}", self.origin))
    }
}

pub(super) struct Sources<'a> {
    pub(super) file: &'a ConfigFile,
    pub(super) path: String,
}

impl<'a> Sources<'a> {
    /// The text of a flag, or of the file's key of this name.
    pub(super) fn text(&self, flag: &Option<String>, key: &str) -> Option<Picked> {
        if let Some(text) = flag {
            // clap does not tell which of the two it was.
            let origin = format!("-{} or its environment variable", key.replace('_', "-"));
            return Some(Picked {
                text: text.clone(),
                origin,
            });
        }
        let text = self.file.flags.get(key)?;
        Some(Picked {
            text: text.clone(),
            origin: format!("config file {}: {key}", self.path),
        })
    }

    pub(super) fn address(&self, flag: &Option<String>, key: &str, default: &str) -> Result<String, String> {
        match self.text(flag, key) {
            Some(address) => address.check(|text| address::split(text).map(|_| text.to_owned())),
            None => Ok(default.to_owned()),
        }
    }

    /// Further addresses to listen at, which only Consul's files name.
    pub(super) fn more(&self, key: &str) -> Result<Vec<String>, String> {
        let Some(picked) = self.text(&None, key) else {
            return Ok(Vec::new());
        };
        picked.check(|text| text.split(',').map(parse_listener).collect())
    }

    /// Times of Raft: those of the file, or the defaults; all of them longer by the file's multiplier.
    pub(super) fn timing(&self) -> Result<Timing, String> {
        let timing = self.file.timing;
        check_timing(&timing)?;
        let Some(multiplier) = self.text(&None, "raft_multiplier") else {
            return Ok(timing);
        };
        let times = multiplier.check(|text| match text.parse() {
            Ok(times @ 1..=RAFT_MULTIPLIER_MAX) => Ok(times),
            _ => Err(format!("{text:?}: expected 1 to {RAFT_MULTIPLIER_MAX}")),
        })?;
        let defaults = RaftConfig::new(ServerId::default(), ServerAddress::default());
        let longer = |given: Option<Duration>, default: Duration| Some(given.unwrap_or(default) * times);
        Ok(Timing {
            heartbeat: longer(timing.heartbeat, defaults.heartbeat),
            election_min: longer(timing.election_min, defaults.election_min),
            election_max: longer(timing.election_max, defaults.election_max),
            ..timing
        })
    }

    /// A number of bytes of a request's body.
    fn body_bytes(&self, key: &str, default: usize) -> Result<usize, String> {
        match self.text(&None, key) {
            None => Ok(default),
            Some(picked) => picked.check(|text| match text.parse() {
                Ok(bytes @ 1..=limits::BODY_BYTES_MAX) => Ok(bytes),
                _ => Err(format!("{text}: expected 1 to {} bytes", limits::BODY_BYTES_MAX)),
            }),
        }
    }

    /// Where to serve HTTPS, and with which files.
    pub(super) fn https(&self, flags: &ServerFlags) -> Result<Option<(String, TlsFiles)>, String> {
        let Some(picked) = self.text(&flags.https, "https") else {
            return Ok(None);
        };
        let address = picked.check(|text| address::split(text).map(|_| text.to_owned()))?;
        let file =
            |flag: &Option<String>, key: &str| self.text(flag, key).map(|path| PathBuf::from(path.text));
        let needed = |flag: &Option<String>, key: &str| {
            let missing = || format!("{}: it needs -{} too", picked.origin, key.replace('_', "-"));
            file(flag, key).ok_or_else(missing)
        };
        let files = TlsFiles {
            certificate: needed(&flags.tls_cert, "tls_cert")?,
            key: needed(&flags.tls_key, "tls_key")?,
            authority: file(&flags.tls_ca, "tls_ca"),
            verify: self.bool(flags.tls_verify, "tls_verify")?.unwrap_or(false),
        };
        match files.verify && files.authority.is_none() {
            true => Err(format!(
                "{}: clients can't be verified without -tls-ca",
                picked.origin
            )),
            false => Ok(Some((address, files))),
        }
    }

    pub(super) fn bool(&self, flag: Option<bool>, key: &str) -> Result<Option<bool>, String> {
        match self.text(&flag.map(|flag| flag.to_string()), key) {
            Some(picked) => picked.check(parse_bool).map(Some),
            None => Ok(None),
        }
    }

    pub(super) fn join(&self, flag: &[String]) -> Result<Vec<String>, String> {
        let flag = (!flag.is_empty()).then(|| flag.join(","));
        let Some(picked) = self.text(&flag, "join") else {
            return Ok(Vec::new());
        };
        let addresses = picked
            .text
            .split(',')
            .map(str::trim)
            .filter(|address| !address.is_empty());
        addresses
            .map(|address| {
                // Written by habit, and clear enough.
                let address = address
                    .strip_prefix("http://")
                    .unwrap_or(address)
                    .trim_end_matches('/');
                let (host, port) =
                    address::split(address).map_err(|error| format!("{}: {error}", picked.origin))?;
                Ok(if host.is_empty() {
                    format!("127.0.0.1:{port}")
                } else {
                    address.to_owned()
                })
            })
            .collect()
    }

    /// This server's entry in the list. A server that is not in it may still run if it says where.
    pub(super) fn own_entry(&self, id: &ServerId, has_bind: bool) -> Result<Option<&'a Peer>, String> {
        let own = self.file.peers.get(id.0.as_str());
        if own.is_none() && !self.file.peers.is_empty() && !has_bind {
            let ids = self.file.peers.keys().cloned().collect::<Vec<_>>().join(", ");
            return Err(format!(
                "config file {}: its list of servers has no {id}: -raft-id must be one of {ids}",
                self.path
            ));
        }
        Ok(own)
    }

    pub(super) fn server_config(&self, flags: &ServerFlags) -> Result<ServerConfig, String> {
        let service = match self.text(&None, "servers_service") {
            Some(name) => name.check(|text| ServiceName::parse(text).map_err(|error| error.to_string()))?,
            None => ServiceName::parse("consul").expect("a constant that is a name"),
        };
        let mut config = ServerConfig {
            servers_service: Some(service),
            make_authority: Some(authority::make),
            ..ServerConfig::default()
        };
        if let Some(node) = self.text(&flags.node, "node") {
            config.agent_node =
                node.check(|text| NodeName::parse(text).map_err(|error| error.to_string()))?;
            config.agent_node_id = node_id(config.agent_node.as_str());
        }
        let own = json!({ "node_id": self.file.flags.get("node_id"), "node_meta": self.file.node_meta });
        let named = |error| format!("config file {}: {}", self.path, ConfigError::from(error));
        let fields = Fields::of(&own).map_err(named)?;
        if let Some(id) = parse_node_id(&fields, "node_id").map_err(named)? {
            config.agent_node_id = id;
        }
        config.agent_node_meta = parse_own_meta(&fields).map_err(named)?.unwrap_or_default();
        if let Some(autopilot) = &self.file.autopilot {
            let settings = parse_autopilot_settings(autopilot);
            config.autopilot = Some(settings.map_err(|error| {
                format!(
                    "config file {}: autopilot: {}",
                    self.path,
                    ConfigError::from(error)
                )
            })?);
        }
        if self.bool(None, "register_servers")? == Some(false) {
            config.servers_service = None;
        }
        config.script_checks = self.bool(None, "enable_script_checks")?.unwrap_or(false);
        config.value_bytes_max = self.body_bytes("kv_max_value_size", config.value_bytes_max)?;
        config.transaction_bytes_max = self.body_bytes("txn_max_req_len", config.transaction_bytes_max)?;
        if let Some(ttl) = self.text(&None, "session_ttl_min") {
            config.session_ttl_min = ttl.check(|text| parse_ttl(text, limits::SESSION_TTL_MAX))?;
        }
        if let Some(datacenter) = self.text(&flags.datacenter, "datacenter") {
            config.datacenter = datacenter.check(parse_datacenter)?;
        }
        Ok(config)
    }

    /// The APIs that are not built in yet and were not switched off.
    pub(super) fn missing_apis(&self, flags: &ServerFlags) -> Result<Vec<&'static str>, String> {
        let mut missing = Vec::new();
        for (flag, key, api) in [
            (&flags.grpc, "grpc", "the etcd v3 API"),
            (&flags.dns, "dns", "DNS"),
        ] {
            match self.text(flag, key) {
                None => missing.push(api),
                Some(picked) if picked.text == "off" => {}
                Some(picked) => {
                    return picked.check(|text| {
                        Err(format!(
                            "{text:?}: {api} is not built in yet, so only \"off\" is accepted"
                        ))
                    });
                }
            }
        }
        Ok(missing)
    }
}

/// An id is also the name of a folder and a part of URLs and log lines.
pub(super) fn parse_id(text: &str) -> Result<ServerId, String> {
    let plain = |character: char| character.is_ascii_alphanumeric() || "-_.".contains(character);
    if text.is_empty()
        || text.len() > limits::NAME_BYTES_MAX
        || !text.chars().all(plain)
        || text.starts_with('.')
    {
        return Err(format!(
            "{text:?} is not an id: expected up to {} letters, digits, -, _ and .",
            limits::NAME_BYTES_MAX
        ));
    }
    Ok(ServerId(text.into()))
}

/// A TTL of at most so long.
///
/// # Errors
/// It is no time, or too short or too long.
pub(crate) fn parse_ttl(text: &str, most: Duration) -> Result<Duration, String> {
    let nanos = duration::parse(text).and_then(|nanos| u64::try_from(nanos).ok());
    let ttl = nanos.map(Duration::from_nanos);
    ttl.filter(|ttl| (limits::TTL_MIN..=most).contains(ttl))
        .ok_or_else(|| format!("{text:?}: expected a time from {:?} to {most:?}", limits::TTL_MIN))
}

/// A datacenter's name.
///
/// # Errors
/// It is none.
pub(crate) fn parse_datacenter(text: &str) -> Result<String, String> {
    parse_id(text)
        .map(|_| text.to_owned())
        .map_err(|error| error.replace("an id", "a datacenter's name"))
}

pub(super) fn parse_folder(text: &str) -> Result<PathBuf, String> {
    match text.is_empty() {
        true => Err("expected a folder, found no name".to_owned()),
        false => Ok(text.into()),
    }
}

pub(super) fn reachable(text: &str) -> Result<String, String> {
    let (host, port) = address::split(text)?;
    if host.is_empty() || port == 0 {
        return Err(format!("{text:?} can't be reached by others: expected host:port"));
    }
    Ok(text.to_owned())
}

/// Where to listen: an address, or `unix://` and an absolute path.
pub(super) fn parse_listener(text: &str) -> Result<String, String> {
    match text.strip_prefix("unix://") {
        Some(path) if Path::new(path).is_absolute() => Ok(text.to_owned()),
        Some(_) => Err(format!(
            "{text:?} is no socket: expected unix:// and an absolute path"
        )),
        None => address::split(text).map(|_| text.to_owned()),
    }
}

fn parse_bool(text: &str) -> Result<bool, String> {
    match text {
        "true" | "yes" | "on" | "1" => Ok(true),
        "false" | "no" | "off" | "0" => Ok(false),
        _ => Err(format!("{text:?} is neither true nor false")),
    }
}

pub(super) fn parse_count(text: &str) -> Result<usize, String> {
    text.parse()
        .map_err(|_| format!("{text:?} is not a number of servers"))
}

pub(super) fn parse_log_format(text: &str) -> Result<LogFormat, String> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err(format!("{text:?} is not a log format: expected text or json")),
    }
}

/// Refuses times with which no leader could hold its place.
pub(super) fn check_timing(timing: &Timing) -> Result<(), String> {
    let defaults = RaftConfig::new(ServerId::default(), ServerAddress::default());
    let heartbeat = timing.heartbeat.unwrap_or(defaults.heartbeat);
    let min = timing.election_min.unwrap_or(defaults.election_min);
    let max = timing.election_max.unwrap_or(defaults.election_max);
    let shortest = Duration::from_millis(1);
    if heartbeat < shortest {
        return Err(format!(
            "heartbeat_interval: {heartbeat:?} is shorter than {shortest:?}"
        ));
    }
    if min < heartbeat * 2 {
        return Err(format!(
            "election_timeout_min: {min:?} is less than two heartbeats of {heartbeat:?}: one lost message would \
             start an election"
        ));
    }
    if max <= min {
        return Err(format!(
            "election_timeout_max: {max:?} is not above election_timeout_min of {min:?}"
        ));
    }
    Ok(())
}
