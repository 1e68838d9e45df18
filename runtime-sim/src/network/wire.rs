//! What is in flight on the simulated network.

use std::{cmp::Ordering, fmt, time::Duration};

use bytes::Bytes;
use madsim::task::AbortHandle;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::pieces::{Numbered, Part};
use crate::{
    trace::{Fate, Message, MessageKind},
    world::HostId,
};

/// What travels to a server and back.
#[derive(Clone, Debug)]
pub(super) enum Payload {
    Peer(Bytes),
    Request(Box<http::Request<Bytes>>),
    Response(Box<http::Response<Bytes>>),
}

impl Payload {
    fn bytes(&self) -> u64 {
        let bytes = match self {
            Payload::Peer(bytes) => bytes.len(),
            Payload::Request(request) => request.body().len(),
            Payload::Response(response) => response.body().len(),
        };
        bytes as u64
    }

    /// A number for the trace that depends on all of it that matters.
    pub(super) fn hash(&self) -> u64 {
        match self {
            Payload::Peer(bytes) => xxh3_64(bytes),
            Payload::Request(request) => {
                let line = format!("{} {}", request.method(), request.uri());
                xxh3_64_with_seed(
                    request.body(),
                    hash_headers(xxh3_64(line.as_bytes()), request.headers()),
                )
            }
            Payload::Response(response) => {
                let status = u64::from(response.status().as_u16());
                xxh3_64_with_seed(response.body(), hash_headers(status, response.headers()))
            }
        }
    }
}

fn hash_headers(hash: u64, headers: &http::HeaderMap) -> u64 {
    headers.iter().fold(hash, |hash, (name, value)| {
        xxh3_64_with_seed(
            value.as_bytes(),
            xxh3_64_with_seed(name.as_str().as_bytes(), hash),
        )
    })
}

impl fmt::Display for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Payload::Peer(bytes) => write!(f, "{} bytes", bytes.len()),
            Payload::Request(request) => write!(f, "{} {}", request.method(), request.uri()),
            Payload::Response(response) => write!(f, "{}", response.status()),
        }
    }
}

/// A message in flight. `call` and `incarnation` (of the listening process) say what it belongs to.
#[derive(Clone)]
pub(super) enum Wire {
    /// Asks for a connection.
    Open {
        call: u64,
        port: u16,
    },
    /// The connection is made.
    Opened {
        call: u64,
        incarnation: u64,
    },
    /// Nobody listens.
    Refused {
        call: u64,
    },
    Request {
        call: u64,
        incarnation: u64,
        port: u16,
        payload: Payload,
    },
    Answer {
        call: u64,
        payload: Payload,
    },
    /// A part of an answer that goes on.
    Piece {
        call: u64,
        piece: Numbered,
    },
    /// The client has taken so many parts.
    Taken {
        call: u64,
        parts: u64,
    },
    /// Nobody waits for the parts of this answer.
    Unwanted {
        call: u64,
    },
    /// The process that the request was sent to is not there any more.
    Reset {
        call: u64,
    },
    /// A process has ended, and with it all connections to it.
    Closed {
        incarnation: u64,
    },
    /// The HTTP client has hung up.
    HungUp {
        call: u64,
        handler: AbortHandle,
    },
    /// Not a message: the link's buffer has room again.
    Room,
}

/// Bytes of a message beyond its payload: frames, heads, acknowledgements.
const OVERHEAD_BYTES: u64 = 80;

impl Wire {
    /// What it is, for people.
    pub(super) fn name(&self) -> String {
        match self {
            Wire::Open { call, .. } => format!("connection for call {call}"),
            Wire::Opened { call, .. } => format!("acceptance for call {call}"),
            Wire::Refused { call } => format!("refusal of call {call}"),
            Wire::Request { call, .. } => format!("request of call {call}"),
            Wire::Answer { call, .. } => format!("answer to call {call}"),
            Wire::Piece { call, piece } => format!("part {} of the answer to call {call}", piece.number),
            Wire::Taken { call, parts } => format!("receipt of {parts} parts of call {call}"),
            Wire::Unwanted { call } => format!("rejection of a part of call {call}"),
            Wire::Reset { call } => format!("reset of call {call}"),
            Wire::Closed { .. } => "end of a process".to_owned(),
            Wire::HungUp { .. } => "hang-up".to_owned(),
            Wire::Room => "room".to_owned(),
        }
    }

    /// Bytes that it takes on its way.
    pub(super) fn bytes(&self) -> u64 {
        match self {
            Wire::Request { payload, .. } | Wire::Answer { payload, .. } => OVERHEAD_BYTES + payload.bytes(),
            Wire::Piece { piece, .. } => OVERHEAD_BYTES + piece.part.bytes(),
            _ => OVERHEAD_BYTES,
        }
    }

    /// What a timeline keeps of it.
    pub(super) fn told(&self, from: HostId, to: HostId, sent: Duration) -> Message {
        let (kind, call, payload) = match self {
            Wire::Open { call, .. } | Wire::Opened { call, .. } => {
                (MessageKind::Handshake, Some(*call), None)
            }
            Wire::Request { call, payload, .. } => (MessageKind::Request, Some(*call), Some(payload)),
            Wire::Answer { call, payload } => (MessageKind::Answer, Some(*call), Some(payload)),
            Wire::Piece {
                call,
                piece:
                    Numbered {
                        part: Part::Head(payload),
                        ..
                    },
            } => (MessageKind::Answer, Some(*call), Some(payload)),
            Wire::Piece { call, .. } => (MessageKind::Answer, Some(*call), None),
            // Of no more interest than a confirmation of TCP.
            Wire::Taken { call, .. } => (MessageKind::Handshake, Some(*call), None),
            Wire::Refused { call } | Wire::Reset { call } | Wire::Unwanted { call } => {
                (MessageKind::End, Some(*call), None)
            }
            Wire::Closed { .. } | Wire::HungUp { .. } | Wire::Room => (MessageKind::End, None, None),
        };
        Message {
            from,
            to,
            sent,
            fate: Fate::UnderWay,
            kind,
            name: payload.map_or_else(|| self.name(), |payload| format!("{}: {payload}", self.name())),
            call,
            frame: match payload {
                Some(Payload::Peer(frame)) => Some(frame.clone()),
                _ => None,
            },
        }
    }
}

/// A message with its way and the time it arrives at.
pub(super) struct Flight {
    pub(super) due_ns: u64,
    /// Counts messages: of those that arrive at the same time, the one that was sent first is first.
    pub(super) order: u64,
    pub(super) from: HostId,
    pub(super) to: HostId,
    pub(super) wire: Wire,
}

impl PartialEq for Flight {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}
impl Eq for Flight {}
impl PartialOrd for Flight {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Flight {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.due_ns, self.order).cmp(&(other.due_ns, other.order))
    }
}
