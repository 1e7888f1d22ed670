//! What happened to a task, when and where, as far as its row remembers.

use raftgrid_proto::v1::{AttemptEnd, AttemptRecord, Phase, TaskRow, TaskStatus, TimelineEvent};

/// The oldest event first. Attempts of before machine version 3, and all but the newest few, are not in it.
pub(crate) fn timeline(row: &TaskRow) -> Vec<TimelineEvent> {
    let task = row.get_task();
    let mut events = vec![TimelineEvent { at_ms: row.submitted_at_ms, what: "submitted".into(), ..Default::default() }];
    for record in row.get_attempts() {
        attempt(record, &mut events);
    }
    let last = row.attempts.last();
    match task.status {
        // The last attempt ended by it; one that was not running ended without an attempt.
        TaskStatus::COMPLETED | TaskStatus::FAILED => {
            let at_ms = u64::try_from(task.completed_at).unwrap_or(0) * 1_000;
            if last.is_none_or(|record| record.ended_ms < at_ms) {
                let what = if task.status == TaskStatus::COMPLETED { "completed" } else { ended_as(task.phase) };
                events.push(TimelineEvent {
                    at_ms,
                    what: what.to_owned(),
                    detail: task.failure_reason.clone(),
                    ..TimelineEvent::default()
                });
            }
        }
        TaskStatus::ASSIGNED | TaskStatus::RUNNING if task.phase == Phase::PHASE_STOPPING => {
            events.push(TimelineEvent {
                at_ms: row.stop_requested_ms,
                what: "stopping".to_owned(),
                attempt: task.attempt,
                node_id: task.assigned_node_id.clone(),
                detail: task.failure_reason.clone(),
                ..TimelineEvent::default()
            });
        }
        TaskStatus::PENDING | TaskStatus::ASSIGNED | TaskStatus::RUNNING => {}
    }
    events
}

fn ended_as(phase: Phase) -> &'static str {
    match phase {
        Phase::PHASE_CANCELLED => "cancelled",
        Phase::PHASE_DEADLINE => "deadline",
        Phase::PHASE_LOST => "lost",
        Phase::PHASE_QUEUED
        | Phase::PHASE_BLOCKED
        | Phase::PHASE_BACKOFF
        | Phase::PHASE_SUSPENDED
        | Phase::PHASE_LEASED
        | Phase::PHASE_STAGING
        | Phase::PHASE_ACTIVE
        | Phase::PHASE_STOPPING
        | Phase::PHASE_ORPHANED
        | Phase::PHASE_SUCCEEDED
        | Phase::PHASE_ERROR
        | Phase::PHASE_RETRIES_EXHAUSTED
        | Phase::PHASE_DEPENDENCY_FAILED
        | Phase::PHASE_REJECTED => "failed",
    }
}

fn attempt(record: &AttemptRecord, events: &mut Vec<TimelineEvent>) {
    let mut event = |at_ms: u64, what: &str, detail: &str| {
        events.push(TimelineEvent {
            at_ms,
            what: what.to_owned(),
            attempt: record.attempt,
            node_id: record.node_id.clone(),
            detail: detail.to_owned(),
            ..TimelineEvent::default()
        });
    };
    event(record.assigned_ms, "assigned", "");
    if record.started_ms != 0 {
        event(record.started_ms, "started", "");
    }
    let what = match record.end {
        AttemptEnd::ATTEMPT_OPEN => return,
        AttemptEnd::ATTEMPT_COMPLETED => "completed",
        AttemptEnd::ATTEMPT_FAILED => "failed",
        AttemptEnd::ATTEMPT_GIVEN_BACK => "given back",
        AttemptEnd::ATTEMPT_LOST => "lost",
        AttemptEnd::ATTEMPT_CANCELLED => "cancelled",
        AttemptEnd::ATTEMPT_SUSPENDED => "suspended",
        AttemptEnd::ATTEMPT_REQUEUED => "requeued",
        AttemptEnd::ATTEMPT_DEADLINE => "deadline",
    };
    event(record.ended_ms, what, &record.reason);
}
