//! Services through an agent's API: registration in both forms, deregistration, heartbeat.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{
    Place, address,
    check::{self, Form},
    extras, meta, port,
};
use crate::{
    api::http::{
        body::Fields,
        error::{ApiError, echo},
    },
    limits::{
        CHECKS_PER_INSTANCE_MAX, NAME_BYTES_MAX, TAG_BYTES_MAX, TAGGED_ADDRESSES_MAX, TAGS_PER_INSTANCE_MAX,
        WEIGHT_MAX,
    },
    registry::{
        CheckId, Deregister, Instance, InstanceId, InstanceKey, Keeps, Namespace, NodeName, Registration,
        ServiceAddress, ServiceName, Weights,
    },
};

/// What a service's registration may say.
const FIELDS: [&str; 22] = [
    "Address",
    "Check",
    "Checks",
    "Connect",
    "EnableTagOverride",
    "ID",
    "Kind",
    "Locality",
    "Meta",
    "NS",
    "Name",
    "Namespace",
    "Port",
    "Ports",
    "Proxy",
    "ReplaceExistingChecks",
    "Service",
    "SocketPath",
    "TaggedAddresses",
    "Tags",
    "Token",
    "Weights",
];

/// Parses a body of `/v1/agent/service/register`, in either form.
///
/// A body is in the short form if one of its checks has a `type`; the forms differ in their checks only. What belongs
/// to Consul's service mesh (`Kind`, `Proxy`, `Connect`) is kept and shown; a `SidecarService` is not registered.
///
/// # Errors
/// 400 that names the field, what is wrong with it and what was expected.
pub fn parse_service(body: &Value, place: &Place) -> Result<Registration, ApiError> {
    if body.is_null() {
        return Err(ApiError::bad_request("Missing service name"));
    }
    let fields = Fields::of(body)?;
    fields.refuse_unknown(&FIELDS)?;
    let namespace = place.namespace(&fields)?;
    if fields.first_text(&["Name", "Service"])?.is_none() {
        return Err(ApiError::bad_request("Missing service name"));
    }
    refuse_no_weight(&fields)?;
    let instance = parse_instance(&fields, namespace, place.node.name.clone())?;
    refuse_reserved_meta(&fields, &instance)?;
    let checks = parse_checks(&fields, &instance, place.scripts)?;
    Ok(Registration {
        node: place.node.clone(),
        keeps: Keeps::NodeAndStatuses,
        instance: Some(instance),
        checks,
        replace_checks: fields.flag("ReplaceExistingChecks")?,
    })
}

/// The instance itself, as the agent's and the catalog's forms write it. The name must be there.
pub(super) fn parse_instance(
    fields: &Fields<'_>,
    namespace: Namespace,
    node: NodeName,
) -> Result<Instance, ApiError> {
    let name = fields.first_text(&["Name", "Service"])?.unwrap_or_default();
    let service = ServiceName::parse(name)?;
    let id = InstanceId::parse(fields.text("ID")?.unwrap_or(name))?;
    fields.text("Token")?;
    let address = address(fields, "Address")?;
    if ["0.0.0.0", "::", "[::]"].contains(&address.as_str()) {
        return Err(ApiError::bad_request("Invalid service address"));
    }
    let port = port(fields, "Port")?;
    Ok(Instance {
        namespace,
        node,
        id,
        service,
        address,
        port,
        tags: tags(fields)?,
        meta: meta(fields, "Meta", "Service")?,
        weights: weights(fields)?,
        tagged_addresses: tagged_addresses(fields)?,
        enable_tag_override: fields.flag("EnableTagOverride")?,
        create_index: 0,
        modify_index: 0,
        extras: extras::parse_extras(fields, port)?,
    })
}

fn tags(fields: &Fields<'_>) -> Result<Vec<String>, ApiError> {
    let tags = fields.texts("Tags")?;
    if tags.len() > TAGS_PER_INSTANCE_MAX {
        return Err(fields.error(
            "Tags",
            format!("expected at most {TAGS_PER_INSTANCE_MAX}, got {}", tags.len()),
        ));
    }
    if let Some(position) = tags.iter().position(|tag| tag.len() > TAG_BYTES_MAX) {
        return Err(fields.error(
            &format!("Tags[{position}]"),
            format!(
                "expected at most {TAG_BYTES_MAX} bytes, got {}",
                tags[position].len()
            ),
        ));
    }
    Ok(tags)
}

/// Proxies alone may have meta that Consul's own programs set.
fn refuse_reserved_meta(fields: &Fields<'_>, instance: &Instance) -> Result<(), ApiError> {
    let reserved = instance.meta.iter().find(|(key, _)| key.starts_with("consul-"));
    match reserved {
        Some((key, value)) if fields.text("Kind")?.is_none() => Err(ApiError::bad_request(format!(
            "Invalid Service Meta: Couldn't load metadata pair ('{key}', '{}'): Key prefix 'consul-' is reserved for internal use",
            echo(value)
        ))),
        _ => Ok(()),
    }
}

/// An agent's form says nothing of weights, or names one for passing instances that is not zero.
fn refuse_no_weight(fields: &Fields<'_>) -> Result<(), ApiError> {
    match fields.object("Weights")? {
        Some(weights) if weights.number("Passing", 0..=WEIGHT_MAX).ok().flatten() == Some(0) => {
            Err(no_weight())
        }
        Some(weights) if !weights.has("Passing")? => Err(no_weight()),
        _ => Ok(()),
    }
}

fn no_weight() -> ApiError {
    ApiError::bad_request("Invalid Weights: Passing must be greater than 0")
}

/// Weights: 1 and 1 when none are given, or two zeros (as Consul's Go client sends them for none to the catalog). When
/// only one is given, the other is 0.
fn weights(fields: &Fields<'_>) -> Result<Weights, ApiError> {
    let Some(fields) = fields.object("Weights")? else {
        return Ok(Weights::default());
    };
    let weight = |name| {
        if fields
            .get(name)?
            .and_then(Value::as_i64)
            .is_some_and(|number| number < 0)
        {
            let bound = if name == "Passing" {
                "greater than 0"
            } else {
                "greater or equal than 0"
            };
            return Err(ApiError::bad_request(format!(
                "Invalid Weights: {name} must be {bound}"
            )));
        }
        Ok(fields.number(name, 0..=WEIGHT_MAX)?.unwrap_or_default())
    };
    match (weight("Passing")?, weight("Warning")?) {
        (0, 0) => Ok(Weights::default()),
        (0, _) => Err(no_weight()),
        (passing, warning) => Ok(Weights { passing, warning }),
    }
}

fn tagged_addresses(fields: &Fields<'_>) -> Result<BTreeMap<String, ServiceAddress>, ApiError> {
    let entries = fields.entries("TaggedAddresses")?;
    if entries.len() > TAGGED_ADDRESSES_MAX {
        return Err(fields.error(
            "TaggedAddresses",
            format!("expected at most {TAGGED_ADDRESSES_MAX}, got {}", entries.len()),
        ));
    }
    let mut addresses = BTreeMap::new();
    for (tag, value) in entries {
        if tag.len() > NAME_BYTES_MAX {
            return Err(fields.error(
                "TaggedAddresses",
                format!(
                    "expected keys of at most {NAME_BYTES_MAX} bytes, got one of {}",
                    tag.len()
                ),
            ));
        }
        let path = format!("{}.{tag}", fields.path("TaggedAddresses"));
        let entry = Fields::at(value, &path)?;
        let tagged = ServiceAddress {
            address: address(&entry, "Address")?,
            port: port(&entry, "Port")?,
        };
        addresses.insert(tag.to_owned(), tagged);
    }
    Ok(addresses)
}

/// `Check` and `Checks`. An empty `Check` is none.
fn parse_checks(
    fields: &Fields<'_>,
    instance: &Instance,
    scripts: bool,
) -> Result<Vec<crate::registry::CheckDefinitionUpdate>, ApiError> {
    let mut bodies = Vec::new();
    if let Some(check) = fields.get("Check")?
        && !check.as_object().is_some_and(serde_json::Map::is_empty)
    {
        bodies.push(Fields::at(check, &fields.path("Check"))?);
    }
    for (position, check) in fields.list("Checks")?.iter().enumerate() {
        bodies.push(Fields::at(check, &fields.path(&format!("Checks[{position}]")))?);
    }
    if bodies.len() > CHECKS_PER_INSTANCE_MAX {
        return Err(fields.error(
            "Checks",
            format!("expected at most {CHECKS_PER_INSTANCE_MAX}, got {}", bodies.len()),
        ));
    }
    let mut form = Form::Consul;
    for body in &bodies {
        if body.text("Type")?.is_some() {
            form = Form::Short;
        }
    }
    let mut checks = Vec::with_capacity(bodies.len());
    let mut ids = BTreeSet::new();
    for (position, body) in bodies.iter().enumerate() {
        let id = match body.first_text(&["CheckID", "ID"])? {
            Some(id) => id.to_owned(),
            None => default_check_id(form, instance, position, bodies.len()),
        };
        let id = CheckId::parse(&id)?;
        if !ids.insert(id.clone()) {
            return Err(ApiError::bad_request(format!(
                "Invalid check: two checks have the id {:?}: expected different ones",
                id.as_str()
            )));
        }
        checks.push(check::parse_of_instance(body, form, id, instance, scripts)?);
    }
    Ok(checks)
}

fn default_check_id(form: Form, instance: &Instance, position: usize, checks: usize) -> String {
    match form {
        Form::Short => format!("chk:{}:{position}", instance.id),
        Form::Consul if checks == 1 => format!("service:{}", instance.id),
        Form::Consul => format!("service:{}:{}", instance.id, position + 1),
    }
}

/// Parses a body of `/v1/agent/service/deregister`: `{ns, service, id}`. Only an instance of that service is meant, if
/// one is named; its id is the service's name if none is given.
///
/// # Errors
/// 400 that says what is wrong.
pub fn parse_deregistration(body: &Value, place: &Place) -> Result<Deregister, ApiError> {
    let fields = Fields::of(body)?;
    let namespace = place.namespace(&fields)?;
    let service = fields.first_text(&["Service", "Name"])?;
    let Some(id) = fields.first_text(&["ID", "ServiceID"])?.or(service) else {
        return Err(ApiError::bad_request(
            "Missing service ID: expected \"id\" or \"service\"",
        ));
    };
    Ok(Deregister::Instance {
        key: InstanceKey {
            namespace,
            node: place.node.name.clone(),
            id: InstanceId::parse(id)?,
        },
        service: service.map(ServiceName::parse).transpose()?,
    })
}

/// Which instance a heartbeat is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InstanceReference {
    /// That of an id.
    Key(InstanceKey),
    /// Those of a service at an address.
    At {
        /// Namespace.
        namespace: Namespace,
        /// Service.
        service: ServiceName,
        /// Address of the instance, or of its node if it has none of its own.
        address: String,
        /// Port.
        port: u16,
    },
}

/// Parses a body of `/v1/agent/service/heartbeat`: `{ns, service, address, port}`, or with an `id` instead of the
/// address.
///
/// # Errors
/// 400 that says what is wrong.
pub fn parse_heartbeat(body: &Value, place: &Place) -> Result<InstanceReference, ApiError> {
    let fields = Fields::of(body)?;
    let namespace = place.namespace(&fields)?;
    let service = fields.first_text(&["Service", "Name"])?;
    let (address, port) = (address(&fields, "Address")?, port(&fields, "Port")?);
    if let Some(id) = fields.first_text(&["ID", "ServiceID"])? {
        return Ok(InstanceReference::Key(InstanceKey {
            namespace,
            node: place.node.name.clone(),
            id: InstanceId::parse(id)?,
        }));
    }
    let Some(service) = service else {
        return Err(ApiError::bad_request(
            "Missing service name: expected \"service\" with \"address\" and \"port\", or \"id\"",
        ));
    };
    Ok(InstanceReference::At {
        namespace,
        service: ServiceName::parse(service)?,
        address,
        port,
    })
}
