//! The log on disk: what survives, what is refused, what is never trusted.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::StreamExt;
use openraft::{
    RaftLogReader,
    async_runtime::{Oneshot, oneshot},
    storage::{IOFlushed, RaftLogStorage},
};
use openraft_rt_tokio::TokioOneshot;

use super::{Stores, entry, log_id, member, membership_entry, platform::TestDisk};
use crate::{
    limits,
    raft::{
        codec::{self, StoreError},
        types::{Entry, Payload, Vote},
    },
    runtime::Keyspace,
};

type Flushed = <TokioOneshot as oneshot::Oneshot>::Receiver<Result<(), std::io::Error>>;

/// Appends, and gives what tells when it is durable.
async fn append(stores: &mut Stores, entries: Vec<Entry>) -> Result<Flushed, std::io::Error> {
    let (sender, receiver) = TokioOneshot::channel();
    stores.log.append(entries, IOFlushed::signal(sender)).await?;
    Ok(receiver)
}

async fn append_durably(stores: &mut Stores, entries: Vec<Entry>) {
    append(stores, entries).await.unwrap().await.unwrap().unwrap();
}

async fn indexes(stores: &mut Stores, range: std::ops::Range<u64>) -> Vec<u64> {
    let entries = stores.log.try_get_log_entries(range).await.unwrap();
    entries.iter().map(|entry| entry.log_id.index).collect()
}

fn vote(term: u64, name: &str, committed: bool) -> Vote {
    let mut vote = Vote::new(term, member(name));
    vote.committed = committed;
    vote
}

#[tokio::test(start_paused = true)]
async fn entries_are_read_at_once_and_durable_when_told() {
    let disk = TestDisk::default();
    disk.set_sync_time(Duration::from_millis(10));
    let mut stores = Stores::open(disk.clone()).await.unwrap();
    let mut flushed = append(&mut stores, (0..5).map(|index| entry(1, index)).collect())
        .await
        .unwrap();
    assert_eq!(indexes(&mut stores, 0..9).await, [0, 1, 2, 3, 4]);
    assert!(futures_util::poll!(&mut flushed).is_pending());
    assert_eq!(disk.after_power_cut(0).image().pairs(Keyspace::Log).len(), 0);
    flushed.await.unwrap().unwrap();
    assert_eq!(disk.after_power_cut(0).image().pairs(Keyspace::Log).len(), 5);
}

/// What gathers during one sync shares the next, and is told in order.
#[tokio::test(start_paused = true)]
async fn appends_share_syncs_and_complete_in_order() {
    let disk = TestDisk::default();
    disk.set_sync_time(Duration::from_millis(10));
    let mut stores = Stores::open(disk.clone()).await.unwrap();
    let order = Arc::new(Mutex::new(Vec::new()));
    for index in 0..100 {
        let flushed = append(&mut stores, vec![entry(1, index)]).await.unwrap();
        let order = order.clone();
        tokio::runtime::Handle::current().spawn(async move {
            flushed.await.unwrap().unwrap();
            order.lock().unwrap().push(index);
        });
    }
    stores.journal.commit(Vec::new()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(*order.lock().unwrap(), (0..100).collect::<Vec<_>>());
    assert!(disk.syncs() <= 3, "{} syncs", disk.syncs());
    let synced = stores.observed.starting_with("Synced");
    assert_eq!(synced.len() as u64, disk.syncs(), "{synced:?}");
}

#[tokio::test(start_paused = true)]
async fn everything_is_found_again_after_a_restart() {
    let mut stores = Stores::open(TestDisk::default()).await.unwrap();
    assert!(!stores.log.is_initialized());
    let entries = vec![
        membership_entry(1, 0, &["a", "b"]),
        Entry {
            log_id: log_id(1, 1),
            payload: Payload::Blank,
        },
        entry(1, 2),
        entry(2, 3),
        entry(2, 4),
    ];
    append_durably(&mut stores, entries.clone()).await;
    stores.log.save_committed(Some(log_id(2, 3))).await.unwrap();
    stores.log.purge(log_id(1, 1)).await.unwrap();
    stores.log.truncate_after(Some(log_id(2, 3))).await.unwrap();
    stores.log.save_vote(&vote(3, "a", false)).await.unwrap();
    assert_eq!(stores.log.elections(), 1);

    let mut stores = Stores::open(stores.disk.after_power_cut(0)).await.unwrap();
    assert!(stores.log.is_initialized());
    assert_eq!(stores.log.read_vote().await.unwrap(), Some(vote(3, "a", false)));
    assert_eq!(stores.log.read_committed().await.unwrap(), Some(log_id(2, 3)));
    let state = stores.log.get_log_state().await.unwrap();
    assert_eq!(state.last_purged_log_id, Some(log_id(1, 1)));
    assert_eq!(state.last_log_id, Some(log_id(2, 3)));
    assert_eq!(stores.log.try_get_log_entries(0..9).await.unwrap(), entries[2..4]);
}

/// At every moment the disk holds a prefix of what was done, however many of the unsynced writes survive.
#[tokio::test(start_paused = true)]
async fn any_prefix_of_the_writes_is_a_log() {
    let disk = TestDisk::default();
    disk.set_sync_time(Duration::from_secs(1));
    let mut stores = Stores::open(disk.clone()).await.unwrap();
    append_durably(&mut stores, (0..6).map(|index| entry(1, index)).collect()).await;
    stores.log.save_vote(&vote(2, "b", true)).await.unwrap();
    // Nothing of this is synced; each is a write of its own.
    stores.log.truncate_after(Some(log_id(1, 3))).await.unwrap();
    tokio::task::yield_now().await;
    let flushed = append(&mut stores, vec![entry(2, 4)]).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1)).await;
    drop(flushed);
    let unsynced = disk.unsynced();
    assert_eq!(unsynced, 2);
    let mut ends = Vec::new();
    for survivors in 0..=unsynced {
        let mut stores = Stores::open(disk.after_power_cut(survivors)).await.unwrap();
        let last = stores.log.get_log_state().await.unwrap().last_log_id.unwrap();
        let read = indexes(&mut stores, 0..99).await;
        assert_eq!(read, (0..=last.index).collect::<Vec<_>>());
        ends.push((last.leader_id.term, last.index));
    }
    assert_eq!(ends, [(1, 5), (1, 3), (2, 4)]);
}

#[tokio::test(start_paused = true)]
async fn after_a_failed_sync_nothing_is_trusted() {
    let disk = TestDisk::default();
    let mut stores = Stores::open(disk.clone()).await.unwrap();
    append_durably(&mut stores, vec![entry(1, 0)]).await;
    // The write succeeds, its sync does not.
    disk.stop_after(1);
    let flushed = append(&mut stores, vec![entry(1, 1)]).await.unwrap();
    let error = flushed.await.unwrap().unwrap_err();
    assert!(
        error.to_string().contains("the test stopped this disk"),
        "{error}"
    );
    // The disk would work again, but what it lost is lost.
    disk.stop_after(1_000);
    let error = append(&mut stores, vec![entry(1, 2)]).await.err().unwrap();
    assert!(error.to_string().contains("failed earlier"), "{error}");
    assert!(stores.log.save_vote(&vote(9, "a", false)).await.is_err());
    assert_eq!(stores.log.vote(), None);
    assert!(stores.journal.write(Vec::new()).await.is_err());
    assert!(stores.journal.failure().get().unwrap().contains("a sync failed"));
}

#[tokio::test(start_paused = true)]
async fn after_a_failed_write_nothing_is_trusted() {
    let disk = TestDisk::default();
    let mut stores = Stores::open(disk.clone()).await.unwrap();
    stores.journal.commit(Vec::new()).await.unwrap();
    disk.stop_after(0);
    let first = append(&mut stores, vec![entry(1, 0)]).await.unwrap();
    let second = append(&mut stores, vec![entry(1, 1)]).await.unwrap();
    assert!(first.await.unwrap().is_err());
    assert!(second.await.unwrap().is_err());
    assert!(stores.journal.failure().get().unwrap().contains("a write failed"));
}

/// Old entries leave memory once they are written, and are read from disk then.
#[tokio::test(start_paused = true)]
async fn memory_is_bounded_and_the_rest_is_read_from_disk() {
    let mut stores = Stores::open(TestDisk::default()).await.unwrap();
    let total = limits::LOG_CACHE_ENTRIES_MAX as u64 + 3 * limits::LOG_READ_ENTRIES as u64;
    let blank = |index| Entry {
        log_id: log_id(1, index),
        payload: Payload::Blank,
    };
    for start in (0..total).step_by(1_000) {
        append_durably(
            &mut stores,
            (start..total.min(start + 1_000)).map(blank).collect(),
        )
        .await;
    }
    assert_eq!(stores.log.cached(), limits::LOG_CACHE_ENTRIES_MAX);
    assert_eq!(
        indexes(&mut stores, 0..total + 5).await,
        (0..total).collect::<Vec<_>>()
    );
    let limited = stores.log.limited_get_log_entries(10, 20).await.unwrap();
    assert_eq!(limited.len(), 10);
    let streamed = stores
        .log
        .entries_stream(5..total)
        .await
        .collect::<Vec<_>>()
        .await;
    assert!(
        streamed
            .iter()
            .zip(5..total)
            .all(|(entry, index)| entry.as_ref().unwrap().log_id.index == index)
    );
    assert_eq!(streamed.len() as u64, total - 5);
}

/// An append request is bounded in bytes; a single entry goes however large it is.
#[tokio::test(start_paused = true)]
async fn limited_reads_are_bounded_in_bytes() {
    let mut stores = Stores::open(TestDisk::default()).await.unwrap();
    let large = |index| Entry {
        log_id: log_id(1, index),
        payload: Payload::Normal(crate::raft::types::Proposal::from_bytes(
            vec![7; limits::APPEND_BYTES * 2 / 3].into(),
        )),
    };
    append_durably(&mut stores, (0..4).map(large).collect()).await;
    assert_eq!(stores.log.limited_get_log_entries(0, 4).await.unwrap().len(), 1);
    let mut stores = Stores::open(stores.disk.after_power_cut(0)).await.unwrap();
    assert_eq!(stores.log.limited_get_log_entries(0, 4).await.unwrap().len(), 1);
    assert_eq!(stores.log.try_get_log_entries(0..4).await.unwrap().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn spoilt_entries_are_named_with_the_way_out() {
    let key = codec::log_key(1);
    type Spoil = (&'static str, fn(&mut Vec<u8>));
    let spoil: [Spoil; 4] = [
        ("its checksum does not match", |value| value[12] ^= 1),
        ("its checksum does not match", |value| value[3] ^= 1),
        ("it is cut off", |value| value.truncate(5)),
        ("it is empty", |value| value.clear()),
    ];
    for (reason, change) in spoil {
        let mut stores = Stores::open(TestDisk::default()).await.unwrap();
        append_durably(&mut stores, (0..3).map(|index| entry(1, index)).collect()).await;
        let disk = stores.disk.after_crash();
        disk.spoil(Keyspace::Log, &key, change);
        let mut stores = Stores::open(disk).await.unwrap();
        let error = stores
            .log
            .try_get_log_entries(0..3)
            .await
            .unwrap_err()
            .to_string();
        assert!(error.contains("Log/0000000000000001 is corrupt"), "{error}");
        assert!(error.contains(reason), "{error}");
        assert!(error.contains("add it again"), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_entry_in_another_ones_place_is_corrupt() {
    let mut stores = Stores::open(TestDisk::default()).await.unwrap();
    append_durably(&mut stores, (0..3).map(|index| entry(1, index)).collect()).await;
    let disk = stores.disk.after_crash();
    let other = disk.image().pairs(Keyspace::Log)[&codec::log_key(2)].to_vec();
    disk.spoil(Keyspace::Log, &codec::log_key(1), |value| *value = other);
    let mut stores = Stores::open(disk).await.unwrap();
    assert!(stores.log.try_get_log_entries(0..3).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn newer_formats_say_which_version_is_needed() {
    let mut stores = Stores::open(TestDisk::default()).await.unwrap();
    append_durably(&mut stores, (0..3).map(|index| entry(1, index)).collect()).await;
    stores.log.save_vote(&vote(1, "a", true)).await.unwrap();
    let disk = stores.disk.after_crash();
    disk.spoil(Keyspace::Log, &codec::log_key(1), |value| value[0] = 9);
    let mut reading = Stores::open(disk).await.unwrap();
    let error = reading
        .log
        .try_get_log_entries(0..3)
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("has format version 9, this server reads up to 1"),
        "{error}"
    );
    let disk = stores.disk.after_crash();
    disk.spoil(Keyspace::Meta, b"vote", |value| value[0] = 2);
    let error = Stores::open(disk).await.err().unwrap();
    assert!(
        matches!(error, StoreError::UnknownVersion { found: 2, .. }),
        "{error}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_log_with_a_gap_does_not_load() {
    let mut stores = Stores::open(TestDisk::default()).await.unwrap();
    append_durably(&mut stores, (0..5).map(|index| entry(1, index)).collect()).await;
    let gap = crate::runtime::Change::Delete(Keyspace::Log, codec::log_key(2));
    stores.journal.commit(vec![gap]).await.unwrap();
    let mut gapped = Stores::open(stores.disk.after_crash()).await.unwrap();
    let error = gapped
        .log
        .try_get_log_entries(0..5)
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("Log/0000000000000002 is corrupt: it is missing"),
        "{error}"
    );
    let first = crate::runtime::Change::Delete(Keyspace::Log, codec::log_key(0));
    stores.journal.commit(vec![first]).await.unwrap();
    let error = Stores::open(stores.disk.after_crash())
        .await
        .err()
        .unwrap()
        .to_string();
    assert!(error.contains("must begin with entry 0"), "{error}");
}

/// What is truncated while the disk is being read is not given.
#[tokio::test(start_paused = true)]
async fn a_read_never_mixes_before_and_after_a_truncation() {
    let mut stores = Stores::open(TestDisk::default()).await.unwrap();
    append_durably(&mut stores, (0..600).map(|index| entry(1, index)).collect()).await;
    let mut stores = Stores::open(stores.disk.after_crash()).await.unwrap();
    let mut reader = stores.log.clone();
    let mut read = Box::pin(reader.try_get_log_entries(0..600));
    assert!(futures_util::poll!(&mut read).is_pending());
    stores.log.truncate_after(Some(log_id(1, 299))).await.unwrap();
    let flushed = append(&mut stores, (300..400).map(|index| entry(2, index)).collect())
        .await
        .unwrap();
    let entries = read.await.unwrap();
    assert_eq!(entries.len(), 400);
    assert!(
        entries
            .iter()
            .all(|entry| entry.log_id.leader_id.term == if entry.log_id.index < 300 { 1 } else { 2 })
    );
    flushed.await.unwrap().unwrap();
}

/// Observers compare logs by the hashes of entries: equal for equal entries, and the same when applied.
#[tokio::test(start_paused = true)]
async fn observed_hashes_are_of_the_entries() {
    let mut stores = Stores::open(TestDisk::default()).await.unwrap();
    append_durably(&mut stores, vec![entry(1, 0), entry(1, 1)]).await;
    let hash = |entry: &Entry| format!("{:016x}", codec::entry_hash(&codec::encode_entry(entry)));
    assert_eq!(
        stores.observed.starting_with("appended"),
        [
            format!("appended 1.0 {}", hash(&entry(1, 0))),
            format!("appended 1.1 {}", hash(&entry(1, 1))),
        ]
    );
    let stored = stores.disk.image().pairs(Keyspace::Log)[&codec::log_key(1)].clone();
    let read = codec::decode_entry(&codec::log_key(1), &stored).unwrap();
    assert_eq!(hash(&read), hash(&entry(1, 1)));
    assert_ne!(hash(&entry(1, 1)), hash(&entry(2, 1)));
}
