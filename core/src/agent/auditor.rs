//! Anti-entropy: looks up regularly what the servers hold for this node and has the writer put right what is not so.

use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;
use futures_util::future::{Either, select};
use http::Method;

use super::{
    Shared,
    compare::{Finding, Held, compare},
    local::Change,
    store, wire,
};
use crate::{
    api::http::health::AS_REGISTERED,
    limits::{AGENT_AFTERMATH, AGENT_BACKOFF_MAX, AGENT_BACKOFF_MIN, AGENT_CALL_TIMEOUT},
    probing::schedule::{Backoff, spread},
    registry::Namespace,
    runtime::{Instant, Runtime},
};

/// Compares again and again until the agent stops.
pub(super) async fn run<R: Runtime>(shared: Arc<Shared<R>>) {
    let mut backoff = Backoff::new(AGENT_BACKOFF_MIN, AGENT_BACKOFF_MAX);
    while !shared.stopping() {
        let wait = match audit(&shared).await {
            Ok(()) => {
                backoff.succeeded();
                let interval = spread(shared.config.sync_interval, R::random_u64());
                if shared.servers.take_uncertain() {
                    interval.min(AGENT_AFTERMATH)
                } else {
                    interval
                }
            }
            Err(reason) => {
                tracing::debug!("the servers' view of this node can't be read: {reason}");
                backoff.failed(R::random_u64())
            }
        };
        let wake = std::pin::pin!(shared.wake_auditor.notified());
        if let Either::Left(_) = select(wake, std::pin::pin!(R::sleep(wait))).await {
            // Many losses are noticed at once: one look finds them all.
            R::sleep(AGENT_BACKOFF_MIN).await;
        }
    }
}

async fn audit<R: Runtime>(shared: &Shared<R>) -> Result<(), String> {
    let mut namespaces = BTreeSet::from([Namespace::default()]);
    namespaces.extend(shared.local().namespaces());
    namespaces.extend(shared.namespaces().iter().cloned());
    for namespace in namespaces {
        let started = R::now();
        let held = read(shared, &namespace).await?;
        settle(shared, &namespace, &held, started);
        let empty =
            held.node.services.is_empty() && held.checks.iter().all(|check| check.service_id.is_empty());
        if empty && namespace != Namespace::default() {
            forget(shared, &namespace).await;
        }
    }
    Ok(())
}

async fn read<R: Runtime>(shared: &Shared<R>, namespace: &Namespace) -> Result<Held, String> {
    let node = encode(shared.config.node.as_str());
    let ns = encode(namespace.as_str());
    let node_services = get(shared, format!("/v1/catalog/node-services/{node}?ns={ns}")).await?;
    let checks = get(shared, format!("/v1/health/node/{node}?ns={ns}&{AS_REGISTERED}")).await?;
    Ok(Held {
        node: wire::read(&node_services)?,
        checks: wire::read(&checks)?,
    })
}

/// Reads something from the servers; what is not there is `null`.
pub(super) async fn get<R: Runtime>(shared: &Shared<R>, path: String) -> Result<Bytes, String> {
    let answer = shared
        .servers
        .call(&Method::GET, &path, &Bytes::new(), AGENT_CALL_TIMEOUT)
        .await;
    match answer {
        Ok(response) => Ok(response.into_body()),
        Err(error) if error.not_found() => Ok(Bytes::from_static(b"null")),
        Err(error) => Err(error.to_string()),
    }
}

/// Marks what is to be put right.
fn settle<R: Runtime>(shared: &Shared<R>, namespace: &Namespace, held: &Held, started: Instant) {
    let mut local = shared.local();
    if *namespace == Namespace::default() && held.is_of_server(&local) && local.leave_alive_to_server() {
        tracing::warn!(
            node = %shared.config.node,
            "the node is a server's, too, which tells whether it is alive: this agent does not, and nobody learns if it ends"
        );
    }
    let mut retagged = false;
    for finding in compare(&local, namespace, held) {
        match finding {
            Finding::Differs(change) => {
                tracing::debug!(?change, "the servers hold something else; registering again");
                local.pending.mark(change);
            }
            Finding::Unknown(change) => {
                match &change {
                    Change::Service(key) => {
                        tracing::info!(id = %key.id, "removing an unknown service instance from this node");
                    }
                    Change::NodeCheck(key) => {
                        tracing::info!(id = %key.id, "removing an unknown check from this node");
                    }
                    Change::Node => {}
                }
                local.pending.mark(change);
            }
            Finding::LostCheck(key) => local.lost_check(&key, started),
            Finding::Status(key) => local.pending.mark_report(key),
            Finding::Adopt(key, status, output) => local.adopt(&key, status, output),
            Finding::Tags(key, tags) => retagged |= local.adopt_tags(&key, tags, started),
        }
    }
    local.compared(namespace);
    local.follow_aliases(R::now());
    drop(local);
    if retagged {
        shared.news.notify_waiters();
    }
    shared.wake_writer.notify_one();
}

/// Looks no more into a namespace in which there is nothing of this agent, neither here nor at the servers.
async fn forget<R: Runtime>(shared: &Shared<R>, namespace: &Namespace) {
    let _changing = shared.changing.lock().await;
    if shared.local().namespaces().contains(namespace) || !shared.namespaces().remove(namespace) {
        return;
    }
    if let Err(error) = shared.store.write(vec![store::remove_namespace(namespace)]).await {
        tracing::error!(%namespace, "an empty namespace will be looked into again after a restart: {error}");
    }
}

/// Percent-encodes a path segment or a query's value.
pub(super) fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}
