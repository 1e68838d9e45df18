//! Every answer is one that a single copy of the registry could have given at one moment between request and answer
//! (SPEC §3; Herlihy and Wing, 1990).
//!
//! The committed log is the only order in which things can have happened, so each operation is looked for in it: a write at
//! its entry, a read at a point where the answer's index and content are the model's. Operations are placed as early as
//! possible, in the order of their invocation, never before one that had returned by then: if that fails, no other
//! placement succeeds. What anyone had applied before a request counts as returned, too, so that also changes without a
//! client (an expiry) are seen in order. One pass, O(n log n).
//!
//! A stale answer is the same of one server: a state that it had between request and answer.

use std::{cmp::Reverse, collections::BinaryHeap, time::Duration};

use super::Violation;
use crate::{
    content::Content,
    history::{Answer, History, Operation, Outcome},
    matching::SHARED_NODE,
    operation::{Ask, Op, Target},
    streams::{KEEP_ALIVE, LIFE},
    time::{Time, drift_of},
    truth::Point,
};
use sider_core::registry::{Check, CheckStatus, Namespace};

/// Its name.
pub const NAME: &str = "linearizability";

/// See the module's page.
///
/// # Errors
/// An operation has no place in the committed log that respects real time.
pub fn check(history: &History) -> Result<(), Violation> {
    let mut floor = Floor::default();
    for operation in &history.operations {
        let earliest = floor.at(operation.invoked);
        let place = match (&operation.op, &operation.outcome) {
            (Op::Read { ask, freshness } | Op::Wait { ask, freshness, .. }, Outcome::Done(answer)) => {
                // Those are judged by what is promised of them.
                if freshness.is_cached() {
                    continue;
                }
                if !freshness.linearizable() {
                    stale(history, operation, ask, answer)?;
                    continue;
                }
                Some(read(history, operation, ask, answer, earliest)?)
            }
            (Op::Report { reports, .. }, Outcome::Done(answer)) => {
                let mut place = earliest;
                for (nth, report) in reports.iter().enumerate() {
                    // Of several reports about one check in a call, the last is the newest.
                    if reports[nth + 1..]
                        .iter()
                        .any(|later| may_overlap(&report.target, &later.target))
                    {
                        continue;
                    }
                    let refused = answer.refused.get(nth).copied().unwrap_or(false);
                    let wanted = (!refused).then_some(report.status);
                    // Each report of a batch has its own place.
                    place = place.max(reported(history, operation, &report.target, wanted, earliest)?);
                }
                Some(place)
            }
            (Op::Report { reports, .. }, Outcome::Refused { status: 404, .. }) if reports.len() == 1 => {
                Some(reported(history, operation, &reports[0].target, None, earliest)?)
            }
            (_, Outcome::Done(_)) => written(history, operation),
            _ => None,
        };
        if let Some(place) = place {
            floor.returned(operation.returned, place);
        }
    }
    Ok(())
}

/// The point that everything invoked from now on must be at, at least.
#[derive(Default)]
struct Floor {
    point: Point,
    under_way: BinaryHeap<Reverse<(Time, Point)>>,
}

impl Floor {
    fn at(&mut self, now: Time) -> Point {
        while let Some(Reverse((returned, point))) = self.under_way.peek()
            && *returned < now
        {
            self.point = self.point.max(*point);
            self.under_way.pop();
        }
        self.point
    }

    fn returned(&mut self, at: Time, point: Point) {
        self.under_way.push(Reverse((at, point)));
    }
}

/// The earliest point of a write: its entry was appended and applied while it was under way, else `exactly_once` complains.
fn written(history: &History, operation: &Operation) -> Option<Point> {
    let (first, _) = history.truth().places_of(operation.id)?;
    Some(first + 1)
}

fn read(
    history: &History,
    operation: &Operation,
    ask: &Ask,
    answer: &Answer,
    earliest: Point,
) -> Result<Point, Violation> {
    let truth = history.truth();
    let earliest = earliest.max(truth.applied_before(confirmed_after(history, operation, answer)));
    let latest = truth.most_applied_at(operation.server, operation.returned);
    place(history, operation, ask, answer, earliest, latest).map_err(|problem| {
        let what = format!("{} of {}: {problem}", operation.op, operation.server);
        Violation::of(NAME, operation.returned, [operation.id], what)
    })
}

/// The moment after which the server must have confirmed that its state is new. For a blocking query that found nothing
/// new, that is the end of its wait; for one that was woken, the moment at which it was. A stream may have begun to look
/// before it was woken, when it was to say that nothing differs.
fn confirmed_after(history: &History, operation: &Operation, answer: &Answer) -> Time {
    match &operation.op {
        Op::Wait {
            ask, index, wait_ms, ..
        } if *index > 0 => {
            // Who waits at an agent behind another one does so by the clock of the agent's host.
            let agents = history.agent_of(operation).map_or(0, |agent| agent.fast_ppm);
            let drift_ppm = history.bounds.drift_ppm.max(agents);
            let at_least = |wait: Duration| wait.saturating_sub(drift_of(wait, drift_ppm));
            let over = operation.invoked + at_least(Duration::from_millis(*wait_ms));
            if answer.index.is_some_and(|it| it <= *index) {
                return over;
            }
            // Once the wait may be over, it may have looked for another reason than that it was woken.
            let quick = history.bounds.latency * 8 + Duration::from_millis(300);
            let parked = history
                .truth()
                .looked_by(operation.server, operation.invoked, quick);
            // One that began on a checkpoint had what is in it before it was seen to apply anything.
            let woken = woken(history, operation, ask, *index)
                .filter(|woken| *woken > parked && *woken <= operation.returned);
            match &operation.streamed {
                // A stream looks when it was silent for long, too, and before it is ended. It may find at the end of such a
                // look what was not there at its beginning, and need not look again.
                Some(streamed) => {
                    let looks = streamed.spoke + at_least(KEEP_ALIVE);
                    let looks = looks.min(streamed.opened + at_least(LIFE));
                    woken.map(|woken| woken.min(looks.max(operation.invoked)))
                }
                None => woken.filter(|_| operation.returned < over),
            }
            .unwrap_or(operation.invoked)
        }
        _ => operation.invoked,
    }
}

/// When the server had first applied what rose the index of what is asked above the client's.
fn woken(history: &History, operation: &Operation, ask: &Ask, index: u64) -> Option<Time> {
    let truth = history.truth();
    let steps = truth.steps(&ask.topic());
    let rise = steps.get(steps.partition_point(|step| step.index <= index))?;
    truth.reached(operation.server, rise.point, operation.invoked)
}

fn stale(history: &History, operation: &Operation, ask: &Ask, answer: &Answer) -> Result<(), Violation> {
    let truth = history.truth();
    let (from, until) = (operation.invoked, operation.returned);
    let earliest = truth.least_applied_at(operation.server, from, until);
    let latest = truth.most_applied_at(operation.server, until);
    match place(history, operation, ask, answer, earliest, latest) {
        Ok(_) => Ok(()),
        Err(problem) => {
            let what = format!("{} of {}: {problem}", operation.op, operation.server);
            Err(Violation::of(NAME, until, [operation.id], what))
        }
    }
}

/// The first point from `earliest` to `latest` whose answer this is.
pub(super) fn place(
    history: &History,
    operation: &Operation,
    ask: &Ask,
    answer: &Answer,
    earliest: Point,
    latest: Point,
) -> Result<Point, String> {
    let truth = history.truth();
    let (Some(index), Some(content)) = (answer.index, answer.content.as_ref()) else {
        return Err("the answer has no index or no content".into());
    };
    let topic = ask.topic();
    let Some((first, last)) = truth.points_of_index(&topic, index) else {
        let expected = truth.index_at(&topic, earliest);
        return Err(format!(
            "index {index} is none that it ever had; it should be {expected} or a later one"
        ));
    };
    if last < earliest {
        let now = truth.index_at(&topic, earliest);
        return Err(format!(
            "index {index} was gone: by {} it was {now}{}",
            operation.invoked,
            difference(content, &truth.content(ask, earliest))
        ));
    }
    if first > latest {
        return Err(format!("index {index} was not yet there"));
    }
    let (from, until) = (first.max(earliest), last.min(latest));
    (from..=until)
        .find(|point| *truth.content(ask, *point) == *content)
        .ok_or_else(|| {
            format!(
                "the content is not that of index {index} at any point from {from} to {until}{}",
                difference(content, &truth.content(ask, until.max(from)))
            )
        })
}

fn difference(content: &Content, expected: &Content) -> String {
    if content == expected {
        String::new()
    } else {
        format!("; {}", content.difference(expected))
    }
}

/// The first point, while the report was under way and not newer than the index that it was given, at which the target has
/// the status (`None`: does not exist).
fn reported(
    history: &History,
    operation: &Operation,
    target: &Target,
    wanted: Option<CheckStatus>,
    earliest: Point,
) -> Result<Point, Violation> {
    let truth = history.truth();
    let earliest = earliest.max(truth.applied_before(operation.invoked));
    let latest = truth.applied_until(operation.returned);
    let found = (earliest..=latest).find(|point| {
        let state = truth.state(*point);
        let mut checks = state
            .checks
            .iter()
            .filter(|check| is_target(check, target))
            .peekable();
        let exists = match target {
            Target::Check(_) => checks.peek().is_some(),
            Target::Instance(id) => state.instances.iter().any(|it| {
                it.node.as_str() == SHARED_NODE
                    && it.id.as_str() == id
                    && it.namespace == Namespace::default()
            }),
        };
        match wanted {
            None => !exists,
            Some(status) => {
                let told = operation.answer().and_then(|answer| answer.index);
                let is_told = told.is_none_or(|index| state.index.max(1) <= index);
                is_told && exists && checks.all(|check| check.status == status)
            }
        }
    });
    found.ok_or_else(|| {
        let what = match wanted {
            Some(status) => format!(
                "{} was acknowledged, but {target} never was {} meanwhile, as of that index",
                operation.op,
                status.as_str()
            ),
            None => format!(
                "{} was refused, but {target} was there all the time",
                operation.op
            ),
        };
        Violation::of(NAME, operation.returned, [operation.id], what)
    })
}

/// Whether two targets may share a check; whose check one is may change, so an instance's may be any.
fn may_overlap(one: &Target, other: &Target) -> bool {
    match (one, other) {
        (Target::Check(one), Target::Check(other)) => one == other,
        (Target::Instance(_), _) | (_, Target::Instance(_)) => true,
    }
}

fn is_target(check: &Check, target: &Target) -> bool {
    let shared = check.node.as_str() == SHARED_NODE && check.namespace == Namespace::default();
    shared
        && match target {
            Target::Check(id) => check.id.as_str() == id,
            Target::Instance(id) => {
                check.definition.ttl().is_some()
                    && check.instance.as_ref().is_some_and(|own| own.as_str() == id)
            }
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
        history::{Fact, ServerNumber, Streamed},
        operation::Freshness,
    };

    fn complaint(story: Story) -> String {
        check(&story.finish()).expect_err("not linearizable").what
    }

    #[test]
    fn reads_of_what_is_there_are_fine() {
        let mut story = Story::new();
        story.read(1, web(), Freshness::Default);
        story.register("web-1", 1);
        story.read(2, web(), Freshness::Default);
        story.read(2, Ask::Services, Freshness::Consistent);
        story.report("chk:web-1:0", CheckStatus::Passing);
        story.read(3, web(), Freshness::Stale);
        story.read(
            3,
            Ask::ChecksInState(Some(CheckStatus::Passing)),
            Freshness::Default,
        );
        story.deregister("web-1");
        story.read(1, web(), Freshness::Default);
        assert_eq!(check(&story.finish()), Ok(()));
    }

    #[test]
    fn a_read_that_overlaps_a_write_may_see_it_or_not() {
        let mut story = Story::new();
        let before = story.read(2, web(), Freshness::Default);
        let write = story.register("web-1", 1);
        story.stretch(write, 50, 50);
        story.stretch(before, 0, 40);
        assert_eq!(check(&story.finish()), Ok(()));
    }

    #[test]
    fn a_read_of_the_past_is_not() {
        let mut story = Story::new();
        let old = story.read(2, web(), Freshness::Default);
        story.register("web-1", 1);
        story.register("web-2", 2);
        story.answer_again(2, web(), Freshness::Default, old);
        assert!(complaint(story).contains("index 1 was gone"));
    }

    #[test]
    fn missing_an_expiry_that_somebody_has_applied_is_not() {
        let mut story = Story::new();
        story.register("web-1", 1);
        story.report("chk:web-1:0", CheckStatus::Passing);
        let old = story.read(2, web(), Freshness::Default);
        story.wait_ms(3_000);
        story.expire("chk:web-1:0");
        story.wait_ms(1);
        story.answer_again(2, web(), Freshness::Default, old);
        assert!(complaint(story).contains("was gone"));
    }

    #[test]
    fn a_read_of_the_future_is_not() {
        let mut story = Story::new();
        let early = story.read(2, web(), Freshness::Default);
        story.register("web-1", 1);
        let late = story.read(2, web(), Freshness::Default);
        story.copy_answer(late, early);
        assert!(complaint(story).contains("was not yet there"));
    }

    #[test]
    fn another_content_under_the_same_index_is_not() {
        let mut story = Story::new();
        story.register("web-1", 1);
        let read = story.read(2, web(), Freshness::Default);
        story.change_answer(read, |answer| answer.content = Some(Content::Instances(vec![])));
        assert!(complaint(story).contains("the content is not that of index 2"));
    }

    #[test]
    fn an_index_that_never_was_is_not() {
        let mut story = Story::new();
        story.register("web-1", 1);
        let read = story.read(2, Ask::Nodes, Freshness::Default);
        story.register("web-2", 2);
        let again = story.read(2, Ask::Nodes, Freshness::Default);
        assert_eq!(
            story.index_of(read),
            story.index_of(again),
            "a second instance leaves the nodes alone"
        );
        story.change_answer(again, |answer| answer.index = Some(3));
        assert!(complaint(story).contains("index 3 is none that it ever had"));
    }

    #[test]
    fn a_stale_read_of_what_the_server_never_had_is_not() {
        let mut story = Story::new();
        let none = story.read(3, web(), Freshness::Stale);
        story.register("web-1", 1);
        let one = story.read(1, web(), Freshness::Stale);
        story.copy_answer(one, none);
        assert!(complaint(story).contains("was not yet there"));
    }

    #[test]
    fn a_stale_read_of_what_the_server_had_long_before_is_not() {
        let mut story = Story::new();
        let none = story.read(3, web(), Freshness::Stale);
        story.register("web-1", 1);
        story.answer_again(3, web(), Freshness::Stale, none);
        assert!(complaint(story).contains("was gone"));
    }

    #[test]
    fn a_wait_that_ends_with_old_content_is_not() {
        let mut story = Story::new();
        let wait = story.wait_for(2, web(), 1, 1_000);
        story.register("web-1", 1);
        // It is answered at its timeout with what was there when it began.
        story.move_to(wait, 1, 1_100);
        assert!(complaint(story).contains("was gone"));
    }

    #[test]
    fn a_wait_that_ends_early_is_not_unless_an_agents_clock_ran_fast() {
        let ends_early = |fast_ppm: u32| {
            let mut story = Story::new();
            story.wait_ms(100);
            story.agent(&agency::node(0));
            story.record().agents[0].fast_ppm = fast_ppm;
            let wait = story.wait_for(ServerNumber::AGENTS, web(), 1, 1_000);
            story.stretch(wait, 0, 900);
            story.wait_ms(910);
            story.register("web-1", 1);
            check(&story.finish())
        };
        assert!(ends_early(50_000).is_err_and(|it| it.what.contains("index 1 was gone")));
        assert_eq!(ends_early(150_000), Ok(()));
    }

    /// A wait is woken by a registration that its server applies only 50 ms after others did, and answers with that.
    fn woken_late(another_meanwhile: bool) -> Story {
        let mut story = Story::new();
        story.wait_ms(100);
        let invoked = story.now();
        story.wait_ms(5_000);
        story.register("web-1", 1);
        let wait = story.wait_for(2, web(), 1, 9_000);
        let applied = story.now() + Duration::from_millis(50);
        if another_meanwhile {
            story.register("web-2", 2);
        }
        story.wait_ms(100);
        for seen in &mut story.record().observations {
            match &seen.what {
                Fact::Applied(entry) if seen.server == ServerNumber(2) && entry.log_index > 0 => {
                    seen.at = applied + Duration::from_millis(5 * (entry.log_index - 1));
                }
                _ => {}
            }
        }
        story.record().observations.sort_by_key(|seen| seen.at);
        let operation = story.operation(wait);
        (operation.invoked, operation.returned) = (invoked, applied + Duration::from_millis(2));
        story
            .record()
            .operations
            .sort_by_key(|operation| operation.invoked);
        story
    }

    #[test]
    fn a_wait_that_answers_with_less_than_there_was_when_it_was_woken_is_not() {
        assert_eq!(check(&woken_late(false).finish()), Ok(()));
        assert!(complaint(woken_late(true)).contains("index 2 was gone"));
    }

    /// The same for an event of a stream on which the server last said anything so long after it was opened.
    fn streamed_late(spoke_ms: u64) -> Story {
        let mut story = woken_late(true);
        let waits = |operation: &&mut Operation| matches!(operation.op, Op::Wait { .. });
        let operation = story.record().operations.iter_mut().find(waits);
        let operation = operation.expect("one that waits");
        operation.streamed = Some(Streamed {
            nth: 1,
            before: None,
            arrived: operation.returned,
            room: Time(0),
            opened: operation.invoked,
            spoke: operation.invoked + Duration::from_millis(spoke_ms),
            unchanged: Vec::new(),
        });
        story
    }

    #[test]
    fn an_event_that_was_looked_for_before_it_was_woken_is_fine() {
        assert_eq!(check(&streamed_late(4_000).finish()), Ok(()));
    }

    #[test]
    fn an_event_with_less_than_there_was_when_it_was_woken_is_not() {
        assert!(complaint(streamed_late(4_900)).contains("index 2 was gone"));
    }

    #[test]
    fn an_acknowledged_report_that_had_no_effect_is_not() {
        let mut story = Story::new();
        story.register("web-1", 1);
        story.acknowledge_report("chk:web-1:0", CheckStatus::Passing);
        assert!(complaint(story).contains("never was passing"));
    }

    #[test]
    fn a_report_that_is_given_an_older_index_is_not() {
        let mut story = Story::new();
        story.register("web-1", 1);
        let report = story.report("chk:web-1:0", CheckStatus::Passing);
        story.change_answer(report, |answer| {
            answer.index = answer.index.map(|index| index - 1);
        });
        assert!(complaint(story).contains("never was passing"));
    }

    #[test]
    fn an_acknowledged_report_on_nothing_is_not() {
        let mut story = Story::new();
        story.acknowledge_report("chk:web-1:0", CheckStatus::Passing);
        assert!(complaint(story).contains("never was passing"));
    }

    #[test]
    fn a_refused_report_on_what_is_there_is_not() {
        let mut story = Story::new();
        story.register("web-1", 1);
        let report = story.report("chk:web-1:0", CheckStatus::Passing);
        story.set_outcome(
            report,
            Outcome::Refused {
                status: 404,
                reason: "unknown check".into(),
            },
        );
        assert!(complaint(story).contains("was there all the time"));
    }
}
