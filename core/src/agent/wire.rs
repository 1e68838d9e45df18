//! The JSON that an agent and its servers exchange. Registrations are in the catalog form, which names the node; what
//! is read has Consul's shape.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::{Response, StatusCode};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value, json};

use super::{local::LocalCheck, servers::CallError};
use crate::{
    api::http::requests::encode_registration,
    registry::{
        CheckDefinitionUpdate, CheckKey, CheckStatus, Instance, InstanceKey, Keeps, Node, Registration,
    },
    runtime::Instant,
};

/// One item of `/v1/batch/register`: the node, a service on it if there is one, and all checks of either.
pub(super) fn registration(
    node: &Node,
    instance: Option<&Instance>,
    checks: &[(&CheckKey, &LocalCheck)],
    now: Instant,
) -> Value {
    encode_registration(&Registration {
        node: node.clone(),
        keeps: Keeps::Nothing,
        instance: instance.cloned(),
        checks: checks
            .iter()
            .map(|(_, check)| {
                let status = check.status_to_register(now);
                CheckDefinitionUpdate {
                    status,
                    output: status.map(|_| check.output.clone()).unwrap_or_default(),
                    definition: check.spec.update.definition.clone().of_agent(),
                    ..check.spec.update.clone()
                }
            })
            .collect(),
        replace_checks: true,
    })
}

/// One item of `/v1/batch/renew`.
pub(super) fn report(key: &CheckKey, status: CheckStatus, output: &str) -> Value {
    json!({
        "Node": key.node.as_str(),
        "Namespace": key.namespace.as_str(),
        "CheckID": key.id.as_str(),
        "Status": status.as_str(),
        "Output": output,
    })
}

/// The body of `/v1/catalog/deregister` for an instance.
pub(super) fn deregister_service(key: &InstanceKey) -> Value {
    json!({
        "Node": key.node.as_str(),
        "Namespace": key.namespace.as_str(),
        "ServiceID": key.id.as_str(),
    })
}

/// The body of `/v1/catalog/deregister` for a check of the node's own.
pub(super) fn deregister_check(key: &CheckKey) -> Value {
    json!({
        "Node": key.node.as_str(),
        "Namespace": key.namespace.as_str(),
        "CheckID": key.id.as_str(),
    })
}

/// The body of `/v1/catalog/deregister` for a node with everything on it.
pub(super) fn deregister_node(node: &Node) -> Value {
    json!({ "Node": node.name.as_str() })
}

/// A service as the servers hold it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct HeldService {
    #[serde(rename = "ID")]
    pub(super) id: String,
    pub(super) service: String,
    #[serde(default, deserialize_with = "null_is_default")]
    pub(super) address: String,
    #[serde(default)]
    pub(super) port: u16,
    #[serde(default, deserialize_with = "null_is_default")]
    pub(super) tags: Vec<String>,
    #[serde(default, deserialize_with = "null_is_default")]
    pub(super) meta: BTreeMap<String, String>,
    pub(super) weights: Option<HeldWeights>,
    #[serde(default)]
    pub(super) enable_tag_override: bool,
    #[serde(default, deserialize_with = "null_is_default")]
    pub(super) tagged_addresses: BTreeMap<String, HeldAddress>,
    #[serde(default)]
    kind: Value,
    #[serde(default)]
    socket_path: Value,
    #[serde(default)]
    ports: Value,
    #[serde(default)]
    locality: Value,
    #[serde(default)]
    proxy: Value,
    #[serde(default)]
    connect: Value,
}

impl HeldService {
    /// What it has beyond what most services have, as a registration says it.
    pub(super) fn extras(&self) -> Map<String, Value> {
        // These are shown of every service.
        let mut proxy = self.proxy.clone();
        if let Some(fields) = proxy.as_object_mut() {
            fields.retain(|_, value| !says_nothing(value));
        }
        let fields = [
            ("Kind", self.kind.clone()),
            ("SocketPath", self.socket_path.clone()),
            ("Ports", self.ports.clone()),
            ("Locality", self.locality.clone()),
            ("Proxy", proxy),
            ("Connect", self.connect.clone()),
        ];
        let said = fields.into_iter().filter(|(_, value)| !says_nothing(value));
        said.map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

fn says_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    }
}

/// Weights as the servers hold them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct HeldWeights {
    pub(super) passing: u32,
    pub(super) warning: u32,
}

/// A tagged address as the servers hold it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct HeldAddress {
    pub(super) address: String,
    pub(super) port: u16,
}

/// A check as the servers hold it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct HeldCheck {
    #[serde(rename = "CheckID")]
    pub(super) check_id: String,
    #[serde(default)]
    pub(super) name: String,
    pub(super) status: String,
    #[serde(default)]
    pub(super) output: String,
    #[serde(default)]
    pub(super) notes: String,
    #[serde(rename = "ServiceID", default)]
    pub(super) service_id: String,
    #[serde(default)]
    pub(super) definition: Value,
}

/// A node with its services in one namespace, as the servers hold it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct HeldNode {
    pub(super) node: Option<HeldNodeAddress>,
    #[serde(default, deserialize_with = "null_is_default")]
    pub(super) services: Vec<HeldService>,
}

/// A node's own fields, as the servers hold them.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct HeldNodeAddress {
    #[serde(rename = "ID", default)]
    pub(super) id: String,
    #[serde(default)]
    pub(super) address: String,
    #[serde(default, deserialize_with = "null_is_default")]
    pub(super) tagged_addresses: BTreeMap<String, String>,
    #[serde(default, deserialize_with = "null_is_default")]
    pub(super) meta: BTreeMap<String, String>,
}

/// Reads an answer in JSON; `null` is the default.
pub(super) fn read<T: for<'de> Deserialize<'de> + Default>(body: &Bytes) -> Result<T, String> {
    serde_json::from_slice::<Option<T>>(body)
        .map(Option::unwrap_or_default)
        .map_err(|error| format!("unexpected answer: {error}"))
}

/// The index that a write's answer names, in its body or else in its header; 0 when it names none.
pub(super) fn index(answer: &Response<Bytes>) -> u64 {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Answer {
        index: u64,
    }
    let header = || {
        let index = answer.headers().get("x-consul-index")?;
        index.to_str().ok()?.parse().ok()
    };
    let body = serde_json::from_slice::<Answer>(answer.body());
    body.map(|answer| answer.index).ok().or_else(header).unwrap_or(0)
}

fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// Why the servers refused one item of `/v1/batch/renew`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RenewalRefused {
    /// As a status of HTTP.
    pub(super) status: StatusCode,
    /// In words.
    pub(super) message: String,
}

impl RenewalRefused {
    /// Whether the servers do not have the check.
    pub(super) fn unknown(&self) -> bool {
        self.status == StatusCode::NOT_FOUND
    }

    /// The same for whoever waits for the outcome.
    pub(super) fn into_error(self) -> CallError {
        CallError::Refused {
            status: self.status,
            message: self.message,
        }
    }
}

/// The answers of `/v1/batch/renew` to `items` items, in their order.
pub(super) fn renewed(body: &Bytes, items: usize) -> Result<Vec<Result<(), RenewalRefused>>, String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Answer {
        status: u16,
        #[serde(default)]
        error: String,
    }
    let answers: Vec<Answer> = read(body)?;
    if answers.len() != items {
        return Err(format!(
            "unexpected answer: {} answers to {items} renewals",
            answers.len()
        ));
    }
    Ok(answers
        .into_iter()
        .map(|answer| match StatusCode::from_u16(answer.status) {
            Ok(status) if status.is_success() => Ok(()),
            status => Err(RenewalRefused {
                status: status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
                message: answer.error,
            }),
        })
        .collect())
}
