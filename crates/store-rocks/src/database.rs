//! The two databases. One column family each: `default`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rocksdb::checkpoint::Checkpoint;
use rocksdb::{DBRawIterator, FlushOptions, Options, ReadOptions, ReadTier, Snapshot, WriteBatch, WriteOptions, DB};

use raftgrid_store::disk::{Batch, DbRead, Direction, LogDb, Op, StateDb, Visit};
use raftgrid_store::DiskResult;

use crate::error::{file, rocks};
use crate::flusher::Flusher;

fn write_batch(batch: &Batch) -> WriteBatch {
    let mut out = WriteBatch::default();
    for op in &batch.ops {
        match op {
            Op::Put(key, value) => out.put(key, value),
            Op::Delete(key) => out.delete(key),
            Op::DeleteRange(from, to) => out.delete_range(from, to),
        }
    }
    out
}

fn bounded(from: &[u8], to: &[u8]) -> ReadOptions {
    let mut options = ReadOptions::default();
    options.set_iterate_lower_bound(from);
    options.set_iterate_upper_bound(to);
    options
}

fn walk(mut rows: DBRawIterator<'_>, direction: Direction, visit: Visit<'_>) -> Result<(), rocksdb::Error> {
    match direction {
        Direction::Up => rows.seek_to_first(),
        Direction::Down => rows.seek_to_last(),
    }
    while let Some((key, value)) = rows.item() {
        if !visit(key, value) {
            return Ok(());
        }
        match direction {
            Direction::Up => rows.next(),
            Direction::Down => rows.prev(),
        }
    }
    // An iterator also ends at an error.
    rows.status()
}

/// The log's database.
pub struct RocksLog {
    db: DB,
    path: PathBuf,
}

impl RocksLog {
    pub(crate) fn open(options: &Options, path: &Path) -> DiskResult<Self> {
        let db = DB::open(options, path).map_err(rocks("open", path))?;
        Ok(Self { db, path: path.to_path_buf() })
    }
}

impl DbRead for RocksLog {
    fn get(&self, key: &[u8]) -> DiskResult<Option<Vec<u8>>> {
        self.db.get(key).map_err(rocks("read", &self.path))
    }

    fn scan(&self, from: &[u8], to: &[u8], direction: Direction, visit: Visit<'_>) -> DiskResult<()> {
        if from >= to {
            return Ok(());
        }
        walk(self.db.raw_iterator_opt(bounded(from, to)), direction, visit).map_err(rocks("read", &self.path))
    }
}

impl LogDb for RocksLog {
    fn write(&self, batch: &Batch) -> DiskResult<()> {
        self.db.write_opt(write_batch(batch), &WriteOptions::default()).map_err(rocks("write", &self.path))
    }

    fn sync(&self) -> DiskResult<()> {
        self.db.flush_wal(true).map_err(rocks("sync", &self.path))
    }
}

/// The tables' database.
pub struct RocksState {
    /// Before the database, which it holds open.
    flusher: Flusher,
    db: Arc<DB>,
    path: PathBuf,
}

impl RocksState {
    pub(crate) fn open(options: &Options, path: &Path) -> DiskResult<Self> {
        let db = DB::open(options, path).map_err(rocks("open", path))?;
        let db = Arc::new(db);
        let flusher = Flusher::start(Arc::clone(&db)).map_err(file("start a thread for", path))?;
        Ok(Self { flusher, db, path: path.to_path_buf() })
    }
}

impl DbRead for RocksState {
    fn get(&self, key: &[u8]) -> DiskResult<Option<Vec<u8>>> {
        self.db.get(key).map_err(rocks("read", &self.path))
    }

    fn scan(&self, from: &[u8], to: &[u8], direction: Direction, visit: Visit<'_>) -> DiskResult<()> {
        if from >= to {
            return Ok(());
        }
        walk(self.db.raw_iterator_opt(bounded(from, to)), direction, visit).map_err(rocks("read", &self.path))
    }
}

impl StateDb for RocksState {
    type View = RocksView;

    fn write(&self, batch: &Batch) -> DiskResult<()> {
        let mut options = WriteOptions::default();
        options.disable_wal(true);
        self.db.write_opt(write_batch(batch), &options).map_err(rocks("write", &self.path))
    }

    fn get_persisted(&self, key: &[u8]) -> DiskResult<Option<Vec<u8>>> {
        let mut options = ReadOptions::default();
        options.set_read_tier(ReadTier::Persisted);
        self.db.get_opt(key, &options).map_err(rocks("read", &self.path))
    }

    fn flush(&self, wait: bool) -> DiskResult<()> {
        if !wait {
            return self.flusher.order().map_err(rocks("flush", &self.path));
        }
        let mut options = FlushOptions::default();
        options.set_wait(true);
        self.db.flush_opt(&options).map_err(rocks("flush", &self.path))
    }

    fn checkpoint(&self, dir: &Path) -> DiskResult<()> {
        let checkpoint = Checkpoint::new(&*self.db).map_err(rocks("copy", &self.path))?;
        checkpoint.create_checkpoint(dir).map_err(rocks("copy", &self.path))
    }

    fn view(self: &Arc<Self>) -> RocksView {
        let held = Held::new(Arc::clone(&self.db), |db| db.snapshot());
        RocksView { held, path: self.path.clone() }
    }
}

self_cell::self_cell!(
    /// A snapshot together with the database that it borrows.
    struct Held {
        owner: Arc<DB>,
        #[covariant]
        dependent: Snapshot,
    }
);

/// The tables as of one instant. Keeps the database open.
pub struct RocksView {
    held: Held,
    path: PathBuf,
}

impl DbRead for RocksView {
    fn get(&self, key: &[u8]) -> DiskResult<Option<Vec<u8>>> {
        self.held.borrow_dependent().get(key).map_err(rocks("read", &self.path))
    }

    fn scan(&self, from: &[u8], to: &[u8], direction: Direction, visit: Visit<'_>) -> DiskResult<()> {
        if from >= to {
            return Ok(());
        }
        let rows = self.held.borrow_dependent().raw_iterator_opt(bounded(from, to));
        walk(rows, direction, visit).map_err(rocks("read", &self.path))
    }
}

/// A tables' database that nobody has open, for reading; it leaves no trace in it.
pub struct RocksLook {
    db: DB,
    path: PathBuf,
}

impl RocksLook {
    pub(crate) fn new(db: DB, path: &Path) -> Self {
        Self { db, path: path.to_path_buf() }
    }
}

impl DbRead for RocksLook {
    fn get(&self, key: &[u8]) -> DiskResult<Option<Vec<u8>>> {
        self.db.get(key).map_err(rocks("read", &self.path))
    }

    fn scan(&self, from: &[u8], to: &[u8], direction: Direction, visit: Visit<'_>) -> DiskResult<()> {
        if from >= to {
            return Ok(());
        }
        walk(self.db.raw_iterator_opt(bounded(from, to)), direction, visit).map_err(rocks("read", &self.path))
    }
}
