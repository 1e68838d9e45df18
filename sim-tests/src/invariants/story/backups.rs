//! Backups and restores in a story.

use serde::Serialize;
use sider_core::registry::{Command, Restore};

use super::Story;
use crate::{
    content::{Content, StateSeen},
    history::{Answer, Outcome},
    model::State,
    operation::{Damage, Op},
};

impl Story {
    /// A client saves everything; gives the operation, and what is in the file.
    pub(in crate::invariants) fn save(&mut self) -> (u32, State) {
        let invoked = self.now;
        self.wait_ms(1);
        let file = self.state.clone();
        let outcome = Outcome::Done(Answer {
            told: None,
            index: Some(file.index.max(1)),
            content: Some(Content::Snapshot(Box::new(StateSeen::of(&file)))),
            refused: vec![],
        });
        (self.operate(1, Op::Save, invoked, outcome), file)
    }

    /// A client restores a file.
    pub(in crate::invariants) fn restore(&mut self, file: &State) -> u32 {
        let invoked = self.now;
        let restore = self.lay_down(file);
        self.commit(Command::Restore(Restore::Commit {
            restore,
            parts: 1,
            index: file.index,
            digest: 0,
        }));
        let outcome = self.written();
        self.operate(1, Op::Restore { damage: Damage::None }, invoked, outcome)
    }

    /// The one part of a file is laid down; gives the number of the restore.
    pub(in crate::invariants) fn lay_down(&mut self, file: &State) -> u64 {
        let restore = self.next_log_index;
        let rows = packed(file);
        self.commit(Command::Restore(Restore::Stage {
            restore,
            part: 0,
            rows,
        }));
        restore
    }
}

/// Rows of a file, as far as the model reads them.
fn packed(state: &State) -> Vec<u8> {
    let mut rows = Rows::default();
    state.nodes.iter().for_each(|node| rows.add(&[0x10], node));
    state.instances.iter().for_each(|it| rows.add(&[0x11], it));
    state.checks.iter().for_each(|check| rows.add(&[0x12], check));
    for held in &state.keys {
        let mut key = vec![0x13];
        key.extend_from_slice(&held.modify_index.to_be_bytes());
        key.extend_from_slice(held.key.as_bytes());
        rows.add(&key, &Some(held));
    }
    state.sessions.iter().for_each(|it| rows.add(&[0x14], it));
    for (key, delay) in state.delays() {
        let mut row = vec![0x15];
        row.extend_from_slice(key.as_bytes());
        rows.add(&row, delay);
    }
    rows.0
}

#[derive(Default)]
struct Rows(Vec<u8>);

impl Rows {
    fn add(&mut self, key: &[u8], thing: &impl Serialize) {
        let value = postcard::to_extend(thing, vec![1]).expect("it can be stored");
        for part in [key, &value] {
            let length = u32::try_from(part.len()).expect("a short story");
            self.0.extend_from_slice(&length.to_be_bytes());
            self.0.extend_from_slice(part);
        }
    }
}
