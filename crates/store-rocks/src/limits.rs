//! Named limits: what the databases of one process may take. Three replicas and their workers share small machines.

/// One memtable of the log. Small, and more of them: the raft thread must not wait for a flush.
pub const LOG_WRITE_BUFFER_BYTES: usize = 8 << 20;
/// Memtables of the log, the one being written included.
pub const LOG_WRITE_BUFFERS_MAX: i32 = 4;
/// One memtable of the tables.
pub const STATE_WRITE_BUFFER_BYTES: usize = 16 << 20;
/// Memtables of the tables, the one being written included. RocksDB puts a flush that is asked for off until one more full memtable would not
/// be one too many: of three, one may be on its way to the disk meanwhile.
pub const STATE_WRITE_BUFFERS_MAX: i32 = 3;
/// Young files of the tables from which on RocksDB slows writers down. It also puts every flush that is asked for off, and so every snapshot,
/// until one more file would be below this. A compaction of young files takes tens of seconds behind a bulk load, and until it ends all that
/// is flushed piles up: two gigabytes of rows in a minute, with a snapshot each half second, got to 62. Index and filter of a full one take
/// about 200 KiB of memory.
pub const STATE_YOUNG_FILES_SLOW: i32 = 192;
/// Young files of the tables from which on writers wait.
pub const STATE_YOUNG_FILES_MAX: i32 = 224;
/// Blocks of both databases kept in memory.
pub const BLOCK_CACHE_BYTES: usize = 24 << 20;
/// Blocks kept in memory while a state is verified: index and filter of the file under way.
pub const VERIFY_CACHE_BYTES: usize = 2 << 20;
/// Flush and compaction threads of a process: one each, so that the raft thread keeps its core.
pub const BACKGROUND_JOBS_MAX: i32 = 2;
/// Size of a table file.
pub const TABLE_FILE_BYTES: u64 = 16 << 20;
/// A background write hands its pages to the disk in steps of this size, so that an fsync of the log never queues
/// behind it.
pub const BYTES_PER_SYNC: u64 = 1 << 20;
/// RocksDB's own log of events, per file.
pub const EVENT_LOG_BYTES_MAX: usize = 1 << 20;
/// Files of it that are kept.
pub const EVENT_LOGS_KEPT: usize = 2;
/// Bits a key of the filters in table files.
pub const FILTER_BITS_PER_KEY: f64 = 10.0;

const _: () = assert!(LOG_WRITE_BUFFER_BYTES * LOG_WRITE_BUFFERS_MAX as usize <= 32 << 20);
const _: () = assert!(STATE_WRITE_BUFFER_BYTES * STATE_WRITE_BUFFERS_MAX as usize <= 48 << 20);
const _: () = assert!(STATE_YOUNG_FILES_SLOW < STATE_YOUNG_FILES_MAX);
