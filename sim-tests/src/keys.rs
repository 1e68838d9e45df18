//! What clients do with keys, sessions and transactions: as values, as HTTP requests, and what the answers say.

mod seen;

use self::seen::each;
pub use self::seen::{KeySeen, SessionSeen, parse_keys, parse_names, parse_sessions};

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use http::{Method, Request};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sider_core::registry::{
    CheckId, Command, Key, KeyWrite, Namespace, Operation, Refusal, Reply, Session, SessionBehavior,
    SessionId,
};

use crate::{
    agent_reads::{AgentAsk, AgentSeen, LAST_HASH},
    catalog_steps::{self, CatalogStep, Given},
    content::Content,
    history::Outcome,
    matching::SHARED_NODE,
    operation::{Ask, Op},
    prepared::PreparedOp,
};

/// Stands for the modify index that clients read last.
pub const LAST_SEEN: u64 = u64::MAX;

/// A request about keys or sessions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum KeyOp {
    /// `/v1/kv`: one step that writes.
    One(Step),
    /// `/v1/txn`.
    Transact(Vec<Step>),
    /// `/v1/session/create`.
    CreateSession(NewSession),
    /// `/v1/session/destroy`.
    DestroySession {
        /// Its id; in a schedule the name that it was created under.
        session: String,
    },
    /// `/v1/session/renew`.
    RenewSession {
        /// Its id; in a schedule the name that it was created under.
        session: String,
    },
}

/// A session that is not renewed ends after so many of its TTLs, as `docs/HTTP_API.md` says.
pub const SESSION_TTLS: u32 = 2;

/// A session to create.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewSession {
    /// Tells it from every other one.
    pub name: String,
    /// Its TTL in milliseconds; 0 is none.
    pub ttl_ms: u64,
    /// Delay of its locks in milliseconds; 0 is none.
    pub lock_delay_ms: u64,
    /// Whether its keys are deleted at its end.
    pub deletes: bool,
    /// The checks of its node that it is bound to.
    pub checks: Vec<String>,
    /// The checks of its node's services that it is bound to.
    #[serde(default)]
    pub service_checks: Vec<String>,
    /// Its node; empty for the servers' shared one.
    #[serde(default)]
    pub node: String,
}

impl NewSession {
    /// Whether it ends only by itself, or by what is done to it or to the servers' shared node.
    pub fn is_bound_to_nothing(&self) -> bool {
        self.checks.is_empty() && self.service_checks.is_empty() && self.node.is_empty()
    }

    fn node(&self) -> &str {
        match self.node.as_str() {
            "" => SHARED_NODE,
            node => node,
        }
    }

    fn is_created_by(&self, session: &Session) -> bool {
        let texts = |ids: &[CheckId]| ids.iter().map(ToString::to_string).collect::<Vec<_>>();
        let here = |(namespace, id): &(Namespace, CheckId)| {
            (*namespace == Namespace::default()).then(|| id.to_string())
        };
        let service_checks: Vec<_> = session.service_checks.iter().map(here).collect();
        session.name == self.name
            && session.node.as_str() == self.node()
            && session.ttl.unwrap_or_default().as_millis() == u128::from(self.ttl_ms)
            && session.lock_delay.as_millis() == u128::from(self.lock_delay_ms)
            && (session.behavior == SessionBehavior::Delete) == self.deletes
            && texts(&session.node_checks) == self.checks
            && service_checks
                .into_iter()
                .eq(self.service_checks.iter().cloned().map(Some))
    }

    fn body(&self) -> Value {
        let service_checks = self.service_checks.iter().map(|id| json!({ "ID": id }));
        let mut body = json!({
            "Name": self.name,
            "TTL": format!("{}ms", self.ttl_ms),
            "LockDelay": format!("{}ms", self.lock_delay_ms),
            "Behavior": if self.deletes { "delete" } else { "release" },
            "NodeChecks": self.checks,
            "ServiceChecks": service_checks.collect::<Vec<_>>(),
        });
        if !self.node.is_empty() {
            body["Node"] = json!(self.node);
        }
        body
    }
}

/// A step of a transaction. Sessions are ids; in a schedule, the names that they were created under.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    /// Puts a value.
    Set(String, String),
    /// Puts a value if the key has this modify index.
    SetIf(String, String, u64),
    /// Puts a value and takes the lock.
    Lock(String, String, String),
    /// Puts a value and gives the lock back.
    Unlock(String, String, String),
    /// Deletes a key.
    Delete(String),
    /// Deletes a key if it has this modify index.
    DeleteIf(String, u64),
    /// Deletes all keys with a prefix.
    DeleteTree(String),
    /// Reads a key.
    Get(String),
    /// Reads a key, which need not be there.
    GetOrEmpty(String),
    /// Reads all keys with a prefix.
    GetTree(String),
    /// Fails unless the key has this modify index.
    CheckIndex(String, u64),
    /// Fails unless the session of this name holds the lock.
    CheckSession(String, String),
    /// Fails if the key is there.
    CheckNotExists(String),
    /// Ends a session; only in a transaction.
    EndSession(String),
    /// Does something to the catalog; only in a transaction.
    Catalog(CatalogStep),
}

/// The steps that a refusal names.
fn places(reason: &str) -> Option<Vec<u64>> {
    let told: serde_json::Value = serde_json::from_str(reason).ok()?;
    let errors = told["Errors"].as_array()?;
    errors.iter().map(|error| error["OpIndex"].as_u64()).collect()
}

impl Step {
    /// The operation that a server makes of it.
    pub fn operation(&self) -> Operation {
        let write = |name: &str, value: &str| KeyWrite {
            key: key(name),
            value: Bytes::from(value.to_owned()),
            flags: flags_of(value),
        };
        let session = |id: &str| SessionId::parse(id).ok();
        match self {
            Step::Set(key, value) => Operation::SetKey(write(key, value)),
            Step::SetIf(key, value, index) => Operation::SetKeyIf(write(key, value), *index),
            Step::Lock(key, value, by) => Operation::Lock(write(key, value), session(by)),
            Step::Unlock(key, value, by) => Operation::Unlock(write(key, value), session(by)),
            Step::Delete(name) => Operation::DeleteKey(key(name)),
            Step::DeleteIf(name, index) => Operation::DeleteKeyIf(key(name), *index),
            Step::DeleteTree(prefix) => Operation::DeleteTree(key(prefix)),
            Step::Get(name) => Operation::GetKey(key(name)),
            Step::GetOrEmpty(name) => Operation::GetKeyOrEmpty(key(name)),
            Step::GetTree(prefix) => Operation::GetTree(key(prefix)),
            Step::CheckIndex(name, index) => Operation::CheckIndex(key(name), *index),
            Step::CheckSession(name, by) => Operation::CheckSession(key(name), session(by)),
            Step::CheckNotExists(name) => Operation::CheckNotExists(key(name)),
            Step::EndSession(id) => Operation::DestroySession(session_id(id)),
            Step::Catalog(step) => step.operation(),
        }
    }

    /// Its place in `/v1/txn`.
    fn body(&self) -> Value {
        let body = |verb: &str, key: &str| json!({ "Verb": verb, "Key": key });
        let with = |verb: &str, key: &str, name: &str, value: Value| {
            let mut body = body(verb, key);
            body[name] = value;
            body
        };
        let put = |verb: &str, key: &str, value: &str| {
            let mut body = with(verb, key, "Value", json!(base64(value.as_bytes())));
            body["Flags"] = json!(flags_of(value));
            body
        };
        let body = match self {
            Step::Set(key, value) => put("set", key, value),
            Step::SetIf(key, value, index) => {
                let mut body = put("cas", key, value);
                body["Index"] = json!(index);
                body
            }
            Step::Lock(key, value, by) => {
                let mut body = put("lock", key, value);
                body["Session"] = json!(by);
                body
            }
            Step::Unlock(key, value, by) => {
                let mut body = put("unlock", key, value);
                body["Session"] = json!(by);
                body
            }
            Step::Delete(key) => body("delete", key),
            Step::DeleteIf(key, index) => with("delete-cas", key, "Index", json!(index)),
            Step::DeleteTree(prefix) => body("delete-tree", prefix),
            Step::Get(key) => body("get", key),
            Step::GetOrEmpty(key) => body("get-or-empty", key),
            Step::GetTree(prefix) => body("get-tree", prefix),
            Step::CheckIndex(key, index) => with("check-index", key, "Index", json!(index)),
            Step::CheckSession(key, by) => with("check-session", key, "Session", json!(by)),
            Step::CheckNotExists(key) => body("check-not-exists", key),
            Step::EndSession(id) => {
                return json!({ "Session": { "Verb": "delete", "Session": { "ID": id } } });
            }
            Step::Catalog(step) => return step.body(),
        };
        json!({ "KV": body })
    }

    /// The session that it names, and the index that it expects of a key.
    fn references(&mut self) -> (Option<&mut String>, Option<(String, &mut u64)>) {
        match self {
            Step::Lock(.., by) | Step::Unlock(.., by) | Step::CheckSession(_, by) | Step::EndSession(by) => {
                (Some(by), None)
            }
            Step::SetIf(key, _, index) | Step::DeleteIf(key, index) | Step::CheckIndex(key, index) => {
                (None, Some((key.clone(), index)))
            }
            _ => (None, None),
        }
    }
}

impl KeyOp {
    /// Whether this asked for exactly this command.
    pub fn asks_for(&self, command: &Command) -> bool {
        let steps = |steps: &[Step]| steps.iter().map(Step::operation).collect::<Vec<_>>();
        match (self, command) {
            (KeyOp::One(step), Command::Transact(operations)) => *operations == [step.operation()],
            (KeyOp::Transact(asked), Command::Transact(operations)) => *operations == steps(asked),
            (KeyOp::CreateSession(new), Command::CreateSession(created)) => {
                new.is_created_by(&created.session)
            }
            (KeyOp::DestroySession { session }, Command::DestroySession(id)) => id.as_str() == session,
            _ => false,
        }
    }

    /// Whether a client was told what came of it, by its entry's command and the reply to that.
    ///
    /// # Errors
    /// Says what else it was told.
    pub fn is_told_truly(
        &self,
        outcome: &Outcome,
        command: &Command,
        reply: &Result<Reply, Refusal>,
    ) -> Result<(), String> {
        let told = match outcome {
            Outcome::Refused { status, reason } if reply.is_ok() => {
                return Err(format!("refused with {status} {reason:?}, but it was done"));
            }
            // Which steps can't be done is told, too.
            Outcome::Refused { reason, .. } => {
                return match (self, reply) {
                    (KeyOp::Transact(_), Err(Refusal::Aborted(errors))) => {
                        let expected: Vec<u64> = errors.iter().map(|error| error.place).collect();
                        match places(reason) {
                            Some(told) if told == expected => Ok(()),
                            _ => Err(format!("refused with {reason:?}, should name steps {expected:?}")),
                        }
                    }
                    _ => Ok(()),
                };
            }
            Outcome::Done(answer) => answer.content.as_ref(),
            _ => return Ok(()),
        };
        let expected = match (self, reply) {
            (KeyOp::One(_), Ok(_)) => Content::Flag(true),
            (KeyOp::One(_), Err(Refusal::Aborted(_))) => Content::Flag(false),
            (KeyOp::DestroySession { .. }, Ok(_)) => Content::Flag(true),
            (KeyOp::Transact(_), Ok(Reply::Transacted(results))) => Content::Given(Given::all_of(results)),
            // The id is the server's choice.
            (KeyOp::CreateSession(_), Ok(_)) => match command {
                Command::CreateSession(created) => Content::Created(created.session.id.to_string()),
                _ => return Err("acknowledged, but no session was created".into()),
            },
            (_, reply) => return Err(format!("acknowledged, but the reply is {reply:?}")),
        };
        match told {
            Some(content) if *content == expected => Ok(()),
            told => Err(format!("the answer is {told:?}, should be {expected:?}")),
        }
    }

    /// Whether it is owed an entry in the log when it is acknowledged.
    pub fn is_logged(&self) -> bool {
        match self {
            KeyOp::RenewSession { .. } => false,
            KeyOp::Transact(steps) => !steps.iter().all(|step| step.operation().only_reads()),
            _ => true,
        }
    }

    /// The request.
    pub fn request(&self) -> Request<Bytes> {
        match self {
            KeyOp::One(step) => one(step),
            KeyOp::Transact(steps) => {
                let body = Value::Array(steps.iter().map(Step::body).collect());
                request(Method::PUT, "/v1/txn", body.to_string())
            }
            KeyOp::CreateSession(new) => request(Method::PUT, "/v1/session/create", new.body().to_string()),
            KeyOp::DestroySession { session } => request(
                Method::PUT,
                &format!("/v1/session/destroy/{session}"),
                String::new(),
            ),
            KeyOp::RenewSession { session } => request(
                Method::PUT,
                &format!("/v1/session/renew/{session}"),
                String::new(),
            ),
        }
    }

    /// What a 200 says.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn parse(&self, body: &[u8]) -> Result<Content, String> {
        let value: Value = serde_json::from_slice(body).map_err(|error| format!("not JSON: {error}"))?;
        match self {
            KeyOp::One(_) | KeyOp::DestroySession { .. } => {
                let flag = value
                    .as_bool()
                    .ok_or_else(|| format!("{value} is neither true nor false"))?;
                Ok(Content::Flag(flag))
            }
            KeyOp::CreateSession(_) => {
                let id = value["ID"].as_str().ok_or_else(|| format!("no ID in {value}"))?;
                Ok(Content::Created(id.to_owned()))
            }
            KeyOp::RenewSession { .. } => parse_sessions(&value),
            KeyOp::Transact(_) => Ok(Content::Given(each(&value["Results"], Given::parse)?)),
        }
    }
}

fn one(step: &Step) -> Request<Bytes> {
    let put = |key: &str, value: &str, option: String| {
        let flags = flags_of(value);
        request(
            Method::PUT,
            &format!("/v1/kv/{key}?flags={flags}{option}"),
            value.to_owned(),
        )
    };
    let delete =
        |key: &str, option: String| request(Method::DELETE, &format!("/v1/kv/{key}{option}"), String::new());
    match step {
        Step::Set(key, value) => put(key, value, String::new()),
        Step::SetIf(key, value, index) => put(key, value, format!("&cas={index}")),
        Step::Lock(key, value, by) => put(key, value, format!("&acquire={by}")),
        Step::Unlock(key, value, by) => put(key, value, format!("&release={by}")),
        Step::Delete(key) => delete(key, String::new()),
        Step::DeleteIf(key, index) => delete(key, format!("?cas={index}")),
        Step::DeleteTree(prefix) => delete(prefix, "?recurse".into()),
        other => unreachable!("read by a question, not by an operation: {other:?}"),
    }
}

fn request(method: Method, path: &str, body: String) -> Request<Bytes> {
    Request::builder()
        .method(method)
        .uri(path)
        .body(Bytes::from(body))
        .expect("simulated names are valid in a path")
}

/// The id of a session of a simulation.
fn session_id(id: &str) -> SessionId {
    SessionId::parse(id).expect("simulated names are valid")
}

/// A key of a simulation.
pub fn key(name: &str) -> Key {
    Key::parse(name.to_owned()).expect("simulated keys are short")
}

/// What clients tell each other: ids of sessions by name, and the index of each key that was read last.
#[derive(Clone, Debug, Default)]
pub struct Notes(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    sessions: BTreeMap<String, String>,
    queries: BTreeMap<String, String>,
    indexes: BTreeMap<String, u64>,
    catalog: BTreeMap<catalog_steps::Name, u64>,
    hashes: BTreeMap<String, String>,
}

impl Notes {
    /// An operation of a schedule with everything filled in that is known only while it runs.
    pub fn resolve(&self, mut op: Op) -> Op {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let name = |session: &mut String| {
            if let Some(id) = known.sessions.get(session) {
                session.clone_from(id);
            }
        };
        let step = |step: &mut Step| {
            if let Step::Catalog(step) = step
                && let Some((name, index)) = step.expects()
                && *index == LAST_SEEN
            {
                *index = known.catalog.get(&name).copied().unwrap_or(0);
            }
            let (session, index) = step.references();
            session.into_iter().for_each(name);
            if let Some((key, index)) = index
                && *index == LAST_SEEN
            {
                *index = known.indexes.get(&key).copied().unwrap_or(0);
            }
        };
        match &mut op {
            Op::Keys(KeyOp::One(one)) => step(one),
            Op::Keys(KeyOp::Transact(steps)) => steps.iter_mut().for_each(step),
            Op::Keys(KeyOp::DestroySession { session } | KeyOp::RenewSession { session }) => name(session),
            Op::Read {
                ask: Ask::Session(session),
                ..
            }
            | Op::Wait {
                ask: Ask::Session(session),
                ..
            } => name(session),
            Op::AgentRead(AgentAsk::Service { id, hash, .. }) if hash == LAST_HASH => {
                *hash = known.hashes.get(id).cloned().unwrap_or_default();
            }
            Op::Prepared(op) => {
                let query = op.query().into_iter();
                query.for_each(|query| {
                    if let Some(id) = known.queries.get(query) {
                        query.clone_from(id);
                    }
                });
            }
            _ => {}
        }
        op
    }

    /// Takes note of what an answer tells.
    pub fn take(&self, op: &Op, outcome: &Outcome) {
        let Outcome::Done(answer) = outcome else { return };
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match (op, &answer.content) {
            (Op::Keys(KeyOp::CreateSession(new)), Some(Content::Created(id))) => {
                known.sessions.insert(new.name.clone(), id.clone());
            }
            (Op::Prepared(PreparedOp::Create { label, .. }), Some(Content::Created(id))) => {
                known.queries.insert(label.clone(), id.clone());
            }
            (
                Op::AgentRead(AgentAsk::Service { id, .. }),
                Some(Content::Agent(AgentSeen::Service(Some((hash, _))))),
            ) => {
                known.hashes.insert(id.clone(), hash.clone());
            }
            (_, Some(Content::Keys(seen))) => known.keys(seen),
            (_, Some(content)) => {
                if let Content::Given(given) = content {
                    known.keys(given.iter().filter_map(Given::key));
                }
                known.catalog.extend(catalog_steps::indexes_told(op, content));
            }
            (_, None) => {}
        }
    }
}

impl Known {
    fn keys<'a>(&mut self, seen: impl IntoIterator<Item = &'a KeySeen>) {
        let indexes = seen.into_iter().map(|seen| (seen.key.clone(), seen.modify_index));
        self.indexes.extend(indexes);
    }
}

impl fmt::Display for KeyOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeyOp::One(step) => write!(f, "{step}"),
            KeyOp::Transact(steps) => {
                let steps: Vec<String> = steps.iter().map(ToString::to_string).collect();
                write!(f, "transact [{}]", steps.join("; "))
            }
            KeyOp::CreateSession(new) => {
                write!(f, "create session {} ttl {} ms", new.name, new.ttl_ms)?;
                write!(f, " delay {} ms", new.lock_delay_ms)?;
                f.write_str(if new.deletes { " deletes" } else { "" })?;
                if !new.node.is_empty() {
                    write!(f, " on {}", new.node)?;
                }
                let checks = new.checks.iter().chain(&new.service_checks);
                checks
                    .into_iter()
                    .try_for_each(|check| write!(f, " bound to {check}"))
            }
            KeyOp::DestroySession { session } => write!(f, "destroy session {session}"),
            KeyOp::RenewSession { session } => write!(f, "renew session {session}"),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Set(key, value) => write!(f, "set {key} {value}"),
            Step::SetIf(key, value, index) => write!(f, "set {key} {value} if at {index}"),
            Step::Lock(key, value, by) => write!(f, "lock {key} {value} by {by}"),
            Step::Unlock(key, value, by) => write!(f, "unlock {key} {value} by {by}"),
            Step::Delete(key) => write!(f, "delete {key}"),
            Step::DeleteIf(key, index) => write!(f, "delete {key} if at {index}"),
            Step::DeleteTree(prefix) => write!(f, "delete all with {prefix}"),
            Step::Get(key) => write!(f, "get {key}"),
            Step::GetOrEmpty(key) => write!(f, "get {key} if it is there"),
            Step::GetTree(prefix) => write!(f, "get all with {prefix}"),
            Step::CheckIndex(key, index) => write!(f, "{key} is at {index}"),
            Step::CheckSession(key, by) => write!(f, "{key} is held by {by}"),
            Step::CheckNotExists(key) => write!(f, "there is no {key}"),
            Step::EndSession(id) => write!(f, "end session {id}"),
            Step::Catalog(step) => write!(f, "{step}"),
        }
    }
}

/// The flags that are written with a value: they follow from it, so that a schedule need not name them.
pub fn flags_of(value: &str) -> u64 {
    value.bytes().map(u64::from).sum::<u64>() % 5
}

/// A value as answers show it.
pub fn base64(bytes: &[u8]) -> String {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    STANDARD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new_session() -> NewSession {
        NewSession {
            name: "one".into(),
            ttl_ms: 1_500,
            lock_delay_ms: 300,
            deletes: true,
            checks: vec!["ping".into()],
            service_checks: vec!["db-check".into()],
            node: "host-a".into(),
        }
    }

    #[test]
    fn a_session_says_what_it_is_bound_to() {
        let body = new_session().body();
        assert_eq!(body["Node"], "host-a");
        assert_eq!(body["NodeChecks"], json!(["ping"]));
        assert_eq!(body["ServiceChecks"], json!([{ "ID": "db-check" }]));
        let shared = NewSession {
            node: String::new(),
            ..new_session()
        };
        assert_eq!(shared.body().get("Node"), None);
        assert!(!new_session().is_bound_to_nothing() && !shared.is_bound_to_nothing());
    }

    #[test]
    fn a_value_is_written_with_its_flags() {
        let (one, other) = (flags_of("v1"), flags_of("v2"));
        assert_ne!(one, other);
        let request = KeyOp::One(Step::SetIf("k".into(), "v1".into(), 7)).request();
        assert_eq!(request.uri().to_string(), format!("/v1/kv/k?flags={one}&cas=7"));
        assert_eq!(Step::Set("k".into(), "v2".into()).body()["KV"]["Flags"], other);
    }
}
