//! Snapshots of the tables, made on the thread `snapshot` while apply goes on.

use std::path::Path;
use std::sync::Arc;

use raftgrid_driver::{Snapshot, SnapshotMeta};

use crate::disk::{Disk, StateDb};
use crate::error::StoreError;
use crate::layout::{making_name, snapshot_name};
use crate::tables::{corrupted, peek_standing, read_standing, Shared};

/// Makes snapshots of the tables while apply goes on.
pub struct Checkpointer<D: Disk> {
    shared: Arc<Shared<D>>,
}

impl<D: Disk> Clone for Checkpointer<D> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<D: Disk> Checkpointer<D> {
    pub(crate) fn new(shared: Arc<Shared<D>>) -> Self {
        Self { shared }
    }

    /// Makes a checkpoint and puts it on the shelf; (index, term, configuration) are read out of it. The newest one
    /// on the shelf serves again if nothing was applied since. Blocks for a flush: call it on the thread `snapshot`.
    pub fn make(&self) -> Result<Snapshot, StoreError> {
        let Shared { disk, layout, shelf, .. } = &*self.shared;
        let db = self.shared.db();
        let standing = read_standing(&*db, &layout.root)?;
        if let Some(newest) = shelf.newest().filter(|newest| newest.meta.index == standing.applied.0) {
            return Ok(newest);
        }
        disk.create_dir(&layout.snapshots())?;
        let nonce = disk.nonce();
        let making = layout.snapshot(&making_name(nonce));
        let made = self.fill(&db, &making, nonce);
        if made.is_err() {
            // The half-made directory goes now or at boot; the error that made it so is the one that counts.
            let _ = disk.remove_dir(&making);
        }
        made
    }

    fn fill(&self, db: &Arc<D::State>, making: &Path, nonce: u128) -> Result<Snapshot, StoreError> {
        let Shared { disk, shelf, .. } = &*self.shared;
        db.checkpoint(making)?;
        let Some(standing) = peek_standing(disk, making)? else {
            return Err(corrupted(making, "the applied position or the configuration does not decode"));
        };
        let Some(conf) = standing.conf else {
            let cause = "these tables stand before any configuration".to_owned();
            return Err(StoreError::Broken { action: "make a snapshot", cause });
        };
        let meta = SnapshotMeta { index: standing.applied.0, term: standing.applied.1, conf };
        let name = snapshot_name(meta.index, meta.term, nonce);
        shelf.put(Snapshot { meta, name }, making)
    }
}
