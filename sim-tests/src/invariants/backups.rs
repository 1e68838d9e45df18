//! A snapshot file holds the state of one moment between request and answer, all of it; and a restore puts exactly that
//! back, at one moment, under an index above everything that was there before. A file that was damaged on its way
//! changes nothing (SPEC §3, §8).

use super::Violation;
use crate::{
    content::{Content, StateSeen},
    history::{History, Operation, Outcome},
    operation::{Damage, Op},
};

/// Its name.
pub const NAME: &str = "backups";

/// See the module's page.
///
/// # Errors
/// A file or a state after a restore holds something else than it should.
pub fn check(history: &History) -> Result<(), Violation> {
    for operation in &history.operations {
        match operation.op {
            Op::Save => saved(history, operation)?,
            Op::Restore { damage } => restored(history, operation, damage)?,
            _ => {}
        }
    }
    Ok(())
}

fn violation(operation: &Operation, what: String) -> Result<(), Violation> {
    Err(Violation::of(NAME, operation.returned, [operation.id], what))
}

fn saved(history: &History, operation: &Operation) -> Result<(), Violation> {
    let Some(answer) = operation.answer() else {
        return Ok(());
    };
    let Some(Content::Snapshot(file)) = &answer.content else {
        return violation(operation, "a save was answered without a file".into());
    };
    if answer.index != Some(file.index.max(1)) {
        let what = format!(
            "the answer says index {:?}, the file {}",
            answer.index, file.index
        );
        return violation(operation, what);
    }
    let truth = history.truth();
    let (first, last) = (
        truth.applied_before(operation.invoked),
        truth.applied_until(operation.returned),
    );
    // Going through all points is no waste: most requests meet but a few entries.
    if (first..=last).any(|point| StateSeen::of(&truth.state(point)) == **file) {
        return Ok(());
    }
    let what = format!(
        "the file of index {} is no state between the entries {first} and {last} of the log",
        file.index
    );
    violation(operation, what)
}

fn restored(history: &History, operation: &Operation, damage: Damage) -> Result<(), Violation> {
    let Outcome::Done(answer) = &operation.outcome else {
        return Ok(());
    };
    if damage != Damage::None {
        return violation(operation, format!("a file that was {damage:?} was restored"));
    }
    let truth = history.truth();
    let Some(position) = truth.entry_of(operation.id) else {
        // Judged as a write without an entry.
        return Ok(());
    };
    let (before, after) = (truth.state(position), truth.state(position + 1));
    if answer.index != Some(after.index) || after.index <= before.index {
        let what = format!(
            "a restore took the registry from index {} to {}, and answered {:?}",
            before.index, after.index, answer.index
        );
        return violation(operation, what);
    }
    let files = history.operations.iter().filter_map(|it| {
        let file = it.answer()?.content.as_ref()?;
        let before_it = it.invoked <= operation.returned;
        match file {
            Content::Snapshot(file) if before_it => Some(file),
            _ => None,
        }
    });
    let mut files = files.peekable();
    // A file from elsewhere is known to the model alone.
    if files.peek().is_none() || files.any(|file| same_things(&StateSeen::of(&after), file)) {
        return Ok(());
    }
    violation(
        operation,
        "after the restore something else is there than in any file".into(),
    )
}

/// Whether both hold the same, whichever indexes it has: what is the same in both stays as it was.
fn same_things(state: &StateSeen, file: &StateSeen) -> bool {
    let plain = |state: &StateSeen| {
        let mut state = state.clone();
        state.index = 0;
        for node in &mut state.nodes {
            (node.create_index, node.modify_index) = (0, 0);
        }
        for instance in &mut state.instances {
            (instance.create_index, instance.modify_index) = (0, 0);
        }
        for check in &mut state.checks {
            (check.create_index, check.modify_index, check.renewals) = (0, 0, 0);
        }
        state
    };
    plain(state) == plain(file)
}
