//! A state that goes on in another group: after a restore, or after a lost majority. Called offline by whoever makes the new base, never by
//! the apply thread: what is changed here is part of the snapshot that the new group starts from, so every replica has it.
//!
//! Epochs and ids are positions, and the new group's log starts far above the old one's: nothing that the old group gave out after this state
//! can be given out again.

use protobuf::RepeatedField;
use raftgrid_proto::v1::{
    ArtifactRow, ArtifactState, Command, Command_oneof_kind, ExpireLease, MemberRow, PutMember, Receipt, TaskStatus,
};

use crate::apply::with_digest;
use crate::coding::CODE_PLAIN_COPIES;
use crate::keys;
use crate::make::{command, encode_batch};
use crate::overlay::Layer;
use crate::read;
use crate::rows::{Change, Rows, RowsError, Table};
use crate::tables::{count_all, USAGE_SINCE};
use crate::text::encode;

/// Commands in one payload of `end_leases`; far below what an entry holds.
const COMMANDS_PER_PAYLOAD: usize = 10_000;

/// Payloads that end every open lease, each for an entry of its own: the tasks are tried again, and what their old attempts still send is stale.
pub fn end_leases(rows: &dyn Rows, reason: &str) -> Result<Vec<Vec<u8>>, RowsError> {
    let mut commands: Vec<Command> = Vec::new();
    for status in [TaskStatus::ASSIGNED, TaskStatus::RUNNING] {
        for row in read::tasks_of_status(rows, status)? {
            if row.open_epoch != 0 {
                let expire = ExpireLease {
                    task_id: row.get_task().task_id.clone(),
                    epoch: row.open_epoch,
                    reason: reason.to_owned(),
                    ..ExpireLease::default()
                };
                commands.push(command(Command_oneof_kind::expire_lease(expire)));
            }
        }
    }
    Ok(commands.chunks(COMMANDS_PER_PAYLOAD).map(|some| encode_batch(0, some.to_vec())).collect())
}

/// The payload that closes the ids of replicas which are no more: they are never used again.
pub fn close_members(nodes: &[u64]) -> Vec<u8> {
    let close = |node: &u64| {
        let put = PutMember { node_id: *node, removed: true, ..PutMember::default() };
        command(Command_oneof_kind::put_member(put))
    };
    encode_batch(0, nodes.iter().map(close).collect())
}

/// Changes that give the state to other replicas: their rows in place of the old members', and artifacts as plain copies where they are now. `holders`
/// names the replicas that have all of a committed artifact's bytes; an artifact that was not committed has none, and goes.
pub fn settle(
    rows: &dyn Rows,
    members: &[MemberRow],
    holders: &dyn Fn(&ArtifactRow) -> Vec<u64>,
) -> Result<Vec<Change>, RowsError> {
    let mut layer = Layer::new(rows);
    for old in read::members_ever(rows)? {
        layer.set(Table::Member, keys::number(old.node_id), None);
    }
    for member in members {
        layer.set(Table::Member, keys::number(member.node_id), Some(encode(member)));
    }
    let mut moved = Vec::new();
    read::each(rows, Table::Artifact, &[], &[], |row: ArtifactRow| {
        moved.push(row);
        true
    })?;
    for mut row in moved {
        let key = keys::number(row.artifact_id);
        match row.state {
            ArtifactState::ARTIFACT_COMMITTED => {
                row.placement = holders(&row);
                // They are given whole, under the number that plain copies have from the start.
                row.code_id = CODE_PLAIN_COPIES;
                row.generation = 0;
                row.receipts = receipts(&row);
                layer.set(Table::Artifact, key, Some(encode(&row)));
            }
            ArtifactState::ARTIFACT_BEGUN | ArtifactState::ARTIFACT_DELETING => layer.set(Table::Artifact, key, None),
        }
    }
    recount(&mut layer)?;
    with_digest(rows, layer)
}

/// What the artifacts add up to now; what replicas that are no more said about their disks goes.
fn recount(layer: &mut Layer<'_>) -> Result<(), RowsError> {
    if read::meta(&*layer)?.machine_version < USAGE_SINCE {
        return Ok(());
    }
    let mut old = Vec::new();
    layer.scan(Table::Usage, &[], &[], &mut |key, _| {
        old.push(key.to_vec());
        true
    })?;
    old.into_iter().for_each(|key| layer.set(Table::Usage, key, None));
    for (key, row) in count_all(&*layer)? {
        layer.set(Table::Usage, key, Some(encode(&row)));
    }
    Ok(())
}

fn receipts(row: &ArtifactRow) -> RepeatedField<Receipt> {
    let one = |node: &u64| Receipt { node_id: *node, digest: row.digest.clone(), ..Receipt::default() };
    row.placement.iter().map(one).collect()
}
