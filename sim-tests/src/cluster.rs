//! A cluster of real servers on simulated hosts, and clients that speak HTTP to it over the simulated network.

mod client;
mod reporter;

pub use self::client::Client;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, atomic::AtomicU64},
    time::Duration,
};

use axum::Router;
use bytes::Bytes;
use futures_util::StreamExt as _;
use http_body_util::{BodyExt as _, Full};
use sider_core::{
    api::http,
    observe::Observation,
    raft::{RaftConfig, Role, ServerAddress, ServerId},
    runtime::Keyspace,
    server::{self, Bootstrap, Finish, Server, ServerConfig, StartConfig},
};
use sider_runtime_sim::{Body, Host, HostId, HttpHandler, Link, SimRuntime, Survival, World};
use tokio::sync::oneshot;
use tower::ServiceExt as _;

use self::reporter::Reporter;
use crate::{
    history::{Bounds, Fact, ServerNumber},
    streams,
    trap::{Snare, Step},
};

/// Port of every server's Raft transport.
pub const RAFT_PORT: u16 = 8501;
/// Port of every server's HTTP API.
pub const HTTP_PORT: u16 = 8500;

/// How often a condition that is waited for is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// How long a server that gave way takes to be started again.
const RESTART_TIME: Duration = Duration::from_millis(50);

/// How a cluster is made.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    /// How many servers.
    pub servers: usize,
    /// How they become a cluster.
    pub formation: Formation,
    /// Raft's settings; id and address are filled in.
    pub raft: RaftConfig,
    /// The rest of the servers' settings.
    pub server: ServerConfig,
}

impl Default for ClusterOptions {
    /// Three servers that are bootstrapped together, with the timing of production and frequent checkpoints.
    fn default() -> Self {
        let mut raft = RaftConfig::new(ServerId::default(), ServerAddress::default());
        raft.snapshot_threshold = 40;
        raft.snapshot_interval = Duration::from_secs(5);
        raft.log_keep = 10;
        ClusterOptions {
            servers: 3,
            formation: Formation::Bootstrap,
            raft,
            server: ServerConfig::default(),
        }
    }
}

/// How servers become a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Formation {
    /// The first one starts the cluster with all of them as members.
    Bootstrap,
    /// The first one starts a cluster of its own, and the others ask it to be added.
    Join,
    /// Each one starts a cluster of its own, which gives way when another one adds it: see [`Client::join`].
    Implicit,
}

/// Is told what servers do, while they do it: it must be quick and must not call back.
pub trait Witness: Send + Sync + 'static {
    /// The process of a server was started.
    fn started(&self, at: Duration, server: usize);
    /// The process of a server has ended: it was killed, or it stopped by itself for the reason given.
    fn stopped(&self, at: Duration, server: usize, reason: Option<&str>);
    /// A server did something.
    fn observed(&self, at: Duration, server: usize, observation: &Observation<'_>);
    /// Something about a server that it does not tell itself.
    fn noted(&self, _: Duration, _: usize, _: Fact) {}
}

/// Sees nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoWitness;

impl Witness for NoWitness {
    fn started(&self, _: Duration, _: usize) {}
    fn stopped(&self, _: Duration, _: usize, _: Option<&str>) {}
    fn observed(&self, _: Duration, _: usize, _: &Observation<'_>) {}
}

/// Servers, numbered from 0, each on a host of its own. Clones are the same cluster.
#[derive(Clone)]
pub struct Cluster(Arc<Parts>);

struct Parts {
    world: World,
    options: ClusterOptions,
    witness: Arc<dyn Witness>,
    /// The paths of the API, put together by the first server of the run.
    api: OnceLock<Router<Server>>,
    members: Mutex<Vec<Member>>,
    /// Entries that were applied anywhere.
    applied: AtomicU64,
    /// Where agents serve that were started.
    agents: Mutex<BTreeMap<usize, String>>,
}

struct Member {
    host: Host,
    /// The handle of the process that runs.
    server: Option<Server>,
    /// How it is asked.
    http: Option<HttpHandler>,
    /// Why the last process stopped by itself.
    stopped: Option<String>,
    /// The id of the disk that it has, as its last process told.
    disk: u64,
    /// The disks that it lost, by their ids, with the log that was safe on each of them.
    lost_disks: Vec<(u64, BTreeMap<Bytes, Bytes>)>,
    /// What was safe in the log of the disk that it has until a bit of it flipped.
    flipped: BTreeMap<Bytes, Bytes>,
    /// What is to happen when it tells of something.
    snare: Snare,
    /// The version of commands that its program knows.
    command_version: u8,
}

impl Cluster {
    /// Makes the hosts and starts all servers. They have no leader yet.
    pub fn start(world: &World, options: ClusterOptions, witness: Arc<dyn Witness>) -> Cluster {
        let servers = options.servers;
        let parts = Parts {
            world: world.clone(),
            options,
            witness,
            api: OnceLock::new(),
            members: Mutex::default(),
            applied: AtomicU64::new(0),
            agents: Mutex::default(),
        };
        let cluster = Cluster(Arc::new(parts));
        for _ in 0..servers {
            cluster.add_host();
        }
        // A server's settings name the others, so none starts before all have their addresses.
        for server in 0..servers {
            cluster.switch_on(server);
        }
        cluster
    }

    /// The version of commands that the programs knew in the beginning.
    pub fn first_command_version(&self) -> u8 {
        self.0.options.raft.command_version
    }

    /// Adds a host for a server, and does not start it. Gives its number.
    pub fn add_server_off(&self) -> usize {
        let number = self.add_host();
        let cluster = self.clone();
        let host = self.host(number);
        host.set_program(move |host| cluster.clone().serve(number, host));
        host.power_cut(Survival::Everything);
        number
    }

    /// Adds a host with a server that is a member of no cluster yet, and starts it. Gives its number.
    pub fn add_server(&self) -> usize {
        let number = self.add_host();
        self.switch_on(number);
        number
    }

    fn add_host(&self) -> usize {
        let number = self.len();
        let host = self.0.world.host(&format!("s{number}"));
        self.lock().push(Member {
            host,
            server: None,
            http: None,
            stopped: None,
            disk: 0,
            lost_disks: Vec::new(),
            flipped: BTreeMap::new(),
            snare: Snare::default(),
            command_version: self.0.options.raft.command_version,
        });
        number
    }

    fn switch_on(&self, number: usize) {
        let cluster = self.clone();
        self.host(number)
            .start(move |host| cluster.clone().serve(number, host));
    }

    /// How many servers there are, running or not.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The world it is in.
    pub fn world(&self) -> &World {
        &self.0.world
    }

    /// A server's host: its disk, clocks, pauses.
    ///
    /// # Panics
    /// If there is no such server.
    pub fn host(&self, server: usize) -> Host {
        self.lock()[server].host.clone()
    }

    /// The hosts of several servers, for partitions.
    pub fn host_ids(&self, servers: &[usize]) -> Vec<HostId> {
        let members = self.lock();
        servers.iter().map(|server| members[*server].host.id()).collect()
    }

    /// The running server behind the network, for looking at it. `None` while it is down or starts.
    pub fn server(&self, server: usize) -> Option<Server> {
        let members = self.lock();
        let member = &members[server];
        member.server.clone().filter(|_| member.host.is_up())
    }

    /// Why a server's last process stopped by itself, if it did.
    pub fn stopped(&self, server: usize) -> Option<String> {
        self.lock()[server].stopped.clone()
    }

    /// Asks a running server from inside, without a network; to be called on its host. `None` while it is down.
    pub async fn ask_inside(
        &self,
        server: usize,
        request: ::http::Request<Bytes>,
    ) -> Option<::http::Response<Bytes>> {
        self.server(server)?;
        let handler = self.lock()[server].http.clone()?;
        let (head, body) = handler(request).await.into_parts();
        match body {
            Body::Whole(body) => Some(::http::Response::from_parts(head, body)),
            Body::Pieces(_) => None,
        }
    }

    /// Kills a server's process.
    pub fn crash(&self, server: usize) {
        self.down(server, None);
        self.host(server).crash();
    }

    /// Cuts the power of a server's host.
    pub fn power_cut(&self, server: usize, survival: Survival) {
        self.down(server, None);
        self.host(server).power_cut(survival);
    }

    /// Sets a trap, in place of any other: at the `nth` such step from now on, counted from 1, the server's process is
    /// killed, or its host loses its power and keeps what `survival` says. The receiver is told when it happens, and
    /// fails if the trap is cleared.
    pub fn set_trap(
        &self,
        server: usize,
        step: Step,
        nth: u32,
        survival: Option<Survival>,
    ) -> oneshot::Receiver<()> {
        self.clear_trap(server);
        let (teller, sprung) = oneshot::channel();
        // The host holds the trap, and the cluster the host.
        let parts = Arc::downgrade(&self.0);
        let spring = move || {
            let Some(parts) = parts.upgrade() else { return };
            let cluster = Cluster(parts);
            match survival {
                None => cluster.crash(server),
                Some(survival) => cluster.power_cut(server, survival),
            }
            // Whoever set it may be gone.
            let _ = teller.send(());
        };
        match (step, step.disk_step()) {
            (_, Some((disk_step, edge))) => {
                self.host(server).disk().set_trap(disk_step, edge, nth, spring);
            }
            (Step::Upon(sight), _) => self.snare(server).set(sight, nth, spring),
            (Step::Before(_) | Step::After(_), None) => unreachable!("those are steps of the disk"),
        }
        sprung
    }

    /// Takes a server's trap away, if one is set.
    pub fn clear_trap(&self, server: usize) {
        self.host(server).disk().clear_trap();
        self.snare(server).clear();
    }

    fn snare(&self, server: usize) -> Snare {
        self.lock()[server].snare.clone()
    }

    /// A server's disk is replaced by an empty one; its process is killed if it runs.
    pub fn lose_disk(&self, server: usize) {
        self.power_cut(server, Survival::Nothing);
        let disk = self.host(server).disk();
        let log = disk.keys(Keyspace::Log).into_iter();
        let log = log.filter_map(|key| Some((key.clone(), disk.durable(Keyspace::Log, &key)?)));
        let mut log: BTreeMap<Bytes, Bytes> = log.collect();
        disk.lose_everything();
        let mut members = self.lock();
        let member = &mut members[server];
        log.append(&mut member.flipped);
        member.lost_disks.push((member.disk, log));
        drop(members);
        self.0.witness.noted(self.0.world.now(), server, Fact::Wiped);
    }

    /// Changes a value on a server's disk behind its back. What was safe there before it was changed was acknowledged rightly.
    pub fn corrupt(&self, server: usize, keyspace: Keyspace, key: &Bytes, change: impl FnOnce(&mut Vec<u8>)) {
        let disk = self.host(server).disk();
        if let (Keyspace::Log, Some(value)) = (keyspace, disk.durable(keyspace, key)) {
            let mut members = self.lock();
            members[server].flipped.entry(key.clone()).or_insert(value);
        }
        disk.corrupt(keyspace, key, change);
    }

    /// Starts a server again, on the disk it left; kills it first if it runs.
    pub fn restart(&self, server: usize) {
        self.down(server, None);
        self.host(server).restart();
    }

    /// Ends every fault: starts every server that is down, lets paused ones go on, opens all links and gives them, the
    /// clocks and the disks their normal behaviour.
    pub fn heal(&self) {
        self.heal_except(&BTreeSet::new());
    }

    /// As [`Cluster::heal`], but leaves some servers as they are.
    pub fn heal_except(&self, broken: &BTreeSet<usize>) {
        let network = self.0.world.network();
        network.heal();
        network.reset_links();
        network.set_default_link(Link::default());
        for server in (0..self.len()).filter(|server| !broken.contains(server)) {
            self.clear_trap(server);
            let host = self.host(server);
            host.resume();
            host.set_drift_ppm(0);
            host.disk().restore();
            if !host.is_up() {
                self.restart(server);
            }
        }
    }

    /// The version of commands that a server's program knows.
    pub fn command_version(&self, server: usize) -> u8 {
        self.lock()[server].command_version
    }

    /// Exchanges a server's program by one that knows this version of commands; it runs from the next start on.
    pub fn set_command_version(&self, server: usize, version: u8) {
        self.lock()[server].command_version = version;
    }

    /// A server's HTTP address.
    pub fn http_address(&self, server: usize) -> String {
        SocketAddr::new(self.host(server).ip(), HTTP_PORT).to_string()
    }

    /// An agent is started that serves here.
    pub fn add_agent(&self, agent: usize, address: String) {
        self.agents().insert(agent, address);
    }

    /// Where a server serves, or an agent in the place of one; none while that was never started.
    pub fn address_of(&self, server: u8) -> Option<String> {
        match ServerNumber(server).agent() {
            Some(agent) => self.agents().get(&agent).cloned(),
            None => Some(self.http_address(usize::from(server))),
        }
    }

    fn agents(&self) -> MutexGuard<'_, BTreeMap<usize, String>> {
        self.0.agents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A server's Raft id and addresses.
    pub fn identity(&self, server: usize) -> (ServerId, ServerAddress) {
        let ip = self.host(server).ip();
        let address = ServerAddress {
            raft: SocketAddr::new(ip, RAFT_PORT).to_string().into(),
            http: SocketAddr::new(ip, HTTP_PORT).to_string().into(),
        };
        (ServerId(format!("s{server}").into()), address)
    }

    /// A new client on a host of its own.
    pub fn client(&self, name: &str) -> Client {
        let host = self.0.world.host(name);
        Client {
            cluster: self.clone(),
            network: host.network(0),
            host,
        }
    }

    /// The server that leads the newest term, as far as any server knows; a deposed one may not know it yet.
    pub fn leads(&self) -> Option<usize> {
        let leaders = (0..self.len()).filter_map(|number| {
            let status = self.server(number)?.status();
            (status.role == Role::Leader).then_some((status.term, number))
        });
        leaders.max().map(|(_, number)| number)
    }

    /// Waits until a server leads; `None` if none does in time.
    pub async fn leader(&self, within: Duration) -> Option<usize> {
        let deadline = self.0.world.now() + within;
        loop {
            let leader = self.leads();
            if leader.is_some() || self.0.world.now() >= deadline {
                return leader;
            }
            self.0.world.sleep(LOOK_AGAIN).await;
        }
    }

    /// Waits until these servers run and have applied the same log, with the same digest.
    ///
    /// # Errors
    /// What differs, if they do not in time.
    pub async fn converged(&self, servers: &[usize], within: Duration) -> Result<(), String> {
        let deadline = self.0.world.now() + within;
        loop {
            let verdict = self.compare(servers);
            if verdict.is_ok() || self.0.world.now() >= deadline {
                return verdict;
            }
            self.0.world.sleep(LOOK_AGAIN).await;
        }
    }

    fn compare(&self, servers: &[usize]) -> Result<(), String> {
        let mut expected = None;
        for &number in servers {
            let server = self.server(number).ok_or_else(|| match self.stopped(number) {
                Some(reason) => format!("s{number} has stopped: {reason}"),
                None => format!("s{number} does not run"),
            })?;
            let status = server.status();
            if let Some(reason) = status.fatal {
                return Err(format!("s{number} serves no more: {reason}"));
            }
            if status.applied_index != status.last_log_index {
                let (applied, last) = (status.applied_index, status.last_log_index);
                return Err(format!("s{number} has applied up to {applied} of {last}"));
            }
            let this = (status.applied_index, server.digest().1);
            if *expected.get_or_insert(this) != this {
                return Err(format!("s{number} is at {this:x?}, others at {expected:x?}"));
            }
        }
        Ok(())
    }

    fn down(&self, server: usize, reason: Option<&str>) {
        let mut members = self.lock();
        let member = &mut members[server];
        member.server = None;
        member.stopped = reason.map(str::to_owned);
        let was_up = member.host.is_up();
        drop(members);
        if was_up {
            self.0.witness.stopped(self.0.world.now(), server, reason);
        }
    }

    /// The program of a server's host.
    async fn serve(self, number: usize, host: Host) {
        self.0.witness.started(self.0.world.now(), number);
        let reason = match self.run(number, &host).await {
            Ok(Finish::GaveWay) => {
                self.restart_empty(number, &host);
                "gave way to another cluster".to_owned()
            }
            Ok(Finish::Stopped) => {
                let fatal = self.server(number).and_then(|server| server.status().fatal);
                fatal.unwrap_or_else(|| "stopped".to_owned())
            }
            Err(error) => error,
        };
        self.down(number, Some(&reason));
    }

    /// Runs a server until it ends by itself.
    async fn run(&self, number: usize, host: &Host) -> Result<Finish, String> {
        let network = host.network(RAFT_PORT);
        let routes = Arc::new(OnceLock::new());
        let handler = http_handler(routes.clone());
        network
            .serve_http(HTTP_PORT, handler.clone())
            .map_err(|error| error.to_string())?;
        let observer = Arc::new(Reporter {
            world: self.0.world.clone(),
            witness: self.0.witness.clone(),
            cluster: Arc::downgrade(&self.0),
            number,
            host: host.clone(),
            incarnation: host.incarnation(),
            snare: self.snare(number),
        });
        let disk = host.disk();
        let running = server::start::<SimRuntime>(self.start_config(number), disk.clone(), network, observer)
            .await
            .map_err(|error| error.to_string())?;
        // Nobody else sets them, so they are not set yet.
        let api = self.0.api.get_or_init(http::routes).clone();
        let _ = routes.set(http::router_of(api, running.server.clone()));
        {
            let member = &mut self.lock()[number];
            member.server = Some(running.server.clone());
            member.http = Some(handler);
        }
        let finish = running.finished().await;
        if finish == Finish::GaveWay {
            server::wipe(&disk).await.map_err(|error| error.to_string())?;
            self.0.witness.noted(self.0.world.now(), number, Fact::Wiped);
        }
        Ok(finish)
    }

    /// Starts a server that gave way again, in a new process.
    fn restart_empty(&self, number: usize, host: &Host) {
        let (cluster, incarnation) = (self.clone(), host.incarnation());
        self.0.world.spawn(async move {
            cluster.0.world.sleep(RESTART_TIME).await;
            let host = cluster.host(number);
            if host.incarnation() == incarnation && !host.is_up() {
                cluster.restart(number);
            }
        });
    }

    fn start_config(&self, number: usize) -> StartConfig {
        let options = &self.0.options;
        let mut raft = options.raft.clone();
        (raft.id, raft.address) = self.identity(number);
        raft.command_version = self.command_version(number);
        let of_the_first = number < options.servers;
        let (bootstrap, join) = match options.formation {
            Formation::Bootstrap if number == 0 => (
                Bootstrap::Cluster((0..options.servers).map(|number| self.identity(number)).collect()),
                vec![],
            ),
            Formation::Bootstrap if of_the_first => (Bootstrap::Wait, vec![]),
            // Whoever starts it again on an empty disk must not tell it to start another cluster, and adds it himself: what
            // a server asks for on its own may take a minute, longer than a run.
            Formation::Join if !self.lock()[number].lost_disks.is_empty() => (Bootstrap::Wait, vec![]),
            Formation::Join if number == 0 => (Bootstrap::Cluster([self.identity(0)].into()), vec![]),
            Formation::Join if of_the_first => (Bootstrap::Wait, vec![self.http_address(0)]),
            Formation::Implicit => (Bootstrap::Implicit, vec![]),
            Formation::Bootstrap | Formation::Join => (Bootstrap::Wait, vec![]),
        };
        StartConfig {
            raft,
            server: ServerConfig {
                // Shorter than users may have it: a schedule lasts seconds.
                session_ttl_min: Duration::from_millis(100),
                restore_idle: Bounds::default().restore_idle,
                stream_keep_alive: streams::KEEP_ALIVE,
                stream_life: streams::LIFE,
                // What swallows a step is over, when all is healed, before the end.
                restore_step: options.server.write_timeout,
                ..options.server.clone()
            },
            bootstrap,
            join,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Member>> {
        self.0.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Serves the real router of a server or an agent, or 503 until there is one.
pub(crate) fn http_handler(routes: Arc<OnceLock<Router>>) -> HttpHandler {
    Arc::new(move |request| {
        let routes = routes.get().cloned();
        Box::pin(async move {
            let Some(routes) = routes else {
                let body = Bytes::from_static(b"the server is starting");
                let mut starting = ::http::Response::new(body.into());
                *starting.status_mut() = ::http::StatusCode::SERVICE_UNAVAILABLE;
                return starting;
            };
            let Ok(answer) = routes.oneshot(request.map(Full::new)).await;
            let goes_on = answer
                .headers()
                .get(::http::header::CONTENT_TYPE)
                .is_some_and(|it| it == streams::CONTENT_TYPE);
            let (head, body) = answer.into_parts();
            let body = if goes_on {
                let pieces = body.into_data_stream();
                Body::Pieces(pieces.map(|piece| piece.expect("events do not fail")).boxed())
            } else {
                let body = body.collect().await;
                Body::Whole(body.expect("answers are made in memory").to_bytes())
            };
            ::http::Response::from_parts(head, body)
        })
    })
}
