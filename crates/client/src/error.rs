//! Why a call failed, and what to do next.

use raftgrid_rpc::chunk::ChunkError;
use raftgrid_rpc::grpcio::{self, RpcStatus, RpcStatusCode};

/// Failure of a call. `retryable` says whether the same call may succeed later.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No endpoint was given, or one that is not host:port.
    #[error("failed to use the endpoints: {0}; pass --endpoints HOST:PORT[,HOST:PORT…] or set RAFTGRID_ENDPOINTS")]
    Endpoints(String),
    /// Nobody answered, or no leader was found, until the deadline.
    #[error("failed to reach the control plane at {endpoints} within {waited_ms} ms: {cause}; check `gridctl cluster status`, then try again")]
    Unavailable {
        /// Whom we asked.
        endpoints: String,
        /// How long.
        waited_ms: u128,
        /// The last answer.
        cause: String,
    },
    /// DEADLINE_EXCEEDED: the outcome is not known; a retry with the same request id learns it.
    #[error("failed to get an answer in time: {0}; the request keeps its id, so trying again is safe")]
    Deadline(String),
    /// INVALID_ARGUMENT or OUT_OF_RANGE, naming the field.
    #[error("failed: the request is not valid: {0}; correct it and try again")]
    Invalid(String),
    /// NOT_FOUND.
    #[error(
        "failed to find it: {0}; `gridctl job list`, `gridctl task list` and `gridctl node list` show what there is"
    )]
    NotFound(String),
    /// ALREADY_EXISTS.
    #[error("failed: {0}; choose another name, or look at what exists")]
    AlreadyExists(String),
    /// FAILED_PRECONDITION with STALE_LEASE: the caller no longer owns what it writes for.
    #[error("failed: STALE_LEASE: {0}; the task was given to another attempt, stop this one")]
    StaleLease(String),
    /// FAILED_PRECONDITION or ABORTED.
    #[error("failed: {0}; the state does not allow it now")]
    Precondition(String),
    /// RESOURCE_EXHAUSTED: a queue is full or a disk is low.
    #[error("failed: {0}; try again later")]
    Exhausted(String),
    /// UNIMPLEMENTED.
    #[error("failed: this server does not have the call ({0}); its release is older, or the part is not built yet")]
    Unimplemented(String),
    /// PERMISSION_DENIED or UNAUTHENTICATED.
    #[error("failed: not allowed: {0}")]
    Denied(String),
    /// INTERNAL or UNKNOWN: a person must look at the server's log.
    #[error("failed: the server reports: {0}; look at its log")]
    Internal(String),
    /// The server took the request and said no.
    #[error("failed: refused: {0}")]
    Refused(String),
    /// Bytes of a stream did not check out; the stream is asked for again until the deadline.
    #[error("failed to verify the bytes: {0}; try again")]
    Bytes(#[from] ChunkError),
    /// Reading or writing a file on this side.
    #[error("failed to read or write: {0}")]
    Io(#[from] std::io::Error),
    /// A watch fell behind what is kept.
    #[error("failed to go on watching: the history was compacted; list again and watch from there")]
    Compacted,
}

impl ClientError {
    /// Whether the same call may succeed on another endpoint or a moment later.
    pub fn retryable(&self) -> bool {
        match self {
            Self::Unavailable { .. } | Self::Deadline(_) | Self::Exhausted(_) | Self::Bytes(_) => true,
            Self::Endpoints(_)
            | Self::Invalid(_)
            | Self::NotFound(_)
            | Self::AlreadyExists(_)
            | Self::StaleLease(_)
            | Self::Precondition(_)
            | Self::Unimplemented(_)
            | Self::Denied(_)
            | Self::Internal(_)
            | Self::Refused(_)
            | Self::Io(_)
            | Self::Compacted => false,
        }
    }

    /// The typed error of a gRPC failure at `endpoint`.
    pub(crate) fn of(endpoint: &str, error: grpcio::Error) -> Self {
        match error {
            grpcio::Error::RpcFailure(status) => Self::of_status(endpoint, &status),
            other => Self::unavailable(endpoint, other.to_string()),
        }
    }

    pub(crate) fn unavailable(endpoint: &str, cause: String) -> Self {
        Self::Unavailable { endpoints: endpoint.to_owned(), waited_ms: 0, cause }
    }

    fn of_status(endpoint: &str, status: &RpcStatus) -> Self {
        let message = status.message().to_owned();
        match status.code() {
            // A server that stops cancels what it serves; nobody of ours cancels and then looks at the result.
            RpcStatusCode::UNAVAILABLE | RpcStatusCode::CANCELLED => Self::unavailable(endpoint, message),
            // Bytes that changed on the way or on one replica's disk: the stream is sent, or asked of another one, again.
            RpcStatusCode::DATA_LOSS => Self::unavailable(endpoint, format!("damaged bytes: {message}")),
            RpcStatusCode::DEADLINE_EXCEEDED => Self::Deadline(message),
            RpcStatusCode::INVALID_ARGUMENT | RpcStatusCode::OUT_OF_RANGE => Self::Invalid(message),
            RpcStatusCode::NOT_FOUND => Self::NotFound(message),
            RpcStatusCode::ALREADY_EXISTS => Self::AlreadyExists(message),
            RpcStatusCode::FAILED_PRECONDITION | RpcStatusCode::ABORTED => {
                if message.contains("STALE_LEASE") {
                    Self::StaleLease(message)
                } else {
                    Self::Precondition(message)
                }
            }
            RpcStatusCode::RESOURCE_EXHAUSTED => Self::Exhausted(message),
            RpcStatusCode::UNIMPLEMENTED => Self::Unimplemented(message),
            RpcStatusCode::PERMISSION_DENIED | RpcStatusCode::UNAUTHENTICATED => Self::Denied(message),
            code => Self::Internal(format!("{code}: {message}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_lease_is_told_apart_from_other_preconditions_and_is_not_tried_again() {
        let of = |message: &str| {
            let status = RpcStatus::with_message(RpcStatusCode::FAILED_PRECONDITION, message.to_owned());
            ClientError::of("a:1", grpcio::Error::RpcFailure(status))
        };
        assert!(matches!(of("STALE_LEASE: task-1 epoch 7"), ClientError::StaleLease(_)));
        assert!(matches!(of("the job is over"), ClientError::Precondition(_)));
        assert!(!of("STALE_LEASE").retryable() && !of("x").retryable());
    }

    #[test]
    fn only_failures_that_time_or_another_endpoint_can_heal_are_tried_again() {
        let of = |code| ClientError::of("a:1", grpcio::Error::RpcFailure(RpcStatus::new(code)));
        for code in [
            RpcStatusCode::UNAVAILABLE,
            RpcStatusCode::DEADLINE_EXCEEDED,
            RpcStatusCode::CANCELLED,
            RpcStatusCode::RESOURCE_EXHAUSTED,
            RpcStatusCode::DATA_LOSS,
        ] {
            assert!(of(code).retryable(), "{code}");
        }
        for code in [RpcStatusCode::INVALID_ARGUMENT, RpcStatusCode::NOT_FOUND, RpcStatusCode::UNIMPLEMENTED] {
            assert!(!of(code).retryable(), "{code}");
        }
    }
}
