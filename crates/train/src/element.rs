//! An element of a tensor: f32 or f64, in memory and as little-endian bytes.
//!
//! Arithmetic that is the same in both widths is written once over [`Element`]. Bytes become numbers a block at a time
//! ([`BLOCK_ELEMENTS`] of them, on the stack), which leaves plain loops over slices that a compiler turns into vector instructions; since
//! each element is computed by itself, the width of the vectors cannot enter a result.

use std::ops::{Add, Div, Mul, Sub};

use crate::limits::BLOCK_ELEMENTS;

/// f32 or f64. Every operation rounds to this type by itself, to nearest, ties to even.
pub(crate) trait Element:
    Copy + PartialEq + Add<Output = Self> + Sub<Output = Self> + Mul<Output = Self> + Div<Output = Self>
{
    /// Bytes of one.
    const BYTES: usize;
    /// +0.
    const ZERO: Self;
    /// Rounded once.
    fn from_f64(value: f64) -> Self;
    /// Exact.
    fn to_f64(self) -> f64;
    /// Correctly rounded, as IEEE 754 wants it.
    fn sqrt(self) -> Self;
    /// `out.len()` elements from as many times [`Element::BYTES`] bytes.
    fn read(bytes: &[u8], out: &mut [Self]);
    /// The inverse.
    fn write(values: &[Self], out: &mut [u8]);
}

macro_rules! element {
    ($float:ty, $bytes:literal) => {
        impl Element for $float {
            const BYTES: usize = $bytes;
            const ZERO: Self = 0.0;
            fn from_f64(value: f64) -> Self {
                value as $float
            }
            fn to_f64(self) -> f64 {
                f64::from(self)
            }
            fn sqrt(self) -> Self {
                <$float>::sqrt(self)
            }
            fn read(bytes: &[u8], out: &mut [Self]) {
                assert_eq!(bytes.len(), out.len() * $bytes, "bytes and elements belong together");
                for (value, bytes) in out.iter_mut().zip(bytes.chunks_exact($bytes)) {
                    *value = <$float>::from_le_bytes(bytes.try_into().expect("chunks of that size"));
                }
            }
            fn write(values: &[Self], out: &mut [u8]) {
                assert_eq!(out.len(), values.len() * $bytes, "bytes and elements belong together");
                for (value, bytes) in values.iter().zip(out.chunks_exact_mut($bytes)) {
                    bytes.copy_from_slice(&value.to_le_bytes());
                }
            }
        }
    };
}

element!(f32, 4);
element!(f64, 8);

/// Calls `each` for the blocks of `count` elements in order: with the range of elements.
pub(crate) fn for_blocks(count: usize, mut each: impl FnMut(std::ops::Range<usize>)) {
    let mut start = 0;
    while start < count {
        let end = count.min(start + BLOCK_ELEMENTS);
        each(start..end);
        start = end;
    }
}
