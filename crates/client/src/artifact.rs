//! Bytes up and down, verified, and resumed on another endpoint.

use std::cell::Cell;
use std::io::{SeekFrom, Write};
use std::time::{Duration, Instant};

use raftgrid_proto::v1::{
    ArtifactChunk, DeleteArtifactRequest, DeleteArtifactResponse, GetArtifactRequest, NameArtifactRequest,
    NameArtifactResponse, PutArtifactChunk, PutArtifactResponse,
};
use raftgrid_rpc::chunk::{ChunkError, Verifier};
use raftgrid_rpc::methods::{DELETE_ARTIFACT, GET_ARTIFACT, NAME_ARTIFACT, PUT_ARTIFACT};
use sha2::{Digest, Sha256};

use crate::call::{request_id, Client};
use crate::error::ClientError;
use crate::limits::ARTIFACT_BYTES_MAX;
use crate::stream::{read_chunk, ReadSeek};

/// How an uploaded artifact is filed.
#[derive(Clone, Debug, Default)]
pub struct Upload {
    /// Name or ""; never a path.
    pub name: String,
    /// bundle, model, checkpoint, file.
    pub kind: String,
    /// Other bytes than the name's newest version's are its next one; else they are refused.
    pub versioned: bool,
    /// With `versioned`: older versions than so many go; 0: none.
    pub keep: u32,
}

/// What a downloaded artifact is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ArtifactHead {
    /// Its id.
    pub artifact_id: String,
    /// Size in bytes.
    pub total_bytes: u64,
    /// SHA-256, 32 bytes.
    pub digest: Vec<u8>,
}

impl Client {
    /// Uploads everything in `source` and returns when it is durable. `progress(done bytes, all bytes)` is called as it goes and falls
    /// back when an attempt starts again. All attempts carry one request id.
    pub fn put_artifact(
        &self,
        upload: &Upload,
        source: &mut dyn ReadSeek,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<PutArtifactResponse, ClientError> {
        let (total_bytes, digest) = measure(source)?;
        let mut head = PutArtifactChunk::new();
        head.set_name(upload.name.clone());
        head.set_kind(upload.kind.clone());
        head.set_versioned(upload.versioned);
        head.set_keep(upload.keep);
        head.set_total_bytes(total_bytes);
        head.set_digest(digest.to_vec());
        head.set_request_id(request_id());
        let pace = self.pace();
        self.attempts_while(&|| pace.left(), |endpoint| {
            let mut moved = |done: u64, all: u64| {
                pace.reached(done);
                progress(done, all);
            };
            self.stream_up(endpoint, &PUT_ARTIFACT, head.clone(), fill_put, source, 0, pace.whole_left(), &mut moved)
        })
    }

    /// Deletes a version of a name, or what an id names; `all`: also if that is more than one version, or has more than one name.
    pub fn delete_artifact(&self, artifact: &str, all: bool) -> Result<DeleteArtifactResponse, ClientError> {
        let mut request = DeleteArtifactRequest::new();
        request.set_artifact(artifact.to_owned());
        request.set_all(all);
        request.set_request_id(request_id());
        self.call(&DELETE_ARTIFACT, &request, self.config().timeout)
    }

    /// Gives an artifact that is there another name, whose next version it is. `keep`: older versions than so many go; 0: none.
    pub fn name_artifact(&self, artifact: &str, name: &str, keep: u32) -> Result<NameArtifactResponse, ClientError> {
        let mut request = NameArtifactRequest::new();
        request.set_artifact(artifact.to_owned());
        request.set_name(name.to_owned());
        request.set_keep(keep);
        request.set_request_id(request_id());
        self.call(&NAME_ARTIFACT, &request, self.config().timeout)
    }

    /// Writes an artifact (an id, or a name such as `JOB/model@latest`) to `target`. Goes on at the same byte on another endpoint when
    /// the connection breaks. The digest is checked at the end: on an error, what was written must be thrown away.
    pub fn get_artifact(
        &self,
        artifact: &str,
        target: &mut dyn Write,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<ArtifactHead, ClientError> {
        let mut verifier = Verifier::new(ARTIFACT_BYTES_MAX);
        let mut head: Option<ArtifactHead> = None;
        let pace = self.pace();
        self.attempts_while(&|| pace.left(), |endpoint| {
            let mut request = GetArtifactRequest::new();
            // A name may move between two attempts; the id does not.
            request.set_artifact(head.as_ref().map_or(artifact, |head| head.artifact_id.as_str()).to_owned());
            request.set_offset(verifier.received());
            let mut stream = self.stream_down(endpoint, &GET_ARTIFACT, &request, pace.whole_left())?;
            while let Some(chunk) = stream.next()? {
                take_chunk(&chunk, &mut head, &mut verifier, target)?;
                pace.reached(verifier.received());
                progress(verifier.received(), head.as_ref().map_or(0, |head| head.total_bytes));
            }
            match &head {
                Some(head) if verifier.received() >= head.total_bytes => Ok(()),
                Some(head) => Err(ChunkError::Short { got: verifier.received(), expected: head.total_bytes }.into()),
                None => Err(ClientError::unavailable(endpoint, "an empty stream".to_owned())),
            }
        })?;
        let head = head.ok_or_else(|| ClientError::Internal("an artifact without a head".to_owned()))?;
        let announced = (!head.digest.is_empty()).then_some(head.digest.as_slice());
        verifier.finish(Some(head.total_bytes), announced)?;
        Ok(head)
    }
}

/// How long a transfer may still take: as a whole, and since bytes came further than ever before.
struct Pace {
    started: Instant,
    moved: Cell<Instant>,
    furthest: Cell<u64>,
    whole: Duration,
    quiet: Duration,
}

impl Pace {
    /// `done` bytes are there.
    fn reached(&self, done: u64) {
        if done > self.furthest.get() {
            self.furthest.set(done);
            self.moved.set(Instant::now());
        }
    }

    /// For further attempts.
    fn left(&self) -> Duration {
        self.whole.saturating_sub(self.started.elapsed()).min(self.quiet.saturating_sub(self.moved.get().elapsed()))
    }

    /// For one attempt, which may move.
    fn whole_left(&self) -> Duration {
        self.whole.saturating_sub(self.started.elapsed()).max(Duration::from_millis(1))
    }
}

impl Client {
    fn pace(&self) -> Pace {
        let (started, config) = (Instant::now(), self.config());
        Pace {
            started,
            moved: Cell::new(started),
            furthest: Cell::new(0),
            whole: config.transfer_timeout,
            quiet: config.timeout,
        }
    }
}

fn fill_put(chunk: &mut PutArtifactChunk, offset: u64, crc32c: u32, data: Vec<u8>) {
    chunk.set_offset(offset);
    chunk.set_crc32c(crc32c);
    chunk.set_data(data);
}

/// Checks a chunk and writes it. The head is taken from the first one.
fn take_chunk(
    chunk: &ArtifactChunk,
    head: &mut Option<ArtifactHead>,
    verifier: &mut Verifier,
    target: &mut dyn Write,
) -> Result<(), ClientError> {
    if head.is_none() {
        *head = Some(ArtifactHead {
            artifact_id: chunk.get_artifact_id().to_owned(),
            total_bytes: chunk.get_total_bytes(),
            digest: chunk.get_digest().to_vec(),
        });
    }
    verifier.chunk(chunk.get_offset(), chunk.get_data(), Some(chunk.get_crc32c()))?;
    target.write_all(chunk.get_data())?;
    Ok(())
}

/// Size and SHA-256 of a source, from its start.
fn measure(source: &mut dyn ReadSeek) -> Result<(u64, [u8; 32]), ClientError> {
    source.seek(SeekFrom::Start(0))?;
    let mut hash = Sha256::new();
    let mut total_bytes = 0;
    loop {
        let data = read_chunk(source)?;
        if data.is_empty() {
            return Ok((total_bytes, hash.finalize().into()));
        }
        total_bytes += data.len() as u64;
        hash.update(&data);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(offset: u64, data: &[u8], total: u64) -> ArtifactChunk {
        let mut chunk = ArtifactChunk::new();
        chunk.set_offset(offset);
        chunk.set_data(data.to_vec());
        chunk.set_crc32c(crc32c::crc32c(data));
        chunk.set_total_bytes(total);
        chunk.set_artifact_id("7".to_owned());
        chunk
    }

    #[test]
    fn a_chunk_that_changed_on_the_way_is_not_written() {
        let (mut head, mut verifier, mut target) = (None, Verifier::new(100), Vec::new());
        take_chunk(&chunk(0, b"abc", 6), &mut head, &mut verifier, &mut target).expect("good");
        let mut bad = chunk(3, b"def", 6);
        bad.set_data(b"dxf".to_vec());
        assert!(take_chunk(&bad, &mut head, &mut verifier, &mut target).is_err());
        assert_eq!(target, b"abc");
        assert_eq!(verifier.received(), 3, "the next attempt goes on behind the last good byte");
        assert_eq!(head.expect("from the first chunk").total_bytes, 6);
    }

    #[test]
    fn a_source_is_measured_from_its_start_whatever_was_read_before() {
        let mut source = std::io::Cursor::new(b"hello".to_vec());
        source.set_position(3);
        let (total, digest) = measure(&mut source).expect("memory");
        assert_eq!(total, 5);
        assert_eq!(digest, <[u8; 32]>::from(Sha256::digest(b"hello")));
    }
}
