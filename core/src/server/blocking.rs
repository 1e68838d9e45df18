//! Blocking queries: an answer as soon as it differs from what the client has, or at the timeout with what is there.
//!
//! The client names the index of the answer it has. A waiter registers in the hub, then reads; if the index of what it
//! asks is above the client's, that is the answer. Else nothing has changed since, so the view it reads now shows what
//! the client has: it parks with that view, and every wake compares with it. A wake that changes nothing in the view
//! ends nothing, and costs no round to the leader. A server that is behind the client does not know what the client has:
//! it first comes level, or answers with what is newer.
//!
//! Before it answers, at its timeout too, it reads again as freshly as was asked for: what it says is true at a moment
//! after it was woken. If that fails it says so; it never gives old content.

use std::{sync::Arc, time::Duration};

use super::{Answer, Consistency, ReadOptions, ServerError, hub::Parked, wiring::Inner};
use crate::{limits, registry::Query};

impl Inner {
    /// Answers a query; blocks if the options say so.
    pub(super) async fn read(
        self: &Arc<Self>,
        query: &Query,
        options: &ReadOptions,
    ) -> Result<Answer, ServerError> {
        match options.index {
            None | Some(0) => {
                let freshness = self.settle(options.consistency).await?;
                Ok(self.evaluate(query, freshness))
            }
            Some(index) => self.read_after(query, index, options).await,
        }
    }

    /// Registers a waiter for what a query shows.
    ///
    /// # Errors
    /// There are too many.
    pub(super) fn park(&self, query: &Query) -> Result<Parked, ServerError> {
        self.shared.hub.park(query.topic()).ok_or(ServerError::OverLimit {
            what: "blocking queries",
            limit: limits::WATCHERS_MAX,
        })
    }

    async fn read_after(
        self: &Arc<Self>,
        query: &Query,
        index: u64,
        options: &ReadOptions,
    ) -> Result<Answer, ServerError> {
        let timeout = self.platform().now() + options.wait + self.spread(options.wait);
        // Registered before the index is looked at: a change from here on wakes.
        let parked = self.park(query)?;
        let freshness = self.settle(options.consistency).await?;
        let mut known = self.evaluate(query, freshness);
        if known.index > index {
            return Ok(known);
        }
        // A stale server may be behind what the client has seen elsewhere. Then it does not know what that was: the first
        // newer state is an answer, unless it gets to the client's own before. Who asked the leader is behind nobody.
        let stale = matches!(options.consistency, Consistency::Stale { .. });
        let behind = |known: &Answer| stale && known.index < index;
        let differs = |known: &Answer, answer: &Answer| {
            answer.index > index && (behind(known) || !answer.view.same_content(&known.view))
        };
        while let Some(begun) = self.platform().until(timeout, parked.woken()).await {
            self.serving()?;
            // The state here knows of every change that woke: if it shows none, no round to the leader is needed.
            let now = self.evaluate(query, freshness);
            if !differs(&known, &now) {
                if behind(&known) {
                    known = now;
                }
                continue;
            }
            let freshness = self.settle_after(options.consistency, begun).await?;
            let answer = self.evaluate(query, freshness);
            if differs(&known, &answer) {
                return Ok(answer);
            }
        }
        drop(parked);
        let freshness = self.settle(options.consistency).await?;
        Ok(self.evaluate(query, freshness))
    }

    /// A random part of the wait, so that those who began together do not come back together.
    pub(super) fn spread(&self, wait: Duration) -> Duration {
        let most = u64::try_from((wait / limits::WAIT_SPREAD_DIVISOR).as_nanos()).unwrap_or(u64::MAX);
        match most {
            0 => Duration::ZERO,
            _ => Duration::from_nanos(self.platform().random_u64() % most),
        }
    }
}
