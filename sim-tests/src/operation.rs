//! What simulated clients do, as values: typed for the judges, serialisable for schedules.

use std::fmt;

use serde::{Deserialize, Serialize};
use sider_core::registry::{CheckStatus, Namespace};

use crate::keys::KeyOp;

/// A request of a client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
    /// Reads once.
    Read {
        /// What.
        ask: Ask,
        /// How fresh.
        freshness: Freshness,
    },
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

/// What happened to a file between saving and restoring it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Damage {
    /// Nothing.
    None,
    /// Its end is missing, from so many thousandths of its length on.
    CutOff(u16),
    /// One bit is another, at so many thousandths of its length.
    Flipped(u16),
}

/// How a registration is written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RegisterForm {
    /// Short keys, checks with a `type`.
    Short,
    /// Consul's.
    Consul,
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
    /// TTL checks.
    pub checks: Vec<TtlCheck>,
}

/// A check to register, nearly always a TTL check; its id is the default one of the request's form.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
}

/// A status of one check, or of all TTL checks of an instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
}

impl Damage {
    /// A file with this damage.
    pub fn done_to(self, file: &[u8]) -> Vec<u8> {
        let at = |thousandths: u16| file.len() * usize::from(thousandths) / 1_000;
        let mut file = file.to_vec();
        match self {
            Damage::None => {}
            Damage::CutOff(place) => file.truncate(at(place)),
            Damage::Flipped(place) => {
                if let Some(byte) = file.get_mut(at(place)) {
                    *byte ^= 1 << (place % 8);
                }
            }
        }
        file
    }
}

impl Freshness {
    /// Whether the answer must be of a moment between request and answer.
    pub fn linearizable(self) -> bool {
        matches!(self, Freshness::Default | Freshness::Consistent)
    }
}

impl Service {
    /// Its address; another one with each version.
    pub fn address(&self) -> String {
        format!("10.9.{}.{}", self.version >> 8 & 255, self.version & 255)
    }

    /// Its weights while it is passing, and while it is warning; they change with the version, too.
    pub fn weights(&self) -> (u32, u32) {
        (1 + self.version % 7, 1 + self.version % 3)
    }

    /// The ids that its checks get.
    pub fn check_ids(&self, form: RegisterForm) -> Vec<String> {
        let id = |nth: usize| match form {
            RegisterForm::Consul if self.checks.len() == 1 => format!("service:{}", self.id),
            RegisterForm::Consul => format!("service:{}:{}", self.id, nth + 1),
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
        !matches!(self, Op::Read { .. } | Op::Wait { .. } | Op::Save)
    }

    /// Whether it is owed an entry in the log when it is acknowledged.
    pub fn is_logged(&self) -> bool {
        match self {
            Op::Report { .. } => false,
            Op::Keys(op) => op.is_logged(),
            op => op.is_write(),
        }
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
}

impl fmt::Display for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tagged = |tags: &[String]| tags.iter().map(|tag| format!(" tag={tag}")).collect::<String>();
        match self {
            Ask::Health {
                service,
                passing,
                tags,
            } => {
                write!(
                    f,
                    "health of {service}{}{}",
                    if *passing { " passing" } else { "" },
                    tagged(tags)
                )
            }
            Ask::CatalogService { service, tags } => write!(f, "instances of {service}{}", tagged(tags)),
            Ask::Services => f.write_str("services"),
            Ask::Nodes => f.write_str("nodes"),
            Ask::NodeChecks(node) => write!(f, "checks of node {node}"),
            Ask::ServiceChecks(service) => write!(f, "checks of {service}"),
            Ask::Key(key) => write!(f, "key {key}"),
            Ask::KeyTree(prefix) => write!(f, "keys with {prefix:?}"),
            Ask::KeyNames(prefix) => write!(f, "names of keys with {prefix:?}"),
            Ask::Sessions => f.write_str("sessions"),
            Ask::ChecksInState(None) => f.write_str("checks"),
            Ask::ChecksInState(Some(status)) => write!(f, "checks that are {}", status.as_str()),
            Ask::Elsewhere(ask) => write!(f, "{ask} in {ELSEWHERE}"),
        }
    }
}

impl fmt::Display for Freshness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Freshness::Default => f.write_str("default"),
            Freshness::Consistent => f.write_str("consistent"),
            Freshness::Stale => f.write_str("stale"),
            Freshness::MaxStale(ms) => write!(f, "at most {ms} ms stale"),
        }
    }
}

impl fmt::Display for RegisterForm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RegisterForm::Short => "short form",
            RegisterForm::Consul => "Consul's form",
            RegisterForm::Batch => "batch",
            RegisterForm::Elsewhere => "in another namespace",
        })
    }
}

impl fmt::Display for ReportForm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ReportForm::Path => "path",
            ReportForm::Update => "update",
            ReportForm::Heartbeat => "heartbeat",
            ReportForm::Batch => "batch",
        })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Target::Check(id) | Target::Instance(id)) = self;
        f.write_str(id)
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Op::Register { form, services } => {
                write!(f, "register ({form})")?;
                services.iter().try_for_each(|service| write!(f, " {service}"))
            }
            Op::Deregister { id, service: None } => write!(f, "deregister {id}"),
            Op::Deregister {
                id,
                service: Some(service),
            } => write!(f, "deregister {id} if of {service}"),
            Op::DeregisterCheck { check } => write!(f, "deregister check {check}"),
            Op::CatalogRegister(entry) => write!(f, "catalog register {entry}"),
            Op::CatalogDeregister {
                node,
                service_id,
                check_id,
            } => {
                write!(f, "catalog deregister {node}")?;
                service_id.iter().try_for_each(|id| write!(f, " instance {id}"))?;
                check_id.iter().try_for_each(|id| write!(f, " check {id}"))
            }
            Op::Report { form, reports } => {
                write!(f, "report ({form})")?;
                reports.iter().try_for_each(|report| {
                    write!(f, " {} {}", report.target, report.status.as_str())?;
                    report
                        .output
                        .iter()
                        .try_for_each(|output| write!(f, " “{output}”"))
                })
            }
            Op::Keys(op) => write!(f, "{op}"),
            Op::Read { ask, freshness } => write!(f, "read {ask} ({freshness})"),
            Op::Save => f.write_str("save a snapshot"),
            Op::Restore { damage: Damage::None } => f.write_str("restore the last snapshot"),
            Op::Restore { damage } => write!(f, "restore the last snapshot, {damage:?}"),
            Op::Wait {
                ask,
                freshness,
                index,
                wait_ms: STREAMED_MS,
            } => {
                write!(f, "next event of a stream of {ask} above {index} ({freshness})")
            }
            Op::Wait {
                ask,
                freshness,
                index,
                wait_ms,
            } => {
                write!(f, "wait {wait_ms} ms for {ask} above {index} ({freshness})")
            }
        }
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} of {} port {} version {}",
            self.id, self.name, self.port, self.version
        )?;
        self.tags.iter().try_for_each(|tag| write!(f, " tag={tag}"))?;
        self.checks.iter().try_for_each(|check| {
            write!(f, " ttl={}ms", check.ttl_ms)?;
            check
                .status
                .iter()
                .try_for_each(|status| write!(f, ":{}", status.as_str()))
        })
    }
}

impl fmt::Display for CatalogEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node {} at {}", self.node, self.address)?;
        self.service
            .iter()
            .try_for_each(|(id, name, port)| write!(f, " instance {id} of {name} port {port}"))?;
        self.check
            .iter()
            .try_for_each(|(id, status, output)| write!(f, " check {id} {} “{output}”", status.as_str()))?;
        self.check_of.iter().try_for_each(|id| write!(f, " of {id}"))
    }
}
