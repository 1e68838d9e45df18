//! What is asked of the agent's process and its host: `/metrics`, `/v1/agent/{host,metrics,monitor,reload,leave}`.

use std::{fmt, sync::Arc};

use axum::{Router, extract::State, response::Response};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _, text},
    metrics::{MetricType, gauge::ConstGauge},
    registry::Registry,
};

use crate::{
    agent::Shared,
    api::http::{error::ApiError, host, options::Parameters, read, reply::Reply, write},
    limits::{AGENT_FORWARDS_MAX, AGENT_WAITERS_MAX},
    registry::CheckStatus,
    runtime::Runtime,
};

pub(super) fn routes<R: Runtime>() -> Router<Arc<Shared<R>>> {
    Router::new()
        .route("/metrics", read(metrics_page::<R>))
        .route("/v1/agent/host", read(describe::<R>))
        .route("/v1/agent/metrics", read(metrics::<R>))
        .route("/v1/agent/monitor", read(monitor::<R>))
        .route("/v1/agent/reload", write(reload::<R>))
        .route("/v1/agent/leave", write(leave::<R>))
}

/// `GET /metrics`.
async fn metrics_page<R: Runtime>(State(shared): State<Arc<Shared<R>>>) -> Reply {
    host::metrics_text(metrics_of(&shared))
}

/// `GET /v1/agent/host`.
async fn describe<R: Runtime>(State(shared): State<Arc<Shared<R>>>) -> Result<Reply, ApiError> {
    host::describe(shared.config.host.as_ref())
}

/// `GET /v1/agent/metrics`.
async fn metrics<R: Runtime>(State(shared): State<Arc<Shared<R>>>, parameters: Parameters) -> Reply {
    host::metrics_reply(metrics_of(&shared), shared.config.host.as_ref(), &parameters)
}

/// `GET /v1/agent/monitor`.
async fn monitor<R: Runtime>(
    State(shared): State<Arc<Shared<R>>>,
    parameters: Parameters,
) -> Result<Response, ApiError> {
    host::log_lines(shared.config.host.as_ref(), &parameters)
}

/// `PUT /v1/agent/reload`: reads the config files again, and registers what they say now.
async fn reload<R: Runtime>(State(shared): State<Arc<Shared<R>>>) -> Result<Reply, ApiError> {
    host::read_again(shared.config.host.as_ref()).await
}

/// `PUT /v1/agent/leave`: deregisters what this host has, and ends.
async fn leave<R: Runtime>(State(shared): State<Arc<Shared<R>>>) -> Result<Reply, ApiError> {
    host::end(shared.config.host.as_ref())
}

/// The agent's own numbers in the text format.
fn metrics_of<R: Runtime>(shared: &Shared<R>) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Numbers::of(shared)));
    let mut text = String::new();
    text::encode(&mut text, &registry).expect("writing to a string does not fail");
    text
}

/// What an agent counts.
#[derive(Debug)]
struct Numbers(Vec<(&'static str, &'static str, i64)>);

impl Numbers {
    fn of<R: Runtime>(shared: &Shared<R>) -> Numbers {
        let now = R::now();
        let local = shared.local();
        let with = |status| {
            let checks = local.checks().filter(|(_, check)| check.status_at(now) == status);
            whole(checks.count())
        };
        Numbers(vec![
            (
                "sider_agent_services",
                "Services of this host",
                whole(local.services().count()),
            ),
            (
                "sider_agent_checks_passing",
                "Checks of this host that pass",
                with(CheckStatus::Passing),
            ),
            (
                "sider_agent_checks_warning",
                "Checks of this host that warn",
                with(CheckStatus::Warning),
            ),
            (
                "sider_agent_checks_critical",
                "Checks of this host that are critical",
                with(CheckStatus::Critical),
            ),
            (
                "sider_agent_in_step",
                "Whether the servers have been told of everything",
                i64::from(!local.pending.is_any()),
            ),
            (
                "sider_agent_requests_waiting",
                "Requests about this host that wait for the servers",
                whole(AGENT_WAITERS_MAX - shared.waiting.available_permits()),
            ),
            (
                "sider_agent_requests_forwarded",
                "Requests that are being sent on to servers",
                whole(AGENT_FORWARDS_MAX - shared.forwarding.available_permits()),
            ),
        ])
    }
}

fn whole(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

impl Collector for Numbers {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for (name, help, value) in &self.0 {
            let metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(*value).encode(metric)?;
        }
        Ok(())
    }
}
