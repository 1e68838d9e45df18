//! Successful answers and their headers.

use std::time::Duration;

use axum::{
    body::{Body, to_bytes},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use serde::Serialize;

use super::{
    encode,
    options::{Options, Shown},
};
use crate::server::Answer;

const INDEX: HeaderName = HeaderName::from_static("x-index");
const CONSUL_INDEX: HeaderName = HeaderName::from_static("x-consul-index");
const KNOWN_LEADER: HeaderName = HeaderName::from_static("x-consul-knownleader");
const LAST_CONTACT: HeaderName = HeaderName::from_static("x-consul-lastcontact");
const EFFECTIVE_CONSISTENCY: HeaderName = HeaderName::from_static("x-consul-effective-consistency");
const QUERY_BACKEND: HeaderName = HeaderName::from_static("x-consul-query-backend");
const CACHE: HeaderName = HeaderName::from_static("x-cache");
const REASON: HeaderName = HeaderName::from_static("x-consul-reason");
const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");
const CONTENT_HASH: HeaderName = HeaderName::from_static("x-consul-contenthash");

/// An answer.
#[derive(Clone, Debug)]
pub struct Reply {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Reply {
    /// 200 with JSON that is encoded already.
    pub fn encoded(body: Bytes) -> Self {
        let mut headers = HeaderMap::with_capacity(8);
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Reply {
            status: StatusCode::OK,
            headers,
            body,
        }
    }

    /// 200 with JSON.
    pub fn json<T: Serialize + ?Sized>(value: &T) -> Self {
        Reply::encoded(encode::to_bytes(value))
    }

    /// 200 with nothing: what was asked for is done.
    pub fn empty() -> Self {
        let mut reply = Reply::encoded(Bytes::new());
        reply.content_type("application/json; charset=utf-8");
        reply
    }

    /// 200 with text.
    pub fn text(text: impl Into<Bytes>) -> Self {
        let mut reply = Reply::encoded(text.into());
        reply.content_type("text/plain; charset=utf-8");
        reply
    }

    /// An answer to a read, with what is known of its freshness.
    pub fn read(answer: &Answer, options: &Options, body: Bytes) -> Self {
        Reply::shown(answer, options.shown(), body)
    }

    /// As [`Reply::read`], by what it says of the options alone.
    pub fn shown(answer: &Answer, options: Shown, body: Bytes) -> Self {
        let last_contact = u64::try_from(answer.last_contact.as_millis()).unwrap_or(u64::MAX);
        let mut reply = Reply::encoded(body)
            .with_index(answer.index)
            .with_freshness(answer.known_leader, last_contact);
        reply.headers.insert(
            EFFECTIVE_CONSISTENCY,
            HeaderValue::from_static(options.consistency),
        );
        reply = reply.with_backend();
        if options.cached {
            // Views are shared, so this one may be of an earlier request; but none is older than what is asked for.
            let cache = if answer.view.is_reused() { "HIT" } else { "MISS" };
            reply.headers.insert(CACHE, HeaderValue::from_static(cache));
            reply.headers.insert(header::AGE, HeaderValue::from_static("0"));
        }
        reply
    }

    /// The head of an answer to a read that goes on, with what is known of its freshness as it begins. What it is of
    /// stands in each of its events.
    pub fn event_stream(known_leader: bool, last_contact: Duration, options: &Options) -> Self {
        let last_contact = u64::try_from(last_contact.as_millis()).unwrap_or(u64::MAX);
        let mut reply = Reply::encoded(Bytes::new()).with_freshness(known_leader, last_contact);
        reply.content_type("text/event-stream");
        reply.headers.insert(
            EFFECTIVE_CONSISTENCY,
            HeaderValue::from_static(options.effective_consistency()),
        );
        // Neither may a cache keep it, nor a proxy hold parts of it back.
        reply
            .headers
            .insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        reply
            .headers
            .insert(ACCEL_BUFFERING, HeaderValue::from_static("no"));
        reply
    }

    /// An answer to a read that found nothing: 404, with what a blocking query needs.
    pub fn read_nothing(answer: &Answer, options: Shown) -> Self {
        let mut reply = Reply::shown(answer, options, Bytes::new());
        reply.status = StatusCode::NOT_FOUND;
        reply.headers.remove(header::CONTENT_TYPE);
        reply
    }

    /// Says that nothing of it is older than the request.
    pub fn fresh(&mut self) {
        self.headers.insert(header::AGE, HeaderValue::from_static("0"));
    }

    /// The same as bytes of any kind, which no browser shall take for a page.
    #[must_use]
    pub fn raw(mut self) -> Self {
        self.content_type("text/plain; charset=utf-8");
        self.headers.insert(
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        );
        self
    }

    /// The same as a 409 whose body says what came in between.
    #[must_use]
    pub fn conflict(mut self) -> Self {
        self.status = StatusCode::CONFLICT;
        self.content_type("application/json; charset=utf-8");
        self
    }

    /// The same with what is known of its freshness.
    #[must_use]
    pub fn with_freshness(mut self, known_leader: bool, last_contact_ms: u64) -> Self {
        let known_leader = if known_leader { "true" } else { "false" };
        self.headers
            .insert(KNOWN_LEADER, HeaderValue::from_static(known_leader));
        self.headers
            .insert(LAST_CONTACT, HeaderValue::from(last_contact_ms));
        self
    }

    /// The same with how it was come by, as Consul's reads say it.
    #[must_use]
    pub fn with_backend(mut self) -> Self {
        self.headers
            .insert(QUERY_BACKEND, HeaderValue::from_static("blocking-query"));
        self
    }

    /// The same with the index that it is of; never 0, which no blocking query could wait for.
    #[must_use]
    pub fn with_index(mut self, index: u64) -> Self {
        let index = HeaderValue::from(index.max(1));
        self.headers.insert(INDEX, index.clone());
        self.headers.insert(CONSUL_INDEX, index);
        self
    }

    /// The same with another status, and the reason for it.
    #[must_use]
    pub fn with_status(mut self, status: StatusCode, reason: &str) -> Self {
        self.status = status;
        // A name in the reason may hold what a header should not.
        let reason = reason.replace(|c: char| !(' '..='~').contains(&c), "?");
        if let Ok(reason) = HeaderValue::from_str(&reason) {
            self.headers.insert(REASON, reason);
        }
        self
    }

    /// The same with the hash of its content.
    #[must_use]
    pub fn with_hash(mut self, hash: &str) -> Self {
        if let Ok(hash) = HeaderValue::from_str(hash) {
            self.headers.insert(CONTENT_HASH, hash);
        }
        self
    }

    /// Sets the content type.
    pub fn content_type(&mut self, content_type: &'static str) {
        self.headers
            .insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    }
}

/// A response with another body, made of its own; as it is if none can be made of that.
pub(crate) async fn rewritten(response: Response, change: impl FnOnce(&[u8]) -> Option<Vec<u8>>) -> Response {
    let (mut parts, body) = response.into_parts();
    // Our bodies are complete in memory: reading one can't fail.
    let bytes = to_bytes(body, usize::MAX).await.unwrap_or_default();
    match change(&bytes) {
        Some(changed) => {
            parts.headers.remove(header::CONTENT_LENGTH);
            Response::from_parts(parts, Body::from(changed))
        }
        None => Response::from_parts(parts, Body::from(bytes)),
    }
}

/// An error with the headers of an answer of whose freshness nothing is known.
pub(super) fn unknown_freshness(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(CONSUL_INDEX, HeaderValue::from(1));
    headers.insert(KNOWN_LEADER, HeaderValue::from_static("false"));
    headers.insert(LAST_CONTACT, HeaderValue::from(0));
    headers.insert(QUERY_BACKEND, HeaderValue::from_static("blocking-query"));
    response
}

impl IntoResponse for Reply {
    fn into_response(self) -> Response {
        // Not by way of the body's own response, which would give it a type where there is none.
        let mut response = Response::new(Body::from(self.body));
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        response
    }
}
