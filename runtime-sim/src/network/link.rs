//! The links between hosts, and how a test breaks them.

use std::{fmt, ops::Range, sync::Arc, time::Duration};

use super::Switch;
use crate::world::HostId;

/// How one direction between two hosts behaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// How long a message takes, in microseconds: each one for itself, so that they overtake each other.
    pub latency_us: Range<u64>,
    /// Of a million messages, so many take much longer: the long tail of a busy network.
    pub slow_ppm: u32,
    /// How long those take, in microseconds.
    pub slow_us: Range<u64>,
    /// Of a million messages, so many are lost. Half of those are sent again later, as TCP does; the others vanish.
    pub loss_ppm: u32,
    /// Of a million requests, so many arrive twice. TCP does not do that, a proxy that tries again does.
    pub duplicate_ppm: u32,
    /// Of a million messages that meet a blocked link, so many arrive when it is open again.
    pub late_ppm: u32,
    /// Bytes that pass in a second; `None` is as many as come.
    pub bytes_per_s: Option<u64>,
    /// On a link with a rate: bytes that wait for their turn in its buffers. When they are full, senders wait: their
    /// requests are not sent, and never will be if they give up before there is room.
    pub buffer_bytes: u64,
}

impl Default for Link {
    /// A local network without faults.
    fn default() -> Self {
        Link {
            latency_us: 100..1_000,
            slow_ppm: 0,
            slow_us: 0..0,
            loss_ppm: 0,
            duplicate_ppm: 0,
            late_ppm: 250_000,
            bytes_per_s: None,
            buffer_bytes: 64 * 1024,
        }
    }
}

/// Whether messages pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LinkState {
    /// They do.
    #[default]
    Open,
    /// Nothing passes, connections can't be made.
    Blocked,
    /// Connections can be made, but what is sent over them vanishes.
    BlackHole,
}

impl fmt::Display for LinkState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LinkState::Open => "open",
            LinkState::Blocked => "blocked",
            LinkState::BlackHole => "swallows everything",
        })
    }
}

/// Control over the network of a run.
#[derive(Clone, Debug)]
pub struct NetworkControl(pub(crate) Arc<Switch>);

impl NetworkControl {
    /// Sets how links behave for which nothing else is set.
    pub fn set_default_link(&self, link: Link) {
        self.0.with_links(|links| links.default = link);
    }

    /// Sets how the link from one host to another behaves, in this direction.
    pub fn set_link(&self, from: HostId, to: HostId, link: Link) {
        self.0.with_links(|links| links.special.insert((from, to), link));
    }

    /// When a request or an answer last came from one host to another, by the world's clock; `None` if none ever did.
    pub fn last_heard(&self, from: HostId, to: HostId) -> Option<Duration> {
        self.0.last_heard(from, to)
    }

    /// Gives every link its default behaviour.
    pub fn reset_links(&self) {
        self.0.with_links(|links| links.special.clear());
    }

    /// Opens or closes the link from one host to another, in this direction.
    pub fn set_state(&self, from: HostId, to: HostId, state: LinkState) {
        self.0.set_link_state(from, to, state);
    }

    /// Requests and answers that wait for room in the buffers of a slow link.
    pub fn waiting(&self, from: HostId, to: HostId) -> usize {
        self.0.waiting(from, to)
    }

    /// Whether messages pass from one host to another.
    pub fn state(&self, from: HostId, to: HostId) -> LinkState {
        self.0.with_links(|links| links.state(from, to))
    }

    /// Cuts one direction.
    pub fn block(&self, from: HostId, to: HostId) {
        self.set_state(from, to, LinkState::Blocked);
    }

    /// Opens one direction.
    pub fn open(&self, from: HostId, to: HostId) {
        self.set_state(from, to, LinkState::Open);
    }

    /// Cuts both directions between hosts of different groups. A host in no group stays linked with all: so two groups
    /// and a host between them make a bridge.
    pub fn partition(&self, groups: &[&[HostId]]) {
        for (index, group) in groups.iter().enumerate() {
            for other in groups[index + 1..].iter().flat_map(|other| other.iter()) {
                for host in *group {
                    self.block(*host, *other);
                    self.block(*other, *host);
                }
            }
        }
    }

    /// Cuts a host off from all others that there are.
    pub fn isolate(&self, host: HostId) {
        for other in self.0.hosts() {
            if other != host {
                self.block(host, other);
                self.block(other, host);
            }
        }
    }

    /// Opens every link. What a link's behaviour is stays as it is set.
    pub fn heal(&self) {
        let closed = self
            .0
            .with_links(|links| links.states.keys().copied().collect::<Vec<_>>());
        for (from, to) in closed {
            self.open(from, to);
        }
    }
}
