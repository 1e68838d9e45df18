//! `/v1/agent/service/{id}` at a server: one instance of the shared node, with the hash of its content. Who names the
//! hash that he has waits for another one.

use axum::extract::State;
use http::StatusCode;

use super::{
    agent::instance_key,
    encode::Encoder,
    error::ApiError,
    options::{Name, Options},
    reply::Reply,
};
use crate::{
    registry::{InstanceId, Query},
    server::{ReadOptions, Server},
};

/// `GET /v1/agent/service/{id}`; with `?hash` it answers when the content has another hash, when the instance is gone, or
/// after `?wait`.
pub(super) async fn service(
    State(server): State<Server>,
    Name(id): Name<InstanceId>,
    options: Options,
) -> Result<Reply, ApiError> {
    let encoder = Encoder::new(server.config());
    let key = instance_key(&server, Some(options.namespace.clone()), id);
    let on_node = Query::NodeServices {
        namespace: key.namespace.clone(),
        node: key.node.clone(),
    };
    let known = options.parameters.text("hash");
    let until = server.now() + options.read.wait;
    loop {
        let (index, seen, service) = server
            .inspect(options.stale(), |registry| {
                let service = registry
                    .instance(&key)
                    .map(|instance| encoder.agent_service(instance));
                (
                    registry.index(),
                    registry.version(&on_node.topic()).index,
                    service,
                )
            })
            .await?;
        let Some(service) = service else {
            return Err(ApiError::new(
                StatusCode::NOT_FOUND,
                format!("unknown service ID: {}", key.id),
            ));
        };
        let (service, hash) = service.hashed();
        let left = until.saturating_since(server.now());
        if known != Some(&hash) || left.is_zero() {
            return Ok(Reply::json(&service).with_index(index).with_hash(&hash));
        }
        // Whatever changes on the node ends this, and what it was is looked at again.
        let read = ReadOptions {
            index: Some(seen),
            wait: left,
            ..options.read
        };
        server.read(on_node.clone(), read).await?;
    }
}
