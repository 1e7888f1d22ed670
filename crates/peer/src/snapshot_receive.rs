//! A snapshot on its way in: every chunk is checked, the whole is verified and durable before its message is stepped.
//!
//! When its stream breaks, what came is kept, and the same sender's next stream of the same snapshot goes on behind the last verified byte.
//! A stream of another sender or snapshot throws it away. A restart does, too.

use std::sync::{Mutex, MutexGuard, PoisonError};

use futures::TryStreamExt;
use grpcio::{RequestStream, RpcStatus, RpcStatusCode};
use raftgrid_driver::{Index, Message, NodeId, Term};
use raftgrid_proto::v1::{SnapshotChunk, SnapshotProgressRequest, SnapshotProgressResponse};
use raftgrid_rpc::chunk::{ChunkError, CHUNK_BYTES_MAX};
use raftgrid_rpc::status::status;
use raftgrid_rpc::wait::within;

use crate::hello::Visitor;
use crate::limits;
use crate::metrics::Metrics;
use crate::snapshots::{SnapshotFiles, SnapshotSink};
use crate::wire::broken;

/// Which transfer it is.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Transfer {
    from: NodeId,
    index: Index,
    term: Term,
    /// The sender's name; "": an old sender, which does not resume.
    name: String,
}

/// The one place for a snapshot on its way in.
#[derive(Default)]
pub(crate) struct Parked(Mutex<Place>);

#[derive(Default)]
enum Place {
    #[default]
    Empty,
    /// A stream of it runs, or has broken and nobody has noticed yet.
    Running(Transfer),
    /// What came of a snapshot whose stream broke.
    Kept(Inbound),
}

impl Parked {
    fn lock(&self) -> MutexGuard<'_, Place> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a stream; what was kept of the last one, if anything.
    fn begin(&self, transfer: &Transfer) -> (Running<'_>, Option<Inbound>) {
        let kept = match std::mem::replace(&mut *self.lock(), Place::Running(transfer.clone())) {
            Place::Kept(inbound) => Some(inbound),
            Place::Empty | Place::Running(_) => None,
        };
        (Running(self), kept)
    }

    /// How far the transfer came that is asked about.
    ///
    /// # Errors
    /// UNAVAILABLE while its last stream has not ended here: where it will have come to is not known, and "nowhere" would send it all anew.
    pub(crate) fn progress(
        &self,
        from: NodeId,
        asked: &SnapshotProgressRequest,
    ) -> Result<SnapshotProgressResponse, RpcStatus> {
        let name = asked.get_snapshot().to_owned();
        let transfer = Transfer { from, index: asked.get_index(), term: asked.get_term(), name };
        let mut answer = SnapshotProgressResponse::new();
        match &*self.lock() {
            Place::Running(running) if *running == transfer => return Err(runs_on()),
            Place::Kept(Inbound { transfer: kept, at: Some(at), .. }) if *kept == transfer => {
                answer.set_known(true);
                answer.set_file(at.file.clone());
                answer.set_offset(at.bytes);
                answer.set_file_done(at.done);
            }
            Place::Empty | Place::Running(_) | Place::Kept(_) => {}
        }
        Ok(answer)
    }
}

/// The place while a stream has it; empty afterwards, however the stream ends, unless what came is kept.
struct Running<'a>(&'a Parked);

impl Running<'_> {
    fn keep(self, inbound: Inbound) {
        // What cannot be asked for again is not kept.
        if !inbound.transfer.name.is_empty() {
            *self.0.lock() = Place::Kept(inbound);
        }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let mut place = self.0.lock();
        if matches!(*place, Place::Running(_)) {
            *place = Place::Empty;
        }
    }
}

/// Why a stream ended before its time.
enum Ended {
    /// The next one may go on.
    Broken(RpcStatus),
    /// What came is worth nothing.
    Refused(RpcStatus),
}

/// Takes a whole stream. The message to step, with its snapshot named as it was staged; and the snapshot's index.
pub(crate) fn receive(
    visitor: &Visitor,
    files: &dyn SnapshotFiles,
    metrics: &Metrics,
    parked: &Parked,
    stream: &mut RequestStream<SnapshotChunk>,
) -> Result<(Message, Index), RpcStatus> {
    let mut chunk = next(stream)?;
    let from = visitor.check(chunk.hello.as_ref())?;
    let (index, term) = (chunk.get_index(), chunk.get_term());
    if index == 0 || term == 0 || chunk.get_message().is_empty() {
        return Err(refused("the first chunk has no message, index or term"));
    }
    if chunk.get_snapshot().len() > limits::SNAPSHOT_NAME_BYTES_MAX {
        return Err(refused("the snapshot's name is too long"));
    }
    let data = chunk.take_message();
    let transfer = Transfer { from, index, term, name: chunk.take_snapshot() };
    // Whatever was kept is taken up now or is of no more use.
    let (running, kept) = parked.begin(&transfer);
    let mut inbound = if chunk.get_resumed() {
        kept.filter(|inbound| inbound.transfer == transfer).ok_or_else(nothing_kept)?
    } else {
        drop(kept);
        Inbound::new(transfer, files.begin(index, term).map_err(|why| failed(&why))?)
    };
    if let Err(ended) = inbound.take_all(chunk, metrics, stream) {
        return Err(match ended {
            Ended::Broken(status) => {
                running.keep(inbound);
                status
            }
            Ended::Refused(status) => status,
        });
    }
    let snapshot = inbound.sink.finish().map_err(|why| failed(&why))?;
    Ok((Message { to: visitor.host(), from, data: data.into(), snapshot: Some(snapshot) }, index))
}

fn next(stream: &mut RequestStream<SnapshotChunk>) -> Result<SnapshotChunk, RpcStatus> {
    match within(limits::SNAPSHOT_STALL, stream.try_next()) {
        Some(Ok(Some(chunk))) => Ok(chunk),
        Some(Ok(None)) => Err(status(
            RpcStatusCode::DATA_LOSS,
            "failed to receive the snapshot: the stream ended before its last chunk",
        )),
        Some(Err(error)) => Err(broken("the snapshot", &error)),
        None => Err(status(RpcStatusCode::CANCELLED, "failed to receive the snapshot: no chunk came for too long")),
    }
}

/// Where a transfer stands.
struct At {
    file: String,
    /// Verified and written.
    bytes: u64,
    done: bool,
}

struct Inbound {
    transfer: Transfer,
    sink: Box<dyn SnapshotSink>,
    at: Option<At>,
    files: usize,
}

impl Inbound {
    fn new(transfer: Transfer, sink: Box<dyn SnapshotSink>) -> Self {
        Self { transfer, sink, at: None, files: 0 }
    }

    fn take_all(
        &mut self,
        first: SnapshotChunk,
        metrics: &Metrics,
        stream: &mut RequestStream<SnapshotChunk>,
    ) -> Result<(), Ended> {
        let mut chunk = first;
        loop {
            metrics.snapshot_bytes_in.add(chunk.get_data().len() as u64);
            if self.take(chunk)? {
                break;
            }
            chunk = next(stream).map_err(Ended::Broken)?;
        }
        // The sender closes its side now; answering before it has would look to it like a stream that broke.
        match within(limits::SNAPSHOT_STALL, stream.try_next()) {
            Some(Ok(None)) => Ok(()),
            _ => Err(Ended::Refused(refused("the stream goes on after its last chunk, or broke"))),
        }
    }

    /// True: this was the last chunk.
    fn take(&mut self, mut chunk: SnapshotChunk) -> Result<bool, Ended> {
        let no = |why: &str| Err(Ended::Refused(refused(why)));
        let data = chunk.take_data();
        let name = chunk.take_file();
        let received = match &self.at {
            Some(at) if !at.done && at.file == name => at.bytes,
            Some(at) if !at.done => return no(&format!("{name:?} begins before {:?} has ended", at.file)),
            Some(_) | None => {
                self.files += 1;
                0
            }
        };
        if name.is_empty()
            || name.len() > limits::FILE_NAME_BYTES_MAX
            || name.contains(['/', '\\', '\0'])
            || name.starts_with('.')
        {
            return no(&format!("{name:?} is not a plain file name"));
        }
        if self.files > limits::SNAPSHOT_FILES_MAX || data.len() > CHUNK_BYTES_MAX {
            return no("too many files, or too large a chunk");
        }
        if chunk.get_offset() != received {
            return no(&ChunkError::Offset { got: chunk.get_offset(), expected: received }.to_string());
        }
        if crc32c::crc32c(&data) != chunk.get_crc32c() {
            // The bytes before it are good: the next stream brings these once more.
            let why = ChunkError::Checksum(received);
            let text = format!("failed to receive the snapshot: {name}: {why}");
            return Err(Ended::Broken(status(RpcStatusCode::DATA_LOSS, text)));
        }
        self.sink.write(&name, received, &data).map_err(|why| Ended::Refused(failed(&why)))?;
        let done = chunk.get_last_of_file();
        if chunk.get_last() && !done {
            return no(&format!("the stream ends within {name:?}"));
        }
        self.at = Some(At { file: name, bytes: received + data.len() as u64, done });
        Ok(chunk.get_last())
    }
}

fn refused(why: &str) -> RpcStatus {
    status(RpcStatusCode::INVALID_ARGUMENT, format!("failed to receive the snapshot: {why}"))
}

fn nothing_kept() -> RpcStatus {
    status(
        RpcStatusCode::ABORTED,
        "failed to go on with the snapshot: nothing of it is kept here; send it from its start",
    )
}

fn runs_on() -> RpcStatus {
    status(RpcStatusCode::UNAVAILABLE, "failed to say how far the snapshot came: its last stream has not ended here")
}

fn failed(why: &str) -> RpcStatus {
    status(RpcStatusCode::INTERNAL, format!("failed to receive the snapshot: {why}"))
}
