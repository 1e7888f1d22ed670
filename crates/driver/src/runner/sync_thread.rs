//! Thread `raft-sync`: makes the log durable. Takes the newest number queued, so one fsync covers many Readies, and batches grow
//! by themselves while it runs. An fsync that failed is never tried again.

use crossbeam::channel::{Receiver, Sender};
use slog::Logger;

use super::die;
use super::handle::Completion;
use crate::traits::{SyncMark, Syncer};

pub(super) struct SyncThread<S> {
    pub(super) syncer: S,
    pub(super) marks: Receiver<SyncMark>,
    pub(super) completions: Sender<Completion>,
    pub(super) logger: Logger,
}

impl<S: Syncer> SyncThread<S> {
    /// Ends when the raft thread has.
    pub(super) fn run(mut self) {
        while let Ok(mark) = self.marks.recv() {
            let mark = self.marks.try_iter().last().unwrap_or(mark);
            if let Err(error) = self.syncer.sync(mark) {
                die(&self.logger, &error.to_string());
            }
            if self.completions.send(Completion::Synced(mark.ready_number)).is_err() {
                return;
            }
        }
    }
}
