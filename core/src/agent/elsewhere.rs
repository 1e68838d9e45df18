//! Follows other nodes at the servers, for aliases of this host that stand for what is there: one blocking query for each
//! node and namespace, however many aliases there are.

use std::sync::Arc;

use bytes::Bytes;
use http::Method;

use super::{
    Shared,
    auditor::{encode, get},
    local::{Place, Seen, SeenCheck},
    wire::{self, HeldCheck, HeldNode},
};
use crate::{
    api::http::requests::parse_status,
    limits::{AGENT_ALIAS_WAIT, AGENT_BACKOFF_MAX, AGENT_BACKOFF_MIN, AGENT_FORWARD_SLACK, ALIAS_INTERVAL},
    probing::schedule::Backoff,
    registry::CheckStatus,
    runtime::Runtime,
};

/// Follows a node until no alias asks about it any more.
pub(super) async fn follow<R: Runtime>(shared: Arc<Shared<R>>, place: Place) {
    let mut backoff = Backoff::new(AGENT_BACKOFF_MIN, AGENT_BACKOFF_MAX);
    let mut index = 0;
    while !shared.stopping() && shared.local().is_asked_about(&place, R::now()) {
        match look(&shared, &place, index).await {
            Ok((seen, at)) => {
                backoff.succeeded();
                // Servers that were set up anew begin with a lower one.
                index = if at < index { 0 } else { at };
                saw(&shared, &place, Ok(seen));
                // Whoever can't be waited for is asked no more often.
                R::sleep(ALIAS_INTERVAL).await;
            }
            Err(reason) => {
                let wait = backoff.failed(R::random_u64());
                // Once may be a server that is being exchanged.
                if backoff.failures() > 1 {
                    tracing::debug!(node = %place.1, "an aliased node can't be looked at: {reason}");
                    saw(&shared, &place, Err(reason));
                    index = 0;
                }
                R::sleep(wait).await;
            }
        }
    }
}

fn saw<R: Runtime>(shared: &Shared<R>, place: &Place, seen: Result<Seen, String>) {
    if shared.local().saw(place, seen, R::now()) {
        shared.wake_writer.notify_one();
    }
}

/// What the servers hold, once that is newer than the index, or after a while; with its index.
async fn look<R: Runtime>(shared: &Shared<R>, place: &Place, index: u64) -> Result<(Seen, u64), String> {
    let (namespace, node) = place;
    let (ns, node) = (encode(namespace.as_str()), encode(node.as_str()));
    let wait = AGENT_ALIAS_WAIT;
    let path = format!(
        "/v1/health/node/{node}?ns={ns}&stale&index={index}&wait={}s",
        wait.as_secs()
    );
    let limit = wait * 17 / 16 + AGENT_FORWARD_SLACK;
    let answer = shared
        .servers
        .call(&Method::GET, &path, &Bytes::new(), limit)
        .await
        .map_err(|error| error.to_string())?;
    let checks: Vec<HeldCheck> = wire::read(answer.body())?;
    let services = get(shared, format!("/v1/catalog/node-services/{node}?ns={ns}&stale")).await?;
    let held: HeldNode = wire::read(&services)?;
    let seen = Seen {
        exists: held.node.is_some(),
        services: held.services.into_iter().map(|service| service.id).collect(),
        checks: checks.into_iter().map(seen_check).collect(),
    };
    Ok((seen, wire::index(&answer)))
}

fn seen_check(check: HeldCheck) -> SeenCheck {
    SeenCheck {
        // A status of a newer server's is not known to be good.
        status: parse_status(&check.status).unwrap_or(CheckStatus::Critical),
        service: check.service_id,
        name: check.name,
        output: check.output,
    }
}
