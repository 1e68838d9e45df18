//! Nothing counts before it is safe (Raft, §5.3, §5.4.2 and §6; SPEC §3): when an entry is first applied anywhere, and so
//! before anyone is told of it, it is on the disks of a majority of the voters such that no loss of power can take it away;
//! so is a vote when it is given, a checkpoint when the log before it is purged, an installed snapshot when it is answered.
//!
//! A server that lost its disk has another one since, which is no voter's until it is added again.
//!
//! What a loss of power could take away is asked of the disks, not of the servers.

use std::collections::{BTreeMap, BTreeSet};

use super::Violation;
use crate::history::{Disk, Fact, History, ServerNumber};

/// Its name.
pub const NAME: &str = "quorum";

pub(super) type Voters = Vec<BTreeSet<Disk>>;

/// See the module's page.
///
/// # Errors
/// An entry was applied before a majority had it for sure, or a server relied on what it could still lose.
pub fn check(history: &History) -> Result<(), Violation> {
    let committed: BTreeMap<u64, u64> = history
        .truth()
        .entries
        .iter()
        .map(|entry| (entry.log_index, entry.hash))
        .collect();
    let mut memberships: Vec<(u64, &Voters)> = Vec::new();
    let mut appended: BTreeMap<ServerNumber, (u64, u64)> = BTreeMap::new();
    for seen in &history.observations {
        match &seen.what {
            Fact::Appended { index, hash, .. } => {
                appended.insert(seen.server, (*index, *hash));
            }
            Fact::Configured { log_index, voters } => {
                // One that gave way to another entry before it was committed never counted for what came after it.
                let own = appended.get(&seen.server).filter(|(index, _)| index == log_index);
                let lost = own.is_some_and(|(index, hash)| committed.get(index).is_some_and(|it| it != hash));
                if !lost && !memberships.contains(&(*log_index, voters)) {
                    memberships.push((*log_index, voters));
                }
            }
            Fact::NotDurable { what } => {
                let what = format!(
                    "{} relies on {what}, which a loss of power would take away",
                    seen.server
                );
                return Err(Violation::new(NAME, seen.at, what));
            }
            Fact::Held { log_index, on } => {
                let enough = |(_, voters): &&(u64, &Voters)| is_quorum(voters, on);
                if !memberships.is_empty() && !in_force(&memberships, *log_index).any(|it| enough(&it)) {
                    let what = format!(
                        "{} applies entry {log_index}, which is safe on {} only",
                        seen.server,
                        names(on)
                    );
                    return Err(Violation::new(NAME, seen.at, what));
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// The memberships that may have counted when an entry was committed: the last one up to it, and those after it, which
/// its leader may have had in its log by then.
fn in_force<'a>(
    memberships: &'a [(u64, &'a Voters)],
    log_index: u64,
) -> impl Iterator<Item = &'a (u64, &'a Voters)> {
    let before = memberships
        .iter()
        .map(|(at, _)| *at)
        .filter(|at| *at <= log_index)
        .max();
    memberships
        .iter()
        .filter(move |(at, _)| *at > log_index || Some(*at) == before)
}

pub(super) fn is_quorum(voters: &Voters, on: &BTreeSet<Disk>) -> bool {
    voters
        .iter()
        .all(|set| set.intersection(on).count() > set.len() / 2)
}

fn names(servers: &BTreeSet<Disk>) -> String {
    match servers.is_empty() {
        true => "nobody's disk".to_owned(),
        false => servers
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::story::{Story, disks},
        *,
    };

    fn held(story: &mut Story, log_index: u64, on: &[u8]) {
        let on = disks(on);
        story.observe(1, Fact::Held { log_index, on });
        story.wait_ms(1);
    }

    fn complaint(story: Story) -> String {
        check(&story.finish()).expect_err("not safe").what
    }

    #[test]
    fn a_majority_is_enough() {
        let mut story = Story::new();
        story.name_voters(0, &[&[1, 2, 3]]);
        held(&mut story, 0, &[1, 2, 3]);
        held(&mut story, 1, &[2, 3]);
        assert_eq!(check(&story.finish()), Ok(()));
    }

    #[test]
    fn fewer_are_not() {
        let mut story = Story::new();
        story.name_voters(0, &[&[1, 2, 3]]);
        held(&mut story, 0, &[1]);
        assert!(complaint(story).contains("s1 applies entry 0, which is safe on s1 only"));
    }

    #[test]
    fn a_learner_does_not_count() {
        let mut story = Story::new();
        story.name_voters(0, &[&[1, 2, 3]]);
        held(&mut story, 4, &[1, 4]);
        assert!(complaint(story).contains("safe on s1, s4 only"));
    }

    #[test]
    fn two_memberships_at_once_need_two_majorities() {
        let mut story = Story::new();
        story.name_voters(0, &[&[1, 2, 3]]);
        story.name_voters(4, &[&[1, 2, 3], &[1, 4, 5]]);
        held(&mut story, 3, &[1, 2]);
        held(&mut story, 4, &[1, 2, 4]);
        assert_eq!(check(&story.finish()), Ok(()));
        let mut story = Story::new();
        story.name_voters(4, &[&[1, 2, 3], &[1, 4, 5]]);
        held(&mut story, 4, &[1, 2, 3]);
        assert!(complaint(story).contains("entry 4"));
    }

    #[test]
    fn a_membership_of_the_past_does_not_count() {
        let mut story = Story::new();
        story.name_voters(0, &[&[1]]);
        story.name_voters(2, &[&[1, 2, 3]]);
        held(&mut story, 3, &[1]);
        assert!(complaint(story).contains("safe on s1 only"));
    }

    #[test]
    fn a_membership_that_was_lost_before_it_was_committed_does_not_count() {
        let mut story = Story::new();
        story.name_voters(0, &[&[1, 2, 3]]);
        let index = story.commit(sider_core::registry::Command::RaiseVersion(1));
        let lost = Fact::Appended {
            index,
            term: 0,
            hash: 0,
        };
        story.observe(1, lost);
        story.name_voters(index, &[&[1, 3]]);
        held(&mut story, index, &[1, 2]);
        assert_eq!(check(&story.finish()), Ok(()));
    }

    #[test]
    fn a_disk_that_came_in_place_of_a_voters_is_not() {
        let mut story = Story::new();
        story.name_voters(0, &[&[1, 2, 3]]);
        let mut on = disks(&[1, 3]);
        let third = on.pop_last().expect("there are two");
        on.insert(Disk { id: 7, ..third });
        story.observe(1, Fact::Held { log_index: 1, on });
        assert!(complaint(story).contains("safe on s1, s3 only"));
    }

    #[test]
    fn relying_on_what_can_be_lost_is_not() {
        let mut story = Story::new();
        story.observe(2, Fact::NotDurable { what: "its vote" });
        assert!(complaint(story).contains("s2 relies on its vote"));
    }
}
