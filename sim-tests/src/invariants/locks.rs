//! Nobody takes a lock that another still holds, as far as clients can tell: no model, no log, only what was asked and
//! answered (SPEC §6).
//!
//! Whoever was told that he has the lock has it until he gives it back, until something is asked for that may take it
//! from him, or until his session may have ended for want of a renewal, and its delay has passed. Nobody else who asks
//! after he was told, and is answered before that, may be told the same.

use std::time::Duration;

use super::Violation;
use crate::{
    content::Content,
    history::{History, Operation, Outcome},
    keys::{KeyOp, NewSession, SESSION_TTLS, Step},
    operation::Op,
    time::{self, Time},
};

/// Its name.
pub const NAME: &str = "locks";

/// See the module's page.
///
/// # Errors
/// Two held a lock at one time.
pub fn check(history: &History) -> Result<(), Violation> {
    let acquired: Vec<Acquired<'_>> = history.operations.iter().filter_map(acquired).collect();
    for holder in &acquired {
        let Some(until) = held_until(history, holder) else {
            continue;
        };
        let rival = acquired.iter().find(|other| {
            other.key == holder.key
                && other.session != holder.session
                && other.operation.invoked > holder.operation.returned
                && other.operation.returned < until
        });
        if let Some(rival) = rival {
            let what = format!(
                "{} was told to {} while {} had the lock",
                rival.session, rival.operation.op, holder.session
            );
            let operations = [holder.operation.id, rival.operation.id];
            return Err(Violation::of(NAME, rival.operation.returned, operations, what));
        }
    }
    Ok(())
}

/// An acknowledged acquisition.
struct Acquired<'a> {
    operation: &'a Operation,
    key: &'a str,
    session: &'a str,
}

fn acquired(operation: &Operation) -> Option<Acquired<'_>> {
    let told = &operation.answer()?.content;
    match &operation.op {
        Op::Keys(KeyOp::One(Step::Lock(key, _, session))) if *told == Some(Content::Flag(true)) => {
            Some(Acquired {
                operation,
                key,
                session,
            })
        }
        _ => None,
    }
}

/// Until when a lock is certainly held, and not to be taken; `None` if nothing is known of its session.
fn held_until(history: &History, holder: &Acquired<'_>) -> Option<Time> {
    let session = session_of(history, holder.session)?;
    // What becomes of a session that is bound to checks, or to a node, hangs on more than its holder's requests.
    if !session.is_bound_to_nothing() {
        return None;
    }
    let mut until = history.ended;
    if session.ttl_ms > 0 {
        // A restore may bring back a session that had ended: what is renewed then says nothing of before.
        let restores = history
            .operations
            .iter()
            .filter(|it| matches!(it.op, Op::Restore { .. }) && may_end(it, holder));
        let restored = restores.map(|it| it.invoked).min().unwrap_or(Time::MAX);
        let renewals = history.operations.iter().filter(|it| {
            it.is_done()
                && it.returned < restored
                && matches!(&it.op, Op::Keys(KeyOp::RenewSession { session }) if session == holder.session)
        });
        // What was acknowledged after the lock was told of keeps it on only if it came before the end by itself.
        let mut alive_until = holder.operation.returned;
        let mut renewals: Vec<Time> = renewals.map(|it| it.invoked).collect();
        renewals.sort();
        for renewed in renewals {
            alive_until = alive_until.max(renewed + least(history, session.ttl_ms * u64::from(SESSION_TTLS)));
        }
        until = until.min(alive_until + least(history, session.lock_delay_ms));
    }
    let ends = history.operations.iter().filter(|it| may_end(it, holder));
    Some(ends.map(|it| it.invoked).fold(until, Time::min))
}

fn least(history: &History, ms: u64) -> Duration {
    time::least(Duration::from_millis(ms), history.bounds.drift_ppm)
}

fn session_of<'a>(history: &'a History, id: &str) -> Option<&'a NewSession> {
    history.operations.iter().find_map(|operation| {
        let told = operation.answer()?.content.as_ref()?;
        match (&operation.op, told) {
            (Op::Keys(KeyOp::CreateSession(new)), Content::Created(created)) if created == id => Some(new),
            _ => None,
        }
    })
}

/// Whether an operation may take the lock away from its holder, if it is carried out after he has it.
fn may_end(operation: &Operation, holder: &Acquired<'_>) -> bool {
    if matches!(operation.outcome, Outcome::Failed(_)) || operation.returned < holder.operation.invoked {
        return false;
    }
    let step_ends = |step: &Step| match step {
        Step::Unlock(key, _, session) => key == holder.key && session == holder.session,
        Step::Delete(key) | Step::DeleteIf(key, _) => key == holder.key,
        Step::DeleteTree(prefix) => holder.key.starts_with(prefix.as_str()),
        Step::EndSession(session) => session == holder.session,
        _ => false,
    };
    match &operation.op {
        Op::Keys(KeyOp::One(step)) => step_ends(step),
        Op::Keys(KeyOp::Transact(steps)) => steps.iter().any(step_ends),
        Op::Keys(KeyOp::DestroySession { session }) => session == holder.session,
        // Locks are held as they were when the file was saved.
        Op::Restore { .. } => true,
        // The servers' shared node takes all its sessions with it.
        Op::CatalogDeregister {
            node,
            service_id: None,
            check_id: None,
        } => node == crate::matching::SHARED_NODE,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::{super::story::Story, *};

    fn lock(session: &str) -> KeyOp {
        KeyOp::One(Step::Lock("k".into(), "mine".into(), session.into()))
    }

    /// The lock is told to be somebody's, whatever the truth is.
    fn grant(story: &mut Story, session: &str) -> u32 {
        let id = story.keys(lock(session));
        story.change_answer(id, |answer| answer.content = Some(Content::Flag(true)));
        id
    }

    fn complaint(story: Story) -> String {
        check(&story.finish()).expect_err("two hold the lock").what
    }

    fn two(story: &mut Story, ttl_ms: u64, lock_delay_ms: u64) -> (String, String) {
        let one = story.session("one", ttl_ms, lock_delay_ms);
        let other = story.session("other", 0, 0);
        (one, other)
    }

    #[test]
    fn one_after_the_other_is_fine() {
        let mut story = Story::new();
        let (one, other) = two(&mut story, 0, 0);
        grant(&mut story, &one);
        story.keys(lock(&other)); // Told that it is not his.
        story.keys(KeyOp::One(Step::Unlock("k".into(), "free".into(), one)));
        grant(&mut story, &other);
        assert_eq!(check(&story.finish()), Ok(()));
    }

    #[test]
    fn two_at_a_time_are_not() {
        let mut story = Story::new();
        let (one, other) = two(&mut story, 0, 0);
        grant(&mut story, &one);
        story.wait_ms(500);
        grant(&mut story, &other);
        assert!(complaint(story).contains("had the lock"));
    }

    #[test]
    fn after_the_holder_may_be_dead_is_fine() {
        let mut story = Story::new();
        let (one, other) = two(&mut story, 500, 500);
        grant(&mut story, &one);
        story.wait_ms(1_700);
        grant(&mut story, &other);
        assert_eq!(check(&story.finish()), Ok(()));
    }

    #[test]
    fn within_the_delay_of_a_lock_is_not() {
        let mut story = Story::new();
        let (one, other) = two(&mut story, 500, 500);
        grant(&mut story, &one);
        story.keys(KeyOp::RenewSession { session: one });
        story.wait_ms(1_200);
        grant(&mut story, &other);
        assert!(complaint(story).contains("had the lock"));
    }

    #[test]
    fn as_it_was_when_it_was_saved_is_fine() {
        let mut story = Story::new();
        let (one, other) = two(&mut story, 0, 0);
        grant(&mut story, &other);
        let (_, file) = story.save();
        story.keys(KeyOp::One(Step::Unlock("k".into(), "free".into(), other.clone())));
        grant(&mut story, &one);
        story.restore(&file);
        grant(&mut story, &other);
        assert_eq!(check(&story.finish()), Ok(()));
    }

    #[test]
    fn a_renewal_after_a_restore_says_nothing_of_before() {
        let mut story = Story::new();
        let (one, other) = two(&mut story, 500, 0);
        grant(&mut story, &one);
        let (_, file) = story.save();
        story.wait_ms(1_200);
        grant(&mut story, &other);
        story.restore(&file);
        story.keys(KeyOp::RenewSession { session: one });
        assert_eq!(check(&story.finish()), Ok(()));
    }

    #[test]
    fn a_renewal_keeps_the_lock() {
        let mut story = Story::new();
        let (one, other) = two(&mut story, 500, 0);
        grant(&mut story, &one);
        story.wait_ms(800);
        story.keys(KeyOp::RenewSession { session: one });
        story.wait_ms(800);
        grant(&mut story, &other);
        assert!(complaint(story).contains("had the lock"));
    }
}
