//! Calls to the servers, whichever of them answers.

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header::CONTENT_TYPE};
use tokio::sync::Notify;

use super::api::forward::Wanted;
use crate::{
    api::http::{AN_AGENT, FROM_AN_AGENT},
    runtime::{Network, NetworkError, Runtime},
    server::ServerError,
};

/// Why no server did what was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum CallError {
    /// No server answered, or none could do it now: worth trying again.
    #[error("{0}")]
    Unavailable(String),
    /// The request was refused, and would be again.
    #[error("{message}")]
    Refused {
        /// The status of the answer.
        status: StatusCode,
        /// Its text.
        message: String,
    },
}

/// Why a request that was sent on has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Forwarded {
    /// No server carried it out: what each of them said.
    NotDone(String),
    /// It may have been carried out.
    Unknown(String),
}

/// What servers say who certainly did nothing: another one may.
const NOT_DONE: &str = "No cluster leader";

/// The servers' addresses, and the one that answered last.
///
/// Everything that an agent asks for states how things should be and does no harm when it is done twice. So a call
/// that failed or has no known outcome goes to the next server.
#[derive(Clone)]
pub(super) struct Servers<R: Runtime> {
    network: R::Network,
    addresses: Arc<[String]>,
    current: Arc<AtomicUsize>,
    /// Told when that is another one.
    moved: Arc<Notify>,
    uncertain: Arc<AtomicBool>,
    /// Whether no server said anything to the last call.
    silent: Arc<AtomicBool>,
}

impl<R: Runtime> Servers<R> {
    /// Starts with an address by chance, so that agents with the same list spread over the servers.
    ///
    /// # Panics
    /// There is no address.
    pub(super) fn new(network: R::Network, addresses: Vec<String>) -> Self {
        assert!(!addresses.is_empty(), "an agent needs the address of a server");
        let first = usize::try_from(R::random_u64() % addresses.len() as u64).unwrap_or(0);
        Servers {
            network,
            addresses: addresses.into(),
            current: Arc::new(AtomicUsize::new(first)),
            moved: Arc::default(),
            uncertain: Arc::default(),
            silent: Arc::default(),
        }
    }

    /// The server that is asked first, by its place in the list.
    pub(super) fn current(&self) -> usize {
        self.current.load(Ordering::Relaxed)
    }

    fn turn_to(&self, server: usize) {
        if self.current.swap(server, Ordering::Relaxed) != server {
            self.moved.notify_waiters();
        }
    }

    /// Ends when another server than this one is asked first.
    pub(super) async fn moved_from(&self, server: usize) {
        loop {
            let mut moved = pin!(self.moved.notified());
            moved.as_mut().enable();
            if self.current() != server {
                return;
            }
            moved.await;
        }
    }

    /// Sends a request to one server after the other, each at most once, until one carries it out.
    ///
    /// # Errors
    /// None did, or one refused it.
    pub(super) async fn call(
        &self,
        method: &Method,
        path: &str,
        body: &Bytes,
        timeout: Duration,
    ) -> Result<Response<Bytes>, CallError> {
        let first = self.current();
        let (mut failures, mut heard) = (Vec::new(), false);
        for step in 0..self.addresses.len() {
            let index = (first + step) % self.addresses.len();
            let address = &self.addresses[index];
            let attempt = self.attempt(address, method, path, body, timeout, &mut heard);
            match attempt.await {
                Err(CallError::Unavailable(reason)) => {
                    if *method != Method::GET {
                        self.uncertain.store(true, Ordering::Relaxed);
                    }
                    failures.push(reason);
                }
                decided => {
                    self.silent.store(false, Ordering::Relaxed);
                    self.turn_to(index);
                    return decided;
                }
            }
        }
        // The next call begins one further: the first of the list may be the one that keeps callers waiting.
        self.turn_to((first + 1) % self.addresses.len());
        self.silent.store(!heard, Ordering::Relaxed);
        Err(CallError::Unavailable(failures.join("; ")))
    }

    /// Sends a client's request to one server after the other, until one answers it. A write goes to the next one only where
    /// it is certain that it was not carried out.
    ///
    /// # Errors
    /// None did.
    pub(super) async fn forward(
        &self,
        wanted: &Wanted,
        timeout: Duration,
    ) -> Result<Response<Bytes>, Forwarded> {
        let reads = matches!(wanted.method, Method::GET | Method::HEAD | Method::OPTIONS);
        let first = self.current();
        let mut failures = Vec::new();
        let mut refused = None;
        for step in 0..self.addresses.len() {
            let index = (first + step) % self.addresses.len();
            let address = &self.addresses[index];
            let mut request = Request::new(wanted.body.clone());
            *request.method_mut() = wanted.method.clone();
            *request.uri_mut() = wanted.uri.clone();
            *request.headers_mut() = wanted.headers.clone();
            let headers = request.headers_mut();
            headers
                .entry(FROM_AN_AGENT)
                .or_insert(HeaderValue::from_static(AN_AGENT));
            match self.network.http(address, request, timeout).await {
                Ok(answer) if is_not_done(&answer) => {
                    failures.push(format!("{address}: {}", answer.status()));
                    refused = Some(answer);
                }
                Ok(answer) => {
                    self.turn_to(index);
                    return Ok(answer);
                }
                Err(NetworkError::OutcomeUnknown { reason, .. }) if !reads => {
                    return Err(Forwarded::Unknown(format!("no answer from {address}: {reason}")));
                }
                Err(error) => failures.push(error.to_string()),
            }
        }
        self.turn_to((first + 1) % self.addresses.len());
        refused.ok_or_else(|| Forwarded::NotDone(failures.join("; ")))
    }

    /// Whether a write failed of which a part may still arrive, later than what was sent since: what the servers hold
    /// should be looked at then.
    pub(super) fn is_uncertain(&self) -> bool {
        self.uncertain.load(Ordering::Relaxed)
    }

    /// The same, once for every time.
    pub(super) fn take_uncertain(&self) -> bool {
        self.uncertain.swap(false, Ordering::Relaxed)
    }

    /// Whether none of them could be reached at the last call. One that answers that it can't do it now was.
    pub(super) fn are_silent(&self) -> bool {
        self.silent.load(Ordering::Relaxed)
    }

    async fn attempt(
        &self,
        address: &str,
        method: &Method,
        path: &str,
        body: &Bytes,
        timeout: Duration,
        heard: &mut bool,
    ) -> Result<Response<Bytes>, CallError> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(CONTENT_TYPE, "application/json")
            .header(FROM_AN_AGENT, AN_AGENT)
            .body(body.clone())
            .map_err(|error| CallError::Refused {
                status: StatusCode::BAD_REQUEST,
                message: format!("no valid request for {path:?}: {error}"),
            })?;
        let response = self
            .network
            .http(address, request, timeout)
            .await
            .map_err(|error| CallError::Unavailable(error.to_string()))?;
        let status = response.status();
        *heard |= status != StatusCode::LOOP_DETECTED;
        if status.is_success() {
            return Ok(response);
        }
        let text = String::from_utf8_lossy(response.body()).trim().to_string();
        // What an older member can't read must not hold up the rest: the next comparison sends it again.
        let transient = !text.starts_with(ServerError::NEEDS_ALL)
            && (status.is_server_error()
                || status == StatusCode::TOO_MANY_REQUESTS
                || status == StatusCode::MISDIRECTED_REQUEST
                || status == StatusCode::REQUEST_TIMEOUT);
        if transient {
            Err(CallError::Unavailable(format!("{address}: {status}: {text}")))
        } else {
            Err(CallError::Refused {
                status,
                message: text,
            })
        }
    }
}

/// Whether a server says that it did nothing, and that another one, or the same later, may.
fn is_not_done(answer: &Response<Bytes>) -> bool {
    // One that detects a loop is an agent, and no server; a port may be for joining servers alone.
    [
        StatusCode::SERVICE_UNAVAILABLE,
        StatusCode::LOOP_DETECTED,
        StatusCode::MISDIRECTED_REQUEST,
    ]
    .contains(&answer.status())
        || (answer.status() == StatusCode::INTERNAL_SERVER_ERROR
            && answer.body().trim_ascii() == NOT_DONE.as_bytes())
}

impl CallError {
    /// Whether the servers said that there is no such thing.
    pub(super) fn not_found(&self) -> bool {
        matches!(self, CallError::Refused { status, .. } if *status == StatusCode::NOT_FOUND)
    }
}
