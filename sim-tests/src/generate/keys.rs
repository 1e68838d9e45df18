//! Draws what clients do with keys, sessions and transactions.

use super::{
    BEGIN_MS, Dice,
    work::{NODES, Plan},
};
use crate::{
    keys::{KeyOp, LAST_SEEN, NewSession, SESSION_TTLS, Step},
    matching::SHARED_NODE,
    operation::{Ask, CatalogEntry, Freshness, Op},
};

/// One goes on with the byte behind the slash where others have theirs: it lies in none of their directories.
const KEYS: [&str; 6] = ["k", "k/a", "k/b", "k/b/c", "k0", "lock"];
const PREFIXES: [&str; 5] = ["", "k", "k/", "k/b", "lo"];

impl Plan<'_> {
    /// Sessions that compete for a lock, each kept alive for a while.
    pub(super) fn lockers(&mut self) {
        for number in 0..self.dice.between(1, 4) {
            let name = format!("locker-{number}");
            let ttl_ms = *self.dice.pick(&[0, 500, 750, 1_250]) * self.pace.stretch;
            let lasts_ms = ttl_ms * u64::from(SESSION_TTLS);
            let new = self.new_session(name.clone(), ttl_ms);
            let mut at_ms = self.dice.between(BEGIN_MS, BEGIN_MS + 1_500);
            let lock = |plan: &mut Self| {
                let value = plan.value();
                Op::Keys(KeyOp::One(Step::Lock("lock".into(), value, name.clone())))
            };
            let first = lock(self);
            self.chain(at_ms, vec![Op::Keys(KeyOp::CreateSession(new)), first]);
            let until = self.dice.between(3_000, self.pace.heal_ms);
            let step = if ttl_ms == 0 {
                900 * self.pace.stretch
            } else {
                lasts_ms * 2 / 3
            };
            let mut left = 12;
            // Some come too late by a hair: while the session expires.
            let late = ttl_ms > 0 && self.dice.chance(25);
            while at_ms < until && left > 0 {
                at_ms += match late {
                    true => lasts_ms + self.dice.between(0, 150),
                    false => step,
                };
                left -= 1;
                let session = name.clone();
                let mut ops = vec![Op::Keys(KeyOp::RenewSession { session })];
                if self.dice.chance(60) {
                    ops.push(lock(self));
                }
                if self.dice.chance(25) {
                    let value = self.value();
                    let step = Step::Unlock("lock".into(), value, name.clone());
                    ops.push(Op::Keys(KeyOp::One(step)));
                }
                self.chain(at_ms, ops);
            }
        }
    }

    fn new_session(&mut self, name: String, ttl_ms: u64) -> NewSession {
        let bound = match self.dice.chance(25) {
            true => {
                let planned = self.some_known();
                let checks = planned.service.check_ids(planned.form);
                checks.into_iter().take(1).collect()
            }
            false => vec![],
        };
        let of_node = bound.is_empty() && self.dice.chance(15);
        self.sessions.push(name.clone());
        if of_node {
            return self.session_on_a_node(name, ttl_ms);
        }
        let (checks, service_checks) = match self.dice.chance(50) {
            true => (bound, vec![]),
            false => (vec![], bound),
        };
        NewSession {
            name,
            ttl_ms,
            lock_delay_ms: *self.dice.pick(&[0, 0, 300, 1_500]) * self.pace.stretch,
            deletes: self.dice.chance(30),
            checks,
            service_checks,
            node: String::new(),
        }
    }

    /// A session that lives and dies with a node of the catalog, and perhaps with a check of it or of its instance.
    fn session_on_a_node(&mut self, name: String, ttl_ms: u64) -> NewSession {
        let bound = |is_bound: bool, check: &str| is_bound.then(|| check.to_owned()).into_iter().collect();
        NewSession {
            name,
            ttl_ms,
            lock_delay_ms: *self.dice.pick(&[0, 300, 1_500]) * self.pace.stretch,
            deletes: self.dice.chance(50),
            checks: bound(self.dice.chance(25), "ping"),
            service_checks: bound(self.dice.chance(25), "db-check"),
            node: (*self.dice.pick(&NODES)).to_owned(),
        }
    }

    /// A node, a session that lives with it and holds a lock, and perhaps the node's end.
    pub(super) fn session_of_a_node(&mut self, at_ms: u64) {
        let name = format!("session-{}", self.version());
        let new = NewSession {
            checks: vec![],
            service_checks: vec![],
            ..self.session_on_a_node(name.clone(), 0)
        };
        self.sessions.push(name.clone());
        let node = new.node.clone();
        let register = Op::CatalogRegister(CatalogEntry {
            node: node.clone(),
            address: "10.1.1.1".to_owned(),
            service: None,
            check: None,
            check_of: None,
            node_id: String::new(),
            rack: None,
            spoils: None,
            keeps_node: false,
            elsewhere: false,
        });
        let lock = Step::Lock((*self.dice.pick(&KEYS)).to_owned(), self.value(), name);
        let create = Op::Keys(KeyOp::CreateSession(new));
        self.chain(at_ms, vec![register, create, Op::Keys(KeyOp::One(lock))]);
        if self.dice.chance(70) {
            let deregister = Op::CatalogDeregister {
                node: node.clone(),
                service_id: None,
                check_id: None,
            };
            let look = Op::Read {
                ask: Ask::SessionsOf(node),
                freshness: Freshness::Default,
            };
            let later = at_ms + self.dice.between(50, 1_500);
            self.chain(later, vec![deregister, look]);
        }
    }

    /// A session takes a lock and ends without giving it back: for a while nobody can take it.
    pub(super) fn lock_left_behind(&mut self) -> Vec<Op> {
        let name = format!("leaver-{}", self.version());
        let value = self.value();
        let new = NewSession {
            name: name.clone(),
            ttl_ms: 0,
            lock_delay_ms: 1_500 * self.pace.stretch,
            deletes: self.dice.chance(30),
            checks: vec![],
            service_checks: vec![],
            node: String::new(),
        };
        let key = (*self.dice.pick(&KEYS)).to_owned();
        vec![
            Op::Keys(KeyOp::CreateSession(new)),
            Op::Keys(KeyOp::One(Step::Lock(key, value, name.clone()))),
            Op::Keys(KeyOp::DestroySession { session: name }),
        ]
    }

    /// Something about keys, and a question that shows it.
    pub(super) fn keys(&mut self) -> (Op, Ask) {
        let step = self.step();
        let ask = match &step {
            Step::DeleteTree(prefix) => Ask::KeyTree(prefix.clone()),
            _ => self.ask_of_keys(),
        };
        (Op::Keys(KeyOp::One(step)), ask)
    }

    pub(super) fn step(&mut self) -> Step {
        let key = (*self.dice.pick(&KEYS)).to_owned();
        let value = self.value();
        let index = *self.dice.weighted(&[(6, LAST_SEEN), (2, 0), (1, 3)]);
        match *self
            .dice
            .weighted(&[(8, 0), (4, 1), (4, 2), (2, 3), (3, 4), (2, 5), (1, 6)])
        {
            0 => Step::Set(key, value),
            1 => Step::SetIf(key, value, index),
            2 => Step::Lock(key, value, self.some_session()),
            3 => Step::Unlock(key, value, self.some_session()),
            4 => Step::Delete(key),
            5 => Step::DeleteIf(key, index),
            _ => Step::DeleteTree((*self.dice.pick(&PREFIXES[1..])).to_owned()),
        }
    }

    /// A session by its name; sometimes one that never was.
    fn some_session(&mut self) -> String {
        match self.sessions.is_empty() || self.dice.chance(8) {
            true => "nobody".into(),
            false => self.dice.pick(&self.sessions.clone()).clone(),
        }
    }

    /// Something about sessions, and a question that shows it.
    pub(super) fn session(&mut self) -> (Op, Ask) {
        let op = match self.dice.index(4) {
            0 | 1 => {
                let name = format!("session-{}", self.version());
                let ttl_ms = *self.dice.pick(&[0, 500, 1_000]) * self.pace.stretch;
                KeyOp::CreateSession(self.new_session(name, ttl_ms))
            }
            2 => KeyOp::RenewSession {
                session: self.some_session(),
            },
            _ => KeyOp::DestroySession {
                session: self.some_session(),
            },
        };
        (Op::Keys(op), Ask::Sessions)
    }

    /// A transaction; some only read.
    pub(super) fn transaction(&mut self) -> (Op, Ask) {
        let only_reads = self.dice.chance(30);
        let steps = (0..self.dice.between(1, 5)).map(|_| {
            let read = only_reads || self.dice.chance(35);
            if read { self.reading_step() } else { self.step() }
        });
        let steps = steps.collect();
        (Op::Keys(KeyOp::Transact(steps)), Ask::KeyTree("k".into()))
    }

    pub(super) fn reading_step(&mut self) -> Step {
        let key = (*self.dice.pick(&KEYS)).to_owned();
        match *self
            .dice
            .weighted(&[(4, 0), (4, 1), (1, 2), (1, 3), (1, 4), (2, 5)])
        {
            0 => Step::Get(key),
            5 => Step::GetOrEmpty(key),
            1 => Step::GetTree((*self.dice.pick(&PREFIXES[1..])).to_owned()),
            2 => Step::CheckIndex(key, LAST_SEEN),
            3 => Step::CheckSession(key, self.some_session()),
            _ => Step::CheckNotExists(key),
        }
    }

    pub(super) fn ask_of_keys(&mut self) -> Ask {
        match *self.dice.weighted(&[(5, 0), (5, 1), (2, 2), (2, 3), (2, 4)]) {
            0 => Ask::Key((*self.dice.pick(&KEYS)).to_owned()),
            1 => Ask::KeyTree((*self.dice.pick(&PREFIXES)).to_owned()),
            2 => Ask::KeyNames((*self.dice.pick(&PREFIXES)).to_owned()),
            3 => Ask::SessionsOf((*self.dice.pick(&[SHARED_NODE, NODES[0], NODES[1]])).to_owned()),
            _ => Ask::Sessions,
        }
    }

    /// A value that no other write puts.
    fn value(&mut self) -> String {
        format!("v{}", self.version())
    }
}

/// Whether a world has keys and sessions at all.
pub(super) fn are_drawn(dice: &mut Dice) -> bool {
    dice.chance(60)
}
