//! What the sender of a gradient or of model 0 is told.

use raftgrid_proto::v1::{Ack, AckOutcome, CommandReply, Outcome};

/// Not accepted, and why.
pub(crate) fn refusal(outcome: AckOutcome, reason: String) -> Ack {
    let mut ack = Ack::new();
    ack.set_outcome(outcome);
    ack.set_reason(reason);
    ack
}

/// The reply of the machine as an answer.
pub(crate) fn ack_of(reply: CommandReply) -> Ack {
    let (success, outcome) = match reply.outcome {
        Outcome::OK => (true, AckOutcome::ACK_ACCEPTED),
        Outcome::DUPLICATE | Outcome::EXISTING => (true, AckOutcome::ACK_DUPLICATE),
        Outcome::MISMATCH => (false, AckOutcome::ACK_MISMATCH),
        Outcome::INVALID | Outcome::EXHAUSTED => (false, AckOutcome::ACK_REJECTED),
        Outcome::STALE
        | Outcome::STALE_LEASE
        | Outcome::PRECONDITION
        | Outcome::NOT_FOUND
        | Outcome::ALREADY_EXISTS
        | Outcome::OUTCOME_UNKNOWN => (false, AckOutcome::ACK_STALE),
    };
    let mut ack = Ack::new();
    ack.set_success(success);
    ack.set_outcome(outcome);
    ack.set_position(reply.position);
    let stale = reply.outcome == Outcome::STALE_LEASE;
    ack.set_reason(if stale { format!("STALE_LEASE: {}", reply.message) } else { reply.message });
    ack
}
