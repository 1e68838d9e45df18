//! An agent on a host of its own: the program that runs on a service's machine, with a service that it renews and one
//! that it probes, one in a namespace of its own, and what is asked of it through its own API.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::Bytes;
use serde_json::{Value, json};
use sider_core::{
    agent::{Agent, AgentConfig, ConfigFile},
    registry::{CheckStatus, Namespace, NodeName},
    runtime::{Network as _, ProbeOutcome},
};
use sider_runtime_sim::{SimRuntime, World};

use crate::{
    cluster::{Cluster, HTTP_PORT, http_handler},
    history::{AgentInstance, AgentLooks, AgentPromise},
    operation::{ELSEWHERE, Spoils},
    recorder::{self, Recorder, now},
    schedule::{AgentPlan, Order},
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

/// The service of which its instances are.
pub const SERVICE: &str = "job";
/// The one that is in its configuration and probed.
pub const PROBED: &str = "probed";
/// Between two comparisons with the servers; a report that was overtaken is set right by the next one.
const SYNC_INTERVAL: Duration = Duration::from_secs(2);
/// Port of the agent's own transport; nobody calls it.
const PORT: u16 = 8510;
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
const RENEWED_TTL: Duration = Duration::from_millis(1_500);
/// How long a service waits for the agent's answer, which waits for the servers, before it asks again.
const ORDER_PATIENCE: Duration = Duration::from_secs(2);
/// Between two tries to reach the agent.
const ORDER_PAUSE: Duration = Duration::from_millis(100);

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
        address: ADDRESS.to_owned(),
        instances: wanted(&plan),
        started: now(&world),
        // The last thing that changes what must be in the registry.
        settled: Time::ms(
            plan.crashes
                .iter()
                .map(|(at, for_ms)| at + for_ms)
                .chain(plan.flips_ms.iter().copied())
                .chain(plan.blips_ms.iter().copied())
                .chain(plan.orders.iter().map(|order| order.at_ms))
                .max()
                .unwrap_or(0),
        ),
        flips: Vec::new(),
        blips: Vec::new(),
        crashes: Vec::new(),
    });
    let prober = world.prober();
    host.start(move |host| {
        let (servers, prober) = (servers.clone(), prober.clone());
        async move {
            let network = host.network(PORT);
            let routes = Arc::new(OnceLock::new());
            network
                .serve_http(HTTP_PORT, http_handler(routes.clone()))
                .expect("nobody else serves there");
            let agent =
                Agent::<SimRuntime>::start(config(number, servers), network, prober, host.disk()).await;
            let agent = agent.expect("a simulated agent starts");
            // Nobody else sets them, so they are not set yet.
            let _ = routes.set(agent.router());
            std::future::pending::<()>().await;
        }
    });
    let address = SocketAddr::new(host.ip(), HTTP_PORT).to_string();
    let service = Service {
        world: world.clone(),
        number,
        agent: address,
        recorder: recorder.clone(),
    };
    drop(world.spawn(service.order(plan.orders.clone())));
    let crashes = plan
        .crashes
        .iter()
        .map(|(at, for_ms)| (*at, Event::Crash(*for_ms)));
    let mut events: Vec<(u64, Event)> = crashes
        .chain(plan.flips_ms.iter().map(|at| (*at, Event::Flip)))
        .chain(plan.blips_ms.iter().map(|at| (*at, Event::Blip)))
        .collect();
    events.sort();
    let mut healthy = true;
    for (at, event) in events {
        sleep_until(&world, Time::ms(at)).await;
        match event {
            Event::Blip => {
                recorder.agent_blipped(&node(number), now(&world));
                set_health(&world, number, !healthy);
                world.sleep(BLIP).await;
                set_health(&world, number, healthy);
            }
            Event::Flip => {
                healthy = !healthy;
                set_health(&world, number, healthy);
                let status = if healthy {
                    CheckStatus::Passing
                } else {
                    CheckStatus::Critical
                };
                recorder.agent_flipped(&node(number), now(&world), status);
            }
            Event::Crash(for_ms) => {
                let from = now(&world);
                host.crash();
                world.sleep(Duration::from_millis(for_ms)).await;
                host.restart();
                recorder.agent_crashed(&node(number), from, now(&world));
            }
        }
    }
}

/// What befalls an agent, or what it probes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// It crashes, for so many milliseconds.
    Crash(u64),
    /// What it probes is otherwise from now on.
    Flip,
    /// What it probes is otherwise for a moment.
    Blip,
}

/// A service on an agent's machine that asks things of it.
struct Service {
    world: World,
    number: usize,
    agent: String,
    recorder: Recorder,
}

impl Service {
    /// Asks the agent for one thing after the other, each until it answers: it keeps what it has answered.
    async fn order(self, orders: Vec<Order>) {
        let network = self.world.host(&format!("service-{}", self.number)).network(0);
        for order in orders {
            sleep_until(&self.world, Time::ms(order.at_ms)).await;
            loop {
                let request = request(self.number, &order);
                let answer = network.http(&self.agent, request, ORDER_PATIENCE).await;
                // One that is gone already is as good: it was removed by a request whose answer was lost.
                if answer.is_ok_and(|answer| answer.status().is_success() || answer.status() == 404) {
                    break;
                }
                self.world.sleep(ORDER_PAUSE).await;
            }
            self.recorder.agent_settled(&node(self.number), now(&self.world));
        }
    }
}

fn request(number: usize, order: &Order) -> http::Request<Bytes> {
    let (path, body) = match order.port {
        Some(port) => {
            let checks = [probe(number)];
            let body = json!({ "Name": SERVICE, "ID": order.id, "Port": port, "Checks": checks });
            ("/v1/agent/service/register".to_owned(), body.to_string())
        }
        None => (
            format!("/v1/agent/service/deregister/{}", order.id),
            String::new(),
        ),
    };
    http::Request::put(path)
        .body(body.into())
        .expect("simulated names are valid in a path")
}

/// A check of what the agent probes.
fn probe(number: usize) -> Value {
    let interval = format!("{}ms", PROBE_INTERVAL.as_millis());
    json!({
        "type": "http", "http": target(number), "interval": interval, "timeout": "300ms",
        "success_before_passing": PROBES, "failures_before_critical": PROBES,
    })
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

/// What must be in the registry in the end: what is in the configuration, and what was ordered last.
fn wanted(plan: &AgentPlan) -> Vec<AgentInstance> {
    let instance = |namespace: Namespace, id: &str, port: u16, status: CheckStatus| AgentInstance {
        namespace,
        id: id.to_owned(),
        port,
        looks: AgentLooks::default(),
        service: SERVICE.to_owned(),
        check_name: check_name(),
        statuses: vec![status],
        output: None,
        ttl: None,
    };
    let of_file = |instance: AgentInstance, ttl: Option<Duration>| AgentInstance {
        looks: configured_looks(),
        ttl,
        ..instance
    };
    let ttl = Some(RENEWED_TTL);
    let here = Namespace::default;
    let elsewhere = Namespace::parse(ELSEWHERE).expect("a valid name");
    let health = expected_health(plan);
    let ordered: BTreeMap<&str, Option<u16>> = plan
        .orders
        .iter()
        .map(|order| (order.id.as_str(), order.port))
        .collect();
    let ordered = ordered
        .into_iter()
        .filter_map(|(id, port)| Some(instance(here(), id, port?, health)));
    let mut instances = vec![
        of_file(instance(here(), "renewed", 1, CheckStatus::Passing), ttl),
        of_file(instance(here(), PROBED, 2, health), None),
        of_file(instance(elsewhere, "renewed", 3, CheckStatus::Passing), ttl),
    ];
    instances.extend(ordered);
    for probed in instances.iter_mut().filter(|it| it.ttl.is_none()) {
        probed.output = Some(said(health == CheckStatus::Passing));
    }
    instances
}

fn configured_looks() -> AgentLooks {
    AgentLooks {
        address: INSTANCE_ADDRESS.to_owned(),
        tags: vec!["steady".to_owned()],
        meta: [("kept".to_owned(), "yes".to_owned())].into(),
        weights: (3, 2),
        tagged_addresses: [("wan".to_owned(), (INSTANCE_ADDRESS.to_owned(), 7))].into(),
        tag_override: false,
    }
}

/// What the probed machine says.
fn said(healthy: bool) -> String {
    format!("it says {}", if healthy { 200 } else { 500 })
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
    let outcome = ProbeOutcome::HttpStatus {
        status: if healthy { 200 } else { 500 },
        output: said(healthy),
    };
    world
        .prober()
        .set(&target(number), outcome, Duration::from_millis(5));
}

fn config(number: usize, servers: Vec<String>) -> AgentConfig {
    let node = NodeName::parse(&node(number)).expect("a valid name");
    let renewed = json!({ "type": "ttl", "ttl": format!("{}ms", RENEWED_TTL.as_millis()) });
    let mut elsewhere = configured("renewed", 3, renewed.clone());
    elsewhere["namespace"] = json!(ELSEWHERE);
    let file = ConfigFile::parse(&json!({ "services": [
        configured("renewed", 1, renewed.clone()),
        configured(PROBED, 2, probe(number)),
        elsewhere,
    ] }));
    let services = file
        .expect("a valid file")
        .services(&node, ADDRESS)
        .expect("valid services");
    AgentConfig {
        services,
        sync_interval: SYNC_INTERVAL,
        ..AgentConfig::new(node, ADDRESS.into(), servers)
    }
}
