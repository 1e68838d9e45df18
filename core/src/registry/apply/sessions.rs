//! Sessions: how they begin, are kept, and end.

use super::key_operations;
use crate::registry::{
    CheckKey, CheckStatus, Key, LockDelayEnd, NewSession, NodeName, Refusal, Reply, Session, SessionBehavior,
    SessionExpiry, SessionId, kv::LockDelay, transaction::Transaction,
};

/// Creates a session; its node is registered first if it is given and not there.
pub(super) fn create(transaction: &mut Transaction<'_>, new: &NewSession) -> Result<Reply, Refusal> {
    let NewSession { session, node } = new;
    let index = transaction.index();
    let tables = transaction.tables();
    if tables.sessions().get(&session.id).is_some() {
        return Err(Refusal::Invalid(format!(
            "session {:?} exists",
            session.id.as_str()
        )));
    }
    match node {
        Some(node) if node.name == session.node => {
            super::register::put_node(transaction, node, true);
        }
        _ if tables.node(&session.node).is_none() => {
            return Err(Refusal::Invalid("Missing node registration".into()));
        }
        _ => {}
    }
    check_bindings(transaction, session)?;
    let session = Session {
        renewals: 0,
        create_index: index,
        modify_index: index,
        ..session.clone()
    };
    let id = session.id.clone();
    transaction.set_session(&id, Some(session));
    Ok(Reply::SessionCreated)
}

/// Refuses a session that would have ended already.
fn check_bindings(transaction: &Transaction<'_>, session: &Session) -> Result<(), Refusal> {
    let tables = transaction.tables();
    let of_node = session.node_checks.len();
    for (place, key) in session.checks().enumerate() {
        let (kind, start) = match place < of_node {
            true => ("check", "Check"),
            false => ("service check", "Service check"),
        };
        let id = key.id.as_str();
        match tables.check(&key) {
            None if id == Session::NODE_ALIVE && place < of_node => {}
            None => return Err(Refusal::Invalid(format!("Missing {kind} '{id}' registration"))),
            Some(check) if check.status == CheckStatus::Critical => {
                return Err(Refusal::Invalid(format!("{start} '{id}' is in critical state")));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// Counts renewals that must not be undone by an expiry in the log.
pub(super) fn renew(transaction: &mut Transaction<'_>, ids: &[SessionId]) -> Reply {
    let outcomes = ids.iter().map(|id| {
        let Some(existing) = transaction.tables().sessions().get(id) else {
            return Err(Refusal::UnknownSession(id.to_string()));
        };
        let session = Session {
            renewals: existing.renewals.saturating_add(1),
            ..Session::clone(existing)
        };
        transaction.set_session(id, Some(session));
        Ok(())
    });
    Reply::Each(outcomes.collect())
}

/// Ends sessions that the leader saw unrenewed; each is done, or refused if it is not what the leader saw.
pub(super) fn expire(transaction: &mut Transaction<'_>, expiries: &[SessionExpiry]) -> Reply {
    let outcomes = expiries.iter().map(|expiry| {
        let Some(existing) = transaction.tables().sessions().get(&expiry.session) else {
            return Err(Refusal::UnknownSession(expiry.session.to_string()));
        };
        if existing.renewals != expiry.renewals_seen {
            return Err(Refusal::RenewedSince);
        }
        destroy(transaction, &expiry.session);
        Ok(())
    });
    Reply::Each(outcomes.collect())
}

/// Ends delays of locks; each is done, or refused if it is not the one that the leader saw.
pub(super) fn end_lock_delays(transaction: &mut Transaction<'_>, ends: &[LockDelayEnd]) -> Reply {
    let outcomes = ends.iter().map(|end| {
        match transaction.tables().keys().delay(&end.key) {
            Some(delay) if delay.since == end.since_seen => transaction.set_delay(&end.key, None),
            _ => return Err(Refusal::RenewedSince),
        }
        Ok(())
    });
    Reply::Each(outcomes.collect())
}

/// Ends a session, and with it what it holds; tells whether there was one.
pub(super) fn destroy(transaction: &mut Transaction<'_>, id: &SessionId) -> bool {
    let index = transaction.index();
    let Some(session) = transaction.tables().sessions().get(id).cloned() else {
        return false;
    };
    let held: Vec<Key> = transaction.tables().keys().held_by(id).cloned().collect();
    for key in &held {
        match session.behavior {
            SessionBehavior::Release => key_operations::release(transaction, key),
            SessionBehavior::Delete => key_operations::delete(transaction, key),
        }
        if !session.lock_delay.is_zero() {
            let delay = LockDelay {
                delay: session.lock_delay,
                since: index,
            };
            transaction.set_delay(key, Some(delay));
        }
    }
    transaction.set_session(id, None);
    true
}

/// Ends the sessions whose checks turned critical or are gone, and those whose node is gone. Every command ends with
/// this: whatever it did, no session outlives what it is bound to.
pub(super) fn end_orphans(transaction: &mut Transaction<'_>) {
    let tables = transaction.tables();
    let failed = |key: &CheckKey| {
        let check = tables.check(key);
        check.is_none_or(|check| check.status == CheckStatus::Critical)
    };
    let of_checks = transaction
        .touched_checks()
        .filter(|key| failed(key))
        .flat_map(|key| tables.sessions().of_check(key).cloned());
    let is_gone = |name: &NodeName| tables.node(name).is_none();
    let of_nodes = transaction
        .touched_nodes()
        .filter(|name| is_gone(name))
        .flat_map(|name| tables.sessions().of_node(name).map(|session| session.id.clone()));
    let orphans: Vec<SessionId> = of_checks.chain(of_nodes).collect();
    for id in &orphans {
        destroy(transaction, id);
    }
}
