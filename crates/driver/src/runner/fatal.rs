//! Why a replica's process must end.

use crate::core::ApplyError;
use crate::traits::{LogError, LogReadError};

/// A failure after which the process must end: a replica that went on would acknowledge what it does not have. Trying again does not help.
#[derive(Debug, thiserror::Error)]
#[error("{cause}")]
pub struct Fatal {
    cause: String,
}

impl Fatal {
    pub(super) fn new(cause: impl Into<String>) -> Self {
        Self { cause: cause.into() }
    }
}

impl From<LogError> for Fatal {
    fn from(error: LogError) -> Self {
        Self::new(error.to_string())
    }
}

impl From<LogReadError> for Fatal {
    fn from(error: LogReadError) -> Self {
        Self::new(error.to_string())
    }
}

impl From<ApplyError> for Fatal {
    fn from(error: ApplyError) -> Self {
        Self::new(error.to_string())
    }
}
