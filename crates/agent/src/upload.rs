//! A stream of chunks from Python, taken in whole and verified before any of it goes up: what a process that dies in the middle sent is
//! seen by nobody.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};

use futures::executor::block_on;
use futures::TryStreamExt;
use grpcio::{RequestStream, RpcStatus, RpcStatusCode};
use protobuf::Message;
use raftgrid_crashpoint::{reach, Point};
use raftgrid_proto::v1::{Ack, GradientChunk, InitModelChunk};
use raftgrid_rpc::chunk::{ChunkError, Verifier};
use raftgrid_rpc::status::{invalid, status};
use raftgrid_worker::{sealed, ControlPlane, PlaneError, ReadSeek, TaskContext};
use sha2::{Digest, Sha256};

use crate::limits::{BODY_BYTES_MAX, FILE_PIECE_BYTES};
use crate::spool::{Spool, Spools};

/// The two kinds of chunk that go up.
pub(crate) trait UpChunk: Message {
    /// Where the worker may be made to end once it is here whole.
    const RECEIVED: Option<Point>;
    /// (offset, crc32c, data), taken out of the chunk.
    fn take_piece(&mut self) -> (u64, u32, Vec<u8>);
    /// (total bytes, SHA-256) as announced; 0 and "" if not.
    fn announced(&self) -> (u64, &[u8]);
    /// Whose it is, and what it is: from the task, not from what the process says.
    fn describe(&mut self, task: &TaskContext, total_bytes: u64, digest: [u8; 32]);
    /// What the process says of whose it is: (job, task).
    fn claims(&self) -> (&str, &str);
    /// One attempt to send it up.
    fn send(&self, plane: &dyn ControlPlane, body: &mut dyn ReadSeek) -> Result<Ack, PlaneError>;
}

macro_rules! up_chunk {
    ($type:ty, $send:ident, $received:expr $(, $own:expr)?) => {
        impl UpChunk for $type {
            const RECEIVED: Option<Point> = $received;
            fn take_piece(&mut self) -> (u64, u32, Vec<u8>) {
                (self.get_offset(), self.get_crc32c(), self.take_data())
            }
            fn announced(&self) -> (u64, &[u8]) {
                (self.get_total_bytes(), self.get_digest())
            }
            fn describe(&mut self, task: &TaskContext, total_bytes: u64, digest: [u8; 32]) {
                self.set_job_id(task.job_id.clone());
                self.set_task_id(task.task_id.clone());
                self.set_lease_epoch(task.epoch);
                self.set_total_bytes(total_bytes);
                self.set_digest(digest.to_vec());
                $(($own)(self, task);)?
            }
            fn claims(&self) -> (&str, &str) {
                (self.get_job_id(), self.get_task_id())
            }
            fn send(&self, plane: &dyn ControlPlane, body: &mut dyn ReadSeek) -> Result<Ack, PlaneError> {
                plane.$send(self, body)
            }
        }
    };
}

up_chunk!(
    GradientChunk,
    send_gradients,
    Some(Point::GradientReceived),
    |chunk: &mut GradientChunk, task: &TaskContext| {
        chunk.set_worker_id(task.node_id.clone());
    }
);
up_chunk!(InitModelChunk, init_model, None);

/// What came: the first chunk without its data, and the body.
pub(crate) struct Received<Chunk> {
    pub(crate) head: Chunk,
    pub(crate) body: Body,
}

/// The bytes of a gradient or model on their way up.
pub(crate) enum Body {
    /// As they came in a stream.
    Spool(Spool),
    /// A sealed file of the process.
    File(File),
}

impl Read for Body {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Spool(spool) => spool.read(buffer),
            Self::File(file) => file.read(buffer),
        }
    }
}

impl Seek for Body {
    fn seek(&mut self, position: SeekFrom) -> std::io::Result<u64> {
        match self {
            Self::Spool(spool) => spool.seek(position),
            Self::File(file) => file.seek(position),
        }
    }
}

fn broken(error: grpcio::Error) -> RpcStatus {
    status(RpcStatusCode::CANCELLED, format!("the stream broke: {error}"))
}

/// The first chunk, of the task whose token it is.
fn first<Chunk: UpChunk>(stream: &mut RequestStream<Chunk>, task: &TaskContext) -> Result<Chunk, RpcStatus> {
    let Some(head) = block_on(stream.try_next()).map_err(broken)? else {
        return Err(invalid("stream", "it is empty"));
    };
    let (job, named) = head.claims();
    if (!job.is_empty() && job != task.job_id) || (!named.is_empty() && named != task.task_id) {
        let why = format!("{job}/{named} is not the task of this token, which is {}/{}", task.job_id, task.task_id);
        return Err(invalid("task_id", why));
    }
    if head.announced().0 > BODY_BYTES_MAX {
        return Err(of_chunk(&ChunkError::TooLong(BODY_BYTES_MAX)));
    }
    Ok(head)
}

/// A stream whose bytes are in a sealed file of the process; its only chunk describes them. UNIMPLEMENTED: it cannot be opened here, and the process
/// is to send the bytes. Blocks.
pub(crate) fn take<Chunk: UpChunk>(
    stream: &mut RequestStream<Chunk>,
    task: &TaskContext,
    place: &str,
) -> Result<Received<Chunk>, RpcStatus> {
    let mut head = first(stream, task)?;
    let unreadable = |error: std::io::Error| status(RpcStatusCode::UNIMPLEMENTED, format!("raftgrid-file: {error}"));
    let mut file = sealed::open(place).map_err(unreadable)?;
    let total_bytes = file.metadata().map_err(unreadable)?.len();
    if total_bytes > BODY_BYTES_MAX {
        return Err(of_chunk(&ChunkError::TooLong(BODY_BYTES_MAX)));
    }
    if head.announced().0 != total_bytes {
        return Err(of_chunk(&ChunkError::Short { got: total_bytes, expected: head.announced().0 }));
    }
    if !head.take_piece().2.is_empty() || block_on(stream.try_next()).map_err(broken)?.is_some() {
        return Err(invalid("data", "the bytes are in the file"));
    }
    let mut hash = Sha256::new();
    let mut piece = vec![0; FILE_PIECE_BYTES];
    loop {
        let got = file.read(&mut piece).map_err(unreadable)?;
        if got == 0 {
            break;
        }
        hash.update(&piece[..got]);
    }
    let found: [u8; 32] = hash.finalize().into();
    let announced = head.announced().1;
    if !announced.is_empty() && announced != found {
        return Err(of_chunk(&ChunkError::Digest));
    }
    head.describe(task, total_bytes, found);
    if let Some(point) = Chunk::RECEIVED {
        reach(point);
    }
    Ok(Received { head, body: Body::File(file) })
}

/// Takes the whole stream in. Blocks; not on a completion thread.
pub(crate) fn receive<Chunk: UpChunk>(
    stream: &mut RequestStream<Chunk>,
    task: &TaskContext,
    spools: &Spools,
) -> Result<Received<Chunk>, RpcStatus> {
    let mut head = first(stream, task)?;
    let (total_bytes, digest) = (head.announced().0, head.announced().1.to_vec());
    let mut verifier = Verifier::new(if total_bytes == 0 { BODY_BYTES_MAX } else { total_bytes });
    let mut body = spools.begin(total_bytes);
    let mut piece = head.take_piece();
    loop {
        let (offset, crc32c, data) = piece;
        verifier.chunk(offset, &data, Some(crc32c)).map_err(|error| of_chunk(&error))?;
        body.write_all(&data)
            .map_err(|error| status(RpcStatusCode::RESOURCE_EXHAUSTED, format!("failed to spool: {error}")))?;
        match block_on(stream.try_next()).map_err(broken)? {
            Some(mut chunk) => piece = chunk.take_piece(),
            None => break,
        }
    }
    let received = verifier.received();
    let announced = (!digest.is_empty()).then_some(digest.as_slice());
    let found =
        verifier.finish((total_bytes > 0).then_some(total_bytes), announced).map_err(|error| of_chunk(&error))?;
    head.describe(task, received, found);
    if let Some(point) = Chunk::RECEIVED {
        reach(point);
    }
    Ok(Received { head, body: Body::Spool(body) })
}

/// Bytes that changed may be sent again (ABORTED); a wrong offset or too many bytes are the sender's mistake.
fn of_chunk(error: &ChunkError) -> RpcStatus {
    let code = match error {
        ChunkError::Checksum(_) | ChunkError::Digest | ChunkError::Short { .. } => RpcStatusCode::ABORTED,
        ChunkError::Offset { .. } => RpcStatusCode::INVALID_ARGUMENT,
        ChunkError::TooLong(_) => RpcStatusCode::OUT_OF_RANGE,
    };
    status(code, error.to_string())
}
