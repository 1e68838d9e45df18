//! Draws members of a service mesh, and who looks for them.

use sider_core::registry::CheckStatus;

use super::{BEGIN_MS, Dice, PATIENT_MS, Pace, clients};
use crate::{
    operation::{
        Apart, Ask, Freshness, Op, PROXIED, RegisterForm, Report, ReportForm, Service, Target, TtlCheck,
    },
    schedule::{Action, Doing, Shape},
};

/// In so many of a hundred worlds there are members of a mesh, and who looks for them.
const WITH_A_MESH: u64 = 14;
/// The service whose instances are proxies, or members themselves.
const SIDECAR: &str = "sidecar";

/// In some worlds proxies come, change and go, and clients look for them once, and wait for others.
pub(super) fn draw(dice: &mut Dice, cluster: &Shape, pace: Pace, actions: &mut Vec<Action>) {
    if !dice.chance(WITH_A_MESH) {
        return;
    }
    let clients = clients(actions);
    let mut does = |dice: &mut Dice, at_ms: u64, what: Doing| {
        actions.push(Action {
            at_ms,
            client: u8::try_from(dice.between(0, clients)).unwrap_or(0),
            patience_ms: PATIENT_MS,
            what,
        });
    };
    for nth in 0..dice.between(6, 16) {
        let at_ms = match nth {
            0 => dice.between(BEGIN_MS, BEGIN_MS + 500),
            _ => dice.between(BEGIN_MS + 500, pace.heal_ms),
        };
        let write = change(dice, pace, nth);
        let look = Op::Read {
            ask: ask(dice),
            freshness: freshness(dice),
        };
        let ops = [write, look].map(|op| (dice.server(cluster), op));
        does(dice, at_ms, Doing::Chain(ops.into()));
    }
    for _ in 0..dice.between(1, 4) {
        let follow = Doing::Follow {
            ask: ask(dice),
            freshness: freshness(dice),
            wait_ms: *dice.pick(&[500, 2_000, 6_000]) * pace.stretch,
            until_ms: pace.end_ms - 600,
            servers: match dice.chance(50) {
                true => (0..cluster.servers).collect(),
                false => vec![dice.server(cluster)],
            },
        };
        let at_ms = dice.between(BEGIN_MS, BEGIN_MS + 2_000);
        does(dice, at_ms, follow);
    }
    for _ in 0..dice.between(2, 6) {
        let look = Op::Read {
            ask: ask(dice),
            freshness: freshness(dice),
        };
        let at_ms = dice.between(BEGIN_MS + 500, pace.end_ms - 1_200);
        let server = dice.server(cluster);
        does(dice, at_ms, Doing::Chain(vec![(server, look)]));
    }
    actions.sort_by_key(|action| (action.at_ms, action.client));
}

/// Of services that proxies are for, that are members themselves, or that nobody reaches.
fn ask(dice: &mut Dice) -> Ask {
    let service = (*dice.weighted(&[(6, PROXIED), (3, SIDECAR), (1, "web")])).to_owned();
    let checks = dice.chance(60);
    Ask::Connect {
        service,
        checks,
        passing: checks && dice.chance(40),
    }
}

fn freshness(dice: &mut Dice) -> Freshness {
    *dice.weighted(&[
        (5, Freshness::Default),
        (1, Freshness::Consistent),
        (2, Freshness::Stale),
    ])
}

/// A member comes, becomes another thing, goes, or reports.
fn change(dice: &mut Dice, pace: Pace, nth: u64) -> Op {
    let id = format!("sidecar-{}", dice.between(0, 3));
    match dice.index(8) {
        0 => Op::Deregister { id, service: None },
        1 | 2 => Op::Report {
            form: ReportForm::Path,
            reports: vec![Report {
                target: Target::Check(format!("service:{id}")),
                status: *dice.pick(&[CheckStatus::Passing, CheckStatus::Critical]),
                output: None,
            }],
        },
        _ => Op::Register {
            form: RegisterForm::Consul,
            services: vec![Service {
                name: SIDECAR.to_owned(),
                id,
                port: 4_000,
                tags: vec![],
                version: u32::try_from(920_000 + nth).unwrap_or(920_000),
                apart: *dice.weighted(&[(6, Apart::Proxy), (2, Apart::Native), (2, Apart::Nothing)]),
                checks: vec![TtlCheck {
                    ttl_ms: *dice.pick(&[1_500, 4_000]) * pace.stretch,
                    status: dice.chance(70).then_some(CheckStatus::Passing),
                    deregister_after_ms: 0,
                }],
            }],
        },
    }
}
