//! Named limits of the mirror.

/// How often it is looked for what was committed, in milliseconds.
pub const LOOK_MS: u64 = 1_000;
/// Rows of artifacts that are read at a time.
pub const ROWS_AT_ONCE: usize = 1_024;
/// Bytes of one part of an upload: an artifact up to this size is one request, and of a larger one so much is in memory.
pub const PART_BYTES: u64 = 8 * 1024 * 1024;
/// Parts that S3 takes for one object. A larger artifact is sent in larger parts.
pub const PARTS_MAX: u64 = 10_000;
/// Bytes a second that are sent unless a setting says otherwise.
pub const BYTES_PER_SECOND: u64 = 32 * 1024 * 1024;
/// The slowest rate that a setting may give: a part then takes two minutes.
pub const BYTES_PER_SECOND_MIN: u64 = 64 * 1024;
/// Wait after the first failure of the store, in milliseconds; it doubles with each further one.
pub const BACKOFF_MS: u64 = 1_000;
/// The longest of these waits, in milliseconds.
pub const BACKOFF_MS_MAX: u64 = 60_000;
/// A store that keeps failing is told of again after this, in milliseconds.
pub const REMIND_MS: u64 = 600_000;
/// The destination is asked again what it has after this, in milliseconds.
pub const ASK_AGAIN_MS: u64 = 24 * 3_600_000;
/// A connection must stand by then, in milliseconds.
pub const CONNECT_MS: u64 = 5_000;
/// A request must be answered by then, in milliseconds: a part on a slow link.
pub const REQUEST_MS: u64 = 180_000;
/// How often one request is repeated before it counts as failed.
pub const REQUEST_RETRIES: usize = 2;
/// No repetition begins later than this after the first try, in milliseconds.
pub const REQUEST_RETRY_MS: u64 = 20_000;
/// Unused connections are closed after this, in milliseconds.
pub const CONNECTION_IDLE_MS: u64 = 30_000;
/// Threads for what blocks in a directory, and for names of hosts.
pub const BLOCKING_THREADS: usize = 2;
/// Bytes of a cause in a log line.
pub const CAUSE_BYTES_MAX: usize = 600;
/// Bytes of the note that a half upload leaves: an upload id.
pub const NOTE_BYTES_MAX: u64 = 8 * 1024;
/// How long the end of the process waits for a write to a directory, in milliseconds.
pub const STOP_MS: u64 = 2_000;

const _: () = assert!(PART_BYTES >= 5 * 1024 * 1024, "S3 takes no smaller part but the last");
const _: () = assert!(BACKOFF_MS <= BACKOFF_MS_MAX);
const _: () = assert!(BYTES_PER_SECOND_MIN <= BYTES_PER_SECOND);
