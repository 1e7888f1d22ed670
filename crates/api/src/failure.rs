//! Why a call is not answered, and the gRPC status of each reason (the table of docs: "Errors").

use grpcio::{RpcStatus, RpcStatusCode};
use raftgrid_manifest::RowsError;
use raftgrid_proto::v1::{CommandReply, Outcome};
use raftgrid_replica::ports::CallError;
use raftgrid_rpc::chunk::ChunkError;
use raftgrid_rpc::status::status;

/// A call that is not answered with its message.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The leader must do it; never shown to a client.
    NotLeader { leader: u64 },
    /// UNAVAILABLE: try again; the client is told who leads.
    Unavailable(String),
    /// Anything else.
    Status(RpcStatus),
}

pub(crate) type Answer<T> = Result<T, Failure>;

impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        let message = error.to_string();
        match error {
            CallError::NotLeader { leader } => Failure::NotLeader { leader },
            CallError::Unavailable(_) => Failure::Unavailable(message),
            // Not UNAVAILABLE: without a request id a second try could do the thing twice.
            CallError::Unknown => Failure::Status(status(RpcStatusCode::DEADLINE_EXCEEDED, message)),
            CallError::Exhausted(_) => Failure::Status(status(RpcStatusCode::RESOURCE_EXHAUSTED, message)),
            CallError::Invalid(_) => Failure::Status(status(RpcStatusCode::INVALID_ARGUMENT, message)),
            CallError::Precondition(_) => Failure::Status(status(RpcStatusCode::FAILED_PRECONDITION, message)),
            CallError::NotFound(_) => Failure::Status(status(RpcStatusCode::NOT_FOUND, message)),
            CallError::Internal(_) => Failure::Status(status(RpcStatusCode::INTERNAL, message)),
        }
    }
}

impl From<RowsError> for Failure {
    fn from(error: RowsError) -> Self {
        Failure::Status(status(RpcStatusCode::INTERNAL, error.to_string()))
    }
}

impl From<ChunkError> for Failure {
    fn from(error: ChunkError) -> Self {
        let code = match &error {
            ChunkError::Offset { .. } => RpcStatusCode::INVALID_ARGUMENT,
            ChunkError::TooLong(_) => RpcStatusCode::RESOURCE_EXHAUSTED,
            ChunkError::Checksum(_) | ChunkError::Short { .. } | ChunkError::Digest => RpcStatusCode::DATA_LOSS,
        };
        Failure::Status(status(code, format!("{error}; send the stream again")))
    }
}

impl From<RpcStatus> for Failure {
    fn from(status: RpcStatus) -> Self {
        Failure::Status(status)
    }
}

/// INVALID_ARGUMENT, naming the field.
pub(crate) fn invalid(field: &str, why: impl std::fmt::Display) -> Failure {
    Failure::Status(raftgrid_rpc::status::invalid(field, why))
}

/// NOT_FOUND: "task T is not known".
pub(crate) fn not_found(what: &str, id: &str) -> Failure {
    Failure::Status(status(RpcStatusCode::NOT_FOUND, format!("{what} {id:?} is not known")))
}

/// RESOURCE_EXHAUSTED, saying which limit.
pub(crate) fn exhausted(what: &str, limit: usize) -> Failure {
    let message = format!("{what}: {limit} at once is the limit of this replica; try again later");
    Failure::Status(status(RpcStatusCode::RESOURCE_EXHAUSTED, message))
}

/// The reply, if the command took effect (now or before); else the status that stands for its outcome.
pub(crate) fn taken(reply: CommandReply) -> Answer<CommandReply> {
    let refused = |code, prefix: &str| {
        let said = reply.get_message();
        let message = match (prefix.is_empty(), said.is_empty()) {
            (true, _) => said.to_owned(),
            (false, true) => prefix.to_owned(),
            (false, false) if said.starts_with(prefix) => said.to_owned(),
            (false, false) => format!("{prefix}: {said}"),
        };
        Err(Failure::Status(status(code, message)))
    };
    match reply.get_outcome() {
        Outcome::OK | Outcome::EXISTING | Outcome::DUPLICATE => Ok(reply),
        Outcome::NOT_FOUND => refused(RpcStatusCode::NOT_FOUND, ""),
        Outcome::ALREADY_EXISTS => refused(RpcStatusCode::ALREADY_EXISTS, ""),
        Outcome::STALE_LEASE => refused(RpcStatusCode::FAILED_PRECONDITION, "STALE_LEASE"),
        Outcome::PRECONDITION => refused(RpcStatusCode::FAILED_PRECONDITION, ""),
        Outcome::INVALID => refused(RpcStatusCode::INVALID_ARGUMENT, ""),
        Outcome::OUTCOME_UNKNOWN => refused(RpcStatusCode::FAILED_PRECONDITION, "OUTCOME_UNKNOWN"),
        Outcome::MISMATCH => refused(RpcStatusCode::FAILED_PRECONDITION, "MISMATCH"),
        Outcome::STALE => refused(RpcStatusCode::FAILED_PRECONDITION, "STALE"),
        Outcome::EXHAUSTED => refused(RpcStatusCode::RESOURCE_EXHAUSTED, ""),
    }
}
