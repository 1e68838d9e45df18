//! `/v1/coordinate/…`: where nodes are in the network, which nobody measures here: there are no coordinates.

use axum::{Router, extract::State};
use bytes::Bytes;
use http::StatusCode;
use serde_json::json;

use super::{
    encode::to_bytes,
    error::ApiError,
    options::{Name, Options},
    read,
    reply::Reply,
};
use crate::{
    registry::{NodeName, Query},
    server::{Answer, Server},
};

pub(super) fn routes() -> Router<Server> {
    Router::new()
        .route("/v1/coordinate/datacenters", read(datacenters))
        .route("/v1/coordinate/nodes", read(nodes))
        .route("/v1/coordinate/node/{*name}", read(node))
}

/// `GET /v1/coordinate/datacenters`: this one, and no servers of it.
async fn datacenters(State(server): State<Server>) -> Reply {
    Reply::json(&json!([{
        "Datacenter": server.config().datacenter, "AreaID": "wan", "Coordinates": [],
    }]))
}

/// `GET /v1/coordinate/nodes`: none.
async fn nodes(State(server): State<Server>, options: Options) -> Result<Reply, ApiError> {
    let answer = known_nodes(&server, &options).await?;
    Ok(Reply::read(&answer, &options, Bytes::from_static(b"[]")))
}

/// `GET /v1/coordinate/node/{name}`: 404, of whatever node.
async fn node(
    State(server): State<Server>,
    Name(_): Name<NodeName>,
    options: Options,
) -> Result<Reply, ApiError> {
    let answer = known_nodes(&server, &options).await?;
    Ok(Reply::read(&answer, &options, to_bytes(&json!([]))).with_status(StatusCode::NOT_FOUND, ""))
}

/// As new as the list of nodes is, on which coordinates would hang.
async fn known_nodes(server: &Server, options: &Options) -> Result<Answer, ApiError> {
    let query = Query::Nodes {
        node_meta: Vec::new(),
    };
    Ok(server.read(query, options.read).await?)
}
