//! What services report to their agent holds once it is acknowledged, and no longer than its TTL (AGENT.md).

use std::time::Duration;

use sider_core::registry::{CheckStatus, Command};

use super::{NAME, Violation, is_meddled_with};
use crate::{
    agency,
    history::{AgentPromise, History, Outage, OutageKind, Reported},
    promised::EXPIRY_BOUND,
    time::{Time, drift_of},
};

/// Moments of a report may be wrong by so much, besides the clocks that count its TTL.
const WRONG: Duration = Duration::from_millis(10);
/// So long before a report all must be calm, so that no older one is under way.
const BEFORE: Duration = Duration::from_secs(1);

/// By how much a TTL may be counted wrong.
pub(super) fn wrong(history: &History) -> Duration {
    WRONG + drift_of(agency::TOLD_TTL, history.bounds.drift_ppm)
}

fn is_acknowledged(told: &Reported) -> bool {
    told.answer == Some(200)
}

/// Whether the instance of a report's check is registered or deregistered in a span.
fn is_ordered(agent: &AgentPromise, told: &Reported, (from, until): (Time, Time)) -> bool {
    agent
        .orders
        .iter()
        .any(|(id, begun, done)| told.check == agency::check_of(id) && *begun <= until && *done >= from)
}

/// Whether the agent was told to stop.
fn is_stop(outage: &Outage) -> bool {
    matches!(outage.kind, OutageKind::Stopped(_))
}

/// Whether the instance of a report's check is registered or deregistered in a span, or the whole agent taken away.
fn is_replaced(agent: &AgentPromise, told: &Reported, (from, until): (Time, Time)) -> bool {
    let mut stopped = agent.outages.iter().filter(|it| is_stop(it));
    is_ordered(agent, told, (from, until)) || stopped.any(|it| it.overlaps(from, until))
}

/// Whether an agent that is stopped and started in a span may take what was reported for newer than it is, or be kept from
/// telling that its time is over.
fn may_count_wrong(agent: &AgentPromise, (from, until): (Time, Time)) -> bool {
    let mut in_it = agent.outages.iter().filter(|it| it.overlaps(from, until));
    let Some(stop) = in_it.clone().find(|it| is_stop(it)) else {
        return false;
    };
    let unheard = !matches!(stop.kind, OutageKind::Stopped(Some((_, true))));
    unheard || in_it.any(|it| it != stop) || agent.jumps.iter().any(|at| (from..=until).contains(at))
}

/// An acknowledged renewal holds for its TTL, whatever fails.
pub(super) fn hold(history: &History, agent: &AgentPromise) -> Result<(), Violation> {
    let truth = history.truth();
    for told in agent.reports.iter().filter(|it| is_acknowledged(it)) {
        // Servers have received it after it was sent.
        let until = told.invoked + agency::TOLD_TTL - wrong(history);
        let span = (told.invoked, until);
        if told.status == CheckStatus::Critical
            || is_replaced(agent, told, span)
            || is_meddled_with(history, agent, span)
        {
            continue;
        }
        let expires = |command: &Command| match command {
            Command::ExpireChecks(all) => all
                .iter()
                .any(|it| it.check.node.as_str() == agent.node && it.check.id.as_str() == told.check),
            _ => false,
        };
        let expired = truth.entries.iter().find(|entry| {
            entry.applied > told.returned
                && entry.applied < until
                && entry
                    .command
                    .as_ref()
                    .is_some_and(|(command, _)| expires(command))
        });
        if let Some(entry) = expired {
            let what = format!(
                "{} of {} expired at {}, though its report of {} was acknowledged",
                told.check, agent.node, entry.applied, told.invoked
            );
            return Err(Violation::new(NAME, entry.applied, what));
        }
    }
    Ok(())
}

/// While all is calm, what is acknowledged is in the registry at once, and what nobody renews expires: the agent does not
/// renew it, not even by being started again, after whatever stop.
pub(super) fn run_out(history: &History, agent: &AgentPromise) -> Result<(), Violation> {
    let truth = history.truth();
    for (place, told) in agent.reports.iter().enumerate() {
        if !is_acknowledged(told) {
            continue;
        }
        let next = agent.reports[place + 1..]
            .iter()
            .find(|it| it.check == told.check);
        let due =
            told.returned + agency::TOLD_TTL + EXPIRY_BOUND + wrong(history) + history.bounds.latency * 12;
        let judged = |until: Time| {
            let span = (told.invoked - BEFORE, until);
            until <= history.ended
                && next.is_none_or(|it| it.invoked > until)
                && truth.calm_between(span.0, span.1)
                && !is_ordered(agent, told, span)
                // What somebody took away before the report is there again when it is acknowledged.
                && !is_meddled_with(history, agent, (told.invoked, until))
        };
        let status = |at: Time| {
            let state = truth.state(truth.applied_until(at));
            let is = state
                .checks
                .iter()
                .find(|check| check.node.as_str() == agent.node && check.id.as_str() == told.check);
            is.map(|check| check.status)
        };
        let fresh = told.returned < told.invoked + agency::TOLD_TTL - wrong(history);
        let there = !is_replaced(agent, told, (told.invoked - BEFORE, told.returned));
        let wrong = if fresh && there && judged(told.returned) && status(told.returned) != Some(told.status) {
            Some((told.returned, "acknowledged"))
        } else if judged(due)
            && !may_count_wrong(agent, (told.invoked - BEFORE, due))
            && status(due).is_some_and(|it| it != CheckStatus::Critical)
        {
            Some((due, "long past"))
        } else {
            None
        };
        if let Some((at, how)) = wrong {
            let is = status(at).map_or("not there", CheckStatus::as_str);
            let what = format!(
                "{} of {} is {is} at {at}, when its report of {} ({}) is {how}",
                told.check,
                agent.node,
                told.invoked,
                told.status.as_str()
            );
            return Err(Violation::new(NAME, at, what));
        }
    }
    Ok(())
}

/// An agent that was told to stop brings back with it what was acknowledged before, as long as that holds.
pub(super) fn come_back(history: &History, agent: &AgentPromise) -> Result<(), Violation> {
    let truth = history.truth();
    for told in agent.reports.iter().filter(|it| is_acknowledged(it)) {
        let holds = told.invoked + agency::TOLD_TTL - wrong(history);
        let span = (told.invoked - BEFORE, holds);
        let mut stops = agent
            .outages
            .iter()
            .filter(|it| is_stop(it) && it.from > told.returned);
        let again = stops
            .next()
            .and_then(|stop| stop.until)
            .filter(|again| *again < holds);
        let others = agent.reports.iter().filter(|it| it.check == told.check);
        let is_last = others
            .filter(|it| it.returned >= told.invoked && it.invoked <= holds)
            .count()
            == 1;
        let Some(again) = again.filter(|_| is_last) else {
            continue;
        };
        if is_ordered(agent, told, span)
            || may_count_wrong(agent, span)
            || !truth.calm_between(span.0, span.1)
            || is_meddled_with(history, agent, span)
        {
            continue;
        }
        let status = |command: &Command| {
            let Command::Register(all) = command else {
                return None;
            };
            let mut checks = all.iter().flat_map(|it| &it.checks);
            let check = checks.find(|it| it.node.as_str() == agent.node && it.id.as_str() == told.check)?;
            Some(check.status)
        };
        let registered = truth.entries.iter().find_map(|entry| {
            let in_time = entry.applied > again && entry.applied < holds;
            let (command, _) = entry.command.as_ref().filter(|_| in_time)?;
            Some((entry.applied, status(command)?))
        });
        if let Some((at, status)) = registered
            && status != Some(told.status)
        {
            let what = format!(
                "{} of {} is registered as {status:?} at {at}, after a stop, though its report of {} ({}) holds until {holds}",
                told.check,
                agent.node,
                told.invoked,
                told.status.as_str()
            );
            return Err(Violation::new(NAME, at, what));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariants::story::{SHARED, Story};
    use CheckStatus::Passing;

    const CHECK: &str = "chk:told:0";

    /// A service has reported to its agent, which says that it has passed that on.
    fn story(passed_on: bool) -> Story {
        let mut story = Story::new();
        story.register("told", 1);
        story.agent(SHARED);
        story.wait_ms(8_000);
        let invoked = story.now();
        if passed_on {
            story.report(CHECK, Passing);
        }
        story.wait_ms(5);
        let returned = story.now();
        story.record().agents[0].reports.push(Reported {
            check: CHECK.into(),
            status: Passing,
            invoked,
            returned,
            answer: Some(200),
        });
        story
    }

    fn judged(story: Story) -> Result<(), String> {
        let history = story.finish();
        let agent = &history.agents[0];
        let all = hold(&history, agent)
            .and_then(|()| run_out(&history, agent))
            .and_then(|()| come_back(&history, agent));
        all.map_err(|it| it.what)
    }

    /// It expires after so many milliseconds, if ever.
    fn expiring(after_ms: Option<u64>) -> Story {
        let mut story = story(true);
        if let Some(ms) = after_ms {
            story.wait_ms(ms);
            story.expire(CHECK);
        }
        story.wait_ms(5_000);
        story
    }

    #[test]
    fn a_report_holds_for_its_ttl() {
        assert_eq!(judged(expiring(Some(1_600))), Ok(()));
        let early = judged(expiring(Some(1_000))).expect_err("it was acknowledged");
        assert!(early.contains("expired at"), "{early}");
    }

    #[test]
    fn clocks_that_run_wrong_count_a_ttl_wrong() {
        let with_clocks = |after_ms: u64| {
            let mut story = expiring(Some(after_ms));
            story.record().bounds.drift_ppm = 200_000;
            judged(story)
        };
        assert_eq!(with_clocks(1_300), Ok(()));
        assert!(with_clocks(1_000).is_err());
    }

    #[test]
    fn a_report_holds_no_longer_than_its_ttl() {
        let late = judged(expiring(None)).expect_err("nobody reports any more");
        assert!(late.contains("long past"), "{late}");
        let mut crashed = expiring(None);
        crashed.record().agents[0].reports[0].answer = Some(500);
        assert_eq!(judged(crashed), Ok(()));
    }

    #[test]
    fn a_report_that_is_acknowledged_is_there() {
        let mut story = story(false);
        story.wait_ms(100);
        let lost = judged(story).expect_err("it was acknowledged");
        assert!(lost.contains("is critical"), "{lost}");
    }

    #[test]
    fn a_check_that_is_registered_anew_is_another_one() {
        let mut story = expiring(Some(1_000));
        let from = story.now() - Duration::from_secs(6);
        story.record().agents[0]
            .orders
            .push(("told".into(), from, from + Duration::from_secs(6)));
        assert_eq!(judged(story), Ok(()));
    }

    /// A service has reported; its agent is stopped, and is back with this after so long.
    fn stopped(back: impl FnOnce(&mut Story)) -> Story {
        let mut story = story(true);
        story.wait_ms(100);
        let from = story.now();
        story.deregister("told");
        let gone = story.now();
        story.wait_ms(200);
        let until = story.now();
        story.record().agents[0].outages.push(Outage {
            from,
            until: Some(until),
            kind: OutageKind::Stopped(Some((gone, true))),
            what: "it is told to stop".into(),
        });
        story.wait_ms(5);
        back(&mut story);
        story
    }

    #[test]
    fn what_was_reported_comes_back_with_its_agent() {
        let back = |status: Option<CheckStatus>| {
            let mut story = stopped(|story| {
                match status {
                    Some(_) => story.register_passing("told", 1),
                    None => story.register("told", 1),
                };
            });
            story.wait_ms(1_200);
            if status.is_some() {
                story.report(CHECK, CheckStatus::Critical);
            }
            story.wait_ms(5_000);
            judged(story)
        };
        assert_eq!(back(Some(Passing)), Ok(()));
        let lost = back(None).expect_err("it holds");
        assert!(lost.contains("after a stop"), "{lost}");
    }

    #[test]
    fn what_comes_back_holds_no_longer_than_its_ttl() {
        let renewed = |jump: bool| {
            let mut story = stopped(|story| {
                story.register_passing("told", 1);
            });
            if jump {
                let at = story.now() - Duration::from_millis(50);
                story.record().agents[0].jumps.push(at);
            }
            story.wait_ms(5_000);
            judged(story)
        };
        let late = renewed(false).expect_err("nobody reports any more");
        assert!(late.contains("long past"), "{late}");
        assert_eq!(renewed(true), Ok(()));
    }
}
