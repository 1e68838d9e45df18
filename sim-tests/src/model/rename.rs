//! A node that is registered with the id of another one is that node under a new name, with all that is on it.

use std::sync::Arc;

use sider_core::registry::{Check, Instance, Node};

use super::State;

impl State {
    /// What is on the node that has this node's id is on this one now; the other one is gone.
    pub(super) fn take_over(&mut self, given: &Node, index: u64) {
        let is_it =
            |node: &&Arc<Node>| !given.id.is_empty() && node.id == given.id && node.name != given.name;
        let Some(old) = self.nodes.iter().find(is_it).map(|node| node.name.clone()) else {
            return;
        };
        self.nodes.retain(|node| node.name != old);
        // What comes along replaces what has the same id there.
        let (moving, staying): (Vec<_>, Vec<_>) = self.instances.drain(..).partition(|it| it.node == old);
        let moved: Vec<Arc<Instance>> = moving
            .iter()
            .map(|instance| {
                Arc::new(Instance {
                    node: given.name.clone(),
                    modify_index: index,
                    ..Instance::clone(instance)
                })
            })
            .collect();
        self.instances = staying;
        self.instances
            .retain(|instance| moved.iter().all(|it| it.key() != instance.key()));
        self.instances.extend(moved);
        let (moving, staying): (Vec<_>, Vec<_>) = self.checks.drain(..).partition(|it| it.node == old);
        let moved: Vec<Arc<Check>> = moving
            .iter()
            .map(|check| {
                Arc::new(Check {
                    node: given.name.clone(),
                    // A registration counts, as any other.
                    renewals: check.renewals + 1,
                    modify_index: index,
                    ..Check::clone(check)
                })
            })
            .collect();
        self.checks = staying;
        self.checks
            .retain(|check| moved.iter().all(|it| it.key() != check.key()));
        self.checks.extend(moved);
    }
}
