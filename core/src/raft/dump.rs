//! What a stopped server's disk holds, for people and for judges. Nothing is changed by looking.

use std::io;

use bytes::Bytes;

use super::{
    ServerId,
    checkpoint::stored_checkpoint,
    codec::{self, StoreError},
    log::read_meta,
    types::{LogId, Payload, Vote},
};
use crate::{
    limits,
    runtime::{Disk, Keyspace},
};

/// The single values of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreSummary {
    /// Whose it is.
    pub server: Option<ServerId>,
    /// Its term, and for whom it voted in it.
    pub vote: Option<(u64, ServerId)>,
    /// The last entry that it knew to be committed.
    pub committed: u64,
    /// The last entry that is in the checkpoint alone.
    pub purged: u64,
    /// The checkpoint: its log index, the registry's index and digest.
    pub checkpoint: Option<(u64, u64, u128)>,
}

/// An entry of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredEntry {
    /// Log index.
    pub index: u64,
    /// Term.
    pub term: u64,
    /// Hash of its bytes, as in [`crate::observe::Observation::Appended`].
    pub hash: u64,
    /// What it is.
    pub content: StoredContent,
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoredContent {
    /// A new leader's first entry.
    Blank,
    /// A command: [`crate::registry::Command::decode`] reads these bytes.
    Command(Bytes),
    /// The members from here on: who votes, and who does not.
    Membership(Vec<ServerId>, Vec<ServerId>),
}

/// Reads what `disk` holds of one server: the single values, and then every entry of its log, in order.
///
/// # Errors
/// The disk fails, or what it holds is corrupt or of a newer version; or `entry` fails.
pub async fn dump<D: Disk>(
    disk: &D,
    summary: impl FnOnce(StoreSummary) -> io::Result<()>,
    mut entry: impl FnMut(StoredEntry) -> io::Result<()>,
) -> Result<(), StoreError> {
    let index = |log_id: Option<LogId>| log_id.map_or(0, |log_id| log_id.index);
    let vote: Option<Vote> = read_meta(disk, super::log::VOTE).await?;
    summary(StoreSummary {
        server: read_meta(disk, super::identity::SERVER).await?,
        vote: vote.map(|vote| (vote.leader_id.term, vote.leader_id.voted_for.server)),
        committed: index(read_meta(disk, super::log::COMMITTED).await?),
        purged: index(read_meta(disk, super::log::PURGED).await?),
        checkpoint: stored_checkpoint(disk).await?,
    })
    .map_err(StoreError::disk("writing what was read"))?;

    let mut from = Bytes::new();
    loop {
        let page = disk
            .range(Keyspace::Log, &from, None, limits::LOG_READ_ENTRIES)
            .await
            .map_err(StoreError::disk("reading the log"))?;
        let Some((last, _)) = page.last() else {
            return Ok(());
        };
        from = Bytes::from([last.as_ref(), &[0]].concat());
        for (key, value) in &page {
            let stored = stored_entry(key, value)?;
            entry(stored).map_err(StoreError::disk("writing what was read"))?;
        }
    }
}

/// The entry that is stored under a key of [`Keyspace::Log`].
///
/// # Errors
/// Key or value is corrupt, or the value of a newer version.
pub fn stored_entry(key: &[u8], value: &Bytes) -> Result<StoredEntry, StoreError> {
    let entry = codec::decode_entry(key, value)?;
    let hash = codec::entry_hash(&codec::encode_entry(&entry));
    let content = match entry.payload {
        Payload::Blank => StoredContent::Blank,
        Payload::Normal(proposal) => StoredContent::Command(proposal.bytes().clone()),
        Payload::Membership(members) => {
            let voters: Vec<ServerId> = members.voter_ids().map(|member| member.server).collect();
            let learners = members.nodes().map(|(member, _)| member.server.clone());
            let learners = learners.filter(|id| !voters.contains(id)).collect();
            StoredContent::Membership(voters, learners)
        }
    };
    Ok(StoredEntry {
        index: entry.log_id.index,
        term: entry.log_id.leader_id.term,
        hash,
        content,
    })
}
