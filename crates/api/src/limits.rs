//! Every bound of this crate, by name.

use std::time::Duration;

/// Bytes of `task_data` in a submission. A command is at most 256 KiB.
pub const TASK_DATA_BYTES_MAX: usize = 200 * 1024;
/// Bytes of `result_data` in a report.
pub const RESULT_DATA_BYTES_MAX: usize = 200 * 1024;
/// Bytes of a reason or a message that a client gives.
pub const REASON_BYTES_MAX: usize = 8 * 1024;
/// Bytes of a name, an id or a request id.
pub const NAME_BYTES_MAX: usize = 256;
/// Bytes of the metrics of one gradient.
pub const METRICS_BYTES_MAX: usize = 16 * 1024;
/// Bytes of a numeric class; the same as the machine takes.
pub const NUMERIC_CLASS_BYTES_MAX: usize = 4 * 1024;
/// Bytes of one command as the log takes it.
pub const COMMAND_BYTES_MAX: usize = 256 * 1024;
/// Rows in one page of a list.
pub const PAGE_ROWS_MAX: usize = 1_000;
/// Rows in a page when the client names no limit.
pub const PAGE_ROWS_DEFAULT: usize = 100;
/// Bytes of one artifact, model or gradient.
pub const UPLOAD_BYTES_MAX: u64 = 16 * 1024 * 1024 * 1024;

/// Longest wait of a poll, in milliseconds.
pub const POLL_WAIT_MS_MAX: u32 = 30_000;
/// Longest wait of a poll that a follower forwards: it holds a thread for that long. The client polls again.
pub const FORWARDED_POLL_WAIT_MS_MAX: u32 = 1_000;
/// Tasks handed out by one poll.
pub const POLL_TASKS_MAX: u32 = 1_024;
/// A forwarded call is given up after this; beyond the longest forwarded poll.
pub const FORWARD_TIMEOUT: Duration = Duration::from_secs(10);

/// Threads that read and write models, gradients, artifacts and logs.
pub const DATA_THREADS: usize = 8;
/// Uploads at once.
pub const UPLOADS_MAX: usize = 64;
/// Uploads that wait for their rest.
pub const PARKED_MAX: usize = 16;
/// So long an upload waits for its rest.
pub const PARKED_FOR: Duration = Duration::from_secs(60);
/// Downloads at once.
pub const DOWNLOADS_MAX: usize = 256;
/// Log appends and log reads at once.
pub const LOG_CALLS_MAX: usize = 256;
/// Each stream has one job in the queue at most, so an admitted stream is never refused in the middle.
pub const DATA_QUEUE_MAX: usize = UPLOADS_MAX + DOWNLOADS_MAX + LOG_CALLS_MAX;
/// Threads that wait for forwarded calls. They are started when they are needed.
pub const FORWARD_THREADS: usize = 32;
/// Forwarded calls at once, waiting ones included.
pub const FORWARDS_MAX: usize = 512;
/// Connections of nodes without leases that are remembered.
pub const CALLERS_MAX: usize = 16_384;

/// Sessions at once.
pub const SESSIONS_MAX: usize = 1_024;
/// Batches of one session under way at once; further ones wait in the client.
pub const SESSION_BATCHES_MAX: usize = 64;
/// Calls in one batch of a session.
pub const SESSION_CALLS_MAX: usize = 4_096;
/// Bytes of the commands of one proposal of a session, with room for what a proposal adds to them. What is more goes as a further one.
pub const SESSION_PROPOSAL_BYTES_MAX: usize = 192 * 1024;

/// Watches at once, follows of logs included.
pub const WATCHES_MAX: usize = 4_096;
/// Rounds read at once by a watch.
pub const WATCH_ROUNDS_MAX: usize = 256;
/// How often a value that is overwritten while it is gathered is looked for again, for one call.
pub const VALUE_READS_MAX: usize = 8;
/// Longest watch of a key that names a time.
pub const KV_WATCH_SECONDS_MAX: u64 = 24 * 60 * 60;
/// A watch looks again after this even if nothing was applied, to notice a client that has gone.
pub const WATCH_IDLE: Duration = Duration::from_secs(1);
/// Longest time for which a follower waits until it has applied what its leader has answered.
pub const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(2);
/// One wait of the above.
pub const CATCH_UP_WAIT: Duration = Duration::from_millis(100);

/// Bytes of a task's log that are kept at least, once it has more.
pub const LOG_TAIL_BYTES: u64 = 1024 * 1024;
/// A log's file is cut back to its tail when it grows beyond this.
pub const LOG_FILE_BYTES_MAX: u64 = 2 * LOG_TAIL_BYTES;
/// Bytes of all logs kept here; the log that was written longest ago goes first.
pub const LOG_TOTAL_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// A kept log of at most so many bytes is the whole log: workers cut longer ones (their LOG_KEPT_BYTES).
pub const LOG_KEPT_WHOLE_BYTES_MAX: u64 = 1024 * 1024;
/// Bytes in one append.
pub const LOG_APPEND_BYTES_MAX: usize = 256 * 1024;
/// Bytes in one chunk of a log stream.
pub const LOG_CHUNK_BYTES_MAX: usize = 64 * 1024;
/// Between two looks of a log stream that follows.
pub const LOG_FOLLOW_PAUSE: Duration = Duration::from_millis(300);

const _: () = assert!(TASK_DATA_BYTES_MAX < COMMAND_BYTES_MAX);
const _: () = assert!(SESSION_PROPOSAL_BYTES_MAX < COMMAND_BYTES_MAX);
const _: () = assert!(RESULT_DATA_BYTES_MAX + REASON_BYTES_MAX < COMMAND_BYTES_MAX);
const _: () = assert!(FORWARDED_POLL_WAIT_MS_MAX < POLL_WAIT_MS_MAX);
const _: () = assert!((FORWARDED_POLL_WAIT_MS_MAX as u64) < FORWARD_TIMEOUT.as_secs() * 1_000);
const _: () = assert!(LOG_APPEND_BYTES_MAX as u64 <= LOG_TAIL_BYTES);
const _: () = assert!(LOG_FILE_BYTES_MAX < LOG_TOTAL_BYTES_MAX);
