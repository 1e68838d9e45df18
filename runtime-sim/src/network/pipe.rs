//! A link with a rate: a buffer that empties at that rate, and senders that wait when it is full.

use std::collections::VecDeque;

use super::wire::Wire;

/// One direction of a link with a rate.
#[derive(Default)]
pub(super) struct Pipe {
    /// When all that is in the buffer will be on its way, in virtual time.
    empty_ns: u64,
    /// What does not fit into the buffer, oldest first.
    waiting: VecDeque<Wire>,
    /// Whether somebody will say when there is room.
    watched: bool,
}

/// What a pipe does next.
pub(super) enum Next {
    /// Nothing waits, or it is known when there will be room.
    Nothing,
    /// There is room at this time; [`Pipe::has_room`] must be called then.
    RoomAt(u64),
    /// This is sent, after so many nanoseconds in the buffer.
    Send(Wire, u64),
}

impl Pipe {
    pub(super) fn push(&mut self, wire: Wire) {
        self.waiting.push_back(wire);
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn has_room(&mut self) {
        self.watched = false;
    }

    /// What to do at `now` at this rate; with none, everything passes at once.
    pub(super) fn next(&mut self, now: u64, bytes_per_s: Option<u64>, buffer_bytes: u64) -> Next {
        let Some(first) = self.waiting.front() else {
            return Next::Nothing;
        };
        let takes_ns = |bytes: u64| bytes_per_s.map_or(0, |rate| bytes * 1_000_000_000 / rate.max(1));
        let (queued_ns, this_ns) = (self.empty_ns.saturating_sub(now), takes_ns(first.bytes()));
        // A message that is larger than the buffer passes when there is nothing else in it.
        if bytes_per_s.is_some() && queued_ns > 0 && queued_ns + this_ns > takes_ns(buffer_bytes) {
            if std::mem::replace(&mut self.watched, true) {
                return Next::Nothing;
            }
            let surplus_ns = (queued_ns + this_ns - takes_ns(buffer_bytes)).min(queued_ns);
            return Next::RoomAt(now + surplus_ns);
        }
        let wire = self.waiting.pop_front().expect("it has a first one");
        if bytes_per_s.is_none() {
            self.empty_ns = now;
            return Next::Send(wire, 0);
        }
        self.empty_ns = self.empty_ns.max(now) + this_ns;
        Next::Send(wire, self.empty_ns - now)
    }
}
