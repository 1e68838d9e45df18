//! What `/v1/agent/self` tells, of a server and of an agent alike: sections by name, each an object, as Consul's clients
//! decode them.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::server::CONSUL_VERSION;

/// Consul's builds without a date have this one.
pub(super) const BUILD_DATE: &str = "1970-01-01T00:00:01Z";

/// As Serf counts: 1 is alive, 4 is failed.
const ALIVE: u8 = 1;
const FAILED: u8 = 4;

/// Whoever tells about itself.
pub(crate) struct Oneself<'a> {
    /// Name of the datacenter.
    pub(crate) datacenter: &'a str,
    /// Name of its node.
    pub(crate) node: &'a str,
    /// Id of its node; empty for none.
    pub(crate) node_id: &'a str,
    /// Whether it is a server.
    pub(crate) is_server: bool,
    /// Where a server is joined; empty for an agent, which nobody joins.
    pub(crate) join: &'a str,
    /// It as a member.
    pub(crate) member: Member<'a>,
    /// Meta of its node.
    pub(crate) meta: Value,
    /// Counts by section, all in text.
    pub(crate) stats: Value,
}

/// A member as Serf has them.
pub(crate) struct Member<'a> {
    /// Its name.
    pub(crate) name: &'a str,
    /// Its host.
    pub(crate) host: &'a str,
    /// Its port; 0 for none.
    pub(crate) port: u16,
    /// `consul` for a server, `node` for an agent.
    pub(crate) role: &'a str,
    /// Its datacenter.
    pub(crate) datacenter: &'a str,
    /// Its id.
    pub(crate) id: &'a str,
    /// Tags beside those that all have.
    pub(crate) more_tags: Vec<(&'a str, String)>,
    /// Whether it answers.
    pub(crate) is_alive: bool,
}

/// The answer.
pub(crate) fn answer(told: &Oneself<'_>) -> Value {
    let mut debug = Map::new();
    for (key, value) in [
        ("Datacenter", json!(told.datacenter)),
        ("NodeName", json!(told.node)),
        ("NodeID", json!(told.node_id)),
        ("ServerMode", json!(told.is_server)),
        ("ACLsEnabled", json!(false)),
    ] {
        debug.insert(key.to_owned(), value);
    }
    if !told.join.is_empty() {
        // What is asked of it by clients: where to join.
        for key in ["SerfAdvertiseAddrLAN", "RPCAdvertiseAddr"] {
            debug.insert(key.to_owned(), format!("tcp://{}", told.join).into());
        }
    }
    let origin = [0; 8];
    json!({
        "Config": {
            "Datacenter": told.datacenter,
            "PrimaryDatacenter": told.datacenter,
            "NodeName": told.node,
            "NodeID": told.node_id,
            "Revision": "",
            "Server": told.is_server,
            "Version": CONSUL_VERSION,
            "BuildDate": BUILD_DATE,
        },
        "DebugConfig": debug,
        // That of a member which has measured nothing yet: distances are not measured here.
        "Coord": { "Vec": origin, "Error": 1.5, "Adjustment": 0, "Height": 0.00001 },
        "Member": member(&told.member),
        "Meta": told.meta,
        "Stats": told.stats,
    })
}

/// A member.
pub(super) fn member(told: &Member<'_>) -> Value {
    let mut tags: BTreeMap<&str, String> = [
        ("acls", "0".to_owned()),
        ("build", format!("{CONSUL_VERSION}:")),
        ("dc", told.datacenter.to_owned()),
        ("id", told.id.to_owned()),
        ("role", told.role.to_owned()),
        ("segment", String::new()),
        ("vsn", "2".to_owned()),
        ("vsn_max", "3".to_owned()),
        ("vsn_min", "2".to_owned()),
    ]
    .into();
    tags.extend(told.more_tags.iter().cloned());
    json!({
        "Name": told.name,
        "Addr": told.host,
        "Port": told.port,
        "Tags": tags,
        "Status": if told.is_alive { ALIVE } else { FAILED },
        "ProtocolMin": 1,
        "ProtocolMax": 5,
        "ProtocolCur": 2,
        "DelegateMin": 2,
        "DelegateMax": 5,
        "DelegateCur": 4,
    })
}
