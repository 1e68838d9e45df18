//! What is registered now, with the secondary indexes that keep questions and changes cheap.
//!
//! Tables know nothing of commands, indexes or topics. Every write goes through one of its setters, so that no
//! secondary index can be forgotten; the setters may be called in any order, also to take a change back.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    sync::Arc,
};

use super::{
    Check, CheckId, CheckKey, Instance, InstanceId, InstanceKey, Key, KeyValue, Namespace, Node, NodeName,
    ServiceName, Session, SessionId,
    kv::{KeyTable, LockDelay},
    session::SessionTable,
};

/// Checks by id. Nearly always one or two: a list of one costs a tenth of the memory of a map.
#[derive(Clone, Debug, Default)]
pub(super) struct CheckList(Vec<Arc<Check>>);

/// See the module's page.
#[derive(Clone, Debug, Default)]
pub(super) struct Tables {
    nodes: BTreeMap<NodeName, Arc<Node>>,
    /// The nodes that have an id.
    node_ids: BTreeMap<String, NodeName>,
    instances: BTreeMap<InstanceKey, Arc<Instance>>,
    checks: BTreeMap<CheckKey, Arc<Check>>,
    services: BTreeMap<Namespace, BTreeMap<ServiceName, Service>>,
    /// Names of services that have capitals, by what they are looked up under.
    capitals: BTreeMap<(Namespace, ServiceName), BTreeSet<ServiceName>>,
    checks_of_instance: BTreeMap<InstanceKey, CheckList>,
    own_checks_of_node: BTreeMap<NodeName, CheckList>,
    /// How many instances a node has in each namespace; no zeros.
    instance_counts: BTreeMap<NodeName, BTreeMap<Namespace, usize>>,
    keys: KeyTable,
    sessions: SessionTable,
}

/// The instances of one service.
#[derive(Clone, Debug, Default)]
pub(super) struct Service {
    /// By node and id.
    pub(super) instances: BTreeMap<(NodeName, InstanceId), Arc<Instance>>,
    /// How often each tag occurs; no zeros. Keeps the union of tags current without a scan.
    pub(super) tags: BTreeMap<String, usize>,
}

static NO_CHECKS: CheckList = CheckList(Vec::new());

impl CheckList {
    /// The checks, by id.
    pub(super) fn values(&self) -> std::slice::Iter<'_, Arc<Check>> {
        self.0.iter()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn insert(&mut self, check: Arc<Check>) {
        match self.place(&check.id) {
            Ok(at) => self.0[at] = check,
            Err(at) => self.0.insert(at, check),
        }
    }

    fn remove(&mut self, id: &CheckId) {
        if let Ok(at) = self.place(id) {
            self.0.remove(at);
        }
    }

    /// Where the check is, or would be.
    fn place(&self, id: &CheckId) -> Result<usize, usize> {
        self.0.binary_search_by(|check| check.id.cmp(id))
    }
}

impl Tables {
    pub(super) fn node(&self, name: &NodeName) -> Option<&Arc<Node>> {
        self.nodes.get(name)
    }

    /// The node that has an id; none for the empty one.
    pub(super) fn node_of_id(&self, id: &str) -> Option<&NodeName> {
        self.node_ids.get(id)
    }

    pub(super) fn nodes(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.nodes.values()
    }

    /// The node that an instance or a check is on.
    ///
    /// # Panics
    /// If there is none: nothing is registered without its node, and a node goes with all that is on it.
    pub(super) fn node_beneath(&self, name: &NodeName) -> &Arc<Node> {
        self.nodes.get(name).expect("what is registered has its node")
    }

    pub(super) fn instance(&self, key: &InstanceKey) -> Option<&Arc<Instance>> {
        self.instances.get(key)
    }

    pub(super) fn instances(&self) -> impl Iterator<Item = &Arc<Instance>> {
        self.instances.values()
    }

    pub(super) fn check(&self, key: &CheckKey) -> Option<&Arc<Check>> {
        self.checks.get(key)
    }

    pub(super) fn checks(&self) -> impl Iterator<Item = &Arc<Check>> {
        self.checks.values()
    }

    pub(super) fn service(&self, namespace: &Namespace, name: &ServiceName) -> Option<&Service> {
        self.services.get(namespace)?.get(name)
    }

    /// The services whose names are this one but for the case of letters.
    pub(super) fn spellings<'a>(
        &'a self,
        namespace: &'a Namespace,
        name: &ServiceName,
    ) -> impl Iterator<Item = &'a Service> + 'a {
        let folded = name.folded().unwrap_or_else(|| name.clone());
        let plain = self.service(namespace, &folded);
        let place = (namespace.clone(), folded);
        let others = self.capitals.get(&place).into_iter().flatten();
        let others = others.filter_map(|name| self.service(namespace, name));
        plain.into_iter().chain(others)
    }

    /// The services of a namespace, by name; each has at least one instance.
    pub(super) fn services(&self, namespace: &Namespace) -> impl Iterator<Item = (&ServiceName, &Service)> {
        self.services.get(namespace).into_iter().flatten()
    }

    /// Whether anything can be seen in a namespace.
    pub(super) fn has_namespace(&self, namespace: &Namespace) -> bool {
        *namespace == Namespace::default() || self.services.contains_key(namespace)
    }

    /// A node's instances in a namespace, by id.
    pub(super) fn instances_of_node<'a>(
        &'a self,
        namespace: &'a Namespace,
        node: &'a NodeName,
    ) -> impl Iterator<Item = &'a Arc<Instance>> + 'a {
        let first = InstanceKey {
            namespace: namespace.clone(),
            node: node.clone(),
            id: InstanceId::least(),
        };
        self.instances
            .range(first..)
            .take_while(move |(key, _)| key.node == *node && key.namespace == *namespace)
            .map(|(_, instance)| instance)
    }

    /// The checks of a namespace on a node, by id; in `default` the node's own are among them.
    pub(super) fn checks_of_node<'a>(
        &'a self,
        namespace: &'a Namespace,
        node: &'a NodeName,
    ) -> impl Iterator<Item = &'a Arc<Check>> + 'a {
        let first = CheckKey {
            namespace: namespace.clone(),
            node: node.clone(),
            id: CheckId::least(),
        };
        self.checks
            .range(first..)
            .take_while(move |(key, _)| key.node == *node && key.namespace == *namespace)
            .map(|(_, check)| check)
    }

    /// The checks of a namespace, by node and id.
    pub(super) fn checks_of_namespace<'a>(
        &'a self,
        namespace: &'a Namespace,
    ) -> impl Iterator<Item = &'a Arc<Check>> + 'a {
        let first = CheckKey {
            namespace: namespace.clone(),
            node: NodeName::least(),
            id: CheckId::least(),
        };
        self.checks
            .range(first..)
            .take_while(move |(key, _)| key.namespace == *namespace)
            .map(|(_, check)| check)
    }

    /// The checks of an instance, by id.
    pub(super) fn checks_of_instance(&self, key: &InstanceKey) -> &CheckList {
        self.checks_of_instance.get(key).unwrap_or(&NO_CHECKS)
    }

    /// The checks of the node itself, by id.
    pub(super) fn own_checks_of_node(&self, node: &NodeName) -> &CheckList {
        self.own_checks_of_node.get(node).unwrap_or(&NO_CHECKS)
    }

    /// How many instances a node has in a namespace.
    pub(super) fn instance_count(&self, namespace: &Namespace, node: &NodeName) -> usize {
        let counts = self.instance_counts.get(node);
        counts
            .and_then(|counts| counts.get(namespace))
            .copied()
            .unwrap_or(0)
    }

    /// The namespaces in which a node has instances.
    pub(super) fn namespaces_of_node(&self, node: &NodeName) -> impl Iterator<Item = &Namespace> {
        self.instance_counts
            .get(node)
            .into_iter()
            .flat_map(BTreeMap::keys)
    }

    /// Whether a node is seen in a namespace: in `default` always, elsewhere where it has instances.
    pub(super) fn sees_node(&self, namespace: &Namespace, node: &NodeName) -> bool {
        self.instance_count(namespace, node) > 0
            || (*namespace == Namespace::default() && self.nodes.contains_key(node))
    }

    pub(super) fn keys(&self) -> &KeyTable {
        &self.keys
    }

    pub(super) fn sessions(&self) -> &SessionTable {
        &self.sessions
    }

    /// Puts a key's value in its place, or takes it away; gives what was there.
    pub(super) fn set_key(&mut self, key: &Key, value: Option<Arc<KeyValue>>) -> Option<Arc<KeyValue>> {
        self.keys.set(key, value)
    }

    /// Puts a session in its place, or takes it away; gives what was there.
    pub(super) fn set_session(
        &mut self,
        id: &SessionId,
        session: Option<Arc<Session>>,
    ) -> Option<Arc<Session>> {
        self.sessions.set(id, session)
    }

    /// Puts a lock's delay in its place, or takes it away; gives what was there.
    pub(super) fn set_delay(&mut self, key: &Key, delay: Option<LockDelay>) -> Option<LockDelay> {
        self.keys.set_delay(key, delay)
    }

    /// Puts a node in its place, or takes it away; gives what was there.
    pub(super) fn set_node(&mut self, name: &NodeName, node: Option<Arc<Node>>) -> Option<Arc<Node>> {
        let id = node.as_ref().map(|node| node.id.clone()).unwrap_or_default();
        let before = match node {
            Some(node) => self.nodes.insert(name.clone(), node),
            None => self.nodes.remove(name),
        };
        if let Some(before) = &before
            && self.node_ids.get(&before.id) == Some(name)
        {
            self.node_ids.remove(&before.id);
        }
        if !id.is_empty() {
            self.node_ids.insert(id, name.clone());
        }
        before
    }

    /// Puts an instance in its place, or takes it away; gives what was there.
    pub(super) fn set_instance(
        &mut self,
        key: &InstanceKey,
        instance: Option<Arc<Instance>>,
    ) -> Option<Arc<Instance>> {
        let before = match &instance {
            Some(instance) => self.instances.insert(key.clone(), Arc::clone(instance)),
            None => self.instances.remove(key),
        };
        if let Some(before) = &before {
            self.unlist_instance(before);
        }
        if let Some(instance) = instance {
            self.list_instance(instance);
        }
        before
    }

    /// Puts a check in its place, or takes it away; gives what was there.
    pub(super) fn set_check(&mut self, key: &CheckKey, check: Option<Arc<Check>>) -> Option<Arc<Check>> {
        let before = match &check {
            Some(check) => self.checks.insert(key.clone(), Arc::clone(check)),
            None => self.checks.remove(key),
        };
        if let Some(before) = &before {
            self.unlist_check(before);
        }
        if let Some(check) = check {
            self.list_check(check);
        }
        before
    }

    fn list_instance(&mut self, instance: Arc<Instance>) {
        let services = self.services.entry(instance.namespace.clone()).or_default();
        let service = services.entry(instance.service.clone()).or_default();
        if let Some(folded) = instance.service.folded() {
            let names = self.capitals.entry((instance.namespace.clone(), folded));
            names.or_default().insert(instance.service.clone());
        }
        for tag in &instance.tags {
            *service.tags.entry(tag.clone()).or_default() += 1;
        }
        let counts = self.instance_counts.entry(instance.node.clone()).or_default();
        *counts.entry(instance.namespace.clone()).or_default() += 1;
        let place = (instance.node.clone(), instance.id.clone());
        service.instances.insert(place, instance);
    }

    fn unlist_instance(&mut self, instance: &Instance) {
        if let Some(services) = self.services.get_mut(&instance.namespace) {
            if let Some(service) = services.get_mut(&instance.service) {
                service
                    .instances
                    .remove(&(instance.node.clone(), instance.id.clone()));
                for tag in &instance.tags {
                    decrease(service.tags.entry(tag.clone()));
                }
                if service.instances.is_empty() {
                    services.remove(&instance.service);
                    if let Some(folded) = instance.service.folded()
                        && let Entry::Occupied(mut names) =
                            self.capitals.entry((instance.namespace.clone(), folded))
                    {
                        names.get_mut().remove(&instance.service);
                        if names.get().is_empty() {
                            names.remove();
                        }
                    }
                }
            }
            if services.is_empty() {
                self.services.remove(&instance.namespace);
            }
        }
        if let Some(counts) = self.instance_counts.get_mut(&instance.node) {
            decrease(counts.entry(instance.namespace.clone()));
            if counts.is_empty() {
                self.instance_counts.remove(&instance.node);
            }
        }
    }

    fn list_check(&mut self, check: Arc<Check>) {
        let list = match check.instance_key() {
            Some(instance) => self.checks_of_instance.entry(instance).or_default(),
            None => self.own_checks_of_node.entry(check.node.clone()).or_default(),
        };
        list.insert(check);
    }

    fn unlist_check(&mut self, check: &Check) {
        match check.instance_key() {
            Some(instance) => unlist(self.checks_of_instance.entry(instance), &check.id),
            None => unlist(self.own_checks_of_node.entry(check.node.clone()), &check.id),
        }
    }
}

/// Takes one off a count; a count of zero goes.
fn decrease<K: Ord>(entry: Entry<'_, K, usize>) {
    if let Entry::Occupied(mut count) = entry {
        *count.get_mut() -= 1;
        if *count.get() == 0 {
            count.remove();
        }
    }
}

/// Takes a check off a list; an empty list goes.
fn unlist<K: Ord>(entry: Entry<'_, K, CheckList>, id: &CheckId) {
    if let Entry::Occupied(mut list) = entry {
        list.get_mut().remove(id);
        if list.get().is_empty() {
            list.remove();
        }
    }
}
