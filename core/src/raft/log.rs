//! openraft's log store on a [`Disk`]: entries in [`Keyspace::Log`], vote and marks in [`Keyspace::Meta`].
//!
//! What is true of the log at a moment is what memory says ([`LogState`]); the disk follows in the same order. Entries
//! not yet written are always in memory, so a reader never depends on how far the disk is.

use std::{
    collections::BTreeMap,
    fmt::Debug,
    io,
    ops::{Bound, Range, RangeBounds},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use futures_util::{Stream, stream};
use openraft::{
    OptionalSend, RaftLogReader,
    storage::{IOFlushed, LogState as OpenraftLogState, RaftLogStorage},
};
use serde::{Serialize, de::DeserializeOwned};

use super::{
    Portions, ServerId,
    codec::{self, StoreError},
    journal::Journal,
    types::{Entry, LogId, Payload, Types, Vote},
};
use crate::{
    limits,
    observe::{Observation, SharedObserver},
    runtime::{Change, Disk, Keyspace, Runtime},
};

pub(crate) const VOTE: &str = "vote";
pub(crate) const PURGED: &str = "purged";
pub(crate) const COMMITTED: &str = "committed";

/// The log of one server. Clones share it; openraft writes through one of them and reads through the others.
pub(crate) struct LogStore<R: Runtime> {
    id: ServerId,
    disk: R::Disk,
    journal: Journal,
    observer: SharedObserver,
    portions: Arc<Portions>,
    state: Arc<Mutex<LogState>>,
}

/// What is true of the log now.
#[derive(Default)]
struct LogState {
    vote: Option<Vote>,
    committed: Option<LogId>,
    purged: Option<LogId>,
    /// Index of the first entry, or of the one that will be.
    first: u64,
    /// The last entry, or `purged` when there is none.
    last: Option<LogId>,
    /// The newest entries, without a gap up to the last: all that are not written yet, and some that are.
    cache: BTreeMap<u64, Cached>,
    cache_bytes: usize,
    cache_entries_max: usize,
    /// Counts appends; an entry may leave the cache once the append that brought it is written.
    appends: u64,
    appends_written: u64,
    /// Counts truncations and purges. What was read from disk meanwhile may be gone: it is read again.
    removals: u64,
    /// Elections that this server started since it runs.
    elections: u64,
}

/// Entries read, up to a number of bytes.
struct Page {
    entries: Vec<Entry>,
    bytes_left: usize,
    full: bool,
}

struct Cached {
    entry: Entry,
    bytes: usize,
    append: u64,
}

impl<R: Runtime> Clone for LogStore<R> {
    fn clone(&self) -> Self {
        LogStore {
            id: self.id.clone(),
            disk: self.disk.clone(),
            journal: self.journal.clone(),
            observer: self.observer.clone(),
            portions: self.portions.clone(),
            state: self.state.clone(),
        }
    }
}

impl<R: Runtime> LogStore<R> {
    /// Loads what the disk holds.
    ///
    /// # Errors
    /// The disk fails, or what it holds is corrupt or of a newer version.
    pub(crate) async fn load(
        id: ServerId,
        disk: R::Disk,
        journal: Journal,
        portions: Portions,
        observer: SharedObserver,
    ) -> Result<Self, StoreError> {
        let purged: Option<LogId> = read_meta(&disk, PURGED).await?;
        let last = match disk
            .last(Keyspace::Log)
            .await
            .map_err(StoreError::disk("reading the log"))?
        {
            Some((key, value)) => Some(codec::decode_entry(&key, &value)?.log_id),
            None => purged,
        };
        let state = LogState {
            vote: read_meta(&disk, VOTE).await?,
            committed: read_meta(&disk, COMMITTED).await?,
            purged,
            first: purged.map_or(0, |purged| purged.index + 1),
            last,
            cache_entries_max: portions.log_cache_entries,
            ..LogState::default()
        };
        let first = disk
            .range(Keyspace::Log, &[], None, 1)
            .await
            .map_err(StoreError::disk("reading the log"))?;
        if let Some((key, _)) = first.first() {
            let (found, expected) = (codec::log_index(key)?, state.first);
            if found != expected {
                let reason = format!("the log begins with it, but must begin with entry {expected}");
                return Err(StoreError::corrupt(Keyspace::Log, key, reason));
            }
        }
        Ok(LogStore {
            id,
            disk,
            journal,
            observer,
            portions: Arc::new(portions),
            state: Arc::new(Mutex::new(state)),
        })
    }

    /// Whether this server has ever taken part in a cluster.
    pub(crate) fn is_initialized(&self) -> bool {
        let state = self.state();
        state.vote.is_some() || state.last.is_some()
    }

    /// Elections that this server started since it runs.
    pub(crate) fn elections(&self) -> u64 {
        self.state().elections
    }

    /// The vote, as far as it is durable.
    pub(crate) fn vote(&self) -> Option<Vote> {
        self.state().vote.clone()
    }

    /// Entries in memory.
    #[cfg(test)]
    pub(crate) fn cached(&self) -> usize {
        self.state().cache.len()
    }

    fn state(&self) -> MutexGuard<'_, LogState> {
        lock(&self.state)
    }

    /// The entries of `start..end` that the log holds: at least one of them, then no more than `bytes`.
    async fn read(&self, start: u64, end: u64, bytes: usize) -> Result<Vec<Entry>, StoreError> {
        loop {
            let (removals, on_disk, cached) = {
                let state = self.state();
                let (start, end) = state.clip(start, end);
                let cached_from = state.cached_from().clamp(start, end);
                (
                    state.removals,
                    start..cached_from,
                    state.cached(cached_from, end, bytes),
                )
            };
            let mut page = Page::new(bytes);
            let read = self.read_disk(on_disk, &mut page).await;
            if self.state().removals != removals {
                // Entries were truncated or purged while the disk was being read.
                continue;
            }
            read?;
            for (entry, size) in cached {
                if !page.take(entry, size) {
                    break;
                }
            }
            return Ok(page.entries);
        }
    }

    async fn read_disk(&self, range: Range<u64>, page: &mut Page) -> Result<(), StoreError> {
        let end = codec::log_key(range.end);
        let mut next = range.start;
        while next < range.end && !page.full {
            let limit = usize::try_from(range.end - next).unwrap_or(usize::MAX);
            let rows = self
                .disk
                .range(
                    Keyspace::Log,
                    &codec::log_key(next),
                    Some(&end),
                    limit.min(self.portions.log_read_entries.max(1)),
                )
                .await
                .map_err(StoreError::disk("reading the log"))?;
            if rows.is_empty() {
                return Err(StoreError::corrupt(
                    Keyspace::Log,
                    &codec::log_key(next),
                    "it is missing",
                ));
            }
            for (key, value) in rows {
                let entry = codec::decode_entry(&key, &value)?;
                if entry.log_id.index != next {
                    return Err(StoreError::corrupt(
                        Keyspace::Log,
                        &codec::log_key(next),
                        "it is missing",
                    ));
                }
                if !page.take(entry, value.len()) {
                    break;
                }
                next += 1;
            }
        }
        Ok(())
    }

    /// The changes that store `entries`, which become the last of the log.
    fn take_in(&self, entries: impl IntoIterator<Item = Entry>) -> (Vec<Change>, u64) {
        let mut changes = Vec::new();
        let mut state = self.state();
        state.appends += 1;
        let append = state.appends;
        for entry in entries {
            let index = entry.log_id.index;
            assert!(
                state.last.is_none_or(|last| last.index + 1 == index),
                "entry {index} must follow the last of the log, {:?}",
                state.last
            );
            let (key, encoded) = (codec::log_key(index), codec::encode_entry(&entry));
            if state.last.is_none() {
                state.first = index;
            }
            self.observer.observe(Observation::Appended {
                index,
                term: entry.log_id.leader_id.term,
                hash: codec::entry_hash(&encoded),
            });
            if let Payload::Membership(membership) = &entry.payload {
                let configs = membership.get_joint_config().iter();
                let voters: Vec<Vec<String>> = configs
                    .map(|voters| voters.iter().map(ToString::to_string).collect())
                    .collect();
                self.observer.observe(Observation::Configured {
                    log_index: index,
                    voters: &voters,
                });
            }
            let value = codec::seal(Keyspace::Log, &key, &encoded);
            state.last = Some(entry.log_id);
            state.cache_bytes += value.len();
            let bytes = value.len();
            state.cache.insert(index, Cached { entry, bytes, append });
            changes.push(Change::Put(Keyspace::Log, key, value));
        }
        (changes, append)
    }
}

impl Page {
    fn new(bytes: usize) -> Self {
        Page {
            entries: Vec::new(),
            bytes_left: bytes,
            full: false,
        }
    }

    /// Takes an entry, always the first and then while there is room; says whether it did.
    fn take(&mut self, entry: Entry, bytes: usize) -> bool {
        if self.full || (bytes > self.bytes_left && !self.entries.is_empty()) {
            self.full = true;
            return false;
        }
        self.bytes_left = self.bytes_left.saturating_sub(bytes);
        self.entries.push(entry);
        true
    }
}

impl LogState {
    fn end_index(&self) -> u64 {
        self.last.map_or(0, |last| last.index + 1)
    }

    /// `start..end` without what the log does not hold.
    fn clip(&self, start: u64, end: u64) -> (u64, u64) {
        let end = end.min(self.end_index());
        (start.max(self.first).min(end), end)
    }

    /// From here on everything is in the cache.
    fn cached_from(&self) -> u64 {
        self.cache
            .first_key_value()
            .map_or(self.end_index(), |(&index, _)| index)
    }

    /// The entries of `start..end`, which are in the cache, and no more of them than `bytes` and one.
    fn cached(&self, start: u64, end: u64, bytes: usize) -> Vec<(Entry, usize)> {
        let mut left = Some(bytes);
        self.cache
            .range(start..end.max(start))
            .take_while(|(_, cached)| {
                let some_left = left.is_some();
                left = left.and_then(|left| left.checked_sub(cached.bytes));
                some_left
            })
            .map(|(_, cached)| (cached.entry.clone(), cached.bytes))
            .collect()
    }

    fn written(&mut self, append: u64) {
        self.appends_written = self.appends_written.max(append);
        self.shrink();
    }

    /// Lets the oldest entries go that are written, while there are too many.
    fn shrink(&mut self) {
        while self.cache.len() > self.cache_entries_max || self.cache_bytes > limits::LOG_CACHE_BYTES_MAX {
            let Some(oldest) = self.cache.first_entry() else {
                return;
            };
            if oldest.get().append > self.appends_written {
                return;
            }
            self.cache_bytes -= oldest.remove().bytes;
        }
    }

    fn truncate(&mut self, last: Option<LogId>) {
        if self.end_index() <= last.map_or(0, |last| last.index + 1) {
            return;
        }
        let gone = self.cache.split_off(&last.map_or(0, |last| last.index + 1));
        self.cache_bytes -= gone.values().map(|cached| cached.bytes).sum::<usize>();
        self.last = last.or(self.purged);
        self.removals += 1;
    }

    fn purge(&mut self, upto: LogId) {
        let kept = self.cache.split_off(&(upto.index + 1));
        let gone = std::mem::replace(&mut self.cache, kept);
        self.cache_bytes -= gone.values().map(|cached| cached.bytes).sum::<usize>();
        self.purged = Some(upto);
        self.first = upto.index + 1;
        if self.last.is_none_or(|last| last.index <= upto.index) {
            self.last = Some(upto);
        }
        self.removals += 1;
    }
}

impl<R: Runtime> RaftLogReader<Types<R>> for LogStore<R> {
    async fn try_get_log_entries<B>(&mut self, range: B) -> Result<Vec<Entry>, io::Error>
    where
        B: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (start, end) = bounds(&range);
        Ok(self.read(start, end, usize::MAX).await?)
    }

    /// In bounded memory: entries are read page by page.
    async fn entries_stream<B>(
        &mut self,
        range: B,
    ) -> impl Stream<Item = Result<Entry, io::Error>> + OptionalSend
    where
        B: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (start, end) = bounds(&range);
        let first: Vec<Entry> = Vec::new();
        stream::try_unfold(
            (self.clone(), start, first.into_iter()),
            move |(log, mut next, mut page)| async move {
                loop {
                    if let Some(entry) = page.next() {
                        return Ok(Some((entry, (log, next, page))));
                    }
                    if next >= end {
                        return Ok(None);
                    }
                    let entries = log.read(next, end, log.portions.append_bytes).await?;
                    let Some(last) = entries.last() else {
                        return Ok(None);
                    };
                    next = last.log_id.index + 1;
                    page = entries.into_iter();
                }
            },
        )
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, io::Error> {
        Ok(self.read(start, end, self.portions.append_bytes).await?)
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.vote())
    }
}

impl<R: Runtime> RaftLogStorage<Types<R>> for LogStore<R> {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<OpenraftLogState<Types<R>>, io::Error> {
        let state = self.state();
        Ok(OpenraftLogState {
            last_purged_log_id: state.purged,
            last_log_id: state.last,
        })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let change = put_meta(VOTE, vote);
        self.journal.commit(vec![change]).await?;
        {
            let mut state = self.state();
            if !vote.committed && vote.leader_id.voted_for.server == self.id {
                state.elections += 1;
            }
            state.vote = Some(vote.clone());
        }
        self.observer.observe(Observation::VoteSaved {
            term: vote.leader_id.term,
            voted_for: &vote.leader_id.voted_for.to_string(),
            committed: vote.committed,
        });
        Ok(())
    }

    /// Not waited for: losing it costs only that a restarted server applies its last entries a little later.
    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        if let Some(committed) = committed {
            self.state().committed = Some(committed);
            self.journal.later(vec![put_meta(COMMITTED, &committed)]).await?;
        }
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(self.state().committed)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types<R>>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let (changes, append) = self.take_in(entries);
        let (state, entries) = (self.state.clone(), changes.len());
        let written = Box::new(move || lock(&state).written(append));
        let durable = Box::new(move |result: Result<(), StoreError>| {
            callback.io_completed(result.map_err(io::Error::from));
        });
        self.journal.append(changes, entries, written, durable).await?;
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        self.state().truncate(last);
        let from = last.map_or(0, |last| last.index + 1);
        self.observer.observe(Observation::Truncated {
            after: from.saturating_sub(1),
        });
        // Not waited for: whatever is written next comes behind it on disk too.
        let change = Change::DeleteRange(Keyspace::Log, codec::log_key(from), codec::log_end());
        self.journal.later(vec![change]).await?;
        Ok(())
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), io::Error> {
        let first = {
            let mut state = self.state();
            let first = state.first;
            state.purge(upto);
            first
        };
        self.observer.observe(Observation::Purged { upto: upto.index });
        // In one batch, so that the log never begins elsewhere than its mark says. Not waited for: what it removes is
        // in the durable checkpoint, and coming back after a crash does no harm.
        let (from, to) = (codec::log_key(first), codec::log_key(upto.index + 1));
        let removed = Change::DeleteRange(Keyspace::Log, from, to);
        self.journal.later(vec![removed, put_meta(PURGED, &upto)]).await?;
        Ok(())
    }
}

fn lock(state: &Mutex<LogState>) -> MutexGuard<'_, LogState> {
    // Every change of it is complete before anything can panic.
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn bounds(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let start = match range.start_bound() {
        Bound::Included(&index) => index,
        Bound::Excluded(&index) => index.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(&index) => index.saturating_add(1),
        Bound::Excluded(&index) => index,
        Bound::Unbounded => u64::MAX,
    };
    (start, end)
}

pub(crate) fn put_meta<T: Serialize>(name: &'static str, value: &T) -> Change {
    Change::Put(
        Keyspace::Meta,
        Bytes::from_static(name.as_bytes()),
        codec::seal_meta(name, value),
    )
}

/// A single value; `None` when it was never written.
pub(crate) async fn read_meta<D: Disk, T: DeserializeOwned>(
    disk: &D,
    name: &'static str,
) -> Result<Option<T>, StoreError> {
    match disk
        .get(Keyspace::Meta, name.as_bytes())
        .await
        .map_err(StoreError::disk("reading the metadata"))?
    {
        Some(value) => codec::open_meta(name, &value).map(Some),
        None => Ok(None),
    }
}
