//! Whole members, alone and three of them.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use openraft::storage::{RaftLogStorage, RaftLogStorageExt};

use super::{
    Stores, address, entry,
    harness::{Cluster, Member, config, start, until},
    id, log_id, member, membership_entry,
    platform::{TestDisk, TestWorld},
    register,
};
use crate::{
    raft::{
        Consensus, MembershipError, ProposeError, RaftConfig, ReadIndexError, Role, StartError, identity,
        log::put_meta,
        types::{Entry, Payload, Proposal},
    },
    runtime::Network,
};

#[tokio::test(start_paused = true)]
async fn a_single_member_leads_itself_and_finds_its_data_again() {
    let world = TestWorld::default();
    let member = start(config("a"), TestDisk::default(), world.network("a:8501"))
        .await
        .unwrap();
    assert!(!member.node.is_initialized());
    assert!(matches!(
        member.node.propose(register(1)).await,
        Err(ProposeError::NotLeader { leader: None })
    ));
    let members = BTreeMap::from([(id("a"), address("a"))]);
    member.node.initialize(members.clone()).await.unwrap();
    assert!(matches!(
        member.node.initialize(members).await,
        Err(MembershipError::Refused(_))
    ));
    until("it leads", || {
        (member.node.status().role == Role::Leader).then_some(())
    })
    .await;
    let first = member.node.propose(register(1)).await.unwrap();
    let second = member.node.propose(register(2)).await.unwrap();
    assert_eq!(second.log_index, first.log_index + 1);
    assert!(second.applied.index > first.applied.index);
    assert!(member.node.read_index().await.unwrap() >= second.log_index);
    let status = member.node.status();
    assert_eq!(status.last_contact_ms, Some(0));
    assert_eq!(status.leader, Some((id("a"), address("a"))));
    assert_eq!((status.applied_index, status.elections), (second.log_index, 1));
    let digest = member.digest();
    member.node.shutdown().await;
    assert!(matches!(
        member.node.propose(register(3)).await,
        Err(ProposeError::Stopped(_))
    ));
    assert!(matches!(
        member.node.read_index().await,
        Err(ReadIndexError::Stopped(_))
    ));

    world.unplug("a:8501");
    let disk = member.disk.after_crash();
    drop(member);
    let member = start(config("a"), disk, world.network("a:8501")).await.unwrap();
    assert!(member.node.is_initialized());
    member.node.wait_applied(second.log_index).await.unwrap();
    assert_eq!(member.digest(), digest);
    assert_eq!(member.listened.starting_with("replaced").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_single_member_starts_from_checkpoint_and_log() {
    let world = TestWorld::default();
    let member = start(config("a"), TestDisk::default(), world.network("a:8501"))
        .await
        .unwrap();
    member
        .node
        .initialize(BTreeMap::from([(id("a"), address("a"))]))
        .await
        .unwrap();
    until("it leads", || {
        (member.node.status().role == Role::Leader).then_some(())
    })
    .await;
    for number in 0..5 {
        member.node.propose(register(number)).await.unwrap();
    }
    member.node.checkpoint().await.unwrap();
    let checkpointed = member.node.status().snapshot_index;
    let index = member.node.registry().read().unwrap().index();
    assert_eq!(checkpointed, member.node.status().applied_index);
    let last = member.node.propose(register(9)).await.unwrap().log_index;
    let digest = member.digest();

    let disk = member.disk.after_power_cut(0);
    drop(member);
    world.unplug("a:8501");
    let member = start(config("a"), disk, world.network("a:8501")).await.unwrap();
    member.node.wait_applied(last).await.unwrap();
    assert_eq!(member.digest(), digest);
    let replaced = member.listened.starting_with("replaced at");
    assert_eq!(replaced, [format!("replaced at {checkpointed}: index {index}")]);
    // What is in the checkpoint is not applied again.
    let applied = member.listened.starting_with("applied");
    assert_eq!(applied, [format!("applied {last}: index {}", index + 1)]);
}

#[tokio::test(start_paused = true)]
async fn three_members_agree_under_pipelined_writes() {
    let cluster = Cluster::of_three().await;
    let before = cluster
        .members
        .values()
        .map(|member| member.disk.syncs())
        .max()
        .unwrap_or(0);
    let last = cluster.write(0..500).await;
    cluster.agree_at(last).await;
    let syncs = cluster
        .members
        .values()
        .map(|member| member.disk.syncs())
        .max()
        .unwrap_or(0)
        - before;
    assert!(syncs < 100, "500 writes took {syncs} syncs on one member");
    let logs: Vec<Vec<String>> = cluster
        .members
        .values()
        .map(|member| {
            let mut applied = member.observed.starting_with("applied");
            applied.dedup();
            applied
        })
        .collect();
    assert!(logs.iter().all(|log| *log == logs[0]));
    let leader = cluster.leader().await;
    let status = cluster.member(&leader).node.status();
    assert_eq!(status.voters.len(), 3);
    until("all are known to have everything", || {
        let status = cluster.member(&leader).node.status();
        (status.matched.values().all(|matched| *matched == last) && status.matched.len() == 3).then_some(())
    })
    .await;
    for name in cluster.others(&leader) {
        let status = cluster.member(&name).node.status();
        assert_eq!(status.role, Role::Follower);
        assert_eq!(status.leader, Some((id(&leader), address(&leader))));
        assert!(status.last_contact_ms.unwrap() <= 100, "{status:?}");
        assert!(matches!(
            cluster.member(&name).node.read_index().await,
            Err(ReadIndexError::NotLeader { leader: Some(_) })
        ));
    }
    let bad: u64 = cluster
        .members
        .values()
        .map(|member| member.node.bad_messages())
        .sum();
    assert_eq!(bad, 0);
}

#[tokio::test(start_paused = true)]
async fn a_deposed_leader_neither_writes_nor_reads() {
    let cluster = Cluster::of_three().await;
    let last = cluster.write(0..10).await;
    let old = cluster.leader().await;
    cluster.world.cut_off(&address(&old).raft);
    let mut cut_off = cluster.member(&old).node.propose(register(100));
    assert!(futures_util::poll!(&mut cut_off).is_pending());
    let new = cluster.leader_among(&cluster.others(&old)).await;
    assert_ne!(new, old);
    let read = cluster.member(&old).node.read_index().await;
    assert!(matches!(read, Err(ReadIndexError::NotLeader { .. })), "{read:?}");
    let write = cluster.member(&old).node.propose(register(101)).await;
    assert!(matches!(write, Err(ProposeError::NotLeader { .. })), "{write:?}");

    let node = &cluster.member(&new).node;
    let after = node.propose(register(200)).await.unwrap().log_index;
    assert!(after > last);
    cluster.world.heal();
    cluster.agree_at(after).await;
    let outcome = cut_off.await;
    assert!(
        matches!(outcome, Err(ProposeError::OutcomeUnknown(_))),
        "{outcome:?}"
    );
    let lost = cluster.member(&old).observed.starting_with("LostLeadership");
    assert_eq!(lost.len(), 1);
    assert!(
        !cluster
            .member(&old)
            .listened
            .starting_with("leadership changed")
            .is_empty()
    );
}

/// Reads that wait at the same moment share a round.
#[tokio::test(start_paused = true)]
async fn waiting_reads_share_a_round() {
    let cluster = Cluster::of_three().await;
    let leader = cluster.leader().await;
    let node = &cluster.member(&leader).node;
    let before = cluster.world.calls();
    let reads = (0..1_000).map(|_| node.read_index());
    let results = futures_util::future::join_all(reads).await;
    assert!(results.iter().all(Result::is_ok));
    let calls = cluster.world.calls() - before;
    assert!(calls < 20, "1000 reads made {calls} calls");
}

#[tokio::test(start_paused = true)]
async fn a_member_that_missed_too_much_gets_a_snapshot() {
    let mut cluster = Cluster::new(&["a", "b", "c"], |config| RaftConfig {
        snapshot_threshold: 50,
        log_keep: 5,
        ..config
    })
    .await;
    cluster.initialize(&["a", "b", "c"]).await;
    cluster.write(0..20).await;
    let leader = cluster.leader().await;
    let behind = cluster.others(&leader)[0].clone();
    let disk = cluster.crash(&behind);
    cluster.write(20..400).await;
    let leader = cluster.leader().await;
    until("the log is purged", || {
        (cluster.member(&leader).node.status().purged_index > 100).then_some(())
    })
    .await;
    cluster.start(&behind, disk).await;
    let last = cluster.write(400..410).await;
    cluster.agree_at(last).await;
    let member = cluster.member(&behind);
    assert_eq!(member.observed.starting_with("SnapshotInstalled").len(), 1);
    assert_eq!(member.listened.starting_with("replaced").len(), 2);

    // The installed checkpoint is one to start from.
    let digest = member.digest();
    let disk = cluster.crash(&behind);
    cluster.start(&behind, disk).await;
    cluster.agree_at(last).await;
    assert_eq!(cluster.member(&behind).digest(), digest);
}

#[tokio::test(start_paused = true)]
async fn nonsense_from_a_peer_is_dropped_and_counted() {
    let cluster = Cluster::of_three().await;
    let network = cluster.world.network("x:1");
    let before = cluster.member("a").node.bad_messages();
    for message in [
        &b""[..],
        b"\x01",
        b"\xff\xff\xff\xff",
        b"\x01\x01a\x00\x00\xff\xff\xff",
        b"\x02\x01a",
    ] {
        let answer = network
            .call("a:8501", Bytes::from_static(message), Duration::from_secs(1))
            .await;
        assert!(answer.is_ok(), "it is answered, if only to say so");
    }
    assert_eq!(cluster.member("a").node.bad_messages() - before, 5);
    cluster.write(0..1).await;
}

/// A failed disk ends the member for good, and says why.
#[tokio::test(start_paused = true)]
async fn a_failed_disk_stops_its_member() {
    let cluster = Cluster::of_three().await;
    cluster.write(0..10).await;
    let leader = cluster.leader().await;
    let member = cluster.member(&leader);
    member.disk.stop_after(0);
    let result = member.node.propose(register(50)).await;
    assert!(
        matches!(result, Err(ProposeError::OutcomeUnknown(_))),
        "{result:?}"
    );
    let fatal = until("it says why", || member.node.status().fatal).await;
    assert!(fatal.contains("the test stopped this disk"), "{fatal}");
    until("it is down", || {
        (member.node.status().role == Role::Shutdown).then_some(())
    })
    .await;
    let result = member.node.propose(register(51)).await;
    assert!(
        matches!(&result, Err(ProposeError::Stopped(why)) if why.contains("stopped this disk")),
        "{result:?}"
    );
    assert!(member.node.wait_applied(1_000_000).await.is_err());
    let next = cluster.leader_among(&cluster.others(&leader)).await;
    cluster.member(&next).node.propose(register(52)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn bad_settings_and_a_taken_address_are_one_clear_line() {
    let world = TestWorld::default();
    let contradictory = RaftConfig {
        heartbeat: Duration::from_secs(1),
        ..config("a")
    };
    let error = start(contradictory, TestDisk::default(), world.network("a:8501"))
        .await
        .err()
        .unwrap();
    assert!(matches!(error, StartError::Config(_)), "{error}");
    let _first = start(config("a"), TestDisk::default(), world.network("a:8501"))
        .await
        .unwrap();
    let error = start(config("a"), TestDisk::default(), world.network("a:8501"))
        .await
        .err()
        .unwrap();
    assert!(
        error.to_string().starts_with("can't listen on a:8501: "),
        "{error}"
    );
    assert!(!error.to_string().contains('\n'));
}

/// Dropping a member ends all that it had begun.
#[tokio::test(start_paused = true)]
async fn a_dropped_member_leaves_nothing_running() {
    let mut cluster = Cluster::of_three().await;
    cluster.write(0..10).await;
    let leader = cluster.leader().await;
    let member = cluster.members.remove(&leader).unwrap();
    let Member {
        node,
        observed,
        listened,
        ..
    } = member;
    drop(node);
    cluster.world.unplug(&address(&leader).raft);
    until("its tasks have let go of everything", || {
        (Arc::strong_count(&observed) == 1 && Arc::strong_count(&listened) == 1).then_some(())
    })
    .await;
}

/// A log that this version can't apply is one clear line at the start.
#[tokio::test(start_paused = true)]
async fn a_log_of_a_newer_version_does_not_start() {
    let mut stores = Stores::open(TestDisk::default()).await.unwrap();
    let newer = Entry {
        log_id: log_id(1, 2),
        payload: Payload::Normal(Proposal::from_bytes(Bytes::from_static(&[200, 1, 2, 3]))),
    };
    let entries = vec![membership_entry(1, 0, &["a"]), entry(1, 1), newer];
    stores.log.blocking_append(entries).await.unwrap();
    stores.log.save_committed(Some(log_id(1, 2))).await.unwrap();
    let disk = put_meta(identity::DISK, &member("a").disk);
    stores.journal.commit(vec![disk]).await.unwrap();
    let network = TestWorld::default().network("a:8501");
    let error = start(config("a"), stores.disk.after_crash(), network)
        .await
        .err()
        .unwrap();
    let error = error.to_string();
    assert!(error.contains("log entry 2 can't be applied"), "{error}");
    assert!(error.contains("version 200"), "{error}");
    assert!(!error.contains('\n'), "{error}");
}
