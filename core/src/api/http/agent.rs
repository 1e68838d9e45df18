//! `/v1/agent/…` at a server: instances of the one logical node that all servers of the cluster share.

use std::collections::BTreeMap;

use axum::{Router, extract::State};
use http::StatusCode;
use serde_json::{Value, json};

use super::{
    agent_service::service,
    body::JsonBody,
    commit,
    encode::{self, Encoder},
    error::ApiError,
    options::{Name, Options, WriteOptions},
    read,
    reply::Reply,
    requests::{
        InstanceReference, Place, parse_check, parse_check_update, parse_deregistration, parse_heartbeat,
        parse_service,
    },
    write,
};
use crate::{
    registry::{
        Check, CheckId, CheckKey, CheckStatus, CheckTarget, Command, Deregister, Filter, Instance,
        InstanceId, InstanceKey, Namespace, NodeName, Query, Record, Registration, Registry,
        Reply as Outcome, ServiceName, Shape, View,
    },
    server::{Renewal, Server},
};

pub(super) fn routes() -> Router<Server> {
    Router::new()
        .route("/v1/agent/services", read(services))
        .route("/v1/agent/service/register", write(register))
        .route("/v1/agent/service/deregister", write(deregister_by_body))
        .route(
            "/v1/agent/service/deregister/",
            write(async || ApiError::unknown_instance("")),
        )
        .route("/v1/agent/service/deregister/{*id}", write(deregister))
        .route("/v1/agent/service/heartbeat", write(heartbeat_by_body))
        .route(
            "/v1/agent/service/heartbeat/",
            write(async || ApiError::unknown_instance("")),
        )
        .route("/v1/agent/service/heartbeat/{*id}", write(heartbeat))
        .route(
            "/v1/agent/service/",
            read(async || ApiError::unknown_instance("")),
        )
        .route("/v1/agent/service/{*id}", read(service))
        .route("/v1/agent/checks", read(checks))
        .route("/v1/agent/check/register", write(register_check))
        .route(
            "/v1/agent/check/deregister/",
            write(async || ApiError::unknown_check("")),
        )
        .route("/v1/agent/check/deregister/{*id}", write(deregister_check))
        .route("/v1/agent/check/pass/{*id}", write(pass))
        .route("/v1/agent/check/warn/{*id}", write(warn))
        .route("/v1/agent/check/fail/{*id}", write(fail))
        .route("/v1/agent/check/update/{*id}", write(update))
        .route(
            "/v1/agent/health/service/id/",
            read(async || ApiError::server_error("Missing serviceID")),
        )
        .route("/v1/agent/health/service/id/{*id}", read(health_by_id))
        .route(
            "/v1/agent/health/service/name/",
            read(async || ApiError::bad_request("Missing service Name")),
        )
        .route("/v1/agent/health/service/name/{*name}", read(health_by_name))
}

/// Where registrations through this API go.
pub(super) fn place(server: &Server, options: &WriteOptions) -> Place {
    Place {
        node: server.agent_node(),
        namespace: options.namespace.clone(),
        scripts: server.config().script_checks,
    }
}

/// `PUT /v1/agent/service/register`: in the short form or in Consul's.
async fn register(
    State(server): State<Server>,
    options: WriteOptions,
    JsonBody(body): JsonBody,
) -> Result<Reply, ApiError> {
    let mut registration = parse_service(&body, &place(&server, &options))?;
    registration.replace_checks |= options.parameters.flag("replace-existing-checks")?;
    server.locate(&mut registration);
    commit_registration(&server, registration).await
}

/// `PUT /v1/agent/check/register`: a check of an instance or of the node.
async fn register_check(
    State(server): State<Server>,
    options: WriteOptions,
    JsonBody(body): JsonBody,
) -> Result<Reply, ApiError> {
    let registration = parse_check(&body, &place(&server, &options))?;
    let of = registration
        .checks
        .first()
        .and_then(|check| check.instance.clone());
    let registered = commit_registration(&server, registration).await;
    registered.map_err(|error| match of {
        Some(id) if error.status == StatusCode::NOT_FOUND => ApiError::no_such_service(id.as_str()),
        _ => error,
    })
}

/// Answers with the index and the ids of the checks.
async fn commit_registration(server: &Server, registration: Registration) -> Result<Reply, ApiError> {
    let (index, outcome) = commit(server, Command::Register(vec![registration])).await?;
    let ids = match outcome {
        Outcome::Registered(ids) => ids.into_iter().next().unwrap_or_default(),
        other => unreachable!("a registration was answered with {other:?}"),
    };
    let ids: Vec<_> = ids.iter().map(CheckId::as_str).collect();
    Ok(Reply::encoded(encode::registered(index, ids)).with_index(index))
}

/// `PUT /v1/agent/service/deregister/{id}`.
async fn deregister(
    State(server): State<Server>,
    Name(id): Name<InstanceId>,
    options: WriteOptions,
) -> Result<Reply, ApiError> {
    let unknown = ApiError::unknown_instance(id.as_str());
    let key = instance_key(&server, options.namespace, id);
    commit_deregistration(&server, Deregister::Instance { key, service: None }, unknown).await
}

/// `PUT /v1/agent/service/deregister` with `{ns, service, id}`.
async fn deregister_by_body(
    State(server): State<Server>,
    options: WriteOptions,
    JsonBody(body): JsonBody,
) -> Result<Reply, ApiError> {
    let deregister = parse_deregistration(&body, &place(&server, &options))?;
    let unknown = match &deregister {
        Deregister::Instance { key, .. } => ApiError::unknown_instance(key.id.as_str()),
        Deregister::Node(_) | Deregister::Check(_) => unreachable!("an instance was parsed"),
    };
    commit_deregistration(&server, deregister, unknown).await
}

/// `PUT /v1/agent/check/deregister/{id}`.
async fn deregister_check(
    State(server): State<Server>,
    Name(id): Name<CheckId>,
    options: WriteOptions,
) -> Result<Reply, ApiError> {
    let unknown = ApiError::unknown_check(id.as_str());
    let key = check_key(&server, options.namespace, id);
    commit_deregistration(&server, Deregister::Check(key), unknown).await
}

/// Answers with the index, or `unknown` if nothing was there.
async fn commit_deregistration(
    server: &Server,
    deregister: Deregister,
    unknown: ApiError,
) -> Result<Reply, ApiError> {
    match commit(server, Command::Deregister(deregister)).await? {
        (_, Outcome::Deregistered(false)) => Err(unknown),
        (index, _) => Ok(Reply::json(&json!({ "Index": index })).with_index(index)),
    }
}

/// `PUT /v1/agent/service/heartbeat/{id}`: renews all TTL checks of an instance.
async fn heartbeat(
    State(server): State<Server>,
    Name(id): Name<InstanceId>,
    options: WriteOptions,
) -> Result<Reply, ApiError> {
    let key = instance_key(&server, options.namespace, id);
    renew(&server, vec![passing(CheckTarget::TtlChecksOf(key))]).await
}

/// `PUT /v1/agent/service/heartbeat` with `{ns, service, address, port}`: the same by where the instance is.
async fn heartbeat_by_body(
    State(server): State<Server>,
    options: WriteOptions,
    JsonBody(body): JsonBody,
) -> Result<Reply, ApiError> {
    let keys = match parse_heartbeat(&body, &place(&server, &options))? {
        InstanceReference::Key(key) => vec![key],
        InstanceReference::At {
            namespace,
            service,
            address,
            port,
        } => {
            let look = |registry: &Registry| instances_at(registry, &namespace, &service, &address, port);
            let keys = server.inspect(false, look).await?;
            if keys.is_empty() {
                return Err(ApiError::new(
                    StatusCode::NOT_FOUND,
                    format!(
                        "Unknown instance of service {:?} at \"{address}:{port}\"",
                        service.as_str()
                    ),
                ));
            }
            keys
        }
    };
    let renewals = keys.into_iter().map(|key| passing(CheckTarget::TtlChecksOf(key)));
    renew(&server, renewals.collect()).await
}

/// The instances of a service whose own address, or else their node's, and port are these.
fn instances_at(
    registry: &Registry,
    namespace: &Namespace,
    service: &ServiceName,
    address: &str,
    port: u16,
) -> Vec<InstanceKey> {
    let query = Query::CatalogService {
        namespace: namespace.clone(),
        service: service.clone(),
        tags: Vec::new(),
        node_meta: Vec::new(),
    };
    let View::Instances(entries) = registry.query(&query) else {
        return Vec::new();
    };
    entries
        .into_iter()
        .filter(|entry| {
            let own = [&entry.instance.address, &entry.node.address];
            let own = own.into_iter().find(|own| !own.is_empty());
            own.is_none_or(|own| own == address || address.is_empty() && entry.instance.address.is_empty())
                && entry.instance.port == port
        })
        .map(|entry| entry.instance.key())
        .collect()
}

/// `PUT /v1/agent/check/pass/{id}`.
async fn pass(
    State(server): State<Server>,
    Name(id): Name<CheckId>,
    options: WriteOptions,
) -> Result<Reply, ApiError> {
    report(&server, id, options, CheckStatus::Passing).await
}

/// `PUT /v1/agent/check/warn/{id}`.
async fn warn(
    State(server): State<Server>,
    Name(id): Name<CheckId>,
    options: WriteOptions,
) -> Result<Reply, ApiError> {
    report(&server, id, options, CheckStatus::Warning).await
}

/// `PUT /v1/agent/check/fail/{id}`.
async fn fail(
    State(server): State<Server>,
    Name(id): Name<CheckId>,
    options: WriteOptions,
) -> Result<Reply, ApiError> {
    report(&server, id, options, CheckStatus::Critical).await
}

/// Sets a status with `?note` as its output; without a note the output of before goes, as in Consul.
async fn report(
    server: &Server,
    id: CheckId,
    options: WriteOptions,
    status: CheckStatus,
) -> Result<Reply, ApiError> {
    let output = super::requests::cut_output(options.parameters.text("note").unwrap_or_default());
    let target = CheckTarget::Check(check_key(server, options.namespace, id));
    let output = Some(output);
    renew(
        server,
        vec![Renewal {
            target,
            status,
            output,
        }],
    )
    .await
}

/// `PUT /v1/agent/check/update/{id}` with `{Status, Output}`.
async fn update(
    State(server): State<Server>,
    Name(id): Name<CheckId>,
    options: WriteOptions,
    JsonBody(body): JsonBody,
) -> Result<Reply, ApiError> {
    let (status, output) = parse_check_update(&body)?;
    let target = CheckTarget::Check(check_key(&server, options.namespace, id));
    let output = Some(output);
    renew(
        &server,
        vec![Renewal {
            target,
            status,
            output,
        }],
    )
    .await
}

fn passing(target: CheckTarget) -> Renewal {
    Renewal {
        target,
        status: CheckStatus::Passing,
        output: Some(String::new()),
    }
}

/// Renews, and answers with the first refusal if there is one.
async fn renew(server: &Server, renewals: Vec<Renewal>) -> Result<Reply, ApiError> {
    let renewed = server.renew(renewals).await?;
    for outcome in renewed.outcomes {
        outcome?;
    }
    Ok(Reply::json(&json!({ "Index": renewed.index })).with_index(renewed.index))
}

/// `GET /v1/agent/services`: the node's instances by id.
async fn services(State(server): State<Server>, options: Options) -> Result<Reply, ApiError> {
    let filter = options.filter(Shape::Service, &server)?;
    let encoder = Encoder::new(server.config());
    let (index, services) = server
        .inspect(options.stale(), |registry| {
            let services: BTreeMap<_, _> = registry
                .instances_of_node(&options.namespace, encoder.agent_node)
                .filter(|instance| !is_servers_own(&server, instance))
                .filter(|instance| Filter::lets_pass(filter.as_ref(), Record::Service(instance)))
                .map(|instance| (instance.id.as_str().to_owned(), encoder.agent_service(instance)))
                .collect();
            (registry.index(), services)
        })
        .await?;
    Ok(Reply::json(&services).with_index(index))
}

/// `GET /v1/agent/checks`: the node's checks by id.
async fn checks(State(server): State<Server>, options: Options) -> Result<Reply, ApiError> {
    let filter = options.filter(Shape::Check, &server)?;
    let encoder = Encoder::new(server.config());
    let (index, checks) = server
        .inspect(options.stale(), |registry| {
            let checks: BTreeMap<_, _> = registry
                .checks_of_node(&options.namespace, encoder.agent_node)
                .filter(|check| !check.is_aliveness())
                .map(|check| (check, instance_of(registry, check)))
                .filter(|(check, instance)| {
                    let service = instance.map(|instance| (&instance.service, instance.tags.as_slice()));
                    Filter::lets_pass(filter.as_ref(), Record::Check(check, service))
                })
                .map(|(check, instance)| (check.id.as_str().to_owned(), encoder.agent_check(check, instance)))
                .collect();
            (registry.index(), checks)
        })
        .await?;
    Ok(Reply::json(&checks).with_index(index))
}

/// `GET /v1/agent/health/service/id/{id}`: 200, 429 or 503 by the instance's health; `?format=text` for the word.
async fn health_by_id(
    State(server): State<Server>,
    Name(id): Name<InstanceId>,
    options: Options,
) -> Result<Reply, ApiError> {
    let encoder = Encoder::new(server.config());
    let key = instance_key(&server, Some(options.namespace.clone()), id);
    let (index, found) = server
        .inspect(options.stale(), |registry| {
            let found = registry
                .instance(&key)
                .map(|instance| health_of(registry, &encoder, instance));
            (registry.index(), found)
        })
        .await?;
    Ok(match found {
        Some((status, body)) => health_reply(
            &options,
            index,
            encode::health_status(status),
            status.as_str(),
            &body,
        ),
        None => {
            let body = json!({ "AggregatedStatus": "critical", "Service": null, "Checks": null });
            let reason = format!("ServiceId {} not found", key.id);
            health_reply(&options, index, StatusCode::NOT_FOUND, &reason, &body)
        }
    })
}

/// `GET /v1/agent/health/service/name/{name}`: the same for all instances of a service, by the worst of them.
async fn health_by_name(
    State(server): State<Server>,
    Name(name): Name<ServiceName>,
    options: Options,
) -> Result<Reply, ApiError> {
    let encoder = Encoder::new(server.config());
    let (index, found) = server
        .inspect(options.stale(), |registry| {
            let found: Vec<_> = registry
                .instances_of_node(&options.namespace, encoder.agent_node)
                .filter(|instance| instance.service == name)
                .map(|instance| health_of(registry, &encoder, instance))
                .collect();
            (registry.index(), found)
        })
        .await?;
    let (statuses, bodies): (Vec<_>, Vec<_>) = found.into_iter().unzip();
    if statuses.is_empty() {
        let reason = format!("ServiceName {name} Not Found");
        return Ok(health_reply(
            &options,
            index,
            StatusCode::NOT_FOUND,
            &reason,
            &json!([]),
        ));
    }
    let status = CheckStatus::aggregate(statuses);
    Ok(health_reply(
        &options,
        index,
        encode::health_status(status),
        status.as_str(),
        &Value::Array(bodies),
    ))
}

fn health_reply(options: &Options, index: u64, status: StatusCode, reason: &str, body: &Value) -> Reply {
    let reply = if options.parameters.text("format") == Some("text") {
        Reply::text(reason.to_owned())
    } else {
        Reply::json(body)
    };
    reply.with_index(index).with_status(status, reason)
}

/// An instance's health, in which its node's own checks count, and how it is shown.
fn health_of(registry: &Registry, encoder: &Encoder<'_>, instance: &Instance) -> (CheckStatus, Value) {
    let key = instance.key();
    let default = Namespace::default();
    let of_node = registry
        .checks_of_node(&default, &key.node)
        .filter(|check| check.instance.is_none() && !check.is_aliveness());
    let checks: Vec<&Check> = of_node.chain(registry.checks_of_instance(&key)).collect();
    let status = CheckStatus::aggregate(checks.iter().map(|check| check.status));
    let bodies: Vec<_> = checks
        .iter()
        .map(|check| encoder.agent_health_check(check, check.instance.as_ref().map(|_| instance)))
        .collect();
    let body = json!({
        "AggregatedStatus": status.as_str(),
        "Service": encoder.agent_service(instance),
        "Checks": bodies,
    });
    (status, body)
}

/// Whether an instance is a server's own, which the leader keeps: an agent's API does not show it, as in Consul.
fn is_servers_own(server: &Server, instance: &Instance) -> bool {
    server.config().servers_service.as_ref() == Some(&instance.service)
}

/// The instance that a check belongs to.
fn instance_of<'a>(registry: &'a Registry, check: &Check) -> Option<&'a Instance> {
    registry.instance(&InstanceKey {
        namespace: check.namespace.clone(),
        node: check.node.clone(),
        id: check.instance.clone()?,
    })
}

pub(super) fn instance_key(server: &Server, namespace: Option<Namespace>, id: InstanceId) -> InstanceKey {
    InstanceKey {
        namespace: namespace.unwrap_or_default(),
        node: agent_node(server),
        id,
    }
}

pub(super) fn check_key(server: &Server, namespace: Option<Namespace>, id: CheckId) -> CheckKey {
    CheckKey {
        namespace: namespace.unwrap_or_default(),
        node: agent_node(server),
        id,
    }
}

fn agent_node(server: &Server) -> NodeName {
    server.config().agent_node.clone()
}
