//! Draws what clients ask about the servers themselves, and events that they fire.

use super::{BEGIN_MS, Dice, PATIENT_MS, Pace, clients};
use crate::{
    cluster_reads::ClusterAsk,
    operation::Op,
    schedule::{Action, Doing, Shape},
};

/// In so many of a hundred worlds somebody asks about the servers.
const WITH_QUESTIONS: u64 = 30;
/// Kinds of events.
const EVENTS: [&str; 2] = ["deploy", "drain"];

/// In some worlds clients ask about the servers, all along and in the calm of the end, and fire events.
pub(super) fn draw(dice: &mut Dice, cluster: &Shape, pace: Pace, actions: &mut Vec<Action>) {
    if !dice.chance(WITH_QUESTIONS) {
        return;
    }
    let clients = clients(actions);
    let with_events = dice.chance(60);
    for nth in 0..dice.between(6, 15) {
        let at_ms = match dice.chance(70) {
            true => dice.between(BEGIN_MS, pace.heal_ms),
            false => dice.between(pace.heal_ms + 2_500, pace.end_ms - 1_200),
        };
        let server = dice.server(cluster);
        let ops = match with_events && dice.chance(50) {
            // Who fires an event looks for it, there and elsewhere.
            true => {
                let name = *dice.pick(&EVENTS);
                let fire = ClusterAsk::Fire {
                    name: name.to_owned(),
                    payload: format!("event-{nth}"),
                };
                let other = dice.pick(&EVENTS);
                let wanted = *dice.pick(&[None, Some(name), Some(*other)]);
                let list = ClusterAsk::Events {
                    name: wanted.map(str::to_owned),
                };
                vec![
                    (server, fire),
                    (server, list.clone()),
                    (dice.server(cluster), list),
                ]
            }
            false => vec![(server, question(dice))],
        };
        let ops = ops.into_iter().map(|(server, ask)| (server, Op::Cluster(ask)));
        actions.push(Action {
            at_ms,
            client: u8::try_from(dice.between(0, clients)).unwrap_or(0),
            patience_ms: PATIENT_MS,
            what: Doing::Chain(ops.collect()),
        });
    }
    actions.sort_by_key(|action| (action.at_ms, action.client));
}

fn question(dice: &mut Dice) -> ClusterAsk {
    match *dice.weighted(&[(2, 0), (2, 1), (2, 2), (2, 3), (1, 4), (3, 5), (2, 6), (1, 7)]) {
        0 => ClusterAsk::Leader,
        1 => ClusterAsk::Peers,
        2 => ClusterAsk::Configuration {
            of_operators: dice.chance(50),
        },
        3 => ClusterAsk::Itself,
        4 => ClusterAsk::Members,
        5 => ClusterAsk::Ready,
        6 => ClusterAsk::Metrics,
        _ => ClusterAsk::Events { name: None },
    }
}
