//! What can be asked of the registry.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    Check, CheckStatus, Filter, Instance, Key, KeyValue, Namespace, Node, NodeName, ServiceName, Session,
    SessionId,
};

/// A question. Equal questions asked at an equal index share one answer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Query {
    /// The instances of a service with their nodes and checks, sorted by node and id.
    ServiceHealth {
        /// Namespace.
        namespace: Namespace,
        /// Service.
        service: ServiceName,
        /// Only instances whose every check, the node's too, passes.
        passing: bool,
        /// Only instances with all of these tags (without regard to case).
        tags: Vec<String>,
        /// Only instances whose node's meta has all of these pairs.
        node_meta: Vec<(String, String)>,
    },
    /// The instances of a service with their nodes, without checks.
    CatalogService {
        /// Namespace.
        namespace: Namespace,
        /// Service.
        service: ServiceName,
        /// As in `ServiceHealth`.
        tags: Vec<String>,
        /// As in `ServiceHealth`.
        node_meta: Vec<(String, String)>,
    },
    /// The instances through which a service is reached by members of a service mesh: its proxies, and those of its own
    /// instances that need none. Sorted as in `ServiceHealth`. In the namespace `default` alone.
    Connect {
        /// The service that is to be reached.
        service: ServiceName,
        /// With checks, as in `ServiceHealth`, or without, as in `CatalogService`.
        checks: bool,
        /// As in `ServiceHealth`.
        passing: bool,
        /// As in `ServiceHealth`.
        tags: Vec<String>,
        /// As in `ServiceHealth`.
        node_meta: Vec<(String, String)>,
    },
    /// All services of a namespace with the union of their tags.
    Services {
        /// Namespace.
        namespace: Namespace,
        /// As in `ServiceHealth`.
        node_meta: Vec<(String, String)>,
    },
    /// All nodes.
    Nodes {
        /// As in `ServiceHealth`.
        node_meta: Vec<(String, String)>,
    },
    /// A node with its instances in a namespace. A node is seen in `default`, and wherever it has an instance.
    NodeServices {
        /// Namespace.
        namespace: Namespace,
        /// Node.
        node: NodeName,
    },
    /// The checks of a node, where it is seen: its own, then those of its instances in the namespace, each by id.
    NodeChecks {
        /// Namespace.
        namespace: Namespace,
        /// Node.
        node: NodeName,
    },
    /// The checks of a service's instances, by instance and id.
    ServiceChecks {
        /// Namespace.
        namespace: Namespace,
        /// Service.
        service: ServiceName,
        /// As in `ServiceHealth`.
        node_meta: Vec<(String, String)>,
    },
    /// Checks in a state, by node and id; `None` is any.
    ChecksInState {
        /// Namespace.
        namespace: Namespace,
        /// State.
        status: Option<CheckStatus>,
        /// As in `ServiceHealth`.
        node_meta: Vec<(String, String)>,
    },
    /// What a key holds.
    Key(Key),
    /// What every key with a prefix holds, by key.
    KeyTree(Key),
    /// The keys with a prefix; with a separator only up to its first place behind the prefix, each once.
    KeyNames {
        /// Prefix.
        prefix: Key,
        /// Separator; may be empty.
        separator: Vec<u8>,
    },
    /// A session.
    Session(SessionId),
    /// The sessions of a node, or all, by id.
    Sessions(Option<NodeName>),
    /// Of another query's answer only what passes a filter over records of the answer's shape.
    Filtered {
        /// The other query.
        query: Box<Query>,
        /// The filter.
        filter: Filter,
    },
}

/// What has an index of its own: a query's answer can only change when its topic's index rises (its checks' output
/// apart, which changes without an index), and a topic's index only rises when the complete answer behind it changes.
/// A query with filters shares the topic of the complete thing that it is cut from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub enum Topic {
    /// Instances, nodes and checks behind a service's name.
    Service(Namespace, ServiceName),
    /// Only what a client sees that asks a service for its passing instances.
    ServicePassing(Namespace, ServiceName),
    /// Only a service's instances and their nodes, without checks.
    ServiceInstances(Namespace, ServiceName),
    /// The checks of a service's instances.
    ServiceChecks(Namespace, ServiceName),
    /// Names and tags of a namespace's services.
    Services(Namespace),
    /// The list of nodes.
    Nodes,
    /// A node and its instances in a namespace.
    NodeServices(Namespace, NodeName),
    /// A node's checks in a namespace.
    NodeChecks(Namespace, NodeName),
    /// All checks of a namespace.
    Checks(Namespace),
    /// The checks of a namespace that are in one state.
    ChecksInState(Namespace, CheckStatus),
    /// Everything that can be seen in a namespace. For questions whose answer hangs on what it does not show: a list
    /// of checks or services that is filtered by the meta of their nodes.
    Namespace(Namespace),
    /// A key.
    Key(Key),
    /// A session.
    Session(SessionId),
    /// The sessions of a node.
    SessionsOfNode(NodeName),
    /// All sessions.
    Sessions,
    /// The keys with a prefix. It is as new as the newest of them: it has no index of its own, and never rises by
    /// itself. Who waits for it waits for all of them.
    KeyPrefix(Key),
    // Variants are added at the end only: their order is that of the stored rows.
}

/// How new a topic is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicVersion {
    /// Its index: at least 1, so that it can be waited for.
    pub index: u64,
    /// Counts writes without an index (a check's output) since the index rose. Local to this server; wakes nobody.
    /// It starts again from 0 when the registry is read from rows: drop what was cached then.
    pub touched: u64,
}

/// An instance with what decides about its health.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstanceHealth {
    /// Its node.
    pub node: Node,
    /// The instance.
    pub instance: Instance,
    /// The node's own checks, then the instance's, each sorted by id.
    pub checks: Vec<Check>,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum View {
    /// To `ServiceHealth` and `Connect`, and (with no checks) to `CatalogService`.
    Instances(Vec<InstanceHealth>),
    /// To `Services`: tags by service.
    Services(BTreeMap<ServiceName, Vec<String>>),
    /// To `Nodes`.
    Nodes(Vec<Node>),
    /// To `NodeServices`; `None` when the node is not seen in the namespace. Instances by id.
    NodeServices(Option<(Node, Vec<Instance>)>),
    /// To the queries for checks.
    Checks(Vec<ListedCheck>),
    /// To the queries for keys.
    Keys(Vec<Arc<KeyValue>>),
    /// To `KeyNames`.
    KeyNames(Vec<Key>),
    /// To the queries for sessions.
    Sessions(Vec<Session>),
}

/// A check with the name and tags of its service where it has one.
pub type ListedCheck = (Check, Option<(ServiceName, Vec<String>)>);
