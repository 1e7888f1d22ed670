//! Snapshots of this replica for whoever makes a backup: read from the shelf, where they stay until they are read.

use raftgrid_store::{Disk, SnapshotReader, SnapshotShelf, StoreError};

use crate::ports::{CallError, SnapshotOut};

/// Opens the newest snapshot at or above an index. Touches the disk.
pub(crate) type OpenSnapshot = Box<dyn Fn(u64) -> Result<Box<dyn SnapshotOut>, CallError> + Send + Sync>;

/// Over a shelf.
pub(crate) fn opener<D: Disk>(shelf: SnapshotShelf<D>) -> OpenSnapshot {
    Box::new(move |min_index| {
        let newest = shelf.newest().filter(|snapshot| snapshot.meta.index >= min_index);
        let newest =
            newest.ok_or_else(|| CallError::NotFound(format!("no snapshot at {min_index} or above is here")))?;
        Ok(Box::new(OnShelf { reader: shelf.open(&newest.name).map_err(failed)? }))
    })
}

struct OnShelf<D: Disk> {
    reader: SnapshotReader<D>,
}

impl<D: Disk> SnapshotOut for OnShelf<D> {
    fn stands(&self) -> (u64, u64) {
        let meta = &self.reader.snapshot().meta;
        (meta.index, meta.term)
    }

    fn files(&self) -> Vec<(String, u64)> {
        self.reader.files().iter().map(|file| (file.name.clone(), file.bytes)).collect()
    }

    fn read(&mut self, file: &str, offset: u64, length: usize) -> Result<Vec<u8>, CallError> {
        self.reader.read(file, offset, length).map_err(failed)
    }
}

fn failed(error: StoreError) -> CallError {
    match error {
        StoreError::NoSnapshot { .. } => CallError::NotFound(error.to_string()),
        other => CallError::Internal(other.to_string()),
    }
}
