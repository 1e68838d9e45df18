//! What only the leader can do, done from any server: here when this server leads, else by a message to the leader.
//!
//! An errand that certainly was not begun (no leader, not the leader any more, nobody listening) is tried again until
//! its time limit. As soon as it may have been begun it is never tried again: if its answer does not come, its outcome
//! is reported unknown. A message that the network delivers twice is carried out once: see [`super::receipts`].

use std::{
    pin::pin,
    sync::{Arc, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::future::{Either, select};
use smol_str::SmolStr;
use tokio::sync::Semaphore;

use super::{
    ServerError, Written,
    peer::{self, Errand, Failure, Outcome, PeerRequest, PeerResponse},
    receipts::Stamp,
    renewals::Reporter,
    wiring::Inner,
};
use crate::{
    limits,
    raft::{MembershipError, ProposeError, Role},
    registry::Command,
    runtime::{Instant, NetworkError},
};

/// Who leads.
#[derive(Clone, Debug)]
pub(super) enum Route {
    /// This server.
    Here {
        /// Its term.
        term: u64,
    },
    /// The server at this Raft address.
    There(SmolStr),
    /// Nobody known.
    Nowhere,
}

impl Errand {
    /// Whether it renews TTLs, which goes before writes.
    pub(super) fn is_renewal(&self) -> bool {
        matches!(self, Errand::Renew(_) | Errand::RenewSession(_))
    }

    /// The error that too many like this one are under way.
    pub(super) fn over_limit(&self, limit: usize) -> ServerError {
        let what = match self.is_renewal() {
            true => "renewals under way",
            false => "writes under way",
        };
        ServerError::OverLimit { what, limit }
    }
}

/// How many more errands may be under way to a leader: [`super::ServerConfig::forwards_in_flight`] of each kind.
#[derive(Clone, Debug)]
pub(super) struct Forwards {
    leader: String,
    pub(super) writes: Arc<Semaphore>,
    pub(super) renewals: Arc<Semaphore>,
}

impl Forwards {
    /// To the leader at this Raft address.
    pub(super) fn to(leader: &str, most: usize) -> Forwards {
        Forwards {
            leader: leader.to_owned(),
            writes: Arc::new(Semaphore::new(most)),
            renewals: Arc::new(Semaphore::new(most)),
        }
    }
}

impl Inner {
    /// Who leads, as far as is known here. Looked up once for each change of leadership.
    pub(super) fn route(&self) -> Route {
        // Read before the status: what is kept is never taken for newer than it is.
        let version = self.shared.leadership.version();
        let mut known = self.route.lock().expect("no holder of this lock panics");
        match &*known {
            Some((of, route)) if *of == version => route.clone(),
            _ => {
                let route = self.find_route();
                *known = Some((version, route.clone()));
                route
            }
        }
    }

    /// Forgets who leads: it turned out to be wrong.
    pub(super) fn lose_route(&self) {
        *self.route.lock().expect("no holder of this lock panics") = None;
    }

    fn find_route(&self) -> Route {
        let status = self.consensus.status();
        match status.leader {
            _ if status.role == Role::Leader => Route::Here { term: status.term },
            // The address of a leader may be unknown for a moment.
            Some((leader, address)) if leader != status.id && !address.raft.is_empty() => {
                Route::There(address.raft)
            }
            _ => Route::Nowhere,
        }
    }

    /// Carries out an errand through the leader, wherever it is. A leader is looked for no longer than a write may
    /// take.
    pub(super) async fn send_errand(
        self: &Arc<Self>,
        errand: Errand,
        limit: Duration,
    ) -> Result<Outcome, ServerError> {
        let _counted = self.begin_errand(&errand)?;
        let now = self.platform().now();
        let deadline = now + limit;
        let search_until = now + limit.min(self.shared.config.write_timeout);
        loop {
            // Looked at after it was counted: who gives way sees either the errand or its refusal.
            self.serving()?;
            let seen = self.shared.leadership.version();
            let answer = match self.route() {
                Route::Here { term } => self.carry_out(errand.clone(), term, deadline).await,
                Route::There(address) => self.forward(&address, seen, errand.clone(), deadline).await,
                Route::Nowhere => Err(Failure::NotHere),
            };
            match answer {
                Ok(outcome) => return Ok(outcome),
                Err(Failure::NotHere) => self.lose_route(),
                Err(Failure::OutcomeUnknown(reason)) => return Err(ServerError::OutcomeUnknown(reason)),
                Err(Failure::OverLimit(limit)) => {
                    return Err(errand.over_limit(usize::try_from(limit).unwrap_or(usize::MAX)));
                }
                Err(Failure::Refused(reason)) => return Err(ServerError::Refused(reason)),
                Err(Failure::Stopped(reason)) => return Err(ServerError::Stopped(reason)),
                Err(Failure::OlderMember(needed)) => return Err(ServerError::OlderMember(needed)),
            }
            if !self.leader_may_change(seen, search_until).await {
                return Err(ServerError::NoLeader);
            }
        }
    }

    /// What bounds the errands of this kind under way to a leader. Those that an old one never answers are not in the new
    /// one's way.
    fn forwards_to(&self, leader: &str, errand: &Errand) -> Arc<Semaphore> {
        let mut forwards = self.forwards();
        if forwards.leader != leader {
            *forwards = Forwards::to(leader, self.shared.config.forwards_in_flight);
        }
        match errand.is_renewal() {
            true => forwards.renewals.clone(),
            false => forwards.writes.clone(),
        }
    }

    /// The leader that was sent an errand last, and how many more may be under way to it.
    pub(super) fn forwards(&self) -> MutexGuard<'_, Forwards> {
        self.forwards.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits a little for a change of leadership since `seen`; false when the deadline has passed.
    pub(super) async fn leader_may_change(&self, seen: u64, deadline: Instant) -> bool {
        let now = self.platform().now();
        if now >= deadline {
            return false;
        }
        let pause = deadline.min(now + limits::LEADER_RETRY_PAUSE);
        let changed = self.shared.leadership.changed_since(seen);
        self.platform().until(pause, changed).await;
        true
    }

    /// Sends an errand to the server that led when [`super::wiring::Shared::leadership`] was at version `seen`.
    async fn forward(
        &self,
        leader: &str,
        seen: u64,
        errand: Errand,
        deadline: Instant,
    ) -> Result<Outcome, Failure> {
        let forwards = self.forwards_to(leader, &errand);
        let turn = async {
            let changed = pin!(self.shared.leadership.changed_since(seen));
            match select(pin!(forwards.acquire()), changed).await {
                Either::Left((permit, _)) => Some(permit.expect("the semaphore is never closed")),
                // Whoever waits for a turn at an old leader goes to the new one.
                Either::Right(_) => None,
            }
        };
        let _permit = match self.platform().until(deadline, turn).await {
            None => {
                return Err(Failure::OverLimit(self.shared.config.forwards_in_flight as u64));
            }
            Some(None) => return Err(Failure::NotHere),
            Some(Some(permit)) => permit,
        };
        let limit = deadline.saturating_since(self.platform().now());
        if limit.is_zero() {
            return Err(Failure::NotHere);
        }
        let request = PeerRequest::Errand {
            stamp: self.stamps.next(),
            errand,
            // Less than the answer is waited for here: so that the leader's own verdict still arrives.
            limit_ms: peer::millis(limit - limit / 10),
        };
        let answer = self
            .consensus
            .call_peer(leader, peer::encode(&request), limit)
            .await;
        match answer {
            Err(NetworkError::Unreachable { .. }) => Err(Failure::NotHere),
            Err(unknown @ NetworkError::OutcomeUnknown { .. }) => {
                Err(Failure::OutcomeUnknown(unknown.to_string()))
            }
            Ok(bytes) => match peer::decode(&bytes) {
                // It stops or is broken and did nothing: another one will lead.
                Ok(PeerResponse::Errand(Err(Failure::Stopped(_))) | PeerResponse::Unavailable(_)) => {
                    Err(Failure::NotHere)
                }
                Ok(PeerResponse::Errand(answer)) => answer,
                Ok(other) => Err(Failure::OutcomeUnknown(format!(
                    "{leader} gave an answer to another question: {other:?}"
                ))),
                Err(reason) => Err(Failure::OutcomeUnknown(format!("{leader}: {reason}"))),
            },
        }
    }

    /// Carries out an errand here, for a peer that takes this server for the leader.
    pub(super) async fn receive_errand(
        self: &Arc<Self>,
        stamp: &Stamp,
        errand: Errand,
        limit: Duration,
    ) -> Result<Outcome, Failure> {
        let deadline = self.platform().now() + limit;
        if !self.receipts.note(stamp) {
            // The message that came first has the true answer: this one must not come before it.
            self.platform().sleep_until(deadline).await;
            return Err(Failure::OutcomeUnknown("the message arrived twice".into()));
        }
        let _counted = self.begin_errand(&errand)?;
        self.serving()?;
        match self.route() {
            Route::Here { term } => self.carry_out(errand, term, deadline).await,
            _ => {
                self.lose_route();
                Err(Failure::NotHere)
            }
        }
    }

    async fn carry_out(
        self: &Arc<Self>,
        errand: Errand,
        term: u64,
        deadline: Instant,
    ) -> Result<Outcome, Failure> {
        match errand {
            Errand::Write(command) => {
                // A restore is begun by one at a time, and its parts are for nothing if one of them is refused.
                let _turn = match command {
                    Command::Restore(_) => None,
                    _ => Some(self.admit(deadline).await?),
                };
                self.propose(command, deadline).await.map(Outcome::Written)
            }
            Errand::Renew(renewals) => {
                let renewed = self
                    .renew_here(renewals, term, Reporter::Client, deadline)
                    .await?;
                Ok(Outcome::Renewed(renewed))
            }
            Errand::RenewSession(id) => {
                let renewed = self.renew_session_here(&id, term, deadline).await?;
                Ok(Outcome::SessionRenewed(renewed))
            }
            Errand::Join(id, address) => {
                self.add_server(id, address, deadline).await?;
                Ok(Outcome::Done)
            }
            Errand::Remove(id) => {
                let change = self.consensus.remove_server(id);
                self.change_members(change, deadline).await
            }
            Errand::Transfer(to) => {
                let change = self.consensus.transfer_leader(to.clone());
                self.change_members(change, deadline).await?;
                self.hear_successor(to, deadline).await?;
                Ok(Outcome::Done)
            }
        }
    }

    /// Proposes a command at this server.
    pub(super) async fn propose(&self, command: Command, deadline: Instant) -> Result<Written, Failure> {
        self.ensure_all_read(&command, deadline).await?;
        let proposal = self.consensus.propose(command);
        match self.platform().until(deadline, proposal).await {
            None => Err(Failure::OutcomeUnknown(
                "not committed within the time limit".into(),
            )),
            Some(Ok(committed)) => Ok(Written {
                index: committed.applied.index,
                reply: committed.applied.reply,
            }),
            Some(Err(ProposeError::NotLeader { .. })) => Err(Failure::NotHere),
            Some(Err(ProposeError::OutcomeUnknown(reason))) => Err(Failure::OutcomeUnknown(reason)),
            Some(Err(ProposeError::Stopped(reason))) => Err(Failure::Stopped(reason)),
        }
    }

    /// Carries out a change of the membership or leadership at this server.
    pub(super) async fn change_members(
        &self,
        change: impl Future<Output = Result<(), MembershipError>>,
        deadline: Instant,
    ) -> Result<Outcome, Failure> {
        match self.platform().until(deadline, change).await {
            None => Err(Failure::OutcomeUnknown(
                "not completed within the time limit".into(),
            )),
            Some(Ok(())) => Ok(Outcome::Done),
            Some(Err(error)) => Err(ServerError::from(error).into()),
        }
    }
}
