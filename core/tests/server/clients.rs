//! What the tests ask servers for.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use sider_core::{
    observe::NoObserver,
    registry::{
        CheckDefinition, CheckDefinitionUpdate, CheckId, CheckKey, CheckStatus, CheckTarget, Command,
        Deregister, Instance, InstanceId, InstanceKey, Keeps, Namespace, Node, NodeName, Probe, Query,
        Registration, ServiceName, View, Weights,
    },
    server::{
        Answer, Consistency, ReadOptions, Renewal, Server,
        standin::{self, Standin, TestPlatform},
    },
};

pub(crate) const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(crate) const fn millis(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// Three servers; the first one leads in term 1 and the others apply what it applies.
pub(crate) struct Cluster {
    pub(crate) platform: Arc<TestPlatform>,
    pub(crate) servers: Vec<Server>,
    pub(crate) standins: Vec<Arc<Standin>>,
}

pub(crate) fn cluster() -> Cluster {
    let platform = TestPlatform::new();
    let members: Vec<_> = ["server-1", "server-2", "server-3"]
        .iter()
        .map(|id| standin::member(id, &platform, Arc::new(NoObserver), false))
        .collect();
    let (servers, standins): (Vec<Server>, Vec<Arc<Standin>>) = members.into_iter().unzip();
    for (place, standin) in standins.iter().enumerate() {
        for other in &standins[place + 1..] {
            standin.connect(other);
        }
    }
    let cluster = Cluster {
        platform,
        servers,
        standins,
    };
    cluster.elect(0, 1);
    for follower in &cluster.standins[1..] {
        cluster.standins[0].replicate_to(follower);
    }
    cluster.platform.settle();
    cluster
}

impl Cluster {
    /// Makes this member the leader of a term, known to all.
    pub(crate) fn elect(&self, leader: usize, term: u64) {
        for (place, standin) in self.standins.iter().enumerate() {
            if place == leader {
                standin.lead(term);
            } else {
                standin.follow(term, Some(&self.standins[leader]));
            }
        }
    }
}

pub(crate) fn node() -> NodeName {
    NodeName::parse("node-1").unwrap()
}

pub(crate) fn service_name(service: &str) -> ServiceName {
    ServiceName::parse(service).unwrap()
}

pub(crate) fn instance_key(id: &str) -> InstanceKey {
    InstanceKey {
        namespace: Namespace::default(),
        node: node(),
        id: InstanceId::parse(id).unwrap(),
    }
}

/// The check of an instance that [`register_ttl`] registered.
pub(crate) fn check_key(instance: &str) -> CheckKey {
    CheckKey {
        namespace: Namespace::default(),
        node: node(),
        id: CheckId::parse(&format!("chk:{instance}")).unwrap(),
    }
}

fn registration(service: &str, id: &str, tags: &[&str]) -> Registration {
    Registration {
        node: Node {
            name: node(),
            id: String::new(),
            address: "10.0.0.1".into(),
            tagged_addresses: BTreeMap::new(),
            meta: BTreeMap::new(),
            create_index: 0,
            modify_index: 0,
            locality: None,
        },
        keeps: Keeps::Node,
        instance: Some(Instance {
            namespace: Namespace::default(),
            node: node(),
            id: InstanceId::parse(id).unwrap(),
            service: service_name(service),
            address: String::new(),
            port: 80,
            tags: tags.iter().map(ToString::to_string).collect(),
            meta: BTreeMap::new(),
            weights: Weights::default(),
            tagged_addresses: BTreeMap::new(),
            enable_tag_override: false,
            create_index: 0,
            modify_index: 0,
            extras: None,
        }),
        checks: Vec::new(),
        replace_checks: true,
    }
}

/// An instance without checks.
pub(crate) fn register(service: &str, id: &str, tags: &[&str]) -> Command {
    Command::Register(vec![registration(service, id, tags)])
}

/// An instance with a TTL check; see [`check_key`].
pub(crate) fn register_ttl(service: &str, id: &str, ttl: Duration, status: CheckStatus) -> Command {
    register_check(service, id, status, |definition| {
        definition.probe = Probe::Ttl(ttl);
    })
}

/// An instance with a check of some definition.
pub(crate) fn register_check(
    service: &str,
    id: &str,
    status: CheckStatus,
    define: impl Fn(&mut CheckDefinition),
) -> Command {
    let mut definition = CheckDefinition::default();
    define(&mut definition);
    let mut registration = registration(service, id, &[]);
    registration.checks.push(CheckDefinitionUpdate {
        id: check_key(id).id,
        namespace: Namespace::default(),
        node: node(),
        name: "alive".into(),
        instance: Some(InstanceId::parse(id).unwrap()),
        definition,
        status: Some(status),
        output: String::new(),
        notes: String::new(),
    });
    Command::Register(vec![registration])
}

pub(crate) fn deregister(id: &str) -> Command {
    Command::Deregister(Deregister::Instance {
        key: instance_key(id),
        service: None,
    })
}

/// A report about the check of an instance.
pub(crate) fn report(id: &str, status: CheckStatus, output: Option<&str>) -> Renewal {
    Renewal {
        target: CheckTarget::Check(check_key(id)),
        status,
        output: output.map(str::to_owned),
    }
}

pub(crate) fn pass(id: &str) -> Vec<Renewal> {
    vec![report(id, CheckStatus::Passing, None)]
}

/// A service's instances, all or those with a tag.
pub(crate) fn health(service: &str, tags: &[&str], passing: bool) -> Query {
    Query::ServiceHealth {
        namespace: Namespace::default(),
        service: service_name(service),
        passing,
        tags: tags.iter().map(ToString::to_string).collect(),
        node_meta: Vec::new(),
    }
}

pub(crate) fn now() -> ReadOptions {
    ReadOptions::default()
}

pub(crate) fn stale(max_stale: Option<Duration>) -> ReadOptions {
    ReadOptions {
        consistency: Consistency::Stale { max_stale },
        ..now()
    }
}

/// A blocking query.
pub(crate) fn after(index: u64, wait: Duration) -> ReadOptions {
    ReadOptions {
        index: Some(index),
        wait,
        ..now()
    }
}

/// Ids of the instances in an answer.
pub(crate) fn ids(answer: &Answer) -> Vec<String> {
    match &answer.view.view {
        View::Instances(instances) => {
            let id = |health: &sider_core::registry::InstanceHealth| health.instance.id.to_string();
            instances.iter().map(id).collect()
        }
        other => panic!("not instances: {other:?}"),
    }
}

/// Status of an instance's check as this server has it.
pub(crate) fn status_of(platform: &TestPlatform, server: &Server, id: &str) -> Option<CheckStatus> {
    let key = check_key(id);
    let look = |registry: &sider_core::registry::Registry| registry.check(&key).map(|check| check.status);
    platform.run(server.inspect(true, look)).unwrap()
}

/// Output of an instance's check as this server has it.
pub(crate) fn output_of(platform: &TestPlatform, server: &Server, id: &str) -> String {
    let key = check_key(id);
    let look = |registry: &sider_core::registry::Registry| registry.check(&key).unwrap().output.clone();
    platform.run(server.inspect(true, look)).unwrap()
}
