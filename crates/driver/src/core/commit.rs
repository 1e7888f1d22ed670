//! Who knows the commit index.
//!
//! A leader that tells every follower of every commit at once sends twice the messages that a commit needs. So a follower hears of it with the
//! next append, which carries it anyway; if none goes out, whoever runs the core has it told (`tell_commit`) after a short while, and at the
//! next tick at the latest. A read index tells it, too, since its heartbeats carry it. Changes of the configuration are always told at once.

use raft::eraftpb::{Message, MessageType};

use super::Core;
use crate::traits::LogStore;

impl<L: LogStore> Core<L> {
    /// Whether this replica leads and a member has not been sent the commit index.
    pub fn owes_commit(&self) -> bool {
        if !self.config.lazy_commit || !self.leads() {
            return false;
        }
        let commit = self.node.raft.raft_log.committed;
        let told = |id: &u64| self.told_commit.get(id).is_some_and(|told| *told >= commit);
        self.node.raft.prs().iter().any(|(id, _)| *id != self.config.node && !told(id))
    }

    /// Sends it to everyone. One that is not reached hears of it with a later heartbeat.
    pub fn tell_commit(&mut self) {
        if !self.owes_commit() {
            return;
        }
        self.node.ping();
        let commit = self.node.raft.raft_log.committed;
        let members: Vec<u64> = self.node.raft.prs().iter().map(|(id, _)| *id).collect();
        self.told_commit = members.into_iter().map(|id| (id, commit)).collect();
    }

    /// Notes what is on its way out.
    pub(super) fn note_told(&mut self, messages: &[Message]) {
        if !self.config.lazy_commit {
            return;
        }
        for message in messages {
            if matches!(message.get_msg_type(), MessageType::MsgAppend | MessageType::MsgHeartbeat) {
                let told = self.told_commit.entry(message.to).or_default();
                *told = message.commit.max(*told);
            }
        }
    }
}
