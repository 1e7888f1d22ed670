//! Named limits of the fragment files.

/// Bytes that one crc32c covers.
pub const BLOCK_BYTES: usize = 64 * 1024;
/// Largest fragment, in bytes: its checksum table stays below 1 MiB.
pub const FRAGMENT_BYTES_MAX: u64 = 16 * 1024 * 1024 * 1024;
/// Bytes of decoded artifacts that a replica keeps beside its fragments; one that is larger is kept alone.
pub const CACHE_BYTES_MAX: u64 = 4 * 1024 * 1024 * 1024;
/// A file that is not needed any more is kept to be written over from so many bytes on.
pub const SPARE_FILE_BYTES_MIN: u64 = 1024 * 1024;
/// Bytes of such files that a replica keeps at most, and the share of what would be free without them.
pub const SPARE_BYTES_MAX: u64 = 8 * 1024 * 1024 * 1024;
/// See `SPARE_BYTES_MAX`.
pub const SPARE_SHARE_OF_FREE: u64 = 4;
/// Bytes that were written out of order are read back so many at a time.
pub const CATCH_UP_BYTES: usize = 1024 * 1024;
