//! The model's answer to each question, worked out from a state by looking at everything.

use std::{collections::BTreeMap, sync::Arc};

use sider_core::registry::{Check, CheckStatus, Instance, Namespace, Node};

use crate::{
    content::{CheckSeen, Content, InstanceSeen, NodeFacts, NodeSeen},
    keys::{KeySeen, SessionSeen, key},
    model::State,
    operation::Ask,
    prepared,
};

/// What a client must read in this state.
pub fn answer(state: &State, ask: &Ask) -> Content {
    let (namespace, ask) = ask.place();
    let here = &namespace;
    match ask {
        Ask::Elsewhere(_) => unreachable!("there is one elsewhere"),
        Ask::Health {
            service,
            passing,
            tags,
        } => {
            let chosen = instances(state, here, service, tags)
                .into_iter()
                .filter(|instance| {
                    !passing
                        || state
                            .checks_that_count(instance)
                            .iter()
                            .all(|check| check.status == CheckStatus::Passing)
                });
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
        Ask::Services => Content::Services(services(state, here)),
        Ask::Nodes => Content::Nodes(nodes(state)),
        Ask::NodeChecks(node) => checks(
            state,
            |check| check.node.as_str() == node && state.namespaces_of_check(check).contains(here),
            |check| (check.instance.is_some(), String::new(), check.id.to_string()),
        ),
        Ask::ServiceChecks(service) => checks(
            state,
            |check| {
                check.namespace == *here
                    && state
                        .instance_of(check)
                        .is_some_and(|instance| instance.service.as_str() == service)
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
        Ask::Sessions => {
            let mut sessions: Vec<SessionSeen> = state
                .sessions
                .iter()
                .map(|session| SessionSeen::of(session))
                .collect();
            sessions.sort_by(|one, other| one.id.cmp(&other.id));
            Content::Sessions(sessions)
        }
        Ask::Queries => Content::Queries(prepared::definitions(state)),
    }
}

/// Names with a prefix, each cut behind the first slash after it.
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
        .filter(|instance| instance.service.as_str() == service && tagged(instance))
        .collect();
    instances.sort_by_key(|instance| (instance.node.clone(), instance.id.clone()));
    instances
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
        id: instance.id.to_string(),
        service: instance.service.to_string(),
        address: instance.address.clone(),
        port: instance.port,
        weights: (instance.weights.passing.into(), instance.weights.warning.into()),
        tags: instance.tags.clone(),
        meta: instance.meta.clone(),
        create_index: instance.create_index,
        modify_index: instance.modify_index,
        checks: checks.into_iter().map(|check| check_seen(state, check)).collect(),
    }
}

fn node_facts(node: &Node) -> NodeFacts {
    NodeFacts {
        id: node.id.clone(),
        tagged_addresses: node.tagged_addresses.clone(),
        meta: node.meta.clone(),
    }
}

fn check_seen(state: &State, check: &Check) -> CheckSeen {
    let instance = state.instance_of(check);
    CheckSeen {
        node: check.node.to_string(),
        id: check.id.to_string(),
        name: check.name.clone(),
        status: check.status,
        output: check.output.clone(),
        notes: check.notes.clone(),
        instance: check
            .instance
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
        service: instance
            .map(|instance| instance.service.to_string())
            .unwrap_or_default(),
        service_tags: instance.map(|instance| instance.tags.clone()).unwrap_or_default(),
        create_index: check.create_index,
        modify_index: check.modify_index,
    }
}

fn services(state: &State, here: &Namespace) -> BTreeMap<String, Vec<String>> {
    let of_default = state
        .services()
        .into_iter()
        .filter(|(namespace, ..)| *namespace == *here);
    of_default.map(|(_, service, tags)| (service, tags)).collect()
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
