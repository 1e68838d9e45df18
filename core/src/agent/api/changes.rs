//! What changes something: registrations, deregistrations, reports.

use std::{
    collections::BTreeSet,
    io,
    sync::{Arc, MutexGuard},
};

use axum::extract::State;
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::{NoOutcome, not_heard, outcome};
use crate::{
    agent::{
        Shared,
        local::{Change, CheckSpec, Local, LocalCheck, Origin, Outcome},
        registrations::{ParsedService, Registrar},
        store,
    },
    api::http::{
        body::JsonBody,
        error::ApiError,
        options::{Name, Parameters},
        reply::Reply,
        requests::{InstanceReference, parse_check_update, parse_deregistration, parse_heartbeat},
    },
    limits::AGENT_ANSWER_TIMEOUT,
    registry::{CheckId, CheckKey, CheckStatus, Deregister, InstanceId, InstanceKey, Namespace},
    runtime::Runtime,
};

/// `PUT /v1/agent/service/register`: in the short form or in Consul's.
pub(super) async fn register<R: Runtime>(
    State(shared): State<Arc<Shared<R>>>,
    parameters: Parameters,
    headers: HeaderMap,
    JsonBody(body): JsonBody,
) -> Result<Reply, ApiError> {
    let namespace = parameters.namespace(&headers)?;
    let mut parsed = shared.registrar().service(&body, namespace.clone())?;
    parsed.replace_checks |= parameters.flag("replace-existing-checks")?;
    let ids: Vec<CheckId> = parsed
        .spec
        .checks
        .iter()
        .map(|check| check.update.id.clone())
        .collect();
    let change = keep::<R, _>({
        let shared = shared.clone();
        async move { shared.keep_service(parsed, namespace, &body).await }
    });
    registered(&shared, change, &ids).await
}

/// `PUT /v1/agent/check/register`: a check of a service or of the node.
pub(super) async fn register_check<R: Runtime>(
    State(shared): State<Arc<Shared<R>>>,
    parameters: Parameters,
    headers: HeaderMap,
    JsonBody(body): JsonBody,
) -> Result<Reply, ApiError> {
    let namespace = parameters.namespace(&headers)?;
    let spec = shared.registrar().check(&body, namespace.clone())?;
    let id = spec.update.id.clone();
    let change = keep::<R, _>({
        let shared = shared.clone();
        async move { shared.keep_check(spec, namespace, &body).await }
    });
    registered(&shared, change, &[id]).await
}

/// `PUT /v1/agent/service/deregister/{id}`.
pub(super) async fn deregister<R: Runtime>(
    State(shared): State<Arc<Shared<R>>>,
    Name(id): Name<InstanceId>,
    parameters: Parameters,
    headers: HeaderMap,
) -> Result<Reply, ApiError> {
    let key = shared.instance_key(parameters.namespace(&headers)?, id);
    deregister_service(&shared, key).await
}

/// `PUT /v1/agent/service/deregister` with `{ns, service, id}`.
pub(super) async fn deregister_by_body<R: Runtime>(
    State(shared): State<Arc<Shared<R>>>,
    parameters: Parameters,
    headers: HeaderMap,
    JsonBody(body): JsonBody,
) -> Result<Reply, ApiError> {
    let place = shared.registrar().place(parameters.namespace(&headers)?);
    let Deregister::Instance { key, service } = parse_deregistration(&body, &place)? else {
        return Err(ApiError::bad_request("Missing service ID"));
    };
    if let Some(named) = service
        && let Some(local) = shared.local().service(&key)
        && local.instance.service != named
    {
        return Err(ApiError::new(
            StatusCode::CONFLICT,
            format!(
                "instance {:?} belongs to service {:?}, not {:?}",
                key.id.as_str(),
                local.instance.service.as_str(),
                named.as_str()
            ),
        ));
    }
    deregister_service(&shared, key).await
}

/// `PUT /v1/agent/check/deregister/{id}`.
pub(super) async fn deregister_check<R: Runtime>(
    State(shared): State<Arc<Shared<R>>>,
    Name(id): Name<CheckId>,
    parameters: Parameters,
    headers: HeaderMap,
) -> Result<Reply, ApiError> {
    let key = shared.check_key(parameters.namespace(&headers)?, id);
    let change = keep::<R, _>({
        let shared = shared.clone();
        async move { shared.drop_check(key).await }
    });
    deregistered(&shared, change).await
}

/// `PUT /v1/agent/check/pass/{id}`.
pub(super) async fn pass<R: Runtime>(
    State(shared): State<Arc<Shared<R>>>,
    Name(id): Name<CheckId>,
    parameters: Parameters,
    headers: HeaderMap,
) -> Result<Reply, ApiError> {
    report_with_note(&shared, id, &parameters, &headers, CheckStatus::Passing).await
}

/// `PUT /v1/agent/check/warn/{id}`.
pub(super) async fn warn<R: Runtime>(
    State(shared): State<Arc<Shared<R>>>,
    Name(id): Name<CheckId>,
    parameters: Parameters,
    headers: HeaderMap,
) -> Result<Reply, ApiError> {
    report_with_note(&shared, id, &parameters, &headers, CheckStatus::Warning).await
}

/// `PUT /v1/agent/check/fail/{id}`.
pub(super) async fn fail<R: Runtime>(
    State(shared): State<Arc<Shared<R>>>,
    Name(id): Name<CheckId>,
    parameters: Parameters,
    headers: HeaderMap,
) -> Result<Reply, ApiError> {
    report_with_note(&shared, id, &parameters, &headers, CheckStatus::Critical).await
}

/// `PUT /v1/agent/check/update/{id}` with `{Status, Output}`.
pub(super) async fn update<R: Runtime>(
    State(shared): State<Arc<Shared<R>>>,
    Name(id): Name<CheckId>,
    parameters: Parameters,
    headers: HeaderMap,
    JsonBody(body): JsonBody,
) -> Result<Reply, ApiError> {
    let (status, output) = parse_check_update(&body)?;
    let key = shared.check_key(parameters.namespace(&headers)?, id);
    report(&shared, vec![key], status, output).await
}

/// `PUT /v1/agent/service/heartbeat/{id}`: renews all TTL checks of a service.
pub(super) async fn heartbeat<R: Runtime>(
    State(shared): State<Arc<Shared<R>>>,
    Name(id): Name<InstanceId>,
    parameters: Parameters,
    headers: HeaderMap,
) -> Result<Reply, ApiError> {
    let key = shared.instance_key(parameters.namespace(&headers)?, id);
    let checks = ttl_checks(&shared, &key).ok_or_else(|| ApiError::unknown_instance(key.id.as_str()))?;
    report(&shared, checks, CheckStatus::Passing, String::new()).await
}

/// `PUT /v1/agent/service/heartbeat` with `{ns, service, address, port}`: the same by where the service is.
pub(super) async fn heartbeat_by_body<R: Runtime>(
    State(shared): State<Arc<Shared<R>>>,
    parameters: Parameters,
    headers: HeaderMap,
    JsonBody(body): JsonBody,
) -> Result<Reply, ApiError> {
    let place = shared.registrar().place(parameters.namespace(&headers)?);
    let keys = match parse_heartbeat(&body, &place)? {
        InstanceReference::Key(key) => vec![key],
        InstanceReference::At {
            namespace,
            service,
            address,
            port,
        } => {
            let keys: Vec<InstanceKey> = shared
                .local()
                .services()
                .filter(|(key, local)| {
                    let own = &local.instance.address;
                    let at = own == &address || own.is_empty() && address == shared.config.address;
                    key.namespace == namespace
                        && local.instance.service == service
                        && at
                        && local.instance.port == port
                })
                .map(|(key, _)| key.clone())
                .collect();
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
    let mut checks = Vec::new();
    for key in keys {
        let of_service = ttl_checks(&shared, &key);
        checks.extend(of_service.ok_or_else(|| ApiError::unknown_instance(key.id.as_str()))?);
    }
    report(&shared, checks, CheckStatus::Passing, String::new()).await
}

/// What tells when the servers have a change.
pub(super) type Told = oneshot::Receiver<Outcome>;

/// Makes a change in a task of its own, so that a client that goes away can't leave it half done.
pub(super) async fn keep<R: Runtime, F>(change: F) -> Result<Told, ApiError>
where
    F: Future<Output = Result<Told, ApiError>> + Send + 'static,
{
    let failed = |failure: crate::runtime::TaskFailed| {
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, failure.to_string())
    };
    R::spawn(change).await.map_err(failed)?
}

/// Answers with the servers' index and the ids of the checks. When no server could be told yet the registration stands
/// all the same, and the index is left out.
async fn registered<R: Runtime>(
    shared: &Shared<R>,
    change: impl Future<Output = Result<Told, ApiError>>,
    ids: &[CheckId],
) -> Result<Reply, ApiError> {
    let _permit = shared.may_wait()?;
    let told = change.await?;
    let ids: Vec<&str> = ids.iter().map(CheckId::as_str).collect();
    match outcome::<R>(told, AGENT_ANSWER_TIMEOUT).await {
        Ok(index) => Ok(Reply::json(&json!({ "Index": index, "CheckIDs": ids })).with_index(index)),
        Err(NoOutcome::Pending(_)) => Ok(Reply::json(&json!({ "Index": null, "CheckIDs": ids }))),
        Err(NoOutcome::Refused(error)) => Err(error),
    }
}

async fn deregister_service<R: Runtime>(
    shared: &Arc<Shared<R>>,
    key: InstanceKey,
) -> Result<Reply, ApiError> {
    let change = keep::<R, _>({
        let shared = shared.clone();
        async move { shared.drop_service(key).await }
    });
    deregistered(shared, change).await
}

/// Answers with the servers' index; without one when they could not be told yet.
async fn deregistered<R: Runtime>(
    shared: &Shared<R>,
    change: impl Future<Output = Result<Told, ApiError>>,
) -> Result<Reply, ApiError> {
    let _permit = shared.may_wait()?;
    let told = change.await?;
    match outcome::<R>(told, AGENT_ANSWER_TIMEOUT).await {
        Ok(index) => Ok(Reply::json(&json!({ "Index": index })).with_index(index)),
        Err(NoOutcome::Pending(_)) => Ok(Reply::json(&json!({ "Index": null }))),
        Err(NoOutcome::Refused(error)) => Err(error),
    }
}

async fn report_with_note<R: Runtime>(
    shared: &Shared<R>,
    id: CheckId,
    parameters: &Parameters,
    headers: &HeaderMap,
    status: CheckStatus,
) -> Result<Reply, ApiError> {
    let key = shared.check_key(parameters.namespace(headers)?, id);
    let note = parameters.text("note").unwrap_or_default().to_string();
    report(shared, vec![key], status, note).await
}

/// Reports on checks and answers when the servers have heard it: an acknowledged renewal holds.
async fn report<R: Runtime>(
    shared: &Shared<R>,
    keys: Vec<CheckKey>,
    status: CheckStatus,
    output: String,
) -> Result<Reply, ApiError> {
    let _permit = shared.may_wait()?;
    let output = crate::probing::check::cut(output);
    let receivers = {
        let mut local = shared.local();
        for key in &keys {
            local.report(key, status, Some(output.clone()), R::now())?;
        }
        let receivers = keys.into_iter().map(|key| local.pending.wait_report(key));
        receivers.collect::<Vec<_>>()
    };
    shared.changed();
    let deadline = R::now() + AGENT_ANSWER_TIMEOUT;
    for receiver in receivers {
        let left = deadline.saturating_since(R::now());
        match outcome::<R>(receiver, left).await {
            Ok(_) => {}
            Err(NoOutcome::Pending(reason)) => return Err(not_heard(reason)),
            Err(NoOutcome::Refused(error)) => return Err(error),
        }
    }
    Ok(Reply::json(&json!({})))
}

/// The TTL checks of a service; `None` when it is not here.
fn ttl_checks<R: Runtime>(shared: &Shared<R>, key: &InstanceKey) -> Option<Vec<CheckKey>> {
    let local = shared.local();
    let service = local.service(key)?;
    let checks = local
        .checks_of(service)
        .filter(|(_, check)| check.spec.update.definition.ttl().is_some());
    Some(checks.map(|(key, _)| key.clone()).collect())
}

impl<R: Runtime> Shared<R> {
    fn registrar(&self) -> Registrar {
        Registrar::new(self.local().node().clone(), self.config.enable_script_checks)
    }

    /// Keeps a service on the disk, then takes it on.
    async fn keep_service(
        &self,
        parsed: ParsedService,
        namespace: Option<Namespace>,
        body: &Value,
    ) -> Result<Told, ApiError> {
        let _changing = self.changing.lock().await;
        let ParsedService { spec, replace_checks } = parsed;
        let key = spec.instance.key();
        let mut batch: Vec<_> = self.store.put_service(&key, namespace.as_ref(), body).into();
        {
            let local = self.local();
            local.refuse_service(&spec, replace_checks)?;
            // A check that was registered by itself and is replaced or gone now must not be back after a restart.
            let before = local.service(&key).map(|service| service.checks.clone());
            let gone = before.unwrap_or_default().into_iter().filter(|_| replace_checks);
            let named = spec.checks.iter().map(|check| check.update.key());
            let replaced = named.filter(|check| local.check(check).is_some());
            let obsolete: BTreeSet<CheckKey> = gone.chain(replaced).collect();
            batch.extend(obsolete.iter().map(store::remove_check));
        }
        self.store.write(batch).await.map_err(disk_error)?;
        self.namespaces().insert(key.namespace.clone());
        let origin = Origin::Api;
        let mut local = self.local();
        local.put_service(spec, replace_checks, origin, R::now(), R::random_u64)?;
        Ok(self.announce(local, Change::Service(key)))
    }

    /// Keeps a check on the disk, then takes it on.
    pub(super) async fn keep_check(
        &self,
        spec: CheckSpec,
        namespace: Option<Namespace>,
        body: &Value,
    ) -> Result<Told, ApiError> {
        let _changing = self.changing.lock().await;
        self.local().refuse_check(&spec)?;
        let record = self.store.put_check(&spec.update.key(), namespace.as_ref(), body);
        self.store.write(vec![record]).await.map_err(disk_error)?;
        let mut local = self.local();
        let change = local.put_check(spec, Origin::Api, R::now(), R::random_u64)?;
        Ok(self.announce(local, change))
    }

    /// Removes a service from the disk, then from here.
    async fn drop_service(&self, key: InstanceKey) -> Result<Told, ApiError> {
        let _changing = self.changing.lock().await;
        let checks = self.local().service(&key).map(|service| service.checks.clone());
        let Some(checks) = checks else {
            return Err(ApiError::unknown_instance(key.id.as_str()));
        };
        let mut batch = vec![store::remove_service(&key)];
        batch.extend(checks.iter().map(store::remove_check));
        self.store.write(batch).await.map_err(disk_error)?;
        let mut local = self.local();
        local.remove_service(&key);
        Ok(self.announce(local, Change::Service(key)))
    }

    /// Removes a check from the disk, then from here.
    pub(super) async fn drop_check(&self, key: CheckKey) -> Result<Told, ApiError> {
        let _changing = self.changing.lock().await;
        if self.local().check(&key).is_none_or(LocalCheck::is_aliveness) {
            return Err(ApiError::unknown_check(key.id.as_str()));
        }
        let batch = vec![store::remove_check(&key)];
        self.store.write(batch).await.map_err(disk_error)?;
        let mut local = self.local();
        let change = local.remove_check(&key);
        let change = change.ok_or_else(|| ApiError::unknown_check(key.id.as_str()))?;
        Ok(self.announce(local, change))
    }

    /// Has a change sent, and whoever asks told of its outcome.
    fn announce(&self, mut local: MutexGuard<'_, Local>, change: Change) -> Told {
        let told = local.pending.wait_change(change);
        drop(local);
        self.changed();
        told
    }
}

fn disk_error(error: io::Error) -> ApiError {
    ApiError::new(
        StatusCode::INTERNAL_SERVER_ERROR,
        format!("the registration can't be kept: {error}"),
    )
}
