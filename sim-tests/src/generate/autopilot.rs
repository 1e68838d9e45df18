//! Draws what is asked of autopilot.

use super::{BEGIN_MS, Dice, PATIENT_MS, Pace};
use crate::{
    autopilot::AutopilotOp,
    operation::Op,
    schedule::{Action, Doing, Fault, Shape, Trouble},
};

/// In so many of a hundred worlds autopilot has settings.
const WITH_SETTINGS: u64 = 25;

/// In some worlds settings are stored soon, and in some of them others later.
pub(super) fn draw(
    dice: &mut Dice,
    cluster: &Shape,
    pace: Pace,
    faults: &[Fault],
    actions: &mut Vec<Action>,
) {
    if !dice.chance(WITH_SETTINGS) {
        return;
    }
    let wipes = faults
        .iter()
        .any(|fault| matches!(fault.what, Trouble::Wipe { .. }));
    // Those that are broken for good must be a minority of the voters that stay, whoever else is removed while it is away.
    let broken = faults.iter().filter(|fault| fault.lasts).count();
    let needed = match u32::try_from(broken).unwrap_or(u32::MAX) {
        0 => 0,
        broken => (broken * 2 + 1).min(cluster.servers.into()),
    };
    let mut at_ms = dice.between(BEGIN_MS, BEGIN_MS + 1_500);
    for _ in 0..*dice.weighted(&[(3, 1), (1, 2)]) {
        let least = [0, 0, 0, 2, u32::from(cluster.servers)];
        let op = AutopilotOp {
            cleans_up: dice.chance(85),
            contact_ms: *dice.pick(&[200, 1_000, 4_500]),
            // A disk that is lost takes a majority with it where two servers are all that is left.
            min_quorum: if wipes {
                u32::from(cluster.servers)
            } else {
                needed.max(*dice.pick(&least))
            },
            stable_ms: dice.between(500, 3_000) * pace.stretch,
        };
        actions.push(Action {
            at_ms,
            client: 0,
            patience_ms: PATIENT_MS,
            what: Doing::Chain(vec![(dice.server(cluster), Op::Autopilot(op))]),
        });
        at_ms = dice.between(BEGIN_MS + 2_500, pace.heal_ms);
    }
    actions.sort_by_key(|action| action.at_ms);
}
