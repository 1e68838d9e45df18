//! What flags, environment, config file and defaults come to, in this order.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::json;
use sider_core::{
    agent::ConfigError,
    api::http::{
        body::Fields,
        duration,
        requests::{parse_node_id, parse_own_meta},
    },
    limits,
    raft::{RaftConfig, ServerAddress, ServerId},
    registry::{NodeName, ServiceName},
    server::{ServerConfig, node_id},
};
use sider_runtime_tokio::{address, telemetry::LogFormat, tls::TlsFiles};

use super::{authority, reload};
use crate::{
    config::{ConfigFile, Peer, Timing},
    config_files::read_merged,
    flags::{ServerFlags, host_name},
};

/// How a server is to run.
#[derive(Clone, Debug)]
pub struct Settings {
    /// This server.
    pub id: ServerId,
    /// Where to listen for HTTP: an address, or `unix://` and a path, or `off`.
    pub http: String,
    /// Where to listen for HTTP besides.
    pub http_more: Vec<String>,
    /// Where to listen for HTTPS, with which files.
    pub https: Option<(String, TlsFiles)>,
    /// Where to listen for HTTPS besides.
    pub https_more: Vec<String>,
    /// Where to listen for servers that join by the address of Consul's gossip.
    pub join_bind: Option<String>,
    /// Config files and folders of them.
    pub config_paths: Vec<PathBuf>,
    /// Where to listen for peers.
    pub raft: String,
    /// Where others reach the HTTP API, if that is not where it listens.
    pub http_advertise: Option<String>,
    /// Where peers reach this server, if that is not where it listens.
    pub raft_advertise: Option<String>,
    /// Where the data is; `None` keeps it in memory.
    pub data: Option<PathBuf>,
    /// How an empty disk begins.
    pub start: Start,
    /// All servers of the config file.
    pub peers: BTreeMap<ServerId, ServerAddress>,
    /// HTTP addresses of servers to join through.
    pub join: Vec<String>,
    /// Times of Raft.
    pub timing: Timing,
    /// Beyond Raft.
    pub server: ServerConfig,
    /// What is logged.
    pub log_level: String,
    /// How it is logged.
    pub log_format: LogFormat,
    /// Keys of Consul's in the config file that mean nothing here.
    pub ignored: Vec<String>,
    /// APIs that would be served if they were built in.
    pub missing: Vec<&'static str>,
}

/// How a server with an empty disk begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// It waits to be added.
    Wait,
    /// It starts a cluster, as it was told to.
    Bootstrap,
    /// It starts a cluster with others, so many servers in all, once all of them are there.
    Expect(usize),
    /// It starts a cluster of its own because nothing says otherwise, and gives it up when another one adds it.
    Implicit,
}

/// Where nothing is listened at.
pub(super) const OFF: &str = "off";
/// How much longer the times of Raft can be, as in Consul.
const RAFT_MULTIPLIER_MAX: u32 = 10;

impl Settings {
    /// Puts everything together; reads the config files that are named.
    ///
    /// # Errors
    /// One line that names the flag or key.
    pub fn new(flags: ServerFlags) -> Result<Settings, String> {
        let merged = read_merged(&flags.config)?;
        let settings = Settings::merge(flags, ConfigFile::of(&merged)?)?;
        reload::validate(&merged, &settings.server)?;
        Ok(settings)
    }

    fn merge(flags: ServerFlags, file: ConfigFile) -> Result<Settings, String> {
        let paths: Vec<_> = flags
            .config
            .iter()
            .map(|path| path.display().to_string())
            .collect();
        let sources = Sources {
            file: &file,
            path: paths.join(", "),
        };
        let id = match sources.text(&flags.raft_id, "raft_id") {
            Some(id) => id.check(parse_id)?,
            None => parse_id(&host_name()).unwrap_or_else(|_| ServerId("localhost".into())),
        };
        let raft_flag = sources.text(&flags.raft_bind, "raft_bind");
        let own = sources.own_entry(&id, raft_flag.is_some())?;
        // This server's entry in the list is about this server alone, so it goes before the keys for all of them.
        let http = match (&flags.http, own.and_then(|own| own.http.clone())) {
            (None, Some(http)) => http,
            _ => match sources.text(&flags.http, "http") {
                Some(socket) if socket.text.starts_with("unix://") => socket.check(socket_path)?,
                Some(off) if off.text == OFF && file.flags.contains_key("https") => OFF.to_owned(),
                _ => sources.address(&flags.http, "http", "127.0.0.1:8500")?,
            },
        };
        let raft = match (&flags.raft_bind, own) {
            (None, Some(own)) => own.raft.clone(),
            _ => sources.address(&flags.raft_bind, "raft_bind", "127.0.0.1:8501")?,
        };
        let raft_advertise = match sources.text(&flags.raft_advertise, "raft_advertise") {
            Some(advertise) => Some(advertise.check(reachable)?),
            None => own.map(|own| own.raft.clone()),
        };
        let dev = sources.bool(flags.dev, "dev")?.unwrap_or(false);
        let data = match (&flags.raft_dir, sources.text(&None, "raft_dir")) {
            (Some(folder), _) => folder.clone(),
            (None, Some(folder)) => folder.check(parse_folder)?,
            (None, None) => Path::new("data").join(id.0.as_str()),
        };
        let join = sources.join(&flags.join)?;
        let expected = match sources.text(&None, "bootstrap_expect") {
            Some(expected) => Some(expected.check(parse_count)?),
            None => None,
        };
        let bootstrap = sources.bool(flags.raft_bootstrap, "raft_bootstrap")?;
        let start = match (bootstrap, expected) {
            (Some(true), _) => Start::Bootstrap,
            (Some(false), _) => Start::Wait,
            (None, Some(servers)) => Start::Expect(servers),
            (None, None) if join.is_empty() && file.peers.is_empty() => Start::Implicit,
            (None, None) => Start::Wait,
        };
        let log_format = match sources.text(&flags.log_format, "log_format") {
            Some(format) => format.check(parse_log_format)?,
            None => LogFormat::Text,
        };
        let log_level = sources.text(&flags.log_level, "log_level");
        Ok(Settings {
            http,
            http_more: sources.more("http_more")?,
            https: sources.https(&flags)?,
            https_more: sources.more("https_more")?,
            join_bind: file.flags.get("join_bind").cloned(),
            config_paths: flags.config.clone(),
            http_advertise: own.and_then(|own| own.http.clone()),
            raft,
            raft_advertise,
            data: (!dev).then_some(data),
            start,
            peers: file
                .peers
                .iter()
                .map(|(id, peer)| (ServerId(id.into()), member(peer)))
                .collect(),
            join,
            timing: sources.timing()?,
            server: sources.server_config(&flags)?,
            log_level: log_level.map_or_else(|| "info".to_owned(), |level| level.text),
            log_format,
            missing: sources.missing_apis(&flags)?,
            ignored: file.ignored.clone(),
            id,
        })
    }

    /// The settings of the Raft member that is reached at `address`.
    pub fn raft_config(&self, address: ServerAddress) -> RaftConfig {
        let defaults = RaftConfig::new(self.id.clone(), address);
        let timing = &self.timing;
        RaftConfig {
            heartbeat: timing.heartbeat.unwrap_or(defaults.heartbeat),
            election_min: timing.election_min.unwrap_or(defaults.election_min),
            election_max: timing.election_max.unwrap_or(defaults.election_max),
            snapshot_interval: timing.snapshot_interval.unwrap_or(defaults.snapshot_interval),
            snapshot_threshold: timing.snapshot_threshold.unwrap_or(defaults.snapshot_threshold),
            log_keep: timing.log_keep.unwrap_or(defaults.log_keep),
            ..defaults
        }
    }

    /// The members of a new cluster that this server starts, reached at `address` itself.
    pub fn members(&self, address: ServerAddress) -> BTreeMap<ServerId, ServerAddress> {
        let mut members = self.peers.clone();
        members.insert(self.id.clone(), address);
        members
    }
}

fn member(peer: &Peer) -> ServerAddress {
    ServerAddress {
        raft: peer.raft.as_str().into(),
        http: peer.http.as_deref().unwrap_or_default().into(),
    }
}

/// A value with the name of where it came from.
struct Picked {
    text: String,
    origin: String,
}

impl Picked {
    fn check<T>(&self, check: impl FnOnce(&str) -> Result<T, String>) -> Result<T, String> {
        check(&self.text).map_err(|error| format!("{}: {error}", self.origin))
    }
}

struct Sources<'a> {
    file: &'a ConfigFile,
    path: String,
}

impl<'a> Sources<'a> {
    /// The text of a flag, or of the file's key of this name.
    fn text(&self, flag: &Option<String>, key: &str) -> Option<Picked> {
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

    fn address(&self, flag: &Option<String>, key: &str, default: &str) -> Result<String, String> {
        match self.text(flag, key) {
            Some(address) => address.check(|text| address::split(text).map(|_| text.to_owned())),
            None => Ok(default.to_owned()),
        }
    }

    /// Further addresses to listen at, which only Consul's files name.
    fn more(&self, key: &str) -> Result<Vec<String>, String> {
        let Some(picked) = self.text(&None, key) else {
            return Ok(Vec::new());
        };
        let check = |address: &str| match address.starts_with("unix://") {
            true => socket_path(address),
            false => address::split(address).map(|_| address.to_owned()),
        };
        picked.check(|text| text.split(',').map(check).collect())
    }

    /// Times of Raft: those of the file, or the defaults; all of them longer by the file's multiplier.
    fn timing(&self) -> Result<Timing, String> {
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
    fn https(&self, flags: &ServerFlags) -> Result<Option<(String, TlsFiles)>, String> {
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

    fn bool(&self, flag: Option<bool>, key: &str) -> Result<Option<bool>, String> {
        match self.text(&flag.map(|flag| flag.to_string()), key) {
            Some(picked) => picked.check(parse_bool).map(Some),
            None => Ok(None),
        }
    }

    fn join(&self, flag: &[String]) -> Result<Vec<String>, String> {
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
    fn own_entry(&self, id: &ServerId, has_bind: bool) -> Result<Option<&'a Peer>, String> {
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

    fn server_config(&self, flags: &ServerFlags) -> Result<ServerConfig, String> {
        let mut config = ServerConfig {
            servers_service: Some(ServiceName::parse("consul").expect("a constant that is a name")),
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
        if self.bool(None, "register_servers")? == Some(false) {
            config.servers_service = None;
        }
        config.script_checks = self.bool(None, "enable_script_checks")?.unwrap_or(false);
        config.value_bytes_max = self.body_bytes("kv_max_value_size", config.value_bytes_max)?;
        config.transaction_bytes_max = self.body_bytes("txn_max_req_len", config.transaction_bytes_max)?;
        if let Some(ttl) = self.text(&None, "session_ttl_min") {
            config.session_ttl_min = ttl.check(parse_ttl)?;
        }
        if let Some(datacenter) = self.text(&flags.datacenter, "datacenter") {
            config.datacenter = datacenter.check(parse_datacenter)?;
        }
        Ok(config)
    }

    /// The APIs that are not built in yet and were not switched off.
    fn missing_apis(&self, flags: &ServerFlags) -> Result<Vec<&'static str>, String> {
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
fn parse_id(text: &str) -> Result<ServerId, String> {
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

fn parse_ttl(text: &str) -> Result<Duration, String> {
    let nanos = duration::parse(text).and_then(|nanos| u64::try_from(nanos).ok());
    let ttl = nanos.map(Duration::from_nanos);
    ttl.filter(|ttl| (limits::TTL_MIN..=limits::SESSION_TTL_MAX).contains(ttl))
        .ok_or_else(|| {
            format!(
                "{text:?}: expected a time from {:?} to {:?}",
                limits::TTL_MIN,
                limits::SESSION_TTL_MAX
            )
        })
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

fn parse_folder(text: &str) -> Result<PathBuf, String> {
    match text.is_empty() {
        true => Err("expected a folder, found no name".to_owned()),
        false => Ok(text.into()),
    }
}

fn reachable(text: &str) -> Result<String, String> {
    let (host, port) = address::split(text)?;
    if host.is_empty() || port == 0 {
        return Err(format!("{text:?} can't be reached by others: expected host:port"));
    }
    Ok(text.to_owned())
}

/// `unix://` and an absolute path.
fn socket_path(text: &str) -> Result<String, String> {
    match text.strip_prefix("unix://") {
        Some(path) if Path::new(path).is_absolute() => Ok(text.to_owned()),
        _ => Err(format!(
            "{text:?} is no socket: expected unix:// and an absolute path"
        )),
    }
}

fn parse_bool(text: &str) -> Result<bool, String> {
    match text {
        "true" | "yes" | "on" | "1" => Ok(true),
        "false" | "no" | "off" | "0" => Ok(false),
        _ => Err(format!("{text:?} is neither true nor false")),
    }
}

fn parse_count(text: &str) -> Result<usize, String> {
    text.parse()
        .map_err(|_| format!("{text:?} is not a number of servers"))
}

fn parse_log_format(text: &str) -> Result<LogFormat, String> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err(format!("{text:?} is not a log format: expected text or json")),
    }
}

/// Refuses times with which no leader could hold its place.
fn check_timing(timing: &Timing) -> Result<(), String> {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn peers(ids: &[&str]) -> ConfigFile {
        let peer = |(n, id): (usize, &&str)| {
            let peer = Peer {
                raft: format!("10.0.0.{n}:8501"),
                http: Some(format!("10.0.0.{n}:8500")),
            };
            ((*id).to_owned(), peer)
        };
        ConfigFile {
            peers: ids.iter().enumerate().map(peer).collect(),
            ..ConfigFile::default()
        }
    }

    fn with(keys: &[(&'static str, &str)]) -> ConfigFile {
        ConfigFile {
            flags: keys
                .iter()
                .map(|(key, value)| (*key, (*value).to_owned()))
                .collect(),
            ..ConfigFile::default()
        }
    }

    fn id(id: &str) -> ServerFlags {
        ServerFlags {
            raft_id: Some(id.to_owned()),
            ..ServerFlags::default()
        }
    }

    #[test]
    fn the_defaults_make_a_server_of_its_own() {
        let settings = Settings::merge(ServerFlags::default(), ConfigFile::default()).unwrap();
        assert_eq!(
            (&*settings.http, &*settings.raft),
            ("127.0.0.1:8500", "127.0.0.1:8501")
        );
        assert_eq!(
            settings.data,
            Some(Path::new("data").join(settings.id.0.as_str()))
        );
        assert_eq!(settings.start, Start::Implicit);
        assert_eq!(settings.missing, ["the etcd v3 API", "DNS"]);
        assert_eq!(settings.members(ServerAddress::default()).len(), 1);
    }

    #[test]
    fn a_flag_goes_before_the_file_and_the_file_before_the_default() {
        let file = with(&[
            ("http", ":1"),
            ("raft_dir", "x"),
            ("datacenter", "east"),
            ("dev", "true"),
        ]);
        let mut flags = id("a");
        let settings = Settings::merge(flags.clone(), file.clone()).unwrap();
        assert_eq!((&*settings.http, &*settings.server.datacenter), (":1", "east"));
        assert_eq!(settings.data, None);
        flags.http = Some(":2".into());
        flags.dev = Some(false);
        flags.raft_dir = Some("y".into());
        let settings = Settings::merge(flags, file).unwrap();
        assert_eq!(settings.http, ":2");
        assert_eq!(settings.data, Some("y".into()));
    }

    #[test]
    fn one_file_serves_all_servers() {
        let settings = Settings::merge(id("b"), peers(&["a", "b"])).unwrap();
        assert_eq!(
            (&*settings.http, &*settings.raft),
            ("10.0.0.1:8500", "10.0.0.1:8501")
        );
        assert_eq!(settings.raft_advertise.as_deref(), Some("10.0.0.1:8501"));
        assert_eq!(settings.start, Start::Wait);
        let own = ServerAddress {
            raft: "z:1".into(),
            http: "".into(),
        };
        let members = settings.members(own.clone());
        assert_eq!(members[&ServerId("a".into())].raft, "10.0.0.0:8501");
        assert_eq!(members[&ServerId("b".into())], own);

        let mut flags = id("b");
        flags.raft_bind = Some(":7".into());
        flags.http = Some(":8".into());
        flags.raft_bootstrap = Some(true);
        let settings = Settings::merge(flags, peers(&["a", "b"])).unwrap();
        assert_eq!((&*settings.http, &*settings.raft), (":8", ":7"));
        assert_eq!(settings.raft_advertise.as_deref(), Some("10.0.0.1:8501"));
        assert_eq!(settings.start, Start::Bootstrap);
    }

    #[test]
    fn a_server_that_is_not_in_the_list_must_say_where_it_is() {
        let error = Settings::merge(id("c"), peers(&["a", "b"])).unwrap_err();
        assert!(
            error.contains("has no c: -raft-id must be one of a, b"),
            "{error}"
        );
        let mut flags = id("c");
        flags.raft_bind = Some(":7".into());
        let settings = Settings::merge(flags, peers(&["a", "b"])).unwrap();
        assert_eq!((settings.start, settings.raft_advertise), (Start::Wait, None));
    }

    #[test]
    fn whether_to_bootstrap() {
        let start = |bootstrap, join: &[&str], file| {
            let flags = ServerFlags {
                raft_bootstrap: bootstrap,
                join: join.iter().map(|address| (*address).to_owned()).collect(),
                ..id("a")
            };
            Settings::merge(flags, file).unwrap().start
        };
        assert_eq!(start(None, &[], ConfigFile::default()), Start::Implicit);
        assert_eq!(start(None, &["b:1"], ConfigFile::default()), Start::Wait);
        assert_eq!(start(None, &[], peers(&["a"])), Start::Wait);
        assert_eq!(start(Some(false), &[], ConfigFile::default()), Start::Wait);
        assert_eq!(start(Some(true), &["b:1"], peers(&["a"])), Start::Bootstrap);
        assert_eq!(
            start(None, &[], with(&[("raft_bootstrap", "true")])),
            Start::Bootstrap
        );
        assert_eq!(start(None, &[], with(&[("join", "b:1")])), Start::Wait);
    }

    #[test]
    fn addresses_to_join_through_are_understood_as_people_write_them() {
        let mut flags = id("a");
        flags.join = vec![
            "http://b:8500/".into(),
            " :9500".into(),
            String::new(),
            "c:1".into(),
        ];
        let settings = Settings::merge(flags, ConfigFile::default()).unwrap();
        assert_eq!(settings.join, ["b:8500", "127.0.0.1:9500", "c:1"]);
    }

    #[test]
    fn apis_that_are_not_built_in_can_only_be_off() {
        let mut flags = id("a");
        flags.grpc = Some("off".into());
        let file = with(&[("dns", "off")]);
        assert_eq!(
            Settings::merge(flags.clone(), file).unwrap().missing,
            Vec::<&str>::new()
        );
        flags.grpc = Some(":2379".into());
        let error = Settings::merge(flags, ConfigFile::default()).unwrap_err();
        assert!(
            error.contains("-grpc") && error.contains("not built in yet"),
            "{error}"
        );
    }

    #[test]
    fn errors_name_the_flag_or_the_key() {
        let merge = |change: fn(&mut ServerFlags), file| {
            let mut flags = id("a");
            change(&mut flags);
            Settings::merge(flags, file).unwrap_err()
        };
        let none = ConfigFile::default;
        for (error, named) in [
            (
                merge(|flags| flags.raft_id = Some("a/b".into()), none()),
                "-raft-id",
            ),
            (
                merge(|flags| flags.raft_id = Some("..".into()), none()),
                "-raft-id",
            ),
            (merge(|flags| flags.http = Some("8500".into()), none()), "-http"),
            (
                merge(|flags| flags.raft_bind = Some("a:b:c".into()), none()),
                "-raft-bind",
            ),
            (
                merge(|flags| flags.raft_advertise = Some(":1".into()), none()),
                "-raft-advertise",
            ),
            (merge(|flags| flags.join = vec!["b".into()], none()), "-join"),
            (merge(|flags| flags.node = Some(String::new()), none()), "-node"),
            (
                merge(|flags| flags.datacenter = Some("a b".into()), none()),
                "-datacenter",
            ),
            (
                merge(|flags| flags.log_format = Some("xml".into()), none()),
                "-log-format",
            ),
            (merge(|_| {}, with(&[("http", "x")])), "config file : http"),
            (merge(|_| {}, with(&[("dev", "maybe")])), "dev"),
            (
                merge(|_| {}, with(&[("raft_dir", "")])),
                "raft_dir: expected a folder",
            ),
            (
                merge(|_| {}, with(&[("node_id", "7")])),
                "node_id: expected a UUID",
            ),
            (
                merge(
                    |_| {},
                    ConfigFile {
                        node_meta: (0..65).map(|n| (n.to_string(), String::new())).collect(),
                        ..ConfigFile::default()
                    },
                ),
                "cannot contain more than 64 key/value pairs",
            ),
        ] {
            assert!(error.contains(named), "{named}: {error}");
            assert_eq!(error.lines().count(), 1, "{error}");
        }
    }

    #[test]
    fn limits_of_consuls_files_are_heeded() {
        let file = with(&[
            ("kv_max_value_size", "1048576"),
            ("txn_max_req_len", "2048"),
            ("session_ttl_min", "5s"),
            ("raft_multiplier", "3"),
        ]);
        let settings = Settings::merge(id("a"), file).unwrap();
        let server = &settings.server;
        assert_eq!(
            (server.value_bytes_max, server.transaction_bytes_max),
            (1 << 20, 2048)
        );
        assert_eq!(server.session_ttl_min, Duration::from_secs(5));
        let defaults = RaftConfig::new(ServerId::default(), ServerAddress::default());
        let raft = settings.raft_config(ServerAddress::default());
        assert_eq!(
            (raft.heartbeat, raft.election_min, raft.election_max),
            (
                defaults.heartbeat * 3,
                defaults.election_min * 3,
                defaults.election_max * 3
            )
        );
        for (key, value) in [
            ("kv_max_value_size", "99999999"),
            ("raft_multiplier", "11"),
            ("session_ttl_min", "soon"),
        ] {
            let error = Settings::merge(id("a"), with(&[(key, value)])).unwrap_err();
            assert!(error.contains(key), "{error}");
        }
    }

    #[test]
    fn times_that_contradict_each_other_are_refused() {
        let timing = |heartbeat, min, max| {
            let ms = |ms: Option<u64>| ms.map(Duration::from_millis);
            check_timing(&Timing {
                heartbeat: ms(heartbeat),
                election_min: ms(min),
                election_max: ms(max),
                ..Timing::default()
            })
        };
        timing(None, None, None).unwrap();
        timing(Some(100), Some(200), Some(201)).unwrap();
        assert!(
            timing(Some(100), None, None)
                .unwrap_err()
                .starts_with("election_timeout_min")
        );
        assert!(
            timing(None, Some(300), None)
                .unwrap_err()
                .starts_with("election_timeout_max")
        );
        assert!(
            timing(None, None, Some(100))
                .unwrap_err()
                .starts_with("election_timeout_max")
        );
    }
}
