//! User events: told to every server once, kept in memory, and gone with the process. Nothing hangs on their delivery.
//!
//! As in Consul they are outside of the log: each server keeps the newest ones that it heard of, in the order in which it
//! did. Who fires one is not told whether the others heard of it.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard},
};

use futures_util::future::FutureExt as _;
use serde::{Deserialize, Serialize};

use super::{
    peer::{self, PeerRequest},
    signal::Signal,
    wiring::Inner,
};
use crate::{limits, registry::Namespace, runtime::Instant};

/// Something that happened, in a client's words.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserEvent {
    /// A UUID; set when it is fired.
    pub id: String,
    /// What kind of event it is.
    pub name: String,
    /// What the client says about it.
    pub payload: Vec<u8>,
    /// A regular expression over the names of nodes that it is for; empty for all.
    pub node_filter: String,
    /// A regular expression over the names of services that it is for; empty for all.
    pub service_filter: String,
    /// A regular expression over the tags of those services; empty for all.
    pub tag_filter: String,
    /// A Lamport clock: above that of every event that its server had heard of. Set when it is fired.
    pub ltime: u64,
}

impl UserEvent {
    /// The index that a blocking query for events goes by: the two halves of the id, as Consul mixes them.
    pub fn index(&self) -> u64 {
        let digits: String = self.id.chars().filter(char::is_ascii_hexdigit).collect();
        let half = |from: usize| {
            let digits = digits.get(from..from + 16);
            digits.map_or(0, |digits| u64::from_str_radix(digits, 16).unwrap_or(0))
        };
        half(0) ^ half(16)
    }

    /// Whether it is for a node: for its name, and for a service on it. `any` says whether what it is given holds for the name and the
    /// tags of a service there.
    pub(crate) fn concerns(
        &self,
        node: &str,
        any: impl FnOnce(&dyn Fn(&str, &[String]) -> bool) -> bool,
    ) -> bool {
        // A pattern that another server took and this one does not: better heard in vain than not at all.
        let compiled = |pattern: &String| regex::Regex::new(pattern).ok().filter(|_| !pattern.is_empty());
        let [of_node, of_service, of_tag] =
            [&self.node_filter, &self.service_filter, &self.tag_filter].map(compiled);
        let lets_pass = |regex: &Option<regex::Regex>, text: &str| {
            regex.as_ref().is_none_or(|regex| regex.is_match(text))
        };
        lets_pass(&of_node, node)
            && (of_service.is_none()
                || any(&|service, tags| {
                    lets_pass(&of_service, service)
                        && (of_tag.is_none() || tags.iter().any(|tag| lets_pass(&of_tag, tag)))
                }))
    }
}

/// The events that a server heard of.
#[derive(Debug, Default)]
pub(super) struct Events {
    heard: Mutex<Heard>,
    news: Signal,
}

#[derive(Debug, Default)]
struct Heard {
    /// Oldest first, at most [`limits::EVENTS_MAX`], each with whether it was for the servers' shared node.
    events: VecDeque<(UserEvent, bool)>,
    ltime: u64,
}

impl Events {
    fn lock(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().expect("no holder of this lock panics")
    }

    /// How many are kept.
    pub(super) fn len(&self) -> usize {
        self.lock().events.len()
    }

    /// Takes note of an event, once.
    fn hear(&self, event: UserEvent, is_own: bool) {
        {
            let mut heard = self.lock();
            heard.ltime = heard.ltime.max(event.ltime);
            if heard.events.iter().any(|(known, _)| known.id == event.id) {
                return;
            }
            if heard.events.len() == limits::EVENTS_MAX {
                heard.events.pop_front();
            }
            heard.events.push_back((event, is_own));
        }
        self.news.bump();
    }
}

impl Inner {
    /// Fires an event: this server hears it at once, the others soon, if they are there.
    pub(super) fn fire(self: &Arc<Self>, mut event: UserEvent) -> UserEvent {
        let events = &self.shared.events;
        event.id = super::uuid([self.platform().random_u64(), self.platform().random_u64()]);
        event.ltime = events.lock().ltime + 1;
        let status = self.consensus.status();
        let message = peer::encode(&PeerRequest::Event(event.clone()));
        for (id, address) in status.voters.iter().chain(&status.learners) {
            if *id == status.id {
                continue;
            }
            let (inner, raft, message) = (self.clone(), address.raft.clone(), message.clone());
            let telling = async move {
                // One that is not reached does not hear of it: events promise no more.
                let call = inner
                    .consensus
                    .call_peer(&raft, message, limits::PEER_CALL_TIMEOUT);
                drop(call.await);
            };
            self.platform().spawn(telling.boxed());
        }
        self.hear(event.clone());
        event
    }

    /// Takes note of an event.
    pub(super) fn hear(&self, event: UserEvent) {
        let is_own = self.concerns(&event);
        self.shared.events.hear(event, is_own);
    }

    /// Whether an event is for the servers' shared node, with what is registered there now.
    fn concerns(&self, event: &UserEvent) -> bool {
        let node = &self.shared.config.agent_node;
        event.concerns(node.as_str(), |matches| {
            let registry = self.registry();
            let namespace = Namespace::default();
            let mut instances = registry.instances_of_node(&namespace, node);
            instances.any(|instance| matches(instance.service.as_str(), &instance.tags))
        })
    }

    /// The events that this server heard of, oldest first: all, or those for the servers' shared node; of one name if it is
    /// given. With an index, waits until the newest has another one, or until the deadline.
    pub(super) async fn events(
        &self,
        all: bool,
        name: Option<&str>,
        index: Option<u64>,
        deadline: Instant,
    ) -> (u64, Vec<UserEvent>) {
        loop {
            let version = self.shared.events.news.version();
            let events: Vec<UserEvent> = {
                let heard = self.shared.events.lock();
                let wanted = |(event, is_own): &&(UserEvent, bool)| {
                    (all || *is_own) && name.is_none_or(|name| event.name == name)
                };
                let wanted = heard.events.iter().filter(wanted);
                wanted.map(|(event, _)| event.clone()).collect()
            };
            let newest = events.last().map_or(1, UserEvent::index);
            let waits = index.is_some_and(|index| index > 0 && index == newest);
            let news = self.shared.events.news.changed_since(version);
            if !waits || self.platform().until(deadline, news).await.is_none() {
                return (newest, events);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_an_index_as_consul_counts() {
        let event = UserEvent {
            id: "ed831748-9de9-c850-1c40-22ac528dd2c6".to_owned(),
            ..UserEvent::default()
        };
        assert_eq!(event.index(), 17_420_827_040_447_470_230_u64);
    }

    #[test]
    fn the_oldest_go_and_none_is_heard_twice() {
        let events = Events::default();
        let event = |n: usize| UserEvent {
            id: n.to_string(),
            ltime: n as u64,
            ..UserEvent::default()
        };
        for n in 0..=limits::EVENTS_MAX {
            events.hear(event(n), true);
            events.hear(event(n), true);
        }
        let heard = events.lock();
        assert_eq!(heard.events.len(), limits::EVENTS_MAX);
        assert_eq!(heard.events[0], (event(1), true));
        assert_eq!(heard.ltime, limits::EVENTS_MAX as u64);
    }
}
