//! What a contribution must be before it is accepted, and a model before it is committed.
//!
//! Pure predicates over bytes: the caller turns a [`GuardError`] into REJECTED with its text as the reason.

use crate::frame::{f32s, f64s, Dtype, Frame, FrameError, Layout};
use crate::limits::{BLOCK_ELEMENTS, FRAME_BYTES_MAX};
use crate::norm::l2_norm;
use crate::placed::check_size;
use crate::source::SourceError;

/// Limits of a contribution.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GuardLimits {
    /// Most bytes of the file.
    pub bytes_max: u64,
    /// Largest Euclidean norm over all elements; None: any finite one.
    pub norm_max: Option<f64>,
}

impl Default for GuardLimits {
    fn default() -> Self {
        Self { bytes_max: FRAME_BYTES_MAX, norm_max: None }
    }
}

/// Why a contribution or a model is refused. The same bytes are refused always, but where they could not be read.
#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    /// Not a frame.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// Too many bytes.
    #[error("{bytes} bytes, the limit is {limit}")]
    TooLarge {
        /// Size of the file.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// A model without tensors.
    #[error("the model has no tensors")]
    Empty,
    /// The model has a tensor that the contribution lacks.
    #[error("tensor `{0}` is missing: the model has it")]
    Missing(String),
    /// The contribution has a tensor that the model lacks.
    #[error("tensor `{0}` is unknown: the model does not have it")]
    Unknown(String),
    /// Another dtype.
    #[error("tensor `{tensor}` has dtype {found}, the model's has {expected}")]
    Dtype {
        /// Its name.
        tensor: String,
        /// In the contribution.
        found: &'static str,
        /// In the model.
        expected: &'static str,
    },
    /// A dtype that a contribution to such a tensor cannot have.
    #[error("tensor `{tensor}` has dtype {found}, the model's has {expected}; for F32, F16, BF16 and I8 with a scale are taken too")]
    Encoding {
        /// Its name.
        tensor: String,
        /// In the contribution.
        found: String,
        /// In the model.
        expected: &'static str,
    },
    /// The scale of an I8 tensor.
    #[error("the scale of tensor `{tensor}` {cause}")]
    Scale {
        /// The tensor's name.
        tensor: String,
        /// What is wrong.
        cause: &'static str,
    },
    /// Another shape.
    #[error("tensor `{tensor}` has shape {found:?}, the model's has {expected:?}")]
    Shape {
        /// Its name.
        tensor: String,
        /// In the contribution.
        found: Vec<usize>,
        /// In the model.
        expected: Vec<usize>,
    },
    /// NaN or infinity.
    #[error("tensor `{tensor}` is not finite: element {element} is {value}")]
    NotFinite {
        /// Its name.
        tensor: String,
        /// Row-major number of the first such element.
        element: usize,
        /// NaN, inf or -inf.
        value: f64,
    },
    /// Norm over the limit.
    #[error("the norm is {norm}, the limit is {limit}")]
    Norm {
        /// Euclidean norm over all elements.
        norm: f64,
        /// The limit.
        limit: f64,
    },
    /// A weight that is no positive number.
    #[error("the weight is {0}: it must be finite and not negative")]
    Weight(f64),
    /// The bytes themselves: nothing is known of what they are.
    #[error(transparent)]
    Source(#[from] SourceError),
}

impl GuardError {
    /// The trouble with the bytes themselves, if it is that: then nothing was judged.
    pub fn source_error(&self) -> Option<&SourceError> {
        if let Self::Source(error) | Self::Frame(FrameError::Source(error)) = self {
            return Some(error);
        }
        None
    }
}

/// The weight that counts: 0, which is what a client that knows no weights sends, is 1. Error: negative or not finite.
pub fn effective_weight(weight: f64) -> Result<f64, GuardError> {
    if !weight.is_finite() || weight < 0.0 {
        return Err(GuardError::Weight(weight));
    }
    Ok(if weight == 0.0 { 1.0 } else { weight })
}

/// A contribution against the layout of the model it is for. Gives the parsed frame, so that nothing is parsed twice.
pub fn check_contribution<'a>(model: &Layout, bytes: &'a [u8], limits: &GuardLimits) -> Result<Frame<'a>, GuardError> {
    check_size(&bytes, limits.bytes_max)?;
    let frame = Frame::parse(bytes)?;
    check_layout(model, frame.layout())?;
    check_finite(&frame)?;
    if let Some(limit) = limits.norm_max {
        let norm = l2_norm(frame.tensors());
        if norm > limit {
            return Err(GuardError::Norm { norm, limit });
        }
    }
    Ok(frame)
}

/// A model: version 0 as a trainer made it, or the next one before it is committed.
pub fn check_model<'a>(bytes: &'a [u8], limits: &GuardLimits) -> Result<Frame<'a>, GuardError> {
    check_size(&bytes, limits.bytes_max)?;
    let frame = Frame::parse(bytes)?;
    if frame.layout().tensors().is_empty() {
        return Err(GuardError::Empty);
    }
    check_finite(&frame)?;
    Ok(frame)
}

/// Same names, dtypes and shapes. The first difference in order of names is the one reported.
pub fn check_layout(model: &Layout, found: &Layout) -> Result<(), GuardError> {
    if model == found {
        return Ok(());
    }
    let by_name = |layout: &'_ Layout| -> std::collections::BTreeMap<String, (Dtype, Vec<usize>)> {
        layout.tensors().iter().map(|spec| (spec.name.clone(), (spec.dtype, spec.shape.clone()))).collect()
    };
    let (expected, given) = (by_name(model), by_name(found));
    for (name, (dtype, shape)) in &expected {
        let Some((found_dtype, found_shape)) = given.get(name) else {
            return Err(GuardError::Missing(name.clone()));
        };
        if found_shape != shape {
            return Err(GuardError::Shape {
                tensor: name.clone(),
                found: found_shape.clone(),
                expected: shape.clone(),
            });
        }
        if found_dtype != dtype {
            return Err(GuardError::Dtype { tensor: name.clone(), found: found_dtype.name(), expected: dtype.name() });
        }
    }
    match given.keys().find(|name| !expected.contains_key(*name)) {
        Some(name) => Err(GuardError::Unknown(name.clone())),
        None => unreachable!("layouts with the same names, dtypes and shapes are equal: their order is canonical"),
    }
}

/// Every element of every tensor is finite.
pub fn check_finite(frame: &Frame<'_>) -> Result<(), GuardError> {
    for (spec, data) in frame.tensors() {
        let bad = match spec.dtype {
            Dtype::F32 => {
                first_not_finite(data, 4, |block| f32s(block).fold(true, |finite, it| finite & it.is_finite()))
                    .map(|at| (at, f32s(&data[at * 4..]).next().map_or(f64::NAN, f64::from)))
            }
            Dtype::F64 => {
                first_not_finite(data, 8, |block| f64s(block).fold(true, |finite, it| finite & it.is_finite()))
                    .map(|at| (at, f64s(&data[at * 8..]).next().unwrap_or(f64::NAN)))
            }
        };
        if let Some((element, value)) = bad {
            return Err(GuardError::NotFinite { tensor: spec.name.clone(), element, value });
        }
    }
    Ok(())
}

/// Number of the first element of `width` bytes that `are_finite` denies. Most blocks have nothing wrong, and over a block it has no branch.
fn first_not_finite(data: &[u8], width: usize, are_finite: impl Fn(&[u8]) -> bool) -> Option<usize> {
    let block = data.chunks(BLOCK_ELEMENTS * width).position(|block| !are_finite(block))?;
    let first = block * BLOCK_ELEMENTS;
    let within = data[first * width..].chunks(width).position(|element| !are_finite(element))?;
    Some(first + within)
}
