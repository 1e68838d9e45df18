//! Maintenance: a critical check that nobody runs, on the node or on one of its instances, takes it out of use.

use axum::{Router, extract::State};
use http::StatusCode;

use super::{
    agent::{check_key, instance_key, place},
    commit,
    error::{ApiError, echo},
    options::{Name, WriteOptions},
    reply::Reply,
    write,
};
use crate::{
    limits::CHECK_NOTES_BYTES_MAX,
    registry::{
        CheckDefinition, CheckDefinitionUpdate, CheckId, CheckStatus, Command, Deregister, InstanceId,
        Registration,
    },
    server::Server,
};

/// The id of the node's maintenance check; that of an instance's is [`OF_SERVICE`] and the instance's id.
pub(super) const OF_NODE: &str = "_node_maintenance";
/// See [`OF_NODE`].
pub(super) const OF_SERVICE: &str = "_service_maintenance:";

pub(super) fn routes() -> Router<Server> {
    Router::new()
        .route("/v1/agent/maintenance", write(of_node))
        .route(
            "/v1/agent/service/maintenance/",
            write(async || ApiError::bad_request("Missing service ID")),
        )
        .route("/v1/agent/service/maintenance/{*id}", write(of_service))
}

/// `PUT /v1/agent/maintenance?enable=`.
async fn of_node(State(server): State<Server>, options: WriteOptions) -> Result<Reply, ApiError> {
    let enable = enable(&options)?;
    let id = CheckId::parse(OF_NODE).expect("a constant that is a name");
    let options = WriteOptions {
        namespace: None,
        ..options
    };
    set(&server, &options, enable, id, None).await
}

/// `PUT /v1/agent/service/maintenance/{id}?enable=`.
async fn of_service(
    State(server): State<Server>,
    Name(id): Name<InstanceId>,
    options: WriteOptions,
) -> Result<Reply, ApiError> {
    let enable = enable(&options)?;
    let key = instance_key(&server, options.namespace.clone(), id.clone());
    let known = server
        .inspect(false, |registry| registry.instance(&key).is_some())
        .await?;
    if !known {
        return Err(ApiError::unknown_instance(id.as_str()));
    }
    let check = CheckId::parse(&format!("{OF_SERVICE}{id}"))?;
    set(&server, &options, enable, check, Some(id)).await
}

/// `?enable`, which must be there.
fn enable(options: &WriteOptions) -> Result<bool, ApiError> {
    match options.parameters.text("enable") {
        None => Err(ApiError::bad_request("Missing value for enable")),
        Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(true),
        Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(false),
        Some(other) => Err(ApiError::bad_request(format!(
            "Invalid value for enable: {:?}",
            echo(other)
        ))),
    }
}

async fn set(
    server: &Server,
    options: &WriteOptions,
    enable: bool,
    id: CheckId,
    instance: Option<InstanceId>,
) -> Result<Reply, ApiError> {
    if !enable {
        let key = check_key(server, options.namespace.clone(), id);
        // What was not in maintenance is not in maintenance now.
        let (index, _) = commit(server, Command::Deregister(Deregister::Check(key))).await?;
        return Ok(Reply::empty().with_index(index));
    }
    let (name, what) = match instance {
        None => ("Node Maintenance Mode", "node"),
        Some(_) => ("Service Maintenance Mode", "service"),
    };
    let notes = match options.parameters.text("reason") {
        Some(reason) if reason.len() > CHECK_NOTES_BYTES_MAX => {
            return Err(ApiError::new(
                StatusCode::BAD_REQUEST,
                format!("Invalid reason: expected at most {CHECK_NOTES_BYTES_MAX} bytes"),
            ));
        }
        Some(reason) => reason.to_owned(),
        None => format!(
            "Maintenance mode is enabled for this {what}, but no reason was provided. This is a default message."
        ),
    };
    let place = place(server, options);
    let check = CheckDefinitionUpdate {
        id,
        namespace: options.namespace.clone().unwrap_or_default(),
        node: place.node.name.clone(),
        name: name.to_owned(),
        instance,
        definition: CheckDefinition::default(),
        status: Some(CheckStatus::Critical),
        output: String::new(),
        notes,
    };
    let registration = Registration {
        node: place.node,
        keep_existing_node: true,
        instance: None,
        checks: vec![check],
        replace_checks: false,
    };
    let (index, _) = commit(server, Command::Register(vec![registration])).await?;
    Ok(Reply::empty().with_index(index))
}
