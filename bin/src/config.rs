//! The config file of `sds-server`, and the settings that flags, environment, file and defaults come to.
//!
//! The file is read by hand and not by serde's derive, so that an error names the key: `peers[1].raft_addr: …`.

use std::{collections::BTreeMap, path::Path, time::Duration};

use serde_json::{Map, Value};
use sider_core::limits::RAFT_TIME_MAX;

use crate::{
    config_files::{Merged, read_merged},
    config_text::in_file,
    consul_config,
};

/// What the config file says. Nothing in it is required.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfigFile {
    /// All servers of the cluster, by id.
    pub peers: BTreeMap<String, Peer>,
    /// Times of Raft.
    pub timing: Timing,
    /// Values of flags, by the flag's name with `_` for `-`.
    pub flags: BTreeMap<&'static str, String>,
    /// Meta of the node of registrations through `/v1/agent/*`.
    pub node_meta: BTreeMap<String, String>,
    /// Autopilot's settings as long as none are stored, as Consul's API has them.
    pub autopilot: Option<Value>,
    /// Keys of Consul's that mean nothing here.
    pub ignored: Vec<String>,
}

/// One server in the list of all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// `host:port` of its Raft transport.
    pub raft: String,
    /// `host:port` of its HTTP API.
    pub http: Option<String>,
}

/// Times of Raft, where the file gives them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timing {
    /// Between two heartbeats of a leader.
    pub heartbeat: Option<Duration>,
    /// Shortest time without a heartbeat before a campaign.
    pub election_min: Option<Duration>,
    /// Longest such time.
    pub election_max: Option<Duration>,
    /// Between two checkpoints.
    pub snapshot_interval: Option<Duration>,
    /// Entries between two checkpoints.
    pub snapshot_threshold: Option<u64>,
    /// Entries kept in the log below a checkpoint.
    pub log_keep: Option<u64>,
}

/// Flags that the file may set too.
const FLAGS: [&str; 21] = [
    "http",
    "https",
    "tls_cert",
    "tls_key",
    "tls_ca",
    "tls_verify",
    "raft_id",
    "raft_bind",
    "raft_advertise",
    "raft_dir",
    "raft_bootstrap",
    "join",
    "grpc",
    "dns",
    "dev",
    "log_level",
    "log_format",
    "datacenter",
    "node",
    "register_servers",
    "servers_service",
];

impl ConfigFile {
    /// Reads the file at `path`: JSON, HCL, YAML or TOML by its ending.
    ///
    /// # Errors
    /// One line that names the file, and the key that is wrong.
    pub fn read(path: &Path) -> Result<ConfigFile, String> {
        ConfigFile::of(&read_merged(&[path.to_owned()])?)
    }

    /// What several files say together.
    ///
    /// # Errors
    /// One line that names the files, and the key that is wrong.
    pub(crate) fn of(merged: &Merged) -> Result<ConfigFile, String> {
        ConfigFile::from_value(Value::Object(merged.keys.clone()))
            .map_err(|error| in_file(Path::new(&merged.names), &error))
    }

    fn from_value(value: Value) -> Result<ConfigFile, String> {
        let mut top = Section::new("", value)?;
        let translated = consul_config::translate(&mut top.keys, consul_config::Program::Server)?;
        top.unknown = translated.unknown;
        let mut file = ConfigFile {
            flags: translated.flags,
            node_meta: translated.node_meta,
            autopilot: translated.autopilot,
            ignored: translated.ignored,
            ..ConfigFile::default()
        };
        for flag in FLAGS {
            if let Some(value) = top.flag(flag)? {
                file.flags.insert(flag, value);
            }
        }
        let mut peers = top.list("peers")?.map(|list| (list, PeerForm::Addresses));
        file.timing = read_timing(&mut top)?;
        if let Some(mut raft) = top.section("raft")? {
            if let Some(list) = raft.list("peers")? {
                only_one(peers.is_none())?;
                peers = Some((list, PeerForm::Addresses));
            }
            file.timing = file
                .timing
                .or(read_timing(&mut raft)?)
                .or(read_timeouts(&mut raft)?);
            raft.finish()?;
        }
        if let Some(mut cluster) = top.section("cluster")? {
            if let Some(list) = cluster.list("nodes")? {
                only_one(peers.is_none())?;
                peers = Some((list, PeerForm::Ports));
            }
            cluster.finish()?;
        }
        top.finish()?;
        for entry in peers
            .into_iter()
            .flat_map(|(list, form)| list.into_iter().map(move |entry| (entry, form)))
        {
            let (entry, form) = entry;
            let path = entry.path.clone();
            let (id, peer) = read_peer(entry, form)?;
            if file.peers.insert(id.clone(), peer).is_some() {
                return Err(format!("{path}: the id {id:?} is there twice"));
            }
        }
        Ok(file)
    }
}

impl Timing {
    /// What this one leaves open is taken from `other`.
    fn or(self, other: Timing) -> Timing {
        Timing {
            heartbeat: self.heartbeat.or(other.heartbeat),
            election_min: self.election_min.or(other.election_min),
            election_max: self.election_max.or(other.election_max),
            snapshot_interval: self.snapshot_interval.or(other.snapshot_interval),
            snapshot_threshold: self.snapshot_threshold.or(other.snapshot_threshold),
            log_keep: self.log_keep.or(other.log_keep),
        }
    }
}

/// How the servers in a list are written.
#[derive(Clone, Copy, Debug)]
enum PeerForm {
    /// `id`, `raft_addr`, `http_addr`, `grpc_addr`.
    Addresses,
    /// `node_id`, `host`, `client_port`, `raft_port`.
    Ports,
}

fn only_one(is_first: bool) -> Result<(), String> {
    if is_first {
        return Ok(());
    }
    Err(
        "peers: the list of servers is there twice; expected one of peers, raft.peers and cluster.nodes"
            .into(),
    )
}

fn read_timing(section: &mut Section) -> Result<Timing, String> {
    Ok(Timing {
        heartbeat: section.duration("heartbeat_interval")?,
        election_min: section.duration("election_timeout_min")?,
        election_max: section.duration("election_timeout_max")?,
        snapshot_interval: section.duration("snapshot_interval")?,
        snapshot_threshold: section.number("snapshot_threshold")?,
        log_keep: section.number("snapshot_log_keep")?,
    })
}

/// The form that names two timeouts: without a leader's heartbeat for `heartbeat_timeout` something is wrong, and
/// within `election_timeout` to twice that a follower campaigns. Three heartbeats at least fit into that.
fn read_timeouts(section: &mut Section) -> Result<Timing, String> {
    let heartbeat = section.duration("heartbeat_timeout")?;
    let election = section.duration("election_timeout")?;
    Ok(Timing {
        heartbeat: match (heartbeat, election) {
            (Some(heartbeat), Some(election)) => Some(heartbeat.min(election / 3)),
            (heartbeat, election) => heartbeat.or(election.map(|election| election / 3)),
        },
        election_min: election,
        election_max: election.map(|election| (election * 2).min(RAFT_TIME_MAX)),
        ..Timing::default()
    })
}

fn read_peer(mut entry: Section, form: PeerForm) -> Result<(String, Peer), String> {
    let peer = match form {
        PeerForm::Addresses => {
            let id = entry.required("id")?;
            let raft = entry.required_address("raft_addr")?;
            let http = entry.address("http_addr")?;
            // For the etcd API, which is not built in yet; a file may already hold it.
            entry.address("grpc_addr")?;
            (id, Peer { raft, http })
        }
        PeerForm::Ports => {
            let id = entry.required("node_id")?;
            let host = entry.required("host")?;
            let client_port = entry.port("client_port")?;
            let raft_port = entry.port("raft_port")?;
            let raft_port =
                raft_port.ok_or_else(|| format!("{}: expected a port", entry.name("raft_port")))?;
            let host = if host.contains(':') {
                format!("[{host}]")
            } else {
                host
            };
            let raft = format!("{host}:{raft_port}");
            sider_runtime_tokio::address::split(&raft)
                .map_err(|error| format!("{}: {error}", entry.name("host")))?;
            let http = client_port.map(|port| format!("{host}:{port}"));
            (id, Peer { raft, http })
        }
    };
    entry.finish()?;
    Ok(peer)
}

/// One mapping of the file. Keys are taken out of it one by one; what is left at the end is unknown.
struct Section {
    /// Keys that lead to it, for errors; empty at the top.
    path: String,
    keys: Map<String, Value>,
    /// Full names of unknown keys that were found beneath it.
    unknown: Vec<String>,
}

impl Section {
    fn new(path: &str, value: Value) -> Result<Section, String> {
        let given = match value {
            Value::Object(keys) => keys,
            // An empty YAML file is null.
            Value::Null => Map::new(),
            other => return Err(unexpected(path, "keys with values", &other)),
        };
        let mut section = Section {
            path: path.to_owned(),
            keys: Map::new(),
            unknown: Vec::new(),
        };
        for (key, value) in given {
            let normal = key.to_ascii_lowercase().replace('-', "_");
            if value.is_null() {
                continue;
            }
            if section.keys.insert(normal, value).is_some() {
                return Err(format!("{}: the key is there twice", section.name(&key)));
            }
        }
        Ok(section)
    }

    /// The full name of one of its keys.
    fn name(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        }
    }

    fn section(&mut self, key: &str) -> Result<Option<Section>, String> {
        let name = self.name(key);
        self.keys
            .remove(key)
            .map(|value| Section::new(&name, value))
            .transpose()
    }

    fn list(&mut self, key: &str) -> Result<Option<Vec<Section>>, String> {
        let name = self.name(key);
        match self.keys.remove(key) {
            None => Ok(None),
            Some(Value::Array(entries)) => {
                let entries = entries.into_iter().enumerate();
                entries
                    .map(|(n, entry)| Section::new(&format!("{name}[{n}]"), entry))
                    .collect::<Result<_, _>>()
                    .map(Some)
            }
            Some(other) => Err(unexpected(&name, "a list", &other)),
        }
    }

    fn string(&mut self, key: &str) -> Result<Option<String>, String> {
        match self.keys.remove(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            // Ids are often numbers.
            Some(Value::Number(number)) => Ok(Some(number.to_string())),
            Some(other) => Err(unexpected(&self.name(key), "text", &other)),
        }
    }

    /// The value of a flag as it would be written on the command line; a list is joined by commas.
    fn flag(&mut self, key: &str) -> Result<Option<String>, String> {
        let name = self.name(key);
        match self.keys.remove(key) {
            Some(Value::Bool(value)) => Ok(Some(value.to_string())),
            Some(Value::Array(entries)) => {
                let texts = entries.into_iter().map(|entry| match entry {
                    Value::String(text) => Ok(text),
                    other => Err(unexpected(&name, "a list of texts", &other)),
                });
                Ok(Some(texts.collect::<Result<Vec<_>, _>>()?.join(",")))
            }
            Some(other) => {
                self.keys.insert(key.to_owned(), other);
                self.string(key)
            }
            None => Ok(None),
        }
    }

    fn required(&mut self, key: &str) -> Result<String, String> {
        let text = self.string(key)?.filter(|text| !text.is_empty());
        text.ok_or_else(|| format!("{}: expected text, but it is missing", self.name(key)))
    }

    fn address(&mut self, key: &str) -> Result<Option<String>, String> {
        let Some(text) = self.string(key)? else {
            return Ok(None);
        };
        match sider_runtime_tokio::address::split(&text) {
            Ok((host, _)) if !host.is_empty() => Ok(Some(text)),
            Ok(_) => Err(format!(
                "{}: {text:?} has no host that others could reach",
                self.name(key)
            )),
            Err(error) => Err(format!("{}: {error}", self.name(key))),
        }
    }

    fn required_address(&mut self, key: &str) -> Result<String, String> {
        let address = self.address(key)?;
        address.ok_or_else(|| format!("{}: expected host:port, but it is missing", self.name(key)))
    }

    fn number(&mut self, key: &str) -> Result<Option<u64>, String> {
        let Some(value) = self.keys.remove(key) else {
            return Ok(None);
        };
        let number = value.as_u64().filter(|number| *number > 0);
        number
            .map(Some)
            .ok_or_else(|| unexpected(&self.name(key), "a whole number above 0", &value))
    }

    fn port(&mut self, key: &str) -> Result<Option<u16>, String> {
        let name = self.name(key);
        let Some(number) = self.number(key)? else {
            return Ok(None);
        };
        let port = u16::try_from(number).map_err(|_| format!("{name}: {number} is not a port"))?;
        Ok(Some(port))
    }

    /// A text like `50ms` or `1m30s`, or a number of milliseconds.
    fn duration(&mut self, key: &str) -> Result<Option<Duration>, String> {
        let name = self.name(key);
        let expected = "a time like \"50ms\", or a number of milliseconds, above 0 and up to 30 days";
        let Some(value) = self.keys.remove(key) else {
            return Ok(None);
        };
        let duration = match &value {
            Value::Number(number) => number.as_u64().map(Duration::from_millis),
            Value::String(text) => humantime::parse_duration(text).ok(),
            _ => None,
        };
        let duration = duration.filter(|duration| !duration.is_zero() && *duration <= RAFT_TIME_MAX);
        duration
            .map(Some)
            .ok_or_else(|| unexpected(&name, expected, &value))
    }

    /// Refuses what nobody asked for: a mistyped key must not silently mean a default.
    fn finish(self) -> Result<(), String> {
        refuse_unknown(
            self.keys
                .keys()
                .map(|key| self.name(key))
                .chain(self.unknown.clone()),
        )
    }
}

/// Names all keys that nobody knows in one error, if there are any.
pub(crate) fn refuse_unknown(names: impl Iterator<Item = String>) -> Result<(), String> {
    let names: Vec<String> = names.collect();
    match names.len() {
        0 => Ok(()),
        1 => Err(format!("{}: unknown key", names[0])),
        _ => Err(format!("{}: unknown keys", names.join(", "))),
    }
}

fn unexpected(name: &str, expected: &str, found: &Value) -> String {
    let name = if name.is_empty() { "the file" } else { name };
    format!("{name}: expected {expected}, found {found}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config_text::parse;

    fn yaml(text: &str) -> Result<ConfigFile, String> {
        ConfigFile::from_value(parse(text, "yaml")?)
    }

    fn ms(ms: u64) -> Option<Duration> {
        Some(Duration::from_millis(ms))
    }

    #[test]
    fn a_list_of_peers_at_the_top() {
        let text = "
            peers:
              - {id: node1, raft_addr: '127.0.0.1:8501', http_addr: '127.0.0.1:8500', grpc_addr: '127.0.0.1:2379'}
              - {id: node2, raft_addr: '[::1]:9501'}
            heartbeat_interval: 60ms
            election_timeout_min: 200ms
            election_timeout_max: 0.4s
            snapshot_interval: 1m
            snapshot_threshold: 100
            snapshot_log_keep: 50
            datacenter: no
            dns: off
            raft-bootstrap: false
            join: ['a:1', 'b:2']
        ";
        // humantime knows no fractions: written as everybody else writes them.
        let file = yaml(&text.replace("0.4s", "400ms")).unwrap();
        assert_eq!(file.peers["node1"].http.as_deref(), Some("127.0.0.1:8500"));
        assert_eq!(
            file.peers["node2"],
            Peer {
                raft: "[::1]:9501".into(),
                http: None
            }
        );
        let timing = Timing {
            heartbeat: ms(60),
            election_min: ms(200),
            election_max: ms(400),
            snapshot_interval: ms(60_000),
            snapshot_threshold: Some(100),
            log_keep: Some(50),
        };
        assert_eq!(file.timing, timing);
        assert_eq!(file.flags["datacenter"], "no");
        assert_eq!(file.flags["dns"], "off");
        assert_eq!(file.flags["raft_bootstrap"], "false");
        assert_eq!(file.flags["join"], "a:1,b:2");
    }

    #[test]
    fn a_list_of_peers_below_raft() {
        let text = r#"{"raft": {
            "peers": [{"id": 1, "raft_addr": "a:1"}, {"id": 2, "raft_addr": "b:1"}],
            "heartbeat_timeout": "1s", "election_timeout": "1s", "snapshot_threshold": 9, "snapshot_interval": 5000
        }}"#;
        let file = ConfigFile::from_value(parse(text, "json").unwrap()).unwrap();
        assert_eq!(file.peers.keys().collect::<Vec<_>>(), ["1", "2"]);
        assert_eq!(file.timing.heartbeat, Some(Duration::from_secs(1) / 3));
        assert_eq!(
            (file.timing.election_min, file.timing.election_max),
            (ms(1_000), ms(2_000))
        );
        assert_eq!(file.timing.snapshot_interval, ms(5_000));
        assert_eq!(file.timing.snapshot_threshold, Some(9));
        let file = yaml("raft: {heartbeat_timeout: 50, election_timeout: 150}").unwrap();
        assert_eq!(file.timing.heartbeat, ms(50));
    }

    #[test]
    fn a_list_of_nodes_below_cluster() {
        let text = "
            [[cluster.nodes]]
            node_id = 1
            host = '10.0.0.1'
            client_port = 8500
            raft_port = 8501
            [[cluster.nodes]]
            node_id = 'two'
            host = 'fe80::1'
            client_port = 8500
            raft_port = 8501
            [raft]
            election_timeout_min = 150
            election_timeout_max = 300
            heartbeat_interval = 50
        ";
        let file = ConfigFile::from_value(parse(text, "toml").unwrap()).unwrap();
        assert_eq!(
            file.peers["1"],
            Peer {
                raft: "10.0.0.1:8501".into(),
                http: Some("10.0.0.1:8500".into())
            }
        );
        assert_eq!(file.peers["two"].raft, "[fe80::1]:8501");
        assert_eq!(file.timing.heartbeat, ms(50));
        assert_eq!(
            (file.timing.election_min, file.timing.election_max),
            (ms(150), ms(300))
        );
    }

    #[test]
    fn an_empty_file_says_nothing() {
        assert_eq!(yaml("").unwrap(), ConfigFile::default());
        assert_eq!(yaml("peers: null").unwrap(), ConfigFile::default());
    }

    #[test]
    fn errors_name_the_key() {
        for (text, complaint) in [
            ("peers: 7", "peers: expected a list, found 7"),
            ("peers: [7]", "peers[0]: expected keys with values, found 7"),
            (
                "peers: [{id: a}]",
                "peers[0].raft_addr: expected host:port, but it is missing",
            ),
            (
                "peers: [{raft_addr: 'a:1'}]",
                "peers[0].id: expected text, but it is missing",
            ),
            (
                "peers: [{id: a, raft_addr: 'a:1'}, {id: a, raft_addr: 'b:1'}]",
                "peers[1]: the id \"a\" is there twice",
            ),
            (
                "peers: [{id: a, raft_addr: 'a'}]",
                "peers[0].raft_addr: \"a\" is not an address: expected host:port",
            ),
            (
                "peers: [{id: a, raft_addr: ':1'}]",
                "peers[0].raft_addr: \":1\" has no host",
            ),
            (
                "peers: [{id: a, raft_addr: 'a:1', color: red}]",
                "peers[0].color: unknown key",
            ),
            (
                "peers: []\nraft: {peers: []}",
                "peers: the list of servers is there twice",
            ),
            (
                "cluster: {nodes: [{node_id: 1, host: a, raft_port: 70000}]}",
                "cluster.nodes[0].raft_port: 70000 is not",
            ),
            (
                "cluster: {nodes: [{node_id: 1, host: a}]}",
                "cluster.nodes[0].raft_port: expected a port",
            ),
            (
                "cluster: {nodes: [{node_id: 1, host: 'a b', raft_port: 1}]}",
                "cluster.nodes[0].host: \"a b:1\" is not an address",
            ),
            (
                "heartbeat_interval: soon",
                "heartbeat_interval: expected a time like",
            ),
            (
                "heartbeat_interval: 0",
                "heartbeat_interval: expected a time like",
            ),
            (
                "raft: {election_timeout_min: [1]}",
                "raft.election_timeout_min: expected a time",
            ),
            (
                "snapshot_threshold: -1",
                "snapshot_threshold: expected a whole number above 0, found -1",
            ),
            (
                "raft: {election_timeout: 18446744073709551615s}",
                "raft.election_timeout: expected a time like",
            ),
            (
                "heartbeat_interval: 2592000001",
                "heartbeat_interval: expected a time like",
            ),
            ("http: {a: 1}", "http: expected text"),
            ("htttp: ':8500'", "htttp: unknown key"),
            (
                "{server: true, htttp: 1, ports: {foo: 1}, grpx: 2}",
                "grpx, htttp, ports.foo: unknown keys",
            ),
            ("raft-id: a\nraft_id: b", "the key is there twice"),
            ("[1]", "the file: expected keys with values"),
        ] {
            let error = yaml(text).unwrap_err();
            assert!(error.contains(complaint), "{text}: {error}");
        }
    }

    #[test]
    fn files_are_read_by_their_ending() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            ConfigFile::read(&path)
        };
        for (name, text) in [
            ("a.json", r#"{"node": "n"}"#),
            ("a.yaml", "node: n"),
            ("a.YML", "node: n"),
            ("a.toml", "node = 'n'"),
        ] {
            assert_eq!(write(name, text).unwrap().flags["node"], "n", "{name}");
        }
        for (name, text) in [
            ("b.json", "{"),
            ("b.yaml", "a: [1, 2\nb: {"),
            ("b.toml", "= 1"),
            ("b.txt", "node: n"),
        ] {
            let error = write(name, text).unwrap_err();
            assert!(error.contains(name), "{error}");
            assert_eq!(error.lines().count(), 1, "{error}");
        }
        let error = ConfigFile::read(&folder.path().join("none.yaml")).unwrap_err();
        assert!(error.contains("none.yaml"), "{error}");
    }
}
