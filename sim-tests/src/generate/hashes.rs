//! Draws who waits for an instance to have another hash.

use sider_core::registry::CheckStatus;

use super::{BEGIN_MS, Dice, PATIENT_MS, Pace, clients};
use crate::{
    agent_reads::{AgentAsk, LAST_HASH},
    operation::{Apart, Op, RegisterForm, Report, ReportForm, Service, Target, TtlCheck},
    schedule::{Action, Doing, Shape},
};

/// In so many of a hundred worlds somebody waits for another hash.
const WITH_HASHES: u64 = 12;

/// In some worlds clients wait for other hashes of instances that become another, and the same again, report, and go.
pub(super) fn draw(dice: &mut Dice, cluster: &Shape, pace: Pace, actions: &mut Vec<Action>) {
    if !dice.chance(WITH_HASHES) {
        return;
    }
    let clients = clients(actions);
    let mut does = |dice: &mut Dice, at_ms: u64, ops: Vec<Op>| {
        actions.push(Action {
            at_ms,
            client: u8::try_from(dice.between(0, clients)).unwrap_or(0),
            patience_ms: PATIENT_MS,
            what: Doing::Chain(ops.into_iter().map(|op| (dice.server(cluster), op)).collect()),
        });
    };
    for nth in 0..2 {
        let at_ms = dice.between(BEGIN_MS, BEGIN_MS + 400);
        let op = register(dice, pace, &id(nth));
        does(dice, at_ms, vec![op]);
    }
    for _ in 0..dice.between(5, 14) {
        let at_ms = dice.between(BEGIN_MS + 500, pace.end_ms - 2_000);
        let id = id(dice.between(0, 2));
        let op = match dice.index(8) {
            0 => Op::Deregister { id, service: None },
            1 | 2 => Op::Report {
                form: ReportForm::Path,
                reports: vec![Report {
                    target: Target::Check(format!("service:{id}")),
                    status: *dice.pick(&[CheckStatus::Passing, CheckStatus::Warning]),
                    output: Some("it says so".to_owned()),
                }],
            },
            _ => register(dice, pace, &id),
        };
        does(dice, at_ms, vec![op]);
    }
    for _ in 0..dice.between(2, 6) {
        let at_ms = dice.between(BEGIN_MS + 500, pace.end_ms - 4_000);
        let id = id(dice.between(0, 2));
        let ask = |hash: &str, wait_ms: u64| {
            Op::AgentRead(AgentAsk::Service {
                id: id.clone(),
                hash: hash.to_owned(),
                wait_ms,
            })
        };
        let mut ops = vec![ask("", 0)];
        for _ in 0..dice.between(2, 6) {
            ops.push(ask(
                LAST_HASH,
                *dice.pick(&[300, 1_000, 3_000, 8_000]) * pace.stretch,
            ));
        }
        does(dice, at_ms, ops);
    }
    actions.sort_by_key(|action| (action.at_ms, action.client));
}

fn id(nth: u64) -> String {
    format!("hashed-{nth}")
}

/// One of few versions, so that it becomes again what it was.
fn register(dice: &mut Dice, pace: Pace, id: &str) -> Op {
    Op::Register {
        form: RegisterForm::Consul,
        services: vec![Service {
            name: "hashed".to_owned(),
            id: id.to_owned(),
            port: 5_000,
            tags: vec![],
            version: u32::try_from(930_000 + dice.between(0, 3)).unwrap_or(930_000),
            apart: match dice.chance(60) {
                true => Apart::Nothing,
                false => *dice.pick(&Apart::ALL),
            },
            checks: vec![TtlCheck {
                ttl_ms: *dice.pick(&[1_500, 6_000]) * pace.stretch,
                status: Some(CheckStatus::Passing),
                deregister_after_ms: 0,
            }],
        }],
    }
}
