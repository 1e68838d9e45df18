//! A server on a disk and a network: how it starts, joins, gives way and ends.

mod expect;

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Weak},
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::FutureExt as _;

pub(super) use self::expect::Expected;
pub use self::expect::Introduction;
use super::{Finish, RuntimePlatform, Server, ServerConfig, Wiring, wiring::Inner};
use crate::{
    limits,
    observe::SharedObserver,
    raft::{MembershipError, RaftConfig, RaftNode, RaftStatus, ServerAddress, ServerId},
    runtime::{Change, Disk, Keyspace, Network, Runtime},
};

/// How to start.
#[derive(Clone, Debug)]
pub struct StartConfig {
    /// Raft's part.
    pub raft: RaftConfig,
    /// The rest.
    pub server: ServerConfig,
    /// What to do with an empty disk.
    pub bootstrap: Bootstrap,
    /// HTTP addresses (`host:port`) of servers to join through, in turn, until this server is a member.
    pub join: Vec<String>,
}

/// What a server with an empty disk does. One that has a disk goes on with what is there, whatever this says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bootstrap {
    /// It waits to be added.
    Wait,
    /// It starts a cluster of these members, itself among them: at once if it is alone, else as soon as all of them
    /// are there, and are new.
    Cluster(BTreeMap<ServerId, ServerAddress>),
    /// It starts a cluster with others, so many servers in all, as soon as those of [`StartConfig::join`] are there and new
    /// and each of them expects the same; or another one of them does.
    Expect(usize),
    /// Nobody asked: it starts a cluster of one, which gives way when another cluster adds this server, as long as
    /// nothing was written to it.
    Implicit,
}

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its Raft member did not.
    #[error(transparent)]
    Raft(#[from] crate::raft::StartError),
    /// The disk failed.
    #[error("the data directory can't be used: {0}")]
    Disk(#[from] io::Error),
    /// The cluster could not be started.
    #[error("the cluster can't be started: {0}")]
    Bootstrap(#[from] MembershipError),
}

/// A server that runs.
pub struct Running {
    /// Its handle.
    pub server: Server,
}

/// Starts a server. It goes on in the background until [`Running::shutdown`], or until it ends by itself.
///
/// # Errors
/// The disk, the address or the settings can't be used.
pub async fn start<R: Runtime>(
    config: StartConfig,
    disk: R::Disk,
    network: R::Network,
    observer: SharedObserver,
) -> Result<Running, StartError> {
    let gave_way = finish_wipe(&disk).await?;
    let address = config.raft.address.clone();
    let id = config.raft.id.clone();
    let platform = Arc::new(RuntimePlatform::<R>::new());
    let wiring = Wiring::new(platform, config.server, address.clone(), observer);
    let node = RaftNode::<R>::start(
        config.raft,
        disk,
        network.clone(),
        wiring.listener(),
        wiring.service(),
        wiring.observer(),
    )
    .await?;
    let server = wiring.connect(Arc::new(node), config.bootstrap == Bootstrap::Implicit);
    if let Bootstrap::Expect(servers) = config.bootstrap {
        let expecting = expect::expect(
            Arc::downgrade(&server.0),
            network.clone(),
            config.join.clone(),
            servers,
        );
        server.0.platform().spawn(expecting.boxed());
    }
    let members = match config.bootstrap {
        Bootstrap::Cluster(members) => Some(members),
        // It gave way to a cluster that was about to add it: a cluster of its own would be in the way again.
        Bootstrap::Implicit if !gave_way => Some(BTreeMap::from([(id, address)])),
        Bootstrap::Implicit | Bootstrap::Wait | Bootstrap::Expect(_) => None,
    };
    match members {
        // Nobody else is asked.
        Some(members) if members.len() == 1 => bootstrap(&server.0, members).await?,
        Some(members) => {
            let founding = found(Arc::downgrade(&server.0), members);
            server.0.platform().spawn(founding.boxed());
        }
        None => {}
    }
    if !config.join.is_empty() {
        let joining = join(Arc::downgrade(&server.0), network, config.join);
        server.0.platform().spawn(joining.boxed());
    }
    Ok(Running { server })
}

/// Starts a cluster of this server alone if the disk is empty.
async fn bootstrap(inner: &Inner, members: BTreeMap<ServerId, ServerAddress>) -> Result<(), StartError> {
    if belongs(&inner.consensus.status()) {
        return Ok(());
    }
    match inner.consensus.initialize(members).await {
        Ok(()) => Ok(()),
        // It has voted in a cluster already: that one will send it the members.
        Err(MembershipError::Refused(reason)) => {
            tracing::info!(
                reason,
                "no new cluster is started: the data directory is in use by one"
            );
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

/// Starts a cluster of several servers as soon as all of them are there; ends when this server belongs to one.
async fn found(inner: Weak<Inner>, members: BTreeMap<ServerId, ServerAddress>) {
    let mut told = String::new();
    let mut pause = limits::FOUND_RETRY_MIN;
    while let Some(inner) = inner.upgrade() {
        if inner.shared.finish().is_some() || belongs(&inner.consensus.status()) {
            return;
        }
        match inner.consensus.initialize(members.clone()).await {
            Ok(()) => return,
            Err(error) => {
                let reason = error.to_string();
                if reason != told {
                    tracing::warn!(
                        reason,
                        "the cluster begins when all of its servers are there and new; a server that lost its data \
                         has to be removed and added again"
                    );
                    told = reason;
                }
            }
        }
        let shared = inner.shared.clone();
        drop(inner);
        shared.platform.sleep(pause).await;
        pause = (pause * 2).min(limits::JOIN_RETRY_MAX);
    }
}

/// Whether a server takes part in a cluster, or knows one that it was removed from.
fn belongs(status: &RaftStatus) -> bool {
    status.is_member() || status.last_log_index > 0
}

/// Whether a server that was just started knows a cluster that it is no part of: it comes back only if somebody adds
/// it. (One that is being added may see members before it sees itself among them.)
fn was_removed(status: &RaftStatus) -> bool {
    !status.voters.is_empty() && !status.is_member()
}

impl Running {
    /// Stops the server; what was acknowledged is on disk already.
    pub async fn shutdown(&self) {
        let inner = &self.server.0;
        inner.shared.end(Finish::Stopped, "it was shut down");
        inner.consensus.shutdown().await;
    }

    /// Ends when the server has ended, and its disk may be used again.
    pub async fn finished(&self) -> Finish {
        let inner = &self.server.0;
        let finish = inner.ended().await;
        inner.consensus.shutdown().await;
        finish
    }
}

impl Inner {
    async fn ended(&self) -> Finish {
        loop {
            let seen = self.shared.leadership.version();
            if let Some(finish) = self.shared.finish() {
                return finish;
            }
            self.shared.leadership.changed_since(seen).await;
        }
    }
}

/// Asks one server after the other to add this one, until it votes.
async fn join<N: Network>(inner: Weak<Inner>, network: N, addresses: Vec<String>) {
    if inner
        .upgrade()
        .is_none_or(|inner| was_removed(&inner.consensus.status()))
    {
        tracing::warn!("this server was removed from its cluster: it does not join again by itself");
        return;
    }
    let mut pause = limits::JOIN_RETRY_MIN;
    for address in addresses.iter().cycle() {
        let Some(inner) = inner.upgrade() else {
            return;
        };
        let status = inner.consensus.status();
        if inner.shared.finish().is_some() || status.is_voter() {
            return;
        }
        match ask_to_join(&inner, &network, address, &status.id).await {
            Ok(()) => tracing::info!(through = address, "joined the cluster"),
            Err(reason) => tracing::warn!(through = address, reason, "could not join; will try again"),
        }
        let shared = inner.shared.clone();
        drop(inner);
        // The answer may overtake the news that this server votes: one pause in any case.
        let spread = Duration::from_millis(shared.platform.random_u64() % 100);
        shared.platform.sleep(pause + spread).await;
        pause = (pause * 2).min(limits::JOIN_RETRY_MAX);
    }
}

async fn ask_to_join<N: Network>(
    inner: &Inner,
    network: &N,
    address: &str,
    id: &ServerId,
) -> Result<(), String> {
    let body = serde_json::json!({ "ID": id.0.as_str(), "Addr": inner.shared.address.raft });
    let request = http::Request::post("/v1/raft/join")
        .header(http::header::HOST, address)
        .header(http::header::CONTENT_TYPE, "application/json")
        .body(Bytes::from(body.to_string()))
        .map_err(|error| error.to_string())?;
    let answer = network
        .http(address, request, limits::MEMBERSHIP_REQUEST_TIMEOUT)
        .await;
    let answer = answer.map_err(|error| error.to_string())?;
    if answer.status().is_success() {
        return Ok(());
    }
    let reason = String::from_utf8_lossy(answer.body());
    Err(format!("{}: {}", answer.status(), reason.trim()))
}

/// Tells, on the disk of a server that gave way, how far its wiping has come.
const WIPE_KEY: &[u8] = b"server/gave-way";
const WIPING: &[u8] = b"wiping";
const WIPED: &[u8] = b"wiped";

/// Empties the disk of a server that gave way; it then waits to be added, however it is started. Safe to interrupt.
///
/// # Errors
/// The disk failed.
pub async fn wipe<D: Disk>(disk: &D) -> io::Result<()> {
    // The mark goes first: half a wiped disk must never be started from.
    mark(disk, WIPING).await?;
    for keyspace in Keyspace::ALL {
        loop {
            let pairs = disk.range(keyspace, &[], None, limits::WIPE_BATCH).await?;
            let keys = pairs.into_iter().map(|(key, _)| key);
            let keys = keys.filter(|key| keyspace != Keyspace::Meta || key != WIPE_KEY);
            let batch: Vec<Change> = keys.map(|key| Change::Delete(keyspace, key)).collect();
            if batch.is_empty() {
                break;
            }
            disk.write(batch).await?;
        }
    }
    mark(disk, WIPED).await
}

async fn mark<D: Disk>(disk: &D, mark: &'static [u8]) -> io::Result<()> {
    let change = Change::Put(
        Keyspace::Meta,
        Bytes::from_static(WIPE_KEY),
        Bytes::from_static(mark),
    );
    disk.write(vec![change]).await?;
    disk.sync().await
}

/// Ends a wipe that was interrupted; tells whether this disk was ever wiped.
async fn finish_wipe<D: Disk>(disk: &D) -> io::Result<bool> {
    let mark = disk.get(Keyspace::Meta, WIPE_KEY).await?;
    if mark.as_deref() == Some(WIPING) {
        wipe(disk).await?;
    }
    Ok(mark.is_some())
}

#[cfg(test)]
mod tests;
