//! Tells small histories for the tests of the invariants: three servers, the first of which leads. Everything it tells
//! is correct until a test spoils it.

mod backups;
mod commands;
mod keys;
mod maintenance;
mod probed;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use sider_core::registry::{
    Check, CheckStatus, Command, Deregister, Expiry, InstanceId, InstanceKey, Namespace, NodeName,
};

use crate::{
    answers::answer,
    history::{
        AgentPromise, Answer, AppliedEntry, Configuration, Disk, Effect, Fact, FaultKind, FaultSpan, History,
        LEFT, Observed, Operation, Outcome, Record, ServerNumber, Streamed, Told,
    },
    matching::SHARED_NODE,
    model::State,
    operation::{Ask, Freshness, Op, STREAMED_MS},
    time::Time,
    truth::Truth,
};

/// The node that everything in a story is registered on.
pub(super) const SHARED: &str = SHARED_NODE;

/// The TTL of every check in a story.
pub(super) const TTL_MS: u64 = 2_000;

pub(crate) struct Story {
    record: Record,
    now: Time,
    state: State,
    next_log_index: u64,
    term: u64,
    leader: u8,
}

/// The disks of servers that never lost one.
pub(super) fn disks(servers: &[u8]) -> BTreeSet<Disk> {
    let disk = |server: &u8| ServerNumber(*server).into();
    servers.iter().map(disk).collect()
}

/// The instances of `web` with their health.
pub(super) fn web() -> Ask {
    Ask::Health {
        service: "web".into(),
        passing: false,
        tags: vec![],
    }
}

impl Story {
    /// Three servers start, the first is elected. A moment later nothing has been disturbed for a while.
    pub(super) fn new() -> Story {
        let mut story = Story {
            record: Record::default(),
            now: Time(0),
            state: State::default(),
            next_log_index: 0,
            term: 0,
            leader: 1,
        };
        (1..=3).for_each(|server| story.observe(server, Fact::Started));
        story.elect(1, 1);
        story
    }

    pub(super) fn finish(mut self) -> History {
        self.record.ended = self.now.max(self.record.ended);
        if self.record.healed == Time(0) {
            self.record.healed = self.record.ended;
        }
        self.record.observations.sort_by_key(|seen| seen.at);
        History::new(self.record)
    }

    pub(super) fn now(&self) -> Time {
        self.now
    }

    pub(super) fn record(&mut self) -> &mut Record {
        &mut self.record
    }

    pub(super) fn wait_ms(&mut self, ms: u64) {
        self.now = self.now + Duration::from_millis(ms);
    }

    pub(super) fn observe(&mut self, server: u8, what: Fact) {
        self.record.observations.push(Observed {
            at: self.now,
            server: ServerNumber(server),
            what,
        });
    }

    /// A new leader, with its blank entry.
    /// An agent is started that knows the first server.
    pub(super) fn agent(&mut self, node: &str) {
        let promise = AgentPromise {
            node: node.to_owned(),
            servers: vec![ServerNumber(1)],
            started: self.now,
            ..AgentPromise::default()
        };
        self.record.agents.push(promise);
    }

    pub(super) fn elect(&mut self, server: u8, term: u64) {
        self.term = term;
        self.leader = server;
        self.observe(server, Fact::BecameLeader { term });
        self.append(None);
    }

    pub(super) fn restart(&mut self, server: u8) {
        self.observe(server, Fact::Stopped { by_itself: None });
        self.wait_ms(1);
        self.observe(server, Fact::Started);
    }

    /// The server applies the whole log again.
    pub(super) fn replay(&mut self, server: u8) {
        let applied: Vec<Fact> = self
            .record
            .observations
            .iter()
            .filter(|seen| seen.server == ServerNumber(self.leader) && matches!(seen.what, Fact::Applied(_)))
            .map(|seen| seen.what.clone())
            .collect();
        applied.into_iter().for_each(|what| self.observe(server, what));
    }

    pub(super) fn fault(&mut self, kind: FaultKind, server: u8, for_ms: u64) {
        self.fault_called("a fault", kind, server, for_ms);
    }

    /// The same, by the words that tell of it.
    pub(super) fn fault_called(&mut self, what: &str, kind: FaultKind, server: u8, for_ms: u64) {
        let until = self.now + Duration::from_millis(for_ms);
        let servers = vec![ServerNumber(server)];
        self.record.faults.push(FaultSpan {
            from: self.now,
            until,
            servers,
            what: what.into(),
            kind,
        });
    }

    /// An entry of the first server's log names the voters.
    pub(super) fn name_voters(&mut self, log_index: u64, voters: &[&[u8]]) {
        let voters = voters.iter().map(|it| disks(it)).collect();
        self.observe(1, Fact::Configured { log_index, voters });
    }

    pub(super) fn configure(&mut self, voters: &[u8]) {
        let voters: Vec<ServerNumber> = voters.iter().copied().map(ServerNumber).collect();
        for server in &voters {
            self.record.configurations.push(Configuration {
                at: self.now,
                server: *server,
                applied: self.next_log_index - 1,
                voters: voters.clone(),
                learners: vec![],
            });
        }
    }

    /// Appends a command to every log and applies it a millisecond later. Gives its log index.
    pub(super) fn commit(&mut self, command: Command) -> u64 {
        self.append(Some(command))
    }

    fn append(&mut self, command: Option<Command>) -> u64 {
        let (log_index, term) = (self.next_log_index, self.term);
        self.next_log_index += 1;
        let hash = log_index * 1_000 + term;
        let order: Vec<u8> = [self.leader]
            .into_iter()
            .chain((1..=3).filter(|it| *it != self.leader))
            .collect();
        for server in &order {
            self.observe(
                *server,
                Fact::Appended {
                    index: log_index,
                    term,
                    hash,
                },
            );
        }
        self.wait_ms(1);
        let command = command.map(|command| {
            let before = self.state.topics();
            let (reply, changed) = self.state.apply(&command);
            let after = self.state.topics();
            let mut topics: Vec<_> = before
                .keys()
                .chain(after.keys())
                .filter(|it| before.get(it) != after.get(it))
                .cloned()
                .collect();
            topics.sort();
            topics.dedup();
            (
                command,
                Effect {
                    reply,
                    changed,
                    topics,
                },
            )
        });
        let entry = AppliedEntry {
            log_index,
            term,
            hash,
            command,
            index: self.state.index,
            digest: u128::from(log_index),
        };
        order
            .iter()
            .for_each(|server| self.observe(*server, Fact::Applied(Box::new(entry.clone()))));
        log_index
    }

    fn operate(&mut self, server: u8, op: Op, invoked: Time, outcome: Outcome) -> u32 {
        let id = u32::try_from(self.record.operations.len()).expect("a short story");
        let server = ServerNumber(server);
        let returned = self.now;
        let impatient = false;
        self.record.operations.push(Operation {
            streamed: None,
            id,
            client: 0,
            server,
            op,
            impatient,
            invoked,
            returned,
            outcome,
            heard: None,
        });
        self.wait_ms(1);
        id
    }

    fn written(&self) -> Outcome {
        Outcome::Done(Answer {
            index: Some(self.state.index),
            told: None,
            content: None,
            refused: vec![],
        })
    }

    /// Registers an instance of `web` with one TTL check.
    pub(super) fn register(&mut self, id: &str, version: u32) -> u32 {
        let invoked = self.now;
        self.wait_ms(1);
        self.commit(Story::registration(id, version));
        self.operate(1, Story::register_op(id, version), invoked, self.written())
    }

    /// The same with a check that passes from the start.
    pub(super) fn register_passing(&mut self, id: &str, version: u32) -> u32 {
        let invoked = self.now;
        self.wait_ms(1);
        let mut command = Story::registration(id, version);
        let mut op = Story::register_op(id, version);
        if let (Command::Register(registrations), Op::Register { services, .. }) = (&mut command, &mut op) {
            registrations[0].checks[0].status = Some(CheckStatus::Passing);
            services[0].checks[0].status = Some(CheckStatus::Passing);
        }
        self.commit(command);
        self.operate(1, op, invoked, self.written())
    }

    /// The same with a check that takes its instance away when it is critical for so long.
    pub(super) fn register_reaped(&mut self, id: &str, version: u32, after_ms: u64) -> u32 {
        let invoked = self.now;
        self.wait_ms(1);
        let mut command = Story::registration(id, version);
        let mut op = Story::register_op(id, version);
        if let (Command::Register(registrations), Op::Register { services, .. }) = (&mut command, &mut op) {
            let definition = &mut registrations[0].checks[0].definition;
            definition.deregister_critical_service_after = Duration::from_millis(after_ms);
            services[0].checks[0].deregister_after_ms = after_ms;
        }
        self.commit(command);
        self.operate(1, op, invoked, self.written())
    }

    /// The leader takes away the instance of a check as it is now.
    pub(super) fn reap(&mut self, check: &str) {
        let seen = self.check(check).expect("a check of the story");
        self.commit(Command::DeregisterCritical(vec![Expiry {
            check: seen.key(),
            renewals_seen: seen.renewals,
            create_index_seen: seen.create_index,
        }]));
    }

    /// A registration that has this outcome, and no entry.
    pub(super) fn ask_to_register(&mut self, id: &str, version: u32, outcome: Outcome) -> u32 {
        let invoked = self.now;
        self.wait_ms(1);
        self.operate(1, Story::register_op(id, version), invoked, outcome)
    }

    /// A registration that is acknowledged with an index, and has no entry.
    pub(super) fn acknowledge_registration(&mut self, id: &str, version: u32, index: u64) -> u32 {
        let outcome = Outcome::Done(Answer {
            index: Some(index),
            told: None,
            content: None,
            refused: vec![],
        });
        self.ask_to_register(id, version, outcome)
    }

    pub(super) fn deregister(&mut self, id: &str) -> u32 {
        let invoked = self.now;
        self.wait_ms(1);
        let key = InstanceKey {
            namespace: Namespace::default(),
            node: shared(),
            id: instance_id(id),
        };
        self.commit(Command::Deregister(Deregister::Instance { key, service: None }));
        self.operate(
            1,
            Op::Deregister {
                id: id.into(),
                service: None,
            },
            invoked,
            self.written(),
        )
    }

    /// Reports a status; written to the log only if it changes something.
    pub(super) fn report(&mut self, check: &str, status: CheckStatus) -> u32 {
        let invoked = self.now;
        self.wait_ms(1);
        if self.check(check).is_some_and(|it| it.status != status) {
            self.commit(Story::status(check, status));
        }
        self.operate(1, Story::report_op(check, status), invoked, self.written())
    }

    /// Reports an output; the leader holds it back.
    pub(super) fn report_output(&mut self, check: &str, output: &str) -> u32 {
        let invoked = self.now;
        self.wait_ms(1);
        let mut op = Story::report_op(check, CheckStatus::Passing);
        if let Op::Report { reports, .. } = &mut op {
            reports[0].output = Some(output.into());
        }
        self.operate(1, op, invoked, self.written())
    }

    /// The leader writes an output that it has held back.
    pub(super) fn write_output(&mut self, check: &str, output: &str) {
        let mut command = Story::status(check, CheckStatus::Passing);
        if let Command::UpdateChecks(updates) = &mut command {
            updates[0].status = None;
            updates[0].output = Some(output.into());
        }
        self.commit(command);
    }

    /// A report that is acknowledged and has no effect.
    pub(super) fn acknowledge_report(&mut self, check: &str, status: CheckStatus) -> u32 {
        let invoked = self.now;
        self.wait_ms(1);
        self.operate(1, Story::report_op(check, status), invoked, self.written())
    }

    /// The leader expires a check as it is now.
    pub(super) fn expire(&mut self, check: &str) {
        let seen = self.check(check).expect("a check of the story");
        self.commit(Command::ExpireChecks(vec![Expiry {
            check: seen.key(),
            renewals_seen: seen.renewals,
            create_index_seen: seen.create_index,
        }]));
    }

    fn check(&self, id: &str) -> Option<Arc<Check>> {
        self.state
            .checks
            .iter()
            .find(|check| check.id.as_str() == id)
            .cloned()
    }

    fn answer(&self, ask: &Ask) -> Answer {
        // The one place where a story asks the machinery under test: by the record so far.
        let truth = Truth::of(&self.record);
        Answer {
            index: Some(truth.index_at(&ask.topic(), truth.last())),
            told: None,
            content: Some(answer(&self.state, ask)),
            refused: vec![],
        }
    }

    pub(super) fn read(&mut self, server: u8, ask: Ask, freshness: Freshness) -> u32 {
        let invoked = self.now;
        self.wait_ms(1);
        let answer = self.answer(&ask);
        self.operate(
            server,
            Op::Read { ask, freshness },
            invoked,
            Outcome::Done(answer),
        )
    }

    /// A read that gets the answer of an older one.
    pub(super) fn answer_again(&mut self, server: u8, ask: Ask, freshness: Freshness, older: u32) -> u32 {
        let read = self.read(server, ask, freshness);
        self.copy_answer(older, read);
        read
    }

    /// A blocking query that is answered with what is there now.
    pub(super) fn wait_for(&mut self, server: u8, ask: Ask, index: u64, wait_ms: u64) -> u32 {
        let invoked = self.now;
        self.wait_ms(1);
        let answer = self.answer(&ask);
        let op = Op::Wait {
            ask,
            freshness: Freshness::Default,
            index,
            wait_ms,
        };
        self.operate(server, op, invoked, Outcome::Done(answer))
    }

    /// An event of a stream, behind the one of an operation before, if there is one: what is there now, sent a moment
    /// after it was waited for.
    pub(super) fn event(&mut self, server: u8, ask: Ask, index: u64, before: Option<u32>) -> u32 {
        let id = self.wait_for(server, ask, index, STREAMED_MS);
        let (arrived, invoked) = (self.now, self.operation(id).invoked);
        let opened = before.and_then(|before| Some(self.operation(before).streamed.as_ref()?.opened));
        let nth = before.and_then(|before| Some(self.operation(before).streamed.as_ref()?.nth + 1));
        self.operation(id).streamed = Some(Streamed {
            nth: nth.unwrap_or(0),
            before,
            arrived,
            room: Time(0),
            opened: opened.unwrap_or(invoked),
            spoke: invoked,
            unchanged: Vec::new(),
        });
        id
    }

    /// The client leaves a stream instead, so much later.
    pub(super) fn leaves(&mut self, id: u32, after_ms: u64) {
        self.stretch(id, 0, after_ms);
        let operation = self.operation(id);
        let returned = operation.returned;
        operation.outcome = Outcome::Unknown(LEFT.into());
        if let Some(streamed) = &mut operation.streamed {
            streamed.arrived = returned;
        }
    }

    pub(super) fn operation(&mut self, id: u32) -> &mut Operation {
        &mut self.record.operations[id as usize]
    }

    pub(super) fn set_outcome(&mut self, id: u32, outcome: Outcome) {
        self.operation(id).outcome = outcome;
    }

    pub(super) fn change_answer(&mut self, id: u32, change: impl FnOnce(&mut Answer)) {
        match &mut self.operation(id).outcome {
            Outcome::Done(answer) => change(answer),
            other => panic!("operation {id} has no answer but {other:?}"),
        }
    }

    /// Lets an answer say this of its freshness.
    pub(super) fn tell(&mut self, id: u32, known_leader: bool, last_contact_ms: u64, consistency: &str) {
        let told = Told {
            known_leader,
            last_contact: Duration::from_millis(last_contact_ms),
            consistency: consistency.to_owned(),
            kept: None,
        };
        self.change_answer(id, |answer| answer.told = Some(told));
    }

    pub(super) fn copy_answer(&mut self, from: u32, to: u32) {
        self.operation(to).outcome = self.operation(from).outcome.clone();
    }

    pub(super) fn index_of(&mut self, id: u32) -> Option<u64> {
        self.operation(id).answer().and_then(|answer| answer.index)
    }

    /// Lets an operation begin so much earlier and end so much later.
    pub(super) fn stretch(&mut self, id: u32, earlier_ms: u64, later_ms: u64) {
        let operation = self.operation(id);
        operation.invoked = operation.invoked - Duration::from_millis(earlier_ms);
        operation.returned = operation.returned + Duration::from_millis(later_ms);
        let returned = operation.returned;
        self.record.ended = self.record.ended.max(returned);
    }

    /// Lets an operation begin and end at these milliseconds.
    pub(super) fn move_to(&mut self, id: u32, invoked_ms: u64, returned_ms: u64) {
        let operation = self.operation(id);
        (operation.invoked, operation.returned) = (Time::ms(invoked_ms), Time::ms(returned_ms));
        self.record.ended = self.record.ended.max(Time::ms(returned_ms));
    }

    pub(super) fn change_last_applied(&mut self, server: u8, change: impl FnOnce(&mut AppliedEntry)) {
        let last = self
            .record
            .observations
            .iter_mut()
            .rev()
            .find_map(|seen| match &mut seen.what {
                Fact::Applied(entry) if seen.server == ServerNumber(server) => Some(entry),
                _ => None,
            });
        change(last.expect("the server applied something"));
    }

    /// Nobody saw when an entry was applied: only that it was between these milliseconds.
    pub(super) fn unseen(&mut self, log_index: u64, earliest_ms: u64, latest_ms: u64) {
        for seen in &mut self.record.observations {
            match &seen.what {
                Fact::Applied(entry) if entry.log_index == log_index => seen.at = Time::ms(latest_ms),
                Fact::Appended { index, .. } if *index == log_index => seen.at = Time::ms(earliest_ms),
                _ => {}
            }
        }
        self.record.earliest.insert(log_index, Time::ms(earliest_ms));
        self.record.ended = self.record.ended.max(Time::ms(latest_ms));
    }

    /// Changes what every server made of an entry.
    pub(super) fn change_effect(&mut self, log_index: u64, change: impl Fn(&mut Effect)) {
        for seen in &mut self.record.observations {
            if let Fact::Applied(entry) = &mut seen.what
                && entry.log_index == log_index
                && let Some((_, effect)) = &mut entry.command
            {
                change(effect);
            }
        }
    }

    /// As if the server had never applied this entry.
    pub(super) fn forget_applied(&mut self, server: u8, log_index: u64) {
        self.record.observations.retain(|seen| {
            !matches!(&seen.what, Fact::Applied(entry) if entry.log_index == log_index
                && seen.server == ServerNumber(server))
        });
    }
}

fn shared() -> NodeName {
    NodeName::parse(SHARED_NODE).expect("a valid name")
}

fn instance_id(id: &str) -> InstanceId {
    InstanceId::parse(id).expect("a valid id")
}
