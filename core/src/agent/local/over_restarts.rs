//! What is known of TTL checks that their services renew, over a restart for which everything was deregistered.

use std::time::Duration;

use super::{
    Local,
    aliases::Target,
    known::{expired, service_key},
};
use crate::{
    registry::{CheckKey, CheckStatus},
    runtime::Instant,
};

/// The last report on a TTL check, and for how long it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::agent) struct Kept {
    /// Of which check.
    pub(in crate::agent) key: CheckKey,
    /// What it said.
    pub(in crate::agent) status: CheckStatus,
    /// Its output.
    pub(in crate::agent) output: String,
    /// The rest of the TTL.
    pub(in crate::agent) left: Duration,
}

impl Local {
    /// The reports of services that hold now.
    pub(in crate::agent) fn reports_to_keep(&self, now: Instant) -> Vec<Kept> {
        let of_services = self.checks.iter().filter(|(_, check)| !check.heartbeat);
        let kept = of_services.filter_map(|(key, check)| {
            let left = check.ttl_ends()?.saturating_since(now);
            Some(Kept {
                key: key.clone(),
                status: check.status.filter(|_| !left.is_zero())?,
                output: check.output.clone(),
                left,
            })
        });
        kept.collect()
    }

    /// Takes on a report from before a restart, if its check is here.
    pub(in crate::agent) fn restore_report(&mut self, kept: Kept, now: Instant) {
        let Kept {
            key,
            status,
            output,
            left,
        } = kept;
        let Some(check) = self.checks.get_mut(&key).filter(|check| !check.heartbeat) else {
            return;
        };
        let Some(ttl) = check.spec.update.definition.ttl() else {
            return;
        };
        // Clocks may have been set meanwhile, and the TTL may be another one.
        let until = now + left.min(ttl);
        (check.status, check.output) = (Some(status), output);
        (check.set_at, check.holds_until) = (Some(now), Some(until));
        let owner = service_key(&check.spec.update);
        self.expiries.set(key.clone(), until);
        self.plan_removal(&key, now);
        self.aliases.touch(&Target::of(owner));
    }

    /// Ends the reports from before a restart of which the time is over: the servers, who heard of them at the restart, would
    /// let them hold for longer. Gives whether there is something to tell.
    pub(in crate::agent) fn expire_restored(&mut self, now: Instant) -> bool {
        let mut changed = false;
        while let Some(key) = self.expiries.pop(now) {
            let Some(check) = self.checks.get_mut(&key) else {
                continue;
            };
            check.holds_until = None;
            check.set_at = Some(now);
            check.output = expired(&check.output);
            if check.status.replace(CheckStatus::Critical) == Some(CheckStatus::Critical) {
                continue;
            }
            let owner = service_key(&check.spec.update);
            self.plan_removal(&key, now);
            self.pending.mark_report(key);
            self.target_changed(owner, now);
            changed = true;
        }
        changed
    }
}
