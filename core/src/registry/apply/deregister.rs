//! Removes a node with all that is on it, an instance with its checks, or a check.

use crate::registry::{
    CheckKey, Deregister, InstanceKey, Namespace, NodeName, Refusal, Reply, ServiceName,
    transaction::Transaction,
};

/// What is not there is not an error: the reply says so.
pub(super) fn deregister(transaction: &mut Transaction<'_>, what: &Deregister) -> Result<Reply, Refusal> {
    let found = match what {
        Deregister::Node(name) => remove_node(transaction, name),
        Deregister::Instance { key, service } => remove_instance_of(transaction, key, service.as_ref())?,
        Deregister::Check(key) => remove_check(transaction, key),
    };
    Ok(Reply::Deregistered(found))
}

fn remove_node(transaction: &mut Transaction<'_>, name: &NodeName) -> bool {
    if transaction.tables().node(name).is_none() {
        return false;
    }
    let namespaces: Vec<Namespace> = transaction.tables().namespaces_of_node(name).cloned().collect();
    for namespace in &namespaces {
        let instances = transaction.tables().instances_of_node(namespace, name);
        let keys: Vec<InstanceKey> = instances.map(|instance| instance.key()).collect();
        for key in &keys {
            remove_instance(transaction, key);
        }
    }
    let own_checks = transaction.tables().own_checks_of_node(name).values();
    let keys: Vec<CheckKey> = own_checks.map(|check| check.key()).collect();
    for key in &keys {
        transaction.set_check(key, None);
    }
    transaction.set_node(name, None);
    true
}

fn remove_instance_of(
    transaction: &mut Transaction<'_>,
    key: &InstanceKey,
    service: Option<&ServiceName>,
) -> Result<bool, Refusal> {
    let Some(instance) = transaction.tables().instance(key) else {
        return Ok(false);
    };
    if let Some(named) = service
        && instance.service != *named
    {
        return Err(Refusal::OtherService {
            instance: key.id.to_string(),
            actual: instance.service.to_string(),
            named: named.to_string(),
        });
    }
    remove_instance(transaction, key);
    Ok(true)
}

/// Removes an instance with its checks.
pub(super) fn remove_instance(transaction: &mut Transaction<'_>, key: &InstanceKey) {
    let checks = transaction.tables().checks_of_instance(key).values();
    let check_keys: Vec<CheckKey> = checks.map(|check| check.key()).collect();
    for check in &check_keys {
        transaction.set_check(check, None);
    }
    transaction.set_instance(key, None);
}

fn remove_check(transaction: &mut Transaction<'_>, key: &CheckKey) -> bool {
    let found = transaction.tables().check(key).is_some();
    if found {
        transaction.set_check(key, None);
    }
    found
}
