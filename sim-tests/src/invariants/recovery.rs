//! Faults that end do no lasting harm: soon after the last one every member serves a write and a linearizable read, and
//! in the end all of them have applied the same log (DESIGN §4: first safety, then healing, then liveness).

use super::Violation;
use crate::{
    history::{Fact, History, Operation, ServerNumber},
    time::Time,
};

/// Its name.
pub const NAME: &str = "recovery";

/// See the module's page.
///
/// # Errors
/// A member does not serve in time, or stays behind.
pub fn check(history: &History) -> Result<(), Violation> {
    let by = history.healed + history.bounds.recovery;
    if history.ended < by {
        return Ok(());
    }
    if history.members_in_the_end().is_empty() {
        return Err(Violation::new(NAME, history.ended, "no server is up in the end"));
    }
    for server in history.members_in_the_end() {
        // One that lost its disk serves when the operator has added it again.
        if history.is_out(server, history.healed) {
            caught_up(history, server)?;
            continue;
        }
        let served = |operation: &&Operation| {
            operation.server == server
                && operation.is_done()
                && operation.invoked >= history.healed
                && operation.returned <= by
        };
        let wrote = |operation: &Operation| operation.op.is_write();
        let read = |operation: &Operation| {
            operation
                .op
                .asked()
                .is_some_and(|(_, freshness)| freshness.linearizable())
        };
        for (what, is_one) in [
            ("write", &wrote as &dyn Fn(&Operation) -> bool),
            ("linearizable read", &read),
        ] {
            if !history.operations.iter().filter(served).any(is_one) {
                let what = format!("{server} serves no {what} from {} to {by}", history.healed);
                return Err(Violation::new(NAME, by, what));
            }
        }
        caught_up(history, server)?;
    }
    Ok(())
}

fn caught_up(history: &History, server: ServerNumber) -> Result<(), Violation> {
    let truth = history.truth();
    let long_ago = history.ended - history.bounds.settle;
    let mut applied = None;
    for seen in history.observations.iter().filter(|seen| seen.server == server) {
        match &seen.what {
            Fact::Applied(entry) => applied = Some(entry.log_index),
            Fact::SnapshotInstalled { log_index, .. } => applied = Some(*log_index),
            _ => {}
        }
    }
    let point = applied.map_or(0, |log_index| truth.point_of(log_index));
    if long_ago > Time(0) && point < truth.applied_until(long_ago) {
        let what = format!("{server} ends {} entries behind", truth.last() - point);
        return Err(Violation::new(NAME, history.ended, what));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{
        super::story::{Story, disks},
        *,
    };
    use crate::operation::{Ask, Freshness};

    fn story(serving: &[u8]) -> Story {
        let mut story = Story::new();
        story.configure(&[1, 2, 3]);
        story.wait_ms(3_000);
        story.record().healed = story.now();
        story.wait_ms(100);
        for server in serving {
            let write = story.register("web-1", u32::from(*server));
            story.operation(write).server = ServerNumber(*server);
            story.read(*server, Ask::Services, Freshness::Default);
        }
        story.wait_ms(9_000);
        story
    }

    fn complaint(story: Story) -> String {
        check(&story.finish()).expect_err("no recovery").what
    }

    #[test]
    fn everyone_serving_is_fine() {
        assert_eq!(check(&story(&[1, 2, 3]).finish()), Ok(()));
    }

    #[test]
    fn a_server_that_serves_nothing_is_not() {
        assert!(complaint(story(&[1, 2])).contains("s3 serves no write"));
    }

    #[test]
    fn stale_reads_are_not_enough() {
        let mut story = story(&[1, 2, 3]);
        for operation in &mut story.record().operations {
            if let crate::operation::Op::Read { freshness, .. } = &mut operation.op {
                *freshness = Freshness::Stale;
            }
        }
        assert!(complaint(story).contains("s1 serves no linearizable read"));
    }

    #[test]
    fn serving_too_late_is_not() {
        let mut story = story(&[1, 2]);
        let write = story.register("web-1", 3);
        story.operation(write).server = ServerNumber(3);
        story.read(3, Ask::Services, Freshness::Default);
        assert!(complaint(story).contains("s3 serves no write"));
    }

    #[test]
    fn staying_behind_is_not() {
        let mut story = story(&[1, 2, 3]);
        story.forget_applied(2, 3);
        assert!(complaint(story).contains("s2 ends 1 entries behind"));
    }

    #[test]
    fn staying_behind_is_fine_for_who_was_removed_after_the_last_question() {
        let mut story = story(&[1, 2, 3]);
        let voters = vec![disks(&[1, 3])];
        story.observe(1, Fact::Configured { log_index: 4, voters });
        story.register("web-2", 4);
        story.wait_ms(3_000);
        story.forget_applied(2, 4);
        assert_eq!(check(&story.finish()), Ok(()));
    }

    #[test]
    fn a_cluster_that_is_down_is_not() {
        let mut story = story(&[1, 2, 3]);
        (1..=3).for_each(|server| story.observe(server, Fact::Stopped { by_itself: None }));
        assert!(complaint(story).contains("no server is up"));
    }
}
