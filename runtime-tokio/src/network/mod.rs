//! Messages between servers over TCP, and plain HTTP towards them.

mod client;
mod frame;
mod server;

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use sider_core::{
    limits,
    runtime::{Network, NetworkError, PeerHandler},
};
use tokio::{net::TcpListener, task::AbortHandle};

use self::client::Peer;
use crate::address;

/// The network of one server, or of a program that only calls servers. Its clones share connections and listener.
#[derive(Clone, Debug)]
pub struct TcpNetwork {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    listener: Option<Arc<TcpListener>>,
    /// The task that answers peers.
    serving: Mutex<Option<AbortHandle>>,
    peers: Mutex<BTreeMap<String, Arc<Peer>>>,
    http: Client<HttpConnector, Full<Bytes>>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Some(serving) = lock(&self.serving).take() {
            serving.abort();
        }
    }
}

impl TcpNetwork {
    /// A network that others can call at `address` (`host:port`, or `:port` for all interfaces), once
    /// [`Network::listen`] was called; until then their connections wait.
    ///
    /// # Errors
    /// As [`address::listen`].
    pub async fn bind(address: &str) -> io::Result<TcpNetwork> {
        Ok(TcpNetwork::new(Some(Arc::new(address::listen(address).await?))))
    }

    /// A network that only calls others.
    pub fn calling_only() -> TcpNetwork {
        TcpNetwork::new(None)
    }

    fn new(listener: Option<Arc<TcpListener>>) -> TcpNetwork {
        TcpNetwork {
            shared: Arc::new(Shared {
                listener,
                serving: Mutex::default(),
                peers: Mutex::default(),
                http: http_client(limits::HTTP_IDLE_PER_SERVER_MAX),
            }),
        }
    }

    /// The address that was bound.
    ///
    /// # Errors
    /// This network only calls others.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.listener()?.local_addr()
    }

    /// Drops the handler with every call that it is answering, and closes the connections to others. Calls and
    /// `listen` start afresh.
    pub fn stop(&self) {
        if let Some(serving) = lock(&self.shared.serving).take() {
            serving.abort();
        }
        for peer in lock(&self.shared.peers).values() {
            peer.disconnect();
        }
    }

    fn listener(&self) -> io::Result<Arc<TcpListener>> {
        let none = || io::Error::new(io::ErrorKind::Unsupported, "this network only calls others");
        self.shared.listener.clone().ok_or_else(none)
    }

    fn peer(&self, address: &str) -> Arc<Peer> {
        let mut peers = lock(&self.shared.peers);
        if let Some(peer) = peers.get(address) {
            return peer.clone();
        }
        // Addresses come from members and from requests to join: those that lead nowhere must not pile up.
        if peers.len() >= limits::PEER_CONNECTIONS_MAX {
            peers.retain(|_, peer| peer.is_connected());
        }
        let peer = Arc::new(Peer::new(address));
        peers.insert(address.to_owned(), peer.clone());
        peer
    }
}

impl Network for TcpNetwork {
    async fn call(&self, address: &str, message: Bytes, timeout: Duration) -> Result<Bytes, NetworkError> {
        self.peer(address).call(message, timeout).await
    }

    async fn listen(&self, handler: PeerHandler) -> io::Result<()> {
        let serving = tokio::spawn(server::serve(self.listener()?, handler)).abort_handle();
        if let Some(before) = lock(&self.shared.serving).replace(serving) {
            before.abort();
        }
        Ok(())
    }

    async fn http(
        &self,
        address: &str,
        request: http::Request<Bytes>,
        timeout: Duration,
    ) -> Result<http::Response<Bytes>, NetworkError> {
        let unreachable = |reason: String| NetworkError::Unreachable {
            address: address.to_owned(),
            reason,
        };
        let unknown = |reason: String| NetworkError::OutcomeUnknown {
            address: address.to_owned(),
            reason,
        };
        let request = absolute(address, request).map_err(unreachable)?;
        let exchange = async {
            let response = self.shared.http.request(request).await.map_err(|error| {
                if error.is_connect() {
                    unreachable(root_cause(&error))
                } else {
                    unknown(root_cause(&error))
                }
            })?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, limits::HTTP_RESPONSE_BYTES_MAX)
                .collect()
                .await;
            let body = body.map_err(|error| unknown(error.to_string()))?;
            Ok(http::Response::from_parts(head, body.to_bytes()))
        };
        match tokio::time::timeout(timeout, exchange).await {
            Ok(result) => result,
            Err(_) => Err(unknown("no answer in time".to_owned())),
        }
    }
}

/// Gives a request whose URI is path and query the full URI at `address`.
fn absolute(address: &str, request: http::Request<Bytes>) -> Result<http::Request<Full<Bytes>>, String> {
    let (mut head, body) = request.into_parts();
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
    head.uri = http::Uri::builder()
        .scheme("http")
        .authority(address)
        .path_and_query(path)
        .build()
        .map_err(|error| error.to_string())?;
    Ok(http::Request::from_parts(head, Full::new(body)))
}

/// An HTTP client that keeps this many idle connections for each server.
pub(crate) fn http_client(idle_per_server: usize) -> Client<HttpConnector, Full<Bytes>> {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(limits::CONNECT_TIMEOUT));
    Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_max_idle_per_host(idle_per_server)
        .build(connector)
}

/// The innermost reason of an error: the outer ones of HTTP clients say only that something went wrong.
pub(crate) fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

/// Locks; a panic elsewhere leaves these values whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
