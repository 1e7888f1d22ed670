//! Every bound of this crate, by name.

use std::time::Duration;

/// Messages that wait for one peer; beyond it they are dropped, and raft sends again.
pub const OUTBOX_MESSAGES_MAX: usize = 4_096;
/// Bytes that wait for one peer.
pub const OUTBOX_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Messages in one frame.
pub const FRAME_MESSAGES_MAX: usize = 128;
/// A frame is full at this; one larger message goes alone.
pub const FRAME_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of one message; below what a connection takes.
pub const MESSAGE_BYTES_MAX: usize = 3 * 1024 * 1024;
/// Peers with a link of their own.
pub const PEERS_MAX: usize = 64;

/// A connection that is not up after this is tried anew, at the address that the book has by then.
pub const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
/// How long a connection that did not come up is asked why.
pub const REASON_TIMEOUT: Duration = Duration::from_millis(100);
/// Different reasons why a peer is not reachable that are told, each once, until it is again.
pub const REASONS_TOLD_MAX: usize = 8;
/// Shortest pause after a stream broke.
pub const RECONNECT_PAUSE_MIN: Duration = Duration::from_millis(50);
/// Longest pause.
pub const RECONNECT_PAUSE_MAX: Duration = Duration::from_millis(500);
/// Raft is told of an unreachable peer at most this often.
pub const UNREACHABLE_PAUSE: Duration = Duration::from_millis(100);

/// Snapshots on their way out at once; a further one is reported as failed and asked for again.
pub const SNAPSHOTS_SENT_MAX: usize = 4;
/// A snapshot's stream in which no chunk moves for so long is broken off; it goes on in another one.
pub const SNAPSHOT_STALL: Duration = Duration::from_secs(10);
/// Attempts at a snapshot in a row that moved no byte; then raft hears that it failed.
pub const SNAPSHOT_TRIES: u32 = 5;
/// Pause before the next attempt.
pub const SNAPSHOT_PAUSE: Duration = Duration::from_millis(200);
/// Longest wait for an answer to the question how far a snapshot came.
pub const SNAPSHOT_PROGRESS_TIMEOUT: Duration = Duration::from_secs(5);
/// Smallest chunk of a snapshot whose rate is limited: a slow stream must still show that it moves.
pub const SNAPSHOT_CHUNK_BYTES_MIN: usize = 4 * 1024;
/// Slowest rate that may be set for a snapshot, in bytes per second.
pub const SNAPSHOT_BYTES_PER_SECOND_MIN: u64 = 4 * 1024;
/// Bytes of a snapshot's name.
pub const SNAPSHOT_NAME_BYTES_MAX: usize = 128;
/// Snapshots on their way in at once.
pub const SNAPSHOTS_RECEIVED_MAX: usize = 1;
/// Files of one snapshot.
pub const SNAPSHOT_FILES_MAX: usize = 100_000;
/// Bytes of a file name in a snapshot.
pub const FILE_NAME_BYTES_MAX: usize = 255;

/// Fragment streams served at once, both directions.
pub const FRAGMENT_STREAMS_MAX: usize = 64;
/// Bytes of one fragment.
pub const FRAGMENT_BYTES_MAX: u64 = 16 * 1024 * 1024 * 1024;
/// Time that a fragment's transfer has, whatever its size.
pub const FRAGMENT_TIME_MIN: Duration = Duration::from_secs(3);
/// A transfer in which no chunk moves for so long is given up.
pub const FRAGMENT_STALL: Duration = Duration::from_secs(2);
/// Attempts at once, each with a thread; beyond it they are made one after another.
pub const ATTEMPTS_MAX: usize = 64;
/// Slowest transfer that is waited for, in bytes per second.
pub const FRAGMENT_BYTES_PER_SECOND_MIN: u64 = 1024 * 1024;

const _: () = assert!(FRAME_BYTES_MAX + MESSAGE_BYTES_MAX <= raftgrid_rpc::channel::MESSAGE_BYTES_MAX);
const _: () = assert!(FRAME_BYTES_MAX < OUTBOX_BYTES_MAX);
const _: () = assert!(FRAME_MESSAGES_MAX < OUTBOX_MESSAGES_MAX);
const _: () = assert!(FRAGMENT_STALL.as_millis() < FRAGMENT_TIME_MIN.as_millis());
