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

use std::collections::BTreeMap;
use std::ops::Range;

use safetensors::Dtype as FileDtype;

use crate::element::for_blocks;
use crate::encoding::Values;
use crate::frame::{f32s, file_tensors, Dtype, FileTensor, Frame, Layout, TensorSpec};
use crate::guard::{check_layout, check_size, GuardError, GuardLimits};
use crate::limits::BLOCK_ELEMENTS;
use crate::norm::TreeSum;

/// Stands after the name of an I8 tensor in the name of its scale.
pub const SCALE_SUFFIX: &str = "/scale";

/// One shard's contribution to a round.
#[derive(Debug, Clone)]
pub struct Contribution<'a> {
    layout: Layout,
    values: Vec<Values<'a>>,
    /// None: as pushed.
    factor: Option<f64>,
}

impl<'a> Contribution<'a> {
    /// Reads and checks a file against the model's layout: the same names and shapes; of each tensor the model's dtype, or for an F32 tensor F16,
    /// BF16 or I8 with a scale (see [`crate::encoding`]); finite after decoding; within the limits. The norm limit is on decoded values.
    pub fn parse(model: &Layout, bytes: &'a [u8], limits: &GuardLimits) -> Result<Self, GuardError> {
        check_size(bytes, limits)?;
        let mut file: BTreeMap<String, FileTensor<'a>> =
            file_tensors(bytes)?.into_iter().map(|tensor| (tensor.name.clone(), tensor)).collect();
        let mut by_name: Vec<(usize, &TensorSpec)> = model.tensors().iter().enumerate().collect();
        by_name.sort_by(|left, right| left.1.name.cmp(&right.1.name));
        let mut values: Vec<Option<Values<'a>>> = vec![None; by_name.len()];
        for (index, spec) in by_name {
            let tensor = file.remove(&spec.name).ok_or_else(|| GuardError::Missing(spec.name.clone()))?;
            if tensor.shape != spec.shape {
                let (name, expected) = (spec.name.clone(), spec.shape.clone());
                return Err(GuardError::Shape { tensor: name, found: tensor.shape, expected });
            }
            let scale_name = format!("{}{SCALE_SUFFIX}", spec.name);
            values[index] = Some(match (spec.dtype, tensor.dtype) {
                (Dtype::F64, FileDtype::F64) => Values::F64(tensor.data),
                (Dtype::F32, FileDtype::F32) => Values::F32(tensor.data),
                (Dtype::F32, FileDtype::F16) => Values::F16(tensor.data),
                (Dtype::F32, FileDtype::BF16) => Values::Bf16(tensor.data),
                (Dtype::F32, FileDtype::I8) => quantised(spec, tensor.data, file.remove(&scale_name))?,
                (expected, found) => {
                    let (tensor, found) = (spec.name.clone(), found.to_string());
                    return Err(GuardError::Encoding { tensor, found, expected: expected.name() });
                }
            });
        }
        if let Some(name) = file.into_keys().next() {
            return Err(GuardError::Unknown(name));
        }
        let values = values.into_iter().map(|values| values.expect("each tensor was found")).collect();
        let contribution = Self { layout: model.clone(), values, factor: None };
        contribution.check_finite()?;
        if let Some(limit) = limits.norm_max {
            let norm = contribution.l2_norm();
            if norm > limit {
                return Err(GuardError::Norm { norm, limit });
            }
        }
        Ok(contribution)
    }

    /// One that is not encoded and was checked already. Error: other tensors than the model's.
    pub fn of_frame(model: &Layout, frame: &Frame<'a>) -> Result<Self, GuardError> {
        check_layout(model, frame.layout())?;
        let values = frame.tensors().map(|(spec, data)| match spec.dtype {
            Dtype::F32 => Values::F32(data),
            Dtype::F64 => Values::F64(data),
        });
        Ok(Self { layout: model.clone(), values: values.collect(), factor: None })
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
        if norm > norm_max {
            self.factor = Some(self.factor.unwrap_or(1.0) * (norm_max / norm));
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

    fn f32_blocks(&self, index: usize, mut each: impl FnMut(usize, &[f32])) {
        let mut block = [0.0_f32; BLOCK_ELEMENTS];
        for_blocks(self.layout.tensors()[index].elements(), |elements| {
            let (start, block) = (elements.start, &mut block[..elements.len()]);
            self.read_f32(index, elements, block);
            each(start, block);
        });
    }

    fn f64_blocks(&self, index: usize, mut each: impl FnMut(usize, &[f64])) {
        let mut block = [0.0_f64; BLOCK_ELEMENTS];
        for_blocks(self.layout.tensors()[index].elements(), |elements| {
            let (start, block) = (elements.start, &mut block[..elements.len()]);
            self.read_f64(index, elements, block);
            each(start, block);
        });
    }

    fn check_finite(&self) -> Result<(), GuardError> {
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
                return Err(GuardError::NotFinite { tensor: spec.name.clone(), element, value });
            }
        }
        Ok(())
    }
}

fn quantised<'a>(spec: &TensorSpec, data: &'a [u8], scale: Option<FileTensor<'a>>) -> Result<Values<'a>, GuardError> {
    let refused = |cause| GuardError::Scale { tensor: spec.name.clone(), cause };
    let scale = scale.ok_or_else(|| refused("is missing"))?;
    if scale.dtype != FileDtype::F32 {
        return Err(refused("is not F32"));
    }
    let per_first_axis = spec.shape.first().is_some_and(|first| scale.shape == [*first]);
    if !scale.shape.is_empty() && !per_first_axis {
        return Err(refused("has neither shape [] nor one for each index of the first axis"));
    }
    let scales: Vec<f32> = f32s(scale.data).collect();
    if scales.iter().any(|scale| !(*scale >= 0.0 && (128.0 * scale).is_finite())) {
        return Err(refused("is negative or not finite, or 128 times it is not"));
    }
    let elements = spec.elements();
    // A tensor without elements has maybe no scale either; 1 keeps the division defined.
    let elements_per_scale = if scale.shape.is_empty() { elements } else { elements / scales.len().max(1) }.max(1);
    Ok(Values::I8 { data, scales, elements_per_scale })
}
