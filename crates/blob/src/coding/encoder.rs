//! Bytes in pieces of any size become stripes of k + m shards. Memory: one stripe, and the library's own copy of it.

use reed_solomon_simd::engine::DefaultEngine;
use reed_solomon_simd::rate::{HighRateEncoder, RateEncoder};
use reed_solomon_simd::EncoderResult;

use super::layout::shard_bytes;
use super::{Coding, CodingError, UNIT_BYTES};

/// Codes one artifact, from its first byte to its last.
///
/// Its rate is named, not left to the library's choice by k and m, which another version may make another way.
pub struct Encoder {
    coding: Coding,
    /// None for plain copies.
    parity: Option<HighRateEncoder<DefaultEngine>>,
    /// The begin of a stripe whose end has not come yet.
    begun: Vec<u8>,
    total_bytes: u64,
    finished: bool,
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { coding, total_bytes, finished, .. } = self;
        write!(formatter, "Encoder {{ coding: {coding:?}, total_bytes: {total_bytes}, finished: {finished} }}")
    }
}

/// The shards of one stripe, to be appended to their fragments.
pub struct Stripe<'shards> {
    coding: Coding,
    data: &'shards [u8],
    parity: Option<EncoderResult<'shards>>,
    shard_bytes: usize,
}

impl Encoder {
    /// For one artifact. The first coded one of a process makes the library's tables: some 10 ms, and 8 MiB that stay.
    pub fn new(coding: Coding) -> Result<Self, CodingError> {
        let parity = if coding.is_copies() {
            None
        } else {
            let made = HighRateEncoder::new(coding.k(), coding.m(), UNIT_BYTES, DefaultEngine::new(), None);
            Some(made.map_err(|_| CodingError::Unsupported { k: coding.k(), m: coding.m() })?)
        };
        Ok(Self { coding, parity, begun: Vec::new(), total_bytes: 0, finished: false })
    }

    /// Bytes of the artifact taken so far.
    pub fn total_bytes(&self) -> u64 {
        self.total_bytes
    }

    /// Takes bytes from the front of `input` and gives the next stripe, if they end one. To be called until it gives none: then all are taken.
    ///
    /// # Panics
    /// After `finish`: what came then would not be part of the artifact.
    pub fn next_stripe<'shards, 'input: 'shards>(
        &'shards mut self,
        input: &mut &'input [u8],
    ) -> Option<Stripe<'shards>> {
        assert!(!self.finished, "no bytes come after the last one");
        let full = self.coding.stripe_bytes();
        if self.begun.len() == full {
            self.begun.clear();
        }
        if self.begun.is_empty() && input.len() >= full {
            // Whole stripes are coded where they are.
            let (now, later) = input.split_at(full);
            *input = later;
            self.total_bytes += full as u64;
            return Some(stripe(self.coding, self.parity.as_mut(), now, UNIT_BYTES));
        }
        let (now, later) = input.split_at(input.len().min(full - self.begun.len()));
        *input = later;
        self.total_bytes += now.len() as u64;
        self.begun.extend_from_slice(now);
        if self.begun.len() < full {
            return None;
        }
        Some(stripe(self.coding, self.parity.as_mut(), &self.begun, UNIT_BYTES))
    }

    /// The last stripe, filled up with zeros; none if the artifact ended with a full one.
    pub fn finish(&mut self) -> Option<Stripe<'_>> {
        let full = self.coding.stripe_bytes();
        if std::mem::replace(&mut self.finished, true) || self.begun.is_empty() || self.begun.len() == full {
            return None;
        }
        let shard_bytes = shard_bytes(self.coding, self.begun.len());
        self.begun.resize(shard_bytes * self.coding.k(), 0);
        if let Some(parity) = &mut self.parity {
            parity.reset(self.coding.k(), self.coding.m(), shard_bytes).expect("a shard is a multiple of 64 bytes");
        }
        Some(stripe(self.coding, self.parity.as_mut(), &self.begun, shard_bytes))
    }
}

fn stripe<'shards>(
    coding: Coding,
    parity: Option<&'shards mut HighRateEncoder<DefaultEngine>>,
    data: &'shards [u8],
    shard_bytes: usize,
) -> Stripe<'shards> {
    let parity = parity.map(|parity| {
        for shard in data.chunks_exact(shard_bytes) {
            parity.add_original_shard(shard).expect("k shards of the length that was set");
        }
        parity.encode().expect("it has k shards")
    });
    Stripe { coding, data, parity, shard_bytes }
}

impl Stripe<'_> {
    /// Length in bytes of each shard.
    pub fn shard_bytes(&self) -> usize {
        self.shard_bytes
    }

    /// What goes to a fragment.
    pub fn shard(&self, fragment: usize) -> Result<&[u8], CodingError> {
        self.coding.check_fragment(fragment)?;
        let Some(parity) = &self.parity else {
            return Ok(self.data);
        };
        Ok(match fragment.checked_sub(self.coding.k()) {
            None => &self.data[fragment * self.shard_bytes..][..self.shard_bytes],
            Some(index) => parity.recovery(index).expect("it has m of them"),
        })
    }

    /// The shards of fragments 0, 1, … k + m - 1.
    pub fn shards(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.coding.fragments()).map(|fragment| self.shard(fragment).expect("it is one of them"))
    }
}
