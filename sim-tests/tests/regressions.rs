//! Schedules that once failed. Each is kept as it was, because seeds mean something else when the generator changes, and
//! says what was wrong.

use sider_sim_tests::{run::run, schedule::Schedule};

/// Runs a kept schedule; no invariant may be violated.
fn holds(schedule: &str) {
    let schedule = Schedule::parse(schedule).expect("a kept schedule can be read, and makes sense");
    let violations = run(&schedule).violations;
    assert!(violations.is_empty(), "{}", violations[0]);
}

macro_rules! regressions {
    ($($(#[doc = $cause:literal])+ $name:ident: $file:literal;)*) => {
        /// The names of all kept schedules.
        const KEPT: &[&str] = &[$($file),*];
        $(
            $(#[doc = $cause])+
            #[test]
            fn $name() {
                holds(include_str!(concat!("../regressions/", $file, ".json")));
            }
        )*
    };
}

/// A schedule that is kept without a word about its cause would never run.
#[test]
fn every_kept_schedule_has_its_test() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/regressions");
    for file in std::fs::read_dir(directory).expect("there is such a directory") {
        let name = file.expect("it can be read").file_name();
        let name = name.to_string_lossy();
        let stem = name.strip_suffix(".json").expect("they are JSON");
        assert!(KEPT.contains(&stem), "{name} has no entry in this file");
    }
}

regressions! {
    /// A leader died between the two steps of a removal, and the server that was to go led next. Asked to add another one, it
    /// completed the removal as part of that change, which kept it without a vote: it led on, and refused every change of
    /// the membership from then on, as one who has no vote must.
    a_removal_is_completed_before_the_next_change: "joined-while-a-removal-was-half-done";

    /// A leader that heard nobody was told to hand leadership on. By then another had led and crashed; the first heard of it
    /// from the rest, took it for its successor, and said that leadership had been handed on.
    who_is_said_to_lead_says_so_itself: "told-of-a-leader-that-was";

    /// A leader that was told to remove itself committed the first of the change's two steps, lost its majority, and
    /// answered `No cluster leader`, which says that nothing was done. The next leader completed the removal.
    a_removal_that_is_half_done_is_not_said_to_be_undone: "half-done-removal";

    /// A server was told to leave, and the first of that change's two steps waited for a majority. It was then told to join
    /// again, which was answered with success, for it was still a voter of the older membership; and then it was removed.
    a_join_is_not_done_while_a_removal_is_under_way: "join-while-a-removal-is-under-way";

    /// A server lost its disk, its removal was lost with a leader, and it was told to join. The leader's question who it is
    /// got no answer; it was taken for the member that it had been, and the join was acknowledged, though it counted for nothing.
    a_server_that_lost_its_disk_is_no_member_before_it_is_seen: "wiped-server-joins-unseen";

    /// A check that was an alias was registered anew, of another instance, while the leader's look at the one before was on its way
    /// to the log: what it found was written behind the registration. The next look sets it right.
    a_look_under_way_tells_of_what_an_alias_was_of: "look-before-a-new-alias";

    /// A follower's copy of an entry was safe when it said so, and rotten before the leader heard that.
    what_was_safe_until_a_bit_flipped_counts: "a-bit-flips-before-the-answer";

    /// A server was started on a checkpoint that held all there was, and answered a wait at once. When it had what ended the wait was
    /// taken from what it applied next, seconds later.
    what_a_server_begins_with_needs_no_apply: "begun-on-a-checkpoint";

    /// Leadership was to be handed on, as a follower was asked for, and its message to the leader got lost: the follower waited a minute
    /// for the answer to what takes seconds.
    a_transfer_that_gets_lost_holds_nobody_up: "a-transfer-is-lost-on-its-way";

    /// The first part of a snapshot got lost while the leader was cut off. It was waited for for two seconds, though the follower answered
    /// heartbeats long before; then the library left the follower alone for as long as an election takes, and again after its first answer.
    a_lost_part_of_a_snapshot_is_soon_sent_again: "a-chunk-is-lost-on-its-way";

    /// A client waited for a session by a name that was given to one only later, and then above the index of what it had seen before:
    /// that there was none.
    what_was_seen_of_one_session_says_nothing_of_another: "a-name-gets-its-session";

    /// A leader stood still while a session's time ran out. When it went on it proposed the expiry, in the same moment a renewal
    /// arrived, and the expiry was refused, for leadership was not confirmed yet. So the renewal needed no entry of its own and was
    /// acknowledged; but the time was set as if it had not come, and the session ended at the next look.
    a_renewal_counts_that_comes_while_an_expiry_is_refused: "renewal-during-a-refused-expiry";

    /// A batch reported twice on one check. The first report was written and refused, as the check was deregistered
    /// meanwhile; the second, which then changed nothing, was acknowledged before that was known.
    a_report_shares_the_outcome_of_an_earlier_one_in_its_call: "reports-twice-in-a-call";

    /// A registration that renews a check changes its count of renewals and nothing that is shown; the next change of
    /// another instance of the service then woke those who filter by tag, with the same answer.
    a_count_of_renewals_wakes_nobody: "woken-by-a-renewal-count";

    /// A follower that came back after the leader had purged what it lacked was never sent a snapshot.
    a_follower_that_missed_much_gets_a_snapshot: "follower-without-snapshot";

    /// A leader that had removed itself took another change of the membership before it stepped down.
    a_leader_that_leaves_takes_no_more_changes: "leader-removed-while-another-joins";

    /// A server that was removed asked to be added again when it was restarted.
    a_removed_server_stays_out_when_it_restarts: "removed-server-restarts";

    /// A stale server that was behind what its watcher had seen elsewhere compared with its own older state: a change that
    /// led back to that state was not told.
    a_server_behind_its_watcher_misses_no_change: "stale-server-behind-its-watcher";

    /// A follower of the Raft library that gets delayed and repeated appends carries out an update of its bookkeeping
    /// after a newer one; it must do no harm.
    late_progress_does_no_harm: "late-progress";

    /// A leader that was heard but heard nobody kept the others from electing another one: its heartbeats paused, but it
    /// sent an entry that nobody acknowledged again and again.
    a_leader_that_hears_nobody_gives_way: "deaf-leader";

    /// A leader that is handing its office on sends no heartbeats; when it also held entries back from its successor, as
    /// that had been down, nobody could be elected. (The other server with all entries was broken for good.)
    a_successor_gets_the_entries_it_lacks: "leader-that-handed-on-and-holds-back";

    /// A process crashed between writing entries and syncing them. Started again, it read them and told the leader of them;
    /// they counted as stored on a majority, and a power cut could have taken them back.
    what_a_crashed_process_left_unsynced_does_not_count: "unsynced-log-of-a-crashed-process";

    /// An agent took on from the servers that a check was critical, before its probe had failed often enough. That status
    /// did not change any more, so no removal of its instance was planned; the servers took the instance away, and the
    /// agent registered it again, for ever.
    what_was_critical_before_it_was_probed_leaves_too: "adopted-status-never-leaves";

    /// A query that waited at an agent was lost on its way to the server. Whoever came later for the same waited behind it to the end,
    /// though what they waited for was there before they came.
    who_comes_behind_a_lost_query_is_told_what_is_there: "behind-a-lost-wait";
}
