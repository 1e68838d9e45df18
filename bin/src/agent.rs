//! `sds-agent`: the agent of [`sider_core::agent`] on this host, its flags and its configuration files.

mod files;
#[cfg(test)]
mod fuzz;

use std::{
    ffi::OsString,
    io::ErrorKind,
    net::IpAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use clap::{Parser, builder::BoolishValueParser};
use sider_core::{
    agent::{Agent, AgentConfig, Settings},
    api::http::requests::is_address,
    limits::{ADDRESS_BYTES_MAX, AGENT_NODE_TTL, TTL_MAX},
    registry::NodeName,
};
use sider_runtime_tokio::{
    TokioRuntime, address,
    disk::{FjallDisk, LocalDisk},
    http::HttpServer,
    network::TcpNetwork,
    prober::ProcessProber,
    process,
    telemetry::{self, LogFormat},
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::Notify,
};

use self::files::{AgentFiles, Files, Leaves, Registered, read_files, registered_by};
use crate::{
    consul_config, flags,
    host::{self, ProcessHost},
    server::settings::{parse_datacenter, parse_ttl},
};

const DEFAULT_SERVER: &str = "127.0.0.1:8500";
const DEFAULT_HTTP: &str = "127.0.0.1:8510";
/// Requests under way at the agent's own API get this long to finish when it is told to stop.
const STOP_GRACE: Duration = Duration::from_secs(1);
/// Threads that serve requests and run checks; an agent has little to do.
const THREADS: usize = 2;

/// Flags of `sds-agent`. What is not given here or in the environment may come from the config file.
#[derive(Clone, Debug, Default, Parser)]
#[command(
    name = "sds-agent",
    version,
    about = "Sider's agent on a service's host: registers services, runs their checks, renews them, deregisters them \
             at its end.",
    after_help = "Flags may be written with one dash or two. Each may also be set by the environment variable shown, \
                  or in the config file; the command line comes first, then the environment, then the file.",
    max_term_width = 110,
    disable_version_flag = true
)]
struct AgentFlags {
    /// Services to register with their checks, and settings: a JSON, HCL, YAML or TOML file, or a folder of such files. May be
    /// given several times; what a later one sets has precedence.
    #[arg(
        long,
        env = "SIDER_CONFIG",
        value_name = "PATH",
        aliases = ["config-file", "config-dir"]
    )]
    config: Vec<PathBuf>,
    /// HTTP addresses of servers, separated by commas [default: 127.0.0.1:8500].
    #[arg(
        long,
        env = "SIDER_SERVER",
        value_name = "HOST:PORT,...",
        value_delimiter = ','
    )]
    server: Vec<String>,
    /// Address of the agent's own API, or `off` [default: 127.0.0.1:8510].
    #[arg(long, env = "SIDER_HTTP", value_name = "HOST:PORT")]
    http: Option<String>,
    /// Name of this host's node; no two agents may share one [default: the host's name].
    #[arg(long, env = "SIDER_NODE", value_name = "NAME")]
    node: Option<String>,
    /// Address of this host's node, for services that name none [default: this host's own].
    #[arg(long, env = "SIDER_ADDRESS", value_name = "HOST")]
    address: Option<String>,
    /// Name of the servers' datacenter [default: dc1].
    #[arg(long, env = "SIDER_DATACENTER", value_name = "NAME")]
    datacenter: Option<String>,
    /// How long after its agent's last word a host counts as dead, and all that runs on it as critical; `off` for never
    /// [default: 15s].
    #[arg(long, env = "SIDER_NODE_TTL", value_name = "TIME")]
    node_ttl: Option<String>,
    /// Where registrations made through the agent's API are kept [default: data/agent-<node>].
    #[arg(long, env = "SIDER_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Let checks that come through the agent's API run programs [default: false].
    #[arg(
        long,
        env = "SIDER_ENABLE_SCRIPT_CHECKS",
        value_name = "BOOL",
        num_args = 0..=1,
        default_missing_value = "true",
        value_parser = BoolishValueParser::new()
    )]
    enable_script_checks: Option<bool>,
    /// What is logged: error, warn, info, debug, trace, off, or directives like info,sider_core=debug
    /// [default: info].
    #[arg(long, env = "SIDER_LOG_LEVEL", value_name = "LEVEL")]
    log_level: Option<String>,
    /// How it is logged: text or json [default: text].
    #[arg(long, env = "SIDER_LOG_FORMAT", value_name = "FORMAT")]
    log_format: Option<String>,
    /// Print the version.
    #[arg(long, short = 'V', action = clap::ArgAction::Version)]
    version: Option<bool>,
}

/// Everything that flags, environment, files and defaults come to.
#[derive(Clone, Debug)]
struct Plan {
    agent: AgentConfig,
    config_paths: Vec<PathBuf>,
    /// Address of the agent's own API; `None` for none.
    http: Option<String>,
    data_dir: PathBuf,
    log_level: String,
    log_format: LogFormat,
    /// Keys of Consul's in the files that mean nothing here.
    ignored: Vec<String>,
    /// Whether nothing names a server, and one is looked for on this host.
    names_no_server: bool,
    /// At which signals it deregisters its node.
    leaves: Leaves,
}

/// Runs the program with these arguments, its own name first, until it is told to stop.
pub fn main(args: Vec<OsString>) -> ExitCode {
    let flags = match flags::parse::<AgentFlags>(args) {
        Ok(flags) => flags,
        Err(code) => return code,
    };
    match plan(flags).and_then(run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sds-agent: {error}");
            ExitCode::FAILURE
        }
    }
}

fn plan(flags: AgentFlags) -> Result<Plan, String> {
    let Files {
        files,
        ignored,
        is_consuls,
        leaves,
    } = read_files(&flags.config)?;
    // Of what several set, the last has precedence.
    let from_files = files
        .iter()
        .rev()
        .fold(Settings::default(), |settings, (_, file)| {
            settings.or(file.settings.clone())
        });
    let given = Settings {
        servers: (!flags.server.is_empty()).then_some(flags.server),
        http: flags.http,
        node: flags.node,
        address: flags.address,
        node_id: None,
        node_meta: None,
        datacenter: flags.datacenter,
        node_ttl: flags.node_ttl,
        data_dir: flags.data_dir.map(|dir| dir.to_string_lossy().into_owned()),
        enable_script_checks: flags.enable_script_checks,
        log_level: flags.log_level,
        log_format: flags.log_format,
    };
    let settings = given.or(from_files);
    let node = settings.node.unwrap_or_else(flags::host_name);
    let node = NodeName::parse(&node).map_err(|error| error.to_string())?;
    let address = settings
        .address
        .unwrap_or_else(|| address::own_address().to_string());
    if !is_address(&address) {
        return Err(format!(
            "address: expected a host name or an IP address of at most {ADDRESS_BYTES_MAX} bytes, got {address:?}"
        ));
    }
    let Registered { services, checks } = registered_by(&files, &node, &address)?;
    let names_no_server = settings.servers.is_none();
    let servers = settings
        .servers
        .unwrap_or_else(|| vec![DEFAULT_SERVER.to_owned()]);
    if servers.is_empty() {
        return Err("servers: expected the address of one server at least".to_owned());
    }
    let datacenter = settings.datacenter.unwrap_or_else(|| "dc1".to_owned());
    parse_datacenter(&datacenter).map_err(|error| format!("datacenter: {error}"))?;
    let servers = server_addresses(&servers)?;
    let http = settings.http.unwrap_or_else(|| DEFAULT_HTTP.to_owned());
    if let Some(own) = servers.iter().find(|server| is_own(server, &http, &address)) {
        return Err(match names_no_server {
            true => format!(
                "nothing names a server, and {own}, where one is looked for then, is this agent's own HTTP address: name \
                 the servers' HTTP addresses (-server, `servers`, or `retry_join` in a file of Consul's)"
            ),
            false => format!(
                "server {own} is this agent's own HTTP address: name the servers' (-server, `servers`, or `retry_join` in \
                 a file of Consul's), or another one for the agent (-http, `http`, or `ports.http` in a file of Consul's)"
            ),
        });
    }
    let data_dir = match settings.data_dir {
        Some(dir) => PathBuf::from(dir),
        None => Path::new("data").join(format!("agent-{}", file_name(node.as_str()))),
    };
    Ok(Plan {
        agent: AgentConfig {
            services,
            checks,
            node_id: settings.node_id.unwrap_or_default(),
            node_meta: settings.node_meta.unwrap_or_default(),
            enable_script_checks: settings.enable_script_checks.unwrap_or(false),
            datacenter,
            node_ttl: settings
                .node_ttl
                .map_or(Ok(Some(AGENT_NODE_TTL)), |ttl| parse_node_ttl(&ttl))?,
            ..AgentConfig::new(node, address, servers)
        },
        config_paths: flags.config,
        http: (http != "off").then_some(http),
        data_dir,
        ignored,
        names_no_server: names_no_server && is_consuls,
        leaves,
        log_level: settings.log_level.unwrap_or_else(|| "info".to_owned()),
        log_format: match settings.log_format.as_deref() {
            None | Some("text") => LogFormat::Text,
            Some("json") => LogFormat::Json,
            Some(other) => {
                return Err(format!(
                    "log_format: {other:?} is not a log format: expected text or json"
                ));
            }
        },
    })
}

/// How long a host counts as alive of which nobody hears.
fn parse_node_ttl(text: &str) -> Result<Option<Duration>, String> {
    if text == "off" {
        return Ok(None);
    }
    let ttl = parse_ttl(text, TTL_MAX).map_err(|error| format!("node_ttl: {error}, or off"))?;
    Ok(Some(ttl))
}

/// Servers' addresses as they are called: `:8500` is this host's.
fn server_addresses(servers: &[String]) -> Result<Vec<String>, String> {
    let mut addresses = Vec::new();
    for server in servers {
        let bare = server.trim().trim_start_matches("http://").trim_end_matches('/');
        let (host, port) = address::split(bare).map_err(|error| format!("-server: {error}"))?;
        addresses.push(match host {
            "" => format!("127.0.0.1:{port}"),
            _ => bare.to_owned(),
        });
    }
    Ok(addresses)
}

/// Whether a server's address is the one at which the agent itself serves HTTP.
fn is_own(server: &str, http: &str, own: &str) -> bool {
    let (Ok((server, server_port)), Ok((http, port))) = (address::split(server), address::split(http)) else {
        return false;
    };
    let plain = |host: &str| match host.trim_matches(['[', ']']).to_ascii_lowercase().as_str() {
        "localhost" => "127.0.0.1".to_owned(),
        host => host.to_owned(),
    };
    let (server, http) = (plain(server), plain(http));
    let is_any = |host: &str| ["", "0.0.0.0", "::"].contains(&host);
    let is_here = |host: &str| {
        let loopback = host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
        loopback || is_any(host) || host == plain(own)
    };
    server_port == port
        && (server == http || is_any(&http) && is_here(&server) || is_any(&server) && is_here(&http))
}

/// A name as one part of a path.
fn file_name(name: &str) -> String {
    name.chars()
        .map(|c| match c {
            'a'..='z' | 'A'..='Z' | '0'..='9' | '.' | '-' | '_' => c,
            _ => '_',
        })
        .collect()
}

fn run(plan: Plan) -> Result<(), String> {
    telemetry::init(&plan.log_level, plan.log_format)?;
    process::raise_open_files_limit();
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .enable_all()
        .build()
        .map_err(|error| format!("can't start: {error}"))?
        .block_on(serve(plan))
}

async fn serve(plan: Plan) -> Result<(), String> {
    let text = |error: std::io::Error| error.to_string();
    // From the first moment on: a signal that comes while it starts must not be lost.
    let mut terminate = signal(SignalKind::terminate()).map_err(text)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(text)?;
    let http = match &plan.http {
        Some(address) => {
            let listener = address::listen(address).await.map_err(text)?;
            Some(HttpServer::start(listener).map_err(text)?)
        }
        None => None,
    };
    let disk = LocalDisk::Files(FjallDisk::open(&plan.data_dir).await.map_err(text)?);
    let (node, services) = (plan.agent.node.clone(), plan.agent.services.len());
    let servers = plan.agent.servers.join(",");
    let address = plan.agent.address.clone();
    let files = Arc::new(AgentFiles::new(plan.config_paths, node.clone(), address));
    tokio::spawn(host::on_hangup(files.clone()).map_err(text)?);
    let leave = Arc::new(Notify::new());
    let process = ProcessHost::new(plan.data_dir.clone(), files.clone(), leave.clone());
    let config = AgentConfig {
        host: Some(Arc::new(process)),
        ..plan.agent
    };
    let agent = Agent::<TokioRuntime>::start(
        config,
        TcpNetwork::calling_only(),
        ProcessProber::default(),
        disk.clone(),
    )
    .await
    .map_err(|error| match error.kind() {
        ErrorKind::InvalidInput => format!("config files: {error}"),
        _ => format!("data directory {}: {error}", plan.data_dir.display()),
    })?;
    files.set_agent(Some(agent.clone()));
    let address = http
        .as_ref()
        .and_then(HttpServer::address)
        .map(|address| address.to_string());
    if let Some(http) = &http {
        http.set_router(Some(agent.router()));
    }
    consul_config::warn_of_ignored(&plan.ignored);
    if plan.names_no_server {
        tracing::warn!(
            "no server is named: {servers} is asked; name the servers' HTTP addresses in retry_join, or by -server"
        );
    }
    tracing::info!(
        %node,
        services,
        %servers,
        http = address.unwrap_or_else(|| "off".to_owned()),
        "the agent runs"
    );
    let leaves = tokio::select! {
        _ = terminate.recv() => plan.leaves.on_terminate,
        _ = interrupt.recv() => plan.leaves.on_interrupt,
        () = leave.notified() => true,
    };
    tracing::info!("stopping");
    files.set_agent(None);
    let stop = async {
        match leaves {
            true => agent.shutdown().await,
            false => {
                agent.stop().await;
                Ok(())
            }
        }
    };
    let outcome = tokio::select! {
        outcome = stop => outcome,
        _ = terminate.recv() => Err("told twice to stop".to_owned()),
        _ = interrupt.recv() => Err("told twice to stop".to_owned()),
    };
    if let Some(http) = http {
        http.stop(STOP_GRACE).await;
    }
    disk.close().await;
    outcome.map_err(|error| format!("the services of node {node} could not be deregistered: {error}"))?;
    tracing::info!(
        "{}",
        if leaves {
            "deregistered"
        } else {
            "stopped, and nothing deregistered"
        }
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan_of(arguments: &[&str]) -> Result<Plan, String> {
        let args = std::iter::once("sds-agent").chain(arguments.iter().copied());
        let flags = AgentFlags::try_parse_from(flags::normalize(args.map(OsString::from)));
        plan(flags.map_err(|error| error.to_string())?)
    }

    fn write(folder: &tempfile::TempDir, name: &str, content: &str) -> String {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.to_string_lossy().into_owned()
    }

    #[test]
    fn defaults_are_those_of_the_documentation() {
        let plan = plan_of(&["-node", "host-1"]).unwrap();
        assert_eq!(plan.agent.servers, ["127.0.0.1:8500"]);
        assert_eq!(plan.http.as_deref(), Some("127.0.0.1:8510"));
        assert_eq!(plan.data_dir, Path::new("data/agent-host-1"));
        assert!(!plan.agent.enable_script_checks);
        assert_eq!(plan.agent.node_ttl, Some(Duration::from_secs(15)));
        let plan = plan_of(&["-node", "a/b", "-http=off"]).unwrap();
        assert_eq!(plan.data_dir, Path::new("data/agent-a_b"));
        assert_eq!(plan.http, None);
    }

    #[test]
    fn how_long_a_silent_host_is_alive_is_a_time_or_off() {
        let ttl = |text| plan_of(&[&format!("-node-ttl={text}")]).map(|plan| plan.agent.node_ttl);
        assert_eq!(ttl("1m"), Ok(Some(Duration::from_secs(60))));
        assert_eq!(ttl("off"), Ok(None));
        for bad in ["", "0s", "-1s", "soon", "1ms", "100000h", "9999999999999h"] {
            let refused = ttl(bad).unwrap_err();
            assert!(refused.starts_with("node_ttl: "), "{bad}: {refused}");
        }
    }

    #[test]
    fn flags_come_before_files() {
        let folder = tempfile::tempdir().unwrap();
        let path = write(
            &folder,
            "agent.yaml",
            "node: from-file\nservers: [a:1, b:2]\nhttp: 'off'\nenable_script_checks: true\ndata_dir: /d\nnode_ttl: 1m\n",
        );
        let plan = plan_of(&["--config", &path]).unwrap();
        assert_eq!(plan.agent.node.as_str(), "from-file");
        assert_eq!(plan.agent.servers, ["a:1", "b:2"]);
        assert_eq!(plan.http, None);
        assert_eq!(plan.data_dir, Path::new("/d"));
        assert_eq!(plan.agent.node_ttl, Some(Duration::from_secs(60)));
        assert!(plan.agent.enable_script_checks);
        let plan = plan_of(&[
            "-config",
            &path,
            "-node=n",
            "-server",
            ":9,http://c:3/",
            "-http",
            ":4",
            "-enable-script-checks=false",
        ])
        .unwrap();
        assert_eq!(plan.agent.node.as_str(), "n");
        assert_eq!(plan.agent.servers, ["127.0.0.1:9", "c:3"]);
        assert_eq!(plan.http.as_deref(), Some(":4"));
        assert!(!plan.agent.enable_script_checks);
    }

    #[test]
    fn a_file_of_consuls_is_understood() {
        let folder = tempfile::tempdir().unwrap();
        let path = write(
            &folder,
            "consul.json",
            r#"{"node_name": "n", "datacenter": "dc2", "data_dir": "/d", "bind_addr": "10.0.0.5", "server": false,
                "ports": {"http": 9, "dns": -1}, "retry_join": ["a", "b:1"], "enable_script_checks": true,
                "service": {"name": "web", "port": 80, "check": {"args": ["true"], "interval": "5s"}}}"#,
        );
        let more = write(
            &folder,
            "more.json",
            r#"{"services": [{"name": "db"}], "node_name": "m"}"#,
        );
        let plan = plan_of(&["-config-file", &path, "-config-file", &more]).unwrap();
        assert_eq!(plan.agent.node.as_str(), "m");
        assert_eq!(plan.agent.datacenter, "dc2");
        assert_eq!(plan.agent.address, "10.0.0.5");
        assert_eq!(plan.agent.servers, ["a:8301", "a:8500", "b:1"]);
        assert_eq!(plan.http.as_deref(), Some("127.0.0.1:9"));
        assert_eq!(plan.data_dir, Path::new("/d"));
        assert!(plan.agent.enable_script_checks);
        assert_eq!(plan.agent.services.len(), 2);
        // What is not said is as for an agent of Consul's.
        let bare = write(&folder, "bare.json", r#"{"node_name": "n", "server": false}"#);
        let plan = plan_of(&["-config", &bare, "-server", "a:8500"]).unwrap();
        assert_eq!(plan.http.as_deref(), Some("127.0.0.1:8500"));
        assert!(!plan.names_no_server);
        // Where the agent itself is, there is no server.
        let error = plan_of(&["-config", &bare]).unwrap_err();
        assert!(error.contains("`retry_join`"), "{error}");
        let elsewhere = plan_of(&["-config", &bare, "-http", "127.0.0.1:8510"]).unwrap();
        assert!(elsewhere.names_no_server);
    }

    #[test]
    fn an_agent_is_not_its_own_server() {
        let own = "10.0.0.5";
        for (server, http, is) in [
            ("127.0.0.1:8500", "127.0.0.1:8500", true),
            ("localhost:8500", "127.0.0.1:8500", true),
            ("127.0.0.1:8500", "0.0.0.0:8500", true),
            ("127.0.0.1:8500", ":8500", true),
            ("10.0.0.5:8500", "[::]:8500", true),
            ("[::1]:8500", "[::1]:8500", true),
            ("10.0.0.6:8500", "0.0.0.0:8500", false),
            ("127.0.0.1:8500", "127.0.0.1:8510", false),
            ("10.0.0.5:8500", "127.0.0.1:8500", false),
            ("127.0.0.1:8500", "off", false),
        ] {
            assert_eq!(is_own(server, http, own), is, "{server} {http}");
        }
        let error = plan_of(&["-node", "n", "-server", "a:1,:8510"]).unwrap_err();
        assert!(error.contains("127.0.0.1:8510 is this agent's own"), "{error}");
    }

    #[test]
    fn a_node_of_consuls_has_an_id_meta_and_checks() {
        let folder = tempfile::tempdir().unwrap();
        let id = "40e4a748-2192-161a-0510-9bf59fe950b5";
        let path = write(
            &folder,
            "consul.json",
            r#"{"node_name": "n", "node_id": "40e4a748-2192-161a-0510-9bf59fe950b5", "node_meta": {"rack": "r1"},
                "ports": {"http": -1}, "check_output_max_size": 4096,
                "check": {"id": "mem", "name": "Memory", "args": ["true"], "interval": "5s", "output_max_size": 100},
                "checks": [{"name": "port", "tcp": "h:1", "interval": "5s", "service_id": "web"}]}"#,
        );
        let more = write(&folder, "more.json", r#"{"service": {"name": "web"}}"#);
        let paths = ["-config-file", &path, "-config-file", &more];
        let plan = plan_of(&paths).unwrap();
        assert_eq!(plan.agent.node_id, id);
        assert_eq!(plan.agent.node_meta["rack"], "r1");
        assert_eq!(plan.http, None);
        assert_eq!((plan.agent.services.len(), plan.agent.checks.len()), (1, 1));
        assert_eq!(plan.ignored, ["check_output_max_size"]);
        let advertised = write(
            &folder,
            "advertised.json",
            r#"{"node_name": "n", "bind_addr": "0.0.0.0", "advertise_addr": "10.0.0.7", "log_json": true, "pid_file": "/p"}"#,
        );
        let plan = plan_of(&["-config", &advertised, "-server", "a:1"]).unwrap();
        assert_eq!(
            (&*plan.agent.address, plan.log_format),
            ("10.0.0.7", LogFormat::Json)
        );
        assert_eq!(plan.ignored, ["pid_file"]);
        assert_eq!(plan.leaves, Leaves::default());
        let stays = write(
            &folder,
            "stays.json",
            r#"{"node_name": "n", "leave_on_terminate": false, "skip_leave_on_interrupt": true, "retry_join": ["a"]}"#,
        );
        let Leaves {
            on_terminate,
            on_interrupt,
        } = plan_of(&["-config", &stays]).unwrap().leaves;
        assert!(!on_terminate && !on_interrupt);
        let unknown = write(
            &folder,
            "unknown.json",
            r#"{"node_name": "n", "nodename": "m", "ports": {"foo": 1}, "zzz": 1}"#,
        );
        let error = plan_of(&["-config", &unknown]).unwrap_err();
        assert!(
            error.contains("nodename, zzz, ports.foo: unknown keys"),
            "{error}"
        );
        // The service of one of them is in a file that is not read now.
        let error = plan_of(&paths[..2]).unwrap_err();
        assert!(error.contains("\"port\"") && error.contains("\"web\""), "{error}");
        let bad = write(&folder, "bad.json", r#"{"node_name": "n", "node_id": "7"}"#);
        let error = plan_of(&["-config", &bad]).unwrap_err();
        assert!(error.contains("node_id: expected a UUID"), "{error}");
    }

    #[test]
    fn a_folder_is_read_file_by_file() {
        let folder = tempfile::tempdir().unwrap();
        write(&folder, "b.json", r#"{"service": {"name": "b"}, "node": "n"}"#);
        write(&folder, "a.toml", "[[services]]\nname = \"a\"\nport = 1\n");
        write(&folder, "c.yml", "- name: c\n  checks: [{type: ttl, ttl: 15s}]\n");
        write(
            &folder,
            "e.hcl",
            "service {\n  name = \"e\"\n  check {\n    ttl = \"15s\"\n  }\n}\n",
        );
        write(&folder, "notes.txt", "not a configuration");
        let plan = plan_of(&["-config", &folder.path().to_string_lossy()]).unwrap();
        assert_eq!(plan.agent.services.len(), 4);
        assert_eq!(plan.agent.node.as_str(), "n");
        write(&folder, "d.json", r#"[{"name": "a"}]"#);
        let error = plan_of(&["-config", &folder.path().to_string_lossy()]).unwrap_err();
        assert_eq!(error, "service id \"a\" is configured twice");
    }

    #[test]
    fn errors_are_one_line_that_names_the_place() {
        let folder = tempfile::tempdir().unwrap();
        for (name, content, named) in [
            ("a.json", "{", "EOF while parsing"),
            ("b.json", r#"{"servces": []}"#, "unknown key \"servces\""),
            (
                "c.json",
                r#"{"services": [{"name": "x"}, {"name": "y", "port": 70000}]}"#,
                "services[1]: Port",
            ),
            (
                "d.json",
                r#"{"services": [{"name": "x", "checks": [{"type": "ttl", "ttl": "abc"}]}]}"#,
                "invalid duration \"abc\"",
            ),
            ("e.ini", "", "must end in"),
        ] {
            let path = write(&folder, name, content);
            let error = plan_of(&["-config", &path]).unwrap_err();
            assert!(error.contains(&path) && error.contains(named), "{error}");
            assert_eq!(error.lines().count(), 1, "{error}");
        }
        assert!(
            plan_of(&["-config", "/no/such/file.json"])
                .unwrap_err()
                .contains("/no/such/file.json")
        );
        assert!(
            plan_of(&["-server", "nowhere"])
                .unwrap_err()
                .contains("expected host:port")
        );
        assert!(
            plan_of(&["-address", "a b"])
                .unwrap_err()
                .contains("address: expected a host name")
        );
        assert!(
            plan_of(&["-datacenter", "a b"])
                .unwrap_err()
                .contains("datacenter: \"a b\"")
        );
        let path = write(&folder, "none.json", r#"{"servers": []}"#);
        assert!(
            plan_of(&["-config", &path])
                .unwrap_err()
                .contains("servers: expected the address")
        );
        assert!(
            plan_of(&["-log-format", "xml"])
                .unwrap_err()
                .contains("expected text or json")
        );
        assert!(plan_of(&["-node", ""]).unwrap_err().contains("node name"));
    }

    #[test]
    fn the_example_is_valid() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/agent.demo.json");
        let plan = plan_of(&["-config", path, "-node", "n"]).unwrap();
        assert_eq!(plan.agent.services.len(), 3);
    }
}
