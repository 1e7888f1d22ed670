//! Node rows, with what open leases take of them.

use raftgrid_proto::v1::{NodeRow, Resources};

use crate::error::Fault;
use crate::keys;
use crate::machine::Machine;
use crate::predicates::over_capacity;
use crate::read;
use crate::rows::{RowsError, Table};

/// The writer of node rows.
pub(crate) struct NodeTable;

impl NodeTable {
    pub(crate) fn put(machine: &mut Machine<'_>, row: &NodeRow) {
        machine.put(Table::Node, keys::node(&row.get_node().node_id), row);
    }

    /// A lease opens on the node.
    pub(crate) fn take(machine: &mut Machine<'_>, node_id: &str, demand: &Resources) -> Result<(), Fault> {
        Self::change(machine, node_id, |row| {
            row.open_tasks += 1;
            let allocated = row.mut_node().mut_allocated();
            allocated.cpu_milli += demand.cpu_milli;
            allocated.memory_bytes += demand.memory_bytes;
            allocated.gpus += demand.gpus;
            allocated.slots += demand.slots;
            assert_eq!(over_capacity(row.get_node()), None, "node {node_id} is allocated beyond its capacity");
        })
    }

    /// A lease on the node ends.
    pub(crate) fn release(machine: &mut Machine<'_>, node_id: &str, demand: &Resources) -> Result<(), Fault> {
        const TAKEN: &str = "a lease gives back what it took";
        Self::change(machine, node_id, |row| {
            row.open_tasks = row.open_tasks.checked_sub(1).expect(TAKEN);
            let allocated = row.mut_node().mut_allocated();
            allocated.cpu_milli = allocated.cpu_milli.checked_sub(demand.cpu_milli).expect(TAKEN);
            allocated.memory_bytes = allocated.memory_bytes.checked_sub(demand.memory_bytes).expect(TAKEN);
            allocated.gpus = allocated.gpus.checked_sub(demand.gpus).expect(TAKEN);
            allocated.slots = allocated.slots.checked_sub(demand.slots).expect(TAKEN);
        })
    }

    fn change(machine: &mut Machine<'_>, node_id: &str, change: impl FnOnce(&mut NodeRow)) -> Result<(), Fault> {
        let mut row = read::node(&machine.rows, node_id)?
            .ok_or_else(|| RowsError(format!("node {node_id} holds a lease and has no row")))?;
        change(&mut row);
        row.mut_node().active_tasks = i32::try_from(row.open_tasks).unwrap_or(i32::MAX);
        Self::put(machine, &row);
        Ok(())
    }
}
