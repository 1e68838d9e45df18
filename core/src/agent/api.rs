//! The agent's own HTTP API: the `/v1/agent/…` paths of a server, with the same request forms and answers, for this
//! host. Registrations made here are kept on the disk before they are answered, and so is maintenance. What is about the
//! cluster is sent on to a server.

mod changes;
mod events;
pub(super) mod forward;
mod maintenance;
mod process;
mod reads;
pub(super) mod waits;

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::Request,
    middleware::{Next, from_fn},
    response::{IntoResponse as _, Response},
};
use http::StatusCode;
use tokio::sync::oneshot;

use super::{Shared, local::Outcome, servers::CallError};
use crate::{
    api::http::{FROM_AN_AGENT, add_common_headers, error::ApiError, path, pretty, read, write},
    limits::{AGENT_ANSWER_TIMEOUT, AGENT_FORWARDS_MAX, AGENT_WAITERS_MAX},
    registry::{CheckId, CheckKey, InstanceId, InstanceKey, Namespace},
    runtime::Runtime,
};

/// The whole API of an agent.
pub(super) fn router<R: Runtime>(shared: Arc<Shared<R>>) -> Router {
    Router::new()
        .route("/v1/agent/service/register", write(changes::register::<R>))
        .route(
            "/v1/agent/service/deregister",
            write(changes::deregister_by_body::<R>),
        )
        .route(
            "/v1/agent/service/deregister/{*id}",
            write(changes::deregister::<R>),
        )
        .route(
            "/v1/agent/service/heartbeat",
            write(changes::heartbeat_by_body::<R>),
        )
        .route(
            "/v1/agent/service/heartbeat/{*id}",
            write(changes::heartbeat::<R>),
        )
        .route("/v1/agent/check/register", write(changes::register_check::<R>))
        .route(
            "/v1/agent/check/deregister/{*id}",
            write(changes::deregister_check::<R>),
        )
        .route("/v1/agent/check/pass/{*id}", write(changes::pass::<R>))
        .route("/v1/agent/check/warn/{*id}", write(changes::warn::<R>))
        .route("/v1/agent/check/fail/{*id}", write(changes::fail::<R>))
        .route("/v1/agent/check/update/{*id}", write(changes::update::<R>))
        .route("/v1/agent/maintenance", write(maintenance::of_node::<R>))
        .route(
            "/v1/agent/service/maintenance/{*id}",
            write(maintenance::of_service::<R>),
        )
        .route(
            "/v1/agent/service/maintenance/",
            write(async || ApiError::bad_request("Missing service ID")),
        )
        .route(
            "/v1/agent/service/deregister/",
            write(async || ApiError::unknown_instance("")),
        )
        .route(
            "/v1/agent/service/",
            read(async || ApiError::unknown_instance("")),
        )
        .route(
            "/v1/agent/check/deregister/",
            write(async || ApiError::unknown_check("")),
        )
        .route(
            "/v1/agent/health/service/id/",
            read(async || ApiError::server_error("Missing serviceID")),
        )
        .route(
            "/v1/agent/health/service/name/",
            read(async || ApiError::bad_request("Missing service Name")),
        )
        .route("/v1/agent/services", read(reads::services::<R>))
        .route("/v1/agent/service/{*id}", read(reads::service::<R>))
        .route("/v1/agent/checks", read(reads::checks::<R>))
        .route(
            "/v1/agent/health/service/id/{*id}",
            read(reads::health_by_id::<R>),
        )
        .route(
            "/v1/agent/health/service/name/{*name}",
            read(reads::health_by_name::<R>),
        )
        .route("/v1/agent/self", read(reads::this_agent::<R>))
        .merge(process::routes())
        .route("/livez", read(async || "ok\n"))
        .fallback(forward::forward::<R>)
        .layer(from_fn(refuse_loop))
        .layer(from_fn(finish))
        .with_state(shared)
}

/// Refuses what another agent sent, or this one: an agent is no server, and two that take each other for one would send
/// a request on for ever.
async fn refuse_loop(request: Request, next: Next) -> Response {
    if !request.headers().contains_key(FROM_AN_AGENT) {
        return next.run(request).await;
    }
    let message = "an agent sent this to an agent, which is no server: among the servers of the one that sent it \
                   there is an agent's address, perhaps its own";
    ApiError::new(StatusCode::LOOP_DETECTED, message).into_response()
}

/// Sends a path that is not clean to the clean one, indents the answer if `?pretty` asks for it, and gives it the headers that
/// all have.
async fn finish(request: Request, next: Next) -> Response {
    let asked = pretty::is_asked_for(request.uri().query());
    let of_api = request.uri().path().starts_with("/v1/");
    let mut response = match path::redirect(request.uri()) {
        Some(moved) => moved,
        None => next.run(request).await,
    };
    if asked {
        response = pretty::indent(response).await;
    }
    if of_api {
        add_common_headers(&mut response);
    }
    response
}

impl<R: Runtime> Shared<R> {
    fn instance_key(&self, namespace: Option<Namespace>, id: InstanceId) -> InstanceKey {
        InstanceKey {
            namespace: namespace.unwrap_or_default(),
            node: self.config.node.clone(),
            id,
        }
    }

    fn check_key(&self, namespace: Option<Namespace>, id: CheckId) -> CheckKey {
        CheckKey {
            namespace: namespace.unwrap_or_default(),
            node: self.config.node.clone(),
            id,
        }
    }

    /// Lets a request be sent on, or wait as long, if not too many do.
    fn may_forward(&self) -> Result<tokio::sync::SemaphorePermit<'_>, ApiError> {
        self.forwarding.try_acquire().map_err(|_| {
            let message =
                format!("too many requests wait for the servers: the limit is {AGENT_FORWARDS_MAX}");
            ApiError::new(StatusCode::TOO_MANY_REQUESTS, message)
        })
    }

    /// Lets a request wait for the servers, if not too many do.
    fn may_wait(&self) -> Result<tokio::sync::SemaphorePermit<'_>, ApiError> {
        if self.stopping() {
            return Err(ApiError::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "the agent is stopping",
            ));
        }
        self.waiting.try_acquire().map_err(|_| {
            ApiError::new(
                StatusCode::TOO_MANY_REQUESTS,
                format!("too many requests wait for the servers: the limit is {AGENT_WAITERS_MAX}"),
            )
        })
    }
}

/// Why there is no outcome.
enum NoOutcome {
    /// The servers refused the change.
    Refused(ApiError),
    /// They could not be told so far, within [`AGENT_ANSWER_TIMEOUT`], or for this reason.
    Pending(Option<String>),
}

/// Waits for the servers to have a change.
async fn outcome<R: Runtime>(receiver: oneshot::Receiver<Outcome>, wait: Duration) -> Result<u64, NoOutcome> {
    match R::timeout(wait, receiver).await {
        Some(Ok(Ok(index))) => Ok(index),
        Some(Ok(Err(CallError::Refused { status, message }))) => {
            Err(NoOutcome::Refused(ApiError::new(status, message)))
        }
        Some(Ok(Err(CallError::Unavailable(reason)))) => Err(NoOutcome::Pending(Some(reason))),
        Some(Err(_)) | None => Err(NoOutcome::Pending(None)),
    }
}

/// The answer to a report that the servers have not heard of: its check may expire.
fn not_heard(reason: Option<String>) -> ApiError {
    let why = reason.map_or_else(
        || format!(" within {AGENT_ANSWER_TIMEOUT:?}"),
        |reason| format!(": {reason}"),
    );
    ApiError::new(
        StatusCode::INTERNAL_SERVER_ERROR,
        format!("no server could be told{why}; the agent goes on trying"),
    )
}
