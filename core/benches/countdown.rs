//! Deadlines: renewals beside many others, and finding what is due.

use std::time::Duration;

use criterion::{BenchmarkId, Criterion};
use sider_core::{registry::CheckKey, runtime::Instant, server::Countdown};

const TTL: Duration = Duration::from_secs(10);

pub(crate) fn all(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("deadlines");
    for checks in [1_000, 100_000] {
        let keys: Vec<CheckKey> = (0..checks).map(key).collect();
        let mut now = Instant::default();
        let mut countdown = Countdown::default();
        for key in &keys {
            now = now + Duration::from_micros(1);
            countdown.start(key.clone(), now, TTL);
        }
        let mut turns = keys.iter().cycle();
        group.bench_function(BenchmarkId::new("renew", checks), |bencher| {
            bencher.iter(|| {
                now = now + Duration::from_micros(1);
                countdown.renewed(turns.next().expect("it never ends"), now);
            });
        });
        group.bench_function(BenchmarkId::new("nothing is due", checks), |bencher| {
            bencher.iter(|| countdown.due(Instant::default(), 1, 0, |_| Some(())).items.len());
        });
    }
    group.finish();
}

fn key(number: u64) -> CheckKey {
    super::registry::registration(number, 80).checks[0].key()
}
