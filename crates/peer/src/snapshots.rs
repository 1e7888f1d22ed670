//! What the streams need of the store's snapshots. `shelf` brings it for the real store.

use raftgrid_driver::{Index, Snapshot, Term};

/// One file of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotFile {
    /// A plain file name.
    pub name: String,
    /// Size in bytes.
    pub bytes: u64,
}

/// Opens snapshots for sending and places for receiving. All of it blocks. Errors are the store's words: "failed to …".
pub trait SnapshotFiles: Send + Sync {
    /// The snapshot of this name; its files stay while the source lives.
    fn open(&self, name: &str) -> Result<Box<dyn SnapshotSource>, String>;
    /// A place for the snapshot of (index, term).
    fn begin(&self, index: Index, term: Term) -> Result<Box<dyn SnapshotSink>, String>;
}

/// A snapshot on its way out.
pub trait SnapshotSource: Send {
    /// All files.
    fn files(&self) -> Vec<SnapshotFile>;
    /// Up to `length` bytes of `file` from `offset` on; none at its end.
    fn read(&mut self, file: &str, offset: u64, length: usize) -> Result<Vec<u8>, String>;
}

/// A snapshot on its way in. It may be kept between two streams. Dropped unfinished, it leaves nothing behind.
pub trait SnapshotSink: Send {
    /// The next bytes of `file`, whose checksum was right; `offset` goes on where the last ones ended.
    fn write(&mut self, file: &str, offset: u64, data: &[u8]) -> Result<(), String>;
    /// Everything is there: verifies it, makes it durable and names it.
    fn finish(self: Box<Self>) -> Result<Snapshot, String>;
}
