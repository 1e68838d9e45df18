//! Draws questions about single sessions, and sessions that end with a check, or in a transaction.

use sider_core::registry::CheckStatus;

use super::{BEGIN_MS, Dice, PATIENT_MS, Pace, clients};
use crate::{
    keys::{KeyOp, NewSession, Step},
    operation::{Apart, Ask, Freshness, Op, RegisterForm, Report, ReportForm, Service, Target, TtlCheck},
    schedule::{Action, Doing, Shape},
};

/// In so many of a hundred worlds with sessions some are bound to one check.
const WITH_BONDS: u64 = 25;

/// Where there are sessions, some are asked for by their id, and some end in a transaction, which may be refused.
pub(super) fn draw(dice: &mut Dice, cluster: &Shape, pace: Pace, actions: &mut Vec<Action>) {
    let names: Vec<(u64, String)> = actions
        .iter()
        .filter_map(|action| match &action.what {
            Doing::Chain(ops) => Some((action.at_ms, ops)),
            _ => None,
        })
        .flat_map(|(at_ms, ops)| {
            ops.iter().filter_map(move |(_, op)| match op {
                Op::Keys(KeyOp::CreateSession(new)) => Some((at_ms, new.name.clone())),
                _ => None,
            })
        })
        .collect();
    if names.is_empty() {
        return;
    }
    let clients = clients(actions);
    end_some(dice, &names, actions);
    if dice.chance(WITH_BONDS) {
        for nth in 0..dice.between(1, 4) {
            bound(dice, cluster, pace, nth, actions);
        }
    }
    for _ in 0..dice.between(0, 4) {
        let (from_ms, name) = dice.pick(&names).clone();
        let ask = Ask::Session(name);
        let freshness = *dice.pick(&[Freshness::Default, Freshness::Stale, Freshness::Consistent]);
        let begin_ms = from_ms + 300;
        let client = u8::try_from(dice.between(0, clients)).unwrap_or(0);
        let what = match dice.chance(50) {
            true => Doing::Follow {
                ask,
                freshness,
                wait_ms: *dice.pick(&[1_000, 4_000]) * pace.stretch,
                until_ms: pace.end_ms - 600,
                servers: (0..cluster.servers).collect(),
            },
            false => Doing::Chain(vec![(dice.server(cluster), Op::Read { ask, freshness })]),
        };
        actions.push(Action {
            at_ms: begin_ms,
            client,
            patience_ms: PATIENT_MS,
            what,
        });
    }
    actions.sort_by_key(|action| (action.at_ms, action.client));
}

/// Sessions that are bound to one check, each with a lock, and what ends them all: the check turns critical, or is gone, alone or
/// with its instance.
fn bound(dice: &mut Dice, cluster: &Shape, pace: Pace, nth: u64, actions: &mut Vec<Action>) {
    let id = format!("bond-{nth}");
    let service = Service {
        name: "bond".into(),
        id: id.clone(),
        port: 3_001,
        tags: vec![],
        version: u32::try_from(950_000 + nth).unwrap_or(950_000),
        apart: Apart::Nothing,
        checks: vec![TtlCheck {
            ttl_ms: 0,
            status: Some(CheckStatus::Passing),
            deregister_after_ms: 0,
        }],
    };
    let form = RegisterForm::Consul;
    let check = service.check_ids(form).pop().unwrap_or_default();
    let register = Op::Register {
        form,
        services: vec![service],
    };
    let mut ops = vec![register];
    for holder in 0..dice.between(1, 4) {
        let name = format!("bound-{nth}-{holder}");
        let of_service = dice.chance(50);
        let those = |wanted: bool| wanted.then(|| check.clone()).into_iter().collect();
        let new = NewSession {
            name: name.clone(),
            ttl_ms: 0,
            lock_delay_ms: *dice.pick(&[0, 300]) * pace.stretch,
            deletes: dice.chance(50),
            checks: those(!of_service),
            service_checks: those(of_service),
            node: String::new(),
        };
        let lock = Step::Lock(format!("bound/{nth}/{holder}"), format!("held-{nth}"), name);
        ops.extend([KeyOp::CreateSession(new), KeyOp::One(lock)].map(Op::Keys));
    }
    ops.push(match dice.index(4) {
        0 => Op::Deregister {
            id: id.clone(),
            service: None,
        },
        1 | 2 => Op::DeregisterCheck { check },
        _ => Op::Report {
            form: ReportForm::Path,
            reports: vec![Report {
                target: Target::Check(check),
                status: CheckStatus::Critical,
                output: None,
            }],
        },
    });
    ops.push(Op::Read {
        ask: Ask::Sessions,
        freshness: Freshness::Default,
    });
    actions.push(Action {
        at_ms: dice.between(BEGIN_MS + 500, pace.heal_ms),
        client: 0,
        patience_ms: PATIENT_MS,
        what: Doing::Chain(ops.into_iter().map(|op| (dice.server(cluster), op)).collect()),
    });
}

/// Some transactions end a session, too, before or after what they do else.
fn end_some(dice: &mut Dice, names: &[(u64, String)], actions: &mut [Action]) {
    for action in actions {
        let Doing::Chain(ops) = &mut action.what else {
            continue;
        };
        for (_, op) in ops {
            if let Op::Keys(KeyOp::Transact(steps)) = op
                && dice.chance(10)
            {
                // One that there may be by then.
                let earlier = names.iter().filter(|(at_ms, _)| *at_ms < action.at_ms);
                let earlier: Vec<&String> = earlier.map(|(_, name)| name).collect();
                if !earlier.is_empty() {
                    let name = (*dice.pick(&earlier)).clone();
                    let place = dice.index(steps.len() + 1);
                    steps.insert(place, Step::EndSession(name));
                }
            }
        }
    }
}
