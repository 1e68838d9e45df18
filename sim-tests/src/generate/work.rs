//! Draws what clients do.

use sider_core::registry::CheckStatus;

use super::{BEGIN_MS, Dice, PATIENT_MS, Pace, catalog, keys, narrowing};
use crate::{
    agency,
    operation::{
        Apart, CatalogEntry, Damage, Freshness, Op, RegisterForm, Report, ReportForm, Service, Spoils,
        Target, TtlCheck,
    },
    schedule::{Action, Doing, Shape},
};

/// Nodes of the catalog's own registrations.
pub(super) const NODES: [&str; 2] = ["host-a", "host-b"];
pub(super) const SERVICES: [&str; 5] = ["web", "db", "cold", "nothing", agency::SERVICE];
pub(super) const TAGS: [&str; 3] = ["blue", "green", "Canary"];

/// A kind of operation.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Register,
    RegisterAgain,
    Deregister,
    Report,
    Heartbeat,
    BatchRegister,
    BatchRenew,
    Catalog,
    Read,
    StaleRead,
    WriteThenRead,
    Burst,
    Keys,
    Session,
    Transaction,
    CatalogTransaction,
    Maintenance,
    AgentRead,
    Backup,
}

const KINDS: [(Kind, u64); 19] = [
    (Kind::Register, 10),
    (Kind::RegisterAgain, 6),
    (Kind::Deregister, 6),
    (Kind::Report, 16),
    (Kind::Heartbeat, 6),
    (Kind::BatchRegister, 3),
    (Kind::BatchRenew, 4),
    (Kind::Catalog, 8),
    (Kind::Read, 14),
    (Kind::StaleRead, 8),
    (Kind::WriteThenRead, 14),
    (Kind::Burst, 5),
    (Kind::Backup, 2),
    (Kind::Keys, 18),
    (Kind::Session, 4),
    (Kind::Transaction, 8),
    (Kind::CatalogTransaction, 8),
    (Kind::Maintenance, 4),
    (Kind::AgentRead, 5),
];

pub(super) fn draw(dice: &mut Dice, cluster: &Shape, pace: Pace) -> Vec<Action> {
    let mut plan = Plan::new(dice, cluster, pace);
    plan.first_registrations();
    plan.renewals();
    if plan.with_keys {
        plan.lockers();
    }
    plan.followers();
    let enough = 100 + plan.dice.between(10, 50);
    while plan.operations() < usize::try_from(enough).unwrap_or(150) {
        let at_ms = plan.dice.between(BEGIN_MS + 200, pace.heal_ms + 300);
        plan.something(at_ms);
    }
    // The calm in the end has work, too, but nothing that renews a check.
    for _ in 0..plan.dice.between(4, 10) {
        let at_ms = plan.dice.between(pace.heal_ms + 2_500, pace.end_ms - 1_200);
        let op = plan.read(Freshness::Default);
        plan.chain(at_ms, vec![op]);
    }
    plan.streams();
    let mut actions = plan.actions;
    actions.sort_by_key(|action| (action.at_ms, action.client));
    actions
}

/// Somebody takes away what an agent has registered, or registers on its node what it does not know or has otherwise; it
/// must set that right.
pub(super) fn rob_the_agent(dice: &mut Dice, cluster: &Shape, pace: Pace, actions: &mut Vec<Action>) {
    for _ in 0..dice.between(1, 4) {
        let spoilt = Op::CatalogRegister(spoilt(dice));
        actions.push(Action {
            at_ms: dice.between(4_000, pace.heal_ms - 500),
            client: 0,
            patience_ms: PATIENT_MS,
            what: Doing::Chain(vec![(dice.server(cluster), spoilt)]),
        });
    }
    for _ in 0..dice.between(0, 4) {
        let node = agency::node(0);
        let service_id = match dice.index(6) {
            0 => None,
            1 => Some("renewed".to_owned()),
            2 => Some("probed".to_owned()),
            3 | 4 => Some(agency::TOLD.to_owned()),
            _ => Some("stranger".to_owned()),
        };
        let op = match service_id {
            Some(id) if dice.chance(40) => Op::CatalogRegister(CatalogEntry {
                node,
                address: (*dice.pick(&[agency::ADDRESS, agency::ADDRESS, "10.9.9.9"])).to_owned(),
                service: Some((id, agency::SERVICE.to_owned(), 66)),
                check: None,
                check_of: None,
                node_id: String::new(),
                rack: None,
                spoils: None,
                keeps_node: false,
                elsewhere: false,
            }),
            service_id => Op::CatalogDeregister {
                node,
                service_id,
                check_id: None,
            },
        };
        actions.push(Action {
            at_ms: dice.between(4_000, pace.heal_ms - 2_000),
            client: 0,
            patience_ms: PATIENT_MS,
            what: Doing::Chain(vec![(dice.server(cluster), op)]),
        });
    }
    actions.sort_by_key(|action| action.at_ms);
}

/// One of an agent's own instances, with one thing that is another.
fn spoilt(dice: &mut Dice) -> CatalogEntry {
    let spoils = *dice.pick(&Spoils::ALL);
    // Only what is probed has an output that the agent knows.
    let id = match spoils {
        spoils if spoils.is_of_check() => agency::PROBED,
        _ => dice.pick(&["renewed", agency::PROBED]),
    };
    let id = id.to_owned();
    let status = *dice.pick(&[CheckStatus::Passing, CheckStatus::Critical]);
    let check = match spoils {
        spoils if spoils.is_of_check() => Some((agency::check_of(&id), status, "spoilt".to_owned())),
        Spoils::MoreChecks => Some(("one-more".to_owned(), CheckStatus::Critical, String::new())),
        _ => None,
    };
    let port = if id == agency::PROBED { 2 } else { 1 };
    let service = match spoils {
        Spoils::Service => "stolen",
        _ => agency::SERVICE,
    };
    CatalogEntry {
        node: agency::node(0),
        address: agency::ADDRESS.to_owned(),
        service: Some((id, service.to_owned(), port)),
        check,
        check_of: None,
        node_id: String::new(),
        rack: None,
        spoils: Some(spoils),
        keeps_node: false,
        elsewhere: false,
    }
}

/// An instance that is registered, as far as the plan knows, and how.
#[derive(Clone)]
pub(super) struct Planned {
    pub(super) service: Service,
    pub(super) form: RegisterForm,
}

pub(super) struct Plan<'a> {
    pub(super) dice: &'a mut Dice,
    pub(super) cluster: &'a Shape,
    pub(super) pace: Pace,
    clients: u8,
    pub(super) kinds: Vec<(u64, Kind)>,
    /// Of a hundred clients' requests, so many are given up soon.
    impatient: u64,
    pub(super) known: Vec<Planned>,
    /// Whether there are keys and sessions in this world.
    pub(super) with_keys: bool,
    /// Of a hundred registrations of nodes, so many have an id, by which the node may get another name.
    pub(super) identified: u64,
    /// Of a hundred questions that can be narrowed, so many are.
    pub(super) narrowed: u64,
    /// Names of sessions that are created at some time.
    pub(super) sessions: Vec<String>,
    pub(super) next_version: u32,
    actions: Vec<Action>,
}

impl<'a> Plan<'a> {
    fn new(dice: &'a mut Dice, cluster: &'a Shape, pace: Pace) -> Self {
        // A third of the kinds is missing in each world.
        let with_keys = keys::are_drawn(dice);
        let of_keys = |kind: &Kind| matches!(kind, Kind::Keys | Kind::Session | Kind::Transaction);
        let kinds = KINDS
            .iter()
            .filter(|(kind, _)| dice.chance(67) && (with_keys || !of_keys(kind)))
            .map(|(kind, weight)| (*weight, *kind))
            .collect::<Vec<_>>();
        let kinds = kinds
            .into_iter()
            .map(|(weight, kind)| (catalog::rate(dice, kind, weight), kind))
            .collect();
        let clients = u8::try_from(dice.between(2, 6)).unwrap_or(3);
        let impatient = *dice.pick(&[0, 0, 10, 40]);
        let narrowed = narrowing::rate(dice);
        let identified = *dice.pick(&[0, 0, 40, 80]);
        let mut plan = Plan {
            dice,
            cluster,
            pace,
            clients,
            kinds,
            impatient,
            known: vec![],
            with_keys,
            identified,
            narrowed,
            sessions: vec![],
            next_version: 1,
            actions: vec![],
        };
        if plan.kinds.is_empty() {
            plan.kinds = vec![(1, Kind::WriteThenRead)];
        }
        plan
    }

    fn operations(&self) -> usize {
        let count = |action: &Action| match &action.what {
            Doing::Chain(ops) => ops.len(),
            Doing::Follow { .. } | Doing::Stream { .. } => 1,
        };
        self.actions.iter().map(count).sum()
    }

    pub(super) fn chain(&mut self, at_ms: u64, ops: Vec<Op>) {
        let ops = ops
            .into_iter()
            .map(|op| (self.dice.server(self.cluster), op))
            .collect();
        self.chain_at(at_ms, ops);
    }

    fn chain_at(&mut self, at_ms: u64, ops: Vec<(u8, Op)>) {
        let client = u8::try_from(self.dice.between(0, u64::from(self.clients))).unwrap_or(0);
        let impatient = self.dice.chance(self.impatient);
        let patience_ms = if impatient {
            self.dice.between(5, 700)
        } else {
            PATIENT_MS
        };
        self.actions.push(Action {
            at_ms,
            client,
            patience_ms,
            what: Doing::Chain(ops),
        });
    }

    pub(super) fn version(&mut self) -> u32 {
        self.next_version += 1;
        self.next_version
    }

    /// Instances of a hot service, a cool and a cold one.
    fn first_registrations(&mut self) {
        let hot = self.dice.between(2, 5);
        let ids = (0..hot).map(|n| ("web", format!("web-{n}")));
        let ids: Vec<_> = ids
            .chain([("db", "db-0".to_owned()), ("cold", "cold-0".to_owned())])
            .collect();
        for (name, id) in ids {
            let planned = self.planned(name, &id);
            let at_ms = self.dice.between(BEGIN_MS, BEGIN_MS + 400);
            let op = Op::Register {
                form: planned.form,
                services: vec![planned.service.clone()],
            };
            self.chain(at_ms, vec![op]);
            self.known.push(planned);
        }
    }

    pub(super) fn planned(&mut self, name: &str, id: &str) -> Planned {
        let form = *self.dice.weighted(&[
            (5, RegisterForm::Short),
            (4, RegisterForm::Consul),
            (2, RegisterForm::Replacing),
        ]);
        let checks = *self.dice.weighted(&[(1, 0), (6, 1), (2, 2)]);
        let service = Service {
            name: name.into(),
            id: id.into(),
            port: 1_000 + u16::try_from(self.dice.between(0, 4)).unwrap_or(0),
            tags: TAGS
                .iter()
                .filter(|_| self.dice.chance(35))
                .map(|tag| (*tag).to_owned())
                .collect(),
            version: self.version(),
            apart: Apart::Nothing,
            checks: (0..checks).map(|_| self.check(form)).collect(),
        };
        Planned { service, form }
    }

    fn check(&mut self, form: RegisterForm) -> TtlCheck {
        let passes = form != RegisterForm::Short && self.dice.chance(50);
        TtlCheck {
            // Some are not of a kind that is renewed.
            ttl_ms: *self
                .dice
                .weighted(&[(1, 0), (2, 400), (2, 800), (2, 1_200), (2, 1_500), (2, 2_000)])
                * self.pace.stretch,
            status: passes.then_some(CheckStatus::Passing),
            deregister_after_ms: if self.dice.chance(12) {
                self.dice.between(300, 2_500) * self.pace.stretch
            } else {
                0
            },
        }
    }

    /// Some instances are kept alive for a while, mostly through the same server.
    fn renewals(&mut self) {
        for planned in self.known.clone() {
            let ttls = planned.service.checks.iter().map(|check| check.ttl_ms);
            let Some(ttl_ms) = ttls.filter(|ttl_ms| *ttl_ms > 0).min() else {
                continue;
            };
            if self.dice.chance(20) {
                continue;
            }
            let until = self.dice.between(3_000, self.pace.heal_ms + 1_000);
            let mut server = self.dice.server(self.cluster);
            let mut at_ms = BEGIN_MS + 600;
            let mut left = 14;
            // Some come too late by a hair: while the check expires.
            let late = self.dice.chance(15);
            while at_ms < until && left > 0 {
                let op = self.renewal_of(&planned);
                self.chain_at(at_ms, vec![(server, op)]);
                if self.dice.chance(15) {
                    server = self.dice.server(self.cluster);
                }
                at_ms += match late {
                    true => ttl_ms + self.dice.between(0, 150),
                    false => ttl_ms * 2 / 3,
                };
                left -= 1;
            }
        }
    }

    /// What keeps all checks of an instance passing.
    fn renewal_of(&mut self, planned: &Planned) -> Op {
        let id = planned.service.id.clone();
        let checks = planned.service.check_ids(planned.form);
        let passing = |target| Report {
            target,
            status: CheckStatus::Passing,
            output: None,
        };
        match (checks.as_slice(), self.dice.index(3)) {
            ([check], 0) => Op::Report {
                form: ReportForm::Path,
                reports: vec![passing(Target::Check(check.clone()))],
            },
            (checks, 1) => {
                let reports = checks
                    .iter()
                    .map(|check| passing(Target::Check(check.clone())))
                    .collect();
                Op::Report {
                    form: ReportForm::Batch,
                    reports,
                }
            }
            _ => Op::Report {
                form: ReportForm::Heartbeat,
                reports: vec![passing(Target::Instance(id))],
            },
        }
    }

    fn followers(&mut self) {
        for _ in 0..self.dice.between(2, 6) {
            let ask = self.ask();
            let most_ms = self.dice.between(1, 3_000);
            let freshness = *self.dice.weighted(&[
                (5, Freshness::Default),
                (1, Freshness::Consistent),
                (2, Freshness::Stale),
                (1, Freshness::MaxStale(most_ms)),
            ]);
            let servers = self.servers();
            let at_ms = self.dice.between(BEGIN_MS, BEGIN_MS + 3_000);
            let client = u8::try_from(self.dice.between(0, u64::from(self.clients))).unwrap_or(0);
            self.actions.push(Action {
                at_ms,
                client,
                patience_ms: PATIENT_MS,
                what: Doing::Follow {
                    ask,
                    freshness,
                    wait_ms: *self.dice.pick(&[300, 1_000, 4_000, 10_000]) * self.pace.stretch,
                    until_ms: self.pace.end_ms - 600,
                    servers,
                },
            });
        }
    }

    /// One server, or all of them in turn.
    pub(super) fn servers(&mut self) -> Vec<u8> {
        let first = self.dice.server(self.cluster);
        if self.dice.chance(50) {
            (0..self.cluster.servers).collect()
        } else {
            vec![first]
        }
    }

    /// Some client does this.
    pub(super) fn does(&mut self, at_ms: u64, patience_ms: u64, what: Doing) {
        let client = u8::try_from(self.dice.between(0, u64::from(self.clients))).unwrap_or(0);
        self.actions.push(Action {
            at_ms,
            client,
            patience_ms,
            what,
        });
    }

    fn something(&mut self, at_ms: u64) {
        let kinds = self.kinds.clone();
        match *self.dice.weighted(&kinds) {
            Kind::Read => {
                let op = self.read(Freshness::Default);
                self.chain(at_ms, vec![op]);
            }
            Kind::StaleRead => {
                let freshness = match self.dice.chance(30) {
                    true => Freshness::MaxStale(self.dice.between(1, 3_000)),
                    false => Freshness::Stale,
                };
                let op = self.read(freshness);
                self.chain(at_ms, vec![op]);
            }
            Kind::WriteThenRead => {
                let (write, ask) = self.write();
                let ask = self.perhaps_narrowed(ask);
                let freshness = *self.dice.pick(&[Freshness::Default, Freshness::Consistent]);
                let again = Op::Read {
                    ask: ask.clone(),
                    freshness,
                };
                self.chain(at_ms, vec![write, Op::Read { ask, freshness }, again]);
            }
            // Some of the files are restored, some of them damaged: most lie in a drawer for ever.
            Kind::Backup => {
                let mut ops = match self.with_keys && self.dice.chance(40) {
                    true => self.lock_left_behind(),
                    false => vec![],
                };
                ops.push(Op::Save);
                self.chain(at_ms, ops);
                if self.dice.chance(60) {
                    let place = u16::try_from(self.dice.between(0, 1_000)).unwrap_or(0);
                    let whole = [
                        (3, Damage::None),
                        (2, Damage::Ahead(1 + place / 8)),
                        (1, Damage::CutOff(place)),
                        (1, Damage::Flipped(place)),
                    ];
                    let damage = *self.dice.weighted(&whole);
                    let later = at_ms + self.dice.between(200, 3_000);
                    let again = self.read(Freshness::Default);
                    self.chain(later, vec![Op::Restore { damage }, again]);
                    // Another one at the same time: one of them is given up, or both come about.
                    if self.dice.chance(25) {
                        let damage = Damage::Ahead(1 + place / 5);
                        let beside = later + self.dice.between(0, 30);
                        self.chain(beside, vec![Op::Restore { damage }]);
                    }
                }
            }
            // Many at the same moment, at one server or at all: what shares a round to the leader, or a sync.
            Kind::Burst => {
                let server = self.dice.server(self.cluster);
                let everywhere = self.dice.chance(50);
                for n in 0..self.dice.between(4, 9) {
                    let op = if self.dice.chance(50) {
                        self.write().0
                    } else {
                        self.read(Freshness::Default)
                    };
                    if everywhere {
                        self.chain(at_ms + n / 3, vec![op]);
                    } else {
                        self.chain_at(at_ms + n / 3, vec![(server, op)]);
                    }
                }
            }
            Kind::Catalog if self.identified > 0 && self.dice.chance(15) => {
                self.renamed_while_it_counts(at_ms)
            }
            Kind::Session if self.dice.chance(30) => self.session_of_a_node(at_ms),
            Kind::Maintenance => self.maintenance(at_ms),
            Kind::AgentRead => {
                let op = Op::AgentRead(self.agent_ask());
                self.chain(at_ms, vec![op]);
            }
            kind => {
                let (op, _) = self.write_of(kind);
                self.chain(at_ms, vec![op]);
            }
        }
    }
}
