//! Clients that read streams of server-sent events, as a browser does: they take every event, remember the last id, and
//! where a stream ends, breaks, or is silent for too long, they go on with that id at the next server.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use sider_core::runtime::Runtime as _;
use sider_runtime_sim::{Piece, SimRuntime, StreamedAnswer};

use crate::{
    content::Content,
    history::{Answer, LEFT, Outcome, Streamed},
    operation::{Ask, Freshness, Op, STREAMED_MS},
    recorder::{now, time},
    time::Time,
    wire,
    workload::{BREATH, Player},
};

/// The type of what goes on.
pub const CONTENT_TYPE: &str = "text/event-stream";
/// How often a simulated server says that nothing differs: more often than in production, for schedules last seconds.
pub const KEEP_ALIVE: Duration = Duration::from_millis(800);
/// How long a simulated server lets a stream live.
pub const LIFE: Duration = Duration::from_secs(7);
/// So many pieces are under way while the client has not taken them: what is more is not made.
const UNDER_WAY: usize = 2;

/// A client that reads a stream.
pub(crate) struct StreamReader {
    pub(crate) player: Player,
    pub(crate) ask: Ask,
    pub(crate) freshness: Freshness,
    pub(crate) patience: Duration,
    /// A stream that is silent for so long is given up.
    pub(crate) silence: Duration,
    /// From one event to the next it takes so long.
    pub(crate) slowness: Duration,
    /// In the world's time.
    pub(crate) until: Duration,
}

/// What a client has.
#[derive(Default)]
struct Have {
    id: u64,
    /// The first id that it got.
    first: u64,
    /// How many streams it has opened.
    opened: u64,
}

/// The event behind which the next one is waited for.
struct Since {
    /// The operation that waited for it.
    id: u32,
    nth: u32,
    sent: Time,
    /// When the stream's request was sent.
    opened: Time,
}

/// Something that came over a stream.
#[derive(Debug, PartialEq, Eq)]
enum Event {
    /// A new state, with its id.
    Update(u64, Bytes),
    /// A comment.
    Unchanged,
    /// The last one, with its reason.
    End(String),
}

/// Why a stream is not read any more.
enum Over {
    /// The time of the client is over.
    Done,
    /// The server ended it in order.
    Ended,
    /// It failed.
    Broken,
}

impl StreamReader {
    /// Reads until the time is over, at one server after the other.
    pub(crate) async fn read(&self, servers: &[u8]) {
        let mut have = Have::default();
        for server in servers.iter().cycle() {
            if self.time_left().is_zero() {
                return;
            }
            match self.read_one(*server, &mut have).await {
                Over::Done => return,
                Over::Ended => {}
                Over::Broken => self.player.world.sleep(BREATH).await,
            }
        }
    }

    fn time_left(&self) -> Duration {
        self.until.saturating_sub(self.player.world.now())
    }

    fn op(&self, index: u64) -> Op {
        Op::Wait {
            ask: self.ask.clone(),
            freshness: self.freshness,
            index,
            wait_ms: STREAMED_MS,
        }
    }

    /// Writes down that the next event is waited for.
    fn awaits(&self, server: u8, have: &Have, since: Option<Since>) -> u32 {
        let Player {
            recorder,
            world,
            number,
            ..
        } = &self.player;
        let op = self.op(have.id);
        let id = recorder.invoked(world, *number, server, &op, self.patience);
        let began = recorder.invoked_at(id);
        let streamed = Streamed {
            nth: since.as_ref().map_or(0, |since| since.nth + 1),
            before: since.as_ref().map(|since| since.id),
            arrived: Time::MAX,
            room: Time(0),
            opened: since.as_ref().map_or(began, |since| since.opened),
            spoke: since.as_ref().map_or(began, |since| since.sent),
            unchanged: Vec::new(),
        };
        recorder.awaits(id, since.map(|since| since.sent), streamed);
        id
    }

    fn returned(&self, id: u32, outcome: Outcome, arrived: Time, room: Time) {
        self.player.recorder.arrived(id, arrived, room);
        self.player
            .recorder
            .returned(&self.player.world, id, outcome, None);
    }

    async fn read_one(&self, server: u8, have: &mut Have) -> Over {
        let id = self.awaits(server, have, None);
        let op = self.op(have.id);
        let (in_query, in_header) = match have.opened % 3 {
            0 => (have.first, have.id),
            1 => (have.id, 0),
            _ => (0, have.id),
        };
        let request = request(&self.ask, self.freshness, in_query, in_header);
        have.opened += 1;
        let opened = self
            .player
            .client
            .open(usize::from(server), request, self.patience)
            .await;
        let now = now(&self.player.world);
        let failed = match opened {
            Ok(stream) if stream.head.status() == 200 => {
                return self.take_all(server, have, id, stream).await;
            }
            Ok(refused) => wire::outcome(&op, Ok(refused.head)),
            Err(error) => wire::outcome(&op, Err(error)),
        };
        self.returned(id, failed, now, Time(0));
        Over::Broken
    }

    /// Takes the events of an open stream.
    async fn take_all(&self, server: u8, have: &mut Have, first: u32, mut stream: StreamedAnswer) -> Over {
        let world = &self.player.world;
        let mut waiting = (first, 0);
        // When the last pieces were taken, the last one first.
        let mut taken = [Time(0); UNDER_WAY];
        let opened = self.player.recorder.invoked_at(first);
        let mut sent = opened;
        if let Err(problem) = head(&stream.head) {
            self.returned(first, Outcome::Nonsense(problem), now(world), Time(0));
            return Over::Broken;
        }
        loop {
            let left = self.time_left();
            let piece = SimRuntime::timeout(left.min(self.silence), stream.next()).await;
            let (id, nth) = waiting;
            let room = taken[UNDER_WAY - 1];
            let ended = |outcome: Outcome| self.returned(id, outcome, now(world), room);
            let piece = match piece {
                Some(Ok(Some(piece))) => piece,
                Some(Ok(None)) => {
                    ended(Outcome::Nonsense("the stream ended without a word".into()));
                    return Over::Broken;
                }
                Some(Err(error)) => {
                    ended(wire::outcome(&self.op(have.id), Err(error)));
                    return Over::Broken;
                }
                None if left <= self.silence => {
                    ended(Outcome::Unknown(LEFT.into()));
                    return Over::Done;
                }
                None => {
                    ended(Outcome::Unknown(format!("nothing came for {:?}", self.silence)));
                    return Over::Broken;
                }
            };
            let Piece {
                bytes,
                sent: sent_at,
                arrived,
            } = piece;
            let (sent_at, arrived) = (time(sent_at), time(arrived));
            match parse(&bytes) {
                Ok(Event::Update(index, data)) => {
                    let outcome = match Content::parse(&self.ask, &data) {
                        Ok(content) => Outcome::Done(Answer {
                            index: Some(index),
                            told: None,
                            content: Some(content),
                            refused: Vec::new(),
                        }),
                        Err(problem) => Outcome::Nonsense(format!("a bad event: {problem}")),
                    };
                    self.returned(id, outcome, arrived, room);
                    have.id = index;
                    if have.first == 0 {
                        have.first = index;
                    }
                    let since = Since {
                        id,
                        nth,
                        sent: sent_at,
                        opened,
                    };
                    waiting = (self.awaits(server, have, Some(since)), nth + 1);
                }
                Ok(Event::Unchanged) => self.player.recorder.unchanged(id, sent, sent_at, arrived),
                Ok(Event::End(reason)) if reason.starts_with("open for long enough") => {
                    self.returned(id, Outcome::Unknown(LEFT.into()), arrived, room);
                    return Over::Ended;
                }
                Ok(Event::End(reason)) => {
                    self.returned(id, Outcome::Failed(reason), arrived, room);
                    return Over::Broken;
                }
                Err(problem) => {
                    self.returned(id, Outcome::Nonsense(problem), arrived, room);
                    return Over::Broken;
                }
            }
            sent = sent_at;
            taken.rotate_right(1);
            taken[0] = now(world);
            if !self.slowness.is_zero() {
                world.sleep(self.slowness.min(self.time_left())).await;
            }
        }
    }
}

/// The request for a stream that goes on behind an id, in the query, in a header, or in both: then the header's counts, for a
/// browser repeats the address that it began with. 0 is none.
fn request(ask: &Ask, freshness: Freshness, in_query: u64, in_header: u64) -> Request<Bytes> {
    let path = wire::read_path(ask, freshness, None);
    let path = path.replacen("/v1/health/service/", "/v1/watch/service/", 1);
    let mut path = path.replacen("/v1/kv/", "/v1/watch/kv/", 1);
    if in_query > 0 {
        let behind = if path.contains('?') { '&' } else { '?' };
        path = format!("{path}{behind}index={in_query}");
    }
    let mut request = wire::get(&path);
    if in_header > 0 {
        request.headers_mut().insert("last-event-id", in_header.into());
    }
    request
}

/// Whether there is such a stream.
pub(crate) fn can_be_streamed(ask: &Ask) -> bool {
    matches!(
        ask.place().1,
        Ask::Health { .. } | Ask::KeyTree(_) | Ask::KeyNames(_)
    )
}

fn head(head: &Response<Bytes>) -> Result<(), String> {
    for (name, expected) in [("content-type", CONTENT_TYPE), ("cache-control", "no-cache")] {
        if head.headers().get(name).is_none_or(|it| it != expected) {
            return Err(format!("a stream without {name}: {expected}"));
        }
    }
    Ok(())
}

/// An event as it is written (<https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream>),
/// each in a piece of its own.
fn parse(bytes: &[u8]) -> Result<Event, String> {
    let text = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
    let bad = || format!("no event: {text:?}");
    let block = text.strip_suffix("\n\n").ok_or_else(bad)?;
    let (mut id, mut kind, mut data) = (None, "message", None);
    for line in block.split('\n') {
        match line.split_once(':') {
            Some(("", _)) => {}
            Some(("id", value)) => id = Some(value.trim_start().parse().map_err(|_| bad())?),
            Some(("event", value)) => kind = value.trim_start(),
            Some(("data", value)) if data.is_none() => data = Some(value.trim_start()),
            _ => return Err(bad()),
        }
    }
    match (kind, id, data) {
        ("update", Some(id), Some(data)) => Ok(Event::Update(id, Bytes::copy_from_slice(data.as_bytes()))),
        ("end", None, Some(data)) => {
            let data: serde_json::Value = serde_json::from_str(data).map_err(|_| bad())?;
            let reason = data["Reason"].as_str().ok_or_else(bad)?;
            Ok(Event::End(reason.to_owned()))
        }
        ("message", None, None) => Ok(Event::Unchanged),
        _ => Err(bad()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_as_they_are_written() {
        let update = parse(b"id: 7\nevent: update\ndata: [1]\n\n");
        assert_eq!(update, Ok(Event::Update(7, Bytes::from_static(b"[1]"))));
        assert_eq!(parse(b": nothing differs\n\n"), Ok(Event::Unchanged));
        let end = parse(b"event: end\ndata: {\"Reason\":\"No cluster leader\"}\n\n");
        assert_eq!(end, Ok(Event::End("No cluster leader".into())));
        for bad in [
            "id: 7\nevent: update\ndata: [1]\n",
            "id: x\nevent: update\ndata: [1]\n\n",
            "event: update\ndata: [1]\n\n",
            "id: 7\n: nothing differs\n\n",
            "half",
        ] {
            assert!(parse(bad.as_bytes()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn requests_ask_for_the_same_as_blocking_queries() {
        let ask = Ask::Health {
            service: "web".into(),
            passing: true,
            tags: vec![],
        };
        let first = request(&ask, Freshness::Stale, 0, 0);
        assert_eq!(first.uri(), "/v1/watch/service/web?passing&stale");
        let again = request(&ask, Freshness::Stale, 7, 0);
        assert_eq!(again.uri(), "/v1/watch/service/web?passing&stale&index=7");
        let again = request(&Ask::KeyTree("app/".into()), Freshness::Default, 0, 7);
        assert_eq!(again.uri(), "/v1/watch/kv/app/?recurse");
        assert_eq!(again.headers()["last-event-id"], "7");
    }
}
