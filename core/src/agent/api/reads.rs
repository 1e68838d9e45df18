//! What the agent knows, told in a server's shapes. These answers come from the agent alone.

use std::{collections::BTreeMap, pin::pin, sync::Arc};

use axum::extract::State;
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};

use crate::{
    agent::{
        AgentConfig, Shared,
        local::{Local, LocalCheck, LocalService},
    },
    api::http::{
        encode::{Encoder, health_status},
        error::ApiError,
        oneself::{self, Member, Oneself},
        options::{Name, Parameters, read_options},
        reply::Reply,
    },
    registry::{Check, CheckKey, CheckStatus, Filter, InstanceId, Record, ServiceName, Shape},
    runtime::{Instant, Runtime},
};

/// `GET /v1/agent/services`: the services by id.
pub(super) async fn services<R: Runtime>(
    State(shared): State<Arc<Shared<R>>>,
    parameters: Parameters,
    headers: HeaderMap,
) -> Result<Reply, ApiError> {
    let namespace = parameters.namespace(&headers)?.unwrap_or_default();
    let filter = parameters.filter(Shape::Service, &shared.config.datacenter)?;
    let encoder = encoder(&shared.config);
    let local = shared.local();
    let services: BTreeMap<&str, _> = local
        .services()
        .filter(|(key, _)| key.namespace == namespace)
        .filter(|(_, service)| Filter::lets_pass(filter.as_ref(), Record::Service(&service.instance)))
        .map(|(key, service)| (key.id.as_str(), encoder.agent_service(&service.instance)))
        .collect();
    Ok(Reply::json(&services))
}

/// `GET /v1/agent/service/{id}`; with `?hash` it answers when the content has another hash, when the service is gone, or
/// after `?wait`.
pub(super) async fn service<R: Runtime>(
    State(shared): State<Arc<Shared<R>>>,
    Name(id): Name<InstanceId>,
    parameters: Parameters,
    headers: HeaderMap,
) -> Result<Reply, ApiError> {
    let key = shared.instance_key(parameters.namespace(&headers)?, id);
    let known = parameters.text("hash");
    let _permit = known.map(|_| shared.may_forward()).transpose()?;
    let until = R::now() + read_options(&parameters)?.wait;
    loop {
        // From before the look on: a change right after it is not missed.
        let mut changed = pin!(shared.news.notified());
        changed.as_mut().enable();
        let shown = shared
            .local()
            .service(&key)
            .map(|service| encoder(&shared.config).agent_service(&service.instance).hashed());
        let Some((service, hash)) = shown else {
            let message = format!("unknown service ID: {}", key.id);
            return Err(ApiError::new(StatusCode::NOT_FOUND, message));
        };
        let left = until.saturating_since(R::now());
        if known != Some(&hash) || left.is_zero() || shared.stopping() {
            return Ok(Reply::json(&service).with_hash(&hash));
        }
        R::timeout(left, changed).await;
    }
}

/// `GET /v1/agent/checks`: the checks by id, the node's own among them.
pub(super) async fn checks<R: Runtime>(
    State(shared): State<Arc<Shared<R>>>,
    parameters: Parameters,
    headers: HeaderMap,
) -> Result<Reply, ApiError> {
    let namespace = parameters.namespace(&headers)?.unwrap_or_default();
    let filter = parameters.filter(Shape::Check, &shared.config.datacenter)?;
    let encoder = encoder(&shared.config);
    let local = shared.local();
    let of_node = shown_of_node(&local).map(|(_, check)| (check, None));
    let of_services = local.services().flat_map(|(_, service)| {
        local
            .checks_of(service)
            .map(move |(_, check)| (check, Some(service)))
    });
    let now = R::now();
    let checks: BTreeMap<String, Value> = of_node
        .chain(of_services)
        .filter(|(check, _)| check.spec.update.namespace == namespace)
        .map(|(check, service)| (shown(check, now), service.map(|service| &service.instance)))
        .filter(|(check, instance)| {
            let service = instance.map(|instance| (&instance.service, instance.tags.as_slice()));
            Filter::lets_pass(filter.as_ref(), Record::Check(check, service))
        })
        .map(|(check, instance)| {
            let shown = encoder.agent_check(&check, instance);
            (check.id.as_str().to_owned(), shown)
        })
        .collect();
    Ok(Reply::json(&checks))
}

/// `GET /v1/agent/health/service/id/{id}`: 200, 429 or 503 by the service's health; `?format=text` for the word.
pub(super) async fn health_by_id<R: Runtime>(
    State(shared): State<Arc<Shared<R>>>,
    Name(id): Name<InstanceId>,
    parameters: Parameters,
    headers: HeaderMap,
) -> Result<Reply, ApiError> {
    let key = shared.instance_key(parameters.namespace(&headers)?, id);
    let local = shared.local();
    Ok(match local.service(&key) {
        Some(service) => {
            let (status, body) = health(&local, &shared.config, service, R::now());
            health_reply(&parameters, health_status(status), status.as_str(), &body)
        }
        None => {
            let body = json!({ "AggregatedStatus": "critical", "Service": null, "Checks": null });
            let reason = format!("ServiceId {} not found", key.id);
            health_reply(&parameters, StatusCode::NOT_FOUND, &reason, &body)
        }
    })
}

/// `GET /v1/agent/health/service/name/{name}`: the same for all instances of a service, by the worst of them.
pub(super) async fn health_by_name<R: Runtime>(
    State(shared): State<Arc<Shared<R>>>,
    Name(name): Name<ServiceName>,
    parameters: Parameters,
    headers: HeaderMap,
) -> Result<Reply, ApiError> {
    let namespace = parameters.namespace(&headers)?.unwrap_or_default();
    let now = R::now();
    let local = shared.local();
    let (statuses, bodies): (Vec<CheckStatus>, Vec<Value>) = local
        .services()
        .filter(|(key, service)| key.namespace == namespace && service.instance.service == name)
        .map(|(_, service)| health(&local, &shared.config, service, now))
        .unzip();
    if statuses.is_empty() {
        let reason = format!("ServiceName {name} Not Found");
        return Ok(health_reply(
            &parameters,
            StatusCode::NOT_FOUND,
            &reason,
            &json!([]),
        ));
    }
    let status = CheckStatus::aggregate(statuses);
    let body = Value::Array(bodies);
    Ok(health_reply(
        &parameters,
        health_status(status),
        status.as_str(),
        &body,
    ))
}

/// `GET /v1/agent/self`: who this agent is, and what it is about.
pub(super) async fn this_agent<R: Runtime>(State(shared): State<Arc<Shared<R>>>) -> Reply {
    let config = &shared.config;
    let local = shared.local();
    let node = local.node();
    let stats = json!({
        "agent": {
            "services": local.services().count().to_string(),
            "checks": local.checks().filter(|(_, check)| !check.is_aliveness()).count().to_string(),
            "in_step": (!local.pending.is_any()).to_string(),
            "servers": config.servers.join(","),
        },
        "consul": {
            "acl": "disabled",
            "known_servers": config.servers.len().to_string(),
            "server": "false",
        },
    });
    Reply::json(&oneself::answer(&Oneself {
        datacenter: &config.datacenter,
        node: config.node.as_str(),
        node_id: &node.id,
        is_server: false,
        join: "",
        member: Member {
            name: config.node.as_str(),
            host: &config.address,
            // Nobody listens for gossip.
            port: 0,
            role: "node",
            datacenter: &config.datacenter,
            id: &node.id,
            more_tags: Vec::new(),
            is_alive: true,
        },
        meta: json!(node.meta),
        stats,
    }))
}

fn encoder(config: &AgentConfig) -> Encoder<'_> {
    Encoder {
        datacenter: &config.datacenter,
        agent_node: &config.node,
    }
}

/// The node's own checks, but for the one by which the servers know that it is alive: as in Consul, they alone show it.
fn shown_of_node(local: &Local) -> impl Iterator<Item = (&CheckKey, &LocalCheck)> {
    local.node_checks().filter(|(_, check)| !check.is_aliveness())
}

/// A check as the registry would have it.
fn shown(check: &LocalCheck, now: Instant) -> Check {
    let update = &check.spec.update;
    Check {
        namespace: update.namespace.clone(),
        node: update.node.clone(),
        id: update.id.clone(),
        name: update.name.clone(),
        instance: update.instance.clone(),
        definition: update.definition.clone(),
        status: check.status_at(now),
        output: check.output_at(now).into_owned(),
        notes: update.notes.clone(),
        renewals: 0,
        create_index: 0,
        modify_index: 0,
    }
}

/// A service's health, in which its node's own checks count, and how it is shown.
fn health(local: &Local, config: &AgentConfig, service: &LocalService, now: Instant) -> (CheckStatus, Value) {
    let encoder = encoder(config);
    let checks: Vec<Check> = shown_of_node(local)
        .chain(local.checks_of(service))
        .map(|(_, check)| shown(check, now))
        .collect();
    let status = CheckStatus::aggregate(checks.iter().map(|check| check.status));
    let bodies: Vec<Value> = checks
        .iter()
        .map(|check| {
            let of_service = check.instance.as_ref().map(|_| &service.instance);
            encoder.agent_health_check(check, of_service)
        })
        .collect();
    let body = json!({
        "AggregatedStatus": status.as_str(),
        "Service": encoder.agent_service(&service.instance),
        "Checks": bodies,
    });
    (status, body)
}

fn health_reply(parameters: &Parameters, status: StatusCode, reason: &str, body: &Value) -> Reply {
    let reply = if parameters.text("format") == Some("text") {
        Reply::text(reason.to_owned())
    } else {
        Reply::json(body)
    };
    reply.with_status(status, reason)
}
