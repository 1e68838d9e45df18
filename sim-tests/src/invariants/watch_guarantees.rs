//! What etcd promises of a watch, for what a client sees of a chain of blocking queries
//! (<https://etcd.io/docs/v3.6/learning/api_guarantees/#watch-apis>). Each promise, what it means here, and who judges it:
//!
//! - *Ordered*: the indexes of a chain never go back ([`ordered`]).
//! - *Unique*: nobody is woken with what he was given before (`watches`).
//! - *Reliable*: a lasting difference is answered soon; those in between may be folded into it (`watches`).
//! - *Atomic*: an answer shows all of a transaction or nothing: the content is that of one moment of the log ([`atomic`]).
//! - *Resumable*: a chain goes on at any server, after any pause, with its last index: what came in between is answered at
//!   once (`watches`), not skipped ([`ordered`]).
//! - *Bookmarkable*: an index promises that all up to it was given, at a timeout too ([`bookmarkable`]).
//!
//! A stale answer may come from a server that is behind: its chain is as ordered as that server's own state is, which
//! `sessions` judges; what it shows is still of one moment.
//!
//! A stream is such a chain, too, and promises more: its ids rise from each event to the next, at whatever server it goes
//! on, also where it is stale ([`rises`]). When it says that nothing differs, that is so at a moment after it last said
//! something, unless it is stale ([`nothing_differed`]).

use super::Violation;
use crate::{
    content::Content,
    history::{History, Operation},
    operation::{Ask, Op},
    truth::Point,
};

/// Its name.
pub const NAME: &str = "watch_guarantees";

/// See the module's page.
///
/// # Errors
/// A promise is broken; the violation says which.
pub fn check(history: &History) -> Result<(), Violation> {
    for operation in &history.operations {
        rises(operation)
            .and_then(|()| nothing_differed(history, operation))
            .map_err(|what| {
                let what = format!("{} of {}: {what}", operation.op, operation.server);
                Violation::of(NAME, operation.returned, [operation.id], what)
            })?;
        let (
            Op::Wait {
                ask,
                index: carried,
                freshness,
                ..
            },
            Some(answer),
        ) = (&operation.op, operation.answer())
        else {
            continue;
        };
        let (Some(index), Some(content)) = (answer.index, answer.content.as_ref()) else {
            continue;
        };
        let ordered = match freshness.linearizable() {
            true => ordered(*carried, index),
            false => Ok(()),
        };
        ordered
            .and_then(|()| bookmarkable(history, operation, ask, index))
            .and_then(|span| atomic(history, ask, content, span))
            .map_err(|what| {
                let what = format!("{} of {}: {what}", operation.op, operation.server);
                Violation::of(NAME, operation.returned, [operation.id], what)
            })?;
    }
    Ok(())
}

fn ordered(carried: u64, index: u64) -> Result<(), String> {
    match index < carried {
        true => Err(format!("not ordered: index {index} follows {carried}")),
        false => Ok(()),
    }
}

/// An event of a stream has a higher id than the one that the client has.
fn rises(operation: &Operation) -> Result<(), String> {
    let (Some(_), Op::Wait { index: carried, .. }, Some(index)) = (
        &operation.streamed,
        &operation.op,
        operation.answer().and_then(|answer| answer.index),
    ) else {
        return Ok(());
    };
    match index <= *carried {
        true => Err(format!("not ordered: id {index} follows {carried} in a stream")),
        false => Ok(()),
    }
}

/// What a stream says between its events: that nothing differs from what the client has.
fn nothing_differed(history: &History, operation: &Operation) -> Result<(), String> {
    let (
        Some(streamed),
        Op::Wait {
            ask,
            index,
            freshness,
            ..
        },
    ) = (&operation.streamed, &operation.op)
    else {
        return Ok(());
    };
    let truth = history.truth();
    for (since, arrived) in &streamed.unchanged {
        if *index == 0 {
            return Err(format!(
                "at {arrived} it said that nothing differs from what it never gave"
            ));
        }
        let Some((_, last)) = truth.points_of_index(&ask.topic(), *index) else {
            continue;
        };
        let (earliest, latest) = (
            truth.applied_before(*since),
            truth.most_applied_at(operation.server, *arrived),
        );
        let shown = |point: Point| point <= last || !truth.differs(ask, last, point);
        if freshness.linearizable() && !(earliest..=latest).any(shown) {
            return Err(format!(
                "not bookmarkable: at {arrived} it said that nothing differs, though it did so ever since {since}"
            ));
        }
    }
    Ok(())
}

/// The points at which what is asked had this index, as far as the server can have been there.
fn bookmarkable(
    history: &History,
    operation: &Operation,
    ask: &Ask,
    index: u64,
) -> Result<(Point, Point), String> {
    let truth = history.truth();
    let known = truth.most_applied_at(operation.server, operation.returned);
    match truth.points_of_index(&ask.topic(), index) {
        Some((first, last)) if first <= known => Ok((first, last.min(known))),
        Some(_) => Err(format!(
            "not bookmarkable: index {index} is beyond all that this server had"
        )),
        None => Err(format!("not bookmarkable: index {index} is that of no change")),
    }
}

fn atomic(
    history: &History,
    ask: &Ask,
    content: &Content,
    (first, last): (Point, Point),
) -> Result<(), String> {
    let truth = history.truth();
    match (first..=last).any(|point| *truth.content(ask, point) == *content) {
        true => Ok(()),
        false => Err(format!(
            "not atomic: at no moment with that index was this there; {}",
            content.difference(&truth.content(ask, first))
        )),
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
        check(&story.finish()).expect_err("a broken promise").what
    }

    #[test]
    fn a_chain_that_sees_every_state_is_fine() {
        let mut story = Story::new();
        story.wait_for(2, web(), 0, 500);
        story.register("web-1", 1);
        story.wait_for(3, web(), 1, 500);
        story.wait_for(1, web(), 2, 500);
        assert_eq!(check(&story.finish()), Ok(()));
    }

    #[test]
    fn going_back_is_not() {
        let mut story = Story::new();
        story.register("web-1", 1);
        story.wait_for(2, web(), 3, 500);
        assert!(complaint(story).contains("not ordered: index 2 follows 3"));
    }

    #[test]
    fn half_of_a_transaction_is_not() {
        let mut story = Story::new();
        story.register("web-1", 1);
        let wait = story.wait_for(2, web(), 1, 500);
        story.change_answer(wait, |answer| answer.content = Some(Content::Instances(vec![])));
        assert!(complaint(story).contains("not atomic"));
    }

    #[test]
    fn an_index_ahead_of_what_was_given_is_not() {
        let mut story = Story::new();
        let wait = story.wait_for(2, web(), 1, 500);
        story.register("web-1", 1);
        story.change_answer(wait, |answer| answer.index = Some(2));
        assert!(complaint(story).contains("not bookmarkable: index 2 is beyond"));
    }

    #[test]
    fn an_index_that_never_was_is_not() {
        let mut story = Story::new();
        story.register("web-1", 1);
        let wait = story.wait_for(2, web(), 1, 500);
        story.change_answer(wait, |answer| answer.index = Some(77));
        assert!(complaint(story).contains("is that of no change"));
    }

    #[test]
    fn a_stream_that_gives_an_id_again_is_not() {
        let mut story = Story::new();
        story.register("web-1", 1);
        story.event(2, web(), 1, None);
        let again = story.event(3, web(), 2, None);
        let Op::Wait { freshness, .. } = &mut story.operation(again).op else {
            panic!("a wait")
        };
        *freshness = Freshness::Stale;
        assert!(complaint(story).contains("not ordered: id 2 follows 2 in a stream"));
    }

    /// A stream that says that nothing differs, from a moment on at which that is so or not.
    fn says_that_nothing_differs(since_before: bool, freshness: Freshness) -> Story {
        let mut story = Story::new();
        let first = story.event(2, web(), 0, None);
        let before = story.now();
        story.wait_ms(10);
        story.register("web-1", 1);
        story.wait_ms(10);
        let since = if since_before { before } else { story.now() };
        let next = story.event(2, web(), 1, Some(first));
        let arrived = story.now();
        let operation = story.operation(next);
        if let Op::Wait { freshness: asked, .. } = &mut operation.op {
            *asked = freshness;
        }
        if let Some(streamed) = &mut operation.streamed {
            streamed.unchanged.push((since, arrived));
        }
        story
    }

    #[test]
    fn saying_that_nothing_differs_is_fine_where_it_did_not_at_some_moment() {
        for (since_before, freshness) in [(true, Freshness::Default), (false, Freshness::Stale)] {
            let story = says_that_nothing_differs(since_before, freshness);
            assert_eq!(check(&story.finish()), Ok(()));
        }
    }

    #[test]
    fn saying_so_though_it_did_all_the_time_is_not() {
        let story = says_that_nothing_differs(false, Freshness::Default);
        assert!(complaint(story).contains("not bookmarkable: at"));
    }

    #[test]
    fn saying_so_before_anything_was_given_is_not() {
        let mut story = Story::new();
        let first = story.event(2, web(), 0, None);
        let at = story.now();
        if let Some(streamed) = &mut story.operation(first).streamed {
            streamed.unchanged.push((at, at));
        }
        assert!(complaint(story).contains("from what it never gave"));
    }
}
