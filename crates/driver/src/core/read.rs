//! Linearizable reads by ReadIndex (thesis, section 6.4): one round of heartbeats for all reads of a turn.
//!
//! A context is (node, boot nonce, counter) and is never used twice: a reused one could answer a newer read with an older index.

use std::collections::BTreeMap;

use raft::ReadState;

use super::{Core, Ticket};
use crate::error::ReadError;
use crate::limits::{READS_WAITING_MAX, READ_ROUNDS_MAX};
use crate::mutant;
use crate::traits::LogStore;
use crate::types::{Index, NodeId, Term};

pub(super) struct Reads {
    node: NodeId,
    boot_nonce: u64,
    counter: u64,
    /// For the next round.
    waiting: Vec<Ticket>,
    /// Rounds that no quorum has confirmed yet, with the term they belong to.
    rounds: BTreeMap<u64, (Term, Vec<Ticket>)>,
    /// Confirmed: served when this index is applied, whoever leads by then.
    confirmed: BTreeMap<Index, Vec<Ticket>>,
    count: usize,
}

impl Reads {
    pub(super) fn new(node: NodeId, boot_nonce: u64) -> Self {
        let (waiting, rounds, confirmed) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
        Self { node, boot_nonce, counter: 0, waiting, rounds, confirmed, count: 0 }
    }

    fn next_context(&mut self) -> Vec<u8> {
        self.counter += 1;
        [self.node, self.boot_nonce, self.counter].iter().flat_map(|part| part.to_be_bytes()).collect()
    }

    fn counter_of(&self, context: &[u8]) -> Option<u64> {
        let mut parts = context.chunks_exact(8).map(|part| part.try_into().map(u64::from_be_bytes));
        let (node, nonce, counter) = (parts.next()?.ok()?, parts.next()?.ok()?, parts.next()?.ok()?);
        (node == self.node && nonce == self.boot_nonce).then_some(counter)
    }
}

impl<L: LogStore> Core<L> {
    /// A linearizable read: answered with an index when the state machine here covers it.
    pub fn read(&mut self, ticket: Ticket) {
        let refusal = if !self.leads() {
            Some(ReadError::NotLeader { leader: self.leader() })
        } else if self.reads.count >= READS_WAITING_MAX {
            Some(ReadError::Busy)
        } else {
            None
        };
        match refusal {
            Some(error) => self.effects.reads.push((ticket, Err(error))),
            None => {
                self.reads.count += 1;
                self.reads.waiting.push(ticket);
            }
        }
    }

    /// Starts a round for everybody who waits. Before a leader has committed in its term raft-rs drops the request silently,
    /// so they go on waiting here.
    pub(super) fn start_reads(&mut self) {
        if mutant::on("read_before_noop") && self.leads() && !self.node.raft.commit_to_current_term() {
            let waiting = std::mem::take(&mut self.reads.waiting);
            self.reads.confirmed.entry(self.applied).or_default().extend(waiting);
        }
        if let (true, Some(mut round)) = (mutant::on("read_context_reused"), self.reads.rounds.last_entry()) {
            round.get_mut().1.append(&mut self.reads.waiting);
        }
        let ready = self.leads() && self.node.raft.commit_to_current_term();
        if self.reads.waiting.is_empty() || !ready || self.reads.rounds.len() >= READ_ROUNDS_MAX {
            return;
        }
        let context = self.reads.next_context();
        let before = self.node.raft.pending_read_count() + self.node.raft.ready_read_count();
        self.node.read_index(context);
        let after = self.node.raft.pending_read_count() + self.node.raft.ready_read_count();
        self.after_raft();
        if after > before {
            let tickets = std::mem::take(&mut self.reads.waiting);
            self.reads.rounds.insert(self.reads.counter, (self.node.raft.term, tickets));
        }
    }

    pub(super) fn confirm_reads(&mut self, states: Vec<ReadState>) {
        for state in states {
            let Some(counter) = self.reads.counter_of(&state.request_ctx) else { continue };
            if let Some((_, tickets)) = self.reads.rounds.remove(&counter) {
                self.reads.confirmed.entry(state.index).or_default().extend(tickets);
            }
        }
    }

    /// Whether somebody waits for the next applied index: reads that a quorum has confirmed.
    pub fn awaits_applied(&self) -> bool {
        !self.reads.confirmed.is_empty()
    }

    /// Serves what is applied, and fails what leadership left behind.
    pub(super) fn settle_reads(&mut self) {
        while let Some(entry) = self.reads.confirmed.first_entry() {
            let index = *entry.key();
            if index > self.applied {
                break;
            }
            let tickets = entry.remove();
            self.reads.count -= tickets.len();
            self.effects.reads.extend(tickets.into_iter().map(|ticket| (ticket, Ok(index))));
        }
        let (leads, term) = (self.leads(), self.node.raft.term);
        let mut lost = Vec::new();
        if !leads {
            lost.append(&mut self.reads.waiting);
        }
        self.reads.rounds.retain(|_, (of, tickets)| {
            let keep = leads && *of == term;
            if !keep {
                lost.append(tickets);
            }
            keep
        });
        self.reads.count -= lost.len();
        let leader = self.leader();
        self.effects.reads.extend(lost.into_iter().map(|ticket| (ticket, Err(ReadError::NotLeader { leader }))));
    }
}
