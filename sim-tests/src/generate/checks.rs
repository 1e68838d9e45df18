//! Draws checks that are registered by themselves at a server.

use sider_core::registry::CheckStatus;

use super::{BEGIN_MS, Dice, PATIENT_MS, Pace, catalog::OF_TRANSACTIONS, clients};
use crate::{
    catalog_steps::{CatalogStep, Thing, Verb},
    keys::{KeyOp, Step},
    matching::SHARED_NODE,
    operation::{Ask, Freshness, Op, Report, ReportForm, Target},
    own_checks::OwnCheck,
    schedule::{Action, Doing, Shape},
};

/// In so many of a hundred worlds there are such checks.
const WITH_CHECKS: u64 = 15;

/// In some worlds checks are registered by themselves, the same ones again and otherwise, and reported.
pub(super) fn draw(dice: &mut Dice, cluster: &Shape, pace: Pace, actions: &mut Vec<Action>) {
    if !dice.chance(WITH_CHECKS) {
        return;
    }
    let clients = clients(actions);
    for _ in 0..dice.between(3, 8) {
        let check = check(dice, pace);
        let report = Report {
            target: Target::Check(check.id.clone()),
            status: *dice.pick(&[CheckStatus::Passing, CheckStatus::Passing, CheckStatus::Warning]),
            output: dice.chance(40).then(|| "reported".to_owned()),
        };
        let look = Op::Read {
            ask: match dice.chance(50) {
                true => Ask::NodeChecks(SHARED_NODE.to_owned()),
                false => Ask::ServiceChecks("db".to_owned()),
            },
            freshness: Freshness::Default,
        };
        let instance = Thing::Instance {
            node: SHARED_NODE.to_owned(),
            id: OF_TRANSACTIONS.to_owned(),
            service: "db".to_owned(),
            port: 2_000,
        };
        let set = CatalogStep {
            verb: Verb::Set,
            thing: instance,
        };
        let mut ops = vec![Op::RegisterCheck(check.clone())];
        // Mostly of an instance that is there.
        if dice.chance(70) {
            ops.insert(0, Op::Keys(KeyOp::Transact(vec![Step::Catalog(set)])));
        }
        if dice.chance(60) {
            let form = ReportForm::Path;
            let reports = vec![report];
            ops.push(Op::Report { form, reports });
        }
        ops.push(look);
        if dice.chance(20) {
            ops.push(Op::DeregisterCheck { check: check.id });
        }
        actions.push(Action {
            at_ms: dice.between(BEGIN_MS + 800, pace.heal_ms),
            client: u8::try_from(dice.between(0, clients)).unwrap_or(0),
            patience_ms: PATIENT_MS,
            what: Doing::Chain(ops.into_iter().map(|op| (dice.server(cluster), op)).collect()),
        });
    }
    actions.sort_by_key(|action| (action.at_ms, action.client));
}

fn check(dice: &mut Dice, pace: Pace) -> OwnCheck {
    let after_ms = dice.between(300, 2_500) * pace.stretch;
    OwnCheck {
        id: format!("alone-{}", dice.between(0, 3)),
        of: OF_TRANSACTIONS.to_owned(),
        ttl_ms: *dice.pick(&[0, 800, 1_500]) * pace.stretch,
        status: *dice.pick(&[None, Some(CheckStatus::Passing), Some(CheckStatus::Warning)]),
        notes: (*dice.pick(&["", "", "see the book"])).to_owned(),
        deregister_after_ms: if dice.chance(15) { after_ms } else { 0 },
        probed: None,
        alias: None,
    }
}
