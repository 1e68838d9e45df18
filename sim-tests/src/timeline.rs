//! A run in plain words: faults, elections, requests, answers, and what went wrong.

use std::fmt::Write as _;

use crate::{
    history::{History, Operation},
    invariants::Violation,
    time::Time,
    words,
};

/// What happened, one line each, in order; violations stand where they showed, and `!` marks the lines of the operations
/// that they name. With `all`, also what every server appended and applied.
pub fn timeline(history: &History, violations: &[Violation], all: bool) -> String {
    let mut lines = Lines(Vec::new());
    lines.faults(history);
    lines.operations(history, violations);
    lines.servers(history, all);
    lines.log(history);
    for violation in violations {
        lines.add(violation.at, 5, format!(">>>>>>>>>> VIOLATED: {violation}"));
    }
    for (at, what) in &history.panics {
        lines.add(*at, 5, format!(">>>>>>>>>> PANIC: {what}"));
    }
    lines.0.sort_by_key(|line| (line.0, line.1));
    lines.0.iter().fold(String::new(), |mut text, (at, _, line)| {
        writeln!(text, "{at:>12} {line}").expect("writing to a String can't fail");
        text
    })
}

/// When, in which place among those of one moment, and what.
struct Lines(Vec<(Time, u8, String)>);

impl Lines {
    fn add(&mut self, at: Time, place: u8, text: String) {
        self.0.push((at, place, text));
    }

    fn faults(&mut self, history: &History) {
        for fault in &history.faults {
            self.add(fault.from, 0, format!(" FAULT     {}", fault.what));
            self.add(fault.until, 0, format!(" fault over: {}", fault.what));
        }
        for change in &history.memberships {
            let verb = if change.joins { "join" } else { "leave" };
            let asks = format!(" operator  asks {} to {verb}", change.server);
            self.add(change.invoked, 2, asks);
            let hears = format!(
                " operator  hears of {}'s {verb}: {}",
                change.server, change.answer
            );
            self.add(change.returned, 4, hears);
        }
        let healed = " HEALED    every fault is over, everyone is started";
        self.add(history.healed, 1, healed.into());
    }

    fn operations(&mut self, history: &History, violations: &[Violation]) {
        let named = |operation: &Operation| violations.iter().any(|it| it.operations.contains(&operation.id));
        for operation in &history.operations {
            let mark = if named(operation) { '!' } else { ' ' };
            let name = format!(
                "{mark}#{:<4} c{} → {}",
                operation.id, operation.client, operation.server
            );
            self.add(operation.invoked, 2, format!("{name}: {}", operation.op));
            let took = words::span(operation.returned.since(operation.invoked));
            let came = words::outcome(&operation.outcome);
            self.add(operation.returned, 4, format!("{name}: after {took} {came}"));
        }
    }

    fn servers(&mut self, history: &History, all: bool) {
        for seen in &history.observations {
            if let Some(text) = words::fact(&seen.what, all) {
                self.add(seen.at, 3, format!(" {:<9} {text}", seen.server.to_string()));
            }
        }
    }

    /// What the cluster as a whole did: each entry once, when it was first applied.
    fn log(&mut self, history: &History) {
        for entry in &history.truth().entries {
            if let Some((command, _)) = &entry.command {
                let text = format!(
                    " log       entry {} (index {}) by the leader of term {}: {}",
                    entry.log_index,
                    entry.state.index,
                    entry.term,
                    words::command(command)
                );
                self.add(entry.applied, 3, text);
            }
        }
    }
}
