//! Draws what clients ask for.

use sider_core::registry::CheckStatus;

use super::work::{NODES, Plan, SERVICES};
use crate::{
    invariants::servers,
    operation::{Ask, Freshness, Op},
};

/// What is asked for: all tags that are named must be there, in whatever case.
const TAGS_ASKED: [&str; 4] = ["blue", "green", "GREEN", "canary"];

impl Plan<'_> {
    pub(super) fn read(&mut self, freshness: Freshness) -> Op {
        let consistent = freshness == Freshness::Default && self.dice.chance(15);
        let freshness = if consistent {
            Freshness::Consistent
        } else {
            freshness
        };
        Op::Read {
            ask: self.ask(),
            freshness,
        }
    }

    pub(super) fn ask(&mut self) -> Ask {
        if self.with_keys && self.dice.chance(40) {
            return self.ask_of_keys();
        }
        let ask = self.ask_here();
        let ask = self.perhaps_narrowed(ask);
        match self.dice.chance(6) {
            // Only agents have something there; the services of both have one name.
            true => Ask::Elsewhere(Box::new(ask)),
            false => ask,
        }
    }

    pub(super) fn ask_here(&mut self) -> Ask {
        if self.cluster.servers_listed && self.dice.chance(12) {
            return self.ask_of_servers();
        }
        let service = (*self.dice.weighted(&[
            (6, SERVICES[0]),
            (3, SERVICES[1]),
            (1, SERVICES[2]),
            (1, SERVICES[3]),
            (1, SERVICES[4]),
        ]))
        .to_owned();
        let service = match self.dice.chance(4) {
            true => service.to_ascii_uppercase(),
            false => service,
        };
        let tags = *self.dice.weighted(&[(8, 0), (1, 1), (1, 2)]);
        let tags = (0..tags)
            .map(|_| (*self.dice.pick(&TAGS_ASKED)).to_owned())
            .collect();
        match *self.dice.weighted(&[
            (8, 0),
            (5, 1),
            (2, 2),
            (2, 3),
            (1, 4),
            (2, 5),
            (2, 6),
            (2, 7),
            (2, 8),
        ]) {
            0 => Ask::Health {
                service,
                passing: false,
                tags,
            },
            1 => Ask::Health {
                service,
                passing: true,
                tags,
            },
            2 => Ask::CatalogService { service, tags },
            3 => Ask::Services,
            4 => Ask::Nodes,
            5 => Ask::NodeChecks((*self.dice.pick(&["sider", NODES[0], NODES[1], "agent-0"])).to_owned()),
            6 => Ask::ServiceChecks(service),
            8 => {
                let node = *self.dice.pick(&["sider", NODES[0], NODES[1], "agent-0"]);
                self.node_services(node)
            }
            _ => {
                let statuses = [
                    None,
                    Some(CheckStatus::Passing),
                    Some(CheckStatus::Warning),
                    Some(CheckStatus::Critical),
                ];
                Ask::ChecksInState(*self.dice.pick(&statuses))
            }
        }
    }

    /// What only servers show that are in their own catalog.
    pub(super) fn ask_of_servers(&mut self) -> Ask {
        let service = servers::SERVICE.to_owned();
        match self.dice.index(4) {
            0 => Ask::NodeChecks(format!("s{}", self.dice.server(self.cluster))),
            1 => Ask::ServiceChecks(service),
            2 => Ask::CatalogService {
                service,
                tags: vec![],
            },
            _ => Ask::Health {
                service,
                passing: self.dice.chance(50),
                tags: vec![],
            },
        }
    }
}

pub(super) fn health(service: &str) -> Ask {
    Ask::Health {
        service: service.into(),
        passing: false,
        tags: vec![],
    }
}
