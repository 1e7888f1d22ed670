//! The state machine that the driver runs: `manifest` over the store's tables. Lives on the apply thread.
//!
//! Every entry is one batch of the tables, with its (index, term) in it; then the ring hears of it.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use protobuf::Message as _;
use raftgrid_crashpoint::{reach, Point};
use raftgrid_driver::{Committed, ConfState, Index, Snapshot, StateMachine, Term};
use raftgrid_manifest::{apply, views, Change, Rows, Table, MACHINE_VERSION};
use raftgrid_proto::v1::MetaRow;
use raftgrid_store::{Checkpointer, Disk, StateTables, TablesReader};
use slog::{crit, Logger};

use crate::clock::Clock;
use crate::pool::Pool;
use crate::proposals::{encode_replies, Proposals};
use crate::ring::Ring;
use crate::versions::Versions;
use crate::views::{end_of_entry, Views};

/// The tables and who hears of their changes.
pub(crate) struct Machine<D: Disk> {
    tables: StateTables<D>,
    checkpointer: Checkpointer<D>,
    /// One thread, `snapshot`: checkpoints are made there while apply goes on.
    snapshots: Pool,
    ring: Ring,
    clock: Arc<dyn Clock>,
    /// Filled in when the replica is assembled.
    proposals: Arc<Mutex<Option<Arc<Proposals>>>>,
    versions: Versions,
    logger: Logger,
}

impl<D: Disk> Machine<D> {
    /// Over tables that were opened.
    pub(crate) fn new(
        tables: StateTables<D>,
        ring: Ring,
        clock: Arc<dyn Clock>,
        snapshots: Pool,
        proposals: Arc<Mutex<Option<Arc<Proposals>>>>,
        versions: Versions,
        logger: Logger,
    ) -> Self {
        let checkpointer = tables.checkpointer();
        Self { tables, checkpointer, snapshots, ring, clock, proposals, versions, logger }
    }

    /// The process cannot go on: its tables are not what the log says they are.
    fn die(&self, what: &str, cause: &dyn std::fmt::Display) -> ! {
        crit!(self.logger, "state machine failed, this replica stops"; "step" => what, "cause" => %cause);
        panic!("failed to {what}: {cause}; this replica stops, nothing acknowledged is lost");
    }

    fn note_time(&self, changes: &[Change]) {
        let row = changes.iter().rev().find(|change| change.table == Table::Meta).and_then(|it| it.value.as_deref());
        let Some(meta) = row.and_then(|row| MetaRow::parse_from_bytes(row).ok()) else { return };
        self.versions.reached(meta.machine_version);
        let proposals = self.proposals.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(proposals) = proposals else { return };
        let mut time = proposals.cluster_time.lock().unwrap_or_else(PoisonError::into_inner);
        time.seen(meta.cluster_time_ms, self.clock.monotonic_ms());
    }
}

impl<D: Disk> Drop for Machine<D> {
    /// A clean stop: what is flushed now need not be applied again at the next start.
    fn drop(&mut self) {
        if let Err(error) = self.tables.flush() {
            slog::warn!(self.logger, "state tables not flushed at the stop, the log is replayed at the next start"; "cause" => %error);
        }
    }
}

impl<D: Disk> StateMachine for Machine<D> {
    fn apply(&mut self, entries: &[Committed]) -> Vec<Vec<Bytes>> {
        let mut replies = Vec::with_capacity(entries.len());
        for entry in entries {
            let applied = match apply(&self.tables, entry.index, &entry.payloads) {
                Ok(applied) => applied,
                Err(error) => self.die("apply a committed entry", &error),
            };
            reach(Point::StateBeforeWrite);
            if let Err(error) = self.tables.commit(&applied.changes, (entry.index, entry.term), None) {
                self.die("write the state tables", &error);
            }
            reach(Point::StateWritten);
            self.note_time(&applied.changes);
            self.ring.publish(end_of_entry(entry.index), applied.changes);
            replies.push(applied.replies.iter().map(|it| Bytes::from(encode_replies(it))).collect());
        }
        replies
    }

    fn apply_membership(&mut self, index: Index, term: Term, conf: &ConfState, _context: &Bytes) {
        if let Err(error) = self.tables.commit(&[], (index, term), Some(conf)) {
            self.die("write the configuration", &error);
        }
        self.ring.publish(end_of_entry(index), Vec::new());
    }

    fn applied(&self) -> (Index, Term) {
        self.tables.applied()
    }

    fn flushed(&self) -> Index {
        match self.tables.flushed() {
            Ok(index) => index,
            Err(error) => self.die("read the state tables", &error),
        }
    }

    fn request_flush(&mut self) {
        if let Err(error) = self.tables.request_flush() {
            self.die("flush the state tables", &error);
        }
    }

    fn restore(&mut self, snapshot: &Snapshot) {
        reach(Point::SnapshotBeforeInstall);
        if let Err(error) = self.tables.restore(snapshot) {
            self.die("change over to an installed snapshot", &error);
        }
        reach(Point::SnapshotInstalled);
        let found = views::meta(&self.tables).map_or(0, |meta| meta.machine_version);
        if found > MACHINE_VERSION {
            let cause = format!(
                "it is at machine version {found}, this program knows {MACHINE_VERSION} at most; upgrade this replica"
            );
            self.die("use an installed snapshot", &cause);
        }
        self.versions.reached(found);
        self.ring.reset(end_of_entry(snapshot.meta.index));
    }

    fn build_snapshot(&mut self, done: Box<dyn FnOnce(Result<Snapshot, String>) + Send>) {
        let Some(slot) = self.snapshots.slot() else {
            return done(Err("too many snapshots are waiting".to_owned()));
        };
        let checkpointer = self.checkpointer.clone();
        slot.run(Box::new(move || {
            let made = checkpointer.make().map_err(|error| error.to_string());
            if made.is_ok() {
                reach(Point::SnapshotMade);
            }
            done(made);
        }));
    }
}

/// Views of the tables for everybody else.
pub(crate) struct TableViews<D: Disk> {
    /// Follows an install.
    pub tables: TablesReader<D>,
    /// Log.
    pub logger: Logger,
}

impl<D: Disk> Views for TableViews<D> {
    fn view(&self) -> (Arc<dyn Rows + Send + Sync>, u64) {
        let view = self.tables.view();
        match view.applied() {
            Ok((index, _)) => (Arc::new(view), end_of_entry(index)),
            Err(error) => {
                crit!(self.logger, "state tables not readable, this replica stops"; "cause" => %error);
                panic!("failed to read the state tables: {error}; this replica stops, nothing acknowledged is lost");
            }
        }
    }
}
