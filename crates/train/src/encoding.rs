//! Element types that a contribution may have on its way, and how they become f32.
//!
//! | safetensors dtype | value | |
//! |---|---|---|
//! | `F16` | IEEE 754 binary16 | exact in f32 |
//! | `BF16` | upper half of a binary32 | exact in f32 |
//! | `I8` | `f32(q) · scale` | one product, rounded to f32 |
//!
//! The scale of an I8 tensor `NAME` is a tensor `NAME/scale` of F32 in the same file: of shape `[]`, one for the whole tensor, or of shape
//! `[n]`, where n is the first dimension of `NAME`: one for each index of the first axis (a row of a matrix, an output channel). Scales are
//! finite, not negative, and small enough that 128 times them is finite. There is no zero point: gradients are about 0.
//!
//! Models, states and sums are never encoded: [`crate::Dtype`] has F32 and F64 only, and an encoded tensor must be for an F32 one.

use std::ops::Range;

use crate::element::Element;

/// The data of one tensor of a contribution, or of some elements of it. Lengths were checked against the shape when it was made.
#[derive(Debug, Clone)]
pub(crate) enum Values<'a> {
    /// For an F64 tensor.
    F64(&'a [u8]),
    /// As the model has it.
    F32(&'a [u8]),
    /// Half precision.
    F16(&'a [u8]),
    /// Brain float.
    Bf16(&'a [u8]),
    /// Quantised.
    I8 {
        /// Two's complement.
        data: &'a [u8],
        /// Those that the elements use, in order.
        scales: Vec<f32>,
        /// Elements before these that share the first scale.
        before: usize,
        /// Elements that share a scale; at least 1.
        elements_per_scale: usize,
    },
}

impl Values<'_> {
    /// Elements `elements` as f32. Must not be asked of an F64 tensor.
    pub(crate) fn read_f32(&self, elements: Range<usize>, out: &mut [f32]) {
        assert_eq!(elements.len(), out.len(), "a place for each element");
        match self {
            Self::F64(_) => unreachable!("an F64 tensor is read as f64"),
            Self::F32(data) => f32::read(&data[elements.start * 4..elements.end * 4], out),
            Self::F16(data) => widen(&data[elements.start * 2..elements.end * 2], out, f16_to_f32),
            Self::Bf16(data) => widen(&data[elements.start * 2..elements.end * 2], out, bf16_to_f32),
            Self::I8 { data, scales, before, elements_per_scale } => {
                let (mut start, mut rest) = (elements.start, out);
                while start < elements.end {
                    let row = (before + start) / elements_per_scale;
                    let end = elements.end.min((row + 1) * elements_per_scale - before);
                    let (part, tail) = rest.split_at_mut(end - start);
                    for (value, byte) in part.iter_mut().zip(&data[start..end]) {
                        *value = f32::from(i8::from_le_bytes([*byte])) * scales[row];
                    }
                    (start, rest) = (end, tail);
                }
            }
        }
    }

    /// Elements `elements` of an F64 tensor.
    pub(crate) fn read_f64(&self, elements: Range<usize>, out: &mut [f64]) {
        match self {
            Self::F64(data) => f64::read(&data[elements.start * 8..elements.end * 8], out),
            Self::F32(_) | Self::F16(_) | Self::Bf16(_) | Self::I8 { .. } => {
                unreachable!("only an F64 tensor is read as f64")
            }
        }
    }
}

/// Little-endian values of 16 bits.
fn widen(bytes: &[u8], out: &mut [f32], convert: impl Fn(u16) -> f32) {
    for (value, bytes) in out.iter_mut().zip(bytes.chunks_exact(2)) {
        *value = convert(u16::from_le_bytes(bytes.try_into().expect("chunks of two bytes")));
    }
}

/// Exact; infinities stay, and a NaN stays one. Both cases are computed and one is taken: no branch, so a loop of it becomes vector code.
pub fn f16_to_f32(half: u16) -> f32 {
    let magnitude = u32::from(half & 0x7fff);
    // Normal: the exponent's bias becomes 127 instead of 15. Infinity and NaN: an exponent of all ones.
    let not_finite = u32::from(magnitude >= 0x7c00) * 0x7f80_0000;
    let normal = ((magnitude << 13) + ((127 - 15) << 23)) | not_finite;
    // Subnormal: a multiple of 2^-24, exact as any integer below 2^24 and as its product with a power of two.
    let subnormal = (magnitude as f32 * f32::from_bits((127 - 24) << 23)).to_bits();
    let bits = if magnitude < 0x0400 { subnormal } else { normal };
    f32::from_bits(bits | (u32::from(half & 0x8000) << 16))
}

/// Exact.
pub fn bf16_to_f32(brain: u16) -> f32 {
    f32::from_bits(u32::from(brain) << 16)
}
