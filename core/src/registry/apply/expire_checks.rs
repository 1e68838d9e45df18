//! Turns TTL checks critical that the leader saw unrenewed; each is done, or refused if it is not what the leader saw.

use crate::{
    limits::CHECK_OUTPUT_BYTES_MAX,
    registry::{Check, CheckStatus, Command, Expiry, Refusal, Reply, transaction::Transaction},
};

const EXPIRED: &str = "TTL expired";

/// Carries out the expiries in order.
pub(super) fn expire_checks(transaction: &mut Transaction<'_>, expiries: &[Expiry]) -> Reply {
    let outcomes = expiries.iter().map(|expiry| expire(transaction, expiry));
    Reply::Each(outcomes.collect())
}

fn expire(transaction: &mut Transaction<'_>, expiry: &Expiry) -> Result<(), Refusal> {
    let Some(existing) = transaction.tables().check(&expiry.check) else {
        return Err(Refusal::UnknownCheck(expiry.check.id.to_string()));
    };
    if existing.definition.ttl().is_none() {
        return Err(Refusal::NotTtl(expiry.check.id.to_string()));
    }
    if existing.renewals != expiry.renewals_seen || existing.create_index != expiry.create_index_seen {
        return Err(Refusal::RenewedSince);
    }
    if existing.status == CheckStatus::Critical {
        return Err(Refusal::AlreadyCritical);
    }
    // The count of renewals stays: nobody renewed it, and a second expiry that saw the same is refused as critical.
    let check = Check {
        status: CheckStatus::Critical,
        output: expired_output(&existing.output, transaction.writes(Command::AS_AGENTS)),
        modify_index: transaction.index(),
        ..Check::clone(existing)
    };
    transaction.set_check(&expiry.check, Some(check));
    transaction.mark_expired(&expiry.check);
    Ok(())
}

/// Says that the check expired and what its last output was, within the limit of outputs; in the words of Consul's agents, or
/// as it was said before.
fn expired_output(last: &str, as_agents: bool) -> String {
    // A check that is renewed without an output keeps this one: it must not grow from expiry to expiry.
    if last.is_empty() || last.starts_with(EXPIRED) {
        return EXPIRED.into();
    }
    let mut output = match as_agents {
        true => format!("{EXPIRED} (last output before timeout follows): {last}"),
        false => format!("{EXPIRED}; last output: {last}"),
    };
    output.truncate(output.floor_char_boundary(CHECK_OUTPUT_BYTES_MAX));
    output
}
