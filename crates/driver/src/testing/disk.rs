//! The disk of one replica: what is visible, what is durable, and the writes between them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::machine::{MemoryMachine, Tables};
use crate::traits::{LogError, LogReadError, LogReader, LogStore, SnapshotAnswer, SyncMark, Syncer};
use crate::types::{ConfState, Entry, HardState, Index, InitialState, LogBatch, NodeId, Snapshot, SnapshotMeta, Term};

/// A replica's disk. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct MemoryDisk {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Inner {
    visible: Log,
    durable: Log,
    /// Writes that are visible and not durable, oldest first.
    unsynced: Vec<Write>,
    /// The tables as of their last flush.
    pub(super) flushed: Tables,
    /// Checkpoints made here and snapshots staged here, by name.
    pub(super) checkpoints: BTreeMap<String, Tables>,
    pub(super) newest: Option<Snapshot>,
    pub(super) names: u64,
    /// The newest mark that was synced.
    mark: SyncMark,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Log {
    /// Last index that is not in the log any more, and its term.
    base: (Index, Term),
    entries: Vec<Entry>,
    hard_state: HardState,
    installed: Option<Snapshot>,
}

#[derive(Clone, Debug)]
enum Write {
    Batch(Box<LogBatch>),
    Compact(Index),
}

impl Log {
    fn last_index(&self) -> Index {
        self.base.0 + self.entries.len() as u64
    }

    fn at(&self, index: Index) -> Option<&Entry> {
        let offset = index.checked_sub(self.base.0 + 1)?;
        self.entries.get(usize::try_from(offset).ok()?)
    }

    fn term(&self, index: Index) -> Result<Term, LogReadError> {
        if index == self.base.0 {
            return Ok(self.base.1);
        }
        if index < self.base.0 {
            return Err(LogReadError::Compacted);
        }
        self.at(index).map(|entry| entry.term).ok_or(LogReadError::Unavailable)
    }

    fn truncate_after(&mut self, index: Index) {
        let keep = index.checked_sub(self.base.0).expect("what is compacted is never truncated");
        self.entries.truncate(usize::try_from(keep).expect("a test's log is short"));
    }

    fn write(&mut self, write: &Write) {
        match write {
            Write::Batch(batch) => {
                if let Some(snapshot) = &batch.snapshot {
                    self.entries.clear();
                    self.base = (snapshot.meta.index, snapshot.meta.term);
                    self.installed = Some(snapshot.clone());
                }
                if let Some(index) = batch.truncate_after {
                    self.truncate_after(index);
                }
                for entry in &batch.entries {
                    assert_eq!(entry.index, self.last_index() + 1, "the log is contiguous");
                    self.entries.push(entry.clone());
                }
                if let Some(hard_state) = batch.hard_state {
                    assert!(hard_state.term >= self.hard_state.term, "terms never fall");
                    self.hard_state = hard_state;
                }
            }
            Write::Compact(index) => {
                // A compaction that was lost at a crash may be behind an install.
                if *index > self.base.0 {
                    let term = self.term(*index).expect("what is compacted is in the log");
                    let gone = usize::try_from(index - self.base.0).expect("a test's log is short");
                    self.entries.drain(..gone);
                    self.base = (*index, term);
                }
            }
        }
    }
}

impl MemoryDisk {
    /// The disk of a founder: the founding at (1, 1) with `voters`, and nothing else.
    pub fn founded(voters: &[NodeId]) -> Self {
        let disk = Self::default();
        let log = Log {
            base: (1, 1),
            hard_state: HardState { term: 1, vote: 0, commit: 1 },
            entries: Vec::new(),
            installed: None,
        };
        let conf = ConfState { voters: voters.to_vec(), ..ConfState::default() };
        let mut inner = disk.lock();
        inner.visible = log.clone();
        inner.durable = log;
        inner.flushed = Tables { applied: 1, term: 1, conf, ..Tables::default() };
        drop(inner);
        disk
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens what is durable: the log and the tables.
    pub fn open(&self) -> (MemoryLog, MemoryMachine) {
        let mut inner = self.lock();
        assert!(inner.unsynced.is_empty(), "a disk is opened after a crash or a sync");
        if let Some(installed) = inner.durable.installed.clone() {
            if inner.flushed.applied < installed.meta.index {
                inner.flushed = inner.checkpoints.get(&installed.name).expect("an install is staged first").clone();
            }
        }
        let tables = inner.flushed.clone();
        drop(inner);
        (MemoryLog { disk: self.clone() }, MemoryMachine::new(self.clone(), tables))
    }

    /// The process is gone: of the writes that were not synced the oldest `kept` have reached the disk all the same.
    pub fn crash(&self, kept: usize) {
        let mut inner = self.lock();
        let writes = std::mem::take(&mut inner.unsynced);
        for write in writes.iter().take(kept) {
            inner.durable.write(write);
        }
        inner.visible = inner.durable.clone();
    }

    /// Another disk with the same on it, as after a clean stop: everything visible is durable.
    pub fn copy(&self) -> Self {
        let mut inner = self.lock().clone();
        inner.unsynced.clear();
        inner.durable = inner.visible.clone();
        Self { inner: Arc::new(Mutex::new(inner)) }
    }

    /// Writes that are not durable.
    pub fn unsynced(&self) -> usize {
        self.lock().unsynced.len()
    }

    /// Makes the oldest `count` writes durable.
    pub fn sync(&self, count: usize) {
        let mut inner = self.lock();
        let writes: Vec<Write> = inner.unsynced.drain(..count).collect();
        for write in &writes {
            inner.durable.write(write);
        }
    }

    /// The durable hard state, and the last durable index.
    pub fn durable(&self) -> (HardState, Index) {
        let inner = self.lock();
        (inner.durable.hard_state, inner.durable.last_index())
    }

    /// Loses the end of the log after `index`, as a broken disk does.
    pub fn lose_after(&self, index: Index) {
        let mut inner = self.lock();
        inner.durable.truncate_after(index);
        inner.durable.hard_state.commit = inner.durable.hard_state.commit.min(index);
        inner.visible = inner.durable.clone();
    }

    /// Stages a snapshot made on `from`, as a transport does before it steps the message. Gives it under its name here.
    pub fn stage(&self, from: &MemoryDisk, snapshot: &Snapshot) -> Snapshot {
        let tables = from.lock().checkpoints.get(&snapshot.name).expect("a snapshot that is sent exists").clone();
        let mut inner = self.lock();
        inner.names += 1;
        let name = format!("staged-{}-{}", snapshot.meta.index, inner.names);
        inner.checkpoints.insert(name.clone(), tables);
        Snapshot { meta: snapshot.meta.clone(), name }
    }

    /// Stages empty tables that stand at `meta`, as if they had come from another replica.
    pub fn stage_tables(&self, meta: &SnapshotMeta) -> Snapshot {
        let mut inner = self.lock();
        inner.names += 1;
        let name = format!("staged-{}-{}", meta.index, inner.names);
        let tables = Tables { applied: meta.index, term: meta.term, conf: meta.conf.clone(), ..Tables::default() };
        inner.checkpoints.insert(name.clone(), tables);
        Snapshot { meta: meta.clone(), name }
    }

    /// The newest mark that was synced by a `MemorySyncer`.
    pub fn mark(&self) -> SyncMark {
        self.lock().mark
    }
}

/// The log on a [`MemoryDisk`].
#[derive(Debug)]
pub struct MemoryLog {
    disk: MemoryDisk,
}

impl MemoryLog {
    fn write(&mut self, write: Write) {
        let mut inner = self.disk.lock();
        inner.visible.write(&write);
        inner.unsynced.push(write);
    }
}

impl LogStore for MemoryLog {
    type Reader = MemoryReader;
    type Syncer = MemorySyncer;

    fn initial_state(&self) -> InitialState {
        let inner = self.disk.lock();
        let mut hard_state = inner.durable.hard_state;
        hard_state.commit = hard_state.commit.max(inner.flushed.applied);
        InitialState { hard_state, conf: inner.flushed.conf.clone(), applied: inner.flushed.applied }
    }

    fn write(&mut self, batch: LogBatch) -> Result<(), LogError> {
        self.write(Write::Batch(Box::new(batch)));
        Ok(())
    }

    fn compact(&mut self, index: Index) -> Result<(), LogError> {
        self.write(Write::Compact(index));
        Ok(())
    }

    fn reader(&self) -> MemoryReader {
        MemoryReader { disk: self.disk.clone() }
    }

    fn syncer(&self) -> MemorySyncer {
        MemorySyncer { disk: self.disk.clone() }
    }
}

/// Reads the log on a [`MemoryDisk`].
#[derive(Clone, Debug)]
pub struct MemoryReader {
    disk: MemoryDisk,
}

impl LogReader for MemoryReader {
    fn entries(&self, low: Index, high: Index, bytes_max: u64) -> Result<Vec<Entry>, LogReadError> {
        let inner = self.disk.lock();
        if low <= inner.visible.base.0 {
            return Err(LogReadError::Compacted);
        }
        let mut entries = Vec::new();
        let mut bytes = 0u64;
        for index in low..high {
            let entry = inner.visible.at(index).ok_or(LogReadError::Unavailable)?;
            bytes += entry.data.len() as u64;
            if bytes > bytes_max && !entries.is_empty() {
                break;
            }
            entries.push(entry.clone());
        }
        Ok(entries)
    }

    fn term(&self, index: Index) -> Result<Term, LogReadError> {
        self.disk.lock().visible.term(index)
    }

    fn first_index(&self) -> Index {
        self.disk.lock().visible.base.0 + 1
    }

    fn last_index(&self) -> Index {
        self.disk.lock().visible.last_index()
    }

    fn snapshot(&self, request_index: Index, to: NodeId) -> SnapshotAnswer {
        let inner = self.disk.lock();
        let least = request_index.max(inner.visible.base.0);
        let fits = |meta: &SnapshotMeta| meta.conf.contains(to) && meta.index >= least;
        match &inner.newest {
            Some(snapshot) if fits(&snapshot.meta) => SnapshotAnswer::Ready(snapshot.clone()),
            Some(_) | None => SnapshotAnswer::Ordered,
        }
    }
}

/// Syncs a [`MemoryDisk`].
#[derive(Debug)]
pub struct MemorySyncer {
    disk: MemoryDisk,
}

impl Syncer for MemorySyncer {
    fn sync(&mut self, mark: SyncMark) -> Result<(), LogError> {
        let unsynced = self.disk.unsynced();
        self.disk.sync(unsynced);
        self.disk.lock().mark = mark;
        Ok(())
    }
}
