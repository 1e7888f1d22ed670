//! Why an entry cannot be applied. Every one of them stops the process: a replica that skipped a command would diverge.

use raftgrid_proto::v1::CommandReply;

use crate::rows::RowsError;

/// The entry cannot be applied; a retry does not help. Business failures are replies, never this.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ApplyError {
    /// The tables cannot be read, or a row does not decode.
    #[error(transparent)]
    Rows(#[from] RowsError),
    /// A payload is not a `CommandBatch`.
    #[error("failed to decode payload {payload} of entry {index}; this replica must stop: {cause}")]
    Payload {
        /// Of the entry.
        index: u64,
        /// Its place in the entry, from 0.
        payload: usize,
        /// What the decoder said.
        cause: String,
    },
    /// A command of a kind that this binary does not know.
    #[error("failed to apply entry {index}: it holds a command that this version does not know; upgrade this replica")]
    UnknownCommand {
        /// Of the entry.
        index: u64,
    },
    /// The cluster moved on to a version that this binary does not know.
    #[error("failed to apply entry {index}: it sets machine version {wanted}, this replica knows {known} at most; upgrade this replica")]
    UnknownVersion {
        /// Of the entry.
        index: u64,
        /// The version set.
        wanted: u64,
        /// The newest that is known here.
        known: u64,
    },
}

/// How a command ends when it takes no effect.
pub(crate) enum Fault {
    /// A guard said no: the reply; what the command wrote is dropped.
    Refused(CommandReply),
    /// The process must stop.
    Stop(ApplyError),
}

impl From<RowsError> for Fault {
    fn from(error: RowsError) -> Self {
        Self::Stop(ApplyError::Rows(error))
    }
}

/// What a command's handler gives.
pub(crate) type Handled = Result<CommandReply, Fault>;
