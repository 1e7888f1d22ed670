//! SetMaintenance: a node is DRAINING until a time, which the leader ends, or until a person ends it.

use raftgrid_proto::v1::{CommandReply, Eligibility, SetMaintenance};

use crate::error::Handled;
use crate::machine::Machine;
use crate::read;
use crate::reply::{invalid, not_found, precondition};
use crate::tables::NodeTable;

pub(crate) fn set(machine: &mut Machine<'_>, command: &SetMaintenance) -> Handled {
    let node_id = &command.node_id;
    let mut row = read::node(&machine.rows, node_id)?.ok_or_else(|| not_found("node", node_id))?;
    let now = machine.now_ms();
    let until = command.until_ms;
    let node = row.mut_node();
    if command.off {
        if until != 0 && node.maintenance_until_ms != until {
            let why =
                format!("the maintenance of node {node_id} ends at {}, not at {until}", node.maintenance_until_ms);
            return Err(precondition(why));
        }
        node.eligibility = Eligibility::ELIGIBLE;
        node.maintenance_until_ms = 0;
    } else {
        if until != 0 && until <= now {
            return Err(invalid("until_ms", format!("must be later than now ({now}), is {until}")));
        }
        node.eligibility = Eligibility::DRAINING;
        node.maintenance_until_ms = until;
    }
    NodeTable::put(machine, &row);
    Ok(CommandReply { id: node_id.clone(), ..machine.ok() })
}
