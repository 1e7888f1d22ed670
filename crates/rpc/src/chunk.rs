//! Cutting bytes into chunks, and putting them together again with every check.

use sha2::{Digest, Sha256};

/// Bytes of data in one chunk of any stream.
pub const CHUNK_BYTES_MAX: usize = 1024 * 1024;

/// Room for the data of a chunk, of at most its size, which whoever asks for it writes over. Not zeros: jemalloc (in `controld`) takes zeroed
/// memory of this size from the kernel anew each time, whose page faults cost more than filling memory that is there (docs/benchmarks.md).
pub fn room(length: usize) -> Vec<u8> {
    vec![u8::MAX; length.min(CHUNK_BYTES_MAX)]
}

/// How the reason of an `Ack` begins that does not know yet how far an upload came.
pub const NOT_ENDED: &str = "NOT_ENDED";

/// (offset, data, crc32c) of each chunk of `bytes` from `offset` on; one empty chunk if there is nothing left.
pub fn chunks(bytes: &[u8], offset: u64) -> impl Iterator<Item = (u64, &[u8], u32)> {
    let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
    let rest = &bytes[start..];
    let empty = rest.is_empty().then_some((start as u64, rest, crc32c::crc32c(rest)));
    rest.chunks(CHUNK_BYTES_MAX)
        .enumerate()
        .map(move |(number, data)| ((start + number * CHUNK_BYTES_MAX) as u64, data, crc32c::crc32c(data)))
        .chain(empty)
}

/// Why a chunk was refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ChunkError {
    /// Not the next byte.
    #[error("chunk at offset {got}, expected {expected}")]
    Offset {
        /// Offset in the chunk.
        got: u64,
        /// Bytes received so far.
        expected: u64,
    },
    /// Bytes changed on the way.
    #[error("crc32c of the chunk at offset {0} is wrong")]
    Checksum(u64),
    /// More than was announced, or than is allowed.
    #[error("more than {0} bytes")]
    TooLong(u64),
    /// Fewer bytes than were announced.
    #[error("{got} bytes instead of {expected}")]
    Short {
        /// Bytes received.
        got: u64,
        /// Bytes announced.
        expected: u64,
    },
    /// Not the content that was announced.
    #[error("SHA-256 differs from the one announced")]
    Digest,
}

/// Verifies offset, checksum and length of each chunk of a stream as it comes, for who hashes the whole elsewhere. Holds no bytes.
pub struct Sequence {
    received: u64,
    bytes_max: u64,
}

impl Sequence {
    /// A stream of at most `bytes_max` bytes.
    pub fn new(bytes_max: u64) -> Self {
        Self { received: 0, bytes_max }
    }

    /// The rest of such a stream, of which `received` bytes came before.
    pub fn rest(received: u64, bytes_max: u64) -> Self {
        Self { received, bytes_max }
    }

    /// Bytes received so far.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// The next chunk. `crc32c` of None: an old client, which sends neither checksum nor offset.
    pub fn chunk(&mut self, offset: u64, data: &[u8], crc32c: Option<u32>) -> Result<(), ChunkError> {
        if let Some(expected) = crc32c {
            if offset != self.received {
                return Err(ChunkError::Offset { got: offset, expected: self.received });
            }
            if crc32c::crc32c(data) != expected {
                return Err(ChunkError::Checksum(offset));
            }
        }
        self.received += data.len() as u64;
        if self.received > self.bytes_max {
            return Err(ChunkError::TooLong(self.bytes_max));
        }
        Ok(())
    }

    /// The end of the stream. `total` of None: not announced.
    pub fn finish(self, total: Option<u64>) -> Result<(), ChunkError> {
        match total {
            Some(expected) if expected != self.received => Err(ChunkError::Short { got: self.received, expected }),
            _ => Ok(()),
        }
    }
}

/// The same, and the SHA-256 of the whole.
pub struct Verifier {
    sequence: Sequence,
    hash: Sha256,
}

impl Verifier {
    /// A stream of at most `bytes_max` bytes.
    pub fn new(bytes_max: u64) -> Self {
        Self { sequence: Sequence::new(bytes_max), hash: Sha256::new() }
    }

    /// Bytes received so far.
    pub fn received(&self) -> u64 {
        self.sequence.received()
    }

    /// The next chunk; see `Sequence::chunk`.
    pub fn chunk(&mut self, offset: u64, data: &[u8], crc32c: Option<u32>) -> Result<(), ChunkError> {
        self.sequence.chunk(offset, data, crc32c)?;
        self.hash.update(data);
        Ok(())
    }

    /// The end of the stream: its SHA-256. `total` and `digest` of None: not announced.
    pub fn finish(self, total: Option<u64>, digest: Option<&[u8]>) -> Result<[u8; 32], ChunkError> {
        self.sequence.finish(total)?;
        let found: [u8; 32] = self.hash.finalize().into();
        match digest {
            Some(announced) if announced != found => Err(ChunkError::Digest),
            _ => Ok(found),
        }
    }
}
