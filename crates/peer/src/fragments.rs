//! Fragments of artifacts between replicas, the serving side. Runs on threads of its own: it reads, writes and fsyncs files.

use futures::executor::block_on;
use futures::{SinkExt, TryStreamExt};
use grpcio::{RequestStream, RpcStatus, RpcStatusCode, ServerStreamingSink, WriteFlags};
use raftgrid_proto::v1::{FragmentChunk, FragmentReceipt, GetFragmentRequest};
use raftgrid_replica::ports::Bytes;
use raftgrid_rpc::chunk::{room, ChunkError, CHUNK_BYTES_MAX};
use raftgrid_rpc::status::status;

use crate::hello::Visitor;
use crate::limits;
use crate::metrics::Metrics;
use crate::wire::{as_status, broken};

/// Stores a fragment; the receipt is given when it is durable.
pub(crate) fn put(
    visitor: &Visitor,
    bytes: &dyn Bytes,
    metrics: &Metrics,
    stream: &mut RequestStream<FragmentChunk>,
) -> Result<FragmentReceipt, RpcStatus> {
    let first = block_on(stream.try_next()).map_err(|error| broken("the fragment", &error))?;
    let first = first.ok_or_else(|| refused("the stream is empty"))?;
    visitor.check(first.hello.as_ref())?;
    let (artifact_id, fragment, total) = (first.get_artifact_id(), first.get_fragment(), first.get_total_bytes());
    let digest: [u8; 32] = first.get_digest().try_into().map_err(|_| refused("the digest has not 32 bytes"))?;
    if total > limits::FRAGMENT_BYTES_MAX {
        return Err(refused(&ChunkError::TooLong(limits::FRAGMENT_BYTES_MAX).to_string()));
    }
    let mut sink = bytes.fragment_sink(artifact_id, fragment, total, digest).map_err(as_status)?;
    let mut received = 0;
    let mut next = Some(first);
    while let Some(chunk) = next {
        check(&chunk, received, total)?;
        sink.write(chunk.get_data()).map_err(as_status)?;
        received += chunk.get_data().len() as u64;
        metrics.fragment_bytes_in.add(chunk.get_data().len() as u64);
        next = block_on(stream.try_next()).map_err(|error| broken("the fragment", &error))?;
    }
    if received != total {
        return Err(lost(&ChunkError::Short { got: received, expected: total }));
    }
    sink.finish().map_err(as_status)?;
    let mut receipt = FragmentReceipt::new();
    receipt.set_node_id(visitor.host());
    receipt.set_artifact_id(artifact_id);
    receipt.set_fragment(fragment);
    receipt.set_digest(digest.to_vec());
    receipt.set_stored(true);
    Ok(receipt)
}

fn check(chunk: &FragmentChunk, received: u64, total: u64) -> Result<(), RpcStatus> {
    let length = chunk.get_data().len();
    if chunk.get_offset() != received {
        return Err(refused(&ChunkError::Offset { got: chunk.get_offset(), expected: received }.to_string()));
    }
    if crc32c::crc32c(chunk.get_data()) != chunk.get_crc32c() {
        return Err(lost(&ChunkError::Checksum(received)));
    }
    if length > CHUNK_BYTES_MAX || received + length as u64 > total {
        return Err(refused(&ChunkError::TooLong(total).to_string()));
    }
    Ok(())
}

/// Streams a fragment that is kept here.
pub(crate) fn get(
    visitor: &Visitor,
    bytes: &dyn Bytes,
    metrics: &Metrics,
    request: &GetFragmentRequest,
    sink: &mut ServerStreamingSink<FragmentChunk>,
) -> Result<(), RpcStatus> {
    visitor.check(request.hello.as_ref())?;
    let (artifact_id, fragment) = (request.get_artifact_id(), request.get_fragment());
    let mut download = bytes.open_fragment(artifact_id, fragment).map_err(as_status)?;
    let total = download.total_bytes();
    let mut at = request.get_offset();
    if at > total {
        return Err(refused("the offset is beyond the end"));
    }
    let mut chunk = FragmentChunk::new();
    chunk.set_artifact_id(artifact_id);
    chunk.set_fragment(fragment);
    chunk.set_total_bytes(total);
    chunk.set_digest(download.digest().to_vec());
    loop {
        let mut data = room((total - at).min(CHUNK_BYTES_MAX as u64) as usize);
        let got = download.read_at(at, &mut data).map_err(as_status)?;
        data.truncate(got);
        if got == 0 && at < total {
            return Err(status(RpcStatusCode::DATA_LOSS, format!("the fragment ends at {at} instead of {total}")));
        }
        chunk.set_offset(at);
        chunk.set_crc32c(crc32c::crc32c(&data));
        chunk.set_data(data);
        at += got as u64;
        metrics.fragment_bytes_out.add(got as u64);
        let message = std::mem::take(&mut chunk);
        block_on(sink.send((message, WriteFlags::default()))).map_err(|error| broken("the fragment", &error))?;
        if at >= total {
            return Ok(());
        }
    }
}

fn refused(why: &str) -> RpcStatus {
    status(RpcStatusCode::INVALID_ARGUMENT, format!("failed to take the fragment: {why}"))
}

fn lost(why: &ChunkError) -> RpcStatus {
    status(RpcStatusCode::DATA_LOSS, format!("failed to take the fragment: {why}; send it again"))
}
