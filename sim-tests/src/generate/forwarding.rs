//! Some of what clients ask, they ask of an agent in place of a server; and some of them take what the agent keeps.

use sider_core::registry::CheckStatus;

use super::{BEGIN_MS, Dice, PATIENT_MS, Pace, clients};
use crate::{
    forwarding::{is_kept, is_sent_on},
    history::ServerNumber,
    matching::SHARED_NODE,
    operation::{Ask, Freshness, Op},
    schedule::{Action, AgentPlan, Doing},
};

/// In so many of a hundred worlds with an agent several clients take the same answer that it keeps.
const WITH_A_SHARED_ANSWER: u64 = 60;
/// In so many of a hundred several clients wait for the same at it, and it keeps nothing.
const WITH_A_SHARED_WAIT: u64 = 40;
/// An agent is asked no sooner than this after its start.
const STARTS_MS: u64 = 300;

/// Sends some of the requests to agents, and adds some for what they keep.
pub(super) fn draw(dice: &mut Dice, plans: &[Option<&AgentPlan>], pace: Pace, actions: &mut Vec<Action>) {
    let agents: Vec<(u8, u64)> = plans
        .iter()
        .enumerate()
        .filter_map(|(agent, plan)| Some((ServerNumber::of_agent(agent).0, plan.as_ref()?.start_ms)))
        .collect();
    if agents.is_empty() {
        return;
    }
    let mut through = Through {
        share: *dice.pick(&[0, 15, 40, 80]),
        kept: *dice.pick(&[0, 30, 70]),
        agents,
        dice,
    };
    for action in actions.iter_mut() {
        through.redirect(action);
    }
    if through.dice.chance(WITH_A_SHARED_ANSWER) {
        through.share_an_answer(pace, actions, true);
    }
    if through.dice.chance(WITH_A_SHARED_WAIT) {
        through.share_an_answer(pace, actions, false);
    }
    actions.sort_by_key(|action| (action.at_ms, action.client));
}

struct Through<'a> {
    /// Of a hundred requests, so many go to an agent.
    share: u64,
    /// Of a hundred of these that can be, so many are for what it keeps.
    kept: u64,
    /// The numbers that stand for the agents, and when these start.
    agents: Vec<(u8, u64)>,
    dice: &'a mut Dice,
}

impl Through<'_> {
    fn redirect(&mut self, action: &mut Action) {
        let at_ms = action.at_ms;
        match &mut action.what {
            Doing::Chain(ops) => {
                for (server, op) in ops.iter_mut().filter(|(_, op)| is_sent_on(op)) {
                    if let Some(agent) = self.agent_at(at_ms) {
                        *server = agent;
                        if let Op::Read { ask, freshness } | Op::Wait { ask, freshness, .. } = op {
                            self.perhaps_kept(ask, freshness);
                        }
                    }
                }
            }
            Doing::Follow {
                ask,
                freshness,
                servers,
                ..
            } => {
                let Some(agent) = self.agent_at(at_ms) else {
                    return;
                };
                // Some go on at servers, with what an agent gave them.
                if self.dice.chance(40) {
                    servers.push(agent);
                } else {
                    *servers = vec![agent];
                    self.perhaps_kept(ask, freshness);
                }
            }
            Doing::Stream { .. } => {}
        }
    }

    /// An agent that runs by then, for some of the requests.
    fn agent_at(&mut self, at_ms: u64) -> Option<u8> {
        let run: Vec<u8> = self
            .agents
            .iter()
            .filter(|(_, start_ms)| start_ms + STARTS_MS <= at_ms)
            .map(|(agent, _)| *agent)
            .collect();
        (!run.is_empty() && self.dice.chance(self.share)).then(|| *self.dice.pick(&run))
    }

    fn perhaps_kept(&mut self, ask: &Ask, freshness: &mut Freshness) {
        if is_kept(ask) && self.dice.chance(self.kept) {
            *freshness = self.of_what_is_kept();
        }
    }

    fn of_what_is_kept(&mut self) -> Freshness {
        let seconds = self.dice.between(0, 4);
        *self.dice.weighted(&[
            (6, Freshness::Cached),
            (2, Freshness::CachedWithin(seconds)),
            (2, Freshness::CachedAnew),
        ])
    }

    /// Several clients follow one answer, which the agent keeps or not, and others look at it now and then.
    fn share_an_answer(&mut self, pace: Pace, actions: &mut Vec<Action>, kept: bool) {
        let (agent, start_ms) = *self.dice.pick(&self.agents.clone());
        let ask = self.ask();
        let clients = clients(actions);
        let from_ms = (start_ms + STARTS_MS).max(BEGIN_MS);
        let mut does = |dice: &mut Dice, at_ms: u64, what: Doing| {
            actions.push(Action {
                at_ms,
                client: u8::try_from(dice.between(0, clients)).unwrap_or(0),
                patience_ms: PATIENT_MS,
                what,
            });
        };
        for _ in 0..self.dice.between(2, 4) {
            let follow = Doing::Follow {
                ask: ask.clone(),
                freshness: match kept {
                    true => Freshness::Cached,
                    false => Freshness::Default,
                },
                wait_ms: *self.dice.pick(&[500, 2_000, 5_000]) * pace.stretch,
                until_ms: pace.end_ms - 600,
                servers: vec![agent],
            };
            let at_ms = self.dice.between(from_ms, from_ms + 2_000);
            does(self.dice, at_ms, follow);
        }
        for _ in 0..self.dice.between(4, 12) {
            let read = Op::Read {
                ask: ask.clone(),
                freshness: match kept {
                    true => self.of_what_is_kept(),
                    false => Freshness::Default,
                },
            };
            let at_ms = self.dice.between(from_ms, pace.end_ms - 1_200);
            does(self.dice, at_ms, Doing::Chain(vec![(agent, read)]));
        }
    }

    fn ask(&mut self) -> Ask {
        let service = (*self.dice.pick(&["web", "web", "db"])).to_owned();
        match self.dice.index(8) {
            0 => Ask::Services,
            1 => Ask::CatalogService {
                service,
                tags: vec![],
            },
            2 => Ask::NodeChecks(SHARED_NODE.to_owned()),
            3 => Ask::ChecksInState(*self.dice.pick(&[None, Some(CheckStatus::Passing)])),
            4 => Ask::ServiceChecks(service),
            which => Ask::Health {
                service,
                passing: which == 5,
                tags: vec![],
            },
        }
    }
}
