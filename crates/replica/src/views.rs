//! Rows as of now: what reads, polls and the leader's loops look at.

use std::sync::Arc;

use raftgrid_manifest::Rows;

/// Position that stands for everything in the entry with this index.
pub(crate) fn end_of_entry(index: u64) -> u64 {
    (index << 16) | 0xffff
}

/// Gives consistent views of the state tables; cheap.
pub(crate) trait Views: Send + Sync {
    /// Rows that hold at least everything up to the position given with them.
    fn view(&self) -> (Arc<dyn Rows + Send + Sync>, u64);
}
