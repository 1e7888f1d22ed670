//! Inodes: what is on the medium, seen by the process and seen by a power cut.

use std::collections::BTreeMap;
use std::sync::Arc;

use raftgrid_store::disk::{Batch, Op};

/// Number of an inode.
pub(super) type Ino = u64;

/// Rows of a database.
pub(super) type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

/// A sector is written whole or not at all.
pub(super) const SECTOR_BYTES: usize = 512;

/// Batches that were synced last, kept so that a damaged end of the log can take them away.
pub(super) const SYNCED_BATCHES_KEPT: usize = 24;

pub(super) enum Body {
    Dir(Dir),
    File(File),
}

/// A change of a directory's names that is not durable.
pub(super) enum NameOp {
    Link(String, Ino),
    Unlink(String),
    Rename(String, String, Ino),
}

#[derive(Default)]
pub(super) struct Dir {
    pub(super) visible: BTreeMap<String, Ino>,
    pub(super) durable: BTreeMap<String, Ino>,
    pub(super) pending: Vec<NameOp>,
    /// The database that lives here.
    pub(super) db: Option<Db>,
}

impl Dir {
    pub(super) fn change(&mut self, op: NameOp) {
        apply_name(&mut self.visible, &op);
        self.pending.push(op);
    }

    pub(super) fn sync(&mut self) {
        self.durable.clone_from(&self.visible);
        self.pending.clear();
    }
}

pub(super) fn apply_name(names: &mut BTreeMap<String, Ino>, op: &NameOp) {
    match op {
        NameOp::Link(name, ino) => {
            names.insert(name.clone(), *ino);
        }
        NameOp::Unlink(name) => {
            names.remove(name);
        }
        NameOp::Rename(from, to, ino) => {
            names.remove(from);
            names.insert(to.clone(), *ino);
        }
    }
}

#[derive(Default)]
pub(super) struct File {
    pub(super) visible: Vec<u8>,
    pub(super) durable: Vec<u8>,
    pub(super) writes: Vec<(usize, Vec<u8>)>,
}

impl File {
    pub(super) fn write(&mut self, offset: usize, data: &[u8]) {
        overwrite(&mut self.visible, offset, data);
        self.writes.push((offset, data.to_vec()));
    }

    pub(super) fn sync(&mut self) {
        self.durable.clone_from(&self.visible);
        self.writes.clear();
    }
}

pub(super) fn overwrite(content: &mut Vec<u8>, offset: usize, data: &[u8]) {
    let end = offset + data.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    content[offset..end].copy_from_slice(data);
}

pub(super) enum Db {
    Log(LogRows),
    State(StateRows),
}

/// The log's database: everything written, and how much of it is durable.
#[derive(Default)]
pub(super) struct LogRows {
    pub(super) visible: Rows,
    /// Durable, without the last few synced batches.
    pub(super) base: Rows,
    pub(super) synced: Vec<Batch>,
    pub(super) unsynced: Vec<Batch>,
    /// An fsync is under way, which covers so many of the unsynced batches.
    pub(super) syncing: Option<usize>,
    pub(super) open: bool,
    pub(super) rotten: bool,
}

impl LogRows {
    pub(super) fn write(&mut self, batch: &Batch) {
        apply(&mut self.visible, batch);
        self.unsynced.push(batch.clone());
    }

    /// From here on what is written is not covered by the next `sync`.
    pub(super) fn begin_sync(&mut self) {
        self.syncing = Some(self.unsynced.len());
    }

    pub(super) fn sync(&mut self) {
        let covered = self.syncing.take().unwrap_or(self.unsynced.len());
        self.synced.extend(self.unsynced.drain(..covered));
        let surplus = self.synced.len().saturating_sub(SYNCED_BATCHES_KEPT);
        for batch in self.synced.drain(..surplus) {
            apply(&mut self.base, &batch);
        }
    }

    /// Keeps `synced` of the synced batches and `unsynced` of the others; what is kept is durable from now on.
    pub(super) fn cut(&mut self, synced: usize, unsynced: usize) {
        if synced < self.synced.len() {
            self.unsynced.clear();
        }
        self.synced.truncate(synced);
        self.unsynced.truncate(unsynced);
        self.visible.clone_from(&self.base);
        for batch in self.synced.iter().chain(&self.unsynced) {
            apply(&mut self.visible, batch);
        }
        self.syncing = None;
        self.sync();
    }

    /// What a loss of power would leave of a row, at the least.
    pub(super) fn durable(&self, key: &[u8]) -> Option<&[u8]> {
        for op in self.synced.iter().rev().flat_map(|batch| batch.ops.iter().rev()) {
            match op {
                Op::Put(put, value) if put == key => return Some(value),
                Op::Delete(deleted) if deleted == key => return None,
                Op::DeleteRange(from, to) if from.as_slice() <= key && key < to.as_slice() => return None,
                Op::Put(..) | Op::Delete(_) | Op::DeleteRange(..) => {}
            }
        }
        self.base.get(key).map(Vec::as_slice)
    }
}

/// The tables' database: what is written, and how much of it was flushed.
#[derive(Default)]
pub(super) struct StateRows {
    pub(super) visible: Arc<Rows>,
    pub(super) flushed: Rows,
    pub(super) pending: Vec<Batch>,
    /// A flush in the background is under way up to this many pending batches.
    pub(super) flushing: usize,
    pub(super) open: bool,
    /// It was opened from files that were received, and needs them.
    pub(super) from_files: bool,
}

impl StateRows {
    pub(super) fn of(rows: Rows) -> Self {
        Self { visible: Arc::new(rows.clone()), flushed: rows, from_files: true, ..Self::default() }
    }

    pub(super) fn write(&mut self, batch: &Batch) {
        apply(Arc::make_mut(&mut self.visible), batch);
        self.pending.push(batch.clone());
    }

    /// The first `count` pending batches become durable.
    pub(super) fn flush(&mut self, count: usize) {
        for batch in self.pending.drain(..count.min(self.pending.len())) {
            apply(&mut self.flushed, &batch);
        }
        self.flushing = self.flushing.saturating_sub(count);
    }
}

pub(super) fn apply(rows: &mut Rows, batch: &Batch) {
    for op in &batch.ops {
        match op {
            Op::Put(key, value) => {
                rows.insert(key.clone(), value.clone());
            }
            Op::Delete(key) => {
                rows.remove(key);
            }
            Op::DeleteRange(from, to) => {
                if from < to {
                    let keys: Vec<Vec<u8>> = rows.range::<Vec<u8>, _>(from..to).map(|(key, _)| key.clone()).collect();
                    for key in keys {
                        rows.remove(&key);
                    }
                }
            }
        }
    }
}
