//! An agent with real servers, on a clock that the test moves: the servers are stand-ins of one member behind the real
//! router, and the network between does what the test says.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    io,
    ops::Bound,
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll},
    time::Duration,
};

use axum::{Router, body::Body};
use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt as _};
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::Value;
use tokio::sync::oneshot;
use tower::ServiceExt as _;

use crate::{
    agent::{Agent, AgentConfig, ConfigFile, bind_checks},
    registry::{
        CheckId, CheckKey, CheckStatus, Command, InstanceId, InstanceKey, Namespace, NodeName, Query,
        Registry, View,
    },
    runtime::{
        Change, Disk, DiskView, Instant, Keyspace, Network, NetworkError, PeerHandler, Probe, ProbeOutcome,
        Prober, Runtime, TaskFailed,
    },
    server::{
        Platform as _, Server,
        standin::{self, Standin, TestPlatform},
    },
};

thread_local! {
    static PLATFORM: RefCell<Option<Arc<TestPlatform>>> = const { RefCell::new(None) };
}

/// The platform of the test that runs on this thread.
fn platform() -> Arc<TestPlatform> {
    PLATFORM.with_borrow(|platform| platform.clone().expect("a World is made first"))
}

/// [`Runtime`] on the [`TestPlatform`] of this thread's test.
#[derive(Clone, Debug)]
pub(super) struct TestRuntime;

impl Runtime for TestRuntime {
    type Sleep = BoxFuture<'static, ()>;
    type Task<T: Send + 'static> = TestTask<T>;
    type Disk = TestDisk;
    type Network = TestNetwork;
    type Prober = TestProber;

    fn now() -> Instant {
        platform().now()
    }

    fn wall_ms() -> u64 {
        platform().now().0 / 1_000_000
    }

    fn sleep_until(deadline: Instant) -> Self::Sleep {
        platform().sleep_until(deadline)
    }

    fn spawn<F>(future: F) -> Self::Task<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let (sender, receiver) = oneshot::channel();
        platform().spawn(
            async move {
                let output = AssertUnwindSafe(future).catch_unwind().await;
                // Nobody may be waiting for it.
                drop(sender.send(output.map_err(|_| TaskFailed("it panicked".into()))));
            }
            .boxed(),
        );
        TestTask(receiver)
    }

    fn random_u64() -> u64 {
        // The platform's sequence begins with small numbers.
        xxhash_rust::xxh3::xxh3_64(&platform().random_u64().to_be_bytes())
    }
}

pub(super) struct TestTask<T>(oneshot::Receiver<Result<T, TaskFailed>>);

impl<T> Future for TestTask<T> {
    type Output = Result<T, TaskFailed>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.0
            .poll_unpin(context)
            .map(|output| output.unwrap_or_else(|_| Err(TaskFailed("it was cancelled".into()))))
    }
}

/// What the network does with requests to one server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Link {
    Up,
    /// Connections are refused.
    Refuses,
    /// Requests arrive nowhere and are not answered.
    Silent,
    /// Requests arrive; their answers are lost.
    LosesAnswers,
    /// Requests arrive this many seconds late; nobody waits for their answers any more.
    Late(u64),
}

/// The network between the agent and its servers.
#[derive(Clone, Default)]
pub(super) struct TestNetwork(Arc<Mutex<Wires>>);

#[derive(Default)]
struct Wires {
    servers: BTreeMap<String, (Router, Link)>,
    /// Requests of which the body contains this are refused with 400.
    refused: Option<&'static str>,
    /// Whether all requests are answered with 500.
    without_leader: bool,
    /// Writes that were sent: path and body.
    writes: Vec<(String, String)>,
    /// Paths of reads that were sent.
    reads: Vec<String>,
}

impl TestNetwork {
    fn wires(&self) -> MutexGuard<'_, Wires> {
        self.0.lock().expect("no holder of this lock panics")
    }
}

impl Network for TestNetwork {
    async fn call(&self, address: &str, _: Bytes, _: Duration) -> Result<Bytes, NetworkError> {
        Err(NetworkError::Unreachable {
            address: address.into(),
            reason: "an agent calls no peers".into(),
        })
    }

    async fn listen(&self, _: PeerHandler) -> io::Result<()> {
        Ok(())
    }

    async fn http(
        &self,
        address: &str,
        request: Request<Bytes>,
        timeout: Duration,
    ) -> Result<Response<Bytes>, NetworkError> {
        let text = String::from_utf8_lossy(request.body()).into_owned();
        let (router, link, refused) = {
            let mut wires = self.wires();
            if request.method() == Method::GET {
                wires.reads.push(request.uri().to_string());
            } else {
                wires.writes.push((request.uri().path().into(), text.clone()));
            }
            let (router, link) = wires.servers.get(address).expect("a server of the test").clone();
            (router, link, wires.refused)
        };
        let lost = || NetworkError::OutcomeUnknown {
            address: address.into(),
            reason: "timed out".into(),
        };
        if link == Link::Refuses {
            return Err(NetworkError::Unreachable {
                address: address.into(),
                reason: "connection refused".into(),
            });
        }
        if self.wires().without_leader {
            let response = Response::builder().status(StatusCode::INTERNAL_SERVER_ERROR);
            return Ok(response
                .body(Bytes::from_static(b"No cluster leader"))
                .expect("a valid response"));
        }
        if link == Link::Silent {
            TestRuntime::sleep(timeout).await;
            return Err(lost());
        }
        if refused.is_some_and(|refused| text.contains(refused)) {
            let response = Response::builder().status(StatusCode::BAD_REQUEST);
            return Ok(response
                .body(Bytes::from_static(b"the test refuses it"))
                .expect("a valid response"));
        }
        if let Link::Late(seconds) = link {
            drop(TestRuntime::spawn(async move {
                TestRuntime::sleep(Duration::from_secs(seconds)).await;
                answer(router, request).await
            }));
            TestRuntime::sleep(timeout).await;
            return Err(lost());
        }
        let answer = TestRuntime::timeout(timeout, answer(router, request)).await;
        if link == Link::LosesAnswers {
            TestRuntime::sleep(timeout).await;
            return Err(lost());
        }
        answer.ok_or_else(lost)
    }
}

async fn answer(router: Router, request: Request<Bytes>) -> Response<Bytes> {
    let response = router
        .oneshot(request.map(Body::from))
        .await
        .expect("a router is infallible");
    let (parts, body) = response.into_parts();
    let body = body.collect().await.expect("a body in memory").to_bytes();
    Response::from_parts(parts, body)
}

/// What probes find, by URL, address or first argument; what is not there can't be reached.
#[derive(Clone, Default)]
pub(super) struct TestProber(Arc<Mutex<Targets>>);

#[derive(Default)]
struct Targets {
    outcomes: BTreeMap<String, ProbeOutcome>,
    runs: BTreeMap<String, Vec<Instant>>,
}

impl Prober for TestProber {
    async fn probe(&self, probe: &Probe, _: Duration) -> ProbeOutcome {
        let target = match probe {
            Probe::Http { url, .. } => url,
            Probe::Tcp { address, .. }
            | Probe::Udp { address }
            | Probe::Grpc { address, .. }
            | Probe::H2ping { address, .. } => address,
            Probe::Command { args } => &args[0],
        };
        let mut targets = self.0.lock().expect("no holder of this lock panics");
        let runs = targets.runs.entry(target.clone()).or_default();
        runs.push(TestRuntime::now());
        let found = targets.outcomes.get(target).cloned();
        drop(targets);
        assert!(target != "panic", "the prober panics, as the test asked");
        found.unwrap_or(ProbeOutcome::Failed {
            output: "connection refused".into(),
        })
    }
}

/// A disk in memory that survives its agent, less what was not synced, and fails when it is told to.
#[derive(Clone, Debug, Default)]
pub(super) struct TestDisk(Arc<Mutex<Pages>>);

#[derive(Clone, Debug, Default)]
struct Pages {
    rows: BTreeMap<(Keyspace, Bytes), Bytes>,
    /// What a crash leaves.
    synced: BTreeMap<(Keyspace, Bytes), Bytes>,
    fails: bool,
}

impl TestDisk {
    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.0.lock().expect("no holder of this lock panics")
    }
}

impl Disk for TestDisk {
    type View = TestDisk;

    async fn get(&self, keyspace: Keyspace, key: &[u8]) -> io::Result<Option<Bytes>> {
        DiskView::get(self, keyspace, key).await
    }

    async fn range(
        &self,
        keyspace: Keyspace,
        from: &[u8],
        to: Option<&[u8]>,
        limit: usize,
    ) -> io::Result<Vec<(Bytes, Bytes)>> {
        DiskView::range(self, keyspace, from, to, limit).await
    }

    async fn last(&self, keyspace: Keyspace) -> io::Result<Option<(Bytes, Bytes)>> {
        Ok(DiskView::range(self, keyspace, b"", None, usize::MAX)
            .await?
            .pop())
    }

    async fn write(&self, batch: Vec<Change>) -> io::Result<()> {
        let mut pages = self.pages();
        if pages.fails {
            return Err(io::Error::other("the disk is full"));
        }
        for change in batch {
            match change {
                Change::Put(keyspace, key, value) => {
                    pages.rows.insert((keyspace, key), value);
                }
                Change::Delete(keyspace, key) => {
                    pages.rows.remove(&(keyspace, key));
                }
                Change::DeleteRange(keyspace, from, to) => {
                    pages
                        .rows
                        .retain(|(space, key), _| *space != keyspace || *key < from || *key >= to);
                }
            }
        }
        Ok(())
    }

    async fn sync(&self) -> io::Result<()> {
        let mut pages = self.pages();
        if pages.fails {
            return Err(io::Error::other("the disk is full"));
        }
        pages.synced = pages.rows.clone();
        Ok(())
    }

    async fn view(&self) -> io::Result<TestDisk> {
        let pages = self.pages().clone();
        Ok(TestDisk(Arc::new(Mutex::new(pages))))
    }
}

impl DiskView for TestDisk {
    async fn get(&self, keyspace: Keyspace, key: &[u8]) -> io::Result<Option<Bytes>> {
        let key = (keyspace, Bytes::copy_from_slice(key));
        Ok(self.pages().rows.get(&key).cloned())
    }

    async fn range(
        &self,
        keyspace: Keyspace,
        from: &[u8],
        to: Option<&[u8]>,
        limit: usize,
    ) -> io::Result<Vec<(Bytes, Bytes)>> {
        let from = Bound::Included((keyspace, Bytes::copy_from_slice(from)));
        let rows = self.pages();
        let rows = rows.rows.range((from, Bound::Unbounded));
        let inside = rows.filter(|((space, key), _)| *space == keyspace && to.is_none_or(|to| key < to));
        Ok(inside
            .take(limit)
            .map(|((_, key), value)| (key.clone(), value.clone()))
            .collect())
    }
}

/// Servers `a:1`, `b:1`, …, each a cluster of its own, and what an agent needs to talk to them.
pub(super) struct World {
    pub(super) platform: Arc<TestPlatform>,
    servers: Vec<(Server, Arc<Standin>)>,
    network: TestNetwork,
    prober: TestProber,
    disk: TestDisk,
}

/// The name of the agent's node.
pub(super) const NODE: &str = "host-1";
/// Addresses of the servers, as many as a test wants.
const ADDRESSES: [&str; 2] = ["a:1", "b:1"];

impl World {
    pub(super) fn new() -> World {
        World::with_servers(1)
    }

    pub(super) fn with_servers(count: usize) -> World {
        let platform = TestPlatform::new();
        PLATFORM.set(Some(platform.clone()));
        let network = TestNetwork::default();
        let mut servers = Vec::new();
        for address in &ADDRESSES[..count] {
            let observer = Arc::new(crate::observe::NoObserver);
            let (server, standin) = standin::member(address, &platform, observer, false);
            standin.lead(1);
            let router = crate::api::http::router(server.clone());
            network
                .wires()
                .servers
                .insert((*address).into(), (router, Link::Up));
            servers.push((server, standin));
        }
        World {
            platform,
            servers,
            network,
            prober: TestProber::default(),
            disk: TestDisk::default(),
        }
    }

    /// The same servers, what of the disk a crash leaves, and a network of its own: the agents that were started before
    /// hear of nobody any more, as if they had been killed.
    pub(super) fn restarted(&self) -> World {
        {
            let mut pages = self.disk.pages();
            pages.rows = pages.synced.clone();
        }
        let servers = self.network.wires().servers.clone();
        for wire in self.network.wires().servers.values_mut() {
            wire.1 = Link::Refuses;
        }
        let network = TestNetwork::default();
        network.wires().servers = servers;
        World {
            platform: self.platform.clone(),
            servers: self.servers.clone(),
            network,
            prober: self.prober.clone(),
            disk: self.disk.clone(),
        }
    }

    /// The configuration of an agent with these services.
    pub(super) fn config(&self, services: Value) -> AgentConfig {
        let node = NodeName::parse(NODE).expect("a valid name");
        let address = "10.0.0.1";
        let file = ConfigFile::parse(&services).expect("a valid configuration");
        let servers = ADDRESSES[..self.servers.len()].iter().map(|a| (*a).into());
        let mut services = file.services(&node, address).expect("valid services");
        let checks = file.checks(&node, address).expect("valid checks");
        let checks = bind_checks(&mut services, checks).expect("checks of what is there");
        let settings = file.settings;
        AgentConfig {
            node_id: settings.node_id.unwrap_or_default(),
            node_meta: settings.node_meta.unwrap_or_default(),
            services,
            checks,
            ..AgentConfig::new(node, address.into(), servers.collect())
        }
    }

    /// Starts an agent with these services; it has talked to its servers if they can be reached.
    pub(super) fn start(&self, services: Value) -> Agent<TestRuntime> {
        let agent = self.start_with(self.config(services)).expect("the agent starts");
        self.advance(Duration::from_millis(10));
        agent
    }

    pub(super) fn start_with(&self, config: AgentConfig) -> io::Result<Agent<TestRuntime>> {
        let start = Agent::start(
            config,
            self.network.clone(),
            self.prober.clone(),
            self.disk.clone(),
        );
        self.platform.run(start)
    }

    pub(super) fn advance(&self, duration: Duration) {
        self.platform.advance(duration);
    }

    pub(super) fn link(&self, server: usize, link: Link) {
        let mut wires = self.network.wires();
        let wire = wires.servers.get_mut(ADDRESSES[server]);
        wire.expect("a server of the test").1 = link;
    }

    /// At the first server's address there is an agent's own API from now on.
    pub(super) fn take_for_server(&self, agent: &Agent<TestRuntime>) {
        let mut wires = self.network.wires();
        let wire = wires.servers.get_mut(ADDRESSES[0]);
        wire.expect("a server of the test").0 = agent.router();
    }

    /// Whether servers answer, from now on, that they have no leader.
    pub(super) fn be_without_leader(&self, without: bool) {
        self.network.wires().without_leader = without;
    }

    /// Requests of which the body contains `text` are refused from now on.
    pub(super) fn refuse(&self, text: Option<&'static str>) {
        self.network.wires().refused = text;
    }

    /// Paths and bodies of the writes since the last look.
    pub(super) fn writes(&self) -> Vec<(String, String)> {
        std::mem::take(&mut self.network.wires().writes)
    }

    /// Paths of the reads since the last look.
    pub(super) fn reads(&self) -> Vec<String> {
        std::mem::take(&mut self.network.wires().reads)
    }

    /// What a probe of `target` finds from now on.
    pub(super) fn find(&self, target: &str, outcome: ProbeOutcome) {
        let mut targets = self.prober.0.lock().expect("no holder of this lock panics");
        targets.outcomes.insert(target.into(), outcome);
    }

    /// When `target` was probed.
    pub(super) fn runs(&self, target: &str) -> Vec<Instant> {
        let targets = self.prober.0.lock().expect("no holder of this lock panics");
        targets.runs.get(target).cloned().unwrap_or_default()
    }

    /// Changes what the disk holds under a key, in text.
    pub(super) fn tamper(&self, from: &str, to: &str) {
        let mut pages = self.disk.pages();
        let rows = pages.synced.values_mut();
        let mut changed = 0;
        for value in rows {
            let text = String::from_utf8_lossy(value).into_owned();
            if text.contains(from) {
                *value = Bytes::from(text.replace(from, to));
                changed += 1;
            }
        }
        assert_eq!(changed, 1, "one record has {from}");
    }

    pub(super) fn break_disk(&self) {
        self.disk.pages().fails = true;
    }

    /// The first server's state.
    pub(super) fn look<T: Send>(&self, look: impl FnOnce(&Registry) -> T + Send) -> T {
        let looked = self.servers[0].0.inspect(true, look);
        self.platform.run(looked).expect("a stale look needs no leader")
    }

    /// The first server forgets everything.
    pub(super) fn lose_everything(&self) {
        self.servers[0].1.install(Registry::default());
    }

    /// The first server forgets everything, and has a member that reads commands up to this version only, from now on.
    pub(super) fn begin_with_older_member(&self, version: u8) {
        self.servers[0].1.begin_as_first_version();
        self.exchange_member(version);
    }

    /// All members of the first server's cluster read commands up to this version from now on.
    pub(super) fn exchange_member(&self, version: u8) {
        self.servers[0].1.set_command_version(version);
    }

    /// Changes the first server's state behind the agent's back.
    pub(super) fn apply(&self, command: &Command) {
        let applied = self.servers[0].1.apply(command).applied;
        assert!(applied.reply.is_ok(), "{:?}", applied.reply);
    }

    /// Status and output of a check at the first server.
    pub(super) fn check(&self, id: &str) -> Option<(&'static str, String)> {
        let key = check_key(id);
        self.look(|registry| {
            let check = registry.check(&key)?;
            Some((check.status.as_str(), check.output.clone()))
        })
    }

    /// The status of a check at the first server; empty when it is not there.
    pub(super) fn status(&self, id: &str) -> &'static str {
        self.check(id).map_or("", |(status, _)| status)
    }

    /// Whether the first server has an instance of the agent's.
    pub(super) fn has(&self, id: &str) -> bool {
        let key = instance_key(id);
        self.look(|registry| registry.instance(&key).is_some())
    }

    /// How many checks are passing at a server.
    pub(super) fn passing_at(&self, at: usize) -> usize {
        let passing = |registry: &Registry| {
            let checks = registry.checks();
            checks
                .filter(|check| check.status == CheckStatus::Passing)
                .count()
        };
        let looked = self.servers[at].0.inspect(true, passing);
        self.platform.run(looked).expect("a stale look needs no leader")
    }

    /// Names of the nodes at a server.
    pub(super) fn nodes(&self, at: usize) -> Vec<String> {
        let query = Query::Nodes {
            node_meta: Vec::new(),
        };
        let view = self.servers[at]
            .0
            .inspect(true, move |registry| registry.query(&query));
        match self.platform.run(view).expect("a stale look needs no leader") {
            View::Nodes(nodes) => nodes.iter().map(|node| node.name.to_string()).collect(),
            other => panic!("nodes were asked for, not {other:?}"),
        }
    }

    /// A request at the agent's own API; the clock moves until it is answered.
    pub(super) fn ask(&self, agent: &Agent<TestRuntime>, method: &str, path: &str, body: &Value) -> Told {
        let body = match body {
            Value::Null => Bytes::new(),
            body => Bytes::from(body.to_string()),
        };
        let request = Request::builder().method(method).uri(path);
        self.send(agent, request.body(body).expect("a valid request"))
    }

    /// The same for a request as it is.
    pub(super) fn send(&self, agent: &Agent<TestRuntime>, request: Request<Bytes>) -> Told {
        Told::of(&self.platform.run(answer(agent.router(), request)))
    }

    /// Queries that wait at the first server.
    pub(super) fn parked(&self) -> usize {
        self.servers[0].0.watchers()
    }

    /// Begins to read something at the agent's own API. Its answer is there as soon as there is one.
    pub(super) fn begin(&self, agent: &Agent<TestRuntime>, path: &str) -> Arc<Mutex<Option<Told>>> {
        let told = Arc::new(Mutex::new(None));
        let (router, answered) = (agent.router(), told.clone());
        let request = Request::get(path).body(Bytes::new()).expect("a valid request");
        drop(TestRuntime::spawn(async move {
            let response = answer(router, request).await;
            *answered.lock().expect("no holder of this lock panics") = Some(Told::of(&response));
        }));
        self.advance(Duration::ZERO);
        told
    }

    pub(super) fn put(&self, agent: &Agent<TestRuntime>, path: &str, body: Value) -> Told {
        self.ask(agent, "PUT", path, &body)
    }

    pub(super) fn get(&self, agent: &Agent<TestRuntime>, path: &str) -> Told {
        self.ask(agent, "GET", path, &Value::Null)
    }
}

/// An answer of the agent's own API.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) status: u16,
    pub(super) headers: http::HeaderMap,
    pub(super) json: Value,
    pub(super) text: String,
}

impl Told {
    fn of(response: &Response<Bytes>) -> Told {
        let text = String::from_utf8_lossy(response.body()).into_owned();
        Told {
            status: response.status().as_u16(),
            headers: response.headers().clone(),
            json: serde_json::from_str(&text).unwrap_or(Value::Null),
            text,
        }
    }
}

pub(super) fn instance_key(id: &str) -> InstanceKey {
    InstanceKey {
        namespace: Namespace::default(),
        node: NodeName::parse(NODE).expect("a valid name"),
        id: InstanceId::parse(id).expect("a valid id"),
    }
}

pub(super) fn check_key(id: &str) -> CheckKey {
    CheckKey {
        namespace: Namespace::default(),
        node: NodeName::parse(NODE).expect("a valid name"),
        id: CheckId::parse(id).expect("a valid id"),
    }
}
