//! PreemptTask: an attempt gives its node back, with grace, and the task is queued again. The leader proposes it for preemptible work that is
//! in the way of other work, and for whatever runs on a node that drains.

use raftgrid_proto::v1::{CommandReply, Phase, PreemptTask, StopFor};

use crate::commands::lifecycle::stop_for;
use crate::commands::tasks::with_open_lease;
use crate::error::Handled;
use crate::machine::Machine;

/// The epoch fences it: an attempt that ended meanwhile, and the next one, are left alone. One that is being stopped already stays so.
pub(crate) fn preempt(machine: &mut Machine<'_>, command: &PreemptTask) -> Handled {
    let row = with_open_lease(machine, &command.task_id, command.epoch)?;
    if row.get_task().phase == Phase::PHASE_STOPPING {
        return Ok(CommandReply { id: command.task_id.clone(), ..machine.existing(row.get_task().revision) });
    }
    let reason = if command.reason.is_empty() { "preempted" } else { &command.reason };
    stop_for(machine, row, StopFor::STOP_FOR_REQUEUE, reason)?;
    Ok(CommandReply { id: command.task_id.clone(), ..machine.ok() })
}
