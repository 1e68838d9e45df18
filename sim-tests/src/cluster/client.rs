//! Clients of a cluster.

use std::time::Duration;

use bytes::Bytes;
use sider_core::{
    limits,
    runtime::{Network as _, NetworkError},
};
use sider_runtime_sim::{Host, SimNetwork, SimTask, StreamedAnswer};

use super::Cluster;
use crate::{
    cluster_reads,
    history::{Heard, ServerNumber},
    recorder::{number, time},
};

/// A client on a host of its own. Clones are the same client.
#[derive(Clone)]
pub struct Client {
    pub(super) cluster: Cluster,
    pub(super) host: Host,
    pub(super) network: SimNetwork,
}

impl Client {
    /// Its host: links, clocks, pauses.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Sends a request to a server; the URI holds path and query only. Waits for `patience` by this host's clock, then
    /// hangs up.
    ///
    /// # Errors
    /// No answer: certainly not carried out, or outcome unknown.
    pub async fn send(
        &self,
        server: usize,
        request: ::http::Request<Bytes>,
        patience: Duration,
    ) -> Result<::http::Response<Bytes>, NetworkError> {
        self.network
            .http(&self.cluster.http_address(server), request, patience)
            .await
    }

    /// The same to a server or, in the place of one, to an agent.
    ///
    /// # Errors
    /// As for [`Client::send`].
    pub async fn send_to(
        &self,
        server: u8,
        request: ::http::Request<Bytes>,
        patience: Duration,
    ) -> Result<::http::Response<Bytes>, NetworkError> {
        let Some(address) = self.cluster.address_of(server) else {
            return Err(NetworkError::Unreachable {
                address: ServerNumber(server).to_string(),
                reason: "it was never started".into(),
            });
        };
        self.network.http(&address, request, patience).await
    }

    /// The same for a request whose answer goes on: waits for its head.
    ///
    /// # Errors
    /// As for [`Client::send`].
    pub async fn open(
        &self,
        server: usize,
        request: ::http::Request<Bytes>,
        patience: Duration,
    ) -> Result<StreamedAnswer, NetworkError> {
        self.network
            .http_stream(&self.cluster.http_address(server), request, patience)
            .await
    }

    /// When a server last got anything from another one, a client aside.
    pub fn heard_by(&self, server: usize) -> Heard {
        let members = self.cluster.lock();
        let network = self.cluster.0.world.network();
        let to = members[server].host.id();
        let others = members
            .iter()
            .map(|member| member.host.id())
            .filter(|it| *it != to);
        let last = others.filter_map(|from| network.last_heard(from, to)).max();
        last.map_or(Heard::Never, |at| Heard::At(time(at)))
    }

    /// An answer with the names of servers in place of their Raft addresses.
    pub fn with_names(&self, body: &Bytes) -> Bytes {
        let addresses = (0..self.cluster.len()).map(|server| {
            let (_, address) = self.cluster.identity(server);
            (number(server), address.raft.to_string())
        });
        cluster_reads::with_names(body, addresses)
    }

    /// Asks a server to add another one to its cluster; gives the status and the text of the answer.
    ///
    /// # Errors
    /// No answer: see [`Client::send`].
    pub async fn join(&self, through: usize, server: usize) -> Result<(u16, String), NetworkError> {
        let (id, address) = self.cluster.identity(server);
        let body = serde_json::json!({ "ID": id.0.as_str(), "Addr": address.raft }).to_string();
        let request = ::http::Request::post("/v1/raft/join")
            .body(Bytes::from(body))
            .expect("a valid request");
        let answer = self
            .send(through, request, limits::MEMBERSHIP_REQUEST_TIMEOUT)
            .await?;
        Ok((
            answer.status().as_u16(),
            String::from_utf8_lossy(answer.body()).into_owned(),
        ))
    }

    /// Runs something on its host, by its clock.
    pub fn spawn<F>(&self, future: F) -> SimTask<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.host.spawn(future)
    }
}
