//! `/v1/query…`: prepared queries, which are kept under reserved keys.
//!
//! A definition is at `query/<id>`, and its name at `query-name/<name>` leads to its id: so a name is taken once, by the
//! same transaction that writes the definition. What a query finds is what `/v1/health/service/{name}` finds, narrowed;
//! there is one datacenter, so nothing fails over to another.

use axum::{
    Router,
    extract::{Path, State},
    response::{IntoResponse, Response},
    routing::get,
};
use http::{HeaderMap, Method, StatusCode};
use serde_json::{Value, json};

use super::{
    body::JsonBody,
    encode::{Encoder, to_bytes},
    error::{ApiError, echo},
    near,
    options::{Options, WriteOptions},
    prepared_definition::{self as definition, Definition},
    read,
    reply::{self, Reply},
    wrong_method,
};
use crate::{
    registry::{
        CheckStatus, Command, InstanceHealth, Key, KeyValue, KeyWrite, Operation, OperationRefusal, Query,
        Refusal, Registry, ServiceName, View,
    },
    server::{Answer, Server},
};

/// Keys of definitions.
const QUERIES: &str = "query/";
/// Keys of names.
const NAMES: &str = "query-name/";
/// How often an update that another one came before is tried anew.
const UPDATE_ATTEMPTS: usize = 8;

pub(super) fn routes() -> Router<Server> {
    let allowed = async |method: Method, allowed: &'static str| wrong_method(&method, allowed);
    Router::new()
        .route(
            "/v1/query",
            get(list)
                .post(create)
                .fallback(move |method: Method| allowed(method, "OPTIONS,GET,POST")),
        )
        .route(
            "/v1/query/{id}",
            get(one)
                .put(update)
                .delete(remove)
                .fallback(move |method: Method| allowed(method, "OPTIONS,GET,PUT,DELETE")),
        )
        .route("/v1/query/{id}/execute", read(execute))
        .route("/v1/query/{id}/explain", read(explain))
}

fn query_key(id: &str) -> Result<Key, ApiError> {
    reserved(QUERIES, id)
}

fn name_key(name: &str) -> Result<Key, ApiError> {
    reserved(NAMES, name)
}

fn reserved(prefix: &str, rest: &str) -> Result<Key, ApiError> {
    Key::reserved(&format!("{prefix}{rest}")).map_err(|error| ApiError::bad_request(error.to_string()))
}

/// `POST /v1/query`: answers with the id of the new query.
async fn create(
    State(server): State<Server>,
    _: WriteOptions,
    JsonBody(body): JsonBody,
) -> Result<Reply, ApiError> {
    let id = server.new_uuid();
    let definition = Definition::parse(&body, &id)?;
    let mut operations = Vec::new();
    if let Some(name) = definition.name() {
        operations.push(Operation::CheckNotExists(name_key(name)?));
    }
    operations.extend(writes(&id, &definition)?);
    match transact(&server, operations).await? {
        Ok(index) => Ok(Reply::json(&json!({ "ID": id })).with_index(index)),
        Err(_) => Err(name_taken(&definition)),
    }
}

/// What puts a definition in its place, and its name.
fn writes(id: &str, definition: &Definition) -> Result<Vec<Operation>, ApiError> {
    let write = |key, value| KeyWrite { key, value, flags: 0 };
    let mut operations = vec![Operation::SetKey(write(query_key(id)?, definition.encode()))];
    if let Some(name) = definition.name() {
        let id = bytes::Bytes::copy_from_slice(id.as_bytes());
        operations.push(Operation::SetKey(write(name_key(name)?, id)));
    }
    Ok(operations)
}

fn name_taken(definition: &Definition) -> ApiError {
    ApiError::server_error(format!(
        "raft apply failed: name '{}' aliases an existing query name",
        echo(definition.name().unwrap_or_default())
    ))
}

/// Carries out operations on keys; the index, or why the first one that can't be done can't be.
async fn transact(
    server: &Server,
    operations: Vec<Operation>,
) -> Result<Result<u64, OperationRefusal>, ApiError> {
    let written = server.write(Command::Transact(operations)).await?;
    match written.reply {
        Ok(_) => Ok(Ok(written.index)),
        Err(Refusal::Aborted(errors)) => match errors.into_iter().next() {
            Some(error) => Ok(Err(error.refusal)),
            None => Err(ApiError::server_error("a transaction failed without a reason")),
        },
        Err(refusal) => Err(refusal.into()),
    }
}

/// `PUT /v1/query/{id}`.
async fn update(
    State(server): State<Server>,
    Path(id): Path<String>,
    _: WriteOptions,
    JsonBody(body): JsonBody,
) -> Result<Reply, ApiError> {
    let definition = Definition::parse(&body, &id)?;
    for _ in 0..UPDATE_ATTEMPTS {
        let (before, modify_index) = existing(&server, &id).await?;
        let mut operations = vec![Operation::CheckIndex(query_key(&id)?, modify_index)];
        if before.name() != definition.name() {
            if let Some(name) = before.name() {
                operations.push(Operation::DeleteKey(name_key(name)?));
            }
            if let Some(name) = definition.name() {
                operations.push(Operation::CheckNotExists(name_key(name)?));
            }
        }
        operations.extend(writes(&id, &definition)?);
        match transact(&server, operations).await? {
            Ok(index) => return Ok(Reply::empty().with_index(index)),
            Err(OperationRefusal::KeyExists(_)) => return Err(name_taken(&definition)),
            // Another update came before: certainly nothing was done.
            Err(_) => {}
        }
    }
    Err(ApiError::new(
        StatusCode::CONFLICT,
        "others change this query all the time: expected to be alone",
    ))
}

/// `DELETE /v1/query/{id}`.
async fn remove(
    State(server): State<Server>,
    Path(id): Path<String>,
    _: WriteOptions,
) -> Result<Reply, ApiError> {
    for _ in 0..UPDATE_ATTEMPTS {
        let (before, modify_index) = existing(&server, &id).await?;
        let mut operations = vec![
            Operation::CheckIndex(query_key(&id)?, modify_index),
            Operation::DeleteKey(query_key(&id)?),
        ];
        if let Some(name) = before.name() {
            operations.push(Operation::DeleteKey(name_key(name)?));
        }
        if let Ok(index) = transact(&server, operations).await? {
            return Ok(Reply::empty().with_index(index));
        }
    }
    Err(ApiError::new(
        StatusCode::CONFLICT,
        "others change this query all the time: expected to be alone",
    ))
}

/// The definition that is to be changed, with its index.
async fn existing(server: &Server, id: &str) -> Result<(Definition, u64), ApiError> {
    let key = query_key(id)?;
    let found = server
        .inspect(false, |registry| key_value(registry, &key))
        .await?;
    let found = found.ok_or_else(|| {
        ApiError::server_error(format!(
            "Cannot modify non-existent prepared query: '{}'",
            echo(id)
        ))
    })?;
    Ok((Definition::decode(&found)?, found.modify_index))
}

/// What a key holds now.
pub(super) fn key_value(registry: &Registry, key: &Key) -> Option<KeyValue> {
    match registry.query(&Query::Key(key.clone())) {
        View::Keys(found) => found.first().map(|found| KeyValue::clone(found)),
        _ => None,
    }
}

/// `GET /v1/query`: all of them.
async fn list(State(server): State<Server>, options: Options) -> Result<Reply, ApiError> {
    let prefix = query_key("")?;
    let answer = server.read(Query::KeyTree(prefix), options.read).await?;
    let bodies = definitions(&answer)?;
    Ok(Reply::read(&answer, &options, to_bytes(&bodies)))
}

/// `GET /v1/query/{id}`.
async fn one(
    State(server): State<Server>,
    Path(id): Path<String>,
    options: Options,
) -> Result<Response, ApiError> {
    let answer = server.read(Query::Key(query_key(&id)?), options.read).await?;
    let bodies = definitions(&answer)?;
    if bodies.is_empty() {
        return Ok(not_found());
    }
    Ok(Reply::read(&answer, &options, to_bytes(&bodies)).into_response())
}

fn not_found() -> Response {
    let error = ApiError::new(StatusCode::NOT_FOUND, "Query not found");
    reply::unknown_freshness(error.into_response())
}

fn definitions(answer: &Answer) -> Result<Vec<Value>, ApiError> {
    let View::Keys(found) = &answer.view.view else {
        return Err(ApiError::server_error("keys were answered with something else"));
    };
    found
        .iter()
        .map(|found| Ok(Definition::decode(found)?.body(found)))
        .collect()
}

/// `GET /v1/query/{id}/explain`: what a name is executed as.
async fn explain(
    State(server): State<Server>,
    Path(name): Path<String>,
    options: Options,
) -> Result<Response, ApiError> {
    let all = query_key("")?;
    let find = |registry: &Registry| (resolve(registry, &name), Some(Query::KeyTree(all)));
    let (found, answer) = server.read_found(options.read.consistency, find).await?;
    let (Some((definition, found)), Some(answer)) = (found?, answer) else {
        return Ok(not_found());
    };
    let mut body = meta(&answer, &options);
    body["Query"] = definition.body(&found);
    Ok(Reply::read(&answer, &options, to_bytes(&body)).into_response())
}

/// `GET /v1/query/{id}/execute`, by id or name; `?limit`, `?near`.
async fn execute(
    State(server): State<Server>,
    Path(name): Path<String>,
    headers: HeaderMap,
    options: Options,
) -> Result<Response, ApiError> {
    // As in Consul, a limit that is not above 0 is none.
    let limit = match options.parameters.text("limit") {
        None => None,
        Some(text) => text
            .parse::<i64>()
            .map(|limit| usize::try_from(limit).ok().filter(|limit| *limit > 0))
            .map_err(|_| ApiError::server_error(format!("Bad limit: {:?}: expected a number", echo(text))))?,
    };
    // Definition and instances are of one moment: between two looks the query may become another one.
    let find = |registry: &Registry| match executed(registry, &name, &options) {
        Ok(Some((definition, query))) => (Ok(Some(definition)), Some(query)),
        Ok(None) => (Ok(None), None),
        Err(error) => (Err(error), None),
    };
    let (found, answer) = server.read_found(options.read.consistency, find).await?;
    let (Some(definition), Some(answer)) = (found?, answer) else {
        return Ok(not_found());
    };
    let found: &[InstanceHealth] = match &answer.view.view {
        View::Instances(found) => found,
        // Nothing is of a service without a name.
        _ if definition.service().is_empty() => &[],
        _ => {
            return Err(ApiError::server_error(
                "instances were answered with something else",
            ));
        }
    };
    let wanted = found.iter().filter(|entry| is_wanted(&definition, entry));
    let mut wanted: Vec<InstanceHealth> = wanted.cloned().collect();
    // In any order, so that those who take the first one, or the first few, spread over all.
    server.shuffle(&mut wanted);
    if let Some(near) = options.parameters.text("near").or(definition.near()) {
        let node = near::node(near, &headers, &server.config().agent_node);
        wanted.sort_by_key(|entry| !entry.node.name.as_str().eq_ignore_ascii_case(node));
    }
    wanted.truncate(limit.unwrap_or(usize::MAX));
    let nodes = Encoder::new(server.config()).service_health(&View::Instances(wanted));
    let mut body = meta(&answer, &options);
    body["Service"] = definition.service().into();
    body["Nodes"] = serde_json::from_slice(&nodes)
        .map_err(|error| ApiError::server_error(format!("what was found can't be shown: {error}")))?;
    body["DNS"] = definition.dns().clone();
    body["Datacenter"] = server.config().datacenter.clone().into();
    body["PeerName"] = "".into();
    body["Failovers"] = 0.into();
    Ok(Reply::read(&answer, &options, to_bytes(&body)).into_response())
}

/// Whether a query wants an instance: one that is not critical, or with `OnlyPassing` passes, ignored checks apart.
fn is_wanted(definition: &Definition, entry: &InstanceHealth) -> bool {
    let ignored = definition.texts("IgnoreCheckIDs");
    let checks = entry
        .checks
        .iter()
        .filter(|check| !ignored.iter().any(|ignored| ignored == check.id.as_str()));
    let worst = CheckStatus::aggregate(checks.map(|check| check.status));
    let healthy = match definition.only_passing() {
        true => worst == CheckStatus::Passing,
        false => worst != CheckStatus::Critical,
    };
    let tags = definition.texts("Tags");
    let tagged = |tag: &str| {
        let tags = &entry.instance.tags;
        tags.iter().any(|own| own.eq_ignore_ascii_case(tag))
    };
    let by_tags = tags.iter().all(|tag| match tag.strip_prefix('!') {
        Some(unwanted) => !tagged(unwanted),
        None => tagged(tag),
    });
    let has = |pairs: Vec<(String, String)>, meta: &std::collections::BTreeMap<String, String>| {
        pairs.iter().all(|(key, value)| meta.get(key) == Some(value))
    };
    healthy
        && by_tags
        && has(definition.pairs("NodeMeta"), &entry.node.meta)
        && has(definition.pairs("ServiceMeta"), &entry.instance.meta)
}

/// What a name is executed as, with the question about its service.
fn executed(
    registry: &Registry,
    name: &str,
    options: &Options,
) -> Result<Option<(Definition, Query)>, ApiError> {
    let Some((definition, _)) = resolve(registry, name)? else {
        return Ok(None);
    };
    if definition.service().is_empty() {
        // What a template left blank for this name; the index is that of the queries.
        return Ok(Some((definition, Query::KeyTree(query_key("")?))));
    }
    let service = ServiceName::parse(definition.service())?;
    let query = match definition.connect() {
        true => Query::Connect {
            service,
            checks: true,
            passing: false,
            tags: Vec::new(),
            node_meta: Vec::new(),
        },
        false => Query::ServiceHealth {
            namespace: options.namespace.clone(),
            service,
            passing: false,
            tags: Vec::new(),
            node_meta: Vec::new(),
        },
    };
    Ok(Some((definition, query)))
}

/// The query of an id, of a name, or the template with the longest prefix of the name, filled in.
fn resolve(registry: &Registry, name: &str) -> Result<Option<(Definition, KeyValue)>, ApiError> {
    if let Some(found) = key_value(registry, &query_key(name)?) {
        let definition = Definition::decode(&found)?;
        if definition.is_template() {
            return Err(ApiError::server_error(
                "prepared query templates can only be resolved up by name, not by ID",
            ));
        }
        return Ok(Some((definition, found)));
    }
    if let Some(found) = by_name(registry, name)? {
        let definition = Definition::decode(&found)?;
        // A template that is asked for by its own name is filled in, too.
        return Ok(Some((definition::fill_in(definition, name)?, found)));
    }
    let View::Keys(all) = registry.query(&Query::KeyTree(query_key("")?)) else {
        return Ok(None);
    };
    let mut best: Option<(Definition, KeyValue)> = None;
    for found in &all {
        let definition = Definition::decode(found)?;
        let longer = best
            .as_ref()
            .is_none_or(|(best, _)| best.name_length() <= definition.name_length());
        if definition.is_template() && name.starts_with(definition.name().unwrap_or_default()) && longer {
            best = Some((definition, KeyValue::clone(found)));
        }
    }
    match best {
        Some((definition, found)) => Ok(Some((definition::fill_in(definition, name)?, found))),
        None => Ok(None),
    }
}

fn by_name(registry: &Registry, name: &str) -> Result<Option<KeyValue>, ApiError> {
    let Some(id) = key_value(registry, &name_key(name)?) else {
        return Ok(None);
    };
    let id = String::from_utf8_lossy(&id.value).into_owned();
    Ok(key_value(registry, &query_key(&id)?))
}

fn meta(answer: &Answer, options: &Options) -> Value {
    json!({
        "Index": answer.index,
        "LastContact": u64::try_from(answer.last_contact.as_nanos()).unwrap_or(u64::MAX),
        "KnownLeader": answer.known_leader,
        "ConsistencyLevel": options.effective_consistency(),
        "NotModified": false,
        "Backend": 0,
        "ResultsFilteredByACLs": false,
    })
}
