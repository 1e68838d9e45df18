//! The program `sds-server`: one registry server.
//!
//! It binds its ports, opens its disk, and gives both to the server in `sider-core`; what happens after that is
//! decided there. This page starts, restarts and stops it.

mod authority;
#[cfg(test)]
mod fuzz;
mod reload;
pub mod settings;

use std::{
    ffi::OsString,
    iter,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use sider_core::{
    api, limits,
    observe::NoObserver,
    raft::{Role, ServerAddress},
    server::{self, Bootstrap, Finish, Running, ServerConfig, StartConfig},
};
use sider_runtime_tokio::{
    TokioRuntime, address,
    disk::{FjallDisk, LocalDisk, MemoryDisk},
    http::{Audience, HttpServer},
    network::TcpNetwork,
    prober::ProcessProber,
    process, telemetry,
    tls::Tls,
};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::Notify,
};

use self::{
    reload::Reloader,
    settings::{Settings, Start},
};
use crate::{
    consul_config,
    flags::{self, ServerFlags},
    host::{self, ProcessHost},
};

/// How long a leader that is told to stop tries to hand its place on.
const HAND_OVER: Duration = Duration::from_secs(2);
/// How long requests in flight have before those that wait for a change are woken.
const SHORT_REQUESTS: Duration = Duration::from_millis(200);
/// What a server answers anybody at the address of Consul's gossip, who wants to join.
const FOR_JOINING: [&str; 3] = ["/v1/raft/join", "/v1/raft/introduction", "/v1/status/"];

/// Runs the program; an error is one line on standard error and a non-zero exit code.
pub fn main(args: Vec<OsString>) -> ExitCode {
    let flags: ServerFlags = match flags::parse(args) {
        Ok(flags) => flags,
        Err(code) => return code,
    };
    match run(flags) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!(
                "sds-server: {}",
                error.split_whitespace().collect::<Vec<_>>().join(" ")
            );
            ExitCode::FAILURE
        }
    }
}

fn run(flags: ServerFlags) -> Result<(), String> {
    let settings = Settings::new(flags)?;
    telemetry::init(&settings.log_level, settings.log_format)
        .map_err(|error| format!("-log-level: {error}"))?;
    process::raise_open_files_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("sider")
        .build()
        .map_err(|error| format!("can't start threads: {error}"))?;
    runtime.block_on(async {
        let leave = Arc::new(Notify::new());
        let mut signals = Signals::new(leave.clone()).map_err(no_signals)?;
        let host = Host::open(&settings, leave).await?;
        let hangup = host::on_hangup(host.reloader.clone()).map_err(no_signals)?;
        tokio::spawn(hangup);
        host.serve(&settings, &mut signals).await
    })
}

fn no_signals(error: std::io::Error) -> String {
    format!("can't listen to signals: {error}")
}

/// What outlives a restart of the server within its process: the ports and the disk.
struct Host {
    /// The API, each at another address.
    http: Vec<HttpServer>,
    reloader: Arc<Reloader>,
    leave: Arc<Notify>,
    network: TcpNetwork,
    disk: LocalDisk,
    address: ServerAddress,
}

/// Why a server is not running any more.
enum End {
    /// A signal asked for it.
    Asked,
    /// It gave way to another cluster.
    GaveWay,
}

impl Host {
    /// Takes the ports first: a second server started by mistake must not touch the data.
    async fn open(settings: &Settings, leave: Arc<Notify>) -> Result<Host, String> {
        let named = |flag: &'static str| move |error: std::io::Error| format!("{flag}: {error}");
        let mut http = Vec::new();
        let plain = iter::once(&settings.http).chain(&settings.http_more);
        for address in plain.filter(|address| *address != settings::OFF) {
            http.push(match address.strip_prefix("unix://") {
                Some(path) => HttpServer::start_on_socket(Path::new(path)).map_err(named("-http"))?,
                None => {
                    let listener = address::listen(address).await.map_err(named("-http"))?;
                    HttpServer::start(listener).map_err(named("-http"))?
                }
            });
        }
        let main_address = http.first().and_then(HttpServer::address);
        let mut tls = None;
        if let Some((address, files)) = &settings.https {
            let loaded = Tls::load(files.clone()).map_err(|error| format!("-https: {error}"))?;
            for address in iter::once(address).chain(&settings.https_more) {
                let listener = address::listen(address).await.map_err(named("-https"))?;
                http.push(HttpServer::start_tls(listener, loaded.clone()).map_err(named("-https"))?);
            }
            tls = Some(loaded);
        }
        if let Some(address) = &settings.join_bind {
            let listener = address::listen(address).await.map_err(named("ports.serf_lan"))?;
            // Who serves no plain HTTP, or only those with a certificate, does not do so here either.
            let verifies = settings.https.as_ref().is_some_and(|(_, files)| files.verify);
            let audience = Audience {
                paths: &FOR_JOINING,
                agents: settings.http != settings::OFF && !verifies,
            };
            tracing::info!(address, agents = audience.agents, "servers may join here");
            http.push(HttpServer::start_for(listener, audience).map_err(named("ports.serf_lan"))?);
        }
        let network = TcpNetwork::bind(&settings.raft)
            .await
            .map_err(named("-raft-bind"))?;
        let bound = network.local_address().map_err(named("-raft-bind"))?;
        let disk = match &settings.data {
            Some(path) => LocalDisk::Files(FjallDisk::open(path).await.map_err(|error| error.to_string())?),
            None => LocalDisk::Memory(MemoryDisk::default()),
        };
        let raft = settings.raft_advertise.clone();
        let http_address = settings.http_advertise.clone();
        let address = ServerAddress {
            raft: raft
                .unwrap_or_else(|| address::advertised(&settings.raft, bound))
                .into(),
            // A socket is reached by nobody on another host.
            http: http_address
                .or_else(|| main_address.map(|bound| address::advertised(&settings.http, bound)))
                .unwrap_or_default()
                .into(),
        };
        let reloader = Reloader::new(settings.config_paths.clone(), settings.data.as_deref(), tls)?;
        Ok(Host {
            http,
            reloader: Arc::new(reloader),
            leave,
            network,
            disk,
            address,
        })
    }

    /// Runs servers on this host until one is told to stop.
    async fn serve(self, settings: &Settings, signals: &mut Signals) -> Result<(), String> {
        let folder = settings.data.clone().unwrap_or_else(|| PathBuf::from("."));
        let (host, _) = address::split(&self.address.raft)?;
        let process = ProcessHost::new(folder, self.reloader.clone(), self.leave.clone());
        let mut config = StartConfig {
            raft: settings.raft_config(self.address.clone()),
            server: ServerConfig {
                prober: Some(Arc::new(ProcessProber::default())),
                host: Some(Arc::new(process)),
                agent_node_address: host.to_owned(),
                ..settings.server.clone()
            },
            bootstrap: match settings.start {
                Start::Wait => Bootstrap::Wait,
                Start::Bootstrap => Bootstrap::Cluster(settings.members(self.address.clone())),
                Start::Expect(servers) => Bootstrap::Expect(servers),
                Start::Implicit => Bootstrap::Implicit,
            },
            join: settings.join.clone(),
        };
        loop {
            let running = tokio::select! {
                running = self.start(config.clone()) => running?,
                signal = signals.next() => {
                    tracing::info!("{signal}: stopped while starting");
                    return Ok(());
                }
            };
            self.log_ready(settings, &running);
            match self.watch(&running, signals).await? {
                End::Asked => {
                    // A second signal ends the process at once.
                    return tokio::select! {
                        () = self.stop(running) => Ok(()),
                        signal = signals.next() => Err(format!("stopped at once by a second {signal}")),
                    };
                }
                End::GaveWay => {
                    self.restart_empty(running).await?;
                    config.bootstrap = Bootstrap::Wait;
                }
            }
        }
    }

    async fn start(&self, config: StartConfig) -> Result<Running, String> {
        let (disk, network) = (self.disk.clone(), self.network.clone());
        let running = server::start::<TokioRuntime>(config, disk, network, Arc::new(NoObserver))
            .await
            .map_err(|error| self.explain(&error.to_string()))?;
        let router = api::http::router(running.server.clone());
        for http in &self.http {
            http.set_router(Some(router.clone()));
        }
        self.reloader.set_server(Some(running.server.clone()));
        tokio::spawn(self.reloader.clone().begin());
        Ok(running)
    }

    /// Waits until the server is to end, or has ended.
    async fn watch(&self, running: &Running, signals: &mut Signals) -> Result<End, String> {
        tokio::select! {
            signal = signals.next() => {
                tracing::info!("{signal}: stopping");
                Ok(End::Asked)
            }
            finish = running.finished() => match finish {
                Finish::GaveWay => Ok(End::GaveWay),
                Finish::Stopped => {
                    let reason = running.server.status().fatal;
                    Err(self.explain(&reason.unwrap_or_else(|| "the server stopped".to_owned())))
                }
            }
        }
    }

    /// Names the data directory where an error does not: most errors that end a server are about it.
    fn explain(&self, error: &str) -> String {
        match &self.disk {
            LocalDisk::Files(disk) if !error.contains("data directory") => {
                format!("{error} (data directory {})", disk.path().display())
            }
            _ => error.to_owned(),
        }
    }

    /// Wipes the disk of a server that gave way. The HTTP port stays, and answers 503 meanwhile.
    async fn restart_empty(&self, running: Running) -> Result<(), String> {
        tracing::info!("giving way to another cluster: this server's own one was never used");
        self.reloader.set_server(None);
        for http in &self.http {
            http.set_router(None);
        }
        self.network.stop();
        drop(running);
        server::wipe(&self.disk)
            .await
            .map_err(|error| self.explain(&error.to_string()))
    }

    /// Stops without breaking off what is under way.
    async fn stop(self, running: Running) {
        let status = running.server.status();
        if status.role == Role::Leader && status.voters.len() > 1 {
            match tokio::time::timeout(HAND_OVER, running.server.transfer(None)).await {
                Ok(Ok(())) => tracing::info!("leadership was handed on"),
                Ok(Err(error)) => tracing::warn!(%error, "leadership could not be handed on"),
                Err(_) => tracing::warn!("leadership could not be handed on in time"),
            }
        }
        self.reloader.set_server(None);
        let stops = self
            .http
            .into_iter()
            .map(|http| http.stop(limits::SHUTDOWN_GRACE));
        let mut http_stops = std::pin::pin!(futures_util::future::join_all(stops));
        if tokio::time::timeout(SHORT_REQUESTS, http_stops.as_mut())
            .await
            .is_err()
        {
            // What is still there waits for a change, most likely: now it is told that the server stops.
            running.shutdown().await;
            http_stops.await;
        } else {
            running.shutdown().await;
        }
        self.network.stop();
        drop(running);
        self.disk.close().await;
        tracing::info!("stopped");
    }

    fn log_ready(&self, settings: &Settings, running: &Running) {
        let status = running.server.status();
        let data = settings
            .data
            .as_ref()
            .map_or("memory".into(), |path| path.display().to_string());
        tracing::info!(
            id = %status.id,
            http = %settings.http,
            https = settings.https.as_ref().map_or("off", |(address, _)| address),
            raft = %settings.raft,
            advertised = %self.address.raft,
            data,
            role = ?status.role,
            "serving"
        );
        consul_config::warn_of_ignored(&settings.ignored);
        if !settings.missing.is_empty() {
            tracing::info!("{}: not built in yet, so off", settings.missing.join(" and "));
        }
    }
}

/// SIGTERM, SIGINT, and the API's word for them.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    leave: Arc<Notify>,
}

impl Signals {
    fn new(leave: Arc<Notify>) -> std::io::Result<Signals> {
        Ok(Signals {
            leave,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for one; gives its name.
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
            () = self.leave.notified() => "/v1/agent/leave",
        }
    }
}
