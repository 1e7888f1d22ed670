//! Every limit of the worker, by name.

/// Lease TTL that is assumed until a leader names one, in milliseconds.
pub const LEASE_TTL_DEFAULT_MS: u64 = 15_000;
/// Interval of beats that is assumed until a leader names one, in milliseconds.
pub const BEAT_DEFAULT_MS: u64 = 250;
/// Longest interval of beats that is obeyed, in milliseconds.
pub const BEAT_MAX_MS: u64 = 10_000;
/// First pause after a beat that failed, in milliseconds; doubled up to the interval.
pub const BEAT_RETRY_FIRST_MS: u64 = 25;
/// Bounds of the time that one beat may take, in milliseconds; within them TTL / 6.
pub const BEAT_TIMEOUT_MS: (u64, u64) = (250, 2_000);
/// Pause after a poll that failed, or that was answered at once without anything new, in milliseconds.
pub const POLL_PAUSE_MS: u64 = 200;
/// An empty answer that comes sooner than this comes from a server that does not wait, in milliseconds.
pub const POLL_PROMPT_MS: u64 = 50;
/// First and longest pause between attempts of a start or a report, in milliseconds.
pub const CALL_RETRY_MS: (u64, u64) = (50, 1_000);
/// One attempt of a start or a report, in milliseconds.
pub const CALL_TIMEOUT_MS: u64 = 3_000;
/// Calls (starts, reports) under way at once.
pub const CALL_THREADS: usize = 4;
/// What a drain may take beyond the grace that its tasks have, in milliseconds.
pub const DRAIN_EXTRA_MS: u64 = 5_000;
/// Tasks at once on one worker.
pub const SLOTS_MAX: u32 = 4_096;
/// Events that wait for the executor.
pub const EVENTS_MAX: usize = 16_384;

/// Bytes of stdout that go into a result.
pub const STDOUT_TAIL_BYTES_MAX: usize = 60 * 1024;
/// Bytes of a result's JSON: what the manifest takes.
pub const RESULT_BYTES_MAX: usize = 64 * 1024;
/// Bytes of a reason; the manifest takes a little more.
pub const REASON_BYTES_MAX: usize = 1_000;
/// Bytes of one attempt's log on disk; what comes later is dropped.
pub const LOG_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Bytes of one piece of log that is sent.
pub const LOG_BATCH_BYTES_MAX: usize = 256 * 1024;
/// Pause between two looks for new log, in milliseconds.
pub const LOG_INTERVAL_MS: u64 = 250;
/// How long the rest of a log is sent after its task's end, in milliseconds.
pub const LOG_LINGER_MS: u64 = 5_000;
/// How long the output of a dead process group is waited for, in milliseconds.
pub const OUTPUT_LINGER_MS: u64 = 1_000;
/// Directories of finished attempts that are kept.
pub const TASK_DIRS_KEPT: usize = 64;

/// Entries of one bundle.
pub const BUNDLE_ENTRIES_MAX: usize = 100_000;
/// Bytes of one bundle, unpacked.
pub const BUNDLE_BYTES_MAX: u64 = 1024 * 1024 * 1024;
/// Bytes of one model.
pub const MODEL_BYTES_MAX: u64 = 64 * 1024 * 1024 * 1024;
/// A model up to this many bytes is kept in memory, sealed, and handed to processes without a stream; a larger one in a file.
pub const MODEL_IN_MEMORY_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// Models that are kept per machine.
pub const MODELS_KEPT: usize = 4;
/// How long the leftovers of a predecessor may take to die, in milliseconds.
pub const LEFTOVERS_DIE_MS: u64 = 5_000;
/// How long what a task left outside its group may take to die at the task's end, in milliseconds.
pub const RUN_DIE_MS: u64 = 1_000;
/// How often processes in the middle of an exec are looked at again at a task's end.
pub const STARTING_LOOKS: u32 = 3;
/// How long a Python interpreter may take to say what it has, in milliseconds.
pub const INTERPRETER_LOOK_MS: u64 = 20_000;
/// Unpacked bundles that are kept on one machine.
pub const BUNDLES_KEPT: usize = 16;
/// Largest n of an n × n product: three matrices of 512 MiB.
pub const MATMUL_N_MAX: usize = 8_192;
/// Artifacts that are fetched for one Python task.
pub const INPUTS_MAX: usize = 64;
/// How long an artifact that a task needs may be unknown to the replica that is asked, in milliseconds: it may lag behind.
pub const INPUT_UNKNOWN_MS: u64 = 10_000;
/// Rows and columns of a block of a product.
pub const BLOCK_MAX: usize = 4_096;

/// GPUs of one machine.
pub const GPUS_MAX: usize = 1_024;
/// How long nvidia-smi may take, in milliseconds.
pub const GPU_LOOK_MS: u64 = 10_000;
/// How long an attempt waits for the GPUs of one that is just ending, in milliseconds.
pub const GPU_WAIT_MS: u64 = 10_000;
/// Tasks whose last GPUs are remembered.
pub const GPU_MEMORIES_MAX: usize = 1_024;
/// Bytes of a task's requirements: what the manifest takes.
pub const REQUIREMENTS_BYTES_MAX: usize = 16 * 1024;
/// Environments that are kept on one machine.
pub const VENVS_KEPT: usize = 8;
/// How long a Python interpreter may take to say what it is, in milliseconds.
pub const VENV_LOOK_MS: u64 = 20_000;
/// Bytes of the beginning and of the end of a log that are kept as an artifact.
pub const LOG_KEPT_BYTES: (u64, u64) = (256 * 1024, 768 * 1024);
/// How long the upload of a log may take, in milliseconds; it stands before the report.
pub const LOG_UPLOAD_MS: u64 = 5_000;
/// Free bytes below which a worker's disk is a problem.
pub const DISK_FREE_BYTES_MIN: u64 = 64 * 1024 * 1024;
/// Difference to the leader's clock that is a problem, in milliseconds.
pub const CLOCK_SKEW_MS_MAX: u64 = 10_000;
/// Between two looks at disk and GPUs, in milliseconds.
pub const CHECK_EVERY_MS: u64 = 10_000;

const _: () = assert!(STDOUT_TAIL_BYTES_MAX < RESULT_BYTES_MAX);
const _: () = assert!(BEAT_RETRY_FIRST_MS < BEAT_DEFAULT_MS && BEAT_DEFAULT_MS < BEAT_MAX_MS);
const _: () = assert!(BEAT_TIMEOUT_MS.0 < BEAT_TIMEOUT_MS.1);
const _: () = assert!(POLL_PROMPT_MS < POLL_PAUSE_MS);
