//! SetRoom: what a replica says about its own disk. It stands with what the replica holds, so that whoever places bytes, and BeginArtifact's guard,
//! see both. Since machine version 6.

use raftgrid_proto::v1::SetRoom;

use crate::error::Handled;
use crate::keys;
use crate::machine::Machine;
use crate::read;
use crate::reply::not_found;
use crate::tables::put_usage;

/// The limit may be below what is held: then nothing more is placed there.
pub(crate) fn set(machine: &mut Machine<'_>, command: &SetRoom) -> Handled {
    let members = read::members_ever(&machine.rows)?;
    if !members.iter().any(|member| member.node_id == command.node_id && !member.removed) {
        return Err(not_found("replica", &command.node_id.to_string()));
    }
    let key = keys::usage_of_node(command.node_id);
    let mut row = read::usage(&machine.rows, &key)?;
    if row.bytes_max == command.bytes_max {
        return Ok(machine.existing(machine.position.get()));
    }
    row.bytes_max = command.bytes_max;
    put_usage(machine, key, &row);
    Ok(machine.ok())
}
