//! How many writes a leader carries out at a time, and what becomes of the rest.
//!
//! Writes wait for those before them. If ever more are let in than can be carried out, each waits longer, until its client has
//! given up and the work was for nothing. So no more than [`super::ServerConfig::writes_at_once`] are let in; the others wait
//! for their turn, the first come first, and are refused when they have waited for [`limits::WRITE_TURN_WAIT_MAX`]. That wait
//! costs next to nothing, and a refusal about a quarter of a write: to refuse at once would leave less for what is carried
//! out. Renewals of TTLs are not among them: writes never hold them back.

use tokio::sync::SemaphorePermit;

use super::{peer::Failure, wiring::Inner};
use crate::{limits, runtime::Instant};

impl Inner {
    /// Lets a write in, at the leader, for as long as what is given lives.
    pub(super) async fn admit(&self, deadline: Instant) -> Result<SemaphorePermit<'_>, Failure> {
        let patience = deadline.min(self.platform().now() + limits::WRITE_TURN_WAIT_MAX);
        match self.platform().until(patience, self.turns.acquire()).await {
            Some(turn) => Ok(turn.expect("the semaphore is never closed")),
            None => Err(Failure::OverLimit(self.shared.config.writes_at_once as u64)),
        }
    }
}
