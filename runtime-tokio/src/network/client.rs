//! The calling side: one connection for each address, opened on demand, shared by all calls.

use std::{
    collections::BTreeMap,
    io,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use sider_core::{limits, runtime::NetworkError};
use tokio::{
    io::{AsyncWriteExt, BufReader, BufWriter},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{Semaphore, mpsc, oneshot},
    task::AbortHandle,
    time::{Instant, timeout_at},
};

use super::frame::{self, Frame, Kind};
use crate::address::configure;

/// Bytes gathered before they are written or handed on.
const BUFFER: usize = 64 * 1024;

/// One other server.
#[derive(Debug)]
pub(super) struct Peer {
    address: String,
    current: Mutex<Option<Arc<Connection>>>,
    /// Held while a connection is being opened.
    opening: Arc<tokio::sync::Mutex<Option<String>>>,
    /// Attempts to open a connection that have ended.
    attempts: AtomicU64,
}

impl Peer {
    pub(super) fn new(address: &str) -> Peer {
        Peer {
            address: address.to_owned(),
            current: Mutex::new(None),
            opening: Arc::default(),
            attempts: AtomicU64::new(0),
        }
    }

    /// As [`sider_core::runtime::Network::call`].
    pub(super) async fn call(
        self: &Arc<Self>,
        message: Bytes,
        timeout: Duration,
    ) -> Result<Bytes, NetworkError> {
        if !frame::fits(&message) {
            return Err(self.unreachable(format!("a message of {} bytes is too long", message.len())));
        }
        let deadline = Instant::now() + timeout;
        // A connection that the other side closed is noticed only by using it: then a new one gets one more chance.
        let mut last_chance = false;
        loop {
            let connection = match timeout_at(deadline, self.connection()).await {
                Ok(Ok(connection)) => connection,
                Ok(Err(reason)) => return Err(self.unreachable(reason)),
                Err(_) => return Err(self.unreachable("no connection in time".to_owned())),
            };
            match connection.call(message.clone(), deadline).await {
                Ok(answer) => return Ok(answer),
                Err(CallError::NotSent) if !last_chance && Instant::now() < deadline => last_chance = true,
                Err(CallError::NotSent) => return Err(self.unreachable(connection.why_ended())),
                Err(CallError::Unknown(reason)) => {
                    return Err(NetworkError::OutcomeUnknown {
                        address: self.address.clone(),
                        reason,
                    });
                }
            }
        }
    }

    /// Whether a connection is open.
    pub(super) fn is_connected(&self) -> bool {
        self.live().is_some()
    }

    /// Closes the connection.
    pub(super) fn disconnect(&self) {
        lock(&self.current).take();
    }

    fn unreachable(&self, reason: String) -> NetworkError {
        NetworkError::Unreachable {
            address: self.address.clone(),
            reason,
        }
    }

    fn live(&self) -> Option<Arc<Connection>> {
        lock(&self.current)
            .as_ref()
            .filter(|connection| !connection.has_ended())
            .cloned()
    }

    async fn connection(self: &Arc<Self>) -> Result<Arc<Connection>, String> {
        if let Some(connection) = self.live() {
            return Ok(connection);
        }
        let attempts_before = self.attempts.load(Ordering::Acquire);
        let mut last_failure = self.opening.clone().lock_owned().await;
        if let Some(connection) = self.live() {
            return Ok(connection);
        }
        // An attempt that failed while this call waited for it speaks for this call too.
        if self.attempts.load(Ordering::Acquire) > attempts_before
            && let Some(reason) = &*last_failure
        {
            return Err(reason.clone());
        }
        let peer = self.clone();
        // Calls may have less time than opening a connection takes; the attempt goes on for those that follow.
        let attempt = tokio::spawn(async move {
            let opened = tokio::time::timeout(limits::CONNECT_TIMEOUT, Connection::open(&peer.address)).await;
            let opened = match opened {
                Ok(Ok(connection)) => Ok(Arc::new(connection)),
                Ok(Err(error)) => Err(error.to_string()),
                Err(_) => Err("no connection in time".to_owned()),
            };
            *last_failure = opened.as_ref().err().cloned();
            *lock(&peer.current) = opened.as_ref().ok().cloned();
            peer.attempts.fetch_add(1, Ordering::AcqRel);
            opened
        });
        attempt.await.map_err(|error| error.to_string())?
    }
}

/// Why a call on a connection has no answer.
#[derive(Debug)]
enum CallError {
    /// Not a byte of it was written.
    NotSent,
    /// It may have arrived.
    Unknown(String),
}

/// An open connection. Dropping it closes it.
#[derive(Debug)]
struct Connection {
    queue: mpsc::Sender<Outgoing>,
    in_flight: Semaphore,
    next_id: AtomicU64,
    state: Arc<State>,
    driver: AbortHandle,
}

#[derive(Debug)]
struct State {
    opened: Instant,
    /// Calls that were written and not answered yet.
    pending: Mutex<BTreeMap<u64, oneshot::Sender<Reply>>>,
    /// Since when a call has been waiting without anything having arrived, in milliseconds since `opened` and one
    /// more; 0 when nothing is awaited. Callers that give up do not change it: it is about the connection.
    silent_since: AtomicU64,
    ended: OnceLock<String>,
}

#[derive(Debug)]
enum Reply {
    Answer(Bytes),
    Lost,
}

#[derive(Debug)]
struct Outgoing {
    id: u64,
    message: Bytes,
    stage: Arc<AtomicU8>,
    reply: oneshot::Sender<Reply>,
}

/// In the queue.
const QUEUED: u8 = 0;
/// Being written, or written.
const SENT: u8 = 1;
/// Given up while in the queue; it will not be written.
const CANCELLED: u8 = 2;

impl Connection {
    async fn open(address: &str) -> io::Result<Connection> {
        let mut stream = TcpStream::connect(address).await?;
        configure(&stream)?;
        frame::greet(&mut stream).await?;
        let (reader, writer) = stream.into_split();
        let (queue, outgoing) = mpsc::channel(limits::PEER_IN_FLIGHT_MAX);
        let state = Arc::new(State {
            opened: Instant::now(),
            pending: Mutex::default(),
            silent_since: AtomicU64::new(0),
            ended: OnceLock::new(),
        });
        let driver = tokio::spawn(drive(reader, writer, outgoing, state.clone())).abort_handle();
        Ok(Connection {
            queue,
            in_flight: Semaphore::new(limits::PEER_IN_FLIGHT_MAX),
            next_id: AtomicU64::new(1),
            state,
            driver,
        })
    }

    fn has_ended(&self) -> bool {
        self.state.ended.get().is_some() || self.queue.is_closed()
    }

    fn why_ended(&self) -> String {
        let ended = self.state.ended.get();
        ended
            .cloned()
            .unwrap_or_else(|| "the connection is busy".to_owned())
    }

    async fn call(&self, message: Bytes, deadline: Instant) -> Result<Bytes, CallError> {
        // Closed never: the semaphore lives as long as the connection.
        let Ok(Ok(_permit)) = timeout_at(deadline, self.in_flight.acquire()).await else {
            return Err(CallError::NotSent);
        };
        let (reply, answer) = oneshot::channel();
        let call = CallGuard {
            id: self.next_id.fetch_add(1, Ordering::Relaxed),
            stage: Arc::new(AtomicU8::new(QUEUED)),
            state: &self.state,
        };
        let outgoing = Outgoing {
            id: call.id,
            message,
            stage: call.stage.clone(),
            reply,
        };
        if !matches!(timeout_at(deadline, self.queue.send(outgoing)).await, Ok(Ok(()))) {
            return Err(CallError::NotSent);
        }
        match timeout_at(deadline, answer).await {
            Ok(Ok(Reply::Answer(answer))) => Ok(answer),
            Ok(Ok(Reply::Lost)) => Err(CallError::Unknown("the other side lost the call".to_owned())),
            // The connection ended.
            Ok(Err(_)) if call.cancel() => Err(CallError::NotSent),
            Ok(Err(_)) => Err(CallError::Unknown(self.why_ended())),
            // The time is over.
            Err(_) => {
                self.end_if_silent();
                if call.cancel() {
                    return Err(CallError::NotSent);
                }
                Err(CallError::Unknown("no answer in time".to_owned()))
            }
        }
    }

    /// Gives up a connection on which nothing arrives although calls wait: after a host or a link has died, TCP alone
    /// would go on for a quarter of an hour, and be slow to notice when they are back.
    fn end_if_silent(&self) {
        let since = self.state.silent_since.load(Ordering::Acquire);
        let silence = Duration::from_millis(self.state.now().saturating_sub(since));
        if since > 0 && silence >= limits::PEER_SILENCE_MAX {
            let _ = self.state.ended.set("it fell silent".to_owned());
            self.driver.abort();
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Withdraws a call when its caller goes away.
struct CallGuard<'a> {
    id: u64,
    stage: Arc<AtomicU8>,
    state: &'a State,
}

impl CallGuard<'_> {
    /// Gives the call up; whether it was still in the queue, and so will never be written.
    fn cancel(&self) -> bool {
        let cancelled = self
            .stage
            .compare_exchange(QUEUED, CANCELLED, Ordering::AcqRel, Ordering::Acquire);
        cancelled.is_ok() || cancelled == Err(CANCELLED)
    }
}

impl Drop for CallGuard<'_> {
    fn drop(&mut self) {
        if !self.cancel() {
            lock(&self.state.pending).remove(&self.id);
        }
    }
}

impl State {
    /// Milliseconds since the connection was opened, and one more.
    fn now(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_millis()).map_or(u64::MAX, |ms| ms.saturating_add(1))
    }
}

/// Writes the calls and hands out the answers, until the connection ends. What is pending or queued then is dropped,
/// which tells each caller; its stage tells it how far it got.
async fn drive(
    reader: OwnedReadHalf,
    writer: OwnedWriteHalf,
    outgoing: mpsc::Receiver<Outgoing>,
    state: Arc<State>,
) {
    let end = EndGuard(state.clone());
    let ended = tokio::select! {
        ended = write_calls(writer, outgoing, &state) => ended,
        ended = read_answers(reader, &state) => ended,
    };
    let reason = match ended {
        Ok(()) => "the other side closed the connection".to_owned(),
        Err(error) => error.to_string(),
    };
    let _ = state.ended.set(reason);
    drop(end);
}

/// Lets go of everyone who waits when the driver ends, however it ends.
struct EndGuard(Arc<State>);

impl Drop for EndGuard {
    fn drop(&mut self) {
        let _ = self.0.ended.set("the connection was closed".to_owned());
        lock(&self.0.pending).clear();
    }
}

async fn write_calls(
    writer: OwnedWriteHalf,
    mut outgoing: mpsc::Receiver<Outgoing>,
    state: &State,
) -> io::Result<()> {
    let mut writer = BufWriter::with_capacity(BUFFER, writer);
    while let Some(first) = outgoing.recv().await {
        let mut next = Some(first);
        // What has gathered goes out together.
        while let Some(call) = next {
            write_call(&mut writer, call, state).await?;
            next = outgoing.try_recv().ok();
        }
        writer.flush().await?;
    }
    Ok(())
}

async fn write_call(writer: &mut BufWriter<OwnedWriteHalf>, call: Outgoing, state: &State) -> io::Result<()> {
    {
        // Pending before it is marked as sent: the guard of a caller that leaves must find one or the other.
        let mut pending = lock(&state.pending);
        if call
            .stage
            .compare_exchange(QUEUED, SENT, Ordering::AcqRel, Ordering::Acquire)
            .is_err()
        {
            return Ok(());
        }
        pending.insert(call.id, call.reply);
        if state.silent_since.load(Ordering::Acquire) == 0 {
            state.silent_since.store(state.now(), Ordering::Release);
        }
    }
    let frame = Frame {
        id: call.id,
        kind: Kind::Request,
        payload: call.message,
    };
    frame::write(writer, &frame).await
}

async fn read_answers(reader: OwnedReadHalf, state: &State) -> io::Result<()> {
    let mut reader = BufReader::with_capacity(BUFFER, reader);
    while let Some(frame) = frame::read(&mut reader).await? {
        let reply = match frame.kind {
            Kind::Response => Reply::Answer(frame.payload),
            Kind::Lost => Reply::Lost,
            Kind::Request => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "it sent a call instead of an answer",
                ));
            }
        };
        let caller = {
            let mut pending = lock(&state.pending);
            let caller = pending.remove(&frame.id);
            let since = if pending.is_empty() { 0 } else { state.now() };
            state.silent_since.store(since, Ordering::Release);
            caller
        };
        // No caller: it has given up.
        if let Some(caller) = caller {
            drop(caller.send(reply));
        }
    }
    Ok(())
}

/// Locks; a panic elsewhere leaves these maps whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
