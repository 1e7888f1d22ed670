//! What the driver needs of its surroundings. The threaded runner and the simulator bring them.

use bytes::Bytes;

use crate::types::{
    ConfState, Entry, Index, InitialState, LogBatch, Message, NodeId, Snapshot, SnapshotMeta, Status, Term,
};

/// A failure of the log's medium. Whatever it is, the process ends: an fsync is never retried (durability rule 6).
#[derive(Debug, thiserror::Error)]
#[error("failed to {action} the raft log; the process must end: {cause}")]
pub struct LogError {
    /// What was tried: "write", "sync", "read".
    pub action: &'static str,
    /// What the medium said.
    pub cause: String,
}

/// Why entries or a term cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LogReadError {
    /// Cut away: a snapshot stands in for it.
    #[error("failed to read the log: the index was compacted")]
    Compacted,
    /// Beyond the end.
    #[error("failed to read the log: the index is not there yet")]
    Unavailable,
    /// The medium failed.
    #[error(transparent)]
    Medium(#[from] LogError),
}

/// What a log answers to "give me a snapshot for `to`".
#[derive(Debug)]
pub enum SnapshotAnswer {
    /// Here it is; its configuration contains `to`, its index is at least the one asked for and at least the truncated index.
    Ready(Snapshot),
    /// It was ordered; ask again.
    Ordered,
}

/// The raft log, with its hard state. Reads see what was written, durable or not. Owned by the raft thread; readers are clones.
pub trait LogStore: Send + 'static {
    /// Another thread's eye on the same log.
    type Reader: LogReader;
    /// Makes writes durable, from the thread `raft-sync`.
    type Syncer: Syncer;

    /// What was there at boot. Called once.
    fn initial_state(&self) -> InitialState;
    /// Makes `batch` visible, in one piece. Not durable until a later `Syncer::sync` has returned.
    fn write(&mut self, batch: LogBatch) -> Result<(), LogError>;
    /// Forgets entries up to and including `index`. The caller has checked that it is applied and flushed. Needs no sync.
    fn compact(&mut self, index: Index) -> Result<(), LogError>;
    /// A reader.
    fn reader(&self) -> Self::Reader;
    /// The syncer; there is one.
    fn syncer(&self) -> Self::Syncer;
}

/// Reads the log from any thread.
pub trait LogReader: Clone + Send + Sync + 'static {
    /// Entries in `low..high`, at most `bytes_max` of data, but at least one.
    fn entries(&self, low: Index, high: Index, bytes_max: u64) -> Result<Vec<Entry>, LogReadError>;
    /// Term of an entry, or of the snapshot's last index.
    fn term(&self, index: Index) -> Result<Term, LogReadError>;
    /// First index that `entries` can give (last compacted + 1).
    fn first_index(&self) -> Index;
    /// Last index, or that of the snapshot when the log is empty; 0 on an empty store.
    fn last_index(&self) -> Index;
    /// The snapshot to send to `to`; must contain it and stand at or above `request_index` and the truncated index.
    fn snapshot(&self, request_index: Index, to: NodeId) -> SnapshotAnswer;
}

/// Makes visible writes durable.
pub trait Syncer: Send + 'static {
    /// An fsync begins: what it covers is what was written by now. Whoever runs a replica by hand lets time pass between this and `sync`, in
    /// which more is written; `sync` without it begins by itself.
    fn begin(&mut self) {}
    /// Everything written before it began is durable when it returns.
    /// `mark` (last index, its term, hard state's term and vote, as of the newest write) is noted beside the log (durability rule 7).
    fn sync(&mut self, mark: SyncMark) -> Result<(), LogError>;
}

/// How far the log must reach after a restart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SyncMark {
    /// Number of the Ready.
    pub ready_number: u64,
    /// Last index in the log.
    pub last_index: Index,
    /// Its term.
    pub last_term: Term,
    /// Hard state's term.
    pub term: Term,
    /// Hard state's vote.
    pub vote: NodeId,
}

/// A normal entry as the state machine gets it: unpacked.
#[derive(Clone, Debug)]
pub struct Committed {
    /// Index of the entry.
    pub index: Index,
    /// Term of the entry.
    pub term: Term,
    /// Proposals in it, in order. Empty for a new leader's first entry: its index and term must be recorded all the same.
    pub payloads: Vec<Bytes>,
}

/// The replicated state machine with its tables. Owned by the apply thread.
pub trait StateMachine: Send + 'static {
    /// Applies entries in order; gives one reply a payload, in order, for each entry. A payload that cannot be decoded ends the process.
    fn apply(&mut self, entries: &[Committed]) -> Vec<Vec<Bytes>>;
    /// Records a new configuration at (index, term) with the entry's context.
    fn apply_membership(&mut self, index: Index, term: Term, conf: &ConfState, context: &Bytes);
    /// Where the tables stand.
    fn applied(&self) -> (Index, Term);
    /// Highest index whose rows are durable in the tables; the log is never compacted past it.
    fn flushed(&self) -> Index;
    /// Asks for a flush of the tables, in the background.
    fn request_flush(&mut self);
    /// Changes over to the state of an installed snapshot; the log database names it already.
    fn restore(&mut self, snapshot: &Snapshot);
    /// Starts making a snapshot on another thread (a checkpoint); `done` is called with it.
    fn build_snapshot(&mut self, done: Box<dyn FnOnce(Result<Snapshot, String>) + Send>);
}

/// Takes messages to peers. Never blocks; may drop.
pub trait Transport: Send + 'static {
    /// Sends each, in order for one addressee. A message with a snapshot is reported by `RaftHandle::snapshot_sent`, always, once.
    fn send(&mut self, messages: Vec<Message>);
}

/// Is told what changes. Called from the raft thread; must not block.
pub trait Observer: Send + 'static {
    /// Role, term, leader or configuration is not what it was.
    fn changed(&mut self, status: &Status);
    /// There was contact, about so many milliseconds ago: with the leader, or, on the leader, with a quorum.
    fn contact(&mut self, ago_ms: u64) {
        let _ = ago_ms;
    }
}

/// Used by tests and by stores that hold a snapshot's meaning only.
impl From<SnapshotMeta> for Snapshot {
    fn from(meta: SnapshotMeta) -> Self {
        Self { meta, name: String::new() }
    }
}
