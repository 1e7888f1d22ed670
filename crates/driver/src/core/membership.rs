//! Changes of membership: one at a time, refused when they would do harm, and learners promoted when they are caught up.

use bytes::Bytes;
use raft::eraftpb::{ConfChangeSingle, ConfChangeType, ConfChangeV2, EntryType};
use raft::{Progress, ProgressState};

use super::{conf, ChangeStart, Core, Ticket};
use crate::error::ChangeError;
use crate::limits::CHANGE_CONTEXT_BYTES_MAX;
use crate::traits::LogStore;
use crate::types::{ConfState, Index, MembershipChange, NodeId};

impl<L: LogStore> Core<L> {
    /// A membership change; `context` (the member's address, a request id) reaches the state machine with it.
    pub fn change(&mut self, ticket: Ticket, change: &MembershipChange, context: Bytes) {
        let outcome = self.try_change(change, context);
        self.effects.changes.push((ticket, outcome));
    }

    fn try_change(&mut self, change: &MembershipChange, context: Bytes) -> ChangeStart {
        if !self.leads() {
            return Err(ChangeError::NotLeader { leader: self.leader() });
        }
        self.check_change(change).map_err(|reason| ChangeError::Refused { reason })?;
        let steps = match change {
            MembershipChange::AddLearner { node }
            | MembershipChange::AddStandby { node }
            | MembershipChange::Demote { node } => vec![conf::single(*node, ConfChangeType::AddLearnerNode)],
            MembershipChange::Promote { node } => vec![conf::single(*node, ConfChangeType::AddNode)],
            MembershipChange::Remove { node } => vec![conf::single(*node, ConfChangeType::RemoveNode)],
            MembershipChange::Replace { old, new } => {
                vec![conf::single(*new, ConfChangeType::AddNode), conf::single(*old, ConfChangeType::RemoveNode)]
            }
        };
        let proposed = self.propose_changes(steps, context)?;
        if let MembershipChange::AddStandby { node } = change {
            self.demoted.insert(*node);
        }
        Ok(proposed)
    }

    fn check_change(&self, change: &MembershipChange) -> Result<(), String> {
        let (voters, learners) = (&self.conf.voters, &self.conf.learners);
        match change {
            MembershipChange::AddLearner { node: 0 } | MembershipChange::AddStandby { node: 0 } => {
                Err("0 is no replica".to_owned())
            }
            MembershipChange::AddLearner { node } | MembershipChange::AddStandby { node }
                if self.conf.contains(*node) =>
            {
                Err(format!("replica {node} is a member already"))
            }
            MembershipChange::Promote { node } | MembershipChange::Replace { new: node, .. }
                if !learners.contains(node) =>
            {
                Err(format!("replica {node} is no learner"))
            }
            MembershipChange::Promote { node } | MembershipChange::Replace { new: node, .. }
                if !self.is_caught_up(*node) =>
            {
                Err(format!("replica {node} is not caught up yet"))
            }
            MembershipChange::Demote { node } | MembershipChange::Replace { old: node, .. }
                if !voters.contains(node) =>
            {
                Err(format!("replica {node} is no voter"))
            }
            MembershipChange::Remove { node } if !self.conf.contains(*node) => {
                Err(format!("replica {node} is no member"))
            }
            // A leader without a vote stays leader in raft-rs 0.7.
            MembershipChange::Demote { node }
            | MembershipChange::Remove { node }
            | MembershipChange::Replace { old: node, .. }
                if *node == self.config.node =>
            {
                Err("it is the leader; transfer leadership first".to_owned())
            }
            MembershipChange::AddLearner { .. }
            | MembershipChange::AddStandby { .. }
            | MembershipChange::Replace { .. }
            | MembershipChange::Promote { .. }
            | MembershipChange::Demote { .. }
            | MembershipChange::Remove { .. } => Ok(()),
        }
    }

    /// Proposes `changes` as one entry; several make a joint configuration that the leader leaves by itself.
    pub(crate) fn propose_changes(&mut self, changes: Vec<ConfChangeSingle>, context: Bytes) -> ChangeStart {
        let refused = |reason: String| ChangeError::Refused { reason };
        if context.len() > CHANGE_CONTEXT_BYTES_MAX {
            return Err(refused(format!("its context is over {CHANGE_CONTEXT_BYTES_MAX} bytes")));
        }
        if !self.leads() {
            return Err(ChangeError::NotLeader { leader: self.leader() });
        }
        // raft-rs would turn a second change into an empty entry, and say nothing.
        let raft = &self.node.raft;
        if raft.has_pending_conf() || self.conf.is_joint() || raft.lead_transferee.is_some() {
            return Err(ChangeError::Busy);
        }
        let mut change = ConfChangeV2::default();
        change.set_changes(changes.into());
        let next = conf::next(&self.conf, &change).map_err(refused)?;
        self.check_quorum_of(&next).map_err(refused)?;
        let proposed = self.node.propose_conf_change(context.to_vec(), change);
        self.after_raft();
        if proposed.is_err() {
            return Err(ChangeError::Busy);
        }
        let entry = self.node.raft.raft_log.unstable_entries().last().expect("a leader appends what it is given");
        assert_eq!(entry.get_entry_type(), EntryType::EntryConfChangeV2, "raft kept the change");
        Ok((entry.index, entry.term))
    }

    /// A change after which too few healthy voters are left for a quorum, of either half, would stop the group.
    fn check_quorum_of(&self, next: &ConfState) -> Result<(), String> {
        for half in [&next.voters, &next.voters_outgoing] {
            let healthy = half.iter().filter(|node| self.is_healthy(**node)).count();
            if !half.is_empty() && healthy < half.len() / 2 + 1 {
                let unheard: Vec<_> = half.iter().filter(|node| !self.is_healthy(**node)).collect();
                return Err(format!("it would leave no quorum of healthy voters; not heard from: {unheard:?}"));
            }
        }
        Ok(())
    }

    fn is_caught_up(&self, node: NodeId) -> bool {
        let log = &self.node.raft.raft_log;
        let near = |matched: Index| matched > 0 && matched + self.config.promote_lag_entries >= log.committed;
        let caught_up = |p: &Progress| match p.state {
            ProgressState::Replicate => near(p.matched),
            // An answer to a snapshot that overtakes the report of its sending leaves raft-rs probing, and it sends nothing to a follower that
            // has everything: without new entries it would stay so for ever.
            ProgressState::Probe => p.matched > 0 && p.matched == log.last_index(),
            ProgressState::Snapshot => false,
        };
        self.node.raft.prs().get(node).is_some_and(caught_up) && self.is_healthy(node)
    }

    pub(super) fn tick_membership(&mut self) {
        self.leave_if_no_voter();
        if !self.leads() || !self.config.auto_promote || !self.node.raft.commit_to_current_term() {
            return;
        }
        let ready = |node: &&NodeId| !self.demoted.contains(node) && self.is_caught_up(**node);
        let Some(node) = self.conf.learners.iter().find(ready).copied() else { return };
        let promoted = self.propose_changes(vec![conf::single(node, ConfChangeType::AddNode)], Bytes::new());
        // Otherwise another change is under way, or too few voters are heard: the next tick looks again.
        if let Ok((index, _)) = promoted {
            slog::info!(self.logger, "promoting a learner"; "node" => node, "index" => index);
        }
    }

    pub(super) fn note_demotions(&mut self, next: &ConfState) {
        let learner_soon = |node: &NodeId| next.learners.contains(node) || next.learners_next.contains(node);
        let was_voter = |node: &NodeId| self.conf.voters.contains(node) || self.conf.voters_outgoing.contains(node);
        let all = next.learners.iter().chain(&next.learners_next);
        let fresh: Vec<NodeId> = all.copied().filter(|node| was_voter(node)).collect();
        self.demoted.extend(fresh);
        self.demoted.retain(learner_soon);
    }
}
