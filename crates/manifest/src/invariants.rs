//! The invariants of semantics.md that rows can tell, checked over all of them: for tests, the simulator and tools. Numbers are those of
//! the page. (3, 4 and 15 speak of two states and are asserted where rows are written; 6's hash and 5 too.)

mod artifacts;
mod placement;
mod rounds;

use std::collections::{BTreeMap, BTreeSet};

use raftgrid_proto::v1::{
    ArrayChunkRow, ArtifactState, ContributionRow, JobPhase, JobRow, KvRow, NodeRow, Phase, Resources, RoundPhase,
    RoundRow, TaskRow, TaskStatus,
};

use crate::apply::full_digest;
use crate::commands::{arrays, job_end};
use crate::keys;
use crate::predicates::over_capacity;
use crate::read;
use crate::rows::{Rows, RowsError, Table};
use crate::tables::{demand, is_over, kv_bytes};
use crate::views;

/// Checks everything; gives one line for each violation, with its number, in order; none if all hold.
pub fn check_invariants(rows: &dyn Rows) -> Result<Vec<String>, RowsError> {
    let mut broken = Vec::new();
    let mut tasks = Vec::new();
    read::each(rows, Table::Task, &[], &[], |row: TaskRow| {
        tasks.push(row);
        true
    })?;
    check_tasks(&tasks, &mut broken);
    check_nodes(rows, &tasks, &mut broken)?;
    placement::check_queues(rows, &tasks, &mut broken)?;
    placement::check_gangs(rows, &tasks, &mut broken)?;
    check_indexes(rows, &tasks, &mut broken)?;
    check_dependencies(rows, &tasks, &mut broken)?;
    read_jobs(rows)?.iter().try_for_each(|job| check_job(rows, job, &tasks, &mut broken))?;
    check_requests(rows, &mut broken)?;
    check_kv(rows, &mut broken)?;
    artifacts::check_fragments(rows, &mut broken)?;
    artifacts::check_names(rows, &mut broken)?;
    artifacts::check_usage(rows, &mut broken)?;
    artifacts::check_values(rows, &mut broken)?;
    if views::digest(rows)? != full_digest(rows)? {
        broken.push("10: the kept digest is not that of the rows".to_owned());
    }
    Ok(broken)
}

fn read_jobs(rows: &dyn Rows) -> Result<Vec<JobRow>, RowsError> {
    let mut jobs = Vec::new();
    views::job_rows(rows, |job| {
        jobs.push(job);
        true
    })?;
    Ok(jobs)
}

fn phase_fits(status: TaskStatus, phase: Phase) -> bool {
    use Phase as P;
    match status {
        TaskStatus::PENDING => {
            matches!(phase, P::PHASE_BLOCKED | P::PHASE_QUEUED | P::PHASE_BACKOFF | P::PHASE_SUSPENDED)
        }
        TaskStatus::ASSIGNED => matches!(phase, P::PHASE_LEASED | P::PHASE_STAGING),
        TaskStatus::RUNNING => matches!(phase, P::PHASE_ACTIVE | P::PHASE_STOPPING | P::PHASE_ORPHANED),
        TaskStatus::COMPLETED => phase == P::PHASE_SUCCEEDED,
        TaskStatus::FAILED => matches!(
            phase,
            P::PHASE_ERROR
                | P::PHASE_RETRIES_EXHAUSTED
                | P::PHASE_CANCELLED
                | P::PHASE_DEADLINE
                | P::PHASE_LOST
                | P::PHASE_DEPENDENCY_FAILED
                | P::PHASE_REJECTED
        ),
    }
}

fn check_tasks(tasks: &[TaskRow], broken: &mut Vec<String>) {
    for row in tasks {
        let task = row.get_task();
        let id = &task.task_id;
        let active = matches!(task.status, TaskStatus::ASSIGNED | TaskStatus::RUNNING);
        if active != (row.open_epoch != 0) || (active && row.open_epoch != task.lease_epoch) {
            broken.push(format!("1: {id} is {:?} with open epoch {}", task.status, row.open_epoch));
        }
        if active == task.assigned_node_id.is_empty() && (active || task.status == TaskStatus::PENDING) {
            broken.push(format!("1: {id} is {:?} on node \"{}\"", task.status, task.assigned_node_id));
        }
        if !phase_fits(task.status, task.phase) {
            broken.push(format!("0: {id} is {:?} in {:?}", task.status, task.phase));
        }
        if row.last_report.as_ref().is_some_and(|last| last.epoch > task.lease_epoch) {
            broken.push(format!("15: {id} has a report of an epoch that it never had"));
        }
    }
}

fn check_nodes(rows: &dyn Rows, tasks: &[TaskRow], broken: &mut Vec<String>) -> Result<(), RowsError> {
    let mut taken: BTreeMap<&str, (u32, Resources)> = BTreeMap::new();
    for row in tasks.iter().filter(|row| row.open_epoch != 0) {
        let (count, sum) = taken.entry(row.get_task().get_assigned_node_id()).or_default();
        let demand = demand(row.get_task());
        *count += 1;
        sum.cpu_milli += demand.cpu_milli;
        sum.memory_bytes += demand.memory_bytes;
        sum.gpus += demand.gpus;
        sum.slots += demand.slots;
    }
    for NodeRow { node, open_tasks, .. } in views::node_rows(rows)? {
        let node = node.unwrap_or_default();
        let id = &node.node_id;
        let (count, sum) = taken.remove(id.as_str()).unwrap_or_default();
        if open_tasks != count || node.active_tasks != count as i32 {
            broken.push(format!("2: node {id} counts {open_tasks} tasks, {count} have it"));
        }
        if node.get_allocated() != &sum {
            broken.push(format!("8: node {id} allocates {:?}, its tasks take {sum:?}", node.get_allocated()));
        }
        if let Some(resource) = over_capacity(&node) {
            broken.push(format!("8: node {id} allocates more {resource} than it has"));
        }
    }
    broken.extend(taken.keys().map(|id| format!("2: tasks are on node {id}, which has no row")));
    Ok(())
}

/// Every dependency that a blocked task counts is of a task that is not over, or that is over and left to the leader; and the other way round.
fn check_dependencies(rows: &dyn Rows, tasks: &[TaskRow], broken: &mut Vec<String>) -> Result<(), RowsError> {
    let by_sequence: BTreeMap<u64, &TaskRow> = tasks.iter().map(|row| (row.sequence, row)).collect();
    let (mut left, mut unmet) = (BTreeSet::new(), BTreeMap::<u64, u32>::new());
    for key in keys_of(rows, Table::Dependent)? {
        let (first, last) = (keys::first_number(&key).unwrap_or_default(), keys::last_number(&key).unwrap_or_default());
        if first == 0 {
            left.insert(last);
            continue;
        }
        *unmet.entry(last).or_default() += 1;
        let over = by_sequence.get(&first).is_none_or(|row| is_over(row.get_task()));
        if over && !left.contains(&first) {
            broken.push(format!("16: task {last} waits for task {first}, which is over"));
        }
    }
    for row in tasks.iter().filter(|row| !is_over(row.get_task())) {
        let (task, counted) = (row.get_task(), unmet.get(&row.sequence).copied().unwrap_or_default());
        if row.unmet != counted {
            broken.push(format!("16: task {} counts {} dependencies, {counted} are open", task.task_id, row.unmet));
        }
        let may_wait = matches!(task.phase, Phase::PHASE_BLOCKED | Phase::PHASE_SUSPENDED);
        if (row.unmet > 0 && !may_wait) || (row.unmet == 0 && task.phase == Phase::PHASE_BLOCKED) {
            broken.push(format!("16: task {} is {:?} with {} dependencies", task.task_id, task.phase, row.unmet));
        }
    }
    Ok(())
}

/// An array's counters are those of its bitmap, and what its cursor has passed is over or open.
fn check_array(rows: &dyn Rows, row: &JobRow, tasks: &[TaskRow], broken: &mut Vec<String>) -> Result<(), RowsError> {
    let (id, mut done, mut failed) = (&row.get_job().job_id, 0_u64, 0_u64);
    let prefix = keys::number(row.sequence);
    let ones = |bits: &[u8]| bits.iter().map(|byte| u64::from(byte.count_ones())).sum::<u64>();
    read::each(rows, Table::ArrayChunk, &prefix, &keys::after_prefix(&prefix), |chunk: ArrayChunkRow| {
        done += ones(&chunk.done);
        failed += ones(&chunk.failed);
        if chunk.done.iter().zip(&chunk.failed).any(|(done, failed)| done & failed != 0) {
            broken.push(format!("17: an element of {id} is done and failed"));
        }
        true
    })?;
    if (done, failed) != (row.elements_done, row.elements_failed) {
        let counted = (row.elements_done, row.elements_failed);
        broken
            .push(format!("17: job {id} counts {counted:?} elements done and failed, its bitmap has {done}, {failed}"));
    }
    let open =
        tasks.iter().filter(|task| task.job_sequence == row.sequence && !is_over(task.get_task())).count() as u64;
    if read::open_elements(rows, row.sequence)?.len() as u64 != open {
        broken.push(format!("17: the index of open elements of {id} is not what its tasks make it"));
    }
    if row.get_job().phase == JobPhase::JOB_RUNNING && done + failed + open != u64::from(row.next_element) {
        broken.push(format!(
            "17: {} elements of {id} were tasks, {done} are done, {failed} failed, {open} open",
            row.next_element
        ));
    }
    Ok(())
}

fn keys_of(rows: &dyn Rows, table: Table) -> Result<BTreeSet<Vec<u8>>, RowsError> {
    let mut set = BTreeSet::new();
    rows.scan(table, &[], &[], &mut |key, _| {
        set.insert(key.to_vec());
        true
    })?;
    Ok(set)
}

fn check_indexes(rows: &dyn Rows, tasks: &[TaskRow], broken: &mut Vec<String>) -> Result<(), RowsError> {
    let mut wanted: BTreeMap<Table, BTreeSet<Vec<u8>>> = BTreeMap::new();
    let tables = [Table::TaskById, Table::TaskByStatus, Table::TaskByNode, Table::TaskByJob, Table::TaskByQueue];
    for table in tables {
        wanted.insert(table, BTreeSet::new());
    }
    let mut want = |table, key| {
        wanted.entry(table).or_default().insert(key);
    };
    for row in tasks {
        let task = row.get_task();
        want(Table::TaskById, task.task_id.clone().into_bytes());
        want(Table::TaskByStatus, keys::task_by_status(task.status, row.sequence));
        if row.open_epoch != 0 {
            want(Table::TaskByNode, keys::task_by_node(&task.assigned_node_id, row.sequence));
        }
        if row.job_sequence != 0 {
            want(Table::TaskByJob, keys::pair(row.job_sequence, row.sequence));
        }
        if !task.queue.is_empty() {
            want(Table::TaskByQueue, keys::task_by_queue(&task.queue, row.sequence));
        }
    }
    for (table, keys) in wanted {
        if keys != keys_of(rows, table)? {
            broken.push(format!("0: {table:?} is not what the tasks make it"));
        }
    }
    Ok(())
}

fn check_job(rows: &dyn Rows, row: &JobRow, tasks: &[TaskRow], broken: &mut Vec<String>) -> Result<(), RowsError> {
    let job = row.get_job();
    let id = &job.job_id;
    let open = tasks.iter().filter(|task| task.job_sequence == row.sequence && !is_over(task.get_task())).count();
    if row.open_tasks != open as u64 {
        broken.push(format!("0: job {id} counts {} open tasks, {open} are", row.open_tasks));
    }
    if job.has_model && job.rounds_committed != job.model_version {
        broken.push(format!("6: job {id} has model {} after {} rounds", job.model_version, job.rounds_committed));
    }
    let rounds = job.get_spec().get_train().rounds;
    if job.get_spec().train.is_some() && (job.phase == JobPhase::JOB_DONE) != (job.rounds_committed == rounds) {
        broken.push(format!("6: job {id} is {:?} after {} of {rounds} rounds", job.phase, job.rounds_committed));
    }
    if arrays::is_array(job.get_spec()) {
        check_array(rows, row, tasks, broken)?;
    }
    let prefix = keys::number(row.sequence);
    let mut list = Vec::new();
    read::each(rows, Table::Round, &prefix, &keys::after_prefix(&prefix), |round: RoundRow| {
        list.push(round);
        true
    })?;
    for round in &list {
        check_round(rows, row, round, broken)?;
    }
    rounds::check_rules(rows, row, &list, broken)?;
    if let Some(audit) = views::audit(rows, id, false)? {
        if audit.lost != 0 || audit.duplicated != 0 {
            broken.push(format!("7: job {id} lost {} and counts {} twice", audit.lost, audit.duplicated));
        }
        if !audit.ledger_hash_verified {
            broken.push(format!("6: the hash chain of job {id} does not follow from its ledger"));
        }
    }
    Ok(())
}

fn check_round(rows: &dyn Rows, job_row: &JobRow, round: &RoundRow, broken: &mut Vec<String>) -> Result<(), RowsError> {
    let job = job_row.get_job();
    let name = format!("job {} round {}", job.job_id, round.round);
    let committed = round.phase == RoundPhase::ROUND_COMMITTED;
    if committed != (round.round < job.rounds_committed) {
        broken.push(format!("6: {name} is {:?} after {} commits", round.phase, job.rounds_committed));
    }
    let anchor = committed && round.round + crate::limits::LEDGER_ROUNDS < job.rounds_committed;
    if anchor {
        return Ok(());
    }
    let contributions = read::contributions(rows, job_row.sequence, round.round)?;
    let accepted: Vec<&ContributionRow> = contributions.iter().filter(|row| !row.digest.is_empty()).collect();
    if accepted.len() != round.accepted as usize {
        broken.push(format!("5: {name} counts {} contributions, {} stand", round.accepted, accepted.len()));
    }
    let artifacts: BTreeSet<u64> = accepted.iter().map(|row| row.artifact_id).collect();
    if artifacts.len() != accepted.len() {
        broken.push(format!("5: {name} counts the same bytes for two shards"));
    }
    if round.round >= job_row.retained_from_round {
        for artifact_id in artifacts {
            let row = read::artifact(rows, artifact_id)?;
            if !row.is_some_and(|row| row.state == ArtifactState::ARTIFACT_COMMITTED) {
                broken.push(format!("7: {name} counts artifact {artifact_id}, which is not committed"));
            }
        }
    }
    Ok(())
}

/// Keys are counted, indexed by their jobs, and none outlives its job.
fn check_kv(rows: &dyn Rows, broken: &mut Vec<String>) -> Result<(), RowsError> {
    let mut all: Vec<KvRow> = Vec::new();
    read::each(rows, Table::Kv, &[], &[], |row| {
        all.push(row);
        true
    })?;
    let count = read::kv_count(rows)?;
    let bytes = all.iter().map(kv_bytes).sum::<u64>();
    if (count.rows, count.bytes) != (all.len() as u64, bytes) {
        broken.push(format!("0: {} keys of {bytes} bytes are there, {count:?} are counted", all.len()));
    }
    let scoped = all.iter().filter(|row| row.job_sequence != 0);
    let wanted: BTreeSet<Vec<u8>> = scoped.map(|row| keys::kv_by_job(row.job_sequence, &row.key)).collect();
    if wanted != keys_of(rows, Table::KvByJob)? {
        broken.push("0: KvByJob is not what the keys make it".to_owned());
    }
    for row in all.iter().filter(|row| row.job_sequence != 0) {
        let job = read::job(rows, row.job_sequence)?;
        if job.is_none_or(|job| job_end::is_over(job.get_job().phase)) {
            broken.push(format!("0: key {} outlives its job", row.key));
        }
    }
    Ok(())
}

fn check_requests(rows: &dyn Rows, broken: &mut Vec<String>) -> Result<(), RowsError> {
    let kept = keys_of(rows, Table::Request)?;
    let mut aged = BTreeSet::new();
    rows.scan(Table::RequestByAge, &[], &[], &mut |_, key| {
        aged.insert(key.to_vec());
        true
    })?;
    let counted = read::meta(rows)?.request_rows;
    if kept != aged || kept.len() as u64 != counted {
        broken.push(format!("0: {} answers are kept, {} have an age, {counted} are counted", kept.len(), aged.len()));
    }
    Ok(())
}
