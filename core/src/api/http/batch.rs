//! `/v1/batch/…`: many registrations in one atomic write, many renewals in one call.

use axum::{Router, extract::State};
use http::StatusCode;
use serde_json::{Value, json};

use super::{
    agent::place,
    body::{Fields, JsonBody},
    commit, encode,
    error::ApiError,
    options::WriteOptions,
    reply::Reply,
    requests::{Place, items, parse_catalog_registration, parse_renewal, parse_service},
    write,
};
use crate::{
    limits::{BATCH_REGISTRATIONS_MAX, BATCH_RENEWALS_MAX},
    registry::{CheckId, CheckTarget, Command, Refusal, Registration, Reply as Outcome},
    server::Server,
};

pub(super) fn routes() -> Router<Server> {
    Router::new()
        .route("/v1/batch/register", write(register))
        .route("/v1/batch/renew", write(renew))
}

/// `PUT /v1/batch/register`: a list of registrations, done together or not at all, with one index.
async fn register(
    State(server): State<Server>,
    options: WriteOptions,
    JsonBody(body): JsonBody,
) -> Result<Reply, ApiError> {
    let items = items(&body, "Registrations")?;
    within(items.len(), BATCH_REGISTRATIONS_MAX, "registrations")?;
    let place = place(&server, &options);
    let registrations = items
        .iter()
        .enumerate()
        .map(|(position, item)| {
            parse_registration(item, &place, &server).map_err(|error| ApiError {
                message: format!("registration {position}: {}", error.message),
                ..error
            })
        })
        .collect::<Result<Vec<_>, _>>()?;
    let (index, outcome) = commit(&server, Command::Register(registrations)).await?;
    let Outcome::Registered(ids) = outcome else {
        unreachable!("registrations were answered with {outcome:?}")
    };
    let ids: Vec<Vec<&str>> = ids
        .iter()
        .map(|ids| ids.iter().map(CheckId::as_str).collect())
        .collect();
    Ok(Reply::encoded(encode::registered(index, ids)).with_index(index))
}

/// A registration that names its node is in the catalog's form, another in the agent's.
fn parse_registration(item: &Value, place: &Place, server: &Server) -> Result<Registration, ApiError> {
    if Fields::of(item)?.has("Node")? {
        return parse_catalog_registration(item, place.namespace.as_ref(), &server.config().datacenter);
    }
    let mut registration = parse_service(item, place)?;
    server.locate(&mut registration);
    Ok(registration)
}

/// `PUT /v1/batch/renew`: a list of check ids or of objects, and an answer for each.
async fn renew(
    State(server): State<Server>,
    options: WriteOptions,
    JsonBody(body): JsonBody,
) -> Result<Reply, ApiError> {
    let items = items(&body, "Renewals")?;
    within(items.len(), BATCH_RENEWALS_MAX, "renewals")?;
    let place = place(&server, &options);
    let renewals = items
        .iter()
        .enumerate()
        .map(|(position, item)| parse_renewal(item, position, &place))
        .collect::<Result<Vec<_>, _>>()?;
    let targets: Vec<_> = renewals.iter().map(|renewal| renewal.target.clone()).collect();
    let renewed = server.renew(renewals).await?;
    let answers: Vec<_> = targets
        .iter()
        .zip(renewed.outcomes)
        .map(|(target, outcome)| answer(target, outcome))
        .collect();
    Ok(Reply::json(&answers).with_index(renewed.index))
}

fn answer(target: &CheckTarget, outcome: Result<(), Refusal>) -> Value {
    let (field, id) = match target {
        CheckTarget::Check(key) => ("CheckID", key.id.as_str()),
        CheckTarget::TtlChecksOf(key) => ("ServiceID", key.id.as_str()),
    };
    match outcome.map_err(ApiError::from) {
        Ok(()) => json!({ field: id, "Status": 200 }),
        Err(error) => json!({ field: id, "Status": error.status.as_u16(), "Error": error.message }),
    }
}

fn within(items: usize, max: usize, what: &str) -> Result<(), ApiError> {
    if items > max {
        return Err(ApiError::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("Too many {what}: expected at most {max}, got {items}"),
        ));
    }
    Ok(())
}
