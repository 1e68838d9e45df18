//! For how long a leader has not heard of the other members, by Raft's own contact times.
//!
//! What counts is the time in which they could have been heard: not that in which this server stood still, nor that in
//! which it heard of no majority, which says more about itself. A new leader gives everyone the full time.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    limits,
    raft::{RaftStatus, ServerId},
    runtime::Instant,
};

/// The most that counts between two looks: what is beyond that, this server has missed itself.
const STEP_MAX: Duration = limits::UPKEEP_INTERVAL.saturating_mul(2);

/// See the module's page. Pure: the clock is passed in.
#[derive(Debug, Default)]
pub(super) struct Silence {
    term: u64,
    looked: Option<Instant>,
    of: BTreeMap<ServerId, Heard>,
}

/// What a leader knows of a member.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Heard {
    /// For how long it has been silent.
    pub(super) silent: Duration,
    /// Whether it was ever heard of in this term.
    pub(super) ever: bool,
}

impl Silence {
    /// Looks at the members as `status`, that of a leader, shows them now. False while it has heard of no majority for a
    /// while: then nothing can be said.
    pub(super) fn look(&mut self, status: &RaftStatus, now: Instant) -> bool {
        if status.known_leader().is_none() {
            return false;
        }
        if self.term != status.term {
            *self = Silence {
                term: status.term,
                ..Silence::default()
            };
        }
        let passed = self.looked.map(|looked| now.saturating_since(looked));
        let step = passed.unwrap_or_default().min(STEP_MAX);
        let members = status.voters.keys().chain(status.learners.keys());
        let heard = |id: &ServerId| {
            let before = self.of.get(id).copied().unwrap_or_default();
            let contact = status.contacts_ms.get(id).copied().map(Duration::from_millis);
            match (contact, passed) {
                // Since the last look.
                (Some(contact), Some(passed)) if contact <= passed => Heard {
                    silent: contact.min(step),
                    ever: true,
                },
                (Some(_), None) => Heard {
                    silent: Duration::ZERO,
                    ever: true,
                },
                (contact, _) => Heard {
                    silent: before.silent + step,
                    ever: before.ever || contact.is_some(),
                },
            }
        };
        let others = members.filter(|id| **id != status.id);
        self.of = others.map(|id| (id.clone(), heard(id))).collect();
        self.looked = Some(now);
        true
    }

    /// What is known of a member; of a stranger, and of the leader itself, that it has just been heard.
    pub(super) fn of(&self, id: &ServerId) -> Heard {
        let itself = Heard {
            silent: Duration::ZERO,
            ever: true,
        };
        self.of.get(id).copied().unwrap_or(itself)
    }

    /// Nothing is known any more: somebody else leads.
    pub(super) fn forget(&mut self) {
        *self = Silence::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::{DiskId, Role, ServerAddress};

    fn id(name: &str) -> ServerId {
        ServerId(name.into())
    }

    fn status(term: u64, contacts: &[(&str, u64)]) -> RaftStatus {
        let address = ServerAddress::default();
        RaftStatus {
            id: id("a"),
            disk: DiskId::default(),
            role: Role::Leader,
            term,
            leader: Some((id("a"), address.clone())),
            last_log_index: 0,
            commit_index: 0,
            applied_index: 0,
            snapshot_index: 0,
            purged_index: 0,
            voters: ["a", "b", "c"].map(|name| (id(name), address.clone())).into(),
            learners: BTreeMap::new(),
            disks: BTreeMap::new(),
            matched: BTreeMap::new(),
            contacts_ms: contacts.iter().map(|(name, ms)| (id(name), *ms)).collect(),
            last_contact_ms: Some(10),
            elections: 1,
            fatal: None,
        }
    }

    fn at(ms: u64) -> Instant {
        Instant::default() + Duration::from_millis(ms)
    }

    #[test]
    fn silence_adds_up_and_ends_when_somebody_is_heard() {
        let mut silence = Silence::default();
        assert!(silence.look(&status(1, &[("b", 50)]), at(0)));
        assert!(silence.of(&id("b")).ever);
        assert!(!silence.of(&id("c")).ever, "c was never heard of");
        for second in 1..=5 {
            let look = status(1, &[("b", second * 1_000 + 50)]);
            assert!(silence.look(&look, at(second * 1_000)));
        }
        assert_eq!(silence.of(&id("b")).silent, Duration::from_secs(5));
        assert_eq!(silence.of(&id("c")).silent, Duration::from_secs(5));
        assert!(silence.look(&status(1, &[("b", 30)]), at(6_000)));
        assert_eq!(silence.of(&id("b")).silent, Duration::from_millis(30));
        assert_eq!(silence.of(&id("a")).silent, Duration::ZERO, "the leader itself");
    }

    #[test]
    fn the_leaders_own_pause_does_not_count() {
        let mut silence = Silence::default();
        silence.look(&status(1, &[("b", 50)]), at(0));
        silence.look(&status(1, &[("b", 60_050)]), at(60_000));
        assert_eq!(silence.of(&id("b")).silent, STEP_MAX);
    }

    #[test]
    fn a_leader_that_hears_no_majority_says_nothing() {
        let mut silence = Silence::default();
        silence.look(&status(1, &[("b", 50)]), at(0));
        let mut lonely = status(1, &[("b", 9_050)]);
        lonely.last_contact_ms = Some(9_050);
        assert!(!silence.look(&lonely, at(9_000)));
        assert_eq!(silence.of(&id("b")).silent, Duration::ZERO);
    }

    #[test]
    fn a_new_term_gives_everyone_the_full_time() {
        let mut silence = Silence::default();
        silence.look(&status(1, &[]), at(0));
        silence.look(&status(1, &[]), at(2_000));
        assert_eq!(silence.of(&id("b")).silent, Duration::from_secs(2));
        silence.look(&status(2, &[]), at(3_000));
        assert_eq!(silence.of(&id("b")), Heard::default());
    }
}
