//! What servers say to each other, in plain words: for people who look at recorded messages.

use bytes::Bytes;

use super::peer::{Errand, Failure, JoinAnswer, Outcome, PeerRequest, PeerResponse, decode};
use crate::{
    raft::words::{self, Said},
    runtime::Runtime,
};

/// What a server asks of another with these bytes.
pub fn peer_request<R: Runtime>(frame: &Bytes) -> String {
    let message = match words::request::<R>(frame) {
        Said::Words(words) => return words,
        Said::Service(message) => message,
    };
    match decode(&message) {
        Ok(PeerRequest::ReadIndex) => "asks for a read index".into(),
        Ok(PeerRequest::Errand { errand, .. }) => match errand {
            Errand::Write(_) => "passes a write on to the leader".into(),
            Errand::Renew(renewals) => format!("passes {} renewals on to the leader", renewals.len()),
            Errand::RenewSession(id) => format!("passes a renewal of session {id} on to the leader"),
            Errand::Join(id, _) => format!("asks the leader to add {id}"),
            Errand::Remove(id) => format!("asks the leader to remove {id}"),
            Errand::Transfer(Some(to)) => format!("asks the leader to hand its office to {to}"),
            Errand::Transfer(None) => "asks the leader to hand its office on".into(),
        },
        Ok(PeerRequest::Status) => "asks for its status".into(),
        Ok(PeerRequest::PrepareJoin { leader, .. }) => format!("asks it to join {leader}'s cluster"),
        Ok(PeerRequest::Digest(log_index)) => format!("asks for its digest at entry {log_index}"),
        Ok(PeerRequest::Diverged { log_index, .. }) => {
            format!("tells the digest of most at entry {log_index}")
        }
        Ok(PeerRequest::Event(event)) => format!("tells of the event {}", event.name),
        Ok(PeerRequest::CommandVersion) => "asks which commands it reads".into(),
        Err(error) => format!("an unreadable message: {error}"),
    }
}

/// What a server answers another with these bytes.
pub fn peer_answer<R: Runtime>(frame: &Bytes) -> String {
    let message = match words::answer::<R>(frame) {
        Said::Words(words) => return words,
        Said::Service(message) => message,
    };
    match decode(&message) {
        Ok(PeerResponse::ReadIndex(Some(index))) => format!("read index: entry {index}"),
        Ok(PeerResponse::ReadIndex(None)) => "no read index: it does not lead for sure".into(),
        Ok(PeerResponse::Errand(Ok(Outcome::Written(written)))) => match written.reply {
            Ok(_) => format!("written, index {}", written.index),
            Err(refusal) => format!("refused: {refusal}"),
        },
        Ok(PeerResponse::Errand(Ok(Outcome::Renewed(renewed)))) => {
            format!("renewed, index {}", renewed.index)
        }
        Ok(PeerResponse::Errand(Ok(Outcome::SessionRenewed(renewed)))) => match renewed.session {
            Some(_) => "renewed".into(),
            None => "there is no such session".into(),
        },
        Ok(PeerResponse::Errand(Ok(Outcome::Done))) => "done".into(),
        Ok(PeerResponse::Errand(Err(failure))) => match failure {
            Failure::NotHere => "not done: it does not lead".into(),
            Failure::OutcomeUnknown(why) => format!("outcome unknown: {why}"),
            Failure::OverLimit(limit) => format!("not done: over the limit of {limit}"),
            Failure::Refused(why) => format!("refused: {why}"),
            Failure::Stopped(why) => format!("not done: it serves no more: {why}"),
            Failure::OlderMember(needed) => {
                format!("not done: not every member reads commands of version {needed}")
            }
        },
        Ok(PeerResponse::Status { status, .. }) => {
            format!(
                "its status: term {}, applied entry {}",
                status.term, status.applied_index
            )
        }
        Ok(PeerResponse::PrepareJoin(JoinAnswer::Ready { .. })) => "may be added".into(),
        Ok(PeerResponse::PrepareJoin(JoinAnswer::GivingWay)) => "gives up a cluster of its own first".into(),
        Ok(PeerResponse::PrepareJoin(JoinAnswer::Refused(why))) => format!("can't be added: {why}"),
        Ok(PeerResponse::Digest(Some(digest))) => format!("its digest is {digest:032x}"),
        Ok(PeerResponse::Digest(None)) => "its digest there is unknown".into(),
        Ok(PeerResponse::Noted) => "has noted it".into(),
        Ok(PeerResponse::Unavailable(why)) => format!("can't answer: {why}"),
        Ok(PeerResponse::CommandVersion(version)) => format!("reads commands up to version {version}"),
        Err(error) => format!("an unreadable answer: {error}"),
    }
}
