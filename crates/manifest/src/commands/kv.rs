//! KvPut, KvDelete, KvCompareAndSet: replicated keys. A key's revision is the position of its last write: unique, so that whoever compares it
//! knows that nobody wrote in between.

use raftgrid_proto::v1::{
    ArtifactState, CommandReply, KvCompareAndSet, KvDelete, KvPut, KvRow, KvWriter, Outcome, Receipt,
};

use crate::commands::tasks::with_open_lease;
use crate::commands::{artifacts, job_end};
use crate::error::{Fault, Handled};
use crate::limits::{
    KV_BESIDE_BYTES_MAX, KV_BYTES_MAX, KV_JOB_ROWS_MAX, KV_KEY_BYTES_MAX, KV_LOGGED_BYTES_MAX, KV_ROWS_MAX,
    KV_VALUE_BYTES_MAX,
};
use crate::machine::Machine;
use crate::read;
use crate::reply::{invalid, not_found, precondition, refuse};
use crate::tables::{kv_bytes, ArtifactTable, KvTable};
use crate::text::check_bytes;

/// Sets the key, whatever it was.
pub(crate) fn put(machine: &mut Machine<'_>, command: &KvPut) -> Handled {
    let old = look(machine, &command.key, command.get_writer())?;
    let value = Value { bytes: &command.value, artifact_id: command.artifact_id, receipts: &command.receipts };
    set(machine, old, &command.key, &value, command.get_writer())
}

/// Sets the key if its revision is the expected one; MISMATCH names the revision that it has.
pub(crate) fn compare_and_set(machine: &mut Machine<'_>, command: &KvCompareAndSet) -> Handled {
    let old = look(machine, &command.key, command.get_writer())?;
    let revision = old.as_ref().map_or(0, |row| row.revision);
    if revision != command.expected {
        return Err(mismatch(&command.key, revision, command.expected));
    }
    let value = Value { bytes: &command.value, artifact_id: command.artifact_id, receipts: &command.receipts };
    set(machine, old, &command.key, &value, command.get_writer())
}

/// Deletes the key; one that is not there is deleted already.
pub(crate) fn delete(machine: &mut Machine<'_>, command: &KvDelete) -> Handled {
    let Some(old) = look(machine, &command.key, command.get_writer())? else {
        if command.expected != 0 {
            return Err(mismatch(&command.key, 0, command.expected));
        }
        return Err(not_found("key", &command.key));
    };
    if command.expected != 0 && old.revision != command.expected {
        return Err(mismatch(&command.key, old.revision, command.expected));
    }
    forget(machine, &old)?;
    Ok(machine.ok())
}

/// A job is over: what went with it goes.
pub(crate) fn job_over(machine: &mut Machine<'_>, job_sequence: u64) -> Result<(), Fault> {
    for key in read::kv_of_job(&machine.rows, job_sequence, KV_JOB_ROWS_MAX)? {
        if let Some(row) = read::kv(&machine.rows, &key)? {
            forget(machine, &row)?;
        }
    }
    Ok(())
}

fn forget(machine: &mut Machine<'_>, row: &KvRow) -> Result<(), Fault> {
    KvTable::delete(machine, row)?;
    release(machine, row)
}

/// Whoever held the value does so no more.
fn release(machine: &mut Machine<'_>, old: &KvRow) -> Result<(), Fault> {
    if old.artifact_id == 0 {
        return Ok(());
    }
    let mut row = artifacts::get(machine, old.artifact_id)?;
    row.key.clear();
    artifacts::let_go(machine, row)
}

/// The machine version from which on values may stand beside the log.
pub const BESIDE_SINCE: u64 = 6;

/// Kind of the artifacts that are values.
const VALUE_KIND: &str = "value";

/// A value in the log, or beside it.
struct Value<'a> {
    bytes: &'a [u8],
    artifact_id: u64,
    receipts: &'a [Receipt],
}

/// Commits the artifact that was begun for the value. Gives its size.
fn commit_value(machine: &mut Machine<'_>, key: &str, value: &Value<'_>) -> Result<u64, Fault> {
    if !value.bytes.is_empty() {
        return Err(invalid("value", "is beside the log, and must be empty here"));
    }
    let row = artifacts::get(machine, value.artifact_id)?;
    let id = row.artifact_id;
    if row.state != ArtifactState::ARTIFACT_BEGUN
        || row.kind != VALUE_KIND
        || !row.name.is_empty()
        || !row.job_id.is_empty()
    {
        return Err(precondition(format!("artifact {id} was not begun as the value of a key")));
    }
    if row.total_bytes > KV_BESIDE_BYTES_MAX as u64 {
        return Err(invalid("value", format!("at most {KV_BESIDE_BYTES_MAX} bytes, is {}", row.total_bytes)));
    }
    let mut row = artifacts::commit_by_receipts(machine, row, value.receipts)?;
    row.key = key.to_owned();
    ArtifactTable::put(machine, &row)?;
    Ok(row.total_bytes)
}

fn mismatch(key: &str, revision: u64, expected: u64) -> Fault {
    let has = if revision == 0 { "does not exist".to_owned() } else { format!("has revision {revision}") };
    let wanted = if expected == 0 { "none was expected".to_owned() } else { format!("{expected} was expected") };
    Fault::Refused(CommandReply {
        outcome: Outcome::MISMATCH,
        message: format!("key {key} {has}, {wanted}"),
        number: revision,
        ..CommandReply::default()
    })
}

/// The key as it is, after the checks that all writes share.
fn look(machine: &Machine<'_>, key: &str, writer: &KvWriter) -> Result<Option<KvRow>, Fault> {
    if key.is_empty() {
        return Err(invalid("key", "must not be empty"));
    }
    check_bytes("key", key.len(), KV_KEY_BYTES_MAX)?;
    if key.chars().any(char::is_control) {
        return Err(invalid("key", "must not contain control characters"));
    }
    if !writer.task_id.is_empty() {
        with_open_lease(machine, &writer.task_id, writer.epoch)?;
    }
    Ok(read::kv(&machine.rows, key)?)
}

/// The job that the key is to go with: the one that the writer names, else the one that it goes with already.
fn scope(machine: &Machine<'_>, old: Option<&KvRow>, writer: &KvWriter) -> Result<u64, Fault> {
    let before = old.map_or(0, |row| row.job_sequence);
    if writer.job_id.is_empty() {
        return Ok(before);
    }
    let job = read::job_by_id(&machine.rows, &writer.job_id)?.ok_or_else(|| not_found("job", &writer.job_id))?;
    if job_end::is_over(job.get_job().phase) {
        return Err(precondition(format!("job {} is over, and its keys are gone", writer.job_id)));
    }
    if job.sequence != before && read::kv_of_job(&machine.rows, job.sequence, KV_JOB_ROWS_MAX)?.len() >= KV_JOB_ROWS_MAX
    {
        return Err(refuse(
            Outcome::EXHAUSTED,
            format!("job {} has {KV_JOB_ROWS_MAX} keys, the most there may be", writer.job_id),
        ));
    }
    Ok(job.sequence)
}

fn set(machine: &mut Machine<'_>, old: Option<KvRow>, key: &str, value: &Value<'_>, writer: &KvWriter) -> Handled {
    let beside = machine.meta.machine_version >= BESIDE_SINCE;
    check_bytes("value", value.bytes.len(), if beside { KV_LOGGED_BYTES_MAX } else { KV_VALUE_BYTES_MAX })?;
    let job_sequence = scope(machine, old.as_ref(), writer)?;
    let position = machine.position.get();
    let mut row = KvRow {
        key: key.to_owned(),
        value: value.bytes.to_vec(),
        revision: position,
        created: old.as_ref().map_or(position, |row| row.created),
        job_sequence,
        ..KvRow::default()
    };
    let count = read::kv_count(&machine.rows)?;
    let bytes = count.bytes - old.as_ref().map_or(0, kv_bytes) + kv_bytes(&row);
    if (old.is_none() && count.rows >= KV_ROWS_MAX) || bytes > KV_BYTES_MAX {
        let why = format!("{KV_ROWS_MAX} keys of {KV_BYTES_MAX} bytes in all are the most there may be; delete some");
        return Err(refuse(Outcome::EXHAUSTED, why));
    }
    if beside && value.artifact_id != 0 {
        row.value_bytes = commit_value(machine, key, value)?;
        row.artifact_id = value.artifact_id;
    }
    KvTable::put(machine, old.as_ref(), &row)?;
    old.as_ref().map_or(Ok(()), |old| release(machine, old))?;
    Ok(CommandReply { number: position, ..machine.ok() })
}
