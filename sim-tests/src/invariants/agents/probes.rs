//! What an agent's probes meet is in the registry soon, and what one probe met changes nothing.

use std::time::Duration;

use sider_core::registry::CheckStatus;

use super::{IN_STEP, NAME, Violation, is_disturbed, registered};
use crate::{
    agency,
    history::{AgentInstance, AgentPromise, History},
    model::State,
    time::Time,
    truth::Point,
    words::list,
};

/// From a change of what is probed to the next run, and that and its report while all is well.
const PROBE: Duration = agency::PROBE_INTERVAL
    .saturating_mul(agency::PROBES)
    .saturating_add(Duration::from_millis(600));

/// While the servers are calm and nobody meddles with its node, what its probes meet is in the registry soon.
pub(super) fn tells_soon(history: &History, agent: &AgentPromise) -> Result<(), Violation> {
    let probed = agent.instances.iter().find(|it| it.id == agency::PROBED);
    let Some(probed) = probed else {
        return Ok(());
    };
    for (at, status) in &agent.flips {
        let due = *at + PROBE + history.bounds.latency * 12;
        // What happened before must have settled, with what it left to be compared with the servers.
        let blips = agent.blips.iter().any(|it| *it >= *at - IN_STEP && *it <= due);
        if blips || is_disturbed(history, agent, *at, (*at - IN_STEP, due)) {
            continue;
        }
        let truth = history.truth();
        let found = own_statuses(&truth.state(truth.applied_until(due)), agent, probed);
        if found != [*status] {
            let what = format!(
                "{}'s probe met {} from {at} on, and at {due} the registry says {}",
                agent.node,
                status.as_str(),
                in_words(&found)
            );
            return Err(Violation::new(NAME, due, what));
        }
    }
    Ok(())
}

/// What one probe met changes nothing while nothing else happens.
pub(super) fn keeps_calm(history: &History, agent: &AgentPromise) -> Result<(), Violation> {
    let Some(probed) = agent.instances.iter().find(|it| it.id == agency::PROBED) else {
        return Ok(());
    };
    let truth = history.truth();
    for at in &agent.blips {
        let until = *at + PROBE + history.bounds.latency * 12;
        // Two of them may meet two probes in a row.
        let alone = |other: &Time| other == at || *other > until || *other + PROBE < *at;
        if !agent.blips.iter().all(alone) || is_disturbed(history, agent, *at, (*at - IN_STEP, until)) {
            continue;
        }
        let statuses = |point: Point| own_statuses(&truth.state(point), agent, probed);
        let (first, last) = (truth.applied_until(*at), truth.applied_until(until));
        let before = statuses(first);
        if let Some(other) = (first..=last).map(statuses).find(|it| *it != before) {
            let what = format!(
                "one probe of {} met something else at {at}, and the registry says {} instead of {}",
                agent.node,
                in_words(&other),
                in_words(&before)
            );
            return Err(Violation::new(NAME, until, what));
        }
    }
    Ok(())
}

fn in_words(statuses: &[CheckStatus]) -> String {
    list(statuses.iter().map(|status| status.as_str()))
}

/// The statuses of an instance's own checks.
fn own_statuses(state: &State, agent: &AgentPromise, wanted: &AgentInstance) -> Vec<CheckStatus> {
    let checks = registered(state, agent, wanted).map(|instance| state.checks_that_count(instance));
    let own = checks
        .into_iter()
        .flatten()
        .filter(|check| check.instance.is_some());
    own.map(|check| check.status).collect()
}
