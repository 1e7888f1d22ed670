//! Receives one snapshot, file by file and chunk by chunk, and makes it a state directory when it is whole.

use std::collections::BTreeMap;
use std::path::PathBuf;

use raftgrid_driver::{mutant, Index, Snapshot, SnapshotMeta, Term};

use crate::disk::Disk;
use crate::error::StoreError;
use crate::layout::{is_plain_name, staging_name, state_name, Layout, SNAPSHOT_META};
use crate::limits::SNAPSHOT_FILES_MAX;
use crate::tables::peek_standing;

/// A snapshot on its way in. Dropped unfinished, it leaves nothing behind.
pub struct Staging<D: Disk> {
    disk: D,
    layout: Layout,
    path: PathBuf,
    nonce: u128,
    announced: (Index, Term),
    received: BTreeMap<String, u64>,
    finished: bool,
}

impl<D: Disk> Staging<D> {
    pub(crate) fn begin(disk: D, layout: Layout, index: Index, term: Term) -> Result<Self, StoreError> {
        if index == 0 || term == 0 {
            return Err(StoreError::Staged { cause: "it is announced without an index or a term".into() });
        }
        let nonce = disk.nonce();
        let path = layout.entry(&staging_name(nonce));
        disk.create_dir(&path)?;
        let received = BTreeMap::new();
        Ok(Self { disk, layout, path, nonce, announced: (index, term), received, finished: false })
    }

    /// Bytes of `file` received so far: where a sender goes on.
    pub fn received(&self, file: &str) -> u64 {
        self.received.get(file).copied().unwrap_or(0)
    }

    /// Writes the next chunk of `file`, whose checksum the caller has compared. A chunk that leaves a gap or goes
    /// back is refused.
    pub fn write(&mut self, file: &str, offset: u64, data: &[u8]) -> Result<(), StoreError> {
        let refused = |cause: String| Err(StoreError::Staged { cause });
        if !is_plain_name(file) || file == SNAPSHOT_META {
            return refused(format!("{file:?} is not a plain file name"));
        }
        if !self.received.contains_key(file) && self.received.len() >= SNAPSHOT_FILES_MAX {
            return refused(format!("it has more than {SNAPSHOT_FILES_MAX} files"));
        }
        let length = self.received(file);
        if offset != length {
            return refused(format!("{file} goes on at {offset}, but {length} bytes are here"));
        }
        self.disk.write_at(&self.path.join(file), offset, data)?;
        self.received.insert(file.to_owned(), length + data.len() as u64);
        Ok(())
    }

    /// Checks every block, compares (index, term), makes all of it durable and gives it its name, which then goes
    /// into `MsgSnapshot`. Blocks for as long as reading the state takes.
    pub fn finish(mut self) -> Result<Snapshot, StoreError> {
        let (index, term) = self.announced;
        let damaged = |cause: String| StoreError::Staged { cause };
        // Whatever is wrong with bytes that a peer sent is the transfer's failure, not this replica's.
        if !mutant::on("snapshot_not_verified") {
            self.disk.verify_state(&self.path).map_err(|error| damaged(error.to_string()))?;
        }
        let standing = peek_standing(&self.disk, &self.path).map_err(|error| damaged(error.to_string()))?;
        let standing = standing.ok_or_else(|| damaged("its position does not decode".into()))?;
        if standing.applied != (index, term) {
            return Err(damaged(format!("{:?} was announced, {:?} arrived", (index, term), standing.applied)));
        }
        let conf = standing.conf.ok_or_else(|| damaged("it has no configuration".into()))?;
        if !mutant::on("snapshot_files_not_fsynced") {
            for entry in self.disk.list(&self.path)? {
                self.disk.sync_file(&self.path.join(entry.name))?;
            }
            self.disk.sync_dir(&self.path)?;
        }
        let name = state_name(index, self.nonce);
        self.disk.rename(&self.path, &self.layout.entry(&name))?;
        self.finished = true;
        if !mutant::on("directory_not_fsynced") {
            self.disk.sync_dir(&self.layout.root)?;
        }
        Ok(Snapshot { meta: SnapshotMeta { index, term, conf }, name })
    }
}

impl<D: Disk> Drop for Staging<D> {
    fn drop(&mut self) {
        if !self.finished {
            // What cannot be removed now is removed at the next boot.
            let _ = self.disk.remove_dir(&self.path);
        }
    }
}
