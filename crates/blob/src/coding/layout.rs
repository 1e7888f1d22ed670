//! Where each byte of an artifact is in its fragments. Pure arithmetic.
//!
//! An artifact is cut into stripes of k · `UNIT_BYTES`, and a stripe into k data shards, in order; m parity shards belong to it. Fragment i
//! is shard i of every stripe, one after the other. Of the last stripe, which has r bytes, each shard has r / k bytes, rounded up to a multiple
//! of `SHARD_ALIGN_BYTES`; its data is filled up with zeros, which the fragments hold and the artifact does not. Plain copies have no such zeros.

use std::ops::Range;

use super::{check_range, Coding, CodingError, SHARD_ALIGN_BYTES, UNIT_BYTES};

/// The shape of an artifact of a certain size under a code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    coding: Coding,
    total_bytes: u64,
}

/// Bytes of an artifact that stand together in one data fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The stripe that they belong to.
    pub stripe: u64,
    /// The data fragment that has them.
    pub fragment: usize,
    /// Where in the fragment, in bytes.
    pub offset: u64,
    /// How many; at most `UNIT_BYTES`.
    pub bytes: usize,
}

/// Length of each shard of a stripe with this many bytes of artifact.
pub(super) fn shard_bytes(coding: Coding, stripe_bytes: usize) -> usize {
    if coding.is_copies() {
        return stripe_bytes;
    }
    stripe_bytes.div_ceil(coding.k()).next_multiple_of(SHARD_ALIGN_BYTES)
}

impl Layout {
    /// For `total_bytes` of artifact.
    pub fn new(coding: Coding, total_bytes: u64) -> Self {
        Self { coding, total_bytes }
    }

    /// The code.
    pub fn coding(&self) -> Coding {
        self.coding
    }

    /// Bytes of the artifact.
    pub fn total_bytes(&self) -> u64 {
        self.total_bytes
    }

    /// How many stripes it has; none if it is empty.
    pub fn stripes(&self) -> u64 {
        self.total_bytes.div_ceil(self.full_stripe())
    }

    /// Length in bytes of each fragment, zeros at its end included.
    pub fn fragment_bytes(&self) -> u64 {
        let last = (self.total_bytes % self.full_stripe()) as usize;
        self.total_bytes / self.full_stripe() * UNIT_BYTES as u64 + shard_bytes(self.coding, last) as u64
    }

    /// Bytes of artifact in a stripe.
    pub fn stripe_bytes(&self, stripe: u64) -> Result<usize, CodingError> {
        if stripe >= self.stripes() {
            return Err(CodingError::NoSuchStripe { stripe, stripes: self.stripes() });
        }
        Ok((self.total_bytes - stripe * self.full_stripe()).min(self.full_stripe()) as usize)
    }

    /// Where the shards of a stripe are in their fragments, in bytes.
    pub fn shard_range(&self, stripe: u64) -> Result<Range<u64>, CodingError> {
        let length = shard_bytes(self.coding, self.stripe_bytes(stripe)?);
        let start = stripe * UNIT_BYTES as u64;
        Ok(start..start + length as u64)
    }

    /// Bytes of artifact in a data shard of a stripe: those of `shard_range` that are no zeros at the end. Parity has none.
    pub fn data_bytes(&self, stripe: u64, fragment: usize) -> Result<usize, CodingError> {
        self.coding.check_fragment(fragment)?;
        let stripe_bytes = self.stripe_bytes(stripe)?;
        if self.coding.is_copies() {
            return Ok(stripe_bytes);
        }
        let shard = shard_bytes(self.coding, stripe_bytes);
        Ok(stripe_bytes.saturating_sub(fragment * shard).min(shard))
    }

    /// The stripes that hold a range of the artifact: what must be read of any k fragments when a data fragment is missing.
    pub fn stripes_of(&self, range: Range<u64>) -> Result<Range<u64>, CodingError> {
        check_range(&range, self.total_bytes)?;
        if range.is_empty() {
            return Ok(0..0);
        }
        Ok(range.start / self.full_stripe()..range.end.div_ceil(self.full_stripe()))
    }

    /// Where a range of the artifact is, in the order of its bytes. Plain copies have it in any fragment; fragment 0 is told.
    pub fn locate(&self, range: Range<u64>) -> Result<impl Iterator<Item = Piece>, CodingError> {
        check_range(&range, self.total_bytes)?;
        let layout = *self;
        let mut at = range.start;
        Ok(std::iter::from_fn(move || {
            if at == range.end {
                return None;
            }
            let piece = layout.piece(at, range.end);
            at += piece.bytes as u64;
            Some(piece)
        }))
    }

    /// The part of a data fragment that is its share of a range of the artifact: one read, whatever the number of stripes. Parity has none.
    pub fn fragment_range(&self, fragment: usize, range: Range<u64>) -> Result<Range<u64>, CodingError> {
        self.coding.check_fragment(fragment)?;
        check_range(&range, self.total_bytes)?;
        if self.coding.is_copies() {
            return Ok(range);
        }
        if fragment >= self.coding.k() {
            return Ok(0..0);
        }
        Ok(self.bytes_before(fragment, range.start)..self.bytes_before(fragment, range.end))
    }

    /// How many bytes of a data fragment come before byte `at` of the artifact.
    fn bytes_before(&self, fragment: usize, at: u64) -> u64 {
        let stripe = at / self.full_stripe();
        let start = stripe * self.full_stripe();
        let shard = shard_bytes(self.coding, (self.total_bytes - start).min(self.full_stripe()) as usize);
        let within = ((at - start) as usize).saturating_sub(fragment * shard).min(shard);
        stripe * UNIT_BYTES as u64 + within as u64
    }

    /// The piece that begins at byte `at` and ends at `end` or before. `at` is below `end`, `end` at most the artifact's size.
    fn piece(&self, at: u64, end: u64) -> Piece {
        let stripe = at / self.full_stripe();
        let start = stripe * self.full_stripe();
        let stripe_bytes = (self.total_bytes - start).min(self.full_stripe()) as usize;
        let shard = shard_bytes(self.coding, stripe_bytes);
        let within = (at - start) as usize;
        let (fragment, skip) = (within / shard, within % shard);
        let bytes = (end - at).min((shard - skip) as u64) as usize;
        Piece { stripe, fragment, offset: stripe * UNIT_BYTES as u64 + skip as u64, bytes }
    }

    fn full_stripe(&self) -> u64 {
        self.coding.stripe_bytes() as u64
    }
}
