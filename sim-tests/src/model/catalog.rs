//! Steps of transactions on nodes, instances and checks, as plainly as the rest of the model.

use std::sync::Arc;

use sider_core::registry::{
    Check, CheckKey, Deregister, Instance, InstanceKey, Node, NodeName, Operation, OperationRefusal,
    OperationResult,
};

use super::State;

type Given = Result<Vec<OperationResult>, OperationRefusal>;

impl State {
    pub(super) fn operate_on_catalog(&mut self, operation: &Operation, index: u64) -> Given {
        match operation {
            Operation::GetNode(name) => self.given_node(name),
            Operation::GetInstance(key) => self.given_instance(key),
            Operation::GetCheck(key) => self.given_check(key),
            Operation::SetNode(_) | Operation::SetInstance(_) | Operation::SetCheck(_) => {
                let before = self.clone();
                let given = self.put(operation, index)?;
                // Each step sees what those before it left: what it did not change has its old index.
                self.keep_what_did_not_change(&before);
                self.operate_on_catalog(&given, index)
            }
            Operation::DeleteNode(name) => Ok(self.remove(Deregister::Node(name.clone()))),
            Operation::DeleteInstance(key) => Ok(self.remove(Deregister::Instance {
                key: key.clone(),
                service: None,
            })),
            Operation::DeleteCheck(key) => Ok(self.remove(Deregister::Check(key.clone()))),
            conditional => {
                let (actual, expected, verb, what, then) = self.condition(conditional);
                match actual == expected {
                    true => self.operate_on_catalog(&then, index),
                    false => Err(OperationRefusal::CatalogStale {
                        verb: verb.to_owned(),
                        what,
                    }),
                }
            }
        }
    }

    /// Registers a thing, if its node is there; gives the operation that reads it.
    fn put(&mut self, operation: &Operation, index: u64) -> Result<Operation, OperationRefusal> {
        let invalid = |what: String| OperationRefusal::Invalid(what);
        let on = match operation {
            Operation::SetInstance(instance) => Some(&instance.node),
            Operation::SetCheck(check) => Some(&check.node),
            _ => None,
        };
        if on.is_some_and(|node| self.node(node).is_none()) {
            return Err(invalid("no such node".into()));
        }
        match operation {
            Operation::SetNode(node) => {
                self.put_node(node, index);
                Ok(Operation::GetNode(node.name.clone()))
            }
            Operation::SetInstance(instance) => {
                self.put_instance(instance, index);
                Ok(Operation::GetInstance(instance.key()))
            }
            Operation::SetCheck(check) => {
                self.put_check(check, false, index)
                    .map_err(|refusal| invalid(refusal.to_string()))?;
                Ok(Operation::GetCheck(check.key()))
            }
            other => unreachable!("it registers nothing: {other:?}"),
        }
    }

    fn remove(&mut self, what: Deregister) -> Vec<OperationResult> {
        self.deregister(&what)
            .expect("only one that names a service is refused");
        Vec::new()
    }

    /// Of a conditional operation: the index that is there, the one that it expects, what a refusal says, and what it
    /// does when both are one.
    fn condition(&self, operation: &Operation) -> (u64, u64, &'static str, String, Operation) {
        let node = |name: &NodeName| self.node(name).map_or(0, |it| it.modify_index);
        let instance = |key: &InstanceKey| self.instance(key).map_or(0, |it| it.modify_index);
        let check = |key: &CheckKey| self.check(key).map_or(0, |it| it.modify_index);
        let quoted = |kind: &str, id: &str| format!("{kind} {id:?}");
        let on = |kind: &str, id: &str, node: &NodeName| format!("{kind} {id:?} on node {:?}", node.as_str());
        match operation.clone() {
            Operation::SetNodeIf(given, expected) => {
                let what = quoted("node", given.name.as_str());
                (
                    node(&given.name),
                    expected,
                    "set",
                    what,
                    Operation::SetNode(given),
                )
            }
            Operation::DeleteNodeIf(name, expected) => {
                let what = quoted("node", name.as_str());
                (node(&name), expected, "delete", what, Operation::DeleteNode(name))
            }
            Operation::SetInstanceIf(given, expected) => {
                let what = on("service", given.id.as_str(), &given.node);
                let then = Operation::SetInstance(given.clone());
                (instance(&given.key()), expected, "set", what, then)
            }
            Operation::DeleteInstanceIf(key, expected) => {
                let what = on("service", key.id.as_str(), &key.node);
                let actual = instance(&key);
                (actual, expected, "delete", what, Operation::DeleteInstance(key))
            }
            Operation::SetCheckIf(given, expected) => {
                let what = on("check", given.id.as_str(), &given.node);
                let then = Operation::SetCheck(given.clone());
                (check(&given.key()), expected, "set", what, then)
            }
            Operation::DeleteCheckIf(key, expected) => {
                let what = on("check", key.id.as_str(), &key.node);
                let actual = check(&key);
                (actual, expected, "delete", what, Operation::DeleteCheck(key))
            }
            other => unreachable!("it is no step on the catalog: {other:?}"),
        }
    }

    fn given_node(&self, name: &NodeName) -> Given {
        let node = self
            .node(name)
            .ok_or_else(|| OperationRefusal::NoNode(name.to_string()))?;
        Ok(vec![OperationResult::Node(Node::clone(node))])
    }

    fn given_instance(&self, key: &InstanceKey) -> Given {
        let missing = || OperationRefusal::NoInstance {
            node: key.node.to_string(),
            id: key.id.to_string(),
        };
        let instance = self.instance(key).ok_or_else(missing)?;
        Ok(vec![OperationResult::Instance(Instance::clone(instance))])
    }

    fn given_check(&self, key: &CheckKey) -> Given {
        let missing = || OperationRefusal::NoCheck {
            node: key.node.to_string(),
            id: key.id.to_string(),
        };
        let check = Arc::clone(self.check(key).ok_or_else(missing)?);
        let of = self.instance_of(&check);
        let service = of.map(|instance| (instance.service.clone(), instance.tags.clone()));
        Ok(vec![OperationResult::Check((Check::clone(&check), service))])
    }
}
