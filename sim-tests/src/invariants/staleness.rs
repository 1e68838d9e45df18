//! What an answer says of its own freshness is true (SPEC §3; Consul's documentation of its consistency modes): the
//! consistency is the one that was asked for; who has just confirmed that his state is new says so; and a stale answer does
//! not claim a newer contact with other servers than there was, nor a leader of whom nothing has been heard for long.
//!
//! When anything last came to a server from another one is known from the network, not from the server. A claim is held
//! against all that had come until the answer was there, so it is never judged too strictly.

use std::{collections::BTreeMap, time::Duration};

use super::Violation;
use crate::{
    history::{Disk, Fact, Heard, History, Operation, ServerNumber, Told},
    operation::{Freshness, Op},
    promised::{LEADER_SILENCE_MAX, WAIT_MAX},
    time::{Time, drift_of},
};

/// Its name.
pub const NAME: &str = "staleness";

/// Headers are in whole milliseconds.
const ROUNDING: Duration = Duration::from_millis(2);
/// A server loads its disk before its clock counts.
const LOADING: Duration = Duration::from_millis(500);

/// See the module's page.
///
/// # Errors
/// An answer says of its freshness what is not so.
pub fn check(history: &History) -> Result<(), Violation> {
    let alone = Alone::of(history);
    for operation in &history.operations {
        let (Some((_, freshness)), Some(answer)) = (operation.op.asked(), operation.answer()) else {
            continue;
        };
        let Some(told) = &answer.told else { continue };
        as_asked(freshness, told)
            .and_then(|()| match freshness.linearizable() || freshness.is_cached() {
                true => just_confirmed(told),
                false => as_new_as_asked(freshness, told)
                    .and_then(|()| contact_was_there(history, operation, told, &alone))
                    .and_then(|()| in_touch_while_calm(history, operation, told)),
            })
            .map_err(|what| {
                let what = format!("{} of {}: {what}", operation.op, operation.server);
                Violation::of(NAME, operation.returned, [operation.id], what)
            })?;
    }
    Ok(())
}

fn as_asked(freshness: Freshness, told: &Told) -> Result<(), String> {
    let expected = match freshness {
        // An agent fetches what it keeps as of then.
        Freshness::Default | Freshness::Cached | Freshness::CachedWithin(_) | Freshness::CachedAnew => {
            "leader"
        }
        Freshness::Consistent => "consistent",
        Freshness::Stale | Freshness::MaxStale(_) => "stale",
    };
    if told.consistency == expected {
        Ok(())
    } else {
        Err(format!(
            "the answer says it is {:?}, not {expected:?}",
            told.consistency
        ))
    }
}

/// Held against what the answer says; whether that is so is another question.
fn as_new_as_asked(freshness: Freshness, told: &Told) -> Result<(), String> {
    match freshness {
        Freshness::MaxStale(ms) if told.last_contact > Duration::from_millis(ms) => Err(format!(
            "the last contact is said to be {:?} ago; the client takes no more than {ms} ms",
            told.last_contact
        )),
        _ => Ok(()),
    }
}

fn just_confirmed(told: &Told) -> Result<(), String> {
    if told.known_leader && told.last_contact.is_zero() {
        Ok(())
    } else {
        Err(format!(
            "the answer is as of now, but says: leader known {}, last contact {:?} ago",
            told.known_leader, told.last_contact
        ))
    }
}

fn contact_was_there(
    history: &History,
    operation: &Operation,
    told: &Told,
    alone: &Alone,
) -> Result<(), String> {
    let Some(heard) = operation.heard else {
        return Ok(());
    };
    if alone.is(operation.server, operation.returned) {
        return Ok(());
    }
    let came = match heard {
        Heard::Never => Time(0),
        Heard::At(at) => at,
    };
    // What comes while a server stands still is heard when it goes on.
    let pauses = history.truth().pauses.iter();
    let slept = pauses
        .filter(|(server, from, to)| *server == operation.server && (*from..=*to).contains(&came))
        .map(|(_, _, to)| *to);
    let heard = slept.max().unwrap_or(came);
    // What was under way when a process started may be an answer of that one, or of the one before.
    let started = |at| {
        history
            .truth()
            .started_before(operation.server, at)
            .unwrap_or_default()
    };
    let of_life = |started| contact_was_in(history, operation, told, heard, started);
    of_life(started(operation.returned)).or_else(|problem| match started(operation.invoked) {
        before if before < started(operation.returned) => of_life(before),
        _ => Err(problem),
    })
}

/// The same of the life of the server that began at `started`.
fn contact_was_in(
    history: &History,
    operation: &Operation,
    told: &Told,
    heard: Time,
    started: Time,
) -> Result<(), String> {
    let in_this_life = heard >= started;
    let made = made_after(history, operation);
    let at_most = |ago: Duration| made - ago - drift_of(ago, history.bounds.drift_ppm) - ROUNDING;
    // Who never heard of a leader counts from his start.
    let known_from = if in_this_life { heard } else { started + LOADING };
    if known_from < at_most(told.last_contact) {
        return Err(format!(
            "the last contact is said to be {:?} ago; nothing came from another server after {heard}",
            told.last_contact
        ));
    }
    if told.known_leader && (!in_this_life || heard < at_most(LEADER_SILENCE_MAX)) {
        return Err(format!(
            "a leader is said to be known; nothing came from another server after {heard}, and the server started at \
             {started}"
        ));
    }
    Ok(())
}

/// The answer was made at some moment after the request was sent; to who waited and was told of nothing new, when the wait was
/// over.
fn made_after(history: &History, operation: &Operation) -> Time {
    let told = operation.answer().and_then(|answer| answer.index);
    match operation.op {
        Op::Wait { index, wait_ms, .. } if told == Some(index) && operation.streamed.is_none() => {
            let wait = Duration::from_millis(wait_ms).min(WAIT_MAX);
            operation.invoked + wait - drift_of(wait, history.bounds.drift_ppm)
        }
        _ => operation.invoked,
    }
}

/// While all is well a member hears of its leader all the time.
fn in_touch_while_calm(history: &History, operation: &Operation, told: &Told) -> Result<(), String> {
    let truth = history.truth();
    let member = history.is_member(operation.server, operation.returned) == Some(true);
    let broken = history.is_broken(operation.server, operation.returned);
    if !member || broken || !truth.calm_between(operation.invoked, operation.returned) {
        return Ok(());
    }
    if told.known_leader && told.last_contact <= LEADER_SILENCE_MAX {
        Ok(())
    } else {
        Err(format!(
            "all is well, but the answer says: leader known {}, last contact {:?} ago",
            told.known_leader, told.last_contact
        ))
    }
}

/// When each server was its cluster's only voter: it needs to hear of nobody.
struct Alone(BTreeMap<ServerNumber, Vec<(Time, bool)>>);

impl Alone {
    fn of(history: &History) -> Alone {
        let mut alone: BTreeMap<ServerNumber, Vec<(Time, bool)>> = BTreeMap::new();
        for seen in &history.observations {
            if let Fact::Configured { voters, .. } = &seen.what {
                let only = |set: &std::collections::BTreeSet<Disk>| {
                    set.len() == 1 && set.iter().all(|disk| disk.server == seen.server)
                };
                alone
                    .entry(seen.server)
                    .or_default()
                    .push((seen.at, voters.iter().all(only)));
            }
        }
        Alone(alone)
    }

    /// Whether it may have been so a moment before.
    fn is(&self, server: ServerNumber, at: Time) -> bool {
        let Some(steps) = self.0.get(&server) else {
            return false;
        };
        for (from, alone) in steps.iter().rev().skip_while(|(from, _)| *from > at) {
            if *alone {
                return true;
            }
            if at.since(*from) > LEADER_SILENCE_MAX * 2 {
                return false;
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::{super::story::Story, *};
    use crate::{history::FaultKind, operation::Ask};

    fn complaint(story: Story) -> String {
        check(&story.finish()).expect_err("not so").what
    }

    /// A stale read of a server that says that it heard of a leader so long ago; in truth it was `heard_ms` ago.
    fn stale(known_leader: bool, said_ms: u64, heard_ms: u64) -> Story {
        let mut story = Story::new();
        story.wait_ms(20_000);
        story.fault(FaultKind::Disturbing, 3, 1_000);
        let read = story.read(3, Ask::Services, Freshness::Stale);
        let invoked = story.operation(read).invoked;
        story.operation(read).heard = Some(Heard::At(invoked - Duration::from_millis(heard_ms)));
        story.tell(read, known_leader, said_ms, "stale");
        story
    }

    #[test]
    fn what_is_true_is_fine() {
        let mut story = Story::new();
        story.wait_ms(5_000);
        let read = story.read(2, Ask::Services, Freshness::Default);
        story.tell(read, true, 0, "leader");
        let read = story.read(2, Ask::Services, Freshness::Consistent);
        story.tell(read, true, 0, "consistent");
        let read = story.read(2, Ask::Services, Freshness::Stale);
        story.tell(read, true, 20, "stale");
        assert_eq!(check(&story.finish()), Ok(()));
        assert_eq!(check(&stale(true, 600, 600).finish()), Ok(()));
        assert_eq!(check(&stale(false, 9_000, 9_000).finish()), Ok(()));
        assert_eq!(check(&stale(false, 9_000, 10).finish()), Ok(()));
    }

    #[test]
    fn another_consistency_than_was_asked_for_is_not() {
        let mut story = Story::new();
        let read = story.read(2, Ask::Services, Freshness::Default);
        story.tell(read, true, 0, "stale");
        assert!(complaint(story).contains("says it is \"stale\", not \"leader\""));
    }

    #[test]
    fn a_confirmed_answer_that_calls_itself_old_is_not() {
        let mut story = Story::new();
        let read = story.read(2, Ask::Services, Freshness::Default);
        story.tell(read, true, 30, "leader");
        assert!(complaint(story).contains("is as of now"));
    }

    #[test]
    fn an_older_contact_than_the_client_takes_is_not() {
        let read = |most_ms: u64| {
            let mut story = Story::new();
            story.wait_ms(5_000);
            let read = story.read(2, Ask::Services, Freshness::MaxStale(most_ms));
            story.tell(read, true, 300, "stale");
            story
        };
        assert_eq!(check(&read(300).finish()), Ok(()));
        assert!(complaint(read(299)).contains("takes no more than 299 ms"));
    }

    #[test]
    fn a_contact_that_was_not_is_not() {
        assert!(complaint(stale(false, 100, 5_000)).contains("said to be 100ms ago"));
    }

    #[test]
    fn a_contact_from_before_a_wait_that_told_nothing_new_is_not() {
        let waited = |newer: u64| {
            let mut story = Story::new();
            story.wait_ms(20_000);
            story.fault(FaultKind::Disturbing, 3, 9_000);
            let wait = story.wait_for(3, Ask::Services, 0, 4_000);
            let index = story.index_of(wait).expect("a read has an index");
            story.stretch(wait, 0, 4_000);
            let operation = story.operation(wait);
            operation.heard = Some(Heard::At(operation.invoked));
            if let Op::Wait {
                freshness, index: of, ..
            } = &mut operation.op
            {
                (*freshness, *of) = (Freshness::Stale, index - newer);
            }
            story.tell(wait, true, 20, "stale");
            story
        };
        assert!(complaint(waited(0)).contains("said to be 20ms ago"));
        assert_eq!(
            check(&waited(1).finish()),
            Ok(()),
            "it may have been answered at once"
        );
    }

    #[test]
    fn what_came_while_it_stood_still_is_heard_when_it_goes_on() {
        let with_pause = |said_ms: u64| {
            let mut story = Story::new();
            story.wait_ms(10_000);
            story.observe(3, Fact::Paused);
            story.wait_ms(3_000);
            story.observe(3, Fact::Resumed);
            story.wait_ms(1_000);
            let read = story.read(3, Ask::Services, Freshness::Stale);
            let invoked = story.operation(read).invoked;
            story.operation(read).heard = Some(Heard::At(invoked - Duration::from_secs(2)));
            story.tell(read, true, said_ms, "stale");
            story
        };
        assert_eq!(check(&with_pause(1_000).finish()), Ok(()));
        assert!(complaint(with_pause(500)).contains("said to be 500ms ago"));
    }

    #[test]
    fn a_leader_of_whom_nothing_came_is_not() {
        assert!(complaint(stale(true, 5_000, 5_000)).contains("a leader is said to be known"));
    }

    #[test]
    fn an_answer_of_an_earlier_life_may_arrive_in_the_next() {
        let mut story = Story::new();
        story.wait_ms(5_000);
        let (asked, heard) = (story.now(), story.now() + Duration::from_millis(10));
        story.wait_ms(15);
        story.restart(3);
        let read = story.read(3, Ask::Services, Freshness::Stale);
        let operation = story.operation(read);
        (operation.invoked, operation.heard) = (asked, Some(Heard::At(heard)));
        story.tell(read, true, 0, "stale");
        assert_eq!(check(&story.finish()), Ok(()));
    }

    #[test]
    fn a_leader_that_only_an_earlier_life_knew_is_not() {
        let mut story = Story::new();
        story.wait_ms(5_000);
        let heard = story.now();
        story.restart(3);
        story.wait_ms(200);
        let read = story.read(3, Ask::Services, Freshness::Stale);
        story.operation(read).heard = Some(Heard::At(heard - Duration::from_millis(50)));
        story.tell(read, true, 200, "stale");
        assert!(complaint(story).contains("a leader is said to be known"));
    }

    #[test]
    fn an_answer_of_the_process_before_may_arrive_later() {
        let mut story = Story::new();
        story.wait_ms(5_000);
        let heard = story.now();
        story.restart(3);
        story.wait_ms(5);
        let read = story.read(3, Ask::Services, Freshness::Stale);
        story.operation(read).heard = Some(Heard::At(heard - Duration::from_millis(5)));
        story.stretch(read, 20, 0);
        story.tell(read, true, 5, "stale");
        assert_eq!(check(&story.finish()), Ok(()));
    }

    #[test]
    fn being_alone_needs_no_contact() {
        let mut story = stale(true, 0, 9_000);
        let only = std::collections::BTreeSet::from([ServerNumber(3).into()]);
        story.observe(
            3,
            Fact::Configured {
                log_index: 1,
                voters: vec![only],
            },
        );
        story.record().observations.last_mut().expect("just added").at = Time::ms(10);
        assert_eq!(check(&story.finish()), Ok(()));
    }

    #[test]
    fn knowing_no_leader_while_all_is_well_is_not() {
        let mut story = Story::new();
        story.wait_ms(5_000);
        let read = story.read(2, Ask::Services, Freshness::Stale);
        story.tell(read, false, 20, "stale");
        story.wait_ms(5_000);
        assert!(complaint(story).contains("all is well, but"));
    }
}
