//! How much is kept of what is gone.

use crate::limits;

/// How much a registry keeps of what is gone. What it drops, and when, is part of its state: **all servers of a cluster
/// must keep as much**, or their states part. So nothing but the defaults is for production.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Indexes of deleted things of each kind: see [`limits::TOMBSTONES_MAX`].
    pub tombstones: usize,
    /// Superseded versions of keys: see [`limits::KEY_VERSIONS_KEPT_MAX`].
    pub key_versions: usize,
}

impl Default for Retention {
    fn default() -> Self {
        Retention {
            tombstones: limits::TOMBSTONES_MAX,
            key_versions: limits::KEY_VERSIONS_KEPT_MAX,
        }
    }
}

/// How many are dropped at once of what may be `most`: see [`limits::FOLD_DIVISOR`]. At least 1.
pub(super) fn folded_at_once(most: usize) -> usize {
    (most / limits::FOLD_DIVISOR).max(1)
}
