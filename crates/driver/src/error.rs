//! What can go wrong for a caller. Each says whether trying again helps.

use crate::types::{Index, NodeId, Term};

/// A proposal that was applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProposeDone {
    /// Index of its entry.
    pub index: Index,
    /// Term of its entry.
    pub term: Term,
    /// Its place among the payloads of the entry, from 0.
    pub ordinal: u32,
    /// What the state machine answered.
    pub reply: bytes::Bytes,
}

/// Why a proposal was not, or perhaps not, applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Not tried here. Ask `leader` (0: nobody leads as far as is known here).
    #[error("failed to propose: this replica does not lead; leader is {leader}")]
    NotLeader {
        /// Leader as known here.
        leader: NodeId,
    },
    /// Not tried: too much is under way. Trying again later helps.
    #[error("failed to propose: this replica is busy; try again later")]
    Busy,
    /// Not tried, and never will be.
    #[error("failed to propose: a payload may have at most 256 KiB")]
    TooLarge,
    /// Certainly not applied: another leader's entry took its place. Trying again helps.
    #[error("failed to propose: another leader's entry took its place; try again")]
    Superseded,
    /// Perhaps applied, perhaps not, perhaps later: a snapshot overtook it, its deadline passed, or this replica stopped.
    /// Only a request id makes trying again safe.
    #[error("failed to learn whether the proposal was applied")]
    Unknown,
    /// Not tried: this replica has stopped.
    #[error("failed to propose: this replica has stopped")]
    Stopped,
}

/// Why a linearizable read cannot be served here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// Ask `leader` (0: nobody leads as far as is known here). Also the answer when leadership moved meanwhile.
    #[error("failed to read: this replica does not lead; leader is {leader}")]
    NotLeader {
        /// Leader as known here.
        leader: NodeId,
    },
    /// Too many reads wait. Trying again later helps.
    #[error("failed to read: this replica is busy; try again later")]
    Busy,
    /// This replica has stopped.
    #[error("failed to read: this replica has stopped")]
    Stopped,
}

/// Why a membership change was not, or perhaps not, made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// Ask `leader` (0: nobody leads as far as is known here).
    #[error("failed to change the membership: this replica does not lead; leader is {leader}")]
    NotLeader {
        /// Leader as known here.
        leader: NodeId,
    },
    /// Another change, or a transfer of leadership, is under way. Trying again later helps.
    #[error("failed to change the membership: another change or a transfer is under way; try again later")]
    Busy,
    /// It would do harm, or change nothing.
    #[error("failed to change the membership: {reason}")]
    Refused {
        /// Why, for a person.
        reason: String,
    },
    /// Certainly not made: another leader's entry took its place.
    #[error("failed to change the membership: another leader's entry took its place; look, and try again")]
    Superseded,
    /// Perhaps made: look at the configuration.
    #[error("failed to learn whether the membership changed")]
    Unknown,
    /// Not tried: this replica has stopped.
    #[error("failed to change the membership: this replica has stopped")]
    Stopped,
}

/// Why leadership stays.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransferError {
    /// Ask `leader` (0: nobody leads as far as is known here).
    #[error("failed to transfer leadership: this replica does not lead; leader is {leader}")]
    NotLeader {
        /// Leader as known here.
        leader: NodeId,
    },
    /// The target cannot lead.
    #[error("failed to transfer leadership: {reason}")]
    Refused {
        /// Why, for a person.
        reason: String,
    },
    /// The target did not take over in time. Trying again may help.
    #[error("failed to transfer leadership: the target did not take over in time")]
    TimedOut,
    /// This replica has stopped.
    #[error("failed to transfer leadership: this replica has stopped")]
    Stopped,
}

/// Why no snapshot was made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// The state machine could not.
    #[error("failed to make a snapshot: {0}")]
    Failed(String),
    /// Too much is under way. Trying again later helps.
    #[error("failed to make a snapshot: this replica is busy; try again later")]
    Busy,
    /// This replica has stopped.
    #[error("failed to make a snapshot: this replica has stopped")]
    Stopped,
}

/// Why a replica does not start. Trying again does not help.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration makes no sense.
    #[error("failed to start: {0}")]
    Config(String),
    /// Log, hard state and tables do not fit one another.
    #[error("failed to start: log and tables do not fit: {0}")]
    Inconsistent(String),
    /// A thread could not be started.
    #[error("failed to start a thread: {0}")]
    Thread(#[from] std::io::Error),
}
