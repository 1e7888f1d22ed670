//! Every bound of the harness, by name. None decides a verdict but those that say so.

use std::time::Duration;

/// Longest wait for something that must come once faults are over: a leader, equal digests. Its passing is a failure of the run.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Pause between two looks.
pub const LOOK_PAUSE: Duration = Duration::from_millis(20);
/// One attempt of a write at one replica; then another replica is asked, with the same request id.
pub const ATTEMPT_TIMEOUT: Duration = Duration::from_millis(700);
/// The same of the client that is in a hurry: it asks again and again, so that the time of a failover is not that of its own patience.
pub const HASTY_TIMEOUT: Duration = Duration::from_millis(60);
/// A write as a whole; then its outcome is unknown.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(4);
/// A read: one attempt, at one replica.
pub const READ_TIMEOUT: Duration = Duration::from_millis(1_000);
/// A look at a replica's state.
pub const STATE_TIMEOUT: Duration = Duration::from_millis(500);
/// Operations of all register clients after which the window of keys moves on by one.
pub const OPS_PER_KEY: u64 = 14;
/// Keys in use at the same time.
pub const KEYS_AT_ONCE: u64 = 4;
/// Pause between two operations of one client: what a run records stays bounded.
pub const OP_PAUSE: Duration = Duration::from_millis(4);
/// Chunk of the proxy.
pub const PROXY_CHUNK_BYTES: usize = 64 * 1024;
/// How soon the proxy takes up a changed rule.
pub const PROXY_POLL: Duration = Duration::from_millis(10);
/// Lines of each process's log that a failed run prints.
pub const LOG_LINES_SHOWN: usize = 15;
/// Violations that are printed; the rest is counted.
pub const VIOLATIONS_SHOWN: usize = 10;
/// Rows of one page of the final audit.
pub const PAGE_ROWS: i32 = 1_000;
/// How long each mixture of older and newer replicas lives, at least.
pub const MIXED_FOR: Duration = Duration::from_millis(1_500);
/// Leadership handed over by order: one attempt.
pub const TRANSFER_TIMEOUT: Duration = Duration::from_secs(3);
/// A change of the membership: one attempt. It may wait for a newcomer to catch up and for copies to be carried away.
pub const CHANGE_TIMEOUT: Duration = Duration::from_secs(20);
/// Replicas that run at the same time.
pub const PROCESSES_MAX: usize = 6;
/// A job of `bits`, from its first process to its end. Its passing is a failure of the run.
pub const RUN_PATIENCE: Duration = Duration::from_secs(300);
/// One look at the job, with retries.
pub const JOB_LOOK_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest pause between the death of a process and the start of the next one there, in milliseconds.
pub const RESTART_PAUSE_MS_MAX: u64 = 400;
/// Rounds for which a replica is kept down until the log that it lacks is gone.
pub const AWAY_ROUNDS: u64 = 10;
/// Rounds after which a point that nobody came to is armed everywhere again.
pub const FORCE_AGAIN_ROUNDS: u64 = 5;
