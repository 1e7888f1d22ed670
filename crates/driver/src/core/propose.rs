//! Proposals: sent at once when idle, packed while an fsync is under way. No timer.

use bytes::Bytes;
use raft::eraftpb;

use super::{Core, Proposed, Ticket};
use crate::error::ProposeError;
use crate::limits::{ENTRY_BYTES_MAX, PAYLOAD_BYTES_MAX, PROPOSALS_WAITING_BYTES_MAX};
use crate::pack::{pack_front, FRAME_BYTES};
use crate::traits::LogStore;

impl<L: LogStore> Core<L> {
    /// A proposal. It becomes an entry in the next drain, or when the fsync under way has ended.
    pub fn propose(&mut self, ticket: Ticket, payload: Bytes) {
        if let Err(error) = self.may_propose(&payload) {
            self.effects.refused.push((ticket, error));
            return;
        }
        self.waiting_bytes += payload.len() + FRAME_BYTES;
        self.waiting.push_back((ticket, payload));
    }

    fn may_propose(&self, payload: &Bytes) -> Result<(), ProposeError> {
        if payload.len() > PAYLOAD_BYTES_MAX {
            return Err(ProposeError::TooLarge);
        }
        // On a follower raft-rs would forward it, and its outcome would never be known here.
        if !self.leads() {
            return Err(ProposeError::NotLeader { leader: self.leader() });
        }
        let lag = self.node.raft.raft_log.committed - self.applied.min(self.node.raft.raft_log.committed);
        let full = self.waiting_bytes + payload.len() > PROPOSALS_WAITING_BYTES_MAX;
        if lag > self.config.apply_lag_max || full || self.node.raft.lead_transferee.is_some() {
            return Err(ProposeError::Busy);
        }
        Ok(())
    }

    /// Turns what waits into entries: one message to raft, many entries.
    pub(super) fn flush_proposals(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        if !self.leads() {
            return self.refuse_waiting(&ProposeError::NotLeader { leader: self.leader() });
        }
        if self.is_syncing() && self.waiting_bytes < ENTRY_BYTES_MAX {
            return;
        }
        let mut message = eraftpb::Message::default();
        message.set_msg_type(eraftpb::MessageType::MsgPropose);
        message.from = self.config.node;
        let mut taken = 0;
        let mut counts = Vec::new();
        while taken < self.waiting.len() {
            let (data, count) = pack_front(self.waiting.iter().skip(taken).map(|(_, payload)| payload));
            message.mut_entries().push(eraftpb::Entry { data, ..Default::default() });
            counts.push(count);
            taken += count;
        }
        let first = self.node.raft.raft_log.last_index() + 1;
        let stepped = self.node.step(message);
        self.after_raft();
        if stepped.is_err() {
            // Too much is uncommitted, or leadership is being handed over.
            return self.refuse_waiting(&ProposeError::Busy);
        }
        let (last, term) = (self.node.raft.raft_log.last_index(), self.node.raft.term);
        assert_eq!(last + 1 - first, counts.len() as u64, "a leader appends what it is given");
        for (index, count) in (first..).zip(counts) {
            let tickets = self.waiting.drain(..count).map(|(ticket, _)| ticket).collect();
            self.effects.proposed.push(Proposed { index, term, tickets });
        }
        self.waiting_bytes = 0;
    }

    fn refuse_waiting(&mut self, error: &ProposeError) {
        self.waiting_bytes = 0;
        self.effects.refused.extend(self.waiting.drain(..).map(|(ticket, _)| (ticket, error.clone())));
    }
}
