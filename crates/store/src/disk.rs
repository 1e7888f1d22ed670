//! What the store needs of a medium: a directory tree, and two kinds of database opened in it.
//!
//! `RocksDisk` (crate `store-rocks`) is the real one; the simulator brings its own. A call that says "durable"
//! survives a power cut once it has returned; every other effect may be lost in one, though never in part of a batch
//! and never out of order within one database. Errors are not retried by the store: a failed write or fsync ends the
//! process (durability rule 6).

use std::path::Path;
use std::sync::Arc;

/// Why a medium refused, as far as the store decides anything by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskErrorKind {
    /// A checksum is wrong, or a database does not hold together.
    Corrupted,
    /// Another process, or this one, has the database open.
    Locked,
    /// The medium is full.
    NoSpace,
    /// A file or directory is not there.
    Missing,
    /// Anything else.
    Other,
}

/// A failure of the medium.
#[derive(Clone, Debug, thiserror::Error)]
#[error("failed to {action} {path}: {cause}")]
pub struct DiskError {
    /// What sort of failure it was.
    pub kind: DiskErrorKind,
    /// What was tried.
    pub action: &'static str,
    /// On which file, directory or database.
    pub path: String,
    /// What the medium said.
    pub cause: String,
}

/// What a medium answers.
pub type DiskResult<T> = Result<T, DiskError>;

/// One name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    /// Its name, without the directory.
    pub name: String,
    /// Whether it is a directory itself.
    pub is_dir: bool,
    /// Length of a file in bytes; 0 for a directory.
    pub bytes: u64,
}

/// One step of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Writes a row.
    Put(Vec<u8>, Vec<u8>),
    /// Deletes a row, if it is there.
    Delete(Vec<u8>),
    /// Deletes the rows with a key in `.0 .. .1`.
    DeleteRange(Vec<u8>, Vec<u8>),
}

/// Steps that become visible together and durable together; later steps win over earlier ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// The steps, in order.
    pub ops: Vec<Op>,
}

impl Batch {
    /// Writes a row.
    pub fn put(&mut self, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) {
        self.ops.push(Op::Put(key.into(), value.into()));
    }

    /// Deletes a row.
    pub fn delete(&mut self, key: impl Into<Vec<u8>>) {
        self.ops.push(Op::Delete(key.into()));
    }

    /// Deletes rows with a key in `from..to`.
    pub fn delete_range(&mut self, from: impl Into<Vec<u8>>, to: impl Into<Vec<u8>>) {
        self.ops.push(Op::DeleteRange(from.into(), to.into()));
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }
}

/// In which order a scan goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the lowest key up.
    Up,
    /// From the highest key down.
    Down,
}

/// Called with each row of a scan; false ends it.
pub type Visit<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> bool;

/// Reads rows. A scan sees the database as of one instant.
pub trait DbRead: Send + Sync + 'static {
    /// The row, if there is one.
    fn get(&self, key: &[u8]) -> DiskResult<Option<Vec<u8>>>;
    /// Visits the rows with a key in `from..to`; nothing when `from >= to`.
    fn scan(&self, from: &[u8], to: &[u8], direction: Direction, visit: Visit<'_>) -> DiskResult<()>;
}

/// The log's database: a write-ahead log makes visible writes survive the process at once, and a power cut after
/// `sync`.
pub trait LogDb: DbRead {
    /// Makes the batch visible, in one piece.
    fn write(&self, batch: &Batch) -> DiskResult<()>;
    /// Every batch written before the call is durable when it returns. May run beside `write`.
    fn sync(&self) -> DiskResult<()>;
}

/// The tables' database: no write-ahead log, so after a crash it stands at an earlier batch, and never between two.
pub trait StateDb: DbRead {
    /// The database as of one instant, whatever is written later. Holds the database open.
    type View: DbRead;

    /// Makes the batch visible, in one piece.
    fn write(&self, batch: &Batch) -> DiskResult<()>;
    /// The row as it would be found after a power cut now.
    fn get_persisted(&self, key: &[u8]) -> DiskResult<Option<Vec<u8>>>;
    /// Makes all batches written so far durable: before it returns when `wait`, else in the background.
    fn flush(&self, wait: bool) -> DiskResult<()>;
    /// Makes a durable copy in `dir`, which must not be there; one consistent cut, not older than the call. May run
    /// beside `write`.
    fn checkpoint(&self, dir: &Path) -> DiskResult<()>;
    /// A view of now.
    fn view(self: &Arc<Self>) -> Self::View;
}

/// A medium. Clones are handles to the same one. Paths are what the caller says; the store gives paths under its own
/// directory.
pub trait Disk: Clone + Send + Sync + 'static {
    /// The log's database.
    type Log: LogDb;
    /// The tables' database.
    type State: StateDb;

    /// Makes a directory and those above it; nothing happens when it is there.
    fn create_dir(&self, path: &Path) -> DiskResult<()>;
    /// Renames a file or directory, replacing a file of the new name.
    fn rename(&self, from: &Path, to: &Path) -> DiskResult<()>;
    /// Removes a directory with all in it; nothing happens when it is not there.
    fn remove_dir(&self, path: &Path) -> DiskResult<()>;
    /// Removes a file; nothing happens when it is not there.
    fn remove_file(&self, path: &Path) -> DiskResult<()>;
    /// Names in a directory, sorted; none when it is not there.
    fn list(&self, path: &Path) -> DiskResult<Vec<DirEntry>>;
    /// Content of a small file; None when it is not there.
    fn read(&self, path: &Path) -> DiskResult<Option<Vec<u8>>>;
    /// At most `length` bytes from `offset`; fewer at the end of the file.
    fn read_at(&self, path: &Path, offset: u64, length: usize) -> DiskResult<Vec<u8>>;
    /// Overwrites bytes from `offset` in place; makes the file when it is not there.
    fn write_at(&self, path: &Path, offset: u64, data: &[u8]) -> DiskResult<()>;
    /// Makes a file of `bytes` bytes that really occupies them.
    fn allocate(&self, path: &Path, bytes: u64) -> DiskResult<()>;
    /// Makes a file's content durable.
    fn sync_file(&self, path: &Path) -> DiskResult<()>;
    /// Makes the names in a directory durable.
    fn sync_dir(&self, path: &Path) -> DiskResult<()>;
    /// Space left for this process where `path` is.
    fn free_bytes(&self, path: &Path) -> DiskResult<u64>;
    /// A number that was never given before, anywhere; the simulator draws it from its seed.
    fn nonce(&self) -> u128;

    /// Opens the log's database, or makes it; `Locked` when someone has it open, `Corrupted` on any doubt about its
    /// content.
    fn open_log(&self, path: &Path) -> DiskResult<Self::Log>;
    /// Opens the tables' database, or makes it.
    fn open_state(&self, path: &Path) -> DiskResult<Self::State>;
    /// Rows of a tables' database that nobody has open (a checkpoint, a staged directory); leaves no trace in it.
    fn peek_state(&self, path: &Path, keys: &[&[u8]]) -> DiskResult<Vec<Option<Vec<u8>>>>;
    /// Reads every block of a tables' database that nobody has open and checks it; leaves no trace in it.
    fn verify_state(&self, path: &Path) -> DiskResult<()>;
}
