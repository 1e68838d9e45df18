//! What the troubles that last make of the links between machines.

use sider_runtime_sim::{HostId, Link, LinkState};

use super::{Parts, Saboteur};
use crate::schedule::{Quality, Trouble, Way, Who};

/// A trouble of the network that lasts, and the servers that it is about: for one of single links, from whom and to whom.
#[derive(Clone)]
pub(super) struct Lasting {
    pub(super) what: Trouble,
    pub(super) who: Vec<usize>,
    pub(super) towards: Vec<usize>,
}

/// A host that is no server is cut off from servers, or they from it.
#[derive(Clone)]
pub(super) struct Outsider {
    host: HostId,
    servers: Vec<usize>,
    /// Whether it is about all servers, whoever joins.
    all: bool,
    way: Way,
}

impl Saboteur {
    /// Cuts a host that is no server off from servers; not once all is healed.
    pub fn cut_off(&self, key: (usize, usize), host: HostId, from: Who, way: Way) {
        let servers = self.resolve(Some(from));
        let mut state = self.lock();
        if state.healed {
            return;
        }
        let all = from == Who::All;
        state.outsiders.insert(
            key,
            Outsider {
                host,
                servers,
                all,
                way,
            },
        );
        drop(state);
        self.set_network();
    }

    /// Ends that.
    pub fn connect(&self, key: (usize, usize)) {
        let there = self.lock().outsiders.remove(&key).is_some();
        if there {
            self.set_network();
        }
    }

    /// Sets every link from all troubles that last.
    pub(super) fn set_network(&self) {
        let Parts {
            world,
            cluster,
            shape,
            ..
        } = &*self.0;
        let network = world.network();
        let state = self.lock();
        let hosts: Vec<_> = world.hosts().iter().map(|host| host.id()).collect();
        let servers: Vec<_> = (0..cluster.len())
            .map(|server| cluster.host(server).id())
            .collect();
        let server_of = |host| servers.iter().position(|server| *server == host);
        network.reset_links();
        for from in &hosts {
            for to in hosts.iter().filter(|to| *to != from) {
                let (a, b) = (server_of(*from), server_of(*to));
                let states = state
                    .network
                    .values()
                    .map(|lasting| link_state(&lasting.what, &lasting.who, a, b, servers.len()));
                let outsiders = state.outsiders.values();
                let outside = outsiders.map(|it| it.link_state((*from, a), (*to, b)));
                let worst = states
                    .chain(outside)
                    .max_by_key(|state| *state as u8)
                    .unwrap_or_default();
                if network.state(*from, *to) != worst {
                    network.set_state(*from, *to, worst);
                }
                if let (Some(a), Some(b)) = (a, b) {
                    let normal = Link {
                        latency_us: shape.latency_us.0..shape.latency_us.1,
                        ..Link::default()
                    };
                    let link = state
                        .network
                        .values()
                        .fold(normal.clone(), |link, lasting| worsened(link, lasting, a, b));
                    if link != normal {
                        network.set_link(*from, *to, link);
                    }
                }
            }
        }
    }
}

impl Outsider {
    /// What it makes of the link from one machine to another, each with its number if it is a server.
    fn link_state(
        &self,
        (from, sender): (HostId, Option<usize>),
        (to, receiver): (HostId, Option<usize>),
    ) -> LinkState {
        let concerned =
            |server: Option<usize>| server.is_some_and(|server| self.all || self.servers.contains(&server));
        let sends = from == self.host && concerned(receiver);
        let hears = to == self.host && concerned(sender);
        match self.way {
            Way::Both if sends || hears => LinkState::Blocked,
            Way::Mute if sends => LinkState::Blocked,
            Way::Deaf if hears => LinkState::Blocked,
            Way::BlackHole if sends || hears => LinkState::BlackHole,
            _ => LinkState::Open,
        }
    }
}

/// What a trouble makes of the link from one machine to another; `None` is a machine that is no server.
fn link_state(
    what: &Trouble,
    who: &[usize],
    from: Option<usize>,
    to: Option<usize>,
    servers: usize,
) -> LinkState {
    let concerned = |server: Option<usize>| server.is_some_and(|server| who.contains(&server));
    let between_servers = from.is_some() && to.is_some();
    let parted = concerned(from) != concerned(to);
    let blocked = match what {
        Trouble::CutOff(_) => between_servers && parted,
        Trouble::CutOffFromAll(_) => parted,
        Trouble::Mute(_) => between_servers && concerned(from) && !concerned(to),
        Trouble::Deaf(_) => between_servers && concerned(to) && !concerned(from),
        Trouble::BlackHole(_) if between_servers && parted => return LinkState::BlackHole,
        Trouble::Swallow(_) if parted => return LinkState::BlackHole,
        Trouble::Flap { .. } => between_servers && parted,
        Trouble::Ring => match (from, to) {
            (Some(from), Some(to)) => ![1, servers - 1].contains(&(from.abs_diff(to) % servers)),
            _ => false,
        },
        Trouble::Bridge(_) => {
            let half = |server: usize| server < servers / 2;
            between_servers && !concerned(from) && !concerned(to) && from.map(half) != to.map(half)
        }
        _ => false,
    };
    if blocked {
        LinkState::Blocked
    } else {
        LinkState::Open
    }
}

/// What a trouble makes of the behaviour of the link from one server to another.
fn worsened(link: Link, lasting: &Lasting, from: usize, to: usize) -> Link {
    match &lasting.what {
        Trouble::Loss { ppm } => Link {
            loss_ppm: link.loss_ppm.max(*ppm),
            ..link
        },
        Trouble::Delay { ms, twice_ppm } => Link {
            latency_us: link.latency_us.start..link.latency_us.end.max(*ms * 1_000),
            duplicate_ppm: link.duplicate_ppm.max(*twice_ppm),
            ..link
        },
        Trouble::BadLink { link: quality, .. }
            if lasting.who.contains(&from) && lasting.towards.contains(&to) =>
        {
            of_quality(link, quality)
        }
        _ => link,
    }
}

fn of_quality(link: Link, quality: &Quality) -> Link {
    let slowest_us = quality.delay_ms * 1_000;
    Link {
        loss_ppm: link.loss_ppm.max(quality.loss_ppm),
        duplicate_ppm: link.duplicate_ppm.max(quality.twice_ppm),
        slow_ppm: link.slow_ppm.max(quality.tail_ppm),
        slow_us: slowest_us..slowest_us * 10 + 1,
        latency_us: link.latency_us.start..link.latency_us.end.max(slowest_us),
        bytes_per_s: match quality.bytes_per_s {
            0 => link.bytes_per_s,
            rate => Some(link.bytes_per_s.map_or(rate, |other| other.min(rate))),
        },
        buffer_bytes: SMALL_BUFFER_BYTES,
        ..link
    }
}

/// Of a link with a rate.
const SMALL_BUFFER_BYTES: u64 = 16 * 1024;
