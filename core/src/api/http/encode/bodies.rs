//! The shapes themselves: names and order of fields are Consul's.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value};

use super::{
    content_hash::content_hash,
    extras::{ConnectBody, ProxyBody},
};

/// A node, in lists of nodes and beside services.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct NodeBody<'a> {
    #[serde(rename = "ID")]
    pub(super) id: &'a str,
    pub(super) node: &'a str,
    pub(super) address: &'a str,
    pub(super) datacenter: &'a str,
    pub(super) tagged_addresses: Option<&'a BTreeMap<String, String>>,
    pub(super) meta: Option<&'a BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) locality: Option<Value>,
    pub(super) create_index: u64,
    pub(super) modify_index: u64,
}

/// An instance, in health answers and in those about a node. Consul leaves out a port of 0 here.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct ServiceBody<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(super) kind: &'a str,
    #[serde(rename = "ID")]
    pub(super) id: &'a str,
    pub(super) service: &'a str,
    pub(super) tags: Option<&'a [String]>,
    pub(super) address: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tagged_addresses: Option<BTreeMap<String, AddressBody>>,
    pub(super) meta: Option<&'a BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ports: Option<Value>,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(super) socket_path: &'a str,
    pub(super) weights: WeightsBody,
    pub(super) enable_tag_override: bool,
    pub(super) proxy: ProxyBody,
    pub(super) connect: ConnectBody,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) locality: Option<Value>,
    pub(super) peer_name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) namespace: Option<&'a str>,
    pub(super) create_index: u64,
    pub(super) modify_index: u64,
}

/// An instance with its node's fields, in `/v1/catalog/service`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct CatalogBody<'a> {
    #[serde(rename = "ID")]
    pub(super) id: &'a str,
    pub(super) node: &'a str,
    pub(super) address: &'a str,
    pub(super) datacenter: &'a str,
    pub(super) tagged_addresses: Option<&'a BTreeMap<String, String>>,
    pub(super) node_meta: Option<&'a BTreeMap<String, String>>,
    pub(super) service_kind: &'a str,
    #[serde(rename = "ServiceID")]
    pub(super) service_id: &'a str,
    pub(super) service_name: &'a str,
    pub(super) service_tags: &'a [String],
    pub(super) service_address: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) service_tagged_addresses: Option<BTreeMap<String, AddressBody>>,
    pub(super) service_weights: WeightsBody,
    pub(super) service_meta: &'a BTreeMap<String, String>,
    pub(super) service_port: u16,
    pub(super) service_ports: Option<Value>,
    pub(super) service_socket_path: &'a str,
    pub(super) service_enable_tag_override: bool,
    pub(super) service_proxy: ProxyBody,
    pub(super) service_connect: ConnectBody,
    pub(super) service_locality: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) namespace: Option<&'a str>,
    pub(super) create_index: u64,
    pub(super) modify_index: u64,
}

/// A check, in health answers.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct CheckBody<'a> {
    pub(super) node: &'a str,
    #[serde(rename = "CheckID")]
    pub(super) check_id: &'a str,
    pub(super) name: &'a str,
    pub(super) status: &'a str,
    pub(super) notes: &'a str,
    pub(super) output: &'a str,
    #[serde(rename = "ServiceID")]
    pub(super) service_id: &'a str,
    pub(super) service_name: &'a str,
    pub(super) service_tags: Option<&'a [String]>,
    pub(super) r#type: &'a str,
    pub(super) interval: String,
    pub(super) timeout: String,
    pub(super) exposed_port: u16,
    pub(super) definition: Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) namespace: Option<&'a str>,
    pub(super) create_index: u64,
    pub(super) modify_index: u64,
}

/// An instance as an agent's API shows it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct AgentServiceBody {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) kind: String,
    #[serde(rename = "ID")]
    pub(super) id: String,
    pub(super) service: String,
    pub(super) tags: Vec<String>,
    pub(super) meta: BTreeMap<String, String>,
    pub(super) port: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ports: Option<Value>,
    pub(super) address: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) socket_path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tagged_addresses: Option<BTreeMap<String, AddressBody>>,
    pub(super) weights: WeightsBody,
    pub(super) enable_tag_override: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) content_hash: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) proxy: Option<Map<String, Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) connect: Option<ConnectBody>,
    pub(super) datacenter: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) namespace: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) locality: Option<Value>,
}

impl AgentServiceBody {
    /// Adds the hash of the content, and gives it: equal contents have equal hashes, those of Consul.
    pub fn hashed(mut self) -> (Self, String) {
        let hash = content_hash(&self);
        self.content_hash = Some(hash.clone());
        (self, hash)
    }
}

/// A tagged address.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct AddressBody {
    pub(super) address: String,
    pub(super) port: u16,
}

/// Weights.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct WeightsBody {
    pub(super) passing: u32,
    pub(super) warning: u32,
}

impl From<crate::registry::Weights> for WeightsBody {
    fn from(weights: crate::registry::Weights) -> Self {
        WeightsBody {
            passing: weights.passing,
            warning: weights.warning,
        }
    }
}

/// What Consul shows as an empty object.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct Empty {}
