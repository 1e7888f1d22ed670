//! The one place where the services meet `manifest`'s views: rows in, messages out, failures as statuses.

use raftgrid_manifest::views::{self, EncodedTask, ListError, TaskFilter};
use raftgrid_manifest::Rows;
use raftgrid_proto::v1::*;

use crate::failure::{invalid, Answer, Failure};

/// A page of tasks.
pub(crate) struct TaskPage<'a> {
    pub(crate) status: Option<TaskStatus>,
    /// "": of any job or none.
    pub(crate) job_id: &'a str,
    /// "": of any queue or none.
    pub(crate) queue: &'a str,
    pub(crate) limit: usize,
    pub(crate) token: &'a [u8],
}

fn listing(error: ListError) -> Failure {
    match error {
        ListError::Token => invalid("page_token", "not one that a listing gave"),
        ListError::Rows(error) => error.into(),
    }
}

pub(crate) fn task(rows: &dyn Rows, task_id: &str) -> Answer<Option<TaskRow>> {
    Ok(views::task_row(rows, task_id)?)
}

/// The task as its row holds it, with its sequence.
pub(crate) fn encoded_task(rows: &dyn Rows, task_id: &str) -> Answer<Option<(u64, EncodedTask)>> {
    Ok(views::encoded_task(rows, task_id)?)
}

pub(crate) fn tasks(rows: &dyn Rows, page: TaskPage<'_>) -> Answer<(Vec<EncodedTask>, Vec<u8>)> {
    let job_id = (!page.job_id.is_empty()).then(|| page.job_id.to_owned());
    let queue = (!page.queue.is_empty()).then(|| page.queue.to_owned());
    let filter = TaskFilter { status: page.status, job_id, queue };
    let found = views::list_encoded_tasks(rows, &filter, page.token, page.limit).map_err(listing)?;
    Ok((found.tasks, found.next_page_token))
}

pub(crate) fn explain(rows: &dyn Rows, task_id: &str) -> Answer<Option<ExplainTaskResponse>> {
    Ok(views::explain_task(rows, task_id)?)
}

pub(crate) fn nodes(rows: &dyn Rows) -> Answer<Vec<Node>> {
    Ok(views::get_nodes(rows)?)
}

pub(crate) fn node(rows: &dyn Rows, node_id: &str) -> Answer<Option<Node>> {
    Ok(views::get_node(rows, node_id)?)
}

pub(crate) fn job(rows: &dyn Rows, job_id: &str) -> Answer<Option<JobRow>> {
    Ok(views::job_row(rows, job_id)?)
}

pub(crate) fn round_history(
    rows: &dyn Rows,
    job_id: &str,
    from: u64,
    limit: usize,
) -> Answer<Option<JobHistoryResponse>> {
    Ok(views::round_history(rows, job_id, from, limit)?)
}

pub(crate) fn jobs(rows: &dyn Rows, limit: usize, token: &[u8]) -> Answer<(Vec<Job>, Vec<u8>)> {
    let found = views::list_jobs(rows, token, limit).map_err(listing)?;
    Ok((found.jobs, found.next_page_token))
}

pub(crate) fn tasks_of_job(rows: &dyn Rows, job: &JobRow) -> Answer<Vec<Task>> {
    Ok(views::shown_tasks(rows, job)?)
}

pub(crate) fn element_counts(rows: &dyn Rows, job: &JobRow) -> Answer<Option<ElementCounts>> {
    Ok(views::element_counts(rows, job)?)
}

pub(crate) fn schedule(rows: &dyn Rows, schedule_id: &str) -> Answer<Option<ScheduleRow>> {
    Ok(views::schedule_row(rows, schedule_id)?)
}

pub(crate) fn schedules(rows: &dyn Rows, limit: usize, token: &[u8]) -> Answer<(Vec<Schedule>, Vec<u8>)> {
    let found = views::list_schedules(rows, token, limit).map_err(listing)?;
    Ok((found.schedules, found.next_page_token))
}

/// Cluster time, in Unix milliseconds.
pub(crate) fn cluster_time_ms(rows: &dyn Rows) -> Answer<u64> {
    Ok(views::meta(rows)?.cluster_time_ms)
}

pub(crate) fn audit(rows: &dyn Rows, job_id: &str, with_contributions: bool) -> Answer<Option<AuditJobResponse>> {
    Ok(views::audit(rows, job_id, with_contributions)?)
}

pub(crate) fn artifact(rows: &dyn Rows, artifact: &str) -> Answer<Option<ArtifactInfo>> {
    let Some(row) = views::find_artifact(rows, artifact)? else { return Ok(None) };
    Ok(Some(views::artifact_with_names(rows, &row)?))
}

/// The versions of a name, oldest first.
pub(crate) fn artifact_versions(rows: &dyn Rows, name: &str) -> Answer<Vec<ArtifactInfo>> {
    Ok(views::artifact_versions(rows, name)?)
}

/// Who holds how many bytes.
pub(crate) fn artifact_usage(rows: &dyn Rows) -> Answer<Vec<ArtifactUsage>> {
    Ok(views::artifact_usage(rows)?)
}

/// The version that the state is at.
pub(crate) fn machine_version(rows: &dyn Rows) -> Answer<u64> {
    Ok(views::meta(rows)?.machine_version)
}

pub(crate) fn artifacts(rows: &dyn Rows, limit: usize, token: &[u8]) -> Answer<(Vec<ArtifactInfo>, Vec<u8>)> {
    let found = views::list_artifacts(rows, token, limit).map_err(listing)?;
    Ok((found.artifacts, found.next_page_token))
}

/// The first round that was committed after `position`. None: rows of earlier rounds are gone, so what was missed cannot be told.
/// Position 0 asks for whatever is kept.
pub(crate) fn first_round_after(rows: &dyn Rows, job: &JobRow, position: u64) -> Answer<Option<u64>> {
    let mut next = job.get_job().get_rounds_committed();
    while let Some(before) = next.checked_sub(1) {
        match views::round_of(rows, job.get_sequence(), before)? {
            Some(round) if round.get_committed_position() > position => next = before,
            Some(_) => break,
            None if position == 0 => break,
            None => return Ok(None),
        }
    }
    Ok(Some(next))
}

/// At most `max` committed rounds from `from` on, in order. None: the first of them is no longer kept.
pub(crate) fn committed_rounds(rows: &dyn Rows, job: &JobRow, from: u64, max: usize) -> Answer<Option<Vec<RoundRow>>> {
    let end = job.get_job().get_rounds_committed().min(from.saturating_add(max as u64));
    let mut found = Vec::new();
    for number in from..end {
        match views::round_of(rows, job.get_sequence(), number)? {
            Some(round) => found.push(round),
            None if found.is_empty() => return Ok(None),
            None => break,
        }
    }
    Ok(Some(found))
}
