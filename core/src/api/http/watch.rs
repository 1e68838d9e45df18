//! `/v1/watch/…`: what a blocking query answers, as a stream of server-sent events
//! (<https://html.spec.whatwg.org/multipage/server-sent-events.html>).
//!
//! An event `update` has the newest state, the very JSON of the blocking query, and its index as id. Nothing else has an id,
//! so a client that goes on with the last one, at any server, is given what it does not have. An event `end` says why
//! nothing follows. A comment says that nothing differs.

use std::convert::Infallible;

use axum::{
    Router,
    body::Body,
    extract::State,
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use futures_util::StreamExt as _;
use http::{HeaderMap, header};
use serde_json::json;

use super::{
    encode::{self, Encoder},
    error::ApiError,
    health,
    kv::{KeyPath, refuse_foreign},
    options::{Name, Options},
    read,
    reply::Reply,
};
use crate::{
    registry::{Query, ServiceName, View},
    server::{Server, StreamEvent},
};

/// What stands before a prefix of keys.
pub(super) const KEYS: &str = "/v1/watch/kv/";

pub(super) fn routes() -> Router<Server> {
    Router::new()
        .route(
            "/v1/watch/service/",
            read(async || ApiError::bad_request("Missing service name")),
        )
        .route("/v1/watch/service/{*name}", read(service))
        .route("/v1/watch/kv/", read(keys))
        .route("/v1/watch/kv/{*prefix}", read(keys))
}

/// `GET /v1/watch/service/{name}`: as `/v1/health/service/{name}`.
async fn service(
    Name(service): Name<ServiceName>,
    State(server): State<Server>,
    headers: HeaderMap,
    options: Options,
) -> Result<Response, ApiError> {
    let query = health::service_health(service, &options, &server)?;
    let encoder = server.clone();
    stream(&server, query, &headers, options, move |view| {
        Encoder::new(encoder.config()).service_health(view)
    })
    .await
}

/// `GET /v1/watch/kv/{prefix}`: as `/v1/kv/{prefix}?recurse`, or as with `?keys` if that is there; what is not there is an
/// empty list.
async fn keys(
    KeyPath(prefix): KeyPath,
    State(server): State<Server>,
    headers: HeaderMap,
    options: Options,
) -> Result<Response, ApiError> {
    refuse_foreign(&options.namespace)?;
    let query = if options.parameters.has("keys") {
        let separator = options.parameters.text("separator").unwrap_or_default();
        Query::KeyNames {
            prefix,
            separator: separator.as_bytes().to_vec(),
        }
    } else {
        Query::KeyTree(prefix)
    };
    stream(&server, query, &headers, options, encode::keys).await
}

async fn stream(
    server: &Server,
    query: Query,
    headers: &HeaderMap,
    mut options: Options,
    encode: impl Fn(&View) -> Bytes + Send + 'static,
) -> Result<Response, ApiError> {
    // A client that goes on by itself repeats the address that it began with: what it has seen since is newer.
    options.read.index = last_event_id(headers)?.or(options.read.index);
    let stream = server.watch(query, options.read).await?;
    let mut response =
        Reply::event_stream(stream.known_leader(), stream.last_contact(), &options).into_response();
    // Its length is not known, nor that it has an end.
    response.headers_mut().remove(header::CONTENT_LENGTH);
    let frames = stream.map(move |event| Ok::<_, Infallible>(frame(&event, &encode)));
    *response.body_mut() = Body::from_stream(frames);
    Ok(response)
}

/// The header `Last-Event-ID`; an empty one is none.
fn last_event_id(headers: &HeaderMap) -> Result<Option<u64>, ApiError> {
    let Some(id) = headers.get("last-event-id").filter(|id| !id.is_empty()) else {
        return Ok(None);
    };
    let number = id.to_str().ok().and_then(|id| id.parse().ok());
    let bad = || ApiError::bad_request("Invalid Last-Event-ID: expected the id of an event of this stream");
    number.map(Some).ok_or_else(bad)
}

/// An event as it is written. JSON has no line feed, so one line of data is enough.
fn frame(event: &StreamEvent, encode: impl Fn(&View) -> Bytes) -> Bytes {
    match event {
        StreamEvent::Changed(answer) => {
            let head = format!("id: {}\nevent: update\ndata: ", answer.index);
            let body = answer.view.bytes(encode);
            [head.as_bytes(), body.trim_ascii_end(), b"\n\n"].concat().into()
        }
        StreamEvent::Unchanged => Bytes::from_static(b": nothing differs\n\n"),
        StreamEvent::Ended(end) => {
            let reason = json!({ "Reason": end.to_string() });
            Bytes::from(format!("event: end\ndata: {reason}\n\n"))
        }
    }
}
