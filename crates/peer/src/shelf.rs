//! The store's snapshots, as the streams want them.

use raftgrid_driver::{Index, Snapshot, Term};
use raftgrid_store::{Disk, SnapshotReader, SnapshotShelf, Staging};

use crate::snapshots::{SnapshotFile, SnapshotFiles, SnapshotSink, SnapshotSource};

/// A shelf of snapshots, for the transport and the service.
pub struct ShelfSnapshots<D: Disk> {
    shelf: SnapshotShelf<D>,
}

impl<D: Disk> ShelfSnapshots<D> {
    /// Of this store.
    pub fn new(shelf: SnapshotShelf<D>) -> Self {
        Self { shelf }
    }
}

impl<D: Disk + Send + Sync + 'static> SnapshotFiles for ShelfSnapshots<D> {
    fn open(&self, name: &str) -> Result<Box<dyn SnapshotSource>, String> {
        let reader = self.shelf.open(name).map_err(|error| error.to_string())?;
        Ok(Box::new(Outbound { reader }))
    }

    fn begin(&self, index: Index, term: Term) -> Result<Box<dyn SnapshotSink>, String> {
        let staging = self.shelf.stage(index, term).map_err(|error| error.to_string())?;
        Ok(Box::new(Inbound { staging }))
    }
}

struct Outbound<D: Disk> {
    reader: SnapshotReader<D>,
}

impl<D: Disk + Send + Sync> SnapshotSource for Outbound<D> {
    fn files(&self) -> Vec<SnapshotFile> {
        let files = self.reader.files().iter();
        files.map(|file| SnapshotFile { name: file.name.clone(), bytes: file.bytes }).collect()
    }

    fn read(&mut self, file: &str, offset: u64, length: usize) -> Result<Vec<u8>, String> {
        self.reader.read(file, offset, length).map_err(|error| error.to_string())
    }
}

struct Inbound<D: Disk> {
    staging: Staging<D>,
}

impl<D: Disk + Send + Sync> SnapshotSink for Inbound<D> {
    fn write(&mut self, file: &str, offset: u64, data: &[u8]) -> Result<(), String> {
        self.staging.write(file, offset, data).map_err(|error| error.to_string())
    }

    fn finish(self: Box<Self>) -> Result<Snapshot, String> {
        self.staging.finish().map_err(|error| error.to_string())
    }
}
