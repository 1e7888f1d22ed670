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
/// Attempts that a task's row remembers; older ones are counted only.
pub const ATTEMPTS_KEPT_MAX: usize = 8;
/// Bytes of the reason that is kept of each.
pub const ATTEMPT_REASON_BYTES_MAX: usize = 160;
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
/// Refused contributions of a node to a job, where another node's passed, after which the job's shards go to other nodes.
pub const QUARANTINE_REFUSALS: u32 = 3;
/// Nodes whose refused contributions a job counts.
pub const QUARANTINED_NODES_MAX: usize = 64;
/// Nodes on which a (round, shard) may be rejected before the job stops.
pub const REJECTING_NODES_MAX: usize = 2;
/// Newest rounds whose metrics are all kept; a power of two. Of those before, ever fewer are (`commands/history.rs`).
pub const HISTORY_ROUNDS: u64 = 4_096;
/// Bytes of a page of a job's history.
pub const HISTORY_PAGE_BYTES: u64 = 1 << 20;
/// Rounds that the ledger keeps whole; older ones live on in the hash chain and the counters.
pub const LEDGER_ROUNDS: u64 = 100;
/// Shortest and longest deadline of a round: below it rounds would end before a gradient can come, beyond it nobody waits.
pub const ROUND_DEADLINE_MS_MIN: u64 = 100;
/// Thirty days.
pub const ROUND_DEADLINE_MS_MAX: u64 = 30 * 24 * 60 * 60 * 1_000;
/// Extensions of one round.
pub const EXTENSIONS_MAX: u32 = 1_000;
/// Rounds that a gradient's model may be behind; each is a row that is open at once, and the ledger must still know what was counted.
pub const STALENESS_MAX: u64 = 50;
/// Shards without a contribution that the reason of a job that was paused or failed names.
pub const MISSING_SHARDS_NAMED: usize = 8;
/// Rounds whose gradient bytes are always kept: those of round r, until model r+2 is committed.
pub const RETAIN_ROUNDS_MIN: u64 = 2;
/// Rounds that are kept once the bytes pass `RETAIN_BYTES_DEFAULT`.
pub const RETAIN_ROUNDS_DEFAULT: u64 = 3;
/// Gradient bytes of one job that are kept whatever their age, where the job names no number of rounds.
pub const RETAIN_BYTES_DEFAULT: u64 = 1 << 30;
/// Rounds that one commit lets go at most, so that no apply is long.
pub const RELEASED_ROUNDS_PER_COMMIT: u64 = 4;

/// Bytes of what people call an artifact: a name and its version, or a job's model and its version.
pub const NAMED_BYTES_MAX: usize = ID_BYTES_MAX + 32;
/// Versions of one name that are there at once: its row lists them.
pub const NAME_VERSIONS_MAX: usize = 1_000;
/// Names that one artifact goes by: its row lists them.
pub const ARTIFACT_NAMES_MAX: usize = 64;
/// Bytes of an artifact: no sum of them overflows.
pub const ARTIFACT_BYTES_MAX: u64 = 1 << 44;
/// Replicas in one placement.
pub const PLACEMENT_MAX: usize = 16;
/// Receipts in one command.
pub const RECEIPTS_MAX: usize = 32;
/// Most data fragments of a code, and most parity fragments.
pub const CODE_FRAGMENTS_MAX: u8 = 16;
/// Bytes that a full stripe puts in each fragment of a coded artifact.
pub const CODE_UNIT_BYTES: u64 = 64 * 1024;
/// The length of a coded fragment is a multiple of this.
pub const CODE_SHARD_ALIGN_BYTES: u64 = 64;
/// Generations of an artifact's fragments; a file's number has 24 bits for it and 8 for the fragment.
pub const GENERATION_MAX: u32 = (1 << 24) - 1;

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
/// Rows of tasks that a listing reads over for one that it wants, before it looks each up by itself.
pub const SCANNED_PER_WANTED: u64 = 4;
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

/// Bytes of a replicated key.
pub const KV_KEY_BYTES_MAX: usize = 512;
/// Bytes of its value before machine version 6.
pub const KV_VALUE_BYTES_MAX: usize = 64 << 10;
/// Bytes of a value that stands in the log and in the key's row.
pub const KV_LOGGED_BYTES_MAX: usize = 128 << 10;
/// Bytes of a value that stands beside the log, as an artifact: a call carries it in one message of 4 MiB at most.
pub const KV_BESIDE_BYTES_MAX: usize = 3 << 20;
/// Replicated keys.
pub const KV_ROWS_MAX: u64 = 100_000;
/// Bytes of all of them with their values.
pub const KV_BYTES_MAX: u64 = 256 << 20;
/// Keys that go with one job: its end deletes them in one apply.
pub const KV_JOB_ROWS_MAX: usize = 1_024;

/// Most of any limit of a task's processes but memory: beyond it a limit limits nothing.
pub const LIMIT_MAX: u64 = 1 << 50;
/// Bytes of a task's requirements.
pub const REQUIREMENTS_BYTES_MAX: usize = 16 << 10;

const _: () = assert!(KV_KEY_BYTES_MAX + KV_LOGGED_BYTES_MAX < 256 << 10);
const _: () = assert!(KV_KEY_BYTES_MAX + KV_BESIDE_BYTES_MAX < 4 << 20);
const _: () = assert!(KV_VALUE_BYTES_MAX <= KV_LOGGED_BYTES_MAX && KV_LOGGED_BYTES_MAX < KV_BESIDE_BYTES_MAX);
const _: () = assert!(REQUIREMENTS_BYTES_MAX < SPEC_BYTES_MAX);
/// Tasks that one task may wait for.
pub const DEPENDENCIES_MAX: usize = 256;
/// Waiting tasks that one command tells of the end of others; the leader goes on with a command of its own.
pub const DEPENDENTS_PER_COMMAND: usize = 256;
/// Tasks of a dag: they are created in one apply.
pub const DAG_TASKS_MAX: usize = 1_024;
/// Dependencies between the tasks of a dag.
pub const DAG_EDGES_MAX: usize = 8_192;
/// Bytes of the name of a task in a dag; its id is `<job>/<name>`.
pub const DAG_NAME_BYTES_MAX: usize = 56;
/// Rows or columns of a matrix.
pub const MATMUL_SIDE_MAX: u32 = 1 << 16;
/// Rows and columns of a block of a matrix: 128 MiB.
pub const MATMUL_BLOCK_MAX: u32 = 4_096;
/// Elements of an array.
pub const ARRAY_ELEMENTS_MAX: u64 = 1_000_000;
/// Elements that one row of an array's bitmap holds.
pub const ARRAY_CHUNK: u32 = 8_192;
/// Elements that are tasks at once.
pub const ARRAY_WINDOW_MAX: u32 = 1_024;
/// The same where the array names no number.
pub const ARRAY_WINDOW_DEFAULT: u32 = 256;
/// Elements that one command makes tasks of.
pub const ELEMENTS_PER_COMMAND_MAX: u32 = 64;
/// Rows of the bitmap that one command looks through for failed elements.
pub const CHUNKS_PER_COMMAND_MAX: u32 = 16;
/// How often the failed elements of an array may be retried.
pub const ARRAY_RETRIES_MAX: u32 = 100;
/// Parameters of a sweep.
pub const SWEEP_PARAMETERS_MAX: usize = 32;
/// Bytes of all values of a sweep.
pub const SWEEP_BYTES_MAX: usize = 64 << 10;
/// Bytes of the name of a parameter.
pub const PARAMETER_NAME_BYTES_MAX: usize = 64;
/// Bytes of a schedule's id; a run's name (`sched.<id>.hand-<position>`) must still be one of a job.
pub const SCHEDULE_ID_BYTES_MAX: usize = 32;
/// Bytes of a cron line, and of the name of a time zone.
pub const CRON_BYTES_MAX: usize = 256;
/// Schedules.
pub const SCHEDULES_MAX: usize = 10_000;
/// How far a tick may lie ahead of cluster time: the leader's guess of it may be ahead of what the entry says.
pub const TICK_AHEAD_MS_MAX: u64 = 60 * 1_000;

const _: () = assert!(JOB_NAME_BYTES_MAX + 1 + DAG_NAME_BYTES_MAX <= ID_BYTES_MAX);
const _: () = assert!("sched..hand-".len() + SCHEDULE_ID_BYTES_MAX + 20 <= JOB_NAME_BYTES_MAX);
const _: () = assert!(ELEMENTS_PER_COMMAND_MAX <= ARRAY_WINDOW_MAX && ARRAY_WINDOW_DEFAULT <= ARRAY_WINDOW_MAX);
const _: () = assert!(JOB_NAME_BYTES_MAX + "/1000000/retry-100".len() <= ID_BYTES_MAX);
const _: () = assert!(ARRAY_ELEMENTS_MAX <= u32::MAX as u64);
const _: () = assert!(JOB_NAME_BYTES_MAX + "/trainer-".len() + 10 <= ID_BYTES_MAX);
const _: () = assert!(TASK_DATA_BYTES_MAX + SPEC_BYTES_MAX + ID_BYTES_MAX < 256 << 10);
const _: () = assert!(MEMORY_BYTES_MAX.checked_mul(SLOTS_MAX as u64).is_some());
const _: () = assert!(SLOTS_DEFAULT <= SLOTS_MAX);
const _: () = assert!(REFUSED_MAX >= REJECTING_NODES_MAX);
const _: () = assert!(RETAIN_ROUNDS_DEFAULT >= RETAIN_ROUNDS_MIN);
const _: () = assert!(LEDGER_ROUNDS > RETAIN_ROUNDS_DEFAULT);
const _: () = assert!(HISTORY_ROUNDS.is_power_of_two() && HISTORY_ROUNDS > LEDGER_ROUNDS);
const _: () = assert!(LEDGER_ROUNDS > STALENESS_MAX + 1);
const _: () = assert!(REQUEST_AHEAD_MS_MAX < REQUEST_AGE_MS_MAX);
