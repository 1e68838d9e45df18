//! Situations of who waits for an instance to have another hash.

use crate::{
    agent_reads::{AgentAsk, AgentSeen},
    content::Content,
    history::History,
    operation::Op,
};

/// Answers to who named a hash, by that and by the one of the answer, if the instance is there.
fn answers(h: &History) -> impl Iterator<Item = (&str, Option<&str>)> {
    h.operations.iter().filter_map(|operation| {
        let Op::AgentRead(AgentAsk::Service { hash, .. }) = &operation.op else {
            return None;
        };
        match operation.answer()?.content.as_ref()? {
            Content::Agent(AgentSeen::Service(found)) if !hash.is_empty() => {
                Some((hash.as_str(), found.as_ref().map(|(hash, _)| hash.as_str())))
            }
            _ => None,
        }
    })
}

/// It has another one.
pub(super) fn another(h: &History) -> u64 {
    let other = |(known, told): &(&str, Option<&str>)| told.is_some_and(|told| told != *known);
    answers(h).filter(other).count() as u64
}

/// It has the same after the wait.
pub(super) fn same(h: &History) -> u64 {
    answers(h).filter(|(known, told)| *told == Some(known)).count() as u64
}

/// It is gone.
pub(super) fn gone(h: &History) -> u64 {
    answers(h).filter(|(_, told)| told.is_none()).count() as u64
}

/// Members of a service mesh are shown.
pub(super) fn members(h: &History) -> u64 {
    let shown = |operation: &&crate::history::Operation| {
        let asked = operation.op.asked();
        let of_mesh = asked.is_some_and(|(ask, _)| matches!(ask, crate::operation::Ask::Connect { .. }));
        let content = operation.answer().and_then(|answer| answer.content.as_ref());
        of_mesh && matches!(content, Some(Content::Instances(found)) if !found.is_empty())
    };
    h.operations.iter().filter(shown).count() as u64
}

/// Who waits for other members of a mesh is woken.
pub(super) fn members_woken(h: &History) -> u64 {
    let woken = |operation: &&crate::history::Operation| {
        let Op::Wait {
            ask: crate::operation::Ask::Connect { .. },
            index,
            ..
        } = &operation.op
        else {
            return false;
        };
        let told = operation.answer().and_then(|answer| answer.index);
        *index > 0 && told > Some(*index)
    };
    h.operations.iter().filter(woken).count() as u64
}
