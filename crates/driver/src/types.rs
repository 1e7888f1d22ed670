//! Nouns of the driver's interface: nothing of raft-rs, RocksDB, gRPC or a protobuf of ours stands in a signature.

use bytes::Bytes;

/// Index of a log entry; 0 is "before the log".
pub type Index = u64;
/// Raft term.
pub type Term = u64;
/// Id of a replica; never 0, never reused.
pub type NodeId = u64;

/// What an entry is for; decided by the entry's type, never by whether its data is empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EntryKind {
    /// Packed payloads of proposals, or the empty entry of a new leader.
    Normal,
    /// A membership change (raft's first form).
    ConfChange,
    /// A membership change (joint form); empty data leaves the joint configuration.
    ConfChangeV2,
}

/// One entry of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its place.
    pub index: Index,
    /// The term in which it was proposed.
    pub term: Term,
    /// What it is for.
    pub kind: EntryKind,
    /// Packed payloads (`pack`), or an encoded change.
    pub data: Bytes,
    /// Of changes: the address and request id of the member.
    pub context: Bytes,
}

/// What a replica must remember of its votes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HardState {
    /// Current term.
    pub term: Term,
    /// Voted for in that term; 0: nobody.
    pub vote: NodeId,
    /// Highest index known to be committed.
    pub commit: Index,
}

/// Raft's configuration as of some index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfState {
    /// Voters.
    pub voters: Vec<NodeId>,
    /// Learners.
    pub learners: Vec<NodeId>,
    /// Voters of the outgoing half while joint.
    pub voters_outgoing: Vec<NodeId>,
    /// Learners to be when the joint configuration is left.
    pub learners_next: Vec<NodeId>,
    /// The leader leaves the joint configuration by itself.
    pub auto_leave: bool,
}

impl ConfState {
    /// Whether two majorities are needed at present.
    pub fn is_joint(&self) -> bool {
        !self.voters_outgoing.is_empty()
    }

    /// Whether `node` takes part in any way.
    pub fn contains(&self, node: NodeId) -> bool {
        self.voters.contains(&node)
            || self.learners.contains(&node)
            || self.voters_outgoing.contains(&node)
            || self.learners_next.contains(&node)
    }
}

/// What a snapshot stands for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SnapshotMeta {
    /// Last index in it.
    pub index: Index,
    /// Term of that index.
    pub term: Term,
    /// Configuration as of that index.
    pub conf: ConfState,
}

/// A snapshot that can be sent or installed: its meaning, and the name under which the store keeps its files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// What it stands for.
    pub meta: SnapshotMeta,
    /// The store's name for it: on the sender a checkpoint, on the receiver the staged directory. It travels in the message; the
    /// receiver's transport replaces it by the staged name before it steps the message.
    pub name: String,
}

/// One write of the log: everything in it becomes visible together and durable together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogBatch {
    /// Delete every entry after this index first (a new leader's log won).
    pub truncate_after: Option<Index>,
    /// Contiguous entries.
    pub entries: Vec<Entry>,
    /// The new hard state.
    pub hard_state: Option<HardState>,
    /// An install: the whole log is deleted, the log starts after this snapshot, and the state directory becomes `name`.
    pub snapshot: Option<Snapshot>,
}

impl LogBatch {
    /// Nothing to write.
    pub fn is_empty(&self) -> bool {
        self.truncate_after.is_none() && self.entries.is_empty() && self.hard_state.is_none() && self.snapshot.is_none()
    }
}

/// What the log holds at boot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InitialState {
    /// Newest durable hard state; `commit` is already the maximum of it and `applied` (boot rule 4).
    pub hard_state: HardState,
    /// Configuration as of `applied`, never newer.
    pub conf: ConfState,
    /// Where the state tables stand.
    pub applied: Index,
}

/// A raft message on its way: its addressee and its encoded form. Only the driver looks inside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Addressee.
    pub to: NodeId,
    /// Sender.
    pub from: NodeId,
    /// Encoded message.
    pub data: Bytes,
    /// Set on a message that carries a snapshot: the transport sends the files first.
    pub snapshot: Option<Snapshot>,
}

/// Part of a replica in its cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// Follows a leader, or waits for one.
    #[default]
    Follower,
    /// Asks for votes (or for pre-votes).
    Candidate,
    /// Leads.
    Leader,
}

/// A replica's view of its group, for `status` and observers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// This replica.
    pub node: NodeId,
    /// Its part.
    pub role: Role,
    /// Whether it is a learner in its own configuration.
    pub learner: bool,
    /// Term.
    pub term: Term,
    /// Leader as known here; 0: none.
    pub leader: NodeId,
    /// Highest committed index known here.
    pub commit: Index,
    /// Applied to the state machine.
    pub applied: Index,
    /// First index in the log.
    pub first: Index,
    /// Last index in the log.
    pub last: Index,
    /// Newest configuration applied here.
    pub conf: ConfState,
    /// On a leader: (node, match index, recently active).
    pub progress: Vec<(NodeId, Index, bool)>,
    /// On a leader: in this term it gave leadership away, or tried to. Whoever it asked may campaign at any time, so it has no lease.
    pub transferred: bool,
}

/// A change of membership.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MembershipChange {
    /// Adds `node` as a learner; it is promoted when caught up.
    AddLearner {
        /// The joiner.
        node: NodeId,
    },
    /// Adds `node` as a learner that this leader does not promote by itself: it is to replace another. A later leader does not know that.
    AddStandby {
        /// The joiner.
        node: NodeId,
    },
    /// `new` votes in the place of `old`, in one step (joint consensus): the group never has a voter less.
    Replace {
        /// Any voter but the leader itself.
        old: NodeId,
        /// A learner that is caught up.
        new: NodeId,
    },
    /// Makes `node` a voter.
    Promote {
        /// A learner.
        node: NodeId,
    },
    /// Makes a voter a learner.
    Demote {
        /// A voter.
        node: NodeId,
    },
    /// Takes `node` out.
    Remove {
        /// Any member but the leader itself.
        node: NodeId,
    },
}
