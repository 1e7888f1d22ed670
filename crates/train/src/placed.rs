//! A contribution in a file that is read a window at a time: where each tensor's values are, and in which form. The model's own file is one, too.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use safetensors::Dtype as FileDtype;

use crate::contribution::{Contribution, SCALE_SUFFIX};
use crate::encoding::Values;
use crate::frame::{f32s, Dtype, Layout, PlacedFrame, TensorSpec};
use crate::guard::{GuardError, GuardLimits};
use crate::header::{read_header, tensors_of, FileTensor};
use crate::limits::CHECK_WINDOW_BYTES;
use crate::norm::RunningNorm;
use crate::source::{Source, SourceError};
use crate::window::{read_ranges, Piece, Window, Windows};

/// In which form a tensor's values stand in the file; see [`crate::encoding`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Encoding {
    F64,
    F32,
    F16,
    Bf16,
    I8 {
        /// First byte of the scales in the file.
        scales_start: u64,
        /// How many there are.
        scales: usize,
        /// Elements that share one; at least 1.
        elements_per_scale: usize,
    },
}

impl Encoding {
    /// Bytes of one value.
    fn bytes(&self) -> u64 {
        match self {
            Self::F64 => 8,
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::I8 { .. } => 1,
        }
    }
}

/// Where one tensor's values are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// First byte of its data in the file.
    pub start: u64,
    /// How to read it.
    pub encoding: Encoding,
}

/// A contribution whose header is known.
#[derive(Debug, Clone)]
pub(crate) struct PlacedContribution {
    /// One for each tensor of the model, in canonical order. Equal for files with equal headers, which share it.
    places: Arc<Vec<Place>>,
}

impl PlacedContribution {
    /// Reads and checks what [`Contribution::parse`] checks, but for the data: size, names, shapes, dtypes, scales.
    pub(crate) fn read(model: &Layout, source: &dyn Source, bytes_max: u64) -> Result<Self, GuardError> {
        check_size(source, bytes_max)?;
        Self::of_header(model, &read_header(source)?, source)
    }

    /// The same by a header that was read from it.
    pub(crate) fn of_header(model: &Layout, header: &[u8], source: &dyn Source) -> Result<Self, GuardError> {
        let tensors = tensors_of(header, source.total_bytes())?;
        Ok(Self { places: Arc::new(places(model, tensors, source)?) })
    }

    /// By the places of another file with an equal header; only its scales are read.
    pub(crate) fn like(model: &Layout, other: &Self, source: &dyn Source) -> Result<Self, GuardError> {
        for (spec, place) in model.tensors().iter().zip(other.places.iter()) {
            check_scales(spec, place, source)?;
        }
        Ok(Self { places: other.places.clone() })
    }

    /// A frame with the model's very layout.
    pub(crate) fn of_frame(frame: &PlacedFrame) -> Self {
        let place = |(spec, start): (&TensorSpec, &u64)| Place {
            start: *start,
            encoding: match spec.dtype {
                Dtype::F64 => Encoding::F64,
                Dtype::F32 => Encoding::F32,
            },
        };
        Self { places: Arc::new(frame.layout.tensors().iter().zip(&frame.starts).map(place).collect()) }
    }

    /// One for each tensor of the model, in canonical order.
    pub(crate) fn places(&self) -> &[Place] {
        &self.places
    }

    /// The elements of a window as they were pushed, with `buffer` to hold their bytes. Error: the source.
    pub(crate) fn window<'b>(
        &self,
        window: &Window,
        source: &dyn Source,
        buffer: &'b mut Vec<u8>,
    ) -> Result<Contribution<'b>, SourceError> {
        let mut wanted = Vec::with_capacity(window.pieces.len());
        for Piece { tensor, elements } in &window.pieces {
            let Place { start, encoding } = &self.places[*tensor];
            let width = encoding.bytes();
            wanted.push(start + elements.start as u64 * width..start + elements.end as u64 * width);
            if let Encoding::I8 { scales_start, elements_per_scale, .. } = encoding {
                let rows = rows(elements, *elements_per_scale);
                wanted.push(scales_start + rows.start as u64 * 4..scales_start + rows.end as u64 * 4);
            }
        }
        let found = read_ranges(source, &wanted, buffer)?;
        let (mut found, buffer): (_, &'b [u8]) = (found.into_iter(), buffer);
        let mut next = move || &buffer[found.next().expect("a place for each range")];
        let values = window.pieces.iter().map(|Piece { tensor, elements }| match &self.places[*tensor].encoding {
            Encoding::F64 => Values::F64(next()),
            Encoding::F32 => Values::F32(next()),
            Encoding::F16 => Values::F16(next()),
            Encoding::Bf16 => Values::Bf16(next()),
            Encoding::I8 { elements_per_scale, .. } => Values::I8 {
                data: next(),
                scales: f32s(next()).collect(),
                before: elements.start % elements_per_scale,
                elements_per_scale: *elements_per_scale,
            },
        });
        Ok(Contribution::of_window(window.layout.clone(), values.collect()))
    }

    /// What [`Contribution::parse`] says of the data: finite after decoding, the norm within its limit. One pass where all is well.
    pub(crate) fn check_data(
        &self,
        model: &Layout,
        source: &dyn Source,
        norm_max: Option<f64>,
    ) -> Result<(), GuardError> {
        let norm = self.l2_norm(model, source)?;
        if !norm.is_finite() {
            // Of an element that is not, or of squares of F64 that leave its range: the second look says which.
            let mut buffer = Vec::new();
            for window in Windows::new(model, CHECK_WINDOW_BYTES / 8) {
                check_window_finite(&window, &self.window(&window, source, &mut buffer)?)?;
            }
        }
        check_norm(norm, norm_max)
    }

    /// [`Contribution::l2_norm`] of the whole, to the same bits. A pass over all of it.
    pub(crate) fn l2_norm(&self, model: &Layout, source: &dyn Source) -> Result<f64, SourceError> {
        let (mut norm, mut buffer) = (RunningNorm::default(), Vec::new());
        for window in Windows::new(model, CHECK_WINDOW_BYTES / 8) {
            let contribution = self.window(&window, source, &mut buffer)?;
            for (index, (piece, spec)) in window.pieces.iter().zip(window.layout.tensors()).enumerate() {
                match spec.dtype {
                    Dtype::F32 => contribution.f32_blocks(index, |_, values| norm.add(piece.tensor, values)),
                    Dtype::F64 => contribution.f64_blocks(index, |_, values| norm.add(piece.tensor, values)),
                }
            }
        }
        Ok(norm.norm())
    }
}

/// A norm within its limit.
pub(crate) fn check_norm(norm: f64, norm_max: Option<f64>) -> Result<(), GuardError> {
    match norm_max {
        Some(limit) if norm > limit => Err(GuardError::Norm { norm, limit }),
        Some(_) | None => Ok(()),
    }
}

/// Every element of a window is finite; the report numbers elements through the whole tensor.
pub(crate) fn check_window_finite(window: &Window, contribution: &Contribution<'_>) -> Result<(), GuardError> {
    contribution.check_finite(|index| window.pieces[index].elements.start)
}

/// [`crate::guard::check_contribution`], or for `encoded` [`Contribution::parse`], over a file that is read a window at a time.
pub fn check_contribution_source(
    model: &Layout,
    source: &dyn Source,
    limits: &GuardLimits,
    encoded: bool,
) -> Result<(), GuardError> {
    let placed = if encoded {
        PlacedContribution::read(model, source, limits.bytes_max)?
    } else {
        check_size(source, limits.bytes_max)?;
        let frame = PlacedFrame::read(source)?;
        crate::guard::check_layout(model, &frame.layout)?;
        PlacedContribution::of_frame(&frame)
    };
    placed.check_data(model, source, limits.norm_max)
}

/// [`crate::guard::check_model`] over a file that is read a window at a time. Gives its layout.
pub fn check_model_source(source: &dyn Source, limits: &GuardLimits) -> Result<Layout, GuardError> {
    let frame = read_model(source, limits)?;
    PlacedContribution::of_frame(&frame).check_data(&frame.layout, source, None)?;
    Ok(frame.layout)
}

/// The layout of a model that was checked before; its header alone is read.
pub fn model_layout(source: &dyn Source) -> Result<Layout, GuardError> {
    Ok(read_model(source, &GuardLimits::default())?.layout)
}

/// A model's header, within the limits.
pub(crate) fn read_model(source: &dyn Source, limits: &GuardLimits) -> Result<PlacedFrame, GuardError> {
    check_size(source, limits.bytes_max)?;
    let frame = PlacedFrame::read(source)?;
    if frame.layout.tensors().is_empty() {
        return Err(GuardError::Empty);
    }
    Ok(frame)
}

/// The size of a file, before anything of it is read.
pub(crate) fn check_size(source: &dyn Source, bytes_max: u64) -> Result<(), GuardError> {
    let bytes = source.total_bytes();
    if bytes > bytes_max {
        return Err(GuardError::TooLarge { bytes, limit: bytes_max });
    }
    Ok(())
}

/// Rows of scales that some elements use.
fn rows(elements: &Range<usize>, elements_per_scale: usize) -> Range<usize> {
    if elements.is_empty() {
        return 0..0;
    }
    elements.start / elements_per_scale..(elements.end - 1) / elements_per_scale + 1
}

/// Each of the model's tensors in the file, in canonical order; the first fault in order of names is the one reported.
fn places(model: &Layout, tensors: Vec<FileTensor>, source: &dyn Source) -> Result<Vec<Place>, GuardError> {
    let mut file: BTreeMap<String, FileTensor> =
        tensors.into_iter().map(|tensor| (tensor.name.clone(), tensor)).collect();
    let mut by_name: Vec<(usize, &TensorSpec)> = model.tensors().iter().enumerate().collect();
    by_name.sort_by(|left, right| left.1.name.cmp(&right.1.name));
    let mut places: Vec<Option<Place>> = vec![None; by_name.len()];
    for (index, spec) in by_name {
        let tensor = file.remove(&spec.name).ok_or_else(|| GuardError::Missing(spec.name.clone()))?;
        if tensor.shape != spec.shape {
            let (name, expected) = (spec.name.clone(), spec.shape.clone());
            return Err(GuardError::Shape { tensor: name, found: tensor.shape, expected });
        }
        let encoding = match (spec.dtype, tensor.dtype) {
            (Dtype::F64, FileDtype::F64) => Encoding::F64,
            (Dtype::F32, FileDtype::F32) => Encoding::F32,
            (Dtype::F32, FileDtype::F16) => Encoding::F16,
            (Dtype::F32, FileDtype::BF16) => Encoding::Bf16,
            (Dtype::F32, FileDtype::I8) => quantised(spec, file.remove(&format!("{}{SCALE_SUFFIX}", spec.name)))?,
            (expected, found) => {
                let (tensor, found) = (spec.name.clone(), found.to_string());
                return Err(GuardError::Encoding { tensor, found, expected: expected.name() });
            }
        };
        let place = Place { start: tensor.start, encoding };
        check_scales(spec, &place, source)?;
        places[index] = Some(place);
    }
    if let Some(name) = file.into_keys().next() {
        return Err(GuardError::Unknown(name));
    }
    Ok(places.into_iter().map(|place| place.expect("each tensor was found")).collect())
}

fn quantised(spec: &TensorSpec, scale: Option<FileTensor>) -> Result<Encoding, GuardError> {
    let refused = |cause| GuardError::Scale { tensor: spec.name.clone(), cause };
    let scale = scale.ok_or_else(|| refused("is missing"))?;
    if scale.dtype != FileDtype::F32 {
        return Err(refused("is not F32"));
    }
    let per_first_axis = spec.shape.first().is_some_and(|first| scale.shape == [*first]);
    if !scale.shape.is_empty() && !per_first_axis {
        return Err(refused("has neither shape [] nor one for each index of the first axis"));
    }
    let (elements, scales) = (spec.elements(), scale.shape.iter().product::<usize>());
    // A tensor without elements has maybe no scale either; 1 keeps the division defined.
    let elements_per_scale = if scale.shape.is_empty() { elements } else { elements / scales.max(1) }.max(1);
    Ok(Encoding::I8 { scales_start: scale.start, scales, elements_per_scale })
}

/// The scales of a tensor, if it has any: a part of them at a time, since there may be as many as elements.
fn check_scales(spec: &TensorSpec, place: &Place, source: &dyn Source) -> Result<(), GuardError> {
    let Encoding::I8 { scales_start, scales, .. } = &place.encoding else { return Ok(()) };
    let mut buffer = Vec::new();
    let (mut at, end) = (*scales_start, scales_start + *scales as u64 * 4);
    while at < end {
        let bytes = (end - at).min(CHECK_WINDOW_BYTES as u64);
        buffer.resize(bytes as usize, 0);
        source.read_at(at, &mut buffer)?;
        if f32s(&buffer).any(|scale| !(scale >= 0.0 && (128.0 * scale).is_finite())) {
            let cause = "is negative or not finite, or 128 times it is not";
            return Err(GuardError::Scale { tensor: spec.name.clone(), cause });
        }
        at += bytes;
    }
    Ok(())
}
