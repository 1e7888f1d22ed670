//! Tasks as the checkers see them.

use raftgrid_proto::v1::{TaskRow, TaskStatus};

use crate::linearizability::{Life, Tag, TaskSeen};

/// The data of a task that carries `tag`.
pub fn data(tag: Tag) -> Vec<u8> {
    format!("{{\"tag\":{tag}}}").into_bytes()
}

/// The tag that a task carries.
pub fn tag(data: &[u8]) -> Option<Tag> {
    std::str::from_utf8(data).ok()?.strip_prefix("{\"tag\":")?.strip_suffix('}')?.parse().ok()
}

/// A row as the judge of lives takes it.
pub fn seen(row: &TaskRow) -> TaskSeen {
    let task = row.get_task();
    let life = match task.status {
        TaskStatus::PENDING => Life::Pending,
        TaskStatus::ASSIGNED => Life::Assigned,
        TaskStatus::RUNNING => Life::Running,
        TaskStatus::COMPLETED => Life::Completed,
        TaskStatus::FAILED => Life::Failed,
    };
    TaskSeen {
        revision: task.revision,
        life,
        epoch: task.lease_epoch,
        attempt: task.attempt,
        result: task.result_data.clone(),
    }
}
