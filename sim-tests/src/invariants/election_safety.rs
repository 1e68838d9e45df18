//! At most one server leads a term (Raft, §5.2), and a server votes for one candidate in a term, also across restarts
//! (§5.4.1): a vote that is forgotten can elect two leaders.

use std::collections::BTreeMap;

use super::Violation;
use crate::history::{Fact, History, ServerNumber};

/// Its name.
pub const NAME: &str = "election_safety";

/// See the module's page.
///
/// # Errors
/// Two servers led one term, a server voted twice in a term or for an older one, or an entry was created by a server
/// that did not lead.
pub fn check(history: &History) -> Result<(), Violation> {
    let mut leaders: BTreeMap<u64, ServerNumber> = BTreeMap::new();
    let mut votes: BTreeMap<ServerNumber, (u64, &str)> = BTreeMap::new();
    for seen in &history.observations {
        let violation = |what: String| Err(Violation::new(NAME, seen.at, what));
        match &seen.what {
            Fact::BecameLeader { term } => {
                let leader = *leaders.entry(*term).or_insert(seen.server);
                if leader != seen.server {
                    return violation(format!("{leader} and {} both lead term {term}", seen.server));
                }
            }
            Fact::VoteSaved { term, voted_for } => {
                if let Some((before, other)) = votes.insert(seen.server, (*term, voted_for)) {
                    if before > *term {
                        return violation(format!(
                            "{} votes in term {term} after it voted in term {before}",
                            seen.server
                        ));
                    }
                    if before == *term && other != voted_for {
                        return violation(format!(
                            "{} votes for {other} and for {voted_for} in term {term}",
                            seen.server
                        ));
                    }
                }
            }
            _ => {}
        }
    }
    created_by_leaders(history, &leaders)
}

/// An entry is seen first in the log of the leader that created it.
fn created_by_leaders(history: &History, leaders: &BTreeMap<u64, ServerNumber>) -> Result<(), Violation> {
    let mut seen_before: BTreeMap<(u64, u64), ServerNumber> = BTreeMap::new();
    for seen in &history.observations {
        if let Fact::Appended { index, term, .. } = seen.what {
            let creator = *seen_before.entry((index, term)).or_insert(seen.server);
            if let Some(leader) = leaders.get(&term)
                && *leader != creator
            {
                let what =
                    format!("entry {index} of term {term} comes from {creator}, but {leader} led that term");
                return Err(Violation::new(NAME, seen.at, what));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{super::story::Story, *};

    fn verdict(story: Story) -> Result<(), Violation> {
        check(&story.finish())
    }

    #[test]
    fn a_leader_for_each_term_is_fine() {
        let mut story = Story::new();
        story.observe(
            2,
            Fact::VoteSaved {
                term: 2,
                voted_for: "s2".into(),
            },
        );
        story.observe(
            3,
            Fact::VoteSaved {
                term: 2,
                voted_for: "s2".into(),
            },
        );
        story.elect(2, 2);
        assert_eq!(verdict(story), Ok(()));
    }

    #[test]
    fn two_leaders_of_a_term_are_not() {
        let mut story = Story::new();
        story.observe(2, Fact::BecameLeader { term: 2 });
        story.observe(3, Fact::BecameLeader { term: 2 });
        assert!(
            verdict(story)
                .expect_err("two leaders")
                .what
                .contains("both lead term 2")
        );
    }

    #[test]
    fn a_second_vote_in_a_term_is_not() {
        let mut story = Story::new();
        story.observe(
            2,
            Fact::VoteSaved {
                term: 2,
                voted_for: "s2".into(),
            },
        );
        story.restart(2);
        story.observe(
            2,
            Fact::VoteSaved {
                term: 2,
                voted_for: "s3".into(),
            },
        );
        assert!(
            verdict(story)
                .expect_err("two votes")
                .what
                .contains("votes for s2 and for s3")
        );
    }

    #[test]
    fn a_vote_for_an_older_term_is_not() {
        let mut story = Story::new();
        story.observe(
            2,
            Fact::VoteSaved {
                term: 5,
                voted_for: "s2".into(),
            },
        );
        story.observe(
            2,
            Fact::VoteSaved {
                term: 4,
                voted_for: "s2".into(),
            },
        );
        assert!(verdict(story).is_err());
    }

    #[test]
    fn an_entry_of_somebody_who_does_not_lead_is_not() {
        let mut story = Story::new();
        story.observe(
            2,
            Fact::Appended {
                index: 9,
                term: 1,
                hash: 9,
            },
        );
        assert!(
            verdict(story)
                .expect_err("a foreign entry")
                .what
                .contains("comes from s2")
        );
    }
}
