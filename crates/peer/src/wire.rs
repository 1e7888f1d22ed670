//! Why a peer's call failed, over the wire and back without loss.

use grpcio::{RpcStatus, RpcStatusCode};
use raftgrid_replica::ports::CallError;
use raftgrid_rpc::status::status;

/// The code and the text of an error; the text is the part that is not in the code.
pub(crate) fn encode(error: CallError) -> (RpcStatusCode, String) {
    match error {
        CallError::NotLeader { leader } => (RpcStatusCode::ABORTED, leader.to_string()),
        CallError::Unavailable(why) => (RpcStatusCode::UNAVAILABLE, why),
        CallError::Exhausted(why) => (RpcStatusCode::RESOURCE_EXHAUSTED, why),
        CallError::Unknown => (RpcStatusCode::DEADLINE_EXCEEDED, String::new()),
        CallError::Invalid(why) => (RpcStatusCode::INVALID_ARGUMENT, why),
        CallError::Precondition(why) => (RpcStatusCode::FAILED_PRECONDITION, why),
        CallError::NotFound(why) => (RpcStatusCode::NOT_FOUND, why),
        CallError::Internal(why) => (RpcStatusCode::INTERNAL, why),
    }
}

/// The error again.
pub(crate) fn decode(code: RpcStatusCode, text: String) -> CallError {
    match code {
        RpcStatusCode::ABORTED => CallError::NotLeader { leader: text.parse().unwrap_or(0) },
        RpcStatusCode::UNAVAILABLE | RpcStatusCode::CANCELLED => CallError::Unavailable(text),
        RpcStatusCode::RESOURCE_EXHAUSTED => CallError::Exhausted(text),
        RpcStatusCode::DEADLINE_EXCEEDED => CallError::Unknown,
        RpcStatusCode::INVALID_ARGUMENT => CallError::Invalid(text),
        RpcStatusCode::FAILED_PRECONDITION => CallError::Precondition(text),
        RpcStatusCode::NOT_FOUND => CallError::NotFound(text),
        code => CallError::Internal(format!("{code}: {text}")),
    }
}

/// A read index on its way.
pub(crate) fn encode_index(index: u64) -> Vec<u8> {
    index.to_le_bytes().to_vec()
}

/// The index again. A replica of an older release answers something else: its callers are sent to it whole, as ever.
pub(crate) fn decode_index(bytes: &[u8], from: u64) -> Result<u64, CallError> {
    bytes.try_into().map(u64::from_le_bytes).map_err(|_| CallError::NotLeader { leader: from })
}

/// As the status of a call.
pub(crate) fn as_status(error: CallError) -> RpcStatus {
    let (code, text) = encode(error);
    status(code, text)
}

/// A stream that broke off.
pub(crate) fn broken(what: &str, error: &grpcio::Error) -> RpcStatus {
    status(RpcStatusCode::CANCELLED, format!("failed to receive {what}: {error}"))
}

/// A call that failed; `Unknown` if it may have been served nonetheless.
pub(crate) fn of(error: grpcio::Error, served: bool) -> CallError {
    match error {
        grpcio::Error::RpcFailure(status) => match status.code() {
            RpcStatusCode::UNAVAILABLE | RpcStatusCode::CANCELLED | RpcStatusCode::DEADLINE_EXCEEDED if served => {
                CallError::Unknown
            }
            RpcStatusCode::DEADLINE_EXCEEDED => CallError::Unavailable("the peer did not answer in time".to_owned()),
            code => decode(code, status.message().to_owned()),
        },
        other => CallError::Unavailable(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_survives_the_way_and_an_older_release_is_asked_otherwise() {
        assert_eq!(decode_index(&encode_index(u64::MAX - 1), 3), Ok(u64::MAX - 1));
        assert_eq!(decode_index(b"not a method that is forwarded", 3), Err(CallError::NotLeader { leader: 3 }));
    }

    #[test]
    fn every_error_survives_the_way() {
        let errors = [
            CallError::NotLeader { leader: 3 },
            CallError::Unavailable("a".to_owned()),
            CallError::Exhausted("b".to_owned()),
            CallError::Unknown,
            CallError::Invalid("c".to_owned()),
            CallError::Precondition("d".to_owned()),
            CallError::NotFound("e".to_owned()),
            CallError::Internal("13-INTERNAL: f".to_owned()),
        ];
        for error in errors {
            let (code, text) = encode(error.clone());
            let back = decode(code, text);
            match &error {
                CallError::Internal(_) => assert!(matches!(back, CallError::Internal(why) if why.ends_with('f'))),
                _ => assert_eq!(back, error),
            }
        }
    }
}
