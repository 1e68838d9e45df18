//! A cluster of real servers on simulated hosts, and clients that speak HTTP to it over the simulated network.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use sider_core::{
    observe::{Observation, Observer},
    raft::{RaftConfig, ServerAddress, ServerId},
    runtime::{Network, NetworkError},
    server::Server,
};
use sider_runtime_sim::{Host, HostId, SimNetwork, SimTask, Survival, World, record_with};

/// Port of every server's Raft transport.
pub const RAFT_PORT: u16 = 8501;
/// Port of every server's HTTP API.
pub const HTTP_PORT: u16 = 8500;

/// How a cluster is made.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    /// How many servers.
    pub servers: usize,
    /// How they become a cluster.
    pub formation: Formation,
    /// Raft's settings; id and address are filled in.
    pub raft: RaftConfig,
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
        }
    }
}

/// How servers become a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Formation {
    /// The first one starts the cluster with all of them as members.
    Bootstrap,
    /// The first one starts a cluster of its own, and the others join it one by one.
    Join,
}

/// Is told what servers do, while they do it: it must be quick and must not call back.
pub trait Witness: Send + Sync + 'static {
    /// The process of a server was started.
    fn started(&self, at: Duration, server: usize);
    /// The process of a server has ended: it was killed, or it stopped by itself for the reason given.
    fn stopped(&self, at: Duration, server: usize, reason: Option<&str>);
    /// A server did something.
    fn observed(&self, at: Duration, server: usize, observation: &Observation<'_>);
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
    members: Mutex<Vec<Member>>,
}

struct Member {
    host: Host,
    /// The handle of the process that runs.
    server: Option<Server>,
    /// Why the last process stopped by itself.
    stopped: Option<String>,
}

impl Cluster {
    /// Makes the hosts and starts all servers. They have no leader yet.
    pub fn start(world: &World, options: ClusterOptions, witness: Arc<dyn Witness>) -> Cluster {
        let servers = options.servers;
        let parts = Parts {
            world: world.clone(),
            options,
            witness,
            members: Mutex::default(),
        };
        let cluster = Cluster(Arc::new(parts));
        for _ in 0..servers {
            cluster.add_server();
        }
        cluster
    }

    /// Adds a host with a server that is a member of no cluster yet, and starts it. Gives its number.
    pub fn add_server(&self) -> usize {
        let number = self.len();
        let host = self.0.world.host(&format!("s{number}"));
        self.lock().push(Member {
            host: host.clone(),
            server: None,
            stopped: None,
        });
        let cluster = self.clone();
        host.start(move |host| cluster.clone().serve(number, host));
        number
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

    /// Starts a server again, on the disk it left; kills it first if it runs.
    pub fn restart(&self, server: usize) {
        self.down(server, None);
        self.host(server).restart();
    }

    /// Starts every server that is down, lets paused ones go on, opens all links and makes them fast.
    pub fn heal(&self) {
        unimplemented!()
    }

    /// A server's HTTP address.
    pub fn http_address(&self, server: usize) -> String {
        SocketAddr::new(self.host(server).ip(), HTTP_PORT).to_string()
    }

    /// A server's Raft id and addresses.
    pub fn identity(&self, server: usize) -> (ServerId, ServerAddress) {
        let ip = self.host(server).ip();
        let address = ServerAddress {
            raft: SocketAddr::new(ip, RAFT_PORT).to_string(),
            http: SocketAddr::new(ip, HTTP_PORT).to_string(),
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

    /// Waits until some server leads and says so; `None` if none does in time.
    pub async fn leader(&self, within: Duration) -> Option<usize> {
        let _ = within;
        unimplemented!()
    }

    /// Waits until every server has applied as much as every other, with the same digest.
    ///
    /// # Errors
    /// What differs, if they do not in time.
    pub async fn converged(&self, within: Duration) -> Result<(), String> {
        let _ = within;
        unimplemented!()
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
    async fn serve(self, number: usize, _host: Host) {
        self.0.witness.started(self.0.world.now(), number);
        let _observer = Reporter {
            cluster: self.clone(),
            number,
        };
        let _ = &self.0.options;
        unimplemented!()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Member>> {
        self.0.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Passes on what one server observes, to the trace and to the witness.
struct Reporter {
    cluster: Cluster,
    number: usize,
}

impl Observer for Reporter {
    fn observe(&self, observation: Observation<'_>) {
        record_with("observe", &[], || format!("{observation:?}"));
        let Parts { world, witness, .. } = &*self.cluster.0;
        witness.observed(world.now(), self.number, &observation);
    }
}

/// A client on a host of its own. Clones are the same client.
#[derive(Clone)]
pub struct Client {
    cluster: Cluster,
    host: Host,
    network: SimNetwork,
}

impl Client {
    /// Its host: links, clocks, pauses.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Sends a request to a server; the URI holds path and query only. Waits for `patience` by this host's clock, then
    /// hangs up.
    ///
    /// # Errors
    /// No answer: certainly not carried out, or outcome unknown.
    pub async fn send(
        &self,
        server: usize,
        request: http::Request<Bytes>,
        patience: Duration,
    ) -> Result<http::Response<Bytes>, NetworkError> {
        self.network
            .http(&self.cluster.http_address(server), request, patience)
            .await
    }

    /// Runs something on its host, by its clock.
    pub fn spawn<F>(&self, future: F) -> SimTask<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.host.spawn(future)
    }
}
