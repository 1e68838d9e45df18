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
    identity::{CONSUL_VERSION, server_name},
    kv::server_error,
    options::{Options, WriteOptions},
    read,
    reply::Reply,
    write, wrong_method,
};
use crate::{
    raft::{RaftStatus, ServerId},
    server::{PeerReport, Server},
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
        .route("/v1/operator/autopilot/health", read(health))
        .route("/v1/operator/autopilot/state", read(state))
        .route("/v1/operator/usage", read(usage))
        .route(
            "/v1/operator/keyring",
            read(async |_: Request| server_error("Keyring is empty (encryption not enabled)")),
        )
}

/// `GET /v1/operator/raft/configuration`: the members of the Raft cluster.
async fn configuration(State(server): State<Server>, _: Options) -> Reply {
    let status = server.status();
    let matched = |id: &ServerId| match *id == status.id {
        true => status.last_log_index,
        false => status.matched.get(id).copied().unwrap_or_default(),
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
    Reply::json(&json!({ "Servers": servers, "Index": 0 }))
}

fn leads(status: &RaftStatus, id: &ServerId) -> bool {
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

/// One server as autopilot judges it: it is healthy if it answers and is not far behind.
struct Judged<'a> {
    report: &'a PeerReport,
    leader: bool,
    healthy: bool,
}

/// How many entries a healthy server may be behind: autopilot's default in Consul.
const TRAILING_ENTRIES_MAX: u64 = 250;

fn judge<'a>(status: &RaftStatus, reports: &'a [PeerReport]) -> Vec<Judged<'a>> {
    let known = |report: &PeerReport| report.status.as_ref().map(|status| status.last_log_index);
    let newest = reports.iter().filter_map(known).max().unwrap_or_default();
    let judged = reports.iter().map(|report| Judged {
        report,
        leader: leads(status, &report.id),
        healthy: known(report).is_some_and(|last| last + TRAILING_ENTRIES_MAX >= newest),
    });
    judged.collect()
}

/// How many servers may still be lost.
fn tolerance(judged: &[Judged<'_>]) -> usize {
    let voters = judged.iter().filter(|server| server.report.voter);
    let healthy = voters.clone().filter(|server| server.healthy).count();
    healthy.saturating_sub(voters.count() / 2 + 1)
}

fn judged_body(server: &Server, judged: &Judged<'_>, status_name: &str) -> Value {
    let report = judged.report;
    let status = report.status.as_ref();
    json!({
        "ID": report.id.0,
        "Name": server_name(server, &report.id),
        "Address": report.address.raft,
        status_name: if status.is_some() { "alive" } else { "failed" },
        "Version": CONSUL_VERSION,
        "LastContact": format!("{}ms", status.and_then(|status| status.last_contact_ms).unwrap_or_default()),
        "LastTerm": status.map_or(0, |status| status.term),
        "LastIndex": status.map_or(0, |status| status.last_log_index),
        "Healthy": judged.healthy,
        // Since when is not kept.
        "StableSince": "0001-01-01T00:00:00Z",
    })
}

/// `GET /v1/operator/autopilot/health`: 429 if a server is not healthy.
async fn health(State(server): State<Server>, _: Options) -> Reply {
    let (status, reports) = (server.status(), server.cluster().await);
    let judged = judge(&status, &reports);
    let servers = judged.iter().map(|judged| {
        let mut body = judged_body(&server, judged, "SerfStatus");
        body["Leader"] = judged.leader.into();
        body["Voter"] = judged.report.voter.into();
        body
    });
    let healthy = judged.iter().all(|server| server.healthy);
    let reply = Reply::json(&json!({
        "Healthy": healthy,
        "FailureTolerance": tolerance(&judged),
        "Servers": servers.collect::<Vec<_>>(),
    }));
    match healthy {
        true => reply,
        false => reply.with_status(http::StatusCode::TOO_MANY_REQUESTS, "unhealthy"),
    }
}

/// `GET /v1/operator/autopilot/state`.
async fn state(State(server): State<Server>, _: Options) -> Reply {
    let (status, reports) = (server.status(), server.cluster().await);
    let judged = judge(&status, &reports);
    let servers: serde_json::Map<String, Value> = judged
        .iter()
        .map(|judged| {
            let mut body = judged_body(&server, judged, "NodeStatus");
            let voter = judged.report.voter;
            body["ReadReplica"] = false.into();
            body["Status"] = match (judged.leader, voter) {
                (true, _) => "leader",
                (false, true) => "voter",
                (false, false) => "non-voter",
            }
            .into();
            body["Meta"] = json!({ "consul-network-segment": "", "consul-version": CONSUL_VERSION });
            body["NodeType"] = "voter".into();
            (judged.report.id.0.to_string(), body)
        })
        .collect();
    let voters: Vec<_> = status.voters.keys().map(|id| &id.0).collect();
    Reply::json(&json!({
        "Healthy": judged.iter().all(|server| server.healthy),
        "FailureTolerance": tolerance(&judged),
        "OptimisticFailureTolerance": tolerance(&judged),
        "Servers": servers,
        "Leader": status.known_leader().map_or("", |(id, _)| &id.0),
        "Voters": voters,
    }))
}

/// `GET /v1/operator/usage`: how much is registered.
async fn usage(State(server): State<Server>, options: Options) -> Result<Reply, ApiError> {
    use crate::registry::{Query, View};
    let namespace = options.namespace.clone();
    let (services, instances, nodes) = server
        .inspect(options.stale(), |registry| {
            let services = Query::Services {
                namespace: namespace.clone(),
                node_meta: Vec::new(),
            };
            let services = match registry.query(&services) {
                View::Services(services) => services.len(),
                _ => 0,
            };
            let instances = registry.instances();
            let instances = instances
                .filter(|instance| instance.namespace == namespace)
                .count();
            let nodes = match registry.query(&Query::Nodes {
                node_meta: Vec::new(),
            }) {
                View::Nodes(nodes) => nodes.len(),
                _ => 0,
            };
            (services, instances, nodes)
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
    let kinds = [
        "api-gateway",
        "connect-native",
        "connect-proxy",
        "ingress-gateway",
        "mesh-gateway",
        "terminating-gateway",
    ];
    let none: serde_json::Map<String, Value> = kinds
        .into_iter()
        .map(|kind| (kind.to_owned(), 0.into()))
        .collect();
    let mut usage = serde_json::Map::new();
    usage.insert(
        server.config().datacenter.clone(),
        json!({
            "Services": services,
            "ServiceInstances": instances,
            "ConnectServiceInstances": none,
            "BillableServiceInstances": instances,
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
