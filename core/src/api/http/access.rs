//! `/v1/acl/…` and `/v1/agent/token/…` while there is no access control: in Consul's words for that.

use axum::{Router, routing::any};
use http::StatusCode;

use super::{error::ApiError, read, reply::Reply};
use crate::server::Server;

pub(super) fn routes() -> Router<Server> {
    Router::new()
        .route("/v1/acl/{*rest}", any(disabled))
        .route("/v1/acl/replication", read(replication))
        .route("/v1/agent/token/{*rest}", any(disabled))
}

async fn disabled() -> ApiError {
    ApiError::new(StatusCode::UNAUTHORIZED, "ACL support disabled")
}

/// `GET /v1/acl/replication`: none.
async fn replication() -> Reply {
    Reply::json(&serde_json::json!({
        "Enabled": false,
        "Running": false,
        "SourceDatacenter": "",
        "ReplicationType": "",
        "ReplicatedIndex": 0,
        "ReplicatedRoleIndex": 0,
        "ReplicatedTokenIndex": 0,
        "LastSuccess": "0001-01-01T00:00:00Z",
        "LastError": "0001-01-01T00:00:00Z",
        "LastErrorMessage": "",
    }))
}
