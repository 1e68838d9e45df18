//! What servers say to each other: a version byte, an [`Envelope`] or [`Answer`] in postcard, and for some messages raw
//! bytes behind it.

use bytes::Bytes;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, TransferLeaderError, TransferLeaderRequest, VoteRequest,
    VoteResponse,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{
    ServerId,
    identity::ClusterId,
    member::MemberId,
    snapshot::{Chunk, ChunkAnswer},
    types::Types,
};
use crate::runtime::Runtime;

/// The version of the protocol between servers.
pub(crate) const PROTOCOL_VERSION: u8 = 1;

/// For whom a message is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Addressee {
    /// For whoever is at the address: the sender does not know who that is.
    Anyone,
    /// For the server of this name, whatever became of its disk.
    Server(ServerId),
    /// For the server of this name, on this disk. All that Raft says is for a member.
    Member(MemberId),
}

impl Addressee {
    /// Whether a message is for the server with this name and disk.
    pub(crate) fn is(&self, member: &MemberId) -> bool {
        match self {
            Addressee::Anyone => true,
            Addressee::Server(server) => *server == member.server,
            Addressee::Member(addressed) => addressed == member,
        }
    }
}

/// A message with its addresses. Names are checked, not only addresses: an address may have been given to another
/// server since.
#[derive(Serialize, Deserialize)]
#[serde(bound = "")]
pub(crate) struct Envelope<R: Runtime> {
    pub(crate) from: MemberId,
    /// The sender's; `None` while it belongs to none, and for [`PeerMessage::Service`] to a stranger.
    pub(crate) cluster: Option<ClusterId>,
    pub(crate) to: Addressee,
    pub(crate) message: PeerMessage<R>,
}

impl<R: Runtime> Envelope<R> {
    /// Whether a message of Raft's is one that a sound server may send. The library below takes that for granted.
    ///
    /// # Errors
    /// Says why not.
    pub(crate) fn check(&self) -> Result<(), &'static str> {
        if !matches!(self.to, Addressee::Member(_)) || self.cluster.is_none() {
            return Err("a message of Raft's names no member or no cluster");
        }
        let (vote, committed) = match &self.message {
            PeerMessage::Append { request, .. } => {
                check_entries(request)?;
                (&request.vote, true)
            }
            PeerMessage::Vote(request) | PeerMessage::PreVote(request) => (&request.vote, false),
            PeerMessage::SnapshotChunk(chunk) => {
                let last = chunk.header.meta.last_log_id;
                if last.is_some_and(|last| last.leader_id.term > chunk.vote.leader_id.term) {
                    return Err("a snapshot is from a term after its leader's");
                }
                (&chunk.vote, true)
            }
            PeerMessage::TransferLeader(request) => (request.from_leader(), true),
            PeerMessage::Service | PeerMessage::Introduce => return Ok(()),
        };
        if vote.leader_id.voted_for != self.from || vote.committed != committed {
            return Err("a vote is not its sender's");
        }
        Ok(())
    }
}

/// Whether the entries of a request follow each other, in terms up to their leader's.
fn check_entries<R: Runtime>(request: &AppendEntriesRequest<Types<R>>) -> Result<(), &'static str> {
    let mut previous = request.prev_log_id;
    for entry in &request.entries {
        let log_id = entry.log_id;
        let follows = match previous {
            Some(previous) => {
                log_id.index == previous.index + 1 && log_id.leader_id.term >= previous.leader_id.term
            }
            None => log_id.index == 0,
        };
        if !follows {
            return Err("log entries do not follow each other");
        }
        previous = Some(log_id);
    }
    match previous {
        Some(last) if last.leader_id.term > request.vote.leader_id.term => {
            Err("a log entry is from a term after its leader's")
        }
        _ => Ok(()),
    }
}

/// A message.
#[derive(Serialize, Deserialize)]
#[serde(bound = "")]
pub(crate) enum PeerMessage<R: Runtime> {
    /// Log entries or a heartbeat.
    Append {
        /// Its place among others that are under way; `None` for one that may come at any time.
        order: Option<AppendOrder>,
        request: AppendEntriesRequest<Types<R>>,
    },
    /// A candidate asks for a vote.
    Vote(VoteRequest<Types<R>>),
    /// A candidate asks whether it would get a vote.
    PreVote(VoteRequest<Types<R>>),
    /// A part of a snapshot; its rows follow.
    SnapshotChunk(Box<Chunk>),
    /// The leader hands its office on.
    TransferLeader(TransferLeaderRequest<Types<R>>),
    /// Not Raft's; the message follows.
    Service,
    /// Who is there? Asked before anyone is made a member.
    Introduce,
}

/// An answer.
#[derive(Serialize, Deserialize)]
#[serde(bound = "")]
pub(crate) enum Answer<R: Runtime> {
    Append(AppendEntriesResponse<Types<R>>),
    Vote(VoteResponse<Types<R>>),
    SnapshotChunk(ChunkAnswer),
    TransferLeader(Result<(), TransferLeaderError<Types<R>>>),
    /// The answer follows.
    Service,
    /// The message was for another server than this one.
    WrongServer(MemberId),
    /// The sender belongs to another cluster than this server.
    WrongCluster,
    /// An append request did not come in its turn.
    OutOfOrder,
    /// The message made no sense here.
    Malformed,
    /// The server is stopping or broken.
    Stopped(String),
    /// To [`PeerMessage::Introduce`].
    Introduced {
        /// The name and the disk of whoever answers.
        member: MemberId,
        /// Whether that disk has ever taken part in a cluster.
        is_used: bool,
    },
}

/// The place of an append request in its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AppendOrder {
    /// Chosen at random by the sending process.
    pub(crate) process: u64,
    /// Counts the streams of that process.
    pub(crate) stream: u64,
    /// Counts the requests of that stream from 0.
    pub(crate) sequence: u64,
}

/// Why a frame can't be read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("it speaks version {0} of the protocol, this server speaks {PROTOCOL_VERSION}")]
    Version(u8),
    #[error("its message is malformed: {0}")]
    Malformed(String),
}

/// A frame of `head`, followed by `tail`.
pub(crate) fn encode<T: Serialize>(head: &T, tail: &[u8]) -> Bytes {
    let mut frame = postcard::to_extend(head, vec![PROTOCOL_VERSION])
        .expect("our own types serialise, and memory does not run out quietly");
    frame.extend_from_slice(tail);
    Bytes::from(frame)
}

/// What [`encode`] was given.
///
/// # Errors
/// The frame is of another version or makes no sense.
pub(crate) fn decode<T: DeserializeOwned>(frame: &Bytes) -> Result<(T, Bytes), FrameError> {
    let (&version, rest) = frame
        .split_first()
        .ok_or_else(|| FrameError::Malformed("it is empty".to_string()))?;
    if version != PROTOCOL_VERSION {
        return Err(FrameError::Version(version));
    }
    let (head, tail) =
        postcard::take_from_bytes(rest).map_err(|error| FrameError::Malformed(error.to_string()))?;
    Ok((head, frame.slice(frame.len() - tail.len()..)))
}
