//! What an agent sends on is answered as a server would answer it (`core/src/agent/api/forward.rs`). What is answered, the
//! judges of servers' answers judge; this one says that, and when, it is answered while the servers are calm and nothing
//! befell the agent: no request fails or takes long, and who waits is woken soon by what differs, and by nothing else.

use std::time::Duration;

use super::{
    Violation,
    availability::{longest, needs_an_upgrade},
    watches::lateness,
};
use crate::{
    history::{AgentPromise, CUT_OFF, FaultKind, History, Operation, Outcome, ServerNumber},
    operation::{Ask, Op},
    time::{Time, drift_of},
    truth::Point,
};

/// Its name.
pub const NAME: &str = "forwarded";

/// See the module's page.
///
/// # Errors
/// A request through an agent failed, or waited, without a reason.
pub fn check(history: &History) -> Result<(), Violation> {
    for operation in &history.operations {
        let Some(agent) = history.agent_of(operation) else {
            continue;
        };
        let through = Through {
            history,
            operation,
            agent,
        };
        through
            .succeeds()
            .and_then(|()| through.wakes())
            .map_err(|what| {
                let what = format!("{} of {}: {what}", operation.op, operation.server);
                Violation::of(NAME, operation.returned, [operation.id], what)
            })?;
    }
    Ok(())
}

/// Whether nothing is wrong with any server, and nothing befell the agent, in this time.
pub(super) fn all_is_well(history: &History, agent: &AgentPromise, from: Time, until: Time) -> bool {
    let lasts = |fault: &crate::history::FaultSpan| fault.kind == FaultKind::Lasting && fault.from <= until;
    history.truth().calm_between(from, until)
        && agent.is_left_alone(from, until)
        // It tries first whoever answered last, and that may be one who is broken for good, or was removed.
        && !history.faults.iter().any(lasts)
        && agent
            .servers
            .iter()
            .all(|server| history.is_member(*server, until) == Some(true))
}

/// How long news take through an agent while all is well: as long as from a server, the way to the agent's host and back, and
/// another to the server and back of who waited behind somebody else.
pub(super) fn way_of_news(history: &History) -> Duration {
    lateness(&history.bounds) + history.bounds.latency * 6
}

/// When somebody first asked an agent, in its life of this operation, for what it keeps since then: at the earliest, as its
/// process may not have ended when it may have, and may have heard a question whose answer got lost.
pub(super) fn kept_since(history: &History, agent: &AgentPromise, operation: &Operation) -> Option<Time> {
    let (ask, _) = operation.op.asked()?;
    let same = |it: &&Operation| {
        it.server == operation.server
            && it
                .op
                .asked()
                .is_some_and(|(asked, how)| asked == ask && how.is_cached())
            && !matches!(it.outcome, Outcome::Failed(_))
            && it.invoked < operation.invoked
            && !agent.has_ended_since(it, operation.invoked)
    };
    history.operations.iter().find(same).map(|it| it.invoked)
}

/// A request through an agent.
struct Through<'a> {
    history: &'a History,
    operation: &'a Operation,
    agent: &'a AgentPromise,
}

impl Through<'_> {
    fn succeeds(&self) -> Result<(), String> {
        let Through {
            history,
            operation,
            agent,
        } = *self;
        if !all_is_well(history, agent, operation.invoked, operation.returned) {
            return Ok(());
        }
        let took = operation.returned.since(operation.invoked);
        let too_long = took > longest(history, operation) + history.bounds.latency * 8;
        match &operation.outcome {
            Outcome::Failed(_) if needs_an_upgrade(history, operation) => Ok(()),
            Outcome::Failed(reason) if operation.impatient && reason.ends_with("timed out") => Ok(()),
            Outcome::Failed(reason) => Err(format!("it failed while all was well: {reason}")),
            Outcome::Unknown(reason) if !too_long && self.had_a_dead_connection(reason) => Ok(()),
            Outcome::Unknown(reason) if too_long || !operation.impatient && reason != CUT_OFF => {
                Err(format!("no answer in {took:?} while all was well: {reason}"))
            }
            Outcome::Done(_) | Outcome::Refused { .. } if too_long => {
                Err(format!("it took {took:?} while all was well"))
            }
            _ => Ok(()),
        }
    }

    /// Who had a connection to a process that is gone, or over a link that was cut, learns of it when it uses that again: the
    /// client one to the agent, or the agent one to a server. Since when they were not used is not known.
    fn had_a_dead_connection(&self, reason: &str) -> bool {
        let Through {
            history,
            operation,
            agent,
        } = *self;
        let until = operation.returned;
        let befell = |server: &ServerNumber| {
            let mut faults = history.faults.iter();
            history.truth().restarted_between(*server, agent.started, until)
                || faults.any(|it| it.servers.contains(server) && it.from <= until)
        };
        reason.ends_with("connection reset")
            && (agent.was_disturbed(until) || agent.servers.iter().any(befell))
    }

    fn wakes(&self) -> Result<(), String> {
        let Op::Wait {
            ask,
            freshness,
            index,
            wait_ms,
        } = &self.operation.op
        else {
            return Ok(());
        };
        let Some(got) = self.operation.answer().and_then(|answer| answer.index) else {
            return Ok(());
        };
        let Through {
            history,
            operation,
            agent,
        } = *self;
        // What it keeps follows the servers since it was first asked for.
        let since = match freshness.is_cached() {
            false => Some(operation.invoked),
            true => kept_since(history, agent, operation),
        };
        let Some(since) = since.filter(|_| *index > 0) else {
            return Ok(());
        };
        let wait = Duration::from_millis(*wait_ms);
        let ends = operation.invoked + wait.saturating_sub(drift_of(wait, history.bounds.drift_ppm));
        let calm = all_is_well(history, agent, operation.invoked, operation.returned);
        if calm && operation.returned < ends && got <= *index {
            return Err(format!("woken early with index {got}"));
        }
        let Some(there) = self.first_lasting_difference(ask, *index) else {
            return Ok(());
        };
        let owed = there.max(operation.invoked) + way_of_news(history);
        match operation.returned > owed && all_is_well(history, agent, since, owed) {
            true => Err(format!(
                "answered only at {}; what it waited for was there at {there}, it was owed by {owed}",
                operation.returned
            )),
            false => Ok(()),
        }
    }

    /// When the first difference was applied that was not undone before the answer.
    fn first_lasting_difference(&self, ask: &Ask, index: u64) -> Option<Time> {
        let truth = self.history.truth();
        let topic = ask.topic();
        let (before, _) = truth.points_of_index(&topic, index)?;
        let answered = truth.applied_until(self.operation.returned);
        let steps = truth.steps(&topic).iter();
        let later = steps.filter(|step| step.index > index && step.point <= answered);
        let mut lasting: Option<Point> = None;
        for step in later {
            lasting = match truth.differs(ask, before, step.point) {
                true => lasting.or(Some(step.point)),
                false => None,
            };
        }
        Some(truth.entries.get(lasting?.checked_sub(1)?)?.applied)
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::story::{Story, web},
        *,
    };
    use crate::{
        agency,
        history::{Outage, OutageKind},
        operation::Freshness,
    };

    const AGENT: u8 = ServerNumber::AGENTS;

    /// It is calm, and an agent runs.
    fn story() -> Story {
        let mut story = Story::new();
        story.wait_ms(100);
        story.agent(&agency::node(0));
        story.wait_ms(10_000);
        story
    }

    fn complaint(story: Story) -> Option<String> {
        check(&story.finish()).err().map(|it| it.what)
    }

    #[test]
    fn answers_in_time_are_fine() {
        let mut story = story();
        story.read(AGENT, web(), Freshness::Default);
        let wait = story.wait_for(AGENT, web(), 1, 1_000);
        story.stretch(wait, 0, 1_000);
        story.wait_ms(5_000);
        assert_eq!(complaint(story), None);
    }

    #[test]
    fn a_failure_while_all_is_well_is_found_unless_something_befell_the_agent() {
        let failed = |outage: bool| {
            let mut story = story();
            let read = story.read(AGENT, web(), Freshness::Default);
            story.set_outcome(read, Outcome::Failed("No known Consul servers".into()));
            if outage {
                let now = story.now();
                story.record().agents[0].outages.push(Outage {
                    from: now - Duration::from_millis(500),
                    until: Some(now),
                    kind: OutageKind::Other,
                    what: "something".into(),
                });
            }
            story.wait_ms(5_000);
            complaint(story)
        };
        assert!(
            failed(false)
                .expect("it failed")
                .contains("failed while all was well")
        );
        assert_eq!(failed(true), None);
    }

    #[test]
    fn an_answer_that_does_not_come_is_found_unless_its_connection_was_dead() {
        let unanswered = |reason: &str, restarts: bool| {
            let mut story = story();
            if restarts {
                story.restart(1);
                story.wait_ms(8_000);
            }
            let read = story.read(AGENT, web(), Freshness::Default);
            story.set_outcome(read, Outcome::Unknown(reason.into()));
            story.wait_ms(5_000);
            complaint(story)
        };
        let missing = |complaint: Option<String>| complaint.is_some_and(|it| it.contains("no answer in"));
        assert!(missing(unanswered("10.0.0.1: connection reset", false)));
        assert!(missing(unanswered("10.0.0.1: timed out", true)));
        assert_eq!(unanswered("10.0.0.1: connection reset", true), None);
    }

    #[test]
    fn an_answer_that_takes_long_is_found() {
        let mut story = story();
        let read = story.read(AGENT, web(), Freshness::Default);
        story.stretch(read, 2_000, 0);
        story.wait_ms(5_000);
        assert!(complaint(story).expect("too long").contains("it took"));
    }

    #[test]
    fn who_is_woken_late_or_for_nothing_is_found() {
        let mut late = story();
        late.register("web-1", 1);
        late.wait_ms(10);
        let wait = late.wait_for(AGENT, web(), 1, 9_000);
        late.stretch(wait, 3_000, 3_000);
        late.wait_ms(8_000);
        assert!(complaint(late).expect("late").contains("was owed by"));
        let mut early = story();
        early.wait_for(AGENT, web(), 1, 9_000);
        early.wait_ms(5_000);
        assert!(complaint(early).expect("early").contains("woken early"));
    }
}
