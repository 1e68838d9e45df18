//! The receiving side of messages between servers. Whatever a peer sends, the worst that comes of it is a refusal.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::Poll,
};

use bytes::Bytes;
use openraft::{
    Raft, Snapshot,
    async_runtime::WatchReceiver,
    raft::{AppendEntriesRequest, AppendEntriesResponse},
};
use tokio::sync::oneshot;

use super::{
    PeerService,
    checkpoint::SnapshotData,
    identity::Identity,
    log::LogStore,
    member::{MemberId, WAY_BACK},
    message::{self, Addressee, Answer, AppendOrder, Envelope, PeerMessage},
    snapshot::{Chunk, ChunkAnswer, Received, Receiver},
    state::StateMachine,
    types::Types,
};
use crate::{
    limits,
    runtime::{Instant, Runtime},
};

/// Answers the messages of other servers.
pub(crate) struct PeerServer<R: Runtime> {
    me: Identity,
    raft: Raft<Types<R>, StateMachine<R>>,
    log: LogStore<R>,
    receiver: Receiver<R>,
    service: Arc<dyn PeerService>,
    order: AppendOrders,
    /// Whether it was told already that others know this server by another disk.
    loss_told: AtomicBool,
    /// When the leader was last heard of.
    leader_heard: Mutex<Option<Instant>>,
    /// Messages that made no sense.
    bad_messages: AtomicU64,
}

impl<R: Runtime> PeerServer<R> {
    pub(crate) fn new(
        me: Identity,
        raft: Raft<Types<R>, StateMachine<R>>,
        log: LogStore<R>,
        receiver: Receiver<R>,
        service: Arc<dyn PeerService>,
    ) -> Self {
        PeerServer {
            me,
            raft,
            log,
            receiver,
            service,
            order: AppendOrders::default(),
            loss_told: AtomicBool::new(false),
            leader_heard: Mutex::new(None),
            bad_messages: AtomicU64::new(0),
        }
    }

    /// When the leader was last heard of; `None` for never.
    pub(crate) fn leader_heard(&self) -> Option<Instant> {
        *self.leader_heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Messages that made no sense, so far.
    pub(crate) fn bad_messages(&self) -> u64 {
        self.bad_messages.load(Ordering::Relaxed)
    }

    /// Answers a message.
    pub(crate) async fn handle(&self, frame: Bytes) -> Bytes {
        let (envelope, tail): (Envelope<R>, Bytes) = match message::decode(&frame) {
            Ok(message) => message,
            Err(error) => return self.malformed(&error.to_string()),
        };
        if !envelope.to.is(self.me.member()) {
            self.note_loss(&envelope.to);
            return encode(&Answer::<R>::WrongServer(self.me.member().clone()));
        }
        if !self.me.may_listen_to(envelope.cluster) {
            return encode(&Answer::<R>::WrongCluster);
        }
        if let PeerMessage::Service = envelope.message {
            let answer = self.service.serve(tail).await;
            return message::encode(&Answer::<R>::Service, &answer);
        }
        if let PeerMessage::Introduce = envelope.message {
            return encode(&Answer::<R>::Introduced {
                member: self.me.member().clone(),
                is_used: self.log.is_initialized(),
            });
        }
        if let Err(reason) = envelope.check() {
            return self.malformed(reason);
        }
        if let Some(cluster) = envelope.cluster
            && let Err(error) = self.me.join(cluster).await
        {
            return encode::<R>(&stopped(error));
        }
        encode(&self.answer(envelope, tail).await)
    }

    async fn answer(&self, envelope: Envelope<R>, tail: Bytes) -> Answer<R> {
        match envelope.message {
            PeerMessage::Append { order, request } => self.append(&envelope.from, order, request).await,
            PeerMessage::Vote(request) => self.raft.vote(request).await.map_or_else(stopped, Answer::Vote),
            PeerMessage::PreVote(request) => self
                .raft
                .pre_vote(request)
                .await
                .map_or_else(stopped, Answer::Vote),
            PeerMessage::SnapshotChunk(chunk) => self.snapshot_chunk(&chunk, tail).await,
            PeerMessage::TransferLeader(request) => {
                let result = self.raft.handle_transfer_leader(request).await;
                result.map_or_else(stopped, Answer::TransferLeader)
            }
            // Answered before Raft was involved.
            PeerMessage::Service | PeerMessage::Introduce => Answer::Malformed,
        }
    }

    /// Tells once that a message is for this server on a disk that it has no more.
    fn note_loss(&self, to: &Addressee) {
        if let Addressee::Member(addressed) = to
            && addressed.has_lost_data(self.me.member())
            && !self.loss_told.swap(true, Ordering::Relaxed)
        {
            let (expected, found) = (addressed.disk, self.me.member().disk);
            tracing::error!(%expected, %found, "this server's cluster knows it by another disk: {WAY_BACK}");
        }
    }

    fn malformed(&self, reason: &str) -> Bytes {
        self.bad_messages.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(reason, "dropped a message from a peer");
        encode(&Answer::<R>::Malformed)
    }

    async fn append(
        &self,
        from: &MemberId,
        order: Option<AppendOrder>,
        request: AppendEntriesRequest<Types<R>>,
    ) -> Answer<R> {
        let came = R::now();
        let result = match order {
            None => self.raft.append_entries(request).await,
            Some(order) => {
                if !self.order.wait_turn::<R>(from, order).await {
                    return Answer::OutOfOrder;
                }
                // The first poll puts the request into Raft's queue; from then on its successor may follow.
                let mut answer = Box::pin(self.raft.append_entries(request));
                let first = futures_util::poll!(&mut answer);
                self.order.end_turn(from, order);
                match first {
                    Poll::Ready(result) => result,
                    Poll::Pending => answer.await,
                }
            }
        };
        match result {
            Ok(response) => {
                if !matches!(response, AppendEntriesResponse::HigherVote(_)) {
                    self.heard_leader(came);
                }
                Answer::Append(response)
            }
            Err(error) => stopped(error),
        }
    }

    async fn snapshot_chunk(&self, chunk: &Chunk, rows: Bytes) -> Answer<R> {
        let came = R::now();
        let vote = self.raft.metrics().borrow_watched().vote.clone();
        if chunk.vote < vote {
            return Answer::SnapshotChunk(ChunkAnswer::HigherVote(vote));
        }
        if self.receiver.is_installed(chunk.transfer) {
            return Answer::SnapshotChunk(ChunkAnswer::Installed(vote));
        }
        let received = match self.receiver.take(chunk, rows).await {
            Ok(Received::Complete(received)) => received,
            Ok(Received::Answer(answer)) => {
                if let ChunkAnswer::Restart(reason) = &answer {
                    self.bad_messages.fetch_add(1, Ordering::Relaxed);
                    tracing::warn!(reason, "a snapshot from the leader has to start over");
                }
                self.heard_leader(came);
                return Answer::SnapshotChunk(answer);
            }
            Err(error) => return Answer::Stopped(error.to_string()),
        };
        let snapshot = Snapshot {
            meta: chunk.header.meta.clone(),
            snapshot: SnapshotData::Received(received),
        };
        match self
            .raft
            .install_full_snapshot(chunk.vote.clone(), snapshot)
            .await
        {
            Ok(response) => {
                self.receiver.set_installed(chunk.transfer);
                Answer::SnapshotChunk(ChunkAnswer::Installed(response.vote))
            }
            Err(error) => stopped(error),
        }
    }

    fn heard_leader(&self, at: Instant) {
        let mut heard = self.leader_heard.lock().unwrap_or_else(PoisonError::into_inner);
        *heard = (*heard).max(Some(at));
    }
}

fn encode<R: Runtime>(answer: &Answer<R>) -> Bytes {
    message::encode(answer, &[])
}

fn stopped<R: Runtime>(error: impl ToString) -> Answer<R> {
    Answer::Stopped(error.to_string())
}

/// Puts append requests back into the order in which they were sent. Several are under way at once and may overtake
/// each other; one that came before its predecessor would look to Raft like a gap in this server's log.
#[derive(Default)]
pub(crate) struct AppendOrders(Mutex<BTreeMap<MemberId, AppendStream>>);

/// The current stream of one sender.
struct AppendStream {
    process: u64,
    number: u64,
    next: u64,
    waiting: BTreeMap<u64, oneshot::Sender<()>>,
}

impl AppendOrders {
    /// Waits until all predecessors are through. `false` if they don't come in time, or if the request is outdated.
    pub(crate) async fn wait_turn<R: Runtime>(&self, from: &MemberId, order: AppendOrder) -> bool {
        let turn = {
            let mut streams = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if !streams.contains_key(from) && streams.len() == limits::APPENDING_SERVERS_MAX {
                streams.pop_first();
            }
            let stream = streams
                .entry(from.clone())
                .or_insert_with(|| AppendStream::new(order));
            if stream.process != order.process || stream.number < order.stream {
                // Those who wait for the old stream are refused.
                *stream = AppendStream::new(order);
            }
            if stream.number > order.stream || stream.next > order.sequence {
                return false;
            }
            if stream.next == order.sequence {
                return true;
            }
            if stream.waiting.len() >= limits::APPENDS_IN_FLIGHT_MAX {
                return false;
            }
            let (sender, receiver) = oneshot::channel();
            stream.waiting.insert(order.sequence, sender);
            receiver
        };
        matches!(R::timeout(limits::APPEND_ORDER_WAIT, turn).await, Some(Ok(())))
    }

    /// Lets the successor go.
    pub(crate) fn end_turn(&self, from: &MemberId, order: AppendOrder) {
        let mut streams = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(stream) = streams
            .get_mut(from)
            .filter(|stream| (stream.process, stream.number) == (order.process, order.stream))
        else {
            return;
        };
        // A duplicate may end its turn late.
        stream.next = stream.next.max(order.sequence + 1);
        if let Some(successor) = stream.waiting.remove(&stream.next) {
            // It may have given up meanwhile; then those behind it will too.
            let _ = successor.send(());
        }
    }
}

#[cfg(test)]
impl AppendOrders {
    /// Senders whose requests are kept in order.
    pub(crate) fn senders(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

impl AppendStream {
    fn new(order: AppendOrder) -> Self {
        AppendStream {
            process: order.process,
            number: order.stream,
            next: 0,
            waiting: BTreeMap::new(),
        }
    }
}
