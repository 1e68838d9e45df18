//! Deregisters instances that the leader saw critical for too long; each is done, or refused if its check is not what
//! the leader saw.

use super::deregister::remove_instance;
use crate::registry::{CheckStatus, Expiry, InstanceKey, Refusal, Reply, transaction::Transaction};

/// Carries out the deregistrations in order.
pub(super) fn deregister_critical(transaction: &mut Transaction<'_>, expiries: &[Expiry]) -> Reply {
    let outcomes = expiries.iter().map(|expiry| deregister(transaction, expiry));
    Reply::Each(outcomes.collect())
}

fn deregister(transaction: &mut Transaction<'_>, expiry: &Expiry) -> Result<(), Refusal> {
    let Some(check) = transaction.tables().check(&expiry.check) else {
        return Err(Refusal::UnknownCheck(expiry.check.id.to_string()));
    };
    let as_seen = check.renewals == expiry.renewals_seen && check.create_index == expiry.create_index_seen;
    if !as_seen || check.status != CheckStatus::Critical {
        return Err(Refusal::RenewedSince);
    }
    let Some(id) = check.instance.clone() else {
        return Err(Refusal::Invalid(
            "a node's own check takes no instance away".into(),
        ));
    };
    let instance = InstanceKey {
        namespace: check.namespace.clone(),
        node: check.node.clone(),
        id,
    };
    remove_instance(transaction, &instance);
    Ok(())
}
