//! Handing leadership over: when asked, and when the leader finds that it is no voter.

use super::{Core, Ticket};
use crate::error::TransferError;
use crate::traits::LogStore;
use crate::types::{ConfState, NodeId};

pub(super) struct Transfer {
    ticket: Ticket,
    deadline_tick: u64,
}

impl<L: LogStore> Core<L> {
    /// Hands leadership to `to`, or to the voter that is furthest.
    pub fn transfer(&mut self, ticket: Ticket, to: Option<NodeId>) {
        match self.start_transfer(to) {
            Ok(()) => {
                let deadline_tick = self.ticks + 2 * self.config.election_ticks;
                self.transfer = Some(Transfer { ticket, deadline_tick });
            }
            Err(error) => self.effects.transfers.push((ticket, Err(error))),
        }
    }

    fn start_transfer(&mut self, to: Option<NodeId>) -> Result<(), TransferError> {
        let refused = |reason: String| Err(TransferError::Refused { reason });
        if !self.leads() {
            return Err(TransferError::NotLeader { leader: self.leader() });
        }
        if self.transfer.is_some() || self.node.raft.lead_transferee.is_some() {
            return refused("another transfer is under way".to_owned());
        }
        let Some(to) = to.or_else(|| self.successor(&self.conf)) else {
            return refused("there is no other voter".to_owned());
        };
        if to == self.config.node {
            return refused(format!("replica {to} leads already"));
        }
        if !self.node.raft.prs().conf().voters().contains(to) {
            return refused(format!("replica {to} is no voter"));
        }
        if !self.is_healthy(to) {
            return refused(format!("replica {to} has not been heard from"));
        }
        self.note_transfer();
        self.node.transfer_leader(to);
        self.after_raft();
        Ok(())
    }

    /// The voter of `conf` that was heard from and is furthest.
    fn successor(&self, conf: &ConfState) -> Option<NodeId> {
        let candidates = conf.voters.iter().copied().filter(|node| *node != self.config.node);
        candidates.max_by_key(|node| {
            let matched = self.node.raft.prs().get(*node).map_or(0, |progress| progress.matched);
            (self.is_healthy(*node), matched, std::cmp::Reverse(*node))
        })
    }

    /// A leader that was demoted still leads in raft-rs 0.7: it hands over, again and again until somebody takes it.
    pub(super) fn leave_if_no_voter(&mut self) {
        let own = self.config.node;
        let votes = self.conf.voters.contains(&own) || self.conf.voters_outgoing.contains(&own);
        if !self.leads() || votes || self.node.raft.lead_transferee.is_some() {
            return;
        }
        if let Some(to) = self.successor(&self.conf) {
            slog::info!(self.logger, "this leader is no voter: handing leadership over"; "to" => to);
            self.note_transfer();
            self.node.transfer_leader(to);
            self.after_raft();
        }
    }

    /// Before this leader is taken out of the configuration: asks the best voter of `next` to campaign, and steps down.
    pub(super) fn abdicate(&mut self, next: &ConfState) {
        let to = self.successor(next);
        slog::info!(self.logger, "this leader is no member any more: stepping down"; "to" => to.unwrap_or(0));
        if let Some(to) = to {
            self.note_transfer();
            self.node.raft.send_timeout_now(to);
        }
        let term = self.node.raft.term;
        self.node.raft.become_follower(term, 0);
        self.after_raft();
    }

    pub(super) fn tick_transfer(&mut self) {
        if self.transfer.as_ref().is_some_and(|transfer| transfer.deadline_tick <= self.ticks) {
            if self.leads() {
                self.node.raft.abort_leader_transfer();
                self.after_raft();
            }
            self.end_transfer(Err(TransferError::TimedOut));
        }
    }

    /// Done when somebody else leads.
    pub(super) fn settle_transfer(&mut self) {
        let leader = self.leader();
        if leader != 0 && leader != self.config.node {
            self.end_transfer(Ok(leader));
        }
    }

    fn end_transfer(&mut self, outcome: Result<NodeId, TransferError>) {
        if let Some(transfer) = self.transfer.take() {
            self.effects.transfers.push((transfer.ticket, outcome));
        }
    }
}
