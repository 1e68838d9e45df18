//! `/v1/acl/…` and `/v1/agent/token/…` while there is no access control: in Consul's words for that.

use axum::{Router, routing::any};
use http::StatusCode;

use super::error::ApiError;
use crate::server::Server;

pub(super) fn routes() -> Router<Server> {
    Router::new()
        .route("/v1/acl/{*rest}", any(disabled))
        .route("/v1/agent/token/{*rest}", any(disabled))
}

async fn disabled() -> ApiError {
    ApiError::new(StatusCode::UNAUTHORIZED, "ACL support disabled")
}
