//! Traps: something that happens at a chosen step of a disk's work, before anything else can.

use std::fmt;

use sider_core::runtime::{Change, Keyspace};

/// A step of a disk's work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskStep {
    /// A batch that sets keys of this keyspace.
    Put(Keyspace),
    /// A batch that removes keys of this keyspace.
    Delete(Keyspace),
    /// A sync.
    Sync,
}

/// A side of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edge {
    /// Nothing of it is carried out.
    Before,
    /// It is carried out, and nobody was told.
    After,
}

/// What happens when a trap is sprung.
pub(super) type Spring = Box<dyn FnOnce() + Send>;

/// One that is set.
pub(super) struct Trap {
    pub(super) step: DiskStep,
    pub(super) edge: Edge,
    /// So many of these steps are still to come, with the one that springs it.
    pub(super) left: u32,
    pub(super) spring: Spring,
}

impl fmt::Debug for Trap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {:?}, {} to go", self.edge, self.step, self.left)
    }
}

impl DiskStep {
    /// Whether writing `batch` is this step.
    pub(super) fn is_write_of(self, batch: &[Change]) -> bool {
        batch.iter().any(|change| match (self, change) {
            (DiskStep::Put(keyspace), Change::Put(there, ..))
            | (DiskStep::Delete(keyspace), Change::Delete(there, _) | Change::DeleteRange(there, ..)) => {
                keyspace == *there
            }
            _ => false,
        })
    }
}
