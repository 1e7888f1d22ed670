//! The read side: what api and control ask of the rows, all over `&dyn Rows` and therefore as of one instant. Nothing here writes.

mod artifacts;
mod audit;
mod cluster;
mod encoded;
mod explain;
mod history;
mod jobs;
mod kv;
mod never;
mod nodes;
mod queues;
mod schedules;
mod tasks;
mod timeline;

pub(crate) use artifacts::find_model;
pub use artifacts::{
    artifact_info, artifact_row, artifact_rows, artifact_rows_from, artifact_usage, artifact_versions,
    artifact_with_names, bytes_of, find_artifact, list_artifacts, model_version_of, room_of, ArtifactPage,
};
pub use audit::audit;
pub use cluster::{digest, members, members_ever, meta, request_answer};
pub use encoded::EncodedTask;
pub use explain::explain_task;
pub use history::round_history;
pub use jobs::{
    contribution_of, contributions, element_counts, expected_inputs_hash, first_model_maker, get_job, get_round,
    given_over, job_row, job_row_by_sequence, job_rows, job_tasks, list_jobs, next_elements, round_of, shard_state,
    shown_tasks, JobPage,
};
pub use kv::{kv, kv_count, list_kv, KvPage};
pub use never::never;
pub use nodes::{get_node, get_nodes, node_row, node_rows};
pub use queues::{get_queue, list_queues};
pub use schedules::{list_schedules, schedule_row, SchedulePage};
pub use tasks::{
    count_tasks, encoded_task, get_task, list_encoded_tasks, list_tasks, task_row, task_rows, tasks_of_job,
    tasks_of_node, TaskFilter, TaskPage,
};

use crate::keys;
use crate::limits::PAGE_ROWS_MAX;
use crate::rows::RowsError;

/// Where a listing goes on: after the row that the token names. An empty token is the beginning; None: not a token of ours.
fn page_start(token: &[u8]) -> Option<u64> {
    match token {
        [] => Some(0),
        bytes if bytes.len() == 8 => keys::last_number(bytes).and_then(|last| last.checked_add(1)),
        _ => None,
    }
}

/// Rows in a page: `limit` where it is given and not above the bound.
fn page_rows(limit: usize) -> usize {
    if limit == 0 {
        PAGE_ROWS_MAX
    } else {
        limit.min(PAGE_ROWS_MAX)
    }
}

/// Why a listing cannot be given.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ListError {
    /// The caller's token; INVALID_ARGUMENT.
    #[error("page_token: not one that a listing gave")]
    Token,
    /// The tables; the replica must stop.
    #[error(transparent)]
    Rows(#[from] RowsError),
}
