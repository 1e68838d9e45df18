//! Runs the checks that are due, a bounded number at a time, and removes services whose checks stay critical.

use std::sync::{Arc, atomic::Ordering};

use futures_util::future::select;

use super::{Shared, elsewhere, local::Run, store};
use crate::{
    limits::AGENT_PROBES_IN_FLIGHT_MAX,
    probing::check::{judge, timeout_of},
    registry::{CheckKey, InstanceKey},
    runtime::{Change, Prober, Runtime},
};

/// Runs checks until the agent stops.
pub(super) async fn run<R: Runtime>(shared: Arc<Shared<R>>) {
    while !shared.stopping() {
        let removed = shared.local().remove_critical(R::now());
        if !removed.is_empty() {
            shared.news.notify_waiters();
            shared.wake_writer.notify_one();
        }
        for (key, checks) in removed {
            tracing::warn!(id = %key.id, "deregistering a service instance that was critical for too long");
            drop(R::spawn(forget(shared.clone(), key, checks)));
        }
        if shared.local().expire_restored(R::now()) {
            shared.wake_writer.notify_one();
        }
        if shared.local().follow_aliases(R::now()) {
            shared.wake_writer.notify_one();
        }
        for place in shared.local().take_unfollowed() {
            drop(R::spawn(elsewhere::follow(shared.clone(), place)));
        }
        while shared.probes_running.load(Ordering::Relaxed) < AGENT_PROBES_IN_FLIGHT_MAX {
            let Some(run) = shared.local().take_run(R::now()) else {
                break;
            };
            shared.probes_running.fetch_add(1, Ordering::Relaxed);
            drop(R::spawn(supervise(shared.clone(), run)));
        }
        wait(&shared).await;
    }
}

/// Drops what the disk keeps of a service that was removed with these checks, unless it was registered again meanwhile:
/// then only what it has no more.
async fn forget<R: Runtime>(shared: Arc<Shared<R>>, key: InstanceKey, checks: Vec<CheckKey>) {
    let _changing = shared.changing.lock().await;
    let gone: Vec<Change> = {
        let local = shared.local();
        let service = local.service(&key).is_none().then(|| store::remove_service(&key));
        let checks = checks.iter().filter(|check| local.check(check).is_none());
        service
            .into_iter()
            .chain(checks.map(store::remove_check))
            .collect()
    };
    if let Err(error) = shared.store.write(gone).await {
        tracing::error!(id = %key.id, "a removed service will be back after a restart: {error}");
    }
}

/// Waits until a check is due that may be run, or until something changed.
async fn wait<R: Runtime>(shared: &Shared<R>) {
    let wake = std::pin::pin!(shared.wake_prober.notified());
    let full = shared.probes_running.load(Ordering::Relaxed) >= AGENT_PROBES_IN_FLIGHT_MAX;
    let due = shared.local().next_due().filter(|_| !full);
    match due {
        Some(due) => {
            select(wake, std::pin::pin!(R::sleep_until(due))).await;
        }
        None => wake.await,
    }
}

/// Runs a check and plans its next run, also when the platform's prober panicked.
async fn supervise<R: Runtime>(shared: Arc<Shared<R>>, run: Run) {
    if let Err(failure) = R::spawn(once(shared.clone(), run.clone())).await {
        tracing::error!(check = %run.key.id, "a check could not be run: {failure}");
    }
    shared.probes_running.fetch_sub(1, Ordering::Relaxed);
    shared.local().reschedule(&run, R::now());
    shared.wake_prober.notify_one();
}

async fn once<R: Runtime>(shared: Arc<Shared<R>>, run: Run) {
    let definition = &run.spec.update.definition;
    let timeout = timeout_of(definition);
    let outcome = shared.prober.probe(&run.probe, timeout).await;
    let (result, output) = judge(run.spec.rules, &run.probe, outcome, definition.output_bytes_max());
    if shared.local().finish_run(&run, result, output, R::now()) {
        shared.wake_writer.notify_one();
    }
}
