//! Snapshots: those made here, kept for followers, and those being received.
//!
//! A snapshot is a directory under `snapshots/`, whole from the moment it has its name. The newest few are kept; one
//! that a transfer reads stays until the transfer ends. A received one is built in `staging-…` and becomes `state-…`
//! when it is whole, verified and durable: only then may its name go into the log (durability rule 5).

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use raftgrid_driver::{Index, NodeId, Snapshot, Term};

use crate::codec::{Reader, Writer};
use crate::disk::{Disk, DiskErrorKind};
use crate::error::StoreError;
use crate::layout::{is_plain_name, parse_state, Layout, SNAPSHOT_META};
use crate::limits::{CHUNK_BYTES_MAX, SNAPSHOTS_KEPT};
use crate::staging::Staging;

const MAGIC: &[u8; 8] = b"RGSNAP01";

struct Inner<D: Disk> {
    disk: D,
    layout: Layout,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Oldest first.
    kept: Vec<Snapshot>,
    /// Readers of a snapshot, by its name.
    readers: BTreeMap<String, usize>,
    /// Opened for sending once: whoever opens one of these again may do so because it did not arrive whole.
    sent: BTreeSet<String>,
    /// To be removed when their last reader goes.
    doomed: Vec<String>,
    /// Where the tables stand, and in which directory.
    applied: Index,
    current: String,
}

/// The shelf. Clones are handles to the same one.
pub struct SnapshotShelf<D: Disk> {
    inner: Arc<Inner<D>>,
}

impl<D: Disk> Clone for SnapshotShelf<D> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

/// A file of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotFile {
    /// Its plain name.
    pub name: String,
    /// Its length.
    pub bytes: u64,
}

fn encode_meta(snapshot: &Snapshot) -> Vec<u8> {
    let mut out = Writer(MAGIC.to_vec());
    out.meta(&snapshot.meta);
    let crc = crc32c::crc32c(&out.0);
    out.u32(crc);
    out.0
}

fn decode_meta(bytes: &[u8], name: &str) -> Option<Snapshot> {
    let (body, crc) = bytes.split_at_checked(bytes.len().checked_sub(4)?)?;
    if crc32c::crc32c(body).to_le_bytes() != crc {
        return None;
    }
    let mut reader = Reader(body);
    if reader.take(8)? != MAGIC {
        return None;
    }
    let meta = reader.meta()?;
    reader.end()?;
    let named = name.strip_prefix(&format!("{}-{}-", meta.index, meta.term)).is_some();
    named.then(|| Snapshot { meta, name: name.to_owned() })
}

impl<D: Disk> SnapshotShelf<D> {
    pub(crate) fn new(disk: D, layout: Layout) -> Self {
        Self { inner: Arc::new(Inner { disk, layout, state: Mutex::default() }) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Finds the snapshots at boot; removes half-made ones and those beyond the newest few. Gives the names removed.
    pub(crate) fn load(&self) -> Result<Vec<String>, StoreError> {
        let Inner { disk, layout, .. } = &*self.inner;
        let mut removed = Vec::new();
        let mut kept = Vec::new();
        for entry in disk.list(&layout.snapshots())? {
            let meta = disk.read(&layout.snapshot(&entry.name).join(SNAPSHOT_META))?;
            match meta.and_then(|bytes| decode_meta(&bytes, &entry.name)) {
                Some(snapshot) if is_plain_name(&entry.name) => kept.push(snapshot),
                Some(_) | None if entry.is_dir => {
                    disk.remove_dir(&layout.snapshot(&entry.name))?;
                    removed.push(entry.name);
                }
                Some(_) | None => {}
            }
        }
        kept.sort_by_key(|snapshot| snapshot.meta.index);
        for old in kept.drain(..kept.len().saturating_sub(SNAPSHOTS_KEPT)) {
            disk.remove_dir(&layout.snapshot(&old.name))?;
            removed.push(old.name);
        }
        self.state().kept = kept;
        Ok(removed)
    }

    /// Takes over a checkpoint that was made in `making`.
    pub(crate) fn put(&self, snapshot: Snapshot, making: &Path) -> Result<Snapshot, StoreError> {
        let Inner { disk, layout, .. } = &*self.inner;
        let file = making.join(SNAPSHOT_META);
        disk.write_at(&file, 0, &encode_meta(&snapshot))?;
        disk.sync_file(&file)?;
        disk.sync_dir(making)?;
        disk.rename(making, &layout.snapshot(&snapshot.name))?;
        disk.sync_dir(&layout.snapshots())?;
        let mut goes = Vec::new();
        {
            let mut state = self.state();
            state.kept.push(snapshot.clone());
            state.kept.sort_by_key(|snapshot| snapshot.meta.index);
            while state.kept.len() > SNAPSHOTS_KEPT {
                let old = state.kept.remove(0).name;
                if state.readers.contains_key(&old) {
                    state.doomed.push(old);
                } else {
                    goes.push(old);
                }
            }
        }
        for name in goes {
            disk.remove_dir(&layout.snapshot(&name))?;
        }
        Ok(snapshot)
    }

    /// Snapshots kept, oldest first.
    pub fn list(&self) -> Vec<Snapshot> {
        self.state().kept.clone()
    }

    /// The newest one.
    pub fn newest(&self) -> Option<Snapshot> {
        self.state().kept.last().cloned()
    }

    /// The newest one at or above `index` whose configuration contains `to`.
    pub fn find(&self, index: Index, to: NodeId) -> Option<Snapshot> {
        let state = self.state();
        let fits = |snapshot: &&Snapshot| snapshot.meta.index >= index && snapshot.meta.conf.contains(to);
        state.kept.iter().rev().find(fits).cloned()
    }

    /// Takes a snapshot that was sent before off the shelf if it is damaged: it would be sent again and again, and no other one made in its
    /// place as long as nothing new is applied.
    fn check_again(&self, name: &str) -> Result<(), StoreError> {
        {
            let mut state = self.state();
            let on_shelf = state.kept.iter().any(|snapshot| snapshot.name == name);
            if !on_shelf || state.sent.insert(name.to_owned()) {
                return Ok(());
            }
        }
        let Inner { disk, layout, .. } = &*self.inner;
        let Err(error) = disk.verify_state(&layout.snapshot(name)) else { return Ok(()) };
        match error.kind {
            DiskErrorKind::Corrupted | DiskErrorKind::Missing => {}
            // The medium did not answer; what it would have said is not known. The next one who opens it asks again.
            DiskErrorKind::NoSpace | DiskErrorKind::Locked | DiskErrorKind::Other => return Err(error.into()),
        }
        if self.take_off(name) {
            disk.remove_dir(&layout.snapshot(name))?;
        }
        Err(error.into())
    }

    /// Takes a snapshot off the shelf. True: nobody reads it, and the caller is to remove it; otherwise its last reader does.
    fn take_off(&self, name: &str) -> bool {
        let mut state = self.state();
        let kept = state.kept.len();
        state.kept.retain(|snapshot| snapshot.name != name);
        state.sent.remove(name);
        if state.kept.len() == kept {
            // Somebody else did, meanwhile.
            return false;
        }
        if state.readers.contains_key(name) {
            state.doomed.push(name.to_owned());
            return false;
        }
        true
    }

    /// Opens a snapshot for sending; it stays on disk until the reader is dropped. The second time it is verified first.
    pub fn open(&self, name: &str) -> Result<SnapshotReader<D>, StoreError> {
        self.check_again(name)?;
        let snapshot = {
            let mut state = self.state();
            let snapshot = state.kept.iter().find(|snapshot| snapshot.name == name).cloned();
            let snapshot = snapshot.ok_or_else(|| StoreError::NoSnapshot { name: name.to_owned() })?;
            *state.readers.entry(name.to_owned()).or_insert(0) += 1;
            snapshot
        };
        let mut reader = SnapshotReader { shelf: self.clone(), snapshot, files: Vec::new() };
        let Inner { disk, layout, .. } = &*self.inner;
        let entries = disk.list(&layout.snapshot(name))?;
        let sent = entries.into_iter().filter(|entry| !entry.is_dir && entry.name != SNAPSHOT_META);
        reader.files = sent.map(|entry| SnapshotFile { name: entry.name, bytes: entry.bytes }).collect();
        Ok(reader)
    }

    /// Begins to receive the snapshot of (index, term). Received states that can no longer be installed are removed
    /// first.
    pub fn stage(&self, index: Index, term: Term) -> Result<Staging<D>, StoreError> {
        self.drop_stale_states()?;
        Staging::begin(self.inner.disk.clone(), self.inner.layout.clone(), index, term)
    }

    /// Removes a received state that will not be installed. The caller knows that it was not handed to raft.
    pub fn discard(&self, snapshot: &Snapshot) -> Result<(), StoreError> {
        let Inner { disk, layout, .. } = &*self.inner;
        if parse_state(&snapshot.name).is_some() && self.state().current != snapshot.name {
            disk.remove_dir(&layout.entry(&snapshot.name))?;
        }
        Ok(())
    }

    pub(crate) fn note_applied(&self, applied: Index, current: &str) {
        let mut state = self.state();
        state.applied = applied;
        state.current = current.to_owned();
    }

    pub(crate) fn note_applied_index(&self, applied: Index) {
        self.state().applied = applied;
    }

    /// Removes received states at or below the applied index: raft ignores such a snapshot. One above it may be under
    /// way.
    pub(crate) fn drop_stale_states(&self) -> Result<(), StoreError> {
        let (applied, current) = {
            let state = self.state();
            (state.applied, state.current.clone())
        };
        let Inner { disk, layout, .. } = &*self.inner;
        for entry in disk.list(&layout.root)? {
            let stale = parse_state(&entry.name).is_some_and(|index| index <= applied) && entry.name != current;
            if stale {
                disk.remove_dir(&layout.entry(&entry.name))?;
            }
        }
        Ok(())
    }
}

/// Reads a snapshot's files, in order to send them.
pub struct SnapshotReader<D: Disk> {
    shelf: SnapshotShelf<D>,
    snapshot: Snapshot,
    files: Vec<SnapshotFile>,
}

impl<D: Disk> SnapshotReader<D> {
    /// What is sent.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// Its files, sorted by name.
    pub fn files(&self) -> &[SnapshotFile] {
        &self.files
    }

    /// At most `length` bytes of `file` from `offset`; empty at its end.
    pub fn read(&self, file: &str, offset: u64, length: usize) -> Result<Vec<u8>, StoreError> {
        if !self.files.iter().any(|known| known.name == file) {
            return Err(StoreError::NoSnapshot { name: format!("{}/{file}", self.snapshot.name) });
        }
        let Inner { disk, layout, .. } = &*self.shelf.inner;
        let path = layout.snapshot(&self.snapshot.name).join(file);
        Ok(disk.read_at(&path, offset, length.min(CHUNK_BYTES_MAX))?)
    }
}

impl<D: Disk> Drop for SnapshotReader<D> {
    fn drop(&mut self) {
        let name = &self.snapshot.name;
        let goes = {
            let mut state = self.shelf.state();
            let left = state.readers.get(name).copied().unwrap_or(1) - 1;
            if left == 0 {
                state.readers.remove(name);
            } else {
                state.readers.insert(name.clone(), left);
            }
            let doomed = left == 0 && state.doomed.contains(name);
            if doomed {
                state.doomed.retain(|other| other != name);
            }
            doomed
        };
        if goes {
            // What cannot be removed now is removed at the next boot.
            let _ = self.shelf.inner.disk.remove_dir(&self.shelf.inner.layout.snapshot(name));
        }
    }
}
