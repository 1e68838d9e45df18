//! Read indexes: one round to a quorum for all who wait at that moment.

use openraft::{
    Raft, ReadPolicy,
    errors::{LinearizableReadError, RaftError},
};
use tokio::sync::{mpsc, oneshot};

use super::{ReadIndexError, state::StateMachine, types::Types};
use crate::{limits, runtime::Runtime};

type Answer = oneshot::Sender<Result<u64, ReadIndexError>>;

/// Where read indexes are asked for. The task behind it ends with this.
pub(crate) struct ReadIndexes(mpsc::Sender<Answer>);

impl ReadIndexes {
    pub(crate) fn start<R: Runtime>(raft: Raft<Types<R>, StateMachine<R>>) -> Self {
        let (sender, receiver) = mpsc::channel(limits::READS_WAITING_MAX);
        // Detached: it ends with the last sender.
        drop(R::spawn(serve(raft, receiver)));
        ReadIndexes(sender)
    }

    /// A read index from a round begun after this call.
    ///
    /// # Errors
    /// This server does not lead, can't reach a quorum, is overrun, or stops.
    pub(crate) async fn get(&self) -> Result<u64, ReadIndexError> {
        let (sender, receiver) = oneshot::channel();
        match self.0.try_send(sender) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(_)) => {
                return Err(ReadIndexError::NotLeader { leader: None });
            }
            Err(mpsc::error::TrySendError::Closed(_)) => return Err(stopped()),
        }
        receiver.await.unwrap_or_else(|_| Err(stopped()))
    }
}

fn stopped() -> ReadIndexError {
    ReadIndexError::Stopped("it is shutting down".to_string())
}

async fn serve<R: Runtime>(raft: Raft<Types<R>, StateMachine<R>>, mut waiting: mpsc::Receiver<Answer>) {
    while let Some(first) = waiting.recv().await {
        let mut batch = vec![first];
        // Only those that wait already: whoever comes during the round is for the next one.
        while let Ok(next) = waiting.try_recv() {
            batch.push(next);
        }
        let result = round(&raft).await;
        for answer in batch {
            // Whoever asked may have given up.
            let _ = answer.send(result.clone());
        }
    }
}

async fn round<R: Runtime>(raft: &Raft<Types<R>, StateMachine<R>>) -> Result<u64, ReadIndexError> {
    match raft.get_read_log_id(ReadPolicy::ReadIndex).await {
        Ok((read_log_id, _)) => Ok(read_log_id.index()),
        Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(forward))) => {
            Err(ReadIndexError::NotLeader {
                leader: forward
                    .leader_id
                    .map(|leader| leader.server)
                    .zip(forward.leader_node),
            })
        }
        Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(_))) => {
            Err(ReadIndexError::NotLeader { leader: None })
        }
        Err(RaftError::Fatal(error)) => Err(ReadIndexError::Stopped(error.to_string())),
    }
}
