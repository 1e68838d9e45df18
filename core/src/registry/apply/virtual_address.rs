//! The address that stands for a whole service in a service mesh. Consul gives one to each service that has a proxy or is
//! a member itself, and shows it with the instances through which it is reached; so does this registry. Nothing listens
//! there: what sends traffic through proxies knows what to make of it.

use std::{collections::BTreeSet, net::Ipv4Addr};

use crate::registry::{Instance, ServiceAddress, transaction::Transaction};

/// The tag of the address.
const TAG: &str = "consul-virtual";
/// What comes before the first of the addresses, of a range that is not routed.
const BEFORE_FIRST: u32 = 0xf000_0000;

/// An instance with its service's virtual address, where it has one and does not name another: that of the service's
/// other instances, else the first that is free.
pub(super) fn with_virtual_address(transaction: &Transaction<'_>, given: &Instance) -> Option<Instance> {
    let service = given.connects()?;
    if given.tagged_addresses.contains_key(TAG) {
        return None;
    }
    let key = given.key();
    let mut taken = BTreeSet::new();
    let mut own = None;
    // There are few of them, and a look at all is only taken for one of them.
    for other in transaction.tables().instances() {
        let Some(at) = other.tagged_addresses.get(TAG) else {
            continue;
        };
        if own.is_none() && other.namespace == given.namespace && other.connects() == Some(service) {
            own = Some(at.address.clone());
        }
        if other.key() != key {
            taken.insert(at.address.as_str());
        }
    }
    let address = own.unwrap_or_else(|| {
        let addresses = (BEFORE_FIRST + 1..).map(|number| Ipv4Addr::from(number).to_string());
        let mut free = addresses.filter(|address| !taken.contains(address.as_str()));
        free.next().expect("there are fewer instances than addresses")
    });
    let mut instance = given.clone();
    let port = given.port;
    instance
        .tagged_addresses
        .insert(TAG.to_owned(), ServiceAddress { address, port });
    Some(instance)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use crate::registry::{
        Command, Extras, Instance, InstanceId, InstanceKey, Keeps, Namespace, Node, NodeName, Proxy,
        Registration, Registry, ServiceName, Weights,
    };

    fn proxy(id: &str, service: &str) -> Command {
        let node = NodeName::parse("host").expect("a name");
        let instance = Instance {
            namespace: Namespace::default(),
            node: node.clone(),
            id: InstanceId::parse(id).expect("a name"),
            service: ServiceName::parse("proxy").expect("a name"),
            address: String::new(),
            port: 21_000,
            tags: Vec::new(),
            meta: BTreeMap::new(),
            weights: Weights::default(),
            tagged_addresses: BTreeMap::new(),
            enable_tag_override: false,
            create_index: 0,
            modify_index: 0,
            extras: Extras {
                kind: Extras::CONNECT_PROXY.into(),
                proxy: Some(Proxy {
                    destination_service_name: service.into(),
                    rest: "{}".into(),
                    ..Proxy::default()
                }),
                ..Extras::default()
            }
            .kept(),
        };
        Command::Register(vec![Registration {
            node: Node::plain(node, "10.0.0.1"),
            keeps: Keeps::Node,
            instance: Some(instance),
            checks: Vec::new(),
            replace_checks: false,
        }])
    }

    fn address_of(registry: &Registry, id: &str) -> (String, u16) {
        let key = InstanceKey {
            namespace: Namespace::default(),
            node: NodeName::parse("host").expect("a name"),
            id: InstanceId::parse(id).expect("a name"),
        };
        let instance = registry.instance(&key).expect("it is there");
        let at = &instance.tagged_addresses["consul-virtual"];
        (at.address.clone(), at.port)
    }

    #[test]
    fn each_service_has_one_and_its_proxies_share_it() {
        let mut registry = Registry::default();
        for (id, service) in [("a", "web"), ("b", "db"), ("c", "web")] {
            registry.apply(&proxy(id, service));
        }
        let of = |id: &str| address_of(&registry, id);
        assert_eq!(of("a"), ("240.0.0.1".to_owned(), 21_000));
        assert_eq!(of("b").0, "240.0.0.2");
        assert_eq!(of("c").0, "240.0.0.1");
    }

    #[test]
    fn the_same_registration_again_changes_nothing() {
        let mut registry = Registry::default();
        registry.apply(&proxy("b", "db"));
        registry.apply(&proxy("a", "web"));
        let index = registry.index();
        let again = registry.apply(&proxy("b", "db"));
        assert!(!again.changed);
        assert_eq!(registry.index(), index);
    }

    #[test]
    fn what_stands_for_another_service_has_another_one() {
        let mut registry = Registry::default();
        registry.apply(&proxy("a", "web"));
        registry.apply(&proxy("b", "web"));
        registry.apply(&proxy("a", "db"));
        assert_eq!(address_of(&registry, "a").0, "240.0.0.2");
        assert_eq!(address_of(&registry, "b").0, "240.0.0.1");
    }
}
