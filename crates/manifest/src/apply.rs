//! Applies one entry: decodes its payloads, runs the commands in order, each on its own layer, and gives back the rows that changed.
//! Called by the apply thread and by nobody else; touches no disk itself.

use protobuf::Message;
use raftgrid_proto::v1::{Command, CommandBatch, CommandReply, MetaRow, Outcome};

use crate::commands;
use crate::digest::StateDigest;
use crate::error::{ApplyError, Fault};
use crate::keys;
use crate::limits::COMMANDS_PER_ENTRY_MAX;
use crate::machine::Machine;
use crate::memo::Memo;
use crate::overlay::Layer;
use crate::position::Position;
use crate::read;
use crate::reply::reply;
use crate::requests;
use crate::rows::{Change, Rows, RowsError, Table};
use crate::text::encode;

/// What an entry did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Applied {
    /// The final value of each row that changed, in order of (table, key), the digest among them. Written in one batch, or not at all.
    pub changes: Vec<Change>,
    /// One list for each payload, in it one reply for each command, in order.
    pub replies: Vec<Vec<CommandReply>>,
}

/// Applies the payloads of entry `entry_index` (each an encoded `CommandBatch`) to the rows as the entry before left them. The same rows
/// and payloads give the same answer on every replica. An error means that this replica cannot follow the log and must stop.
pub fn apply(rows: &dyn Rows, entry_index: u64, payloads: &[impl AsRef<[u8]>]) -> Result<Applied, ApplyError> {
    if payloads.is_empty() {
        return Ok(Applied::default());
    }
    let rows = &Memo::new(rows);
    let mut entry = Layer::new(rows);
    let mut kept = requests::Kept::default();
    let mut meta = read::meta(rows)?;
    let mut replies = Vec::with_capacity(payloads.len());
    let mut ordinal = 0;
    for (at, payload) in payloads.iter().enumerate() {
        let batch = CommandBatch::parse_from_bytes(payload.as_ref()).map_err(|cause| ApplyError::Payload {
            index: entry_index,
            payload: at,
            cause: cause.to_string(),
        })?;
        meta.cluster_time_ms = if crate::mutant::on("cluster_time_from_wall_clock") {
            batch.cluster_time_ms
        } else {
            meta.cluster_time_ms.max(batch.cluster_time_ms)
        };
        let mut answers = Vec::with_capacity(batch.commands.len());
        for command in batch.get_commands() {
            answers.push(if ordinal < COMMANDS_PER_ENTRY_MAX {
                execute(&mut entry, &mut meta, &mut kept, Position::new(entry_index, ordinal), command)?
            } else {
                beyond_the_entry(entry_index)
            });
            ordinal += 1;
        }
        replies.push(answers);
    }
    entry.set(Table::Meta, keys::ONLY.to_vec(), Some(encode(&meta)));
    Ok(Applied { changes: with_digest(rows, entry)?, replies })
}

/// A position has no room for this command. Leaders never pack so many; it is refused rather than fatal, since it may be answered.
fn beyond_the_entry(entry_index: u64) -> CommandReply {
    let mut refusal = reply(Outcome::EXHAUSTED, Position::new(entry_index, COMMANDS_PER_ENTRY_MAX - 1));
    refusal.message = format!("an entry holds at most {COMMANDS_PER_ENTRY_MAX} commands; propose this one again");
    refusal
}

fn execute(
    entry: &mut Layer<'_>,
    meta: &mut MetaRow,
    kept: &mut requests::Kept,
    position: Position,
    command: &Command,
) -> Result<CommandReply, ApplyError> {
    let Some(kind) = &command.kind else { return Err(ApplyError::UnknownCommand { index: position.index() }) };
    let mut machine = Machine {
        rows: Layer::new(entry),
        meta: meta.clone(),
        position,
        principal: &command.principal,
        request_id: &command.request_id,
        ended: Vec::new(),
    };
    match requests::answered(&machine, command) {
        Ok(None) => {}
        Ok(Some(reply)) => return Ok(reply),
        Err(Fault::Refused(reply)) => return Ok(placed(reply, position)),
        Err(Fault::Stop(error)) => return Err(error),
    }
    let reply = match commands::dispatch(&mut machine, kind) {
        Ok(reply) => {
            let Machine { rows, meta: after, .. } = machine;
            *meta = after;
            let changes = rows.into_changes();
            entry.absorb(changes);
            reply
        }
        Err(Fault::Refused(reply)) => placed(reply, position),
        Err(Fault::Stop(error)) => return Err(error),
    };
    if !command.request_id.is_empty() {
        kept.keep(entry, meta, position, command, &reply)?;
    }
    Ok(reply)
}

fn placed(mut reply: CommandReply, position: Position) -> CommandReply {
    if reply.position == 0 {
        reply.position = position.get();
    }
    reply
}

/// The changes of the entry and, after them, the digest of the state that they make.
pub(crate) fn with_digest(rows: &dyn Rows, entry: Layer<'_>) -> Result<Vec<Change>, RowsError> {
    let mut digest = match rows.get(Table::Digest, keys::ONLY)? {
        Some(bytes) => {
            StateDigest::from_bytes(&bytes).ok_or_else(|| RowsError("the digest row is not 32 bytes".to_owned()))?
        }
        None => StateDigest::default(),
    };
    let mut changes = Vec::new();
    for (change, old) in entry.into_effective()? {
        if let Some(old) = old {
            digest.subtract_row(change.table, &change.key, &old);
        }
        if let Some(new) = &change.value {
            digest.add_row(change.table, &change.key, new);
        }
        changes.push(change);
    }
    if !changes.is_empty() {
        changes.push(Change { table: Table::Digest, key: keys::ONLY.to_vec(), value: Some(digest.to_bytes()) });
    }
    Ok(changes)
}

/// The digest, recomputed from all rows: what `check_invariants` compares the kept one with.
pub(crate) fn full_digest(rows: &dyn Rows) -> Result<Vec<u8>, RowsError> {
    let mut digest = StateDigest::default();
    for table in crate::rows::TABLES {
        if table != Table::Digest {
            rows.scan(table, &[], &[], &mut |key, value| {
                digest.add_row(table, key, value);
                true
            })?;
        }
    }
    Ok(digest.to_bytes())
}
