use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use bytes::Bytes;
use sider_core::runtime::{Change, Disk, Keyspace};
use sider_runtime_sim::{DiskStep, Edge, Host, Survival, World};

use crate::{ms, on_seeds};

fn put(keyspace: Keyspace, key: u64) -> Change {
    Change::Put(
        keyspace,
        Bytes::copy_from_slice(&key.to_be_bytes()),
        Bytes::from_static(b"value"),
    )
}

/// A host that writes a log entry, syncs, and notes a round in `Meta`, again and again; counts the rounds it knows of.
fn writer(world: &World) -> (Host, Arc<AtomicU64>) {
    let rounds = Arc::new(AtomicU64::new(0));
    let host = world.host("writer");
    let counted = rounds.clone();
    host.start(move |host| {
        let rounds = counted.clone();
        async move {
            let disk = host.disk();
            for round in 1.. {
                disk.write(vec![put(Keyspace::Log, round)]).await.expect("sound");
                disk.sync().await.expect("sound");
                disk.write(vec![put(Keyspace::Meta, round)]).await.expect("sound");
                rounds.store(round, Ordering::Relaxed);
            }
        }
    });
    (host, rounds)
}

/// Cuts the host's power at a step, keeping what `survival` says; gives how many log entries and notes are there then,
/// and how many rounds the process knows of.
async fn cut_at(
    world: &World,
    step: DiskStep,
    edge: Edge,
    nth: u32,
    survival: Survival,
) -> (usize, usize, u64) {
    let (host, rounds) = writer(world);
    let falling = host.clone();
    host.disk()
        .set_trap(step, edge, nth, move || falling.power_cut(survival));
    world.sleep(ms(2_000)).await;
    assert!(!host.is_up(), "the trap was sprung");
    let disk = host.disk();
    let left = (
        disk.len(Keyspace::Log),
        disk.len(Keyspace::Meta),
        rounds.load(Ordering::Relaxed),
    );
    world.sleep(ms(1_000)).await;
    assert_eq!(disk.len(Keyspace::Log), left.0, "nothing happens after it");
    left
}

#[test]
fn a_trap_is_sprung_exactly_at_its_step() {
    on_seeds(|world| async move {
        let log = DiskStep::Put(Keyspace::Log);
        let all = Survival::Everything;
        assert_eq!(cut_at(&world, log, Edge::Before, 3, all).await, (2, 2, 2));
        assert_eq!(cut_at(&world, log, Edge::After, 3, all).await, (3, 2, 2));
        let meta = DiskStep::Put(Keyspace::Meta);
        assert_eq!(cut_at(&world, meta, Edge::Before, 3, all).await, (3, 2, 2));
        assert_eq!(cut_at(&world, meta, Edge::After, 3, all).await, (3, 3, 2));
    });
}

#[test]
fn between_append_and_sync_an_entry_can_be_lost_and_after_the_sync_it_cannot() {
    on_seeds(|world| async move {
        let nothing = Survival::Nothing;
        // The notes of a round become durable with the entry of the next.
        let before = cut_at(&world, DiskStep::Sync, Edge::Before, 3, nothing).await;
        assert_eq!(before, (2, 1, 2));
        let after = cut_at(&world, DiskStep::Sync, Edge::After, 3, nothing).await;
        assert_eq!(after, (3, 2, 2));
    });
}

#[test]
fn a_trap_can_be_set_for_deletions_and_taken_away() {
    on_seeds(|world| async move {
        let host = world.host("a");
        let disk = host.disk();
        let sprung = Arc::new(AtomicU64::new(0));
        let count = sprung.clone();
        disk.set_trap(DiskStep::Delete(Keyspace::Log), Edge::Before, 1, move || {
            count.fetch_add(1, Ordering::Relaxed);
        });
        disk.write(vec![put(Keyspace::Log, 1)])
            .await
            .expect("no deletion");
        disk.clear_trap();
        let delete = Change::DeleteRange(Keyspace::Log, Bytes::new(), Bytes::from_static(&[9; 9]));
        disk.write(vec![delete]).await.expect("the trap is gone");
        assert_eq!(sprung.load(Ordering::Relaxed), 0);
    });
}

#[test]
fn a_disk_that_was_replaced_is_empty() {
    on_seeds(|world| async move {
        let host = world.host("a");
        host.disk()
            .write(vec![put(Keyspace::Log, 1)])
            .await
            .expect("sound");
        host.power_cut(Survival::Everything);
        host.disk().lose_everything();
        host.restart();
        assert!(host.disk().is_empty());
        host.disk()
            .write(vec![put(Keyspace::Log, 1)])
            .await
            .expect("sound");
        host.disk().sync().await.expect("sound");
        host.power_cut(Survival::Nothing);
        assert_eq!(host.disk().len(Keyspace::Log), 1);
    });
}

#[test]
fn slow_reads_take_their_time() {
    on_seeds(|world| async move {
        let disk = world.host("a").disk();
        disk.set_access_time(1_000_000, ms(30)..ms(31));
        let before = world.now();
        disk.get(Keyspace::Log, b"x").await.expect("sound");
        let took = world.now() - before;
        assert!(took >= ms(30) && took < ms(32), "{took:?}");
    });
}
