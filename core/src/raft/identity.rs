//! Who a server is: its own name and disk, and the cluster that it belongs to.
//!
//! Addresses are given to other servers, ids are used again, and a wiped server may be started into a new cluster while
//! an old one still knows it. So every message names its sender, its addressee and the sender's cluster, and a server
//! takes none that is for another, or from another cluster. A cluster gets its id when it is initialised; a server that
//! belongs to none yet takes on that of the first that addresses it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use xxhash_rust::xxh3::xxh3_64;

use super::{
    ServerAddress, ServerId,
    codec::StoreError,
    journal::Journal,
    log::{put_meta, read_meta},
    member::{DiskId, MemberId},
};
use crate::runtime::{Keyspace, Runtime};

const CLUSTER: &str = "cluster";
pub(crate) const SERVER: &str = "server";
pub(crate) const DISK: &str = "disk";

/// A cluster's id.
pub(crate) type ClusterId = u64;

/// A server's identity. Clones share it.
#[derive(Clone)]
pub(crate) struct Identity {
    member: MemberId,
    cluster: Arc<Mutex<Option<ClusterId>>>,
    journal: Journal,
}

impl Identity {
    /// Loads the identity of a server, and gives the disk an id if it has none. A cluster's id without its log is left
    /// from an initialisation that came to nothing, and not taken up.
    ///
    /// # Errors
    /// The disk fails, or what it holds is corrupt, of a newer version, or another server's.
    pub(crate) async fn load<R: Runtime>(
        id: ServerId,
        disk: &R::Disk,
        journal: Journal,
        initialized: bool,
    ) -> Result<Self, StoreError> {
        let cluster = match initialized {
            true => read_meta(disk, CLUSTER).await?,
            false => None,
        };
        match read_meta::<R::Disk, ServerId>(disk, SERVER).await? {
            // It may have promised something under that id: nobody else may go on with it.
            Some(found) if initialized && found != id => return Err(StoreError::OtherServer { found, id }),
            Some(found) if found == id => {}
            _ => journal.later(vec![put_meta(SERVER, &id)]).await?,
        }
        let known = read_meta::<R::Disk, DiskId>(disk, DISK).await?;
        let disk = match known {
            Some(disk) => disk,
            // Another id would make another member of it, one that may promise what this one has promised already.
            None if initialized => {
                return Err(StoreError::corrupt(
                    Keyspace::Meta,
                    DISK.as_bytes(),
                    "it is missing",
                ));
            }
            None => {
                let drawn = DiskId(R::random_u64());
                // Durable before anyone is told of it.
                journal.commit(vec![put_meta(DISK, &drawn)]).await?;
                drawn
            }
        };
        Ok(Identity {
            member: MemberId { server: id, disk },
            cluster: Arc::new(Mutex::new(cluster)),
            journal,
        })
    }

    /// This server's name.
    pub(crate) fn id(&self) -> &ServerId {
        &self.member.server
    }

    /// This server on its disk: who it is among the members.
    pub(crate) fn member(&self) -> &MemberId {
        &self.member
    }

    /// The cluster that it belongs to, if it does.
    pub(crate) fn cluster(&self) -> Option<ClusterId> {
        *self.lock()
    }

    /// Whether a message from a server of `cluster` is to be listened to.
    pub(crate) fn may_listen_to(&self, cluster: Option<ClusterId>) -> bool {
        match (self.cluster(), cluster) {
            (Some(own), Some(other)) => own == other,
            _ => true,
        }
    }

    /// Joins `cluster`, unless this server belongs to one.
    ///
    /// # Errors
    /// The disk failed.
    pub(crate) async fn join(&self, cluster: ClusterId) -> Result<(), StoreError> {
        {
            let mut own = self.lock();
            if own.is_some() {
                return Ok(());
            }
            *own = Some(cluster);
        }
        // Not waited for: whatever is stored in that cluster's name comes behind it.
        self.journal.later(vec![put_meta(CLUSTER, &cluster)]).await
    }

    /// Gives an id to a cluster that is being initialised, unless this server belongs to one. That of a single server
    /// is drawn at random. Several may be initialised with the same list each, which is one cluster: its id follows
    /// from the list, with everyone's disks.
    ///
    /// # Errors
    /// The disk failed.
    pub(crate) async fn found<R: Runtime>(
        &self,
        members: &BTreeMap<MemberId, ServerAddress>,
    ) -> Result<(), StoreError> {
        let cluster = match members.len() {
            1 => R::random_u64(),
            _ => xxh3_64(&postcard::to_stdvec(members).expect("names and addresses serialise")),
        };
        self.join(cluster).await
    }

    fn lock(&self) -> MutexGuard<'_, Option<ClusterId>> {
        self.cluster.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
