//! Bytes that are read and written in ranges, wherever they are: so that a model, a contribution or a state need never be in memory whole.
//!
//! This crate opens no files: the caller gives a [`Source`] for each input and a [`Sink`] for each result. Bytes in memory are both.

use std::error::Error;

/// Why bytes could not be read or written. Whether a retry helps is for the caller to say, whose error it carries.
#[derive(Debug, thiserror::Error)]
#[error("failed to read or write the bytes: {0}")]
pub struct SourceError(#[source] Box<dyn Error + Send + Sync>);

impl SourceError {
    /// With the caller's own error inside.
    pub fn new(cause: impl Error + Send + Sync + 'static) -> Self {
        Self(Box::new(cause))
    }

    /// The caller's own error, if it is of that type.
    pub fn cause<E: Error + 'static>(&self) -> Option<&E> {
        self.0.downcast_ref()
    }
}

/// A range beyond the end.
#[derive(Debug, thiserror::Error)]
#[error("bytes {start}..{end} of {total_bytes}")]
struct BeyondTheEnd {
    start: u64,
    end: u64,
    total_bytes: u64,
}

/// A file's bytes, which do not change while they are read.
pub trait Source {
    /// How many there are.
    fn total_bytes(&self) -> u64;
    /// Fills all of `buffer` from `offset`. Error: also a range beyond the end.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), SourceError>;
}

impl Source for &[u8] {
    fn total_bytes(&self) -> u64 {
        self.len() as u64
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), SourceError> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let Some(data) = self.get(start..).and_then(|rest| rest.get(..buffer.len())) else {
            let end = offset.saturating_add(buffer.len() as u64);
            return Err(SourceError::new(BeyondTheEnd { start: offset, end, total_bytes: self.len() as u64 }));
        };
        buffer.copy_from_slice(data);
        Ok(())
    }
}

/// Where a result's bytes go. Each byte is written once; not always in order.
pub trait Sink {
    /// How long the file will be; told once, before its first byte.
    fn begin(&mut self, total_bytes: u64) -> Result<(), SourceError>;
    /// Bytes `offset..offset + data.len()` of the file.
    fn write_at(&mut self, offset: u64, data: &[u8]) -> Result<(), SourceError>;
}

impl Sink for Vec<u8> {
    fn begin(&mut self, total_bytes: u64) -> Result<(), SourceError> {
        self.reserve_exact(usize::try_from(total_bytes).unwrap_or(0));
        Ok(())
    }

    fn write_at(&mut self, offset: u64, data: &[u8]) -> Result<(), SourceError> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let end = start.saturating_add(data.len());
        if end > self.len() {
            self.resize(end, 0);
        }
        self[start..end].copy_from_slice(data);
        Ok(())
    }
}
