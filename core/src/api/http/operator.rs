//! `/v1/operator/…`: the cluster, as Consul's operators ask for it. What it shows is what `/v1/raft/…` shows.

use axum::{
    Router,
    extract::{Request, State},
    routing::delete,
};
use http::Method;
use serde_json::{Value, json};

use super::{
    error::ApiError,
    identity::server_name,
    kv::server_error,
    options::{Options, WriteOptions},
    read,
    reply::Reply,
    write, wrong_method,
};
use crate::{
    raft::{RaftStatus, ServerId},
    server::{Server, ServerError},
};

pub(super) fn routes() -> Router<Server> {
    Router::new()
        .route("/v1/operator/raft/configuration", read(configuration))
        .route(
            "/v1/operator/raft/peer",
            delete(remove_peer)
                .fallback(|method: Method| async move { wrong_method(&method, "OPTIONS,DELETE") }),
        )
        .route("/v1/operator/raft/transfer-leader", write(transfer))
        .route("/v1/operator/usage", read(usage))
        .route(
            "/v1/operator/keyring",
            read(async |_: Request| server_error("Keyring is empty (encryption not enabled)")),
        )
}

/// The state of a server as operators ask for it. In Consul the leader answers them: without one there is no answer,
/// unless `?stale` asks for what this server has.
///
/// # Errors
/// No leader is known.
pub(super) fn led_status(server: &Server, options: &Options) -> Result<RaftStatus, ApiError> {
    let status = server.status();
    match status.known_leader().is_some() || options.stale() {
        true => Ok(status),
        false => Err(ServerError::NoLeader.into()),
    }
}

/// `GET /v1/operator/raft/configuration`: the members of the Raft cluster. How far each of them is, the leader says.
async fn configuration(State(server): State<Server>, options: Options) -> Result<Reply, ApiError> {
    let status = led_status(&server, &options)?;
    let told = server.leaders_status().await;
    let told = told.as_ref().unwrap_or(&status);
    let matched = |id: &ServerId| match *id == told.id {
        true => told.last_log_index,
        false => told.matched.get(id).copied().unwrap_or_default(),
    };
    let members = status.voters.iter().map(|member| (member, true));
    let members = members.chain(status.learners.iter().map(|member| (member, false)));
    let servers: Vec<Value> = members
        .map(|((id, address), voter)| {
            json!({
                "ID": id.0,
                "Node": server_name(&server, id),
                "Address": address.raft,
                "Leader": leads(&status, id),
                "ProtocolVersion": "3",
                "Voter": voter,
                "LastIndex": matched(id),
            })
        })
        .collect();
    Ok(Reply::json(&json!({ "Servers": servers, "Index": 0 })))
}

pub(super) fn leads(status: &RaftStatus, id: &ServerId) -> bool {
    status.known_leader().is_some_and(|(leader, _)| leader == id)
}

/// `DELETE /v1/operator/raft/peer?id=` or `?address=`.
async fn remove_peer(State(server): State<Server>, options: WriteOptions) -> Result<Reply, ApiError> {
    let parameters = &options.parameters;
    let status = server.status();
    let mut members = status.voters.iter().chain(&status.learners);
    let id = match (parameters.text("id"), parameters.text("address")) {
        (None, None) => {
            return Err(ApiError::bad_request(
                "Must specify either ?id with the server's ID or ?address with IP:port of peer to remove",
            ));
        }
        (Some(_), Some(_)) => return Err(ApiError::bad_request("Must specify only one of ?id or ?address")),
        (Some(id), None) => match members.find(|(member, _)| *member.0 == *id) {
            Some((id, _)) => id.clone(),
            None => {
                return Err(server_error(format!(
                    "id {id:?} was not found in the Raft configuration"
                )));
            }
        },
        (None, Some(address)) => match members.find(|(_, member)| member.raft == address) {
            Some((id, _)) => id.clone(),
            None => {
                return Err(server_error(format!(
                    "address {address:?} was not found in the Raft configuration"
                )));
            }
        },
    };
    server.remove(id).await?;
    Ok(Reply::empty())
}

/// `PUT /v1/operator/raft/transfer-leader`, with `?id` of the leader to be if it matters who.
async fn transfer(State(server): State<Server>, options: WriteOptions) -> Result<Reply, ApiError> {
    let to = options.parameters.text("id").map(|id| ServerId(id.into()));
    server.transfer(to).await?;
    Ok(Reply::json(&json!({ "Success": true })))
}

/// `GET /v1/operator/usage`: how much is registered.
async fn usage(State(server): State<Server>, options: Options) -> Result<Reply, ApiError> {
    use crate::registry::{Query, View};
    let namespace = options.namespace.clone();
    let kinds = [
        "api-gateway",
        "connect-native",
        "connect-proxy",
        "ingress-gateway",
        "mesh-gateway",
        "terminating-gateway",
    ];
    let own = server.config().servers_service.clone();
    let (services, instances, of_kinds, billable, nodes) = server
        .inspect(options.stale(), |registry| {
            let services = Query::Services {
                namespace: namespace.clone(),
                node_meta: Vec::new(),
            };
            let services = match registry.query(&services) {
                View::Services(services) => services.len(),
                _ => 0,
            };
            let instances: Vec<_> = registry
                .instances()
                .filter(|instance| instance.namespace == namespace)
                .collect();
            let of_kinds = kinds.map(|kind| {
                let counted = instances.iter().filter(|instance| {
                    let is_native = instance.extras.as_ref().is_some_and(|it| it.connect_native);
                    instance.kind() == kind || kind == "connect-native" && is_native
                });
                counted.count()
            });
            let nodes = match registry.query(&Query::Nodes {
                node_meta: Vec::new(),
            }) {
                View::Nodes(nodes) => nodes.len(),
                _ => 0,
            };
            // As Consul counts: what is of no special kind, and no server.
            let plain =
                |it: &&&crate::registry::Instance| it.kind().is_empty() && own.as_ref() != Some(&it.service);
            let billable = instances.iter().filter(plain).count();
            (services, instances.len(), of_kinds, billable, nodes)
        })
        .await?;
    let query = Query::Nodes {
        node_meta: Vec::new(),
    };
    let read = crate::server::ReadOptions {
        index: None,
        ..options.read
    };
    let answer = server.read(query, read).await?;
    let of_kinds: serde_json::Map<String, Value> = kinds
        .into_iter()
        .zip(of_kinds)
        .map(|(kind, count)| (kind.to_owned(), count.into()))
        .collect();
    let mut usage = serde_json::Map::new();
    usage.insert(
        server.config().datacenter.clone(),
        json!({
            "Services": services,
            "ServiceInstances": instances,
            "ConnectServiceInstances": of_kinds,
            "BillableServiceInstances": billable,
            "Nodes": nodes,
        }),
    );
    let body = json!({
        "Usage": usage,
        "Index": answer.index,
        "LastContact": 0,
        "KnownLeader": answer.known_leader,
        "ConsistencyLevel": options.effective_consistency(),
        "NotModified": false,
        "Backend": 0,
        "ResultsFilteredByACLs": false,
    });
    Ok(Reply::read(&answer, &options, super::encode::to_bytes(&body)))
}
