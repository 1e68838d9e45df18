//! Operations in plain words, as timelines and reports tell them.

use std::fmt;

use super::{
    Apart, Ask, CatalogEntry, Damage, ELSEWHERE, Freshness, Op, RegisterForm, ReportForm, STREAMED_MS,
    Service, Target,
};
use crate::narrowing::Shape;

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
            Ask::Connect {
                service,
                checks,
                passing,
            } => {
                let passing = if *passing { " passing" } else { "" };
                let checks = if *checks { " with health" } else { "" };
                write!(f, "members of a mesh that reach {service}{checks}{passing}")
            }
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
                by.near.iter().try_for_each(|node| write!(f, " near {node}"))?;
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
            Ask::Session(id) => write!(f, "session {id}"),
            Ask::Queries => f.write_str("prepared queries"),
            Ask::Roots => f.write_str("the certificate authority"),
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
            Freshness::Cached => f.write_str("cached"),
            Freshness::CachedWithin(seconds) => write!(f, "cached for at most {seconds} s"),
            Freshness::CachedAnew => f.write_str("cached anew"),
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
            Op::Cluster(ask) => write!(f, "ask {ask}"),
            Op::RegisterCheck(check) => write!(f, "{check}"),
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
        if self.keeps_node {
            f.write_str(" if it is not there")?;
        }
        if self.elsewhere {
            write!(f, " in {ELSEWHERE}")?;
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
