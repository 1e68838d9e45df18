//! Changes of the membership, and who leads.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    pin::pin,
    sync::Arc,
    time::Duration,
};

use futures_util::future::{Either, select};
use openraft::{
    ChangeMembers, Raft, RaftMetrics, ReadPolicy, ServerState,
    async_runtime::WatchReceiver,
    errors::{ChangeMembershipError, ClientWriteError, InitializeError, LinearizableReadError, RaftError},
};
use tokio::sync::{Mutex, oneshot};

use super::{
    MembershipError, ServerAddress, ServerId, identity::Identity, network::HandedOn, state::StateMachine,
    types::Types,
};
use crate::{limits, runtime::Runtime};

type Metrics<R> = RaftMetrics<Types<R>>;

/// Changes the membership of the cluster through this server.
pub(crate) struct Members<R: Runtime> {
    me: Identity,
    raft: Raft<Types<R>, StateMachine<R>>,
    handed_on: HandedOn,
    /// Held while a change is being committed; openraft refuses a second one meanwhile.
    one_at_a_time: Mutex<()>,
}

impl<R: Runtime> Members<R> {
    pub(crate) fn new(me: Identity, raft: Raft<Types<R>, StateMachine<R>>, handed_on: HandedOn) -> Self {
        Members {
            me,
            raft,
            handed_on,
            one_at_a_time: Mutex::new(()),
        }
    }

    /// See [`super::Consensus::initialize`].
    pub(crate) async fn initialize(
        &self,
        members: BTreeMap<ServerId, ServerAddress>,
    ) -> Result<(), MembershipError> {
        if !members.contains_key(self.me.id()) {
            let reason = format!("{} is not among the members of the new cluster", self.me.id());
            return Err(MembershipError::Refused(reason));
        }
        self.me.found::<R>(&members).await.map_err(refused)?;
        match self.raft.initialize(members).await {
            Ok(()) => Ok(()),
            Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Err(MembershipError::Refused(
                "this server is a member of a cluster already".to_string(),
            )),
            Err(RaftError::APIError(error)) => Err(MembershipError::Refused(error.to_string())),
            Err(RaftError::Fatal(error)) => Err(MembershipError::Refused(format!("server stopped: {error}"))),
        }
    }

    /// See [`super::Consensus::add_server`].
    pub(crate) async fn add(&self, id: ServerId, address: ServerAddress) -> Result<(), MembershipError> {
        let metrics = self.metrics();
        self.ensure_leader(&metrics)?;
        let membership = metrics.membership_config.membership();
        let known = membership.get_node(&id);
        if let Some(known) = known.filter(|known| known.raft != address.raft) {
            return Err(MembershipError::Refused(format!(
                "server {id} is a member at {} already: remove it first, or join under another id",
                known.raft
            )));
        }
        match known {
            None => {
                self.change(ChangeMembers::AddNodes([(id.clone(), address)].into()), true)
                    .await?;
            }
            Some(known) if known.http != address.http && !address.http.is_empty() => {
                // The same server at the same Raft address: nothing changes for Raft.
                self.change(ChangeMembers::SetNodes([(id.clone(), address)].into()), true)
                    .await?;
            }
            Some(_) => {}
        }
        if membership.voter_ids().any(|voter| voter == id) {
            return Ok(());
        }
        self.wait_caught_up(&id).await?;
        self.change(ChangeMembers::AddVoterIds(BTreeSet::from([id])), true)
            .await
    }

    /// See [`super::Consensus::remove_server`].
    pub(crate) async fn remove(&self, id: ServerId) -> Result<(), MembershipError> {
        let metrics = self.metrics();
        self.ensure_leader(&metrics)?;
        let membership = metrics.membership_config.membership();
        if membership.get_node(&id).is_none() {
            return Err(MembershipError::Refused(format!("there is no member {id}")));
        }
        let voters: BTreeSet<ServerId> = membership.voter_ids().collect();
        if !voters.contains(&id) {
            return self
                .change(ChangeMembers::RemoveNodes(BTreeSet::from([id])), false)
                .await;
        }
        if voters.len() == 1 {
            return Err(MembershipError::Refused(format!(
                "{id} is the last voter: a cluster can't be without one"
            )));
        }
        self.change(ChangeMembers::RemoveVoters(BTreeSet::from([id])), false)
            .await
    }

    /// See [`super::Consensus::transfer_leader`].
    pub(crate) async fn transfer(&self, to: Option<ServerId>) -> Result<(), MembershipError> {
        let metrics = self.metrics();
        self.ensure_leader(&metrics)?;
        let to = self.successor(&metrics, to)?;
        if to == *self.me.id() {
            return Ok(());
        }
        // A leader that hands its office on takes no writes until another is elected: make sure that one can be.
        let matched = self.matched(&metrics, &to);
        if matched.is_none_or(|matched| lag(&metrics, matched) > limits::ENTRIES_PER_APPEND_MAX) {
            return Err(MembershipError::Refused(format!(
                "{to} lags too far behind to lead"
            )));
        }
        self.handed_on.set(metrics.current_term);
        self.raft
            .trigger()
            .transfer_leader(to.clone())
            .await
            .map_err(refused)?;
        let me = self.me.id().clone();
        let elsewhere = |metrics: &Metrics<R>| {
            metrics.state != ServerState::Leader
                && metrics
                    .current_leader
                    .as_ref()
                    .is_some_and(|leader| *leader != me)
        };
        match self.wait(limits::TRANSFER_TIMEOUT, elsewhere).await {
            Some(metrics) if metrics.current_leader == Some(to.clone()) => Ok(()),
            Some(metrics) => Err(MembershipError::OutcomeUnknown(format!(
                "leadership went to {} instead of {to}",
                metrics
                    .current_leader
                    .map_or("nobody".to_string(), |leader| leader.to_string())
            ))),
            None => Err(self.transfer_failed(&to).await),
        }
    }

    /// Whether leadership is still here, and whether openraft still holds it back for a target that did not take it.
    async fn transfer_failed(&self, to: &ServerId) -> MembershipError {
        match self.raft.get_read_log_id(ReadPolicy::ReadIndex).await {
            Ok(_) => MembershipError::Refused(format!("{to} did not take over; this server still leads")),
            Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(forward))) => {
                MembershipError::OutcomeUnknown(format!(
                    "{to} did not take over yet; writes wait for the next election ({:?})",
                    forward.reason
                ))
            }
            Err(error) => MembershipError::OutcomeUnknown(format!("{to} did not take over: {error}")),
        }
    }

    fn successor(&self, metrics: &Metrics<R>, to: Option<ServerId>) -> Result<ServerId, MembershipError> {
        let voters: BTreeSet<ServerId> = metrics.membership_config.voter_ids().collect();
        match to {
            Some(to) if voters.contains(&to) => Ok(to),
            Some(to) => Err(MembershipError::Refused(format!("{to} is not a voter"))),
            None => voters
                .into_iter()
                .filter(|voter| voter != self.me.id())
                .max_by_key(|voter| self.matched(metrics, voter))
                .ok_or_else(|| MembershipError::Refused("there is no other voter".to_string())),
        }
    }

    fn matched(&self, metrics: &Metrics<R>, id: &ServerId) -> Option<u64> {
        let matched = metrics.replication.as_ref()?.get(id)?.as_ref()?;
        Some(matched.index)
    }

    /// Waits until a new member lacks only a few entries.
    async fn wait_caught_up(&self, id: &ServerId) -> Result<(), MembershipError> {
        let caught_up = |metrics: &Metrics<R>| {
            metrics.state != ServerState::Leader
                || self
                    .matched(metrics, id)
                    .is_some_and(|matched| lag(metrics, matched) <= limits::JOIN_LAG_MAX)
        };
        match self.wait(limits::JOIN_CATCH_UP_TIMEOUT, caught_up).await {
            Some(metrics) if metrics.state == ServerState::Leader => Ok(()),
            Some(_) => Err(MembershipError::OutcomeUnknown(format!(
                "leadership was lost while {id} caught up; it has no vote yet: join it again"
            ))),
            None => Err(MembershipError::OutcomeUnknown(format!(
                "{id} did not catch up within {:?}; it has no vote yet: see that it runs and is reachable, and join \
                 it again",
                limits::JOIN_CATCH_UP_TIMEOUT
            ))),
        }
    }

    /// Commits a change, after any that is under way.
    async fn change(
        &self,
        change: ChangeMembers<ServerId, ServerAddress>,
        retain: bool,
    ) -> Result<(), MembershipError> {
        let committed = async {
            let _turn = self.one_at_a_time.lock().await;
            loop {
                // Looked at in turn: the change before this one may have removed this server, and a leader that is
                // not a voter any more must change nothing until it steps down.
                self.ensure_leader(&self.metrics())?;
                match self.raft.change_membership(change.clone(), retain).await {
                    Ok(_) => return Ok(()),
                    Err(RaftError::APIError(ClientWriteError::ChangeMembershipError(
                        ChangeMembershipError::InProgress(_),
                    ))) => {
                        // One of an earlier leader, or of the joint phase: it commits soon or not at all.
                        R::sleep(limits::MEMBERSHIP_RETRY).await;
                    }
                    Err(error) => return Err(change_error(error)),
                }
            }
        };
        match R::timeout(limits::MEMBERSHIP_TIMEOUT, committed).await {
            Some(result) => result,
            None => Err(MembershipError::OutcomeUnknown(format!(
                "the change did not commit within {:?}",
                limits::MEMBERSHIP_TIMEOUT
            ))),
        }
    }

    /// Completes changes that were left half done: a leader that dies between the two steps of one leaves a cluster
    /// that needs the majorities of both its old and its new members.
    pub(crate) async fn finish_changes(self: Arc<Self>, mut stopped: oneshot::Receiver<()>) {
        let mut joint_before = None;
        loop {
            let sleep = pin!(R::sleep(limits::MEMBERSHIP_TIMEOUT / 2));
            if let Either::Left(_) = select(&mut stopped, sleep).await {
                return;
            }
            let metrics = self.metrics();
            let membership = &metrics.membership_config;
            let joint = membership.membership().get_joint_config().len() > 1;
            let joint = (joint && metrics.state == ServerState::Leader).then(|| *membership.log_id());
            if joint.is_some() && joint == joint_before {
                // No change but the second step of the one that is under way.
                let finish = self.change(ChangeMembers::AddVoterIds(BTreeSet::new()), false);
                match select(&mut stopped, pin!(finish)).await {
                    Either::Left(_) => return,
                    Either::Right((Ok(()), _)) => {}
                    Either::Right((Err(error), _)) => {
                        tracing::warn!(%error, "a membership change is still half done");
                    }
                }
            }
            joint_before = joint;
        }
    }

    fn metrics(&self) -> Metrics<R> {
        self.raft.metrics().borrow_watched().clone()
    }

    fn ensure_leader(&self, metrics: &Metrics<R>) -> Result<(), MembershipError> {
        let votes = metrics
            .membership_config
            .voter_ids()
            .any(|voter| voter == *self.me.id());
        if metrics.state == ServerState::Leader && votes {
            return Ok(());
        }
        let leader = metrics
            .current_leader
            .clone()
            .filter(|leader| leader != self.me.id());
        Err(MembershipError::NotLeader {
            leader: leader.and_then(|id| {
                let address = metrics.membership_config.get_node(&id)?.clone();
                Some((id, address))
            }),
        })
    }

    /// The first metrics for which `condition` holds, within a time.
    fn wait(
        &self,
        timeout: Duration,
        condition: impl Fn(&Metrics<R>) -> bool + Send,
    ) -> impl Future<Output = Option<Metrics<R>>> + Send {
        let mut watched = self.raft.metrics();
        let met = async move {
            loop {
                let metrics = watched.borrow_and_update().clone();
                if condition(&metrics) {
                    return Some(metrics);
                }
                watched.changed().await.ok()?;
            }
        };
        async move { R::timeout(timeout, met).await.flatten() }
    }
}

fn lag<R: Runtime>(metrics: &Metrics<R>, matched: u64) -> u64 {
    metrics.last_log_index.unwrap_or(0).saturating_sub(matched)
}

fn refused(error: impl ToString) -> MembershipError {
    MembershipError::Refused(format!("server stopped: {}", error.to_string()))
}

fn change_error<R: Runtime>(error: RaftError<Types<R>, ClientWriteError<Types<R>>>) -> MembershipError {
    match error {
        // It led when the change was handed in: an entry of it may be in the log, and another leader may commit it.
        RaftError::APIError(ClientWriteError::ForwardToLeader(_)) => MembershipError::OutcomeUnknown(
            "leadership was lost while the change was being committed".to_string(),
        ),
        RaftError::APIError(error @ ClientWriteError::LogEntryDiscarded(_)) => {
            MembershipError::OutcomeUnknown(error.to_string())
        }
        RaftError::APIError(error) => MembershipError::Refused(error.to_string()),
        RaftError::Fatal(error) => MembershipError::OutcomeUnknown(format!("server stopped: {error}")),
    }
}
