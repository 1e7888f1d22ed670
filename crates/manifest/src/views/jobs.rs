//! Jobs, their rounds and their ledger.

use raftgrid_proto::v1::{ContributionRow, Job, JobRow, RoundRow, Task};

use crate::keys;
use crate::ledger::{round_inputs_hash, RoundInputs};
use crate::read;
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
