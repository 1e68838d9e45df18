//! What it costs to append entries to the log and to make them durable: `cargo bench -p sider-runtime-tokio`.
//!
//! Groups of 1 to 512 entries of 200 bytes are written and synced together, as the journal does it with what has
//! gathered while the last sync ran.

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput};
use sider_core::runtime::{Change, Disk, Keyspace};
use sider_runtime_tokio::disk::FjallDisk;

const ENTRY_BYTES: usize = 200;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime starts");
    let folder = tempfile::tempdir_in(".").expect("a folder beside the sources, on a real disk");
    let disk = runtime
        .block_on(FjallDisk::open(folder.path()))
        .expect("an empty folder");
    let value = Bytes::from(vec![7; ENTRY_BYTES]);
    let mut index = 0_u64;
    let mut group = criterion.benchmark_group("append and sync");
    for entries in [1, 8, 64, 512] {
        group.throughput(Throughput::Elements(entries));
        group.bench_function(BenchmarkId::from_parameter(entries), |bencher| {
            bencher.iter(|| {
                let batch = (0..entries).map(|_| {
                    index += 1;
                    let key = Bytes::copy_from_slice(&index.to_be_bytes());
                    Change::Put(Keyspace::Log, key, value.clone())
                });
                let batch: Vec<Change> = batch.collect();
                runtime.block_on(async {
                    disk.write(batch).await.expect("it is written");
                    disk.sync().await.expect("it is synced");
                });
            });
        });
    }
    group.finish();
    criterion.final_summary();
    runtime.block_on(disk.close());
}
