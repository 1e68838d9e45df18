//! The proof: simulated clients, the history of what they saw, and the judges of that history.
//!
//! Reading order: [`operation`] is what a client can ask, [`history`] what is written down of a run. [`model`] is the
//! registry once more, as plainly as possible; [`truth`] lets it carry out the committed log. [`invariants`] hold a history
//! against that truth.

pub mod time;

pub mod operation;

pub mod content;

pub mod history;

pub mod model;

pub mod answers;

pub mod matching;

pub mod truth;

pub mod invariants;

pub mod cluster;
