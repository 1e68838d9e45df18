//! Situations that concern prepared queries.

use crate::{
    content::Content,
    history::{History, Operation, Outcome},
    matching::Source,
    operation::Op,
    prepared::{PreparedOp, definitions, written},
    truth::Point,
};

fn executions(history: &History) -> impl Iterator<Item = (&Operation, &str, &Content)> {
    history
        .operations
        .iter()
        .filter_map(|operation| match &operation.op {
            Op::Prepared(PreparedOp::Execute { query, .. }) => {
                let content = operation.answer()?.content.as_ref()?;
                matches!(content, Content::Executed { .. }).then_some((operation, query.as_str(), content))
            }
            _ => None,
        })
}

fn point(history: &History, operation: &Operation) -> Point {
    history.truth().applied_before(operation.invoked)
}

pub(super) fn gives(history: &History) -> u64 {
    let some =
        |content: &Content| matches!(content, Content::Executed { instances, .. } if !instances.is_empty());
    executions(history)
        .filter(|(_, _, content)| some(content))
        .count() as u64
}

/// Executions of a name that some definition has, or of a name that none has.
fn named(history: &History, has: bool) -> u64 {
    let known = |operation: &Operation, query: &str| {
        let all = definitions(&history.truth().state(point(history, operation)));
        let id = all.iter().any(|it| it["ID"] == query);
        !id && all.iter().any(|it| it["Name"] == query) == has
    };
    executions(history)
        .filter(|(operation, query, _)| known(operation, query))
        .count() as u64
}

pub(super) fn by_name(history: &History) -> u64 {
    named(history, true)
}

pub(super) fn filled_in(history: &History) -> u64 {
    named(history, false)
}

pub(super) fn leaves_out(history: &History) -> u64 {
    let fewer = |operation: &Operation, content: &Content| {
        let Content::Executed {
            service, instances, ..
        } = content
        else {
            return false;
        };
        let state = history.truth().state(point(history, operation));
        let all = state
            .instances
            .iter()
            .filter(|it| it.service.as_str() == service.as_str());
        instances.len() < all.count()
    };
    executions(history)
        .filter(|(operation, _, content)| fewer(operation, content))
        .count() as u64
}

pub(super) fn overtaken(history: &History) -> u64 {
    let truth = history.truth();
    let changes = |operation: &Operation| {
        let until = truth.applied_until(operation.returned);
        let entries = &truth.entries[point(history, operation).min(until)..until];
        entries.iter().any(|entry| {
            entry
                .command
                .as_ref()
                .is_some_and(|(it, _)| written(it).is_some())
        })
    };
    executions(history)
        .filter(|(operation, ..)| changes(operation))
        .count() as u64
}

pub(super) fn taken(history: &History) -> u64 {
    let taken = |it: &&Operation| {
        matches!(it.op, Op::Prepared(_))
            && matches!(&it.outcome, Outcome::Refused { reason, .. } if reason.contains("aliases"))
    };
    history.operations.iter().filter(taken).count() as u64
}

/// An entry that changed nothing, of an update or a deletion that was carried out in the end.
pub(super) fn tried_again(history: &History) -> u64 {
    let truth = history.truth();
    let all = truth.entries.iter().zip(&truth.sources);
    let in_vain = all.filter(|(entry, source)| {
        let Some((command, effect)) = &entry.command else {
            return false;
        };
        **source == Source::Internal && written(command).is_some() && effect.reply.is_err() && {
            let asked = |it: &&Operation| it.is_done() && crate::matching::asks_for(&it.op, command);
            history.operations.iter().any(|it| asked(&it))
        }
    });
    in_vain.count() as u64
}
