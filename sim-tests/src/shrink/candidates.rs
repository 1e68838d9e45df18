//! Schedules that are a little smaller than a given one.
//!
//! Where it can be, this works on the saved form (JSON), so that a new knob or operation needs nothing here.

use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{
    history::ServerNumber,
    schedule::{Action, AgentPlan, Doing, Fault, Schedule},
    stage,
    time::Time,
};

/// Fewer milliseconds than this between two events are not worth a run.
const GAP_MS: u64 = 40;
/// What runs on after a violation, so that it still shows.
const TAIL_MS: u64 = 20;

/// What can be taken away in chunks.
#[derive(Clone, Copy)]
pub(super) enum Part {
    Faults,
    Actions,
}

impl Part {
    pub(super) const ALL: [Part; 2] = [Part::Faults, Part::Actions];

    pub(super) fn count(self, schedule: &Schedule) -> usize {
        match self {
            Part::Faults => schedule.faults.len(),
            Part::Actions => schedule.operations(),
        }
    }

    /// The schedule without so many of them from `start` on.
    pub(super) fn without(self, schedule: &Schedule, start: usize, count: usize) -> Schedule {
        let goes = |place: usize| (start..start + count).contains(&place);
        let mut candidate = schedule.clone();
        match self {
            Part::Faults => {
                let mut place = 0..;
                candidate.faults.retain(|_| !place.next().is_some_and(goes));
            }
            Part::Actions => {
                let mut place = 0..;
                candidate.actions.retain_mut(|action| match &mut action.what {
                    Doing::Chain(ops) => {
                        ops.retain(|_| !place.next().is_some_and(goes));
                        !ops.is_empty()
                    }
                    Doing::Follow { .. } | Doing::Stream { .. } => !place.next().is_some_and(goes),
                });
            }
        }
        candidate
    }
}

/// Every schedule with one fault or operation less.
pub(super) fn without_one_event(schedule: &Schedule) -> Vec<Schedule> {
    let single = |part: Part| (0..part.count(schedule)).map(move |place| part.without(schedule, place, 1));
    single(Part::Faults).chain(single(Part::Actions)).collect()
}

/// Every schedule in which one fault or operation never begins, the last one first: what is near the violation tells most.
///
/// It is put off until after the end, not taken away. Chance orders tasks that could run at the same time, so that a run
/// with one task less is another one from its beginning; like this, both are the same until the event would begin.
pub fn put_off_one_event(schedule: &Schedule) -> Vec<Schedule> {
    let never = schedule.end_ms + 1;
    let faults = (0..schedule.faults.len()).rev().map(|place| {
        let mut candidate = schedule.clone();
        candidate.faults[place].at_ms = never;
        candidate
    });
    let actions = (0..schedule.actions.len()).rev().flat_map(|place| {
        let ops = match &schedule.actions[place].what {
            Doing::Chain(ops) => ops.len(),
            Doing::Follow { .. } | Doing::Stream { .. } => 1,
        };
        (0..ops).rev().map(move |op| {
            let mut candidate = schedule.clone();
            let action = &mut candidate.actions[place];
            match &mut action.what {
                Doing::Chain(ops) if ops.len() > 1 => {
                    ops.remove(op);
                }
                _ => action.at_ms = never,
            }
            candidate
        })
    });
    faults.chain(actions).collect()
}

/// Without any agent, then without one of them.
pub(super) fn without_agent(schedule: &Schedule) -> Vec<Schedule> {
    let without = |first: bool, other: bool| {
        let mut candidate = schedule.clone();
        candidate.agent = candidate.agent.filter(|_| !first);
        candidate.other_agent = candidate.other_agent.filter(|_| !other);
        candidate.ask_nobody_who_is_missing();
        candidate
    };
    [(true, true), (true, false), (false, true)]
        .into_iter()
        .map(|(first, other)| without(first, other))
        .filter(|it| it.agents().count() < schedule.agents().count())
        .collect()
}

/// With less happening to an agent: nothing of one sort, then one thing less.
pub(super) fn with_less_of_agents(schedule: &Schedule) -> Vec<Schedule> {
    let plans: [fn(&mut Schedule) -> &mut Option<AgentPlan>; 2] = [
        |schedule| &mut schedule.agent,
        |schedule| &mut schedule.other_agent,
    ];
    let mut candidates = Vec::new();
    for plan in plans {
        let mut whole = schedule.clone();
        let Some(now) = plan(&mut whole).as_ref().map(json) else {
            continue;
        };
        let fields = now.as_object().into_iter().flatten();
        let lists = fields.filter(|(_, list)| list.as_array().is_some_and(|list| list.len() > 1));
        let empty = lists.map(|(name, _)| {
            let mut without = now.clone();
            without[name] = Value::Array(vec![]);
            without
        });
        for smaller in empty.chain(without_one_element(&now)) {
            if let Some(smaller) = parse::<AgentPlan>(smaller) {
                let mut candidate = schedule.clone();
                *plan(&mut candidate) = Some(smaller);
                candidates.push(candidate);
            }
        }
    }
    candidates
}

/// The schedule up to shortly after a moment.
pub(super) fn ends_at(schedule: &Schedule, at: Time) -> Schedule {
    let end_ms = (at.0 / 1_000_000 + TAIL_MS).min(schedule.end_ms);
    until(schedule, end_ms)
}

fn until(schedule: &Schedule, end_ms: u64) -> Schedule {
    let mut cut = schedule.clone();
    cut.end_ms = end_ms;
    cut.heal_ms = cut.heal_ms.min(end_ms);
    cut.faults.retain(|fault| fault.at_ms < end_ms);
    cut.actions.retain(|action| action.at_ms < end_ms);
    cut.agent = cut.agent.filter(|agent| agent.start_ms < end_ms);
    cut.other_agent = cut.other_agent.filter(|agent| agent.start_ms < end_ms);
    cut.ask_nobody_who_is_missing();
    let heal_ms = cut.heal_ms;
    for agent in [&mut cut.agent, &mut cut.other_agent].into_iter().flatten() {
        agent.troubles.retain(|it| it.at_ms < heal_ms);
    }
    cut
}

/// Ends earlier: much, then less.
pub(super) fn ending_earlier(schedule: &Schedule) -> Vec<Schedule> {
    let last = moments(schedule).into_iter().max().unwrap_or(0);
    let end = schedule.end_ms;
    let ends = [
        last + 1,
        last + (end - last.min(end)) / 2,
        end.saturating_sub(GAP_MS),
    ];
    let mut ends: Vec<u64> = ends.into_iter().filter(|at| *at + GAP_MS / 2 < end).collect();
    ends.dedup();
    ends.into_iter().map(|end| until(schedule, end)).collect()
}

/// With fewer servers; who is asked is asked elsewhere, and what was done to a server that is gone is done to another one.
pub(super) fn with_fewer_servers(schedule: &Schedule) -> Vec<Schedule> {
    let fewer = |servers: u8| {
        let mut candidate = schedule.clone();
        candidate.cluster.servers = servers;
        candidate.cluster.drift_ppm.truncate(usize::from(servers));
        let mut faults = json(&candidate.faults);
        among(&mut faults, servers);
        candidate.faults = parse(faults)?;
        for action in &mut candidate.actions {
            match &mut action.what {
                Doing::Chain(ops) => ops
                    .iter_mut()
                    .for_each(|(server, _)| among_servers(server, servers)),
                Doing::Follow { servers: asked, .. } | Doing::Stream { servers: asked, .. } => {
                    asked.iter_mut().for_each(|server| among_servers(server, servers));
                }
            }
        }
        Some(candidate)
    };
    [1, 3]
        .into_iter()
        .filter(|servers| *servers < schedule.cluster.servers)
        .filter_map(fewer)
        .collect()
}

/// Asks a server below `servers`; an agent is asked as before.
fn among_servers(server: &mut u8, servers: u8) {
    if ServerNumber(*server).agent().is_none() {
        *server %= servers;
    }
}

/// Lets faults be about servers below `servers` only.
fn among(faults: &mut Value, servers: u8) {
    match faults {
        Value::Array(elements) => elements.iter_mut().for_each(|it| among(it, servers)),
        Value::Object(fields) => {
            for (name, field) in fields {
                match field.as_u64() {
                    Some(number) if ["Server", "Follower", "to"].contains(&name.as_str()) => {
                        *field = Value::from(number % u64::from(servers));
                    }
                    _ => among(field, servers),
                }
            }
        }
        _ => {}
    }
}

/// With one knob of the cluster, or one more thing beside it, as it usually is.
pub(super) fn plainer(schedule: &Schedule) -> Vec<Schedule> {
    let usual = stage::three();
    let usual = crate::schedule::Shape {
        servers: schedule.cluster.servers,
        drift_ppm: vec![0; schedule.cluster.drift_ppm.len()],
        ..usual
    };
    let (now, usual) = (json(schedule), json(&usual));
    let mut candidates = Vec::new();
    for (knob, value) in usual.as_object().into_iter().flatten() {
        if now["cluster"][knob] != *value {
            let mut plain = now.clone();
            plain["cluster"][knob] = value.clone();
            candidates.extend(parse(plain));
        }
    }
    let known = [
        "seed", "cluster", "actions", "faults", "agent", "heal_ms", "end_ms",
    ];
    for (name, value) in now.as_object().into_iter().flatten() {
        let nothing = [
            Value::Null,
            Value::from(false),
            Value::from(0),
            Value::Array(vec![]),
        ];
        if !known.contains(&name.as_str()) && !nothing.contains(value) {
            let absent = nothing.iter().find_map(|nothing| {
                let mut plain = now.clone();
                plain[name] = nothing.clone();
                parse(plain)
            });
            candidates.extend(absent);
        }
    }
    candidates
        .iter_mut()
        .for_each(Schedule::ask_nobody_who_is_missing);
    candidates
}

/// With one fault that lasts less: a moment, then a quarter, then half as long.
pub(super) fn with_shorter_faults(schedule: &Schedule) -> Vec<Schedule> {
    let mut candidates = Vec::new();
    for (place, fault) in schedule.faults.iter().enumerate() {
        for for_ms in [1, fault.for_ms / 4, fault.for_ms / 2] {
            if for_ms > 0 && for_ms < fault.for_ms && (fault.for_ms > GAP_MS || for_ms == 1) {
                let mut candidate = schedule.clone();
                candidate.faults[place].for_ms = for_ms;
                candidates.push(candidate);
            }
        }
    }
    candidates
}

/// With one thing less in one request: an instance of a batch, a check, a tag.
pub(super) fn with_less_in_requests(schedule: &Schedule) -> Vec<Schedule> {
    let now = json(&schedule.actions);
    let mut candidates = Vec::new();
    for without in without_one_element(&now) {
        if let Ok(actions) = serde_json::from_value::<Vec<Action>>(without) {
            let candidate = Schedule {
                actions,
                ..schedule.clone()
            };
            // Whole operations are another matter, and a request that says nothing is none.
            if candidate.operations() == schedule.operations() && says_something(&candidate) {
                candidates.push(candidate);
            }
        }
    }
    candidates
}

fn says_something(schedule: &Schedule) -> bool {
    let empty = |value: &Value, key: &str| value[key].as_array().is_some_and(Vec::is_empty);
    schedule.actions.iter().all(|action| match &action.what {
        Doing::Chain(ops) => ops.iter().all(|(_, op)| {
            let op = json(op);
            let inner = op.as_object().and_then(|it| it.values().next());
            inner.is_none_or(|it| !empty(it, "services") && !empty(it, "reports"))
        }),
        Doing::Follow { servers, .. } | Doing::Stream { servers, .. } => !servers.is_empty(),
    })
}

/// Every form of a value with one element less in one of its arrays, however deep.
fn without_one_element(value: &Value) -> Vec<Value> {
    match value {
        Value::Array(elements) => {
            let gone = (0..elements.len()).map(|place| {
                let mut rest = elements.clone();
                rest.remove(place);
                Value::Array(rest)
            });
            let inner = elements.iter().enumerate().flat_map(|(place, element)| {
                without_one_element(element).into_iter().map(move |smaller| {
                    let mut all = elements.clone();
                    all[place] = smaller;
                    Value::Array(all)
                })
            });
            gone.chain(inner).collect()
        }
        Value::Object(fields) => fields
            .iter()
            .flat_map(|(name, field)| {
                without_one_element(field).into_iter().map(move |smaller| {
                    let mut all = fields.clone();
                    all.insert(name.clone(), smaller);
                    Value::Object(all)
                })
            })
            .collect(),
        _ => Vec::new(),
    }
}

/// With one stretch of time gone in which nothing begins: all of it, or half.
pub(super) fn closer_together(schedule: &Schedule) -> Vec<Schedule> {
    let mut moments = moments(schedule);
    moments.push(0);
    moments.sort_unstable();
    moments.dedup();
    let gaps = moments.windows(2).map(|pair| (pair[0], pair[1] - pair[0]));
    let shifts = gaps.flat_map(|(from, gap)| [(from, gap - 1), (from, gap / 2)]);
    shifts
        .filter(|(_, shift)| *shift >= GAP_MS)
        .map(|(from, shift)| shifted(schedule, from, shift))
        .collect()
}

/// When something begins.
fn moments(schedule: &Schedule) -> Vec<u64> {
    let actions = schedule.actions.iter().map(|action| action.at_ms);
    let faults = schedule.faults.iter().map(|fault| fault.at_ms);
    let mut moments: Vec<u64> = actions.chain(faults).collect();
    let mut agents = [schedule.agent.clone(), schedule.other_agent.clone()];
    for agent in agents.iter_mut().flatten() {
        each_moment(agent, |at| moments.push(*at));
    }
    moments
}

/// Every moment of an agent's plan.
fn each_moment(agent: &mut AgentPlan, mut each: impl FnMut(&mut u64)) {
    each(&mut agent.start_ms);
    agent.crashes.iter_mut().for_each(|(at, _)| each(at));
    agent.flips_ms.iter_mut().for_each(&mut each);
    agent.blips_ms.iter_mut().for_each(&mut each);
    agent.reloads_ms.iter_mut().for_each(&mut each);
    agent.orders.iter_mut().for_each(|it| each(&mut it.at_ms));
    agent.reports.iter_mut().for_each(|it| each(&mut it.at_ms));
    agent.asks.iter_mut().for_each(|it| each(&mut it.at_ms));
    agent.troubles.iter_mut().for_each(|it| each(&mut it.at_ms));
}

/// Everything after `from` happens earlier.
fn shifted(schedule: &Schedule, from: u64, by: u64) -> Schedule {
    let earlier = |at: &mut u64| {
        if *at > from {
            *at -= by.min(*at - from);
        }
    };
    let mut candidate = schedule.clone();
    for Action { at_ms, what, .. } in &mut candidate.actions {
        earlier(at_ms);
        if let Doing::Follow { until_ms, .. } | Doing::Stream { until_ms, .. } = what {
            earlier(until_ms);
        }
    }
    for Fault { at_ms, .. } in &mut candidate.faults {
        earlier(at_ms);
    }
    let agents = [&mut candidate.agent, &mut candidate.other_agent];
    for agent in agents.into_iter().flatten() {
        each_moment(agent, earlier);
    }
    earlier(&mut candidate.heal_ms);
    earlier(&mut candidate.end_ms);
    // What begins when all is healed never does.
    let faults = candidate.faults.iter().map(|fault| fault.at_ms + 1);
    let troubles = candidate.agents().flat_map(|(_, agent)| &agent.troubles);
    let last = faults.chain(troubles.map(|it| it.at_ms + 1)).max();
    candidate.heal_ms = candidate.heal_ms.max(last.unwrap_or(0)).min(candidate.end_ms);
    candidate
}

fn json<T: Serialize>(value: &T) -> Value {
    serde_json::to_value(value).expect("a schedule can be written as JSON")
}

fn parse<T: DeserializeOwned>(value: Value) -> Option<T> {
    serde_json::from_value(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        generate::generate,
        run::run,
        schedule::{Trouble, Who},
    };

    #[test]
    fn fewer_servers_are_all_that_is_left_to_be_named() {
        let mut schedule = (0..)
            .map(generate)
            .find(|it| it.cluster.servers == 5 && !it.faults.is_empty())
            .expect("some seed has five servers");
        schedule.faults[0].what = Trouble::Crash(Who::Follower(4));
        schedule.faults.push(Fault {
            what: Trouble::Transfer { to: Some(4) },
            ..schedule.faults[0].clone()
        });
        for candidate in with_fewer_servers(&schedule) {
            assert_eq!(candidate.validate(), Ok(()));
        }
        let servers = with_fewer_servers(&schedule)
            .iter()
            .map(|it| it.cluster.servers)
            .collect::<Vec<_>>();
        assert_eq!(servers, [1, 3]);
    }

    #[test]
    fn candidates_make_sense() {
        let ways: [fn(&Schedule) -> Vec<Schedule>; 8] = [
            without_one_event,
            without_agent,
            with_less_of_agents,
            with_fewer_servers,
            plainer,
            with_shorter_faults,
            closer_together,
            ending_earlier,
        ];
        for schedule in (0..20).map(generate) {
            for candidate in ways.into_iter().flat_map(|way| way(&schedule)) {
                let valid = candidate.validate();
                assert_eq!(valid, Ok(()), "seed {}", schedule.seed);
            }
        }
    }

    #[test]
    fn a_server_that_is_alone_has_no_follower_to_hurt() {
        let mut alone = until(&with_fewer_servers(&generate(1))[0], 3_000);
        alone.agent = None;
        alone.other_agent = None;
        alone.ask_nobody_who_is_missing();
        alone.faults = vec![Fault {
            at_ms: 1_000,
            for_ms: 500,
            what: Trouble::Crash(Who::Follower(0)),
            lasts: false,
        }];
        assert_eq!((alone.cluster.servers, alone.validate()), (1, Ok(())));
        let report = run(&alone);
        assert!(report.history.panics.is_empty(), "{:?}", report.history.panics);
    }
}
