//! What each command does: one file each.
//!
//! A command writes into a [`Transaction`] and gives its reply. It decides nothing
//! about indexes of topics, events or rows: those follow from what it changed.

mod catalog_operations;
mod deregister;
mod deregister_critical;
mod expire_checks;
mod key_operations;
mod register;
mod rename;
mod sessions;
mod transact;
mod update_checks;
mod virtual_address;

pub(super) use transact::evaluate;

use super::{Command, Refusal, Reply, transaction::Transaction};

/// Carries out a command within a transaction; at an error the caller takes the transaction back.
pub(super) fn apply(transaction: &mut Transaction<'_>, command: &Command) -> Result<Reply, Refusal> {
    let reply = carry_out(transaction, command)?;
    sessions::end_orphans(transaction);
    Ok(reply)
}

fn carry_out(transaction: &mut Transaction<'_>, command: &Command) -> Result<Reply, Refusal> {
    match command {
        Command::Register(registrations) => register::register(transaction, registrations),
        Command::Deregister(what) => deregister::deregister(transaction, what),
        Command::UpdateChecks(updates) => Ok(update_checks::update_checks(transaction, updates)),
        Command::ExpireChecks(expiries) => Ok(expire_checks::expire_checks(transaction, expiries)),
        Command::DeregisterCritical(expiries) => {
            Ok(deregister_critical::deregister_critical(transaction, expiries))
        }
        Command::Transact(operations) => transact::transact(transaction, operations),
        Command::CreateSession(new) => sessions::create(transaction, new),
        Command::DestroySession(id) => Ok(Reply::Deregistered(sessions::destroy(transaction, id))),
        Command::RenewSessions(ids) => Ok(sessions::renew(transaction, ids)),
        Command::ExpireSessions(expiries) => Ok(sessions::expire(transaction, expiries)),
        Command::EndLockDelays(ends) => Ok(sessions::end_lock_delays(transaction, ends)),
        Command::Restore(_) | Command::RaiseVersion(_) => {
            unreachable!("what concerns the state as a whole is carried out without a transaction of its own")
        }
    }
}
