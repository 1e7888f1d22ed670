//! A contribution: what one shard pushed, with the names and shapes of the model, maybe in a smaller dtype, maybe clipped.
//!
//! Means and order statistics read contributions a block of elements at a time, so an encoded one is never decoded as a whole.
//!
//! Clipping (Pascanu, Mikolov and Bengio, "On the difficulty of training recurrent neural networks", ICML 2013; per contribution as in McMahan
//! et al., "Learning Differentially Private Recurrent Language Models", ICLR 2018): with the Euclidean norm N over all elements after
//! decoding, in the fixed tree of [`crate::norm`], and the limit C,
//!
//! ```text
//! N ≤ C:  g stays as it is, bit for bit
//! N > C:  f := C / N in f64;  g[i] := round_T(round_64(f · g[i]))
//! ```
//!
//! f is below 1 and rounding is monotone, so no element grows, and no norm does. A norm beyond f64's range gives f = 0.

use std::ops::Range;
use std::sync::Arc;

use crate::element::for_blocks;
use crate::encoding::Values;
use crate::frame::{f32s, slice_of, Dtype, Frame, Layout};
use crate::guard::{check_layout, GuardError, GuardLimits};
use crate::limits::BLOCK_ELEMENTS;
use crate::norm::TreeSum;
use crate::placed::{check_norm, Encoding, PlacedContribution};

/// Stands after the name of an I8 tensor in the name of its scale.
pub const SCALE_SUFFIX: &str = "/scale";

/// One shard's contribution to a round.
#[derive(Debug, Clone)]
pub struct Contribution<'a> {
    layout: Arc<Layout>,
    values: Vec<Values<'a>>,
    /// None: as pushed.
    factor: Option<f64>,
}

impl<'a> Contribution<'a> {
    /// Reads and checks a file against the model's layout: the same names and shapes; of each tensor the model's dtype, or for an F32 tensor F16,
    /// BF16 or I8 with a scale (see [`crate::encoding`]); finite after decoding; within the limits. The norm limit is on decoded values.
    pub fn parse(model: &Layout, bytes: &'a [u8], limits: &GuardLimits) -> Result<Self, GuardError> {
        let placed = PlacedContribution::read(model, &bytes, limits.bytes_max)?;
        let values = placed.places().iter().zip(model.tensors()).map(|(place, spec)| {
            let data = |width: usize| slice_of(bytes, place.start, spec.elements() * width);
            match &place.encoding {
                Encoding::F64 => Values::F64(data(8)),
                Encoding::F32 => Values::F32(data(4)),
                Encoding::F16 => Values::F16(data(2)),
                Encoding::Bf16 => Values::Bf16(data(2)),
                Encoding::I8 { scales_start, scales, elements_per_scale } => Values::I8 {
                    data: data(1),
                    scales: f32s(slice_of(bytes, *scales_start, scales * 4)).collect(),
                    before: 0,
                    elements_per_scale: *elements_per_scale,
                },
            }
        });
        let contribution = Self { layout: Arc::new(model.clone()), values: values.collect(), factor: None };
        let norm = contribution.l2_norm();
        if !norm.is_finite() {
            // Of an element that is not, or of squares of F64 that leave its range.
            contribution.check_finite(|_| 0)?;
        }
        check_norm(norm, limits.norm_max)?;
        Ok(contribution)
    }

    /// One that is not encoded and was checked already. Error: other tensors than the model's.
    pub fn of_frame(model: &Layout, frame: &Frame<'a>) -> Result<Self, GuardError> {
        check_layout(model, frame.layout())?;
        let values = frame.tensors().map(|(spec, data)| match spec.dtype {
            Dtype::F32 => Values::F32(data),
            Dtype::F64 => Values::F64(data),
        });
        Ok(Self { layout: Arc::new(model.clone()), values: values.collect(), factor: None })
    }

    /// Some elements of one, which `layout` describes as tensors of their own.
    pub(crate) fn of_window(layout: Arc<Layout>, values: Vec<Values<'a>>) -> Self {
        Self { layout, values, factor: None }
    }

    /// Multiplied with what [`clipping_factor`] gave for the whole.
    pub(crate) fn scaled(self, factor: Option<f64>) -> Self {
        Self { factor, ..self }
    }

    /// The bytes of tensor `index` of one that is not encoded.
    pub(crate) fn raw(&self, index: usize) -> &'a [u8] {
        match &self.values[index] {
            Values::F64(data) | Values::F32(data) => data,
            Values::F16(_) | Values::Bf16(_) | Values::I8 { .. } => unreachable!("a model is never encoded"),
        }
    }

    /// The model's layout: dtypes are those after decoding.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Euclidean norm over all elements, decoded and clipped, in the fixed tree of [`crate::norm`], in f64.
    pub fn l2_norm(&self) -> f64 {
        let mut total = 0.0_f64;
        for (index, spec) in self.layout.tensors().iter().enumerate() {
            let mut sum = TreeSum::default();
            match spec.dtype {
                Dtype::F32 => self.f32_blocks(index, |_, values| sum.add_squares(values)),
                Dtype::F64 => self.f64_blocks(index, |_, values| sum.add_squares(values)),
            }
            total += sum.total();
        }
        total.sqrt()
    }

    /// The same, scaled down to `norm_max` if its norm is above that. `norm_max`: above 0. Needs a pass over the whole contribution, also where a
    /// caller goes over a model in windows: it keeps the clipped contribution, or asks again.
    #[must_use]
    pub fn clipped(mut self, norm_max: f64) -> Self {
        let norm = self.l2_norm();
        if let Some(factor) = clipping_factor(norm, norm_max) {
            self.factor = Some(self.factor.unwrap_or(1.0) * factor);
        }
        self
    }

    /// The decoded and clipped elements of a range, numbered through the model's tensors in canonical order, each little-endian in its
    /// tensor's dtype. The whole range gives the data of the frame that would have the same effect.
    pub fn decode(&self, range: Range<usize>) -> Vec<u8> {
        let mut data = Vec::new();
        let mut first = 0;
        for (index, spec) in self.layout.tensors().iter().enumerate() {
            let end = first + spec.elements();
            let (from, to) = (range.start.max(first), range.end.min(end));
            if from < to {
                for element in from - first..to - first {
                    match spec.dtype {
                        Dtype::F32 => {
                            let mut value = [0.0_f32];
                            self.read_f32(index, element..element + 1, &mut value);
                            data.extend(value[0].to_le_bytes());
                        }
                        Dtype::F64 => {
                            let mut value = [0.0_f64];
                            self.read_f64(index, element..element + 1, &mut value);
                            data.extend(value[0].to_le_bytes());
                        }
                    }
                }
            }
            first = end;
        }
        data
    }

    /// Elements of F32 tensor `index`.
    pub(crate) fn read_f32(&self, index: usize, elements: Range<usize>, out: &mut [f32]) {
        self.values[index].read_f32(elements, out);
        if let Some(factor) = self.factor {
            for value in out {
                *value = (factor * f64::from(*value)) as f32;
            }
        }
    }

    /// Elements of F64 tensor `index`.
    pub(crate) fn read_f64(&self, index: usize, elements: Range<usize>, out: &mut [f64]) {
        self.values[index].read_f64(elements, out);
        if let Some(factor) = self.factor {
            for value in out {
                *value *= factor;
            }
        }
    }

    /// Calls `each` for the elements of F32 tensor `index` in order, a block at a time, with the number of the first.
    pub(crate) fn f32_blocks(&self, index: usize, mut each: impl FnMut(usize, &[f32])) {
        let mut block = [0.0_f32; BLOCK_ELEMENTS];
        for_blocks(self.layout.tensors()[index].elements(), |elements| {
            let (start, block) = (elements.start, &mut block[..elements.len()]);
            self.read_f32(index, elements, block);
            each(start, block);
        });
    }

    /// The same for an F64 tensor.
    pub(crate) fn f64_blocks(&self, index: usize, mut each: impl FnMut(usize, &[f64])) {
        let mut block = [0.0_f64; BLOCK_ELEMENTS];
        for_blocks(self.layout.tensors()[index].elements(), |elements| {
            let (start, block) = (elements.start, &mut block[..elements.len()]);
            self.read_f64(index, elements, block);
            each(start, block);
        });
    }

    /// Every element is finite. `before(tensor)`: elements of the whole tensor before those
    /// that are here.
    pub(crate) fn check_finite(&self, before: impl Fn(usize) -> usize) -> Result<(), GuardError> {
        for (index, spec) in self.layout.tensors().iter().enumerate() {
            let mut bad: Option<(usize, f64)> = None;
            let mut note = |element: usize, value: f64| bad = bad.or(Some((element, value)));
            // Most blocks have nothing wrong: the first loop has no branch, the second is for the report.
            match spec.dtype {
                Dtype::F32 => self.f32_blocks(index, |start, values| {
                    if !values.iter().fold(true, |finite, value| finite & value.is_finite()) {
                        let found = values.iter().enumerate().find(|(_, value)| !value.is_finite());
                        found.into_iter().for_each(|(at, value)| note(start + at, f64::from(*value)));
                    }
                }),
                Dtype::F64 => self.f64_blocks(index, |start, values| {
                    if !values.iter().fold(true, |finite, value| finite & value.is_finite()) {
                        let found = values.iter().enumerate().find(|(_, value)| !value.is_finite());
                        found.into_iter().for_each(|(at, value)| note(start + at, *value));
                    }
                }),
            }
            if let Some((element, value)) = bad {
                return Err(GuardError::NotFinite {
                    tensor: spec.name.clone(),
                    element: before(index) + element,
                    value,
                });
            }
        }
        Ok(())
    }
}

/// What elements are multiplied with so that a norm comes down to `norm_max`; None: it is not above that.
pub(crate) fn clipping_factor(norm: f64, norm_max: f64) -> Option<f64> {
    (norm > norm_max).then(|| norm_max / norm)
}
