//! An agent on a host of its own: the program that runs on a service's machine, with a service that it renews and one
//! that it probes.

use std::time::Duration;

use serde_json::json;
use sider_core::{
    agent::{Agent, AgentConfig, ConfigFile},
    registry::{CheckStatus, NodeName},
    runtime::ProbeOutcome,
};
use sider_runtime_sim::{SimRuntime, World};

use crate::{
    cluster::Cluster,
    history::AgentPromise,
    recorder::{self, Recorder, now},
    schedule::AgentPlan,
    time::Time,
    workload::sleep_until,
};

/// The name of an agent's node.
pub fn node(number: usize) -> String {
    format!("agent-{number}")
}

/// Where an agent probes.
fn target(number: usize) -> String {
    format!("http://127.0.0.1:{}/health", 9 + number)
}

/// Between two comparisons with the servers; a report that was overtaken is set right by the next one.
const SYNC_INTERVAL: Duration = Duration::from_secs(2);
/// Port of the agent's own transport; nobody calls it.
const PORT: u16 = 8510;

/// Runs an agent as its plan says, until the run ends.
pub async fn run(world: World, cluster: Cluster, number: usize, plan: AgentPlan, recorder: Recorder) {
    sleep_until(&world, Time::ms(plan.start_ms)).await;
    let host = world.host(&node(number));
    let servers: Vec<String> = (0..cluster.len())
        .map(|server| cluster.http_address(server))
        .collect();
    set_health(&world, number, true);
    recorder.agent(AgentPromise {
        node: node(number),
        servers: (0..cluster.len()).map(recorder::number).collect(),
        instances: vec![
            ("renewed".to_owned(), vec![CheckStatus::Passing]),
            ("probed".to_owned(), vec![expected_health(&plan)]),
        ],
        started: now(&world),
        // The last thing that changes what must be in the registry.
        settled: Time::ms(
            plan.crashes
                .iter()
                .map(|(at, for_ms)| at + for_ms)
                .chain(plan.flips_ms.iter().copied())
                .max()
                .unwrap_or(0),
        ),
    });
    let prober = world.prober();
    host.start(move |host| {
        let (servers, prober) = (servers.clone(), prober.clone());
        async move {
            let agent =
                Agent::<SimRuntime>::start(config(number, servers), host.network(PORT), prober, host.disk())
                    .await;
            let _running = agent.expect("a simulated agent starts");
            std::future::pending::<()>().await;
        }
    });
    let crashes = plan.crashes.iter().map(|(at, for_ms)| (*at, Some(*for_ms)));
    let mut events: Vec<(u64, Option<u64>)> = crashes
        .chain(plan.flips_ms.iter().map(|at| (*at, None)))
        .collect();
    events.sort();
    let mut healthy = true;
    for (at, crash) in events {
        sleep_until(&world, Time::ms(at)).await;
        match crash {
            None => {
                healthy = !healthy;
                set_health(&world, number, healthy);
            }
            Some(for_ms) => {
                host.crash();
                world.sleep(Duration::from_millis(for_ms)).await;
                host.restart();
            }
        }
    }
}

/// What the probed check must be in the end.
fn expected_health(plan: &AgentPlan) -> CheckStatus {
    if plan.flips_ms.len().is_multiple_of(2) {
        CheckStatus::Passing
    } else {
        CheckStatus::Critical
    }
}

fn set_health(world: &World, number: usize, healthy: bool) {
    let status = if healthy { 200 } else { 500 };
    let outcome = ProbeOutcome::HttpStatus {
        status,
        output: format!("it says {status}"),
    };
    world
        .prober()
        .set(&target(number), outcome, Duration::from_millis(5));
}

fn config(number: usize, servers: Vec<String>) -> AgentConfig {
    let node = NodeName::parse(&node(number)).expect("a valid name");
    let file = ConfigFile::parse(&json!({ "services": [
        { "name": "job", "id": "renewed", "port": 1, "checks": [{ "type": "ttl", "ttl": "1500ms" }] },
        { "name": "job", "id": "probed", "port": 2,
          "checks": [{ "type": "http", "http": target(number), "interval": "400ms", "timeout": "300ms" }] },
    ] }));
    let services = file
        .expect("a valid file")
        .services(&node, "10.3.3.3")
        .expect("valid services");
    AgentConfig {
        services,
        sync_interval: SYNC_INTERVAL,
        ..AgentConfig::new(node, "10.3.3.3".into(), servers)
    }
}
