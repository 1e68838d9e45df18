//! Serves a router over HTTP/1.1: on TCP, with TLS or without, or on a socket file.

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    path::Path,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use axum::{Router, body::Body, response::IntoResponse};
use futures_util::future::{BoxFuture, Either, FutureExt as _};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use sider_core::{api::http::FROM_AN_AGENT, limits};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::{Semaphore, watch},
    task::{JoinHandle, JoinSet},
};
use tower::{ServiceExt, util::Oneshot};

use crate::{address::configure, tls::Tls};

/// An HTTP listener. The router behind it can be exchanged while it serves; until there is one, it answers 503.
#[derive(Debug)]
pub struct HttpServer {
    address: Option<SocketAddr>,
    routes: Routes,
    stop: watch::Sender<bool>,
    accepting: JoinHandle<JoinSet<()>>,
}

#[derive(Clone, Debug, Default)]
struct Routes {
    router: Arc<RwLock<Option<Router>>>,
    audience: Audience,
}

/// Whom a listener answers, and what.
#[derive(Clone, Copy, Debug, Default)]
pub struct Audience {
    /// What paths begin with that anybody may ask for; all of them if there is none.
    pub paths: &'static [&'static str],
    /// Whether agents may ask for any path.
    pub agents: bool,
}

/// Where connections come from.
enum Listener {
    Tcp(TcpListener),
    Tls(TcpListener, Tls),
    Socket(UnixListener),
}

enum Stream {
    Tcp(TcpStream),
    Tls(TcpStream, Tls),
    Socket(UnixStream),
}

impl Listener {
    async fn accept(&self) -> io::Result<Stream> {
        Ok(match self {
            Listener::Tcp(listener) => Stream::Tcp(listener.accept().await?.0),
            Listener::Tls(listener, tls) => Stream::Tls(listener.accept().await?.0, tls.clone()),
            Listener::Socket(listener) => Stream::Socket(listener.accept().await?.0),
        })
    }
}

impl HttpServer {
    /// Starts to serve on `listener`.
    ///
    /// # Errors
    /// The listener has no address.
    pub fn start(listener: TcpListener) -> io::Result<HttpServer> {
        HttpServer::start_for(listener, Audience::default())
    }

    /// The same for these alone: others are told 421.
    ///
    /// # Errors
    /// The listener has no address.
    pub fn start_for(listener: TcpListener, audience: Audience) -> io::Result<HttpServer> {
        let address = listener.local_addr()?;
        Ok(HttpServer::begin(
            Listener::Tcp(listener),
            Some(address),
            audience,
        ))
    }

    /// Starts to serve on `listener` over TLS.
    ///
    /// # Errors
    /// The listener has no address.
    pub fn start_tls(listener: TcpListener, tls: Tls) -> io::Result<HttpServer> {
        let address = listener.local_addr()?;
        Ok(HttpServer::begin(
            Listener::Tls(listener, tls),
            Some(address),
            Audience::default(),
        ))
    }

    /// Starts to serve on a socket file, which replaces one that nobody listens on any more.
    ///
    /// # Errors
    /// The file is something else, in use, or can't be made.
    pub fn start_on_socket(path: &Path) -> io::Result<HttpServer> {
        use std::os::unix::fs::FileTypeExt as _;
        let in_use =
            |reason: &str| io::Error::new(io::ErrorKind::AddrInUse, format!("{}: {reason}", path.display()));
        match std::fs::symlink_metadata(path) {
            Ok(found) if !found.file_type().is_socket() => return Err(in_use("it is there, and no socket")),
            Ok(_) if std::os::unix::net::UnixStream::connect(path).is_ok() => {
                return Err(in_use("another process listens on it"));
            }
            Ok(_) => std::fs::remove_file(path)?,
            Err(_) => {}
        }
        let listener = UnixListener::bind(path)
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
        Ok(HttpServer::begin(
            Listener::Socket(listener),
            None,
            Audience::default(),
        ))
    }

    fn begin(listener: Listener, address: Option<SocketAddr>, audience: Audience) -> HttpServer {
        let routes = Routes {
            audience,
            ..Routes::default()
        };
        let (stop, stopped) = watch::channel(false);
        let accepting = tokio::spawn(accept(listener, routes.clone(), stopped));
        HttpServer {
            address,
            routes,
            stop,
            accepting,
        }
    }

    /// The address that is listened on; `None` for a socket file.
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// Serves requests by `router` from now on; `None` answers them with 503.
    pub fn set_router(&self, router: Option<Router>) {
        *self.routes.router.write().unwrap_or_else(PoisonError::into_inner) = router;
    }

    /// Accepts no more connections and no more requests on those there are, gives the requests in flight `grace` to
    /// finish, and drops what is left.
    pub async fn stop(self, grace: Duration) {
        self.stop.send_replace(true);
        let Ok(mut connections) = self.accepting.await else {
            return;
        };
        let finished = async { while connections.join_next().await.is_some() {} };
        // What takes longer is dropped with the set.
        let _ = tokio::time::timeout(grace, finished).await;
    }
}

/// Accepts connections until it is told to stop; gives those that are still open.
async fn accept(listener: Listener, routes: Routes, stopped: watch::Receiver<bool>) -> JoinSet<()> {
    let mut stopping = stopped.clone();
    let permits = Arc::new(Semaphore::new(limits::HTTP_CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let next = async {
            let permit = permits
                .clone()
                .acquire_owned()
                .await
                .expect("this semaphore is never closed");
            (listener.accept().await, permit)
        };
        let told_to_stop = async { drop(stopping.wait_for(|stop| *stop).await) };
        tokio::select! {
            (accepted, permit) = next => match accepted {
                Ok(stream) => {
                    let (routes, stopped) = (routes.clone(), stopped.clone());
                    connections.spawn(async move {
                        serve_connection(stream, routes, stopped).await;
                        drop(permit);
                    });
                }
                Err(error) => {
                    // Out of file descriptors, most likely: the ones in use must be given back first.
                    tracing::warn!(%error, "can't accept an HTTP connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
            Some(_) = connections.join_next() => {}
            () = told_to_stop => return connections,
        }
    }
}

async fn serve_connection(stream: Stream, routes: Routes, stopped: watch::Receiver<bool>) {
    if let Stream::Tcp(stream) | Stream::Tls(stream, _) = &stream
        && let Err(error) = configure(stream)
    {
        // The client has gone already.
        tracing::debug!(%error, "an HTTP connection can't be used");
        return;
    }
    match stream {
        Stream::Tcp(stream) => serve_stream(stream, routes, stopped).await,
        Stream::Socket(stream) => serve_stream(stream, routes, stopped).await,
        // In a box: else each plain connection would have room for what TLS needs, 3 KB.
        Stream::Tls(stream, tls) => Box::pin(serve_tls(stream, tls, routes, stopped)).await,
    }
}

async fn serve_tls(stream: TcpStream, tls: Tls, routes: Routes, stopped: watch::Receiver<bool>) {
    let greeting = tls.acceptor().accept(stream);
    match tokio::time::timeout(limits::HTTP_HEAD_TIMEOUT, greeting).await {
        Ok(Ok(stream)) => serve_stream(stream, routes, stopped).await,
        Ok(Err(error)) => tracing::debug!(%error, "an HTTPS connection was not made"),
        Err(_) => tracing::debug!("an HTTPS connection was not made in time"),
    }
}

async fn serve_stream(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    routes: Routes,
    mut stopped: watch::Receiver<bool>,
) {
    let service = service_fn(move |request| routes.answer(request));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits::HTTP_HEAD_TIMEOUT)
        .max_header_size(limits::HTTP_HEAD_BYTES_MAX)
        // Buffers start at 8 KiB and grow up to this; so a parked query holds little.
        .max_buf_size(limits::HTTP_HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let told_to_stop = async { drop(stopped.wait_for(|stop| *stop).await) };
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = told_to_stop => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        // The client's doing, nearly always: it broke off, or sent what is not HTTP, and got a 400 for it.
        tracing::debug!(%error, "an HTTP connection ended");
    }
}

/// An answer to come: the router's own, nearly always.
type Answer = Either<Oneshot<Router, axum::extract::Request>, BoxFuture<'static, Answered>>;
type Answered = Result<axum::response::Response, Infallible>;

fn at_once(answer: impl IntoResponse) -> Answer {
    Either::Right(std::future::ready(Ok(answer.into_response())).boxed())
}

impl Routes {
    /// The answer to a request. No `async fn`: that would hold the request beside the router's own copy of it, for as long
    /// as a blocking query waits.
    fn answer(&self, request: hyper::Request<Incoming>) -> Answer {
        let path = request.uri().path();
        let is_of_agent = request.headers().contains_key(FROM_AN_AGENT);
        let Audience { paths, agents } = self.audience;
        let is_open = paths.is_empty() || is_of_agent && agents;
        if !is_open && !paths.iter().any(|start| path.starts_with(start)) {
            let message = match agents {
                true => "this port is for joining servers and for agents alone\n",
                false => "this port is for joining servers alone\n",
            };
            return at_once((hyper::StatusCode::MISDIRECTED_REQUEST, message));
        }
        let router = self.router.read().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(router) = router else {
            let message = "this server is starting or stopping\n";
            return at_once((hyper::StatusCode::SERVICE_UNAVAILABLE, message));
        };
        if !tracing::enabled!(tracing::Level::DEBUG) {
            return Either::Left(router.oneshot(request.map(Body::new)));
        }
        // Without its query: that may hold a token.
        let (method, path) = (request.method().clone(), path.to_owned());
        let told = async move {
            let began = std::time::Instant::now();
            let answer = router.oneshot(request.map(Body::new)).await;
            let status = answer.as_ref().map_or(0, |answer| answer.status().as_u16());
            tracing::debug!(%method, path, status, took = ?began.elapsed(), "request");
            answer
        };
        Either::Right(told.boxed())
    }
}
