//! What a drain of the core asks of its runner.

use crate::error::{ChangeError, ProposeError, ReadError, SnapshotError, TransferError};
use crate::traits::SyncMark;
use crate::types::{Entry, Index, Message, NodeId, Snapshot, SnapshotMeta, Term};

/// The caller's number for a request; never reused within one core.
pub type Ticket = u64;

/// Work for the apply side, in order.
#[derive(Clone, Debug)]
pub enum ApplyTask {
    /// Committed entries, without gaps.
    Entries(Vec<Entry>),
    /// A snapshot that is durable in the log; tasks before it may be of entries that the log no longer has.
    Restore(Snapshot),
    /// Start making a snapshot; its end is told by [`Core::snapshot_built`].
    BuildSnapshot,
}

/// Proposals that became one entry: ticket i is payload i.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposed {
    /// Index of the entry.
    pub index: Index,
    /// Term of the entry.
    pub term: Term,
    /// Whose proposals are in it, in order.
    pub tickets: Vec<Ticket>,
}

/// Where the entry of a membership change stands, or why there is none.
pub type ChangeStart = Result<(Index, Term), ChangeError>;

/// What a drain asks of its runner.
#[derive(Debug, Default)]
pub struct Effects {
    /// Entries that were appended for proposals; note them before anything is applied.
    pub proposed: Vec<Proposed>,
    /// Proposals that were not tried.
    pub refused: Vec<(Ticket, ProposeError)>,
    /// Membership changes: where the entry stands, or why there is none.
    pub changes: Vec<(Ticket, ChangeStart)>,
    /// Make everything written so far durable, then call [`Core::synced`] with the mark's number.
    pub sync: Option<SyncMark>,
    /// Messages that may leave now.
    pub send: Vec<Message>,
    /// Work for the apply side.
    pub apply: Vec<ApplyTask>,
    /// Reads: the state machine here covers this index, or why not.
    pub reads: Vec<(Ticket, Result<Index, ReadError>)>,
    /// Transfers of leadership: the new leader, or why not.
    pub transfers: Vec<(Ticket, Result<NodeId, TransferError>)>,
    /// Snapshots that were asked for.
    pub snapshots: Vec<(Ticket, Result<SnapshotMeta, SnapshotError>)>,
    /// Role, term, leader or configuration is not what it was.
    pub changed: bool,
    /// There was contact, so many ticks ago: with the leader, or, on the leader, with a quorum.
    pub contact_ticks_ago: Option<u64>,
}
