//! SuspendTask, ResumeTask, RequeueTask and SetPriority: what people do to the place of a task in the queue. None of them counts a failure.

use raftgrid_proto::v1::{
    CommandReply, Phase, RequeueTask, ResumeTask, SetPriority, StopFor, SuspendTask, TaskRow, TaskStatus,
};

use crate::commands::lifecycle::{queued, stop_for};
use crate::error::{Fault, Handled};
use crate::limits::PRIORITY_MAX;
use crate::machine::Machine;
use crate::read;
use crate::reply::{invalid, not_found, precondition};
use crate::tables::{is_over, TaskTable};

/// The row of a task that is not over.
fn open_task(machine: &Machine<'_>, task_id: &str) -> Result<TaskRow, Fault> {
    let row = read::task_by_id(&machine.rows, task_id)?.ok_or_else(|| not_found("task", task_id))?;
    let task = row.get_task();
    if is_over(task) {
        return Err(precondition(format!("task {task_id} is {:?} already; terminal states never change", task.status)));
    }
    Ok(row)
}

fn done(machine: &Machine<'_>, row: &TaskRow) -> CommandReply {
    CommandReply { id: row.get_task().task_id.clone(), ..machine.ok() }
}

fn as_it_was(machine: &Machine<'_>, row: &TaskRow) -> CommandReply {
    let task = row.get_task();
    CommandReply { id: task.task_id.clone(), ..machine.existing(task.revision) }
}

fn is_stopping_for(row: &TaskRow, end: StopFor) -> bool {
    row.get_task().phase == Phase::PHASE_STOPPING && row.stop_for == end
}

fn refuse_while_cancelled(row: &TaskRow) -> Result<(), Fault> {
    if is_stopping_for(row, StopFor::STOP_FOR_CANCEL) {
        return Err(precondition(format!("task {} is being cancelled", row.get_task().task_id)));
    }
    Ok(())
}

/// PENDING(SUSPENDED): at once where no process can exist, else STOPPING first.
pub(crate) fn suspend(machine: &mut Machine<'_>, command: &SuspendTask) -> Handled {
    let row = open_task(machine, &command.task_id)?;
    refuse_while_cancelled(&row)?;
    let is_suspended = row.get_task().phase == Phase::PHASE_SUSPENDED;
    if is_suspended || is_stopping_for(&row, StopFor::STOP_FOR_SUSPEND) {
        return Ok(as_it_was(machine, &row));
    }
    let row = stop_for(machine, row, StopFor::STOP_FOR_SUSPEND, &command.reason)?;
    Ok(done(machine, &row))
}

/// A suspended task is queued; one that is still being stopped for it will be. One that waits or runs is left as it is.
pub(crate) fn resume(machine: &mut Machine<'_>, command: &ResumeTask) -> Handled {
    let row = open_task(machine, &command.task_id)?;
    refuse_while_cancelled(&row)?;
    if row.get_task().phase == Phase::PHASE_SUSPENDED {
        let row = queued(machine, row)?;
        return Ok(done(machine, &row));
    }
    if is_stopping_for(&row, StopFor::STOP_FOR_SUSPEND) {
        let row = stop_for(machine, row, StopFor::STOP_FOR_REQUEUE, "")?;
        return Ok(done(machine, &row));
    }
    Ok(as_it_was(machine, &row))
}

/// Off its node and into the queue; a task that rests after a failure is queued at once.
pub(crate) fn requeue(machine: &mut Machine<'_>, command: &RequeueTask) -> Handled {
    let row = open_task(machine, &command.task_id)?;
    refuse_while_cancelled(&row)?;
    let task = row.get_task();
    let is_queued = task.status == TaskStatus::PENDING && task.phase == Phase::PHASE_QUEUED;
    if is_queued || is_stopping_for(&row, StopFor::STOP_FOR_REQUEUE) {
        return Ok(as_it_was(machine, &row));
    }
    if task.phase == Phase::PHASE_SUSPENDED {
        return Err(precondition(format!("task {} is suspended; resume it", task.task_id)));
    }
    if task.phase == Phase::PHASE_BLOCKED {
        return Err(precondition(format!("task {} waits for other tasks", task.task_id)));
    }
    let row = stop_for(machine, row, StopFor::STOP_FOR_REQUEUE, &command.reason)?;
    Ok(done(machine, &row))
}

/// Counts from the next placement on; a task that runs keeps its node.
pub(crate) fn set_priority(machine: &mut Machine<'_>, command: &SetPriority) -> Handled {
    if !(0..=PRIORITY_MAX).contains(&command.priority) {
        return Err(invalid("priority", format!("0 to {PRIORITY_MAX}, is {}", command.priority)));
    }
    let mut row = open_task(machine, &command.task_id)?;
    if row.get_task().get_spec().priority == command.priority {
        return Ok(as_it_was(machine, &row));
    }
    row.mut_task().mut_spec().priority = command.priority;
    let row = TaskTable::put(machine, row)?;
    Ok(done(machine, &row))
}
