//! Tells the servers: one call at a time, so that they hear everything in the order in which it happened here.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::future::{Either, select};
use http::Method;
use serde_json::Value;

use super::{
    Shared,
    local::{Change, LocalCheck, Waiters, tell},
    servers::CallError,
    wire,
};
use crate::{
    limits::{
        AGENT_BACKOFF_MAX, AGENT_BACKOFF_MIN, AGENT_CALL_BYTES_MAX, AGENT_CALL_TIMEOUT,
        AGENT_CALL_TIMEOUT_MIN, AGENT_REGISTRATIONS_PER_CALL_MAX, AGENT_REPORTS_PER_CALL_MAX,
        CHECKS_PER_INSTANCE_MAX,
    },
    probing::schedule::Backoff,
    registry::CheckKey,
    runtime::{Instant, Runtime},
};

/// Sends what is pending and the heartbeats that are due, until the agent stops. Never gives up.
pub(super) async fn run<R: Runtime>(shared: Arc<Shared<R>>) {
    let mut backoff = Backoff::new(AGENT_BACKOFF_MIN, AGENT_BACKOFF_MAX);
    loop {
        let result = {
            let _writing = shared.writing.lock().await;
            if shared.stopping() {
                return;
            }
            round(&shared).await
        };
        match result {
            Ok(()) => {
                shared.local().set_unreachable(None);
                if backoff.failures() > 0 {
                    tracing::info!("the servers can be reached again");
                }
                if backoff.failures() > 0 || shared.servers.is_uncertain() {
                    // Nobody knows what they lost meanwhile.
                    shared.wake_auditor.notify_one();
                }
                backoff.succeeded();
                idle(&shared).await;
            }
            Err(reason) => {
                // Servers that answer may have a leader again before anybody has waited for long.
                let unreachable = shared.servers.are_silent().then(|| reason.clone());
                shared.local().set_unreachable(unreachable);
                let wait = backoff.failed(R::random_u64());
                tracing::warn!(
                    failures = backoff.failures(),
                    ?wait,
                    "no server can be reached: {reason}"
                );
                pause(&shared, R::now() + wait).await;
            }
        }
    }
}

/// Waits until there is something to send.
async fn idle<R: Runtime>(shared: &Shared<R>) {
    loop {
        let heartbeat = {
            let local = shared.local();
            if shared.stopping() || local.pending.is_any() {
                return;
            }
            local.next_heartbeat()
        };
        let wake = std::pin::pin!(shared.wake_writer.notified());
        match heartbeat {
            Some(due) if due <= R::now() => return,
            Some(due) => {
                select(wake, std::pin::pin!(R::sleep_until(due))).await;
            }
            None => wake.await,
        }
    }
}

/// Waits until a moment, or until the agent stops.
async fn pause<R: Runtime>(shared: &Shared<R>, until: Instant) {
    while !shared.stopping() {
        let wake = std::pin::pin!(shared.wake_writer.notified());
        let sleep = std::pin::pin!(R::sleep_until(until));
        if let Either::Right(_) = select(wake, sleep).await {
            return;
        }
    }
}

async fn round<R: Runtime>(shared: &Shared<R>) -> Result<(), String> {
    shared.local().take_heartbeats(R::now());
    let reports = send_reports(shared).await;
    // Neither may keep the other from being sent.
    let changes = send_changes(shared).await;
    reports.and(changes)
}

/// An item of a call, encoded, with the thing that it is about and those who wait for it.
struct Item<K> {
    key: K,
    json: String,
    waiters: Waiters,
    /// The checks that a registration brings, each with its generation.
    checks: Vec<(CheckKey, u64)>,
    /// The registration of a service that it is.
    generation: u64,
}

/// What could not be sent, and why.
type Unsent<T> = (T, String);

/// Cuts items into calls that stay within a number and a size.
fn chunks<K>(items: Vec<Item<K>>, count_max: usize) -> Vec<Vec<Item<K>>> {
    let mut chunks: Vec<Vec<Item<K>>> = Vec::new();
    let mut bytes = 0;
    for item in items {
        match chunks.last_mut() {
            Some(chunk) if chunk.len() < count_max && bytes + item.json.len() <= AGENT_CALL_BYTES_MAX => {
                bytes += item.json.len();
                chunk.push(item);
            }
            _ => {
                bytes = item.json.len();
                chunks.push(vec![item]);
            }
        }
    }
    chunks
}

/// A JSON list of items.
fn list<K>(items: &[Item<K>]) -> Bytes {
    let encoded: Vec<&str> = items.iter().map(|item| item.json.as_str()).collect();
    Bytes::from(format!("[{}]", encoded.join(",")))
}

/// Sends renewals and statuses. A check that the servers do not have is registered instead, which carries its status.
async fn send_reports<R: Runtime>(shared: &Shared<R>) -> Result<(), String> {
    let (items, timeout) = take_reports(shared);
    let mut left = chunks(items, AGENT_REPORTS_PER_CALL_MAX).into_iter();
    while let Some(chunk) = left.next() {
        if let Err((unsent, reason)) = report(shared, chunk, timeout).await {
            let unsent = unsent.into_iter().chain(left.flatten());
            shared
                .local()
                .pending
                .return_reports(unsent.map(|item| (item.key, item.waiters)));
            return Err(reason);
        }
    }
    Ok(())
}

/// Encodes the pending reports, and says how long a server may take for them. One on a check that was never registered
/// becomes a registration.
fn take_reports<R: Runtime>(shared: &Shared<R>) -> (Vec<Item<CheckKey>>, Duration) {
    let mut timeout = AGENT_CALL_TIMEOUT;
    let mut local = shared.local();
    let mut items = Vec::new();
    for (key, waiters) in local.pending.take_reports() {
        let Some(check) = local.check(&key) else {
            tell(waiters, &Err(gone(&key)));
            continue;
        };
        match check.status {
            Some(status) if check.confirmed.is_some() => {
                if let Some(ttl) = check.spec.update.definition.ttl() {
                    // A third of it is left: a silent server must leave time for the next one.
                    timeout = timeout.min(ttl / 6).max(AGENT_CALL_TIMEOUT_MIN);
                }
                items.push(Item {
                    json: wire::report(&key, status, &check.output).to_string(),
                    key,
                    waiters,
                    checks: Vec::new(),
                    generation: 0,
                });
            }
            Some(_) => {
                let change = local.change_of(&key);
                local
                    .pending
                    .return_changes(change.map(|change| (change, waiters)));
            }
            None => tell(waiters, &Ok(0)),
        }
    }
    (items, timeout)
}

/// Sends a chunk of reports; if the servers refuse it as a whole, one after the other, so that a bad one does not keep
/// the others from being heard.
async fn report<R: Runtime>(
    shared: &Shared<R>,
    chunk: Vec<Item<CheckKey>>,
    timeout: Duration,
) -> Result<(), Unsent<Vec<Item<CheckKey>>>> {
    match report_once(shared, &chunk, timeout).await {
        Ok(outcomes) => {
            for (item, outcome) in chunk.into_iter().zip(outcomes) {
                reported(shared, item, outcome);
            }
            return Ok(());
        }
        Err(CallError::Unavailable(reason)) => return Err((chunk, reason)),
        Err(CallError::Refused { .. }) => {}
    }
    let mut left = chunk.into_iter();
    while let Some(item) = left.next() {
        let one = vec![item];
        let outcome = match report_once(shared, &one, timeout).await {
            Ok(outcomes) => outcomes.into_iter().next().unwrap_or(Ok(())),
            Err(CallError::Refused { status, message }) => Err(wire::RenewalRefused { status, message }),
            Err(CallError::Unavailable(reason)) => {
                return Err((one.into_iter().chain(left).collect(), reason));
            }
        };
        for item in one {
            reported(shared, item, outcome.clone());
        }
    }
    Ok(())
}

async fn report_once<R: Runtime>(
    shared: &Shared<R>,
    items: &[Item<CheckKey>],
    timeout: Duration,
) -> Result<Vec<Result<(), wire::RenewalRefused>>, CallError> {
    let path = "/v1/batch/renew";
    let body = list(items);
    let response = shared.servers.call(&Method::PUT, path, &body, timeout).await?;
    wire::renewed(response.body(), items.len()).map_err(CallError::Unavailable)
}

fn reported<R: Runtime>(shared: &Shared<R>, item: Item<CheckKey>, outcome: Result<(), wire::RenewalRefused>) {
    let Item { key, waiters, .. } = item;
    match outcome {
        Ok(()) => tell(waiters, &Ok(0)),
        Err(refused) if refused.unknown() => {
            tracing::warn!(check = %key.id, "the servers lost a check; registering its service again");
            let mut local = shared.local();
            local.lost_check(&key, Instant(u64::MAX));
            let change = local.change_of(&key);
            local
                .pending
                .return_changes(change.map(|change| (change, waiters)));
            drop(local);
            shared.wake_auditor.notify_one();
        }
        Err(refused) => {
            tracing::error!(check = %key.id, "the servers refuse a report: {}", refused.message);
            tell(waiters, &Err(refused.into_error()));
        }
    }
}

/// Sends registrations and removals.
async fn send_changes<R: Runtime>(shared: &Shared<R>) -> Result<(), String> {
    let (registrations, removals) = take_changes(shared);
    let mut left = chunks(registrations, AGENT_REGISTRATIONS_PER_CALL_MAX).into_iter();
    while let Some(chunk) = left.next() {
        if let Err((unsent, reason)) = register(shared, chunk).await {
            let unsent = unsent.into_iter().chain(left.flatten()).chain(removals);
            shared
                .local()
                .pending
                .return_changes(unsent.map(|item| (item.key, item.waiters)));
            return Err(reason);
        }
    }
    let mut left = removals.into_iter();
    while let Some(item) = left.next() {
        if let Err((item, reason)) = remove(shared, item).await {
            let unsent = std::iter::once(item).chain(left);
            shared
                .local()
                .pending
                .return_changes(unsent.map(|item| (item.key, item.waiters)));
            return Err(reason);
        }
    }
    Ok(())
}

/// Encodes the pending changes as they are now: first registrations, then removals.
fn take_changes<R: Runtime>(shared: &Shared<R>) -> (Vec<Item<Change>>, Vec<Item<Change>>) {
    let now = R::now();
    let mut local = shared.local();
    let (mut registrations, mut removals) = (Vec::new(), Vec::new());
    let mut changes = local.take_changes();
    let is_here = |change: &Change| matches!(change, Change::NodeCheck(key) if local.check(key).is_some());
    for change in changes
        .keys()
        .filter(|change| is_here(change))
        .cloned()
        .collect::<Vec<_>>()
    {
        // It was removed, and is here again.
        let Change::NodeCheck(key) = &change else {
            continue;
        };
        let waiters = changes.remove(&change).unwrap_or_default();
        let registers = local.change_of(key).unwrap_or(Change::Node);
        changes.entry(registers).or_default().extend(waiters);
    }
    for (change, waiters) in changes {
        let registers = |generation, json: Value, checks: &[(&CheckKey, &LocalCheck)], waiters| Item {
            json: json.to_string(),
            checks: generations(checks),
            key: change.clone(),
            waiters,
            generation,
        };
        let removes = |json: Value, waiters| Item {
            json: json.to_string(),
            checks: Vec::new(),
            key: change.clone(),
            waiters,
            generation: 0,
        };
        match &change {
            Change::Node => {
                let checks: Vec<_> = local.node_checks().collect();
                let node = local.node();
                // As many as servers take of one registration. Whoever waits is told when the last part of them is there.
                let parts = checks.chunks(CHECKS_PER_INSTANCE_MAX);
                let last = parts.len().saturating_sub(1);
                for part in parts.take(last) {
                    let json = wire::registration(node, None, part, now);
                    registrations.push(registers(0, json, part, Waiters::new()));
                }
                let part = &checks[last * CHECKS_PER_INSTANCE_MAX..];
                let json = wire::registration(node, None, part, now);
                registrations.push(registers(0, json, part, waiters));
            }
            Change::Service(key) => match local.service(key) {
                Some(service) => {
                    let checks: Vec<_> = local.checks_of(service).collect();
                    let json = wire::registration(local.node(), Some(&service.instance), &checks, now);
                    registrations.push(registers(service.generation, json, &checks, waiters));
                }
                None => removals.push(removes(wire::deregister_service(key), waiters)),
            },
            Change::NodeCheck(key) => removals.push(removes(wire::deregister_check(key), waiters)),
        }
    }
    (registrations, removals)
}

fn generations(checks: &[(&CheckKey, &LocalCheck)]) -> Vec<(CheckKey, u64)> {
    let checks = checks.iter();
    checks
        .map(|(key, check)| ((*key).clone(), check.generation))
        .collect()
}

/// Registers all of a chunk at once; if the servers refuse it, one after the other, so that one bad registration does
/// not keep the others out.
async fn register<R: Runtime>(
    shared: &Shared<R>,
    chunk: Vec<Item<Change>>,
) -> Result<(), Unsent<Vec<Item<Change>>>> {
    match register_once(shared, &chunk).await {
        Ok(index) => {
            for item in chunk {
                registered(shared, item, Ok(index));
            }
            return Ok(());
        }
        Err(CallError::Unavailable(reason)) => return Err((chunk, reason)),
        Err(CallError::Refused { .. }) => {}
    }
    let mut left = chunk.into_iter();
    while let Some(item) = left.next() {
        let one = vec![item];
        let outcome = register_once(shared, &one).await;
        if let Err(CallError::Unavailable(reason)) = outcome {
            return Err((one.into_iter().chain(left).collect(), reason));
        }
        for item in one {
            registered(shared, item, outcome.clone());
        }
    }
    Ok(())
}

async fn register_once<R: Runtime>(shared: &Shared<R>, items: &[Item<Change>]) -> Result<u64, CallError> {
    let path = "/v1/batch/register";
    let body = list(items);
    let response = shared
        .servers
        .call(&Method::PUT, path, &body, AGENT_CALL_TIMEOUT)
        .await?;
    Ok(wire::index(&response))
}

fn registered<R: Runtime>(shared: &Shared<R>, item: Item<Change>, outcome: Result<u64, CallError>) {
    match &outcome {
        Ok(_) => {
            let (mut local, now) = (shared.local(), R::now());
            local.confirm(&item.checks, now);
            local.confirm_service(&item.key, item.generation, now);
        }
        Err(error) => tracing::error!("the servers refuse {}: {error}", describe(&item.key)),
    }
    tell(item.waiters, &outcome);
}

/// Removes one thing from the servers; that it is not there is as good.
async fn remove<R: Runtime>(shared: &Shared<R>, item: Item<Change>) -> Result<(), Unsent<Item<Change>>> {
    let body = Bytes::from(item.json.clone());
    let path = "/v1/catalog/deregister";
    let outcome = shared
        .servers
        .call(&Method::PUT, path, &body, AGENT_CALL_TIMEOUT)
        .await;
    match outcome {
        Ok(response) => tell(item.waiters, &Ok(wire::index(&response))),
        Err(CallError::Refused { status, .. }) if status == http::StatusCode::NOT_FOUND => {
            tell(item.waiters, &Ok(0));
        }
        Err(error @ CallError::Refused { .. }) => {
            tracing::error!("the servers refuse to remove {}: {error}", describe(&item.key));
            tell(item.waiters, &Err(error));
        }
        Err(CallError::Unavailable(reason)) => return Err((item, reason)),
    }
    Ok(())
}

fn describe(change: &Change) -> String {
    match change {
        Change::Node => "this node".into(),
        Change::Service(key) => format!("service instance {:?}", key.id.as_str()),
        Change::NodeCheck(key) => format!("check {:?}", key.id.as_str()),
    }
}

fn gone(key: &CheckKey) -> CallError {
    CallError::Refused {
        status: http::StatusCode::NOT_FOUND,
        message: format!("check {:?} was deregistered", key.id.as_str()),
    }
}
