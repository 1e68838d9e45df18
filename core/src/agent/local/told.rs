//! What the servers are known to have, and what of theirs counts here, too.

use std::{collections::BTreeMap, mem};

use super::{
    Local,
    aliases::Target,
    known::service_key,
    pending::{Change, Waiters, tell},
};
use crate::{
    agent::servers::CallError,
    registry::{CheckKey, CheckStatus, InstanceKey, Namespace},
    runtime::Instant,
};

impl Local {
    /// Notes that the servers did not have a check at the moment `seen`.
    pub(in crate::agent) fn lost_check(&mut self, key: &CheckKey, seen: Instant) {
        if let Some(check) = self.checks.get_mut(key)
            && check.confirmed.is_none_or(|since| since < seen)
        {
            check.confirmed = None;
        }
    }

    /// The change that registers a check; `None` when it is not here.
    pub(in crate::agent) fn change_of(&self, key: &CheckKey) -> Option<Change> {
        let check = self.checks.get(key)?;
        Some(service_key(&check.spec.update).map_or(Change::Node, Change::Service))
    }

    /// Notes that the servers have these checks, as they were when they were sent: what was registered since in their place
    /// is yet to be told.
    pub(in crate::agent) fn confirm(&mut self, sent: &[(CheckKey, u64)], now: Instant) {
        for (key, generation) in sent {
            if let Some(check) = self.checks.get_mut(key)
                && check.generation == *generation
            {
                check.confirmed = Some(now);
            }
        }
    }

    /// Notes that the servers have a service, as it was when it was sent.
    pub(in crate::agent) fn confirm_service(&mut self, sent: &Change, generation: u64, now: Instant) {
        if let Change::Service(key) = sent
            && let Some(service) = self.services.get_mut(key)
            && service.generation == generation
        {
            service.told = Some(now);
        }
    }

    /// Takes on the status that the servers hold for a check that was neither run nor reported on here yet: after a
    /// restart of the agent its thresholds then count from there.
    pub(in crate::agent) fn adopt(&mut self, key: &CheckKey, status: CheckStatus, output: String) {
        let Some(check) = self.checks.get_mut(key).filter(|check| check.set_at.is_none()) else {
            return;
        };
        check.status = Some(status);
        check.output = output;
        let owner = service_key(&check.spec.update);
        self.aliases.touch(&Target::of(owner));
    }

    /// Has registrations wait for the next comparison, if others may have changed the tags of their services meanwhile:
    /// those of what was here before a restart.
    pub(in crate::agent) fn await_tags(&mut self) {
        let services = self.services.iter();
        let may_differ = services.filter(|(_, service)| service.instance.enable_tag_override);
        self.awaiting = may_differ.map(|(key, _)| (key.clone(), Waiters::new())).collect();
    }

    /// Takes out the changes to send. What waits for a comparison stays, with those who wait for it.
    pub(in crate::agent) fn take_changes(&mut self) -> BTreeMap<Change, Waiters> {
        let mut changes = self.pending.take_changes();
        for (key, waiting) in &mut self.awaiting {
            let waiters = changes.remove(&Change::Service(key.clone()));
            waiting.extend(waiters.unwrap_or_default());
        }
        changes
    }

    /// A comparison of a namespace has ended: what waited for it may be sent.
    pub(in crate::agent) fn compared(&mut self, namespace: &Namespace) {
        let awaiting = mem::take(&mut self.awaiting);
        let (ready, awaiting): (BTreeMap<_, _>, BTreeMap<_, _>) = awaiting
            .into_iter()
            .partition(|(key, _)| key.namespace == *namespace);
        self.awaiting = awaiting;
        let changes = ready.into_iter();
        let changes = changes.map(|(key, waiters)| (Change::Service(key), waiters));
        self.pending.return_changes(changes);
    }

    /// Notes why no server can be reached, or that one can: nobody waits for servers that can't be.
    pub(in crate::agent) fn set_unreachable(&mut self, reason: Option<String>) {
        if let Some(reason) = &reason {
            let outcome = Err(CallError::Unavailable(reason.clone()));
            for waiters in self.awaiting.values_mut() {
                tell(mem::take(waiters), &outcome);
            }
        }
        self.pending.set_unreachable(reason);
    }

    /// A service is another one or gone: its registration or removal waits for nothing.
    pub(super) fn stop_awaiting(&mut self, key: &InstanceKey) {
        if let Some(waiters) = self.awaiting.remove(key) {
            let change = (Change::Service(key.clone()), waiters);
            self.pending.return_changes([change]);
        }
    }

    /// Takes on the tags that the servers held at the moment `seen` for a service that lets others change them, unless it
    /// was registered here since: then its own are about to count. Gives whether they are others.
    pub(in crate::agent) fn adopt_tags(
        &mut self,
        key: &InstanceKey,
        tags: Vec<String>,
        seen: Instant,
    ) -> bool {
        let is_awaiting = self.awaiting.contains_key(key);
        let Some(service) = self.services.get_mut(key) else {
            return false;
        };
        let is_older = service.told.is_some_and(|told| told < seen);
        if !(is_awaiting || is_older) || service.instance.tags == tags {
            return false;
        }
        service.instance.tags = tags;
        true
    }
}
