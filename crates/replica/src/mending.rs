//! A download that survives a damaged file: what the disk here cannot give is fetched from other holders, and the stream goes on at the same
//! byte. Every block is verified when it is read, so nothing wrong was given out before.

use std::sync::Arc;

use raftgrid_blob::{BlobError, FragmentReader};
use raftgrid_proto::v1::ArtifactRow;
use slog::warn;

use crate::artifacts::{blob_failed, code_of, Artifacts, Files};
use crate::copies::COPY;
use crate::ports::{CallError, Download};

/// A committed artifact being read. Not for peers: a replica that mends its copy asks them, and they must not ask back.
pub(crate) struct Mending {
    artifacts: Arc<Artifacts>,
    row: ArtifactRow,
    reader: FragmentReader,
}

impl Mending {
    /// Opens what is here, or fetches it. Blocks.
    pub(crate) fn new(artifacts: Arc<Artifacts>, row: ArtifactRow) -> Result<Self, CallError> {
        let reader = artifacts.open(&row)?;
        Ok(Self { artifacts, row, reader })
    }

    /// Another reader may have mended it meanwhile; else what other holders have takes its place.
    fn mend(&mut self, offset: u64, buffer: &mut [u8]) -> Result<usize, CallError> {
        let (id, files) = (self.row.artifact_id, &self.artifacts.files);
        let again = match code_of(&self.row)? {
            Some(_) => files.cache().get(id),
            None => files.open_fragment(id, Files::of(&self.row).number(COPY)).ok(),
        };
        if let Some(reader) = again {
            if reader.digest() == self.reader.digest() {
                if let Ok(read) = reader.read_at(offset, buffer) {
                    self.reader = reader;
                    return Ok(read);
                }
            }
        }
        // From here on the bytes are another file's, of the same SHA-256: a fetched copy is held against the row's.
        self.reader = self.artifacts.fetch(&self.row)?;
        self.reader.read_at(offset, buffer).map_err(|error| CallError::Unavailable(error.to_string()))
    }
}

impl Download for Mending {
    fn total_bytes(&self) -> u64 {
        self.reader.total_bytes()
    }

    fn digest(&self) -> [u8; 32] {
        self.reader.digest()
    }

    fn artifact_id(&self) -> u64 {
        self.row.artifact_id
    }

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<usize, CallError> {
        match self.reader.read_at(offset, buffer) {
            Ok(read) => Ok(read),
            Err(error @ (BlobError::Rotten { .. } | BlobError::Io { .. })) => {
                warn!(self.artifacts.logger, "copy damaged, going on with another";
                    "artifact" => self.row.artifact_id, "offset" => offset, "cause" => %error);
                self.artifacts.damaged.note(self.row.artifact_id);
                self.mend(offset, buffer)
            }
            Err(error @ (BlobError::NotFound { .. } | BlobError::Refused(_))) => Err(blob_failed(error)),
        }
    }
}
