//! Nothing but the seed decides a run of the whole server; and whatever is done to it, it converges.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use bytes::Bytes;
use rand::{RngExt as _, rngs::StdRng};
use sider_core::runtime::Runtime as _;
use sider_runtime_sim::{HostId, Link, Options, Outcome, SimRuntime, Survival, SyncFault, World, run_with};
use sider_sim_tests::cluster::{Client, Cluster, ClusterOptions, Formation, NoWitness};

const CLIENTS: usize = 2;
const REGISTRATIONS: u64 = 60;
const FAULTS: usize = 12;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// What a run is compared by, beside its trace.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Summary {
    acknowledged: usize,
    digest: (u64, u128),
}

/// Three or five servers with clients that register instances, while servers crash, lose power, pause, drift and are cut off;
/// then peace, and everything acknowledged must be there, on every server.
async fn troubled(world: World) -> Summary {
    let mut chance = world.rng("troubled");
    let formation = [Formation::Bootstrap, Formation::Join][chance.random_range(0..2)];
    let servers = [3, 5][chance.random_range(0..2)];
    let options = ClusterOptions {
        servers,
        formation,
        ..ClusterOptions::default()
    };
    let cluster = Cluster::start(&world, options, Arc::new(NoWitness));
    let registering: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let client = cluster.client(&format!("c{number}"));
            client.clone().spawn(register(client, servers))
        })
        .collect();
    for _ in 0..FAULTS {
        trouble(&cluster, &mut chance).await;
    }
    cluster.heal();
    let mut acknowledged = BTreeSet::new();
    for client in registering {
        acknowledged.extend(client.await.expect("clients do not crash"));
    }
    let all: Vec<usize> = (0..servers).collect();
    cluster.converged(&all, ms(10_000)).await.expect("convergence");
    let client = cluster.client("reader");
    for server in all {
        let known = instances(&client, server).await;
        let lost: Vec<_> = acknowledged.difference(&known).collect();
        assert!(lost.is_empty(), "s{server} has lost {lost:?}");
    }
    let server = cluster.server(0).expect("it runs");
    Summary {
        acknowledged: acknowledged.len(),
        digest: server.digest(),
    }
}

/// Registers instances one after the other; gives those that were acknowledged.
async fn register(client: Client, servers: usize) -> Vec<String> {
    let mut acknowledged = Vec::new();
    let mut server = 0;
    for n in 0..REGISTRATIONS {
        let id = format!("{}-{n}", client.host().name());
        let body = format!(r#"{{"Name":"web","ID":"{id}","Port":{}}}"#, 1_000 + n);
        let request = http::Request::put("/v1/agent/service/register").body(Bytes::from(body));
        match client
            .send(server, request.expect("a valid request"), ms(2_000))
            .await
        {
            Ok(answer) if answer.status().is_success() => acknowledged.push(id),
            _ => server = (server + 1) % servers,
        }
        SimRuntime::sleep(ms(SimRuntime::random_u64() % 200)).await;
    }
    acknowledged
}

async fn instances(client: &Client, server: usize) -> BTreeSet<String> {
    let request = http::Request::get("/v1/health/service/web")
        .body(Bytes::new())
        .expect("a valid request");
    let answer = client.send(server, request, ms(5_000)).await.expect("an answer");
    assert_eq!(answer.status(), 200, "{:?}", answer.body());
    let entries: Vec<serde_json::Value> = serde_json::from_slice(answer.body()).expect("JSON");
    let id = |entry: &serde_json::Value| entry["Service"]["ID"].as_str().expect("an id").to_owned();
    entries.iter().map(id).collect()
}

/// Does something to the cluster for a while.
async fn trouble(cluster: &Cluster, chance: &mut StdRng) {
    let world = cluster.world();
    world.sleep(ms(chance.random_range(200..1_000))).await;
    let server = chance.random_range(0..cluster.len());
    let host = cluster.host(server);
    let lasts = ms(chance.random_range(50..1_500));
    match chance.random_range(0..12) {
        0 => cluster.crash(server),
        1 => cluster.power_cut(server, Survival::Some),
        2 => host.pause(),
        3 => host.set_drift_ppm(chance.random_range(-1_000..1_000)),
        4 => host.jump_wall_ms(chance.random_range(-100_000..100_000)),
        5 => world.network().isolate(host.id()),
        6 => {
            let ids: Vec<HostId> = cluster.host_ids(&[server, (server + 1) % cluster.len()]);
            world.network().block(ids[0], ids[1]);
        }
        7 => host.disk().set_sync_fault(SyncFault::FailsOnce),
        8 => host.disk().set_sync_fault(SyncFault::Hangs),
        9 => host.disk().set_full(true),
        10 => host.disk().set_sync_time(ms(50)..ms(500)),
        _ => world.network().set_default_link(Link {
            loss_ppm: 50_000,
            ..Link::default()
        }),
    }
    world.sleep(lasts).await;
    cluster.heal();
}

/// What two runs of a seed are compared by.
type Fingerprint = (Result<Summary, String>, u64, u64);

fn run(seed: u64) -> Fingerprint {
    let Outcome {
        value,
        trace_hash,
        events,
        ..
    } = run_with(Options::new(seed), troubled);
    (value, trace_hash, events)
}

/// How many seeds are swept: more on demand, for a hunt.
fn seeds() -> u64 {
    std::env::var("SIDER_SEEDS").map_or(200, |seeds| seeds.parse().expect("SIDER_SEEDS is a number"))
}

#[test]
fn two_hundred_troubled_clusters_converge() {
    let failures: Vec<String> = (0..seeds())
        .filter_map(|seed| run(seed).0.err().map(|message| format!("seed {seed}: {message}")))
        .collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn a_seed_does_the_same_twice_in_a_sweep_alone_and_on_other_threads() {
    // In a process of its own it tells what one seed does, and no more.
    if let Ok(seed) = std::env::var(SEED_VARIABLE) {
        println!("{MARK}{:?}", run(seed.parse().expect("the seed is a number")));
        return;
    }
    const SEEDS: u64 = 16;
    let sweep: Vec<Fingerprint> = (0..SEEDS).map(run).collect();
    assert!(
        sweep
            .iter()
            .all(|(value, _, events)| value.is_ok() && *events > 1_000),
        "{sweep:?}"
    );
    let backwards: Vec<Fingerprint> = (0..SEEDS).rev().map(run).collect();
    assert!(
        sweep.iter().eq(backwards.iter().rev()),
        "what ran before makes no difference"
    );
    let beside: Vec<Fingerprint> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..SEEDS).map(|seed| scope.spawn(move || run(seed))).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("no panic"))
            .collect()
    });
    assert_eq!(sweep, beside, "what runs beside makes no difference");
    for seed in [0, SEEDS / 2, SEEDS - 1] {
        let expected = format!("{:?}", sweep[seed as usize]);
        assert_eq!(alone(seed), expected, "a process of its own makes no difference");
    }
}

/// The fingerprint of a seed that runs first, in a new process.
fn alone(seed: u64) -> String {
    let child = std::process::Command::new(std::env::current_exe().expect("this test is a program"))
        .args([
            "--exact",
            "a_seed_does_the_same_twice_in_a_sweep_alone_and_on_other_threads",
            "--nocapture",
            "--test-threads=1",
        ])
        .env(SEED_VARIABLE, seed.to_string())
        .output()
        .expect("this program can be run");
    let output = String::from_utf8(child.stdout).expect("it prints text");
    let line = output.lines().find_map(|line| line.split_once(MARK));
    line.unwrap_or_else(|| panic!("no fingerprint in {output}"))
        .1
        .to_owned()
}

const SEED_VARIABLE: &str = "SIDER_TEST_SEED";
const MARK: &str = "fingerprint ";
