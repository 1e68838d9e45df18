//! Simulated clients: they send real HTTP requests, wait as long as they like, and write down what they see.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use sider_core::api::http::FROM_AN_AGENT;
use sider_runtime_sim::World;

use crate::{
    cluster::Client,
    forwarding,
    history::{Outcome, ServerNumber},
    keys::Notes,
    operation::{Apart, Op, RegisterForm, Service},
    promised::WAIT_SPREAD_DIVISOR,
    recorder::Recorder,
    schedule::{Action, Doing},
    streams::StreamReader,
    time::Time,
    wire,
};

/// Between two tries of the same request at a server that does not serve yet.
const RETRY: Duration = Duration::from_millis(150);
/// After a failed blocking query, or a stream that failed, a client takes a breath.
pub(crate) const BREATH: Duration = Duration::from_millis(100);

/// A client and what it writes into.
#[derive(Clone)]
pub struct Player {
    /// The world.
    pub world: World,
    /// The client's number.
    pub number: u8,
    /// Its machine.
    pub client: Client,
    /// Where it writes.
    pub recorder: Recorder,
    /// Where it keeps snapshots.
    pub files: Files,
    /// What clients tell each other.
    pub notes: Notes,
}

/// The snapshot that was saved last by any client. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Files(Arc<Mutex<Option<Bytes>>>);

impl Files {
    /// Keeps a file in place of the one before.
    pub fn keep(&self, file: Bytes) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(file);
    }

    /// The file that was kept last.
    pub fn last(&self) -> Option<Bytes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Player {
    /// Waits for the time of an action, and carries it out.
    pub async fn act(self, action: Action) {
        sleep_until(&self.world, Time::ms(action.at_ms)).await;
        let patience = Duration::from_millis(action.patience_ms);
        match action.what {
            Doing::Chain(ops) => {
                for (server, op) in ops {
                    if matches!(op, Op::Restore { .. }) && self.files.last().is_none() {
                        continue;
                    }
                    self.perform(server, op, patience).await;
                }
            }
            Doing::Follow {
                ask,
                freshness,
                wait_ms,
                until_ms,
                servers,
            } => {
                let (mut index, mut asked) = (0, ask.clone());
                for server in servers.iter().cycle() {
                    if self.world.now() >= Duration::from_millis(until_ms) {
                        return;
                    }
                    let mut op = self.notes.resolve(Op::Wait {
                        ask: ask.clone(),
                        freshness,
                        index,
                        wait_ms,
                    });
                    // A name that stands for another session now: what was seen of the one before says nothing of it.
                    if let Op::Wait { ask, index, .. } = &mut op
                        && *ask != asked
                    {
                        asked.clone_from(ask);
                        *index = 0;
                    }
                    match self.perform(*server, op, patience).await {
                        Outcome::Done(answer) => index = answer.index.unwrap_or(index),
                        _ => self.world.sleep(BREATH).await,
                    }
                }
            }
            Doing::Stream {
                ask,
                freshness,
                silence_ms,
                slowness_ms,
                until_ms,
                servers,
            } => {
                let reader = StreamReader {
                    player: self,
                    ask,
                    freshness,
                    patience,
                    silence: Duration::from_millis(silence_ms),
                    slowness: Duration::from_millis(slowness_ms),
                    until: Duration::from_millis(until_ms),
                };
                reader.read(&servers).await;
            }
        }
    }

    /// Sends one request and writes down what came of it.
    pub async fn perform(&self, server: u8, op: Op, patience: Duration) -> Outcome {
        let op = self.notes.resolve(op);
        let understood = forwarding::understood(server, &op);
        let id = self
            .recorder
            .invoked(&self.world, self.number, server, &understood, patience);
        let wait = match &op {
            Op::Wait { wait_ms, .. } => Duration::from_millis(*wait_ms),
            Op::AgentRead(ask) => ask.wait(),
            _ => Duration::ZERO,
        };
        let limit = wait + wait / WAIT_SPREAD_DIVISOR + patience;
        let mut request = match (&op, self.files.last()) {
            (Op::Restore { damage }, Some(file)) => wire::restore(damage.done_to(&file)),
            _ => wire::request(&op),
        };
        if ServerNumber(server).agent().is_some() {
            // It says itself which node it is of.
            request.headers_mut().remove(FROM_AN_AGENT);
        }
        let answer = self.client.send_to(server, request, limit).await;
        if let (Op::Save, Ok(answer)) = (&op, &answer)
            && answer.status().is_success()
        {
            self.files.keep(answer.body().clone());
        }
        let answer = match op {
            Op::Cluster(_) => answer.map(|it| it.map(|body| self.client.with_names(&body))),
            _ => answer,
        };
        let outcome = wire::outcome(&op, answer);
        self.notes.take(&op, &outcome);
        let heard = match ServerNumber(server).agent() {
            Some(_) => None,
            None => Some(self.client.heard_by(usize::from(server))),
        };
        self.recorder.returned(&self.world, id, outcome.clone(), heard);
        outcome
    }

    /// Tries a write and a linearizable read at one server until both succeed, or time is over.
    pub async fn prove_alive(self, server: u8, until: Time) {
        let mut version = 1_000_000 + u32::from(server) * 1_000;
        // Short: a request that was on its way to the old leader when everything was healed says nothing of the new one.
        let patience = Duration::from_millis(1_500);
        while self.world.now() < until.since(Time(0)) {
            version += 1;
            let service = Service {
                name: "alive".into(),
                id: format!("alive-{server}"),
                port: 1,
                tags: vec![],
                version,
                apart: Apart::Nothing,
                checks: vec![],
            };
            let op = Op::Register {
                form: RegisterForm::Short,
                services: vec![service],
            };
            if let Outcome::Done(_) = self.perform(server, op, patience).await {
                break;
            }
            self.world.sleep(RETRY).await;
        }
        while self.world.now() < until.since(Time(0)) {
            let op = Op::Read {
                ask: crate::operation::Ask::Services,
                freshness: crate::operation::Freshness::Default,
            };
            if let Outcome::Done(_) = self.perform(server, op, patience).await {
                return;
            }
            self.world.sleep(RETRY).await;
        }
    }
}

/// Sleeps until a time of the run.
pub async fn sleep_until(world: &World, at: Time) {
    world.sleep(at.since(crate::recorder::now(world))).await;
}
