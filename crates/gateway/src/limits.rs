//! Every bound of this crate, by name.

use std::time::Duration;

/// Connections at once; the next one is closed without an answer, and counted.
pub const CONNECTIONS_MAX: usize = 64;
/// Threads that make answers.
pub const HANDLER_THREADS: usize = 2;
/// Bytes of a request's head.
pub const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Header lines of a request.
pub const HEADERS_MAX: usize = 64;
/// A client must have sent its head by then.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection serves one request and lasts no longer than this, however slowly the client reads.
pub const CONNECTION_TIMEOUT: Duration = Duration::from_secs(15);
/// Pause after the system refused a new connection (no descriptors left), so that the loop does not spin.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

const _: () = assert!(HEAD_BYTES_MAX >= 8 * 1024, "hyper takes no smaller buffer");
