//! Trimmed mean and median, element by element: a few contributions, however wrong, cannot move them far (Yin, Chen, Ramchandran and Bartlett,
//! "Byzantine-Robust Distributed Learning: Towards Optimal Statistical Rates", ICML 2018).
//!
//! For each element, the values of the n shards are sorted: by value, −0 before +0 (IEEE 754's totalOrder; NaN was refused before). With
//! x₀ ≤ … ≤ xₙ₋₁ and everything in f64, T being the tensor's dtype:
//!
//! ```text
//! trimmed mean:  k := min(⌊round_64(fraction · n)⌋, ⌊(n − 1)/2⌋)
//!                round_T( (((+0 + x_k) + x_{k+1}) + … + x_{n−1−k}) / (n − 2k) )
//! median:        n odd: the middle value.  n even, a ≤ b being the two in the middle: round_T( ½·a + ½·b )
//! ```
//!
//! The result depends on the set of values alone: not on the order of arrival, nor on which shard pushed which. Weights are checked and summed
//! (for the report), but do not count: who pushes a wrong value would push a large weight with it.
//!
//! Memory: every shard's elements of the range. Callers with large models go over them in windows: an [`OrderStatistics`] over each range in
//! turn, and the results put together are those of one over everything.

use std::ops::Range;

use crate::contribution::Contribution;
use crate::element::Element;
use crate::frame::{Dtype, Layout};
use crate::guard::{check_layout, effective_weight};
use crate::limits::SORT_BLOCK_ELEMENTS;
use crate::mean::{check_range, check_shards, slices_of, Mean, MeanError};
use crate::sorting_network::comparators;

/// What is taken of the sorted values.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum OrderStatistic {
    /// The mean without `fraction` of the values at each end; from 0 to below 0.5.
    TrimmedMean {
        /// Share that is left out at each end.
        fraction: f64,
    },
    /// The middle.
    Median,
}

impl OrderStatistic {
    /// The k of the module's head: values that are left out at each end.
    pub fn trimmed_at_each_end(self, shards: usize) -> usize {
        let most = (shards - 1) / 2;
        match self {
            Self::TrimmedMean { fraction } => ((fraction * shards as f64).floor() as usize).min(most),
            Self::Median => most,
        }
    }
}

/// Sortable integers of the same order as the floats: `SLICE[s · elements + i]` is shard s' value of element i.
#[derive(Debug)]
enum Columns {
    F32(Vec<i32>),
    F64(Vec<i64>),
}

#[derive(Debug)]
struct Slice {
    tensor: usize,
    elements: Range<usize>,
    columns: Columns,
}

/// Contributions of a range of elements, until all are there.
#[derive(Debug)]
pub struct OrderStatistics {
    layout: Layout,
    shards: Vec<u32>,
    next: usize,
    weight_sum: f64,
    slices: Vec<Slice>,
    statistic: OrderStatistic,
}

impl OrderStatistics {
    /// Over some elements, numbered through the model's tensors in canonical order. `shards`: the sealed list, strictly rising.
    pub fn with_range(
        range: Range<usize>,
        model: &Layout,
        shards: &[u32],
        statistic: OrderStatistic,
    ) -> Result<Self, MeanError> {
        check_shards(shards)?;
        check_range(&range, model)?;
        let slices = slices_of(range, model)
            .map(|(tensor, elements)| {
                let places = elements.len() * shards.len();
                let columns = match model.tensors()[tensor].dtype {
                    Dtype::F32 => Columns::F32(Vec::with_capacity(places)),
                    Dtype::F64 => Columns::F64(Vec::with_capacity(places)),
                };
                Slice { tensor, elements, columns }
            })
            .collect();
        Ok(Self { layout: model.clone(), shards: shards.to_vec(), next: 0, weight_sum: 0.0, slices, statistic })
    }

    /// The shard that [`OrderStatistics::add`] takes next; None when all are there.
    pub fn next_shard(&self) -> Option<u32> {
        self.shards.get(self.next).copied()
    }

    /// Takes the next shard's values of the range. On an error nothing has changed.
    pub fn add(&mut self, shard: u32, contribution: &Contribution<'_>, weight: f64) -> Result<(), MeanError> {
        if self.next_shard() != Some(shard) {
            return Err(MeanError::Order { given: shard, expected: self.next_shard() });
        }
        let refused = |cause| MeanError::Contribution { shard, cause };
        let weight = effective_weight(weight).map_err(refused)?;
        check_layout(&self.layout, contribution.layout()).map_err(refused)?;
        for slice in &mut self.slices {
            let elements = slice.elements.clone();
            match &mut slice.columns {
                Columns::F32(keys) => {
                    let mut values = vec![0.0; elements.len()];
                    contribution.read_f32(slice.tensor, elements, &mut values);
                    keys.extend(values.iter().map(|value| f32::key(*value)));
                }
                Columns::F64(keys) => {
                    let mut values = vec![0.0; elements.len()];
                    contribution.read_f64(slice.tensor, elements, &mut values);
                    keys.extend(values.iter().map(|value| f64::key(*value)));
                }
            }
        }
        self.weight_sum += weight;
        self.next += 1;
        Ok(())
    }

    /// The statistic of each element, when every sealed shard was added.
    pub fn finish(self) -> Result<Mean, MeanError> {
        if let Some(missing) = self.next_shard() {
            return Err(MeanError::Incomplete(missing));
        }
        if !self.weight_sum.is_finite() {
            return Err(MeanError::WeightSum(self.weight_sum));
        }
        let pairs = comparators(self.shards.len());
        let mut data = Vec::new();
        for slice in &self.slices {
            let count = slice.elements.len();
            match &slice.columns {
                Columns::F32(keys) => reduce::<f32>(keys, count, self.statistic, &pairs, &mut data),
                Columns::F64(keys) => reduce::<f64>(keys, count, self.statistic, &pairs, &mut data),
            }
        }
        Ok(Mean { data, weight_sum: self.weight_sum })
    }
}

/// Floats as integers with the order of totalOrder.
trait Sortable: Element {
    type Key: Copy + Ord + Default;
    fn key(value: Self) -> Self::Key;
    fn value(key: Self::Key) -> Self;
}

impl Sortable for f32 {
    type Key = i32;
    fn key(value: Self) -> i32 {
        let bits = value.to_bits().cast_signed();
        // Negative numbers are larger, the larger their magnitude is: its bits are turned over.
        bits ^ (bits >> 31 & i32::MAX)
    }
    fn value(key: i32) -> Self {
        f32::from_bits((key ^ (key >> 31 & i32::MAX)).cast_unsigned())
    }
}

impl Sortable for f64 {
    type Key = i64;
    fn key(value: Self) -> i64 {
        let bits = value.to_bits().cast_signed();
        bits ^ (bits >> 63 & i64::MAX)
    }
    fn value(key: i64) -> Self {
        f64::from_bits((key ^ (key >> 63 & i64::MAX)).cast_unsigned())
    }
}

/// `keys`: as many columns of `count` elements as there are shards. Appends `count` elements to `data`.
fn reduce<E: Sortable>(
    keys: &[E::Key],
    count: usize,
    statistic: OrderStatistic,
    pairs: &[(usize, usize)],
    data: &mut Vec<u8>,
) {
    let shards = keys.len() / count;
    let trimmed = statistic.trimmed_at_each_end(shards);
    let mut block = vec![[E::Key::default(); SORT_BLOCK_ELEMENTS]; shards];
    let mut out = [E::ZERO; SORT_BLOCK_ELEMENTS];
    for start in (0..count).step_by(SORT_BLOCK_ELEMENTS) {
        let width = SORT_BLOCK_ELEMENTS.min(count - start);
        for (row, column) in block.iter_mut().zip(keys.chunks_exact(count)) {
            row[..width].copy_from_slice(&column[start..start + width]);
        }
        for (i, j) in pairs {
            let (head, tail) = block.split_at_mut(*j);
            exchange(&mut head[*i], &mut tail[0]);
        }
        let middle = &block[trimmed..shards - trimmed];
        match statistic {
            OrderStatistic::TrimmedMean { .. } => mean_of_rows::<E>(middle, &mut out),
            OrderStatistic::Median => median_of_rows::<E>(middle, &mut out),
        }
        let place = data.len();
        data.resize(place + width * E::BYTES, 0);
        E::write(&out[..width], &mut data[place..]);
    }
}

/// The smaller ones to `low`.
fn exchange<K: Copy + Ord>(low: &mut [K; SORT_BLOCK_ELEMENTS], high: &mut [K; SORT_BLOCK_ELEMENTS]) {
    for (low, high) in low.iter_mut().zip(high) {
        let (a, b) = (*low, *high);
        *low = a.min(b);
        *high = a.max(b);
    }
}

fn mean_of_rows<E: Sortable>(rows: &[[E::Key; SORT_BLOCK_ELEMENTS]], out: &mut [E; SORT_BLOCK_ELEMENTS]) {
    let mut sums = [0.0_f64; SORT_BLOCK_ELEMENTS];
    for row in rows {
        for (sum, key) in sums.iter_mut().zip(row) {
            *sum += E::value(*key).to_f64();
        }
    }
    let count = rows.len() as f64;
    for (out, sum) in out.iter_mut().zip(sums) {
        *out = E::from_f64(sum / count);
    }
}

/// One row, or the two in the middle.
fn median_of_rows<E: Sortable>(rows: &[[E::Key; SORT_BLOCK_ELEMENTS]], out: &mut [E; SORT_BLOCK_ELEMENTS]) {
    match rows {
        [middle] => {
            for (out, key) in out.iter_mut().zip(middle) {
                *out = E::value(*key);
            }
        }
        [low, high] => {
            for (out, (low, high)) in out.iter_mut().zip(low.iter().zip(high)) {
                *out = E::from_f64(0.5 * E::value(*low).to_f64() + 0.5 * E::value(*high).to_f64());
            }
        }
        _ => unreachable!("all but the middle was trimmed"),
    }
}
