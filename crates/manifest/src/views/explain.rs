//! Why a task is where it is. The scheduler's own reasons (quota, gang, queue position) are the leader's; here stands what the rows tell.

use protobuf::RepeatedField;
use raftgrid_proto::v1::{Condition, ExplainTaskResponse, NodeRow, Phase, TaskRow, TaskStatus};

use crate::commands::dependencies::pending_reason;
use crate::limits::EXPLAINED_NODES_MAX;
use crate::predicates::{able as has_what_it_needs, eligible, fits};
use crate::read;
use crate::rows::{Rows, RowsError, Table};
use crate::tables::is_over;
use crate::views::timeline::timeline;

/// Explains a task; None if there is none of that id. For a waiting task: per node the first failing predicate.
pub fn explain_task(rows: &dyn Rows, task_id: &str) -> Result<Option<ExplainTaskResponse>, RowsError> {
    let Some(row) = read::task_by_id(rows, task_id)? else { return Ok(None) };
    let task = row.get_task();
    let (summary, reasons) = match task.status {
        TaskStatus::PENDING => explain_waiting(rows, &row)?,
        TaskStatus::ASSIGNED | TaskStatus::RUNNING => {
            let what = if task.phase == Phase::PHASE_STOPPING { "is being stopped" } else { "has its lease" };
            let node = &task.assigned_node_id;
            (format!("attempt {} {what} on node {node} (epoch {})", task.attempt, row.open_epoch), failures(&row))
        }
        TaskStatus::COMPLETED => (format!("completed in attempt {}", task.attempt), failures(&row)),
        TaskStatus::FAILED => (format!("failed: {}", task.failure_reason), failures(&row)),
    };
    Ok(Some(ExplainTaskResponse {
        task_id: task_id.to_owned(),
        summary,
        reasons: RepeatedField::from_vec(reasons),
        timeline: RepeatedField::from_vec(timeline(&row)),
        ..ExplainTaskResponse::default()
    }))
}

fn failures(row: &TaskRow) -> Vec<String> {
    let mut reasons = Vec::new();
    if row.user_failures > 0 {
        reasons.push(format!("{} attempts failed by themselves", row.user_failures));
    }
    if row.infrastructure_failures > 0 {
        reasons.push(format!("{} attempts were interrupted", row.infrastructure_failures));
    }
    reasons
}

/// The tasks that are waited for and are not over.
fn explain_blocked(rows: &dyn Rows, row: &TaskRow) -> Result<(String, Vec<String>), RowsError> {
    let mut reasons = Vec::new();
    for dependency in row.get_task().get_spec().get_depends_on() {
        let Some(other) = read::task_by_id(rows, &dependency.task_id)? else { continue };
        let other = other.get_task();
        if !is_over(other) && reasons.len() < EXPLAINED_NODES_MAX {
            let wanted = match dependency.condition {
                Condition::WHEN_SUCCEEDED => "succeed",
                Condition::WHEN_FAILED => "fail",
                Condition::WHEN_ENDED => "end",
            };
            reasons.push(format!("task {} has to {wanted}; it is {:?}", other.task_id, other.status));
        }
    }
    Ok((format!("blocked: it {}", pending_reason(row.unmet)), reasons))
}

fn explain_waiting(rows: &dyn Rows, row: &TaskRow) -> Result<(String, Vec<String>), RowsError> {
    let task = row.get_task();
    let now = read::meta(rows)?.cluster_time_ms;
    if task.phase == Phase::PHASE_SUSPENDED {
        let summary = format!("suspended ({}); it waits to be resumed", task.pending_reason);
        return Ok((summary, failures(row)));
    }
    if task.phase == Phase::PHASE_BLOCKED {
        return explain_blocked(rows, row);
    }
    if task.phase == Phase::PHASE_BACKOFF && row.not_before_ms > now {
        let mut reasons = failures(row);
        reasons.push(format!("the last attempt ended: {}", task.failure_reason));
        return Ok((format!("waits {} ms before the next attempt", row.not_before_ms - now), reasons));
    }
    let (mut nodes, mut able) = (0_usize, 0_usize);
    let mut reasons = Vec::new();
    read::each(rows, Table::Node, &[], &[], |node_row: NodeRow| {
        let node = node_row.get_node();
        nodes += 1;
        let fit = eligible(task, node)
            .and_then(|()| has_what_it_needs(task, node))
            .and_then(|()| fits(task.get_spec().get_resources(), node));
        match fit {
            Ok(()) => able += 1,
            Err(why) if reasons.len() < EXPLAINED_NODES_MAX => reasons.push(format!("node {}: {why}", node.node_id)),
            Err(_) => {}
        }
        true
    })?;
    let summary = match (nodes, able) {
        (0, _) => "no node is registered; start a worker".to_owned(),
        (_, 0) => format!("none of {nodes} nodes can take it"),
        (_, able) => format!("{able} of {nodes} nodes can take it; it is about to be placed"),
    };
    Ok((summary, reasons))
}
