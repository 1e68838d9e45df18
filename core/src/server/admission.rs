//! Which writes a leader lets in when it can't keep up.
//!
//! Writes wait for those before them. If ever more are let in than can be carried out, each waits longer, until its client has
//! given up and the work was for nothing. So while one of them has been under way for [`limits::WRITE_WAIT_MAX`], no more are
//! let in than are few ([`super::ServerConfig::writes_while_slow`]), and the rest is refused at once. Renewals of TTLs are not
//! among them: writes never hold them back.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::{peer::Failure, wiring::Inner};
use crate::{limits, runtime::Instant};

/// The writes under way into the log.
#[derive(Debug, Default)]
pub(super) struct Admission(Mutex<UnderWay>);

#[derive(Debug, Default)]
struct UnderWay {
    tickets: u64,
    /// When each was let in. Later ones have higher tickets, so the first is the oldest.
    since: BTreeMap<u64, Instant>,
}

/// A write that was let in, as long as this lives.
#[derive(Debug)]
pub(super) struct Admitted<'a> {
    admission: &'a Admission,
    ticket: u64,
}

impl Admission {
    /// Lets a write in, or not: see the module.
    fn admit(&self, now: Instant, while_slow: usize) -> Option<Admitted<'_>> {
        let mut under_way = self.lock();
        let slow = under_way
            .since
            .first_key_value()
            .is_some_and(|(_, since)| now.saturating_since(*since) >= limits::WRITE_WAIT_MAX);
        if slow && under_way.since.len() >= while_slow {
            return None;
        }
        under_way.tickets += 1;
        let ticket = under_way.tickets;
        under_way.since.insert(ticket, now);
        Some(Admitted {
            admission: self,
            ticket,
        })
    }

    /// How many are under way.
    pub(super) fn len(&self) -> usize {
        self.lock().since.len()
    }

    fn lock(&self) -> MutexGuard<'_, UnderWay> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Admitted<'_> {
    fn drop(&mut self) {
        self.admission.lock().since.remove(&self.ticket);
    }
}

impl Inner {
    /// Lets a write in, at the leader.
    pub(super) fn admit(&self) -> Result<Admitted<'_>, Failure> {
        let while_slow = self.shared.config.writes_while_slow;
        self.admission
            .admit(self.platform().now(), while_slow)
            .ok_or(Failure::OverLimit(while_slow as u64))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn while_one_waits_for_long_few_are_let_in() {
        let admission = Admission::default();
        let begin = Instant(0);
        let late = begin + limits::WRITE_WAIT_MAX;
        let first: Vec<_> = (0..3).map(|_| admission.admit(begin, 2).unwrap()).collect();
        assert!(admission.admit(late, 2).is_none());
        let soon = admission.admit(late - Duration::from_nanos(1), 2);
        assert!(soon.is_some(), "nobody waits for long yet");
        drop(soon);
        let mut first = first.into_iter();
        drop(first.next());
        assert!(admission.admit(late, 2).is_none(), "two are few, three are not");
        drop(first.next());
        let fourth = admission.admit(late, 2).unwrap();
        assert!(admission.admit(late, 2).is_none());
        drop(first.next());
        let rest: Vec<_> = (0..5).map(|_| admission.admit(late, 2)).collect();
        assert!(rest.iter().all(Option::is_some), "what waited for long is done");
        drop((fourth, rest));
        assert_eq!(admission.len(), 0);
    }
}
