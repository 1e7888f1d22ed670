//! A state machine that remembers every payload, in order.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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
    tables: Arc<Mutex<Tables>>,
}

fn lock(tables: &Mutex<Tables>) -> MutexGuard<'_, Tables> {
    tables.lock().unwrap_or_else(PoisonError::into_inner)
}

impl MemoryMachine {
    pub(super) fn new(disk: MemoryDisk, tables: Tables) -> Self {
        Self { disk, tables: Arc::new(Mutex::new(tables)) }
    }

    /// The state.
    pub fn tables(&self) -> MutexGuard<'_, Tables> {
        lock(&self.tables)
    }

    /// The state, to be looked at while a runner owns the machine.
    pub fn watch(&self) -> Arc<Mutex<Tables>> {
        Arc::clone(&self.tables)
    }
}

impl StateMachine for MemoryMachine {
    fn apply(&mut self, entries: &[Committed]) -> Vec<Vec<Bytes>> {
        let mut tables = lock(&self.tables);
        for entry in entries {
            assert_eq!(entry.index, tables.applied + 1, "entries come in order");
            assert!(entry.term >= tables.term, "terms never fall");
            (tables.applied, tables.term) = (entry.index, entry.term);
            tables.payloads.extend(entry.payloads.iter().map(|payload| (entry.index, payload.clone())));
        }
        entries.iter().map(|entry| entry.payloads.clone()).collect()
    }

    fn apply_membership(&mut self, index: Index, term: Term, conf: &ConfState, context: &Bytes) {
        let mut tables = lock(&self.tables);
        assert_eq!(index, tables.applied + 1, "entries come in order");
        (tables.applied, tables.term) = (index, term);
        tables.conf = conf.clone();
        tables.contexts.push((index, context.clone()));
    }

    fn applied(&self) -> (Index, Term) {
        let tables = lock(&self.tables);
        (tables.applied, tables.term)
    }

    fn flushed(&self) -> Index {
        self.disk.lock().flushed.applied
    }

    fn request_flush(&mut self) {
        let tables = lock(&self.tables).clone();
        self.disk.lock().flushed = tables;
    }

    fn restore(&mut self, snapshot: &Snapshot) {
        let mut disk = self.disk.lock();
        let staged = disk.checkpoints.get(&snapshot.name).expect("an install is staged first").clone();
        disk.flushed = staged.clone();
        *lock(&self.tables) = staged;
    }

    fn build_snapshot(&mut self, done: Box<dyn FnOnce(Result<Snapshot, String>) + Send>) {
        let tables = lock(&self.tables).clone();
        let meta = SnapshotMeta { index: tables.applied, term: tables.term, conf: tables.conf.clone() };
        let mut disk = self.disk.lock();
        disk.names += 1;
        let name = format!("checkpoint-{}-{}", meta.index, disk.names);
        disk.flushed = tables.clone();
        disk.checkpoints.insert(name.clone(), tables);
        let snapshot = Snapshot { meta, name };
        disk.newest = Some(snapshot.clone());
        drop(disk);
        done(Ok(snapshot));
    }
}
