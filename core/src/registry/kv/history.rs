//! Every version of every key that is kept, deletions included, and compaction.
//!
//! A version is superseded by the next one of its key; a deletion supersedes itself. Compaction at a revision drops
//! what was superseded by then: what a reader at that revision or later can't see any more. The registry compacts by
//! itself when more superseded versions than [`Retention::key_versions`](crate::registry::Retention::key_versions), or [`KEY_VERSION_BYTES_KEPT_MAX`] bytes of them, are kept.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{Key, KeyValue};
use crate::{
    limits::{FOLD_DIVISOR, KEY_VERSION_BYTES_KEPT_MAX},
    registry::{
        retention::folded_at_once,
        rows::{Row, RowLog, compacted_key, value, version_key},
        transaction::Change,
    },
};

/// The versions at that revision are gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("revision {asked} is compacted; the oldest one that can be read is {oldest}")]
pub struct Compacted {
    /// The revision that was asked for.
    pub asked: u64,
    /// The oldest one that can be read.
    pub oldest: u64,
}

/// See the module's page.
#[derive(Clone, Debug, Default)]
pub(in crate::registry) struct History {
    /// By revision; `None` is a deletion.
    versions: BTreeMap<(u64, Key), Option<Arc<KeyValue>>>,
    /// The revisions of each key that are kept.
    revisions: BTreeMap<Key, BTreeSet<u64>>,
    /// Which versions were superseded at which revision.
    superseded: BTreeMap<(u64, Key), BTreeSet<u64>>,
    superseded_count: usize,
    superseded_bytes: usize,
    compacted: u64,
}

impl History {
    /// Takes in the new version of a key, at its revision.
    pub(in crate::registry) fn record(
        &mut self,
        key: &Key,
        change: &Change<KeyValue>,
        revision: u64,
        rows: &mut RowLog,
    ) {
        self.add(key.clone(), revision, change.after.clone());
        rows.set(version_key(revision, key), None, Some(value(&change.after)));
    }

    /// Drops the oldest superseded versions when more than `most` are kept, or too many bytes of them.
    pub(in crate::registry) fn fold(&mut self, most: usize, rows: &mut RowLog) {
        if self.superseded_count <= most && self.superseded_bytes <= KEY_VERSION_BYTES_KEPT_MAX {
            return;
        }
        let count = most.saturating_sub(folded_at_once(most));
        let bytes = KEY_VERSION_BYTES_KEPT_MAX - KEY_VERSION_BYTES_KEPT_MAX / FOLD_DIVISOR;
        while self.superseded_count > count || self.superseded_bytes > bytes {
            let Some(((at, _), _)) = self.superseded.first_key_value() else {
                break;
            };
            self.compact(*at, rows);
        }
    }

    /// Drops everything that was before `revision`, after which the history is another one.
    pub(in crate::registry) fn restart(&mut self, revision: u64, rows: &mut RowLog) {
        self.compact(revision, rows);
    }

    /// What a key held at a revision; `None` if it was not there.
    pub(in crate::registry) fn at(&self, key: &Key, revision: u64) -> Result<Option<&KeyValue>, Compacted> {
        if revision < self.compacted {
            return Err(Compacted {
                asked: revision,
                oldest: self.compacted,
            });
        }
        let newest = self
            .revisions
            .get(key)
            .and_then(|revisions| revisions.range(..=revision).next_back());
        let version = newest.and_then(|revision| self.versions.get(&(*revision, key.clone())));
        Ok(version.and_then(Option::as_deref))
    }

    /// How many superseded versions are kept.
    pub(in crate::registry) fn superseded(&self) -> usize {
        self.superseded_count
    }

    /// The newest version of each key that is there.
    pub(in crate::registry) fn newest(&self) -> impl Iterator<Item = &Arc<KeyValue>> {
        self.revisions.iter().filter_map(|(key, revisions)| {
            let newest = revisions.last()?;
            self.versions.get(&(*newest, key.clone()))?.as_ref()
        })
    }

    /// The stored versions, by revision.
    pub(in crate::registry) fn version_rows(&self) -> impl Iterator<Item = Row> + '_ {
        self.versions
            .iter()
            .map(|((revision, key), version)| Row::Version(*revision, key.clone(), version.clone()))
    }

    /// The stored revision of the last compaction.
    pub(in crate::registry) fn compacted_row(&self) -> Option<Row> {
        (self.compacted > 0).then_some(Row::Compacted(self.compacted))
    }

    /// The highest revision.
    pub(in crate::registry) fn newest_revision(&self) -> u64 {
        let newest = self.versions.last_key_value();
        newest
            .map_or(0, |((revision, _), _)| *revision)
            .max(self.compacted)
    }

    /// Takes in a stored revision.
    pub(in crate::registry) fn restore_compacted(&mut self, revision: u64) {
        self.compacted = revision;
    }

    /// Takes in stored versions, in any order; [`History::settle`] follows the last one.
    pub(in crate::registry) fn restore(&mut self, key: Key, revision: u64, version: Option<Arc<KeyValue>>) {
        self.versions.insert((revision, key.clone()), version);
        self.revisions.entry(key).or_default().insert(revision);
    }

    /// After the last stored version: finds out what is superseded.
    pub(in crate::registry) fn settle(&mut self) {
        let keys = std::mem::take(&mut self.revisions);
        let mut versions = std::mem::take(&mut self.versions);
        for (key, revisions) in keys {
            for revision in revisions {
                let version = versions.remove(&(revision, key.clone())).flatten();
                self.add(key.clone(), revision, version);
            }
        }
    }

    fn add(&mut self, key: Key, revision: u64, version: Option<Arc<KeyValue>>) {
        let revisions = self.revisions.entry(key.clone()).or_default();
        let previous = revisions.last().copied();
        revisions.insert(revision);
        let is_deletion = version.is_none();
        self.versions.insert((revision, key.clone()), version);
        if let Some(previous) = previous
            && let Some(superseded) = self.versions.get(&(previous, key.clone())).cloned().flatten()
        {
            self.supersede(&key, previous, revision, superseded.value.len());
        }
        if is_deletion {
            self.supersede(&key, revision, revision, 0);
        }
    }

    fn supersede(&mut self, key: &Key, version: u64, at: u64, bytes: usize) {
        self.superseded
            .entry((at, key.clone()))
            .or_default()
            .insert(version);
        self.superseded_count += 1;
        self.superseded_bytes += bytes;
    }

    /// Drops everything that was superseded by `revision`.
    fn compact(&mut self, revision: u64, rows: &mut RowLog) {
        let before = (self.compacted > 0).then(|| value(&self.compacted));
        self.compacted = self.compacted.max(revision);
        rows.set(compacted_key(), before, Some(value(&self.compacted)));
        while let Some(entry) = self.superseded.first_entry()
            && entry.key().0 <= revision
        {
            let ((_, key), dropped) = entry.remove_entry();
            for version in dropped {
                let content = self.versions.remove(&(version, key.clone())).flatten();
                self.superseded_count -= 1;
                self.superseded_bytes -= content.as_ref().map_or(0, |content| content.value.len());
                rows.set(version_key(version, &key), Some(value(&content)), None);
                if let Some(revisions) = self.revisions.get_mut(&key) {
                    revisions.remove(&version);
                    if revisions.is_empty() {
                        self.revisions.remove(&key);
                    }
                }
            }
        }
    }
}
