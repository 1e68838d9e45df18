//! Failures told as scripts. Each is played with several seeds, and ends with every invariant checked.

use sider_core::{registry::CheckStatus, runtime::Keyspace};
use sider_sim_tests::{
    content::Content,
    history::Outcome,
    operation::Freshness,
    stage::{Stage, five, pass, perform, read_web, register, three, wait_for_web},
};

fn is_done(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Done(_))
}

fn index_of(outcome: &Outcome) -> u64 {
    match outcome {
        Outcome::Done(answer) => answer.index.expect("an index"),
        other => panic!("no answer: {other:?}"),
    }
}

fn instances(outcome: &Outcome) -> usize {
    match outcome {
        Outcome::Done(answer) => match &answer.content {
            Some(Content::Instances(instances)) => instances.len(),
            other => panic!("not instances: {other:?}"),
        },
        other => panic!("no answer: {other:?}"),
    }
}

/// A deposed leader must not acknowledge a renewal: the new one may already be counting.
#[test]
fn a_deposed_leader_does_not_renew() {
    perform(0..20, &three(), async |stage: Stage| {
        let old = stage.leader().await;
        let check = stage.register_ttl(old, "web-1", 3_000).await;
        assert!(is_done(&stage.pass(old, &check).await));
        stage.isolate(old);
        let renewal = stage.ask_beside(old, pass(&check));
        stage.leader_among(&stage.others(old)).await;
        let outcome = renewal.await.expect("a client does not panic");
        assert!(!is_done(&outcome), "{outcome:?}");
    });
}

/// Cut off from the majority, a server refuses what it can't be sure of, in time, and goes on reading what it has.
#[test]
fn a_server_that_is_cut_off_is_read_only_and_never_wrong() {
    perform(20..35, &three(), async |stage: Stage| {
        let leader = stage.leader().await;
        let lonely = stage.another(leader);
        stage.register_ttl(leader, "web-1", 60_000).await;
        stage.sleep_ms(300).await;
        stage.isolate(lonely);
        let write = stage.ask_beside(lonely, register("web-2", 2, 0));
        let read = stage.ask_beside(lonely, read_web(Freshness::Default));
        let wait = stage.ask_beside(lonely, wait_for_web(2, 500));
        let stale = stage.ask(lonely, read_web(Freshness::Stale)).await;
        assert_eq!(instances(&stale), 1);
        for (what, refused) in [("write", write), ("read", read), ("wait", wait)] {
            let outcome = refused.await.expect("a client does not panic");
            assert!(matches!(outcome, Outcome::Failed(_)), "{what}: {outcome:?}");
        }
        // The others go on meanwhile.
        assert!(is_done(&stage.ask(leader, register("web-3", 3, 0)).await));
    });
}

/// Who is renewed just before the leader dies has a full TTL with the next one.
#[test]
fn a_new_leader_grants_a_full_ttl() {
    perform(40..60, &three(), async |stage: Stage| {
        let old = stage.leader().await;
        let check = stage.register_ttl(old, "web-1", 2_000).await;
        assert!(is_done(&stage.pass(old, &check).await));
        stage.sleep_ms(1_900).await;
        stage.crash(old);
        let new = stage.leader_among(&stage.others(old)).await;
        stage.sleep_ms(1_500).await;
        let statuses = stage.statuses(new, Freshness::Default).await;
        assert_eq!(statuses, Some(vec![CheckStatus::Passing]), "its TTL is not over");
        stage.sleep_ms(2_000).await;
        let statuses = stage.statuses(new, Freshness::Default).await;
        assert_eq!(statuses, Some(vec![CheckStatus::Critical]), "nobody renewed it");
    });
}

/// Renewals that arrive while the expiry is being decided and written: whoever is acknowledged, holds.
#[test]
fn a_renewal_that_meets_its_expiry_holds_if_it_is_acknowledged() {
    perform(60..90, &three(), async |stage: Stage| {
        let leader = stage.leader().await;
        let follower = stage.another(leader);
        let check = stage.register_ttl(leader, "web-1", 1_000).await;
        for round in 0..4 {
            assert!(is_done(&stage.pass(leader, &check).await));
            // The last renewals are sent from just before the deadline until after it, while syncs are slow.
            stage.sleep_ms(985 + round * 5).await;
            stage.slow_syncs(40);
            let renewals: Vec<_> = (0..6)
                .map(|n| stage.ask_beside(if n % 2 == 0 { leader } else { follower }, pass(&check)))
                .collect();
            for renewal in renewals {
                renewal.await.expect("a client does not panic");
            }
            let statuses = stage.statuses(follower, Freshness::Default).await;
            assert_eq!(statuses, Some(vec![CheckStatus::Passing]));
            stage.heal();
            stage.sleep_ms(100).await;
        }
    });
}

/// Who stood still can't have received renewals: nothing expires for it.
#[test]
fn a_leader_that_stood_still_adds_the_pause_to_every_deadline() {
    perform(90..105, &three(), async |stage: Stage| {
        let leader = stage.leader().await;
        let check = stage.register_ttl(leader, "web-1", 2_000).await;
        assert!(is_done(&stage.pass(leader, &check).await));
        // All stand still, so nobody else is elected meanwhile.
        (0..3).for_each(|server| stage.pause(server));
        stage.sleep_ms(5_000).await;
        (0..3).for_each(|server| stage.resume(server));
        stage.sleep_ms(700).await;
        let leader = stage.leader().await;
        let statuses = stage.statuses(leader, Freshness::Default).await;
        assert_eq!(statuses, Some(vec![CheckStatus::Passing]));
    });
}

/// Wall clocks decide nothing.
#[test]
fn a_wall_clock_that_jumps_expires_nothing_and_keeps_nothing_alive() {
    perform(105..115, &three(), async |stage: Stage| {
        let leader = stage.leader().await;
        let check = stage.register_ttl(leader, "web-1", 3_000).await;
        assert!(is_done(&stage.pass(leader, &check).await));
        stage.jump_wall(leader, 3_600_000);
        stage.sleep_ms(2_000).await;
        assert_eq!(
            stage.statuses(leader, Freshness::Default).await,
            Some(vec![CheckStatus::Passing])
        );
        stage.jump_wall(leader, -7_200_000);
        stage.sleep_ms(2_500).await;
        assert_eq!(
            stage.statuses(leader, Freshness::Default).await,
            Some(vec![CheckStatus::Critical])
        );
    });
}

/// Everything that was acknowledged is there when the power is back, though nothing unsynced survived anywhere.
#[test]
fn a_blackout_loses_nothing_that_was_acknowledged() {
    perform(120..150, &five(), async |stage: Stage| {
        let leader = stage.leader().await;
        stage.slow_syncs(150);
        let writes: Vec<_> = (0..12u32)
            .map(|n| stage.ask_beside((n % 5) as usize, register(&format!("web-{n}"), 100 + n, 0)))
            .collect();
        stage.sleep_ms(340).await;
        stage.power_cut(&[0, 1, 2, 3, 4]);
        let mut acknowledged = 0;
        for write in writes {
            acknowledged += usize::from(is_done(&write.await.expect("a client does not panic")));
        }
        (0..5).for_each(|server| stage.start(server));
        stage.heal();
        let leader = stage
            .leader_among(&[leader, stage.another(leader), 0, 1, 2, 3, 4])
            .await;
        stage.sleep_ms(1_000).await;
        let known = stage.look(leader, read_web(Freshness::Default)).await;
        assert!(
            instances(&known) >= acknowledged,
            "{acknowledged} were acknowledged: {known:?}"
        );
    });
}

/// A server that lost its disk comes back under a new id; the old one is removed; nothing is missing.
#[test]
fn a_server_that_lost_its_disk_is_replaced() {
    perform(150..160, &three(), async |stage: Stage| {
        let leader = stage.leader().await;
        let lost = stage.another(leader);
        for n in 0..30 {
            assert!(is_done(
                &stage.ask(leader, register(&format!("web-{n}"), n, 0)).await
            ));
        }
        stage.crash(lost);
        let new = stage.join(leader).await;
        stage.remove(leader, lost).await;
        stage.sleep_ms(1_500).await;
        let known = stage.look(new, read_web(Freshness::Default)).await;
        assert_eq!(instances(&known), 30);
        assert!(is_done(&stage.ask(new, register("web-30", 30, 0)).await));
    });
}

/// A server that lost its disk makes no majority with one that lags; under its old name it is a member again when it was
/// removed and added again. Nothing is missing.
#[test]
fn a_server_that_lost_its_disk_is_added_again() {
    perform(150..160, &three(), async |stage: Stage| {
        let leader = stage.leader().await;
        let [lost, lags] = stage.others(leader)[..] else {
            panic!("there are three");
        };
        assert!(is_done(&stage.ask(leader, register("web-0", 0, 0)).await));
        stage.isolate(lags);
        for n in 1..10 {
            assert!(is_done(
                &stage.ask(leader, register(&format!("web-{n}"), n, 0)).await
            ));
        }
        // Only the leader has them now.
        stage.lose_disk(lost);
        stage.crash(leader);
        stage.cluster.world().network().heal();
        stage.sleep_ms(3_000).await;
        let leads = stage.cluster.leads();
        assert_eq!(
            leads, None,
            "one of two that do not know what was acknowledged leads"
        );
        stage.start(leader);
        // An operator acts when it is calm: a change over which a new leader loses its office has no known outcome.
        stage.leader_among(&[leader]).await;
        stage.sleep_ms(1_000).await;
        let leader = stage.leader_among(&[leader, lags]).await;
        stage.remove(leader, lost).await;
        stage.add_again(leader, lost).await;
        stage.sleep_ms(1_500).await;
        let known = stage.look(lost, read_web(Freshness::Default)).await;
        assert_eq!(instances(&known), 10);
        assert!(is_done(&stage.ask(lost, register("web-10", 10, 0)).await));
    });
}

/// Who waits at a server that missed so much that it gets a snapshot is woken by that.
#[test]
fn a_snapshot_wakes_who_waits_for_what_is_in_it() {
    perform(160..175, &three(), async |stage: Stage| {
        let leader = stage.leader().await;
        let behind = stage.another(leader);
        stage.register_ttl(leader, "web-0", 60_000).await;
        stage.sleep_ms(300).await;
        let known = index_of(&stage.ask(behind, read_web(Freshness::Default)).await);
        let waits: Vec<_> = (0..3)
            .map(|_| stage.ask_beside(behind, wait_for_web(known, 30_000)))
            .collect();
        stage.sleep_ms(50).await;
        stage.isolate(behind);
        for n in 1..60 {
            assert!(is_done(
                &stage.ask(leader, register(&format!("web-{n}"), n, 0)).await
            ));
        }
        stage.heal();
        let healed = stage.world.now();
        for wait in waits {
            let outcome = wait.await.expect("a client does not panic");
            assert!(index_of(&outcome) > known);
        }
        let took = stage.world.now() - healed;
        assert!(took.as_secs() < 5, "woken only after {took:?}");
    });
}

/// A blocking query survives the death of the leader, and misses nothing.
#[test]
fn a_wait_at_a_follower_goes_on_across_a_failover() {
    perform(180..200, &three(), async |stage: Stage| {
        let old = stage.leader().await;
        stage.register_ttl(old, "web-0", 60_000).await;
        let follower = stage.another(old);
        let known = index_of(&stage.ask(follower, read_web(Freshness::Default)).await);
        let wait = stage.ask_beside(follower, wait_for_web(known, 20_000));
        stage.sleep_ms(100).await;
        stage.crash(old);
        let new = stage.leader_among(&stage.others(old)).await;
        assert!(is_done(&stage.ask(new, register("web-1", 1, 0)).await));
        let outcome = wait.await.expect("a client does not panic");
        assert_eq!(instances(&outcome), 2);
    });
}

/// A read that begins after a write was acknowledged sees it, wherever: also when it could join a round to the leader
/// that was already under way.
#[test]
fn what_one_server_acknowledged_every_server_reads() {
    perform(200..220, &five(), async |stage: Stage| {
        for n in 0..15u32 {
            let writer = (n % 5) as usize;
            // Others keep rounds to the leader under way all the time.
            let noise: Vec<_> = (0..5)
                .flat_map(|server| [(); 3].map(|()| stage.ask_beside(server, read_web(Freshness::Default))))
                .collect();
            assert!(is_done(
                &stage.ask(writer, register(&format!("web-{n}"), n, 0)).await
            ));
            let reads: Vec<_> = (0..5)
                .map(|server| stage.ask_beside(server, read_web(Freshness::Consistent)))
                .collect();
            for read in reads {
                let outcome = read.await.expect("a client does not panic");
                assert_eq!(instances(&outcome), n as usize + 1);
            }
            for read in noise {
                read.await.expect("a client does not panic");
            }
        }
    });
}

/// A bit that flips on a disk is noticed at the next start: the server refuses, says where, and serves nothing of it.
#[test]
fn a_flipped_bit_is_refused_and_never_served() {
    for (nth, keyspace) in [Keyspace::Log, Keyspace::Meta, Keyspace::State]
        .into_iter()
        .enumerate()
    {
        let first = 300 + 10 * nth as u64;
        perform(first..first + 10, &three(), async |stage: Stage| {
            let leader = stage.leader().await;
            for n in 0..30 {
                let written = stage.ask(leader, register(&format!("web-{n}"), n, 0)).await;
                assert!(is_done(&written), "{written:?}");
            }
            stage.sleep_ms(500).await;
            let rotten = stage.another(leader);
            let put_right = stage.rot(rotten, keyspace);
            stage.sleep_ms(500).await;
            let reason = stage.cluster.stopped(rotten).expect("it does not serve");
            assert!(
                reason.contains("corrupt") || reason.contains("version"),
                "{keyspace:?}: {reason}"
            );
            let read = stage.ask(rotten, read_web(Freshness::Stale)).await;
            assert!(!is_done(&read), "{read:?}");
            // The disk is put right, so that the cluster is whole in the end.
            put_right();
            stage.start(rotten);
        });
    }
}
