//! `/v1/event/…`: user events.

use axum::{
    Router,
    extract::{Path, State},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::StatusCode;
use serde_json::{Value, json};

use super::{
    body::ValueBody,
    error::{ApiError, echo},
    kv::server_error,
    options::{Options, WriteOptions},
    read,
    reply::Reply,
    write,
};
use crate::{
    limits::{EVENT_PAYLOAD_BYTES_MAX, NAME_BYTES_MAX},
    server::{Server, UserEvent},
};

pub(super) fn routes() -> Router<Server> {
    Router::new()
        .route(
            "/v1/event/fire/",
            write(async || ApiError::bad_request("Missing name")),
        )
        .route("/v1/event/fire/{*name}", write(fire))
        .route("/v1/event/list", read(list))
}

/// `PUT /v1/event/fire/{name}` with `?node`, `?service` and `?tag`, each a regular expression; the body is the payload.
async fn fire(
    State(server): State<Server>,
    Path(name): Path<String>,
    options: WriteOptions,
    ValueBody(payload): ValueBody,
) -> Result<Reply, ApiError> {
    if name.len() > NAME_BYTES_MAX || payload.len() > EVENT_PAYLOAD_BYTES_MAX {
        return Err(ApiError::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!(
                "user event exceeds the limits of {NAME_BYTES_MAX} bytes for its name and \
                 {EVENT_PAYLOAD_BYTES_MAX} bytes for its payload"
            ),
        ));
    }
    let node_filter = pattern(&options, "node")?;
    let service_filter = pattern(&options, "service")?;
    let tag_filter = pattern(&options, "tag")?;
    if !tag_filter.is_empty() && service_filter.is_empty() {
        return Err(server_error("Cannot provide tag filter without service filter"));
    }
    let event = server.fire(UserEvent {
        name,
        payload: payload.to_vec(),
        node_filter,
        service_filter,
        tag_filter,
        ..UserEvent::default()
    });
    // As in Consul, whoever fires it is not told its time.
    Ok(Reply::json(&body(&UserEvent { ltime: 0, ..event })))
}

/// A parameter that is a regular expression; empty if it is not there.
fn pattern(options: &WriteOptions, name: &str) -> Result<String, ApiError> {
    let pattern = options.parameters.text(name).unwrap_or_default();
    if pattern.len() > NAME_BYTES_MAX {
        return Err(ApiError::bad_request(format!(
            "Invalid {name} filter: expected at most {NAME_BYTES_MAX} bytes"
        )));
    }
    match regex::Regex::new(pattern) {
        Ok(_) => Ok(pattern.to_owned()),
        Err(error) => {
            let text = error.to_string();
            let reason = text.lines().last().unwrap_or_default();
            let reason = match reason.trim_start_matches("error: ") {
                "unclosed group" => "missing closing )",
                "unopened group" => "unexpected )",
                "unclosed character class" => "missing closing ]",
                other => other,
            };
            Err(server_error(format!(
                "Invalid {name} filter: error parsing regexp: {reason}: `{}`",
                echo(pattern)
            )))
        }
    }
}

/// The parameter with which agents ask for events of any node: they know best what is for their own.
pub(crate) const OF_ANY_NODE: &str = "any-node";

/// `GET /v1/event/list`: those for the servers' shared node that this server heard of, oldest first; `?name` for one kind of them.
async fn list(State(server): State<Server>, options: Options) -> Result<Reply, ApiError> {
    let name = options.parameters.text("name");
    let all = options.parameters.has(OF_ANY_NODE);
    let read = &options.read;
    let (index, events) = server.events(all, name, read.index, read.wait).await;
    let events: Vec<_> = events.iter().map(body).collect();
    Ok(Reply::json(&events).with_index(index))
}

fn body(event: &UserEvent) -> Value {
    let payload = (!event.payload.is_empty()).then(|| STANDARD.encode(&event.payload));
    json!({
        "ID": event.id,
        "Name": event.name,
        "Payload": payload,
        "NodeFilter": event.node_filter,
        "ServiceFilter": event.service_filter,
        "TagFilter": event.tag_filter,
        "Version": 1,
        "LTime": event.ltime,
    })
}
