//! What servers say to each other, beside Raft's own messages: a version byte, then postcard.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{Renewal, Renewed, ServerError, SessionRenewed, UserEvent, Written, receipts::Stamp};
use crate::{
    raft::{RaftStatus, ServerAddress, ServerId},
    registry::{Command, SessionId},
};

/// The version of these messages. A server answers another version with nothing that can be read.
const VERSION: u8 = 1;

/// Something that only the leader can do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Errand {
    /// Propose a command.
    Write(Command),
    /// Renew checks.
    Renew(Vec<Renewal>),
    /// Add a member.
    Join(ServerId, ServerAddress),
    /// Remove a member.
    Remove(ServerId),
    /// Hand leadership on.
    Transfer(Option<ServerId>),
    /// Renew a session.
    RenewSession(SessionId),
}

/// What an errand gave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Outcome {
    /// To `Write`.
    Written(Written),
    /// To `Renew`.
    Renewed(Renewed),
    /// To the rest.
    Done,
    /// To `RenewSession`.
    SessionRenewed(SessionRenewed),
}

/// Why an errand was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Failure {
    /// Certainly nothing was done, and another leader may do it.
    NotHere,
    /// As [`ServerError::OutcomeUnknown`].
    OutcomeUnknown(String),
    /// As [`ServerError::OverLimit`], at the leader.
    OverLimit(u64),
    /// As [`ServerError::Refused`].
    Refused(String),
    /// As [`ServerError::Stopped`]; nothing was done.
    Stopped(String),
    /// As [`ServerError::OlderMember`].
    OlderMember(u8),
}

/// A message from another server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum PeerRequest {
    /// A read index, from a round begun after this arrived.
    ReadIndex,
    /// Carry this out.
    Errand {
        /// Tells this message from every other one.
        stamp: Stamp,
        /// What to do.
        errand: Errand,
        /// Within which time.
        limit_ms: u64,
    },
    /// What do you know?
    Status,
    /// Make ready to be added, as the member of this name, by the leader of this name.
    PrepareJoin {
        /// What the joining server is to be called.
        id: ServerId,
        /// Who asks.
        leader: ServerId,
    },
    /// What was your state's digest when it had applied the entry of this log index?
    Digest(u64),
    /// Most servers had this digest at this log index. If yours is another, stop.
    Diverged {
        /// The log index.
        log_index: u64,
        /// The digest of most.
        digest: u128,
    },
    /// Which versions of commands do you read? A server of the first version does not know this question.
    CommandVersion,
    /// Somebody fired this.
    Event(UserEvent),
    // Variants are added at the end only, here and in what answers them: servers of two versions talk to each other.
}

/// What a server says to [`PeerRequest::PrepareJoin`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum JoinAnswer {
    /// It may be added.
    Ready {
        /// Its HTTP address.
        http: String,
    },
    /// It gives up a cluster of its own that was never used; ask again.
    GivingWay,
    /// It can't be added, and this is why.
    Refused(String),
}

/// The answer to a [`PeerRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum PeerResponse {
    /// To `ReadIndex`; `None` when this server does not lead for sure.
    ReadIndex(Option<u64>),
    /// To `Errand`.
    Errand(Result<Outcome, Failure>),
    /// To `Status`.
    Status {
        /// What it knows.
        status: Box<RaftStatus>,
        /// Its state's digest.
        digest: u128,
        /// Its program's version.
        version: String,
    },
    /// To `PrepareJoin`.
    PrepareJoin(JoinAnswer),
    /// To `Digest`; `None` when it is not known any more, or not yet.
    Digest(Option<u128>),
    /// To `Diverged` and `Event`.
    Noted,
    /// The server can't answer yet or any more, or does not know this message. Nothing was done.
    Unavailable(String),
    /// To `CommandVersion`: the newest one.
    CommandVersion(u8),
}

/// The bytes of a message.
pub(super) fn encode<T: Serialize>(message: &T) -> Bytes {
    let bytes = postcard::to_extend(message, vec![VERSION]);
    Bytes::from(bytes.expect("messages are plain data: postcard can encode them"))
}

/// The message of these bytes; an error when they are corrupt or of another version.
pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    match bytes.split_first() {
        Some((&VERSION, body)) => postcard::from_bytes(body).map_err(|error| format!("bad message: {error}")),
        Some((version, _)) => Err(format!(
            "message version {version} is unknown; this server knows version {VERSION}"
        )),
        None => Err("empty message".into()),
    }
}

/// A time limit as it travels.
pub(super) fn millis(limit: Duration) -> u64 {
    u64::try_from(limit.as_millis()).unwrap_or(u64::MAX)
}

impl From<ServerError> for Failure {
    fn from(error: ServerError) -> Self {
        match error {
            ServerError::NoLeader => Failure::NotHere,
            ServerError::OutcomeUnknown(reason) => Failure::OutcomeUnknown(reason),
            ServerError::OverLimit { limit, .. } => Failure::OverLimit(limit as u64),
            ServerError::Refused(reason) => Failure::Refused(reason),
            ServerError::Stopped(reason) => Failure::Stopped(reason),
            ServerError::OlderMember(needed) => Failure::OlderMember(needed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_comes_back_as_it_was() {
        let request = PeerRequest::Diverged {
            log_index: 7,
            digest: u128::MAX,
        };
        assert_eq!(decode(&encode(&request)), Ok(request));
    }

    #[test]
    fn another_version_and_nonsense_are_errors() {
        let mut bytes = encode(&PeerRequest::ReadIndex).to_vec();
        bytes[0] = VERSION + 1;
        let error = decode::<PeerRequest>(&bytes).expect_err("an unknown version");
        assert!(error.contains("version 2 is unknown"), "{error}");
        assert!(decode::<PeerRequest>(&[]).is_err());
        for byte in 0..=u8::MAX {
            for length in 1..20 {
                let mut nonsense = vec![byte; length];
                nonsense[0] = VERSION;
                // Any outcome but a panic.
                let _ = decode::<PeerRequest>(&nonsense);
                let _ = decode::<PeerResponse>(&nonsense);
            }
        }
    }
}
