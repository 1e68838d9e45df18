//! A [`Consensus`] without Raft, for tests: it applies in memory, and a test says when it leads, when its leadership
//! can be confirmed, when its proposals are applied and whom it reaches.
//!
//! ```
//! use sider_core::{registry::Command, server::standin};
//!
//! let (server, standin, platform) = standin::server();
//! let written = platform.run(server.write(Command::UpdateChecks(Vec::new())));
//! assert!(written.is_ok());
//! standin.follow(2, None);
//! let written = platform.run(server.write(Command::UpdateChecks(Vec::new())));
//! assert_eq!(written.unwrap_err().to_string(), "No cluster leader");
//! ```

mod platform;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, RwLock, Weak},
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt as _};
use smol_str::SmolStr;
use tokio::sync::oneshot;

pub use self::platform::{Started, TestPlatform};
use super::{Platform, Server, ServerConfig, Wiring, signal::Signal};
use crate::{
    observe::{NoObserver, SharedObserver},
    raft::{
        ApplyListener, Committed, Consensus, DiskId, MembershipError, PeerService, ProposeError, RaftStatus,
        ReadIndexError, Role, ServerAddress, ServerId, Standing,
    },
    registry::{Applied, Command, Registry},
    runtime::NetworkError,
};

/// A server that leads a cluster of its own, the stand-in that it runs on, and the platform that runs both.
pub fn server() -> (Server, Arc<Standin>, Arc<TestPlatform>) {
    let platform = TestPlatform::new();
    let (server, standin) = member("server-1", &platform, Arc::new(NoObserver), false);
    standin.lead(1);
    (server, standin, platform)
}

/// A server of this name on a stand-in that does not lead yet; see [`Standin::connect`] for its peers.
pub fn member(
    id: &str,
    platform: &Arc<TestPlatform>,
    observer: SharedObserver,
    implicit: bool,
) -> (Server, Arc<Standin>) {
    member_of(ServerConfig::default(), id, platform, observer, implicit)
}

/// As [`member`], with these settings.
pub fn member_of(
    config: ServerConfig,
    id: &str,
    platform: &Arc<TestPlatform>,
    observer: SharedObserver,
    implicit: bool,
) -> (Server, Arc<Standin>) {
    let address = ServerAddress {
        raft: format!("{id}:8501").into(),
        http: format!("{id}:8500").into(),
    };
    let wiring = Wiring::new(platform.clone(), config, address.clone(), observer);
    let standin = Arc::new(Standin {
        id: ServerId(SmolStr::new(id)),
        address,
        platform: platform.clone(),
        listener: wiring.listener(),
        service: wiring.service(),
        registry: RwLock::new(registry_of_today()),
        changed: Signal::default(),
        state: Mutex::new(State {
            confirming: true,
            command_version: Command::NEWEST_VERSION,
            ..State::default()
        }),
    });
    let server = wiring.connect(standin.clone(), implicit);
    (server, standin)
}

/// A state that is told already what its members read, so that nothing is proposed but what a test asks for.
fn registry_of_today() -> Registry {
    let mut registry = Registry::default();
    registry.apply(&Command::RaiseVersion(Command::NEWEST_VERSION));
    registry
}

/// See the module's page.
pub struct Standin {
    id: ServerId,
    address: ServerAddress,
    platform: Arc<dyn Platform>,
    listener: Arc<dyn ApplyListener>,
    service: Arc<dyn PeerService>,
    registry: RwLock<Registry>,
    changed: Signal,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    term: u64,
    leads: bool,
    leader: Option<(ServerId, ServerAddress)>,
    voters: BTreeMap<ServerId, ServerAddress>,
    last_contact_ms: Option<u64>,
    stopped: Option<String>,
    /// Whether a quorum answers.
    confirming: bool,
    holding: bool,
    /// Whether nobody is told of what is applied.
    lagging: bool,
    /// Proposed and neither applied nor lost yet.
    held: Vec<(Command, oneshot::Sender<Result<Committed, ProposeError>>)>,
    log_index: u64,
    /// The newest version of commands that it reads.
    command_version: u8,
    /// Applied in place of the next command.
    instead: Option<Command>,
    read_rounds: u64,
    peers: BTreeMap<SmolStr, Peer>,
    /// Those whose state follows this one's.
    followers: Vec<Weak<Standin>>,
}

#[derive(Clone)]
enum Peer {
    Reachable(Arc<dyn PeerService>),
    /// Gets each message twice; the answer is that to the first.
    Doubled(Arc<dyn PeerService>),
    /// Takes messages and does not answer.
    Silent,
}

impl Standin {
    /// Leads from now on, in this term.
    pub fn lead(&self, term: u64) {
        {
            let mut state = self.state();
            state.term = term;
            state.leads = true;
            state.leader = Some((self.id.clone(), self.address.clone()));
            state.last_contact_ms = Some(0);
            state.voters.insert(self.id.clone(), self.address.clone());
        }
        self.announce();
    }

    /// Does not lead any more: follows this server, or nobody. Proposals that are held become of unknown outcome.
    pub fn follow(&self, term: u64, leader: Option<&Standin>) {
        let lost = {
            let mut state = self.state();
            state.term = term;
            state.leads = false;
            state.leader = leader.map(|leader| (leader.id.clone(), leader.address.clone()));
            std::mem::take(&mut state.held)
        };
        for (_, sender) in lost {
            // Its caller may be gone.
            let _ = sender.send(Err(ProposeError::OutcomeUnknown("leadership was lost".into())));
        }
        self.announce();
    }

    /// Which version of commands it reads.
    pub fn set_command_version(&self, version: u8) {
        self.state().command_version = version;
        self.announce();
    }

    /// As if its cluster had been begun by the first version of the program, which it is itself.
    pub fn begin_as_first_version(&self) {
        *self.registry.write().expect("no holder of this lock panics") = Registry::default();
        self.set_command_version(1);
    }

    /// Whether a quorum answers: while it does not, read indexes wait.
    pub fn set_confirming(&self, confirming: bool) {
        self.state().confirming = confirming;
        self.changed.bump();
    }

    /// Whether those who wait for entries to be applied go on waiting.
    pub fn set_lagging(&self, lagging: bool) {
        self.state().lagging = lagging;
        self.changed.bump();
    }

    /// How long ago the leader was heard of.
    pub fn set_last_contact(&self, last_contact: Option<Duration>) {
        self.state().last_contact_ms =
            last_contact.map(|contact| u64::try_from(contact.as_millis()).unwrap_or(u64::MAX));
    }

    /// Holds proposals from now on.
    pub fn hold_proposals(&self) {
        self.state().holding = true;
    }

    /// How many proposals are held.
    pub fn held_proposals(&self) -> usize {
        self.state().held.len()
    }

    /// Applies what was held, in order, and holds no more.
    pub fn release_proposals(&self) {
        let held = {
            let mut state = self.state();
            state.holding = false;
            std::mem::take(&mut state.held)
        };
        for (command, sender) in held {
            let committed = self.apply(&command);
            // Its caller may be gone.
            let _ = sender.send(Ok(committed));
        }
    }

    /// Gives the held proposals away with their outcome reported unknown; a test may apply them later, or never.
    pub fn lose_proposals(&self) -> Vec<Command> {
        let held = std::mem::take(&mut self.state().held);
        let lose = |(command, sender): (Command, oneshot::Sender<_>)| {
            // Its caller may be gone.
            let _ = sender.send(Err(ProposeError::OutcomeUnknown("a test lost it".into())));
            command
        };
        held.into_iter().map(lose).collect()
    }

    /// Applies a command here and at those that follow, as if it came from the log.
    pub fn apply(&self, command: &Command) -> Committed {
        let (log_index, followers) = {
            let mut state = self.state();
            state.log_index += 1;
            (state.log_index, state.followers.clone())
        };
        let applied = self.apply_at(log_index, command);
        for follower in followers.iter().filter_map(Weak::upgrade) {
            follower.apply_at(log_index, command);
        }
        Committed { log_index, applied }
    }

    /// Instead of the next command it applies this one, as a server with a bug would.
    pub fn apply_instead(&self, command: &Command) {
        self.state().instead = Some(command.clone());
    }

    fn apply_at(&self, log_index: u64, command: &Command) -> Applied {
        let instead = {
            let mut state = self.state();
            state.log_index = log_index;
            state.instead.take()
        };
        let command = instead.as_ref().unwrap_or(command);
        let applied = {
            let mut registry = self.registry.write().expect("applying a command does not panic");
            let applied = registry.apply(command);
            self.listener.applied(&registry, log_index, command, &applied);
            applied
        };
        self.changed.bump();
        applied
    }

    /// Replaces the state, as a snapshot does.
    pub fn install(&self, registry: Registry) {
        let log_index = {
            let mut state = self.state();
            state.log_index += 1;
            state.log_index
        };
        let mut current = self.registry.write().expect("applying a command does not panic");
        *current = registry;
        self.listener.replaced(&current, log_index);
    }

    /// From now on the two reach each other.
    pub fn connect(self: &Arc<Self>, other: &Arc<Standin>) {
        for (from, to) in [(self, other), (other, self)] {
            let peer = Peer::Reachable(to.service.clone());
            from.state().peers.insert(to.address.raft.clone(), peer);
            for member in [from, to] {
                let (id, address) = member.identity();
                to.state().voters.insert(id, address);
            }
        }
        self.announce();
        other.announce();
    }

    /// From now on this one reaches the other, which stays of another cluster.
    pub fn reach(&self, other: &Standin) {
        let peer = Peer::Reachable(other.service.clone());
        self.state().peers.insert(other.address.raft.clone(), peer);
    }

    /// What is applied here is applied at `other` too, from now on.
    pub fn replicate_to(&self, other: &Arc<Standin>) {
        self.state().followers.push(Arc::downgrade(other));
    }

    /// Nobody listens at the other one's address any more: messages certainly don't arrive.
    pub fn disconnect(&self, other: &Standin) {
        self.state().peers.remove(&other.address.raft);
    }

    /// The other one takes messages and does not answer: whether they arrive is unknown.
    pub fn silence(&self, other: &Standin) {
        self.state()
            .peers
            .insert(other.address.raft.clone(), Peer::Silent);
    }

    /// The other one gets each message twice, one right after the other.
    pub fn double(&self, other: &Standin) {
        let peer = Peer::Doubled(other.service.clone());
        self.state().peers.insert(other.address.raft.clone(), peer);
    }

    /// How many read indexes were asked for here.
    pub fn read_rounds(&self) -> u64 {
        self.state().read_rounds
    }

    /// The member's id and address.
    pub fn identity(&self) -> (ServerId, ServerAddress) {
        (self.id.clone(), self.address.clone())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock panics")
    }

    fn announce(&self) {
        self.changed.bump();
        self.listener.leadership_changed();
    }

    fn stopped<T>(&self, error: impl FnOnce(String) -> T) -> Result<(), T> {
        match &self.state().stopped {
            None => Ok(()),
            Some(reason) => Err(error(reason.clone())),
        }
    }
}

impl Consensus for Standin {
    fn propose(&self, command: Command) -> BoxFuture<'_, Result<Committed, ProposeError>> {
        async move {
            self.stopped(ProposeError::Stopped)?;
            let held = {
                let mut state = self.state();
                if !state.leads {
                    let leader = state.leader.clone();
                    return Err(ProposeError::NotLeader { leader });
                }
                state.holding.then(|| {
                    let (sender, receiver) = oneshot::channel();
                    state.held.push((command.clone(), sender));
                    receiver
                })
            };
            match held {
                None => Ok(self.apply(&command)),
                Some(receiver) => receiver
                    .await
                    .unwrap_or_else(|_| Err(ProposeError::OutcomeUnknown("the stand-in is gone".into()))),
            }
        }
        .boxed()
    }

    fn propose_in_term(&self, term: u64, command: Command) -> BoxFuture<'_, Result<Committed, ProposeError>> {
        async move {
            let leader = {
                let state = self.state();
                (state.term != term).then(|| state.leader.clone())
            };
            match leader {
                Some(leader) => Err(ProposeError::NotLeader { leader }),
                None => self.propose(command).await,
            }
        }
        .boxed()
    }

    fn read_index(&self) -> BoxFuture<'_, Result<u64, ReadIndexError>> {
        async move {
            self.state().read_rounds += 1;
            loop {
                let seen = self.changed.version();
                self.stopped(ReadIndexError::Stopped)?;
                {
                    let state = self.state();
                    if !state.leads {
                        let leader = state.leader.clone();
                        return Err(ReadIndexError::NotLeader { leader });
                    }
                    if state.confirming {
                        return Ok(state.log_index);
                    }
                }
                self.changed.changed_since(seen).await;
            }
        }
        .boxed()
    }

    fn wait_applied(&self, log_index: u64) -> BoxFuture<'_, Result<(), ReadIndexError>> {
        async move {
            loop {
                let seen = self.changed.version();
                self.stopped(ReadIndexError::Stopped)?;
                {
                    let state = self.state();
                    if !state.lagging && state.log_index >= log_index {
                        return Ok(());
                    }
                }
                self.changed.changed_since(seen).await;
            }
        }
        .boxed()
    }

    fn command_version(&self) -> u8 {
        self.state().command_version
    }

    fn registry(&self) -> &RwLock<Registry> {
        &self.registry
    }

    fn status(&self) -> RaftStatus {
        let state = self.state();
        let role = match (&state.stopped, state.leads) {
            (Some(_), _) => Role::Shutdown,
            (None, true) => Role::Leader,
            (None, false) => Role::Follower,
        };
        RaftStatus {
            id: self.id.clone(),
            disk: DiskId::default(),
            disks: state
                .voters
                .keys()
                .map(|id| (id.clone(), DiskId::default()))
                .collect(),
            role,
            term: state.term,
            leader: state.leader.clone(),
            last_log_index: state.log_index,
            commit_index: state.log_index,
            applied_index: state.log_index,
            snapshot_index: 0,
            purged_index: 0,
            voters: state.voters.clone(),
            learners: BTreeMap::new(),
            matched: BTreeMap::from([(self.id.clone(), state.log_index)]),
            contacts_ms: BTreeMap::new(),
            last_contact_ms: state.last_contact_ms,
            elections: state.term,
            fatal: state.stopped.clone(),
        }
    }

    fn standing(&self) -> Standing {
        let state = self.state();
        Standing::new(state.leader.is_some(), state.last_contact_ms, state.voters.len())
    }

    fn call_peer<'a>(
        &'a self,
        address: &'a str,
        message: Bytes,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<Bytes, NetworkError>> {
        let peer = self.state().peers.get(address).cloned();
        async move {
            let address = address.to_owned();
            let answer = match peer {
                None => {
                    return Err(NetworkError::Unreachable {
                        address,
                        reason: "nobody listens there".into(),
                    });
                }
                Some(Peer::Reachable(service)) => service.serve(message),
                Some(Peer::Doubled(service)) => {
                    let second = service.serve(message.clone());
                    let first = service.serve(message);
                    self.platform.spawn(second.map(drop).boxed());
                    first
                }
                Some(Peer::Silent) => std::future::pending().boxed(),
            };
            let deadline = self.platform.now() + timeout;
            let unknown = NetworkError::OutcomeUnknown {
                address,
                reason: "no answer in time".into(),
            };
            self.platform.until(deadline, answer).await.ok_or(unknown)
        }
        .boxed()
    }

    fn initialize(
        &self,
        members: BTreeMap<ServerId, ServerAddress>,
    ) -> BoxFuture<'_, Result<(), MembershipError>> {
        async move {
            if !self.state().voters.is_empty() {
                return Err(MembershipError::Refused("there is a cluster already".into()));
            }
            self.state().voters = members;
            self.lead(1);
            Ok(())
        }
        .boxed()
    }

    fn add_server(&self, id: ServerId, address: ServerAddress) -> BoxFuture<'_, Result<(), MembershipError>> {
        async move {
            self.change_voters(|voters| {
                voters.insert(id, address);
                Ok(())
            })
        }
        .boxed()
    }

    fn remove_server(&self, id: ServerId) -> BoxFuture<'_, Result<(), MembershipError>> {
        async move {
            self.change_voters(|voters| match voters.remove(&id) {
                Some(_) => Ok(()),
                None => Err(MembershipError::Refused(format!("{id} is not a member"))),
            })
        }
        .boxed()
    }

    fn remove_silent_server(&self, id: ServerId, _: Duration) -> BoxFuture<'_, Result<(), MembershipError>> {
        self.remove_server(id)
    }

    fn transfer_leader(&self, to: Option<ServerId>) -> BoxFuture<'_, Result<(), MembershipError>> {
        let to = to.map_or("anyone".to_owned(), |id| id.to_string());
        async move {
            Err(MembershipError::Refused(format!(
                "a stand-in does not hand on to {to}"
            )))
        }
        .boxed()
    }

    fn checkpoint(&self) -> BoxFuture<'_, Result<(), MembershipError>> {
        std::future::ready(Ok(())).boxed()
    }

    fn shutdown(&self) -> BoxFuture<'_, ()> {
        async move {
            self.state()
                .stopped
                .get_or_insert_with(|| "it was shut down".into());
            self.announce();
        }
        .boxed()
    }
}

impl Standin {
    fn change_voters(
        &self,
        change: impl FnOnce(&mut BTreeMap<ServerId, ServerAddress>) -> Result<(), MembershipError>,
    ) -> Result<(), MembershipError> {
        {
            let mut state = self.state();
            if !state.leads {
                let leader = state.leader.clone();
                return Err(MembershipError::NotLeader { leader });
            }
            change(&mut state.voters)?;
        }
        self.announce();
        Ok(())
    }
}
