//! The index of every topic at every point: when it rose with what the topic shows, with a restore, or because what is
//! gone was forgotten.
//!
//! Of each kind of topic, a registry keeps the indexes of so many whose thing is gone. When there are more, it forgets the
//! oldest, and all topics of that kind that it knows nothing of have the newest index that it ever forgot. Here that is
//! worked out as plainly as can be: after each entry it is looked anew what is gone.

use std::collections::{BTreeMap, BTreeSet};

use sider_core::{
    limits::FOLD_DIVISOR,
    registry::{Namespace, Topic},
};

use super::{Entry, Point, Step};
use crate::model::State;

/// See the module's page.
#[derive(Debug)]
pub(super) struct Indexes {
    /// Of each topic that ever showed anything.
    topics: BTreeMap<Topic, Vec<Step>>,
    /// Of the others, by their kind; what is not there goes by the restores alone.
    others: BTreeMap<Kind, Vec<Step>>,
    /// Restores from a snapshot: from each on, every topic has at least its index, also those that nothing is known of.
    restores: Vec<Step>,
}

impl Indexes {
    /// Works them out, of registries that keep the indexes of at most so many topics of a kind whose thing is gone.
    pub(super) fn of(entries: &[Entry], tombstones: usize) -> Indexes {
        let topics = entries.iter().flat_map(|entry| &entry.raised).cloned();
        let mut indexes = Indexes {
            topics: topics.map(|topic| (topic, Vec::new())).collect(),
            others: BTreeMap::new(),
            restores: Vec::new(),
        };
        let mut kept: BTreeMap<Topic, u64> = BTreeMap::new();
        let mut floor = 0;
        for (position, entry) in entries.iter().enumerate() {
            let point = position + 1;
            for topic in &entry.raised {
                let steps = indexes.topics.entry(topic.clone()).or_default();
                raise(steps, point, entry.state.index);
                kept.insert(topic.clone(), entry.state.index);
            }
            if entry.state.floor != floor {
                floor = entry.state.floor;
                kept.clear();
                indexes.restore(point, floor);
            }
            // Fewer than that can't be too many.
            if !entry.raised.is_empty() && kept.len() > tombstones {
                for topics in gone(&kept, &entry.state).into_values() {
                    indexes.forget(&mut kept, topics, tombstones, point);
                }
            }
        }
        indexes
    }

    /// The steps of a topic's index, oldest first.
    pub(super) fn steps(&self, topic: &Topic) -> &[Step] {
        let others = || self.others.get(&kind(topic)).unwrap_or(&self.restores);
        self.topics.get(topic).unwrap_or_else(others)
    }

    /// Restores that replaced the state.
    pub(super) fn restores(&self) -> &[Step] {
        &self.restores
    }

    /// How often the indexes of things that are gone were forgotten.
    pub(super) fn folds(&self) -> usize {
        let steps = self.others.values();
        steps.map(|steps| steps.len() - self.restores.len()).sum()
    }

    fn restore(&mut self, point: Point, floor: u64) {
        let all = self.topics.values_mut().chain(self.others.values_mut());
        for steps in all.chain([&mut self.restores]) {
            raise(steps, point, floor);
        }
    }

    /// Forgets the oldest of these topics, all of one kind, while there are too many.
    fn forget(
        &mut self,
        kept: &mut BTreeMap<Topic, u64>,
        mut gone: BTreeSet<(u64, Topic)>,
        tombstones: usize,
        point: Point,
    ) {
        let mut newest = None;
        while gone.len() > tombstones {
            for _ in 0..(tombstones / FOLD_DIVISOR).max(1) {
                newest = gone.pop_first().or(newest);
                if let Some((_, topic)) = &newest {
                    kept.remove(topic);
                }
            }
        }
        let Some((index, topic)) = newest else { return };
        let others = self.others.entry(kind(&topic));
        let others = others.or_insert_with(|| self.restores.clone());
        // Several go with one index; and what shows nothing may go long after its index last rose.
        let before = others.last().map_or(0, |step| step.index);
        let index = index.max(before);
        if index > before {
            raise(others, point, index);
        }
        for (other, steps) in &mut self.topics {
            let concerned = match (other, &topic) {
                // What was forgotten beneath it may have been the newest.
                (Topic::KeyPrefix(_), Topic::Key(_)) => true,
                (other, topic) => kind(other) == kind(topic) && !kept.contains_key(other),
            };
            if concerned && steps.last().is_none_or(|step| step.index < index) {
                raise(steps, point, index);
            }
        }
    }
}

fn raise(steps: &mut Vec<Step>, point: Point, index: u64) {
    steps.pop_if(|step| step.point == point);
    steps.push(Step { point, index });
}

/// What a topic is about, without its name.
type Kind = &'static str;

fn kind(topic: &Topic) -> Kind {
    match topic {
        Topic::Service(..) => "health",
        Topic::ServicePassing(..) => "passing",
        Topic::ServiceInstances(..) => "instances",
        Topic::ServiceChecks(..) => "checks of a service",
        Topic::Services(_) => "services",
        Topic::Nodes => "nodes",
        Topic::NodeServices(..) => "services of a node",
        Topic::NodeChecks(..) => "checks of a node",
        Topic::Checks(_) => "checks",
        Topic::ChecksInState(..) => "checks in a state",
        Topic::Namespace(_) => "namespace",
        // Prefixes of keys go by their keys'.
        Topic::Key(_) | Topic::KeyPrefix(_) => "key",
        Topic::Session(_) => "session",
        Topic::SessionsOfNode(_) => "sessions of a node",
        Topic::Sessions => "sessions",
    }
}

/// Those whose thing is gone, oldest first, by what they are about.
fn gone(kept: &BTreeMap<Topic, u64>, state: &State) -> BTreeMap<Kind, BTreeSet<(u64, Topic)>> {
    let mut gone: BTreeMap<_, BTreeSet<(u64, Topic)>> = BTreeMap::new();
    for (topic, index) in kept {
        if !is_there(topic, state) {
            gone.entry(kind(topic))
                .or_default()
                .insert((*index, topic.clone()));
        }
    }
    gone
}

fn is_there(topic: &Topic, state: &State) -> bool {
    let of_default = |namespace: &Namespace| *namespace == Namespace::default();
    match topic {
        Topic::Service(namespace, service)
        | Topic::ServicePassing(namespace, service)
        | Topic::ServiceInstances(namespace, service)
        | Topic::ServiceChecks(namespace, service) => state
            .instances
            .iter()
            .any(|it| it.namespace == *namespace && it.service == *service),
        Topic::Services(namespace)
        | Topic::Checks(namespace)
        | Topic::ChecksInState(namespace, _)
        | Topic::Namespace(namespace) => {
            of_default(namespace) || state.instances.iter().any(|it| it.namespace == *namespace)
        }
        Topic::NodeServices(namespace, node) | Topic::NodeChecks(namespace, node) => {
            let known = || state.nodes.iter().any(|it| it.name == *node);
            let on_it = || {
                let mut instances = state.instances.iter();
                instances.any(|it| it.namespace == *namespace && it.node == *node)
            };
            (of_default(namespace) && known()) || on_it()
        }
        Topic::Key(key) => state.keys.iter().any(|it| it.key == *key),
        Topic::Session(id) => state.sessions.iter().any(|it| it.id == *id),
        Topic::SessionsOfNode(node) => state.sessions.iter().any(|it| it.node == *node),
        Topic::Nodes | Topic::Sessions | Topic::KeyPrefix(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use sider_core::registry::{Command, Key, KeyWrite, Operation};

    use super::*;
    use crate::{time::Time, truth::reading::raise_topics};

    /// Keys are written, in turn, if they are not there, and deleted if they are; behind a dash all with a prefix are.
    fn indexes(names: &str, tombstones: usize) -> Indexes {
        let mut state = State::default();
        let mut entries: Vec<Entry> = Vec::new();
        for (log_index, name) in (1..).zip(names.split(' ')) {
            let write = KeyWrite {
                key: key(name),
                value: "v".into(),
                flags: 0,
            };
            let is_there = state.keys.iter().any(|held| held.key == key(name));
            let operation = match name.strip_prefix('-') {
                Some(prefix) => Operation::DeleteTree(key(prefix)),
                None if is_there => Operation::DeleteKey(key(name)),
                None => Operation::SetKey(write),
            };
            let command = Command::Transact(vec![operation]);
            let expected = state.apply(&command);
            entries.push(Entry {
                log_index,
                term: 1,
                hash: 0,
                command: None,
                expected: Some(expected),
                raised: Vec::new(),
                appended: Time(0),
                applied: Time(0),
                earliest: Time(0),
                state: state.clone().into(),
            });
        }
        raise_topics(&mut entries);
        Indexes::of(&entries, tombstones)
    }

    fn key(name: &str) -> Key {
        Key::parse(name.to_string()).unwrap()
    }

    fn steps(indexes: &Indexes, topic: &Topic) -> Vec<(Point, u64)> {
        let steps = indexes.steps(topic).iter();
        steps.map(|step| (step.point, step.index)).collect()
    }

    fn of_key(indexes: &Indexes, name: &str) -> Vec<(Point, u64)> {
        steps(indexes, &Topic::Key(key(name)))
    }

    #[test]
    fn few_that_are_gone_keep_their_indexes() {
        let indexes = indexes("a a b b", 2);
        assert_eq!(indexes.folds(), 0);
        assert_eq!(of_key(&indexes, "a"), [(1, 2), (2, 3)]);
        assert_eq!(of_key(&indexes, "b"), [(3, 4), (4, 5)]);
        assert_eq!(of_key(&indexes, "never"), []);
    }

    #[test]
    fn the_oldest_is_forgotten_and_raises_what_nobody_knows() {
        let indexes = indexes("a a b b c c", 2);
        assert_eq!(indexes.folds(), 1);
        // It was forgotten with the index that it had.
        assert_eq!(of_key(&indexes, "a"), [(1, 2), (2, 3)]);
        assert_eq!(of_key(&indexes, "c"), [(5, 6), (6, 7)]);
        assert_eq!(of_key(&indexes, "never"), [(6, 3)]);
        assert_eq!(steps(&indexes, &Topic::KeyPrefix(key("never"))), [(6, 3)]);
        assert_eq!(steps(&indexes, &Topic::Nodes), []);
    }

    #[test]
    fn what_was_forgotten_rises_with_what_is_forgotten_later() {
        let indexes = indexes("a a b b c c d d", 2);
        assert_eq!(of_key(&indexes, "a"), [(1, 2), (2, 3), (8, 5)]);
        assert_eq!(of_key(&indexes, "never"), [(6, 3), (8, 5)]);
        // Behind what is beneath it, and above what nobody knows.
        assert_eq!(
            steps(&indexes, &Topic::KeyPrefix(key("d"))),
            [(6, 3), (7, 8), (8, 9)]
        );
    }

    #[test]
    fn those_that_went_together_raise_once() {
        let indexes = indexes("ka kb kc -k d d", 1);
        assert_eq!(of_key(&indexes, "never"), [(4, 5)]);
        assert_eq!(of_key(&indexes, "kc"), [(3, 4), (4, 5)]);
    }

    #[test]
    fn what_comes_back_is_not_forgotten() {
        let indexes = indexes("a a b b a c c", 2);
        assert_eq!(indexes.folds(), 0);
        assert_eq!(of_key(&indexes, "a"), [(1, 2), (2, 3), (5, 6)]);
    }

    #[test]
    fn one_in_eight_is_forgotten_at_once() {
        let names: Vec<String> = (0..17).map(|nth| format!("k{nth:02} k{nth:02}")).collect();
        let indexes = indexes(&names.join(" "), 16);
        // The two oldest went; the newer of them went with index 5.
        assert_eq!(of_key(&indexes, "never"), [(34, 5)]);
        assert_eq!(of_key(&indexes, "k00"), [(1, 2), (2, 3), (34, 5)]);
        assert_eq!(of_key(&indexes, "k02"), [(5, 6), (6, 7)]);
    }
}
