//! Answers queries by looking at everything that there is: no index to be wrong, no order but the one promised.

use std::collections::{BTreeMap, BTreeSet};

use sider_core::registry::{
    Check, CheckStatus, Filter, Instance, InstanceHealth, ListedCheck, Namespace, Node, NodeName, Query,
    Record, Registry, ServiceName, View,
};

pub(crate) fn answer(registry: &Registry, query: &Query) -> View {
    let everything = Everything(registry);
    match query {
        Query::Filtered { query, filter } => filtered(&everything, query, filter),
        Query::ServiceHealth {
            namespace,
            service,
            passing,
            tags,
            node_meta,
        } => {
            let wanted = everything.instances(|instance, node| {
                instance.namespace == *namespace
                    && same_name(&instance.service, service)
                    && has_tags(instance, tags)
                    && has_meta(node, node_meta)
            });
            let health = wanted.into_iter().map(|instance| InstanceHealth {
                node: everything.node(&instance.node),
                checks: everything.checks_that_count(&instance),
                instance,
            });
            let passes = |health: &InstanceHealth| {
                CheckStatus::aggregate(health.checks.iter().map(|check| check.status)) == CheckStatus::Passing
            };
            View::Instances(health.filter(|health| !passing || passes(health)).collect())
        }
        Query::CatalogService {
            namespace,
            service,
            tags,
            node_meta,
        } => {
            let wanted = everything.instances(|instance, node| {
                instance.namespace == *namespace
                    && same_name(&instance.service, service)
                    && has_tags(instance, tags)
                    && has_meta(node, node_meta)
            });
            let listed = wanted.into_iter().map(|instance| InstanceHealth {
                node: everything.node(&instance.node),
                instance,
                checks: vec![],
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
            let reached_through = |instance: &Instance| {
                let Some(extras) = &instance.extras else {
                    return false;
                };
                match &extras.proxy {
                    Some(proxy) if extras.kind == "connect-proxy" => {
                        proxy.destination_service_name == service.as_str()
                    }
                    _ => extras.connect_native && instance.service == *service,
                }
            };
            let wanted = everything.instances(|instance, node| {
                instance.namespace == Namespace::default()
                    && reached_through(instance)
                    && has_tags(instance, tags)
                    && has_meta(node, node_meta)
            });
            let mut found: Vec<InstanceHealth> = wanted
                .into_iter()
                .map(|instance| InstanceHealth {
                    node: everything.node(&instance.node),
                    checks: everything.checks_that_count(&instance),
                    instance,
                })
                .collect();
            found.retain(|it| !passing || it.checks.iter().all(|check| check.status == CheckStatus::Passing));
            if !checks {
                found.iter_mut().for_each(|it| it.checks.clear());
            }
            View::Instances(found)
        }
        Query::Services { namespace, node_meta } => {
            let mut services: BTreeMap<_, BTreeSet<String>> = BTreeMap::new();
            for instance in everything
                .instances(|instance, node| instance.namespace == *namespace && has_meta(node, node_meta))
            {
                services
                    .entry(instance.service)
                    .or_default()
                    .extend(instance.tags);
            }
            let listed = services.into_iter();
            View::Services(
                listed
                    .map(|(name, tags)| (name, tags.into_iter().collect()))
                    .collect(),
            )
        }
        Query::Nodes { node_meta } => {
            let nodes = super::generate::NODES.iter();
            let nodes = nodes.filter_map(|name| registry.node(&NodeName::parse(name).expect("a valid name")));
            View::Nodes(nodes.filter(|node| has_meta(node, node_meta)).cloned().collect())
        }
        Query::NodeServices { namespace, node } => {
            let instances =
                everything.instances(|instance, on| instance.namespace == *namespace && on.name == *node);
            let seen = everything.sees(namespace, node);
            View::NodeServices(seen.then(|| (everything.node(node), instances)))
        }
        Query::NodeChecks { namespace, node } => {
            let seen = everything.sees(namespace, node);
            let own = everything.checks(|check, _| seen && check.node == *node && check.instance.is_none());
            let of_instances = everything.checks(|check, _| {
                check.namespace == *namespace && check.node == *node && check.instance.is_some()
            });
            let mut all: Vec<_> = own.into_iter().chain(of_instances).collect();
            all.sort_by(|(one, _), (other, _)| one.id.cmp(&other.id));
            View::Checks(all)
        }
        Query::ServiceChecks {
            namespace,
            service,
            node_meta,
        } => {
            let mut checks = everything.checks(|check, node| {
                let instance = everything.instance_of(check);
                instance.is_some_and(|instance| same_name(&instance.service, service))
                    && check.namespace == *namespace
                    && has_meta(node, node_meta)
            });
            checks.sort_by_key(|(check, _)| (check.node.clone(), check.instance.clone(), check.id.clone()));
            View::Checks(checks)
        }
        Query::ChecksInState {
            namespace,
            status,
            node_meta,
        } => View::Checks(everything.checks(|check, node| {
            check.namespace == *namespace
                && status.is_none_or(|status| status == check.status)
                && has_meta(node, node_meta)
        })),
        _ => super::keys::naive_answer(registry, query),
    }
}

/// Takes what does not pass out of the complete answer.
fn filtered(everything: &Everything<'_>, query: &Query, filter: &Filter) -> View {
    let mut view = answer(everything.0, query);
    match (&mut view, query) {
        (View::Instances(instances), Query::CatalogService { .. } | Query::Connect { checks: false, .. }) => {
            instances.retain(|it| filter.passes(Record::CatalogService(&it.node, &it.instance)));
        }
        (View::Instances(instances), _) => instances.retain(|it| {
            let checks: Vec<&Check> = it.checks.iter().collect();
            filter.passes(Record::Health(&it.node, &it.instance, &checks))
        }),
        (View::Services(services), Query::Services { namespace, node_meta }) => {
            services.clear();
            for instance in everything.instances(|instance, node| {
                let record = Record::CatalogService(node, instance);
                instance.namespace == *namespace && has_meta(node, node_meta) && filter.passes(record)
            }) {
                let tags = services.entry(instance.service).or_default();
                tags.extend(instance.tags);
                tags.sort();
                tags.dedup();
            }
        }
        (View::Nodes(nodes), _) => nodes.retain(|node| filter.passes(Record::Node(node))),
        (View::NodeServices(Some((_, instances))), _) => {
            instances.retain(|instance| filter.passes(Record::Service(instance)));
        }
        (View::Checks(checks), _) => checks.retain(|(check, service)| {
            let service = service.as_ref().map(|(name, tags)| (name, tags.as_slice()));
            filter.passes(Record::Check(check, service))
        }),
        _ => {}
    }
    view
}

fn has_tags(instance: &Instance, wanted: &[String]) -> bool {
    let tags: BTreeSet<String> = instance.tags.iter().map(|tag| tag.to_lowercase()).collect();
    wanted.iter().all(|tag| tags.contains(&tag.to_lowercase()))
}

fn has_meta(node: &Node, wanted: &[(String, String)]) -> bool {
    wanted
        .iter()
        .all(|(key, value)| node.meta.get(key) == Some(value))
}

struct Everything<'a>(&'a Registry);

impl Everything<'_> {
    fn node(&self, name: &NodeName) -> Node {
        self.0
            .node(name)
            .expect("what is registered has its node")
            .clone()
    }

    fn instances(&self, mut wanted: impl FnMut(&Instance, &Node) -> bool) -> Vec<Instance> {
        let all = self.0.instances();
        let mut found: Vec<Instance> = all
            .filter(|instance| wanted(instance, &self.node(&instance.node)))
            .cloned()
            .collect();
        found.sort_by_key(|instance| (instance.node.clone(), instance.id.clone()));
        found
    }

    fn checks(&self, mut wanted: impl FnMut(&Check, &Node) -> bool) -> Vec<ListedCheck> {
        let all = self.0.checks();
        let mut found: Vec<Check> = all
            .filter(|check| wanted(check, &self.node(&check.node)))
            .cloned()
            .collect();
        found.sort_by_key(|check| (check.node.clone(), check.id.clone()));
        let listed = found.into_iter().map(|check| {
            let instance = self.instance_of(&check);
            (check, instance.map(|instance| (instance.service, instance.tags)))
        });
        listed.collect()
    }

    fn instance_of(&self, check: &Check) -> Option<Instance> {
        let mut all = self.0.instances();
        all.find(|instance| {
            Some(&instance.id) == check.instance.as_ref()
                && instance.namespace == check.namespace
                && instance.node == check.node
        })
        .cloned()
    }

    fn checks_that_count(&self, instance: &Instance) -> Vec<Check> {
        let of_node = self.checks(|check, _| check.node == instance.node && check.instance.is_none());
        let of_instance = self.checks(|check, _| self.instance_of(check).as_ref() == Some(instance));
        of_node
            .into_iter()
            .chain(of_instance)
            .map(|(check, _)| check)
            .collect()
    }

    fn sees(&self, namespace: &Namespace, node: &NodeName) -> bool {
        let has_instance = || {
            !self
                .instances(|instance, on| on.name == *node && instance.namespace == *namespace)
                .is_empty()
        };
        self.0.node(node).is_some() && (*namespace == Namespace::default() || has_instance())
    }
}

/// Services are looked up without regard to the case of letters.
fn same_name(one: &ServiceName, other: &ServiceName) -> bool {
    one.as_str().eq_ignore_ascii_case(other.as_str())
}
