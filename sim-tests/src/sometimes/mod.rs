//! Situations that must occur, or a sweep proves little: a judge that never saw an expiry during an election says nothing
//! about one. Each is counted in every run; a row that stays at zero fails the sweep.
//!
//! [`TABLE`] is the list, in [`rows`]; how what they tell of is counted is in [`counting`] and the modules beside it.

mod agents;
mod autopilot;
mod catalog;
mod cluster;
mod counting;
mod forwarding;
mod hashes;
mod prepared;
mod probes;
mod rare;
mod rows;
mod shown;
mod streams;
mod whole;

use std::fmt;

use crate::history::History;
pub use rows::TABLE;

/// A situation.
pub struct Situation {
    /// Its name, which a report uses.
    pub name: &'static str,
    /// How often a sweep of the usual size meets it.
    pub how_often: HowOften,
    /// How often it occurred in a run.
    pub count: fn(&History) -> u64,
}

/// How often a situation occurs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HowOften {
    /// In the sweep of `cargo test`, for sure.
    Usual,
    /// Only nightly sweeps are sure to meet it.
    Rare,
}

/// How often each situation occurred, over any number of runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tally {
    /// Of each row of [`TABLE`]: how often, and in how many runs.
    counts: Vec<(u64, u64)>,
    runs: u64,
}

impl Default for Tally {
    fn default() -> Self {
        Tally {
            counts: vec![(0, 0); TABLE.len()],
            runs: 0,
        }
    }
}

impl Tally {
    /// What occurred in a run.
    pub fn of(history: &History) -> Tally {
        let count = |situation: &Situation| {
            let count = (situation.count)(history);
            (count, u64::from(count > 0))
        };
        Tally {
            counts: TABLE.iter().map(count).collect(),
            runs: 1,
        }
    }

    /// Adds what occurred in other runs.
    pub fn add(&mut self, other: &Tally) {
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            mine.0 += theirs.0;
            mine.1 += theirs.1;
        }
        self.runs += other.runs;
    }

    /// How often each situation occurred, by name.
    pub fn hits(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let rows = TABLE.iter().zip(&self.counts);
        rows.map(|(situation, (count, _))| (situation.name, *count))
    }

    /// How many situations occurred.
    pub fn seen(&self) -> usize {
        self.counts.iter().filter(|(count, _)| *count > 0).count()
    }

    /// Names of the situations that must have occurred in a sweep like this, and did not.
    pub fn missing(&self, nightly: bool) -> Vec<&'static str> {
        let owed = |situation: &Situation| nightly || situation.how_often == HowOften::Usual;
        TABLE
            .iter()
            .zip(&self.counts)
            .filter(|(situation, (count, _))| *count == 0 && owed(situation))
            .map(|(situation, _)| situation.name)
            .collect()
    }
}

impl fmt::Display for Tally {
    /// The table, the rarest first.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rows: Vec<(u64, u64, &str)> = TABLE
            .iter()
            .zip(&self.counts)
            .map(|(situation, (count, runs))| (*runs, *count, situation.name))
            .collect();
        rows.sort_unstable();
        writeln!(
            f,
            "{} of {} situations seen in {} runs:",
            self.seen(),
            TABLE.len(),
            self.runs
        )?;
        for (runs, count, name) in rows {
            writeln!(f, "{count:>10} times in {runs:>7} runs  {name}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Record;

    #[test]
    fn every_row_has_a_name_of_its_own() {
        let mut names: Vec<&str> = TABLE.iter().map(|situation| situation.name).collect();
        names.sort_unstable();
        let all = names.len();
        names.dedup();
        assert_eq!(names.len(), all);
        assert!(all >= 60, "{all} rows");
    }

    #[test]
    fn nothing_occurs_in_an_empty_run() {
        let tally = Tally::of(&History::new(Record::default()));
        assert_eq!(tally.seen(), 0, "{tally}");
        assert_eq!(tally.missing(true).len(), TABLE.len());
        assert!(tally.missing(false).len() < TABLE.len(), "some rows are rare");
    }

    #[test]
    fn runs_add_up() {
        let mut tally = Tally::default();
        let one = Tally {
            counts: vec![(2, 1); TABLE.len()],
            runs: 1,
        };
        tally.add(&one);
        tally.add(&one);
        assert_eq!(tally.counts[0], (4, 2));
        assert_eq!(tally.runs, 2);
        assert!(tally.missing(true).is_empty());
    }
}
