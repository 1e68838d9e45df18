//! What a member does by itself, beside Raft: it tells of changes of leadership, and makes checkpoints.

use std::{pin::pin, sync::Arc, time::Duration};

use futures_util::future::{Either, select};
use openraft::{Raft, RaftMetrics, ServerState, async_runtime::WatchReceiver};
use tokio::sync::oneshot;

use super::{
    ApplyListener, Role,
    member::MemberId,
    state::StateMachine,
    types::{LogId, Types},
    watch,
};
use crate::{
    observe::{Observation, SharedObserver},
    runtime::Runtime,
};

/// What the server is told about changes of.
#[derive(Clone, Debug, Default, PartialEq)]
struct Leadership {
    role: Option<Role>,
    term: u64,
    leader: Option<MemberId>,
    membership: Option<LogId>,
    stopped: bool,
}

/// Tells of changes until Raft ends; then ends all waiting for entries.
pub(crate) async fn watch_leadership<R: Runtime>(
    mut metrics: watch::Receiver<RaftMetrics<Types<R>>>,
    state: StateMachine<R>,
    listener: Arc<dyn ApplyListener>,
    observer: SharedObserver,
) {
    let mut before = Leadership::default();
    loop {
        let now = {
            let metrics = metrics.borrow_and_update();
            Leadership {
                role: Some(role(metrics.state)),
                term: metrics.current_term,
                leader: metrics.current_leader.clone(),
                membership: *metrics.membership_config.log_id(),
                stopped: metrics.running_state.is_err(),
            }
        };
        if now != before {
            let led = before.role == Some(Role::Leader);
            let leads = now.role == Some(Role::Leader);
            if led && (!leads || before.term != now.term) {
                observer.observe(Observation::LostLeadership { term: now.term });
            }
            if leads && (!led || before.term != now.term) {
                observer.observe(Observation::BecameLeader { term: now.term });
            }
            if leads != led || now.leader != before.leader {
                let leader = now
                    .leader
                    .as_ref()
                    .map_or("nobody", |leader| leader.server.0.as_str());
                tracing::info!(term = now.term, leader, role = ?now.role, "leadership changed");
            }
            if now.membership != before.membership {
                let index = now.membership.map_or(0, |log_id| log_id.index);
                tracing::info!(index, "membership changed");
            }
            listener.leadership_changed();
        }
        if now.stopped {
            break;
        }
        before = now;
        if metrics.changed().await.is_err() {
            break;
        }
    }
    state.applied().stop();
}

/// Makes a checkpoint each interval in which anything was applied.
pub(crate) async fn checkpoint_regularly<R: Runtime>(
    raft: Raft<Types<R>, StateMachine<R>>,
    interval: Duration,
    mut stopped: oneshot::Receiver<()>,
) {
    loop {
        let sleep = pin!(R::sleep(interval));
        if let Either::Left(_) = select(&mut stopped, sleep).await {
            return;
        }
        let due = {
            let watched = raft.metrics();
            let metrics = watched.borrow_watched();
            metrics.last_applied > metrics.snapshot
        };
        if due && raft.trigger().snapshot().await.is_err() {
            return;
        }
    }
}

/// openraft's word for a member's part, in ours.
pub(crate) fn role(state: ServerState) -> Role {
    match state {
        ServerState::Leader => Role::Leader,
        ServerState::Follower => Role::Follower,
        ServerState::Candidate => Role::Candidate,
        ServerState::Learner => Role::Learner,
        ServerState::Shutdown => Role::Shutdown,
    }
}
