//! Limits and waiting times of the command line.

use std::time::Duration;

/// Default of --dir.
pub(crate) const DEV_DIRECTORY: &str = ".raftgrid-dev";
/// Directory of `gridctl demo`.
pub(crate) const DEMO_DIRECTORY: &str = ".demo";
/// Default of --timeout: one call with its retries. Longer than an election and a lease of the `local` preset together.
pub(crate) const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// One question to one replica that may be dead.
pub(crate) const PROBE_TIMEOUT: Duration = Duration::from_millis(500);
/// Pause between two questions of a loop that waits.
pub(crate) const PROBE_PAUSE: Duration = Duration::from_millis(10);
/// Until every replica of a dev cluster answers and knows a leader.
pub(crate) const READY_TIMEOUT: Duration = Duration::from_secs(20);
/// `dev kill leader` waits for one that is being elected.
pub(crate) const ELECTION_PATIENCE: Duration = Duration::from_secs(5);
/// Between SIGTERM and SIGKILL of `dev down`.
pub(crate) const STOP_GRACE: Duration = Duration::from_secs(4);
/// A killed process must be gone within this.
pub(crate) const KILL_TIMEOUT: Duration = Duration::from_secs(5);
/// A bundle (script and folder, as tar), in bytes.
pub(crate) const BUNDLE_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Files in a bundle.
pub(crate) const BUNDLE_FILES_MAX: usize = 10_000;
/// JSON of a task, in bytes: a command in the log is at most 256 KiB.
pub(crate) const TASK_DATA_BYTES_MAX: usize = 192 * 1024;
/// A job file, in bytes.
pub(crate) const JOB_FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// JSON of a job's task, in bytes: what the machine takes.
pub(crate) const JOB_DATA_BYTES_MAX: usize = 128 * 1024;
/// Snapshots that one backup takes, until all artifacts of one are still there.
pub(crate) const BACKUP_PASSES_MAX: u32 = 20;
/// Replicas of a dev cluster.
pub(crate) const DEV_PEERS_MAX: u32 = 7;
/// Workers of a dev cluster.
pub(crate) const DEV_WORKERS_MAX: u32 = 64;
/// One call of a benchmark.
pub(crate) const BENCH_CALL_TIMEOUT: Duration = Duration::from_secs(20);
/// Between two heartbeats of a simulated worker: below the interval of the `local` preset.
pub(crate) const BENCH_BEAT: Duration = Duration::from_millis(200);
/// Submitting all tasks of `bench scale`.
pub(crate) const BENCH_LOAD_TIMEOUT: Duration = Duration::from_secs(1_200);
/// Long poll of an idle simulated worker.
pub(crate) const BENCH_POLL_WAIT: Duration = Duration::from_secs(30);
/// Threads on which idle simulated workers beat.
pub(crate) const BENCH_BEATING_THREADS: usize = 8;
/// For so long idle workers are watched.
pub(crate) const BENCH_IDLE_TIME: Duration = Duration::from_secs(30);
/// One attempt of a write while nobody may lead.
pub(crate) const BENCH_ATTEMPT_TIMEOUT: Duration = Duration::from_millis(100);
/// Between a server's return and the next kill.
pub(crate) const BENCH_SETTLE_PAUSE: Duration = Duration::from_millis(300);
/// One round of training in a benchmark, and its start: the first model goes up, too.
pub(crate) const BENCH_ROUND_TIMEOUT: Duration = Duration::from_secs(300);
/// One upload or download of a benchmark.
pub(crate) const BENCH_TRANSFER_TIMEOUT: Duration = Duration::from_secs(300);
/// MiB of a model, a gradient or an artifact of a benchmark.
pub(crate) const BENCH_MIB_MAX: u64 = 8 * 1024;
/// Trainers, or downloads, of a benchmark at the same time.
pub(crate) const BENCH_AT_ONCE_MAX: usize = 32;
/// A value of `bench value`, in bytes: what one message carries, with room.
pub(crate) const BENCH_VALUE_BYTES_MAX: usize = 3 << 20;
/// A piece of a value that goes through the log, in bytes.
pub(crate) const BENCH_VALUE_PIECE_BYTES: usize = 62_500;
/// Connections that the clients of a benchmark share.
pub(crate) const BENCH_CONNECTIONS_MAX: usize = 16;
/// `job audit --acks`: bytes of one file.
pub(crate) const ACKS_BYTES_MAX: u64 = 256 * 1024 * 1024;

const _: () = assert!(PROBE_TIMEOUT.as_millis() < CALL_TIMEOUT.as_millis());
const _: () = assert!(BENCH_VALUE_PIECE_BYTES <= raftgrid_manifest::limits::KV_VALUE_BYTES_MAX);
const _: () = assert!(TASK_DATA_BYTES_MAX < 256 * 1024);
