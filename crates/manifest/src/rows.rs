//! How the machine sees its tables: bytes by key, in order of key. It touches no disk itself.

use std::collections::BTreeMap;

/// A table of the replicated state. The number is on disk and in the digest: never reuse one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Table {
    /// One row: clock, counters, machine_version (`MetaRow`).
    Meta = 1,
    /// By task sequence: `TaskRow`.
    Task = 2,
    /// Task id → sequence.
    TaskById = 3,
    /// (status, sequence) → nothing.
    TaskByStatus = 4,
    /// (node id, sequence) → nothing; open epochs only.
    TaskByNode = 5,
    /// (job sequence, task sequence) → nothing.
    TaskByJob = 6,
    /// By node id: `NodeRow`.
    Node = 7,
    /// By job sequence: `JobRow`.
    Job = 8,
    /// Job id → sequence.
    JobById = 9,
    /// (job sequence, round): `RoundRow`.
    Round = 10,
    /// (job sequence, round, shard): `ContributionRow`.
    Contribution = 11,
    /// By artifact id: `ArtifactRow`.
    Artifact = 12,
    /// Name → artifact id.
    ArtifactByName = 13,
    /// (principal, request id): `RequestRow`.
    Request = 14,
    /// (position) → key in Request; oldest first.
    RequestByAge = 15,
    /// By replica id: `MemberRow`.
    Member = 16,
    /// One row: the incremental digest of all other tables, 32 bytes.
    Digest = 17,
    /// By name: `QueueRow`.
    Queue = 18,
    /// (queue, task sequence) → nothing; tasks that name a queue.
    TaskByQueue = 19,
    /// (sequence of a task, sequence of one that waits for its end) → condition, one byte. (0, sequence) → nothing: a task that is over while
    /// not all that wait for it were told.
    Dependent = 20,
    /// (job sequence, task sequence) → nothing; elements of arrays that are not over.
    OpenElement = 21,
    /// (job sequence, chunk): `ArrayChunkRow`.
    ArrayChunk = 22,
    /// By schedule id: `ScheduleRow`.
    Schedule = 23,
    /// By key: `KvRow`.
    Kv = 24,
    /// (job sequence, key) → nothing; keys that go with a job.
    KvByJob = 25,
    /// One row: how many keys there are (`KvCountRow`).
    KvCount = 26,
    /// By name of artifacts: `NameRow`. From machine version 6 on; `ArtifactByName` names the newest version's artifact.
    Name = 27,
    /// `p` and a principal, or `r` and a replica id: `UsageRow`. From machine version 6 on.
    Usage = 28,
    /// (job sequence, round): `RoundHistoryRow`.
    RoundHistory = 30,
}

/// All tables, in order of their number.
pub const TABLES: [Table; 29] = [
    Table::Meta,
    Table::Task,
    Table::TaskById,
    Table::TaskByStatus,
    Table::TaskByNode,
    Table::TaskByJob,
    Table::Node,
    Table::Job,
    Table::JobById,
    Table::Round,
    Table::Contribution,
    Table::Artifact,
    Table::ArtifactByName,
    Table::Request,
    Table::RequestByAge,
    Table::Member,
    Table::Digest,
    Table::Queue,
    Table::TaskByQueue,
    Table::Dependent,
    Table::OpenElement,
    Table::ArrayChunk,
    Table::Schedule,
    Table::Kv,
    Table::KvByJob,
    Table::KvCount,
    Table::Name,
    Table::Usage,
    Table::RoundHistory,
];

/// The tables cannot be read: the medium failed or a row does not decode. The replica must stop.
#[derive(Debug, Clone, thiserror::Error)]
#[error("failed to read the state tables; this replica must stop: {0}")]
pub struct RowsError(pub String);

/// Reads rows as of one instant.
pub trait Rows {
    /// The row, if there is one.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, RowsError>;
    /// Calls `visit` with rows whose key is in `from..to` (empty `to`: the end of the table), in order of key, until it answers false.
    fn scan(
        &self,
        table: Table,
        from: &[u8],
        to: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), RowsError>;
    /// Like `scan`, from the highest key down.
    fn scan_back(
        &self,
        table: Table,
        from: &[u8],
        to: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), RowsError>;
    /// The caller knows that there is no such row: a number in its key was just drawn. Rows that remember need not look for it.
    fn note_absent(&self, _table: Table, _key: &[u8]) {}
}

/// One row's new value, or its deletion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Its table.
    pub table: Table,
    /// Its key.
    pub key: Vec<u8>,
    /// None: deleted.
    pub value: Option<Vec<u8>>,
}

/// Tables in memory: for tests, tools and embedders that bring their own durability.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemRows {
    rows: BTreeMap<(Table, Vec<u8>), Vec<u8>>,
}

impl MemRows {
    /// Writes the changes.
    pub fn write(&mut self, changes: &[Change]) {
        for change in changes {
            let key = (change.table, change.key.clone());
            match &change.value {
                Some(value) => self.rows.insert(key, value.clone()),
                None => self.rows.remove(&key),
            };
        }
    }

    /// Every row, in order of (table, key).
    pub fn iter(&self) -> impl Iterator<Item = (Table, &[u8], &[u8])> {
        self.rows.iter().map(|((table, key), value)| (*table, key.as_slice(), value.as_slice()))
    }
}

impl Rows for MemRows {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, RowsError> {
        Ok(self.rows.get(&(table, key.to_vec())).cloned())
    }

    fn scan(
        &self,
        table: Table,
        from: &[u8],
        to: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), RowsError> {
        for ((row_table, key), value) in self.rows.range((table, from.to_vec())..) {
            if *row_table != table || (!to.is_empty() && key.as_slice() >= to) || !visit(key, value) {
                break;
            }
        }
        Ok(())
    }

    fn scan_back(
        &self,
        table: Table,
        from: &[u8],
        to: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), RowsError> {
        use std::ops::Bound::{Excluded, Included, Unbounded};
        let low = Included((table, from.to_vec()));
        let high = if to.is_empty() { Unbounded } else { Excluded((table, to.to_vec())) };
        for ((row_table, key), value) in self.rows.range((low, high)).rev() {
            if *row_table > table {
                continue;
            }
            if !visit(key, value) {
                break;
            }
        }
        Ok(())
    }
}
