//! How the bytes of an artifact become fragments and fragments its bytes again. Pure: no file, clock, thread, socket or random number.
//!
//! A [`Coding`] makes k data fragments, which hold the plain bytes, and m parity fragments; any k of them give the artifact. It is called by
//! whoever writes, reads or repairs fragments, which the caller carries and verifies: a changed byte in a fragment is not noticed here.
//! * `layout`: where each byte of an artifact is. The same for every code.
//! * `encoder`: bytes in, shards out, a stripe at a time.
//! * `decoder`: shards in, bytes or a lost fragment out, a stripe at a time.
//! * `combination`: a lost shard as a sum of products of shards that are there.
//!
//! Invariant: equal bytes under an equal `code_id` give equal fragments, on every machine and in every version (golden vectors hold it).

mod combination;
mod decoder;
mod encoder;
mod layout;

use std::ops::Range;

pub use decoder::{Decoder, Rebuild};
pub use encoder::{Encoder, Stripe};
pub use layout::{Layout, Piece};

/// Bytes that a stripe puts in each fragment; only the last stripe has fewer. As many as one crc32c covers, so a shard is one verified block.
pub const UNIT_BYTES: usize = crate::limits::BLOCK_BYTES;
/// The length of a coded shard is a multiple of this: the code works on groups of 64 bytes, each by itself.
pub const SHARD_ALIGN_BYTES: usize = 64;
/// From this size on an artifact is coded; a smaller one is copied, since its messages and fsyncs cost more than its bytes.
pub const CODED_BYTES_MIN: u64 = 128 * 1024;
/// Most data fragments of a code. More would only make reads wait for more replicas.
pub const DATA_FRAGMENTS_MAX: usize = 16;
/// Most parity fragments of a code.
pub const PARITY_FRAGMENTS_MAX: usize = 16;

/// `code_id` of plain copies: every fragment is the artifact itself.
pub const CODE_PLAIN_COPIES: u32 = 0;
/// Family of Reed-Solomon codes: the high rate of Leopard-RS over GF(2^16), as reed-solomon-simd 3.1 has it, in units of `UNIT_BYTES`. With
/// m = 1 the parity is the XOR of the data. A library that gives other bytes, or another unit, is another family.
const FAMILY_REED_SOLOMON: u32 = 1;

/// Why bytes cannot be coded or decoded. None goes away by a retry with the same arguments.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodingError {
    /// No such code here.
    #[error("failed to code: no code has {k} data and {m} parity fragments")]
    Unsupported {
        /// Data fragments.
        k: usize,
        /// Parity fragments.
        m: usize,
    },
    /// Written by a version that knows more codes.
    #[error("failed to decode: this version does not know code {code_id:#x}")]
    UnknownCode {
        /// As in the manifest.
        code_id: u32,
    },
    /// A code has as many fragments as it has.
    #[error("failed to decode: code {code_id:#x} does not have {found} fragments")]
    FragmentCount {
        /// As in the manifest.
        code_id: u32,
        /// How many fragments were named.
        found: usize,
    },
    /// More fragments help.
    #[error("failed to decode: {needed} fragments are needed, {found} are there")]
    TooFewFragments {
        /// The k of the code.
        needed: usize,
        /// Different ones that were given.
        found: usize,
    },
    /// Fragments are numbered from 0.
    #[error("failed to decode: there is no fragment {fragment} of {fragments}")]
    NoSuchFragment {
        /// What was named.
        fragment: usize,
        /// k + m.
        fragments: usize,
    },
    /// Named twice.
    #[error("failed to decode: fragment {fragment} is given twice")]
    FragmentTwice {
        /// Which.
        fragment: usize,
    },
    /// One shard for each source.
    #[error("failed to decode: {expected} shards are needed for a stripe, {found} were given")]
    ShardCount {
        /// The k of the code.
        expected: usize,
        /// What was given.
        found: usize,
    },
    /// Cut, or not of this artifact.
    #[error(
        "failed to decode: the shard of fragment {fragment} in stripe {stripe} has {found} bytes instead of {expected}"
    )]
    ShardLength {
        /// Its fragment.
        fragment: usize,
        /// Its stripe.
        stripe: u64,
        /// By the layout.
        expected: usize,
        /// What was given.
        found: usize,
    },
    /// Stripes are numbered from 0.
    #[error("failed to decode: there is no stripe {stripe} of {stripes}")]
    NoSuchStripe {
        /// What was named.
        stripe: u64,
        /// How many there are.
        stripes: u64,
    },
    /// Not a range of the artifact.
    #[error("failed to read bytes {start}..{end} of an artifact of {total_bytes} bytes")]
    Range {
        /// First byte.
        start: u64,
        /// Byte after the last one.
        end: u64,
        /// Size of the artifact.
        total_bytes: u64,
    },
}

/// A code: k data fragments with the plain bytes, m parity fragments, any k of them enough. With k = 1 they are plain copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Coding {
    k: usize,
    m: usize,
}

impl Coding {
    /// The code of an artifact: `live` voters take a fragment each, `failures` of them may be lost (`placement::failures_survived`).
    /// Small artifacts, and all as long as no more than `failures` + 1 voters are live, are plain copies on `failures` + 1 of them; so are those for which there is no code, as with no failure to survive.
    pub fn choose(live: usize, failures: usize, total_bytes: u64) -> Self {
        if total_bytes < CODED_BYTES_MIN {
            return Self::copies(failures);
        }
        let k = live.saturating_sub(failures).min(DATA_FRAGMENTS_MAX);
        Self::new(k, failures).unwrap_or(Self::copies(failures))
    }

    /// Plain copies: one, and `m` more.
    pub fn copies(m: usize) -> Self {
        Self { k: 1, m }
    }

    /// `k` data fragments and `m` parity fragments. Coded without parity is refused: it could lose more than a single copy.
    pub fn new(k: usize, m: usize) -> Result<Self, CodingError> {
        let coded = (2..=DATA_FRAGMENTS_MAX).contains(&k) && (1..=PARITY_FRAGMENTS_MAX).contains(&m);
        if k == 1 || coded {
            Ok(Self { k, m })
        } else {
            Err(CodingError::Unsupported { k, m })
        }
    }

    /// The code that a manifest names; `fragments` is how many it has placed.
    pub fn from_code_id(code_id: u32, fragments: usize) -> Result<Self, CodingError> {
        let count = CodingError::FragmentCount { code_id, found: fragments };
        if code_id == CODE_PLAIN_COPIES {
            return fragments.checked_sub(1).map(Self::copies).ok_or(count);
        }
        let [_, _, k, m] = code_id.to_be_bytes();
        let coding = Self { k: k.into(), m: m.into() };
        if k < 2 || Self::new(coding.k, coding.m).is_err() || coding.code_id() != code_id {
            return Err(CodingError::UnknownCode { code_id });
        }
        if coding.fragments() == fragments {
            Ok(coding)
        } else {
            Err(count)
        }
    }

    /// What a manifest keeps of it: 0 for plain copies, else family, k and m, a byte each (`0x010201` is RS with k = 2 and m = 1).
    pub fn code_id(self) -> u32 {
        if self.is_copies() {
            return CODE_PLAIN_COPIES;
        }
        // Both are at most 16 when k is not 1: `new` holds it.
        FAMILY_REED_SOLOMON << 16 | (self.k as u32) << 8 | self.m as u32
    }

    /// Data fragments, which are also how many fragments a read needs.
    pub fn k(self) -> usize {
        self.k
    }

    /// Parity fragments, which are also how many fragments may be lost.
    pub fn m(self) -> usize {
        self.m
    }

    /// All fragments. Numbers 0..k are data, k..k + m are parity.
    pub fn fragments(self) -> usize {
        self.k + self.m
    }

    /// Whether every fragment is the artifact itself.
    pub fn is_copies(self) -> bool {
        self.k == 1
    }

    /// Bytes of artifact in a full stripe.
    pub fn stripe_bytes(self) -> usize {
        self.k * UNIT_BYTES
    }

    /// Length in bytes of each fragment of an artifact of `total_bytes`; all have the same.
    pub fn fragment_bytes(self, total_bytes: u64) -> u64 {
        Layout::new(self, total_bytes).fragment_bytes()
    }

    fn check_fragment(self, fragment: usize) -> Result<(), CodingError> {
        if fragment < self.fragments() {
            Ok(())
        } else {
            Err(CodingError::NoSuchFragment { fragment, fragments: self.fragments() })
        }
    }
}

fn check_range(range: &Range<u64>, total_bytes: u64) -> Result<(), CodingError> {
    if range.start <= range.end && range.end <= total_bytes {
        Ok(())
    } else {
        Err(CodingError::Range { start: range.start, end: range.end, total_bytes })
    }
}

const _: () = assert!(UNIT_BYTES.is_multiple_of(SHARD_ALIGN_BYTES));
const _: () = assert!(DATA_FRAGMENTS_MAX <= 255 && PARITY_FRAGMENTS_MAX <= 255);
