//! A snapshot on its way to a peer: its files first, then, on the other side, the message that names them.
//!
//! A stream that breaks is begun again where the peer stands, as long as bytes move; then raft hears how it ended, once, whatever happened.
//! All of it runs on a thread of its own: a peer that takes nothing holds up nobody else.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::executor::block_on;
use futures::SinkExt;
use grpcio::{CallOption, Client, ClientCStreamSender, RpcStatusCode, WriteFlags};
use raftgrid_driver::{Message, NodeId, Snapshot};
use raftgrid_proto::v1::{SnapshotChunk, SnapshotProgressRequest, SnapshotProgressResponse};
use raftgrid_rpc::answer::ask_now;
use raftgrid_rpc::chunk::CHUNK_BYTES_MAX;
use raftgrid_rpc::methods::{PEER_SNAPSHOT, PEER_SNAPSHOT_PROGRESS};
use raftgrid_rpc::wait::within;
use slog::{info, warn, Logger};

use crate::book::AddressBook;
use crate::dialer::Dialer;
use crate::limits;
use crate::metrics::Metrics;
use crate::raft::RaftSeat;
use crate::snapshots::{SnapshotFile, SnapshotFiles, SnapshotSource};
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
    dialer: &Dialer,
    config: &TransportConfig,
    book: &AddressBook,
    files: &dyn SnapshotFiles,
    message: Message,
    metrics: &Metrics,
    mut report: Report,
) {
    let to = message.to;
    let started = Instant::now();
    match transfer(dialer, config, book, files, &message) {
        Ok(bytes) => {
            metrics.snapshot_bytes_out.add(bytes);
            report.ok = true;
            let took_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
            info!(config.logger, "snapshot sent"; "to" => to, "bytes" => bytes, "took_ms" => took_ms);
        }
        Err(error) => warn!(config.logger, "snapshot not sent"; "to" => to, "error" => error),
    }
}

/// Why an attempt ended.
enum Broken {
    /// Another one is of no use: the files cannot be read, or the peer does not want them.
    Final(String),
    /// Another one may go on from where this one came.
    Again(String),
}

/// Where a stream begins: this many files are whole, and of the next one so many bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Start {
    file: usize,
    offset: u64,
}

/// Attempts until one has arrived, the time is over, or nothing moves any more.
fn transfer(
    dialer: &Dialer,
    config: &TransportConfig,
    book: &AddressBook,
    files: &dyn SnapshotFiles,
    message: &Message,
) -> Result<u64, String> {
    let snapshot = message.snapshot.as_ref().ok_or("the message names no snapshot")?;
    // Kept over all attempts, and with it the files.
    let mut source = files.open(&snapshot.name)?;
    let list = source.files();
    if list.is_empty() {
        return Err("it has no file".to_owned());
    }
    let deadline = Instant::now() + config.snapshot_timeout;
    let (mut furthest, mut in_vain) = (None, 0);
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let attempt = Attempt { dialer, config, book, message, snapshot, files: &list, left };
        let (start, outcome) = attempt.run(&mut *source);
        let why = match outcome {
            Ok(()) => return Ok(list.iter().map(|file| file.bytes).sum()),
            Err(Broken::Final(why)) => return Err(why),
            Err(Broken::Again(why)) => why,
        };
        let reached = start.map(|start| (start.file, start.offset));
        if reached > furthest {
            (furthest, in_vain) = (reached, 0);
        }
        in_vain += 1;
        if in_vain >= limits::SNAPSHOT_TRIES || deadline <= Instant::now() {
            return Err(why);
        }
        // Longer each time: the peer may not have noticed yet that the last stream is gone, and takes one at a time.
        std::thread::park_timeout(limits::SNAPSHOT_PAUSE * 2_u32.pow(in_vain - 1));
    }
}

/// One stream.
struct Attempt<'a> {
    dialer: &'a Dialer,
    config: &'a TransportConfig,
    book: &'a AddressBook,
    message: &'a Message,
    snapshot: &'a Snapshot,
    files: &'a [SnapshotFile],
    left: Duration,
}

impl Attempt<'_> {
    /// Where it began, if it got so far, and how it ended.
    fn run(&self, source: &mut dyn SnapshotSource) -> (Option<Start>, Result<(), Broken>) {
        let Some(address) = self.book.get(self.message.to) else {
            return (None, Err(Broken::Final("its address is not known".to_owned())));
        };
        let client = Client::new(self.dialer.bulk_channel(self.message.to, &address));
        let start = match self.ask(&client) {
            Ok(start) => start,
            Err(broken) => return (None, Err(broken)),
        };
        (Some(start.unwrap_or_default()), self.stream(&client, source, start))
    }

    /// Where the peer stands; None: at the start.
    fn ask(&self, client: &Client) -> Result<Option<Start>, Broken> {
        let mut request = SnapshotProgressRequest::new();
        request.set_hello(self.config.identity.hello(self.message.to));
        request.set_index(self.snapshot.meta.index);
        request.set_term(self.snapshot.meta.term);
        request.set_snapshot(self.snapshot.name.clone());
        let option = CallOption::default().timeout(limits::SNAPSHOT_PROGRESS_TIMEOUT.min(self.left));
        match ask_now(client, &PEER_SNAPSHOT_PROGRESS.method, &request, option) {
            Ok(answer) => Ok(start_of(&answer, self.files)),
            // An older peer takes snapshots from their start only.
            Err(grpcio::Error::RpcFailure(status)) if status.code() == RpcStatusCode::UNIMPLEMENTED => Ok(None),
            Err(error) => Err(ended(&error)),
        }
    }

    fn stream(&self, client: &Client, source: &mut dyn SnapshotSource, start: Option<Start>) -> Result<(), Broken> {
        let option = CallOption::default().timeout(self.left);
        let (mut sender, receiver) =
            client.client_streaming(&PEER_SNAPSHOT.method, option).map_err(|error| ended(&error))?;
        let mut first = SnapshotChunk::new();
        first.set_hello(self.config.identity.hello(self.message.to));
        first.set_message(self.message.data.to_vec());
        first.set_index(self.snapshot.meta.index);
        first.set_term(self.snapshot.meta.term);
        first.set_snapshot(self.snapshot.name.clone());
        first.set_resumed(start.is_some());
        let start = start.unwrap_or_default();
        if start != Start::default() {
            resumed(&self.config.logger, self.message.to, start);
        }
        let pace = Pace::new(self.config.snapshot_bytes_per_second);
        match send_files(&mut sender, source, self.files, first, start, &pace) {
            Err(Stopped::Here(why)) => {
                sender.cancel();
                return Err(Broken::Final(why));
            }
            Err(Stopped::Stalled) => {
                sender.cancel();
                return Err(Broken::Again("the peer took no chunk for too long".to_owned()));
            }
            // If the peer ended the call its status says why, and that is what counts.
            Ok(()) | Err(Stopped::There) => drop(within(limits::SNAPSHOT_STALL, sender.close())),
        }
        // The answer may overtake the end of the last send: what the peer says is what counts.
        match block_on(receiver) {
            Ok(done) if done.get_installed() => Ok(()),
            Ok(done) => Err(Broken::Final(done.get_reason().to_owned())),
            Err(error) => Err(ended(&error)),
        }
    }
}

fn resumed(logger: &Logger, to: NodeId, start: Start) {
    info!(logger, "snapshot goes on"; "to" => to, "files_done" => start.file, "offset" => start.offset);
}

/// Whether another attempt may help.
fn ended(error: &grpcio::Error) -> Broken {
    let why = error.to_string();
    match error {
        grpcio::Error::RpcFailure(status) => match status.code() {
            RpcStatusCode::INVALID_ARGUMENT | RpcStatusCode::FAILED_PRECONDITION | RpcStatusCode::INTERNAL => {
                Broken::Final(why)
            }
            _ => Broken::Again(why),
        },
        _ => Broken::Again(why),
    }
}

/// Where the peer stands in our list of files. What does not fit the list is as good as nothing.
fn start_of(answer: &SnapshotProgressResponse, files: &[SnapshotFile]) -> Option<Start> {
    let file = files.iter().position(|file| file.name == answer.get_file()).filter(|_| answer.get_known())?;
    let start = match answer.get_file_done() {
        true => Start { file: file + 1, offset: 0 },
        false => Start { file, offset: answer.get_offset() },
    };
    files.get(start.file).filter(|file| start.offset < file.bytes || start.offset == 0)?;
    Some(start)
}

/// Why sending ended before the last chunk.
enum Stopped {
    /// The files cannot be read.
    Here(String),
    /// The peer ended the call.
    There,
    /// The peer takes nothing.
    Stalled,
}

fn send_files(
    sender: &mut ClientCStreamSender<SnapshotChunk>,
    source: &mut dyn SnapshotSource,
    files: &[SnapshotFile],
    first: SnapshotChunk,
    start: Start,
    pace: &Pace,
) -> Result<(), Stopped> {
    let mut chunk = first;
    let mut total = 0;
    for (number, file) in files.iter().enumerate().skip(start.file) {
        let mut offset = if number == start.file { start.offset } else { 0 };
        loop {
            let data = source.read(&file.name, offset, pace.chunk_bytes()).map_err(Stopped::Here)?;
            if data.is_empty() && offset < file.bytes {
                return Err(Stopped::Here(format!("{} ends at {offset} instead of {}", file.name, file.bytes)));
            }
            chunk.set_file(file.name.clone());
            chunk.set_offset(offset);
            chunk.set_crc32c(crc32c::crc32c(&data));
            offset += data.len() as u64;
            total += data.len() as u64;
            chunk.set_data(data);
            let done = offset >= file.bytes;
            chunk.set_last_of_file(done);
            chunk.set_last(done && number + 1 == files.len());
            let message = std::mem::take(&mut chunk);
            match within(limits::SNAPSHOT_STALL, sender.send((message, WriteFlags::default()))) {
                Some(Ok(())) => pace.wait(total),
                Some(Err(_)) => return Err(Stopped::There),
                None => return Err(Stopped::Stalled),
            }
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
    /// 0: no limit.
    fn new(bytes_per_second: u64) -> Self {
        Self { started: Instant::now(), bytes_per_second }
    }

    /// A quarter of a second's worth, so that a slow stream still moves.
    fn chunk_bytes(&self) -> usize {
        let share = usize::try_from(self.bytes_per_second / 4).unwrap_or(usize::MAX);
        match self.bytes_per_second {
            0 => CHUNK_BYTES_MAX,
            _ => share.clamp(limits::SNAPSHOT_CHUNK_BYTES_MIN, CHUNK_BYTES_MAX),
        }
    }

    /// So long after the start, this many bytes may have gone.
    fn due(&self, sent: u64) -> Duration {
        match self.bytes_per_second {
            0 => Duration::ZERO,
            rate => Duration::from_secs_f64(sent as f64 / rate as f64),
        }
    }

    fn wait(&self, sent: u64) {
        if let Some(early) = self.due(sent).checked_sub(self.started.elapsed()) {
            std::thread::sleep(early);
        }
    }
}

const _: () = assert!(limits::FRAME_BYTES_MAX >= CHUNK_BYTES_MAX);

#[cfg(test)]
mod tests {
    use super::*;

    fn files() -> Vec<SnapshotFile> {
        [("a", 10), ("b", 0), ("c", 5)].map(|(name, bytes)| SnapshotFile { name: name.to_owned(), bytes }).to_vec()
    }

    fn answer(file: &str, offset: u64, file_done: bool) -> SnapshotProgressResponse {
        let mut answer = SnapshotProgressResponse::new();
        answer.set_known(true);
        answer.set_file(file.to_owned());
        answer.set_offset(offset);
        answer.set_file_done(file_done);
        answer
    }

    #[test]
    fn a_stream_goes_on_where_the_peer_stands_or_from_its_start() {
        let at = |file, offset| Some(Start { file, offset });
        for (said, expected) in [
            (answer("a", 4, false), at(0, 4)),
            (answer("a", 10, true), at(1, 0)),
            (answer("b", 0, true), at(2, 0)),
            (answer("c", 5, true), None),
            (answer("x", 1, false), None),
            (answer("a", 11, false), None),
            (SnapshotProgressResponse::new(), None),
        ] {
            assert_eq!(start_of(&said, &files()), expected, "{said:?}");
        }
    }

    #[test]
    fn a_stream_never_runs_ahead_of_its_rate() {
        assert_eq!(Pace::new(1 << 20).due(3 << 20), Duration::from_secs(3));
        assert_eq!(Pace::new(0).due(u64::MAX), Duration::ZERO, "no limit");
    }

    #[test]
    fn a_slow_stream_sends_small_chunks_often_enough_to_be_seen_moving() {
        for rate in [1_u64, 4 * 1024, 1 << 20, 1 << 40] {
            let chunk = Pace::new(rate).chunk_bytes();
            assert!((limits::SNAPSHOT_CHUNK_BYTES_MIN..=CHUNK_BYTES_MAX).contains(&chunk), "{rate}");
        }
        assert_eq!(Pace::new(0).chunk_bytes(), CHUNK_BYTES_MAX);
        // At the slowest rate that may be set, a chunk takes less than what counts as a stall.
        assert!(
            limits::SNAPSHOT_CHUNK_BYTES_MIN as u64 / limits::SNAPSHOT_BYTES_PER_SECOND_MIN
                < limits::SNAPSHOT_STALL.as_secs()
        );
    }
}
