//! What every disk promises, and what the one on files promises beyond that.

#![expect(clippy::unwrap_used, reason = "a test that panics says where")]

use std::{
    fs,
    io::{Read, Seek, SeekFrom, Write},
    path::Path,
};

use bytes::Bytes;
use sider_core::{
    limits,
    runtime::{
        Change::{self, Delete, DeleteRange, Put},
        Disk, DiskView,
        Keyspace::{self, Incoming, Log, Meta, State},
    },
};
use sider_runtime_tokio::disk::{FjallDisk, LocalDisk, MemoryDisk};

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn put(keyspace: Keyspace, key: &str, value: &str) -> Change {
    Put(keyspace, bytes(key), bytes(value))
}

/// The pairs of a keyspace as text, `a=1 b=2`.
async fn text(disk: &impl Disk, keyspace: Keyspace) -> String {
    pairs(disk.range(keyspace, b"", None, usize::MAX).await.unwrap())
}

fn pairs(pairs: Vec<(Bytes, Bytes)>) -> String {
    let texts = pairs.iter().map(|(key, value)| {
        format!(
            "{}={}",
            String::from_utf8_lossy(key),
            String::from_utf8_lossy(value)
        )
    });
    texts.collect::<Vec<_>>().join(" ")
}

/// The contract of [`Disk`], without crashes.
async fn keeps_the_contract(disk: impl Disk) {
    reads_what_was_written(&disk).await;
    applies_a_batch_in_order(&disk).await;
    ranges_are_half_open_and_limited(&disk).await;
    views_stand_still(&disk).await;
}

async fn reads_what_was_written(disk: &impl Disk) {
    assert_eq!(disk.get(Meta, b"vote").await.unwrap(), None);
    assert_eq!(disk.last(Meta).await.unwrap(), None);
    disk.write(vec![put(Meta, "vote", "1"), put(State, "vote", "other")])
        .await
        .unwrap();
    assert_eq!(disk.get(Meta, b"vote").await.unwrap(), Some(bytes("1")));
    assert_eq!(disk.get(State, b"vote").await.unwrap(), Some(bytes("other")));
    assert_eq!(disk.get(Log, b"vote").await.unwrap(), None);
    // Empty keys and values, and bytes at both ends of the order, are keys and values like others.
    let odd = [&b""[..], &[0], &[0, 0], &[255], &[255; 40]];
    let batch = odd
        .iter()
        .map(|key| Put(Incoming, Bytes::copy_from_slice(key), Bytes::new()));
    disk.write(batch.collect()).await.unwrap();
    let found = disk.range(Incoming, b"", None, 100).await.unwrap();
    assert_eq!(found.iter().map(|(key, _)| &key[..]).collect::<Vec<_>>(), odd);
    assert_eq!(disk.last(Incoming).await.unwrap().unwrap().0[..], [255; 40]);
    disk.write(Vec::new()).await.unwrap();
    disk.sync().await.unwrap();
}

async fn applies_a_batch_in_order(disk: &impl Disk) {
    disk.write(["a", "b", "c", "d"].map(|key| put(Log, key, "1")).to_vec())
        .await
        .unwrap();
    disk.write(vec![
        put(Log, "a", "2"),
        put(Log, "a", "3"),
        Delete(Log, bytes("b")),
        put(Log, "b", "2"),
        put(Log, "c", "2"),
        put(Log, "cc", "2"),
        DeleteRange(Log, bytes("c"), bytes("e")),
        put(Log, "d", "5"),
        put(Log, "e", "5"),
        Delete(Log, bytes("e")),
        Delete(Log, bytes("never was")),
        DeleteRange(Log, bytes("z"), bytes("a")),
    ])
    .await
    .unwrap();
    assert_eq!(text(disk, Log).await, "a=3 b=2 d=5");
    assert_eq!(disk.last(Log).await.unwrap(), Some((bytes("d"), bytes("5"))));
    disk.write(vec![DeleteRange(Log, Bytes::new(), bytes("zz"))])
        .await
        .unwrap();
    assert_eq!(text(disk, Log).await, "");
    assert_eq!(disk.last(Log).await.unwrap(), None);
}

async fn ranges_are_half_open_and_limited(disk: &impl Disk) {
    let count = 3 * limits::DISK_READ_INLINE_MAX;
    let batch = (0..count)
        .map(|n| put(State, &format!("row{n:04}"), "x"))
        .collect();
    disk.write(batch).await.unwrap();
    let range =
        async |from: &[u8], to: Option<&[u8]>, limit| disk.range(State, from, to, limit).await.unwrap().len();
    assert_eq!(range(b"row", Some(b"row0010"), 100).await, 10);
    assert_eq!(range(b"row0010", Some(b"row0012"), 100).await, 2);
    assert_eq!(range(b"row0010", Some(b"row0010"), 100).await, 0);
    assert_eq!(range(b"row0012", Some(b"row0010"), 100).await, 0);
    assert_eq!(range(b"row", Some(b"rox"), 7).await, 7);
    assert_eq!(range(b"row", Some(b"rox"), 0).await, 0);
    assert_eq!(range(b"row", Some(b"rox"), usize::MAX).await, count);
    assert_eq!(range(b"row0001", Some(b"rox"), usize::MAX).await, count - 1);
}

async fn views_stand_still(disk: &impl Disk) {
    disk.write(vec![put(Log, "a", "old"), put(Log, "b", "old")])
        .await
        .unwrap();
    let view = disk.view().await.unwrap();
    disk.write(vec![
        put(Log, "a", "new"),
        Delete(Log, bytes("b")),
        put(Log, "c", "new"),
    ])
    .await
    .unwrap();
    assert_eq!(view.get(Log, b"a").await.unwrap(), Some(bytes("old")));
    assert_eq!(view.get(Log, b"c").await.unwrap(), None);
    assert_eq!(
        pairs(view.range(Log, b"", None, 100).await.unwrap()),
        "a=old b=old"
    );
    assert_eq!(text(disk, Log).await, "a=new c=new");
}

#[tokio::test]
async fn memory_keeps_the_contract() {
    keeps_the_contract(MemoryDisk::default()).await;
    keeps_the_contract(LocalDisk::Memory(MemoryDisk::default())).await;
}

#[tokio::test]
async fn files_keep_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    keeps_the_contract(LocalDisk::Files(FjallDisk::open(folder.path()).await.unwrap())).await;
}

#[tokio::test]
async fn what_was_synced_is_found_again() {
    let folder = tempfile::tempdir().unwrap();
    for round in 0..3 {
        let disk = FjallDisk::open(folder.path()).await.unwrap();
        let expected = (0..round)
            .map(|n| format!("round{n}=1"))
            .collect::<Vec<_>>()
            .join(" ");
        assert_eq!(text(&disk, Log).await, expected);
        disk.write(vec![
            put(Log, &format!("round{round}"), "1"),
            put(Meta, "last", "x"),
        ])
        .await
        .unwrap();
        disk.sync().await.unwrap();
        disk.close().await;
        let error = disk
            .write(vec![put(Log, "late", "1")])
            .await
            .unwrap_err()
            .to_string();
        assert!(error.contains("closed"), "{error}");
    }
}

#[tokio::test]
async fn many_writers_share_syncs() {
    let folder = tempfile::tempdir().unwrap();
    let disk = FjallDisk::open(folder.path()).await.unwrap();
    let writers = (0..200).map(|n| {
        let disk = disk.clone();
        tokio::spawn(async move {
            disk.write(vec![put(Log, &format!("{n:03}"), "x")]).await.unwrap();
            disk.sync().await.unwrap();
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    disk.close().await;
    let disk = FjallDisk::open(folder.path()).await.unwrap();
    assert_eq!(disk.range(Log, b"", None, 1_000).await.unwrap().len(), 200);
}

#[tokio::test]
async fn a_key_that_is_too_long_is_refused_and_does_no_harm() {
    let folder = tempfile::tempdir().unwrap();
    let disk = FjallDisk::open(folder.path()).await.unwrap();
    let long = Bytes::from(vec![b'k'; 70_000]);
    for change in [Put(Log, long.clone(), Bytes::new()), Delete(Log, long.clone())] {
        let error = disk.write(vec![put(Log, "a", "1"), change]).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
    }
    assert_eq!(disk.get(Log, &long).await.unwrap(), None);
    let error = disk.range(Log, &long, None, 1).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
    disk.write(vec![put(Log, "b", "1")]).await.unwrap();
    assert_eq!(text(&disk, Log).await, "b=1");
}

#[tokio::test]
async fn a_directory_in_use_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let disk = FjallDisk::open(folder.path()).await.unwrap();
    let error = FjallDisk::open(folder.path()).await.unwrap_err().to_string();
    let path = folder.path().display().to_string();
    assert!(
        error.starts_with(&format!("data directory {path} is in use by another process")),
        "{error}"
    );
    disk.close().await;
    FjallDisk::open(folder.path()).await.unwrap();
}

#[tokio::test]
async fn a_path_that_can_not_be_a_directory_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "not a folder").unwrap();
    for path in [file.clone(), file.join("below")] {
        let error = FjallDisk::open(&path).await.unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("data directory {} can't be written", path.display())),
            "{error}"
        );
        assert_eq!(error.lines().count(), 1);
    }
}

/// Copies a data directory as a power cut at this moment could leave it. Journals are mostly a hole: only their
/// beginning is copied, and their length.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
            continue;
        }
        let mut start = Vec::new();
        let source = fs::File::open(entry.path()).unwrap();
        source.take(1 << 20).read_to_end(&mut start).unwrap();
        let mut file = fs::File::create(target).unwrap();
        file.write_all(&start).unwrap();
        file.set_len(entry.metadata().unwrap().len()).unwrap();
    }
}

#[tokio::test]
async fn a_crash_leaves_all_of_a_batch_or_nothing_and_no_gap() {
    let folder = tempfile::tempdir().unwrap();
    let disk = FjallDisk::open(&folder.path().join("live")).await.unwrap();
    disk.write(vec![put(Log, "synced", "1"), put(Meta, "synced", "1")])
        .await
        .unwrap();
    disk.sync().await.unwrap();
    let value = "x".repeat(3_000);
    for n in 0..20 {
        let batch = (0..3).map(|part| put(Log, &format!("{n:02}.{part}"), &value));
        disk.write(batch.chain([put(State, &format!("{n:02}"), "1")]).collect())
            .await
            .unwrap();
    }
    // Unsynced, so some of it is in this process' buffers only, and the last thing written is torn.
    copy(&folder.path().join("live"), &folder.path().join("crashed"));
    let crashed = FjallDisk::open(&folder.path().join("crashed")).await.unwrap();
    assert_eq!(crashed.get(Log, b"synced").await.unwrap(), Some(bytes("1")));
    assert_eq!(crashed.get(Meta, b"synced").await.unwrap(), Some(bytes("1")));
    let survived = crashed.range(State, b"", None, 100).await.unwrap().len();
    assert!(survived < 20, "nothing was torn, so this tested nothing");
    let rows = crashed.range(Log, b"", None, 100).await.unwrap();
    assert_eq!(rows.len(), 1 + 3 * survived);
    for n in 0..survived {
        assert!(
            crashed
                .get(State, format!("{n:02}").as_bytes())
                .await
                .unwrap()
                .is_some()
        );
    }
}

fn flip(path: &Path, offset: u64) {
    let mut file = fs::File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.seek(SeekFrom::Start(offset)).unwrap();
    file.read_exact(&mut byte).unwrap();
    file.seek(SeekFrom::Start(offset)).unwrap();
    file.write_all(&[byte[0] ^ 0x10]).unwrap();
}

#[tokio::test]
async fn a_flipped_bit_in_what_was_synced_is_never_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    let sound = folder.path().join("sound");
    let disk = FjallDisk::open(&sound).await.unwrap();
    for n in 0..3 {
        disk.write(vec![
            put(Log, &format!("{n}"), "some value"),
            put(Meta, "vote", "v"),
        ])
        .await
        .unwrap();
        disk.sync().await.unwrap();
    }
    disk.close().await;
    let journal = Path::new("store/0.jnl");
    let start = fs::read(sound.join(journal)).unwrap();
    let used = start.iter().rposition(|byte| *byte != 0).unwrap() as u64;
    assert!(used > 200, "{used}");
    for offset in (0..=used).step_by(13) {
        let rotten = folder.path().join(format!("rotten{offset}"));
        copy(&sound, &rotten);
        flip(&rotten.join(journal), offset);
        match FjallDisk::open(&rotten).await {
            Err(error) => {
                let error = error.to_string();
                assert!(
                    error.starts_with(&format!("data directory {} is corrupt", rotten.display())),
                    "{error}"
                );
                assert_eq!(error.lines().count(), 1, "{error}");
            }
            // A bit that carries no meaning, as in a sequence number, may flip unnoticed.
            Ok(disk) => {
                assert_eq!(
                    text(&disk, Log).await,
                    "0=some value 1=some value 2=some value",
                    "at {offset}"
                );
                assert_eq!(text(&disk, Meta).await, "vote=v", "at {offset}");
                disk.close().await;
            }
        }
        fs::remove_dir_all(&rotten).unwrap();
    }
}

#[tokio::test]
async fn missing_and_rotten_files_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let sound = folder.path().join("sound");
    let disk = FjallDisk::open(&sound).await.unwrap();
    disk.write(vec![put(Log, "a", "1")]).await.unwrap();
    disk.sync().await.unwrap();
    disk.close().await;
    type Harm = fn(&Path);
    let harms: [(&str, Harm); 6] = [
        ("journal", |path| {
            fs::remove_file(path.join("store/0.jnl")).unwrap()
        }),
        ("store", |path| fs::remove_dir_all(path.join("store")).unwrap()),
        ("version", |path| {
            fs::write(path.join("store/version"), "rubbish").unwrap()
        }),
        ("mark", |path| fs::write(path.join("synced"), "rubbish").unwrap()),
        ("tree", |path| {
            fs::remove_file(path.join("store/keyspaces/1/current")).unwrap()
        }),
        ("trees", |path| {
            fs::remove_dir_all(path.join("store/keyspaces")).unwrap()
        }),
    ];
    for (name, harm) in harms {
        let harmed = folder.path().join(name);
        copy(&sound, &harmed);
        harm(&harmed);
        let error = FjallDisk::open(&harmed).await.expect_err(name).to_string();
        assert!(error.contains(&harmed.display().to_string()), "{name}: {error}");
        assert_eq!(error.lines().count(), 1, "{name}: {error}");
    }
}
