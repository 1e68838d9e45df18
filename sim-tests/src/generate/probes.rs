//! Draws checks that the servers run themselves, and what befalls the machines that they probe.

use sider_core::registry::CheckStatus;

use super::{BEGIN_MS, Dice, PATIENT_MS, Pace, catalog::OF_TRANSACTIONS, clients, work::NODES};
use crate::{
    catalog_steps::{CatalogStep, Thing, Verb},
    keys::{KeyOp, Step},
    matching::SHARED_NODE,
    operation::{CatalogEntry, Op},
    own_checks::{Alias, By, OwnCheck, Probed},
    probes::PREFIX,
    schedule::{Action, Doing, Shape, Turn},
};

/// In so many of a hundred worlds servers run checks.
const WITH_PROBES: u64 = 14;
/// In so many of a hundred of these some checks are aliases of others.
const WITH_ALIASES: u64 = 70;
/// The TTL of what would be probed in such a world, and is not there.
const INSTEAD_MS: u64 = 1_500;

/// In some worlds servers run checks of machines that turn bad and good again.
pub(super) fn draw(dice: &mut Dice, cluster: &mut Shape, pace: Pace, actions: &mut Vec<Action>) -> Vec<Turn> {
    if !dice.chance(WITH_PROBES) {
        return Vec::new();
    }
    cluster.probes = true;
    // Whatever else could be probed renews a TTL: nobody is at those addresses.
    actions.iter_mut().for_each(|action| let_them_renew(action, pace));
    let clients = clients(actions);
    let machines = u8::try_from(dice.between(1, 3)).unwrap_or(1);
    for machine in 0..machines {
        for at_ms in registrations(dice, pace) {
            let mut ops = vec![
                Op::Keys(KeyOp::Transact(vec![Step::Catalog(instance())])),
                Op::RegisterCheck(check(dice, pace, machine)),
            ];
            if dice.chance(10) {
                let check = format!("{PREFIX}{machine}");
                ops.push(Op::DeregisterCheck { check });
            }
            actions.push(Action {
                at_ms,
                client: u8::try_from(dice.between(0, clients)).unwrap_or(0),
                patience_ms: PATIENT_MS,
                what: Doing::Chain(ops.into_iter().map(|op| (dice.server(cluster), op)).collect()),
            });
        }
    }
    actions.sort_by_key(|action| (action.at_ms, action.client));
    let mut turns: Vec<Turn> = (0..machines)
        .flat_map(|machine| turns(dice, pace, machine))
        .collect();
    turns.sort_by_key(|turn| (turn.at_ms, turn.machine));
    ask_otherwise(dice, actions);
    if dice.chance(WITH_ALIASES) {
        aliases(dice, cluster, pace, clients, actions);
    }
    turns
}

/// Some machines are asked in other ways than by requests.
fn ask_otherwise(dice: &mut Dice, actions: &mut [Action]) {
    for action in actions {
        let Doing::Chain(ops) = &mut action.what else {
            continue;
        };
        for (_, op) in ops {
            if let Op::RegisterCheck(OwnCheck {
                probed: Some(probed), ..
            }) = op
                && dice.chance(60)
            {
                probed.by = *dice.pick(&By::ALL);
            }
        }
    }
}

/// Checks take on the status of an instance or a node: one that renews a TTL, one of the catalog, their own, or none that is
/// there.
fn aliases(dice: &mut Dice, cluster: &Shape, pace: Pace, clients: u64, actions: &mut Vec<Action>) {
    for nth in 0..dice.between(1, 4) {
        let of = |node: &str, instance: &str| Alias {
            node: node.to_owned(),
            instance: instance.to_owned(),
        };
        for at_ms in registrations(dice, pace) {
            let of_web = format!("web-{}", dice.between(0, 2));
            let host = *dice.pick(&NODES);
            let alias = match dice.index(6) {
                0 | 1 => of("", &of_web),
                2 => of(SHARED_NODE, &of_web),
                3 => of(host, ""),
                4 => of(host, &format!("{host}-db")),
                _ => of("", OF_TRANSACTIONS),
            };
            let check = OwnCheck {
                id: format!("{PREFIX}alias-{nth}"),
                of: OF_TRANSACTIONS.to_owned(),
                ttl_ms: 0,
                status: *dice.pick(&[None, Some(CheckStatus::Passing)]),
                notes: String::new(),
                deregister_after_ms: 0,
                probed: None,
                alias: Some(alias),
            };
            let ops = vec![
                Op::Keys(KeyOp::Transact(vec![Step::Catalog(instance())])),
                Op::RegisterCheck(check),
            ];
            actions.push(Action {
                at_ms,
                client: u8::try_from(dice.between(0, clients)).unwrap_or(0),
                patience_ms: PATIENT_MS,
                what: Doing::Chain(ops.into_iter().map(|op| (dice.server(cluster), op)).collect()),
            });
        }
    }
    // What they follow turns, too.
    for _ in 0..dice.between(3, 8) {
        let host = (*dice.pick(&NODES)).to_owned();
        let status = *dice.pick(&[CheckStatus::Passing, CheckStatus::Critical, CheckStatus::Warning]);
        let of_instance = dice.chance(50);
        let entry = CatalogEntry {
            address: "10.1.1.1".to_owned(),
            service: of_instance.then(|| (format!("{host}-db"), "db".to_owned(), 2_000)),
            check: Some((
                if of_instance { "db-check" } else { "ping" }.to_owned(),
                status,
                "it says so".to_owned(),
            )),
            check_of: None,
            node_id: String::new(),
            rack: None,
            spoils: None,
            keeps_node: true,
            elsewhere: false,
            node: host,
        };
        actions.push(Action {
            at_ms: dice.between(BEGIN_MS + 500, pace.end_ms - 2_000),
            client: u8::try_from(dice.between(0, clients)).unwrap_or(0),
            patience_ms: PATIENT_MS,
            what: Doing::Chain(vec![(dice.server(cluster), Op::CatalogRegister(entry))]),
        });
    }
    actions.sort_by_key(|action| (action.at_ms, action.client));
}

/// When a check is registered: soon, and sometimes again.
fn registrations(dice: &mut Dice, pace: Pace) -> Vec<u64> {
    let mut times = vec![dice.between(BEGIN_MS, BEGIN_MS + 2_000)];
    if dice.chance(40) {
        times.push(dice.between(BEGIN_MS + 2_000, pace.end_ms - 3_000));
    }
    times
}

fn check(dice: &mut Dice, pace: Pace, machine: u8) -> OwnCheck {
    OwnCheck {
        id: format!("{PREFIX}{machine}"),
        of: OF_TRANSACTIONS.to_owned(),
        ttl_ms: 0,
        status: *dice.pick(&[None, Some(CheckStatus::Passing)]),
        notes: (*dice.pick(&["", "see the book"])).to_owned(),
        deregister_after_ms: 0,
        probed: Some(Probed {
            machine,
            interval_ms: *dice.pick(&[300, 500, 900]) * pace.stretch.min(4),
            by: By::Http,
        }),
        alias: None,
    }
}

fn instance() -> CatalogStep {
    CatalogStep {
        verb: Verb::Set,
        thing: Thing::Instance {
            node: SHARED_NODE.to_owned(),
            id: OF_TRANSACTIONS.to_owned(),
            service: "db".to_owned(),
            port: 2_000,
        },
    }
}

/// It begins well, mostly, and turns a few times, also when all is healed.
fn turns(dice: &mut Dice, pace: Pace, machine: u8) -> Vec<Turn> {
    let mut well = dice.chance(80);
    let mut times = vec![dice.between(0, BEGIN_MS)];
    for _ in 0..dice.between(2, 6) {
        times.push(dice.between(BEGIN_MS + 1_000, pace.end_ms));
    }
    times.sort_unstable();
    let turn = |at_ms| {
        let turn = Turn { at_ms, machine, well };
        well = !well;
        turn
    };
    times.into_iter().map(turn).collect()
}

fn let_them_renew(action: &mut Action, pace: Pace) {
    let Doing::Chain(ops) = &mut action.what else {
        return;
    };
    ops.iter_mut()
        .for_each(|(_, op)| renews_instead(op, INSTEAD_MS * pace.stretch));
}

/// What would register a check to be probed registers one with this TTL.
pub(crate) fn renews_instead(op: &mut Op, ttl_ms: u64) {
    match op {
        Op::Register { services, .. } => {
            let checks = services.iter_mut().flat_map(|service| &mut service.checks);
            checks
                .filter(|check| check.ttl_ms == 0)
                .for_each(|check| check.ttl_ms = ttl_ms);
        }
        Op::RegisterCheck(check) if check.ttl_ms == 0 => check.ttl_ms = ttl_ms,
        _ => {}
    }
}
