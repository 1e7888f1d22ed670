//! Jobs, their rounds and their ledger.

use raftgrid_proto::v1::{ContributionRow, ElementCounts, Job, JobPhase, JobRow, RoundRow, Task};

use crate::commands::{arrays, init_role};
use crate::keys;
use crate::ledger::{round_inputs_hash, RoundInputs};
use crate::limits::ELEMENTS_PER_COMMAND_MAX;
use crate::read;
use crate::round_policy::RoundPolicy;
use crate::rows::{Rows, RowsError, Table};
use crate::views::{page_rows, page_start, ListError};

/// A page of jobs, oldest first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct JobPage {
    /// The jobs.
    pub jobs: Vec<Job>,
    /// Token of the next page; empty: this was the last.
    pub next_page_token: Vec<u8>,
}

/// The job; None if there is none of that id.
pub fn get_job(rows: &dyn Rows, job_id: &str) -> Result<Option<Job>, RowsError> {
    Ok(read::job_by_id(rows, job_id)?.map(|mut row| row.take_job()))
}

/// The job's whole row.
pub fn job_row(rows: &dyn Rows, job_id: &str) -> Result<Option<JobRow>, RowsError> {
    read::job_by_id(rows, job_id)
}

/// The row of the job with this sequence (as `TaskRow.job_sequence` names it).
pub fn job_row_by_sequence(rows: &dyn Rows, job_sequence: u64) -> Result<Option<JobRow>, RowsError> {
    read::job(rows, job_sequence)
}

/// Which trainer is to send model 0 now: the init task if it has a lease, else the first that has one; None: none has. It is taken from any.
pub fn first_model_maker(rows: &dyn Rows, job_row: &JobRow) -> Result<Option<String>, RowsError> {
    init_role::maker(rows, job_row)
}

/// All rows of jobs, oldest first, as long as `visit` answers true.
pub fn job_rows(rows: &dyn Rows, visit: impl FnMut(JobRow) -> bool) -> Result<(), RowsError> {
    read::each(rows, Table::Job, &[], &[], visit)
}

/// A page of at most `limit` jobs (0: the most that a page holds), oldest first.
pub fn list_jobs(rows: &dyn Rows, token: &[u8], limit: usize) -> Result<JobPage, ListError> {
    let from = page_start(token).ok_or(ListError::Token)?;
    let limit = page_rows(limit);
    let mut page = JobPage::default();
    let mut last = 0;
    read::each(rows, Table::Job, &keys::number(from), &[], |mut row: JobRow| {
        if page.jobs.len() == limit {
            page.next_page_token = keys::number(last);
            return false;
        }
        last = row.sequence;
        page.jobs.push(row.take_job());
        true
    })?;
    Ok(page)
}

/// A job's tasks, in the order in which they were made; none if there is no such job.
pub fn job_tasks(rows: &dyn Rows, job_id: &str) -> Result<Vec<Task>, RowsError> {
    let Some(job) = read::job_by_id(rows, job_id)? else { return Ok(Vec::new()) };
    Ok(read::tasks_of_job(rows, job.sequence)?.into_iter().map(|mut row| row.take_task()).collect())
}

/// Tasks of a job as a listing of the job shows them: all of them, or the elements of an array that are not over.
pub fn shown_tasks(rows: &dyn Rows, job: &JobRow) -> Result<Vec<Task>, RowsError> {
    let list = match arrays::is_array(job.get_job().get_spec()) {
        true => read::open_elements(rows, job.sequence)?,
        false => read::tasks_of_job(rows, job.sequence)?,
    };
    Ok(list.into_iter().map(|mut row| row.take_task()).collect())
}

/// How far an array is; None if the job is none. Costs its window.
pub fn element_counts(rows: &dyn Rows, job: &JobRow) -> Result<Option<ElementCounts>, RowsError> {
    let spec = job.get_job().get_spec();
    if !arrays::is_array(spec) {
        return Ok(None);
    }
    let open = read::open_elements(rows, job.sequence)?;
    let running = open.iter().filter(|row| row.open_epoch != 0).count() as u64;
    let count = u64::from(arrays::element_count(spec));
    let tasks_yet = u64::from(job.next_element);
    Ok(Some(ElementCounts {
        count,
        waiting: count.saturating_sub(tasks_yet) + job.retry_left + open.len() as u64 - running,
        running,
        done: job.elements_done,
        failed: job.elements_failed.saturating_sub(job.retry_left),
        ..ElementCounts::default()
    }))
}

/// The next elements that may become tasks, as `MaterializeElements` must name them: (from, count, generation). None: none may now.
pub fn next_elements(job: &JobRow) -> Option<(u32, u32, u32)> {
    let spec = job.get_job().get_spec();
    if !arrays::is_array(spec) || job.get_job().phase != JobPhase::JOB_RUNNING {
        return None;
    }
    let open = u32::try_from(job.open_tasks).unwrap_or(u32::MAX);
    let room = arrays::window(spec).saturating_sub(open).min(ELEMENTS_PER_COMMAND_MAX);
    let (from, left) = match job.retry_left {
        0 => (job.next_element, u64::from(arrays::element_count(spec).saturating_sub(job.next_element))),
        left => (job.retry_from, left),
    };
    (room > 0 && left > 0).then_some((from, room, job.retry_generation))
}

/// A round of a job, if it was opened and is still kept.
pub fn get_round(rows: &dyn Rows, job_id: &str, round: u64) -> Result<Option<RoundRow>, RowsError> {
    match read::job_by_id(rows, job_id)? {
        Some(job) => read::round(rows, job.sequence, round),
        None => Ok(None),
    }
}

/// Like `get_round`, by the job's sequence.
pub fn round_of(rows: &dyn Rows, job_sequence: u64, round: u64) -> Result<Option<RoundRow>, RowsError> {
    read::round(rows, job_sequence, round)
}

/// The artifact that the accepted contribution of a shard to the round before `round` named as its state; empty if it named none. Where
/// shards may miss rounds it is the last contribution before `round` that the job still keeps.
pub fn shard_state(rows: &dyn Rows, job: &JobRow, round: u64, shard: u32) -> Result<String, RowsError> {
    let oldest = if job.round_rules { job.retained_from_round } else { round.saturating_sub(1) };
    for before in (oldest..round).rev() {
        let row = read::contribution(rows, job.sequence, before, shard)?;
        if let Some(row) = row.filter(|row| !row.digest.is_empty()) {
            return Ok(row.state_artifact);
        }
    }
    Ok(String::new())
}

/// A shard's row of a round's ledger.
pub fn contribution_of(
    rows: &dyn Rows,
    job_sequence: u64,
    round: u64,
    shard: u32,
) -> Result<Option<ContributionRow>, RowsError> {
    read::contribution(rows, job_sequence, round, shard)
}

/// What a shard gave over this model, if its job is async: in whatever round that came in.
pub fn given_over(
    rows: &dyn Rows,
    job: &JobRow,
    version: u64,
    shard: u32,
) -> Result<Option<ContributionRow>, RowsError> {
    read::given_over(rows, job.sequence, &RoundPolicy::of(job), job.get_job().rounds_committed, version, shard)
}

/// A round's rows of the ledger, in shard order. A row with an empty digest holds refused results only.
pub fn contributions(rows: &dyn Rows, job_id: &str, round: u64) -> Result<Vec<ContributionRow>, RowsError> {
    match read::job_by_id(rows, job_id)? {
        Some(job) => read::contributions(rows, job.sequence, round),
        None => Ok(Vec::new()),
    }
}

/// The inputs hash that `CommitModel{round + 1}` must carry, once the round is sealed; None if the job or the round is not there.
pub fn expected_inputs_hash(rows: &dyn Rows, job_id: &str, round: u64) -> Result<Option<[u8; 32]>, RowsError> {
    let Some(job_row) = read::job_by_id(rows, job_id)? else { return Ok(None) };
    let Some(round_row) = read::round(rows, job_row.sequence, round)? else { return Ok(None) };
    let contributions = read::contributions(rows, job_row.sequence, round)?;
    Ok(Some(round_inputs_hash(&RoundInputs::of_rows(&job_row, &round_row, &contributions))))
}
