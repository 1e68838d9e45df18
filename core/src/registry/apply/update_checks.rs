//! Sets the status and output of checks; each update is done or refused by itself.

use crate::registry::{Check, CheckKey, CheckTarget, CheckUpdate, Refusal, Reply, transaction::Transaction};

/// Carries out the updates in order.
pub(super) fn update_checks(transaction: &mut Transaction<'_>, updates: &[CheckUpdate]) -> Reply {
    let outcomes = updates.iter().map(|update| update_target(transaction, update));
    Reply::Each(outcomes.collect())
}

fn update_target(transaction: &mut Transaction<'_>, update: &CheckUpdate) -> Result<(), Refusal> {
    let tables = transaction.tables();
    let keys: Vec<CheckKey> = match &update.target {
        CheckTarget::Check(key) if tables.check(key).is_none() => {
            return Err(Refusal::UnknownCheck(key.id.to_string()));
        }
        CheckTarget::Check(key) => vec![key.clone()],
        CheckTarget::TtlChecksOf(instance) if tables.instance(instance).is_none() => {
            return Err(Refusal::UnknownInstance(instance.id.to_string()));
        }
        CheckTarget::TtlChecksOf(instance) => {
            let checks = tables.checks_of_instance(instance).values();
            let ttl_checks = checks.filter(|check| check.definition.ttl().is_some());
            ttl_checks.map(|check| check.key()).collect()
        }
    };
    for key in &keys {
        update_check(transaction, key, update);
    }
    Ok(())
}

fn update_check(transaction: &mut Transaction<'_>, key: &CheckKey, update: &CheckUpdate) {
    let Some(existing) = transaction.tables().check(key) else {
        return;
    };
    let mut check = Check::clone(existing);
    if let Some(output) = &update.output {
        check.output.clone_from(output);
    }
    if let Some(status) = update.status {
        // Counted even if the status is the same: an expiry that was decided before this write must find it renewed.
        check.renewals = check.renewals.saturating_add(1);
        if status != check.status {
            check.status = status;
            check.modify_index = transaction.index();
        }
        transaction.mark_renewed(key);
    }
    transaction.set_check(key, Some(check));
}
