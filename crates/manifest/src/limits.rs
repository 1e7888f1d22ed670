//! Every bound of the state machine, by name. Changing one changes what replicas accept: it needs a new machine_version.

/// Commands in one entry: the ordinal of a position has 16 bits.
pub const COMMANDS_PER_ENTRY_MAX: u64 = 1 << 16;
/// Bytes of a task, node, replica or request id.
pub const ID_BYTES_MAX: usize = 128;
/// Bytes of a job's name; a trainer's id (`<name>/trainer-<i>`) must still fit `ID_BYTES_MAX`.
pub const JOB_NAME_BYTES_MAX: usize = 64;
/// Bytes of a task's data (JSON).
pub const TASK_DATA_BYTES_MAX: usize = 128 << 10;
/// Bytes of a result (JSON); larger ones are artifacts.
pub const RESULT_DATA_BYTES_MAX: usize = 64 << 10;
/// Bytes of a reason that is kept in a row; longer ones are cut.
pub const REASON_BYTES_MAX: usize = 1_024;
/// Bytes of metrics, numeric classes and addresses.
pub const NOTE_BYTES_MAX: usize = 4 << 10;
/// Bytes of the id of a replica's data directory.
pub const STORE_UUID_BYTES: usize = 16;
/// Bytes of an encoded task spec.
pub const SPEC_BYTES_MAX: usize = 32 << 10;
/// Labels, constraints and environment variables, each.
pub const LABELS_MAX: usize = 64;

/// Thousandths of a core that a task or node may name: a million cores. With the bounds below, sums over `SLOTS_MAX` tasks cannot overflow.
pub const CPU_MILLI_MAX: u64 = 1_000_000_000;
/// Bytes of memory that a task or node may name: 1 PiB.
pub const MEMORY_BYTES_MAX: u64 = 1 << 50;
/// GPUs that a task or node may name.
pub const GPUS_MAX: u32 = 1_024;
/// Slots that a task or node may name.
pub const SLOTS_MAX: u32 = 4_096;

/// User failures that are tried again where the spec names no number.
pub const MAX_RETRIES_DEFAULT: u32 = 3;
/// Exit code that asks for another try without being counted (sysexits' EX_TEMPFAIL).
pub const EXIT_CODE_RETRY: i32 = 75;
/// Exit codes that say the task itself is wrong, so that another try cannot help (sysexits' EX_USAGE, EX_DATAERR, EX_NOINPUT).
pub const EXIT_CODES_FINAL: [i32; 3] = [64, 65, 66];
/// Longest back-off that a leader may draw.
pub const BACKOFF_MS_MAX: u64 = 60 * 60 * 1_000;
/// Retries by hand of one task.
pub const RETRIES_BY_HAND_MAX: u32 = 100;

/// Assignments in one command.
pub const ASSIGNMENTS_MAX: usize = 1_024;
/// Loads in one report.
pub const LOADS_MAX: usize = 4_096;
/// Slots of a node that names none (agents that exist name none).
pub const SLOTS_DEFAULT: u32 = 8;

/// Shards of a train job; its round row carries a lease for each.
pub const SHARDS_MAX: u32 = 1_024;
/// Trainer tasks of a job: they are created in one apply.
pub const WORKERS_MAX: u32 = 256;
/// Rounds of a job.
pub const ROUNDS_MAX: u64 = 1_000_000_000;
/// Leases that one round row keeps.
pub const ROUND_LEASES_MAX: usize = 4 * SHARDS_MAX as usize;
/// Refused results that one (round, shard) keeps by name; more are only counted.
pub const REFUSED_MAX: usize = 8;
/// Nodes on which a (round, shard) may be rejected before the job stops.
pub const REJECTING_NODES_MAX: usize = 2;
/// Rounds that the ledger keeps whole; older ones live on in the hash chain and the counters.
pub const LEDGER_ROUNDS: u64 = 100;
/// Rounds whose gradient bytes are always kept: those of round r, until model r+2 is committed.
pub const RETAIN_ROUNDS_MIN: u64 = 2;
/// Rounds that are kept once the bytes pass `RETAIN_BYTES_DEFAULT`.
pub const RETAIN_ROUNDS_DEFAULT: u64 = 3;
/// Gradient bytes of one job that are kept whatever their age, where the job names no number of rounds.
pub const RETAIN_BYTES_DEFAULT: u64 = 1 << 30;
/// Rounds that one commit lets go at most, so that no apply is long.
pub const RELEASED_ROUNDS_PER_COMMIT: u64 = 4;

/// Replicas in one placement.
pub const PLACEMENT_MAX: usize = 16;
/// Receipts in one command.
pub const RECEIPTS_MAX: usize = 32;

/// Answers kept for request ids.
pub const REQUESTS_MAX: u64 = 1_000_000;
/// Cluster time for which an answer is kept.
pub const REQUEST_AGE_MS_MAX: u64 = 24 * 60 * 60 * 1_000;
/// How far a request id may lie ahead of cluster time: one that does would raise the mark of what is forgotten above honest ids.
pub const REQUEST_AHEAD_MS_MAX: u64 = 60 * 1_000;
/// Answers forgotten in one command; more than one, so that the table shrinks.
pub const REQUESTS_FORGOTTEN_PER_COMMAND: usize = 4;

/// Rows in one page of a listing.
pub const PAGE_ROWS_MAX: usize = 1_000;
/// Nodes that an explanation names.
pub const EXPLAINED_NODES_MAX: usize = 100;

/// Queues of a cluster.
pub const QUEUES_MAX: usize = 1_000;
/// Heaviest share of a queue.
pub const QUEUE_WEIGHT_MAX: u32 = 1_000;
/// Weight of one preference or soft affinity.
pub const PREFERENCE_WEIGHT_MAX: u32 = 100;
/// Affinities of a task.
pub const AFFINITIES_MAX: usize = 8;

/// Highest priority of a task; the lowest is 0.
pub const PRIORITY_MAX: i32 = 100;

const _: () = assert!(JOB_NAME_BYTES_MAX + "/trainer-".len() + 10 <= ID_BYTES_MAX);
const _: () = assert!(TASK_DATA_BYTES_MAX + SPEC_BYTES_MAX + ID_BYTES_MAX < 256 << 10);
const _: () = assert!(MEMORY_BYTES_MAX.checked_mul(SLOTS_MAX as u64).is_some());
const _: () = assert!(SLOTS_DEFAULT <= SLOTS_MAX);
const _: () = assert!(REFUSED_MAX >= REJECTING_NODES_MAX);
const _: () = assert!(RETAIN_ROUNDS_DEFAULT >= RETAIN_ROUNDS_MIN);
const _: () = assert!(LEDGER_ROUNDS > RETAIN_ROUNDS_DEFAULT);
const _: () = assert!(REQUEST_AHEAD_MS_MAX < REQUEST_AGE_MS_MAX);
