//! Which topics a command's changes reach: those whose complete answer is another one now, and no others.
//!
//! Everything is judged from what changed and from what stands directly beside it (the checks of an instance, the
//! instances of a node): registering one instance in a service of thousands looks at that instance alone.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    Check, CheckId, CheckStatus, Instance, InstanceKey, Namespace, NodeName, ServiceName, Topic,
    tables::{CheckList, Tables},
    transaction::{Change, Changes},
};

/// What a command means for the topics.
#[derive(Debug, Default)]
pub(super) struct Difference {
    /// The complete answer differs by more than the output of checks: the index rises.
    pub(super) raised: BTreeSet<Topic>,
    /// The output of a check differs in the complete answer; of those also raised, the index says it.
    pub(super) touched: BTreeSet<Topic>,
    /// What the topic names may have come or gone.
    pub(super) settled: BTreeSet<Topic>,
}

/// Compares before and after; `tables` are those after.
pub(super) fn difference(changes: &Changes, tables: &Tables) -> Difference {
    let mut comparison = Comparison {
        changes,
        tables,
        lists: changed_lists(changes),
        nodes: BTreeMap::new(),
        result: Difference::default(),
    };
    comparison.checks();
    comparison.service_names();
    comparison.nodes();
    comparison.instances();
    comparison.keys();
    comparison.sessions();
    comparison.result
}

/// One check's place in a list, before and after; it may be there only before or only after.
struct ListedChange<'a> {
    id: &'a CheckId,
    before: Option<&'a Check>,
    after: Option<&'a Check>,
}

/// The changed checks of each instance and of each node.
#[derive(Default)]
struct ChangedLists<'a> {
    of_instances: BTreeMap<InstanceKey, Vec<ListedChange<'a>>>,
    of_nodes: BTreeMap<&'a NodeName, Vec<ListedChange<'a>>>,
}

fn changed_lists(changes: &Changes) -> ChangedLists<'_> {
    let mut lists = ChangedLists::default();
    for (key, change) in &changes.checks {
        let (before, after) = (change.before.as_deref(), change.after.as_deref());
        let owner = |check: Option<&Check>| check.map(Check::instance_key);
        let mut list = |owner: Option<InstanceKey>, before, after| {
            let id = &key.id;
            let listed = ListedChange { id, before, after };
            match owner {
                Some(instance) => lists.of_instances.entry(instance).or_default().push(listed),
                None => lists.of_nodes.entry(&key.node).or_default().push(listed),
            }
        };
        match (owner(before), owner(after)) {
            // A check that now belongs to another is gone from one list and new in the other.
            (Some(old), Some(new)) if old != new => {
                list(old, before, None);
                list(new, None, after);
            }
            (Some(owner), _) | (None, Some(owner)) => list(owner, before, after),
            (None, None) => {}
        }
    }
    lists
}

/// What became of a list of checks.
#[derive(Clone, Copy)]
struct ListDifference {
    /// By more than output.
    differs: bool,
    output_differs: bool,
    was_empty: bool,
    is_empty: bool,
    all_passed: bool,
    all_pass: bool,
}

fn compare_list(after: &CheckList, changed: &[ListedChange<'_>]) -> ListDifference {
    let passes = |check: &Check| check.status == CheckStatus::Passing;
    let mut result = ListDifference {
        differs: false,
        output_differs: false,
        was_empty: true,
        is_empty: after.is_empty(),
        all_passed: true,
        all_pass: after.values().all(|check| passes(check)),
    };
    // Changes come by key, so those of one list come by id.
    let is_changed = |id: &CheckId| changed.binary_search_by(|change| change.id.cmp(id)).is_ok();
    let unchanged = after
        .values()
        .filter(|check| !is_changed(&check.id))
        .map(Arc::as_ref);
    let were_there = changed.iter().filter_map(|change| change.before);
    for check in unchanged.chain(were_there) {
        result.was_empty = false;
        result.all_passed &= passes(check);
    }
    for change in changed {
        match (change.before, change.after) {
            (Some(before), Some(after)) if before.looks_like(after) => {
                result.output_differs |= before.output != after.output;
            }
            (None, None) => {}
            _ => result.differs = true,
        }
    }
    result
}

/// What became of a node itself.
#[derive(Clone, Copy)]
struct NodeDifference {
    /// Its name, address or meta, or whether it is there.
    differs: bool,
    own_checks: ListDifference,
}

/// What became of an instance and of what is shown with it.
struct InstanceDifference<'a> {
    before: Option<&'a Instance>,
    after: Option<&'a Instance>,
    node: NodeDifference,
    checks: ListDifference,
}

struct Comparison<'a> {
    changes: &'a Changes,
    tables: &'a Tables,
    lists: ChangedLists<'a>,
    /// Every node that was looked at, so that its own checks are compared once.
    nodes: BTreeMap<NodeName, NodeDifference>,
    result: Difference,
}

impl<'a> Comparison<'a> {
    /// The topics that list a namespace's checks, as far as the checks themselves changed.
    fn checks(&mut self) {
        for (key, change) in &self.changes.checks {
            let namespace = || key.namespace.clone();
            let statuses =
                [&change.before, &change.after].map(|check| check.as_ref().map(|check| check.status));
            let topics = statuses
                .into_iter()
                .flatten()
                .map(|status| Topic::ChecksInState(namespace(), status))
                .chain([Topic::Checks(namespace()), Topic::Namespace(namespace())]);
            if change.is_visible() {
                self.result.raised.extend(topics);
            } else if output_differs(change) {
                self.result.touched.extend(topics);
            }
        }
    }

    /// The topics that list services with the union of their tags.
    fn service_names(&mut self) {
        #[derive(Default)]
        struct Delta<'a> {
            instances: i64,
            tags: BTreeMap<&'a str, i64>,
        }
        let mut deltas: BTreeMap<(&Namespace, &ServiceName), Delta<'_>> = BTreeMap::new();
        for change in self.changes.instances.values() {
            for (instance, sign) in [(&change.before, -1), (&change.after, 1)] {
                let Some(instance) = instance else { continue };
                let delta = deltas
                    .entry((&instance.namespace, &instance.service))
                    .or_default();
                delta.instances += sign;
                for tag in &instance.tags {
                    *delta.tags.entry(tag).or_default() += sign;
                }
            }
        }
        for ((namespace, name), delta) in deltas {
            let service = self.tables.service(namespace, name);
            let count = service.map_or(0, |service| service.instances().len());
            let tag_count = |tag: &str| {
                service
                    .and_then(|service| service.tags.get(tag))
                    .copied()
                    .unwrap_or(0)
            };
            if comes_or_goes(count, delta.instances)
                || delta
                    .tags
                    .iter()
                    .any(|(tag, by)| comes_or_goes(tag_count(tag), *by))
            {
                self.result.raised.insert(Topic::Services(namespace.clone()));
            }
        }
    }

    /// The topics of nodes that changed or whose own checks did.
    fn nodes(&mut self) {
        let changed = self
            .changes
            .nodes
            .keys()
            .chain(self.lists.of_nodes.keys().copied());
        let sighted = self.nodes_in_another_sight();
        for name in changed.collect::<BTreeSet<&NodeName>>() {
            let node = self.node(name);
            let mut namespaces: BTreeSet<Namespace> = self.tables.namespaces_of_node(name).cloned().collect();
            namespaces.insert(Namespace::default());
            for namespace in namespaces {
                let services = Topic::NodeServices(namespace.clone(), name.clone());
                let checks = Topic::NodeChecks(namespace.clone(), name.clone());
                let comes_into_sight = sighted.contains(&(&namespace, name));
                if node.differs {
                    self.result.settled.extend([services.clone(), checks.clone()]);
                    self.result.raised.extend([services, Topic::Namespace(namespace)]);
                }
                // There its checks are shown for the first time, however they have changed.
                if comes_into_sight {
                    continue;
                }
                if node.own_checks.differs {
                    self.result.raised.insert(checks);
                } else if node.own_checks.output_differs {
                    self.result.touched.insert(checks);
                }
            }
        }
        if !self.changes.nodes.is_empty() {
            self.result.raised.insert(Topic::Nodes);
        }
        self.nodes_that_come_into_sight(&sighted);
    }

    /// The nodes that got their first instance in a namespace, or lost their last; all of them are in sight of the default
    /// one.
    fn nodes_in_another_sight(&self) -> BTreeSet<(&'a Namespace, &'a NodeName)> {
        let mut deltas: BTreeMap<(&Namespace, &NodeName), i64> = BTreeMap::new();
        for (key, change) in &self.changes.instances {
            let by = i64::from(change.after.is_some()) - i64::from(change.before.is_some());
            *deltas.entry((&key.namespace, &key.node)).or_default() += by;
        }
        let sighted = deltas.into_iter().filter(|&((namespace, name), by)| {
            let count = self.tables.instance_count(namespace, name);
            *namespace != Namespace::default() && comes_or_goes(count, by)
        });
        sighted.map(|(place, _)| place).collect()
    }

    /// The own checks of those nodes.
    fn nodes_that_come_into_sight(&mut self, sighted: &BTreeSet<(&'a Namespace, &'a NodeName)>) {
        for &(namespace, name) in sighted {
            let own_checks = self.node(name).own_checks;
            let shows = if self.tables.instance_count(namespace, name) > 0 {
                !own_checks.is_empty
            } else {
                !own_checks.was_empty
            };
            if shows {
                let topic = Topic::NodeChecks(namespace.clone(), name.clone());
                self.result.raised.insert(topic);
            }
        }
    }

    /// The topics of services, and those of nodes as far as they show instances.
    fn instances(&mut self) {
        for key in self.reached_instances() {
            let change = self.changes.instances.get(&key);
            let (before, after) = match change {
                Some(change) => (change.before.as_deref(), change.after.as_deref()),
                None => {
                    let instance = self.tables.instance(&key).map(Arc::as_ref);
                    (instance, instance)
                }
            };
            let changed_checks = self.lists.of_instances.get(&key).map_or(&[][..], Vec::as_slice);
            let difference = InstanceDifference {
                before,
                after,
                checks: compare_list(self.tables.checks_of_instance(&key), changed_checks),
                node: self.node(&key.node),
            };
            self.instance(&key, change.is_some(), &difference);
        }
    }

    /// The instances whose answer may differ: those that changed, whose checks did, or whose node did.
    fn reached_instances(&self) -> BTreeSet<InstanceKey> {
        let changed = self.changes.instances.keys().cloned();
        let with_checks = self.lists.of_instances.keys().cloned();
        let mut reached: BTreeSet<InstanceKey> = changed.chain(with_checks).collect();
        for (name, node) in &self.nodes {
            if node.differs || node.own_checks.differs || node.own_checks.output_differs {
                for namespace in self.tables.namespaces_of_node(name) {
                    let instances = self.tables.instances_of_node(namespace, name);
                    reached.extend(instances.map(|instance| instance.key()));
                }
            }
        }
        reached
    }

    fn instance(&mut self, key: &InstanceKey, changed: bool, difference: &InstanceDifference<'a>) {
        let InstanceDifference {
            before,
            after,
            node,
            checks,
        } = difference;
        let annotated_otherwise = match (before, after) {
            (Some(before), Some(after)) => before.service != after.service || before.tags != after.tags,
            _ => false,
        };
        self.services_of_instance(difference, changed, annotated_otherwise);

        let node_checks = Topic::NodeChecks(key.namespace.clone(), key.node.clone());
        if changed {
            let node_services = Topic::NodeServices(key.namespace.clone(), key.node.clone());
            self.result.settled.extend([
                node_services.clone(),
                node_checks.clone(),
                Topic::Services(key.namespace.clone()),
                Topic::Checks(key.namespace.clone()),
                Topic::Namespace(key.namespace.clone()),
            ]);
            self.result
                .settled
                .extend(CheckStatus::ALL.map(|status| Topic::ChecksInState(key.namespace.clone(), status)));
            self.result
                .raised
                .extend([node_services, Topic::Namespace(key.namespace.clone())]);
        }
        if node.differs {
            self.result.raised.insert(Topic::Namespace(key.namespace.clone()));
        }
        if checks.differs || (annotated_otherwise && !checks.is_empty) {
            self.result.raised.insert(node_checks);
        } else if checks.output_differs {
            self.result.touched.insert(node_checks);
        }
        if annotated_otherwise {
            // Lists of checks name each check's service and tags. The checks that changed are accounted for already.
            for check in self.tables.checks_of_instance(key).values() {
                self.result.raised.extend([
                    Topic::Checks(key.namespace.clone()),
                    Topic::ChecksInState(key.namespace.clone(), check.status),
                ]);
            }
        }
    }

    /// The topics of the service that an instance is in, or of both when it moved.
    fn services_of_instance(
        &mut self,
        difference: &InstanceDifference<'a>,
        changed: bool,
        annotated_otherwise: bool,
    ) {
        let InstanceDifference {
            before,
            after,
            node,
            checks,
        } = difference;
        let shown_otherwise = changed || node.differs || node.own_checks.differs || checks.differs;
        let output_differs = node.own_checks.output_differs || checks.output_differs;
        let stays = matches!((before, after), (Some(b), Some(a)) if b.service == a.service);
        let sides = [
            (
                before,
                node.own_checks.all_passed && checks.all_passed,
                !checks.was_empty,
            ),
            (
                after,
                node.own_checks.all_pass && checks.all_pass,
                !checks.is_empty,
            ),
        ];
        let passing_changes = sides[0].1 != sides[1].1;
        for (instance, passing, has_checks) in sides {
            let Some(instance) = instance else { continue };
            let topic = |of: fn(Namespace, ServiceName) -> Topic| {
                of(instance.namespace.clone(), instance.service.clone())
            };
            if changed {
                self.result.settled.extend([
                    topic(Topic::Service),
                    topic(Topic::ServicePassing),
                    topic(Topic::ServiceInstances),
                    topic(Topic::ServiceChecks),
                ]);
            }
            if changed || node.differs {
                self.result.raised.insert(topic(Topic::ServiceInstances));
            }
            if shown_otherwise {
                self.result.raised.insert(topic(Topic::Service));
            } else if output_differs {
                self.result.touched.insert(topic(Topic::Service));
            }
            if passing && (shown_otherwise || passing_changes) {
                self.result.raised.insert(topic(Topic::ServicePassing));
            } else if passing && output_differs {
                self.result.touched.insert(topic(Topic::ServicePassing));
            }
            let list_differs = checks.differs || annotated_otherwise;
            if has_checks && (!stays || list_differs) {
                self.result.raised.insert(topic(Topic::ServiceChecks));
            } else if has_checks && checks.output_differs {
                self.result.touched.insert(topic(Topic::ServiceChecks));
            }
        }
    }

    fn keys(&mut self) {
        let topics: BTreeSet<Topic> = self.changes.keys.keys().cloned().map(Topic::Key).collect();
        self.result.settled.extend(topics.iter().cloned());
        self.result.raised.extend(topics);
    }

    fn sessions(&mut self) {
        for (id, change) in &self.changes.sessions {
            if !change.is_visible() {
                continue;
            }
            let nodes = [&change.before, &change.after];
            let nodes = nodes.into_iter().flatten().map(|session| session.node.clone());
            let mut topics: BTreeSet<Topic> = nodes.map(Topic::SessionsOfNode).collect();
            topics.extend([Topic::Session(id.clone()), Topic::Sessions]);
            self.result.settled.extend(topics.iter().cloned());
            self.result.raised.extend(topics);
        }
    }

    /// What became of a node.
    fn node(&mut self, name: &NodeName) -> NodeDifference {
        if let Some(node) = self.nodes.get(name) {
            return *node;
        }
        let changed = self.lists.of_nodes.get(name).map_or(&[][..], Vec::as_slice);
        let node = NodeDifference {
            differs: self.changes.nodes.contains_key(name),
            own_checks: compare_list(self.tables.own_checks_of_node(name), changed),
        };
        self.nodes.insert(name.clone(), node);
        node
    }
}

fn output_differs(change: &Change<Check>) -> bool {
    match (&change.before, &change.after) {
        (Some(before), Some(after)) => before.output != after.output,
        _ => false,
    }
}

/// Whether a count that rose by `by` to `after` was or became zero in that.
fn comes_or_goes(after: usize, by: i64) -> bool {
    let before = i64::try_from(after).unwrap_or(i64::MAX) - by;
    (before == 0) != (after == 0)
}
