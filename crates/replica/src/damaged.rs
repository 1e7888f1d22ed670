//! Artifacts of which somebody read a file here, and found other bytes than were stored. Whoever reads may not be able to mend; the mender looks
//! at these first, and not only when it comes to read them by itself, a day later.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use raftgrid_blob::BlobError;

use crate::limits::DAMAGED_NOTED_MAX;

/// What was noticed. In memory: after a start it is noticed again.
#[derive(Debug, Default)]
pub(crate) struct Damaged {
    artifacts: Mutex<BTreeSet<u64>>,
}

impl Damaged {
    /// What this replica holds of the artifact is to be read, and made anew if it is damaged.
    pub(crate) fn note(&self, artifact_id: u64) {
        let mut artifacts = self.lock();
        // Beyond it, the mender's own reading finds them.
        if artifacts.len() < DAMAGED_NOTED_MAX {
            artifacts.insert(artifact_id);
        }
    }

    /// Notes what an error says of bytes on this disk; gives the error on.
    pub(crate) fn heard(&self, error: BlobError) -> BlobError {
        if let BlobError::Rotten { artifact_id, .. } = &error {
            self.note(*artifact_id);
        }
        error
    }

    /// All of them.
    pub(crate) fn noted(&self) -> BTreeSet<u64> {
        self.lock().clone()
    }

    /// What is held of it is whole again, or it is gone.
    pub(crate) fn forget(&self, artifact_id: u64) {
        self.lock().remove(&artifact_id);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<u64>> {
        // Each change is one statement.
        self.artifacts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
