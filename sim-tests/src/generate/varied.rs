//! Variations of what was drawn, drawn beside it, so that the rest of each seed's world stays as it was: registrations that
//! leave a node as it is, checks that move between an instance and its node without a status, what an expiry has left
//! as an output, and questions that want two pairs of node meta. And instances that are replaced in the very moment in which
//! their check expires, or takes them away; transactions after which everything is as it was; and outputs that become again what
//! they were while another is being written.

use super::{BEGIN_MS, Dice, PATIENT_MS, Pace, work::NODES};
use crate::{
    catalog_steps::{CatalogStep, Thing, Verb},
    keys::{KeyOp, Step},
    operation::{
        Apart, Ask, CatalogEntry, Freshness, Op, RegisterForm, Report, ReportForm, Service, Target, TtlCheck,
    },
    promised::OUTPUT_HOLD,
    schedule::{Action, Doing, Shape},
};
use sider_core::registry::CheckStatus;

/// In so many of a hundred worlds instances are replaced while their checks expire.
const WITH_REPLACEMENTS: u64 = 15;
/// In so many of a hundred worlds things become what they were within a transaction.
const WITH_RETURNS: u64 = 12;
/// In so many of a hundred worlds a node's own check says something else, and that is all.
const WITH_OUTPUTS: u64 = 25;
/// In so many of a hundred worlds an output becomes again what it was while another is being written.
const WITH_TALK: u64 = 12;
/// The checks that move about.
const MOVING: &str = "db-check";

/// Varies what is there, and adds what is done at one moment by two clients.
pub(super) fn draw(dice: &mut Dice, cluster: &Shape, pace: Pace, actions: &mut Vec<Action>) {
    for action in actions.iter_mut() {
        match &mut action.what {
            Doing::Chain(ops) => ops.iter_mut().for_each(|(_, op)| vary(dice, op)),
            Doing::Follow { ask, .. } | Doing::Stream { ask, .. } => vary_ask(dice, ask),
        }
    }
    if dice.chance(WITH_REPLACEMENTS) {
        for nth in 0..dice.between(2, 5) {
            replace_while_it_is_due(dice, cluster, pace, nth, actions);
        }
    }
    if dice.chance(WITH_TALK) {
        for nth in 0..3 {
            talk_while_it_is_written(dice, cluster, pace, nth, actions);
        }
    }
    if dice.chance(WITH_RETURNS) {
        back_and_forth(dice, cluster, pace, actions);
    }
    if dice.chance(WITH_OUTPUTS) {
        other_outputs(dice, cluster, pace, actions);
    }
    actions.sort_by_key(|action| (action.at_ms, action.client));
}

/// A node's own check says something else, and nothing else changes: whoever has asked before must not be told the same.
fn other_outputs(dice: &mut Dice, cluster: &Shape, pace: Pace, actions: &mut Vec<Action>) {
    let node = (*dice.pick(&NODES)).to_owned();
    let look = Op::Read {
        ask: Ask::NodeChecks(node.clone()),
        freshness: *dice.pick(&[Freshness::Default, Freshness::Stale]),
    };
    let says = |nth: u64| {
        Op::CatalogRegister(CatalogEntry {
            node: node.clone(),
            address: "10.1.1.1".to_owned(),
            service: None,
            check: Some(("ping".to_owned(), CheckStatus::Passing, format!("said-{nth}"))),
            check_of: None,
            node_id: String::new(),
            rack: None,
            spoils: None,
            keeps_node: true,
            elsewhere: false,
        })
    };
    let ops = (0..3).flat_map(|nth| [says(nth), look.clone()]);
    // One that answers from what it has kept.
    let server = dice.server(cluster);
    actions.push(Action {
        at_ms: dice.between(BEGIN_MS + 500, pace.heal_ms),
        client: 0,
        patience_ms: PATIENT_MS,
        what: Doing::Chain(ops.map(|op| (server, op)).collect()),
    });
}

/// Things become another and what they were again, in one transaction: then nothing has changed.
fn back_and_forth(dice: &mut Dice, cluster: &Shape, pace: Pace, actions: &mut Vec<Action>) {
    let with_keys = actions.iter().any(|action| {
        matches!(&action.what, Doing::Chain(ops)
            if ops.iter().any(|(_, op)| matches!(op, Op::Keys(KeyOp::One(Step::Set(..))))))
    });
    let set = |thing: Thing| {
        let verb = Verb::Set;
        Step::Catalog(CatalogStep { verb, thing })
    };
    for nth in 0..dice.between(3, 7) {
        let on = (*dice.pick(&NODES)).to_owned();
        let node = |address: &str| {
            set(Thing::Node {
                name: on.clone(),
                address: address.to_owned(),
            })
        };
        let instance = |port: u16| {
            set(Thing::Instance {
                node: on.clone(),
                id: format!("{on}-db"),
                service: "db".to_owned(),
                port,
            })
        };
        let key = |value: &str| Step::Set("k/a".to_owned(), value.to_owned());
        let (before, between, after) = match dice.index(if with_keys { 3 } else { 2 }) {
            0 => (vec![node("10.1.1.1")], node("10.1.1.2"), node("10.1.1.1")),
            1 => (
                vec![node("10.1.1.1"), instance(2_000)],
                instance(2_001),
                instance(2_000),
            ),
            _ => (vec![key("again")], key(&format!("between-{nth}")), key("again")),
        };
        let transactions = [before, vec![between, after]];
        let ops = transactions.map(|steps| (dice.server(cluster), Op::Keys(KeyOp::Transact(steps))));
        actions.push(Action {
            at_ms: dice.between(BEGIN_MS + 500, pace.heal_ms),
            client: 0,
            patience_ms: PATIENT_MS,
            what: Doing::Chain(ops.into()),
        });
    }
}

fn vary(dice: &mut Dice, op: &mut Op) {
    match op {
        Op::CatalogRegister(entry) if NODES.contains(&entry.node.as_str()) => {
            entry.keeps_node = dice.chance(15);
        }
        Op::Keys(KeyOp::Transact(steps)) => steps.iter_mut().for_each(|step| {
            if let Step::Catalog(CatalogStep {
                thing:
                    Thing::Check {
                        node,
                        id,
                        instance,
                        status,
                        ..
                    },
                ..
            }) = step
                && id == MOVING
                && NODES.contains(&node.as_str())
                && dice.chance(35)
            {
                *status = None;
                if dice.chance(60) {
                    *instance = None;
                }
            }
        }),
        // Who has read what an expired check says may report that again.
        Op::Report { reports, .. } => reports.iter_mut().for_each(|report| {
            if report.output.is_some() && dice.chance(12) {
                report.output = Some("TTL expired; last output: again".to_owned());
            }
        }),
        Op::Read { ask, .. } | Op::Wait { ask, .. } => vary_ask(dice, ask),
        _ => {}
    }
}

fn vary_ask(dice: &mut Dice, ask: &mut Ask) {
    match ask {
        Ask::Elsewhere(ask) => vary_ask(dice, ask),
        // Nobody has both.
        Ask::Narrowed { by, .. } if by.node_meta.len() == 1 && dice.chance(20) => {
            let (key, value) = by.node_meta[0].clone();
            let other = if value == "north" { "south" } else { "north" };
            by.node_meta.push((key, other.to_owned()));
        }
        _ => {}
    }
}

/// An instance is registered, and at the moment at which its check is due to expire, or to take it away, it is deregistered by
/// one client and registered by another, at nearly the same time and through the same server.
fn replace_while_it_is_due(
    dice: &mut Dice,
    cluster: &Shape,
    pace: Pace,
    nth: u64,
    actions: &mut Vec<Action>,
) {
    let expires = dice.chance(50);
    let ms = *dice.pick(&[400, 800]) * pace.stretch;
    let check = match expires {
        true => TtlCheck {
            ttl_ms: ms,
            status: Some(CheckStatus::Passing),
            deregister_after_ms: 0,
        },
        false => TtlCheck {
            ttl_ms: 0,
            status: Some(CheckStatus::Critical),
            deregister_after_ms: ms,
        },
    };
    let id = format!("fleeting-{nth}");
    let register = |version: u64| Op::Register {
        form: RegisterForm::Consul,
        services: vec![Service {
            name: "fleeting".into(),
            id: id.clone(),
            port: 3_000,
            tags: vec![],
            version: u32::try_from(900_000 + nth * 100 + version).unwrap_or(900_000),
            apart: Apart::Nothing,
            checks: vec![check.clone()],
        }],
    };
    let deregister = || Op::Deregister {
        id: id.clone(),
        service: None,
    };
    let server = dice.server(cluster);
    let mut at_ms = dice.between(
        BEGIN_MS + 500,
        pace.heal_ms.saturating_sub(4_000).max(BEGIN_MS + 600),
    );
    let mut act = |at_ms: u64, client: u8, op: Op| {
        actions.push(Action {
            at_ms,
            client,
            patience_ms: PATIENT_MS,
            what: Doing::Chain(vec![(server, op)]),
        });
    };
    act(at_ms, 0, register(0));
    for version in 1..dice.between(3, 7) {
        // Its time begins when it is applied, and what is due is looked for every few milliseconds.
        at_ms += ms + dice.between(0, 60);
        act(at_ms, 0, deregister());
        act(at_ms + dice.between(0, 3), 1, register(version));
    }
}

/// A check says something; then something else, which is held back and written later; and what it said at first again, at about
/// that very moment.
fn talk_while_it_is_written(
    dice: &mut Dice,
    cluster: &Shape,
    pace: Pace,
    nth: u64,
    actions: &mut Vec<Action>,
) {
    let id = format!("talker-{nth}");
    let check = TtlCheck {
        ttl_ms: 30_000,
        status: Some(CheckStatus::Passing),
        deregister_after_ms: 0,
    };
    let register = Op::Register {
        form: RegisterForm::Short,
        services: vec![Service {
            name: "talker".into(),
            id: id.clone(),
            port: 3_100,
            tags: vec![],
            version: u32::try_from(910_000 + nth).unwrap_or(910_000),
            apart: Apart::Nothing,
            checks: vec![check],
        }],
    };
    let says = |what: &str| Op::Report {
        form: ReportForm::Update,
        reports: vec![Report {
            target: Target::Check(format!("chk:{id}:0")),
            status: CheckStatus::Warning,
            output: Some(what.to_owned()),
        }],
    };
    let server = dice.server(cluster);
    let begins = dice.between(
        BEGIN_MS + 500,
        pace.heal_ms.saturating_sub(6_000).max(BEGIN_MS + 600),
    );
    // With another status, it is written at once.
    let first = vec![(server, register), (server, says("again"))];
    let hold_ms = u64::try_from(OUTPUT_HOLD.as_millis()).unwrap_or(u64::MAX);
    let held = begins + 400;
    // What is due is looked for every few milliseconds.
    let written = held + hold_ms + dice.between(0, 130);
    let ops = [
        (begins, first),
        (held, vec![(server, says("otherwise"))]),
        (written, vec![(server, says("again"))]),
    ];
    actions.extend(ops.map(|(at_ms, ops)| Action {
        at_ms,
        client: 0,
        patience_ms: PATIENT_MS,
        what: Doing::Chain(ops),
    }));
}
