//! `/v1/health/…`: instances and checks by their health.

use axum::{
    Router,
    extract::{Path, State},
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;

use super::{
    encode::Encoder,
    error::ApiError,
    later,
    options::{Name, Options},
    read,
    reply::Reply,
    requests::parse_status,
};
use crate::{
    registry::{CheckStatus, Key, NodeName, Query, ServiceName, Shape},
    server::{Answer, ReadOptions, Server},
};

pub(super) fn routes() -> Router<Server> {
    Router::new()
        .route(
            "/v1/health/service/",
            read(async || ApiError::bad_request("Missing service name")),
        )
        .route("/v1/health/service/{*name}", read(service))
        .route(
            "/v1/health/connect/",
            read(async || ApiError::bad_request("Missing service name")),
        )
        .route("/v1/health/connect/{*name}", read(connect))
        .route(
            "/v1/health/ingress/",
            read(async || ApiError::bad_request("Missing service name")),
        )
        .route("/v1/health/ingress/{*name}", read(no_gateways))
        .route(
            "/v1/health/checks/",
            read(async || ApiError::bad_request("Missing service name")),
        )
        .route("/v1/health/checks/{*name}", read(service_checks))
        .route(
            "/v1/health/node/",
            read(async || ApiError::bad_request("Missing node name")),
        )
        .route("/v1/health/node/{*name}", read(node_checks))
        .route(
            "/v1/health/state/",
            read(async || ApiError::bad_request("Missing check state")),
        )
        .route("/v1/health/state/{state}", read(checks_in_state))
}

/// `GET /v1/health/service/{name}`: the instances of a service with their nodes and checks.
async fn service(
    State(server): State<Server>,
    Name(service): Name<ServiceName>,
    options: Options,
) -> Result<Response, ApiError> {
    let query = service_health(service, &options, &server)?;
    instances(server, query, &options).await
}

/// `GET /v1/health/connect/{name}`: the instances through which a service is reached in a service mesh.
async fn connect(
    State(server): State<Server>,
    Name(service): Name<ServiceName>,
    options: Options,
) -> Result<Response, ApiError> {
    options.refuse_namespace()?;
    let query = Query::Connect {
        service,
        checks: true,
        passing: options.passing,
        tags: options.tags.clone(),
        node_meta: options.node_meta.clone(),
    };
    let query = options.filtered(query, Shape::Health, &server)?;
    instances(server, query, &options).await
}

/// `GET /v1/health/ingress/{name}`, and `/v1/catalog/gateway-services/{name}`: there are no gateways, so nothing is behind one.
pub(super) async fn no_gateways(
    State(server): State<Server>,
    Name(_): Name<ServiceName>,
    options: Options,
) -> Result<Response, ApiError> {
    // Nothing is there, and nothing is ever written there: who waits is not woken.
    let query = Query::Key(Key::reserved("gateways").expect("a short constant"));
    let nothing = |_: &Server, answer: &Answer, shown| Reply::shown(answer, shown, Bytes::from_static(b"[]"));
    later::read(server, query, &options, nothing).await
}

/// Instances with their nodes and checks.
async fn instances(server: Server, query: Query, options: &Options) -> Result<Response, ApiError> {
    later::encoded(server, query, options, |encoder, view| {
        encoder.service_health(view)
    })
    .await
}

/// What is asked about the health of a service, by a request for it once or by a stream.
pub(super) fn service_health(
    service: ServiceName,
    options: &Options,
    server: &Server,
) -> Result<Query, ApiError> {
    let query = Query::ServiceHealth {
        namespace: options.namespace.clone(),
        service,
        passing: options.passing,
        tags: options.tags.clone(),
        node_meta: options.node_meta.clone(),
    };
    options.filtered(query, Shape::Health, server)
}

/// `GET /v1/health/checks/{service}`: the checks of a service's instances.
async fn service_checks(
    State(server): State<Server>,
    Name(service): Name<ServiceName>,
    options: Options,
) -> Result<Response, ApiError> {
    let query = Query::ServiceChecks {
        namespace: options.namespace.clone(),
        service,
        node_meta: options.node_meta.clone(),
    };
    checks(server, query, &options).await
}

/// `GET /v1/health/node/{name}`: the checks of a node and of its instances; for its agent as it registered them.
async fn node_checks(
    State(server): State<Server>,
    Name(node): Name<NodeName>,
    options: Options,
) -> Result<Response, ApiError> {
    let query = Query::NodeChecks {
        namespace: options.namespace.clone(),
        node,
    };
    if !options.parameters.has(AS_REGISTERED) {
        return checks(server, query, &options).await;
    }
    let reply = |server: &Server, answer: &Answer, shown| {
        // The view's own bytes are what all others are shown.
        let body = Encoder::new(server.config()).checks_as_registered(&answer.view.view);
        Reply::shown(answer, shown, body)
    };
    later::read(server, query, &options, reply).await
}

/// The parameter by which an agent asks for its node's checks with all that it said of them, to compare.
pub(crate) const AS_REGISTERED: &str = "as-registered";

/// `GET /v1/health/state/{state}`: the checks in a state, or in `any`.
async fn checks_in_state(
    State(server): State<Server>,
    Path(state): Path<String>,
    options: Options,
) -> Result<Response, ApiError> {
    let status = match (state.as_str(), parse_status(&state)) {
        ("any", _) => None,
        (_, Some(status)) => Some(status),
        // Nothing is in a state that there is not.
        _ => {
            let read = ReadOptions {
                index: None,
                ..options.read
            };
            let status = Some(CheckStatus::Unknown);
            let query = Query::ChecksInState {
                namespace: options.namespace.clone(),
                status,
                node_meta: Vec::new(),
            };
            let answer = server.read(query, read).await?;
            let reply = Reply::read(&answer, &options, Bytes::from_static(b"[]"));
            return Ok(reply.into_response());
        }
    };
    let query = Query::ChecksInState {
        namespace: options.namespace.clone(),
        status,
        node_meta: options.node_meta.clone(),
    };
    checks(server, query, &options).await
}

async fn checks(server: Server, query: Query, options: &Options) -> Result<Response, ApiError> {
    let query = options.filtered(query, Shape::Check, &server)?;
    later::encoded(server, query, options, |encoder, view| encoder.checks(view)).await
}
