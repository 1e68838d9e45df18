//! What one client sees is in order (Terry and others, "Session guarantees for weakly consistent replicated data", 1994;
//! SPEC §3): a linearizable read shows the client's own earlier writes and nothing older than what it has read before,
//! wherever it read it and however stale that was; its writes are carried out in its order; a stale read shows nothing older
//! than what the same process of the same server has shown to anyone; and an index that is carried to another server in a
//! blocking query is never answered with a lower one, unless a stale answer was asked for.
//!
//! `linearizability` judges each answer against everything that happened; this one only uses what the client saw, so it
//! also says to whom it is broken.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
};

use super::Violation;
use crate::{
    history::{History, Operation, ServerNumber},
    operation::Op,
    time::Time,
    truth::Point,
};

/// Its name.
pub const NAME: &str = "sessions";

/// See the module's page.
///
/// # Errors
/// A client sees an older state than it has seen.
pub fn check(history: &History) -> Result<(), Violation> {
    let mut clients: BTreeMap<u32, Floor> = BTreeMap::new();
    let mut servers: BTreeMap<ServerNumber, Floor> = BTreeMap::new();
    for operation in &history.operations {
        let client = clients.entry(operation.client).or_default();
        let Some((first, last)) = span(history, operation) else {
            continue;
        };
        let stale = operation.op.asked().is_some_and(|(_, it)| !it.linearizable());
        if !stale {
            client.holds(history, operation, last, "it has seen")?;
            carried(operation)?;
        }
        let server = servers.entry(operation.server).or_default();
        let started = |at| history.truth().started_before(operation.server, at);
        // What was under way when the process started may be an answer of the one before.
        // An agent asks now this server, now that one.
        if operation.server.agent().is_none()
            && operation.op.asked().is_some()
            && started(operation.invoked) == started(operation.returned)
        {
            server.forget_before(started(operation.invoked));
            server.holds(history, operation, last, "this server has shown")?;
            server.returned(operation, first);
        }
        client.returned(operation, first);
    }
    Ok(())
}

/// The points, first and last, of the log at which an operation can have been carried out, by its answer alone.
fn span(history: &History, operation: &Operation) -> Option<(Point, Point)> {
    let truth = history.truth();
    let answer = operation.answer()?;
    match operation.op.asked() {
        Some((ask, _)) => truth.points_of_index(&ask.topic(), answer.index?),
        None => truth
            .places_of(operation.id)
            .map(|(first, last)| (first + 1, last + 1)),
    }
}

/// A carried index is not answered with a lower one.
fn carried(operation: &Operation) -> Result<(), Violation> {
    let (Op::Wait { index, .. }, Some(got)) = (&operation.op, operation.answer().and_then(|it| it.index))
    else {
        return Ok(());
    };
    if got < *index {
        let what = format!(
            "{} of {}: index {got} for a client that has {index}",
            operation.op, operation.server
        );
        return Err(Violation::of(NAME, operation.returned, [operation.id], what));
    }
    Ok(())
}

/// The newest state that somebody is known to have seen.
#[derive(Default)]
struct Floor {
    point: Point,
    by: Option<u32>,
    under_way: BinaryHeap<Reverse<(Time, Point, u32)>>,
    /// What was shown before does not count.
    since: Time,
}

impl Floor {
    fn forget_before(&mut self, started: Option<Time>) {
        let started = started.unwrap_or_default();
        if started > self.since {
            *self = Floor {
                since: started,
                under_way: std::mem::take(&mut self.under_way)
                    .into_iter()
                    .filter(|Reverse((returned, ..))| *returned >= started)
                    .collect(),
                ..Floor::default()
            };
        }
    }

    fn holds(
        &mut self,
        history: &History,
        operation: &Operation,
        last: Point,
        who: &str,
    ) -> Result<(), Violation> {
        while let Some(Reverse((returned, point, by))) = self.under_way.peek().copied()
            && returned < operation.invoked
        {
            if point > self.point {
                (self.point, self.by) = (point, Some(by));
            }
            self.under_way.pop();
        }
        if last >= self.point {
            return Ok(());
        }
        let newer = self.by.and_then(|id| history.operation(id));
        let what = format!(
            "{} of {} shows an older state than {who}{}",
            operation.op,
            operation.server,
            newer.map(|it| format!(" by: {}", it.op)).unwrap_or_default(),
        );
        Err(Violation::of(
            NAME,
            operation.returned,
            self.by.into_iter().chain([operation.id]),
            what,
        ))
    }

    fn returned(&mut self, operation: &Operation, point: Point) {
        self.under_way
            .push(Reverse((operation.returned, point, operation.id)));
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::story::{Story, web},
        *,
    };
    use crate::operation::Freshness;

    fn complaint(story: Story) -> String {
        check(&story.finish()).expect_err("out of order").what
    }

    #[test]
    fn seeing_ones_own_writes_in_order_is_fine() {
        let mut story = Story::new();
        story.read(1, web(), Freshness::Default);
        story.register("web-1", 1);
        story.read(2, web(), Freshness::Default);
        story.read(3, web(), Freshness::Stale);
        story.register("web-2", 2);
        story.wait_for(3, web(), 2, 1_000);
        assert_eq!(check(&story.finish()), Ok(()));
    }

    #[test]
    fn missing_ones_own_write_is_not() {
        let mut story = Story::new();
        let before = story.read(2, web(), Freshness::Default);
        story.register("web-1", 1);
        story.answer_again(2, web(), Freshness::Default, before);
        assert!(complaint(story).contains("older state than it has seen by: register"));
    }

    #[test]
    fn reading_something_older_elsewhere_is_not() {
        let mut story = Story::new();
        let before = story.read(2, web(), Freshness::Default);
        let write = story.register("web-1", 1);
        story.operation(write).client = 9;
        story.read(1, web(), Freshness::Stale);
        story.answer_again(2, web(), Freshness::Consistent, before);
        assert!(complaint(story).contains("older state than it has seen by: read"));
    }

    #[test]
    fn another_client_may_know_less_of_a_stale_server() {
        let mut story = Story::new();
        let before = story.read(3, web(), Freshness::Stale);
        story.register("web-1", 1);
        let again = story.answer_again(3, web(), Freshness::Stale, before);
        story.operation(again).client = 9;
        assert_eq!(check(&story.finish()), Ok(()));
    }

    /// An answer that was late says nothing of the process that was started while it was on its way, nor does what another
    /// one answered before that.
    #[test]
    fn a_process_answers_for_itself_alone() {
        let mut story = Story::new();
        let before = story.read(3, web(), Freshness::Stale);
        let late = story.read(3, web(), Freshness::Stale);
        story.register("web-1", 1);
        story.read(3, web(), Freshness::Stale);
        story.wait_ms(100);
        story.restart(3);
        story.wait_ms(100);
        let again = story.answer_again(3, web(), Freshness::Stale, before);
        story.operation(again).client = 9;
        let back = story.now();
        story.operation(late).returned = back;
        story.operation(late).client = 8;
        assert_eq!(check(&story.finish()), Ok(()));
    }

    #[test]
    fn a_stale_server_that_goes_back_is_not() {
        let mut story = Story::new();
        let before = story.read(3, web(), Freshness::Stale);
        story.register("web-1", 1);
        story.read(3, web(), Freshness::Stale);
        let again = story.answer_again(3, web(), Freshness::Stale, before);
        story.operation(again).client = 9;
        assert!(complaint(story).contains("older state than this server has shown"));
    }

    #[test]
    fn a_stale_server_may_go_back_when_it_restarts() {
        let mut story = Story::new();
        let before = story.read(3, web(), Freshness::Stale);
        story.register("web-1", 1);
        story.read(3, web(), Freshness::Stale);
        story.restart(3);
        story.wait_ms(1);
        let again = story.answer_again(3, web(), Freshness::Stale, before);
        story.operation(again).client = 9;
        assert_eq!(check(&story.finish()), Ok(()));
    }

    #[test]
    fn a_lower_index_than_the_one_that_is_carried_is_not() {
        let mut story = Story::new();
        story.register("web-1", 1);
        story.wait_for(2, web(), 7, 1_000);
        assert!(complaint(story).contains("index 2 for a client that has 7"));
    }
}
