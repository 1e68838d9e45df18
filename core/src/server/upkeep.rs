//! Servers in their own catalog, kept by the leader: each is a node with a check of whether it answers and an instance of
//! the service that [`ServerConfig::servers_service`] names.
//!
//! The node of registrations through `/v1/agent/*` is there too, with a check that passes as long as anybody can be asked.
//! A server that is alone is on that very node, as an agent of Consul's is; of several, each is on a node of its own, so
//! that one that is lost takes nothing with it but itself.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Weak},
};

use futures_util::future::FutureExt as _;

use super::{
    Server, ServerConfig, node_id,
    silence::{Heard, Silence},
    wiring::{Inner, Shared},
};
use crate::{
    limits,
    raft::{RaftStatus, Role, ServerAddress, ServerId},
    registry::{
        CheckDefinition, CheckDefinitionUpdate, CheckId, CheckKey, CheckStatus, Command, Deregister,
        Instance, InstanceId, InstanceKey, Keeps, Namespace, Node, NodeName, Registration, Registry,
        ServiceName, Session, Weights,
    },
};

/// The id of a server's instance on its node, as in Consul.
pub const SERVERS_INSTANCE: &str = "consul";
/// The version of Consul whose API the servers speak: clients look for it in their meta.
pub const CONSUL_VERSION: &str = "1.22.7";

/// Begins the upkeep, if the settings want it; it ends with the server.
pub(super) fn begin(inner: &Arc<Inner>) {
    if inner.shared.config.servers_service.is_some() {
        let work = run(inner.shared.clone(), Arc::downgrade(inner));
        inner.platform().spawn(work.boxed());
    }
}

async fn run(shared: Arc<Shared>, inner: Weak<Inner>) {
    let mut silence = Silence::default();
    while shared.finish().is_none() {
        let seen = shared.leadership.version();
        match inner.upgrade() {
            Some(inner) => inner.look_after_servers(&mut silence).await,
            None => return,
        }
        let changed = shared.leadership.changed_since(seen);
        let next = shared.platform.now() + limits::UPKEEP_INTERVAL;
        shared.platform.until(next, changed).await;
    }
}

impl Inner {
    /// At the leader: brings the catalog in step with the members.
    async fn look_after_servers(&self, silence: &mut Silence) {
        let status = self.consensus.status();
        if status.role != Role::Leader || self.shared.halted().is_some() {
            silence.forget();
            return;
        }
        if !silence.look(&status, self.platform().now()) {
            return;
        }
        let commands = {
            let registry = self.registry();
            let wanted = self.wanted(&status, silence, &registry);
            commands(&registry, wanted, self.shared.config.servers_service.as_ref())
        };
        for command in commands {
            let proposed = self.consensus.propose_in_term(status.term, command);
            let deadline = self.platform().now() + limits::WRITE_TIMEOUT;
            // What did not come about is found missing the next time.
            drop(self.platform().until(deadline, proposed).await);
        }
    }

    /// How the catalog should show the servers.
    fn wanted(&self, status: &RaftStatus, silence: &Silence, registry: &Registry) -> Vec<Registration> {
        let config = &self.shared.config;
        let Some(service) = &config.servers_service else {
            return Vec::new();
        };
        let alone = status.voters.len() + status.learners.len() <= 1;
        let mut members = status.voters.values().chain(status.learners.values());
        // It stays at a member's: it must not move with the leadership.
        let known = registry
            .node(&config.agent_node)
            .filter(|node| members.any(|member| split_address(&member.raft).0 == node.address));
        let shared = agent_node(config, known.map(|node| node.address.as_str()));
        let mut wanted = vec![registration(shared.clone(), None, CheckStatus::Passing)];
        let mut add = |id: &ServerId, address: &ServerAddress, voter: bool| {
            let name = id.0.to_string();
            let (host, port) = split_address(&address.raft);
            let node = match NodeName::parse(&name) {
                Ok(parsed) if !alone && parsed != config.agent_node => {
                    let address = if host.is_empty() {
                        &config.agent_node_address
                    } else {
                        host
                    };
                    server_node(parsed, node_id(&name), address)
                }
                _ => shared.clone(),
            };
            let instance = server_instance(service, node.name.clone(), port, voter, *id == status.id);
            if node.name == config.agent_node {
                wanted[0].instance = Some(instance);
            } else {
                let seen = status_of(silence.of(id), registry, &node.name);
                wanted.push(registration(node, Some(instance), seen));
            }
        };
        status
            .voters
            .iter()
            .for_each(|(id, address)| add(id, address, true));
        status
            .learners
            .iter()
            .for_each(|(id, address)| add(id, address, false));
        wanted
    }
}

/// How a server that its leader has heard of so is shown. A new leader leaves one of which it has not heard as it is, until
/// it was silent for long enough: that it leads says nothing about the others.
fn status_of(heard: Heard, registry: &Registry, node: &NodeName) -> CheckStatus {
    if heard.silent >= limits::SERVER_SILENCE_MAX {
        return CheckStatus::Critical;
    }
    let shown = || {
        let alive = CheckKey {
            namespace: Namespace::default(),
            node: node.clone(),
            id: CheckId::parse(Session::NODE_ALIVE).expect("a constant that is a name"),
        };
        registry.check(&alive).map(|check| check.status)
    };
    match heard.ever {
        true => CheckStatus::Passing,
        false => shown().unwrap_or(CheckStatus::Passing),
    }
}

/// The node of registrations through `/v1/agent/*`, as every server registers it; `address` is this server's own if it is
/// none.
pub(super) fn agent_node(config: &ServerConfig, address: Option<&str>) -> Node {
    let (name, address) = (
        config.agent_node.clone(),
        address.unwrap_or(&config.agent_node_address),
    );
    if config.servers_service.is_none() {
        return Node::plain(name, address);
    }
    let mut node = server_node(name, config.agent_node_id.clone(), address);
    node.meta.extend(config.agent_node_meta.clone());
    node
}

impl Server {
    /// The node of registrations through `/v1/agent/…`, which all servers share: at the address that it has, which the leader looks
    /// after where servers are in their catalog; at this server's own if it is not there.
    pub fn agent_node(&self) -> Node {
        let (config, registry) = (self.config(), self.0.registry());
        let known = registry.node(&config.agent_node);
        agent_node(config, known.map(|node| node.address.as_str()))
    }

    /// Says where an instance is that was registered through this server and without an address: here. Where this server is
    /// alone, its node says so.
    pub fn locate(&self, registration: &mut Registration) {
        let own = &self.config().agent_node_address;
        let Some(instance) = &mut registration.instance else {
            return;
        };
        let by_node = || registration.node.address == *own && self.0.consensus.standing().members == 1;
        if instance.address.is_empty() && !by_node() {
            instance.address.clone_from(own);
        }
    }
}

fn server_node(name: NodeName, id: String, address: &str) -> Node {
    let mut meta = BTreeMap::new();
    meta.insert("consul-network-segment".to_owned(), String::new());
    meta.insert("consul-version".to_owned(), CONSUL_VERSION.to_owned());
    Node {
        id,
        meta,
        ..Node::plain(name, address)
    }
}

fn server_instance(service: &ServiceName, node: NodeName, port: u16, voter: bool, leader: bool) -> Instance {
    let meta = [
        ("leader", leader.to_string()),
        ("non_voter", (!voter).to_string()),
        ("raft_version", "3".to_owned()),
        ("read_replica", "false".to_owned()),
        ("version", CONSUL_VERSION.to_owned()),
    ];
    Instance {
        namespace: Namespace::default(),
        node,
        id: InstanceId::parse(SERVERS_INSTANCE).expect("a constant that is a name"),
        service: service.clone(),
        address: String::new(),
        port,
        tags: Vec::new(),
        meta: meta.map(|(key, value)| (key.to_owned(), value)).into(),
        weights: Weights::default(),
        tagged_addresses: BTreeMap::new(),
        enable_tag_override: false,
        create_index: 0,
        modify_index: 0,
        extras: None,
    }
}

fn registration(node: Node, instance: Option<Instance>, status: CheckStatus) -> Registration {
    let alive = CheckDefinitionUpdate::aliveness(node.name.clone(), CheckDefinition::default(), status);
    Registration {
        node,
        keeps: Keeps::Nothing,
        instance,
        checks: vec![alive],
        replace_checks: false,
    }
}

/// The host and the port of an address; port 0 where it has none.
pub(crate) fn split_address(address: &str) -> (&str, u16) {
    match address.rsplit_once(':') {
        Some((host, port)) => (host.trim_matches(['[', ']']), port.parse().unwrap_or(0)),
        None => (address, 0),
    }
}

/// What brings the catalog from what it is to what is wanted: nothing if it is that already.
fn commands(registry: &Registry, wanted: Vec<Registration>, service: Option<&ServiceName>) -> Vec<Command> {
    let Some(service) = service else {
        return Vec::new();
    };
    let placed: BTreeSet<InstanceKey> = wanted
        .iter()
        .filter_map(|registration| Some(registration.instance.as_ref()?.key()))
        .collect();
    let nodes: BTreeSet<&NodeName> = wanted
        .iter()
        .map(|registration| &registration.node.name)
        .collect();
    // Servers that left go as a whole; a server that is not alone any more leaves the node that is everybody's.
    let namespace = Namespace::default();
    let leftover = registry
        .instances_of_service(&namespace, service)
        .filter(|instance| instance.id.as_str() == SERVERS_INSTANCE && !placed.contains(&instance.key()));
    let mut commands: Vec<Command> = leftover
        .map(|instance| match nodes.contains(&instance.node) {
            true => Deregister::Instance {
                key: instance.key(),
                service: None,
            },
            false => Deregister::Node(instance.node.clone()),
        })
        .map(Command::Deregister)
        .collect();
    let missing: Vec<Registration> = wanted
        .into_iter()
        .filter(|registration| !is_there(registry, registration))
        .collect();
    if !missing.is_empty() {
        commands.push(Command::Register(missing));
    }
    commands
}

fn is_there(registry: &Registry, wanted: &Registration) -> bool {
    let node = registry.node(&wanted.node.name).is_some_and(|node| {
        *node
            == Node {
                create_index: node.create_index,
                modify_index: node.modify_index,
                ..wanted.node.clone()
            }
    });
    let instance = wanted.instance.as_ref().is_none_or(|wanted| {
        registry.instance(&wanted.key()).is_some_and(|instance| {
            *instance
                == Instance {
                    create_index: instance.create_index,
                    modify_index: instance.modify_index,
                    ..wanted.clone()
                }
        })
    });
    let checks = wanted.checks.iter().all(|check| {
        registry
            .check(&check.key())
            .is_some_and(|there| check.matches(there))
    });
    node && instance && checks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(name: &str) -> NodeName {
        NodeName::parse(name).expect("a name")
    }

    fn consul() -> ServiceName {
        ServiceName::parse("consul").expect("a name")
    }

    fn server(id: &str, leader: bool, status: CheckStatus) -> Registration {
        let node = server_node(name(id), node_id(id), "10.0.0.1");
        let instance = server_instance(&consul(), node.name.clone(), 8300, true, leader);
        registration(node, Some(instance), status)
    }

    fn apply(registry: &mut Registry, wanted: &[Registration]) -> usize {
        let commands = commands(registry, wanted.to_vec(), Some(&consul()));
        for command in &commands {
            registry.apply(command).reply.expect("upkeep is not refused");
        }
        commands.len()
    }

    #[test]
    fn the_catalog_follows_the_members_and_then_rests() {
        let mut registry = Registry::default();
        let shared = server_node(name("sider"), node_id("sider"), "127.0.0.1");
        let alone = {
            let instance = server_instance(&consul(), shared.name.clone(), 8300, true, true);
            vec![registration(shared.clone(), Some(instance), CheckStatus::Passing)]
        };
        assert_eq!(apply(&mut registry, &alone), 1);
        assert_eq!(apply(&mut registry, &alone), 0);

        let three = vec![
            registration(shared.clone(), None, CheckStatus::Passing),
            server("n1", true, CheckStatus::Passing),
            server("n2", false, CheckStatus::Passing),
        ];
        assert_eq!(apply(&mut registry, &three), 2);
        assert_eq!(apply(&mut registry, &three), 0);
        assert_eq!(
            registry.instances().count(),
            2,
            "it left the node that is everybody's"
        );

        let lost = vec![
            registration(shared, None, CheckStatus::Passing),
            server("n1", true, CheckStatus::Passing),
            server("n2", false, CheckStatus::Critical),
        ];
        assert_eq!(apply(&mut registry, &lost), 1);
        let left = &lost[..2];
        assert_eq!(apply(&mut registry, left), 1);
        assert!(registry.node(&name("n2")).is_none());
        assert_eq!(apply(&mut registry, left), 0);
    }

    #[test]
    fn who_was_not_heard_of_yet_stays_as_he_is_shown() {
        let mut registry = Registry::default();
        apply(&mut registry, &[server("n2", false, CheckStatus::Critical)]);
        let status = |ever, silent| status_of(Heard { silent, ever }, &registry, &name("n2"));
        let zero = std::time::Duration::ZERO;
        assert_eq!(status(false, zero), CheckStatus::Critical);
        assert_eq!(status(true, zero), CheckStatus::Passing);
        assert_eq!(status(true, limits::SERVER_SILENCE_MAX), CheckStatus::Critical);
        let stranger = status_of(Heard::default(), &registry, &name("n3"));
        assert_eq!(stranger, CheckStatus::Passing, "nothing is shown yet");
    }
}
