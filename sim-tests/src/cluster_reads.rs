//! What clients ask about the servers themselves, and user events: who leads, who votes, who is alive, whether a server is
//! ready, what it counts, and which events it heard of. Each server tells what it knows at once, and nothing of it is in the
//! log.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{Method, Request};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::history::ServerNumber;

/// A question about the servers, or an event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum ClusterAsk {
    /// `/v1/status/leader`.
    Leader,
    /// `/v1/status/peers`.
    Peers,
    /// `/v1/operator/raft/configuration`, or `/v1/raft/configuration`.
    Configuration {
        /// The first of the two, which is Consul's.
        of_operators: bool,
    },
    /// `/v1/agent/self`.
    Itself,
    /// `/v1/agent/members`.
    Members,
    /// `/readyz`.
    Ready,
    /// `/metrics`.
    Metrics,
    /// `/v1/event/fire/{name}`.
    Fire {
        /// What kind of event it is.
        name: String,
        /// Tells it from every other one.
        payload: String,
    },
    /// `/v1/event/list`.
    Events {
        /// Only those of this kind.
        name: Option<String>,
    },
}

/// What a server tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClusterSeen {
    /// Who leads.
    Leader(Option<ServerNumber>),
    /// Who votes.
    Peers(BTreeSet<ServerNumber>),
    /// The members.
    Configuration(Vec<Seat>),
    /// What it says of itself.
    Itself {
        /// Whether it leads.
        leads: bool,
        /// Who does.
        leader: Option<ServerNumber>,
        /// Its term.
        term: u64,
        /// How many others vote.
        others: u64,
    },
    /// The members, and whether each is alive.
    Members(BTreeMap<ServerNumber, bool>),
    /// Whether it is ready.
    Ready(bool),
    /// What it counts.
    Metrics(Box<Counts>),
    /// The id of an event that was fired.
    Fired(String),
    /// The index of the answer, and the events that it heard of.
    Events(u64, Vec<EventSeen>),
}

/// A member as a server tells of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seat {
    /// Who.
    pub server: ServerNumber,
    /// Whether it leads.
    pub leads: bool,
    /// Whether it votes.
    pub votes: bool,
}

/// What a server counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Whether it leads.
    pub leads: bool,
    /// The registry's index.
    pub index: u64,
    /// Instances, by namespace and service.
    pub instances: BTreeMap<(String, String), u64>,
    /// Checks, by status.
    pub checks: BTreeMap<String, u64>,
}

/// An event as a server tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventSeen {
    /// Its id.
    pub id: String,
    /// What kind of event it is.
    pub name: String,
    /// What tells it from every other one.
    pub payload: String,
    /// Its Lamport time.
    pub ltime: u64,
}

impl EventSeen {
    /// The index by which an answer is known whose newest event it is: the halves of its id, one over the other.
    pub fn index(&self) -> u64 {
        let digits: String = self.id.split('-').collect();
        let number = u128::from_str_radix(&digits, 16).unwrap_or_default();
        let [high, low] = [number >> 64, number & u128::from(u64::MAX)];
        u64::try_from(high ^ low).unwrap_or_default()
    }
}

impl ClusterAsk {
    /// The request.
    pub fn request(&self) -> Request<Bytes> {
        let (method, path, body) = match self {
            ClusterAsk::Leader => (Method::GET, "/v1/status/leader".to_owned(), ""),
            ClusterAsk::Peers => (Method::GET, "/v1/status/peers".to_owned(), ""),
            ClusterAsk::Configuration { of_operators: true } => {
                (Method::GET, "/v1/operator/raft/configuration".to_owned(), "")
            }
            ClusterAsk::Configuration { of_operators: false } => {
                (Method::GET, "/v1/raft/configuration".to_owned(), "")
            }
            ClusterAsk::Itself => (Method::GET, "/v1/agent/self".to_owned(), ""),
            ClusterAsk::Members => (Method::GET, "/v1/agent/members".to_owned(), ""),
            ClusterAsk::Ready => (Method::GET, "/readyz".to_owned(), ""),
            ClusterAsk::Metrics => (Method::GET, "/metrics".to_owned(), ""),
            ClusterAsk::Fire { name, payload } => {
                (Method::PUT, format!("/v1/event/fire/{name}"), payload.as_str())
            }
            ClusterAsk::Events { name } => {
                let name = name.iter().map(|name| format!("?name={name}"));
                let name: String = name.collect();
                (Method::GET, format!("/v1/event/list{name}"), "")
            }
        };
        Request::builder()
            .method(method)
            .uri(path)
            .body(Bytes::from(body.to_owned()))
            .expect("simulated names are valid in a path")
    }

    /// What an answer says; `None` if it is none, but tells of a failure.
    pub fn parse(&self, status: u16, index: Option<u64>, body: &[u8]) -> Option<ClusterSeen> {
        match (self, status) {
            (ClusterAsk::Ready, 200 | 503) => return Some(ClusterSeen::Ready(status == 200)),
            (ClusterAsk::Metrics, 200) => return counts(std::str::from_utf8(body).ok()?),
            (_, 200) => {}
            _ => return None,
        }
        let value: Value = serde_json::from_slice(body).ok()?;
        Some(match self {
            ClusterAsk::Leader => ClusterSeen::Leader(leader(value.as_str()?)?),
            ClusterAsk::Peers => {
                let peers = value.as_array()?.iter();
                ClusterSeen::Peers(
                    peers
                        .map(|it| ServerNumber::parse(it.as_str()?))
                        .collect::<Option<_>>()?,
                )
            }
            ClusterAsk::Configuration { of_operators } => {
                let list = if *of_operators { "Servers" } else { "servers" };
                let seats = value[list].as_array()?.iter().map(seat);
                ClusterSeen::Configuration(seats.collect::<Option<_>>()?)
            }
            ClusterAsk::Itself => itself(&value)?,
            ClusterAsk::Members => {
                let member = |it: &Value| {
                    let server = ServerNumber::parse(it["Tags"]["id"].as_str()?)?;
                    Some((server, it["Status"].as_u64()? == 1))
                };
                ClusterSeen::Members(value.as_array()?.iter().map(member).collect::<Option<_>>()?)
            }
            ClusterAsk::Fire { .. } => ClusterSeen::Fired(value["ID"].as_str()?.to_owned()),
            ClusterAsk::Events { .. } => {
                let events = value.as_array()?.iter().map(event);
                ClusterSeen::Events(index?, events.collect::<Option<_>>()?)
            }
            ClusterAsk::Ready | ClusterAsk::Metrics => return None,
        })
    }
}

/// An answer with the names of servers in place of their Raft addresses: where each of them is, only the cluster knows.
pub fn with_names(body: &Bytes, addresses: impl Iterator<Item = (ServerNumber, String)>) -> Bytes {
    let mut text = String::from_utf8_lossy(body).into_owned();
    for (server, address) in addresses {
        text = text.replace(&format!("\"{address}\""), &format!("\"{server}\""));
    }
    Bytes::from(text)
}

/// The leader by its name; nobody's is empty.
fn leader(name: &str) -> Option<Option<ServerNumber>> {
    match name {
        "" => Some(None),
        name => ServerNumber::parse(name).map(Some),
    }
}

fn seat(value: &Value) -> Option<Seat> {
    let either = |one: &str, other: &str| match &value[one] {
        Value::Null => value[other].clone(),
        found => found.clone(),
    };
    let server = ServerNumber::parse(either("ID", "id").as_str()?)?;
    let at = ServerNumber::parse(either("Address", "raft_addr").as_str()?)?;
    (server == at).then_some(Seat {
        server,
        leads: either("Leader", "leader").as_bool()?,
        votes: either("Voter", "voter").as_bool()?,
    })
}

fn itself(value: &Value) -> Option<ClusterSeen> {
    let number = |of: &Value| of.as_str()?.parse::<u64>().ok();
    let (consul, raft) = (&value["Stats"]["consul"], &value["Stats"]["raft"]);
    let leads = consul["leader"].as_str()? == "true";
    // It says so twice.
    (leads == (raft["state"].as_str()? == "Leader")).then_some(ClusterSeen::Itself {
        leads,
        leader: leader(consul["leader_addr"].as_str()?)?,
        term: number(&raft["term"])?,
        others: number(&raft["num_peers"])?,
    })
}

fn event(value: &Value) -> Option<EventSeen> {
    let text = |name: &str| value[name].as_str().map(str::to_owned);
    let payload = STANDARD.decode(value["Payload"].as_str()?).ok()?;
    Some(EventSeen {
        id: text("ID")?,
        name: text("Name")?,
        payload: String::from_utf8(payload).ok()?,
        ltime: value["LTime"].as_u64()?,
    })
}

/// What a text for Prometheus says of the registry.
fn counts(text: &str) -> Option<ClusterSeen> {
    let mut counts = Counts::default();
    let mut found = 0;
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (series, value) = line.rsplit_once(' ')?;
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let label = |wanted: &str| {
            let mut each = labels.trim_end_matches('}').split(',');
            let value = each.find_map(|it| it.strip_prefix(wanted)?.strip_prefix("=\""));
            value.map(|value| value.trim_end_matches('"').to_owned())
        };
        let number = || value.parse::<u64>().ok();
        match name {
            "sider_raft_leader" => (counts.leads, found) = (number()? == 1, found + 1),
            "sider_registry_index" => (counts.index, found) = (number()?, found + 1),
            "sider_registry_instances_total" => {
                let service = (label("namespace")?, label("service")?);
                counts.instances.insert(service, number()?);
            }
            "sider_registry_checks_total" => {
                counts.checks.insert(label("status")?, number()?);
            }
            _ => {}
        }
    }
    (found == 2).then(|| ClusterSeen::Metrics(Box::new(counts)))
}

impl fmt::Display for ClusterAsk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClusterAsk::Leader => f.write_str("who leads"),
            ClusterAsk::Peers => f.write_str("who votes"),
            ClusterAsk::Configuration { of_operators: true } => f.write_str("the members, for operators"),
            ClusterAsk::Configuration { of_operators: false } => f.write_str("the members"),
            ClusterAsk::Itself => f.write_str("what it is"),
            ClusterAsk::Members => f.write_str("who is alive"),
            ClusterAsk::Ready => f.write_str("whether it is ready"),
            ClusterAsk::Metrics => f.write_str("what it counts"),
            ClusterAsk::Fire { name, payload } => write!(f, "fire event {name} “{payload}”"),
            ClusterAsk::Events { name: None } => f.write_str("events"),
            ClusterAsk::Events { name: Some(name) } => write!(f, "events {name}"),
        }
    }
}

impl fmt::Display for ClusterSeen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let who = |server: &Option<ServerNumber>| server.map_or("nobody".to_owned(), |it| it.to_string());
        match self {
            ClusterSeen::Leader(leader) => write!(f, "{} leads", who(leader)),
            ClusterSeen::Peers(voters) => write!(f, "voters {}", crate::words::list(voters)),
            ClusterSeen::Configuration(seats) => {
                let seat = |it: &Seat| match (it.leads, it.votes) {
                    (true, _) => format!("{} leads", it.server),
                    (false, true) => it.server.to_string(),
                    (false, false) => format!("{} learns", it.server),
                };
                f.write_str(&crate::words::list(seats.iter().map(seat)))
            }
            ClusterSeen::Itself {
                leads, leader, term, ..
            } => {
                let role = if *leads { "leads" } else { "follows" };
                write!(f, "it {role}, {} leads term {term}", who(leader))
            }
            ClusterSeen::Members(members) => {
                let member = |(server, alive): (&ServerNumber, &bool)| match alive {
                    true => server.to_string(),
                    false => format!("{server} (failed)"),
                };
                f.write_str(&crate::words::list(members.iter().map(member)))
            }
            ClusterSeen::Ready(true) => f.write_str("ready"),
            ClusterSeen::Ready(false) => f.write_str("not ready"),
            ClusterSeen::Metrics(counts) => {
                let checks: u64 = counts.checks.values().sum();
                let instances: u64 = counts.instances.values().sum();
                write!(
                    f,
                    "index {}, {instances} instances, {checks} checks",
                    counts.index
                )
            }
            ClusterSeen::Fired(id) => write!(f, "event {id}"),
            ClusterSeen::Events(_, events) => {
                f.write_str(&crate::words::list(events.iter().map(|it| &it.payload)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(ask: &ClusterAsk, told: &Value) -> Option<ClusterSeen> {
        ask.parse(200, Some(7), told.to_string().as_bytes())
    }

    fn at(server: u8) -> String {
        format!("s{server}")
    }

    #[test]
    fn addresses_become_names() {
        let body = Bytes::from_static(b"[\"10.0.0.1:8501\",\"10.0.0.10:8501\"]");
        let addresses = [(0, "10.0.0.1:8501"), (3, "10.0.0.10:8501")];
        let addresses = addresses.map(|(server, at)| (ServerNumber(server), at.to_owned()));
        assert_eq!(with_names(&body, addresses.into_iter()), "[\"s0\",\"s3\"]");
    }

    #[test]
    fn servers_are_known_by_their_names() {
        let leader = |told: &str| parse(&ClusterAsk::Leader, &json!(told));
        assert_eq!(leader(&at(2)), Some(ClusterSeen::Leader(Some(ServerNumber(2)))));
        assert_eq!(leader(""), Some(ClusterSeen::Leader(None)));
        let peers = parse(&ClusterAsk::Peers, &json!([at(0), at(1)]));
        let voters = [ServerNumber(0), ServerNumber(1)].into();
        assert_eq!(peers, Some(ClusterSeen::Peers(voters)));
        assert_eq!(parse(&ClusterAsk::Peers, &json!(["10.0.0.1:1"])), None);
    }

    #[test]
    fn both_lists_of_members_are_read() {
        let seats = ClusterSeen::Configuration(vec![Seat {
            server: ServerNumber(1),
            leads: true,
            votes: false,
        }]);
        let consuls =
            json!({ "Servers": [{ "ID": "s1", "Address": at(1), "Leader": true, "Voter": false }] });
        let ask = ClusterAsk::Configuration { of_operators: true };
        assert_eq!(parse(&ask, &consuls), Some(seats.clone()));
        let own = json!({ "servers": [{ "id": "s1", "raft_addr": at(1), "leader": true, "voter": false }] });
        let ask = ClusterAsk::Configuration { of_operators: false };
        assert_eq!(parse(&ask, &own), Some(seats));
        let moved =
            json!({ "servers": [{ "id": "s1", "raft_addr": at(2), "leader": true, "voter": false }] });
        assert_eq!(parse(&ask, &moved), None);
    }

    #[test]
    fn what_is_counted_is_read() {
        let text = "# TYPE sider_raft_leader gauge\nsider_raft_leader 1\nsider_registry_index 7\n\
                    sider_registry_instances_total{namespace=\"default\",service=\"web\"} 2\n\
                    sider_registry_checks_total{status=\"passing\"} 3\n# EOF\n";
        let seen = ClusterAsk::Metrics.parse(200, None, text.as_bytes());
        let counts = Counts {
            leads: true,
            index: 7,
            instances: [(("default".into(), "web".into()), 2)].into(),
            checks: [("passing".into(), 3)].into(),
        };
        assert_eq!(seen, Some(ClusterSeen::Metrics(Box::new(counts))));
        assert_eq!(ClusterAsk::Metrics.parse(200, None, b"# EOF\n"), None);
    }

    #[test]
    fn the_halves_of_an_id_lie_over_each_other() {
        let event = EventSeen {
            id: "00000000-0000-0001-0000-000000000002".into(),
            name: String::new(),
            payload: String::new(),
            ltime: 1,
        };
        assert_eq!(event.index(), 3);
    }
}
