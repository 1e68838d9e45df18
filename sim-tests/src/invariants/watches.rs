//! Blocking queries (SPEC §5): nobody is woken without a difference in what he would be given, and nothing is missed: once
//! a server has applied a difference, everyone who waits for it there is answered soon.
//!
//! The same for a stream, where the wait for each event is one for what differs from the event before. It has no timeout: a
//! wait that ends without an event, because the client left, must not have been owed one either.

use std::time::Duration;

use super::Violation;
use crate::{
    content::Content,
    history::{Bounds, Fact, FaultSpan, History, LEFT, Operation, Outcome},
    operation::{Ask, Freshness, Op},
    promised::{COALESCE_WINDOW, READ_TIMEOUT},
    time::{Time, drift_of},
    truth::Point,
};

/// Its name.
pub const NAME: &str = "watches";

/// See the module's page.
///
/// # Errors
/// A wait ended early for nothing, or late though there was something.
pub fn check(history: &History) -> Result<(), Violation> {
    // How soon those are woken who wait through an agent, `forwarded` judges.
    for operation in history.operations.iter().filter(|it| it.server.agent().is_none()) {
        let Some(wait) = Wait::of(history, operation) else {
            continue;
        };
        let Some(answer) = operation.answer() else {
            wait.missed_nothing()?;
            continue;
        };
        let (Some(got), Some(content)) = (answer.index, answer.content.as_ref()) else {
            return wait.violation("the answer has no index or no content".into());
        };
        wait.is_news(content)?;
        if wait.index == 0 {
            continue;
        }
        if operation.returned < wait.ends_at_the_earliest() {
            wait.woken_for_something(got, content)?;
        }
        wait.woken_in_time()?;
    }
    Ok(())
}

struct Wait<'a> {
    history: &'a History,
    operation: &'a Operation,
    ask: &'a Ask,
    index: u64,
    wait: Duration,
    /// When the answer had reached the client's machine; of a stream that was left, until when there could be one.
    arrived: Time,
}

impl<'a> Wait<'a> {
    /// A blocking query that was answered, or the wait for an event of a stream, until it came or the client left.
    fn of(history: &'a History, operation: &'a Operation) -> Option<Wait<'a>> {
        let Op::Wait {
            ask, index, wait_ms, ..
        } = &operation.op
        else {
            return None;
        };
        let left = matches!(&operation.outcome, Outcome::Unknown(reason) if reason == LEFT);
        // Who only listens does not learn that a machine lost its power, and hears nothing more of it.
        let restarted = history.truth().started_after(operation.server, operation.invoked);
        let lost = restarted.filter(|_| left).unwrap_or(Time(u64::MAX));
        (operation.is_done() || left).then_some(Wait {
            arrived: operation.arrived().min(lost),
            history,
            operation,
            ask,
            index: *index,
            wait: Duration::from_millis(*wait_ms),
        })
    }

    fn violation<T>(&self, what: String) -> Result<T, Violation> {
        let what = format!("{} at {}: {what}", self.operation.op, self.operation.server);
        Err(Violation::of(
            NAME,
            self.operation.returned,
            [self.operation.id],
            what,
        ))
    }

    /// An event of a stream shows something else than the one before.
    fn is_news(&self, content: &Content) -> Result<(), Violation> {
        let before = self.operation.streamed.as_ref().and_then(|it| it.before);
        let before = before.and_then(|id| self.history.operation(id)?.answer()?.content.as_ref());
        match before == Some(content) {
            true => self.violation("the event shows what the one before shows".into()),
            false => Ok(()),
        }
    }

    /// A stream that its client left was owed nothing.
    fn missed_nothing(&self) -> Result<(), Violation> {
        if self.index > 0 {
            return self.woken_in_time();
        }
        let (since, late) = (self.operation.invoked, lateness(&self.history.bounds));
        let (owed_by, _) = self.owed_by(since);
        match self.arrived > owed_by + late {
            true => self.violation(format!("the first event was owed by {owed_by} and did not come")),
            false => Ok(()),
        }
    }

    fn ends_at_the_earliest(&self) -> Time {
        let drift = drift_of(self.wait, self.history.bounds.drift_ppm);
        self.operation.invoked + self.wait.saturating_sub(drift)
    }

    fn woken_for_something(&self, got: u64, content: &Content) -> Result<(), Violation> {
        if got <= self.index {
            return self.violation(format!("woken early with index {got}"));
        }
        let truth = self.history.truth();
        let Some((before, _)) = truth.points_of_index(&self.ask.topic(), self.index) else {
            return Ok(());
        };
        // The output of a check is part of what is given, though its change alone wakes nobody.
        let parked = truth
            .most_applied_at(self.operation.server, self.operation.invoked)
            .max(before);
        let same = *content == *truth.content(self.ask, parked);
        if same && !self.came_late(before) && !self.came_early(before) {
            return self.violation(format!("woken with index {got}, but without any difference"));
        }
        Ok(())
    }

    /// Whether the topic had risen already when the server first looked. What the client has may have gone and come
    /// back since: the server can't know, so it answers.
    fn came_late(&self, before: Point) -> bool {
        let truth = self.history.truth();
        let looked = truth.looked_by(
            self.operation.server,
            self.arrives_by(),
            lateness(&self.history.bounds),
        );
        let known = truth.most_applied_at(self.operation.server, looked.min(self.operation.returned));
        truth.index_at(&self.ask.topic(), known) > truth.index_at(&self.ask.topic(), before)
    }

    /// By when the request has reached the server: what is sent while nothing passes is sent again once that is over.
    fn arrives_by(&self) -> Time {
        let invoked = self.operation.invoked;
        let held_up = self.history.faults.iter().filter(|fault| {
            fault.servers.contains(&self.operation.server)
                && (fault.from..fault.until).contains(&invoked)
                && ["cut off from everyone", "keeps all its connections"]
                    .iter()
                    .any(|words| fault.what.contains(words))
        });
        held_up
            .map(|fault| fault.until + SENT_AGAIN)
            .fold(invoked, Time::max)
    }

    /// Whether a stale server had not yet seen what the client had seen elsewhere: it can't know what that was.
    fn came_early(&self, before: Point) -> bool {
        let truth = self.history.truth();
        let had = truth.least_applied_at(
            self.operation.server,
            self.operation.invoked,
            self.operation.invoked,
        );
        had < before
            && self
                .operation
                .op
                .asked()
                .is_some_and(|(_, freshness)| !freshness.linearizable())
            && !self.came_level(before)
    }

    /// Whether a server that was behind came to what the client has, and stayed there for long enough to see it.
    fn came_level(&self, before: Point) -> bool {
        let truth = self.history.truth();
        let (server, invoked) = (self.operation.server, self.operation.invoked);
        let steps = truth.steps(&self.ask.topic());
        let rise = steps.get(steps.partition_point(|step| step.index <= self.index));
        let level = truth.reached(server, before, invoked);
        let rose = rise.and_then(|rise| truth.reached(server, rise.point, invoked));
        let (Some(level), Some(rose)) = (level, rose) else {
            return false;
        };
        // A stream does not look while its client has no room.
        let room = self.operation.streamed.as_ref().map(|it| it.room);
        let level = level.max(room.unwrap_or_default());
        let paused = truth.pauses.iter();
        let mut paused = paused.filter(|(whose, from, to)| *whose == server && *from <= rose && *to >= level);
        level + lateness(&self.history.bounds) < rose && paused.next().is_none()
    }

    fn woken_in_time(&self) -> Result<(), Violation> {
        let Some((_, seen_by_all)) = self.first_lasting_difference() else {
            return Ok(());
        };
        // What a slow client has no room for is not even made.
        let room = self.operation.streamed.as_ref().map(|it| it.room);
        let (owed_by, _) = self.owed_by(seen_by_all.max(room.unwrap_or_default()));
        // Nothing is owed any more by who is broken for good by then.
        let is_broken = self.history.is_broken(self.operation.server, owed_by);
        if self.arrived > owed_by && (self.operation.is_done() || !is_broken) {
            return self.violation(format!(
                "{} only at {}; what it waited for was there at {seen_by_all}, it was owed by {owed_by}",
                if self.operation.is_done() {
                    "answered"
                } else {
                    "left without an answer"
                },
                self.arrived,
            ));
        }
        Ok(())
    }

    /// When the answer must be there at the latest, and which bound that is. What befalls the server puts it off, until it
    /// is over and has settled; it never excuses the answer.
    fn owed_by(&self, seen_by_all: Time) -> (Time, Bound) {
        let late = lateness(&self.history.bounds);
        let asked = self.operation.op.asked();
        let stale = asked.is_some_and(|(_, freshness)| freshness == Freshness::Stale);
        if self.history.truth().calm_between(seen_by_all, seen_by_all + late) {
            return (seen_by_all + late, Bound::Calm);
        }
        if stale {
            // It needs nobody: only what stops the server itself, or its way to the client, puts it off.
            let sent_again = match self.operation.streamed {
                Some(_) => SENT_AGAIN,
                None => Duration::ZERO,
            };
            let from = self.undisturbed_from(seen_by_all, late, stops_a_server, sent_again);
            return (from + late, Bound::NeedsNobody);
        }
        // It may look for a leader twice, before it parks and before it answers, each time for no longer than a read may
        // take; then it answers, or fails.
        let bound = READ_TIMEOUT * 2 + late;
        let from = self.undisturbed_from(seen_by_all, bound, |_| true, self.history.bounds.settle);
        // Where all is calm again sooner, the strict bound counts from there; but a server that is being brought up to date
        // by a snapshot can't give an answer as new as the leader's before it is.
        let caught_up = self.history.observations.iter().filter(|seen| {
            seen.server == self.operation.server
                && seen.at <= self.operation.returned
                && matches!(seen.what, Fact::SnapshotInstalled { .. })
        });
        let caught_up = caught_up.map(|seen| seen.at).fold(seen_by_all, Time::max);
        let calm = self.history.truth().calm.iter();
        let calm_from = calm
            .map(|(begins, ends)| ((*begins).max(caught_up) + late, *ends))
            .filter(|(owed, ends)| owed <= ends)
            .map(|(owed, _)| owed)
            .min();
        let owed = calm_from.map_or(from + bound, |calm| calm.min(from + bound));
        (owed, Bound::LooksForALeader)
    }

    /// The first moment, not before `from`, from which on the server is left alone by such faults for so long.
    fn undisturbed_from(
        &self,
        from: Time,
        for_so_long: Duration,
        counts: impl Fn(&FaultSpan) -> bool,
        settle: Duration,
    ) -> Time {
        let faults = self.history.faults.iter();
        let mut troubles: Vec<(Time, Time)> = faults
            .filter(|fault| fault.servers.contains(&self.operation.server) && counts(fault))
            .map(|fault| (fault.from, fault.until + settle))
            .collect();
        troubles.sort_unstable();
        troubles.iter().fold(from, |from, (begins, ends)| {
            if *begins < from + for_so_long {
                from.max(*ends)
            } else {
                from
            }
        })
    }

    /// The first difference that was not undone before the answer, and when the server had applied it.
    fn first_lasting_difference(&self) -> Option<(Point, Time)> {
        let truth = self.history.truth();
        let topic = self.ask.topic();
        let (before, _) = truth.points_of_index(&topic, self.index)?;
        let answered = truth.most_applied_at(self.operation.server, self.arrived);
        let later = truth
            .steps(&topic)
            .iter()
            .filter(|step| step.index > self.index && step.point <= answered);
        let mut lasting = None;
        for step in later {
            if truth.differs(self.ask, before, step.point) {
                lasting = lasting.or(Some(step.point));
            } else {
                lasting = None;
            }
        }
        let point = lasting?;
        let at = truth.reached(self.operation.server, point, self.operation.invoked)?;
        (at < self.arrived).then_some((point, at))
    }
}

/// What a connection lost is sent again a second later, and then once more.
const SENT_AGAIN: Duration = Duration::from_millis(2_500);

/// Which bound an answer is owed by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bound {
    /// All is calm: at once.
    Calm,
    /// It is a stale one: at once, whatever befalls others.
    NeedsNobody,
    /// The server may have to look for a leader before.
    LooksForALeader,
}

/// The bound by which each answered wait was judged that had something to be woken by.
pub(crate) fn bounds(history: &History) -> impl Iterator<Item = Bound> + '_ {
    let at_servers = history.operations.iter().filter(|it| it.server.agent().is_none());
    at_servers.filter_map(|operation| {
        let wait = Wait::of(history, operation)?;
        let (_, seen_by_all) = wait.first_lasting_difference()?;
        Some(wait.owed_by(seen_by_all).1)
    })
}

/// Whether a fault keeps a server from answering, or its answers from arriving; and not only from reaching others.
fn stops_a_server(fault: &FaultSpan) -> bool {
    const TO_OTHER_SERVERS: [&str; 11] = [
        "cut off from other servers",
        "not heard by other servers",
        "does not hear other servers",
        "connections to other servers",
        "both halves of the other servers",
        "between servers",
        "syncs",
        "next write fails",
        "disk is full",
        "leadership is handed",
        "joins",
    ];
    !TO_OTHER_SERVERS.iter().any(|words| fault.what.contains(words))
}

/// How long after a server has applied a difference its waiters' answers may take to reach them, when all is well: the
/// window in which bursts are folded, a round to the leader and one from there to a quorum, and the way back.
pub(super) fn lateness(bounds: &Bounds) -> Duration {
    COALESCE_WINDOW + bounds.latency * 8 + Duration::from_millis(300)
}

#[cfg(test)]
mod tests {
    use super::{
        super::story::{Story, web},
        *,
    };
    use crate::history::{FaultKind, ServerNumber};

    fn complaint(story: Story) -> String {
        check(&story.finish()).expect_err("a bad wait").what
    }

    /// It has been calm for long.
    fn story() -> Story {
        let mut story = Story::new();
        story.wait_ms(5_000);
        story
    }

    #[test]
    fn waking_for_a_difference_or_at_the_timeout_is_fine() {
        let mut story = story();
        story.register("web-1", 1);
        let woken = story.wait_for(2, web(), 1, 5_000);
        story.stretch(woken, 1_000, 0);
        let timed_out = story.wait_for(2, web(), 2, 500);
        story.stretch(timed_out, 0, 520);
        story.wait_ms(600);
        story.wait_for(3, web(), 0, 500);
        story.wait_ms(5_000);
        assert_eq!(check(&story.finish()), Ok(()));
    }

    #[test]
    fn waking_early_for_nothing_is_not() {
        let mut story = story();
        story.register("web-1", 1);
        story.wait_for(2, web(), 2, 5_000);
        assert!(complaint(story).contains("woken early with index 2"));
    }

    #[test]
    fn waking_for_another_service_is_not() {
        let mut story = story();
        story.register("web-1", 1);
        story.register("web-2", 2);
        let wait = story.wait_for(2, Ask::Nodes, 2, 5_000);
        story.change_answer(wait, |answer| answer.index = Some(3));
        assert!(complaint(story).contains("without any difference"));
    }

    fn green() -> Ask {
        Ask::Health {
            service: "web".into(),
            passing: false,
            tags: vec!["green".into()],
        }
    }

    #[test]
    fn waking_for_instances_without_the_tag_is_not() {
        let mut story = story();
        story.wait_ms(2_000);
        story.register("web-1", 1);
        let wait = story.wait_for(2, green(), 1, 5_000);
        story.stretch(wait, 2_000, 0);
        story.wait_ms(5_000);
        assert!(complaint(story).contains("without any difference"));
    }

    /// A wait that is sent while this befalls its server, and is ended by what comes before that is over.
    fn sent_during(fault: &str) -> Result<(), Violation> {
        let mut story = story();
        story.fault_called(fault, FaultKind::Disturbing, 2, 4_500);
        story.wait_ms(4_000);
        story.register("web-1", 1);
        story.wait_ms(1_000);
        let wait = story.wait_for(2, green(), 1, 9_000);
        story.stretch(wait, 4_900, 0);
        story.wait_ms(5_000);
        check(&story.finish())
    }

    #[test]
    fn what_reached_a_server_late_may_be_ended_by_what_came_before() {
        assert_eq!(sent_during("s2 is cut off from everyone"), Ok(()));
        let complaint = sent_during("s2 is cut off from other servers").expect_err("it came at once");
        assert!(complaint.what.contains("without any difference"));
    }

    #[test]
    fn instances_without_the_tag_that_were_there_before_may_end_a_wait() {
        let mut story = story();
        story.register("web-1", 1);
        story.wait_ms(2_000);
        story.wait_for(2, green(), 1, 5_000);
        story.wait_ms(5_000);
        assert_eq!(check(&story.finish()), Ok(()));
    }

    /// A stale server that was behind what the client has comes to it, stays there for so long, and answers what is no news.
    fn behind_the_client(level_ms: u64) -> Story {
        let mut story = story();
        story.register("web-1", 1);
        story.wait_ms(10);
        let behind = story.now();
        story.register("web-2", 2);
        story.deregister("web-2");
        story.wait_ms(level_ms);
        let wait = story.wait_for(2, green(), 4, 5_000);
        story.register("web-3", 3);
        let answer = story.read(2, green(), Freshness::Stale);
        story.copy_answer(answer, wait);
        let operation = story.operation(wait);
        operation.invoked = behind;
        let Op::Wait { freshness, .. } = &mut operation.op else {
            panic!("a wait")
        };
        *freshness = Freshness::Stale;
        story.wait_ms(5_000);
        story
    }

    #[test]
    fn a_stale_server_that_was_behind_the_client_may_be_wrong_until_it_comes_level() {
        assert_eq!(check(&behind_the_client(0).finish()), Ok(()));
        assert!(complaint(behind_the_client(3_000)).contains("without any difference"));
    }

    #[test]
    fn answering_long_after_the_difference_is_not() {
        let mut story = story();
        let wait = story.wait_for(2, web(), 1, 3_000);
        story.register("web-1", 1);
        story.wait_ms(3_000);
        let answer = story.read(2, web(), Freshness::Default);
        story.copy_answer(answer, wait);
        story.stretch(wait, 0, 3_000);
        story.wait_ms(5_000);
        assert!(complaint(story).contains("answered only at"));
    }

    #[test]
    fn not_seeing_what_was_there_already_is_not() {
        let mut story = story();
        story.register("web-1", 1);
        story.wait_ms(100);
        let wait = story.wait_for(2, web(), 1, 2_000);
        story.stretch(wait, 0, 2_000);
        story.wait_ms(9_000);
        assert!(complaint(story).contains("answered only at"));
    }

    #[test]
    fn a_server_with_troubles_may_take_longer() {
        let mut story = story();
        let wait = story.wait_for(2, web(), 1, 30_000);
        story.register("web-1", 1);
        story.fault(FaultKind::Disturbing, 2, 1_000);
        let answer = story.read(2, web(), Freshness::Default);
        story.copy_answer(answer, wait);
        story.stretch(wait, 0, 2_500);
        story.wait_ms(5_000);
        assert_eq!(check(&story.finish()), Ok(()));
    }

    #[test]
    fn troubles_that_are_over_excuse_nothing() {
        let mut story = story();
        let wait = story.wait_for(2, web(), 1, 30_000);
        story.register("web-1", 1);
        story.fault(FaultKind::Disturbing, 2, 500);
        let answer = story.read(2, web(), Freshness::Default);
        story.copy_answer(answer, wait);
        story.stretch(wait, 0, 20_000);
        story.wait_ms(20_000);
        assert!(complaint(story).contains("it was owed by"));
    }

    /// A stale watcher of a server that has such a trouble, answered three seconds after the difference was there.
    fn late_stale_answer(trouble: &str) -> Story {
        let mut story = story();
        let wait = story.wait_for(2, web(), 1, 30_000);
        story.register("web-1", 1);
        story.fault(FaultKind::Disturbing, 2, 9_000);
        story.record().faults[0].what = trouble.into();
        let answer = story.read(2, web(), Freshness::Stale);
        story.copy_answer(answer, wait);
        story.stretch(wait, 0, 3_000);
        if let Op::Wait { freshness, .. } = &mut story.operation(wait).op {
            *freshness = Freshness::Stale;
        }
        story.wait_ms(9_000);
        story
    }

    #[test]
    fn a_stale_watcher_needs_no_other_server() {
        assert!(
            complaint(late_stale_answer("s2 is cut off from other servers")).contains("answered only at")
        );
        assert_eq!(check(&late_stale_answer("s2 stands still").finish()), Ok(()));
    }

    #[test]
    fn a_server_beside_the_troubles_may_not_take_for_ever() {
        let mut story = story();
        let wait = story.wait_for(2, web(), 1, 30_000);
        story.register("web-1", 1);
        story.fault(FaultKind::Disturbing, 3, 9_000);
        let answer = story.read(2, web(), Freshness::Default);
        story.copy_answer(answer, wait);
        story.stretch(wait, 0, 8_000);
        story.wait_ms(9_000);
        assert!(complaint(story).contains("answered only at"));
    }

    #[test]
    fn a_stream_that_shows_each_difference_is_fine() {
        let mut story = story();
        let first = story.event(2, web(), 0, None);
        story.register("web-1", 1);
        let second = story.event(2, web(), 1, Some(first));
        let last = story.event(2, web(), 2, Some(second));
        story.leaves(last, 5_000);
        story.wait_ms(9_000);
        assert_eq!(check(&story.finish()), Ok(()));
    }

    #[test]
    fn an_event_that_shows_nothing_new_is_not() {
        let mut story = story();
        story.register("web-1", 1);
        let first = story.event(2, web(), 1, None);
        story.event(2, web(), 1, Some(first));
        assert!(complaint(story).contains("shows what the one before shows"));
    }

    /// A stream that is left without its last event, whose client had room for it so long after it was owed.
    fn last_event_is_lost(room_after_ms: u64) -> Story {
        let mut story = story();
        let first = story.event(2, web(), 0, None);
        let last = story.event(2, web(), 1, Some(first));
        story.register("web-1", 1);
        let room = story.now() + Duration::from_millis(room_after_ms);
        story.leaves(last, 3_000);
        if let Some(streamed) = &mut story.operation(last).streamed {
            streamed.room = room;
        }
        story.wait_ms(9_000);
        story
    }

    #[test]
    fn who_listens_to_a_machine_that_lost_its_power_is_owed_what_came_long_before() {
        let restarted = |after_ms: u64| {
            let mut story = last_event_is_lost(0);
            let mut again = story.record().observations[0].clone();
            (again.server, again.what) = (ServerNumber(2), Fact::Started);
            again.at = again.at + Duration::from_millis(after_ms);
            story.record().observations.push(again);
            check(&story.finish())
        };
        assert_eq!(restarted(5_100), Ok(()));
        assert!(restarted(7_000).is_err());
    }

    #[test]
    fn losing_the_last_event_of_a_stream_is_not() {
        assert!(complaint(last_event_is_lost(0)).contains("left without an answer"));
    }

    #[test]
    fn a_slow_client_is_owed_nothing_before_it_has_room() {
        assert_eq!(check(&last_event_is_lost(2_900).finish()), Ok(()));
    }

    #[test]
    fn a_stream_that_never_begins_is_not() {
        let mut story = story();
        let first = story.event(2, web(), 0, None);
        story.leaves(first, 5_000);
        story.wait_ms(9_000);
        assert!(complaint(story).contains("the first event was owed by"));
    }
}
