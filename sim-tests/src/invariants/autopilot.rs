//! What autopilot may do, and must: it removes only servers that are dead, only where settings say so, one voter at a time,
//! never below the least number of voters and never so many that those who stay could not go on; and while it is calm but
//! for a dead server, it does so within the bound. A learner that was well for long enough has its vote.
//!
//! What it did is seen in the memberships that servers appended to their logs, where no operator asked for them.

use std::time::Duration;

use sider_core::server::AutopilotSettings;

use super::Violation;
use crate::{
    autopilot::{Removal, dead_after, removals_by_itself, settings},
    history::{Disk, Fact, History, ServerNumber},
    promised::UPKEEP_INTERVAL,
    time::{Time, drift_of},
    truth::calm_but_for,
};

/// Its name.
pub const NAME: &str = "autopilot";

/// Between the look at the settings and the entry that follows from it.
const THOUGHT: Duration = Duration::from_millis(1_500);

/// See the module's page.
///
/// # Errors
/// It removed a server that it should have left, or left one that it should have removed.
pub fn check(history: &History) -> Result<(), Violation> {
    let truth = history.truth();
    for removal in removals_by_itself(history) {
        may_be_removed(history, &removal)?;
    }
    if truth.entries.iter().all(|entry| settings(&entry.state).is_none()) {
        return learners_get_their_votes(history, None);
    }
    for server in history.servers() {
        dead_are_removed(history, server)?;
    }
    let last = settings(&truth.state(truth.last()));
    learners_get_their_votes(history, last)
}

fn may_be_removed(history: &History, removal: &Removal) -> Result<(), Violation> {
    let truth = history.truth();
    let violation = |what: String| {
        let what = format!("autopilot removes {}, {what}", removal.server);
        Err(Violation::new(NAME, removal.at, what))
    };
    let points = truth.applied_until(removal.at - THOUGHT)..=truth.applied_until(removal.at);
    let stored = points.filter_map(|point| settings(&truth.state(point)));
    let stored: Vec<AutopilotSettings> = stored.filter(|it| it.cleanup_dead_servers).collect();
    let Some(silence) = stored.iter().map(dead_after).min() else {
        return violation("and nobody has asked for that".into());
    };
    let (before, after) = (removal.before.len(), removal.after.len());
    let stay = after as u64;
    if before - after != 1 || after < 2 || stored.iter().all(|it| stay < it.min_quorum) {
        return violation(format!("of {before} voters, so that {after} stay"));
    }
    if removal.server == removal.leader {
        return violation("and that is the leader itself".into());
    }
    // In a calm the leader hears of everyone, so no one who took part in a calm since then can be dead.
    let early = drift_of(silence, history.bounds.drift_ppm) + history.bounds.latency * 6;
    let since = removal.at - silence + early + Duration::from_millis(350);
    let heard = truth
        .calm
        .iter()
        .any(|(from, until)| *until >= since && *from <= removal.at);
    if heard && !history.is_broken(removal.server, removal.at) {
        return violation(format!("of which it had heard less than {silence:?} ago"));
    }
    Ok(())
}

/// When a server's process does not run, from and until.
pub fn down(history: &History, server: ServerNumber) -> Vec<(Time, Time)> {
    let mut down = Vec::new();
    let mut since = None;
    for seen in history.observations.iter().filter(|seen| seen.server == server) {
        match (&seen.what, since) {
            (Fact::Stopped { .. }, None) => since = Some(seen.at),
            (Fact::Started, Some(from)) => {
                down.push((from, seen.at));
                since = None;
            }
            _ => {}
        }
    }
    down.extend(since.map(|from| (from, history.ended)));
    down
}

/// Looks at a server whenever it is down and all is calm but for that.
fn dead_are_removed(history: &History, server: ServerNumber) -> Result<(), Violation> {
    let down = down(history, server);
    if down.is_empty() {
        return Ok(());
    }
    for (from, until) in calm_but_for(history, Some(server)) {
        for (stopped, started) in &down {
            let since = from.max(*stopped);
            let Some(silence) = longest_time(history, since, until) else {
                continue;
            };
            let slack = UPKEEP_INTERVAL + history.bounds.latency * 12 + Duration::from_millis(700);
            let due = since + silence + drift_of(silence, history.bounds.drift_ppm) + slack;
            if due > until.min(*started) || history.is_member(server, due) != Some(true) {
                continue;
            }
            if enough_stay(history, server, since, due) {
                let what = format!("{server} is down since {stopped}, and autopilot has not removed it");
                return Err(Violation::new(NAME, due, what));
            }
        }
    }
    Ok(())
}

/// How long a server must be silent to be dead, at any moment of a span; `None` if at some moment none is removed.
fn longest_time(history: &History, from: Time, until: Time) -> Option<Duration> {
    let truth = history.truth();
    let points = truth.applied_until(from)..=truth.applied_until(until);
    let times = points.map(|point| {
        let settings = settings(&truth.state(point)).filter(|it| it.cleanup_dead_servers)?;
        Some(dead_after(&settings))
    });
    times.collect::<Option<Vec<_>>>()?.into_iter().max()
}

/// Whether enough voters stay without this one for it to be removed, others that may be dead aside.
fn enough_stay(history: &History, server: ServerNumber, from: Time, due: Time) -> bool {
    let truth = history.truth();
    let configured = history.observations.iter().filter(|seen| seen.at <= from);
    let last = configured.filter_map(|seen| match &seen.what {
        Fact::Configured { log_index, voters } => Some((*log_index, voters)),
        _ => None,
    });
    let Some((_, voters)) = last.max_by_key(|(log_index, _)| *log_index) else {
        return false;
    };
    let [voters] = voters.as_slice() else { return false };
    let may_be_dead = |disk: &&Disk| disk.server == server || history.is_broken(disk.server, due);
    let dead = voters.iter().filter(may_be_dead).count();
    let points = truth.applied_until(from)..=truth.applied_until(due);
    let least = points
        .filter_map(|point| settings(&truth.state(point)))
        .map(|it| it.min_quorum);
    let stay = voters.len() as u64 - 1;
    voters.iter().any(|disk| disk.server == server)
        && dead <= (voters.len() - 1) / 2
        && least.max().unwrap_or(0) <= stay
}

/// In the end nobody is a learner who was well for long enough.
fn learners_get_their_votes(history: &History, settings: Option<AutopilotSettings>) -> Result<(), Violation> {
    let Some(told) = history.newest_configuration() else {
        return Ok(());
    };
    let settings = settings.unwrap_or_default();
    let time = Duration::from_nanos(settings.server_stabilization_time_nanos);
    let enough =
        time + drift_of(time, history.bounds.drift_ppm) + UPKEEP_INTERVAL * 2 + Duration::from_secs(2);
    if !history.truth().calm_between(told.at - enough, told.at) {
        return Ok(());
    }
    let well = |server: &&ServerNumber| {
        let up = down(history, **server)
            .iter()
            .all(|(_, until)| *until + enough <= told.at);
        up && !history.is_broken(**server, told.at) && !history.is_out(**server, told.at)
    };
    match told.learners.iter().find(well) {
        None => Ok(()),
        Some(server) => {
            let what = format!("{server} was well for {enough:?}, and has no vote");
            Err(Violation::new(NAME, told.at, what))
        }
    }
}

#[cfg(test)]
mod tests {
    use sider_core::registry::{Command, KeyWrite, Operation};

    use super::{
        super::story::{Story, disks},
        *,
    };
    use crate::{
        autopilot::AutopilotOp,
        history::{FaultKind, MembershipChange},
    };

    /// Three servers with these settings, of which the third is lost after a while.
    fn story(cleans_up: bool, min_quorum: u32) -> Story {
        let mut story = Story::new();
        story.record().bounds.first_voters = (1..=3).map(ServerNumber).collect();
        story.name_voters(0, &[&[1, 2, 3]]);
        let op = AutopilotOp {
            cleans_up,
            contact_ms: 1_000,
            min_quorum,
            stable_ms: 2_000,
        };
        let write = KeyWrite {
            key: AutopilotSettings::key(),
            value: serde_json::to_vec(&op.settings()).expect("plain data").into(),
            flags: 0,
        };
        story.commit(Command::Transact(vec![Operation::SetKey(write)]));
        story.wait_ms(10_000);
        story.fault(FaultKind::Disturbing, 3, 60_000);
        story.observe(3, Fact::Stopped { by_itself: None });
        story
    }

    fn remove(story: &mut Story, stay: &[u8]) {
        story.name_voters(5, &[&[1, 2, 3], stay]);
        story.wait_ms(10);
        story.name_voters(6, &[stay]);
    }

    fn verdict(mut story: Story) -> Result<(), Violation> {
        let removals = crate::autopilot::removals(story.record());
        story.record().memberships.extend(removals);
        check(&story.finish())
    }

    fn complaint(story: Story) -> String {
        verdict(story).expect_err("autopilot is wrong").what
    }

    #[test]
    fn removing_the_dead_in_time_is_fine() {
        let mut story = story(true, 0);
        story.wait_ms(4_500);
        remove(&mut story, &[1, 2]);
        story.wait_ms(10_000);
        assert_eq!(verdict(story), Ok(()));
    }

    #[test]
    fn an_old_change_that_a_server_hears_of_anew_is_not_autopilots() {
        let mut story = Story::new();
        story.record().bounds.first_voters = (1..=3).map(ServerNumber).collect();
        story.name_voters(0, &[&[1, 2, 3]]);
        for joins in [false, true] {
            let change = MembershipChange {
                invoked: story.now(),
                returned: story.now(),
                server: ServerNumber(3),
                joins,
                done: Some(true),
                answer: String::new(),
            };
            story.record().memberships.push(change);
            if !joins {
                remove(&mut story, &[1, 2]);
            }
            story.wait_ms(1_000);
        }
        let voters = vec![disks(&[1, 2, 3]), disks(&[1, 2])];
        story.observe(3, Fact::Configured { log_index: 5, voters });
        story.wait_ms(1_000);
        assert!(crate::autopilot::removals(story.record()).is_empty());
        assert_eq!(verdict(story), Ok(()));
    }

    #[test]
    fn removing_what_was_heard_of_is_not() {
        let mut story = story(true, 0);
        story.wait_ms(2_000);
        remove(&mut story, &[1, 2]);
        assert!(complaint(story).contains("s3, of which it had heard less than 4s ago"));
    }

    #[test]
    fn removing_what_nobody_wants_removed_is_not() {
        let mut story = story(false, 0);
        story.wait_ms(4_500);
        remove(&mut story, &[1, 2]);
        assert!(complaint(story).contains("nobody has asked for that"));
    }

    #[test]
    fn removing_too_many_is_not() {
        let mut least = story(true, 3);
        least.wait_ms(4_500);
        remove(&mut least, &[1, 2]);
        assert!(complaint(least).contains("of 3 voters, so that 2 stay"));
        let mut story = story(true, 0);
        story.wait_ms(4_500);
        remove(&mut story, &[1]);
        assert!(complaint(story).contains("of 3 voters, so that 1 stay"));
    }

    #[test]
    fn leaving_the_dead_is_not_but_where_too_few_would_stay() {
        let mut leaves = story(true, 0);
        leaves.wait_ms(10_000);
        assert!(complaint(leaves).contains("s3 is down since"));
        for mut story in [story(false, 0), story(true, 3)] {
            story.wait_ms(10_000);
            assert_eq!(verdict(story), Ok(()));
        }
    }

    #[test]
    fn a_learner_that_is_well_and_has_no_vote_is_not() {
        let mut story = Story::new();
        story.wait_ms(20_000);
        story.configure(&[1, 2]);
        for told in &mut story.record().configurations {
            told.learners.push(ServerNumber(3));
        }
        assert!(complaint(story).contains("s3 was well for"));
    }
}
