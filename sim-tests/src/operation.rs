//! What simulated clients do, as values: typed for the judges, serialisable for schedules.

mod damage;
mod telling;

pub use self::damage::Damage;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sider_core::registry::{CheckStatus, Namespace};

use crate::{
    agent_reads::AgentAsk, autopilot::AutopilotOp, cluster_reads::ClusterAsk, keys::KeyOp,
    maintenance::Maintenance, narrowing::Narrowing, own_checks::OwnCheck, prepared::PreparedOp,
};

/// A request of a client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Op {
    /// Registers instances on the servers' shared node, all or none.
    Register {
        /// Which request form.
        form: RegisterForm,
        /// What; exactly one unless the form is `Batch`.
        services: Vec<Service>,
    },
    /// Removes an instance of the servers' shared node.
    Deregister {
        /// Its id.
        id: String,
        /// With a service: the JSON form, which touches only an instance of that service.
        service: Option<String>,
    },
    /// Removes a check of the servers' shared node.
    DeregisterCheck {
        /// Its id.
        check: String,
    },
    /// Registers a node with what runs on it.
    CatalogRegister(CatalogEntry),
    /// Removes a node, or one thing of it.
    CatalogDeregister {
        /// The node.
        node: String,
        /// One instance of it only.
        service_id: Option<String>,
        /// One check of it only.
        check_id: Option<String>,
    },
    /// Reports statuses of checks of the servers' shared node: what renews a TTL.
    Report {
        /// Which request form.
        form: ReportForm,
        /// What; exactly one unless the form is `Batch`.
        reports: Vec<Report>,
    },
    /// Does something about keys or sessions.
    Keys(KeyOp),
    /// Registers a check by itself.
    RegisterCheck(OwnCheck),
    /// Begins or ends maintenance.
    Maintenance(Maintenance),
    /// Does something about prepared queries.
    Prepared(PreparedOp),
    /// Stores settings of autopilot.
    Autopilot(AutopilotOp),
    /// Reads once.
    Read {
        /// What.
        ask: Ask,
        /// How fresh.
        freshness: Freshness,
    },
    /// Asks the agent's API.
    AgentRead(AgentAsk),
    /// Asks a server about the cluster and itself, or fires an event.
    Cluster(ClusterAsk),
    /// Saves the whole state as a file.
    Save,
    /// Replaces the whole state by that of the file that was saved last; skipped while there is none.
    Restore {
        /// What happened to the file on its way.
        damage: Damage,
    },
    /// Waits until what is asked has an index above `index`.
    Wait {
        /// What.
        ask: Ask,
        /// How fresh.
        freshness: Freshness,
        /// The index of the answer that the client has.
        index: u64,
        /// How long the server may wait.
        wait_ms: u64,
    },
}

/// How long a wait may last that is one for the next event of a stream: as long as it takes.
pub const STREAMED_MS: u64 = 1_000_000_000;

/// How a registration is written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RegisterForm {
    /// Short keys, checks with a `type`.
    Short,
    /// Consul's.
    Consul,
    /// Consul's, and checks that the instance has and that are not named go.
    Replacing,
    /// `/v1/batch/register`.
    Batch,
    /// Short keys, in the namespace [`ELSEWHERE`]: nothing of it may show in the default one, and nothing that is done to its
    /// namesake there may touch it.
    Elsewhere,
}

/// A namespace that is not the default one.
pub const ELSEWHERE: &str = "elsewhere";

/// How a report is written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReportForm {
    /// `/pass`, `/warn` or `/fail` with a note.
    Path,
    /// `/update` with a body.
    Update,
    /// `/service/heartbeat`: all TTL checks of an instance pass.
    Heartbeat,
    /// `/v1/batch/renew`.
    Batch,
}

/// An instance to register.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// Service.
    pub name: String,
    /// Instance id.
    pub id: String,
    /// Port; with `version` it makes registrations tell themselves apart.
    pub port: u16,
    /// Tags.
    pub tags: Vec<String>,
    /// Goes into the meta as `version`.
    pub version: u32,
    /// What is not as the version says.
    #[serde(default)]
    pub apart: Apart,
    /// TTL checks.
    pub checks: Vec<TtlCheck>,
}

/// The one thing in which a registration differs from what its version says, so that two of one version differ in nothing
/// else: what compares registrations must look at each part of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Apart {
    /// Nothing.
    #[default]
    Nothing,
    /// Its address.
    Address,
    /// Its weight while it is warning.
    Weight,
    /// One more pair in its meta.
    Meta,
    /// A tagged address.
    TaggedAddress,
    /// That others may change its tags.
    TagOverride,
    /// Notes of its checks.
    Notes,
    /// Where it runs.
    Locality,
    /// Two named ports.
    Ports,
    /// A socket.
    Socket,
    /// That it is a proxy for another service.
    Proxy,
    /// That it is a member of a service mesh.
    Native,
}

impl Apart {
    /// All of them.
    pub const ALL: [Apart; 12] = [
        Apart::Nothing,
        Apart::Address,
        Apart::Weight,
        Apart::Meta,
        Apart::TaggedAddress,
        Apart::TagOverride,
        Apart::Notes,
        Apart::Locality,
        Apart::Ports,
        Apart::Socket,
        Apart::Proxy,
        Apart::Native,
    ];
}

/// The service for which proxies are.
pub const PROXIED: &str = "api";

/// A check to register, nearly always a TTL check; its id is the default one of the request's form.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TtlCheck {
    /// Its TTL in milliseconds; 0 if it is not a TTL check.
    pub ttl_ms: u64,
    /// The status it starts with (Consul's form only).
    pub status: Option<CheckStatus>,
    /// Critical for so many milliseconds, it takes its instance away; 0 is never.
    pub deregister_after_ms: u64,
}

/// A node to register in the catalog.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CatalogEntry {
    /// Node.
    pub node: String,
    /// Its address.
    pub address: String,
    /// An instance on it: id, service, port.
    pub service: Option<(String, String, u16)>,
    /// A check: id, status, output. It belongs to the instance if there is one.
    pub check: Option<(String, CheckStatus, String)>,
    /// Another instance that the check belongs to: all is refused if it is not there.
    #[serde(default)]
    pub check_of: Option<String>,
    /// The node's UUID, or empty: another node that has it is this one, under its old name.
    #[serde(default)]
    pub node_id: String,
    /// `rack` in the node's meta.
    #[serde(default)]
    pub rack: Option<String>,
    /// With it the instance, or its check, is one of an agent's own, and as the agent registers it but for this.
    #[serde(default)]
    pub spoils: Option<Spoils>,
    /// Whether a node that is there already stays as it is.
    #[serde(default)]
    pub keeps_node: bool,
    /// Whether the instance is in the namespace [`ELSEWHERE`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub elsewhere: bool,
}

/// The one thing in which somebody registers otherwise what an agent has registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Spoils {
    /// Its address.
    Address,
    /// Its tags.
    Tags,
    /// Its meta.
    Meta,
    /// Its weight while it is warning.
    Weight,
    /// A tagged address.
    TaggedAddress,
    /// Whether others may change its tags.
    TagOverride,
    /// How its check is probed, or renewed.
    Definition,
    /// What its check says.
    Output,
    /// One check more.
    MoreChecks,
    /// The service that it is of.
    Service,
    /// The name of its check.
    CheckName,
    /// The notes of its check.
    Notes,
    /// The meta of its node.
    NodeMeta,
}

impl Spoils {
    /// All of them.
    pub const ALL: [Spoils; 13] = [
        Spoils::Address,
        Spoils::Tags,
        Spoils::Meta,
        Spoils::Weight,
        Spoils::TaggedAddress,
        Spoils::TagOverride,
        Spoils::Definition,
        Spoils::Output,
        Spoils::MoreChecks,
        Spoils::Service,
        Spoils::CheckName,
        Spoils::Notes,
        Spoils::NodeMeta,
    ];

    /// Whether it is the instance's own check that is another.
    pub fn is_of_check(self) -> bool {
        let of_check = [
            Spoils::Definition,
            Spoils::Output,
            Spoils::CheckName,
            Spoils::Notes,
        ];
        of_check.contains(&self)
    }
}

/// A status of one check, or of all TTL checks of an instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// Whose.
    pub target: Target,
    /// The status.
    pub status: CheckStatus,
    /// The output, where one is given.
    pub output: Option<String>,
}

/// Whose status is reported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Target {
    /// A check, by id.
    Check(String),
    /// All TTL checks of an instance, by id.
    Instance(String),
}

/// A question.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Ask {
    /// `/v1/health/service/{service}`.
    Health {
        /// Service.
        service: String,
        /// `?passing`.
        passing: bool,
        /// `?tag`, repeated.
        tags: Vec<String>,
    },
    /// `/v1/catalog/service/{service}`.
    CatalogService {
        /// Service.
        service: String,
        /// `?tag`, repeated.
        tags: Vec<String>,
    },
    /// `/v1/health/connect/{service}`, or `/v1/catalog/connect/{service}`: through what a service is reached in a mesh.
    Connect {
        /// Service.
        service: String,
        /// The first form, which shows health, too.
        checks: bool,
        /// `?passing`, of the first form.
        passing: bool,
    },
    /// `/v1/catalog/services`.
    Services,
    /// `/v1/catalog/nodes`.
    Nodes,
    /// `/v1/health/node/{node}`.
    NodeChecks(String),
    /// `/v1/health/checks/{service}`.
    ServiceChecks(String),
    /// `/v1/health/state/{state}`; `None` is `any`.
    ChecksInState(Option<CheckStatus>),
    /// `/v1/catalog/node/{node}`, or `/v1/catalog/node-services/{node}`.
    NodeServices {
        /// Node.
        node: String,
        /// The second form, which has a list of services instead of a map.
        list: bool,
    },
    /// Only what is left of another answer. A namespace stands around it, not within.
    Narrowed {
        /// What is asked.
        ask: Box<Ask>,
        /// What it is narrowed by.
        by: Narrowing,
    },
    /// The same in the namespace [`ELSEWHERE`].
    Elsewhere(Box<Ask>),
    /// `/v1/kv/{key}`.
    Key(String),
    /// `/v1/kv/{prefix}?recurse`.
    KeyTree(String),
    /// `/v1/kv/{prefix}?keys&separator=/`.
    KeyNames(String),
    /// `/v1/session/list`.
    Sessions,
    /// `/v1/session/node/{node}`.
    SessionsOf(String),
    /// `/v1/session/info/{id}`; in a schedule the name that it was created under.
    Session(String),
    /// `/v1/query`.
    Queries,
    /// `/v1/connect/ca/roots`.
    Roots,
}

/// How fresh an answer must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Freshness {
    /// No parameter: linearizable.
    Default,
    /// `?consistent`: linearizable.
    Consistent,
    /// `?stale`.
    Stale,
    /// `?max_stale`, in milliseconds: as new as that, or linearizable.
    MaxStale(u64),
    /// `?cached`: what an agent keeps.
    Cached,
    /// The same with `max-age`, in seconds: if that is no older.
    CachedWithin(u64),
    /// The same with `no-cache`: fetched anew, and kept.
    CachedAnew,
}

impl Freshness {
    /// Whether the answer must be of a moment between request and answer.
    pub fn linearizable(self) -> bool {
        matches!(self, Freshness::Default | Freshness::Consistent)
    }

    /// Whether an agent may answer with what it keeps.
    pub fn is_cached(self) -> bool {
        matches!(
            self,
            Freshness::Cached | Freshness::CachedWithin(_) | Freshness::CachedAnew
        )
    }
}

impl Service {
    /// An instance of `web` with nothing but these checks.
    pub fn web(id: &str, version: u32, checks: Vec<TtlCheck>) -> Service {
        Service {
            name: "web".into(),
            id: id.into(),
            port: 80,
            tags: vec![],
            version,
            apart: Apart::Nothing,
            checks,
        }
    }

    /// Its address; another one with each version.
    pub fn address(&self) -> String {
        let net = if self.apart == Apart::Address { 8 } else { 9 };
        format!("10.{net}.{}.{}", self.version >> 8 & 255, self.version & 255)
    }

    /// Its weights while it is passing, and while it is warning; they change with the version, too.
    pub fn weights(&self) -> (u32, u32) {
        let more = u32::from(self.apart == Apart::Weight);
        (1 + self.version % 7, 1 + self.version % 3 + more)
    }

    /// Its meta.
    pub fn meta(&self) -> BTreeMap<String, String> {
        let version = ("version".to_owned(), self.version.to_string());
        let more = (self.apart == Apart::Meta).then(|| ("more".to_owned(), "yes".to_owned()));
        [version].into_iter().chain(more).collect()
    }

    /// Its tagged addresses, with their ports.
    pub fn tagged_addresses(&self) -> BTreeMap<String, (String, u16)> {
        let one = ("wan".to_owned(), (self.address(), self.port));
        let given = (self.apart == Apart::TaggedAddress).then_some(one);
        given.into_iter().collect()
    }

    /// Whether others may change its tags.
    pub fn tag_override(&self) -> bool {
        self.apart == Apart::TagOverride
    }

    /// What it has beyond what most have, as requests and answers name it.
    pub fn extras(&self) -> Map<String, Value> {
        let said = match self.apart {
            Apart::Locality => {
                json!({ "Locality": { "Region": "north", "Zone": format!("north-{}", self.version) } })
            }
            Apart::Ports => json!({ "Ports": [
                { "Name": "web", "Port": self.port, "Default": true },
                { "Name": "metrics", "Port": 9100, "Default": false },
            ] }),
            Apart::Socket => json!({ "SocketPath": format!("/run/{}.sock", self.version) }),
            Apart::Proxy => json!({ "Kind": "connect-proxy", "Proxy": {
                "DestinationServiceName": PROXIED,
                "LocalServicePort": 8080,
                "Upstreams": [{ "DestinationName": "db", "LocalBindPort": 5432 }],
            } }),
            Apart::Native => json!({ "Connect": { "Native": true } }),
            _ => json!({}),
        };
        said.as_object().cloned().unwrap_or_default()
    }

    /// The notes of its checks.
    pub fn notes(&self) -> &'static str {
        if self.apart == Apart::Notes {
            "see the book"
        } else {
            ""
        }
    }

    /// The ids that its checks get.
    pub fn check_ids(&self, form: RegisterForm) -> Vec<String> {
        let id = |nth: usize| match form {
            RegisterForm::Consul | RegisterForm::Replacing if self.checks.len() == 1 => {
                format!("service:{}", self.id)
            }
            RegisterForm::Consul | RegisterForm::Replacing => format!("service:{}:{}", self.id, nth + 1),
            RegisterForm::Short | RegisterForm::Batch | RegisterForm::Elsewhere => {
                format!("chk:{}:{nth}", self.id)
            }
        };
        (0..self.checks.len()).map(id).collect()
    }
}

impl Op {
    /// Whether it may change the registry.
    pub fn is_write(&self) -> bool {
        match self {
            Op::Read { .. } | Op::Wait { .. } | Op::AgentRead(_) | Op::Cluster(_) | Op::Save => false,
            Op::Prepared(op) => op.is_logged(),
            _ => true,
        }
    }

    /// Whether it is owed an entry in the log when it is acknowledged.
    pub fn is_logged(&self) -> bool {
        match self {
            Op::Report { .. } => false,
            Op::Keys(op) => op.is_logged(),
            op => op.is_write(),
        }
    }

    /// Whether it may renew TTLs.
    pub fn is_renewal(&self) -> bool {
        matches!(self, Op::Report { .. } | Op::Keys(KeyOp::RenewSession { .. }))
    }

    /// What is asked and how fresh, for a read.
    pub fn asked(&self) -> Option<(&Ask, Freshness)> {
        match self {
            Op::Read { ask, freshness } | Op::Wait { ask, freshness, .. } => Some((ask, *freshness)),
            _ => None,
        }
    }
}

impl Ask {
    /// The namespace that is asked about, and the question in it.
    pub fn place(&self) -> (Namespace, &Ask) {
        match self {
            Ask::Elsewhere(ask) => (Namespace::parse(ELSEWHERE).expect("a valid name"), ask),
            ask => (Namespace::default(), ask),
        }
    }

    /// The node that is to be near, if it names one.
    pub fn near_mut(&mut self) -> Option<&mut String> {
        match self {
            Ask::Elsewhere(ask) => ask.near_mut(),
            Ask::Narrowed { by, .. } => by.near.as_mut(),
            _ => None,
        }
    }
}
