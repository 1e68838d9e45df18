//! The address that stands for a service in a service mesh, worked out by looking at everything.

use std::net::Ipv4Addr;

use sider_core::registry::{Instance, ServiceAddress};

use super::State;

const TAG: &str = "consul-virtual";

impl State {
    /// An instance as it is kept: with its service's virtual address, if it is one through which a service is reached.
    pub(super) fn with_virtual_address(&self, given: &Instance) -> Instance {
        let mut kept = given.clone();
        let Some(service) = reached(given) else {
            return kept;
        };
        if kept.tagged_addresses.contains_key(TAG) {
            return kept;
        }
        let mut others: Vec<_> = self
            .instances
            .iter()
            .filter_map(|it| Some((it, it.tagged_addresses.get(TAG)?.address.clone())))
            .collect();
        others.sort_by_key(|(it, _)| it.key());
        let same = others
            .iter()
            .find(|(it, _)| it.namespace == given.namespace && reached(it).as_ref() == Some(&service));
        let address = match same {
            Some((_, address)) => address.clone(),
            None => (1..=255)
                .map(|last| Ipv4Addr::new(240, 0, 0, last).to_string())
                .find(|address| {
                    let mut rest = others.iter().filter(|(it, _)| it.key() != given.key());
                    rest.all(|(_, taken)| taken != address)
                })
                .expect("fewer services than that are reached through others"),
        };
        let port = given.port;
        kept.tagged_addresses
            .insert(TAG.to_owned(), ServiceAddress { address, port });
        kept
    }
}

/// The service that is reached through an instance.
fn reached(instance: &Instance) -> Option<String> {
    let extras = instance.extras.as_ref()?;
    match &extras.proxy {
        Some(proxy) if extras.kind == "connect-proxy" => Some(proxy.destination_service_name.clone()),
        _ => extras.connect_native.then(|| instance.service.to_string()),
    }
}
