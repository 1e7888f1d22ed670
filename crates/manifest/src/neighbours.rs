//! Affinities: whose tasks a task wants near or far. The scheduler weighs all of them; the guard of `Assign` holds the one that concerns a
//! single node, "never on a node with such a task", which stays true even if two leaders plan at once.

use raftgrid_proto::v1::{Affinity, Task, TaskRow};

use crate::error::Fault;
use crate::machine::Machine;
use crate::read;
use crate::reply::precondition;

/// Whether `other` is one of the tasks that the affinity names.
pub fn names(affinity: &Affinity, other: &Task) -> bool {
    if !affinity.job_id.is_empty() {
        return other.job_id == affinity.job_id;
    }
    let label = affinity.get_label();
    other.get_spec().labels.iter().any(|found| found.key == label.key && found.value == label.value)
}

/// Whether it speaks of the node itself.
pub fn over_nodes(affinity: &Affinity) -> bool {
    matches!(affinity.over.as_str(), "" | "node")
}

/// Refuses a node that holds a task which this one must stay away from.
pub(crate) fn guard(machine: &Machine<'_>, row: &TaskRow, node_id: &str) -> Result<(), Fault> {
    let task = row.get_task();
    let strict: Vec<&Affinity> =
        task.get_spec().affinities.iter().filter(|one| one.hard && one.anti && over_nodes(one)).collect();
    if strict.is_empty() {
        return Ok(());
    }
    for other in read::tasks_of_node(&machine.rows, node_id)? {
        if strict.iter().any(|affinity| names(affinity, other.get_task())) {
            let (id, other) = (&task.task_id, &other.get_task().task_id);
            return Err(precondition(format!("node {node_id} cannot take task {id}: it must stay away from {other}")));
        }
    }
    Ok(())
}
