//! A registry from its stored rows.

use std::sync::Arc;

use bytes::Bytes;

use super::{
    Namespace, Registry,
    rows::{
        Row, RowError, check_key, corrupt_row, index_key, instance_key, node_key, row_hash, session_key,
        staged_key, version_key,
    },
    tables::Catalog,
};

/// See [`Registry::from_rows`].
pub(super) fn from_rows(rows: impl IntoIterator<Item = (Bytes, Bytes)>) -> Result<Registry, RowError> {
    let mut rows: Vec<(Bytes, Bytes)> = rows.into_iter().collect();
    rows.sort_by(|(one, _), (other, _)| one.cmp(other));
    let mut restored = RestoredRows::default();
    for (key, value) in rows {
        restored.take_in(key, &value)?;
    }
    restored.finish()
}

/// A registry that is being put together from its rows, which come by key: so nothing is kept of a row that was taken in,
/// and one that is there twice is seen.
#[derive(Debug, Default)]
pub(crate) struct RestoredRows {
    registry: Registry,
    catalog: Catalog,
    last: Option<Bytes>,
}

impl RestoredRows {
    /// Takes in the next row.
    ///
    /// # Errors
    /// It is corrupt, newer than this server, or does not come behind the one before.
    pub(crate) fn take_in(&mut self, key: Bytes, value: &Bytes) -> Result<(), RowError> {
        let row = Row::decode(&key, value)?;
        match &self.last {
            Some(last) if *last == key => return Err(corrupt_row(&key, "it is there twice")),
            Some(last) if *last > key => return Err(corrupt_row(&key, "it is out of order")),
            _ => {}
        }
        let registry = &mut self.registry;
        registry.digest = registry.digest.wrapping_add(row_hash(&key, value));
        take_in(registry, &mut self.catalog, row);
        self.last = Some(key);
        Ok(())
    }

    /// The registry that the rows are of.
    ///
    /// # Errors
    /// Rows contradict each other.
    pub(crate) fn finish(mut self) -> Result<Registry, RowError> {
        self.registry.tables.lay_down(self.catalog);
        complete(self.registry)
    }
}

/// A registry of which all rows were taken in, with what follows from them.
fn complete(mut registry: Registry) -> Result<Registry, RowError> {
    registry.history.settle();
    for newest in registry.history.newest() {
        registry.tables.set_key(&newest.key, Some(Arc::clone(newest)));
    }
    check_references(&registry)?;
    registry.topics.settle_all(&registry.tables);
    Ok(registry)
}

fn take_in(registry: &mut Registry, catalog: &mut Catalog, row: Row) {
    match row {
        Row::Index(index) => registry.index = index,
        Row::Floor(kind, index) => registry.topics.restore_floor(kind, index),
        Row::CommandVersion(version) => registry.version = version,
        Row::Node(node) => catalog.nodes.push(node),
        Row::Instance(instance) => catalog.instances.push(instance),
        Row::Check(check) => catalog.checks.push(check),
        Row::Compacted(revision) => registry.history.restore_compacted(revision),
        Row::Version(revision, key, content) => registry.history.restore(key, revision, content),
        Row::Session(session) => {
            let id = session.id.clone();
            registry.tables.set_session(&id, Some(session));
        }
        Row::LockDelay(key, delay) => {
            registry.tables.set_delay(&key, Some(delay));
        }
        Row::Topic(topic, index) => registry.topics.restore(topic, index),
        Row::Staged(part, restore, rows) => registry.staged.take_in(part, restore, rows),
    }
}

/// Everything is on what it should be on, and nothing is newer than the registry: apply relies on it.
fn check_references(registry: &Registry) -> Result<(), RowError> {
    let tables = &registry.tables;
    for node in tables.nodes() {
        let key = || node_key(&node.name);
        check_age(registry.index, node.create_index, node.modify_index, key)?;
    }
    for instance in tables.instances() {
        let key = || instance_key(&instance.key());
        check_age(registry.index, instance.create_index, instance.modify_index, key)?;
        if tables.node(&instance.node).is_none() {
            let node = instance.node.as_str();
            return Err(corrupt_row(&key(), format!("its node {node:?} is missing")));
        }
    }
    for check in tables.checks() {
        let key = || check_key(&check.key());
        check_age(registry.index, check.create_index, check.modify_index, key)?;
        if tables.node(&check.node).is_none() {
            let node = check.node.as_str();
            return Err(corrupt_row(&key(), format!("its node {node:?} is missing")));
        }
        if check.instance.is_none() && check.namespace != Namespace::default() {
            let reason = "a node's own check is in the namespace \"default\"";
            return Err(corrupt_row(&key(), reason));
        }
    }
    if let Some(check) = tables.stray_check() {
        let id = check.instance.as_ref().map_or("", |id| id.as_str());
        let reason = format!("its instance {id:?} is missing");
        return Err(corrupt_row(&check_key(&check.key()), reason));
    }
    if let Some(reason) = registry.staged.incomplete() {
        return Err(corrupt_row(&staged_key(0), reason));
    }
    check_sessions(registry)?;
    let newest = registry.topics.newest().max(registry.history.newest_revision());
    check_age(registry.index, newest, newest, index_key)
}

/// Sessions are on nodes, and locks are held by sessions.
fn check_sessions(registry: &Registry) -> Result<(), RowError> {
    let tables = &registry.tables;
    for session in tables.sessions().all() {
        let key = || session_key(&session.id);
        check_age(registry.index, session.create_index, session.modify_index, key)?;
        if tables.node(&session.node).is_none() {
            let node = session.node.as_str();
            return Err(corrupt_row(&key(), format!("its node {node:?} is missing")));
        }
    }
    for held in tables.keys().all() {
        let key = || version_key(held.modify_index, &held.key);
        check_age(registry.index, held.create_index, held.modify_index, key)?;
        if let Some(session) = &held.session
            && tables.sessions().get(session).is_none()
        {
            let session = session.as_str();
            return Err(corrupt_row(&key(), format!("its session {session:?} is missing")));
        }
    }
    Ok(())
}

fn check_age(
    index: u64,
    create_index: u64,
    modify_index: u64,
    key: impl Fn() -> Bytes,
) -> Result<(), RowError> {
    if create_index > modify_index || modify_index > index {
        let reason =
            format!("created at {create_index} and modified at {modify_index}, but the index is {index}");
        return Err(corrupt_row(&key(), reason));
    }
    Ok(())
}
