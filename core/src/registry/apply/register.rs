//! Registers nodes, instances and checks: all of a batch or none of it.

use std::collections::BTreeSet;

use super::virtual_address;
use crate::registry::{
    Check, CheckDefinitionUpdate, CheckId, CheckKey, CheckStatus, Instance, InstanceKey, Keeps, Namespace,
    Node, Refusal, Registration, Reply, transaction::Transaction,
};

/// Carries out the registrations in order, each on top of those before it.
pub(super) fn register(
    transaction: &mut Transaction<'_>,
    registrations: &[Registration],
) -> Result<Reply, Refusal> {
    let mut ids = Vec::with_capacity(registrations.len());
    for registration in registrations {
        validate(registration)?;
        put_node(
            transaction,
            &registration.node,
            registration.keeps != Keeps::Nothing,
        );
        if let Some(instance) = &registration.instance {
            put_instance(transaction, instance);
            if registration.replace_checks {
                remove_other_checks(transaction, &instance.key(), &registration.checks);
            }
        }
        for check in &registration.checks {
            put_check(transaction, check, registration.keeps == Keeps::NodeAndStatuses)?;
        }
        ids.push(registration.checks.iter().map(|check| check.id.clone()).collect());
    }
    Ok(Reply::Registered(ids))
}

/// Refuses a registration that contradicts itself.
fn validate(registration: &Registration) -> Result<(), Refusal> {
    let node = &registration.node.name;
    if let Some(instance) = &registration.instance
        && instance.node != *node
    {
        return Err(Refusal::Invalid(format!(
            "instance {:?} is on node {:?}, but registered with node {:?}",
            instance.id.as_str(),
            instance.node.as_str(),
            node.as_str(),
        )));
    }
    let mut seen = BTreeSet::new();
    for check in &registration.checks {
        let id = check.id.as_str();
        if check.node != *node {
            let other = check.node.as_str();
            return Err(Refusal::Invalid(format!(
                "check {id:?} is on node {other:?}, but registered with node {:?}",
                node.as_str(),
            )));
        }
        if check.instance.is_none() && check.namespace != Namespace::default() {
            let namespace = check.namespace.as_str();
            return Err(Refusal::Invalid(format!(
                "check {id:?} is the node's own, so its namespace is \"default\", not {namespace:?}"
            )));
        }
        if !seen.insert((&check.namespace, &check.id)) {
            return Err(Refusal::Invalid(format!("check {id:?} is named twice")));
        }
    }
    Ok(())
}

pub(super) fn put_node(transaction: &mut Transaction<'_>, given: &Node, keep_existing: bool) {
    let index = transaction.index();
    if keep_existing && transaction.tables().node(&given.name).is_some() {
        return;
    }
    super::rename::take_over(transaction, given);
    let node = match transaction.tables().node(&given.name) {
        Some(existing) => {
            let node = given.with_indexes_of(existing);
            if node == **existing {
                return;
            }
            Node {
                modify_index: index,
                ..node
            }
        }
        None => Node {
            create_index: index,
            modify_index: index,
            ..given.clone()
        },
    };
    transaction.set_node(&given.name, Some(node));
}

pub(super) fn put_instance(transaction: &mut Transaction<'_>, given: &Instance) {
    let with_address = virtual_address::with_virtual_address(transaction, given);
    let given = with_address.as_ref().unwrap_or(given);
    let key = given.key();
    let index = transaction.index();
    let instance = match transaction.tables().instance(&key) {
        Some(existing) => {
            let instance = given.with_indexes_of(existing);
            if instance == **existing {
                return;
            }
            Instance {
                modify_index: index,
                ..instance
            }
        }
        None => Instance {
            create_index: index,
            modify_index: index,
            ..given.clone()
        },
    };
    transaction.set_instance(&key, Some(instance));
}

/// Removes the checks of an instance that are not among those given.
fn remove_other_checks(
    transaction: &mut Transaction<'_>,
    key: &InstanceKey,
    given: &[CheckDefinitionUpdate],
) {
    let kept: BTreeSet<&CheckId> = given
        .iter()
        .filter(|check| check.namespace == key.namespace)
        .map(|check| &check.id)
        .collect();
    let checks = transaction.tables().checks_of_instance(key).values();
    let others: Vec<CheckKey> = checks
        .filter(|check| !kept.contains(&check.id))
        .map(|check| check.key())
        .collect();
    for other in others {
        transaction.set_check(&other, None);
    }
}

pub(super) fn put_check(
    transaction: &mut Transaction<'_>,
    given: &CheckDefinitionUpdate,
    keep_status: bool,
) -> Result<(), Refusal> {
    if let Some(id) = &given.instance {
        let instance = InstanceKey {
            namespace: given.namespace.clone(),
            node: given.node.clone(),
            id: id.clone(),
        };
        if transaction.tables().instance(&instance).is_none() {
            return Err(Refusal::UnknownInstance(id.to_string()));
        }
    }
    let key = given.key();
    match transaction.tables().check(&key).cloned() {
        None => {
            let check = new_check(given, transaction.index());
            transaction.set_check(&key, Some(check));
            transaction.mark_registered(&key);
        }
        Some(existing) => replace_check(transaction, &key, &existing, given, keep_status),
    }
    Ok(())
}

fn new_check(given: &CheckDefinitionUpdate, index: u64) -> Check {
    Check {
        namespace: given.namespace.clone(),
        node: given.node.clone(),
        id: given.id.clone(),
        name: given.name.clone(),
        instance: given.instance.clone(),
        definition: given.definition.clone(),
        status: given.status.unwrap_or(CheckStatus::Critical),
        output: given.output.clone(),
        notes: given.notes.clone(),
        renewals: 0,
        create_index: index,
        modify_index: index,
    }
}

fn replace_check(
    transaction: &mut Transaction<'_>,
    key: &CheckKey,
    existing: &Check,
    given: &CheckDefinitionUpdate,
    keep_status: bool,
) {
    let mut check = Check {
        renewals: existing.renewals,
        create_index: existing.create_index,
        modify_index: existing.modify_index,
        ..new_check(given, transaction.index())
    };
    // A status says something about what was checked: it goes when that is something else now.
    let checks_the_same = existing.definition == given.definition && existing.instance == given.instance;
    if keep_status || (given.status.is_none() && checks_the_same) {
        check.status = existing.status;
        check.output.clone_from(&existing.output);
    }
    let registered_alike = checks_the_same && existing.name == given.name && existing.notes == given.notes;
    if registered_alike && given.status.is_none() {
        return;
    }
    // From here on its TTL starts anew, so an expiry that was decided before must find it renewed.
    check.renewals = existing.renewals.saturating_add(1);
    if registered_alike {
        transaction.mark_renewed(key);
    } else {
        transaction.mark_registered(key);
    }
    if !check.looks_like(existing) {
        check.modify_index = transaction.index();
    }
    transaction.set_check(key, Some(check));
}
