//! `/v1/agent/{self,members,version}`: the servers as Consul's clients see agents, and what is asked of an agent
//! as a whole (`join`, `force-leave`).
//!
//! The members are the Raft members. There is no gossip: a member is alive if it answers within a second.

use axum::{
    Router,
    extract::{Path, State},
};
use http::StatusCode;
use serde_json::{Map, Value, json};
use smol_str::SmolStr;

use super::{
    error::{ApiError, echo},
    options::Options,
    read,
    reply::Reply,
    write,
};
use crate::{
    raft::{Role, ServerAddress, ServerId},
    server::{CONSUL_VERSION, Server},
};

/// Consul's builds without a date have this one.
const BUILD_DATE: &str = "1970-01-01T00:00:01Z";

/// As Serf counts: 1 is alive, 4 is failed.
const ALIVE: u8 = 1;
const FAILED: u8 = 4;

pub(super) fn routes() -> Router<Server> {
    Router::new()
        .route("/", read(async || Reply::text("Sider: see /v1/agent/self\n")))
        .route("/v1/agent/self", read(own))
        .route("/v1/agent/members", read(members))
        .route("/v1/agent/version", read(version))
        .route("/v1/agent/join/{address}", write(join))
        .route("/v1/agent/force-leave/{*name}", write(force_leave))
}

/// The name under which clients know a server: that of the node whose instances it registers while it is alone, as an
/// agent's is in Consul; else its id.
pub(super) fn server_name(server: &Server, id: &ServerId) -> String {
    let status = server.status();
    match status.voters.len() + status.learners.len() {
        0 | 1 => server.config().agent_node.as_str().to_owned(),
        _ => id.0.to_string(),
    }
}

/// `GET /v1/agent/self`.
async fn own(State(server): State<Server>) -> Reply {
    let config = server.config();
    let status = server.status();
    let name = config.agent_node.as_str();
    let leads = status.role == Role::Leader;
    let raft_address = &server.address().raft;
    Reply::json(&json!({
        "Config": {
            "Datacenter": config.datacenter,
            "PrimaryDatacenter": config.datacenter,
            "NodeName": name,
            "NodeID": config.agent_node_id,
            "Revision": "",
            "Server": true,
            "Version": CONSUL_VERSION,
            "BuildDate": BUILD_DATE,
        },
        // What is asked of it by clients: where to join.
        "DebugConfig": {
            "Datacenter": config.datacenter,
            "NodeName": name,
            "NodeID": config.agent_node_id,
            "ServerMode": true,
            "ACLsEnabled": false,
            "SerfAdvertiseAddrLAN": format!("tcp://{raft_address}"),
            "RPCAdvertiseAddr": format!("tcp://{raft_address}"),
        },
        "Stats": {
            "consul": {
                "acl": "disabled",
                "bootstrap": (status.voters.len() == 1).to_string(),
                "known_datacenters": "1",
                "leader": leads.to_string(),
                "leader_addr": status.known_leader().map_or("", |(_, address)| &address.raft),
                "server": "true",
            },
            "raft": {
                "applied_index": status.applied_index.to_string(),
                "commit_index": status.commit_index.to_string(),
                "last_log_index": status.last_log_index.to_string(),
                "num_peers": status.voters.len().saturating_sub(1).to_string(),
                "state": if leads { "Leader" } else { "Follower" },
                "term": status.term.to_string(),
            },
        },
        "Member": member(&server, &status.id, server.address(), true, false),
        "Meta": { "consul-network-segment": "", "consul-version": CONSUL_VERSION },
    }))
}

/// `GET /v1/agent/members`; `?wan` names them with their datacenter.
async fn members(State(server): State<Server>, options: Options) -> Result<Reply, ApiError> {
    if options.parameters.text("filter").is_some() {
        return Err(ApiError::bad_request(
            "Invalid query parameter: \"filter\" is not supported for members: expected a request without it",
        ));
    }
    let wan = options.parameters.flag("wan")?;
    let reports = server.cluster().await;
    let members: Vec<_> = reports
        .iter()
        .map(|report| member(&server, &report.id, &report.address, report.status.is_some(), wan))
        .collect();
    Ok(Reply::json(&members))
}

fn member(server: &Server, id: &ServerId, address: &ServerAddress, alive: bool, wan: bool) -> Value {
    let config = server.config();
    let (host, port) = split_address(&address.raft);
    let name = server_name(server, id);
    let mut tags = Map::new();
    let alone = server.status().voters.len() == 1;
    for (tag, value) in [
        ("acls", "0".to_owned()),
        ("build", format!("{CONSUL_VERSION}:")),
        ("dc", config.datacenter.clone()),
        ("id", id.0.to_string()),
        ("port", port.to_string()),
        ("raft_vsn", "3".to_owned()),
        ("role", "consul".to_owned()),
        ("segment", String::new()),
        ("vsn", "2".to_owned()),
        ("vsn_max", "3".to_owned()),
        ("vsn_min", "2".to_owned()),
    ] {
        tags.insert(tag.to_owned(), value.into());
    }
    if alone {
        tags.insert("bootstrap".to_owned(), "1".into());
    }
    json!({
        "Name": if wan { format!("{name}.{}", config.datacenter) } else { name },
        "Addr": host,
        "Port": port,
        "Tags": tags,
        "Status": if alive { ALIVE } else { FAILED },
        "ProtocolMin": 1,
        "ProtocolMax": 5,
        "ProtocolCur": 2,
        "DelegateMin": 2,
        "DelegateMax": 5,
        "DelegateCur": 4,
    })
}

/// The host and the port of an address; port 0 where it has none.
pub(super) fn split_address(address: &str) -> (&str, u16) {
    match address.rsplit_once(':') {
        Some((host, port)) => (host.trim_matches(['[', ']']), port.parse().unwrap_or(0)),
        None => (address, 0),
    }
}

/// `GET /v1/agent/version`.
async fn version() -> Reply {
    Reply::json(&json!({
        "SHA": "", "BuildDate": BUILD_DATE, "HumanVersion": CONSUL_VERSION, "FIPS": "",
    }))
}

/// `PUT /v1/agent/join/{address}`: makes the server at this Raft address a member; nothing to do for one that is.
async fn join(
    State(server): State<Server>,
    Path(address): Path<String>,
    _: Options,
) -> Result<Reply, ApiError> {
    let status = server.status();
    let mut members = status.voters.values().chain(status.learners.values());
    if members.any(|member| member.raft == address) {
        return Ok(Reply::empty());
    }
    let failed = |reason: String| {
        ApiError::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("1 error occurred: * Failed to join {}: {reason}", echo(&address)),
        )
    };
    let Some(id) = server.name_of(&address).await else {
        return Err(failed("nobody answers there".to_owned()));
    };
    let joined = server
        .join(
            id,
            ServerAddress {
                raft: address.as_str().into(),
                http: SmolStr::default(),
            },
        )
        .await;
    joined.map_err(|error| failed(error.to_string()))?;
    Ok(Reply::empty())
}

/// `PUT /v1/agent/force-leave/{name}`: takes a member away that does not answer; one that does stays.
async fn force_leave(
    State(server): State<Server>,
    Path(name): Path<String>,
    _: Options,
) -> Result<Reply, ApiError> {
    let bare = name
        .strip_suffix(&format!(".{}", server.config().datacenter))
        .unwrap_or(&name);
    let reports = server.cluster().await;
    let named = reports
        .iter()
        .find(|report| *report.id.0 == *bare || server_name(&server, &report.id) == bare);
    match named {
        None => Err(ApiError::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("agent: No node found with name '{}'", echo(&name)),
        )),
        Some(report) if report.status.is_some() => Ok(Reply::empty()),
        Some(report) => {
            server.remove(report.id.clone()).await?;
            Ok(Reply::empty())
        }
    }
}
