//! Who belongs to a cluster, who leads it, and who does not get in.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use futures_util::FutureExt as _;

use super::{
    address,
    harness::{Cluster, start, until},
    id,
    platform::TestDisk,
    register,
};
use crate::{
    raft::{Consensus, MembershipError, RaftConfig, Role},
    runtime::NetworkError,
};

#[tokio::test(start_paused = true)]
async fn members_come_and_go() {
    let mut cluster = Cluster::new(&["a"], |config| config).await;
    cluster.initialize(&["a"]).await;
    cluster.write(0..10).await;
    for name in ["b", "c"] {
        cluster.start(name, TestDisk::default()).await;
        let node = &cluster.member("a").node;
        node.add_server(id(name), address(name)).await.unwrap();
        // Once more does nothing.
        node.add_server(id(name), address(name)).await.unwrap();
    }
    let last = cluster.write(10..20).await;
    cluster.agree_at(last).await;
    let node = &cluster.member("a").node;
    assert_eq!(node.status().voters.len(), 3);
    assert!(node.status().learners.is_empty());

    let elsewhere = node.add_server(id("b"), address("d")).await;
    assert!(
        matches!(elsewhere, Err(MembershipError::Refused(_))),
        "{elsewhere:?}"
    );
    let unknown = node.remove_server(id("x")).await;
    assert!(matches!(unknown, Err(MembershipError::Refused(_))), "{unknown:?}");
    let follower = cluster.member("b").node.remove_server(id("c")).await;
    assert!(
        matches!(follower, Err(MembershipError::NotLeader { leader: Some(_) })),
        "{follower:?}"
    );

    node.remove_server(id("c")).await.unwrap();
    assert_eq!(node.status().voters.len(), 2);
    // The leader itself: it steps down, and the one that is left leads.
    node.remove_server(id("a")).await.unwrap();
    let leader = cluster.leader_among(&["b".to_string()]).await;
    let node = &cluster.member(&leader).node;
    node.propose(register(99)).await.unwrap();
    assert_eq!(
        node.status().voters.keys().cloned().collect::<Vec<_>>(),
        [id("b")]
    );
    let last = node.remove_server(id("b")).await;
    assert!(matches!(last, Err(MembershipError::Refused(_))), "{last:?}");
}

#[tokio::test(start_paused = true)]
async fn a_new_member_that_can_not_be_reached_gets_no_vote() {
    let cluster = Cluster::new(&["a"], |config| config).await;
    cluster.initialize(&["a"]).await;
    let node = &cluster.member("a").node;
    let result = node.add_server(id("b"), address("b")).await;
    // Nobody knows its disk.
    assert!(matches!(result, Err(MembershipError::Refused(_))), "{result:?}");
    assert!(node.status().learners.is_empty());
    // The cluster is as able as before.
    node.propose(register(1)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn leadership_is_handed_on() {
    let cluster = Cluster::of_three().await;
    let last = cluster.write(0..10).await;
    cluster.agree_at(last).await;
    let old = cluster.leader().await;
    let to = cluster.others(&old)[1].clone();
    let node = &cluster.member(&old).node;
    assert!(matches!(
        node.transfer_leader(Some(id("x"))).await,
        Err(MembershipError::Refused(_))
    ));
    node.transfer_leader(Some(id(&old))).await.unwrap();
    node.transfer_leader(Some(id(&to))).await.unwrap();
    assert_eq!(cluster.leader().await, to);
    let to = cluster.member(&to);
    to.node.transfer_leader(None).await.unwrap();
    let last = cluster.write(10..20).await;
    cluster.agree_at(last).await;
}

/// A transfer to a member that just died does not leave the cluster without a leader.
#[tokio::test(start_paused = true)]
async fn a_failed_transfer_leaves_a_cluster_that_works() {
    let cluster = Cluster::of_three().await;
    let last = cluster.write(0..10).await;
    cluster.agree_at(last).await;
    let old = cluster.leader().await;
    let dead = cluster.others(&old)[0].clone();
    cluster.world.cut_off(&address(&dead).raft);
    let result = cluster.member(&old).node.transfer_leader(Some(id(&dead))).await;
    assert!(
        matches!(
            &result,
            Err(MembershipError::OutcomeUnknown(_) | MembershipError::Refused(_))
        ),
        "{result:?}"
    );
    let leader = cluster.leader_among(&cluster.others(&dead)).await;
    cluster.member(&leader).node.propose(register(77)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn services_call_each_other_and_the_wrong_server_refuses() {
    let mut cluster = Cluster::of_three().await;
    let answer = cluster
        .member("a")
        .node
        .call_peer("b:8501", Bytes::from_static(b"abc"), Duration::from_secs(1))
        .await;
    assert_eq!(answer.unwrap(), Bytes::from_static(b"cba"));
    // Another server at an address of a member that is gone.
    cluster.crash("b");
    let config = RaftConfig::new(id("z"), address("b"));
    let stranger = start(config, TestDisk::default(), cluster.world.network("b:8501"))
        .await
        .unwrap();
    let answer = cluster
        .member("a")
        .node
        .call_peer("b:8501", Bytes::from_static(b"abc"), Duration::from_secs(1))
        .await;
    assert!(
        matches!(answer, Err(NetworkError::Unreachable { .. })),
        "{answer:?}"
    );
    // Nor does it take the leader's log for its own.
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(!stranger.node.is_initialized());
    assert_eq!(stranger.node.status().last_log_index, 0);
}

/// Two clusters that once used the same names do not mix.
#[tokio::test(start_paused = true)]
async fn clusters_do_not_talk_to_each_other() {
    let mut cluster = Cluster::of_three().await;
    let last = cluster.write(0..10).await;
    // One of its members is wiped and begins a cluster of its own, under its old id and address.
    let leader = cluster.leader().await;
    let defector = cluster.others(&leader)[0].clone();
    cluster.crash(&defector);
    cluster.world.cut_off(&address(&defector).raft);
    cluster.start(&defector, TestDisk::default()).await;
    let node = &cluster.member(&defector).node;
    let alone = BTreeMap::from([(id(&defector), address(&defector))]);
    node.initialize(alone).await.unwrap();
    until("it leads itself", || {
        (node.status().role == Role::Leader).then_some(())
    })
    .await;
    let own = node.propose(register(500)).await.unwrap().log_index;
    cluster.world.heal();
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(node.status().role, Role::Leader);
    assert_eq!(node.status().applied_index, own);
    let leader = cluster.leader_among(&cluster.others(&defector)).await;
    let loyal = &cluster.member(&leader).node;
    assert!(loyal.status().matched[&id(&defector)] <= last);
    // What is meant for a member is not for it; what is meant for a stranger is.
    let message = Bytes::from_static(b"abc");
    let second = Duration::from_secs(1);
    let there = address(&defector).raft;
    let answer = loyal.call_peer(&there, message.clone(), second).await;
    assert!(
        matches!(answer, Err(NetworkError::Unreachable { .. })),
        "{answer:?}"
    );
    let there = address(&leader).raft;
    let answer = node.call_peer(&there, message, second).await;
    assert_eq!(answer.unwrap(), Bytes::from_static(b"cba"));
    // Nor can it be taken in again without being wiped.
    let outcome = cluster.member(&leader).node.remove_server(id(&defector)).await;
    outcome.unwrap();
    let outcome = cluster
        .member(&leader)
        .node
        .add_server(id(&defector), address(&defector))
        .await;
    assert!(
        matches!(outcome, Err(MembershipError::OutcomeUnknown(_))),
        "{outcome:?}"
    );
}

/// After a restart of them all, members know each other's cluster again.
#[tokio::test(start_paused = true)]
async fn an_identity_is_kept_over_restarts() {
    let mut cluster = Cluster::of_three().await;
    let last = cluster.write(0..10).await;
    cluster.agree_at(last).await;
    for name in ["a", "b", "c"] {
        let disk = cluster.crash(name).after_power_cut(0);
        cluster.start(name, disk).await;
    }
    let last = cluster.write(10..20).await;
    cluster.agree_at(last).await;
    let leader = cluster.leader().await;
    let answer = cluster
        .member(&leader)
        .node
        .call_peer("a:8501", Bytes::from_static(b"xy"), Duration::from_secs(1))
        .await;
    assert_eq!(answer.unwrap(), Bytes::from_static(b"yx"));
}

/// A change whose leader died between its two steps is completed by the next one.
#[tokio::test(start_paused = true)]
async fn a_half_done_membership_change_is_completed() {
    let mut cluster = Cluster::of_three().await;
    let last = cluster.write(0..10).await;
    cluster.agree_at(last).await;
    cluster.start("d", TestDisk::default()).await;
    let old = cluster.leader().await;
    let joint = |cluster: &Cluster, name: &str| cluster.member(name).node.is_joint();
    {
        let node = &cluster.member(&old).node;
        let mut adding = node.add_server(id("d"), address("d"));
        loop {
            assert!(
                futures_util::poll!(&mut adding).is_pending(),
                "it was too fast for this test"
            );
            if joint(&cluster, &old) {
                break;
            }
            tokio::time::sleep(Duration::from_micros(50)).await;
        }
    }
    // Whoever asked has gone, before the second step.
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(joint(&cluster, &old), "nothing is left to be completed");
    until("the change is completed", || {
        (!joint(&cluster, &old)).then_some(())
    })
    .await;
    assert_eq!(cluster.member(&old).node.status().voters.len(), 4);
}

/// A member that comes back without its data, under its old name, is left out; the leader outlives it, and the others
/// go on. It comes back when it was removed and added again.
#[tokio::test(start_paused = true)]
async fn a_wiped_member_is_left_out() {
    let mut cluster = Cluster::of_three().await;
    let last = cluster.write(0..10).await;
    cluster.agree_at(last).await;
    let leader = cluster.leader().await;
    let wiped = cluster.others(&leader)[0].clone();
    cluster.crash(&wiped);
    cluster.start(&wiped, TestDisk::default()).await;
    cluster.write(10..20).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let last = cluster.write(20..30).await;
    assert_eq!(cluster.leader().await, leader);
    assert_eq!(cluster.member(&leader).node.status().fatal, None);
    assert_eq!(cluster.member(&wiped).node.status().applied_index, 0);
    let node = &cluster.member(&leader).node;
    assert_ne!(
        node.status().disks[&id(&wiped)],
        cluster.member(&wiped).node.status().disk
    );
    let refused = node.add_server(id(&wiped), address(&wiped)).await;
    assert!(
        matches!(&refused, Err(MembershipError::Refused(reason)) if reason.contains("lost its data")),
        "{refused:?}"
    );
    node.remove_server(id(&wiped)).await.unwrap();
    node.add_server(id(&wiped), address(&wiped)).await.unwrap();
    cluster.agree_at(last).await;
    let status = cluster.member(&wiped).node.status();
    assert!(status.is_voter(), "{status:?}");
}

/// Neither the votes nor the log of a member that lost its data count: with a majority of the others down, nobody is
/// elected and nothing is committed.
#[tokio::test(start_paused = true)]
async fn a_wiped_member_makes_no_majority() {
    let mut cluster = Cluster::of_three().await;
    let last = cluster.write(0..10).await;
    cluster.agree_at(last).await;
    let leader = cluster.leader().await;
    let [wiped, follower] = &cluster.others(&leader)[..] else {
        panic!("there are three");
    };
    let (wiped, follower) = (wiped.clone(), follower.clone());
    cluster.crash(&wiped);
    cluster.start(&wiped, TestDisk::default()).await;
    // Its log does not count.
    let disk = cluster.crash(&follower);
    let write = cluster.member(&leader).node.propose(register(100));
    let written = tokio::time::timeout(Duration::from_secs(5), write).await;
    assert!(written.is_err(), "{written:?}");
    // Nor do its votes.
    cluster.crash(&leader);
    cluster.start(&follower, disk).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    for name in [&follower, &wiped] {
        let status = cluster.member(name).node.status();
        assert_ne!(status.role, Role::Leader, "{status:?}");
        assert_eq!(status.commit_index.max(last), last);
    }
    let lost = cluster.member(&wiped);
    assert_eq!(lost.observed.starting_with("vote"), [""; 0]);
    assert_eq!(lost.node.status().last_log_index, 0);
}

/// A member that was added again after it lost its data, and is sent a membership of the past in which its name votes
/// alone, does not take itself for that voter.
#[tokio::test(start_paused = true)]
async fn a_wiped_founder_does_not_lead_the_past() {
    let mut cluster = Cluster::new(&["a"], |config| config).await;
    cluster.initialize(&["a"]).await;
    for name in ["b", "c"] {
        cluster.start(name, TestDisk::default()).await;
        let node = &cluster.member("a").node;
        node.add_server(id(name), address(name)).await.unwrap();
    }
    let last = cluster.write(0..10).await;
    cluster.agree_at(last).await;
    cluster.crash("a");
    cluster.start("a", TestDisk::default()).await;
    let rest = ["b".to_string(), "c".to_string()];
    let leader = cluster.leader_among(&rest).await;
    let node = &cluster.member(&leader).node;
    node.remove_server(id("a")).await.unwrap();
    // It gets the log's beginning, and then nothing for a while.
    let mut adding = node.add_server(id("a"), address("a"));
    until("it has the first membership", || {
        assert!(
            (&mut adding).now_or_never().is_none(),
            "it was too fast for this test"
        );
        (!cluster.member("a").node.status().voters.is_empty()).then_some(())
    })
    .await;
    cluster.world.cut_off(&address("a").raft);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_ne!(cluster.member("a").node.status().role, Role::Leader);
    cluster.world.heal();
    adding.await.unwrap();
    cluster.agree_at(last).await;
}

/// A server's disk is known by the same id for as long as it is there.
#[tokio::test(start_paused = true)]
async fn a_disk_keeps_its_id() {
    let mut cluster = Cluster::new(&["a"], |config| config).await;
    let first = cluster.member("a").node.status().disk;
    let disk = cluster.crash("a").after_power_cut(0);
    cluster.start("a", disk).await;
    assert_eq!(cluster.member("a").node.status().disk, first);
    cluster.crash("a");
    cluster.start("a", TestDisk::default()).await;
    assert_ne!(cluster.member("a").node.status().disk, first);
}

/// A cluster begins with all of its servers, so that it knows their disks, and with none that was in another.
#[tokio::test(start_paused = true)]
async fn a_cluster_begins_when_all_its_servers_are_there_and_new() {
    let mut cluster = Cluster::new(&["a", "b"], |config| config).await;
    let list: BTreeMap<_, _> = ["a", "b", "c"].map(|name| (id(name), address(name))).into();
    let found =
        async |cluster: &Cluster, name: &str| cluster.member(name).node.initialize(list.clone()).await;
    let outcome = found(&cluster, "a").await;
    assert!(matches!(outcome, Err(MembershipError::Refused(_))), "{outcome:?}");
    cluster.start("c", TestDisk::default()).await;
    found(&cluster, "a").await.unwrap();
    let last = cluster.write(0..10).await;
    cluster.agree_at(last).await;
    // Its founder is wiped, and is told to found it again.
    cluster.crash("a");
    cluster.start("a", TestDisk::default()).await;
    let outcome = found(&cluster, "a").await;
    assert!(
        matches!(&outcome, Err(MembershipError::Refused(reason)) if reason.contains("has taken part")),
        "{outcome:?}"
    );
}

/// A server that became a member, and no voter because leadership was lost in between, is not told that nothing was done.
#[tokio::test(start_paused = true)]
async fn a_join_that_was_begun_is_not_said_to_be_undone() {
    let mut cluster = Cluster::of_three().await;
    let last = cluster.write(0..10).await;
    cluster.agree_at(last).await;
    cluster.start("d", TestDisk::default()).await;
    let old = cluster.leader().await;
    let others = cluster.others(&old);
    let voters: Vec<String> = others.iter().filter(|name| *name != "d").cloned().collect();
    let node = &cluster.member(&old).node;
    let mut adding = node.add_server(id("d"), address("d"));
    until("it is a member", || {
        assert!(
            (&mut adding).now_or_never().is_none(),
            "it was too fast for this test"
        );
        node.status().learners.contains_key(&id("d")).then_some(())
    })
    .await;
    // It catches up. Another change comes before its promotion, and can't be committed any more.
    tokio::time::sleep(Duration::from_millis(100)).await;
    let mut removing = node.remove_server(id(&voters[0]));
    assert!((&mut removing).now_or_never().is_none());
    cluster.world.cut_off(&address(&old).raft);
    let both = async { futures_util::future::join(adding, removing).await };
    let elected = async {
        cluster.leader_among(&voters).await;
        cluster.world.heal();
    };
    let ((added, _), ()) = futures_util::future::join(both, elected).await;
    assert!(
        matches!(added, Err(MembershipError::OutcomeUnknown(_))),
        "{added:?}"
    );
    let leader = cluster.leader_among(&voters).await;
    let status = cluster.member(&leader).node.status();
    assert!(status.learners.contains_key(&id("d")), "{status:?}");
}

/// One cluster comes of a list that several of its members are initialised with.
#[tokio::test(start_paused = true)]
async fn all_members_may_be_initialised_with_the_same_list() {
    let names = ["a", "b", "c"];
    let cluster = Cluster::new(&names, |config| config).await;
    let list: BTreeMap<_, _> = names.iter().map(|name| (id(name), address(name))).collect();
    let stranger = cluster
        .member("a")
        .node
        .initialize(BTreeMap::from([(id("x"), address("x"))]))
        .await;
    assert!(
        matches!(stranger, Err(MembershipError::Refused(_))),
        "{stranger:?}"
    );
    for name in names {
        let outcome = cluster.member(name).node.initialize(list.clone()).await;
        // The others may have been faster.
        assert!(
            matches!(outcome, Ok(()) | Err(MembershipError::Refused(_))),
            "{outcome:?}"
        );
    }
    let last = cluster.write(0..10).await;
    cluster.agree_at(last).await;
}
