//! Situations of the catalog beyond plain registrations: transactions on it, maintenance, answers that are narrowed.

use sider_core::registry::{
    Check, CheckStatus, Command, NodeName, Operation as StepOperation, OperationRefusal, Refusal, Reply,
};

use crate::{
    agent_reads::AgentSeen,
    content::Content,
    history::{History, Operation, Outcome},
    keys::{KeyOp, Step},
    maintenance::{self, Maintenance},
    narrowing::Narrowing,
    operation::{Ask, Freshness, Op},
    truth::Entry,
};

/// Transactions that were committed and have steps on the catalog, with what came of them.
fn transactions(h: &History) -> impl Iterator<Item = (&Entry, &[StepOperation], &Result<Reply, Refusal>)> {
    h.truth().entries.iter().filter_map(|entry| {
        let (reply, _) = entry.expected.as_ref()?;
        match &entry.command {
            Some((Command::Transact(operations), _)) if operations.iter().any(is_of_catalog) => {
                Some((entry, operations.as_slice(), reply))
            }
            _ => None,
        }
    })
}

fn is_of_catalog(operation: &StepOperation) -> bool {
    is_catalog_read(operation) || is_catalog_write(operation)
}

fn is_catalog_read(operation: &StepOperation) -> bool {
    matches!(
        operation,
        StepOperation::GetNode(_) | StepOperation::GetInstance(_) | StepOperation::GetCheck(_)
    )
}

fn is_catalog_write(operation: &StepOperation) -> bool {
    matches!(
        operation,
        StepOperation::SetNode(_)
            | StepOperation::SetNodeIf(..)
            | StepOperation::DeleteNode(_)
            | StepOperation::DeleteNodeIf(..)
            | StepOperation::SetInstance(_)
            | StepOperation::SetInstanceIf(..)
            | StepOperation::DeleteInstance(_)
            | StepOperation::DeleteInstanceIf(..)
            | StepOperation::SetCheck(_)
            | StepOperation::SetCheckIf(..)
            | StepOperation::DeleteCheck(_)
            | StepOperation::DeleteCheckIf(..)
    )
}

fn is_conditional(operation: &StepOperation) -> bool {
    matches!(
        operation,
        StepOperation::SetNodeIf(_, 1..)
            | StepOperation::DeleteNodeIf(_, 1..)
            | StepOperation::SetInstanceIf(_, 1..)
            | StepOperation::DeleteInstanceIf(_, 1..)
            | StepOperation::SetCheckIf(_, 1..)
            | StepOperation::DeleteCheckIf(_, 1..)
    )
}

/// Keys and the catalog are written by one transaction.
pub(super) fn with_keys(h: &History) -> u64 {
    let both = transactions(h).filter(|(_, operations, reply)| {
        let writes_keys = |it: &StepOperation| !is_of_catalog(it) && !it.only_reads();
        reply.is_ok() && operations.iter().any(writes_keys) && operations.iter().any(is_catalog_write)
    });
    both.count() as u64
}

/// A step finds the index that it expects, which is not 0.
pub(super) fn found_as_expected(h: &History) -> u64 {
    transactions(h)
        .filter(|(_, operations, reply)| reply.is_ok() && operations.iter().any(is_conditional))
        .count() as u64
}

/// A step finds another index than it expects.
pub(super) fn found_stale(h: &History) -> u64 {
    let stale = |reply: &Result<Reply, Refusal>| match reply {
        Err(Refusal::Aborted(errors)) => errors
            .iter()
            .any(|it| matches!(it.refusal, OperationRefusal::CatalogStale { .. })),
        _ => false,
    };
    transactions(h).filter(|(_, _, reply)| stale(reply)).count() as u64
}

/// A step could have been done, and is not, because another one can't be.
pub(super) fn taken_back(h: &History) -> u64 {
    let half = transactions(h).filter(|(_, operations, reply)| match reply {
        Err(Refusal::Aborted(errors)) => operations.iter().enumerate().any(|(place, operation)| {
            is_catalog_write(operation) && errors.iter().all(|error| error.place != place as u64)
        }),
        _ => false,
    });
    half.count() as u64
}

/// A node goes by a transaction.
pub(super) fn node_removed(h: &History) -> u64 {
    let removed = transactions(h).filter(|(entry, operations, reply)| {
        let removes =
            |it: &StepOperation| matches!(it, StepOperation::DeleteNode(_) | StepOperation::DeleteNodeIf(..));
        let changed = entry.expected.as_ref().is_some_and(|(_, changed)| *changed);
        reply.is_ok() && changed && operations.iter().any(removes)
    });
    removed.count() as u64
}

/// A transaction only reads, also the catalog, and finds all of it.
pub(super) fn only_read(h: &History) -> u64 {
    let reads = h.operations.iter().filter(|op| match &op.op {
        Op::Keys(asked @ KeyOp::Transact(steps)) => {
            op.is_done() && !asked.is_logged() && steps.iter().any(|it| matches!(it, Step::Catalog(_)))
        }
        _ => false,
    });
    reads.count() as u64
}

fn maintained(h: &History, counts: impl Fn(&Maintenance, &Operation) -> bool) -> u64 {
    let counted = h.operations.iter().filter(|op| match &op.op {
        Op::Maintenance(asked) => counts(asked, op),
        _ => false,
    });
    counted.count() as u64
}

pub(super) fn instance_in_maintenance(h: &History) -> u64 {
    maintained(h, |asked, op| asked.begins && asked.of.is_some() && op.is_done())
}

pub(super) fn node_in_maintenance(h: &History) -> u64 {
    maintained(h, |asked, op| asked.begins && asked.of.is_none() && op.is_done())
}

pub(super) fn nobody_in_maintenance(h: &History) -> u64 {
    maintained(h, |_, op| matches!(op.outcome, Outcome::Refused { .. }))
}

/// A passing list lacks an instance for nothing but its maintenance, or that of its node.
pub(super) fn hidden_by_maintenance(h: &History) -> u64 {
    let hides = |check: &Check| {
        let id = check.id.as_str();
        id == maintenance::OF_NODE || id.starts_with(&maintenance::check_of(""))
    };
    let hidden = h.operations.iter().filter(|op| {
        let Some((
            Ask::Health {
                service,
                passing: true,
                ..
            },
            Freshness::Default,
        )) = op.op.asked()
        else {
            return false;
        };
        let state = h.truth().state(h.truth().applied_until(op.returned));
        op.is_done()
            && state
                .instances
                .iter()
                .filter(|it| it.service.as_str().eq_ignore_ascii_case(service))
                .any(|instance| {
                    let checks = state.checks_that_count(instance);
                    let mut others = checks.iter().filter(|check| !hides(check));
                    checks.iter().any(|check| hides(check))
                        && others.all(|check| check.status == CheckStatus::Passing)
                })
    });
    hidden.count() as u64
}

/// What an answer is narrowed by.
fn narrowings(h: &History) -> impl Iterator<Item = (&Operation, &Ask, &Narrowing)> {
    h.operations.iter().filter_map(|op| {
        let (ask, _) = op.op.asked()?;
        match ask {
            Ask::Narrowed { ask, by } => Some((op, &**ask, by)),
            Ask::Elsewhere(ask) => match &**ask {
                Ask::Narrowed { ask, by } => Some((op, &**ask, by)),
                _ => None,
            },
            _ => None,
        }
    })
}

/// A filter leaves something of an answer, but not all of it.
pub(super) fn filtered_in_part(h: &History) -> u64 {
    let in_part = narrowings(h).filter(|(op, ask, by)| {
        let whole = h.truth().content(ask, h.truth().applied_until(op.returned));
        let told = op.answer().and_then(|it| it.content.as_ref());
        by.filter.is_some() && told.is_some_and(|told| !told.is_empty() && told.len() < whole.len())
    });
    in_part.count() as u64
}

/// A blocking query with a filter is woken.
pub(super) fn filter_wakes(h: &History) -> u64 {
    let woken = narrowings(h).filter(|(op, _, by)| by.filter.is_some() && super::counting::woken(op));
    woken.count() as u64
}

/// A blocking query with a filter waits on while something changes that does not pass it.
pub(super) fn filter_lets_sleep(h: &History) -> u64 {
    let truth = h.truth();
    let slept = narrowings(h).filter(|(op, _, by)| {
        let Op::Wait { index, .. } = &op.op else {
            return false;
        };
        let topic = op.op.asked().map(|(ask, _)| ask.topic());
        let rose = topic.is_some_and(|topic| {
            let steps = truth.steps(&topic).iter();
            let (from, until) = (truth.applied_until(op.invoked), truth.applied_until(op.returned));
            steps
                .filter(|step| step.index > *index && step.point > from && step.point < until)
                .count()
                > 0
        });
        by.filter.is_some() && op.is_done() && rose
    });
    slept.count() as u64
}

/// A node gets another name.
pub(super) fn renamed(h: &History) -> u64 {
    renames(h).count() as u64
}

/// The same, and something is on it.
pub(super) fn renamed_with_instances(h: &History) -> u64 {
    let carries = |(position, old): &(usize, NodeName)| {
        let before = h.truth().state(*position);
        before.instances.iter().any(|it| it.node == *old)
    };
    renames(h).filter(carries).count() as u64
}

/// Entries by which a node gets another name, and the old one.
fn renames(h: &History) -> impl Iterator<Item = (usize, NodeName)> {
    let truth = h.truth();
    truth.entries.iter().enumerate().filter_map(|(position, entry)| {
        let Some((Command::Register(registrations), _)) = &entry.command else {
            return None;
        };
        let before = truth.state(position);
        let renamed = registrations.iter().find_map(|registration| {
            let new = &registration.node;
            let nodes = before.nodes.iter();
            nodes
                .filter(|old| !new.id.is_empty() && old.id == new.id && old.name != new.name)
                .map(|old| old.name.clone())
                .next()
        });
        let changed = entry.expected.as_ref().is_some_and(|(_, changed)| *changed);
        renamed.filter(|_| changed).map(|old| (position, old))
    })
}

/// A question names the meta of nodes, and gets some of what there is.
pub(super) fn by_node_meta(h: &History) -> u64 {
    let found = narrowings(h).filter(|(op, _, by)| {
        let told = op.answer().and_then(|it| it.content.as_ref());
        !by.node_meta.is_empty() && told.is_some_and(|told| !told.is_empty())
    });
    found.count() as u64
}

/// A question names a node that comes first, and its answer would begin with another one.
pub(super) fn by_nearness(h: &History) -> u64 {
    let found = narrowings(h).filter(|(op, ask, by)| {
        let told = op.answer().and_then(|it| it.content.as_ref());
        let first = |content: &Content| match content {
            Content::Instances(all) => all.first().map(|it| it.node.clone()),
            Content::Nodes(all) => all.first().map(|it| it.name.clone()),
            Content::Checks(all) => all.first().map(|it| it.node.clone()),
            _ => None,
        };
        let whole = h.truth().content(ask, h.truth().applied_until(op.returned));
        by.near.is_some() && told.and_then(first) == by.near && first(&whole) != by.near
    });
    found.count() as u64
}

/// The agent's API is asked for health, and answers with this status code.
pub(super) fn agent_health(h: &History, status: u16) -> u64 {
    let told = h.operations.iter().filter(|op| {
        let seen = op.answer().and_then(|it| it.content.as_ref());
        let Some(Content::Agent(AgentSeen::Health(code, _) | AgentSeen::Word(code, _))) = seen else {
            return false;
        };
        *code == status
    });
    told.count() as u64
}
