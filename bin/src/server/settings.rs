//! What flags, environment, config file and defaults come to, in this order.

mod sources;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use sider_core::{
    raft::{RaftConfig, ServerAddress, ServerId},
    server::ServerConfig,
};
use sider_runtime_tokio::{telemetry::LogFormat, tls::TlsFiles};

use self::sources::{
    Sources, parse_count, parse_folder, parse_id, parse_listener, parse_log_format, reachable,
};
pub(crate) use self::sources::{parse_datacenter, parse_ttl};
use super::reload;
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
        let https = sources.https(&flags)?;
        // This server's entry in the list is about this server alone, so it goes before the keys for all of them.
        let http = match (&flags.http, own.and_then(|own| own.http.clone())) {
            (None, Some(http)) => http,
            _ => match sources.text(&flags.http, "http") {
                None => "127.0.0.1:8500".to_owned(),
                Some(http) if http.text == OFF && https.is_some() => http.text,
                Some(http) => http.check(parse_listener)?,
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
            https,
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
