//! What a member is: a server's name, and the disk that it had when it became one.
//!
//! Raft's safety rests on each member's memory: it votes once in a term, and keeps what it acknowledged. A server that
//! loses its data directory and comes back under its old name remembers nothing. It would vote a second time, and its
//! empty log would count for majorities in which the old one had promised more. So a name is no identity. Every data
//! directory gets a random id when it is first used, and Raft's own node id is the pair of both: for votes, terms, logs and
//! memberships, a server with another disk is another member, one that nobody has added yet.
//!
//! Nothing else is needed for safety, because nothing compares disks case by case:
//!
//! - A membership names members, not names. Whoever counts votes or acknowledgements counts members.
//! - A message is for a member. A server on another disk refuses it, so it neither votes nor acknowledges in the name of
//!   the disk that is gone. Answers need no name: they come from whom was asked.
//! - It does not campaign: a membership that it is sent while it catches up, when it was added again, may be of the past
//!   and name its old disk. It finds itself in it no more than any other server would. (Under its old id, it could lead a
//!   past membership of its name alone.)
//! - Nobody refuses a message for the disk of its *sender*: a server that lags may know only the past membership, and
//!   would shut out the member that was rightly added since. As always in Raft, who may lead is decided by those who count
//!   votes.
//!
//! So the data of a minority may be lost at any time, and what was acknowledged stays: the others hold it, and a majority of
//! the same members is needed as before. The lost member counts as one that is down. The way back is a membership
//! change: its name is removed, and added again with the disk that it has then.
//!
//! How the first membership of a cluster gets to know the disks is told in [`super::founding`].

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{RaftStatus, ServerId};

/// A data directory's id: drawn at random when it is first used, and gone with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DiskId(pub u64);

impl fmt::Display for DiskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A member, as Raft knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct MemberId {
    /// Its name.
    pub(crate) server: ServerId,
    /// What remembers its promises.
    pub(crate) disk: DiskId,
}

impl MemberId {
    /// Whether `other` is the same server on another disk: then this one has lost its data.
    pub(crate) fn has_lost_data(&self, other: &MemberId) -> bool {
        self.server == other.server && self.disk != other.disk
    }
}

impl fmt::Display for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.server, self.disk)
    }
}

/// What to do about a member that lost its data.
pub(crate) const WAY_BACK: &str = "it lost its data: remove it and add it again";

impl RaftStatus {
    /// Whether this server, on the disk that it has now, is a member.
    pub fn is_member(&self) -> bool {
        self.disks.get(&self.id) == Some(&self.disk)
    }

    /// Whether it is one with a vote.
    pub fn is_voter(&self) -> bool {
        self.is_member() && self.voters.contains_key(&self.id)
    }
}
