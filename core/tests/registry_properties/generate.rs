//! Random commands over a universe so small that they meet each other.

use std::{collections::BTreeMap, time::Duration};

use sider_core::registry::{
    Check, CheckDefinition, CheckDefinitionUpdate, CheckExtras, CheckId, CheckKey, CheckStatus, CheckTarget,
    CheckUpdate, Command, Deregister, Expiry, Extras, Instance, InstanceId, InstanceKey, Keeps, Locality,
    NamedPort, Namespace, Node, NodeName, Probe, Proxy, Registration, Registry, ServiceName, Weights,
};

pub(crate) const NAMESPACES: [&str; 3] = ["default", "blue", "unused"];
pub(crate) const NODES: [&str; 3] = ["n1", "n2", "n3"];
pub(crate) const SERVICES: [&str; 4] = ["api", "db", "web", "API"];
const INSTANCES: [&str; 3] = ["i1", "i2", "i3"];
const CHECKS: [&str; 4] = ["c1", "c2", "c3", "c4"];
pub(crate) const TAGS: [&str; 3] = ["a", "B", "c"];
const OUTPUTS: [&str; 3] = ["", "ok", "slow"];

/// SplitMix64: small, seeded, and the same for ever.
pub(crate) struct Generator {
    state: u64,
    /// Checks as an expiry may have seen them some time ago.
    remembered: Vec<Expiry>,
}

impl Generator {
    pub(crate) fn new(seed: u64) -> Self {
        Generator {
            state: seed,
            remembered: Vec::new(),
        }
    }

    /// The next command; it aims at what is there more often than chance would.
    pub(crate) fn command(&mut self, registry: &Registry) -> Command {
        if self.one_in(2)
            && let Some(check) = self.existing_check(registry)
        {
            self.remembered.push(seen(&check));
        }
        match self.below(100) {
            0..12 => self.of_sessions(registry),
            12..25 => Command::Transact(self.many(3, |this| this.operation(registry))),
            25..50 => Command::Register(self.many(3, Self::registration)),
            50..60 => Command::Deregister(self.deregister(registry)),
            60..83 => Command::UpdateChecks(self.many(3, |this| this.update(registry))),
            _ => Command::ExpireChecks(self.many(3, |this| this.expiry(registry))),
        }
    }

    fn registration(&mut self) -> Registration {
        let node = self.node();
        let instance = (!self.one_in(5)).then(|| self.instance(&node.name));
        let mut checks = self.up_to(2, |this| this.check(&node.name, instance.as_ref()));
        // Mostly a valid registration; now and then two checks share an id, and it must be refused.
        if checks.len() == 2 && checks[0].id == checks[1].id && !self.one_in(10) {
            checks.pop();
        }
        Registration {
            node,
            keeps: match self.below(3) {
                0 => Keeps::Nothing,
                1 => Keeps::Node,
                _ => Keeps::NodeAndStatuses,
            },
            instance,
            checks,
            replace_checks: self.one_in(3),
        }
    }

    pub(crate) fn node(&mut self) -> Node {
        let name = self.node_name();
        Node {
            name,
            id: String::new(),
            address: self.pick(&["10.0.0.1", "10.0.0.2"]).into(),
            tagged_addresses: BTreeMap::new(),
            meta: BTreeMap::from([("rack".into(), self.pick(&["1", "2"]).into())]),
            create_index: self.below(3),
            modify_index: self.below(3),
            locality: self.one_in(4).then(|| Locality {
                region: self.pick(&["north", "south"]).into(),
                zone: String::new(),
            }),
        }
    }

    fn instance(&mut self, node: &NodeName) -> Instance {
        let wrong_node = self.one_in(40);
        Instance {
            namespace: self.namespace(),
            service: self.service(),
            id: self.instance_id(),
            node: if wrong_node {
                self.node_name()
            } else {
                node.clone()
            },
            address: self.pick(&["10.1.0.1", "10.1.0.2"]).into(),
            port: 80,
            tags: self.up_to(2, |this| this.pick(&TAGS).to_owned()),
            meta: BTreeMap::new(),
            weights: Weights::default(),
            tagged_addresses: BTreeMap::new(),
            enable_tag_override: false,
            create_index: self.below(3),
            modify_index: self.below(3),
            extras: self.extras().kept(),
        }
    }

    fn extras(&mut self) -> Extras {
        if !self.one_in(3) {
            return Extras::default();
        }
        Extras {
            kind: self.pick(&["", Extras::CONNECT_PROXY]).into(),
            locality: None,
            ports: self.up_to(1, |this| NamedPort {
                name: "http".into(),
                port: if this.one_in(2) { 80 } else { 81 },
                default: true,
            }),
            socket_path: self.pick(&["", "/run/x.sock"]).into(),
            proxy: self.one_in(2).then(|| Proxy {
                destination_service_name: self.pick(&["api", "db"]).into(),
                rest: "{}".into(),
                ..Proxy::default()
            }),
            connect_native: self.one_in(3),
        }
    }

    fn check(&mut self, node: &NodeName, instance: Option<&Instance>) -> CheckDefinitionUpdate {
        let owner = match instance {
            _ if self.one_in(4) => None,
            Some(instance) if !self.one_in(6) => Some((instance.namespace.clone(), instance.id.clone())),
            _ => Some((self.namespace(), self.instance_id())),
        };
        let namespace = match &owner {
            Some((namespace, _)) => namespace.clone(),
            None if self.one_in(20) => self.namespace(),
            None => Namespace::default(),
        };
        CheckDefinitionUpdate {
            id: self.check_id(),
            namespace,
            node: node.clone(),
            name: self.pick(&["x", "x", "x", "y"]).into(),
            instance: owner.map(|(_, id)| id),
            definition: self.definition(),
            status: (!self.one_in(2)).then(|| self.status()),
            output: self.pick(&OUTPUTS).into(),
            notes: self.pick(&["", "", "", "note"]).into(),
        }
    }

    fn definition(&mut self) -> CheckDefinition {
        let probe = match self.below(6) {
            0..3 => Probe::Ttl(Duration::from_secs(10)),
            3 => Probe::Ttl(Duration::from_secs(20)),
            4 => Probe::Udp("10.0.0.1:53".into()),
            _ => Probe::External,
        };
        let extras = CheckExtras {
            tcp_use_tls: self.one_in(6),
            ..CheckExtras::default()
        };
        CheckDefinition {
            probe,
            extras: extras.kept(),
            ..CheckDefinition::default()
        }
    }

    fn deregister(&mut self, registry: &Registry) -> Deregister {
        match self.below(10) {
            0 => Deregister::Node(self.node_name()),
            1..7 => Deregister::Instance {
                key: self.instance_key(registry),
                service: self.one_in(3).then(|| self.service()),
            },
            _ => Deregister::Check(self.check_key(registry)),
        }
    }

    fn update(&mut self, registry: &Registry) -> CheckUpdate {
        let target = if self.one_in(4) {
            CheckTarget::TtlChecksOf(self.instance_key(registry))
        } else {
            CheckTarget::Check(self.check_key(registry))
        };
        CheckUpdate {
            target,
            status: (!self.one_in(4)).then(|| self.status()),
            output: (!self.one_in(2)).then(|| self.pick(&OUTPUTS).into()),
        }
    }

    fn expiry(&mut self, registry: &Registry) -> Expiry {
        if self.one_in(2)
            && let Some(check) = self.existing_check(registry)
        {
            return seen(&check);
        }
        match self.remembered.len() as u64 {
            0 => Expiry {
                check: self.check_key(registry),
                renewals_seen: self.below(3),
                create_index_seen: self.below(3),
            },
            // One that was in flight for a while.
            count => {
                let age = 1 + self.below(count.min(30));
                self.remembered[(count - age) as usize].clone()
            }
        }
    }

    pub(crate) fn existing_check(&mut self, registry: &Registry) -> Option<Check> {
        let count = registry.checks().count() as u64;
        (count > 0)
            .then(|| self.below(count))
            .and_then(|nth| registry.checks().nth(nth as usize).cloned())
    }

    fn check_key(&mut self, registry: &Registry) -> CheckKey {
        match self.existing_check(registry) {
            Some(check) if !self.one_in(8) => check.key(),
            _ => CheckKey {
                namespace: self.namespace(),
                node: self.node_name(),
                id: self.check_id(),
            },
        }
    }

    fn instance_key(&mut self, registry: &Registry) -> InstanceKey {
        let count = registry.instances().count() as u64;
        if count > 0 && !self.one_in(6) {
            let nth = self.below(count) as usize;
            return registry.instances().nth(nth).expect("one of those counted").key();
        }
        InstanceKey {
            namespace: self.namespace(),
            node: self.node_name(),
            id: self.instance_id(),
        }
    }

    fn status(&mut self) -> CheckStatus {
        // Passing more often: else nothing would ever pass as a whole.
        match self.below(8) {
            0 => CheckStatus::Warning,
            1 => CheckStatus::Unknown,
            2 => CheckStatus::Critical,
            _ => CheckStatus::Passing,
        }
    }

    fn namespace(&mut self) -> Namespace {
        let name = self.pick(&NAMESPACES[..2]);
        Namespace::parse(name).expect("a valid name")
    }

    pub(crate) fn node_name(&mut self) -> NodeName {
        NodeName::parse(self.pick(&NODES)).expect("a valid name")
    }

    fn service(&mut self) -> ServiceName {
        ServiceName::parse(self.pick(&SERVICES)).expect("a valid name")
    }

    fn instance_id(&mut self) -> InstanceId {
        InstanceId::parse(self.pick(&INSTANCES)).expect("a valid name")
    }

    fn check_id(&mut self) -> CheckId {
        CheckId::parse(self.pick(&CHECKS)).expect("a valid name")
    }

    pub(crate) fn many<T>(&mut self, most: u64, mut make: impl FnMut(&mut Self) -> T) -> Vec<T> {
        let count = if self.one_in(2) { 1 } else { 1 + self.below(most) };
        (0..count).map(|_| make(self)).collect()
    }

    fn up_to<T>(&mut self, most: u64, mut make: impl FnMut(&mut Self) -> T) -> Vec<T> {
        let count = self.below(most + 1);
        (0..count).map(|_| make(self)).collect()
    }

    pub(crate) fn pick<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.below(of.len() as u64) as usize]
    }

    pub(crate) fn one_in(&mut self, chances: u64) -> bool {
        self.below(chances) == 0
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }
}

fn seen(check: &Check) -> Expiry {
    Expiry {
        check: check.key(),
        renewals_seen: check.renewals,
        create_index_seen: check.create_index,
    }
}
