//! How new each topic is.
//!
//! A topic's index stays when what it names is gone, so that an answer's index never goes back. What is gone and
//! forgotten by everyone must not fill memory though: of each kind of topic, at most
//! [`TOMBSTONES_MAX`] such indexes are kept. Beyond that the
//! [`TOMBSTONES_FOLD`] oldest are dropped, and the kind's floor rises to the newest of
//! them: the floor is the index of every topic of that kind that has none of its own. So a topic that nothing is known
//! of may look newer than it is, once in that many deletions; it never looks older, and nobody is woken by it.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use super::{
    Key, Topic, TopicVersion,
    kv::Directories,
    rows::{Row, RowLog, floor_key, topic_key, value},
    tables::Tables,
};
use crate::limits::{TOMBSTONES_FOLD, TOMBSTONES_MAX};

/// What a topic is about, without its name. The order is that of [`Topic`]'s variants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[repr(u8)]
pub(super) enum TopicKind {
    Service,
    ServicePassing,
    ServiceInstances,
    ServiceChecks,
    Services,
    Nodes,
    NodeServices,
    NodeChecks,
    Checks,
    ChecksInState,
    Namespace,
    Key,
    Session,
    SessionsOfNode,
    Sessions,
    KeyPrefix,
}

impl TopicKind {
    /// All that keep a floor: prefixes of keys go by their keys'.
    const ALL: [TopicKind; 15] = [
        TopicKind::Service,
        TopicKind::ServicePassing,
        TopicKind::ServiceInstances,
        TopicKind::ServiceChecks,
        TopicKind::Services,
        TopicKind::Nodes,
        TopicKind::NodeServices,
        TopicKind::NodeChecks,
        TopicKind::Checks,
        TopicKind::ChecksInState,
        TopicKind::Namespace,
        TopicKind::Key,
        TopicKind::Session,
        TopicKind::SessionsOfNode,
        TopicKind::Sessions,
    ];
}

impl Topic {
    pub(super) fn kind(&self) -> TopicKind {
        match self {
            Topic::Service(..) => TopicKind::Service,
            Topic::ServicePassing(..) => TopicKind::ServicePassing,
            Topic::ServiceInstances(..) => TopicKind::ServiceInstances,
            Topic::ServiceChecks(..) => TopicKind::ServiceChecks,
            Topic::Services(_) => TopicKind::Services,
            Topic::Nodes => TopicKind::Nodes,
            Topic::NodeServices(..) => TopicKind::NodeServices,
            Topic::NodeChecks(..) => TopicKind::NodeChecks,
            Topic::Checks(_) => TopicKind::Checks,
            Topic::ChecksInState(..) => TopicKind::ChecksInState,
            Topic::Namespace(_) => TopicKind::Namespace,
            Topic::Key(_) => TopicKind::Key,
            Topic::Session(_) => TopicKind::Session,
            Topic::SessionsOfNode(_) => TopicKind::SessionsOfNode,
            Topic::Sessions => TopicKind::Sessions,
            Topic::KeyPrefix(_) => TopicKind::KeyPrefix,
        }
    }

    /// The same about a service by the name that it is looked up under; `None` if it is that already, or about no service.
    pub(crate) fn folded(&self) -> Option<Topic> {
        Some(match self {
            Topic::Service(namespace, name) => Topic::Service(namespace.clone(), name.folded()?),
            Topic::ServicePassing(namespace, name) => {
                Topic::ServicePassing(namespace.clone(), name.folded()?)
            }
            Topic::ServiceInstances(namespace, name) => {
                Topic::ServiceInstances(namespace.clone(), name.folded()?)
            }
            Topic::ServiceChecks(namespace, name) => Topic::ServiceChecks(namespace.clone(), name.folded()?),
            _ => return None,
        })
    }

    /// Whether what it names is there.
    fn is_alive(&self, tables: &Tables) -> bool {
        match self {
            Topic::Service(namespace, service)
            | Topic::ServicePassing(namespace, service)
            | Topic::ServiceInstances(namespace, service)
            | Topic::ServiceChecks(namespace, service) => tables.service(namespace, service).is_some(),
            Topic::Services(namespace)
            | Topic::Checks(namespace)
            | Topic::ChecksInState(namespace, _)
            | Topic::Namespace(namespace) => tables.has_namespace(namespace),
            Topic::NodeServices(namespace, node) | Topic::NodeChecks(namespace, node) => {
                tables.sees_node(namespace, node)
            }
            Topic::Key(key) => tables.keys().get(key).is_some(),
            Topic::Session(id) => tables.sessions().get(id).is_some(),
            Topic::SessionsOfNode(node) => tables.sessions().of_node(node).next().is_some(),
            Topic::Nodes | Topic::Sessions | Topic::KeyPrefix(_) => true,
        }
    }
}

/// See the module's page.
#[derive(Clone, Debug, Default)]
pub(super) struct Topics {
    indexes: BTreeMap<Arc<Topic>, u64>,
    /// The topics of services whose names have capitals, by what they are looked up under. Not stored: it follows from the
    /// indexes.
    capitals: BTreeMap<Topic, BTreeSet<Arc<Topic>>>,
    /// By kind: the topics whose thing is gone, oldest first.
    tombstones: BTreeMap<TopicKind, BTreeSet<(u64, Arc<Topic>)>>,
    floors: BTreeMap<TopicKind, u64>,
    /// Writes without an index since the topic's index rose; no zeros. Not stored: it matters to this server alone.
    /// Only what can be seen is touched, and what can be seen can't go without a rise: so this is bounded, too.
    touched: BTreeMap<Topic, u64>,
    /// How new each prefix of keys is. Not stored: it follows from the indexes of the keys.
    directories: Directories,
}

impl Topics {
    /// How new a topic is.
    pub(super) fn version(&self, topic: &Topic) -> TopicVersion {
        let floor = |kind| self.floors.get(&kind).copied().unwrap_or(0);
        let index = match topic {
            // What was forgotten beneath it may have been the newest.
            Topic::KeyPrefix(prefix) => self.newest_key(prefix).max(floor(TopicKind::Key)),
            _ => {
                let folded = topic.folded();
                let plain = folded.as_ref().unwrap_or(topic);
                let others = self.capitals.get(plain);
                let own = self.indexes.get(plain).copied();
                let own = own.unwrap_or_else(|| floor(topic.kind()));
                return self.version_of_spellings(plain, own, others);
            }
        };
        TopicVersion {
            index: index.max(1),
            touched: self.touched.get(topic).copied().unwrap_or(0),
        }
    }

    /// How new a topic is that is as new as the newest of its spellings.
    fn version_of_spellings(
        &self,
        plain: &Topic,
        own: u64,
        others: Option<&BTreeSet<Arc<Topic>>>,
    ) -> TopicVersion {
        let touched = |topic: &Topic| self.touched.get(topic).copied().unwrap_or(0);
        let mut version = TopicVersion {
            index: own.max(1),
            touched: touched(plain),
        };
        for other in others.into_iter().flatten() {
            let index = self.indexes.get(other).copied().unwrap_or(0);
            version.index = version.index.max(index);
            version.touched += touched(other);
        }
        version
    }

    /// The newest index of the keys with a prefix that have one.
    fn newest_key(&self, prefix: &Key) -> u64 {
        self.directories.newest(prefix, |from| {
            let from = Topic::Key(Key::beginning(from));
            match self.indexes.range::<Topic, _>(&from..).next() {
                Some((topic, index)) => match topic.as_ref() {
                    Topic::Key(key) => Some((key, *index)),
                    _ => None,
                },
                None => None,
            }
        })
    }

    /// Sets a topic's index to the one that was just taken.
    pub(super) fn raise(&mut self, topic: &Topic, index: u64, rows: &mut RowLog) {
        self.touched.remove(topic);
        let topic = Arc::new(topic.clone());
        let before = self.indexes.insert(Arc::clone(&topic), index);
        if let Some(before) = before {
            self.unbury(&topic, before);
        }
        if let Topic::Key(key) = topic.as_ref() {
            self.directories.raise(key, index, before.is_none());
        }
        if before.is_none() {
            self.list(&topic);
        }
        set_row(rows, &topic, before, Some(index));
    }

    /// Takes note of a write without an index.
    pub(super) fn touch(&mut self, topic: &Topic) {
        *self.touched.entry(topic.clone()).or_default() += 1;
    }

    /// Takes note of whether what a topic names is there now.
    pub(super) fn settle(&mut self, topic: &Topic, tables: &Tables) {
        let Some((topic, index)) = self.indexes.get_key_value(topic) else {
            return;
        };
        let (topic, index) = (Arc::clone(topic), *index);
        if topic.is_alive(tables) {
            self.unbury(&topic, index);
        } else {
            let tombstones = self.tombstones.entry(topic.kind()).or_default();
            tombstones.insert((index, topic));
        }
    }

    /// Drops the oldest tombstones of each kind that has too many.
    pub(super) fn fold(&mut self, rows: &mut RowLog) {
        for (kind, tombstones) in &mut self.tombstones {
            while tombstones.len() > TOMBSTONES_MAX {
                let before = self.floors.get(kind).copied();
                let mut floor = before.unwrap_or(0);
                for _ in 0..TOMBSTONES_FOLD {
                    let Some((index, topic)) = tombstones.pop_first() else {
                        break;
                    };
                    floor = floor.max(index);
                    self.indexes.remove(&topic);
                    if let Topic::Key(key) = topic.as_ref() {
                        self.directories.forget(key);
                    }
                    if let Some(folded) = topic.folded()
                        && let Entry::Occupied(mut topics) = self.capitals.entry(folded)
                    {
                        topics.get_mut().remove(&topic);
                        if topics.get().is_empty() {
                            topics.remove();
                        }
                    }
                    set_row(rows, &topic, Some(index), None);
                }
                self.floors.insert(*kind, floor);
                let row = |floor: u64| value(&(kind, floor));
                rows.set(floor_key(*kind), before.map(row), Some(row(floor)));
            }
        }
    }

    /// Takes in a stored index.
    pub(super) fn restore(&mut self, topic: Topic, index: u64) {
        if let Topic::Key(key) = &topic {
            self.directories.raise(key, index, true);
        }
        let topic = Arc::new(topic);
        self.list(&topic);
        self.indexes.insert(topic, index);
    }

    /// Makes a topic found by what its service is looked up under.
    fn list(&mut self, topic: &Arc<Topic>) {
        if let Some(folded) = topic.folded() {
            self.capitals.entry(folded).or_default().insert(Arc::clone(topic));
        }
    }

    /// Takes in a stored floor.
    pub(super) fn restore_floor(&mut self, kind: TopicKind, index: u64) {
        self.floors.insert(kind, index);
    }

    /// After the last stored index: finds out which topics' things are gone.
    pub(super) fn settle_all(&mut self, tables: &Tables) {
        for (topic, index) in &self.indexes {
            if !topic.is_alive(tables) {
                let tombstones = self.tombstones.entry(topic.kind()).or_default();
                tombstones.insert((*index, Arc::clone(topic)));
            }
        }
    }

    /// Forgets what is known of each topic: all of them, known and unknown, have this index from here on.
    pub(super) fn restart(&mut self, index: u64, rows: &mut RowLog) {
        for (topic, before) in std::mem::take(&mut self.indexes) {
            set_row(rows, &topic, Some(before), None);
        }
        self.tombstones.clear();
        self.touched.clear();
        self.capitals.clear();
        self.directories = Directories::default();
        for kind in TopicKind::ALL {
            let before = self.floors.insert(kind, index);
            let row = |floor: u64| value(&(kind, floor));
            rows.set(floor_key(kind), before.map(row), Some(row(index)));
        }
    }

    /// The highest index of any topic.
    pub(super) fn newest(&self) -> u64 {
        let indexes = self.indexes.values().chain(self.floors.values());
        indexes.copied().max().unwrap_or(0)
    }

    /// The stored floors, by kind.
    pub(super) fn floor_rows(&self) -> impl Iterator<Item = Row> + '_ {
        self.floors.iter().map(|(kind, index)| Row::Floor(*kind, *index))
    }

    /// The stored indexes, by topic.
    pub(super) fn index_rows(&self) -> impl Iterator<Item = Row> + '_ {
        self.indexes
            .iter()
            .map(|(topic, index)| Row::Topic(Topic::clone(topic), *index))
    }

    fn unbury(&mut self, topic: &Arc<Topic>, index: u64) {
        if let Some(tombstones) = self.tombstones.get_mut(&topic.kind()) {
            tombstones.remove(&(index, Arc::clone(topic)));
        }
    }
}

fn set_row(rows: &mut RowLog, topic: &Topic, before: Option<u64>, after: Option<u64>) {
    let row = |index: u64| value(&(topic, index));
    rows.set(topic_key(topic), before.map(row), after.map(row));
}
