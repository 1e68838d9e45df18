//! The agent on a service's host: registers the services of its configuration and of its own API on its node, runs
//! their checks, renews TTLs, and keeps the servers in step with what it knows.
//!
//! Reading order; a module imports only from those above it in this list:
//!
//! 1. `servers` calls whichever server answers.
//! 2. `local` is what the agent wants, and what of it the servers have yet to be told.
//! 3. `wire` is the JSON in between; `compare` finds what the servers hold otherwise.
//! 4. `store` is what survives a restart; `registrations` and `config` read what people wrote.
//! 5. `writer`, `auditor` and `prober` are the tasks: the first sends, the second looks, the third runs checks, for which
//!    `elsewhere` follows other nodes.
//! 6. `reload` takes on what configuration files say now.
//! 7. `api` is the agent's own HTTP API, with what it sends on to servers (`waits` once for all who wait for the same);
//!    `cache` keeps what `?cached` asks for.
//!
//! When checks are due, and how an outcome becomes a status, is in [`crate::probing`].
//!
//! Nothing here gives up: a server that can't be reached is tried again, after a wait that grows to a bound, and the
//! next one meanwhile. What an agent sends says how things should be, so sending it twice does no harm.

mod api;
mod auditor;
mod cache;
mod compare;
mod config;
mod elsewhere;
mod local;
mod prober;
mod registrations;
mod reload;
mod servers;
mod store;
#[cfg(test)]
mod tests;
mod wire;
mod writer;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::join;
use http::Method;
use tokio::sync::{Notify, Semaphore};

pub use self::config::{
    ConfigError, ConfigFile, ConfiguredCheck, ConfiguredService, Settings, bind_checks, refuse_duplicates,
};
use self::{
    api::waits::Waits,
    cache::Cache,
    local::{Kept, Local},
    registrations::Registrar,
    reload::Configured,
    servers::{CallError, Servers},
    store::{Report, Store, Stored},
};
use crate::{
    api::http::requests::plain_node,
    limits::{
        AGENT_BACKOFF_MAX, AGENT_BACKOFF_MIN, AGENT_CALL_TIMEOUT, AGENT_FORWARDS_MAX, AGENT_SHUTDOWN_TIMEOUT,
        AGENT_SYNC_INTERVAL, AGENT_WAITERS_MAX,
    },
    probing::schedule::Backoff,
    registry::{CheckKey, Namespace, Node, NodeName},
    runtime::{Change, Runtime},
    server::Host,
};

/// How an agent runs.
#[derive(Clone, Debug)]
pub struct AgentConfig {
    /// Its node. No other agent may have a node of that name.
    pub node: NodeName,
    /// Where the node is reached: the address of services that name none.
    pub address: String,
    /// Name of the servers' datacenter, as answers have it.
    pub datacenter: String,
    /// HTTP addresses of servers, `host:port`; at least one.
    pub servers: Vec<String>,
    /// The node's id, a UUID; empty for none.
    pub node_id: String,
    /// The node's meta.
    pub node_meta: BTreeMap<String, String>,
    /// Services to register with their checks, as [`ConfigFile::services`] gives them.
    pub services: Vec<ConfiguredService>,
    /// Checks of the node to register, as [`bind_checks`] leaves them.
    pub checks: Vec<ConfiguredCheck>,
    /// Whether checks that come through the agent's own API may run programs.
    pub enable_script_checks: bool,
    /// TTL of the check `serfHealth` of the node, which the agent renews, so that the servers learn of a dead host; `None` for
    /// no such check.
    pub node_ttl: Option<Duration>,
    /// Between two comparisons with the servers.
    pub sync_interval: Duration,
    /// The process around the agent, for `/v1/agent/{host,metrics,monitor,reload}`.
    pub host: Option<Arc<dyn Host>>,
}

impl AgentConfig {
    /// An agent with no services of its own.
    pub fn new(node: NodeName, address: String, servers: Vec<String>) -> Self {
        AgentConfig {
            node,
            address,
            datacenter: "dc1".to_owned(),
            servers,
            node_id: String::new(),
            node_meta: BTreeMap::new(),
            services: Vec::new(),
            checks: Vec::new(),
            enable_script_checks: false,
            node_ttl: None,
            sync_interval: AGENT_SYNC_INTERVAL,
            host: None,
        }
    }
}

/// A running agent. Cheap to clone; it runs until [`Agent::shutdown`], or until its process ends.
#[derive(Clone)]
pub struct Agent<R: Runtime>(Arc<Shared<R>>);

impl<R: Runtime> fmt::Debug for Agent<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Agent").field(&self.0.config.node).finish()
    }
}

/// What the parts of an agent share.
struct Shared<R: Runtime> {
    config: AgentConfig,
    servers: Servers<R>,
    prober: R::Prober,
    store: Store<R::Disk>,
    /// Never held across an await.
    local: Mutex<Local>,
    /// What the configuration registered, with the checks that it gave each.
    configured: Mutex<Configured>,
    /// Told when a service or a check is another one, or gone.
    news: Notify,
    /// Namespaces in which there is, or once was, something of this agent.
    namespaces: Mutex<BTreeSet<Namespace>>,
    /// Held while a change is written to the disk and taken on: both happen in one order.
    changing: tokio::sync::Mutex<()>,
    /// Held while the servers are written to.
    writing: tokio::sync::Mutex<()>,
    /// Requests of the agent's API that may wait for the servers.
    waiting: Semaphore,
    /// Requests that are being sent on to servers.
    forwarding: Semaphore,
    cache: Cache,
    waits: Waits,
    probes_running: AtomicUsize,
    stopping: AtomicBool,
    wake_writer: Notify,
    wake_auditor: Notify,
    wake_prober: Notify,
}

impl<R: Runtime> Agent<R> {
    /// Reads what the agent kept on its disk, takes on its services, and starts its tasks. Ends at once, whether any
    /// server can be reached or not.
    ///
    /// # Errors
    /// The disk fails, or the configured services contradict each other.
    ///
    /// # Panics
    /// The configuration names no server.
    pub async fn start(
        config: AgentConfig,
        network: R::Network,
        prober: R::Prober,
        disk: R::Disk,
    ) -> io::Result<Agent<R>> {
        let (store, stored) = Store::open(disk).await?;
        let mut local = Local::new(Node {
            id: config.node_id.clone(),
            meta: config.node_meta.clone(),
            ..plain_node(config.node.clone(), &config.address)
        });
        let checks = reload::with_aliveness(&config, config.checks.clone());
        let configured = reload::configured(&config.services, &checks);
        let contradicts = |reason| io::Error::new(io::ErrorKind::InvalidInput, reason);
        for check in checks {
            reload::put_check::<R>(&mut local, check.0).map_err(contradicts)?;
        }
        for service in config.services.clone() {
            reload::put::<R>(&mut local, service.0, true).map_err(contradicts)?;
        }
        let mut stale = restore::<R>(&config, &mut local, &stored);
        // What is reported from now on counts.
        stale.extend(restore_reports::<R>(&mut local, stored.reports));
        local.await_tags();
        let mut batch: Vec<Change> = stale.into_iter().map(store::remove).collect();
        let mut namespaces = stored.namespaces;
        let fresh: BTreeSet<Namespace> = local.namespaces().difference(&namespaces).cloned().collect();
        batch.extend(fresh.iter().map(store::put_namespace));
        store.write(batch).await?;
        namespaces.extend(fresh);
        let shared = Arc::new(Shared {
            servers: Servers::new(network, config.servers.clone()),
            config,
            prober,
            store,
            local: Mutex::new(local),
            configured: Mutex::new(configured),
            news: Notify::new(),
            namespaces: Mutex::new(namespaces),
            changing: tokio::sync::Mutex::default(),
            writing: tokio::sync::Mutex::default(),
            waiting: Semaphore::new(AGENT_WAITERS_MAX),
            forwarding: Semaphore::new(AGENT_FORWARDS_MAX),
            cache: Cache::default(),
            waits: Waits::default(),
            probes_running: AtomicUsize::new(0),
            stopping: AtomicBool::new(false),
            wake_writer: Notify::new(),
            wake_auditor: Notify::new(),
            wake_prober: Notify::new(),
        });
        drop(R::spawn(writer::run(shared.clone())));
        drop(R::spawn(auditor::run(shared.clone())));
        drop(R::spawn(prober::run(shared.clone())));
        Ok(Agent(shared))
    }

    /// The agent's own HTTP API, without IO.
    pub fn router(&self) -> axum::Router {
        api::router(self.0.clone())
    }

    /// Stops the agent and deregisters its node with everything on it, trying for at most
    /// [`AGENT_SHUTDOWN_TIMEOUT`]. What was registered through its API comes back when it is started again, with what
    /// services reported as long as that holds.
    ///
    /// # Errors
    /// The servers could not be told; TTL checks will expire, other checks keep their last status.
    pub async fn shutdown(&self) -> Result<(), String> {
        self.begin_to_stop();
        let shared = &self.0;
        let keep = R::timeout(AGENT_SHUTDOWN_TIMEOUT, keep_reports(shared));
        let deregister = R::timeout(AGENT_SHUTDOWN_TIMEOUT, deregister_node(shared));
        let (_, deregistered) = join(keep, deregister).await;
        deregistered.unwrap_or_else(|| Err(format!("no server answered within {AGENT_SHUTDOWN_TIMEOUT:?}")))
    }

    /// Stops the agent and leaves with the servers what it registered: what it does not come back to renew expires.
    pub async fn stop(&self) {
        self.begin_to_stop();
        // What is being sent arrives whole.
        R::timeout(AGENT_SHUTDOWN_TIMEOUT, self.0.writing.lock()).await;
    }

    fn begin_to_stop(&self) {
        let shared = &self.0;
        shared.stopping.store(true, Ordering::SeqCst);
        for wake in [&shared.wake_writer, &shared.wake_auditor, &shared.wake_prober] {
            wake.notify_one();
        }
        shared.news.notify_waiters();
    }
}

/// Keeps on the disk what services reported on their TTL checks: nobody else knows it once they are deregistered.
async fn keep_reports<R: Runtime>(shared: &Shared<R>) {
    let wall_ms = R::wall_ms();
    let kept = shared.local().reports_to_keep(R::now()).into_iter();
    let batch = kept.map(|kept| {
        let left_ms = u64::try_from(kept.left.as_millis()).unwrap_or(u64::MAX);
        store::put_report(
            kept.key,
            kept.status,
            kept.output,
            wall_ms.saturating_add(left_ms),
        )
    });
    if let Err(error) = shared.store.write(batch.collect()).await {
        tracing::warn!("what services reported last is lost: {error}");
    }
}

async fn deregister_node<R: Runtime>(shared: &Shared<R>) -> Result<(), String> {
    // A registration under way ends first: it must not overtake its own removal.
    let _writing = shared.writing.lock().await;
    let body = Bytes::from(wire::deregister_node(shared.local().node()).to_string());
    let mut backoff = Backoff::new(AGENT_BACKOFF_MIN, AGENT_BACKOFF_MAX);
    loop {
        let path = "/v1/catalog/deregister";
        match shared
            .servers
            .call(&Method::PUT, path, &body, AGENT_CALL_TIMEOUT)
            .await
        {
            Ok(_) => return Ok(()),
            Err(error) if error.not_found() => return Ok(()),
            Err(CallError::Refused { message, .. }) => return Err(message),
            Err(CallError::Unavailable(reason)) => {
                tracing::warn!("could not deregister yet: {reason}");
                R::sleep(backoff.failed(R::random_u64())).await;
            }
        }
    }
}

/// Takes on what was registered through the agent's API before it was restarted. The configuration has precedence. Gives
/// the records that are of no use any more.
fn restore<R: Runtime>(config: &AgentConfig, local: &mut Local, stored: &Stored) -> Vec<Bytes> {
    let registrar = Registrar::new(local.node().clone(), config.enable_script_checks);
    let of_config: BTreeSet<CheckKey> = local.checks().map(|(key, _)| key.clone()).collect();
    let mut stale = Vec::new();
    let mut take = |key: &Bytes, taken: Result<(), String>| {
        if let Err(reason) = taken {
            let record = String::from_utf8_lossy(key).replace(char::is_control, "/");
            tracing::warn!(
                record,
                "dropping a registration made through the API before: {reason}"
            );
            stale.push(key.clone());
        }
    };
    for (key, record) in &stored.services {
        take(key, registrar.restore_service::<R>(local, record, &of_config));
    }
    for (key, record) in &stored.checks {
        take(key, registrar.restore_check::<R>(local, record, &of_config));
    }
    stale
}

/// Takes on what services reported before the agent was stopped. Gives all records of that.
fn restore_reports<R: Runtime>(local: &mut Local, reports: Vec<(Bytes, Report)>) -> Vec<Bytes> {
    let (now, wall_ms) = (R::now(), R::wall_ms());
    let mut records = Vec::new();
    for (record, report) in reports {
        records.push(record);
        let left = Duration::from_millis(report.expires_ms.saturating_sub(wall_ms));
        if !left.is_zero() {
            let kept = Kept {
                key: report.check,
                status: report.status,
                output: report.output,
                left,
            };
            local.restore_report(kept, now);
        }
    }
    records
}

impl<R: Runtime> Shared<R> {
    fn local(&self) -> MutexGuard<'_, Local> {
        // Whoever panicked with it had finished each change it began: they are single steps.
        self.local.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn configured(&self) -> MutexGuard<'_, Configured> {
        self.configured.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn namespaces(&self) -> MutexGuard<'_, BTreeSet<Namespace>> {
        self.namespaces.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// Wakes whoever acts on a change of what is wanted.
    fn changed(&self) {
        self.wake_writer.notify_one();
        self.wake_prober.notify_one();
        self.news.notify_waiters();
    }
}
