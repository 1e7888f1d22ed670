//! Typed reads of rows, for commands and views alike.

use protobuf::Message;
use raftgrid_proto::v1::{
    ArrayChunkRow, ArtifactName, ArtifactRow, ArtifactState, ContributionRow, JobRow, KvCountRow, KvRow, MemberRow,
    MetaRow, NameRow, NameVersion, NodeRow, QueueRow, RequestRow, RoundRow, ScheduleRow, TaskRow, TaskStatus, UsageRow,
};

use crate::keys;
use crate::round_policy::RoundPolicy;
use crate::rows::{Rows, RowsError, Table};

/// Decodes a row; one that does not decode is damage, and the replica must stop.
pub(crate) fn decode<M: Message>(table: Table, bytes: &[u8]) -> Result<M, RowsError> {
    M::parse_from_bytes(bytes).map_err(|cause| RowsError(format!("a row of {table:?} does not decode: {cause}")))
}

fn row<M: Message>(rows: &dyn Rows, table: Table, key: &[u8]) -> Result<Option<M>, RowsError> {
    rows.get(table, key)?.map(|bytes| decode(table, &bytes)).transpose()
}

fn sequence(rows: &dyn Rows, table: Table, key: &[u8]) -> Result<Option<u64>, RowsError> {
    let Some(value) = rows.get(table, key)? else { return Ok(None) };
    match keys::last_number(&value) {
        Some(number) => Ok(Some(number)),
        None => Err(RowsError(format!("a row of {table:?} is not a number"))),
    }
}

/// Decoded rows of a range, in order, as long as `visit` answers true.
pub(crate) fn each<M: Message>(
    rows: &dyn Rows,
    table: Table,
    from: &[u8],
    to: &[u8],
    mut visit: impl FnMut(M) -> bool,
) -> Result<(), RowsError> {
    let mut failed = None;
    rows.scan(table, from, to, &mut |_, value| match decode(table, value) {
        Ok(row) => visit(row),
        Err(error) => {
            failed = Some(error);
            false
        }
    })?;
    failed.map_or(Ok(()), Err)
}

/// The state's one row of clock and counters; a new state has version 1 and counts from 1.
pub(crate) fn meta(rows: &dyn Rows) -> Result<MetaRow, RowsError> {
    Ok(row(rows, Table::Meta, keys::ONLY)?.unwrap_or_else(|| MetaRow {
        machine_version: 1,
        next_task_sequence: 1,
        next_job_sequence: 1,
        ..MetaRow::default()
    }))
}

pub(crate) fn task(rows: &dyn Rows, task_sequence: u64) -> Result<Option<TaskRow>, RowsError> {
    row(rows, Table::Task, &keys::number(task_sequence))
}

pub(crate) fn task_sequence(rows: &dyn Rows, task_id: &str) -> Result<Option<u64>, RowsError> {
    sequence(rows, Table::TaskById, task_id.as_bytes())
}

pub(crate) fn task_by_id(rows: &dyn Rows, task_id: &str) -> Result<Option<TaskRow>, RowsError> {
    let Some(number) = task_sequence(rows, task_id)? else { return Ok(None) };
    match task(rows, number)? {
        Some(row) => Ok(Some(row)),
        None => Err(RowsError(format!("task {number} is in the index of ids only"))),
    }
}

/// Tasks that an index lists.
fn tasks_of(rows: &dyn Rows, table: Table, prefix: &[u8]) -> Result<Vec<TaskRow>, RowsError> {
    let mut numbers = Vec::new();
    rows.scan(table, prefix, &keys::after_prefix(prefix), &mut |key, _| {
        numbers.extend(keys::last_number(key));
        true
    })?;
    let mut list = Vec::with_capacity(numbers.len());
    for number in numbers {
        list.push(task(rows, number)?.ok_or_else(|| RowsError(format!("task {number} is in {table:?} only")))?);
    }
    Ok(list)
}

/// Tasks whose lease on this node is open.
pub(crate) fn tasks_of_node(rows: &dyn Rows, node_id: &str) -> Result<Vec<TaskRow>, RowsError> {
    tasks_of(rows, Table::TaskByNode, &keys::node_tasks(node_id))
}

/// Tasks in this status.
pub(crate) fn tasks_of_status(rows: &dyn Rows, status: TaskStatus) -> Result<Vec<TaskRow>, RowsError> {
    tasks_of(rows, Table::TaskByStatus, &keys::task_status(status))
}

pub(crate) fn tasks_of_job(rows: &dyn Rows, job_sequence: u64) -> Result<Vec<TaskRow>, RowsError> {
    tasks_of(rows, Table::TaskByJob, &keys::number(job_sequence))
}

pub(crate) fn node(rows: &dyn Rows, node_id: &str) -> Result<Option<NodeRow>, RowsError> {
    row(rows, Table::Node, &keys::node(node_id))
}

pub(crate) fn queue(rows: &dyn Rows, name: &str) -> Result<Option<QueueRow>, RowsError> {
    row(rows, Table::Queue, &keys::queue(name))
}

pub(crate) fn job(rows: &dyn Rows, job_sequence: u64) -> Result<Option<JobRow>, RowsError> {
    row(rows, Table::Job, &keys::number(job_sequence))
}

pub(crate) fn job_by_id(rows: &dyn Rows, job_id: &str) -> Result<Option<JobRow>, RowsError> {
    match sequence(rows, Table::JobById, job_id.as_bytes())? {
        Some(number) => job(rows, number),
        None => Ok(None),
    }
}

pub(crate) fn array_chunk(rows: &dyn Rows, job_sequence: u64, chunk: u64) -> Result<Option<ArrayChunkRow>, RowsError> {
    row(rows, Table::ArrayChunk, &keys::pair(job_sequence, chunk))
}

/// Elements of an array that are not over, in the order in which they became tasks.
pub(crate) fn open_elements(rows: &dyn Rows, job_sequence: u64) -> Result<Vec<TaskRow>, RowsError> {
    tasks_of(rows, Table::OpenElement, &keys::number(job_sequence))
}

pub(crate) fn schedule(rows: &dyn Rows, schedule_id: &str) -> Result<Option<ScheduleRow>, RowsError> {
    row(rows, Table::Schedule, schedule_id.as_bytes())
}

pub(crate) fn round(rows: &dyn Rows, job_sequence: u64, round: u64) -> Result<Option<RoundRow>, RowsError> {
    row(rows, Table::Round, &keys::pair(job_sequence, round))
}

pub(crate) fn contribution(
    rows: &dyn Rows,
    job_sequence: u64,
    round: u64,
    shard: u32,
) -> Result<Option<ContributionRow>, RowsError> {
    row(rows, Table::Contribution, &keys::contribution(job_sequence, round, shard))
}

/// Contribution rows of a round, in shard order; those with an empty digest hold refused results only.
pub(crate) fn contributions(rows: &dyn Rows, job_sequence: u64, round: u64) -> Result<Vec<ContributionRow>, RowsError> {
    let prefix = keys::pair(job_sequence, round);
    let mut list = Vec::new();
    each(rows, Table::Contribution, &prefix, &keys::after_prefix(&prefix), |row| {
        list.push(row);
        true
    })?;
    Ok(list)
}

/// What a shard of an async job gave over this model, in whatever round it came in; `head`: the job's newest model. Looks at the rounds that
/// may hold it: from the model's own on, as far as staleness lets them be.
pub(crate) fn given_over(
    rows: &dyn Rows,
    job_sequence: u64,
    policy: &RoundPolicy,
    head: u64,
    version: u64,
    shard: u32,
) -> Result<Option<ContributionRow>, RowsError> {
    let last = policy.last_open(head);
    for round in version..=last {
        if policy.oldest_model(round) > version {
            break;
        }
        let row = contribution(rows, job_sequence, round, shard)?;
        if let Some(row) = row.filter(|row| !row.digest.is_empty() && row.model_version == version) {
            return Ok(Some(row));
        }
    }
    Ok(None)
}

pub(crate) fn artifact(rows: &dyn Rows, artifact_id: u64) -> Result<Option<ArtifactRow>, RowsError> {
    row(rows, Table::Artifact, &keys::number(artifact_id))
}

pub(crate) fn artifact_by_name(rows: &dyn Rows, name: &str) -> Result<Option<ArtifactRow>, RowsError> {
    match sequence(rows, Table::ArtifactByName, name.as_bytes())? {
        Some(number) => artifact(rows, number),
        None => Ok(None),
    }
}

/// A name of artifacts. One that was given before names had versions has one.
pub(crate) fn name(rows: &dyn Rows, name: &str) -> Result<Option<NameRow>, RowsError> {
    if let Some(found) = row(rows, Table::Name, name.as_bytes())? {
        return Ok(Some(found));
    }
    let Some(artifact_id) = sequence(rows, Table::ArtifactByName, name.as_bytes())? else { return Ok(None) };
    let only = NameVersion { version: 1, artifact_id, ..NameVersion::default() };
    Ok(Some(NameRow { name: name.to_owned(), newest: 1, versions: vec![only].into(), ..NameRow::default() }))
}

/// The names that an artifact goes by.
pub(crate) fn names_of(rows: &dyn Rows, row: &ArtifactRow) -> Result<Vec<ArtifactName>, RowsError> {
    if !row.names.is_empty() || row.name.is_empty() || row.state != ArtifactState::ARTIFACT_COMMITTED {
        return Ok(row.names.to_vec());
    }
    let holder = sequence(rows, Table::ArtifactByName, row.name.as_bytes())?;
    let known = rows.get(Table::Name, row.name.as_bytes())?.is_some();
    let only = ArtifactName { name: row.name.clone(), version: 1, ..ArtifactName::default() };
    Ok(if holder == Some(row.artifact_id) && !known { vec![only] } else { Vec::new() })
}

/// What a principal or a replica holds, by key of `Usage`.
pub(crate) fn usage(rows: &dyn Rows, key: &[u8]) -> Result<UsageRow, RowsError> {
    Ok(row(rows, Table::Usage, key)?.unwrap_or_default())
}

/// A replicated key.
pub(crate) fn kv(rows: &dyn Rows, key: &str) -> Result<Option<KvRow>, RowsError> {
    row(rows, Table::Kv, key.as_bytes())
}

/// How many keys there are.
pub(crate) fn kv_count(rows: &dyn Rows) -> Result<KvCountRow, RowsError> {
    Ok(row(rows, Table::KvCount, keys::ONLY)?.unwrap_or_default())
}

/// Keys that go with this job, at most `most` of them.
pub(crate) fn kv_of_job(rows: &dyn Rows, job_sequence: u64, most: usize) -> Result<Vec<String>, RowsError> {
    let prefix = keys::number(job_sequence);
    let mut found = Vec::new();
    rows.scan(Table::KvByJob, &prefix, &keys::after_prefix(&prefix), &mut |key, _| {
        found.push(String::from_utf8_lossy(key.get(prefix.len()..).unwrap_or_default()).into_owned());
        found.len() < most
    })?;
    Ok(found)
}

pub(crate) fn request(rows: &dyn Rows, key: &[u8]) -> Result<Option<RequestRow>, RowsError> {
    row(rows, Table::Request, key)
}

pub(crate) fn member(rows: &dyn Rows, node_id: u64) -> Result<Option<MemberRow>, RowsError> {
    row(rows, Table::Member, &keys::number(node_id))
}

/// Replicas, in order of their id, those that were removed as well.
pub(crate) fn members_ever(rows: &dyn Rows) -> Result<Vec<MemberRow>, RowsError> {
    let mut list = Vec::new();
    each(rows, Table::Member, &[], &[], |row| {
        list.push(row);
        true
    })?;
    Ok(list)
}

/// Replicas that were not removed, in order of their id.
pub(crate) fn members(rows: &dyn Rows) -> Result<Vec<MemberRow>, RowsError> {
    let mut list = members_ever(rows)?;
    list.retain(|row| !row.removed);
    Ok(list)
}
