//! Bodies of `/v1/txn`.

use base64::{DecodeError, Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::StatusCode;
use serde_json::Value;

use super::{body_namespace, catalog, client_key, service};
use crate::{
    api::http::{
        body::Fields,
        error::{ApiError, echo},
        kv::refuse_foreign,
    },
    limits::OPERATIONS_PER_TRANSACTION_MAX,
    registry::{
        CheckId, CheckKey, InstanceId, InstanceKey, Key, KeyWrite, Namespace, NodeName, Operation, SessionId,
    },
    server::ServerConfig,
};

/// A transaction as a client wrote it.
#[derive(Clone, Debug, Default)]
pub struct ParsedTransaction {
    /// What can be carried out.
    pub operations: Vec<Operation>,
    /// Whether it only reads. A verb on keys that is unknown does not write.
    pub only_reads: bool,
    /// What can't, by its place, and why: nothing is to be carried out then.
    pub errors: Vec<(u64, String)>,
}

/// Why an operation can't be carried out: the whole request is wrong, or only its verb or key.
enum Wrong {
    Request(ApiError),
    Operation {
        /// Why.
        reason: String,
        /// Whether it would have written.
        writes: bool,
    },
}

impl<E: Into<ApiError>> From<E> for Wrong {
    fn from(error: E) -> Self {
        Wrong::Request(error.into())
    }
}

/// Parses a list of operations. Some kinds that are not known are left out, as Consul does.
///
/// # Errors
/// 400 or 413 that says what is wrong.
pub fn parse_transaction(
    body: &Value,
    namespace: &Namespace,
    config: &ServerConfig,
) -> Result<ParsedTransaction, ApiError> {
    let items = match body {
        Value::Array(items) => items.as_slice(),
        Value::Null => &[],
        _ => {
            return Err(ApiError::bad_request(
                "Failed to parse body: expected a list of operations",
            ));
        }
    };
    if items.len() > OPERATIONS_PER_TRANSACTION_MAX {
        return Err(too_large(format!(
            "Transaction contains too many operations ({} > {OPERATIONS_PER_TRANSACTION_MAX})",
            items.len()
        )));
    }
    let mut parsed = ParsedTransaction {
        only_reads: true,
        ..ParsedTransaction::default()
    };
    let mut value_bytes = 0;
    for (place, item) in items.iter().enumerate() {
        let fields = Fields::at(item, &format!("[{place}]"))?;
        match parse_operation(&fields, namespace, config) {
            Ok(Some(operation)) => {
                value_bytes += value_len(&operation);
                parsed.only_reads &= operation.only_reads();
                parsed.operations.push(operation);
            }
            Ok(None) => {}
            Err(Wrong::Operation { reason, writes }) => {
                parsed.only_reads &= !writes;
                parsed.errors.push((place as u64, reason));
            }
            Err(Wrong::Request(error)) => return Err(error),
        }
    }
    let max = config.transaction_bytes_max;
    if value_bytes > max {
        return Err(too_large(format!(
            "Cumulative size of key data is too large ({value_bytes} > {max} bytes)"
        )));
    }
    Ok(parsed)
}

fn too_large(message: String) -> ApiError {
    ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, message)
}

fn value_len(operation: &Operation) -> usize {
    match operation {
        Operation::SetKey(write)
        | Operation::SetKeyIf(write, _)
        | Operation::Lock(write, _)
        | Operation::Unlock(write, _) => write.value.len(),
        _ => 0,
    }
}

fn parse_operation(
    fields: &Fields<'_>,
    namespace: &Namespace,
    config: &ServerConfig,
) -> Result<Option<Operation>, Wrong> {
    // Whoever names the default one says no more than whoever names none.
    let named = Some(namespace).filter(|namespace| **namespace != Namespace::default());
    if let Some(body) = fields.object("KV")? {
        refuse_foreign(&body_namespace(named, &body)?)?;
        return parse_key(&body, config.value_bytes_max).map(Some);
    }
    if let Some(body) = fields.object("Node")? {
        return parse_node(&body, &config.datacenter).map(Some);
    }
    if let Some(body) = fields.object("Service")? {
        return parse_service(&body, named).map(Some);
    }
    if let Some(body) = fields.object("Check")? {
        return parse_check(&body, named).map(Some);
    }
    if let Some(body) = fields.object("Session")? {
        return parse_session(&body, named).map(Some);
    }
    Ok(None)
}

/// The verb, in lower case letters as clients write it.
fn verb<'a>(fields: &Fields<'a>) -> Result<&'a str, ApiError> {
    Ok(fields.text("Verb")?.unwrap_or_default())
}

fn unknown(kind: &str, verb: &str) -> Wrong {
    Wrong::Operation {
        reason: format!("unknown {kind} operation: {}", echo(verb)),
        writes: kind != "KV",
    }
}

fn parse_key(fields: &Fields<'_>, value_bytes_max: usize) -> Result<Operation, Wrong> {
    let key_text = fields.text("Key")?.unwrap_or_default();
    let key = client_key(key_text.to_owned())?;
    let session = || -> Result<Option<SessionId>, ApiError> {
        Ok(fields.text("Session")?.map(SessionId::parse).transpose()?)
    };
    let index = || unsigned(fields, "Index");
    let verb = verb(fields)?;
    if key.is_empty() && verb != "delete-tree" {
        return Err(Wrong::Operation {
            reason: "Must provide key".into(),
            writes: ["set", "cas", "lock", "unlock", "delete", "delete-cas"].contains(&verb),
        });
    }
    let write = |key: &Key| -> Result<KeyWrite, ApiError> {
        Ok(KeyWrite {
            key: key.clone(),
            value: value(fields, key, value_bytes_max)?,
            flags: unsigned(fields, "Flags")?,
        })
    };
    // The value is looked at whatever the verb is: one that is no base64 is no request.
    write(&key)?;
    Ok(match verb {
        "set" => Operation::SetKey(write(&key)?),
        "cas" => Operation::SetKeyIf(write(&key)?, index()?),
        "lock" => Operation::Lock(write(&key)?, session()?),
        "unlock" => Operation::Unlock(write(&key)?, session()?),
        "get" => Operation::GetKey(key),
        "get-or-empty" => Operation::GetKeyOrEmpty(key),
        "get-tree" => Operation::GetTree(key),
        "check-index" => Operation::CheckIndex(key, index()?),
        "check-session" => Operation::CheckSession(key, session()?),
        "check-not-exists" => Operation::CheckNotExists(key),
        "delete" => Operation::DeleteKey(key),
        "delete-tree" => Operation::DeleteTree(key),
        "delete-cas" => Operation::DeleteKeyIf(key, index()?),
        other => return Err(unknown("KV", other)),
    })
}

/// A number that is not negative; 0 when it is absent.
fn unsigned(fields: &Fields<'_>, name: &str) -> Result<u64, ApiError> {
    match fields.get(name)? {
        None => Ok(0),
        Some(value) => value
            .as_u64()
            .ok_or_else(|| fields.error(name, "expected a whole number that is not negative")),
    }
}

fn value(fields: &Fields<'_>, key: &Key, max: usize) -> Result<Bytes, ApiError> {
    let Some(text) = fields.text("Value")? else {
        return Ok(Bytes::new());
    };
    // Lines may be broken, as in mails; Go's decoder skips their ends, too.
    let joined = text
        .contains(['\r', '\n'])
        .then(|| text.replace(['\r', '\n'], ""));
    let value = STANDARD
        .decode(joined.as_deref().unwrap_or(text))
        .map_err(|error| {
            let place = match error {
                DecodeError::InvalidByte(place, _) => place,
                _ => text.len(),
            };
            ApiError::bad_request(format!(
                "Failed to parse body: illegal base64 data at input byte {place}"
            ))
        })?;
    if value.len() > max {
        return Err(too_large(format!(
            "Value for key {key:?} is too large ({} > {max} bytes)",
            value.len()
        )));
    }
    Ok(value.into())
}

fn inner<'a>(fields: &Fields<'a>, name: &str) -> Result<Fields<'a>, ApiError> {
    match fields.object(name)? {
        Some(inner) => Ok(inner),
        None => Err(fields.error(name, "missing: expected an object")),
    }
}

fn node_name(fields: &Fields<'_>) -> Result<NodeName, ApiError> {
    match fields.text("Node")? {
        Some(name) => Ok(NodeName::parse(name)?),
        None => Err(ApiError::bad_request("Must provide node")),
    }
}

fn parse_node(fields: &Fields<'_>, datacenter: &str) -> Result<Operation, Wrong> {
    let body = inner(fields, "Node")?;
    catalog::check_datacenter(&body, datacenter)?;
    let index = || unsigned(&body, "ModifyIndex");
    let node = || catalog::parse_node(&body, "Meta", true);
    Ok(match verb(fields)? {
        "get" => Operation::GetNode(node_name(&body)?),
        "set" => Operation::SetNode(node()?),
        "cas" => Operation::SetNodeIf(node()?, index()?),
        "delete" => Operation::DeleteNode(node_name(&body)?),
        "delete-cas" => Operation::DeleteNodeIf(node_name(&body)?, index()?),
        other => return Err(unknown("Node", other)),
    })
}

fn parse_service(fields: &Fields<'_>, named: Option<&Namespace>) -> Result<Operation, Wrong> {
    let node = node_name(fields)?;
    let body = inner(fields, "Service")?;
    let namespace = body_namespace(named, &body)?;
    let index = || unsigned(&body, "ModifyIndex");
    let instance = || service::parse_instance(&body, namespace.clone(), node.clone());
    let key = || -> Result<InstanceKey, ApiError> {
        let id = body.first_text(&["ID", "Service"])?.unwrap_or_default();
        Ok(InstanceKey {
            namespace: namespace.clone(),
            node: node.clone(),
            id: InstanceId::parse(id)?,
        })
    };
    Ok(match verb(fields)? {
        "get" => Operation::GetInstance(key()?),
        "set" => Operation::SetInstance(instance()?),
        "cas" => Operation::SetInstanceIf(instance()?, index()?),
        "delete" => Operation::DeleteInstance(key()?),
        "delete-cas" => Operation::DeleteInstanceIf(key()?, index()?),
        other => return Err(unknown("Service", other)),
    })
}

fn parse_check(fields: &Fields<'_>, named: Option<&Namespace>) -> Result<Operation, Wrong> {
    let body = inner(fields, "Check")?;
    let namespace = body_namespace(named, &body)?;
    let node = node_name(&body)?;
    let index = || unsigned(&body, "ModifyIndex");
    let check = || catalog::parse_check(&body, &namespace, &node);
    let key = || -> Result<CheckKey, ApiError> {
        let id = body.first_text(&["CheckID", "ID"])?.unwrap_or_default();
        Ok(CheckKey {
            namespace: namespace.clone(),
            node: node.clone(),
            id: CheckId::parse(id)?,
        })
    };
    Ok(match verb(fields)? {
        "get" => Operation::GetCheck(key()?),
        "set" => Operation::SetCheck(check()?),
        "cas" => Operation::SetCheckIf(check()?, index()?),
        "delete" => Operation::DeleteCheck(key()?),
        "delete-cas" => Operation::DeleteCheckIf(key()?, index()?),
        other => return Err(unknown("Check", other)),
    })
}

fn parse_session(fields: &Fields<'_>, named: Option<&Namespace>) -> Result<Operation, Wrong> {
    let body = inner(fields, "Session")?;
    refuse_foreign(&body_namespace(named, &body)?)?;
    match verb(fields)? {
        "delete" => {
            let id = body.text("ID")?.unwrap_or_default();
            Ok(Operation::DestroySession(SessionId::parse(id)?))
        }
        other => Err(unknown("Session", other)),
    }
}
