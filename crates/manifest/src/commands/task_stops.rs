//! CancelTask and RetryTask: what people do to tasks.

use raftgrid_proto::v1::{CancelTask, CommandReply, Outcome, Phase, RetryTask, StopFor, TaskStatus};

use crate::commands::lifecycle::{stop, stopped};
use crate::commands::tasks::{create, NewTask};
use crate::error::Handled;
use crate::limits::{ID_BYTES_MAX, RETRIES_BY_HAND_MAX};
use crate::machine::Machine;
use crate::read;
use crate::reply::{not_found, precondition, refuse};
use crate::tables::{is_over, TaskTable};

/// STOPPING where a process may exist; FAILED(CANCELLED) when `confirmed`, or at once where there is none. A confirmed end of a stop that is not
/// a cancel makes of the task what it was stopped for.
pub(crate) fn cancel(machine: &mut Machine<'_>, command: &CancelTask) -> Handled {
    let task_id = &command.task_id;
    let row = read::task_by_id(&machine.rows, task_id)?.ok_or_else(|| not_found("task", task_id))?;
    let task = row.get_task();
    if is_over(task) {
        if task.phase == Phase::PHASE_CANCELLED {
            return Ok(CommandReply { id: task_id.clone(), ..machine.existing(task.revision) });
        }
        return Err(precondition(format!("task {task_id} is {:?} already", task.status)));
    }
    let cancelling = task.phase == Phase::PHASE_STOPPING && row.stop_for == StopFor::STOP_FOR_CANCEL;
    if cancelling && !command.confirmed {
        return Ok(CommandReply { id: task_id.clone(), ..machine.existing(task.revision) });
    }
    if command.confirmed {
        stopped(machine, row, &command.reason)?;
    } else {
        stop(machine, row, &command.reason)?;
    }
    Ok(CommandReply { id: task_id.clone(), ..machine.ok() })
}

/// A task in BACKOFF is queued at once. A task that failed stays as it is, since terminal states never change: a copy of it, `<id>/retry-<n>`,
/// is made, with the failed one as its parent.
pub(crate) fn retry(machine: &mut Machine<'_>, command: &RetryTask) -> Handled {
    let task_id = &command.task_id;
    let mut row = read::task_by_id(&machine.rows, task_id)?.ok_or_else(|| not_found("task", task_id))?;
    match row.get_task().status {
        TaskStatus::PENDING => match row.get_task().phase {
            Phase::PHASE_BACKOFF => {
                row.not_before_ms = 0;
                let task = row.mut_task();
                task.phase = Phase::PHASE_QUEUED;
                task.pending_reason.clear();
                TaskTable::put(machine, row)?;
                Ok(CommandReply { id: task_id.clone(), ..machine.ok() })
            }
            Phase::PHASE_QUEUED => {
                Ok(CommandReply { id: task_id.clone(), ..machine.existing(row.get_task().revision) })
            }
            phase => Err(precondition(format!("task {task_id} is {phase:?}"))),
        },
        TaskStatus::FAILED => retry_failed(machine, task_id),
        status => Err(precondition(format!("task {task_id} is {status:?}; only a failed or waiting task is retried"))),
    }
}

fn retry_failed(machine: &mut Machine<'_>, task_id: &str) -> Handled {
    let row = read::task_by_id(&machine.rows, task_id)?.ok_or_else(|| not_found("task", task_id))?;
    let task = row.get_task();
    if row.job_sequence != 0 {
        let why = format!("task {task_id} belongs to job {}; submit the job again under another name", task.job_id);
        return Err(precondition(why));
    }
    for n in 1..=RETRIES_BY_HAND_MAX {
        let copy = format!("{task_id}/retry-{n}");
        if copy.len() > ID_BYTES_MAX {
            break;
        }
        if read::task_by_id(&machine.rows, &copy)?.is_some() {
            continue;
        }
        let mut spec = task.spec.clone();
        if let Some(spec) = spec.as_mut() {
            // They are over: what a person runs again waits for nothing.
            spec.depends_on.clear();
        }
        let new = NewTask {
            task_id: copy.clone(),
            task_type: task.task_type.clone(),
            task_data: task.task_data.clone(),
            spec,
            parent_task_id: task_id.to_owned(),
            job: (String::new(), 0),
            element: None,
        };
        create(machine, new)?;
        return Ok(CommandReply { id: copy, ..machine.ok() });
    }
    Err(refuse(Outcome::EXHAUSTED, format!("task {task_id} was retried {RETRIES_BY_HAND_MAX} times; submit a new one")))
}
