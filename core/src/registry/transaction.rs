//! One command's changes, before they count: all of them or none.
//!
//! A transaction writes to the tables at once and remembers what was there before. So a refusal half-way is taken back
//! exactly, and what the command did as a whole is the difference between before and after, however often it wrote to
//! the same thing.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    Check, CheckKey, Instance, InstanceKey, Key, KeyValue, Node, NodeName, Session, SessionId, kv::LockDelay,
    tables::Tables,
};

/// See the module's page.
pub(super) struct Transaction<'a> {
    tables: &'a mut Tables,
    index: u64,
    /// The version of commands that the cluster writes.
    version: u8,
    nodes: BTreeMap<NodeName, Option<Arc<Node>>>,
    instances: BTreeMap<InstanceKey, Option<Arc<Instance>>>,
    checks: BTreeMap<CheckKey, Option<Arc<Check>>>,
    keys: BTreeMap<Key, Option<Arc<KeyValue>>>,
    sessions: BTreeMap<SessionId, Option<Arc<Session>>>,
    delays: BTreeMap<Key, Option<LockDelay>>,
    marks: CheckMarks,
}

/// What was done to checks that a comparison of before and after can't tell.
#[derive(Debug, Default)]
pub(super) struct CheckMarks {
    /// Registered for the first time or differently.
    pub(super) registered: BTreeSet<CheckKey>,
    /// Their status was written.
    pub(super) renewed: BTreeSet<CheckKey>,
    /// Turned critical for want of a renewal.
    pub(super) expired: BTreeSet<CheckKey>,
}

/// One thing before and after a command; the two differ.
#[derive(Debug)]
pub(super) struct Change<T> {
    pub(super) before: Option<Arc<T>>,
    pub(super) after: Option<Arc<T>>,
}

/// Everything that a command changed.
#[derive(Debug)]
pub(super) struct Changes {
    pub(super) nodes: BTreeMap<NodeName, Change<Node>>,
    pub(super) instances: BTreeMap<InstanceKey, Change<Instance>>,
    /// Also those of which only the output or the count of renewals changed.
    pub(super) checks: BTreeMap<CheckKey, Change<Check>>,
    pub(super) keys: BTreeMap<Key, Change<KeyValue>>,
    /// Also those of which only the count of renewals changed.
    pub(super) sessions: BTreeMap<SessionId, Change<Session>>,
    /// Before and after; the two differ.
    pub(super) delays: BTreeMap<Key, (Option<LockDelay>, Option<LockDelay>)>,
    pub(super) marks: CheckMarks,
}

impl<'a> Transaction<'a> {
    /// Begins; `index` is the one that the command takes if it changes something.
    pub(super) fn new(tables: &'a mut Tables, index: u64, version: u8) -> Self {
        Transaction {
            tables,
            index,
            version,
            nodes: BTreeMap::new(),
            instances: BTreeMap::new(),
            checks: BTreeMap::new(),
            keys: BTreeMap::new(),
            sessions: BTreeMap::new(),
            delays: BTreeMap::new(),
            marks: CheckMarks::default(),
        }
    }

    /// Whether the cluster writes this version of commands, or a newer one: what a command does may depend on that.
    pub(super) fn writes(&self, version: u8) -> bool {
        self.version >= version
    }

    /// The tables with the changes so far.
    pub(super) fn tables(&self) -> &Tables {
        self.tables
    }

    /// The index that the command takes if it changes something.
    pub(super) fn index(&self) -> u64 {
        self.index
    }

    pub(super) fn set_node(&mut self, name: &NodeName, node: Option<Node>) {
        let before = self.tables.set_node(name, node.map(Arc::new));
        self.nodes.entry(name.clone()).or_insert(before);
    }

    pub(super) fn set_instance(&mut self, key: &InstanceKey, instance: Option<Instance>) {
        let before = self.tables.set_instance(key, instance.map(Arc::new));
        self.instances.entry(key.clone()).or_insert(before);
    }

    pub(super) fn set_check(&mut self, key: &CheckKey, check: Option<Check>) {
        let before = self.tables.set_check(key, check.map(Arc::new));
        self.checks.entry(key.clone()).or_insert(before);
    }

    pub(super) fn set_key(&mut self, key: &Key, value: Option<KeyValue>) {
        let before = self.tables.set_key(key, value.map(Arc::new));
        self.keys.entry(key.clone()).or_insert(before);
    }

    pub(super) fn set_session(&mut self, id: &SessionId, session: Option<Session>) {
        let before = self.tables.set_session(id, session.map(Arc::new));
        self.sessions.entry(id.clone()).or_insert(before);
    }

    pub(super) fn set_delay(&mut self, key: &Key, delay: Option<LockDelay>) {
        let before = self.tables.set_delay(key, delay);
        self.delays.entry(key.clone()).or_insert(before);
    }

    /// The checks that were written so far.
    pub(super) fn touched_checks(&self) -> impl Iterator<Item = &CheckKey> {
        self.checks.keys()
    }

    /// The nodes that were written so far.
    pub(super) fn touched_nodes(&self) -> impl Iterator<Item = &NodeName> {
        self.nodes.keys()
    }

    pub(super) fn mark_registered(&mut self, key: &CheckKey) {
        self.marks.registered.insert(key.clone());
    }

    pub(super) fn mark_renewed(&mut self, key: &CheckKey) {
        self.marks.renewed.insert(key.clone());
    }

    pub(super) fn mark_expired(&mut self, key: &CheckKey) {
        self.marks.expired.insert(key.clone());
    }

    /// Takes everything back.
    pub(super) fn undo(self) {
        for (key, before) in self.delays {
            self.tables.set_delay(&key, before);
        }
        for (id, before) in self.sessions {
            self.tables.set_session(&id, before);
        }
        for (key, before) in self.keys {
            self.tables.set_key(&key, before);
        }
        for (key, before) in self.checks {
            self.tables.set_check(&key, before);
        }
        for (key, before) in self.instances {
            self.tables.set_instance(&key, before);
        }
        for (name, before) in self.nodes {
            self.tables.set_node(&name, before);
        }
    }

    /// Ends; gives the difference between before and after. What was changed and changed back did not change.
    pub(super) fn finish(self) -> Changes {
        let mut changes = Changes {
            nodes: BTreeMap::new(),
            instances: BTreeMap::new(),
            checks: BTreeMap::new(),
            keys: BTreeMap::new(),
            sessions: BTreeMap::new(),
            delays: BTreeMap::new(),
            marks: self.marks,
        };
        for (name, before) in self.nodes {
            let after = self.tables.node(&name).cloned();
            if let (Some(old), Some(new)) = (&before, &after)
                && new.with_indexes_of(old) == **old
            {
                self.tables.set_node(&name, before);
            } else if before != after {
                changes.nodes.insert(name, Change { before, after });
            }
        }
        for (key, before) in self.instances {
            let after = self.tables.instance(&key).cloned();
            if let (Some(old), Some(new)) = (&before, &after)
                && new.with_indexes_of(old) == **old
            {
                self.tables.set_instance(&key, before);
            } else if before != after {
                changes.instances.insert(key, Change { before, after });
            }
        }
        for (key, before) in self.checks {
            let mut after = self.tables.check(&key).cloned();
            if let (Some(old), Some(new)) = (&before, &mut after)
                && new.looks_like_but_for_modify_index(old)
                && new.modify_index != old.modify_index
            {
                Arc::make_mut(new).modify_index = old.modify_index;
                self.tables.set_check(&key, Some(Arc::clone(new)));
            }
            if before != after {
                changes.checks.insert(key, Change { before, after });
            }
        }
        for (key, before) in self.keys {
            let after = self.tables.keys().get(&key).cloned();
            match (&before, &after) {
                (None, None) => {}
                (Some(old), Some(new)) if new.holds_the_same(old) => {
                    self.tables.set_key(&key, before);
                }
                _ => {
                    changes.keys.insert(key, Change { before, after });
                }
            }
        }
        for (id, before) in self.sessions {
            let after = self.tables.sessions().get(&id).cloned();
            if before != after {
                changes.sessions.insert(id, Change { before, after });
            }
        }
        for (key, before) in self.delays {
            let after = self.tables.keys().delay(&key);
            if before != after {
                changes.delays.insert(key, (before, after));
            }
        }
        changes
    }
}

impl Change<Check> {
    /// Whether a watcher sees a difference: the output and the count of renewals change without an index.
    pub(super) fn is_visible(&self) -> bool {
        match (&self.before, &self.after) {
            (Some(before), Some(after)) => !before.looks_like(after),
            _ => true,
        }
    }
}

impl Change<Session> {
    /// Whether a watcher sees a difference: the count of renewals changes without an index.
    pub(super) fn is_visible(&self) -> bool {
        match (&self.before, &self.after) {
            (Some(before), Some(after)) => !before.looks_like(after),
            _ => true,
        }
    }
}

impl Changes {
    /// Whether the command takes an index.
    pub(super) fn take_index(&self) -> bool {
        !self.nodes.is_empty()
            || !self.instances.is_empty()
            || !self.keys.is_empty()
            || self.checks.values().any(Change::<Check>::is_visible)
            || self.sessions.values().any(Change::<Session>::is_visible)
    }
}
