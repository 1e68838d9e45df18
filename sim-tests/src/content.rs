//! What a client reads, in one form for both sides: parsed from an answer's JSON, or computed by the model.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use serde_json::{Map, Value};
use sider_core::registry::{Check, CheckStatus, Instance, Key, KeyValue, Node, Session, Snapshot};

use crate::{
    agent_reads::AgentSeen,
    authority::RootsSeen,
    catalog_steps::Given,
    cluster_reads::ClusterSeen,
    keys::{self, KeySeen, SessionSeen},
    model::State,
    operation::Ask,
};

/// The content of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Instances, by node and id.
    Instances(Vec<InstanceSeen>),
    /// Services with their tags, sorted.
    Services(BTreeMap<String, Vec<String>>),
    /// Nodes, by name.
    Nodes(Vec<NodeSeen>),
    /// Checks, in the order of the answer.
    Checks(Vec<CheckSeen>),
    /// A node with its instances by id; none if there is no such node.
    NodeServices(Option<Box<(NodeSeen, Vec<InstanceSeen>)>>),
    /// Keys, by name.
    Keys(Vec<KeySeen>),
    /// What the steps of a transaction give, in order.
    Given(Vec<Given>),
    /// Names of keys.
    KeyNames(Vec<String>),
    /// Sessions, by id.
    Sessions(Vec<SessionSeen>),
    /// What the agent's API tells.
    Agent(AgentSeen),
    /// What a server tells of the cluster.
    Cluster(ClusterSeen),
    /// Whether something was done.
    Flag(bool),
    /// The id of a session that was created.
    Created(String),
    /// Prepared queries, by id.
    Queries(Vec<Value>),
    /// The cluster's certificate authority, or that it is not there.
    Roots(Option<RootsSeen>),
    /// A prepared query, or that it is not there.
    Query(Option<Box<Value>>),
    /// What a prepared query gives.
    Executed {
        /// The service that it is about.
        service: String,
        /// For how long names may be kept.
        ttl: String,
        /// The instances that it wants.
        instances: Vec<InstanceSeen>,
    },
    /// The whole state, from a snapshot file.
    Snapshot(Box<StateSeen>),
}

/// A whole state, as a snapshot file holds it. Everything by its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateSeen {
    /// The registry's index.
    pub index: u64,
    /// Nodes.
    pub nodes: Vec<Node>,
    /// Instances.
    pub instances: Vec<Instance>,
    /// Checks.
    pub checks: Vec<Check>,
    /// What keys hold.
    pub keys: Vec<KeyValue>,
    /// Sessions.
    pub sessions: Vec<Session>,
    /// Locks that nobody can take for a while, with their delay and the index at which it began.
    pub delays: BTreeMap<Key, (Duration, u64)>,
}

impl StateSeen {
    /// What a file holds.
    ///
    /// # Errors
    /// It is no sound snapshot.
    pub fn parse(file: &Bytes) -> Result<StateSeen, String> {
        let snapshot = Snapshot::parse(file).map_err(|error| error.to_string())?;
        let registry = snapshot.registry();
        let delay = |key: &Key| Some((key.clone(), registry.lock_delay(key)?));
        Ok(StateSeen {
            index: registry.index(),
            nodes: registry.nodes().cloned().collect(),
            instances: registry.instances().cloned().collect(),
            checks: registry.checks().cloned().collect(),
            keys: registry.keys().cloned().collect(),
            sessions: registry.sessions().cloned().collect(),
            delays: registry.lock_delays().filter_map(delay).collect(),
        })
    }

    /// What a state of the model holds.
    pub fn of(state: &State) -> StateSeen {
        fn sorted<T: Clone, K: Ord>(things: &[Arc<T>], key: impl Fn(&T) -> K) -> Vec<T> {
            let mut things: Vec<T> = things.iter().map(|thing| T::clone(thing)).collect();
            things.sort_by_key(key);
            things
        }
        StateSeen {
            index: state.index,
            nodes: sorted(&state.nodes, |node| node.name.clone()),
            instances: sorted(&state.instances, Instance::key),
            checks: sorted(&state.checks, Check::key),
            keys: sorted(&state.keys, |held| held.key.clone()),
            sessions: sorted(&state.sessions, |session| session.id.clone()),
            delays: state.delays().clone(),
        }
    }
}

/// An instance as a client sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstanceSeen {
    /// Its node.
    pub node: String,
    /// Its node's address.
    pub node_address: String,
    /// What else is told of its node.
    pub node_facts: NodeFacts,
    /// Its node's create and modify index; zeros where the answer does not show them.
    pub node_indexes: (u64, u64),
    /// Id.
    pub id: String,
    /// Service.
    pub service: String,
    /// Its own address.
    pub address: String,
    /// Port.
    pub port: u16,
    /// Weights while it is passing, and while it is warning.
    pub weights: (u64, u64),
    /// Tags in their order.
    pub tags: Vec<String>,
    /// Whether others may change its tags.
    pub tag_override: bool,
    /// Tagged addresses, with their ports.
    pub tagged_addresses: BTreeMap<String, (String, u16)>,
    /// Meta.
    pub meta: BTreeMap<String, String>,
    /// What it has beyond what most have, by its names in requests.
    pub extras: Map<String, Value>,
    /// Create index.
    pub create_index: u64,
    /// Modify index.
    pub modify_index: u64,
    /// The node's checks and its own; none where the answer shows none.
    pub checks: Vec<CheckSeen>,
}

/// A node as a client sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeSeen {
    /// Name.
    pub name: String,
    /// Address.
    pub address: String,
    /// What else is told of it.
    pub facts: NodeFacts,
    /// Create index.
    pub create_index: u64,
    /// Modify index.
    pub modify_index: u64,
}

/// What is told of a node beside its name and address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeFacts {
    /// Its UUID, or empty.
    pub id: String,
    /// Addresses by tag.
    pub tagged_addresses: BTreeMap<String, String>,
    /// Meta.
    pub meta: BTreeMap<String, String>,
}

/// A check as a client sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckSeen {
    /// Node.
    pub node: String,
    /// Id.
    pub id: String,
    /// Name.
    pub name: String,
    /// Status.
    pub status: CheckStatus,
    /// Output.
    pub output: String,
    /// Notes.
    pub notes: String,
    /// Kind, as the answers name it.
    pub kind: String,
    /// Id of its instance; empty for a node's own.
    pub instance: String,
    /// Name of its service; empty for a node's own.
    pub service: String,
    /// Tags of its instance, in their order.
    pub service_tags: Vec<String>,
    /// Create index.
    pub create_index: u64,
    /// Modify index.
    pub modify_index: u64,
}

impl Content {
    /// Reads the body of an answer.
    ///
    /// # Errors
    /// Says what is missing or of a wrong type.
    pub fn parse(ask: &Ask, body: &[u8]) -> Result<Content, String> {
        let value: Value = serde_json::from_slice(body).map_err(|error| format!("not JSON: {error}"))?;
        Content::read(ask.place().1, &value)
    }

    fn read(ask: &Ask, value: &Value) -> Result<Content, String> {
        match ask {
            Ask::Elsewhere(_) => unreachable!("there is one elsewhere"),
            Ask::Narrowed { ask, .. } => Content::read(ask, value),
            Ask::NodeServices { list, .. } => node_services(value, *list),
            Ask::Health { .. } => Ok(Content::Instances(each(value, health_entry)?)),
            Ask::Connect { checks: true, .. } => Ok(Content::Instances(each(value, health_entry)?)),
            Ask::CatalogService { .. } | Ask::Connect { .. } => {
                Ok(Content::Instances(each(value, catalog_entry)?))
            }
            Ask::Services => services(value),
            Ask::Nodes => Ok(Content::Nodes(each(value, given_node)?)),
            Ask::NodeChecks(_) | Ask::ServiceChecks(_) | Ask::ChecksInState(_) => {
                Ok(Content::Checks(each(value, given_check)?))
            }
            Ask::Key(_) | Ask::KeyTree(_) => keys::parse_keys(value),
            Ask::KeyNames(_) => keys::parse_names(value),
            Ask::Sessions | Ask::SessionsOf(_) | Ask::Session(_) => keys::parse_sessions(value),
            Ask::Queries => Ok(Content::Queries(value.as_array().ok_or("it is no list")?.clone())),
            Ask::Roots => Ok(Content::Roots(Some(
                RootsSeen::parse(value).ok_or("it tells of no authority")?,
            ))),
        }
    }

    /// Itself without what changes without an index: what must differ for a watcher to be woken.
    pub fn without_output(&self) -> Content {
        let blank = |checks: &mut Vec<CheckSeen>| checks.iter_mut().for_each(|check| check.output.clear());
        let mut content = self.clone();
        match &mut content {
            Content::Instances(instances) => {
                instances
                    .iter_mut()
                    .for_each(|instance| blank(&mut instance.checks));
            }
            Content::Checks(checks) => blank(checks),
            _ => {}
        }
        content
    }

    /// How many things are listed.
    pub fn len(&self) -> usize {
        match self {
            Content::Instances(instances) => instances.len(),
            Content::Services(services) => services.len(),
            Content::Nodes(nodes) => nodes.len(),
            Content::Checks(checks) => checks.len(),
            Content::NodeServices(found) => found.as_ref().map_or(0, |found| found.1.len()),
            Content::Keys(keys) => keys.len(),
            Content::Given(given) => given.len(),
            Content::KeyNames(names) => names.len(),
            Content::Sessions(sessions) => sessions.len(),
            Content::Agent(seen) => seen.len(),
            Content::Queries(queries) => queries.len(),
            Content::Roots(found) => usize::from(found.is_some()),
            Content::Query(found) => usize::from(found.is_some()),
            Content::Executed { instances, .. } => instances.len(),
            Content::Flag(_) | Content::Created(_) | Content::Snapshot(_) | Content::Cluster(_) => 1,
        }
    }

    /// Whether nothing is listed.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The first difference to another content, for people.
    pub fn difference(&self, other: &Content) -> String {
        fn first<T: PartialEq + std::fmt::Debug>(mine: &[T], theirs: &[T]) -> String {
            match mine.iter().zip(theirs).position(|(a, b)| a != b) {
                Some(at) => format!("item {at} is {:?}, not {:?}", mine[at], theirs[at]),
                None if mine.len() > theirs.len() => format!("has {:?} too", mine[theirs.len()]),
                None if mine.len() < theirs.len() => format!("lacks {:?}", theirs[mine.len()]),
                None => "no difference".into(),
            }
        }
        match (self, other) {
            (Content::Instances(a), Content::Instances(b)) => first(a, b),
            (Content::Nodes(a), Content::Nodes(b)) => first(a, b),
            (Content::Checks(a), Content::Checks(b)) => first(a, b),
            (Content::Keys(a), Content::Keys(b)) => first(a, b),
            (Content::Given(a), Content::Given(b)) => first(a, b),
            (Content::KeyNames(a), Content::KeyNames(b)) => first(a, b),
            (Content::Sessions(a), Content::Sessions(b)) => first(a, b),
            (Content::Queries(a), Content::Queries(b)) => first(a, b),
            (a, b) => format!("{a:?} is not {b:?}"),
        }
    }
}

/// The status that a word of the API names.
pub fn status_of(word: &str) -> Option<CheckStatus> {
    [
        CheckStatus::Passing,
        CheckStatus::Warning,
        CheckStatus::Unknown,
        CheckStatus::Critical,
    ]
    .into_iter()
    .find(|status| status.as_str() == word)
}

fn each<T>(value: &Value, parse: impl Fn(&Value) -> Result<T, String>) -> Result<Vec<T>, String> {
    value.as_array().ok_or("not a list")?.iter().map(parse).collect()
}

fn field<'a>(value: &'a Value, name: &str) -> Result<&'a Value, String> {
    value.get(name).ok_or_else(|| format!("no {name} in {value}"))
}

fn text(value: &Value, name: &str) -> Result<String, String> {
    field(value, name)?
        .as_str()
        .map(str::to_owned)
        .ok_or_else(|| format!("{name} is not a text"))
}

fn number(value: &Value, name: &str) -> Result<u64, String> {
    field(value, name)?
        .as_u64()
        .ok_or_else(|| format!("{name} is not a number"))
}

fn texts(value: &Value, name: &str) -> Result<Vec<String>, String> {
    each(field(value, name)?, |tag| {
        tag.as_str()
            .map(str::to_owned)
            .ok_or_else(|| format!("{name} is not of texts"))
    })
}

fn map(value: &Value, name: &str) -> Result<BTreeMap<String, String>, String> {
    // Where nothing is given, Consul's answers have `null`.
    let pairs = match field(value, name)? {
        Value::Null => return Ok(BTreeMap::new()),
        value => value
            .as_object()
            .ok_or_else(|| format!("{name} is not an object"))?,
    };
    let pair = |(key, value): (&String, &Value)| value.as_str().map(|value| (key.clone(), value.to_owned()));
    pairs
        .iter()
        .map(pair)
        .collect::<Option<_>>()
        .ok_or_else(|| format!("{name} is not of texts"))
}

fn flag(value: &Value, name: &str) -> Result<bool, String> {
    let flag = field(value, name)?.as_bool();
    flag.ok_or_else(|| format!("{name} is neither true nor false"))
}

fn tagged_addresses(value: &Value, name: &str) -> Result<BTreeMap<String, (String, u16)>, String> {
    // Left out where there are none.
    let pairs = match value.get(name) {
        None | Some(Value::Null) => return Ok(BTreeMap::new()),
        Some(pairs) => pairs
            .as_object()
            .ok_or_else(|| format!("{name} is not an object"))?,
    };
    let one = |(tag, at): (&String, &Value)| Ok((tag.clone(), (text(at, "Address")?, port(at, "Port")?)));
    pairs.iter().map(one).collect()
}

/// What few instances have, by names behind a prefix; what is shown empty is nothing.
fn extras(value: &Value, prefix: &str) -> Map<String, Value> {
    let says_something = |value: &Value| match value {
        Value::Null => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
        _ => true,
    };
    let mut extras = Map::new();
    for name in ["Kind", "Locality", "Ports", "SocketPath", "Proxy", "Connect"] {
        let Some(mut shown) = value.get(format!("{prefix}{name}")).cloned() else {
            continue;
        };
        if let (Some(fields), "Proxy") = (shown.as_object_mut(), name) {
            fields.retain(|_, value| says_something(value));
        }
        if says_something(&shown) {
            extras.insert(name.to_owned(), shown);
        }
    }
    extras
}

fn port(value: &Value, name: &str) -> Result<u16, String> {
    // A port that is not given is left out, or `null`.
    match value.get(name) {
        None | Some(Value::Null) => Ok(0),
        Some(_) => u16::try_from(number(value, name)?).map_err(|_| format!("{name} is no port")),
    }
}

fn weights(value: &Value, name: &str) -> Result<(u64, u64), String> {
    let weights = field(value, name)?;
    Ok((number(weights, "Passing")?, number(weights, "Warning")?))
}

fn node_facts(node: &Value, meta: &str) -> Result<NodeFacts, String> {
    Ok(NodeFacts {
        id: text(node, "ID")?,
        tagged_addresses: map(node, "TaggedAddresses")?,
        meta: map(node, meta)?,
    })
}

fn health_entry(value: &Value) -> Result<InstanceSeen, String> {
    let node = field(value, "Node")?;
    Ok(InstanceSeen {
        node: text(node, "Node")?,
        node_address: text(node, "Address")?,
        node_facts: node_facts(node, "Meta")?,
        node_indexes: (number(node, "CreateIndex")?, number(node, "ModifyIndex")?),
        checks: each(field(value, "Checks")?, given_check)?,
        ..given_instance(field(value, "Service")?)?
    })
}

/// An instance as a transaction gives it: nothing is told of its node and its checks.
///
/// # Errors
/// Says what is missing or of a wrong type.
pub fn given_instance(service: &Value) -> Result<InstanceSeen, String> {
    Ok(InstanceSeen {
        node: String::new(),
        node_address: String::new(),
        node_facts: NodeFacts::default(),
        node_indexes: (0, 0),
        id: text(service, "ID")?,
        service: text(service, "Service")?,
        address: text(service, "Address")?,
        port: port(service, "Port")?,
        weights: weights(service, "Weights")?,
        tags: match service.get("Tags") {
            Some(Value::Null) => Vec::new(),
            _ => texts(service, "Tags")?,
        },
        tag_override: flag(service, "EnableTagOverride")?,
        tagged_addresses: tagged_addresses(service, "TaggedAddresses")?,
        meta: map(service, "Meta")?,
        extras: extras(service, ""),
        create_index: number(service, "CreateIndex")?,
        modify_index: number(service, "ModifyIndex")?,
        checks: Vec::new(),
    })
}

fn catalog_entry(value: &Value) -> Result<InstanceSeen, String> {
    Ok(InstanceSeen {
        node: text(value, "Node")?,
        node_address: text(value, "Address")?,
        node_facts: node_facts(value, "NodeMeta")?,
        node_indexes: (0, 0),
        id: text(value, "ServiceID")?,
        service: text(value, "ServiceName")?,
        address: text(value, "ServiceAddress")?,
        port: port(value, "ServicePort")?,
        weights: weights(value, "ServiceWeights")?,
        tags: texts(value, "ServiceTags")?,
        tag_override: flag(value, "ServiceEnableTagOverride")?,
        tagged_addresses: tagged_addresses(value, "ServiceTaggedAddresses")?,
        meta: map(value, "ServiceMeta")?,
        extras: extras(value, "Service"),
        create_index: number(value, "CreateIndex")?,
        modify_index: number(value, "ModifyIndex")?,
        checks: Vec::new(),
    })
}

fn services(value: &Value) -> Result<Content, String> {
    let names = value.as_object().ok_or("not an object")?;
    let mut services = BTreeMap::new();
    for name in names.keys() {
        let mut tags = texts(value, name)?;
        tags.sort();
        services.insert(name.clone(), tags);
    }
    Ok(Content::Services(services))
}

/// A node with its services. Where there is no such node, the one form is `null`, and the other has a `null` in it.
fn node_services(value: &Value, list: bool) -> Result<Content, String> {
    let node = match list {
        true => field(value, "Node")?,
        false => value.get("Node").unwrap_or(&Value::Null),
    };
    if node.is_null() {
        return match list || value.is_null() {
            true => Ok(Content::NodeServices(None)),
            false => Err("no Node".into()),
        };
    }
    let services = field(value, "Services")?;
    let instances = match list {
        true => each(services, given_instance)?,
        false => {
            let by_id = services.as_object().ok_or("services are not an object")?;
            let one = |(id, service): (&String, &Value)| match given_instance(service) {
                Ok(instance) if instance.id != *id => Err(format!("{} under the id {id}", instance.id)),
                other => other,
            };
            let mut instances = by_id.iter().map(one).collect::<Result<Vec<_>, _>>()?;
            instances.sort_by(|one, other| one.id.cmp(&other.id));
            instances
        }
    };
    Ok(Content::NodeServices(Some(Box::new((
        given_node(node)?,
        instances,
    )))))
}

/// A node.
///
/// # Errors
/// Says what is missing or of a wrong type.
pub fn given_node(value: &Value) -> Result<NodeSeen, String> {
    Ok(NodeSeen {
        name: text(value, "Node")?,
        address: text(value, "Address")?,
        facts: node_facts(value, "Meta")?,
        create_index: number(value, "CreateIndex")?,
        modify_index: number(value, "ModifyIndex")?,
    })
}

/// A check.
///
/// # Errors
/// Says what is missing or of a wrong type.
pub fn given_check(value: &Value) -> Result<CheckSeen, String> {
    let status = text(value, "Status")?;
    Ok(CheckSeen {
        node: text(value, "Node")?,
        id: text(value, "CheckID")?,
        name: text(value, "Name")?,
        status: status_of(&status).ok_or_else(|| format!("{status:?} is no status"))?,
        output: text(value, "Output")?,
        notes: text(value, "Notes")?,
        kind: text(value, "Type")?,
        instance: text(value, "ServiceID")?,
        service: text(value, "ServiceName")?,
        // A transaction has `null` where there is no service.
        service_tags: match value.get("ServiceTags") {
            Some(Value::Null) => Vec::new(),
            _ => texts(value, "ServiceTags")?,
        },
        create_index: number(value, "CreateIndex")?,
        modify_index: number(value, "ModifyIndex")?,
    })
}
