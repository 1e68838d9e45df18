//! A perfect cluster whose clients overlap as much as they can, seen from outside only: whatever it does, nobody is to
//! complain; and when it does one thing wrong, somebody is.

use std::time::Duration;

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde_json::json;
use sider_core::registry::{
    CheckKey, CheckStatus, CheckTarget, Command, InstanceId, InstanceKey, Namespace, NodeName, Refusal,
    Registry, Reply,
};

use super::{
    evidence::{Evidence, JUDGES, history},
    moments::Clock,
};
use crate::{
    answers::answer,
    catalog_steps::Given,
    content::Content,
    history::{Answer, Operation, Outcome, ServerNumber},
    invariants::{Violation, story::Story},
    keys::{KeyOp, Step},
    matching::SHARED_NODE,
    model::State,
    operation::{Ask, Freshness, Op, ReportForm, Target},
    time::Time,
};

const BEGAN_MS: u64 = 1_700_000_000_000;

/// What a perfect cluster did.
struct Perfect {
    dice: StdRng,
    now: Time,
    registry: Registry,
    state: State,
    log: Vec<(u64, Command)>,
    operations: Vec<Operation>,
    /// Of each question, after each entry: index and content.
    shown: Vec<Vec<(u64, Content)>>,
    /// How many entries each server has applied, as far as it has told.
    reached: [usize; 3],
    written: u32,
}

fn asks() -> Vec<Ask> {
    let health = |passing| Ask::Health {
        service: "web".into(),
        passing,
        tags: vec![],
    };
    vec![
        health(false),
        health(true),
        Ask::Key("k0".into()),
        Ask::KeyTree("k".into()),
    ]
}

impl Perfect {
    fn run(seed: u64, steps: usize) -> Perfect {
        let mut perfect = Perfect {
            dice: StdRng::seed_from_u64(seed),
            now: Time::ms(100),
            registry: Registry::default(),
            state: State::default(),
            log: Vec::new(),
            operations: Vec::new(),
            shown: Vec::new(),
            reached: [0; 3],
            written: 0,
        };
        perfect.show();
        for _ in 0..steps {
            perfect.now = perfect.now + perfect.up_to_us(3_000);
            perfect.step();
        }
        perfect
    }

    fn up_to_us(&mut self, most: u64) -> Duration {
        Duration::from_micros(self.dice.random_range(0..most))
    }

    fn show(&mut self) {
        let shown = asks().into_iter().map(|ask| {
            let index = self.registry.version(&ask.topic()).index;
            (index, answer(&self.state, &ask))
        });
        self.shown.push(shown.collect());
    }

    /// One request, carried out now; it may have been sent long ago, and be answered long after.
    fn step(&mut self) {
        let proposed = self.now - self.up_to_us(8_000);
        let invoked = proposed - self.up_to_us(25_000);
        let mut returned = self.now + self.up_to_us(25_000);
        let server = self.dice.random_range(0..3);
        let (op, mut outcome) = match self.dice.random_range(0..10) {
            0 | 1 => self.register(proposed),
            2 | 3 => self.report(proposed),
            4..=6 => self.keys(proposed),
            _ => self.read(server),
        };
        if matches!(outcome, Outcome::Done(_)) && self.dice.random_range(0..10) == 0 {
            outcome = Outcome::Unknown("timed out".into());
            returned = invoked + self.up_to_us(30_000);
        }
        self.operations.push(Operation {
            id: u32::try_from(self.operations.len()).expect("a short run"),
            client: self.dice.random_range(0..6),
            server: ServerNumber(u8::try_from(server).expect("a small number")),
            op,
            impatient: true,
            invoked,
            returned,
            outcome,
            heard: None,
            streamed: None,
        });
    }

    fn write(&mut self, proposed: Time, command: Command) -> Result<Reply, Refusal> {
        let reply = self.registry.apply(&command).reply;
        let _ = self.state.apply(&command);
        self.log.push((BEGAN_MS + proposed.0 / 1_000_000, command));
        self.show();
        reply
    }

    fn done(&mut self, content: Option<Content>) -> Outcome {
        let index = self.registry.index().max(1);
        Outcome::Done(Answer {
            // Not every answer bears one.
            index: (self.dice.random_range(0..3) > 0).then_some(index),
            told: None,
            content,
            refused: vec![],
        })
    }

    fn register(&mut self, proposed: Time) -> (Op, Outcome) {
        self.written += 1;
        let id = format!("web-{}", self.dice.random_range(0..2));
        self.write(proposed, Story::registration(&id, self.written))
            .expect("it is registered");
        (Story::register_op(&id, self.written), self.done(None))
    }

    /// A status of a check, or of all checks of an instance; written only if it changes something, or now and then.
    fn report(&mut self, proposed: Time) -> (Op, Outcome) {
        let id = format!("web-{}", self.dice.random_range(0..2));
        let check = format!("chk:{id}:0");
        let whole = self.dice.random_range(0..2) == 0;
        let status = match self.dice.random_range(0..2) {
            0 if !whole => CheckStatus::Critical,
            _ => CheckStatus::Passing,
        };
        let (mut op, mut command) = (Story::report_op(&check, status), Story::status(&check, status));
        if let (Op::Report { form, reports }, Command::UpdateChecks(updates), true) =
            (&mut op, &mut command, whole)
        {
            *form = ReportForm::Heartbeat;
            reports[0].target = Target::Instance(id.clone());
            updates[0].target = CheckTarget::TtlChecksOf(InstanceKey {
                namespace: Namespace::default(),
                node: NodeName::parse(SHARED_NODE).expect("a valid name"),
                id: InstanceId::parse(&id).expect("a valid id"),
            });
        }
        let key = CheckKey {
            namespace: Namespace::default(),
            node: NodeName::parse(SHARED_NODE).expect("a valid name"),
            id: sider_core::registry::CheckId::parse(&check).expect("a valid id"),
        };
        let Some(now) = self.registry.check(&key).map(|check| check.status) else {
            let reason = "there is none".into();
            return (op, Outcome::Refused { status: 404, reason });
        };
        if now != status || self.dice.random_range(0..3) == 0 {
            self.write(proposed, command).expect("a reply to each");
        }
        (op, self.done(None))
    }

    /// Few keys and few values, so that many ask for the same.
    fn keys(&mut self, proposed: Time) -> (Op, Outcome) {
        let key = format!("k{}", self.dice.random_range(0..2));
        let value = format!("v{}", self.dice.random_range(0..2));
        let get = Step::Get(key.clone());
        let op = match self.dice.random_range(0..6) {
            0 | 1 => KeyOp::One(Step::Set(key, value)),
            2 => KeyOp::One(Step::SetIf(key, value, 0)),
            3 => KeyOp::One(Step::Delete(key)),
            4 => KeyOp::Transact(vec![Step::Set(key, value), get]),
            _ => KeyOp::Transact(vec![get]),
        };
        let steps = match &op {
            KeyOp::One(step) => vec![step.operation()],
            KeyOp::Transact(steps) => steps.iter().map(Step::operation).collect(),
            _ => unreachable!("none of the others is drawn"),
        };
        let refused = || Outcome::Refused {
            status: 409,
            reason: "aborted".into(),
        };
        let outcome = if op.is_logged() {
            match (&op, self.write(proposed, Command::Transact(steps))) {
                (KeyOp::One(_), reply) => self.done(Some(Content::Flag(reply.is_ok()))),
                (_, Ok(Reply::Transacted(results))) => {
                    self.done(Some(Content::Given(Given::all_of(&results))))
                }
                (_, reply) => panic!("{reply:?}"),
            }
        } else {
            match self.state.evaluate(&steps) {
                Ok(results) => self.done(Some(Content::Given(Given::all_of(&results)))),
                Err(_) => refused(),
            }
        };
        (Op::Keys(op), outcome)
    }

    fn read(&mut self, server: usize) -> (Op, Outcome) {
        let stale = self.dice.random_range(0..3) == 0;
        let last = self.log.len();
        let reached = match stale {
            true => self.dice.random_range(self.reached[server]..=last),
            false => last,
        };
        self.reached[server] = reached;
        let nth = self.dice.random_range(0..asks().len());
        let (index, content) = self.shown[reached][nth].clone();
        let answer = Answer {
            index: Some(index),
            told: None,
            content: Some(content),
            refused: vec![],
        };
        let freshness = if stale {
            Freshness::Stale
        } else {
            Freshness::Default
        };
        (
            Op::Read {
                ask: asks().swap_remove(nth),
                freshness,
            },
            Outcome::Done(answer),
        )
    }

    /// What everybody is left with who was not inside.
    fn judged(&self) -> Vec<Violation> {
        let mut lines = vec!["{}".to_owned()];
        for (index, (proposed_ms, command)) in (1..).zip(&self.log) {
            let bytes = command.encode(Command::NEWEST_VERSION, *proposed_ms);
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            lines.push(
                json!({ "index": index, "term": 1, "hash": format!("{index:x}"), "bytes": hex }).to_string(),
            );
        }
        let ended = self.now + Duration::from_secs(1);
        let evidence = Evidence {
            clock: Clock::exact(BEGAN_MS),
            ended_ns: ended.0,
            stats: vec![json!({ "applied_index": self.log.len() }); 3],
            operations: vec![],
            faults: vec![],
            starts: vec![],
            ended: vec![],
            panics: vec![],
            logs: vec![lines.join("\n"); 3],
        };
        let history = history(&evidence, self.operations.clone()).expect("it can be judged");
        JUDGES.iter().filter_map(|judge| judge(&history).err()).collect()
    }

    /// The entry of an acknowledged registration, and its operation; each has a version of its own.
    fn registrations(&self) -> Vec<(usize, usize)> {
        let entry_of = |(nth, operation): (usize, &Operation)| {
            let Op::Register { services, .. } = &operation.op else {
                return None;
            };
            let command = Story::registration(&services[0].id, services[0].version);
            let entry = self.log.iter().position(|(_, it)| *it == command)?;
            operation.is_done().then_some((entry, nth))
        };
        self.operations.iter().enumerate().filter_map(entry_of).collect()
    }
}

const RUNS: u64 = 150;
const STEPS: usize = 60;

#[test]
fn whatever_a_perfect_cluster_does_is_fine() {
    for seed in 0..RUNS {
        let judged = Perfect::run(seed, STEPS).judged();
        assert!(judged.is_empty(), "seed {seed}: {judged:#?}");
    }
}

#[test]
fn a_lost_write_is_missed() {
    for seed in 0..RUNS {
        let mut perfect = Perfect::run(seed, STEPS);
        let Some((entry, _)) = perfect.registrations().first().copied() else {
            continue;
        };
        // Something takes its place that nobody can have noticed.
        let nothing = Command::ExpireChecks(vec![]);
        perfect.log[entry].1 = nothing;
        assert!(!perfect.judged().is_empty(), "seed {seed}");
    }
}

#[test]
fn what_is_done_twice_is_noticed() {
    for seed in 0..RUNS {
        let mut perfect = Perfect::run(seed, STEPS);
        let Some((entry, _)) = perfect.registrations().last().copied() else {
            continue;
        };
        let again = perfect.log[entry].clone();
        perfect.log.push(again);
        let judged = perfect.judged();
        assert!(
            judged.iter().any(|it| it.invariant == "exactly_once"),
            "seed {seed}: {judged:#?}"
        );
    }
}

#[test]
fn a_status_that_is_written_late_is_noticed() {
    let mut tried = 0;
    for seed in 0..RUNS {
        let mut perfect = Perfect::run(seed, STEPS);
        // All that reports said is known, and over.
        let statuses = perfect
            .operations
            .iter_mut()
            .filter(|it| matches!(it.op, Op::Report { .. }));
        for operation in statuses.filter(|it| matches!(it.outcome, Outcome::Unknown(_))) {
            operation.outcome = Outcome::Failed("No cluster leader".into());
        }
        let sound = perfect.judged().is_empty();
        let written = perfect
            .log
            .iter()
            .find(|(_, it)| matches!(it, Command::UpdateChecks(_)));
        let (true, Some((_, again))) = (sound, written.cloned()) else {
            continue;
        };
        let late = perfect.now + Duration::from_millis(100);
        perfect.log.push((BEGAN_MS + late.0 / 1_000_000, again));
        let judged = perfect.judged();
        assert!(
            judged.iter().any(|it| it.invariant == "exactly_once"),
            "seed {seed}: {judged:#?}"
        );
        tried += 1;
    }
    assert!(tried > 20, "only {tried}");
}

#[test]
fn an_answer_of_the_past_is_noticed() {
    let mut tried = 0;
    for seed in 0..RUNS {
        let mut perfect = Perfect::run(seed, STEPS);
        let health = asks().swap_remove(0);
        let reads = |operation: &Operation| {
            let asked = operation.op.asked() == Some((&health, Freshness::Default));
            asked && operation.is_done()
        };
        // The last read is sent when a registration is over that it shows, and gets what was there at the beginning.
        let registrations = perfect.registrations();
        let last = perfect.operations.iter().rposition(reads);
        let Some(last) = last else { continue };
        let invoked = perfect.operations[last].invoked;
        let over = |(_, nth): &(usize, usize)| perfect.operations[*nth].returned < invoked;
        if !registrations.iter().any(over) {
            continue;
        }
        let (index, content) = perfect.shown[0][0].clone();
        let old = Answer {
            index: Some(index),
            told: None,
            content: Some(content),
            refused: vec![],
        };
        perfect.operations[last].outcome = Outcome::Done(old);
        let judged = perfect.judged();
        assert!(
            judged.iter().any(|it| it.invariant == "linearizability"),
            "seed {seed}: {judged:#?}"
        );
        tried += 1;
    }
    assert!(tried > 20, "only {tried}");
}

#[test]
fn a_wrong_answer_to_a_write_is_noticed() {
    let mut tried = 0;
    for seed in 0..RUNS {
        let mut perfect = Perfect::run(seed, STEPS);
        let set = |operation: &&mut Operation| {
            matches!(&operation.op, Op::Keys(KeyOp::One(Step::Set(..)))) && operation.is_done()
        };
        // To set a key never fails, whoever else does so.
        let Some(operation) = perfect.operations.iter_mut().find(set) else {
            continue;
        };
        if let Outcome::Done(answer) = &mut operation.outcome {
            answer.content = Some(Content::Flag(false));
        }
        let judged = perfect.judged();
        assert!(
            judged.iter().any(|it| it.invariant == "transactions"),
            "seed {seed}: {judged:#?}"
        );
        tried += 1;
    }
    assert!(tried > 20, "only {tried}");
}
