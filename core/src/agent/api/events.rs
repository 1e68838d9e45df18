//! User events: a server tells all that it heard of, and the agent knows which are for its host.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode};
use serde_json::Value;

use super::{
    forward::{Wanted, parameter, wait},
    waits::rest_of,
};
use crate::{
    agent::{Shared, cache::index_of, servers::Forwarded},
    api::http::event::OF_ANY_NODE,
    registry::Namespace,
    runtime::Runtime,
    server::UserEvent,
};

/// The headers in which an answer has its index.
const INDEX: [HeaderName; 2] = [
    HeaderName::from_static("x-consul-index"),
    HeaderName::from_static("x-index"),
];

/// `GET /v1/event/list`: those for this host. With an index, waits until there are others.
///
/// # Errors
/// No server could answer.
pub(super) async fn list<R: Runtime>(
    shared: &Shared<R>,
    wanted: &Wanted,
) -> Result<Response<Bytes>, Forwarded> {
    let known = parameter(&wanted.uri, "index").and_then(|index| index.parse().ok());
    let known: Option<u64> = known.filter(|index| *index > 0);
    let deadline = R::now() + wait(&wanted.uri);
    let question = rest_of(&wanted.uri, |key| key != "index" && key != "wait");
    let mut seen = known;
    loop {
        let left = deadline.saturating_since(R::now());
        let waits = seen.map(|index| format!("&index={index}&wait={}us", left.as_micros().max(1)));
        let asked = Wanted {
            uri: format!("{question}&{OF_ANY_NODE}{}", waits.unwrap_or_default())
                .parse()
                .unwrap_or_else(|_| wanted.uri.clone()),
            ..wanted.clone()
        };
        let mut answer = shared.servers.forward(&asked, asked.patience()).await?;
        let told = serde_json::from_slice::<Vec<Value>>(answer.body());
        let (Ok(mut events), Some(newest), StatusCode::OK) = (told, index_of(&answer), answer.status())
        else {
            return Ok(answer);
        };
        events.retain(|event| is_for_this_host(shared, event));
        let index = events.last().map_or(1, |event| read(event).index());
        if known != Some(index) || R::now() >= deadline {
            for name in INDEX {
                answer.headers_mut().insert(name, HeaderValue::from(index));
            }
            *answer.body_mut() = Bytes::from(Value::from(events).to_string());
            return Ok(answer);
        }
        // What is new is for others.
        seen = Some(newest);
    }
}

fn is_for_this_host<R: Runtime>(shared: &Shared<R>, event: &Value) -> bool {
    read(event).concerns(shared.config.node.as_str(), |matches| {
        let local = shared.local();
        let mut here = local
            .services()
            .filter(|(key, _)| key.namespace == Namespace::default());
        here.any(|(_, service)| matches(service.instance.service.as_str(), &service.instance.tags))
    })
}

/// What says whom an event is for, and which it is.
fn read(event: &Value) -> UserEvent {
    let text = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
    UserEvent {
        id: text("ID"),
        node_filter: text("NodeFilter"),
        service_filter: text("ServiceFilter"),
        tag_filter: text("TagFilter"),
        ..UserEvent::default()
    }
}
