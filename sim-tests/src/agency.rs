//! An agent on a host of its own: the program that runs on a service's machine, with a service that it renews and one
//! that it probes, one in a namespace of its own, and what is asked of it through its own API.
//!
//! [`machine`] is what it runs on and what befalls that, [`services`] and [`asks`] ask it, and [`mod@wanted`] is what must come of it all.

mod asks;
mod machine;
mod services;
mod wanted;

use std::{net::SocketAddr, time::Duration};

use serde_json::{Value, json};
use sider_core::{
    agent::{AgentConfig, ConfigFile},
    registry::{CheckStatus, NodeName},
    runtime::ProbeOutcome,
};
use sider_runtime_sim::World;

use self::{machine::Machine, services::Service, wanted::wanted};
use crate::{
    cluster::{Cluster, HTTP_PORT},
    history::AgentPromise,
    operation::{ELSEWHERE, Spoils},
    promised::AGENT_SYNC_INTERVAL,
    recorder::{self, Recorder, now},
    saboteur::Saboteur,
    schedule::{AgentPlan, Sort},
    time::Time,
    workload::sleep_until,
};

/// The name of an agent's node.
pub fn node(number: usize) -> String {
    format!("agent-{number}")
}

/// Whether a node is an agent's.
pub fn is_node(name: &str) -> bool {
    name.strip_prefix("agent-")
        .is_some_and(|number| number.parse::<usize>().is_ok())
}

/// Where an agent probes.
fn target(number: usize) -> String {
    format!("http://127.0.0.1:{}/health", 9 + number)
}

/// The same by a connection.
fn door(number: usize) -> String {
    format!("10.3.3.4:{}", 9 + number)
}

/// The same by a program.
fn program(number: usize) -> [String; 2] {
    ["/bin/probe".to_owned(), number.to_string()]
}

/// The service of which its instances are.
pub const SERVICE: &str = "job";
/// The one that is in its configuration and probed.
pub const PROBED: &str = "probed";
/// The one on whose TTL check its service reports.
pub const TOLD: &str = "told";
/// Between two comparisons with the servers; a report that was overtaken is set right by the next one.
const SYNC_INTERVAL: Duration = Duration::from_secs(2);
/// The same of an agent that compares seldom.
const SELDOM_SYNC_INTERVAL: Duration = AGENT_SYNC_INTERVAL;
/// The agent's address, as it registers it.
pub const ADDRESS: &str = "10.3.3.3";
/// So many probes in a row must meet the same before it counts.
pub const PROBES: u32 = 2;
/// How long something lasts of which one probe knows at most.
const BLIP: Duration = Duration::from_millis(350);
/// Between two runs of a probe.
pub const PROBE_INTERVAL: Duration = Duration::from_millis(400);
/// Where its configured services are.
const INSTANCE_ADDRESS: &str = "10.3.3.4";
/// The TTL of what it renews.
pub const RENEWED_TTL: Duration = Duration::from_millis(1_500);
/// The TTL of the check by which the servers know that its host is alive.
pub const NODE_TTL: Duration = Duration::from_secs(3);
/// The TTL of what its services report on.
pub const TOLD_TTL: Duration = Duration::from_millis(1_500);
/// Nobody listens there.
const NOWHERE: &str = "10.3.3.4:1";
/// The one that its configuration names only after it was read again.
pub const SPARE: &str = "spare";
/// How long a check must be critical until its instance is taken away that never is for so long.
pub const FLEETING_AFTER: Duration = Duration::from_secs(3);
/// How long a check that always fails must be critical until its instance is taken away.
pub const FATAL_AFTER: Duration = Duration::from_secs(2);

/// Runs an agent as its plan says, until the run ends.
pub async fn run(
    world: World,
    cluster: Cluster,
    saboteur: Saboteur,
    (number, plan): (usize, AgentPlan),
    recorder: Recorder,
) {
    sleep_until(&world, Time::ms(plan.start_ms)).await;
    let servers: Vec<String> = (0..cluster.len())
        .map(|server| cluster.http_address(server))
        .collect();
    set_health(&world, number, true);
    recorder.agent(promise(&world, &cluster, number, &plan));
    let host = world.host(&node(number));
    let configs = [false, true].map(|spare| config(number, servers.clone(), plan.seldom, spare));
    let machine = Machine::start(&world, &host, number, configs, saboteur, recorder.clone());
    machine.befall(&plan);
    let agent = SocketAddr::new(host.ip(), HTTP_PORT).to_string();
    cluster.add_agent(number, agent.clone());
    Service::start(&world, number, agent, &plan, &recorder);
    probed(&world, number, &plan, &recorder).await;
}

fn promise(world: &World, cluster: &Cluster, number: usize, plan: &AgentPlan) -> AgentPromise {
    AgentPromise {
        node: node(number),
        servers: (0..cluster.len()).map(recorder::number).collect(),
        address: ADDRESS.to_owned(),
        seldom: plan.seldom,
        fast_ppm: plan.fast_ppm_max(),
        started: now(world),
        // The last thing that is planned to change what must be in the registry; what takes longer is told later.
        settled: Time::ms(
            plan.flips_ms
                .iter()
                .chain(&plan.blips_ms)
                .copied()
                .chain(plan.crashes.iter().map(|(at, for_ms)| at + for_ms))
                .chain(plan.orders.iter().map(|order| order.at_ms))
                .chain(plan.reloads_ms.iter().copied())
                .max()
                .unwrap_or(0),
        ),
        ..wanted(plan)
    }
}

/// What befalls what an agent probes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// It is otherwise from now on.
    Flip,
    /// It is otherwise for a moment.
    Blip,
}

/// Changes what an agent probes, as its plan says.
async fn probed(world: &World, number: usize, plan: &AgentPlan, recorder: &Recorder) {
    let flips = plan.flips_ms.iter().map(|at| (*at, Event::Flip));
    let mut events: Vec<(u64, Event)> = flips
        .chain(plan.blips_ms.iter().map(|at| (*at, Event::Blip)))
        .collect();
    events.sort();
    let mut healthy = true;
    for (at, event) in events {
        sleep_until(world, Time::ms(at)).await;
        match event {
            Event::Blip => {
                recorder.agent_blipped(&node(number), now(world));
                set_health(world, number, !healthy);
                world.sleep(BLIP).await;
                set_health(world, number, healthy);
            }
            Event::Flip => {
                healthy = !healthy;
                set_health(world, number, healthy);
                let status = if healthy {
                    CheckStatus::Passing
                } else {
                    CheckStatus::Critical
                };
                recorder.agent_flipped(&node(number), now(world), status);
            }
        }
    }
}

/// A check of this sort.
fn check(number: usize, sort: Sort) -> Value {
    let interval = format!("{}ms", PROBE_INTERVAL.as_millis());
    let probe = match sort {
        Sort::Http => json!({ "type": "http", "http": target(number) }),
        Sort::Tcp => json!({ "type": "tcp", "tcp": door(number), "status": "passing" }),
        Sort::Command => json!({ "Args": program(number) }),
        Sort::Ttl => return json!({ "type": "ttl", "ttl": format!("{}ms", TOLD_TTL.as_millis()) }),
        Sort::Fleeting => json!({
            "type": "http", "http": target(number),
            "deregister_critical_service_after": format!("{}ms", FLEETING_AFTER.as_millis()),
        }),
        Sort::Alias => return json!({ "AliasService": PROBED }),
        Sort::Fatal => json!({
            "type": "tcp", "tcp": NOWHERE,
            "deregister_critical_service_after": format!("{}ms", FATAL_AFTER.as_millis()),
        }),
    };
    let mut check = json!({
        "Interval": interval, "Timeout": "300ms",
        "SuccessBeforePassing": PROBES, "FailuresBeforeCritical": PROBES,
    });
    for (name, value) in probe.as_object().into_iter().flatten() {
        check[name] = value.clone();
    }
    check
}

/// A service that is in the agent's configuration: everything that may be said of one.
fn configured(id: &str, port: u16, check: Value) -> Value {
    let mut body = json!({ "name": SERVICE, "id": id, "port": port, "checks": [check] });
    for (field, value) in looks() {
        body[field] = value;
    }
    body
}

/// What configured services have beside their names and ports.
fn looks() -> [(&'static str, Value); 5] {
    [
        ("Address", json!(INSTANCE_ADDRESS)),
        ("Tags", json!(["steady"])),
        ("Meta", json!({ "kept": "yes" })),
        ("Weights", json!({ "Passing": 3, "Warning": 2 })),
        (
            "TaggedAddresses",
            json!({ "wan": { "Address": INSTANCE_ADDRESS, "Port": 7 } }),
        ),
    ]
}

/// Makes the catalog's registration of a configured service what the agent's own would be, but for one thing.
pub fn spoil(body: &mut Value, spoils: Spoils) {
    if body.get("Service").is_none() {
        return;
    }
    for (field, value) in looks() {
        body["Service"][field] = value;
    }
    let (field, value) = match spoils {
        Spoils::Address => ("Address", json!("10.3.3.99")),
        Spoils::Tags => ("Tags", json!(["other"])),
        Spoils::Meta => ("Meta", json!({ "kept": "no" })),
        Spoils::Weight => ("Weights", json!({ "Passing": 3, "Warning": 1 })),
        Spoils::TaggedAddress => (
            "TaggedAddresses",
            json!({ "wan": { "Address": INSTANCE_ADDRESS, "Port": 8 } }),
        ),
        Spoils::TagOverride => ("EnableTagOverride", json!(true)),
        Spoils::NodeMeta => {
            body["NodeMeta"] = json!({ "kept": "no" });
            return;
        }
        // What is registered says it itself, or its check does.
        Spoils::Service
        | Spoils::Definition
        | Spoils::Output
        | Spoils::MoreChecks
        | Spoils::CheckName
        | Spoils::Notes => return,
    };
    body["Service"][field] = value;
}

/// Makes the catalog's registration of the probed service's check what the agent's own would be, but for one thing.
pub fn spoil_check(check: &mut Value, node: &str, spoils: Spoils) {
    if spoils == Spoils::MoreChecks {
        return;
    }
    check["Name"] = match spoils {
        Spoils::CheckName => json!("a check"),
        _ => json!(check_name()),
    };
    if spoils == Spoils::Notes {
        check["Notes"] = json!("spoilt");
    }
    let number = node.trim_start_matches(|letter: char| !letter.is_ascii_digit());
    let probed = target(number.parse().unwrap_or_default());
    let interval = if spoils == Spoils::Definition {
        "10s"
    } else {
        "400ms"
    };
    check["Definition"] = json!({
        "HTTP": probed, "Interval": interval, "Timeout": "300ms",
        "SuccessBeforePassing": PROBES, "FailuresBeforeCritical": PROBES,
    });
}

/// What the check of an instance is called that has but one.
fn check_name() -> String {
    format!("Service '{SERVICE}' check")
}

/// The id of a configured service's check.
pub fn check_of(id: &str) -> String {
    format!("chk:{id}:0")
}

/// What the probed machine says.
fn said(healthy: bool) -> String {
    format!("it says {}", if healthy { 200 } else { 500 })
}

fn set_health(world: &World, number: usize, healthy: bool) {
    let output = said(healthy);
    let outcomes = [
        (
            target(number),
            ProbeOutcome::HttpStatus {
                status: if healthy { 200 } else { 500 },
                output: output.clone(),
            },
        ),
        (
            door(number),
            match healthy {
                true => ProbeOutcome::Connected,
                false => ProbeOutcome::Failed {
                    output: output.clone(),
                },
            },
        ),
        (
            program(number).join(" "),
            ProbeOutcome::Exited {
                code: i32::from(!healthy),
                output,
            },
        ),
    ];
    for (target, outcome) in outcomes {
        world.prober().set(&target, outcome, Duration::from_millis(5));
    }
}

fn config(number: usize, servers: Vec<String>, seldom: bool, spare: bool) -> AgentConfig {
    let node = NodeName::parse(&node(number)).expect("a valid name");
    let renewed = json!({ "type": "ttl", "ttl": format!("{}ms", RENEWED_TTL.as_millis()) });
    let mut elsewhere = configured("renewed", 3, renewed.clone());
    elsewhere["namespace"] = json!(ELSEWHERE);
    let mut named = vec![
        configured("renewed", 1, renewed.clone()),
        configured(PROBED, 2, check(number, Sort::Http)),
        elsewhere,
    ];
    if spare {
        named.push(configured(SPARE, 4, check(number, Sort::Http)));
    }
    let file = ConfigFile::parse(&json!({ "services": named }));
    let services = file
        .expect("a valid file")
        .services(&node, ADDRESS)
        .expect("valid services");
    AgentConfig {
        services,
        node_ttl: Some(NODE_TTL),
        sync_interval: if seldom {
            SELDOM_SYNC_INTERVAL
        } else {
            SYNC_INTERVAL
        },
        enable_script_checks: true,
        ..AgentConfig::new(node, ADDRESS.into(), servers)
    }
}
