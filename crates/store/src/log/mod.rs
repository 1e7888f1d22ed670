//! The raft log: the only promise. One database, one write batch per Ready, fsyncs shared by many Readies.
//!
//! `RaftLog` is owned by the raft thread and is the only writer. `LogReaderImpl` reads from any thread; `SyncerImpl`
//! is moved to `raft-sync`. Durability rules 1, 3, 5 and 7 of the driver's design are kept here. What must never
//! happen: a write that is visible in part, a gap in the indices, a mark that runs ahead of the log.

mod open;
pub(crate) mod records;
mod window;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};

use raftgrid_crashpoint::{reach, Point};
use raftgrid_driver::mutant;
use raftgrid_driver::{
    Entry, HardState, Index, InitialState, LogBatch, LogError, LogReadError, LogReader, LogStore, NodeId, Snapshot,
    SnapshotAnswer, SnapshotMeta, SyncMark, Syncer, Term,
};

use crate::disk::{DbRead, Direction, Disk, DiskError, LogDb};
use crate::layout::{parse_state, Layout};
use crate::log::records::{decode_entry, entry_key, key_index};
use crate::log::window::weight;
use crate::mark::Mark;
use crate::shelf::SnapshotShelf;

pub(crate) use open::{found, load, read_base};
pub(crate) use window::Window;

/// What the raft thread, the readers and the syncer share.
struct Shared<D: Disk> {
    disk: D,
    layout: Layout,
    db: D::Log,
    window: RwLock<Window>,
    /// Copies of the window's bounds, for readers that need no more.
    first: AtomicU64,
    last: AtomicU64,
    mark: Mutex<Mark>,
    shelf: SnapshotShelf<D>,
}

impl<D: Disk> Shared<D> {
    fn window(&self) -> RwLockReadGuard<'_, Window> {
        // The window is changed by code that does not panic half way; a poisoned lock still guards a whole one.
        self.window.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn mark(&self) -> std::sync::MutexGuard<'_, Mark> {
        self.mark.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn failed(action: &'static str) -> impl Fn(DiskError) -> LogError {
    move |error| LogError { action, cause: error.to_string() }
}

fn broken(action: &'static str) -> impl Fn(String) -> LogError {
    move |cause| LogError { action, cause }
}

/// The log of one replica.
pub struct RaftLog<D: Disk> {
    shared: Arc<Shared<D>>,
    initial: InitialState,
}

impl<D: Disk> RaftLog<D> {
    pub(crate) fn new(
        disk: D,
        layout: Layout,
        db: D::Log,
        window: Window,
        mark: SyncMark,
        shelf: SnapshotShelf<D>,
        initial: InitialState,
    ) -> Self {
        let (first, last) = (AtomicU64::new(window.first()), AtomicU64::new(window.last));
        let window = RwLock::new(window);
        let mark = Mutex::new(Mark::new(mark));
        Self { shared: Arc::new(Shared { disk, layout, db, window, first, last, mark, shelf }), initial }
    }

    /// The snapshot that the log starts from: the founding base, the last installed one, or the default on a joiner.
    pub fn snapshot_meta(&self) -> SnapshotMeta {
        self.shared.window().snapshot().clone()
    }

    /// Newest visible hard state.
    pub fn hard_state(&self) -> HardState {
        self.shared.window().hard_state
    }

    /// Name of the state directory that belongs to the visible log.
    pub fn state_dir(&self) -> String {
        self.shared.window().base.state_dir.clone()
    }

    fn check_staged(&self, snapshot: &Snapshot) -> Result<(), LogError> {
        let path: PathBuf = self.shared.layout.entry(&snapshot.name);
        let named = parse_state(&snapshot.name) == Some(snapshot.meta.index);
        if named && !self.shared.disk.list(&path).map_err(failed("write"))?.is_empty() {
            return Ok(());
        }
        Err(LogError {
            action: "write",
            cause: format!(
                "snapshot {} is installed from {:?}, which is not staged",
                snapshot.meta.index, snapshot.name
            ),
        })
    }
}

impl<D: Disk> LogStore for RaftLog<D> {
    type Reader = LogReaderImpl<D>;
    type Syncer = SyncerImpl<D>;

    fn initial_state(&self) -> InitialState {
        self.initial.clone()
    }

    fn write(&mut self, batch: LogBatch) -> Result<(), LogError> {
        if batch.is_empty() {
            return Ok(());
        }
        if let Some(snapshot) = &batch.snapshot {
            self.check_staged(snapshot)?;
        }
        reach(Point::LogBeforeWrite);
        let shared = &self.shared;
        let (plan, keep) = {
            let window = shared.window();
            let plan = window.plan(&batch).map_err(broken("write"))?;
            // An install may replace every entry; a cut keeps those before it.
            let keep = match (&plan.reset, plan.cut) {
                (Some(_), _) => Some(window.truncated),
                (None, Some(keep)) => Some((keep, window.term(keep).map_err(|e| broken("write")(e.to_string()))?)),
                (None, None) => None,
            };
            (plan, keep)
        };
        if let Some(keep) = keep {
            shared.mark().begin_shortening(&shared.disk, &shared.layout, keep).map_err(failed("write"))?;
        }
        if mutant::on("install_in_two_batches") && plan.reset.is_some() {
            let (name, rest): (Vec<_>, Vec<_>) = plan
                .ops
                .ops
                .iter()
                .cloned()
                .partition(|op| matches!(op, crate::disk::Op::Put(key, _) if key == records::BASE));
            shared.db.write(&crate::disk::Batch { ops: rest }).map_err(failed("write"))?;
            shared.db.write(&crate::disk::Batch { ops: name }).map_err(failed("write"))?;
        } else {
            shared.db.write(&plan.ops).map_err(failed("write"))?;
        }
        {
            let mut window = shared.window.write().unwrap_or_else(PoisonError::into_inner);
            window.take(plan, batch);
            shared.first.store(window.first(), Ordering::Release);
            shared.last.store(window.last, Ordering::Release);
        }
        if keep.is_some() {
            shared.mark().end_shortening();
        }
        reach(Point::LogWritten);
        Ok(())
    }

    fn compact(&mut self, index: Index) -> Result<(), LogError> {
        let shared = &self.shared;
        let Some(ops) = shared.window().plan_compact(index).map_err(broken("compact"))? else {
            return Ok(());
        };
        shared.db.write(&ops).map_err(failed("compact"))?;
        let mut window = shared.window.write().unwrap_or_else(PoisonError::into_inner);
        window.take_compact(index).map_err(|error| broken("compact")(error.to_string()))?;
        shared.first.store(window.first(), Ordering::Release);
        Ok(())
    }

    fn reader(&self) -> LogReaderImpl<D> {
        LogReaderImpl { shared: Arc::clone(&self.shared) }
    }

    fn syncer(&self) -> SyncerImpl<D> {
        SyncerImpl { shared: Arc::clone(&self.shared), begun: None }
    }
}

/// Reads the log from any thread. Terms and recent entries come from memory, older entries from the database.
pub struct LogReaderImpl<D: Disk> {
    shared: Arc<Shared<D>>,
}

impl<D: Disk> Clone for LogReaderImpl<D> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<D: Disk> LogReaderImpl<D> {
    fn stored(&self, low: Index, high: Index, bytes_max: u64) -> Result<Vec<Entry>, LogReadError> {
        let mut out: Vec<Entry> = Vec::new();
        let mut bytes = 0;
        let mut gap = None;
        let mut visit = |key: &[u8], value: &[u8]| {
            let wanted = low + out.len() as u64;
            let entry = key_index(key).filter(|index| *index == wanted).and_then(|index| decode_entry(index, value));
            let Some(entry) = entry else {
                gap = Some(wanted);
                return false;
            };
            bytes += weight(&entry);
            if bytes > bytes_max && !out.is_empty() {
                return false;
            }
            out.push(entry);
            true
        };
        let scan = self.shared.db.scan(&entry_key(low), &entry_key(high), Direction::Up, &mut visit);
        scan.map_err(failed("read"))?;
        if gap.is_none() && !out.is_empty() {
            return Ok(out);
        }
        // Cut away since the bounds were checked, or the log has a hole.
        if low < self.first_index() {
            return Err(LogReadError::Compacted);
        }
        if high > self.last_index() + 1 {
            return Err(LogReadError::Unavailable);
        }
        let index = gap.unwrap_or(low);
        Err(LogError { action: "read", cause: format!("entry {index} is missing or does not decode") }.into())
    }
}

impl<D: Disk> LogReader for LogReaderImpl<D> {
    fn entries(&self, low: Index, high: Index, bytes_max: u64) -> Result<Vec<Entry>, LogReadError> {
        {
            let window = self.shared.window();
            if low < window.first() {
                return Err(LogReadError::Compacted);
            }
            if high > window.last + 1 {
                return Err(LogReadError::Unavailable);
            }
            if low >= high {
                return Ok(Vec::new());
            }
            if let Some(entries) = window.cached(low, high, bytes_max) {
                return Ok(entries);
            }
        }
        self.stored(low, high, bytes_max)
    }

    fn term(&self, index: Index) -> Result<Term, LogReadError> {
        self.shared.window().term(index)
    }

    fn first_index(&self) -> Index {
        self.shared.first.load(Ordering::Acquire)
    }

    fn last_index(&self) -> Index {
        self.shared.last.load(Ordering::Acquire)
    }

    fn snapshot(&self, request_index: Index, to: NodeId) -> SnapshotAnswer {
        let truncated = self.first_index() - 1;
        self.shared.shelf.find(request_index.max(truncated), to).map_or(SnapshotAnswer::Ordered, SnapshotAnswer::Ready)
    }
}

/// Makes the log durable, on the thread `raft-sync`.
pub struct SyncerImpl<D: Disk> {
    shared: Arc<Shared<D>>,
    begun: Option<Begun>,
}

/// The log as an fsync that has begun will leave it, with the mark's ticket of that moment.
struct Begun {
    ticket: Option<u64>,
    state: SyncMark,
}

impl<D: Disk> SyncerImpl<D> {
    fn look(&self) -> Begun {
        let shared = &self.shared;
        // First the ticket, then the state: a write that shortens the log between the two is noticed.
        let ticket = shared.mark().ticket();
        let window = shared.window();
        let state = SyncMark {
            ready_number: 0,
            last_index: window.last,
            last_term: window.last_term(),
            term: window.hard_state.term,
            vote: window.hard_state.vote,
        };
        Begun { ticket, state }
    }
}

impl<D: Disk> Syncer for SyncerImpl<D> {
    fn begin(&mut self) {
        self.begun = Some(self.look());
    }

    /// The mark that is noted is the log's own state as of the start of the fsync, which is at least what `mark`
    /// says; of `mark`, the Ready's number is kept.
    fn sync(&mut self, mark: SyncMark) -> Result<(), LogError> {
        let Begun { ticket, state } = self.begun.take().unwrap_or_else(|| self.look());
        let noted = SyncMark { ready_number: mark.ready_number, ..state };
        if noted.term < mark.term {
            let cause = format!("the hard state's term is {}, the driver wrote {}", noted.term, mark.term);
            return Err(LogError { action: "sync", cause });
        }
        let shared = &self.shared;
        if !mutant::on("fsync_skipped") {
            shared.db.sync().map_err(failed("sync"))?;
        }
        shared.mark().note(&shared.disk, &shared.layout, ticket, noted).map_err(failed("sync"))?;
        reach(Point::LogSynced);
        Ok(())
    }
}
