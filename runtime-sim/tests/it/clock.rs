use sider_core::runtime::Runtime;
use sider_runtime_sim::{Host, SimRuntime, World};

use crate::{ms, on_seeds};

/// The host's monotonic clock, read on the host.
async fn local_ns(host: &Host) -> u64 {
    host.spawn(async { SimRuntime::now().0 })
        .await
        .expect("the process runs")
}

async fn wall_ms(host: &Host) -> u64 {
    host.spawn(async { SimRuntime::wall_ms() })
        .await
        .expect("the process runs")
}

/// How long a sleep of `duration_ms` of the host's clock takes in virtual time.
async fn nap_ms(world: &World, host: &Host, duration_ms: u64) -> f64 {
    let before = world.now();
    host.spawn(async move { SimRuntime::sleep(ms(duration_ms)).await })
        .await
        .expect("the process runs");
    (world.now() - before).as_secs_f64() * 1e3
}

fn about(value: f64, expected: f64) -> bool {
    (value - expected).abs() < 0.01
}

#[test]
fn a_drifting_clock_is_continuous_and_runs_at_its_rate() {
    on_seeds(|world| async move {
        let host = world.host("a");
        for ppm in [100_000, -100_000, 0, 50] {
            let before = local_ns(&host).await;
            host.set_drift_ppm(ppm);
            let changed = local_ns(&host).await;
            assert!(
                changed >= before && changed - before < 10_000,
                "no jump: {before} {changed}"
            );
            world.sleep(ms(1_000)).await;
            let elapsed_ms = (local_ns(&host).await - changed) as f64 / 1e6;
            assert!(
                about(elapsed_ms, 1_000.0 * (1.0 + ppm as f64 / 1e6)),
                "{ppm}: {elapsed_ms}"
            );
        }
    });
}

#[test]
fn each_host_has_a_clock_of_its_own() {
    on_seeds(|world| async move {
        let (fast, slow) = (world.host("fast"), world.host("slow"));
        fast.set_drift_ppm(50_000);
        slow.set_drift_ppm(-50_000);
        assert!(about(nap_ms(&world, &fast, 1_050).await, 1_000.0));
        assert!(about(nap_ms(&world, &slow, 950).await, 1_000.0));
    });
}

#[test]
fn a_sleep_follows_a_drift_that_changes_meanwhile() {
    on_seeds(|world| async move {
        for (ppm, expected_ms) in [(1_000_000, 750.0), (-500_000, 1_500.0)] {
            let host = world.host("a");
            let before = world.now();
            let nap = host.spawn(async { SimRuntime::sleep(ms(1_000)).await });
            world.sleep(ms(500)).await;
            host.set_drift_ppm(ppm);
            nap.await.expect("the process runs");
            let took = (world.now() - before).as_secs_f64() * 1e3;
            assert!(about(took, expected_ms), "{ppm}: {took}");
        }
    });
}

#[test]
fn sleeps_may_be_shorter_than_a_millisecond_and_zero() {
    on_seeds(|world| async move {
        let before = world.now();
        SimRuntime::sleep(std::time::Duration::ZERO).await;
        SimRuntime::sleep(std::time::Duration::from_micros(50)).await;
        let took = world.now() - before;
        assert!(took.as_micros() >= 50 && took.as_micros() < 55, "{took:?}");
    });
}

#[test]
fn the_wall_clock_jumps_and_the_monotonic_clock_does_not() {
    on_seeds(|world| async move {
        let host = world.host("a");
        let (wall, local) = (wall_ms(&host).await, local_ns(&host).await);
        host.jump_wall_ms(-3_600_000);
        assert!(wall_ms(&host).await.abs_diff(wall - 3_600_000) <= 1);
        assert!(local_ns(&host).await - local < 1_000_000);
        host.jump_wall_ms(7_200_000);
        assert!(wall_ms(&host).await.abs_diff(wall + 3_600_000) <= 1);
    });
}

#[test]
fn many_sleepers_wake_in_the_order_of_their_deadlines() {
    on_seeds(|world| async move {
        let host = world.host("a");
        let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
        for n in 0..300 {
            let sender = sender.clone();
            host.spawn(async move {
                SimRuntime::sleep(ms(n * 7 % 300 + 1)).await;
                sender.send(n * 7 % 300).expect("the receiver lives");
            });
        }
        drop(sender);
        host.set_drift_ppm(20_000);
        let mut last = 0;
        while let Some(deadline) = receiver.recv().await {
            assert!(deadline >= last, "{deadline} after {last}");
            last = deadline;
        }
        assert_eq!(last, 299);
    });
}

#[test]
fn a_timeout_prefers_the_future() {
    on_seeds(|world| async move {
        let host = world.host("a");
        let both = host.spawn(SimRuntime::timeout(ms(10), async {
            SimRuntime::sleep(ms(10)).await;
            7
        }));
        assert_eq!(both.await.expect("the process runs"), Some(7));
        let late = host.spawn(SimRuntime::timeout(ms(10), SimRuntime::sleep(ms(11))));
        assert_eq!(late.await.expect("the process runs"), None);
    });
}
