//! Draws clients that read streams.

use super::{BEGIN_MS, PATIENT_MS, work::Plan};
use crate::{operation::Freshness, schedule::Doing, streams::can_be_streamed};

impl Plan<'_> {
    /// In half of the worlds some clients read streams: at one server as long as it lasts, or from server to server; quickly,
    /// or so slowly that events pile up.
    pub(super) fn streams(&mut self) {
        if !self.dice.chance(50) {
            return;
        }
        for _ in 0..self.dice.between(1, 5) {
            let ask = self.ask();
            if !can_be_streamed(&ask) {
                continue;
            }
            let most_ms = self.dice.between(1, 3_000);
            let freshness = *self.dice.weighted(&[
                (6, Freshness::Default),
                (1, Freshness::Consistent),
                (3, Freshness::Stale),
                (1, Freshness::MaxStale(most_ms)),
            ]);
            let servers = self.servers();
            let what = Doing::Stream {
                ask,
                freshness,
                silence_ms: *self.dice.pick(&[4_500, 6_000, 9_000]),
                slowness_ms: *self.dice.weighted(&[(5, 0), (1, 150), (2, 900), (1, 2_500)]),
                until_ms: self.dice.between(self.pace.heal_ms / 2, self.pace.end_ms - 600),
                servers,
            };
            let at_ms = self.dice.between(BEGIN_MS, BEGIN_MS + 4_000);
            self.does(at_ms, PATIENT_MS, what);
        }
    }
}
