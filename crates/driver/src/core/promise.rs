//! Contact with the leader, and what follows from it: the promise not to help another to leadership, on which leases stand; and how old what is
//! known here may be.
//!
//! raft-rs' `check_quorum` ignores requests for votes while a leader was heard within an election timeout. Two ways lead around that: a restart
//! forgets the leader, and so does any message of a higher term that is no request (the answer to a message of long ago is enough). A leader
//! that counts on a quorum's patience must not be surprised by either, so the promise is kept here, by ticks since the last word of a leader,
//! and a boot counts as one. A transfer of leadership is exempt: its leader has given up its lease (`Status::transferred`).

use raft::eraftpb::{Message as RaftMessage, MessageType};

use super::Core;
use crate::traits::LogStore;
use crate::types::{NodeId, Term};

/// What raft-rs writes into the requests of a campaign that the leader asked for.
const CAMPAIGN_TRANSFER: &[u8] = b"CampaignTransfer";

#[derive(Default)]
pub(super) struct Contact {
    /// Tick of the last word of a leader, or of the boot.
    leader_heard: u64,
    /// On a leader: the tick up to which a quorum was heard, as it was told last.
    quorum_told: u64,
    /// Term in which this replica began to hand leadership over.
    transferred: Term,
}

impl<L: LogStore> Core<L> {
    /// Whether this message asks for a vote that must not be given yet.
    pub(super) fn breaks_promise(&self, message: &RaftMessage) -> bool {
        let asks = matches!(message.get_msg_type(), MessageType::MsgRequestVote | MessageType::MsgRequestPreVote);
        let holds = self.ticks - self.contact.leader_heard < self.config.election_ticks;
        asks && self.config.hold_votes && holds && message.context.as_ref() != CAMPAIGN_TRANSFER
    }

    /// After a message was stepped: it may have been a word of the leader, or the word that makes a quorum.
    pub(super) fn note_contact(&mut self, from: NodeId, kind: MessageType, term: Term) {
        if self.leads() {
            return self.note_quorum();
        }
        let leads = matches!(kind, MessageType::MsgAppend | MessageType::MsgHeartbeat | MessageType::MsgSnapshot);
        if leads && from == self.leader() && term == self.node.raft.term {
            self.contact.leader_heard = self.ticks;
            self.effects.contact_ticks_ago = Some(0);
        }
    }

    /// On a leader: up to which tick a quorum of its voters, itself among them, was heard.
    pub(super) fn note_quorum(&mut self) {
        if !self.leads() {
            return;
        }
        let heard = |node: &NodeId| match *node == self.config.node {
            true => self.ticks,
            false => self.heard.get(node).copied().unwrap_or(0),
        };
        let of_half = |voters: &[NodeId]| {
            let mut ticks: Vec<u64> = voters.iter().map(heard).collect();
            ticks.sort_unstable_by(|a, b| b.cmp(a));
            ticks.get(voters.len() / 2).copied()
        };
        let halves = [&self.conf.voters, &self.conf.voters_outgoing];
        let Some(tick) = halves.into_iter().filter_map(|voters| of_half(voters)).min() else { return };
        if tick > self.contact.quorum_told {
            self.contact.quorum_told = tick;
            self.effects.contact_ticks_ago = Some(self.ticks - tick);
        }
    }

    /// Somebody was, or is about to be, asked to campaign at once: no quorum is patient for this leader any more.
    pub(super) fn note_transfer(&mut self) {
        self.contact.transferred = self.node.raft.term;
    }

    /// Whether leadership was given away, or tried to be, in this term.
    pub(super) fn has_transferred(&self) -> bool {
        self.contact.transferred == self.node.raft.term
    }
}
