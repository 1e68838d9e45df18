//! Anti-entropy: what the servers hold for this node against what it should be. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    local::{Change, Local, LocalCheck, LocalService},
    wire::{HeldCheck, HeldNode, HeldService},
};
use crate::{
    api::http::encode::definition,
    registry::{CheckId, CheckKey, CheckStatus, Instance, InstanceId, InstanceKey, Namespace},
};

/// What the servers hold for the node in one namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Held {
    /// The node with its services.
    pub(super) node: HeldNode,
    /// The checks of the node and of its services.
    pub(super) checks: Vec<HeldCheck>,
}

/// Something to put right.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Finding {
    /// The servers lack this, or hold it otherwise: it is registered again.
    Differs(Change),
    /// The servers hold what the agent does not know: it is removed.
    Unknown(Change),
    /// The servers do not have this check.
    LostCheck(CheckKey),
    /// The servers have another status or output for this check.
    Status(CheckKey),
    /// The servers have a status for a check of which nothing is known here.
    Adopt(CheckKey, CheckStatus, String),
}

/// Compares one namespace; findings come in the order of their keys.
pub(super) fn compare(local: &Local, namespace: &Namespace, held: &Held) -> Vec<Finding> {
    let mut findings = BTreeSet::new();
    let held_services: BTreeMap<&str, &HeldService> = held
        .node
        .services
        .iter()
        .map(|service| (service.id.as_str(), service))
        .collect();
    let held_checks: BTreeMap<&str, &HeldCheck> = held
        .checks
        .iter()
        .map(|check| (check.check_id.as_str(), check))
        .collect();
    if *namespace == Namespace::default() {
        node(local, held, &held_checks, &mut findings);
    }
    for (key, service) in local.services().filter(|(key, _)| key.namespace == *namespace) {
        let same = held_services
            .get(key.id.as_str())
            .is_some_and(|held| same_service(&service.instance, held));
        if !same {
            findings.insert(Finding::Differs(Change::Service(key.clone())));
        }
        service_checks(local, key, service, &held_checks, &mut findings);
    }
    for id in held_services.keys() {
        if let Ok(id) = InstanceId::parse(id) {
            let key = InstanceKey {
                namespace: namespace.clone(),
                node: local.node().name.clone(),
                id,
            };
            if local.service(&key).is_none() {
                findings.insert(Finding::Unknown(Change::Service(key)));
            }
        }
    }
    for check in &held.checks {
        unknown_check(local, namespace, check, &mut findings);
    }
    findings.into_iter().collect()
}

fn node(
    local: &Local,
    held: &Held,
    held_checks: &BTreeMap<&str, &HeldCheck>,
    findings: &mut BTreeSet<Finding>,
) {
    let same = held
        .node
        .node
        .as_ref()
        .is_some_and(|node| node.address == local.node().address && node.meta == local.node().meta);
    if !same {
        findings.insert(Finding::Differs(Change::Node));
    }
    for (key, check) in local.node_checks() {
        check_findings(key, check, held_checks, &Change::Node, findings);
    }
}

fn service_checks(
    local: &Local,
    key: &InstanceKey,
    service: &LocalService,
    held_checks: &BTreeMap<&str, &HeldCheck>,
    findings: &mut BTreeSet<Finding>,
) {
    let change = Change::Service(key.clone());
    for (key, check) in local.checks_of(service) {
        check_findings(key, check, held_checks, &change, findings);
    }
}

fn check_findings(
    key: &CheckKey,
    check: &LocalCheck,
    held_checks: &BTreeMap<&str, &HeldCheck>,
    change: &Change,
    findings: &mut BTreeSet<Finding>,
) {
    let update = &check.spec.update;
    let Some(held) = held_checks.get(key.id.as_str()) else {
        findings.insert(Finding::Differs(change.clone()));
        findings.insert(Finding::LostCheck(key.clone()));
        return;
    };
    let owner = update.instance.as_ref().map_or("", InstanceId::as_str);
    let same = held.name == update.name
        && held.notes == update.notes
        && held.service_id == owner
        && held.definition == definition(&update.definition);
    if !same {
        findings.insert(Finding::Differs(change.clone()));
    }
    let same =
        check.output == held.output && check.status.is_some_and(|status| status.as_str() == held.status);
    if same {
        return;
    }
    if check.set_at.is_none() {
        if let Some(status) = status_of(&held.status) {
            findings.insert(Finding::Adopt(key.clone(), status, held.output.clone()));
        }
    } else if update.definition.ttl().is_none() {
        // Not so for TTL checks: the servers alone know whether one was renewed in time.
        findings.insert(Finding::Status(key.clone()));
    }
}

/// A check that the agent does not know goes: with its unknown service, by registering its known one again, or alone.
fn unknown_check(local: &Local, namespace: &Namespace, held: &HeldCheck, findings: &mut BTreeSet<Finding>) {
    let Ok(id) = CheckId::parse(&held.check_id) else {
        return;
    };
    let key = CheckKey {
        namespace: namespace.clone(),
        node: local.node().name.clone(),
        id,
    };
    if local.check(&key).is_some() {
        return;
    }
    let service = InstanceId::parse(&held.service_id).ok().map(|id| InstanceKey {
        namespace: namespace.clone(),
        node: local.node().name.clone(),
        id,
    });
    match service {
        None if *namespace == Namespace::default() => {
            findings.insert(Finding::Unknown(Change::NodeCheck(key)));
        }
        Some(service) if local.service(&service).is_some() => {
            findings.insert(Finding::Differs(Change::Service(service)));
        }
        _ => {}
    }
}

fn same_service(wanted: &Instance, held: &HeldService) -> bool {
    wanted.service.as_str() == held.service
        && wanted.address == held.address
        && wanted.port == held.port
        && (wanted.tags == held.tags || wanted.enable_tag_override)
        && wanted.meta == held.meta
        && held.weights.is_none_or(|weights| {
            weights.passing == wanted.weights.passing && weights.warning == wanted.weights.warning
        })
        && wanted.tagged_addresses.iter().all(|(name, at)| {
            held.tagged_addresses
                .get(name)
                .is_some_and(|held| held.address == at.address && held.port == at.port)
        })
}

fn status_of(word: &str) -> Option<CheckStatus> {
    [
        CheckStatus::Passing,
        CheckStatus::Warning,
        CheckStatus::Unknown,
        CheckStatus::Critical,
    ]
    .into_iter()
    .find(|status| status.as_str() == word)
}
