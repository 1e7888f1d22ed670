//! A snapshot on its way in: every chunk is checked, the whole is verified and durable before its message is stepped.

use futures::executor::block_on;
use futures::TryStreamExt;
use grpcio::{RequestStream, RpcStatus, RpcStatusCode};
use raftgrid_driver::{Index, Message, NodeId};
use raftgrid_proto::v1::SnapshotChunk;
use raftgrid_rpc::chunk::{ChunkError, CHUNK_BYTES_MAX};
use raftgrid_rpc::status::status;

use crate::hello::Doorkeeper;
use crate::limits;
use crate::metrics::Metrics;
use crate::snapshots::{SnapshotFiles, SnapshotSink};
use crate::wire::broken;

/// Takes a whole stream. The message to step, with its snapshot named as it was staged; and the snapshot's index.
pub(crate) fn receive(
    door: &Doorkeeper,
    files: &dyn SnapshotFiles,
    metrics: &Metrics,
    stream: &mut RequestStream<SnapshotChunk>,
) -> Result<(Message, Index), RpcStatus> {
    let mut chunk = next(stream)?;
    let from = door.check(chunk.hello.as_ref())?;
    let (index, term) = (chunk.get_index(), chunk.get_term());
    if index == 0 || term == 0 || chunk.get_message().is_empty() {
        return Err(refused("the first chunk has no message, index or term"));
    }
    let data = chunk.take_message();
    let mut inbound = Inbound { sink: files.begin(index, term).map_err(|why| failed(&why))?, file: None, files: 0 };
    loop {
        metrics.snapshot_bytes_in.add(chunk.get_data().len() as u64);
        if inbound.take(chunk)? {
            break;
        }
        chunk = next(stream)?;
    }
    // The sender closes its side now; answering before it has would look to it like a stream that broke.
    if !matches!(block_on(stream.try_next()), Ok(None)) {
        return Err(refused("the stream goes on after its last chunk, or broke"));
    }
    let snapshot = inbound.sink.finish().map_err(|why| failed(&why))?;
    Ok((message(door.identity().node_id, from, data, snapshot), index))
}

fn message(to: NodeId, from: NodeId, data: Vec<u8>, snapshot: raftgrid_driver::Snapshot) -> Message {
    Message { to, from, data: data.into(), snapshot: Some(snapshot) }
}

fn next(stream: &mut RequestStream<SnapshotChunk>) -> Result<SnapshotChunk, RpcStatus> {
    match block_on(stream.try_next()) {
        Ok(Some(chunk)) => Ok(chunk),
        Ok(None) => Err(status(
            RpcStatusCode::DATA_LOSS,
            "failed to receive the snapshot: the stream ended before its last chunk",
        )),
        Err(error) => Err(broken("the snapshot", &error)),
    }
}

struct Inbound {
    sink: Box<dyn SnapshotSink>,
    /// The file under way and its bytes so far.
    file: Option<(String, u64)>,
    files: usize,
}

impl Inbound {
    /// True: this was the last chunk.
    fn take(&mut self, mut chunk: SnapshotChunk) -> Result<bool, RpcStatus> {
        let data = chunk.take_data();
        let name = chunk.take_file();
        let (name, received) = match self.file.take() {
            Some((file, received)) if file == name => (file, received),
            Some((file, _)) => return Err(refused(&format!("{name:?} begins before {file:?} has ended"))),
            None => {
                self.files += 1;
                (name, 0)
            }
        };
        if name.is_empty()
            || name.len() > limits::FILE_NAME_BYTES_MAX
            || name.contains(['/', '\\', '\0'])
            || name.starts_with('.')
        {
            return Err(refused(&format!("{name:?} is not a plain file name")));
        }
        if self.files > limits::SNAPSHOT_FILES_MAX || data.len() > CHUNK_BYTES_MAX {
            return Err(refused("too many files, or too large a chunk"));
        }
        if chunk.get_offset() != received {
            return Err(refused(&ChunkError::Offset { got: chunk.get_offset(), expected: received }.to_string()));
        }
        if crc32c::crc32c(&data) != chunk.get_crc32c() {
            let why = ChunkError::Checksum(received);
            return Err(status(RpcStatusCode::DATA_LOSS, format!("failed to receive the snapshot: {name}: {why}")));
        }
        self.sink.write(&name, received, &data).map_err(|why| failed(&why))?;
        if !chunk.get_last_of_file() {
            if chunk.get_last() {
                return Err(refused(&format!("the stream ends within {name:?}")));
            }
            self.file = Some((name, received + data.len() as u64));
        }
        Ok(chunk.get_last())
    }
}

fn refused(why: &str) -> RpcStatus {
    status(RpcStatusCode::INVALID_ARGUMENT, format!("failed to receive the snapshot: {why}"))
}

fn failed(why: &str) -> RpcStatus {
    status(RpcStatusCode::INTERNAL, format!("failed to receive the snapshot: {why}"))
}
