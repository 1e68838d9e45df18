//! What clients do with prepared queries: as values, as HTTP requests, what the answers say, and what they must say, worked
//! out from a state by looking at everything.

use std::fmt;

use bytes::Bytes;
use http::{Method, Request};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sider_core::registry::{CheckStatus, Command, Key, Operation};

use crate::{
    answers::answer,
    content::{Content, InstanceSeen},
    model::State,
    operation::Ask,
};

/// A request about prepared queries. A query is named by its id; in a schedule by the label that it was created under.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum PreparedOp {
    /// `POST /v1/query`.
    Create {
        /// What the schedule calls it.
        label: String,
        /// What it says.
        wanted: Wanted,
    },
    /// `PUT /v1/query/{id}`.
    Update {
        /// Which.
        query: String,
        /// What it says from then on.
        wanted: Wanted,
    },
    /// `DELETE /v1/query/{id}`.
    Delete {
        /// Which.
        query: String,
    },
    /// `GET /v1/query/{id}`.
    Get {
        /// Which.
        query: String,
    },
    /// `GET /v1/query/{id or name}/execute`.
    Execute {
        /// Which, or a name.
        query: String,
        /// `?limit`; 0 is none.
        limit: usize,
    },
    /// `GET /v1/query/{id or name}/explain`.
    Explain {
        /// Which, or a name.
        query: String,
    },
}

/// What a query says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    /// Its name, which no other query has; it may have none.
    pub name: String,
    /// Whether it is a template for all names that begin so.
    pub template: bool,
    /// The service; a template's may have what follows its name in it.
    pub service: String,
    /// Whether instances must pass.
    pub only_passing: bool,
    /// Tags that must be there, or with a `!` must not.
    pub tags: Vec<String>,
    /// Checks that do not count.
    pub ignored_checks: Vec<String>,
    /// The node whose instances come first; empty if none do.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub near: String,
    /// Tells it from every other definition.
    pub version: u32,
}

/// Stands in a template for what follows its name in the one that is asked for.
pub const SUFFIX: &str = "${name.suffix}";

impl Wanted {
    /// The body of the request.
    fn body(&self) -> Value {
        json!({
            "Name": self.name,
            "Template": { "Type": self.kind() },
            "Service": {
                "Service": self.service,
                "OnlyPassing": self.only_passing,
                "Tags": self.tags,
                "IgnoreCheckIDs": self.ignored_checks,
                "Near": self.near,
            },
            "DNS": { "TTL": self.ttl() },
        })
    }

    fn kind(&self) -> &'static str {
        if self.template { "name_prefix_match" } else { "" }
    }

    fn ttl(&self) -> String {
        format!("{}s", self.version)
    }

    /// What is stored for it, and shown but for its indexes.
    pub fn stored(&self, id: &str) -> Value {
        let list = |texts: &[String]| {
            if texts.is_empty() {
                Value::Null
            } else {
                json!(texts)
            }
        };
        json!({
            "ID": id,
            "Name": self.name,
            "Session": "",
            "Token": "",
            "Template": { "Type": self.kind(), "Regexp": "", "RemoveEmptyTags": false },
            "Service": {
                "Service": self.service,
                "SamenessGroup": "",
                "Failover": { "NearestN": 0, "Datacenters": null, "Targets": null },
                "OnlyPassing": self.only_passing,
                "IgnoreCheckIDs": list(&self.ignored_checks),
                "Near": self.near,
                "Tags": list(&self.tags),
                "NodeMeta": null,
                "ServiceMeta": null,
                "Connect": false,
                "Peer": "",
            },
            "DNS": { "TTL": self.ttl() },
        })
    }
}

/// The directory of all definitions.
///
/// # Panics
/// Never: it is short.
pub fn directory() -> Key {
    Key::reserved("query/").expect("a short constant")
}

/// The id of the query whose definition a key holds.
fn id_of(key: &Key) -> Option<String> {
    let id = key.as_bytes().strip_prefix(directory().as_bytes())?;
    Some(String::from_utf8_lossy(id).into_owned())
}

/// What a command puts in the place of a definition: the id of the query, and its definition; none if it is deleted.
pub fn written(command: &Command) -> Option<(String, Option<Value>)> {
    let Command::Transact(operations) = command else {
        return None;
    };
    operations.iter().find_map(|operation| match operation {
        Operation::SetKey(write) => {
            let id = id_of(&write.key)?;
            Some((id, Some(serde_json::from_slice(&write.value).ok()?)))
        }
        Operation::DeleteKey(key) => Some((id_of(key)?, None)),
        _ => None,
    })
}

impl PreparedOp {
    /// Whether it changes a definition.
    pub fn is_logged(&self) -> bool {
        matches!(
            self,
            PreparedOp::Create { .. } | PreparedOp::Update { .. } | PreparedOp::Delete { .. }
        )
    }

    /// The query that it names, as a schedule does.
    pub fn query(&mut self) -> Option<&mut String> {
        match self {
            PreparedOp::Create { .. } => None,
            PreparedOp::Update { query, .. }
            | PreparedOp::Delete { query }
            | PreparedOp::Get { query }
            | PreparedOp::Execute { query, .. }
            | PreparedOp::Explain { query } => Some(query),
        }
    }

    /// Whether this asked for exactly this command.
    pub fn asks_for(&self, command: &Command) -> bool {
        let Some((id, definition)) = written(command) else {
            return false;
        };
        match (self, definition) {
            (PreparedOp::Create { wanted, .. }, Some(definition)) => definition == wanted.stored(&id),
            (PreparedOp::Update { query, wanted }, Some(definition)) => {
                id == *query && definition == wanted.stored(query)
            }
            (PreparedOp::Delete { query }, None) => id == *query,
            _ => false,
        }
    }

    /// The request.
    ///
    /// # Panics
    /// Never: simulated names are valid in a path.
    pub fn request(&self) -> Request<Bytes> {
        let (method, path, body) = match self {
            PreparedOp::Create { wanted, .. } => (Method::POST, "/v1/query".to_owned(), Some(wanted)),
            PreparedOp::Update { query, wanted } => (Method::PUT, format!("/v1/query/{query}"), Some(wanted)),
            PreparedOp::Delete { query } => (Method::DELETE, format!("/v1/query/{query}"), None),
            PreparedOp::Get { query } => (Method::GET, format!("/v1/query/{query}"), None),
            PreparedOp::Execute { query, limit: 0 } => {
                (Method::GET, format!("/v1/query/{query}/execute"), None)
            }
            PreparedOp::Execute { query, limit } => (
                Method::GET,
                format!("/v1/query/{query}/execute?limit={limit}"),
                None,
            ),
            PreparedOp::Explain { query } => (Method::GET, format!("/v1/query/{query}/explain"), None),
        };
        let body = body.map_or_else(Bytes::new, |wanted| Bytes::from(wanted.body().to_string()));
        let request = Request::builder().method(method).uri(path);
        request.body(body).expect("simulated names are valid in a path")
    }

    /// What a 200 says.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn parse(&self, body: &[u8]) -> Result<Option<Content>, String> {
        if matches!(self, PreparedOp::Update { .. } | PreparedOp::Delete { .. }) {
            return Ok(None);
        }
        let value: Value = serde_json::from_slice(body).map_err(|error| format!("not JSON: {error}"))?;
        Ok(Some(match self {
            PreparedOp::Create { .. } => {
                let id = value["ID"].as_str().ok_or_else(|| format!("no ID in {value}"))?;
                Content::Created(id.to_owned())
            }
            PreparedOp::Get { .. } => {
                let all = value.as_array().ok_or("it is no list")?;
                Content::Query(all.first().cloned().map(Box::new))
            }
            PreparedOp::Explain { .. } => Content::Query(Some(Box::new(value["Query"].clone()))),
            PreparedOp::Execute { .. } => {
                let nodes = Content::parse(&health(""), value["Nodes"].to_string().as_bytes())?;
                let Content::Instances(instances) = nodes else {
                    return Err("the nodes are no instances".into());
                };
                Content::Executed {
                    service: value["Service"].as_str().unwrap_or_default().to_owned(),
                    ttl: value["DNS"]["TTL"].as_str().unwrap_or_default().to_owned(),
                    instances,
                }
            }
            PreparedOp::Update { .. } | PreparedOp::Delete { .. } => return Ok(None),
        }))
    }
}

/// What is said of a template that is executed by its id.
const BY_NAME_ONLY: &str = "prepared query templates can only be resolved up by name";

/// Whether a state has a template of this id.
pub fn is_template(state: &State, id: &str) -> bool {
    let mut all = definitions(state).into_iter();
    all.any(|it| it["ID"] == id && it["Template"]["Type"] == "name_prefix_match")
}

/// Whether a text says that a request was refused.
pub fn is_refusal(text: &str) -> bool {
    text.starts_with("raft apply failed: name '")
        || text.starts_with("Cannot modify non-existent prepared query")
        || text.starts_with(BY_NAME_ONLY)
}

/// What is said of a query that is not there.
pub fn not_there() -> Content {
    Content::Query(None)
}

fn health(service: &str) -> Ask {
    Ask::Health {
        service: service.to_owned(),
        passing: false,
        tags: vec![],
    }
}

/// All definitions in a state, by id, as they are shown.
pub fn definitions(state: &State) -> Vec<Value> {
    let stored = state.tree(&directory()).into_iter();
    let shown = stored.filter_map(|held| {
        let mut definition: Value = serde_json::from_slice(&held.value).ok()?;
        definition["CreateIndex"] = held.create_index.into();
        definition["ModifyIndex"] = held.modify_index.into();
        Some(definition)
    });
    shown.collect()
}

/// Whether there is a query of this id in a state.
pub fn is_there(state: &State, id: &str) -> bool {
    definitions(state).iter().any(|it| it["ID"] == id)
}

/// Whether this may be answered to a question in a state. Instances come in any order, but for those of the node that is to come
/// first, and a limit leaves any of the last ones out.
pub fn is_answer(state: &State, op: &PreparedOp, told: Option<&Content>) -> bool {
    let PreparedOp::Execute { query, limit } = op else {
        return expected(state, op).as_ref() == told;
    };
    let all = PreparedOp::Execute {
        query: query.clone(),
        limit: 0,
    };
    match (expected(state, &all), told) {
        (
            Some(Content::Executed {
                service,
                ttl,
                instances: mut there,
            }),
            Some(Content::Executed {
                service: told_service,
                ttl: told_ttl,
                instances: told,
            }),
        ) => {
            let most = if *limit == 0 { there.len() } else { *limit };
            let count = there.len().min(most);
            let near = near(state, query);
            let close = there.iter().filter(|it| it.node == near).count();
            // Each of those that are there at most once.
            let is_there = |one: &InstanceSeen| {
                let place = there.iter().position(|other| other == one);
                place.map(|place| there.swap_remove(place)).is_some()
            };
            service == *told_service
                && ttl == *told_ttl
                && told.len() == count
                && told.iter().take(close).all(|it| it.node == near)
                && told.iter().all(is_there)
        }
        (other, told) => other.as_ref() == told,
    }
}

/// The node whose instances come first in what a query finds.
fn near(state: &State, query: &str) -> String {
    let definition = resolve(&definitions(state), query).unwrap_or_default();
    let near = definition["Service"]["Near"].as_str();
    near.unwrap_or_default().to_owned()
}

/// What must be answered to a question in a state, instances in their order.
pub fn expected(state: &State, op: &PreparedOp) -> Option<Content> {
    let all = definitions(state);
    Some(match op {
        PreparedOp::Get { query } => {
            let found = all.into_iter().find(|it| it["ID"] == **query);
            Content::Query(found.map(Box::new))
        }
        PreparedOp::Explain { query } | PreparedOp::Execute { query, .. } if is_template(state, query) => {
            return None;
        }
        PreparedOp::Explain { query } => Content::Query(resolve(&all, query).map(Box::new)),
        PreparedOp::Execute { query, limit } => match resolve(&all, query) {
            None => not_there(),
            Some(definition) => executed(state, &definition, *limit),
        },
        _ => return None,
    })
}

/// The definition of an id, or of a name; else the template that has most of the name, filled in.
fn resolve(all: &[Value], query: &str) -> Option<Value> {
    let name = |it: &Value| it["Name"].as_str().unwrap_or_default().to_owned();
    let template = |it: &&Value| it["Template"]["Type"] == "name_prefix_match";
    let by_id = all.iter().find(|it| it["ID"] == query);
    let by_name = || all.iter().find(|it| name(it) == query);
    let by_prefix = || {
        let fitting = all
            .iter()
            .filter(|it| template(it) && query.starts_with(&name(it)));
        fitting.max_by_key(|it| name(it).len())
    };
    let found = by_id.or_else(by_name).or_else(by_prefix)?;
    if !template(&found) {
        return Some(found.clone());
    }
    let mut filled = found.clone();
    let suffix = query.strip_prefix(&name(found)).unwrap_or_default();
    let service = found["Service"]["Service"].as_str().unwrap_or_default();
    filled["Service"]["Service"] = service.replace(SUFFIX, suffix).into();
    filled["Name"] = query.into();
    Some(filled)
}

/// The instances that a definition wants.
fn executed(state: &State, definition: &Value, limit: usize) -> Content {
    let said = &definition["Service"];
    let texts = |name: &str| -> Vec<String> {
        let list = said[name].as_array().cloned().unwrap_or_default();
        list.iter()
            .filter_map(|it| Some(it.as_str()?.to_lowercase()))
            .collect()
    };
    let (tags, ignored) = (texts("Tags"), texts("IgnoreCheckIDs"));
    let service = said["Service"].as_str().unwrap_or_default().to_owned();
    let wanted = |instance: &InstanceSeen| {
        let checks = instance
            .checks
            .iter()
            .filter(|check| !ignored.contains(&check.id.to_lowercase()));
        let mut statuses = checks.map(|check| check.status);
        let healthy = match said["OnlyPassing"] == true {
            true => statuses.all(|status| status == CheckStatus::Passing),
            false => statuses.all(|status| status != CheckStatus::Critical),
        };
        let own: Vec<String> = instance.tags.iter().map(|tag| tag.to_lowercase()).collect();
        let tagged = tags.iter().all(|tag| match tag.strip_prefix('!') {
            Some(unwanted) => !own.iter().any(|tag| tag == unwanted),
            None => own.contains(tag),
        });
        healthy && tagged
    };
    let Content::Instances(all) = answer(state, &health(&service)) else {
        unreachable!("a question about health is answered with instances");
    };
    let limit = if limit == 0 { usize::MAX } else { limit };
    Content::Executed {
        service,
        ttl: definition["DNS"]["TTL"].as_str().unwrap_or_default().to_owned(),
        instances: all.into_iter().filter(wanted).take(limit).collect(),
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = if self.name.is_empty() {
            "(no name)"
        } else {
            &self.name
        };
        let kind = if self.template { "template " } else { "" };
        write!(f, "{kind}{name}: {} version {}", self.service, self.version)?;
        f.write_str(if self.only_passing { " passing" } else { "" })?;
        if !self.near.is_empty() {
            write!(f, " near {}", self.near)?;
        }
        self.tags.iter().try_for_each(|tag| write!(f, " tag={tag}"))?;
        self.ignored_checks
            .iter()
            .try_for_each(|check| write!(f, " without {check}"))
    }
}

impl fmt::Display for PreparedOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PreparedOp::Create { label, wanted } => write!(f, "prepare {label}, {wanted}"),
            PreparedOp::Update { query, wanted } => write!(f, "prepare {query} anew, {wanted}"),
            PreparedOp::Delete { query } => write!(f, "delete prepared {query}"),
            PreparedOp::Get { query } => write!(f, "read prepared {query}"),
            PreparedOp::Execute { query, limit: 0 } => write!(f, "execute {query}"),
            PreparedOp::Execute { query, limit } => write!(f, "execute {query}, {limit} at most"),
            PreparedOp::Explain { query } => write!(f, "explain {query}"),
        }
    }
}
