//! SetMachineVersion and PutMember.

use raftgrid_proto::v1::{MemberRow, PutMember, SetMachineVersion};

use crate::commands::MACHINE_VERSION;
use crate::error::{ApplyError, Fault, Handled};
use crate::keys;
use crate::limits::NOTE_BYTES_MAX;
use crate::machine::Machine;
use crate::reply::{invalid, precondition};
use crate::rows::Table;
use crate::text::check_bytes;

/// The version never falls. One that this binary does not know stops it: the replicas that know it go on in a way it could not follow.
pub(crate) fn set_version(machine: &mut Machine<'_>, command: &SetMachineVersion) -> Handled {
    if command.version > MACHINE_VERSION {
        return Err(Fault::Stop(ApplyError::UnknownVersion {
            index: machine.position.index(),
            wanted: command.version,
            known: MACHINE_VERSION,
        }));
    }
    let current = machine.meta.machine_version;
    if command.version < current {
        return Err(precondition(format!("the cluster is at machine version {current}, which never falls")));
    }
    machine.meta.machine_version = command.version;
    Ok(machine.ok())
}

/// Addresses only; who votes is Raft's configuration.
pub(crate) fn put_member(machine: &mut Machine<'_>, command: &PutMember) -> Handled {
    if command.node_id == 0 {
        return Err(invalid("node_id", "must not be 0"));
    }
    check_bytes("raft_address", command.raft_address.len(), NOTE_BYTES_MAX)?;
    check_bytes("client_address", command.client_address.len(), NOTE_BYTES_MAX)?;
    let key = keys::number(command.node_id);
    if command.removed {
        machine.delete(Table::Member, key);
    } else {
        let row = MemberRow {
            node_id: command.node_id,
            raft_address: command.raft_address.clone(),
            client_address: command.client_address.clone(),
            ..MemberRow::default()
        };
        machine.put(Table::Member, key, &row);
    }
    Ok(machine.ok())
}
