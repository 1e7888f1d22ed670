//! Every limit of the client, by name.

use std::time::Duration;

/// Endpoints that are kept; hints beyond it are ignored.
pub const ENDPOINTS_MAX: usize = 32;
/// How long one attempt may take before the next endpoint is asked (a stopped leader answers nothing).
pub const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(3);
/// First pause after every endpoint was asked once.
pub const BACKOFF_FIRST: Duration = Duration::from_millis(20);
/// Longest pause between two rounds over the endpoints.
pub const BACKOFF_MAX: Duration = Duration::from_millis(500);
/// A call as a whole, unless the caller says otherwise.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(15);
/// A stream of bytes in which no chunk moves for so long is given up, and goes on elsewhere.
pub const CHUNK_STALL: Duration = Duration::from_secs(5);
/// How long a replica may take to say how much of an upload it has.
pub const RESUME_ASK: Duration = Duration::from_secs(2);
/// How long it is tried to reach it again; as long as another replica may wait for the whole.
pub const RESUME_REACH: Duration = Duration::from_secs(1);
/// How long it may say that the stream goes on: as long as the bytes would take anew at this pace, in bytes a millisecond.
pub const RESUME_BYTES_PER_MS: u64 = 4 * 1024;
/// Between two asks.
pub const RESUME_PAUSE: Duration = Duration::from_millis(50);
/// Uploads below so many bytes are sent again as a whole.
pub const RESUME_BYTES_MIN: u64 = 4 * 1024 * 1024;
/// The first chunk may take longer: the replica may have to fetch the bytes from another.
pub const FIRST_CHUNK: Duration = Duration::from_secs(60);
/// A stream of bytes as a whole, unless the caller says otherwise.
pub const STREAM_TIMEOUT: Duration = Duration::from_secs(3_600);
/// One state request of `cluster_states`.
pub const STATE_TIMEOUT: Duration = Duration::from_secs(2);
/// Rows in one page of a list.
pub const PAGE_ROWS_MAX: i32 = 1_000;
/// Largest artifact that is downloaded, in bytes.
pub const ARTIFACT_BYTES_MAX: u64 = 64 * 1024 * 1024 * 1024;

const _: () = assert!(BACKOFF_FIRST.as_millis() < BACKOFF_MAX.as_millis());
const _: () = assert!(ATTEMPT_TIMEOUT.as_millis() < CALL_TIMEOUT.as_millis());
const _: () = assert!(CHUNK_STALL.as_millis() < FIRST_CHUNK.as_millis());
const _: () = assert!(FIRST_CHUNK.as_millis() < STREAM_TIMEOUT.as_millis());
