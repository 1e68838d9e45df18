//! Checks that are aliases: each has the status of an instance of this host or of the host itself, or of what is on another
//! node.

use super::Local;
use crate::{
    limits::ALIAS_INTERVAL,
    probing::check::of_aliased,
    registry::{CheckKey, CheckStatus, InstanceId, InstanceKey, Probe},
    runtime::Instant,
};

impl Local {
    /// Looks at what the aliases stand for whose time it is. Gives whether one of them has another status now, which is to
    /// be reported.
    pub(in crate::agent) fn follow_aliases(&mut self, now: Instant) -> bool {
        let mut changed = false;
        while let Some(key) = self.aliases.pop(now) {
            self.aliases.set(key.clone(), now + ALIAS_INTERVAL);
            let Some((status, output)) = self.aliased(&key, now) else {
                continue;
            };
            let Some(check) = self.checks.get_mut(&key) else {
                continue;
            };
            let differs = check.status != Some(status);
            let first = check.set_at.is_none();
            (check.status, check.output, check.set_at) = (Some(status), output, Some(now));
            if differs || first {
                self.plan_removal(&key, now);
            }
            if differs {
                self.pending.mark_report(key);
                changed = true;
            }
        }
        changed
    }

    /// The status of what a check stands for; `None` if that is not known yet.
    fn aliased(&mut self, own: &CheckKey, now: Instant) -> Option<(CheckStatus, String)> {
        let Probe::Alias { node, instance } = &self.checks.get(own)?.spec.update.definition.probe else {
            return None;
        };
        if !node.is_empty() && *node != self.node.name.as_str() {
            return self.elsewhere.status(own, node, instance, now);
        }
        let service = InstanceId::parse(instance).ok().map(|id| {
            self.services.get(&InstanceKey {
                namespace: own.namespace.clone(),
                node: own.node.clone(),
                id,
            })
        });
        let of_service = match service {
            Some(None) => {
                let node = &self.node.name;
                let output = format!("Service {instance} could not be found on node {node}");
                return Some((CheckStatus::Critical, output));
            }
            Some(Some(service)) => self.checks_of(service).collect(),
            None => Vec::new(),
        };
        // An alias of its own instance would hold itself up, or down.
        let others = self
            .node_checks()
            .chain(of_service)
            .filter(|(key, _)| *key != own);
        let worst = others.max_by_key(|(_, check)| check.status_at(now));
        let worst = worst.map(|(_, check)| (check.status_at(now), &*check.spec.update.name, &*check.output));
        Some(of_aliased(worst))
    }
}
