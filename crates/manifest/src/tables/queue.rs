//! Queue rows, with what the tasks of each hold. Followed by `TaskTable::put` only, so that a task is counted once however it moves.

use raftgrid_proto::v1::{Queue, QueueRow, Resources, TaskRow};

use crate::error::Fault;
use crate::keys;
use crate::machine::Machine;
use crate::read;
use crate::rows::{RowsError, Table};
use crate::tables::{demand, is_over};

/// The writer of queue rows.
pub(crate) struct QueueTable;

impl QueueTable {
    pub(crate) fn put(machine: &mut Machine<'_>, mut row: QueueRow) {
        row.mut_queue().revision = machine.position.get();
        let key = keys::queue(row.get_queue().get_name());
        machine.put(Table::Queue, key, &row);
    }

    /// A task's row changes from `old` to `new`: its queue counts it, and what its lease holds.
    pub(crate) fn follow(machine: &mut Machine<'_>, old: Option<&TaskRow>, new: &TaskRow) -> Result<(), Fault> {
        let name = &new.get_task().queue;
        if name.is_empty() {
            return Ok(());
        }
        let open = |row: &TaskRow| !is_over(row.get_task());
        let leased = |row: &TaskRow| row.open_epoch != 0;
        let (was_open, is_open) = (old.is_some_and(open), open(new));
        let (was_leased, is_leased) = (old.is_some_and(leased), leased(new));
        if was_open == is_open && was_leased == is_leased {
            return Ok(());
        }
        let mut row = read::queue(&machine.rows, name)?
            .ok_or_else(|| RowsError(format!("queue {name} has a task and has no row")))?;
        let queue = row.mut_queue();
        match (was_open, is_open) {
            (false, true) => queue.open_tasks += 1,
            (true, false) => queue.open_tasks = queue.open_tasks.checked_sub(1).expect("an open task was counted"),
            (true, true) | (false, false) => {}
        }
        match (was_leased, is_leased) {
            (false, true) => take(queue, &demand(new.get_task())),
            (true, false) => release(queue, &demand(new.get_task())),
            (true, true) | (false, false) => {}
        }
        Self::put(machine, row);
        Ok(())
    }
}

fn take(queue: &mut Queue, demand: &Resources) {
    const GUARDED: &str = "the guard of Assign refuses what does not fit the counters";
    queue.running_tasks += 1;
    let usage = queue.mut_usage();
    usage.cpu_milli = usage.cpu_milli.checked_add(demand.cpu_milli).expect(GUARDED);
    usage.memory_bytes = usage.memory_bytes.checked_add(demand.memory_bytes).expect(GUARDED);
    usage.gpus = usage.gpus.checked_add(demand.gpus).expect(GUARDED);
    usage.slots = usage.slots.checked_add(demand.slots).expect(GUARDED);
}

fn release(queue: &mut Queue, demand: &Resources) {
    const TAKEN: &str = "a lease gives back what it took";
    queue.running_tasks = queue.running_tasks.checked_sub(1).expect(TAKEN);
    let usage = queue.mut_usage();
    usage.cpu_milli = usage.cpu_milli.checked_sub(demand.cpu_milli).expect(TAKEN);
    usage.memory_bytes = usage.memory_bytes.checked_sub(demand.memory_bytes).expect(TAKEN);
    usage.gpus = usage.gpus.checked_sub(demand.gpus).expect(TAKEN);
    usage.slots = usage.slots.checked_sub(demand.slots).expect(TAKEN);
}
