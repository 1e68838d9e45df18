//! What clients do with keys, sessions and transactions in a story.

use std::{collections::BTreeMap, time::Duration};

use serde_json::json;
use sider_core::registry::{
    self, CheckId, Command, Key, LockDelayEnd, Node, NodeName, Refusal, Reply, Session, SessionBehavior,
    SessionExpiry, SessionId,
};

use super::{SHARED, Story};
use crate::{
    catalog_steps::Given,
    content::Content,
    history::{Answer, Outcome},
    keys::{KeyOp, NewSession, SessionSeen, Step},
    operation::Op,
};

impl Story {
    /// A client does this, and is told what came of it.
    pub(in crate::invariants) fn keys(&mut self, op: KeyOp) -> u32 {
        let invoked = self.now;
        self.wait_ms(1);
        let outcome = match &op {
            KeyOp::Transact(steps) if !op.is_logged() => {
                let operations: Vec<_> = steps.iter().map(Step::operation).collect();
                match self.state.evaluate(&operations) {
                    Ok(results) => self.told(Content::Given(Given::all_of(&results))),
                    Err(_) => refused(409),
                }
            }
            KeyOp::RenewSession { session } => match self.state.session(&session_id(session)) {
                Some(found) => {
                    let seen = SessionSeen::of(found);
                    self.told(Content::Sessions(vec![seen]))
                }
                None => refused(404),
            },
            op => self.write(op),
        };
        self.operate(1, Op::Keys(op), invoked, outcome)
    }

    fn write(&mut self, op: &KeyOp) -> Outcome {
        let (command, created) = command(op);
        let reply = self.state.clone().apply(&command).0;
        self.commit(command);
        match (op, reply) {
            (KeyOp::Transact(_), Ok(Reply::Transacted(results))) => {
                self.told(Content::Given(Given::all_of(&results)))
            }
            (KeyOp::CreateSession(_), Ok(_)) => self.told(Content::Created(created)),
            (KeyOp::One(_), Err(Refusal::Aborted(_))) => self.told(Content::Flag(false)),
            (_, Ok(_)) => self.told(Content::Flag(true)),
            (_, Err(Refusal::Aborted(errors))) => {
                let errors: Vec<_> = errors
                    .iter()
                    .map(|error| json!({ "OpIndex": error.place, "What": error.refusal.to_string() }))
                    .collect();
                Outcome::Refused {
                    status: 409,
                    reason: json!({ "Results": null, "Errors": errors }).to_string(),
                }
            }
            (_, Err(_)) => refused(409),
        }
    }

    fn told(&self, content: Content) -> Outcome {
        Outcome::Done(Answer {
            told: None,
            index: Some(self.state.index.max(1)),
            content: Some(content),
            refused: vec![],
        })
    }

    /// A client creates a session; gives its id. A time of 0 is none.
    pub(in crate::invariants) fn session(&mut self, name: &str, ttl_ms: u64, lock_delay_ms: u64) -> String {
        self.keys(KeyOp::CreateSession(NewSession {
            name: name.into(),
            ttl_ms,
            lock_delay_ms,
            deletes: false,
            checks: vec![],
            service_checks: vec![],
            node: String::new(),
        }));
        id_of(name)
    }

    /// The leader ends a session as it is now.
    pub(in crate::invariants) fn expire_session(&mut self, id: &str) {
        let session = session_id(id);
        let renewals_seen = self
            .state
            .session(&session)
            .expect("a session of the story")
            .renewals;
        self.commit(Command::ExpireSessions(vec![SessionExpiry {
            session,
            renewals_seen,
        }]));
    }

    /// The leader lets a lock be taken again.
    pub(in crate::invariants) fn end_lock_delay(&mut self, key: &str) {
        let key: Key = crate::keys::key(key);
        let since_seen = self.state.delays().get(&key).expect("a delay of the story").1;
        self.commit(Command::EndLockDelays(vec![LockDelayEnd { key, since_seen }]));
    }

    pub(in crate::invariants) fn outcome_of(&mut self, id: u32) -> Outcome {
        self.operation(id).outcome.clone()
    }

    pub(in crate::invariants) fn answer_of(&mut self, id: u32) -> Answer {
        self.operation(id).answer().expect("it was acknowledged").clone()
    }
}

fn refused(status: u16) -> Outcome {
    Outcome::Refused {
        status,
        reason: "refused".into(),
    }
}

fn id_of(name: &str) -> String {
    format!("id-of-{name}")
}

fn session_id(id: &str) -> SessionId {
    SessionId::parse(id).expect("a valid id")
}

/// What a server makes of a request, and the id of the session that it creates.
fn command(op: &KeyOp) -> (Command, String) {
    let steps = |steps: &[Step]| Command::Transact(steps.iter().map(Step::operation).collect());
    match op {
        KeyOp::One(step) => (steps(std::slice::from_ref(step)), String::new()),
        KeyOp::Transact(all) => (steps(all), String::new()),
        KeyOp::DestroySession { session } => (Command::DestroySession(session_id(session)), String::new()),
        KeyOp::RenewSession { session } => (Command::RenewSessions(vec![session_id(session)]), String::new()),
        KeyOp::CreateSession(new) => {
            let id = id_of(&new.name);
            let node = NodeName::parse(SHARED).expect("a valid name");
            let checks = new.checks.iter();
            let session = Session {
                id: session_id(&id),
                name: new.name.clone(),
                node: node.clone(),
                lock_delay: Duration::from_millis(new.lock_delay_ms),
                behavior: match new.deletes {
                    true => SessionBehavior::Delete,
                    false => SessionBehavior::Release,
                },
                ttl: (new.ttl_ms > 0).then(|| Duration::from_millis(new.ttl_ms)),
                ttl_text: format!("{}ms", new.ttl_ms),
                node_checks: checks
                    .map(|check| CheckId::parse(check).expect("a valid id"))
                    .collect(),
                service_checks: vec![],
                renewals: 0,
                create_index: 0,
                modify_index: 0,
            };
            let node = Node {
                name: node,
                id: String::new(),
                address: "127.0.0.1".into(),
                tagged_addresses: BTreeMap::new(),
                meta: BTreeMap::new(),
                create_index: 0,
                modify_index: 0,
                locality: None,
            };
            let node = Some(node);
            (
                Command::CreateSession(Box::new(registry::NewSession { session, node })),
                id,
            )
        }
    }
}
