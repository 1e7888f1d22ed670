//! A frame: named tensors as a safetensors file. Models, gradients and optimiser states are frames.
//!
//! Canonical order: wider dtypes first (F64, then F32), then names by their UTF-8 bytes; with one dtype that is "sorted by name". It is the
//! order in which the safetensors library lays tensors out (so that each is aligned), in which [`Frame`] lists them whatever the order in the
//! file, and in which elements are numbered. A canonical frame has its data in this order and no `__metadata__`: [`Layout::write`] gives the
//! same bytes for the same tensors, and so does `raftgrid._frame` in Python. Parsing accepts any valid file, canonical or not.

use std::borrow::Cow;

use safetensors::tensor::{SafeTensorError, View};

use crate::header::{read_header, tensors_of, FileTensor};
use crate::limits::{ANY_FILE_BYTES_MAX, DIMENSIONS_MAX, NAME_BYTES_MAX, TENSORS_MAX};
use crate::source::{Source, SourceError};

/// Room for the prefix that an optimiser's state puts before a name.
const PREFIX_BYTES_MAX: usize = 64;

/// Element types of this release. Others (F16, BF16, I8 …) are refused by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dtype {
    /// IEEE 754 binary64.
    F64,
    /// IEEE 754 binary32.
    F32,
}

impl Dtype {
    /// Bytes of one element.
    pub fn bytes(self) -> usize {
        match self {
            Dtype::F64 => 8,
            Dtype::F32 => 4,
        }
    }

    /// The name in a safetensors header.
    pub fn name(self) -> &'static str {
        match self {
            Dtype::F64 => "F64",
            Dtype::F32 => "F32",
        }
    }

    fn rank(self) -> u8 {
        match self {
            Dtype::F64 => 0,
            Dtype::F32 => 1,
        }
    }

    fn library(self) -> safetensors::Dtype {
        match self {
            Dtype::F64 => safetensors::Dtype::F64,
            Dtype::F32 => safetensors::Dtype::F32,
        }
    }
}

/// Why bytes are not a frame. A retry with the same bytes never helps.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// Larger than any frame may be.
    #[error("failed to read the frame: {bytes} bytes, the limit is {ANY_FILE_BYTES_MAX}")]
    TooLarge {
        /// Its size.
        bytes: u64,
    },
    /// The announced header is too long or longer than the file.
    #[error("failed to read the frame: a header of {announced} bytes in a file of {bytes}")]
    HeaderBounds {
        /// Header length that the file gives.
        announced: u64,
        /// Length of the file.
        bytes: u64,
    },
    /// Not a safetensors file.
    #[error("failed to read the frame: {0}")]
    Malformed(SafeTensorError),
    /// More tensors than allowed.
    #[error("failed to read the frame: {0} tensors, the limit is {TENSORS_MAX}")]
    TooManyTensors(usize),
    /// A name that is empty or too long.
    #[error("failed to read the frame: a tensor name of {0} bytes, allowed are 1 to {NAME_BYTES_MAX}")]
    Name(usize),
    /// Too many dimensions.
    #[error("failed to read the frame: tensor `{tensor}` has {dimensions} dimensions, the limit is {DIMENSIONS_MAX}")]
    Dimensions {
        /// Its name.
        tensor: String,
        /// How many it has.
        dimensions: usize,
    },
    /// A dtype that this release does not aggregate.
    #[error("failed to read the frame: tensor `{tensor}` has dtype {dtype}; this release takes F32 and F64")]
    Dtype {
        /// Its name.
        tensor: String,
        /// The dtype's name in the file.
        dtype: String,
    },
    /// The same name twice in a layout.
    #[error("failed to lay out the frame: tensor `{0}` stands there twice")]
    Duplicate(String),
    /// Data that does not fit the layout it is to be written with.
    #[error("failed to write the frame: tensor `{tensor}` needs {expected} bytes, given were {given}")]
    DataLength {
        /// Its name.
        tensor: String,
        /// From shape and dtype.
        expected: usize,
        /// Bytes given.
        given: usize,
    },
    /// The bytes themselves: nothing is known of what they are.
    #[error(transparent)]
    Source(#[from] SourceError),
}

/// Name, dtype and shape of one tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSpec {
    /// Unique in its frame.
    pub name: String,
    /// Element type.
    pub dtype: Dtype,
    /// Row-major; empty for a scalar.
    pub shape: Vec<usize>,
}

impl TensorSpec {
    /// Number of elements: 1 for a scalar, 0 if a dimension is 0.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Bytes of its data.
    pub fn bytes(&self) -> usize {
        self.elements() * self.dtype.bytes()
    }

    fn canonical_order(&self, other: &Self) -> std::cmp::Ordering {
        self.dtype.rank().cmp(&other.dtype.rank()).then_with(|| self.name.cmp(&other.name))
    }
}

/// Names, dtypes and shapes of a frame in canonical order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Layout {
    tensors: Vec<TensorSpec>,
}

impl Layout {
    /// Brings the tensors into canonical order. Errors: a name that is empty, too long or there twice; too many tensors or dimensions; a size
    /// beyond [`ANY_FILE_BYTES_MAX`].
    pub fn new(mut tensors: Vec<TensorSpec>) -> Result<Self, FrameError> {
        if tensors.len() > TENSORS_MAX {
            return Err(FrameError::TooManyTensors(tensors.len()));
        }
        let mut bytes_total = 0_u64;
        for spec in &tensors {
            check_spec(&spec.name, &spec.shape)?;
            bytes_total = bytes_total.saturating_add(checked_bytes(spec));
        }
        if bytes_total > ANY_FILE_BYTES_MAX {
            return Err(FrameError::TooLarge { bytes: bytes_total });
        }
        tensors.sort_by(TensorSpec::canonical_order);
        let mut names: Vec<&str> = tensors.iter().map(|spec| spec.name.as_str()).collect();
        names.sort_unstable();
        if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(FrameError::Duplicate(pair[0].to_owned()));
        }
        Ok(Self { tensors })
    }

    /// Some tensors of a layout, or parts of them, in its order.
    pub(crate) fn of_part(tensors: Vec<TensorSpec>) -> Self {
        Self { tensors }
    }

    /// Tensors in canonical order.
    pub fn tensors(&self) -> &[TensorSpec] {
        &self.tensors
    }

    /// Elements of all tensors together.
    pub fn elements(&self) -> usize {
        self.tensors.iter().map(TensorSpec::elements).sum()
    }

    /// Bytes of the data of all tensors together, without header.
    pub fn data_bytes(&self) -> usize {
        self.tensors.iter().map(TensorSpec::bytes).sum()
    }

    /// Each tensor with its part of `data`, the concatenation of all tensors in canonical order. `data` must have [`Layout::data_bytes`] bytes.
    pub fn split<'a>(&'a self, data: &'a [u8]) -> impl Iterator<Item = (&'a TensorSpec, &'a [u8])> {
        assert_eq!(data.len(), self.data_bytes(), "data and layout belong together");
        let mut rest = data;
        self.tensors.iter().map(move |spec| {
            let (part, tail) = rest.split_at(spec.bytes());
            rest = tail;
            (spec, part)
        })
    }

    /// The canonical file: `parts[i]` is the little-endian, row-major data of tensor i in canonical order. Error: a part of another length.
    pub fn write(&self, parts: &[&[u8]]) -> Result<Vec<u8>, FrameError> {
        assert_eq!(parts.len(), self.tensors.len(), "one part for each tensor");
        for (spec, part) in self.tensors.iter().zip(parts) {
            if spec.bytes() != part.len() {
                return Err(FrameError::DataLength {
                    tensor: spec.name.clone(),
                    expected: spec.bytes(),
                    given: part.len(),
                });
            }
        }
        let views = self.tensors.iter().zip(parts).map(|(spec, part)| (spec.name.as_str(), Part { spec, data: part }));
        safetensors::serialize(views, None).map_err(FrameError::Malformed)
    }

    /// The canonical file with zeros for data, and where the data begins: for who computes the data in place, so that it is in memory once. The
    /// data of all tensors stand there in canonical order, one after the other.
    pub(crate) fn blank(&self) -> Result<(Vec<u8>, usize), FrameError> {
        let mut file = self.header()?;
        let start = file.len();
        file.resize(start + self.data_bytes(), 0);
        Ok((file, start))
    }

    /// The canonical file up to its data.
    pub(crate) fn header(&self) -> Result<Vec<u8>, FrameError> {
        // The library sizes the file by each view's length and copies what the view gives: nothing, so what comes back is the header.
        let views = self.tensors.iter().map(|spec| (spec.name.as_str(), Hollow { spec }));
        safetensors::serialize(views, None).map_err(FrameError::Malformed)
    }

    /// The canonical file from the concatenated data of all tensors in canonical order.
    pub fn write_concatenated(&self, data: &[u8]) -> Result<Vec<u8>, FrameError> {
        let parts: Vec<&[u8]> = self.split(data).map(|(_, part)| part).collect();
        self.write(&parts)
    }
}

struct Part<'a> {
    spec: &'a TensorSpec,
    data: &'a [u8],
}

impl View for Part<'_> {
    fn dtype(&self) -> safetensors::Dtype {
        self.spec.dtype.library()
    }
    fn shape(&self) -> &[usize] {
        &self.spec.shape
    }
    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(self.data)
    }
    fn data_len(&self) -> usize {
        self.data.len()
    }
}

/// A tensor whose data comes later.
struct Hollow<'a> {
    spec: &'a TensorSpec,
}

impl View for Hollow<'_> {
    fn dtype(&self) -> safetensors::Dtype {
        self.spec.dtype.library()
    }
    fn shape(&self) -> &[usize] {
        &self.spec.shape
    }
    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&[])
    }
    fn data_len(&self) -> usize {
        self.spec.bytes()
    }
}

/// A parsed file: a layout and, for each of its tensors, the data inside the file's bytes. Nothing is copied.
#[derive(Debug, Clone)]
pub struct Frame<'a> {
    layout: Layout,
    data: Vec<&'a [u8]>,
}

impl<'a> Frame<'a> {
    /// Reads a file. The header is bounded before it is decoded, and shapes are checked against the bytes there are before anything is
    /// allocated for them.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, FrameError> {
        let PlacedFrame { layout, starts } = PlacedFrame::read(&bytes)?;
        let data =
            layout.tensors.iter().zip(starts).map(|(spec, start)| slice_of(bytes, start, spec.bytes())).collect();
        Ok(Self { layout, data })
    }

    /// Names, dtypes and shapes in canonical order.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Each tensor with its data (little-endian, row-major) in canonical order.
    pub fn tensors(&self) -> impl Iterator<Item = (&TensorSpec, &'a [u8])> {
        self.layout.tensors.iter().zip(self.data.iter().copied())
    }

    /// The canonical file with these tensors: equal to the input if that was canonical.
    pub fn to_bytes(&self) -> Result<Vec<u8>, FrameError> {
        self.layout.write(&self.data)
    }
}

/// A frame whose data is read when it is wanted: a layout and, for each of its tensors, where its data begins in the file.
#[derive(Debug, Clone)]
pub(crate) struct PlacedFrame {
    /// In canonical order.
    pub layout: Layout,
    /// As many; bytes from the beginning of the file.
    pub starts: Vec<u64>,
}

impl PlacedFrame {
    /// Reads the header alone; [`Frame::parse`] says what is checked.
    pub(crate) fn read(source: &dyn Source) -> Result<Self, FrameError> {
        let file = tensors_of(&read_header(source)?, source.total_bytes())?;
        let mut tensors = Vec::with_capacity(file.len());
        for FileTensor { name, dtype, shape, start } in file {
            let dtype = match dtype {
                safetensors::Dtype::F64 => Dtype::F64,
                safetensors::Dtype::F32 => Dtype::F32,
                other => return Err(FrameError::Dtype { tensor: name, dtype: other.to_string() }),
            };
            tensors.push((TensorSpec { name, dtype, shape }, start));
        }
        tensors.sort_by(|left, right| left.0.canonical_order(&right.0));
        let (tensors, starts) = tensors.into_iter().unzip();
        Ok(Self { layout: Layout { tensors }, starts })
    }
}

/// Data whose place in the file the header gave, which was held against the file's length.
pub(crate) fn slice_of(file: &[u8], start: u64, bytes: usize) -> &[u8] {
    let start = usize::try_from(start).unwrap_or(usize::MAX);
    &file[start..start + bytes]
}

/// Elements of F32 data.
pub fn f32s(data: &[u8]) -> impl ExactSizeIterator<Item = f32> + '_ {
    data.chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().expect("chunks of four bytes")))
}

/// Elements of F64 data.
pub fn f64s(data: &[u8]) -> impl ExactSizeIterator<Item = f64> + '_ {
    data.chunks_exact(8).map(|bytes| f64::from_le_bytes(bytes.try_into().expect("chunks of eight bytes")))
}

/// A name and a shape within the limits; a state's name has a prefix.
pub(crate) fn check_spec(name: &str, shape: &[usize]) -> Result<(), FrameError> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX + PREFIX_BYTES_MAX {
        return Err(FrameError::Name(name.len()));
    }
    if shape.len() > DIMENSIONS_MAX {
        return Err(FrameError::Dimensions { tensor: name.to_owned(), dimensions: shape.len() });
    }
    Ok(())
}

fn checked_bytes(spec: &TensorSpec) -> u64 {
    let elements = spec.shape.iter().try_fold(1_u64, |product, side| product.checked_mul(*side as u64));
    elements.and_then(|count| count.checked_mul(spec.dtype.bytes() as u64)).unwrap_or(u64::MAX)
}
