//! At most one server leads a term (Raft, §5.2), and a server votes for one candidate in a term, also across restarts
//! (§5.4.1): a vote that is forgotten can elect two leaders. So a server that lost its disk has no vote until it is
//! added again: who leads has the votes of a majority of the voters, on the disks by which they are known.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Violation,
    quorum::{Voters, is_quorum},
};
use crate::history::{Disk, Fact, History, Observed, ServerNumber};

/// Its name.
pub const NAME: &str = "election_safety";

/// See the module's page.
///
/// # Errors
/// Two servers led one term, a server voted twice in a term or for an older one, one led without the votes of a majority,
/// or an entry was created by a server that did not lead.
pub fn check(history: &History) -> Result<(), Violation> {
    let mut leaders: BTreeMap<u64, ServerNumber> = BTreeMap::new();
    let mut votes: BTreeMap<ServerNumber, Ballot<'_>> = BTreeMap::new();
    let mut polls = Polls::default();
    for seen in &history.observations {
        let violation = |what: String| Err(Violation::new(NAME, seen.at, what));
        polls
            .see(seen)
            .or_else(|what| violation(format!("{} {what}", seen.server)))?;
        match &seen.what {
            // On its next disk it is another member.
            Fact::Wiped => {
                votes.remove(&seen.server);
            }
            Fact::BecameLeader { term } => {
                let leader = *leaders.entry(*term).or_insert(seen.server);
                if leader != seen.server {
                    return violation(format!("{leader} and {} both lead term {term}", seen.server));
                }
            }
            Fact::VoteSaved {
                term,
                voted_for,
                committed,
            } => {
                let ballot = votes.entry(seen.server).or_default();
                ballot
                    .mark(*term, voted_for, *committed)
                    .or_else(|what| violation(format!("{} {what}", seen.server)))?;
            }
            _ => {}
        }
    }
    created_by_leaders(history, &leaders)
}

/// Who may vote, and who did.
#[derive(Default)]
struct Polls<'a> {
    /// The disk that each server has.
    disks: BTreeMap<ServerNumber, Disk>,
    /// Votes, by term and candidate.
    votes: BTreeMap<(u64, Disk), BTreeSet<Disk>>,
    /// Memberships in each server's log, by their log index.
    logs: BTreeMap<ServerNumber, BTreeMap<u64, &'a Voters>>,
    /// The last membership that anyone applied.
    applied: u64,
}

impl<'a> Polls<'a> {
    fn see(&mut self, seen: &'a Observed) -> Result<(), String> {
        let log = self.logs.entry(seen.server).or_default();
        let disk = *self
            .disks
            .entry(seen.server)
            .or_insert_with(|| seen.server.into());
        match &seen.what {
            Fact::Identified { disk } => {
                self.disks.insert(seen.server, *disk);
            }
            Fact::Wiped => log.clear(),
            // An entry takes the place of any other, and of what came behind that.
            Fact::Appended { index, .. } => drop(log.split_off(index)),
            Fact::Configured { log_index, voters } => {
                log.insert(*log_index, voters);
            }
            Fact::Applied(entry) if log.contains_key(&entry.log_index) => {
                self.applied = self.applied.max(entry.log_index);
            }
            Fact::VoteSaved {
                term,
                voted_for,
                committed: false,
            } => {
                if let Some(candidate) = Disk::parse(voted_for) {
                    self.votes.entry((*term, candidate)).or_default().insert(disk);
                }
            }
            Fact::BecameLeader { term } => return self.elected(seen.server, disk, *term),
            _ => {}
        }
        Ok(())
    }

    /// A leader has one of the memberships from the last committed one on: which, it does not tell. One that got it in a
    /// snapshot is not judged.
    fn elected(&self, server: ServerNumber, leader: Disk, term: u64) -> Result<(), String> {
        let nobody = BTreeSet::new();
        let votes = self.votes.get(&(term, leader)).unwrap_or(&nobody);
        let mut candidates = self.logs[&server].range(self.applied..).peekable();
        if candidates.peek().is_none() || candidates.any(|(_, voters)| is_quorum(voters, votes)) {
            return Ok(());
        }
        let names: Vec<String> = votes.iter().map(ToString::to_string).collect();
        Err(format!(
            "leads term {term} with the votes of {}",
            names.join(", ")
        ))
    }
}

/// What a server has saved of its newest term.
#[derive(Default)]
struct Ballot<'a> {
    term: u64,
    /// For whom it voted.
    vote: Option<&'a str>,
    /// Whom it knows to have won.
    winner: Option<&'a str>,
}

impl<'a> Ballot<'a> {
    fn mark(&mut self, term: u64, candidate: &'a str, won: bool) -> Result<(), String> {
        if term < self.term {
            return Err(format!(
                "votes in term {term} after it voted in term {}",
                self.term
            ));
        }
        if term > self.term {
            *self = Ballot {
                term,
                ..Ballot::default()
            };
        }
        // A server that voted for a loser takes note of the winner; that is no second vote.
        let (mine, what) = if won {
            (&mut self.winner, "knows as winners")
        } else {
            (&mut self.vote, "votes for")
        };
        match mine.replace(candidate) {
            Some(other) if other != candidate => {
                Err(format!("{what} {other} and {candidate} in term {term}"))
            }
            _ => Ok(()),
        }
    }
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

    fn vote(term: u64, voted_for: &str, committed: bool) -> Fact {
        Fact::VoteSaved {
            term,
            voted_for: voted_for.into(),
            committed,
        }
    }

    #[test]
    fn knowing_that_another_one_won_is_fine() {
        let mut story = Story::new();
        story.observe(2, vote(2, "s2", false));
        story.observe(2, vote(2, "s3", true));
        assert_eq!(verdict(story), Ok(()));
    }

    #[test]
    fn two_winners_of_a_term_are_not() {
        let mut story = Story::new();
        story.observe(2, vote(2, "s1", true));
        story.observe(2, vote(2, "s3", true));
        assert!(
            verdict(story)
                .expect_err("two winners")
                .what
                .contains("winners s1 and s3")
        );
    }

    #[test]
    fn a_leader_for_each_term_is_fine() {
        let mut story = Story::new();
        story.observe(2, vote(2, "s2", false));
        story.observe(3, vote(2, "s2", false));
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
        story.observe(2, vote(2, "s2", false));
        story.restart(2);
        story.observe(2, vote(2, "s3", false));
        assert!(
            verdict(story)
                .expect_err("two votes")
                .what
                .contains("votes for s2 and s3")
        );
    }

    #[test]
    fn a_vote_for_an_older_term_is_not() {
        let mut story = Story::new();
        story.observe(2, vote(5, "s2", false));
        story.observe(2, vote(4, "s2", false));
        assert!(verdict(story).is_err());
    }

    /// Three voters, of whom the third has another disk by now; two vote.
    fn elected_by(voters: [u8; 2]) -> Story {
        let mut story = Story::new();
        let all = [1, 2, 3].map(|server| ServerNumber(server).into());
        let voters_of_three = vec![BTreeSet::from(all)];
        for server in [1, 2] {
            let voters = voters_of_three.clone();
            story.observe(server, Fact::Configured { log_index: 0, voters });
        }
        story.observe(3, Fact::Wiped);
        let disk = Disk {
            server: ServerNumber(3),
            id: 7,
        };
        story.observe(3, Fact::Identified { disk });
        for server in voters {
            story.observe(server, vote(2, "s2", false));
        }
        story.observe(2, Fact::BecameLeader { term: 2 });
        story
    }

    #[test]
    fn the_votes_of_a_majority_are_enough() {
        assert_eq!(verdict(elected_by([1, 2])), Ok(()));
    }

    #[test]
    fn a_vote_on_another_disk_does_not_count() {
        let violation = verdict(elected_by([2, 3])).expect_err("no majority");
        assert!(
            violation
                .what
                .contains("s2 leads term 2 with the votes of s2, s3"),
            "{violation}"
        );
    }

    #[test]
    fn a_server_votes_again_on_another_disk() {
        let mut story = Story::new();
        story.observe(2, vote(2, "s2", false));
        story.observe(2, Fact::Wiped);
        story.observe(2, vote(2, "s3", false));
        assert_eq!(verdict(story), Ok(()));
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
