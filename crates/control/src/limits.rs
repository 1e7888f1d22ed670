//! Named limits of the leader's steps. Each bounds a queue, a message or a pause.

use crate::types::Millis;

/// Commands in one proposal of single commands (assignments, expiries, status changes).
pub const BATCH_COMMANDS_MAX: usize = 64;
/// Encoded bytes of one proposal of single commands; an entry holds at most 1 MiB.
pub const BATCH_BYTES_MAX: usize = 512 << 10;
/// Proposals under way at once. With that many unanswered the steps wait for answers.
pub const PROPOSALS_MAX: usize = 256;
/// Heartbeats that wait for a quorum or a registration; one more is answered "no quorum".
pub const PENDING_BEATS_MAX: usize = 65_536;
/// Looks at nodes and shapes after which one scheduling pass pauses: about a millisecond if the nodes are not in the cache.
pub const PASS_PROBES_MAX: usize = 2_500;
/// Tasks that one scheduling pass places.
pub const PASS_PLACED_MAX: usize = 256;
/// Leases in one LeaseShards command; at most 256 KiB with the longest task ids.
pub const LEASES_PER_COMMAND_MAX: usize = 1_024;
/// Node loads in one LoadReport command.
pub const LOADS_PER_REPORT_MAX: usize = 1_000;
/// How long the log of an attempt is kept, from the time by which its upload had to be done.
pub const LOG_KEPT_MS: Millis = 7 * 24 * 60 * 60 * 1_000;
/// A shard's state that no contribution named is kept for so long after its upload would have expired: its trainer may yet send for it.
pub const STATE_UNNAMED_MS: Millis = 24 * 60 * 60 * 1_000;
/// Deletions of artifacts proposed by one step.
pub const DELETIONS_PER_STEP_MAX: usize = 64;

/// A proposal whose answer did not come by then counts as lost: an answer that was dropped on its way must not hold a subject for ever.
pub const PROPOSAL_ANSWER_MS: Millis = 15_000;
/// The same for a sum, which may be long; summing twice is harmless.
pub const AGGREGATE_ANSWER_MS: Millis = 600_000;
/// Pause of a subject after a refused or lost proposal.
pub const RETRY_PAUSE_MS: Millis = 100;
/// After an accepted proposal its subject waits this long at most for the changed row to be folded.
pub const SETTLE_MS: Millis = 50;
/// Least time between two load reports.
pub const LOAD_REPORT_EVERY_MS: Millis = 2_000;
/// A node whose load does not move is reported this often.
pub const LOAD_REPORT_IDLE_MS: Millis = 10_000;
/// A load that moved by less than this is not news.
pub const LOAD_STEP: f64 = 0.02;
/// Nodes on which a task failed that the scheduler keeps it away from; the oldest is forgotten first.
pub const AVOIDED_NODES_MAX: usize = 16;
/// Interrupted attempts of a task up to which a failure that its node takes the blame for is not counted against the task. Beyond it so
/// many nodes had the same trouble that the task is the likelier cause.
pub const NODE_FAILURES_FREE: u32 = 5;
/// Longest interval between beats that an idle worker is told.
pub const IDLE_BEAT_MS_MAX: Millis = 10_000;
/// Idle workers of a fleet up to this size beat at the configured interval.
pub const SMALL_FLEET: usize = 200;
/// Nodes whose changes one scheduling pass takes in.
pub const HOSTS_SETTLED_MAX: usize = 256;
/// Shapes without waiting tasks that the planner remembers: what their searches know may be of use again.
pub const IDLE_SHAPES_MAX: usize = 256;
/// A task that has been first and found no room for this long holds a node, so that smaller ones do not starve it. A gang holds at once.
pub const HOLD_AFTER_MS: Millis = 30_000;
/// Nodes from which victims were ordered are held this long at most; longer than the grace of a stop.
pub const PREEMPTION_HOLD_MS: Millis = 60_000;
/// Victims that one plan orders to leave.
pub const VICTIMS_PER_PLAN_MAX: usize = 16;
/// Attempts on draining nodes that one step orders to leave.
pub const DRAINED_PER_STEP_MAX: usize = 64;
/// Waiting tasks that are counted to tell a task's position.
pub const EXPLAINED_POSITION_MAX: usize = 100_000;
/// Waiting this long is worth one step of priority.
pub const AGEING_MS: u64 = 30_000;
/// How often run, start and queue timeouts are looked at.
pub const DEADLINE_CHECK_MS: Millis = 500;
/// In round 0 the first leases wait this long for trainers that have a node but did not ask for work yet.
pub const FIRST_ROUND_WAIT_MS: Millis = 3_000;
/// A pair that every trainer in reach had refused waits this long for another one; then the job is REJECTED.
pub const REFUSED_WAIT_MS: Millis = 20_000;
/// First pause after a failed aggregation; each further one adds as much.
pub const AGGREGATE_PAUSE_MS: Millis = 500;
/// Failed aggregations of one round until the job fails.
pub const AGGREGATE_FAILURES_MAX: u32 = 6;
/// Trainers of a finished job may end by themselves for this many lease times.
pub const DONE_GRACE_TTLS: u64 = 4;
/// A tick that is fired later than this is one that nobody could fire in time: it is made up for, or goes by, as the schedule says.
pub const TICK_LATE_MS: u64 = 60_000;
/// Ticks that a schedule with `catch_up = all` makes up for; older ones go by.
pub const CATCH_UP_TICKS_MAX: usize = 100;
/// Ticks of one schedule that are counted one by one when it was not looked at for long; beyond them it is only said that they went by.
pub const TICKS_COUNTED_MAX: usize = 10_000;
/// Schedules that one step fires.
pub const SCHEDULES_PER_STEP_MAX: usize = 256;
/// Tasks of whose end others are told by one step.
pub const UNRESOLVED_PER_STEP_MAX: usize = 64;
/// From the first phase of a deletion (replicas remove the bytes) to the second (the row goes).
pub const DELETE_CONFIRM_MS: Millis = 30_000;

const _: () = assert!(BATCH_BYTES_MAX < 1 << 20);
const _: () = assert!(LEASES_PER_COMMAND_MAX * 200 < 256 << 10);
