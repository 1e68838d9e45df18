//! What the registry keeps: nodes, instances and their checks. Values are valid by construction.

use std::{cmp::Ordering, collections::BTreeMap, fmt, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use super::{CheckDefinition, Extras, Locality, Session};
use crate::limits::{CHECK_NAME_BYTES_MAX, NAME_BYTES_MAX};

/// Why a name was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid {kind} {name:?}: {reason}")]
pub struct InvalidName {
    /// What it should have named.
    pub kind: &'static str,
    /// The name, cut to 64 characters.
    pub name: String,
    /// What is wrong with it.
    pub reason: std::borrow::Cow<'static, str>,
}

fn check_name(kind: &'static str, bytes_max: usize, name: &str) -> Result<(), InvalidName> {
    let reason = if name.is_empty() {
        "it is empty".into()
    } else if name.len() > bytes_max {
        format!("it is longer than {bytes_max} bytes").into()
    } else if name.chars().any(|c| c.is_control()) {
        "it has a control character".into()
    } else {
        return Ok(());
    };
    Err(InvalidName {
        kind,
        name: name.chars().take(64).collect(),
        reason,
    })
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $bytes_max:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        // Decoded names are checked too, so that no stored or received value can hold a bad one.
        #[serde(try_from = "SmolStr", into = "SmolStr")]
        pub struct $name(SmolStr);

        impl $name {
            #[doc = concat!("Takes a byte or more, [`", stringify!($bytes_max), "`] at most, without control characters.")]
            ///
            /// # Errors
            /// Says what is wrong with the name.
            pub fn parse(name: &str) -> Result<Self, InvalidName> {
                check_name($kind, $bytes_max, name)?;
                Ok(Self(SmolStr::new(name)))
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl Ord for $name {
            fn cmp(&self, other: &Self) -> Ordering {
                // Keys of the tables begin alike, and whether two short names are equal is told without a loop.
                if self == other {
                    return Ordering::Equal;
                }
                self.as_str().cmp(other.as_str())
            }
        }

        impl PartialOrd for $name {
            fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
                Some(self.cmp(other))
            }
        }

        impl TryFrom<SmolStr> for $name {
            type Error = InvalidName;

            fn try_from(name: SmolStr) -> Result<Self, InvalidName> {
                check_name($kind, $bytes_max, &name)?;
                Ok(Self(name))
            }
        }

        impl From<$name> for SmolStr {
            fn from(name: $name) -> SmolStr {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name!(
    /// A namespace; `default` where none is given.
    Namespace, "namespace", NAME_BYTES_MAX
);
name!(
    /// A service's name within its namespace.
    ServiceName, "service name", NAME_BYTES_MAX
);
name!(
    /// An instance's id, unique on its node within its namespace.
    InstanceId, "instance id", NAME_BYTES_MAX
);
name!(
    /// A node: a host that instances run on. (A Raft member is a *server*, and something else.)
    NodeName, "node name", NAME_BYTES_MAX
);
name!(
    /// A check's id, unique on its node within its namespace.
    CheckId, "check id", CHECK_NAME_BYTES_MAX
);
name!(
    /// A session's id: a UUID where this program made it.
    SessionId, "session id", NAME_BYTES_MAX
);

impl Default for Namespace {
    fn default() -> Self {
        Namespace(SmolStr::new_static("default"))
    }
}

impl ServiceName {
    /// The name under which it is looked up: names that differ in the case of ASCII letters alone are the same in
    /// lookups, as in Consul. `None` if it is that already.
    pub(super) fn folded(&self) -> Option<ServiceName> {
        let has_capitals = self.0.bytes().any(|byte| byte.is_ascii_uppercase());
        has_capitals.then(|| ServiceName(self.0.to_ascii_lowercase().into()))
    }
}

impl InstanceId {
    /// Sorts before every id: where a range begins.
    pub(super) fn least() -> Self {
        InstanceId(SmolStr::default())
    }
}

impl NodeName {
    /// Sorts before every name: where a range begins.
    pub(super) fn least() -> Self {
        NodeName(SmolStr::default())
    }
}

impl CheckId {
    /// Sorts before every id: where a range begins.
    pub(super) fn least() -> Self {
        CheckId(SmolStr::default())
    }
}

/// What makes an instance this one and no other.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct InstanceKey {
    /// Its namespace.
    pub namespace: Namespace,
    /// Its node.
    pub node: NodeName,
    /// Its id.
    pub id: InstanceId,
}

/// What makes a check this one and no other. A node's own checks are in the namespace `default`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CheckKey {
    /// Its namespace.
    pub namespace: Namespace,
    /// Its node.
    pub node: NodeName,
    /// Its id.
    pub id: CheckId,
}

/// An address with its port, in a map of tagged addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceAddress {
    /// Host name or IP address.
    pub address: String,
    /// Port; 0 where it has none.
    pub port: u16,
}

/// How much of the traffic an instance should get, in each health.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Weights {
    /// While it is passing.
    pub passing: u32,
    /// While it is warning.
    pub warning: u32,
}

impl Default for Weights {
    fn default() -> Self {
        Weights {
            passing: 1,
            warning: 1,
        }
    }
}

/// A running copy of a service at an address. How it is encoded is said by `extras`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// Namespace.
    pub namespace: Namespace,
    /// Node.
    pub node: NodeName,
    /// Id.
    pub id: InstanceId,
    /// The service that it is an instance of.
    pub service: ServiceName,
    /// Address; empty means its node's.
    pub address: String,
    /// Port; 0 where it has none.
    pub port: u16,
    /// Tags, in the order given.
    pub tags: Vec<String>,
    /// Meta.
    pub meta: BTreeMap<String, String>,
    /// Weights.
    pub weights: Weights,
    /// Tagged addresses.
    pub tagged_addresses: BTreeMap<String, ServiceAddress>,
    /// Whether others may change its tags without its agent setting them back.
    pub enable_tag_override: bool,
    /// The index that created it; set by `apply`.
    pub create_index: u64,
    /// The index that last changed it; set by `apply`.
    pub modify_index: u64,
    /// What few instances have; `None` if there is nothing in it: see [`Extras::kept`].
    pub extras: Option<Arc<Extras>>,
}

/// A host. How it is encoded is said by `extras`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Name.
    pub name: NodeName,
    /// UUID, or empty.
    pub id: String,
    /// Address.
    pub address: String,
    /// Tagged addresses.
    pub tagged_addresses: BTreeMap<String, String>,
    /// Meta.
    pub meta: BTreeMap<String, String>,
    /// The index that created it; set by `apply`.
    pub create_index: u64,
    /// The index that last changed it; set by `apply`.
    pub modify_index: u64,
    /// Where it is, if it was said.
    pub locality: Option<Locality>,
}

/// A check's status. Ordered from best to worst for aggregation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum CheckStatus {
    /// All is well.
    Passing,
    /// Not quite well.
    Warning,
    /// Nothing is known.
    Unknown,
    /// Not to be used.
    Critical,
}

impl CheckKind {
    /// Consul's word for it; it has none for one whose status is set from outside.
    pub fn as_str(self) -> &'static str {
        match self {
            CheckKind::Ttl => "ttl",
            CheckKind::Http => "http",
            CheckKind::Tcp => "tcp",
            CheckKind::Cmd => "script",
            CheckKind::External => "",
            CheckKind::Udp => "udp",
            CheckKind::Grpc => "grpc",
            CheckKind::H2ping => "h2ping",
            CheckKind::Alias => "alias",
            CheckKind::Docker => "docker",
            CheckKind::OsService => "os_service",
        }
    }
}

impl CheckStatus {
    /// Every status, from best to worst.
    pub const ALL: [CheckStatus; 4] = [
        CheckStatus::Passing,
        CheckStatus::Warning,
        CheckStatus::Unknown,
        CheckStatus::Critical,
    ];

    /// The word that the HTTP API uses.
    pub fn as_str(self) -> &'static str {
        match self {
            CheckStatus::Passing => "passing",
            CheckStatus::Warning => "warning",
            CheckStatus::Unknown => "unknown",
            CheckStatus::Critical => "critical",
        }
    }

    /// Worst first: any critical, then any unknown, then any warning, else passing.
    pub fn aggregate(statuses: impl IntoIterator<Item = CheckStatus>) -> CheckStatus {
        statuses.into_iter().max().unwrap_or(CheckStatus::Passing)
    }
}

/// What kind of check it is, as a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum CheckKind {
    /// The service renews it.
    Ttl,
    /// An HTTP request.
    Http,
    /// A TCP connection.
    Tcp,
    /// A program.
    Cmd,
    /// Its status is set by whoever registered it (a catalog registration).
    External,
    /// A datagram.
    Udp,
    /// A question of gRPC's health protocol.
    Grpc,
    /// A ping of HTTP/2.
    H2ping,
    /// The health of something else.
    Alias,
    /// A program in a container.
    Docker,
    /// A service of the operating system.
    OsService,
}

/// What an agent runs for a check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Probe {
    /// Nothing: the service renews the check, and it expires after this long.
    Ttl(Duration),
    /// An HTTP request.
    Http {
        /// Absolute URL.
        url: String,
        /// Method; empty means `GET`.
        method: String,
        /// Headers; a name may repeat.
        headers: Vec<(String, String)>,
        /// Body.
        body: String,
    },
    /// A TCP connection to `host:port`.
    Tcp(String),
    /// A program and its arguments.
    Cmd(Vec<String>),
    /// Nothing: the status is set from outside.
    External,
    /// A datagram to `host:port`. This and what follows is since version 3 of commands.
    Udp(String),
    /// A question of gRPC's health protocol.
    Grpc {
        /// `host:port`, or `host:port/service`.
        target: String,
        /// Whether it is asked by TLS.
        tls: bool,
    },
    /// A ping of HTTP/2.
    H2ping {
        /// `host:port`.
        address: String,
        /// Whether it goes by TLS.
        tls: bool,
    },
    /// The health of an instance or of a node.
    Alias {
        /// The node; empty for the check's own.
        node: String,
        /// The instance's id; empty for the node itself.
        instance: String,
    },
    /// A program in a container.
    Docker {
        /// The container's id.
        container: String,
        /// The shell that runs the program; empty for none.
        shell: String,
        /// The program and its arguments.
        args: Vec<String>,
    },
    /// A service of the operating system, by its name.
    OsService(String),
    // Variants are added at the end only: the log and the rows hold them by their place.
}

impl Probe {
    /// Its kind.
    pub fn kind(&self) -> CheckKind {
        match self {
            Probe::Ttl(_) => CheckKind::Ttl,
            Probe::Http { .. } => CheckKind::Http,
            Probe::Tcp(_) => CheckKind::Tcp,
            Probe::Cmd(_) => CheckKind::Cmd,
            Probe::External => CheckKind::External,
            Probe::Udp(_) => CheckKind::Udp,
            Probe::Grpc { .. } => CheckKind::Grpc,
            Probe::H2ping { .. } => CheckKind::H2ping,
            Probe::Alias { .. } => CheckKind::Alias,
            Probe::Docker { .. } => CheckKind::Docker,
            Probe::OsService(_) => CheckKind::OsService,
        }
    }

    /// The oldest version of commands that can say it.
    pub(super) fn least_version(&self) -> u8 {
        match self {
            Probe::Ttl(_) | Probe::Http { .. } | Probe::Tcp(_) | Probe::Cmd(_) | Probe::External => 1,
            Probe::Udp(_)
            | Probe::Grpc { .. }
            | Probe::H2ping { .. }
            | Probe::Alias { .. }
            | Probe::Docker { .. }
            | Probe::OsService(_) => 3,
        }
    }
}

/// What is known about the health of a node or an instance in one respect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// Namespace.
    pub namespace: Namespace,
    /// Node.
    pub node: NodeName,
    /// Id.
    pub id: CheckId,
    /// Name for people.
    pub name: String,
    /// The instance it belongs to; `None` for a check of the node itself.
    pub instance: Option<InstanceId>,
    /// How it is run.
    pub definition: CheckDefinition,
    /// Status.
    pub status: CheckStatus,
    /// Output of the last run, at most 4 KiB.
    pub output: String,
    /// Notes for people.
    pub notes: String,
    /// How many replicated writes have set its status or changed its registration since it was created: what an
    /// expiry compares with. A write that finds the status as it is counts too; an expiry does not. It is no part of
    /// any answer: a view that is shared between readers may hold an older count.
    pub renewals: u64,
    /// The index that created it; set by `apply`.
    pub create_index: u64,
    /// The index that last changed it; set by `apply`.
    pub modify_index: u64,
}

impl Node {
    /// A node with nothing but a name and an address, tagged as Consul tags them.
    pub fn plain(name: NodeName, address: &str) -> Node {
        let family = match address.parse::<std::net::IpAddr>() {
            Ok(std::net::IpAddr::V4(_)) => Some("ipv4"),
            Ok(std::net::IpAddr::V6(_)) => Some("ipv6"),
            Err(_) => None,
        };
        let mut tagged_addresses = BTreeMap::new();
        for network in ["lan", "wan"] {
            tagged_addresses.insert(network.to_owned(), address.to_owned());
            if let Some(family) = family {
                tagged_addresses.insert(format!("{network}_{family}"), address.to_owned());
            }
        }
        Node {
            name,
            id: String::new(),
            address: address.to_owned(),
            tagged_addresses,
            meta: BTreeMap::new(),
            create_index: 0,
            modify_index: 0,
            locality: None,
        }
    }

    /// Itself with the indexes of `other`: for comparing what was registered.
    pub(super) fn with_indexes_of(&self, other: &Node) -> Node {
        Node {
            create_index: other.create_index,
            modify_index: other.modify_index,
            ..self.clone()
        }
    }
}

impl Check {
    /// Whether it is the check of whether its node is alive, which no agent's API shows.
    pub fn is_aliveness(&self) -> bool {
        self.instance.is_none() && self.id.as_str() == Session::NODE_ALIVE
    }

    /// Whether a watcher would see no difference between the two: equal but for output and renewals, which change
    /// without an index.
    pub(super) fn looks_like(&self, other: &Check) -> bool {
        self.modify_index == other.modify_index && self.looks_like_but_for_modify_index(other)
    }

    /// As [`Check::looks_like`], whichever index changed them last.
    pub(super) fn looks_like_but_for_modify_index(&self, other: &Check) -> bool {
        // Taken apart, so that a field that is added can't be forgotten here.
        let Check {
            namespace,
            node,
            id,
            name,
            instance,
            definition,
            status,
            output: _,
            notes,
            renewals: _,
            create_index,
            modify_index: _,
        } = self;
        *namespace == other.namespace
            && *node == other.node
            && *id == other.id
            && *name == other.name
            && *instance == other.instance
            && *definition == other.definition
            && *status == other.status
            && *notes == other.notes
            && *create_index == other.create_index
    }

    /// The instance it belongs to, if any.
    pub(super) fn instance_key(&self) -> Option<InstanceKey> {
        self.instance.as_ref().map(|id| InstanceKey {
            namespace: self.namespace.clone(),
            node: self.node.clone(),
            id: id.clone(),
        })
    }

    /// Its key.
    pub fn key(&self) -> CheckKey {
        CheckKey {
            namespace: self.namespace.clone(),
            node: self.node.clone(),
            id: self.id.clone(),
        }
    }
}

impl Instance {
    /// Itself with the indexes of `other`: for comparing what was registered.
    pub(super) fn with_indexes_of(&self, other: &Instance) -> Instance {
        Instance {
            create_index: other.create_index,
            modify_index: other.modify_index,
            ..self.clone()
        }
    }

    /// Its key.
    pub fn key(&self) -> InstanceKey {
        InstanceKey {
            namespace: self.namespace.clone(),
            node: self.node.clone(),
            id: self.id.clone(),
        }
    }
}
