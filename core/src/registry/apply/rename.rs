//! A node that is registered with the id of another one is that node under a new name: what is on it moves along.

use crate::registry::{
    Check, CheckKey, Instance, InstanceKey, Namespace, Node, NodeName, transaction::Transaction,
};

/// Takes away the node that has this node's id under another name, and moves what is on it. Its sessions end with it.
pub(super) fn take_over(transaction: &mut Transaction<'_>, node: &Node) {
    let Some(old) = transaction.tables().node_of_id(&node.id).cloned() else {
        return;
    };
    if old == node.name {
        return;
    }
    let mut namespaces: Vec<Namespace> = transaction.tables().namespaces_of_node(&old).cloned().collect();
    // The node's own checks are there.
    if !namespaces.contains(&Namespace::default()) {
        namespaces.push(Namespace::default());
    }
    for namespace in &namespaces {
        move_instances(transaction, namespace, &old, &node.name);
        move_checks(transaction, namespace, &old, &node.name);
    }
    transaction.set_node(&old, None);
}

fn move_instances(transaction: &mut Transaction<'_>, namespace: &Namespace, old: &NodeName, new: &NodeName) {
    let index = transaction.index();
    let instances = transaction.tables().instances_of_node(namespace, old);
    let instances: Vec<Instance> = instances.map(|instance| Instance::clone(instance)).collect();
    for instance in instances {
        let moved = Instance {
            node: new.clone(),
            modify_index: index,
            ..instance
        };
        let key = InstanceKey {
            node: old.clone(),
            ..moved.key()
        };
        transaction.set_instance(&key, None);
        transaction.set_instance(&moved.key(), Some(moved));
    }
}

fn move_checks(transaction: &mut Transaction<'_>, namespace: &Namespace, old: &NodeName, new: &NodeName) {
    let index = transaction.index();
    let checks = transaction.tables().checks_of_node(namespace, old);
    let checks: Vec<Check> = checks.map(|check| Check::clone(check)).collect();
    for check in checks {
        let moved = Check {
            node: new.clone(),
            // Its TTL starts anew. A node that gets its old name back must not find an expiry that was decided before.
            renewals: check.renewals.saturating_add(1),
            modify_index: index,
            ..check
        };
        let key = moved.key();
        let old_key = CheckKey {
            node: old.clone(),
            ..key.clone()
        };
        transaction.set_check(&old_key, None);
        transaction.set_check(&key, Some(moved));
        transaction.mark_registered(&key);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::registry::{
        CheckDefinition, CheckDefinitionUpdate, CheckId, CheckStatus, Command, Expiry, InstanceId, Keeps,
        Probe, Registration, Registry, ServiceName, Weights,
    };

    use super::*;

    fn node(name: &str, id: &str) -> Node {
        let name = NodeName::parse(name).expect("a name");
        Node {
            id: id.to_owned(),
            ..Node::plain(name, "10.0.0.1")
        }
    }

    fn register(node: Node, instance: Option<Instance>, checks: Vec<CheckDefinitionUpdate>) -> Command {
        Command::Register(vec![Registration {
            node,
            keeps: Keeps::Nothing,
            instance,
            checks,
            replace_checks: false,
        }])
    }

    #[test]
    fn an_expiry_from_before_a_node_was_renamed_and_back_is_refused() {
        let (one, other) = (node("one", "id-1"), node("other", "id-1"));
        let check = CheckDefinitionUpdate {
            id: CheckId::parse("alive").expect("a name"),
            namespace: Namespace::default(),
            node: one.name.clone(),
            name: "alive".to_owned(),
            instance: None,
            definition: CheckDefinition {
                probe: Probe::Ttl(Duration::from_secs(10)),
                ..CheckDefinition::default()
            },
            status: Some(CheckStatus::Passing),
            output: String::new(),
            notes: String::new(),
        };
        let mut registry = Registry::default();
        registry.apply(&register(one.clone(), None, vec![check.clone()]));
        let seen = registry.check(&check.key()).expect("it was registered").clone();
        registry.apply(&register(other, None, Vec::new()));
        registry.apply(&register(one, None, Vec::new()));
        let expiry = Expiry {
            check: check.key(),
            renewals_seen: seen.renewals,
            create_index_seen: seen.create_index,
        };
        registry.apply(&Command::ExpireChecks(vec![expiry]));
        let now = registry.check(&check.key()).expect("it came back");
        assert_eq!(now.status, CheckStatus::Passing);
    }

    #[test]
    fn what_is_on_a_node_follows_its_id() {
        let (old, new) = (node("old", "id-1"), node("new", "id-1"));
        let instance = Instance {
            namespace: Namespace::parse("blue").expect("a name"),
            node: old.name.clone(),
            id: InstanceId::parse("web-1").expect("a name"),
            service: ServiceName::parse("web").expect("a name"),
            address: String::new(),
            port: 80,
            tags: Vec::new(),
            meta: std::collections::BTreeMap::new(),
            weights: Weights::default(),
            tagged_addresses: std::collections::BTreeMap::new(),
            enable_tag_override: false,
            create_index: 0,
            modify_index: 0,
            extras: None,
        };
        let check = |namespace: &Namespace, id: &str, instance: Option<InstanceId>| CheckDefinitionUpdate {
            id: CheckId::parse(id).expect("a name"),
            namespace: namespace.clone(),
            node: old.name.clone(),
            name: id.to_owned(),
            instance,
            definition: CheckDefinition::default(),
            status: None,
            output: String::new(),
            notes: String::new(),
        };
        let checks = vec![
            check(&Namespace::default(), "own", None),
            check(&instance.namespace, "of-web", Some(instance.id.clone())),
        ];
        let mut registry = Registry::default();
        registry.apply(&register(old.clone(), Some(instance.clone()), checks));
        registry.apply(&register(new.clone(), None, Vec::new()));

        assert!(registry.node(&old.name).is_none());
        let moved: Vec<_> = registry
            .instances_of_node(&instance.namespace, &new.name)
            .collect();
        assert_eq!(moved.len(), 1);
        assert_eq!((moved[0].create_index, moved[0].modify_index), (2, 3));
        let on_new = |namespace| registry.checks_of_node(namespace, &new.name).count();
        assert_eq!(
            (on_new(&Namespace::default()), on_new(&instance.namespace)),
            (1, 1)
        );

        // Stored and read back, it is the same; and the name can be taken back.
        let mut restored = Registry::from_rows(registry.rows()).expect("its own rows");
        assert_eq!(restored.digest(), registry.digest());
        restored.apply(&register(old.clone(), None, Vec::new()));
        assert!(restored.node(&new.name).is_none());
        assert_eq!(
            restored.instances_of_node(&instance.namespace, &old.name).count(),
            1
        );
    }
}
