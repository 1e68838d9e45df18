//! A simulated network: connections between processes, over directed links with faults.
//!
//! It models what TCP lets happen, at the grain of whole requests and answers:
//!
//! - The first call to an address makes a connection, with a round trip; later ones share it. A process that does not
//!   listen refuses it (`Unreachable`, at once); a host without power, or a blocked link, is silent (`Unreachable`, at
//!   the timeout).
//! - Requests and answers take times of their own, so they overtake each other, as on a multiplexed connection.
//! - What a link loses is sent again a while later, or the connection is dead without either side being told.
//! - What meets a blocked link is gone, or comes late, when the link is open again.
//! - When a process ends, its host tells the other sides: calls under way end in `OutcomeUnknown`. When a host loses
//!   power, nobody is told: the connection is half open until the next use after its return.
//! - A link may have a rate. Then what is sent queues in a buffer; when that is full, senders wait, and a request whose
//!   caller gives up meanwhile is never sent.
//! - An answer may go on, piece by piece. Pieces arrive in their order: what is lost is sent again after a second, for as
//!   long as anything is heard of the other side, and a while longer. A few are under way at a time: the next one is made
//!   when the client has taken one of those.
//! - A request goes on when its caller is gone. Only an HTTP server learns that its client has hung up; then its
//!   handler is dropped.

mod link;
mod pieces;
mod pipe;
mod switch;
mod wire;

use std::{fmt, io, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use sider_core::{
    limits,
    runtime::{Network, NetworkError, PeerHandler, Runtime},
};
use tokio::sync::oneshot;

pub(crate) use self::switch::Switch;
pub use self::{
    link::{Link, LinkState, NetworkControl},
    pieces::{Body, Piece, StreamedAnswer},
};
use self::{
    pieces::Incoming,
    switch::{Answer, Broken, Listener, Phase},
    wire::Payload,
};
use crate::{runtime::SimRuntime, world::HostId};

/// What a server does with an HTTP request.
pub type HttpHandler =
    Arc<dyn Fn(http::Request<Bytes>) -> BoxFuture<'static, http::Response<Body>> + Send + Sync + 'static>;

/// The network as one process sees it.
#[derive(Clone)]
pub struct SimNetwork {
    switch: Arc<Switch>,
    host: HostId,
    /// Calls of a process that has ended are refused, however late its destructors run.
    incarnation: u64,
    peer_port: u16,
}

impl fmt::Debug for SimNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimNetwork")
            .field("host", &self.host)
            .field("peer_port", &self.peer_port)
            .finish()
    }
}

impl SimNetwork {
    pub(crate) fn new(switch: Arc<Switch>, host: HostId, incarnation: u64, peer_port: u16) -> Self {
        SimNetwork {
            switch,
            host,
            incarnation,
            peer_port,
        }
    }

    /// Answers HTTP requests at a port of this host with `handler`, until the process ends. Requests run side by side,
    /// each in a task of its own.
    ///
    /// # Errors
    /// The port is in use, or the process has ended.
    pub fn serve_http(&self, port: u16, handler: HttpHandler) -> io::Result<()> {
        self.switch
            .listen(self.host, self.incarnation, port, Listener::Http(handler))
    }

    /// Sends an HTTP request whose answer may go on; waits for its head. The URI holds path and query only.
    ///
    /// # Errors
    /// No head of an answer within the time.
    pub async fn http_stream(
        &self,
        address: &str,
        request: http::Request<Bytes>,
        timeout: Duration,
    ) -> Result<StreamedAnswer, NetworkError> {
        let (incoming, pieces) = Incoming::new();
        let request = Payload::Request(Box::new(request));
        let (answer, call) = self.request(address, request, timeout, Some(incoming)).await?;
        match answer {
            Payload::Response(head) => Ok(StreamedAnswer::new(*head, address, pieces, call)),
            other => unreachable!("an HTTP request was answered with {other:?}"),
        }
    }

    async fn request(
        &self,
        address: &str,
        request: Payload,
        timeout: Duration,
        incoming: Option<Incoming>,
    ) -> Result<(Payload, UnderWay), NetworkError> {
        let (sender, receiver) = oneshot::channel();
        let answer = Answer {
            whole: Some(sender),
            incoming,
        };
        let call = match self
            .switch
            .call(self.host, self.incarnation, address, request, answer)
        {
            Ok(call) => UnderWay {
                switch: self.switch.clone(),
                call,
            },
            Err(reason) => return Err(unreachable(address, reason)),
        };
        match SimRuntime::timeout(timeout, receiver).await {
            Some(Ok(Ok(answer))) => Ok((answer, call)),
            Some(Ok(Err(Broken::Refused))) => Err(unreachable(address, "connection refused")),
            Some(Ok(Err(Broken::Reset))) => Err(outcome_unknown(address, "connection reset")),
            // The switch lets go of a call only when the calling process ends, or the run.
            Some(Err(_)) => Err(outcome_unknown(address, "this process has ended")),
            None if self.switch.phase(call.call) == Some(Phase::Connecting) => {
                Err(unreachable(address, "connection timed out"))
            }
            None => Err(outcome_unknown(address, "timed out")),
        }
    }
}

/// A call that its caller waits for.
struct UnderWay {
    switch: Arc<Switch>,
    call: u64,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.switch.hang_up(self.call);
    }
}

fn unreachable(address: &str, reason: &str) -> NetworkError {
    NetworkError::Unreachable {
        address: address.to_owned(),
        reason: reason.to_owned(),
    }
}

fn outcome_unknown(address: &str, reason: &str) -> NetworkError {
    NetworkError::OutcomeUnknown {
        address: address.to_owned(),
        reason: reason.to_owned(),
    }
}

impl Network for SimNetwork {
    async fn call(&self, address: &str, message: Bytes, timeout: Duration) -> Result<Bytes, NetworkError> {
        if message.len() > limits::PEER_FRAME_BYTES_MAX {
            return Err(unreachable(address, "the message is larger than a frame may be"));
        }
        match self
            .request(address, Payload::Peer(message), timeout, None)
            .await?
        {
            (Payload::Peer(answer), _) => Ok(answer),
            (other, _) => unreachable!("a peer call was answered with {other:?}"),
        }
    }

    async fn listen(&self, handler: PeerHandler) -> io::Result<()> {
        self.switch.listen(
            self.host,
            self.incarnation,
            self.peer_port,
            Listener::Peer(handler),
        )
    }

    async fn http(
        &self,
        address: &str,
        request: http::Request<Bytes>,
        timeout: Duration,
    ) -> Result<http::Response<Bytes>, NetworkError> {
        match self
            .request(address, Payload::Request(Box::new(request)), timeout, None)
            .await?
        {
            (Payload::Response(answer), _) => Ok(*answer),
            (other, _) => unreachable!("an HTTP request was answered with {other:?}"),
        }
    }
}
