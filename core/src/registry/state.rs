//! The state itself: tables, indexes and digest, and how a command's changes become events, topics and rows.

use std::time::Duration;

use bytes::Bytes;

use super::{
    Applied, Check, CheckKey, Command, Compacted, Event, Instance, InstanceKey, Key, KeyValue, Namespace,
    Node, NodeName, Operation, OperationError, OperationResult, Query, Refusal, Reply, ServiceName, Session,
    SessionId, Topic, TopicVersion, View, answer, apply,
    difference::difference,
    kv::History,
    replace::Staged,
    restore,
    retention::Retention,
    rows::{
        Row, RowError, RowLog, check_key, check_value, command_version_key, index_key, instance_key,
        instance_value, lock_delay_key, node_key, node_value, session_key, value,
    },
    tables::Tables,
    topics::Topics,
    transaction::{Changes, Transaction},
};

/// The replicated state. See the module's page.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    pub(super) tables: Tables,
    pub(super) topics: Topics,
    pub(super) history: History,
    pub(super) index: u64,
    pub(super) digest: u128,
    /// See [`Registry::command_version`]; 0 is 1.
    pub(super) version: u8,
    /// What was laid down of a snapshot file that is being restored.
    pub(super) staged: Staged,
    retention: Retention,
}

impl Registry {
    /// The same registry, which keeps so much of what is gone from here on.
    #[must_use]
    pub fn keeping(self, retention: Retention) -> Self {
        Registry { retention, ..self }
    }

    /// Carries out a command. Total: what can't be done is a refusal in the reply, and changes nothing.
    pub fn apply(&mut self, command: &Command) -> Applied {
        match command {
            Command::Restore(step) => return self.restore_step(step),
            Command::RaiseVersion(version) => return self.raise_version(*version),
            _ => {}
        }
        let mut transaction = Transaction::new(&mut self.tables, next_index(self.index), self.version);
        match apply::apply(&mut transaction, command) {
            Ok(reply) => {
                let changes = transaction.finish();
                self.commit(reply, &changes)
            }
            Err(refusal) => {
                transaction.undo();
                self.refuse(refusal)
            }
        }
    }

    /// How much of what is gone it keeps at most.
    pub fn retention(&self) -> Retention {
        self.retention
    }

    /// How much of what is gone it keeps: of the kind of which it keeps most.
    pub fn retained(&self) -> Retention {
        Retention {
            tombstones: self.topics.tombstones(),
            key_versions: self.history.superseded(),
        }
    }

    /// The index of the last change; 0 while nothing was ever written, then 2 and up.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// An order-free sum of the hashes of all rows: equal states have equal digests. O(1).
    pub fn digest(&self) -> u128 {
        self.digest
    }

    /// How new a topic is. Never goes back, not even when what it names is gone.
    pub fn version(&self, topic: &Topic) -> TopicVersion {
        self.topics.version(topic)
    }

    /// Answers a query.
    pub fn query(&self, query: &Query) -> View {
        answer::answer(&self.tables, query)
    }

    /// A check.
    pub fn check(&self, key: &CheckKey) -> Option<&Check> {
        self.tables.check(key).map(AsRef::as_ref)
    }

    /// An instance.
    pub fn instance(&self, key: &InstanceKey) -> Option<&Instance> {
        self.tables.instance(key).map(AsRef::as_ref)
    }

    /// A node.
    pub fn node(&self, name: &NodeName) -> Option<&Node> {
        self.tables.node(name).map(AsRef::as_ref)
    }

    /// The instances of a service of exactly this name, in the order of their nodes and ids.
    pub fn instances_of_service(
        &self,
        namespace: &Namespace,
        service: &ServiceName,
    ) -> impl Iterator<Item = &Instance> {
        let service = self.tables.service(namespace, service);
        let instances = service.into_iter().flat_map(|service| service.instances());
        instances.map(|instance| &**instance)
    }

    /// A node's instances in a namespace, by id.
    pub fn instances_of_node<'a>(
        &'a self,
        namespace: &'a Namespace,
        node: &'a NodeName,
    ) -> impl Iterator<Item = &'a Instance> + 'a {
        self.tables.instances_of_node(namespace, node).map(AsRef::as_ref)
    }

    /// The checks of an instance, by id.
    pub fn checks_of_instance<'a>(&'a self, key: &'a InstanceKey) -> impl Iterator<Item = &'a Check> + 'a {
        self.tables.checks_of_instance(key).values().map(AsRef::as_ref)
    }

    /// All checks of a namespace on a node (its instances' and, in `default`, the node's own), by id.
    pub fn checks_of_node<'a>(
        &'a self,
        namespace: &'a Namespace,
        node: &'a NodeName,
    ) -> impl Iterator<Item = &'a Check> + 'a {
        self.tables.checks_of_node(namespace, node).map(AsRef::as_ref)
    }

    /// Every check, by key. For a leader that has just been elected, and for metrics; O(all).
    pub fn checks(&self) -> impl Iterator<Item = &Check> {
        self.tables.checks().map(AsRef::as_ref)
    }

    /// Every node, by name; O(all).
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.tables.nodes().map(AsRef::as_ref)
    }

    /// Every instance, by key. For metrics; O(all).
    pub fn instances(&self) -> impl Iterator<Item = &Instance> {
        self.tables.instances().map(AsRef::as_ref)
    }

    /// A session.
    pub fn session(&self, id: &SessionId) -> Option<&Session> {
        self.tables.sessions().get(id).map(AsRef::as_ref)
    }

    /// Every session, by id. For a leader that has just been elected; O(all).
    pub fn sessions(&self) -> impl Iterator<Item = &Session> {
        self.tables.sessions().all().map(AsRef::as_ref)
    }

    /// What every key holds, by key; O(all).
    pub fn keys(&self) -> impl Iterator<Item = &KeyValue> {
        self.tables.keys().all().map(AsRef::as_ref)
    }

    /// For how long nobody can take the lock on a key, and the index at which that began.
    pub fn lock_delay(&self, key: &Key) -> Option<(Duration, u64)> {
        let delay = self.tables.keys().delay(key)?;
        Some((delay.delay, delay.since))
    }

    /// Every key whose lock nobody can take for a while. For a leader that has just been elected; O(all).
    pub fn lock_delays(&self) -> impl Iterator<Item = &Key> {
        self.tables.keys().delays().map(|(key, _)| key)
    }

    /// What a key held at a revision, which is an index of the registry; `None` if it was not there.
    ///
    /// # Errors
    /// The versions of that time are gone.
    pub fn key_at(&self, key: &Key, revision: u64) -> Result<Option<&KeyValue>, Compacted> {
        self.history.at(key, revision)
    }

    /// Answers a transaction of operations that only read: what they give in order, or each that fails.
    ///
    /// # Errors
    /// The operations that fail; one that writes does.
    pub fn evaluate(&self, operations: &[Operation]) -> Result<Vec<OperationResult>, Vec<OperationError>> {
        apply::evaluate(&self.tables, operations)
    }

    /// Whether there is nothing but this node, with the check of whether it is alive, and instances of this service; and
    /// no key ever was.
    pub fn holds_only(&self, node: &NodeName, service: &ServiceName) -> bool {
        self.nodes_are_only(node)
            && self.instances().all(|instance| instance.service == *service)
            && self
                .checks()
                .all(|check| check.id.as_str() == Session::NODE_ALIVE)
            && self.sessions().next().is_none()
            && self.history.newest_revision() == 0
    }

    fn nodes_are_only(&self, name: &NodeName) -> bool {
        self.tables.nodes().all(|node| node.name == *name)
    }

    /// Every stored row in key order: the registry's complete state, index and topic indexes included.
    pub fn rows(&self) -> impl Iterator<Item = (Bytes, Bytes)> + '_ {
        let index = (self.index > 0).then_some(Row::Index(self.index));
        let nodes = self.tables.nodes().cloned().map(Row::Node);
        let instances = self.tables.instances().cloned().map(Row::Instance);
        let checks = self.tables.checks().cloned().map(Row::Check);
        let sessions = self.tables.sessions().all().cloned().map(Row::Session);
        let delays = self.tables.keys().delays();
        let delays = delays.map(|(key, delay)| Row::LockDelay(key.clone(), *delay));
        index
            .into_iter()
            .chain(self.topics.floor_rows())
            .chain(self.history.compacted_row())
            .chain((self.version > 0).then_some(Row::CommandVersion(self.version)))
            .chain(nodes)
            .chain(instances)
            .chain(checks)
            .chain(self.history.version_rows())
            .chain(sessions)
            .chain(delays)
            .chain(self.topics.index_rows())
            .chain(self.staged.rows())
            .map(|row| row.encode())
    }

    /// The rows that a snapshot file holds, in key order: all but those that are about this cluster's own servers.
    pub(super) fn snapshot_rows(&self) -> impl Iterator<Item = (Bytes, Bytes)> + '_ {
        let own = |key: &Bytes| *key == command_version_key() || Staged::is_key(key);
        self.rows().filter(move |(key, _)| !own(key))
    }

    /// The registry that [`Registry::rows`] came from, digest included. The rows may come in any order.
    ///
    /// # Errors
    /// A row is corrupt, contradicts another one, or is newer than this server.
    pub fn from_rows(rows: impl IntoIterator<Item = (Bytes, Bytes)>) -> Result<Registry, RowError> {
        restore::from_rows(rows)
    }

    fn commit(&mut self, reply: Reply, changes: &Changes) -> Applied {
        let mut rows = RowLog::default();
        log_rows(changes, &mut rows);
        let difference = difference(changes, &self.tables);
        let changed = changes.take_index();
        assert!(
            changed || difference.raised.is_empty(),
            "a topic's index rises only to an index that was taken"
        );
        if changed {
            let before = (self.index > 0).then(|| value(&self.index));
            self.index = next_index(self.index);
            rows.set(index_key(), before, Some(value(&self.index)));
        }
        for (key, change) in &changes.keys {
            self.history.record(key, change, self.index, &mut rows);
        }
        self.history.fold(self.retention.key_versions, &mut rows);
        for topic in difference.touched.difference(&difference.raised) {
            self.topics.touch(topic);
        }
        for topic in &difference.raised {
            self.topics.raise(topic, self.index, &mut rows);
        }
        for topic in &difference.settled {
            self.topics.settle(topic, &self.tables);
        }
        self.topics.fold(self.retention.tombstones, &mut rows);
        Applied {
            reply: Ok(reply),
            index: self.index,
            changed,
            events: events(changes),
            topics: difference.raised.into_iter().collect(),
            rows: rows.finish(&mut self.digest),
        }
    }

    pub(super) fn refuse(&self, refusal: Refusal) -> Applied {
        Applied {
            reply: Err(refusal),
            index: self.index,
            changed: false,
            events: Vec::new(),
            topics: Vec::new(),
            rows: Vec::new(),
        }
    }
}

/// The index after an index. The first one is 2: topics that nothing happened to have index 1, so that they can be
/// waited for, and who waits for more than 1 must be woken by the first write.
pub(super) fn next_index(index: u64) -> u64 {
    index.max(1).saturating_add(1)
}

pub(super) fn log_rows(changes: &Changes, rows: &mut RowLog) {
    for (name, change) in &changes.nodes {
        let (before, after) = (
            change.before.as_ref().map(node_value),
            change.after.as_ref().map(node_value),
        );
        rows.set(node_key(name), before, after);
    }
    for (key, change) in &changes.instances {
        let (before, after) = (
            change.before.as_ref().map(instance_value),
            change.after.as_ref().map(instance_value),
        );
        rows.set(instance_key(key), before, after);
    }
    for (key, change) in &changes.checks {
        let (before, after) = (
            change.before.as_ref().map(check_value),
            change.after.as_ref().map(check_value),
        );
        rows.set(check_key(key), before, after);
    }
    for (id, change) in &changes.sessions {
        let (before, after) = (
            change.before.as_ref().map(value),
            change.after.as_ref().map(value),
        );
        rows.set(session_key(id), before, after);
    }
    for (key, (before, after)) in &changes.delays {
        let (before, after) = (before.as_ref().map(value), after.as_ref().map(value));
        rows.set(lock_delay_key(key), before, after);
    }
}

/// Tells what happened from what is different, in the order that [`Applied::events`] promises.
pub(super) fn events(changes: &Changes) -> Vec<Event> {
    let mut gone = [Vec::new(), Vec::new(), Vec::new()];
    let mut there = Vec::new();
    for (name, change) in &changes.nodes {
        match change.after {
            Some(_) => there.push(Event::NodeRegistered(name.clone())),
            None => gone[2].push(Event::NodeDeregistered(name.clone())),
        }
    }
    for (key, change) in &changes.instances {
        match change.after {
            Some(_) => there.push(Event::InstanceRegistered(key.clone())),
            None => gone[1].push(Event::InstanceDeregistered(key.clone())),
        }
    }
    for (key, change) in &changes.checks {
        let Some(after) = &change.after else {
            gone[0].push(Event::CheckDeregistered(key.clone()));
            continue;
        };
        if changes.marks.registered.contains(key) {
            there.push(Event::CheckRegistered(key.clone()));
        } else if changes.marks.renewed.contains(key) {
            there.push(Event::CheckRenewed(key.clone()));
        } else if changes.marks.expired.contains(key) {
            there.push(Event::CheckExpired(key.clone()));
        }
        if let Some(before) = &change.before
            && before.status != after.status
        {
            there.push(Event::CheckStatusChanged {
                check: key.clone(),
                from: before.status,
                to: after.status,
            });
        }
    }
    there.extend(changes.sessions.iter().map(|(id, change)| {
        let event = match (&change.before, &change.after) {
            (_, None) => Event::SessionDestroyed,
            (None, Some(_)) => Event::SessionCreated,
            (Some(_), Some(_)) => Event::SessionRenewed,
        };
        event(id.clone())
    }));
    there.extend(changes.delays.iter().map(|(key, (_, after))| match after {
        Some(_) => Event::LockDelayBegan(key.clone()),
        None => Event::LockDelayEnded(key.clone()),
    }));
    gone.into_iter().flatten().chain(there).collect()
}
