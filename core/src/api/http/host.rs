//! `/v1/agent/{host,metrics,monitor,reload,leave}`: what is asked of the process and the host around a server,
//! or around an agent.

use std::{convert::Infallible, sync::Arc};

use axum::{
    Router,
    body::Body,
    extract::State,
    response::{IntoResponse, Response},
};
use futures_util::StreamExt as _;
use http::{StatusCode, header};
use serde_json::{Map, Value, json};

use super::{
    error::{ApiError, echo},
    options::{Options, Parameters},
    read,
    reply::Reply,
    write,
};
use crate::server::{Host, LogLevel, Server};

pub(super) fn routes() -> Router<Server> {
    Router::new()
        .route("/v1/agent/host", read(host))
        .route("/v1/agent/metrics", read(metrics))
        .route("/v1/agent/monitor", read(monitor))
        .route("/v1/agent/reload", write(reload))
        .route("/v1/agent/leave", write(leave))
}

/// The process around a server or an agent; 501 where there is none.
fn process(host: Option<&Arc<dyn Host>>) -> Result<&Arc<dyn Host>, ApiError> {
    host.ok_or_else(|| {
        ApiError::new(
            StatusCode::NOT_IMPLEMENTED,
            "It was started by a program that tells nothing of itself",
        )
    })
}

/// `GET /v1/agent/host`.
async fn host(State(server): State<Server>) -> Result<Reply, ApiError> {
    describe(server.config().host.as_ref())
}

/// `GET /v1/agent/metrics`.
async fn metrics(State(server): State<Server>, options: Options) -> Reply {
    metrics_reply(
        server.metrics_text(),
        server.config().host.as_ref(),
        &options.parameters,
    )
}

/// `GET /v1/agent/monitor`.
async fn monitor(State(server): State<Server>, options: Options) -> Result<Response, ApiError> {
    log_lines(server.config().host.as_ref(), &options.parameters)
}

/// `PUT /v1/agent/reload`: reads the config files again.
async fn reload(State(server): State<Server>) -> Result<Reply, ApiError> {
    read_again(server.config().host.as_ref()).await
}

/// `PUT /v1/agent/leave`: hands leadership on and ends the process. The server stays a member: it may come back.
async fn leave(State(server): State<Server>) -> Result<Reply, ApiError> {
    end(server.config().host.as_ref())
}

/// Tells of the host that a process runs on.
///
/// # Errors
/// 501 where the process tells nothing of itself.
pub(crate) fn describe(host: Option<&Arc<dyn Host>>) -> Result<Reply, ApiError> {
    Ok(Reply::json(&process(host)?.describe()))
}

/// Metrics in the text format and those of the process, as JSON, or with `?format=prometheus` the text as it is.
pub(crate) fn metrics_reply(text: String, host: Option<&Arc<dyn Host>>, parameters: &Parameters) -> Reply {
    if parameters.text("format") == Some("prometheus") {
        return metrics_text(text);
    }
    let (mut gauges, counters) = as_json(&text);
    for (name, value) in host.map(|host| host.gauges()).unwrap_or_default() {
        let host = host.map_or("", |host| host.name());
        gauges.push(json!({ "Name": format!("consul.{host}.{name}"), "Value": value, "Labels": {} }));
    }
    Reply::json(&json!({
        "Timestamp": host.map_or_else(String::new, |host| host.timestamp()),
        "Gauges": gauges,
        "Points": [],
        "Counters": counters,
        "Samples": [],
    }))
}

/// Metrics as Prometheus asks for them.
pub(crate) fn metrics_text(text: String) -> Reply {
    let mut reply = Reply::text(text);
    reply.content_type("application/openmetrics-text; version=1.0.0; charset=utf-8");
    reply
}

/// What the process logs from now on, a line for each entry, with `?logjson` as JSON.
///
/// # Errors
/// 400 for a level that nobody knows, 501 where the process tells nothing of itself.
pub(crate) fn log_lines(host: Option<&Arc<dyn Host>>, parameters: &Parameters) -> Result<Response, ApiError> {
    let word = parameters.text("loglevel").unwrap_or("info");
    let Some(level) = LogLevel::parse(word) else {
        return Err(ApiError::bad_request(format!(
            "Unknown log level: {}",
            echo(word)
        )));
    };
    let json = parameters.flag("logjson")?;
    let lines = process(host)?.log_lines(level, json).map(Ok::<_, Infallible>);
    let mut response = Reply::text(Vec::new()).into_response();
    // Its length is not known, nor that it has an end.
    response.headers_mut().remove(header::CONTENT_LENGTH);
    *response.body_mut() = Body::from_stream(lines);
    Ok(response)
}

/// Has the process read its config files again.
///
/// # Errors
/// What in them can't be used; 501 where the process tells nothing of itself.
pub(crate) async fn read_again(host: Option<&Arc<dyn Host>>) -> Result<Reply, ApiError> {
    let reloaded = process(host)?.reload().await;
    reloaded.map_err(|reason| ApiError::server_error(format!("Reload failed: {reason}")))?;
    Ok(Reply::empty())
}

/// Has the process end as a signal would.
///
/// # Errors
/// 501 where the process tells nothing of itself.
pub(crate) fn end(host: Option<&Arc<dyn Host>>) -> Result<Reply, ApiError> {
    process(host)?.leave();
    Ok(Reply::empty())
}

/// Gauges and counters of the text format as Consul writes them.
#[expect(
    clippy::cast_possible_truncation,
    reason = "no counter comes near what an i64 holds"
)]
fn as_json(text: &str) -> (Vec<Value>, Vec<Value>) {
    let (mut gauges, mut counters, mut kind) = (Vec::new(), Vec::new(), "");
    for line in text.lines() {
        if let Some(description) = line.strip_prefix("# TYPE ") {
            kind = description.rsplit(' ').next().unwrap_or_default();
            continue;
        }
        let Some((series, value)) = line.rsplit_once(' ').filter(|_| !line.starts_with('#')) else {
            continue;
        };
        let Ok(value) = value.parse::<f64>() else {
            continue;
        };
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let labels: Map<String, Value> = labels
            .trim_end_matches('}')
            .split("\",")
            .filter_map(|label| label.split_once("=\""))
            .map(|(label, value)| (label.to_owned(), value.trim_end_matches('"').into()))
            .collect();
        match kind {
            "gauge" => gauges.push(json!({ "Name": name, "Value": value, "Labels": labels })),
            // A counter of ours is a whole number, and so must this be for Consul's clients.
            "counter" => counters.push(json!({
                "Name": name, "Count": value as i64, "Sum": value, "Rate": 0, "Min": 0, "Max": 0, "Mean": 0,
                "Stddev": 0, "Labels": labels,
            })),
            _ => {}
        }
    }
    (gauges, counters)
}
