//! The background work of a server that leads: expiry of TTL checks and sessions, the end of delays of locks,
//! deregistration of what stays critical, and the writing of outputs that were held back. On a server that follows it only waits.
//!
//! It looks at the clock every [`limits::EXPIRY_TICK`], so that a pause of the process is seen as a gap. It never waits
//! for a proposal: that may take long when a quorum is missing, and would look like a pause. Each decision is proposed
//! by a task of its own, for the term in which it was decided.

use std::sync::{Arc, Weak};

use futures_util::future::FutureExt as _;
use tokio::sync::OwnedSemaphorePermit;

use super::{
    countdown::{Due, Resolution},
    deadlines::Deadlines,
    wiring::{Finish, Inner, Shared},
};
use crate::{
    limits,
    observe::Observation,
    raft::{ProposeError, RaftStatus, Role},
    registry::{CheckKey, CheckTarget, CheckUpdate, Command, Expiry, LockDelayEnd, Registry, SessionExpiry},
    runtime::Instant,
};

/// Begins the background work; it ends with the server.
pub(super) fn begin(inner: &Arc<Inner>) {
    let work = run(inner.shared.clone(), Arc::downgrade(inner));
    inner.platform().spawn(work.boxed());
}

async fn run(shared: Arc<Shared>, inner: Weak<Inner>) {
    loop {
        let seen = shared.leadership.version();
        // Held only while it works: the last handle that is dropped ends the server.
        let Some(next) = inner.upgrade().and_then(|inner| inner.tick()) else {
            return;
        };
        let changed = shared.leadership.changed_since(seen);
        shared.platform.until(next, changed).await;
    }
}

/// What the leader decided on by itself.
#[derive(Debug)]
enum Decision {
    /// Checks turn critical.
    Expire(Due<Expiry>),
    /// Sessions end.
    EndSessions(Due<SessionExpiry>),
    /// Locks can be taken again.
    EndLockDelays(Due<LockDelayEnd>),
    /// The instances of these checks are deregistered.
    Reap(Due<Expiry>),
    /// Outputs are written.
    WriteOutputs(Vec<(CheckKey, String)>),
}

impl Inner {
    /// Does what is due; gives the time of the next look, or `None` when the server has ended.
    fn tick(self: &Arc<Self>) -> Option<Instant> {
        if self.shared.finish().is_some() {
            return None;
        }
        let status = self.consensus.status();
        if status.role == Role::Shutdown || status.fatal.is_some() {
            // A server that stopped serving for a reason of its own stays, to say so.
            if self.shared.halted().is_none() {
                let reason = status.fatal.as_deref().unwrap_or("its Raft member stopped");
                self.shared.end(Finish::Stopped, reason);
            }
            return None;
        }
        let now = self.platform().now();
        if status.role != Role::Leader || self.shared.halted().is_some() {
            self.shared.deadlines().follow();
            return Some(now + limits::FOLLOWER_TICK);
        }
        if self.anything_due(&status, now) {
            self.decide(status.term, now);
        }
        Some(now + limits::EXPIRY_TICK)
    }

    /// Takes note of the time, and tells whether the state must be looked at.
    fn anything_due(&self, status: &RaftStatus, now: Instant) -> bool {
        let mut deadlines = self.shared.deadlines();
        deadlines.observe(now);
        deadlines.term() != Some(status.term) || deadlines.next().is_some_and(|next| next <= now)
    }

    /// Decides on everything that is due, as far as the limit of decisions under way allows.
    fn decide(self: &Arc<Self>, term: u64, now: Instant) {
        let mut decisions = Vec::new();
        {
            let registry = self.registry();
            let mut deadlines = self.shared.deadlines();
            deadlines.lead(term, &registry, now);
            let expiries_max = self.shared.config.expiries_per_command.max(1);
            while deadlines.term() == Some(term)
                && let Ok(permit) = self.decisions.clone().try_acquire_owned()
                && let Some(decision) = next_decision(&mut deadlines, &registry, now, expiries_max)
            {
                decisions.push((decision, permit));
            }
        }
        for (decision, permit) in decisions {
            if let Decision::Expire(due) = &decision {
                let checks = due.items.len();
                self.shared
                    .observer
                    .observe(Observation::ExpiryProposed { checks });
            }
            let task = self.clone().carry_out_decision(decision, term, permit);
            self.platform().spawn(task.boxed());
        }
    }

    async fn carry_out_decision(
        self: Arc<Self>,
        decision: Decision,
        term: u64,
        _permit: OwnedSemaphorePermit,
    ) {
        let result = self.consensus.propose_in_term(term, decision.command()).await;
        let how = match result {
            Ok(_) | Err(ProposeError::NotLeader { .. } | ProposeError::Stopped(_)) => Resolution::Settled,
            Err(ProposeError::OutcomeUnknown(_)) => Resolution::Unknown,
        };
        let mut deadlines = self.shared.deadlines();
        let now = self.platform().now();
        match decision {
            Decision::Expire(due) => deadlines.resolve_expiries(&due, how, now),
            Decision::EndSessions(due) => deadlines.resolve_sessions(&due, how, now),
            Decision::EndLockDelays(due) => deadlines.resolve_lock_delays(&due, how, now),
            Decision::Reap(due) => deadlines.resolve_reaps(&due, now),
            Decision::WriteOutputs(outputs) => deadlines.resolve_outputs(&outputs),
        }
    }
}

fn next_decision(
    deadlines: &mut Deadlines,
    registry: &Registry,
    now: Instant,
    expiries_max: usize,
) -> Option<Decision> {
    let due = deadlines.due_expiries(registry, now, expiries_max);
    if !due.items.is_empty() {
        return Some(Decision::Expire(due));
    }
    let due = deadlines.due_sessions(registry, now, expiries_max);
    if !due.items.is_empty() {
        return Some(Decision::EndSessions(due));
    }
    let due = deadlines.due_lock_delays(registry, now, expiries_max);
    if !due.items.is_empty() {
        return Some(Decision::EndLockDelays(due));
    }
    let due = deadlines.due_reaps(registry, now, expiries_max);
    if !due.items.is_empty() {
        return Some(Decision::Reap(due));
    }
    let outputs = deadlines.due_outputs(now, limits::RENEWALS_PER_COMMAND_MAX);
    (!outputs.is_empty()).then_some(Decision::WriteOutputs(outputs))
}

impl Decision {
    fn command(&self) -> Command {
        match self {
            Decision::Expire(due) => Command::ExpireChecks(due.items.clone()),
            Decision::EndSessions(due) => Command::ExpireSessions(due.items.clone()),
            Decision::EndLockDelays(due) => Command::EndLockDelays(due.items.clone()),
            Decision::Reap(due) => Command::DeregisterCritical(due.items.clone()),
            Decision::WriteOutputs(outputs) => {
                let update = |(check, output): &(CheckKey, String)| CheckUpdate {
                    target: CheckTarget::Check(check.clone()),
                    status: None,
                    output: Some(output.clone()),
                };
                Command::UpdateChecks(outputs.iter().map(update).collect())
            }
        }
    }
}
