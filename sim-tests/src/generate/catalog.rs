//! Draws what clients do with the catalog beyond plain registrations: transactions on nodes, instances and checks.

use sider_core::registry::CheckStatus;

use super::{
    Dice,
    work::{Kind, NODES, Plan},
};
use crate::{
    agent_reads::AgentAsk,
    catalog_steps::{CatalogStep, Thing, Verb},
    keys::{KeyOp, LAST_SEEN, Step},
    maintenance::Maintenance,
    matching::SHARED_NODE,
    operation::{Ask, CatalogEntry, Freshness, Op},
};

/// The instance that transactions write on the servers' shared node: no other request names it.
pub(super) const OF_TRANSACTIONS: &str = "txn-0";

/// How often one of these kinds of operation comes in a world that has it: seldom, or all the time. Others keep their weight.
pub(super) fn rate(dice: &mut Dice, kind: Kind, weight: u64) -> u64 {
    match kind {
        Kind::CatalogTransaction | Kind::Maintenance | Kind::AgentRead => {
            *dice.pick(&[weight / 2, weight, weight * 3])
        }
        _ => weight,
    }
}

impl Plan<'_> {
    /// A transaction on the catalog, where there are keys on them, too; and a question that shows it.
    pub(super) fn catalog_transaction(&mut self) -> (Op, Ask) {
        let node = self.catalog_node();
        let index = *self.dice.weighted(&[(4, LAST_SEEN), (1, 0)]);
        let mut steps: Vec<CatalogStep> = match *self.dice.weighted(&[(5, 0), (2, 1), (1, 2), (2, 3), (2, 4)])
        {
            // As one registers: all that belongs together.
            0 => {
                let things = [
                    self.node_thing(&node),
                    self.instance_thing(&node),
                    self.check_thing(&node),
                ];
                // On the shared node there is always something.
                let from = usize::from(node == SHARED_NODE);
                let to = self.dice.index(3).max(from) + 1;
                let verb = Verb::Set;
                let step = |thing| CatalogStep { verb, thing };
                things.into_iter().take(to).skip(from).map(step).collect()
            }
            // As one changes what one has read.
            1 => vec![CatalogStep {
                verb: *self
                    .dice
                    .pick(&[Verb::SetIf(index), Verb::SetIf(index), Verb::DeleteIf(index)]),
                thing: self.thing(),
            }],
            2 => vec![CatalogStep {
                verb: *self.dice.pick(&[Verb::Delete, Verb::DeleteIf(index)]),
                thing: {
                    let node = *self.dice.pick(&NODES);
                    self.node_thing(node)
                },
            }],
            3 => (0..self.dice.between(1, 3))
                .map(|_| self.reading_catalog_step())
                .collect(),
            _ => (0..self.dice.between(1, 4))
                .map(|_| self.catalog_step())
                .collect(),
        };
        if self.dice.chance(15) {
            steps.push(self.reading_catalog_step());
        }
        let mut steps: Vec<Step> = steps.into_iter().map(Step::Catalog).collect();
        if self.with_keys && self.dice.chance(40) {
            let step = match self.dice.chance(60) {
                true => self.step(),
                false => self.reading_step(),
            };
            let place = self.dice.index(steps.len() + 1);
            steps.insert(place, step);
        }
        let ask = match self.dice.index(3) {
            0 => Ask::Nodes,
            1 => Ask::NodeChecks(node),
            _ => super::asks::health("db"),
        };
        (Op::Keys(KeyOp::Transact(steps)), ask)
    }

    /// A node with a TTL check of its own gets another name before that expires.
    pub(super) fn renamed_while_it_counts(&mut self, at_ms: u64) {
        let id = self.node_id();
        let place = self.dice.index(NODES.len());
        let registered = |name: &str, service: Option<&str>| {
            Op::CatalogRegister(CatalogEntry {
                node: name.to_owned(),
                address: "10.1.1.1".to_owned(),
                service: service.map(|service| ("apart".to_owned(), service.to_owned(), 80)),
                check: None,
                check_of: None,
                node_id: id.clone(),
                rack: None,
                spoils: None,
                keeps_node: false,
                elsewhere: service.is_some(),
            })
        };
        let named = |name: &str| registered(name, None);
        let (old, new) = (NODES[place], NODES[(place + 1) % NODES.len()]);
        let check = CatalogStep {
            verb: Verb::Set,
            thing: Thing::Check {
                node: old.to_owned(),
                id: "ping".to_owned(),
                instance: None,
                status: Some(CheckStatus::Passing),
                ttl_ms: 1_500 * self.pace.stretch,
            },
        };
        let check = Op::Keys(KeyOp::Transact(vec![Step::Catalog(check)]));
        // What is on the node may be in another namespace than its checks.
        let apart = self.dice.chance(40).then(|| registered(old, Some("web")));
        let steps = [Some(named(old)), Some(check), apart, Some(named(new))];
        self.chain(at_ms, steps.into_iter().flatten().collect());
    }

    /// Maintenance of an instance, or of the node of all that clients register; it ends in most cases.
    pub(super) fn maintenance(&mut self, at_ms: u64) {
        let planned = self.some_known();
        let of_node = self.dice.chance(25);
        let instance = match self.dice.chance(10) {
            true => "nobody".to_owned(),
            false => planned.service.id,
        };
        let of = (!of_node).then_some(instance);
        let reason = self.dice.chance(40).then(|| format!("reason-{}", self.version()));
        let begin = Maintenance {
            of: of.clone(),
            begins: true,
            reason,
        };
        let health = |passing| Ask::Health {
            service: planned.service.name.clone(),
            passing,
            tags: vec![],
        };
        let look = Op::Read {
            ask: health(self.dice.chance(50)),
            freshness: Freshness::Default,
        };
        self.chain(at_ms, vec![Op::Maintenance(begin), look]);
        if self.dice.chance(80) {
            let end = Maintenance {
                of,
                begins: false,
                reason: None,
            };
            let later = at_ms + self.dice.between(100, 1_500);
            self.chain(later, vec![Op::Maintenance(end)]);
        }
    }

    /// A node's id, or none, and its rack. There are as many ids as nodes, so that a node gets the name of the other one.
    pub(super) fn identity(&mut self) -> (String, Option<String>) {
        let id = match self.dice.chance(self.identified) {
            true => self.node_id(),
            false => String::new(),
        };
        let rack = *self
            .dice
            .weighted(&[(2, None), (1, Some("north")), (1, Some("south"))]);
        (id, rack.map(str::to_owned))
    }

    /// One of as many ids as there are nodes.
    fn node_id(&mut self) -> String {
        let number = self.dice.index(NODES.len());
        format!("40e4a748-2192-161a-0510-9bf59fe950b{number}")
    }

    /// A node with what is on it, in either form.
    pub(super) fn node_services(&mut self, node: &str) -> Ask {
        Ask::NodeServices {
            node: node.to_owned(),
            list: self.dice.chance(50),
        }
    }

    /// A question to the agent's API; sometimes about what is not there.
    pub(super) fn agent_ask(&mut self) -> AgentAsk {
        let planned = self.some_known();
        let there = self.dice.chance(90);
        let name = |name: String| if there { name } else { "nothing".to_owned() };
        let text = self.dice.chance(30);
        match *self.dice.weighted(&[(1, 0), (4, 1), (4, 2), (6, 3), (6, 4)]) {
            0 => AgentAsk::Datacenters,
            1 => AgentAsk::Services,
            2 => AgentAsk::Checks,
            3 => AgentAsk::HealthOf {
                id: name(planned.service.id),
                text,
            },
            _ => AgentAsk::HealthOfService {
                service: name(planned.service.name),
                text,
            },
        }
    }

    fn catalog_step(&mut self) -> CatalogStep {
        let thing = self.thing();
        let index = *self.dice.weighted(&[(8, LAST_SEEN), (2, 0), (1, 3)]);
        let verb = *self.dice.weighted(&[
            (4, Verb::Set),
            (4, Verb::SetIf(index)),
            (2, Verb::Delete),
            (2, Verb::DeleteIf(index)),
            (2, Verb::Get),
        ]);
        CatalogStep { verb, thing }
    }

    fn reading_catalog_step(&mut self) -> CatalogStep {
        CatalogStep {
            verb: Verb::Get,
            thing: self.thing(),
        }
    }

    fn catalog_node(&mut self) -> String {
        (*self
            .dice
            .weighted(&[(3, NODES[0]), (3, NODES[1]), (2, SHARED_NODE)]))
        .to_owned()
    }

    fn thing(&mut self) -> Thing {
        let node = self.catalog_node();
        match self.dice.index(5) {
            // The shared node is the servers' own.
            0 if node != SHARED_NODE => self.node_thing(&node),
            0..=2 => self.instance_thing(&node),
            _ => self.check_thing(&node),
        }
    }

    fn node_thing(&mut self, name: &str) -> Thing {
        Thing::Node {
            name: name.to_owned(),
            address: format!("10.1.1.{}", self.dice.between(1, 4)),
        }
    }

    fn instance_thing(&mut self, node: &str) -> Thing {
        Thing::Instance {
            node: node.to_owned(),
            id: instance_on(node),
            // It may move from one service to the other.
            service: (*self.dice.weighted(&[(5, "db"), (1, "web")])).to_owned(),
            port: 2_000 + u16::try_from(self.dice.between(0, 3)).unwrap_or(0),
        }
    }

    fn check_thing(&mut self, node: &str) -> Thing {
        // A check of the shared node itself would count for all instances that clients know.
        let of_instance = node == SHARED_NODE || self.dice.chance(60);
        let statuses = [
            None,
            Some(CheckStatus::Passing),
            Some(CheckStatus::Warning),
            Some(CheckStatus::Critical),
        ];
        Thing::Check {
            node: node.to_owned(),
            id: match of_instance {
                true => "db-check".to_owned(),
                false => "ping".to_owned(),
            },
            instance: of_instance.then(|| instance_on(node)),
            status: *self.dice.pick(&statuses),
            ttl_ms: *self.dice.weighted(&[(3, 0), (1, 800), (1, 1_500)]) * self.pace.stretch,
        }
    }
}

fn instance_on(node: &str) -> String {
    match node {
        SHARED_NODE => OF_TRANSACTIONS.to_owned(),
        node => format!("{node}-db"),
    }
}
