//! The steps in which a task changes its state. Handlers decide which one; here stands what each one writes.

use raftgrid_proto::v1::{AttemptEnd, JobPhase, Phase, StopFor, TaskRow, TaskStatus};

use crate::attempts;
use crate::commands::gangs::{self, Failed};
use crate::commands::{dependencies, job_end};
use crate::error::Fault;
use crate::limits::{BACKOFF_MS_MAX, MAX_RETRIES_DEFAULT};
use crate::machine::Machine;
use crate::tables::{is_over, JobTable, TaskTable};
use crate::text::cut;

/// What ended a lease without a result of the task's own.
#[derive(Clone, Copy)]
pub(crate) enum Interruption {
    /// The worker gave the task back, or it asked for another try.
    GivenBack,
    /// The node is gone, or silent beyond the lease.
    Lost,
}

/// Closes the lease, if one is open; what belonged to it is forgotten, but for how it ended.
fn close_lease(machine: &Machine<'_>, row: &mut TaskRow, end: AttemptEnd, reason: &str) {
    attempts::ended(machine, row, end, reason);
    row.open_epoch = 0;
    row.ready = false;
    row.model_given = false;
    row.model_given_version = 0;
    row.model_given_position = 0;
    row.stop_requested_ms = 0;
    row.stop_for = StopFor::STOP_FOR_CANCEL;
    row.not_before_ms = 0;
}

/// Writes the row and, if the task is over, tells its job.
fn finish(machine: &mut Machine<'_>, row: TaskRow) -> Result<TaskRow, Fault> {
    let row = TaskTable::put(machine, row)?;
    if is_over(row.get_task()) {
        if row.dependents > 0 {
            machine.ended.push(row.sequence);
        }
        if row.job_sequence != 0 {
            job_end::task_ended(machine, &row)?;
        }
    }
    Ok(row)
}

pub(crate) fn complete(machine: &mut Machine<'_>, mut row: TaskRow, result_data: &str) -> Result<TaskRow, Fault> {
    close_lease(machine, &mut row, AttemptEnd::ATTEMPT_COMPLETED, "");
    let now = machine.now_s();
    let task = row.mut_task();
    task.status = TaskStatus::COMPLETED;
    task.phase = Phase::PHASE_SUCCEEDED;
    task.completed_at = now;
    task.result_data = result_data.to_owned();
    task.failure_reason.clear();
    task.pending_reason.clear();
    finish(machine, row)
}

fn end_of(phase: Phase) -> AttemptEnd {
    match phase {
        Phase::PHASE_CANCELLED => AttemptEnd::ATTEMPT_CANCELLED,
        Phase::PHASE_DEADLINE => AttemptEnd::ATTEMPT_DEADLINE,
        Phase::PHASE_LOST => AttemptEnd::ATTEMPT_LOST,
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
        | Phase::PHASE_REJECTED => AttemptEnd::ATTEMPT_FAILED,
    }
}

pub(crate) fn fail(machine: &mut Machine<'_>, mut row: TaskRow, phase: Phase, reason: &str) -> Result<TaskRow, Fault> {
    close_lease(machine, &mut row, end_of(phase), reason);
    let now = machine.now_s();
    let task = row.mut_task();
    task.status = TaskStatus::FAILED;
    task.phase = phase;
    task.completed_at = now;
    task.failure_reason = cut(reason);
    task.pending_reason.clear();
    finish(machine, row)
}

fn back_off(
    machine: &mut Machine<'_>,
    mut row: TaskRow,
    end: AttemptEnd,
    backoff_ms: u64,
    reason: &str,
) -> Result<TaskRow, Fault> {
    close_lease(machine, &mut row, end, reason);
    row.not_before_ms = machine.now_ms().saturating_add(backoff_ms.min(BACKOFF_MS_MAX));
    let task = row.mut_task();
    task.status = TaskStatus::PENDING;
    task.phase = Phase::PHASE_BACKOFF;
    task.assigned_node_id.clear();
    task.started_at = 0;
    task.failure_reason = cut(reason);
    task.pending_reason = "backoff".to_owned();
    let row = finish(machine, row)?;
    gangs::member_left(machine, &row)?;
    Ok(row)
}

fn past_deadline(row: &TaskRow, at_ms: u64) -> bool {
    let deadline = row.get_task().get_spec().deadline_unix_ms;
    deadline != 0 && at_ms >= deadline
}

/// A task whose job is over is not tried again.
fn job_over(machine: &Machine<'_>, row: &TaskRow) -> Result<bool, Fault> {
    Ok(row.job_sequence != 0 && job_end::is_over(JobTable::get(machine, row.job_sequence)?.get_job().phase))
}

/// The end of a lease that says nothing about the task: it is tried again, without bound but the deadline.
pub(crate) fn interrupt(
    machine: &mut Machine<'_>,
    mut row: TaskRow,
    kind: Interruption,
    backoff_ms: u64,
    reason: &str,
) -> Result<TaskRow, Fault> {
    if row.get_task().phase == Phase::PHASE_STOPPING {
        return stopped(machine, row, "");
    }
    row.infrastructure_failures = row.infrastructure_failures.saturating_add(1);
    gangs::count_failure(machine, &row, Failed::Infrastructure)?;
    if job_over(machine, &row)? {
        return fail(machine, row, Phase::PHASE_CANCELLED, "its job is over");
    }
    if past_deadline(&row, machine.now_ms().saturating_add(backoff_ms.min(BACKOFF_MS_MAX))) {
        let phase = match kind {
            Interruption::GivenBack => Phase::PHASE_DEADLINE,
            Interruption::Lost => Phase::PHASE_LOST,
        };
        return fail(machine, row, phase, &format!("no time is left before the deadline: {reason}"));
    }
    let end = match kind {
        Interruption::GivenBack => AttemptEnd::ATTEMPT_GIVEN_BACK,
        Interruption::Lost => AttemptEnd::ATTEMPT_LOST,
    };
    back_off(machine, row, end, backoff_ms, reason)
}

/// The task itself failed: it is tried again as often as its spec says.
pub(crate) fn user_failure(
    machine: &mut Machine<'_>,
    mut row: TaskRow,
    backoff_ms: u64,
    reason: &str,
    again: bool,
) -> Result<TaskRow, Fault> {
    if row.get_task().phase == Phase::PHASE_STOPPING {
        return stopped(machine, row, "");
    }
    row.user_failures = row.user_failures.saturating_add(1);
    let of_gang = gangs::count_failure(machine, &row, Failed::User)?;
    if job_over(machine, &row)? {
        return fail(machine, row, Phase::PHASE_CANCELLED, "its job is over");
    }
    let spec = row.get_task().get_spec();
    let allowed = if spec.retries_given { spec.max_retries } else { MAX_RETRIES_DEFAULT };
    let retries = if again { allowed } else { 0 };
    if of_gang.unwrap_or(row.user_failures) > retries {
        let phase = if retries == 0 { Phase::PHASE_ERROR } else { Phase::PHASE_RETRIES_EXHAUSTED };
        return fail(machine, row, phase, reason);
    }
    if past_deadline(&row, machine.now_ms().saturating_add(backoff_ms.min(BACKOFF_MS_MAX))) {
        let why = format!("no time is left before the deadline: {reason}");
        return fail(machine, row, Phase::PHASE_DEADLINE, &why);
    }
    back_off(machine, row, AttemptEnd::ATTEMPT_FAILED, backoff_ms, reason)
}

/// The process is gone, or never was: the task becomes what it was stopped for. Without a reason, the one given with the stop stands.
pub(crate) fn stopped(machine: &mut Machine<'_>, row: TaskRow, reason: &str) -> Result<TaskRow, Fault> {
    let over = past_deadline(&row, machine.now_ms()) || job_over(machine, &row)?;
    match row.stop_for {
        StopFor::STOP_FOR_SUSPEND if !over => suspended(machine, row, reason),
        StopFor::STOP_FOR_REQUEUE if !over => queued(machine, row),
        StopFor::STOP_FOR_CANCEL | StopFor::STOP_FOR_SUSPEND | StopFor::STOP_FOR_REQUEUE => {
            cancelled(machine, row, reason)
        }
    }
}

/// Off its node and out of the queue, until it is resumed.
fn suspended(machine: &mut Machine<'_>, row: TaskRow, reason: &str) -> Result<TaskRow, Fault> {
    let given = row.get_task().failure_reason.clone();
    let reason = if reason.is_empty() { given.as_str() } else { reason };
    let pending = if reason.is_empty() { "suspended".to_owned() } else { cut(reason) };
    set_aside(machine, row, Phase::PHASE_SUSPENDED, AttemptEnd::ATTEMPT_SUSPENDED, pending)
}

/// In the queue again, with no failure counted; or among those that wait for other tasks, if it does.
pub(crate) fn queued(machine: &mut Machine<'_>, row: TaskRow) -> Result<TaskRow, Fault> {
    let (phase, pending) = match row.unmet {
        0 => (Phase::PHASE_QUEUED, String::new()),
        unmet => (Phase::PHASE_BLOCKED, dependencies::pending_reason(unmet)),
    };
    set_aside(machine, row, phase, AttemptEnd::ATTEMPT_REQUEUED, pending)
}

fn set_aside(
    machine: &mut Machine<'_>,
    mut row: TaskRow,
    phase: Phase,
    end: AttemptEnd,
    pending: String,
) -> Result<TaskRow, Fault> {
    let reason = row.get_task().failure_reason.clone();
    close_lease(machine, &mut row, end, &reason);
    let task = row.mut_task();
    task.status = TaskStatus::PENDING;
    task.phase = phase;
    task.assigned_node_id.clear();
    task.started_at = 0;
    task.failure_reason.clear();
    task.pending_reason = pending;
    let row = finish(machine, row)?;
    gangs::member_left(machine, &row)?;
    Ok(row)
}

/// The end of a task that is not to run any more. Without a reason, the one given with the stop stands.
fn cancelled(machine: &mut Machine<'_>, row: TaskRow, reason: &str) -> Result<TaskRow, Fault> {
    let phase = if past_deadline(&row, machine.now_ms()) { Phase::PHASE_DEADLINE } else { Phase::PHASE_CANCELLED };
    let task = row.get_task();
    let given = if task.phase == Phase::PHASE_STOPPING { task.failure_reason.clone() } else { String::new() };
    let reason = match (reason, given.as_str()) {
        ("", "") => "cancelled",
        ("", given) => given,
        (reason, _) => reason,
    };
    fail(machine, row, phase, reason)
}

/// Cancels a task that is not over: at once where no process can exist; else it is STOPPING until the worker, or the end of the grace,
/// confirms it.
pub(crate) fn stop(machine: &mut Machine<'_>, row: TaskRow, reason: &str) -> Result<TaskRow, Fault> {
    stop_for(machine, row, StopFor::STOP_FOR_CANCEL, reason)
}

/// The same with another end. A cancel takes the place of any other; a task that is being cancelled stays so.
/// Members of a gang go together: the others are queued again.
pub(crate) fn stop_for(machine: &mut Machine<'_>, row: TaskRow, end: StopFor, reason: &str) -> Result<TaskRow, Fault> {
    let row = stop_alone(machine, row, end, reason)?;
    if row.open_epoch != 0 && end != StopFor::STOP_FOR_CANCEL {
        gangs::take_down(machine, &row)?;
    }
    Ok(row)
}

/// The same for this one task.
pub(crate) fn stop_alone(
    machine: &mut Machine<'_>,
    mut row: TaskRow,
    end: StopFor,
    reason: &str,
) -> Result<TaskRow, Fault> {
    match row.get_task().status {
        TaskStatus::PENDING => {
            row.stop_for = end;
            stopped(machine, row, reason)
        }
        TaskStatus::ASSIGNED | TaskStatus::RUNNING => {
            let stops = row.get_task().phase == Phase::PHASE_STOPPING;
            if stops && (row.stop_for == end || row.stop_for == StopFor::STOP_FOR_CANCEL) {
                return Ok(row);
            }
            row.stop_for = end;
            if !stops {
                row.stop_requested_ms = machine.now_ms();
            }
            let task = row.mut_task();
            task.status = TaskStatus::RUNNING;
            task.phase = Phase::PHASE_STOPPING;
            task.failure_reason = cut(match (reason, end) {
                ("", StopFor::STOP_FOR_CANCEL) => "cancelled",
                ("", StopFor::STOP_FOR_SUSPEND) => "suspended",
                ("", StopFor::STOP_FOR_REQUEUE) => "requeued",
                (reason, _) => reason,
            });
            TaskTable::put(machine, row)
        }
        TaskStatus::COMPLETED | TaskStatus::FAILED => Ok(row),
    }
}

/// A job that can still change.
pub(crate) fn require_running(phase: JobPhase, job_id: &str) -> Result<(), Fault> {
    match phase {
        JobPhase::JOB_RUNNING => Ok(()),
        JobPhase::JOB_INIT
        | JobPhase::JOB_DONE
        | JobPhase::JOB_FAILED
        | JobPhase::JOB_CANCELLED
        | JobPhase::JOB_PAUSED
        | JobPhase::JOB_REJECTED => {
            Err(crate::reply::precondition(format!("job {job_id} is {}, not RUNNING", job_end::phase_name(phase))))
        }
    }
}
