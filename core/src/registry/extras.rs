//! What only few instances and nodes say of themselves: where they run, further ports, a socket, and what proxies of a
//! service mesh tell of what they stand for. It is kept and shown; there is no service mesh here.
//!
//! It came later than the rest, so it is stored behind it, and only where there is some: what has none is encoded as it
//! ever was, byte for byte, and read by programs that know nothing of it. What has some is announced in a place where
//! those programs find something that can't be, so that they stop instead of dropping it: the flags of an instance, and
//! the id of a node. (Which version of commands and rows it takes is said by `logged` and `rows`.)

use std::{fmt, sync::Arc};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error as _, SeqAccess, Visitor},
    ser::SerializeStruct as _,
};

use super::{Instance, Node};

/// Where something runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Locality {
    /// The region, such as `us-west-1`.
    pub region: String,
    /// The zone within it, such as `us-west-1a`.
    pub zone: String,
}

/// One of several ports of an instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedPort {
    /// Its name, unique in the instance.
    pub name: String,
    /// The port.
    pub port: u16,
    /// Whether it is the one to use where none is named: exactly one is.
    pub default: bool,
}

/// What a proxy says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proxy {
    /// The service that it stands for.
    pub destination_service_name: String,
    /// The instance that it stands for, if it is one.
    pub destination_service_id: String,
    /// Where that listens.
    pub local_service_address: String,
    /// Where that listens; 0 if it was not said.
    pub local_service_port: u16,
    /// Where that listens.
    pub local_service_socket_path: String,
    /// `direct`, `transparent`, or nothing.
    pub mode: String,
    /// Everything else as it was given: a JSON object, and `{}` if there is nothing else.
    pub rest: String,
}

/// What few instances have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extras {
    /// Its kind: nothing for a service as most are, else a word like `connect-proxy`.
    pub kind: String,
    /// Where it runs.
    pub locality: Option<Locality>,
    /// Its ports, if it has names for several.
    pub ports: Vec<NamedPort>,
    /// A Unix socket that it listens on; empty if there is none.
    pub socket_path: String,
    /// What it says as a proxy.
    pub proxy: Option<Proxy>,
    /// Whether it is a member of a service mesh without a proxy.
    pub connect_native: bool,
}

impl Extras {
    /// The kind of an instance that is a proxy for another service.
    pub const CONNECT_PROXY: &'static str = "connect-proxy";

    /// Them as an instance keeps them: nothing if there are none.
    pub fn kept(self) -> Option<Arc<Extras>> {
        (self != Extras::default()).then(|| Arc::new(self))
    }
}

impl Instance {
    /// Its kind; empty for most.
    pub fn kind(&self) -> &str {
        self.extras.as_ref().map_or("", |extras| &extras.kind)
    }

    /// The Unix socket that it listens on; empty for most.
    pub fn socket_path(&self) -> &str {
        self.extras.as_ref().map_or("", |extras| &extras.socket_path)
    }

    /// Its named ports; none for most.
    pub fn ports(&self) -> &[NamedPort] {
        self.extras.as_ref().map_or(&[], |extras| &extras.ports)
    }

    /// Where it runs, if it was said.
    pub fn locality(&self) -> Option<&Locality> {
        self.extras.as_ref()?.locality.as_ref()
    }

    /// What it says as a proxy.
    pub fn proxy(&self) -> Option<&Proxy> {
        self.extras.as_ref()?.proxy.as_ref()
    }

    /// The service that members of a service mesh reach through it: that which it is a proxy for, or its own if it is a
    /// member itself.
    pub fn connects(&self) -> Option<&str> {
        let extras = self.extras.as_ref()?;
        match &extras.proxy {
            Some(proxy) if extras.kind == Extras::CONNECT_PROXY => Some(&proxy.destination_service_name),
            _ => extras.connect_native.then(|| self.service.as_str()),
        }
    }
}

// The flags of an instance: the first is as old as instances are, and stood alone as a bool, whose bytes are the same.
const TAG_OVERRIDE: u8 = 1;
const HAS_EXTRAS: u8 = 2;

/// Begins the id of a node that has a locality. No id has a control character.
const HAS_LOCALITY: char = '\u{1}';

impl Serialize for Instance {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let extras = self.extras.as_deref();
        let mut flags = if self.enable_tag_override { TAG_OVERRIDE } else { 0 };
        if extras.is_some() {
            flags |= HAS_EXTRAS;
        }
        let mut fields = serializer.serialize_struct("Instance", 13 + usize::from(extras.is_some()))?;
        fields.serialize_field("namespace", &self.namespace)?;
        fields.serialize_field("node", &self.node)?;
        fields.serialize_field("id", &self.id)?;
        fields.serialize_field("service", &self.service)?;
        fields.serialize_field("address", &self.address)?;
        fields.serialize_field("port", &self.port)?;
        fields.serialize_field("tags", &self.tags)?;
        fields.serialize_field("meta", &self.meta)?;
        fields.serialize_field("weights", &self.weights)?;
        fields.serialize_field("tagged_addresses", &self.tagged_addresses)?;
        fields.serialize_field("flags", &flags)?;
        fields.serialize_field("create_index", &self.create_index)?;
        fields.serialize_field("modify_index", &self.modify_index)?;
        if let Some(extras) = extras {
            fields.serialize_field("extras", extras)?;
        }
        fields.end()
    }
}

impl<'de> Deserialize<'de> for Instance {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // More than there are, mostly: those that are not there are not asked for.
        const FIELDS: &[&str] = &[
            "namespace",
            "node",
            "id",
            "service",
            "address",
            "port",
            "tags",
            "meta",
            "weights",
            "tagged_addresses",
            "flags",
            "create_index",
            "modify_index",
            "extras",
        ];
        deserializer.deserialize_struct("Instance", FIELDS, InstanceVisitor)
    }
}

struct InstanceVisitor;

impl<'de> Visitor<'de> for InstanceVisitor {
    type Value = Instance;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an instance's fields in their order")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut fields: A) -> Result<Instance, A::Error> {
        let mut instance = Instance {
            namespace: next(&mut fields)?,
            node: next(&mut fields)?,
            id: next(&mut fields)?,
            service: next(&mut fields)?,
            address: next(&mut fields)?,
            port: next(&mut fields)?,
            tags: next(&mut fields)?,
            meta: next(&mut fields)?,
            weights: next(&mut fields)?,
            tagged_addresses: next(&mut fields)?,
            enable_tag_override: false,
            create_index: 0,
            modify_index: 0,
            extras: None,
        };
        let flags: u8 = next(&mut fields)?;
        if flags & !(TAG_OVERRIDE | HAS_EXTRAS) != 0 {
            return Err(A::Error::custom("unknown flags of an instance"));
        }
        instance.enable_tag_override = flags & TAG_OVERRIDE != 0;
        instance.create_index = next(&mut fields)?;
        instance.modify_index = next(&mut fields)?;
        if flags & HAS_EXTRAS != 0 {
            instance.extras = next::<_, Extras>(&mut fields)?.kept();
        }
        Ok(instance)
    }
}

impl Serialize for Node {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let locality = self.locality.as_ref();
        let mut fields = serializer.serialize_struct("Node", 7 + usize::from(locality.is_some()))?;
        fields.serialize_field("name", &self.name)?;
        match locality {
            Some(_) => fields.serialize_field("id", &format!("{HAS_LOCALITY}{}", self.id))?,
            None => fields.serialize_field("id", &self.id)?,
        }
        fields.serialize_field("address", &self.address)?;
        fields.serialize_field("tagged_addresses", &self.tagged_addresses)?;
        fields.serialize_field("meta", &self.meta)?;
        fields.serialize_field("create_index", &self.create_index)?;
        fields.serialize_field("modify_index", &self.modify_index)?;
        if let Some(locality) = locality {
            fields.serialize_field("locality", locality)?;
        }
        fields.end()
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        const FIELDS: &[&str] = &[
            "name",
            "id",
            "address",
            "tagged_addresses",
            "meta",
            "create_index",
            "modify_index",
            "locality",
        ];
        deserializer.deserialize_struct("Node", FIELDS, NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a node's fields in their order")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut fields: A) -> Result<Node, A::Error> {
        let mut node = Node {
            name: next(&mut fields)?,
            id: next(&mut fields)?,
            address: next(&mut fields)?,
            tagged_addresses: next(&mut fields)?,
            meta: next(&mut fields)?,
            create_index: next(&mut fields)?,
            modify_index: next(&mut fields)?,
            locality: None,
        };
        if node.id.starts_with(HAS_LOCALITY) {
            node.id.remove(0);
            node.locality = Some(next(&mut fields)?);
        }
        Ok(node)
    }
}

/// The next field of a struct.
pub(super) fn next<'de, A: SeqAccess<'de>, T: Deserialize<'de>>(fields: &mut A) -> Result<T, A::Error> {
    fields
        .next_element()?
        .ok_or_else(|| A::Error::custom("a field is missing"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::registry::{InstanceId, Namespace, NodeName, ServiceAddress, ServiceName, Weights};

    /// As instances were before they had extras.
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct OldInstance {
        namespace: Namespace,
        node: NodeName,
        id: InstanceId,
        service: ServiceName,
        address: String,
        port: u16,
        tags: Vec<String>,
        meta: BTreeMap<String, String>,
        weights: Weights,
        tagged_addresses: BTreeMap<String, ServiceAddress>,
        enable_tag_override: bool,
        create_index: u64,
        modify_index: u64,
    }

    /// As nodes were before they had a locality.
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct OldNode {
        name: NodeName,
        id: String,
        address: String,
        tagged_addresses: BTreeMap<String, String>,
        meta: BTreeMap<String, String>,
        create_index: u64,
        modify_index: u64,
    }

    fn old_instance(enable_tag_override: bool) -> OldInstance {
        OldInstance {
            namespace: Namespace::default(),
            node: NodeName::parse("host").expect("a name"),
            id: InstanceId::parse("web-1").expect("a name"),
            service: ServiceName::parse("web").expect("a name"),
            address: "10.0.0.1".into(),
            port: 8080,
            tags: vec!["a".into(), "b".into()],
            meta: BTreeMap::from([("k".into(), "v".into())]),
            weights: Weights::default(),
            tagged_addresses: BTreeMap::new(),
            enable_tag_override,
            create_index: 7,
            modify_index: 900,
        }
    }

    fn instance(bytes: &[u8]) -> Instance {
        let (instance, rest) = postcard::take_from_bytes(bytes).expect("it is read");
        assert_eq!(
            rest, b"behind it",
            "nothing of what follows is taken, and nothing is left"
        );
        instance
    }

    fn followed(mut bytes: Vec<u8>) -> Vec<u8> {
        bytes.extend_from_slice(b"behind it");
        bytes
    }

    fn extras() -> Extras {
        Extras {
            kind: Extras::CONNECT_PROXY.into(),
            ports: vec![NamedPort {
                name: "http".into(),
                port: 8080,
                default: true,
            }],
            proxy: Some(Proxy {
                destination_service_name: "db".into(),
                rest: "{}".into(),
                ..Proxy::default()
            }),
            ..Extras::default()
        }
    }

    #[test]
    fn an_instance_without_extras_is_stored_as_it_ever_was() {
        for flag in [false, true] {
            let old = postcard::to_allocvec(&old_instance(flag)).expect("it is written");
            let read = instance(&followed(old.clone()));
            assert_eq!((read.enable_tag_override, &read.extras), (flag, &None));
            assert_eq!((read.create_index, read.modify_index), (7, 900));
            assert_eq!(postcard::to_allocvec(&read).expect("it is written"), old);
        }
    }

    #[test]
    fn extras_come_back_and_an_older_program_does_not_drop_them() {
        for flag in [false, true] {
            let old = postcard::to_allocvec(&old_instance(flag)).expect("it is written");
            let mut with = instance(&followed(old));
            with.extras = extras().kept();
            let bytes = postcard::to_allocvec(&with).expect("it is written");
            assert_eq!(instance(&followed(bytes.clone())), with);
            postcard::take_from_bytes::<OldInstance>(&bytes).expect_err("an older program can't read it");
        }
    }

    #[test]
    fn no_extras_are_kept_as_none() {
        assert_eq!(Extras::default().kept(), None);
        let old = postcard::to_allocvec(&old_instance(false)).expect("it is written");
        let mut odd = instance(&followed(old));
        odd.extras = Some(Arc::new(Extras::default()));
        let bytes = postcard::to_allocvec(&odd).expect("it is written");
        assert_eq!(instance(&followed(bytes)).extras, None);
    }

    #[test]
    fn a_node_without_a_locality_is_stored_as_it_ever_was() {
        let old = OldNode {
            name: NodeName::parse("host").expect("a name"),
            id: "40e4a748-2192-161a-0510-9bf59fe950b5".into(),
            address: "10.0.0.1".into(),
            tagged_addresses: BTreeMap::new(),
            meta: BTreeMap::from([("k".into(), "v".into())]),
            create_index: 7,
            modify_index: 900,
        };
        let bytes = postcard::to_allocvec(&old).expect("it is written");
        let (mut node, rest): (Node, _) = postcard::take_from_bytes(&bytes).expect("it is read");
        assert!(rest.is_empty());
        assert_eq!((&*node.id, &node.locality), (&*old.id, &None));
        assert_eq!(postcard::to_allocvec(&node).expect("it is written"), bytes);

        node.locality = Some(Locality {
            region: "us-west-1".into(),
            zone: "us-west-1a".into(),
        });
        let bytes = followed(postcard::to_allocvec(&node).expect("it is written"));
        let (back, rest): (Node, _) = postcard::take_from_bytes(&bytes).expect("it is read");
        assert_eq!((back, rest), (node, &b"behind it"[..]));
    }

    #[test]
    fn a_service_is_reached_through_its_proxies_and_its_native_instances() {
        let old = postcard::to_allocvec(&old_instance(false)).expect("it is written");
        let plain = instance(&followed(old));
        let mut proxy = plain.clone();
        proxy.extras = extras().kept();
        let mut native = plain.clone();
        native.extras = Extras {
            connect_native: true,
            ..Extras::default()
        }
        .kept();
        let reached = [&plain, &proxy, &native].map(Instance::connects);
        assert_eq!(reached, [None, Some("db"), Some("web")]);
    }
}
