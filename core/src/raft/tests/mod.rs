//! Tests of this module, on a platform of their own.

mod checkpoint;
mod cluster;
mod harness;
mod log;
mod members;
mod parts;
pub(crate) mod platform;
mod suite;
mod wire;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use futures_util::{FutureExt, future::BoxFuture};

use self::platform::TestRuntime;
use super::{
    ApplyListener, DiskId, PeerService, ServerAddress, ServerId,
    checkpoint::Checkpoints,
    codec::StoreError,
    journal::Journal,
    log::LogStore,
    member::MemberId,
    node::load_state,
    state::StateMachine,
    types::{CommittedLeaderId, Entry, LogId, Membership, Payload, Proposal},
};
use crate::{
    observe::{Observation, Observer, SharedObserver},
    registry::{Applied, Command, Keeps, Node, NodeName, Registration, Registry, Retention},
};

/// openraft's storage suite numbers its servers.
impl From<u64> for MemberId {
    fn from(number: u64) -> Self {
        member(&number.to_string())
    }
}

pub(crate) fn id(name: &str) -> ServerId {
    ServerId(name.into())
}

/// A member, on a disk of its own.
pub(crate) fn member(name: &str) -> MemberId {
    let disk = name.bytes().fold(1, |sum, byte| sum * 256 + u64::from(byte));
    MemberId {
        server: id(name),
        disk: DiskId(disk),
    }
}

pub(crate) fn address(name: &str) -> ServerAddress {
    ServerAddress {
        raft: format!("{name}:8501").into(),
        http: format!("{name}:8500").into(),
    }
}

pub(crate) fn log_id(term: u64, index: u64) -> LogId {
    LogId::new(CommittedLeaderId::new(term), index)
}

/// A command that changes the registry, differently for each number.
pub(crate) fn register(number: u64) -> Command {
    Command::Register(vec![Registration {
        node: Node {
            name: NodeName::parse(&format!("node-{number}")).unwrap(),
            id: String::new(),
            address: format!("10.0.0.{number}"),
            tagged_addresses: BTreeMap::new(),
            meta: BTreeMap::new(),
            create_index: 0,
            modify_index: 0,
            locality: None,
        },
        keeps: Keeps::Nothing,
        instance: None,
        checks: Vec::new(),
        replace_checks: false,
    }])
}

pub(crate) fn entry(term: u64, index: u64) -> Entry {
    Entry {
        log_id: log_id(term, index),
        payload: Payload::Normal(Proposal::new(register(index), 1, 0)),
    }
}

pub(crate) fn membership_entry(term: u64, index: u64, members: &[&str]) -> Entry {
    let members: BTreeMap<MemberId, ServerAddress> =
        members.iter().map(|name| (member(name), address(name))).collect();
    Entry {
        log_id: log_id(term, index),
        payload: Payload::Membership(Membership::from(members)),
    }
}

/// Notes what it is told, one line each.
#[derive(Default)]
pub(crate) struct Notes(Mutex<Vec<String>>);

impl Notes {
    pub(crate) fn add(&self, note: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(note);
    }

    pub(crate) fn all(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn starting_with(&self, start: &str) -> Vec<String> {
        let mut notes = self.all();
        notes.retain(|note| note.starts_with(start));
        notes
    }
}

impl Observer for Notes {
    fn observe(&self, observation: Observation<'_>) {
        self.add(match observation {
            Observation::Appended { index, term, hash } => format!("appended {term}.{index} {hash:016x}"),
            Observation::Applied {
                log_index,
                term,
                hash,
                index,
                digest,
                ..
            } => {
                format!("applied {term}.{log_index} {hash:016x} index {index} digest {digest:x}")
            }
            other => format!("{other:?}"),
        });
    }
}

impl ApplyListener for Notes {
    fn applied(&self, _: &Registry, log_index: u64, _: &Command, applied: &Applied) {
        self.add(format!("applied {log_index}: index {}", applied.index));
    }

    fn replaced(&self, registry: &Registry, log_index: u64) {
        self.add(format!("replaced at {log_index}: index {}", registry.index()));
    }

    fn leadership_changed(&self) {
        self.add("leadership changed".to_string());
    }
}

/// Answers a message with itself, backwards.
pub(crate) struct Backwards;

impl PeerService for Backwards {
    fn serve(&self, message: Bytes) -> BoxFuture<'static, Bytes> {
        async move { message.iter().rev().copied().collect() }.boxed()
    }
}

/// The stores of one server without Raft.
pub(crate) struct Stores {
    pub(crate) disk: platform::TestDisk,
    pub(crate) journal: Journal,
    pub(crate) log: LogStore<TestRuntime>,
    pub(crate) state: StateMachine<TestRuntime>,
    pub(crate) observed: Arc<Notes>,
    pub(crate) listened: Arc<Notes>,
}

impl Stores {
    pub(crate) async fn open(disk: platform::TestDisk) -> Result<Stores, StoreError> {
        let (observed, listened) = (Arc::new(Notes::default()), Arc::new(Notes::default()));
        let observer: SharedObserver = observed.clone();
        let journal =
            Journal::start::<TestRuntime>(disk.clone(), crate::limits::JOURNAL_WRITES_MAX, observer.clone());
        let log = LogStore::load(
            id("a"),
            disk.clone(),
            journal.clone(),
            super::Portions::default(),
            observer.clone(),
        )
        .await?;
        let state = load_state(
            &disk,
            &journal,
            listened.clone(),
            &observer,
            Command::NEWEST_VERSION,
            Retention::default(),
        )
        .await?;
        Ok(Stores {
            disk,
            journal,
            log,
            state,
            observed,
            listened,
        })
    }

    pub(crate) fn digest(&self) -> u128 {
        self.state.registry().read().unwrap().digest()
    }
}

/// Loads a checkpoint by itself.
pub(crate) async fn load_checkpoint(
    disk: &platform::TestDisk,
) -> Result<(Registry, Option<super::checkpoint::Record>), StoreError> {
    let journal = Journal::start::<TestRuntime>(
        disk.clone(),
        crate::limits::JOURNAL_WRITES_MAX,
        Arc::new(crate::observe::NoObserver),
    );
    let (_, registry, record) = Checkpoints::<TestRuntime>::load(
        disk.clone(),
        journal,
        Arc::new(crate::observe::NoObserver),
        Retention::default(),
    )
    .await?;
    Ok((registry, record))
}
