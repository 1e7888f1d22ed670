//! Named limits of the store, with the relations that must hold between them.

/// Entries kept decoded in memory, by size: the raft thread reads these without touching the disk.
pub const LOG_CACHE_BYTES_MAX: u64 = 8 << 20;
/// Entries kept decoded in memory, by number.
pub const LOG_CACHE_ENTRIES_MAX: usize = 16_384;
/// What an entry counts beside its data when replies are cut to size: index, term and framing.
pub const ENTRY_OVERHEAD_BYTES: u64 = 32;
/// Unflushed bytes of table changes after which a flush is asked for.
pub const UNFLUSHED_BYTES_MAX: u64 = 64 << 20;
/// Unflushed changes of rows after which a flush is asked for (about one a command).
pub const UNFLUSHED_CHANGES_MAX: u64 = 200_000;
/// Snapshots kept for followers; older ones go when no transfer reads them.
pub const SNAPSHOTS_KEPT: usize = 3;
/// Files of one snapshot; a sender that names more is refused.
pub const SNAPSHOT_FILES_MAX: usize = 65_536;
/// Length of a file name in a snapshot.
pub const FILE_NAME_BYTES_MAX: usize = 128;
/// One read of a snapshot's file.
pub const CHUNK_BYTES_MAX: usize = 4 << 20;
/// Least distance between the old log's end and the base of a new group: whatever the lost replicas wrote after it lies within.
pub const BASE_GAP: u64 = 1 << 32;
/// Indexes that a group is taken to use up in a second, at the most, when two bases are made of the same state at different times.
pub const BASE_STEP_PER_SECOND: u64 = 1 << 14;
/// 2026-01-01T00:00:00Z in Unix seconds; the steps are counted from here.
pub const BASE_EPOCH_UNIX_S: u64 = 1_767_225_600;
/// Highest base: positions have 48 bits for the index.
pub const BASE_INDEX_MAX: u64 = 1 << 47;
/// Length of a cluster's name.
pub const CLUSTER_ID_BYTES_MAX: usize = 256;
/// Members of a configuration.
pub const MEMBERS_MAX: usize = 1_024;
/// Free space below which a replica stops taking writes.
pub const LOW_WATER_BYTES: u64 = 512 << 20;
/// Space set aside for truncation, flush and deletion on a full disk.
pub const BALLAST_BYTES: u64 = 64 << 20;

const _: () = assert!(BALLAST_BYTES < LOW_WATER_BYTES);
const _: () = assert!(LOG_CACHE_BYTES_MAX < UNFLUSHED_BYTES_MAX);
const _: () = assert!(SNAPSHOTS_KEPT > 0 && LOG_CACHE_ENTRIES_MAX > 0);
