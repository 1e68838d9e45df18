//! The parts of a server, and how they hold each other.
//!
//! ```text
//!  Server ──▶ Inner ──▶ Consensus ──▶ listener: Shared     told of what is applied
//!                └────▶ Shared     └▶ service ··▶ Inner    answers peers; a weak reference
//! ```
//! [`Shared`] knows no consensus, and what the consensus holds of `Inner` is weak: so dropping the last handle frees
//! everything, and a simulator may start and drop servers by the million.

use std::sync::{
    Arc, Mutex, MutexGuard, OnceLock, RwLockReadGuard, Weak,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt as _};
use tokio::sync::Semaphore;

use super::{
    Server, ServerConfig, ServerError,
    deadlines::Deadlines,
    divergence::DigestRing,
    errands::{Forwards, Route},
    events::Events,
    expiry,
    hub::Hub,
    metrics::Metrics,
    peer::{self, Errand, PeerResponse},
    platform::Platform,
    probes::ProbeTable,
    reads::ReadRounds,
    receipts::{Receipts, Stamps},
    signal::Signal,
    start::Expected,
    views::Views,
};
use crate::{
    limits,
    observe::{Observation, Observer, SharedObserver},
    raft::{ApplyListener, Consensus, PeerService, ServerAddress},
    registry::{Applied, Command, NodeName, Registry, Topic},
    runtime::Instant,
};

/// Why a server ended by itself or was ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// It was shut down, or its Raft member stopped: the status says why.
    Stopped,
    /// It gave up its own cluster, which was never used, to be added to another one. The caller wipes the disk with
    /// [`super::wipe`] and starts again.
    GaveWay,
}

/// What does not need the consensus.
pub(super) struct Shared {
    pub(super) platform: Arc<dyn Platform>,
    pub(super) config: ServerConfig,
    /// This server's own addresses.
    pub(super) address: ServerAddress,
    pub(super) hub: Arc<Hub>,
    pub(super) rounds: Arc<ReadRounds>,
    pub(super) views: Views,
    /// Changes of leadership and membership, and the end.
    pub(super) leadership: Signal,
    pub(super) metrics: Metrics,
    pub(super) events: Events,
    pub(super) observer: SharedObserver,
    pub(super) started: Instant,
    /// Checks to run that were not there, and runs that ended.
    pub(super) probes_changed: Signal,
    deadlines: Mutex<Deadlines>,
    probes: Mutex<ProbeTable>,
    digests: Mutex<DigestRing>,
    halted: Mutex<Option<String>>,
    finish: Mutex<Option<Finish>>,
    expected: Mutex<Expected>,
}

/// A server, with its consensus.
pub(super) struct Inner {
    pub(super) shared: Arc<Shared>,
    pub(super) consensus: Arc<dyn Consensus>,
    /// Who leads, with the version of [`Shared::leadership`] at which that was looked up.
    pub(super) route: Mutex<Option<(u64, Route)>>,
    /// Whether nobody asked for the cluster of one that this server may lead: then it gives way to another cluster.
    pub(super) implicit: bool,
    /// Errands for the leader under way here, other than renewals: [`limits::PROPOSALS_IN_FLIGHT_MAX`].
    pub(super) in_flight: AtomicUsize,
    /// Renewals under way here: as many.
    pub(super) renewals_in_flight: AtomicUsize,
    /// Turns of writes at this leader: [`ServerConfig::writes_at_once`].
    pub(super) turns: Semaphore,
    /// Servers being added by this one.
    pub(super) adopting: AtomicUsize,
    /// Streams open here: [`limits::STREAMS_MAX`].
    pub(super) streams: AtomicUsize,
    /// Held by whoever restores a snapshot through this server.
    pub(super) restoring: Semaphore,
    /// How many more errands may be under way to the leader.
    pub(super) forwards: Mutex<Forwards>,
    /// What was sent to and received from others, to carry out once what is delivered twice.
    pub(super) stamps: Stamps,
    pub(super) receipts: Receipts,
    /// Decisions of this leader under way: [`ServerConfig::decisions_in_flight`].
    pub(super) decisions: Arc<Semaphore>,
}

/// A server whose consensus is not there yet. A consensus is started with what this gives, and then connected.
pub struct Wiring {
    shared: Arc<Shared>,
    service: Arc<Service>,
}

impl Wiring {
    /// The parts of a server that is reached at `address`.
    pub fn new(
        platform: Arc<dyn Platform>,
        config: ServerConfig,
        address: ServerAddress,
        observer: SharedObserver,
    ) -> Self {
        Wiring {
            shared: Arc::new(Shared {
                started: platform.now(),
                platform,
                address,
                hub: Arc::new(Hub::new(limits::WATCHERS_MAX)),
                rounds: Arc::default(),
                views: Views::new(config.views),
                config,
                leadership: Signal::default(),
                metrics: Metrics::default(),
                events: Events::default(),
                observer,
                probes_changed: Signal::default(),
                deadlines: Mutex::default(),
                probes: Mutex::default(),
                digests: Mutex::default(),
                halted: Mutex::default(),
                finish: Mutex::default(),
                expected: Mutex::default(),
            }),
            service: Arc::default(),
        }
    }

    /// What the consensus tells of its changes.
    pub fn listener(&self) -> Arc<dyn ApplyListener> {
        self.shared.clone()
    }

    /// What answers the consensus' peers.
    pub fn service(&self) -> Arc<dyn PeerService> {
        self.service.clone()
    }

    /// The observer for the consensus: it counts for the metrics and passes on.
    pub fn observer(&self) -> SharedObserver {
        self.shared.clone()
    }

    /// The server, with its background work begun. `implicit`: nobody asked for the cluster of one that it may lead,
    /// so as long as that was never written it gives way when another cluster adds this server.
    pub fn connect(self, consensus: Arc<dyn Consensus>, implicit: bool) -> Server {
        let inner = Arc::new(Inner {
            turns: Semaphore::new(self.shared.config.writes_at_once),
            stamps: Stamps::new(consensus.status().id, self.shared.platform.random_u64()),
            route: Mutex::default(),
            receipts: Receipts::default(),
            forwards: Mutex::new(Forwards::to("", self.shared.config.forwards_in_flight)),
            decisions: Arc::new(Semaphore::new(self.shared.config.decisions_in_flight)),
            shared: self.shared,
            consensus,
            implicit,
            in_flight: AtomicUsize::new(0),
            renewals_in_flight: AtomicUsize::new(0),
            adopting: AtomicUsize::new(0),
            streams: AtomicUsize::new(0),
            restoring: Semaphore::new(1),
        });
        self.service
            .inner
            .set(Arc::downgrade(&inner))
            .unwrap_or_else(|_| unreachable!("`connect` consumes the wiring: it happens once"));
        expiry::begin(&inner);
        super::divergence::begin(&inner);
        super::upkeep::begin(&inner);
        super::founding::begin(&inner);
        super::probes::begin(&inner);
        super::autopilot::begin(&inner);
        super::upgrade::begin(&inner);
        super::snapshot::begin(&inner);
        Server(inner)
    }
}

impl Shared {
    pub(super) fn deadlines(&self) -> MutexGuard<'_, Deadlines> {
        self.deadlines.lock().expect("no holder of this lock panics")
    }

    pub(super) fn probes(&self) -> MutexGuard<'_, ProbeTable> {
        self.probes.lock().expect("no holder of this lock panics")
    }

    /// The node whose checks the servers run, and whether programs too.
    pub(super) fn probed(&self) -> (&NodeName, bool) {
        (&self.config.agent_node, self.config.script_checks)
    }

    pub(super) fn digests(&self) -> MutexGuard<'_, DigestRing> {
        self.digests.lock().expect("no holder of this lock panics")
    }

    /// The servers of a new cluster that this one stands by: see [`super::start`].
    pub(super) fn expected(&self) -> MutexGuard<'_, Expected> {
        self.expected.lock().expect("no holder of this lock panics")
    }

    /// Why this server does not serve any more, if it does not.
    pub(super) fn halted(&self) -> Option<String> {
        self.halted.lock().expect("no holder of this lock panics").clone()
    }

    /// Stops serving; the first reason stays. Whoever waits is woken and told.
    pub(super) fn halt(&self, reason: &str) {
        self.halted
            .lock()
            .expect("no holder of this lock panics")
            .get_or_insert_with(|| reason.to_owned());
        self.leadership.bump();
        self.hub.wake_all(self.rounds.begun());
    }

    /// Wakes who waits for one of `topics`, once what changes meanwhile is there, too. By a task of its own: here the state
    /// is locked, and thousands may wait.
    fn wake_soon(&self, topics: &[Topic]) {
        let stirred = self.hub.stir(topics);
        if stirred.is_empty() {
            return;
        }
        let (hub, rounds) = (self.hub.clone(), self.rounds.clone());
        let window = self
            .platform
            .sleep_until(self.platform.now() + limits::COALESCE_WINDOW);
        let wake = async move {
            window.await;
            // What is folded in from here on is applied already, though no later round need know of it.
            hub.wake(&stirred, rounds.begun());
        };
        self.platform.spawn(wake.boxed());
    }

    /// Serves again, after a halt that turned out to be for nothing.
    pub(super) fn resume(&self) {
        if self.finish().is_none() {
            *self.halted.lock().expect("no holder of this lock panics") = None;
            self.leadership.bump();
        }
    }

    pub(super) fn finish(&self) -> Option<Finish> {
        *self.finish.lock().expect("no holder of this lock panics")
    }

    /// Ends the server for this reason; the first one stays.
    pub(super) fn end(&self, finish: Finish, reason: &str) {
        self.finish
            .lock()
            .expect("no holder of this lock panics")
            .get_or_insert(finish);
        self.halt(reason);
    }
}

impl Inner {
    pub(super) fn platform(&self) -> &dyn Platform {
        &*self.shared.platform
    }

    /// The state, for reading. Not to be held over an `await`.
    pub(super) fn registry(&self) -> RwLockReadGuard<'_, Registry> {
        self.consensus
            .registry()
            .read()
            .expect("applying a command does not panic")
    }

    /// An error once this server does not serve any more.
    pub(super) fn serving(&self) -> Result<(), ServerError> {
        match self.shared.halted() {
            None => Ok(()),
            Some(reason) => Err(ServerError::Stopped(reason)),
        }
    }

    /// Counts one more errand, until the guard is dropped.
    pub(super) fn begin_errand(&self, errand: &Errand) -> Result<Counted<'_>, ServerError> {
        let under_way = match errand.is_renewal() {
            true => &self.renewals_in_flight,
            false => &self.in_flight,
        };
        let counted = Counted::new(under_way);
        if under_way.load(Ordering::SeqCst) > limits::PROPOSALS_IN_FLIGHT_MAX {
            return Err(errand.over_limit(limits::PROPOSALS_IN_FLIGHT_MAX));
        }
        Ok(counted)
    }

    /// Whether errands are under way here.
    pub(super) fn is_busy(&self) -> bool {
        [&self.in_flight, &self.renewals_in_flight, &self.adopting]
            .iter()
            .any(|under_way| under_way.load(Ordering::SeqCst) > 0)
    }
}

/// One more, as long as this lives.
pub(super) struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    pub(super) fn new(counter: &'a AtomicUsize) -> Self {
        counter.fetch_add(1, Ordering::SeqCst);
        Counted(counter)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl ApplyListener for Shared {
    fn applied(&self, registry: &Registry, log_index: u64, _: &Command, applied: &Applied) {
        self.digests().push(log_index, registry.digest());
        if !applied.events.is_empty() {
            self.metrics.count_events(&applied.events);
            self.deadlines()
                .applied(registry, &applied.events, self.platform.now());
            let random = || self.platform.random_u64();
            let now = self.platform.now();
            if self
                .probes()
                .applied(registry, &applied.events, self.probed(), now, random)
            {
                self.probes_changed.bump();
            }
        }
        self.wake_soon(&applied.topics);
    }

    fn replaced(&self, registry: &Registry, log_index: u64) {
        self.digests().restart(log_index, registry.digest());
        // A leader's state is never replaced; whatever the table held is of an earlier time.
        self.deadlines().follow();
        self.probes().follow();
        self.views.clear();
        self.hub.wake_all(self.rounds.begun());
    }

    fn leadership_changed(&self) {
        self.leadership.bump();
    }
}

impl Observer for Shared {
    fn observe(&self, observation: Observation<'_>) {
        if let Observation::Synced { took, .. } = observation {
            self.metrics.synced(took);
        }
        self.observer.observe(observation);
    }
}

/// Answers peers as soon as the server is connected and as long as it lives.
#[derive(Default)]
struct Service {
    inner: OnceLock<Weak<Inner>>,
}

impl PeerService for Service {
    fn serve(&self, message: Bytes) -> BoxFuture<'static, Bytes> {
        let inner = self.inner.get().and_then(Weak::upgrade);
        async move {
            let answer = match (inner, peer::decode(&message)) {
                (Some(inner), Ok(request)) => inner.answer(request).await,
                (None, _) => PeerResponse::Unavailable("the server is starting or stopping".into()),
                (_, Err(reason)) => PeerResponse::Unavailable(reason),
            };
            peer::encode(&answer)
        }
        .boxed()
    }
}
