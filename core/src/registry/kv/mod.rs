//! Keys and values: what every key holds now, and what it held before.
//!
//! The store is multi-version: each command that changes keys makes one *revision*, and that is the registry's index.
//! `/v1/kv` shows the newest; the older versions are kept until they are compacted, by number and by bytes.
//!
//! - `model`: a key, and what it holds.
//! - `keys`: the newest version of each key, and who holds which locks.
//! - `history`: every version that is kept, the newest ones included, and compaction.
//! - `directories`: how new each prefix is, without looking at everything beneath it.

mod directories;
mod history;
mod keys;
mod model;

pub use history::Compacted;
pub use model::{InvalidKey, Key, KeyValue};

pub(super) use directories::Directories;
pub(super) use history::History;
pub(super) use keys::{KeyTable, LockDelay};
