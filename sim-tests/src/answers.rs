//! The model's answer to each question, worked out from a state by looking at everything.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::{Map, Value, json};
use sider_core::registry::{Check, CheckStatus, Instance, NamedPort, Namespace, Node, Probe, ServiceName};

use crate::{
    authority::RootsSeen,
    content::{CheckSeen, Content, InstanceSeen, NodeFacts, NodeSeen},
    keys::{KeySeen, SessionSeen, key},
    maintenance,
    matching::SHARED_NODE,
    model::State,
    narrowing::{Narrowing, Shape},
    operation::Ask,
    prepared,
};

/// What a client must read in this state.
pub fn answer(state: &State, ask: &Ask) -> Content {
    let (namespace, ask) = ask.place();
    answer_in(state, &namespace, ask)
}

fn answer_in(state: &State, here: &Namespace, ask: &Ask) -> Content {
    match ask {
        Ask::Elsewhere(_) => unreachable!("there is one elsewhere"),
        Ask::Narrowed { ask, by } => narrowed(state, here, ask, by),
        Ask::NodeServices { node, .. } => {
            Content::NodeServices(node_services(state, here, node).map(Box::new))
        }
        Ask::Health {
            service,
            passing,
            tags,
        } => {
            let chosen = instances(state, here, service, tags)
                .into_iter()
                .filter(|instance| !passing || is_passing(state, instance));
            Content::Instances(
                chosen
                    .map(|instance| instance_seen(state, instance, true))
                    .collect(),
            )
        }
        Ask::CatalogService { service, tags } => {
            let chosen = instances(state, here, service, tags).into_iter();
            Content::Instances(
                chosen
                    .map(|instance| instance_seen(state, instance, false))
                    .collect(),
            )
        }
        Ask::Connect {
            service,
            checks,
            passing,
        } => Content::Instances(members_of_mesh(state, here, service, (*checks, *passing))),
        Ask::Services => Content::Services(services(state, here, &|_| true)),
        Ask::Nodes => Content::Nodes(nodes(state)),
        Ask::NodeChecks(node) => checks(
            state,
            |check| check.node.as_str() == node && state.namespaces_of_check(check).contains(here),
            |check| (check.id.to_string(), check.instance.is_some()),
        ),
        Ask::ServiceChecks(service) => checks(
            state,
            |check| {
                check.namespace == *here
                    && state
                        .instance_of(check)
                        .is_some_and(|instance| same_service(instance, service))
            },
            |check| {
                let instance = check.instance.as_ref().map(ToString::to_string);
                (
                    false,
                    check.node.to_string(),
                    format!("{}\0{}", instance.unwrap_or_default(), check.id),
                )
            },
        ),
        Ask::ChecksInState(status) => checks(
            state,
            |check| check.namespace == *here && status.is_none_or(|status| check.status == status),
            |check| (false, check.node.to_string(), check.id.to_string()),
        ),
        Ask::Key(name) => {
            let held = state.key(&key(name));
            Content::Keys(held.map(KeySeen::of).into_iter().collect())
        }
        Ask::KeyTree(prefix) => {
            let tree = state.tree(&key(prefix));
            Content::Keys(tree.into_iter().map(|held| KeySeen::of(held)).collect())
        }
        Ask::KeyNames(prefix) => Content::KeyNames(key_names(state, prefix)),
        Ask::Sessions => Content::Sessions(sessions(state, |_| true)),
        Ask::SessionsOf(node) => Content::Sessions(sessions(state, |it| it.node == *node)),
        Ask::Session(id) => Content::Sessions(sessions(state, |it| it.id == *id)),
        Ask::Queries => Content::Queries(prepared::definitions(state)),
        Ask::Roots => Content::Roots(RootsSeen::held(state)),
    }
}

fn is_passing(state: &State, instance: &Instance) -> bool {
    let checks = state.checks_that_count(instance);
    checks.iter().all(|check| check.status == CheckStatus::Passing)
}

/// Proxies for a service, and its own instances that are members of a mesh themselves.
fn members_of_mesh(
    state: &State,
    here: &Namespace,
    service: &str,
    (checks, passing): (bool, bool),
) -> Vec<InstanceSeen> {
    let reaches = |instance: &Instance| {
        let Some(extras) = &instance.extras else {
            return false;
        };
        match &extras.proxy {
            Some(proxy) if extras.kind == "connect-proxy" => proxy.destination_service_name == service,
            _ => extras.connect_native && instance.service.as_str() == service,
        }
    };
    let mut chosen: Vec<&Arc<Instance>> = state
        .instances
        .iter()
        .filter(|it| it.namespace == *here && reaches(it))
        .filter(|it| !passing || is_passing(state, it))
        .collect();
    chosen.sort_by_key(|it| (it.node.clone(), it.id.clone()));
    let seen = chosen.into_iter().map(|it| instance_seen(state, it, checks));
    seen.collect()
}

/// Names with a prefix, each cut behind the first slash after it.
fn sessions(state: &State, wanted: impl Fn(&SessionSeen) -> bool) -> Vec<SessionSeen> {
    let all = state.sessions.iter().map(|session| SessionSeen::of(session));
    let mut sessions: Vec<SessionSeen> = all.filter(wanted).collect();
    sessions.sort_by(|one, other| one.id.cmp(&other.id));
    sessions
}

fn key_names(state: &State, prefix: &str) -> Vec<String> {
    let tree = state.tree(&key(prefix));
    let names = tree.iter().map(|held| {
        let name = held.key.to_string();
        match name[prefix.len()..].find('/') {
            Some(slash) => name[..=prefix.len() + slash].to_owned(),
            None => name,
        }
    });
    let mut names: Vec<String> = names.collect();
    names.dedup();
    names
}

fn instances<'a>(
    state: &'a State,
    namespace: &Namespace,
    service: &str,
    tags: &[String],
) -> Vec<&'a Arc<Instance>> {
    let tagged = |instance: &Instance| {
        tags.iter()
            .all(|tag| instance.tags.iter().any(|own| own.eq_ignore_ascii_case(tag)))
    };
    let mut instances: Vec<&Arc<Instance>> = state
        .instances
        .iter()
        .filter(|instance| instance.namespace == *namespace)
        .filter(|instance| same_service(instance, service) && tagged(instance))
        .collect();
    instances.sort_by_key(|instance| (instance.node.clone(), instance.id.clone()));
    instances
}

/// Services are asked for without regard to the case of letters.
fn same_service(instance: &Instance, name: &str) -> bool {
    instance.service.as_str().eq_ignore_ascii_case(name)
}

/// An instance of which nothing is told but itself.
pub fn instance_alone(instance: &Instance) -> InstanceSeen {
    InstanceSeen {
        node: String::new(),
        node_address: String::new(),
        node_facts: NodeFacts::default(),
        node_indexes: (0, 0),
        id: instance.id.to_string(),
        service: instance.service.to_string(),
        address: instance.address.clone(),
        port: instance.port,
        weights: (instance.weights.passing.into(), instance.weights.warning.into()),
        tags: instance.tags.clone(),
        tag_override: instance.enable_tag_override,
        tagged_addresses: tagged_addresses(instance),
        meta: instance.meta.clone(),
        extras: extras(instance),
        create_index: instance.create_index,
        modify_index: instance.modify_index,
        checks: Vec::new(),
    }
}

/// What it has beyond what most have, by its names in requests.
pub fn extras(instance: &Instance) -> Map<String, Value> {
    let mut told = Map::new();
    let Some(extras) = &instance.extras else {
        return told;
    };
    let mut tell = |name: &str, value: Value| {
        told.insert(name.to_owned(), value);
    };
    if !extras.kind.is_empty() {
        tell("Kind", json!(extras.kind));
    }
    if let Some(at) = &extras.locality {
        tell("Locality", json!({ "Region": at.region, "Zone": at.zone }));
    }
    if !extras.ports.is_empty() {
        let port =
            |port: &NamedPort| json!({ "Name": port.name, "Port": port.port, "Default": port.default });
        tell("Ports", extras.ports.iter().map(port).collect());
    }
    if !extras.socket_path.is_empty() {
        tell("SocketPath", json!(extras.socket_path));
    }
    if extras.connect_native {
        tell("Connect", json!({ "Native": true }));
    }
    if let Some(proxy) = &extras.proxy {
        let mut said: Value = serde_json::from_str(&proxy.rest).expect("a server writes what it has parsed");
        for (name, text) in [
            ("DestinationServiceName", &proxy.destination_service_name),
            ("DestinationServiceID", &proxy.destination_service_id),
            ("LocalServiceAddress", &proxy.local_service_address),
            ("LocalServiceSocketPath", &proxy.local_service_socket_path),
            ("Mode", &proxy.mode),
        ] {
            if !text.is_empty() {
                said[name] = json!(text);
            }
        }
        if proxy.local_service_port != 0 {
            said["LocalServicePort"] = json!(proxy.local_service_port);
        }
        tell("Proxy", said);
    }
    told
}

/// Those that were given; an instance of the servers' shared node has its own address under two more names.
fn tagged_addresses(instance: &Instance) -> BTreeMap<String, (String, u16)> {
    let given = instance.tagged_addresses.iter();
    let mut all: BTreeMap<_, _> = given
        .map(|(tag, at)| (tag.clone(), (at.address.clone(), at.port)))
        .collect();
    if instance.node.as_str() == SHARED_NODE && !instance.address.is_empty() {
        for tag in ["lan_ipv4", "wan_ipv4"] {
            let own = (instance.address.clone(), instance.port);
            all.entry(tag.to_owned()).or_insert(own);
        }
    }
    all
}

fn instance_seen(state: &State, instance: &Instance, with_checks: bool) -> InstanceSeen {
    let checks = if with_checks {
        state.checks_that_count(instance)
    } else {
        Vec::new()
    };
    let node = state.node(&instance.node);
    InstanceSeen {
        node: instance.node.to_string(),
        node_address: node.map(|node| node.address.clone()).unwrap_or_default(),
        node_facts: node.map(|node| node_facts(node)).unwrap_or_default(),
        // A list without checks does not show them.
        node_indexes: node
            .filter(|_| with_checks)
            .map(|node| (node.create_index, node.modify_index))
            .unwrap_or_default(),
        checks: checks.into_iter().map(|check| check_seen(state, check)).collect(),
        ..instance_alone(instance)
    }
}

/// What is told of a node beside its name and address.
pub fn node_facts(node: &Node) -> NodeFacts {
    NodeFacts {
        id: node.id.clone(),
        tagged_addresses: node.tagged_addresses.clone(),
        meta: node.meta.clone(),
    }
}

/// A check as a client sees it.
pub fn check_seen(state: &State, check: &Check) -> CheckSeen {
    let instance = state.instance_of(check);
    check_shown(check, instance.map(|it| (&it.service, it.tags.as_slice())))
}

/// A check with the service of its instance and the instance's tags.
pub fn check_shown(check: &Check, service: Option<(&ServiceName, &[String])>) -> CheckSeen {
    let instance = check.instance.as_ref();
    CheckSeen {
        node: check.node.to_string(),
        id: check.id.to_string(),
        name: check.name.clone(),
        status: check.status,
        output: check.output.clone(),
        notes: check.notes.clone(),
        kind: kind_of(check).to_owned(),
        instance: instance.map(ToString::to_string).unwrap_or_default(),
        service: service.map(|(name, _)| name.to_string()).unwrap_or_default(),
        service_tags: service.map(|(_, tags)| tags.to_vec()).unwrap_or_default(),
        create_index: check.create_index,
        modify_index: check.modify_index,
    }
}

/// Services with the union of the tags of those instances that are wanted, sorted.
/// What a check is called by how its status comes about.
fn kind_of(check: &Check) -> &'static str {
    let id = check.id.as_str();
    match &check.definition.probe {
        Probe::Ttl(_) => "ttl",
        Probe::Http { .. } => "http",
        Probe::Tcp(_) => "tcp",
        Probe::Cmd(_) => "script",
        Probe::External if id == maintenance::OF_NODE => "maintenance",
        Probe::External if id.starts_with(&maintenance::check_of("")) => "maintenance",
        Probe::External => "",
        other => other.kind().as_str(),
    }
}

fn services(
    state: &State,
    here: &Namespace,
    wanted: &dyn Fn(&Instance) -> bool,
) -> BTreeMap<String, Vec<String>> {
    let mut services: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for instance in state
        .instances
        .iter()
        .filter(|it| it.namespace == *here && wanted(it))
    {
        let tags = services.entry(instance.service.to_string()).or_default();
        tags.extend(instance.tags.iter().cloned());
    }
    for tags in services.values_mut() {
        tags.sort();
        tags.dedup();
    }
    services
}

/// What is left of an answer: each thing of it is looked at as a client would.
fn narrowed(state: &State, here: &Namespace, ask: &Ask, by: &Narrowing) -> Content {
    let on_node = |node: &str| {
        let facts = state.nodes.iter().find(|it| it.name.as_str() == node);
        facts.is_some_and(|node| by.keeps_node(&node_facts(node)))
    };
    if let Ask::Services = ask {
        let wanted = |it: &Instance| by.keeps_instance(Shape::Catalog, &instance_seen(state, it, false));
        return Content::Services(services(state, here, &wanted));
    }
    let mut content = answer_in(state, here, ask);
    match &mut content {
        Content::Instances(instances) => {
            let shape = Shape::of(ask).expect("a list of instances has a shape");
            instances.retain(|it| by.keeps_instance(shape, it));
            by.order(instances, |it| &it.node);
        }
        Content::Nodes(nodes) => {
            nodes.retain(|it| by.keeps_listed_node(it));
            by.order(nodes, |it| &it.name);
        }
        Content::NodeServices(Some(found)) => found.1.retain(|it| by.keeps_instance(Shape::Service, it)),
        // Whose pairs are asked for is the node of each; a list of one node's checks does not ask.
        Content::Checks(checks) => {
            checks.retain(|it| by.keeps_check(it) && (by.node_meta.is_empty() || on_node(&it.node)));
            by.order(checks, |it| &it.node);
        }
        _ => {}
    }
    content
}

/// A node where it is seen: in the default namespace, and wherever it has an instance.
fn node_services(state: &State, here: &Namespace, name: &str) -> Option<(NodeSeen, Vec<InstanceSeen>)> {
    let node = nodes(state).into_iter().find(|it| it.name == name)?;
    let on_it = state
        .instances
        .iter()
        .filter(|it| it.node.as_str() == name && it.namespace == *here);
    let mut instances: Vec<InstanceSeen> = on_it.map(|it| instance_alone(it)).collect();
    instances.sort_by(|one, other| one.id.cmp(&other.id));
    (*here == Namespace::default() || !instances.is_empty()).then_some((node, instances))
}

fn nodes(state: &State) -> Vec<NodeSeen> {
    let mut nodes: Vec<NodeSeen> = state
        .nodes
        .iter()
        .map(|node| NodeSeen {
            name: node.name.to_string(),
            address: node.address.clone(),
            facts: node_facts(node),
            create_index: node.create_index,
            modify_index: node.modify_index,
        })
        .collect();
    nodes.sort_by(|a, b| a.name.cmp(&b.name));
    nodes
}

fn checks<K: Ord>(state: &State, chosen: impl Fn(&Check) -> bool, order: impl Fn(&Check) -> K) -> Content {
    let mut checks: Vec<&Arc<Check>> = state.checks.iter().filter(|check| chosen(check)).collect();
    checks.sort_by_key(|check| order(check));
    Content::Checks(checks.into_iter().map(|check| check_seen(state, check)).collect())
}
