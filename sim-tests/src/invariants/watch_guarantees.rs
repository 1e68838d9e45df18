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
    use super::{super::story::Story, *};

    fn web() -> Ask {
        Ask::Health {
            service: "web".into(),
            passing: false,
            tags: vec![],
        }
    }

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
}
