//! openraft's state machine: the registry in memory, and what has changed in it since its checkpoint on disk.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
};

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use openraft::{
    OptionalSend, RaftSnapshotBuilder, Snapshot,
    storage::{EntryResponder, RaftStateMachine},
};

use super::{
    ApplyListener,
    applied::AppliedIndex,
    checkpoint::{Checkpoints, Cut, SnapshotData},
    codec::{self, StoreError},
    types::{CommittedLeaderId, Entry, LogId, Outcome, Payload, SnapshotMeta, StoredMembership, Types},
};
use crate::{
    observe::{Observation, SharedObserver},
    raft::{ServerAddress, member::MemberId},
    registry::{Applied, Registry},
    runtime::Runtime,
};

/// The state machine of one server. Clones share it.
pub(crate) struct StateMachine<R: Runtime>(Arc<State<R>>);

/// What the clones share.
pub(crate) struct State<R: Runtime> {
    registry: RwLock<Registry>,
    progress: Mutex<Progress>,
    checkpoints: Checkpoints<R>,
    applied: Arc<AppliedIndex>,
    listener: Arc<dyn ApplyListener>,
    observer: SharedObserver,
    /// The newest version of commands that this server reads.
    command_version: u8,
}

/// What was applied, and what of it the checkpoint lacks. Changed together with the registry, under its write lock.
pub(crate) struct Progress {
    pub(crate) applied: Option<LogId>,
    pub(crate) membership: StoredMembership,
    /// Rows changed since the checkpoint; `None` for those that are gone.
    pub(crate) changed_rows: BTreeMap<Bytes, Option<Bytes>>,
}

impl<R: Runtime> Clone for StateMachine<R> {
    fn clone(&self) -> Self {
        StateMachine(self.0.clone())
    }
}

impl<R: Runtime> StateMachine<R> {
    /// Starts from what the checkpoint holds.
    pub(crate) fn new(
        registry: Registry,
        progress: Progress,
        checkpoints: Checkpoints<R>,
        listener: Arc<dyn ApplyListener>,
        observer: SharedObserver,
        command_version: u8,
    ) -> Self {
        let log_index = progress.applied.map_or(0, |log_id| log_id.index);
        listener.replaced(&registry, log_index);
        if progress.applied.is_some() {
            observer.observe(Observation::Restored {
                log_index,
                index: registry.index(),
                digest: registry.digest(),
            });
        }
        StateMachine(Arc::new(State {
            registry: RwLock::new(registry),
            applied: Arc::new(AppliedIndex::new(progress.applied.map(|log_id| log_id.index))),
            progress: Mutex::new(progress),
            checkpoints,
            listener,
            observer,
            command_version,
        }))
    }

    /// The newest version of commands that this server reads.
    pub(crate) fn command_version(&self) -> u8 {
        self.0.command_version
    }

    /// The registry.
    pub(crate) fn registry(&self) -> &RwLock<Registry> {
        &self.0.registry
    }

    /// How far entries are applied.
    pub(crate) fn applied(&self) -> &Arc<AppliedIndex> {
        &self.0.applied
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.0.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn apply_entry(&self, entry: &Entry) -> Result<Option<Applied>, StoreError> {
        let index = entry.log_id.index;
        let command = match &entry.payload {
            Payload::Normal(proposal) => {
                let command = proposal.take_command(self.0.command_version);
                Some(command.map_err(|error| StoreError::Command { index, error })?)
            }
            Payload::Blank | Payload::Membership(_) => None,
        };
        let hash = codec::entry_hash(&codec::encode_entry(entry));

        let mut registry = self.0.registry.write().unwrap_or_else(PoisonError::into_inner);
        let applied = command.as_ref().map(|command| registry.apply(command));
        {
            let mut progress = self.progress();
            progress.applied = Some(entry.log_id);
            if let Payload::Membership(membership) = &entry.payload {
                progress.membership = StoredMembership::new(Some(entry.log_id), membership.clone());
            }
            if let Some(applied) = &applied {
                for row in &applied.rows {
                    progress.changed_rows.insert(row.key.clone(), row.value.clone());
                }
            }
        }
        if let (Some(command), Some(applied)) = (&command, &applied) {
            self.0.listener.applied(&registry, index, command, applied);
        }
        self.0.observer.observe(Observation::Applied {
            log_index: index,
            term: entry.log_id.leader_id.term,
            hash,
            command: command.as_ref(),
            applied: applied.as_ref(),
            index: registry.index(),
            digest: registry.digest(),
        });
        drop(registry);

        self.0.applied.advance(index);
        Ok(applied)
    }

    /// What a checkpoint made now would hold. Taken between two entries, for openraft calls this where it applies.
    fn cut(&self) -> Cut {
        let registry = self.0.registry.read().unwrap_or_else(PoisonError::into_inner);
        let mut progress = self.progress();
        Cut {
            generation: self.0.checkpoints.generation(),
            log_id: progress.applied,
            membership: progress.membership.clone(),
            index: registry.index(),
            digest: registry.digest(),
            changed_rows: std::mem::take(&mut progress.changed_rows),
        }
    }
}

/// openraft's name for a snapshot, with ours in it.
pub(crate) type StateSnapshot<R> =
    Snapshot<CommittedLeaderId, MemberId, ServerAddress, SnapshotData<<R as Runtime>::Disk>>;

impl<R: Runtime> RaftStateMachine<Types<R>> for StateMachine<R> {
    type SnapshotData = SnapshotData<R::Disk>;
    type SnapshotBuilder = CheckpointBuilder<R>;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        let progress = self.progress();
        Ok((progress.applied, progress.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<Types<R>>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some(next) = entries.next().await {
            let (entry, responder) = next?;
            let applied = self.apply_entry(&entry)?;
            if let Some(responder) = responder {
                responder.send(Outcome { applied });
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> CheckpointBuilder<R> {
        CheckpointBuilder {
            state: self.clone(),
            cut: Some(self.cut()),
        }
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: SnapshotData<R::Disk>,
    ) -> Result<(), io::Error> {
        // Looked at before anything of this server's own is touched.
        if let SnapshotData::Received(received) = &snapshot {
            check_version(received.registry(), self.0.command_version)?;
        }
        let new = self.0.checkpoints.install(meta, snapshot).await?;
        let log_index = meta.last_log_id.map_or(0, |log_id| log_id.index);
        let (index, digest) = (new.index(), new.digest());
        {
            let mut registry = self.0.registry.write().unwrap_or_else(PoisonError::into_inner);
            *registry = new;
            *self.progress() = Progress {
                applied: meta.last_log_id,
                membership: meta.last_membership.clone(),
                changed_rows: BTreeMap::new(),
            };
            self.0.listener.replaced(&registry, log_index);
            self.0.observer.observe(Observation::SnapshotInstalled {
                log_index,
                index,
                digest,
            });
        }
        self.0.applied.advance(log_index);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<StateSnapshot<R>>, io::Error> {
        Ok(self.0.checkpoints.current().await?)
    }
}

/// Whether a server that reads commands up to version `known` may go on from this state.
///
/// # Errors
/// Its cluster writes newer ones.
pub(crate) fn check_version(registry: &Registry, known: u8) -> Result<(), StoreError> {
    let needed = registry.command_version();
    if needed > known {
        return Err(StoreError::NewerCluster { needed, known });
    }
    Ok(())
}

/// Makes one checkpoint.
pub(crate) struct CheckpointBuilder<R: Runtime> {
    state: StateMachine<R>,
    cut: Option<Cut>,
}

impl<R: Runtime> RaftSnapshotBuilder<Types<R>> for CheckpointBuilder<R> {
    type SnapshotData = SnapshotData<R::Disk>;

    async fn build_snapshot(&mut self) -> Result<StateSnapshot<R>, io::Error> {
        let cut = self
            .cut
            .take()
            .ok_or_else(|| io::Error::other("a checkpoint is made once by its builder"))?;
        Ok(self.state.0.checkpoints.advance(cut).await?)
    }
}

impl<R: Runtime> Drop for CheckpointBuilder<R> {
    /// A builder that was not used gives back the rows it took: the next checkpoint must not lack them.
    fn drop(&mut self) {
        let Some(cut) = self.cut.take() else {
            return;
        };
        let mut progress = self.state.progress();
        if cut.generation == self.state.0.checkpoints.generation() {
            for (key, value) in cut.changed_rows {
                progress.changed_rows.entry(key).or_insert(value);
            }
        }
    }
}
