//! The machine behind the simulated network: who listens, what is connected, and what is in flight.
//!
//! One task, on a node of its own, carries everything: it outlives every host, as messages in flight do.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap},
    fmt,
    future::{Future, poll_fn},
    io,
    net::{IpAddr, SocketAddr},
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Poll, Waker},
    time::Duration,
};

use madsim::{runtime::NodeHandle, task::AbortHandle};
use sider_core::runtime::PeerHandler;
use tokio::sync::oneshot;

use super::{
    Body, HttpHandler, Link, LinkState,
    pieces::{self, Incoming, Outgoing},
    pipe::{Next, Pipe},
    wire::{Flight, Payload, Wire},
};
use crate::{chance, clock, runtime::contained, trace, world::HostId};

/// When a lost message is sent again, in microseconds.
const RETRANSMIT_US: Range<u64> = 200_000..1_200_000;
/// How long a message takes within a host, in microseconds.
const LOOPBACK_US: Range<u64> = 10..60;

/// Why a call has no answer, as the calling host learns it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Broken {
    /// Nobody listens there.
    Refused,
    /// The connection broke after the request was sent.
    Reset,
}

/// How far a call is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Its request was not sent.
    Connecting,
    /// It was.
    Sent,
}

pub(super) enum Listener {
    Peer(PeerHandler),
    Http(HttpHandler),
}

pub(super) struct Call {
    pub(super) source: HostId,
    pub(super) target: HostId,
    address: SocketAddr,
    phase: Phase,
    is_http: bool,
    /// Kept until the connection is made.
    request: Option<Payload>,
    /// The process it was sent to.
    pub(super) incarnation: u64,
    pub(super) answer: Answer,
    /// The task that handles it; dropped when an HTTP client hangs up.
    pub(super) handler: Option<AbortHandle>,
}

/// Where the answer to a call goes.
pub(super) struct Answer {
    /// All of it, or the head of one that goes on; `None` once that was there.
    pub(super) whole: Option<oneshot::Sender<Result<Payload, Broken>>>,
    /// What follows the head, if the caller asked for an answer that goes on.
    pub(super) incoming: Option<Incoming>,
}

/// A host's end of the network.
struct Port {
    ip: IpAddr,
    name: String,
    node: NodeHandle,
    incarnation: u64,
    powered: bool,
    listeners: BTreeMap<u16, Listener>,
}

/// How links behave and whether they are open.
#[derive(Default)]
pub(super) struct Links {
    pub(super) default: Link,
    pub(super) special: BTreeMap<(HostId, HostId), Link>,
    /// Of those that are not open.
    pub(super) states: BTreeMap<(HostId, HostId), LinkState>,
}

impl Links {
    fn behaviour(&self, from: HostId, to: HostId) -> &Link {
        self.special.get(&(from, to)).unwrap_or(&self.default)
    }

    pub(super) fn state(&self, from: HostId, to: HostId) -> LinkState {
        self.states.get(&(from, to)).copied().unwrap_or_default()
    }
}

#[derive(Default)]
pub(super) struct State {
    ports: Vec<Port>,
    links: Links,
    /// The process behind each connection, as its source believes.
    connections: BTreeMap<(HostId, SocketAddr), u64>,
    pub(super) calls: BTreeMap<u64, Call>,
    /// HTTP calls whose caller hung up while their request was on its way: it, and any copy of it, arrives first.
    hung_up: BTreeSet<u64>,
    /// Answers that go on, as their servers see them.
    pub(super) outgoing: BTreeMap<u64, Outgoing>,
    last_call: u64,
    flights: BinaryHeap<Reverse<Flight>>,
    last_flight: u64,
    /// When a request or an answer last came from one host to another, by the global clock, in nanoseconds.
    heard: BTreeMap<(HostId, HostId), u64>,
    /// What met a blocked link and will arrive late, in the order of its coming.
    parked: Vec<Flight>,
    /// Of links with a rate, once something was sent over them.
    pipes: BTreeMap<(HostId, HostId), Pipe>,
    carrier: Option<Waker>,
}

/// How long a message takes on a link, in microseconds.
fn latency_of(link: &Link) -> u64 {
    if chance::hits(link.slow_ppm) {
        chance::within(&link.slow_us)
    } else {
        chance::within(&link.latency_us)
    }
}

/// The network of a run.
#[derive(Default)]
pub(crate) struct Switch(Mutex<State>);

impl fmt::Debug for Switch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Switch")
    }
}

/// What hosts do.
impl Switch {
    /// Plugs in the next host, which must have the id that follows the last one's.
    pub(crate) fn add_host(&self, name: String, ip: IpAddr, node: NodeHandle, incarnation: u64) {
        self.lock().ports.push(Port {
            ip,
            name,
            node,
            incarnation,
            powered: true,
            listeners: BTreeMap::new(),
        });
    }

    pub(super) fn hosts(&self) -> Vec<HostId> {
        (0..self.lock().ports.len()).map(HostId::from_index).collect()
    }

    /// A host has a new process.
    pub(crate) fn process_started(&self, host: HostId, node: NodeHandle, incarnation: u64) {
        let mut state = self.lock();
        let port = &mut state.ports[host.index()];
        port.node = node;
        port.incarnation = incarnation;
        port.powered = true;
    }

    /// A host's process has ended; with its power gone, without a word.
    pub(crate) fn process_ended(&self, host: HostId, powered: bool) {
        let mut state = self.lock();
        let port = &mut state.ports[host.index()];
        port.powered = powered;
        let incarnation = std::mem::replace(&mut port.incarnation, 0);
        let listeners = std::mem::take(&mut port.listeners);
        state.connections.retain(|(source, _), _| *source != host);
        state.outgoing.retain(|_, answer| answer.host != host);
        let own: Vec<u64> = state
            .calls
            .iter()
            .filter(|(_, call)| call.source == host)
            .map(|(id, _)| *id)
            .collect();
        for id in own {
            state.end_call(id, powered);
        }
        if !powered {
            state.pipes.retain(|(source, _), _| *source != host);
        }
        if powered {
            for other in (0..state.ports.len())
                .map(HostId::from_index)
                .filter(|other| *other != host)
            {
                state.send(host, other, Wire::Closed { incarnation });
            }
        }
        drop(state);
        // Handlers hold servers, whose destructors may call back.
        drop(listeners);
    }

    pub(super) fn listen(
        &self,
        host: HostId,
        incarnation: u64,
        port: u16,
        listener: Listener,
    ) -> io::Result<()> {
        let mut state = self.lock();
        let end = &mut state.ports[host.index()];
        if end.incarnation != incarnation {
            return Err(io::Error::other("the process of this network has ended"));
        }
        if end.listeners.contains_key(&port) {
            let text = format!("{}:{port} is in use", end.ip);
            return Err(io::Error::new(io::ErrorKind::AddrInUse, text));
        }
        end.listeners.insert(port, listener);
        Ok(())
    }

    /// Begins a call; `answer` will have its end, unless the calling process ends first.
    pub(super) fn call(
        &self,
        source: HostId,
        incarnation: u64,
        address: &str,
        request: Payload,
        answer: Answer,
    ) -> Result<u64, &'static str> {
        let mut state = self.lock();
        if state.ports[source.index()].incarnation != incarnation {
            return Err("this process has ended");
        }
        let (target, address) = state.resolve(address)?;
        state.last_call += 1;
        let id = state.last_call;
        let connected = state.connections.get(&(source, address)).copied();
        let call = Call {
            source,
            target,
            address,
            phase: Phase::Connecting,
            is_http: matches!(request, Payload::Request(_)),
            request: Some(request),
            incarnation: 0,
            answer,
            handler: None,
        };
        state.calls.insert(id, call);
        match connected {
            Some(incarnation) => state.send_request(id, incarnation),
            None => state.send(
                source,
                target,
                Wire::Open {
                    call: id,
                    port: address.port(),
                },
            ),
        }
        Ok(id)
    }

    pub(super) fn phase(&self, call: u64) -> Option<Phase> {
        self.lock().calls.get(&call).map(|call| call.phase)
    }

    /// The caller does not wait any more.
    pub(super) fn hang_up(&self, call: u64) {
        self.lock().end_call(call, true);
    }

    /// The handler of a request has an answer.
    fn answer(&self, id: u64, host: HostId, incarnation: u64, payload: Payload) {
        let mut state = self.lock();
        if !state.runs(host, incarnation) {
            return;
        }
        if let Some(call) = state.calls.get(&id) {
            let source = call.source;
            state.send(host, source, Wire::Answer { call: id, payload });
        }
    }

    pub(super) fn with_links<T>(&self, change: impl FnOnce(&mut Links) -> T) -> T {
        let mut state = self.lock();
        let changed = change(&mut state.links);
        // What waits may have room now.
        let pipes: Vec<(HostId, HostId)> = state.pipes.keys().copied().collect();
        for (from, to) in pipes {
            state.pump(from, to);
        }
        changed
    }

    pub(super) fn waiting(&self, from: HostId, to: HostId) -> usize {
        self.lock().pipes.get(&(from, to)).map_or(0, Pipe::waiting)
    }

    /// When a request or an answer last came from one host to another.
    pub(super) fn last_heard(&self, from: HostId, to: HostId) -> Option<Duration> {
        self.lock()
            .heard
            .get(&(from, to))
            .copied()
            .map(Duration::from_nanos)
    }

    pub(super) fn set_link_state(&self, from: HostId, to: HostId, link_state: LinkState) {
        let mut state = self.lock();
        if state.links.state(from, to) == link_state {
            return;
        }
        trace::record("link", &format!("{from} to {to}: {link_state}"));
        match link_state {
            LinkState::Open => state.links.states.remove(&(from, to)),
            closed => state.links.states.insert((from, to), closed),
        };
        if link_state == LinkState::Open {
            let parked = std::mem::take(&mut state.parked);
            for flight in parked {
                if (flight.from, flight.to) == (from, to) {
                    state.send(from, to, flight.wire);
                } else {
                    state.parked.push(flight);
                }
            }
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The carrier.
impl Switch {
    /// Carries what is in flight, for ever.
    pub(crate) fn carry(self: Arc<Self>) -> impl Future<Output = ()> + Send {
        poll_fn(move |context| {
            let mut state = self.lock();
            if !state
                .carrier
                .as_ref()
                .is_some_and(|carrier| carrier.will_wake(context.waker()))
            {
                state.carrier = Some(context.waker().clone());
                for Reverse(flight) in &state.flights {
                    clock::wake_at(flight.due_ns, context.waker());
                }
            }
            let now = clock::virtual_ns();
            while state
                .flights
                .peek()
                .is_some_and(|Reverse(flight)| flight.due_ns <= now)
            {
                let Reverse(flight) = state.flights.pop().expect("there is a first one");
                state.arrive(&self, flight);
            }
            Poll::Pending
        })
    }

    /// Lets go of everything, so that what handlers hold is freed.
    pub(crate) fn clear(&self) {
        let state = std::mem::take(&mut *self.lock());
        drop(state);
    }
}

impl State {
    /// Whether a process of a host is still there.
    pub(super) fn runs(&self, host: HostId, incarnation: u64) -> bool {
        self.ports[host.index()].incarnation == incarnation
    }

    /// The host and socket behind `host:port`, where the host is an address or a name.
    fn resolve(&self, address: &str) -> Result<(HostId, SocketAddr), &'static str> {
        let (name, port) = address.rsplit_once(':').ok_or("the address has no port")?;
        let port = port.parse().map_err(|_| "the address has a bad port")?;
        let ip: Option<IpAddr> = name.parse().ok();
        let index = self
            .ports
            .iter()
            .position(|end| ip.map_or_else(|| end.name == name, |ip| end.ip == ip))
            .ok_or("no such host")?;
        Ok((
            HostId::from_index(index),
            SocketAddr::new(self.ports[index].ip, port),
        ))
    }

    /// Puts a message on its way, as soon as there is room.
    pub(super) fn send(&mut self, from: HostId, to: HostId, wire: Wire) {
        if from == to {
            return self.launch(from, to, chance::within(&LOOPBACK_US), wire);
        }
        let has_rate = self.links.behaviour(from, to).bytes_per_s.is_some();
        if has_rate || self.pipes.get(&(from, to)).is_some_and(|pipe| pipe.waiting() > 0) {
            self.pipes.entry((from, to)).or_default().push(wire);
            self.pump(from, to);
        } else {
            self.transmit(from, to, 0, wire);
        }
    }

    /// Puts what waits for a slow link into its buffer, as far as there is room.
    fn pump(&mut self, from: HostId, to: HostId) {
        let link = self.links.behaviour(from, to);
        let (rate, buffer_bytes) = (link.bytes_per_s, link.buffer_bytes);
        let now = clock::virtual_ns();
        while let Some(pipe) = self.pipes.get_mut(&(from, to)) {
            let (wire, queued_ns) = match pipe.next(now, rate, buffer_bytes) {
                Next::Nothing => return,
                Next::RoomAt(due_ns) => return self.launch_at(from, to, due_ns, Wire::Room),
                Next::Send(wire, queued_ns) => (wire, queued_ns),
            };
            // Whoever gave up before there was room never sent it.
            let given_up = matches!(&wire, Wire::Request { call, .. } if !self.calls.contains_key(call));
            if !given_up {
                self.transmit(from, to, queued_ns / 1_000, wire);
            }
        }
    }

    /// Sends a message over a link, which may lose or repeat it.
    fn transmit(&mut self, from: HostId, to: HostId, queued_us: u64, wire: Wire) {
        let link = self.links.behaviour(from, to);
        let mut latency_us = queued_us + latency_of(link);
        let mut vanishes = false;
        let mut second_us = None;
        if chance::hits(link.loss_ppm) {
            latency_us += chance::within(&RETRANSMIT_US);
            vanishes = chance::hits(500_000);
        }
        if matches!(wire, Wire::Request { .. }) && chance::hits(link.duplicate_ppm) {
            second_us = Some(queued_us + latency_of(link));
        }
        if let Some(second_us) = second_us {
            trace::record("net", "a request is duplicated");
            self.launch(from, to, second_us, wire.clone());
        }
        if vanishes {
            trace::record_with("net", &[1], || format!("{from} to {to}: lost {}", wire.name()));
            self.last_flight += 1;
            if !matches!(wire, Wire::Room) {
                trace::message_sent(self.last_flight, |now| wire.told(from, to, now));
            }
            trace::message_ended(self.last_flight, Some("lost on its way"));
        } else {
            self.launch(from, to, latency_us, wire);
        }
    }

    fn launch(&mut self, from: HostId, to: HostId, latency_us: u64, wire: Wire) {
        self.launch_at(from, to, clock::virtual_ns() + latency_us * 1_000, wire);
    }

    fn launch_at(&mut self, from: HostId, to: HostId, due_ns: u64, wire: Wire) {
        self.last_flight += 1;
        if !matches!(wire, Wire::Room) {
            trace::message_sent(self.last_flight, |now| wire.told(from, to, now));
        }
        self.flights.push(Reverse(Flight {
            due_ns,
            order: self.last_flight,
            from,
            to,
            wire,
        }));
        if let Some(carrier) = &self.carrier {
            clock::wake_at(due_ns, carrier);
        }
    }

    fn send_request(&mut self, id: u64, incarnation: u64) {
        let Some(call) = self.calls.get_mut(&id) else {
            return;
        };
        let Some(payload) = call.request.take() else {
            return;
        };
        call.phase = Phase::Sent;
        call.incarnation = incarnation;
        let (source, target, port) = (call.source, call.target, call.address.port());
        trace::record_numbers(
            "send",
            &[
                source.index() as u64,
                target.index() as u64,
                u64::from(port),
                id,
                payload.hash(),
            ],
            || format!("{source} to {target}:{port} call {id}: {payload}"),
        );
        self.send(
            source,
            target,
            Wire::Request {
                call: id,
                incarnation,
                port,
                payload,
            },
        );
    }

    /// Forgets a call that nobody waits for. An HTTP server is told, if its client can.
    fn end_call(&mut self, id: u64, tell: bool) {
        let Some(call) = self.calls.remove(&id) else {
            return;
        };
        match (call.handler, call.phase) {
            (Some(handler), _) if tell => {
                self.send(call.source, call.target, Wire::HungUp { call: id, handler });
            }
            (None, Phase::Sent) if tell && call.is_http => {
                self.hung_up.insert(id);
            }
            _ => {}
        }
    }

    fn arrive(&mut self, switch: &Arc<Switch>, flight: Flight) {
        let Flight { from, to, order, .. } = flight;
        if let Wire::Room = flight.wire {
            if let Some(pipe) = self.pipes.get_mut(&(from, to)) {
                pipe.has_room();
            }
            return self.pump(from, to);
        }
        match self.links.state(from, to) {
            LinkState::Open => {}
            LinkState::BlackHole if matches!(flight.wire, Wire::Open { .. } | Wire::Opened { .. }) => {}
            LinkState::BlackHole => return trace::message_ended(order, Some("swallowed by the link")),
            LinkState::Blocked => {
                trace::message_ended(order, Some("stopped by a blocked link"));
                if chance::hits(self.links.behaviour(from, to).late_ppm) {
                    self.parked.push(flight);
                }
                return;
            }
        }
        if !self.ports[to.index()].powered {
            return trace::message_ended(order, Some("its addressee has no power"));
        }
        trace::message_ended(order, None);
        if matches!(flight.wire, Wire::Request { .. } | Wire::Answer { .. }) {
            self.heard.insert((from, to), clock::virtual_ns());
        }
        match flight.wire {
            Wire::Open { call, port } => self.open(from, to, call, port),
            Wire::Opened { call, incarnation } => {
                if let Some(under_way) = self.calls.get(&call) {
                    self.connections
                        .insert((under_way.source, under_way.address), incarnation);
                }
                self.send_request(call, incarnation);
            }
            Wire::Refused { call } => self.finish(call, Err(Broken::Refused)),
            Wire::Request {
                call,
                incarnation,
                port,
                payload,
            } => {
                self.deliver(switch, (from, to), call, incarnation, port, payload);
            }
            Wire::Answer { call, payload } => self.finish(call, Ok(payload)),
            Wire::Reset { call } => {
                if let Some(under_way) = self.calls.get(&call) {
                    self.disconnect(under_way.source, under_way.target, under_way.incarnation);
                }
                self.finish(call, Err(Broken::Reset));
            }
            Wire::Closed { incarnation } => self.disconnect(to, from, incarnation),
            Wire::HungUp { call, handler } => {
                self.outgoing.remove(&call);
                handler.abort();
            }
            Wire::Piece { call, piece } => self.piece_arrives(from, to, call, piece),
            Wire::Taken { call, parts } => self.parts_taken(call, parts),
            Wire::Unwanted { call } => self.unwanted(call),
            Wire::Room => unreachable!("handled above, for it is no message"),
        }
    }

    /// Someone asks `to` for a connection.
    fn open(&mut self, from: HostId, to: HostId, call: u64, port: u16) {
        let end = &self.ports[to.index()];
        let wire = if end.listeners.contains_key(&port) {
            Wire::Opened {
                call,
                incarnation: end.incarnation,
            }
        } else {
            Wire::Refused { call }
        };
        self.send(to, from, wire);
    }

    /// `source` learns that a process of `target` is gone: its connections there, and the calls on them, end.
    fn disconnect(&mut self, source: HostId, target: HostId, incarnation: u64) {
        let ip = self.ports[target.index()].ip;
        self.connections
            .retain(|(from, address), to| !(*from == source && address.ip() == ip && *to == incarnation));
        let broken: Vec<u64> = self
            .calls
            .iter()
            .filter(|(_, call)| call.phase == Phase::Sent && call.source == source && call.target == target)
            .filter(|(_, call)| call.incarnation == incarnation)
            .map(|(id, _)| *id)
            .collect();
        for id in broken {
            self.finish(id, Err(Broken::Reset));
        }
    }

    /// The caller learns what came of its call.
    pub(super) fn finish(&mut self, id: u64, end: Result<Payload, Broken>) {
        let Some(call) = self.calls.remove(&id) else {
            return;
        };
        let hash = end.as_ref().map_or(0, Payload::hash);
        trace::record_numbers("recv", &[call.source.index() as u64, id, hash], || match &end {
            Ok(payload) => format!("{} from {} call {id}: {payload}", call.source, call.target),
            Err(Broken::Refused) => format!("{} from {} call {id}: refused", call.source, call.target),
            Err(Broken::Reset) => format!("{} from {} call {id}: reset", call.source, call.target),
        });
        call.answer.finish(end);
    }

    /// A request arrives: its handler starts, in a task of the listening process.
    fn deliver(
        &mut self,
        switch: &Arc<Switch>,
        (from, to): (HostId, HostId),
        id: u64,
        incarnation: u64,
        port: u16,
        payload: Payload,
    ) {
        let end = &self.ports[to.index()];
        let listener = end
            .listeners
            .get(&port)
            .filter(|_| end.incarnation == incarnation);
        let switch = switch.clone();
        let (work, is_http): (futures_util::future::BoxFuture<'static, ()>, bool) = match (listener, payload)
        {
            (Some(Listener::Peer(handler)), Payload::Peer(message)) => {
                let handler = handler.clone();
                let work = async move {
                    let answer = handler(message).await;
                    switch.answer(id, to, incarnation, Payload::Peer(answer));
                };
                (Box::pin(work), false)
            }
            (Some(Listener::Http(handler)), Payload::Request(request)) => {
                let handler = handler.clone();
                let work = async move {
                    let (head, body) = handler(*request).await.into_parts();
                    match body {
                        Body::Whole(bytes) => {
                            let answer = http::Response::from_parts(head, bytes);
                            switch.answer(id, to, incarnation, Payload::Response(Box::new(answer)));
                        }
                        Body::Pieces(following) => {
                            let head = http::Response::from_parts(head, bytes::Bytes::new());
                            pieces::send(switch, (id, to, incarnation), head, following).await;
                        }
                    }
                };
                (Box::pin(work), true)
            }
            _ => return self.send(to, from, Wire::Reset { call: id }),
        };
        trace::record_numbers("deliver", &[to.index() as u64, id], || {
            format!("{to} gets call {id} of {from}")
        });
        let task = end.node.spawn(contained(work));
        let handler = task.abort_handle();
        match self.calls.get_mut(&id) {
            Some(call) if is_http => call.handler = Some(handler),
            None if self.hung_up.contains(&id) && is_http => {
                self.send(from, to, Wire::HungUp { call: id, handler });
            }
            _ => {}
        }
    }
}
