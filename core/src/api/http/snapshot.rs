//! `/v1/snapshot`: backup and restore.

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    response::{IntoResponse as _, Response},
    routing::get,
};
use futures_util::StreamExt as _;
use http::{HeaderValue, Method, StatusCode, header};
use serde_json::json;

use super::{body, error::ApiError, options::Options, reply::Reply, wrong_method};
use crate::{limits, registry::Snapshot, server::Server};

pub(super) fn routes() -> Router<Server> {
    let methods = get(save)
        .put(restore)
        .post(restore)
        .fallback(|method: Method| async move { wrong_method(&method, "OPTIONS,GET,PUT,POST") });
    Router::new().route("/v1/snapshot", methods)
}

/// `GET /v1/snapshot`: the whole state in one file, made while it is sent; `?stale` takes it from this server as it is.
async fn save(State(server): State<Server>, options: Options) -> Result<Response, ApiError> {
    let snapshot = server.save_snapshot(options.stale()).await?;
    let status = server.status();
    // Who did not ask for a stale one has just been told by the leader what is in it.
    let (known_leader, last_contact_ms) = match options.stale() {
        true => (
            status.known_leader().is_some(),
            status.last_contact_ms.unwrap_or_default(),
        ),
        false => (true, 0),
    };
    let mut response = Reply::text("")
        .with_index(snapshot.index())
        .with_freshness(known_leader, last_contact_ms)
        .with_backend()
        .into_response();
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/octet-stream"),
    );
    // Its length is not known before its end; and its end says whether it is complete.
    headers.remove(header::CONTENT_LENGTH);
    *response.body_mut() = Body::from_stream(snapshot.map(Ok::<_, std::convert::Infallible>));
    Ok(response)
}

/// `PUT /v1/snapshot`: replaces the whole state by that of a file. What is no sound file is a 400 and changes nothing.
async fn restore(State(server): State<Server>, request: Request) -> Result<Reply, ApiError> {
    let file = body::read_up_to(request, limits::RESTORE_BYTES_MAX).await?;
    let snapshot = Snapshot::parse(&file)
        .map_err(|error| ApiError::new(StatusCode::BAD_REQUEST, format!("Bad snapshot: {error}")))?;
    let written = server.restore_snapshot(&snapshot).await?;
    written.reply?;
    Ok(Reply::json(&json!({ "Index": written.index })).with_index(written.index))
}
