//! Backups: the whole state as a file, and a file as the whole state.
//!
//! A file is read from one picture of the state, taken at once, so writes go on meanwhile. It is restored through the
//! log: its rows go in as parts that nobody looks at, and one last entry puts them in place on every server. If anything
//! fails before that entry, nothing has changed, and what was laid down is discarded: at once by the server that
//! restores, by the first part of the next restore, or by the leader when no part came for a while. So a server that dies
//! in the middle leaves nothing behind, and the state never holds more than the parts of one restore.

use std::{
    pin::Pin,
    sync::{Arc, Weak},
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
    wiring::{Inner, Shared},
};
use crate::{
    limits,
    raft::Role,
    registry::{Command, Registry, Restore, Snapshot, SnapshotWriter},
    runtime::Instant,
};

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
        let restore = self.platform().random_u64();
        let restored = self.lay_down_and_commit(restore, snapshot).await;
        match &restored {
            // Nothing was laid down.
            Ok(Written { reply: Ok(_), .. }) | Err(ServerError::OlderMember(_)) => {}
            // Should this fail too, the leader does it when the time for it is over.
            _ => {
                let _ = self.step(Restore::Discard { restore }).await;
            }
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
        match self.send_errand(errand, self.shared.config.restore_step).await? {
            Outcome::Written(written) => Ok(written),
            other => Err(unexpected(&other)),
        }
    }
}

/// Parts of a restore that lie there, and since when nothing was added to them, as far as this server saw.
#[derive(Clone, Copy, Debug)]
struct Lying {
    restore: u64,
    parts: usize,
    since: Instant,
}

/// Begins to look for restores that were given up half-way; it ends with the server.
pub(super) fn begin(inner: &Arc<Inner>) {
    let work = run(inner.shared.clone(), Arc::downgrade(inner));
    inner.platform().spawn(work.boxed());
}

async fn run(shared: Arc<Shared>, inner: Weak<Inner>) {
    let mut lying = None;
    while shared.finish().is_none() {
        let Some(inner) = inner.upgrade() else {
            return;
        };
        lying = inner.discard_abandoned(lying).await;
        drop(inner);
        shared.platform.sleep(shared.config.restore_idle / 4).await;
    }
}

impl Inner {
    /// At the leader: discards what was laid down of a restore when nothing was added to it for long enough. Gives what
    /// lies there now.
    async fn discard_abandoned(&self, before: Option<Lying>) -> Option<Lying> {
        let status = self.consensus.status();
        if status.role != Role::Leader || self.shared.halted().is_some() {
            return None;
        }
        let now = self.platform().now();
        let (restore, parts) = self.registry().staged()?;
        let known = before.filter(|it| (it.restore, it.parts) == (restore, parts));
        let lying = known.unwrap_or(Lying {
            restore,
            parts,
            since: now,
        });
        if now.saturating_since(lying.since) < self.shared.config.restore_idle {
            return Some(lying);
        }
        tracing::info!(parts, "discarding the parts of a restore that was given up");
        let discard = Command::Restore(Restore::Discard { restore });
        let discard = self.consensus.propose_in_term(status.term, discard);
        let deadline = now + self.shared.config.write_timeout;
        // Whatever became of it, the next look sees.
        let _ = self.platform().until(deadline, discard).await;
        Some(lying)
    }
}
