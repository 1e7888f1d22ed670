//! One turn of the raft side: reads completions, then peers, then clients, drains the core once, and carries out the effects. It waits for
//! nothing and knows no clock: the thread `raft` runs it, and so does whoever runs a replica by hand (`manual`).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crossbeam::channel::{Receiver, Sender};

use super::apply_turn::{unknown, Job};
use super::handle::{
    ChangeReply, ClientInput, Completion, PeerInput, ProposeReply, ReadReply, Shared, SnapshotReply, TransferReply,
    Waiter,
};
use super::told::Told;
use super::{Config, Fatal};
use crate::core::{ApplyTask, Core, Dropped, Effects, Ticket};
use crate::error::{ChangeError, ProposeError};
use crate::limits::INPUTS_PER_TURN_MAX;
use crate::metrics::Metrics;
use crate::traits::{LogStore, Observer, SyncMark, Transport};
use crate::types::Entry;
use crate::waiters::Waiters;

/// Bytes that an entry takes in memory beside its data, roughly.
const ENTRY_OVERHEAD_BYTES: usize = 96;
/// Messages of peers that may arrive during one fsync without the thread being busy: five replicas acknowledge one append.
const ACKNOWLEDGEMENTS: usize = 4;

pub(super) struct Inboxes {
    pub(super) completions: Receiver<Completion>,
    pub(super) peers: Receiver<PeerInput>,
    pub(super) clients: Receiver<ClientInput>,
}

/// Who waits for an answer of the core, by ticket.
#[derive(Default)]
pub(super) struct Pending {
    next_ticket: Ticket,
    proposals: BTreeMap<Ticket, ProposeReply>,
    reads: BTreeMap<Ticket, ReadReply>,
    changes: BTreeMap<Ticket, ChangeReply>,
    transfers: BTreeMap<Ticket, TransferReply>,
    snapshots: BTreeMap<Ticket, SnapshotReply>,
}

impl Pending {
    fn ticket(&mut self) -> Ticket {
        self.next_ticket += 1;
        self.next_ticket
    }
}

pub(super) struct RaftTurn<L: LogStore, T, O> {
    pub(super) core: Core<L>,
    pub(super) transport: T,
    pub(super) observer: O,
    pub(super) shared: Arc<Shared>,
    pub(super) inbox: Inboxes,
    pub(super) marks: Sender<SyncMark>,
    /// Whoever runs the turns fsyncs by itself if nothing else waits.
    pub(super) may_sync: bool,
    /// What is to be fsynced before the next turn, by whoever runs the turns.
    pub(super) sync_due: Option<SyncMark>,
    /// Number of the newest fsync that raft-sync was given.
    pub(super) handed: u64,
    /// Number of the newest fsync that has ended.
    pub(super) synced: u64,
    pub(super) jobs: Sender<Job>,
    pub(super) waiters: Arc<Mutex<Waiters<Waiter>>>,
    pub(super) queued_bytes: Arc<AtomicUsize>,
    pub(super) stop: Arc<AtomicBool>,
    pub(super) told: Arc<Told>,
    pub(super) pending: Pending,
    pub(super) config: Config,
    pub(super) ticks: u64,
    pub(super) metrics: Metrics,
    /// Dropped messages that were counted.
    pub(super) dropped: BTreeMap<Dropped, u64>,
}

impl<L: LogStore, T: Transport, O: Observer> RaftTurn<L, T, O> {
    /// Whether anything has arrived that a turn would take.
    pub(super) fn has_input(&self) -> bool {
        !(self.inboxes_are_empty() && self.told.is_empty())
    }

    fn inboxes_are_empty(&self) -> bool {
        self.inbox.completions.is_empty() && self.inbox.peers.is_empty() && self.inbox.clients.is_empty()
    }

    /// Whether clients wait, or more peers than acknowledge one append.
    pub(super) fn has_piled_up(&self) -> bool {
        !self.inbox.clients.is_empty() || self.inbox.peers.len() > ACKNOWLEDGEMENTS
    }

    /// One tick of time.
    pub(super) fn tick(&mut self) {
        self.ticks += 1;
        self.core.tick();
        self.expire();
    }

    /// The end: callbacks that still wait are told by being dropped, or here.
    pub(super) fn end(self) {
        self.stop.store(true, Ordering::SeqCst);
        let undecided = self.waiters.lock().unwrap_or_else(PoisonError::into_inner).take_all();
        undecided.into_iter().for_each(unknown);
    }

    /// Takes what else has arrived, completions first. True: stop.
    pub(super) fn take_inputs(&mut self) -> bool {
        while let Ok(completion) = self.inbox.completions.try_recv() {
            if self.completion(completion) {
                return true;
            }
        }
        self.take_told();
        for _ in 0..INPUTS_PER_TURN_MAX {
            let Ok(input) = self.inbox.peers.try_recv() else { break };
            self.peer(input);
        }
        for _ in 0..INPUTS_PER_TURN_MAX {
            let Ok(input) = self.inbox.clients.try_recv() else { break };
            self.client(input);
        }
        false
    }

    fn take_told(&mut self) {
        for applied in self.told.take() {
            self.core.applied(applied);
        }
    }

    pub(super) fn completion(&mut self, completion: Completion) -> bool {
        match completion {
            Completion::Synced(number) => {
                self.synced = self.synced.max(number);
                self.core.synced(number);
            }
            // What was told is taken with the inputs of the turn.
            Completion::Told => {}
            Completion::SnapshotBuilt(built) => {
                let counter = if built.is_ok() { &self.metrics.snapshots_made } else { &self.metrics.snapshots_failed };
                counter.inc();
                self.core.snapshot_built(built);
            }
            Completion::SnapshotSent(to, ok) => {
                let counter = if ok { &self.metrics.snapshots_sent } else { &self.metrics.snapshots_not_sent };
                counter.inc();
                self.core.snapshot_sent(to, ok);
            }
            Completion::LowRoom(low) => self.core.set_low_room(low),
            Completion::Stop => return true,
        }
        false
    }

    pub(super) fn peer(&mut self, input: PeerInput) {
        match input {
            PeerInput::Step(message) => {
                self.core.step(&message);
                self.metrics.note_dropped(&mut self.dropped, self.core.dropped());
            }
            PeerInput::Unreachable(node) => self.core.unreachable(node),
        }
    }

    pub(super) fn client(&mut self, input: ClientInput) {
        let ticket = self.pending.ticket();
        match input {
            ClientInput::Propose(payload, reply) => {
                self.pending.proposals.insert(ticket, reply);
                self.core.propose(ticket, payload);
            }
            ClientInput::Read(reply) => {
                self.pending.reads.insert(ticket, reply);
                self.core.read(ticket);
            }
            ClientInput::Change(change, context, reply) => {
                self.pending.changes.insert(ticket, reply);
                self.core.change(ticket, &change, context);
            }
            ClientInput::Transfer(to, reply) => {
                self.pending.transfers.insert(ticket, reply);
                self.core.transfer(ticket, to);
            }
            ClientInput::SnapshotNow(reply) => {
                self.pending.snapshots.insert(ticket, reply);
                self.core.snapshot_now(ticket);
            }
        }
    }

    /// Drains the core and hands its effects on. An error ends the process.
    pub(super) fn turn(&mut self) -> Result<(), Fatal> {
        let effects = self.core.drain()?;
        self.core.compact()?;
        self.carry_out(effects)?;
        let awaited = self.core.awaits_applied();
        self.told.set_awaited(awaited);
        if awaited && !self.told.is_empty() {
            // Told just before the note: nobody else will wake this side for it.
            self.take_told();
            let effects = self.core.drain()?;
            self.carry_out(effects)?;
        }
        Ok(())
    }

    /// Waiters before anything can be applied; the fsync before anything else that takes time.
    fn carry_out(&mut self, mut effects: Effects) -> Result<(), Fatal> {
        self.note_waiters(&mut effects);
        if let Some(mark) = effects.sync {
            if self.may_sync && self.handed <= self.synced && self.inboxes_are_empty() {
                self.sync_due = Some(mark);
            } else {
                self.hand_to_sync(mark)?;
            }
        }
        // Before anything is sent: whoever looks here for a lease must not be later than who was asked to campaign.
        let status = self.shared.set_status(self.core.status());
        if !effects.send.is_empty() {
            self.transport.send(effects.send);
        }
        for task in effects.apply {
            self.hand_over(task)?;
        }
        if let Some(ticks) = effects.contact_ticks_ago {
            self.observer.contact(ticks * self.config.tick_ms);
        }
        if effects.changed {
            self.observer.changed(&status);
        }
        for (ticket, error) in effects.refused {
            if let Some(reply) = self.pending.proposals.remove(&ticket) {
                reply.call(Err(error));
            }
        }
        for (ticket, outcome) in effects.reads {
            if let Some(reply) = self.pending.reads.remove(&ticket) {
                reply.call(outcome);
            }
        }
        for (ticket, outcome) in effects.transfers {
            if let Some(reply) = self.pending.transfers.remove(&ticket) {
                reply.call(outcome);
            }
        }
        for (ticket, outcome) in effects.snapshots {
            if let Some(reply) = self.pending.snapshots.remove(&ticket) {
                reply.call(outcome);
            }
        }
        Ok(())
    }

    fn hand_to_sync(&mut self, mark: SyncMark) -> Result<(), Fatal> {
        self.handed = mark.ready_number;
        // One that was due here is covered by the later one.
        self.sync_due = None;
        self.marks.send(mark).map_err(|_| Fatal::new("the thread raft-sync is gone"))
    }

    fn note_waiters(&mut self, effects: &mut Effects) {
        if effects.proposed.is_empty() && effects.changes.is_empty() {
            return;
        }
        let ticks = self.ticks;
        let mut waiters = self.waiters.lock().unwrap_or_else(PoisonError::into_inner);
        for proposed in effects.proposed.drain(..) {
            let mut replies = Vec::with_capacity(proposed.tickets.len());
            for ticket in &proposed.tickets {
                let mut reply = self.pending.proposals.remove(ticket).expect("a ticket is answered once");
                reply.set_fallback(Err(ProposeError::Unknown));
                replies.push(Waiter::Propose(reply));
            }
            waiters.insert(proposed.index, proposed.term, replies, ticks);
        }
        let mut refused = Vec::new();
        for (ticket, outcome) in effects.changes.drain(..) {
            let mut reply = self.pending.changes.remove(&ticket).expect("a ticket is answered once");
            match outcome {
                Ok((index, term)) => {
                    reply.set_fallback(Err(ChangeError::Unknown));
                    waiters.insert(index, term, vec![Waiter::Change(reply)], ticks);
                }
                Err(error) => refused.push((reply, error)),
            }
        }
        drop(waiters);
        refused.into_iter().for_each(|(reply, error)| reply.call(Err(error)));
    }

    fn hand_over(&mut self, task: ApplyTask) -> Result<(), Fatal> {
        let job = match task {
            ApplyTask::Entries(entries) => {
                let bytes: usize = entries.iter().map(entry_bytes).sum();
                let queued = self.queued_bytes.load(Ordering::SeqCst);
                match (entries.first(), entries.last()) {
                    (Some(first), Some(last)) if queued > 0 && queued + bytes > self.config.apply_queue_bytes_max => {
                        Job::Range(first.index, last.index)
                    }
                    _ => {
                        self.queued_bytes.fetch_add(bytes, Ordering::SeqCst);
                        Job::Entries(entries, bytes)
                    }
                }
            }
            ApplyTask::Restore(snapshot) => Job::Restore(snapshot),
            ApplyTask::BuildSnapshot => Job::BuildSnapshot,
        };
        self.jobs.send(job).map_err(|_| Fatal::new("the thread apply is gone"))
    }

    /// Proposals that nobody decided in time: the outcome is unknown, the request id makes a retry safe.
    fn expire(&mut self) {
        let deadline = self.config.proposal_deadline_ms.div_ceil(self.config.tick_ms);
        let before = self.ticks.saturating_sub(deadline);
        let expired = self.waiters.lock().unwrap_or_else(PoisonError::into_inner).expired(before);
        expired.into_iter().for_each(unknown);
    }
}

fn entry_bytes(entry: &Entry) -> usize {
    entry.data.len() + entry.context.len() + ENTRY_OVERHEAD_BYTES
}
