//! Operations on nodes, instances and checks.

use super::{deregister, register};
use crate::registry::{
    CheckDefinitionUpdate, CheckKey, Deregister, Instance, InstanceKey, Node, NodeName, Operation,
    OperationRefusal, OperationResult, answer, tables::Tables, transaction::Transaction,
};

type Outcome<T> = Result<T, OperationRefusal>;

/// What an operation that only reads the catalog gives; `None` for any other.
pub(super) fn read(tables: &Tables, operation: &Operation) -> Option<Outcome<Vec<OperationResult>>> {
    let found = match operation {
        Operation::GetNode(name) => get_node(tables, name),
        Operation::GetInstance(key) => get_instance(tables, key),
        Operation::GetCheck(key) => get_check(tables, key),
        _ => return None,
    };
    Some(found.map(|result| vec![result]))
}

fn get_node(tables: &Tables, name: &NodeName) -> Outcome<OperationResult> {
    let found = tables
        .node(name)
        .map(|node| OperationResult::Node(Node::clone(node)));
    found.ok_or_else(|| OperationRefusal::NoNode(name.to_string()))
}

fn get_instance(tables: &Tables, key: &InstanceKey) -> Outcome<OperationResult> {
    let found = tables.instance(key);
    found
        .map(|instance| OperationResult::Instance(Instance::clone(instance)))
        .ok_or_else(|| OperationRefusal::NoInstance {
            node: key.node.to_string(),
            id: key.id.to_string(),
        })
}

fn get_check(tables: &Tables, key: &CheckKey) -> Outcome<OperationResult> {
    let found = tables
        .check(key)
        .map(|check| OperationResult::Check(answer::listed(tables, check)));
    found.ok_or_else(|| OperationRefusal::NoCheck {
        node: key.node.to_string(),
        id: key.id.to_string(),
    })
}

/// Carries out an operation that writes the catalog.
pub(super) fn write(
    transaction: &mut Transaction<'_>,
    operation: &Operation,
) -> Outcome<Option<OperationResult>> {
    match operation {
        Operation::SetNode(node) => set_node(transaction, node).map(Some),
        Operation::SetNodeIf(node, index) => {
            require(node_index(transaction, &node.name), *index, "set", || {
                node_text(&node.name)
            })?;
            set_node(transaction, node).map(Some)
        }
        Operation::DeleteNode(name) => remove(transaction, Deregister::Node(name.clone())),
        Operation::DeleteNodeIf(name, index) => {
            require(node_index(transaction, name), *index, "delete", || {
                node_text(name)
            })?;
            remove(transaction, Deregister::Node(name.clone()))
        }
        Operation::SetInstance(instance) => set_instance(transaction, instance).map(Some),
        Operation::SetInstanceIf(instance, index) => {
            let key = instance.key();
            require(instance_index(transaction, &key), *index, "set", || {
                instance_text(&key)
            })?;
            set_instance(transaction, instance).map(Some)
        }
        Operation::DeleteInstance(key) => remove_instance(transaction, key),
        Operation::DeleteInstanceIf(key, index) => {
            require(instance_index(transaction, key), *index, "delete", || {
                instance_text(key)
            })?;
            remove_instance(transaction, key)
        }
        Operation::SetCheck(check) => set_check(transaction, check).map(Some),
        Operation::SetCheckIf(check, index) => {
            let key = check.key();
            require(check_index(transaction, &key), *index, "set", || check_text(&key))?;
            set_check(transaction, check).map(Some)
        }
        Operation::DeleteCheck(key) => remove(transaction, Deregister::Check(key.clone())),
        Operation::DeleteCheckIf(key, index) => {
            require(check_index(transaction, key), *index, "delete", || {
                check_text(key)
            })?;
            remove(transaction, Deregister::Check(key.clone()))
        }
        _ => Err(OperationRefusal::Invalid("it does not write the catalog".into())),
    }
}

/// Fails unless the modify index is the expected one.
fn require(actual: u64, expected: u64, verb: &str, what: impl FnOnce() -> String) -> Outcome<()> {
    match actual == expected {
        true => Ok(()),
        false => Err(OperationRefusal::CatalogStale {
            verb: verb.to_owned(),
            what: what(),
        }),
    }
}

fn node_index(transaction: &Transaction<'_>, name: &NodeName) -> u64 {
    let node = transaction.tables().node(name);
    node.map_or(0, |node| node.modify_index)
}

fn instance_index(transaction: &Transaction<'_>, key: &InstanceKey) -> u64 {
    let instance = transaction.tables().instance(key);
    instance.map_or(0, |instance| instance.modify_index)
}

fn check_index(transaction: &Transaction<'_>, key: &CheckKey) -> u64 {
    let check = transaction.tables().check(key);
    check.map_or(0, |check| check.modify_index)
}

fn node_text(name: &NodeName) -> String {
    format!("node {:?}", name.as_str())
}

fn instance_text(key: &InstanceKey) -> String {
    format!("service {:?} on node {:?}", key.id.as_str(), key.node.as_str())
}

fn check_text(key: &CheckKey) -> String {
    format!("check {:?} on node {:?}", key.id.as_str(), key.node.as_str())
}

fn set_node(transaction: &mut Transaction<'_>, node: &Node) -> Outcome<OperationResult> {
    register::put_node(transaction, node, false);
    get_node(transaction.tables(), &node.name)
}

fn set_instance(transaction: &mut Transaction<'_>, instance: &Instance) -> Outcome<OperationResult> {
    require_node(transaction, &instance.node)?;
    register::put_instance(transaction, instance);
    get_instance(transaction.tables(), &instance.key())
}

fn set_check(transaction: &mut Transaction<'_>, check: &CheckDefinitionUpdate) -> Outcome<OperationResult> {
    require_node(transaction, &check.node)?;
    register::put_check(transaction, check, false)
        .map_err(|refusal| OperationRefusal::Invalid(refusal.to_string()))?;
    get_check(transaction.tables(), &check.key())
}

fn require_node(transaction: &Transaction<'_>, name: &NodeName) -> Outcome<()> {
    match transaction.tables().node(name) {
        Some(_) => Ok(()),
        None => Err(OperationRefusal::Invalid("Missing node registration".into())),
    }
}

fn remove_instance(transaction: &mut Transaction<'_>, key: &InstanceKey) -> Outcome<Option<OperationResult>> {
    let what = Deregister::Instance {
        key: key.clone(),
        service: None,
    };
    remove(transaction, what)
}

fn remove(transaction: &mut Transaction<'_>, what: Deregister) -> Outcome<Option<OperationResult>> {
    match deregister::deregister(transaction, &what) {
        Ok(_) => Ok(None),
        Err(refusal) => Err(OperationRefusal::Invalid(refusal.to_string())),
    }
}
