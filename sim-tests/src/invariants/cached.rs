//! What an agent keeps (`?cached`) is a true state of some moment, and tells its age: no server said so longer ago than that
//! (`core/src/agent/cache.rs`). What was fetched for this request is as of now. Within one life of the agent the index of
//! an answer never goes back. A client that wants nothing older than some age, or something new, gets that. And while all is well,
//! since the agent was first asked for it, what it keeps is no older than the way of news.

use std::{collections::BTreeMap, time::Duration};

use super::{
    Violation,
    forwarded::{all_is_well, kept_since, way_of_news},
    linearizability::place,
};
use crate::{
    history::{AgentPromise, Answer, History, Kept, Operation, ServerNumber},
    operation::{Ask, Freshness, Op},
    time::{Time, drift_of},
};

/// Its name.
pub const NAME: &str = "cached";

/// An age is told in whole seconds.
const ROUNDING: Duration = Duration::from_secs(1);

/// See the module's page.
///
/// # Errors
/// A kept answer is not what it says it is.
pub fn check(history: &History) -> Result<(), Violation> {
    let mut shown: BTreeMap<(ServerNumber, &Ask), Vec<&Operation>> = BTreeMap::new();
    for operation in &history.operations {
        let (Some((ask, freshness)), Some(answer)) = (operation.op.asked(), operation.answer()) else {
            continue;
        };
        let Some(agent) = history.agent_of(operation).filter(|_| freshness.is_cached()) else {
            continue;
        };
        let before = shown.entry((operation.server, ask)).or_default();
        let given = Given {
            history,
            operation,
            agent,
            ask,
            answer,
        };
        given
            .is_as_asked(freshness)
            .and_then(|kept| given.is_true(kept))
            .and_then(|()| given.is_new())
            .and_then(|()| given.follows(before))
            .map_err(|what| {
                let what = format!("{} of {}: {what}", operation.op, operation.server);
                Violation::of(NAME, operation.returned, [operation.id], what)
            })?;
        before.push(operation);
    }
    Ok(())
}

/// Whether all was well since the agent was first asked for what it gives here.
fn is_followed(history: &History, agent: &AgentPromise, operation: &Operation) -> bool {
    kept_since(history, agent, operation)
        .filter(|since| *since + way_of_news(history) < operation.invoked)
        .is_some_and(|since| all_is_well(history, agent, since, operation.returned))
}

/// Whether a kept answer must be as new as the way of news allows.
pub(crate) fn is_judged_strictly(history: &History, operation: &Operation) -> bool {
    let agent = history.agent_of(operation);
    agent.is_some_and(|agent| is_followed(history, agent, operation))
}

/// An answer to a request for what is kept.
struct Given<'a> {
    history: &'a History,
    operation: &'a Operation,
    agent: &'a AgentPromise,
    ask: &'a Ask,
    answer: &'a Answer,
}

impl Given<'_> {
    /// It says whether it was kept, and that it is no older than was asked for.
    fn is_as_asked(&self, freshness: Freshness) -> Result<&Kept, String> {
        let told = self.answer.told.as_ref();
        let kept = told
            .and_then(|told| told.kept.as_ref())
            .ok_or("it does not say whether it was kept")?;
        // Who waits has asked for what comes, too.
        let waits = matches!(&self.operation.op, Op::Wait { index, .. } if *index > 0);
        match freshness {
            Freshness::CachedWithin(seconds) if !waits && kept.age > Duration::from_secs(seconds) => Err(
                format!("it is {:?} old; at most {seconds} s were asked for", kept.age),
            ),
            Freshness::CachedAnew if !waits && kept.hit => {
                Err("it was kept, though it was to be fetched".into())
            }
            _ => Ok(kept),
        }
    }

    /// It is what servers had, at a moment that is not too long ago.
    fn is_true(&self, kept: &Kept) -> Result<(), String> {
        let truth = self.history.truth();
        let since = self.not_before(kept).unwrap_or_default();
        let earliest = truth.applied_before(since);
        let latest = truth.applied_until(self.operation.returned);
        place(
            self.history,
            self.operation,
            self.ask,
            self.answer,
            earliest,
            latest,
        )
        .map(|_| ())
        .map_err(|problem| format!("{kept:?}, so of {since} or later: {problem}"))
    }

    /// The moment since which it must have been so; `None` if nothing is known.
    fn not_before(&self, kept: &Kept) -> Option<Time> {
        let Given {
            history,
            operation,
            agent,
            ..
        } = *self;
        let invoked = operation.invoked;
        if !kept.hit {
            return Some(invoked);
        }
        let ago = kept.age + ROUNDING;
        let drift = drift_of(ago, history.bounds.drift_ppm);
        let confirmed = invoked - ago - drift - way_of_news(history);
        Some(confirmed).filter(|at| all_is_well(history, agent, *at, operation.returned))
    }

    /// It shows what anybody would be woken for, if all was well since the agent was first asked for it.
    fn is_new(&self) -> Result<(), String> {
        let Given {
            history,
            operation,
            agent,
            ..
        } = *self;
        let Some(content) = self.answer.content.as_ref() else {
            return Err("it has no content".into());
        };
        if !is_followed(history, agent, operation) {
            return Ok(());
        }
        let truth = history.truth();
        let since = operation.invoked - way_of_news(history);
        let (first, last) = (
            truth.applied_before(since),
            truth.applied_until(operation.returned),
        );
        // Outputs alone wake nobody, and an index may rise without a difference.
        let told = content.without_output();
        match (first..=last).any(|point| truth.content(self.ask, point).without_output() == told) {
            true => Ok(()),
            false => Err(format!(
                "it was so at no moment since {since}, and the agent followed it"
            )),
        }
    }

    /// It is no older than what the agent has shown before, in this life.
    fn follows(&self, before: &[&Operation]) -> Result<(), String> {
        let Some(index) = self.answer.index else {
            return Err("it has no index".into());
        };
        let newer = before.iter().find(|it| {
            let shown = it.answer().and_then(|answer| answer.index);
            it.returned < self.operation.invoked
                && shown.is_some_and(|shown| shown > index)
                && !self.agent.may_have_ended(it.invoked, self.operation.returned)
        });
        newer.map_or(Ok(()), |it| {
            let shown = it.answer().and_then(|answer| answer.index).unwrap_or_default();
            Err(format!(
                "index {index}, though this agent has shown {shown} before, in operation {}",
                it.id
            ))
        })
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
        history::{Outage, OutageKind, Told},
    };

    const AGENT: u8 = ServerNumber::AGENTS;

    fn story() -> Story {
        let mut story = Story::new();
        story.agent(&agency::node(0));
        story.wait_ms(10_000);
        story.register("web-1", 1);
        story
    }

    fn read(story: &mut Story, freshness: Freshness, hit: bool, age_s: u64) -> u32 {
        let read = story.read(AGENT, web(), freshness);
        say(story, read, hit, age_s);
        read
    }

    fn say(story: &mut Story, read: u32, hit: bool, age_s: u64) {
        story.change_answer(read, |answer| {
            answer.told = Some(Told {
                known_leader: true,
                last_contact: Duration::ZERO,
                consistency: "leader".into(),
                kept: Some(Kept {
                    hit,
                    age: Duration::from_secs(age_s),
                }),
            });
        });
    }

    fn complaint(story: Story) -> Option<String> {
        check(&story.finish()).err().map(|it| it.what)
    }

    /// What is said of a story that goes on with a kept answer which tells its age and misses a change.
    fn not_following(mut story: Story) -> Option<String> {
        let old = read(&mut story, Freshness::Cached, false, 0);
        story.wait_ms(1_000);
        story.register("web-2", 2);
        story.wait_ms(4_000);
        let kept = read(&mut story, Freshness::Cached, true, 5);
        story.copy_answer(old, kept);
        say(&mut story, kept, true, 5);
        story.wait_ms(3_000);
        complaint(story)
    }

    #[test]
    fn what_is_kept_and_follows_is_fine() {
        let mut story = story();
        read(&mut story, Freshness::Cached, false, 0);
        story.wait_ms(3_000);
        read(&mut story, Freshness::Cached, true, 3);
        story.register("web-2", 2);
        story.wait_ms(1_000);
        read(&mut story, Freshness::CachedWithin(2), true, 1);
        read(&mut story, Freshness::CachedAnew, false, 0);
        story.wait_ms(3_000);
        assert_eq!(complaint(story), None);
    }

    #[test]
    fn what_is_older_than_it_says_is_found() {
        let mut story = story();
        let old = read(&mut story, Freshness::Cached, false, 0);
        story.register("web-2", 2);
        story.wait_ms(4_000);
        let kept = read(&mut story, Freshness::Cached, true, 1);
        story.copy_answer(old, kept);
        say(&mut story, kept, true, 1);
        story.wait_ms(3_000);
        assert!(complaint(story).expect("too old").contains("was gone"));
    }

    #[test]
    fn what_does_not_follow_is_found_though_it_tells_its_age() {
        let complaint = not_following(story());
        assert!(complaint.expect("too old").contains("followed it"));
    }

    #[test]
    fn what_was_kept_before_trouble_may_not_follow_unless_the_agent_has_ended() {
        let complaint_after = |kind: OutageKind| {
            let mut story = story();
            read(&mut story, Freshness::Cached, false, 0);
            story.wait_ms(100);
            story.fault(crate::history::FaultKind::Disturbing, 1, 500);
            let outage = Outage {
                from: story.now(),
                until: Some(story.now() + Duration::from_millis(500)),
                kind,
                what: String::new(),
            };
            story.record().agents[0].outages.push(outage);
            story.wait_ms(10_000);
            not_following(story)
        };
        assert_eq!(complaint_after(OutageKind::Disk), None);
        let again = complaint_after(OutageKind::Down).expect("it was asked anew");
        assert!(again.contains("followed it"), "{again}");
    }

    #[test]
    fn what_goes_back_is_found_whatever_befell_the_servers() {
        let mut story = story();
        let old = read(&mut story, Freshness::Cached, false, 0);
        story.register("web-2", 2);
        story.fault(crate::history::FaultKind::Disturbing, 2, 5_000);
        read(&mut story, Freshness::Cached, true, 0);
        let back = read(&mut story, Freshness::Cached, true, 0);
        story.copy_answer(old, back);
        say(&mut story, back, true, 0);
        assert!(complaint(story).expect("it goes back").contains("has shown"));
    }

    #[test]
    fn what_is_not_as_asked_is_found() {
        let mut old = story();
        read(&mut old, Freshness::CachedWithin(1), true, 2);
        assert!(complaint(old).expect("too old").contains("at most 1 s"));
        let mut kept = story();
        read(&mut kept, Freshness::CachedAnew, true, 0);
        assert!(complaint(kept).expect("kept").contains("to be fetched"));
        let mut silent = story();
        silent.read(AGENT, web(), Freshness::Cached);
        assert!(complaint(silent).expect("silent").contains("does not say"));
    }
}
