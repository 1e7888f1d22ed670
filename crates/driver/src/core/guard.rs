//! Stands in front of raft-rs' `step`: a message of a peer that would panic it, or that breaks what a correct peer keeps, is
//! dropped and counted. The transport has checked the cluster id.
//!
//! Responses are taken from members only. Requests are taken from replicas that are not (yet) in the configuration applied
//! here: a replica that was away must hear a leader, and vote for a candidate, that joined meanwhile (thesis, section 4.1).

use raft::eraftpb::{Message as RaftMessage, MessageType};

use crate::limits::{ENTRY_BYTES_MAX, INDEX_MAX, LOW_ROOM_APPEND_BYTES_MAX, TERM_LEAP_MAX, TERM_MAX};
use crate::types::{NodeId, Snapshot};

use super::conf;
use super::convert::{conf_from, snapshot_to, sorted};

/// What the guard must know of the replica.
pub(super) struct Facts<'a> {
    pub(super) node: NodeId,
    pub(super) term: u64,
    pub(super) leader: NodeId,
    pub(super) leads: bool,
    pub(super) last_index: u64,
    pub(super) founded: bool,
    pub(super) installing: bool,
    pub(super) campaign_unsafe: bool,
    pub(super) distrusted: bool,
    pub(super) low_room: bool,
    pub(super) is_member: &'a dyn Fn(NodeId) -> bool,
}

/// Why a message was dropped. The names are those of the counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dropped {
    /// Not a raft message.
    Undecodable,
    /// From nobody, from ourselves, or for somebody else.
    Misaddressed,
    /// A type that no peer sends.
    Local,
    /// A response of a replica that is no member.
    Stranger,
    /// A term or index that no real group reaches.
    OutOfRange,
    /// Appends that are not one piece, are too large, or whose terms fall.
    MalformedAppend,
    /// A second leader in the term of the one that is known.
    SecondLeader,
    /// A snapshot without its files, or with a configuration that cannot be.
    MalformedSnapshot,
    /// An acknowledgement of what the leader does not have, or a request that is never made.
    MalformedResponse,
    /// The leader believes that we hold more than we do.
    LostLog,
    /// A vote asked of a replica that lost a part of its log.
    Distrusted,
    /// A campaign asked for while it would be unsafe, or by somebody who does not lead.
    TimeoutNow,
    /// Entries for a disk that is almost full.
    LowRoom,
    /// A rejection that is older than what is already acknowledged (raft-rs #557).
    StaleRejection,
    /// A vote asked for while this replica's promise to a leader holds (`promise`).
    Promised,
}

impl Dropped {
    /// All reasons.
    pub const ALL: [Self; 15] = [
        Self::Undecodable,
        Self::Misaddressed,
        Self::Local,
        Self::Stranger,
        Self::OutOfRange,
        Self::MalformedAppend,
        Self::SecondLeader,
        Self::MalformedSnapshot,
        Self::MalformedResponse,
        Self::LostLog,
        Self::Distrusted,
        Self::TimeoutNow,
        Self::LowRoom,
        Self::StaleRejection,
        Self::Promised,
    ];

    /// As a label of a metric.
    pub fn name(self) -> &'static str {
        match self {
            Self::Undecodable => "undecodable",
            Self::Misaddressed => "misaddressed",
            Self::Local => "local",
            Self::Stranger => "stranger",
            Self::OutOfRange => "out_of_range",
            Self::MalformedAppend => "malformed_append",
            Self::SecondLeader => "second_leader",
            Self::MalformedSnapshot => "malformed_snapshot",
            Self::MalformedResponse => "malformed_response",
            Self::LostLog => "lost_log",
            Self::Distrusted => "distrusted",
            Self::TimeoutNow => "timeout_now",
            Self::LowRoom => "low_room",
            Self::StaleRejection => "stale_rejection",
            Self::Promised => "promised",
        }
    }
}

/// Checks `message`, which replica `sender` sent as the transport knows it, and mends what may be mended.
pub(super) fn check(
    message: &mut RaftMessage,
    sender: NodeId,
    staged: Option<&Snapshot>,
    facts: &Facts<'_>,
) -> Result<(), Dropped> {
    // A replica that could speak in another's name could vote for it, and acknowledge for it.
    if message.from == 0 || message.from == facts.node || message.to != facts.node || message.from != sender {
        return Err(Dropped::Misaddressed);
    }
    let out_of_range = |index: u64| index > INDEX_MAX;
    // Members may leap: one that was led astray must be able to take the others along, or it could never be reached again.
    let stranger = facts.founded && !(facts.is_member)(message.from);
    let leaps = stranger && message.term > facts.term.saturating_add(TERM_LEAP_MAX);
    if message.term == 0
        || message.term > TERM_MAX
        || leaps
        || message.log_term > TERM_MAX
        || [message.index, message.commit, message.reject_hint].into_iter().any(out_of_range)
    {
        return Err(Dropped::OutOfRange);
    }
    match message.get_msg_type() {
        MessageType::MsgAppend => {
            from_leader(message, facts)?;
            append(message, facts)
        }
        MessageType::MsgHeartbeat => {
            from_leader(message, facts)?;
            // What the leader takes for acknowledged by us in this term must be here: acknowledgements follow the fsync.
            if message.term >= facts.term && message.commit > facts.last_index {
                return Err(Dropped::LostLog);
            }
            Ok(())
        }
        MessageType::MsgSnapshot => {
            from_leader(message, facts)?;
            snapshot(message, staged)
        }
        MessageType::MsgRequestVote | MessageType::MsgRequestPreVote => {
            if facts.distrusted {
                return Err(Dropped::Distrusted);
            }
            Ok(())
        }
        MessageType::MsgTimeoutNow => {
            let unsafe_now = facts.installing || facts.campaign_unsafe || facts.distrusted;
            if unsafe_now || message.from != facts.leader || message.term != facts.term {
                return Err(Dropped::TimeoutNow);
            }
            Ok(())
        }
        MessageType::MsgAppendResponse => {
            member(message, facts)?;
            append_response(message, facts)
        }
        MessageType::MsgHeartbeatResponse
        | MessageType::MsgRequestVoteResponse
        | MessageType::MsgRequestPreVoteResponse => member(message, facts),
        MessageType::MsgHup
        | MessageType::MsgBeat
        | MessageType::MsgPropose
        | MessageType::MsgUnreachable
        | MessageType::MsgSnapStatus
        | MessageType::MsgCheckQuorum
        | MessageType::MsgTransferLeader
        | MessageType::MsgReadIndex
        | MessageType::MsgReadIndexResp => Err(Dropped::Local),
    }
}

fn member(message: &RaftMessage, facts: &Facts<'_>) -> Result<(), Dropped> {
    if (facts.is_member)(message.from) {
        Ok(())
    } else {
        Err(Dropped::Stranger)
    }
}

fn from_leader(message: &RaftMessage, facts: &Facts<'_>) -> Result<(), Dropped> {
    let other_leads = facts.leader != 0 && facts.leader != message.from;
    if message.term == facts.term && other_leads {
        return Err(Dropped::SecondLeader);
    }
    Ok(())
}

/// Entries must follow `index` without a gap, with terms that do not fall and are not above the message's own. An anchor of
/// term 0 matches anything beyond the log in raft-rs, so it is good for index 0 only.
fn append(message: &RaftMessage, facts: &Facts<'_>) -> Result<(), Dropped> {
    if (message.index == 0) != (message.log_term == 0) || message.log_term > message.term {
        return Err(Dropped::MalformedAppend);
    }
    // Index 1 is the founding, which is in no log: whoever is not founded starts from a snapshot.
    if !facts.founded && message.index == 0 && !message.get_entries().is_empty() {
        return Err(Dropped::MalformedAppend);
    }
    let mut term = message.log_term.max(1);
    let mut index = message.index;
    for entry in message.get_entries() {
        index += 1;
        let too_large = entry.data.len() > ENTRY_BYTES_MAX || entry.context.len() > ENTRY_BYTES_MAX;
        if entry.index != index || entry.term < term || entry.term > message.term || too_large {
            return Err(Dropped::MalformedAppend);
        }
        term = entry.term;
    }
    let bytes: usize = message.get_entries().iter().map(|entry| entry.data.len() + entry.context.len()).sum();
    if facts.low_room && bytes > LOW_ROOM_APPEND_BYTES_MAX {
        return Err(Dropped::LowRoom);
    }
    Ok(())
}

/// The name that travelled is the sender's; ours is that of the staged files.
fn snapshot(message: &mut RaftMessage, staged: Option<&Snapshot>) -> Result<(), Dropped> {
    let staged = staged.ok_or(Dropped::MalformedSnapshot)?;
    let meta = message.get_snapshot().get_metadata();
    let sound = (1..=INDEX_MAX).contains(&meta.index)
        && (1..=message.term).contains(&meta.term)
        && staged.meta.index == meta.index
        && staged.meta.term == meta.term
        && sorted(&staged.meta.conf) == conf_from(meta.get_conf_state())
        && conf::check(&staged.meta.conf).is_ok();
    if !sound {
        return Err(Dropped::MalformedSnapshot);
    }
    message.set_snapshot(snapshot_to(staged));
    Ok(())
}

fn append_response(message: &mut RaftMessage, facts: &Facts<'_>) -> Result<(), Dropped> {
    // We never ask a leader for a snapshot, so nobody asks us.
    if message.request_snapshot != 0 {
        return Err(Dropped::MalformedResponse);
    }
    let current = facts.leads && message.term == facts.term;
    if current && message.index > facts.last_index {
        return Err(Dropped::MalformedResponse);
    }
    message.reject_hint = message.reject_hint.min(facts.last_index);
    Ok(())
}
