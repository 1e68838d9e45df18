//! The hash of what an agent shows of a service, such that equal contents have equal hashes, and the same ones as in
//! Consul: there it is a hash of the structure, by the names of its types and fields.
//!
//! Every value has a hash of 64 bits (FNV-1). That of a number is of its bytes, little-endian; that of a list is folded
//! from those of its items in their order; that of a map or a structure is the exclusive or of what its entries give, so
//! their order does not matter. What is not there hashes like the number 0.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::bodies::{AddressBody, AgentServiceBody};
use crate::api::http::body::Fields;

const NOTHING: i64 = 0;

/// The hash, in hex.
pub(super) fn content_hash(service: &AgentServiceBody) -> String {
    let proxy = service.proxy.as_ref().map_or(int(NOTHING), proxy);
    let connect = match &service.connect {
        None => int(NOTHING),
        Some(_) => structure(
            "AgentServiceConnect",
            &[("Native", flag(true)), ("SidecarService", int(NOTHING))],
        ),
    };
    let weights = structure(
        "AgentWeights",
        &[
            ("Passing", int(service.weights.passing.into())),
            ("Warning", int(service.weights.warning.into())),
        ],
    );
    let hash = structure(
        "AgentService",
        &[
            ("Kind", text(&service.kind)),
            ("ID", text(&service.id)),
            ("Service", text(&service.service)),
            ("Tags", list(service.tags.iter().map(|tag| text(tag)))),
            (
                "Meta",
                map(service.meta.iter().map(|(key, value)| (key, text(value)))),
            ),
            ("Port", int(service.port.into())),
            ("Ports", ports(service.ports.as_ref())),
            ("Address", text(&service.address)),
            ("SocketPath", text(&service.socket_path)),
            ("TaggedAddresses", addresses(service.tagged_addresses.as_ref())),
            ("Weights", weights),
            ("EnableTagOverride", flag(service.enable_tag_override)),
            ("CreateIndex", int(NOTHING)),
            ("ModifyIndex", int(NOTHING)),
            ("ContentHash", text("")),
            ("Proxy", proxy),
            ("Connect", connect),
            ("PeerName", text("")),
        ],
    );
    format!("{hash:x}")
}

fn addresses(addresses: Option<&BTreeMap<String, AddressBody>>) -> u64 {
    let address = |at: &AddressBody| {
        structure(
            "ServiceAddress",
            &[("Address", text(&at.address)), ("Port", int(at.port.into()))],
        )
    };
    map(addresses
        .into_iter()
        .flatten()
        .map(|(tag, at)| (tag, address(at))))
}

fn ports(ports: Option<&Value>) -> u64 {
    let fields = [("Name", Kind::Text), ("Port", Kind::Int), ("Default", Kind::Flag)];
    list(items(ports).map(|port| structure_of("ServicePort", &fields, port)))
}

/// The kinds of fields that proxies have.
#[derive(Clone, Copy)]
enum Kind {
    Text,
    Int,
    Flag,
    /// A map of whatever values.
    Any,
    MeshGateway,
}

fn proxy(body: &Map<String, Value>) -> u64 {
    let body = Value::Object(body.clone());
    let extensions = [
        ("Name", Kind::Text),
        ("Required", Kind::Flag),
        ("Arguments", Kind::Any),
        ("ConsulVersion", Kind::Text),
        ("EnvoyVersion", Kind::Text),
    ];
    let upstreams = [
        ("DestinationType", Kind::Text),
        ("DestinationPartition", Kind::Text),
        ("DestinationNamespace", Kind::Text),
        ("DestinationPeer", Kind::Text),
        ("DestinationName", Kind::Text),
        ("Datacenter", Kind::Text),
        ("LocalBindAddress", Kind::Text),
        ("LocalBindPort", Kind::Int),
        ("LocalBindSocketPath", Kind::Text),
        ("LocalBindSocketMode", Kind::Text),
        ("Config", Kind::Any),
        ("MeshGateway", Kind::MeshGateway),
        ("CentrallyConfigured", Kind::Flag),
    ];
    let transparent = [
        ("OutboundListenerPort", Kind::Int),
        ("DialedDirectly", Kind::Flag),
    ];
    let logs = [
        ("Enabled", Kind::Flag),
        ("DisableListenerLogs", Kind::Flag),
        ("Type", Kind::Text),
        ("Path", Kind::Text),
        ("JSONFormat", Kind::Text),
        ("TextFormat", Kind::Text),
    ];
    let each = |name, of, fields: &[(&str, Kind)]| {
        list(items(field(&body, name)).map(|item| structure_of(of, fields, item)))
    };
    let optional = |name, of, fields: &[(&str, Kind)]| {
        field(&body, name).map_or(int(NOTHING), |value| structure_of(of, fields, value))
    };
    let plain = |name, kind| hash_as(kind, field(&body, name));
    structure(
        "AgentServiceConnectProxyConfig",
        &[
            (
                "EnvoyExtensions",
                each("EnvoyExtensions", "EnvoyExtension", &extensions),
            ),
            (
                "DestinationServiceName",
                plain("DestinationServiceName", Kind::Text),
            ),
            ("DestinationServiceID", plain("DestinationServiceID", Kind::Text)),
            ("LocalServiceAddress", plain("LocalServiceAddress", Kind::Text)),
            ("LocalServicePort", plain("LocalServicePort", Kind::Int)),
            (
                "LocalServiceSocketPath",
                plain("LocalServiceSocketPath", Kind::Text),
            ),
            ("Mode", plain("Mode", Kind::Text)),
            (
                "TransparentProxy",
                optional("TransparentProxy", "TransparentProxyConfig", &transparent),
            ),
            ("Config", plain("Config", Kind::Any)),
            ("Upstreams", each("Upstreams", "Upstream", &upstreams)),
            ("MeshGateway", plain("MeshGateway", Kind::MeshGateway)),
            ("Expose", expose(field(&body, "Expose"))),
            ("AccessLogs", optional("AccessLogs", "AccessLogsConfig", &logs)),
        ],
    )
}

fn expose(body: Option<&Value>) -> u64 {
    let path = [
        ("ListenerPort", Kind::Int),
        ("Path", Kind::Text),
        ("LocalPathPort", Kind::Int),
        ("Protocol", Kind::Text),
        ("ParsedFromCheck", Kind::Flag),
    ];
    let inner = |name| body.and_then(|body| field(body, name));
    let paths = list(items(inner("Paths")).map(|item| structure_of("ExposePath", &path, item)));
    structure(
        "ExposeConfig",
        &[("Checks", hash_as(Kind::Flag, inner("Checks"))), ("Paths", paths)],
    )
}

/// A field of an object, by its name in any spelling; nothing of whatever is no object.
fn field<'a>(body: &'a Value, name: &str) -> Option<&'a Value> {
    Fields::of(body).ok()?.get(name).ok()?
}

fn items(value: Option<&Value>) -> impl Iterator<Item = &Value> {
    value.and_then(Value::as_array).into_iter().flatten()
}

fn structure_of(name: &str, fields: &[(&str, Kind)], body: &Value) -> u64 {
    let fields: Vec<_> = fields
        .iter()
        .map(|(name, kind)| (*name, hash_as(*kind, field(body, name))))
        .collect();
    structure(name, &fields)
}

fn hash_as(kind: Kind, value: Option<&Value>) -> u64 {
    match kind {
        Kind::Text => text(value.and_then(Value::as_str).unwrap_or_default()),
        Kind::Int => int(value.and_then(Value::as_i64).unwrap_or_default()),
        Kind::Flag => flag(value.and_then(Value::as_bool).unwrap_or_default()),
        Kind::Any => match value {
            Some(Value::Object(_)) => any(value.unwrap_or(&Value::Null)),
            _ => 0,
        },
        Kind::MeshGateway => {
            let mode = value.and_then(|value| field(value, "Mode"));
            structure("MeshGatewayConfig", &[("Mode", hash_as(Kind::Text, mode))])
        }
    }
}

/// A value of no declared type, as Go reads it from JSON.
fn any(value: &Value) -> u64 {
    match value {
        Value::Null => int(NOTHING),
        Value::Bool(value) => flag(*value),
        Value::Number(number) => fnv(&number.as_f64().unwrap_or_default().to_le_bytes()),
        Value::String(value) => text(value),
        Value::Array(items) => list(items.iter().map(any)),
        Value::Object(fields) => map(fields.iter().map(|(key, value)| (key, any(value)))),
    }
}

fn structure(name: &str, fields: &[(&str, u64)]) -> u64 {
    fields.iter().fold(text(name), |hash, (name, value)| {
        hash ^ ordered(text(name), *value)
    })
}

fn map<'a>(entries: impl Iterator<Item = (&'a String, u64)>) -> u64 {
    entries.fold(0, |hash, (key, value)| hash ^ ordered(text(key), value))
}

fn list(items: impl Iterator<Item = u64>) -> u64 {
    items.fold(0, ordered)
}

fn ordered(one: u64, other: u64) -> u64 {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&one.to_le_bytes());
    bytes[8..].copy_from_slice(&other.to_le_bytes());
    fnv(&bytes)
}

fn text(text: &str) -> u64 {
    fnv(text.as_bytes())
}

fn int(number: i64) -> u64 {
    fnv(&number.to_le_bytes())
}

fn flag(flag: bool) -> u64 {
    fnv(&[u8::from(flag)])
}

/// FNV-1 of 64 bits.
fn fnv(bytes: &[u8]) -> u64 {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0100_0000_01b3;
    bytes
        .iter()
        .fold(OFFSET, |hash, byte| hash.wrapping_mul(PRIME) ^ u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::{
        api::http::{
            encode::Encoder,
            requests::{Place, parse_service, plain_node},
        },
        registry::NodeName,
    };

    /// The hash of what an agent shows of this registration.
    fn hash_of(body: &serde_json::Value) -> String {
        let node = NodeName::parse("host").expect("a name");
        let place = Place {
            node: plain_node(node.clone(), "127.0.0.1"),
            namespace: None,
            scripts: false,
        };
        let registration = parse_service(body, &place).expect("a valid registration");
        // An address is shown by its family too, which is not what these hashes were made of.
        let elsewhere = NodeName::parse("elsewhere").expect("a name");
        let encoder = Encoder {
            datacenter: "dc1",
            agent_node: &elsewhere,
        };
        let instance = registration.instance.expect("there is one");
        encoder.agent_service(&instance).hashed().1
    }

    // The hashes were computed by the library that Consul uses, over its own types.

    #[test]
    fn plain_services_have_the_hashes_that_consul_gives_them() {
        assert_eq!(hash_of(&json!({"Name": "redis"})), "e2f27ec034bf8c3c");
        let tagged = json!({"Name": "foo", "Tags": ["bar", "baz"], "Port": 8000});
        assert_eq!(hash_of(&tagged), "c4bb6737c185ed93");
        let same = json!({"Name": "foo", "Tags": ["baz", "bar"], "Port": 8000});
        assert_ne!(hash_of(&same), "c4bb6737c185ed93");
    }

    #[test]
    fn everything_that_is_shown_counts_but_the_locality() {
        let full = json!({
            "Kind": "typical", "ID": "full", "Name": "web", "Tags": ["a", "b"], "Port": 8000,
            "Ports": [{"Name": "http", "Port": 8000, "Default": true}, {"Name": "m", "Port": 9}],
            "Meta": {"x": "y", "z": ""}, "Address": "10.0.0.1", "SocketPath": "/tmp/s",
            "TaggedAddresses": {"lan": {"Address": "1.2.3.4", "Port": 5}, "wan": {"Address": "q"}},
            "EnableTagOverride": true, "Weights": {"Passing": 10, "Warning": 0},
            "Locality": {"Region": "r"}, "Connect": {"Native": true},
        });
        assert_eq!(hash_of(&full), "b5c8345bbc54d029");
    }

    #[test]
    fn so_does_what_a_proxy_says() {
        let proxy = json!({
            "Kind": "connect-proxy", "ID": "web1-px", "Name": "web-proxy", "Port": 21000,
            "Proxy": {
                "DestinationServiceName": "web", "DestinationServiceID": "web1", "LocalServiceAddress": "127.0.0.1",
                "LocalServicePort": 8000,
                "Config": {"a": 1.5, "b": "c", "d": {"e": true, "n": null}, "l": [1, "x"]},
                "Expose": {"Checks": true,
                    "Paths": [{"ListenerPort": 1, "Path": "/m", "LocalPathPort": 2, "Protocol": "http2"}]},
                "Upstreams": [{"DestinationName": "db", "LocalBindPort": 99}],
            },
        });
        assert_eq!(hash_of(&proxy), "d6507bb1cef33d79");
    }
}
