//! Draws what clients write to the catalog, each with a question that shows it.

use sider_core::registry::CheckStatus;

use super::{
    asks::health,
    work::{Kind, NODES, Plan, Planned},
};
use crate::operation::{
    Apart, Ask, CatalogEntry, Op, RegisterForm, Report, ReportForm, Service, Target, TtlCheck,
};

impl Plan<'_> {
    /// Some write, and a question that shows it.
    pub(super) fn write(&mut self) -> (Op, Ask) {
        if self.with_keys && self.dice.chance(35) {
            let kinds = [(4, Kind::Keys), (2, Kind::Transaction), (1, Kind::Session)];
            let kind = *self.dice.weighted(&kinds);
            return self.write_of(kind);
        }
        let kind = *self.dice.weighted(&[
            (4, Kind::Register),
            (2, Kind::Deregister),
            (4, Kind::Report),
            (1, Kind::BatchRegister),
            (1, Kind::Catalog),
            (1, Kind::CatalogTransaction),
        ]);
        self.write_of(kind)
    }

    pub(super) fn write_of(&mut self, kind: Kind) -> (Op, Ask) {
        match kind {
            Kind::RegisterAgain => {
                let mut planned = self.some_known();
                // As it was, or with one thing that is another.
                if self.dice.chance(50) {
                    planned.service.apart = *self.dice.pick(&Apart::ALL);
                    self.remember(planned.clone());
                }
                let ask = health(&planned.service.name);
                (
                    Op::Register {
                        form: planned.form,
                        services: vec![planned.service],
                    },
                    ask,
                )
            }
            Kind::Deregister => self.deregistration(),
            Kind::Report => self.report(),
            Kind::Heartbeat => {
                let planned = self.some_known();
                let target = Target::Instance(planned.service.id.clone());
                let report = Report {
                    target,
                    status: CheckStatus::Passing,
                    output: None,
                };
                let op = Op::Report {
                    form: ReportForm::Heartbeat,
                    reports: vec![report],
                };
                (op, health(&planned.service.name))
            }
            Kind::BatchRegister => {
                let services: Vec<Service> = (0..self.dice.between(1, 4))
                    .map(|n| {
                        let name = *self.dice.pick(&["web", "db"]);
                        let planned = self.planned(name, &format!("{name}-b{n}"));
                        let checks = planned.service.checks.into_iter();
                        let checks = checks
                            .map(|check| TtlCheck {
                                status: None,
                                ..check
                            })
                            .collect();
                        Service {
                            checks,
                            ..planned.service
                        }
                    })
                    .collect();
                for service in &services {
                    self.remember(Planned {
                        service: service.clone(),
                        form: RegisterForm::Batch,
                    });
                }
                let ask = health(&services[0].name);
                (
                    Op::Register {
                        form: RegisterForm::Batch,
                        services,
                    },
                    ask,
                )
            }
            Kind::BatchRenew => {
                let reports = (0..self.dice.between(1, 5)).map(|_| self.one_report()).collect();
                (
                    Op::Report {
                        form: ReportForm::Batch,
                        reports,
                    },
                    Ask::ChecksInState(None),
                )
            }
            Kind::Catalog => self.catalog(),
            Kind::Keys => self.keys(),
            Kind::Session => self.session(),
            Kind::Transaction => self.transaction(),
            Kind::CatalogTransaction => self.catalog_transaction(),
            _ => {
                let name = *self.dice.pick(&["web", "web", "db"]);
                // An id may move from one service to another.
                let family = if self.dice.chance(8) { "db" } else { name };
                let id = format!("{family}-{}", self.dice.between(0, 5));
                let planned = self.planned(name, &id);
                if self.dice.chance(8) {
                    let form = RegisterForm::Elsewhere;
                    let services = vec![planned.service];
                    return (Op::Register { form, services }, health(name));
                }
                self.remember(planned.clone());
                (
                    Op::Register {
                        form: planned.form,
                        services: vec![planned.service],
                    },
                    health(name),
                )
            }
        }
    }

    pub(super) fn remember(&mut self, planned: Planned) {
        self.known.retain(|it| it.service.id != planned.service.id);
        self.known.push(planned);
    }

    pub(super) fn some_known(&mut self) -> Planned {
        self.dice.pick(&self.known.clone()).clone()
    }

    pub(super) fn deregistration(&mut self) -> (Op, Ask) {
        let planned = self.some_known();
        let ask = health(&planned.service.name);
        let checks = planned.service.check_ids(planned.form);
        let op = match (self.dice.index(6), checks.first()) {
            (0, Some(check)) => Op::DeregisterCheck { check: check.clone() },
            // Of the right service, or of another one: then it must be refused.
            (1, _) => {
                let service = Some((*self.dice.pick(&["web", "db"])).to_owned());
                Op::Deregister {
                    id: planned.service.id,
                    service,
                }
            }
            _ => Op::Deregister {
                id: planned.service.id,
                service: None,
            },
        };
        (op, ask)
    }

    pub(super) fn report(&mut self) -> (Op, Ask) {
        let report = self.one_report();
        let ask = Ask::ChecksInState(self.dice.chance(50).then_some(report.status));
        let form = match (&report.target, self.dice.chance(60)) {
            (Target::Instance(_), _) => ReportForm::Batch,
            (Target::Check(_), true) => ReportForm::Path,
            (Target::Check(_), false) => ReportForm::Update,
        };
        let mut reports = vec![report];
        // Two about the same in one call: the second is the newer one.
        if form == ReportForm::Batch || self.dice.chance(15) {
            let another = self.one_report();
            let target = reports[0].target.clone();
            reports.push(Report { target, ..another });
        }
        let form = if reports.len() > 1 {
            ReportForm::Batch
        } else {
            form
        };
        (Op::Report { form, reports }, ask)
    }

    pub(super) fn one_report(&mut self) -> Report {
        let planned = self.some_known();
        let checks = planned.service.check_ids(planned.form);
        let target = match checks.is_empty() || self.dice.chance(10) {
            true => Target::Instance(planned.service.id),
            false => Target::Check(self.dice.pick(&checks).clone()),
        };
        let statuses = [
            (6, CheckStatus::Passing),
            (2, CheckStatus::Warning),
            (2, CheckStatus::Critical),
        ];
        Report {
            target,
            status: *self.dice.weighted(&statuses),
            output: self.dice.chance(30).then(|| match self.dice.chance(40) {
                // What a check said before it may say again.
                true => format!("output-{}", self.dice.pick(&["a", "b"])),
                false => format!("output-{}", self.next_version),
            }),
        }
    }

    pub(super) fn catalog(&mut self) -> (Op, Ask) {
        let node = (*self.dice.pick(&NODES)).to_owned();
        let ask = match self.dice.chance(50) {
            true => Ask::NodeChecks(node.clone()),
            false => self.node_services(&node),
        };
        let (node_id, rack) = self.identity();
        let service = self.dice.chance(70).then(|| {
            let port = 2_000 + u16::try_from(self.dice.between(0, 3)).unwrap_or(0);
            (format!("{node}-db"), "db".to_owned(), port)
        });
        // Of an instance that may not be there.
        let check_of = (service.is_none() && self.dice.chance(30)).then(|| format!("{node}-db"));
        let check = self.dice.chance(60).then(|| {
            let statuses = [CheckStatus::Passing, CheckStatus::Warning, CheckStatus::Critical];
            let id = match (&service, &check_of) {
                (None, None) if self.dice.chance(70) => "ping",
                // It may move from the instance to the node, and back.
                _ => "db-check",
            };
            (
                id.to_owned(),
                *self.dice.pick(&statuses),
                format!("output-{}", self.version()),
            )
        });
        if self.dice.chance(35) {
            let service_id = self.dice.chance(50).then(|| format!("{node}-db"));
            let check_id = (service_id.is_none() && self.dice.chance(40)).then(|| "ping".to_owned());
            return (
                Op::CatalogDeregister {
                    node,
                    service_id,
                    check_id,
                },
                Ask::Nodes,
            );
        }
        let address = format!("10.1.1.{}", self.dice.between(1, 4));
        (
            Op::CatalogRegister(CatalogEntry {
                node,
                address,
                service,
                check,
                check_of,
                node_id,
                rack,
                spoils: None,
                keeps_node: false,
                elsewhere: false,
            }),
            ask,
        )
    }
}
