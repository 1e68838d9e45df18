//! Writes down what happens in a run, while it happens.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use sider_core::{observe::Observation, registry::CheckStatus, server::Occupancy};
use sider_runtime_sim::World;

use crate::{
    autopilot,
    cluster::Witness,
    history::{
        AgentPromise, Bounds, CUT_OFF, Configuration, Fact, FaultSpan, Heard, History, Holding, Looked,
        MembershipChange, Observed, Operation, Outage, OutageKind, Outcome, Record, Reported, ServerNumber,
        Streamed, Transferred,
    },
    operation::Op,
    time::Time,
};

/// Sooner than this after the end of a wait a server need not have answered.
const PATIENT: Duration = Duration::from_millis(6_500);

/// See the module's page. Clones write into the same record.
#[derive(Clone, Debug)]
pub struct Recorder(Arc<Mutex<Record>>);

impl Recorder {
    /// An empty record.
    pub fn new(bounds: Bounds) -> Recorder {
        Recorder(Arc::new(Mutex::new(Record {
            bounds,
            ..Record::default()
        })))
    }

    /// An operation is sent. Until it is over, its outcome is unknown.
    pub fn invoked(&self, world: &World, client: u8, server: u8, op: &Op, patience: Duration) -> u32 {
        let mut record = self.lock();
        let id = u32::try_from(record.operations.len()).expect("a run has few operations");
        record.operations.push(Operation {
            id,
            client: u32::from(client),
            server: ServerNumber(server),
            op: op.clone(),
            impatient: patience < PATIENT,
            invoked: now(world),
            returned: Time::MAX,
            outcome: Outcome::Unknown(CUT_OFF.into()),
            heard: None,
            streamed: None,
        });
        id
    }

    /// The wait for an event of a stream begins, or began when the event before was sent.
    pub fn awaits(&self, id: u32, since: Option<Time>, streamed: Streamed) {
        let operation = &mut self.lock().operations[id as usize];
        operation.invoked = since.unwrap_or(operation.invoked);
        operation.streamed = Some(streamed);
    }

    /// When an operation was sent.
    pub fn invoked_at(&self, id: u32) -> Time {
        self.lock().operations[id as usize].invoked
    }

    /// A server says on a stream, at `sent`, that nothing differs; it can have found out since `since`.
    pub fn unchanged(&self, id: u32, since: Time, sent: Time, arrived: Time) {
        if let Some(streamed) = &mut self.lock().operations[id as usize].streamed {
            streamed.spoke = sent;
            streamed.unchanged.push((since, arrived));
        }
    }

    /// The event that is waited for is there, or never will be.
    pub fn arrived(&self, id: u32, arrived: Time, room: Time) {
        if let Some(streamed) = &mut self.lock().operations[id as usize].streamed {
            (streamed.arrived, streamed.room) = (arrived, room);
        }
    }

    /// An operation is over; `heard` is when its server last got anything from another one.
    pub fn returned(&self, world: &World, id: u32, outcome: Outcome, heard: Option<Heard>) {
        let mut record = self.lock();
        let operation = &mut record.operations[id as usize];
        operation.returned = now(world);
        operation.outcome = outcome;
        operation.heard = heard;
    }

    /// How full a server is now; `alone` when no client is there any more.
    pub fn holds(&self, at: Time, server: usize, occupied: &[Occupancy], alone: bool) {
        let server = number(server);
        let holdings = &mut self.lock().holdings;
        for seen in occupied {
            let known = holdings
                .iter_mut()
                .find(|it| it.server == server && it.what == seen.what);
            let holding = match known {
                Some(holding) => holding,
                None => {
                    holdings.push(Holding {
                        server,
                        what: seen.what.to_owned(),
                        passing: seen.passing,
                        limit: seen.limit,
                        most: (0, at),
                        left: None,
                    });
                    holdings.last_mut().expect("one was just added")
                }
            };
            if seen.used > holding.most.0 {
                holding.most = (seen.used, at);
            }
            if alone {
                holding.left = Some(holding.left.map_or(seen.used, |left| left.min(seen.used)));
            }
        }
    }

    /// All clients are gone: what they still waited for, nobody knows.
    pub fn clients_gone(&self, at: Time) {
        for operation in &mut self.lock().operations {
            operation.returned = operation.returned.min(at);
        }
    }

    /// A fault begins; gives its place.
    pub fn fault(&self, span: FaultSpan) -> usize {
        let mut record = self.lock();
        record.faults.push(span);
        record.faults.len() - 1
    }

    /// A fault is over earlier or later than foreseen.
    pub fn fault_ended(&self, place: usize, at: Time) {
        self.lock().faults[place].until = at;
    }

    /// Every fault of only these servers is over.
    pub fn faults_over(&self, at: Time, servers: &[usize]) {
        let servers: Vec<ServerNumber> = servers.iter().copied().map(number).collect();
        for fault in &mut self.lock().faults {
            if fault.until == Time::MAX && fault.servers.iter().all(|server| servers.contains(server)) {
                fault.until = at;
            }
        }
    }

    /// A membership change is asked for. Until it is answered, its outcome is unknown. Gives its place.
    pub fn membership_asked(&self, change: MembershipChange) -> usize {
        let mut record = self.lock();
        record.memberships.push(change);
        record.memberships.len() - 1
    }

    /// A membership change is answered: done, certainly not done, or unknown.
    pub fn membership_answered(&self, place: usize, at: Time, done: Option<bool>, answer: String) {
        let change = &mut self.lock().memberships[place];
        (change.returned, change.done, change.answer) = (at, done, answer);
    }

    /// A transfer of leadership was acknowledged.
    pub fn transferred(&self, transfer: Transferred) {
        self.lock().transfers.push(transfer);
    }

    /// An agent is started.
    pub fn agent(&self, promise: AgentPromise) {
        let mut record = self.lock();
        record.bounds.agent_nodes.push(promise.node.clone());
        record.agents.push(promise);
    }

    /// A machine that servers probe is another from now on.
    pub fn turned(&self, at: Time, machine: u8, well: bool) {
        self.lock().turns.push((at, machine, well));
    }

    /// What an agent probes is another from now on.
    pub fn agent_flipped(&self, node: &str, at: Time, status: CheckStatus) {
        for agent in self.lock().agents.iter_mut().filter(|agent| agent.node == node) {
            agent.flips.push((at, status));
        }
    }

    /// What an agent probes was otherwise, for a moment.
    pub fn agent_blipped(&self, node: &str, at: Time) {
        for agent in self.lock().agents.iter_mut().filter(|agent| agent.node == node) {
            agent.blips.push(at);
        }
    }

    /// An agent's wall clock was set to another time.
    pub fn agent_jumped(&self, node: &str, at: Time) {
        for agent in self.lock().agents.iter_mut().filter(|agent| agent.node == node) {
            agent.jumps.push(at);
        }
    }

    /// Something befalls an agent. Gives its place.
    pub fn agent_outage(&self, node: &str, outage: Outage) -> usize {
        let mut place = 0;
        for agent in self.lock().agents.iter_mut().filter(|agent| agent.node == node) {
            place = agent.outages.len();
            agent.outages.push(outage.clone());
        }
        place
    }

    /// It is over.
    pub fn agent_outage_ended(&self, node: &str, place: usize, at: Time) {
        for agent in self.lock().agents.iter_mut().filter(|agent| agent.node == node) {
            agent.outages[place].until = Some(at);
        }
    }

    /// An agent that was told to stop has stopped, and whether the servers heard of it.
    pub fn agent_stopped(&self, node: &str, place: usize, at: Time, heard: bool) {
        for agent in self.lock().agents.iter_mut().filter(|agent| agent.node == node) {
            agent.outages[place].kind = OutageKind::Stopped(Some((at, heard)));
        }
    }

    /// An agent carried out what it was asked for.
    pub fn agent_obeyed(&self, node: &str, id: &str, from: Time, until: Time) {
        for agent in self.lock().agents.iter_mut().filter(|agent| agent.node == node) {
            agent.orders.push((id.to_owned(), from, until));
            if let Some((_, _, done, _)) = agent.placed.last_mut() {
                *done = until.min(*done);
            }
        }
    }

    /// An agent is asked to register an instance, or to deregister it.
    pub fn agent_asked(&self, node: &str, id: &str, from: Time, registers: bool) {
        for agent in self.lock().agents.iter_mut().filter(|agent| agent.node == node) {
            agent.placed.push((id.to_owned(), from, Time::MAX, registers));
        }
    }

    /// An agent has told of itself.
    pub fn agent_looked(&self, node: &str, looked: &Looked) {
        for agent in self.lock().agents.iter_mut().filter(|agent| agent.node == node) {
            agent.looks.push(looked.clone());
        }
    }

    /// A service reported to its agent.
    pub fn agent_told(&self, node: &str, told: Reported) {
        for agent in self.lock().agents.iter_mut().filter(|agent| agent.node == node) {
            agent.reports.push(told.clone());
        }
    }

    /// What an agent was asked for last is answered.
    pub fn agent_settled(&self, node: &str, at: Time) {
        for agent in self.lock().agents.iter_mut().filter(|agent| agent.node == node) {
            agent.settled = agent.settled.max(at);
        }
    }

    /// A member told the membership.
    pub fn configuration(&self, told: Configuration) {
        self.lock().configurations.push(told);
    }

    /// Something was done to a server that its own observations do not tell.
    pub fn note(&self, world: &World, server: usize, what: Fact) {
        self.observed_fact(world.now(), server, what);
    }

    /// Everything is healed from now on.
    pub fn healed(&self, at: Time) {
        let mut record = self.lock();
        record.healed = at;
        for fault in &mut record.faults {
            fault.until = fault.until.min(at);
        }
    }

    /// Something broke inside.
    pub fn panicked(&self, at: Time, what: String) {
        self.lock().panics.push((at, what));
    }

    /// The run is over.
    pub fn finish(&self, at: Time) -> History {
        let mut record = std::mem::take(&mut *self.lock());
        record.ended = at;
        let removals = autopilot::removals(&record);
        record.memberships.extend(removals);
        if record.healed == Time(0) {
            record.healed = at;
        }
        for operation in &mut record.operations {
            operation.returned = operation.returned.min(at);
            if let Some(streamed) = &mut operation.streamed {
                streamed.arrived = streamed.arrived.min(operation.returned);
            }
        }
        for change in &mut record.memberships {
            change.returned = change.returned.min(at);
        }
        History::new(record)
    }

    fn observed_fact(&self, at: Duration, server: usize, what: Fact) {
        let server = number(server);
        self.lock().observations.push(Observed {
            at: time(at),
            server,
            what,
        });
    }

    fn lock(&self) -> MutexGuard<'_, Record> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Witness for Recorder {
    fn started(&self, at: Duration, server: usize) {
        self.observed_fact(at, server, Fact::Started);
    }

    fn stopped(&self, at: Duration, server: usize, reason: Option<&str>) {
        let by_itself = reason.map(str::to_owned);
        self.observed_fact(at, server, Fact::Stopped { by_itself });
    }

    fn observed(&self, at: Duration, server: usize, observation: &Observation<'_>) {
        if let Some(fact) = Fact::of(observation) {
            self.observed_fact(at, server, fact);
        }
    }

    fn noted(&self, at: Duration, server: usize, what: Fact) {
        self.observed_fact(at, server, what);
    }
}

/// The time of a world.
pub fn now(world: &World) -> Time {
    time(world.now())
}

/// A span since the start of a run as a time.
pub fn time(since_start: Duration) -> Time {
    Time(0) + since_start
}

/// The number of a server.
pub fn number(server: usize) -> ServerNumber {
    ServerNumber(u8::try_from(server).expect("there are few servers"))
}
