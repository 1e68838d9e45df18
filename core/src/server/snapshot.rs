//! Backups: the whole state as a file, and a file as the whole state.
//!
//! A file is read from one picture of the state, taken at once, so writes go on meanwhile. It is restored through the
//! log: its rows go in as parts that nobody looks at, and one last entry puts them in place on every server. If anything
//! fails before that entry, nothing has changed, and what was laid down is discarded, now or by the next restore.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::{Stream, future::FutureExt as _};
use tokio::sync::mpsc;

use super::{
    ServerError, Written,
    membership::VERSION,
    peer::{Errand, Outcome},
    unexpected,
    wiring::Inner,
};
use crate::{
    limits,
    registry::{Command, Registry, Restore, Snapshot, SnapshotWriter},
};

/// Since this version of commands there are restores.
const RESTORES_SINCE: u8 = 2;

/// The pieces of a snapshot file, in order.
#[derive(Debug)]
pub struct SnapshotStream {
    index: u64,
    pieces: mpsc::Receiver<Bytes>,
}

impl SnapshotStream {
    /// The registry's index in it.
    pub fn index(&self) -> u64 {
        self.index
    }
}

impl Stream for SnapshotStream {
    type Item = Bytes;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        self.pieces.poll_recv(context)
    }
}

impl Inner {
    /// Writes a file in the background, as fast as its pieces are taken.
    pub(super) fn stream_snapshot(&self, registry: Registry) -> SnapshotStream {
        let index = registry.index();
        let (sender, pieces) = mpsc::channel(limits::SNAPSHOT_PIECES_AHEAD);
        let write = async move {
            for piece in SnapshotWriter::new(&registry, VERSION) {
                if sender.send(piece).await.is_err() {
                    // Whoever wanted it is gone.
                    return;
                }
            }
        };
        self.platform().spawn(write.boxed());
        SnapshotStream { index, pieces }
    }

    pub(super) async fn restore_snapshot(
        self: &Arc<Self>,
        snapshot: &Snapshot,
    ) -> Result<Written, ServerError> {
        let Ok(_alone) = self.restoring.try_acquire() else {
            return Err(ServerError::Refused(
                "another restore is under way through this server".into(),
            ));
        };
        self.ensure_restores().await?;
        let restore = self.platform().random_u64();
        let restored = self.lay_down_and_commit(restore, snapshot).await;
        if !matches!(&restored, Ok(Written { reply: Ok(_), .. })) {
            // Should this fail too, the next restore does it.
            let _ = self.step(Restore::Discard { restore }).await;
        }
        restored
    }

    async fn lay_down_and_commit(
        self: &Arc<Self>,
        restore: u64,
        snapshot: &Snapshot,
    ) -> Result<Written, ServerError> {
        for (part, rows) in (0..).zip(snapshot.parts()) {
            let rows = rows.to_vec();
            let written = self.step(Restore::Stage { restore, part, rows }).await;
            match written {
                Ok(Written { reply: Ok(_), .. }) => {}
                // Nothing was replaced, whatever became of this part.
                Err(ServerError::OutcomeUnknown(_)) => return Err(ServerError::NoLeader),
                refused_or_failed => return refused_or_failed,
            }
        }
        self.step(Restore::Commit {
            restore,
            parts: u32::try_from(snapshot.parts().len()).unwrap_or(u32::MAX),
            index: snapshot.registry().index(),
            digest: snapshot.digest,
        })
        .await
    }

    async fn step(self: &Arc<Self>, step: Restore) -> Result<Written, ServerError> {
        let errand = Errand::Write(Command::Restore(step));
        match self.send_errand(errand, limits::RESTORE_STEP_TIMEOUT).await? {
            Outcome::Written(written) => Ok(written),
            other => Err(unexpected(&other)),
        }
    }

    /// Whether every member knows what a restore is: what this server has applied says so, and it never goes back.
    async fn ensure_restores(self: &Arc<Self>) -> Result<(), ServerError> {
        self.linearize(self.shared.config.read_timeout).await?;
        // A cluster that has just been started finds out in a moment.
        let deadline = self.platform().now() + limits::RESTORE_VERSION_WAIT;
        loop {
            if self.registry().command_version() >= RESTORES_SINCE {
                return Ok(());
            }
            if self.platform().now() >= deadline {
                break;
            }
            self.platform().sleep(limits::LEADER_RETRY_PAUSE).await;
        }
        Err(ServerError::Refused(format!(
            "a restore needs every server of the cluster to be up and to read commands of version {RESTORES_SINCE}, \
             and one does not: see /v1/cluster/status"
        )))
    }
}
