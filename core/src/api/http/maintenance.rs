//! Maintenance: a critical check that nobody runs, on the node or on one of its instances, takes it out of use. What a
//! request asks for is understood here for agents, too.

use axum::{Router, extract::State};
use http::StatusCode;

use super::{
    agent::{check_key, instance_key, place},
    commit,
    error::{ApiError, echo},
    options::{Name, Parameters, WriteOptions},
    reply::Reply,
    write,
};
use crate::{
    limits::CHECK_NOTES_BYTES_MAX,
    registry::{
        CheckDefinition, CheckDefinitionUpdate, CheckId, CheckStatus, Command, Deregister, InstanceId, Keeps,
        Namespace, NodeName, Registration,
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
    let enable = enable(&options.parameters)?;
    let options = WriteOptions {
        namespace: None,
        ..options
    };
    set(&server, &options, enable, None).await
}

/// `PUT /v1/agent/service/maintenance/{id}?enable=`.
async fn of_service(
    State(server): State<Server>,
    Name(id): Name<InstanceId>,
    options: WriteOptions,
) -> Result<Reply, ApiError> {
    let enable = enable(&options.parameters)?;
    let key = instance_key(&server, options.namespace.clone(), id.clone());
    let known = server
        .inspect(false, |registry| registry.instance(&key).is_some())
        .await?;
    if !known {
        return Err(ApiError::unknown_instance(id.as_str()));
    }
    set(&server, &options, enable, Some(id)).await
}

async fn set(
    server: &Server,
    options: &WriteOptions,
    enable: bool,
    instance: Option<InstanceId>,
) -> Result<Reply, ApiError> {
    if !enable {
        let key = check_key(server, options.namespace.clone(), check_id(instance.as_ref())?);
        // What was not in maintenance is not in maintenance now.
        let (index, _) = commit(server, Command::Deregister(Deregister::Check(key))).await?;
        return Ok(Reply::empty().with_index(index));
    }
    let notes = notes(&options.parameters, instance.as_ref())?;
    let place = place(server, options);
    let namespace = options.namespace.clone().unwrap_or_default();
    let check = check(place.node.name.clone(), namespace, instance, notes)?;
    let registration = Registration {
        node: place.node,
        keeps: Keeps::Node,
        instance: None,
        checks: vec![check],
        replace_checks: false,
    };
    let (index, _) = commit(server, Command::Register(vec![registration])).await?;
    Ok(Reply::empty().with_index(index))
}

/// `?enable`, which must be there.
///
/// # Errors
/// 400 where it is not there, or no boolean.
pub(crate) fn enable(parameters: &Parameters) -> Result<bool, ApiError> {
    match parameters.text("enable") {
        None => Err(ApiError::bad_request("Missing value for enable")),
        Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(true),
        Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(false),
        Some(other) => Err(ApiError::bad_request(format!(
            "Invalid value for enable: {:?}",
            echo(other)
        ))),
    }
}

/// The id of the check that takes an instance, or the node, out of use.
///
/// # Errors
/// The instance's id leaves no room for it.
pub(crate) fn check_id(instance: Option<&InstanceId>) -> Result<CheckId, ApiError> {
    Ok(match instance {
        None => CheckId::parse(OF_NODE)?,
        Some(id) => CheckId::parse(&format!("{OF_SERVICE}{id}"))?,
    })
}

/// `?reason`, or what stands for it.
///
/// # Errors
/// 400 where it is too long.
pub(crate) fn notes(parameters: &Parameters, instance: Option<&InstanceId>) -> Result<String, ApiError> {
    match parameters.text("reason") {
        Some(reason) if reason.len() > CHECK_NOTES_BYTES_MAX => Err(ApiError::new(
            StatusCode::BAD_REQUEST,
            format!("Invalid reason: expected at most {CHECK_NOTES_BYTES_MAX} bytes"),
        )),
        Some(reason) => Ok(reason.to_owned()),
        None => Ok(format!(
            "Maintenance mode is enabled for this {}, but no reason was provided. This is a default message.",
            if instance.is_some() { "service" } else { "node" }
        )),
    }
}

/// The check that takes an instance, or the node, out of use.
///
/// # Errors
/// As [`check_id`].
pub(crate) fn check(
    node: NodeName,
    namespace: Namespace,
    instance: Option<InstanceId>,
    notes: String,
) -> Result<CheckDefinitionUpdate, ApiError> {
    let name = match instance {
        None => "Node Maintenance Mode",
        Some(_) => "Service Maintenance Mode",
    };
    Ok(CheckDefinitionUpdate {
        id: check_id(instance.as_ref())?,
        namespace,
        node,
        name: name.to_owned(),
        instance,
        definition: CheckDefinition::default(),
        status: Some(CheckStatus::Critical),
        output: String::new(),
        notes,
    })
}
