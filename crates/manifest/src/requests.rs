//! Answers kept by (principal, request id): a command that is proposed twice takes effect once. Owns `Request` and `RequestByAge`.
//!
//! Bounded by number and age. What was forgotten is never executed again: ids carry their creation time (UUIDv7), and one older than the
//! newest forgotten one is answered OUTCOME_UNKNOWN.

use raftgrid_proto::v1::{
    BeginArtifact, Command, CommandReply, Command_oneof_kind, CommitArtifact, KvCompareAndSet, KvPut, MetaRow, Outcome,
    RequestRow,
};

use crate::error::Fault;
use crate::keys;
use crate::limits::{
    ID_BYTES_MAX, REQUESTS_FORGOTTEN_PER_COMMAND, REQUESTS_MAX, REQUEST_AGE_MS_MAX, REQUEST_AHEAD_MS_MAX,
};
use crate::machine::Machine;
use crate::mutant;
use crate::overlay::Layer;
use crate::position::Position;
use crate::read;
use crate::reply::{invalid, refuse};
use crate::rows::{Rows as _, RowsError, Table};
use crate::text::{encode, hash_parts};

/// Milliseconds since 1970 out of a UUIDv7; None if it is not one.
pub(crate) fn created_ms(request_id: &str) -> Option<u64> {
    let bytes = request_id.as_bytes();
    if bytes.len() != 36 {
        return None;
    }
    for (at, &byte) in bytes.iter().enumerate() {
        let right = match at {
            8 | 13 | 18 | 23 => byte == b'-',
            14 => byte == b'7',
            19 => matches!(byte, b'8' | b'9' | b'a' | b'b' | b'A' | b'B'),
            _ => byte.is_ascii_hexdigit(),
        };
        if !right {
            return None;
        }
    }
    let high = u64::from_str_radix(&request_id[..8], 16).ok()?;
    let low = u64::from_str_radix(&request_id[9..13], 16).ok()?;
    Some(high << 16 | low)
}

/// What makes two commands the same request. What the server draws anew for each try (where the bytes go, until when) does not count.
fn digest(command: &Command) -> Vec<u8> {
    let same = match &command.kind {
        Some(Command_oneof_kind::begin_artifact(begin)) => {
            let drawn = BeginArtifact { placement: Vec::new(), expires_ms: 0, ..begin.clone() };
            Command { kind: Some(Command_oneof_kind::begin_artifact(drawn)), ..Command::default() }
        }
        // A try that was cut off may have sent the same bytes as another artifact.
        Some(Command_oneof_kind::commit_artifact(commit)) if !commit.digest.is_empty() => {
            let same = CommitArtifact { artifact_id: 0, receipts: Vec::new().into(), ..commit.clone() };
            Command { kind: Some(Command_oneof_kind::commit_artifact(same)), ..Command::default() }
        }
        Some(Command_oneof_kind::kv_put(put)) if put.artifact_id != 0 => {
            let same = KvPut { artifact_id: 0, receipts: Vec::new().into(), ..put.clone() };
            Command { kind: Some(Command_oneof_kind::kv_put(same)), ..Command::default() }
        }
        Some(Command_oneof_kind::kv_compare_and_set(swap)) if swap.artifact_id != 0 => {
            let same = KvCompareAndSet { artifact_id: 0, receipts: Vec::new().into(), ..swap.clone() };
            Command { kind: Some(Command_oneof_kind::kv_compare_and_set(same)), ..Command::default() }
        }
        kind => Command { kind: kind.clone(), ..Command::default() },
    };
    hash_parts(&[&encode(&same)])
}

/// The answer, if this request was answered before or may not be executed; None: execute it, then `keep` the reply.
pub(crate) fn answered(machine: &Machine<'_>, command: &Command) -> Result<Option<CommandReply>, Fault> {
    let id = &command.request_id;
    if id.is_empty() {
        return Ok(None);
    }
    if command.principal.len() > ID_BYTES_MAX {
        return Err(invalid("principal", format!("at most {ID_BYTES_MAX} bytes")));
    }
    let created = created_ms(id).ok_or_else(|| invalid("request_id", "must be a UUIDv7"))?;
    if mutant::on("request_ids_forgotten") {
        return Ok(None);
    }
    if let Some(row) = read::request(&machine.rows, &keys::request(&command.principal, id))? {
        if row.command_digest != digest(command) {
            return Err(refuse(Outcome::ALREADY_EXISTS, format!("request {id} was another command")));
        }
        let mut reply = row.get_reply().clone();
        if reply.outcome == Outcome::OK {
            reply.outcome = Outcome::EXISTING;
        }
        return Ok(Some(reply));
    }
    if created < machine.meta.oldest_request_ms {
        let why = format!("request {id} is older than the answers that are kept; it is not executed");
        return Err(refuse(Outcome::OUTCOME_UNKNOWN, why));
    }
    Ok(None)
}

/// Keeps the replies of one entry's commands.
#[derive(Default)]
pub(crate) struct Kept {
    /// When the oldest request that is kept was made, once a command of the entry has looked: those that follow only add newer ones.
    oldest_created_ms: Option<u64>,
}

impl Kept {
    /// Keeps a reply and forgets the oldest beyond the bounds. EXHAUSTED is not kept: the same request may be tried again later.
    pub(crate) fn keep(
        &mut self,
        rows: &mut Layer<'_>,
        meta: &mut MetaRow,
        position: Position,
        command: &Command,
        reply: &CommandReply,
    ) -> Result<(), RowsError> {
        if reply.outcome != Outcome::EXHAUSTED {
            let key = keys::request(&command.principal, &command.request_id);
            let mut row =
                RequestRow { position: position.get(), command_digest: digest(command), ..RequestRow::default() };
            // Cluster time stands still while no replica runs, so a caller may be ahead of it by any time; what is kept must not let one
            // caller's clock make the requests of all others look old.
            let ahead_max = meta.cluster_time_ms.saturating_add(REQUEST_AHEAD_MS_MAX);
            row.created_ms = created_ms(&command.request_id).unwrap_or(0).min(ahead_max);
            row.set_reply(reply.clone());
            rows.set(Table::Request, key.clone(), Some(encode(&row)));
            let age = keys::number(position.get());
            rows.note_absent(Table::RequestByAge, &age);
            rows.set(Table::RequestByAge, age, Some(key));
            meta.request_rows += 1;
        }
        self.forget(rows, meta)
    }

    fn forget(&mut self, rows: &mut Layer<'_>, meta: &mut MetaRow) -> Result<(), RowsError> {
        if self.oldest_created_ms.is_some_and(|created_ms| stays(meta, created_ms)) {
            return Ok(());
        }
        self.oldest_created_ms = None;
        let mut oldest = Vec::new();
        rows.scan(Table::RequestByAge, &[], &[], &mut |age, key| {
            oldest.push((age.to_vec(), key.to_vec()));
            oldest.len() < REQUESTS_FORGOTTEN_PER_COMMAND
        })?;
        for (age, key) in oldest {
            let row = read::request(rows, &key)?
                .ok_or_else(|| RowsError("a request is in the index of ages only".to_owned()))?;
            if stays(meta, row.created_ms) {
                self.oldest_created_ms = Some(row.created_ms);
                break;
            }
            rows.set(Table::Request, key, None);
            rows.set(Table::RequestByAge, age, None);
            meta.request_rows = meta.request_rows.saturating_sub(1);
            meta.oldest_request_ms = meta.oldest_request_ms.max(row.created_ms.saturating_add(1));
        }
        Ok(())
    }
}

/// Whether the oldest request that is kept, made at `created_ms`, is within the bounds.
fn stays(meta: &MetaRow, created_ms: u64) -> bool {
    let aged = created_ms.saturating_add(REQUEST_AGE_MS_MAX) < meta.cluster_time_ms;
    meta.request_rows <= REQUESTS_MAX && !aged
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn creation_times_are_read_out_of_uuid_v7_only() {
        assert_eq!(created_ms("018f2d3c-4b5a-7abc-8def-0123456789ab"), Some(0x018f_2d3c_4b5a));
        for wrong in [
            "",
            "retry-1",
            "018f2d3c-4b5a-4abc-8def-0123456789ab",
            "018f2d3c-4b5a-7abc-cdef-0123456789ab",
            "018f2d3c+4b5a-7abc-8def-0123456789ab",
            "018f2d3c-4b5a-7abc-8def-0123456789aé",
        ] {
            assert_eq!(created_ms(wrong), None, "{wrong}");
        }
    }
}
