//! Services on an agent's machine, and what they ask of it through its own API.

use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use sider_core::{registry::CheckStatus, runtime::Network as _};
use sider_runtime_sim::{Host, World};

use super::{SERVICE, asks, check, check_of, node};
use crate::{
    history::Reported,
    recorder::{Recorder, now},
    schedule::{AgentPlan, Order, Report, Sort, Subject},
    time::Time,
    workload::sleep_until,
};

/// What the further check of an instance is called.
pub(super) const MORE: &str = "more";
/// What the check of the node is called.
pub(super) const OF_NODE: &str = "of-node";
/// How long a service waits for the agent's answer, which waits for the servers, before it asks again.
const ORDER_PATIENCE: Duration = Duration::from_secs(2);
/// How long it waits for the answer to a report.
const REPORT_PATIENCE: Duration = Duration::from_millis(5_500);
/// Between two tries to reach the agent.
const ORDER_PAUSE: Duration = Duration::from_millis(100);

/// The id of the further check of an instance.
pub(super) fn more_of(id: &str) -> String {
    format!("{MORE}-{id}")
}

/// A service on an agent's machine that asks things of it. Clones are the same one.
#[derive(Clone)]
pub(super) struct Service {
    pub(super) world: World,
    pub(super) host: Host,
    pub(super) number: usize,
    pub(super) agent: String,
    pub(super) recorder: Recorder,
}

impl Service {
    /// Begins to ask what its plan says.
    pub(super) fn start(world: &World, number: usize, agent: String, plan: &AgentPlan, recorder: &Recorder) {
        if plan.orders.is_empty() && plan.reports.is_empty() && plan.asks.is_empty() {
            return;
        }
        let service = Service {
            world: world.clone(),
            host: world.host(&format!("service-{number}")),
            number,
            agent,
            recorder: recorder.clone(),
        };
        drop(world.spawn(service.clone().order(plan.orders.clone())));
        drop(world.spawn(service.clone().report(plan.reports.clone())));
        for asked in plan.asks.clone() {
            drop(world.spawn(asks::ask(service.clone(), asked)));
        }
    }

    /// Asks the agent for one thing after the other, each until it answers: it keeps what it has answered.
    async fn order(self, orders: Vec<Order>) {
        let network = self.host.network(0);
        for order in orders {
            sleep_until(&self.world, Time::ms(order.at_ms)).await;
            let from = now(&self.world);
            if matches!(order.subject, Subject::Instance | Subject::Replacement) {
                self.recorder
                    .agent_asked(&node(self.number), &order.id, from, order.port.is_some());
            }
            loop {
                let request = ordering(self.number, &order);
                let answer = network.http(&self.agent, request, ORDER_PATIENCE).await;
                // One that is gone already is as good: it was removed by a request whose answer was lost. And a check
                // of what is gone is refused.
                if answer.is_ok_and(|answer| answer.status().is_success() || answer.status() == 404) {
                    break;
                }
                self.world.sleep(ORDER_PAUSE).await;
            }
            let until = now(&self.world);
            let node = node(self.number);
            self.recorder.agent_obeyed(&node, &order.id, from, until);
            self.recorder.agent_settled(&node, until);
        }
    }

    /// Reports one thing after the other, each once.
    async fn report(self, reports: Vec<Report>) {
        let network = self.host.network(0);
        for report in reports {
            sleep_until(&self.world, Time::ms(report.at_ms)).await;
            let invoked = now(&self.world);
            let request = reporting(&report);
            let answer = network.http(&self.agent, request, REPORT_PATIENCE).await;
            let told = Reported {
                check: check_of(&report.id),
                status: report.status,
                invoked,
                returned: now(&self.world),
                answer: answer.ok().map(|answer| answer.status().as_u16()),
            };
            self.recorder.agent_told(&node(self.number), told);
        }
    }
}

fn ordering(number: usize, order: &Order) -> http::Request<Bytes> {
    let id = &order.id;
    let (path, body) = match (order.subject, order.port) {
        (Subject::Instance | Subject::Replacement, Some(port)) => {
            let mut check = check(number, order.sort);
            // Each of the two forms would give it another one.
            check["CheckID"] = json!(check_of(id));
            let body = json!({ "Name": SERVICE, "ID": id, "Port": port, "Checks": [check] });
            let path = match order.subject {
                Subject::Replacement => "service/register?replace-existing-checks=true",
                _ => "service/register",
            };
            (path.to_owned(), body)
        }
        (Subject::Instance | Subject::Replacement, None) => (format!("service/deregister/{id}"), Value::Null),
        (Subject::Check, Some(_)) => {
            let mut body = check_alone(number, order.sort, MORE, &more_of(id));
            body["ServiceID"] = json!(id);
            ("check/register".to_owned(), body)
        }
        (Subject::Check, None) => (format!("check/deregister/{}", more_of(id)), Value::Null),
        (Subject::NodeCheck, Some(_)) => {
            let body = check_alone(number, order.sort, OF_NODE, OF_NODE);
            ("check/register".to_owned(), body)
        }
        (Subject::NodeCheck, None) => (format!("check/deregister/{OF_NODE}"), Value::Null),
    };
    put(&path, body)
}

fn check_alone(number: usize, sort: Sort, name: &str, id: &str) -> Value {
    let mut body = check(number, sort);
    body["Name"] = json!(name);
    body["ID"] = json!(id);
    body
}

fn reporting(report: &Report) -> http::Request<Bytes> {
    let check = check_of(&report.id);
    match report.status {
        CheckStatus::Passing => put(&format!("check/pass/{check}"), Value::Null),
        CheckStatus::Warning => {
            let body = json!({ "Status": "warning", "Output": "slow" });
            put(&format!("check/update/{check}"), body)
        }
        _ => put(&format!("check/fail/{check}?note=bad"), Value::Null),
    }
}

fn put(path: &str, body: Value) -> http::Request<Bytes> {
    let body = match body {
        Value::Null => String::new(),
        body => body.to_string(),
    };
    http::Request::put(format!("/v1/agent/{path}"))
        .body(body.into())
        .expect("simulated names are valid in a path")
}
