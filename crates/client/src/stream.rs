//! Bodies in chunks, one attempt at a time: the first chunk describes the whole, and every chunk must move within its time.

use std::io::{Read, Seek, SeekFrom};
use std::time::Duration;

use futures::executor::block_on;
use futures::{SinkExt, TryStreamExt};
use protobuf::Message;
use raftgrid_rpc::chunk::CHUNK_BYTES_MAX;
use raftgrid_rpc::grpcio::{CallOption, ClientSStreamReceiver, WriteFlags};
use raftgrid_rpc::methods::Rpc;
use raftgrid_rpc::wait::within;

use crate::call::Client;
use crate::error::ClientError;
use crate::limits::{CHUNK_STALL, FIRST_CHUNK, RESUME_ASK};

/// What an upload needs: a stream that can be started again.
pub trait ReadSeek: Read + Seek {}
impl<T: Read + Seek + ?Sized> ReadSeek for T {}

impl Client {
    /// Sends `head` with the first chunk of `source` from byte `from` on, then the rest, and waits for the answer. `fill(chunk, offset, crc32c, data)`
    /// puts the data in; `progress(done bytes, 0)` is called after each chunk.
    #[allow(clippy::too_many_arguments, reason = "one attempt of a stream has that many parts, and two callers")]
    pub(crate) fn stream_up<Chunk: Message, Resp: Message + Unpin>(
        &self,
        endpoint: &str,
        rpc: &Rpc<Chunk, Resp>,
        head: Chunk,
        fill: fn(&mut Chunk, u64, u32, Vec<u8>),
        source: &mut dyn ReadSeek,
        from: u64,
        timeout: Duration,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Resp, ClientError> {
        let total_bytes = source.seek(SeekFrom::End(0))?;
        source.seek(SeekFrom::Start(from))?;
        let (mut sender, receiver) = self
            .bulk_stub(endpoint)
            .client_streaming(&rpc.method, CallOption::default().timeout(timeout))
            .map_err(|error| ClientError::of(endpoint, error))?;
        let mut chunk = head;
        let mut offset = from;
        loop {
            let data = read_chunk(source)?;
            let length = data.len() as u64;
            let crc32c = crc32c::crc32c(&data);
            fill(&mut chunk, offset, crc32c, data);
            let next = (std::mem::replace(&mut chunk, Chunk::new()), WriteFlags::default());
            // Dropping the two ends of the call ends it.
            let sent = within(CHUNK_STALL, sender.send(next)).ok_or_else(|| stalled(endpoint, CHUNK_STALL))?;
            offset += length;
            progress(offset, total_bytes);
            // A server that refuses ends the call; its reason is in the answer, not in the send.
            if sent.is_err() || offset >= total_bytes || length == 0 {
                break;
            }
        }
        // An error of close has its cause in the answer too. The deadline of the call bounds the wait for it.
        let _ = within(CHUNK_STALL, sender.close());
        block_on(receiver).map_err(|error| ClientError::of(endpoint, error))
    }
}

impl Client {
    /// Sends `head` without any data: the server says how much of the whole it has already.
    pub(crate) fn ask_up<Chunk: Message, Resp: Message + Unpin>(
        &self,
        endpoint: &str,
        rpc: &Rpc<Chunk, Resp>,
        head: Chunk,
    ) -> Result<Resp, ClientError> {
        let option = CallOption::default().timeout(RESUME_ASK);
        let stub = self.bulk_stub(endpoint);
        let (mut sender, receiver) =
            stub.client_streaming(&rpc.method, option).map_err(|error| ClientError::of(endpoint, error))?;
        // Errors have their cause in the answer.
        let _ = within(RESUME_ASK, sender.send((head, WriteFlags::default())));
        let _ = within(RESUME_ASK, sender.close());
        block_on(receiver).map_err(|error| ClientError::of(endpoint, error))
    }
}

fn stalled(endpoint: &str, time: Duration) -> ClientError {
    ClientError::unavailable(endpoint, format!("no bytes moved for {} s", time.as_secs()))
}

/// A stream of chunks on its way down. Dropping it ends the call.
pub(crate) struct Down<'a, Chunk> {
    endpoint: &'a str,
    stream: ClientSStreamReceiver<Chunk>,
    time: Duration,
}

impl<Chunk: Message + Unpin> Down<'_, Chunk> {
    /// The next chunk; None at the end. An endpoint that falls silent is Unavailable.
    pub(crate) fn next(&mut self) -> Result<Option<Chunk>, ClientError> {
        let next = within(self.time, self.stream.try_next()).ok_or_else(|| stalled(self.endpoint, self.time))?;
        self.time = CHUNK_STALL;
        next.map_err(|error| ClientError::of(self.endpoint, error))
    }
}

impl Client {
    /// Begins a stream down.
    pub(crate) fn stream_down<'a, Req: Message, Chunk: Message>(
        &self,
        endpoint: &'a str,
        rpc: &Rpc<Req, Chunk>,
        request: &Req,
        timeout: Duration,
    ) -> Result<Down<'a, Chunk>, ClientError> {
        let option = CallOption::default().timeout(timeout);
        let stream = self.bulk_stub(endpoint).server_streaming(&rpc.method, request, option);
        let stream = stream.map_err(|error| ClientError::of(endpoint, error))?;
        Ok(Down { endpoint, stream, time: FIRST_CHUNK })
    }
}

/// The next chunk, full unless the end is nearer; empty at the end.
pub(crate) fn read_chunk(source: &mut dyn ReadSeek) -> Result<Vec<u8>, ClientError> {
    let mut data = Vec::with_capacity(CHUNK_BYTES_MAX);
    source.take(CHUNK_BYTES_MAX as u64).read_to_end(&mut data)?;
    Ok(data)
}
