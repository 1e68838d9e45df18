//! `/v1/raft/…`, `/v1/cluster/…` and `/v1/status/…`: the servers themselves.

use std::collections::BTreeMap;

use axum::{Router, extract::State};
use serde_json::{Value, json};

use super::{
    body::{Fields, JsonBody, OptionalJsonBody},
    error::{ApiError, echo},
    options::Options,
    read,
    reply::Reply,
    write,
};
use crate::{
    limits::{ADDRESS_BYTES_MAX, NAME_BYTES_MAX},
    raft::{RaftStatus, Role, ServerAddress, ServerId},
    server::{PeerReport, Server},
};

pub(super) fn routes() -> Router<Server> {
    Router::new()
        .route("/v1/raft/join", write(join))
        .route("/v1/raft/introduction", read(introduction))
        .route("/v1/raft/remove", write(remove))
        .route("/v1/raft/transfer", write(transfer))
        .route("/v1/raft/stats", read(stats))
        .route("/v1/raft/configuration", read(configuration))
        .route("/v1/cluster/status", read(status))
        .route("/v1/status/leader", read(leader))
        .route("/v1/status/peers", read(peers))
}

/// `POST /v1/raft/join` with `{"ID", "Addr"}`, and `"HTTP"` if the new server should not be asked for it.
async fn join(State(server): State<Server>, JsonBody(body): JsonBody) -> Result<Reply, ApiError> {
    let fields = Fields::of(&body)?;
    let id = required_id(&fields)?;
    let Some(raft) = host_and_port(&fields, &["Addr", "Address", "RaftAddr"])? else {
        return Err(fields.error(
            "Addr",
            "missing: expected the host:port of the server's Raft transport",
        ));
    };
    let http = host_and_port(&fields, &["HTTP", "HTTPAddr"])?.unwrap_or_default();
    let address = ServerAddress {
        raft: raft.into(),
        http: http.into(),
    };
    server.join(id.clone(), address).await?;
    Ok(Reply::json(&json!({ "ID": id.0 })))
}

/// `GET /v1/raft/introduction`: who this server is, for those with which it is to begin a cluster.
async fn introduction(State(server): State<Server>) -> Reply {
    Reply::json(&server.introduction())
}

/// `POST /v1/raft/remove` with `{"ID"}`.
async fn remove(State(server): State<Server>, JsonBody(body): JsonBody) -> Result<Reply, ApiError> {
    let id = required_id(&Fields::of(&body)?)?;
    server.remove(id.clone()).await?;
    Ok(Reply::json(&json!({ "ID": id.0 })))
}

/// `POST /v1/raft/transfer`, with `{"ID"}` of the leader to be if it matters who.
async fn transfer(
    State(server): State<Server>,
    OptionalJsonBody(body): OptionalJsonBody,
) -> Result<Reply, ApiError> {
    let to = match &body {
        Some(body) => optional_id(&Fields::of(body)?)?,
        None => None,
    };
    server.transfer(to).await?;
    Ok(Reply::json(&json!({})))
}

/// `GET /v1/raft/stats`: what this server knows, at once.
async fn stats(State(server): State<Server>) -> Reply {
    let status = server.status();
    let (digest_index, digest) = server.digest();
    Reply::json(&json!({
        "id": status.id.0,
        "disk": status.disk.to_string(),
        "state": role(status.role),
        "term": status.term,
        "leader": status.known_leader().map_or("", |(id, _)| &id.0),
        "leader_addr": status.known_leader().map_or("", |(_, address)| &address.raft),
        "last_log_index": status.last_log_index,
        "commit_index": status.commit_index,
        "applied_index": status.applied_index,
        "snapshot_index": status.snapshot_index,
        "purged_index": status.purged_index,
        "voters": ids(&status.voters),
        "learners": ids(&status.learners),
        "last_contact_ms": status.last_contact_ms,
        "elections": status.elections,
        "digest": hex(digest),
        "digest_index": digest_index,
        "fatal": status.fatal,
        "version": env!("CARGO_PKG_VERSION"),
        "command_version": server.command_version(),
    }))
}

/// `GET /v1/raft/configuration`: the members, as this server knows them.
async fn configuration(State(server): State<Server>) -> Reply {
    let status = server.status();
    let member = |(id, address): (&ServerId, &ServerAddress), voter: bool| {
        json!({
            "id": id.0,
            "disk": status.disks.get(id).map(ToString::to_string),
            "raft_addr": address.raft,
            "http_addr": address.http,
            "leader": is_leader(&status, id),
            "voter": voter,
            "matched_index": status.matched.get(id),
        })
    };
    let voters = status.voters.iter().map(|entry| member(entry, true));
    let learners = status.learners.iter().map(|entry| member(entry, false));
    let servers: Vec<_> = voters.chain(learners).collect();
    Reply::json(&json!({ "servers": servers, "commit_index": status.commit_index }))
}

/// `GET /v1/cluster/status`: every server, as it answers for itself within a second.
async fn status(State(server): State<Server>) -> Reply {
    let reports = server.cluster().await;
    let newest = reports
        .iter()
        .filter_map(|report| report.status.as_ref().map(|status| status.last_log_index))
        .max()
        .unwrap_or_default();
    let servers: Vec<_> = reports
        .iter()
        .map(|report| server_status(report, newest))
        .collect();
    let status = server.status();
    let leader = status.known_leader();
    Reply::json(&json!({
        "leader": leader.map_or("", |(id, _)| &id.0),
        "command_version": server.command_version(),
        "servers": servers,
    }))
}

/// One server; what it did not answer is `null`.
fn server_status(report: &PeerReport, newest: u64) -> Value {
    let status = report.status.as_ref();
    json!({
        "id": report.id.0,
        "raft_addr": report.address.raft,
        "http_addr": report.address.http,
        "reachable": status.is_some(),
        // A server on another disk than the one that was added says of itself what is true of no member.
        "lost_data": report.lost_its_data(),
        "role": status.map_or("unknown", |status| role(status.role)),
        "voter": report.voter,
        "term": status.map(|status| status.term),
        "last_log_index": status.map(|status| status.last_log_index),
        "commit_index": status.map(|status| status.commit_index),
        "applied_index": status.map(|status| status.applied_index),
        "lag": status.map(|status| newest.saturating_sub(status.last_log_index)),
        "digest": report.digest.map(hex),
        "version": report.version,
        "command_version": report.command_version,
    })
}

/// `GET /v1/status/leader`: the Raft address of the leader; empty when there is none.
async fn leader(State(server): State<Server>, _: Options) -> Reply {
    let status = server.status();
    let leader = status.known_leader();
    Reply::json(leader.map_or("", |(_, address)| &address.raft))
}

/// `GET /v1/status/peers`: the Raft addresses of the voters.
async fn peers(State(server): State<Server>, _: Options) -> Reply {
    let status = server.status();
    let addresses: Vec<_> = status.voters.values().map(|address| &address.raft).collect();
    Reply::json(&addresses)
}

fn is_leader(status: &RaftStatus, id: &ServerId) -> bool {
    status.leader.as_ref().is_some_and(|(leader, _)| leader == id)
}

fn ids(servers: &BTreeMap<ServerId, ServerAddress>) -> Vec<&str> {
    servers.keys().map(|id| id.0.as_str()).collect()
}

fn hex(digest: u128) -> String {
    format!("{digest:032x}")
}

fn role(role: Role) -> &'static str {
    match role {
        Role::Leader => "Leader",
        Role::Follower => "Follower",
        Role::Candidate => "Candidate",
        Role::Learner => "Learner",
        Role::Shutdown => "Shutdown",
    }
}

fn required_id(fields: &Fields<'_>) -> Result<ServerId, ApiError> {
    optional_id(fields)?.ok_or_else(|| fields.error("ID", "missing: expected the id of a server"))
}

fn optional_id(fields: &Fields<'_>) -> Result<Option<ServerId>, ApiError> {
    let Some(id) = fields.text("ID")? else {
        return Ok(None);
    };
    if id.len() > NAME_BYTES_MAX || id.contains(char::is_control) {
        return Err(fields.error(
            "ID",
            format!(
                "expected at most {NAME_BYTES_MAX} bytes without control characters, got {:?}",
                echo(id)
            ),
        ));
    }
    Ok(Some(ServerId(id.into())))
}

/// An address that can be connected to.
fn host_and_port(fields: &Fields<'_>, names: &[&str]) -> Result<Option<String>, ApiError> {
    let Some(address) = fields.first_text(names)? else {
        return Ok(None);
    };
    let parts = address
        .rsplit_once(':')
        .filter(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0));
    if parts.is_none() || address.len() > ADDRESS_BYTES_MAX || address.contains(char::is_whitespace) {
        return Err(fields.error(names[0], format!("expected host:port, got {:?}", echo(address))));
    }
    Ok(Some(address.to_owned()))
}
