//! Every bound of this crate, by name.

/// Bytes of one proposal's payload.
pub const PAYLOAD_BYTES_MAX: usize = 256 << 10;
/// Bytes of one packed entry, framing included.
pub const ENTRY_BYTES_MAX: usize = 1 << 20;
/// Payloads of one entry: positions keep sixteen bits for the ordinal.
pub const ENTRY_PAYLOADS_MAX: usize = (1 << 16) - 1;
/// Bytes of a membership change's context.
pub const CHANGE_CONTEXT_BYTES_MAX: usize = 64 << 10;
/// Bytes of entries in one append message.
pub const MESSAGE_BYTES_MAX: u64 = 1 << 20;
/// Append messages under way to one follower.
pub const MESSAGES_INFLIGHT_MAX: usize = 256;
/// Bytes of entries a leader holds that are not committed.
pub const UNCOMMITTED_BYTES_MAX: u64 = 64 << 20;
/// Bytes of committed entries handed over by one Ready.
pub const COMMITTED_BYTES_PER_READY_MAX: u64 = 8 << 20;
/// Proposals' bytes that wait for the fsync under way; beyond it the answer is Busy.
pub const PROPOSALS_WAITING_BYTES_MAX: usize = 8 << 20;
/// Reads that wait, in all; beyond it the answer is Busy.
pub const READS_WAITING_MAX: usize = 1 << 16;
/// ReadIndex rounds under way at once; further reads join the next round.
pub const READ_ROUNDS_MAX: usize = 64;
/// Highest term taken from a peer: far above any real one, and far below overflow.
pub const TERM_MAX: u64 = 1 << 62;
/// Terms by which a message of somebody who is no member may be ahead of ours. Without it one stranger's message with the highest term would
/// end all elections: the next campaign would be out of range everywhere. A group that elects ten times a second needs
/// thirteen years for so many.
pub const TERM_LEAP_MAX: u64 = 1 << 32;
/// Highest index taken from a peer.
pub const INDEX_MAX: u64 = 1 << 62;
/// Bytes of entries in one append that a replica takes while its disk is almost full: the empty entry of a new leader and what frees space get
/// through, and whoever falls behind stays behind until there is room.
pub const LOW_ROOM_APPEND_BYTES_MAX: usize = 4 << 10;
/// Inputs of clients that wait for the raft thread.
pub const CLIENT_INBOX_MAX: usize = 4096;
/// Messages of peers that wait for the raft thread.
pub const PEER_INBOX_MAX: usize = 4096;
/// Inputs taken from one inbox before the other sources get their turn.
pub const INPUTS_PER_TURN_MAX: usize = 1024;
/// Bytes of entries the apply thread takes into one call of `StateMachine::apply`.
pub const APPLY_BATCH_BYTES_MAX: usize = 4 << 20;
/// How often an idle apply thread looks whether the tables were flushed, in milliseconds.
pub const FLUSH_POLL_MS: u64 = 500;
/// Shortest election timeout in ticks: below it the random spread has no room.
pub const ELECTION_TICKS_MIN: u64 = 3;

const _: () = assert!(PAYLOAD_BYTES_MAX + crate::pack::FRAME_BYTES < ENTRY_BYTES_MAX);
const _: () = assert!(ENTRY_BYTES_MAX <= PROPOSALS_WAITING_BYTES_MAX);
const _: () = assert!(PROPOSALS_WAITING_BYTES_MAX as u64 <= UNCOMMITTED_BYTES_MAX);
const _: () = assert!((LOW_ROOM_APPEND_BYTES_MAX as u64) < MESSAGE_BYTES_MAX);
const _: () = assert!(MESSAGE_BYTES_MAX <= UNCOMMITTED_BYTES_MAX);
