//! Every limit of the agent, by name.

use std::time::Duration;

/// Bytes of all gradients and models that are held in memory on their way up; further ones go to files.
pub const SPOOL_MEMORY_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Bytes of one gradient or model.
pub const BODY_BYTES_MAX: u64 = 16 * 1024 * 1024 * 1024;
/// Calls of Python processes that are served at once.
pub const CALLS_MAX: usize = 256;
/// Bytes of a result that a task sets: what the manifest takes.
pub const RESULT_BYTES_MAX: usize = raftgrid_worker::limits::RESULT_BYTES_MAX;
/// Bytes of a token in the metadata.
pub const TOKEN_BYTES_MAX: usize = 128;
/// Bytes of the place of a sealed file in the metadata.
pub const PLACE_BYTES_MAX: usize = 128;
/// Bytes of a sealed file that are read at a time to hash it.
pub const FILE_PIECE_BYTES: usize = 1024 * 1024;
/// Longest wait of one poll for shards; Python asks again.
pub const SHARD_WAIT_MS_MAX: u32 = 5_000;
/// First and longest pause while the control plane moves.
pub const RETRY: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(250));
/// What one attempt of a small call may take beyond its own wait.
pub const ATTEMPT_EXTRA: Duration = Duration::from_secs(3);
/// What one attempt of a stream may take, beyond a second per `STREAM_BYTES_PER_S_MIN`. Model 0 waits for others that long.
pub const STREAM_ATTEMPT: Duration = Duration::from_secs(25);
/// A slower stream is given up and sent again.
pub const STREAM_BYTES_PER_S_MIN: u64 = 1024 * 1024;

const _: () = assert!(SHARD_WAIT_MS_MAX >= 1_000);
