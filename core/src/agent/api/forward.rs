//! Requests that are about the cluster and not about this host: sent on to a server, whose answer is handed back as it is.
//!
//! A read that fails goes to the next server. A write does so only where it is certain that it was not carried out: nobody
//! could be reached, or the server said that it has no leader or is not ready.

use std::{sync::Arc, time::Duration};

use axum::{
    body::{Body, to_bytes},
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use serde_json::Value;

use super::{events, waits};
use crate::{
    agent::{Shared, cache, servers::Forwarded},
    api::http::{
        FROM_AN_AGENT, duration,
        error::ApiError,
        options::{Parameters, read_options},
    },
    limits::{
        AGENT_FORWARD_SLACK, AGENT_FORWARD_TIMEOUT, BODY_BYTES_MAX, RESTORE_BYTES_MAX, RESTORE_STEP_TIMEOUT,
        WAIT_DEFAULT, WAIT_MAX,
    },
    registry::NodeName,
    runtime::Runtime,
};

/// What the paths begin with that servers answer.
const OF_SERVERS: [&str; 21] = [
    "/v1/acl/",
    "/v1/agent/connect/",
    "/v1/agent/force-leave/",
    "/v1/agent/members",
    "/v1/agent/token/",
    "/v1/agent/version",
    "/v1/batch/",
    "/v1/catalog/",
    "/v1/cluster/",
    "/v1/connect/",
    "/v1/coordinate/",
    "/v1/event/",
    "/v1/health/",
    "/v1/internal/",
    "/v1/kv/",
    "/v1/operator/",
    "/v1/query",
    "/v1/session/",
    "/v1/snapshot",
    "/v1/status/",
    "/v1/txn",
];

/// Headers of a request that mean something to a server.
const HEADERS: [HeaderName; 6] = [
    header::CONTENT_TYPE,
    header::AUTHORIZATION,
    header::ACCEPT,
    header::CACHE_CONTROL,
    HeaderName::from_static("x-consul-token"),
    HeaderName::from_static("x-consul-namespace"),
];

/// Any path that is not the agent's own.
pub(super) async fn forward<R: Runtime>(State(shared): State<Arc<Shared<R>>>, request: Request) -> Response {
    let path = request.uri().path();
    if path.starts_with("/v1/watch/") {
        let message = "Streams are not sent on by an agent: expected to be asked of a server";
        return ApiError::new(StatusCode::NOT_IMPLEMENTED, message).into_response();
    }
    if !OF_SERVERS.iter().any(|prefix| path.starts_with(prefix)) {
        let message = "Invalid URL path: not an endpoint of an agent's API\n";
        return (StatusCode::NOT_FOUND, message).into_response();
    }
    send_on(shared, request)
        .await
        .unwrap_or_else(IntoResponse::into_response)
}

async fn send_on<R: Runtime>(shared: Arc<Shared<R>>, request: Request) -> Result<Response, ApiError> {
    if shared.stopping() {
        return Err(ApiError::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "the agent is stopping",
        ));
    }
    let _permit = shared.may_forward()?;
    let (head, body) = request.into_parts();
    let most = match head.uri.path() {
        "/v1/snapshot" => RESTORE_BYTES_MAX,
        _ => BODY_BYTES_MAX,
    };
    let body = to_bytes(body, most).await.map_err(|_| {
        let message = format!("Request body too large: expected at most {most} bytes");
        ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, message)
    })?;
    let wanted = Wanted {
        body: own_node(&shared, &head.uri, body),
        headers: kept_headers(&head.headers, &shared.config.node),
        method: head.method,
        uri: without_pretty(head.uri),
    };
    if wanted.method == Method::GET
        && parameter(&wanted.uri, "cached").is_some()
        && cache::is_cacheable(wanted.uri.path())
    {
        // No server is asked with these.
        let read = read_options(&Parameters::of(&wanted.uri)?)?;
        return cache::answer(&shared, &wanted, read).await;
    }
    let lists_events = wanted.method == Method::GET && wanted.uri.path() == "/v1/event/list";
    let answer = match waits::index(&wanted) {
        _ if lists_events => events::list(&shared, &wanted).await,
        Some(index) => waits::forward(&shared, &wanted, index).await,
        None => shared.servers.forward(&wanted, wanted.patience()).await,
    };
    answer.map(into_response).map_err(no_answer)
}

/// A request to send on.
#[derive(Clone, Debug)]
pub(in crate::agent) struct Wanted {
    pub(in crate::agent) method: Method,
    pub(in crate::agent) uri: Uri,
    pub(in crate::agent) headers: HeaderMap,
    pub(in crate::agent) body: Bytes,
}

impl Wanted {
    /// How long its answer may take.
    pub(super) fn patience(&self) -> Duration {
        if self.uri.path() == "/v1/snapshot" {
            return RESTORE_STEP_TIMEOUT * 2;
        }
        let blocks = ["index", "hash"]
            .iter()
            .any(|name| parameter(&self.uri, name).is_some());
        match blocks {
            true => {
                let wait = wait(&self.uri);
                // Servers wait up to a sixteenth longer, by chance.
                wait + wait / 16 + AGENT_FORWARD_SLACK
            }
            false => AGENT_FORWARD_TIMEOUT,
        }
    }
}

/// How long a blocking query asks to wait; what can't be understood is for the server to refuse.
pub(super) fn wait(uri: &Uri) -> Duration {
    let given = parameter(uri, "wait").and_then(|text| duration::parse(&text));
    let given = given
        .and_then(|nanos| u64::try_from(nanos).ok())
        .map(Duration::from_nanos);
    given
        .filter(|wait| !wait.is_zero())
        .unwrap_or(WAIT_DEFAULT)
        .min(WAIT_MAX)
}

/// A parameter's value, as it is written.
pub(super) fn parameter(uri: &Uri, name: &str) -> Option<String> {
    let pairs = uri.query()?.split('&');
    let mut named = pairs.filter_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (key == name).then(|| value.to_owned())
    });
    named.next()
}

/// Those that mean something to a server, and who sends them on.
fn kept_headers(headers: &HeaderMap, node: &NodeName) -> HeaderMap {
    let sender = HeaderValue::from_bytes(node.as_str().as_bytes()).ok();
    let sender = sender.map(|node| (FROM_AN_AGENT, node));
    let kept = HEADERS.into_iter().filter_map(|name| {
        let value = headers.get(&name)?.clone();
        Some((name, value))
    });
    kept.chain(sender).collect()
}

/// The same, without what asks for an indented answer: this agent indents it.
fn without_pretty(uri: Uri) -> Uri {
    if parameter(&uri, "pretty").is_none() {
        return uri;
    }
    let is_other = |pair: &&str| pair.split('=').next() != Some("pretty");
    let query = uri.query().unwrap_or_default().split('&').filter(is_other);
    let query = query.collect::<Vec<_>>().join("&");
    format!("{}?{query}", uri.path())
        .parse()
        .expect("a part of a query is one")
}

/// A session that names no node is one of this host, and not of the servers' shared node.
fn own_node<R: Runtime>(shared: &Shared<R>, uri: &Uri, body: Bytes) -> Bytes {
    if uri.path() != "/v1/session/create" {
        return body;
    }
    let parsed = match body.is_empty() {
        true => Ok(Value::Object(serde_json::Map::new())),
        false => serde_json::from_slice::<Value>(&body),
    };
    let is_named = |(key, value): (&String, &Value)| key.eq_ignore_ascii_case("node") && !value.is_null();
    match parsed {
        Ok(Value::Object(mut fields)) if !fields.iter().any(is_named) => {
            fields.retain(|key, _| !key.eq_ignore_ascii_case("node"));
            fields.insert("Node".to_owned(), shared.config.node.as_str().into());
            Bytes::from(Value::Object(fields).to_string())
        }
        // What is wrong with it, the server says.
        _ => body,
    }
}

pub(in crate::agent) fn into_response(answer: http::Response<Bytes>) -> Response {
    let (mut head, body) = answer.into_parts();
    // These are about the connection to the server.
    for name in [
        header::CONNECTION,
        header::TRANSFER_ENCODING,
        header::CONTENT_LENGTH,
        header::DATE,
    ] {
        head.headers.remove(name);
    }
    Response::from_parts(head, Body::from(body))
}

pub(in crate::agent) fn no_answer(failed: Forwarded) -> ApiError {
    match failed {
        Forwarded::NotDone(reasons) => ApiError::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("No known Consul servers: no server could answer: {reasons}"),
        ),
        Forwarded::Unknown(reason) => ApiError::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("outcome unknown: {reason}"),
        ),
    }
}
