//! The end of a fragment file: a crc32c for each block of 64 KiB, the SHA-256 of the whole, the size. Pure.
//!
//! Layout, little-endian: data · table (u32 a block) · size (u64) · sha256 (32) · crc32c of table, size and sha256 (u32) · magic (8).
//! A file without a whole footer is an upload that never ended; it is no fragment.

use crate::limits::BLOCK_BYTES;

const MAGIC: [u8; 8] = *b"rgfrag01";
const TAIL_BYTES: usize = 8 + 32 + 4 + 8;

/// What a fragment file says of its data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Footer {
    /// Bytes of data.
    pub total_bytes: u64,
    /// SHA-256 of the data.
    pub digest: [u8; 32],
    /// crc32c of each block of `BLOCK_BYTES`; the last block may be shorter.
    pub blocks: Vec<u32>,
}

/// Not a whole footer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("failed to read a fragment: its footer is damaged or missing")]
pub struct FooterError;

/// Blocks of a fragment of this size.
pub fn block_count(total_bytes: u64) -> u64 {
    total_bytes.div_ceil(BLOCK_BYTES as u64)
}

/// Length of the footer of a fragment of this size, in bytes.
pub fn footer_bytes(total_bytes: u64) -> u64 {
    block_count(total_bytes) * 4 + TAIL_BYTES as u64
}

impl Footer {
    /// As written after the data.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.blocks.len() * 4 + TAIL_BYTES);
        for block in &self.blocks {
            out.extend_from_slice(&block.to_le_bytes());
        }
        out.extend_from_slice(&self.total_bytes.to_le_bytes());
        out.extend_from_slice(&self.digest);
        let crc = crc32c::crc32c(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out.extend_from_slice(&MAGIC);
        out
    }

    /// Size of the data, from the last bytes of a file. `tail` is at least the fixed part of the footer.
    pub fn total_bytes_of(tail: &[u8]) -> Result<u64, FooterError> {
        let fixed = tail.len().checked_sub(TAIL_BYTES).and_then(|start| tail.get(start..)).ok_or(FooterError)?;
        if fixed[44..] != MAGIC {
            return Err(FooterError);
        }
        Ok(u64::from_le_bytes(fixed[..8].try_into().map_err(|_| FooterError)?))
    }

    /// Reads the whole footer (table and fixed part).
    pub fn decode(bytes: &[u8]) -> Result<Self, FooterError> {
        let total_bytes = Self::total_bytes_of(bytes)?;
        if bytes.len() as u64 != footer_bytes(total_bytes) {
            return Err(FooterError);
        }
        let body = &bytes[..bytes.len() - 12];
        let crc = &bytes[bytes.len() - 12..bytes.len() - 8];
        if crc32c::crc32c(body).to_le_bytes() != *crc {
            return Err(FooterError);
        }
        let table = &body[..body.len() - 40];
        let digest = body[body.len() - 32..].try_into().map_err(|_| FooterError)?;
        let blocks = table.chunks_exact(4).map(|crc| u32::from_le_bytes([crc[0], crc[1], crc[2], crc[3]])).collect();
        Ok(Self { total_bytes, digest, blocks })
    }
}

/// Length of the fixed part, which says the rest.
pub const FIXED_BYTES: usize = TAIL_BYTES;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_footer_reads_back_and_any_flipped_bit_is_noticed(total in 0u64..1_000_000, digest: [u8; 32], flip: proptest::sample::Index, bit in 0u8..8) {
            let blocks = (0..block_count(total)).map(|block| block as u32 * 7).collect();
            let footer = Footer { total_bytes: total, digest, blocks };
            let mut bytes = footer.encode();
            prop_assert_eq!(Footer::decode(&bytes), Ok(footer));
            let at = flip.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert!(Footer::decode(&bytes).is_err());
        }
    }
}
