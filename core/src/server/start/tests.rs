//! Whole servers on Raft, a disk and a network in memory.

use super::*;
use crate::{
    observe::NoObserver,
    raft::tests::{
        address, id,
        platform::{TestDisk, TestRuntime, TestWorld},
        register,
    },
    registry::Registry,
    server::{ServerError, Written},
};

async fn run(world: &TestWorld, name: &str, bootstrap: Bootstrap, disk: &TestDisk) -> Running {
    let config = StartConfig {
        raft: RaftConfig::new(id(name), address(name)),
        server: ServerConfig::default(),
        bootstrap,
        join: Vec::new(),
    };
    let network = world.network(&address(name).raft);
    start::<TestRuntime>(config, disk.clone(), network, Arc::new(NoObserver))
        .await
        .expect("it starts")
}

/// Stops a server; nobody listens at its address any more.
async fn stop(world: &TestWorld, name: &str, running: Running) {
    running.shutdown().await;
    assert_eq!(running.finished().await, Finish::Stopped);
    world.unplug(&address(name).raft);
}

async fn write(running: &Running, number: u64) -> Result<Written, ServerError> {
    running.server.write(register(number)).await
}

async fn index(running: &Running) -> Result<u64, ServerError> {
    running.server.inspect(false, Registry::index).await
}

fn voters(running: &Running) -> Vec<String> {
    let status = running.server.status();
    status.voters.keys().map(ToString::to_string).collect()
}

#[tokio::test(start_paused = true)]
async fn a_server_that_nobody_told_anything_serves_and_finds_its_data_again() {
    let (world, disk) = (TestWorld::default(), TestDisk::default());
    let running = run(&world, "a", Bootstrap::Implicit, &disk).await;
    let written = write(&running, 1).await.expect("a cluster of one");
    assert_eq!(running.server.ready().await, Ok(()));
    stop(&world, "a", running).await;

    // Whatever it is told now, it goes on with its disk.
    let others = Bootstrap::Cluster(["a", "b", "c"].map(|name| (id(name), address(name))).into());
    for bootstrap in [Bootstrap::Wait, others, Bootstrap::Implicit] {
        let running = run(&world, "a", bootstrap, &disk).await;
        assert_eq!(index(&running).await, Ok(written.index));
        assert_eq!(voters(&running), ["a"]);
        stop(&world, "a", running).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_a_server_ends_when_it_stops() {
    let world = TestWorld::default();
    let running = run(&world, "a", Bootstrap::Implicit, &TestDisk::default()).await;
    index(&running).await.expect("a cluster of one");
    let server = running.server.clone();
    let watch = TestRuntime::spawn(async move {
        let query = crate::registry::Query::Nodes {
            node_meta: Vec::new(),
        };
        let options = crate::server::ReadOptions {
            index: Some(1),
            wait: Duration::from_secs(600),
            ..Default::default()
        };
        server.read(query, options).await
    });
    while running.server.watchers() == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    stop(&world, "a", running).await;
    let answer = watch.await.expect("it does not panic");
    assert!(matches!(answer, Err(ServerError::Stopped(_))), "{answer:?}");
}

#[tokio::test(start_paused = true)]
async fn servers_listed_together_become_one_cluster() {
    let world = TestWorld::with_jitter();
    let members = ["a", "b", "c"].map(|name| (id(name), address(name)));
    let disks = [(); 3].map(|()| TestDisk::default());
    let b = run(&world, "b", Bootstrap::Wait, &disks[1]).await;
    let c = run(&world, "c", Bootstrap::Wait, &disks[2]).await;
    assert!(b.server.ready().await.is_err(), "it belongs to nothing yet");
    let a = run(&world, "a", Bootstrap::Cluster(members.into()), &disks[0]).await;
    let written = write(&c, 1).await.expect("through any of them");
    for running in [&a, &b, &c] {
        assert_eq!(index(running).await, Ok(written.index));
        assert_eq!(voters(running), ["a", "b", "c"]);
    }
    let reports = b.server.cluster().await;
    assert!(reports.iter().all(|report| report.status.is_some()));
    assert!(reports.iter().all(|report| report.digest == reports[0].digest));
}

#[tokio::test(start_paused = true)]
async fn a_cluster_of_one_that_nobody_asked_for_becomes_part_of_another() {
    let world = TestWorld::with_jitter();
    let a = run(
        &world,
        "a",
        Bootstrap::Cluster([(id("a"), address("a"))].into()),
        &TestDisk::default(),
    )
    .await;
    write(&a, 1).await.expect("a cluster of one");
    let disk = TestDisk::default();
    let b = run(&world, "b", Bootstrap::Implicit, &disk).await;
    assert_eq!(index(&b).await, Ok(0));

    let leader = a.server.clone();
    let raft_address = ServerAddress {
        http: Default::default(),
        ..address("b")
    };
    let mut joined = TestRuntime::spawn(async move { leader.join(id("b"), raft_address).await });
    assert_eq!(b.finished().await, Finish::GaveWay);
    drop(b);
    world.unplug(&address("b").raft);
    wipe(&disk).await.expect("the disk works");
    assert!(
        (&mut joined).now_or_never().is_none(),
        "it is not added before it is empty"
    );

    // Started as before, it knows that it is to wait.
    let b = run(&world, "b", Bootstrap::Implicit, &disk).await;
    joined.await.expect("it does not panic").expect("it is added");
    let written = write(&b, 2).await.expect("through the leader");
    assert_eq!(index(&b).await, Ok(written.index));
    assert_eq!(voters(&b), ["a", "b"]);
    let known = a.server.status().voters[&id("b")].clone();
    assert_eq!(known, address("b"), "its HTTP address was asked for");
}

#[tokio::test(start_paused = true)]
async fn a_cluster_with_data_is_not_given_up() {
    let world = TestWorld::with_jitter();
    let a = run(&world, "a", Bootstrap::Implicit, &TestDisk::default()).await;
    let b = run(&world, "b", Bootstrap::Implicit, &TestDisk::default()).await;
    write(&b, 1).await.expect("a cluster of one");
    let refused = a.server.join(id("b"), address("b")).await;
    assert!(matches!(refused, Err(ServerError::Refused(_))), "{refused:?}");
    write(&b, 2).await.expect("it goes on");
    assert_eq!(voters(&a), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn an_interrupted_wipe_is_completed_at_the_next_start() {
    let (world, disk) = (TestWorld::default(), TestDisk::default());
    let running = run(&world, "a", Bootstrap::Implicit, &disk).await;
    write(&running, 1).await.expect("a cluster of one");
    stop(&world, "a", running).await;

    // Stopped before, within and after each of its steps.
    for operations in 0.. {
        let disk = disk.after_crash();
        disk.stop_after(operations);
        let complete = wipe(&disk).await.is_ok();
        let disk = disk.after_crash();
        let running = run(&world, "a", Bootstrap::Implicit, &disk).await;
        if operations == 0 {
            assert!(index(&running).await.expect("as if nothing had happened") > 0);
        } else {
            assert!(voters(&running).is_empty(), "after {operations} operations");
            assert_eq!(running.server.inspect(true, Registry::index).await, Ok(0));
        }
        stop(&world, "a", running).await;
        if complete {
            assert!(operations >= 4, "there are several steps");
            break;
        }
    }
}
