//! Our errors as gRPC statuses.

use grpcio::{RpcStatus, RpcStatusCode};

/// INVALID_ARGUMENT, naming the field.
pub fn invalid(field: &str, why: impl std::fmt::Display) -> RpcStatus {
    RpcStatus::with_message(RpcStatusCode::INVALID_ARGUMENT, format!("{field}: {why}"))
}

/// A status with a message.
pub fn status(code: RpcStatusCode, message: impl Into<String>) -> RpcStatus {
    RpcStatus::with_message(code, message.into())
}

/// The status of a failed call, if the peer answered at all.
pub fn of(error: &grpcio::Error) -> Option<&RpcStatus> {
    match error {
        grpcio::Error::RpcFailure(status) => Some(status),
        _ => None,
    }
}
