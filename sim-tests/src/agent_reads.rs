//! What clients read of the agent's API, which servers have, too: the servers' shared node, its instances and checks, and how
//! healthy they are. These answers bear the index of the whole registry, and nobody waits for them.

use std::{fmt, time::Duration};

use bytes::Bytes;
use http::Request;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sider_core::registry::{CheckStatus, Instance, Namespace};

use crate::{
    answers::{check_seen, instance_alone},
    content::{CheckSeen, InstanceSeen, given_check, given_instance, status_of},
    invariants::servers,
    matching::SHARED_NODE,
    model::State,
};

/// The only datacenter.
const DATACENTER: &str = "dc1";

/// A question to the agent's API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum AgentAsk {
    /// `/v1/catalog/datacenters`, which bears no index either.
    Datacenters,
    /// `/v1/agent/services`.
    Services,
    /// `/v1/agent/checks`.
    Checks,
    /// `/v1/agent/health/service/id/{id}`.
    HealthOf {
        /// Id of the instance.
        id: String,
        /// `?format=text`.
        text: bool,
    },
    /// `/v1/agent/health/service/name/{service}`.
    HealthOfService {
        /// Service.
        service: String,
        /// `?format=text`.
        text: bool,
    },
    /// `/v1/agent/service/{id}`.
    Service {
        /// Id of the instance.
        id: String,
        /// `?hash`, or empty: waits for content with another one. In a schedule [`LAST_HASH`].
        hash: String,
        /// How long.
        wait_ms: u64,
    },
}

/// Stands for the hash that clients read last of an instance.
pub const LAST_HASH: &str = "last";

/// What it answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AgentSeen {
    /// Datacenters.
    Datacenters(Vec<String>),
    /// Instances, by id.
    Services(Vec<InstanceSeen>),
    /// Checks, by id.
    Checks(Vec<CheckSeen>),
    /// The status code, and how healthy each instance is.
    Health(u16, Vec<HealthSeen>),
    /// The status code, and a word for it.
    Word(u16, String),
    /// An instance with the hash of its content, if it is there.
    Service(Option<(String, Box<InstanceSeen>)>),
}

/// How healthy an instance is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthSeen {
    /// The worst status of its checks and its node's.
    pub status: CheckStatus,
    /// Itself.
    pub instance: InstanceSeen,
    /// Those checks.
    pub checks: Vec<CheckSeen>,
}

impl AgentAsk {
    /// How long it lets the server wait.
    pub fn wait(&self) -> Duration {
        match self {
            AgentAsk::Service { hash, wait_ms, .. } if !hash.is_empty() => Duration::from_millis(*wait_ms),
            _ => Duration::ZERO,
        }
    }

    /// The request.
    pub fn request(&self) -> Request<Bytes> {
        let format = |text: bool| if text { "?format=text" } else { "" };
        let path = match self {
            AgentAsk::Datacenters => "/v1/catalog/datacenters".to_owned(),
            AgentAsk::Services => "/v1/agent/services".to_owned(),
            AgentAsk::Checks => "/v1/agent/checks".to_owned(),
            AgentAsk::HealthOf { id, text } => format!("/v1/agent/health/service/id/{id}{}", format(*text)),
            AgentAsk::HealthOfService { service, text } => {
                format!("/v1/agent/health/service/name/{service}{}", format(*text))
            }
            AgentAsk::Service { id, hash, .. } if hash.is_empty() => format!("/v1/agent/service/{id}"),
            AgentAsk::Service { id, hash, wait_ms } => {
                format!("/v1/agent/service/{id}?hash={hash}&wait={wait_ms}ms")
            }
        };
        Request::builder()
            .uri(path)
            .body(Bytes::new())
            .expect("simulated names are valid in a path")
    }

    /// What an answer says; `None` if it is none, but tells of a failure.
    pub fn parse(&self, status: u16, body: &[u8]) -> Option<AgentSeen> {
        let text = matches!(
            self,
            AgentAsk::HealthOf { text: true, .. } | AgentAsk::HealthOfService { text: true, .. }
        );
        if text {
            let word = String::from_utf8_lossy(body).into_owned();
            let known = status_of(&word).is_some() || status == 404 && word.starts_with("Service");
            return known.then_some(AgentSeen::Word(status, word));
        }
        if let AgentAsk::Service { id, .. } = self
            && status == 404
        {
            let gone = *body == *format!("unknown service ID: {id}").as_bytes();
            return gone.then_some(AgentSeen::Service(None));
        }
        let value: Value = serde_json::from_slice(body).ok()?;
        match self {
            AgentAsk::HealthOf { .. } => {
                let health = match value.get("Service")? {
                    Value::Null => vec![],
                    _ => vec![health(&value)?],
                };
                Some(AgentSeen::Health(status, health))
            }
            AgentAsk::HealthOfService { .. } => {
                let each = value.as_array()?.iter().map(health);
                Some(AgentSeen::Health(status, each.collect::<Option<_>>()?))
            }
            _ if status != 200 => None,
            AgentAsk::Datacenters => serde_json::from_value(value).ok().map(AgentSeen::Datacenters),
            AgentAsk::Services => {
                let each = value
                    .as_object()?
                    .iter()
                    .map(|(id, it)| instance(it).filter(|it| it.id == *id));
                let mut services: Vec<InstanceSeen> = each.collect::<Option<_>>()?;
                services.sort_by(|one, other| one.id.cmp(&other.id));
                Some(AgentSeen::Services(services))
            }
            AgentAsk::Service { id, .. } => {
                let hash = value.get("ContentHash")?.as_str()?.to_owned();
                let instance = instance(&value).filter(|it| it.id == *id)?;
                Some(AgentSeen::Service(Some((hash, Box::new(instance)))))
            }
            AgentAsk::Checks => {
                let each = value
                    .as_object()?
                    .iter()
                    .map(|(id, it)| check(it).filter(|it| it.id == *id));
                let mut checks: Vec<CheckSeen> = each.collect::<Option<_>>()?;
                checks.sort_by(|one, other| one.id.cmp(&other.id));
                Some(AgentSeen::Checks(checks))
            }
        }
    }

    /// What it must be in a state.
    pub fn answer(&self, state: &State) -> AgentSeen {
        let here =
            |namespace: &Namespace, node: &str| *namespace == Namespace::default() && node == SHARED_NODE;
        let mut instances: Vec<&Instance> = state
            .instances
            .iter()
            .map(AsRef::as_ref)
            .filter(|it: &&Instance| here(&it.namespace, it.node.as_str()))
            // What the leader keeps of the servers themselves is left out here.
            .filter(|it| it.service.as_str() != servers::SERVICE)
            .collect();
        instances.sort_by(|one, other| one.id.cmp(&other.id));
        let healths = |chosen: &dyn Fn(&Instance) -> bool| -> Vec<HealthSeen> {
            let chosen = instances.iter().filter(|it| chosen(it));
            chosen.map(|it| health_of(state, it)).collect()
        };
        match self {
            AgentAsk::Datacenters => AgentSeen::Datacenters(vec![DATACENTER.to_owned()]),
            AgentAsk::Services => AgentSeen::Services(instances.into_iter().map(without_indexes).collect()),
            AgentAsk::Checks => {
                let checks = state.checks.iter();
                let mut checks: Vec<CheckSeen> = checks
                    .filter(|it| here(&it.namespace, it.node.as_str()) && !it.is_aliveness())
                    .map(|it| check_seen(state, it))
                    .collect();
                checks.sort_by(|one, other| one.id.cmp(&other.id));
                AgentSeen::Checks(checks)
            }
            AgentAsk::Service { id, .. } => {
                let found = instances.iter().find(|it| it.id.as_str() == id);
                AgentSeen::Service(found.map(|it| (String::new(), Box::new(without_indexes(it)))))
            }
            AgentAsk::HealthOf { id, text } => {
                let found = healths(&|it| it.id.as_str() == id);
                told(found, *text, format!("ServiceId {id} not found"))
            }
            AgentAsk::HealthOfService { service, text } => {
                let found = healths(&|it| it.service.as_str() == service);
                told(found, *text, format!("ServiceName {service} Not Found"))
            }
        }
    }
}

/// Health is told by the status code, too: that of the worst of all.
fn told(found: Vec<HealthSeen>, text: bool, missing: String) -> AgentSeen {
    let (code, word) = match found.iter().map(|it| it.status).max() {
        None => (404, missing),
        Some(CheckStatus::Passing) => (200, "passing".to_owned()),
        Some(CheckStatus::Warning) => (429, "warning".to_owned()),
        Some(worst) => (503, worst.as_str().to_owned()),
    };
    match text {
        true => AgentSeen::Word(code, word),
        false => AgentSeen::Health(code, found),
    }
}

fn health_of(state: &State, instance: &Instance) -> HealthSeen {
    let mut checks = state.checks_that_count(instance);
    checks.retain(|check| !check.is_aliveness());
    HealthSeen {
        status: checks
            .iter()
            .map(|it| it.status)
            .max()
            .unwrap_or(CheckStatus::Passing),
        instance: without_indexes(instance),
        checks: checks
            .into_iter()
            .map(|it| without_kind(check_seen(state, it)))
            .collect(),
    }
}

/// A check as it is told of with health.
fn without_kind(check: CheckSeen) -> CheckSeen {
    CheckSeen {
        kind: String::new(),
        ..check
    }
}

/// An instance as this API shows it.
fn without_indexes(instance: &Instance) -> InstanceSeen {
    InstanceSeen {
        create_index: 0,
        modify_index: 0,
        ..instance_alone(instance)
    }
}

fn health(value: &Value) -> Option<HealthSeen> {
    let checks = value.get("Checks")?.as_array()?.iter().map(check);
    Some(HealthSeen {
        status: status_of(value.get("AggregatedStatus")?.as_str()?)?,
        instance: instance(value.get("Service")?)?,
        checks: checks.collect::<Option<_>>()?,
    })
}

fn instance(value: &Value) -> Option<InstanceSeen> {
    let mut value = value.clone();
    for index in ["CreateIndex", "ModifyIndex"] {
        value.as_object_mut()?.insert(index.into(), json!(0));
    }
    given_instance(&value).ok()
}

fn check(value: &Value) -> Option<CheckSeen> {
    let mut value = value.clone();
    let tags = value.as_object_mut()?.get_mut("ServiceTags")?;
    // Where there are none, this API has `null`.
    if tags.is_null() {
        *tags = json!([]);
    }
    given_check(&value).ok()
}

impl AgentSeen {
    /// The same without a hash: what one of its content is, nobody but a server knows.
    pub fn without_hash(&self) -> AgentSeen {
        match self {
            AgentSeen::Service(Some((_, instance))) => {
                AgentSeen::Service(Some((String::new(), instance.clone())))
            }
            other => other.clone(),
        }
    }

    /// How many things are listed.
    pub fn len(&self) -> usize {
        match self {
            AgentSeen::Datacenters(names) => names.len(),
            AgentSeen::Services(instances) => instances.len(),
            AgentSeen::Checks(checks) => checks.len(),
            AgentSeen::Health(_, healths) => healths.len(),
            AgentSeen::Word(..) => 1,
            AgentSeen::Service(found) => usize::from(found.is_some()),
        }
    }

    /// Whether nothing is listed.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl fmt::Display for AgentSeen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = match self {
            AgentSeen::Datacenters(names) => names.iter().map(String::as_str).collect(),
            AgentSeen::Services(instances) => instances.iter().map(|it| it.id.as_str()).collect(),
            AgentSeen::Checks(checks) => checks.iter().map(|it| it.id.as_str()).collect(),
            AgentSeen::Health(code, healths) => {
                write!(f, "{code} ")?;
                healths.iter().map(|it| it.instance.id.as_str()).collect()
            }
            AgentSeen::Word(code, word) => return write!(f, "{code} {word}"),
            AgentSeen::Service(None) => return f.write_str("it is not there"),
            AgentSeen::Service(Some((hash, instance))) => {
                return write!(f, "{} with {hash}", instance.id);
            }
        };
        f.write_str(&names.join(", "))
    }
}

impl fmt::Display for AgentAsk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AgentAsk::Datacenters => f.write_str("datacenters"),
            AgentAsk::Services => f.write_str("the agent's services"),
            AgentAsk::Checks => f.write_str("the agent's checks"),
            AgentAsk::HealthOf { id, .. } => write!(f, "the agent's health of {id}"),
            AgentAsk::HealthOfService { service, .. } => write!(f, "the agent's health of service {service}"),
            AgentAsk::Service { id, hash, .. } if hash.is_empty() => write!(f, "the agent's instance {id}"),
            AgentAsk::Service { id, hash, wait_ms } => {
                write!(
                    f,
                    "the agent's instance {id} with another hash than {hash} for {wait_ms} ms"
                )
            }
        }
    }
}
