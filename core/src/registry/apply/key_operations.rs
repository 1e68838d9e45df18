//! Operations on keys.

use std::sync::Arc;

use crate::registry::{
    Key, KeyValue, KeyWrite, Operation, OperationRefusal, OperationResult, SessionId, tables::Tables,
    transaction::Transaction,
};

type Outcome<T> = Result<T, OperationRefusal>;

/// What an operation that only reads keys gives; `None` for any other.
pub(super) fn read(tables: &Tables, operation: &Operation) -> Option<Outcome<Vec<OperationResult>>> {
    let one = |result| vec![result];
    Some(match operation {
        Operation::GetKey(key) => get(tables, key).map(OperationResult::Key).map(one),
        Operation::GetKeyOrEmpty(key) => {
            let found = get(tables, key).unwrap_or_else(|_| nothing(key));
            Ok(one(OperationResult::Key(found)))
        }
        Operation::GetTree(prefix) => {
            let found = tables.keys().with_prefix(prefix);
            Ok(found
                .map(|found| OperationResult::Key(KeyValue::clone(found)))
                .collect())
        }
        Operation::CheckIndex(key, index) => check_index(tables, key, *index).map(one),
        Operation::CheckSession(key, session) => check_session(tables, key, session.as_ref()).map(one),
        Operation::CheckNotExists(key) => match tables.keys().get(key) {
            Some(_) => Err(OperationRefusal::KeyExists(key.clone())),
            None => Ok(Vec::new()),
        },
        _ => return None,
    })
}

fn get(tables: &Tables, key: &Key) -> Outcome<KeyValue> {
    let found = tables.keys().get(key);
    found
        .map(|found| KeyValue::clone(found))
        .ok_or_else(|| OperationRefusal::NoKey(key.clone()))
}

/// What a key that is not there holds.
fn nothing(key: &Key) -> KeyValue {
    KeyValue {
        key: key.clone(),
        value: bytes::Bytes::new(),
        flags: 0,
        lock_index: 0,
        session: None,
        version: 0,
        create_index: 0,
        modify_index: 0,
    }
}

fn check_index(tables: &Tables, key: &Key, expected: u64) -> Outcome<OperationResult> {
    let Some(found) = tables.keys().get(key) else {
        return Err(OperationRefusal::NoKeyToCheckIndex(key.clone()));
    };
    if found.modify_index != expected {
        return Err(OperationRefusal::OtherIndex {
            key: key.clone(),
            actual: found.modify_index,
            expected,
        });
    }
    Ok(meta_of(found))
}

fn check_session(tables: &Tables, key: &Key, expected: Option<&SessionId>) -> Outcome<OperationResult> {
    let Some(found) = tables.keys().get(key) else {
        return Err(OperationRefusal::NoKeyToCheckSession(key.clone()));
    };
    if found.session.as_ref() != expected {
        let text = |session: Option<&SessionId>| session.map_or_else(String::new, SessionId::to_string);
        return Err(OperationRefusal::OtherSession {
            key: key.clone(),
            actual: text(found.session.as_ref()),
            expected: text(expected),
        });
    }
    Ok(meta_of(found))
}

/// What is told of a key whose value was not asked for.
fn meta_of(found: &KeyValue) -> OperationResult {
    OperationResult::KeyMeta(KeyValue {
        value: bytes::Bytes::new(),
        ..found.clone()
    })
}

/// Carries out an operation that writes keys; `None` for any other.
pub(super) fn write(
    transaction: &mut Transaction<'_>,
    operation: &Operation,
) -> Option<Outcome<Option<OperationResult>>> {
    Some(match operation {
        Operation::SetKey(write) => Ok(Some(set(transaction, write))),
        Operation::SetKeyIf(write, index) => {
            let actual = modify_index(transaction.tables(), &write.key);
            match actual == *index {
                true => Ok(Some(set(transaction, write))),
                false => Err(OperationRefusal::SetKeyStale(write.key.clone())),
            }
        }
        Operation::Lock(write, session) => lock(transaction, write, session.as_ref()).map(Some),
        Operation::Unlock(write, session) => unlock(transaction, write, session.as_ref()).map(Some),
        Operation::DeleteKey(key) => {
            delete(transaction, key);
            Ok(None)
        }
        Operation::DeleteKeyIf(key, index) => {
            let actual = modify_index(transaction.tables(), key);
            // A key that is gone is deleted already, whatever it was.
            if actual != *index && actual != 0 {
                return Some(Err(OperationRefusal::DeleteKeyStale(key.clone())));
            }
            delete(transaction, key);
            Ok(None)
        }
        Operation::DeleteTree(prefix) => {
            let beneath = transaction.tables().keys().with_prefix(prefix);
            let keys: Vec<Key> = beneath.map(|found| found.key.clone()).collect();
            for key in &keys {
                delete(transaction, key);
            }
            Ok(None)
        }
        _ => return None,
    })
}

/// The modify index of a key; 0 if it is not there.
fn modify_index(tables: &Tables, key: &Key) -> u64 {
    tables.keys().get(key).map_or(0, |found| found.modify_index)
}

fn set(transaction: &mut Transaction<'_>, write: &KeyWrite) -> OperationResult {
    let existing = transaction.tables().keys().get(&write.key);
    let (lock_index, session) = match existing {
        Some(existing) => (existing.lock_index, existing.session.clone()),
        None => (0, None),
    };
    put(transaction, write, lock_index, session)
}

fn lock(
    transaction: &mut Transaction<'_>,
    write: &KeyWrite,
    session: Option<&SessionId>,
) -> Outcome<OperationResult> {
    let Some(session) = session else {
        return Err(OperationRefusal::MissingSession);
    };
    let tables = transaction.tables();
    if tables.sessions().get(session).is_none() {
        return Err(OperationRefusal::InvalidSession(session.clone()));
    }
    if tables.keys().delay(&write.key).is_some() {
        return Err(OperationRefusal::LockDelayed(write.key.clone()));
    }
    let existing = tables.keys().get(&write.key);
    let lock_index = match existing.map(|existing| (existing.lock_index, &existing.session)) {
        None => 1,
        Some((lock_index, None)) => lock_index + 1,
        Some((lock_index, Some(holder))) if holder == session => lock_index,
        Some(_) => return Err(OperationRefusal::LockHeld(write.key.clone())),
    };
    Ok(put(transaction, write, lock_index, Some(session.clone())))
}

fn unlock(
    transaction: &mut Transaction<'_>,
    write: &KeyWrite,
    session: Option<&SessionId>,
) -> Outcome<OperationResult> {
    if session.is_none() {
        return Err(OperationRefusal::MissingSession);
    }
    match transaction.tables().keys().get(&write.key) {
        Some(existing) if existing.session.as_ref() == session => {
            let lock_index = existing.lock_index;
            Ok(put(transaction, write, lock_index, None))
        }
        _ => Err(OperationRefusal::NotHeld(write.key.clone())),
    }
}

fn put(
    transaction: &mut Transaction<'_>,
    write: &KeyWrite,
    lock_index: u64,
    session: Option<SessionId>,
) -> OperationResult {
    let index = transaction.index();
    let existing = transaction.tables().keys().get(&write.key).map(Arc::clone);
    let mut written = KeyValue {
        key: write.key.clone(),
        value: write.value.clone(),
        flags: write.flags,
        lock_index,
        session,
        version: 1,
        create_index: index,
        modify_index: index,
    };
    if let Some(existing) = existing {
        if written.holds_the_same(&existing) {
            return meta_of(&existing);
        }
        written.version = existing.version.saturating_add(1);
        written.create_index = existing.create_index;
    }
    let result = meta_of(&written);
    transaction.set_key(&write.key, Some(written));
    result
}

/// Gives up a key's lock, for a session that ended.
pub(super) fn release(transaction: &mut Transaction<'_>, key: &Key) {
    let index = transaction.index();
    if let Some(held) = transaction.tables().keys().get(key) {
        let released = KeyValue {
            session: None,
            version: held.version.saturating_add(1),
            modify_index: index,
            ..KeyValue::clone(held)
        };
        transaction.set_key(key, Some(released));
    }
}

pub(super) fn delete(transaction: &mut Transaction<'_>, key: &Key) {
    if transaction.tables().keys().get(key).is_some() {
        transaction.set_key(key, None);
    }
}
