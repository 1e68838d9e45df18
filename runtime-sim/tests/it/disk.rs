use std::{io::ErrorKind, time::Duration};

use bytes::Bytes;
use sider_core::runtime::{Change, Disk, DiskView, Keyspace, Runtime};
use sider_runtime_sim::{Host, SimDisk, SimRuntime, Survival, SyncFault};

use crate::{ms, on_seeds};

fn put(key: &str, value: &str) -> Change {
    Change::Put(
        Keyspace::Log,
        Bytes::copy_from_slice(key.as_bytes()),
        Bytes::copy_from_slice(value.as_bytes()),
    )
}

fn delete(key: &str) -> Change {
    Change::Delete(Keyspace::Log, Bytes::copy_from_slice(key.as_bytes()))
}

fn delete_range(from: &str, to: &str) -> Change {
    let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
    Change::DeleteRange(Keyspace::Log, bytes(from), bytes(to))
}

async fn write(disk: &SimDisk, batch: Vec<Change>) {
    disk.write(batch).await.expect("the disk is sound");
}

/// The whole log keyspace as `key=value`, joined by blanks.
async fn content(disk: &SimDisk) -> String {
    let pairs = disk
        .range(Keyspace::Log, b"", None, usize::MAX)
        .await
        .expect("the disk is sound");
    let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
    pairs
        .iter()
        .map(|(key, value)| format!("{}={}", text(key), text(value)))
        .collect::<Vec<_>>()
        .join(" ")
}

#[test]
fn it_reads_what_was_written_in_key_order() {
    on_seeds(|world| async move {
        let disk = world.host("a").disk();
        assert!(disk.is_empty());
        write(
            &disk,
            vec![put("b", "2"), put("a", "1"), put("c", "3"), put("d", "4")],
        )
        .await;
        assert_eq!(content(&disk).await, "a=1 b=2 c=3 d=4");
        assert_eq!(
            disk.get(Keyspace::Log, b"b").await.expect("sound"),
            Some(Bytes::from("2"))
        );
        assert_eq!(
            disk.get(Keyspace::Meta, b"b").await.expect("sound"),
            None,
            "keyspaces are apart"
        );
        assert_eq!(
            disk.last(Keyspace::Log).await.expect("sound"),
            Some((Bytes::from("d"), Bytes::from("4")))
        );
        assert_eq!(disk.last(Keyspace::State).await.expect("sound"), None);
        let some = disk
            .range(Keyspace::Log, b"b", Some(b"d"), 10)
            .await
            .expect("sound");
        assert_eq!(
            some,
            [
                (Bytes::from("b"), Bytes::from("2")),
                (Bytes::from("c"), Bytes::from("3"))
            ]
        );
        assert_eq!(
            disk.range(Keyspace::Log, b"b", Some(b"d"), 1)
                .await
                .expect("sound")
                .len(),
            1
        );
        assert!(
            disk.range(Keyspace::Log, b"d", Some(b"b"), 9)
                .await
                .expect("sound")
                .is_empty()
        );
        write(
            &disk,
            vec![delete_range("b", "d"), put("c", "5"), delete("a"), delete("x")],
        )
        .await;
        assert_eq!(content(&disk).await, "c=5 d=4", "in the order of the batch");
    });
}

#[test]
fn a_view_stays_as_it_was() {
    on_seeds(|world| async move {
        let disk = world.host("a").disk();
        write(&disk, vec![put("a", "1"), put("b", "2")]).await;
        let view = disk.view().await.expect("sound");
        write(&disk, vec![put("a", "9"), delete("b"), put("c", "3")]).await;
        assert_eq!(
            view.get(Keyspace::Log, b"a").await.expect("sound"),
            Some(Bytes::from("1"))
        );
        let pairs = view.range(Keyspace::Log, b"", None, 10).await.expect("sound");
        assert_eq!(
            pairs,
            [
                (Bytes::from("a"), Bytes::from("1")),
                (Bytes::from("b"), Bytes::from("2"))
            ]
        );
        assert_eq!(content(&disk).await, "a=9 c=3");
    });
}

#[test]
fn a_power_cut_keeps_what_was_synced_and_a_prefix_of_the_rest() {
    let kept = std::sync::Mutex::new(std::collections::BTreeSet::new());
    on_seeds(|world| {
        let kept = &kept;
        async move {
            let host = world.host("a");
            let disk = host.disk();
            write(&disk, vec![put("a", "0"), put("x", "0")]).await;
            disk.sync().await.expect("sound");
            let syncing = host.spawn({
                let disk = disk.clone();
                async move { disk.sync().await }
            });
            write(&disk, vec![put("a", "1"), put("b", "1")]).await;
            write(&disk, vec![put("a", "2"), delete_range("b", "z")]).await;
            write(&disk, vec![put("a", "3"), put("c", "3")]).await;
            drop(syncing);
            assert_eq!(disk.unsynced(), 3);
            host.power_cut(Survival::Some);
            let after = content(&host.disk()).await;
            let prefixes = ["a=0 x=0", "a=1 b=1 x=0", "a=2", "a=3 c=3"];
            assert!(prefixes.contains(&after.as_str()), "not a prefix: {after}");
            assert_eq!(host.disk().unsynced(), 0, "what survived is on the disk");
            kept.lock().expect("not poisoned").insert(after);
        }
    });
    assert_eq!(
        kept.into_inner().expect("not poisoned").len(),
        4,
        "every prefix is met"
    );
}

#[test]
fn a_power_cut_can_be_told_what_survives() {
    on_seeds(|world| async move {
        let host = world.host("a");
        write(&host.disk(), vec![put("a", "1")]).await;
        host.power_cut(Survival::Everything);
        write(&host.disk(), vec![put("b", "2")]).await;
        host.power_cut(Survival::Nothing);
        assert_eq!(content(&host.disk()).await, "a=1");
    });
}

#[test]
fn a_sync_covers_only_what_was_written_before_it_began() {
    on_seeds(|world| async move {
        let host = world.host("a");
        let disk = host.disk();
        disk.set_sync_time(ms(10)..ms(11));
        write(&disk, vec![put("a", "1")]).await;
        let syncing = host.spawn({
            let disk = disk.clone();
            async move { disk.sync().await }
        });
        world.sleep(ms(5)).await;
        write(&disk, vec![put("b", "2")]).await;
        syncing.await.expect("the process runs").expect("sound");
        host.power_cut(Survival::Nothing);
        assert_eq!(content(&host.disk()).await, "a=1");
    });
}

#[test]
fn a_process_crash_keeps_everything_but_makes_nothing_durable() {
    on_seeds(|world| async move {
        let host = world.host("a");
        write(&host.disk(), vec![put("a", "1")]).await;
        host.crash();
        host.restart();
        assert_eq!(content(&host.disk()).await, "a=1");
        host.power_cut(Survival::Nothing);
        assert_eq!(content(&host.disk()).await, "");
    });
}

#[test]
fn an_earlier_process_can_touch_nothing() {
    on_seeds(|world| async move {
        let host = world.host("a");
        let old = host.disk();
        write(&old, vec![put("a", "1")]).await;
        host.restart();
        assert!(old.write(vec![put("a", "2")]).await.is_err());
        assert!(old.sync().await.is_err());
        assert!(old.get(Keyspace::Log, b"a").await.is_err());
        assert_eq!(content(&host.disk()).await, "a=1");
    });
}

#[test]
fn a_sync_under_way_at_a_crash_makes_nothing_durable() {
    on_seeds(|world| async move {
        let host = world.host("a");
        let disk = host.disk();
        write(&disk, vec![put("a", "1")]).await;
        // Its task belongs to the test and outlives the process, as a late destructor would.
        let syncing = world.spawn(async move { disk.sync().await });
        host.crash();
        assert!(syncing.await.expect("the test runs").is_err());
        host.power_cut(Survival::Nothing);
        assert_eq!(content(&host.disk()).await, "");
    });
}

/// Syncs after writing; gives whether that succeeded.
async fn write_and_sync(disk: &SimDisk, key: &str) -> bool {
    write(disk, vec![put(key, "1")]).await;
    disk.sync().await.is_ok()
}

#[test]
fn a_sync_that_failed_once_means_that_nothing_later_is_durable() {
    on_seeds(|world| async move {
        let host = world.host("a");
        let disk = host.disk();
        assert!(write_and_sync(&disk, "a").await);
        disk.set_sync_fault(SyncFault::FailsOnce);
        assert!(!write_and_sync(&disk, "b").await);
        assert!(write_and_sync(&disk, "c").await, "it lies");
        host.power_cut(Survival::Nothing);
        assert_eq!(content(&host.disk()).await, "a=1");
        assert!(write_and_sync(&host.disk(), "d").await);
        host.power_cut(Survival::Nothing);
        assert_eq!(content(&host.disk()).await, "a=1 d=1", "it is sound again");
    });
}

#[test]
fn after_a_failed_sync_even_a_process_crash_may_lose_what_was_not_durable() {
    let lost = std::sync::atomic::AtomicU64::new(0);
    on_seeds(|world| {
        let lost = &lost;
        async move {
            let host = world.host("a");
            host.disk().set_sync_fault(SyncFault::Fails);
            assert!(!write_and_sync(&host.disk(), "a").await);
            assert!(!write_and_sync(&host.disk(), "b").await);
            host.crash();
            let after = content(&host.disk()).await;
            assert!(["", "a=1", "a=1 b=1"].contains(&after.as_str()), "{after}");
            lost.fetch_add(u64::from(after.len() < 7), std::sync::atomic::Ordering::Relaxed);
        }
    });
    assert!((1..20).contains(&lost.into_inner()));
}

/// Starts a sync on the host and waits for it, but not for long.
async fn sync_within(host: &Host, patience: Duration) -> Option<bool> {
    let disk = host.disk();
    let sync = host.spawn(SimRuntime::timeout(
        patience,
        async move { disk.sync().await.is_ok() },
    ));
    sync.await.expect("the process runs")
}

#[test]
fn a_hung_sync_ends_when_the_fault_does() {
    on_seeds(|world| async move {
        let host = world.host("a");
        host.disk().set_sync_fault(SyncFault::Hangs);
        write(&host.disk(), vec![put("a", "1")]).await;
        assert_eq!(sync_within(&host, ms(60_000)).await, None);
        let waiting = host.spawn({
            let disk = host.disk();
            async move { disk.sync().await }
        });
        world.sleep(ms(1_000)).await;
        assert!(!waiting.is_finished());
        host.disk().set_sync_fault(SyncFault::None);
        waiting.await.expect("the process runs").expect("sound");
        host.power_cut(Survival::Nothing);
        assert_eq!(content(&host.disk()).await, "a=1");
    });
}

#[test]
fn a_full_disk_refuses_whole_batches() {
    on_seeds(|world| async move {
        let host = world.host("a");
        let disk = host.disk();
        write(&disk, vec![put("a", "1")]).await;
        disk.set_full(true);
        let error = disk
            .write(vec![put("b", "2"), delete("a")])
            .await
            .expect_err("it is full");
        assert_eq!(error.kind(), ErrorKind::StorageFull);
        assert_eq!(content(&disk).await, "a=1");
        disk.restore();
        host.power_cut(Survival::Everything);
        write(&host.disk(), vec![put("b", "2")]).await;
        assert_eq!(content(&host.disk()).await, "a=1 b=2");
    });
}

#[test]
fn a_failed_write_may_have_been_carried_out_but_only_as_a_whole() {
    let seen = std::sync::Mutex::new(std::collections::BTreeSet::new());
    on_seeds(|world| {
        let seen = &seen;
        async move {
            let disk = world.host("a").disk();
            disk.fail_next_write();
            assert!(disk.write(vec![put("a", "1"), put("b", "1")]).await.is_err());
            let content = content(&disk).await;
            seen.lock().expect("not poisoned").insert(content);
            write(&disk, vec![put("c", "1")]).await;
        }
    });
    let seen: Vec<String> = seen.into_inner().expect("not poisoned").into_iter().collect();
    assert_eq!(seen, ["", "a=1 b=1"]);
}

#[test]
fn values_can_be_corrupted_silently_or_noticeably() {
    on_seeds(|world| async move {
        let disk = world.host("a").disk();
        write(&disk, vec![put("a", "hello"), put("b", "2")]).await;
        assert!(disk.corrupt(Keyspace::Log, b"a", |value| value[0] ^= 1));
        assert!(!disk.corrupt(Keyspace::Log, b"x", |_| {}));
        assert_eq!(content(&disk).await, "a=iello b=2");
        disk.rot(Keyspace::Log, b"b");
        let error = disk.get(Keyspace::Log, b"b").await.expect_err("it is rotten");
        assert_eq!(error.kind(), ErrorKind::InvalidData);
        assert!(disk.range(Keyspace::Log, b"", None, 9).await.is_err());
        assert!(disk.last(Keyspace::Log).await.is_err());
        assert!(
            disk.range(Keyspace::Log, b"", None, 1).await.is_ok(),
            "only that key is"
        );
        write(&disk, vec![put("b", "3")]).await;
        assert_eq!(content(&disk).await, "a=iello b=3");
    });
}

#[test]
fn a_slow_disk_takes_its_time() {
    on_seeds(|world| async move {
        let host = world.host("a");
        host.disk().set_sync_time(ms(300)..ms(400));
        let before = world.now();
        host.disk().sync().await.expect("sound");
        let took = world.now() - before;
        assert!(took >= ms(300) && took < ms(401), "{took:?}");
    });
}
