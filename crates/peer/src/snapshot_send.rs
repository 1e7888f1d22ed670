//! A snapshot on its way to a peer: its files first, then, on the other side, the message that names them.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::executor::block_on;
use futures::SinkExt;
use grpcio::{CallOption, Client, ClientCStreamSender, Environment, WriteFlags};
use raftgrid_driver::{Message, NodeId};
use raftgrid_proto::v1::SnapshotChunk;
use raftgrid_rpc::chunk::CHUNK_BYTES_MAX;
use raftgrid_rpc::methods::PEER_SNAPSHOT;
use slog::{info, warn};

use crate::book::AddressBook;
use crate::limits;
use crate::metrics::Metrics;
use crate::raft::RaftSeat;
use crate::snapshots::{SnapshotFiles, SnapshotSource};
use crate::transport::TransportConfig;

/// Tells raft how a snapshot ended: once, and "failed" if nobody says otherwise.
pub(crate) struct Report {
    seat: RaftSeat,
    to: NodeId,
    sending: Arc<AtomicUsize>,
    ok: bool,
}

impl Report {
    pub(crate) fn new(seat: RaftSeat, to: NodeId, sending: Arc<AtomicUsize>) -> Self {
        Self { seat, to, sending, ok: false }
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        self.sending.fetch_sub(1, Ordering::AcqRel);
        self.seat.snapshot_sent(self.to, self.ok);
    }
}

/// The body of a snapshot's thread.
pub(crate) fn send_snapshot(
    env: &Arc<Environment>,
    config: &TransportConfig,
    book: &AddressBook,
    files: &dyn SnapshotFiles,
    message: Message,
    metrics: &Metrics,
    mut report: Report,
) {
    let to = message.to;
    let started = Instant::now();
    match stream(env, config, book, files, message) {
        Ok(bytes) => {
            metrics.snapshot_bytes_out.add(bytes);
            report.ok = true;
            let took_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
            info!(config.logger, "snapshot sent"; "to" => to, "bytes" => bytes, "took_ms" => took_ms);
        }
        Err(error) => warn!(config.logger, "snapshot not sent"; "to" => to, "error" => error),
    }
}

fn stream(
    env: &Arc<Environment>,
    config: &TransportConfig,
    book: &AddressBook,
    files: &dyn SnapshotFiles,
    message: Message,
) -> Result<u64, String> {
    let snapshot = message.snapshot.as_ref().ok_or("the message names no snapshot")?;
    let mut source = files.open(&snapshot.name)?;
    let address = book.get(message.to).ok_or("its address is not known")?;
    let client = Client::new(raftgrid_rpc::bulk_channel(env, &address));
    let option = CallOption::default().timeout(config.snapshot_timeout);
    let (mut sender, receiver) =
        client.client_streaming(&PEER_SNAPSHOT.method, option).map_err(|error| error.to_string())?;
    let mut first = SnapshotChunk::new();
    first.set_hello(config.identity.hello(message.to));
    first.set_message(message.data.to_vec());
    first.set_index(snapshot.meta.index);
    first.set_term(snapshot.meta.term);
    let bytes = source.files().iter().map(|file| file.bytes).sum();
    let sent = send_files(&mut sender, &mut *source, first, config.snapshot_bytes_per_second);
    if matches!(sent, Err(Broken::Here(_))) {
        sender.cancel();
    } else {
        // If the peer ended the call its status says why, and that is what counts.
        let _ = block_on(sender.close());
    }
    let answer = block_on(receiver);
    match (sent, answer) {
        (Err(Broken::Here(why)), _) => Err(why),
        // The answer may overtake the end of the last send: what the peer says is what counts.
        (Ok(()) | Err(Broken::There), Ok(done)) if done.get_installed() => Ok(bytes),
        (Ok(()) | Err(Broken::There), Ok(done)) => Err(done.get_reason().to_owned()),
        (Ok(()) | Err(Broken::There), Err(error)) => Err(error.to_string()),
    }
}

enum Broken {
    /// The files cannot be read.
    Here(String),
    /// The peer ended the call.
    There,
}

fn send_files(
    sender: &mut ClientCStreamSender<SnapshotChunk>,
    source: &mut dyn SnapshotSource,
    first: SnapshotChunk,
    bytes_per_second: u64,
) -> Result<(), Broken> {
    let files = source.files();
    let last = files.len().checked_sub(1).ok_or_else(|| Broken::Here("it has no file".to_owned()))?;
    let pace = Pace { started: Instant::now(), bytes_per_second };
    let mut chunk = first;
    let mut total = 0;
    for (number, file) in files.iter().enumerate() {
        let mut offset = 0;
        loop {
            let data = source.read(&file.name, offset, CHUNK_BYTES_MAX).map_err(Broken::Here)?;
            if data.is_empty() && offset < file.bytes {
                return Err(Broken::Here(format!("{} ends at {offset} instead of {}", file.name, file.bytes)));
            }
            chunk.set_file(file.name.clone());
            chunk.set_offset(offset);
            chunk.set_crc32c(crc32c::crc32c(&data));
            offset += data.len() as u64;
            total += data.len() as u64;
            chunk.set_data(data);
            let done = offset >= file.bytes;
            chunk.set_last_of_file(done);
            chunk.set_last(done && number == last);
            let message = std::mem::take(&mut chunk);
            block_on(sender.send((message, WriteFlags::default()))).map_err(|_| Broken::There)?;
            pace.wait(total);
            if done {
                break;
            }
        }
    }
    Ok(())
}

/// Keeps a stream below its rate.
struct Pace {
    started: Instant,
    bytes_per_second: u64,
}

impl Pace {
    fn wait(&self, sent: u64) {
        if self.bytes_per_second == 0 {
            return;
        }
        let due = Duration::from_secs_f64(sent as f64 / self.bytes_per_second as f64);
        if let Some(early) = due.checked_sub(self.started.elapsed()) {
            std::thread::sleep(early);
        }
    }
}

const _: () = assert!(limits::FRAME_BYTES_MAX >= CHUNK_BYTES_MAX);
