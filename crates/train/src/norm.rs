//! Sums over elements in one fixed tree, whatever the width of the processor's vectors.
//!
//! Each tensor is cut into blocks of 4,096 elements. In a block, element i is added to lane i mod 16, in rising i, in f64; the lanes are
//! folded in halves (lane j += lane j + 8, then + 4, + 2, + 1); blocks are added in order, tensors in canonical order.

use crate::element::{for_blocks, Element};
use crate::frame::{Dtype, TensorSpec};
use crate::limits::{BLOCK_ELEMENTS, NORM_BLOCK_ELEMENTS, NORM_LANES};

/// The tree over the elements of one tensor, which come in order.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TreeSum {
    total: f64,
    lanes: [f64; NORM_LANES],
    in_block: usize,
}

impl Default for TreeSum {
    fn default() -> Self {
        Self { total: 0.0, lanes: [0.0; NORM_LANES], in_block: 0 }
    }
}

impl TreeSum {
    /// One element.
    fn add(&mut self, value: f64) {
        self.lanes[self.in_block % NORM_LANES] += value;
        self.in_block += 1;
        self.end_block();
    }

    /// The squares, taken in f64, of the next elements, however many.
    pub(crate) fn add_squares<E: Element>(&mut self, values: &[E]) {
        let square = |value: &E| value.to_f64() * value.to_f64();
        // A window may have ended anywhere: one by one up to lane 0. Blocks within a tensor begin there.
        let unaligned = (NORM_LANES - self.in_block % NORM_LANES) % NORM_LANES;
        let (first, mut rest) = values.split_at(unaligned.min(values.len()));
        first.iter().for_each(|value| self.add(square(value)));
        while !rest.is_empty() {
            let (block, later) = rest.split_at(rest.len().min(NORM_BLOCK_ELEMENTS - self.in_block));
            let whole = block.chunks_exact(NORM_LANES);
            let last = whole.remainder();
            for chunk in whole {
                for (lane, value) in self.lanes.iter_mut().zip(chunk) {
                    *lane += square(value);
                }
            }
            for (lane, value) in self.lanes.iter_mut().zip(last) {
                *lane += square(value);
            }
            self.in_block += block.len();
            self.end_block();
            rest = later;
        }
    }

    fn end_block(&mut self) {
        if self.in_block == NORM_BLOCK_ELEMENTS {
            self.total += fold(self.lanes);
            self.lanes = [0.0; NORM_LANES];
            self.in_block = 0;
        }
    }

    /// The sum.
    pub(crate) fn total(mut self) -> f64 {
        if self.in_block > 0 {
            self.total += fold(self.lanes);
        }
        self.total
    }
}

/// Sum of the values, in the fixed tree of one tensor.
pub fn tree_sum(values: impl Iterator<Item = f64>) -> f64 {
    let mut sum = TreeSum::default();
    values.for_each(|value| sum.add(value));
    sum.total()
}

fn fold(mut lanes: [f64; NORM_LANES]) -> f64 {
    let mut width = NORM_LANES / 2;
    while width > 0 {
        for lane in 0..width {
            lanes[lane] += lanes[lane + width];
        }
        width /= 2;
    }
    lanes[0]
}

/// Euclidean norm over all elements of the tensors given, which stand in canonical order, in f64. Infinite if the squares leave f64's range.
pub fn l2_norm<'a>(tensors: impl Iterator<Item = (&'a TensorSpec, &'a [u8])>) -> f64 {
    let mut total = 0.0_f64;
    for (spec, data) in tensors {
        total += match spec.dtype {
            Dtype::F32 => sum_of_squares::<f32>(data),
            Dtype::F64 => sum_of_squares::<f64>(data),
        };
    }
    total.sqrt()
}

fn sum_of_squares<E: Element>(data: &[u8]) -> f64 {
    let mut sum = TreeSum::default();
    let mut block = [E::ZERO; BLOCK_ELEMENTS];
    for_blocks(data.len() / E::BYTES, |elements| {
        let block = &mut block[..elements.len()];
        E::read(&data[elements.start * E::BYTES..elements.end * E::BYTES], block);
        sum.add_squares(block);
    });
    sum.total()
}

/// The norm of elements that come in order, a part of a tensor at a time: the same bits as [`l2_norm`] over all of them.
#[derive(Debug, Default)]
pub(crate) struct RunningNorm {
    total: f64,
    tensor: Option<usize>,
    sum: TreeSum,
}

impl RunningNorm {
    /// The next elements, of tensor `tensor`. Tensors come in canonical order.
    pub(crate) fn add<E: Element>(&mut self, tensor: usize, values: &[E]) {
        if self.tensor != Some(tensor) {
            self.total += std::mem::take(&mut self.sum).total();
            self.tensor = Some(tensor);
        }
        self.sum.add_squares(values);
    }

    /// Of all that came.
    pub(crate) fn norm(self) -> f64 {
        (self.total + self.sum.total()).sqrt()
    }
}
