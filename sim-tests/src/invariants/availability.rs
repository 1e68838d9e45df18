//! While nothing is wrong every request succeeds in time, and the leader stays (SPEC §3); and every answer, whenever, is
//! one that is documented (SPEC §6). Writes, however many, are no reason to refuse a renewal, whenever.

use std::time::Duration;

use super::Violation;
use crate::{
    cluster::RAFT_PORT,
    cluster_reads::ClusterAsk,
    history::{CUT_OFF, Fact, FaultKind, History, LEFT, Operation, Outcome, ServerNumber},
    operation::{Ask, Op},
    promised::{PEER_STATUS_TIMEOUT, READY_TIMEOUT, WAIT_SPREAD_DIVISOR},
    time::{Time, drift_of},
};

/// Its name.
pub const NAME: &str = "availability";

/// Elections this long after a disturbance are explained by it.
const UNREST: Duration = Duration::from_secs(3);

/// See the module's page.
///
/// # Errors
/// A request got nonsense, or failed or took long without a reason; or a leader was deposed without one.
pub fn check(history: &History) -> Result<(), Violation> {
    for operation in &history.operations {
        let violation = |what: String| Err(Violation::of(NAME, operation.returned, [operation.id], what));
        if let Outcome::Nonsense(what) = &operation.outcome {
            return violation(format!("{} of {}: {what}", operation.op, operation.server));
        }
        if operation.op.is_renewal() && is_refused_for_writes(history, &operation.outcome) {
            let what = "is refused though only writes are held back";
            return violation(format!("{} of {} {what}", operation.op, operation.server));
        }
        if !history
            .truth()
            .calm_between(operation.invoked, operation.returned)
            || is_no_member(history, operation.server, operation.returned)
        {
            continue;
        }
        let took = operation.returned.since(operation.invoked);
        let too_long = took > longest(history, operation);
        match &operation.outcome {
            // Who hangs up before the connection is made has only himself to blame.
            Outcome::Failed(reason) if operation.impatient && reason.ends_with("timed out") => {}
            Outcome::Failed(_) if needs_an_upgrade(history, operation) => {}
            Outcome::Failed(reason) => {
                return violation(format!(
                    "{} of {} failed while all was well: {reason}",
                    operation.op, operation.server
                ));
            }
            Outcome::Unknown(reason) if had_a_dead_connection(history, operation, reason) => {}
            // Nothing differed, as far as he can know who left; whether that is so, `watches` judges.
            Outcome::Unknown(reason) if reason == LEFT => {}
            Outcome::Unknown(reason) if too_long || !operation.impatient && reason != CUT_OFF => {
                return violation(format!(
                    "{} of {} got no answer in {took:?} while all was well: {reason}",
                    operation.op, operation.server
                ));
            }
            Outcome::Done(_) | Outcome::Refused { .. } if too_long => {
                return violation(format!(
                    "{} of {} took {took:?} while all was well",
                    operation.op, operation.server
                ));
            }
            _ => {}
        }
    }
    elections_have_reasons(history)?;
    stops_have_reasons(history)
}

/// Whether writes were not let in any more, as the answer says.
pub(crate) fn is_refused_for_writes(history: &History, outcome: &Outcome) -> bool {
    let limit = format!("the limit is {}", history.bounds.writes_at_once);
    matches!(outcome, Outcome::Failed(reason) if reason.starts_with("too many ") && reason.ends_with(&limit))
}

/// What an older program does not know is refused until the last server is exchanged.
pub(super) fn needs_an_upgrade(history: &History, operation: &Operation) -> bool {
    let truth = history.truth();
    let needed = match &operation.op {
        // A file may hold what came with it.
        Op::Restore { .. } => 3,
        Op::Register { services, .. } if services.iter().any(|it| !it.extras().is_empty()) => 3,
        Op::RegisterCheck(check) if check.is_of_a_newer_kind() => 3,
        Op::Autopilot(_) => 2,
        Op::Prepared(op) if op.is_logged() => 2,
        Op::Keys(op) if op.is_logged() => 2,
        // Whoever is asked for an authority before there is one makes it.
        Op::Read { ask: Ask::Roots, .. } | Op::Wait { ask: Ask::Roots, .. } => 2,
        _ => 1,
    };
    let written = truth
        .state(truth.applied_before(operation.invoked))
        .version
        .max(1);
    history.bounds.older_programs && written < needed
}

/// A server ends by itself only for want of its disk, or when it was removed.
fn stops_have_reasons(history: &History) -> Result<(), Violation> {
    for seen in &history.observations {
        let Fact::Stopped {
            by_itself: Some(reason),
        } = &seen.what
        else {
            continue;
        };
        let broken = history.faults.iter().any(|fault| {
            fault.kind == FaultKind::BrokenDisk
                && fault.servers.contains(&seen.server)
                && fault.from <= seen.at
        });
        if !broken && !is_no_member(history, seen.server, seen.at) {
            let what = format!("{} stopped by itself: {reason}", seen.server);
            return Err(Violation::new(NAME, seen.at, what));
        }
    }
    Ok(())
}

/// How long an answer may take at most while all is well.
pub(super) fn longest(history: &History, operation: &Operation) -> Duration {
    let wait = match &operation.op {
        Op::Wait { index, wait_ms, .. } if *index > 0 => Duration::from_millis(*wait_ms),
        Op::AgentRead(ask) => ask.wait(),
        // One that is broken for good is waited for.
        Op::Cluster(ClusterAsk::Members | ClusterAsk::Ready) => PEER_STATUS_TIMEOUT.max(READY_TIMEOUT),
        _ => Duration::ZERO,
    };
    let spread = wait / WAIT_SPREAD_DIVISOR;
    let wait = wait + spread + drift_of(wait + spread, history.bounds.drift_ppm);
    wait + history.bounds.latency * 12 + Duration::from_millis(700)
}

/// A server that is no member refuses everything, rightly.
fn is_no_member(history: &History, server: ServerNumber, at: Time) -> bool {
    history.is_member(server, at) != Some(true) || history.is_broken(server, at)
}

/// Who had a connection to a process that is gone, or over a link that was cut, learns of it when it uses the connection
/// again: a client, or a server that forwards a write to the leader. A slow client of a stream takes events from its own
/// machine long after that.
fn had_a_dead_connection(history: &History, operation: &Operation, reason: &str) -> bool {
    if !reason.ends_with("connection reset") {
        return false;
    }
    let leader = leader_named(reason).filter(|leader| *leader != operation.server);
    let used = |it: &Operation| match leader {
        None => it.client == operation.client,
        Some(leader) => it.op.is_logged() && leads(history, it.invoked) == Some(leader),
    };
    let last_use = history
        .operations
        .iter()
        .filter(|it| it.server == operation.server && it.returned <= operation.invoked && it.is_done())
        .filter(|it| used(it))
        .map(Operation::arrived)
        .max()
        .unwrap_or_default();
    let other_end = leader.unwrap_or(operation.server);
    history
        .truth()
        .restarted_between(other_end, last_use, operation.returned)
        || history.faults.iter().any(|fault| {
            fault.servers.contains(&other_end) && fault.from <= operation.returned && fault.until >= last_use
        })
}

/// Who was elected last by then.
fn leads(history: &History, at: Time) -> Option<ServerNumber> {
    let leaders = &history.truth().leaders;
    leaders.iter().rfind(|it| it.from <= at).map(|it| it.server)
}

/// The server whose Raft address a reason names.
fn leader_named(reason: &str) -> Option<ServerNumber> {
    let (_, rest) = reason.split_once("no answer from 10.0.0.")?;
    let (host, rest) = rest.split_once(':')?;
    let nth: u8 = host.parse().ok()?;
    rest.starts_with(&format!("{RAFT_PORT}:"))
        .then(|| ServerNumber(nth.wrapping_sub(1)))
}

fn elections_have_reasons(history: &History) -> Result<(), Violation> {
    let mut first = true;
    for seen in &history.observations {
        let Fact::BecameLeader { term } = seen.what else {
            continue;
        };
        if !first && !was_disturbed(history, term, seen.at) {
            let what = format!(
                "{} was elected in term {term} though nothing was wrong",
                seen.server
            );
            return Err(Violation::new(NAME, seen.at, what));
        }
        first = false;
    }
    Ok(())
}

/// Whether there was a reason for an election of a term.
fn was_disturbed(history: &History, term: u64, at: Time) -> bool {
    let recent = |from: Time, until: Time| from <= at && until + UNREST >= at;
    let fault = history
        .faults
        .iter()
        .any(|fault| fault.kind != FaultKind::Harmless && recent(fault.from, fault.until));
    let restart = |what: &Fact| matches!(what, Fact::Started | Fact::Stopped { .. });
    // One of unknown outcome may be completed at any time: if it removes the leader, another is elected.
    let change = history.memberships.iter().any(|change| {
        recent(change.invoked, change.returned) || (change.done.is_none() && change.invoked <= at)
    });
    // One that broke for good is followed when somebody can be elected; those who would be may have been cut off until now.
    let last = history.truth().leaders.iter().rfind(|it| it.term < term);
    fault
        || change
        || last.is_some_and(|last| history.is_broken(last.server, at))
        || history
            .observations
            .iter()
            .any(|seen| restart(&seen.what) && recent(seen.at, seen.at))
}

#[cfg(test)]
mod tests {
    use sider_core::registry::CheckStatus;

    use super::{super::story::Story, *};
    use crate::operation::{Apart, Freshness};

    fn story() -> Story {
        let mut story = Story::new();
        story.wait_ms(5_000);
        story
    }

    fn complaint(story: Story) -> String {
        check(&story.finish()).expect_err("not available").what
    }

    /// A write to a key that is refused, while all is well.
    fn refused_key(older_programs: bool) -> Story {
        let mut story = story();
        let step = crate::keys::Step::Set("k".into(), "v".into());
        let id = story.keys(crate::keys::KeyOp::One(step));
        story.set_outcome(id, Outcome::Failed("this needs every server".into()));
        story.record().bounds.older_programs = older_programs;
        story.wait_ms(5_000);
        story
    }

    #[test]
    fn writes_never_hold_renewals_back() {
        let refused = || Outcome::Failed("too many writes under way: the limit is 1024".into());
        let mut busy = story();
        busy.fault(FaultKind::Disturbing, 2, 1_000);
        busy.ask_to_register("web-2", 2, refused());
        busy.wait_ms(5_000);
        assert_eq!(check(&busy.finish()), Ok(()));
        let mut busy = story();
        busy.fault(FaultKind::Disturbing, 2, 1_000);
        let id = busy.report("web-1", CheckStatus::Passing);
        busy.set_outcome(id, refused());
        assert!(complaint(busy).contains("only writes are held back"));
    }

    #[test]
    fn what_an_older_program_does_not_know_may_be_refused() {
        assert_eq!(check(&refused_key(true).finish()), Ok(()));
    }

    #[test]
    fn so_may_an_instance_with_more_than_it_knows() {
        let refused = |apart: Apart| {
            let mut story = story();
            let failed = Outcome::Failed("this needs every server".into());
            story.ask_to_register("web-1", 1, failed);
            let record = story.record();
            record.bounds.older_programs = true;
            if let Some(Op::Register { services, .. }) = record.operations.last_mut().map(|it| &mut it.op) {
                services[0].apart = apart;
            }
            story.wait_ms(5_000);
            check(&story.finish())
        };
        assert_eq!(refused(Apart::Ports), Ok(()));
        refused(Apart::Meta).expect_err("meta is as old as instances are");
    }

    #[test]
    fn where_all_know_it_it_may_not() {
        assert!(complaint(refused_key(false)).contains("failed while all was well"));
    }

    #[test]
    fn answers_are_fine() {
        let mut story = story();
        story.register("web-1", 1);
        story.read(2, Ask::Services, Freshness::Default);
        let wait = story.wait_for(2, Ask::Services, 2, 2_000);
        story.stretch(wait, 0, 2_100);
        story.wait_ms(5_000);
        assert_eq!(check(&story.finish()), Ok(()));
    }

    #[test]
    fn failing_while_all_is_well_is_not() {
        let mut story = story();
        story.ask_to_register("web-1", 1, Outcome::Failed("No cluster leader".into()));
        story.wait_ms(5_000);
        assert!(complaint(story).contains("failed while all was well"));
    }

    #[test]
    fn no_answer_while_all_is_well_is_not() {
        let mut story = story();
        story.ask_to_register("web-1", 1, Outcome::Unknown("outcome unknown".into()));
        story.wait_ms(5_000);
        assert!(complaint(story).contains("got no answer"));
    }

    #[test]
    fn a_connection_to_a_process_that_is_gone_is_an_excuse_once() {
        let reset = || Outcome::Unknown("no answer: connection reset".into());
        let mut story = story();
        story.register("web-1", 1);
        story.wait_ms(1_000);
        story.restart(1);
        story.wait_ms(5_000);
        story.ask_to_register("web-1", 1, reset());
        story.register("web-1", 1);
        story.wait_ms(1_000);
        story.ask_to_register("web-1", 1, reset());
        story.wait_ms(5_000);
        let violation = check(&story.finish()).expect_err("a second reset");
        assert_eq!(violation.operations, [3]);
    }

    /// A slow client takes an event that had come before the server restarted, or that comes after, and then is reset.
    fn reset_behind_an_event(came_before: bool) -> Story {
        let mut story = story();
        story.register("web-1", 1);
        story.wait_ms(1_000);
        let before = story.now();
        story.restart(1);
        story.wait_ms(5_000);
        let event = story.event(1, Ask::KeyTree("k/".into()), 0, None);
        if came_before {
            let operation = story.operation(event);
            operation.invoked = before;
            operation.streamed.as_mut().expect("an event").arrived = before;
        }
        story.wait_ms(1_000);
        story.ask_to_register("web-2", 1, Outcome::Unknown("no answer: connection reset".into()));
        story.wait_ms(5_000);
        story
    }

    #[test]
    fn an_event_that_waited_at_its_client_shows_no_living_connection() {
        assert_eq!(check(&reset_behind_an_event(true).finish()), Ok(()));
        assert!(complaint(reset_behind_an_event(false)).contains("got no answer"));
    }

    #[test]
    fn giving_up_at_once_is_the_clients_own_choice() {
        let mut story = story();
        let operation = story.ask_to_register("web-1", 1, Outcome::Unknown("gave up".into()));
        story.operation(operation).impatient = true;
        story.wait_ms(5_000);
        assert_eq!(check(&story.finish()), Ok(()));
    }

    #[test]
    fn an_operation_that_the_end_of_the_run_cuts_off_is_fine() {
        let mut story = story();
        story.ask_to_register("web-1", 1, Outcome::Unknown(CUT_OFF.into()));
        assert_eq!(check(&story.finish()), Ok(()));
    }

    #[test]
    fn failing_under_faults_is_fine() {
        let mut story = story();
        story.fault(FaultKind::Disturbing, 2, 1_000);
        story.ask_to_register("web-1", 1, Outcome::Failed("No cluster leader".into()));
        story.wait_ms(5_000);
        assert_eq!(check(&story.finish()), Ok(()));
    }

    #[test]
    fn a_harmless_fault_is_no_excuse() {
        let mut story = story();
        story.fault(FaultKind::Harmless, 2, 1_000);
        story.ask_to_register("web-1", 1, Outcome::Failed("No cluster leader".into()));
        story.wait_ms(5_000);
        assert!(check(&story.finish()).is_err());
    }

    #[test]
    fn a_slow_answer_is_not() {
        let mut story = story();
        let read = story.read(2, Ask::Services, Freshness::Default);
        story.stretch(read, 0, 2_000);
        story.wait_ms(5_000);
        assert!(complaint(story).contains("took"));
    }

    #[test]
    fn a_wait_that_never_ends_is_not() {
        let mut story = story();
        let wait = story.wait_for(2, Ask::Services, 1, 1_000);
        story.stretch(wait, 0, 3_000);
        story.wait_ms(5_000);
        assert!(complaint(story).contains("took"));
    }

    #[test]
    fn nonsense_is_not() {
        let mut story = story();
        story.fault(FaultKind::Disturbing, 2, 1_000);
        story.ask_to_register("web-1", 1, Outcome::Nonsense("500 with an unknown text".into()));
        assert!(complaint(story).contains("unknown text"));
    }

    #[test]
    fn stopping_by_itself_is_not() {
        let mut story = story();
        story.fault(FaultKind::Disturbing, 2, 1_000);
        story.observe(
            2,
            Fact::Stopped {
                by_itself: Some("its state differs".into()),
            },
        );
        assert!(complaint(story).contains("s2 stopped by itself: its state differs"));
    }

    #[test]
    fn stopping_for_want_of_a_disk_is_fine() {
        let mut story = story();
        story.fault(FaultKind::BrokenDisk, 2, 1_000);
        story.observe(
            2,
            Fact::Stopped {
                by_itself: Some("sync failed".into()),
            },
        );
        assert_eq!(check(&story.finish()), Ok(()));
    }

    #[test]
    fn an_election_long_after_the_leader_broke_for_good_is_fine() {
        let story = |broken: u8| {
            let mut story = story();
            story.fault(FaultKind::Lasting, broken, 0);
            story.wait_ms(30_000);
            story.elect(2, 2);
            story
        };
        assert_eq!(check(&story(1).finish()), Ok(()));
        assert!(complaint(story(3)).contains("s2 was elected in term 2 though nothing was wrong"));
    }

    #[test]
    fn an_election_without_a_reason_is_not() {
        let mut story = story();
        story.elect(2, 2);
        assert!(complaint(story).contains("s2 was elected in term 2 though nothing was wrong"));
    }

    #[test]
    fn an_election_with_a_reason_is_fine() {
        let mut story = story();
        story.fault(FaultKind::Disturbing, 1, 1_000);
        story.wait_ms(500);
        story.elect(2, 2);
        assert_eq!(check(&story.finish()), Ok(()));
    }
}
