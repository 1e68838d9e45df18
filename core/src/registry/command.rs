//! What changes the registry.

use serde::{Deserialize, Serialize};

use super::{
    Check, CheckDefinition, CheckId, CheckKey, CheckStatus, Instance, InstanceId, InstanceKey, Key,
    Namespace, Node, NodeName, Operation, OperationError, OperationResult, ServiceName, Session, SessionId,
};

/// A replicated command. Its encoding is versioned: see [`Command::encode`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Registers nodes, instances and checks: all of them or, if one can't be done, none.
    Register(Vec<Registration>),
    /// Removes something.
    Deregister(Deregister),
    /// Sets the status and output of checks; each is done or refused by itself.
    UpdateChecks(Vec<CheckUpdate>),
    /// Turns TTL checks critical that were not renewed; each is done or refused by itself.
    ExpireChecks(Vec<Expiry>),
    /// Deregisters the instances whose checks stayed critical for too long; each is done or refused by itself.
    DeregisterCritical(Vec<Expiry>),
    /// Reads and writes keys and the catalog: all operations or, if one can't be done, none.
    Transact(Vec<Operation>),
    /// Creates a session.
    CreateSession(Box<NewSession>),
    /// Ends a session.
    DestroySession(SessionId),
    /// Counts renewals that must not be undone by an expiry in the log; each is done or refused by itself.
    RenewSessions(Vec<SessionId>),
    /// Ends sessions that were not renewed; each is done or refused by itself.
    ExpireSessions(Vec<SessionExpiry>),
    /// Lets locks be taken again after their delay; each is done or refused by itself.
    EndLockDelays(Vec<LockDelayEnd>),
    /// Replaces the whole state by that of a snapshot file, in steps. Since version 2.
    Restore(Restore),
    /// From here on the log may hold commands up to this version: every member can read them. Since version 2.
    RaiseVersion(u8),
}

/// A step of a restore. The file's rows are first laid down in parts, which nothing but the last step looks at; so a
/// file may be larger than an entry of the log, and yet takes effect at one moment or not at all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Restore {
    /// Lays down one part.
    Stage {
        /// Chosen at random for each restore. The first part of one discards what is left of any other.
        restore: u64,
        /// Counts the parts from 0.
        part: u32,
        /// Rows, packed as in the file.
        rows: Vec<u8>,
    },
    /// Replaces the state by what was laid down.
    Commit {
        /// Which restore.
        restore: u64,
        /// So many parts it has.
        parts: u32,
        /// The registry's index in the file.
        index: u64,
        /// The digest of the file's rows.
        digest: u128,
    },
    /// Forgets what was laid down.
    Discard {
        /// Which restore.
        restore: u64,
    },
}

/// A node with what runs on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registration {
    /// The node.
    pub node: Node,
    /// What stays as it is if it is there already.
    pub keeps: Keeps,
    /// The instance, on that node, replacing any earlier one of that key, also one of another service.
    pub instance: Option<Instance>,
    /// Checks of the node or of instances on it, each id once, replacing earlier ones of their keys. For a check that
    /// exists already with an equal definition, status and output stay as they are if `status` is `None`; such a
    /// check registered again without any difference is not renewed by it: its TTL runs on.
    pub checks: Vec<CheckDefinitionUpdate>,
    /// Whether the instance's other checks, not named here, are removed.
    pub replace_checks: bool,
}

/// What a registration leaves as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Keeps {
    /// Nothing.
    Nothing,
    /// A node that exists.
    Node,
    /// A node that exists, and the status and output of each check that exists, whatever the registration says of them and
    /// of how it is run (an agent's API: as with Consul's agents, a status is that of a new check). Since version 5.
    NodeAndStatuses,
}

/// A check to register.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckDefinitionUpdate {
    /// Id.
    pub id: CheckId,
    /// Namespace; `default` for the node's own check.
    pub namespace: Namespace,
    /// Node: that of the registration.
    pub node: NodeName,
    /// Name for people.
    pub name: String,
    /// The instance it belongs to, which must exist or be part of this registration; `None` for the node's own.
    pub instance: Option<InstanceId>,
    /// How it is run.
    pub definition: CheckDefinition,
    /// Status to set, unless that of a check that exists is kept ([`Keeps`]). `None`: critical for a new check or one whose
    /// definition or instance changes, else unchanged.
    pub status: Option<CheckStatus>,
    /// Output to set with the status; without a status it is the first output of a new check.
    pub output: String,
    /// Notes.
    pub notes: String,
}

impl CheckDefinitionUpdate {
    /// The check of whether a node is alive, named and worded as Consul's.
    ///
    /// # Panics
    /// Never: its id is a name.
    pub fn aliveness(node: NodeName, definition: CheckDefinition, status: CheckStatus) -> Self {
        CheckDefinitionUpdate {
            id: CheckId::parse(Session::NODE_ALIVE).expect("a constant that is a name"),
            namespace: Namespace::default(),
            node,
            name: "Serf Health Status".to_owned(),
            instance: None,
            definition,
            status: Some(status),
            output: match status {
                CheckStatus::Passing => "Agent alive and reachable",
                _ => "Agent not live or unreachable",
            }
            .to_owned(),
            notes: String::new(),
        }
    }

    /// As [`Check::is_aliveness`].
    pub fn is_aliveness(&self) -> bool {
        self.instance.is_none() && self.id.as_str() == Session::NODE_ALIVE
    }
}

/// What to remove.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Deregister {
    /// A node with its instances and checks.
    Node(NodeName),
    /// An instance with its checks; if a service is named, only an instance of that service.
    Instance {
        /// Which.
        key: InstanceKey,
        /// Of which service it must be.
        service: Option<ServiceName>,
    },
    /// A check.
    Check(CheckKey),
}

/// Which checks a [`CheckUpdate`] is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CheckTarget {
    /// One check.
    Check(CheckKey),
    /// All TTL checks of one instance.
    TtlChecksOf(InstanceKey),
}

/// A status for a check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckUpdate {
    /// Which checks.
    pub target: CheckTarget,
    /// Their status; `None` changes the output alone, without an index.
    pub status: Option<CheckStatus>,
    /// Their output; `None` leaves it. An output that changes alone takes no index.
    pub output: Option<String>,
}

/// An expiry that the leader decided on: done only if the check still is what the leader saw.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expiry {
    /// Which check.
    pub check: CheckKey,
    /// [`Check::renewals`] when the leader decided.
    pub renewals_seen: u64,
    /// [`Check::create_index`] when the leader decided: a check deregistered and registered again is another one.
    pub create_index_seen: u64,
}

/// A session to create.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewSession {
    /// The session; its id is new.
    pub session: Session,
    /// Its node, registered if it is not there; `None` if it must be there.
    pub node: Option<Node>,
}

/// An expiry of a session that the leader decided on: done only if it was not renewed since.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionExpiry {
    /// Which session.
    pub session: SessionId,
    /// [`Session::renewals`] when the leader decided.
    pub renewals_seen: u64,
}

/// The end of a lock's delay that the leader decided on: done only if it still is the same delay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockDelayEnd {
    /// Of which key.
    pub key: Key,
    /// The index at which the delay began.
    pub since_seen: u64,
}

/// What a command that was carried out answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// Ids of the registered checks, one list for each registration, in order.
    Registered(Vec<Vec<CheckId>>),
    /// Whether something was there to remove.
    Deregistered(bool),
    /// An outcome for each update or expiry, in order.
    Each(Vec<Result<(), Refusal>>),
    /// What the operations gave, in order; some give nothing, some more than one.
    Transacted(Vec<OperationResult>),
    /// The session is there.
    SessionCreated,
    /// It was done, and there is nothing to say about it.
    Done,
}

/// Why a command was not carried out. The same on every server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// There is no such check.
    #[error("unknown check {0:?}")]
    UnknownCheck(String),
    /// There is no such instance.
    #[error("unknown service instance {0:?}")]
    UnknownInstance(String),
    /// There is no such node.
    #[error("unknown node {0:?}")]
    UnknownNode(String),
    /// The instance belongs to another service than the one named.
    #[error("instance {instance:?} belongs to service {actual:?}, not {named:?}")]
    OtherService {
        /// The instance.
        instance: String,
        /// The service it belongs to.
        actual: String,
        /// The service named.
        named: String,
    },
    /// The check was renewed or registered again since the leader decided to expire it.
    #[error("renewed since")]
    RenewedSince,
    /// The check is critical already.
    #[error("critical already")]
    AlreadyCritical,
    /// The check is not a TTL check.
    #[error("check {0:?} is not a TTL check")]
    NotTtl(String),
    /// The registration contradicts itself or the registry (its own words).
    #[error("{0}")]
    Invalid(String),
    /// There is no such session.
    #[error("unknown session {0:?}")]
    UnknownSession(String),
    /// Operations of a transaction that can't be done; none was.
    #[error("{}", .0.iter().map(|error| error.refusal.to_string()).collect::<Vec<_>>().join("; "))]
    Aborted(Vec<OperationError>),
}

/// What is kept of a check when it is first registered or replaced.
impl CheckDefinitionUpdate {
    /// Its key.
    pub fn key(&self) -> CheckKey {
        CheckKey {
            namespace: self.namespace.clone(),
            node: self.node.clone(),
            id: self.id.clone(),
        }
    }

    /// Whether `check` is registered exactly like this already.
    pub fn matches(&self, check: &Check) -> bool {
        check.name == self.name
            && check.instance == self.instance
            && check.definition == self.definition
            && check.notes == self.notes
            && self
                .status
                .is_none_or(|status| status == check.status && self.output == check.output)
    }
}
