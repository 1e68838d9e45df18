//! `/v1/agent/{self,members,version}`: the servers as Consul's clients see agents, and what is asked of an agent
//! as a whole (`join`, `force-leave`).
//!
//! The members are the Raft members. There is no gossip: a member is alive if it answers within a second.

use axum::{
    Router,
    extract::{Path, State},
};
use http::StatusCode;
use serde_json::json;
use smol_str::SmolStr;

use super::{
    error::{ApiError, echo},
    oneself::{self, BUILD_DATE, Member, Oneself},
    options::Options,
    read,
    reply::Reply,
    write,
};
use crate::{
    raft::{Role, ServerAddress, ServerId},
    registry::{CheckStatus, Command, Deregister, Namespace, NodeName, Refusal},
    server::{CONSUL_VERSION, Server, split_address},
};

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
    let leads = status.role == Role::Leader;
    let stats = json!({
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
    });
    let name = server_name(&server, &status.id);
    let mut meta = json!(config.agent_node_meta);
    meta["consul-network-segment"] = "".into();
    meta["consul-version"] = CONSUL_VERSION.into();
    Reply::json(&oneself::answer(&Oneself {
        datacenter: &config.datacenter,
        node: config.agent_node.as_str(),
        node_id: &config.agent_node_id,
        is_server: true,
        join: &server.address().raft,
        member: member(&server, &name, &status.id, server.address(), true),
        meta,
        stats,
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
        .map(|report| {
            let mut name = server_name(&server, &report.id);
            if wan {
                name = format!("{name}.{}", server.config().datacenter);
            }
            let alive = report.status.is_some() && !report.lost_its_data();
            oneself::member(&member(&server, &name, &report.id, &report.address, alive))
        })
        .collect();
    Ok(Reply::json(&members))
}

fn member<'a>(
    server: &'a Server,
    name: &'a str,
    id: &'a ServerId,
    address: &'a ServerAddress,
    is_alive: bool,
) -> Member<'a> {
    let (host, port) = split_address(&address.raft);
    let mut more_tags = vec![("port", port.to_string()), ("raft_vsn", "3".to_owned())];
    if server.status().voters.len() == 1 {
        more_tags.push(("bootstrap", "1".to_owned()));
    }
    Member {
        name,
        host,
        port,
        role: "consul",
        datacenter: &server.config().datacenter,
        id: &id.0,
        more_tags,
        is_alive,
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

/// `PUT /v1/agent/force-leave/{name}`: takes a server away that does not answer, or an agent's node that is not alive any more;
/// what is alive stays.
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
        None => force_agent_out(&server, bare, &name).await,
        Some(report) if report.status.is_some() && !report.lost_its_data() => Ok(Reply::empty()),
        Some(report) => {
            server.remove(report.id.clone()).await?;
            Ok(Reply::empty())
        }
    }
}

/// Takes the node of an agent away of which the servers know that it is not alive, as Consul's take away failed members.
async fn force_agent_out(server: &Server, bare: &str, name: &str) -> Result<Reply, ApiError> {
    let node = NodeName::parse(bare).ok();
    let alive = server
        .inspect(false, |registry| {
            let default = Namespace::default();
            let checks = node
                .iter()
                .flat_map(|node| registry.checks_of_node(&default, node));
            let mut alive = checks.filter(|check| check.is_aliveness());
            alive.next().map(|check| check.status)
        })
        .await?;
    match (node, alive) {
        (Some(node), Some(CheckStatus::Critical)) => {
            let gone = server.write(Command::Deregister(Deregister::Node(node))).await?;
            match gone.reply {
                // Somebody was faster.
                Ok(_) | Err(Refusal::UnknownNode(_)) => Ok(Reply::empty()),
                Err(refusal) => Err(refusal.into()),
            }
        }
        (_, Some(_)) => Ok(Reply::empty()),
        (_, None) => Err(ApiError::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("agent: No node found with name '{}'", echo(name)),
        )),
    }
}
