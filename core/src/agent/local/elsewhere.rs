//! Other nodes, as far as aliases of this host stand for them.

use std::collections::{BTreeMap, BTreeSet};

use super::{Local, aliases::Target};
use crate::{
    limits::{AGENT_ALIAS_IDLE, AGENT_ELSEWHERE_MAX},
    probing::check::{cut, of_aliased},
    registry::{CheckKey, CheckStatus, Namespace, NodeName},
    runtime::Instant,
};

/// A node, with its services of one namespace.
pub(in crate::agent) type Place = (Namespace, NodeName);

/// What the servers hold of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::agent) struct Seen {
    /// Whether they have it.
    pub(in crate::agent) exists: bool,
    /// Ids of its services.
    pub(in crate::agent) services: BTreeSet<String>,
    /// Its checks, and those of its services.
    pub(in crate::agent) checks: Vec<SeenCheck>,
}

/// A check that the servers hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::agent) struct SeenCheck {
    /// The service's id; empty for a check of the node.
    pub(in crate::agent) service: String,
    /// Its name.
    pub(in crate::agent) name: String,
    /// Its status.
    pub(in crate::agent) status: CheckStatus,
    /// Its output.
    pub(in crate::agent) output: String,
}

/// Places that aliases ask about.
#[derive(Debug, Default)]
pub(super) struct Elsewhere(BTreeMap<Place, Followed>);

#[derive(Debug)]
struct Followed {
    /// When an alias last asked.
    asked: Instant,
    /// What was seen last, or why nothing could be; `None` at first.
    seen: Option<Result<Seen, String>>,
    /// Whether a task follows it.
    by_a_task: bool,
}

impl Elsewhere {
    /// The status of a node, or of a service on it; `None` while nothing is known.
    pub(super) fn status(
        &mut self,
        own: &CheckKey,
        node: &str,
        service: &str,
        now: Instant,
    ) -> Option<(CheckStatus, String)> {
        let Ok(name) = NodeName::parse(node) else {
            let output = "Aliased node could not be found".to_owned();
            return Some((CheckStatus::Critical, output));
        };
        let place = (own.namespace.clone(), name);
        if !self.0.contains_key(&place) && self.0.len() >= AGENT_ELSEWHERE_MAX {
            let output = format!("Node {node} is not asked about: {AGENT_ELSEWHERE_MAX} others are");
            return Some((CheckStatus::Critical, output));
        }
        let followed = self.0.entry(place).or_insert(Followed {
            asked: now,
            seen: None,
            by_a_task: false,
        });
        followed.asked = now;
        Some(match followed.seen.as_ref()? {
            Ok(seen) => seen.status(node, service),
            Err(reason) => {
                let output = format!("Failure checking aliased node or service: {reason}");
                (CheckStatus::Critical, cut(output))
            }
        })
    }
}

impl Seen {
    /// As a server says it of an alias that it follows itself.
    fn status(&self, node: &str, service: &str) -> (CheckStatus, String) {
        if !service.is_empty() && !self.services.contains(service) {
            let output = format!("Service {service} could not be found on node {node}");
            return (CheckStatus::Critical, output);
        }
        if !self.exists {
            return (CheckStatus::Critical, format!("Node {node} could not be found"));
        }
        let checks = self.checks.iter();
        let meant = checks.filter(|check| check.service.is_empty() || check.service == service);
        let worst = meant.max_by_key(|check| check.status);
        of_aliased(worst.map(|check| (check.status, &*check.name, &*check.output)))
    }
}

impl Local {
    /// The places that a task is to follow from now on.
    pub(in crate::agent) fn take_unfollowed(&mut self) -> Vec<Place> {
        let mut places = Vec::new();
        for (place, followed) in &mut self.elsewhere.0 {
            if !followed.by_a_task {
                followed.by_a_task = true;
                places.push(place.clone());
            }
        }
        places
    }

    /// Whether an alias still asks about a place; it is forgotten if none does.
    pub(in crate::agent) fn is_asked_about(&mut self, place: &Place, now: Instant) -> bool {
        let asked = self.elsewhere.0.get(place).map(|followed| followed.asked);
        let is_asked = asked.is_some_and(|asked| now.saturating_since(asked) <= AGENT_ALIAS_IDLE);
        if !is_asked {
            self.elsewhere.0.remove(place);
        }
        is_asked
    }

    /// Takes note of what was seen at a place, or why nothing could be. Gives whether an alias has another status now.
    pub(in crate::agent) fn saw(&mut self, place: &Place, seen: Result<Seen, String>, now: Instant) -> bool {
        if let Some(followed) = self.elsewhere.0.get_mut(place) {
            followed.seen = Some(seen);
        }
        self.aliases.touch(&Target::Elsewhere(place.clone()));
        self.follow_aliases(now)
    }
}
