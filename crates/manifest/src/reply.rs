//! Replies: what a command answers to whoever proposed it.

use raftgrid_proto::v1::{CommandReply, Outcome};

use crate::error::Fault;
use crate::position::Position;

pub(crate) fn reply(outcome: Outcome, position: Position) -> CommandReply {
    CommandReply { outcome, position: position.get(), ..CommandReply::default() }
}

/// A refusal, to be used with `?`.
pub(crate) fn refuse(outcome: Outcome, message: impl Into<String>) -> Fault {
    Fault::Refused(CommandReply { outcome, message: message.into(), ..CommandReply::default() })
}

/// INVALID, naming the field.
pub(crate) fn invalid(field: &str, why: impl std::fmt::Display) -> Fault {
    refuse(Outcome::INVALID, format!("{field}: {why}"))
}

pub(crate) fn not_found(noun: &str, id: &str) -> Fault {
    refuse(Outcome::NOT_FOUND, format!("{noun} {id} does not exist"))
}

pub(crate) fn precondition(why: impl Into<String>) -> Fault {
    refuse(Outcome::PRECONDITION, why)
}

pub(crate) fn stale_lease(task_id: &str, epoch: u64) -> Fault {
    refuse(Outcome::STALE_LEASE, format!("lease {epoch} of task {task_id} is not open"))
}
