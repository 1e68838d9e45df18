//! Whole members, alone and three of them.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;

use super::{
    Backwards, Notes, address, id,
    platform::{TestDisk, TestNetwork, TestRuntime, TestWorld},
    register,
};
use crate::{
    raft::{
        Consensus, MembershipError, ProposeError, RaftConfig, RaftNode, ReadIndexError, Role, StartError,
    },
    runtime::{Network, NetworkError},
};

/// A member with what it told.
struct Member {
    node: RaftNode<TestRuntime>,
    disk: TestDisk,
    observed: Arc<Notes>,
    listened: Arc<Notes>,
}

impl Member {
    fn digest(&self) -> u128 {
        self.node.registry().read().unwrap().digest()
    }
}

fn config(name: &str) -> RaftConfig {
    RaftConfig::new(id(name), address(name))
}

async fn start(config: RaftConfig, disk: TestDisk, network: TestNetwork) -> Result<Member, StartError> {
    let (observed, listened) = (Arc::new(Notes::default()), Arc::new(Notes::default()));
    let node = RaftNode::start(
        config,
        disk.clone(),
        network,
        listened.clone(),
        Arc::new(Backwards),
        observed.clone(),
    )
    .await?;
    Ok(Member {
        node,
        disk,
        observed,
        listened,
    })
}

/// Waits until something is so, for ten seconds of the paused clock.
async fn until<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    for _ in 0..10_000 {
        if let Some(found) = check() {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("never: {what}");
}

/// Members by name, on one network.
struct Cluster {
    world: TestWorld,
    members: BTreeMap<String, Member>,
    settings: fn(RaftConfig) -> RaftConfig,
}

impl Cluster {
    /// Three members that know each other.
    async fn of_three() -> Cluster {
        let cluster = Cluster::new(&["a", "b", "c"], |config| config).await;
        cluster.initialize(&["a", "b", "c"]).await;
        cluster
    }

    async fn new(names: &[&str], settings: fn(RaftConfig) -> RaftConfig) -> Cluster {
        let mut cluster = Cluster {
            world: TestWorld::with_jitter(),
            members: BTreeMap::new(),
            settings,
        };
        for name in names {
            cluster.start(name, TestDisk::default()).await;
        }
        cluster
    }

    async fn initialize(&self, names: &[&str]) {
        let members = names.iter().map(|name| (id(name), address(name))).collect();
        self.members[names[0]].node.initialize(members).await.unwrap();
        self.leader().await;
    }

    async fn start(&mut self, name: &str, disk: TestDisk) {
        let config = (self.settings)(config(name));
        let network = self.world.network(&address(name).raft);
        let member = start(config, disk, network).await.unwrap();
        self.members.insert(name.to_string(), member);
    }

    /// Ends a member as a crash of its process would, and gives its disk.
    fn crash(&mut self, name: &str) -> TestDisk {
        let member = self.members.remove(name).unwrap();
        self.world.unplug(&address(name).raft);
        member.disk.after_crash()
    }

    fn member(&self, name: &str) -> &Member {
        &self.members[name]
    }

    /// The name of the one that leads and can confirm it.
    async fn leader(&self) -> String {
        self.leader_among(&self.members.keys().cloned().collect::<Vec<_>>())
            .await
    }

    async fn leader_among(&self, names: &[String]) -> String {
        for _ in 0..1_000 {
            for name in names {
                if self.member(name).node.read_index().await.is_ok() {
                    return name.clone();
                }
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("nobody leads");
    }

    fn others(&self, name: &str) -> Vec<String> {
        let mut names: Vec<String> = self.members.keys().cloned().collect();
        names.retain(|other| other != name);
        names
    }

    /// Proposes at the leader and waits for it to be applied there.
    async fn write(&self, numbers: std::ops::Range<u64>) -> u64 {
        let leader = self.leader().await;
        let node = &self.member(&leader).node;
        let proposals = numbers.map(|number| node.propose(register(number)));
        let results = futures_util::future::join_all(proposals).await;
        results
            .into_iter()
            .map(|result| result.unwrap().log_index)
            .max()
            .unwrap_or(0)
    }

    /// Waits until all have applied an entry, and sees that they agree.
    async fn agree_at(&self, log_index: u64) {
        for member in self.members.values() {
            member.node.wait_applied(log_index).await.unwrap();
        }
        let digests: Vec<u128> = self.members.values().map(Member::digest).collect();
        assert!(digests.iter().all(|digest| *digest == digests[0]), "{digests:x?}");
    }
}

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
    assert!(
        matches!(result, Err(MembershipError::OutcomeUnknown(_))),
        "{result:?}"
    );
    assert!(node.status().learners.contains_key(&id("b")));
    // The cluster is as able as before.
    node.propose(register(1)).await.unwrap();
    node.remove_server(id("b")).await.unwrap();
    assert!(node.status().learners.is_empty());
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

/// A server that was initialised in vain can still be joined to another cluster.
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
