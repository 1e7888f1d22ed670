//! Named limits of a replica.

/// Entries whose changes the event ring keeps.
pub const RING_EVENTS_MAX: usize = 65_536;
/// Changed rows that the event ring keeps.
pub const RING_CHANGES_MAX: usize = 1_000_000;
/// Longest wait of one long poll, in milliseconds.
pub const POLL_WAIT_MS_MAX: u32 = 30_000;
/// Tasks that one poll hands out.
pub const POLL_TASKS_MAX: usize = 1_024;
/// Bytes of tasks in one answer, beyond the first; a message holds 4 MiB.
pub const POLL_BYTES_MAX: usize = 2 << 20;
/// A task that was handed out is handed out again if the worker has not started it by then, in milliseconds.
pub const HAND_OUT_AGAIN_MS: u64 = 2_000;
/// Inputs that may wait for the leader's loops.
pub const LEADER_INBOX_MAX: usize = 16_384;
/// How long the beat of an idle worker waits at most for others that share its read index, in milliseconds.
pub(crate) const SHARED_READ_MS: u64 = 50;
/// Snapshots that may be ordered at a time.
pub const SNAPSHOTS_WAITING_MAX: usize = 4;
/// Jobs that may wait in each of the other pools.
pub const POOL_WAITING_MAX: usize = 1_024;
/// Threads that forward calls to the leader.
pub const FORWARD_THREADS: usize = 4;
/// Threads that sum gradients.
pub const AGGREGATE_THREADS: usize = 2;
/// For so long a peer that did not take a copy is asked after the others, in milliseconds.
pub const SILENT_PEER_MS: u64 = 10_000;
/// A peer that makes no step with a copy for so long has the next one beside it, in milliseconds.
pub const HEDGE_AFTER_MS: u64 = 300;
/// Of a copy of so many bytes, that time is a millisecond longer: they are synced to a disk before the answer.
pub const HEDGE_BYTES_PER_MS: u64 = 256 * 1024;
/// Bytes of a fragment that is made out of its artifact, at a time.
pub const DECODE_PIECE_BYTES: usize = 1024 * 1024;
/// How often a replica looks whether fragments are missing, in milliseconds.
pub const MEND_LOOK_MS: u64 = 2_000;
/// The same after a look at something that could not be restored, and after the last artifact.
pub const MEND_AGAIN_MS: u64 = 10_000;
/// Rows of artifacts that one look takes.
pub const MEND_ROWS_MAX: usize = 1_024;
/// Bytes that are made anew in a millisecond, at most: who mends must not be in the way.
pub const MEND_BYTES_PER_MS: u64 = 64 * 1024;
/// Longest pause after one artifact, in milliseconds.
pub const MEND_PAUSE_MS_MAX: u64 = 10_000;
/// Bytes of fragments that one look reads to see whether they are still what they were.
pub const SCRUB_BYTES_PER_LOOK: u64 = 16 * 1024 * 1024;
/// A fragment is read so again after this, in milliseconds.
pub const SCRUB_AGAIN_MS: u64 = 24 * 3_600_000;
/// Files kept to be written over that nobody took for so long are deleted, after twice as long at the latest.
pub const SPARE_AGE_MS: u64 = 600_000;
/// Artifacts whose damage is remembered until it is mended.
pub const DAMAGED_NOTED_MAX: usize = 4_096;
/// How long `InitModel` of a trainer that is not to make model 0 waits for it, in milliseconds.
pub const MODEL_WAIT_MS: u64 = 5_000;
/// How long an upload waits for a replica that is behind, in milliseconds.
pub const CATCH_UP_MS: u64 = 5_000;
/// Threads on which uploads end: copies, checks, commands. Those that wait for another replica or for model 0 hold none.
pub const UPLOAD_THREADS: usize = 8;
/// Longest wait for a decision on a proposal of the replica itself, in milliseconds.
pub const PROPOSE_WAIT_MS: u64 = 10_000;
/// Longest wait for a standby to catch up before it replaces another, in milliseconds.
pub const CATCH_UP_WAIT_MS: u64 = 600_000;
/// How often that is looked at, in milliseconds.
pub const CATCH_UP_LOOK_MS: u64 = 50;
/// Changes of the membership that may wait for one another.
pub const MEMBER_CHANGES_WAITING_MAX: usize = 16;
/// Reads that may wait for the leader's word on a replica that does not lead.
pub const READS_WAITING_MAX: usize = 65_536;
/// Questions for a read index under way at once: while they are, further reads join the next one.
pub const READ_QUESTIONS_MAX: usize = 2;
/// Longest wait for the leader's answer, in milliseconds.
pub const READ_QUESTION_WAIT_MS: u64 = 2_000;
/// A read whose question failed asks again, if another leads by now, until it is so old, in milliseconds.
pub const READ_WAIT_MS: u64 = 5_000;
/// A replica that has not applied the read index by then sends the read to the leader, in milliseconds.
pub const READ_APPLY_WAIT_MS: u64 = 1_000;
/// Longest wait of a readiness check until what was committed is applied, in milliseconds.
pub const READY_WAIT_MS: u64 = 1_000;
/// Rows by state are counted again after this, in milliseconds, and never for more than a hundredth of the time.
pub const CENSUS_AGAIN_MS: u64 = 10_000;
/// Bytes of one command batch.
pub const COMMAND_BYTES_MAX: usize = 256 * 1024;
/// Largest file of a model or a gradient, in bytes: 4 GiB of tensors and their header.
pub const TENSOR_BYTES_MAX: u64 = raftgrid_train::limits::FRAME_BYTES_MAX;
/// Models whose names and shapes are kept in memory, for checking gradients against them.
pub const LAYOUTS_KEPT_MAX: usize = 16;
/// Gradients that stay open while their round is summed, a window after the other. Those beyond are opened again for each window.
pub const SUM_FILES_HELD_MAX: usize = 128;
/// A window of a sum, in bytes of elements of eight bytes: half as many for four. About ten buffers of it are held.
pub const SUM_WINDOW_BYTES: usize = 8 * 1024 * 1024;
/// The same for more gradients than stay open: fewer windows, since opening one may take long.
pub const SUM_WINDOW_WIDE_BYTES: usize = 128 * 1024 * 1024;
/// All gradients together in a window of a trimmed mean or a median, by the same count.
pub const SORT_WINDOW_BYTES: usize = 256 * 1024 * 1024;
/// An upload that is not committed by then is deleted, in milliseconds of cluster time.
pub const UPLOAD_EXPIRES_MS: u64 = 600_000;
/// Looks at the disk after which this replica says its limit again, where the rows still say another.
pub(crate) const ROOM_SAID_AGAIN_LOOKS: u32 = 5;
/// It has a millisecond more for so many bytes: the slowest stream that a worker puts up with.
pub const UPLOAD_BYTES_PER_MS: u64 = 1024;

const _: () = assert!(COMMAND_BYTES_MAX <= 1024 * 1024, "a command fits an entry");
const _: () = assert!(READ_QUESTION_WAIT_MS < READ_WAIT_MS);
const _: () = assert!(RING_EVENTS_MAX <= RING_CHANGES_MAX);
