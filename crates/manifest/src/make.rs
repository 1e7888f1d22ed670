//! Makes commands and batches: what proposers write.

use protobuf::RepeatedField;
use raftgrid_proto::v1::{Command, CommandBatch, Command_oneof_kind};

use crate::text::encode;

/// A command of the cluster itself, or one with a natural key: no principal, no request id.
pub fn command(kind: Command_oneof_kind) -> Command {
    Command { kind: Some(kind), ..Command::default() }
}

/// A command on behalf of `principal`; `request_id` is a UUIDv7, or "" where the command has a natural key.
pub fn command_for(principal: &str, request_id: &str, kind: Command_oneof_kind) -> Command {
    Command {
        principal: principal.to_owned(),
        request_id: request_id.to_owned(),
        kind: Some(kind),
        ..Command::default()
    }
}

/// One proposal. `cluster_time_ms` is the leader's stamp; the machine keeps the maximum.
pub fn batch(cluster_time_ms: u64, commands: Vec<Command>) -> CommandBatch {
    CommandBatch { cluster_time_ms, commands: RepeatedField::from_vec(commands), ..CommandBatch::default() }
}

/// The payload of one proposal, as `apply` takes it.
pub fn encode_batch(cluster_time_ms: u64, commands: Vec<Command>) -> Vec<u8> {
    encode(&batch(cluster_time_ms, commands))
}
