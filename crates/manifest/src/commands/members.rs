//! PutMember: addresses and store of a replica, and how it leaves. Who votes is Raft's configuration.

use raftgrid_proto::v1::{MemberLeaving, MemberRow, PutMember};

use crate::error::Handled;
use crate::keys;
use crate::limits::{NOTE_BYTES_MAX, STORE_UUID_BYTES};
use crate::machine::Machine;
use crate::read;
use crate::reply::{invalid, precondition};
use crate::rows::Table;
use crate::text::check_bytes;

/// An id belongs to the first store that said it, and is gone for good once removed.
pub(crate) fn put(machine: &mut Machine<'_>, command: &PutMember) -> Handled {
    let node_id = command.node_id;
    if node_id == 0 {
        return Err(invalid("node_id", "must not be 0"));
    }
    check_bytes("raft_address", command.raft_address.len(), NOTE_BYTES_MAX)?;
    check_bytes("client_address", command.client_address.len(), NOTE_BYTES_MAX)?;
    if !matches!(command.store_uuid.len(), 0 | STORE_UUID_BYTES) {
        return Err(invalid("store_uuid", format!("{STORE_UUID_BYTES} bytes, is {}", command.store_uuid.len())));
    }
    let known = read::member(&machine.rows, node_id)?;
    if known.as_ref().is_some_and(|row| row.removed) {
        if command.removed {
            return Ok(machine.existing(machine.position.get()));
        }
        return Err(precondition(format!("replica {node_id} was removed; node ids are never used again")));
    }
    let mut row = known.unwrap_or_else(|| MemberRow { node_id, ..MemberRow::default() });
    if !row.store_uuid.is_empty() && !command.store_uuid.is_empty() && row.store_uuid != command.store_uuid {
        return Err(precondition(format!(
            "replica {node_id} is known by another store; a replica with a new disk joins under a new id"
        )));
    }
    if command.removed {
        row = MemberRow { node_id, store_uuid: row.store_uuid, removed: true, ..MemberRow::default() };
    } else {
        keep_or_set(&mut row.raft_address, &command.raft_address);
        keep_or_set(&mut row.client_address, &command.client_address);
        if row.store_uuid.is_empty() {
            row.store_uuid.clone_from(&command.store_uuid);
        }
        row.leaving = match command.leaving {
            MemberLeaving::LEAVING_UNCHANGED => row.leaving,
            MemberLeaving::LEAVING_YES => true,
            MemberLeaving::LEAVING_NO => false,
        };
    }
    machine.put(Table::Member, keys::number(node_id), &row);
    Ok(machine.ok())
}

fn keep_or_set(place: &mut String, value: &str) {
    if !value.is_empty() {
        value.clone_into(place);
    }
}
