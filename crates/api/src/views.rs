//! The one place where the services meet `manifest`'s views: rows in, messages out.

use raftgrid_manifest::Rows;
use raftgrid_proto::v1::*;

use crate::failure::Answer;

/// A page of tasks.
pub(crate) struct TaskPage<'a> {
    pub(crate) status: Option<TaskStatus>,
    pub(crate) job_id: &'a str,
    pub(crate) limit: usize,
    pub(crate) token: &'a [u8],
}

pub(crate) fn task(rows: &dyn Rows, task_id: &str) -> Answer<Option<TaskRow>> { todo!() }
pub(crate) fn tasks(rows: &dyn Rows, page: TaskPage<'_>) -> Answer<(Vec<Task>, Vec<u8>)> { todo!() }
pub(crate) fn refusal(rows: &dyn Rows, row: &TaskRow, node: &Node) -> Answer<Option<String>> { todo!() }
pub(crate) fn report_digest(status: TaskStatus, result_data: &str) -> [u8; 32] { todo!() }
pub(crate) fn nodes(rows: &dyn Rows) -> Answer<Vec<Node>> { todo!() }
pub(crate) fn node(rows: &dyn Rows, node_id: &str) -> Answer<Option<NodeRow>> { todo!() }
pub(crate) fn job(rows: &dyn Rows, job_id: &str) -> Answer<Option<JobRow>> { todo!() }
pub(crate) fn jobs(rows: &dyn Rows, limit: usize, token: &[u8]) -> Answer<(Vec<Job>, Vec<u8>)> { todo!() }
pub(crate) fn tasks_of_job(rows: &dyn Rows, job: &JobRow) -> Answer<Vec<Task>> { todo!() }
pub(crate) fn audit(rows: &dyn Rows, job_id: &str, with: bool) -> Answer<Option<AuditJobResponse>> { todo!() }
pub(crate) fn first_round_after(rows: &dyn Rows, job: &JobRow, position: u64) -> Answer<u64> { todo!() }
pub(crate) fn committed_rounds(rows: &dyn Rows, job: &JobRow, from: u64, max: usize) -> Answer<Vec<RoundRow>> { todo!() }
pub(crate) fn artifact(rows: &dyn Rows, artifact: &str) -> Answer<Option<ArtifactRow>> { todo!() }
pub(crate) fn artifacts(rows: &dyn Rows, limit: usize, token: &[u8]) -> Answer<(Vec<ArtifactRow>, Vec<u8>)> { todo!() }
