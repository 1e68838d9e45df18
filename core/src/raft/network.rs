//! The sending side of Raft's messages, over [`Network::call`].

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    pin::pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::{
    FutureExt, Stream, StreamExt,
    future::{BoxFuture, Either, select},
    stream::{self, BoxStream},
};
use openraft::{
    ErrorSubject, ErrorVerb, OptionalSend, Snapshot, StorageError,
    errors::{
        ErrorSource, NetworkError as RaftNetworkError, RPCError, ReplicationClosed, StreamingError,
        Unreachable,
    },
    network::{RPCOption, RaftNetworkFactory, RaftNetworkV2},
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult,
        TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
    },
};
use smol_str::SmolStr;

use super::{
    Portions, ServerAddress,
    checkpoint::{SnapshotData, StoredSnapshot},
    codec::StoreError,
    identity::Identity,
    member::{MemberId, WAY_BACK},
    message::{self, Addressee, Answer, AppendOrder, Envelope, PeerMessage},
    snapshot::{Chunk, ChunkAnswer, Header, Outgoing},
    types::{CommittedLeaderId, LogId, SnapshotMeta, Types, Vote},
};
use crate::{
    limits,
    runtime::{Instant, Network, NetworkError, Runtime},
};

type RpcError<R> = RPCError<Types<R>>;
type AppendResults<R> = BoxStream<'static, Result<StreamAppendResult<Types<R>>, RpcError<R>>>;

/// Makes clients of other servers.
pub(crate) struct Peers<R: Runtime> {
    me: Identity,
    network: R::Network,
    /// One append request.
    append_timeout: Duration,
    silence_max: Duration,
    portions: Portions,
    handed_on: HandedOn,
    process: u64,
    streams: Arc<AtomicU64>,
    matched: Matched,
    answered: Answered,
    lost: Lost,
}

/// A client of one other server.
pub(crate) struct Peer<R: Runtime> {
    me: Identity,
    target: MemberId,
    address: SmolStr,
    network: R::Network,
    append_timeout: Duration,
    process: u64,
    streams: Arc<AtomicU64>,
    matched: Matched,
    answered: Answered,
    lost: Lost,
    handed_on: HandedOn,
    /// Append requests under way at once. With more than one, the other side puts them back into their order.
    window: usize,
    /// Entries are held back from a server that did not answer for so long, until it answers a heartbeat.
    silence_max: Option<Duration>,
    /// About so many bytes of a snapshot in one message.
    chunk_bytes: usize,
}

/// The last entry that each server has told a leader of one term to be durable. A server that does not have it any
/// more runs on an old copy of its data, and can't be a member any more: it may have voted, or acknowledged entries.
#[derive(Clone, Default)]
struct Matched(Arc<Mutex<MatchedInTerm>>);

/// By server: a leader's term, and the last entry that the server told it of.
type MatchedInTerm = BTreeMap<MemberId, (u64, Option<LogId>)>;

impl Matched {
    fn note(&self, server: &MemberId, term: u64, matched: Option<LogId>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = all.entry(server.clone()).or_insert((term, None));
        if known.0 < term {
            *known = (term, None);
        }
        if known.0 == term {
            known.1 = known.1.max(matched);
        }
    }

    /// `None` also at the very beginning of the log: nobody may refuse that.
    fn get(&self, server: &MemberId, term: u64) -> Option<LogId> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, matched) = all.get(server).filter(|known| known.0 == term)?;
        *matched
    }
}

/// Members whose disk was found to be gone, each told of once.
#[derive(Clone, Default)]
struct Lost(Arc<Mutex<BTreeSet<MemberId>>>);

impl Lost {
    /// Whether it was not known yet.
    fn insert(&self, member: &MemberId) -> bool {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() == limits::LOST_MEMBERS_MAX {
            all.pop_first();
        }
        all.insert(member.clone())
    }
}

/// When each server last answered an append request of a leader's term, or was first sent one.
///
/// A leader that is heard but hears nobody falls silent, so that others elect another. For that, its heartbeats pause; but
/// entries that are not acknowledged would be sent again and again, and everyone who hears them takes the leader for
/// alive. So they are held back, too.
#[derive(Clone, Default)]
struct Answered(Arc<Mutex<BTreeMap<MemberId, (u64, Instant)>>>);

impl Answered {
    fn note(&self, server: &MemberId, term: u64, now: Instant) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = all.entry(server.clone()).or_insert((term, now));
        if known.0 <= term {
            *known = (term, known.1.max(now));
        }
    }

    fn is_silent(&self, server: &MemberId, term: u64, now: Instant, longer_than: Duration) -> bool {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = all.entry(server.clone()).or_insert((term, now));
        if known.0 < term {
            *known = (term, now);
        }
        known.0 == term && now.saturating_since(known.1) > longer_than
    }
}

/// The last term whose office this server, as its leader, was asked to hand on. From then on it sends no heartbeats, but
/// its successor may still need entries: those are not held back. Clones are the same.
#[derive(Clone, Default)]
pub(crate) struct HandedOn(Arc<AtomicU64>);

impl HandedOn {
    pub(crate) fn set(&self, term: u64) {
        self.0.fetch_max(term, Ordering::Relaxed);
    }

    fn is(&self, term: u64) -> bool {
        self.0.load(Ordering::Relaxed) == term
    }
}

impl<R: Runtime> Peers<R> {
    pub(crate) fn new(
        me: Identity,
        network: R::Network,
        append_timeout: Duration,
        silence_max: Duration,
        portions: Portions,
        handed_on: HandedOn,
    ) -> Self {
        Peers {
            me,
            network,
            append_timeout,
            silence_max,
            portions,
            handed_on,
            process: R::random_u64(),
            streams: Arc::default(),
            matched: Matched::default(),
            answered: Answered::default(),
            lost: Lost::default(),
        }
    }

    fn client(&self, target: MemberId, address: &ServerAddress, window: usize) -> Peer<R> {
        Peer {
            me: self.me.clone(),
            target,
            address: address.raft.clone(),
            network: self.network.clone(),
            append_timeout: self.append_timeout,
            process: self.process,
            streams: self.streams.clone(),
            matched: self.matched.clone(),
            answered: self.answered.clone(),
            lost: self.lost.clone(),
            handed_on: self.handed_on.clone(),
            window,
            silence_max: None,
            chunk_bytes: self.portions.snapshot_chunk_bytes,
        }
    }
}

impl<R: Runtime> RaftNetworkFactory<Types<R>> for Peers<R> {
    type Network = Peer<R>;

    async fn new_client(&mut self, target: MemberId, node: &ServerAddress) -> Peer<R> {
        Peer {
            silence_max: Some(self.silence_max),
            ..self.client(target, node, self.portions.appends_in_flight.max(1))
        }
    }

    async fn new_heartbeat_client(&mut self, target: MemberId, node: &ServerAddress) -> Peer<R> {
        self.client(target, node, 1)
    }

    async fn new_snapshot_client(&mut self, target: MemberId, node: &ServerAddress) -> Peer<R> {
        self.client(target, node, 1)
    }
}

impl<R: Runtime> Clone for Peer<R> {
    fn clone(&self) -> Self {
        Peer {
            me: self.me.clone(),
            target: self.target.clone(),
            address: self.address.clone(),
            network: self.network.clone(),
            append_timeout: self.append_timeout,
            process: self.process,
            streams: self.streams.clone(),
            matched: self.matched.clone(),
            answered: self.answered.clone(),
            lost: self.lost.clone(),
            handed_on: self.handed_on.clone(),
            window: self.window,
            silence_max: self.silence_max,
            chunk_bytes: self.chunk_bytes,
        }
    }
}

impl<R: Runtime> Peer<R> {
    async fn ask(
        &self,
        message: PeerMessage<R>,
        tail: &[u8],
        timeout: Duration,
    ) -> Result<Answer<R>, RpcError<R>> {
        let envelope = Envelope {
            from: self.me.member().clone(),
            cluster: self.me.cluster(),
            to: Addressee::Member(self.target.clone()),
            message,
        };
        let frame = message::encode(&envelope, tail);
        // What it was made from may be large, and the answer long in coming.
        drop(envelope);
        match self.network.call(&self.address, frame, timeout).await {
            Ok(answer) => match message::decode(&answer) {
                Ok((answer, _)) => Ok(answer),
                Err(error) => Err(self.unreachable(error)),
            },
            Err(error @ NetworkError::Unreachable { .. }) => Err(self.unreachable(error)),
            Err(error @ NetworkError::OutcomeUnknown { .. }) => Err(self.no_answer(error)),
        }
    }

    /// An error after which the target is left alone for a while.
    fn unreachable(&self, reason: impl ToString) -> RpcError<R> {
        let reason = format!(
            "{} at {}: {}",
            self.target.server,
            self.address,
            reason.to_string()
        );
        RPCError::Unreachable(Unreachable::from_string(reason))
    }

    /// An error after which the target is asked again.
    fn no_answer(&self, reason: impl ToString) -> RpcError<R> {
        let reason = format!(
            "{} at {}: {}",
            self.target.server,
            self.address,
            reason.to_string()
        );
        RPCError::Network(RaftNetworkError::from_string(reason))
    }

    fn unexpected(&self, answer: Answer<R>) -> RpcError<R> {
        match answer {
            Answer::OutOfOrder => self.no_answer("an append request came out of its order"),
            Answer::WrongServer(actual) if self.target.has_lost_data(&actual) => {
                if self.lost.insert(&self.target) {
                    tracing::error!(server = %self.target.server, disk = %self.target.disk, found = %actual.disk, WAY_BACK);
                }
                self.unreachable(WAY_BACK)
            }
            Answer::WrongServer(actual) => self.unreachable(format!("the server there is {}", actual.server)),
            Answer::WrongCluster => self.unreachable("it belongs to another cluster"),
            Answer::Stopped(reason) => self.unreachable(format!("it stopped: {reason}")),
            Answer::Malformed => self.unreachable("it does not understand this server"),
            _ => self.unreachable("it answers something else than it was asked"),
        }
    }

    async fn append(
        &self,
        request: AppendEntriesRequest<Types<R>>,
        order: Option<AppendOrder>,
    ) -> Result<AppendEntriesResponse<Types<R>>, RpcError<R>> {
        let term = request.vote.leader_id.term;
        if let Some(silence_max) = self.silence_max
            && !self.handed_on.is(term)
            && self.answered.is_silent(&self.target, term, R::now(), silence_max)
        {
            return Err(self.unreachable("it does not answer"));
        }
        let message = PeerMessage::Append { order, request };
        match self.ask(message, &[], self.append_timeout).await? {
            Answer::Append(response) => {
                self.answered.note(&self.target, term, R::now());
                Ok(response)
            }
            other => Err(self.unexpected(other)),
        }
    }

    /// Sends an append request of a stream; says also whether the stream goes on after it.
    async fn append_in_stream(
        self,
        request: AppendEntriesRequest<Types<R>>,
        order: Option<AppendOrder>,
    ) -> (Result<StreamAppendResult<Types<R>>, RpcError<R>>, bool) {
        let (term, previous) = (request.vote.leader_id.term, request.prev_log_id);
        let last: Option<LogId> = request.entries.last().map(|entry| entry.log_id).or(previous);
        let response = match self.append(request, order).await {
            Ok(response) => response,
            Err(error) => return (Err(error), false),
        };
        match &response {
            AppendEntriesResponse::Success => self.matched.note(&self.target, term, last),
            AppendEntriesResponse::PartialSuccess(matched) => self.matched.note(&self.target, term, *matched),
            // The library would take this leader down for it.
            AppendEntriesResponse::Conflict if previous <= self.matched.get(&self.target, term) => {
                let reason =
                    "it has lost a part of its log: remove it, delete its data directory, and add it again";
                tracing::error!(server = %self.target.server, reason);
                return (Err(self.unreachable(reason)), false);
            }
            AppendEntriesResponse::Conflict | AppendEntriesResponse::HigherVote(_) => {}
        }
        let partial = matches!(&response, AppendEntriesResponse::PartialSuccess(matched) if *matched != last);
        let result = response.into_stream_result(previous, last);
        let goes_on = result.is_ok() && !partial;
        (Ok(result), goes_on)
    }

    fn append_stream<S>(&self, input: S) -> AppendResults<R>
    where
        S: Stream<Item = AppendEntriesRequest<Types<R>>> + OptionalSend + Unpin + 'static,
    {
        let (process, window) = (self.process, self.window);
        let stream = self.streams.fetch_add(1, Ordering::Relaxed);
        let peer = self.clone();
        let answers = input
            .enumerate()
            .map(move |(sequence, request)| {
                let order = (window > 1).then_some(AppendOrder {
                    process,
                    stream,
                    sequence: sequence as u64,
                });
                peer.clone().append_in_stream(request, order)
            })
            .buffered(window);
        // After the first failure nothing that follows it may count.
        stream::unfold(Some(Box::pin(answers)), |answers| async move {
            let mut answers = answers?;
            let (result, goes_on) = answers.next().await?;
            Some((result, goes_on.then_some(answers)))
        })
        .boxed()
    }

    async fn send_snapshot(
        &self,
        vote: Vote,
        meta: SnapshotMeta,
        snapshot: StoredSnapshot<R::Disk>,
    ) -> Result<SnapshotResponse<Types<R>>, StreamingError<Types<R>>> {
        let mut chunk = Chunk {
            vote,
            transfer: R::random_u64(),
            sequence: 0,
            header: Header {
                meta,
                index: snapshot.record.index,
                digest: snapshot.record.digest,
            },
            end: None,
        };
        let mut outgoing = Outgoing::new(&snapshot, self.chunk_bytes);
        // What one chunk took is known for the next.
        let mut patience = limits::SNAPSHOT_CHUNK_PATIENCE;
        while let Some((sequence, rows, end)) = outgoing.next().await.map_err(unreadable::<R>)? {
            (chunk.sequence, chunk.end) = (sequence, end);
            match self.send_chunk(&chunk, rows, &mut patience).await? {
                ChunkAnswer::Accepted => {}
                ChunkAnswer::Installed(vote) => {
                    let (term, last) = (chunk.vote.leader_id.term, chunk.header.meta.last_log_id);
                    self.matched.note(&self.target, term, last);
                    return Ok(SnapshotResponse::new(vote));
                }
                ChunkAnswer::HigherVote(vote) => return Ok(SnapshotResponse::new(vote)),
                ChunkAnswer::Busy => return Err(self.unreachable("it is busy with another snapshot").into()),
                ChunkAnswer::Restart(reason) => return Err(self.unreachable(reason).into()),
            }
        }
        Err(self
            .unreachable("it took the whole snapshot without installing it")
            .into())
    }

    /// Sends a chunk until it is answered: it may be lost, or its answer. Without an answer it gives up after a bounded
    /// number of times, and while the follower is busy (with installing, after the last one) after a bounded time.
    async fn send_chunk(
        &self,
        chunk: &Chunk,
        rows: Bytes,
        patience: &mut Duration,
    ) -> Result<ChunkAnswer, RpcError<R>> {
        let begun = R::now();
        let mut unanswered = 0;
        loop {
            let message = PeerMessage::SnapshotChunk(Box::new(chunk.clone()));
            // Short also for the last one, which may take long: if it is lost, nothing else would tell, and meanwhile the
            // follower gets nothing.
            let result = match self.ask(message, &rows, *patience).await {
                Ok(Answer::SnapshotChunk(answer)) => Ok(answer),
                Ok(other) => Err(self.unexpected(other)),
                Err(error) => Err(error),
            };
            let again = match &result {
                Ok(ChunkAnswer::Busy) => {
                    unanswered = 0;
                    R::now().saturating_since(begun) < limits::SNAPSHOT_INSTALL_TIMEOUT
                }
                Err(RPCError::Network(_)) => {
                    unanswered += 1;
                    *patience = (*patience * 2).min(limits::PEER_CALL_TIMEOUT);
                    unanswered < limits::SNAPSHOT_CHUNK_ATTEMPTS
                }
                _ => false,
            };
            if !again {
                return result;
            }
            R::sleep(self.append_timeout).await;
        }
    }
}

impl<R: Runtime> RaftNetworkV2<Types<R>> for Peer<R> {
    type SnapshotData = SnapshotData<R::Disk>;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Types<R>>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types<R>>, RpcError<R>> {
        self.append(request, None).await
    }

    /// Several requests are under way at once; their answers are given in order.
    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        _option: RPCOption,
    ) -> BoxFuture<'s, Result<BoxStream<'s, Result<StreamAppendResult<Types<R>>, RpcError<R>>>, RpcError<R>>>
    where
        S: Stream<Item = AppendEntriesRequest<Types<R>>> + OptionalSend + Unpin + 'static,
    {
        let results: BoxStream<'s, _> = self.append_stream(input);
        async move { Ok(results) }.boxed()
    }

    async fn vote(
        &mut self,
        request: VoteRequest<Types<R>>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types<R>>, RpcError<R>> {
        match self
            .ask(PeerMessage::Vote(request), &[], option.soft_ttl())
            .await?
        {
            Answer::Vote(response) => Ok(response),
            other => Err(self.unexpected(other)),
        }
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<Types<R>>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types<R>>, RpcError<R>> {
        match self
            .ask(PeerMessage::PreVote(request), &[], option.soft_ttl())
            .await?
        {
            Answer::Vote(response) => Ok(response),
            other => Err(self.unexpected(other)),
        }
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot<CommittedLeaderId, MemberId, ServerAddress, SnapshotData<R::Disk>>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<Types<R>>, StreamingError<Types<R>>> {
        let SnapshotData::Stored(stored) = snapshot.snapshot else {
            let reason = ReplicationClosed::new("only a checkpoint of this server's own can be sent");
            return Err(StreamingError::Closed(reason));
        };
        let sending = pin!(self.send_snapshot(vote, snapshot.meta, stored));
        match select(pin!(cancel), sending).await {
            Either::Left((closed, _)) => Err(StreamingError::Closed(closed)),
            Either::Right((result, _)) => result,
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<Types<R>>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types<R>>, RpcError<R>> {
        let message = PeerMessage::TransferLeader(request);
        match self.ask(message, &[], option.soft_ttl()).await? {
            Answer::TransferLeader(response) => Ok(response),
            other => Err(self.unexpected(other)),
        }
    }
}

/// Our own checkpoint can't be read: that is this server's end, not the follower's.
fn unreadable<R: Runtime>(error: StoreError) -> StreamingError<Types<R>> {
    let source = ErrorSource::from_error(&error);
    StreamingError::StorageError(StorageError::new(
        ErrorSubject::Snapshot(None),
        ErrorVerb::Read,
        source,
    ))
}
