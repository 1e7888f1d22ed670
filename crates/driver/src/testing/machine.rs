//! A state machine that remembers every payload, in order.

use bytes::Bytes;

use super::disk::MemoryDisk;
use crate::traits::{Committed, StateMachine};
use crate::types::{ConfState, Index, Snapshot, SnapshotMeta, Term};

/// The state: what was applied.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tables {
    /// Where they stand.
    pub applied: Index,
    /// Term of that index.
    pub term: Term,
    /// Configuration as of that index.
    pub conf: ConfState,
    /// Every payload, with its entry's index.
    pub payloads: Vec<(Index, Bytes)>,
    /// Contexts of membership changes, with their entry's index.
    pub contexts: Vec<(Index, Bytes)>,
}

/// Replies to a payload with the payload.
pub struct MemoryMachine {
    disk: MemoryDisk,
    tables: Tables,
}

impl MemoryMachine {
    pub(super) fn new(disk: MemoryDisk, tables: Tables) -> Self {
        Self { disk, tables }
    }

    /// The state.
    pub fn tables(&self) -> &Tables {
        &self.tables
    }
}

impl StateMachine for MemoryMachine {
    fn apply(&mut self, entries: &[Committed]) -> Vec<Vec<Bytes>> {
        for entry in entries {
            assert_eq!(entry.index, self.tables.applied + 1, "entries come in order");
            assert!(entry.term >= self.tables.term, "terms never fall");
            (self.tables.applied, self.tables.term) = (entry.index, entry.term);
            self.tables.payloads.extend(entry.payloads.iter().map(|payload| (entry.index, payload.clone())));
        }
        entries.iter().map(|entry| entry.payloads.clone()).collect()
    }

    fn apply_membership(&mut self, index: Index, term: Term, conf: &ConfState, context: &Bytes) {
        assert_eq!(index, self.tables.applied + 1, "entries come in order");
        (self.tables.applied, self.tables.term) = (index, term);
        self.tables.conf = conf.clone();
        self.tables.contexts.push((index, context.clone()));
    }

    fn applied(&self) -> (Index, Term) {
        (self.tables.applied, self.tables.term)
    }

    fn flushed(&self) -> Index {
        self.disk.lock().flushed.applied
    }

    fn request_flush(&mut self) {
        self.disk.lock().flushed = self.tables.clone();
    }

    fn restore(&mut self, snapshot: &Snapshot) {
        let mut disk = self.disk.lock();
        self.tables = disk.checkpoints.get(&snapshot.name).expect("an install is staged first").clone();
        disk.flushed = self.tables.clone();
    }

    fn build_snapshot(&mut self, done: Box<dyn FnOnce(Result<Snapshot, String>) + Send>) {
        let mut disk = self.disk.lock();
        disk.flushed = self.tables.clone();
        disk.names += 1;
        let name = format!("checkpoint-{}-{}", self.tables.applied, disk.names);
        disk.checkpoints.insert(name.clone(), self.tables.clone());
        let (index, term, conf) = (self.tables.applied, self.tables.term, self.tables.conf.clone());
        let snapshot = Snapshot { meta: SnapshotMeta { index, term, conf }, name };
        disk.newest = Some(snapshot.clone());
        drop(disk);
        done(Ok(snapshot));
    }
}
