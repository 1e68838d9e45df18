//! Nothing but the seed decides a run of the whole server; and whatever is done to it, it converges.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use bytes::Bytes;
use rand::{RngExt as _, rngs::StdRng};
use sider_core::runtime::Runtime as _;
use sider_runtime_sim::{HostId, Link, Options, Outcome, SimRuntime, Survival, World, run_with};
use sider_sim_tests::cluster::{Client, Cluster, ClusterOptions, Formation, NoWitness};

const SERVERS: usize = 3;
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

/// Three servers with clients that register instances, while servers crash, lose power, pause, drift and are cut off;
/// then peace, and everything acknowledged must be there, on every server.
async fn troubled(world: World) -> Summary {
    let mut chance = world.rng("troubled");
    let formation = [Formation::Bootstrap, Formation::Join][chance.random_range(0..2)];
    let options = ClusterOptions {
        formation,
        ..ClusterOptions::default()
    };
    let cluster = Cluster::start(&world, options, Arc::new(NoWitness));
    let registering: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let client = cluster.client(&format!("c{number}"));
            client.clone().spawn(register(client))
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
    let all: Vec<usize> = (0..SERVERS).collect();
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
async fn register(client: Client) -> Vec<String> {
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
            _ => server = (server + 1) % SERVERS,
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
    let server = chance.random_range(0..SERVERS);
    let host = cluster.host(server);
    let lasts = ms(chance.random_range(50..1_500));
    match chance.random_range(0..8) {
        0 => cluster.crash(server),
        1 => cluster.power_cut(server, Survival::Some),
        2 => host.pause(),
        3 => host.set_drift_ppm(chance.random_range(-1_000..1_000)),
        4 => host.jump_wall_ms(chance.random_range(-100_000..100_000)),
        5 => world.network().isolate(host.id()),
        6 => {
            let ids: Vec<HostId> = cluster.host_ids(&[server, (server + 1) % SERVERS]);
            world.network().block(ids[0], ids[1]);
        }
        _ => world.network().set_default_link(Link {
            loss_ppm: 50_000,
            ..Link::default()
        }),
    }
    world.sleep(lasts).await;
    cluster.heal();
}

fn run(seed: u64, keep_lines: bool) -> Outcome<Summary> {
    let mut options = Options::new(seed);
    options.keep_lines = keep_lines;
    run_with(options, troubled)
}

/// The outcome of a seed, which must be a success.
fn succeed(seed: u64) -> (Summary, u64, u64) {
    let outcome = run(seed, false);
    match outcome.value {
        Ok(summary) => (summary, outcome.trace_hash, outcome.events),
        Err(message) => panic!("seed {seed}, after {:?}: {message}", outcome.sim_elapsed),
    }
}

#[test]
fn two_hundred_troubled_clusters_converge() {
    let began = std::time::Instant::now();
    let (mut acknowledged, mut events, mut simulated) = (0, 0, Duration::ZERO);
    for seed in 0..200 {
        let outcome = run(seed, false);
        match outcome.value {
            Ok(summary) => acknowledged += summary.acknowledged,
            Err(message) => eprintln!("seed {seed}, after {:?}: {message}", outcome.sim_elapsed),
        }
        events += outcome.events;
        simulated += outcome.sim_elapsed;
    }
    eprintln!(
        "{acknowledged} acknowledged, {events} events, {simulated:?} in {:?}",
        began.elapsed()
    );
}
