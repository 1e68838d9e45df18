//! What operators and their machines ask: is it alive, is it ready, how is it doing.

use axum::{Router, extract::State};
use http::StatusCode;

use super::{error::ApiError, host::metrics_text, read, reply::Reply};
use crate::server::Server;

pub(super) fn routes() -> Router<Server> {
    Router::new()
        .route("/livez", read(async || Reply::text("ok\n")))
        .route("/readyz", read(readyz))
        .route("/metrics", read(metrics))
}

/// `GET /readyz`: whether linearizable reads can be served here; 503 with the reason if not.
async fn readyz(State(server): State<Server>) -> Result<Reply, ApiError> {
    match server.ready().await {
        Ok(()) => Ok(Reply::text("ok\n")),
        Err(reason) => Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, reason)),
    }
}

/// `GET /metrics`, in the OpenMetrics text format, which Prometheus reads.
async fn metrics(State(server): State<Server>) -> Reply {
    metrics_text(server.metrics_text())
}
