//! Situations that concern the state as a whole: backups, restores, and the version of commands.

use sider_core::registry::{Command, Restore, Session};

use crate::{
    audit::AUDITOR,
    history::{History, Operation, Outcome},
    model::State,
    operation::Op,
};

fn count(history: &History, counts: impl Fn(&Operation) -> bool) -> u64 {
    history.operations.iter().filter(|it| counts(it)).count() as u64
}

/// Entries, by the states before and after them.
fn entries(history: &History, counts: impl Fn(&Command, &State, &State) -> bool) -> u64 {
    let truth = history.truth();
    let counted = truth.entries.iter().enumerate().filter(|(position, entry)| {
        let command = entry.command.as_ref().map(|(command, _)| command);
        command.is_some_and(|it| counts(it, &truth.state(*position), &truth.state(position + 1)))
    });
    counted.count() as u64
}

pub(super) fn saved(history: &History) -> u64 {
    count(history, |it| {
        it.op == Op::Save && it.is_done() && it.client != u32::from(AUDITOR)
    })
}

pub(super) fn restored(history: &History) -> u64 {
    history.truth().restored().count() as u64
}

pub(super) fn sessions_replaced(history: &History) -> u64 {
    let truth = history.truth();
    let ids = |state: &State| -> Vec<_> { state.sessions.iter().map(|it| it.id.clone()).collect() };
    let replaced = |at: &usize| ids(&truth.state(*at)) != ids(&truth.state(at + 1));
    truth.restored().filter(replaced).count() as u64
}

/// The file's index is above that of the registry.
pub(super) fn ahead(history: &History) -> u64 {
    entries(history, |command, before, after| {
        let is_ahead =
            matches!(command, Command::Restore(Restore::Commit { index, .. }) if *index > before.index);
        is_ahead && before.floor != after.floor
    })
}

/// A node goes, and with it what lives on it.
pub(super) fn sessions_without_node(history: &History) -> u64 {
    entries(history, |command, before, after| {
        let ends =
            |session: &Session| after.session(&session.id).is_none() && after.node(&session.node).is_none();
        !matches!(command, Command::Restore(_)) && before.sessions.iter().any(|it| ends(it))
    })
}

pub(super) fn damaged_refused(history: &History) -> u64 {
    count(history, |it| {
        matches!(it.op, Op::Restore { damage } if !damage.is_sound())
            && matches!(it.outcome, Outcome::Refused { .. })
    })
}

/// Something was laid down, and then something else came of it than the restore.
pub(super) fn failed_half_way(history: &History) -> u64 {
    entries(history, |command, before, after| {
        matches!(command, Command::Restore(_)) && before.staged().is_some() && before.floor == after.floor
    })
}

/// What was laid down was discarded when nobody waited for the restore any more.
pub(super) fn taken_away(history: &History) -> u64 {
    let truth = history.truth();
    let asked = |at: crate::time::Time| {
        let mut operations = history.operations.iter();
        operations.any(|it| matches!(it.op, Op::Restore { .. }) && it.invoked <= at && it.returned >= at)
    };
    let discarded = truth.entries.iter().enumerate().filter(|(position, entry)| {
        let discards = matches!(
            &entry.command,
            Some((Command::Restore(Restore::Discard { .. }), _))
        );
        discards && truth.state(*position).staged().is_some() && !asked(entry.applied)
    });
    discarded.count() as u64
}

pub(super) fn moved_on(history: &History) -> u64 {
    match history.bounds.older_programs {
        true => entries(history, |_, before, after| before.version < after.version),
        false => 0,
    }
}

pub(super) fn refused_for_an_older_member(history: &History) -> u64 {
    let older = |reason: &str| reason.contains("read commands of version");
    count(
        history,
        |it| matches!(&it.outcome, Outcome::Failed(reason) if older(reason)),
    )
}
