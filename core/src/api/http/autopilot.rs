//! `/v1/operator/autopilot/…`: how healthy the servers are, and Consul's settings for what keeps them so.
//!
//! The settings are kept under a reserved key; the leader carries them out.

use std::time::Duration;

use axum::{Router, extract::State, routing::get};
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::{
    body::{Fields, JsonBody},
    duration,
    encode::to_bytes,
    error::ApiError,
    identity::server_name,
    kv,
    operator::{leads, led_status},
    options::{Options, WriteOptions},
    prepared::key_value,
    read,
    reply::Reply,
    wrong_method,
};
use crate::{
    raft::RaftStatus,
    registry::{Command, KeyWrite, Operation, Refusal},
    server::{AutopilotSettings, CONSUL_VERSION, PeerReport, Server},
};

pub(super) fn routes() -> Router<Server> {
    Router::new()
        .route(
            "/v1/operator/autopilot/configuration",
            get(configuration)
                .put(configure)
                .fallback(|method: Method| async move { wrong_method(&method, "OPTIONS,GET,PUT") }),
        )
        .route("/v1/operator/autopilot/health", read(health))
        .route("/v1/operator/autopilot/state", read(state))
}

/// `GET /v1/operator/autopilot/configuration`.
async fn configuration(State(server): State<Server>, options: Options) -> Result<Reply, ApiError> {
    let (settings, (create_index, modify_index)) = stored_settings(&server, options.stale()).await?;
    let mut body = shown(&settings);
    body["CreateIndex"] = create_index.into();
    body["ModifyIndex"] = modify_index.into();
    Ok(Reply::json(&body))
}

/// The settings, which are the defaults if nobody stored any, with the indexes at which they were created and changed.
async fn stored_settings(server: &Server, stale: bool) -> Result<(AutopilotSettings, (u64, u64)), ApiError> {
    let stored = server
        .inspect(stale, |registry| key_value(registry, &AutopilotSettings::key()))
        .await?;
    Ok(match &stored {
        None => (AutopilotSettings::default(), (0, 0)),
        Some(stored) => (
            serde_json::from_slice(&stored.value)
                .map_err(|error| ApiError::server_error(format!("stored settings can't be read: {error}")))?,
            (stored.create_index, stored.modify_index),
        ),
    })
}

/// `PUT /v1/operator/autopilot/configuration`, with `?cas` if it was not changed since.
async fn configure(
    State(server): State<Server>,
    options: WriteOptions,
    JsonBody(body): JsonBody,
) -> Result<Reply, ApiError> {
    let write = KeyWrite {
        key: AutopilotSettings::key(),
        value: to_bytes(&parse_autopilot_settings(&body)?),
        flags: 0,
    };
    let operation = match kv::number(&options.parameters, "cas")? {
        Some(index) => Operation::SetKeyIf(write, index),
        None => Operation::SetKey(write),
    };
    let written = server.write(Command::Transact(vec![operation])).await?;
    match written.reply {
        Ok(_) => Ok(Reply::json(&true).with_index(written.index)),
        Err(Refusal::Aborted(_)) => Ok(Reply::json(&false).with_index(written.index)),
        Err(refusal) => Err(refusal.into()),
    }
}

/// The settings of a body, what it leaves out being Consul's defaults.
///
/// # Errors
/// A field is of the wrong kind.
pub fn parse_autopilot_settings(body: &Value) -> Result<AutopilotSettings, ApiError> {
    let fields = Fields::of(body)?;
    let usual = AutopilotSettings::default();
    let period = |name: &str, usual: u64| -> Result<u64, ApiError> {
        let nanos = fields.duration(name)?;
        let nanos = nanos.and_then(|nanos| u64::try_from(nanos).ok());
        Ok(nanos.filter(|nanos| *nanos > 0).unwrap_or(usual))
    };
    let trailing = fields.number("MaxTrailingLogs", 0..=u32::MAX)?;
    let text = |name: &str| fields.text(name).map(|text| text.unwrap_or_default().to_owned());
    Ok(AutopilotSettings {
        cleanup_dead_servers: match fields.has("CleanupDeadServers")? {
            true => fields.flag("CleanupDeadServers")?,
            false => usual.cleanup_dead_servers,
        },
        last_contact_threshold_nanos: period("LastContactThreshold", usual.last_contact_threshold_nanos)?,
        max_trailing_logs: trailing
            .filter(|entries| *entries > 0)
            .map_or(usual.max_trailing_logs, u64::from),
        min_quorum: fields
            .number("MinQuorum", 0..=u32::MAX)?
            .unwrap_or_default()
            .into(),
        server_stabilization_time_nanos: period(
            "ServerStabilizationTime",
            usual.server_stabilization_time_nanos,
        )?,
        redundancy_zone_tag: text("RedundancyZoneTag")?,
        disable_upgrade_migration: fields.flag("DisableUpgradeMigration")?,
        upgrade_version_tag: text("UpgradeVersionTag")?,
    })
}

/// The settings as Consul shows them.
fn shown(settings: &AutopilotSettings) -> Value {
    let period = |nanos: u64| duration::format(Duration::from_nanos(nanos));
    json!({
        "CleanupDeadServers": settings.cleanup_dead_servers,
        "LastContactThreshold": period(settings.last_contact_threshold_nanos),
        "MaxTrailingLogs": settings.max_trailing_logs,
        "MinQuorum": settings.min_quorum,
        "ServerStabilizationTime": period(settings.server_stabilization_time_nanos),
        "RedundancyZoneTag": settings.redundancy_zone_tag,
        "DisableUpgradeMigration": settings.disable_upgrade_migration,
        "UpgradeVersionTag": settings.upgrade_version_tag,
    })
}

/// One server as autopilot judges it: it is healthy if it answers, has not lost its data, and is not far behind.
struct Judged<'a> {
    report: &'a PeerReport,
    leader: bool,
    healthy: bool,
}

fn judge<'a>(
    status: &RaftStatus,
    reports: &'a [PeerReport],
    settings: &AutopilotSettings,
) -> Vec<Judged<'a>> {
    let known = |report: &PeerReport| report.status.as_ref().map(|status| status.last_log_index);
    let newest = reports.iter().filter_map(known).max().unwrap_or_default();
    let judged = reports.iter().map(|report| Judged {
        report,
        leader: leads(status, &report.id),
        healthy: !report.lost_its_data()
            && known(report).is_some_and(|last| last + settings.max_trailing_logs >= newest),
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
        status_name: if status.is_some() && !report.lost_its_data() { "alive" } else { "failed" },
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
async fn health(State(server): State<Server>, options: Options) -> Result<Reply, ApiError> {
    let status = led_status(&server, &options)?;
    let reports = server.cluster().await;
    // This server's own view of them: whether it is healthy is asked where there is no leader, too.
    let (settings, _) = stored_settings(&server, true).await?;
    let judged = judge(&status, &reports, &settings);
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
    Ok(match healthy {
        true => reply,
        false => reply.with_status(StatusCode::TOO_MANY_REQUESTS, "unhealthy"),
    })
}

/// `GET /v1/operator/autopilot/state`.
async fn state(State(server): State<Server>, options: Options) -> Result<Reply, ApiError> {
    let status = led_status(&server, &options)?;
    let reports = server.cluster().await;
    // This server's own view of them: whether it is healthy is asked where there is no leader, too.
    let (settings, _) = stored_settings(&server, true).await?;
    let judged = judge(&status, &reports, &settings);
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
    Ok(Reply::json(&json!({
        "Healthy": judged.iter().all(|server| server.healthy),
        "FailureTolerance": tolerance(&judged),
        "OptimisticFailureTolerance": tolerance(&judged),
        "Servers": servers,
        "Leader": status.known_leader().map_or("", |(id, _)| &id.0),
        "Voters": voters,
    })))
}
