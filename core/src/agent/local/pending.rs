//! What the servers have yet to be told, and who waits for it.

use std::{collections::BTreeMap, mem};

use tokio::sync::oneshot;

use crate::{
    agent::servers::CallError,
    registry::{CheckKey, InstanceKey},
};

/// What the servers said to a change: their index, or why not.
pub(in crate::agent) type Outcome = Result<u64, CallError>;
/// Those who wait for an [`Outcome`].
pub(in crate::agent) type Waiters = Vec<oneshot::Sender<Outcome>>;

/// Tells everyone who waits.
pub(in crate::agent) fn tell(waiters: Waiters, outcome: &Outcome) {
    for waiter in waiters {
        // Whoever gave up waiting does not need to know.
        drop(waiter.send(outcome.clone()));
    }
}

/// A change that the servers have yet to be told of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::agent) enum Change {
    /// The node itself, with its own checks.
    Node,
    /// A service instance with its checks, or its removal if it is not here.
    Service(InstanceKey),
    /// The removal of a node's own check.
    NodeCheck(CheckKey),
}

/// Pending changes and reports, each once, however often it was marked.
#[derive(Debug, Default)]
pub(in crate::agent) struct Pending {
    changes: BTreeMap<Change, Waiters>,
    reports: BTreeMap<CheckKey, Waiters>,
    /// Why no server can be reached, while that is so: nobody waits for them then.
    unreachable: Option<String>,
}

impl Pending {
    /// Marks a change for sending.
    pub(in crate::agent) fn mark(&mut self, change: Change) {
        self.changes.entry(change).or_default();
    }

    /// Marks a check's status for sending.
    pub(in crate::agent) fn mark_report(&mut self, key: CheckKey) {
        self.reports.entry(key).or_default();
    }

    /// Has the caller told when the servers have a change that is pending.
    pub(in crate::agent) fn wait_change(&mut self, change: Change) -> oneshot::Receiver<Outcome> {
        let (waiters, receiver) = self.waiters();
        self.changes.entry(change).or_default().extend(waiters);
        receiver
    }

    /// Has the caller told when the servers have a check's status.
    pub(in crate::agent) fn wait_report(&mut self, key: CheckKey) -> oneshot::Receiver<Outcome> {
        let (waiters, receiver) = self.waiters();
        self.reports.entry(key).or_default().extend(waiters);
        receiver
    }

    /// Somebody who waits, if there is anything to wait for.
    fn waiters(&self) -> (Waiters, oneshot::Receiver<Outcome>) {
        let (sender, receiver) = oneshot::channel();
        let mut waiters = vec![sender];
        if let Some(reason) = &self.unreachable {
            tell(
                mem::take(&mut waiters),
                &Err(CallError::Unavailable(reason.clone())),
            );
        }
        (waiters, receiver)
    }

    /// Notes why no server can be reached, or that one can. Whoever waits is told at once that none can, and so is whoever
    /// comes while that is so. What is pending stays.
    pub(super) fn set_unreachable(&mut self, reason: Option<String>) {
        if let Some(reason) = &reason {
            let outcome = Err(CallError::Unavailable(reason.clone()));
            for waiters in self.changes.values_mut().chain(self.reports.values_mut()) {
                tell(mem::take(waiters), &outcome);
            }
        }
        self.unreachable = reason;
    }

    /// Takes out the pending changes.
    pub(in crate::agent) fn take_changes(&mut self) -> BTreeMap<Change, Waiters> {
        mem::take(&mut self.changes)
    }

    /// Whether anything is to be sent.
    pub(in crate::agent) fn is_any(&self) -> bool {
        !self.changes.is_empty() || !self.reports.is_empty()
    }

    /// Puts back changes that could not be sent.
    pub(in crate::agent) fn return_changes(&mut self, changes: impl IntoIterator<Item = (Change, Waiters)>) {
        for (change, waiters) in changes {
            let open = waiters.into_iter().filter(|waiter| !waiter.is_closed());
            self.changes.entry(change).or_default().extend(open);
        }
    }

    /// Takes out the checks of which the status is to be sent.
    pub(in crate::agent) fn take_reports(&mut self) -> BTreeMap<CheckKey, Waiters> {
        mem::take(&mut self.reports)
    }

    /// Puts back reports that could not be sent.
    pub(in crate::agent) fn return_reports(
        &mut self,
        reports: impl IntoIterator<Item = (CheckKey, Waiters)>,
    ) {
        for (key, waiters) in reports {
            let open = waiters.into_iter().filter(|waiter| !waiter.is_closed());
            self.reports.entry(key).or_default().extend(open);
        }
    }
}
