//! Checkpoints and snapshots: whole at every moment, whatever fails.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use futures_util::stream;
use openraft::{
    RaftSnapshotBuilder, StorageHelper,
    storage::{RaftLogStorage, RaftLogStorageExt, RaftStateMachine},
};

use super::{
    Stores, entry, load_checkpoint, log_id, member, membership_entry,
    platform::{TestDisk, TestRuntime},
};
use crate::{
    limits,
    raft::{
        checkpoint::{SnapshotData, StoredSnapshot},
        snapshot::{Chunk, ChunkAnswer, Header, Outgoing, Received, Receiver},
        types::{Entry, Payload, Proposal, SnapshotMeta, Types, Vote},
    },
    runtime::Keyspace,
};

async fn apply(stores: &mut Stores, entries: impl IntoIterator<Item = Entry>) {
    let entries: Vec<_> = entries.into_iter().map(|entry| Ok((entry, None))).collect();
    stores.state.apply(stream::iter(entries)).await.unwrap();
}

/// Appends and applies entries `range` after a membership at 0, as a member would have them.
async fn fill(stores: &mut Stores, term: u64, range: std::ops::Range<u64>) {
    let entries: Vec<Entry> = range
        .map(|index| match index {
            0 => membership_entry(term, 0, &["a", "b", "c"]),
            index => entry(term, index),
        })
        .collect();
    stores.log.blocking_append(entries.clone()).await.unwrap();
    apply(stores, entries).await;
}

async fn checkpoint(stores: &mut Stores) -> Result<SnapshotMeta, std::io::Error> {
    let mut builder = stores.state.try_create_snapshot_builder(true).await.unwrap();
    Ok(builder.build_snapshot().await?.meta)
}

async fn stored(stores: &mut Stores) -> (SnapshotMeta, StoredSnapshot<TestDisk>) {
    let snapshot = stores.state.get_current_snapshot().await.unwrap().unwrap();
    match snapshot.snapshot {
        SnapshotData::Stored(stored) => (snapshot.meta, stored),
        SnapshotData::Received(_) => unreachable!("a member's own checkpoint is stored"),
    }
}

/// The chunks that a snapshot is sent in.
async fn chunks(stores: &mut Stores, transfer: u64) -> Vec<(Chunk, Bytes)> {
    let (meta, stored) = stored(stores).await;
    let mut outgoing = Outgoing::new(&stored, limits::SNAPSHOT_CHUNK_BYTES);
    let mut chunks = Vec::new();
    while let Some((sequence, rows, end)) = outgoing.next().await.unwrap() {
        let chunk = Chunk {
            vote: Vote::new_committed(3, member("b")),
            transfer,
            sequence,
            header: Header {
                meta: meta.clone(),
                index: stored.record.index,
                digest: stored.record.digest,
            },
            end,
        };
        chunks.push((chunk, rows));
    }
    chunks
}

fn receiver(stores: &Stores) -> Receiver<TestRuntime> {
    Receiver::new(stores.disk.clone(), stores.journal.clone())
}

async fn answer(receiver: &Receiver<TestRuntime>, chunk: &(Chunk, Bytes)) -> ChunkAnswer {
    match receiver.take(&chunk.0, chunk.1.clone()).await.unwrap() {
        Received::Answer(answer) => answer,
        Received::Complete(_) => panic!("it is not complete"),
    }
}

/// A leader with a checkpoint of so many rows that it takes several chunks.
async fn large_leader() -> Stores {
    let mut leader = Stores::open(TestDisk::default()).await.unwrap();
    fill(&mut leader, 3, 0..12_000).await;
    checkpoint(&mut leader).await.unwrap();
    leader
}

#[tokio::test(start_paused = true)]
async fn a_checkpoint_writes_only_what_changed() {
    let mut stores = Stores::open(TestDisk::default()).await.unwrap();
    fill(&mut stores, 1, 0..200).await;
    let before = stores.disk.image();
    assert!(before.pairs(Keyspace::State).is_empty());
    checkpoint(&mut stores).await.unwrap();
    let first = stores.disk.image();
    apply(&mut stores, [entry(1, 200)]).await;
    checkpoint(&mut stores).await.unwrap();
    let second = stores.disk.image();
    let changed = second
        .pairs(Keyspace::State)
        .iter()
        .filter(|(key, value)| first.pairs(Keyspace::State).get(*key) != Some(value))
        .count();
    assert!((1..20).contains(&changed), "{changed} rows changed");

    let (registry, record) = load_checkpoint(&stores.disk.after_power_cut(0)).await.unwrap();
    assert_eq!(registry.digest(), stores.digest());
    let record = record.unwrap();
    assert_eq!(record.log_id, Some(log_id(1, 200)));
    assert_eq!(record.membership.voter_ids().count(), 3);
    assert_eq!(
        stores.observed.starting_with("Checkpointed"),
        [
            "Checkpointed { log_index: 199 }",
            "Checkpointed { log_index: 200 }"
        ]
    );
}

/// Whatever write or sync a checkpoint is cut off at, the one before it or itself is there as a whole.
#[tokio::test(start_paused = true)]
async fn an_interrupted_checkpoint_leaves_a_whole_one() {
    let mut outcomes = BTreeMap::new();
    for stop in 0..4 {
        for survive in [false, true] {
            let mut stores = Stores::open(TestDisk::default()).await.unwrap();
            fill(&mut stores, 1, 0..50).await;
            checkpoint(&mut stores).await.unwrap();
            let old = stores.digest();
            apply(&mut stores, (50..80).map(|index| entry(1, index))).await;
            let new = stores.digest();
            stores.disk.stop_after(stop);
            let done = checkpoint(&mut stores).await.is_ok();
            let survivors = if survive { usize::MAX } else { 0 };
            let (registry, record) = load_checkpoint(&stores.disk.after_power_cut(survivors))
                .await
                .unwrap();
            let index = record.unwrap().log_id.unwrap().index;
            match registry.digest() {
                digest if digest == old => assert_eq!(index, 49),
                digest if digest == new => assert_eq!(index, 79),
                _ => panic!("neither the old checkpoint nor the new one"),
            }
            assert!(!done || index == 79, "a checkpoint that was made is lost");
            outcomes.insert((stop, survive), index);
        }
    }
    // Written but not synced, it depends on the power cut.
    assert_eq!(outcomes[&(0, true)], 49);
    assert_eq!((outcomes[&(1, false)], outcomes[&(1, true)]), (49, 79));
    assert_eq!(outcomes[&(2, false)], 79);
}

#[tokio::test(start_paused = true)]
async fn a_builder_that_is_not_used_loses_nothing() {
    let mut stores = Stores::open(TestDisk::default()).await.unwrap();
    fill(&mut stores, 1, 0..10).await;
    drop(stores.state.try_create_snapshot_builder(true).await);
    let unused = stores.state.try_create_snapshot_builder(true).await;
    apply(&mut stores, [entry(1, 10)]).await;
    drop(unused);
    checkpoint(&mut stores).await.unwrap();
    let (registry, _) = load_checkpoint(&stores.disk.after_power_cut(0)).await.unwrap();
    assert_eq!(registry.digest(), stores.digest());
}

#[tokio::test(start_paused = true)]
async fn a_spoilt_checkpoint_does_not_load() {
    let mut stores = Stores::open(TestDisk::default()).await.unwrap();
    fill(&mut stores, 1, 0..10).await;
    checkpoint(&mut stores).await.unwrap();
    let disk = stores.disk.after_crash();
    disk.spoil(Keyspace::Meta, b"checkpoint", |value| value[10] ^= 1);
    let error = load_checkpoint(&disk).await.unwrap_err().to_string();
    assert!(error.contains("Meta/checkpoint is corrupt"), "{error}");
    // A row that is gone is noticed by what is left.
    let disk = stores.disk.after_crash();
    let key = disk.image().pairs(Keyspace::State).keys().last().unwrap().clone();
    let journal = crate::raft::journal::Journal::start::<TestRuntime>(
        disk.clone(),
        limits::JOURNAL_WRITES_MAX,
        Arc::new(crate::observe::NoObserver),
    );
    journal
        .commit(vec![crate::runtime::Change::Delete(Keyspace::State, key)])
        .await
        .unwrap();
    let error = load_checkpoint(&disk).await.unwrap_err().to_string();
    assert!(error.contains("corrupt"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_goes_over_in_bounded_chunks() {
    let mut leader = large_leader().await;
    let mut follower = Stores::open(TestDisk::default()).await.unwrap();
    fill(&mut follower, 1, 0..20).await;
    checkpoint(&mut follower).await.unwrap();
    let chunks = chunks(&mut leader, 1).await;
    assert!(chunks.len() > 3, "{} chunks", chunks.len());
    for (chunk, rows) in &chunks {
        assert!(rows.len() <= limits::SNAPSHOT_CHUNK_BYTES + 1_000);
        assert_eq!(chunk.end.is_some(), chunk.sequence as usize == chunks.len() - 1);
    }
    let receiver = receiver(&follower);
    let (last, before) = chunks.split_last().unwrap();
    for chunk in before {
        assert_eq!(answer(&receiver, chunk).await, ChunkAnswer::Accepted);
        // Sent again, for want of an answer.
        assert_eq!(answer(&receiver, chunk).await, ChunkAnswer::Accepted);
    }
    let Received::Complete(received) = receiver.take(&last.0, last.1.clone()).await.unwrap() else {
        panic!("it is not complete");
    };
    // Until it is installed, no other can begin.
    assert_eq!(answer(&receiver, &chunks[0]).await, ChunkAnswer::Busy);
    let meta = last.0.header.meta.clone();
    follower
        .state
        .install_snapshot(&meta, SnapshotData::Received(received))
        .await
        .unwrap();
    assert_eq!(follower.digest(), leader.digest());
    assert_eq!(follower.state.applied().get(), 11_999);
    assert_eq!(follower.listened.starting_with("replaced at 11999").len(), 1);

    // What changes after it is added to it.
    apply(&mut follower, [entry(3, 12_000)]).await;
    checkpoint(&mut follower).await.unwrap();
    let disk = follower.disk.after_power_cut(0);
    let (registry, record) = load_checkpoint(&disk).await.unwrap();
    assert_eq!(registry.digest(), follower.digest());
    assert_eq!(record.unwrap().log_id, Some(log_id(3, 12_000)));
    // The old generation and the incoming rows are gone after the next start at the latest.
    let reopened = Stores::open(disk).await.unwrap();
    reopened.journal.commit(Vec::new()).await.unwrap();
    let image = reopened.disk.image();
    assert!(image.pairs(Keyspace::Incoming).is_empty());
    assert_eq!(image.pairs(Keyspace::State).len(), registry.rows().count());
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_with_a_fault_in_it_is_refused() {
    let mut leader = large_leader().await;
    let follower = Stores::open(TestDisk::default()).await.unwrap();
    let chunks = chunks(&mut leader, 1).await;
    let receiver = receiver(&follower);
    let restart = |answer: ChunkAnswer, part: &str| match answer {
        ChunkAnswer::Restart(reason) => assert!(reason.contains(part), "{reason}"),
        other => panic!("{other:?}"),
    };
    // It begins in the middle.
    restart(answer(&receiver, &chunks[1]).await, "another transfer");
    // One is missing.
    assert_eq!(answer(&receiver, &chunks[0]).await, ChunkAnswer::Accepted);
    restart(answer(&receiver, &chunks[2]).await, "missing");
    restart(answer(&receiver, &chunks[1]).await, "another transfer");
    // One is malformed.
    let mut malformed = chunks[1].clone();
    malformed.1 = malformed.1.slice(..malformed.1.len() - 1);
    assert_eq!(answer(&receiver, &chunks[0]).await, ChunkAnswer::Accepted);
    restart(answer(&receiver, &malformed).await, "malformed");
    // One has a flipped bit.
    let mut flipped = chunks[1].clone();
    let mut bytes = flipped.1.to_vec();
    *bytes.last_mut().unwrap() ^= 1;
    flipped.1 = bytes.into();
    for (index, chunk) in chunks.iter().enumerate() {
        let chunk = if index == 1 { &flipped } else { chunk };
        let answer = answer(&receiver, chunk).await;
        if index == chunks.len() - 1 {
            restart(answer, "checksum");
        } else {
            assert_eq!(answer, ChunkAnswer::Accepted);
        }
    }
    // All is there, but not of the state that was announced.
    for (index, (chunk, rows)) in chunks.iter().enumerate() {
        let mut chunk = chunk.clone();
        chunk.header.digest ^= 1;
        let answer = answer(&receiver, &(chunk, rows.clone())).await;
        if index == chunks.len() - 1 {
            restart(answer, "digest");
        } else {
            assert_eq!(answer, ChunkAnswer::Accepted);
        }
    }
    // Another transfer takes the place of one that was given up.
    assert_eq!(answer(&receiver, &chunks[0]).await, ChunkAnswer::Accepted);
    let mut other = chunks[0].clone();
    other.0.transfer = 2;
    assert_eq!(answer(&receiver, &other).await, ChunkAnswer::Accepted);
    restart(answer(&receiver, &chunks[1]).await, "another transfer");
}

/// Receives and installs a snapshot at a follower whose disk stops after some operations, then loses its power.
async fn interrupted_install(
    leader: &mut Stores,
    stop: Option<u64>,
    survivors: usize,
) -> (u64, TestDisk, u128) {
    let mut follower = Stores::open(TestDisk::default()).await.unwrap();
    fill(&mut follower, 1, 0..20).await;
    checkpoint(&mut follower).await.unwrap();
    fill(&mut follower, 1, 20..30).await;
    follower.log.save_committed(Some(log_id(1, 29))).await.unwrap();
    follower
        .log
        .save_vote(&Vote::new_committed(3, member("b")))
        .await
        .unwrap();
    let old = follower.digest();
    let before = follower.disk.operations();
    if let Some(stop) = stop {
        follower.disk.stop_after(stop);
    }
    let _ = install(leader, &mut follower).await;
    let operations = follower.disk.operations() - before;
    (operations, follower.disk.after_power_cut(survivors), old)
}

/// As openraft does it: everything received, then installed, then the log below it purged.
async fn install(leader: &mut Stores, follower: &mut Stores) -> Result<(), std::io::Error> {
    let receiver = receiver(follower);
    for (chunk, rows) in chunks(leader, 7).await {
        if let Received::Complete(received) = receiver.take(&chunk, rows).await? {
            let meta = chunk.header.meta.clone();
            follower
                .state
                .install_snapshot(&meta, SnapshotData::Received(received))
                .await?;
            follower.log.purge(meta.last_log_id.unwrap()).await?;
            follower.journal.commit(Vec::new()).await?;
        }
    }
    Ok(())
}

/// Whatever write or sync an installation is cut off at, and whatever of the unsynced writes survives: the member
/// starts from its own old state or from the whole snapshot, and openraft finds log and marks in keeping with it.
#[tokio::test(start_paused = true)]
async fn an_interrupted_installation_leaves_a_member_that_starts() {
    let mut leader = Stores::open(TestDisk::default()).await.unwrap();
    fill(&mut leader, 3, 0..700).await;
    checkpoint(&mut leader).await.unwrap();
    let new = leader.digest();
    let (operations, _, _) = interrupted_install(&mut leader, None, usize::MAX).await;
    assert!(operations > 5, "{operations}");
    let (mut olds, mut news) = (0, 0);
    for stop in 0..=operations {
        for survivors in [0, 1, 2, 3, usize::MAX] {
            let (_, disk, old) = interrupted_install(&mut leader, Some(stop), survivors).await;
            let mut stores = Stores::open(disk).await.unwrap();
            let state = StorageHelper::<Types<TestRuntime>, _, _>::new(&mut stores.log, &mut stores.state)
                .with_id(member("a"))
                .get_initial_state()
                .await
                .unwrap();
            let digest = stores.digest();
            if digest == new {
                news += 1;
                assert_eq!(stores.state.applied().get(), 699);
                assert_eq!(state.snapshot_meta.last_log_id, Some(log_id(3, 699)));
                let log = stores.log.get_log_state().await.unwrap();
                assert_eq!(log.last_log_id, Some(log_id(3, 699)));
                assert_eq!(log.last_purged_log_id, Some(log_id(3, 699)));
            } else {
                olds += 1;
                assert_eq!(digest, old, "stopped after {stop}, {survivors} survivors");
                assert_eq!(stores.state.applied().get(), 29);
            }
            // It goes on from there.
            checkpoint(&mut stores).await.unwrap();
        }
    }
    assert!(
        olds > 10 && news > 5,
        "{olds} times the old state, {news} times the new one"
    );
}

/// A checkpoint that was begun before a snapshot came and is written after it must not spoil it.
#[tokio::test(start_paused = true)]
async fn a_checkpoint_from_before_an_installation_is_not_written() {
    let mut leader = large_leader().await;
    let mut follower = Stores::open(TestDisk::default()).await.unwrap();
    fill(&mut follower, 1, 0..20).await;
    checkpoint(&mut follower).await.unwrap();
    fill(&mut follower, 1, 20..30).await;
    let mut outdated = follower.state.try_create_snapshot_builder(true).await.unwrap();
    install(&mut leader, &mut follower).await.unwrap();
    let snapshot = outdated.build_snapshot().await.unwrap();
    assert_eq!(snapshot.meta.last_log_id, Some(log_id(3, 11_999)));
    let (registry, _) = load_checkpoint(&follower.disk.after_power_cut(0)).await.unwrap();
    assert_eq!(registry.digest(), leader.digest());
}

/// A command that this version does not know stops the member at it; it is not skipped.
#[tokio::test(start_paused = true)]
async fn an_unknown_command_version_stops_the_state_machine() {
    let mut stores = Stores::open(TestDisk::default()).await.unwrap();
    fill(&mut stores, 1, 0..3).await;
    let newer = Entry {
        log_id: log_id(1, 3),
        payload: Payload::Normal(Proposal::from_bytes(Bytes::from_static(&[200, 1, 2, 3]))),
    };
    let result = stores.state.apply(stream::iter([Ok((newer, None))])).await;
    let error = result.unwrap_err().to_string();
    assert!(error.contains("log entry 3"), "{error}");
    assert!(error.contains("version 200"), "{error}");
    assert_eq!(stores.state.applied().get(), 2);
}
