//! Situations that concern the servers in their own catalog.

use sider_core::registry::{CheckStatus, Command, Deregister};

use crate::{history::History, matching::Source, model::State, truth::Entry};

/// Entries by which a leader keeps the servers in their catalog, by the states before and after them.
fn entries(history: &History, counts: impl Fn(&Entry, &State, &State) -> bool) -> u64 {
    let truth = history.truth();
    let all = truth.entries.iter().zip(&truth.sources).enumerate();
    let upkeep = all.filter(|(_, (_, source))| **source == Source::Upkeep);
    let counted = upkeep
        .filter(|(position, (entry, _))| counts(entry, &truth.state(*position), &truth.state(position + 1)));
    counted.count() as u64
}

/// Whether a registered server turns to a status from another one.
fn turns(entry: &Entry, before: &State, to: CheckStatus) -> bool {
    let Some((Command::Register(registrations), _)) = &entry.command else {
        return false;
    };
    let mut checks = registrations.iter().flat_map(|it| &it.checks);
    checks.any(|check| {
        let shown = before.check(&check.key()).map(|it| it.status);
        check.status == Some(to) && shown.is_some_and(|shown| shown != to)
    })
}

pub(super) fn failed(history: &History) -> u64 {
    entries(history, |entry, before, _| {
        turns(entry, before, CheckStatus::Critical)
    })
}

pub(super) fn back(history: &History) -> u64 {
    entries(history, |entry, before, _| {
        turns(entry, before, CheckStatus::Passing)
    })
}

pub(super) fn leader_moves(history: &History) -> u64 {
    let leads = |state: &State| -> Vec<String> {
        let marked = |it: &&std::sync::Arc<sider_core::registry::Instance>| {
            it.meta.get("leader").is_some_and(|leads| leads == "true")
        };
        state
            .instances
            .iter()
            .filter(marked)
            .map(|it| it.node.to_string())
            .collect()
    };
    entries(history, |_, before, after| {
        !leads(before).is_empty() && leads(before) != leads(after)
    })
}

pub(super) fn gone(history: &History) -> u64 {
    entries(
        history,
        |entry, before, _| matches!(&entry.command, Some((Command::Deregister(Deregister::Node(node)), _)) if before.node(node).is_some()),
    )
}
