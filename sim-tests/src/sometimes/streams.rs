//! What befalls streams of events.

use crate::{
    history::{History, LEFT, Operation, Outcome, Streamed},
    operation::{Freshness, Op},
};

/// Waits for events of streams, with the index that the client has.
fn events(h: &History) -> impl Iterator<Item = (&Operation, &Streamed, u64)> {
    h.operations.iter().filter_map(|op| match (&op.streamed, &op.op) {
        (Some(streamed), Op::Wait { index, .. }) => Some((op, streamed, *index)),
        _ => None,
    })
}

fn count(h: &History, counts: impl Fn(&Operation, &Streamed, u64) -> bool) -> u64 {
    events(h).filter(|(op, it, index)| counts(op, it, *index)).count() as u64
}

/// Events behind the first.
pub(super) fn given(h: &History) -> u64 {
    count(h, |op, it, _| op.is_done() && it.nth > 0)
}

/// Streams that go on with an id and are told at once what came in between.
pub(super) fn caught_up(h: &History) -> u64 {
    count(h, |op, it, index| op.is_done() && it.nth == 0 && index > 0)
}

/// Streams that break after they gave something.
pub(super) fn broken(h: &History) -> u64 {
    count(h, |op, it, _| {
        it.nth > 0 && matches!(&op.outcome, Outcome::Unknown(reason) if reason.contains("reset"))
    })
}

/// Streams that fall silent.
pub(super) fn silent(h: &History) -> u64 {
    count(
        h,
        |op, _, _| matches!(&op.outcome, Outcome::Unknown(reason) if reason.starts_with("nothing came")),
    )
}

/// Streams that their servers end because they know no leader.
pub(super) fn without_leader(h: &History) -> u64 {
    count(h, |op, it, _| {
        it.nth > 0 && matches!(&op.outcome, Outcome::Failed(reason) if reason == "No cluster leader")
    })
}

/// Streams that are over in order.
pub(super) fn left(h: &History) -> u64 {
    count(
        h,
        |op, _, _| matches!(&op.outcome, Outcome::Unknown(reason) if reason == LEFT),
    )
}

/// Streams on which nothing differs for a while.
pub(super) fn quiet(h: &History) -> u64 {
    count(h, |_, it, _| !it.unchanged.is_empty())
}

/// Events that show several changes at once to a client that had no room for each of them.
pub(super) fn folded(h: &History) -> u64 {
    count(h, |op, it, carried| {
        let (Some((ask, _)), Some(got)) = (op.op.asked(), op.answer().and_then(|it| it.index)) else {
            return false;
        };
        let steps = h.truth().steps(&ask.topic());
        let given = steps
            .iter()
            .filter(|step| step.index > carried && step.index <= got);
        it.room > op.invoked && given.count() > 1
    })
}

/// Streams of stale content that begin at a server which is behind their clients.
pub(super) fn behind(h: &History) -> u64 {
    count(h, |op, it, index| {
        let Some((ask, Freshness::Stale)) = op.op.asked() else {
            return false;
        };
        let truth = h.truth();
        let had = truth.most_applied_at(op.server, op.invoked);
        it.nth == 0 && truth.index_at(&ask.topic(), had) < index
    })
}
