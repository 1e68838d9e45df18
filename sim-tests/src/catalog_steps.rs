//! Steps of transactions on the catalog: nodes, instances and checks, as values, as they stand in `/v1/txn`, and what they
//! give.

use std::{collections::BTreeMap, fmt, time::Duration};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sider_core::registry::{
    CheckDefinition, CheckDefinitionUpdate, CheckId, CheckKey, CheckStatus, Instance, InstanceId,
    InstanceKey, Namespace, Node, NodeName, Operation, OperationResult, Probe, ServiceName, Weights,
};

use crate::{
    answers::{check_shown, instance_alone, node_facts},
    content::{CheckSeen, Content, InstanceSeen, NodeSeen, given_check, given_instance, given_node},
    keys::{KeyOp, KeySeen, Step},
    operation::{Ask, Op},
};

/// What is done to one thing of the catalog.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CatalogStep {
    /// What is done.
    pub verb: Verb,
    /// To what; what it says beside names counts only where it is set.
    pub thing: Thing,
}

/// What is done to a thing of the catalog.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verb {
    /// Reads it.
    Get,
    /// Registers it.
    Set,
    /// Registers it if it has this modify index; 0 if it is not there.
    SetIf(u64),
    /// Removes it with all that hangs on it.
    Delete,
    /// The same, if it has this modify index; 0 if it is not there.
    DeleteIf(u64),
}

/// A thing of the catalog.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Thing {
    /// A node.
    Node {
        /// Name.
        name: String,
        /// Address.
        address: String,
    },
    /// An instance in the default namespace.
    Instance {
        /// Its node, which must be there.
        node: String,
        /// Id.
        id: String,
        /// Service.
        service: String,
        /// Port.
        port: u16,
    },
    /// A check in the default namespace.
    Check {
        /// Its node, which must be there.
        node: String,
        /// Id.
        id: String,
        /// Its instance, which must be there; none for a node's own check.
        instance: Option<String>,
        /// Its status; none leaves it, or begins critical.
        status: Option<CheckStatus>,
        /// Its TTL in milliseconds; 0 if it is not a TTL check.
        ttl_ms: u64,
    },
}

/// What makes a thing of the catalog this one and no other: its kind, its node, its id.
pub type Name = (Kind, String, String);

/// A kind of thing in the catalog.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A node.
    Node,
    /// An instance.
    Instance,
    /// A check.
    Check,
}

/// What one step of a transaction gives, as a client sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Given {
    /// A key.
    Key(KeySeen),
    /// A node.
    Node(NodeSeen),
    /// An instance; nothing is told of its node.
    Instance(InstanceSeen),
    /// A check.
    Check(CheckSeen),
}

impl Given {
    /// What a client must be told of the results of a transaction.
    pub fn all_of(results: &[OperationResult]) -> Vec<Given> {
        results.iter().map(Given::of).collect()
    }

    fn of(result: &OperationResult) -> Given {
        match result {
            OperationResult::Key(held) | OperationResult::KeyMeta(held) => Given::Key(KeySeen::of(held)),
            OperationResult::Node(node) => Given::Node(NodeSeen {
                name: node.name.to_string(),
                address: node.address.clone(),
                facts: node_facts(node),
                create_index: node.create_index,
                modify_index: node.modify_index,
            }),
            OperationResult::Instance(instance) => Given::Instance(instance_alone(instance)),
            OperationResult::Check((check, service)) => {
                let service = service.as_ref().map(|(name, tags)| (name, tags.as_slice()));
                Given::Check(check_shown(check, service))
            }
        }
    }

    /// One result as an answer shows it.
    ///
    /// # Errors
    /// Says what is wrong.
    pub fn parse(result: &Value) -> Result<Given, String> {
        let kinds = result.as_object().ok_or("a result is no object")?;
        let mut kinds = kinds.iter();
        let (Some((kind, value)), None) = (kinds.next(), kinds.next()) else {
            return Err(format!("{result} is not of one kind"));
        };
        match kind.as_str() {
            "KV" => KeySeen::parse(value).map(Given::Key),
            "Node" => given_node(value).map(Given::Node),
            "Service" => given_instance(value).map(Given::Instance),
            "Check" => given_check(value).map(Given::Check),
            other => Err(format!("{other:?} is no kind of result")),
        }
    }

    /// The key that it is, if it is one.
    pub fn key(&self) -> Option<&KeySeen> {
        match self {
            Given::Key(held) => Some(held),
            _ => None,
        }
    }

    /// Which thing of the catalog it is, and its modify index.
    fn index(&self, op: &Op) -> Option<(Name, u64)> {
        match self {
            Given::Key(_) => None,
            // It is told without its node, which is that of the step.
            Given::Instance(instance) => {
                let Op::Keys(KeyOp::Transact(steps)) = op else {
                    return None;
                };
                let names = steps.iter().filter_map(|step| match step {
                    Step::Catalog(step) => Some(step.thing.name()),
                    _ => None,
                });
                let mut ours = names.filter(|(kind, _, id)| *kind == Kind::Instance && *id == instance.id);
                Some((ours.next()?, instance.modify_index))
            }
            Given::Node(node) => Some((node_name(&node.name), node.modify_index)),
            Given::Check(check) => Some((check_name(check), check.modify_index)),
        }
    }
}

impl fmt::Display for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Given::Key(held) => f.write_str(&held.key),
            Given::Node(node) => f.write_str(&node.name),
            Given::Instance(instance) => f.write_str(&instance.id),
            Given::Check(check) => write!(f, "{} {}", check.id, check.status.as_str()),
        }
    }
}

/// The modify indexes of things of the catalog that an answer tells, as far as transactions name such things.
pub fn indexes_told(op: &Op, content: &Content) -> Vec<(Name, u64)> {
    // What has the same id elsewhere is another thing.
    if matches!(op.asked(), Some((Ask::Elsewhere(_), _))) {
        return Vec::new();
    }
    match content {
        Content::Given(given) => given.iter().filter_map(|given| given.index(op)).collect(),
        Content::Nodes(nodes) => {
            let nodes = nodes.iter();
            nodes.map(|it| (node_name(&it.name), it.modify_index)).collect()
        }
        Content::Instances(instances) => {
            let name = |it: &InstanceSeen| (Kind::Instance, it.node.clone(), it.id.clone());
            let of_instances = instances.iter().map(|it| (name(it), it.modify_index));
            let checks = instances.iter().flat_map(|it| &it.checks);
            of_instances
                .chain(checks.map(|it| (check_name(it), it.modify_index)))
                .collect()
        }
        Content::Checks(checks) => {
            let checks = checks.iter();
            checks.map(|it| (check_name(it), it.modify_index)).collect()
        }
        _ => Vec::new(),
    }
}

fn node_name(name: &str) -> Name {
    (Kind::Node, name.to_owned(), String::new())
}

fn check_name(check: &CheckSeen) -> Name {
    (Kind::Check, check.node.clone(), check.id.clone())
}

impl Thing {
    /// Which it is.
    pub fn name(&self) -> Name {
        match self {
            Thing::Node { name, .. } => node_name(name),
            Thing::Instance { node, id, .. } => (Kind::Instance, node.clone(), id.clone()),
            Thing::Check { node, id, .. } => (Kind::Check, node.clone(), id.clone()),
        }
    }

    /// The node that it is on, or is.
    pub fn node(&self) -> &str {
        let (Thing::Node { name: node, .. } | Thing::Instance { node, .. } | Thing::Check { node, .. }) =
            self;
        node
    }

    /// Its place in `/v1/txn`, beside the verb.
    fn body(&self, index: u64) -> (&'static str, Value) {
        match self {
            Thing::Node { name, address } => {
                let node = json!({ "Node": name, "Address": address, "ModifyIndex": index });
                ("Node", json!({ "Node": node }))
            }
            Thing::Instance {
                node,
                id,
                service,
                port,
            } => {
                let instance = json!({ "ID": id, "Service": service, "Port": port, "ModifyIndex": index });
                ("Service", json!({ "Node": node, "Service": instance }))
            }
            Thing::Check {
                node,
                id,
                instance,
                status,
                ttl_ms,
            } => {
                let mut check = json!({ "Node": node, "CheckID": id, "Name": id, "ModifyIndex": index });
                if let Some(instance) = instance {
                    check["ServiceID"] = json!(instance);
                }
                if let Some(status) = status {
                    check["Status"] = json!(status.as_str());
                }
                if *ttl_ms > 0 {
                    check["Definition"] = json!({ "TTL": format!("{ttl_ms}ms") });
                }
                ("Check", json!({ "Check": check }))
            }
        }
    }
}

impl CatalogStep {
    /// Whether it changes nothing.
    pub fn only_reads(&self) -> bool {
        self.verb == Verb::Get
    }

    /// The thing whose index it expects, and that index.
    pub fn expects(&mut self) -> Option<(Name, &mut u64)> {
        let name = self.thing.name();
        match &mut self.verb {
            Verb::SetIf(index) | Verb::DeleteIf(index) => Some((name, index)),
            Verb::Get | Verb::Set | Verb::Delete => None,
        }
    }

    /// The operation that a server makes of it.
    pub fn operation(&self) -> Operation {
        match &self.thing {
            Thing::Node { name, address } => node_operation(self.verb, name, address),
            Thing::Instance {
                node,
                id,
                service,
                port,
            } => instance_operation(self.verb, node, id, service, *port),
            Thing::Check { .. } => check_operation(self.verb, &self.thing),
        }
    }

    /// Its place in `/v1/txn`.
    pub fn body(&self) -> Value {
        let (verb, index) = match self.verb {
            Verb::Get => ("get", 0),
            Verb::Set => ("set", 0),
            Verb::SetIf(index) => ("cas", index),
            Verb::Delete => ("delete", 0),
            Verb::DeleteIf(index) => ("delete-cas", index),
        };
        let (kind, mut body) = self.thing.body(index);
        body["Verb"] = json!(verb);
        json!({ kind: body })
    }
}

fn node(name: &str) -> NodeName {
    NodeName::parse(name).expect("simulated names are valid")
}

fn node_operation(verb: Verb, name: &str, address: &str) -> Operation {
    let given = || Node {
        name: node(name),
        id: String::new(),
        address: address.to_owned(),
        tagged_addresses: BTreeMap::new(),
        meta: BTreeMap::new(),
        create_index: 0,
        modify_index: 0,
        locality: None,
    };
    match verb {
        Verb::Get => Operation::GetNode(node(name)),
        Verb::Set => Operation::SetNode(given()),
        Verb::SetIf(index) => Operation::SetNodeIf(given(), index),
        Verb::Delete => Operation::DeleteNode(node(name)),
        Verb::DeleteIf(index) => Operation::DeleteNodeIf(node(name), index),
    }
}

fn instance_operation(verb: Verb, on: &str, id: &str, service: &str, port: u16) -> Operation {
    let key = || InstanceKey {
        namespace: Namespace::default(),
        node: node(on),
        id: InstanceId::parse(id).expect("simulated names are valid"),
    };
    let given = || Instance {
        namespace: Namespace::default(),
        node: node(on),
        id: key().id,
        service: ServiceName::parse(service).expect("simulated names are valid"),
        address: String::new(),
        port,
        tags: Vec::new(),
        meta: BTreeMap::new(),
        weights: Weights::default(),
        tagged_addresses: BTreeMap::new(),
        enable_tag_override: false,
        create_index: 0,
        modify_index: 0,
        extras: None,
    };
    match verb {
        Verb::Get => Operation::GetInstance(key()),
        Verb::Set => Operation::SetInstance(given()),
        Verb::SetIf(index) => Operation::SetInstanceIf(given(), index),
        Verb::Delete => Operation::DeleteInstance(key()),
        Verb::DeleteIf(index) => Operation::DeleteInstanceIf(key(), index),
    }
}

fn check_operation(verb: Verb, thing: &Thing) -> Operation {
    let Thing::Check {
        node: on,
        id,
        instance,
        status,
        ttl_ms,
    } = thing
    else {
        unreachable!("it is a check")
    };
    let key = || CheckKey {
        namespace: Namespace::default(),
        node: node(on),
        id: CheckId::parse(id).expect("simulated names are valid"),
    };
    let given = || CheckDefinitionUpdate {
        id: key().id,
        namespace: Namespace::default(),
        node: node(on),
        name: id.clone(),
        instance: instance
            .as_ref()
            .map(|id| InstanceId::parse(id).expect("simulated names are valid")),
        definition: CheckDefinition {
            probe: match ttl_ms {
                0 => Probe::External,
                ttl_ms => Probe::Ttl(Duration::from_millis(*ttl_ms)),
            },
            ..CheckDefinition::default()
        },
        status: *status,
        output: String::new(),
        notes: String::new(),
    };
    match verb {
        Verb::Get => Operation::GetCheck(key()),
        Verb::Set => Operation::SetCheck(given()),
        Verb::SetIf(index) => Operation::SetCheckIf(given(), index),
        Verb::Delete => Operation::DeleteCheck(key()),
        Verb::DeleteIf(index) => Operation::DeleteCheckIf(key(), index),
    }
}

impl fmt::Display for CatalogStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (verb, index) = match self.verb {
            Verb::Get => ("get", None),
            Verb::Set => ("set", None),
            Verb::SetIf(index) => ("set", Some(index)),
            Verb::Delete => ("delete", None),
            Verb::DeleteIf(index) => ("delete", Some(index)),
        };
        let sets = matches!(self.verb, Verb::Set | Verb::SetIf(_));
        match &self.thing {
            Thing::Node { name, address } => {
                write!(f, "{verb} node {name}")?;
                if sets {
                    write!(f, " at {address}")?;
                }
            }
            Thing::Instance {
                node,
                id,
                service,
                port,
            } => {
                write!(f, "{verb} {id} on {node}")?;
                if sets {
                    write!(f, " of {service} port {port}")?;
                }
            }
            Thing::Check {
                node,
                id,
                instance,
                status,
                ttl_ms,
            } => {
                write!(f, "{verb} check {id} on {node}")?;
                if sets {
                    instance.iter().try_for_each(|it| write!(f, " of {it}"))?;
                    status.iter().try_for_each(|it| write!(f, " {}", it.as_str()))?;
                    write!(f, " ttl={ttl_ms}ms")?;
                }
            }
        }
        index.iter().try_for_each(|index| write!(f, " if at {index}"))
    }
}
