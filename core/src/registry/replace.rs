//! What concerns the state as a whole: a restore from a snapshot file, and a new version of commands.
//!
//! After a restore the registry holds what the file holds, and nothing else: with the indexes at which its things were
//! created and changed, so that clients recognise what they knew. What is the same in both stays as it is. Beyond that:
//!
//! - *No index goes back*, neither for clients of this cluster nor for those of the one that the file is from: the
//!   restore takes an index above both, and every topic has it from then on, whether anything is known of it or not.
//! - *Whoever waits is woken* where what he waits for is different now.
//! - *Nothing expires by what was decided before*, however alike it looks: every check and every session gets a count of
//!   renewals that none ever had, and counts as registered or renewed anew, so its time starts over.
//! - *Keys are written by the restore*, where they differ: that makes one revision as every transaction does, so a
//!   client's compare-and-set never takes another value for the one that it knew.
//! - *The history of keys begins with it*: what a key held at an earlier revision is compacted. There are two pasts,
//!   the file's and this cluster's, and a client of one must not be given the other's.
//! - *Locks are held as in the file*; those that nobody could take then can't be taken for their whole delay from now on.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;

use super::{
    Applied, Check, CheckKey, InstanceKey, Key, KeyValue, NodeName, Refusal, Registry, Reply, Restore,
    Session, SessionId,
    difference::difference,
    kv::LockDelay,
    rows::{Row, RowLog, command_version_key, index_key, staged_key, value},
    snapshot::registry_of,
    state::{events, log_rows, next_index},
    transaction::Transaction,
};

/// A restored check's count of renewals begins at the restore's index, shifted by so many bits: a check would have to
/// be renewed a million times between two changes of the registry to come by the same count in another way.
const RENEWALS_SHIFT: u32 = 20;

/// What was laid down of one restore.
#[derive(Clone, Debug, Default)]
pub(super) struct Staged {
    restore: u64,
    parts: BTreeMap<u32, Arc<Vec<u8>>>,
}

impl Staged {
    /// Whether a row's key is one of a part.
    pub(super) fn is_key(key: &Bytes) -> bool {
        key.first() == staged_key(0).first()
    }

    /// Its rows, in key order.
    pub(super) fn rows(&self) -> impl Iterator<Item = Row> + '_ {
        let row = |(part, rows): (&u32, &Arc<Vec<u8>>)| Row::Staged(*part, self.restore, rows.clone());
        self.parts.iter().map(row)
    }

    /// Takes in a stored part.
    pub(super) fn take_in(&mut self, part: u32, restore: u64, rows: Arc<Vec<u8>>) {
        self.restore = restore;
        self.parts.insert(part, rows);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// What is wrong with the parts that were read back, if anything is.
    pub(super) fn incomplete(&self) -> Option<String> {
        let expected = (0..).zip(self.parts.keys()).find(|(nth, part)| nth != *part);
        expected.map(|(nth, _)| format!("part {nth} of a restore is missing"))
    }

    fn clear(&mut self, log: &mut RowLog) {
        for row in self.rows() {
            let (key, value) = row.encode();
            log.set(key, Some(value), None);
        }
        self.parts.clear();
    }

    fn add(&mut self, part: u32, rows: &[u8], log: &mut RowLog) {
        self.parts.insert(part, Arc::new(rows.to_vec()));
        let (key, value) = Row::Staged(part, self.restore, self.parts[&part].clone()).encode();
        log.set(key, None, Some(value));
    }
}

impl Registry {
    /// The restore of which parts are laid down, and how many; `None` while there are none.
    pub fn staged(&self) -> Option<(u64, usize)> {
        (!self.staged.is_empty()).then_some((self.staged.restore, self.staged.parts.len()))
    }

    pub(super) fn restore_step(&mut self, step: &Restore) -> Applied {
        match step {
            Restore::Stage { restore, part, rows } => self.stage(*restore, *part, rows),
            Restore::Commit {
                restore,
                parts,
                index,
                digest,
            } => match self.staged_registry(*restore, *parts, *index, *digest) {
                Ok(file) => self.replace_by(&file),
                Err(refusal) => self.refuse(refusal),
            },
            Restore::Discard { restore } => {
                let mut rows = RowLog::default();
                if self.staged.restore == *restore {
                    self.staged.clear(&mut rows);
                }
                self.unseen(rows)
            }
        }
    }

    pub(super) fn raise_version(&mut self, version: u8) -> Applied {
        let mut rows = RowLog::default();
        if version > self.command_version() {
            let row = |version: u8| value(&version);
            let before = (self.version > 0).then(|| row(self.version));
            rows.set(command_version_key(), before, Some(row(version)));
            self.version = version;
        }
        self.unseen(rows)
    }

    fn stage(&mut self, restore: u64, part: u32, packed: &[u8]) -> Applied {
        let mut rows = RowLog::default();
        let expected = match self.staged() {
            Some((staged, parts)) if staged == restore => parts,
            _ => 0,
        };
        if usize::try_from(part) != Ok(expected) {
            return self.refuse(out_of_turn(restore));
        }
        if part == 0 {
            self.staged.clear(&mut rows);
            self.staged.restore = restore;
        }
        self.staged.add(part, packed, &mut rows);
        self.unseen(rows)
    }

    /// The registry that was laid down, if it is complete.
    fn staged_registry(
        &self,
        restore: u64,
        parts: u32,
        index: u64,
        digest: u128,
    ) -> Result<Registry, Refusal> {
        if self.staged().map_or((restore, 0), |staged| staged) != (restore, parts as usize) {
            return Err(out_of_turn(restore));
        }
        let blocks = self.staged.parts.values();
        let file = registry_of(blocks.map(|rows| Bytes::copy_from_slice(rows)))
            .map_err(|error| Refusal::Invalid(format!("the snapshot: {error}")))?;
        if (file.index, file.digest) != (index, digest) {
            let reason = "the snapshot: its rows are not those that it announces";
            return Err(Refusal::Invalid(reason.into()));
        }
        Ok(file)
    }

    fn replace_by(&mut self, file: &Registry) -> Applied {
        let index = next_index(self.index.max(file.index));
        let mut transaction = Transaction::new(&mut self.tables, index, self.version);
        fill(&mut transaction, file);
        let changes = transaction.finish();
        let mut rows = RowLog::default();
        log_rows(&changes, &mut rows);
        // Found by comparing what there was with what there is, so nobody is woken for nothing.
        let raised = difference(&changes, &self.tables).raised;
        let before = (self.index > 0).then(|| value(&self.index));
        rows.set(index_key(), before, Some(value(&index)));
        self.index = index;
        for (key, change) in &changes.keys {
            self.history.record(key, change, index, &mut rows);
        }
        self.history.restart(index, &mut rows);
        self.topics.restart(index, &mut rows);
        self.staged.clear(&mut rows);
        Applied {
            reply: Ok(Reply::Done),
            index,
            changed: true,
            events: events(&changes),
            topics: raised.into_iter().collect(),
            rows: rows.finish(&mut self.digest),
        }
    }

    /// The outcome of what nobody can see: it takes no index.
    fn unseen(&mut self, rows: RowLog) -> Applied {
        Applied {
            reply: Ok(Reply::Done),
            index: self.index,
            changed: false,
            events: Vec::new(),
            topics: Vec::new(),
            rows: rows.finish(&mut self.digest),
        }
    }
}

/// Writes what `file` holds over everything there is.
fn fill(transaction: &mut Transaction<'_>, file: &Registry) {
    let tables = transaction.tables();
    let (gone_keys, gone_sessions) = (tables.keys(), tables.sessions());
    let delays: Vec<Key> = gone_keys.delays().map(|(key, _)| key.clone()).collect();
    let gone_keys: Vec<Key> = gone_keys.all().map(|held| held.key.clone()).collect();
    let gone_sessions: Vec<SessionId> = gone_sessions.all().map(|session| session.id.clone()).collect();
    let gone_checks: Vec<CheckKey> = tables.checks().map(|check| check.key()).collect();
    let gone_instances: Vec<InstanceKey> = tables.instances().map(|instance| instance.key()).collect();
    let gone_nodes: Vec<NodeName> = tables.nodes().map(|node| node.name.clone()).collect();
    for key in &delays {
        transaction.set_delay(key, None);
    }
    for (key, delay) in file.tables.keys().delays() {
        let since = transaction.index();
        transaction.set_delay(key, Some(LockDelay { since, ..*delay }));
    }
    for key in gone_keys
        .iter()
        .filter(|key| file.tables.keys().get(key).is_none())
    {
        transaction.set_key(key, None);
    }
    for id in gone_sessions
        .iter()
        .filter(|id| file.tables.sessions().get(id).is_none())
    {
        transaction.set_session(id, None);
    }
    for key in gone_checks.iter().filter(|key| file.check(key).is_none()) {
        transaction.set_check(key, None);
    }
    for key in gone_instances.iter().filter(|key| file.instance(key).is_none()) {
        transaction.set_instance(key, None);
    }
    for name in gone_nodes.iter().filter(|name| file.node(name).is_none()) {
        transaction.set_node(name, None);
    }
    for node in file.tables.nodes() {
        transaction.set_node(&node.name, Some(node.as_ref().clone()));
    }
    for instance in file.tables.instances() {
        transaction.set_instance(&instance.key(), Some(instance.as_ref().clone()));
    }
    let renewals = transaction.index() << RENEWALS_SHIFT;
    for check in file.checks() {
        let restored = Check {
            renewals,
            ..check.clone()
        };
        transaction.set_check(&check.key(), Some(restored));
        transaction.mark_registered(&check.key());
    }
    for session in file.tables.sessions().all() {
        let restored = Session {
            renewals,
            ..session.as_ref().clone()
        };
        transaction.set_session(&session.id, Some(restored));
    }
    for held in file.tables.keys().all() {
        let known = transaction.tables().keys().get(&held.key);
        let written = KeyValue {
            version: known.map_or(1, |known| known.version + 1),
            create_index: known.map_or(transaction.index(), |known| known.create_index),
            modify_index: transaction.index(),
            ..held.as_ref().clone()
        };
        transaction.set_key(&held.key, Some(written));
    }
}

fn out_of_turn(restore: u64) -> Refusal {
    Refusal::Invalid(format!(
        "restore {restore:016x} was given up, or another one came between: begin it again"
    ))
}
