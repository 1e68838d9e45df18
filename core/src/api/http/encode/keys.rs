//! Keys, sessions and transactions in Consul's shapes.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde::Serialize;

use super::{CheckBody, Encoder, NodeBody, ServiceBody, mismatch, to_bytes};
use crate::registry::{KeyValue, OperationResult, Session, View};

/// A key with its value.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct KeyBody<'a> {
    lock_index: u64,
    key: String,
    flags: u64,
    /// Base64; Consul shows an empty value as `null`.
    value: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<&'a str>,
    create_index: u64,
    modify_index: u64,
}

impl<'a> KeyBody<'a> {
    fn new(found: &'a KeyValue) -> Self {
        KeyBody {
            lock_index: found.lock_index,
            key: found.key.to_string(),
            flags: found.flags,
            value: (!found.value.is_empty()).then(|| STANDARD.encode(&found.value)),
            session: found.session.as_ref().map(|session| session.as_str()),
            create_index: found.create_index,
            modify_index: found.modify_index,
        }
    }
}

/// `/v1/kv`: values or names.
pub fn keys(view: &View) -> Bytes {
    match view {
        View::Keys(found) => {
            let found = found.iter().map(|found| KeyBody::new(found));
            to_bytes(&found.collect::<Vec<_>>())
        }
        View::KeyNames(names) => to_bytes(&names.iter().map(ToString::to_string).collect::<Vec<_>>()),
        _ => mismatch(view),
    }
}

/// The lists of `/v1/session`.
pub fn session_view(view: &View) -> Bytes {
    match view {
        View::Sessions(found) => sessions(found),
        _ => mismatch(view),
    }
}

/// Sessions, as a list.
pub fn sessions(sessions: &[Session]) -> Bytes {
    #[derive(Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct SessionBody<'a> {
        #[serde(rename = "ID")]
        id: &'a str,
        name: &'a str,
        node: &'a str,
        lock_delay: u64,
        behavior: &'a str,
        #[serde(rename = "TTL")]
        ttl: &'a str,
        node_checks: Vec<&'a str>,
        service_checks: Option<Vec<ServiceCheckBody<'a>>>,
        create_index: u64,
        modify_index: u64,
    }
    #[derive(Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct ServiceCheckBody<'a> {
        #[serde(rename = "ID")]
        id: &'a str,
        namespace: &'a str,
    }
    fn body(session: &Session) -> SessionBody<'_> {
        SessionBody {
            id: session.id.as_str(),
            name: &session.name,
            node: session.node.as_str(),
            lock_delay: u64::try_from(session.lock_delay.as_nanos()).unwrap_or(u64::MAX),
            behavior: session.behavior.as_str(),
            ttl: &session.ttl_text,
            node_checks: session.node_checks.iter().map(|id| id.as_str()).collect(),
            service_checks: (!session.service_checks.is_empty()).then(|| {
                let checks = session.service_checks.iter();
                checks
                    .map(|(namespace, id)| ServiceCheckBody {
                        id: id.as_str(),
                        namespace: super::shown_namespace(namespace).unwrap_or_default(),
                    })
                    .collect()
            }),
            create_index: session.create_index,
            modify_index: session.modify_index,
        }
    }
    to_bytes(&sessions.iter().map(body).collect::<Vec<_>>())
}

/// Which of Consul's two endpoints for transactions answers: they tell different things.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransactionBodyKind {
    /// That which writes.
    Written,
    /// That which reads.
    Read,
    /// That which reads, before it read anything.
    Refused,
}

/// What one operation gave, under the name of its kind.
#[derive(Serialize)]
enum ResultBody<'a> {
    #[serde(rename = "KV")]
    Key(KeyBody<'a>),
    Node(NodeBody<'a>),
    Service(Box<ServiceBody<'a>>),
    Check(Box<CheckBody<'a>>),
}

impl<'a> Encoder<'a> {
    /// The answer to a transaction: what the operations gave, or the place and the reason of each that can't be done.
    pub fn transaction(
        &self,
        kind: TransactionBodyKind,
        outcome: Result<&[OperationResult], &[(u64, String)]>,
    ) -> Bytes {
        #[derive(Serialize)]
        #[serde(rename_all = "PascalCase")]
        struct Body<'a> {
            results: Option<Vec<ResultBody<'a>>>,
            errors: Option<Vec<ErrorBody<'a>>>,
            #[serde(flatten)]
            meta: Option<MetaBody>,
        }
        #[derive(Serialize)]
        #[serde(rename_all = "PascalCase")]
        struct ErrorBody<'a> {
            op_index: u64,
            what: &'a str,
        }
        #[derive(Serialize)]
        #[serde(rename_all = "PascalCase")]
        struct MetaBody {
            index: u64,
            last_contact: u64,
            known_leader: bool,
            consistency_level: &'static str,
            not_modified: bool,
            backend: u64,
            #[serde(rename = "ResultsFilteredByACLs")]
            results_filtered_by_acls: bool,
        }
        let meta = |index, known_leader| MetaBody {
            index,
            last_contact: 0,
            known_leader,
            consistency_level: "",
            not_modified: false,
            backend: 0,
            results_filtered_by_acls: false,
        };
        to_bytes(&Body {
            results: outcome
                .ok()
                .map(|given| given.iter().map(|given| self.given(given)).collect()),
            errors: outcome.err().map(|errors| {
                let errors = errors.iter();
                errors
                    .map(|(op_index, what)| ErrorBody {
                        op_index: *op_index,
                        what,
                    })
                    .collect()
            }),
            meta: match kind {
                TransactionBodyKind::Written => None,
                TransactionBodyKind::Read => Some(meta(1, true)),
                TransactionBodyKind::Refused => Some(meta(0, false)),
            },
        })
    }

    fn given<'b>(&self, given: &'b OperationResult) -> ResultBody<'b>
    where
        'a: 'b,
    {
        // As in Consul, a transaction says `null` of tags where there are none.
        match given {
            OperationResult::Key(found) | OperationResult::KeyMeta(found) => {
                ResultBody::Key(KeyBody::new(found))
            }
            OperationResult::Node(node) => ResultBody::Node(self.node(node)),
            OperationResult::Instance(instance) => {
                let mut body = self.service(instance);
                body.tags = body.tags.filter(|tags| !tags.is_empty());
                ResultBody::Service(Box::new(body))
            }
            OperationResult::Check((check, service)) => {
                let service = service.as_ref().map(|(name, tags)| (name, tags.as_slice()));
                let mut body = self.check(check, service);
                body.service_tags = body.service_tags.filter(|tags| !tags.is_empty());
                ResultBody::Check(Box::new(body))
            }
        }
    }
}
