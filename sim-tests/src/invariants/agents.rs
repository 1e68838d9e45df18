//! What an agent wants to be in the registry is there in the end, with the statuses that its probes meet, whatever
//! happened to it and to the servers; and what it renews does not expire while all is well (SPEC §1, §4).

mod asks;
mod needless;
mod outages;
mod probes;
mod reports;

use std::{sync::Arc, time::Duration};

use sider_core::registry::{Check, Command, Instance};

use super::Violation;
use crate::{
    agency,
    history::{
        AgentCheck, AgentInstance, AgentLooks, AgentPromise, FaultKind, FaultSpan, History, Operation,
        ServerNumber,
    },
    model::State,
    operation::{CatalogEntry, Op},
    promised::OUTPUT_HOLD,
    time::Time,
    words::list,
};

/// Its name.
pub const NAME: &str = "agents";

/// An agent that is left alone has brought the servers into step by then.
const IN_STEP: Duration = Duration::from_secs(5);
/// So much later at the latest, what always fails has failed for long enough to leave.
const LEAVES: Duration = agency::FATAL_AFTER.saturating_add(Duration::from_secs(1));

/// See the module's page.
///
/// # Errors
/// An instance or a status is missing in the end, or a renewed check expired.
pub fn check(history: &History) -> Result<(), Violation> {
    for agent in &history.agents {
        in_the_end(history, agent)?;
        stays_alive(history, agent)?;
        probes::tells_soon(history, agent)?;
        probes::keeps_calm(history, agent)?;
        outages::go_without_saying(history, agent)?;
        outages::come_to_an_end(history, agent)?;
        outages::leave_nothing(history, agent)?;
        reports::hold(history, agent)?;
        reports::run_out(history, agent)?;
        reports::come_back(history, agent)?;
        asks::tell_what_is(history, agent)?;
        needless::is_not_registered(history, agent)?;
    }
    Ok(())
}

fn in_the_end(history: &History, agent: &AgentPromise) -> Result<(), Violation> {
    let from = history.healed.max(agent.settled);
    if !history.panics.is_empty() || history.ended < from + IN_STEP {
        return Ok(());
    }
    // Servers that all left the cluster can tell it nothing of those that stayed.
    let reachable = |server: &ServerNumber| history.is_member(*server, history.ended) == Some(true);
    if !agent.servers.iter().any(reachable) {
        return Ok(());
    }
    let state = history.truth().state(history.truth().last());
    for wanted in &agent.instances {
        let differs = match registered(&state, agent, wanted) {
            None => Some("not registered".to_owned()),
            Some(instance) => differs(instance, wanted),
        };
        if let Some(how) = differs {
            return ended_wrong(
                history,
                format!("{}'s instance {} is {how} in the end", agent.node, wanted.id),
            );
        }
        let of_it = |check: &&Arc<Check>| {
            check.node.as_str() == agent.node
                && check.namespace == wanted.namespace
                && check.instance.as_ref().is_some_and(|id| id.as_str() == wanted.id)
        };
        let whose = format!("{}'s instance {}", agent.node, wanted.id);
        let found: Vec<&Arc<Check>> = state.checks.iter().filter(of_it).collect();
        checks_in_the_end(history, &whose, found, &wanted.checks, agent.seldom)?;
    }
    let of_node = |check: &&Arc<Check>| check.node.as_str() == agent.node && check.instance.is_none();
    let found: Vec<&Arc<Check>> = state.checks.iter().filter(of_node).collect();
    checks_in_the_end(history, &agent.node, found, &agent.node_checks, agent.seldom)?;
    strangers(history, agent, &state, from)?;
    let node = state.nodes.iter().find(|node| node.name.as_str() == agent.node);
    if let Some(node) = node
        && (node.address != agent.address || !node.meta.is_empty())
    {
        let what = format!(
            "{} is at {} in the end, not at {}, and its meta is {:?}",
            agent.node, node.address, agent.address, node.meta
        );
        return ended_wrong(history, what);
    }
    Ok(())
}

/// What is registered of an instance that must be there.
fn registered<'a>(
    state: &'a State,
    agent: &AgentPromise,
    wanted: &AgentInstance,
) -> Option<&'a Arc<Instance>> {
    state.instances.iter().find(|it| {
        it.node.as_str() == agent.node && it.id.as_str() == wanted.id && it.namespace == wanted.namespace
    })
}

fn ended_wrong(history: &History, what: String) -> Result<(), Violation> {
    Err(Violation::new(NAME, history.ended, what))
}

/// How an instance is otherwise than it must be, but for its checks.
fn differs(instance: &Instance, wanted: &AgentInstance) -> Option<String> {
    let looks = AgentLooks::of(instance);
    if instance.port != wanted.port {
        Some(format!("on port {}, not {},", instance.port, wanted.port))
    } else if instance.service.as_str() != wanted.service {
        Some(format!("of the service {}", instance.service))
    } else if looks != wanted.looks {
        Some(format!("not {:?}, but {looks:?}", wanted.looks))
    } else {
        None
    }
}

/// Whether there are just these checks, and as they must be.
fn checks_in_the_end(
    history: &History,
    whose: &str,
    found: Vec<&Arc<Check>>,
    wanted: &[AgentCheck],
    // Who compares seldom has not told yet what only says something else.
    seldom: bool,
) -> Result<(), Violation> {
    let mut ids: Vec<&str> = found.iter().map(|check| check.id.as_str()).collect();
    let mut wanted_ids: Vec<&str> = wanted.iter().map(|check| check.id.as_str()).collect();
    ids.sort_unstable();
    wanted_ids.sort_unstable();
    if ids != wanted_ids {
        let (ids, wanted) = (list(ids), list(wanted_ids));
        return ended_wrong(
            history,
            format!("the checks of {whose} are {ids} in the end, not {wanted}"),
        );
    }
    for wanted in wanted {
        let Some(check) = found.iter().find(|check| check.id.as_str() == wanted.id) else {
            continue;
        };
        let status = wanted.status.filter(|status| *status != check.status);
        if let Some(status) = status.filter(|_| !seldom || !came_late(history, check)) {
            let what = format!(
                "check {} of {whose} is {} in the end, not {}",
                check.id,
                check.status.as_str(),
                status.as_str()
            );
            return ended_wrong(history, what);
        }
        let interval = check.definition.said_interval();
        let says_so = |output: &String| check.output.ends_with(output.as_str());
        let otherwise = check.definition.ttl() != wanted.ttl
            || check.name != wanted.name
            || !check.notes.is_empty()
            || wanted.ttl.is_none() && interval != wanted.interval
            || !seldom && !wanted.output.iter().all(says_so) && !is_young(history, check);
        if otherwise {
            let what = format!(
                "check {} ({:?}, {:?}) of {whose} says {:?} by {:?} in the end",
                check.id, check.name, check.notes, check.output, check.definition
            );
            return ended_wrong(history, what);
        }
    }
    Ok(())
}

/// Whether what a check says last was written just when a fault was over: a report may have lain at a server, or on its way from
/// one, for longer than an agent that compares seldom expects ([`AGENT_AFTERMATH`](sider_core::limits::AGENT_AFTERMATH)), and
/// come after a newer one. The next regular comparison finds it.
fn came_late(history: &History, check: &Check) -> bool {
    let truth = history.truth();
    let written = truth
        .entries
        .iter()
        .find(|entry| entry.state.index == check.modify_index);
    written.is_some_and(|entry| {
        let soon = history.bounds.latency * 4 + Duration::from_millis(50);
        let ends = |it: &FaultSpan| it.until <= entry.appended && entry.appended <= it.until + soon;
        history.faults.iter().any(ends)
    })
}

/// What differs by an output alone, as after a registration, is found by the next comparison, and is held back then.
fn is_young(history: &History, check: &Arc<Check>) -> bool {
    let truth = history.truth();
    let key = check.key();
    let registered = (0..truth.entries.len())
        .rev()
        .find(|at| truth.registers(&key, *at..*at + 1));
    registered.is_some_and(|at| history.ended < truth.entries[at].applied + IN_STEP + OUTPUT_HOLD)
}

/// What an agent does not know must not be on its node, and what always fails must have left.
fn strangers(history: &History, agent: &AgentPromise, state: &State, from: Time) -> Result<(), Violation> {
    let wanted = |instance: &Instance| {
        let same = |it: &AgentInstance| it.id == instance.id.as_str() && it.namespace == instance.namespace;
        agent.instances.iter().any(same)
    };
    // Only where the agent has something of its own does it look at all.
    let looks = |instance: &Instance| {
        agent
            .instances
            .iter()
            .any(|it| it.namespace == instance.namespace)
    };
    let has_time = history.ended < from + IN_STEP + LEAVES;
    let may_stay = |instance: &Instance| {
        has_time && agent.leaving.iter().any(|id| id == instance.id.as_str()) || wanted(instance)
    };
    let here = |instance: &&Arc<Instance>| instance.node.as_str() == agent.node && looks(instance);
    match state.instances.iter().filter(here).find(|it| !may_stay(it)) {
        Some(instance) => ended_wrong(
            history,
            format!(
                "{} is still on {} in the end, which does not know it",
                instance.id, agent.node
            ),
        ),
        None => Ok(()),
    }
}

/// While the servers are calm and the agent runs, none of its checks expires.
fn stays_alive(history: &History, agent: &AgentPromise) -> Result<(), Violation> {
    let truth = history.truth();
    for entry in &truth.entries {
        let Some((Command::ExpireChecks(expiries), _)) = &entry.command else {
            continue;
        };
        // What services report on expires when they fall silent.
        let renews = |id: &str| {
            let of_instances = agent.instances.iter().flat_map(|it| &it.checks);
            let mut checks = of_instances.chain(&agent.node_checks);
            checks.any(|it| it.id == id && it.ttl.is_some() && it.status.is_some())
        };
        let ours = expiries
            .iter()
            .find(|expiry| expiry.check.node.as_str() == agent.node && renews(expiry.check.id.as_str()));
        let calm_for_long = truth.calm_at(entry.applied).is_some_and(|(from, _)| {
            let from: Time = from.max(agent.settled).max(agent.started);
            // One that has just begun, or begun anew, may ask a server first that is silent for good.
            let silent = |it: &FaultSpan| it.kind == FaultKind::Lasting && it.from <= entry.applied;
            let held_up = if history.faults.iter().any(silent) {
                outages::CALL
            } else {
                Duration::ZERO
            };
            entry.applied > from + IN_STEP / 2 + held_up
        });
        // Servers that all left the cluster pass nothing on to those that stayed.
        let reachable = |server: &ServerNumber| history.is_member(*server, entry.applied) == Some(true);
        if let Some(expiry) = ours
            && calm_for_long
            && agent.servers.iter().any(reachable)
        {
            let what = format!(
                "{} of {} expired though its agent runs and all is well",
                expiry.check.id, agent.node
            );
            return Err(Violation::new(NAME, entry.applied, what));
        }
    }
    Ok(())
}

/// Whether anything but a change of what it probes at `flip` befell an agent, its node or the servers in a span.
fn is_disturbed(history: &History, agent: &AgentPromise, flip: Time, (from, until): (Time, Time)) -> bool {
    let truth = history.truth();
    let within = |time: Time| time >= from && time <= until;
    agent.started >= from
        || agent.flips.iter().any(|(at, _)| *at != flip && within(*at))
        || agent.outages.iter().any(|it| it.overlaps(from, until))
        || is_meddled_with(history, agent, (from, until))
        // A server that is silent for good takes its time when it is asked.
        || history
            .faults
            .iter()
            .any(|it| it.kind == FaultKind::Lasting && it.from <= until)
        || !truth.calm_between(from, until)
}

/// Whether somebody else may have written to an agent's node in a span.
fn is_meddled_with(history: &History, agent: &AgentPromise, (from, until): (Time, Time)) -> bool {
    let truth = history.truth();
    let meddles = |op: &Op| match op {
        Op::CatalogRegister(CatalogEntry { node, .. }) | Op::CatalogDeregister { node, .. } => {
            *node == agent.node
        }
        _ => false,
    };
    let meddled = |it: &Operation| meddles(&it.op) && it.invoked <= until && it.returned >= from;
    let mut restored = truth.restored().map(|entry| truth.entries[entry].applied);
    history.operations.iter().any(meddled) || restored.any(|at| at >= from && at <= until)
}

#[cfg(test)]
mod tests {
    use super::{
        super::story::{SHARED, Story, TTL_MS},
        *,
    };
    use crate::history::{Outage, OutageKind};
    use CheckStatus::{Critical, Passing};
    use sider_core::registry::{CheckStatus, Namespace};

    /// An agent of the node that stories register on.
    fn story(expected: CheckStatus) -> Story {
        let mut story = Story::new();
        let started = story.now();
        story.record().agents.push(AgentPromise {
            node: SHARED.into(),
            servers: vec![ServerNumber(1)],
            address: "127.0.0.1".into(),
            instances: vec![AgentInstance {
                namespace: Namespace::default(),
                id: "web-1".into(),
                port: 80,
                looks: AgentLooks {
                    address: "10.9.0.1".into(),
                    meta: [("version".to_owned(), "1".to_owned())].into(),
                    weights: (2, 2),
                    ..AgentLooks::default()
                },
                service: "web".into(),
                checks: vec![AgentCheck {
                    id: "chk:web-1:0".into(),
                    name: "ttl".into(),
                    status: Some(expected),
                    output: None,
                    ttl: Some(Duration::from_millis(TTL_MS)),
                    interval: Duration::ZERO,
                }],
            }],
            started,
            settled: started,
            ..AgentPromise::default()
        });
        story.wait_ms(100);
        story
    }

    fn healed(story: Story) -> Story {
        healed_for(story, 11_000)
    }

    fn healed_for(mut story: Story, ms: u64) -> Story {
        story.record().healed = story.now();
        story.wait_ms(ms);
        story
    }

    fn complaint(story: Story) -> String {
        check(&story.finish()).expect_err("a broken promise").what
    }

    #[test]
    fn what_it_wants_is_there() {
        let mut story = story(Passing);
        story.register("web-1", 1);
        story.report("chk:web-1:0", Passing);
        assert_eq!(check(&healed(story).finish()), Ok(()));
    }

    #[test]
    fn an_instance_that_is_missing_is_not_fine() {
        assert!(complaint(healed(story(Passing))).contains("web-1 is not registered"));
    }

    #[test]
    fn another_status_is_not_fine() {
        let mut story = story(Passing);
        story.register("web-1", 1);
        assert!(complaint(healed(story)).contains("is critical in the end, not passing"));
    }

    #[test]
    fn another_port_is_not_fine() {
        let mut story = story(Passing);
        story.register("web-1", 1);
        story.report("chk:web-1:0", Passing);
        story.record().agents[0].instances[0].port = 81;
        assert!(complaint(healed(story)).contains("is on port 80, not 81, in the end"));
    }

    #[test]
    fn other_looks_are_not_fine() {
        let mut story = story(Passing);
        story.register("web-1", 1);
        story.report("chk:web-1:0", Passing);
        story.record().agents[0].instances[0].looks.tags = vec!["steady".into()];
        assert!(complaint(healed(story)).contains("web-1 is not AgentLooks"));
    }

    #[test]
    fn another_service_is_not_fine() {
        let mut story = story(Passing);
        story.register("web-1", 1);
        story.report("chk:web-1:0", Passing);
        story.record().agents[0].instances[0].service = "job".into();
        assert!(complaint(healed(story)).contains("web-1 is of the service web in the end"));
    }

    #[test]
    fn another_check_or_another_output_is_not_fine() {
        let changes: [fn(&mut AgentCheck); 3] = [
            |wanted| wanted.name = "another name".into(),
            |wanted| wanted.ttl = Some(Duration::from_secs(60)),
            |wanted| wanted.output = Some("it says 200".into()),
        ];
        for change in changes {
            let mut story = story(Passing);
            story.register("web-1", 1);
            story.report("chk:web-1:0", Passing);
            change(&mut story.record().agents[0].instances[0].checks[0]);
            let complaint = complaint(healed(story));
            assert!(
                complaint.starts_with("check chk:web-1:0 (") && complaint.contains("instance web-1 says"),
                "{complaint}"
            );
        }
    }

    #[test]
    fn an_output_may_be_held_back_for_a_while() {
        let silent = |for_ms| {
            let mut story = story(Passing);
            story.register("web-1", 1);
            story.report("chk:web-1:0", Passing);
            story.record().agents[0].instances[0].checks[0].output = Some("it says 200".into());
            check(&healed_for(story, for_ms).finish())
        };
        assert_eq!(silent(9_000), Ok(()));
        assert!(silent(11_000).is_err());
    }

    /// What the agent probes has been passing for long, and is critical in the end; with its check.
    fn probed() -> (Story, String) {
        let mut story = story(Critical);
        let wanted = &mut story.record().agents[0].instances[0];
        wanted.id = agency::PROBED.into();
        wanted.checks[0].id = agency::check_of(agency::PROBED);
        story.register(agency::PROBED, 1);
        let check = agency::check_of(agency::PROBED);
        story.report(&check, Passing);
        story.wait_ms(7_000);
        (story, check)
    }

    /// It became critical, and the agent tells so after a while.
    fn flipped(told_after_ms: u64) -> Story {
        let (mut story, check) = probed();
        let flip = (story.now(), Critical);
        story.record().agents[0].flips.push(flip);
        story.wait_ms(told_after_ms);
        story.report(&check, Critical);
        story.wait_ms(3_000);
        story
    }

    #[test]
    fn what_a_probe_met_is_told_soon() {
        assert_eq!(check(&flipped(600).finish()), Ok(()));
    }

    #[test]
    fn one_probe_changes_nothing() {
        let blipped = |told: CheckStatus| {
            let (mut story, check) = probed();
            let blip = story.now();
            story.record().agents[0].blips.push(blip);
            story.wait_ms(500);
            story.report(&check, told);
            story.wait_ms(3_000);
            super::check(&story.finish())
        };
        assert_eq!(blipped(Passing), Ok(()));
        let violation = blipped(Critical).expect_err("a change for one probe");
        assert!(violation.what.contains("says critical instead of passing"));
    }

    #[test]
    fn telling_it_late_is_not_fine() {
        assert!(complaint(flipped(2_000)).contains("probe met critical from"));
    }

    #[test]
    fn an_agent_that_crashed_meanwhile_may_tell_it_late() {
        let mut story = flipped(2_000);
        let now = story.now();
        let outage = Outage {
            from: now - Duration::from_secs(4),
            until: Some(now),
            kind: OutageKind::Down,
            what: "it crashes".into(),
        };
        story.record().agents[0].outages.push(outage);
        assert_eq!(check(&story.finish()), Ok(()));
    }

    #[test]
    fn what_it_does_not_know_must_be_gone() {
        let mut story = story(Passing);
        story.register("web-1", 1);
        story.report("chk:web-1:0", Passing);
        story.register("web-2", 2);
        assert!(complaint(healed(story)).contains("web-2 is still on"));
    }

    #[test]
    fn another_address_is_not_fine() {
        let mut story = story(Passing);
        story.register("web-1", 1);
        story.report("chk:web-1:0", Passing);
        story.record().agents[0].address = "127.0.0.2".into();
        assert!(complaint(healed(story)).contains("is at 127.0.0.1 in the end"));
    }

    #[test]
    fn an_agent_that_knows_no_member_any_more_is_excused() {
        let mut story = story(Passing);
        story.record().bounds.first_voters = vec![ServerNumber(2), ServerNumber(3)];
        assert_eq!(check(&healed(story).finish()), Ok(()));
    }

    #[test]
    fn it_gets_some_time() {
        let mut story = story(Passing);
        story.register("web-1", 1);
        story.record().healed = story.now();
        story.wait_ms(1_000);
        assert_eq!(check(&story.finish()), Ok(()));
    }

    #[test]
    fn expiring_while_all_is_well_is_not_fine() {
        let mut story = story(Critical);
        story.register("web-1", 1);
        story.report("chk:web-1:0", Passing);
        story.wait_ms(7_000);
        story.expire("chk:web-1:0");
        story.wait_ms(7_000);
        assert!(complaint(story).contains("expired though its agent runs"));
    }

    #[test]
    fn an_agent_may_be_held_up_by_a_server_that_is_silent_for_good() {
        let expires = |silent: bool| {
            let mut story = story(Critical);
            if silent {
                story.fault(FaultKind::Lasting, 2, 0);
            }
            story.register("web-1", 1);
            story.report("chk:web-1:0", Passing);
            story.wait_ms(5_000);
            story.expire("chk:web-1:0");
            story.wait_ms(7_000);
            check(&story.finish())
        };
        assert!(expires(false).is_err_and(|it| it.what.contains("expired though its agent runs")));
        assert_eq!(expires(true), Ok(()));
    }

    #[test]
    fn who_compares_seldom_may_be_overtaken_when_a_fault_is_over() {
        let ends = |seldom: bool, late_ms: u64| {
            let mut story = story(Critical);
            story.record().agents[0].seldom = seldom;
            story.register("web-1", 1);
            story.fault(FaultKind::Lasting, 2, 0);
            story.wait_ms(late_ms);
            story.report("chk:web-1:0", Passing);
            check(&healed(story).finish())
        };
        assert_eq!(ends(true, 10), Ok(()));
        for (seldom, late_ms) in [(false, 10), (true, 1_000)] {
            let violation = ends(seldom, late_ms).expect_err("it is passing");
            assert!(violation.what.contains("is passing in the end, not critical"));
        }
    }

    #[test]
    fn expiring_under_faults_is_fine() {
        let mut story = story(Critical);
        story.register("web-1", 1);
        story.report("chk:web-1:0", Passing);
        story.fault(crate::history::FaultKind::Disturbing, 2, 7_000);
        story.wait_ms(7_000);
        story.expire("chk:web-1:0");
        story.wait_ms(7_000);
        assert_eq!(check(&story.finish()), Ok(()));
    }
}
