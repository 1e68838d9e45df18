//! Maintenance of this host or of one of its services: a critical check that nobody runs, kept as a registration is.

use std::sync::Arc;

use axum::extract::State;
use http::{HeaderMap, StatusCode};
use serde_json::json;

use super::{
    NoOutcome,
    changes::{Told, keep},
    outcome,
};
use crate::{
    agent::{Shared, registrations::maintenance_check},
    api::http::{
        error::ApiError,
        maintenance,
        options::{Name, Parameters},
        reply::Reply,
    },
    limits::AGENT_ANSWER_TIMEOUT,
    registry::{InstanceId, Namespace},
    runtime::Runtime,
};

/// `PUT /v1/agent/maintenance?enable=`.
pub(super) async fn of_node<R: Runtime>(
    State(shared): State<Arc<Shared<R>>>,
    parameters: Parameters,
) -> Result<Reply, ApiError> {
    set(shared, None, &parameters, None).await
}

/// `PUT /v1/agent/service/maintenance/{id}?enable=`.
pub(super) async fn of_service<R: Runtime>(
    State(shared): State<Arc<Shared<R>>>,
    Name(id): Name<InstanceId>,
    parameters: Parameters,
    headers: HeaderMap,
) -> Result<Reply, ApiError> {
    let namespace = parameters.namespace(&headers)?;
    let key = shared.instance_key(namespace.clone(), id.clone());
    if shared.local().service(&key).is_none() {
        return Err(ApiError::unknown_instance(id.as_str()));
    }
    set(shared, namespace, &parameters, Some(id)).await
}

async fn set<R: Runtime>(
    shared: Arc<Shared<R>>,
    namespace: Option<Namespace>,
    parameters: &Parameters,
    of: Option<InstanceId>,
) -> Result<Reply, ApiError> {
    let enable = maintenance::enable(parameters)?;
    let _permit = shared.may_wait()?;
    let told = match enable {
        true => begin(&shared, namespace, parameters, of).await,
        false => end(&shared, namespace, of).await,
    };
    let told = match told {
        // What was not in maintenance is not in maintenance now.
        Err(error) if !enable && error.status == StatusCode::NOT_FOUND => return Ok(Reply::empty()),
        told => told?,
    };
    match outcome::<R>(told, AGENT_ANSWER_TIMEOUT).await {
        Err(NoOutcome::Refused(error)) => Err(error),
        Ok(_) | Err(NoOutcome::Pending(_)) => Ok(Reply::empty()),
    }
}

async fn begin<R: Runtime>(
    shared: &Arc<Shared<R>>,
    namespace: Option<Namespace>,
    parameters: &Parameters,
    of: Option<InstanceId>,
) -> Result<Told, ApiError> {
    let notes = maintenance::notes(parameters, of.as_ref())?;
    let record =
        json!({ "Maintenance": true, "ServiceID": of.as_ref().map(InstanceId::as_str), "Notes": notes });
    let within = namespace.clone().unwrap_or_default();
    let spec = maintenance_check(shared.config.node.clone(), within, of, notes)?;
    let shared = shared.clone();
    keep::<R, _>(async move { shared.keep_check(spec, namespace, &record).await }).await
}

async fn end<R: Runtime>(
    shared: &Arc<Shared<R>>,
    namespace: Option<Namespace>,
    of: Option<InstanceId>,
) -> Result<Told, ApiError> {
    let key = shared.check_key(namespace, maintenance::check_id(of.as_ref())?);
    let shared = shared.clone();
    keep::<R, _>(async move { shared.drop_check(key).await }).await
}
