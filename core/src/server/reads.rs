//! Reads as of now, on any server.
//!
//! A linearizable read needs a *read index*: a log index such that a state with it applied holds every write that was
//! acknowledged before the read began. The leader finds it by a round to a quorum, a follower asks the leader. One
//! round serves all reads that were waiting when it began, and no read that came later: a round that was under way
//! already may have looked before that read's caller heard of the latest write. Who was woken by a change and looks again is
//! served by any round that began after the wake.

use std::{
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use futures_util::future::FutureExt as _;
use tokio::sync::oneshot;

use super::{
    Answer, Consistency, ServerError,
    errands::Route,
    peer::{self, PeerRequest, PeerResponse},
    wiring::Inner,
};
use crate::{
    limits,
    raft::ReadIndexError,
    registry::{Query, Registry},
    runtime::Instant,
};

/// The reads that wait for a read index.
#[derive(Debug, Default)]
pub(super) struct ReadRounds {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Whether a task makes rounds.
    running: bool,
    waiting: Vec<Waiting>,
    /// How many rounds began.
    begun: u64,
    /// The newest round that gave a read index: how many had begun with it, and the index.
    ended: Option<(u64, u64)>,
}

type Waiting = oneshot::Sender<Result<u64, ServerError>>;

/// How fresh the state is that is read next.
#[derive(Clone, Copy, Debug)]
pub(super) struct Freshness {
    pub(super) known_leader: bool,
    pub(super) last_contact: Duration,
}

/// Why a round gave no read index.
enum RoundFailure {
    /// There may be a leader soon.
    Again,
    /// This server can't go on.
    Stopped(String),
}

impl Inner {
    /// Ends when this server's state is as fresh as is asked for.
    pub(super) async fn settle(self: &Arc<Self>, consistency: Consistency) -> Result<Freshness, ServerError> {
        self.settle_after(consistency, u64::MAX).await
    }

    /// As [`Self::settle`], as of a moment at which [`ReadRounds::begun`] gave `begun`: a round that began after it will do.
    pub(super) async fn settle_after(
        self: &Arc<Self>,
        consistency: Consistency,
        begun: u64,
    ) -> Result<Freshness, ServerError> {
        self.serving()?;
        if let Consistency::Stale { max_stale } = consistency {
            let standing = self.consensus.standing();
            let contact = standing.last_contact;
            let fresh_enough = max_stale.is_none_or(|max| contact.is_some_and(|contact| contact <= max));
            if fresh_enough {
                return Ok(Freshness {
                    known_leader: standing.known_leader,
                    // Never heard of one: as long as this server runs.
                    last_contact: contact
                        .unwrap_or_else(|| self.platform().now().saturating_since(self.shared.started)),
                });
            }
        }
        // In boxes: who waits for minutes would have room for them all the while.
        let limit = self.shared.config.read_timeout;
        match self.shared.rounds.read_index_after(begun) {
            Some(read_index) => {
                let deadline = self.platform().now() + limit;
                self.catch_up(read_index, deadline).boxed().await?;
            }
            None => self.linearize(limit).boxed().await?,
        }
        // Halted while it waited: the state is not to be shown.
        self.serving()?;
        Ok(Freshness {
            known_leader: true,
            last_contact: Duration::ZERO,
        })
    }

    /// The answer that the state gives now.
    pub(super) fn evaluate(&self, query: &Query, freshness: Freshness) -> Answer {
        let (view, index) = self.shared.views.get(&self.registry(), query);
        Answer {
            view,
            index,
            known_leader: freshness.known_leader,
            last_contact: freshness.last_contact,
        }
    }

    /// What is found in the state, and the answer that it gives now to the query that this leads to: both of one moment.
    pub(super) fn evaluate_found<T>(
        &self,
        find: impl FnOnce(&Registry) -> (T, Option<Query>),
        freshness: Freshness,
    ) -> (T, Option<Answer>) {
        let registry = self.registry();
        let (found, query) = find(&registry);
        let answer = query.map(|query| {
            let (view, index) = self.shared.views.get(&registry, &query);
            Answer {
                view,
                index,
                known_leader: freshness.known_leader,
                last_contact: freshness.last_contact,
            }
        });
        (found, answer)
    }

    /// Ends when every write acknowledged before this call is in this server's state.
    pub(super) async fn linearize(self: &Arc<Self>, limit: Duration) -> Result<(), ServerError> {
        let deadline = self.platform().now() + limit;
        let round = self.join_round()?;
        let read_index = match self.platform().until(deadline, round).await {
            Some(Ok(result)) => result?,
            Some(Err(_)) => return Err(ServerError::Stopped("its reads were given up".into())),
            None => return Err(ServerError::NoLeader),
        };
        self.catch_up(read_index, deadline).await
    }

    async fn catch_up(&self, read_index: u64, deadline: Instant) -> Result<(), ServerError> {
        let applied = self.consensus.wait_applied(read_index);
        match self.platform().until(deadline, applied).await {
            Some(Ok(())) => Ok(()),
            Some(Err(ReadIndexError::Stopped(reason))) => Err(ServerError::Stopped(reason)),
            Some(Err(ReadIndexError::NotLeader { .. })) | None => Err(ServerError::NoLeader),
        }
    }

    /// Whether linearizable reads can be served, or why not.
    pub(super) async fn ready(self: &Arc<Self>) -> Result<(), String> {
        self.serving().map_err(|error| error.to_string())?;
        let status = self.consensus.status();
        if status.voters.is_empty() && status.learners.is_empty() {
            return Err("not a member of a cluster yet".into());
        }
        match self.linearize(limits::READY_TIMEOUT).await {
            Ok(()) => Ok(()),
            Err(ServerError::NoLeader) if status.leader.is_some() => Err(format!(
                "not caught up with the leader, or cut off from it: {} of {} entries applied",
                status.applied_index, status.last_log_index
            )),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Waits for the next round, and sees to it that there is one.
    fn join_round(self: &Arc<Self>) -> Result<oneshot::Receiver<Result<u64, ServerError>>, ServerError> {
        let (sender, receiver) = oneshot::channel();
        let mut state = self.shared.rounds.lock();
        if state.waiting.len() >= limits::LINEARIZABLE_READS_MAX {
            return Err(ServerError::OverLimit {
                what: "reads that wait for the leader",
                limit: limits::LINEARIZABLE_READS_MAX,
            });
        }
        state.waiting.push(sender);
        if !state.running {
            state.running = true;
            drop(state);
            // A task of its own: a reader may be dropped at any moment, and others wait for the same round.
            self.platform().spawn(self.clone().make_rounds().boxed());
        }
        Ok(receiver)
    }

    /// Makes rounds until nobody waits.
    async fn make_rounds(self: Arc<Self>) {
        let mut served: Vec<Waiting> = Vec::new();
        loop {
            let number = {
                let mut state = self.shared.rounds.lock();
                served.append(&mut state.waiting);
                // Who gave up needs no round. The others' time limits bound this loop.
                served.retain(|reader| !reader.is_closed());
                if served.is_empty() {
                    state.running = false;
                    return;
                }
                state.begun += 1;
                state.begun
            };
            let seen = self.shared.leadership.version();
            let result = match self.round(seen).await {
                Ok(read_index) => {
                    self.shared.rounds.lock().ended = Some((number, read_index));
                    Ok(read_index)
                }
                Err(RoundFailure::Stopped(reason)) => Err(ServerError::Stopped(reason)),
                Err(RoundFailure::Again) => {
                    self.lose_route();
                    let retry = self.platform().now() + limits::LEADER_RETRY_PAUSE;
                    let changed = self.shared.leadership.changed_since(seen);
                    self.platform().until(retry, changed).await;
                    continue;
                }
            };
            for reader in served.drain(..) {
                // It may have given up.
                let _ = reader.send(result.clone());
            }
        }
    }

    /// One round. It is given up when the leadership changes, or after a share of a read's time limit: asking another
    /// leader is always safe.
    async fn round(&self, seen: u64) -> Result<u64, RoundFailure> {
        if let Err(ServerError::Stopped(reason)) = self.serving() {
            return Err(RoundFailure::Stopped(reason));
        }
        let limit = self.shared.config.read_timeout / limits::READ_ROUNDS_PER_TIMEOUT;
        let ask = async {
            match self.route() {
                Route::Here { .. } => match self.consensus.read_index().await {
                    Ok(read_index) => Ok(read_index),
                    Err(ReadIndexError::NotLeader { .. }) => Err(RoundFailure::Again),
                    Err(ReadIndexError::Stopped(reason)) => Err(RoundFailure::Stopped(reason)),
                },
                Route::There(leader) => {
                    let request = peer::encode(&PeerRequest::ReadIndex);
                    let answer = self.consensus.call_peer(&leader, request, limit).await;
                    match answer.map(|bytes| peer::decode(&bytes)) {
                        Ok(Ok(PeerResponse::ReadIndex(Some(read_index)))) => Ok(read_index),
                        _ => Err(RoundFailure::Again),
                    }
                }
                Route::Nowhere => Err(RoundFailure::Again),
            }
        };
        let ask = std::pin::pin!(ask);
        let changed = self.shared.leadership.changed_since(seen);
        let asked = futures_util::future::select(ask, changed);
        let deadline = self.platform().now() + limit;
        match self.platform().until(deadline, asked).await {
            Some(futures_util::future::Either::Left((result, _))) => result,
            Some(futures_util::future::Either::Right(_)) | None => Err(RoundFailure::Again),
        }
    }
}

impl ReadRounds {
    /// How many reads wait for the next round.
    pub(super) fn waiting(&self) -> usize {
        self.lock().waiting.len()
    }

    /// How many rounds began.
    pub(super) fn begun(&self) -> u64 {
        self.lock().begun
    }

    /// What the newest round gave, if that began after so many.
    fn read_index_after(&self, begun: u64) -> Option<u64> {
        let (_, read_index) = self.lock().ended.filter(|(number, _)| *number > begun)?;
        Some(read_index)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock panics")
    }
}
