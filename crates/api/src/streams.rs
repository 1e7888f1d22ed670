//! Bytes between the network and the replica. Every read, write, checksum and hash runs on the pool; the gRPC thread only passes messages.
//! A stream has one piece in hand at a time, so memory is bounded by the number of admitted streams, and a slow side slows the other.

use std::sync::Arc;

use raftgrid_replica::ports::{CallError, Download, Purpose, Upload, Uploaded};
use raftgrid_rpc::chunk::{ChunkError, CHUNK_BYTES_MAX};

use crate::calls::{Incoming, Outgoing};
use crate::context::{Context, Core};
use crate::failure::{invalid, Answer, Failure};
use crate::limits;

/// What the first chunk says about an upload.
pub(crate) struct Begin {
    pub(crate) purpose: Purpose,
    /// None: not announced.
    pub(crate) total_bytes: Option<u64>,
    /// Empty: not announced.
    pub(crate) digest: Vec<u8>,
    /// Offsets and checksums are there and are verified.
    pub(crate) checked: bool,
}

/// A message of an upload.
pub(crate) trait Piece: Send + 'static {
    /// Called on the first one.
    fn begin(&mut self, context: &Context) -> Answer<Begin>;
    fn offset(&self) -> u64;
    fn checksum(&self) -> u32;
    fn take(&mut self) -> Vec<u8>;
}

/// Takes a whole stream and commits it.
pub(crate) async fn receive<P: Piece>(
    core: &Arc<Core>,
    context: &Context,
    stream: &mut Incoming<P>,
) -> Answer<Uploaded> {
    let Some(mut first) = stream.next().await? else {
        return Err(invalid("data", "the stream ended before its first chunk"));
    };
    let _permit = core.uploads.admit()?;
    let begin = first.begin(context)?;
    if begin.total_bytes.is_some_and(|total| total > limits::UPLOAD_BYTES_MAX) {
        return Err(ChunkError::TooLong(limits::UPLOAD_BYTES_MAX).into());
    }
    if !matches!(begin.digest.len(), 0 | 32) {
        return Err(invalid("digest", "a SHA-256 has 32 bytes"));
    }
    let bytes_max = begin.total_bytes.unwrap_or(limits::UPLOAD_BYTES_MAX);
    let digest = (!begin.digest.is_empty()).then_some(begin.digest);
    let (bytes, caller) = (core.ports.bytes.clone(), context.caller.clone());
    let (purpose, total, announced) = (begin.purpose, begin.total_bytes, digest.clone());
    let upload = core.data.run(move || bytes.begin(&caller, purpose, total, announced)).await??;
    let mut receiver = Receiver { upload, received: 0, bytes_max, checked: begin.checked };
    let mut next = Some(first);
    while let Some(mut piece) = next {
        let (offset, checksum, data) = (piece.offset(), piece.checksum(), piece.take());
        core.metrics.uploaded_bytes.add(data.len() as u64);
        receiver = core.data.run(move || receiver.write(offset, checksum, &data)).await??;
        next = stream.next().await?;
    }
    if let Some(expected) = begin.total_bytes.filter(|total| *total != receiver.received) {
        return Err(ChunkError::Short { got: receiver.received, expected }.into());
    }
    // `finish` hashes and fsyncs: it starts on the pool and answers by callback.
    let (sender, answered) = futures::channel::oneshot::channel();
    let upload = receiver.upload;
    core.data
        .run(move || {
            upload.finish(
                digest,
                Box::new(move |outcome| {
                    let _ = sender.send(outcome);
                }),
            )
        })
        .await?;
    answered.await.unwrap_or(Err(CallError::Unknown)).map_err(Failure::from)
}

struct Receiver {
    upload: Box<dyn Upload>,
    received: u64,
    bytes_max: u64,
    checked: bool,
}

impl Receiver {
    fn write(mut self, offset: u64, checksum: u32, data: &[u8]) -> Answer<Self> {
        if data.len() > CHUNK_BYTES_MAX {
            return Err(invalid(
                "data",
                format!("a chunk of {} bytes; at most {CHUNK_BYTES_MAX} are allowed", data.len()),
            ));
        }
        if self.checked {
            if offset != self.received {
                return Err(ChunkError::Offset { got: offset, expected: self.received }.into());
            }
            if crc32c::crc32c(data) != checksum {
                return Err(ChunkError::Checksum(offset).into());
            }
        }
        self.received += data.len() as u64;
        if self.received > self.bytes_max {
            return Err(ChunkError::TooLong(self.bytes_max).into());
        }
        self.upload.write(data)?;
        Ok(self)
    }
}

/// Of the whole download, for the first chunk.
pub(crate) struct Head {
    pub(crate) version: u64,
    pub(crate) total_bytes: u64,
    pub(crate) digest: [u8; 32],
    pub(crate) artifact_id: u64,
}

/// One chunk on its way out.
pub(crate) struct Sent {
    pub(crate) offset: u64,
    pub(crate) data: Vec<u8>,
    pub(crate) crc32c: u32,
    /// On the first one.
    pub(crate) head: Option<Head>,
}

/// Opens a download and streams it from `offset` on. An empty rest is one empty chunk, so that the head always arrives.
pub(crate) async fn send<T>(
    core: &Arc<Core>,
    sink: &mut Outgoing<T>,
    offset: u64,
    open: impl FnOnce() -> Result<(u64, Box<dyn Download>), CallError> + Send + 'static,
    mut message: impl FnMut(Sent) -> T,
) -> Answer<()> {
    let _permit = core.downloads.admit()?;
    let (version, mut download) = core.data.run(open).await??;
    let total_bytes = download.total_bytes();
    if offset > total_bytes {
        return Err(invalid("offset", format!("{offset} is beyond the end at {total_bytes}")));
    }
    let mut head = Some(Head { version, total_bytes, digest: download.digest(), artifact_id: download.artifact_id() });
    sink.pack();
    let mut at = offset;
    while at < total_bytes || head.is_some() {
        let (back, data, crc32c) = core.data.run(move || read_piece(download, at, total_bytes)).await??;
        download = back;
        let length = data.len() as u64;
        sink.feed(message(Sent { offset: at, data, crc32c, head: head.take() })).await?;
        at += length;
        core.metrics.downloaded_bytes.add(length);
    }
    Ok(())
}

type ReadPiece = (Box<dyn Download>, Vec<u8>, u32);

fn read_piece(mut download: Box<dyn Download>, at: u64, total_bytes: u64) -> Answer<ReadPiece> {
    let wanted = (total_bytes - at).min(CHUNK_BYTES_MAX as u64) as usize;
    let mut data = vec![0; wanted];
    let got = download.read_at(at, &mut data)?;
    if got == 0 && wanted > 0 {
        return Err(Failure::from(CallError::Internal(format!("bytes end at {at} instead of {total_bytes}"))));
    }
    data.truncate(got);
    let crc32c = crc32c::crc32c(&data);
    Ok((download, data, crc32c))
}

/// Starts a call that blocks on the pool of log and data work.
pub(crate) async fn blocking<T: Send + 'static>(
    core: &Arc<Core>,
    job: impl FnOnce() -> T + Send + 'static,
) -> Answer<T> {
    let _permit = core.log_calls.admit()?;
    core.data.run(job).await
}
