//! Bytes between the network and the replica. Every read, write, checksum and hash runs on the pool; the gRPC thread only passes messages.
//! A stream has one piece in hand at a time, so memory is bounded by the number of admitted streams, and a slow side slows the other.

use std::sync::Arc;

use raftgrid_replica::ports::{CallError, Caller, Download, Purpose, Upload, Uploaded};
use raftgrid_rpc::chunk::{room, ChunkError, CHUNK_BYTES_MAX};
use sha2::{Digest, Sha256};

use crate::calls::{Incoming, Outgoing};
use crate::context::{Context, Core};
use crate::failure::{invalid, Answer, Failure};
use crate::limits;
use crate::parked::{Key, Place};

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
    /// What it says of the whole, without its data and their place, as bytes; None: what breaks off is not waited for.
    fn whole(&self) -> Option<Vec<u8>>;
    fn offset(&self) -> u64;
    fn checksum(&self) -> u32;
    fn take(&mut self) -> Vec<u8>;
}

/// How a stream ended that was taken.
pub(crate) enum Taken {
    /// Whole, and filed.
    Whole(Uploaded),
    /// It only asked how far an earlier one had come.
    Asked(Place),
}

/// Takes a whole stream and commits it. One that goes on where an earlier one broke off begins at that offset; one without any data asks for it.
pub(crate) async fn receive<P: Piece>(core: &Arc<Core>, context: &Context, stream: &mut Incoming<P>) -> Answer<Taken> {
    let Some(mut first) = stream.next().await? else {
        return Err(invalid("data", "the stream ended before its first chunk"));
    };
    let _permit = core.uploads.admit()?;
    let mut piece = (first.offset(), first.checksum(), first.take());
    let key = key_of(&context.caller, &first);
    let begin = first.begin(context)?;
    if begin.total_bytes.is_some_and(|total| total > limits::UPLOAD_BYTES_MAX) {
        return Err(ChunkError::TooLong(limits::UPLOAD_BYTES_MAX).into());
    }
    if !matches!(begin.digest.len(), 0 | 32) {
        return Err(invalid("digest", "a SHA-256 has 32 bytes"));
    }
    // Only what is known beforehand can be the same.
    let key = key.filter(|_| begin.checked && begin.total_bytes.is_some() && begin.digest.len() == 32);
    if let Some(key) = key.filter(|_| piece.2.is_empty()) {
        match stream.next().await? {
            None => return Ok(Taken::Asked(core.parked.place(&key))),
            Some(mut next) => piece = (next.offset(), next.checksum(), next.take()),
        }
    }
    let coming = key.map(|key| core.parked.comes(key));
    let goes_on = key.filter(|_| piece.0 > 0).and_then(|key| core.parked.take(&key, piece.0));
    let total = begin.total_bytes;
    let mut receiver = match goes_on {
        Some(receiver) => receiver,
        None => open(core, context, begin).await?,
    };
    loop {
        let (offset, checksum, data) = piece;
        core.metrics.uploaded_bytes.add(data.len() as u64);
        receiver = core.data.run(move || receiver.write(offset, checksum, &data)).await??;
        match stream.next().await {
            Ok(Some(mut next)) => piece = (next.offset(), next.checksum(), next.take()),
            Ok(None) => break,
            Err(broken) => {
                if let Some(key) = key {
                    park(core, key, receiver).await;
                }
                return Err(broken);
            }
        }
    }
    if let Some(expected) = total.filter(|total| *total != receiver.received) {
        let got = receiver.received;
        // A connection that breaks between two chunks looks like the end of a stream.
        if let Some(key) = key {
            park(core, key, receiver).await;
        }
        return Err(ChunkError::Short { got, expected }.into());
    }
    drop(coming);
    // `finish` hashes and fsyncs: it starts on the pool and answers by callback.
    let (sender, answered) = futures::channel::oneshot::channel();
    let (upload, digest) = (receiver.upload, receiver.digest);
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
    answered.await.unwrap_or(Err(CallError::Unknown)).map(Taken::Whole).map_err(Failure::from)
}

fn key_of(caller: &Caller, first: &impl Piece) -> Option<Key> {
    let mut hash = Sha256::new();
    let whole = first.whole()?;
    hash.update((caller.principal.len() as u64).to_le_bytes());
    hash.update(&caller.principal);
    hash.update(whole);
    Some(hash.finalize().into())
}

async fn open(core: &Core, context: &Context, begin: Begin) -> Answer<Receiver> {
    let bytes_max = begin.total_bytes.unwrap_or(limits::UPLOAD_BYTES_MAX);
    let digest = (!begin.digest.is_empty()).then_some(begin.digest);
    let (bytes, caller) = (core.ports.bytes.clone(), context.caller.clone());
    let (purpose, total, announced) = (begin.purpose, begin.total_bytes, digest.clone());
    let upload = core.data.run(move || bytes.begin(&caller, purpose, total, announced)).await??;
    Ok(Receiver { upload, received: 0, bytes_max, checked: begin.checked, digest })
}

/// It waits for its rest, and goes when nobody brings it.
async fn park(core: &Arc<Core>, key: Key, receiver: Receiver) {
    let gone = core.parked.park(key, receiver);
    let parked = Arc::downgrade(&core.parked);
    // An error: the pool is full or closed, and they are dropped with the job.
    let _ = core.data.run(move || drop(gone)).await;
    let later = move || {
        std::thread::sleep(limits::PARKED_FOR);
        drop(parked.upgrade().map(|parked| parked.over()));
    };
    // Without a thread it goes with the next that is parked.
    let _ = std::thread::Builder::new().name("api-parked".to_owned()).spawn(later);
}

/// An upload on its way in.
pub(crate) struct Receiver {
    upload: Box<dyn Upload>,
    received: u64,
    bytes_max: u64,
    checked: bool,
    digest: Option<Vec<u8>>,
}

impl Receiver {
    /// Bytes that are here.
    pub(crate) fn received(&self) -> u64 {
        self.received
    }

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
    let mut data = room(wanted);
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
