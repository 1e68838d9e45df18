//! What simulated clients do, as values: typed for the judges, serialisable for schedules.

use std::{collections::BTreeMap, fmt};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sider_core::registry::{CheckStatus, Command, KeyWrite, Namespace, Operation, Snapshot, SnapshotWriter};
use xxhash_rust::xxh3::xxh3_64;

use crate::{
    agent_reads::AgentAsk,
    autopilot::AutopilotOp,
    keys::{KeyOp, key},
    maintenance::Maintenance,
    narrowing::{Narrowing, Shape},
    prepared::PreparedOp,
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
    /// It is sound, and of a cluster that went on and came back to the same: its index is higher by so much. It is in
    /// small blocks, as another version may write it.
    Ahead(u16),
}

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
}

impl Apart {
    /// All of them.
    pub const ALL: [Apart; 7] = [
        Apart::Nothing,
        Apart::Address,
        Apart::Weight,
        Apart::Meta,
        Apart::TaggedAddress,
        Apart::TagOverride,
        Apart::Notes,
    ];
}

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
    /// `/v1/query`.
    Queries,
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
    /// Whether the file can be restored.
    pub fn is_sound(self) -> bool {
        matches!(self, Damage::None | Damage::Ahead(_))
    }

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
            Damage::Ahead(by) => return gone_on(file, by),
        }
        file
    }
}

/// The file of a cluster that has put a key so many times, the last time to delete it.
fn gone_on(file: Vec<u8>, by: u16) -> Vec<u8> {
    let file = Bytes::from(file);
    let Ok(snapshot) = Snapshot::parse(&file) else {
        return file.to_vec();
    };
    let mut registry = snapshot.registry().clone();
    let key = key("gone-on");
    for nth in 1..=by {
        let write = KeyWrite {
            key: key.clone(),
            value: Bytes::from(nth.to_string()),
            flags: 0,
        };
        let operation = match nth == by {
            true => Operation::DeleteKey(key.clone()),
            false => Operation::SetKey(write),
        };
        registry.apply(&Command::Transact(vec![operation]));
    }
    let file: Vec<u8> = SnapshotWriter::new(&registry, &snapshot.program)
        .flatten()
        .collect();
    in_small_blocks(&file)
}

/// The same file in blocks of about a kilobyte, so that it is laid down in several parts.
fn in_small_blocks(file: &[u8]) -> Vec<u8> {
    const BLOCK_BYTES: usize = 1_000;
    const TAIL_BYTES: usize = 8 + 16;
    let length = |bytes: &[u8]| {
        bytes
            .first_chunk()
            .map_or(0, |it| u32::from_be_bytes(*it) as usize)
    };
    let begin = file.iter().position(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let (head, mut rest) = file.split_at(begin);
    let mut packed = Vec::new();
    while let end @ 1.. = length(rest) {
        packed.extend_from_slice(&rest[4..4 + end]);
        rest = &rest[4 + end..];
    }
    let mut new = head.to_vec();
    let mut block = Vec::new();
    let mut rows = packed.as_slice();
    while !rows.is_empty() {
        let key = 4 + length(rows);
        let (row, behind) = rows.split_at(key + 4 + length(&rows[key..]));
        block.extend_from_slice(row);
        rows = behind;
        if block.len() >= BLOCK_BYTES || rows.is_empty() {
            new.extend(u32::try_from(block.len()).unwrap_or(u32::MAX).to_be_bytes());
            new.append(&mut block);
        }
    }
    new.extend_from_slice(&rest[..4 + TAIL_BYTES]);
    let checksum = xxh3_64(&new);
    new.extend(checksum.to_be_bytes());
    new
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
            Op::Read { .. } | Op::Wait { .. } | Op::AgentRead(_) | Op::Save => false,
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
            Ask::NodeServices { node, list } => {
                write!(f, "node {node}{}", if *list { " with a list" } else { "" })
            }
            Ask::Narrowed { ask, by } => {
                write!(f, "{ask}")?;
                by.node_meta
                    .iter()
                    .try_for_each(|(key, value)| write!(f, " on nodes with {key}:{value}"))?;
                match (&by.filter, Shape::of(ask)) {
                    (Some(filter), Some(shape)) => write!(f, " where {}", filter.written(shape)),
                    _ => Ok(()),
                }
            }
            Ask::NodeChecks(node) => write!(f, "checks of node {node}"),
            Ask::ServiceChecks(service) => write!(f, "checks of {service}"),
            Ask::Key(key) => write!(f, "key {key}"),
            Ask::KeyTree(prefix) => write!(f, "keys with {prefix:?}"),
            Ask::KeyNames(prefix) => write!(f, "names of keys with {prefix:?}"),
            Ask::Sessions => f.write_str("sessions"),
            Ask::SessionsOf(node) => write!(f, "sessions of {node}"),
            Ask::Queries => f.write_str("prepared queries"),
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
            RegisterForm::Replacing => "Consul's form, replacing checks",
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
            Op::Maintenance(op) => write!(f, "{op}"),
            Op::Prepared(op) => write!(f, "{op}"),
            Op::Autopilot(op) => write!(f, "{op}"),
            Op::Read { ask, freshness } => write!(f, "read {ask} ({freshness})"),
            Op::AgentRead(ask) => write!(f, "read {ask}"),
            Op::Save => f.write_str("save a snapshot"),
            Op::Restore { damage: Damage::None } => f.write_str("restore the last snapshot"),
            Op::Restore {
                damage: Damage::Ahead(by),
            } => write!(f, "restore the last snapshot, ahead by {by}"),
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
        if self.apart != Apart::Nothing {
            write!(f, " but for its {:?}", self.apart)?;
        }
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
        if !self.node_id.is_empty() {
            write!(f, " with id {}", self.node_id)?;
        }
        self.rack
            .iter()
            .try_for_each(|rack| write!(f, " in rack {rack}"))?;
        self.service
            .iter()
            .try_for_each(|(id, name, port)| write!(f, " instance {id} of {name} port {port}"))?;
        self.check
            .iter()
            .try_for_each(|(id, status, output)| write!(f, " check {id} {} “{output}”", status.as_str()))?;
        self.check_of.iter().try_for_each(|id| write!(f, " of {id}"))?;
        self.spoils
            .iter()
            .try_for_each(|spoils| write!(f, " as its agent but for its {spoils:?}"))
    }
}

#[cfg(test)]
mod tests {
    use sider_core::registry::Registry;

    use super::*;
    use crate::content::StateSeen;

    #[test]
    fn a_file_that_is_ahead_holds_the_same() {
        let mut registry = Registry::default();
        let write = KeyWrite {
            key: key("k"),
            value: Bytes::from("v"),
            flags: 3,
        };
        registry.apply(&Command::Transact(vec![Operation::SetKey(write)]));
        let file: Vec<u8> = SnapshotWriter::new(&registry, "0").flatten().collect();
        let parse = |file: Vec<u8>| StateSeen::parse(&Bytes::from(file)).expect("a sound file");
        let ahead = Damage::Ahead(99).done_to(&file);
        let parts = Snapshot::parse(&Bytes::from(ahead.clone())).map(|it| it.parts().len());
        assert!(parts.is_ok_and(|parts| parts > 2));
        let (here, ahead) = (parse(file.clone()), parse(ahead));
        assert_eq!(ahead.index, here.index + 99);
        assert_eq!(
            StateSeen {
                index: here.index,
                ..ahead
            },
            here
        );
        assert!(Damage::Ahead(9).is_sound() && !Damage::CutOff(9).is_sound());
    }
}
