//! What happens to agents, to their hosts and to what they probe, and what services ask of them.

use sider_core::registry::CheckStatus;

use super::{Dice, Pace};
use crate::{
    agency::{self, TOLD},
    schedule::{
        AgentPlan, AgentTrouble, Asked, Befall, Kept, Order, Question, Report, Shape, Sort, Subject, Way, Who,
    },
};

/// Nothing befalls an agent's host before: it has to be in step first.
const FIRST_MS: u64 = 3_500;
/// What befalls an agent is over by so long before all is healed.
const LAST_MS: u64 = 300;

/// In some worlds agents run, too.
pub(super) fn draw(dice: &mut Dice, pace: Pace) -> AgentPlan {
    let crashes = *dice.weighted(&[(6, 0), (3, 1), (1, 2)]);
    let mut flips_ms: Vec<u64> = (0..dice.between(0, 4))
        .map(|_| dice.between(2_000, pace.heal_ms))
        .collect();
    flips_ms.sort_unstable();
    let blips_ms = (0..dice.between(0, 5))
        .map(|_| dice.between(2_000, pace.heal_ms))
        .collect();
    AgentPlan {
        start_ms: dice.between(100, 3_000),
        crashes: (0..crashes)
            .map(|_| (dice.between(3_500, 7_500), dice.between(50, 1_500)))
            .collect(),
        flips_ms,
        blips_ms,
        orders: orders(dice, pace),
        reports: Vec::new(),
        asks: Vec::new(),
        seldom: false,
        reloads_ms: Vec::new(),
        troubles: Vec::new(),
    }
}

/// What a service asks of its agent. An id may be registered anew, elsewhere, or taken away.
fn orders(dice: &mut Dice, pace: Pace) -> Vec<Order> {
    let mut orders: Vec<Order> = (0..dice.between(0, 5))
        .map(|_| Order {
            at_ms: dice.between(3_200, pace.heal_ms - 1_000),
            id: format!("ordered-{}", dice.between(0, 2)),
            port: match dice.chance(70) {
                true => Some(10 + u16::try_from(dice.between(0, 5)).unwrap_or(0)),
                false => None,
            },
            sort: Sort::Http,
            subject: Subject::Instance,
        })
        .collect();
    orders.sort_by_key(|order| order.at_ms);
    orders
}

/// What befalls its host, what its services report, and other sorts of checks: all that a plan had not from the beginning.
pub(super) fn burden(dice: &mut Dice, cluster: &Shape, pace: Pace, mut plan: AgentPlan) -> AgentPlan {
    for order in &mut plan.orders {
        order.sort = *dice.weighted(&[(5, Sort::Http), (3, Sort::Tcp), (2, Sort::Command)]);
    }
    for _ in 0..dice.between(0, 4) {
        plan.orders.push(of_check(dice, pace));
    }
    if dice.chance(30) {
        plan.orders.push(Order {
            subject: Subject::Instance,
            id: "fatal".to_owned(),
            sort: Sort::Fatal,
            port: Some(30),
            ..of_check(dice, pace)
        });
    }
    if dice.chance(60) {
        told(dice, pace, &mut plan);
    }
    plan.orders.sort_by_key(|order| order.at_ms);
    let many = *dice.weighted(&[(30, 0), (40, 1), (20, 2), (10, 3)]);
    plan.troubles = (0..many).map(|_| trouble(dice, cluster, pace)).collect();
    plan
}

/// A check of an instance, or of the node, by itself.
fn of_check(dice: &mut Dice, pace: Pace) -> Order {
    Order {
        at_ms: dice.between(3_200, pace.heal_ms - 1_000),
        id: format!("ordered-{}", dice.between(0, 2)),
        port: dice.chance(70).then_some(0),
        sort: *dice.pick(&[Sort::Http, Sort::Tcp, Sort::Command]),
        subject: *dice.weighted(&[(6, Subject::Check), (4, Subject::NodeCheck)]),
    }
}

/// A service that reports for a while, and then no more.
fn told(dice: &mut Dice, pace: Pace, plan: &mut AgentPlan) {
    let from = dice.between(3_000, 5_000);
    let order = |at_ms: u64, port: Option<u16>| Order {
        at_ms,
        id: TOLD.to_owned(),
        port,
        sort: Sort::Ttl,
        subject: Subject::Instance,
    };
    plan.orders.push(order(from, Some(20)));
    if dice.chance(20) {
        let at = dice.between(from + 500, pace.heal_ms - 500);
        let port = dice.chance(50).then_some(21);
        plan.orders.push(order(at, port));
    }
    let mut at = from + dice.between(50, 500);
    for _ in 0..dice.between(2, 12) {
        let status = *dice.weighted(&[
            (7, CheckStatus::Passing),
            (2, CheckStatus::Warning),
            (1, CheckStatus::Critical),
        ]);
        plan.reports.push(Report {
            at_ms: at,
            id: TOLD.to_owned(),
            status,
        });
        // Now and then it takes longer than its TTL.
        at += match dice.chance(20) {
            true => dice.between(2_700, 4_000),
            false => dice.between(200, 1_200),
        };
    }
    plan.reports.retain(|report| report.at_ms < pace.heal_ms);
}

/// What an agent is asked about itself.
pub(super) fn ask(dice: &mut Dice, pace: Pace, mut plan: AgentPlan) -> AgentPlan {
    if dice.chance(30) {
        return plan;
    }
    let until = pace.end_ms - 1_500;
    let from = (plan.start_ms + 400).min(until - 1);
    for _ in 0..dice.between(3, 15) {
        let what = match dice.index(3) {
            0 => Question::Services,
            1 => Question::Checks,
            _ => {
                let id = *dice.pick(&[TOLD, agency::PROBED, "renewed", "ordered-0"]);
                Question::Health(id.to_owned())
            }
        };
        let at_ms = dice.between(from, until);
        plan.asks.push(Asked { at_ms, what });
    }
    plan.asks.sort_by_key(|asked| asked.at_ms);
    plan
}

/// Rarer things that are asked of an agent, in part of its plans.
pub(super) fn vary(dice: &mut Dice, pace: Pace, mut plan: AgentPlan) -> AgentPlan {
    let of_probes = |order: &Order| matches!(order.sort, Sort::Http | Sort::Tcp | Sort::Command);
    for order in plan.orders.iter_mut().filter(|order| of_probes(order)) {
        if order.subject == Subject::Instance && dice.chance(25) {
            order.subject = Subject::Replacement;
        }
        if dice.chance(15) {
            order.sort = Sort::Alias;
        }
    }
    if dice.chance(30) {
        let reloads = dice.between(1, 4);
        plan.reloads_ms = (0..reloads)
            .map(|_| dice.between(3_200, pace.heal_ms - 1_000))
            .collect();
        plan.reloads_ms.sort_unstable();
    }
    if dice.chance(20) {
        fleeting(dice, pace, &mut plan);
    }
    if dice.chance(20) {
        again(dice, pace, &mut plan);
    }
    plan
}

/// An instance that had another check is registered again, without it, and the agent is started again.
fn again(dice: &mut Dice, pace: Pace, plan: &mut AgentPlan) {
    let from = dice.between(3_200, 5_000);
    let steps = [
        (Subject::Instance, Some(40)),
        (Subject::Check, Some(0)),
        (Subject::Instance, None),
        (Subject::Instance, Some(41)),
    ];
    let orders = (from..)
        .step_by(300)
        .zip(steps)
        .map(|(at_ms, (subject, port))| Order {
            at_ms,
            id: "again".to_owned(),
            port,
            sort: Sort::Http,
            subject,
        });
    plan.orders.extend(orders);
    plan.orders.sort_by_key(|order| order.at_ms);
    let at = dice.between(from + 2_000, pace.heal_ms - 500);
    plan.crashes.push((at, dice.between(50, 500)));
}

/// An instance that goes when its check was critical for long, on a machine that is never sick for so long.
fn fleeting(dice: &mut Dice, pace: Pace, plan: &mut AgentPlan) {
    // Time that goes wrong, or stands still, makes it look longer.
    let sound = |it: &Befall| !matches!(it.what, AgentTrouble::Pause | AgentTrouble::Drift(_));
    plan.troubles.retain(sound);
    plan.blips_ms.clear();
    plan.flips_ms.clear();
    let mut at = dice.between(4_000, 5_500);
    while at + 1_500 < pace.heal_ms && plan.flips_ms.len() < 6 {
        let sick = dice.between(900, 1_200);
        plan.flips_ms.extend([at, at + sick]);
        at += sick + dice.between(2_500, 4_500);
    }
    plan.orders.push(Order {
        at_ms: dice.between(3_200, 3_900),
        id: "fleeting".to_owned(),
        port: Some(31),
        sort: Sort::Fleeting,
        subject: Subject::Instance,
    });
    plan.orders.sort_by_key(|order| order.at_ms);
}

/// Something that befalls an agent or its host.
fn trouble(dice: &mut Dice, cluster: &Shape, pace: Pace) -> Befall {
    let kept = *dice.pick(&[Kept::Nothing, Kept::Nothing, Kept::Some, Kept::Everything]);
    let one = Who::Server(dice.server(cluster));
    let from = *dice.weighted(&[(6, Who::All), (1, one), (1, Who::Leader), (2, Who::Majority)]);
    let way = *dice.weighted(&[
        (4, Way::Both),
        (2, Way::Mute),
        (2, Way::Deaf),
        (2, Way::BlackHole),
    ]);
    let drift = i32::try_from(dice.between(0, 400_000)).unwrap_or(0) - 200_000;
    let wall = i64::try_from(dice.between(0, 7_200_000)).unwrap_or(0) - 3_600_000;
    let slow_ms = dice.between(50, 1_000);
    let what = *dice.weighted(&[
        (5, AgentTrouble::Stop),
        (6, AgentTrouble::PowerCut(kept)),
        (4, AgentTrouble::Pause),
        (8, AgentTrouble::CutOff { from, way }),
        (1, AgentTrouble::SlowSync(slow_ms)),
        (1, AgentTrouble::HungSync),
        (1, AgentTrouble::FailedSync),
        (1, AgentTrouble::DeadSync),
        (1, AgentTrouble::FailedWrite),
        (1, AgentTrouble::FullDisk),
        (1, AgentTrouble::Drift(drift)),
        (1, AgentTrouble::WallJump(wall)),
    ]);
    let last = pace.heal_ms - LAST_MS;
    let at_ms = dice.between(FIRST_MS, last - 100);
    let for_ms = match dice.chance(50) {
        true => dice.between(50, 1_500),
        false => dice.between(2_500, 5_500) * pace.stretch.min(6),
    };
    Befall {
        at_ms,
        for_ms: for_ms.min(last - at_ms),
        what,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::generate::generate;

    #[test]
    fn everything_befalls_some_agent() {
        let plans: Vec<AgentPlan> = (0..3_000)
            .map(generate)
            .flat_map(|it| it.agents().map(|(_, plan)| plan.clone()).collect::<Vec<_>>())
            .collect();
        let name = |it: &Befall| format!("{:?}", it.what);
        let name = |it: &Befall| name(it).split(['(', ' ']).next().map(str::to_owned);
        let troubles: BTreeSet<_> = plans.iter().flat_map(|plan| &plan.troubles).map(name).collect();
        assert_eq!(troubles.len(), 12, "{troubles:?}");
        let orders = || plans.iter().flat_map(|plan| &plan.orders);
        let sorts: BTreeSet<_> = orders().map(|it| format!("{:?}", it.sort)).collect();
        let subjects: BTreeSet<_> = orders().map(|it| format!("{:?}", it.subject)).collect();
        assert_eq!((sorts.len(), subjects.len()), (7, 4), "{sorts:?} {subjects:?}");
        assert!(plans.iter().any(|plan| plan.reloads_ms.len() > 1));
        assert!(
            plans.iter().any(|plan| plan.troubles.is_empty()),
            "some are left alone"
        );
    }
}
