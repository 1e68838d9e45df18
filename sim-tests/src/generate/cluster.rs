//! Draws what clients ask about the servers themselves, and events that they fire.

use super::{BEGIN_MS, Dice, PATIENT_MS, Pace, clients};
use crate::{
    cluster_reads::ClusterAsk,
    operation::{Ask, Freshness, Op},
    schedule::{Action, Doing, Shape},
};

/// In so many of a hundred worlds somebody asks about the servers.
const WITH_QUESTIONS: u64 = 30;
/// Kinds of events.
const EVENTS: [&str; 2] = ["deploy", "drain"];

/// In so many of a hundred worlds whose servers are in their catalog somebody asks for the certificate authority.
const WITH_ROOTS: u64 = 40;

/// In some worlds clients ask about the servers, all along and in the calm of the end, and fire events.
pub(super) fn draw(dice: &mut Dice, cluster: &Shape, pace: Pace, actions: &mut Vec<Action>) {
    if cluster.servers_listed && dice.chance(WITH_ROOTS) {
        draw_roots(dice, cluster, pace, actions);
    }
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

/// Clients ask for the certificate authority: as soon as there is anybody to be asked, which may make it, and later; and one
/// waits for another one, which only a restore brings.
fn draw_roots(dice: &mut Dice, cluster: &Shape, pace: Pace, actions: &mut Vec<Action>) {
    let clients = clients(actions);
    let mut add = |dice: &mut Dice, at_ms, what| {
        actions.push(Action {
            at_ms,
            client: u8::try_from(dice.between(0, clients)).unwrap_or(0),
            patience_ms: PATIENT_MS,
            what,
        });
    };
    for nth in 0..dice.between(2, 6) {
        let at_ms = match nth {
            0 | 1 => BEGIN_MS,
            _ => dice.between(BEGIN_MS, pace.end_ms - 1_200),
        };
        let freshness = *dice.pick(&[Freshness::Default, Freshness::Consistent, Freshness::Stale]);
        let ask = Ask::Roots;
        let read = (dice.server(cluster), Op::Read { ask, freshness });
        add(dice, at_ms, Doing::Chain(vec![read]));
    }
    let at_ms = dice.between(BEGIN_MS, BEGIN_MS + 3_000);
    let follow = Doing::Follow {
        ask: Ask::Roots,
        freshness: Freshness::Default,
        wait_ms: *dice.pick(&[1_000, 4_000]) * pace.stretch,
        until_ms: pace.end_ms - 600,
        servers: (0..cluster.servers).collect(),
    };
    add(dice, at_ms, follow);
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
