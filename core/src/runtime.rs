//! What a platform must offer. `runtime-tokio` implements it for production, `runtime-sim` for the simulator; nothing
//! in this crate may know which of the two it runs on.
//!
//! Time and chance are ambient (associated functions), because the Raft library asks for them without a handle. Disk
//! and network are values, one of each for every server.

use std::{
    fmt::Debug,
    future::Future,
    io,
    ops::{Add, Sub},
    time::Duration,
};

use bytes::Bytes;

/// A platform: clock, tasks, chance, disk and network.
pub trait Runtime: Clone + Debug + Send + Sync + 'static {
    /// A future that ends when the local monotonic clock passes a deadline.
    type Sleep: Future<Output = ()> + Send + 'static;
    /// A handle on a spawned task; dropping it detaches the task.
    type Task<T: Send + 'static>: Future<Output = Result<T, TaskFailed>> + Send + Unpin + 'static;
    /// This platform's disk.
    type Disk: Disk;
    /// This platform's network.
    type Network: Network;
    /// This platform's health probes.
    type Prober: Prober;

    /// The local monotonic clock. It never goes back while the process lives, and stands still in none of its pauses.
    fn now() -> Instant;
    /// The local wall clock in milliseconds since the Unix epoch. It may jump; nothing that matters may depend on it.
    fn wall_ms() -> u64;
    /// Sleeps until `deadline`.
    fn sleep_until(deadline: Instant) -> Self::Sleep;
    /// Sleeps for `duration`.
    fn sleep(duration: Duration) -> Self::Sleep {
        Self::sleep_until(Self::now() + duration)
    }
    /// Runs `future` in the background. A panic in it is contained and reported by the handle.
    fn spawn<F>(future: F) -> Self::Task<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static;
    /// 64 bits of chance.
    fn random_u64() -> u64;
    /// Ends with `Some(output)`, or with `None` when `duration` passes first. `future` is polled first, always.
    fn timeout<F: Future + Send>(
        duration: Duration,
        future: F,
    ) -> impl Future<Output = Option<F::Output>> + Send
    where
        F::Output: Send,
    {
        async move {
            let sleep = std::pin::pin!(Self::sleep(duration));
            let future = std::pin::pin!(future);
            // `select` of futures-util polls its first argument first: nothing is left to chance.
            match futures_util::future::select(future, sleep).await {
                futures_util::future::Either::Left((output, _)) => Some(output),
                futures_util::future::Either::Right(_) => None,
            }
        }
    }
}

/// A spawned task panicked or was cancelled with its process.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("task failed: {0}")]
pub struct TaskFailed(pub String);

/// A point of a process' monotonic clock, in nanoseconds since some origin of that process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(pub u64);

impl Instant {
    /// The time that passed since `earlier`, or zero if it is later.
    pub fn saturating_since(self, earlier: Instant) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Instant {
    type Output = Instant;
    fn add(self, duration: Duration) -> Instant {
        Instant(
            self.0
                .saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)),
        )
    }
}

impl Sub<Duration> for Instant {
    type Output = Instant;
    fn sub(self, duration: Duration) -> Instant {
        Instant(
            self.0
                .saturating_sub(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)),
        )
    }
}

/// A named, ordered set of key-value pairs on a [`Disk`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Keyspace {
    /// Raft log entries by big-endian index.
    Log,
    /// Vote, purge mark, format version and other single values.
    Meta,
    /// The checkpoint: the registry's rows at one log index.
    State,
    /// A snapshot that is being received, until it is complete and becomes the checkpoint.
    Incoming,
}

impl Keyspace {
    /// All of them, in the order of their declaration.
    pub const ALL: [Keyspace; 4] = [Keyspace::Log, Keyspace::Meta, Keyspace::State, Keyspace::Incoming];
}

/// One change of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Sets a key.
    Put(Keyspace, Bytes, Bytes),
    /// Removes a key.
    Delete(Keyspace, Bytes),
    /// Removes every key from the first (inclusive) to the second (exclusive).
    DeleteRange(Keyspace, Bytes, Bytes),
}

/// A durable, ordered store.
///
/// The contract, which the simulated disk tests to the letter:
/// - `write` is atomic: after a crash all of a batch is there or nothing of it. It is seen at once by later reads of
///   this process, and durable only after a `sync` that began after it returned.
/// - After a power cut, unsynced batches may survive or not; if a batch survived, all batches written before it did
///   too (a journal).
/// - After a failed `sync` or `write` nothing about unsynced batches is known, and a later success says nothing about
///   them: the caller must stop using the disk.
pub trait Disk: Clone + Send + Sync + 'static {
    /// A read view of one moment.
    type View: DiskView;

    /// The value of `key`.
    fn get(&self, keyspace: Keyspace, key: &[u8]) -> impl Future<Output = io::Result<Option<Bytes>>> + Send;
    /// At most `limit` pairs with `from <= key < to` in key order. `to = None` is the end of the keyspace.
    fn range(
        &self,
        keyspace: Keyspace,
        from: &[u8],
        to: Option<&[u8]>,
        limit: usize,
    ) -> impl Future<Output = io::Result<Vec<(Bytes, Bytes)>>> + Send;
    /// The pair with the greatest key of the keyspace.
    fn last(&self, keyspace: Keyspace) -> impl Future<Output = io::Result<Option<(Bytes, Bytes)>>> + Send;
    /// Applies `batch` atomically, in order.
    fn write(&self, batch: Vec<Change>) -> impl Future<Output = io::Result<()>> + Send;
    /// Makes everything durable that was written before.
    fn sync(&self) -> impl Future<Output = io::Result<()>> + Send;
    /// A consistent read view, for streaming a checkpoint while it is being updated.
    fn view(&self) -> impl Future<Output = io::Result<Self::View>> + Send;
}

/// A consistent read view of a [`Disk`].
pub trait DiskView: Send + Sync + 'static {
    /// As [`Disk::get`].
    fn get(&self, keyspace: Keyspace, key: &[u8]) -> impl Future<Output = io::Result<Option<Bytes>>> + Send;
    /// As [`Disk::range`].
    fn range(
        &self,
        keyspace: Keyspace,
        from: &[u8],
        to: Option<&[u8]>,
        limit: usize,
    ) -> impl Future<Output = io::Result<Vec<(Bytes, Bytes)>>> + Send;
}

/// Why a call over the network has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// The request certainly did not reach the other side: it may be sent again.
    #[error("{address} is unreachable: {reason}")]
    Unreachable {
        /// Who was called.
        address: String,
        /// Why.
        reason: String,
    },
    /// The request may have been carried out.
    #[error("no answer from {address}: {reason}")]
    OutcomeUnknown {
        /// Who was called.
        address: String,
        /// Why.
        reason: String,
    },
}

/// What a server does with a message from a peer. Calls run side by side; the handler is dropped with its server.
pub type PeerHandler =
    std::sync::Arc<dyn Fn(Bytes) -> futures_util::future::BoxFuture<'static, Bytes> + Send + Sync + 'static>;

/// Messages between servers, and plain HTTP towards them.
pub trait Network: Clone + Send + Sync + 'static {
    /// Sends `message` to the server listening at `address` (`host:port`) and waits for its answer. Calls to one
    /// address share a connection, are pipelined and may overtake each other.
    fn call(
        &self,
        address: &str,
        message: Bytes,
        timeout: Duration,
    ) -> impl Future<Output = Result<Bytes, NetworkError>> + Send;

    /// Starts answering peers with `handler` at this server's own address, until the network value's server ends.
    ///
    /// # Errors
    /// The address can't be bound.
    fn listen(&self, handler: PeerHandler) -> impl Future<Output = io::Result<()>> + Send;

    /// Sends an HTTP request to `address` (`host:port`); the URI holds path and query only.
    fn http(
        &self,
        address: &str,
        request: http::Request<Bytes>,
        timeout: Duration,
    ) -> impl Future<Output = Result<http::Response<Bytes>, NetworkError>> + Send;
}

/// How TLS is spoken with what is probed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProbeTls {
    /// The name to ask for, which the certificate must be of; empty for that of the address.
    pub server_name: String,
    /// Whether any certificate will do.
    pub skip_verify: bool,
}

/// One probe of a health check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// An HTTP request; passing is decided from its status by the check.
    Http {
        /// Absolute URL.
        url: String,
        /// Method, `GET` by default.
        method: String,
        /// Headers to send.
        headers: Vec<(String, String)>,
        /// Body to send.
        body: String,
        /// How TLS is spoken, where a URL begins with `https`.
        tls: ProbeTls,
        /// Whether redirects are followed, [`crate::limits::PROBE_REQUESTS_MAX`] requests in all; else one is the answer.
        follows_redirects: bool,
    },
    /// A TCP connection to `host:port`.
    Tcp {
        /// Whom to connect to.
        address: String,
        /// How TLS is spoken over it; `None` for not at all.
        tls: Option<ProbeTls>,
    },
    /// A datagram to `host:port`, which passes unless the host says that nobody is there.
    Udp {
        /// Whom to send it to.
        address: String,
    },
    /// A question of gRPC's health protocol.
    Grpc {
        /// Whom to ask, `host:port`.
        address: String,
        /// About which service; empty for the server as a whole.
        service: String,
        /// How by TLS; `None` for without.
        tls: Option<ProbeTls>,
    },
    /// A ping of HTTP/2.
    H2ping {
        /// Whom to ping, `host:port`.
        address: String,
        /// How by TLS; `None` for without.
        tls: Option<ProbeTls>,
    },
    /// A program with its arguments.
    Command {
        /// Program and arguments.
        args: Vec<String>,
    },
}

/// What a probe met. `output` is cut to [`crate::limits::CHECK_OUTPUT_BYTES_MAX`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeOutcome {
    /// An HTTP answer.
    HttpStatus {
        /// Its status code.
        status: u16,
        /// Its body.
        output: String,
    },
    /// The connection was made, and answered as it should if it was asked anything.
    Connected,
    /// The program ended.
    Exited {
        /// Its exit code, or -1 when a signal ended it.
        code: i32,
        /// What it printed.
        output: String,
    },
    /// No connection, no answer in time, or the program could not be started.
    Failed {
        /// Why.
        output: String,
    },
}

/// Runs probes.
pub trait Prober: Clone + Send + Sync + 'static {
    /// Runs one probe; what is still running after `timeout` is ended and reported as failed.
    fn probe(&self, probe: &Probe, timeout: Duration) -> impl Future<Output = ProbeOutcome> + Send;
}
