//! Renewals of sessions, at the leader. What holds for those of checks holds for these, by the same steps: see
//! [`super::renewals`].

use super::{SessionRenewed, peer::Failure, wiring::Inner};
use crate::{
    registry::{Command, Refusal, Reply, SessionId},
    runtime::Instant,
};

impl Inner {
    /// Carries out a renewal that arrived here in a term of this server's leadership.
    pub(super) async fn renew_session_here(
        &self,
        id: &SessionId,
        term: u64,
        deadline: Instant,
    ) -> Result<SessionRenewed, Failure> {
        self.note_session_arrival(id, term)?;
        self.confirm_leadership(deadline).await?;
        let (mut renewed, contested) = self.judge_session(id, term)?;
        if contested {
            let written = self
                .propose(Command::RenewSessions(vec![id.clone()]), deadline)
                .await?;
            renewed.index = written.index;
            match written.reply {
                Ok(Reply::Each(outcomes)) if outcomes == [Ok(())] => {}
                // The expiry came first: it ended before this renewal was carried out.
                Ok(Reply::Each(outcomes))
                    if matches!(outcomes.as_slice(), [Err(Refusal::UnknownSession(_))]) =>
                {
                    renewed.session = None;
                }
                other => {
                    return Err(Failure::OutcomeUnknown(format!(
                        "an unexpected reply to a renewal: {other:?}"
                    )));
                }
            }
        }
        Ok(renewed)
    }

    /// Moves the deadline.
    fn note_session_arrival(&self, id: &SessionId, term: u64) -> Result<(), Failure> {
        let registry = self.registry();
        let mut deadlines = self.shared.deadlines();
        let now = self.platform().now();
        deadlines.lead(term, &registry, now);
        if deadlines.term() != Some(term) {
            return Err(Failure::NotHere);
        }
        deadlines.session_renewed(id, now);
        Ok(())
    }

    /// Looks at the confirmed state: the session, and whether an expiry of it may be in the log.
    fn judge_session(&self, id: &SessionId, term: u64) -> Result<(SessionRenewed, bool), Failure> {
        let registry = self.registry();
        let deadlines = self.shared.deadlines();
        if deadlines.term() != Some(term) {
            return Err(Failure::NotHere);
        }
        let session = registry.session(id).cloned();
        let contested = session.is_some() && deadlines.is_session_contested(id);
        let index = registry.index();
        Ok((SessionRenewed { index, session }, contested))
    }
}
