use std::sync::Arc;

use bytes::Bytes;
use rand::Rng;
use sider_core::runtime::{Change, Disk, Keyspace, Network, Runtime};
use sider_runtime_sim::{Host, Link, Options, Outcome, SimRuntime, Survival, World, run, run_with};

use crate::ms;

/// Three hosts that call each other and write to their disks, under every kind of fault.
async fn mixed(world: World) -> u64 {
    let hosts = ["a", "b", "c"].map(|name| world.host(name));
    for host in &hosts {
        host.start(gossip);
    }
    let lossy = Link {
        loss_ppm: 20_000,
        duplicate_ppm: 20_000,
        ..Link::default()
    };
    world.network().set_default_link(lossy);
    let mut chance = world.rng("faults");
    for _ in 0..40 {
        let (one, other) = (
            &hosts[chance.next_u32() as usize % 3],
            &hosts[chance.next_u32() as usize % 3],
        );
        let pause = ms(u64::from(chance.next_u32() % 300));
        match chance.next_u32() % 7 {
            0 => one.crash(),
            1 => one.power_cut(Survival::Some),
            2 => one.pause(),
            3 => world.network().block(one.id(), other.id()),
            4 => one.set_drift_ppm(i64::from(chance.next_u32() % 100_000) - 50_000),
            5 => one.jump_wall_ms(i64::from(chance.next_u32() % 10_000)),
            _ => world.network().isolate(one.id()),
        }
        world.sleep(pause).await;
        one.resume();
        world.network().heal();
        if !one.is_up() {
            one.restart();
        }
    }
    let mut sum = 0;
    for host in &hosts {
        sum += host.disk().len(Keyspace::Log) as u64;
    }
    sum
}

async fn gossip(host: Host) {
    let (network, disk) = (host.network(1), host.disk());
    let writer = disk.clone();
    let handler = move |message: Bytes| -> futures_util::future::BoxFuture<'static, Bytes> {
        let disk = writer.clone();
        Box::pin(async move {
            tracing::info!(target: "sider_test", bytes = message.len(), "gossip");
            let key = SimRuntime::random_u64().to_be_bytes().to_vec();
            let _ = disk
                .write(vec![Change::Put(Keyspace::Log, key.into(), message.clone())])
                .await;
            let _ = disk.sync().await;
            message
        })
    };
    network.listen(Arc::new(handler)).await.expect("the port is free");
    loop {
        let target = ["a:1", "b:1", "c:1"][SimRuntime::random_u64() as usize % 3];
        let message = format!("{} at {}", host.name(), SimRuntime::wall_ms());
        let network = network.clone();
        SimRuntime::spawn(async move { network.call(target, message.into(), ms(50)).await });
        SimRuntime::sleep(ms(SimRuntime::random_u64() % 20)).await;
    }
}

fn fingerprint(outcome: &Outcome<u64>) -> (Result<u64, String>, u64, u64) {
    (outcome.value.clone(), outcome.trace_hash, outcome.events)
}

#[test]
fn the_same_seed_does_the_same_twice_in_a_sweep_and_on_other_threads() {
    let first: Vec<_> = (0..30).map(|seed| fingerprint(&run(seed, mixed))).collect();
    assert!(
        first
            .iter()
            .all(|(value, _, events)| value.is_ok() && *events > 500),
        "{first:?}"
    );
    let backwards: Vec<_> = (0..30).rev().map(|seed| fingerprint(&run(seed, mixed))).collect();
    assert!(
        first.iter().eq(backwards.iter().rev()),
        "what ran before makes no difference"
    );
    let beside: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..30)
            .map(|seed| scope.spawn(move || fingerprint(&run(seed, mixed))))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("no panic"))
            .collect()
    });
    assert_eq!(first, beside, "what runs beside makes no difference");
}

#[test]
fn other_seeds_do_other_things() {
    let hashes: std::collections::BTreeSet<u64> = (0..30).map(|seed| run(seed, mixed).trace_hash).collect();
    assert_eq!(hashes.len(), 30);
}

#[test]
fn keeping_the_timeline_changes_nothing() {
    let mut options = Options::new(7);
    options.keep_lines = true;
    let kept = run_with(options, mixed);
    let bare = run(7, mixed);
    assert_eq!(fingerprint(&kept), fingerprint(&bare));
    assert_eq!(kept.lines.len() as u64, kept.events);
    assert!(bare.lines.is_empty());
    assert!(kept.lines.is_sorted_by_key(|line| line.at));
    let logged = kept
        .lines
        .iter()
        .find(|line| line.kind == "log")
        .expect("the hosts log");
    assert!(
        logged.text.starts_with("INFO sider_test: gossip bytes="),
        "{}",
        logged.text
    );
    assert!(logged.host.is_some());
}

#[test]
fn the_trace_sees_a_difference_in_content_alone() {
    let traced =
        |text: &'static str| run(1, move |world| async move { world.trace("test", text) }).trace_hash;
    assert_eq!(traced("a"), traced("a"));
    assert_ne!(traced("a"), traced("b"));
}

#[test]
fn a_purpose_has_a_generator_of_its_own() {
    let draw = |seed, purpose: &'static str, others: usize| {
        let outcome = run(seed, move |world| async move {
            for _ in 0..others {
                SimRuntime::random_u64();
            }
            world.rng(purpose).next_u64()
        });
        outcome.value.expect("no panic")
    };
    assert_eq!(draw(1, "faults", 0), draw(1, "faults", 5));
    assert_ne!(draw(1, "faults", 0), draw(1, "clients", 0));
    assert_ne!(draw(1, "faults", 0), draw(2, "faults", 0));
}
