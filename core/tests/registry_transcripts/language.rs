//! The transcripts' little language. Lines of one block make one command:
//!
//! ```text
//! register [INSTANCE] [service=S] [ns=N] [node=N] [address=A] [tags=T,T] [node-address=A] [node-meta=K:V]
//!     [replace-node | keep-statuses] [replace-checks] [check=ID[,ttl=15s][,of=INSTANCE|node][,status=S][,output=O][,notes=T]…]
//! deregister (node NAME | instance ID | check ID) [ns=N] [node=N] [service=S]
//! update (check=ID | ttl-checks-of=INSTANCE) [status=S] [output=O] [ns=N] [node=N]
//! expire ID renewals=COUNT created=INDEX [ns=N] [node=N]
//! do OPERATION                    (see `operations`)
//! begin-session ID [ttl=10s] [delay=15s] [behavior=delete] [checks=ID,ID] [node=N] [with-node]
//! end-session ID | renew-session ID | expire-session ID renewals=COUNT
//! end-delay KEY since=INDEX
//! show (service|passing|instances|service-checks) NAME | services | nodes | (node|node-checks) NAME
//!     | checks [STATUS] [ns=N] [tag=T] [node-meta=K:V]
//!     | key KEY | tree [PREFIX] | names [PREFIX] [separator=S] | session ID | sessions [node=N]
//! ```
//!
//! Values that are not given are `default`, node `n1`, and empty; an underscore in an output stands for a space.

use std::{collections::BTreeMap, time::Duration};

use sider_core::registry::{
    CheckDefinition, CheckDefinitionUpdate, CheckId, CheckKey, CheckStatus, CheckTarget, CheckUpdate,
    Command, Deregister, Expiry, Instance, InstanceId, InstanceKey, Keeps, Key, LockDelayEnd, Namespace,
    NewSession, Node, NodeName, Probe, Query, Registration, ServiceName, Session, SessionBehavior,
    SessionExpiry, SessionId, Weights,
};

use crate::operations;

pub(crate) enum Step {
    Apply(Command),
    Show(Query),
}

pub(crate) fn parse(lines: &[&str]) -> Step {
    let parsed: Vec<Words<'_>> = lines.iter().map(|line| Words::new(line)).collect();
    let verb = parsed[0].verb;
    assert!(
        parsed.iter().all(|words| words.verb == verb),
        "one block, one kind of command: {lines:?}"
    );
    match verb {
        "register" => Step::Apply(Command::Register(parsed.iter().map(registration).collect())),
        "update" => Step::Apply(Command::UpdateChecks(parsed.iter().map(update).collect())),
        "expire" => Step::Apply(Command::ExpireChecks(parsed.iter().map(expiry).collect())),
        "deregister" => Step::Apply(Command::Deregister(deregister(&parsed[0]))),
        "do" => Step::Apply(Command::Transact(
            lines.iter().map(|line| operations::parse(line)).collect(),
        )),
        "begin-session" => Step::Apply(begin_session(&parsed[0])),
        "end-session" => Step::Apply(Command::DestroySession(session_id(parsed[0].plain(0)))),
        "renew-session" => {
            let ids = parsed.iter().map(|words| session_id(words.plain(0)));
            Step::Apply(Command::RenewSessions(ids.collect()))
        }
        "expire-session" => {
            let expiries = parsed.iter().map(|words| SessionExpiry {
                session: session_id(words.plain(0)),
                renewals_seen: words.number("renewals"),
            });
            Step::Apply(Command::ExpireSessions(expiries.collect()))
        }
        "end-delay" => {
            let ends = parsed.iter().map(|words| LockDelayEnd {
                key: key(words.plain(0)),
                since_seen: words.number("since"),
            });
            Step::Apply(Command::EndLockDelays(ends.collect()))
        }
        "show" => Step::Show(query(&parsed[0])),
        other => panic!("unknown command {other:?}"),
    }
}

/// A line, taken apart.
struct Words<'a> {
    verb: &'a str,
    plain: Vec<&'a str>,
    pairs: Vec<(&'a str, &'a str)>,
}

impl<'a> Words<'a> {
    fn new(line: &'a str) -> Self {
        let mut words = line.split_whitespace();
        let verb = words.next().expect("a line has a first word");
        let (pairs, plain): (Vec<&str>, Vec<&str>) = words.partition(|word| word.contains('='));
        Words {
            verb,
            plain,
            pairs: pairs
                .into_iter()
                .filter_map(|word| word.split_once('='))
                .collect(),
        }
    }

    fn get(&self, key: &str) -> Option<&'a str> {
        self.all(key).next()
    }

    fn all(&self, key: &str) -> impl Iterator<Item = &'a str> {
        self.pairs
            .iter()
            .filter(move |(name, _)| *name == key)
            .map(|(_, value)| *value)
    }

    fn flag(&self, name: &str) -> bool {
        self.plain.contains(&name)
    }

    /// The plain word at a position.
    fn plain(&self, position: usize) -> &'a str {
        self.plain
            .get(position)
            .unwrap_or_else(|| panic!("{} wants more words", self.verb))
    }

    fn number(&self, key: &str) -> u64 {
        let value = self
            .get(key)
            .unwrap_or_else(|| panic!("{} wants {key}=", self.verb));
        value.parse().expect("a number")
    }

    fn namespace(&self) -> Namespace {
        self.get("ns").map_or_else(Namespace::default, |name| {
            Namespace::parse(name).expect("a namespace")
        })
    }

    fn node(&self) -> NodeName {
        NodeName::parse(self.get("node").unwrap_or("n1")).expect("a node name")
    }

    fn instance_key(&self, id: &str) -> InstanceKey {
        InstanceKey {
            namespace: self.namespace(),
            node: self.node(),
            id: instance_id(id),
        }
    }

    fn check_key(&self, id: &str) -> CheckKey {
        CheckKey {
            namespace: self.namespace(),
            node: self.node(),
            id: CheckId::parse(id).expect("a check id"),
        }
    }

    fn node_meta(&self) -> Vec<(String, String)> {
        let pairs = self
            .all("node-meta")
            .map(|pair| pair.split_once(':').expect("node-meta=KEY:VALUE"));
        pairs
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect()
    }
}

fn registration(words: &Words<'_>) -> Registration {
    let id = words
        .plain
        .iter()
        .find(|word| !word.starts_with("replace-"))
        .copied();
    let checks = words.all("check").map(|check| check_definition(words, id, check));
    Registration {
        node: Node {
            name: words.node(),
            id: String::new(),
            address: words.get("node-address").unwrap_or_default().into(),
            tagged_addresses: BTreeMap::new(),
            meta: words.node_meta().into_iter().collect(),
            create_index: 0,
            modify_index: 0,
            locality: None,
        },
        keeps: match (words.flag("replace-node"), words.flag("keep-statuses")) {
            (true, _) => Keeps::Nothing,
            (false, false) => Keeps::Node,
            (false, true) => Keeps::NodeAndStatuses,
        },
        instance: id.map(|id| instance(words, id)),
        checks: checks.collect(),
        replace_checks: words.flag("replace-checks"),
    }
}

fn instance(words: &Words<'_>, id: &str) -> Instance {
    let tags = words
        .get("tags")
        .unwrap_or_default()
        .split(',')
        .filter(|tag| !tag.is_empty());
    Instance {
        namespace: words.namespace(),
        service: ServiceName::parse(words.get("service").unwrap_or(id)).expect("a service name"),
        id: instance_id(id),
        node: words.get("instance-node").map_or_else(
            || words.node(),
            |name| NodeName::parse(name).expect("a node name"),
        ),
        address: words.get("address").unwrap_or_default().into(),
        port: 80,
        tags: tags.map(str::to_owned).collect(),
        meta: BTreeMap::new(),
        weights: Weights::default(),
        tagged_addresses: BTreeMap::new(),
        enable_tag_override: false,
        create_index: 0,
        modify_index: 0,
        extras: None,
    }
}

fn check_definition(words: &Words<'_>, instance: Option<&str>, text: &str) -> CheckDefinitionUpdate {
    let (id, rest) = text.split_once(',').unwrap_or((text, ""));
    let options: BTreeMap<&str, &str> = rest
        .split(',')
        .filter_map(|option| option.split_once('='))
        .collect();
    let probe = match options.get("ttl") {
        Some(ttl) => Probe::Ttl(seconds(ttl)),
        None => Probe::External,
    };
    let owner = options
        .get("of")
        .copied()
        .or(instance)
        .filter(|owner| *owner != "node");
    CheckDefinitionUpdate {
        id: CheckId::parse(id).expect("a check id"),
        namespace: words.namespace(),
        node: match options.get("on") {
            Some(node) => NodeName::parse(node).expect("a node name"),
            None => words.node(),
        },
        name: "a check".into(),
        instance: owner.map(instance_id),
        definition: CheckDefinition {
            probe,
            ..CheckDefinition::default()
        },
        status: options.get("status").map(|word| status(word)),
        output: options
            .get("output")
            .map(|text| text.replace('_', " "))
            .unwrap_or_default(),
        notes: options.get("notes").copied().unwrap_or_default().into(),
    }
}

fn deregister(words: &Words<'_>) -> Deregister {
    let name = words.plain(1);
    match words.plain(0) {
        "node" => Deregister::Node(NodeName::parse(name).expect("a node name")),
        "instance" => Deregister::Instance {
            key: words.instance_key(name),
            service: words
                .get("service")
                .map(|name| ServiceName::parse(name).expect("a service name")),
        },
        "check" => Deregister::Check(words.check_key(name)),
        other => panic!("unknown kind of thing {other:?}"),
    }
}

fn update(words: &Words<'_>) -> CheckUpdate {
    let target = match (words.get("check"), words.get("ttl-checks-of")) {
        (Some(id), None) => CheckTarget::Check(words.check_key(id)),
        (None, Some(id)) => CheckTarget::TtlChecksOf(words.instance_key(id)),
        _ => panic!("update wants check= or ttl-checks-of="),
    };
    CheckUpdate {
        target,
        status: words.get("status").map(status),
        output: words.get("output").map(|text| text.replace('_', " ")),
    }
}

fn expiry(words: &Words<'_>) -> Expiry {
    Expiry {
        check: words.check_key(words.plain(0)),
        renewals_seen: words.number("renewals"),
        create_index_seen: words.number("created"),
    }
}

fn begin_session(words: &Words<'_>) -> Command {
    let checks = words.get("checks").unwrap_or_default().split(',');
    let checks = checks.filter(|check| !check.is_empty());
    let session = Session {
        id: session_id(words.plain(0)),
        name: String::new(),
        node: words.node(),
        lock_delay: words.get("delay").map_or(Duration::ZERO, seconds),
        behavior: match words.get("behavior") {
            Some("delete") => SessionBehavior::Delete,
            _ => SessionBehavior::Release,
        },
        ttl: words.get("ttl").map(seconds),
        ttl_text: words.get("ttl").unwrap_or_default().into(),
        node_checks: checks
            .map(|check| CheckId::parse(check).expect("a check id"))
            .collect(),
        service_checks: Vec::new(),
        renewals: 0,
        create_index: 0,
        modify_index: 0,
    };
    let node = words.flag("with-node").then(|| Node {
        name: words.node(),
        id: String::new(),
        address: String::new(),
        tagged_addresses: BTreeMap::new(),
        meta: BTreeMap::new(),
        create_index: 0,
        modify_index: 0,
        locality: None,
    });
    Command::CreateSession(Box::new(NewSession { session, node }))
}

pub(crate) fn session_id(id: &str) -> SessionId {
    SessionId::parse(id).expect("a session id")
}

pub(crate) fn key(key: &str) -> Key {
    Key::parse(key.to_owned()).expect("a short key")
}

fn query(words: &Words<'_>) -> Query {
    let (namespace, node_meta) = (words.namespace(), words.node_meta());
    let service = || ServiceName::parse(words.plain(1)).expect("a service name");
    let node = || NodeName::parse(words.plain(1)).expect("a node name");
    let tags = words.all("tag").map(str::to_owned).collect();
    match words.plain(0) {
        kind @ ("service" | "passing") => Query::ServiceHealth {
            namespace,
            service: service(),
            passing: kind == "passing",
            tags,
            node_meta,
        },
        "instances" => Query::CatalogService {
            namespace,
            service: service(),
            tags,
            node_meta,
        },
        "service-checks" => Query::ServiceChecks {
            namespace,
            service: service(),
            node_meta,
        },
        "services" => Query::Services { namespace, node_meta },
        "nodes" => Query::Nodes { node_meta },
        "node" => Query::NodeServices {
            namespace,
            node: node(),
        },
        "node-checks" => Query::NodeChecks {
            namespace,
            node: node(),
        },
        "checks" => Query::ChecksInState {
            namespace,
            status: words.plain.get(1).map(|word| status(word)),
            node_meta,
        },
        "key" => Query::Key(key(words.plain(1))),
        "tree" => Query::KeyTree(key(words.plain.get(1).copied().unwrap_or_default())),
        "names" => Query::KeyNames {
            prefix: key(words.plain.get(1).copied().unwrap_or_default()),
            separator: words.get("separator").unwrap_or_default().into(),
        },
        "session" => Query::Session(session_id(words.plain(1))),
        "sessions" => Query::Sessions(words.get("node").map(|_| words.node())),
        other => panic!("unknown question {other:?}"),
    }
}

fn instance_id(id: &str) -> InstanceId {
    InstanceId::parse(id).expect("an instance id")
}

fn seconds(text: &str) -> Duration {
    let number = text.strip_suffix('s').expect("seconds, as in 15s");
    Duration::from_secs(number.parse().expect("a number"))
}

fn status(word: &str) -> CheckStatus {
    let mut all = CheckStatus::ALL.into_iter();
    all.find(|status| status.as_str() == word)
        .unwrap_or_else(|| panic!("unknown status {word:?}"))
}
