//! raft-rs' eye on our log: `raft::Storage` over a `LogReader`.

use std::cell::Cell;

use raft::eraftpb;
use raft::{GetEntriesContext, RaftState, Storage, StorageError};

use super::convert::{conf_to, entry_to, hard_state_to, snapshot_to};
use crate::traits::{LogReadError, LogReader, SnapshotAnswer};
use crate::types::InitialState;

pub(super) struct LogView<R> {
    reader: R,
    initial: RaftState,
    /// Raft asked for a snapshot and the store has none that fits: one must be made.
    snapshot_wanted: Cell<bool>,
}

impl<R: LogReader> LogView<R> {
    pub(super) fn new(reader: R, initial: &InitialState) -> Self {
        let initial = RaftState::new(hard_state_to(&initial.hard_state), conf_to(&initial.conf));
        Self { reader, initial, snapshot_wanted: Cell::new(false) }
    }

    /// Whether a snapshot was asked for in vain since the last call.
    pub(super) fn take_snapshot_wanted(&self) -> bool {
        self.snapshot_wanted.take()
    }
}

fn storage_error(error: LogReadError) -> raft::Error {
    raft::Error::Store(match error {
        LogReadError::Compacted => StorageError::Compacted,
        LogReadError::Unavailable => StorageError::Unavailable,
        // raft-rs panics on this one, and it should: the process ends (durability rule 6).
        LogReadError::Medium(error) => StorageError::Other(Box::new(error)),
    })
}

impl<R: LogReader> Storage for LogView<R> {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(self.initial.clone())
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<eraftpb::Entry>> {
        let bytes_max = max_size.into().unwrap_or(u64::MAX);
        let entries = self.reader.entries(low, high, bytes_max).map_err(storage_error)?;
        Ok(entries.into_iter().map(entry_to).collect())
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index == 0 {
            // Before the log. raft-rs matches (0, 0) against it.
            return if self.reader.first_index() <= 1 { Ok(0) } else { Err(storage_error(LogReadError::Compacted)) };
        }
        self.reader.term(index).map_err(storage_error)
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.reader.first_index())
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.reader.last_index())
    }

    fn snapshot(&self, request_index: u64, to: u64) -> raft::Result<eraftpb::Snapshot> {
        let truncated = self.reader.first_index().saturating_sub(1);
        match self.reader.snapshot(request_index.max(truncated), to) {
            // A snapshot that does not know its receiver, or that the log does not continue, would be sent again for ever.
            SnapshotAnswer::Ready(snapshot)
                if snapshot.meta.conf.contains(to) && snapshot.meta.index >= request_index.max(truncated).max(1) =>
            {
                Ok(snapshot_to(&snapshot))
            }
            SnapshotAnswer::Ready(_) | SnapshotAnswer::Ordered => {
                self.snapshot_wanted.set(true);
                Err(raft::Error::Store(StorageError::SnapshotTemporarilyUnavailable))
            }
        }
    }
}
