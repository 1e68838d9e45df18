//! Backups, restores and rolling upgrades told as scripts. Each is played with several seeds, and ends with every
//! invariant checked.

use std::sync::Mutex;

use bytes::Bytes;
use sider_core::registry::{CheckStatus, Command};
use sider_sim_tests::{
    content::Content,
    history::Outcome,
    keys::{KeyOp, Step},
    operation::{Damage, Freshness, Op},
    schedule::Shape,
    stage::{Stage, pass, perform, read_web, register, three, wait_for_web},
};

const RESTORE: Op = Op::Restore { damage: Damage::None };

fn is_done(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Done(_))
}

fn index_of(outcome: &Outcome) -> u64 {
    match outcome {
        Outcome::Done(answer) => answer.index.expect("an index"),
        other => panic!("no answer: {other:?}"),
    }
}

fn instances(outcome: &Outcome) -> Vec<String> {
    match outcome {
        Outcome::Done(answer) => match &answer.content {
            Some(Content::Instances(instances)) => instances.iter().map(|it| it.id.clone()).collect(),
            other => panic!("not instances: {other:?}"),
        },
        other => panic!("no answer: {other:?}"),
    }
}

fn set(key: &str, value: &str) -> Op {
    Op::Keys(KeyOp::One(Step::Set(key.into(), value.into())))
}

/// Three servers of an older program.
fn older() -> Shape {
    Shape {
        command_version: 1,
        ..three()
    }
}

/// What was lost comes back, on every server, and whoever waits is told; what came after the backup is gone.
#[test]
fn a_restore_undoes_what_came_after_the_backup() {
    perform(0..10, &three(), async |stage: Stage| {
        let leader = stage.leader().await;
        let other = stage.another(leader);
        stage.register_ttl(leader, "web-1", 60_000).await;
        assert!(is_done(&stage.ask(other, Op::Save).await));
        let gone = Op::Deregister {
            id: "web-1".into(),
            service: None,
        };
        let gone = index_of(&stage.ask(other, gone).await);
        assert!(is_done(&stage.ask(other, register("web-2", 2, 0)).await));
        let index = index_of(&stage.look(other, read_web(Freshness::Default)).await);
        assert!(index > gone);
        let waiting = stage.ask_beside(other, wait_for_web(index, 20_000));
        stage.sleep_ms(100).await;
        let restored = index_of(&stage.ask(leader, RESTORE).await);
        assert!(restored > index);
        let woken = waiting.await.expect("a client does not panic");
        assert_eq!(
            (index_of(&woken), instances(&woken)),
            (restored, vec!["web-1".to_owned()])
        );
        for server in 0..3 {
            let seen = stage.look(server, read_web(Freshness::Default)).await;
            assert_eq!(instances(&seen), ["web-1"]);
        }
    });
}

/// Into a new cluster: everything is there, and a client that comes from the old one never sees its index go back.
#[test]
fn a_new_cluster_takes_over_from_a_file() {
    let kept: Mutex<Option<(Bytes, u64)>> = Mutex::new(None);
    perform(10..11, &three(), async |stage: Stage| {
        for version in 1..30 {
            let leader = stage.leader().await;
            assert!(is_done(&stage.ask(leader, register("web-1", version, 0)).await));
        }
        let saved = stage.ask(0, Op::Save).await;
        let file = stage.files().last().expect("it was saved");
        *kept.lock().expect("nobody panics") = Some((file, index_of(&saved)));
    });
    let kept = kept.into_inner().expect("nobody panics").expect("it was saved");
    perform(11..20, &three(), async |stage: Stage| {
        let (file, carried) = kept.clone();
        stage.files().keep(file);
        let leader = stage.leader().await;
        assert!(is_done(&stage.ask(leader, register("web-9", 1, 0)).await));
        let waiting = stage.ask_beside(leader, wait_for_web(carried, 20_000));
        stage.sleep_ms(100).await;
        let restored = index_of(&stage.ask(stage.another(leader), RESTORE).await);
        assert!(restored > carried);
        let woken = waiting.await.expect("a client does not panic");
        assert_eq!(
            (index_of(&woken), instances(&woken)),
            (restored, vec!["web-1".to_owned()])
        );
    });
}

/// A check that comes back has its full TTL, whatever its leader had decided about it before.
#[test]
fn what_is_restored_has_a_full_ttl() {
    perform(20..40, &three(), async |stage: Stage| {
        let leader = stage.leader().await;
        let check = stage.register_ttl(leader, "web-1", 1_500).await;
        assert!(is_done(&stage.ask(leader, pass(&check)).await));
        assert!(is_done(&stage.ask(leader, Op::Save).await));
        // About when it expires: the restore meets an expiry that is under way.
        stage.sleep_ms(1_400).await;
        assert!(is_done(&stage.ask(stage.another(leader), RESTORE).await));
        stage.sleep_ms(1_200).await;
        assert_eq!(
            stage.statuses(leader, Freshness::Default).await,
            Some(vec![CheckStatus::Passing])
        );
        stage.sleep_ms(1_700).await;
        assert_eq!(
            stage.statuses(leader, Freshness::Default).await,
            Some(vec![CheckStatus::Critical])
        );
    });
}

/// A file that is not what was saved is refused, and nothing is different.
#[test]
fn a_damaged_file_changes_nothing() {
    perform(40..50, &three(), async |stage: Stage| {
        let leader = stage.leader().await;
        stage.register_ttl(leader, "web-1", 60_000).await;
        assert!(is_done(&stage.ask(leader, Op::Save).await));
        let before = index_of(&stage.ask(leader, register("web-2", 1, 0)).await);
        for damage in [
            Damage::CutOff(999),
            Damage::CutOff(0),
            Damage::Flipped(500),
            Damage::Flipped(3),
        ] {
            let refused = stage.ask(leader, Op::Restore { damage }).await;
            assert!(
                matches!(refused, Outcome::Refused { status: 400, .. }),
                "{refused:?}"
            );
        }
        assert_eq!(
            index_of(&stage.look(leader, read_web(Freshness::Default)).await),
            before
        );
    });
}

/// Whoever leads may die in the middle: then either everything is as it was, or everything is restored.
#[test]
fn a_restore_is_done_completely_or_not_at_all_when_the_leader_dies() {
    perform(50..80, &three(), async |stage: Stage| {
        let leader = stage.leader().await;
        let other = stage.another(leader);
        stage.register_ttl(leader, "web-1", 60_000).await;
        assert!(is_done(&stage.ask(other, Op::Save).await));
        for id in ["web-2", "web-3"] {
            assert!(is_done(&stage.ask(other, register(id, 1, 0)).await));
        }
        let restoring = stage.ask_beside(other, RESTORE);
        stage
            .sleep_ms(2 + stage.world.now().as_micros() as u64 % 14)
            .await;
        stage.crash(leader);
        let outcome = restoring.await.expect("a client does not panic");
        stage.start(leader);
        let seen = stage.look(other, read_web(Freshness::Default)).await;
        let all = ["web-1", "web-2", "web-3"].map(str::to_owned).to_vec();
        let restored = vec!["web-1".to_owned()];
        match outcome {
            Outcome::Done(_) => assert_eq!(instances(&seen), restored),
            Outcome::Failed(_) => assert_eq!(instances(&seen), all),
            _ => assert!([all, restored].contains(&instances(&seen)), "{seen:?}"),
        }
    });
}

/// Servers are exchanged one by one while clients write; only then can what is new be used.
#[test]
fn a_rolling_upgrade_leaves_nothing_behind() {
    perform(80..100, &older(), async |stage: Stage| {
        let leader = stage.leader().await;
        stage.register_ttl(leader, "web-1", 60_000).await;
        assert!(is_done(&stage.ask(leader, Op::Save).await));
        for newer in [RESTORE, set("k", "one")] {
            let refused = stage.ask(leader, newer).await;
            assert!(
                matches!(&refused, Outcome::Failed(reason) if reason.contains("commands of version 2")),
                "{refused:?}"
            );
        }
        for server in 0..3 {
            stage.exchange(server, Command::NEWEST_VERSION);
            for version in 1..5 {
                let leader = stage.leader().await;
                let id = format!("web-{server}-{version}");
                let written = stage.ask(leader, register(&id, version, 0)).await;
                assert!(!matches!(written, Outcome::Nonsense(_)), "{written:?}");
            }
            stage.sleep_ms(600).await;
        }
        stage.sleep_ms(2_500).await;
        for server in 0..3 {
            let running = stage.cluster.server(server).expect("it runs");
            assert_eq!(running.command_version(), Command::NEWEST_VERSION, "s{server}");
        }
        assert!(is_done(&stage.ask(leader, set("k", "two")).await));
        assert!(is_done(&stage.ask(leader, RESTORE).await));
    });
}

/// Before the last server is exchanged, the first may go back to what it was: nothing new was written.
#[test]
fn an_upgrade_can_be_taken_back_before_it_is_complete() {
    perform(100..110, &older(), async |stage: Stage| {
        let leader = stage.leader().await;
        let other = stage.another(leader);
        stage.exchange(other, 2);
        stage.sleep_ms(1_500).await;
        assert!(is_done(&stage.ask(other, register("web-1", 1, 0)).await));
        stage.exchange(other, 1);
        stage.sleep_ms(1_500).await;
        assert_eq!(stage.cluster.stopped(other), None);
        assert_eq!(
            instances(&stage.look(other, read_web(Freshness::Default)).await),
            ["web-1"]
        );
    });
}

/// When the cluster has moved on, an older program stops before it applies what it can't read, and says so; exchanged
/// for the newer one, it goes on. That holds for what is in its log and for what comes as a snapshot.
#[test]
fn an_older_program_stops_and_says_what_is_needed() {
    perform(110..125, &three(), async |stage: Stage| {
        let leader = stage.leader().await;
        let other = stage.another(leader);
        stage.sleep_ms(1_000).await;
        stage.exchange(other, 1);
        for version in 1..40 {
            stage.ask(leader, register("web-1", version, 0)).await;
        }
        stage.sleep_ms(1_000).await;
        let reason = stage.cluster.stopped(other).expect("it has stopped");
        assert!(
            // Of the entry that it met in its log, or of what the cluster writes, where it was sent a snapshot.
            (2..=Command::NEWEST_VERSION).any(|it| reason.contains(&format!("version {it}")))
                && reason.contains("up to 1"),
            "{reason}"
        );
        stage.exchange(other, Command::NEWEST_VERSION);
        stage.sleep_ms(1_500).await;
        assert_eq!(stage.cluster.stopped(other), None);
    });
}
