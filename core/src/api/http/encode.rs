//! Answers in Consul's shapes: names and order of fields, `null` against `[]`, and what is left out when it is empty,
//! all as a real server was seen to answer.

mod bodies;
mod content_hash;
mod extras;
mod keys;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::Serialize;
use serde_json::{Map, Value, json};

pub(crate) use self::extras::{extras, locality};
pub use self::{
    bodies::AgentServiceBody,
    keys::{TransactionBodyKind, keys, session_view, sessions},
};
use self::{
    bodies::{AddressBody, CatalogBody, CheckBody, NodeBody, ServiceBody},
    extras::{ConnectBody, ProxyBody},
};
use super::{duration, maintenance};
use crate::{
    registry::{
        Check, CheckDefinition, CheckExtras, CheckKind, CheckStatus, Instance, InstanceHealth, Namespace,
        Node, NodeName, Probe, ServiceName, View,
    },
    server::ServerConfig,
};

/// What answers say beyond the registry's content.
#[derive(Clone, Copy, Debug)]
pub struct Encoder<'a> {
    /// Name of the datacenter.
    pub datacenter: &'a str,
    /// The node whose instances an agent's API registers: Consul's agents add tagged addresses to theirs, and show a
    /// check's interval where the catalog shows its definition.
    pub agent_node: &'a NodeName,
}

/// An encoded value, as bytes.
pub fn to_bytes<T: Serialize + ?Sized>(value: &T) -> Bytes {
    serde_json::to_vec(value)
        .expect("keys are strings, and nothing encoded here can fail")
        .into()
}

/// The answer to registrations: their index and the ids of their checks.
pub fn registered<T: Serialize>(index: u64, check_ids: T) -> Bytes {
    #[derive(Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Registered<T> {
        index: u64,
        #[serde(rename = "CheckIDs")]
        check_ids: T,
    }
    to_bytes(&Registered { index, check_ids })
}

impl<'a> Encoder<'a> {
    /// The encoder of a server.
    pub fn new(config: &'a ServerConfig) -> Self {
        Encoder {
            datacenter: &config.datacenter,
            agent_node: &config.agent_node,
        }
    }

    /// `/v1/health/service/{name}`.
    pub fn service_health(&self, view: &View) -> Bytes {
        #[derive(Serialize)]
        #[serde(rename_all = "PascalCase")]
        struct Entry<'a> {
            node: NodeBody<'a>,
            service: ServiceBody<'a>,
            checks: Vec<CheckBody<'a>>,
        }
        let entries: Vec<_> = instances(view)
            .iter()
            .map(|entry| Entry {
                node: self.node(&entry.node),
                service: self.service(&entry.instance),
                checks: entry
                    .checks
                    .iter()
                    .map(|check| {
                        let of_instance = check.instance.as_ref().map(|_| &entry.instance);
                        self.check(check, of_instance.map(|i| (&i.service, i.tags.as_slice())))
                    })
                    .collect(),
            })
            .collect();
        to_bytes(&entries)
    }

    /// `/v1/catalog/service/{name}`.
    pub fn catalog_service(&self, view: &View) -> Bytes {
        let entries: Vec<_> = instances(view)
            .iter()
            .map(|entry| self.catalog_entry(&entry.node, &entry.instance))
            .collect();
        to_bytes(&entries)
    }

    /// `/v1/catalog/services`.
    pub fn services(&self, view: &View) -> Bytes {
        let View::Services(services) = view else {
            mismatch(view);
        };
        let services: BTreeMap<_, _> = services
            .iter()
            .map(|(name, tags)| (name.as_str(), tags))
            .collect();
        to_bytes(&services)
    }

    /// `/v1/catalog/nodes`.
    pub fn nodes(&self, view: &View) -> Bytes {
        let View::Nodes(nodes) = view else {
            mismatch(view);
        };
        to_bytes(&nodes.iter().map(|node| self.node(node)).collect::<Vec<_>>())
    }

    /// `/v1/catalog/node/{name}`: services by id.
    pub fn node_with_services(&self, view: &View) -> Bytes {
        #[derive(Serialize)]
        #[serde(rename_all = "PascalCase")]
        struct Body<'a> {
            node: NodeBody<'a>,
            services: BTreeMap<&'a str, ServiceBody<'a>>,
        }
        let View::NodeServices(content) = view else {
            mismatch(view);
        };
        to_bytes(&content.as_ref().map(|(node, instances)| {
            Body {
                node: self.node(node),
                services: instances
                    .iter()
                    .map(|instance| (instance.id.as_str(), self.service(instance)))
                    .collect(),
            }
        }))
    }

    /// `/v1/catalog/node-services/{name}`: services as a list.
    pub fn node_service_list(&self, view: &View) -> Bytes {
        #[derive(Serialize)]
        #[serde(rename_all = "PascalCase")]
        struct Body<'a> {
            node: Option<NodeBody<'a>>,
            services: Option<Vec<ServiceBody<'a>>>,
        }
        let View::NodeServices(content) = view else {
            mismatch(view);
        };
        let (node, services) = match content {
            None => (None, None),
            Some((node, instances)) => (
                Some(self.node(node)),
                Some(instances.iter().map(|instance| self.service(instance)).collect()),
            ),
        };
        to_bytes(&Body { node, services })
    }

    /// The lists of checks of `/v1/health`.
    pub fn checks(&self, view: &View) -> Bytes {
        let View::Checks(checks) = view else {
            mismatch(view);
        };
        let checks: Vec<_> = checks
            .iter()
            .map(|(check, service)| {
                let service = service.as_ref();
                self.check(check, service.map(|(name, tags)| (name, tags.as_slice())))
            })
            .collect();
        to_bytes(&checks)
    }

    /// The same for the agent that registered them, with all that it said of how they are run.
    pub fn checks_as_registered(&self, view: &View) -> Bytes {
        let View::Checks(checks) = view else {
            mismatch(view);
        };
        let as_registered = checks.iter().map(|(check, _)| CheckBody {
            definition: definition(&check.definition),
            ..self.check(check, None)
        });
        to_bytes(&as_registered.collect::<Vec<_>>())
    }

    /// An instance as `/v1/agent/service/{id}` and `/v1/agent/services` show it.
    pub fn agent_service(&self, instance: &Instance) -> AgentServiceBody {
        AgentServiceBody {
            kind: instance.kind().to_owned(),
            id: instance.id.as_str().to_owned(),
            service: instance.service.as_str().to_owned(),
            tags: instance.tags.clone(),
            meta: instance.meta.clone(),
            port: instance.port,
            ports: extras::ports(instance.ports()),
            address: instance.address.clone(),
            socket_path: instance.socket_path().to_owned(),
            tagged_addresses: self.tagged_addresses(instance),
            weights: instance.weights.into(),
            enable_tag_override: instance.enable_tag_override,
            content_hash: None,
            proxy: extras::agent_proxy(instance),
            connect: ConnectBody::if_native(instance),
            datacenter: self.datacenter.to_owned(),
            namespace: shown_namespace(&instance.namespace).map(str::to_owned),
            locality: instance.locality().map(locality),
        }
    }

    /// A check as `/v1/agent/checks` shows it.
    pub fn agent_check(&self, check: &Check, instance: Option<&Instance>) -> Value {
        json!(self.check(check, instance.map(|i| (&i.service, i.tags.as_slice()))))
    }

    /// A check as `/v1/agent/health/service` shows it: a shape of its own, whose definition Consul leaves blank.
    pub fn agent_health_check(&self, check: &Check, instance: Option<&Instance>) -> Value {
        json!({
            "Node": check.node.as_str(),
            "CheckID": check.id.as_str(),
            "Name": check.name,
            "Status": check.status.as_str(),
            "Notes": check.notes,
            "Output": check.output,
            "ServiceID": check.instance.as_ref().map_or("", |id| id.as_str()),
            "ServiceName": instance.map_or("", |instance| instance.service.as_str()),
            "ServiceTags": instance.map(|i| &i.tags).filter(|tags| !tags.is_empty()),
            "Type": "",
            "ExposedPort": 0,
            "Definition": {
                "Interval": "0s", "Timeout": "0s", "DeregisterCriticalServiceAfter": "0s", "HTTP": "",
                "Header": null, "Method": "", "Body": "", "TLSServerName": "", "TLSSkipVerify": false, "TCP": "",
                "TCPUseTLS": false, "UDP": "", "GRPC": "", "OSService": "", "GRPCUseTLS": false,
            },
            "CreateIndex": check.create_index,
            "ModifyIndex": check.modify_index,
        })
    }

    fn node<'b>(&self, node: &'b Node) -> NodeBody<'b>
    where
        'a: 'b,
    {
        NodeBody {
            id: &node.id,
            node: node.name.as_str(),
            address: &node.address,
            datacenter: self.datacenter,
            tagged_addresses: some_unless_empty(&node.tagged_addresses),
            meta: some_unless_empty(&node.meta),
            locality: node.locality.as_ref().map(locality),
            create_index: node.create_index,
            modify_index: node.modify_index,
        }
    }

    fn service<'b>(&self, instance: &'b Instance) -> ServiceBody<'b> {
        ServiceBody {
            kind: instance.kind(),
            id: instance.id.as_str(),
            service: instance.service.as_str(),
            tags: Some(&instance.tags),
            address: &instance.address,
            tagged_addresses: self.tagged_addresses(instance),
            meta: some_unless_empty(&instance.meta),
            port: (instance.port != 0).then_some(instance.port),
            ports: extras::ports(instance.ports()),
            socket_path: instance.socket_path(),
            weights: instance.weights.into(),
            enable_tag_override: instance.enable_tag_override,
            proxy: ProxyBody::of(instance),
            connect: ConnectBody::of(instance),
            locality: instance.locality().map(locality),
            peer_name: "",
            namespace: shown_namespace(&instance.namespace),
            create_index: instance.create_index,
            modify_index: instance.modify_index,
        }
    }

    fn catalog_entry<'b>(&self, node: &'b Node, instance: &'b Instance) -> CatalogBody<'b>
    where
        'a: 'b,
    {
        CatalogBody {
            id: &node.id,
            node: node.name.as_str(),
            address: &node.address,
            datacenter: self.datacenter,
            tagged_addresses: some_unless_empty(&node.tagged_addresses),
            node_meta: some_unless_empty(&node.meta),
            service_kind: instance.kind(),
            service_id: instance.id.as_str(),
            service_name: instance.service.as_str(),
            service_tags: &instance.tags,
            service_address: &instance.address,
            service_tagged_addresses: self.tagged_addresses(instance),
            service_weights: instance.weights.into(),
            service_meta: &instance.meta,
            service_port: instance.port,
            service_ports: extras::ports(instance.ports()),
            service_socket_path: instance.socket_path(),
            service_enable_tag_override: instance.enable_tag_override,
            service_proxy: ProxyBody::of(instance),
            service_connect: ConnectBody::of(instance),
            service_locality: instance.locality().map(locality),
            namespace: shown_namespace(&instance.namespace),
            create_index: instance.create_index,
            modify_index: instance.modify_index,
        }
    }

    fn check<'b>(&self, check: &'b Check, service: Option<(&'b ServiceName, &'b [String])>) -> CheckBody<'b> {
        let of_agent = check.node == *self.agent_node || check.definition.is_of_agent();
        let shown = |duration: std::time::Duration| match duration {
            _ if of_agent && check.definition.is_alone() => "0s".to_owned(),
            duration if of_agent && !duration.is_zero() => duration::format(duration),
            _ => String::new(),
        };
        CheckBody {
            node: check.node.as_str(),
            check_id: check.id.as_str(),
            name: &check.name,
            status: check.status.as_str(),
            notes: &check.notes,
            output: &check.output,
            service_id: check.instance.as_ref().map_or("", |id| id.as_str()),
            service_name: service.map_or("", |(name, _)| name.as_str()),
            service_tags: Some(service.map_or(&[], |(_, tags)| tags)),
            r#type: kind(check),
            interval: shown(check.definition.said_interval()),
            timeout: shown(check.definition.timeout),
            exposed_port: 0,
            definition: if of_agent {
                Value::Object(Map::new())
            } else {
                definition(&check.definition)
            },
            namespace: shown_namespace(&check.namespace),
            create_index: check.create_index,
            modify_index: check.modify_index,
        }
    }

    /// An instance's tagged addresses; to those of its own instances a Consul agent adds their address by its family.
    fn tagged_addresses(&self, instance: &Instance) -> Option<BTreeMap<String, AddressBody>> {
        let mut addresses: BTreeMap<_, _> = instance
            .tagged_addresses
            .iter()
            .map(|(tag, tagged)| {
                let body = AddressBody {
                    address: tagged.address.clone(),
                    port: tagged.port,
                };
                (tag.clone(), body)
            })
            .collect();
        if instance.node == *self.agent_node
            && let Ok(address) = instance.address.parse::<std::net::IpAddr>()
        {
            let family = if address.is_ipv4() { "ipv4" } else { "ipv6" };
            for network in ["lan", "wan"] {
                addresses
                    .entry(format!("{network}_{family}"))
                    .or_insert_with(|| AddressBody {
                        address: instance.address.clone(),
                        port: instance.port,
                    });
            }
        }
        some_unless_empty_owned(addresses)
    }
}

/// A check's definition: what is given of it. `TTL`, `Args` and the thresholds are beyond Consul's, and so are
/// `RegisteredAlone` and `OfAgent`, which agents alone are shown.
pub(crate) fn definition(definition: &CheckDefinition) -> Value {
    let mut body = Map::new();
    for (name, duration) in [
        ("Interval", definition.said_interval()),
        ("Timeout", definition.timeout),
        (
            "DeregisterCriticalServiceAfter",
            definition.deregister_critical_service_after,
        ),
        ("TTL", definition.ttl().unwrap_or_default()),
    ] {
        if !duration.is_zero() {
            body.insert(name.into(), duration::format(duration).into());
        }
    }
    for (name, count) in [
        ("SuccessBeforePassing", definition.success_before_passing),
        ("FailuresBeforeWarning", definition.failures_before_warning),
        ("FailuresBeforeCritical", definition.failures_before_critical),
    ] {
        if count != 0 {
            body.insert(name.into(), count.into());
        }
    }
    describe_extras(definition.extras(), &mut body);
    if definition.is_alone() {
        body.remove("Interval");
        body.insert("RegisteredAlone".into(), true.into());
    }
    if definition.is_of_agent() {
        body.insert("OfAgent".into(), true.into());
    }
    match &definition.probe {
        Probe::Ttl(_) | Probe::External => {}
        Probe::Http {
            url,
            method,
            headers,
            body: content,
        } => {
            for (name, text) in [("HTTP", url), ("Method", method), ("Body", content)] {
                if !text.is_empty() {
                    body.insert(name.into(), text.as_str().into());
                }
            }
            let mut by_name: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
            for (name, value) in headers {
                by_name.entry(name).or_default().push(value);
            }
            if !by_name.is_empty() {
                body.insert("Header".into(), json!(by_name));
            }
        }
        Probe::Tcp(address) => {
            body.insert("TCP".into(), address.as_str().into());
        }
        Probe::Cmd(args) => {
            body.insert("Args".into(), json!(args));
        }
        other => describe_newer(other, &mut body),
    }
    Value::Object(body)
}

/// What few checks say.
fn describe_extras(extras: &CheckExtras, body: &mut Map<String, Value>) {
    if !extras.tls_server_name.is_empty() {
        body.insert("TLSServerName".into(), extras.tls_server_name.as_str().into());
    }
    for (name, flag) in [
        ("TLSSkipVerify", extras.tls_skip_verify),
        ("TCPUseTLS", extras.tcp_use_tls),
        ("DisableRedirects", extras.disable_redirects),
    ] {
        if flag {
            body.insert(name.into(), true.into());
        }
    }
    if extras.output_max_size != 0 {
        body.insert("OutputMaxSize".into(), extras.output_max_size.into());
    }
}

/// The kinds of checks that came later.
fn describe_newer(probe: &Probe, body: &mut Map<String, Value>) {
    let (name, text) = match probe {
        Probe::Udp(address) => ("UDP", address),
        Probe::Grpc { target, .. } => ("GRPC", target),
        Probe::H2ping { address, .. } => ("H2PING", address),
        Probe::Alias { instance, .. } => ("AliasService", instance),
        Probe::Docker { container, .. } => ("DockerContainerID", container),
        Probe::OsService(name) => ("OSService", name),
        Probe::Ttl(_) | Probe::External | Probe::Http { .. } | Probe::Tcp(_) | Probe::Cmd(_) => return,
    };
    if !text.is_empty() {
        body.insert(name.into(), text.as_str().into());
    }
    match probe {
        Probe::Grpc { tls: true, .. } => {
            body.insert("GRPCUseTLS".into(), true.into());
        }
        // Consul takes it for granted where it is not said.
        Probe::H2ping { tls, .. } => {
            body.insert("H2PingUseTLS".into(), (*tls).into());
        }
        Probe::Alias { node, .. } if !node.is_empty() => {
            body.insert("AliasNode".into(), node.as_str().into());
        }
        Probe::Docker { shell, args, .. } => {
            if !shell.is_empty() {
                body.insert("Shell".into(), shell.as_str().into());
            }
            body.insert("Args".into(), json!(args));
        }
        _ => {}
    }
}

/// Consul's word for a kind of check; it has none for one that is set from outside.
fn kind(check: &Check) -> &'static str {
    match check.definition.probe.kind() {
        CheckKind::External if is_maintenance(check) => "maintenance",
        kind => kind.as_str(),
    }
}

/// Whether it is one of those that maintenance makes.
fn is_maintenance(check: &Check) -> bool {
    let id = check.id.as_str();
    id == maintenance::OF_NODE || id.starts_with(maintenance::OF_SERVICE)
}

/// The status that an agent's health answer gives for a health, as Consul does.
pub(crate) fn health_status(status: CheckStatus) -> http::StatusCode {
    match status {
        CheckStatus::Passing => http::StatusCode::OK,
        CheckStatus::Warning => http::StatusCode::TOO_MANY_REQUESTS,
        CheckStatus::Critical | CheckStatus::Unknown => http::StatusCode::SERVICE_UNAVAILABLE,
    }
}

/// The default namespace is left out, so that answers in it are Consul's to the letter.
fn shown_namespace(namespace: &Namespace) -> Option<&str> {
    (*namespace != Namespace::default()).then(|| namespace.as_str())
}

fn some_unless_empty<K, V>(map: &BTreeMap<K, V>) -> Option<&BTreeMap<K, V>> {
    (!map.is_empty()).then_some(map)
}

fn some_unless_empty_owned<K, V>(map: BTreeMap<K, V>) -> Option<BTreeMap<K, V>> {
    (!map.is_empty()).then_some(map)
}

fn instances(view: &View) -> &[InstanceHealth] {
    match view {
        View::Instances(instances) => instances,
        other => mismatch(other),
    }
}

/// `Registry::query` answers every query with its own kind of view.
fn mismatch(view: &View) -> ! {
    panic!("a query was answered with another's kind of view: {view:?}")
}
