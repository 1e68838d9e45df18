//! Situations of agents, their hosts, and the services that they look after.

use std::{sync::Arc, time::Duration};

use sider_core::registry::{Check, CheckStatus, Command, Probe};

use super::counting::expiries;
use crate::{
    agency,
    history::{AgentPromise, History, Outage, OutageKind, Reported},
};

/// What is asked of an agent shortly before its host is hurt.
const SHORTLY: Duration = Duration::from_millis(500);

fn outages(h: &History) -> impl Iterator<Item = (&AgentPromise, &Outage)> {
    let agents = h.agents.iter();
    agents.flat_map(|agent| agent.outages.iter().map(move |outage| (agent, outage)))
}

fn lasts(h: &History, kind: OutageKind) -> u64 {
    let lasted = |it: &Outage| it.until.unwrap_or(h.ended).since(it.from);
    let long = outages(h).filter(|(_, it)| it.kind == kind && lasted(it) > agency::RENEWED_TTL);
    long.count() as u64
}

/// An agent was told to stop, and the servers heard of it.
pub(super) fn stopped(h: &History) -> u64 {
    let heard = |it: &Outage| matches!(it.kind, OutageKind::Stopped(Some((_, true))));
    outages(h).filter(|(_, it)| heard(it)).count() as u64
}

/// An agent loses power shortly after it carried out an order.
pub(super) fn cut_after_order(h: &History) -> u64 {
    let cut = outages(h).filter(|(_, it)| it.kind == OutageKind::Down && it.what.contains("power"));
    let shortly = |(agent, outage): &(&AgentPromise, &Outage)| {
        let mut done = agent.orders.iter().map(|(_, _, done)| *done);
        done.any(|done| done <= outage.from && done + SHORTLY >= outage.from)
    };
    cut.filter(shortly).count() as u64
}

/// An agent stands still for longer than its TTL.
pub(super) fn paused_out(h: &History) -> u64 {
    lasts(h, OutageKind::Paused)
}

/// No server hears of an agent that runs, for longer than its TTL.
pub(super) fn unheard_out(h: &History) -> u64 {
    lasts(h, OutageKind::Unheard)
}

/// An agent's disk fails while it is asked for something.
pub(super) fn disk_fails(h: &History) -> u64 {
    let fails = outages(h).filter(|(_, it)| it.kind == OutageKind::Disk);
    let asked = |(agent, outage): &(&AgentPromise, &Outage)| {
        let mut orders = agent.orders.iter();
        orders.any(|(_, from, until)| outage.overlaps(*from, *until))
    };
    fails.filter(asked).count() as u64
}

fn reports(h: &History) -> impl Iterator<Item = &Reported> {
    h.agents.iter().flat_map(|agent| &agent.reports)
}

/// A report is answered with 200.
pub(super) fn acknowledged(h: &History) -> u64 {
    reports(h).filter(|it| it.answer == Some(200)).count() as u64
}

/// A report is answered with 500.
pub(super) fn unheard_report(h: &History) -> u64 {
    reports(h).filter(|it| it.answer == Some(500)).count() as u64
}

/// A check expires on which a service reported.
pub(super) fn told_expires(h: &History) -> u64 {
    let told = |command: &Command| match command {
        Command::ExpireChecks(all) => all.iter().any(|expiry| {
            let is_it = |it: &Reported| it.check == expiry.check.id.as_str();
            let of_node = |agent: &&AgentPromise| agent.node == expiry.check.node.as_str();
            h.agents
                .iter()
                .filter(of_node)
                .any(|agent| agent.reports.iter().any(is_it))
        }),
        _ => false,
    };
    let expired = expiries(h).filter(|entry| entry.command.as_ref().is_some_and(|(it, _)| told(it)));
    expired.count() as u64
}

/// Agents in whose nodes' checks there was one like this at some time.
fn with_check(h: &History, like: impl Fn(&Check) -> bool) -> u64 {
    let of = |agent: &AgentPromise, check: &Arc<Check>| agent.node == check.node.as_str() && like(check);
    let seen = |agent: &&AgentPromise| {
        let mut entries = h.truth().entries.iter();
        entries.any(|entry| entry.state.checks.iter().any(|check| of(agent, check)))
    };
    h.agents.iter().filter(seen).count() as u64
}

/// A node of an agent has a check of its own.
pub(super) fn node_check(h: &History) -> u64 {
    with_check(h, |check| check.instance.is_none())
}

/// A check of an agent that runs a program warns.
pub(super) fn warns(h: &History) -> u64 {
    with_check(h, |check| {
        check.status == CheckStatus::Warning && check.definition.ttl().is_none()
    })
}

/// A check of an agent follows another instance, and is not well.
pub(super) fn alias_is_bad(h: &History) -> u64 {
    with_check(h, |check| {
        matches!(check.definition.probe, Probe::Alias { .. }) && check.status == CheckStatus::Critical
    })
}

/// A check of an agent that would take its instance away was critical, and passes in the end.
pub(super) fn recovers(h: &History) -> u64 {
    let truth = h.truth();
    let last = truth.state(truth.last());
    with_check(h, |check| {
        check.definition.deregister_critical_service_after == agency::FLEETING_AFTER
            && check.status == CheckStatus::Critical
            && last
                .check(&check.key())
                .is_some_and(|it| it.status == CheckStatus::Passing)
    })
}

/// An agent's configuration names one service more in the end, or has named it.
pub(super) fn reloads(h: &History) -> u64 {
    with_check(h, |check| check.id.as_str() == agency::check_of(agency::SPARE))
}

/// An instance that always fails is there at first, and gone in the end.
pub(super) fn leaves(h: &History) -> u64 {
    let truth = h.truth();
    let last = truth.state(truth.last());
    let left = |agent: &&AgentPromise| {
        agent.leaving.iter().any(|id| {
            let is_it =
                |it: &sider_core::registry::Instance| it.node.as_str() == agent.node && it.id.as_str() == id;
            let was = truth
                .entries
                .iter()
                .any(|entry| entry.state.instances.iter().any(|it| is_it(it)));
            was && !last.instances.iter().any(|it| is_it(it))
        })
    };
    h.agents.iter().filter(left).count() as u64
}
