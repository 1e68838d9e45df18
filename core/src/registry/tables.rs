//! What is registered now, with the secondary indexes that keep questions and changes cheap.
//!
//! Tables know nothing of commands, indexes or topics. Every write goes through one of its setters, so that no
//! secondary index can be forgotten; the setters may be called in any order, also to take a change back.

use std::{
    cmp::Ordering,
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

/// An instance and its checks. Either may be set, or be gone, before the other.
#[derive(Clone, Debug, Default)]
struct Place {
    instance: Option<Arc<Instance>>,
    checks: CheckList,
}

/// See the module's page.
#[derive(Clone, Debug, Default)]
pub(super) struct Tables {
    nodes: BTreeMap<NodeName, Arc<Node>>,
    /// The nodes that have an id.
    node_ids: BTreeMap<String, NodeName>,
    /// With their checks: the key is the longest part of an entry, and so kept once. None is empty.
    instances: BTreeMap<InstanceKey, Place>,
    checks: BTreeMap<CheckKey, Arc<Check>>,
    services: BTreeMap<Namespace, BTreeMap<ServiceName, Service>>,
    /// Names of services that have capitals, by what they are looked up under.
    capitals: BTreeMap<(Namespace, ServiceName), BTreeSet<ServiceName>>,
    own_checks_of_node: BTreeMap<NodeName, CheckList>,
    /// How many instances a node has in each namespace; no zeros.
    instance_counts: BTreeMap<NodeName, BTreeMap<Namespace, usize>>,
    keys: KeyTable,
    sessions: SessionTable,
}

/// All that is registered, to be laid down in tables at once.
#[derive(Debug, Default)]
pub(super) struct Catalog {
    pub(super) nodes: Vec<Arc<Node>>,
    pub(super) instances: Vec<Arc<Instance>>,
    pub(super) checks: Vec<Arc<Check>>,
}

/// The instances of one service.
#[derive(Clone, Debug, Default)]
pub(super) struct Service {
    instances: BTreeSet<Member>,
    /// How often each tag occurs; no zeros. Keeps the union of tags current without a scan.
    pub(super) tags: BTreeMap<String, usize>,
}

/// An instance among those of its service, ordered by node and id: a key beside it would say them again.
#[derive(Clone, Debug)]
struct Member(Arc<Instance>);

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
            Err(at) => {
                if self.is_empty() {
                    // Room for one: a list that grows makes room for four.
                    self.0.reserve_exact(1);
                }
                self.0.insert(at, check);
            }
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

impl Service {
    /// Its instances, by node and id.
    pub(super) fn instances(&self) -> impl ExactSizeIterator<Item = &Arc<Instance>> {
        self.instances.iter().map(|Member(instance)| instance)
    }
}

impl Ord for Member {
    fn cmp(&self, Member(other): &Self) -> Ordering {
        let node = self.0.node.cmp(&other.node);
        node.then_with(|| self.0.id.cmp(&other.id))
    }
}

impl PartialOrd for Member {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Member {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Member {}

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
        self.instances.get(key)?.instance.as_ref()
    }

    pub(super) fn instances(&self) -> impl Iterator<Item = &Arc<Instance>> {
        self.instances
            .values()
            .filter_map(|place| place.instance.as_ref())
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
            .filter_map(|(_, place)| place.instance.as_ref())
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
        self.instances.get(key).map_or(&NO_CHECKS, |place| &place.checks)
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
            Some(instance) => {
                let place = self.instances.entry(key.clone()).or_default();
                place.instance.replace(Arc::clone(instance))
            }
            None => self.take_out(key.clone(), |place| place.instance.take()),
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

    /// Puts all of a catalog in its place, where nothing is yet. What comes in the order of its keys, as rows do, is laid
    /// down side by side, and not searched a place for: that costs a few comparisons each, whatever their number.
    pub(super) fn lay_down(&mut self, catalog: Catalog) {
        let Catalog {
            nodes,
            instances,
            checks,
        } = catalog;
        let named = nodes.iter().filter(|node| !node.id.is_empty());
        self.node_ids = named.map(|node| (node.id.clone(), node.name.clone())).collect();
        self.nodes = nodes.into_iter().map(|node| (node.name.clone(), node)).collect();

        self.list_instances(&instances);
        let place = |instance: Arc<Instance>| {
            let (instance, checks) = (Some(instance), CheckList::default());
            Place { instance, checks }
        };
        let mut places: Vec<(InstanceKey, Place)> = instances
            .into_iter()
            .map(|instance| (instance.key(), place(instance)))
            .collect();
        places.sort_by(|(one, _), (other, _)| one.cmp(other));
        let mut listed = checks.clone();
        listed.sort_by(|one, other| owner(one).cmp(&owner(other)));
        let mut listed = listed.into_iter().peekable();
        let mut others = Vec::new();
        for (key, place) in &mut places {
            let key = (&key.namespace, &key.node, Some(&key.id));
            while let Some(check) = listed.next_if(|check| owner(check) <= key) {
                match owner(&check) == key {
                    true => place.checks.insert(check),
                    // Of a node, or of an instance that is not there.
                    false => others.push(check),
                }
            }
        }
        self.instances = places.into_iter().collect();
        for check in others.into_iter().chain(listed) {
            self.list_check(check);
        }
        self.checks = checks.into_iter().map(|check| (check.key(), check)).collect();
    }

    /// A check of an instance that is not there.
    pub(super) fn stray_check(&self) -> Option<&Arc<Check>> {
        let mut places = self.instances.values();
        places
            .find(|place| place.instance.is_none())?
            .checks
            .values()
            .next()
    }

    /// As [`Tables::list_instance`], for all there are.
    fn list_instances(&mut self, instances: &[Arc<Instance>]) {
        let mut services: BTreeMap<&Namespace, BTreeMap<&ServiceName, Vec<&Arc<Instance>>>> = BTreeMap::new();
        for instance in instances {
            let services = services.entry(&instance.namespace).or_default();
            services.entry(&instance.service).or_default().push(instance);
        }
        for (namespace, services) in services {
            let services = services.into_iter().map(|(name, instances)| {
                let mut service = Service::default();
                for tag in instances.iter().flat_map(|instance| &instance.tags) {
                    count_tag(&mut service, tag);
                }
                let instances = instances.into_iter();
                service.instances = instances.map(|instance| Member(Arc::clone(instance))).collect();
                (name.clone(), service)
            });
            let services: BTreeMap<ServiceName, Service> = services.collect();
            for (name, folded) in services.keys().filter_map(|name| Some((name, name.folded()?))) {
                let names = self.capitals.entry((namespace.clone(), folded));
                names.or_default().insert(name.clone());
            }
            self.services.insert(namespace.clone(), services);
        }
        let alike = |one: &Arc<Instance>, other: &Arc<Instance>| {
            one.node == other.node && one.namespace == other.namespace
        };
        for instances in instances.chunk_by(alike) {
            let counts = self.instance_counts.entry(instances[0].node.clone()).or_default();
            *counts.entry(instances[0].namespace.clone()).or_default() += instances.len();
        }
    }

    fn list_instance(&mut self, instance: Arc<Instance>) {
        let services = self.services.entry(instance.namespace.clone()).or_default();
        let service = services.entry(instance.service.clone()).or_default();
        if let Some(folded) = instance.service.folded() {
            let names = self.capitals.entry((instance.namespace.clone(), folded));
            names.or_default().insert(instance.service.clone());
        }
        for tag in &instance.tags {
            count_tag(service, tag);
        }
        let counts = self.instance_counts.entry(instance.node.clone()).or_default();
        *counts.entry(instance.namespace.clone()).or_default() += 1;
        service.instances.insert(Member(instance));
    }

    fn unlist_instance(&mut self, instance: &Arc<Instance>) {
        if let Some(services) = self.services.get_mut(&instance.namespace) {
            if let Some(service) = services.get_mut(&instance.service) {
                service.instances.remove(&Member(Arc::clone(instance)));
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
            Some(instance) => &mut self.instances.entry(instance).or_default().checks,
            None => self.own_checks_of_node.entry(check.node.clone()).or_default(),
        };
        list.insert(check);
    }

    fn unlist_check(&mut self, check: &Check) {
        match check.instance_key() {
            Some(instance) => self.take_out(instance, |place| place.checks.remove(&check.id)),
            None => unlist(self.own_checks_of_node.entry(check.node.clone()), &check.id),
        }
    }

    /// Takes something out of a place, if it is there; an empty place goes.
    fn take_out<T: Default>(&mut self, key: InstanceKey, take: impl FnOnce(&mut Place) -> T) -> T {
        let Entry::Occupied(mut place) = self.instances.entry(key) else {
            return T::default();
        };
        let taken = take(place.get_mut());
        if place.get().instance.is_none() && place.get().checks.is_empty() {
            place.remove();
        }
        taken
    }
}

/// What a check is of, as instances are ordered. A node's own checks come before its instances.
fn owner(check: &Check) -> (&Namespace, &NodeName, Option<&InstanceId>) {
    (&check.namespace, &check.node, check.instance.as_ref())
}

fn count_tag(service: &mut Service, tag: &str) {
    match service.tags.get_mut(tag) {
        Some(count) => *count += 1,
        None => drop(service.tags.insert(tag.to_owned(), 1)),
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::registry::{CheckDefinition, CheckStatus, Probe, Weights};

    const NAME: &str = "a valid name";

    fn instance(namespace: &str, node: &str, id: &str, service: &str, tags: &[&str]) -> Arc<Instance> {
        Arc::new(Instance {
            namespace: Namespace::parse(namespace).expect(NAME),
            node: NodeName::parse(node).expect(NAME),
            id: InstanceId::parse(id).expect(NAME),
            service: ServiceName::parse(service).expect(NAME),
            address: String::new(),
            port: 0,
            tags: tags.iter().map(ToString::to_string).collect(),
            meta: BTreeMap::new(),
            weights: Weights::default(),
            tagged_addresses: BTreeMap::new(),
            enable_tag_override: false,
            create_index: 2,
            modify_index: 2,
            extras: None,
        })
    }

    fn check(namespace: &str, node: &str, id: &str, instance: Option<&str>) -> Arc<Check> {
        Arc::new(Check {
            namespace: Namespace::parse(namespace).expect(NAME),
            node: NodeName::parse(node).expect(NAME),
            id: CheckId::parse(id).expect(NAME),
            name: String::new(),
            instance: instance.map(|id| InstanceId::parse(id).expect(NAME)),
            definition: CheckDefinition {
                probe: Probe::Ttl(Duration::from_secs(10)),
                ..CheckDefinition::default()
            },
            status: CheckStatus::Passing,
            output: String::new(),
            notes: String::new(),
            renewals: 0,
            create_index: 2,
            modify_index: 2,
        })
    }

    #[test]
    fn what_is_laid_down_at_once_is_what_is_set_one_by_one() {
        let mut with_id = Node::plain(NodeName::parse("n1").expect(NAME), "10.0.0.1");
        with_id.id = "an id".into();
        let plain = Node::plain(NodeName::parse("n2").expect(NAME), "10.0.0.2");
        let catalog = || Catalog {
            nodes: vec![Arc::new(with_id.clone()), Arc::new(plain.clone())],
            instances: vec![
                instance("default", "n1", "a", "Web", &["x", "y"]),
                instance("default", "n1", "b", "web", &["x"]),
                instance("default", "n2", "a", "web", &["x", "z"]),
                instance("other", "n1", "a", "db", &[]),
            ],
            checks: vec![
                check("default", "n1", "1", Some("b")),
                check("default", "n1", "2", Some("a")),
                check("default", "n1", "3", None),
                check("default", "n1", "4", Some("a")),
                check("default", "n1", "5", Some("aa")),
                check("default", "n2", "1", Some("a")),
                check("other", "n1", "1", Some("z")),
            ],
        };
        let mut laid_down = Tables::default();
        laid_down.lay_down(catalog());

        let mut set = Tables::default();
        let Catalog {
            nodes,
            instances,
            checks,
        } = catalog();
        for check in &checks {
            set.set_check(&check.key(), Some(Arc::clone(check)));
        }
        for instance in &instances {
            set.set_instance(&instance.key(), Some(Arc::clone(instance)));
        }
        for node in nodes {
            set.set_node(&node.name.clone(), Some(node));
        }
        assert_eq!(format!("{laid_down:#?}"), format!("{set:#?}"));
        let stray = laid_down.stray_check().expect("two have no instance");
        assert_eq!(stray.id.as_str(), "5");

        for instance in instances {
            laid_down.set_instance(&instance.key(), None);
        }
        for check in checks {
            laid_down.set_check(&check.key(), None);
        }
        assert!(laid_down.instances.is_empty() && laid_down.checks.is_empty());
        assert!(laid_down.services.is_empty() && laid_down.capitals.is_empty());
        assert!(laid_down.instance_counts.is_empty() && laid_down.own_checks_of_node.is_empty());
    }
}
