//! A lost shard as a sum of products of k shards that are there.
//!
//! The code is linear over GF(2^16), so each shard of a stripe is a fixed combination of any k others; with its factors known, a stripe costs k
//! multiplications a lost shard. What the code is, is said by the library's encoder alone: its answer to unit vectors is the generator matrix.
//! The library's own decoder evaluates a polynomial of 65,536 elements in every call, half a millisecond whatever the length of the shards,
//! which is made for thousands of shards and is fifty times the rest of the work on a stripe of 128 KiB. It is the oracle of the tests.

use reed_solomon_simd::engine::{tables, utils, DefaultEngine, Engine, GfElement, GF_MODULUS};
use reed_solomon_simd::rate::{HighRateEncoder, RateEncoder};

use super::{Coding, SHARD_ALIGN_BYTES, UNIT_BYTES};

/// Elements are split: 32 low bytes, then their 32 high bytes. As the library lays them out.
type Group = [u8; SHARD_ALIGN_BYTES];
const HIGH_BYTE: usize = SHARD_ALIGN_BYTES / 2;
/// Groups that are worked on at a time, so that they stay in the core's first cache.
const GROUPS_AT_ONCE: usize = 64;
/// A group whose first element is 1; the others are 0.
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
        Self {
            factors: factors(coding, sources, targets),
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

/// The factor of each source in each target: the targets' rows of the generator matrix times the inverse of the sources' rows.
fn factors(coding: Coding, sources: &[usize], targets: &[usize]) -> Vec<Vec<GfElement>> {
    let generator = generator(coding);
    let inverse = inverse(sources.iter().map(|source| generator[*source].clone()).collect());
    let factor = |target: usize, source: usize| {
        let products = generator[target].iter().zip(&inverse).map(|(element, row)| product(*element, row[source]));
        let factor = products.fold(0, |sum, product| sum ^ product);
        // Else k - 1 sources would be enough. It also has no logarithm.
        assert_ne!(factor, 0, "fragment {target} needs each of {sources:?}");
        factor
    };
    targets.iter().map(|target| (0..sources.len()).map(|source| factor(*target, source)).collect()).collect()
}

/// k + m rows of k: the factor of each data shard in each shard. The library says it: of data in which group i of shard i is `UNIT_VECTOR` and
/// all else zero, group i of any shard is the factor of data shard i.
fn generator(coding: Coding) -> Vec<Vec<GfElement>> {
    let (k, m) = (coding.k(), coding.m());
    let known = "k shards of one length, of a code that exists";
    let mut encoder = HighRateEncoder::new(k, m, k * SHARD_ALIGN_BYTES, DefaultEngine::new(), None).expect(known);
    let mut rows = Vec::with_capacity(k + m);
    for number in 0..k {
        let mut shard = vec![[0; SHARD_ALIGN_BYTES]; k];
        shard[number] = UNIT_VECTOR;
        encoder.add_original_shard(shard.as_flattened()).expect(known);
        rows.push((0..k).map(|at| GfElement::from(at == number)).collect());
    }
    let first = |group: &Group| GfElement::from_le_bytes([group[0], group[HIGH_BYTE]]);
    for shard in encoder.encode().expect(known).recovery_iter() {
        rows.push(shard.as_chunks().0.iter().map(first).collect());
    }
    rows
}

/// By Gauss and Jordan. `rows` are k rows of a generator of which any k are independent.
fn inverse(mut rows: Vec<Vec<GfElement>>) -> Vec<Vec<GfElement>> {
    let k = rows.len();
    for (number, row) in rows.iter_mut().enumerate() {
        row.extend((0..k).map(|at| GfElement::from(at == number)));
    }
    for column in 0..k {
        let pivot = (column..k).find(|row| rows[*row][column] != 0).expect("any k rows are independent");
        rows.swap(column, pivot);
        let scale = reciprocal(rows[column][column]);
        let scaled: Vec<GfElement> = rows[column].iter().map(|element| product(*element, scale)).collect();
        for (number, row) in rows.iter_mut().enumerate() {
            let factor = row[column];
            if number != column && factor != 0 {
                row.iter_mut().zip(&scaled).for_each(|(element, scaled)| *element ^= product(*scaled, factor));
            }
        }
        rows[column] = scaled;
    }
    rows.into_iter().map(|mut row| row.split_off(k)).collect()
}

fn product(one: GfElement, other: GfElement) -> GfElement {
    let tables::ExpLog { exp, log } = tables::get_exp_log();
    match other {
        0 => 0,
        _ => tables::mul(one, log[usize::from(other)], exp, log),
    }
}

/// Of an element that is not 0.
fn reciprocal(element: GfElement) -> GfElement {
    let tables::ExpLog { exp, log } = tables::get_exp_log();
    exp[usize::from(GF_MODULUS - log[usize::from(element)])]
}
