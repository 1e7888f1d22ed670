//! The header of a safetensors file: which tensors it has, and at which of its bytes. All that is known of a file before its data is read.

use safetensors::tensor::{Metadata, SafeTensorError, SafeTensors};

use crate::frame::{check_spec, FrameError};
use crate::limits::{ANY_FILE_BYTES_MAX, HEADER_BYTES_MAX, TENSORS_MAX};
use crate::source::Source;

const LENGTH_BYTES: usize = 8;

/// A tensor as it stands in a file, of whatever dtype.
#[derive(Debug, Clone)]
pub(crate) struct FileTensor {
    /// Of 1 byte to the limit.
    pub name: String,
    /// Any that safetensors knows.
    pub dtype: safetensors::Dtype,
    /// Within the limit of dimensions. The data has as many bytes as shape and dtype say.
    pub shape: Vec<usize>,
    /// First byte of its data in the file: little-endian, row-major.
    pub start: u64,
}

/// The first bytes of a file, up to its data. The length is bounded before it is read.
pub(crate) fn read_header(source: &dyn Source) -> Result<Vec<u8>, FrameError> {
    let total_bytes = source.total_bytes();
    if total_bytes > ANY_FILE_BYTES_MAX {
        return Err(FrameError::TooLarge { bytes: total_bytes });
    }
    if total_bytes < LENGTH_BYTES as u64 {
        return Err(FrameError::HeaderBounds { announced: 0, bytes: total_bytes });
    }
    let mut prefix = [0; LENGTH_BYTES];
    source.read_at(0, &mut prefix)?;
    let announced = u64::from_le_bytes(prefix);
    if announced > HEADER_BYTES_MAX || announced > total_bytes - LENGTH_BYTES as u64 {
        return Err(FrameError::HeaderBounds { announced, bytes: total_bytes });
    }
    // At most HEADER_BYTES_MAX, by the line above.
    let mut header = vec![0; LENGTH_BYTES + announced as usize];
    header[..LENGTH_BYTES].copy_from_slice(&prefix);
    source.read_at(LENGTH_BYTES as u64, &mut header[LENGTH_BYTES..])?;
    Ok(header)
}

/// The tensors that a header names, sorted by name, within the limits; their data fills a file of `total_bytes` to its end.
pub(crate) fn tensors_of(header: &[u8], total_bytes: u64) -> Result<Vec<FileTensor>, FrameError> {
    let metadata: Metadata = match serde_json::from_slice(&header[LENGTH_BYTES..]) {
        Ok(metadata) => metadata,
        // The library's own reader says it in its own words; it must find the same fault.
        Err(error) => {
            let fault = SafeTensors::read_metadata(header).err();
            return Err(FrameError::Malformed(fault.unwrap_or(SafeTensorError::JsonError(error))));
        }
    };
    let start = header.len() as u64;
    if start + metadata.data_len() as u64 != total_bytes {
        return Err(FrameError::Malformed(SafeTensorError::MetadataIncompleteBuffer));
    }
    let infos = metadata.tensors();
    if infos.len() > TENSORS_MAX {
        return Err(FrameError::TooManyTensors(infos.len()));
    }
    // The library lists tensors in the order of a hash map: sorted by name first, so that the error named does not vary.
    let mut infos: Vec<_> = infos.into_iter().collect();
    infos.sort_by(|left, right| left.0.cmp(&right.0));
    let mut tensors = Vec::with_capacity(infos.len());
    for (name, info) in infos {
        check_spec(&name, &info.shape)?;
        let start = start + info.data_offsets.0 as u64;
        tensors.push(FileTensor { name, dtype: info.dtype, shape: info.shape.clone(), start });
    }
    Ok(tensors)
}
