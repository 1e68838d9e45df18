//! Serves a router over HTTP/1.1.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use axum::{Router, body::Body, response::IntoResponse};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use sider_core::limits;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    task::{JoinHandle, JoinSet},
};
use tower::ServiceExt;

use crate::address::configure;

/// An HTTP listener. The router behind it can be exchanged while it serves; until there is one, it answers 503.
#[derive(Debug)]
pub struct HttpServer {
    address: SocketAddr,
    routes: Routes,
    stop: watch::Sender<bool>,
    accepting: JoinHandle<JoinSet<()>>,
}

#[derive(Clone, Debug, Default)]
struct Routes(Arc<RwLock<Option<Router>>>);

impl HttpServer {
    /// Starts to serve on `listener`.
    ///
    /// # Errors
    /// The listener has no address.
    pub fn start(listener: TcpListener) -> std::io::Result<HttpServer> {
        let address = listener.local_addr()?;
        let routes = Routes::default();
        let (stop, stopped) = watch::channel(false);
        let accepting = tokio::spawn(accept(listener, routes.clone(), stopped));
        Ok(HttpServer {
            address,
            routes,
            stop,
            accepting,
        })
    }

    /// The address that is listened on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves requests by `router` from now on; `None` answers them with 503.
    pub fn set_router(&self, router: Option<Router>) {
        *self.routes.0.write().unwrap_or_else(PoisonError::into_inner) = router;
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
async fn accept(listener: TcpListener, routes: Routes, stopped: watch::Receiver<bool>) -> JoinSet<()> {
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
                Ok((stream, _)) => {
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

async fn serve_connection(stream: TcpStream, routes: Routes, mut stopped: watch::Receiver<bool>) {
    if let Err(error) = configure(&stream) {
        // The client has gone already.
        tracing::debug!(%error, "an HTTP connection can't be used");
        return;
    }
    let service = service_fn(move |request| routes.clone().answer(request));
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

impl Routes {
    async fn answer(self, request: hyper::Request<Incoming>) -> Result<axum::response::Response, Infallible> {
        let router = self.0.read().unwrap_or_else(PoisonError::into_inner).clone();
        match router {
            Some(router) => router.oneshot(request.map(Body::new)).await,
            None => Ok((
                hyper::StatusCode::SERVICE_UNAVAILABLE,
                "this server is starting or stopping\n",
            )
                .into_response()),
        }
    }
}
