//! What befalls an agent's host shows: a dead agent's TTL checks expire, one that comes back is soon in step, and one that
//! was told to stop has taken everything along (AGENT.md).

use std::time::Duration;

use sider_core::registry::{CheckStatus, Command};

use super::{IN_STEP, NAME, Violation, is_meddled_with};
use crate::{
    agency,
    history::{AgentPromise, FaultKind, History, Outage, OutageKind},
    promised::{AGENT_BACKOFF_MAX, EXPIRY_BOUND},
    time::Time,
};

/// What is under way when an agent falls silent has arrived by then, beside what messages take.
const LAST_WORDS: Duration = Duration::from_millis(300);
/// An agent that goes on has told the servers by then, beside what messages take.
const AGAIN: Duration = Duration::from_millis(1_200);
/// A call to a server that does not answer may keep an agent for so long.
pub(super) const CALL: Duration = Duration::from_secs(3);
/// So long before it is looked whether all is calm: requests that failed before may still be carried out until then.
const BEFORE: Duration = Duration::from_secs(2);

/// So long it is looked whether what left comes back by itself.
const AFTERWARDS: Duration = Duration::from_secs(2);

/// Whether nothing else was the matter with an agent from so long before an outage until a moment.
fn alone(agent: &AgentPromise, place: usize, before: Duration, until: Time) -> bool {
    let from = agent.outages[place].from - before;
    let others = agent.outages.iter().enumerate().filter(|(at, _)| *at != place);
    agent.started < from && !others.into_iter().any(|(_, it)| it.overlaps(from, until))
}

/// Whether servers answer quickly all the time.
fn servers_are_sound(history: &History, from: Time, until: Time) -> bool {
    let lasting = |kind: FaultKind| kind == FaultKind::Lasting;
    history.truth().calm_between(from, until)
        // A server that is silent for good takes its time when it is asked.
        && !history.faults.iter().any(|it| lasting(it.kind) && it.from <= until)
}

/// While no server hears of an agent, its TTL checks expire.
pub(super) fn go_without_saying(history: &History, agent: &AgentPromise) -> Result<(), Violation> {
    let promised = agent.instances.iter().flat_map(|it| &it.checks);
    let ttl = promised.filter_map(|check| check.ttl).max();
    let ttl = ttl.unwrap_or_default().max(agency::TOLD_TTL);
    let latency = history.bounds.latency * 12;
    for (place, outage) in silences(agent) {
        let due = outage.from + LAST_WORDS + latency + ttl + EXPIRY_BOUND;
        let ended = outage.until.unwrap_or(history.ended).min(history.ended);
        let span = (outage.from - BEFORE, due);
        let judged = due < ended
            && alone(agent, place, IN_STEP, due)
            && servers_are_sound(history, span.0, span.1)
            && !is_meddled_with(history, agent, span);
        if !judged {
            continue;
        }
        let truth = history.truth();
        let state = truth.state(truth.applied_until(due));
        let alive = state.checks.iter().find(|check| {
            check.node.as_str() == agent.node
                && check.definition.ttl().is_some_and(|it| it <= ttl)
                && check.status != CheckStatus::Critical
        });
        if let Some(check) = alive {
            let what = format!(
                "{} of {} is still {} at {due}, though no server has heard of it since {} ({})",
                check.id,
                agent.node,
                check.status.as_str(),
                outage.from,
                outage.what
            );
            return Err(Violation::new(NAME, due, what));
        }
    }
    Ok(())
}

/// The outages during which no server hears of an agent. One that was told to stop is heard until it has.
fn silences(agent: &AgentPromise) -> impl Iterator<Item = (usize, Outage)> {
    let outages = agent.outages.iter().enumerate();
    outages.filter_map(|(place, outage)| {
        let from = match outage.kind {
            OutageKind::Disk | OutageKind::Other | OutageKind::Stopped(None) => return None,
            OutageKind::Stopped(Some((at, _))) => at,
            _ => outage.from,
        };
        let outage = Outage {
            from,
            ..outage.clone()
        };
        Some((place, outage))
    })
}

/// When it is over, the agent is soon in step again.
pub(super) fn come_to_an_end(history: &History, agent: &AgentPromise) -> Result<(), Violation> {
    for (place, outage) in agent.outages.iter().enumerate() {
        let Some(until) = outage.until else {
            continue;
        };
        let lasted = until.since(outage.from);
        let waits = match outage.kind {
            OutageKind::Unheard | OutageKind::Other => (lasted * 2).min(AGENT_BACKOFF_MAX),
            OutageKind::Disk => continue,
            _ => Duration::ZERO,
        };
        let from = outage.from - IN_STEP;
        let asked = |(_, begun, done): &(String, Time, Time)| *begun <= until && *done >= from;
        let told = agent
            .reports
            .iter()
            .any(|it| it.invoked <= until && it.returned >= from);
        let called = if told || agent.orders.iter().any(asked) {
            CALL
        } else {
            Duration::ZERO
        };
        let due = until + waits + called + AGAIN + history.bounds.latency * 20;
        let judged = due < history.ended
            && alone(agent, place, IN_STEP, due)
            && servers_are_sound(history, from, due)
            && !is_meddled_with(history, agent, (from, due));
        if !judged {
            continue;
        }
        let truth = history.truth();
        let state = truth.state(truth.applied_until(due));
        for wanted in agent.instances.iter().filter(|it| it.id == "renewed") {
            let check = state.checks.iter().find(|check| {
                check.node.as_str() == agent.node
                    && check.namespace == wanted.namespace
                    && check.id.as_str() == agency::check_of(&wanted.id)
            });
            if check.is_none_or(|check| check.status != CheckStatus::Passing) {
                let is = check.map_or("not there", |check| check.status.as_str());
                let what = format!(
                    "what {} renews is {is} at {due}, though it goes on since {until} ({} before)",
                    agent.node, outage.what
                );
                return Err(Violation::new(NAME, due, what));
            }
        }
    }
    Ok(())
}

/// An agent that was told to stop has deregistered its node, and nothing of it is registered until it is started again.
pub(super) fn leave_nothing(history: &History, agent: &AgentPromise) -> Result<(), Violation> {
    let truth = history.truth();
    for (place, outage) in agent.outages.iter().enumerate() {
        let OutageKind::Stopped(Some((at, heard))) = outage.kind else {
            continue;
        };
        let until = outage.until.unwrap_or(history.ended).min(history.ended);
        let until = until.min(at + AFTERWARDS);
        let span = (outage.from - BEFORE, until);
        let judged = alone(agent, place, BEFORE, until)
            && servers_are_sound(history, span.0, span.1)
            && !is_meddled_with(history, agent, span);
        if !judged {
            continue;
        }
        if !heard {
            let what = format!("{} was told to stop, and could not deregister", agent.node);
            return Err(Violation::new(NAME, at, what));
        }
        let state = truth.state(truth.applied_until(at));
        let registers = |command: &Command| match command {
            Command::Register(all) => all.iter().any(|it| it.node.name.as_str() == agent.node),
            _ => false,
        };
        let later = truth.entries.iter().find(|entry| {
            entry.applied > at
                && entry.applied < until
                && entry
                    .command
                    .as_ref()
                    .is_some_and(|(command, _)| registers(command))
        });
        let left = state.nodes.iter().any(|node| node.name.as_str() == agent.node);
        if left || later.is_some() {
            let what = format!(
                "{} was told to stop, and is {}",
                agent.node,
                if left {
                    "still registered"
                } else {
                    "registered again later"
                },
            );
            return Err(Violation::new(
                NAME,
                later.map_or(at, |entry| entry.applied),
                what,
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use sider_core::registry::Deregister;

    use super::*;
    use crate::{
        history::{AgentCheck, AgentInstance, AgentLooks, ServerNumber},
        invariants::story::{SHARED, Story, TTL_MS},
    };
    use CheckStatus::{Critical, Passing};

    const RENEWED: &str = "chk:renewed:0";

    /// An agent that has renewed its check for long.
    fn story() -> Story {
        let mut story = Story::new();
        story.register_passing("renewed", 1);
        let started = story.now();
        story.record().agents.push(AgentPromise {
            node: SHARED.into(),
            servers: vec![ServerNumber(1)],
            instances: vec![AgentInstance {
                namespace: sider_core::registry::Namespace::default(),
                id: "renewed".into(),
                port: 80,
                looks: AgentLooks::default(),
                service: "web".into(),
                checks: vec![AgentCheck {
                    id: RENEWED.into(),
                    name: "ttl".into(),
                    status: Some(Passing),
                    output: None,
                    ttl: Some(Duration::from_millis(TTL_MS)),
                    interval: Duration::ZERO,
                }],
            }],
            started,
            settled: started,
            ..AgentPromise::default()
        });
        story.wait_ms(8_000);
        story
    }

    fn befall(story: &mut Story, kind: OutageKind, for_ms: Option<u64>) {
        let from = story.now();
        story.record().agents[0].outages.push(Outage {
            from,
            until: for_ms.map(|ms| from + Duration::from_millis(ms)),
            kind,
            what: "it is the matter".into(),
        });
    }

    fn agent(
        story: Story,
        judge: fn(&History, &AgentPromise) -> Result<(), Violation>,
    ) -> Result<(), String> {
        let history = story.finish();
        judge(&history, &history.agents[0]).map_err(|it| it.what)
    }

    #[test]
    fn what_nobody_renews_must_expire_when_no_server_hears_of_the_agent() {
        let silent = |kind: OutageKind, expires: bool| {
            let mut story = story();
            befall(&mut story, kind, None);
            story.wait_ms(TTL_MS);
            if expires {
                story.expire(RENEWED);
            }
            story.wait_ms(4_000);
            agent(story, go_without_saying)
        };
        for kind in [OutageKind::Down, OutageKind::Paused, OutageKind::Unheard] {
            assert_eq!(silent(kind, true), Ok(()));
            let complaint = silent(kind, false).expect_err("it is renewed by nobody");
            assert!(complaint.contains("is still passing"), "{complaint}");
        }
        assert_eq!(silent(OutageKind::Other, false), Ok(()));
    }

    #[test]
    fn under_other_troubles_it_may_stay() {
        let mut story = story();
        befall(&mut story, OutageKind::Down, None);
        befall(&mut story, OutageKind::Other, Some(100));
        story.wait_ms(TTL_MS + 4_000);
        assert_eq!(agent(story, go_without_saying), Ok(()));
    }

    #[test]
    fn an_agent_that_goes_on_is_soon_in_step() {
        let back = |status: CheckStatus| {
            let mut story = story();
            befall(&mut story, OutageKind::Down, Some(500));
            story.report(RENEWED, status);
            story.wait_ms(5_000);
            agent(story, come_to_an_end)
        };
        assert_eq!(back(Passing), Ok(()));
        let complaint = back(Critical).expect_err("it should be renewed");
        assert!(complaint.contains("renews is critical"), "{complaint}");
    }

    fn stop(story: &mut Story, deregisters: bool, heard: bool) {
        let from = story.now();
        story.wait_ms(5);
        if deregisters {
            let node = sider_core::registry::NodeName::parse(SHARED).expect("a valid name");
            story.commit(sider_core::registry::Command::Deregister(Deregister::Node(node)));
        }
        let at = story.now();
        story.record().agents[0].outages.push(Outage {
            from,
            until: Some(at + Duration::from_secs(3)),
            kind: OutageKind::Stopped(Some((at, heard))),
            what: "it is told to stop".into(),
        });
    }

    #[test]
    fn an_agent_that_stops_takes_everything_along() {
        let stopped = |deregisters: bool, heard: bool| {
            let mut story = story();
            stop(&mut story, deregisters, heard);
            story.wait_ms(4_000);
            agent(story, leave_nothing)
        };
        assert_eq!(stopped(true, true), Ok(()));
        let left = stopped(false, true).expect_err("its node is left");
        assert!(left.contains("is still registered"), "{left}");
        let unheard = stopped(true, false).expect_err("servers were there");
        assert!(unheard.contains("could not deregister"), "{unheard}");
    }

    #[test]
    fn an_agent_that_stopped_registers_nothing() {
        let mut story = story();
        stop(&mut story, true, true);
        story.wait_ms(500);
        story.register("renewed", 2);
        story.wait_ms(4_000);
        let again = agent(story, leave_nothing).expect_err("it has stopped");
        assert!(again.contains("registered again later"), "{again}");
    }
}
