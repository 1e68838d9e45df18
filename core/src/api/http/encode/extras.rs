//! What few instances say of themselves, in Consul's shapes. They differ in what they leave out when it is empty.

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::bodies::Empty;
use crate::registry::{Extras, Instance, Locality, NamedPort, Proxy};

/// Kinds of instances beside plain ones, of which an agent shows what they say as proxies.
const PROXY_KINDS: [&str; 5] = [
    Extras::CONNECT_PROXY,
    "mesh-gateway",
    "terminating-gateway",
    "ingress-gateway",
    "api-gateway",
];

/// Where something runs.
pub(crate) fn locality(locality: &Locality) -> Value {
    json!({ "Region": locality.region, "Zone": locality.zone })
}

/// Named ports, as a list.
pub(super) fn ports(ports: &[NamedPort]) -> Option<Value> {
    let shown = |port: &NamedPort| json!({ "Name": port.name, "Port": port.port, "Default": port.default });
    (!ports.is_empty()).then(|| ports.iter().map(shown).collect())
}

/// What there is beyond what most instances have, and no more: as a registration says it.
pub(crate) fn extras(extras: &Extras) -> Map<String, Value> {
    let mut body = Map::new();
    for (name, text) in [("Kind", &extras.kind), ("SocketPath", &extras.socket_path)] {
        if !text.is_empty() {
            body.insert(name.into(), text.as_str().into());
        }
    }
    let proxy = extras.proxy.as_ref().map(|proxy| Value::Object(said_by(proxy)));
    let native = extras.connect_native.then(|| json!({ "Native": true }));
    let others = [
        ("Locality", extras.locality.as_ref().map(locality)),
        ("Ports", ports(&extras.ports)),
        ("Proxy", proxy),
        ("Connect", native),
    ];
    for (name, value) in others {
        if let Some(value) = value {
            body.insert(name.into(), value);
        }
    }
    body
}

/// What a proxy says, without what it leaves open.
fn said_by(proxy: &Proxy) -> Map<String, Value> {
    let mut body = Map::new();
    for (name, text) in [
        ("DestinationServiceName", &proxy.destination_service_name),
        ("DestinationServiceID", &proxy.destination_service_id),
        ("LocalServiceAddress", &proxy.local_service_address),
        ("LocalServiceSocketPath", &proxy.local_service_socket_path),
        ("Mode", &proxy.mode),
    ] {
        if !text.is_empty() {
            body.insert(name.into(), text.as_str().into());
        }
    }
    if proxy.local_service_port != 0 {
        body.insert("LocalServicePort".into(), proxy.local_service_port.into());
    }
    // It was written by a server from what it had parsed.
    if let Ok(Value::Object(mut rest)) = serde_json::from_str(&proxy.rest) {
        body.append(&mut rest);
    }
    body
}

/// What Consul's catalog shows of a proxy, and of whatever is none.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum ProxyBody {
    None(NoProxy),
    Some(Map<String, Value>),
}

/// What Consul shows of a service that is no proxy.
#[derive(Clone, Copy, Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct NoProxy {
    mode: &'static str,
    mesh_gateway: Empty,
    expose: Empty,
}

impl ProxyBody {
    pub(super) fn of(instance: &Instance) -> ProxyBody {
        let Some(proxy) = instance.proxy() else {
            return ProxyBody::None(NoProxy::default());
        };
        let mut body = said_by(proxy);
        body.entry("Mode").or_insert_with(|| "".into());
        for name in ["MeshGateway", "Expose"] {
            body.entry(name).or_insert_with(|| json!({}));
        }
        ProxyBody::Some(body)
    }
}

/// Whether an instance is a member of a service mesh without a proxy.
#[derive(Clone, Copy, Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct ConnectBody {
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    native: bool,
}

impl ConnectBody {
    pub(super) fn of(instance: &Instance) -> ConnectBody {
        ConnectBody {
            native: instance
                .extras
                .as_ref()
                .is_some_and(|extras| extras.connect_native),
        }
    }

    /// Where it is left out when it says nothing.
    pub(super) fn if_native(instance: &Instance) -> Option<ConnectBody> {
        let body = ConnectBody::of(instance);
        body.native.then_some(body)
    }
}

/// What an agent shows of a proxy; nothing of whatever is none.
pub(super) fn agent_proxy(instance: &Instance) -> Option<Map<String, Value>> {
    if !PROXY_KINDS.contains(&instance.kind()) {
        return None;
    }
    let mut body = instance.proxy().map(said_by).unwrap_or_default();
    for name in ["MeshGateway", "Expose"] {
        body.entry(name).or_insert_with(|| json!({}));
    }
    Some(body)
}
