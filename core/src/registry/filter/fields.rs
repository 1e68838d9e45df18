//! What selectors point at: the fields of records, by the names that answers give them.

use std::{collections::BTreeMap, sync::OnceLock};

use smol_str::SmolStr;

use crate::registry::{
    Check, CheckDefinition, CheckId, CheckStatus, Instance, InstanceId, Namespace, Node, NodeName, Proxy,
    ServiceAddress, ServiceName, Weights,
};

/// What kind of record a filter is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Shape {
    /// As in `/v1/catalog/nodes`.
    Node,
    /// As in `/v1/catalog/service/{name}` and `/v1/catalog/services`: a node with an instance, in one.
    CatalogService,
    /// As in `/v1/catalog/node/{name}` and `/v1/agent/services`.
    Service,
    /// As in `/v1/health/service/{name}`: `Node`, `Service` and `Checks`.
    Health,
    /// As in the other lists of `/v1/health`, and in `/v1/agent/checks`.
    Check,
}

/// A record of one of the shapes.
#[derive(Clone, Copy, Debug)]
pub enum Record<'a> {
    /// [`Shape::Node`].
    Node(&'a Node),
    /// [`Shape::CatalogService`].
    CatalogService(&'a Node, &'a Instance),
    /// [`Shape::Service`].
    Service(&'a Instance),
    /// [`Shape::Health`], with the checks of the node and of the instance.
    Health(&'a Node, &'a Instance, &'a [&'a Check]),
    /// [`Shape::Check`], with the name and tags of its service where it has one.
    Check(&'a Check, Option<(&'a ServiceName, &'a [String])>),
}

/// A field's value.
#[derive(Debug)]
pub(super) enum Field<'a> {
    Text(&'a str),
    Number(i64),
    Bool(bool),
    Texts(&'a [String]),
    /// A map, of which only the keys matter.
    Keys(Keys<'a>),
    /// A key that a map does not have.
    Absent,
    /// How many records there are, of which only this matters.
    Count(usize),
    /// Checks, of which the rest of the selector picks a field each, with their instance.
    Each(&'a Instance, &'a [&'a Check]),
}

/// The keys of a map.
#[derive(Debug)]
pub(super) enum Keys<'a> {
    Texts(&'a BTreeMap<String, String>),
    Addresses(&'a BTreeMap<String, ServiceAddress>),
}

impl Keys<'_> {
    pub(super) fn contains(&self, key: &str) -> bool {
        match self {
            Keys::Texts(map) => map.contains_key(key),
            Keys::Addresses(map) => map.contains_key(key),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        match self {
            Keys::Texts(map) => map.is_empty(),
            Keys::Addresses(map) => map.is_empty(),
        }
    }
}

/// The field of some record of a shape: its type says what can be asked. `None` if such records have no such field.
pub(super) fn sample(shape: Shape, selector: &[SmolStr]) -> Option<Field<'static>> {
    static SAMPLE: OnceLock<(Node, Instance, Check)> = OnceLock::new();
    let (node, instance, check) = SAMPLE.get_or_init(some_records);
    let record = match (shape, selector) {
        (Shape::Node, _) => Record::Node(node),
        (Shape::CatalogService, _) => Record::CatalogService(node, instance),
        (Shape::Service, _) => Record::Service(instance),
        (Shape::Health, [name, rest @ ..]) if name == "Checks" && !rest.is_empty() => {
            return field(Record::Check(check, None), rest, "");
        }
        (Shape::Health, _) => Record::Health(node, instance, &[]),
        (Shape::Check, _) => Record::Check(check, None),
    };
    field(record, selector, "")
}

/// The field that a selector points at.
pub(super) fn field<'a>(record: Record<'a>, selector: &[SmolStr], datacenter: &'a str) -> Option<Field<'a>> {
    let (name, rest) = selector.split_first()?;
    match record {
        Record::Node(node) => node_field(node, name, rest, datacenter),
        Record::Service(instance) => service_field(instance, name, rest, datacenter),
        Record::CatalogService(node, instance) => catalog_field(node, instance, name, rest, datacenter),
        Record::Check(check, service) => check_field(check, service, name, rest),
        Record::Health(node, instance, checks) => match (name.as_str(), rest) {
            ("Checks", []) => Some(Field::Count(checks.len())),
            ("Checks", _) => Some(Field::Each(instance, checks)),
            ("Node", _) => field(Record::Node(node), rest, datacenter),
            ("Service", _) => field(Record::Service(instance), rest, datacenter),
            _ => None,
        },
    }
}

fn node_field<'a>(node: &'a Node, name: &str, rest: &[SmolStr], datacenter: &'a str) -> Option<Field<'a>> {
    match name {
        "TaggedAddresses" => texts(&node.tagged_addresses, rest),
        "Meta" => texts(&node.meta, rest),
        _ if !rest.is_empty() => None,
        "ID" => text(&node.id),
        "Node" => text(node.name.as_str()),
        "Address" => text(&node.address),
        "Datacenter" => text(datacenter),
        "PeerName" => text(""),
        "CreateIndex" => number(node.create_index),
        "ModifyIndex" => number(node.modify_index),
        _ => None,
    }
}

fn service_field<'a>(
    instance: &'a Instance,
    name: &str,
    rest: &[SmolStr],
    datacenter: &'a str,
) -> Option<Field<'a>> {
    match name {
        "TaggedAddresses" => addresses(&instance.tagged_addresses, rest),
        "Meta" => texts(&instance.meta, rest),
        "Weights" => weights(instance.weights, rest),
        "Proxy" => proxy_field(instance.proxy(), rest),
        "Connect" => match rest {
            [name] if name == "Native" => {
                let native = instance
                    .extras
                    .as_ref()
                    .is_some_and(|extras| extras.connect_native);
                Some(Field::Bool(native))
            }
            _ => None,
        },
        _ if !rest.is_empty() => None,
        "Kind" => text(instance.kind()),
        "SocketPath" => text(instance.socket_path()),
        "PeerName" => text(""),
        "ID" => text(instance.id.as_str()),
        "Service" => text(instance.service.as_str()),
        "Tags" => Some(Field::Texts(&instance.tags)),
        "Address" => text(&instance.address),
        "Port" => number(instance.port),
        "EnableTagOverride" => Some(Field::Bool(instance.enable_tag_override)),
        "Datacenter" => text(datacenter),
        "Namespace" => text(instance.namespace.as_str()),
        "CreateIndex" => number(instance.create_index),
        "ModifyIndex" => number(instance.modify_index),
        _ => None,
    }
}

/// Of what a proxy says, what there is a meaning for.
fn proxy_field<'a>(proxy: Option<&'a Proxy>, rest: &[SmolStr]) -> Option<Field<'a>> {
    let [name] = rest else { return None };
    let of = |pick: fn(&Proxy) -> &str| text(proxy.map_or("", pick));
    match name.as_str() {
        "DestinationServiceName" => of(|proxy| &proxy.destination_service_name),
        "DestinationServiceID" => of(|proxy| &proxy.destination_service_id),
        "LocalServiceAddress" => of(|proxy| &proxy.local_service_address),
        "LocalServicePort" => number(proxy.map_or(0, |proxy| proxy.local_service_port)),
        "LocalServiceSocketPath" => of(|proxy| &proxy.local_service_socket_path),
        "Mode" => of(|proxy| &proxy.mode),
        _ => None,
    }
}

fn catalog_field<'a>(
    node: &'a Node,
    instance: &'a Instance,
    name: &str,
    rest: &[SmolStr],
    datacenter: &'a str,
) -> Option<Field<'a>> {
    let of_service = match name {
        "ServiceID" => "ID",
        "ServiceName" => "Service",
        "NodeMeta" => return node_field(node, "Meta", rest, datacenter),
        "ID" | "Node" | "Address" | "Datacenter" | "TaggedAddresses" => {
            return node_field(node, name, rest, datacenter);
        }
        "CreateIndex" | "ModifyIndex" | "PeerName" | "Namespace" => name,
        _ => name.strip_prefix("Service").filter(|name| {
            !matches!(
                *name,
                "ID" | "Service" | "Datacenter" | "CreateIndex" | "ModifyIndex"
            )
        })?,
    };
    service_field(instance, of_service, rest, datacenter)
}

fn check_field<'a>(
    check: &'a Check,
    service: Option<(&'a ServiceName, &'a [String])>,
    name: &str,
    rest: &[SmolStr],
) -> Option<Field<'a>> {
    if !rest.is_empty() {
        return None;
    }
    match name {
        "Node" => text(check.node.as_str()),
        "CheckID" => text(check.id.as_str()),
        "Name" => text(&check.name),
        "Status" => text(check.status.as_str()),
        "Notes" => text(&check.notes),
        "Output" => text(&check.output),
        "ServiceID" => text(check.instance.as_ref().map_or("", InstanceId::as_str)),
        "ServiceName" => text(service.map_or("", |(name, _)| name.as_str())),
        "ServiceTags" => Some(Field::Texts(service.map_or(&[], |(_, tags)| tags))),
        "Type" => text(check.definition.probe.kind().as_str()),
        "Namespace" => text(check.namespace.as_str()),
        "Interval" | "Timeout" | "PeerName" => text(""),
        "ExposedPort" => number(0_u16),
        "CreateIndex" => number(check.create_index),
        "ModifyIndex" => number(check.modify_index),
        _ => None,
    }
}

#[expect(
    clippy::unnecessary_wraps,
    reason = "it stands in a list of fields that may not be there"
)]
fn text(text: &str) -> Option<Field<'_>> {
    Some(Field::Text(text))
}

#[expect(
    clippy::unnecessary_wraps,
    reason = "it stands in a list of fields that may not be there"
)]
fn number(number: impl TryInto<i64>) -> Option<Field<'static>> {
    Some(Field::Number(number.try_into().unwrap_or(i64::MAX)))
}

fn texts<'a>(map: &'a BTreeMap<String, String>, rest: &[SmolStr]) -> Option<Field<'a>> {
    match rest {
        [] => Some(Field::Keys(Keys::Texts(map))),
        [key] => match map.get(key.as_str()) {
            Some(value) => text(value),
            None => Some(Field::Absent),
        },
        _ => None,
    }
}

fn addresses<'a>(map: &'a BTreeMap<String, ServiceAddress>, rest: &[SmolStr]) -> Option<Field<'a>> {
    match rest {
        [] => Some(Field::Keys(Keys::Addresses(map))),
        [key, field] => {
            let address = map.get(key.as_str());
            match field.as_str() {
                "Address" => Some(address.map_or(Field::Absent, |it| Field::Text(&it.address))),
                // What is not there has the type of what might be, and a number that no port has.
                "Port" => number(address.map_or(-1, |it| it.port.into())),
                _ => None,
            }
        }
        _ => None,
    }
}

fn weights<'a>(weights: Weights, rest: &[SmolStr]) -> Option<Field<'a>> {
    match rest {
        [which] if which == "Passing" => number(weights.passing),
        [which] if which == "Warning" => number(weights.warning),
        _ => None,
    }
}

/// Records of which only the types of their fields matter.
fn some_records() -> (Node, Instance, Check) {
    let name = "some";
    let node = NodeName::parse(name).expect("a valid name");
    let instance = Instance {
        namespace: Namespace::default(),
        node: node.clone(),
        id: InstanceId::parse(name).expect("a valid name"),
        service: ServiceName::parse(name).expect("a valid name"),
        address: String::new(),
        port: 0,
        tags: Vec::new(),
        meta: BTreeMap::new(),
        weights: Weights::default(),
        tagged_addresses: BTreeMap::new(),
        enable_tag_override: false,
        create_index: 0,
        modify_index: 0,
        extras: None,
    };
    let check = Check {
        namespace: Namespace::default(),
        node: node.clone(),
        id: CheckId::parse(name).expect("a valid name"),
        name: String::new(),
        instance: None,
        definition: CheckDefinition::default(),
        status: CheckStatus::Passing,
        output: String::new(),
        notes: String::new(),
        renewals: 0,
        create_index: 0,
        modify_index: 0,
    };
    let node = Node {
        name: node,
        id: String::new(),
        address: String::new(),
        tagged_addresses: BTreeMap::new(),
        meta: BTreeMap::new(),
        create_index: 0,
        modify_index: 0,
        locality: None,
    };
    (node, instance, check)
}
