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
    MembershipError, ServerAddress, ServerId, founding,
    identity::Identity,
    member::{MemberId, WAY_BACK},
    network::HandedOn,
    state::StateMachine,
    types::{Membership, Types},
};
use crate::{limits, runtime::Runtime};

type Metrics<R> = RaftMetrics<Types<R>>;

/// Changes the membership of the cluster through this server.
pub(crate) struct Members<R: Runtime> {
    me: Identity,
    network: R::Network,
    raft: Raft<Types<R>, StateMachine<R>>,
    handed_on: HandedOn,
    /// Held while a change is being committed; openraft refuses a second one meanwhile.
    one_at_a_time: Mutex<()>,
}

impl<R: Runtime> Members<R> {
    pub(crate) fn new(
        me: Identity,
        network: R::Network,
        raft: Raft<Types<R>, StateMachine<R>>,
        handed_on: HandedOn,
    ) -> Self {
        Members {
            me,
            network,
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
        let members = founding::gather::<R>(&self.me, &self.network, &members)
            .await
            .map_err(MembershipError::Refused)?;
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
        let known = find(membership, &id);
        if let Some((_, known)) = known.filter(|(_, known)| known.raft != address.raft) {
            return Err(MembershipError::Refused(format!(
                "server {id} is a member at {} already: remove it first, or join under another id",
                known.raft
            )));
        }
        let member = self
            .introduce(&id, &address, known.map(|(member, _)| member))
            .await?;
        let is_begun = match known {
            None => {
                self.change(ChangeMembers::AddNodes([(member.clone(), address)].into()))
                    .await?;
                true
            }
            Some((_, known)) if known.http != address.http && !address.http.is_empty() => {
                // The same server at the same Raft address: nothing changes for Raft.
                self.change(ChangeMembers::SetNodes([(member.clone(), address)].into()))
                    .await?;
                true
            }
            Some(_) => false,
        };
        // While one membership gives way to another, a voter of the older one alone is about to be none.
        if membership
            .get_joint_config()
            .iter()
            .all(|voters| voters.contains(&member))
        {
            return Ok(());
        }
        self.wait_caught_up(&member).await?;
        let promoted = self
            .change(ChangeMembers::AddVoterIds(BTreeSet::from([member])))
            .await;
        match promoted {
            // "Nothing was done" would not be true: it is a member by now, and stays one.
            Err(MembershipError::NotLeader { .. }) if is_begun => Err(MembershipError::OutcomeUnknown(
                format!("leadership was lost before {id} got its vote: join it again"),
            )),
            Err(MembershipError::Refused(reason)) if is_begun => Err(MembershipError::OutcomeUnknown(
                format!("{id} is a member without a vote: {reason}"),
            )),
            promoted => promoted,
        }
    }

    /// Who is at the address of a server that is to be added. Of a member (`known`), it is made sure that it still has its
    /// data: one that lost it counts for nothing, though the membership names it.
    async fn introduce(
        &self,
        id: &ServerId,
        address: &ServerAddress,
        known: Option<&MemberId>,
    ) -> Result<MemberId, MembershipError> {
        if id == self.me.id() {
            return Ok(self.me.member().clone());
        }
        match (
            founding::introduce::<R>(&self.me, &self.network, id, address).await,
            known,
        ) {
            (Ok(found), Some(known)) if known.has_lost_data(&found.member) => Err(MembershipError::Refused(
                format!("server {id} is a member, but {WAY_BACK}"),
            )),
            (Ok(found), _) => Ok(found.member),
            (Err(reason), _) => Err(MembershipError::Refused(format!(
                "server {id} at {} can't be added: {reason}",
                address.raft
            ))),
        }
    }

    /// See [`super::Consensus::remove_server`], and [`super::Consensus::remove_silent_server`] with a time.
    pub(crate) async fn remove(
        &self,
        id: ServerId,
        silent_for: Option<Duration>,
    ) -> Result<(), MembershipError> {
        let metrics = self.metrics();
        self.ensure_leader(&metrics)?;
        let membership = metrics.membership_config.membership();
        let Some((member, _)) = find(membership, &id) else {
            return Err(MembershipError::Refused(format!("there is no member {id}")));
        };
        let is_heard = |metrics: &Metrics<R>| {
            silent_for
                .is_some_and(|silence| since_contact(metrics, member).is_some_and(|since| since < silence))
        };
        let voters: BTreeSet<MemberId> = membership.voter_ids().collect();
        let removed = BTreeSet::from([member.clone()]);
        if !voters.contains(member) {
            return self
                .change_unless(Some(ChangeMembers::RemoveNodes(removed)), is_heard)
                .await;
        }
        if voters.len() == 1 {
            return Err(MembershipError::Refused(format!(
                "{id} is the last voter: a cluster can't be without one"
            )));
        }
        self.change_unless(Some(ChangeMembers::RemoveVoters(removed)), is_heard)
            .await
    }

    /// See [`super::Consensus::transfer_leader`].
    pub(crate) async fn transfer(&self, to: Option<ServerId>) -> Result<(), MembershipError> {
        let metrics = self.metrics();
        self.ensure_leader(&metrics)?;
        let to = self.successor(&metrics, to)?;
        if to == *self.me.member() {
            return Ok(());
        }
        // A leader that hands its office on takes no writes until another is elected: make sure that one can be.
        let matched = self.matched(&metrics, &to);
        if matched.is_none_or(|matched| lag(&metrics, matched) > limits::ENTRIES_PER_APPEND_MAX) {
            return Err(MembershipError::Refused(format!(
                "{} lags too far behind to lead",
                to.server
            )));
        }
        self.handed_on.set(metrics.current_term);
        self.raft
            .trigger()
            .transfer_leader(to.clone())
            .await
            .map_err(refused)?;
        let me = self.me.member().clone();
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
                "leadership went to {} instead of {}",
                metrics
                    .current_leader
                    .map_or("nobody".to_string(), |leader| leader.server.to_string()),
                to.server
            ))),
            None => Err(self.transfer_failed(&to.server).await),
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

    fn successor(&self, metrics: &Metrics<R>, to: Option<ServerId>) -> Result<MemberId, MembershipError> {
        let mut voters = metrics.membership_config.voter_ids();
        match to {
            Some(to) => voters
                .find(|voter| voter.server == to)
                .ok_or_else(|| MembershipError::Refused(format!("{to} is not a voter"))),
            None => voters
                .filter(|voter| voter != self.me.member())
                .max_by_key(|voter| self.matched(metrics, voter))
                .ok_or_else(|| MembershipError::Refused("there is no other voter".to_string())),
        }
    }

    fn matched(&self, metrics: &Metrics<R>, member: &MemberId) -> Option<u64> {
        let matched = metrics.replication.as_ref()?.get(member)?.as_ref()?;
        Some(matched.index)
    }

    /// Waits until a new member lacks only a few entries.
    async fn wait_caught_up(&self, member: &MemberId) -> Result<(), MembershipError> {
        let caught_up = |metrics: &Metrics<R>| {
            metrics.state != ServerState::Leader
                || self
                    .matched(metrics, member)
                    .is_some_and(|matched| lag(metrics, matched) <= limits::JOIN_LAG_MAX)
        };
        let id = &member.server;
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
    async fn change(&self, change: ChangeMembers<MemberId, ServerAddress>) -> Result<(), MembershipError> {
        self.change_unless(Some(change), |_| false).await
    }

    /// As [`Members::change`], unless the reason for it is gone (`is_moot`) when its turn has come. Without a change of its
    /// own, it completes one that was left half done; that comes first in any case, as a change is made from what is
    /// whole. Whoever loses his vote by a change is no member after it.
    async fn change_unless(
        &self,
        change: Option<ChangeMembers<MemberId, ServerAddress>>,
        is_moot: impl Fn(&Metrics<R>) -> bool + Sync,
    ) -> Result<(), MembershipError> {
        let committed = async {
            let _turn = self.one_at_a_time.lock().await;
            loop {
                // Looked at in turn: the change before this one may have removed this server, and a leader that is
                // not a voter any more must change nothing until it steps down.
                let metrics = self.metrics();
                self.ensure_leader(&metrics)?;
                if is_moot(&metrics) {
                    return Err(MembershipError::Refused(
                        "the server is heard of again".to_string(),
                    ));
                }
                let is_half_done = is_joint(&metrics);
                let step = match &change {
                    // No change but the second step of the one that is under way.
                    _ if is_half_done => ChangeMembers::AddVoterIds(BTreeSet::new()),
                    Some(change) => change.clone(),
                    None => return Ok(()),
                };
                match self.raft.change_membership(step, false).await {
                    Ok(_) if is_half_done => {}
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
            let leads = metrics.state == ServerState::Leader;
            let joint = (leads && is_joint(&metrics)).then(|| *metrics.membership_config.log_id());
            if joint.is_some() && joint == joint_before {
                let finish = self.change_unless(None, |_| false);
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
            .any(|voter| voter == *self.me.member());
        if metrics.state == ServerState::Leader && votes {
            return Ok(());
        }
        let leader = metrics
            .current_leader
            .clone()
            .filter(|leader| leader != self.me.member());
        Err(MembershipError::NotLeader {
            leader: leader.and_then(|leader| {
                let address = metrics.membership_config.get_node(&leader)?.clone();
                Some((leader.server, address))
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

/// The member of a name. There are never two: a name is added only when it is free.
fn find<'a>(membership: &'a Membership, id: &ServerId) -> Option<(&'a MemberId, &'a ServerAddress)> {
    membership.nodes().find(|(member, _)| member.server == *id)
}

/// How long ago a member last acknowledged anything to this leader; `None` if it has not since this one leads.
fn since_contact<R: Runtime>(metrics: &Metrics<R>, member: &MemberId) -> Option<Duration> {
    let at = metrics.heartbeat.as_ref()?.get(member)?.as_ref()?.at;
    Some(R::now().saturating_since(at))
}

/// Whether a change of the voters is between its two steps.
fn is_joint<R: Runtime>(metrics: &Metrics<R>) -> bool {
    metrics.membership_config.membership().get_joint_config().len() > 1
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
