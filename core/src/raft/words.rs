//! What servers say to each other, in plain words: for people who look at recorded messages.

use std::fmt;

use bytes::Bytes;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse};

use super::{
    message::{Answer, Envelope, PeerMessage, decode},
    snapshot::ChunkAnswer,
    types::{LogId, Types},
};
use crate::runtime::Runtime;

/// A message between servers: of Raft in words, or of the layer above as its bytes.
pub(crate) enum Said {
    Words(String),
    Service(Bytes),
}

/// What a server asks of another.
pub(crate) fn request<R: Runtime>(frame: &Bytes) -> Said {
    let (envelope, tail) = match decode::<Envelope<R>>(frame) {
        Ok(read) => read,
        Err(error) => return Said::Words(format!("an unreadable message: {error}")),
    };
    Said::Words(match envelope.message {
        PeerMessage::Append { request, .. } => append::<R>(&request),
        PeerMessage::Vote(request) => format!(
            "asks for a vote in term {}, having {}{}",
            request.vote.leader_id.term,
            Upto(request.last_log_id),
            if request.leadership_transfer {
                ", as the leader told it to"
            } else {
                ""
            },
        ),
        PeerMessage::PreVote(request) => format!(
            "asks whether it would get a vote in term {}, having {}",
            request.vote.leader_id.term,
            Upto(request.last_log_id),
        ),
        PeerMessage::SnapshotChunk(chunk) => format!(
            "part {} of a snapshot of {}",
            chunk.sequence,
            Upto(chunk.header.meta.last_log_id)
        ),
        PeerMessage::TransferLeader(request) => format!(
            "hands the leadership of term {} to {}",
            request.from_leader().leader_id.term,
            request.to_node_id().server
        ),
        PeerMessage::Service => return Said::Service(tail),
        PeerMessage::Introduce => "asks who is there".to_string(),
    })
}

fn append<R: Runtime>(request: &AppendEntriesRequest<Types<R>>) -> String {
    let term = request.vote.leader_id.term;
    let committed = request
        .leader_commit
        .map_or("nothing".into(), |last| last.index.to_string());
    let of = format!("(term {term}, committed up to {committed})");
    match (request.entries.first(), request.entries.last()) {
        (Some(first), Some(last)) if first.log_id.index == last.log_id.index => {
            format!("append entry {} {of}", first.log_id.index)
        }
        (Some(first), Some(last)) => {
            format!(
                "append entries {} to {} {of}",
                first.log_id.index, last.log_id.index
            )
        }
        _ => format!("heartbeat {of}"),
    }
}

/// What a server answers another.
pub(crate) fn answer<R: Runtime>(frame: &Bytes) -> Said {
    let (answer, tail) = match decode::<Answer<R>>(frame) {
        Ok(read) => read,
        Err(error) => return Said::Words(format!("an unreadable answer: {error}")),
    };
    Said::Words(match answer {
        Answer::Append(AppendEntriesResponse::Success) => "has it on disk".into(),
        Answer::Append(AppendEntriesResponse::PartialSuccess(upto)) => format!("has {} on disk", Upto(upto)),
        Answer::Append(AppendEntriesResponse::Conflict) => "its log does not fit".into(),
        Answer::Append(AppendEntriesResponse::HigherVote(vote)) => {
            format!("refuses: it knows term {}", vote.leader_id.term)
        }
        Answer::Vote(vote) => format!(
            "{} its vote; it knows term {}, and has {}",
            if vote.vote_granted { "grants" } else { "refuses" },
            vote.vote.leader_id.term,
            Upto(vote.last_log_id)
        ),
        Answer::SnapshotChunk(answer) => match answer {
            ChunkAnswer::Accepted => "took that part".into(),
            ChunkAnswer::Installed(_) => "has the snapshot".into(),
            ChunkAnswer::HigherVote(vote) => format!("refuses: it knows term {}", vote.leader_id.term),
            ChunkAnswer::Busy => "is busy with another part".into(),
            ChunkAnswer::Restart(why) => format!("the snapshot must start over: {why}"),
        },
        Answer::TransferLeader(Ok(())) => "takes over".into(),
        Answer::TransferLeader(Err(error)) => format!("does not take over: {error}"),
        Answer::Service => return Said::Service(tail),
        Answer::WrongServer(this) => format!(
            "is {}, on disk {}, not the one that is meant",
            this.server, this.disk
        ),
        Answer::WrongCluster => "belongs to another cluster".into(),
        Answer::OutOfOrder => "refuses: an append before this one is missing".into(),
        Answer::Malformed => "refuses: the message makes no sense".into(),
        Answer::Introduced { member, is_used } => format!(
            "is {}, on disk {}{}",
            member.server,
            member.disk,
            if is_used {
                ", and took part in a cluster"
            } else {
                ""
            }
        ),
        Answer::Stopped(why) => format!("serves no more: {why}"),
    })
}

/// A log up to an entry.
struct Upto(Option<LogId>);

impl fmt::Display for Upto {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(last) => write!(f, "entries up to {} (term {})", last.index, last.leader_id.term),
            None => f.write_str("no entries"),
        }
    }
}
