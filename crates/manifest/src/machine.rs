//! What a command's handler works on: rows with a layer of changes, the clock and counters, the command's position.

use protobuf::Message;
use raftgrid_proto::v1::{CommandReply, MetaRow, Outcome};

use crate::overlay::Layer;
use crate::position::Position;
use crate::reply::reply;
use crate::rows::Table;
use crate::text::encode;

/// One command at work. Dropped without a trace if a guard refuses.
pub(crate) struct Machine<'a> {
    /// The rows, with what this command and the ones before it in the entry changed.
    pub(crate) rows: Layer<'a>,
    /// Clock and counters.
    pub(crate) meta: MetaRow,
    /// Of this command.
    pub(crate) position: Position,
    /// On whose behalf.
    pub(crate) principal: &'a str,
    /// "" where the command has a natural key.
    pub(crate) request_id: &'a str,
    /// Tasks that this command ended and others wait for: they are told when the handler is done.
    pub(crate) ended: Vec<u64>,
}

impl Machine<'_> {
    /// Cluster time, milliseconds.
    pub(crate) fn now_ms(&self) -> u64 {
        self.meta.cluster_time_ms
    }

    /// Cluster time in whole seconds, as clients that exist expect it.
    pub(crate) fn now_s(&self) -> i64 {
        (self.meta.cluster_time_ms / 1_000) as i64
    }

    pub(crate) fn ok(&self) -> CommandReply {
        reply(Outcome::OK, self.position)
    }

    /// "Done before": the position is that of the last change of what was asked for.
    pub(crate) fn existing(&self, position: u64) -> CommandReply {
        reply(Outcome::EXISTING, Position::from(position))
    }

    pub(crate) fn put(&mut self, table: Table, key: Vec<u8>, row: &impl Message) {
        self.rows.set(table, key, Some(encode(row)));
    }

    pub(crate) fn put_bytes(&mut self, table: Table, key: Vec<u8>, value: Vec<u8>) {
        self.rows.set(table, key, Some(value));
    }

    pub(crate) fn delete(&mut self, table: Table, key: Vec<u8>) {
        self.rows.set(table, key, None);
    }
}
