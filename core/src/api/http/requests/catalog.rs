//! Consul's catalog form: registrations that name their node, and deregistrations. Agents write to servers in it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::{
    address, body_namespace,
    check::{
        BAD_STATUS, alone, cut_output, parse_args, parse_common, parse_described_http, parse_described_tcp,
        parse_newer, parse_status_of, parse_ttl,
    },
    extras, meta, service,
};
use crate::{
    api::http::{body::Fields, encode, error::ApiError},
    limits::{
        ADDRESS_BYTES_MAX, CHECK_NAME_BYTES_MAX, CHECK_NOTES_BYTES_MAX, CHECKS_PER_INSTANCE_MAX,
        NAME_BYTES_MAX, TAGGED_ADDRESSES_MAX,
    },
    registry::{
        CheckDefinition, CheckDefinitionUpdate, CheckId, CheckKey, Deregister, InstanceId, InstanceKey,
        Keeps, Namespace, Node, NodeName, Probe, Registration,
    },
};

/// Parses a body of `/v1/catalog/register`: a node, a service and checks, each of the latter two optional.
///
/// Beyond Consul's form a check's `Definition` may have `TTL`, `Args` and the thresholds, and the body
/// `ReplaceExistingChecks`: what agents need to say. `datacenter` is this server's.
///
/// # Errors
/// 400 that names the field, what is wrong with it and what was expected.
pub fn parse_catalog_registration(
    body: &Value,
    namespace: Option<&Namespace>,
    datacenter: &str,
) -> Result<Registration, ApiError> {
    let fields = Fields::of(body)?;
    let namespace = body_namespace(namespace, &fields)?;
    check_datacenter(&fields, datacenter)?;
    let keeps_node = fields.flag("SkipNodeUpdate")?;
    let node = parse_node(&fields, "NodeMeta", keeps_node)?;
    let instance = match fields.object("Service")? {
        None => None,
        Some(service) if service.first_text(&["Service", "Name"])?.is_none() => {
            if service.text("ID")?.is_some() {
                return Err(ApiError::bad_request(
                    "Must provide service name (Service.Service) when service ID is provided",
                ));
            }
            return Err(ApiError::bad_request(
                "Missing service name: expected Service.Service",
            ));
        }
        Some(service) => {
            let namespace = body_namespace(Some(&namespace), &service)?;
            Some(service::parse_instance(&service, namespace, node.name.clone())?)
        }
    };
    Ok(Registration {
        checks: parse_checks(&fields, &namespace, &node.name)?,
        node,
        keeps: if keeps_node { Keeps::Node } else { Keeps::Nothing },
        instance,
        replace_checks: fields.flag("ReplaceExistingChecks")?,
    })
}

pub(super) fn check_datacenter(fields: &Fields<'_>, datacenter: &str) -> Result<(), ApiError> {
    match fields.text("Datacenter")? {
        Some(named) if named != datacenter => Err(super::super::options::no_path()),
        _ => Ok(()),
    }
}

/// A node, its meta under this name. It may lack an address only if it is known already.
pub(super) fn parse_node(fields: &Fields<'_>, meta_name: &str, known: bool) -> Result<Node, ApiError> {
    let Some(name) = fields.text("Node")? else {
        return Err(ApiError::server_error("Must provide node"));
    };
    let address = address(fields, "Address")?;
    if address.is_empty() && !known {
        return Err(ApiError::bad_request(
            "Must provide address if SkipNodeUpdate is not set",
        ));
    }
    let id = parse_node_id(fields, "ID")
        .map_err(|_| bad_node_id(fields))?
        .unwrap_or_default();
    let tagged_addresses = fields.text_map("TaggedAddresses")?;
    if tagged_addresses.len() > TAGGED_ADDRESSES_MAX {
        return Err(fields.error(
            "TaggedAddresses",
            format!(
                "expected at most {TAGGED_ADDRESSES_MAX}, got {}",
                tagged_addresses.len()
            ),
        ));
    }
    for (tag, address) in &tagged_addresses {
        if tag.len() > NAME_BYTES_MAX || address.len() > ADDRESS_BYTES_MAX {
            return Err(fields.error(
                "TaggedAddresses",
                format!("expected keys of at most {NAME_BYTES_MAX} bytes and addresses of at most {ADDRESS_BYTES_MAX}"),
            ));
        }
    }
    Ok(Node {
        name: NodeName::parse(name)?,
        id,
        address,
        tagged_addresses,
        meta: meta(fields, meta_name, "Node")?,
        create_index: 0,
        modify_index: 0,
        locality: extras::parse_locality(fields)?,
    })
}

/// What a configuration says of its own node's meta: `node_meta`.
///
/// # Errors
/// What is wrong with it.
pub fn parse_own_meta(fields: &Fields<'_>) -> Result<Option<BTreeMap<String, String>>, ApiError> {
    match fields.has("node_meta")? {
        true => meta(fields, "node_meta", "Node").map(Some),
        false => Ok(None),
    }
}

/// A node's id under this name, if there is one.
///
/// # Errors
/// It is no UUID.
pub fn parse_node_id(fields: &Fields<'_>, name: &str) -> Result<Option<String>, ApiError> {
    match fields.text(name)? {
        Some(id) if !is_uuid(id) => {
            Err(fields.error(name, "expected a UUID, like 40e4a748-2192-161a-0510-9bf59fe950b5"))
        }
        id => Ok(id.map(str::to_ascii_lowercase)),
    }
}

/// What is wrong with the id of a node, in Consul's words.
fn bad_node_id(fields: &Fields<'_>) -> ApiError {
    match fields.text("ID") {
        Ok(Some(id)) if id.len() == UUID_CHARS => {
            ApiError::bad_request("Bad node ID: uuid is improperly formatted")
        }
        Ok(_) => ApiError::bad_request("Bad node ID: uuid string is wrong length"),
        Err(error) => error,
    }
}

/// Characters of a UUID as it is written.
const UUID_CHARS: usize = 36;

fn is_uuid(text: &str) -> bool {
    text.len() == UUID_CHARS
        && text.bytes().enumerate().all(|(position, byte)| match position {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

/// `Check` and `Checks`.
fn parse_checks(
    fields: &Fields<'_>,
    namespace: &Namespace,
    node: &NodeName,
) -> Result<Vec<CheckDefinitionUpdate>, ApiError> {
    let mut bodies = Vec::new();
    bodies.extend(fields.object("Check")?);
    for (position, check) in fields.list("Checks")?.iter().enumerate() {
        bodies.push(Fields::at(check, &fields.path(&format!("Checks[{position}]")))?);
    }
    if bodies.len() > CHECKS_PER_INSTANCE_MAX {
        return Err(fields.error(
            "Checks",
            format!("expected at most {CHECKS_PER_INSTANCE_MAX}, got {}", bodies.len()),
        ));
    }
    let mut keys = BTreeSet::new();
    let mut checks = Vec::with_capacity(bodies.len());
    for body in &bodies {
        let check = parse_check(body, namespace, node)?;
        if !keys.insert(check.key()) {
            return Err(ApiError::bad_request(format!(
                "Invalid check: two checks have the id {:?}: expected different ones",
                check.id.as_str()
            )));
        }
        checks.push(check);
    }
    Ok(checks)
}

pub(super) fn parse_check(
    fields: &Fields<'_>,
    namespace: &Namespace,
    node: &NodeName,
) -> Result<CheckDefinitionUpdate, ApiError> {
    if let Some(named) = fields.text("Node")?
        && named != node.as_str()
    {
        return Err(fields.error(
            "Node",
            format!("expected the registration's node {:?}", node.as_str()),
        ));
    }
    let name = fields.bounded_text("Name", CHECK_NAME_BYTES_MAX)?;
    let Some(id) = fields
        .first_text(&["CheckID", "ID"])?
        .or(Some(&name))
        .filter(|id| !id.is_empty())
    else {
        return Err(fields.error("CheckID", "missing: expected CheckID or Name"));
    };
    let instance = fields.text("ServiceID")?.map(InstanceId::parse).transpose()?;
    Ok(CheckDefinitionUpdate {
        id: CheckId::parse(id)?,
        namespace: match instance {
            Some(_) => namespace.clone(),
            // A node's own checks count for its instances in every namespace, and live in the default one.
            None => Namespace::default(),
        },
        node: node.clone(),
        name,
        instance,
        definition: match fields.object("Definition")? {
            Some(definition) => parse_definition(&definition)?,
            None => CheckDefinition::default(),
        },
        status: parse_status_of(fields, BAD_STATUS)?,
        output: cut_output(fields.text("Output")?.unwrap_or_default()),
        notes: fields.bounded_text("Notes", CHECK_NOTES_BYTES_MAX)?,
    })
}

/// A definition in the catalog describes; whoever registered it runs the check. So one that names a kind that is not
/// known here is as good as none.
fn parse_definition(fields: &Fields<'_>) -> Result<CheckDefinition, ApiError> {
    let mut definition = parse_common(fields)?;
    definition.probe = if fields.duration("TTL")?.is_some_and(|ttl| ttl != 0) {
        parse_ttl(fields)?
    } else if let Some(url) = fields.text("HTTP")? {
        parse_described_http(fields, url)?
    } else if let Some(address) = fields.text("TCP")? {
        parse_described_tcp(fields, address)?
    } else if let Some(probe) = parse_newer(fields)? {
        probe
    } else {
        parse_args(fields)?.map_or(Probe::External, Probe::Cmd)
    };
    if fields.flag("RegisteredAlone")? {
        definition = alone(definition);
    }
    Ok(match fields.flag("OfAgent")? {
        true => definition.of_agent(),
        false => definition,
    })
}

/// Parses a body of `/v1/catalog/deregister`: a node, or one of its services (`ServiceID`) or checks (`CheckID`).
///
/// # Errors
/// 400 that says what is wrong.
pub fn parse_catalog_deregistration(
    body: &Value,
    namespace: Option<&Namespace>,
    datacenter: &str,
) -> Result<Deregister, ApiError> {
    let fields = Fields::of(body)?;
    let namespace = body_namespace(namespace, &fields)?;
    check_datacenter(&fields, datacenter)?;
    let Some(node) = fields.text("Node")? else {
        return Err(ApiError::server_error("Must provide node"));
    };
    let node = NodeName::parse(node)?;
    Ok(match (fields.text("ServiceID")?, fields.text("CheckID")?) {
        (Some(id), _) => Deregister::Instance {
            key: InstanceKey {
                namespace,
                node,
                id: InstanceId::parse(id)?,
            },
            service: None,
        },
        (None, Some(id)) => Deregister::Check(CheckKey {
            namespace,
            node,
            id: CheckId::parse(id)?,
        }),
        (None, None) => Deregister::Node(node),
    })
}

/// A registration in the catalog form, such that [`parse_catalog_registration`] gives it back: how agents send it.
pub fn encode_registration(registration: &Registration) -> Value {
    let node = &registration.node;
    let mut body = json!({
        "Node": node.name.as_str(),
        "ID": node.id,
        "Address": node.address,
        "TaggedAddresses": node.tagged_addresses,
        "NodeMeta": node.meta,
        "Locality": node.locality.as_ref().map(encode::locality),
        "SkipNodeUpdate": registration.keeps != Keeps::Nothing,
        "ReplaceExistingChecks": registration.replace_checks,
        "Checks": registration.checks.iter().map(encode_check).collect::<Vec<_>>(),
    });
    let of_instance = registration.checks.iter().find(|check| check.instance.is_some());
    if let Some(namespace) = registration
        .instance
        .as_ref()
        .map(|instance| &instance.namespace)
        .or(of_instance.map(|check| &check.namespace))
    {
        body["Namespace"] = json!(namespace.as_str());
    }
    if let Some(instance) = &registration.instance {
        let addresses: BTreeMap<_, _> = instance
            .tagged_addresses
            .iter()
            .map(|(tag, tagged)| (tag, json!({ "Address": tagged.address, "Port": tagged.port })))
            .collect();
        let mut service = json!({
            "ID": instance.id.as_str(),
            "Service": instance.service.as_str(),
            "Address": instance.address,
            "Port": instance.port,
            "Tags": instance.tags,
            "Meta": instance.meta,
            "Weights": { "Passing": instance.weights.passing, "Warning": instance.weights.warning },
            "TaggedAddresses": addresses,
            "EnableTagOverride": instance.enable_tag_override,
        });
        if let (Some(extras), Some(service)) = (&instance.extras, service.as_object_mut()) {
            service.append(&mut encode::extras(extras));
        }
        body["Service"] = service;
    }
    body
}

fn encode_check(check: &CheckDefinitionUpdate) -> Value {
    let mut body = Map::new();
    body.insert("CheckID".into(), json!(check.id.as_str()));
    body.insert("Name".into(), json!(check.name));
    body.insert("Notes".into(), json!(check.notes));
    body.insert("Output".into(), json!(check.output));
    body.insert("Definition".into(), encode::definition(&check.definition));
    if let Some(status) = check.status {
        body.insert("Status".into(), json!(status.as_str()));
    }
    if let Some(instance) = &check.instance {
        body.insert("ServiceID".into(), json!(instance.as_str()));
    }
    Value::Object(body)
}
