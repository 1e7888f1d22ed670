//! The weighted mean of a round's contributions, in the one order that there is.
//!
//! For each element i, over the sealed shards in rising order:
//!
//! ```text
//! sum := +0
//! for each shard s:  sum := round_A(sum + round_A(round_64(w_s · g_s[i])))
//! W   := (((0 + w_0) + w_1) + …)                     in f64
//! mean[i] := round_T(round_64(sum / W))
//! ```
//!
//! `T` is the tensor's dtype and `A` the accumulator's: f32 for F32 tensors ([`Precision::Tensor`]), f64 for F64 tensors and, on request
//! ([`Precision::Wide`]), for F32 tensors as well. So for F32 with an f32 accumulator: the product of weight and element is taken in f64 and
//! rounded to f32, the addition is f32's, the quotient is taken in f64 and rounded to f32. Never a fused multiply-add.
//!
//! An [`Accumulator`] knows the sealed shards and takes only the next one: the order of arrival cannot enter. Memory: one accumulator element
//! for each element of its range, whatever the number of shards.

use std::ops::Range;

use crate::contribution::Contribution;
use crate::element::{for_blocks, Element};
use crate::frame::{Dtype, Frame, Layout, TensorSpec};
use crate::guard::{check_layout, effective_weight, GuardError};
use crate::limits::BLOCK_ELEMENTS;

/// Width of the accumulator of F32 tensors. F64 tensors are always summed in f64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Precision {
    /// The tensor's own dtype. This is the algorithm that `ALGORITHM_ID` names.
    #[default]
    Tensor,
    /// f64.
    Wide,
}

/// Why a contribution was not added. The accumulator is unchanged.
#[derive(Debug, thiserror::Error)]
pub enum MeanError {
    /// The sealed list is empty or not strictly rising.
    #[error("failed to start the mean: the sealed shards must be strictly rising and at least one")]
    Shards,
    /// A range beyond the layout's elements.
    #[error("failed to start the mean: elements {start}..{end} of {elements}")]
    Range {
        /// First element.
        start: usize,
        /// One past the last.
        end: usize,
        /// Elements of the layout.
        elements: usize,
    },
    /// Another shard than the next one.
    #[error("failed to add shard {given}: the next one is {expected:?}")]
    Order {
        /// The shard offered.
        given: u32,
        /// The next of the sealed list; None: all are there.
        expected: Option<u32>,
    },
    /// Other tensors than the model's, or a weight that is not positive.
    #[error("failed to add shard {shard}: {cause}")]
    Contribution {
        /// Which.
        shard: u32,
        /// Why.
        cause: GuardError,
    },
    /// Finished too early.
    #[error("failed to finish the mean: shard {0} is missing")]
    Incomplete(u32),
    /// The weights' sum left f64's range.
    #[error("failed to finish the mean: the sum of the weights is {0}")]
    WeightSum(f64),
}

#[derive(Debug)]
enum Sum {
    F32(Vec<f32>),
    F64(Vec<f64>),
}

/// The part of one tensor that lies in the accumulator's range.
#[derive(Debug)]
struct Slice {
    tensor: usize,
    elements: Range<usize>,
    sum: Sum,
}

/// The mean of a range of elements.
#[derive(Debug, Clone, PartialEq)]
pub struct Mean {
    /// The elements of the range in canonical order, each little-endian in its tensor's dtype. Ranges in order, concatenated, are the whole.
    pub data: Vec<u8>,
    /// Σw in f64.
    pub weight_sum: f64,
}

/// The running sum over the next shard in order.
#[derive(Debug)]
pub struct Accumulator {
    layout: Layout,
    shards: Vec<u32>,
    next: usize,
    weight_sum: f64,
    slices: Vec<Slice>,
}

impl Accumulator {
    /// Over all elements of the model. `shards`: the sealed list, strictly rising.
    pub fn new(model: &Layout, shards: &[u32], precision: Precision) -> Result<Self, MeanError> {
        Self::with_range(0..model.elements(), model, shards, precision)
    }

    /// Over some elements only, numbered through the model's tensors in canonical order: callers give each thread, or each replica, a range.
    pub fn with_range(
        range: Range<usize>,
        model: &Layout,
        shards: &[u32],
        precision: Precision,
    ) -> Result<Self, MeanError> {
        check_shards(shards)?;
        check_range(&range, model)?;
        let slices = slices_of(range, model)
            .map(|(tensor, elements)| {
                let sum = zeros(&model.tensors()[tensor], elements.len(), precision);
                Slice { tensor, elements, sum }
            })
            .collect();
        Ok(Self { layout: model.clone(), shards: shards.to_vec(), next: 0, weight_sum: 0.0, slices })
    }

    /// The shard that [`Accumulator::add`] takes next; None when all are there.
    pub fn next_shard(&self) -> Option<u32> {
        self.shards.get(self.next).copied()
    }

    /// Adds the next shard's frame. Weight 0 counts as 1. On an error nothing has changed.
    pub fn add(&mut self, shard: u32, frame: &Frame<'_>, weight: f64) -> Result<(), MeanError> {
        self.check_next(shard)?;
        let contribution =
            Contribution::of_frame(&self.layout, frame).map_err(|cause| MeanError::Contribution { shard, cause })?;
        self.add_contribution(shard, &contribution, weight)
    }

    /// Adds the next shard's contribution: its values after decoding and clipping, as [`Accumulator::add`] would add a frame of them.
    pub fn add_contribution(
        &mut self,
        shard: u32,
        contribution: &Contribution<'_>,
        weight: f64,
    ) -> Result<(), MeanError> {
        self.check_next(shard)?;
        let refused = |cause| MeanError::Contribution { shard, cause };
        let weight = effective_weight(weight).map_err(refused)?;
        check_layout(&self.layout, contribution.layout()).map_err(refused)?;
        for slice in &mut self.slices {
            add_slice(slice, self.layout.tensors()[slice.tensor].dtype, contribution, weight);
        }
        self.weight_sum += weight;
        self.next += 1;
        Ok(())
    }

    fn check_next(&self, shard: u32) -> Result<(), MeanError> {
        if self.next_shard() != Some(shard) {
            return Err(MeanError::Order { given: shard, expected: self.next_shard() });
        }
        Ok(())
    }

    /// The mean, when every sealed shard was added.
    pub fn finish(self) -> Result<Mean, MeanError> {
        if let Some(missing) = self.next_shard() {
            return Err(MeanError::Incomplete(missing));
        }
        if !self.weight_sum.is_finite() {
            return Err(MeanError::WeightSum(self.weight_sum));
        }
        let mut data = Vec::new();
        for slice in &self.slices {
            divide_slice(&slice.sum, self.layout.tensors()[slice.tensor].dtype, self.weight_sum, &mut data);
        }
        Ok(Mean { data, weight_sum: self.weight_sum })
    }
}

/// The mean of a range of elements over frames that are all at hand, in shard order: what one thread of a caller does.
pub fn sum_range<'a, 'b: 'a>(
    range: Range<usize>,
    model: &Layout,
    contributions: impl IntoIterator<Item = (u32, f64, &'a Frame<'b>)>,
    precision: Precision,
) -> Result<Mean, MeanError> {
    let contributions: Vec<(u32, f64, &Frame<'_>)> = contributions.into_iter().collect();
    let shards: Vec<u32> = contributions.iter().map(|(shard, _, _)| *shard).collect();
    let mut accumulator = Accumulator::with_range(range, model, &shards, precision)?;
    for (shard, weight, frame) in contributions {
        accumulator.add(shard, frame, weight)?;
    }
    accumulator.finish()
}

fn zeros(spec: &TensorSpec, elements: usize, precision: Precision) -> Sum {
    match (spec.dtype, precision) {
        (Dtype::F32, Precision::Tensor) => Sum::F32(vec![0.0; elements]),
        (Dtype::F32, Precision::Wide) | (Dtype::F64, Precision::Tensor | Precision::Wide) => {
            Sum::F64(vec![0.0; elements])
        }
    }
}

/// The sealed list: at least one, strictly rising.
pub(crate) fn check_shards(shards: &[u32]) -> Result<(), MeanError> {
    if shards.is_empty() || shards.windows(2).any(|pair| pair[0] >= pair[1]) {
        return Err(MeanError::Shards);
    }
    Ok(())
}

/// A range within the model's elements.
pub(crate) fn check_range(range: &Range<usize>, model: &Layout) -> Result<(), MeanError> {
    let elements = model.elements();
    if range.start > range.end || range.end > elements {
        return Err(MeanError::Range { start: range.start, end: range.end, elements });
    }
    Ok(())
}

/// The tensors that have elements in the range, by number, each with which of its elements they are.
pub(crate) fn slices_of(range: Range<usize>, model: &Layout) -> impl Iterator<Item = (usize, Range<usize>)> + '_ {
    let mut first = 0;
    model.tensors().iter().enumerate().filter_map(move |(tensor, spec)| {
        let (start, end) = (first, first + spec.elements());
        first = end;
        let (from, to) = (range.start.max(start), range.end.min(end));
        (from < to).then(|| (tensor, from - start..to - start))
    })
}

fn add_slice(slice: &mut Slice, dtype: Dtype, contribution: &Contribution<'_>, weight: f64) {
    let (tensor, first, count) = (slice.tensor, slice.elements.start, slice.elements.len());
    let mut narrow = [0.0_f32; BLOCK_ELEMENTS];
    let mut wide = [0.0_f64; BLOCK_ELEMENTS];
    for_blocks(count, |block| {
        let elements = first + block.start..first + block.end;
        match (&mut slice.sum, dtype) {
            (Sum::F32(sum), Dtype::F32) => {
                let values = &mut narrow[..block.len()];
                contribution.read_f32(tensor, elements, values);
                for (sum, value) in sum[block].iter_mut().zip(values) {
                    *sum += (weight * f64::from(*value)) as f32;
                }
            }
            (Sum::F64(sum), Dtype::F32) => {
                let values = &mut narrow[..block.len()];
                contribution.read_f32(tensor, elements, values);
                for (sum, value) in sum[block].iter_mut().zip(values) {
                    *sum += weight * f64::from(*value);
                }
            }
            (Sum::F64(sum), Dtype::F64) => {
                let values = &mut wide[..block.len()];
                contribution.read_f64(tensor, elements, values);
                for (sum, value) in sum[block].iter_mut().zip(values) {
                    *sum += weight * *value;
                }
            }
            (Sum::F32(_), Dtype::F64) => unreachable!("an F64 tensor is summed in f64"),
        }
    });
}

fn divide_slice(sum: &Sum, dtype: Dtype, weight_sum: f64, data: &mut Vec<u8>) {
    match (sum, dtype) {
        (Sum::F32(sum), Dtype::F32) => divide(sum, weight_sum, data, |quotient| quotient as f32),
        (Sum::F64(sum), Dtype::F32) => divide(sum, weight_sum, data, |quotient| quotient as f32),
        (Sum::F64(sum), Dtype::F64) => divide(sum, weight_sum, data, |quotient| quotient),
        (Sum::F32(_), Dtype::F64) => unreachable!("an F64 tensor is summed in f64"),
    }
}

fn divide<A: Element, T: Element>(sum: &[A], weight_sum: f64, data: &mut Vec<u8>, round: impl Fn(f64) -> T) {
    let place = data.len();
    data.resize(place + sum.len() * T::BYTES, 0);
    let mut block = [T::ZERO; BLOCK_ELEMENTS];
    for (sums, bytes) in sum.chunks(BLOCK_ELEMENTS).zip(data[place..].chunks_mut(BLOCK_ELEMENTS * T::BYTES)) {
        for (value, sum) in block.iter_mut().zip(sums) {
            *value = round(sum.to_f64() / weight_sum);
        }
        T::write(&block[..sums.len()], bytes);
    }
}
