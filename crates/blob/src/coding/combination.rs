//! A lost shard as a sum of products of k shards that are there.
//!
//! The code is linear over GF(2^16), so each shard of a stripe is a fixed combination of any k others. Its factors are what the library makes
//! of unit vectors; then a stripe costs k multiplications a lost shard. The library's own decoder evaluates a polynomial of 65,536 elements in
//! every call, half a millisecond, whatever the length of the shards: thirty times the work on a stripe of 128 KiB.

use reed_solomon_simd::engine::{tables, utils, DefaultEngine, Engine, GfElement};
use reed_solomon_simd::rate::{HighRateDecoder, HighRateEncoder, RateDecoder, RateEncoder};

use super::{Coding, SHARD_ALIGN_BYTES, UNIT_BYTES};

/// Elements are split: 32 low bytes, then their 32 high bytes. As the library lays them out.
type Group = [u8; SHARD_ALIGN_BYTES];
const HIGH_BYTE: usize = SHARD_ALIGN_BYTES / 2;
/// Groups that are worked on at a time, so that they stay in the core's first cache.
const GROUPS_AT_ONCE: usize = 64;
/// A group of `ONE` in its first element.
const UNIT_VECTOR: Group = {
    let mut group = [0; SHARD_ALIGN_BYTES];
    group[0] = 1;
    group
};

/// Makes the shards of some fragments from those of k others.
pub(super) struct Combination {
    /// For each target: its factor for each source.
    factors: Vec<Vec<GfElement>>,
    engine: DefaultEngine,
    /// One target after the other, each with room for a full shard.
    targets: Vec<Group>,
    product: Vec<Group>,
}

impl Combination {
    /// `sources` are k different fragments of a code that is not plain copies, `targets` any others.
    pub(super) fn new(coding: Coding, sources: &[usize], targets: &[usize]) -> Self {
        let codeword = unit_codeword(coding, sources);
        let factor = |target: usize, source: usize| {
            let group = &codeword[target][source * SHARD_ALIGN_BYTES..];
            let factor = GfElement::from_le_bytes([group[0], group[HIGH_BYTE]]);
            // Else k - 1 sources would be enough. It also has no logarithm.
            assert_ne!(factor, 0, "fragment {target} needs each of {sources:?}");
            factor
        };
        let factors = targets.iter().map(|target| (0..sources.len()).map(|source| factor(*target, source)).collect());
        Self {
            factors: factors.collect(),
            engine: DefaultEngine::new(),
            targets: vec![[0; SHARD_ALIGN_BYTES]; targets.len() * UNIT_BYTES / SHARD_ALIGN_BYTES],
            product: vec![[0; SHARD_ALIGN_BYTES]; GROUPS_AT_ONCE],
        }
    }

    /// Makes the targets' shards from the sources', which have one length, a multiple of 64 bytes and at most `UNIT_BYTES`.
    pub(super) fn make(&mut self, sources: &[&[u8]]) {
        let log = &tables::get_exp_log().log;
        let room = UNIT_BYTES / SHARD_ALIGN_BYTES;
        for (factors, target) in self.factors.iter().zip(self.targets.chunks_exact_mut(room)) {
            for (number, (factor, source)) in factors.iter().zip(sources).enumerate() {
                let (source, _) = source.as_chunks::<SHARD_ALIGN_BYTES>();
                for (source, target) in source.chunks(GROUPS_AT_ONCE).zip(target.chunks_mut(GROUPS_AT_ONCE)) {
                    let target = &mut target[..source.len()];
                    let product = &mut self.product[..source.len()];
                    match (number, *factor) {
                        (0, 1) => target.copy_from_slice(source),
                        (0, factor) => {
                            target.copy_from_slice(source);
                            self.engine.mul(target, log[usize::from(factor)]);
                        }
                        (_, 1) => utils::xor(target, source),
                        (_, factor) => {
                            product.copy_from_slice(source);
                            self.engine.mul(product, log[usize::from(factor)]);
                            utils::xor(target, product);
                        }
                    }
                }
            }
        }
    }

    /// What `make` made of a target, the `number`th.
    pub(super) fn target(&self, number: usize, shard_bytes: usize) -> &[u8] {
        &self.targets[number * UNIT_BYTES / SHARD_ALIGN_BYTES..].as_flattened()[..shard_bytes]
    }
}

/// All k + m shards of a stripe of k groups, in which group i of source i is `UNIT_VECTOR` and all else of the sources is zero: group i of
/// any shard begins with the factor by which source i goes into it.
fn unit_codeword(coding: Coding, sources: &[usize]) -> Vec<Vec<u8>> {
    let (k, m) = (coding.k(), coding.m());
    let length = k * SHARD_ALIGN_BYTES;
    let known = "k different shards of one length, of a code that exists";
    let mut decoder = HighRateDecoder::new(k, m, length, DefaultEngine::new(), None).expect(known);
    let mut shards = vec![vec![0; length]; k + m];
    for (number, source) in sources.iter().enumerate() {
        let shard = &mut shards[*source];
        shard[number * SHARD_ALIGN_BYTES..][..SHARD_ALIGN_BYTES].copy_from_slice(&UNIT_VECTOR);
        match source.checked_sub(k) {
            None => decoder.add_original_shard(*source, shard).expect(known),
            Some(index) => decoder.add_recovery_shard(index, shard).expect(known),
        }
    }
    for (index, shard) in decoder.decode().expect(known).restored_original_iter() {
        shards[index].copy_from_slice(shard);
    }
    let mut encoder = HighRateEncoder::new(k, m, length, DefaultEngine::new(), None).expect(known);
    for shard in &shards[..k] {
        encoder.add_original_shard(shard).expect(known);
    }
    for (index, shard) in encoder.encode().expect(known).recovery_iter().enumerate() {
        shards[k + index].copy_from_slice(shard);
    }
    shards
}
