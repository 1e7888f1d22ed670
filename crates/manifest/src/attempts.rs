//! What a task's row remembers of its attempts: where and when each ran, and how it ended. Written by the steps of `lifecycle` and by the
//! assignment, read by the timeline of an explanation. Never more than `ATTEMPTS_KEPT_MAX` of them, the oldest go first.
//!
//! Kept from machine version 3 on: an older replica would write other rows.

use raftgrid_proto::v1::{AttemptEnd, AttemptRecord, TaskRow};

use crate::limits::{ATTEMPTS_KEPT_MAX, ATTEMPT_REASON_BYTES_MAX};
use crate::machine::Machine;
use crate::text::cut_to;

const SINCE_VERSION: u64 = 3;

/// The row's new lease opens: its attempt, node and epoch are written.
pub(crate) fn opened(machine: &Machine<'_>, row: &mut TaskRow) {
    if machine.meta.machine_version < SINCE_VERSION {
        return;
    }
    let task = row.get_task();
    let record = AttemptRecord {
        attempt: task.attempt,
        node_id: task.assigned_node_id.clone(),
        assigned_ms: machine.now_ms(),
        ..AttemptRecord::default()
    };
    let excess = (row.attempts.len() + 1).saturating_sub(ATTEMPTS_KEPT_MAX);
    let mut attempts = row.take_attempts().into_vec();
    attempts.drain(..excess);
    attempts.push(record);
    row.attempts = attempts.into();
}

/// The record of the open attempt, if one is kept.
fn open_record(row: &mut TaskRow) -> Option<&mut AttemptRecord> {
    row.attempts.last_mut().filter(|record| record.end == AttemptEnd::ATTEMPT_OPEN)
}

/// Its process runs.
pub(crate) fn started(machine: &Machine<'_>, row: &mut TaskRow) {
    if let Some(record) = open_record(row) {
        record.started_ms = machine.now_ms();
    }
}

/// Its lease is closed.
pub(crate) fn ended(machine: &Machine<'_>, row: &mut TaskRow, end: AttemptEnd, reason: &str) {
    if let Some(record) = open_record(row) {
        record.ended_ms = machine.now_ms();
        record.end = end;
        record.reason = cut_to(reason, ATTEMPT_REASON_BYTES_MAX);
    }
}
