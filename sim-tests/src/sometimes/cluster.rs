//! What clients are told of the servers themselves, events, and what happens to sessions and checks on purpose.

use crate::{
    cluster_reads::{ClusterAsk, ClusterSeen},
    content::Content,
    history::{History, Operation, Outcome},
    keys::{KeyOp, Step},
    operation::{Ask, Op},
};

fn told(h: &History, counts: impl Fn(&Operation, &ClusterSeen) -> bool) -> u64 {
    let told = h.operations.iter().filter_map(|op| match &op.answer()?.content {
        Some(Content::Cluster(seen)) => Some((op, seen)),
        _ => None,
    });
    told.filter(|(op, seen)| counts(op, seen)).count() as u64
}

/// Servers that are asked, while it is calm, who leads.
pub(super) fn asked_in_the_calm(h: &History) -> u64 {
    told(h, |op, seen| {
        matches!(seen, ClusterSeen::Leader(_) | ClusterSeen::Itself { .. })
            && h.truth().calm_between(op.invoked, op.returned)
    })
}

/// Servers that know no leader, and say so.
pub(super) fn without_leader(h: &History) -> u64 {
    told(h, |_, seen| matches!(seen, ClusterSeen::Leader(None)))
}

/// Servers that are not ready.
pub(super) fn not_ready(h: &History) -> u64 {
    told(h, |_, seen| *seen == ClusterSeen::Ready(false))
}

/// Events that are told by another server than the one that was given them.
pub(super) fn heard_elsewhere(h: &History) -> u64 {
    let fired_at = |payload: &str, at: &Operation| {
        h.operations.iter().any(|op| {
            op.server == at.server
                && matches!(&op.op, Op::Cluster(ClusterAsk::Fire { payload: fired, .. }) if fired == payload)
        })
    };
    told(h, |op, seen| match seen {
        ClusterSeen::Events(_, events) => events.iter().any(|it| !fired_at(&it.payload, op)),
        _ => false,
    })
}

/// Transactions that are refused though a step of theirs would end a session.
pub(super) fn session_stays(h: &History) -> u64 {
    let refused = h.operations.iter().filter(|op| match &op.op {
        Op::Keys(KeyOp::Transact(steps)) => {
            matches!(op.outcome, Outcome::Refused { .. })
                && steps.iter().any(|step| matches!(step, Step::EndSession(_)))
        }
        _ => false,
    });
    refused.count() as u64
}

/// Single sessions that are asked for and there.
pub(super) fn session_found(h: &History) -> u64 {
    let found = h.operations.iter().filter(|op| {
        matches!(op.op.asked(), Some((Ask::Session(_), _)))
            && matches!(
                op.answer().map(|it| &it.content),
                Some(Some(Content::Sessions(found))) if !found.is_empty()
            )
    });
    found.count() as u64
}

/// Checks that are registered by themselves: done, or refused for want of their instance.
pub(super) fn own_checks(h: &History, is_done: bool) -> u64 {
    let registered = h.operations.iter().filter(|op| {
        matches!(op.op, Op::RegisterCheck(_))
            && match op.outcome {
                Outcome::Done(_) => is_done,
                Outcome::Refused { .. } => !is_done,
                _ => false,
            }
    });
    registered.count() as u64
}
