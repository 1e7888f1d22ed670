//! AppendLog and StreamLogs. A log lies on the replicas that its worker has sent it to, so a reader asks here first and then the other
//! members; the newest attempt counts, and within it the bytes that go on where the reader is.

use std::sync::Arc;

use grpcio::RpcStatusCode;
use protobuf::Message;
use raftgrid_proto::v1::*;
use raftgrid_rpc::status::status;

use crate::calls::{pause, read, Dispatch, Outgoing, Surface};
use crate::context::{Context, Core};
use crate::failure::{not_found, Answer, Failure};
use crate::log_book::{LogBookError, LogPart};
use crate::streams::blocking;
use crate::{forward, limits, task, validate, views};

/// Path by which members read each other's logs; not a public method.
const LOG_PATH: &str = "raftgrid/log";

/// NodeService/AppendLog. Served where it arrives.
pub(crate) async fn append(core: Arc<Core>, _: Context, mut request: AppendLogRequest) -> Answer<AppendLogResponse> {
    validate::name("task_id", request.get_task_id())?;
    validate::size("data", request.get_data().len(), limits::LOG_APPEND_BYTES_MAX)?;
    let (logs, task_id, data) = (core.logs.clone(), request.take_task_id(), request.take_data());
    let (epoch, offset) = (request.get_lease_epoch(), request.get_offset());
    let next = blocking(&core, move || logs.append(&task_id, epoch, offset, &data)).await?;
    let mut response = AppendLogResponse::new();
    response.set_next_offset(next.map_err(|error| match error {
        LogBookError::Stale { .. } => status(RpcStatusCode::FAILED_PRECONDITION, error.to_string()),
        LogBookError::Io(_) => status(RpcStatusCode::INTERNAL, error.to_string()),
    })?);
    Ok(response)
}

/// Lets other members read the logs that lie here.
pub(crate) fn register_peer_reads(mut surface: Surface) -> Surface {
    let core = surface.core.clone();
    let dispatch: Dispatch = Arc::new(move |_, request| {
        let core = core.clone();
        Box::pin(async move {
            let request = StreamLogsRequest::parse_from_bytes(&request)
                .map_err(|error| status(RpcStatusCode::INVALID_ARGUMENT, format!("request: {error}")))?;
            let part = local(&core, request.get_task_id(), request.get_offset())
                .await
                .map_err(|failure| crate::calls::shown(&core, failure))?;
            let chunk = part.map(chunk).unwrap_or_default();
            chunk.write_to_bytes().map_err(|error| status(RpcStatusCode::INTERNAL, error.to_string()))
        })
    });
    surface.table.insert(LOG_PATH, dispatch);
    surface
}

fn chunk(part: LogPart) -> LogChunk {
    let mut chunk = LogChunk::new();
    chunk.set_lease_epoch(part.epoch);
    chunk.set_offset(part.offset);
    chunk.set_data(part.data);
    chunk.set_truncated(part.truncated);
    chunk
}

async fn local(core: &Arc<Core>, task_id: &str, offset: u64) -> Answer<Option<LogPart>> {
    let (logs, task_id) = (core.logs.clone(), task_id.to_owned());
    let part = blocking(core, move || logs.read(&task_id, offset, limits::LOG_CHUNK_BYTES_MAX)).await?;
    part.map_err(|error| Failure::Status(status(RpcStatusCode::INTERNAL, format!("failed to read the log: {error}"))))
}

/// Where a reader stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Cursor {
    /// 0: not known yet.
    epoch: u64,
    offset: u64,
}

/// What a chunk is to a reader.
#[derive(Debug, PartialEq, Eq)]
enum Use {
    /// Bytes to pass on.
    Take,
    /// A newer attempt: read it from its start.
    Newer,
    /// Nothing new.
    Pass,
}

impl Cursor {
    fn judge(&self, chunk: &LogChunk) -> Use {
        match chunk.get_lease_epoch() {
            0 => Use::Pass,
            epoch if epoch > self.epoch && self.epoch != 0 => Use::Newer,
            epoch if epoch < self.epoch || chunk.get_data().is_empty() || chunk.get_offset() < self.offset => Use::Pass,
            _ => Use::Take,
        }
    }
}

/// TaskService/StreamLogs.
pub(crate) async fn stream(
    core: Arc<Core>,
    _: Context,
    request: StreamLogsRequest,
    mut sink: Outgoing<LogChunk>,
) -> (Outgoing<LogChunk>, Answer<()>) {
    let answer = follow(&core, &request, &mut sink).await;
    (sink, answer)
}

async fn follow(core: &Arc<Core>, request: &StreamLogsRequest, sink: &mut Outgoing<LogChunk>) -> Answer<()> {
    let task_id = request.get_task_id();
    validate::name("task_id", task_id)?;
    let _permit = core.watches.admit()?;
    let mut cursor = Cursor { epoch: 0, offset: request.get_offset() };
    let mut ended = false;
    loop {
        let from = cursor.offset;
        if let Some(found) = next(core, task_id, &mut cursor).await? {
            if from == 0 && found.get_offset() > 0 {
                // The replica that had its beginning is gone, or has let it go: the worker may have kept it.
                cursor.epoch = found.get_lease_epoch();
                if let Some(kept) = kept(core, task_id, &cursor, request.get_follow()).await? {
                    return kept.send(core, &cursor, sink).await;
                }
            }
            cursor =
                Cursor { epoch: found.get_lease_epoch(), offset: found.get_offset() + found.get_data().len() as u64 };
            sink.send(found).await?;
            continue;
        }
        if ended {
            return Ok(());
        }
        if let Some(kept) = kept(core, task_id, &cursor, request.get_follow()).await? {
            // No replica in reach has more of it: what the worker kept is there as long as an artifact is.
            return kept.send(core, &cursor, sink).await;
        }
        let view = read(core, Consistency::LOCAL).await?;
        let row = views::task(&*view.rows, task_id)?;
        if !request.get_follow() && cursor.epoch != 0 {
            return Ok(());
        }
        match row {
            None if cursor.epoch == 0 => return Err(not_found("task", task_id)),
            // A worker sends the last of a log after its report: one more look.
            Some(row) if !task::is_final(row.get_task().get_status()) => {}
            None | Some(_) => ended = true,
        }
        if !request.get_follow() {
            return Ok(());
        }
        pause(core, limits::LOG_FOLLOW_PAUSE).await;
        sink.still_there().await?;
    }
}

/// What was kept of the log that the reader is at; None while it may still be written, for a reader that follows.
async fn kept(core: &Arc<Core>, task_id: &str, cursor: &Cursor, follows: bool) -> Answer<Option<Kept>> {
    let view = read(core, Consistency::LOCAL).await?;
    let Some(row) = views::task(&*view.rows, task_id)? else { return Ok(None) };
    let over = task::is_final(row.get_task().get_status());
    let Some(kept) = Kept::of(&row, cursor).filter(|_| over || !follows) else { return Ok(None) };
    let Some(info) = views::artifact(&*view.rows, &kept.artifact)? else { return Ok(None) };
    // In one that was cut, places are others than in the log: it is of use from its start only.
    let whole = info.get_total_bytes() <= limits::LOG_KEPT_WHOLE_BYTES_MAX;
    let goes_on = cursor.offset < info.get_total_bytes() && (whole || cursor.offset == 0);
    Ok(goes_on.then_some(kept))
}

/// The log of a finished attempt as its worker has kept it.
struct Kept {
    artifact: String,
    epoch: u64,
}

impl Kept {
    /// None: there is none, or the reader is at another attempt.
    fn of(row: &TaskRow, cursor: &Cursor) -> Option<Self> {
        let artifact = row.get_task().get_log_artifact();
        let epoch = row.get_last_report().get_epoch();
        let same = cursor.epoch == 0 || cursor.epoch == epoch;
        (!artifact.is_empty() && same).then(|| Self { artifact: artifact.to_owned(), epoch })
    }

    /// All of it, from the reader's place on.
    async fn send(self, core: &Arc<Core>, cursor: &Cursor, sink: &mut Outgoing<LogChunk>) -> Answer<()> {
        let _permit = core.downloads.admit()?;
        let (bytes, artifact) = (core.ports.bytes.clone(), self.artifact);
        let mut download = core.data.run(move || bytes.open_artifact(&artifact)).await??;
        let total = download.total_bytes();
        let mut at = cursor.offset.min(total);
        while at < total {
            let (back, data) = core
                .data
                .run(move || {
                    let mut data =
                        vec![0; limits::LOG_CHUNK_BYTES_MAX.min(usize::try_from(total - at).unwrap_or(usize::MAX))];
                    let read = download.read_at(at, &mut data);
                    read.map(|count| {
                        data.truncate(count);
                        (download, data)
                    })
                })
                .await??;
            download = back;
            if data.is_empty() {
                break;
            }
            let part = LogPart { epoch: self.epoch, offset: at, data, truncated: false };
            at += part.data.len() as u64;
            sink.send(chunk(part)).await?;
        }
        Ok(())
    }
}

/// The bytes that go on at the cursor, from here or from another member. Moves the cursor to a newer attempt.
async fn next(core: &Arc<Core>, task_id: &str, cursor: &mut Cursor) -> Answer<Option<LogChunk>> {
    // A newer attempt restarts the search once; attempts are far apart.
    for _ in 0..2 {
        let mut best: Option<LogChunk> = None;
        let mut newest = cursor.epoch;
        let here = local(core, task_id, cursor.offset).await?.map(chunk);
        if let Some(found) = here {
            newest = newest.max(found.get_lease_epoch());
            if cursor.epoch != 0 && cursor.judge(&found) == Use::Take && !found.get_truncated() {
                return Ok(Some(found));
            }
            best = Some(found);
        }
        for found in elsewhere(core, task_id, cursor.offset).await {
            newest = newest.max(found.get_lease_epoch());
            let better = |best: &LogChunk| {
                found.get_lease_epoch() > best.get_lease_epoch()
                    || (found.get_lease_epoch() == best.get_lease_epoch()
                        && !found.get_data().is_empty()
                        && (best.get_data().is_empty() || found.get_offset() < best.get_offset()))
            };
            if best.as_ref().is_none_or(better) {
                best = Some(found);
            }
        }
        if cursor.epoch == 0 {
            cursor.epoch = newest;
        }
        match best.map(|found| (cursor.judge(&found), found)) {
            Some((Use::Take, found)) => return Ok(Some(found)),
            Some((Use::Newer, found)) => *cursor = Cursor { epoch: found.get_lease_epoch(), offset: 0 },
            Some((Use::Pass, _)) | None => return Ok(None),
        }
    }
    Ok(None)
}

/// What the other members have; one that does not answer has nothing.
async fn elsewhere(core: &Arc<Core>, task_id: &str, offset: u64) -> Vec<LogChunk> {
    let mut request = StreamLogsRequest::new();
    request.set_task_id(task_id.to_owned());
    request.set_offset(offset);
    let Ok(encoded) = request.write_to_bytes() else { return Vec::new() };
    let members = core.ports.cluster.members();
    let others = members.get_members().iter().map(Member::get_node_id).filter(|node| *node != core.node_id);
    let calls = others.map(|node| forward::to_node(core, node, LOG_PATH, encoded.clone()));
    let answers = futures::future::join_all(calls).await;
    answers.into_iter().flatten().filter_map(|answer| LogChunk::parse_from_bytes(&answer).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(epoch: u64, offset: u64, data: &[u8]) -> LogChunk {
        LogChunk { lease_epoch: epoch, offset, data: data.to_vec(), ..LogChunk::default() }
    }

    #[test]
    fn what_was_kept_is_of_the_attempt_that_reported_last() {
        let mut row = TaskRow::new();
        row.mut_last_report().set_epoch(5);
        let at = |epoch| Cursor { epoch, offset: 3 };
        assert!(Kept::of(&row, &at(5)).is_none(), "nothing was kept");
        row.mut_task().set_log_artifact("77".to_owned());
        assert_eq!(Kept::of(&row, &at(5)).map(|kept| (kept.artifact, kept.epoch)), Some(("77".to_owned(), 5)));
        assert!(Kept::of(&row, &at(0)).is_some(), "a reader that has found no log yet");
        assert!(Kept::of(&row, &at(6)).is_none() && Kept::of(&row, &at(4)).is_none());
    }

    #[test]
    fn a_reader_takes_what_goes_on_and_passes_what_it_has() {
        let cursor = Cursor { epoch: 5, offset: 10 };
        assert_eq!(cursor.judge(&chunk(5, 10, b"x")), Use::Take);
        assert_eq!(cursor.judge(&chunk(5, 12, b"x")), Use::Take, "bytes in between are gone everywhere");
        assert_eq!(cursor.judge(&chunk(5, 3, b"x")), Use::Pass, "a replica that is behind");
        assert_eq!(cursor.judge(&chunk(5, 10, b"")), Use::Pass);
        assert_eq!(cursor.judge(&chunk(4, 10, b"x")), Use::Pass, "an older attempt");
        assert_eq!(cursor.judge(&chunk(6, 0, b"")), Use::Newer);
        assert_eq!(cursor.judge(&chunk(0, 0, b"")), Use::Pass, "no log there");
        assert_eq!(Cursor::default().judge(&chunk(5, 0, b"x")), Use::Take);
    }
}
