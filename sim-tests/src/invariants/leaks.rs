//! Nothing leaks, and nothing grows without a bound (DESIGN §7, rule 7): whatever a server holds of which there may be
//! several is within its named limit whenever somebody looks; and what it holds for those who wait (parked queries, their
//! topics, reads that wait for the leader, writes under way) is gone soon after the last client went, answered or not.

use std::collections::BTreeSet;

use super::Violation;
use crate::{history::History, operation::Ask};

/// Its name.
pub const NAME: &str = "leaks";

/// So many of its own tasks at most wait for a server to become the leader, or not to be it any more.
const OWN_WAITERS: usize = 8;

/// See the module's page.
///
/// # Errors
/// A server held more than it may, or holds something for nobody.
pub fn check(history: &History) -> Result<(), Violation> {
    let stay = history.members_in_the_end();
    for holding in &history.holdings {
        let server = holding.server;
        let (most, at) = holding.most;
        if most > holding.limit {
            let what = format!(
                "{server} holds {most} {}, the limit is {}",
                holding.what, holding.limit
            );
            return Err(Violation::new(NAME, at, what));
        }
        // Who is no member any more, or is left broken, still waits for a leader with what it was given.
        if let Some(left @ 1..) = holding.left
            && holding.passing
            && left > allowed(history, &holding.what)
            && stay.contains(&server)
        {
            let what = format!(
                "{server} still holds {left} {} when all clients have gone",
                holding.what
            );
            return Err(Violation::new(NAME, history.ended, what));
        }
    }
    Ok(())
}

/// How much may be left when all clients have gone: agents go on, and follow what they keep, and a server's own tasks.
fn allowed(history: &History, what: &str) -> usize {
    let of_followers = ["blocking queries", "topics waited for", "timers for others"];
    match what {
        "waiters for leadership" => OWN_WAITERS,
        _ if of_followers.contains(&what) => followers(history),
        _ => 0,
    }
}

/// How many queries agents may have at a server when all clients have gone: one for each answer that they keep, whoever asked
/// for it; and of one that died, or can't be reached, as long as the server does not know that.
fn followers(history: &History) -> usize {
    let mut kept: BTreeSet<(&str, &Ask)> = BTreeSet::new();
    let mut followers = 0;
    for operation in &history.operations {
        let asked = operation
            .op
            .asked()
            .filter(|(_, freshness)| freshness.is_cached());
        if let (Some((ask, _)), Some(agent)) = (asked, history.agent_of(operation))
            && kept.insert((&agent.node, ask))
        {
            followers += 1 + agent.outages.len();
        }
    }
    followers
}

#[cfg(test)]
mod tests {
    use super::{super::story::Story, *};
    use crate::{
        history::{Holding, ServerNumber},
        operation::Freshness,
    };

    fn verdict(passing: bool, most: usize, left: usize) -> Result<(), Violation> {
        let mut story = Story::new();
        story.configure(&[1, 2, 3]);
        let at = story.now();
        story.record().holdings.push(Holding {
            server: ServerNumber(2),
            what: "blocking queries".into(),
            passing,
            limit: 10,
            most: (most, at),
            left: Some(left),
        });
        check(&story.finish())
    }

    #[test]
    fn what_is_gone_in_the_end_is_fine() {
        assert_eq!(verdict(true, 10, 0), Ok(()));
    }

    #[test]
    fn what_is_kept_may_stay() {
        assert_eq!(verdict(false, 10, 10), Ok(()));
    }

    #[test]
    fn agents_follow_what_they_keep() {
        let left = |asked: bool| {
            let mut story = Story::new();
            story.configure(&[1, 2, 3]);
            story.agent(&crate::agency::node(0));
            if asked {
                story.read(ServerNumber::AGENTS, Ask::Services, Freshness::Cached);
            }
            let at = story.now();
            story.record().holdings.push(Holding {
                server: ServerNumber(2),
                what: "blocking queries".into(),
                passing: true,
                limit: 10,
                most: (1, at),
                left: Some(1),
            });
            check(&story.finish())
        };
        assert_eq!(left(true), Ok(()));
        left(false).expect_err("nobody follows");
    }

    #[test]
    fn what_is_left_is_not() {
        let violation = verdict(true, 5, 1).expect_err("a leak");
        assert!(violation.what.contains("s2 still holds 1 blocking queries"));
    }

    #[test]
    fn more_than_may_be_is_not() {
        let violation = verdict(false, 11, 0).expect_err("too many");
        assert!(
            violation
                .what
                .contains("s2 holds 11 blocking queries, the limit is 10")
        );
    }
}
