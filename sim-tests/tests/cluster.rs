//! Whole servers through what the simulator can do to them: each test reads as a script.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use sider_core::raft::Role;
use sider_runtime_sim::{Survival, SyncFault, World, run};
use sider_sim_tests::cluster::{Client, Cluster, ClusterOptions, Formation, NoWitness};

const SEEDS: u64 = 20;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Runs a script under several seeds, each of which must succeed.
fn on_seeds<F: Future<Output = ()>>(script: impl Fn(World) -> F + Send + Sync) {
    for seed in 0..SEEDS {
        let outcome = run(seed, &script);
        if let Err(message) = outcome.value {
            panic!("seed {seed}, after {:?}: {message}", outcome.sim_elapsed);
        }
    }
}

fn cluster(world: &World, formation: Formation) -> Cluster {
    Cluster::start(
        world,
        ClusterOptions {
            formation,
            ..ClusterOptions::default()
        },
        Arc::new(NoWitness),
    )
}

/// Leaves a server of three alone with the first client, and the others with the second.
fn cut_off(world: &World, cluster: &Cluster, server: usize, [inside, outside]: [&Client; 2]) {
    let others: Vec<usize> = (0..3).filter(|other| *other != server).collect();
    let mut there = cluster.host_ids(&others);
    there.push(outside.host().id());
    let here = [cluster.host(server).id(), inside.host().id()];
    world.network().partition(&[&here, &there]);
}

/// Registers an instance; gives the status and the text of the answer, or 0 and the error.
async fn register(client: &Client, server: usize, id: &str) -> (u16, String) {
    let body = format!(r#"{{"Name":"web","ID":"{id}","Port":80}}"#);
    let request = http::Request::put("/v1/agent/service/register").body(Bytes::from(body));
    said(
        client
            .send(server, request.expect("a valid request"), ms(10_000))
            .await,
    )
}

/// What a server says of the service. A read may be sent again: the first one meets the half-open connection to a server
/// that lost its power.
async fn look(client: &Client, server: usize, options: &str) -> (u16, String) {
    let path = format!("/v1/catalog/service/web{options}");
    let request = http::Request::get(path)
        .body(Bytes::new())
        .expect("a valid request");
    match said(client.send(server, request.clone(), ms(10_000)).await) {
        (0, _) => said(client.send(server, request, ms(10_000)).await),
        answer => answer,
    }
}

fn said(answer: Result<http::Response<Bytes>, sider_core::runtime::NetworkError>) -> (u16, String) {
    match answer {
        Ok(answer) => (
            answer.status().as_u16(),
            String::from_utf8_lossy(answer.body()).into_owned(),
        ),
        Err(error) => (0, error.to_string()),
    }
}

async fn registered(client: &Client, server: usize, id: &str) {
    let (status, text) = register(client, server, id).await;
    assert_eq!(status, 200, "{id} at s{server}: {text}");
}

/// Until this server knows everything that was acknowledged, it must not answer.
async fn knows(client: &Client, server: usize, ids: &[&str]) {
    let (status, text) = look(client, server, "").await;
    assert_eq!(status, 200, "s{server}: {text}");
    for id in ids {
        assert!(
            text.contains(&format!("\"{id}\"")),
            "s{server} does not know {id}: {text}"
        );
    }
}

#[test]
fn servers_become_a_cluster_by_bootstrap_and_by_joining() {
    for formation in [Formation::Bootstrap, Formation::Join] {
        on_seeds(|world| async move {
            let cluster = cluster(&world, formation);
            cluster.leader(ms(3_000)).await.expect("a leader");
            cluster
                .converged(&[0, 1, 2], ms(5_000))
                .await
                .expect("convergence");
            let status = cluster.server(2).expect("it runs").status();
            assert_eq!(status.voters.len(), 3, "{status:?}");
            let client = cluster.client("c");
            registered(&client, 1, "a").await;
            knows(&client, 2, &["a"]).await;
        });
    }
}

#[test]
fn unused_servers_give_way_to_the_cluster_that_adds_them() {
    on_seeds(|world| async move {
        let cluster = cluster(&world, Formation::Implicit);
        let client = cluster.client("operator");
        world.sleep(ms(2_000)).await;
        registered(&client, 0, "a").await;
        for server in [1, 2] {
            let mut last = (0, String::new());
            for _ in 0..10 {
                last = client
                    .join(0, server)
                    .await
                    .unwrap_or_else(|error| (0, error.to_string()));
                if last.0 == 200 {
                    break;
                }
                world.sleep(ms(500)).await;
            }
            assert_eq!(last.0, 200, "s{server}: {}", last.1);
        }
        cluster
            .converged(&[0, 1, 2], ms(5_000))
            .await
            .expect("convergence");
        assert_eq!(cluster.server(0).expect("it runs").status().voters.len(), 3);
        knows(&client, 2, &["a"]).await;
    });
}

#[test]
fn a_fourth_server_joins_and_an_old_one_is_removed() {
    on_seeds(|world| async move {
        let cluster = cluster(&world, Formation::Bootstrap);
        cluster.leader(ms(3_000)).await.expect("a leader");
        let client = cluster.client("operator");
        for n in 0..60 {
            registered(&client, n % 3, &format!("i{n}")).await;
        }
        let new = cluster.add_server();
        world.sleep(ms(100)).await;
        let (status, text) = client.join(1, new).await.expect("an answer");
        assert_eq!(status, 200, "{text}");
        cluster.crash(0);
        cluster.leader(ms(5_000)).await.expect("a leader");
        world.sleep(ms(2_000)).await;
        let request = http::Request::post("/v1/raft/remove").body(Bytes::from(r#"{"ID":"s0"}"#));
        let answer = client
            .send(new, request.expect("a valid request"), ms(10_000))
            .await;
        assert_eq!(said(answer).0, 200);
        registered(&client, new, "last").await;
        cluster
            .converged(&[1, 2, new], ms(5_000))
            .await
            .expect("convergence");
        knows(&client, new, &["i0", "i59", "last"]).await;
        let voters = cluster.server(new).expect("it runs").status().voters;
        let names: Vec<String> = voters.keys().map(ToString::to_string).collect();
        assert_eq!(names, ["s1", "s2", "s3"]);
    });
}

/// While its own removal waits for a majority, the leader is a voter of the older of two memberships: to join then is
/// done only when it is a member afterwards.
#[test]
fn a_leader_that_joins_while_it_is_removed_is_a_member_or_told_otherwise() {
    on_seeds(|world| async move {
        let cluster = cluster(&world, Formation::Bootstrap);
        let old = cluster.leader(ms(3_000)).await.expect("a leader");
        let (inside, outside) = (cluster.client("inside"), cluster.client("outside"));
        registered(&inside, old, "a").await;
        cut_off(&world, &cluster, old, [&inside, &outside]);
        let body = format!(r#"{{"ID":"s{old}"}}"#);
        let removal = http::Request::post("/v1/raft/remove").body(Bytes::from(body));
        let removal = inside.spawn({
            let inside = inside.clone();
            async move {
                inside
                    .send(old, removal.expect("a valid request"), ms(10_000))
                    .await
            }
        });
        world.sleep(ms(20)).await;
        let join = inside.spawn({
            let inside = inside.clone();
            async move { inside.join(old, old).await }
        });
        world.sleep(ms(60)).await;
        cluster.heal();
        let joined = join.await.expect("clients do not crash");
        // Whether it is done is the other request's affair.
        let _ = removal.await;
        world.sleep(ms(2_000)).await;
        let leader = cluster.leader(ms(5_000)).await.expect("a leader");
        let voters = cluster.server(leader).expect("it runs").status().voters;
        let is_member = voters.keys().any(|id| id.to_string() == format!("s{old}"));
        let is_done = joined.as_ref().is_ok_and(|(status, _)| *status == 200);
        assert!(
            !is_done || is_member,
            "{joined:?}, but the members are {voters:?}"
        );
    });
}

#[test]
fn a_power_cut_everywhere_loses_nothing_acknowledged() {
    on_seeds(|world| async move {
        let cluster = cluster(&world, Formation::Bootstrap);
        cluster.leader(ms(3_000)).await.expect("a leader");
        let client = cluster.client("c");
        let mut acknowledged = Vec::new();
        for round in 0..4 {
            for n in 0..15 {
                let id = format!("i{round}-{n}");
                registered(&client, n % 3, &id).await;
                acknowledged.push(id);
            }
            for server in 0..3 {
                cluster.power_cut(server, Survival::Nothing);
            }
            world.sleep(ms(500)).await;
            for server in 0..3 {
                cluster.restart(server);
            }
            cluster.leader(ms(5_000)).await.expect("a leader");
            world.sleep(ms(1_000)).await;
            let ids: Vec<&str> = acknowledged.iter().map(String::as_str).collect();
            for server in 0..3 {
                knows(&client, server, &ids).await;
            }
        }
    });
}

#[test]
fn a_server_whose_sync_fails_stops_and_says_why_and_the_others_go_on() {
    on_seeds(|world| async move {
        let cluster = cluster(&world, Formation::Bootstrap);
        let broken = cluster.leader(ms(3_000)).await.expect("a leader");
        let client = cluster.client("c");
        registered(&client, broken, "a").await;
        cluster.host(broken).disk().set_sync_fault(SyncFault::FailsOnce);
        // The two others may commit it, and the broken leader may say so before its own sync ends.
        let acknowledged = register(&client, broken, "b").await.0 == 200;
        world.sleep(ms(3_000)).await;
        let reason = cluster.stopped(broken).expect("it has stopped");
        assert!(reason.contains("sync failed"), "{reason}");
        let other = (broken + 1) % 3;
        registered(&client, other, "c").await;
        cluster.restart(broken);
        cluster
            .converged(&[0, 1, 2], ms(5_000))
            .await
            .expect("convergence");
        knows(
            &client,
            broken,
            if acknowledged {
                &["a", "b", "c"]
            } else {
                &["a", "c"]
            },
        )
        .await;
    });
}

#[test]
fn a_server_whose_disk_is_full_stops_and_says_why() {
    on_seeds(|world| async move {
        let cluster = cluster(&world, Formation::Bootstrap);
        let leader = cluster.leader(ms(3_000)).await.expect("a leader");
        let full = (leader + 1) % 3;
        let client = cluster.client("c");
        cluster.host(full).disk().set_full(true);
        registered(&client, leader, "a").await;
        world.sleep(ms(3_000)).await;
        let reason = cluster.stopped(full).expect("it has stopped");
        assert!(reason.contains("no space left"), "{reason}");
        cluster.heal();
        cluster
            .converged(&[0, 1, 2], ms(5_000))
            .await
            .expect("convergence");
        knows(&client, full, &["a"]).await;
    });
}

#[test]
fn a_leader_that_is_cut_off_refuses_and_another_takes_over() {
    on_seeds(|world| async move {
        let cluster = cluster(&world, Formation::Bootstrap);
        let old = cluster.leader(ms(3_000)).await.expect("a leader");
        let (inside, outside) = (cluster.client("inside"), cluster.client("outside"));
        registered(&inside, old, "a").await;
        cut_off(&world, &cluster, old, [&inside, &outside]);
        let refused = inside.spawn({
            let inside = inside.clone();
            async move { (register(&inside, old, "b").await, look(&inside, old, "").await) }
        });
        world.sleep(ms(1_000)).await;
        let new = cluster.leader(ms(3_000)).await.expect("a leader");
        assert_ne!(new, old);
        registered(&outside, new, "c").await;
        let (write, read) = refused.await.expect("clients do not crash");
        assert_eq!((write.0, read.0), (500, 500), "{write:?} {read:?}");
        assert_eq!(look(&inside, old, "?stale").await.0, 200, "stale reads go on");
        cluster.heal();
        cluster
            .converged(&[0, 1, 2], ms(5_000))
            .await
            .expect("convergence");
        knows(&inside, old, &["a", "c"]).await;
        assert_ne!(cluster.server(old).expect("it runs").status().role, Role::Leader);
    });
}

#[test]
fn a_paused_leader_does_not_answer_with_old_content() {
    on_seeds(|world| async move {
        let cluster = cluster(&world, Formation::Bootstrap);
        let old = cluster.leader(ms(3_000)).await.expect("a leader");
        let client = cluster.client("c");
        registered(&client, old, "a").await;
        cluster.host(old).pause();
        let late = client.spawn({
            let client = client.clone();
            async move { look(&client, old, "").await }
        });
        world.sleep(ms(2_000)).await;
        let new = cluster.leads().expect("another one leads");
        assert_ne!(new, old);
        registered(&client, new, "b").await;
        cluster.host(old).resume();
        let (status, text) = late.await.expect("clients do not crash");
        assert!(status != 200 || text.contains("\"b\""), "{text}");
    });
}

/// A sweep of thousands of runs must not fill the memory.
#[test]
fn a_run_frees_its_servers_whatever_they_were_doing() {
    for seed in 0..SEEDS {
        let witness: Arc<NoWitness> = Arc::default();
        let outcome = run(seed, |world| {
            let witness = witness.clone();
            async move {
                let cluster = Cluster::start(&world, ClusterOptions::default(), witness);
                let leader = cluster.leader(ms(3_000)).await.expect("a leader");
                let client = cluster.client("c");
                registered(&client, leader, "a").await;
                let waiting = client.clone();
                client.spawn(async move { look(&waiting, leader, "?index=1000&wait=60s").await });
                world.network().isolate(cluster.host(leader).id());
                let unanswered = client.clone();
                client.spawn(async move { register(&unanswered, leader, "b").await });
                cluster.crash((leader + 1) % 3);
                cluster.host((leader + 2) % 3).pause();
                world.sleep(ms(100)).await;
                cluster.restart((leader + 1) % 3);
                world.sleep(ms(u64::from(world.seed() % 2 == 0) * 50)).await;
            }
        });
        assert_eq!(outcome.value, Ok(()), "seed {seed}");
        assert_eq!(Arc::strong_count(&witness), 1, "seed {seed}");
    }
}
