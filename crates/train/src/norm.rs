//! Sums over elements in one fixed tree, whatever the width of the processor's vectors.
//!
//! Each tensor is cut into blocks of 4,096 elements. In a block, element i is added to lane i mod 16, in rising i, in f64; the lanes are
//! folded in halves (lane j += lane j + 8, then + 4, + 2, + 1); blocks are added in order, tensors in canonical order.

use crate::frame::{f32s, f64s, Dtype, TensorSpec};
use crate::limits::{NORM_BLOCK_ELEMENTS, NORM_LANES};

/// Sum of the values, in the fixed tree of one tensor.
pub fn tree_sum(values: impl Iterator<Item = f64>) -> f64 {
    let mut total = 0.0_f64;
    let mut lanes = [0.0_f64; NORM_LANES];
    let mut in_block = 0_usize;
    for value in values {
        lanes[in_block % NORM_LANES] += value;
        in_block += 1;
        if in_block == NORM_BLOCK_ELEMENTS {
            total += fold(lanes);
            lanes = [0.0; NORM_LANES];
            in_block = 0;
        }
    }
    if in_block > 0 {
        total += fold(lanes);
    }
    total
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
            Dtype::F32 => tree_sum(f32s(data).map(|value| f64::from(value) * f64::from(value))),
            Dtype::F64 => tree_sum(f64s(data).map(|value| value * value)),
        };
    }
    total.sqrt()
}
