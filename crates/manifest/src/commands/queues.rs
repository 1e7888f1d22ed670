//! PutQueue, DeleteQueue: queues of tasks, their shares and limits. What a queue's tasks hold is counted by `QueueTable`.

use protobuf::SingularPtrField;
use raftgrid_proto::v1::{CommandReply, DeleteQueue, PutQueue, Queue, QueueRow};

use crate::error::{Fault, Handled};
use crate::keys;
use crate::limits::{JOB_NAME_BYTES_MAX, PRIORITY_MAX, QUEUES_MAX, QUEUE_WEIGHT_MAX};
use crate::machine::Machine;
use crate::read;
use crate::reply::{invalid, not_found, precondition};
use crate::rows::{Rows as _, Table};
use crate::tables::QueueTable;
use crate::text::check_name;

fn check(queue: &Queue) -> Result<(), Fault> {
    check_name("queue.name", &queue.name, JOB_NAME_BYTES_MAX, b"")?;
    if queue.weight == 0 || queue.weight > QUEUE_WEIGHT_MAX {
        return Err(invalid("queue.weight", format!("1..={QUEUE_WEIGHT_MAX}, is {}", queue.weight)));
    }
    if !(0..=PRIORITY_MAX).contains(&queue.default_priority) {
        let why = format!("0..={PRIORITY_MAX}, is {}", queue.default_priority);
        return Err(invalid("queue.default_priority", why));
    }
    Ok(())
}

/// A new queue, or other shares and limits of one that is there. Tasks that run keep running, even beyond a smaller quota.
pub(crate) fn put(machine: &mut Machine<'_>, command: &PutQueue) -> Handled {
    let said = command.get_queue();
    check(said)?;
    let known = read::queue(&machine.rows, &said.name)?;
    if known.is_none() {
        let mut queues = 0;
        machine.rows.scan(Table::Queue, &[], &[], &mut |_, _| {
            queues += 1;
            true
        })?;
        if queues >= QUEUES_MAX {
            return Err(precondition(format!("there are {QUEUES_MAX} queues already")));
        }
    }
    let known = known.and_then(|row| row.queue.into_option()).unwrap_or_default();
    let queue = Queue {
        name: said.name.clone(),
        weight: said.weight,
        quota: said.quota.clone(),
        max_running: said.max_running,
        default_priority: said.default_priority,
        usage: known.usage.clone(),
        running_tasks: known.running_tasks,
        open_tasks: known.open_tasks,
        revision: known.revision,
        ..Queue::default()
    };
    if queue == known {
        return Ok(CommandReply { id: queue.name, ..machine.existing(known.revision) });
    }
    let id = queue.name.clone();
    QueueTable::put(machine, QueueRow { queue: SingularPtrField::some(queue), ..QueueRow::default() });
    Ok(CommandReply { id, ..machine.ok() })
}

/// Only a queue whose tasks are all over goes.
pub(crate) fn delete(machine: &mut Machine<'_>, command: &DeleteQueue) -> Handled {
    let name = &command.name;
    let row = read::queue(&machine.rows, name)?.ok_or_else(|| not_found("queue", name))?;
    let open = row.get_queue().open_tasks;
    if open > 0 {
        return Err(precondition(format!("queue {name} has {open} tasks that are not over")));
    }
    machine.delete(Table::Queue, keys::queue(name));
    Ok(CommandReply { id: name.clone(), ..machine.ok() })
}
