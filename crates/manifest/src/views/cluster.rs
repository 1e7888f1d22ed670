//! The cluster: its clock, its members, the digest of its state.

use raftgrid_proto::v1::{CommandReply, MemberRow, MetaRow};

use crate::keys;
use crate::read;
use crate::rows::{Rows, RowsError, Table};

/// Clock, counters, machine version.
pub fn meta(rows: &dyn Rows) -> Result<MetaRow, RowsError> {
    read::meta(rows)
}

/// Addresses of the replicas, in order of their id; of those that were not removed. Who votes is Raft's configuration.
pub fn members(rows: &dyn Rows) -> Result<Vec<MemberRow>, RowsError> {
    read::members(rows)
}

/// The same with those that were removed: their ids are never used again.
pub fn members_ever(rows: &dyn Rows) -> Result<Vec<MemberRow>, RowsError> {
    read::members_ever(rows)
}

/// The digest of all rows, 32 bytes; equal on replicas at an equal applied index.
pub fn digest(rows: &dyn Rows) -> Result<Vec<u8>, RowsError> {
    Ok(rows.get(Table::Digest, keys::ONLY)?.unwrap_or_else(|| vec![0; 32]))
}

/// The answer that was kept for a request id, if it is still kept.
pub fn request_answer(rows: &dyn Rows, principal: &str, request_id: &str) -> Result<Option<CommandReply>, RowsError> {
    Ok(read::request(rows, &keys::request(principal, request_id))?.map(|mut row| row.take_reply()))
}
