//! The HTTP API, as an axum router without IO: hyper serves it in production, the simulator calls it directly.
//!
//! One file for each resource: `agent`, `maintenance`, `identity` (with `oneself`), `host`, `catalog`, `health`, `kv`, `watch`, `session`, `txn`, `prepared`, `event`,
//! `operator`, `autopilot`, `connect`, `snapshot`, `access`, `cluster`, `batch`, `operation`. Their handlers
//! hold no policy: they parse, make one call on [`Server`], and encode. What they share: [`options`] (path, query,
//! headers), [`path`] (what is sent to a clean path), [`body`] (JSON by fields), `plain` (JSON without a name that means something to its reader), [`requests`] (bodies as typed values), [`encode`] (answers in Consul's shapes),
//! [`reply`] (headers of answers), `later` (those that are waited for), `near` (those that begin with a node's), [`error`] (errors in one line), [`duration`] (Go's durations).
//!
//! Where this API differs from Consul's, on purpose:
//! - `POST` is the same as `PUT`, but for keys and prepared queries. A port outside of 0 to 65535 is refused.
//! - `Kind`, `Proxy` and `Connect` of a registration are kept and shown, and nothing else is made of them; a
//!   `SidecarService` is not registered.
//! - Names of services are looked up without regard to the case of ASCII letters only.
//! - A registration answers with its index and the ids of its checks, where Consul's answer is empty.
//! - A check of any kind can be reported on, but for those that the servers run. (An agent refuses reports on what is no TTL check,
//!   as Consul's do.)
//! - In the namespace `default` answers are Consul's to the letter; elsewhere `Namespace` is added to what is in it.

mod access;
mod agent;
mod agent_service;
mod autopilot;
mod batch;
pub mod body;
mod catalog;
mod cluster;
mod connect;
mod coordinate;
pub mod duration;
pub mod encode;
pub mod error;
pub(crate) mod event;
pub(crate) mod health;
pub(crate) mod host;
mod identity;
pub(crate) mod kv;
mod later;
pub(crate) mod maintenance;
mod near;
pub(crate) mod oneself;
mod operation;
mod operator;
pub mod options;
pub(crate) mod path;
mod plain;
mod prepared;
mod prepared_definition;
pub(crate) mod pretty;
pub mod reply;
pub mod requests;
mod session;
mod snapshot;
mod txn;
mod watch;

use std::{
    borrow::Cow,
    convert::Infallible,
    task::{Context, Poll},
};

use axum::{
    Router,
    extract::{MatchedPath, Request},
    handler::Handler,
    response::{IntoResponse, Response},
    routing::{MethodRouter, get, put},
};
use futures_util::future::{BoxFuture, Either, FutureExt as _, ready};
use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use tower::{Service, layer::layer_fn};

use self::error::ApiError;
use crate::{
    registry::{Command, Reply as Outcome},
    server::Server,
};

/// Marks whatever an agent sends: no other agent sends it on. Its value is the agent's node where a client asks.
pub const FROM_AN_AGENT: HeaderName = HeaderName::from_static("x-sider-forwarded");
/// Its value where the agent asks for itself.
pub(crate) const AN_AGENT: &str = "agent";

/// The whole API of a server.
pub fn router(server: Server) -> Router {
    router_of(routes(), server)
}

/// As [`router`], of [`routes`] that are there already: putting them together costs more than a start of a small server.
pub fn router_of(routes: Router<Server>, server: Server) -> Router {
    routes
        .layer(layer_fn({
            let server = server.clone();
            move |inner| Finish {
                inner,
                server: server.clone(),
            }
        }))
        .with_state(server)
}

/// The paths of the API, of no server yet.
pub fn routes() -> Router<Server> {
    Router::new()
        .merge(agent::routes())
        .merge(catalog::routes())
        .merge(health::routes())
        .merge(cluster::routes())
        .merge(batch::routes())
        .merge(operation::routes())
        .merge(snapshot::routes())
        .merge(kv::routes())
        .merge(session::routes())
        .merge(txn::routes())
        .merge(identity::routes())
        .merge(host::routes())
        .merge(maintenance::routes())
        .merge(event::routes())
        .merge(operator::routes())
        .merge(access::routes())
        .merge(autopilot::routes())
        .merge(connect::routes())
        .merge(coordinate::routes())
        .merge(prepared::routes())
        .merge(watch::routes())
        .fallback(unknown_path)
}

/// A path that answers `GET` (and `HEAD`).
pub(crate) fn read<H, T, S>(handler: H) -> MethodRouter<S>
where
    H: Handler<T, S>,
    T: 'static,
    S: Clone + Send + Sync + 'static,
{
    get(handler).fallback(|method: Method| async move { wrong_method(&method, "OPTIONS,GET") })
}

/// A path that answers `PUT` and `POST`, which are the same.
pub(crate) fn write<H, T, S>(handler: H) -> MethodRouter<S>
where
    H: Handler<T, S>,
    T: 'static,
    S: Clone + Send + Sync + 'static,
{
    put(handler.clone())
        .post(handler)
        .fallback(|method: Method| async move { wrong_method(&method, "OPTIONS,PUT,POST") })
}

/// 405, or what `OPTIONS` asks for.
fn wrong_method(method: &Method, allowed: &'static str) -> Response {
    let allow = (header::ALLOW, HeaderValue::from_static(allowed));
    if method == Method::OPTIONS {
        let kind = (
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json; charset=utf-8"),
        );
        return (StatusCode::OK, [allow, kind]).into_response();
    }
    let mut error = ApiError::new(
        StatusCode::METHOD_NOT_ALLOWED,
        format!("method {} not allowed", error::echo(method.as_str())),
    );
    error.header = Some(allow);
    error.into_response()
}

async fn unknown_path() -> Response {
    // Consul ends this one text with a line feed.
    let message = "Invalid URL path: not a recognized HTTP API endpoint\n";
    (StatusCode::NOT_FOUND, message).into_response()
}

/// Adds what every answer has in common, and counts it. A service and no function: that would hold the request, more than
/// once, for as long as a query waits. What is in a box here is gone by then.
#[derive(Clone)]
struct Finish<S> {
    inner: S,
    server: Server,
}

impl<S> Service<Request> for Finish<S>
where
    S: Service<Request, Response = Response, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let server = self.server.clone();
        let began = server.now();
        let method = method_label(request.method());
        let route = request.extensions().get::<MatchedPath>().cloned();
        let of_api = request.uri().path().starts_with("/v1/");
        let pretty = of_api && pretty::is_asked_for(request.uri().query());
        let near = near::wanted(request.uri(), request.headers());
        let answer = match path::redirect(request.uri()) {
            Some(moved) => ready(Ok(moved)).boxed(),
            None => self.inner.call(request).boxed(),
        };
        let finished = async move {
            let Ok(response) = answer.await;
            let mut response = match later::stood_for(response) {
                Either::Left(response) => response,
                Either::Right(answer) => answer.await,
            };
            if let Some(node) = near {
                response = near::sort(response, &node).boxed().await;
            }
            if pretty {
                response = pretty::indent(response).boxed().await;
            }
            if of_api {
                add_common_headers(&mut response);
            }
            let took = server.now().saturating_since(began);
            // Paths that are no route share one label: clients must not be able to make up series.
            let route = route.as_ref().map_or("unmatched", MatchedPath::as_str);
            let route = match route.contains("{*") {
                true => Cow::Owned(route.replace("{*", "{")),
                false => Cow::Borrowed(route),
            };
            server.count_request(&route, method, response.status().as_u16(), took);
            Ok(response)
        };
        finished.boxed()
    }
}

/// A method as a label of a metric: one of a few.
fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::PUT => "PUT",
        Method::POST => "POST",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

/// Carries out a command; a refusal by the registry is an error.
async fn commit(server: &Server, command: Command) -> Result<(u64, Outcome), ApiError> {
    let written = server.write(command).await?;
    Ok((written.index, written.reply?))
}

/// What every answer of Consul's API has.
pub(crate) fn add_common_headers(response: &mut Response) {
    let headers = response.headers_mut();
    headers.insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    headers.insert(
        HeaderName::from_static("x-consul-default-acl-policy"),
        HeaderValue::from_static("allow"),
    );
}
