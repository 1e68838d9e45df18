//! A snapshot file holds the state of one moment between request and answer, all of it; and a restore puts exactly that
//! back, at one moment, under an index above everything that was there before. A file that was damaged on its way
//! changes nothing, and of a restore that was given up half-way nothing stays behind (SPEC §3, §8).

use std::time::Duration;

use super::Violation;
use crate::{
    content::{Content, StateSeen},
    history::{History, Operation, Outcome},
    operation::{Damage, Op},
    time::{Time, drift_of},
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
    for (from, until) in &history.truth().calm {
        nothing_lies_about(history, *from, *until)?;
    }
    Ok(())
}

/// At the end of a span in which all was calm, no part of a restore lies there that was laid down long before.
fn nothing_lies_about(history: &History, from: Time, until: Time) -> Result<(), Violation> {
    let truth = history.truth();
    let last = truth.applied_until(until);
    let Some(staged) = truth.state(last).staged() else {
        return Ok(());
    };
    let same = |point: &usize| truth.state(*point).staged() == Some(staged);
    let first = (0..=last).rev().take_while(same).last().unwrap_or(last);
    let laid_down = first
        .checked_sub(1)
        .map_or(Time(0), |at| truth.entries[at].applied);
    let idle = history.bounds.restore_idle;
    // It is looked for four times in that time, and a new leader begins to count anew.
    let bound = idle + idle / 4 + drift_of(idle * 2, history.bounds.drift_ppm) + history.bounds.latency * 12;
    if until <= from.max(laid_down) + bound + Duration::from_millis(500) {
        return Ok(());
    }
    let what = format!(
        "{} parts of a restore lie there since {laid_down}, and it was given up",
        staged.1
    );
    Err(Violation::new(NAME, until, what))
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
    if !damage.is_sound() {
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
        for held in &mut state.keys {
            (held.version, held.create_index, held.modify_index) = (0, 0, 0);
        }
        for session in &mut state.sessions {
            (session.create_index, session.modify_index, session.renewals) = (0, 0, 0);
        }
        for (_, since) in state.delays.values_mut() {
            *since = 0;
        }
        state
    };
    plain(state) == plain(file)
}

#[cfg(test)]
mod tests {
    use sider_core::registry::{Command, Restore};

    use super::{super::story::Story, *};
    use crate::keys::{KeyOp, Step};

    fn story() -> Story {
        let mut story = Story::new();
        story.wait_ms(5_000);
        story.register("web-1", 1);
        story
    }

    fn complaint(story: Story) -> String {
        check(&story.finish()).expect_err("no backup").what
    }

    fn change_file(story: &mut Story, save: u32, change: impl FnOnce(&mut StateSeen)) {
        story.change_answer(save, |answer| match &mut answer.content {
            Some(Content::Snapshot(file)) => change(file),
            other => panic!("no file: {other:?}"),
        });
    }

    /// With a key, a session that has its lock, and a lock that nobody can take.
    fn with_keys(story: &mut Story) {
        let gone = story.session("gone", 0, 60_000);
        let alive = story.session("alive", 0, 60_000);
        for (key, session) in [("a", &gone), ("b", &alive)] {
            let step = Step::Lock(key.into(), "mine".into(), session.clone());
            story.keys(KeyOp::One(step));
        }
        story.keys(KeyOp::DestroySession { session: gone });
    }

    #[test]
    fn what_was_there_and_comes_back_is_fine() {
        let mut story = story();
        with_keys(&mut story);
        let (_, file) = story.save();
        story.deregister("web-1");
        story.keys(KeyOp::One(Step::Delete("b".into())));
        story.keys(KeyOp::DestroySession {
            session: "id-of-alive".into(),
        });
        story.restore(&file);
        story.save();
        assert_eq!(check(&story.finish()), Ok(()));
    }

    #[test]
    fn a_file_without_a_session_is_not() {
        let mut story = story();
        with_keys(&mut story);
        let (save, _) = story.save();
        change_file(&mut story, save, |file| {
            file.sessions.pop();
        });
        assert!(complaint(story).contains("is no state between"));
    }

    #[test]
    fn a_file_without_the_delay_of_a_lock_is_not() {
        let mut story = story();
        with_keys(&mut story);
        let (save, _) = story.save();
        change_file(&mut story, save, |file| file.delays.clear());
        assert!(complaint(story).contains("is no state between"));
    }

    #[test]
    fn a_file_from_before_an_acknowledged_write_is_not() {
        let mut story = story();
        let (old, _) = story.save();
        story.register("web-2", 2);
        let (new, _) = story.save();
        story.copy_answer(old, new);
        assert!(complaint(story).contains("is no state between"));
    }

    #[test]
    fn an_answer_with_the_index_of_another_state_is_not() {
        let mut story = story();
        let (save, _) = story.save();
        story.change_answer(save, |answer| answer.index = Some(77));
        assert!(complaint(story).contains("the answer says index Some(77)"));
    }

    #[test]
    fn an_answer_without_a_file_is_not() {
        let mut story = story();
        let (save, _) = story.save();
        story.change_answer(save, |answer| answer.content = None);
        assert!(complaint(story).contains("without a file"));
    }

    #[test]
    fn something_else_than_was_saved_is_not() {
        let mut story = story();
        let (_, mut file) = story.save();
        file.instances.clear();
        file.checks.clear();
        story.restore(&file);
        assert!(complaint(story).contains("something else is there"));
    }

    #[test]
    fn a_restore_that_tells_no_index_is_not() {
        let mut story = story();
        let (_, file) = story.save();
        let restore = story.restore(&file);
        story.change_answer(restore, |answer| answer.index = None);
        assert!(complaint(story).contains("took the registry from index"));
    }

    #[test]
    fn believing_a_damaged_file_is_not() {
        let mut story = story();
        let (_, file) = story.save();
        let restore = story.restore(&file);
        let damage = Damage::Flipped(500);
        story.operation(restore).op = Op::Restore { damage };
        assert!(complaint(story).contains("was restored"));
    }

    #[test]
    fn what_was_given_up_and_is_discarded_in_time_is_fine() {
        let mut story = story();
        let (_, file) = story.save();
        let restore = story.lay_down(&file);
        story.wait_ms(3_000);
        story.commit(Command::Restore(Restore::Discard { restore }));
        story.wait_ms(20_000);
        story.lay_down(&file);
        assert_eq!(check(&story.finish()), Ok(()));
    }

    #[test]
    fn what_was_given_up_and_stays_is_not() {
        let mut story = story();
        let (_, file) = story.save();
        story.lay_down(&file);
        story.wait_ms(10_000);
        assert!(complaint(story).contains("lie there since"));
    }
}
