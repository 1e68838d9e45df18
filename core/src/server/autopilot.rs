//! Autopilot, as Consul names it: the leader removes servers that are dead, and gives learners that have caught up a vote.
//!
//! A server is dead when its leader has not heard of it for [`limits::SERVER_SILENCE_MAX`], or for `LastContactThreshold`
//! if that is longer. Dead servers are removed only where an operator has stored settings that say so: a server that was
//! removed does not come back by itself, as Consul's do. Voters go one at a time, never more of them than a minority is, and
//! never below `MinQuorum`; so those that stay could always go on without the ones that go.

use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
    time::Duration,
};

use futures_util::future::FutureExt as _;
use serde::{Deserialize, Serialize};

use super::{
    silence::Silence,
    wiring::{Inner, Shared},
};
use crate::{
    limits,
    raft::{RaftStatus, Role, ServerAddress, ServerId},
    registry::{Key, Query, Registry, View},
    runtime::Instant,
};

/// The settings, as they are stored: Consul's, which mean the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct AutopilotSettings {
    /// Whether dead servers are removed.
    pub cleanup_dead_servers: bool,
    /// A server that was silent for longer is not healthy, and may be dead; in nanoseconds.
    pub last_contact_threshold_nanos: u64,
    /// A server that lacks more entries is not healthy.
    pub max_trailing_logs: u64,
    /// No server is removed that would leave fewer voters.
    pub min_quorum: u64,
    /// How long a learner must be healthy until it gets a vote; in nanoseconds.
    pub server_stabilization_time_nanos: u64,
    /// Kept and shown; nothing is carried out.
    pub redundancy_zone_tag: String,
    /// Kept and shown; nothing is carried out.
    pub disable_upgrade_migration: bool,
    /// Kept and shown; nothing is carried out.
    pub upgrade_version_tag: String,
}

impl Default for AutopilotSettings {
    /// Consul's.
    fn default() -> Self {
        AutopilotSettings {
            cleanup_dead_servers: true,
            last_contact_threshold_nanos: 200_000_000,
            max_trailing_logs: 250,
            min_quorum: 0,
            server_stabilization_time_nanos: 10_000_000_000,
            redundancy_zone_tag: String::new(),
            disable_upgrade_migration: false,
            upgrade_version_tag: String::new(),
        }
    }
}

impl AutopilotSettings {
    /// Where they are stored.
    ///
    /// # Panics
    /// Never: the constant is short enough.
    pub fn key() -> Key {
        Key::reserved("operator/autopilot").expect("a constant that is short enough")
    }

    /// Those that are stored; `None` while none are, or if they can't be read.
    pub fn stored(registry: &Registry) -> Option<AutopilotSettings> {
        let View::Keys(found) = registry.query(&Query::Key(Self::key())) else {
            return None;
        };
        serde_json::from_slice(&found.first()?.value).ok()
    }

    /// How long a server must be silent to be dead.
    pub fn dead_after(&self) -> Duration {
        Duration::from_nanos(self.last_contact_threshold_nanos).max(limits::SERVER_SILENCE_MAX)
    }

    /// How long a healthy server may be silent. Shorter than a few heartbeats would make nobody healthy.
    fn silence_of_the_healthy(&self) -> Duration {
        Duration::from_nanos(self.last_contact_threshold_nanos).max(limits::LEADER_SILENCE_MAX)
    }
}

/// Begins it; it ends with the server.
pub(super) fn begin(inner: &Arc<Inner>) {
    let work = run(inner.shared.clone(), Arc::downgrade(inner));
    inner.platform().spawn(work.boxed());
}

async fn run(shared: Arc<Shared>, inner: Weak<Inner>) {
    let mut pilot = Pilot::default();
    while shared.finish().is_none() {
        let seen = shared.leadership.version();
        let leads = match inner.upgrade() {
            Some(inner) => inner.steer(&mut pilot).await,
            None => return,
        };
        // Whoever does not lead has nothing to do until that changes.
        let pause = match leads {
            true => limits::UPKEEP_INTERVAL,
            false => limits::UPKEEP_INTERVAL * 10,
        };
        let next = shared.platform.now() + pause;
        shared
            .platform
            .until(next, shared.leadership.changed_since(seen))
            .await;
    }
}

impl Inner {
    /// At the leader: does what is to be done next, if anything is. Whether this server leads.
    async fn steer(&self, pilot: &mut Pilot) -> bool {
        let status = self.consensus.status();
        if status.role != Role::Leader || self.shared.halted().is_some() {
            *pilot = Pilot::default();
            return false;
        }
        let now = self.platform().now();
        let stored = AutopilotSettings::stored(&self.registry());
        let deadline = now + limits::MEMBERSHIP_REQUEST_TIMEOUT;
        match pilot.next(&status, stored.as_ref(), now) {
            None => {}
            Some(Step::Remove(id, silence)) => {
                tracing::warn!(server = %id, "it has not been heard of for long: autopilot removes it");
                let change = self.consensus.remove_silent_server(id, silence);
                if let Err(failure) = self.change_members(change, deadline).await {
                    tracing::info!(?failure, "autopilot did not remove a server");
                }
            }
            Some(Step::Promote(id, address)) => {
                tracing::info!(server = %id, "autopilot gives it a vote");
                if let Err(failure) = self.add_server(id, address, deadline).await {
                    tracing::info!(?failure, "autopilot did not give a server its vote");
                }
            }
        }
        true
    }
}

/// What a leader knows of the others.
#[derive(Debug, Default)]
struct Pilot {
    silence: Silence,
    /// Learners that are healthy, and since when.
    healthy: BTreeMap<ServerId, Instant>,
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// A dead server is removed, unless it was heard of for less than so long ago.
    Remove(ServerId, Duration),
    /// A learner gets its vote.
    Promote(ServerId, ServerAddress),
}

impl Pilot {
    /// The next step, as things are now. Pure: the clock is passed in.
    fn next(
        &mut self,
        status: &RaftStatus,
        stored: Option<&AutopilotSettings>,
        now: Instant,
    ) -> Option<Step> {
        let settings = stored.cloned().unwrap_or_default();
        if !self.silence.look(status, now) {
            self.healthy.clear();
            return None;
        }
        self.look_at_learners(status, &settings, now);
        let removes = stored.is_some() && settings.cleanup_dead_servers;
        let dead = removes.then(|| self.dead(status, &settings)).flatten();
        dead.map(|id| Step::Remove(id, settings.dead_after()))
            .or_else(|| self.ready(status, &settings, now))
    }

    fn look_at_learners(&mut self, status: &RaftStatus, settings: &AutopilotSettings, now: Instant) {
        let healthy = status.learners.keys().filter(|id| {
            let heard = self.silence.of(id);
            let lag = status
                .last_log_index
                .checked_sub(status.matched.get(id).copied().unwrap_or(0));
            heard.ever
                && heard.silent <= settings.silence_of_the_healthy()
                && lag.is_none_or(|lag| lag <= settings.max_trailing_logs)
        });
        let since = healthy.map(|id| (id.clone(), self.healthy.get(id).copied().unwrap_or(now)));
        self.healthy = since.collect();
    }

    /// A server that is to be removed.
    fn dead(&self, status: &RaftStatus, settings: &AutopilotSettings) -> Option<ServerId> {
        let is_dead = |id: &&ServerId| self.silence.of(id).silent >= settings.dead_after();
        if let Some(learner) = status.learners.keys().find(is_dead) {
            return Some(learner.clone());
        }
        let voters = status.voters.len();
        let dead: Vec<&ServerId> = status.voters.keys().filter(is_dead).collect();
        let minority = voters.saturating_sub(1) / 2;
        let enough_stay = (voters as u64).saturating_sub(1) >= settings.min_quorum;
        let first = dead.first()?;
        (dead.len() <= minority && enough_stay).then(|| (*first).clone())
    }

    /// A learner that is to get its vote.
    fn ready(&self, status: &RaftStatus, settings: &AutopilotSettings, now: Instant) -> Option<Step> {
        let time = Duration::from_nanos(settings.server_stabilization_time_nanos);
        let mut stable = self
            .healthy
            .iter()
            .filter(|(_, since)| now.saturating_since(**since) >= time);
        let (id, _) = stable.next()?;
        Some(Step::Promote(id.clone(), status.learners.get(id)?.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::DiskId;

    fn id(name: &str) -> ServerId {
        ServerId(name.into())
    }

    /// As the leader `a` sees it: who votes, who learns, who is heard of.
    fn status(voters: &[&str], learners: &[&str], heard: &[&str]) -> RaftStatus {
        let address = ServerAddress::default();
        let members = |names: &[&str]| -> BTreeMap<ServerId, ServerAddress> {
            names.iter().map(|name| (id(name), address.clone())).collect()
        };
        RaftStatus {
            id: id("a"),
            disk: DiskId::default(),
            role: Role::Leader,
            term: 1,
            leader: Some((id("a"), address.clone())),
            last_log_index: 1_000,
            commit_index: 1_000,
            applied_index: 1_000,
            snapshot_index: 0,
            purged_index: 0,
            voters: members(voters),
            learners: members(learners),
            disks: BTreeMap::new(),
            matched: heard.iter().map(|name| (id(name), 900)).collect(),
            contacts_ms: heard.iter().map(|name| (id(name), 50)).collect(),
            last_contact_ms: Some(10),
            elections: 1,
            fatal: None,
        }
    }

    fn settings() -> AutopilotSettings {
        AutopilotSettings {
            server_stabilization_time_nanos: 3_000_000_000,
            ..AutopilotSettings::default()
        }
    }

    /// What is done after so many seconds in which everything was like this, a look each second.
    fn after(seconds: u64, status: &RaftStatus, stored: Option<&AutopilotSettings>) -> Option<Step> {
        let mut pilot = Pilot::default();
        let at = |second: u64| Instant::default() + Duration::from_secs(second);
        (0..seconds).for_each(|second| drop(pilot.next(status, stored, at(second))));
        pilot.next(status, stored, at(seconds))
    }

    fn removes(step: Option<Step>) -> Option<String> {
        match step {
            Some(Step::Remove(id, _)) => Some(id.to_string()),
            _ => None,
        }
    }

    #[test]
    fn the_dead_are_removed_where_settings_say_so_and_not_before_their_time() {
        let lost = status(&["a", "b", "c"], &[], &["b"]);
        assert_eq!(removes(after(3, &lost, Some(&settings()))), None);
        assert_eq!(removes(after(4, &lost, Some(&settings()))), Some("c".into()));
        assert_eq!(after(60, &lost, None), None, "nobody has asked for it");
        let keeps = AutopilotSettings {
            cleanup_dead_servers: false,
            ..settings()
        };
        assert_eq!(after(60, &lost, Some(&keeps)), None);
        let patient = AutopilotSettings {
            last_contact_threshold_nanos: 20_000_000_000,
            ..settings()
        };
        assert_eq!(removes(after(19, &lost, Some(&patient))), None);
        assert_eq!(removes(after(20, &lost, Some(&patient))), Some("c".into()));
    }

    #[test]
    fn a_quorum_stays() {
        let five = ["a", "b", "c", "d", "e"];
        let two_lost = status(&five, &[], &["b", "c"]);
        assert_eq!(removes(after(60, &two_lost, Some(&settings()))), Some("d".into()));
        let three_lost = status(&five, &[], &["b"]);
        assert_eq!(after(60, &three_lost, Some(&settings())), None);
        let one_of_two = status(&["a", "b"], &[], &[]);
        assert_eq!(after(60, &one_of_two, Some(&settings())), None);
        let lost = status(&["a", "b", "c"], &[], &["b"]);
        let at_least_three = AutopilotSettings {
            min_quorum: 3,
            ..settings()
        };
        assert_eq!(after(60, &lost, Some(&at_least_three)), None);
        let learner = status(&["a", "b"], &["c"], &["b"]);
        assert_eq!(removes(after(60, &learner, Some(&settings()))), Some("c".into()));
    }

    #[test]
    fn a_learner_that_was_healthy_for_long_enough_gets_its_vote() {
        let learner = status(&["a", "b"], &["c"], &["b", "c"]);
        assert_eq!(after(2, &learner, Some(&settings())), None);
        let promoted = after(3, &learner, Some(&settings()));
        assert_eq!(promoted, Some(Step::Promote(id("c"), ServerAddress::default())));
        // Nobody has to ask for that.
        assert_eq!(after(9, &learner, None), None);
        assert_ne!(after(10, &learner, None), None);
        let mut behind = learner.clone();
        behind.matched.insert(id("c"), 749);
        assert_eq!(after(60, &behind, Some(&settings())), None);
        let silent = status(&["a", "b"], &["c"], &["b"]);
        assert_eq!(after(60, &silent, None), None);
    }

    #[test]
    fn what_older_programs_have_stored_is_read() {
        let older = br#"{"CleanupDeadServers":false,"LastContactThreshold":"200ms","MaxTrailingLogs":7}"#;
        let read: AutopilotSettings = serde_json::from_slice(older).unwrap();
        assert!(!read.cleanup_dead_servers);
        assert_eq!(read.max_trailing_logs, 7);
        assert_eq!(read.last_contact_threshold_nanos, 200_000_000);
    }
}
