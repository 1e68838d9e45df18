//! The answer to each query.

use std::{collections::BTreeSet, sync::Arc};

use super::{
    Check, CheckStatus, Filter, Instance, InstanceHealth, Key, ListedCheck, Namespace, Node, NodeName, Query,
    Record, ServiceName, Session, Topic, View,
    tables::{Service, Tables},
};

impl Query {
    /// The topic whose index is this query's index.
    pub fn topic(&self) -> Topic {
        match self {
            Query::ServiceHealth {
                namespace,
                service,
                passing: true,
                ..
            } => Topic::ServicePassing(namespace.clone(), service.clone()),
            Query::ServiceHealth {
                namespace, service, ..
            } => Topic::Service(namespace.clone(), service.clone()),
            Query::CatalogService {
                namespace, service, ..
            } => Topic::ServiceInstances(namespace.clone(), service.clone()),
            // There are few of them, so nothing keeps an index of what is reached through whom.
            Query::Connect { .. } => Topic::Namespace(Namespace::default()),
            // A list that shows no nodes, but is filtered by their meta, can change when only that does.
            Query::Services { namespace, node_meta } if node_meta.is_empty() => {
                Topic::Services(namespace.clone())
            }
            Query::Services { namespace, .. } => Topic::Namespace(namespace.clone()),
            Query::Nodes { .. } => Topic::Nodes,
            Query::NodeServices { namespace, node } => Topic::NodeServices(namespace.clone(), node.clone()),
            Query::NodeChecks { namespace, node } => Topic::NodeChecks(namespace.clone(), node.clone()),
            Query::ServiceChecks {
                namespace,
                service,
                node_meta,
            } if node_meta.is_empty() => Topic::ServiceChecks(namespace.clone(), service.clone()),
            Query::ServiceChecks {
                namespace, service, ..
            } => Topic::Service(namespace.clone(), service.clone()),
            Query::ChecksInState {
                namespace, node_meta, ..
            } if !node_meta.is_empty() => Topic::Namespace(namespace.clone()),
            Query::ChecksInState {
                namespace, status, ..
            } => match status {
                Some(status) => Topic::ChecksInState(namespace.clone(), *status),
                None => Topic::Checks(namespace.clone()),
            },
            Query::Key(key) => Topic::Key(key.clone()),
            Query::KeyTree(prefix) | Query::KeyNames { prefix, .. } => Topic::KeyPrefix(prefix.clone()),
            Query::Session(id) => Topic::Session(id.clone()),
            Query::Sessions(Some(node)) => Topic::SessionsOfNode(node.clone()),
            Query::Sessions(None) => Topic::Sessions,
            // This list shows names and tags, and may be filtered by anything.
            Query::Filtered { query, .. } => match &**query {
                Query::Services { namespace, .. } => Topic::Namespace(namespace.clone()),
                other => other.topic(),
            },
        }
    }
}

/// Answers a query.
pub(super) fn answer(tables: &Tables, query: &Query) -> View {
    answer_filtered(tables, query, Filters(Vec::new()))
}

/// The filters that a record must pass.
struct Filters<'a>(Vec<&'a Filter>);

impl Filters<'_> {
    fn pass(&self, record: Record<'_>) -> bool {
        self.0.iter().all(|filter| filter.passes(record))
    }
}

fn answer_filtered<'a>(tables: &Tables, query: &'a Query, mut filters: Filters<'a>) -> View {
    match query {
        Query::Filtered { query, filter } => {
            filters.0.push(filter);
            answer_filtered(tables, query, filters)
        }
        Query::ServiceHealth {
            namespace,
            service,
            passing,
            tags,
            node_meta,
        } => {
            let instances = instances_of_service(tables, namespace, service);
            let wanted = InstanceFilter::new(tags, node_meta);
            let health = instances.filter_map(|instance| {
                let node = tables.node_beneath(&instance.node);
                let kept = wanted.keeps(instance, node) && (!passing || passes(tables, instance));
                kept.then(|| instance_health(tables, node, instance, &filters))?
            });
            View::Instances(health.collect())
        }
        Query::CatalogService {
            namespace,
            service,
            tags,
            node_meta,
        } => {
            let instances = instances_of_service(tables, namespace, service);
            let wanted = InstanceFilter::new(tags, node_meta);
            let listed = instances.filter_map(|instance| {
                let node = tables.node_beneath(&instance.node);
                let kept = wanted.keeps(instance, node);
                kept.then(|| listed_instance(node, instance, &filters))?
            });
            View::Instances(listed.collect())
        }
        Query::Connect {
            service,
            checks,
            passing,
            tags,
            node_meta,
        } => {
            let wanted = InstanceFilter::new(tags, node_meta);
            let instances = tables.instances().filter(|instance| {
                instance.namespace == Namespace::default()
                    && instance.connects() == Some(service.as_str())
                    && (!passing || passes(tables, instance))
            });
            let found = instances.filter_map(|instance| {
                let node = tables.node_beneath(&instance.node);
                let kept = wanted.keeps(instance, node);
                kept.then(|| match checks {
                    true => instance_health(tables, node, instance, &filters),
                    false => listed_instance(node, instance, &filters),
                })?
            });
            let mut found: Vec<InstanceHealth> = found.collect();
            found.sort_by(|one, other| {
                let key = |it: &InstanceHealth| (it.instance.node.clone(), it.instance.id.clone());
                key(one).cmp(&key(other))
            });
            View::Instances(found)
        }
        Query::Services { namespace, node_meta } => {
            let services = tables.services(namespace).filter_map(|(name, service)| {
                let tags = tags_of_service(tables, service, node_meta, &filters)?;
                Some((name.clone(), tags))
            });
            View::Services(services.collect())
        }
        Query::Nodes { node_meta } => {
            let nodes = tables
                .nodes()
                .filter(|node| has_meta(node, node_meta) && filters.pass(Record::Node(node)));
            View::Nodes(nodes.map(|node| Node::clone(node)).collect())
        }
        Query::NodeServices { namespace, node } => {
            View::NodeServices(node_services(tables, namespace, node, &filters))
        }
        Query::NodeChecks { namespace, node } => View::Checks(node_checks(tables, namespace, node, &filters)),
        Query::ServiceChecks {
            namespace,
            service,
            node_meta,
        } => {
            let instances = instances_of_service(tables, namespace, service)
                .filter(|instance| has_meta(tables.node_beneath(&instance.node), node_meta));
            let checks = instances.flat_map(|instance| tables.checks_of_instance(&instance.key()).values());
            View::Checks(
                checks
                    .filter_map(|check| annotate(tables, check, &filters))
                    .collect(),
            )
        }
        Query::ChecksInState {
            namespace,
            status,
            node_meta,
        } => {
            let checks = tables
                .checks_of_namespace(namespace)
                .filter(|check| status.is_none_or(|status| check.status == status))
                .filter(|check| has_meta(tables.node_beneath(&check.node), node_meta));
            View::Checks(
                checks
                    .filter_map(|check| annotate(tables, check, &filters))
                    .collect(),
            )
        }
        Query::Key(key) => View::Keys(tables.keys().get(key).cloned().into_iter().collect()),
        Query::KeyTree(prefix) => View::Keys(tables.keys().with_prefix(prefix).cloned().collect()),
        Query::KeyNames { prefix, separator } => View::KeyNames(key_names(tables, prefix, separator)),
        Query::Session(id) => {
            let session = tables.sessions().get(id);
            View::Sessions(
                session
                    .map(|session| Session::clone(session))
                    .into_iter()
                    .collect(),
            )
        }
        Query::Sessions(Some(node)) => {
            let sessions = tables.sessions().of_node(node);
            View::Sessions(sessions.map(|session| Session::clone(session)).collect())
        }
        Query::Sessions(None) => {
            let sessions = tables.sessions().all();
            View::Sessions(sessions.map(|session| Session::clone(session)).collect())
        }
    }
}

/// Each name up to the first separator behind the prefix, that included; equal ones once.
fn key_names(tables: &Tables, prefix: &Key, separator: &[u8]) -> Vec<Key> {
    let mut names: Vec<Key> = Vec::new();
    for found in tables.keys().with_prefix(prefix) {
        let key = &found.key;
        let behind = &key.as_bytes()[prefix.as_bytes().len()..];
        let at = match separator {
            [] => None,
            separator => behind.windows(separator.len()).position(|part| part == separator),
        };
        let name = match at {
            Some(at) => key.cut(prefix.as_bytes().len() + at + separator.len()),
            None => key.clone(),
        };
        // Keys come in order, so equal names come together.
        if names.last() != Some(&name) {
            names.push(name);
        }
    }
    names
}

/// Which instances of a service are wanted.
struct InstanceFilter<'a> {
    lower_tags: Vec<String>,
    node_meta: &'a [(String, String)],
}

impl<'a> InstanceFilter<'a> {
    fn new(tags: &[String], node_meta: &'a [(String, String)]) -> Self {
        InstanceFilter {
            lower_tags: tags.iter().map(|tag| tag.to_lowercase()).collect(),
            node_meta,
        }
    }

    fn keeps(&self, instance: &Instance, node: &Node) -> bool {
        let has_tag = |wanted: &String| instance.tags.iter().any(|tag| tag.to_lowercase() == *wanted);
        self.lower_tags.iter().all(has_tag) && has_meta(node, self.node_meta)
    }
}

fn has_meta(node: &Node, wanted: &[(String, String)]) -> bool {
    wanted
        .iter()
        .all(|(key, value)| node.meta.get(key) == Some(value))
}

/// The instances of a service, by node and id; the case of letters in its name does not matter.
fn instances_of_service<'a>(
    tables: &'a Tables,
    namespace: &'a Namespace,
    service: &ServiceName,
) -> Box<dyn Iterator<Item = &'a Arc<Instance>> + 'a> {
    let spellings: Vec<&Service> = tables.spellings(namespace, service).collect();
    match spellings[..] {
        [] => Box::new(std::iter::empty()),
        [only] => Box::new(only.instances()),
        _ => {
            let instances = spellings.into_iter().flat_map(Service::instances);
            let mut sorted: Vec<_> = instances.collect();
            sorted.sort_by(|one, other| (&one.node, &one.id).cmp(&(&other.node, &other.id)));
            Box::new(sorted.into_iter())
        }
    }
}

fn passes(tables: &Tables, instance: &Instance) -> bool {
    let node_checks = tables.own_checks_of_node(&instance.node).values();
    let mut checks = node_checks.chain(tables.checks_of_instance(&instance.key()).values());
    checks.all(|check| check.status == CheckStatus::Passing)
}

/// An instance with what decides about its health, if it passes the filters.
fn instance_health(
    tables: &Tables,
    node: &Node,
    instance: &Instance,
    filters: &Filters<'_>,
) -> Option<InstanceHealth> {
    let node_checks = tables.own_checks_of_node(&instance.node).values();
    let checks = node_checks.chain(tables.checks_of_instance(&instance.key()).values());
    let checks: Vec<&Check> = checks.map(|check| &**check).collect();
    // What does not pass is not copied.
    filters
        .pass(Record::Health(node, instance, &checks))
        .then(|| InstanceHealth {
            node: node.clone(),
            instance: instance.clone(),
            checks: checks.into_iter().cloned().collect(),
        })
}

/// An instance with its node and without checks, if it passes the filters.
fn listed_instance(node: &Node, instance: &Instance, filters: &Filters<'_>) -> Option<InstanceHealth> {
    let kept = filters.pass(Record::CatalogService(node, instance));
    kept.then(|| InstanceHealth {
        node: node.clone(),
        instance: instance.clone(),
        checks: Vec::new(),
    })
}

/// The union of the tags of a service's wanted instances; `None` if there are none.
fn tags_of_service(
    tables: &Tables,
    service: &Service,
    node_meta: &[(String, String)],
    filters: &Filters<'_>,
) -> Option<Vec<String>> {
    if node_meta.is_empty() && filters.0.is_empty() {
        return Some(service.tags.keys().cloned().collect());
    }
    let instances = service.instances();
    let mut wanted = instances
        .filter(|instance| {
            let node = tables.node_beneath(&instance.node);
            has_meta(node, node_meta) && filters.pass(Record::CatalogService(node, instance))
        })
        .peekable();
    wanted.peek()?;
    let tags: BTreeSet<&String> = wanted.flat_map(|instance| &instance.tags).collect();
    Some(tags.into_iter().cloned().collect())
}

fn node_services(
    tables: &Tables,
    namespace: &Namespace,
    name: &NodeName,
    filters: &Filters<'_>,
) -> Option<(Node, Vec<Instance>)> {
    if !tables.sees_node(namespace, name) {
        return None;
    }
    let instances = tables
        .instances_of_node(namespace, name)
        .filter(|instance| filters.pass(Record::Service(instance)))
        .map(|instance| Instance::clone(instance))
        .collect();
    Some((Node::clone(tables.node_beneath(name)), instances))
}

fn node_checks(
    tables: &Tables,
    namespace: &Namespace,
    name: &NodeName,
    filters: &Filters<'_>,
) -> Vec<ListedCheck> {
    if !tables.sees_node(namespace, name) {
        return Vec::new();
    }
    let own = tables.own_checks_of_node(name).values();
    let of_instances = tables
        .checks_of_node(namespace, name)
        .filter(|check| check.instance.is_some());
    let checks = own.chain(of_instances);
    let mut listed: Vec<ListedCheck> = checks
        .filter_map(|check| annotate(tables, check, filters))
        .collect();
    listed.sort_by(|(one, _), (other, _)| one.id.cmp(&other.id));
    listed
}

/// A check with the name and tags of its service.
pub(super) fn listed(tables: &Tables, check: &Check) -> ListedCheck {
    let instance = check.instance_key().and_then(|key| tables.instance(&key));
    let service = instance.map(|instance| (instance.service.clone(), instance.tags.clone()));
    (check.clone(), service)
}

/// A check with the name and tags of its service, if it passes the filters.
fn annotate(tables: &Tables, check: &Check, filters: &Filters<'_>) -> Option<ListedCheck> {
    let instance = check.instance_key().and_then(|key| tables.instance(&key));
    let service = instance.map(|instance| (&instance.service, instance.tags.as_slice()));
    filters.pass(Record::Check(check, service)).then(|| {
        let service = service.map(|(name, tags)| (name.clone(), tags.to_vec()));
        (check.clone(), service)
    })
}
