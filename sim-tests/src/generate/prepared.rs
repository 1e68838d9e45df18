//! Draws what clients do with prepared queries.

use sider_core::registry::CheckStatus;

use super::{BEGIN_MS, Dice, PATIENT_MS, Pace, clients, work::NODES};
use crate::{
    operation::{Ask, Freshness, Op, Report, ReportForm, Target},
    prepared::{PreparedOp, SUFFIX, Wanted},
    schedule::{Action, Doing, Shape},
};

/// In so many of a hundred worlds there are prepared queries.
const WITH_QUERIES: u64 = 30;

const NAMES: [&str; 4] = ["near", "near-", "far", ""];
const ASKED: [&str; 5] = ["near", "near-web", "near-db", "far", "nowhere"];
const TAGS: [&str; 4] = ["blue", "GREEN", "!green", "!canary"];

struct Plan<'a> {
    dice: &'a mut Dice,
    cluster: &'a Shape,
    labels: Vec<String>,
    version: u32,
}

/// In some worlds clients prepare queries, change and delete them, and execute them meanwhile.
pub(super) fn draw(dice: &mut Dice, cluster: &Shape, pace: Pace, actions: &mut Vec<Action>) {
    if !dice.chance(WITH_QUERIES) {
        return;
    }
    let clients = clients(actions);
    let mut plan = Plan {
        dice,
        cluster,
        labels: vec![],
        version: 0,
    };
    // Where they are changed all the time an answer of two moments is seen.
    let mostly_writes = plan.dice.chance(40);
    for nth in 0..plan.dice.between(6, 15) {
        let at_ms = match nth {
            0 => plan.dice.between(BEGIN_MS, BEGIN_MS + 1_000),
            _ => plan.dice.between(BEGIN_MS + 500, pace.heal_ms + 300),
        };
        let mut ops = vec![if nth < 2 {
            plan.create()
        } else {
            plan.something(mostly_writes)
        }];
        if plan.dice.chance(70) {
            ops.push(plan.question());
        }
        // Beside each other, at other servers: what one reads while the other writes.
        let beside = plan.dice.chance(50).then(|| plan.question());
        let each = [Some(ops), beside.map(|op| vec![op])];
        for ops in each.into_iter().flatten() {
            let client = u8::try_from(plan.dice.between(0, clients)).unwrap_or(0);
            let ops = ops
                .into_iter()
                .map(|op| (plan.dice.server(plan.cluster), op))
                .collect();
            actions.push(Action {
                at_ms,
                client,
                patience_ms: PATIENT_MS,
                what: Doing::Chain(ops),
            });
        }
    }
    if mostly_writes {
        for _ in 0..plan.dice.between(3, 9) {
            let at_ms = plan.dice.between(BEGIN_MS + 1_500, pace.heal_ms + 300);
            for (after_ms, op) in plan.race() {
                let to = plan.dice.server(plan.cluster);
                actions.push(Action {
                    at_ms: at_ms + after_ms,
                    client: u8::try_from(plan.dice.between(0, clients)).unwrap_or(0),
                    patience_ms: PATIENT_MS,
                    what: Doing::Chain(vec![(to, op)]),
                });
            }
        }
    }
    if plan.dice.chance(50) {
        actions.push(Action {
            at_ms: plan.dice.between(BEGIN_MS, BEGIN_MS + 3_000),
            client: 0,
            patience_ms: PATIENT_MS,
            what: Doing::Follow {
                ask: Ask::Queries,
                freshness: *plan.dice.pick(&[Freshness::Default, Freshness::Stale]),
                wait_ms: *plan.dice.pick(&[1_000, 4_000]) * pace.stretch,
                until_ms: pace.end_ms - 600,
                servers: (0..cluster.servers).collect(),
            },
        });
    }
    actions.sort_by_key(|action| (action.at_ms, action.client));
}

impl Plan<'_> {
    fn wanted(&mut self) -> Wanted {
        self.version += 1;
        let name = (*self.dice.pick(&NAMES)).to_owned();
        let template = name == "near-";
        let service = match template && self.dice.chance(70) {
            true => SUFFIX,
            false => *self.dice.pick(&["web", "web", "db"]),
        };
        let check = format!("chk:web-{}:0", self.dice.between(0, 3));
        Wanted {
            name,
            template,
            service: service.to_owned(),
            only_passing: self.dice.chance(40),
            tags: match self.dice.chance(30) {
                true => vec![(*self.dice.pick(&TAGS)).to_owned()],
                false => vec![],
            },
            ignored_checks: if self.dice.chance(25) { vec![check] } else { vec![] },
            near: match self.version % 3 {
                0 => String::new(),
                host => NODES[host as usize - 1].to_owned(),
            },
            version: self.version,
        }
    }

    /// A query is executed at several servers while its definition changes, and right after that the health of what it found
    /// before: an answer that is made of two moments shows.
    fn race(&mut self) -> Vec<(u64, Op)> {
        let query = self.some_query();
        let update = Op::Prepared(PreparedOp::Update {
            query: query.clone(),
            wanted: self.wanted(),
        });
        let mut ops = vec![(self.dice.between(0, 3), update)];
        let id = format!("web-{}", self.dice.between(0, 4));
        ops.extend([CheckStatus::Critical, CheckStatus::Passing].map(|status| {
            let report = Report {
                target: Target::Instance(id.clone()),
                status,
                output: None,
            };
            let op = Op::Report {
                form: ReportForm::Batch,
                reports: vec![report],
            };
            (self.dice.between(1, 8), op)
        }));
        for _ in 0..3 {
            let op = PreparedOp::Execute {
                query: query.clone(),
                limit: 0,
            };
            ops.push((self.dice.between(0, 4), Op::Prepared(op)));
        }
        ops
    }

    fn create(&mut self) -> Op {
        let label = format!("query-{}", self.labels.len());
        self.labels.push(label.clone());
        let wanted = self.wanted();
        Op::Prepared(PreparedOp::Create { label, wanted })
    }

    fn something(&mut self, mostly_writes: bool) -> Op {
        let (writes, reads) = if mostly_writes { (3, 1) } else { (1, 2) };
        match *self
            .dice
            .weighted(&[(writes, 0), (writes * 2, 1), (writes, 2), (reads * 3, 3)])
        {
            0 => self.create(),
            1 => {
                let (query, wanted) = (self.some_query(), self.wanted());
                Op::Prepared(PreparedOp::Update { query, wanted })
            }
            2 => Op::Prepared(PreparedOp::Delete {
                query: self.some_query(),
            }),
            _ => self.question(),
        }
    }

    /// A query by its label; sometimes one that never was.
    fn some_query(&mut self) -> String {
        match self.labels.is_empty() || self.dice.chance(5) {
            true => "no-query".into(),
            false => self.dice.pick(&self.labels.clone()).clone(),
        }
    }

    fn question(&mut self) -> Op {
        let query = match self.dice.chance(50) {
            true => (*self.dice.pick(&ASKED)).to_owned(),
            false => self.some_query(),
        };
        match *self.dice.weighted(&[(6, 0), (1, 1), (1, 2), (1, 3)]) {
            0 => Op::Prepared(PreparedOp::Execute {
                query,
                limit: *self.dice.weighted(&[(4, 0), (1, 1), (1, 2)]),
            }),
            1 => Op::Prepared(PreparedOp::Explain { query }),
            2 => Op::Prepared(PreparedOp::Get {
                query: self.some_query(),
            }),
            _ => Op::Read {
                ask: Ask::Queries,
                freshness: *self.dice.pick(&[Freshness::Default, Freshness::Stale]),
            },
        }
    }
}
