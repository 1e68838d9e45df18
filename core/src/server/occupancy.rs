//! How full a server is: what it holds for those who wait, and what it keeps, each beside its limit.

use std::sync::atomic::Ordering;

use super::wiring::Inner;
use crate::limits;

/// One thing of which a server holds several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Occupancy {
    /// What.
    pub what: &'static str,
    /// How many there are now.
    pub used: usize,
    /// How many there may be.
    pub limit: usize,
    /// Whether it is held for somebody who waits, so that none is left when nobody waits any more.
    pub passing: bool,
}

impl Inner {
    /// Everything that is bounded, as it is now.
    pub(super) fn occupancy(&self) -> Vec<Occupancy> {
        let shared = &self.shared;
        let config = &shared.config;
        let passing = |what, used, limit| Occupancy {
            what,
            used,
            limit,
            passing: true,
        };
        let kept = |what, used, limit| Occupancy {
            what,
            used,
            limit,
            passing: false,
        };
        let taken = |limit: usize, free: usize| limit.saturating_sub(free);
        let (held, flushing) = shared.deadlines().outputs();
        let forwards = self.forwards().clone();
        let (gone, gone_max) = {
            let registry = self.registry();
            (registry.retained(), registry.retention())
        };
        vec![
            passing("blocking queries", shared.hub.len(), limits::WATCHERS_MAX),
            passing(
                "streams",
                self.streams.load(Ordering::SeqCst),
                limits::STREAMS_MAX,
            ),
            passing("topics waited for", shared.hub.topics(), limits::WATCHERS_MAX),
            passing(
                "reads that wait for the leader",
                self.shared.rounds.waiting(),
                limits::LINEARIZABLE_READS_MAX,
            ),
            passing(
                "waiters for leadership",
                shared.leadership.waiting(),
                limits::WATCHERS_MAX,
            ),
            passing(
                "writes under way",
                self.in_flight.load(Ordering::SeqCst),
                limits::PROPOSALS_IN_FLIGHT_MAX,
            ),
            passing(
                "renewals under way",
                self.renewals_in_flight.load(Ordering::SeqCst),
                limits::PROPOSALS_IN_FLIGHT_MAX,
            ),
            passing(
                "writes let in",
                taken(config.writes_at_once, self.turns.available_permits()),
                config.writes_at_once,
            ),
            passing(
                "writes forwarded",
                taken(config.forwards_in_flight, forwards.writes.available_permits()),
                config.forwards_in_flight,
            ),
            passing(
                "renewals forwarded",
                taken(config.forwards_in_flight, forwards.renewals.available_permits()),
                config.forwards_in_flight,
            ),
            passing(
                "decisions under way",
                taken(config.decisions_in_flight, self.decisions.available_permits()),
                config.decisions_in_flight,
            ),
            passing("outputs being written", flushing, limits::HELD_OUTPUTS_MAX),
            kept("outputs held back", held, limits::HELD_OUTPUTS_MAX),
            kept("indexes of what is gone", gone.tombstones, gone_max.tombstones),
            kept(
                "superseded versions of keys",
                gone.key_versions,
                gone_max.key_versions,
            ),
            kept("events", shared.events.len(), limits::EVENTS_MAX),
            kept("views", shared.views.len(), config.views),
            kept("digests", shared.digests().len(), limits::DIGESTS_KEPT),
            kept(
                "senders remembered",
                self.receipts.runs(),
                limits::RECEIPT_RUNS_MAX,
            ),
        ]
    }
}
