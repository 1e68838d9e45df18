//! Draws what clients ask about the servers themselves, events that they fire, questions about single sessions, and sessions
//! that a transaction ends.

use super::{BEGIN_MS, Dice, Pace};
use crate::{
    cluster_reads::ClusterAsk,
    keys::{KeyOp, Step},
    operation::{Ask, Freshness, Op},
    schedule::{Action, Doing, Shape},
};

/// In so many of a hundred worlds somebody asks about the servers.
const WITH_QUESTIONS: u64 = 40;
/// Longer than any server takes.
const PATIENT_MS: u64 = 7_000;
/// Kinds of events.
const EVENTS: [&str; 2] = ["deploy", "drain"];

/// In some worlds clients ask about the servers, all along and in the calm of the end, and fire events.
pub(super) fn draw(dice: &mut Dice, cluster: &Shape, pace: Pace, actions: &mut Vec<Action>) {
    sessions(dice, cluster, pace, actions);
    if !dice.chance(WITH_QUESTIONS) {
        return;
    }
    let clients = clients(actions);
    let with_events = dice.chance(60);
    for nth in 0..dice.between(8, 20) {
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

fn clients(actions: &[Action]) -> u64 {
    u64::from(actions.iter().map(|action| action.client).max().unwrap_or(0)) + 1
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

/// Where there are sessions, some are asked for by their id, and some end in a transaction, which may be refused.
fn sessions(dice: &mut Dice, cluster: &Shape, pace: Pace, actions: &mut Vec<Action>) {
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
