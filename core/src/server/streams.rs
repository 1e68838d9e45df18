//! Streams of changes: what a query answers now, and then each time that it differs.
//!
//! A stream is a blocking query that is asked again by itself, with the index of what it gave last: it wakes, compares and
//! asks the leader in the same way, and gives nothing that its client has already. Its buffer is the state itself. While its
//! client does not take what was given, nothing is prepared for it: it stays woken, and shows the newest state as soon as it
//! is asked for the next event. So a slow client misses what came in between, never what is there in the end, and holds
//! nobody back.
//!
//! When nothing differed for a while, it says so; in a linearizable stream after it asked the leader, as a blocking query
//! does at its timeout. A server that can't find out any more whether something differs ends its streams: a silent stream
//! never hides what has changed long ago.

use std::{
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
};

use futures_util::{Stream, StreamExt as _, stream::BoxStream, stream::unfold};

use super::{Answer, Consistency, ReadOptions, ServerError, hub::Parked, reads::Freshness, wiring::Inner};
use crate::{limits, registry::Query, runtime::Instant};

/// Something that a stream gives.
#[derive(Clone, Debug)]
pub enum StreamEvent {
    /// What was asked for is not what the client has: its newest state. Indexes rise from one of these to the next.
    Changed(Answer),
    /// Nothing differs from what was given last.
    Unchanged,
    /// The last event.
    Ended(StreamEnd),
}

/// Why a stream ends.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StreamEnd {
    /// It can't be found out any more whether anything differs.
    #[error(transparent)]
    Failed(#[from] ServerError),
    /// It was open for [`super::ServerConfig::stream_life`].
    #[error("open for long enough: go on with the last id")]
    LivedOut,
}

/// The events of a stream. Each is made when it is asked for. Dropping it frees what it holds at once.
pub struct WatchStream {
    known_leader: bool,
    last_contact: std::time::Duration,
    events: BoxStream<'static, StreamEvent>,
}

impl WatchStream {
    /// Whether this server knew a leader when the stream began.
    pub fn known_leader(&self) -> bool {
        self.known_leader
    }

    /// How long ago the leader was heard of when the stream began; 0 for a linearizable one.
    pub fn last_contact(&self) -> std::time::Duration {
        self.last_contact
    }
}

impl std::fmt::Debug for WatchStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WatchStream").finish_non_exhaustive()
    }
}

impl Stream for WatchStream {
    type Item = StreamEvent;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<StreamEvent>> {
        self.events.poll_next_unpin(context)
    }
}

/// One that is open, as [`limits::STREAMS_MAX`] counts them.
struct Open(Arc<Inner>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A stream between two of its events.
struct Watcher {
    open: Open,
    query: Query,
    consistency: Consistency,
    parked: Parked,
    /// When it was open for long enough.
    ends: Instant,
    /// The index that the client has.
    index: u64,
    /// What the client has, unless this server is behind it: then what this server had last.
    known: Answer,
    /// Whether the client does not have what is known.
    news: bool,
}

impl Inner {
    /// Opens a stream.
    pub(super) async fn watch(
        self: &Arc<Self>,
        query: Query,
        options: ReadOptions,
    ) -> Result<WatchStream, ServerError> {
        let open = self.open_stream()?;
        // Registered before the index is looked at: a change from here on wakes.
        let parked = self.park(&query)?;
        let life = self.shared.config.stream_life;
        let freshness = self.settle(options.consistency).await?;
        let known = self.evaluate(&query, freshness);
        let mut watcher = Watcher {
            open,
            query,
            consistency: options.consistency,
            parked,
            ends: self.platform().now() + life + self.spread(life),
            index: options.index.unwrap_or_default(),
            news: false,
            known,
        };
        // Who asked the leader is behind nobody: an index above its own is of another cluster, and says nothing here.
        watcher.news = watcher.index == 0
            || watcher.known.index > watcher.index
            || (watcher.known.index < watcher.index && !watcher.is_stale());
        Ok(WatchStream {
            known_leader: freshness.known_leader,
            last_contact: freshness.last_contact,
            events: unfold(Some(watcher), next).boxed(),
        })
    }

    fn open_stream(self: &Arc<Self>) -> Result<Open, ServerError> {
        let before = self.streams.fetch_add(1, Ordering::SeqCst);
        let open = Open(self.clone());
        if before >= limits::STREAMS_MAX {
            return Err(ServerError::OverLimit {
                what: "streams",
                limit: limits::STREAMS_MAX,
            });
        }
        Ok(open)
    }
}

/// The next event of a stream, and the stream behind it, if it goes on.
async fn next(watcher: Option<Watcher>) -> Option<(StreamEvent, Option<Watcher>)> {
    let mut watcher = watcher?;
    match watcher.next().await {
        Ok(event) => Some((event, Some(watcher))),
        Err(end) => Some((StreamEvent::Ended(end), None)),
    }
}

impl Watcher {
    async fn next(&mut self) -> Result<StreamEvent, StreamEnd> {
        if std::mem::take(&mut self.news) {
            return Ok(self.give(self.known.clone()));
        }
        let inner = self.open.0.clone();
        let platform = inner.platform();
        let speaks = (platform.now() + inner.shared.config.stream_keep_alive).min(self.ends);
        // Looked at in each round: what changes all the time without any difference must not keep it from speaking.
        while platform.now() < speaks {
            if platform.until(speaks, self.parked.woken()).await.is_none() {
                break;
            }
            inner.serving()?;
            // The state here knows of every change that woke: if it shows none, no round to the leader is needed.
            let now = inner.evaluate(&self.query, LOCAL);
            if self.differs(&now) {
                if let Some(answer) = self.look(&inner).await? {
                    return Ok(self.give(answer));
                }
            } else if self.is_behind() {
                self.known = now;
            }
        }
        match self.look(&inner).await? {
            Some(answer) => Ok(self.give(answer)),
            None if platform.now() >= self.ends => Err(StreamEnd::LivedOut),
            None => Ok(StreamEvent::Unchanged),
        }
    }

    /// What is there, as freshly as was asked for, if the client does not have it. A client that is slow may come long after
    /// the wake: no round of then will do.
    async fn look(&mut self, inner: &Arc<Inner>) -> Result<Option<Answer>, ServerError> {
        let freshness = inner.settle(self.consistency).await?;
        let answer = inner.evaluate(&self.query, freshness);
        Ok(self.differs(&answer).then_some(answer))
    }

    fn give(&mut self, answer: Answer) -> StreamEvent {
        self.index = answer.index;
        self.known = answer.clone();
        StreamEvent::Changed(answer)
    }

    /// As in a blocking query: there is a difference, and an index that says so.
    fn differs(&self, answer: &Answer) -> bool {
        answer.index > self.index && (self.is_behind() || !answer.view.same_content(&self.known.view))
    }

    /// Whether this server does not know yet what the client has seen elsewhere.
    fn is_behind(&self) -> bool {
        self.is_stale() && self.known.index < self.index
    }

    fn is_stale(&self) -> bool {
        matches!(self.consistency, Consistency::Stale { .. })
    }
}

/// Of a look that only compares.
const LOCAL: Freshness = Freshness {
    known_leader: false,
    last_contact: std::time::Duration::ZERO,
};
