//! Membership changes that were acknowledged hold: in the end every member names the same voters, those who joined are
//! among them, those who were removed are not (Raft, §6; SPEC §1).

use std::collections::BTreeSet;

use super::Violation;
use crate::{
    history::{Fact, History, MembershipChange, ServerNumber, Transferred},
    time::Time,
};

/// Its name.
pub const NAME: &str = "membership";

/// See the module's page.
///
/// # Errors
/// Members disagree, or an acknowledged change is not there.
pub fn check(history: &History) -> Result<(), Violation> {
    history
        .transfers
        .iter()
        .try_for_each(|transfer| is_handed_on(history, transfer))?;
    let Some(last) = history.newest_configuration() else {
        return Ok(());
    };
    let voters: BTreeSet<ServerNumber> = last.voters.iter().copied().collect();
    for told in &history.configurations {
        let theirs: BTreeSet<ServerNumber> = told.voters.iter().copied().collect();
        // One that lost its disk knows nobody; its name may be a member's still.
        let belongs = voters.contains(&told.server) && !history.is_out(told.server, told.at);
        let explained = |server: &ServerNumber| is_changing(history, *server, told.at, last.at);
        if belongs && !theirs.symmetric_difference(&voters).all(explained) {
            let what = format!(
                "{} names the voters {}, {} names {}",
                told.server,
                names(&theirs),
                last.server,
                names(&voters),
            );
            return Err(Violation::new(NAME, told.at, what));
        }
    }
    let concerned = history.bounds.first_voters.iter().copied();
    let concerned: BTreeSet<ServerNumber> = concerned
        .chain(history.memberships.iter().map(|change| change.server))
        .collect();
    for server in concerned {
        // What was answered after they told can't show yet.
        let belongs = history.is_member(server, last.at);
        if belongs.is_some_and(|belongs| belongs != voters.contains(&server)) {
            let what = format!(
                "{server} should {}be a voter; the voters are {}, the learners {}",
                if belongs == Some(true) { "" } else { "not " },
                names(&voters),
                names(&last.learners),
            );
            return Err(Violation::new(NAME, last.at, what));
        }
        if is_gone(history, server) && last.learners.contains(&server) {
            let what = format!("{server} was removed, and is a learner still");
            return Err(Violation::new(NAME, last.at, what));
        }
    }
    Ok(())
}

/// Whether a server was joining or leaving at some time between two moments.
fn is_changing(history: &History, server: ServerNumber, one: Time, other: Time) -> bool {
    let mut changes = history
        .memberships
        .iter()
        .filter(|change| change.server == server);
    changes.any(|change| change.invoked <= one.max(other) && change.returned >= one.min(other))
}

/// Who hands leadership on and says that it is done has seen the other one lead.
fn is_handed_on(history: &History, transfer: &Transferred) -> Result<(), Violation> {
    let mut leads: BTreeSet<ServerNumber> = BTreeSet::new();
    let mut led = false;
    for seen in history
        .observations
        .iter()
        .filter(|it| it.at <= transfer.returned)
    {
        let meant = transfer.to.is_none_or(|to| to == seen.server);
        match seen.what {
            Fact::BecameLeader { .. } => {
                leads.insert(seen.server);
                led |= meant && seen.at >= transfer.invoked;
            }
            Fact::LostLeadership { .. } | Fact::Stopped { .. } => {
                // One that led already had nothing to take over.
                led |= leads.remove(&seen.server)
                    && transfer.to == Some(seen.server)
                    && seen.at >= transfer.invoked;
            }
            _ => {}
        }
    }
    if led || transfer.to.is_some_and(|to| leads.contains(&to)) {
        return Ok(());
    }
    let to = transfer
        .to
        .map_or("another server".to_owned(), |to| to.to_string());
    let what = format!("leadership was handed on to {to}, which never led until that was acknowledged");
    Err(Violation::new(NAME, transfer.returned, what))
}

/// Whether a server was removed, and nobody asked for it to join.
fn is_gone(history: &History, server: ServerNumber) -> bool {
    let mut changes = history
        .memberships
        .iter()
        .filter(|change| change.server == server);
    let removed = |change: &MembershipChange| !change.joins && change.done == Some(true);
    changes.clone().any(removed) && changes.all(|change| !change.joins)
}

fn names<'a>(servers: impl IntoIterator<Item = &'a ServerNumber>) -> String {
    servers
        .into_iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
mod tests {
    use super::{super::story::Story, *};

    fn story(joins: bool, server: u8, done: Option<bool>, voters: &[u8]) -> Story {
        let mut story = Story::new();
        story.record().bounds.first_voters = (1..=3).map(ServerNumber).collect();
        let change = MembershipChange {
            invoked: story.now(),
            returned: story.now(),
            server: ServerNumber(server),
            joins,
            done,
            answer: String::new(),
        };
        story.record().memberships.push(change);
        story.wait_ms(10);
        story.configure(voters);
        story
    }

    fn transfer(to: Option<u8>, elected: u8) -> Result<(), Violation> {
        let mut story = Story::new();
        let invoked = story.now();
        story.wait_ms(10);
        story.elect(elected, 2);
        story.wait_ms(10);
        let returned = story.now();
        let to = to.map(ServerNumber);
        let transfer = Transferred {
            invoked,
            returned,
            to,
        };
        story.record().transfers.push(transfer);
        verdict(story)
    }

    #[test]
    fn leadership_that_was_handed_on_is_there() {
        assert_eq!(transfer(Some(2), 2), Ok(()));
        assert_eq!(transfer(None, 2), Ok(()));
        assert_eq!(transfer(Some(1), 1), Ok(()));
    }

    #[test]
    fn handing_leadership_on_to_one_who_never_led_is_not_fine() {
        let violation = transfer(Some(3), 2).expect_err("s3 never led");
        assert!(violation.what.contains("handed on to s3"), "{violation:?}");
    }

    fn verdict(story: Story) -> Result<(), Violation> {
        check(&story.finish())
    }

    #[test]
    fn what_was_acknowledged_is_there() {
        assert_eq!(verdict(story(true, 4, Some(true), &[1, 2, 3, 4])), Ok(()));
        assert_eq!(verdict(story(false, 3, Some(true), &[1, 2])), Ok(()));
        assert_eq!(verdict(story(true, 4, Some(false), &[1, 2, 3])), Ok(()));
    }

    #[test]
    fn what_is_unknown_may_be_there() {
        assert_eq!(verdict(story(true, 4, None, &[1, 2, 3])), Ok(()));
        assert_eq!(verdict(story(true, 4, None, &[1, 2, 3, 4])), Ok(()));
    }

    #[test]
    fn a_join_that_is_acknowledged_after_all_have_told_is_not_judged() {
        let mut story = story(true, 4, Some(true), &[1, 2, 3]);
        let told = story.now();
        story.wait_ms(10);
        let later = story.now();
        story.record().memberships[0].returned = later;
        assert!(story.record().configurations.iter().all(|it| it.at <= told));
        assert_eq!(verdict(story), Ok(()));
    }

    #[test]
    fn a_join_that_is_lost_is_not_fine() {
        let violation = verdict(story(true, 4, Some(true), &[1, 2, 3])).expect_err("a lost join");
        assert!(violation.what.contains("s4 should be a voter"));
    }

    #[test]
    fn a_removed_server_that_still_learns_is_not_fine() {
        let mut story = story(false, 3, Some(true), &[1, 2]);
        for told in &mut story.record().configurations {
            told.learners.push(ServerNumber(3));
        }
        let violation = verdict(story).expect_err("a removed server that is a member");
        assert!(violation.what.contains("s3 was removed"), "{violation}");
    }

    #[test]
    fn a_removed_server_that_still_votes_is_not_fine() {
        assert!(verdict(story(false, 3, Some(true), &[1, 2, 3])).is_err());
    }

    #[test]
    fn a_change_that_failed_and_happened_is_not_fine() {
        assert!(verdict(story(true, 4, Some(false), &[1, 2, 3, 4])).is_err());
    }

    #[test]
    fn losing_a_member_nobody_removed_is_not_fine() {
        assert!(verdict(story(true, 4, Some(true), &[1, 2, 4])).is_err());
    }

    #[test]
    fn members_may_disagree_on_whom_a_change_is_about_while_it_is_under_way() {
        let lacks = |server: u8| {
            let mut story = story(true, 4, Some(true), &[1, 2, 3, 4]);
            let told = &mut story.record().configurations[0];
            told.voters.retain(|voter| *voter != ServerNumber(server));
            let asked = told.at;
            story.wait_ms(10);
            let later = story.now();
            story.record().memberships[0].invoked = asked;
            story.record().memberships[0].returned = later;
            verdict(story)
        };
        assert_eq!(lacks(4), Ok(()));
        assert!(lacks(3).is_err());
    }

    #[test]
    fn members_that_disagree_are_not_fine() {
        let mut story = story(true, 4, Some(true), &[1, 2, 3, 4]);
        story.record().configurations[0].voters.pop();
        assert!(verdict(story).is_err());
    }
}
