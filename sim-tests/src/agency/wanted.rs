//! What of an agent must be in the registry in the end: what is in its configuration, and what was ordered last.

use std::{collections::BTreeMap, time::Duration};

use sider_core::registry::{CheckStatus, Namespace, Session};

use super::{
    INSTANCE_ADDRESS, NODE_TTL, PROBE_INTERVAL, PROBED, RENEWED_TTL, SERVICE, SPARE, TOLD_TTL, check_name,
    check_of, said, services,
};
use crate::{
    history::{AgentCheck, AgentInstance, AgentLooks, AgentPromise},
    operation::ELSEWHERE,
    schedule::{AgentPlan, Order, Sort, Subject},
};

/// What is ordered of an instance.
struct Ordered {
    port: u16,
    sort: Sort,
    /// Another check of it.
    more: Option<Sort>,
}

/// What must be there.
pub(super) fn wanted(plan: &AgentPlan) -> AgentPromise {
    let healthy = plan.flips_ms.len().is_multiple_of(2);
    let (ordered, of_node) = ordered(&plan.orders);
    let mut instances: Vec<AgentInstance> = configured(healthy).into();
    if has_spare(plan.reloads_ms.len()) {
        let looks = instances[0].looks.clone();
        let checks = vec![check(check_of(SPARE), check_name(), Sort::Http, healthy)];
        instances.push(instance(Namespace::default(), SPARE, 4, looks, checks));
    }
    let mut leaving = Vec::new();
    for (id, it) in ordered {
        if it.sort == Sort::Fatal {
            leaving.push(id.to_owned());
            continue;
        }
        let own = check(check_of(id), check_name(), it.sort, healthy);
        let more = it.more.map(|sort| {
            let name = services::MORE.to_owned();
            check(services::more_of(id), name, sort, healthy)
        });
        let looks = AgentLooks::default();
        let checks = std::iter::once(own).chain(more).collect();
        instances.push(instance(Namespace::default(), id, it.port, looks, checks));
    }
    let name = services::OF_NODE.to_owned();
    let alive = AgentCheck {
        id: Session::NODE_ALIVE.to_owned(),
        name: "Serf Health Status".to_owned(),
        status: Some(CheckStatus::Passing),
        output: Some("Agent alive and reachable".to_owned()),
        ttl: Some(NODE_TTL),
        interval: Duration::ZERO,
    };
    let of_node = of_node.map(|sort| check(name.clone(), name, sort, healthy));
    AgentPromise {
        instances,
        node_checks: [alive].into_iter().chain(of_node).collect(),
        leaving,
        ..AgentPromise::default()
    }
}

/// What was ordered last, of each instance and of the node.
fn ordered(orders: &[Order]) -> (BTreeMap<&str, Ordered>, Option<Sort>) {
    let mut instances: BTreeMap<&str, Ordered> = BTreeMap::new();
    let mut of_node = None;
    for order in orders {
        let id = order.id.as_str();
        let sort = order.sort;
        match (order.subject, order.port) {
            (Subject::Instance, Some(port)) => {
                let more = instances.get(id).and_then(|it| it.more);
                instances.insert(id, Ordered { port, sort, more });
            }
            (Subject::Replacement, Some(port)) => {
                let more = None;
                instances.insert(id, Ordered { port, sort, more });
            }
            (Subject::Instance | Subject::Replacement, None) => drop(instances.remove(id)),
            (Subject::Check, port) => {
                if let Some(instance) = instances.get_mut(id) {
                    instance.more = port.map(|_| sort);
                }
            }
            (Subject::NodeCheck, port) => of_node = port.map(|_| sort),
        }
    }
    (instances, of_node)
}

/// Whether the configuration names one service more when it was read again so many times.
pub(super) fn has_spare(reloads: usize) -> bool {
    reloads % 2 == 1
}

fn configured(healthy: bool) -> [AgentInstance; 3] {
    let looks = AgentLooks {
        address: INSTANCE_ADDRESS.to_owned(),
        tags: vec!["steady".to_owned()],
        meta: [("kept".to_owned(), "yes".to_owned())].into(),
        weights: (3, 2),
        tagged_addresses: [("wan".to_owned(), (INSTANCE_ADDRESS.to_owned(), 7))].into(),
        tag_override: false,
    };
    let renewed = AgentCheck {
        status: Some(CheckStatus::Passing),
        ttl: Some(RENEWED_TTL),
        ..check(check_of("renewed"), check_name(), Sort::Ttl, healthy)
    };
    let probed = check(check_of(PROBED), check_name(), Sort::Http, healthy);
    let here = Namespace::default;
    let elsewhere = Namespace::parse(ELSEWHERE).expect("a valid name");
    [
        instance(here(), "renewed", 1, looks.clone(), vec![renewed.clone()]),
        instance(here(), PROBED, 2, looks.clone(), vec![probed]),
        instance(elsewhere, "renewed", 3, looks, vec![renewed]),
    ]
}

fn instance(
    namespace: Namespace,
    id: &str,
    port: u16,
    looks: AgentLooks,
    checks: Vec<AgentCheck>,
) -> AgentInstance {
    AgentInstance {
        namespace,
        id: id.to_owned(),
        port,
        looks,
        service: SERVICE.to_owned(),
        checks,
    }
}

/// What a check of this sort must be while what it probes is so.
fn check(id: String, name: String, sort: Sort, healthy: bool) -> AgentCheck {
    let sick = match sort {
        Sort::Command => CheckStatus::Warning,
        _ => CheckStatus::Critical,
    };
    let output = match sort {
        Sort::Ttl | Sort::Fatal | Sort::Alias => None,
        Sort::Tcp if healthy => Some("Success".to_owned()),
        Sort::Http | Sort::Tcp | Sort::Command | Sort::Fleeting => Some(said(healthy)),
    };
    AgentCheck {
        id,
        name,
        status: match (sort, healthy) {
            (Sort::Ttl, _) => None,
            (Sort::Fatal, _) | (_, false) => Some(sick),
            (_, true) => Some(CheckStatus::Passing),
        },
        output,
        ttl: (sort == Sort::Ttl).then_some(TOLD_TTL),
        interval: match sort {
            Sort::Alias => Duration::ZERO,
            _ => PROBE_INTERVAL,
        },
    }
}
