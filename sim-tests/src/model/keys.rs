//! Keys, sessions and transactions, as plainly as the rest of the model.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use sider_core::registry::{
    CheckId, CheckKey, CheckStatus, Key, KeyValue, KeyWrite, LockDelayEnd, Namespace, Node, Operation,
    OperationError, OperationRefusal, OperationResult, Refusal, Reply, Session, SessionBehavior,
    SessionExpiry, SessionId,
};

use super::State;

type Given = Result<Vec<OperationResult>, OperationRefusal>;

impl State {
    pub(super) fn transact(&mut self, operations: &[Operation], index: u64) -> Result<Reply, Refusal> {
        let mut results = Vec::new();
        let mut errors = Vec::new();
        for (place, operation) in operations.iter().enumerate() {
            match self.operate(operation, index) {
                Ok(given) => results.extend(given),
                Err(refusal) => errors.push(OperationError {
                    place: place as u64,
                    refusal,
                }),
            }
        }
        match errors.is_empty() {
            true => Ok(Reply::Transacted(results)),
            false => Err(Refusal::Aborted(errors)),
        }
    }

    /// What a transaction that only reads gives in this state.
    pub fn evaluate(&self, operations: &[Operation]) -> Result<Vec<OperationResult>, Vec<OperationError>> {
        match self.clone().transact(operations, self.index + 1) {
            Ok(Reply::Transacted(results)) => Ok(results),
            Err(Refusal::Aborted(errors)) => Err(errors),
            other => unreachable!("a transaction gives results or errors, not {other:?}"),
        }
    }

    fn operate(&mut self, operation: &Operation, index: u64) -> Given {
        let held = |key: &Key| self.key(key).cloned();
        match operation {
            Operation::GetKey(key) => match held(key) {
                Some(held) => Ok(vec![OperationResult::Key(held)]),
                None => Err(OperationRefusal::NoKey(key.clone())),
            },
            Operation::GetKeyOrEmpty(key) => {
                let held = held(key).unwrap_or_else(|| blank(key));
                Ok(vec![OperationResult::Key(held)])
            }
            Operation::GetTree(prefix) => {
                let tree = self.tree(prefix);
                Ok(tree
                    .into_iter()
                    .map(|it| OperationResult::Key(KeyValue::clone(it)))
                    .collect())
            }
            Operation::CheckIndex(key, expected) => match held(key) {
                None => Err(OperationRefusal::NoKeyToCheckIndex(key.clone())),
                Some(held) if held.modify_index != *expected => Err(OperationRefusal::OtherIndex {
                    key: key.clone(),
                    actual: held.modify_index,
                    expected: *expected,
                }),
                Some(held) => Ok(meta(held)),
            },
            Operation::CheckSession(key, expected) => match held(key) {
                None => Err(OperationRefusal::NoKeyToCheckSession(key.clone())),
                Some(held) if held.session != *expected => {
                    let text =
                        |id: &Option<SessionId>| id.as_ref().map(ToString::to_string).unwrap_or_default();
                    Err(OperationRefusal::OtherSession {
                        key: key.clone(),
                        actual: text(&held.session),
                        expected: text(expected),
                    })
                }
                Some(held) => Ok(meta(held)),
            },
            Operation::CheckNotExists(key) => match held(key) {
                Some(_) => Err(OperationRefusal::KeyExists(key.clone())),
                None => Ok(vec![]),
            },
            Operation::SetKey(write) => Ok(self.set(write, index)),
            Operation::SetKeyIf(write, expected) => {
                if held(&write.key).map_or(0, |held| held.modify_index) != *expected {
                    return Err(OperationRefusal::SetKeyStale(write.key.clone()));
                }
                Ok(self.set(write, index))
            }
            Operation::Lock(write, session) => self.lock(write, session.as_ref(), index),
            Operation::Unlock(write, session) => self.unlock(write, session.as_ref(), index),
            Operation::DeleteKey(key) => {
                self.keys.retain(|held| held.key != *key);
                Ok(vec![])
            }
            Operation::DeleteKeyIf(key, expected) => {
                if held(key).is_some_and(|held| held.modify_index != *expected) {
                    return Err(OperationRefusal::DeleteKeyStale(key.clone()));
                }
                self.keys.retain(|held| held.key != *key);
                Ok(vec![])
            }
            Operation::DeleteTree(prefix) => {
                self.keys.retain(|held| !held.key.starts_with(prefix));
                Ok(vec![])
            }
            Operation::DestroySession(id) => {
                self.end_session(id, index);
                Ok(vec![])
            }
            other => self.operate_on_catalog(other, index),
        }
    }

    fn set(&mut self, write: &KeyWrite, index: u64) -> Vec<OperationResult> {
        let (lock_index, session) = match self.key(&write.key) {
            Some(held) => (held.lock_index, held.session.clone()),
            None => (0, None),
        };
        self.put_key(write, lock_index, session, index)
    }

    fn lock(&mut self, write: &KeyWrite, session: Option<&SessionId>, index: u64) -> Given {
        let session = session.ok_or(OperationRefusal::MissingSession)?;
        if self.session(session).is_none() {
            return Err(OperationRefusal::InvalidSession(session.clone()));
        }
        if self.delays.contains_key(&write.key) {
            return Err(OperationRefusal::LockDelayed(write.key.clone()));
        }
        let (lock_index, holder) = match self.key(&write.key) {
            Some(held) => (held.lock_index, held.session.clone()),
            None => (0, None),
        };
        match holder {
            Some(holder) if holder != *session => Err(OperationRefusal::LockHeld(write.key.clone())),
            Some(_) => Ok(self.put_key(write, lock_index, Some(session.clone()), index)),
            None => Ok(self.put_key(write, lock_index + 1, Some(session.clone()), index)),
        }
    }

    fn unlock(&mut self, write: &KeyWrite, session: Option<&SessionId>, index: u64) -> Given {
        let session = session.ok_or(OperationRefusal::MissingSession)?;
        match self.key(&write.key) {
            Some(held) if held.session.as_ref() == Some(session) => {
                let lock_index = held.lock_index;
                Ok(self.put_key(write, lock_index, None, index))
            }
            _ => Err(OperationRefusal::NotHeld(write.key.clone())),
        }
    }

    fn put_key(
        &mut self,
        write: &KeyWrite,
        lock_index: u64,
        session: Option<SessionId>,
        index: u64,
    ) -> Vec<OperationResult> {
        let old = self.key(&write.key).cloned();
        let mut new = KeyValue {
            key: write.key.clone(),
            value: write.value.clone(),
            flags: write.flags,
            lock_index,
            session,
            version: old.as_ref().map_or(1, |old| old.version + 1),
            create_index: old.as_ref().map_or(index, |old| old.create_index),
            modify_index: index,
        };
        if let Some(old) = old.filter(|old| holds_the_same(old, &new)) {
            new = old;
        }
        self.keys.retain(|held| held.key != write.key);
        self.keys.push(Arc::new(new.clone()));
        meta(new)
    }

    pub(super) fn begin_session(
        &mut self,
        session: &Session,
        node: Option<&Node>,
        index: u64,
    ) -> Result<Reply, Refusal> {
        let refused = || Err(Refusal::Invalid("in its own words".into()));
        if self.session(&session.id).is_some() {
            return refused();
        }
        if self.node(&session.node).is_none() {
            match node {
                Some(node) => self.put_node(node, index),
                None => return refused(),
            }
        }
        for (key, of_node) in bindings(session) {
            let may_be_missing = of_node && key.id.as_str() == Session::NODE_ALIVE;
            match self.check(&key).map(|check| check.status) {
                None if may_be_missing => {}
                None | Some(CheckStatus::Critical) => return refused(),
                Some(_) => {}
            }
        }
        self.sessions.push(Arc::new(Session {
            renewals: 0,
            create_index: index,
            modify_index: index,
            ..session.clone()
        }));
        Ok(Reply::SessionCreated)
    }

    pub(super) fn renew_session(&mut self, id: &SessionId) -> Result<(), Refusal> {
        let mut sessions = self.sessions.iter_mut();
        match sessions.find(|session| session.id == *id) {
            Some(session) => Arc::make_mut(session).renewals += 1,
            None => return Err(Refusal::UnknownSession(id.to_string())),
        }
        Ok(())
    }

    pub(super) fn expire_session(&mut self, expiry: &SessionExpiry, index: u64) -> Result<(), Refusal> {
        match self.session(&expiry.session) {
            None => Err(Refusal::UnknownSession(expiry.session.to_string())),
            Some(session) if session.renewals != expiry.renewals_seen => Err(Refusal::RenewedSince),
            Some(_) => {
                self.end_session(&expiry.session, index);
                Ok(())
            }
        }
    }

    pub(super) fn end_delay(&mut self, end: &LockDelayEnd) -> Result<(), Refusal> {
        match self.delays.get(&end.key) {
            Some((_, since)) if *since == end.since_seen => {
                self.delays.remove(&end.key);
                Ok(())
            }
            _ => Err(Refusal::RenewedSince),
        }
    }

    pub(super) fn end_session(&mut self, id: &SessionId, index: u64) -> bool {
        let Some(session) = self.session(id).cloned() else {
            return false;
        };
        let is_held = |held: &KeyValue| held.session.as_ref() == Some(id);
        if !session.lock_delay.is_zero() {
            let held = self.keys.iter().filter(|held| is_held(held));
            let delay = |held: &Arc<KeyValue>| (held.key.clone(), (session.lock_delay, index));
            self.delays.extend(held.map(delay));
        }
        match session.behavior {
            SessionBehavior::Delete => self.keys.retain(|held| !is_held(held)),
            SessionBehavior::Release => {
                for held in self.keys.iter_mut().filter(|held| is_held(held)) {
                    let held = Arc::make_mut(held);
                    held.session = None;
                    held.version += 1;
                    held.modify_index = index;
                }
            }
        }
        self.sessions.retain(|other| other.id != *id);
        true
    }

    /// No session outlives what it is bound to. A check that was never there ends none.
    pub(super) fn end_orphans(&mut self, before: &State, index: u64) {
        let mut orphans = Vec::new();
        for session in &self.sessions {
            let failed = |key: &CheckKey| match (before.check(key), self.check(key)) {
                (_, Some(check)) => check.status == CheckStatus::Critical,
                (was, None) => was.is_some(),
            };
            let unhealthy = bindings(session).iter().any(|(key, _)| failed(key));
            if unhealthy || self.node(&session.node).is_none() {
                orphans.push(session.id.clone());
            }
        }
        for id in orphans {
            self.end_session(&id, index);
        }
    }

    /// Gives back their indexes to keys that hold what they held before.
    pub(super) fn keep_keys_that_did_not_change(&mut self, before: &State) {
        for held in &mut self.keys {
            let old = before.keys.iter().find(|old| old.key == held.key);
            if let Some(old) = old.filter(|old| holds_the_same(old, held)) {
                *held = Arc::clone(old);
            }
        }
    }

    /// What a key holds.
    pub fn key(&self, key: &Key) -> Option<&KeyValue> {
        self.keys.iter().find(|held| held.key == *key).map(AsRef::as_ref)
    }

    /// What every key with a prefix holds, by key; the servers' own keys only if the prefix is one of theirs.
    pub fn tree(&self, prefix: &Key) -> Vec<&Arc<KeyValue>> {
        let mut tree: Vec<_> = self
            .keys
            .iter()
            .filter(|held| held.key.starts_with(prefix))
            .filter(|held| prefix.is_reserved() || !held.key.is_reserved())
            .collect();
        tree.sort_by(|one, other| one.key.cmp(&other.key));
        tree
    }

    /// A session.
    pub fn session(&self, id: &SessionId) -> Option<&Arc<Session>> {
        self.sessions.iter().find(|session| session.id == *id)
    }

    /// The locks that nobody can take, each with its delay and the index at which it began.
    pub fn delays(&self) -> &BTreeMap<Key, (Duration, u64)> {
        &self.delays
    }
}

/// The checks that a session is bound to, and whether each is named as one of its node.
fn bindings(session: &Session) -> Vec<(CheckKey, bool)> {
    let of_node = session
        .node_checks
        .iter()
        .map(|id| (Namespace::default(), id, true));
    let of_services = session
        .service_checks
        .iter()
        .map(|(namespace, id)| (namespace.clone(), id, false));
    let binding = |(namespace, id, of_node): (Namespace, &CheckId, bool)| {
        let node = session.node.clone();
        let id = id.clone();
        (CheckKey { namespace, node, id }, of_node)
    };
    of_node.chain(of_services).map(binding).collect()
}

/// Whether both hold the same: equal but for their history.
fn holds_the_same(one: &KeyValue, other: &KeyValue) -> bool {
    (&one.value, one.flags, one.lock_index, &one.session)
        == (&other.value, other.flags, other.lock_index, &other.session)
}

fn meta(held: KeyValue) -> Vec<OperationResult> {
    vec![OperationResult::KeyMeta(KeyValue {
        value: Bytes::new(),
        ..held
    })]
}

fn blank(key: &Key) -> KeyValue {
    KeyValue {
        key: key.clone(),
        value: Bytes::new(),
        flags: 0,
        lock_index: 0,
        session: None,
        version: 0,
        create_index: 0,
        modify_index: 0,
    }
}
