//! A check with what is known of it.

use std::borrow::Cow;

use crate::{
    limits::AGENT_NODE_RENEWALS,
    probing::check::{Rules, Streak, cut},
    registry::{CheckDefinitionUpdate, CheckStatus, Instance, InstanceKey},
    runtime::Instant,
};

/// A check as it was registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::agent) struct CheckSpec {
    /// Its definition, its first status, and what it belongs to.
    pub(in crate::agent) update: CheckDefinitionUpdate,
    /// How its outcomes are judged.
    pub(in crate::agent) rules: Rules,
}

/// A service instance as it was registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::agent) struct ServiceSpec {
    /// The instance.
    pub(in crate::agent) instance: Instance,
    /// Its checks.
    pub(in crate::agent) checks: Vec<CheckSpec>,
}

/// A check with what is known of it.
#[derive(Clone, Debug)]
pub(in crate::agent) struct LocalCheck {
    /// What was registered.
    pub(in crate::agent) spec: CheckSpec,
    /// Whether the agent itself renews it.
    pub(in crate::agent) heartbeat: bool,
    /// The last status found or reported.
    pub(in crate::agent) status: Option<CheckStatus>,
    /// Its output.
    pub(in crate::agent) output: String,
    /// When `status` was last set.
    pub(in crate::agent) set_at: Option<Instant>,
    /// When a status ends that it had before a restart, unless it is renewed.
    pub(in crate::agent) holds_until: Option<Instant>,
    /// Since when the servers are known to have it.
    pub(in crate::agent) confirmed: Option<Instant>,
    pub(super) streak: Streak,
    /// Tells this check from one that it replaced.
    pub(in crate::agent) generation: u64,
}

/// The service that a check belongs to; `None` for the node's own.
pub(super) fn service_key(update: &CheckDefinitionUpdate) -> Option<InstanceKey> {
    update.instance.as_ref().map(|id| InstanceKey {
        namespace: update.namespace.clone(),
        node: update.node.clone(),
        id: id.clone(),
    })
}

/// What a TTL check says when its TTL has ended.
pub(super) fn expired(last: &str) -> String {
    const EXPIRED: &str = "TTL expired";
    match last.is_empty() || last.starts_with(EXPIRED) {
        true => EXPIRED.to_owned(),
        false => cut(format!("{EXPIRED} (last output before timeout follows): {last}")),
    }
}

impl LocalCheck {
    /// Whether it tells the servers that this host is alive: it is theirs to look at, and the agent's alone to renew.
    pub(in crate::agent) fn is_aliveness(&self) -> bool {
        self.heartbeat && self.spec.update.is_aliveness()
    }

    /// When the agent renews it next, if it is the agent's to renew.
    pub(super) fn next_heartbeat(&self, now: Instant) -> Option<Instant> {
        let ttl = self.spec.update.definition.ttl().filter(|_| self.heartbeat)?;
        Some(match self.is_aliveness() {
            // All that runs on the host hangs on it: servers that do not answer leave time for others.
            true => now + ttl / AGENT_NODE_RENEWALS,
            false => now + ttl * 2 / 3,
        })
    }

    /// When its TTL ends, if it has one and anything is known of it.
    pub(super) fn ttl_ends(&self) -> Option<Instant> {
        let (ttl, set_at) = (self.spec.update.definition.ttl()?, self.set_at?);
        Some(self.holds_until.unwrap_or(set_at + ttl))
    }

    fn is_expired(&self, now: Instant) -> bool {
        self.status.is_some() && self.ttl_ends().is_some_and(|end| end <= now)
    }

    /// Its status now: a TTL check that nobody renewed is critical, and so is what nothing is known of.
    pub(in crate::agent) fn status_at(&self, now: Instant) -> CheckStatus {
        match self.status {
            Some(status) if !self.is_expired(now) => status,
            _ => CheckStatus::Critical,
        }
    }

    /// Its output now: that of a TTL check that nobody renewed says so, as Consul's agents do.
    pub(in crate::agent) fn output_at(&self, now: Instant) -> Cow<'_, str> {
        match self.is_expired(now) {
            true => Cow::Owned(expired(&self.output)),
            false => Cow::Borrowed(&self.output),
        }
    }

    /// The status to register it with; `None` leaves the servers' own.
    ///
    /// A service's TTL check that the servers have keeps the status that they know, because setting it would start its
    /// TTL anew though nobody renewed it. One that they lost gets back what was last reported, if that still holds.
    pub(in crate::agent) fn status_to_register(&self, now: Instant) -> Option<CheckStatus> {
        match self.spec.update.definition.ttl() {
            None => self.status,
            Some(_) if self.heartbeat => Some(self.status.unwrap_or(CheckStatus::Passing)),
            Some(_) if self.confirmed.is_some() => None,
            Some(_) => {
                let fresh = self.ttl_ends().is_some_and(|end| now < end);
                self.status.filter(|_| fresh)
            }
        }
    }
}
