//! Answers that go on, piece by piece, as over one connection of TCP: in order, whole, and with a bound on what is under
//! way. What the bound keeps back is not even made: the server's own code is asked for the next piece when there is room.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    future::{Future as _, poll_fn},
    pin::Pin,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream::BoxStream};
use madsim::task::AbortHandle;
use sider_core::runtime::{NetworkError, Runtime as _};
use tokio::sync::mpsc;
use xxhash_rust::xxh3::xxh3_64;

use super::{
    UnderWay, outcome_unknown,
    switch::{Answer, Broken, State, Switch},
    wire::{Payload, Wire},
};
use crate::{clock, runtime::SimRuntime, trace, world::HostId};

/// Pieces under way that the client has not taken.
const UNDER_WAY_MAX: usize = 2;
/// When nothing was heard of what was sent, it is sent again.
const SEND_AGAIN: Duration = Duration::from_secs(1);
/// So many times; then the connection is given up.
const ATTEMPTS: u32 = 10;

/// The body of an HTTP answer.
pub enum Body {
    /// All of it.
    Whole(Bytes),
    /// One that goes on. Each piece is made when there is room for it.
    Pieces(BoxStream<'static, Bytes>),
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Body {
        Body::Whole(bytes)
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Body::Whole(bytes) => write!(f, "{} bytes", bytes.len()),
            Body::Pieces(_) => f.write_str("pieces"),
        }
    }
}

/// A part of an answer that goes on, by its place.
#[derive(Clone, Debug)]
pub(super) struct Numbered {
    /// The head is 0.
    pub(super) number: u64,
    /// When it was first sent, by the global clock.
    sent_ns: u64,
    /// When it was the next one at the client's machine.
    arrived_ns: u64,
    pub(super) part: Part,
}

#[derive(Clone, Debug)]
pub(super) enum Part {
    Head(Payload),
    Piece(Bytes),
    /// Nothing follows.
    End,
}

impl Part {
    pub(super) fn bytes(&self) -> u64 {
        match self {
            Part::Piece(bytes) => bytes.len() as u64,
            Part::Head(_) | Part::End => 0,
        }
    }

    fn hash(&self) -> u64 {
        match self {
            Part::Head(head) => head.hash(),
            Part::Piece(bytes) => xxh3_64(bytes),
            Part::End => 0,
        }
    }
}

/// What the server's end of an answer that goes on can be told.
pub(super) struct Outgoing {
    pub(super) host: HostId,
    to: HostId,
    handler: Option<AbortHandle>,
    taken: mpsc::UnboundedSender<u64>,
}

/// The client's end of an answer that may go on.
pub(super) struct Incoming {
    next: u64,
    /// What came before what precedes it.
    early: BTreeMap<u64, Numbered>,
    /// How many parts were taken.
    taken: u64,
    to: mpsc::UnboundedSender<Result<Numbered, Broken>>,
}

impl Incoming {
    pub(super) fn new() -> (Incoming, mpsc::UnboundedReceiver<Result<Numbered, Broken>>) {
        let (to, pieces) = mpsc::unbounded_channel();
        let incoming = Incoming {
            next: 0,
            early: BTreeMap::new(),
            taken: 0,
            to,
        };
        (incoming, pieces)
    }
}

impl Answer {
    /// The call is over.
    pub(super) fn finish(self, end: Result<Payload, Broken>) {
        // The caller may be gone since.
        match (self.whole, self.incoming, end) {
            (Some(whole), _, end) => drop(whole.send(end)),
            (None, Some(incoming), Err(broken)) => drop(incoming.to.send(Err(broken))),
            (None, ..) => {}
        }
    }
}

/// Something that happens to the sender of pieces.
enum Next {
    Taken(Option<u64>),
    Made(Option<Bytes>),
    Silence,
}

/// Sends an answer that goes on, in the task of its handler, until its end or until nobody takes it any more.
pub(super) async fn send(
    switch: Arc<Switch>,
    (call, host, incarnation): (u64, HostId, u64),
    head: http::Response<Bytes>,
    mut following: BoxStream<'static, Bytes>,
) {
    let (sender, mut taken) = mpsc::unbounded_channel();
    if !switch.begin(call, host, sender) {
        return;
    }
    let mut made = 0;
    let mut under_way = VecDeque::new();
    let mut dispatch = |under_way: &mut VecDeque<Numbered>, part| {
        let piece = Numbered {
            number: made,
            sent_ns: clock::virtual_ns(),
            arrived_ns: 0,
            part,
        };
        made += 1;
        under_way.push_back(piece.clone());
        switch.dispatch(call, (host, incarnation), [piece]);
    };
    dispatch(&mut under_way, Part::Head(Payload::Response(Box::new(head))));
    let (mut attempts, mut ended) = (0, false);
    let mut again = SimRuntime::sleep(SEND_AGAIN);
    while !(ended && under_way.is_empty()) {
        let next = poll_fn(|context| {
            if let Poll::Ready(parts) = taken.poll_recv(context) {
                return Poll::Ready(Next::Taken(parts));
            }
            if !ended
                && under_way.len() < UNDER_WAY_MAX
                && let Poll::Ready(piece) = following.poll_next_unpin(context)
            {
                return Poll::Ready(Next::Made(piece));
            }
            if !under_way.is_empty() && Pin::new(&mut again).poll(context).is_ready() {
                return Poll::Ready(Next::Silence);
            }
            Poll::Pending
        });
        match next.await {
            // The switch let go of it.
            Next::Taken(None) => return,
            Next::Taken(Some(parts)) => {
                under_way.retain(|piece| piece.number >= parts);
                attempts = 0;
                again = SimRuntime::sleep(SEND_AGAIN);
            }
            Next::Made(piece) => {
                ended = piece.is_none();
                if under_way.is_empty() {
                    again = SimRuntime::sleep(SEND_AGAIN);
                }
                dispatch(&mut under_way, piece.map_or(Part::End, Part::Piece));
            }
            Next::Silence if attempts == ATTEMPTS => break,
            Next::Silence => {
                attempts += 1;
                again = SimRuntime::sleep(SEND_AGAIN);
                switch.dispatch(call, (host, incarnation), under_way.iter().cloned());
            }
        }
    }
    switch.lock().outgoing.remove(&call);
}

impl Switch {
    /// An answer of `host` begins to go on; false if nobody waits for it, or if it is the second one to a request that
    /// arrived twice.
    fn begin(&self, call: u64, host: HostId, taken: mpsc::UnboundedSender<u64>) -> bool {
        let mut state = self.lock();
        let Some(under_way) = state
            .calls
            .get(&call)
            .filter(|_| !state.outgoing.contains_key(&call))
        else {
            return false;
        };
        let outgoing = Outgoing {
            host,
            to: under_way.source,
            handler: under_way.handler.clone(),
            taken,
        };
        state.outgoing.insert(call, outgoing);
        true
    }

    fn dispatch(
        &self,
        call: u64,
        (host, incarnation): (HostId, u64),
        pieces: impl IntoIterator<Item = Numbered>,
    ) {
        let mut state = self.lock();
        let Some(to) = state.outgoing.get(&call).map(|answer| answer.to) else {
            return;
        };
        if state.runs(host, incarnation) {
            for piece in pieces {
                state.send(host, to, Wire::Piece { call, piece });
            }
        }
    }

    /// The client takes another part.
    fn take(&self, call: u64) {
        let mut state = self.lock();
        if let Some(incoming) = state
            .calls
            .get_mut(&call)
            .and_then(|call| call.answer.incoming.as_mut())
        {
            incoming.taken += 1;
            state.confirm(call);
        }
    }
}

impl State {
    /// A part of an answer arrives at its client.
    pub(super) fn piece_arrives(&mut self, from: HostId, to: HostId, id: u64, piece: Numbered) {
        let Some(call) = self.calls.get_mut(&id) else {
            return self.send(to, from, Wire::Unwanted { call: id });
        };
        let Some(incoming) = &mut call.answer.incoming else {
            // Who asked for a whole answer can't do with a head.
            self.send(to, from, Wire::Unwanted { call: id });
            return self.finish(id, Err(Broken::Reset));
        };
        if piece.number >= incoming.next {
            incoming.early.insert(piece.number, piece);
        }
        while let Some(mut piece) = incoming.early.remove(&incoming.next) {
            incoming.next += 1;
            piece.arrived_ns = clock::virtual_ns();
            trace::record_numbers(
                "recv",
                &[to.index() as u64, id, piece.number, piece.part.hash()],
                || format!("{to} from {from} call {id}: part {}", piece.number),
            );
            match piece.part {
                Part::Head(head) => {
                    incoming.taken = 1;
                    if let Some(whole) = call.answer.whole.take() {
                        // The caller may be gone since.
                        let _ = whole.send(Ok(head));
                    }
                }
                Part::End => {
                    // Taken by the machine itself: the connection is closed.
                    let parts = incoming.next;
                    let _ = incoming.to.send(Ok(piece));
                    self.calls.remove(&id);
                    return self.send(to, from, Wire::Taken { call: id, parts });
                }
                Part::Piece(_) => drop(incoming.to.send(Ok(piece))),
            }
        }
        self.confirm(id);
    }

    /// Tells the server how many parts were taken: also when that is not news, for it may not have arrived.
    fn confirm(&mut self, id: u64) {
        let Some(call) = self.calls.get(&id) else {
            return;
        };
        if let Some(incoming) = &call.answer.incoming {
            let wire = Wire::Taken {
                call: id,
                parts: incoming.taken,
            };
            let (source, target) = (call.source, call.target);
            self.send(source, target, wire);
        }
    }

    /// The server hears how many parts were taken.
    pub(super) fn parts_taken(&mut self, call: u64, parts: u64) {
        if let Some(outgoing) = self.outgoing.get(&call) {
            // Its task may have ended since.
            let _ = outgoing.taken.send(parts);
        }
    }

    /// The server hears that nobody waits any more.
    pub(super) fn unwanted(&mut self, call: u64) {
        if let Some(handler) = self.outgoing.remove(&call).and_then(|answer| answer.handler) {
            handler.abort();
        }
    }
}

/// A piece of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Its content.
    pub bytes: Bytes,
    /// When it was sent, in the world's time.
    pub sent: Duration,
    /// When it, and all before it, had reached the client's machine.
    pub arrived: Duration,
}

/// An answer that may go on. Dropping it hangs up.
pub struct StreamedAnswer {
    /// Its head; with all of its body if it came as a whole.
    pub head: http::Response<Bytes>,
    address: String,
    pieces: mpsc::UnboundedReceiver<Result<Numbered, Broken>>,
    call: UnderWay,
}

impl fmt::Debug for StreamedAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamedAnswer")
            .field("head", &self.head)
            .finish_non_exhaustive()
    }
}

impl StreamedAnswer {
    pub(super) fn new(
        head: http::Response<Bytes>,
        address: &str,
        pieces: mpsc::UnboundedReceiver<Result<Numbered, Broken>>,
        call: UnderWay,
    ) -> Self {
        StreamedAnswer {
            head,
            address: address.to_owned(),
            pieces,
            call,
        }
    }

    /// The next piece; `None` at the end. A server that is silent, or a connection that is dead, makes it wait.
    ///
    /// # Errors
    /// The connection broke.
    pub async fn next(&mut self) -> Result<Option<Piece>, NetworkError> {
        match self.pieces.recv().await {
            Some(Ok(Numbered {
                part: Part::Piece(bytes),
                sent_ns,
                arrived_ns,
                ..
            })) => {
                self.call.switch.take(self.call.call);
                Ok(Some(Piece {
                    bytes,
                    sent: Duration::from_nanos(sent_ns),
                    arrived: Duration::from_nanos(arrived_ns),
                }))
            }
            Some(Err(_)) => Err(outcome_unknown(&self.address, "connection reset")),
            Some(Ok(_)) | None => Ok(None),
        }
    }
}
