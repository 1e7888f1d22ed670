//! What comes from other replicas, and what the transport reports of them.

use raft::eraftpb::{Message as RaftMessage, MessageType};
use raft::SnapshotStatus;

use super::guard::{self, Dropped, Facts};
use super::{convert, Core};
use crate::traits::LogStore;
use crate::types::{ConfState, Message, NodeId};

impl<L: LogStore> Core<L> {
    /// A message of a peer. One that a correct peer would not send is dropped and counted; it never panics.
    ///
    /// A message with a snapshot is stepped only when its files are staged, and `message.snapshot` names them.
    pub fn step(&mut self, message: &Message) {
        let stepped = match convert::message_to(message) {
            Some(decoded) => self.step_decoded(decoded, message),
            None => Err(Dropped::Undecodable),
        };
        if let Err(reason) = stepped {
            *self.dropped.entry(reason).or_default() += 1;
            if reason == Dropped::LostLog && !self.distrusted {
                self.distrusted = true;
                slog::error!(self.logger, "the leader knows of entries that are not in this log: no votes until restart";
                    "leader" => message.from, "last" => self.node.raft.raft_log.last_index());
            }
            slog::debug!(self.logger, "dropped a message"; "from" => message.from, "reason" => ?reason);
        }
    }

    fn step_decoded(&mut self, mut decoded: RaftMessage, message: &Message) -> Result<(), Dropped> {
        let raft = &self.node.raft;
        let facts = Facts {
            node: self.config.node,
            term: raft.term,
            leader: raft.leader_id,
            leads: self.leads(),
            last_index: raft.raft_log.last_index(),
            founded: self.conf != ConfState::default(),
            installing: self.installing.is_some(),
            campaign_unsafe: self.campaign_unsafe(),
            distrusted: self.distrusted,
            low_room: self.low_room,
            is_member: &|node| raft.prs().get(node).is_some(),
        };
        guard::check(&mut decoded, message.from, message.snapshot.as_ref(), &facts)?;
        self.check_rejection(&mut decoded)?;
        if self.breaks_promise(&decoded) {
            return Err(Dropped::Promised);
        }
        let (from, kind, term) = (decoded.from, decoded.get_msg_type(), decoded.term);
        if self.conf.contains(from) {
            self.heard.insert(from, self.ticks);
        }
        if let Err(error) = self.node.step(decoded) {
            slog::debug!(self.logger, "raft did not take a message"; "from" => from, "error" => %error);
        }
        self.after_raft();
        self.note_contact(from, kind, term);
        if kind == MessageType::MsgSnapshot && self.installing.is_some() {
            self.note_restored_conf();
        }
        Ok(())
    }

    /// raft-rs #557, which 0.7.0 lacks: outside Replicate, a late rejection moves `next` to or below `matched`, and the leader
    /// sends again what was acknowledged (or, after compaction, a snapshot). A rejection at or below `matched` is stale; the
    /// hint of any other is raised to `matched`.
    fn check_rejection(&self, message: &mut RaftMessage) -> Result<(), Dropped> {
        let raft = &self.node.raft;
        let current = self.leads() && message.term == raft.term;
        if message.get_msg_type() != MessageType::MsgAppendResponse || !message.reject || !current {
            return Ok(());
        }
        let Some(progress) = raft.prs().get(message.from) else { return Ok(()) };
        if message.index <= progress.matched && progress.matched > 0 {
            return Err(Dropped::StaleRejection);
        }
        if message.log_term > 0 {
            // What raft-rs would do with the hint, done here so that its result can be bounded.
            message.reject_hint = raft.raft_log.find_conflict_by_term(message.reject_hint, message.log_term).0;
            message.log_term = 0;
        }
        message.reject_hint = message.reject_hint.max(progress.matched);
        Ok(())
    }

    /// Whether the disk here is almost full: a follower then takes no appends but the smallest. Raft sends them again when there is room.
    pub fn set_low_room(&mut self, low: bool) {
        self.low_room = low;
    }

    /// The last message to `node` did not get through.
    pub fn unreachable(&mut self, node: NodeId) {
        self.node.report_unreachable(node);
        self.after_raft();
    }

    /// A message with a snapshot was sent, or not. Every one must be reported, once.
    pub fn snapshot_sent(&mut self, to: NodeId, ok: bool) {
        let status = if ok { SnapshotStatus::Finish } else { SnapshotStatus::Failure };
        self.node.report_snapshot(to, status);
        self.after_raft();
    }
}
