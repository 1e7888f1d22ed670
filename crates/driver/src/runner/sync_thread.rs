//! Makes the log durable. Takes the newest number queued, so one fsync covers many Readies, and batches grow by themselves while it runs. An
//! fsync that failed is never tried again.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crossbeam::channel::{Receiver, Sender};
use raftgrid_telemetry::Histogram;
use slog::Logger;

use super::handle::Completion;
use super::{die, Fatal};
use crate::traits::{SyncMark, Syncer};

/// The sync side, without a thread.
pub(super) struct SyncTurn<S> {
    /// Shared with the raft thread, which fsyncs only while this side has nothing to do.
    pub(super) syncer: Arc<Mutex<S>>,
    pub(super) marks: Receiver<SyncMark>,
    pub(super) completions: Sender<Completion>,
}

impl<S> Clone for SyncTurn<S> {
    fn clone(&self) -> Self {
        Self { syncer: self.syncer.clone(), marks: self.marks.clone(), completions: self.completions.clone() }
    }
}

impl<S: Syncer> SyncTurn<S> {
    /// The newest mark that is queued behind `first`.
    fn newest(&self, first: SyncMark) -> SyncMark {
        self.marks.try_iter().last().unwrap_or(first)
    }

    /// The newest mark that is queued, if one is.
    pub(super) fn take(&self) -> Option<SyncMark> {
        self.marks.try_recv().ok().map(|first| self.newest(first))
    }

    /// Whether an fsync is wanted.
    pub(super) fn is_wanted(&self) -> bool {
        !self.marks.is_empty()
    }

    /// An fsync begins, of which the end comes later.
    pub(super) fn begin(&self) {
        self.syncer.lock().unwrap_or_else(PoisonError::into_inner).begin();
    }

    /// The fsync that covers `mark`. False: the raft side is gone. An error ends the process.
    pub(super) fn sync(&mut self, mark: SyncMark) -> Result<bool, Fatal> {
        self.syncer.lock().unwrap_or_else(PoisonError::into_inner).sync(mark)?;
        Ok(self.completions.send(Completion::Synced(mark.ready_number)).is_ok())
    }
}

/// Thread `raft-sync`.
pub(super) struct SyncThread<S> {
    pub(super) turn: SyncTurn<S>,
    pub(super) fsync_seconds: Histogram,
    pub(super) logger: Logger,
}

impl<S: Syncer> SyncThread<S> {
    /// Ends when the raft thread has.
    pub(super) fn run(mut self) {
        while let Ok(mark) = self.turn.marks.recv() {
            let mark = self.turn.newest(mark);
            let began = Instant::now();
            let synced = self.turn.sync(mark);
            self.fsync_seconds.observe(began.elapsed().as_secs_f64());
            match synced {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => die(&self.logger, &error.to_string()),
            }
        }
    }
}
