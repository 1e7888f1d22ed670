//! A state of one group becomes the beginning of another: after a majority was lost (`recover`), or out of a backup (`restore`).
//!
//! The new group starts from a snapshot of its own, under a new cluster id, at an index and a term above everything that the old group can
//! have reached. So nothing that the old group gave out (lease epochs, artifact ids) is ever given out again, and none of its replicas is
//! listened to. A `Draft` is that snapshot in the making; it is installed like any other, by one batch of the log (durability rule 5).

use std::path::PathBuf;
use std::sync::Arc;

use raftgrid_driver::{
    ConfState, HardState, Index, LogBatch, LogStore, Snapshot, SnapshotMeta, SyncMark, Syncer, Term,
};
use raftgrid_manifest::{apply, Change, Rows, RowsError, Table};

use crate::boot::Booted;
use crate::codec::Writer;
use crate::disk::{Batch, Direction, Disk, StateDb};
use crate::error::StoreError;
use crate::layout::{staging_name, state_name, Layout};
use crate::limits::{BASE_EPOCH_UNIX_S, BASE_GAP, BASE_INDEX_MAX, BASE_STEP_PER_SECOND};
use crate::log::records::encode_position;
use crate::tables::{get_row, read_standing, row_key, scan_rows, APPLIED, CONF};

/// The id of a group that goes on from another one: it says what it was founded as, and differs each time.
pub fn new_cluster_id(founded_as: &str, nonce: u128) -> String {
    format!("{founded_as}+{:016x}", (nonce >> 64) as u64 ^ nonce as u64)
}

/// Where the log of a group begins that goes on from index `last`. Far above: the lost replicas may have gone on from there. And further
/// above the later it is: two groups that go on from the same state must not give out the same positions. None: no positions are left.
pub fn next_base_index(last: Index, unix_s: u64) -> Option<Index> {
    let later = unix_s.saturating_sub(BASE_EPOCH_UNIX_S).checked_mul(BASE_STEP_PER_SECOND)?;
    let index = last.checked_add(BASE_GAP)?.checked_add(later)?;
    (index <= BASE_INDEX_MAX).then_some(index)
}

/// Tables in a directory of their own that become a snapshot. Dropped unfinished, it leaves nothing behind.
pub struct Draft<D: Disk> {
    disk: D,
    layout: Layout,
    path: PathBuf,
    nonce: u128,
    /// None once it is closed.
    db: Option<Arc<D::State>>,
    stands: (Index, Term),
    finished: bool,
}

impl<D: Disk> Draft<D> {
    /// A copy of the tables as they are now.
    pub(crate) fn of_tables(booted: &Booted<D>, disk: &D, layout: &Layout) -> Result<Self, StoreError> {
        let nonce = disk.nonce();
        let path = layout.entry(&staging_name(nonce));
        let copied = booted.tables.checkpoint_to(&path);
        let draft = Self::over(disk, layout, path, nonce)?;
        copied?;
        draft.opened()
    }

    /// Over files that lie in `path` already, and belong to it from now on.
    pub(crate) fn of_files(disk: &D, layout: &Layout, path: PathBuf, nonce: u128) -> Result<Self, StoreError> {
        Self::over(disk, layout, path, nonce)?.opened()
    }

    fn over(disk: &D, layout: &Layout, path: PathBuf, nonce: u128) -> Result<Self, StoreError> {
        let (disk, layout) = (disk.clone(), layout.clone());
        Ok(Self { disk, layout, path, nonce, db: None, stands: (0, 0), finished: false })
    }

    fn opened(mut self) -> Result<Self, StoreError> {
        let db = self.disk.open_state(&self.path)?;
        self.stands = read_standing(&db, &self.path)?.applied;
        self.db = Some(Arc::new(db));
        Ok(self)
    }

    fn db(&self) -> &Arc<D::State> {
        self.db.as_ref().expect("a draft is open until it is finished")
    }

    /// Where its rows stand.
    pub fn stands(&self) -> (Index, Term) {
        self.stands
    }

    /// Runs an entry on the rows, as every replica would.
    pub fn apply(&mut self, index: Index, payloads: &[impl AsRef<[u8]>]) -> Result<(), StoreError> {
        let failed = |cause: String| StoreError::Refound { action: "apply the log of", dir: self.layout.show(), cause };
        let applied = apply(self, index, payloads).map_err(|error| failed(error.to_string()))?;
        self.write(&applied.changes)?;
        self.stands.0 = index;
        Ok(())
    }

    /// Writes rows.
    pub fn write(&mut self, changes: &[Change]) -> Result<(), StoreError> {
        let mut batch = Batch::default();
        for change in changes {
            let key = row_key(change.table, &change.key);
            match &change.value {
                Some(value) => batch.put(key, value.as_slice()),
                None => batch.delete(key),
            }
        }
        Ok(self.db().write(&batch)?)
    }

    /// Makes it durable as the state of `meta`, under its name. Not part of any log yet.
    pub(crate) fn finish(mut self, meta: SnapshotMeta) -> Result<Snapshot, StoreError> {
        let mut batch = Batch::default();
        batch.put(APPLIED, encode_position(meta.index, meta.term));
        let mut conf = Writer::default();
        conf.conf(&meta.conf);
        batch.put(CONF, conf.0);
        self.db().write(&batch)?;
        self.db().flush(true)?;
        self.db = None;
        for entry in self.disk.list(&self.path)? {
            self.disk.sync_file(&self.path.join(entry.name))?;
        }
        self.disk.sync_dir(&self.path)?;
        let name = state_name(meta.index, self.nonce);
        self.disk.rename(&self.path, &self.layout.entry(&name))?;
        self.finished = true;
        self.disk.sync_dir(&self.layout.root)?;
        Ok(Snapshot { meta, name })
    }
}

impl<D: Disk> Drop for Draft<D> {
    fn drop(&mut self) {
        self.db = None;
        if !self.finished {
            // What cannot be removed now is removed at the next boot.
            let _ = self.disk.remove_dir(&self.path);
        }
    }
}

impl<D: Disk> Rows for Draft<D> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, RowsError> {
        get_row(&**self.db(), table, key)
    }

    fn scan(
        &self,
        table: Table,
        from: &[u8],
        to: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), RowsError> {
        scan_rows(&**self.db(), table, (from, to), Direction::Up, visit)
    }

    fn scan_back(
        &self,
        table: Table,
        from: &[u8],
        to: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), RowsError> {
        scan_rows(&**self.db(), table, (from, to), Direction::Down, visit)
    }
}

/// The configuration of a group of these voters.
pub(crate) fn conf_of(voters: &[u64]) -> ConfState {
    ConfState { voters: voters.to_vec(), ..ConfState::default() }
}

/// Makes `draft` what the log starts from: the whole old log goes, in one batch, durably.
pub(crate) fn install<D: Disk>(booted: &mut Booted<D>, draft: Draft<D>, meta: SnapshotMeta) -> Result<(), StoreError> {
    let broken =
        |error: raftgrid_driver::LogError| StoreError::Broken { action: "install a base", cause: error.to_string() };
    let hard_state = HardState { term: meta.term, vote: 0, commit: meta.index };
    let mark = SyncMark { ready_number: 0, last_index: meta.index, last_term: meta.term, term: meta.term, vote: 0 };
    let snapshot = draft.finish(meta)?;
    let batch = LogBatch { snapshot: Some(snapshot.clone()), hard_state: Some(hard_state), ..LogBatch::default() };
    booted.log.write(batch).map_err(broken)?;
    booted.log.syncer().sync(mark).map_err(broken)?;
    booted.tables.restore(&snapshot)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bases_of_one_state_never_meet_and_positions_are_never_used_up_by_them() {
        let now = BASE_EPOCH_UNIX_S + 40_000_000;
        let first = next_base_index(1_000, now).unwrap();
        assert!(first > 1_000 + BASE_GAP);
        // An hour later, made of the same state: above all that the first group wrote meanwhile at a full rate.
        let second = next_base_index(1_000, now + 3_600).unwrap();
        assert_eq!(second - first, 3_600 * BASE_STEP_PER_SECOND);
        assert_eq!(next_base_index(1_000, 0), Some(1_000 + BASE_GAP), "a clock before 2026 still leaves the gap");
        assert_eq!(next_base_index(BASE_INDEX_MAX, now), None);
        assert_ne!(new_cluster_id("a", 1), new_cluster_id("a", 2));
    }
}
