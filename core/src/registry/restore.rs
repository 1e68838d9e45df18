//! A registry from its stored rows.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::{
    Registry,
    rows::{Row, RowError, check_key, corrupt_row, index_key, instance_key, row_hash},
};

/// See [`Registry::from_rows`].
pub(super) fn from_rows(rows: impl IntoIterator<Item = (Bytes, Bytes)>) -> Result<Registry, RowError> {
    let mut registry = Registry::default();
    let mut keys = BTreeSet::new();
    for (key, value) in rows {
        let row = Row::decode(&key, &value)?;
        registry.digest = registry.digest.wrapping_add(row_hash(&key, &value));
        take_in(&mut registry, row);
        if let Some(key) = keys.replace(key) {
            return Err(corrupt_row(&key, "it is there twice"));
        }
    }
    check_references(&registry)?;
    registry.topics.settle_all(&registry.tables);
    Ok(registry)
}

fn take_in(registry: &mut Registry, row: Row) {
    match row {
        Row::Index(index) => registry.index = index,
        Row::Floor(kind, index) => registry.topics.restore_floor(kind, index),
        Row::Node(node) => {
            let name = node.name.clone();
            registry.tables.set_node(&name, Some(node));
        }
        Row::Instance(instance) => {
            let key = instance.key();
            registry.tables.set_instance(&key, Some(instance));
        }
        Row::Check(check) => {
            let key = check.key();
            registry.tables.set_check(&key, Some(check));
        }
        Row::Topic(topic, index) => registry.topics.restore(topic, index),
    }
}

/// Everything is on a node that is there, and nothing is newer than the registry: apply relies on it.
fn check_references(registry: &Registry) -> Result<(), RowError> {
    let tables = &registry.tables;
    for instance in tables.instances() {
        if tables.node(&instance.node).is_none() {
            let key = instance_key(&instance.key());
            return Err(corrupt_row(
                &key,
                format!("its node {:?} is missing", instance.node.as_str()),
            ));
        }
    }
    for check in tables.checks() {
        let key = || check_key(&check.key());
        if tables.node(&check.node).is_none() {
            return Err(corrupt_row(
                &key(),
                format!("its node {:?} is missing", check.node.as_str()),
            ));
        }
        if let Some(instance) = check.instance_key()
            && tables.instance(&instance).is_none()
        {
            let id = instance.id.as_str();
            return Err(corrupt_row(&key(), format!("its instance {id:?} is missing")));
        }
    }
    let newest = registry.topics.newest();
    if newest > registry.index {
        let index = registry.index;
        return Err(corrupt_row(
            &index_key(),
            format!("it says {index}, but a topic has index {newest}"),
        ));
    }
    Ok(())
}
