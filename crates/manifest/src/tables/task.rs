//! Task rows with their indexes, and what an open lease takes from its node. `TaskTable::put` is the only writer of `Task`, `TaskById`,
//! `TaskByStatus`, `TaskByNode`, `TaskByJob` and `TaskByQueue`, and of the counters that follow from them.
//!
//! Invariants asserted here: at most one open lease per task (1), terminal tasks never change (3), epochs rise per task (4), allocated
//! never passes capacity (8, in `NodeTable`).

use raftgrid_proto::v1::{Resources, Task, TaskRow, TaskStatus};

use crate::error::Fault;
use crate::keys;
use crate::machine::Machine;
use crate::read;
use crate::rows::Table;
use crate::tables::{JobTable, NodeTable, QueueTable};

/// What a task takes of its node. One that asks for no slot takes one.
pub(crate) fn demand(task: &Task) -> Resources {
    let mut resources = task.get_spec().get_resources().clone();
    resources.slots = resources.slots.max(1);
    resources
}

/// Whether the status is terminal.
pub(crate) fn is_over(task: &Task) -> bool {
    match task.status {
        TaskStatus::COMPLETED | TaskStatus::FAILED => true,
        TaskStatus::PENDING | TaskStatus::ASSIGNED | TaskStatus::RUNNING => false,
    }
}

/// The node that holds the open lease.
fn holder(row: &TaskRow) -> Option<&str> {
    (row.open_epoch != 0).then(|| row.get_task().get_assigned_node_id())
}

fn assert_step(old: Option<&TaskRow>, new: &TaskRow) {
    let active = matches!(new.get_task().status, TaskStatus::ASSIGNED | TaskStatus::RUNNING);
    assert_eq!(active, new.open_epoch != 0, "a lease is open exactly while a task is ASSIGNED or RUNNING");
    let Some(old) = old else { return };
    assert!(!is_over(old.get_task()), "task {} is over and must not change", old.get_task().task_id);
    if new.open_epoch != old.open_epoch && new.open_epoch != 0 {
        assert_eq!(old.open_epoch, 0, "task {} has an open lease already", old.get_task().task_id);
        assert!(new.open_epoch > old.get_task().lease_epoch, "epochs of {} must rise", old.get_task().task_id);
    }
}

/// The writer of task rows.
pub(crate) struct TaskTable;

impl TaskTable {
    /// Writes the row as of this command and lets its indexes, its node and its job follow. Rows of nodes and jobs that the caller has in
    /// hand are out of date afterwards.
    pub(crate) fn put(machine: &mut Machine<'_>, mut row: TaskRow) -> Result<TaskRow, Fault> {
        row.mut_task().revision = machine.position.get();
        let old = read::task(&machine.rows, row.sequence)?;
        assert_step(old.as_ref(), &row);
        Self::index(machine, old.as_ref(), &row);
        machine.put(Table::Task, keys::number(row.sequence), &row);

        let before = old.as_ref().and_then(holder);
        let after = holder(&row);
        if before != after {
            if let Some(node_id) = before {
                NodeTable::release(machine, node_id, &demand(row.get_task()))?;
            }
            if let Some(node_id) = after {
                NodeTable::take(machine, node_id, &demand(row.get_task()))?;
            }
        }
        QueueTable::follow(machine, old.as_ref(), &row)?;
        if row.job_sequence != 0 {
            let was_open = old.as_ref().is_some_and(|old| !is_over(old.get_task()));
            JobTable::count_task(machine, row.job_sequence, was_open, !is_over(row.get_task()))?;
        }
        Ok(row)
    }

    fn index(machine: &mut Machine<'_>, old: Option<&TaskRow>, new: &TaskRow) {
        let (sequence, task) = (new.sequence, new.get_task());
        let old_status = old.map(|old| old.get_task().status);
        if old.is_none() {
            machine.put_bytes(Table::TaskById, task.task_id.clone().into_bytes(), keys::number(sequence));
            if new.job_sequence != 0 {
                machine.put_bytes(Table::TaskByJob, keys::pair(new.job_sequence, sequence), Vec::new());
            }
            if !task.queue.is_empty() {
                machine.put_bytes(Table::TaskByQueue, keys::task_by_queue(&task.queue, sequence), Vec::new());
            }
        }
        if task.array_count > 0 {
            let key = keys::pair(new.job_sequence, sequence);
            match (old.is_none(), is_over(task)) {
                (_, true) => machine.delete(Table::OpenElement, key),
                (true, false) => machine.put_bytes(Table::OpenElement, key, Vec::new()),
                (false, false) => {}
            }
        }
        if old_status != Some(task.status) {
            if let Some(status) = old_status {
                machine.delete(Table::TaskByStatus, keys::task_by_status(status, sequence));
            }
            machine.put_bytes(Table::TaskByStatus, keys::task_by_status(task.status, sequence), Vec::new());
        }
        let before = old.and_then(holder);
        if before != holder(new) {
            if let Some(node_id) = before {
                machine.delete(Table::TaskByNode, keys::task_by_node(node_id, sequence));
            }
            if let Some(node_id) = holder(new) {
                machine.put_bytes(Table::TaskByNode, keys::task_by_node(node_id, sequence), Vec::new());
            }
        }
    }
}
