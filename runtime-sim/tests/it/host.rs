use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use sider_core::runtime::Runtime;
use sider_runtime_sim::{Host, Options, SimRuntime, World, run, run_with};

use crate::{ms, on_seeds};

/// A host whose program counts its seconds (by its own clock), and its starts.
fn counting_host(world: &World) -> (Host, Arc<AtomicU64>, Arc<AtomicU64>) {
    let (starts, ticks) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let host = world.host("counter");
    let program = (starts.clone(), ticks.clone());
    host.start(move |_| {
        let (starts, ticks) = program.clone();
        async move {
            starts.fetch_add(1, Ordering::Relaxed);
            // In a task of its own, which must die with the process too.
            let counter = SimRuntime::spawn(async move {
                loop {
                    SimRuntime::sleep(ms(1_000)).await;
                    ticks.fetch_add(1, Ordering::Relaxed);
                }
            });
            counter.await.expect("it never ends")
        }
    });
    (host, starts, ticks)
}

#[test]
fn a_crash_ends_every_task_and_a_restart_runs_the_program_again() {
    on_seeds(|world| async move {
        let (host, starts, ticks) = counting_host(&world);
        world.sleep(ms(2_500)).await;
        assert_eq!(
            (starts.load(Ordering::Relaxed), ticks.load(Ordering::Relaxed)),
            (1, 2)
        );
        host.crash();
        assert!(!host.is_up());
        world.sleep(ms(5_000)).await;
        assert_eq!(ticks.load(Ordering::Relaxed), 2, "nothing runs");
        host.restart();
        assert!(host.is_up());
        assert_eq!(host.incarnation(), 2);
        world.sleep(ms(2_500)).await;
        assert_eq!(
            (starts.load(Ordering::Relaxed), ticks.load(Ordering::Relaxed)),
            (2, 4)
        );
        host.restart();
        world.sleep(ms(1_500)).await;
        assert_eq!(
            (starts.load(Ordering::Relaxed), ticks.load(Ordering::Relaxed)),
            (3, 5)
        );
    });
}

#[test]
fn a_paused_host_does_nothing_while_its_clock_goes_on() {
    on_seeds(|world| async move {
        let (host, _, ticks) = counting_host(&world);
        let clock = {
            let now = host.spawn(async { SimRuntime::now() });
            now.await.expect("the process runs")
        };
        world.sleep(ms(2_500)).await;
        host.pause();
        assert!(host.is_up() && host.is_paused());
        world.sleep(ms(10_000)).await;
        assert_eq!(ticks.load(Ordering::Relaxed), 2);
        host.resume();
        world.sleep(ms(600)).await;
        assert_eq!(
            ticks.load(Ordering::Relaxed),
            3,
            "the sleep that ended meanwhile ends now"
        );
        let later = host
            .spawn(async { SimRuntime::now() })
            .await
            .expect("the process runs");
        assert_eq!(later.saturating_since(clock).as_millis(), 13_100);
    });
}

#[test]
fn a_paused_host_can_be_crashed() {
    on_seeds(|world| async move {
        let (host, starts, ticks) = counting_host(&world);
        world.sleep(ms(1_500)).await;
        host.pause();
        host.crash();
        world.sleep(ms(3_000)).await;
        host.restart();
        assert!(!host.is_paused());
        world.sleep(ms(1_500)).await;
        assert_eq!(
            (starts.load(Ordering::Relaxed), ticks.load(Ordering::Relaxed)),
            (2, 2)
        );
    });
}

#[test]
fn a_program_that_ends_ends_its_process() {
    on_seeds(|world| async move {
        let host = world.host("a");
        host.start(|host| async move {
            host.spawn(async {
                SimRuntime::sleep(ms(2_000)).await;
                unreachable!("the process has ended");
            });
            SimRuntime::sleep(ms(1_000)).await;
        });
        world.sleep(ms(500)).await;
        assert!(host.is_up());
        world.sleep(ms(5_000)).await;
        assert!(!host.is_up());
    });
}

#[test]
fn a_task_of_a_dead_process_reports_it() {
    on_seeds(|world| async move {
        let host = world.host("a");
        let task = host.spawn(SimRuntime::sleep(ms(1_000)));
        host.crash();
        assert!(task.await.expect_err("it can't have slept").0.contains("process"));
    });
}

#[test]
fn a_panic_in_the_body_fails_the_run_with_its_message_and_place() {
    let outcome = run(1, |_| async {
        if SimRuntime::random_u64() < u64::MAX {
            panic!("the answer was {}", 41);
        }
    });
    let message = outcome.value.expect_err("it panicked");
    assert!(
        message.contains("the answer was 41") && message.contains("host.rs"),
        "{message}"
    );
}

#[test]
fn a_panic_in_a_contained_task_of_a_host_fails_the_run() {
    let outcome = run(1, |world| async move {
        let host = world.host("a");
        host.start(|_| async {
            let contained = SimRuntime::spawn(async {
                SimRuntime::sleep(ms(10)).await;
                assert_eq!(1 + 1, 3, "arithmetic");
            });
            assert!(contained.await.is_err(), "the code under test learns of it");
            SimRuntime::sleep(ms(1_000_000)).await;
        });
        world.sleep(ms(10_000)).await;
    });
    let message = outcome.value.expect_err("a task panicked");
    assert!(message.contains("arithmetic"), "{message}");
    assert!(
        outcome.sim_elapsed < ms(100),
        "the run ends at once: {:?}",
        outcome.sim_elapsed
    );
}

#[test]
fn a_run_that_waits_for_ever_fails() {
    let mut options = Options::new(1);
    options.time_limit = ms(60_000);
    let outcome = run_with(options, |_| std::future::pending::<()>());
    let message = outcome.value.expect_err("it can't end");
    assert!(message.contains("block forever"), "{message}");
    let mut options = Options::new(1);
    options.time_limit = ms(60_000);
    let outcome = run_with(options, |_| async {
        while SimRuntime::random_u64() > 0 {
            SimRuntime::sleep(ms(1_000)).await;
        }
    });
    let message = outcome.value.expect_err("it can't end");
    assert!(message.contains("time limit"), "{message}");
}

#[test]
fn a_run_that_spins_fails() {
    let outcome = run(1, |world| async move {
        let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
        let echo = sender.clone();
        world.spawn(async move {
            while let Some(()) = receiver.recv().await {
                echo.send(()).expect("the receiver lives");
                futures_util::future::poll_fn(|context| {
                    context.waker().wake_by_ref();
                    std::task::Poll::<()>::Pending
                })
                .await;
            }
        });
        sender.send(()).expect("the receiver lives");
        world.sleep(ms(1_000)).await;
    });
    let message = outcome.value.expect_err("it can't end");
    assert!(message.contains("spins"), "{message}");
}

#[test]
fn what_tasks_hold_is_freed_at_the_end_of_a_run() {
    let held = Arc::new(());
    let outcome = run(1, |world| {
        let held = held.clone();
        async move {
            let host = world.host("a");
            let program_holds = held.clone();
            host.start(move |_| {
                let held = program_holds.clone();
                async move {
                    SimRuntime::sleep(ms(1_000_000)).await;
                    drop(held);
                }
            });
            let network = host.network(1);
            let handler_holds = held.clone();
            network
                .serve_http(
                    80,
                    Arc::new(move |_| {
                        let _ = &handler_holds;
                        Box::pin(std::future::pending())
                    }),
                )
                .expect("the port is free");
            let other = held.clone();
            world.spawn(async move {
                SimRuntime::sleep(ms(1_000_000)).await;
                drop(other);
            });
            world.sleep(ms(10)).await;
            assert!(Arc::strong_count(&held) >= 5);
        }
    });
    assert_eq!(outcome.value, Ok(()));
    assert_eq!(Arc::strong_count(&held), 1);
}
