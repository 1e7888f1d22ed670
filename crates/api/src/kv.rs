//! KvService: replicated keys; under the name `Example`, too, for clients that know Add, Get, Stat and Watch.
//!
//! A watch reads rows, sends what is new, waits until something was applied, and reads again: it shows the newest value, and passes over
//! none that stays.

use std::sync::Arc;
use std::time::{Duration, Instant};

use raftgrid_manifest::{views, watched, Position};
use raftgrid_proto::v1::*;
use raftgrid_replica::ports::CallError;
use raftgrid_rpc::methods;
use serde_json::json;

use crate::calls::{read, read_at, reply_to, rows_changed_after, Outgoing, Surface};
use crate::context::{Context, Core};
use crate::failure::{invalid, taken, Answer};
use crate::{limits, validate, values};

pub(crate) fn register(surface: Surface) -> Surface {
    surface
        .unary(&methods::KV_ADD, add)
        .unary(&methods::KV_GET, get)
        .unary(&methods::KV_STAT, stat)
        .unary(&methods::KV_COMPARE_AND_SET, compare_and_set)
        .unary(&methods::KV_DELETE, delete)
        .unary(&methods::KV_LIST, list)
        .server_streaming(&methods::KV_WATCH, watch)
}

/// What the machine refuses as well, told before anything is proposed.
fn check_key(key: &str) -> Answer<()> {
    if key.is_empty() {
        return Err(invalid("key", "is empty"));
    }
    if key.chars().any(char::is_control) {
        return Err(invalid("key", "contains a control character"));
    }
    validate::size("key", key.len(), raftgrid_manifest::limits::KV_KEY_BYTES_MAX)
}

fn writer(task_id: &str, epoch: u64, job_id: &str) -> Answer<KvWriter> {
    validate::optional_name("task_id", task_id)?;
    validate::optional_name("job_id", job_id)?;
    Ok(KvWriter { task_id: task_id.to_owned(), epoch, job_id: job_id.to_owned(), ..KvWriter::default() })
}

async fn add(core: Arc<Core>, context: Context, mut request: AddRequest) -> Answer<AddResponse> {
    check_key(request.get_key())?;
    validate::optional_name("request_id", request.get_request_id())?;
    if !request.get_val().is_empty() && !request.get_data().is_empty() {
        return Err(invalid("data", "`val` is given, too; a key has one value"));
    }
    let value = if request.get_val().is_empty() { request.take_data() } else { request.take_val().into_bytes() };
    values::check("val", &value)?;
    let writer = writer(request.get_task_id(), request.get_lease_epoch(), request.get_job_id())?;
    let value = values::place(&core, &context, "val", value).await?;
    let artifact_id = value.artifact_id;
    let mut put = KvPut {
        key: request.take_key(),
        value: value.logged,
        artifact_id,
        receipts: value.receipts.into(),
        digest: value.digest,
        ..KvPut::default()
    };
    put.set_writer(writer);
    let reply = reply_to(&core, &context, request.get_request_id(), Command_oneof_kind::kv_put(put)).await?;
    values::settle(&core, artifact_id, &reply).await;
    let reply = taken(reply)?;
    let mut response = AddResponse::new();
    response.set_commit_index(Position::from(reply.get_position()).index());
    response.set_revision(reply.get_number());
    Ok(response)
}

async fn get(core: Arc<Core>, _: Context, request: GetRequest) -> Answer<GetResponse> {
    check_key(request.get_key())?;
    let fresh = if request.get_linearizable() { Consistency::LINEARIZABLE } else { Consistency::LOCAL };
    let (view, row) = values::current(&core, request.get_key(), || read(&core, fresh)).await?;
    let mut response = GetResponse::new();
    response.set_read_at_index(Position::from(view.position).index());
    if let Some(row) = row {
        response.set_found(true);
        response.set_revision(row.get_revision());
        response.set_value(values::text(&row));
        response.set_data(row.value);
    }
    Ok(response)
}

async fn stat(core: Arc<Core>, _: Context, _: StatRequest) -> Answer<StatResponse> {
    let view = read(&core, Consistency::LOCAL).await?;
    let count = views::kv_count(&*view.rows)?;
    let leader = core.ports.cluster.leader();
    let stats = json!({
        "keys": count.get_rows(),
        "bytes": count.get_bytes(),
        "applied_index": Position::from(view.position).index(),
        "node_id": core.node_id,
        "leader": leader.get_address(),
    });
    let mut response = StatResponse::new();
    response.set_stats(stats.to_string());
    Ok(response)
}

async fn compare_and_set(
    core: Arc<Core>,
    context: Context,
    mut request: CompareAndSetRequest,
) -> Answer<CompareAndSetResponse> {
    check_key(request.get_key())?;
    values::check("data", request.get_data())?;
    validate::optional_name("request_id", request.get_request_id())?;
    let value = request.take_data();
    let writer = writer(request.get_task_id(), request.get_lease_epoch(), request.get_job_id())?;
    let placed = values::place(&core, &context, "data", value.clone()).await?;
    let artifact_id = placed.artifact_id;
    let mut swap = KvCompareAndSet {
        key: request.get_key().to_owned(),
        value: placed.logged,
        expected: request.get_expected(),
        artifact_id,
        receipts: placed.receipts.into(),
        digest: placed.digest,
        ..KvCompareAndSet::default()
    };
    swap.set_writer(writer);
    let kind = Command_oneof_kind::kv_compare_and_set(swap);
    let reply = reply_to(&core, &context, request.get_request_id(), kind).await?;
    values::settle(&core, artifact_id, &reply).await;
    let mut response = CompareAndSetResponse::new();
    if reply.get_outcome() == Outcome::MISMATCH {
        // As it is now: it may have moved on since, and then the caller learns the newer one.
        let position = reply.get_position();
        let (_, row) = values::current(&core, request.get_key(), || read_at(&core, position)).await?;
        if let Some(row) = row {
            response.set_found(true);
            response.set_revision(row.get_revision());
            response.set_data(row.value);
        }
        return Ok(response);
    }
    let reply = taken(reply)?;
    response.set_swapped(true);
    response.set_found(true);
    response.set_revision(reply.get_number());
    response.set_data(value);
    Ok(response)
}

async fn delete(core: Arc<Core>, context: Context, mut request: DeleteRequest) -> Answer<DeleteResponse> {
    check_key(request.get_key())?;
    validate::optional_name("request_id", request.get_request_id())?;
    let mut delete = KvDelete { key: request.take_key(), expected: request.get_expected(), ..KvDelete::default() };
    delete.set_writer(writer(request.get_task_id(), request.get_lease_epoch(), "")?);
    let kind = Command_oneof_kind::kv_delete(delete);
    let reply = reply_to(&core, &context, request.get_request_id(), kind).await?;
    let mut response = DeleteResponse::new();
    match reply.get_outcome() {
        // A task that does not exist is NOT_FOUND as well, and that is a mistake of the caller's.
        Outcome::NOT_FOUND if request.get_task_id().is_empty() => {}
        Outcome::MISMATCH => response.set_revision(reply.get_number()),
        _ => {
            taken(reply)?;
            response.set_deleted(true);
        }
    }
    Ok(response)
}

async fn list(core: Arc<Core>, _: Context, request: ListRequest) -> Answer<ListResponse> {
    validate::size("prefix", request.get_prefix().len(), raftgrid_manifest::limits::KV_KEY_BYTES_MAX)?;
    validate::size("page_token", request.get_page_token().len(), raftgrid_manifest::limits::KV_KEY_BYTES_MAX)?;
    let limit = validate::page(request.get_limit());
    for _ in 0..limits::VALUE_READS_MAX {
        let view = read(&core, Consistency::LINEARIZABLE).await?;
        let (prefix, token, with_data) = (request.get_prefix(), request.get_page_token(), request.get_with_data());
        let mut page = views::list_kv(&*view.rows, prefix, token, limit, with_data)?;
        if with_data && !fill_in(&core, &mut page).await? {
            continue;
        }
        let mut response = ListResponse::new();
        response.set_keys(page.keys.into());
        response.set_next_page_token(page.next_page_token);
        return Ok(response);
    }
    let why = format!("keys that begin with {:?} are overwritten faster than they can be read", request.get_prefix());
    Err(CallError::Unavailable(why).into())
}

/// Fetches the values that stand beside the log; false: one of them was overwritten meanwhile.
async fn fill_in(core: &Arc<Core>, page: &mut views::KvPage) -> Answer<bool> {
    for (key, artifact_id) in page.keys.iter_mut().zip(&page.beside).filter(|(_, artifact_id)| **artifact_id != 0) {
        let mut row = KvRow { key: key.get_key().to_owned(), artifact_id: *artifact_id, ..KvRow::default() };
        match values::of_row(core, &mut row).await? {
            Some(value) => key.set_data(value),
            None => return Ok(false),
        }
    }
    Ok(true)
}

async fn watch(
    core: Arc<Core>,
    _: Context,
    request: WatchRequest,
    mut sink: Outgoing<WatchResponse>,
) -> (Outgoing<WatchResponse>, Answer<()>) {
    let answer = follow(&core, &request, &mut sink).await;
    (sink, answer)
}

/// What a watch has told: everything up to `position`, and whether the key was there then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Told {
    position: u64,
    there: bool,
}

impl Told {
    fn of(request: &WatchRequest) -> Self {
        let position = match (request.get_from_revision(), request.get_min_index()) {
            (0, 0) => 0,
            // Every command of that entry counts as seen.
            (0, index) => Position::new(index.min((1 << 48) - 1), 0xffff).get(),
            (revision, _) => revision,
        };
        // Whoever comes back may have missed that it was deleted.
        Self { position, there: position != 0 }
    }

    /// What rows as of `position` say beyond it.
    fn news(&mut self, row: Option<KvRow>, position: u64) -> Option<WatchResponse> {
        let mut message = WatchResponse::new();
        match row {
            Some(row) if row.get_revision() > self.position => {
                *self = Self { position: row.get_revision(), there: true };
                message.set_current_index(Position::from(row.get_revision()).index());
                message.set_revision(row.get_revision());
                message.set_value(values::text(&row));
                message.set_data(row.value);
            }
            // Rows that are older than what was told say nothing.
            None if self.there && position >= self.position => {
                *self = Self { position, there: false };
                message.set_current_index(Position::from(position).index());
                message.set_revision(position);
                message.set_deleted(true);
            }
            Some(_) | None => return None,
        }
        Some(message)
    }
}

async fn follow(core: &Arc<Core>, request: &WatchRequest, sink: &mut Outgoing<WatchResponse>) -> Answer<()> {
    check_key(request.get_key())?;
    let _permit = core.watches.admit()?;
    let until = match u64::try_from(request.get_timeout_seconds()) {
        Err(_) => return Err(invalid("timeout_seconds", "must not be negative")),
        Ok(0) => None,
        Ok(seconds) => Some(Instant::now() + Duration::from_secs(seconds.min(limits::KV_WATCH_SECONDS_MAX))),
    };
    let mut told = Told::of(request);
    loop {
        let view = read(core, Consistency::LOCAL).await?;
        let row = views::kv(&*view.rows, request.get_key())?;
        let mut beside = row.clone().filter(|row| row.get_artifact_id() != 0);
        if let Some(mut message) = told.news(row, view.position) {
            let value = match beside.as_mut().filter(|_| !message.get_deleted()) {
                Some(row) => values::of_row(core, row).await?,
                None => Some(message.take_data()),
            };
            // One that is gone is passed over: something newer is there.
            if let Some(value) = value {
                message.set_data(value);
                sink.send(message).await?;
            }
        }
        let left = until.map_or(limits::WATCH_IDLE, |until| until.saturating_duration_since(Instant::now()));
        if left.is_zero() {
            return Ok(());
        }
        let watched = Some(watched::kv(request.get_key()));
        rows_changed_after(core, view.position, watched, left.min(limits::WATCH_IDLE)).await;
        sink.still_there().await?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(revision: u64) -> Option<KvRow> {
        Some(KvRow { revision, value: b"v".to_vec(), ..KvRow::default() })
    }

    fn at(index: u64) -> u64 {
        Position::new(index, 0).get()
    }

    #[test]
    fn a_watch_tells_each_change_once_and_a_deletion_too() {
        let mut told = Told::of(&WatchRequest::new());
        assert!(told.news(None, at(5)).is_none(), "never there");
        assert_eq!(told.news(row(at(6)), at(6)).expect("news").get_current_index(), 6);
        assert!(told.news(row(at(6)), at(7)).is_none());
        assert!(told.news(None, at(8)).expect("deleted").get_deleted());
        assert!(told.news(None, at(9)).is_none());
        assert!(!told.news(row(at(10)), at(10)).expect("made anew").get_deleted());
    }

    #[test]
    fn whoever_comes_back_is_told_what_is_newer_and_not_by_a_replica_that_is_behind() {
        let request = WatchRequest { min_index: 6, ..WatchRequest::default() };
        let mut told = Told::of(&request);
        assert!(told.news(row(at(6) + 3), at(9)).is_none(), "of that very entry");
        assert!(told.news(None, at(5)).is_none(), "it has not seen the key yet");
        assert!(told.news(None, at(9)).expect("deleted meanwhile").get_deleted());
    }
}
