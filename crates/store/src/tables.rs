//! The state tables: a cache of the log's prefix, without a write-ahead log.
//!
//! One database with one column family: a row of table `t` stands under `t` as one byte and its key; the byte 0 is
//! the store's own (applied index and term, configuration). One family has one memtable, so a flush is atomic by
//! construction. Each commit is one batch with the applied position in it: after a crash the tables stand at some
//! earlier position, and never between two.
//!
//! `StateTables` is owned by the apply thread, its only writer. `TablesReader` is for everybody else.

use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use raftgrid_driver::{mutant, ConfState, Index, Snapshot, Term};
use raftgrid_manifest::{Change, Rows, RowsError, Table};

use crate::checkpoint::Checkpointer;
use crate::codec::{normalised, Reader, Writer};
use crate::disk::{Batch, DbRead, Direction, Disk, DiskError, DiskErrorKind, StateDb};
use crate::error::StoreError;
use crate::layout::{parse_state, Layout};
use crate::limits::{UNFLUSHED_BYTES_MAX, UNFLUSHED_CHANGES_MAX};
use crate::log::records::{decode_position, encode_position};
use crate::shelf::SnapshotShelf;
use crate::view::{TablesReader, TablesView};

/// Where the tables stand.
pub(crate) const APPLIED: &[u8] = &[0, 1];
/// Configuration as of there.
pub(crate) const CONF: &[u8] = &[0, 2];

pub(crate) fn row_key(table: Table, key: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(1 + key.len());
    out.push(table as u8);
    out.extend_from_slice(key);
    out
}

pub(crate) fn rows_error(error: DiskError) -> RowsError {
    RowsError(error.to_string())
}

pub(crate) fn get_row(db: &impl DbRead, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, RowsError> {
    db.get(&row_key(table, key)).map_err(rows_error)
}

pub(crate) fn scan_rows(
    db: &impl DbRead,
    table: Table,
    range: (&[u8], &[u8]),
    direction: Direction,
    visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
) -> Result<(), RowsError> {
    let from = row_key(table, range.0);
    let to = if range.1.is_empty() { vec![table as u8 + 1] } else { row_key(table, range.1) };
    db.scan(&from, &to, direction, &mut |key, value| visit(&key[1..], value)).map_err(rows_error)
}

/// What a state database says about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) applied: (Index, Term),
    pub(crate) conf: Option<ConfState>,
}

fn decode_standing(applied: Option<&[u8]>, conf: Option<&[u8]>) -> Option<Standing> {
    let applied = match applied {
        Some(value) => decode_position(value)?,
        None => (0, 0),
    };
    let conf = match conf {
        Some(value) => {
            let mut reader = Reader(value);
            let conf = reader.conf()?;
            reader.end()?;
            Some(conf)
        }
        None => None,
    };
    Some(Standing { applied, conf })
}

/// Reads the standing of a database that nobody has open. The outer error is the medium's.
pub(crate) fn peek_standing<D: Disk>(disk: &D, path: &Path) -> Result<Option<Standing>, DiskError> {
    let rows = disk.peek_state(path, &[APPLIED, CONF])?;
    let [applied, conf] = rows.as_slice() else { return Ok(None) };
    Ok(decode_standing(applied.as_deref(), conf.as_deref()))
}

pub(crate) fn read_standing(db: &impl DbRead, path: &Path) -> Result<Standing, StoreError> {
    let applied = db.get(APPLIED)?;
    let conf = db.get(CONF)?;
    let standing = decode_standing(applied.as_deref(), conf.as_deref());
    standing.ok_or_else(|| corrupted(path, "the applied position or the configuration does not decode"))
}

pub(crate) fn corrupted(path: &Path, cause: &str) -> StoreError {
    StoreError::Disk(DiskError {
        kind: DiskErrorKind::Corrupted,
        action: "read",
        path: path.display().to_string(),
        cause: cause.to_owned(),
    })
}

/// The database in use and the name of its directory.
struct Current<D: Disk> {
    db: Arc<D::State>,
    name: String,
}

/// What the apply thread, readers and the snapshot thread share.
pub(crate) struct Shared<D: Disk> {
    pub(crate) disk: D,
    pub(crate) layout: Layout,
    current: RwLock<Current<D>>,
    pub(crate) shelf: SnapshotShelf<D>,
}

impl<D: Disk> Shared<D> {
    /// The database in use now.
    pub(crate) fn db(&self) -> Arc<D::State> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner).db)
    }
}

/// The tables, as the apply thread has them: reads see what it committed last.
pub struct StateTables<D: Disk> {
    shared: Arc<Shared<D>>,
    db: Arc<D::State>,
    standing: Standing,
    unflushed_bytes: u64,
    unflushed_changes: u64,
}

impl<D: Disk> StateTables<D> {
    /// Opens the tables in the state directory `name`.
    pub(crate) fn open(disk: D, layout: Layout, name: &str, shelf: SnapshotShelf<D>) -> Result<Self, StoreError> {
        let path = layout.entry(name);
        let db = Arc::new(disk.open_state(&path)?);
        let standing = read_standing(&*db, &path)?;
        shelf.note_applied(standing.applied.0, name);
        let current = RwLock::new(Current { db: Arc::clone(&db), name: name.to_owned() });
        let shared = Arc::new(Shared { disk, layout, current, shelf });
        Ok(Self { shared, db, standing, unflushed_bytes: 0, unflushed_changes: 0 })
    }

    /// Where the tables stand: (0, 0) on a joiner that has no snapshot yet.
    pub fn applied(&self) -> (Index, Term) {
        self.standing.applied
    }

    /// Configuration as of `applied`; None on a joiner that has no snapshot yet.
    pub fn conf(&self) -> Option<&ConfState> {
        self.standing.conf.as_ref()
    }

    /// Highest index whose rows would survive a power cut now. The log must not be compacted past it.
    pub fn flushed(&self) -> Result<Index, StoreError> {
        flushed(&*self.db, &self.shared.layout.root)
    }

    /// Writes the changes of entries up to `applied`, with their configuration if it is a new one: one batch, visible
    /// at once, durable at some later flush. Asks for that flush when enough has piled up.
    pub fn commit(
        &mut self,
        changes: &[Change],
        applied: (Index, Term),
        conf: Option<&ConfState>,
    ) -> Result<(), StoreError> {
        let before = self.standing.applied;
        if applied.0 < before.0 || applied.1 < before.1 {
            let cause = format!("the applied position would fall from {before:?} to {applied:?}");
            return Err(StoreError::Broken { action: "write the state tables", cause });
        }
        let mut batch = Batch { ops: Vec::with_capacity(changes.len() + 2) };
        let mut bytes = 0;
        for change in changes {
            let key = row_key(change.table, &change.key);
            bytes += key.len() + change.value.as_ref().map_or(0, Vec::len);
            match &change.value {
                Some(value) => batch.put(key, value.as_slice()),
                None => batch.delete(key),
            }
        }
        if mutant::on("applied_in_a_batch_of_its_own") {
            self.db.write(&std::mem::take(&mut batch))?;
        }
        batch.put(APPLIED, encode_position(applied.0, applied.1));
        if let Some(conf) = conf {
            let mut out = Writer::default();
            out.conf(conf);
            batch.put(CONF, out.0);
        }
        self.db.write(&batch)?;
        self.standing.applied = applied;
        if let Some(conf) = conf {
            self.standing.conf = Some(normalised(conf));
        }
        self.shared.shelf.note_applied_index(applied.0);
        self.unflushed_bytes += bytes as u64;
        self.unflushed_changes += changes.len() as u64;
        if self.unflushed_bytes >= UNFLUSHED_BYTES_MAX || self.unflushed_changes >= UNFLUSHED_CHANGES_MAX {
            self.request_flush()?;
        }
        Ok(())
    }

    /// Asks for a flush of everything committed so far, in the background; `flushed` shows when it is done.
    pub fn request_flush(&mut self) -> Result<(), StoreError> {
        self.unflushed_bytes = 0;
        self.unflushed_changes = 0;
        Ok(self.db.flush(false)?)
    }

    /// Flushes everything committed so far before it returns: on a clean stop.
    pub fn flush(&mut self) -> Result<(), StoreError> {
        self.unflushed_bytes = 0;
        self.unflushed_changes = 0;
        Ok(self.db.flush(true)?)
    }

    /// A consistent view of now, for any thread; cheap.
    pub fn view(&self) -> TablesView<D> {
        TablesView::new(&self.db)
    }

    /// A handle for other threads, which follows a `restore`.
    pub fn reader(&self) -> TablesReader<D> {
        TablesReader::new(Arc::clone(&self.shared))
    }

    /// Makes snapshots; to be moved to the thread `snapshot`.
    pub fn checkpointer(&self) -> Checkpointer<D> {
        Checkpointer::new(Arc::clone(&self.shared))
    }

    /// A copy of now in `dir`, which must not be there.
    pub(crate) fn checkpoint_to(&self, dir: &Path) -> Result<(), StoreError> {
        Ok(self.db.checkpoint(dir)?)
    }

    /// Changes over to the state of an installed snapshot, and drops the old state. The log database must name it
    /// already, durably. Views of the old state stay good until they are dropped.
    pub fn restore(&mut self, snapshot: &Snapshot) -> Result<(), StoreError> {
        let (disk, layout) = (&self.shared.disk, &self.shared.layout);
        let broken = |cause: String| StoreError::Broken { action: "change over to a snapshot", cause };
        if parse_state(&snapshot.name) != Some(snapshot.meta.index) {
            return Err(broken(format!(
                "{:?} is not the staged state of index {}",
                snapshot.name, snapshot.meta.index
            )));
        }
        let path = layout.entry(&snapshot.name);
        let old = self.shared.current.read().unwrap_or_else(PoisonError::into_inner).name.clone();
        if old == snapshot.name {
            return Ok(());
        }
        if disk.list(&path)?.is_empty() {
            return Err(broken(format!("{:?} is not there", snapshot.name)));
        }
        let db = Arc::new(disk.open_state(&path)?);
        let standing = read_standing(&*db, &path)?;
        let meta = &snapshot.meta;
        if standing.applied != (meta.index, meta.term) || standing.conf != Some(normalised(&meta.conf)) {
            let cause = format!("the staged state stands at {:?}, the snapshot at {meta:?}", standing.applied);
            return Err(broken(cause));
        }
        if mutant::on("request_ids_lost_in_snapshot") {
            let mut batch = Batch::default();
            batch.delete_range(vec![Table::Request as u8], vec![Table::Request as u8 + 1]);
            db.write(&batch)?;
        }
        {
            let mut current = self.shared.current.write().unwrap_or_else(PoisonError::into_inner);
            *current = Current { db: Arc::clone(&db), name: snapshot.name.clone() };
        }
        self.db = db;
        self.standing = standing;
        self.unflushed_bytes = 0;
        self.unflushed_changes = 0;
        self.shared.shelf.note_applied(meta.index, &snapshot.name);
        disk.remove_dir(&layout.entry(&old))?;
        self.shared.shelf.drop_stale_states()
    }
}

pub(crate) fn flushed(db: &impl StateDb, path: &Path) -> Result<Index, StoreError> {
    match db.get_persisted(APPLIED)? {
        None => Ok(0),
        Some(value) => match decode_position(&value) {
            Some((index, _)) => Ok(index),
            None => Err(corrupted(path, "the flushed position does not decode")),
        },
    }
}

impl<D: Disk> Rows for StateTables<D> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, RowsError> {
        get_row(&*self.db, table, key)
    }

    fn scan(
        &self,
        table: Table,
        from: &[u8],
        to: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), RowsError> {
        scan_rows(&*self.db, table, (from, to), Direction::Up, visit)
    }

    fn scan_back(
        &self,
        table: Table,
        from: &[u8],
        to: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), RowsError> {
        scan_rows(&*self.db, table, (from, to), Direction::Down, visit)
    }
}
