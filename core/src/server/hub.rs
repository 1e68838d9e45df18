//! Where blocking queries are parked, by the topic of what they ask.
//!
//! A waiter registers *before* it looks at the topic's index: a change between the look and the wait then finds it
//! registered, and no wake is lost. A change stirs its topic, and what stirs it within [`limits::COALESCE_WINDOW`] makes one
//! wake. A wake says "look again", no more: it may turn out to change nothing for this waiter. Waiters of a topic are
//! woken in the order of their arrival.
//!
//! [`limits::COALESCE_WINDOW`]: crate::limits::COALESCE_WINDOW
//!
//! A waiter costs one map entry here and a copy of its topic, a few hundred bytes. Dropping [`Parked`] frees them.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    ops::Bound,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll, Waker},
};

use crate::registry::{Key, Topic};

/// The waiters of one server.
#[derive(Debug)]
pub(super) struct Hub {
    limit: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    next_waiter: u64,
    waiters: usize,
    topics: BTreeMap<Topic, BTreeMap<u64, Waiter>>,
    /// Topics that changed and whose waiters are about to be woken.
    stirred: BTreeSet<Topic>,
}

#[derive(Debug, Default)]
struct Waiter {
    /// How many read rounds had begun when it was woken.
    woken: Option<u64>,
    waker: Option<Waker>,
}

impl Hub {
    /// A hub for at most `limit` waiters.
    pub(super) fn new(limit: usize) -> Self {
        Hub {
            limit,
            state: Mutex::default(),
        }
    }

    /// Registers a waiter; `None` when there are too many.
    pub(super) fn park(self: &Arc<Self>, topic: Topic) -> Option<Parked> {
        // Whatever the case of a service's letters is, it is one that is waited for.
        let topic = topic.folded().unwrap_or(topic);
        let mut state = self.lock();
        if state.waiters >= self.limit {
            return None;
        }
        state.waiters += 1;
        state.next_waiter += 1;
        let id = state.next_waiter;
        state
            .topics
            .entry(topic.clone())
            .or_default()
            .insert(id, Waiter::default());
        drop(state);
        Some(Parked {
            hub: self.clone(),
            topic,
            id,
        })
    }

    /// Notes that these topics changed: gives those that are waited for and to be [woken](Self::wake), but for those that
    /// are about to be already.
    pub(super) fn stir(&self, topics: &[Topic]) -> Vec<Topic> {
        let mut stirred = Vec::new();
        let mut state = self.lock();
        if state.topics.is_empty() {
            return stirred;
        }
        for topic in topics {
            state.stir(topic.folded().as_ref().unwrap_or(topic), &mut stirred);
            if let Topic::Key(key) = topic {
                state.stir_prefixes_of(key, &mut stirred);
            }
        }
        stirred
    }

    /// Wakes who waits for one of these, as [`Self::stir`] gave them. `begun`: how many read rounds have begun.
    pub(super) fn wake(&self, stirred: &[Topic], begun: u64) {
        let mut wakers = Vec::new();
        let mut state = self.lock();
        for topic in stirred {
            state.stirred.remove(topic);
            let waiters = state.topics.get_mut(topic).into_iter().flatten();
            waiters.for_each(|(_, waiter)| waiter.wake(begun, &mut wakers));
        }
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Wakes everyone: the whole state was replaced, or the server stops.
    pub(super) fn wake_all(&self, begun: u64) {
        let mut wakers = Vec::new();
        for waiters in self.lock().topics.values_mut() {
            waiters
                .values_mut()
                .for_each(|waiter| waiter.wake(begun, &mut wakers));
        }
        wakers.into_iter().for_each(Waker::wake);
    }

    /// How many are parked.
    pub(super) fn len(&self) -> usize {
        self.lock().waiters
    }

    /// For how many topics.
    pub(super) fn topics(&self) -> usize {
        self.lock().topics.len()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock panics")
    }
}

impl State {
    fn stir(&mut self, topic: &Topic, stirred: &mut Vec<Topic>) {
        if self.topics.contains_key(topic) && self.stirred.insert(topic.clone()) {
            stirred.push(topic.clone());
        }
    }

    /// Stirs all prefixes of a key. Costs what is waited for, not the key's length.
    fn stir_prefixes_of(&mut self, key: &Key, stirred: &mut Vec<Topic>) {
        let mut below = Bound::Included(Topic::KeyPrefix(key.clone()));
        loop {
            let candidate = self.topics.range((Bound::Unbounded, below.as_ref())).next_back();
            let Some((topic @ Topic::KeyPrefix(prefix), _)) = candidate else {
                return;
            };
            if key.starts_with(prefix) {
                let topic = topic.clone();
                self.stir(&topic, stirred);
                below = Bound::Excluded(topic);
            } else {
                // No prefix of the key lies between what it has in common with this one and this one.
                let common = key.cut(key.common_with(prefix));
                below = Bound::Included(Topic::KeyPrefix(common));
            }
        }
    }
}

impl Waiter {
    fn wake(&mut self, begun: u64, wakers: &mut Vec<Waker>) {
        self.woken = Some(begun);
        wakers.extend(self.waker.take());
    }
}

/// A registered waiter.
#[derive(Debug)]
pub(super) struct Parked {
    hub: Arc<Hub>,
    topic: Topic,
    id: u64,
}

impl Parked {
    /// Ends when the topic was woken since the last call of this function ended, or since the waiter registered. What
    /// is read after it ended holds the change that woke; a later change wakes anew. Gives how many read rounds had begun
    /// at the wake.
    pub(super) fn woken(&self) -> Woken<'_> {
        Woken(self)
    }
}

impl Drop for Parked {
    fn drop(&mut self) {
        let mut state = self.hub.lock();
        let Some(waiters) = state.topics.get_mut(&self.topic) else {
            return;
        };
        let removed = waiters.remove(&self.id).is_some();
        if waiters.is_empty() {
            state.topics.remove(&self.topic);
        }
        if removed {
            state.waiters -= 1;
        }
    }
}

/// See [`Parked::woken`].
#[derive(Debug)]
pub(super) struct Woken<'a>(&'a Parked);

impl Future for Woken<'_> {
    type Output = u64;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<u64> {
        let parked = self.0;
        let mut state = parked.hub.lock();
        let waiter = state
            .topics
            .get_mut(&parked.topic)
            .and_then(|waiters| waiters.get_mut(&parked.id))
            .expect("registered until dropped");
        if let Some(begun) = waiter.woken.take() {
            return Poll::Ready(begun);
        }
        match &mut waiter.waker {
            Some(waker) => waker.clone_from(context.waker()),
            None => waiter.waker = Some(context.waker().clone()),
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures_util::{FutureExt as _, task::noop_waker_ref};

    use super::*;
    use crate::registry::{Namespace, ServiceName};

    fn topic(service: &str) -> Topic {
        Topic::Service(
            Namespace::default(),
            ServiceName::parse(service).expect("a valid name"),
        )
    }

    fn is_woken(parked: &Parked) -> bool {
        let mut context = Context::from_waker(noop_waker_ref());
        parked.woken().poll_unpin(&mut context).is_ready()
    }

    fn change(hub: &Hub, topic: Topic) {
        hub.wake(&hub.stir(&[topic]), 0);
    }

    #[test]
    fn a_wake_between_registering_and_waiting_is_not_lost() {
        let hub = Arc::new(Hub::new(10));
        let parked = hub.park(topic("web")).expect("below the limit");
        change(&hub, topic("web"));
        assert!(is_woken(&parked));
        assert!(!is_woken(&parked), "one wake ends one wait");
        change(&hub, topic("db"));
        assert!(!is_woken(&parked));
        hub.wake_all(0);
        assert!(is_woken(&parked));
    }

    #[test]
    fn changes_of_a_topic_are_folded_until_its_waiters_are_woken() {
        let hub = Arc::new(Hub::new(10));
        let first = hub.park(topic("web")).expect("below the limit");
        let stirred = hub.stir(&[topic("web"), topic("db")]);
        assert_eq!(stirred, [topic("web")], "nobody waits for the other");
        let late = hub.park(topic("web")).expect("below the limit");
        assert!(hub.stir(&[topic("web")]).is_empty(), "about to be woken already");
        assert!(!is_woken(&first));
        hub.wake(&stirred, 7);
        let mut context = Context::from_waker(noop_waker_ref());
        assert_eq!(first.woken().poll_unpin(&mut context), Poll::Ready(7));
        assert!(is_woken(&late));
        assert_eq!(hub.stir(&[topic("web")]), stirred, "a later change wakes anew");
    }

    #[test]
    fn a_key_wakes_who_waits_for_any_prefix_of_it_and_nobody_else() {
        let hub = Arc::new(Hub::new(1_000));
        let names = [
            "", "a", "a/", "a/b", "a/b/", "a/b/c", "a/bb", "a/c", "a0", "ab", "b", "a/b/c/d", "A",
        ];
        let key = |name: &str| Key::parse(name.to_owned()).expect("short enough");
        let parked: Vec<_> = names
            .iter()
            .map(|name| {
                (
                    name,
                    hub.park(Topic::KeyPrefix(key(name))).expect("below the limit"),
                )
            })
            .collect();
        for written in names {
            change(&hub, Topic::Key(key(written)));
            for (prefix, parked) in &parked {
                assert_eq!(
                    is_woken(parked),
                    written.starts_with(**prefix),
                    "{written:?} was written, {prefix:?} is waited for"
                );
            }
        }
    }

    #[test]
    fn one_too_many_is_refused_until_another_is_gone() {
        let hub = Arc::new(Hub::new(2));
        let first = hub.park(topic("web")).expect("below the limit");
        let _second = hub.park(topic("web")).expect("at the limit");
        assert!(hub.park(topic("db")).is_none());
        drop(first);
        assert_eq!(hub.len(), 1);
        assert!(hub.park(topic("db")).is_some());
    }

    #[test]
    fn nothing_is_left_of_those_who_went() {
        let hub = Arc::new(Hub::new(100));
        let parked: Vec<_> = (0..100)
            .filter_map(|number| hub.park(topic(if number % 2 == 0 { "web" } else { "db" })))
            .collect();
        assert_eq!(hub.lock().topics.len(), 2);
        drop(parked);
        assert_eq!(hub.len(), 0);
        assert!(hub.lock().topics.is_empty());
    }
}
